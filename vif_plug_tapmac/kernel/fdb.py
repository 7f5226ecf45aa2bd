# SPDX-License-Identifier: Apache-2.0

"""An entry of a bridge's FDB, and VLANs of its ports: from bytes, and back.

Pure: nothing here asks or tells the kernel anything.
"""

import dataclasses
import struct

from vif_plug_tapmac.kernel import attributes
from vif_plug_tapmac.kernel import rtnetlink

#: State and flags of a forwarding entry.
#: Source: include/uapi/linux/neighbour.h
_NUD_NOARP, _NUD_PERMANENT = 0x40, 0x80
_NTF_SELF, _NTF_MASTER, _NTF_EXT_LEARNED = 0x02, 0x04, 0x10
_NTF_STICKY = 0x40
#: Attributes. Source: include/uapi/linux/neighbour.h
_LLADDR, _VLAN, _MASTER = 2, 5, 9
#: Of the VLANs of a port. Source: include/uapi/linux/if_bridge.h,
#: BRIDGE_VLANDB_ENTRY and what is in it; struct bridge_vlan_info
_VLAN_ENTRY, _VLAN_INFO, _VLAN_RANGE = 1, 1, 2
_VLAN_FLAGS_AND_ID = struct.Struct('=HH')


@dataclasses.dataclass(frozen=True)
class FdbEntry:
    """Where a bridge sends frames for a MAC.

    :param local: the MAC is a port's or the bridge's own; frames for it go to
        the host and never out of the port
    :param fixed: it does not age, and no frame of another port moves it
        ("static sticky")
    :param heard: a frame said so, which anybody may have sent; it ages
    """
    port_index: int
    local: bool
    fixed: bool = False
    heard: bool = False

    @classmethod
    def from_message(cls, body: bytes) -> 'FdbEntry':
        """Return the entry that a message describes."""
        entry = rtnetlink.NeighbourMessage(body)
        return cls(entry.index, bool(entry.state & _NUD_PERMANENT),
                   bool(entry.state & _NUD_NOARP
                        and entry.flags & _NTF_STICKY),
                   not entry.state & (_NUD_NOARP | _NUD_PERMANENT))


@dataclasses.dataclass(frozen=True)
class PlacedEntry:
    """An entry of an FDB, as whoever looks for what was put there needs it.

    :param index: of the port; of the bridge, where frames go to the host
    :param stays: it was put there, and does not age
    :param of_device: it is in no FDB, but among the MACs of a device
    """
    index: int
    mac: str
    vlan: int
    stays: bool
    of_device: bool

    @classmethod
    def from_message(cls, body: bytes) -> 'PlacedEntry':
        """Return the entry that a message describes."""
        entry = rtnetlink.NeighbourMessage(body)
        return cls(entry.index, mac_of(body), vlan_of(body),
                   bool(entry.state & (_NUD_NOARP | _NUD_PERMANENT)
                        or entry.flags & _NTF_EXT_LEARNED),
                   bool(entry.flags & _NTF_SELF))


def mac_of(body: bytes) -> str:
    """Return the MAC that an entry is for."""
    return str(rtnetlink.NeighbourMessage(body).attributes.mac(_LLADDR))


def vlan_of(body: bytes) -> int:
    """Return the VLAN that an entry is for, 0: frames without one."""
    return rtnetlink.NeighbourMessage(body).attributes.number(_VLAN) or 0


def vlans_of_port(body: bytes) -> tuple[int, set[int]]:
    """Return VLANs of a port, by a message on these: index of the port, ids.

    A port may have more than one message has room for.
    """
    index, data = rtnetlink.read_vlans(body)
    found: set[int] = set()
    for kind, value in attributes.every(data):
        entry = attributes.Attributes(value)
        info = entry.octets(_VLAN_INFO)
        if kind == _VLAN_ENTRY and info is not None:
            _, first = _VLAN_FLAGS_AND_ID.unpack(info)
            found.update(range(first, (entry.number(_VLAN_RANGE) or first)
                               + 1))
    return index, found


def question(bridge_index: int, mac: str, vlan: int) -> bytes:
    """Return the body that asks a bridge for its entry.

    :param vlan: 0 for frames without one
    """
    parts = [attributes.mac(_LLADDR, mac),
             attributes.number(_MASTER, bridge_index)]
    if vlan:
        parts.append(attributes.attribute(_VLAN, struct.pack('=H', vlan)))
    return rtnetlink.neighbour(0, *parts)


def fixed(port_index: int, mac: str) -> bytes:
    """Return the body of an entry that stays on this port.

    The kernel makes one for frames without a VLAN, and one for each VLAN that
    the port has by then. Source: net/bridge/br_fdb.c, br_fdb_add
    """
    return rtnetlink.neighbour(
        port_index, attributes.mac(_LLADDR, mac), state=_NUD_NOARP,
        flags=_NTF_MASTER | _NTF_STICKY)


def any_kind(port_index: int, mac: str) -> bytes:
    """Return the body that means the port's entry, whatever its kind."""
    return rtnetlink.neighbour(port_index, attributes.mac(_LLADDR, mac),
                               flags=_NTF_MASTER)


def of_host(bridge_index: int, mac: str) -> bytes:
    """Return the body that means the entry by which the host gets frames."""
    return rtnetlink.neighbour(bridge_index, attributes.mac(_LLADDR, mac),
                               flags=_NTF_SELF)
