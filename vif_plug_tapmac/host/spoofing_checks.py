# SPDX-License-Identifier: Apache-2.0

"""What can be wrong with what keeps guests to their addresses."""

import contextlib
import os
import pathlib
import re
import typing

from vif_plug_tapmac.host.finding import finds
from vif_plug_tapmac.host.finding import REBOOT
from vif_plug_tapmac.host.finding import REPLUG
from vif_plug_tapmac.host.finding import Seen
from vif_plug_tapmac.host.inventory import Inventory
from vif_plug_tapmac.host import keeping
from vif_plug_tapmac.host import link_files
from vif_plug_tapmac.host.tap import Tap
from vif_plug_tapmac.kernel import adopting
from vif_plug_tapmac.kernel import filter_table
from vif_plug_tapmac.wanted import rules

#: How the table is named where something is wrong with it.
_TABLE = 'nftables'
_WHAT = 'the table bridge %s' % filter_table.NAME
_SERVICE, _FLUSH = 'nftables.service', re.compile(r'flush\s+ruleset')
#: In the commands of our drop-in.
_KEEPS = '${TAPMAC_'


@finds('TM227')
def _unfiltered(seen: Inventory, tap: Tap) -> Seen:
    if keeping.is_to_be_filtered(seen, tap) and _obstacle(tap) is None:
        yield (tap.link.name, 'anti_spoofing is full, and it is in link group '
               '%d instead of %d' % (tap.link.group, seen.filtered_group),
               REPLUG if tap.is_ours or tap.link.held else REBOOT)


@finds('TM233')
def _not_to_be_adopted(seen: Inventory, tap: Tap) -> Seen:
    why = _obstacle(tap)
    if why is not None and keeping.is_to_be_filtered(seen, tap):
        yield (tap.link.name, 'anti_spoofing is full, and a plug leaves its '
               'guest to its MAC at most: %s' % why, REBOOT)


def _obstacle(tap: Tap) -> str | None:
    """Return why a TAP is none of ours as long as its guest holds it."""
    if tap.is_ours or not tap.link.held:
        return None
    if not tap.has_nova_name:
        return 'its name is none that Nova gives to a TAP'
    return adopting.obstacle(tap.link)


@finds('TM228')
def _mute(seen: Inventory, tap: Tap) -> Seen:
    if (not _is_closed(seen, tap) or seen.guest_filter is None
            or seen.guest_filter.version is None or tap.guest_mac is None):
        return
    there = seen.guest_filter.ports.get(tap.link.index, {})
    if not any(each.set == rules.MACS and each.mac == tap.guest_mac
               for each in there):
        yield (tap.link.name, '%s lets nothing pass from %s there' % (
            _WHAT, tap.guest_mac), REPLUG)


@finds('TM229')
def _lets_pass(seen: Inventory, tap: Tap) -> Seen:
    if (not _is_closed(seen, tap) or seen.guest_filter is None
            or tap.vif_id is None):
        return
    others = [each for each, owner in seen.guest_filter.ports.get(
        tap.link.index, {}).items()
        if (each.mac, owner) != (tap.guest_mac, tap.vif_id)]
    if others:
        yield (tap.link.name, '%s lets pass from there what is of %s' % (
            _WHAT, ', '.join(sorted({each.address or each.mac
                                     for each in others}))), REPLUG)


def _is_closed(seen: Inventory, tap: Tap) -> bool:
    return tap.link.group == seen.filtered_group and tap.bridge is not None


def _names(seen: Inventory, *groups: int) -> list[str]:
    """Return the names of the TAPs that are in one of these groups.

    :param groups: none: the closed one
    """
    return sorted(link.name for link in seen.links.values()
                  if link.is_tap and link.master is not None
                  and link.group in (groups or [seen.filtered_group]))


@finds('TM312')
def _missing(seen: Inventory) -> Seen:
    taps = _names(seen)
    if taps and seen.guest_filter and seen.guest_filter.version is None:
        yield (_TABLE, '%s is not there, and %s' % (_WHAT, _kept(taps)),
               REPLUG)


@finds('TM313')
def _changed(seen: Inventory) -> Seen:
    if _names(seen, seen.filtered_group, seen.agent_group) and (
            seen.guest_filter is not None
            and seen.guest_filter.version is not None
            and not seen.guest_filter.is_right):
        yield (_TABLE, '%s has not what tapmac makes it of, or somebody '
               'emptied its sets, or it is of an older release, or dormant'
               % _WHAT, REPLUG)


@finds('TM314')
def _open(seen: Inventory) -> Seen:
    taps = _names(seen)
    if taps and (seen.guest_filter is not None
                 and seen.guest_filter.version is not None
                 and seen.filtered_group not in seen.guest_filter.groups):
        yield (_TABLE, 'link group %d is not in the set %s of %s, and %s' % (
            seen.filtered_group, filter_table.GROUPS, _WHAT, _kept(taps)),
            REPLUG)


@finds('TM315')
def _flushed(seen: Inventory) -> Seen:
    """Look for a service that takes the table away."""
    service = link_files.service(_SERVICE)
    if (service is None or not link_files.is_enabled(_SERVICE)
            or not (seen.is_filtering or seen.guest_filter is not None
                    and seen.guest_filter.version is not None)):
        return
    found = [key for key in ('ExecStart', 'ExecReload', 'ExecStop')
             if any(map(_flushes, service.said.get(('Service', key), ())))]
    if found:
        yield (_SERVICE, '%s of it flushes all rules, those of %s, too'
               % (' and '.join(found), _WHAT),
               'install tapmac.conf of the page Deploying with Nova, '
               'nftables.service, then "systemctl daemon-reload"')


def _flushes(command: str) -> bool:
    """Return whether a command flushes all rules, and those of guests."""
    if _KEEPS in command:
        return False
    said = [command]
    for word in command.split():
        with contextlib.suppress(OSError, UnicodeDecodeError):
            if os.path.isabs(word) and word.endswith(('.conf', '.nft')):
                said.append(pathlib.Path(word).read_text())
    return any(_FLUSH.search(each) for each in said)


def _kept(taps: typing.Sequence[str]) -> str:
    return 'the guest of %s%s is kept to its MAC only' % (
        taps[0], ' and %d more' % (len(taps) - 1) if len(taps) > 1 else '')


CHECKS = (_unfiltered, _mute, _lets_pass, _not_to_be_adopted)
TABLE_CHECKS = (_missing, _changed, _open, _flushed)
