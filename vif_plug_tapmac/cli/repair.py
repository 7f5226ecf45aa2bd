# SPDX-License-Identifier: Apache-2.0

"""``tapmac repair``: mending what "tapmac audit" finds."""

import argparse

from cliff import lister

from vif_plug_tapmac.cli import as_root
from vif_plug_tapmac.cli import configuration
from vif_plug_tapmac import exception
from vif_plug_tapmac.host import audit
from vif_plug_tapmac.host.finding import exit_status
from vif_plug_tapmac.host.finding import Finding
from vif_plug_tapmac.host import inventory
from vif_plug_tapmac.host import mending


class Repair(lister.Lister):
    """Mend what "tapmac audit" finds and no running guest notices.

    Each TAP is plugged once more, as nova-compute does when it starts; one
    that no guest holds may be made anew. Half-made bridges are finished, and
    those of tapmac are as they were made again. What the operator must do is
    listed with the remedy. Exit status: as "tapmac audit" has it afterwards.
    Needs CAP_NET_ADMIN.
    """

    _left: list[Finding] = []

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument('--dry-run', action='store_true',
                            help='only say what would be mended')
        parser.add_argument(
            '--bridge', metavar='BRIDGE',
            help='put TAPs that are on no bridge on this one: nothing on the '
                 'host tells where they were')
        parser.add_argument('devices', metavar='DEVICE', nargs='*',
                            help='only these TAPs and bridges; default: all')
        return parser

    def take_action(
        self, parsed_args: argparse.Namespace,
    ) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        config = configuration.read(self.app_args)

        def wrong(seen: inventory.Inventory) -> list[Finding]:
            return [finding for finding in audit.audit_links(seen)
                    if not parsed_args.devices
                    or finding.device in parsed_args.devices]
        seen, found = audit.confirmed(config, wrong)
        _require_known(seen, parsed_args.devices)
        mendable = [
            finding for finding in found if finding.mendable
            or finding.code == 'TM206' and parsed_args.bridge is not None]
        self._left = found
        if mendable and not parsed_args.dry_run:
            as_root.act_as_root()
            mending.mend(seen, config, mendable, parsed_args.bridge,
                         self.app.stderr)
            _, self._left = audit.confirmed(config, wrong, before=seen)
        left = {(finding.code, finding.device) for finding in self._left}
        rows: list[tuple[str, ...]] = []
        for finding in found:
            if parsed_args.dry_run and finding in mendable:
                result = 'would be mended'
            elif (finding.code, finding.device) not in left:
                result = 'mended'
            elif finding in mendable:
                result = 'could not be mended'
            else:
                result = 'Remedy: ' + finding.remedy
            rows.append((finding.code, str(finding.severity), finding.device,
                         finding.evidence, result))
        return ('Code', 'Severity', 'Device', 'Evidence', 'Result'), rows

    def run(self, parsed_args: argparse.Namespace) -> int:
        return super().run(parsed_args) or exit_status(self._left)


def _require_known(seen: inventory.Inventory, names: list[str]) -> None:
    known = [tap.name for tap in seen.taps] + [
        bridge.name for bridge in seen.bridges]
    for name in names:
        if name not in known:
            raise exception.TapMacError(
                '%s is no TAP and no bridge of tapmac on this host.' % name)
