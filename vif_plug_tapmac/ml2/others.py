# SPDX-License-Identifier: Apache-2.0

"""What the other mechanism drivers would do with a port."""

import contextlib
import typing

from neutron_lib.api.definitions import portbindings
from neutron_lib.plugins import directory
from neutron_lib.plugins.ml2 import api


class _Trial:
    """A port that other drivers may bind on a host, if they would.

    That is all that happens: drivers change nothing but by these methods, or
    ML2 could not try them one after the other.
    """

    def __init__(self, context: api.PortContext, host: str) -> None:
        self._context = context
        self.host = host
        self.segments_to_bind = context.network.network_segments
        self.is_bound = False

    def __getattr__(self, name: str) -> typing.Any:
        return getattr(self._context, name)

    def host_agents(self, agent_type: str) -> typing.Any:
        return directory.get_plugin().get_agents(
            self._context.plugin_context.elevated(),
            filters={'agent_type': [agent_type], 'host': [self.host]})

    def set_binding(self, *values: typing.Any, **more: typing.Any) -> None:
        self.is_bound = True

    continue_binding = set_binding


def is_bound_before(context: api.PortContext, host: str,
                    us: api.MechanismDriver) -> bool:
    """Return whether a driver binds a port on a host that comes before us."""
    for driver in _drivers():
        if driver is us:
            break
        trial = _Trial(context, host)
        # ML2 passes over one that fails, and says so when it is serious.
        with contextlib.suppress(Exception):
            driver.bind_port(trial)
        if trial.is_bound:
            return True
    return False


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


def _drivers() -> typing.Iterator[api.MechanismDriver]:
    manager = directory.get_plugin().mechanism_manager
    return (driver.obj for driver in manager.ordered_mech_drivers)
