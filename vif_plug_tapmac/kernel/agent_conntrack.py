# SPDX-License-Identifier: Apache-2.0

"""The part of the agent's table that knows connections, as a value.

It is put into the table that is there, on kernels that have conntrack for
bridges. The chains of ports lead to it (:func:`first`). A group that is
stateful needs it: what belongs to a connection that was let through passes, in
both directions.

Each bridge is a zone of its own, or equal addresses on two bridges would be
one connection, and the first frame of the second an answer. What is for the
host itself is not in a zone: the host's own connections, and its own firewall,
know nothing of zones. What is neither IPv4 nor IPv6 has no connection.

A port whose groups are stateless is passed over, so that it costs the table of
connections nothing, and goes on when that is full. But what it says to a port
that is stateful, or that says to it, is of a connection, for the other one.

Where conntrack has a frame, it puts fragments together, so that rules see one
whole packet. When its table is full, first those connections go that had no
answer; then no new ones begin, whosever they are. So no port has more than
its part. They are counted after all rules, or whoever knocks in vain would use
up what there is.
"""

import struct
import typing

from vif_plug_tapmac.kernel import agent_table
from vif_plug_tapmac.kernel import exit_rules
from vif_plug_tapmac.kernel import nft
from vif_plug_tapmac.kernel.nft import Chain
from vif_plug_tapmac.kernel.nft import Rule
from vif_plug_tapmac.kernel import nft_expressions as nftx
from vif_plug_tapmac.kernel import nft_sets
from vif_plug_tapmac.kernel.nft_sets import Element
from vif_plug_tapmac.kernel.nft_sets import ETHER
from vif_plug_tapmac.kernel.nft_sets import INDEX
from vif_plug_tapmac.kernel.nft_sets import LINK_NAME
from vif_plug_tapmac.kernel.nft_sets import MARK
from vif_plug_tapmac.kernel.nft_sets import Set
from vif_plug_tapmac.kernel.nft_sets import type_of
from vif_plug_tapmac.wanted import security_groups

#: The zone of each bridge; which MACs on it are those of stateful ports, and
#: of stateless ones; and how many connections each stateful port has.
ZONES, STATEFUL_MACS, STATELESS_MACS, COUNTED = (
    'zones', 'stateful_macs', 'stateless_macs', 'connections')
#: How many connections a port has at most: a sixteenth of what there is room
#: for on a host with 4 GB or more. The kernel goes through all that a port has
#: for a new one, so more of them take their time.
MOST = 16384
_NAME_LENGTH = 16
#: A zone, which nft has no name for, is shown as a mark, which is longer.
_ZONE = struct.Struct('=Hxx')
SETS = (
    Set(ZONES, LINK_NAME, _NAME_LENGTH, is_number=True,
        data=(MARK, _ZONE.size)),
    *(Set(name, type_of(LINK_NAME, ETHER), _NAME_LENGTH + 8)
      for name in (STATEFUL_MACS, STATELESS_MACS)),
    Set(COUNTED, INDEX, 4, is_number=True, is_by_rules=True))
#: What knows the port of a frame, by direction.
_BY_PORT = {security_groups.EGRESS: ('ct_egress', nftx.IIF),
            security_groups.INGRESS: ('ct_ingress', nftx.OIF)}
#: Hooks, and when they are had: what conntrack has to know, before it; how
#: many connections there are, after all other chains of the table.
#: Source: include/uapi/linux/netfilter_bridge.h
_PREROUTING, _FORWARD, _EARLY, _LATE = 0, 2, -340, -140
CHAINS = (Chain('ct_zone', (_PREROUTING, _EARLY)), Chain('ct_ip'),
          *(Chain(chain) for chain, _ in _BY_PORT.values()),
          Chain('ct_state'), Chain('ct_limit', (_FORWARD, _LATE)))
#: Apart from those of the other sets that a transaction makes.
_FIRST_NUMBER = 1001
_FOR_THIS_HOST = 0
_ZONES_END = 1 << 16
_IPV4, _IPV6 = 0x0800, 0x86dd
#: To which MAC on which bridge.
_TO = nftx.BRIDGE, nftx.field(nftx.ETHERNET, 0, 6)
_rule = nftx.rule


def rules(most: int = MOST) -> tuple[Rule, ...]:
    """Return the rules, in the order in which they are looked at.

    :param most: how many connections a port has at most
    """
    return (*_zone(), *_state(), *_limit(most))


def first(direction: str, chain: str) -> Rule:
    """Return what a chain of a port begins with, where it sees IP only.

    Whether that port is stateful or not.
    """
    return nftx.rule(chain, nftx.jump(_BY_PORT[direction][0]))


def making(table: str, most: int = MOST) -> list[nft.Step]:
    """Return what makes all this right in a table, whatever there is of it.

    :param most: as for :func:`rules`
    """
    return [*(nft_sets.new_set(table, each, number)
              for number, each in enumerate(SETS, _FIRST_NUMBER)),
            *(nft.new_chain(table, each) for each in CHAINS),
            *(nft.delete_rules(table, each.name) for each in CHAINS),
            *(nft.new_rule(table, each) for each in rules(most))]


def is_right(session: nft.Session, table: str) -> bool:
    """Return whether a table has all this, and nothing else in its chains."""
    return (all(nft_sets.is_right(session, table, each) for each in SETS)
            and all(session.is_right_chain(table, each) for each in CHAINS)
            and all(session.has_rules(table, each.name, [
                rule for rule in rules() if rule.chain == each.name])
                for each in CHAINS))


def trial() -> list[nft.Step]:
    """Return what makes a table with all this, to see whether it can be."""
    name = 'tapmac_trial'
    return [nft.new_table(name, ''),
            *(nft_sets.new_set(name, each, number) for number, each in
              enumerate((*agent_table.SETS, *exit_rules.SETS), 1)),
            *making(name)]


def zones(bridges: typing.Mapping[str, int]) -> dict[str, int]:
    """Return the zone of each bridge.

    It is made of its index, so that who makes the table anew, after somebody
    has flushed it, comes to the same, and connections go on. A bridge that was
    there before has its zone, whichever come after it.

    :param bridges: the index of each, by its name
    """
    taken: dict[int, str] = {}
    for name in sorted(bridges, key=lambda each: bridges[each]):
        zone = bridges[name] % _ZONES_END or 1
        while zone in taken:
            zone = (zone + 1) % _ZONES_END or 1
        taken[zone] = name
    return {name: zone for zone, name in taken.items()}


def zone_element(bridge: str, zone: int) -> Element:
    """Return what the map of zones has for a bridge."""
    return Element(_name(bridge), data=_ZONE.pack(zone))


def zone_of(element: Element) -> int:
    """Return the zone that an element of that map says; 0: none."""
    zone, = (_ZONE.unpack(element.data) if isinstance(element.data, bytes)
             and len(element.data) == _ZONE.size else (0,))
    return int(zone)


def mac_element(bridge: str, mac: str, comment: str = '') -> Element:
    """Return what a set of MACs has for one.

    :param mac: six colon-separated hex octets
    """
    return Element(_name(bridge) + bytes.fromhex(mac.replace(':', ''))
                   + bytes(2), comment)


def _name(bridge: str) -> bytes:
    return bridge.encode().ljust(_NAME_LENGTH, b'\0')


def _zone() -> list[Rule]:
    is_of_agent = nftx.is_in(agent_table.GROUPS, nftx.IIFGROUP)
    in_zone = nftx.in_zone_of(ZONES, nftx.BRIDGE)
    return [
        _rule('ct_zone', nftx.equals(nftx.PACKET_KIND, _FOR_THIS_HOST),
              nftx.RETURN),
        *(nftx.go('ct_zone', nftx.equals(nftx.ETHERTYPE, protocol),
                  to='ct_ip') for protocol in (_IPV4, _IPV6)),
        _rule('ct_ip', nftx.is_in(agent_table.STATEFUL, nftx.IIF), in_zone,
              nftx.RETURN),
        *(_rule('ct_ip', condition, nftx.NO_TRACK, nftx.RETURN)
          for condition in (
              is_of_agent + nftx.is_not_in(STATEFUL_MACS, *_TO),
              nftx.is_in(STATELESS_MACS, *_TO))),
        _rule('ct_ip', in_zone)]


def _state() -> list[Rule]:
    return [
        *(nftx.go(chain, nftx.is_in(agent_table.STATEFUL, port),
                  to='ct_state')
          for chain, port in _BY_PORT.values()),
        nftx.accept('ct_state', nftx.is_one_of(
            nftx.CT_STATE, nftx.ESTABLISHED | nftx.RELATED)),
        nftx.drop('ct_state', 'of no connection', nftx.is_one_of(
            nftx.CT_STATE, nftx.INVALID))]


def _limit(most: int) -> list[Rule]:
    # That it is new is true of all frames until there is an answer.
    is_first = nftx.is_none_of(nftx.CT_STATUS, nftx.CONFIRMED)
    return [nftx.drop('ct_limit', 'more connections than a port may have',
                      is_first, nftx.is_in(agent_table.STATEFUL, port),
                      exit_rules.is_closed(port),
                      nftx.are_more_than(COUNTED, port, most))
            for port in (nftx.IIF, nftx.OIF)]
