# SPDX-License-Identifier: Apache-2.0

"""An entry of a bridge's FDB: from the bytes of a message, and back.

Pure: nothing here asks or tells the kernel anything.
"""

import dataclasses

from vif_plug_tapmac.kernel import attributes
from vif_plug_tapmac.kernel import rtnetlink

#: State and flags of a forwarding entry.
#: Source: include/uapi/linux/neighbour.h
_NUD_NOARP, _NUD_PERMANENT = 0x40, 0x80
_NTF_MASTER, _NTF_STICKY = 0x04, 0x40
#: Attributes. Source: include/uapi/linux/neighbour.h
_LLADDR, _MASTER = 2, 9


@dataclasses.dataclass(frozen=True)
class FdbEntry:
    """Where a bridge sends frames for a MAC.

    :param local: the MAC is a port's or the bridge's own; frames for it go to
        the host and never out of the port
    :param fixed: it does not age, and no frame of another port moves it
        ("static sticky")
    """
    port_index: int
    local: bool
    fixed: bool = False

    @classmethod
    def from_message(cls, body: bytes) -> 'FdbEntry':
        """Return the entry that a message describes."""
        entry = rtnetlink.NeighbourMessage(body)
        return cls(entry.index, bool(entry.state & _NUD_PERMANENT),
                   bool(entry.state & _NUD_NOARP
                        and entry.flags & _NTF_STICKY))


def mac_of(body: bytes) -> str:
    """Return the MAC that an entry is for."""
    return str(rtnetlink.NeighbourMessage(body).attributes.mac(_LLADDR))


def question(bridge_index: int, mac: str) -> bytes:
    """Return the body that asks a bridge for its entry."""
    return rtnetlink.neighbour(0, attributes.mac(_LLADDR, mac),
                               attributes.number(_MASTER, bridge_index))


def fixed(port_index: int, mac: str) -> bytes:
    """Return the body of an entry that stays on this port."""
    return rtnetlink.neighbour(
        port_index, attributes.mac(_LLADDR, mac), state=_NUD_NOARP,
        flags=_NTF_MASTER | _NTF_STICKY)


def any_kind(port_index: int, mac: str) -> bytes:
    """Return the body that means the port's entry, whatever its kind."""
    return rtnetlink.neighbour(port_index, attributes.mac(_LLADDR, mac),
                               flags=_NTF_MASTER)
