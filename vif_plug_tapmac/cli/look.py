# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""``tapmac list``, ``tapmac show`` and ``tapmac audit``: looking at a host."""

import argparse
import datetime
import pwd
import typing

from cliff import lister
from cliff import show

from vif_plug_tapmac.cli import configuration
from vif_plug_tapmac import exception
from vif_plug_tapmac.host import audit
from vif_plug_tapmac.host import inventory
from vif_plug_tapmac.kernel.link import Link

#: What is shown of a bridge's port, by fields of a link.
_PORT_OPTIONS = ('locked', 'isolated', 'hairpin')
_NO_PORT_OPTIONS = ('learning', 'flood_unicast', 'flood_multicast')
#: What is told of each TAP.
COLUMNS = ('TAP', 'Bridge', 'Guest MAC', 'TAP MAC', 'VIF', 'MTU', 'Owner',
           'Carrier', 'Made', 'Port options', 'Domain')


class List(lister.Lister):
    """List the TAPs of tapmac on this host.

    Nothing is changed, and no privilege is needed. The columns are those of
    "tapmac show".
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument('--bridge', metavar='BRIDGE',
                            help='only those on this bridge')
        return parser

    def take_action(
        self, parsed_args: argparse.Namespace,
    ) -> tuple[tuple[str, ...], list[tuple[typing.Any, ...]]]:
        seen = inventory.read(configuration.read(self.app_args))
        return COLUMNS, [
            describe(seen, tap) for tap in seen.taps
            if tap.mark is not None and parsed_args.bridge in (
                None, tap.bridge and tap.bridge.name)]


class Show(show.ShowOne):
    """Show one TAP of tapmac, and what is wrong with it and its bridge.

    Nothing is changed, and no privilege is needed. Carrier is whether a guest
    holds the TAP. Exit status: 0 if nothing is wrong, 10 for warnings, 20 for
    errors, 1 if there is no such TAP.
    """

    _findings: list[audit.Finding] = []

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument(
            'which', metavar='<TAP, VIF id or MAC>',
            help='name of the TAP, id of its VIF (the port in Neutron), MAC '
                 'of the guest, or of the TAP')
        return parser

    def take_action(
        self, parsed_args: argparse.Namespace,
    ) -> tuple[tuple[str, ...], tuple[typing.Any, ...]]:
        seen = inventory.read(configuration.read(self.app_args))
        tap = require_one(seen, parsed_args.which)
        names = [tap.link.name] + ([tap.bridge.name] if tap.bridge else [])
        self._findings = [finding for finding in audit.audit_links(seen)
                          if finding.device in names]
        return ((*COLUMNS, 'Queues', 'Wrong'),
                (*describe(seen, tap), tap.link.queues or 1,
                 '\n'.join(map(_sentence, self._findings)) or 'nothing'))

    def run(self, parsed_args: argparse.Namespace) -> int:
        return super().run(parsed_args) or exit_status(self._findings)


class Audit(lister.Lister):
    """Look for all that is wrong with bridges and TAPs on this host.

    Nothing is changed, and no privilege is needed. Bridges that tapmac made,
    that have TAPs of tapmac, or an entry in bridge_uplinks, are looked at.
    Exit status: 0 if nothing is wrong, 10 for warnings, 20 for errors. The
    page "Audit codes" of the documentation explains each code.
    """

    _findings: list[audit.Finding] = []

    def take_action(
        self, parsed_args: argparse.Namespace,
    ) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        config = configuration.read(self.app_args)
        self._findings = audit.audit(inventory.read(config), config)
        return (('Code', 'Severity', 'Device', 'Meaning', 'Evidence',
                 'Remedy'),
                [(finding.code, str(finding.severity), finding.device,
                  finding.meaning, finding.evidence, finding.remedy)
                 for finding in self._findings])

    def run(self, parsed_args: argparse.Namespace) -> int:
        return super().run(parsed_args) or exit_status(self._findings)


def exit_status(findings: typing.Iterable[audit.Finding]) -> int:
    """Return the exit status that says how bad it is: 0, 10 or 20."""
    return max((finding.severity for finding in findings), default=0)


def require_one(seen: inventory.Inventory, which: str) -> inventory.Tap:
    """Return the one TAP of ours that is meant.

    :raises TapMacError: there is none, or several
    """
    found = seen.find(which)
    if len(found) == 1:
        return found[0]
    raise exception.TapMacError(
        'No TAP of tapmac has this name, VIF id or MAC here: %s.' % which
        if not found else '%s can be each of these TAPs: %s.' % (
            which, ', '.join(tap.link.name for tap in found)))


def describe(seen: inventory.Inventory,
             tap: inventory.Tap) -> tuple[typing.Any, ...]:
    """Return what a TAP of ours has in each of :data:`COLUMNS`."""
    assert tap.mark is not None
    return (
        tap.link.name, tap.bridge and tap.bridge.name, tap.mark.guest_mac,
        tap.link.mac, tap.mark.vif_id, tap.link.mtu, user(tap.link.owner),
        'on' if tap.link.held else 'off',
        _time(tap.mark.made),
        _port_options(tap.link),
        'unknown' if seen.nics is None else tap.nic and tap.nic.domain)


def _time(made: int) -> str:
    try:
        return datetime.datetime.fromtimestamp(
            made, datetime.timezone.utc).isoformat()
    except (OverflowError, ValueError):  # No plug of ours writes this.
        return str(made)


def _port_options(link: Link) -> str:
    """Return in what a port differs from a bridge's defaults."""
    return ', '.join(
        [name for name in _PORT_OPTIONS if getattr(link, name)]
        + ['no ' + name for name in _NO_PORT_OPTIONS
           if getattr(link, name) is False])


def user(uid: int | None) -> str:
    """Return how a TAP's owner is called."""
    if uid is None:
        return 'everyone'
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _sentence(finding: audit.Finding) -> str:
    return '%s %s: %s. Remedy: %s' % (finding.code, finding.device,
                                      finding.evidence, finding.remedy)
