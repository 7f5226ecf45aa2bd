# SPDX-License-Identifier: Apache-2.0

"""``tapmac audit``: all that is wrong on this host."""

import argparse
import typing

from vif_plug_tapmac.cli import configuration
from vif_plug_tapmac.cli import findings
from vif_plug_tapmac.cli import layout
from vif_plug_tapmac.cli import output
from vif_plug_tapmac.cli import prometheus
from vif_plug_tapmac import exception
from vif_plug_tapmac.host import audit
from vif_plug_tapmac.host.finding import exit_status
from vif_plug_tapmac.host.finding import Finding


class Audit(output.Lister):
    """Look for all that is wrong with bridges and TAPs on this host.

    Nothing is changed, and no privilege is needed. Bridges that tapmac made,
    that have TAPs of tapmac, or an entry in bridge_uplinks, are looked at.
    Each finding is a paragraph: what was seen, why that matters, and the
    remedy, in which each command has a line of its own. "-f prometheus" is
    for the textfile collector of Prometheus' node exporter.
    Exit status: 0 if nothing is wrong, 10 for warnings, 20 for errors. The
    page "Audit codes" of the documentation explains each code.
    """

    FOR_SCRIPTS = findings.FOR_SCRIPTS
    LAYOUT = layout.Paragraphs()
    _findings: list[Finding] = []

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument(
            '--all-bridges', action='store_true',
            help='also look at bridges and TAPs that are not tapmac\'s yet, '
                 'and at what filters their guests, for what will be wrong '
                 'when they are (codes TM4..); as root, who may see rules')
        return parser

    def _load_formatter_plugins(self) -> typing.Any:
        self._metrics = prometheus.Metrics()
        return output.with_format(super()._load_formatter_plugins(),
                                  output.PROMETHEUS, self._metrics)

    def columns(self, parsed_args: argparse.Namespace) -> tuple[str, ...]:
        return findings.COLUMNS

    def take_action(
        self, parsed_args: argparse.Namespace,
    ) -> tuple[tuple[str, ...], list[tuple[typing.Any, ...]]]:
        config = configuration.read(self.app_args)
        self._metrics.seen, self._findings = audit.confirmed(
            config, lambda seen: audit.audit(seen, config),
            all_bridges=parsed_args.all_bridges)
        return findings.COLUMNS, list(map(findings.describe, self._findings))

    def run(self, parsed_args: argparse.Namespace) -> int:
        if parsed_args.columns and parsed_args.formatter == output.PROMETHEUS:
            raise exception.TapMacError(
                '-f prometheus has no columns to choose from by -c.')
        return super().run(parsed_args) or exit_status(self._findings)
