# SPDX-License-Identifier: Apache-2.0

"""Setting what differs on a TAP until it reads back right."""

import dataclasses
import errno
import logging
import time
import typing

from vif_plug_tapmac import exception
from vif_plug_tapmac.kernel import address_guard
from vif_plug_tapmac.kernel import agent_guard
from vif_plug_tapmac.kernel import bridge_port
from vif_plug_tapmac.kernel import clash
from vif_plug_tapmac.kernel import guard
from vif_plug_tapmac.kernel import link as link_data
from vif_plug_tapmac.kernel.link import Link
from vif_plug_tapmac.kernel import netlink as nl
from vif_plug_tapmac.kernel import settings
from vif_plug_tapmac.kernel import shield
from vif_plug_tapmac.kernel import sysctl
from vif_plug_tapmac.kernel import uplink
from vif_plug_tapmac import mark
from vif_plug_tapmac.wanted.limits import Limits
from vif_plug_tapmac.wanted.port import TapPort

LOG = logging.getLogger(__name__)

# Set, read back and found good; or repaired once and found good; and one more
# where two TAPs that cross each other's guests join at once.
_ROUNDS = 4
# For how long a plug begins again because others, who make the table of
# guests anew at the same time, have its TAP out of the group, in seconds.
_GIVES_UP_AFTER = 10.0


class Overtaken(Exception):
    """The host changed while we worked on it; it deserves another look.

    :param error: what to raise if it never gets better
    """

    def __init__(self, error: exception.TapMacError) -> None:
        super().__init__(str(error))
        self.error = error


def wanted_fields(port: TapPort, tap_mark: mark.TapMark | None,
                  ) -> dict[str, typing.Any]:
    """Return the fields that a TAP shall have, but for MAC and master.

    :param tap_mark: None if tapmac did not make it: it stays without mark
    """
    wanted: dict[str, typing.Any] = {'up': True}
    if port.mtu is not None:
        wanted['mtu'] = port.mtu
    if tap_mark is not None:
        alias = mark.TapMark(port.vif_id, port.guest_mac, port.bridge,
                             tap_mark.made)
        wanted.update(group=port.group, alias=str(alias),
                      addr_gen_mode=link_data.ADDR_GEN_NONE)
    return wanted


def converge(netlink: nl.Netlink, port: TapPort, limits: Limits,
             on_bridge: Link, link: Link,
             wanted: dict[str, typing.Any]) -> Link:
    """Set what differs until it reads back right; return what was read.

    What its guest is to be kept to is there before, or it is cut off.
    """
    lasting = dict(wanted, master=on_bridge.index)
    shield.ensure(netlink, port, limits.service)
    found, locks = link, False
    by_agent = _is_agents(port, on_bridge, link)
    if not by_agent:
        guard.forget_former(netlink, port, link)
    rounds, until = _ROUNDS, time.monotonic() + _GIVES_UP_AFTER
    try:
        while rounds > 0:
            rounds -= 1
            wanted = dict(lasting, mac=clash.settle_tap_mac(
                netlink, on_bridge, port, link))
            entry = (None if by_agent else
                     guard.find_guest(netlink, on_bridge, port, link))
            arriving = (guard.is_arriving(port, link, entry)
                        and guard.can_filter(netlink, port, link))
            wanted.update(bridge_port.wanted_options(port, arriving),
                          **bridge_port.wanted_state(link, on_bridge))
            if by_agent:
                wanted.update(locked=bool(link.locked),
                              learning=link.learning is not False)
            if 'alias' in wanted:
                wanted.update(bridge_port.wanted_of_device(link))
            differing = _differing(link, wanted)
            guarded = by_agent or guard.is_in_place(netlink, port, link, entry,
                                                    arriving)
            if guarded and not differing:
                if arriving:
                    guard.warn_of_absent(netlink, port, link, entry)
                elif not by_agent or link.locked:
                    guard.cover_vlans(netlink, on_bridge, port, link)
                if by_agent and locks and address_guard.is_unlocked(link):
                    # It was on no bridge, or an agent came meanwhile.
                    agent_guard.restore(port.name, port.agent_group)
                uplink.lend(netlink, port, on_bridge, link)
                # Somebody may have flushed it since it was put there.
                address_guard.ensure(netlink, port, link)
                address_guard.leave(port, found)
                if not _was_in_group(port, found):
                    return link
                # Whoever knew no addresses may have had it out of the group
                # before they were there.
                link = require_tap(netlink.get(link.index, port.name), port)
                if link.group == port.group:
                    return link
                if time.monotonic() < until:
                    rounds = _ROUNDS
                continue
            locks |= not by_agent
            if not guarded and not arriving:
                guard.warn_of_taking(netlink, port, link, entry)
            _set(netlink, port, on_bridge, link, differing,
                 guarded or arriving)
            link = require_tap(netlink.get(link.index, port.name), port)
            by_agent = _is_agents(port, on_bridge, link)
    except exception.KernelRefused:
        # If the bridge is gone, that is why.
        require_bridge_name(port, on_bridge)
        raise
    raise exception.VerifyFailed(
        device=port.name,
        differences=link.explain(_differing(link, wanted))
        or 'bridge %s does not keep the guest to its MAC' % port.bridge)


def _is_agents(port: TapPort, on_bridge: Link, link: Link) -> bool:
    """Return whether what the bridge keeps a port to is an agent's."""
    return (port.is_of_agent and link.group == port.agent_group
            and link.master == on_bridge.index and address_guard.is_fed(link))


def _was_in_group(port: TapPort, found: Link) -> bool:
    return port.is_filtered and found.group == port.group


def converge_again(netlink: nl.Netlink, port: TapPort, limits: Limits,
                   on_bridge: Link, link: Link,
                   wanted: dict[str, typing.Any]) -> Link:
    """Do the same with the TAP as it is by now.

    :raises Overtaken: it has its name no more
    """
    return converge(netlink, port, limits, on_bridge, require_tap(
        netlink.get(link.index, port.name), port), wanted)


def _differing(link: Link,
               wanted: dict[str, typing.Any]) -> dict[str, typing.Any]:
    """Return the wanted fields that are to be set."""
    differing = link.differences(wanted)
    if not _can_have_ipv6(link, wanted):
        differing.pop('addr_gen_mode', None)
        differing.pop('takes_ra', None)
    joins = 'master' in differing
    for field, initial in link_data.PORT_FIELDS.items():
        # What the kernel does not tell is as it always was.
        seen = None if joins else getattr(link, field)
        if (initial if seen is None else seen) == wanted[field]:
            differing.pop(field, None)
        else:
            differing[field] = wanted[field]
    if 'newer_options' in differing:
        differing['newer_options'] = link.newer_options
    return differing


def _set(netlink: nl.Netlink, port: TapPort, on_bridge: Link,
         link: Link, differing: dict[str, typing.Any],
         fixed: bool) -> None:
    """Set what differs, so that no frame comes in unguarded meanwhile.

    :param fixed: whether the guest's MAC is in the FDB where it is to be, or
        is not to be there
    """
    LOG.debug('%s: setting %s', port.name, differing)
    step = 'setting %s on bridge %s' % (', '.join(differing), port.bridge)
    joins = 'master' in differing
    if not joins:
        bridge_port.require_kernel(link, differing)
    if joins and link.up:
        # It has no network yet, so a guest that holds it loses nothing.
        netlink.change(link, {'up': False}, step)
        differing['up'] = True
    late = {field: differing.pop(field) for field in list(differing)
            if field in settings.FLAGS or field in link_data.PORT_FIELDS
            or field == 'port_state'}
    if 'name' in differing and port.multi_queue:
        # Who gets in by its name from now on is its guest; nobody else is.
        require_sole_user(port, require_tap(netlink.get(link.index, port.name),
                                            port, link.name))
    try:
        netlink.change(link, differing, step)
    except exception.KernelRefused as error:
        if error.kwargs.get('code') == errno.EBUSY and 'name' in differing:
            _require_down(netlink, link, error)
        raise
    link = dataclasses.replace(link, name=port.name)
    if 'takes_ra' in differing:  # Before it comes up.
        sysctl.write_if_allowed(link, 'ipv6', 'accept_ra', '0')
    if joins and guard.is_guest_local(netlink, on_bridge, port, link):
        return
    try:
        if not fixed:
            netlink.fix_fdb_entry(link, port.guest_mac)
        netlink.change(link, late, step)
    except exception.KernelRefused:
        seen = netlink.get(link.index, port.name)
        if seen is None or seen.master == on_bridge.index:
            raise
        # Taken off the bridge meanwhile: the next round puts it back.
        LOG.debug('%s: no port of bridge %s any more', port.name, port.bridge)
        return
    if joins:
        return
    guard.finish_change(netlink, port, link, late)
    if 'addr_gen_mode' in differing and link.up:
        # It has its addresses already.
        netlink.remove_addresses(link)


def _require_down(netlink: nl.Netlink, link: Link,
                  error: exception.KernelRefused) -> None:
    """Check that a TAP is down as it is to be until it has its name.

    Before Linux 6.2 a link that is up keeps the name it has.

    :raises Overtaken: somebody has brought it up meanwhile
    """
    seen = netlink.get(link.index, link.name)
    if seen is not None and seen.up:
        raise Overtaken(error)


def require_sole_user(port: TapPort, link: Link) -> None:
    """Check that nobody but us holds a TAP that we are making.

    :raises Overtaken: somebody got in
    """
    sole_user = {'is_tap': True, 'owner': port.owner,
                 'multi_queue': port.multi_queue,
                 'queues': 1 if port.multi_queue else None}
    if link.differences(sole_user):
        raise Overtaken(exception.VerifyFailed(
            device=port.name, differences=link.explain(sole_user)))


def _can_have_ipv6(link: Link, wanted: dict[str, typing.Any]) -> bool:
    """Whether there are IPv6 settings on the link, and will be."""
    return (link.addr_gen_mode is not None
            and wanted.get('mtu', link.mtu) >= link_data.IPV6_MTU_MIN)


def require_tap(link: Link | None, port: TapPort,
                name: str | None = None) -> Link:
    """Return the link if it has its name still.

    :param name: None: the port's
    """
    if link is None or link.name != (name or port.name):
        raise Overtaken(exception.VerifyFailed(
            device=port.name,
            differences='it was %s' % ('deleted' if link is None
                                       else 'renamed to ' + link.name)))
    return link


def require_bridge_name(port: TapPort, on_bridge: Link) -> None:
    if not nl.is_named(on_bridge.index, port.bridge):
        raise Overtaken(exception.VerifyFailed(
            device=port.bridge,
            differences='the bridge was removed or renamed'))
