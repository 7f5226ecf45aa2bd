# SPDX-License-Identifier: Apache-2.0

"""Whoever is asked may never answer: no command waits for that for long.

The libvirt here accepts connections and never says a word.
"""

import concurrent.futures
import contextlib
import io
import json
import logging
import os
import pathlib
import pwd
import sys
import time

import fixtures

from tests import base
from tests.functional import test_operator
from tests import libvirt_domains
from tests import patience
from vif_plug_tapmac import bounded
from vif_plug_tapmac.cli import main
from vif_plug_tapmac.cli import status
from vif_plug_tapmac.cli import tap_table
from vif_plug_tapmac import exception
from vif_plug_tapmac.host import domains
from vif_plug_tapmac.host import inventory
from vif_plug_tapmac import mark
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
                first, *others = done[command].stderr.splitlines()
                self.assertIn(_BOUND, first)
                self.assertNotIn('libvirt does not', ''.join(others))
        row, = json.loads(done['list',].stdout)
        self.assertEqual((None, False), (row['Domain'], row['Domain known']))
        self.assertIn('Nothing is removed', done['purge',].stderr)
        self.assertIsNotNone(self.host.find(base.TAP))

    def test_nobody_is_left_behind(self):
        self.only_in_full()
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
        self.only_in_full()
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


class ProgramTest(base.TestCase):
    """A program is asked, that answers, fails, hangs, or is not there."""

    def test_says(self):
        self.assertEqual('one\ntwo\n', bounded.run(
            'sh', '-c', 'echo one; cat; echo no >&2; echo two'))

    def test_fails(self):
        error = self.assertRaises(bounded.Failed, bounded.run, 'sh', '-c',
                                  'echo yes; echo why >&2; exit 3')
        self.assertEqual('sh: why', str(error))

    def test_hangs(self):
        # With what it has started.
        error = self.assertRaises(bounded.Unanswered, bounded.run, 'sh', '-c',
                                  'sleep 10000; true', seconds=0.1)
        self.assertEqual('sh: no answer within 0.1 s', str(error))

    def test_is_not_there(self):
        for path in None, '/nowhere':
            error = self.assertRaises(bounded.Unanswered, bounded.run,
                                      'no-such-program', path=path)
            self.assertIn('is not there', str(error))


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


class DoubtTest(test_operator.OperatorTestCase):
    """What libvirt does not tell is said in the first line, and once."""

    #: The binding, but for what follows.
    _BINDING = """
import importlib.machinery, os, sys
_place = importlib.machinery.PathFinder.find_spec('libvirt', [
    path for path in sys.path if path != os.path.dirname(__file__)])
exec(compile(open(_place.origin).read(), _place.origin, 'exec'))
%s
"""
    _COMMANDS = (('list',), ('show', base.TAP), ('audit',),
                 ('repair', '--dry-run'), ('purge', '--dry-run'))

    def setUp(self):
        super().setUp()
        self.plug()
        self.hold()
        self.domains.define((base.TAP, base.GUEST_MAC, True, 1),
                            ('vnet0', 'fa:16:3e:00:00:01', True, 1),
                            ('vnet1', 'fa:16:3e:00:00:02', True, 1))
        self.path = sys.path
        self.conf = '[os_vif_tapmac]\n[libvirt]\nconnection_uri = %s\n' % (
            self.domains.uri)

    def run_here(self, *arguments):
        """Run a command in this process; return what it prints."""
        path = test_operator.AuditTest.create_tempfiles(self, self.conf)
        root = logging.getLogger()
        handlers, level = root.handlers[:], root.level
        printed, said = io.StringIO(), io.StringIO()
        inventory._warn.cache_clear()
        try:
            with (contextlib.redirect_stdout(printed),
                  contextlib.redirect_stderr(said)):
                self.returncode = main.TapMacApp().run(
                    ['--config-file', path, *arguments])
        finally:
            root.handlers[:] = handlers
            root.setLevel(level)
        self.said = said.getvalue()
        self.assertNotIn('Traceback', self.said)
        return printed.getvalue()

    def assert_said(self, *words):
        """Expect one line about it, and that one first."""
        lines = self.said.splitlines()
        self.assertEqual(lines[:1], [
            line for line in lines if line.startswith('libvirt')
            and not line.endswith(' domains.')])
        for word in words:
            self.assertIn(word, lines[0])

    def write_binding(self, code):
        """Have this for the binding, in processes that did not load it."""
        place = self.useFixture(fixtures.TempDir()).path
        pathlib.Path(place, 'libvirt.py').write_text(code)
        self.patch(sys, 'path', [place, *self.path])
        self.patch(sys, 'modules', {
            name: module for name, module in sys.modules.items()
            if name != 'libvirt'})

    def test_one_domain_that_can_not_be_read(self):
        for code, words in (
                ('def _fail(self, flags):\n'
                 '    if self.name() == "guest-of-vnet0":\n'
                 '        raise libvirtError("it is broken")\n'
                 '    return _real(self, flags)', 'it is broken'),
                ('def _fail(self, flags):\n'
                 '    text = _real(self, flags)\n'
                 '    return text[self.name() == "guest-of-vnet0":]',
                 'not understood')):
            self.write_binding(self._BINDING % (
                '_real = virDomain.XMLDesc\n%s\n'
                'virDomain.XMLDesc = _fail' % code))
            for arguments in self._COMMANDS:
                self.run_here(*arguments)
                self.assert_said('does not tell what 1 of its 3 domains have',
                                 'guest-of-vnet0', words)
                self.assertEqual(int(arguments[0] == 'purge'),
                                 self.returncode, self.said)
            self.assertIn('Nothing is removed', self.said)

    def test_tap_that_may_be_of_a_domain_that_can_not_be_read(self):
        self.write_binding(self._BINDING % (
            'def _fail(self, flags):\n    raise libvirtError("broken")\n'
            'virDomain.XMLDesc = _fail'))
        self.host.set(base.TAP, ifalias=str(mark.TapMark(
            base.VIF_ID, base.GUEST_MAC, base.BRIDGE, 1000000000)))
        row, = json.loads(self.run_here('list', '-f', 'json'))
        self.assertEqual((None, False), (row['Domain'], row['Domain known']))
        self.assertNotIn('TM210', self.run_here('audit'))

    def test_no_binding(self):
        self.write_binding('raise ImportError("none")')
        for arguments in self._COMMANDS:
            self.run_here(*arguments)
            self.assert_said('does not answer', 'libvirt-python',
                             'not installed')

    def test_other_than_that_of_the_service(self):
        self.conf = '[os_vif_tapmac]\n'
        for arguments in self._COMMANDS:
            self.run_here(*arguments)
            self.assert_said('%s is asked, by LIBVIRT_DEFAULT_URI'
                             % self.domains.uri,
                             'nova-compute asks qemu:///system')

    def test_none_of_ours(self):
        self.domains.define(('vnet0', 'fa:16:3e:00:00:01', True, 1))
        for arguments in self._COMMANDS:
            self.run_here(*arguments)
            self.assert_said(self.domains.uri, 'no domain with a TAP of '
                             'tapmac', 'connection_uri')

    def test_nothing_to_doubt(self):
        for arguments in self._COMMANDS:
            self.run_here(*arguments)
            self.assertEqual(['libvirt %s has 3 domains.' % self.domains.uri]
                             if arguments[0] == 'purge' else [],
                             self.said.splitlines())

    def test_status(self):
        self.write_binding('raise ImportError("none")')
        self.patch(status, '_nova_release', lambda: 33)
        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            self.assertIsNone(status._libvirt_version())
        line, = said.getvalue().splitlines()
        self.assertIn('libvirt-python', line)
