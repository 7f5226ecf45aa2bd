# SPDX-License-Identifier: Apache-2.0

"""``tapmac mac``: from the MAC of a guest to that of its TAP, and back."""

import argparse
import typing

from vif_plug_tapmac.cli import output
from vif_plug_tapmac import exception
from vif_plug_tapmac import mac


class Mac(output.Lister):
    """Show the MAC that the TAP of a guest has, or whose TAP has a MAC.

    The TAP has the MAC of its guest with the first octet fe, or fa for a guest
    that starts with fe itself; or, where that one meets another guest on the
    same bridge, one of a few others. Backwards, the guest's first octet can
    not be computed: it is looked up in the marks of this host's TAPs.

    Nothing is changed, and no privilege is needed. Exit status: 1 if with
    --reverse no TAP here has this MAC.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument('mac', metavar='MAC', type=mac_argument,
                            help='six hex octets with colons between them')
        parser.add_argument(
            '--reverse', action='store_true',
            help='MAC is a TAP\'s; show the guests on this host behind it')
        return parser

    def columns(self, parsed_args: argparse.Namespace) -> tuple[str, ...]:
        return (('TAP MAC', 'Guest MAC', 'TAP', 'VIF') if parsed_args.reverse
                else ('Guest MAC', 'TAP MAC', 'Instead, if taken'))

    def take_action(
        self, parsed_args: argparse.Namespace,
    ) -> tuple[tuple[str, ...], list[tuple[typing.Any, ...]]]:
        if not parsed_args.reverse:
            guest_mac = parsed_args.mac
            return self.columns(parsed_args), [
                (guest_mac, mac.tap_mac(guest_mac),
                 list(mac.alternate_tap_macs(guest_mac)))]
        from vif_plug_tapmac.cli import configuration
        from vif_plug_tapmac.host import inventory
        seen = inventory.read(configuration.read(self.app_args))
        found = [
            (parsed_args.mac, tap.guest_mac, tap.link.name, tap.whose)
            for tap in seen.taps if tap.is_ours and tap.guest_mac is not None
            and tap.link.mac == parsed_args.mac]
        if not found:
            raise exception.TapMacError(
                'No TAP of tapmac has the MAC %s here. Its guest, wherever it '
                'is, has the same last five octets; with Neutron\'s default '
                'base_mac it is %s.' % (parsed_args.mac,
                                        'fa' + parsed_args.mac[2:]))
        return self.columns(parsed_args), found


def mac_argument(text: str) -> str:
    """Return a MAC of the command line in lower case."""
    try:
        return mac.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error))
