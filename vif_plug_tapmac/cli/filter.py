# SPDX-License-Identifier: Apache-2.0

"""``tapmac filter``: the emergency exit, for one guest or all of this host."""

import argparse
import typing

from oslo_log import log as logging

from vif_plug_tapmac.cli import as_root
from vif_plug_tapmac.cli import configuration
from vif_plug_tapmac.cli import layout
from vif_plug_tapmac.cli import output
from vif_plug_tapmac.cli import tap_table
from vif_plug_tapmac import exception
from vif_plug_tapmac.host import inventory
from vif_plug_tapmac.kernel import emergency_exit
from vif_plug_tapmac.kernel.emergency_exit import Exits
from vif_plug_tapmac.kernel import filter_table

LOG = logging.getLogger(__name__)

_COLUMNS = 'TAP', 'VIF', 'Filter'
_HOST = 'all of this host'


class Filter(output.Lister):
    """Say whether guests are filtered, or switch that off and on again.

    An emergency exit: --off opens one guest, or all of this host, whether they
    are kept to their addresses or to their security groups; --on takes that
    back, of the same. It is of effect at once, and stays so when services
    start again, guests are plugged again, or rules are flushed and come back,
    until the host is booted. "tapmac audit" has an error as long as it is off
    (TM317, and TM234 of one guest).

    What stays: no guest sends tags or frames to 01:80:c2, none reaches this
    host where host_shield is on, and the lock of its port keeps each guest to
    its MAC. Without --off and --on nothing is changed. Needs CAP_NET_ADMIN.
    """

    LAYOUT = layout.Columns(_COLUMNS, '')

    def columns(self, parsed_args: argparse.Namespace) -> tuple[str, ...]:
        return _COLUMNS

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        which = parser.add_mutually_exclusive_group()
        which.add_argument('--off', action='store_true',
                           help='let pass all that these guests send and get')
        which.add_argument('--on', action='store_true',
                           help='filter them again')
        parser.add_argument('taps', metavar='TAP', nargs='*',
                            help='only this one, as "tapmac show" takes it; '
                                 'default: all of this host, also those that '
                                 'come later')
        return parser

    def take_action(
        self, parsed_args: argparse.Namespace,
    ) -> tuple[tuple[str, ...], list[tuple[typing.Any, ...]]]:
        if not as_root.may_change_links():
            raise exception.TapMacError(
                'The filter is switched, and told, by CAP_NET_ADMIN only: run '
                'this as root.')
        seen = inventory.read(configuration.read(self.app_args))
        taps = parsed_args.taps
        if parsed_args.off:
            emergency_exit.switch_off(_wanted(seen, taps))
        elif parsed_args.on:
            emergency_exit.switch_on(_to_be_closed(
                seen, emergency_exit.now(), taps))
        elif taps:
            raise exception.TapMacError(
                'Nothing is changed: is the filter of %s to be switched --off '
                'or --on? "tapmac show" tells how it is.' % taps[0])
        return _COLUMNS, list(_rows(seen, emergency_exit.now()))


def _wanted(seen: inventory.Inventory, taps: list[str]) -> Exits:
    """Return who is to be open.

    :raises TapMacError: a TAP is not here, or not known by its VIF
    """
    found = [tap_table.require_one(seen, each) for each in taps]
    for tap in found:
        if tap.vif_id is None:
            raise exception.TapMacError(
                'Nothing is changed: nobody knows whose TAP %s is. Remedy: '
                'have it plugged, or switch the whole host off.'
                % tap.shown_name)
    return Exits(not found, {tap.link.index: str(tap.vif_id)
                             for tap in found})


def _to_be_closed(seen: inventory.Inventory, exits: Exits,
                  taps: list[str]) -> Exits:
    """Return which of these that are open are meant.

    :raises TapMacError: one is not among them
    """
    if not taps:
        return Exits(exits.is_host)
    closed: dict[int, str] = {}
    for which in taps:
        # The VIF of one whose TAP is gone is known here, too.
        vif_id = which.lower() if which.lower() in exits.ports.values() else (
            tap_table.require_one(seen, which).vif_id)
        found = {index: owner for index, owner in exits.ports.items()
                 if owner == vif_id}
        if not found:
            raise exception.TapMacError(
                'Nothing is changed: the filter of %s is not off by itself%s.'
                % (which, ', but that of the whole host is: "tapmac filter '
                   '--on" without a TAP' if exits.is_host else ''))
        closed |= found
    return Exits(ports=closed)


def _rows(seen: inventory.Inventory, exits: Exits,
          ) -> typing.Iterator[tuple[typing.Any, ...]]:
    if seen.guest_filter is None or seen.guest_filter.version is None:
        LOG.warning('There was no table bridge %s: guests were kept to their '
                    'MACs at most.', filter_table.NAME)
    yield _HOST, None, 'off' if exits.is_host else 'on'
    for index, vif_id in sorted(exits.ports.items()):
        link = seen.links.get(index)
        yield (link.name if link else output.Said(None, 'not here'), vif_id,
               'off')
