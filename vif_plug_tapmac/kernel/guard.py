# SPDX-License-Identifier: Apache-2.0

"""Keeping a guest to its own MAC: a locked port and a fixed entry.

A locked port takes frames only from MACs that the bridge's FDB has on this
very port, and with learning off the one such MAC is the guest's, which is put
there by hand. Its entry is "static sticky". Static alone, one frame from
another port with the guest's MAC as source moves it there, and the guest is
cut off; permanent, what is sent to the guest goes to the host.
Source: net/bridge/br_input.c, br_handle_frame_finish (BR_PORT_LOCKED);
net/bridge/br_fdb.c, br_fdb_update (BR_FDB_STICKY)

The entry also has the bridge send to the port what is for the guest. Where the
guest is still elsewhere, that is too early, and nothing in the kernel makes an
entry when a guest is first heard, and keeps it then (see the functional
tests). So the operator may choose a tc filter on the TAP instead for such a
guest; the bridge then learns where it is as it always does.

The order matters. A port that joins the bridge does so while it is down. One
that is up and on the bridge has the guest's entry before it is locked, so that
the guest is never cut off, and forgets afterwards what it had learned, for a
locked port goes on taking frames from that.
"""

import errno
import logging
import typing

from vif_plug_tapmac import exception
from vif_plug_tapmac.kernel.fdb import FdbEntry
from vif_plug_tapmac.kernel.link import Link
from vif_plug_tapmac.kernel import netlink as nl
from vif_plug_tapmac.kernel import source_filter
from vif_plug_tapmac import mark
from vif_plug_tapmac.wanted.port import TapPort

LOG = logging.getLogger(__name__)


class HeldElsewhere(Exception):
    """The guest of this VIF holds its TAP, which somebody renamed.

    :param name: what the TAP is called now
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


def find_guest(netlink: nl.Netlink, on_bridge: Link,
               port: TapPort, link: Link) -> FdbEntry | None:
    """Return where the FDB has the guest, None if nowhere or nobody cares.

    A fixed entry may be on what is no guest's TAP, as a tunnel, for which an
    EVPN makes some: there it was until now.

    :raises DeviceConflict: the FDB has it on another TAP for good, most
        likely because two guests have one MAC
    :raises HeldElsewhere: for good on another TAP of this VIF, that it holds
    """
    if not port.is_guarded:
        return None
    while True:
        entry = netlink.fdb_entry(on_bridge, port.guest_mac)
        if entry is None or not entry.fixed or entry.port_index == link.index:
            return entry
        other = netlink.get(entry.port_index, 'port %d of %s' % (
            entry.port_index, on_bridge.name))
        if other is not None:
            break
        # It was deleted between the two looks, and with it its entries.
    other_mark = mark.TapMark.parse(other.alias)
    if other_mark is not None and other_mark.vif_id == port.vif_id:
        # Another plug of this VIF is at work, or somebody renamed its TAP.
        # That has to give way, unless its guest would be cut off.
        if other.held and other.persistent and other.name != port.name:
            raise HeldElsewhere(other.name)
        return None
    if other_mark is None and not (other.is_tap and other.locked):
        return entry
    raise exception.DeviceConflict(
        device=port.name,
        reason='its guest\'s MAC %s is that of the guest of %s on bridge %s'
               % (port.guest_mac, other.name, on_bridge.name),
        remedy='give one of the two ports another MAC, or, if nothing uses '
               '%s, "bridge fdb del %s dev %s master"'
               % (other.name, port.guest_mac, other.name))


def is_arriving(port: TapPort, link: Link,
                entry: FdbEntry | None) -> bool:
    """Return whether the guest speaks elsewhere still, and may go on so.

    Its port is not locked then: the entry that this takes would draw frames
    to the TAP that are for the guest where it is. What has been locked stays
    so.

    :param entry: what :func:`find_guest` returned
    """
    return (port.is_guarded and port.arriving_guests == 'filter'
            and entry is not None and not entry.local and not entry.fixed
            and entry.port_index != link.index and not link.locked)


def warn_of_taking(netlink: nl.Netlink, port: TapPort, link: Link,
                   entry: FdbEntry | None) -> None:
    """Say if the guest's entry takes a MAC that speaks on the wire.

    It may be the guest itself, which was on another host a moment ago; or
    somebody whose traffic it gets from now on, as the gateway.

    :param entry: what :func:`find_guest` returned
    """
    other = _on_the_wire(netlink, port, link, entry)
    if other is None or entry is None:
        return
    LOG.warning('%s: its guest\'s MAC %s %s, and is its guest\'s from now on. '
                'If the guest has not come from another host just now, '
                'somebody there has this MAC, as a gateway, and what is sent '
                'to him from this host goes to the guest. Remedy: give the '
                'port another MAC.', port.name, port.guest_mac,
                'was heard on %s' % other.name if entry.heard
                else 'was on %s for good, as by EVPN' % other.name)


def warn_of_absent(netlink: nl.Netlink, port: TapPort, link: Link,
                   entry: FdbEntry | None) -> None:
    """Say if a guest that should have arrived by now speaks on the wire still.

    :param link: its TAP; since when its guest holds it, the kernel does not
        tell, but its mark, since when it is there
    :param entry: what :func:`find_guest` returned
    """
    found = mark.TapMark.parse(link.alias)
    if (not link.held or found is None
            or not found.is_older_than(mark.ARRIVES_WITHIN)):
        return
    other = _on_the_wire(netlink, port, link, entry)
    if other is not None:
        LOG.warning('%s: its guest\'s MAC %s is heard on %s, though a guest '
                    'holds the TAP, which is %d minutes old at least. If no '
                    'live migration of the guest is at work, somebody there '
                    'has this MAC, as a gateway, and what is sent to him from '
                    'this host goes to whom of both was heard last. Remedy: '
                    'give the port another MAC.', port.name, port.guest_mac,
                    other.name, mark.ARRIVES_WITHIN // 60)


def _on_the_wire(netlink: nl.Netlink, port: TapPort, link: Link,
                 entry: FdbEntry | None) -> Link | None:
    """Return where on the wire the FDB has the guest; None: not there."""
    if (entry is None or entry.local or entry.port_index == link.index
            or not entry.heard and not entry.fixed):
        return None
    other = netlink.get(entry.port_index)
    if other is None or other.is_tap and not other.is_called(
            port.uplink or ''):
        return None
    return other


def is_in_place(netlink: nl.Netlink, port: TapPort, link: Link,
                entry: FdbEntry | None, arriving: bool) -> bool:
    """Return whether what keeps the guest to its MAC is as it shall be.

    Beside the options of the port.
    """
    if arriving:
        return source_filter.is_there(netlink, link, port.guest_mac)
    return (not port.is_guarded or entry is not None and entry.fixed
            and entry.port_index == link.index)


def cover_vlans(netlink: nl.Netlink, on_bridge: Link, port: TapPort,
                link: Link) -> None:
    """Have the guest's entry in each VLAN that its port has by now.

    A bridge that filters VLANs looks for the entry in the VLAN of the frame,
    so that a locked port is mute in those that it got since. The kernel knows
    which these are, and adds what is missing: nobody else needs to ask.
    """
    if port.is_guarded and on_bridge.vlan_filtering:
        netlink.fix_fdb_entry(link, port.guest_mac)


def can_filter(netlink: nl.Netlink, port: TapPort, link: Link) -> bool:
    """Keep an arriving guest to its MAC by a filter, which is there then.

    :returns: False if this kernel cannot, which is said in the log: the guest
        is to be locked as any other
    """
    try:
        if not source_filter.is_there(netlink, link, port.guest_mac):
            source_filter.put(netlink, link, port.guest_mac)
        return True
    except exception.KernelRefused as error:
        if error.kwargs.get('code') not in (errno.ENOENT, errno.EOPNOTSUPP):
            raise
        LOG.warning('%s: its guest arrives, and can not be kept to its MAC by '
                    'a filter: %s. It is locked at once, so guests of this '
                    'host do not reach it before it is here. Remedy: %s, or '
                    'arriving_guests = lock.', port.name,
                    error.kwargs['error'], source_filter.REMEDY)
        return False


def is_guest_local(netlink: nl.Netlink, on_bridge: Link,
                   port: TapPort, link: Link) -> bool:
    """Return whether a TAP that joined just now has the guest's MAC.

    A fixed entry would hide this. It is for kernel/clash.py to see and solve,
    which it can once both TAPs are ports.

    :param link: the port's TAP, which joined just now, too
    """
    if not port.is_guarded:
        return False
    entry = netlink.fdb_entry(on_bridge, port.guest_mac)
    return (entry is not None and entry.local
            and entry.port_index != link.index)


def forget_former(netlink: nl.Netlink, port: TapPort,
                  link: Link) -> None:
    """Remove what kept the TAP to a MAC that it is not to be kept to.

    To be called before the mark changes, which tells of the former MAC.

    :param link: the TAP as it was read
    """
    found = mark.TapMark.parse(link.alias)
    if found is None:
        return
    if not port.is_guarded or found.guest_mac != port.guest_mac:
        source_filter.remove(netlink, link)
    if found.guest_mac != port.guest_mac and link.locked:
        netlink.remove_fdb_entry(link, found.guest_mac)


def finish_change(netlink: nl.Netlink, port: TapPort, link: Link,
                  changed: dict[str, typing.Any]) -> None:
    """Do what is due after a port was locked or unlocked while on its bridge.

    :param link: the port as it was before
    :param changed: the fields of a :class:`Link` that were set
    """
    if changed.get('locked') or changed.get('learning') is False:
        netlink.forget_learned(link)
        source_filter.remove(netlink, link)
    if changed.get('locked') is False:
        netlink.remove_fdb_entry(link, port.guest_mac)
