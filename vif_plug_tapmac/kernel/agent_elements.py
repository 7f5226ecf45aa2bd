# SPDX-License-Identifier: Apache-2.0

"""What the sets and maps of the table have for ports that an agent feeds.

Each element begins with the index of a TAP, and its comment is the VIF.
"""

import ipaddress
import typing

from vif_plug_tapmac.kernel import agent_table
from vif_plug_tapmac.kernel import filter_steps
from vif_plug_tapmac.kernel import filter_table as table
from vif_plug_tapmac.kernel import group_rules
from vif_plug_tapmac.kernel import netlink as nl
from vif_plug_tapmac.kernel import nft
from vif_plug_tapmac.kernel import nft_sets
from vif_plug_tapmac.kernel.nft_sets import Element
from vif_plug_tapmac.wanted import rules
from vif_plug_tapmac.wanted import security_groups
from vif_plug_tapmac.wanted.security_groups import Port

#: What is in each set, by the key and its end.
Sets = dict[str, dict[tuple[bytes, bytes | None], Element]]
#: The maps that say which chains are used; the sets that ports have elements
#: in, and those that only an agent feeds.
MAPS = agent_table.INGRESS, agent_table.EGRESS
ONLY_FED = (*(each.name for each in agent_table.PREFIXES),
            *agent_table.BY_INDEX)
NAMES = (*(each.name for each in table.PORT_SETS), *ONLY_FED)
_INDEX_LENGTH = 4


def index_of(element: Element) -> bytes:
    """Return the index that a key begins with, as it is there."""
    return element.key[:_INDEX_LENGTH]


def unfed(names: typing.Iterable[str], group: int) -> list[str]:
    """Return those of these TAPs that pass nothing, for no agent feeds them.

    :param group: that of TAPs that an agent feeds; others are not closed
    """
    with nl.Netlink() as netlink, nft.Session() as session:
        links = [link for link in map(netlink.find, names)
                 if link is not None and link.group == group]
        return [link.name for link in links if not any(
            nft_sets.has(session, table.NAME, name,
                         filter_steps.number_key(link.index))
            for name in (agent_table.EGRESS, agent_table.OPEN))]


def unlocked(sets: Sets) -> set[int]:
    """Return the indexes of ports that no bridge is to lock."""
    return {int.from_bytes(each.key, nft.BYTE_ORDER)
            for each in sets.get(agent_table.UNLOCKED, {}).values()}


def there(session: nft.Session,
          names: typing.Iterable[str] = NAMES) -> Sets:
    """Return what is in sets now, but for what is of no port."""
    none = filter_steps.number_key(filter_steps.CANARY)
    return {name: _by_key(each for each in nft_sets.elements(
        session, table.NAME, name) if index_of(each) != none)
        for name in names}


def wanted(ports: typing.Mapping[int, Port]) -> Sets:
    """Return what there is to be for these ports, by the index of each TAP."""
    found: dict[str, list[Element]] = {name: [] for name in NAMES}
    for index, port in ports.items():
        for name, element in _of(index, port):
            found[name].append(element._replace(comment=port.vif_id))
    return {name: _by_key(elements) for name, elements in found.items()}


def owners(sets: Sets) -> dict[bytes, str]:
    """Return whose each index is by what it has: a VIF."""
    return {index_of(element): element.comment
            for elements in sets.values() for element in elements.values()}


def after(before: Sets, ports: typing.Mapping[int, Port],
          unfed: typing.Collection[bytes],
          gone: typing.Collection[bytes]) -> Sets:
    """Return what there is to be where it is this for some ports.

    :param ports: by the index of each TAP
    :param unfed: indexes for which nothing that was there is said any more
    :param gone: those of which nothing else that was there stays, either
    """
    now = wanted(ports)
    return {name: {
        **{key: element for key, element in before[name].items()
           if index_of(element) not in (unfed if name in ONLY_FED else gone)},
        **now[name]} for name in before}


def _by_key(elements: typing.Iterable[Element],
            ) -> dict[tuple[bytes, bytes | None], Element]:
    # Of an interval of one key the kernel tells no end.
    return {(each.key, each.last or each.key): (
        each._replace(last=None) if each.last == each.key else each)
        for each in elements}


def _of(index: int, port: Port) -> typing.Iterator[tuple[str, Element]]:
    key = filter_steps.number_key(index)
    if port.is_open:
        yield agent_table.OPEN, Element(key)
    else:
        for name, direction in (
                (agent_table.INGRESS, security_groups.INGRESS),
                (agent_table.EGRESS, security_groups.EGRESS)):
            yield name, Element(key, data=group_rules.chain_name(
                direction, group_rules.set_name(port.groups)))
        if port.stateful:
            yield agent_table.STATEFUL, Element(key)
    macs = {port.mac, *(mac for mac, _ in port.own)}
    if port.is_open or macs != {port.mac}:
        yield agent_table.UNLOCKED, Element(key)
    for mac in macs:
        own = rules.link_local(mac)
        yield rules.MACS, Element(filter_steps.key(index, mac, None))
        yield rules.LINK_LOCAL, Element(filter_steps.key(index, mac, own))
        if port.own:
            yield rules.IPV6, Element(filter_steps.key(index, mac, own))
    for mac, prefix in port.own:
        yield _own(index, mac, prefix)


def _own(index: int, mac: str, prefix: str) -> tuple[str, Element]:
    network = ipaddress.ip_network(prefix)
    first, last = (filter_steps.key(index, mac, str(each)) for each in (
        network.network_address, network.broadcast_address))
    is_ipv4 = network.version == 4
    if network.num_addresses == 1:
        return rules.IPV4 if is_ipv4 else rules.IPV6, Element(first)
    return (agent_table.IPV4_PREFIX if is_ipv4
            else agent_table.IPV6_PREFIX), Element(first, last=last)


def changing(before: Sets, after: Sets) -> tuple[list[nft.Step],
                                                 list[nft.Step]]:
    """Return what takes out all that is not the same, and what puts it in.

    An element that is another one by its comment, or by what a map has for
    it, has to be taken out before.
    """
    gone = [step for name in before for step in nft_sets.delete_elements(
        table.NAME, name, [
            _with_end(name, element) for key, element in before[name].items()
            if after[name].get(key) != element])]
    new = [step for name in after for step in nft_sets.add_elements(
        table.NAME, name, [
            _with_end(name, element) for key, element in after[name].items()
            if before[name].get(key) != element])]
    return gone, new


def _with_end(name: str, element: Element) -> Element:
    is_interval = any(each.name == name for each in agent_table.PREFIXES)
    return element._replace(last=element.last or element.key
                            ) if is_interval else element
