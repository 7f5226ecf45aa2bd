# SPDX-License-Identifier: Apache-2.0

"""The uplink as a port of its bridge: joined, up, and as wide as its network.

It is as it was before where it can not be that.
"""

import contextlib
import errno
import logging
import typing

from vif_plug_tapmac import exception
from vif_plug_tapmac.kernel.link import Link
from vif_plug_tapmac.kernel import netlink as nl
from vif_plug_tapmac.kernel import uplink
from vif_plug_tapmac.kernel import vlan_device
from vif_plug_tapmac.wanted.port import TapPort

LOG = logging.getLogger(__name__)

#: Kinds of devices that take all that comes in at the one they stand on.
_TAKERS = ('macvlan', 'macvtap', 'ipvlan', 'ipvtap', 'macsec')


def is_port(netlink: nl.Netlink, port: TapPort, bridge: Link) -> bool:
    """Return whether the device of the uplink's name is a port already."""
    link = netlink.find_by_any_name(port.uplink) if port.uplink else None
    return link is not None and link.master == bridge.index


def join(netlink: nl.Netlink, port: TapPort, link: Link,
         bridge: Link) -> None:
    """Make the uplink a port of the bridge, up, and with its network's MTU.

    An MTU that is larger stays. What it is made on comes up before it.

    :raises UplinkUnusable: the kernel takes it for no port, it cannot have
        this MTU, or cannot come up; it is as it was before
    """
    steps: list[tuple[dict[str, typing.Any], str, dict[str, typing.Any]]] = []
    if port.mtu is not None and link.mtu < port.mtu:
        steps.append(({'mtu': port.mtu}, 'have the MTU %d of its network'
                      % port.mtu, {'mtu': link.mtu}))
    if link.master != bridge.index:
        steps.append(({'master': bridge.index}, 'become a port of it',
                      {'master': link.master or 0}))
    if not link.up:
        steps.append(({'up': True}, 'be brought up', {'up': False}))
    with contextlib.ExitStack() as undo:
        for fields, what, former in steps:
            _change(netlink, port, link, bridge, fields, what)
            undo.callback(_change_back, netlink, link, former)
        undo.pop_all()


def _change(netlink: nl.Netlink, port: TapPort, link: Link, bridge: Link,
            fields: dict[str, typing.Any], what: str) -> None:
    """Set something of the uplink.

    :param what: what it is to do, in words for the error
    :raises UplinkUnusable: it can not, and will not in a moment either
    :raises KernelRefused: ENODEV of the bridge, which is gone; EPERM
    """
    try:
        if 'up' in fields:
            uplink.raise_lower(netlink, port, link)
        netlink.change(link, fields)
    except exception.KernelRefused as error:
        code = error.kwargs.get('code')
        if code in (errno.EPERM, errno.EACCES):
            raise
        if code == errno.ENODEV and not nl.is_named(bridge.index,
                                                    bridge.name):
            raise exception.KernelRefused.from_errno(
                bridge.name, 'using the bridge', errno.ENODEV)
        reason, remedy = _why(netlink, link, fields, error)
        raise uplink.unusable(port, 'can not %s: %s' % (what, reason), remedy)


def _why(netlink: nl.Netlink, link: Link, fields: dict[str, typing.Any],
         error: exception.KernelRefused) -> tuple[str, str]:
    """Return the reason for a refusal, and what to do, both in words."""
    reason = str(error.kwargs['error'])
    code = error.kwargs.get('code')
    if 'mtu' in fields:
        return reason, ('give the network in Neutron an MTU that %s can have, '
                        'or a larger one to what it stands on' % link.name)
    if code == errno.EBUSY:
        # For the words of this error alone, all links are looked at.
        holders = [each for each in netlink.links()
                   if each.lower == link.index and each.kind in _TAKERS]
        if holders:
            return ('%s, for on it stands %s' % (reason, ', '.join(
                '%s (%s)' % (each.name, each.kind) for each in holders)),
                'name another uplink, or, if nobody uses %s: %s, and out of '
                'the network configuration of this host'
                % ('it' if len(holders) == 1 else 'them', ' and '.join(
                    '"ip link delete %s"' % each.name for each in holders)))
        return reason, ('find what has taken %s for itself ("ip -d link show '
                        '%s"), or name another uplink'
                        % (link.name, link.name))
    if 'master' in fields and code in (errno.EINVAL, errno.EOPNOTSUPP):
        return reason, ('name a network card, a bond or a VLAN in '
                        'bridge_uplinks: the kernel takes %s for no port of '
                        'a bridge, as it does with wireless cards and tunnels '
                        'of IP' % link.name)
    return reason, str(error.kwargs['remedy'])


def _change_back(netlink: nl.Netlink, link: Link,
                 former: dict[str, typing.Any]) -> None:
    try:
        netlink.change(link, former)
    except exception.TapMacError as error:
        LOG.debug('%s is not as it was before: %s', link.name, error)


def widen(netlink: nl.Netlink, link: Link, bridge: Link) -> None:
    """Give the uplink of a bridge of ours the bridge's MTU back.

    That of a VLAN shrinks with its parent's, and does not grow with it again.
    """
    if link.mtu < bridge.mtu:
        lower = vlan_device.lower(netlink, link)
        if lower is not None and lower.mtu >= bridge.mtu:
            LOG.debug('%s: MTU %d again', link.name, bridge.mtu)
            netlink.change(link, {'mtu': bridge.mtu})
