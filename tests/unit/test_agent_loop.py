# SPDX-License-Identifier: Apache-2.0

"""The loop of tapmac-agent: what it asks, in which order, and what again.

Neutron, the daemon and the TAPs are said here. With all of them as they are it
is in tests/neutron.
"""

import contextlib
import os
import pathlib
import sys
import threading
import time
import types

import fixtures
import oslo_messaging

from tests import base
from tests import patience
from vif_plug_tapmac.agent import dirty
from vif_plug_tapmac.agent.dirty import Batch
from vif_plug_tapmac.agent import firewall
from vif_plug_tapmac.agent import manager
from vif_plug_tapmac.agent import names
from vif_plug_tapmac.agent.resync import Resync
from vif_plug_tapmac.agent import state
from vif_plug_tapmac.agent import taps
from vif_plug_tapmac.agent import waiting
from vif_plug_tapmac.host import agent_names
from vif_plug_tapmac.kernel import group_rules
from vif_plug_tapmac import privileged
from vif_plug_tapmac import privsep
from vif_plug_tapmac.wanted import from_neutron
from vif_plug_tapmac.wanted import security_groups

ONE, TWO, THREE = ('%08d-0000-4000-8000-000000000000' % number
                   for number in (1, 2, 3))
GROUP, OTHER = ('%08d-0000-4000-8000-000000000000' % number
                for number in (7, 8))
UP, DOWN = 'ACTIVE', 'DOWN'
_SSH = {'direction': 'ingress', 'ethertype': 'IPv4', 'protocol': 'tcp',
        'port_range_min': 22, 'port_range_max': 22}


class DirtyTest(base.TestCase):

    def test_nothing_that_is_told_is_lost(self):
        # Between any two instructions somebody else may have the processor.
        self.addCleanup(sys.setswitchinterval, sys.getswitchinterval())
        sys.setswitchinterval(1e-6)
        told, taken = dirty.Dirty(), set()

        def tell(first):
            for number in range(first, first + 500):
                told.add(Batch(ports=frozenset({str(number)})))
        threads = [threading.Thread(target=tell, args=(first,))
                   for first in range(0, 2000, 500)]
        for each in threads:
            each.start()
        while any(each.is_alive() for each in threads):
            taken |= told.take(0).ports
        taken |= told.take(0).ports
        self.assertEqual({str(number) for number in range(2000)}, taken)

    def test_who_waits_is_woken(self):
        told, taken = dirty.Dirty(), []
        thread = threading.Thread(target=lambda: taken.append(
            told.take(patience.HANG)))
        thread.start()
        told.add(Batch(is_all=True))
        thread.join()
        self.assertEqual([Batch(is_all=True)], taken)

    def test_nothing_comes(self):
        self.assertEqual(dirty.EMPTY, dirty.Dirty().take(-1))
        self.assertEqual(dirty.EMPTY, dirty.Dirty().take(0.01))


class Neutron:
    """What says and hears what Neutron does, as agent.server has it."""

    def __init__(self, said):
        self.said = said
        #: By port: its status, its groups.
        self.ports = {}
        #: By group: whether it is stateful, and whom its rules name.
        self.groups = {GROUP: (False, None)}
        self.failed = self.not_down = frozenset()
        self.meanwhile = lambda: None
        #: Whether it has it as it was told.
        self.learns = False
        self.fails = False
        self.more = {}

    def ask(self, ports):
        self.said.append(('ask', *sorted(ports)))
        self.meanwhile()
        if self.fails:
            raise oslo_messaging.MessagingTimeout()
        devices = {port: {
            'id': port, 'device': port, 'status': status,
            'mac_address': base.GUEST_MAC, 'fixed_ips': [],
            'security_groups': list(groups), **self.more} for port, (
                status, *groups) in self.ports.items() if port in ports}
        named = {group for each in devices.values()
                 for group in each['security_groups']}
        info = {'devices': devices, 'sg_member_ips': {}, 'security_groups': {
            group: [{'direction': 'ingress', 'ethertype': 'IPv4',
                     'stateful': stateful,
                     **({'remote_group_id': remote} if remote else {})}]
            for group, (stateful, remote) in self.groups.items()
            if group in named}}
        return types.SimpleNamespace(info=info, details=[], failed=self.failed,
                                     by_port=lambda: devices)

    def is_to_be_up(self, told):
        return told['status'] != UP

    def is_up(self, told):
        return told['status'] == UP

    def set_up(self, ports):
        if ports:
            self.said.append(('up', *sorted(ports)))
        self.learn(ports, UP)
        return frozenset()

    def set_down(self, ports):
        if ports:
            self.said.append(('down', *sorted(ports)))
        self.learn(ports, DOWN)
        return self.not_down.intersection(ports)

    def learn(self, ports, status):
        if self.learns:
            for port in ports:
                self.ports[port] = status, *self.ports[port][1:]


class LoopTestCase(base.TestCase):

    spread = 0

    def setUp(self):
        super().setUp()
        self.said = []
        self.neutron = Neutron(self.said)
        self.here, self.guarded = {}, True
        #: What apply_filter answers in place of all that it was asked for.
        self.applied = {}
        self.patch(privileged, 'apply_filter', self.apply)
        #: The names of TAPs that nobody has fed.
        self.unfed = set()
        self.patch(privileged, 'unfed_taps', self.which_are_unfed)
        self.patch(privsep.filter, 'calling',
                   lambda about: contextlib.nullcontext())
        self.dirty, self.state = dirty.Dirty(), state.State('')
        seen = types.SimpleNamespace(
            here=lambda: dict(self.here),
            guarded=lambda taps: dict.fromkeys(taps, self.guarded))
        self.resync = Resync(3600, self.spread)
        self.manager = manager.Manager(
            self.dirty, seen, self.neutron, firewall.Firewall(False),
            self.state, None, self.resync)
        for port in ONE, TWO:
            self.plug(port)

    def plug(self, port, status=UP, groups=(GROUP,)):
        self.here[port] = taps.Tap(port, len(self.here) + 1,
                                   'tap' + port[:8], 5)
        self.neutron.ports[port] = (status, *groups)

    def which_are_unfed(self, names):
        self.assertNotEqual([], names)
        return [each for each in names if each in self.unfed]

    def apply(self, change):
        ports = [each['vif_id'] for each in change['ports']]
        self.said.append(('apply', *(['all'] if change['is_all'] else []),
                          *sorted(ports),
                          *('-' + each for each in sorted(change['gone']))))
        return {'ports': ports, 'refused': {}, 'needs_all': False,
                **self.applied}

    def handle(self, **batch):
        """Return what was said and asked because of that."""
        self.said.clear()
        self.manager.handle(Batch(**{
            name: value if isinstance(value, bool) else frozenset(value)
            for name, value in batch.items()}))
        self.manager.tell()
        return list(self.said)

    def left(self):
        return self.dirty.take(0)


class LoopTest(LoopTestCase):

    def test_all_is_one_transaction(self):
        self.assertEqual([('ask', ONE, TWO), ('apply', 'all', ONE, TWO)],
                         self.handle(is_all=True))
        self.assertNotEqual(0, self.state.synced)

    def test_what_comes_meanwhile_is_not_lost(self):
        self.neutron.meanwhile = lambda: self.dirty.add(
            Batch(ports=frozenset({ONE})))
        self.handle(ports=[ONE])
        self.assertEqual({ONE}, self.left().ports)

    def test_ports_of_others_cost_nothing(self):
        self.assertEqual([('ask',)], self.handle(ports=[THREE]))

    def test_up_only_when_it_is_guarded(self):
        self.plug(ONE, DOWN)
        self.assertEqual([('ask', ONE), ('apply', ONE), ('up', ONE)],
                         self.handle(ports=[ONE]))
        self.guarded = False
        self.assertEqual([('ask', ONE), ('apply', ONE)],
                         self.handle(ports=[ONE]))
        self.assertIn('is not in agent_group', self.logs.output)

    def test_unguarded_is_said_also_of_what_is_up(self):
        self.guarded = False
        self.handle(ports=[ONE])
        self.assertIn('is not in agent_group', self.logs.output)
        self.assertEqual({ONE}, set(self.manager._waiting))

    def test_made_anew_meanwhile_is_not_up(self):
        self.plug(ONE, DOWN)
        self.guarded = None
        self.assertEqual([('ask', ONE), ('apply', ONE)],
                         self.handle(ports=[ONE]))
        self.assertNotIn('not wired', self.logs.output)

    def test_refused_is_not_up(self):
        self.plug(ONE, DOWN)
        self.applied = {'ports': [], 'refused': {ONE: 'it can not be'}}
        for _ in range(2):
            self.assertEqual([('ask', ONE), ('apply', ONE)],
                             self.handle(ports=[ONE]))
        self.assertEqual(1, self.logs.output.count('it can not be'))
        self.assertEqual({ONE}, set(self.manager._waiting))
        self.applied = {}
        self.handle(ports=[ONE])
        self.assertEqual({}, self.manager._waiting)

    def test_down_before_up(self):
        self.plug(ONE, DOWN)
        self.assertEqual(
            [('ask', ONE), ('down', ONE), ('apply', ONE), ('up', ONE)],
            self.handle(ports=[ONE], lost=[ONE]))

    def test_made_anew_while_there_was_no_agent(self):
        """Nova hears of what was down that it is up."""
        self.plug(ONE, UP)
        self.plug(TWO, UP)
        self.unfed = {self.here[ONE].name}
        self.assertEqual(
            [('ask', ONE, TWO), ('down', ONE), ('apply', 'all', ONE, TWO),
             ('up', ONE)], self.handle(is_all=True))
        # Neutron may say what was before; it is told so once.
        self.assertEqual([('ask', ONE), ('apply', ONE)],
                         self.handle(ports=[ONE]))

    def test_made_anew_and_not_down(self):
        self.plug(ONE, UP)
        self.unfed = {self.here[ONE].name}
        self.neutron.not_down = frozenset({ONE})
        self.assertEqual([('ask', ONE), ('down', ONE), ('apply', ONE)],
                         self.handle(ports=[ONE]))
        self.neutron.not_down = frozenset()
        self.neutron.ports[ONE] = DOWN, GROUP
        self.assertEqual(
            [('ask', ONE), ('down', ONE), ('apply', ONE), ('up', ONE)],
            self.handle(ports=[ONE], lost=[ONE]))

    def test_gone(self):
        self.handle(is_all=True)
        del self.here[ONE]
        self.assertEqual([('ask',), ('apply', '-' + ONE), ('down', ONE)],
                         self.handle(lost=[ONE]))

    def test_unknown_to_neutron_is_closed(self):
        self.handle(is_all=True)
        del self.neutron.ports[ONE]
        self.assertEqual([('ask', ONE), ('apply', '-' + ONE)],
                         self.handle(ports=[ONE]))
        # Or not known yet.
        self.assertEqual({ONE}, set(self.manager._waiting))

    def test_admin_state_down_is_closed(self):
        self.plug(ONE, DOWN)
        self.neutron.more = {'admin_state_up': False}
        self.assertEqual([('ask', ONE), ('apply', '-' + ONE)],
                         self.handle(ports=[ONE]))
        self.assertEqual({}, self.manager._waiting)

    def test_stateful_is_closed_without_conntrack(self):
        self.handle(is_all=True)
        self.neutron.groups[OTHER] = True, None
        self.plug(ONE, DOWN, (OTHER,))
        self.assertEqual([('ask', ONE), ('apply', '-' + ONE)],
                         self.handle(ports=[ONE]))
        self.assertIn('Port %s is not wired: its security groups are stateful'
                      % ONE, self.logs.output)

    def test_who_is_in_no_group_needs_no_conntrack(self):
        self.plug(ONE, DOWN, ())
        self.assertEqual([('ask', ONE), ('apply', ONE), ('up', ONE)],
                         self.handle(ports=[ONE]))

    def test_nothing_is_said_where_neutron_does_not_answer(self):
        self.handle(is_all=True)
        self.neutron.fails = True
        self.assertRaises(oslo_messaging.MessagingTimeout, self.handle,
                          is_all=True)
        self.assertEqual([('ask', ONE, TWO)], self.said)

    def test_what_it_can_not_say_stays(self):
        self.neutron.failed = frozenset({TWO})
        del self.neutron.ports[TWO]
        self.assertEqual([('ask', ONE, TWO), ('apply', ONE)],
                         self.handle(is_all=True))
        self.assertEqual({TWO}, set(self.manager._waiting))
        # And that is no reason to ask for all the time.
        self.assertGreater(self.resync.due, time.monotonic())

    def test_table_made_anew_by_others(self):
        self.plug(ONE, DOWN)
        self.applied = {'ports': [], 'needs_all': True}
        self.assertEqual([('ask', ONE), ('apply', ONE)],
                         self.handle(ports=[ONE]))
        self.assertTrue(self.left().is_all)

    def test_one_port_tells_a_group(self):
        self.plug(THREE, groups=(OTHER,))
        self.neutron.groups[OTHER] = False, None
        self.handle(is_all=True)
        self.assertEqual(('ask', THREE), self.handle(groups=[OTHER])[0])
        self.assertEqual(('ask',), self.handle(groups=[ONE])[0])
        for batch, one_each in (([GROUP], 1), ([GROUP, OTHER], 2)):
            asked = self.handle(groups=batch)[0][1:]
            self.assertEqual(one_each, len(asked))
            self.assertEqual(one_each == 2, THREE in asked)

    def test_members_are_told_by_who_names_them(self):
        self.plug(THREE, groups=(OTHER,))
        self.neutron.groups[OTHER] = False, GROUP
        self.handle(is_all=True)
        self.assertEqual(('ask', THREE), self.handle(members=[GROUP])[0])
        self.assertEqual(('ask',), self.handle(members=[OTHER])[0])

    def test_who_was_to_tell_is_gone(self):
        self.handle(is_all=True)
        del self.neutron.ports[ONE]
        self.handle(groups=[GROUP])
        again = self.left()
        self.assertEqual({GROUP}, again.groups)
        self.assertEqual(('ask', TWO), self.handle(groups=again.groups)[0])
        self.assertEqual(frozenset(), self.left().groups)

    def test_group_becomes_stateful(self):
        self.handle(is_all=True)
        self.neutron.groups[GROUP] = True, None
        self.handle(groups=[GROUP])
        self.assertEqual({TWO}, self.left().ports)


class RunTest(LoopTestCase):
    """The same, in a thread of its own."""

    def setUp(self):
        super().setUp()
        self.patch(waiting, 'FIRST_PAUSE', 0.001)
        self.patch(waiting, 'LONGEST_PAUSE', 0.01)
        self.patch(waiting, 'LONGEST_OF_ONE', 0.01)

    def start(self):
        thread = threading.Thread(target=self.manager.run)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(self.manager.stop)

    def wait_for(self, *what):
        patience.wait_until(lambda: what in self.said,
                            lambda: '%s in %s' % (what, self.said))

    def test_tried_until_neutron_answers(self):
        self.neutron.fails = True
        self.start()
        patience.wait_until(lambda: self.state.retries > 3, 'tried again')
        self.assertEqual({('ask', ONE, TWO)}, set(self.said))
        self.assertEqual(2, self.state.waiting)
        self.neutron.fails = False
        self.wait_for('apply', 'all', ONE, TWO)
        patience.wait_until(lambda: self.state.waiting == 0, 'none waits')

    def test_what_failed_is_done_again(self):
        self.start()
        self.wait_for('apply', 'all', ONE, TWO)
        self.neutron.fails = True
        del self.here[TWO]
        self.dirty.add(Batch(ports=frozenset({ONE}), lost=frozenset({TWO})))
        patience.wait_until(lambda: self.state.retries > 3, 'tried again')
        self.neutron.fails = False
        self.wait_for('apply', ONE, '-' + TWO)

    def test_one_that_can_not_be_had_is_tried_again(self):
        self.applied = {'ports': [TWO], 'refused': {ONE: 'it can not be'}}
        self.start()
        self.wait_for('apply', ONE)
        patience.wait_until(lambda: self.state.waiting == 1, 'one waits')
        self.applied = {}
        patience.wait_until(lambda: self.state.waiting == 0, 'none waits')
        self.assertLess(0, self.state.retries)

    def test_what_all_hosts_do(self):
        self.start()
        self.wait_for('apply', 'all', ONE, TWO)
        self.said.clear()
        self.dirty.add(Batch(resync=True))
        self.wait_for('apply', 'all', ONE, TWO)

    def test_down_is_tried_again(self):
        self.start()
        self.wait_for('apply', 'all', ONE, TWO)
        self.neutron.not_down = frozenset({TWO})
        del self.here[TWO]
        self.dirty.add(Batch(lost=frozenset({ONE, TWO})))
        self.wait_for('down', TWO)
        patience.wait_until(lambda: self.state.waiting == 1, 'one waits')
        self.assertEqual(1, self.logs.output.count('could not have port'))
        self.neutron.not_down = frozenset()
        patience.wait_until(lambda: self.state.waiting == 0, 'none waits')
        self.assertLess(0, self.state.retries)
        self.assertEqual([('down', ONE, TWO)], [
            each for each in self.said if each[0] == 'down' and ONE in each])

    def test_down_and_here_again(self):
        """It is up when it has been down, or Nova would not hear of it."""
        self.start()
        self.wait_for('apply', 'all', ONE, TWO)
        self.neutron.not_down = frozenset({ONE})
        self.dirty.add(Batch(ports=frozenset({ONE}), lost=frozenset({ONE})))
        patience.wait_until(lambda: self.said.count(('down', ONE)) > 2,
                            'tried again')
        self.assertNotIn(('up', ONE), self.said)
        self.neutron.ports[ONE] = DOWN, GROUP
        self.neutron.not_down = frozenset()
        self.wait_for('up', ONE)

    def test_rules_do_not_wait_until_all_are_down(self):
        """Who is fed was said to be down before; the others come first."""
        ports = ['%08d-0000-4000-8000-000000000000' % number
                 for number in range(100, 150)]
        for port in ports:
            self.plug(port, UP)
        self.unfed = {self.here[port].name for port in ports}
        self.neutron.learns = True
        self.start()
        patience.wait_until(lambda: self.state.synced,
                            lambda: 'all are fed: %s' % self.said)
        first = next(each for each in self.said if each[0] == 'apply')
        self.assertLessEqual({ONE, TWO}, set(first))
        self.assertEqual(2 + 20, len(first[2:]))
        for kind in 'ask', 'apply', 'down':
            told = [port for each in self.said if each[0] == kind
                    for port in each[1:] if port in ports]
            self.assertEqual(ports, sorted(set(told)))
            # Not all of them each time.
            self.assertLess(len(told), 130)
        for port in ports:
            kinds = [each[0] for each in self.said
                     if port in each and each[0] != 'ask']
            self.assertEqual(['down', 'apply', 'up'][:len(kinds)], kinds)

    def test_rules_do_not_wait_until_all_are_up(self):
        ports = ['%08d-0000-4000-8000-000000000000' % number
                 for number in range(100, 150)]
        for port in ports:
            self.plug(port, DOWN)

        self.neutron.learns = True
        learn = self.neutron.learn

        def change(up, status):
            learn(up, status)
            if up:
                self.dirty.add(Batch(groups=frozenset({GROUP})))
        self.neutron.learn = change
        self.start()
        patience.wait_until(lambda: set(ports) == {
            port for each in self.said if each[0] == 'up'
            for port in each[1:]}, lambda: 'all are up: %s' % self.said)
        kinds = [each[0] for each in self.said]
        first = kinds.index('up')
        self.assertEqual(['ask', 'apply', 'up', 'ask', 'apply', 'up'],
                         kinds[:first + 4])


class SpreadTest(LoopTestCase):
    """What all hosts have reason to do at one moment, they do at others."""

    spread = 600

    def test_moments_differ(self):
        def due():
            now = time.monotonic()
            self.resync.due = now + 3600
            self.dirty.add(Batch(resync=True))
            # Nothing but that, and nobody waits for it.
            self.assertEqual(dirty.EMPTY, self.manager._next())
            return self.resync.due - now
        moments = [due() for _ in range(100)]
        self.assertLess(min(moments), 100)
        self.assertGreater(max(moments), 500)
        self.assertLess(max(moments), 610)

    def test_at_the_start(self):
        self.dirty.add(Batch(ports=frozenset({ONE})))
        self.assertLess(self.resync.due, time.monotonic() + 600)
        # What is new does not wait.
        self.assertEqual(Batch(ports=frozenset({ONE})), self.manager._next())

    def test_what_was_to_come_sooner_does(self):
        self.resync.due = 0
        self.dirty.add(Batch(resync=True))
        self.assertTrue(self.manager._next().is_all)

    def test_resyncs_drift_apart(self):
        def pause():
            self.handle(is_all=True)
            return self.resync.due - time.monotonic()
        pauses = [pause() for _ in range(50)]
        self.assertLess(max(pauses), 3601)
        self.assertGreater(max(pauses) - min(pauses), 300)


class NamesTest(base.TestCase):
    """How groups are called, asked for when they are in force."""

    def setUp(self):
        super().setUp()
        self.patch(names, '_PAUSE', 0)
        self.patch(names, '_AGAIN', 0.01)
        self.path = self.useFixture(fixtures.TempDir()).join('names.json')
        self.called = {GROUP: 'web', OTHER: 'proxies'}
        self.asked, self.fails = [], False
        self.names = names.Names(self.describe, self.path)
        self.names.start()

    def describe(self, groups):
        self.asked.append(set(groups))
        if self.fails:
            raise oslo_messaging.MessagingTimeout
        return {each: self.called[each] for each in groups}, [
            dict(_SSH, id=ONE, security_group_id=GROUP, remote_group_id=None),
            dict(_SSH, id=TWO, security_group_id=GROUP, protocol='demo')]

    def group(self, *rules):
        return security_groups.Group(GROUP, True, rules)

    def wait_until_written(self, wanted):
        patience.wait_until(
            lambda: os.path.exists(self.path) and wanted in (
                pathlib.Path(self.path).read_text()), wanted)

    def test_what_kernel_and_neutron_call_a_rule(self):
        rule = from_neutron.rule(_SSH)
        self.names.learn({GROUP: self.group(rule)}, True)
        self.wait_until_written('web')
        found = agent_names.read(self.path)
        self.assertEqual('web (%s)' % GROUP, found.group(GROUP))
        made, = (each for each in group_rules.chains(self.group(rule)).rules
                 if each.chain == 'in_' + GROUP)
        self.assertEqual(ONE, found.rule(GROUP, made))
        self.assertEqual([{GROUP}], self.asked)

    def test_only_what_changes_is_asked_for(self):
        self.names.learn({GROUP: self.group()}, True)
        self.wait_until_written('web')
        self.names.learn({GROUP: self.group()}, False)
        self.names.learn({GROUP: self.group(), OTHER: security_groups.Group(
            OTHER, True)}, False)
        self.wait_until_written('proxies')
        self.assertEqual([{GROUP}, {OTHER}], self.asked)
        self.names.learn({OTHER: security_groups.Group(OTHER, True)}, False)
        patience.wait_until(lambda: 'web' not in pathlib.Path(
            self.path).read_text(), 'gone')
        self.assertEqual([{GROUP}, {OTHER}], self.asked)

    def test_members_have_a_name(self):
        self.names.learn({GROUP: self.group(security_groups.Rule(
            'any', 'ingress', 4, remote_set='group:' + OTHER))}, True)
        self.wait_until_written('proxies')
        self.assertEqual([{GROUP, OTHER}], self.asked)

    def test_neutron_does_not_answer(self):
        self.fails = True
        self.names.learn({GROUP: self.group()}, True)
        patience.wait_until(lambda: len(self.asked) > 2, 'asked again')
        self.fails = False
        self.wait_until_written('web')
        self.assertEqual(1, self.logs.output.count('does not say how'))


class StateTest(base.TestCase):

    def test_file_is_there_as_a_whole(self):
        path = self.useFixture(fixtures.TempDir()).join('agent.prom')
        found = state.State(path)
        found.ports, found.waiting = 3, 1
        found.write()
        with open(path) as file:
            text = file.read()
        self.assertIn('\ntapmac_agent_ports 3\n', text)
        self.assertIn('\ntapmac_agent_ports_waiting 1\n', text)
        state.State('/nowhere/agent.prom').write()
        self.assertIn('metrics_file can not be written', self.logs.output)
