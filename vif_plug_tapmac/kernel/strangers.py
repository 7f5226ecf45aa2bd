# SPDX-License-Identifier: Apache-2.0

"""What others put into an FDB: MACs on a TAP's port that are not its guest's.

A locked port takes frames from each MAC that the FDB has there, so that one
entry more lets the guest speak as somebody else for good; and where an entry
has a MAC at the bridge itself, the host gets what is for its guest.

The kernel goes through the whole FDB of a bridge for the entries of one port,
so that no plug asks for them: whoever looks at a host does.
Source: net/bridge/br_fdb.c, br_fdb_dump
"""

import errno
import typing

from vif_plug_tapmac.kernel import bridge
from vif_plug_tapmac.kernel import fdb
from vif_plug_tapmac.kernel.fdb import PlacedEntry
from vif_plug_tapmac.kernel.link import Link
from vif_plug_tapmac.kernel import netlink as nl
from vif_plug_tapmac.kernel import rtnetlink
from vif_plug_tapmac import mark


def entries(netlink: nl.Netlink, link: Link | None) -> list[PlacedEntry]:
    """Return the entries of all FDBs, but for MACs of devices themselves.

    :param link: only those of this port, or of this bridge and its ports
    """
    found = netlink.list(
        link.name if link else 'the host', 'listing its forwarding entries',
        rtnetlink.GET_NEIGHBOUR,
        rtnetlink.neighbour(link.index if link else 0),
        PlacedEntry.from_message, tolerated=errno.ENODEV)
    return [entry for entry in found if not entry.of_device]


def of_port(link: Link, guest_mac: str,
            found: typing.Iterable[PlacedEntry]) -> list[str]:
    """Return the MACs that a TAP's port has and should not have.

    One that was heard there is no stranger as long as the port learns.
    """
    return sorted({entry.mac for entry in found
                   if entry.index == link.index
                   and entry.mac not in (guest_mac, link.mac)
                   and (entry.stays or bool(link.locked)
                        and not link.learning)})


def of_bridge(link: Link, found: typing.Iterable[PlacedEntry]) -> list[str]:
    """Return the MACs that are not the bridge's, and whose frames it keeps."""
    return sorted({entry.mac for entry in found
                   if entry.index == link.index and entry.mac != link.mac})


def remove(name: str, bridge_group: int) -> list[str]:
    """Remove them from the port of a TAP of ours, or from a bridge of ours.

    :returns: the MACs that were removed; none from anything else
    """
    with nl.Netlink() as netlink:
        link = netlink.find(name)
        if link is None:
            return []
        its_mark = mark.TapMark.parse(link.alias)
        if link.is_tap and link.master is not None and its_mark is not None:
            macs = of_port(link, its_mark.guest_mac, entries(netlink, link))
            for mac in macs:
                netlink.remove_fdb_entry(link, mac)
            return macs
        if not bridge.is_ours(link, bridge_group):
            return []
        macs = of_bridge(link, entries(netlink, link))
        for mac in macs:
            netlink.set(name, 'removing %s from its FDB' % mac,
                        rtnetlink.DELETE_NEIGHBOUR,
                        fdb.of_host(link.index, mac), tolerated=errno.ENOENT)
        return macs
