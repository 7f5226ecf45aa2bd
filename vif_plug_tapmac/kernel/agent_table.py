# SPDX-License-Identifier: Apache-2.0

"""The part of the table that keeps guests to their security groups.

It is made together with all else, by whoever makes the table, and is closed: a
port in one of the agent's link groups passes nothing, in either direction,
until somebody feeds it. That is, until two maps say by the index of its TAP in
which chains its groups are: a chain for each set of groups that ports have,
for each direction. These chains are not of this part, nor what they look at;
they begin with a jump to what is here for every port that is known.

What a guest says of itself is judged before, by the rest of the table. What it
sends, to whomever, is judged before it is known where it goes, so that what is
for this host is no exception; what it is to get, on its way out to it, whoever
sends it, this host included.
"""

import typing

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

#: The set of the link groups whose ports pass nothing but what these rules
#: say. Each of them is among those that are closed, too.
GROUPS = 'agent_groups'
#: The sets of ports, by their index: those that pass all, those whose
#: connections are known, and those that the agent has unlocked.
OPEN, STATEFUL, UNLOCKED = 'open_ports', 'stateful_ports', 'unlocked_ports'
#: The maps that say where it goes on for a port.
EGRESS, INGRESS = 'egress', 'ingress'
#: As rules.IPV4 and rules.IPV6, but for whole networks.
IPV4_PREFIX, IPV6_PREFIX = 'guest_ipv4_prefix', 'guest_ipv6_prefix'
#: The chains that a port's own begin with.
LEAVING, ENTERING = 'leaving_known', 'entering_known'
#: The chains for what knows connections. They are empty here: not every
#: kernel has that, and where it has, it begins with the first rule about it.
OF_CONNECTIONS = CT_ZONE, CT_EGRESS, CT_INGRESS = (
    'ct_zone', 'ct_egress', 'ct_ingress')
PREFIXES = tuple(
    Set(name, type_of(INDEX, ETHER, kind), 12 + length,
        is_interval=True, parts=(4, 6, length))
    for name, kind, length in ((IPV4_PREFIX, IP, 4), (IPV6_PREFIX, IP6, 16)))
#: By the name of each.
BY_INDEX = {name: Set(name, INDEX, 4, is_number=True, data=data)
            for name, data in ((OPEN, None), (STATEFUL, None),
                               (UNLOCKED, None), (EGRESS, VERDICTS),
                               (INGRESS, VERDICTS))}
SETS = (Set(GROUPS, GROUP, 4, is_number=True), *PREFIXES,
        *BY_INDEX.values())
#: Hooks, and when they are had: for what conntrack has to know, before it; the
#: rest after it. Source: include/uapi/linux/netfilter_bridge.h
_PREROUTING, _FORWARD, _OUTPUT = 0, 2, 3
_BEFORE, _AFTER = -340, -150

# Of a frame.
_ETHERTYPE = nftx.field(nftx.ETHERNET, 12, 2)
_IPV4, _ARP, _IPV6, *_TAGS = 0x0800, 0x0806, 0x86dd, 0x8100, 0x88a8, 0x9100
_IS_UNICAST = nftx.has_no_bits(nftx.field(nftx.ETHERNET, 0, 1), 1)
_TO = nftx.OIF, nftx.field(nftx.ETHERNET, 0, 6)
_IS_WHOLE = nftx.has_no_bits(nftx.field(nftx.NETWORK, 6, 2), 0x3fff)
_UDP, _ICMP6 = (nftx.equals(nftx.PROTOCOL, number) for number in (17, 58))
_TYPE = nftx.field(nftx.TRANSPORT, 0, 1)
_PORTS = nftx.field(nftx.TRANSPORT, 0, 4)
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
        nftx.rule('before_conntrack', nftx.jump(CT_ZONE)),
        nftx.go('egress_of_guests', nftx.is_in(GROUPS, nftx.IIFGROUP),
                to='leaving'),
        *(nftx.go(chain, nftx.is_in(GROUPS, nftx.OIFGROUP), to='entering')
          for chain in ('to_guests', 'host_to_guests'))]


def _leaving() -> list[Rule]:
    return [
        nftx.rule('leaving', nftx.as_map_says(EGRESS, nftx.IIF)),
        nftx.accept('leaving', nftx.is_in(OPEN, nftx.IIF)),
        nftx.drop('leaving', 'its security groups are not known here'),
        nftx.go(LEAVING, nftx.equals(_ETHERTYPE, _IPV4), to='leaving_ip'),
        nftx.go(LEAVING, nftx.equals(_ETHERTYPE, _IPV6), to='leaving_ip6'),
        # What a guest may say of this has been judged before.
        nftx.accept(LEAVING),
        *_always('leaving', CT_EGRESS, (_CLIENT, _SERVER),
                 (_CLIENT6, _SERVER6), _MAY_SAY)]


def _entering() -> list[Rule]:
    return [
        nftx.rule('entering', nftx.as_map_says(INGRESS, nftx.OIF)),
        *tags('entering'),
        nftx.accept('entering', nftx.is_in(OPEN, nftx.OIF)),
        nftx.drop('entering', 'its security groups are not known here'),
        # Whatever was let through before: a flow that a guest has with
        # somebody opens no other guest to it.
        nftx.drop(ENTERING, 'unicast to another MAC', _IS_UNICAST,
                  nftx.is_not_in(rules.MACS, *_TO)),
        nftx.go(ENTERING, nftx.equals(_ETHERTYPE, _IPV4), to='entering_ip'),
        nftx.go(ENTERING, nftx.equals(_ETHERTYPE, _IPV6), to='entering_ip6'),
        nftx.accept(ENTERING, nftx.equals(_ETHERTYPE, _ARP)),
        nftx.drop(ENTERING, 'another ethertype'),
        *_always('entering', CT_INGRESS, (_SERVER, _CLIENT),
                 (_SERVER6, _CLIENT6), _MAY_HEAR)]


def _always(chain: str, connections: str, dhcp: tuple[int, int],
            dhcp6: tuple[int, int], types: tuple[int, ...]) -> list[Rule]:
    """Return what passes whatever the groups of a port say.

    In packets that are no fragments: of later ones no rule sees what they are.

    :param connections: the chain that knows them
    :param dhcp: from which port to which; dhcp6 likewise
    """
    def ports(pair: tuple[int, int]) -> tuple[Expression, ...]:
        return nftx.equals(_PORTS, pair[0] << 16 | pair[1])

    ip, ip6 = chain + '_ip', chain + '_ip6'
    return [
        nftx.rule(ip, nftx.jump(connections)),
        nftx.accept(ip, _UDP, _IS_WHOLE, ports(dhcp)),
        nftx.rule(ip6, nftx.jump(connections)),
        nftx.rule(ip6, nftx.equals(nftx.IS_FRAGMENT, 1), nftx.RETURN),
        *(nftx.accept(ip6, _ICMP6, nftx.equals(_TYPE, number))
          for number in types),
        nftx.accept(ip6, _UDP, ports(dhcp6))]


#: In the order in which they are looked at, in each chain.
RULES = (*_hooks(), *_leaving(), *_entering())
_HOOKS = {'before_conntrack': (_PREROUTING, _BEFORE),
          'egress_of_guests': (_PREROUTING, _AFTER),
          'to_guests': (_FORWARD, _AFTER),
          'host_to_guests': (_OUTPUT, _AFTER)}
CHAINS = (*(Chain(name, _HOOKS.get(name)) for name in dict.fromkeys(
    rule.chain for rule in RULES)),
    *map(Chain, OF_CONNECTIONS))
