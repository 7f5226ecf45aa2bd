# SPDX-License-Identifier: Apache-2.0

"""What an agent asks the kernel of TAPs."""

import dataclasses

from tests import base
from vif_plug_tapmac.agent import dirty
from vif_plug_tapmac.agent import taps
from vif_plug_tapmac.wanted.port import Groups

_GROUPS = Groups(29793, 29795, 29796)


class GuardedTest(base.FunctionalTestCase):

    def test_many_are_asked_for_by_one_socket(self):
        opened = []

        class Netlink(taps.nl.Netlink):

            def __init__(self, *arguments, **options):
                opened.append(self)
                super().__init__(*arguments, **options)

        self.patch(taps.nl, 'Netlink', Netlink)
        found = []
        for number in range(3):
            vif = base.numbered_vif(number)
            self.plug(vif)
            link = self.host.link(vif.vif_name)
            found.append(taps.Tap(vif.id, link.index, vif.vif_name,
                                  link.master))
        guarded, unguarded, gone = found
        self.host.set(guarded.name, group=_GROUPS.agent)
        self.host.delete(gone.name)
        another = dataclasses.replace(unguarded, name='another')
        del opened[:]
        self.assertEqual(
            {guarded: True, unguarded: False, gone: None, another: None},
            taps.Taps(_GROUPS, dirty.Dirty()).guarded([*found, another]))
        self.assertEqual(1, len(opened))
