# SPDX-License-Identifier: Apache-2.0

"""What a guest is kept to now: as it is in force, and not as configured."""

import errno
import typing

from vif_plug_tapmac import exception
from vif_plug_tapmac.host.tap import Tap
from vif_plug_tapmac.kernel import agent_guard
from vif_plug_tapmac.kernel import agent_port as agent_ports
from vif_plug_tapmac.kernel.agent_port import AgentPort
from vif_plug_tapmac.kernel.link import Link
from vif_plug_tapmac.kernel import netlink as nl
from vif_plug_tapmac.kernel import source_filter
from vif_plug_tapmac.wanted import rules

if typing.TYPE_CHECKING:
    from vif_plug_tapmac.host.inventory import Inventory

_T = typing.TypeVar('_T')

NONE, MAC, FULL, OFF = 'none', 'mac', 'full', 'off'


def mode(seen: 'Inventory', tap: Tap) -> str:
    """Return which of these a guest is kept to: nothing, its MAC, addresses.

    Or that it is open by the emergency exit. Whoever may not see the table
    takes the link group's word for it.
    """
    if is_off(seen, tap.link):
        return OFF
    if is_closed(seen, tap.link):
        return FULL
    return MAC if tap.link.locked or is_source_filtered(seen, tap) else NONE


def is_to_be_filtered(seen: 'Inventory', tap: Tap) -> bool:
    """Return whether a guest is to be kept to its addresses, and is not.

    One whose TAP is not ours counts as well.
    """
    return (seen.is_filtering and tap.bridge is not None
            and (tap.guest_mac is not None or tap.has_nova_name)
            and not tap.is_anothers
            and tap.link.group != seen.filtered_group)


def is_to_be_the_agents(seen: 'Inventory', tap: Tap) -> bool:
    """Return whether an agent is to say what passes a TAP, and does not yet.

    One that is not ours counts as well, if a guest of Nova's runs on it.
    """
    return (seen.is_of_agent and tap.bridge is not None
            and (tap.mark is not None or tap.link.held and tap.has_nova_name)
            and not tap.is_anothers and not is_agents(seen, tap))


def is_guarded_by_agent(seen: 'Inventory', tap: Tap) -> bool:
    """Return whether nothing passes a TAP but what an agent has said of it."""
    table = seen.guest_filter
    return (table is not None and by_agent(seen, tap) is not None
            and seen.agent_group in table.groups
            and seen.agent_group in table.agent_groups
            and not is_off(seen, tap.link))


def is_off(seen: 'Inventory', link: Link) -> bool:
    """Return whether a port that would be closed is open by the exit."""
    table = seen.guest_filter
    return table is not None and link.group in table.groups and (
        table.exits.is_host or link.index in table.exits.ports)


def is_closed(seen: 'Inventory', link: Link) -> bool:
    """Return whether what a port's guest sends is looked at by the table."""
    table = seen.guest_filter
    if table is None:
        return link.group == seen.filtered_group
    return table.version is not None and link.group in table.groups


def addresses(seen: 'Inventory', tap: Tap) -> list[str] | None:
    """Return what a guest is kept to; None: to none, or nobody knows."""
    if seen.guest_filter is None or not is_closed(seen, tap.link):
        return None
    return sorted({each.address for each in seen.guest_filter.ports.get(
        tap.link.index, ()) if each.set in (rules.IPV4, rules.IPV6)
        and each.address is not None})


def is_source_filtered(seen: 'Inventory', tap: Tap) -> bool:
    """Return whether a guest is kept to its MACs without lock.

    As one that arrives, and one that an agent gave pairs of other MACs.
    """
    kept = by_agent(seen, tap)
    if kept is not None and not kept.locked:
        return kept.macs is not None and _has_filter(tap, *kept.macs)
    # Where the kernel has no lock, an agent has a filter instead.
    may_be = kept is not None and tap.link.locked is None or (
        seen.wanted and seen.wanted['arriving_guests'] == 'filter')
    return (tap.guest_mac is not None and bool(may_be)
            and _has_filter(tap, tap.guest_mac))


def _has_filter(tap: Tap, *macs: str) -> bool:
    return bool(_ask(lambda netlink: source_filter.is_there(
        netlink, tap.link, *macs)))


def sources(tap: Tap) -> frozenset[str] | None:
    """Return to which MACs a filter of ours on a TAP keeps its guest.

    :returns: None: there is none, or the TAP is gone
    """
    return _ask(lambda netlink: source_filter.sources(netlink, tap.link))


def _ask(what: typing.Callable[[nl.Netlink], _T]) -> _T | None:
    with nl.Netlink() as netlink:
        try:
            return what(netlink)
        except exception.KernelRefused as error:
            if error.kwargs.get('code') != errno.ENODEV:
                raise
            return None  # It is gone by now.


def by_agent(seen: 'Inventory', tap: Tap) -> agent_guard.Kept | None:
    """Return what an agent has a port kept to; None: it does not say."""
    if seen.guest_filter is None or not is_agents(seen, tap):
        return None
    return agent_guard.of_table(seen.guest_filter, tap.link.index)


def is_agents(seen: 'Inventory', tap: Tap) -> bool:
    """Return whether an agent is to say what passes at a TAP."""
    return tap.link.group == seen.agent_group


def agent_port(tap: Tap) -> AgentPort | None:
    """Return what an agent has in force at a TAP; None: nothing.

    :raises KernelRefused: this process may not ask for it
    :raises VerifyFailed: others change rules all the time
    """
    return agent_ports.read(tap.link.index,
                            tap.bridge.name if tap.bridge else None)


def macs(seen: 'Inventory', tap: Tap) -> set[str]:
    """Return from which MACs a guest may speak, where it is kept to any."""
    kept = by_agent(seen, tap)
    return {*(kept and kept.macs or ()),
            *([tap.guest_mac] if tap.guest_mac else [])}


def is_locked_out(tap: Tap, mac: str) -> bool:
    """Return whether the lock of a port drops what comes in from a MAC.

    Source: net/bridge/br_input.c, br_handle_frame_finish
    """
    if not tap.link.locked or tap.bridge is None:
        return False
    with nl.Netlink() as netlink:
        entry = netlink.fdb_entry(tap.bridge, mac)
    return (entry is None or entry.local
            or entry.port_index != tap.link.index)
