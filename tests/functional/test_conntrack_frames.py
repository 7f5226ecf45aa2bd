# SPDX-License-Identifier: Apache-2.0

"""Which frames get past a stateful port, and what conntrack costs.

On kernels that have conntrack for bridges, so mostly on others than this
machine's. The table is the agent's; its groups are a few that tests can do
with, by the names of their chains.
"""

import contextlib
import itertools
import os
import socket
import sys

from scapy.layers import inet
from scapy.layers import inet6
from scapy.layers import l2
from scapy import packet as scapy_packet

from tests import base
from tests import connections
from tests import hosts
from tests import patience
from vif_plug_tapmac.kernel import agent_conntrack
from vif_plug_tapmac.kernel import agent_table
from vif_plug_tapmac.kernel import conntrack
from vif_plug_tapmac.kernel import filter_steps
from vif_plug_tapmac.kernel import filter_table
from vif_plug_tapmac.kernel import nft
from vif_plug_tapmac.kernel import nft_expressions as nftx
from vif_plug_tapmac.kernel import nft_sets
from vif_plug_tapmac.wanted import rules
from vif_plug_tapmac.wanted import security_groups

_TABLE, _GROUP = filter_table.NAME, 29796
_INPUT = 1
_TO_PORT = nftx.field(nftx.TRANSPORT, 2, 2)
_TCP, _UDP = 6, 17
#: Source: include/uapi/linux/neighbour.h, NUD_PERMANENT
_PERMANENT = 0x80

GUEST, NEIGHBOUR, WIRE = ('fa:16:3e:28:64:c2', 'fa:16:3e:00:00:01',
                          '52:54:00:00:00:01')
HOST, STRANGER = '02:00:00:00:00:01', '52:54:00:00:00:77'
IP = {GUEST: '192.0.2.10', NEIGHBOUR: '192.0.2.11', WIRE: '192.0.2.1',
      HOST: '192.0.2.2'}
IP6 = {GUEST: '2001:db8::10', NEIGHBOUR: '2001:db8::11', WIRE: '2001:db8::1'}


def _dport(protocol, port):
    return (nftx.equals(nftx.PROTOCOL, protocol)
            + nftx.equals(_TO_PORT, port))


#: What groups let pass, in one direction.
_SSH_DNS = (nftx.accept('in_ssh_dns', _dport(_TCP, 22)),
            nftx.accept('in_ssh_dns', _dport(_UDP, 53)))
_GROUPS = {
    'out_all': [nftx.accept('out_all')], 'out_none': [], 'in_none': [],
    'in_ssh_dns': _SSH_DNS}


def _chain(name, rules):
    """Return what has a chain for ports with a group, with these rules."""
    direction = (security_groups.EGRESS if name.startswith('out')
                 else security_groups.INGRESS)
    return [nft.new_chain(_TABLE, nft.Chain(name)),
            nft.delete_rules(_TABLE, name),
            *(nft.new_rule(_TABLE, each) for each in (
                *agent_table.first(direction, name),
                agent_conntrack.first(direction, name), *rules,
                nftx.rule(name, nftx.go_to(agent_table.LAST[direction]))))]


def ipv4(source, destination, **fields):
    return l2.Ether(src=source, dst=destination) / inet.IP(
        src=IP[source], dst=IP[destination], **fields)


def ipv6(source, destination, **fields):
    return l2.Ether(src=source, dst=destination) / inet6.IPv6(
        src=IP6[source], dst=IP6[destination], **fields)


def tcp(sport, dport, flags, seq=1000, ack=0):
    return inet.TCP(sport=sport, dport=dport, flags=flags, seq=seq, ack=ack)


def udp(sport, dport, payload=b'x'):
    return inet.UDP(sport=sport, dport=dport) / scapy_packet.Raw(payload)


def announcement(mac):
    """Return what may be said at any time, to all."""
    return l2.Ether(src=mac, dst=hosts.BROADCAST) / l2.ARP(
        op=1, hwsrc=mac, psrc=IP[mac], pdst=IP[mac])


_WORDS = b'0123456789abcdef' * 150


def fragments(source, destination, payload):
    return inet.fragment(ipv4(source, destination) / payload, 1200)


def fragments6(source, destination, payload):
    whole = ipv6(source, destination) / inet6.IPv6ExtHdrFragment() / payload
    return [l2.Ether(src=source, dst=destination) / part
            for part in inet6.fragment6(whole[inet6.IPv6], 1280)]


class ConntrackTestCase(base.FunctionalTestCase):

    #: What the host's iptables see of bridges.
    CALL_IPTABLES = '0'

    def setUp(self):
        super().setUp()
        if not conntrack.probe():
            self.skipTest(connections.NONE_IN_BRIDGES)
        connections.stay()
        with contextlib.suppress(FileNotFoundError):
            for each in 'iptables', 'ip6tables':
                with open('/proc/sys/net/bridge/bridge-nf-call-' + each,
                          'w') as opened:
                    opened.write(self.CALL_IPTABLES)
        self.bridges = {}
        self.numbers = itertools.count()
        self.zones = {}

    def lay_network(self, *names, most=agent_conntrack.MOST):
        """Have the table, and bridges with nothing on them."""
        for name in names or (base.BRIDGE,):
            self.host.add(name, 'bridge', br_mcast_snooping=0, address=(
                '02:00:00:00:00:%02x' % (len(self.bridges) + 1)))
            self.host.quiet_ipv6(name)
            self.bridges[name] = self.host.set(name, state='up').index
        self.zones = agent_conntrack.zones(self.bridges)
        self.transact(
            *filter_steps.making({_GROUP}, {_GROUP}),
            *agent_conntrack.making(_TABLE, most),
            *(step for name, rules in _GROUPS.items()
              for step in _chain(name, rules)),
            *self.elements(agent_conntrack.ZONES, *(
                agent_conntrack.zone_element(name, zone)
                for name, zone in self.zones.items())))

    def transact(self, *steps):
        with nft.Session() as session:
            session.transact('test', steps)

    def elements(self, where, *elements):
        return nft_sets.add_elements(_TABLE, where, elements)

    def add_port(self, name, mac, bridge=base.BRIDGE, egress='out_all',
                 ingress='in_none', is_stateful=True):
        """Have a guest whose port the agent feeds; return its TAP's end."""
        self.host.add_tap(name)
        self.join(name, bridge, group=_GROUP)
        number = self.host.link(name).index
        index = number.to_bytes(4, sys.byteorder)
        own = rules.of_port(name, mac, [IP[mac], IP6[mac]]).elements
        self.transact(
            *filter_steps.additions({number: dict.fromkeys(own, name)}),
            *self.elements(agent_table.EGRESS,
                           nft_sets.Element(index, data=egress)),
            *self.elements(agent_table.INGRESS,
                           nft_sets.Element(index, data=ingress)),
            *self.elements(
                agent_conntrack.STATEFUL_MACS if is_stateful
                else agent_conntrack.STATELESS_MACS,
                agent_conntrack.mac_element(bridge, mac)),
            *(self.elements(agent_table.STATEFUL, nft_sets.Element(index))
              if is_stateful else ()))
        return self.hold(name, mac)

    def add_wire(self, bridge=base.BRIDGE, name='wire'):
        """Have what leads to other hosts: a port that is no guest's."""
        self.host.add_tap(name)
        self.join(name, bridge)
        return self.hold(name, WIRE)

    def join(self, name, bridge, **attributes):
        self.host.quiet_ipv6(name)
        self.host.set(name, master=self.bridges[bridge], state='up',
                      **attributes)

    def hold(self, name, mac):
        guest = hosts.Guest(name, mac)
        self.addCleanup(guest.close)
        self.host.wait_until_forwarding(name)
        guest.write(bytes(announcement(mac)))
        return guest

    def passes(self, frame, sender, receiver):
        """Send a frame; return whether it comes out there, as it is."""
        octets = bytes(frame)
        sender.write(octets)
        return octets in self.until(sender, receiver)

    def until(self, sender, receiver):
        """Return what came out before a frame that is sent now."""
        last = b'last %d.' % next(self.numbers)
        sender.write(bytes(announcement(sender.mac)) + last)
        return list(itertools.takewhile(
            lambda frame: last not in frame, receiver.frames()))

    def assert_passes(self, frame, sender, receiver):
        self.assertTrue(self.passes(frame, sender, receiver),
                        frame.summary())

    def assert_stopped(self, frame, sender, receiver):
        self.assertFalse(self.passes(frame, sender, receiver),
                         frame.summary())

    def open_tcp(self, client, server, sport=4000, dport=22):
        """Have a connection; return what each end may send in it."""
        def says(one, other, *arguments):
            return ipv4(one.mac, other.mac) / tcp(*arguments)
        self.assert_passes(says(client, server, sport, dport, 'S', 99),
                           client, server)
        self.assert_passes(says(server, client, dport, sport, 'SA', 999, 100),
                           server, client)
        asks = says(client, server, sport, dport, 'PA', 100, 1000) / b'ask'
        answers = says(server, client, dport, sport, 'PA', 1000, 100) / b'ans'
        self.assert_passes(asks, client, server)
        self.assert_passes(answers, server, client)
        return asks, answers

    def zone(self, bridge=base.BRIDGE):
        return self.zones[bridge]

    def found(self, mac, bridge=base.BRIDGE):
        return conntrack.connections(self.zone(bridge), [IP[mac], IP6[mac]])


class StatefulTest(ConntrackTestCase):

    def test_what_a_guest_begins_is_answered(self):
        self.lay_network()
        guest, wire = self.add_port('guest', GUEST), self.add_wire()
        asks, answers = self.open_tcp(guest, wire, 4000, 443)
        for layer, echo, echoed in (
                (ipv4, inet.ICMP(id=7), inet.ICMP(type=0, id=7)),
                (ipv6, inet6.ICMPv6EchoRequest(id=7),
                 inet6.ICMPv6EchoReply(id=7)),
                (ipv4, udp(4000, 123), udp(123, 4000)),
                (ipv6, udp(4000, 123), udp(123, 4000)),
                (ipv6, tcp(4001, 443, 'S'),
                 tcp(443, 4001, 'SA', 0, 1001))):
            answer = layer(WIRE, GUEST) / echoed
            self.assert_stopped(answer, wire, guest)
            self.assert_passes(layer(GUEST, WIRE) / echo, guest, wire)
            self.assert_passes(answer, wire, guest)
        # What is not asked for is no answer.
        self.assert_stopped(ipv4(WIRE, GUEST) / udp(124, 4000), wire, guest)
        self.assert_stopped(ipv4(WIRE, GUEST) / tcp(443, 4002, 'S'),
                            wire, guest)
        self.assert_stopped(ipv4(WIRE, GUEST) / inet.ICMP(type=0, id=8),
                            wire, guest)
        self.assertEqual({self.zone()}, {
            each.zone for each in self.found(GUEST)})
        self.assertEqual(6, len(self.found(GUEST)))

    def test_what_may_come_in_may_be_answered_by_who_may_send_nothing(self):
        self.lay_network()
        guest = self.add_port('guest', GUEST, egress='out_none',
                              ingress='in_ssh_dns')
        wire = self.add_wire()
        self.open_tcp(wire, guest)
        self.assert_passes(ipv6(WIRE, GUEST) / udp(4000, 53), wire, guest)
        self.assert_passes(ipv6(GUEST, WIRE) / udp(53, 4000), guest, wire)
        self.assert_stopped(ipv6(GUEST, WIRE) / udp(53, 4001), guest, wire)
        self.assert_stopped(ipv4(GUEST, WIRE) / tcp(22, 4001, 'S'),
                            guest, wire)

    def test_between_two_guests_of_a_bridge(self):
        self.lay_network()
        guest = self.add_port('guest', GUEST)
        neighbour = self.add_port('neighbour', NEIGHBOUR,
                                  ingress='in_ssh_dns')
        self.open_tcp(guest, neighbour)
        self.assert_stopped(ipv4(NEIGHBOUR, GUEST) / tcp(4000, 22, 'S'),
                            neighbour, guest)

    def test_errors_are_of_what_they_are_about(self):
        self.lay_network()
        guest, wire = self.add_port('guest', GUEST), self.add_wire()
        for layer, unreachable in (
                (ipv4, inet.ICMP(type=3, code=3)),
                (ipv6, inet6.ICMPv6DestUnreach(code=4))):
            asks = layer(GUEST, WIRE) / udp(4000, 123)
            error = layer(WIRE, GUEST) / unreachable / asks[1].copy()
            self.assert_stopped(error, wire, guest)
            self.assert_passes(asks, guest, wire)
            self.assert_passes(error, wire, guest)
            other = layer(GUEST, WIRE) / udp(4001, 123)
            self.assert_stopped(layer(WIRE, GUEST) / unreachable / other[1],
                                wire, guest)

    def test_fragments_are_looked_at_as_one_packet(self):
        self.lay_network()
        guest = self.add_port('guest', GUEST, ingress='in_ssh_dns')
        wire = self.add_wire()
        for split in fragments, fragments6:
            # The first has the ports, and is no answer to anything.
            self.assertEqual(b'', self.comes(split(
                WIRE, GUEST, udp(4000, 54, _WORDS)), wire, guest))
            self.assertIn(_WORDS, self.comes(split(
                WIRE, GUEST, udp(4000, 53, _WORDS)), wire, guest))
            self.assertIn(_WORDS, self.comes(split(
                GUEST, WIRE, udp(53, 4000, _WORDS)), guest, wire))

    def comes(self, parts, sender, receiver):
        """Send what is in several fragments; return what comes of that."""
        self.assertLess(1, len(parts))
        for part in parts:
            sender.write(bytes(part))
        came = {}
        for each in map(l2.Ether, self.until(sender, receiver)):
            if inet6.IPv6ExtHdrFragment in each:
                part = each[inet6.IPv6ExtHdrFragment]
                came[part.offset] = bytes(part.payload)
            elif inet.IP in each:
                came[each[inet.IP].frag] = bytes(each[inet.IP].payload)
        return b''.join(came[offset] for offset in sorted(came))

    def test_cut_when_the_rule_is_gone(self):
        self.lay_network()
        guest = self.add_port('guest', GUEST, egress='out_none',
                              ingress='in_ssh_dns')
        neighbour = self.add_port('neighbour', NEIGHBOUR, egress='out_none',
                                  ingress='in_ssh_dns')
        wire = self.add_wire()
        asks, answers = self.open_tcp(wire, guest)
        query = ipv6(WIRE, GUEST) / udp(4000, 53)
        reply = ipv6(GUEST, WIRE) / udp(53, 4000)
        self.assert_passes(query, wire, guest)
        self.assert_passes(reply, guest, wire)
        others, _ = self.open_tcp(wire, neighbour)
        self.transact(*_chain('in_ssh_dns', []))
        # A rule that goes leaves what it has let through.
        self.assert_passes(asks, wire, guest)
        self.assertEqual(2, conntrack.delete(self.zone(),
                                             [IP[GUEST], IP6[GUEST]]))
        for frame, sender, receiver in (
                (asks, wire, guest), (answers, guest, wire),
                (query, wire, guest), (reply, guest, wire)):
            self.assert_stopped(frame, sender, receiver)
        self.assert_passes(others, wire, neighbour)
        self.assertEqual(1, conntrack.delete(self.zone(), [IP[NEIGHBOUR]]))
        self.assert_stopped(others, wire, neighbour)

    def test_cut_and_begun_again_by_the_guest(self):
        """See "What stays open" of the page on security."""
        self.lay_network()
        guest = self.add_port('guest', GUEST, ingress='in_ssh_dns')
        wire = self.add_wire()
        for loose in '1', '0':
            with open('/proc/sys/net/netfilter/nf_conntrack_tcp_loose',
                      'w') as opened:
                opened.write(loose)
            self.transact(*_chain('in_ssh_dns', _SSH_DNS))
            asks, answers = self.open_tcp(wire, guest, 4000 + int(loose))
            self.transact(*_chain('in_ssh_dns', []))
            conntrack.delete(self.zone(), [IP[GUEST]])
            self.assert_stopped(asks, wire, guest)
            # It may begin what it likes, and so go on with that.
            passes = self.passes(answers, guest, wire)
            self.assertEqual(loose == '1', passes)
            self.assertEqual(loose == '1', self.passes(asks, wire, guest))

    def test_what_is_still_allowed_goes_on(self):
        self.lay_network()
        guest = self.add_port('guest', GUEST, ingress='in_ssh_dns')
        wire = self.add_wire()
        asks, answers = self.open_tcp(wire, guest)
        own_asks, own_answers = self.open_tcp(guest, wire, 4001, 443)
        self.assertEqual(2, conntrack.delete(self.zone(), [IP[GUEST]]))
        self.assert_passes(asks, wire, guest)
        self.assert_passes(answers, guest, wire)
        self.assert_passes(own_asks, guest, wire)
        self.assert_passes(own_answers, wire, guest)

    def test_equal_addresses_on_two_bridges(self):
        self.lay_network('br100', 'br200')
        guest = self.add_port('guest', GUEST, 'br100', ingress='in_ssh_dns')
        wire = self.add_wire('br100')
        other = self.add_port('other', GUEST, 'br200')
        other_wire = self.add_wire('br200', 'otherwire')
        asks, answers = self.open_tcp(wire, guest)
        # It is the same to the octet, and of no connection there.
        self.assert_stopped(asks, other_wire, other)
        _, own_answers = self.open_tcp(other, other_wire, 4000, 443)
        self.assert_stopped(own_answers, wire, guest)
        self.assertEqual([1, 1], [len(self.found(GUEST, bridge))
                                  for bridge in self.bridges])
        self.assertEqual(1, conntrack.delete(self.zone('br200'),
                                             [IP[GUEST]]))
        self.assert_passes(asks, wire, guest)
        self.assert_passes(answers, guest, wire)
        self.assert_stopped(own_answers, other_wire, other)

    def test_flow_of_others_opens_no_neighbour(self):
        self.lay_network()
        guest = self.add_port('guest', GUEST)
        neighbour = self.add_port('neighbour', NEIGHBOUR,
                                  ingress='in_ssh_dns')
        wire = self.add_wire()
        asks, _ = self.open_tcp(wire, neighbour)
        for mac in STRANGER, 'fa:16:3e:28:64:c3':
            flooded = asks.copy()
            flooded.dst = mac
            self.assert_stopped(flooded, wire, guest)
            self.assert_stopped(flooded, wire, neighbour)

    def test_tcp_goes_on_after_a_live_migration(self):
        self.lay_network()
        guest = self.add_port('guest', GUEST, ingress='in_ssh_dns')
        wire = self.add_wire()
        # Nobody here has seen how these began.
        answers = ipv4(WIRE, GUEST) / tcp(443, 4000, 'PA', 1000, 100) / b'ans'
        self.assert_stopped(answers, wire, guest)
        asks = ipv4(GUEST, WIRE) / tcp(4000, 443, 'PA', 100, 1000) / b'ask'
        self.assert_passes(asks, guest, wire)
        self.assert_passes(answers, wire, guest)
        typed = ipv4(WIRE, GUEST) / tcp(4001, 22, 'PA', 100, 1000) / b'ls'
        self.assert_passes(typed, wire, guest)
        self.assert_passes(ipv4(GUEST, WIRE) / tcp(
            22, 4001, 'PA', 1000, 102) / b'bin', guest, wire)
        # An operator who wants it otherwise says so.
        with open('/proc/sys/net/netfilter/nf_conntrack_tcp_loose',
                  'w') as opened:
            opened.write('0')
        self.assert_stopped(ipv4(GUEST, WIRE) / tcp(
            4002, 443, 'PA', 100, 1000) / b'ask', guest, wire)


class WithIptablesTest(StatefulTest):
    """As above, where the host's iptables see what bridges forward."""

    CALL_IPTABLES = '1'


class TableTest(ConntrackTestCase):

    def is_right(self):
        with nft.Session() as session:
            return agent_conntrack.is_right(session, _TABLE)

    def test_it_is_told_as_it_was_made(self):
        self.lay_network()
        self.assertTrue(self.is_right())
        for steps in ([nft.delete_rules(_TABLE, 'ct_egress')],
                      [nft.new_rule(_TABLE, nftx.accept('ct_ingress'))],
                      [nft.delete_rules(_TABLE, 'ct_zone'),
                       nft.delete_chain(_TABLE, 'ct_zone')]):
            self.transact(*steps)
            self.assertFalse(self.is_right())
            self.transact(*agent_conntrack.making(_TABLE))
            self.assertTrue(self.is_right())


class StatelessTest(ConntrackTestCase):

    def test_passed_over_and_judged_by_rules_alone(self):
        self.lay_network()
        guest = self.add_port('guest', GUEST, ingress='in_ssh_dns',
                              is_stateful=False)
        wire = self.add_wire()
        self.assert_passes(ipv4(GUEST, WIRE) / udp(4000, 123), guest, wire)
        self.assert_stopped(ipv4(WIRE, GUEST) / udp(123, 4000), wire, guest)
        self.assert_passes(ipv4(WIRE, GUEST) / udp(4000, 53), wire, guest)
        self.assert_passes(ipv4(GUEST, WIRE) / udp(53, 4000), guest, wire)
        self.assertEqual(0, connections.count())

    def test_speaks_with_a_stateful_one(self):
        self.lay_network()
        guest = self.add_port('guest', GUEST)
        neighbour = self.add_port('neighbour', NEIGHBOUR, is_stateful=False,
                                  ingress='in_ssh_dns')
        self.open_tcp(guest, neighbour)
        self.assert_stopped(ipv4(NEIGHBOUR, GUEST) / udp(53, 4000),
                            neighbour, guest)
        self.assertEqual(1, len(self.found(GUEST)))


class HostTest(ConntrackTestCase):
    """The host has an address on the bridge, and a firewall of its own."""

    def test_ssh_both_ways(self):
        self.lay_network()
        self.guest = self.add_port('guest', GUEST, ingress='in_ssh_dns')
        self.wire = self.add_wire()
        bridge = self.bridges[base.BRIDGE]
        self.host.ip.addr('add', index=bridge, address=IP[HOST], prefixlen=24)
        self.host.ip.neigh('add', ifindex=bridge, dst=IP[GUEST],
                           lladdr=GUEST, state=_PERMANENT)
        self.protect_host()
        with socket.create_server((IP[HOST], 22)) as server:
            answer = self.hears(4000, tcp(4000, 22, 'S', 99))[0]
            self.assertEqual('SA', answer.flags)
            self.hears(4000, tcp(4000, 22, 'A', 100, answer.seq + 1))
            server.settimeout(patience.HANG)
            accepted, _ = server.accept()
        self.assert_speaks(accepted, 4000, 22, 100, answer.seq + 1)
        with socket.socket() as client:
            client.bind((IP[HOST], 4001))
            client.setblocking(False)
            client.connect_ex((IP[GUEST], 22))
            asks = self.hears(22)[0]
            self.assertEqual('S', asks.flags)
            answer = self.hears(22, tcp(22, 4001, 'SA', 99, asks.seq + 1))[-1]
            self.assertEqual('A', answer.flags)
            self.assert_speaks(client, 22, 4001, 100, asks.seq + 1)
        self.assertEqual([], self.found(GUEST))

    def assert_speaks(self, end, sport, dport, seq, ack):
        """Expect what each says to get to the other."""
        self.guest.write(bytes(ipv4(GUEST, HOST) / tcp(
            sport, dport, 'PA', seq, ack) / b'words'))
        with end:
            self.assertEqual(b'words', end.recv(5, socket.MSG_DONTWAIT))
            end.sendall(b'answer')
            self.assertIn(b'answer', [bytes(each.payload)
                                      for each in self.hears(sport)])

    def hears(self, port, *says):
        """Send what the guest says to the host; return what a port gets."""
        for each in says:
            self.guest.write(bytes(ipv4(GUEST, HOST) / each))
        return [each[inet.TCP] for each in map(
            l2.Ether, self.until(self.wire, self.guest))
            if inet.TCP in each and each.dport == port]

    def protect_host(self):
        """Have it take SSH, and what belongs to its own connections."""
        name, chain = 'host', nft.Chain('input', (_INPUT, 0))
        steps = [
            nft.new_table(name, ''), nft.new_chain(name, chain),
            nft.new_rule(name, nftx.accept('input', nftx.is_one_of(
                nftx.CT_STATE, nftx.ESTABLISHED))),
            nft.new_rule(name, nftx.accept('input', _dport(_TCP, 22))),
            nft.new_rule(name, nftx.rule('input', nftx.DROP))]
        self.transact(*nft.on(socket.AF_INET, steps))


class RoomTest(ConntrackTestCase):
    """What there is room for."""

    def test_memory_stays_as_it_is_for_what_has_no_connection(self):
        self.lay_network()
        guest, wire = self.add_port('guest', GUEST), self.add_wire()
        asks = bytes(l2.Ether(src=GUEST, dst=hosts.BROADCAST) / l2.ARP(
            op=1, hwsrc=GUEST, psrc=IP[GUEST], pdst=IP[WIRE]))
        answers = bytes(l2.Ether(src=WIRE, dst=GUEST) / l2.ARP(
            op=2, hwsrc=WIRE, psrc=IP[WIRE], hwdst=GUEST, pdst=IP[GUEST]))
        frames = patience.amount(20_000, 20_000, 1_000_000)

        def send(number):
            for _ in range(number // 2):
                os.write(guest.descriptor, asks)
                os.write(wire.descriptor, answers)
                if not _ % 100:
                    guest.waiting(), wire.waiting()

        send(2000)
        before = unreclaimable()
        send(frames)
        grown = unreclaimable() - before
        print('%d frames: %d KiB' % (frames, grown // 1024))
        # One that is forgotten takes 256 octets, or more; however many there
        # were, what comes and goes is no more than some pages.
        self.assertLess(grown, min(frames * 64, 16 << 20))

    def test_a_port_has_its_part_and_no_more(self):
        self.lay_network(most=10)
        guest = self.add_port('guest', GUEST, ingress='in_ssh_dns')
        neighbour = self.add_port('neighbour', NEIGHBOUR)
        wire = self.add_wire()
        # Those who knock in vain have none of it, nor what is said again.
        said = ipv4(GUEST, WIRE) / udp(4000, 123)
        self.assert_passes(said, guest, wire)
        for number in range(50):
            wire.write(bytes(ipv4(WIRE, GUEST) / udp(4000 + number, 54)))
            guest.write(bytes(said))
        self.assertEqual(50, self.until(guest, wire).count(bytes(said)))
        asks, answers = self.open_tcp(wire, guest)
        for number in range(1, 9):
            self.assert_passes(ipv4(GUEST, WIRE) / udp(4000 + number, 123),
                               guest, wire)
        self.assert_stopped(ipv4(GUEST, WIRE) / udp(4010, 123), guest, wire)
        self.assert_stopped(ipv4(WIRE, GUEST) / udp(4000, 53), wire, guest)
        self.assert_passes(asks, wire, guest)
        self.assert_passes(answers, guest, wire)
        self.assert_passes(ipv4(NEIGHBOUR, WIRE) / udp(4000, 123),
                           neighbour, wire)
        self.assertEqual(10, len(self.found(GUEST)))
        conntrack.delete(self.zone(), [IP[GUEST]])
        self.assert_passes(ipv4(GUEST, WIRE) / udp(4010, 123), guest, wire)

    def test_full(self):
        self.lay_network()
        guest = self.add_port('guest', GUEST, ingress='in_ssh_dns')
        neighbour = self.add_port('neighbour', NEIGHBOUR, is_stateful=False)
        wire = self.add_wire()
        asks, answers = self.open_tcp(wire, guest)
        with room_for(1):
            for number in range(3):
                new = ipv4(GUEST, WIRE) / udp(4000 + number, 123)
                stopped = not self.passes(new, guest, wire)
            self.assertTrue(stopped)
            self.assert_passes(asks, wire, guest)
            self.assert_passes(answers, guest, wire)
            self.assert_passes(announcement(GUEST), guest, wire)
            self.assert_passes(ipv4(NEIGHBOUR, WIRE) / udp(4000, 123),
                               neighbour, wire)
        self.assert_passes(new, guest, wire)


def unreclaimable():
    """Return how much the kernel has for itself, in octets."""
    with open('/proc/meminfo') as opened:
        return 1024 * sum(int(line.split()[1]) for line in opened
                          if line.startswith(('SUnreclaim', 'Percpu')))


@contextlib.contextmanager
def room_for(number):
    """Have the kernel keep so many connections, in each namespace."""
    def write(value):
        with hosts.returning():
            hosts.enter(os.open('/proc/1/ns/net', os.O_RDONLY))
            with open('/proc/sys/net/netfilter/nf_conntrack_max',
                      'r+') as opened:
                before = opened.read()
                opened.seek(0)
                opened.write(value)
        return before
    before = write(str(number))
    try:
        yield
    finally:
        write(before)
