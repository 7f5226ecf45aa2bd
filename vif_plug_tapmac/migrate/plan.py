# SPDX-License-Identifier: Apache-2.0

"""``tapmac-migrate plan``: what would become of ports."""

import argparse
import typing

from cliff import columns
from cliff import lister

from vif_plug_tapmac.migrate import main
from vif_plug_tapmac.migrate import ports

if typing.TYPE_CHECKING:
    from vif_plug_tapmac.migrate import cloud as clouds
    from vif_plug_tapmac.migrate import rebinding

COLUMNS = ('Port', 'Host', 'Owner', 'Device', 'Status', 'VIF type', 'Driver',
           'Bridge', 'Fate', 'New VIF type', 'New bridge', 'Stopped by',
           'Notes')
#: For people, whose screens have an end.
_NARROW = ('Port', 'Host', 'Status', 'VIF type', 'Driver', 'Fate',
           'New VIF type', 'New bridge', 'Stopped by', 'Notes')


# With the oldest cliff it is not generic.
class Sentences(columns.FormattableColumn):  # type: ignore[type-arg]
    """Several sentences; for programs a list."""

    def human_readable(self) -> str:
        return '; '.join(self._value)

    def machine_readable(self) -> list[str]:
        return list(self._value)


class Plan(lister.Lister):
    """List how ports are bound, and what would become of each.

    Fate is "stays", "re-bound", or "not served by tapmac". What stops a port
    is what "tapmac-migrate rebind" skips it for. How a port would be bound is
    known from others on its network that tapmac has bound, and otherwise
    Neutron only knows: see --try. Without it nothing is changed.
    Tables have fewer columns than the other formats: see --column.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument('--host', metavar='HOST',
                            help='only ports of this host, as Neutron calls '
                                 'it; default: all ports with a host')
        parser.add_argument(
            '--try', action='store_true', dest='try_networks',
            help='ask Neutron how ports would be bound: a port is made on '
                 'each network and host, and deleted again')
        return parser

    def take_action(
        self, parsed_args: argparse.Namespace,
    ) -> tuple[tuple[str, ...], list[tuple[typing.Any, ...]]]:
        if parsed_args.formatter == 'table' and not parsed_args.columns:
            parsed_args.columns = list(_NARROW)
        cloud = main.connect(self.app_args)
        return COLUMNS, [_row(job) for job in plan(
            cloud, parsed_args.host, parsed_args.try_networks)]


def plan(cloud: 'clouds.Cloud', host: str | None,
         try_networks: bool) -> list['rebinding.Job']:
    """Return what becomes of the ports of a host, or of all."""
    from vif_plug_tapmac.migrate import rebinding
    seen = cloud.ports(host)
    trials = rebinding.try_networks(cloud, seen) if try_networks else {}
    tasks = {server.id: server.task_state
             for server in cloud.servers(host).values() if server.task_state}
    return list(rebinding.jobs(
        cloud, seen, trials, _Neighbours(cloud, host, seen), tasks))


class _Neighbours:
    """How a port will be bound, by how others on its network are.

    A network's bridge is the same on all hosts; of which type bindings are,
    and whether an agent guards them, depends on the host.
    """

    def __init__(self, cloud: 'clouds.Cloud', host: str | None,
                 seen: list[typing.Any]) -> None:
        self._bridges = dict[str, str | None]()
        self._of_hosts = dict[str, ports.Binding]()
        for network in {port.network_id for port in seen} if host else ():
            self._learn(cloud.ports(network_id=network))
        self._learn(seen)

    def _learn(self, seen: typing.Iterable[typing.Any]) -> None:
        for port in seen:
            found = ports.Binding.of(port)
            if found.is_ours:
                self._bridges[port.network_id] = found.bridge
                self._of_hosts[port.binding_host_id] = found

    def __call__(self, port: typing.Any) -> ports.Binding | None:
        if (ports.Binding.of(port).is_ours
                or port.network_id not in self._bridges):
            return None
        like = self._of_hosts.get(port.binding_host_id, ports.Binding(None))
        return ports.Binding(like.vif_type, self._bridges[port.network_id],
                             ports.OURS, like.has_agent)


def _row(job: 'rebinding.Job') -> tuple[typing.Any, ...]:
    port, fate = job
    now, becomes = ports.Binding.of(port), fate.becomes
    return (port.id, port.binding_host_id, port.device_owner,
            port.device_id or None, port.status, now.vif_type, now.driver,
            now.bridge, fate.what, becomes and becomes.vif_type,
            becomes and becomes.bridge, Sentences(fate.stops),
            Sentences(fate.notes))
