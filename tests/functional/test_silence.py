# SPDX-License-Identifier: Apache-2.0

"""A host stays silent and closed on the bridges that we make.

Each test has a control: the same on a plain bridge, which nobody configured
any more than ours.
"""

import socket
import struct

from tests import base
from tests import hosts
from tests import patience

_MANAGEMENT, _BRIDGES, _GUEST = '192.0.2.10', '192.0.2.11', '192.0.2.99'
_ARP, _IPV6 = 0x0806, 0x86dd
_ALL_NODES_MAC = '33:33:00:00:00:01'


def _frame(destination, ethertype, payload):
    return (hosts._octets(destination) + hosts._octets(base.GUEST_MAC)
            + struct.pack('!H', ethertype) + payload)


def _arp_request(address):
    """Return who-has for an address of the host."""
    return _frame(hosts.BROADCAST, _ARP, struct.pack(
        '!HHBBH6s4s6s4s', 1, 0x0800, 6, 4, 1, hosts._octets(base.GUEST_MAC),
        socket.inet_aton(_GUEST), b'', socket.inet_aton(address)))


def _router_advertisement():
    """Return one with a default route and a prefix to have an address in."""
    source, all_nodes, prefix = (
        socket.inet_pton(socket.AF_INET6, address)
        for address in ('fe80::1', 'ff02::1', '2001:db8::'))
    advertisement = struct.pack(
        '!BBHBBHIIBB6sBBBBIII16s', 134, 0, 0, 64, 0, 1800, 0, 0,
        1, 1, hosts._octets(base.GUEST_MAC),
        3, 4, 64, 0xc0, 86400, 14400, 0, prefix)
    pseudo = source + all_nodes + struct.pack('!II', len(advertisement), 58)
    words = struct.unpack('!%dH' % (len(pseudo + advertisement) // 2),
                          pseudo + advertisement)
    checksum = sum(words)
    while checksum >> 16:
        checksum = (checksum & 0xffff) + (checksum >> 16)
    advertisement = (advertisement[:2] + struct.pack('!H', ~checksum & 0xffff)
                     + advertisement[4:])
    header = struct.pack('!IHBB', 6 << 28, len(advertisement), 58, 255)
    return _frame(_ALL_NODES_MAC, _IPV6,
                  header + source + all_nodes + advertisement)


class SilenceTest(base.FunctionalTestCase):

    def setUp(self):
        super().setUp()
        # Another link of the host, with the address that it is managed by.
        self.host.add('eth0', 'veth', peer='wire')
        for name in 'eth0', 'wire':
            self.host.set(name, state='up')
        self.host.ip.addr('add', index=self.host.link('eth0').index,
                          address=_MANAGEMENT, prefixlen=24)

    def make_plain_bridge(self):
        self.host.add(base.BRIDGE, 'bridge', address='02:00:00:00:00:05')
        self.host.set(base.BRIDGE, state='up')

    def hold(self, tap=base.TAP):
        guest = hosts.Guest(tap, base.GUEST_MAC)
        self.addCleanup(guest.close)
        self.host.wait_until_forwarding(tap)
        return guest

    def answers_arp(self):
        """Return whether it does before it answers for the bridge's own."""
        self.plug()
        guest = self.hold()
        self.host.ip.addr('add', index=self.host.link(base.BRIDGE).index,
                          address=_BRIDGES, prefixlen=32)
        for address in _MANAGEMENT, _BRIDGES:
            guest.write(_arp_request(address))
        answered = []
        for frame in guest.frames():
            if (frame[12:14] == struct.pack('!H', _ARP)
                    and frame[20:22] == b'\0\2'):
                answered.append(socket.inet_ntoa(frame[28:32]))
                if answered[-1] == _BRIDGES:
                    return answered[:-1] == [_MANAGEMENT]

    def test_arp_for_the_management_address(self):
        self.assertFalse(self.answers_arp())

    def test_arp_control(self):
        self.make_plain_bridge()
        self.assertTrue(self.answers_arp())

    def takes_route(self, bridge, guest):
        """Have a guest advertise a route; return whether its bridge has it."""
        guest.write(_router_advertisement())
        index = self.host.link(bridge).index
        return any(
            message.get_attr('RTA_OIF') == index and message['dst_len'] == 0
            for message in self.host.ip.get_routes(family=socket.AF_INET6)
        ) or any(address.startswith('2001:db8:')
                 for address in self.host.addresses(bridge))

    def test_router_advertisement(self):
        self.plug()
        ours = self.hold()
        plain = self.host.add('br0', 'bridge', address='02:00:00:00:00:05')
        self.host.set('br0', state='up')
        self.host.add_tap('tap0')
        self.host.set('tap0', master=plain.index, state='up')
        control = self.hold('tap0')

        def both():
            # The first ones may come before a bridge is ready for them.
            return (self.takes_route(base.BRIDGE, ours),
                    self.takes_route('br0', control))
        self.assertEqual((False, True), patience.wait_until(
            lambda: any(seen := both()) and seen,
            'not even a plain bridge takes a route'))
        self.assertEqual((False, True), both())
