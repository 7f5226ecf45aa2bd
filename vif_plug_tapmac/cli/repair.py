# SPDX-License-Identifier: Apache-2.0

"""``tapmac repair``: mending what "tapmac audit" finds."""

import argparse
import functools
import typing

from oslo_config import cfg

from vif_plug_tapmac.cli import as_root
from vif_plug_tapmac.cli import configuration
from vif_plug_tapmac.cli import findings
from vif_plug_tapmac.cli import layout
from vif_plug_tapmac.cli import output
from vif_plug_tapmac.cli import tap_table
from vif_plug_tapmac import exception
from vif_plug_tapmac.host import audit
from vif_plug_tapmac.host.finding import exit_status
from vif_plug_tapmac.host.finding import Finding
from vif_plug_tapmac.host import inventory
from vif_plug_tapmac.host import mending
from vif_plug_tapmac import opts

_MENDED = 'mended'


class Repair(output.Lister):
    """Mend what "tapmac audit" finds and no running guest notices.

    Each TAP is plugged once more, as nova-compute does when it starts; one
    that no guest holds may be made anew. One that lost its bridge goes back to
    it; no bridge is made for that. Half-made bridges are finished, and those
    of tapmac are as they were made again. What the operator must do is listed
    with the remedy. Exit status: as "tapmac audit" has it afterwards, which is
    asked again.
    Needs CAP_NET_ADMIN.
    """

    FOR_SCRIPTS = ('Meaning', 'Why', 'Remedy', 'Commands', 'Mendable',
                   'Mended')
    LAYOUT = layout.Paragraphs()
    _left: list[Finding] = []

    def columns(self, parsed_args: argparse.Namespace) -> tuple[str, ...]:
        return (*findings.COLUMNS, 'Result', 'Mended')

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument('--dry-run', action='store_true',
                            help='only say what would be mended')
        parser.add_argument(
            '--bridge', metavar='BRIDGE',
            help='put the DEVICEs, TAPs that are on no bridge, on this one, '
                 'if the one where they belong is not known or not here')
        parser.add_argument('devices', metavar='DEVICE', nargs='*',
                            help='only these TAPs and bridges; default: all')
        return parser

    def take_action(
        self, parsed_args: argparse.Namespace,
    ) -> tuple[tuple[str, ...], list[tuple[typing.Any, ...]]]:
        config = configuration.read_to_change(self.app_args)
        # A bridge that is not there is none to put a guest on.
        cfg.CONF.set_override('create_bridge', False, group=opts.GROUP)
        devices, bridge = parsed_args.devices, parsed_args.bridge
        wrong = functools.partial(_findings, devices)
        seen, found = audit.confirmed(config, wrong)
        _require_known(seen, devices)
        if bridge is not None:
            _require_bridge_for(seen, bridge, devices)
        mendable = [finding for finding in found if finding.mendable
                    or finding.code == 'TM206' and bridge is not None]
        if not mendable or parsed_args.dry_run:
            self._left = found
            return self.columns(parsed_args), _table(
                (finding, 'would be mended' if finding in mendable
                 else _remedy(finding)) for finding in found)
        as_root.act_as_root()
        mending.mend(seen, config, mendable, bridge, self.app.stderr)
        now, again = audit.confirmed(config, wrong, before=seen)
        left = {_key(finding): finding for finding in again}
        names = {*now.by_name, *(tap.name for tap in now.taps)}
        rows = []
        for finding in found:
            here = finding.device in names
            rows.append((finding, _remedy(finding) if finding not in mendable
                         else 'could not be mended' if _key(finding) in left
                         else _MENDED if here else 'it is gone'))
            if not here:
                left[_key(finding)] = finding
        known = {_key(finding) for finding in found}
        rows += [(left[key], _remedy(left[key])) for key in left
                 if key not in known]
        self._left = list(left.values())
        return self.columns(parsed_args), _table(rows)

    def run(self, parsed_args: argparse.Namespace) -> int:
        return super().run(parsed_args) or exit_status(self._left)


def _findings(devices: list[str], seen: inventory.Inventory) -> list[Finding]:
    return [finding for finding in audit.audit_links(seen)
            if not devices or finding.device in devices]


def _key(finding: Finding) -> tuple[str, str]:
    return finding.code, finding.device


def _remedy(finding: Finding) -> str:
    return 'Remedy: ' + finding.remedy


def _table(rows: typing.Iterable[tuple[Finding, str]],
           ) -> list[tuple[typing.Any, ...]]:
    return [(*findings.describe(finding), result, result == _MENDED)
            for finding, result in rows]


def _require_known(seen: inventory.Inventory, names: list[str]) -> None:
    known = [tap.name for tap in seen.taps] + [
        bridge.name for bridge in seen.bridges]
    for name in names:
        if name not in known:
            raise exception.TapMacError(
                '%s is no TAP and no bridge of tapmac on this host.' % name)


def _require_bridge_for(seen: inventory.Inventory, bridge: str,
                        names: list[str]) -> None:
    """Check that these can go on this bridge, and that nobody knows better.

    :raises TapMacError: there is no such bridge, nothing is named, or one
        belongs on another
    """
    tap_table.require_bridge(seen, bridge)
    if not names:
        raise exception.TapMacError(
            '--bridge is for TAPs that are named: not all that are on no '
            'bridge have been on %s.' % bridge)
    taps = {tap.name: tap for tap in seen.taps if tap.is_ours}
    for name in names:
        if name not in taps:
            raise exception.TapMacError(
                '%s is no TAP of tapmac, and --bridge is for these.' % name)
        place = taps[name].home or taps[name].bridge
        if place is not None and place.name != bridge:
            raise exception.TapMacError(
                '%s belongs on %s, which is here: "tapmac repair %s" without '
                '--bridge puts it there.' % (name, place.name, name))
