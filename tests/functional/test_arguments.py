# SPDX-License-Identifier: Apache-2.0

"""What is refused is one sentence and exit status 1, whatever is wrong.

Test strategy: wrong values are made of the parsers of all commands, so that an
option that is new is tried, too. Each command line runs in a process, forked
from one in which everything is loaded.
"""

import argparse
import importlib.metadata
import json
import os
import re
import subprocess
import sys

import fixtures

from tests import base
from tests.functional import test_operator
from tests import patience
from vif_plug_tapmac.cli import main

# Reads a list of command lines; writes what came of each: exit status,
# standard output and error.
_RUN_ALL = '''
import json, os, sys, tempfile
from vif_plug_tapmac.cli import main
import importlib.metadata
for entry in importlib.metadata.entry_points(group='vif_plug_tapmac.cli'):
    entry.load()
done = []
for line in json.load(sys.stdin):
    files = [tempfile.TemporaryFile('w+', errors='replace') for _ in range(2)]
    child = os.fork()
    if child == 0:
        for number, opened in enumerate(files, 1):
            os.dup2(opened.fileno(), number)
        sys.argv[1:] = line
        status = 70
        try:
            status = main.main()
        except SystemExit as end:
            status = end.code
        except BaseException:
            import traceback
            traceback.print_exc()
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(status or 0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    texts = []
    for opened in files:
        opened.seek(0)
        texts.append(opened.read())
    done.append((status, *texts))
json.dump(done, sys.stdout)
'''
#: Wrong wherever something is looked for, or has a form.
_WRONG = ('', ' ', '-', 'nosuch', 'no such', '-1', 'nan', '1e999', '0x1',
          '9' * 5000, 'a/b', '\udcff\udcfe', 'x\ny', '%s', '../../etc',
          'x' * 300)
#: Any text is right here, or it is not looked at.
_FREE = {'--sort-column', '--name', '--prefix', '--variable'}
#: Of cliff's, in each command: they are tried in one.
_COMMON = {'--format', '--quote', '--max-width'}
_BY_HAND = ['--bridge', base.BRIDGE, '--mac', base.GUEST_MAC]
#: What a command has to be given besides.
_NEEDED = {'plug': _BY_HAND, 'unplug': _BY_HAND[2:], 'show': ['lo'],
           'explain': ['lo', '00'],
           'mac': [base.GUEST_MAC], 'repair': [], 'purge': [],
           'help': [], 'complete': []}


class ArgumentsTest(test_operator.OperatorTestCase):

    def run_all(self, lines):
        """Run command lines; yield each with its outcome."""
        done = subprocess.run(
            [sys.executable, '-W', 'ignore', '-c', _RUN_ALL],
            input=json.dumps(lines), text=True, capture_output=True,
            env=dict(os.environ, PYTHONPATH='%s:%s' % (
                os.environ.get('PYTHONPATH', ''), base.CHECKOUT)))
        self.assertEqual(0, done.returncode, done.stderr)
        return zip(lines, json.loads(done.stdout))

    def assert_refused(self, lines):
        before, wrong = self.host.state(), []
        for line, (status, told, said) in self.run_all(lines):
            # That libvirt does not answer is no part of it.
            sentences = [each for each in said.splitlines()
                         if not each.startswith('libvirt ')]
            if (status, told, len(sentences)) != (1, '', 1) or (
                    'Traceback' in said):
                wrong.append((line, status, told, said))
        self.assertEqual([], wrong)
        self.assertEqual(before, self.host.state())

    def parsers(self):
        app = main.TapMacApp()
        for entry in importlib.metadata.entry_points(
                group='vif_plug_tapmac.cli'):
            yield entry.name, entry.load()(app, argparse.Namespace(
                config_file=[])).get_parser('tapmac ' + entry.name)

    def wrong_options(self):
        configuration = list(self.configuration(self.domains.uri))
        common = set(_COMMON)
        for name, parser in self.parsers():
            needed = _NEEDED.get(name, [])
            for action in parser._actions:
                option = (action.option_strings or [None])[-1]
                if action.nargs == 0 or option in _FREE or (
                        option in _COMMON and option not in common):
                    continue
                common.discard(option)
                for value in _WRONG[::patience.amount(9, 4, 1)]:
                    if _is_right(name, action, value):
                        continue
                    if option is None:
                        # After it, for all but the first: "-1" is no option.
                        given = [each for each in needed
                                 if each not in _NEEDED['mac'] + ['lo']]
                        yield [*configuration, name, *given, '--', value]
                    elif value.startswith('-') or option not in needed:
                        yield [*configuration, name, *needed,
                               '%s=%s' % (option, value)]
                    else:
                        at = needed.index(option)
                        yield [*configuration, name, *needed[:at], option,
                               value, *needed[at + 2:]]
                if option is not None:
                    yield [*configuration, name, *needed, option]
            yield [*configuration, name, *needed, '--nosuch']

    def test_wrong_values_of_every_option(self):
        self.plug(base.numbered_vif(1))
        lines = list(self.wrong_options())
        self.assertLess(patience.amount(60, 100, 100), len(lines))
        self.assert_refused(lines)

    def test_commands_and_options_of_all(self):
        directory = self.useFixture(fixtures.TempDir()).path
        wrong = directory + '/wrong'
        with open(wrong, 'wb') as opened:
            opened.write(b'\xff\xfe\0[')
        lines = [['nosuch'], ['nosuch', '--help'], ['help', 'nosuch'],
                 ['--nosuch', 'list'], ['--config-file'], ['-q', '-v', 'list'],
                 ['complete', '--shell', 'nosuch'], [''], ['-'],
                 ['--log-file', '/nosuch/log', 'list'],
                 ['--log-file', '/', 'list'], ['mac'], ['show'], ['plug']]
        lines += [['--config-file', path, command, *arguments]
                  for path in ('', '/nosuch', directory, wrong)
                  for command, arguments in (
                      ('list', []), ('repair', []), ('plug', _BY_HAND))]
        self.assert_refused(lines)


def _is_right(command, action, value):
    """Return whether a value is right there, or means something else."""
    option = (action.option_strings or [None])[-1]
    if option is None:
        # What is given twice is for argparse; nothing given is all of them.
        return False
    if option == '--max-width' and value == '-1':
        return True
    # A bridge can be called so, and is made.
    if (command, option) == ('plug', '--bridge') and re.fullmatch(
            '[a-z0-9]{1,15}', value):
        return True
    # That there is nothing to unplug is said, and is success.
    if (command, option) == ('unplug', '--bridge'):
        return True
    return option == '--format' and not value


class StandardFilesTest(test_operator.OperatorTestCase):
    """Whoever runs a command may not care for what it says, or not listen."""

    def shell(self, redirection, *arguments):
        done = subprocess.run(
            ['sh', '-c', '"$@" ' + redirection, 'sh', sys.executable, '-W',
             'ignore', '-c', 'import sys; from vif_plug_tapmac.cli import '
             'main; sys.exit(main.main())', *arguments], text=True,
            capture_output=True, stdin=subprocess.DEVNULL,
            env=dict(os.environ, PYTHONPATH='%s:%s' % (
                os.environ.get('PYTHONPATH', ''), base.CHECKOUT)))
        return done.returncode, done.stdout, done.stderr

    def test_no_standard_output(self):
        self.plug()
        self.host.set(base.TAP, address='02:00:00:00:00:07')
        before = self.host.state()
        for command in ('list',), ('--help',), ('audit', '-f', 'json'), (
                *self.configuration(self.domains.uri), 'repair'):
            self.assertEqual((1, '', ''), self.shell('>&-', *command))
        self.assertEqual(before, self.host.state())

    def test_full(self):
        for command in ('mac', base.GUEST_MAC), ('--help',):
            status, told, said = self.shell('> /dev/full', *command)
            self.assertEqual((1, '', 1), (status, told, said.count('\n')))
            self.assertIn('No space left on device', said)

    def test_nobody_reads(self):
        status, told, said = self.shell(
            '| true; sleep 0', 'mac', base.GUEST_MAC)
        self.assertEqual(('', ''), (told, said))
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run(
            [sys.executable, '-W', 'ignore', '-c', 'import sys; from '
             'vif_plug_tapmac.cli import main; sys.exit(main.main())', 'mac',
             base.GUEST_MAC], stdout=writer, stderr=subprocess.PIPE,
            env=dict(os.environ, PYTHONPATH=str(base.CHECKOUT)))
        os.close(writer)
        self.assertEqual((141, b''), (done.returncode, done.stderr))

    def test_no_other_files(self):
        status, told, said = self.shell(
            '<&- 2>&-', 'mac', base.GUEST_MAC, '-f', 'value')
        self.assertEqual((0, ''), (status, said))
        self.assertIn(base.TAP_MAC, told)

    def test_alone(self):
        alone, asked = (self.shell('| cat', *arguments)
                        for arguments in ((), ('--help',)))
        self.assertEqual(asked, alone)
        self.assertIn('\n  audit ', alone[1])
        self.assertEqual(0, self.shell('> /dev/null')[0])
