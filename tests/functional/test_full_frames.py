# SPDX-License-Identifier: Apache-2.0

"""Which frames get past the table that holds guests to their addresses.

Each frame that is dropped has a twin that passes, and differs in one field.
Both are looked for where they would come out: at a neighbour, on the wire and
at the host. The same frames all pass from a guest that is not held to
anything, or they would say nothing. A guest writes them to its TAP itself, as
QEMU does.
"""

import contextlib
import itertools
import socket
import threading

from scapy.contrib import igmp
from scapy.contrib import igmpv3
from scapy.layers import dhcp6
from scapy.layers import inet
from scapy.layers import inet6
from scapy.layers import l2
from scapy import packet as scapy_packet

from tests import base
from tests.functional.test_frames import bootp
from tests.functional.test_frames import BRIDGE
from tests.functional.test_frames import ether
from tests.functional.test_frames import GATEWAY
from tests.functional.test_frames import GUEST
from tests.functional.test_frames import IPV4
from tests.functional.test_frames import NEIGHBOUR
from tests.functional.test_frames import NEIGHBOURS_IPV4
from tests.functional.test_frames import STRANGER
from tests.functional.test_frames import WIRE
from tests import hosts
from tests import patience
from vif_plug_tapmac.kernel import guest_filter
from vif_plug_tapmac.kernel import netlink as nl
from vif_plug_tapmac.wanted import rules

_MULTI_QUEUE = hosts.IFF_TAP | hosts.IFF_MULTI_QUEUE
_FILTERED, _UNFILTERED = 29795, 29793
_ETH_P_ALL = 3
#: How many frames are on their way at once: fewer than a TAP's queue takes.
_AT_ONCE = 100

ALL, NODES = hosts.BROADCAST, '33:33:00:00:00:01'
SECOND_IPV4, IPV6, NEIGHBOURS_IPV6 = (
    '192.0.2.20', '2001:db8::10', '2001:db8::11')
LINK_LOCAL, NEIGHBOURS_LINK_LOCAL = (
    'fe80::f816:3eff:fe28:64c2', 'fe80::f816:3eff:fe00:1')
OWN = IPV4, SECOND_IPV4, IPV6


def ipv4(**fields):
    return ether(NEIGHBOUR) / inet.IP(**dict(
        {'src': IPV4, 'dst': NEIGHBOURS_IPV4}, **fields))


def ipv6(**fields):
    return ether(fields.pop('to', NEIGHBOUR)) / inet6.IPv6(**dict(
        {'src': IPV6, 'dst': NEIGHBOURS_IPV6}, **fields))


def udp(sport=7, dport=7777):
    return inet.UDP(sport=sport, dport=dport)


def icmp6(kind=128):
    return inet6.ICMPv6Unknown(type=kind, msgbody=bytes(8))


def arp(destination=ALL, **fields):
    return ether(destination) / l2.ARP(**dict(
        {'op': 1, 'hwsrc': GUEST, 'psrc': IPV4, 'hwdst': '00:00:00:00:00:00',
         'pdst': NEIGHBOURS_IPV4}, **fields))


def rarp(**fields):
    return ether(ALL, type=0x8035) / l2.ARP(**dict(
        {'op': 3, 'hwsrc': GUEST, 'psrc': '0.0.0.0', 'hwdst': GUEST,
         'pdst': '0.0.0.0'}, **fields))


def hop_by_hop():
    return inet6.IPv6ExtHdrHopByHop(options=[inet6.RouterAlert()])


def source(mac=GUEST):
    return inet6.ICMPv6NDOptSrcLLAddr(lladdr=mac)


def target(mac=GUEST):
    return inet6.ICMPv6NDOptDstLLAddr(lladdr=mac)


def nonce():
    return scapy_packet.Raw(bytes([14, 1]) + b'nonce!')


def solicitation(**fields):
    return ipv6(dst='ff02::1:ff00:11', to='33:33:ff:00:00:11', **fields
                ) / inet6.ICMPv6ND_NS(tgt=NEIGHBOURS_IPV6)


def advertisement(tgt=IPV6):
    return ipv6(dst='ff02::1', to=NODES) / inet6.ICMPv6ND_NA(tgt=tgt)


def detection(tgt=IPV6):
    return ipv6(src='::', dst='ff02::1:ff00:10', to='33:33:ff:00:00:10'
                ) / inet6.ICMPv6ND_NS(tgt=tgt)


def mld(source_address, number):
    return (ipv6(src=source_address, dst='ff02::16', to='33:33:00:00:00:16',
                 hlim=1) / hop_by_hop() / icmp6(number))


_OTHERS_IPV4 = (NEIGHBOURS_IPV4, GATEWAY, '0.0.0.0', '255.255.255.255',
                '127.0.0.1', '169.254.1.1', '224.0.0.1')
_OTHERS_IPV6 = (NEIGHBOURS_IPV6, NEIGHBOURS_LINK_LOCAL, '::', '::1',
                'ff02::1', '::ffff:192.0.2.10', 'fe80::1')
_OTHER_TYPES = (0x0801, 0x0842, 0x6003, 0x8100, 0x88a8, 0x9100, 0x8137,
                0x809b, 0x8847, 0x8863, 0x8864, 0x888e, 0x88b5, 0x88cc,
                0x88e5, 0x88e7, 0x88f7, 0x8906, 0x8915, 0x22f3, 0x9000,
                0x0040)
_OTHER_MACS = {'nobody': STRANGER, 'neighbour': NEIGHBOUR, 'gateway': WIRE,
               'bridge': BRIDGE, 'own TAP': base.TAP_MAC,
               'one bit off': 'fa:16:3e:28:64:c3'}
_OF_ROUTERS = 130, 134, 137, 138, 141, 142, 149, 151, 153
_FALSE_MAC = {'lladdr': STRANGER}

#: What passes; and, each in one field, what does not: layer, field, value.
#: A layer is the number of its place, from 0, which is Ethernet.
PAIRS = {
    'UDP': (ipv4() / udp(), [
        *((0, 'src', mac) for mac in _OTHER_MACS.values()),
        *((1, 'src', address) for address in _OTHERS_IPV4),
        (2, 'sport', 67), (2, 'dport', 68)]),
    'UDP to all': (ether(ALL) / inet.IP(src=IPV4, dst='192.0.2.255') / udp(), [
        (0, 'dst', '01:80:c2:00:00:00'), (0, 'dst', '01:80:c2:00:00:10'),
        (0, 'dst', '01:80:c2:00:00:21'), (0, 'dst', '01:80:c2:ff:ff:ff'),
        (1, 'src', GATEWAY)]),
    'UDP from the second address': (ipv4(src=SECOND_IPV4) / udp(), [
        (1, 'src', '192.0.2.21')]),
    'octets of IPv4': (
        ether(NEIGHBOUR, type=0x0800) / scapy_packet.Raw(
            bytes(inet.IP(src=IPV4, dst=NEIGHBOURS_IPV4, proto=47, len=35))),
        [(0, 'type', number) for number in _OTHER_TYPES]),
    'TCP': (ipv4() / inet.TCP(dport=22), [
        (0, 'src', STRANGER), (1, 'src', GATEWAY)]),
    'ICMP': (ipv4() / inet.ICMP(type=8), [
        (0, 'src', STRANGER), (1, 'src', GATEWAY), (2, 'type', 5),
        (2, 'type', 9)]),
    'ESP': (ipv4(proto=50), [(1, 'src', GATEWAY)]),
    'IPv4 with options': (
        ipv4(options=[inet.IPOption_Router_Alert()]) / udp(), [
            (1, 'src', GATEWAY), (2, 'sport', 67), (2, 'dport', 68)]),
    'first fragment': (ipv4(flags='MF') / udp(), [
        (1, 'src', GATEWAY), (2, 'sport', 67), (2, 'dport', 68)]),
    'first fragment of ICMP': (ipv4(flags='MF') / inet.ICMP(type=8), [
        (2, 'type', 5), (2, 'type', 9)]),
    'later fragment, with what looks like the ports of a server': (
        ipv4(frag=100) / udp(67, 68), [(1, 'frag', 0), (1, 'src', GATEWAY)]),
    'later fragment': (ipv4(frag=100, proto=17), [
        (0, 'src', STRANGER), (1, 'src', GATEWAY), (1, 'src', '0.0.0.0')]),
    'DHCP discover': (
        ether(ALL) / inet.IP(src='0.0.0.0', dst='255.255.255.255')
        / udp(68, 67) / bootp('discover'), [
            (0, 'src', STRANGER), (1, 'src', GATEWAY), (1, 'dst', GATEWAY),
            (1, 'proto', 6), (1, 'frag', 1), (1, 'flags', 'MF'),
            (2, 'sport', 67), (2, 'dport', 68), (2, 'dport', 7)]),
    'DHCP renewal': (ipv4(dst=GATEWAY) / udp(68, 67) / bootp('request'), [
        (1, 'src', NEIGHBOURS_IPV4), (2, 'sport', 67)]),
    'ARP request': (arp(), [
        (0, 'src', STRANGER), (1, 'hwsrc', STRANGER), (1, 'hwsrc', NEIGHBOUR),
        (1, 'psrc', NEIGHBOURS_IPV4), (1, 'psrc', GATEWAY),
        (1, 'psrc', '0.0.0.0'), (1, 'op', 0), (1, 'op', 3), (1, 'op', 4),
        (1, 'op', 8), (1, 'op', 9), (1, 'hwtype', 6), (1, 'ptype', 0x86dd),
        (1, 'hwlen', 8), (1, 'plen', 16)]),
    'ARP reply': (arp(NEIGHBOUR, op=2, hwdst=NEIGHBOUR), [
        (0, 'src', STRANGER), (1, 'hwsrc', STRANGER), (1, 'psrc', GATEWAY),
        (1, 'psrc', NEIGHBOURS_IPV4), (1, 'psrc', '0.0.0.0')]),
    'ARP announcement': (arp(psrc=SECOND_IPV4, pdst=SECOND_IPV4), [
        (1, 'psrc', GATEWAY), (1, 'hwsrc', STRANGER)]),
    'ARP probe': (arp(psrc='0.0.0.0', pdst=IPV4), [
        (0, 'src', STRANGER), (1, 'pdst', GATEWAY), (1, 'op', 2),
        (1, 'hwsrc', STRANGER), (1, 'psrc', GATEWAY)]),
    'RARP': (rarp(), [
        (0, 'src', STRANGER), (1, 'hwsrc', STRANGER), (1, 'hwdst', STRANGER),
        (1, 'op', 4), (1, 'op', 1), (1, 'plen', 6)]),
    'IGMP report': (
        ether('01:00:5e:01:02:03') / inet.IP(src=IPV4, dst='239.1.2.3')
        / igmp.IGMP(type=0x16, gaddr='239.1.2.3'), [
            (1, 'src', GATEWAY), *((2, 'type', number) for number in (
                0x11, 0x13, 0x14, 0x30, 0x32))]),
    'IGMP report, version 1': (
        ether('01:00:5e:01:02:03') / inet.IP(src=IPV4, dst='239.1.2.3')
        / igmp.IGMP(type=0x12, gaddr='239.1.2.3'), [
            (1, 'src', GATEWAY), (2, 'type', 0x11)]),
    'IGMP report, version 3': (
        ether('01:00:5e:00:00:16') / inet.IP(src=IPV4, dst='224.0.0.22')
        / igmpv3.IGMPv3(type=0x22) / igmpv3.IGMPv3mr(), [
            (0, 'src', STRANGER), (1, 'src', GATEWAY), (2, 'type', 0x11)]),
    'IGMP leave': (
        ether('01:00:5e:00:00:02') / inet.IP(src=IPV4, dst='224.0.0.2')
        / igmp.IGMP(type=0x17, gaddr='239.1.2.3'), [
            (1, 'src', GATEWAY), (2, 'type', 0x11)]),
    'IGMP report without address': (
        ether('01:00:5e:01:02:03') / inet.IP(src='0.0.0.0', dst='239.1.2.3')
        / igmp.IGMP(type=0x16, gaddr='239.1.2.3'), [
            (0, 'src', STRANGER), (1, 'src', GATEWAY), (1, 'proto', 1),
            (1, 'frag', 1), (2, 'type', 0x11)]),
    'UDP, IPv6': (ipv6() / udp(), [
        (0, 'src', STRANGER), (0, 'src', NEIGHBOUR),
        *((1, 'src', address) for address in _OTHERS_IPV6),
        (2, 'sport', 547), (2, 'dport', 546)]),
    'UDP, link-local': (
        ipv6(src=LINK_LOCAL, dst=NEIGHBOURS_LINK_LOCAL) / udp(), [
            (0, 'src', STRANGER), (1, 'src', NEIGHBOURS_LINK_LOCAL)]),
    'TCP, IPv6': (ipv6() / inet.TCP(dport=22), [
        (0, 'src', STRANGER), (1, 'src', NEIGHBOURS_IPV6)]),
    'DHCPv6': (
        ipv6(src=LINK_LOCAL, dst='ff02::1:2', to='33:33:00:01:00:02')
        / udp(546, 547) / dhcp6.DHCP6_Solicit(), [
            (0, 'src', STRANGER), (1, 'src', NEIGHBOURS_LINK_LOCAL),
            (2, 'sport', 547), (2, 'dport', 546)]),
    'no next header': (ipv6(nh=59), [(1, 'src', NEIGHBOURS_IPV6)]),
    'ESP, IPv6': (ipv6(nh=50), [(1, 'src', NEIGHBOURS_IPV6)]),
    'UDP behind AH': (
        ipv6(nh=51) / scapy_packet.Raw(bytes([17, 4]) + bytes(22)) / udp(),
        [(1, 'src', NEIGHBOURS_IPV6), *(
            (2, 'load', bytes([header, 4]) + bytes(22)) for header in (
                0, 43, 44, 51, 58, 60, 135))]),
    'UDP behind hop-by-hop': (ipv6() / hop_by_hop() / udp(), [
        (1, 'src', NEIGHBOURS_IPV6), (3, 'sport', 547), (3, 'dport', 546)]),
    'UDP behind destination options': (
        ipv6() / inet6.IPv6ExtHdrDestOpt() / udp(), [
            (1, 'src', NEIGHBOURS_IPV6), (3, 'sport', 547)]),
    'UDP behind both': (
        ipv6() / hop_by_hop() / inet6.IPv6ExtHdrDestOpt() / udp(), [
            (4, 'sport', 547)]),
    'first fragment, IPv6': (
        ipv6() / inet6.IPv6ExtHdrFragment(nh=17, m=1) / udp(), [
            (1, 'src', NEIGHBOURS_IPV6), (3, 'sport', 547),
            (3, 'dport', 546)]),
    'later fragment, IPv6': (
        ipv6() / inet6.IPv6ExtHdrFragment(nh=17, offset=100), [
            (0, 'src', STRANGER), (1, 'src', NEIGHBOURS_IPV6),
            (1, 'src', '::'),
            *((2, 'nh', number) for number in (
                0, 43, 44, 50, 51, 58, 60, 135, 139, 140))]),
    'later fragment, IPv6, with what looks like a server': (
        ipv6() / inet6.IPv6ExtHdrFragment(nh=17, offset=100) / udp(547, 546),
        [(1, 'src', NEIGHBOURS_IPV6), (2, 'offset', 0)]),
    'first fragment, of what': (
        ipv6() / inet6.IPv6ExtHdrFragment(nh=132, m=1)
        / scapy_packet.Raw(bytes([134] + [0] * 15)), [
            (2, 'nh', number) for number in (0, 43, 44, 51, 58, 60)]),
    'ICMPv6': (ipv6() / icmp6(), [
        (1, 'src', NEIGHBOURS_IPV6),
        *((2, 'type', number) for number in _OF_ROUTERS)]),
    'ICMPv6, link-local': (
        ipv6(src=LINK_LOCAL, dst='ff02::1', to=NODES) / icmp6(), [
            (1, 'src', NEIGHBOURS_LINK_LOCAL),
            *((2, 'type', number) for number in _OF_ROUTERS)]),
    'ICMPv6 behind hop-by-hop': (ipv6() / hop_by_hop() / icmp6(), [
        (3, 'type', 134), (3, 'type', 137), (3, 'type', 130)]),
    'ICMPv6 behind destination options': (
        ipv6() / inet6.IPv6ExtHdrDestOpt() / icmp6(), [
            (3, 'type', 134), (3, 'type', 137)]),
    'ICMPv6 behind routing': (
        ipv6() / inet6.IPv6ExtHdrRouting(addresses=[NEIGHBOURS_IPV6])
        / icmp6(), [(3, 'type', 134)]),
    'neighbour solicitation': (solicitation() / source(), [
        (0, 'src', STRANGER), (1, 'src', NEIGHBOURS_IPV6),
        (3, 'lladdr', STRANGER), (3, 'lladdr', NEIGHBOUR)]),
    'neighbour solicitation without option': (solicitation(), [
        (1, 'src', NEIGHBOURS_LINK_LOCAL)]),
    'neighbour solicitation, two options': (
        solicitation() / nonce() / source(), [(4, 'lladdr', STRANGER)]),
    'neighbour solicitation, the same twice': (
        solicitation() / source() / source(), [(4, 'lladdr', STRANGER)]),
    'neighbour advertisement': (advertisement() / target(), [
        (0, 'src', STRANGER), (1, 'src', NEIGHBOURS_IPV6),
        (2, 'tgt', NEIGHBOURS_IPV6), (2, 'tgt', NEIGHBOURS_LINK_LOCAL),
        (2, 'tgt', '2001:db8::1'), (3, 'lladdr', STRANGER)]),
    'neighbour advertisement of the link-local': (
        ipv6(src=LINK_LOCAL, dst='ff02::1', to=NODES)
        / inet6.ICMPv6ND_NA(tgt=LINK_LOCAL), [(2, 'tgt', 'fe80::1')]),
    'neighbour advertisement behind hop-by-hop': (
        ipv6() / hop_by_hop() / inet6.ICMPv6ND_NA(tgt=IPV6), [
            (3, 'tgt', NEIGHBOURS_IPV6)]),
    'duplicate address detection': (detection(), [
        (0, 'src', STRANGER), (1, 'src', NEIGHBOURS_IPV6),
        (2, 'tgt', NEIGHBOURS_IPV6), (2, 'tgt', 'fe80::1')]),
    'duplicate address detection, link-local': (
        detection(LINK_LOCAL) / nonce(), [
            (0, 'src', STRANGER), (2, 'tgt', NEIGHBOURS_LINK_LOCAL)]),
    'duplicate address detection with an option': (
        detection() / source(), [(3, 'lladdr', STRANGER)]),
    'router solicitation': (
        ipv6(src=LINK_LOCAL, dst='ff02::2', to='33:33:00:00:00:02')
        / inet6.ICMPv6ND_RS() / source(), [
            (0, 'src', STRANGER), (1, 'src', 'fe80::1'),
            (3, 'lladdr', STRANGER)]),
    'router solicitation without address': (
        ipv6(src='::', dst='ff02::2', to='33:33:00:00:00:02')
        / inet6.ICMPv6ND_RS(), [(0, 'src', STRANGER), (1, 'src', 'fe80::1')]),
    'MLD report': (mld(LINK_LOCAL, 143), [
        (0, 'src', STRANGER), (1, 'src', 'fe80::1'), (3, 'type', 130),
        (3, 'type', 134)]),
    'MLD report, version 1': (mld(LINK_LOCAL, 131), [(3, 'type', 130)]),
    'MLD done': (mld(LINK_LOCAL, 132), [(3, 'type', 130)]),
    'MLD report without address': (mld('::', 143), [
        (0, 'src', STRANGER), (1, 'src', 'fe80::1'), (3, 'type', 130),
        (3, 'type', 134), (3, 'type', 128)]),
}

#: What never passes, with what passes inside of it.
_INSIDE = inet.IP(src=IPV4, dst=NEIGHBOURS_IPV4) / udp()
NEVER = {
    'priority tag': ether(NEIGHBOUR) / l2.Dot1Q(vlan=0, prio=0) / _INSIDE,
    'priority tag, highest': ether(NEIGHBOUR) / l2.Dot1Q(vlan=0, prio=7)
    / _INSIDE,
    '802.1Q': ether(NEIGHBOUR) / l2.Dot1Q(vlan=100) / _INSIDE,
    '802.1ad': ether(NEIGHBOUR, type=0x88a8) / l2.Dot1Q(vlan=100) / _INSIDE,
    'QinQ': ether(NEIGHBOUR, type=0x88a8) / l2.Dot1Q(vlan=100)
    / l2.Dot1Q(vlan=200) / _INSIDE,
    'QinQ of 802.1Q': ether(NEIGHBOUR) / l2.Dot1Q(vlan=0)
    / l2.Dot1Q(vlan=200) / _INSIDE,
    'ARP with a tag': ether(NEIGHBOUR) / l2.Dot1Q(vlan=0) / arp().payload,
    'BPDU': l2.Dot3(dst='01:80:c2:00:00:00', src=GUEST) / l2.LLC()
    / l2.STP(),
    'BPDU to a neighbour': l2.Dot3(dst=NEIGHBOUR, src=GUEST) / l2.LLC()
    / l2.STP(),
    'SNAP': l2.Dot3(dst=NEIGHBOUR, src=GUEST) / l2.LLC()
    / l2.SNAP(code=0x0800) / _INSIDE,
    'SNAP of ARP': l2.Dot3(dst=NEIGHBOUR, src=GUEST) / l2.LLC()
    / l2.SNAP(code=0x0806) / arp().payload,
    'BPDU of Cisco, per VLAN': l2.Dot3(dst='01:00:0c:cc:cc:cd', src=GUEST)
    / l2.LLC() / l2.SNAP(OUI=0x0c, code=0x010b) / l2.STP(),
    'discovery of Cisco': l2.Dot3(dst='01:00:0c:cc:cc:cc', src=GUEST)
    / l2.LLC() / l2.SNAP(OUI=0x0c, code=0x2000) / bytes(40),
    'IPX': l2.Dot3(dst=ALL, src=GUEST) / (b'\xff\xff' + bytes(40)),
    'registration of MACs': l2.Dot3(dst='01:80:c2:00:00:20', src=GUEST)
    / l2.LLC(dsap=0x42, ssap=0x42, ctrl=3) / bytes(40),
    'LLDP to all': ether(ALL, type=0x88cc) / bytes(40),
    'EAPOL to a neighbour': ether(NEIGHBOUR, type=0x888e) / bytes(40),
    'PPPoE discovery': ether(ALL, type=0x8863) / bytes(40),
    'MPLS': ether(NEIGHBOUR, type=0x8847) / (
        bytes([0, 0, 0x11, 64]) + bytes(_INSIDE)),
    'wake up': ether(ALL, type=0x0842) / (
        bytes.fromhex(6 * 'ff') + 16 * bytes(6)),
    'router advertisement in one fragment': ipv6()
    / inet6.IPv6ExtHdrFragment(nh=58) / icmp6(134),
    'router advertisement behind AH': ipv6(nh=51) / scapy_packet.Raw(
        bytes([58, 4]) + bytes(22)) / icmp6(134),
    'two fragment headers': ipv6() / inet6.IPv6ExtHdrFragment(nh=44)
    / inet6.IPv6ExtHdrFragment(nh=58) / icmp6(134),
    'fragment behind hop-by-hop': ipv6() / hop_by_hop()
    / inet6.IPv6ExtHdrFragment(nh=58) / icmp6(134),
    'neighbour advertisement, cut off': ipv6() / inet6.ICMPv6Unknown(
        type=136, msgbody=bytes(3)),
    'IPv4 whose header is longer than it is': ether(NEIGHBOUR) / inet.IP(
        src=IPV4, dst=NEIGHBOURS_IPV4, ihl=15, len=40, proto=17),
    'UDP that says that it is longer': ether(NEIGHBOUR) / inet.IP(
        src=IPV4, dst=NEIGHBOURS_IPV4, len=1000) / udp(67, 68),
}
#: Those of them that the kernel drops whoever sends them, by br_netfilter.
_MALFORMED = ('IPv4 whose header is longer than it is',
              'UDP that says that it is longer')


def mutated(frame, place, field, value):
    """Return a frame that differs from another in one field."""
    twin = frame.copy()
    layer = twin
    for _ in range(place):
        layer = layer.payload
    layer.setfieldval(field, value)
    return twin


def receivers_of(frame):
    """Return who gets a frame that nobody drops."""
    return ({'neighbour'} if frame.dst == NEIGHBOUR
            else {'neighbour', 'wire', 'host'})


#: By mode, which twins are dropped: in what each differs from what passes, as
#: the place of a layer and the name of a field.
_DROPPED = {'none': lambda place, field: False,
            'mac': lambda place, field: (place, field) == (0, 'src'),
            'full': lambda place, field: True}


class FullFramesTestCase(base.FunctionalTestCase):

    #: How many queues the guest's TAP has.
    QUEUES = 1

    def lay_network(self, mode=None):
        """Have a guest, a neighbour, the wire, and the host.

        :param mode: in which the guest's VIF is plugged, with its addresses;
            None: its TAP is another's, and held to nothing
        """
        bridge = self.host.add(base.BRIDGE, 'bridge', address=BRIDGE,
                               br_mcast_snooping=0)
        self.host.quiet_ipv6(base.BRIDGE)
        self.host.set(base.BRIDGE, state='up')
        flags = _MULTI_QUEUE if self.QUEUES > 1 else hosts.IFF_TAP
        if mode:
            self.configure(anti_spoofing=mode, multiqueue=self.QUEUES > 1)
            self.plug(base.make_vif(addresses=OWN))
        for name in ('neighbour', 'uplink', *(
                () if mode else (base.TAP,))):
            self.host.add_tap(name, flags if name == base.TAP
                              else hosts.IFF_TAP)
            self.host.quiet_ipv6(name)
            self.host.set(name, master=bridge.index, state='up')
        self.queues = [self.open(base.TAP, GUEST, flags)
                       for _ in range(self.QUEUES)]
        self.receivers = {'wire': self.open('uplink', WIRE),
                          'neighbour': self.open('neighbour', NEIGHBOUR)}
        self.host_socket = socket.socket(
            socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
        self.addCleanup(self.host_socket.close)
        self.host_socket.bind((base.BRIDGE, _ETH_P_ALL))
        self.host_socket.settimeout(patience.HANG)
        self.number = 0
        self.filter = guest_filter.GuestFilter()
        self.netlink = nl.Netlink()
        self.addCleanup(self.netlink.__exit__, None, None, None)

    def open(self, tap, mac, flags=hosts.IFF_TAP):
        guest = hosts.Guest(tap, mac, flags)
        self.addCleanup(guest.close)
        self.host.wait_until_forwarding(tap)
        return guest

    def hold(self, addresses=OWN, mac=GUEST):
        self.filter.put(self.netlink, self.host.link(base.TAP).index,
                        rules.of_port(base.VIF_ID, mac, addresses),
                        _FILTERED, _UNFILTERED)
        self.host.set(base.TAP, group=_FILTERED)

    def who_gets(self, frames, queue):
        """Send frames; return who gets which.

        One queue of a TAP keeps the order, so what has not come out before the
        last one, which all get, never will.
        """
        got = []
        for start in range(0, len(frames), _AT_ONCE):
            got += self.who_gets_some(frames[start:start + _AT_ONCE], queue)
        return got

    def who_gets_some(self, frames, queue):
        for guest in self.receivers.values():  # Where they are.
            guest.send(ALL, b'hello')
        numbers = {}
        for place, frame in enumerate([*frames, rarp()]):
            self.number += 1
            numbers[b'frame %08d.' % self.number] = place
            queue.write(bytes(frame / scapy_packet.Raw(
                b'frame %08d.' % self.number)))
        got = [set() for _ in numbers]
        for name, octets in (
                *(('host', octets) for octets in self.host_frames(numbers)),
                *((name, octets) for name, guest in self.receivers.items()
                  for octets in until_last(guest.frames(), numbers))):
            got[numbers[octets]].add(name)
        self.assertEqual({'host', *self.receivers}, got.pop())
        return got

    def host_frames(self, numbers):
        return until_last(iter(lambda: self.host_socket.recv(65536), b''),
                          numbers)

    @contextlib.contextmanager
    def speaking(self):
        """Have the guest say all the time what it may, and what it may not.

        Of the former all has to come out at the wire, of the latter nothing.
        Yields a function that returns another: which waits until the guest
        has been heard about so many times more since.
        """
        honest, false = (bytes(ether(hosts.BROADCAST) / arp(
            psrc=address).payload) for address in (IPV4, GATEWAY))
        said, stop, came = itertools.count(), threading.Event(), []

        def send():
            wire = self.receivers['wire']
            while not stop.is_set():
                number = next(said)
                self.queues[0].write(false + b'false %08d' % number)
                self.queues[0].write(honest + b'honest %08d' % number)
                for frame in wire.frames():
                    if b'false' in frame:
                        came.append(number)
                    # One that is lost is waited for in vain.
                    if b'honest %08d' % number in frame:
                        break

        def after(times):
            target = next(said) + times
            return lambda: patience.wait_until(
                lambda: next(said) > target, 'the guest sends no more')
        thread = threading.Thread(target=send)
        thread.start()
        try:
            yield after
        finally:
            stop.set()
            thread.join()
        self.assertEqual([], came)

    def counted(self):
        """Return how many frames of the guest were dropped."""
        counted = guest_filter.drops().get(self.host.link(base.TAP).index, {})
        return sum(packets for packets, _ in counted.values())

    def assert_counted(self, dropped, before):
        self.assertEqual(dropped, self.counted() - before)

    def assert_never(self, mode):
        """Expect that none of these passes in full, and all in other modes."""
        is_full = mode == 'full'
        frames = {kind: frame for kind, frame in NEVER.items()
                  if is_full or kind not in _MALFORMED}
        for queue in self.queues:
            before = self.counted()
            got = self.who_gets(list(frames.values()), queue)
            self.assert_counted(len(frames) if is_full else 0, before)
            self.assertEqual({}, {
                kind: sorted(seen) for (kind, frame), seen in zip(
                    frames.items(), got)
                if seen != (set() if is_full else receivers_of(frame))})

    def assert_pairs(self, pairs, mode='full', passes=None):
        """Expect that what passes does, and its twins do or do not.

        :param passes: what does of these pairs; None: all
        :returns: how many frames have been sent to each queue
        """
        rows = []
        for kind, (frame, differences) in pairs.items():
            rows.append((kind, frame, receivers_of(frame)
                         if passes is None or kind in passes else set()))
            for place, field, value in differences:
                twin = mutated(frame, place, field, value)
                self.assertNotEqual(bytes(frame), bytes(twin), kind)
                rows.append(('%s, but %s of layer %d is %s' % (
                    kind, field, place, value), twin,
                    set() if _DROPPED[mode](place, field)
                    else receivers_of(twin)))
        for queue in self.queues:
            before = self.counted()
            got = self.who_gets([frame for _, frame, _ in rows], queue)
            self.assert_counted(sum(not row[2] for row in rows)
                                if mode == 'full' else 0, before)
            self.assertEqual([], [
                '%s: %s instead of %s' % (kind, sorted(seen),
                                          sorted(expected))
                for (kind, _, expected), seen in zip(rows, got)
                if seen != expected])
        return len(rows)


def until_last(frames, numbers):
    """Yield which of these numbers each frame has, up to the last."""
    last = list(numbers)[-1]
    for octets in frames:
        place = octets.find(b'frame ')
        number = octets[place:place + len(last)]
        if number in numbers:
            yield number
        if number == last:
            return


#: What passes of the above from guests that have other addresses.
WITHOUT_ADDRESS = {
    'DHCP discover', 'RARP', 'DHCPv6',
    'duplicate address detection, link-local',
    'router solicitation without address', 'MLD report without address',
    'IGMP report without address'}
LINK_LOCALS = {
    'UDP, link-local', 'ICMPv6, link-local', 'router solicitation',
    'MLD report', 'MLD report, version 1', 'MLD done',
    'neighbour advertisement of the link-local'}
IPV6_ONLY = {kind for kind, (frame, _) in PAIRS.items()
             if inet6.IPv6 in frame} | WITHOUT_ADDRESS
IPV4_ONLY = set(PAIRS) - IPV6_ONLY - {
    'UDP from the second address', 'ARP announcement'} | (
        WITHOUT_ADDRESS | LINK_LOCALS)
#: As many as a port of this test has of each kind.
_MANY = 50


class AddressesTest(FullFramesTestCase):
    """What a guest has decides what it may send."""

    def test_each(self):
        self.lay_network()
        for addresses, passes in (
                ([], WITHOUT_ADDRESS), ([IPV4], IPV4_ONLY),
                ([IPV6], IPV6_ONLY), ([IPV4, IPV6], IPV4_ONLY | IPV6_ONLY)):
            self.hold(addresses)
            self.assert_pairs(PAIRS, passes=passes)
            self.assert_never('full')

    def test_a_hundred(self):
        self.lay_network()
        # None of them is one of those that the twins have.
        many = [IPV4, SECOND_IPV4, IPV6, *(
            '192.0.2.%d' % number for number in range(100, 98 + _MANY)), *(
            '2001:db8::%x' % number for number in range(0x100, 0xff + _MANY))]
        self.assertEqual(2 * _MANY, len(many))
        self.hold(many)
        self.assert_pairs(PAIRS)
        self.assert_never('full')
        for queue in self.queues:
            self.assertEqual(len(many) * [{'neighbour'}], self.who_gets([
                (ipv6(src=address) if ':' in address
                 else ipv4(src=address)) / udp() for address in many], queue))

    def test_another_ports_are_not_its_own(self):
        self.lay_network()
        self.hold()
        self.filter.put(
            self.netlink, self.host.link('neighbour').index,
            rules.of_port(base.numbered_vif(1).id, NEIGHBOUR,
                          [NEIGHBOURS_IPV4, NEIGHBOURS_IPV6]),
            _FILTERED, _UNFILTERED)
        self.assert_pairs(PAIRS)

    def test_nothing_without_elements(self):
        self.lay_network()
        self.hold()
        index = self.host.link(base.TAP).index
        self.filter.remove(index)
        for frame, _ in PAIRS.values():
            self.queues[0].write(bytes(frame / scapy_packet.Raw(b'held')))
        self.hold()
        wire = self.receivers['wire']
        self.queues[0].write(bytes(arp() / scapy_packet.Raw(b'the last')))
        for octets in wire.frames():
            self.assertNotIn(b'held', octets)
            if b'the last' in octets:
                break

    def test_the_bridge_learns_nothing_false(self):
        """Not even from frames that it keeps to itself.

        But those of LLDP to ...:0e: no hook sees these, and only a port that
        is locked, or a filter on the TAP, keeps the bridge from learning.
        """
        self.lay_network()
        self.hold()
        for name, mac in ('neighbour', NEIGHBOUR), ('uplink', WIRE):
            for receiver in self.receivers.values():
                receiver.send(ALL, b'hello')
            for last in set(range(16)) - {14}:
                self.queues[0].write(bytes(ether(
                    '01:80:c2:00:00:%02x' % last, mac, type=0x88cc)
                    / scapy_packet.Raw(bytes(50))))
            self.assertEqual(
                self.host.link(name).index, self.netlink.fdb_entry(
                    self.host.link(base.BRIDGE), mac).port_index)


class AddressesOfTwoQueuesTest(AddressesTest):

    QUEUES = 2


class OneQueueTest(FullFramesTestCase):
    """All rows, in each mode."""

    def assert_mode(self, mode):
        self.assertGreater(self.assert_pairs(PAIRS, mode), 300)
        self.assert_never(mode)

    def test_by_the_table_alone(self):
        self.lay_network()
        self.hold()
        self.assert_mode('full')

    @base.needs_locked_ports
    def test_full(self):
        self.lay_network('full')
        self.assert_mode('full')

    @base.needs_locked_ports
    def test_mac(self):
        self.lay_network('mac')
        self.assert_mode('mac')

    def test_none(self):
        self.lay_network('none')
        # Or the bridge would send it what is for those whose names it uses.
        hosts.set_port_options(self.host.link(base.TAP).index, LEARNING=0)
        self.assert_mode('none')


class TwoQueuesTest(OneQueueTest):

    QUEUES = 2
