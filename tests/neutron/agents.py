# SPDX-License-Identifier: Apache-2.0

"""Who answers agents here, without a message queue."""

import json
import pathlib
import subprocess
import sys
import typing

import fixtures

from tests import base as tests_base
from tests import hosts
from tests.neutron import base


class Server(fixtures.Fixture):
    """The part of a neutron-server that answers agents.

    :param configuration: the file of that server
    """

    def __init__(self, configuration: pathlib.Path) -> None:
        self._configuration = configuration

    def _setUp(self) -> None:
        directory = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        self._log = directory / 'log'
        with self._log.open('w') as log:
            self._process = subprocess.Popen(
                [sys.executable, '-W', 'ignore', '-m', 'tests.neutron.rpc',
                 self._configuration], cwd=tests_base.CHECKOUT, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                preexec_fn=hosts.die_with_parent)
        self.addCleanup(self._end)
        self._read()

    def _end(self) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def _read(self) -> str:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise AssertionError(self._log.read_text()[-20000:])
        return line.rstrip('\n')

    def call(self, name: str, method: str, **passed: typing.Any) -> typing.Any:
        """Return what an agent is answered that calls this."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps([name, method, passed]) + '\n')
        self._process.stdin.flush()
        return json.loads(self._read())


_shared: dict[base.Neutron, Server] = {}


class ServerTestCase(base.NeutronTestCase):
    """A test whose neutron-server answers agents, too."""

    @property
    def server(self) -> Server:
        if self.neutron not in _shared:
            _shared[self.neutron] = self.neutron.useFixture(
                Server(self.neutron.configuration))
        return _shared[self.neutron]
