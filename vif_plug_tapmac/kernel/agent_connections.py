# SPDX-License-Identifier: Apache-2.0

"""What knows connections, in the table that an agent feeds.

Its rules, the zone of each bridge that has ports, and whose MACs are those of
ports with connections, and of ports without: each element with the VIF as its
comment. On kernels without conntrack for bridges there is nothing of it.
"""

import typing

from vif_plug_tapmac.kernel import agent_conntrack
from vif_plug_tapmac.kernel import conntrack
from vif_plug_tapmac.kernel import filter_table as table
from vif_plug_tapmac.kernel.link import Link
from vif_plug_tapmac.kernel import netlink as nl
from vif_plug_tapmac.kernel import nft
from vif_plug_tapmac.kernel import nft_sets
from vif_plug_tapmac.kernel.nft_sets import Element
from vif_plug_tapmac.wanted.security_groups import Change
from vif_plug_tapmac.wanted.security_groups import Port

#: What is in each set, by its key.
_Sets = dict[str, dict[bytes, Element]]
_NAMES = (agent_conntrack.ZONES, agent_conntrack.STATEFUL_MACS,
          agent_conntrack.STATELESS_MACS)
#: Whether the kernel has it; None: nobody has asked it yet.
_is_possible: bool | None = None


def is_possible() -> bool:
    """Return whether this kernel has conntrack for bridges.

    As it was when this process asked for the first time.
    """
    global _is_possible
    if _is_possible is None:
        _is_possible = conntrack.probe()
    return _is_possible


def planned(session: nft.Session, netlink: nl.Netlink, change: Change,
            ports: typing.Mapping[int, Port], is_new: bool) -> list[nft.Step]:
    """Return what makes it as a change says; nothing if it is so.

    :param ports: those of the change that can be had, by the index of each TAP
    :param is_new: whether the table is made in the same transaction
    """
    if not is_possible():
        return []
    steps: list[nft.Step] = []
    before: _Sets = {name: {} for name in _NAMES}
    if is_new or not agent_conntrack.is_right(session, table.NAME):
        steps += agent_conntrack.making(table.NAME)
    if not (is_new or change.is_all or change.ports or change.gone):
        return steps  # There may be a thousand ports that are as they were.
    if not is_new:
        before = {name: {each.key: each for each in nft_sets.elements(
            session, table.NAME, name)} for name in _NAMES}
    after = _after(netlink, change, ports, before)
    for function, one, other in ((nft_sets.delete_elements, before, after),
                                 (nft_sets.add_elements, after, before)):
        for name in _NAMES:
            steps += function(table.NAME, name, [
                each for key, each in one[name].items()
                if other[name].get(key) != each])
    return steps


def zones(session: nft.Session) -> dict[str, int]:
    """Return the zone of each bridge that has one, by its name."""
    return {each.key.rstrip(b'\0').decode(): agent_conntrack.zone_of(each)
            for each in nft_sets.elements(session, table.NAME,
                                          agent_conntrack.ZONES)}


def _after(netlink: nl.Netlink, change: Change,
           ports: typing.Mapping[int, Port], before: _Sets) -> _Sets:
    """Return what is to be there."""
    bridges: dict[int, Link | None] = {}
    found: _Sets = {name: {} for name in _NAMES}
    told = {*change.gone, *(each.vif_id for each in change.ports)}
    if not change.is_all:
        for name in _NAMES[1:]:
            found[name] = {key: each for key, each in before[name].items()
                           if each.comment not in told}
        for key in before[agent_conntrack.ZONES]:
            bridge = netlink.find(key.rstrip(b'\0').decode())
            if bridge is not None:
                bridges[bridge.index] = bridge
    for index, port in ports.items():
        link = netlink.get(index)
        if link is None or link.master is None:
            continue
        if link.master not in bridges:
            bridges[link.master] = netlink.get(link.master)
        bridge = bridges[link.master]
        if bridge is None:
            continue
        macs = found[agent_conntrack.STATEFUL_MACS
                     if port.stateful and not port.is_open
                     else agent_conntrack.STATELESS_MACS]
        for mac in {port.mac, *(mac for mac, _ in port.own)}:
            each = agent_conntrack.mac_element(bridge.name, mac, port.vif_id)
            macs[each.key] = each
    for name, zone in agent_conntrack.zones({
            each.name: each.index for each in bridges.values()
            if each is not None}).items():
        each = agent_conntrack.zone_element(name, zone)
        found[agent_conntrack.ZONES][each.key] = each
    return found
