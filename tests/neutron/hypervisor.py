# SPDX-License-Identifier: Apache-2.0

"""A compute host with a tapmac-agent, its guests, and its way to the queue."""

from concurrent import futures
import contextlib
import functools
import itertools
import os
import pathlib
import re
import signal
import socket
import struct
import sys
import threading
import time
import typing

import fixtures
import os_vif
import pyroute2

from tests import base as tests_base
from tests import hosts
from tests.neutron import base
from tests.neutron import cloud as clouds
from tests import patience
from vif_plug_tapmac.kernel import agent_elements
from vif_plug_tapmac.kernel import filter_table
from vif_plug_tapmac.kernel import link as link_data
from vif_plug_tapmac.kernel import nft
from vif_plug_tapmac.kernel import nft_rules
from vif_plug_tapmac import privsep
from vif_plug_tapmac.wanted import names

#: Of each host, on the one wire that there is.
BRIDGE = 'br100'
#: Of the agent's section, too.
PHYSNET = 'physnet1'

_PROGRAM = """
import sys
from vif_plug_tapmac.agent import main
sys.exit(main.main())
"""
#: What is written for tapmac-agent.
CONFIGURATION = """
[DEFAULT]
host = %(host)s
transport_url = rabbit://guest:guest@127.0.0.1:%(port)d/
state_path = %(directory)s
rpc_response_timeout = %(timeout)d
[oslo_messaging_rabbit]
# Until it looks again for a queue that was gone, in seconds.
rabbit_retry_interval = 1
rabbit_retry_backoff = 0
[oslo_concurrency]
lock_path = %(directory)s
[os_vif_tapmac]
firewall = agent
udev_timeout = 0
%(more)s
[tapmac_agent]
bridge_mappings = %(mappings)s
names_file = %(names)s
conntrack = %(conntrack)s
metrics_file = %(metrics)s
[tapmac_agent_privileged]
helper_command = %(helper)s --config-file %(configuration)s
"""
_AT_ONCE = 65536
#: How often something happens until it is looked whether that is enough.
_AT_A_TIME = 100
#: Of UDP: what members of a group may say to each other, and what nobody may
#: at first.
MEMBERS, OTHERS = 7000, 7001
#: How often it is looked whether something is refused that is to be refused.
_TIMES = 20
_numbers = itertools.count(1)


class Line(fixtures.Fixture):
    """How a host reaches the queue: at its own 127.0.0.1, until it is cut.

    :param peer: the host
    :param queue: where that is, for others: address and port
    :param port: of TCP, where it is for the host; 0: any that is free
    """

    def __init__(self, peer: hosts.Peer, queue: tuple[str, int],
                 port: int = 0) -> None:
        self._peer, self._queue, self._port = peer, queue, port

    def _setUp(self) -> None:
        self._is_cut = False
        self._flows = threading.Event()
        self._flows.set()
        self._opened: list[socket.socket] = []
        self._listener = self._peer.run(
            lambda: socket.create_server(('127.0.0.1', self._port)))
        self.port: int = self._listener.getsockname()[1]
        # Here, and not on the host.
        threading.Thread(target=self._accept, daemon=True).start()
        self.addCleanup(self._listener.close)
        # Or who waits for it goes on waiting.
        self.addCleanup(self._listener.shutdown, socket.SHUT_RDWR)
        self.addCleanup(self.cut)

    def cut(self) -> None:
        """Have the queue gone, for this host, until it is mended."""
        self._is_cut = True
        self.flow()
        self._end()

    def _end(self) -> None:
        while self._opened:
            # Two may do it at once.
            with contextlib.suppress(OSError, IndexError):
                self._opened.pop().shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        self._is_cut = False

    def stall(self) -> None:
        """Have nothing arrive any more, and nobody told, until it flows."""
        self._flows.clear()

    def flow(self) -> None:
        self._flows.set()

    def _accept(self) -> None:
        while True:
            try:
                near = self._listener.accept()[0]
            except OSError:
                return  # It has ended.
            try:
                if self._is_cut:
                    raise ConnectionRefusedError
                far = socket.create_connection(self._queue)
            except OSError:
                near.close()
                continue
            self._opened += near, far
            if self._is_cut:  # Since it was looked, and by who saw none.
                self._end()
            for source, target in (near, far), (far, near):
                threading.Thread(target=self._carry, args=(source, target),
                                 daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_AT_ONCE):
                self._flows.wait()
                target.sendall(data)
        for each in source, target:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


class AgentHost(fixtures.Fixture):
    """A network namespace with a way to the queue, and an agent.

    :param name: by which Neutron knows it
    :param namespace: which it is; None: one of its own
    :param conntrack: option of the agent
    :param more: lines for the section [os_vif_tapmac]
    :param root: where the host has its files, for those that commands or an
        operator look at; None: it has none, and they are the test's
    """

    def __init__(self, cloud: clouds.Cloud, name: str,
                 namespace: int | None = None,
                 conntrack: str = 'stateless_only', more: str = '',
                 root: pathlib.Path | None = None) -> None:
        self.name = name
        self._root = root
        self._options = {'conntrack': conntrack, 'more': more}
        self._cloud = cloud
        self.peer = hosts.Peer()
        self._namespace = namespace

    def _setUp(self) -> None:
        if self._namespace is None:
            self.useFixture(self.peer)
        else:
            self.peer.namespace = self._namespace
        self._make_links()
        self.line = self.useFixture(Line(self.peer, (
            self._cloud.loopback, self._cloud.queue_port)))
        self._directory = pathlib.Path(
            self.useFixture(fixtures.TempDir()).path)
        self.names = self._file('run/tapmac-agent/names.json')
        self._log = self._file('var/log/neutron/tapmac-agent.log')
        self._program = self._directory / 'tapmac-agent'
        self._program.write_text(_PROGRAM)
        self.configuration = self._directory / 'tapmac.conf'
        self._metrics = self._file(
            'var/lib/prometheus/node-exporter/tapmac-agent.prom')
        self.configuration.write_text(CONFIGURATION % {
            'host': self.name, 'port': self.line.port,
            'directory': self._directory, 'timeout': patience.HANG,
            'metrics': self._metrics, 'names': self.names,
            'mappings': '%s:%s' % (PHYSNET, BRIDGE),
            'helper': pathlib.Path(sys.prefix) / 'bin' / 'privsep-helper',
            'configuration': self.configuration, **self._options})
        self.addCleanup(self.stop_agent)
        self._agent: base.Process | None = None

    def _file(self, path: str) -> pathlib.Path:
        """Return where a file of the host is, in a directory that is."""
        found = (self._root or self._directory) / path
        found.parent.mkdir(parents=True, exist_ok=True)
        return found

    def _make_links(self) -> None:
        """Have what is to be there before all else."""

    def start_agent(self) -> None:
        """Have its agent run from now on."""
        self._metrics.unlink(missing_ok=True)
        self._agent = base.Process(
            sys.executable, '-W', 'ignore', self._program, '--config-file',
            self.configuration, log=self._log,
            network=self.peer.namespace, name='tapmac-agent')
        self._agent.setUp()

    def wait_for_agent(self) -> None:
        """Wait until its agent hears Neutron."""
        assert self._agent is not None
        self._agent.wait_for(lambda: 'has begun' in self.log())

    def wait_until_synced(self) -> None:
        """Wait until all was once as Neutron says, since its agent began."""
        assert self._agent is not None
        self._agent.wait_for(lambda: bool(self.synced()))

    def kill_agent(self) -> None:
        assert self._agent is not None
        self._agent.process.send_signal(signal.SIGKILL)
        self.stop_agent()

    def kill_daemon(self) -> None:
        """Kill what does for its agent what is privileged."""
        os.kill(self.processes()[1], signal.SIGKILL)

    def stop_agent(self) -> None:
        if self._agent is not None:
            self._agent.cleanUp()
        self._agent = None

    def pause_agent(self) -> None:
        """Have it be slow: it does nothing until it goes on."""
        assert self._agent is not None
        self._agent.process.send_signal(signal.SIGSTOP)

    def resume_agent(self) -> None:
        assert self._agent is not None
        self._agent.process.send_signal(signal.SIGCONT)

    def log(self) -> str:
        """Return what its agent has said since it began."""
        return self._log.read_text()

    def processes(self) -> tuple[int, int]:
        """Return its agent, and the privileged daemon that this has now."""
        assert self._agent is not None
        return self._agent.process.pid, int(re.findall(
            'privsep daemon running as pid ([0-9]+)', self.log())[-1])

    def synced(self) -> float:
        """Return when its agent had all ports as Neutron says, or 0."""
        found = self._metrics.exists() and re.search(
            '(?m)^tapmac_agent_last_sync_time_seconds (.*)',
            self._metrics.read_text())
        return float(found[1]) if found else 0.0


def _lost(process: int) -> list[int]:
    """Return how much each socket has lost of what a process listens to."""
    here = pathlib.Path('/proc/%d' % process)
    sockets = {os.readlink(each) for each in (here / 'fd').iterdir()}
    found = []
    for line in (here / 'net' / 'netlink').read_text().splitlines()[1:]:
        _, _, _, groups, _, _, _, _, drops, inode = line.split()
        if int(groups, 16) and 'socket:[%s]' % inode in sockets:
            found.append(int(drops))
    return found


class Hypervisor(AgentHost):
    """A compute host with a bridge, and an agent that can be killed."""

    def _setUp(self) -> None:
        self._mac = '02:00:00:00:00:%02x' % int(self.name[-1])
        super()._setUp()
        self._station = self.run(self._make_station)
        self.addCleanup(self._station.close)

    def _make_links(self) -> None:
        self.run(self._make_bridge)

    def run(self, function: typing.Callable[..., typing.Any],
            *arguments: typing.Any, **named: typing.Any) -> typing.Any:
        """Call a function on this host; return or raise what it does."""
        def call() -> tuple[typing.Any, Exception | None]:
            try:
                return function(*arguments, **named), None
            except Exception as error:
                return None, error
        result, error = self.peer.run(call)
        if error is not None:
            raise error
        return result

    @contextlib.contextmanager
    def deaf(self) -> typing.Iterator[None]:
        """Have its agent lose what the kernel tells meanwhile.

        Neither it nor its daemon reads what they listen to. That is full when
        this begins.
        """
        processes = self.processes()
        for each in processes:
            os.kill(each, signal.SIGSTOP)
        try:
            for each in processes:
                self.run(self._fill, each)
            yield
        finally:
            for each in processes:
                os.kill(each, signal.SIGCONT)

    def _fill(self, process: int) -> None:
        with pyroute2.IPRoute() as ip, nft.Session() as session:
            wire, = ip.link_lookup(ifname='wire')
            while not min(_lost(process)):
                for number in range(_AT_A_TIME):
                    ip.link('set', index=wire, group=number + 1)
                    session.transact('', [nft.new_table('noise', '')])
                    session.transact('', [nft.delete_table('noise')])

    def rules(self) -> typing.Any:
        """Return all rules that guests are kept to, to be compared."""
        def rules() -> typing.Any:
            with nft.Session() as session:
                return agent_elements.there(session), {chain: [
                    nft_rules.uncounted(
                        nft.read(each).octets(nft.RULE_EXPRESSIONS))
                    for each in session.rules(filter_table.NAME, chain)]
                    for chain in session.chains(filter_table.NAME)}
        return self.run(rules)

    def connect(self, other: 'Hypervisor') -> None:
        """Put a cable between the bridges of two hosts."""
        def plug_in() -> None:
            with pyroute2.IPRoute() as ip:
                bridge, = ip.link_lookup(ifname=BRIDGE)
                end, = ip.link_lookup(ifname='wire')
                ip.link('set', index=end, state='up', master=bridge,
                        **hosts.addr_gen_mode(link_data.ADDR_GEN_NONE))

        def make() -> None:
            with pyroute2.IPRoute() as ip:
                ip.link('add', ifname='wire', kind='veth', peer={
                    'ifname': 'wire', 'net_ns_fd': other.peer.namespace})
        self.run(make)
        for each in self, other:
            each.run(plug_in)

    def _make_bridge(self) -> None:
        with pyroute2.IPRoute() as ip:
            ip.link('set', index=1, state='up')
            ip.link('add', ifname=BRIDGE, kind='bridge',
                    br_mcast_snooping=0)
            ip.link('set', index=ip.link_lookup(ifname=BRIDGE)[0], state='up',
                    address=self._mac,
                    **hosts.addr_gen_mode(link_data.ADDR_GEN_NONE))

    def _make_station(self) -> socket.socket:
        found = socket.socket(socket.AF_PACKET, socket.SOCK_RAW,
                              socket.htons(hosts.ETHERTYPE))
        found.bind((BRIDGE, hosts.ETHERTYPE))
        found.settimeout(patience.HANG)
        return found

    def wait_for_all_before(self, other: 'Hypervisor') -> None:
        """Wait until whatever left this host for another one is there."""
        last = b'last %d.' % next(_numbers)
        self._station.send(hosts.frame(
            hosts.BROADCAST, self._mac, last))
        while other is not self and last not in other._station.recv(_AT_ONCE):
            pass


class Nic:
    """A guest's, as the guest has it.

    :param port: as Neutron has made it
    """

    def __init__(self, host: Hypervisor, port: typing.Any) -> None:
        self.host, self.port = host, port
        self.mac: str = port['mac_address']
        #: Of the guest: it has that which its port had at first.
        self.address: str = port['fixed_ips'][0]['ip_address']
        self.tap = names.nova_tap_name(port['id'])
        self._vif = tests_base.make_vif(
            id=port['id'], vif_name=self.tap,
            address=self.mac, addresses=[
                each['ip_address'] for each in port['fixed_ips']],
            bridge_name=port['binding:vif_details']['bridge_name'])
        self._got: set[bytes] = set()
        # Others may send meanwhile.
        self._lock = threading.Lock()
        with self._lock:
            self._start()

    def close(self) -> None:
        """End the guest, and remove its TAP, as Nova does."""
        with self._lock:
            self._end()

    def reboot(self) -> None:
        """Do what Nova does in a hard reboot: the TAP is another one."""
        with self._lock:
            self._end()
            self._start()

    def _start(self) -> None:
        self.host.run(os_vif.plug, self._vif, tests_base.INSTANCE)
        self.guest = self.host.run(hosts.Guest, self._vif.vif_name, self.mac)

    def _end(self) -> None:
        self.guest.close()
        self.host.run(os_vif.unplug, self._vif, tests_base.INSTANCE)

    def send(self, to: 'Nic', port: int, source: str | None = None) -> bytes:
        """Send one packet of UDP; return what tells it from others."""
        return self.send_with(
            lambda words: self.frame(to, port, source, words))

    def send_with(self, frame: typing.Callable[[bytes], bytes]) -> bytes:
        """Send a frame that tells it from others at its end.

        :param frame: returns it, given that end
        :returns: that end
        """
        words = b'packet %d.' % next(_numbers)
        with self._lock:
            self.guest.write(frame(words))
        return words

    def frame(self, to: 'Nic', port: int, source: str | None = None,
              words: bytes = b'packet') -> bytes:
        """Return what :meth:`send` would."""
        return _ipv4((self.mac, source or self.address), (to.mac, to.address),
                     socket.IPPROTO_UDP, struct.pack(
                         '!HHHH', 7, port, 8 + len(words), 0) + words)

    def got(self) -> set[bytes]:
        """Return what has come by now, as :meth:`send` returns it."""
        for frame in self.guest.waiting():
            start = frame.find(b'packet ')
            if start >= 0:
                self._got.add(frame[start:].rstrip(b'\0'))
        return self._got

    def reaches(self, to: 'Nic', port: int, source: str | None = None) -> bool:
        """Return whether a packet comes, sent now."""
        return self.has_come(to, self.send(to, port, source))

    def has_come(self, to: 'Nic', words: bytes) -> bool:
        """Return whether what this has sent is there."""
        self.host.wait_for_all_before(to.host)
        return words in to.got()


class End:
    """One of the two of a connection of TCP, whose segments a test makes.

    :param port: of TCP; None for one of its own
    """

    SYN, ACK = 2, 16
    _ports = itertools.count(40000)

    def __init__(self, nic: Nic, port: int | None = None) -> None:
        self.nic, self.host = nic, nic.host
        self.port = next(self._ports) if port is None else port
        #: Of the next octet that it sends.
        self._number = 1000 * next(_numbers)

    def reaches(self, to: 'End', flags: int = ACK) -> bool:
        """Return whether a segment comes, sent now; else it can be resent."""
        words = self.nic.send_with(lambda words: self._frame(to, flags, words))
        has_come = self.nic.has_come(to.nic, words)
        if has_come:
            self._number += len(words) + bool(flags & self.SYN)
        return has_come

    def _frame(self, to: 'End', flags: int, words: bytes) -> bytes:
        head = struct.pack('!HHIIBBHHH', self.port, to.port, self._number,
                           to._number if flags & self.ACK else 0, 5 << 4,
                           flags, 0xffff, 0, 0)
        ends = b''.join(map(socket.inet_aton, (
            self.nic.address, to.nic.address)))
        checksum = _checksum(ends + struct.pack(
            '!HH', socket.IPPROTO_TCP, len(head + words)) + head + words)
        return _ipv4((self.nic.mac, self.nic.address),
                     (to.nic.mac, to.nic.address), socket.IPPROTO_TCP,
                     head[:16] + checksum + head[18:] + words)


def _ipv4(source: tuple[str, str], target: tuple[str, str], protocol: int,
          payload: bytes) -> bytes:
    """Return a frame, from and to a MAC and an address."""
    ends = socket.inet_aton(source[1]) + socket.inet_aton(target[1])
    header = struct.pack('!BBHHHBBH', 0x45, 0, 20 + len(payload), 0, 0, 64,
                         protocol, 0) + ends
    return (bytes.fromhex((target[0] + source[0]).replace(':', ''))
            + b'\x08\0' + header[:10] + _checksum(header) + header[12:]
            + payload)


def _checksum(octets: bytes) -> bytes:
    """Return that of IP."""
    total = sum(struct.unpack('!%dH' % (len(octets) + 1 >> 1),
                              octets + bytes(len(octets) % 2)))
    total = (total & 0xffff) + (total >> 16)
    total = (total & 0xffff) + (total >> 16)
    return struct.pack('!H', ~total & 0xffff)


class Sentinels:
    """Guests that send, all the time, what no rule ever allows them.

    :param nics: each sends to each other
    """

    #: Of UDP; no test allows it.
    _PORT = 9
    _PAUSE = 0.02

    def __init__(self, *nics: Nic) -> None:
        self._nics = nics
        self._sent: list[tuple[Nic, bytes]] = []
        self._stop = threading.Event()
        self._executor = futures.ThreadPoolExecutor(1)

    def __enter__(self) -> 'Sentinels':
        self._done = self._executor.submit(self._run)
        return self

    def __exit__(self, *exc_info: typing.Any) -> None:
        self._stop.set()
        self._executor.shutdown()
        # Or they would be silent, and nothing wrong.
        self._done.result()

    def add(self, nic: Nic) -> None:
        self._nics += nic,

    def heard(self) -> list[bytes]:
        """Return what has come nevertheless."""
        got = {nic: nic.got() for nic in self._nics}
        return [words for nic, words in self._sent if words in got[nic]]

    def _run(self) -> None:
        while not self._stop.is_set():
            for sender, receiver in itertools.permutations(self._nics, 2):
                self._sent.append((receiver, sender.send(
                    receiver, self._PORT)))
            time.sleep(self._PAUSE)


class HypervisorTestCase(clouds.CloudTestCase):
    """Two hosts on one wire."""

    def setUp(self):
        super().setUp()
        missing = hosts.missing_privilege()
        if missing:
            self.cannot_run(missing)
        self.configure(firewall='agent', udev_timeout=0)
        privsep.vif_plug.set_client_mode(False)
        os_vif.initialize()
        self.network = self.flat_network()
        # Neutron takes any that is free there: not one that a test asks for.
        self.subnet = self.create(
            'subnet', network_id=self.network['id'], ip_version=4,
            cidr='192.0.2.0/24', enable_dhcp=False, allocation_pools=[
                {'start': '192.0.2.10', 'end': '192.0.2.69'}])['id']
        self.one, self.other = [self.useFixture(Hypervisor(
            self.neutron, name)) for name in clouds.HOSTS]
        self.one.connect(self.other)

    def start_agents(self, *which):
        """Start the agents of hosts, of both by default."""
        which = which or (self.one, self.other)
        for host in which:
            host.start_agent()
        for host in which:
            host.wait_for_agent()
            self.wait_until_reported(host)

    def wait_until_reported(self, host):
        patience.wait_until(
            lambda: [agent for agent in self.neutron.request(
                'GET', 'agents?host=' + host.name)['agents']
                if agent['agent_type'] == 'tapmac agent'],
            lambda: 'no agent of %s:\n%s' % (host.name, host.log()), 0.1)

    def nudge(self):
        """Have an RPC worker tell Nova something: it is they who do here."""
        self.wait_until_active(self.guest(self.one, self.nudged_group))

    @functools.cached_property
    def nudged_group(self):
        # One: there is a quota, as for networks.
        return self.outsiders()

    def members(self):
        """Create a group whose members may speak to each other."""
        group = self.group({'direction': 'egress'}, stateful=False)
        self.add_rules(group, self.udp(MEMBERS, remote_group_id=group))
        return group

    def outsiders(self):
        return self.group({'direction': 'egress'}, stateful=False)

    def udp(self, port, **fields):
        return self.rule('udp', port, **fields)

    def rule(self, protocol, port, **fields):
        return {'protocol': protocol, 'port_range_min': port,
                'port_range_max': port, **fields}

    def guest(self, host, *groups):
        """Have a guest on a host, as Nova does."""
        return self.start_guest(host, self.bound_port(host, *groups))

    def bound_port(self, host, *groups):
        port = self.port(self.network, host.name, security_groups=list(groups),
                         fixed_ips=[{'subnet_id': self.subnet}])
        self.assertEqual(('ovs', 'DOWN'), (
            port['binding:vif_type'], port['status']), port)
        return port

    def start_guest(self, host, port):
        nic = Nic(host, port)
        self.addCleanup(nic.close)
        return nic

    def wait_until_active(self, *nics):
        for nic in nics:
            patience.wait_until(
                lambda: self.show(nic.port)['status'] == 'ACTIVE',
                lambda: '%s:\n%s' % (self.show(nic.port), nic.host.log()),
                0.05)

    def wait_until_passes(self, *way):
        return self._wait(True, *way)

    def wait_until_refused(self, *way):
        found = self._wait(False, *way)
        for _ in range(_TIMES):
            self.assertFalse(way[0].reaches(*way[1:]), way)
        return found

    def _wait(self, wanted, sender, *way):
        """Return after how many seconds it is so."""
        began = time.monotonic()
        patience.wait_until(
            lambda: sender.reaches(*way) == wanted,
            lambda: '%s to %s: %s\n%s\n%s' % (
                sender.port, way, wanted, sender.host.log(),
                way[0].host.log()))
        return time.monotonic() - began
