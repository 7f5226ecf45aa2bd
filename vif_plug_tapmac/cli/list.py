# SPDX-License-Identifier: Apache-2.0

"""``tapmac list``: the TAPs on this host."""

import argparse
import typing

from vif_plug_tapmac.cli import configuration
from vif_plug_tapmac.cli import layout
from vif_plug_tapmac.cli import output
from vif_plug_tapmac.cli import tap_table
from vif_plug_tapmac.host import inventory
from vif_plug_tapmac.host import keeping


class List(output.Lister):
    """List the TAPs of tapmac on this host.

    The mode is what its guest is kept to now: nothing, its MAC, or its
    addresses ("full"), which only root is told. With anti_spoofing = full,
    TAPs are listed, too, that are not tapmac's, if they are on its bridges and
    Nova calls them so: their guests may not be kept to their addresses.
    Nothing is changed, and no privilege is needed. The columns are those of
    "tapmac show".
    """

    FOR_SCRIPTS = tap_table.FOR_SCRIPTS
    LAYOUT = layout.Columns(
        ('TAP', 'Bridge', 'Guest MAC', 'Mode', 'Carrier', 'Domain'),
        'There is no TAP of tapmac.')

    def columns(self, parsed_args: argparse.Namespace) -> tuple[str, ...]:
        return tap_table.COLUMNS

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument('--bridge', metavar='BRIDGE',
                            help='only those on this bridge, and those that '
                                 'belong there and are on none')
        return parser

    def take_action(
        self, parsed_args: argparse.Namespace,
    ) -> tuple[tuple[str, ...], list[tuple[typing.Any, ...]]]:
        seen = inventory.read(configuration.read(self.app_args))
        bridge = parsed_args.bridge
        taps = [tap for tap in seen.taps if (
            tap.is_ours or keeping.is_to_be_filtered(seen, tap)) and (
                bridge is None or tap_table.is_of_bridge(tap, bridge))]
        if bridge is not None and not taps:
            tap_table.require_bridge(seen, bridge)
        return tap_table.COLUMNS, [tap_table.describe(seen, tap)
                                   for tap in taps]
