# SPDX-License-Identifier: Apache-2.0

"""Lock, learning and FDB entry of a port whose TAP an agent feeds.

With its own MAC only it is kept to that as by any plug: see guard.py. With
allowed address pairs of other MACs it can not: a MAC that two guests share, as
VRRP has them do, is where it was heard last, and a fixed entry, or a port that
learns nothing, would keep it from there. Such a port is not locked, and
learns. The table holds its guest to its MACs, and a filter on its TAP besides,
for the bridge learns from what no rule sees. Where port security is off it is
kept to nothing.

What is to be had less comes before a transaction, and what is to be had more
after it: whoever is killed in between leaves no port that lets pass more than
it did, or shall. Without the rules that close its link group, or while nobody
feeds it, no port is unlocked.
"""

import contextlib
import logging
import typing

from vif_plug_tapmac import exception
from vif_plug_tapmac.kernel.fdb import FdbEntry
from vif_plug_tapmac.kernel import filter_state
from vif_plug_tapmac.kernel.link import Link
from vif_plug_tapmac.kernel import netlink as nl
from vif_plug_tapmac.kernel import source_filter
from vif_plug_tapmac import mark
from vif_plug_tapmac.wanted import rules
from vif_plug_tapmac.wanted.security_groups import Port

LOG = logging.getLogger(__name__)

_LOCKED = {'locked': True, 'learning': False}
_UNLOCKED = {'locked': False, 'learning': True}


class Kept(typing.NamedTuple):
    """What a port is kept to.

    :param locked: whether by the bridge: to one MAC
    :param macs: to which by a filter on its TAP; None: by none
    """
    locked: bool
    macs: frozenset[str] | None = None


LOCKED, OPEN = Kept(True), Kept(False)


def wanted(port: Port) -> Kept:
    """Return what a port is to be kept to."""
    return _kept(port.is_open, {port.mac, *(mac for mac, _ in port.own)})


def of_table(table: filter_state.State, index: int) -> Kept | None:
    """Return the same as the table has it; None: nobody feeds this port."""
    if index not in table.fed:
        return None
    return _kept(index in table.open, {
        each.mac for each in table.ports.get(index, ())
        if each.set == rules.MACS})


def _kept(is_open: bool, macs: set[str]) -> Kept:
    if is_open:
        return OPEN
    return Kept(False, frozenset(macs)) if len(macs) > 1 else LOCKED


def is_so(link: Link, kept: Kept) -> bool:
    """Return whether a port, as it was read, is kept to that for sure."""
    return kept.locked and not link.differences(_LOCKED)


class Narrowing:
    """Ports that let less pass already, before the rules do.

    Should they have to stay as they are, these go back.

    :param group: that of TAPs that an agent feeds: all others are left alone
    """

    def __init__(self, netlink: nl.Netlink, group: int) -> None:
        self._netlink, self._group = netlink, group
        self._done: dict[int, Link] = {}

    def begin(self, before: set[int], after: set[int],
              ports: typing.Mapping[int, Port]) -> None:
        """Have ports let no more pass than they are to; once each.

        :param before: the indexes of those that the table has as not locked
        :param after: and of those that it is to have then
        :param ports: which of these there is something new of; others that
            are not locked then stay as they are
        :raises KernelRefused, VerifyFailed: one is as it was, or narrower
        """
        for index in before - self._done.keys():
            kept = (wanted(ports[index]) if index in ports
                    else None if index in after else LOCKED)
            link = kept and self._netlink.get(index)
            if kept and link and link.group == self._group:
                self._done[index] = link
                _narrow(self._netlink, link, kept)

    def undo(self) -> None:
        """Have them as the table has them, which is as it was."""
        for link in self._done.values():
            try:
                restore(link.name, self._group)
            except exception.TapMacError as error:
                LOG.warning('%s: what its guest sends from MACs of allowed '
                            'address pairs may not pass before the agent says '
                            'again what may: %s', link.name, error)


def _narrow(netlink: nl.Netlink, link: Link, kept: Kept) -> None:
    if link.locked:
        return
    if kept.locked:
        have(netlink, link, kept)
    elif kept.macs is not None:
        there = source_filter.sources(netlink, link)
        if there is None or there - kept.macs:
            source_filter.put(netlink, link, *(
                kept.macs if there is None else kept.macs & there))


def have(netlink: nl.Netlink, link: Link, kept: Kept) -> bool:
    """Have a port kept to this.

    :param link: a TAP, as it was read; one that is on no bridge is for the
        plug that puts it there
    :returns: whether it is to be locked when its guest is heard there, which
        speaks elsewhere still, and is kept to its MAC by a filter until then
    :raises KernelRefused, VerifyFailed: it is kept to that, to what it was
        kept to, or to less
    """
    found = mark.TapMark.parse(link.alias)
    if link.master is None or found is None:
        return False
    if kept.locked and link.locked is None:
        # Before Linux 5.18 it can not be, and some of these have no filter.
        with contextlib.suppress(exception.KernelRefused):
            _unlock(netlink, link, found.guest_mac,
                    frozenset([found.guest_mac]))
    elif kept.locked:
        return not _lock(netlink, link, found.guest_mac)
    else:
        _unlock(netlink, link, found.guest_mac, kept.macs)
    return False


def _lock(netlink: nl.Netlink, link: Link, mac: str) -> bool:
    entry = _entry(netlink, link, mac)
    if (not link.locked and entry and not entry.local
            and entry.port_index != link.index):
        # It has not arrived yet, or somebody there has its MAC: see guard.py.
        _unlock(netlink, link, mac, frozenset([mac]))
        return False
    if not entry or not entry.fixed or entry.port_index != link.index:
        netlink.fix_fdb_entry(link, mac)
    if link.differences(_LOCKED):
        netlink.change(link, {'learning': False}, 'having it learn nothing')
        netlink.forget_learned(link)
        netlink.change(link, {'locked': True}, 'locking it')
        _require(netlink, link, _LOCKED)
    source_filter.remove(netlink, link)
    return True


def _unlock(netlink: nl.Netlink, link: Link, mac: str,
            macs: frozenset[str] | None) -> None:
    if macs is not None and not source_filter.is_there(netlink, link, *macs):
        source_filter.put(netlink, link, *macs)
    differing = link.differences(
        {field: value for field, value in _UNLOCKED.items()
         if getattr(link, field) is not None})
    if differing:
        netlink.change(link, differing, 'unlocking it')
    entry = _entry(netlink, link, mac)
    if entry and entry.fixed and entry.port_index == link.index:
        # Not before: a port that is locked takes nothing without it.
        netlink.remove_fdb_entry(link, mac)
    if macs is None:
        source_filter.remove(netlink, link)
        if source_filter.sources(netlink, link) is not None:
            raise exception.VerifyFailed(
                device=link.name, differences='the filter on it that takes '
                'some source MACs only stays')
    if differing:
        _require(netlink, link, differing)


def _entry(netlink: nl.Netlink, link: Link, mac: str) -> FdbEntry | None:
    """Return where the bridge of a port has a MAC."""
    bridge = netlink.get(link.master or 0)
    return netlink.fdb_entry(bridge, mac) if bridge else None


def _require(netlink: nl.Netlink, link: Link,
             fields: dict[str, typing.Any]) -> None:
    seen = netlink.get(link.index, link.name)
    if seen is not None and seen.differences(fields):
        raise exception.VerifyFailed(device=link.name,
                                     differences=seen.explain(fields))


def restore(name: str, group: int) -> None:
    """Have a port kept to what the table has for it.

    Nothing is done about what is no TAP of ours in the agent's group, or what
    nobody feeds.

    :param group: that of TAPs that an agent feeds
    :raises KernelRefused, VerifyFailed: as :func:`have`
    """
    with nl.Netlink() as netlink:
        link = netlink.find(name)
        if link is None or not link.is_tap or link.group != group:
            return
        kept = of_table(filter_state.state(), link.index)
        if kept is not None:
            _narrow(netlink, link, kept)
            seen = netlink.get(link.index, name)
            if seen is not None:
                have(netlink, seen, kept)
