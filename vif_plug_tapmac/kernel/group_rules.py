# SPDX-License-Identifier: Apache-2.0

"""Security groups as chains, rules and sets of nf_tables.

A group has a chain for each direction, whose rules accept what may pass; so
has a set of groups that a port is in, which asks each of them and drops the
rest. A set has the members of one family of a group that rules name.

A fragment that is not the first of its packet has no ports, nor a type of
ICMP; where they would be is anything. It has chains of its own, and passes
where a rule lets pass its protocol from or to the same address, whatever
ports: alone it is good for nothing. Where conntrack has put packets together
before there is none.
"""

import hashlib
import ipaddress
import socket
import typing

from vif_plug_tapmac.kernel.nft import Chain
from vif_plug_tapmac.kernel.nft import Expression
from vif_plug_tapmac.kernel.nft import Rule
from vif_plug_tapmac.kernel import nft_expressions as nftx
from vif_plug_tapmac.kernel.nft_sets import Element
from vif_plug_tapmac.kernel.nft_sets import interval
from vif_plug_tapmac.kernel.nft_sets import IP
from vif_plug_tapmac.kernel.nft_sets import IP6
from vif_plug_tapmac.kernel.nft_sets import Set
from vif_plug_tapmac.wanted import security_groups
from vif_plug_tapmac.wanted.security_groups import Group
from vif_plug_tapmac.wanted.security_groups import Members

#: How what is of a direction begins. Both directions have the same.
PREFIXES = {security_groups.INGRESS: 'in_', security_groups.EGRESS: 'out_'}
#: How what is about later fragments ends.
LATER = '_later'
_ETHERTYPES = {4: 0x0800, 6: 0x86dd}
#: Where the address of the other side is, by direction: source, destination.
_REMOTE = {
    (security_groups.INGRESS, 4): nftx.field(nftx.NETWORK, 12, 4),
    (security_groups.EGRESS, 4): nftx.field(nftx.NETWORK, 16, 4),
    (security_groups.INGRESS, 6): nftx.field(nftx.NETWORK, 8, 16),
    (security_groups.EGRESS, 6): nftx.field(nftx.NETWORK, 24, 16)}
#: To which port; of ICMP, which type, and this with the code.
_PORT = nftx.field(nftx.TRANSPORT, 2, 2)
_TYPE, _TYPE_AND_CODE = (nftx.field(nftx.TRANSPORT, 0, length)
                         for length in (1, 2))
#: That a packet is a later fragment.
_IS_LATER = {
    4: nftx.has_bits(nftx.field(nftx.NETWORK, 6, 2), 0x1fff),
    6: nftx.has_bits(nftx.FRAGMENT_OFFSET, 0xfff8)}


#: What begins each rule of a group: of which family it is.
FAMILIES = tuple(nftx.equals(nftx.ETHERTYPE, each)
                 for each in _ETHERTYPES.values())


class Made(typing.NamedTuple):
    """Chains, and all rules that are in them, each chain's in their order."""
    chains: tuple[Chain, ...]
    rules: tuple[Rule, ...]


def chains(group: Group) -> Made:
    """Return what a group is: what a rule of it lets pass is accepted.

    Each counts what it lets pass, from when its chain was made or changed on.
    What no rule does is left to who asked. Sets that its rules look at are
    :func:`members_set`, which have to be there before.
    """
    rules = []
    for direction in PREFIXES:
        chain = chain_name(direction, group.id)
        its = [each for each in group.rules if each.direction == direction]
        rules += [_accept(chain, each, _ports(each)) for each in its]
        # Of those that differ in their ports only, one will do.
        later = {(each.family, each.protocol, each.remote, each.remote_set):
                 each for each in reversed(its)}
        rules += [_accept(chain + LATER, each)
                  for each in reversed(later.values())]
    return Made(_chains(group.id), tuple(rules))


def set_chain(groups: typing.Iterable[str],
              last: typing.Mapping[str, str] | None = None) -> Made:
    """Return what decides for the ports that are in all of these groups.

    :param groups: their UUIDs, whose chains have to be there before; none of
        them: nothing passes
    :param last: the chain that what no group lets pass is left to, by
        direction, unless it is a later fragment; None: that is dropped
    """
    its = sorted(set(groups))
    name = set_name(its)
    rules = []
    for direction in PREFIXES:
        whole = chain_name(direction, name)
        later = whole + LATER
        rules += [Rule(whole, (*_family(family), *is_later,
                               *nftx.go_to(later)))
                  for family, is_later in _IS_LATER.items()]
        for chain, end in (whole, ''), (later, LATER):
            rules += [Rule(chain, nftx.jump(
                chain_name(direction, group) + end)) for group in its]
            rules.append(
                Rule(chain, nftx.go_to(last[direction]))
                if last is not None and chain == whole
                else Rule(chain, nftx.DROP, 'no rule lets it pass'))
    return Made(_chains(name), tuple(rules))


def chain_name(direction: str, of: str) -> str:
    """Return how a chain is called: of a group, by its UUID, or of several.

    :param of: the UUID, or what :func:`set_name` returned
    """
    return PREFIXES[direction] + of


def set_name(groups: typing.Iterable[str]) -> str:
    """Return what names groups together, whatever their order."""
    return hashlib.sha256(' '.join(sorted(set(groups))).encode()
                          ).hexdigest()[:32]


def members_set(name: str, family: int) -> Set:
    """Return the set that has members of a family, whoever they are."""
    return Set('members%d_%s' % (family, name.rpartition(':')[2]),
               IP if family == 4 else IP6,
               4 if family == 4 else 16, is_interval=True)


def sets(members: Members) -> tuple[Set, list[Element]]:
    """Return a set, and what has to be in it.

    No two intervals touch: where one ends and another begins kernels before
    5.5 may find neither. Source: net/netfilter/nft_set_rbtree.c
    """
    elements: list[Element] = []
    for first, last in _ranges(members):
        length = 4 if members.family == 4 else 16
        elements += interval(first.to_bytes(length, 'big'),
                             last.to_bytes(length, 'big'))
    return members_set(members.name, members.family), elements


def _ranges(members: Members) -> typing.Iterator[tuple[int, int]]:
    """Yield the fewest ranges that have all members, in order."""
    networks = sorted(map(ipaddress.ip_network, members.prefixes),
                      key=lambda each: int(each.network_address))
    first, last = 0, -2
    for each in networks:
        if int(each.network_address) != last + 1:
            if last >= 0:
                yield first, last
            first = int(each.network_address)
        last = int(each.broadcast_address)
    if last >= 0:
        yield first, last


def _chains(of: str) -> tuple[Chain, ...]:
    return tuple(Chain(chain_name(direction, of) + end)
                 for direction in PREFIXES for end in ('', LATER))


def _accept(chain: str, rule: security_groups.Rule,
            ports: tuple[Expression, ...] = ()) -> Rule:
    return Rule(chain, (*_family(rule.family), *_protocol(rule), *ports,
                        *_remote(rule), *nftx.COUNTED, *nftx.ACCEPT), rule.id)


def _family(family: int) -> tuple[Expression, ...]:
    return nftx.equals(nftx.ETHERTYPE, _ETHERTYPES[family])


def _protocol(rule: security_groups.Rule) -> tuple[Expression, ...]:
    if rule.protocol is None:
        return ()
    return nftx.equals(nftx.PROTOCOL, rule.protocol)


def _ports(rule: security_groups.Rule) -> tuple[Expression, ...]:
    if rule.first is None:
        return ()
    if rule.protocol == security_groups.ICMP[rule.family]:
        if rule.last is None:
            return nftx.equals(_TYPE, rule.first)
        return nftx.equals(_TYPE_AND_CODE, rule.first << 8 | rule.last)
    if rule.last in (None, rule.first):
        return nftx.equals(_PORT, rule.first)
    return nftx.is_between(_PORT, rule.first, rule.last)


def _remote(rule: security_groups.Rule) -> tuple[Expression, ...]:
    where = _REMOTE[rule.direction, rule.family]
    if rule.remote_set is not None:
        return nftx.is_in(members_set(rule.remote_set, rule.family).name,
                          where)
    if rule.remote is None:
        return ()
    address, _, bits = rule.remote.partition('/')
    wanted = socket.inet_pton(
        socket.AF_INET if rule.family == 4 else socket.AF_INET6, address)
    length = int(bits)
    if length == 0:
        return ()
    if length == 8 * where.length:
        return nftx.is_so(where, nftx.EQUAL, wanted)
    return nftx.begins_with(where, wanted, length)
