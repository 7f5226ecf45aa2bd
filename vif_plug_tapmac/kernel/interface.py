# SPDX-License-Identifier: Apache-2.0

"""The host's end of an interface of DHCP, or of a router: onto its bridge.

Neutron's agents make it, by a driver of ours that knows no bridge; whoever
knows which it is has it join there. Neutron trusts what is behind it, so that
no group of filters has it, and its port is as the kernel makes ports.
"""

import logging
import typing

from vif_plug_tapmac import exception
from vif_plug_tapmac.kernel import bridge
from vif_plug_tapmac.kernel import bridge_port
from vif_plug_tapmac.kernel import link as link_data
from vif_plug_tapmac.kernel.link import Link
from vif_plug_tapmac.kernel import netlink as nl
from vif_plug_tapmac import mac
from vif_plug_tapmac import mark
from vif_plug_tapmac.wanted.limits import Limits
from vif_plug_tapmac.wanted.port import TapPort

LOG = logging.getLogger(__name__)

#: What the kernel tells of a port it tells only when that has joined.
_ROUNDS = 4


def join(port: TapPort, limits: Limits) -> bool:
    """Have an interface's end on its bridge, which is made if it is missing.

    :param port: the guest is whoever is behind it
    :returns: False if there is no such device any more
    :raises TapMacError: it is as it was, or half of it is done, which the
        next call goes on with
    """
    limits.require_bridge(port)
    with nl.Netlink() as netlink:
        link = netlink.find(port.name)
        if link is None:
            return False
        _require_own(link, port)
        on_bridge = bridge.ensure(netlink, port, bridge.find(netlink, port))
        for _ in range(_ROUNDS):
            wanted = wanted_fields(link, on_bridge, port)
            if not link.differences(wanted):
                return True
            if link.master not in (None, on_bridge.index):
                LOG.warning('%s was on another bridge than that of its '
                            'segment, %s, and is on this one now', link.name,
                            on_bridge.name)
            netlink.change(link, link.differences(wanted))
            seen = netlink.get(link.index, port.name)
            if seen is None:
                return False
            link = seen
    raise exception.VerifyFailed(device=port.name,
                                 differences=link.explain(wanted))


def _require_own(link: Link, port: TapPort) -> None:
    """Check that it is the end of this port's interface.

    :raises DeviceConflict: it is not
    """
    found = mark.InterfaceMark.parse(link.alias)
    if not mark.is_interface(link) or found and found.port_id != port.vif_id:
        raise exception.DeviceConflict(
            device=port.name, reason='it is no end of an interface of port '
            '%s' % port.vif_id,
            remedy='rename that device, and start the agent again whose '
            'interface that is')


def wanted_fields(link: Link, on_bridge: Link,
                  port: TapPort) -> dict[str, typing.Any]:
    """Return the fields that it is to have, as far as it has them now."""
    wanted: dict[str, typing.Any] = {
        'mac': right_mac(link, port.guest_mac),
        'master': on_bridge.index, 'group': mark.INTERFACE_GROUP,
        'alias': str(mark.InterfaceMark(port.vif_id, port.guest_mac,
                                        port.bridge)),
        **({} if port.mtu is None else {'mtu': port.mtu}),
        **bridge_port.wanted_state(link, on_bridge), 'up': True}
    if link.master == on_bridge.index:
        wanted.update(learning=True, locked=False)
    if link.addr_gen_mode is not None:
        wanted['addr_gen_mode'] = link_data.ADDR_GEN_NONE
    return {field: value for field, value in wanted.items()
            if field in ('mac', 'master', 'alias')
            or getattr(link, field) is not None}


def right_mac(link: Link, other_mac: str) -> str | None:
    """Return its MAC as it is to be, by that of the other end.

    That is never the lowest one of its bridge's ports.
    """
    return (link.mac if link.mac in mac.possible_tap_macs(other_mac)
            else mac.tap_mac(other_mac))
