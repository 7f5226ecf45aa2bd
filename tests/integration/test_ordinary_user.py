# SPDX-License-Identifier: Apache-2.0

"""The functional tests, run by an ordinary user: all pass, or are skipped.

What a test needs that is not to be had in a user namespace is marked at it;
root, who decides what lands, would never miss a mark. Nor a directory in PATH:
here it is what Debian gives an ordinary user.
"""

import os
import pathlib
import subprocess
import sys

import fixtures

from tests import base
from tests import hosts
from tests import situations

#: Source: /etc/profile of Debian, for all but root
_PATH = '/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games'


class OrdinaryUserTest(base.TestCase):

    @base.needs_real_root(base.SEVERAL_USERS)
    def test_functional_tests(self):
        self.only_in_full()
        missing = hosts.missing_privilege() or situations.missing()
        if missing:
            self.cannot_run(missing)
        copy = pathlib.Path(
            self.useFixture(fixtures.TempDir()).path, 'checkout')
        base.copy_checkout(copy)
        venv = copy / '.venv/test'
        venv.mkdir(parents=True)
        (venv / 'bin').symlink_to(sys.prefix + '/bin')
        for path in copy.parent, copy, venv.parent, venv:
            path.chmod(0o777)
        environment = dict(
            os.environ, PATH=_PATH, PYTHONWARNINGS='ignore',
            PYTHONPATH=str(copy), PYTHONDONTWRITEBYTECODE='1')
        for name in 'TAPMAC_ALL', 'TAPMAC_LONG', 'TAPMAC_NO_SKIP':
            environment.pop(name, None)
        done = subprocess.run(
            [*situations.command('user'), 'sh', '-c',
             'cd %s && . tools/venv.sh && exec "$@"' % copy, 'sh',
             sys.executable, 'tools/run_tests.py', '--groups', 'test', '--',
             'tests.functional'], cwd=base.CHECKOUT, env=environment,
            text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.assertEqual(0, done.returncode, done.stdout)
        self.assertIn('needs real root: several users', done.stdout)
