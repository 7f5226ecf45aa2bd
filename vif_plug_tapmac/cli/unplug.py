# SPDX-License-Identifier: Apache-2.0

"""``tapmac unplug``: a VIF by hand."""

import argparse

from cliff import command

from vif_plug_tapmac.cli import as_root
from vif_plug_tapmac.cli import by_hand
from vif_plug_tapmac.cli import configuration
from vif_plug_tapmac import exception
from vif_plug_tapmac.host import inventory
from vif_plug_tapmac.wanted.port import TapIdentity


class Unplug(command.Command):
    """Unplug a VIF by hand: remove the TAP that a guest's MAC has on a bridge.

    That there is none is said, and is success. A TAP that a guest holds stays
    unless forced. The bridge stays in any case. Needs CAP_NET_ADMIN.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        by_hand.add_arguments(parser)
        parser.add_argument(
            '--force', action='store_true',
            help='remove it although a guest holds it, whose NIC is dead then')
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        seen = inventory.read(configuration.read(self.app_args))
        taps = [tap for tap in seen.find(parsed_args.mac)
                if tap.bridge and tap.bridge.name == parsed_args.bridge
                and tap.guest_mac == parsed_args.mac]
        if not taps:
            self._say('Nothing to do: no TAP of tapmac is there for guest %s '
                      'on %s.' % (parsed_args.mac, parsed_args.bridge))
        for tap in taps:
            if tap.link.held and not parsed_args.force:
                raise _used_by_a_guest(tap)
            if parsed_args.dry_run:
                self._say('%s would be removed.' % tap.name)
                continue
            if parsed_args.force:
                from os_vif.objects import vif as vif_objects
                by_hand.call_os_vif('unplug', vif_objects.VIFBridge(
                    id=tap.vif_id, plugin='tapmac', vif_name=tap.name))
            else:
                _remove_idle(tap)
            self._say('%s is removed.' % tap.name)

    def _say(self, text: str) -> None:
        self.app.stdout.write(text + '\n')


def _used_by_a_guest(tap: inventory.Tap) -> exception.TapMacError:
    return exception.TapMacError(
        '%s is used by a guest; shut that down first, or use --force.'
        % tap.name)


def _remove_idle(tap: inventory.Tap) -> None:
    """Remove a TAP unless a guest is sooner.

    By os-vif it would go all the same: Nova knows what its guests do.
    """
    as_root.act_as_root()
    from vif_plug_tapmac import privileged
    if not privileged.remove_ports(
            [TapIdentity(tap.vif_id, tap.name).to_fields()], False):
        raise _used_by_a_guest(tap)
