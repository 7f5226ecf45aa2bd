# SPDX-License-Identifier: Apache-2.0

"""Whoever is asked may never answer: no command waits for that for long.

The libvirt here accepts connections and never says a word.
"""

import concurrent.futures
import json
import os
import pathlib
import pwd
import time

import fixtures

from tests import base
from tests.functional import test_operator
from tests import libvirt_domains
from tests import patience
from vif_plug_tapmac import bounded
from vif_plug_tapmac.cli import tap_table
from vif_plug_tapmac import exception
from vif_plug_tapmac.host import domains
from vif_plug_tapmac import users
from vif_plug_tapmac.wanted import from_config

_BOUND = 'within %g s' % bounded.SECONDS


class SilentLibvirtTest(test_operator.WatchingTestCase):

    def setUp(self):
        super().setUp()
        self.domains.define((base.TAP, base.GUEST_MAC, True, 1))
        self.plug()
        self.useFixture(libvirt_domains.Silent())

    def test_commands_go_on_without(self):
        commands = (('list',), ('show', base.TAP), ('audit',),
                    ('repair', '--dry-run'), ('repair',),
                    ('mac', '--reverse', base.TAP_MAC), ('purge',),
                    ('purge', '--dry-run', '--force'))
        path = '%s:%s' % (os.environ.get('PYTHONPATH', ''), base.CHECKOUT)
        nova_conf = test_operator.AuditTest.create_tempfiles(
            self, '[os_vif_tapmac]\n')
        with concurrent.futures.ThreadPoolExecutor(len(commands)) as pool:
            done = dict(zip(commands, pool.map(
                lambda command: base.run_command(
                    'main', '--config-file', nova_conf, *command,
                    '-f', 'json', PYTHONPATH=path),
                commands)))
        for command in commands:
            self.assertEqual(int(command[0] == 'purge'),
                             done[command].returncode, done[command])
            if command[0] != 'mac':  # It does not ask.
                self.assertIn(_BOUND, done[command].stderr)
        row, = json.loads(done['list',].stdout)
        self.assertEqual((None, False), (row['Domain'], row['Domain known']))
        self.assertIn('Nothing is removed', done['purge',].stderr)
        self.assertIsNotNone(self.host.find(base.TAP))

    def test_nobody_is_left_behind(self):
        before = self.host.processes()
        error = self.assertRaises(domains.Unknown, domains.answer)
        self.assertIn(_BOUND, str(error))
        self.assertRaises(domains.Unknown, domains.version)
        self.assertEqual(before, self.host.processes())


class SilentDirectoryTest(base.TestCase):
    """NSS asks a directory of users that never answers."""

    def setUp(self):
        super().setUp()
        for function in 'getpwnam', 'getpwuid':
            self.patch(pwd, function, lambda _: time.sleep(patience.HANG))
        self.patch(users, '_silent', (0.0, ''))
        for cache in from_config._uid, tap_table._name_of:
            cache.cache_clear()
            self.addCleanup(cache.cache_clear)
        self.asked = 0
        question = bounded.Question

        def ask(*args, **kwargs):
            self.asked += 1
            return question(*args, **kwargs)
        self.patch(bounded, 'Question', ask)

    def refusal(self, owner):
        self.configure(owner=owner)
        return str(self.assertRaises(
            exception.InvalidConfig, from_config.port_fields, self.options))

    def test_owner(self):
        for _ in range(20):  # One wait for all plugs.
            said = self.refusal('somebody-far-away')
        for words in 'owner = somebody-far-away', _BOUND, 'Have the uid':
            self.assertIn(words, said)
        self.assertEqual(1, self.asked)

    def test_names_of_owners(self):
        self.assertEqual(['1000000', '1000001', '1000002'], [
            tap_table.user(uid) for uid in range(1000000, 1000003)])
        self.assertIn(_BOUND, self.logs.output)

    def test_users_of_the_host_need_no_directory(self):
        for _ in range(3):
            self.configure(owner='root')
            self.assertEqual(0, from_config.port_fields(self.options)['owner'])
        self.assertEqual('root', tap_table.user(0))
        self.assertNotIn(_BOUND, self.logs.output)


class DirectoryTest(base.TestCase):
    """What it does say is taken."""

    def setUp(self):
        super().setUp()
        empty = self.useFixture(fixtures.TempDir()).path
        # No user is one of the host's own.
        self.patch(users, '_FILE', str(pathlib.Path(empty, 'none')))

    def test_known(self):
        self.assertEqual((0, 'root'), (users.uid_of('root'),
                                       users.name_of(0)))

    def test_unknown(self):
        self.assertEqual((None, None), (users.uid_of('no-such-user'),
                                        users.name_of(2 ** 32 - 2)))

    def test_a_tap_that_is_held_here_is_not_held_there(self):
        """The process that asks has none of our descriptors."""
        reader, writer = os.pipe()
        question = bounded.Question(time.sleep, patience.HANG)
        os.close(writer)
        self.assertEqual(b'', os.read(reader, 1))
        os.close(reader)
        question.end()


class VanishingDomainTest(test_operator.OperatorTestCase):

    def test_only_that_one_is_passed_over(self):
        self.domains.define((base.TAP, base.GUEST_MAC, True, 1),
                            ('tap00000001', 'fa:16:3e:00:00:01', True, 1),
                            ('tap00000002', 'fa:16:3e:00:00:02', False, 2))
        libvirt = libvirt_domains.import_libvirt()
        self.patch(libvirt, 'openReadOnly', libvirt.open)
        real = libvirt.virConnect.listAllDomains

        def list_and_lose_one(connection):
            found = real(connection)
            gone = connection.lookupByName(self.domains.of('tap00000001'))
            gone.destroy()
            gone.undefine()
            return found
        self.patch(libvirt.virConnect, 'listAllDomains', list_and_lose_one)
        found = domains.answer()
        self.assertEqual(2, found.domains)
        self.assertEqual(
            {base.TAP: 1, 'tap00000002': 2},
            {name: nic.queues for name, nic in found.nics.items()})
