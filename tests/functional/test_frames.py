# SPDX-License-Identifier: Apache-2.0

"""Which frames of a guest pass, frame kind by frame kind.

Each kind is sent twice: as the guest is entitled to, and with one field that
differs. Both are looked for where they would come out: at a neighbour on the
same bridge, and on the wire. A guest writes them to its TAP itself, as QEMU
does.
"""

from scapy.layers import dhcp
from scapy.layers import dhcp6
from scapy.layers import eap
from scapy.layers import inet
from scapy.layers import inet6
from scapy.layers import l2
from scapy.layers import ppp
from scapy import packet as scapy_packet

from tests import base
from tests import hosts

_MULTI_QUEUE = hosts.IFF_TAP | hosts.IFF_MULTI_QUEUE

GUEST, NEIGHBOUR = base.GUEST_MAC, 'fa:16:3e:00:00:01'
WIRE, BRIDGE = '52:54:00:00:00:01', '02:00:00:00:00:05'
STRANGER = '52:54:00:00:00:99'
IPV4, NEIGHBOURS_IPV4, GATEWAY = '192.0.2.10', '192.0.2.11', '192.0.2.1'
IPV6, NEIGHBOURS_IPV6 = 'fe80::f816:3eff:fe28:64c2', 'fe80::11'
MULTICAST, ALL_NODES = '01:00:5e:00:00:fb', '33:33:00:00:00:01'


def ether(destination, source=GUEST, **fields):
    return l2.Ether(dst=destination, src=source, **fields)


def ipv4(**fields):
    return inet.IP(**dict({'src': IPV4, 'dst': NEIGHBOURS_IPV4}, **fields))


def ipv6(**fields):
    return inet6.IPv6(**dict({'src': IPV6, 'dst': 'ff02::1'}, **fields))


def bootp(kind, **fields):
    return dhcp.BOOTP(chaddr=bytes(6), **fields) / dhcp.DHCP(
        options=[('message-type', kind), 'end'])


#: What a guest may send, by its kind.
FRAMES = {
    'own ethertype, unicast': ether(NEIGHBOUR, type=hosts.ETHERTYPE),
    'own ethertype, broadcast': ether(hosts.BROADCAST, type=hosts.ETHERTYPE),
    'unknown unicast': ether('52:54:00:00:00:77', type=hosts.ETHERTYPE),
    'ARP request': ether(hosts.BROADCAST) / l2.ARP(
        op=1, hwsrc=GUEST, psrc=IPV4, pdst=NEIGHBOURS_IPV4),
    'ARP reply': ether(NEIGHBOUR) / l2.ARP(
        op=2, hwsrc=GUEST, psrc=IPV4, hwdst=NEIGHBOUR, pdst=NEIGHBOURS_IPV4),
    'ARP announcement': ether(hosts.BROADCAST) / l2.ARP(
        op=1, hwsrc=GUEST, psrc=IPV4, pdst=IPV4),
    'RARP': ether(hosts.BROADCAST, type=0x8035) / l2.ARP(
        op=3, hwsrc=GUEST, hwdst=GUEST),
    'ICMP echo': ether(NEIGHBOUR) / ipv4() / inet.ICMP(),
    'UDP': ether(NEIGHBOUR) / ipv4() / inet.UDP(sport=7, dport=7),
    'TCP SYN': ether(NEIGHBOUR) / ipv4() / inet.TCP(dport=22),
    'IPv4 fragment': ether(NEIGHBOUR) / ipv4(frag=100, proto=17),
    'IGMP': ether('01:00:5e:00:00:16') / ipv4(dst='224.0.0.22', proto=2),
    'mDNS': ether(MULTICAST) / ipv4(dst='224.0.0.251')
    / inet.UDP(sport=5353, dport=5353),
    'DHCP discover': ether(hosts.BROADCAST)
    / ipv4(src='0.0.0.0', dst='255.255.255.255')
    / inet.UDP(sport=68, dport=67) / bootp('discover'),
    'DHCP offer': ether(NEIGHBOUR) / ipv4() / inet.UDP(sport=67, dport=68)
    / bootp('offer', op=2),
    'IPv6 neighbour solicitation': ether('33:33:ff:00:00:11')
    / ipv6(dst='ff02::1:ff00:11') / inet6.ICMPv6ND_NS(tgt=NEIGHBOURS_IPV6),
    'IPv6 neighbour advertisement': ether(ALL_NODES) / ipv6()
    / inet6.ICMPv6ND_NA(tgt=IPV6),
    'IPv6 router advertisement': ether(ALL_NODES) / ipv6()
    / inet6.ICMPv6ND_RA(),
    'IPv6 duplicate address detection': ether('33:33:ff:28:64:c2')
    / ipv6(src='::', dst='ff02::1:ff28:64c2') / inet6.ICMPv6ND_NS(tgt=IPV6),
    'MLD report': ether('33:33:00:00:00:16') / ipv6(dst='ff02::16')
    / inet6.ICMPv6MLReport2(),
    'DHCPv6 solicit': ether('33:33:00:01:00:02') / ipv6(dst='ff02::1:2')
    / inet.UDP(sport=546, dport=547) / dhcp6.DHCP6_Solicit(),
    '802.1Q': ether(NEIGHBOUR) / l2.Dot1Q(vlan=100) / ipv4() / inet.ICMP(),
    '802.1ad': ether(NEIGHBOUR, type=0x88a8) / l2.Dot1Q(vlan=100)
    / l2.Dot1Q(vlan=200) / ipv4() / inet.ICMP(),
    'BPDU': l2.Dot3(dst='01:80:c2:00:00:00', src=GUEST) / l2.LLC()
    / l2.STP(),
    'SNAP': l2.Dot3(dst=NEIGHBOUR, src=GUEST) / l2.LLC() / l2.SNAP(),
    'PPPoE discovery': ether(hosts.BROADCAST) / ppp.PPPoED(),
    'MPLS': ether(NEIGHBOUR, type=0x8847),
    'full size': ether(NEIGHBOUR) / ipv4() / inet.UDP()
    / scapy_packet.Raw(bytes(1400)),
}
#: For each, its source is another one: whose?
SOURCES = {
    'nobody': STRANGER,
    'neighbour': NEIGHBOUR,
    'gateway': WIRE,
    'bridge': BRIDGE,
    'own TAP': base.TAP_MAC,
    'one bit off': 'fa:16:3e:28:64:c3',
}
#: Frames that the bridge itself takes or drops, whoever sends them.
NEVER = {
    'LLDP': ether('01:80:c2:00:00:0e', type=0x88cc),
    'EAPOL': ether('01:80:c2:00:00:03') / eap.EAPOL(),
    'source is a group': ether(NEIGHBOUR, '01:00:5e:00:00:01',
                               type=hosts.ETHERTYPE),
    'source is zero': ether(NEIGHBOUR, '00:00:00:00:00:00',
                            type=hosts.ETHERTYPE),
}
#: What is a lie further inside: anti_spoofing = mac says nothing of it.
INSIDE = {
    'ARP, another sender MAC': ether(hosts.BROADCAST) / l2.ARP(
        op=1, hwsrc=STRANGER, psrc=IPV4, pdst=NEIGHBOURS_IPV4),
    'ARP, another sender address': ether(hosts.BROADCAST) / l2.ARP(
        op=2, hwsrc=GUEST, psrc=GATEWAY, pdst=NEIGHBOURS_IPV4),
    'IPv4, another source': ether(NEIGHBOUR) / ipv4(src=GATEWAY)
    / inet.ICMP(),
    'IPv6, another source': ether(NEIGHBOUR) / ipv6(src='fe80::99'),
    'neighbour advertisement, another target': ether(ALL_NODES) / ipv6()
    / inet6.ICMPv6ND_NA(tgt=NEIGHBOURS_IPV6),
}


class FramesTestCase(base.FunctionalTestCase):

    def lay_network(self, anti_spoofing, queues=1, **options):
        """Have a guest, its neighbour, and a wire on the other side."""
        self.configure(anti_spoofing=anti_spoofing, multiqueue=queues > 1,
                       **options)
        bridge = self.host.add(base.BRIDGE, 'bridge', address=BRIDGE,
                               br_mcast_snooping=0)
        self.host.quiet_ipv6(base.BRIDGE)
        self.host.set(base.BRIDGE, state='up')
        self.host.add_tap('uplink')
        self.host.quiet_ipv6('uplink')
        uplink = self.host.set('uplink', master=bridge.index, state='up')
        # The guest was heard from there, which is only of interest where
        # arriving_guests is filter.
        self.host.ip.fdb('add', ifindex=uplink.index, lladdr=GUEST, flags=4,
                         state=0x40)
        self.plug()
        neighbour = base.numbered_vif(1)
        self.assertEqual(NEIGHBOUR, neighbour.address)
        self.plug(neighbour)
        flags = _MULTI_QUEUE if queues > 1 else hosts.IFF_TAP
        self.queues = [self.open(base.TAP, GUEST, flags)
                       for _ in range(queues)]
        self.receivers = {
            'wire': self.open('uplink', WIRE),
            'neighbour': self.open(neighbour.vif_name, NEIGHBOUR, flags)}
        self.number = 0

    def open(self, tap, mac, flags=hosts.IFF_TAP):
        guest = hosts.Guest(tap, mac, flags)
        self.addCleanup(guest.close)
        self.host.wait_until_forwarding(tap)
        return guest

    def number_frame(self, frame):
        """Return a frame's octets, and a number in them to know it by."""
        self.number += 1
        number = b'frame %08d.' % self.number
        return bytes(frame / scapy_packet.Raw(number)), number

    def who_gets(self, *frames, queue):
        """Send frames, and at last a good one; return who gets which.

        One queue of a TAP keeps the order, so what has not come out before
        the good one never will.
        """
        for guest in self.receivers.values():  # Where they are.
            guest.send(hosts.BROADCAST, b'hello')
        numbers = []
        for frame in *frames, ether(hosts.BROADCAST, type=hosts.ETHERTYPE):
            octets, number = self.number_frame(frame)
            queue.write(octets)
            numbers.append(number)
        got = [set() for _ in numbers]
        for name, guest in self.receivers.items():
            for octets in guest.frames():
                for number, names in zip(numbers, got):
                    if number in octets:
                        names.add(name)
                if name in got[-1]:
                    break
        self.assertEqual(set(self.receivers), got.pop())
        return got

    def expected(self, frame):
        return ({'neighbour'} if frame.dst == NEIGHBOUR
                else {'neighbour', 'wire'})


class Table:
    """All rows, for a guest with so many queues."""

    QUEUES = 1

    def assert_table(self, anti_spoofing, spoofed_pass, **options):
        self.lay_network(anti_spoofing, self.QUEUES, **options)
        for kind, frame in FRAMES.items():
            self.assert_row(kind, frame, STRANGER, spoofed_pass)
        for whose, source in SOURCES.items():
            self.assert_row('source is that of: ' + whose,
                            FRAMES['own ethertype, broadcast'], source,
                            spoofed_pass)
        for kind, frame in INSIDE.items():
            self.assert_gets(kind, frame, self.expected(frame))
        for kind, frame in NEVER.items():
            self.assert_gets(kind, frame, set())
        for name, mac in ('neighbour', NEIGHBOUR), ('wire', WIRE):
            self.assert_draws(name, mac, spoofed_pass)

    def assert_draws(self, victim, mac, expected):
        """Send LLDP as another; see whether that draws what is for him.

        The bridge learns from it, and no hook of netfilter sees it.
        """
        lldp = NEVER['LLDP'].copy()
        lldp.src = mac
        other, = (end for name, end in self.receivers.items()
                  if name != victim)
        for queue in self.queues:
            self.receivers[victim].send(hosts.BROADCAST, b'hello')
            queue.write(bytes(lldp))
            other.send(mac, b'secret')
            self.assertIs(not expected, any(
                b'secret' in frame for frame
                in self.receivers[victim].frames_until(other)), victim)

    def assert_row(self, kind, frame, source, spoofed_pass):
        """Send a frame, and its twin that has another source and no more."""
        spoofed = frame.copy()
        spoofed.src = source
        self.assertEqual([6 <= place < 12 for place in range(len(frame))], [
            one != other or 6 <= place < 12 for place, (one, other)
            in enumerate(zip(bytes(frame), bytes(spoofed)))], kind)
        self.assertNotEqual(bytes(frame), bytes(spoofed))
        expected = self.expected(frame)
        for queue in self.queues:
            self.assertEqual(
                [expected if spoofed_pass else set(), expected],
                self.who_gets(spoofed, frame, queue=queue), kind)

    def assert_gets(self, kind, frame, expected):
        for queue in self.queues:
            self.assertEqual([expected], self.who_gets(frame, queue=queue),
                             kind)

    @base.needs_locked_ports
    def test_mac(self):
        self.assert_table('mac', spoofed_pass=False)

    @base.needs_locked_ports
    def test_mac_of_an_arriving_guest(self):
        self.assert_table('mac', spoofed_pass=False, arriving_guests='filter')
        self.assertFalse(self.host.link(base.TAP).locked)

    def test_none(self):
        self.assert_table('none', spoofed_pass=True)


class OneQueueTest(Table, FramesTestCase):
    pass


class TwoQueuesTest(Table, FramesTestCase):

    QUEUES = 2


class StealingTest(FramesTestCase):
    """What spoofing is for: the neighbour's frames come to the guest."""

    def steal(self, anti_spoofing):
        """Return whether they do."""
        self.lay_network(anti_spoofing)
        guest, = self.queues
        self.receivers['neighbour'].send(hosts.BROADCAST, b'hello')
        guest.write(bytes(ether(hosts.BROADCAST, NEIGHBOUR,
                                type=hosts.ETHERTYPE)))
        wire = self.receivers['wire']
        wire.send(NEIGHBOUR, b'secret')
        stolen, received = (
            any(b'secret' in frame for frame in end.frames_until(wire))
            for end in (guest, self.receivers['neighbour']))
        self.assertIs(not stolen, received)
        return stolen

    def test_none(self):
        self.assertTrue(self.steal('none'))

    @base.needs_locked_ports
    def test_mac(self):
        self.assertFalse(self.steal('mac'))
