# SPDX-License-Identifier: Apache-2.0

"""``tapmac unplug``: a VIF by hand."""

import argparse
import uuid

from cliff import command

from vif_plug_tapmac.cli import as_root
from vif_plug_tapmac.cli import by_hand
from vif_plug_tapmac.cli import configuration
from vif_plug_tapmac import exception
from vif_plug_tapmac.host import inventory
from vif_plug_tapmac.host.tap import Tap
from vif_plug_tapmac.wanted.port import TapIdentity


class Unplug(command.Command):
    """Unplug a VIF by hand: remove the TAP of a guest's MAC, or of a VIF.

    That there is none is said, and is success. A TAP that a guest holds stays
    unless forced. The bridge stays in any case, and need not be there any
    more. Needs CAP_NET_ADMIN.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        by_hand.add_arguments(parser, required=False)
        parser.add_argument('--vif-id', metavar='UUID', type=uuid.UUID,
                            help='the id of the VIF: the port in Neutron')
        parser.add_argument(
            '--force', action='store_true',
            help='remove it although a guest holds it, whose NIC is dead then')
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        which = ', '.join('--%s %s' % (option, value) for option, value in (
            ('vif-id', parsed_args.vif_id), ('mac', parsed_args.mac),
            ('bridge', parsed_args.bridge)) if value is not None)
        if parsed_args.vif_id is None and parsed_args.mac is None:
            raise exception.TapMacError(
                'Which TAP is to go is said by --mac or --vif-id.')
        config = configuration.read_to_change(self.app_args)
        taps = _find(inventory.read(config), parsed_args)
        if not taps:
            return self._say('Nothing to do: no TAP of tapmac is there for '
                             '%s.' % which)
        if len(taps) > 1:
            raise exception.TapMacError('%s is said of %s: name one by '
                                        '--vif-id.' % (which, ' and '.join(
                                            tap.name for tap in taps)))
        return self._unplug(taps[0], parsed_args)

    def _unplug(self, tap: Tap, parsed_args: argparse.Namespace) -> None:
        name, vif_id = tap.name, tap.vif_id or parsed_args.vif_id
        if vif_id is None:
            raise exception.TapMacError(
                '%s has lost its mark, and nobody knows whose it is: name it '
                'by --vif-id, which begins with %s.' % (name, tap.whose))
        if tap.link.held and not parsed_args.force:
            raise _used_by_a_guest(name)
        if parsed_args.dry_run:
            return self._say('%s would be removed.' % name)
        if parsed_args.force or tap.mark is None:
            from os_vif.objects import vif as vif_objects
            by_hand.call_os_vif('unplug', vif_objects.VIFBridge(
                id=str(vif_id), plugin='tapmac', vif_name=name))
        else:
            _remove_idle(str(vif_id), name)
        return self._say('%s is removed.' % name)

    def _say(self, text: str) -> None:
        self.app.stdout.write(text + '\n')


def _find(seen: inventory.Inventory,
          parsed_args: argparse.Namespace) -> list[Tap]:
    """Return our TAPs of which all is true that is given."""
    vif_id, guest_mac, bridge = (parsed_args.vif_id, parsed_args.mac,
                                 parsed_args.bridge)
    return [tap for tap in seen.find(str(vif_id or guest_mac))
            if guest_mac in (None, tap.guest_mac) and bridge in (
                None, tap.bridge and tap.bridge.name,
                tap.mark and tap.mark.bridge)]


def _used_by_a_guest(name: str) -> exception.TapMacError:
    return exception.TapMacError(
        '%s is used by a guest; shut that down first, or use --force.' % name)


def _remove_idle(vif_id: str, name: str) -> None:
    """Remove a TAP unless a guest is sooner.

    By os-vif it would go all the same: Nova knows what its guests do.
    """
    as_root.act_as_root()
    from vif_plug_tapmac import privileged
    if not privileged.remove_ports(
            [TapIdentity(vif_id, name).to_fields()], False):
        raise _used_by_a_guest(name)
