# SPDX-License-Identifier: Apache-2.0

"""``tapmac audit``: all that is wrong on this host."""

import argparse

from cliff import lister

from vif_plug_tapmac.cli import configuration
from vif_plug_tapmac.host import audit
from vif_plug_tapmac.host.finding import exit_status
from vif_plug_tapmac.host.finding import Finding


class Audit(lister.Lister):
    """Look for all that is wrong with bridges and TAPs on this host.

    Nothing is changed, and no privilege is needed. Bridges that tapmac made,
    that have TAPs of tapmac, or an entry in bridge_uplinks, are looked at.
    Exit status: 0 if nothing is wrong, 10 for warnings, 20 for errors. The
    page "Audit codes" of the documentation explains each code.
    """

    _findings: list[Finding] = []

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument(
            '--all-bridges', action='store_true',
            help='also look at bridges and TAPs that are not tapmac\'s yet, '
                 'and at what filters their guests, for what will be wrong '
                 'when they are (codes TM4..); as root, who may see rules')
        return parser

    def take_action(
        self, parsed_args: argparse.Namespace,
    ) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        config = configuration.read(self.app_args)
        _, self._findings = audit.confirmed(
            config, lambda seen: audit.audit(seen, config),
            all_bridges=parsed_args.all_bridges)
        return (('Code', 'Severity', 'Device', 'Meaning', 'Evidence',
                 'Remedy'),
                [(finding.code, str(finding.severity), finding.device,
                  finding.meaning, finding.evidence, finding.remedy)
                 for finding in self._findings])

    def run(self, parsed_args: argparse.Namespace) -> int:
        return super().run(parsed_args) or exit_status(self._findings)
