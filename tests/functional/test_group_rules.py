# SPDX-License-Identifier: Apache-2.0

"""Which packets security groups let pass, as chains and sets of the kernel.

Each rule is tried in both directions, with packets that it lets pass and with
twins of these that differ in one thing, which it does not. They are written
to a TAP and looked for at another.
"""

import ipaddress
import random
import struct

from scapy.layers import inet
from scapy.layers import inet6
from scapy import packet as scapy_packet
from testtools import content

from tests import base
from tests.functional.test_frames import ether
from tests.functional.test_frames import GUEST
from tests.functional.test_frames import NEIGHBOUR
from tests.functional.test_full_frames import until_last
from tests import hosts
from vif_plug_tapmac.kernel import group_rules
from vif_plug_tapmac.kernel import nft
from vif_plug_tapmac.kernel import nft_expressions as nftx
from vif_plug_tapmac.kernel import nft_sets
from vif_plug_tapmac.wanted.security_groups import Group
from vif_plug_tapmac.wanted.security_groups import Members
from vif_plug_tapmac.wanted.security_groups import Rule

_TABLE = 'tapmac'
_PREROUTING, _FORWARD, _PRIORITY = 0, 2, -150
_ARP = 0x0806
_GROUP, _OTHER = ('%s-0000-4000-8000-000000000000' % (each * 8)
                  for each in 'ab')
_SET = 'group:' + _OTHER
_INGRESS, _EGRESS = _DIRECTIONS = 'ingress', 'egress'
_OWN = {4: '192.0.2.10', 6: '2001:db8::10'}
_REMOTE = {4: '198.51.100.170', 6: '2001:db8:5a5a:a5a5:5a5a:a5a5:5a5a:a5a5'}
_TCP, _UDP, _ICMP = 6, 17, {4: 1, 6: 58}
_WITH_PORTS = 6, 17, 33, 132, 136
#: Headers of IPv6 that are not the protocol, and those that need a form.
_HEADERS = {0, 43, 44, 51, 60}
#: How many frames are on their way at once: fewer than a TAP's queue takes.
_AT_ONCE = 100
_MANY = 'thousands of frames'
_ENDS = {4: ('0.0.0.0', '255.255.255.255'), 6: ('::', 'ff' * 2 + ':ffff' * 7)}


def packet(direction, family, protocol, octets=bytes(24), remote=None,
           **fields):
    """Return a packet whose protocol has these octets at first."""
    here, there = _OWN[family], remote or _REMOTE[family]
    source, destination = ((there, here) if direction == _INGRESS
                           else (here, there))
    head = (inet.IP(src=source, dst=destination, proto=protocol, **fields)
            if family == 4 else
            inet6.IPv6(src=source, dst=destination, nh=protocol, **fields))
    return in_frame(direction, head / scapy_packet.Raw(octets))


def in_frame(direction, layers):
    # The type is told, as IPv6 in a frame of scapy's may be anything.
    kind = 0x0800 if layers.name == 'IP' else 0x86dd
    return (ether(GUEST, NEIGHBOUR, type=kind) if direction == _INGRESS
            else ether(NEIGHBOUR, GUEST, type=kind)) / layers


def ports(destination, source=7):
    return struct.pack('>HH', source, destination) + bytes(20)


def icmp(kind, code=0):
    return bytes([kind, code]) + bytes(22)


def fragment(direction, family, protocol, offset, octets, **fields):
    """Return a fragment, which begins at so many times eight octets."""
    if family == 4:
        return packet(direction, 4, protocol, octets, frag=offset,
                      flags='MF', **fields)
    return packet(direction, 6, 44, struct.pack(
        '>BBHI', protocol, 0, offset << 3 | 1, 5) + octets, **fields)


class GroupRulesTest(base.FunctionalTestCase):

    def setUp(self):
        super().setUp()
        bridge = self.host.add(base.BRIDGE, 'bridge', br_mcast_snooping=0)
        self.host.quiet_ipv6(base.BRIDGE)
        self.host.set(base.BRIDGE, state='up')
        self.ends = {}
        for name, mac in (base.TAP, GUEST), ('neighbour', NEIGHBOUR):
            self.host.add_tap(name)
            self.host.quiet_ipv6(name)
            self.host.set(name, master=bridge.index, state='up')
            self.ends[name] = hosts.Guest(name, mac)
            self.addCleanup(self.ends[name].close)
            self.host.wait_until_forwarding(name)
        self.number = 0
        self.loaded = False
        self.nft = nft.Session()
        self.addCleanup(self.nft.__exit__, None, None, None)

    def load(self, *rules, members=(), groups=None):
        """Have a guest whose port is in groups; of one there are rules."""
        groups = groups or [Group(_GROUP, False, rules)]
        made = [group_rules.chains(each) for each in groups]
        made.append(group_rules.set_chain(each.id for each in groups))
        steps = [nft.new_table(_TABLE, '')]
        if self.loaded:
            steps.insert(0, nft.delete_table(_TABLE))
        for number, (one, elements) in enumerate(
                map(group_rules.sets, members), 1):
            steps.append(nft_sets.new_set(_TABLE, one, number))
            steps += nft_sets.add_elements(_TABLE, one.name, elements)
        steps += [nft.new_chain(_TABLE, chain)
                  for each in made for chain in each.chains]
        steps += [nft.new_rule(_TABLE, rule)
                  for each in made for rule in each.rules]
        name = group_rules.set_name(each.id for each in groups)
        index = struct.pack('=I', self.host.link(base.TAP).index)
        for base_chain, hook, which, direction in (
                ('from_guests', _PREROUTING, nftx.IIF, _EGRESS),
                ('to_guests', _FORWARD, nftx.OIF, _INGRESS)):
            steps.append(nft.new_chain(_TABLE, nft.Chain(
                base_chain, (hook, _PRIORITY))))
            # ARP is no matter of groups: it is how a test knows the end.
            steps += [nft.new_rule(_TABLE, nft.Rule(base_chain, each))
                      for each in ((*nftx.equals(nftx.ETHERTYPE, _ARP),
                                    *nftx.ACCEPT),
                                   (*nftx.is_so(which, nftx.EQUAL, index),
                                    *nftx.go_to(group_rules.chain_name(
                                        direction, name))))]
        self.assertTrue(self.nft.transact('loading groups', steps))
        self.loaded = True

    def passing(self, direction, frames):
        """Return for each frame whether it passes."""
        return [each for start in range(0, len(frames), _AT_ONCE)
                for each in self.some_passing(
                    direction, frames[start:start + _AT_ONCE])]

    def some_passing(self, direction, frames):
        sender, receiver = self.ends['neighbour'], self.ends[base.TAP]
        if direction == _EGRESS:
            sender, receiver = receiver, sender
        numbers = {}
        last = ether(hosts.BROADCAST, sender.mac, type=_ARP)
        for place, frame in enumerate([*frames, last]):
            self.number += 1
            mark = b'frame %08d.' % self.number
            numbers[mark] = place
            sender.write(bytes(frame / scapy_packet.Raw(mark)))
        got = {numbers[mark]
               for mark in until_last(receiver.frames(), numbers)}
        self.assertIn(len(frames), got, 'the last one, that none drops')
        return [place in got for place in range(len(frames))]

    def assert_passing(self, direction, rows, what=''):
        """Expect of each frame that it passes, or not.

        :param rows: frames, and whether each does
        """
        got = self.passing(direction, [frame for frame, _ in rows])
        self.assertEqual([], [
            '%s %s %s instead of %s: %s' % (
                what, direction, seen, wanted, frame.summary())
            for (frame, wanted), seen in zip(rows, got) if seen != wanted])

    def assert_rule(self, rows, members=(), family=4, **fields):
        """Expect of a rule that it does so, in each direction.

        :param rows: of packets, their protocol, first octets, other fields of
            :func:`packet`, and whether they pass
        """
        for direction in _DIRECTIONS:
            self.load(Rule('x', direction, family, **fields), members=members)
            self.assert_passing(direction, [
                (packet(direction, family, protocol, octets, **others), wanted)
                for protocol, octets, others, wanted in rows], fields)

    @base.too_slow_emulated(_MANY)
    def test_every_protocol(self):
        for family in 4, 6:
            numbers = [each for each in range(1, 256)
                       if family == 4 or each not in _HEADERS]
            for direction in _DIRECTIONS:
                for half in 0, 1:
                    self.load(*[Rule('x', direction, family, each)
                                for each in numbers if each % 2 == half])
                    self.assert_passing(direction, [
                        (packet(direction, family, each), each % 2 == half)
                        for each in numbers])

    def test_any_of_a_family(self):
        for family, other in (4, 6), (6, 4):
            for direction in _DIRECTIONS:
                for remote in None, {4: '0.0.0.0/0', 6: '::/0'}[family]:
                    self.load(Rule('x', direction, family, remote=remote))
                    self.assert_passing(direction, [
                        (packet(direction, family, _UDP), True),
                        (packet(direction, family, 200), True),
                        (fragment(direction, family, _UDP, 9, bytes(8)),
                         True),
                        (packet(direction, other, _UDP), False),
                        (ether(NEIGHBOUR, GUEST, type=0x88b5)
                         if direction == _EGRESS
                         else ether(GUEST, NEIGHBOUR, type=0x88b5), False)])

    def test_only_in_its_direction(self):
        for direction, other in (_INGRESS, _EGRESS), (_EGRESS, _INGRESS):
            self.load(Rule('x', direction, 4))
            self.assert_passing(direction, [(packet(direction, 4, 6), True)])
            self.assert_passing(other, [
                (packet(other, 4, 6), False),
                (fragment(other, 4, 6, 9, bytes(8)), False)])

    @base.too_slow_emulated(_MANY)
    def test_ports(self):
        for protocol in _WITH_PORTS:
            for family in 4, 6:
                for first, last in ((22, 22), (22, 80), (255, 256),
                                    (1, 65535), (0, 0), (65535, 65535)):
                    near = {first - 1, first, last, last + 1, first + 256,
                            (first + last) // 2} & set(range(65536))
                    rows = [(protocol, ports(port), {}, first <= port <= last)
                            for port in near]
                    # Of another protocol; the port is where it comes from;
                    # what is too short for ports.
                    other = _TCP if protocol == _UDP else _UDP
                    rows.append((other, ports(first), {}, False))
                    if (first, last) == (22, 80):
                        rows.append((protocol, ports(7, 22), {}, False))
                    self.assert_rule(rows, family=family, protocol=protocol,
                                     first=first, last=last)

    @base.too_slow_emulated(_MANY)
    def test_types_of_icmp(self):
        for family in 4, 6:
            for first, last in ((8, None), (8, 0), (0, None), (0, 0), (3, 4),
                                (128, None), (255, None), (255, 255)):
                rows = [(_ICMP[family], icmp(kind, code), {},
                         kind == first and last in (None, code))
                        for kind in {first, (first + 1) % 256, 0}
                        for code in {0, last or 0, 1, 255}]
                rows.append((_UDP, icmp(first), {}, False))
                rows.append((_ICMP[10 - family], icmp(first), {}, False))
                self.assert_rule(rows, family=family, first=first, last=last,
                                 protocol=_ICMP[family])

    @base.too_slow_emulated(_MANY)
    def test_prefixes(self):
        for family, bits, lengths in (
                (4, 32, range(33)),
                (6, 128, (0, 1, 7, 8, 9, 31, 32, 33, 63, 64, 65, 120, 127,
                          128))):
            remote = ipaddress.ip_address(_REMOTE[family])
            for length in lengths:
                network = ipaddress.ip_network(
                    '%s/%d' % (remote, length), strict=False)
                # Each differs in one bit, before the end of it and after.
                twins = [remote] + [
                    type(remote)(int(remote) ^ 1 << bits - 1 - bit)
                    for bit in {0, length - 1, length, bits - 1}
                    if 0 <= bit < bits]
                self.assert_rule(
                    [(_UDP, ports(7), {'remote': str(each)}, each in network)
                     for each in twins],
                    family=family, remote=str(network))

    def test_prefix_and_ports(self):
        for family in 4, 6:
            other = str(ipaddress.ip_address(_REMOTE[family]) + 1)
            whole = '%s/%d' % (_REMOTE[family], {4: 32, 6: 128}[family])
            self.assert_rule(
                [(_TCP, ports(22), {}, True), (_TCP, ports(80), {}, True),
                 (_TCP, ports(21), {}, False), (_TCP, ports(81), {}, False),
                 (_UDP, ports(22), {}, False),
                 (_TCP, ports(22), {'remote': other}, False)],
                family=family, protocol=_TCP, first=22, last=80, remote=whole)

    def assert_members(self, family, members):
        there = Members(_SET, family, frozenset(members))
        keys = [each.key for each in group_rules.sets(there)[1]]
        self.assertEqual(len(keys), len(set(keys)), 'intervals touch')
        networks = [ipaddress.ip_network(each) for each in there.prefixes]
        kind = type(ipaddress.ip_address(_OWN[family]))
        ends = {int(each) + step for network in networks for each in (
            network.network_address, network.broadcast_address)
            for step in (-1, 0, 1)}
        ends |= {int(kind(each)) for each in (*_ENDS[family],
                                              _REMOTE[family])}
        probes = [kind(each) for each in ends
                  if 0 <= each < 1 << kind(0).max_prefixlen]
        self.assert_rule(
            [(_UDP, ports(7), {'remote': str(each)},
              any(each in network for network in networks))
             for each in probes], [there], family, remote_set=_SET)

    def test_members(self):
        for members in (
                [], ['0.0.0.0/0'], ['255.255.255.255'], ['0.0.0.0'],
                ['0.0.0.0/1'], ['128.0.0.0/1'],
                ['0.0.0.0', '255.255.255.255', '198.51.100.0/24'],
                # They touch, and one is in another.
                ['10.0.0.1', '10.0.0.2', '10.0.0.3', '10.0.0.4/30',
                 '10.0.0.8/29', '10.0.0.16', '10.0.0.18', '10.0.0.8']):
            self.assert_members(4, members)
        for members in ([], ['::/0'], ['::'], [_ENDS[6][1]], ['8000::/1'],
                        ['2001:db8::/64', '2001:db8:0:1::/64',
                         '2001:db8:0:2::', '2001:db8:0:2::1', 'fe80::/10']):
            self.assert_members(6, members)

    def test_random_members(self):
        seed = random.randrange(1 << 32)
        self.addDetail('seed', content.text_content(str(seed)))
        chance = random.Random(seed)
        for family, bits in (4, 32), (6, 128):
            kind = ipaddress.ip_address(_OWN[family]).__class__
            self.assert_members(family, [
                '%s/%d' % (kind(0xc0000200 << bits - 32
                                | chance.getrandbits(bits - 24)),
                           chance.randrange(bits - 8, bits + 1))
                for _ in range(40)])

    def test_members_of_one_family_are_not_those_of_another(self):
        both = [Members(_SET, 4, frozenset([_REMOTE[4]])),
                Members(_SET, 6, frozenset())]
        for direction in _DIRECTIONS:
            self.load(*[Rule('x', direction, family, remote_set=_SET)
                        for family in (4, 6)], members=both)
            self.assert_passing(direction, [
                (packet(direction, 4, _TCP), True),
                (packet(direction, 6, _TCP), False)])

    def test_later_fragments(self):
        other = {4: '198.51.100.171', 6: '2001:db8::99'}
        for family in 4, 6:
            whole = '%s/%d' % (_REMOTE[family], {4: 32, 6: 128}[family])
            for protocol, first in (_UDP, 53), (_ICMP[family], 8):
                for direction in _DIRECTIONS:
                    self.load(Rule('x', direction, family, protocol, first,
                                   first, whole))
                    looks_right, looks_wrong = (
                        (ports(53), ports(54)) if protocol == _UDP
                        else (icmp(8, 8), icmp(9, 8)))
                    self.assert_passing(direction, [(
                        fragment(direction, family, number, offset, octets,
                                 remote=remote), wanted)
                        for number, offset, octets, remote, wanted in (
                            (protocol, 0, looks_right, None, True),
                            (protocol, 0, looks_wrong, None, False),
                            (protocol, 0, looks_right, other[family], False),
                            # Ports are in the first.
                            (protocol, 1, looks_wrong, None, True),
                            (protocol, 0x1000, looks_wrong, None, True),
                            (protocol, 1, bytes(2), None, True),
                            (protocol, 1, looks_right, other[family], False),
                            (_TCP, 1, looks_right, None, False))])

    def test_protocol_behind_headers_of_ipv6(self):
        hop = inet6.IPv6ExtHdrHopByHop(options=[inet6.RouterAlert()])
        for direction in _DIRECTIONS:
            def behind(*headers, to=53):
                source, destination = _REMOTE[6], _OWN[6]
                if direction == _EGRESS:
                    source, destination = destination, source
                layers = inet6.IPv6(src=source, dst=destination)
                for each in headers:
                    layers = layers / each
                return in_frame(direction, layers / inet.UDP(dport=to))

            headers = {
                0: hop, 60: inet6.IPv6ExtHdrDestOpt(),
                43: inet6.IPv6ExtHdrRouting(addresses=['2001:db8::1']),
                44: inet6.IPv6ExtHdrFragment(m=1)}
            self.load(Rule('x', direction, 6, _UDP, 53, 53))
            self.assert_passing(direction, [
                *((behind(each), True) for each in headers.values()),
                *((behind(each, to=54), False) for each in headers.values()),
                (behind(hop, headers[60], headers[44]), True),
                (behind(hop, headers[60], headers[44], to=54), False)])
            # They are no protocols: what is behind them is.
            self.load(*[Rule('x', direction, 6, each)
                        for each in (43, 44, 60)])
            self.assert_passing(direction, [
                (behind(each), False) for each in headers.values()])

    def test_too_short(self):
        for direction in _DIRECTIONS:
            self.load(Rule('x', direction, 4, _UDP, 0, 65535),
                      Rule('x', direction, 4, 1, 0, 0))
            frame = packet(direction, 4, _UDP, b'')
            frame.getlayer('IP').len = 21  # The mark is beyond its end.
            got = self.passing(direction, [packet(direction, 4, 2), frame])
            self.assertFalse(got[0])

    def test_groups_together(self):
        first = Group(_GROUP, False, tuple(
            Rule('x', direction, 4, _TCP, 22, 22)
            for direction in _DIRECTIONS))
        second = Group(_OTHER, False, tuple(
            Rule('x', direction, 4, _UDP, 53, 53)
            for direction in _DIRECTIONS))
        empty = Group(_GROUP, False)
        for groups, passing in (
                ([first, second], {22, 53}), ([second, first], {22, 53}),
                ([first], {22}), ([second], {53}), ([empty], set()),
                ([empty, second], {53})):
            self.load(groups=groups)
            for direction in _DIRECTIONS:
                self.assert_passing(direction, [
                    (packet(direction, 4, protocol, ports(port)), port
                     in passing) for protocol, port in ((_TCP, 22),
                                                        (_UDP, 53))]
                    + [(fragment(direction, 4, protocol, 9, bytes(8)), port
                        in passing) for protocol, port in ((_TCP, 22),
                                                           (_UDP, 53))])

    def test_in_no_group(self):
        made = group_rules.set_chain([])
        self.assertEqual([nftx.DROP] * 2, [
            each.expressions for each in made.rules[2:4]])
        self.assertEqual(group_rules.set_name([_GROUP, _OTHER]),
                         group_rules.set_name([_OTHER, _GROUP, _OTHER]))
        self.assertNotEqual(group_rules.set_name([]),
                            group_rules.set_name([_GROUP]))
