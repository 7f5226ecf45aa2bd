# SPDX-License-Identifier: Apache-2.0

"""``firewall = agent``: closed until an agent says what may pass, and then.

Which frames a rule of a security group means is in test_group_rules.py; what
knows connections needs another kernel, so all groups here are stateless.
"""

from concurrent import futures
import contextlib
import socket
import subprocess
import threading

from scapy.layers import dhcp
from scapy.layers import inet
from scapy.layers import inet6
from scapy.layers import l2

from tests import base
from tests.functional import test_guard
from tests import hosts
from tests import patience
from vif_plug_tapmac import exception
from vif_plug_tapmac.host import audit
from vif_plug_tapmac.host import inventory
from vif_plug_tapmac.kernel import agent_chains
from vif_plug_tapmac.kernel import agent_conntrack
from vif_plug_tapmac.kernel import agent_elements
from vif_plug_tapmac.kernel import agent_table
from vif_plug_tapmac.kernel import filter_state
from vif_plug_tapmac.kernel import filter_table
from vif_plug_tapmac.kernel import group_rules
from vif_plug_tapmac.kernel import nft
from vif_plug_tapmac.kernel import nft_expressions as nftx
from vif_plug_tapmac.kernel import nft_sets
from vif_plug_tapmac import privileged
from vif_plug_tapmac import startup
from vif_plug_tapmac.wanted import rules
from vif_plug_tapmac.wanted import security_groups

UNFILTERED, FILTERED, AGENT = 29793, 29795, 29796
ALL, NODES = hosts.BROADCAST, '33:33:00:00:00:01'
WIRE = '52:54:00:00:00:01'
GATEWAY = '192.0.2.254'
GROUP, OTHER_GROUP = ('%08d-0000-4000-8000-000000000000' % number
                      for number in (7, 8))
_ETH_P_ALL = 3


def ipv4(number):
    return '192.0.2.%d' % number


def ipv6(number):
    return '2001:db8::%d' % number


def vif(number):
    return base.numbered_vif(number, addresses=[ipv4(number), ipv6(number)])


def mac(number):
    return vif(number).address


def rule(direction='ingress', number=1, **fields):
    return security_groups.Rule('rule %d' % number, direction,
                                fields.pop('family', 4), **fields)


EVERYTHING = tuple(rule(direction, family, family=family)
                   for direction in ('ingress', 'egress')
                   for family in (4, 6))


def group(*its, id=GROUP):
    return security_groups.Group(id, False, its)


def port(number, groups=(GROUP,), **fields):
    return security_groups.Port(**{**dict(
        vif_id=vif(number).id, tap=vif(number).vif_name, mac=mac(number),
        own=((mac(number), ipv4(number) + '/32'),
             (mac(number), ipv6(number) + '/128')),
        groups=tuple(groups), stateful=False), **fields})


def members(*prefixes, of=OTHER_GROUP, family=4):
    return security_groups.Members('group:' + of, family, prefixes)


def udp(source, to, dport=7777, sport=7):
    """A frame from one number to another; 0 is the wire."""
    return l2.Ether(src=mac(source) if source else WIRE,
                    dst=mac(to) if to else WIRE) / inet.IP(
        src=ipv4(source) if source else GATEWAY,
        dst=ipv4(to) if to else GATEWAY) / inet.UDP(sport=sport, dport=dport)


def arp(source):
    return l2.Ether(src=mac(source) if source else WIRE, dst=ALL) / l2.ARP(
        hwsrc=mac(source) if source else WIRE,
        psrc=ipv4(source) if source else GATEWAY, pdst='192.0.2.99')


def solicitation(source):
    return l2.Ether(src=mac(source), dst=NODES) / inet6.IPv6(
        src=ipv6(source), dst='ff02::1') / inet6.ICMPv6ND_NS(tgt=ipv6(99))


def advertisement():
    return l2.Ether(src=WIRE, dst=NODES) / inet6.IPv6(
        src='fe80::1', dst='ff02::1') / inet6.ICMPv6ND_RA()


def discover(source):
    return l2.Ether(src=mac(source), dst=ALL) / inet.IP(
        src='0.0.0.0', dst='255.255.255.255') / inet.UDP(
            sport=68, dport=67) / dhcp.BOOTP()


def offer(to):
    return l2.Ether(src=WIRE, dst=mac(to)) / inet.IP(
        src=GATEWAY, dst=ipv4(to)) / inet.UDP(
            sport=67, dport=68) / dhcp.BOOTP()


@base.needs_locked_ports
class AgentTestCase(test_guard.GuardTestCase):
    """Guests on a bridge with a wire, on a host with an agent."""

    NUMBERS = 1, 2

    def setUp(self):
        super().setUp()
        self.configure(firewall='agent')
        self.guests = {}
        # What comes to this host, and what this host says there.
        self.here = self.packet_socket()

    def packet_socket(self):
        found = socket.socket(socket.AF_PACKET, socket.SOCK_RAW,
                              socket.htons(_ETH_P_ALL))
        self.addCleanup(found.close)
        found.bind((base.BRIDGE, _ETH_P_ALL))
        found.setblocking(False)
        return found

    def start(self, *numbers):
        for number in numbers or self.NUMBERS:
            self.plug(vif(number))
            if number not in self.guests:
                self.guests[number] = self.open(vif(number).vif_name,
                                                mac(number))

    def apply(self, *ports, **fields):
        change = security_groups.Change(ports=ports, **fields)
        return privileged.apply_filter(change.as_fields())

    def feed(self, *its, numbers=None, **fields):
        """Have all ports in a group with these rules."""
        return self.apply(*(port(number, **fields) for number in (
            numbers or self.NUMBERS)), groups=(group(*its),))

    def send(self, number, frame):
        """Send a frame; return who got it, 0: the wire, None: this host.

        Who has sent to a TAP has had it forwarded when he returns.
        """
        octets = bytes(frame)
        everybody = {0: self.wire, **self.guests}
        for each in everybody.values():
            each.waiting()
        self.heard_here(b'')
        if number is None:
            self.here.send(octets)
        else:
            everybody[number].write(octets)
        found = {each for each, guest in everybody.items() if any(
            got.startswith(octets) for got in guest.waiting())}
        return found | ({None} if number is not None
                        and self.heard_here(octets) else set())

    def heard_here(self, octets):
        found = False
        with contextlib.suppress(BlockingIOError):
            while True:
                said, about = self.here.recvfrom(65536)
                found |= said.startswith(octets) and about[2] != (
                    socket.PACKET_OUTGOING)
        return found

    def group_of(self, number):
        return self.host.link(vif(number).vif_name).group

    def index(self, number):
        return self.host.link(vif(number).vif_name).index

    def there(self):
        """Return all that is in the sets of ports."""
        with nft.Session() as session:
            return agent_elements.there(session)

    def made(self):
        with nft.Session() as session:
            return agent_chains.there(session)

    def elements_of(self, number):
        return self.elements_at(self.index(number))

    def elements_at(self, index):
        key = index.to_bytes(4, 'little')
        return {name for name, some in self.there().items()
                for element in some.values()
                if agent_elements.index_of(element) == key}

    def is_right(self):
        with nft.Session() as session:
            found = session.table(filter_table.NAME)
            return found is not None and filter_state.lasts(
                session, found, True)

    def flush(self):
        with nft.Session() as session:
            session.transact('', [nft.delete_table(filter_table.NAME)])


class ClosedTest(AgentTestCase):

    def assert_closed(self, *numbers):
        for number in numbers:
            other = 3 - number
            for sender, frame in (
                    (number, udp(number, 0)), (number, udp(number, other)),
                    (number, arp(number)), (number, solicitation(number)),
                    (number, discover(number)), (0, udp(0, number)),
                    (0, arp(0)), (0, advertisement()), (0, offer(number)),
                    (None, udp(0, number)), (None, arp(0)),
                    (None, offer(number))):
                got = self.send(sender, frame)
                self.assertEqual(
                    set(), got & set(numbers) if sender != number else got,
                    (sender, frame.summary()))

    def test_nothing_passes_that_nobody_fed(self):
        self.start()
        self.assertEqual(AGENT, self.group_of(1))
        self.assertEqual(set(), self.elements_of(1))
        self.assertTrue(self.is_right())
        self.assert_closed(1, 2)

    def test_who_is_not_fed_while_another_is(self):
        self.start()
        self.feed(*EVERYTHING, numbers=[2])
        self.assert_closed(1)
        self.assertEqual({0}, self.send(2, udp(2, 0)))

    def test_by_the_daemon(self):
        self.start_daemon()
        self.start()
        self.assert_closed(1, 2)

    def test_who_is_fed_no_more(self):
        self.start()
        self.feed(*EVERYTHING)
        self.assertEqual({2}, self.send(1, udp(1, 2)))
        self.apply(gone=(vif(1).id,))
        self.assertEqual(set(), self.elements_of(1))
        self.assert_closed(1)

    def test_nothing_is_left_of_taps_that_went(self):
        """By an unplug, which has not all gone, or with whoever made it."""
        self.start()
        self.feed(*EVERYTHING)
        for ends in self.unplug, lambda vif: self.host.delete(vif.vif_name):
            for change in (
                    # The agent hears that it went, or that another came; or
                    # it was not there.
                    {'gone': (vif(3).id,)}, {'ports': (port(3),)},
                    {'ports': (port(1), port(2)), 'is_all': True}):
                self.plug(vif(3))
                self.apply(port(3), groups=(group(*EVERYTHING),))
                index = self.index(3)
                self.assertIn(rules.MACS, self.elements_at(index))
                ends(vif(3))
                if port(3) in change.get('ports', ()):
                    self.plug(vif(3))
                self.apply(*change.get('ports', ()), groups=(
                    group(*EVERYTHING),), **{
                        name: change[name] for name in change
                        if name != 'ports'})
                self.assertEqual(set(), self.elements_at(index), change)

    def test_plug_again_after_a_flush(self):
        self.start()
        self.feed(*EVERYTHING)
        self.flush()
        self.start(1)
        self.assert_closed(1, 2)
        self.assertTrue(self.apply(port(1), groups=(group(*EVERYTHING),)
                                   )['needs_all'])
        self.assert_closed(1, 2)
        self.feed_all()
        self.assertEqual({2}, self.send(1, udp(1, 2)))

    def feed_all(self):
        self.apply(*map(port, self.NUMBERS), groups=(group(*EVERYTHING),),
                   is_all=True)

    def test_the_agent_alone_makes_the_table(self):
        self.start()
        self.flush()
        self.feed_all()
        self.assertTrue(self.is_right())
        self.assertEqual({2}, self.send(1, udp(1, 2)))
        self.apply(gone=(vif(1).id,))
        self.assert_closed(1)


class FedTest(AgentTestCase):

    def test_what_always_passes(self):
        self.start()
        self.feed()
        for number, frame, wanted in (
                (1, arp(1), {0, 2, None}), (0, arp(0), {1, 2, None}),
                (1, solicitation(1), {0, 2, None}),
                (0, advertisement(), {1, 2, None}),
                (1, discover(1), {0, None}), (0, offer(1), {1}),
                (1, udp(1, 2), set()), (0, udp(0, 1), set()),
                (None, udp(0, 1), set()), (None, arp(0), {0, 1, 2}),
                (None, offer(1), {1})):
            self.assertEqual(wanted, self.send(number, frame),
                             frame.summary())

    def test_what_a_dhcp_server_says(self):
        self.start()
        self.feed()
        for address, wanted in ((ipv4(1), {1}), ('255.255.255.255', {1}),
                                (ipv4(2), set()), ('192.0.2.255', set())):
            frame = offer(1)
            frame[inet.IP].dst = address
            self.assertEqual(wanted, self.send(0, frame), address)
        for address, wanted in ((ipv6(1), {1}), ('fe80::1234', {1}),
                                (ipv6(2), set()), ('fe80:0:0:1::1', set())):
            frame = l2.Ether(src=WIRE, dst=mac(1)) / inet6.IPv6(
                src='fe80::1', dst=address) / inet.UDP(sport=547, dport=546)
            self.assertEqual(wanted, self.send(0, frame), address)
        frame = offer(1)
        frame.dst, frame[inet.IP].dst = ALL, '255.255.255.255'
        self.assertEqual({1, 2}, self.send(0, frame) - {None})

    def test_each_direction_by_itself(self):
        self.start()
        self.apply(port(1, [GROUP]), port(2, [OTHER_GROUP]), groups=(
            group(rule('ingress'), id=GROUP),
            group(rule('egress'), id=OTHER_GROUP)))
        self.assertEqual({1}, self.send(2, udp(2, 1)))
        self.assertEqual(set(), self.send(1, udp(1, 2)))
        self.assertEqual({0}, self.send(2, udp(2, 0)))
        self.assertEqual({1}, self.send(None, udp(0, 1)))
        self.assertEqual(set(), self.send(None, udp(0, 2)))

    def test_what_is_for_this_host(self):
        here = l2.Ether(src=mac(1), dst=self.host.link(base.BRIDGE).mac
                        ) / udp(1, 0).payload
        self.start()
        self.feed()
        self.assertEqual(set(), self.send(1, here))
        self.feed(rule('egress'))
        self.assertEqual({None}, self.send(1, here))

    def test_host_shield(self):
        here = l2.Ether(src=mac(1), dst=self.host.link(base.BRIDGE).mac
                        ) / udp(1, 0).payload
        self.start()
        self.feed(*EVERYTHING)
        self.assertEqual({None}, self.send(1, here))
        self.configure(host_shield=True)
        self.start()
        self.assertEqual(set(), self.send(1, here))
        self.assertEqual({2}, self.send(1, udp(1, 2)))

    def test_false_sources(self):
        self.start()
        self.feed(*EVERYTHING)
        false = udp(1, 2)
        false[inet.IP].src = GATEWAY
        self.assertEqual(set(), self.send(1, false))
        self.assertEqual({2}, self.send(1, udp(1, 2)))
        # A network that it may speak from.
        self.feed(*EVERYTHING, own=((mac(1), '192.0.2.0/24'),),
                  numbers=[1])
        self.assertEqual({2}, self.send(1, false))
        false[inet.IP].src = '198.51.100.1'
        self.assertEqual(set(), self.send(1, false))

    def test_unicast_to_another(self):
        self.start()
        self.feed(*EVERYTHING)
        stray = udp(0, 1)
        stray.dst = 'fa:16:3e:77:77:77'
        self.assertEqual(set(), self.send(0, stray) - {None})
        self.assertEqual({1}, self.send(0, udp(0, 1)))

    def test_an_open_port(self):
        self.start()
        self.feed()
        self.apply(port(1, [], is_open=True))
        stray = udp(0, 1)
        stray.dst = 'fa:16:3e:77:77:77'
        self.assertEqual({1}, self.send(0, stray) - {None})
        false = udp(1, 0)
        false[inet.IP].src = GATEWAY
        self.assertEqual({0}, self.send(1, false))
        for kind in 0x8100, 0x88a8, 0x9100:
            tagged = false.copy()
            tagged.type = kind
            self.assertEqual(set(), self.send(1, tagged))
        false.dst = '01:80:c2:00:00:00'
        self.assertEqual(set(), self.send(1, false))
        self.feed()
        self.assertEqual(set(), self.send(0, stray) - {None})

    def test_members(self):
        self.start()
        for prefixes, wanted in (
                ([], set()), (['192.0.2.0/25'], {2}),
                (['192.0.2.2/32', '192.0.2.0/31'], {2}),
                (['192.0.2.2/32'], set()), (['0.0.0.0/0'], {2})):
            self.apply(*map(port, self.NUMBERS), groups=(group(
                rule('egress'), rule(
                    'ingress', remote_set='group:' + OTHER_GROUP)),),
                members=(members(*prefixes),))
            self.assertEqual(wanted, self.send(1, udp(1, 2)), prefixes)

    def test_a_rule_that_goes(self):
        self.start()
        self.feed(*EVERYTHING)
        self.assertEqual({2}, self.send(1, udp(1, 2)))
        self.apply(groups=(group(),))
        self.assertEqual(set(), self.send(1, udp(1, 2)))

    def test_nothing_is_done_twice(self):
        self.start()
        self.feed(*EVERYTHING)
        with nft.Session() as session:
            before = session.generation()
            self.feed(*EVERYTHING)
            self.assertEqual(before, session.generation())

    def test_what_a_port_has_is_not_read_for_a_rule(self):
        """There may be a thousand ports."""
        self.start()
        self.feed(rule(protocol=6))
        read, elements = set(), nft_sets.elements

        def reading(session, table, name):
            read.add(name)
            return elements(session, table, name)
        self.patch(nft_sets, 'elements', reading)
        self.apply(groups=(group(rule(protocol=6), *EVERYTHING),))
        # Of bridges there are few.
        self.assertEqual(set(agent_elements.MAPS),
                         read - {agent_conntrack.ZONES})
        self.assertEqual({2}, self.send(1, udp(1, 2)))

    def test_what_is_not_of_use_goes(self):
        self.start()
        self.apply(*map(port, self.NUMBERS), groups=(
            group(*EVERYTHING), group(id=OTHER_GROUP)),
            members=(members('10.0.0.0/8'),))
        its = {each.name for of in (
            group_rules.set_chain([GROUP]), group_rules.chains(group()),
            group_rules.chains(group(id=OTHER_GROUP))) for each in of.chains}
        self.assertEqual(its, self.made().chains)
        self.assertEqual(1, len(self.made().sets))
        self.apply(*(port(number, [OTHER_GROUP])
                     for number in self.NUMBERS))
        self.apply(gone_groups=(GROUP,),
                   gone_members=(('group:' + OTHER_GROUP, 4),))
        self.assertEqual({each.name for of in (
            group_rules.set_chain([OTHER_GROUP]),
            group_rules.chains(group(id=OTHER_GROUP)))
            for each in of.chains}, self.made().chains)
        self.assertEqual(set(), self.made().sets)
        self.apply(is_all=True)
        self.assertEqual((set(), set()), self.made())
        self.assertFalse(any(self.there().values()))
        self.assertTrue(self.is_right())

    def test_a_group_that_is_used_stays(self):
        self.start()
        self.feed(*EVERYTHING)
        self.apply(gone_groups=(GROUP,))
        self.assertEqual({2}, self.send(1, udp(1, 2)))


class OthersTest(AgentTestCase):
    """Others change rules while an agent's are."""

    def test_a_flush_in_the_middle(self):
        self.start()
        self.feed(*EVERYTHING)
        real, flushed = nft.Session.transact, []

        def transact(session, step, steps, only_if=None):
            if step and not flushed:
                flushed.append(True)
                self.flush()
            return real(session, step, steps, only_if)
        self.patch(nft.Session, 'transact', transact)
        self.assertTrue(self.apply(port(1, [OTHER_GROUP]), groups=(
            group(id=OTHER_GROUP),))['needs_all'])
        with nft.Session() as session:
            self.assertIsNone(session.table(filter_table.NAME))
        self.start(1)
        flushed.clear()
        self.apply(*map(port, self.NUMBERS), groups=(group(*EVERYTHING),),
                   is_all=True)
        self.assertTrue(flushed)
        self.assertTrue(self.is_right())
        self.assertEqual({2}, self.send(1, udp(1, 2)))
        self.apply(gone=(vif(1).id,))
        self.assertEqual(set(), self.send(1, udp(1, 2)))

    @base.too_slow_emulated('others who change rules are faster there')
    def test_all_the_time(self):
        self.start()
        done, changes = threading.Event(), []

        def change():
            with nft.Session() as session:
                while not done.is_set():
                    session.transact('', [nft.new_table('other', '')])
                    session.transact('', [nft.delete_table('other')])
                    changes.append(True)
        thread = threading.Thread(target=change)
        thread.start()
        try:
            for number in range(patience.amount(6, 20, 200)):
                its = EVERYTHING if number % 2 else ()
                patience.wait_until(
                    lambda now=len(changes): len(changes) > now,
                    'nobody changes anything')
                self.feed(*its)
                self.assertEqual({2} if its else set(),
                                 self.send(1, udp(1, 2)))
        finally:
            done.set()
            thread.join()


class UpgradeTest(AgentTestCase):
    """Services of two releases, of which one is not started again yet."""

    def setUp(self):
        super().setUp()
        self.start()
        self.feed(rule('egress'))
        # Of a process that runs, no version ever changes.
        filter_state.tell.cache_clear()
        self.addCleanup(filter_state.tell.cache_clear)

    def version_and_handle(self):
        with nft.Session() as session:
            found = session.table(filter_table.NAME)
            return found.comment, found.handle

    def assert_as_it_was(self):
        self.assertEqual({0}, self.send(1, udp(1, 0)))
        self.assertEqual(set(), self.send(0, udp(0, 1)))

    def test_who_is_older(self):
        """An agent, and nova-compute, that run while the table is newer."""
        before = self.version_and_handle()
        self.send(0, arp(0))
        self.patch(filter_table, 'VERSION', filter_table.VERSION - 1)
        self.feed(rule('egress'), rule('egress', 2, family=6))
        self.assert_logged('newer release', 'start this service again')
        self.assert_as_it_was()
        self.start()
        self.start(3)
        self.assertEqual(before, self.version_and_handle())
        self.assert_as_it_was()
        self.assertEqual(set(), self.send(3, udp(3, 0)))

    def test_who_is_newer(self):
        """First nova-compute, then the agent."""
        before = self.version_and_handle()
        self.send(0, arp(0))
        self.patch(filter_table, 'VERSION', filter_table.VERSION + 1)
        self.start()
        self.start(3)
        self.assertEqual(before, self.version_and_handle())
        self.assert_logged('older release', 'start the agent again')
        self.assert_as_it_was()
        self.assertEqual(set(), self.send(3, udp(3, 0)))
        # What it says first is all; the rest is one transaction.
        self.assertTrue(self.apply(port(1))['needs_all'])
        self.assert_as_it_was()
        self.apply(*map(port, self.NUMBERS), groups=(group(rule('egress')),),
                   is_all=True)
        self.assertEqual('tapmac %d' % filter_table.VERSION,
                         self.version_and_handle()[0])
        self.assertTrue(self.is_right())
        self.assert_as_it_was()
        self.start()
        self.assert_as_it_was()

    def test_an_older_one_of_no_agent(self):
        self.apply(is_all=True)
        self.patch(filter_table, 'VERSION', filter_table.VERSION + 1)
        self.start()
        self.assertTrue(self.is_right())
        self.assertEqual(set(), self.send(1, udp(1, 0)))


class StartTest(AgentTestCase):

    def test_what_is_said_at_the_start(self):
        startup.tell(self.options)
        self.assert_logged('firewall = agent')
        self.configure(claim_plugins=['linux_bridge'])
        self.patch(startup, 'cannot', lambda what: 'it lacks something')
        startup.tell(self.options)
        self.assert_logged('security groups', 'it lacks something',
                           'firewall = none')
        self.assert_logged('no new port of linux_bridge', 'nova_managed_tap')


class AuditTest(AgentTestCase):

    def assert_found(self, code, device=None):
        found = {(each.code, each.device)
                 for each in audit.audit_links(inventory.read(self.options))}
        self.assertIn((code, device or vif(1).vif_name), found)

    def assert_none_of_ours(self):
        self.assertEqual([], [
            each for each in audit.audit_links(inventory.read(self.options))
            if each.code.startswith(('TM22', 'TM23', 'TM31', 'TM211'))])

    def test_tm235(self):
        self.configure(firewall='none', anti_spoofing='full')
        self.start()
        self.assert_none_of_ours()
        self.configure(firewall='agent')
        self.assert_found('TM235')
        self.feed(*EVERYTHING)
        self.assert_none_of_ours()

    def test_tm236(self):
        self.start()
        self.assert_found('TM236')
        self.feed()
        self.assert_none_of_ours()
        self.apply(port(1, [], is_open=True))
        self.assert_none_of_ours()

    def change(self, *steps):
        with nft.Session() as session:
            session.transact('', steps, session.generation())

    def test_tm236_of_one_direction(self):
        self.start(1)
        for name in agent_table.EGRESS, agent_table.INGRESS:
            self.feed(numbers=[1])
            self.assert_none_of_ours()
            with nft.Session() as session:
                there = list(nft_sets.elements(
                    session, filter_table.NAME, name))
            self.change(*nft_sets.delete_elements(
                filter_table.NAME, name, there))
            self.assert_found('TM236')

    def test_tm313(self):
        for chain in 'leaving', 'entering':
            self.start(1)
            self.apply(port(1), groups=(group(),), is_all=True)
            self.assert_none_of_ours()
            self.change(nft.new_rule(filter_table.NAME, nftx.accept(chain)))
            self.assert_found('TM313', 'nftables')

    def test_tm313_of_what_no_agent_said(self):
        self.needs_program('nft')
        self.start(1, 2)
        its = (rule(), rule('egress', remote='192.0.2.7/32', protocol=17,
                            first=7, last=9),
               rule(number=3, family=6, protocol=58),
               rule(number=4, remote_set='group:' + OTHER_GROUP))
        said = {'groups': (group(*its), group(rule(), id=OTHER_GROUP)),
                'members': (members('192.0.2.9/32'),), 'is_all': True}

        def say():
            self.apply(port(1), port(2, [GROUP, OTHER_GROUP]), **said)
            self.assert_none_of_ours()
        say()
        name = group_rules.set_name([GROUP])
        tables = 'bridge ' + filter_table.NAME
        index = self.host.link(vif(2).vif_name).index
        for command, device in (
                ('insert rule %s in_%s accept' % (tables, GROUP), 'nftables'),
                ('add rule %s out_%s ip saddr 192.0.2.1 counter accept' % (
                    tables, GROUP), 'nftables'),
                ('insert rule %s in_%s_later accept' % (tables, GROUP),
                 'nftables'),
                ('insert rule %s in_%s accept' % (tables, name), 'nftables'),
                ('flush chain %s out_%s' % (tables, name), 'nftables'),
                *(('add element %s %s_ports { %d }' % (tables, name, index),
                   vif(2).vif_name)
                  for name in ('open', 'unlocked', 'stateful'))):
            subprocess.run(['nft', command], check=True)
            self.assert_found('TM313', device)
            say()

    def test_tm316(self):
        self.start()
        self.feed()
        self.assert_none_of_ours()
        self.flush()
        self.assert_found('TM316', 'nftables')
        self.start()
        self.apply(*map(port, self.NUMBERS), groups=(group(),), is_all=True)
        self.assert_none_of_ours()


class WhoseTest(AgentTestCase):
    """What an agent may say, and of which ports."""

    def assert_refused(self, *words, **fields):
        applied = self.apply(port(1, **fields), groups=(group(*EVERYTHING),))
        self.assertEqual((), applied['ports'])
        why, = applied['refused'].values()
        for word in words:
            self.assertIn(word, why)

    def test_no_such_tap(self):
        self.assert_refused('not here')

    def test_another_vif(self):
        self.start(1)
        self.assert_refused(vif(1).id, vif_id=vif(2).id)

    def test_without_mark(self):
        self.host.add_tap('tap7')
        self.host.set('tap7', group=AGENT)
        self.assert_refused('tap7', 'no TAP of tapmac', tap='tap7')

    def test_another_group(self):
        self.start(1)
        self.host.set(vif(1).vif_name, group=77)
        self.assert_refused('no TAP of tapmac')

    def test_an_unknown_group(self):
        self.start(1)
        self.assert_refused(OTHER_GROUP, groups=[OTHER_GROUP])

    def test_what_makes_no_sense(self):
        good = security_groups.Change(ports=(port(1),)).as_fields()
        for bad in ({}, {**good, 'more': 1}, {**good, 'ports': [{}]},
                    {**good, 'ports': good['ports'] * 2}, None,
                    {**good, 'gone': ['x']}, {**good, 'is_all': 'yes'}):
            self.assertRaises(ValueError, privileged.apply_filter, bad)

    def test_elements_of_others_stay(self):
        self.configure(firewall='none', anti_spoofing='full')
        self.start(1)
        before = self.elements_of(1)
        self.assertIn(rules.IPV4, before)
        self.configure(firewall='agent')
        self.start(2)
        self.apply(is_all=True)
        self.assertEqual(before, self.elements_of(1))
        self.apply(gone=(vif(1).id,))
        self.assertEqual(before, self.elements_of(1))


class RollOutTest(AgentTestCase):
    """A guest that runs goes on, whoever says what may pass."""

    def test_full_and_back(self):
        for mode, former in ('full', FILTERED), ('mac', UNFILTERED):
            self.configure(firewall='none', anti_spoofing=mode)
            self.start()
            self.assertEqual(former, self.group_of(1))
            self.configure(firewall='agent')
            self.start()
            self.assert_logged(vif(1).vif_name, 'security groups')
            self.assertEqual(former, self.group_of(1))
            self.assertEqual({2}, self.send(1, udp(1, 2)))
            self.feed(*EVERYTHING, numbers=[1])
            self.assertEqual(AGENT, self.group_of(1))
            self.assertEqual(former, self.group_of(2))
            self.assertEqual({2}, self.send(1, udp(1, 2)))
            self.assertEqual({1}, self.send(2, udp(2, 1)))
            self.configure(firewall='none')
            self.start()
            self.assertEqual(former, self.group_of(1))
            self.assertEqual({2}, self.send(1, udp(1, 2)))
            found = self.elements_of(1)
            self.assertEqual(set(), found & set(agent_elements.ONLY_FED))
            self.assertEqual(mode == 'full', bool(found))

    def test_it_moves_when_plugged_after_it_was_fed(self):
        self.configure(firewall='none', anti_spoofing='full')
        self.start()
        self.feed(*EVERYTHING)
        self.assertEqual(FILTERED, self.group_of(1))
        self.configure(firewall='agent')
        self.start()
        self.assertEqual(AGENT, self.group_of(1))
        self.assertEqual({2}, self.send(1, udp(1, 2)))
        # What the agent has said is its own.
        self.feed(*EVERYTHING, own=((mac(1), '192.0.2.0/24'),), numbers=[1])
        before = self.there()
        self.start()
        self.assertEqual(before, self.there())

    def test_a_kernel_without_nf_tables(self):
        self.configure(firewall='none', anti_spoofing='mac')
        self.start(1)
        before = self.host.state()
        self.patch(nft.Session, 'PROTOCOL', 31)
        self.configure(firewall='agent')
        self.start(1)
        self.assertEqual(before, self.host.state())
        self.assert_plug_fails(exception.KernelRefused, 'firewall',
                               'nf_tables', vif=vif(2))
        self.assertIsNone(self.host.find(vif(2).vif_name))

    def test_unplug(self):
        self.start()
        self.feed(*EVERYTHING)
        self.unplug(vif(1))
        keys = {agent_elements.index_of(element)
                for name in agent_elements.ONLY_FED
                for element in self.there()[name].values()}
        self.assertEqual({self.index(2).to_bytes(4, 'little')}, keys)

    def test_idle(self):
        self.configure(firewall='none', anti_spoofing='full')
        self.plug(vif(1))
        self.configure(firewall='agent')
        self.plug(vif(1))
        self.assertEqual(AGENT, self.group_of(1))


class AtOnceTest(AgentTestCase):
    """A daemon has many threads."""

    NUMBERS = range(1, 17)

    def test_threads(self):
        for number in self.NUMBERS:
            self.plug(vif(number))
        with futures.ThreadPoolExecutor(len(self.NUMBERS)) as executor:
            for found in [executor.submit(self.feed, *EVERYTHING,
                                          numbers=[number])
                          for number in self.NUMBERS]:
                self.assertEqual({}, found.result()['refused'])
            fed = [number for number in self.NUMBERS
                   if self.elements_of(number)]
            self.assertEqual(list(self.NUMBERS), fed)
            with self.assertNoLogs('vif_plug_tapmac', 'WARNING'):
                for found in [executor.submit(self.unplug, vif(number))
                              for number in self.NUMBERS]:
                    found.result()
        self.assertEqual({'guest_mac'}, {
            name for name, some in self.there().items() if some} & {
                'guest_mac', 'egress', 'ingress', 'open_ports'})
        self.assertTrue(self.is_right())
