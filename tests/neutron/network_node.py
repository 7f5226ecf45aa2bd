# SPDX-License-Identifier: Apache-2.0

"""Neutron's own agents on a host: DHCP, and who speaks to metadata for guests.

What these run is what operators run: dnsmasq, haproxy, iptables. Not real is
Nova's metadata service, of which only what it is asked is here.
"""

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import typing
import uuid

import fixtures

from tests import base as tests_base
from tests import hosts
from tests.neutron import base
from tests.neutron import hypervisor
from tests.neutron import network_guest
from tests import patience

#: Where tools/neutron.sh unpacks what the agents run.
_ROOT = tests_base.CHECKOUT / '.venv' / 'dhcp' / 'root' / 'usr'
#: And what the L3 agent runs.
_L3_ROOT = tests_base.CHECKOUT / '.venv' / 'routers' / 'root' / 'usr'
#: With no daemon for what is privileged: each takes as long as the agent to
#: begin, and there are four. So what that forks, and ends by a signal, must
#: not tell the agent of it, by a pipe that it has of it.
_PROGRAM = """
import os
import runpy
import signal
import sys
from oslo_privsep import priv_context
def call(self, func, *args, _wrap_timeout=None, **kwargs):
    return func(*args, **kwargs)
priv_context.PrivContext._wrap = call
def begin():
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
os.register_at_fork(after_in_child=begin)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name='__main__')
"""
#: What is written for the agents of Neutron.
CONFIGURATION = """
[DEFAULT]
host = %(host)s
transport_url = rabbit://guest:guest@127.0.0.1:%(port)d/
state_path = %(directory)s
rpc_response_timeout = %(timeout)d
interface_driver = tapmac
enable_isolated_metadata = true
dnsmasq_config_file = %(directory)s/dnsmasq.conf
dnsmasq_dns_servers = 192.0.2.53
resync_interval = 1
resync_throttle = 0
nova_metadata_host = 127.0.0.1
nova_metadata_port = %(metadata)d
metadata_workers = 0
metadata_proxy_user = root
metadata_proxy_group = root
metadata_proxy_shared_secret = %(secret)s
%(more)s
[AGENT]
root_helper = env
report_interval = 5
check_child_processes_interval = 1
[oslo_messaging_rabbit]
rabbit_retry_interval = 1
rabbit_retry_backoff = 0
[oslo_concurrency]
lock_path = %(directory)s
"""


class Metadata(fixtures.Fixture):
    """What Nova's metadata service is asked: it says whose instance it is.

    :param peer: the host whose 127.0.0.1 it listens at
    """

    def __init__(self, peer: hosts.Peer) -> None:
        self._peer = peer

    def _setUp(self) -> None:
        class Handler(base.http_server.BaseHTTPRequestHandler):

            def do_GET(self) -> None:
                body = ('%s of %s' % (self.path, self.headers[
                    'X-Instance-ID'])).encode()
                self.send_response(200)
                self.send_header('Content-Type', 'text/plain; charset=UTF-8')
                self.send_header('Content-Length', str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: typing.Any) -> None:
                pass
        server = self._peer.run(lambda: base.http_server.ThreadingHTTPServer(
            ('127.0.0.1', 0), Handler))
        self.port: int = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)


class NetworkNode(fixtures.Fixture):
    """What a host has beside guests: DHCP, and its way to metadata.

    Its namespaces are seen by nobody else, and nothing of them stays.

    :param host: it has a bridge, and a way to the queue
    :param more: lines for the section [DEFAULT], and others
    :param nova: the port of TCP at 127.0.0.1 of the test where Nova's metadata
        service listens, and by what it knows who asks for a guest; None: one
        that only says what it is asked
    """

    @staticmethod
    def missing() -> str | None:
        if not (_ROOT / 'sbin' / 'dnsmasq').exists():
            return 'needs dnsmasq: tools/neutron.sh unpacks it, on Debian'
        if not network_guest.DHCLIENT.exists():
            return 'needs dhclient: tools/neutron.sh unpacks it, on Debian'
        if not (_L3_ROOT / 'sbin' / 'keepalived').exists():
            return 'needs keepalived: tools/neutron.sh unpacks it, on Debian'
        if not shutil.which('busybox'):
            return 'needs busybox: tools/guests.sh installs it, on Debian'
        return None

    def __init__(self, host: hypervisor.AgentHost, more: str = '',
                 nova: tuple[int, str] | None = None) -> None:
        self._host, self._more, self._nova = host, more, nova

    def _setUp(self) -> None:
        self._mark = str(uuid.uuid4())
        self.directory = pathlib.Path(
            self.useFixture(fixtures.TempDir()).path)
        metadata = self.useFixture(
            Metadata(self._host.peer) if self._nova is None
            else hypervisor.Line(self._host.peer, (
                '127.0.0.1', self._nova[0])))
        self._holds, held = os.pipe()
        self._mounts = hosts.fork(self._hold_mounts, held)
        self.addCleanup(self._end)
        os.close(held)
        assert os.read(self._holds, 1), 'no mounts'
        (self.directory / 'dnsmasq.conf').write_text('user=root\ngroup=root\n')
        self._configuration = self.directory / 'conf'
        self._configuration.write_text(CONFIGURATION % {
            'host': self._host.name, 'port': self._host.line.port,
            'directory': self.directory, 'timeout': patience.HANG,
            'metadata': metadata.port, 'more': self._more,
            'secret': self._nova[1] if self._nova else ''})
        self._agents: dict[str, base.Process] = {}

    def _hold_mounts(self, held: int) -> None:
        """Keep the names of namespaces, whoever has made them."""
        hosts.own_mounts()
        hosts.mount('tmpfs', '/run', 'tmpfs')
        if (_L3_ROOT / 'sbin').exists():
            # Where alone the L3 agent looks which keepalived it is.
            hosts.mount('overlay', '/usr/sbin', 'overlay', options=(
                'lowerdir=%s:/usr/sbin' % (_L3_ROOT / 'sbin')))
        os.write(held, b'.')
        signal.pause()

    def start(self, *names: str) -> None:
        """Start agents, such as "dhcp", "l3" and "metadata"."""
        for name in names:
            self._agents[name] = self._agent(name)
            self._agents[name].setUp()
        for name in names:
            self._agents[name].wait_for(
                lambda: self._serves(name))

    def wait_until_refused(self, name: str, words: str, *more: str) -> None:
        """Start an agent that does not serve; wait until it says why.

        It may be started anew by itself, again and again.

        :param more: arguments of its program
        """
        with self._agent(name, *more) as agent:
            agent.wait_for(lambda: words in self.log(name))
            assert not self._serves(name), self.log(name)

    def _agent(self, name: str, *more: str) -> base.Process:
        triplet = '%s-linux-gnu' % os.uname().machine
        prefix = pathlib.Path(sys.prefix) / 'bin'
        return base.Process(
            sys.executable, '-W', 'ignore', '-c', _PROGRAM,
            prefix / ('neutron-%s-agent' % name),
            '--config-file', self._configuration, *more,
            log=self.directory / (name + '.log'),
            name='neutron-%s-agent' % name,
            network=self._host.peer.namespace, mounts=self._mounts,
            TAPMAC_NODE=self._mark,
            LD_LIBRARY_PATH=':'.join(map(str, (
                each / triplet for each in (
                    _ROOT / 'lib', _L3_ROOT / 'lib',
                    _L3_ROOT.parent / 'lib')))),
            PATH=':'.join(map(str, (
                prefix, *(root / each for root in (_ROOT, _L3_ROOT)
                          for each in ('sbin', 'bin')),
                os.environ['PATH']))))

    def _serves(self, name: str) -> bool:
        if name == 'metadata':
            return (self.directory / 'metadata_proxy').exists()
        return '%s agent started' % name.upper() in self.log(name)

    def run(self, *command: str) -> str:
        """Return what a command says that runs there, by its namespaces.

        :raises CalledProcessError: it does not end well
        """
        def begin() -> None:
            hosts.enter(self._host.peer.namespace)
            hosts.enter_mounts(self._mounts)
        return subprocess.run(command, preexec_fn=begin, check=True, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              timeout=patience.HANG).stdout

    def kill(self, name: str) -> None:
        """Kill an agent, and whatever does not outlive it."""
        agent = self._agents.pop(name)
        agent.process.send_signal(signal.SIGKILL)
        agent.cleanUp()

    def kill_all(self) -> None:
        """Have nobody serve from here any more; what is plugged stays."""
        for name in list(self._agents):
            self.kill(name)
        while left := self._processes():
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def forget_namespace(self, network: str) -> None:
        """Have a network's namespace without its name, as after a crash."""
        subprocess.run(
            ['ip', 'netns', 'delete', 'qdhcp-' + network], check=True,
            preexec_fn=lambda: hosts.enter_mounts(self._mounts))

    def end_process(self, name: str) -> None:
        """Kill what an agent runs; return when that runs it again."""
        # It may just be started anew.
        ended = patience.wait_until(lambda: set(self.processes(name)),
                                    lambda: 'no %s:\n%s' % (
                                        name, self.log('dhcp')[-20000:]))
        for pid in ended:
            os.kill(pid, signal.SIGKILL)
        patience.wait_until(lambda: set(self.processes(name)) - ended,
                            lambda: '%s is gone:\n%s' % (
                                name, self.log('dhcp')[-20000:]))

    def log(self, name: str) -> str:
        return (self.directory / (name + '.log')).read_text()

    def processes(self, name: str) -> list[int]:
        """Return those of a program that this node has."""
        found = []
        for pid in self._processes():
            with contextlib.suppress(FileNotFoundError):  # It has ended.
                if os.path.basename(os.readlink('/proc/%d/exe' % pid)) == name:
                    found.append(pid)
        return found

    def _processes(self) -> list[int]:
        found = []
        for pid in filter(str.isdigit, os.listdir('/proc')):
            with contextlib.suppress(OSError):  # It has ended.
                if self._mark.encode() in pathlib.Path(
                        '/proc', pid, 'environ').read_bytes():
                    found.append(int(pid))
        return found

    def _end(self) -> None:
        self.kill_all()
        os.kill(self._mounts, signal.SIGKILL)
        os.waitpid(self._mounts, 0)
        os.close(self._holds)
