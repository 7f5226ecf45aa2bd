# SPDX-License-Identifier: Apache-2.0

"""neutron-server with those who speak to agents: RabbitMQ and RPC workers."""

import os
import typing
import unittest

from tests import documents
from tests.neutron import base
from tests.neutron import broker
from tests import patience


#: That have an agent.
HOSTS = 'host1', 'host2'
_MORE = """
%s
[DEFAULT]
# On a busy machine nobody is dead who has not said anything for a while.
agent_down_time = %d
"""


class Cloud(base.Neutron):
    """neutron-server, and neutron-rpc-server beside it, with a queue.

    :param more: as for :class:`base.Neutron`, as all others
    :ivar queue_port: of TCP
    """

    def __init__(self, more: str = '', **others: int | None) -> None:
        # As the page on the agent has it for one.
        ours = documents.block(documents.AGENT, 'agent_hosts', 'ini')
        super().__init__(more + _MORE % (ours.replace(
            'compute1', ','.join(HOSTS)), patience.HANG), **others)

    def _setUp(self) -> None:
        self.broker = self.useFixture(broker.Broker())
        self.transport_url = self.broker.url
        self.queue_port = self.broker.port
        super()._setUp()
        self.start_workers()
        self.addCleanup(self.stop_workers)

    def start_workers(self) -> None:
        """Have somebody answer agents."""
        self._workers = base.Process(
            self._prefix / 'bin' / 'neutron-rpc-server', '--config-file',
            self.configuration, log=self.configuration.with_name('rpc'),
            name='neutron-rpc-server')
        self._workers.setUp()
        self._workers.wait_for(lambda: self.broker.consumers('q-plugin') > 0)

    def processes(self) -> dict[str, int]:
        """Return the process of each part; most have started others."""
        return {'server': self._server.process.pid,
                'workers': self._workers.process.pid,
                'queue': self.broker.pid, 'database': int(
                    self.database.socket.with_name('pid').read_text())}

    def stop_workers(self) -> None:
        self._workers.cleanUp()

    def restart_part(self, part: str) -> None:
        """End one of :meth:`processes`, and start it again."""
        if part == 'workers':
            self.stop_workers()
            self.start_workers()
        elif part == 'queue':
            self.broker.stop()
            self.broker.start()
        else:
            {'server': self, 'database': self.database}[part].restart()


#: Has the ports of TCP of a cloud, for a test on another kernel: that of its
#: server, and that of its queue.
FAR = 'TAPMAC_FAR_CLOUD'


class FarCloud(Cloud):
    """The cloud of a test on the machine that tools/kernel.sh runs on."""

    loopback = '10.0.2.2'

    def __init__(self) -> None:
        port, self.queue_port = map(int, os.environ[FAR].split(','))
        super().__init__(port=port)

    def _setUp(self) -> None:
        assert self._port is not None
        self._address = self._port


class CloudTestCase(base.NeutronTestCase):
    """A test with these, which others use before and after it."""

    neutron: Cloud

    def find_neutron(self) -> Cloud:
        missing = broker.Broker.missing()
        if missing:
            self.cannot_run(missing)
        return typing.cast(Cloud, base.shared(
            FarCloud if FAR in os.environ else Cloud))


def load_tests(tests: unittest.TestSuite, *newest: type[unittest.TestCase],
               long: typing.Collection[type[unittest.TestCase]] = (),
               ) -> unittest.TestSuite:
    """Return the tests of a module where there is an agent for Neutron.

    In the long form these are all.

    :param newest: of these classes, only where Neutron is the newest
    :param long: of these, none else
    """
    if base.NEUTRON < 28:
        return unittest.TestSuite()
    if patience.LONG:
        return tests
    return base.without(tests, *long, *(newest if base.NEUTRON < 29 else ()))
