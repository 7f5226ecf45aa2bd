# SPDX-License-Identifier: Apache-2.0

"""Tests that build something of what is committed here."""

import configparser
import os
import pathlib
import subprocess

import fixtures

from tests import base
from tests import hosts


def metadata() -> configparser.ConfigParser:
    """Return setup.cfg."""
    read = configparser.ConfigParser(interpolation=None)
    read.read(base.CHECKOUT / 'setup.cfg')
    return read


def version() -> str:
    """Return the next version to be released."""
    return metadata()['metadata']['version']


class BuildingTestCase(base.TestCase):
    """A test with a clone of this checkout, of its last commit."""

    def setUp(self) -> None:
        super().setUp()
        if not (base.CHECKOUT / '.git').exists():
            self.cannot_run('needs a git checkout')
        self.temporary = pathlib.Path(self.useFixture(
            fixtures.TempDir()).path)
        self.clone = self.temporary / 'clone'
        self.run_command('git', 'clone', '-q', str(base.CHECKOUT),
                         str(self.clone), cwd=base.CHECKOUT)

    def run_command(self, *command: str, cwd: pathlib.Path | str | None = None,
                    **environment: str) -> str:
        """Run a command that has to succeed; return what it says.

        :param cwd: where; None in the clone
        """
        done = hosts.at_home(
            subprocess.run, command, cwd=cwd or self.clone, text=True,
            env=dict(os.environ, **environment), stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT)
        self.assertEqual(0, done.returncode, done.stdout)
        return done.stdout
