# SPDX-License-Identifier: Apache-2.0

"""What others do to what an agent has said is undone by the agent's daemon.

Test strategy: a real daemon, forked, hears what the test does to the table.
Each test waits for what is there again; how long that took is told.
"""

import itertools
import random
import threading
import time

from tests import base
from tests.functional import test_agent_filter as agent
from tests import patience
from vif_plug_tapmac.kernel import agent_conntrack
from vif_plug_tapmac.kernel import agent_elements
from vif_plug_tapmac.kernel import agent_healing
from vif_plug_tapmac.kernel import agent_table
from vif_plug_tapmac.kernel import filter_state
from vif_plug_tapmac.kernel import filter_steps
from vif_plug_tapmac.kernel import filter_table
from vif_plug_tapmac.kernel import group_rules
from vif_plug_tapmac.kernel import nft
from vif_plug_tapmac.kernel import nft_expressions as nftx
from vif_plug_tapmac.kernel import nft_rules
from vif_plug_tapmac.kernel import nft_sets
from vif_plug_tapmac.kernel import shields
from vif_plug_tapmac import privsep
from vif_plug_tapmac.wanted import rules

_NAME = filter_table.NAME
#: What else than the table changes by itself.
_COUNTED = filter_table.DROPS, agent_conntrack.COUNTED


def state():
    """Return all that is in the table, and in those beside; None: nothing.

    But for what it has counted.
    """
    with nft.Session() as session:
        if session.table(_NAME) is None:
            return None
        return ({chain: [nft_rules.uncounted(
            told.octets(nft.RULE_EXPRESSIONS)) for told in map(
                nft.read, session.rules(_NAME, chain))]
            for chain in session.chains(_NAME)},
            {name: set(nft_sets.elements(session, _NAME, name))
             for name in nft_sets.names(session, _NAME)
             if name not in _COUNTED},
            [filter_state.is_right_beside(session.on(each.family), each)
             for each in filter_table.BESIDE])


class HealingTestCase(agent.AgentTestCase):

    def setUp(self):
        super().setUp()
        self.start_daemon(privsep.filter)

    def feed_all(self, *its, **fields):
        self.apply(*(agent.port(number, **fields) for number in self.NUMBERS),
                   groups=(agent.group(*(its or agent.EVERYTHING)),),
                   is_all=True)

    def change(self, *steps):
        with nft.Session() as session:
            session.transact('', list(steps))

    def wait_for(self, wanted, what):
        """Wait until the table is so; return how long that was."""
        started = time.monotonic()
        patience.wait_until(lambda: state() == wanted, what, pause=0.001)
        return time.monotonic() - started


class HealingTest(HealingTestCase):

    def setUp(self):
        super().setUp()
        self.start()
        self.feed_all(agent.rule('egress'), agent.rule(
            'ingress', remote='192.0.2.0/24'))
        self.before = state()

    def assert_undone(self, *steps):
        self.change(*steps)
        self.wait_for(self.before, 'it is not undone: %r' % (steps,))

    def test_a_flush(self):
        seconds = [self.flush_and_wait() for _ in range(20)]
        print('A flush was undone after %s ms' % ', '.join(
            '%.0f' % (1000 * each) for each in sorted(seconds)))
        self.assertEqual({2}, self.send(1, agent.udp(1, 2)))

    def flush_and_wait(self):
        self.flush()
        return self.wait_for(self.before, 'the flush is not undone')

    def test_each_part(self):
        """Whatever others take away, or put there."""
        chain = group_rules.chain_name('ingress', agent.GROUP)
        of_ports = group_rules.chain_name(
            'egress', group_rules.set_name([agent.GROUP]))
        index = self.index(1)
        key = filter_steps.number_key(index)
        other = nft_sets.Element(filter_steps.number_key(77))
        for steps in (
                [nft.delete_rules(_NAME, chain)],
                [nft.delete_rules(_NAME, of_ports)],
                [nft.delete_rules(_NAME, 'leaving')],
                [nft.new_rule(_NAME, nft.Rule(
                    chain, nftx.ACCEPT))],
                nft_sets.delete_elements(_NAME, agent_table.INGRESS, [
                    nft_sets.Element(key)]),
                nft_sets.delete_elements(_NAME, agent_table.GROUPS, [
                    nft_sets.Element(filter_steps.number_key(agent.AGENT))]),
                nft_sets.add_elements(_NAME, agent_table.OPEN, [
                    nft_sets.Element(key)]),
                nft_sets.delete_elements(_NAME, rules.IPV4, [
                    nft_sets.Element(filter_steps.key(
                        index, agent.mac(1), agent.ipv4(1)))]),
                nft_sets.delete_elements(_NAME, rules.MACS, [
                    nft_sets.Element(bytes(12))])):
            self.assert_undone(*steps)
        self.change(*nft_sets.add_elements(_NAME, agent_table.OPEN, [other]))
        self.assert_undone(nft.delete_rules(_NAME, chain), *(
            nft_sets.delete_elements(_NAME, agent_table.OPEN, [other])))

    def test_members(self):
        self.apply(*map(agent.port, self.NUMBERS), groups=(agent.group(
            agent.rule(remote_set='group:' + agent.OTHER_GROUP)),),
            members=(agent.members('10.0.0.0/8'),), is_all=True)
        self.before = state()
        name, = self.made().sets
        self.assert_undone(*nft_sets.delete_elements(_NAME, name, list(
            nft_sets.interval(bytes([10, 0, 0, 0]), bytes([10] + [255] * 3)))))
        self.assert_undone(nft.delete_table(_NAME))

    def test_so_much_that_it_is_not_heard_of(self):
        """Who flushes has done more than the socket keeps."""
        others = [nft_sets.Element(bytes([10, *number.to_bytes(3, 'big')]))
                  for number in range(patience.amount(2000, 20000, 60000))]
        with nft.Session() as session:
            session.transact('', [
                nft.new_table('other', ''),
                nft_sets.new_set('other', nft_sets.Set(
                    'many', nft_sets.IP, 4), 1)])
            for _ in range(10):
                session.transact('', nft_sets.add_elements(
                    'other', 'many', others))
                session.transact('', [
                    *nft_sets.delete_elements('other', 'many', others),
                    nft.delete_rules(_NAME, 'entering')])
        self.wait_for(self.before, 'it is not undone')

    def test_what_the_agent_says_later(self):
        self.apply(agent.port(1, [agent.OTHER_GROUP]), groups=(
            agent.group(id=agent.OTHER_GROUP),))
        self.apply(gone=(agent.vif(2).id,))
        self.before = state()
        self.assert_undone(nft.delete_table(_NAME))
        self.assertEqual(set(), self.elements_of(2))
        # No agent has to say all again.
        self.assertFalse(self.apply(agent.port(2))['needs_all'])

    def test_a_daemon_that_does_not_know_all(self):
        privsep.filter.stop()
        self.start_daemon(privsep.filter)
        self.feed(*agent.EVERYTHING, numbers=[1])
        self.flush()
        patience.wait_until(lambda: state() is not None, 'the table is gone')
        patience.wait_until(lambda: self.elements_of(1), 'it is not known')
        # Nobody has said to this one that the other is there: it is closed.
        self.assertEqual(set(), self.send(2, agent.udp(2, 0)))
        self.assertTrue(self.apply(agent.port(1))['needs_all'])
        self.feed_all()
        self.assertEqual({0}, self.send(2, agent.udp(2, 0)))

    def test_a_daemon_that_is_gone(self):
        """As when the package is removed, under guests that run."""
        self.start(3)
        self.send(0, agent.arp(0))
        privsep.filter.stop()
        for _ in range(2):
            self.assertEqual({0}, self.send(1, agent.udp(1, 0)))
            self.assertEqual(set(), self.send(0, agent.arp(0)) & {3})
            self.assertEqual(set(), self.send(3, agent.udp(3, 0)))
        self.assertEqual(self.before, state())

    def test_frames_while_rules_are_flushed(self):
        """What is allowed is lost at no time, what is not passes for a moment.

        Then the rules are as they were, and all that is sent is judged again.
        A frame that is judged while the rules go may find the rules still
        there, and their sets empty: that is the kernel's, and the only one.
        """
        random.seed(4)
        frames = itertools.count()
        lost, flushes, done = [], [], threading.Event()

        def talk():
            while not done.is_set():
                # Whoever speaks from a low port may be a DHCP server.
                frame = agent.udp(1, 2, sport=1024 + next(frames) % 60000)
                begun = time.monotonic()
                if self.send(1, frame) != {2}:
                    lost.append((begun, time.monotonic()))
        thread = threading.Thread(target=talk)
        thread.start()
        seconds = []
        try:
            for _ in range(patience.amount(10, 40, 2000)):
                time.sleep(random.random() / 20)
                begun = time.monotonic()
                self.flush()
                flushes.append((begun, time.monotonic()))
                seconds.append(self.wait_for(self.before,
                                             'the flush is not undone'))
        finally:
            done.set()
            thread.join()
        print('%d flushes were undone, the last after %.0f ms; of %d frames '
              '%d were lost' % (len(seconds), 1000 * max(seconds),
                                next(frames), len(lost)))
        self.assertEqual([], [
            each for each in lost if not any(
                begin <= each[1] and each[0] <= end
                for begin, end in flushes)])
        false = agent.udp(1, 2)
        false[agent.inet.IP].src = agent.GATEWAY
        self.assertEqual(set(), self.send(1, false))


class BesidesTest(HealingTestCase):
    """What others have in the table, and what they do there."""

    def test_what_others_had_goes_with_the_table(self):
        self.configure(firewall='none', anti_spoofing='full',
                       host_shield=True)
        self.start(1)
        self.configure(firewall='agent')
        self.start(2)
        self.apply(agent.port(2), groups=(agent.group(*agent.EVERYTHING),),
                   is_all=True)
        before = state()
        self.assertEqual([True, True], before[2])
        self.assertTrue(self.elements_of(1))

        def heals():
            # It may not have looked yet at what others have.
            self.flush_all()
            patience.wait_until(lambda: state() is not None,
                                'the flush is not undone')
            return state() == before or self.replug()
        patience.wait_until(heals, lambda: 'it is %r' % (state(),))
        self.assertTrue(shields.is_shielded(agent.AGENT))

    def replug(self):
        self.configure(firewall='none')
        self.start(1)
        self.configure(firewall='agent')
        self.start(2)

    def flush_all(self):
        with nft.Session() as session:
            session.transact('', [
                nft.delete_table(_NAME),
                *(step for each in filter_table.BESIDE for step in nft.on(
                    each.family, [nft.delete_table(_NAME)]))])

    def test_an_unplug_is_not_undone(self):
        self.start()
        self.feed_all()
        index = self.index(1)
        self.unplug(agent.vif(1))
        # It is known as soon as something else is undone.
        self.flush()
        patience.wait_until(lambda: state() and self.elements_of(2),
                            'the flush is not undone')
        self.assertEqual({self.index(2)}, {
            int.from_bytes(agent_elements.index_of(element), nft.BYTE_ORDER)
            for some in self.there().values() for element in some.values()})
        self.assertNotEqual(index, self.index(2))

    def test_a_guest_that_is_taken_back(self):
        """Who plugs it in another mode wins, whatever the agent knows."""
        self.start()
        self.feed_all(own=tuple((agent.mac(1), prefix) for prefix in (
            '192.0.2.1/32', '192.0.2.77/32', '198.51.100.0/24')))
        for mode, group in (('full', agent.FILTERED),
                            ('mac', agent.UNFILTERED)):
            for _ in range(patience.amount(5, 20, 100)):
                self.configure(firewall='none', anti_spoofing=mode)
                self.start(1)
                self.assertEqual(group, self.group_of(1))
                self.flush_and_look()
                found = self.addresses_of(1)
                self.assertEqual({agent.ipv4(1)} if mode == 'full' else set(),
                                 found)
                self.configure(firewall='agent')
                self.feed_all(own=((agent.mac(1), '192.0.2.1/32'),
                                   (agent.mac(1), '192.0.2.77/32')))
                self.assertEqual(agent.AGENT, self.group_of(1))

    def flush_and_look(self):
        """Wait until the daemon has looked at all that happened."""
        self.change(nft.delete_rules(_NAME, 'leaving'))
        patience.wait_until(self.is_right, 'it is not right again')

    def addresses_of(self, number):
        with nft.Session() as session:
            return {each.address for each in filter_state.elements(
                session).get(self.index(number), {})
                if each.set == rules.IPV4}

    def test_two_daemons_at_once(self):
        self.start_daemon()
        self.start()
        self.feed_all()
        before = state()
        for _ in range(patience.amount(10, 30, 500)):
            self.flush()
            # It makes the table, too, if it comes first.
            self.start(1)
            self.wait_for(before, 'they do not agree')
        self.assertEqual({2}, self.send(1, agent.udp(1, 2)))

    @base.too_slow_emulated('twenty changes that are undone')
    def test_of_another_agent(self):
        """Two who want something else do not keep the host busy with that."""
        # On a busy machine these take longer than ten seconds.
        privsep.filter.stop()
        self.patch(agent_healing, '_WITHIN', patience.HANG)
        self.start_daemon(privsep.filter)
        self.start()
        self.feed_all()
        before = state()
        chain = group_rules.chain_name('ingress', agent.GROUP)

        def is_said():
            self.change(nft.delete_rules(_NAME, chain))
            return 'one agent only' in self.logs.output
        patience.wait_until(is_said, 'they go on for ever')
        self.wait_for(before, 'it is not undone')


class ManyTest(HealingTestCase):

    NUMBERS = range(1, 1 + patience.amount(60, 250, 1000))

    @base.too_slow_emulated('a thousand ports')
    def test_how_long_it_takes(self):
        for number in self.NUMBERS:
            self.plug(agent.vif(number))
        self.feed_all()
        before = state()
        for _ in range(5):
            self.flush()
            print('%d ports were closed again after %.0f ms' % (
                len(self.NUMBERS),
                1000 * self.wait_for(before, 'it is not undone')))
