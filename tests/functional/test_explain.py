# SPDX-License-Identifier: Apache-2.0

"""What is said of a frame is what the kernel does with it.

Test strategy: each frame of test_full_frames.py, and many that differ from
these in some octets, are sent, and judged without the kernel: both must say
the same of each.
"""

import pathlib
import random
import struct

import fixtures
from scapy import packet as scapy_packet
from scapy import utils as scapy_utils

from tests import base
from tests.functional import test_full_frames as frames
from tests.functional import test_operator
from tests import hosts
from tests import patience
from vif_plug_tapmac.host import capture
from vif_plug_tapmac.host import explaining
from vif_plug_tapmac.host import interpreting
from vif_plug_tapmac.host.packet import Packet
from vif_plug_tapmac.kernel import filter_steps
from vif_plug_tapmac.kernel import filter_table
from vif_plug_tapmac.kernel import nft
from vif_plug_tapmac.kernel import nft_sets
from vif_plug_tapmac.wanted import rules

_FILTERED = 29795
_NUMBER = scapy_packet.Raw(b'frame 00000000.')


def sets_for(index, addresses):
    """Return what the sets have for a port with these."""
    found = {filter_table.GROUPS: {filter_steps.number_key(_FILTERED)}}
    for each in rules.of_port(base.VIF_ID, frames.GUEST,
                              addresses).elements:
        found.setdefault(each.set, set()).add(
            filter_steps.key(index, each.mac, each.address))
    return found


def all_frames():
    """Return each frame, that passes or not, by what it is."""
    found = dict(frames.NEVER)
    for kind, (frame, differences) in frames.PAIRS.items():
        found[kind] = frame
        for place, field, value in differences:
            found['%s, but %s of layer %d is %s' % (
                kind, field, place, value)] = frames.mutated(
                    frame, place, field, value)
    return found


@base.too_slow_emulated('rules that are looked at again and again')
class KernelTest(frames.FullFramesTestCase):

    def setUp(self):
        super().setUp()
        # It drops, and cuts off, what makes no sense to it.
        for path in pathlib.Path('/proc/sys/net/bridge').glob(
                'bridge-nf-call-*'):
            path.write_text('0')
        self.lay_network()

    def judge(self, octets, addresses):
        index = self.host.link(base.TAP).index
        return interpreting.judge(
            Packet(octets, index, _FILTERED), sets_for(index, addresses),
            explaining.RULES)

    def assert_same(self, sent, addresses):
        """Expect of each of these frames what the kernel does."""
        self.hold(addresses)
        got = self.who_gets(list(sent.values()), self.queues[0])
        self.assertEqual([], [
            '%s: the kernel %s' % (kind, 'lets it pass' if seen
                                   else 'drops it')
            for (kind, frame), seen in zip(sent.items(), got)
            if self.judge(bytes(frame / _NUMBER),
                          addresses).passes != bool(seen)])
        return sum(map(bool, got))

    def test_all_frames(self):
        for addresses in (frames.OWN, (), (frames.IPV4,), (frames.IPV6,)):
            self.assertGreater(
                self.assert_same(all_frames(), addresses), 5)

    def test_octets_at_random(self):
        chance = random.Random(24)
        sent = {}
        every = list(all_frames().items())
        for number in range(patience.amount(1000, 4000, 40000)):
            kind, frame = chance.choice(every)
            octets = bytearray(bytes(frame))
            for _ in range(chance.choice((1, 1, 2, 3))):
                # Not to whom it goes, or nobody would hear of it.
                octets[chance.randrange(12, len(octets))] = chance.choice(
                    (0, 1, 6, 17, 44, 51, 58, 59, 60, 0xff,
                     chance.randrange(256)))
            if chance.random() < 0.1:
                del octets[chance.randrange(14, len(octets)):]
            sent['%d, %s: %s' % (number, kind, octets.hex())] = (
                scapy_packet.Raw(bytes(octets)))
        passed = self.assert_same(sent, frames.OWN)
        self.assertGreater(passed, len(sent) // 20)
        self.assertGreater(len(sent) - passed, len(sent) // 20)


@base.too_slow_emulated('rules that are looked at again and again')
class AdviceTest(base.TestCase):
    """What is said of each frame that is dropped, without the kernel."""

    def explain(self, frame, addresses=frames.OWN):
        return explaining.explain(Packet(
            bytes(frame / _NUMBER), 7, _FILTERED), sets_for(7, addresses))

    def test_what_differs_is_said(self):
        """Of what was changed, what it was before, or that it is wrong."""
        wrong = []
        for kind, (frame, differences) in frames.PAIRS.items():
            self.assertTrue(self.explain(frame).passes, kind)
            for place, field, value in differences:
                if field in ('src', 'psrc', 'hwsrc', 'tgt', 'lladdr', 'sport',
                             'dport'):
                    found = self.explain(frames.mutated(frame, place, field,
                                                        value))
                    layer = frame
                    for _ in range(place):
                        layer = layer.payload
                    former = str(layer.getfieldval(field))
                    if not any(former in each or (
                            'other than %s' % value) in each
                            for each in found.passes_with):
                        wrong.append((kind, field, value, found))
        self.assertEqual([], wrong)

    def test_each_has_a_reason(self):
        reasons = {}
        for kind, frame in all_frames().items():
            found = self.explain(frame)
            self.assertEqual(found.passes, not found.why)
            reasons.setdefault(found.why, found)
        self.assertGreater(len(reasons), 25)
        self.assertEqual(
            ('guest_own_ip', 'protocol UDP, source port 67',
             ('source port other than 67',)),
            (reasons['DHCP server'].chain, reasons['DHCP server'].because,
             reasons['DHCP server'].passes_with))

    def test_two_things_at_once(self):
        frame = frames.ipv4(src=frames.GATEWAY) / frames.udp()
        frame.src = frames.STRANGER
        found = self.explain(frame, [frames.IPV4])
        self.assertEqual('another MAC', found.why)
        self.assertEqual(
            ('source MAC fa:16:3e:28:64:c2 instead of 52:54:00:00:00:99 and '
             'source address 192.0.2.10 instead of 192.0.2.1',),
            found.passes_with)

    def test_a_thousand_addresses(self):
        many = ['2001:db8::%x' % number for number in range(1024)]
        found = self.explain(frames.ipv6(src='2001:db8:1::1') / frames.udp(),
                             many)
        self.assertIn('or one of 1017 more instead of', found.passes_with[0])

    def test_what_is_not_understood(self):
        rule = nft.Rule('from_guests', (('socket', {}),))
        packet = Packet(bytes(frames.arp()), 7, _FILTERED)
        raised = self.assertRaises(
            interpreting.NotUnderstood, interpreting.judge, packet, {},
            interpreting.Rules(filter_table.CHAINS, [rule]))
        self.assertIn('socket', str(raised))


class CaptureTest(base.TestCase):

    def test_hex(self):
        octets = bytes(frames.arp())
        dump = '\n'.join('\t0x%04x:  %s' % (place, ' '.join(
            octets[at:at + 2].hex() for at in range(
                place, min(place + 16, len(octets)), 2)))
            for place in range(0, len(octets), 16))
        for text in (octets.hex(), octets.hex(':'), octets.hex(' ').upper(),
                     '0x' + octets.hex(), dump, octets.hex() + '\n'):
            self.assertEqual([capture.Frame(octets, True)],
                             capture.read(text.encode()), text)

    def test_files(self):
        octets = bytes(frames.arp())
        for order in '<>':
            for magic in 0xa1b2c3d4, 0xa1b23c4d:
                head = struct.pack(order + 'IHHIIII', magic, 2, 4, 0, 0,
                                   65535, 1)
                each = struct.pack(order + 'IIII', 0, 0, len(octets),
                                   len(octets)) + octets
                self.assertEqual([capture.Frame(octets, True)] * 2,
                                 capture.read(head + each + each))
                short = struct.pack(order + 'IIII', 0, 0, 20,
                                    len(octets)) + octets[:20]
                self.assertEqual([capture.Frame(
                    octets[:20] + bytes(len(octets) - 20), False)],
                    capture.read(head + short))
                for wrong in (head[:10], head + each[:5], head + each[:-1],
                              head[:20] + struct.pack(order + 'I', 113)):
                    self.assertRaises(ValueError, capture.read, wrong)

    def test_what_is_none(self):
        for data in (b'', b'xyz', b'00' * 13, b'0' * 29, b'\xff' * 60,
                     b'\n\r\r\n' + bytes(60), b'00' * 65536):
            self.assertRaises(ValueError, capture.read, data)


@base.needs_locked_ports
class ExplainTest(test_operator.OperatorTestCase):

    def setUp(self):
        super().setUp()
        self.configure(anti_spoofing='full')
        self.plug(base.make_vif(addresses=[frames.IPV4, frames.IPV6]))
        self.conf = self.create_tempfiles('[os_vif_tapmac]\n'
                                          'anti_spoofing = full\n')

    def create_tempfiles(self, text):
        path = pathlib.Path(self.useFixture(
            fixtures.TempDir()).path, 'conf')
        path.write_text(text)
        return str(path)

    def explain(self, frame, which=base.TAP, **kwargs):
        return self.rows('--config-file', self.conf, 'explain', which,
                         frame if isinstance(frame, str) else
                         bytes(frame).hex(), **kwargs)

    def test_a_frame(self):
        row, = self.explain(frames.arp(psrc=frames.GATEWAY), returncode=10)
        self.assertEqual({
            'Number': 1, 'Verdict': 'dropped', 'By': 'filter',
            'Frame': 'fa:16:3e:28:64:c2 > ff:ff:ff:ff:ff:ff, ARP',
            'Chain': 'guest_arp',
            'Rule': 'ARP that is not of its own addresses',
            'Because': 'sender MAC in ARP fa:16:3e:28:64:c2 and sender '
                       'address in ARP 192.0.2.1',
            'Passes with': ['sender address in ARP 192.0.2.10 instead of '
                            '192.0.2.1'],
            'Let pass by': None, 'Security group': None,
            'Security group rule': None}, row)
        self.assertEqual('', self.said)
        row, = self.explain(frames.arp(), which=base.VIF_ID[:8])
        self.assertEqual(('passes', None, []), (
            row['Verdict'], row['By'], row['Passes with']))

    def test_words(self):
        printed = self.run_tapmac(
            '--config-file', self.conf, 'explain', base.TAP, bytes(
                frames.ipv4() / frames.udp(67, 68)).hex(), returncode=10)
        self.assertEqual(
            'dropped: frame 1, fa:16:3e:28:64:c2 > fa:16:3e:00:00:01, IPv4, '
            'UDP\n'
            '  By: filter, "DHCP server" (chain guest_own_ip)\n'
            '  Seen: protocol UDP, source port 67\n'
            '  Passes with: source port other than 67 and destination port '
            'other than 68\n', printed)

    def test_a_capture(self):
        path = self.create_tempfiles('')
        scapy_utils.wrpcap(path, [frames.arp(), frames.ipv4(
            src=frames.GATEWAY) / frames.udp()])
        rows = self.explain(path, returncode=10)
        self.assertEqual([(1, 'passes'), (2, 'dropped')], [
            (row['Number'], row['Verdict']) for row in rows])
        self.assertEqual(rows, self.explain('-', returncode=10, prefix=(
            'sh', '-c', 'exec "$@" < ' + path, 'sh')))

    @base.needs_real_root(base.SEVERAL_USERS)
    def test_who_may_not_ask(self):
        self.run_tapmac('explain', base.TAP, bytes(frames.arp()).hex(),
                        prefix=test_operator._NOBODY, returncode=1)
        self.assertEqual('What nftables drops is told to CAP_NET_ADMIN only: '
                         'run this as root.\n', self.said)

    def test_what_is_no_frame(self):
        for what in 'nosuch', '/':
            self.run_tapmac('explain', base.TAP, what, returncode=1)
            self.assertIn('tells no frame', self.said)

    def test_another_table(self):
        with nft.Session() as session:
            session.transact('', [nft.new_rule(filter_table.NAME, nft.Rule(
                'guest', (('counter', {}),)))], session.generation())
        self.explain(frames.arp())
        self.assertIn('not the one that this release makes', self.said)
        with nft.Session() as session:
            session.transact('', [nft.delete_table(filter_table.NAME)],
                             session.generation())
        self.explain(frames.arp(psrc=frames.GATEWAY))
        self.assertIn('There is no table bridge tapmac', self.said)

    def test_the_lock(self):
        self.configure(anti_spoofing='mac')
        self.plug()
        frame = frames.arp(psrc=frames.GATEWAY)
        row, = self.explain(frame)
        self.assertEqual('passes', row['Verdict'])
        self.assertIn('link group 29793, which is not closed', self.said)
        frame.src = frames.STRANGER
        row, = self.explain(frame, returncode=10)
        self.assertEqual(('dropped', 'lock', None, [
            'source MAC fa:16:3e:28:64:c2']), (
                row['Verdict'], row['By'], row['Chain'], row['Passes with']))
        hosts.set_port_options(self.host.link(base.TAP).index, LOCKED=0)
        self.assertEqual('passes', self.explain(frame)[0]['Verdict'])

    def test_what_no_hook_sees(self):
        row, = self.explain(frames.ether('01:80:c2:00:00:0e', type=0x88cc),
                            returncode=10)
        self.assertEqual('bridge', row['By'])

    def test_without_elements(self):
        with nft.Session() as session:
            session.transact('', nft_sets.delete_elements(
                filter_table.NAME, rules.MACS, [nft_sets.Element(
                    filter_steps.key(self.host.link(base.TAP).index,
                                     base.GUEST_MAC, None))]))
        self.assertEqual('dropped', self.explain(
            frames.rarp(), returncode=10)[0]['Verdict'])

    @base.needs_real_root(base.SEVERAL_USERS)
    def test_mode_and_addresses(self):
        other = base.numbered_vif(1)
        self.plug(other)
        adopted = hosts.Guest('tap00000007-00')
        self.addCleanup(adopted.close)
        self.host.set('tap00000007-00', state='up',
                      master=self.host.link(base.BRIDGE).index)
        configured = '--config-file', self.conf, 'list'
        rows = {row['TAP']: (row['Mode'], row['Addresses'])
                for row in self.rows(*configured)}
        link_local = str(rules.link_local(base.GUEST_MAC))
        self.assertEqual({
            base.TAP: ('full', [frames.IPV4, frames.IPV6, link_local]),
            other.vif_name: ('full', []), 'tap00000007-00': ('none', None),
        }, rows)
        unprivileged = {row['TAP']: (row['Mode'], row['Addresses'])
                        for row in self.rows(
                            'list', prefix=test_operator._NOBODY)}
        self.assertEqual({base.TAP: ('full', None),
                          other.vif_name: ('full', None)}, unprivileged)
        self.configure(anti_spoofing='none')
        self.plug(other)
        self.configure(anti_spoofing='mac')
        self.plug()
        self.assertEqual({base.TAP: ('mac', None),
                          other.vif_name: ('none', None)}, {
            row['TAP']: (row['Mode'], row['Addresses'])
            for row in self.rows('list')})
        # The group says full, and nothing keeps it to that.
        self.host.set(other.vif_name, group=_FILTERED)
        with nft.Session() as session:
            session.transact('', [nft.delete_table(filter_table.NAME)],
                             session.generation())
        self.assertEqual({'mac', 'none'}, {
            row['Mode'] for row in self.rows('list')})

    @base.needs_real_root(base.SEVERAL_USERS)
    def test_drops(self):
        guest = hosts.Guest(base.TAP, base.GUEST_MAC)
        self.addCleanup(guest.close)
        self.host.wait_until_forwarding(base.TAP)
        for frame in (frames.arp(psrc=frames.GATEWAY),
                      frames.arp(psrc=frames.NEIGHBOURS_IPV4),
                      frames.ipv4() / frames.udp(67, 68), frames.arp()):
            guest.write(bytes(frame))
        row, = self.rows('list')
        self.assertEqual(
            [('ARP that is not of its own addresses', 2), ('DHCP server', 1)],
            [(each['Reason'], each['Packets']) for each in row['Drops']])
        row, = self.rows('list', prefix=test_operator._NOBODY)
        self.assertIsNone(row['Drops'])

    def logged(self):
        with nft.Session() as session:
            return [each.key for each in nft_sets.elements(
                session, filter_table.NAME, filter_table.LOGGED)]

    def test_the_log(self):
        index = self.host.link(base.TAP).index
        for word, expected in ('on', [struct.pack('=I', index)]), ('off', []):
            self.run_tapmac('explain', base.TAP, '--log-drops', word)
            self.assertEqual(expected, self.logged())
        self.run_tapmac('explain', base.TAP, returncode=1)
        self.assertIn('Either a FRAME', self.said)
