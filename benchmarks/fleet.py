# SPDX-License-Identifier: Apache-2.0

"""Measure what agents of many hosts cost one Neutron.

``python -m benchmarks.fleet``, by the Python of a Neutron, see ``--help``. The
server, its RPC workers, RabbitMQ and MariaDB are real; hosts are those of
:mod:`benchmarks.fleet_hosts`. All hosts have ports of one group; from when a
rule comes that names its members, each of them is concerned by whatever
happens to it. Ports are copied in the database, as nobody would wait for
thousands to be made.
"""

import argparse
import contextlib
import os
import pathlib
import sys
import time
import typing

import fixtures

from tests import answering
from tests.neutron import base
from tests.neutron import cloud
from tests.neutron import crowd
from tests import patience

#: Of hosts, by which agent they have.
_NAMES = {'tapmac': 'tap-%d', 'ovs': 'ovs-%d'}
_MORE = """
hosts = tap-*
agent_hosts = tap-*
[DEFAULT]
agent_down_time = %d
[quotas]
quota_port = -1
"""
_OF_HOSTS = """
# Later reports are measured apart.
[AGENT]
report_interval = 36000
[tapmac_agent]
bridge_mappings = physnet1:br100
resync_spread = %d
names_file =
[os_vif_tapmac]
firewall = agent
"""
#: In seconds: for how long nothing is said when all is done.
QUIET, _PAUSE = 3.0, 0.1
_TICKS = os.sysconf('SC_CLK_TCK')
_GROUP = 'fleet'


class Cost(typing.NamedTuple):
    """What something cost, or what was there when it was looked at.

    :param messages: that all agents sent or got
    :param octets: of these, and of all else on their connections
    :param queries: that the database was asked
    :param server: seconds of processors that Neutron took; queue and database
        likewise
    """
    messages: float
    octets: float
    queries: float
    server: float
    queue: float
    database: float

    def minus(self, other: 'Cost') -> 'Cost':
        # What is less than before is of a process that was started since.
        return Cost(*(one - another if one >= another else one
                      for one, another in zip(self, other)))


class Row(typing.NamedTuple):
    """One line of a report.

    :param seconds: from when it was done until the last host had it in force
    :param waiting: the most calls that were not answered yet at one moment,
        as seen from time to time: how much of a herd it is
    """
    kind: str
    hosts: int
    ports: int
    what: str
    seconds: float
    waiting: int
    cost: Cost


class FleetCloud(cloud.Cloud):
    """With hosts of both kinds."""

    def __init__(self) -> None:
        base.Neutron.__init__(self, more=_MORE % patience.HANG)


def cost(neutron: cloud.Cloud, hosts: dict[str, dict[str, int]]) -> Cost:
    """Return what all that has happened until now has cost."""
    queries, = neutron.database.execute('SHOW GLOBAL STATUS LIKE "Questions"')
    took = {part: seconds(*_with_children(pid))
            for part, pid in neutron.processes().items()}
    return Cost(
        sum(each['sent'] + each['got'] for each in hosts.values()),
        sum(each['octets_sent'] + each['octets_got']
            for each in hosts.values()),
        int(queries['Value']), took['server'] + took['workers'],
        took['queue'], took['database'])


def seconds(*processes: int) -> float:
    """Return for how long these had a processor."""
    ticks = 0
    for process in processes:
        with contextlib.suppress(FileNotFoundError):  # It has ended.
            own = pathlib.Path('/proc/%d/stat' % process).read_text()
            ticks += sum(map(int, own.rpartition(')')[2].split()[11:13]))
    return ticks / _TICKS


def _with_children(process: int) -> list[int]:
    """Return a process, those that it has started, and so on."""
    children: dict[int, list[int]] = {}
    for path in pathlib.Path('/proc').glob('[0-9]*/stat'):
        with contextlib.suppress(OSError):
            children.setdefault(int(path.read_text().rpartition(')')[
                2].split()[1]), []).append(int(path.parent.name))
    found = [process]
    for each in found:
        found += children.get(each, [])
    return found


class Fleet(fixtures.Fixture):
    """So many hosts, with so many ports each.

    :param kind: "tapmac" or "ovs"
    :param names: of hosts, at which a driver for it binds ports
    :param spread: ``[tapmac_agent] resync_spread``
    :param is_up: whether ports are up when it begins: that Neutron is told
        that they are is not measured then
    """

    def __init__(self, neutron: cloud.Cloud, kind: str, names: list[str],
                 ports: int, spread: int = 3, is_up: bool = False) -> None:
        self._neutron, self._kind = neutron, kind
        self._names, self._ports, self._spread = names, ports, spread
        self._is_up = is_up
        self._most_waiting = 0
        self.rows: list[Row] = []

    def _setUp(self) -> None:
        self._directory = pathlib.Path(
            self.useFixture(fixtures.TempDir()).path)
        own = self._directory / 'conf'
        own.write_text(_OF_HOSTS % self._spread)
        self._hosts = self.useFixture(answering.Program(
            sys.executable, '-W', 'ignore', '-m', 'benchmarks.fleet_hosts',
            self._neutron.configuration, own))
        self._group = self._make_group()
        self._network = self._make('network', **{
            'provider:network_type': 'flat',
            'provider:physical_network': 'physnet1'})['id']
        self._subnet = self._make('subnet', network_id=self._network,
                                  ip_version=4, cidr='10.0.0.0/8',
                                  enable_dhcp=False)['id']
        # No port is bound where no agent has ever been.
        self._start({self._names[0]: []})
        self._wait(lambda: self._neutron.request(
            'GET', 'agents?host=' + self._names[0])['agents'])
        first = self._make_port(self._names[0])
        if self._is_up:
            self._hosts.ask(['tell', self._names[0], 'plug', first['id']])
            self._wait(self._are_active)
        self._hosts.ask(['stop'])
        every = [first, *crowd.copies(
            self._neutron, first, len(self._names) * self._ports - 1,
            lambda number: self._names[(number + 1) // self._ports])]
        self.addCleanup(crowd.remove, self._neutron, every[1:])
        self._taps: dict[str, list[str]] = {name: [] for name in self._names}
        for each in every:
            self._taps[each['binding:host_id']].append(each['id'])

    def _make(self, kind: str, **fields: typing.Any) -> typing.Any:
        made = self._neutron.request('POST', kind + 's', {kind: dict(
            fields, project_id=_GROUP, name=_GROUP)})[kind]
        self.addCleanup(self._neutron.request, 'DELETE',
                        '%ss/%s' % (kind, made['id']))
        return made

    def _make_group(self) -> str:
        made = self._neutron.request('POST', 'security-groups', {
            'security_group': {'project_id': _GROUP, 'name': _GROUP}})[
                'security_group']
        self.addCleanup(self._neutron.request, 'DELETE',
                        'security-groups/' + made['id'])
        return str(made['id'])

    def _make_port(self, host: str) -> typing.Any:
        port = self._make('port', **{
            'network_id': self._network, 'binding:host_id': host,
            'device_owner': 'compute:nova', 'device_id': _GROUP,
            'security_groups': [self._group],
            'fixed_ips': [{'subnet_id': self._subnet}]})
        assert port['binding:vif_type'] == 'ovs', port
        return port

    def _start(self, taps: dict[str, list[str]]) -> None:
        self._hosts.ask(['start', self._kind, taps])

    def _count(self) -> dict[str, dict[str, int]]:
        found: dict[str, dict[str, int]] = self._hosts.ask(['count'])
        self._most_waiting = max(self._most_waiting, sum(
            each['asking'] for each in found.values()))
        return found

    def _wait(self, condition: typing.Callable[[], typing.Any]) -> None:
        patience.wait_until(condition, lambda: (
            self._directory / 'log').read_text()[-20000:], _PAUSE)

    def measure(self, what: str, do: typing.Callable[[], typing.Any],
                is_done: typing.Callable[[], typing.Any] | None = None,
                ) -> None:
        """Do something, and add what it cost to the rows.

        :param is_done: whether it is; None: all hosts have had something in
            force since then
        """
        before, began = self._count(), time.time()
        at_first = cost(self._neutron, before)
        self._most_waiting = 0
        do()
        self._wait(lambda: (counts := self._count()) and (
            is_done() if is_done else all(
                each['applied'] > before.get(name, {'applied': 0})['applied']
                for name, each in counts.items() if name in self._taps)))
        self._wait_until_quiet()
        after = self._count()
        last = max(each['last'] for each in after.values()) / 1000
        self.rows.append(Row(
            self._kind, len(self._names), self._ports, what,
            max(0.0, last - began), self._most_waiting,
            cost(self._neutron, after).minus(at_first)))
        print(line(self.rows[-1]), flush=True)

    def _wait_until_quiet(self) -> None:
        # Connections say now and then that they are there: these are none.
        def messages() -> int:
            return sum(each['sent'] + each['got']
                       for each in self._count().values())
        seen, since = messages(), time.monotonic()
        while time.monotonic() < since + QUIET:
            time.sleep(_PAUSE)
            if (now := messages()) != seen:
                seen, since = now, time.monotonic()

    def run(self, also_queue: bool = True) -> None:
        """Measure all.

        :param also_queue: also that the queue starts again
        """
        if not self._is_up:
            self.measure('all hosts boot, all ports are new',
                         lambda: self._start(self._taps), self._are_active)
            self._hosts.ask(['stop'])
        self.measure('all agents start at once',
                     lambda: self._start(self._taps))
        self.measure('a rule comes', self._add_rule)
        last = self._names[-1]
        self.measure('a port comes', lambda: self._plug(last),
                     self._are_active)
        self._hosts.ask(['stop', last])
        before = self._count()[last]['applied']
        self.measure('one agent starts',
                     lambda: self._start({last: self._taps[last]}),
                     lambda: self._count()[last]['applied'] > before)
        got = {name: each['got'] for name, each in self._count().items()}
        self.measure('all agents report', lambda: [self._hosts.ask(
            ['tell', name, 'report']) for name in self._names], lambda: all(
                self._count()[name]['got'] > got[name]
                for name in self._names))
        if also_queue:
            self.measure('the queue starts again', self._start_queue_again)
        self._hosts.ask(['stop'])

    def _are_active(self) -> bool:
        return not self._neutron.database.execute(
            'SELECT id FROM neutron.ports WHERE network_id = %s AND '
            'status != "ACTIVE" LIMIT 1', self._network)

    def _add_rule(self) -> None:
        self._neutron.request('POST', 'security-group-rules', {
            'security_group_rule': {
                'security_group_id': self._group, 'direction': 'ingress',
                'ethertype': 'IPv4', 'protocol': 'tcp', 'port_range_min': 22,
                'port_range_max': 22, 'remote_group_id': self._group}})

    def _plug(self, host: str) -> None:
        port = self._make_port(host)
        self._taps[host].append(port['id'])
        self._hosts.ask(['tell', host, 'plug', port['id']])

    def _start_queue_again(self) -> None:
        self._neutron.broker.stop()
        self._neutron.broker.start()


def line(row: Row) -> str:
    """Return a row as a line of text."""
    cost = row.cost
    return ('%-6s %5d %5d  %-34s %7.1f %7d %8d %9.1f %8d %8.2f %8.2f %8.2f' % (
        row.kind, row.hosts, row.ports, row.what, row.seconds, row.waiting,
        cost.messages, cost.octets / 1024, cost.queries, cost.server,
        cost.queue, cost.database))


HEAD = '%-6s %5s %5s  %-34s %7s %7s %8s %9s %8s %8s %8s %8s' % (
    'agent', 'hosts', 'ports', 'what happens', 'done/s', 'waiting', 'messages',
    'KiB', 'queries', 'server/s', 'queue/s', 'data/s')


def main() -> None:
    parser = argparse.ArgumentParser(
        prog='python -m benchmarks.fleet', description=__doc__.split('\n')[0])
    parser.add_argument('--hosts', nargs='+', type=int, default=[10, 30, 100])
    parser.add_argument('--ports', type=int, default=10, help='of each host')
    parser.add_argument('--agents', nargs='+', choices=list(_NAMES),
                        default=list(_NAMES))
    parser.add_argument('--spread', type=int, default=3,
                        help='[tapmac_agent] resync_spread, in seconds')
    parser.add_argument('--up', action='store_true',
                        help='begin with ports that are up: to tell Neutron '
                        'that they are takes most of the time of a run')
    options = parser.parse_args()
    with FleetCloud() as neutron:
        print(HEAD, flush=True)
        for hosts in options.hosts:
            for kind in options.agents:
                names = [_NAMES[kind] % number for number in range(hosts)]
                with Fleet(neutron, kind, names, options.ports,
                           options.spread, options.up) as fleet:
                    # Of what the queue lost the other one knows nothing, and
                    # waits for it longer than anybody wants to measure.
                    fleet.run(also_queue=kind == 'tapmac')


if __name__ == '__main__':
    main()
