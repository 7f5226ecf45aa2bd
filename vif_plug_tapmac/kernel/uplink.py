# SPDX-License-Identifier: Apache-2.0

"""The device that connects a bridge of ours with the wire."""

import logging
import typing

from vif_plug_tapmac import exception
from vif_plug_tapmac.kernel.link import Link
from vif_plug_tapmac.kernel import netlink as nl
from vif_plug_tapmac.kernel import vlan_device
from vif_plug_tapmac import mac
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
    :raises UplinkUnusable: it is not fit, or not the VLAN that it is named as;
        the latter also if it is the bridge's uplink already
    """
    if port.uplink is None:
        return None
    link = netlink.find_by_any_name(port.uplink)
    if link is None:
        _parent(netlink, port)
        return None
    _require_kind(port, link)
    _require_vlan(netlink, port, link, port.uplink)
    if bridge is not None and link.master == bridge.index:
        return link
    if link.master is not None:
        _require_master(netlink, port, link, bridge)
    else:
        _require_no_addresses(netlink, port, link)
    lower = vlan_device.lower(netlink, link) if link.kind == 'vlan' else None
    if lower is not None and link.mtu < (port.mtu or 0):
        _require_mtu(port, lower)
    return link


def _require_vlan(netlink: nl.Netlink, port: TapPort, link: Link,
                  name: str) -> None:
    """Check that the link, and what it is made on, is what it is named as.

    :param name: the one of its names that is meant
    """
    said = names.parse_vlan_device(name)
    if said is None:
        return
    lower = vlan_device.lower(netlink, link)
    fault = vlan_device.misnamed(link, lower, name)
    if fault is not None:
        raise unusable(
            port, ('' if name == port.uplink else 'is on %s, which '
                   % name) + fault + ', and not what its name says',
            'have the network configuration of this host make %s as its name '
            'says, or name the right device in bridge_uplinks' % name)
    if lower is not None:
        _require_vlan(netlink, port, lower, said[0])


def _require_kind(port: TapPort, link: Link) -> None:
    what = ('the loopback device' if link.name == 'lo'
            else 'a bridge' if link.kind == 'bridge'
            else 'the TAP of a guest'
            if link.is_tap and link.group in port.groups
            else 'no Ethernet device' if not _is_ethernet(link) else None)
    if what is not None:
        raise unusable(port, 'is ' + what, 'name a network card, a bond or a '
                       'VLAN in bridge_uplinks')


def _is_ethernet(link: Link) -> bool:
    """Return whether it has a MAC that a port of a bridge can have."""
    try:
        return mac.parse(link.mac or '') == link.mac
    except ValueError:
        return False


def _require_master(netlink: nl.Netlink, port: TapPort, link: Link,
                    bridge: Link | None) -> None:
    assert link.master is not None
    master = netlink.get(link.master, 'the master of %s' % link.name)
    if master is not None and master.name == port.bridge:
        return  # Another caller has made the bridge meanwhile.
    # For the words of this error alone, all links are looked at.
    raise unusable(
        port, 'is a port of %s' % (master.name if master else 'another '
                                   'device'),
        '"ip link set %s nomaster", and out of the network configuration of '
        'this host, or name another' % link.name
        if master is not None and not is_used(
            master, netlink.links(), netlink.global_addresses(master)) else
        leave_there(link, master, port.bridge, bridge is not None))


def is_used(master: Link, links: typing.Iterable[Link],
            addresses: typing.Sequence[str]) -> bool:
    """Return whether somebody is cut off if this loses one of its ports.

    :param links: all of them
    :param addresses: of the host, on this one
    """
    return (master.kind != 'bridge' or bool(addresses)
            or sum(each.master == master.index for each in links) > 1)


def leave_there(link: Link, master: Link | None, bridge: str,
                is_there: bool) -> str:
    """Return what to do about an uplink by which others are connected.

    :param master: whose port it is, None if that is not here
    :param bridge: the name of the one that is to have it
    :param is_there: whether there is one of this name
    """
    if master is None or master.kind != 'bridge':
        return ('name a device in bridge_uplinks that is no part of another, '
                'as %s itself if it is a bond' % (master or link).name)
    free = 'ip link set %s name <another> && ' % bridge if is_there else ''
    return ('leave it there, for %s connects others by it. If that is the '
            'bridge of this network, have Neutron call it so ([ml2_tapmac] '
            'flat_bridge and vlan_bridge, as brq{network}), or rename it, '
            'with Neutron\'s Linux bridge agent stopped for good: "%sip link '
            'set %s name %s"; while it is up, this takes Linux 6.2, and its '
            'guests do not notice. Else name another uplink in bridge_uplinks'
            % (master.name, free, master.name, bridge))


def _require_no_addresses(netlink: nl.Netlink, port: TapPort,
                          link: Link) -> None:
    addresses = netlink.global_addresses(link)
    if addresses:
        raise unusable(
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
        raise _taken(netlink, port, parent, vlan)
    return link, made


def _taken(netlink: nl.Netlink, port: TapPort, parent: Link,
           vlan: int) -> exception.UplinkUnusable:
    """Return the error for a VLAN that can't be made, and is not there.

    A parent has each VLAN once, whatever its name and network namespace.
    """
    name = vlan_device.other_name(netlink.links(), parent, vlan)
    if name is not None:
        return unusable(
            port, 'does not exist, and can not be made, because VLAN %d of %s '
            'is %s' % (vlan, parent.name, name),
            'name %s as the uplink of %s in bridge_uplinks, or rename it with '
            '"ip link set %s name %s", and the same in the network '
            'configuration of this host'
            % (name, port.bridge, name, port.uplink))
    return unusable(
        port, 'was removed again at once, or VLAN %d of %s is in another '
        'network namespace' % (vlan, parent.name),
        'find out by whom, or take it back from there')


def own_mac(netlink: nl.Netlink, port: TapPort,
            found: Link | None) -> str | None:
    """Return the MAC of the uplink; a VLAN that is made has its parent's.

    :param found: what :func:`find` returned
    """
    return (_parent(netlink, port)[0] if found is None else found).mac


def command(bridge: str, name: str, missing: bool) -> str:
    """Return what makes the uplink of this name a port, for the operator.

    :param missing: whether it is to be made first, where it is a VLAN
    """
    said = names.parse_vlan_device(name) if missing else None
    make = '' if said is None else (
        'ip link add link %s name %s type vlan id %d && '
        % (said[0], name, said[1]))
    return make + 'ip link set %s master %s' % (name, bridge) + (
        ' up' if make else '')


def raise_lower(netlink: nl.Netlink, port: TapPort, link: Link) -> None:
    """Bring up what the uplink is made on, and what that is, lowest first."""
    lower = vlan_device.lower(netlink, link)
    if lower is None or lower.up:
        return
    raise_lower(netlink, port, lower)
    LOG.warning('%s was down, and is up now, because %s, the uplink of bridge '
                '%s, is made on it', lower.name, port.uplink, port.bridge)
    netlink.change(lower, {'up': True})


def _parent(netlink: nl.Netlink,
            port: TapPort) -> tuple[Link, int]:
    """Return of which device the uplink is which VLAN.

    :raises UplinkUnusable: of none that is there
    """
    found = names.parse_vlan_device(port.uplink or '')
    if found is None:
        raise unusable(port, 'does not exist',
                       'bring the device there, or correct bridge_uplinks')
    name, vlan = found
    if len(str(port.uplink)) > names.DEVICE_NAME_MAX:
        raise unusable(
            port, 'does not exist, and can not be made, because its name has '
            'more than %d characters' % names.DEVICE_NAME_MAX,
            'name a device in bridge_uplinks for VLAN %d of %s that has a '
            'shorter one, or have the network configuration of this host make '
            'it, with this as an alternative name' % (vlan, name))
    parent = netlink.find_by_any_name(name)
    if parent is None:
        raise unusable(
            port, 'does not exist, and can not be made, because there is no '
            '%s either' % name,
            'bring that device there, or correct bridge_uplinks')
    _require_vlan(netlink, port, parent, name)
    _require_mtu(port, parent)
    return parent, vlan


def _require_mtu(port: TapPort, lower: Link) -> None:
    """Check that what the uplink is made on permits the network's MTU."""
    if port.mtu is not None and lower.mtu < port.mtu:
        raise unusable(
            port, 'can not have the MTU %d of its network, because %s has %d'
            % (port.mtu, lower.name, lower.mtu),
            'have the network configuration of this host give %s a larger MTU'
            % lower.name)


def unusable(port: TapPort, reason: str,
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
            wire = netlink.find_by_any_name(port.uplink)
            if wire is None or wire.master != on_bridge.index:
                return
        if link.backup_port != (wire and wire.index):
            netlink.set_backup_port(link, wire)
    except exception.TapMacError as error:
        LOG.debug('%s: no backup port: %s', port.name, error)
