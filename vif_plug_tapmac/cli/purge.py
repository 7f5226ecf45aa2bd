# SPDX-License-Identifier: Apache-2.0

"""``tapmac purge``: removing the TAPs that no domain has."""

import argparse
import typing

from cliff import lister
from oslo_log import log as logging

from vif_plug_tapmac.cli import as_root
from vif_plug_tapmac.cli import configuration
from vif_plug_tapmac.cli import number
from vif_plug_tapmac import exception
from vif_plug_tapmac.host import inventory
from vif_plug_tapmac.host import tap_checks
from vif_plug_tapmac.wanted.port import TapIdentity

LOG = logging.getLogger(__name__)

#: In seconds, the most that --older-than can be: 30 years.
_OLDEST = 10 ** 9


class Purge(lister.Lister):
    """Remove TAPs of tapmac that no domain of libvirt has.

    All of them at once, in a link group of their own. One that a process
    holds stays unless forced, also if it takes the TAP at the last moment;
    nothing is removed where libvirt does not answer. What a purge that was
    killed has left goes with the next. Needs CAP_NET_ADMIN.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument('--dry-run', action='store_true',
                            help='only say what would be removed')
        parser.add_argument('--force', action='store_true',
                            help='remove those, too, that a process holds')
        parser.add_argument(
            '--older-than', metavar='SECONDS', default=tap_checks.GRACE,
            type=number.between(0, _OLDEST, float),
            help='leave those that were made since then: their domain may '
                 'still be on the way. 0 or more; default: %(default)g')
        return parser

    def take_action(
        self, parsed_args: argparse.Namespace,
    ) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        seen = inventory.read(configuration.read_to_change(self.app_args))
        if seen.nics is None:
            raise exception.TapMacError(
                'Nothing is removed: without an answer of libvirt nobody '
                'knows which TAPs are left over.')
        orphans = [tap for tap in seen.taps if tap_checks.is_orphan(
            seen, tap, parsed_args.older_than)]
        going = [tap for tap in orphans
                 if parsed_args.force or not tap.link.held]
        gone: typing.Collection[str] = ()
        if going and not parsed_args.dry_run:
            as_root.act_as_root()
            from vif_plug_tapmac import privileged
            LOG.info('Removing %d TAPs', len(going))
            gone = privileged.remove_ports(
                [TapIdentity(str(tap.vif_id), tap.name).to_fields()
                 for tap in going], parsed_args.force)
        return ('TAP', 'Bridge', 'Guest MAC', 'VIF', 'Result'), [
            (tap.shown_name, tap.bridge.name if tap.bridge else '',
             tap.guest_mac or '', str(tap.vif_id),
             'removed' if tap.name in gone
             else 'stays: a process holds it' if tap not in going
             else 'would be removed' if parsed_args.dry_run
             else 'stays: it is in use by now') for tap in orphans]
