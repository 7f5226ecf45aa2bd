# SPDX-License-Identifier: Apache-2.0

"""Whether a link is the VLAN that its name says, and what it is made on."""

import typing

from vif_plug_tapmac.kernel.link import Link
from vif_plug_tapmac.kernel import netlink as nl
from vif_plug_tapmac.wanted import names

#: Ethertypes of tags: of a VLAN, and of what providers put around it. Source:
#: include/uapi/linux/if_ether.h, ETH_P_8021Q and ETH_P_8021AD
_TAG, _SERVICE_TAG = 0x8100, 0x88a8
#: Kinds of links that are made on another, and reach nobody while it is down.
_MADE_ON_ANOTHER = ('vlan', 'macvlan')
#: Kinds of links that end elsewhere, where they may be in a VLAN: a card whose
#: driver or switch does that, a cable to another network namespace or program.
_ENDS_ELSEWHERE = (None, 'veth', 'tun')


def misnamed(link: Link, lower: Link | None,
             name: str | None = None) -> str | None:
    """Return what a link is that is not the VLAN that it is named as.

    :param lower: what it is made on, None if that is not here
    :param name: the one of its names that is meant; None: its own
    :returns: in words, as "is VLAN 300 of eth1"; None if it is that VLAN, is
        not named as one, or nobody can tell here
    """
    said = names.parse_vlan_device(name or link.name)
    if said is None or link.kind in _ENDS_ELSEWHERE:
        return None
    if link.kind != 'vlan':
        return 'is no VLAN at all (%s)' % link.kind
    if ((lower is None or lower.is_called(said[0]))
            and (link.vlan, link.vlan_protocol) == (said[1], _TAG)):
        return None
    return 'is VLAN %s of %s%s' % (
        link.vlan, lower.name if lower else said[0], ' with the tag of 802.1ad'
        if link.vlan_protocol == _SERVICE_TAG else '')


def other_name(links: typing.Iterable[Link], parent: Link,
               vlan: int) -> str | None:
    """Return how the VLAN of the parent is called among these links."""
    return next((link.name for link in links if (
        link.lower, link.vlan, link.vlan_protocol) == (
            parent.index, vlan, _TAG)), None)


def lower(netlink: nl.Netlink, link: Link) -> Link | None:
    """Return what a link is made on, None if that is not here, or nothing."""
    if link.lower is None or link.kind not in _MADE_ON_ANOTHER:
        return None
    return netlink.get(link.lower, 'the parent of %s' % link.name)
