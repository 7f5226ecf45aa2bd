# SPDX-License-Identifier: Apache-2.0

"""What the commands tell of a TAP."""

import datetime
import functools
import typing

from oslo_log import log as logging

from vif_plug_tapmac import bounded
from vif_plug_tapmac.cli import output
from vif_plug_tapmac import exception
from vif_plug_tapmac.host.inventory import Inventory
from vif_plug_tapmac.host import keeping
from vif_plug_tapmac.host import searching
from vif_plug_tapmac.host.tap import Tap
from vif_plug_tapmac.kernel.link import Link
from vif_plug_tapmac import users
from vif_plug_tapmac.wanted import port_options

LOG = logging.getLogger(__name__)

#: What is told of each TAP, and what of that scripts only want.
COLUMNS = ('TAP', 'Bridge', 'Guest MAC', 'TAP MAC', 'VIF', 'MTU', 'Owner',
           'Mode', 'Addresses', 'Drops', 'Carrier', 'Made', 'Port options',
           'Domain', 'Instance', 'Domain known')
FOR_SCRIPTS = ('Instance', 'Domain known')


def require_one(seen: Inventory, which: str) -> Tap:
    """Return the one TAP of ours that is meant: see :mod:`searching`.

    :raises TapMacError: there is none, or several
    """
    found = searching.search(seen, which)
    if len(found) == 1:
        return found[0]
    raise exception.TapMacError(
        'No TAP of tapmac has this name, VIF id (%d characters of it at '
        'least), MAC, domain or instance here: %s.' % (searching.LEAST, which)
        if not found else '%s can be each of these TAPs: %s.' % (
            which, ', '.join('%s (guest %s on %s)' % (
                tap.shown_name, tap.guest_mac or 'unknown',
                tap.bridge.name if tap.bridge else 'no bridge')
                for tap in found)))


def is_of_bridge(tap: Tap, bridge: str) -> bool:
    """Return whether a TAP is on a bridge, or on none and belongs there."""
    if tap.bridge is not None:
        return tap.bridge.name == bridge
    return tap.mark is not None and tap.mark.bridge == bridge


def require_bridge(seen: Inventory, bridge: str) -> None:
    """Check that there is a bridge of this name.

    :raises TapMacError: there is none
    """
    if seen.bridge(bridge) is None:
        raise exception.TapMacError(
            'There is no bridge %s on this host.' % bridge)


def describe(seen: Inventory,
             tap: Tap) -> tuple[typing.Any, ...]:
    """Return what a TAP of ours has in each of :data:`COLUMNS`."""
    return (
        tap.shown_name, tap.bridge and tap.bridge.name, tap.guest_mac,
        tap.link.mac, tap.whose, tap.link.mtu,
        output.Said(None, 'everyone') if tap.link.owner is None
        else user(tap.link.owner),
        keeping.mode(seen, tap), _addresses(seen, tap), _drops(seen, tap),
        output.Said(tap.link.held, 'on' if tap.link.held else 'off'),
        tap.mark and _time(tap.mark.made),
        _port_options(tap.link),
        tap.nic.domain if tap.nic else None if seen.knows_domains
        else output.Said(None, 'unknown'),
        tap.nic and tap.nic.instance,
        tap.nic is not None or seen.knows_domains)


def _addresses(seen: Inventory, tap: Tap) -> typing.Any:
    """Return what a guest is kept to, where it is to any."""
    found = keeping.addresses(seen, tap)
    if found is None and keeping.is_closed(seen, tap.link):
        return output.Said(None, 'unknown to all but root')
    return found if found != [] else output.Said([], 'none')


def _drops(seen: Inventory, tap: Tap) -> typing.Any:
    """Return what was dropped of a guest's frames, most first."""
    if seen.drops is None:
        return output.Said(None, 'unknown to all but root')
    found = sorted(seen.drops.get(tap.link.index, {}).items(),
                   key=lambda each: (-each[1][0], each[0]))
    return output.Said(
        [{'Reason': reason, 'Packets': packets, 'Bytes': size}
         for reason, (packets, size) in found],
        ', '.join('%s: %d' % (reason, packets)
                  for reason, (packets, _) in found) or 'none')


def _time(made: int) -> str | None:
    try:
        return datetime.datetime.fromtimestamp(
            made, datetime.timezone.utc).isoformat()
    # No plug of ours writes this.
    except (OverflowError, OSError, ValueError):
        return None


def _port_options(link: Link) -> list[str]:
    """Return in what a port differs from a bridge's defaults."""
    return [('no ' if each.initial else '') + each.field for each in sorted(
        port_options.TABLE, key=lambda each: each.initial)
        if getattr(link, each.field) is (not each.initial)]


def user(uid: int | None) -> str:
    """Return how a TAP's owner is called, by number if nobody knows."""
    return 'everyone' if uid is None else _name_of(uid) or str(uid)


@functools.cache
def _name_of(uid: int) -> str | None:
    try:
        return users.name_of(uid)
    except bounded.Unanswered as error:
        LOG.warning('The directory of users (NSS) does not say who uid %d is, '
                    'so owners have numbers here: %s', uid, error)
        return None
