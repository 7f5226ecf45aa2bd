# SPDX-License-Identifier: Apache-2.0

"""The marks on our devices: what their ifalias says, and to whom they belong.

An alias survives restarts of everything but the host, can be read by anyone
and written by CAP_NET_ADMIN only (up to 255 bytes, net/core/dev.c
dev_set_alias).
"""

import dataclasses
import re
import time
import typing

from vif_plug_tapmac.wanted import names

if typing.TYPE_CHECKING:
    from vif_plug_tapmac.kernel.link import Link

#: Written last on a bridge of ours: with it the bridge is finished.
BRIDGE_MARK = 'tapmac:bridge:1'

#: How long, in seconds, a guest may be on its way to its TAP, from Nova or
#: from the host that it migrates from.
ARRIVES_WITHIN = 600.0

_TAP_MARK = re.compile(
    r'tapmac:1:(?P<vif_id>[0-9a-f-]{36}):'
    r'(?P<guest_mac>[0-9a-f]{2}(?::[0-9a-f]{2}){5}):'
    r'(?P<bridge>[^:]+):'
    r'(?P<made>[0-9]{1,20})\Z')


@dataclasses.dataclass(frozen=True)
class TapMark:
    """Whose TAP this is, and where it belongs.

    :param bridge: the name of the bridge that the last plug was told
    :param made: when it was made, in seconds since 1970, UTC
    """
    vif_id: str
    guest_mac: str
    bridge: str
    made: int

    def __str__(self) -> str:
        return 'tapmac:1:%s:%s:%s:%d' % (
            self.vif_id, self.guest_mac, self.bridge, self.made)

    @classmethod
    def parse(cls, alias: str | None) -> 'TapMark | None':
        """Return the mark that an alias holds; None if it holds none."""
        match = _TAP_MARK.match(alias or '')
        if match is None or not names.is_device_name(match['bridge']):
            return None
        return cls(match['vif_id'], match['guest_mac'], match['bridge'],
                   int(match['made']))

    def is_older_than(self, seconds: float) -> bool:
        """Return whether the TAP was made so long ago at least."""
        return time.time() - self.made >= seconds


def former_name(name: str, alias: str | None,
                altnames: typing.Iterable[str]) -> str | None:
    """Return what a TAP was called before somebody began to delete it.

    An alternative name that says so is anybody's to write: one that fits
    neither name nor mark says nothing, or it would make the TAP of one VIF
    that of another.

    :param name: that it has now
    :returns: it may be the same; None: nobody is, or was, at it
    """
    owner = TapMark.parse(alias)
    for altname in altnames:
        former = altname.removesuffix(names.BEING_DELETED)
        if former == altname:
            continue
        start = names.start_of_vif_id(former)
        if former == name or (
                owner.vif_id.startswith(start) if owner and start
                else names.is_unguessable(name)):
            return former
    return None


#: The link group of the host end of each interface of a DHCP or L3 agent.
#: Nothing is closed in it, and no option moves it: what is in it has our mark,
#: or the name of a port of Neutron.
INTERFACE_GROUP = 29797

_INTERFACE_MARK = re.compile(
    r'tapmac:interface:1:(?P<port_id>[0-9a-f-]{36}):'
    r'(?P<mac>[0-9a-f]{2}(?::[0-9a-f]{2}){5}):(?P<bridge>[^:]*)\Z')


@dataclasses.dataclass(frozen=True)
class InterfaceMark:
    """Whose end of a cable this is: of a port of DHCP, or of a router.

    :param port_id: the port's UUID
    :param mac: of the other end, which the agent has
    :param bridge: the name of the bridge that it was put on; None if nobody
        has put it on one yet
    """
    port_id: str
    mac: str
    bridge: str | None

    def __str__(self) -> str:
        return 'tapmac:interface:1:%s:%s:%s' % (
            self.port_id, self.mac, self.bridge or '')

    @classmethod
    def parse(cls, alias: str | None) -> 'InterfaceMark | None':
        """Return the mark that an alias holds; None if it holds none."""
        match = _INTERFACE_MARK.match(alias or '')
        if match is None or match['bridge'] and not names.is_device_name(
                match['bridge']):
            return None
        return cls(match['port_id'], match['mac'], match['bridge'] or None)


def is_interface(link: 'Link') -> bool:
    """Return whether this is the host end of an agent's interface.

    It is also where somebody has overwritten its mark.
    """
    return link.kind == 'veth' and (
        InterfaceMark.parse(link.alias) is not None
        or link.group == INTERFACE_GROUP
        and names.start_of_vif_id(link.name) is not None)


def is_lost(link: 'Link', groups: typing.Container[int | None]) -> bool:
    """Return whether this is a TAP of ours that has lost its mark.

    Others write aliases, too: monitoring does, and lldpd, from a frame that a
    guest sends. What nobody else gives a TAP are our link group and the name
    that Nova gives to the TAP of a port.

    :param groups: those that our TAPs are in
    """
    return (link.is_tap and link.group in groups
            and TapMark.parse(link.alias) is None
            and names.start_of_vif_id(link.former_name or link.name)
            is not None)
