# SPDX-License-Identifier: Apache-2.0

"""Two nova-computes on one host: what each finds, mends and removes.

Test strategy: two configurations, each of a file of its own, that differ in
their link groups, bridges, or both. What one has plugged the other finds, and
leaves as it is; whose it is, it says as far as it can know.
"""

import pathlib
import tempfile
from unittest import mock

from tests import base
from tests.functional import test_audit
from vif_plug_tapmac.host import domains
from vif_plug_tapmac.host import inventory
from vif_plug_tapmac.host import tap_checks
from vif_plug_tapmac.kernel import making

ONE = {'allowed_bridges': 'br1*'}
OTHER_GROUPS = {'link_group': 30000, 'filtered_group': 30001,
                'agent_group': 30002, 'bridge_group': 30003}
HELD, IDLE = 'tap00000002', 'tap00000003'


class TwoServicesTest(test_audit.AuditTestCase):

    def setUp(self):
        super().setUp()
        self.directory = pathlib.Path(self.enter(
            tempfile.TemporaryDirectory()))

    def be(self, service, **options):
        """Be a service of this host, which reads its own file."""
        path = self.directory / (service + '.conf')
        path.write_text('[os_vif_tapmac]\n' + ''.join(
            '%s = %s\n' % each for each in options.items()))
        self.config.conf([], project='tapmac',
                         default_config_files=[str(path)])

    def plug_of_both(self, **two):
        """Have one guest of the first service, and two of the second."""
        self.be('two', **two)
        for number in 2, 3:
            self.plug(base.numbered_vif(number, bridge_name='br200'))
        self.hold(HELD, 'fa:16:3e:00:00:02')
        self.be('one', **ONE)
        self.plug(base.numbered_vif(1))

    def assert_left(self, *expected):
        """Expect these findings, and a repair to do nothing about them."""
        found = self.findings()
        self.assertEqual(list(expected),
                         [(each.code, each.device) for each in found], found)
        self.assertEqual([], [each for each in found if each.mendable])
        before = self.host.state()
        self.repair()
        # As one does who has no domain of it.
        self.repair(bridge='br100')
        self.assertEqual(before, self.host.state())
        return found

    @base.needs_real_root(base.SEVERAL_USERS)
    def test_other_link_groups(self):
        self.plug_of_both(**OTHER_GROUPS, owner='65534', port_isolated=True)
        self.be('one')  # Which may use any bridge.
        found = self.assert_left(('TM211', HELD), ('TM211', IDLE))
        for word in 'another one\'s', '30000', '00000002-0000', 'br200':
            self.assertIn(word, found[0].evidence)
        self.assertIn('--config-file', found[0].remedy)
        self.assertIn('group 29793', found[0].remedy)

    @base.needs_real_root(base.SEVERAL_USERS)
    def test_other_bridges(self):
        self.plug_of_both(owner='65534', port_isolated=True)
        self.assert_left()

    def test_what_is_wrong_is_for_the_other_service(self):
        self.plug_of_both(**OTHER_GROUPS, host_shield=True)
        self.assert_left()
        other = str(self.directory / 'two.conf')
        self.host.set(HELD, state='down')
        self.host.set('br200', kind='bridge', br_ageing_time=100)
        found = self.assert_left(('TM109', 'br200'), ('TM207', HELD))
        for each in found:
            self.assertEqual(['tapmac --config-file %s repair %s' % (
                other, each.device)], each.remedy.commands)
        # What is its own it mends, beside these.
        self.host.set('tap00000001', state='down')
        self.repair()
        self.assertTrue(self.host.link('tap00000001').up)
        self.be('two', **OTHER_GROUPS, host_shield=True)
        self.repair()
        self.assertEqual(30000, self.host.link(HELD).group)
        self.assertEqual([], [each for each in self.findings()
                              if each.device in (HELD, IDLE, 'br200')])

    def test_one_out_of_all_groups_may_be_the_others(self):
        self.plug_of_both(**{**OTHER_GROUPS, 'bridge_group': 29794})
        self.be('one')
        self.host.set(HELD, group=0)
        self.assert_left(('TM211', HELD), ('TM211', IDLE))
        # Where there is no other service, it is nobody else's.
        self.host.delete(IDLE)
        self.assert_finds('TM211', HELD)
        self.repair()
        self.assertEqual(29793, self.host.link(HELD).group)

    def test_purge_leaves_what_is_the_others(self):
        with mock.patch.object(making.time, 'time', return_value=10 ** 9):
            self.plug_of_both(**OTHER_GROUPS)
        seen = inventory.read(self.options).with_answer(
            domains.Answer('test:///', 0, {}))
        self.assertEqual(['tap00000001'], [
            tap.name for tap in seen.taps if tap_checks.is_orphan(seen, tap)])
