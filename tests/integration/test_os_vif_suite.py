# SPDX-License-Identifier: Apache-2.0

"""os-vif's own tests: the same with us installed, when nothing is claimed."""

import json
import os
import pathlib
import subprocess
import sys

import fixtures

from tests import base
from tests import hosts


#: Prints how each test of os-vif ended, and where its plugins come from.
_SUITE = '''
import importlib.util
import json
import os
import sys
import unittest

import os_vif


class Result(unittest.TestResult):
    outcomes = {}

    def startTest(self, test):
        super().startTest(test)
        self.outcomes.setdefault(test.id(), 'passed')

    def addError(self, test, error):
        super().addError(test, error)
        self.outcomes[test.id()] = self.errors[-1][1]

    def addFailure(self, test, error):
        super().addFailure(test, error)
        self.outcomes[test.id()] = self.failures[-1][1]

    def addSkip(self, test, reason):
        self.outcomes[test.id()] = 'skipped'


result = Result()
for package in ('os_vif', 'vif_plug_linux_bridge', 'vif_plug_noop',
                'vif_plug_ovs'):
    found = importlib.util.find_spec(package)
    if found:
        directory = os.path.dirname(found.origin)
        unittest.TestLoader().discover(
            os.path.join(directory, 'tests', 'unit'),
            top_level_dir=os.path.dirname(directory)).run(result)
os_vif.initialize(reset=True)
json.dump({'outcomes': result.outcomes,
           'plugins': {each.name: type(each.obj).__module__
                       for each in os_vif._EXT_MANAGER}}, sys.stdout)
'''


class OsVif4Test(base.TestCase):

    VERSION = '4.3.1'
    NEEDS_PYTHON = (3, 10)

    def setUp(self):
        super().setUp()
        self.only_in_full()
        self.python = (base.CHECKOUT / '.venv' / ('os-vif-' + self.VERSION)
                       / 'bin' / 'python')
        if sys.version_info < self.NEEDS_PYTHON:
            self.cannot_run('os-vif %s needs Python %d.%d or newer' % (
                self.VERSION, *self.NEEDS_PYTHON))
        if not self.python.exists():
            self.cannot_run('needs .venv/os-vif-%s: run tools/peers.sh'
                            % self.VERSION)
        if not (base.CHECKOUT / '.git').exists():
            self.cannot_run('needs a git checkout')
        self.directory = pathlib.Path(
            self.useFixture(fixtures.TempDir()).path)

    def install(self):
        """Install us where nothing else is; return the directory.

        What we need for plugging comes with os-vif.
        """
        clone, target = self.directory / 'clone', self.directory / 'target'
        self.run_command('git', 'clone', '-q', str(base.CHECKOUT), str(clone))
        self.run_command(sys.executable, '-m', 'pip', 'install', '-q',
                         '--no-deps', '--target', str(target), str(clone))
        return target

    def run_command(self, *command, **environment):
        done = hosts.at_home(
            subprocess.run, command, cwd=self.directory, text=True,
            capture_output=True,
            env=dict(os.environ, PYTHONWARNINGS='ignore', **environment))
        self.assertEqual(0, done.returncode, done.stdout + done.stderr)
        return done.stdout

    def run_suite(self, **environment):
        return json.loads(self.run_command(
            str(self.python), '-c', _SUITE, **environment))

    def test_same_with_us_installed(self):
        without = self.run_suite()
        with_us = self.run_suite(PYTHONPATH=str(self.install()))
        self.assertGreater(len(without['outcomes']), 100)
        self.assertEqual({'passed'}, set(without['outcomes'].values()))
        self.assertEqual(without['outcomes'], with_us['outcomes'])
        self.assertNotIn('tapmac', without['plugins'])
        self.assertEqual(
            dict(without['plugins'], tapmac='vif_plug_tapmac.plugin'),
            with_us['plugins'])


class OsVif5Test(OsVif4Test):

    VERSION = '5.3.0'
    NEEDS_PYTHON = (3, 11)
