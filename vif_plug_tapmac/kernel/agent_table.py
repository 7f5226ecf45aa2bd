# SPDX-License-Identifier: Apache-2.0

"""The part of the table that keeps guests to their security groups.

It is made together with all else, by whoever makes the table, and is closed: a
port in one of the agent's link groups passes nothing, in either direction,
until somebody feeds it. That is, until two maps say by the index of its TAP in
which chains its groups are: a chain for each set of groups that ports have,
for each direction. These chains are not of this part, nor what they look at;
what is here for every port that is known comes before (:func:`first`) and
after that (:data:`LAST`).

What a guest says of itself is judged before, by the rest of the table. What it
sends, to whomever, is judged before it is known where it goes, so that what is
for this host is no exception; what it is to get, on its way out to it, whoever
sends it, this host included.

Each frame pays for what it meets. So what few frames need comes after what
lets most of them pass, and no way leads to a chain that may be empty.
"""

import typing

from vif_plug_tapmac.kernel import exit_rules
from vif_plug_tapmac.kernel.nft import Chain
from vif_plug_tapmac.kernel.nft import Expression
from vif_plug_tapmac.kernel.nft import Rule
from vif_plug_tapmac.kernel import nft_expressions as nftx
from vif_plug_tapmac.kernel.nft_sets import ETHER
from vif_plug_tapmac.kernel.nft_sets import GROUP
from vif_plug_tapmac.kernel.nft_sets import INDEX
from vif_plug_tapmac.kernel.nft_sets import IP
from vif_plug_tapmac.kernel.nft_sets import IP6
from vif_plug_tapmac.kernel.nft_sets import Set
from vif_plug_tapmac.kernel.nft_sets import type_of
from vif_plug_tapmac.kernel.nft_sets import VERDICTS
from vif_plug_tapmac.wanted import rules
from vif_plug_tapmac.wanted import security_groups

#: The set of the link groups whose ports pass nothing but what these rules
#: say. Each of them is among those that are closed, too.
GROUPS = 'agent_groups'
#: How many link groups a set of them may have: each service has a few.
GROUPS_MOST = 256
#: The sets of ports, by their index: those that pass all, those whose
#: connections are known, and those that the agent has unlocked.
OPEN, STATEFUL, UNLOCKED = 'open_ports', 'stateful_ports', 'unlocked_ports'
#: The maps that say where it goes on for a port.
EGRESS, INGRESS = 'egress', 'ingress'
#: As rules.IPV4 and rules.IPV6, but for whole networks.
IPV4_PREFIX, IPV6_PREFIX = 'guest_ipv4_prefix', 'guest_ipv6_prefix'
#: Where it goes on for what no group of a port lets pass, by direction.
LAST = {security_groups.EGRESS: 'leaving_always',
        security_groups.INGRESS: 'entering_always'}
PREFIXES = tuple(
    Set(name, type_of(INDEX, ETHER, kind), 12 + length,
        is_interval=True, parts=(4, 6, length))
    for name, kind, length in ((IPV4_PREFIX, IP, 4), (IPV6_PREFIX, IP6, 16)))
#: By the name of each.
BY_INDEX = {name: Set(name, INDEX, 4, is_number=True, data=data)
            for name, data in ((OPEN, None), (STATEFUL, None),
                               (UNLOCKED, None), (EGRESS, VERDICTS),
                               (INGRESS, VERDICTS))}
SETS = (Set(GROUPS, GROUP, 4, is_number=True, size=GROUPS_MOST), *PREFIXES,
        *BY_INDEX.values())
#: Hooks, and when they are had: after conntrack.
#: Source: include/uapi/linux/netfilter_bridge.h
_PREROUTING, _FORWARD, _OUTPUT = 0, 2, 3
_AFTER = -150

# Of a frame.
_ETHERTYPE = nftx.field(nftx.ETHERNET, 12, 2)
_IPV4, _ARP, _IPV6, *_TAGS = 0x0800, 0x0806, 0x86dd, 0x8100, 0x88a8, 0x9100
_IS_UNICAST = nftx.has_no_bits(nftx.field(nftx.ETHERNET, 0, 1), 1)
_TO = nftx.OIF, nftx.field(nftx.ETHERNET, 0, 6)
_IS_WHOLE = nftx.has_no_bits(nftx.field(nftx.NETWORK, 6, 2), 0x3fff)
_UDP, _ICMP6 = (nftx.equals(nftx.PROTOCOL, number) for number in (17, 58))
_TYPE = nftx.field(nftx.TRANSPORT, 0, 1)
_PORTS = nftx.field(nftx.TRANSPORT, 0, 4)
_IP_DESTINATION = nftx.field(nftx.NETWORK, 16, 4)
_IP6_DESTINATION = nftx.field(nftx.NETWORK, 24, 16)
#: Who has no address yet is told by these: all, and what is link-local.
_TO_ALL = nftx.equals(_IP_DESTINATION, 0xffffffff)
_TO_LINK_LOCAL = nftx.equals(nftx.field(nftx.NETWORK, 24, 8), 0xfe80 << 48)
#: Of DHCP, for IPv4 and IPv6.
_SERVER, _CLIENT, _SERVER6, _CLIENT6 = 67, 68, 547, 546
#: Of ICMPv6, what a guest may always say: reports and leaves of multicast
#: groups, solicitations of routers and neighbours, advertisements of its own
#: addresses; and hear: queries for the former, and all that is of neighbour
#: discovery but for solicitations of routers, and redirects.
_MAY_SAY, _MAY_HEAR = (131, 132, 143, 133, 135, 136), (130, 134, 135, 136)


def tags(chain: str, drop: typing.Callable[..., Rule] = nftx.drop,
         ) -> list[Rule]:
    """Return what drops frames with a tag, of VLANs or others."""
    return [drop(chain, 'a tag', nftx.equals(_ETHERTYPE, number))
            for number in _TAGS]


def _hooks() -> list[Rule]:
    return [
        nftx.go('egress_of_guests', nftx.is_in(GROUPS, nftx.IIFGROUP),
                to='leaving'),
        *(nftx.go(chain, nftx.is_in(GROUPS, nftx.OIFGROUP), to='entering')
          for chain in ('to_guests', 'host_to_guests'))]


def _leaving() -> list[Rule]:
    return [
        *exit_rules.from_it('leaving'),
        nftx.rule('leaving', nftx.as_map_says(EGRESS, nftx.IIF)),
        nftx.accept('leaving', nftx.is_in(OPEN, nftx.IIF)),
        nftx.drop('leaving', 'its security groups are not known here'),
        nftx.rule('leaving_no_ip', nftx.equals(nftx.ETHERTYPE, _IPV6),
                  nftx.RETURN),
        # What a guest may say of this has been judged before.
        nftx.accept('leaving_no_ip'),
        *_always(LAST[security_groups.EGRESS], _dhcp(_CLIENT, _SERVER),
                 _dhcp(_CLIENT6, _SERVER6), _MAY_SAY)]


def _entering() -> list[Rule]:
    return [
        *exit_rules.to_it('entering', to='entering_open'),
        nftx.rule('entering', nftx.as_map_says(INGRESS, nftx.OIF)),
        nftx.go('entering', nftx.is_in(OPEN, nftx.OIF), to='entering_open'),
        *tags('entering_open'),
        nftx.accept('entering_open'),
        nftx.drop('entering', 'its security groups are not known here'),
        nftx.rule('entering_no_ip', nftx.equals(_ETHERTYPE, _IPV6),
                  nftx.RETURN),
        nftx.accept('entering_no_ip', nftx.equals(_ETHERTYPE, _ARP)),
        nftx.drop('entering_no_ip', 'another ethertype'),
        # To the addresses of the port: a lease of another is none for it.
        *_always(LAST[security_groups.INGRESS], _dhcp(
            _SERVER, _CLIENT, _TO_ALL,
            nftx.is_in(rules.IPV4, *_TO, _IP_DESTINATION)), _dhcp(
            _SERVER6, _CLIENT6, _TO_LINK_LOCAL,
            nftx.is_in(rules.IPV6, *_TO, _IP6_DESTINATION)), _MAY_HEAR)]


def first(direction: str, chain: str) -> tuple[Rule, ...]:
    """Return the rules that a chain of a port begins with.

    After them, it sees IPv4 and IPv6 only.
    """
    if direction == security_groups.EGRESS:
        # There is no tag that could hide another ethertype: see before.
        return nftx.rule(chain, _is_not(nftx.ETHERTYPE, _IPV4),
                         nftx.jump('leaving_no_ip')),
    return (
        # Whatever was let through before: a flow that a guest has with
        # somebody opens no other guest to it.
        nftx.drop(chain, 'unicast to another MAC',
                  nftx.is_not_in(rules.MACS, *_TO), _IS_UNICAST),
        nftx.rule(chain, _is_not(_ETHERTYPE, _IPV4),
                  nftx.jump('entering_no_ip')))


def _is_not(what: nftx.Load, number: int) -> tuple[Expression, ...]:
    return nftx.is_so(what, nftx.NOT_EQUAL,
                      number.to_bytes(what.length, 'big'))


def _dhcp(source: int, to: int, *whom: tuple[Expression, ...],
          ) -> list[tuple[Expression, ...]]:
    """Return what is DHCP from one port to another, for any of these."""
    ports = _UDP + nftx.equals(_PORTS, source << 16 | to)
    return [ports + each for each in whom or ((),)]


def _always(chain: str, dhcp: list[tuple[Expression, ...]],
            dhcp6: list[tuple[Expression, ...]],
            types: tuple[int, ...]) -> list[Rule]:
    """Return what passes whatever groups of a port say; the rest is dropped.

    No fragment does: of later ones no rule sees what they are.

    :param dhcp: what is of DHCP, and ``dhcp6`` likewise
    """
    ip6, why = chain + '6', 'no rule lets it pass'
    return [
        nftx.go(chain, nftx.equals(nftx.ETHERTYPE, _IPV6), to=ip6),
        *(nftx.accept(chain, _IS_WHOLE, each) for each in dhcp),
        nftx.drop(chain, why),
        nftx.drop(ip6, why, nftx.equals(nftx.IS_FRAGMENT, 1)),
        *(nftx.accept(ip6, _ICMP6, nftx.equals(_TYPE, number))
          for number in types),
        *(nftx.accept(ip6, each) for each in dhcp6),
        nftx.drop(ip6, why)]


#: In the order in which they are looked at, in each chain.
RULES = (*_hooks(), *_leaving(), *_entering())
_HOOKS = {'egress_of_guests': (_PREROUTING, _AFTER),
          'to_guests': (_FORWARD, _AFTER),
          'host_to_guests': (_OUTPUT, _AFTER)}
CHAINS = tuple(Chain(name, _HOOKS.get(name)) for name in dict.fromkeys(
    rule.chain for rule in RULES))
