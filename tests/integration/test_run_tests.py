# SPDX-License-Identifier: Apache-2.0

"""What tools/test.sh says of tests, and what its exit status is.

Its runner runs a suite of a few tests, each of which ends in another way.
"""

import os
import pathlib
import subprocess
import sys
import textwrap

import fixtures

from tests import base
from tests import hosts
from tests import situations

_RUNNER = base.CHECKOUT / 'tools/run_tests.py'


class RunTestsTest(base.TestCase):

    def setUp(self):
        super().setUp()
        # Who changes tools/ runs them.
        self.only_in_full()
        self.checkout = pathlib.Path(
            self.useFixture(fixtures.TempDir()).path)
        (self.checkout / '.venv/test').mkdir(parents=True)
        (self.checkout / '.venv/test/bin').symlink_to(sys.prefix + '/bin')
        (self.checkout / 'tests').mkdir()
        (self.checkout / 'tests/__init__.py').touch()

    def suite(self, name, *bodies, package=''):
        """Have a module of tests with these bodies."""
        lines = ['import os, unittest', 'class T(unittest.TestCase):']
        for number, body in enumerate(bodies):
            lines += ['    def test_%d(self):' % number,
                      textwrap.indent(body, 8 * ' ')]
        path = self.checkout / 'tests' / package / ('test_%s.py' % name)
        path.parent.mkdir(exist_ok=True)
        (path.parent / '__init__.py').touch()
        path.write_text('\n'.join(lines))

    def run_tests(self, *arguments, status, groups=('test',), **environment):
        """Return what it says; its exit status must be this."""
        environment = dict(
            os.environ, PYTHONPATH=str(self.checkout), **environment)
        for name in 'TAPMAC_ALL', 'TAPMAC_NO_SKIP':
            if name not in arguments:
                environment.pop(name, None)
        done = subprocess.run(
            [sys.executable, _RUNNER,
             *(word for word in arguments if word.startswith('--')),
             '--groups', *groups, '--',
             *(word for word in arguments if not word.startswith('--'))],
            cwd=self.checkout, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.assertEqual(status, done.returncode, done.stdout)
        return done.stdout

    def test_all_passed(self):
        self.suite('good', 'pass', 'pass')
        said = self.run_tests(status=0)
        self.assertIn('\n2 passed, 0 failed, 0 skipped, in 0:', said)

    def test_failure_is_named_with_the_way_to_it(self):
        self.suite('bad', 'pass', 'self.fail("for this reason")')
        said = self.run_tests(status=1)
        test = 'tests.test_bad.T.test_1'
        self.assertIn('FAILED %s (test)' % test, said)
        self.assertIn("again: tools/test.sh --only test '%s$'" % test, said)
        self.assertIn('log:   .venv/log/test', said)
        self.assertIn('\n    | AssertionError: for this reason\n', said)
        self.assertIn('\n1 passed, 1 failed, 0 skipped', said)
        self.assertIn('for this reason', (
            self.checkout / '.venv/log/test').read_text())

    def test_command_that_runs_it_again_runs_just_that(self):
        self.suite('bad', 'self.fail()', 'self.fail()', *9 * ['pass'])
        said = self.run_tests('tests.test_bad.T.test_1$', status=1)
        self.assertIn('\n0 passed, 1 failed, 0 skipped', said)

    def test_failure_is_told_before_the_end(self):
        # The second test waits until the first one was told.
        self.suite('bad', 'self.fail()',
                   'import time\n'
                   'while not os.path.exists("told"): time.sleep(0.01)')
        with subprocess.Popen(
                [sys.executable, _RUNNER, '--groups', 'test'],
                cwd=self.checkout, text=True, stdout=subprocess.PIPE,
                env=dict(os.environ, PYTHONPATH=str(self.checkout))) as runner:
            for line in runner.stdout:
                if 'FAILED' in line:
                    (self.checkout / 'told').touch()
            self.assertEqual(1, runner.wait())

    def test_python_that_makes_environments_does_not_run_the_tests(self):
        self.suite('good', 'pass')
        self.run_tests(status=0, PYTHON='/nowhere/python3')

    def test_skips_are_summed_by_reason(self):
        self.suite('skipped', *2 * ['self.skipTest("needs a moon")'],
                   'self.skipTest("needs a sun")', 'pass')
        said = self.run_tests(status=0)
        self.assertIn('skipped 2: needs a moon\nskipped 1: needs a sun\n',
                      said)
        self.assertIn('\n1 passed, 0 failed, 3 skipped', said)

    def test_skipped_wherever_it_was(self):
        self.suite('skipped', 'self.skipTest("needs a moon")', 'pass')
        said = self.run_tests('--each-somewhere', status=1)
        self.assertIn('FAILED tests.test_skipped.T.test_0 (test): skipped '
                      'wherever it was', said)
        self.assertIn('\n1 passed, 1 failed, 1 skipped', said)

    def test_skipped_here_and_run_there(self):
        self.suite('skipped', textwrap.dedent("""\
            try:
                os.mkdir('where-it-was-first')
            except FileExistsError:
                pass
            else:
                self.skipTest('needs a moon')"""))
        (self.checkout / '.venv/other').mkdir()
        (self.checkout / '.venv/other/bin').symlink_to(sys.prefix + '/bin')
        said = self.run_tests('--each-somewhere', status=0,
                              groups=('test', 'other'))
        self.assertIn('\n1 passed, 0 failed, 1 skipped', said)
        self.assertNotIn('in no group', said)

    def test_on_other_kernels(self):
        """What none could run here, and what matters most; else all."""
        self.suite('plug', 'pass', package='functional')
        self.suite('shield', 'pass',
                   'os.environ.get("KERNEL") or self.skipTest("too old")',
                   package='functional')
        self.suite('other', 'pass')
        for name in 'lib', 'pyvenv.cfg':
            (self.checkout / '.venv/test' / name).symlink_to(
                os.path.join(sys.prefix, name))
        script = self.checkout / 'tools/kernel.sh'
        script.parent.mkdir()
        # It is this one.
        script.write_text('#!/bin/sh\nKERNEL=$3 exec sh -c "$(echo "$4" | '
                          'sed s,/run/kept/said,/dev/null,)"\n')
        script.chmod(0o755)
        for environment, passed in (
                ({}, 3 + 2), ({'TAPMAC_LONG': '1'}, 3 + 3)):
            said = self.run_tests('--each-somewhere', '--kernels=6.1',
                                  status=0, **environment)
            self.assertIn('\n%d passed, 0 failed, 1 skipped' % passed, said)
            self.assertIn('kernel-6.1-0: ', said)
            self.assertIn('kernel-6.1-1: ', said)

    def test_what_no_group_ran_is_said(self):
        self.suite('skipped', *2 * ['self.skipTest("needs a moon")'], 'pass')
        (self.checkout / '.venv/other').mkdir()
        (self.checkout / '.venv/other/bin').symlink_to(sys.prefix + '/bin')
        said = self.run_tests(status=0, groups=('test', 'other'))
        self.assertIn('skipped 4: needs a moon\n'
                      'in no group 2: needs a moon\n', said)
        self.assertNotIn('in no group', self.run_tests(status=0))

    def test_nothing_passed(self):
        self.suite('skipped', 'self.skipTest("needs a moon")')
        self.run_tests(status=1)
        self.run_tests('no.such.test', status=1)

    def test_worker_that_dies(self):
        self.suite('dying', 'os.write(2, b"for this reason\\n")',
                   'os._exit(0)')
        said = self.run_tests(status=1)
        self.assertIn('FAILED tests.test_dying.T.test_1 (test): never ended',
                      said)
        self.assertIn('\n    | for this reason\n', said)

    def test_module_that_cannot_be_imported(self):
        self.suite('good', 'pass')
        (self.checkout / 'tests/test_bad.py').write_text('import nowhere')
        said = self.run_tests(status=1)
        self.assertIn('FAILED test: ', said)
        self.assertIn("    | ModuleNotFoundError: No module named 'nowhere'",
                      said)
        self.assertIn('nowhere', (
            self.checkout / '.venv/log/test').read_text())

    def run_in(self, situation):
        """Return what the runner says there; all must be well.

        The one test needs root and its capabilities, or is skipped.
        """
        missing = hosts.missing_privilege() or situations.missing()
        if missing:
            self.cannot_run(missing)
        self.suite('good', 'pass', """\
lines = open('/proc/self/status').read().splitlines()
if 'CapEff:\\t0000000000000000' in lines:
    self.skipTest('needs capabilities')
self.assertEqual(0, os.getuid())
""")
        for path in (self.checkout, self.checkout / '.venv',
                     self.checkout / '.venv/test'):
            path.chmod(0o777)
        done = subprocess.run(
            [*situations.command(situation), 'sh', '-c', 'cd %s && exec "$@"'
             % self.checkout, 'sh', sys.executable, _RUNNER, '--groups',
             'test', '--'], cwd=base.CHECKOUT, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=dict(os.environ, PYTHONWARNINGS='ignore'))
        self.assertEqual(0, done.returncode, done.stdout)
        return done.stdout

    @base.needs_real_root(base.SEVERAL_USERS)
    def test_ordinary_user_has_a_user_namespace(self):
        said = self.run_in('user')
        self.assertIn('\n2 passed, 0 failed, 0 skipped', said)

    def test_root_in_a_container_has_none(self):
        said = self.run_in('container')
        self.assertNotIn('user namespace', said)
        self.assertRegex(said, r'\n(1|2) passed, 0 failed')

    def test_check_that_fails(self):
        self.suite('good', 'pass')
        done = subprocess.run(
            [sys.executable, _RUNNER, '--checks', 'docs', '--groups', 'test'],
            cwd=self.checkout, text=True, stdout=subprocess.PIPE,
            env=dict(os.environ, PYTHONPATH=str(self.checkout)))
        self.assertEqual(1, done.returncode)  # There is no tools/docs.sh.
        self.assertIn('again: tools/test.sh --only docs', done.stdout)
        self.assertIn('1 passed, 1 failed', done.stdout)
