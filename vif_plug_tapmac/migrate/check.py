# SPDX-License-Identifier: Apache-2.0

"""``tapmac-migrate check``: bindings that nobody serves."""

import argparse
import typing

from cliff import lister

from vif_plug_tapmac.migrate import main
from vif_plug_tapmac.migrate import ports


COLUMNS = ('Port', 'Host', 'Owner', 'Device', 'Status', 'VIF type', 'Driver',
           'Reason')


class Check(lister.Lister):
    """List the bindings that nobody serves.

    Ports of Linux bridges that tapmac has not bound, where Neutron's Linux
    bridge agent is not alive; ports that no mechanism driver could bind, or
    that have a host and a device and are not bound; and those that
    "tapmac-migrate rebind" was stopped at. Nothing is changed.
    Exit status: 0 if there is none, otherwise 1.
    """

    _found = False

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument('--host', metavar='HOST',
                            help='only ports of this host, as Neutron calls '
                                 'it; default: all')
        return parser

    def take_action(
        self, parsed_args: argparse.Namespace,
    ) -> tuple[tuple[str, ...], list[tuple[typing.Any, ...]]]:
        cloud = main.connect(self.app_args)
        alive = cloud.hosts_with_agent()
        rows = []
        for port in cloud.ports(parsed_args.host):
            reason = ports.unserved(port, alive)
            if reason is not None:
                now = ports.Binding.of(port)
                rows.append((port.id, port.binding_host_id, port.device_owner,
                             port.device_id or None, port.status,
                             now.vif_type, now.driver, reason))
        self._found = bool(rows)
        return COLUMNS, rows

    def run(self, parsed_args: argparse.Namespace) -> int:
        return super().run(parsed_args) or int(self._found)
