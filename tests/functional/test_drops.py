# SPDX-License-Identifier: Apache-2.0

"""What is dropped of a guest's frames is counted, by port and reason."""

from scapy.layers import inet
from scapy.layers import l2
from scapy import packet as scapy_packet

from tests import base
from tests.functional import test_full_frames
from tests.functional.test_full_frames import ALL
from tests.functional.test_full_frames import GATEWAY
from tests.functional.test_full_frames import GUEST
from tests.functional.test_full_frames import IPV4
from tests import patience
from vif_plug_tapmac.kernel import agent_table
from vif_plug_tapmac.kernel import filter_state
from vif_plug_tapmac.kernel import filter_table
from vif_plug_tapmac.kernel import guest_filter
from vif_plug_tapmac.kernel import nft
from vif_plug_tapmac.kernel import nft_expressions

_OTHER_MAC = 'fa:16:3e:99:99:99'


def packet(source, mac=GUEST, sport=7, octets=100):
    return (l2.Ether(src=mac, dst=ALL) / inet.IP(src=source, dst='192.0.2.77')
            / inet.UDP(sport=sport, dport=9)
            / scapy_packet.Raw(bytes(octets - 28)))


class DropsTest(test_full_frames.FullFramesTestCase):

    def setUp(self):
        super().setUp()
        self.lay_network()

    def send(self, *frames):
        """Have the guest send, and nothing of it come out."""
        for frame in frames:
            self.queues[0].write(bytes(frame))
        self.assertEqual([set()], self.who_gets([packet(GATEWAY)],
                                                self.queues[0]))

    def drops(self):
        return guest_filter.drops().get(self.host.link(base.TAP).index, {})

    def test_by_port_and_reason(self):
        self.assertEqual({}, guest_filter.drops())
        self.hold()
        self.assertEqual({}, guest_filter.drops())
        self.send(packet(IPV4, _OTHER_MAC), packet(IPV4, _OTHER_MAC),
                  packet(IPV4, sport=67, octets=200))
        payload = len(b'frame 00000001.')
        self.assertEqual({'another MAC': (2, 200), 'DHCP server': (1, 200),
                          'another IPv4 address': (1, 100 + payload)},
                         self.drops())
        self.send()
        self.assertEqual((2, 200 + 2 * payload),
                         self.drops()['another IPv4 address'])

    def test_what_passes_is_not_counted(self):
        self.hold()
        self.assertEqual([{'neighbour', 'wire', 'host'}], self.who_gets(
            [packet(IPV4)], self.queues[0]))
        self.assertEqual({}, guest_filter.drops())

    def test_to_the_host(self):
        """From whichever family."""
        self.filter.shield(self.netlink, [4711], '')
        self.host.set(base.TAP, group=4711)
        host = self.host.link(base.BRIDGE).mac
        for destination in host, '01:80:c2:00:00:0e':
            frame = packet(IPV4)
            frame.dst = destination
            self.queues[0].write(bytes(frame))
        patience.wait_until(
            lambda: self.drops() == {'to this host': (2, 200)},
            'not all is counted')

    def test_where_it_cannot_be_counted_it_is_dropped(self):
        self.patch(filter_table, 'SETS', (*filter_table.SETS[:-1],
                                          filter_table.SETS[-1]._replace(
                                              size=1)))
        self.hold()
        self.send(packet(IPV4, _OTHER_MAC), packet(IPV4, sport=67))
        self.assertEqual(['another MAC'], list(self.drops()))

    def test_the_table_stays_right(self):
        self.hold()
        self.send()
        with nft.Session() as session:
            self.assertTrue(filter_state.is_right(session))
            before = session.generation()
            self.hold()
            self.assertEqual(before, session.generation())
        self.assertNotEqual({}, self.drops())

    def test_of_a_newer_table(self):
        self.hold()
        self.send()
        self.patch(filter_table, 'VERSION', filter_table.VERSION - 1)
        number, = (each for each, why in filter_table.REASONS.items()
                   if why == 'another IPv4 address')
        self.assertEqual(['reason %d' % number], list(self.drops()))

    def test_nothing_is_dropped_uncounted(self):
        drop = nft.Rule('', nft_expressions.DROP).expressions
        for rules in filter_table.RULES, *(
                each.rules for each in filter_table.BESIDE):
            self.assertEqual(['dropped'], [
                rule.chain for rule in rules
                if rule.expressions[-1:] == drop
                and rule not in agent_table.RULES])
