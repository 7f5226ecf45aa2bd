# SPDX-License-Identifier: Apache-2.0

"""Whose connections are cut when rules have become narrower.

What was let through is established, and goes on whatever the rules say then.
So what there is before a change is compared with what there is after it: the
rules of groups, who is in which groups, the members that rules name, and what
is a port's own. Where something has gone, the connections go that it may have
let through. Where something has only come none does: to be silent for a while
is no fault of a connection.
"""

import collections
import ipaddress
import re
import typing

from vif_plug_tapmac.kernel import agent_chains
from vif_plug_tapmac.kernel import agent_connections
from vif_plug_tapmac.kernel import agent_elements
from vif_plug_tapmac.kernel import agent_table
from vif_plug_tapmac.kernel import conntrack
from vif_plug_tapmac.kernel import filter_table as table
from vif_plug_tapmac.kernel import group_rules
from vif_plug_tapmac.kernel import netlink as nl
from vif_plug_tapmac.kernel import nft
from vif_plug_tapmac.kernel import nft_rules
from vif_plug_tapmac.kernel import nft_sets
from vif_plug_tapmac.wanted import rules
from vif_plug_tapmac.wanted.security_groups import Change

_ADDRESSES = (rules.IPV4, rules.IPV6, agent_table.IPV4_PREFIX,
              agent_table.IPV6_PREFIX)
#: The chain of a group in what a rule is made of.
_GROUP_CHAIN = re.compile(rb'(?:in|out)_[0-9a-f]{8}(?:-[0-9a-f]{4}){3}'
                          rb'-[0-9a-f]{12}\0')
#: The first address and the last.
_Range = tuple[bytes, bytes]
#: What deletes tables, chains, rules, sets and elements.
_DELETING = {nft.message(each) for each in (2, 5, 8, 11, 14)}
#: Where an address begins in a key: after the index and the MAC.
_PLACE = 12


class Seen(typing.NamedTuple):
    """What there is.

    :param rules: how often each rule is in each chain, as the kernel tells it
        but for what it has counted
    :param members: first and last of each interval, by the name of the set
    :param zones: of each bridge
    """
    rules: dict[str, typing.Counter[bytes]]
    members: dict[str, list[tuple[bytes, bytes]]]
    zones: dict[str, int]


class Cuts:
    """Those of one change, in whatever steps it is done.

    Where all of them only add something nothing becomes narrower, and nobody
    looks: not at a port that comes, nor at what is as it is to be.
    """

    def __init__(self, change: Change) -> None:
        self._change = change
        self._before: Seen | None = None

    def before(self, session: nft.Session, steps: list[nft.Step],
               ends: list[nft.Step]) -> list[nft.Step]:
        """See what there is before these are done; return the steps."""
        if self._before is None and any(
                kind in _DELETING for kind, _, _ in (*steps, *ends)):
            self._before = _look(session, self._change)
        return steps

    def cut(self, session: nft.Session, netlink: nl.Netlink,
            ports_before: agent_elements.Sets,
            ports_after: agent_elements.Sets) -> int:
        """Delete the connections that something let through that has gone.

        :param ports_before: what sets of ports had, and ports_after have: the
            maps at least
        :returns: how many there were
        """
        if self._before is None or not self._before.zones:
            return 0
        return _cut(session, netlink, self._before,
                    _look(session, self._change), ports_before, ports_after)


def _look(session: nft.Session, change: Change) -> Seen:
    """Return what there is of what a change is about.

    Nothing where nobody knows connections.
    """
    zones = (agent_connections.zones(session)
             if agent_connections.is_possible() else {})
    if not zones:
        return Seen({}, {}, {})
    chains: dict[str, typing.Counter[bytes]] = {}
    for told in map(nft.read, session.rules(table.NAME, None)):
        chains.setdefault(told.text(nft.RULE_CHAIN) or '',
                          collections.Counter())[
            nft_rules.uncounted(
                told.octets(nft.RULE_EXPRESSIONS) or b'')] += 1
    keys = (*(each.key for each in change.members), *change.gone_members)
    names = {group_rules.members_set(*key).name for key in keys}
    if change.is_all:
        names |= agent_chains.there(session).sets
    return Seen(chains, {name: nft_sets.intervals(nft_sets.elements(
        session, table.NAME, name)) for name in names}, zones)


def _cut(session: nft.Session, netlink: nl.Netlink, before: Seen, after: Seen,
         ports_before: agent_elements.Sets,
         ports_after: agent_elements.Sets) -> int:
    zones = {**before.zones, **after.zones}
    former = set(_former_members(before, after))
    whose = {zone: set(former) for zone in zones.values()}
    narrower = _narrower(before, after, ports_before, ports_after)
    if narrower and not ports_before.keys() >= set(_ADDRESSES):
        ports_before = ports_after = {
            **ports_before, **agent_elements.there(session, _ADDRESSES)}
    for index, addresses in _whose(narrower, ports_before, ports_after):
        for zone in _zones_of(netlink, index, zones):
            whose[zone].update(str(prefix) for each in addresses
                               for prefix in _prefixes(*each))
    return sum(conntrack.delete(zone, addresses)
               for zone, addresses in whose.items() if addresses)


def _zones_of(netlink: nl.Netlink, index: bytes,
              zones: dict[str, int]) -> set[int]:
    """Return the zone that a TAP is in; all, if that cannot be told."""
    link = netlink.get(int.from_bytes(index, nft.BYTE_ORDER))
    bridge = (None if link is None or link.master is None
              else netlink.get(link.master))
    if bridge is not None and bridge.name in zones:
        return {zones[bridge.name]}
    return set(zones.values())


def _narrower(before: Seen, after: Seen, ports_before: agent_elements.Sets,
              ports_after: agent_elements.Sets) -> set[bytes]:
    """Return the ports at which less passes than before, by their index."""
    gone = {chain for chain, rules in before.rules.items()
            if rules - after.rules.get(chain, collections.Counter())}
    found = set()
    for name in agent_elements.MAPS:
        was, now = (_chains(ports, name)
                    for ports in (ports_before, ports_after))
        for index, chain in was.items():
            groups = _groups(before, chain)
            if (not groups <= _groups(after, now.get(index))
                    or groups & gone):
                found.add(index)
    return found


def _whose(narrower: typing.Collection[bytes],
           ports_before: agent_elements.Sets,
           ports_after: agent_elements.Sets,
           ) -> typing.Iterator[tuple[bytes, set[_Range]]]:
    """Yield ports, and of each the addresses whose connections go.

    :param narrower: those of which all go; of others, those that have gone
    """
    left = _own(ports_after)
    for index, addresses in _own(ports_before).items():
        if index in narrower:
            yield index, addresses
        elif addresses - left.get(index, set()):
            yield index, addresses - left.get(index, set())


def _chains(ports: agent_elements.Sets, name: str,
            ) -> dict[bytes, bytes | str | None]:
    return {agent_elements.index_of(each): each.data
            for each in ports[name].values()}


def _own(ports: agent_elements.Sets) -> dict[bytes, set[_Range]]:
    """Return what is each port's own: first and last of what it may be."""
    found: dict[bytes, set[_Range]] = {}
    for name in _ADDRESSES:
        for each in ports.get(name, {}).values():
            found.setdefault(agent_elements.index_of(each), set()).add(
                (each.key[_PLACE:], (each.last or each.key)[_PLACE:]))
    return found


def _groups(seen: Seen, chain: bytes | str | None) -> set[str]:
    """Return the chains of groups that the chain of a port asks."""
    return {found.rstrip(b'\0').decode()
            for rule in seen.rules.get(str(chain), ())
            for found in _GROUP_CHAIN.findall(rule)}


def _former_members(before: Seen, after: Seen) -> typing.Iterator[str]:
    """Yield what was among members and is not any more, as prefixes."""
    for name, intervals in before.members.items():
        now = after.members.get(name, [])
        for first, last in intervals:
            place = first
            for other, end in now:
                if end < place or other > last:
                    continue
                if other > place:
                    yield from map(str, _prefixes(place, _plus(other, -1)))
                place = _plus(end, 1)
                if end >= last:
                    break
            else:
                yield from map(str, _prefixes(place, last))


def _plus(address: bytes, number: int) -> bytes:
    length = len(address)
    return ((int.from_bytes(address, 'big') + number)
            % (1 << 8 * length)).to_bytes(length, 'big')


def _prefixes(first: bytes, last: bytes) -> typing.Iterator[typing.Any]:
    return ipaddress.summarize_address_range(
        *map(ipaddress.ip_address, (first, last)))
