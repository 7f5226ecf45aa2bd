# SPDX-License-Identifier: Apache-2.0

"""A process that a test asks, one question after the other.

As one whose Python, or whose network namespace, is not the test's.
"""

import json
import pathlib
import subprocess
import typing

import fixtures

from tests import base
from tests import hosts

#: How much of its log is shown when it ends before its time.
_LOG_SHOWN = 20000


class Program(fixtures.Fixture):
    """One that answers each line of JSON with another one.

    It says some line first, when it can be asked, and ends with its input.

    :param command: the program, and what it is given
    :param environment: None: that of the test
    """

    def __init__(self, *command: str | pathlib.Path,
                 environment: dict[str, str] | None = None) -> None:
        super().__init__()
        self._command, self._environment = command, environment

    def _setUp(self) -> None:
        self._log = pathlib.Path(
            self.useFixture(fixtures.TempDir()).path) / 'log'
        with self._log.open('w') as log:
            self._process = subprocess.Popen(
                self._command, cwd=base.CHECKOUT, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                preexec_fn=hosts.die_with_parent, env=self._environment)
        self.addCleanup(self._end)
        self._line()

    def _end(self) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def ask(self, question: typing.Any) -> typing.Any:
        """Return its answer.

        :raises AssertionError: it has ended, with the end of its log
        """
        assert self._process.stdin
        self._process.stdin.write(json.dumps(question) + '\n')
        self._process.stdin.flush()
        return json.loads(self._line())

    def _line(self) -> str:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise AssertionError(self._log.read_text()[-_LOG_SHOWN:])
        return line
