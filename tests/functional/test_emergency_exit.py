# SPDX-License-Identifier: Apache-2.0

"""``tapmac filter``: guests that are open because an operator says so.

Test strategy: the command in a process of its own, forked; guests send what is
not theirs; and everything is done that may take it back without being asked.
"""

import contextlib
import json
import logging
import os
import pathlib
import sys
import tempfile

import fixtures

from tests import base
from tests.functional import test_agent_filter as agent
from tests import patience
from vif_plug_tapmac.cli import main
from vif_plug_tapmac.host import audit
from vif_plug_tapmac.host import inventory
from vif_plug_tapmac.kernel import emergency_exit
from vif_plug_tapmac.kernel import filter_table
from vif_plug_tapmac.kernel import nft
from vif_plug_tapmac import privsep

ALL = 'all of this host'


class ExitTestCase(agent.AgentTestCase):

    def run_tapmac(self, *arguments, returncode=0, prefix=()):
        config = pathlib.Path(self.useFixture(fixtures.TempDir()).path, 'conf')
        config.write_text(
            '[os_vif_tapmac]\nfirewall = %s\nanti_spoofing = %s\n'
            'host_shield = %s\n' % (
                self.options.firewall, self.options.anti_spoofing,
                self.options.host_shield))
        arguments = '--config-file', str(config), *arguments
        if prefix:
            done = base.run_command('main', *arguments, prefix=prefix,
                                    PYTHONPATH=str(base.CHECKOUT))
            status, printed, said = done.returncode, done.stdout, done.stderr
        else:
            status, printed, said = self.run_forked(arguments)
        self.assertEqual(returncode, status, said)
        return said if returncode == 1 else printed

    def run_forked(self, arguments):
        """Run a command in a process that has loaded all by now."""
        with contextlib.ExitStack() as stack:
            files = [stack.enter_context(tempfile.TemporaryFile('w+'))
                     for _ in range(2)]
            process = os.fork()
            if not process:
                try:
                    logging.getLogger().handlers.clear()
                    sys.stdout, sys.stderr = files
                    sys.argv = ['tapmac', *arguments]
                    status = main.main()
                    for each in files:
                        each.flush()
                    os._exit(status)
                finally:
                    os._exit(99)
            _, status = os.waitpid(process, 0)
            for each in files:
                each.seek(0)
            return os.waitstatus_to_exitcode(status), *(
                each.read() for each in files)

    def filter(self, *arguments):
        """Return what is off then, by its name; and the whole host's."""
        return {each['TAP']: each['Filter'] for each in json.loads(
            self.run_tapmac('filter', *arguments, '-f', 'json'))}

    def name(self, number):
        return agent.vif(number).vif_name

    def lie(self, number=1, to=2):
        """Return a frame that no guest may send, nor get."""
        frame = agent.udp(number, to)
        frame[agent.inet.IP].src = agent.GATEWAY
        return frame

    def assert_open(self, *numbers):
        # The bridge is to know where it is.
        self.send(0, agent.arp(0))
        for number in self.NUMBERS:
            wanted = {0} if number in numbers else set()
            self.assertEqual(wanted, self.send(number, self.lie(number, 0)),
                             'what %d sends' % number)
            if self.is_of_agent:
                self.assertEqual(
                    {number} if number in numbers else set(),
                    self.send(0, agent.udp(0, number)), 'to %d' % number)

    @property
    def is_of_agent(self):
        return self.options.firewall == 'agent'

    def codes(self):
        return {(each.code, each.device)
                for each in audit.audit_links(inventory.read(self.options))
                if each.code in ('TM234', 'TM317')}


class SwitchTest(ExitTestCase):
    """Of guests that an agent has fed with nothing, or nobody has."""

    MODE = {}

    def setUp(self):
        super().setUp()
        self.configure(**self.MODE)
        self.start()
        if self.is_of_agent:
            self.feed()

    def test_one_port(self):
        self.assertEqual({ALL: 'on'}, self.filter())
        self.assert_open()
        self.assertEqual({ALL: 'on', self.name(1): 'off'},
                         self.filter('--off', self.name(1)))
        self.assert_open(1)
        self.assertEqual({ALL: 'on', self.name(1): 'off'}, self.filter())
        # Twice is once.
        self.filter('--off', agent.vif(1).id, self.name(2))
        self.assert_open(1, 2)
        self.filter('--on', self.name(1))
        self.assert_open(2)
        self.assertEqual({ALL: 'on'}, self.filter('--on', agent.vif(2).id))
        self.assert_open()

    def test_the_host(self):
        self.assertEqual({ALL: 'off'}, self.filter('--off'))
        self.assert_open(1, 2)
        # One that comes now, whom nobody knows, too.
        self.start(3)
        self.assertEqual({0}, self.send(3, self.lie(3, 0)))
        self.assertEqual({ALL: 'on'}, self.filter('--on'))
        self.assert_open()
        self.assertEqual(set(), self.send(3, self.lie(3, 0)))

    def test_both(self):
        self.filter('--off', self.name(1))
        self.filter('--off')
        self.assertEqual({ALL: 'on', self.name(1): 'off'},
                         self.filter('--on'))
        self.assert_open(1)

    def test_what_stays(self):
        self.configure(host_shield=True)
        self.start()
        self.send(0, agent.arp(0))
        for arguments in (), (self.name(1),):
            self.filter('--off', *arguments)
            here = self.lie(1, 0)
            here.dst = self.host.link(base.BRIDGE).mac
            reserved = self.lie(1, 0)
            reserved.dst = '01:80:c2:00:00:00'
            tagged = self.lie(1, 0)
            tagged.type = 0x8100
            for frame in here, reserved, tagged:
                self.assertEqual(set(), self.send(1, frame), frame.summary())
            if self.is_of_agent:
                tagged = agent.udp(0, 1)
                tagged.type = 0x8100
                self.assertEqual(set(), self.send(0, tagged))
            stolen = self.lie(1, 0)
            stolen.src = agent.mac(2)
            self.assertEqual(set(), self.send(1, stolen))
            self.assertEqual({0}, self.send(1, self.lie(1, 0)))
            self.filter('--on', *arguments)

    def test_tm234(self):
        self.assertEqual(set(), self.codes())
        self.filter('--off', self.name(1))
        self.assertEqual({('TM234', self.name(1))}, self.codes())
        found, = [each for each in audit.audit_links(
            inventory.read(self.options)) if each.code == 'TM234']
        self.assertEqual(['tapmac filter --on ' + self.name(1)],
                         found.remedy.commands)
        self.run_tapmac('audit', returncode=20)
        self.run_tapmac(*found.remedy.commands[0].split()[1:])
        self.assertEqual(set(), self.codes())

    def test_tm317(self):
        self.filter('--off')
        self.assertEqual({('TM317', 'nftables')}, self.codes())
        found, = [each for each in audit.audit_links(
            inventory.read(self.options)) if each.code == 'TM317']
        self.assertEqual(['tapmac filter --on'], found.remedy.commands)
        self.run_tapmac('audit', returncode=20)
        self.run_tapmac(*found.remedy.commands[0].split()[1:])
        self.assertEqual(set(), self.codes())

    def modes(self):
        return {each['TAP']: each['Mode'] for each in json.loads(
            self.run_tapmac('list', '-f', 'json'))}

    def test_mode(self):
        before = self.modes()
        self.filter('--off', self.name(1))
        self.assertEqual({**before, self.name(1): 'off'}, self.modes())
        self.assertIn('off', self.run_tapmac('show', self.name(1),
                                             returncode=20))
        self.filter('--off')
        self.assertEqual({'off'}, set(self.modes().values()))
        self.filter('--on', self.name(1))
        self.filter('--on')
        self.assertEqual(before, self.modes())

    def test_explain(self):
        self.filter('--off', self.name(1))
        self.assertIn('passes', self.run_tapmac(
            'explain', self.name(1), bytes(self.lie(1, 0)).hex()))
        self.run_tapmac('explain', self.name(2),
                        bytes(self.lie(2, 0)).hex(), returncode=10)

    def test_who_plugs_again(self):
        self.filter('--off', self.name(1))
        self.start()
        self.assert_open(1)
        # Hard reboot: its TAP is another one.
        index = self.index(1)
        self.guests.pop(1).close()
        self.unplug(agent.vif(1))
        self.assertEqual({ALL: 'on', None: 'off'}, self.filter())
        self.start(1)
        self.assertNotEqual(index, self.index(1))
        self.assertEqual({ALL: 'on', self.name(1): 'off'}, self.filter())
        self.assertEqual({0}, self.send(1, self.lie(1, 0)))
        self.unplug(agent.vif(1))
        self.assertEqual({ALL: 'on'}, self.filter('--on', agent.vif(1).id))

    def test_another_daemon(self):
        self.filter('--off')
        self.filter('--off', self.name(2))
        self.start_daemon()
        self.start()
        self.start(3)
        self.assert_open(1, 2)
        self.assertEqual({ALL: 'on', self.name(2): 'off'},
                         self.filter('--on'))
        self.assert_open(2)

    def damage(self):
        with nft.Session() as session:
            session.transact('', [nft.delete_rules(filter_table.NAME,
                                                   'guest_ip')])

    def test_a_table_that_is_made_anew(self):
        self.filter('--off')
        self.filter('--off', self.name(1))
        for spoil in self.damage, self.flush:
            self.start()
            self.assert_open(1, 2)
            spoil()
            self.start()
            self.assertTrue(self.is_right())
            self.assertEqual({ALL: 'off', self.name(1): 'off'},
                             self.filter())
            self.assert_open(1, 2)
        self.filter('--on')
        self.assert_open(1)

    def test_without_a_table(self):
        self.flush()
        self.assertEqual({ALL: 'off'}, self.filter('--off'))
        self.assertTrue(self.is_right())
        self.start()
        self.assert_open(1, 2)

    def test_an_older_table(self):
        before = emergency_exit.now()
        self.patch(emergency_exit.exit_rules, 'PORTS', 'of_tomorrow')
        self.assertRaises(emergency_exit.exception.TapMacError,
                          emergency_exit.switch_off,
                          emergency_exit.Exits(True))
        self.assertEqual(before, emergency_exit.now())

    @base.needs_real_root(base.SEVERAL_USERS)
    def test_refused(self):
        before = emergency_exit.now()
        for arguments, word in (
                (['--off', 'tap7'], 'tap7'), (['--on', 'tap7'], 'tap7'),
                (['--on', self.name(1)], 'is not off'),
                ([self.name(1)], '--off'), (['--off', '--on'], '--off'),
                (['--off', self.name(1), 'tap7'], 'tap7')):
            self.assertIn(word, self.run_tapmac('filter', *arguments,
                                                returncode=1))
        for arguments in [], ['--off'], ['--on']:
            self.assertIn('root', self.run_tapmac(
                'filter', *arguments, returncode=1, prefix=(
                    'setpriv', '--reuid=65534', '--clear-groups',
                    '--inh-caps=-all')))
        self.assertEqual(before, emergency_exit.now())
        self.filter('--off')
        self.assertIn('whole host', self.run_tapmac(
            'filter', '--on', self.name(1), returncode=1))


class FullTest(SwitchTest):
    """Of guests that are kept to their addresses."""

    MODE = dict(firewall='none', anti_spoofing='full')


class HealedTest(ExitTestCase):
    """The daemon of an agent never undoes it, and has it after a flush."""

    def setUp(self):
        super().setUp()
        self.start_daemon(privsep.filter)
        self.start()
        self.apply(*map(agent.port, self.NUMBERS), groups=(agent.group(),),
                   is_all=True)

    def flush_and_wait(self):
        self.flush()
        patience.wait_until(
            lambda: self.is_right() and len(self.there()['ingress']) == 2,
            'the flush is not undone')

    def test_a_flush(self):
        for arguments, its in (((), {}), ((self.name(1),),
                                          {self.name(1): 'off'})):
            self.filter('--off', *arguments)
            for _ in range(3):
                self.flush_and_wait()
                self.assertEqual({ALL: 'off', **its}, self.filter())
            self.assert_open(1, 2)
        self.filter('--on')
        self.flush_and_wait()
        self.assert_open(1)
        self.filter('--on', self.name(1))
        self.flush_and_wait()
        self.assert_open()

    def test_a_flush_at_once(self):
        """Nobody has looked in between."""
        its = {self.index(1): agent.vif(1).id}
        for number in range(patience.amount(10, 30, 200)):
            wanted = emergency_exit.Exits(bool(number % 2), its)
            emergency_exit.switch_off(wanted)
            emergency_exit.switch_on(emergency_exit.Exits(not number % 2))
            self.flush_and_wait()
            self.assertEqual(wanted, emergency_exit.now())

    def test_what_the_agent_says(self):
        self.filter('--off')
        self.feed(agent.rule('egress'))
        self.apply(*map(agent.port, self.NUMBERS), groups=(agent.group(),),
                   is_all=True)
        self.assert_open(1, 2)
        privsep.filter.stop()
        self.start_daemon(privsep.filter)
        self.apply(is_all=True)
        self.assert_open(1, 2)
        self.filter('--on')
        self.assert_open()
