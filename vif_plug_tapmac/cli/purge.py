# SPDX-License-Identifier: Apache-2.0

"""``tapmac purge``: removing the TAPs that no domain has."""

import argparse
import typing

from oslo_log import log as logging

from vif_plug_tapmac.cli import as_root
from vif_plug_tapmac.cli import configuration
from vif_plug_tapmac.cli import layout
from vif_plug_tapmac.cli import number
from vif_plug_tapmac.cli import output
from vif_plug_tapmac import exception
from vif_plug_tapmac.host import domains
from vif_plug_tapmac.host import inventory
from vif_plug_tapmac.host.tap import Tap
from vif_plug_tapmac.host import tap_checks
from vif_plug_tapmac.wanted.port import TapIdentity

LOG = logging.getLogger(__name__)

#: In seconds, the most that --older-than can be: 30 years.
_OLDEST = 10 ** 9


class Purge(output.Lister):
    """Remove TAPs of tapmac that no domain of libvirt has.

    libvirt is the one that nova-compute asks, by its configuration; which one
    that is, and how many domains it has, is said. Nothing is removed where it
    does not answer; nor where it has none of tapmac's TAPs, unless they are
    named. All go at once, in a link group of their own. One that a process
    holds stays unless it is named, and forced, also if the process takes it at
    the last moment. What a purge that was killed has left goes with the next.
    Needs CAP_NET_ADMIN.
    """

    FOR_SCRIPTS = ('Removed',)
    LAYOUT = layout.Columns(('TAP', 'Bridge', 'Guest MAC', 'Result'),
                            'No TAP is left over.')

    def columns(self, parsed_args: argparse.Namespace) -> tuple[str, ...]:
        return 'TAP', 'Bridge', 'Guest MAC', 'VIF', 'Result', 'Removed'

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument('--dry-run', action='store_true',
                            help='only say what would be removed')
        parser.add_argument('--force', action='store_true',
                            help='remove those of the named TAPs, too, that a '
                                 'process holds')
        parser.add_argument(
            '--older-than', metavar='SECONDS', default=tap_checks.GRACE,
            type=number.between(0, _OLDEST, float),
            help='leave those that were made since then: their domain may '
                 'still be on the way. 0 or more; default: %(default)g')
        parser.add_argument('taps', metavar='TAP', nargs='*',
                            help='only these; default: all that are left over')
        return parser

    def take_action(
        self, parsed_args: argparse.Namespace,
    ) -> tuple[tuple[str, ...], list[tuple[typing.Any, ...]]]:
        seen = inventory.read(configuration.read_to_change(self.app_args))
        libvirt = _require_answer(seen)
        self.app.stderr.write('libvirt %s has %d domains.\n' % (
            libvirt.uri, libvirt.domains))
        orphans = [tap for tap in seen.taps if tap_checks.is_orphan(
            seen, tap, parsed_args.older_than)]
        if parsed_args.taps:
            orphans = _only(orphans, parsed_args.taps)
        elif orphans:
            _require_some_with_domain(seen, libvirt)
        forced = parsed_args.force and bool(parsed_args.taps)
        going = [tap for tap in orphans if forced or not tap.link.held]
        gone: typing.Collection[str] = ()
        if going and not parsed_args.dry_run:
            as_root.act_as_root()
            from vif_plug_tapmac import privileged
            LOG.info('Removing %d TAPs', len(going))
            gone = privileged.remove_ports(
                [TapIdentity(str(tap.vif_id), tap.name).to_fields()
                 for tap in going], forced)
        return self.columns(parsed_args), [
            (tap.shown_name, tap.bridge and tap.bridge.name, tap.guest_mac,
             tap.vif_id, 'removed' if tap.name in gone
             else 'stays: a process holds it' if tap not in going
             else 'would be removed' if parsed_args.dry_run
             else 'stays: it is in use by now', tap.name in gone)
            for tap in orphans]


def _require_answer(seen: inventory.Inventory) -> domains.Answer:
    if seen.libvirt is None:
        raise exception.TapMacError(
            'Nothing is removed: without an answer of libvirt nobody '
            'knows which TAPs are left over.')
    if seen.libvirt.unread:
        raise exception.TapMacError(
            'Nothing is removed: without what libvirt does not tell nobody '
            'knows which TAPs are left over.')
    return seen.libvirt


def _only(orphans: list[Tap], names: list[str]) -> list[Tap]:
    """Return those of these TAPs that are named.

    :raises TapMacError: something else is
    """
    known = {name: tap for tap in orphans
             for name in (tap.name, tap.shown_name, tap.link.name)}
    for name in names:
        if name not in known:
            raise exception.TapMacError(
                'Nothing is removed: %s is no TAP of tapmac here that is left '
                'over, or it is too new (--older-than). "tapmac show %s" has '
                'what is known of it.' % (name, name))
    named = {known[name].link.index for name in names}
    return [tap for tap in orphans if tap.link.index in named]


def _require_some_with_domain(seen: inventory.Inventory,
                              libvirt: domains.Answer) -> None:
    """Check that libvirt has one of our TAPs at least.

    Else it may be another one than that of our guests.

    :raises TapMacError: it has none
    """
    ours = [tap for tap in seen.taps if tap.is_ours]
    if not any(tap.nic for tap in ours):
        raise exception.TapMacError(
            'Nothing is removed: libvirt %s, with %d domains, has none of the '
            '%d TAPs of tapmac on this host, so it may be another one than '
            'that of their guests. Remedy: correct connection_uri in '
            '[libvirt] of the configuration of nova-compute; if nothing uses '
            'them, name the TAPs that shall go: "tapmac list" has them.'
            % (libvirt.uri, libvirt.domains, len(ours)))
