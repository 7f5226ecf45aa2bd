# SPDX-License-Identifier: Apache-2.0

"""What ``show`` and ``explain`` tell of ports that an agent guards.

Test strategy: what is said of a frame is what the kernel does with it, for
rules and frames at random. What knows connections needs another kernel:
test_agent_connections.py.
"""

import json
import os
import random

import fixtures
from scapy.layers import inet
from scapy.layers import inet6
from scapy.layers import l2

from tests import base
from tests.functional import test_agent_filter
from tests.functional.test_agent_filter import arp
from tests.functional.test_agent_filter import discover
from tests.functional.test_agent_filter import group
from tests.functional.test_agent_filter import GROUP
from tests.functional.test_agent_filter import ipv4
from tests.functional.test_agent_filter import ipv6
from tests.functional.test_agent_filter import mac
from tests.functional.test_agent_filter import members
from tests.functional.test_agent_filter import offer
from tests.functional.test_agent_filter import OTHER_GROUP
from tests.functional.test_agent_filter import port
from tests.functional.test_agent_filter import rule
from tests.functional.test_agent_filter import solicitation
from tests.functional.test_agent_filter import udp
from tests.functional.test_agent_filter import vif
from tests.functional.test_agent_filter import WIRE
from tests.functional import test_output
from tests import patience
from vif_plug_tapmac.host import agent_frames
from vif_plug_tapmac.host import agent_names
from vif_plug_tapmac.host import explaining
from vif_plug_tapmac.host.packet import Packet
from vif_plug_tapmac.kernel import agent_port
from vif_plug_tapmac.kernel import filter_steps
from vif_plug_tapmac.kernel import filter_table
from vif_plug_tapmac.kernel import nft
from vif_plug_tapmac.wanted import rules
from vif_plug_tapmac.wanted import security_groups

NOBODY = ('setpriv', '--reuid', '65534', '--regid', '65534',
          '--clear-groups')
RULE, OTHER_RULE = ('%08d-0000-4000-8000-000000000000'
                    % number for number in (21, 22))
SSH, SOME_UDP, MEMBERS = (
    rule(protocol=6, first=22, last=22),
    rule(protocol=17, first=1000, last=2000, remote='192.0.2.128/25',
         number=2),
    rule(family=6, remote_set='group:' + OTHER_GROUP, number=3))
PING, OUT = (rule(protocol=1, first=8, last=0, number=4),
             rule('egress', remote='192.0.2.254/32', number=5))


class ViewTestCase(test_agent_filter.AgentTestCase):

    NUMBERS = 1,

    def setUp(self):
        super().setUp()
        self.only_in_full()
        self.names = os.path.join(
            self.useFixture(fixtures.TempDir()).path, 'names.json')
        self.conf = self.create_tempfiles(
            '[os_vif_tapmac]\nfirewall = agent\n[tapmac_agent]\n'
            'names_file = %s\n' % self.names)

    def create_tempfiles(self, text):
        path = os.path.join(self.useFixture(fixtures.TempDir()).path, 'conf')
        with open(path, 'w') as file:
            file.write(text)
        os.chmod(os.path.dirname(path), 0o755)
        return path

    def run_tapmac(self, *arguments, prefix=(), returncode=0):
        done = base.run_command(
            'main', '--config-file', self.conf, *arguments, prefix=prefix,
            PYTHONPATH=str(base.CHECKOUT))
        self.assertEqual(returncode, done.returncode,
                         done.stdout + done.stderr)
        self.said = done.stderr
        return done.stdout

    def rows(self, *arguments, **kwargs):
        return json.loads(self.run_tapmac(*arguments, '-f', 'json', **kwargs))

    def show(self, *arguments, **kwargs):
        """Return what is shown of the port; its bridge has IPv6, say."""
        return self.rows('show', vif(1).vif_name, *arguments,
                         returncode=kwargs.pop('returncode', 10), **kwargs)

    def explain(self, frame, *arguments, returncode=0):
        row, = self.rows('explain', vif(1).vif_name, *arguments,
                         bytes(frame).hex(), returncode=returncode)
        self.assertEqual([], test_output.Contract('tapmac explain').wrong(
            row), row)
        return row

    def write_names(self, told):
        with open(self.names, 'w') as file:
            json.dump(told, file)

    def name_all(self):
        self.write_names({'groups': {
            GROUP: {'name': 'web', 'rules': [
                [RULE, 'ingress', 4, 'rule 1'],
                [OTHER_RULE, 'egress', 4, 'rule 5']]},
            OTHER_GROUP: {'name': 'proxies', 'rules': []}}})

    def feed_all(self):
        self.start()
        self.apply(port(1), groups=(
            group(SSH, SOME_UDP, MEMBERS, PING, OUT),),
            members=(members('2001:db8::/64', family=6),))

    def told(self):
        return agent_port.read(self.index(1), base.BRIDGE)


class CountersTest(ViewTestCase):

    def counts(self):
        return {each.rule.comment: each.packets for each in self.told().rules
                if each.rule.chain in ('in_' + GROUP, 'out_' + GROUP)}

    def test_what_rules_let_pass_is_counted(self):
        self.feed_all()
        self.assertEqual({0}, set(self.counts().values()))
        for frame in (udp(0, 1, 1500), udp(0, 1, 2000)):
            self.assertEqual({1}, self.send(0, frame))
        self.assertEqual(set(), self.send(0, udp(0, 1, 2001)))
        self.assertEqual({0}, self.send(1, udp(1, 0)))
        self.assertEqual({'rule 1': 0, 'rule 2': 2, 'rule 3': 0, 'rule 4': 0,
                          'rule 5': 1}, self.counts())
        # Said again, all is as it was.
        with nft.Session() as session:
            before = session.generation()
            self.apply(port(1), groups=(
                group(SSH, SOME_UDP, MEMBERS, PING, OUT),))
            self.assertEqual(before, session.generation())
        self.assertEqual(2, self.counts()['rule 2'])


class ShowTest(ViewTestCase):

    def test_groups_in_force(self):
        self.feed_all()
        self.send(0, udp(0, 1, 1500))
        row = self.show()
        self.assertEqual([], test_output.Contract(
            'tapmac list', 'tapmac show').wrong(row), row)
        self.assertEqual('what its security groups say, which are stateless',
                         row['Passes'])
        its, = row['Security groups']
        self.assertEqual((GROUP, None), (its['Id'], its['Name']))
        self.assertEqual([
            (None, 'ingress', 'IPv4, TCP 22', 0),
            (None, 'ingress', 'IPv4, UDP 1000-2000, from 192.0.2.128/25', 1),
            (None, 'ingress', 'IPv6, from members of ' + OTHER_GROUP, 0),
            (None, 'ingress', 'IPv4, ICMP type 8 code 0', 0),
            (None, 'egress', 'IPv4, to 192.0.2.254', 0)],
            [tuple(each[key] for key in ('Id', 'Direction', 'Lets pass',
                                         'Packets')) for each in its['Rules']])
        self.assertIsNone(row['Connections'])
        self.name_all()
        printed = self.run_tapmac('show', vif(1).vif_name, returncode=10)
        self.assertIn(
            'Security groups  web (%s): 5 rules\n'
            '    ingress IPv4, TCP 22: 0 packets, rule %s\n'
            '    ingress IPv4, UDP 1000-2000, from 192.0.2.128/25: 1 packet\n'
            '    ingress IPv6, from members of proxies\n'
            '      (%s): 0 packets\n' % (GROUP, RULE, OTHER_GROUP), printed)

    def test_what_passes(self):
        self.start()
        row = self.show(returncode=20)
        self.assertEqual((
            'nothing, as the agent has not said what may', None),
            (row['Passes'], row['Security groups']))
        self.apply(port(1, groups=(), is_open=True))
        row = self.show('--connections')
        self.assertEqual((
            'everything, as port security is off or the port is trusted', []),
            (row['Passes'], row['Security groups']))
        self.assertIn('CONFIG_NF_CONNTRACK_BRIDGE' if self.told().zone is None
                      else 'none', self.run_tapmac(
                          'show', vif(1).vif_name, '--connections',
                          returncode=10))

    @base.needs_real_root(base.SEVERAL_USERS)
    def test_nobody_is_told(self):
        self.feed_all()
        row = self.show(prefix=NOBODY)
        self.assertEqual((None, None), (row['Passes'],
                                        row['Security groups']))


class ExplainTest(ViewTestCase):

    def test_by_which_rule(self):
        self.feed_all()
        self.name_all()
        row = self.explain(udp(1, 0))
        self.assertEqual(
            ('passes', None, GROUP, OTHER_RULE, 'rule %s (IPv4, to '
             '192.0.2.254) of security group web (%s)' % (OTHER_RULE, GROUP)),
            tuple(row[key] for key in (
                'Verdict', 'By', 'Security group', 'Security group rule',
                'Let pass by')))
        row = self.explain(udp(0, 1, 1500), '--to')
        self.assertEqual((GROUP, None, 'rule "IPv4, UDP 1000-2000, from '
                          '192.0.2.128/25" of security group web (%s)' % GROUP
                          ), tuple(row[key] for key in (
                              'Security group', 'Security group rule',
                              'Let pass by')))

    def test_by_which_default(self):
        self.feed_all()
        row = self.explain(udp(0, 1, 2500), '--to', returncode=10)
        self.assertEqual(
            ('dropped', 'security groups', 'entering_always',
             'no rule lets it pass', 'destination port 2500',
             ['destination port 1000 instead of 2500'], None),
            tuple(row[key] for key in (
                'Verdict', 'By', 'Chain', 'Rule', 'Because', 'Passes with',
                'Security group rule')))
        self.assertEqual('what passes whatever groups say, as DHCP',
                         self.explain(discover(1))['Let pass by'])
        # What it says of itself is judged before.
        self.assertEqual(('filter', 'another MAC'), tuple(self.explain(
            udp(2, 0), returncode=10)[key] for key in ('By', 'Rule')))


@base.too_slow_emulated('rules that are looked at again and again')
class KernelTest(ViewTestCase):
    """Frames at random meet rules at random: twice, with the kernel."""

    def world(self, chance):
        """Return some rules, each about little."""
        def some():
            family = chance.choice((4, 4, 6))
            direction = chance.choice(security_groups.DIRECTIONS)
            protocol = chance.choice(
                (None, 6, 17, 17, 1 if family == 4 else 58))
            fields = {}
            if protocol in (6, 17) and chance.random() < 0.8:
                first = chance.choice((7, 53, 1000))
                fields = {'first': first,
                          'last': first + chance.choice((0, 10))}
            elif protocol in (1, 58) and chance.random() < 0.7:
                fields = {'first': chance.choice((8, 128, 0)),
                          'last': chance.choice((None, 0))}
            remote = chance.choice((None, 'prefix', 'address', 'members'))
            if remote == 'members':
                fields['remote_set'] = 'group:' + OTHER_GROUP
            elif remote is not None:
                fields['remote'] = {
                    (4, 'prefix'): '192.0.2.128/25',
                    (4, 'address'): '192.0.2.254/32',
                    (6, 'prefix'): '2001:db8::fe00/120',
                    (6, 'address'): '2001:db8::fefe/128'}[family, remote]
            return rule(direction, chance.randrange(1000), family=family,
                        protocol=protocol, **fields)
        return [some() for _ in range(chance.randrange(8))]

    def frame(self, chance):
        """Return from whom a frame is, 0 or 1, and the frame."""
        source = chance.choice((0, 1))
        if chance.random() < 0.2:
            return chance.choice((
                (1, discover(1)), (0, offer(1)), (source, arp(source)),
                (1, solicitation(1)), (0, l2.Ether(
                    src=WIRE, dst=mac(1), type=0x88b5) / b'another')))
        here, there = chance.choice((
            (ipv4(1), '192.0.2.254'), (ipv4(1), '192.0.2.7'),
            (ipv6(1), '2001:db8::fefe'), (ipv6(1), '2001:db8::7')))
        head = inet.IP if '.' in here else inet6.IPv6
        ends = (here, there) if source else (there, here)
        body = chance.choice((
            inet.UDP(sport=7, dport=chance.choice((7, 53, 63, 1005))),
            inet.TCP(sport=7, dport=chance.choice((7, 53, 1000, 1011))),
            inet.ICMP(type=chance.choice((0, 8)))
            if head is inet.IP else chance.choice(
                (inet6.ICMPv6EchoRequest(), inet6.ICMPv6EchoReply()))))
        packet = head(src=ends[0], dst=ends[1]) / body
        if chance.random() < 0.1 and head is inet.IP:
            packet.frag, packet.flags = chance.choice(((0, 'MF'), (3, 0)))
        macs = (mac(1), WIRE) if source else (WIRE, mac(1))
        return source, l2.Ether(src=macs[0], dst=macs[1]) / packet

    def judge(self, source, frame):
        index = self.index(1)
        there = agent_port.read(index, base.BRIDGE)
        sets = {filter_table.GROUPS: {
            filter_steps.number_key(test_agent_filter.AGENT)},
            **agent_frames.sets(there, index, test_agent_filter.AGENT)}
        own = rules.of_port(vif(1).id, mac(1), [ipv4(1), ipv6(1)])
        for each in own.elements:
            sets.setdefault(each.set, set()).add(
                filter_steps.key(index, each.mac, each.address))
        return explaining.explain(
            Packet(bytes(frame), index, test_agent_filter.AGENT,
                   goes_out=source == 0), sets, agent_frames.rules(there))

    def test_frames_and_rules_at_random(self):
        chance = random.Random(27)
        self.start()
        wrong, passed, count = [], 0, 0
        for _ in range(patience.amount(3, 12, 200)):
            world = self.world(chance)
            self.apply(port(1), groups=(group(*dict.fromkeys(world)),),
                       members=(members('192.0.2.254/32'),
                                members('2001:db8::fe00/120', family=6)))
            for _ in range(20):
                source, frame = self.frame(chance)
                got = (1 - source) in self.send(source, frame)
                found = self.judge(source, frame)
                passed, count = passed + got, count + 1
                if found.passes != got:
                    wrong.append((world, frame.summary(), got, found))
        self.assertEqual([], wrong)
        self.assertGreater(passed, count // 10)
        self.assertGreater(count - passed, count // 10)


class NamesTest(base.TestCase):
    """The file is an agent's, which is not to be trusted."""

    def setUp(self):
        super().setUp()
        self.directory = self.useFixture(fixtures.TempDir()).path
        self.path = os.path.join(self.directory, 'names.json')

    def read(self, text=None):
        if text is not None:
            with open(self.path, 'w') as file:
                file.write(text)
        return agent_names.read(self.path)

    def test_nothing_is_there(self):
        self.assertEqual(agent_names.NONE, agent_names.read(''))
        self.assertEqual(agent_names.NONE, self.read())

    def test_it_makes_no_sense(self):
        for text in ('', '{', '[]', '{}', '{"groups": 7}', '[' * 100000,
                     '{"groups": {"%s": 7}}' % GROUP,
                     '{"groups": {"%s": {"name": 7, "rules": [7]}}}' % GROUP,
                     '{"groups": {"%s": {"rules": [[7, {}, 4, 5]]}}}' % GROUP,
                     '\udcff'.encode('utf-8', 'surrogateescape').decode(
                         'latin-1')):
            self.assertEqual(agent_names.NONE, self.read(text), text[:99])

    def test_what_it_is_no_file(self):
        os.mkfifo(self.path)
        self.assertEqual(agent_names.NONE, self.read())
        os.unlink(self.path)
        secret = os.path.join(self.directory, 'secret')
        with open(secret, 'w') as file:
            json.dump({'groups': {GROUP: {'name': 'x', 'rules': []}}}, file)
        os.symlink(secret, self.path)
        self.assertEqual(agent_names.NONE, self.read())
        self.assertEqual({GROUP: 'x'}, agent_names.read(secret).groups)

    def test_nothing_of_it_moves_a_cursor(self):
        found = self.read(json.dumps({'groups': {
            GROUP: {'name': 'a\x1b[2J\nb\u202e' + 'c' * 999,
                    'rules': [['\x1b[2J', 'ingress', 4, 'x']]},
            '\x1b[2J': {'name': 'y', 'rules': []}}}))
        self.assertEqual({GROUP: 'a?[2J?b?' + 'c' * 247}, found.groups)
        self.assertEqual({}, found.rules)
