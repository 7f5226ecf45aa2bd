# SPDX-License-Identifier: Apache-2.0

"""The bodies of messages that make links.

Pure: nothing here asks or tells the kernel anything.
"""

import struct
import typing

from vif_plug_tapmac.kernel import attributes
from vif_plug_tapmac.kernel import link
from vif_plug_tapmac.kernel import rtnetlink

#: Source: include/uapi/linux/if_link.h
_IFLA_LINK = 5


def new_bridge(name: str, mac: str, group: int, mtu: int | None) -> bytes:
    """Return the body that makes a bridge, silent and with a MAC for good."""
    fields: dict[str, typing.Any] = {
        'name': name, 'mac': mac, 'group': group, 'forward_delay': 0,
        'stp': False, 'multicast_snooping': False}
    if mtu is not None:
        fields['mtu'] = mtu
    return rtnetlink.link(0, *link.settings(fields))


def new_vlan(name: str, parent_index: int, vlan: int) -> bytes:
    """Return the body that makes the device of a VLAN."""
    return rtnetlink.link(
        0, link.named(name), attributes.number(_IFLA_LINK, parent_index),
        link.info('vlan', attributes.attribute(
            link.VLAN_ID, struct.pack('=H', vlan))))


def new_cable(name: str) -> bytes:
    """Return the body that makes a veth pair, of which one has this name."""
    return rtnetlink.link(0, link.named(name), link.info('veth'))
