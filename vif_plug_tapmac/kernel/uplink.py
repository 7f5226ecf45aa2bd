# SPDX-License-Identifier: Apache-2.0

"""The device that connects a bridge of ours with the wire."""

import logging

from vif_plug_tapmac import exception
from vif_plug_tapmac.kernel.link import Link
from vif_plug_tapmac.kernel import netlink as nl
from vif_plug_tapmac.wanted import names
from vif_plug_tapmac.wanted.port import TapPort

LOG = logging.getLogger(__name__)

# How the host's own network configuration makes such a bridge, its addresses
# on the bridge.
_SNIPPETS = (
    'netplan: "network: {{version: 2, ethernets: {{{uplink}: {{}}}}, bridges: '
    '{{{bridge}: {{interfaces: [{uplink}], macaddress: \'{mac}\', addresses: '
    '[{addresses}], parameters: {{stp: false, forward-delay: 0}}}}}}}}"; '
    'systemd-networkd: a .netdev file "[NetDev] Name={bridge} Kind=bridge '
    'MACAddress={mac}", and .network files "[Match] Name={uplink} [Network] '
    'Bridge={bridge}" and "[Match] Name={bridge} [Network] {lines}"')


def find(netlink: nl.Netlink, port: TapPort,
         bridge: Link | None) -> Link | None:
    """Return the uplink of the port's bridge if it is fit for that.

    :param bridge: None if it is to be made
    :returns: None if nobody names one, or it is a VLAN that is to be made
    :raises UplinkUnusable: it is not fit
    """
    if port.uplink is None:
        return None
    link = netlink.find(port.uplink)
    if link is None:
        _parent(netlink, port)
        return None
    _require_kind(port, link)
    if bridge is not None and link.master == bridge.index:
        return link
    if link.master is not None:
        _require_master(netlink, port, link)
    else:
        _require_no_addresses(netlink, port, link)
    return link


def _require_kind(port: TapPort, link: Link) -> None:
    what = ('the loopback device' if link.name == 'lo'
            else 'a bridge' if link.kind == 'bridge'
            else 'the TAP of a guest'
            if link.is_tap and link.group == port.link_group else None)
    if what is not None:
        raise _unusable(port, 'is ' + what, 'name a network card, a bond or a '
                        'VLAN in bridge_uplinks')


def _require_master(netlink: nl.Netlink, port: TapPort, link: Link) -> None:
    assert link.master is not None
    master = netlink.get(link.master, 'the master of %s' % link.name)
    if master is not None and master.name == port.bridge:
        return  # Another caller has made the bridge meanwhile.
    raise _unusable(
        port, 'is a port of %s' % (master.name if master else 'another '
                                   'device'),
        'take it out of there with "ip link set %s nomaster", and out of '
        'the network configuration of this host, or name another'
        % link.name)


def _require_no_addresses(netlink: nl.Netlink, port: TapPort,
                          link: Link) -> None:
    addresses = netlink.global_addresses(link)
    if addresses:
        raise _unusable(
            port, 'has the addresses %s, which would be cut off'
            % ', '.join(addresses),
            'have the network configuration of this host make the bridge, '
            'with the addresses. ' + _SNIPPETS.format(
                uplink=link.name, bridge=port.bridge, mac=link.mac,
                addresses=', '.join(addresses),
                lines=' '.join('Address=' + each for each in addresses)))


def make_missing(netlink: nl.Netlink, port: TapPort,
                 found: Link | None) -> tuple[Link | None, bool]:
    """Make the uplink if it is a VLAN that is missing.

    :param found: what :func:`find` returned
    :returns: the uplink, None if there is to be none, and whether this call
        made it
    :raises KernelRefused: the kernel knows no VLANs, for example
    """
    if found is not None or port.uplink is None:
        return found, False
    parent, vlan = _parent(netlink, port)
    made = netlink.create_vlan(port.uplink, parent, vlan)
    link = find(netlink, port, netlink.find(port.bridge))
    if link is None:
        raise _unusable(port, 'was removed again at once', 'find out by whom')
    return link, made


def join(netlink: nl.Netlink, port: TapPort, link: Link,
         bridge: Link) -> None:
    """Make the uplink a port of the bridge, up, and with its network's MTU.

    An MTU that is larger stays.

    :raises KernelRefused: the device cannot have this MTU, for example
    """
    if port.mtu is not None and link.mtu < port.mtu:
        netlink.change(link, {'mtu': port.mtu})
    if link.master != bridge.index:
        netlink.change(link, {'master': bridge.index},
                       step='becoming a port of bridge %s' % bridge.name)
    if not link.up:
        netlink.change(link, {'up': True})


def _parent(netlink: nl.Netlink,
            port: TapPort) -> tuple[Link, int]:
    """Return of which device the uplink is which VLAN.

    :raises UplinkUnusable: of none that is there
    """
    found = names.parse_vlan_device(port.uplink or '')
    if found is None:
        raise _unusable(port, 'does not exist',
                        'bring the device there, or correct bridge_uplinks')
    name, vlan = found
    parent = netlink.find(name)
    if parent is None:
        raise _unusable(
            port, 'does not exist, and can not be made, because there is no '
            '%s either' % name,
            'bring that device there, or correct bridge_uplinks')
    if port.mtu is not None and parent.mtu < port.mtu:
        raise _unusable(
            port, 'can not be made with the MTU %d of its network, because %s '
            'has %d' % (port.mtu, parent.name, parent.mtu),
            'have the network configuration of this host give %s a larger MTU'
            % parent.name)
    return parent, vlan


def _unusable(port: TapPort, reason: str,
              remedy: str) -> exception.UplinkUnusable:
    return exception.UplinkUnusable(uplink=port.uplink, bridge=port.bridge,
                                    reason=reason, remedy=remedy)


def lend(netlink: nl.Netlink, port: TapPort, on_bridge: Link,
         link: Link) -> None:
    """Have what is for the guest go to the wire while nobody holds its TAP.

    Its fixed entry draws that to the TAP, also after the guest has moved to
    another host, until Nova unplugs it here. Only where the uplink is known;
    where this fails there is no more harm than without.
    """
    wire = None
    try:
        if port.is_guarded and port.uplink is not None:
            wire = netlink.find(port.uplink)
            if wire is None or wire.master != on_bridge.index:
                return
        if link.backup_port != (wire and wire.index):
            netlink.set_backup_port(link, wire)
    except exception.TapMacError as error:
        LOG.debug('%s: no backup port: %s', port.name, error)
