# SPDX-License-Identifier: Apache-2.0

"""Interfaces of DHCP and L3 agents in the loop of tapmac-agent.

What has them join is said here; with all as it is it is in tests/neutron.
"""

from tests.unit import test_agent_loop
from tests.unit.test_agent_loop import DOWN
from tests.unit.test_agent_loop import ONE
from tests.unit.test_agent_loop import THREE
from tests.unit.test_agent_loop import TWO
from vif_plug_tapmac.agent import taps


class JoinTest(test_agent_loop.LoopTestCase):

    def setUp(self):
        super().setUp()
        #: Why an interface is not on its bridge.
        self.why = None
        self.manager._joining = self
        self.here[THREE] = taps.Tap(THREE, 7, 'tap' + THREE[:8], None, True)
        self.neutron.ports[THREE] = (DOWN,)

    def join(self, port, interface, told):
        self.said.append(('join', port, interface.name, told.get('id')))
        return self.why

    def test_joins_and_is_up_and_has_no_filter(self):
        for batch in {'ports': [THREE]}, {'ports': [THREE]}:
            self.assertEqual(
                [('ask', THREE), ('join', THREE, 'tap' + THREE[:8], THREE),
                 ('up', THREE)], self.handle(**batch))
        self.assertEqual({}, self.manager._waiting)

    def test_beside_guests(self):
        self.assertEqual(
            [('ask', ONE, TWO, THREE),
             ('join', THREE, 'tap' + THREE[:8], THREE),
             ('apply', 'all', ONE, TWO), ('up', THREE)],
            self.handle(is_all=True))

    def test_waits_is_said_once_and_is_tried_again(self):
        self.why = 'there is no bridge'
        for _ in range(2):
            self.assertNotIn('up', [
                each for each, *_ in self.handle(ports=[THREE])])
        self.assertEqual({THREE}, set(self.manager._waiting))
        self.assertEqual(1, self.logs.output.count(
            'Port %s is not wired: there is no bridge' % THREE))
        self.manager._count()
        # Before all was once as Neutron says, nothing is known of any.
        self.assertEqual((3, 3), (self.state.ports, self.state.waiting))
        self.handle(is_all=True)
        self.manager._count()
        self.assertEqual((3, 1), (self.state.ports, self.state.waiting))
        self.why = None
        self.assertIn(('up', THREE), self.handle(ports=[THREE]))
        self.assertEqual({}, self.manager._waiting)

    def test_neutron_does_not_say_what_it_is(self):
        self.neutron.failed = frozenset({THREE})
        self.assertEqual([('ask', THREE)], self.handle(ports=[THREE]))
        self.assertEqual({THREE}, set(self.manager._waiting))
        self.neutron.failed = frozenset()
        del self.neutron.ports[THREE]
        self.assertIn(('join', THREE, 'tap' + THREE[:8], None),
                      self.handle(ports=[THREE]))

    def test_gone(self):
        self.handle(is_all=True)
        del self.here[THREE]
        said = self.handle(lost=[THREE])
        self.assertIn(('down', THREE), said)
        self.assertNotIn('join', [each for each, *_ in said])
