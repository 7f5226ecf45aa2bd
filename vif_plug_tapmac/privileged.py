# SPDX-License-Identifier: Apache-2.0

"""The doors: all that an unprivileged process can ask root to do.

What is behind them is loaded by the first who goes through, on the other side:
nova-compute needs none of it.
"""

import types
import typing

from oslo_config import cfg

from vif_plug_tapmac import opts
from vif_plug_tapmac import privsep
from vif_plug_tapmac.wanted import from_config
from vif_plug_tapmac.wanted.port import TapIdentity
from vif_plug_tapmac.wanted.port import TapPort


def _kernel() -> tuple[types.ModuleType, types.ModuleType]:
    """Load what makes and what removes TAPs, both at the first call.

    A package may be upgraded under a daemon that runs: what it needs later is
    to be of the same release.
    """
    from vif_plug_tapmac.kernel import port
    from vif_plug_tapmac.kernel import removing
    return port, removing


@privsep.vif_plug.entrypoint
def ensure_port(fields: dict[str, typing.Any]) -> str | None:
    """Make or mend a TAP; see :func:`vif_plug_tapmac.kernel.port.ensure`.

    :param fields: of a :class:`vif_plug_tapmac.wanted.port.TapPort`
    :returns: what was made, for the caller's log; None if nothing was
    :raises InvalidConfig: this side reads another configuration, or does not
        allow the bridge; the host is untouched
    """
    kernel_port, _ = _kernel()
    config = opts.group(cfg.CONF)
    port = TapPort.from_fields(fields)
    from_config.require_same(port, config)
    made: str | None = kernel_port.ensure(port, from_config.limits(
        config, from_config.service(cfg.CONF)))
    return made


@privsep.vif_plug.entrypoint
def remove_port(fields: dict[str, typing.Any]) -> None:
    """Remove a TAP; see :func:`vif_plug_tapmac.kernel.removing.remove`.

    :param fields: of a :class:`vif_plug_tapmac.wanted.port.TapIdentity`
    """
    _, removing = _kernel()
    config = opts.group(cfg.CONF)
    removing.remove(TapIdentity.from_fields(fields),
                    from_config.groups(config))


@privsep.vif_plug.entrypoint
def remove_ports(ports: typing.Iterable[dict[str, typing.Any]],
                 also_held: bool) -> list[str]:
    """Remove many; see :func:`vif_plug_tapmac.kernel.removing.remove_many`.

    :param ports: fields of :class:`vif_plug_tapmac.wanted.port.TapIdentity`
    :returns: the names of those that were removed
    """
    _, removing = _kernel()
    config = opts.group(cfg.CONF)
    removed: list[str] = removing.remove_many(
        [TapIdentity.from_fields(fields) for fields in ports], also_held,
        from_config.group(config), from_config.groups(config))
    return removed


@privsep.filter.entrypoint
def apply_filter(fields: dict[str, typing.Any]) -> dict[str, typing.Any]:
    """Have guests kept to their security groups, as an agent says.

    See :func:`vif_plug_tapmac.kernel.agent_filter.apply`. From the first
    time on, what others do to that is undone.

    :param fields: of a
        :class:`vif_plug_tapmac.wanted.security_groups.Change`
    :returns: what :class:`vif_plug_tapmac.kernel.agent_filter.Applied` has
    :raises ValueError: a field is missing, unknown or wrong; the host is
        untouched
    """
    from vif_plug_tapmac.kernel import agent_filter
    from vif_plug_tapmac.kernel import agent_healing
    from vif_plug_tapmac.wanted import security_groups
    config = opts.group(cfg.CONF)
    change = security_groups.Change.from_fields(fields)
    agent_healing.start()
    applied: dict[str, typing.Any] = agent_filter.apply(
        change, from_config.groups(config),
        moves=config.firewall == 'agent')._asdict()
    return applied


@privsep.filter.entrypoint
def join_interface(fields: dict[str, typing.Any]) -> bool:
    """Have an interface of DHCP, or of a router, on its bridge.

    See :func:`vif_plug_tapmac.kernel.interface.join`.

    :param fields: as for :func:`from_config.interface`
    """
    from vif_plug_tapmac.kernel import interface
    config = opts.group(cfg.CONF)
    joined: bool = interface.join(
        from_config.interface(config, fields),
        from_config.limits(config, from_config.service(cfg.CONF)))
    return joined


@privsep.filter.entrypoint
def unfed_taps(names: typing.Iterable[str]) -> list[str]:
    """Return which of these TAPs pass nothing, for no agent feeds them yet.

    See :func:`vif_plug_tapmac.kernel.agent_elements.unfed`. Nothing changes.

    :raises KernelRefused: the kernel does not say
    """
    from vif_plug_tapmac.kernel import agent_elements
    config = opts.group(cfg.CONF)
    return agent_elements.unfed(names, from_config.groups(config).agent)


@privsep.filter.entrypoint
def knows_connections() -> bool:
    """Return whether this kernel has conntrack for bridges.

    See :func:`vif_plug_tapmac.kernel.agent_connections.is_possible`.

    :raises KernelRefused: it does not say
    """
    from vif_plug_tapmac.kernel import agent_connections
    return agent_connections.is_possible()
