# SPDX-License-Identifier: Apache-2.0

"""The screens that "tapmac" of the documentation shows, made anew.

Test strategy: the host of these screens is built, each command of theirs is
run, and what it prints is what the page has, but for the time.
"""

import re
import shlex

from tests import base
from tests import documents
from tests.functional import test_operator

_TIME = re.compile(r'\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d')
_VIF = base.make_vif(
    id='7c9e6679-7425-40de-944b-e07fc1f90ae7', vif_name='tap7c9e6679-74',
    address='fa:16:3e:5a:01:17')


class ScreensTest(test_operator.OperatorTestCase):

    def build(self):
        """Have two guests, with a bridge whose uplink is down."""
        self.domains.define((base.TAP, base.GUEST_MAC, True, 1),
                            (_VIF.vif_name, _VIF.address, True, 1))
        self.plug()
        self.plug(_VIF)
        for vif in base.make_vif(), _VIF:
            self.hold(vif.vif_name, vif.address)
        self.host.set(base.TAP, mtu=1400)
        self.host.set(_VIF.vif_name, master=0)
        self.host.ip.brport('set', index=self.host.link(base.TAP).index,
                            bcast_flood=0)
        self.host.add_bridge('br200')
        self.plug(base.numbered_vif(
            3, id='93b5a1f0-2f4e-4d55-8f0e-6c1f0a3f7b21',
            vif_name='tap93b5a1f0-2f', bridge_name='br200'))
        self.domains.define(
            (base.TAP, base.GUEST_MAC, True, 1),
            (_VIF.vif_name, _VIF.address, True, 1),
            ('tap93b5a1f0-2f', 'fa:16:3e:00:00:03', False, 1))
        self.host.set('br200', state='down')

    def test_screens(self):
        self.only_in_full()
        self.build()
        screens = [block.text for block in documents.blocks(documents.TAPMAC)
                   if block.text.startswith('$ tapmac ')]
        self.assertEqual(3, len(screens))
        for screen in screens:
            command, _, shown = screen.partition('\n')
            self.assertLessEqual(max(map(len, screen.splitlines())), 80)
            arguments = shlex.split(command)[2:]
            printed = self.run_tapmac(*arguments, returncode={
                'list': 0, 'show': 10, 'audit': 20}[arguments[0]])
            self.assertEqual(*(_TIME.sub('<time>', text.rstrip('\n'))
                               for text in (printed, shown)))
