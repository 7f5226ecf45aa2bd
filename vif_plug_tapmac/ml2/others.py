# SPDX-License-Identifier: Apache-2.0

"""What other mechanism drivers would do with a port, may not, or have done."""

import contextlib
import itertools
import typing

from neutron_lib.api.definitions import portbindings
from neutron_lib.plugins import directory
from neutron_lib.plugins.ml2 import api
from oslo_log import log as logging

from vif_plug_tapmac.ml2 import bindings

LOG = logging.getLogger(__name__)


class _Trial:
    """A port that other drivers may bind on a host, if they would.

    That is all that happens: drivers change nothing but by these methods, or
    ML2 could not try them one after the other.
    """

    def __init__(self, context: api.PortContext, host: str) -> None:
        self._context = context
        self.host = host
        self.segments_to_bind = context.network.network_segments
        self.binding: dict[str, typing.Any] | None = None

    def __getattr__(self, name: str) -> typing.Any:
        return getattr(self._context, name)

    def host_agents(self, agent_type: str) -> typing.Any:
        return directory.get_plugin().get_agents(
            self._context.plugin_context.elevated(),
            filters={'agent_type': [agent_type], 'host': [self.host]})

    def set_binding(self, segment_id: str, vif_type: str | None = None,
                    vif_details: typing.Any = None,
                    status: str | None = None) -> None:
        self.binding = {'vif_type': vif_type, 'vif_details': vif_details}

    def continue_binding(self, *values: typing.Any) -> None:
        self.set_binding('')


def is_bound_before(context: api.PortContext, host: str,
                    us: api.MechanismDriver) -> bool:
    """Return whether a driver binds a port on a host that comes before us."""
    return _bound(context, host, itertools.takewhile(
        lambda driver: driver is not us, _drivers())) is not None


def keep_from_another_bridge(context: api.PortContext,
                             us: api.MechanismDriver) -> None:
    """Have no driver after us bind a port of ours beside us, if Nova fails.

    As for a live migration: Nova gives the other host the bridge of this
    binding, whatever the binding there says. So that one fails, before
    anything moves. Drivers that come before us were asked already.
    """
    active = bindings.active(bindings.of_port(
        context.plugin_context, context.current['id']))
    if (active is None or active['host'] == context.host
            or not bindings.is_our(active['vif_type'],
                                   active['vif_details'])):
        return
    after = itertools.dropwhile(lambda driver: driver is not us, _drivers())
    other = _bound(context, context.host, itertools.islice(after, 1, None))
    network = context.current['network_id']
    there = other and bindings.bridge(other, network)
    here = bindings.bridge(active, network)
    if there is None or there == here:
        return
    LOG.warning('tapmac has no other driver bind port %s on host %s beside '
                'its binding on %s: Nova would have it plugged into the '
                'bridge of that binding, %s, and there it is %s. Remedy: the '
                'operator must give both one name, or move its server by a '
                'cold migration.', context.current['id'], context.host,
                active['host'], here, there)
    context.set_binding(context.segments_to_bind[0][api.ID],
                        portbindings.VIF_TYPE_BINDING_FAILED, {})


def _bound(context: api.PortContext, host: str,
           drivers: typing.Iterable[api.MechanismDriver],
           ) -> dict[str, typing.Any] | None:
    for driver in drivers:
        trial = _Trial(context, host)
        # ML2 passes over one that fails, and says so when it is serious.
        with contextlib.suppress(Exception):
            driver.bind_port(trial)
        if trial.binding is not None:
            return trial.binding
    return None


def is_allocated(context: api.PortContext, us: api.MechanismDriver) -> bool:
    """Return whether Placement gave a port resources of another driver.

    ML2 has it bound by that driver then, whichever it asks first.
    """
    return bool(allocated(context.current)) and any(
        driver is not us and driver.responsible_for_ports_allocation(context)
        for driver in _drivers())


def allocated(port: typing.Mapping[str, typing.Any]) -> list[str]:
    """Return whose resources Placement gave a port: ids of providers."""
    found = (port.get(portbindings.PROFILE) or {}).get('allocation') or {}
    # Nova before its release 23 gave the id itself.
    return sorted(set(found.values() if isinstance(found, dict) else [found]))


def warn_of_gone(plugin_context: typing.Any) -> None:
    """Say so, if ports are bound by drivers that are not here any more."""
    manager = directory.get_plugin().mechanism_manager
    found = bindings.of_drivers_but(plugin_context, list(manager.mech_drivers))
    if found:
        LOG.warning(
            '%d ports are bound by mechanism drivers that are not in [ml2] '
            'mechanism_drivers: %s. Nobody serves these bindings, and none '
            'changes by itself. Remedy: the operator must have the ports '
            'bound anew ("tapmac-migrate plan" lists them, and what stops '
            'it), or restore the drivers.', sum(found.values()), ', '.join(
                '%d by %s' % (count, driver)
                for driver, count in sorted(found.items())))


def _drivers() -> typing.Iterator[api.MechanismDriver]:
    manager = directory.get_plugin().mechanism_manager
    return (driver.obj for driver in manager.ordered_mech_drivers)
