# SPDX-License-Identifier: Apache-2.0

"""``tapmac show``: one TAP, and what is wrong with it."""

import argparse
import typing

from vif_plug_tapmac.cli import configuration
from vif_plug_tapmac.cli import findings
from vif_plug_tapmac.cli import layout
from vif_plug_tapmac.cli import output
from vif_plug_tapmac.cli import port_view
from vif_plug_tapmac.cli import tap_table
from vif_plug_tapmac.host import audit
from vif_plug_tapmac.host.finding import exit_status
from vif_plug_tapmac.host.finding import Finding
from vif_plug_tapmac.host import inventory
from vif_plug_tapmac.host import searching


class Show(output.ShowOne):
    """Show one TAP of tapmac, and what is wrong with it and its bridge.

    The TAP is meant by its name or an alternative one, the id of its VIF (the
    port in Neutron) or how that begins, the MAC of its guest or its own, the
    id of its instance, or the name of its domain in libvirt. If several can be
    meant, they are named, and none is shown.

    Where tapmac-agent guards the port, root is also told what passes there:
    the rules of its security groups as they are in force, and how many packets
    each has let pass since its group was changed last. Packets of connections
    that are known are not asked for by rules, and not counted. Names, and the
    ids of rules, are those that the agent wrote down.

    Nothing is changed, and no privilege is needed. Carrier is whether a guest
    holds the TAP. Exit status: 0 if nothing is wrong, 10 for warnings, 20 for
    errors, 1 if there is no such TAP, or several.
    """

    FOR_SCRIPTS = tap_table.FOR_SCRIPTS
    LAYOUT = layout.Fields(('Domain known',), port_view.COLUMNS)
    _findings: list[Finding] = []

    def columns(self, parsed_args: argparse.Namespace) -> tuple[str, ...]:
        return (*tap_table.COLUMNS, 'Queues', *port_view.COLUMNS, 'Wrong')

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument(
            'which', metavar='TAP',
            help='its name, VIF id or at least %d characters that begin it, '
                 'MAC, the guest\'s MAC, instance or domain'
                 % searching.LEAST)
        parser.add_argument(
            '--connections', action='store_true',
            help='also the connections that the kernel keeps of its addresses')
        return parser

    def take_action(
        self, parsed_args: argparse.Namespace,
    ) -> tuple[tuple[str, ...], tuple[typing.Any, ...]]:
        def wrong(seen: inventory.Inventory) -> list[Finding]:
            tap = tap_table.require_one(seen, parsed_args.which)
            names = [tap.name] + ([tap.bridge.name] if tap.bridge else [])
            return [finding for finding in audit.audit_links(seen)
                    if finding.device in names]
        seen, self._findings = audit.confirmed(
            configuration.read(self.app_args), wrong)
        tap = tap_table.require_one(seen, parsed_args.which)
        return self.columns(parsed_args), (
            *tap_table.describe(seen, tap), tap.link.queues or 1,
            *port_view.describe(seen, tap, configuration.names(),
                                parsed_args.connections),
            output.Said(list(map(findings.as_dict, self._findings)),
                        '\n'.join(map(findings.sentence, self._findings))
                        or 'nothing'))

    def run(self, parsed_args: argparse.Namespace) -> int:
        return super().run(parsed_args) or exit_status(self._findings)
