# SPDX-License-Identifier: Apache-2.0

"""``tapmac plug``: a VIF by hand."""

import argparse
import typing
import uuid

from oslo_config import cfg

from vif_plug_tapmac.cli import by_hand
from vif_plug_tapmac.cli import configuration
from vif_plug_tapmac.cli import output
from vif_plug_tapmac.cli import tap_table
from vif_plug_tapmac import exception
from vif_plug_tapmac.host import inventory
from vif_plug_tapmac import mac
from vif_plug_tapmac.wanted import from_config
from vif_plug_tapmac.wanted import from_vif
from vif_plug_tapmac.wanted import names
from vif_plug_tapmac.wanted import port as port_values

_DRY_RUN = ('TAP', 'Bridge', 'Guest MAC', 'TAP MAC', 'VIF', 'MTU', 'Owner',
            'Would')
_NAMESPACE = uuid.UUID('0e3c4c1e-5d2f-4b7a-9a63-7461706d6163')


class Plug(output.ShowOne):
    """Plug a VIF by hand, as Nova would, and show its TAP.

    The TAP is made, or mended, through os-vif and with the configuration of
    nova-compute, and the bridge made if it is missing and may be. Doing so
    again is safe, also under a running guest. Needs CAP_NET_ADMIN.
    """

    FOR_SCRIPTS = tap_table.FOR_SCRIPTS

    def columns(self, parsed_args: argparse.Namespace) -> tuple[str, ...]:
        return _DRY_RUN if parsed_args.dry_run else tap_table.COLUMNS

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        by_hand.add_arguments(parser, required=True)
        parser.add_argument(
            '--vif-id', metavar='UUID', type=uuid.UUID,
            help='the id of the VIF; default: one that is the same each time '
                 'for this bridge and MAC')
        parser.add_argument(
            '--name', metavar='NAME',
            help='the name of the TAP; default: as Nova makes it of the id')
        parser.add_argument(
            '--mtu', metavar='BYTES', type=int,
            help='the MTU of the network, 68 to 65521; default: that of the '
                 'bridge if it is there, else that of the kernel')
        return parser

    def take_action(
        self, parsed_args: argparse.Namespace,
    ) -> tuple[tuple[str, ...], tuple[typing.Any, ...]]:
        config = configuration.read_to_change(self.app_args)
        seen = inventory.read(config)
        vif = _vif(parsed_args, seen)
        if parsed_args.dry_run:
            return _DRY_RUN, _dry_run(vif, config, seen)
        by_hand.call_os_vif('plug', vif)
        seen = inventory.read(config)
        return tap_table.COLUMNS, tap_table.describe(
            seen, tap_table.require_one(seen, str(getattr(vif, 'id'))))


def _vif(parsed_args: argparse.Namespace,
         seen: inventory.Inventory) -> typing.Any:
    import os_vif
    from os_vif.objects import network
    from os_vif.objects import vif as vif_objects
    bridge, mtu = parsed_args.bridge, parsed_args.mtu
    if mtu is None:
        mtu = next((link.mtu for link in seen.links.values()
                    if link.name == bridge), None)
    elif not port_values.TAP_MTU_MIN <= mtu <= port_values.TAP_MTU_MAX:
        raise exception.TapMacError(
            '--mtu %d: the MTU of a TAP is a number of bytes from %d to %d.'
            % (mtu, port_values.TAP_MTU_MIN, port_values.TAP_MTU_MAX))
    vif_id = str(parsed_args.vif_id
                 or uuid.uuid5(_NAMESPACE, bridge + parsed_args.mac))
    os_vif.objects.register_all()
    net = network.Network(id=str(_NAMESPACE), bridge=bridge,
                          **({} if mtu is None else {'mtu': mtu}))
    return vif_objects.VIFBridge(
        id=vif_id, plugin='tapmac', address=parsed_args.mac,
        vif_name=parsed_args.name or names.nova_tap_name(vif_id),
        bridge_name=bridge, network=net)


def _dry_run(
    vif: typing.Any, config: cfg.ConfigOpts.GroupAttr,
    seen: inventory.Inventory,
) -> tuple[typing.Any, ...]:
    """Return what a plug would ask for, and what of it is there."""
    port = from_vif.tap_port(vif, config)
    from_config.limits(config).require_bridge(port)
    names = {link.name: link for link in seen.links.values()}
    if port.bridge not in names and not port.create_bridge:
        raise exception.BridgeNotFound(device=port.name, bridge=port.bridge)
    found = names.get(port.name)
    return (port.name, port.bridge, port.guest_mac,
            mac.tap_mac(port.guest_mac), port.vif_id, port.mtu,
            tap_table.user(port.owner),
            ([] if port.bridge in names else ['make the bridge'])
            + ['make the TAP' if found is None else
               'mend the TAP that is there where it differs'])
