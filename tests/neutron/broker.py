# SPDX-License-Identifier: Apache-2.0

"""The message queue between neutron-server and its agents: RabbitMQ."""

import os
import pathlib
import signal
import socket

import amqp
import fixtures

from tests import base as tests_base
from tests.neutron import base
from tests import patience

#: Where tools/neutron.sh unpacks it.
_ROOT = tests_base.CHECKOUT / '.venv' / 'rabbitmq' / 'root' / 'usr' / 'lib'
#: It does not spin while it has nothing to do, and does not tell the syslog.
_FLAGS = ('+sbwt none +sbwtdcpu none +sbwtdio none -kernel '
          'inet_dist_use_interface {127,0,0,1} -kernel '
          'prevent_overlapping_partitions false -syslog logger [] '
          '-syslog syslog_error_logger false').split()


class Broker(fixtures.Fixture):
    """A RabbitMQ at 127.0.0.1 that keeps its port when it starts again.

    Nothing of Erlang's or Debian's scripts runs: they know one place only
    where it can be, and one port for what tells its nodes of each other.

    :ivar url: for ``transport_url``
    :ivar port: of TCP
    """

    @staticmethod
    def missing() -> str | None:
        if not (_ROOT / 'rabbitmq').exists():
            return 'needs RabbitMQ: tools/neutron.sh unpacks it, on Debian'
        return None

    def _setUp(self) -> None:
        self._directory = pathlib.Path(
            self.useFixture(fixtures.TempDir()).path)
        self._erlang = _ROOT / 'erlang'
        self._machine, = self._erlang.glob('erts-*')
        self._names_port, self.port = base.free_port(), base.free_port()
        self.url = 'rabbit://guest:guest@127.0.0.1:%d/' % self.port
        names = self.useFixture(base.Process(
            self._machine / 'bin' / 'epmd', '-address', '127.0.0.1',
            '-port', str(self._names_port), log=self._directory / 'epmd',
            name='RabbitMQ'))
        names.wait_for(lambda: _listens(self._names_port))
        self.start()
        self.addCleanup(lambda: self._server.cleanUp())

    def start(self) -> None:
        self._server = base.Process(
            self._machine / 'bin' / 'erlexec', '-noinput',
            '-boot', self._erlang / 'bin' / 'start_sasl',
            '-s', 'rabbit', 'boot', *_FLAGS, log=self._directory / 'stdout',
            name='RabbitMQ', **self._environment())
        self._server.setUp()
        self._server.wait_for(
            lambda: 'startup complete' in self._server.log.read_text())

    def stop(self) -> None:
        """Have it gone, as by a crash; what it had not delivered is lost."""
        self._server.process.send_signal(signal.SIGKILL)
        self._server.cleanUp()

    @property
    def pid(self) -> int:
        return self._server.process.pid

    def consumers(self, queue: str) -> int:
        """Return how many take from a queue; 0 where it is none."""
        with amqp.Connection('127.0.0.1:%d' % self.port) as connection:
            try:
                return int(connection.channel().queue_declare(
                    queue, passive=True).consumer_count)
            except amqp.exceptions.NotFound:
                return 0

    def _environment(self) -> dict[str, str]:
        rabbit, = (_ROOT / 'rabbitmq' / 'lib').glob('rabbitmq_server-*')
        own = {name: self._directory / name.lower() for name in (
            'CONFIG_FILE', 'ADVANCED_CONFIG_FILE', 'GENERATED_CONFIG_DIR',
            'CONF_ENV_FILE', 'ENABLED_PLUGINS_FILE', 'PLUGINS_EXPAND_DIR',
            'FEATURE_FLAGS_FILE', 'PID_FILE', 'MNESIA_BASE', 'LOG_BASE')}
        return {
            'ROOTDIR': str(self._erlang), 'BINDIR': str(self._machine / 'bin'),
            'EMU': 'beam', 'PROGNAME': 'erl', 'HOME': str(self._directory),
            'PATH': '%s:%s' % (self._machine / 'bin', os.environ['PATH']),
            'ERL_LIBS': str(rabbit / 'plugins'),
            'ERL_EPMD_ADDRESS': '127.0.0.1',
            'ERL_EPMD_PORT': str(self._names_port),
            **{'RABBITMQ_' + name: str(value) for name, value in {
                **own, 'NODENAME': 'rabbit@localhost', 'LOGS': '-',
                'NODE_IP_ADDRESS': '127.0.0.1', 'NODE_PORT': self.port,
                'DIST_PORT': base.free_port(), 'HOME': rabbit,
                'PLUGINS_DIR': rabbit / 'plugins'}.items()}}


def _listens(port: int) -> bool:
    try:
        socket.create_connection(('127.0.0.1', port), patience.HANG).close()
    except ConnectionRefusedError:
        return False
    return True
