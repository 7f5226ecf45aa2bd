# SPDX-License-Identifier: Apache-2.0

"""The connections that a kernel keeps: listed, and deleted.

They are made by hand, as a kernel does with conntrack for IP only, which
every one has. What guests have in bridges is in test_conntrack_frames.
"""

import fixtures

from tests import base
from tests import connections
from vif_plug_tapmac.kernel import conntrack

_GUEST, _NEIGHBOUR, _GATEWAY = '192.0.2.10', '192.0.2.11', '192.0.2.1'
_GUEST6, _NEIGHBOUR6 = '2001:db8::10', '2001:db8::11'
_ZONE, _OTHER_ZONE = 7, 8
_TCP, _UDP, _ICMP, _ESP = 6, 17, 1, 50


class ConntrackTest(base.FunctionalTestCase):

    def setUp(self):
        super().setUp()
        if not connections.can_be_made():
            self.skipTest(connections.NO_CONNTRACK)

    def ends(self, zone, *addresses):
        return sorted((each.source, each.destination)
                      for each in conntrack.connections(zone, addresses))

    def test_both_directions_and_families_and_no_more(self):
        for zone in _ZONE, _OTHER_ZONE, 0:
            connections.make(zone, _TCP, _GUEST, _NEIGHBOUR, 4000, 22)
            connections.make(zone, _UDP, _GATEWAY, _GUEST, 4000, 53)
            connections.make(zone, _TCP, _NEIGHBOUR6, _GUEST6, 4000, 22)
            connections.make(zone, _TCP, _GATEWAY, _NEIGHBOUR, 4000, 22)
        self.assertEqual([(_GATEWAY, _GUEST), (_GUEST, _NEIGHBOUR)],
                         self.ends(_ZONE, _GUEST))
        self.assertEqual([(_NEIGHBOUR6, _GUEST6)], self.ends(_ZONE, _GUEST6))
        self.assertEqual(3, conntrack.delete(_ZONE, [_GUEST, _GUEST6]))
        self.assertEqual([], self.ends(_ZONE, _GUEST, _GUEST6))
        self.assertEqual([(_GATEWAY, _NEIGHBOUR)],
                         self.ends(_ZONE, _NEIGHBOUR))
        self.assertEqual(0, conntrack.delete(_ZONE, [_GUEST, _GUEST6]))
        self.assertEqual(3, len(self.ends(_OTHER_ZONE, _GUEST, _GUEST6)))
        self.assertEqual(9, connections.count())

    def test_any_protocol(self):
        connections.make(_ZONE, _ICMP, _GUEST, _NEIGHBOUR, 7)
        connections.make(_ZONE, _ESP, _GUEST, _NEIGHBOUR)
        connections.make(_ZONE, _UDP, _GUEST, _NEIGHBOUR, 68, 67)
        found = conntrack.connections(_ZONE, [_NEIGHBOUR])
        self.assertEqual({(_ICMP, None), (_ESP, None), (_UDP, (68, 67))},
                         {(each.protocol, each.ports) for each in found})
        self.assertEqual({(_ZONE, False)}, {
            (each.zone, each.is_answered) for each in found})
        self.assertTrue(all(0 < each.seconds <= 600 for each in found))
        self.assertEqual(3, conntrack.delete(_ZONE, [_NEIGHBOUR]))

    def test_networks_and_many_addresses(self):
        for last in range(1, 41):
            connections.make(_ZONE, _UDP, '192.0.2.%d' % last, '198.51.100.1',
                             4000, 53)
            connections.make(_ZONE, _UDP, '2001:db8::%x' % last,
                             '2001:db8:1::1', 4000, 53)
        self.assertEqual(9, conntrack.delete(_ZONE, ['192.0.2.16/29',
                                                     '192.0.2.40/32']))
        self.assertEqual(16, conntrack.delete(_ZONE, [
            '2001:db8::%x' % last for last in range(1, 17)]))
        self.assertEqual(80 - 9 - 16, connections.count())
        self.assertEqual(31 + 24, conntrack.delete(
            _ZONE, ['0.0.0.0/0', '::/0']))

    def test_nobody_is_asked_for_what_the_kernel_can_leave_out(self):
        for port in range(1000):
            connections.make(_ZONE, _UDP, _NEIGHBOUR, _GATEWAY, port + 1, 53)
        connections.make(_ZONE, _UDP, _GUEST, _GATEWAY, 4000, 53)
        told = []
        read = conntrack._read
        self.useFixture(fixtures.MonkeyPatch(
            'vif_plug_tapmac.kernel.conntrack._read',
            lambda body, *rest: told.append(body) or read(body, *rest)))
        self.assertEqual(1, conntrack.delete(_ZONE, [_GUEST, _GUEST6]))
        self.assertEqual(1, len(told))

    def test_one_that_has_ended_meanwhile_is_not_counted(self):
        connections.make(_ZONE, _UDP, _GUEST, _GATEWAY, 4000, 53)
        gone, = conntrack.connections(_ZONE, [_GUEST])
        conntrack.delete(_ZONE, [_GUEST])
        with conntrack._Session() as session:
            self.assertFalse(session.forget(gone))

    def test_what_is_no_zone_and_no_address(self):
        connections.make(0, _UDP, _GUEST, _GATEWAY, 4000, 53)
        for zone in 0, -1, 65536:
            self.assertRaises(ValueError, conntrack.delete, zone, [_GUEST])
        for address in 'guest', '192.0.2.1/24', '':
            self.assertRaises(ValueError, conntrack.delete, _ZONE, [address])
        self.assertEqual(0, conntrack.delete(_ZONE, []))
        self.assertEqual(1, connections.count())
