# SPDX-License-Identifier: Apache-2.0

"""The one table that holds guests to what they are, as a value.

A guest whose TAP is in one of the closed link groups sends what is allowed
here, and nothing else: whatever no rule understands is dropped. There is no
rule for a port. Sets have what belongs to each, by the index of its TAP: a
name may be another's by tomorrow.

A bridge hands the host what it does not forward, which are frames to
01:80:c2:00:00:0x, by another hook than all others, and learns from them after
that. Those to ...:0e (LLDP) no hook sees: it learns from them unless the port
is locked. Source: net/bridge/br_input.c, br_handle_frame
"""

import socket
import typing

from vif_plug_tapmac.kernel import agent_table
from vif_plug_tapmac.kernel import exit_rules
from vif_plug_tapmac.kernel import nft
from vif_plug_tapmac.kernel.nft import Chain
from vif_plug_tapmac.kernel.nft import Expression
from vif_plug_tapmac.kernel.nft import Rule
from vif_plug_tapmac.kernel import nft_expressions as nftx
from vif_plug_tapmac.kernel.nft_sets import ETHER
from vif_plug_tapmac.kernel.nft_sets import GROUP
from vif_plug_tapmac.kernel.nft_sets import INDEX
from vif_plug_tapmac.kernel.nft_sets import IP
from vif_plug_tapmac.kernel.nft_sets import IP6
from vif_plug_tapmac.kernel.nft_sets import MARK
from vif_plug_tapmac.kernel.nft_sets import Set
from vif_plug_tapmac.kernel.nft_sets import type_of
from vif_plug_tapmac.wanted import rules

NAME = 'tapmac'
#: Another one with each change of what follows. Who finds a table with a
#: greater one leaves it as it is: a newer release made it.
VERSION = 4
#: The set of the link groups whose ports are closed.
GROUPS = 'closed_groups'
#: The set of the link groups whose ports do not reach this host, and that of
#: the services that want it, each with a number made of its name.
SHIELDED, SHIELDS = 'shielded_groups', 'shields'
#: The set that counts what is dropped, by the index of the port and the number
#: of the reason. A frame that is dropped carries this number as its mark.
DROPS = 'drops'
#: The set of the indexes of ports of which the kernel's log has what is
#: dropped, and the chain that does it, which is empty while there are none:
#: a kernel may lack what it takes.
LOGGED, LOG = 'logged', 'log_drops'
#: How many of all of them in a second at most, and at once.
_LOGS, _LOGS_AT_ONCE = 10, 20
#: Those that have elements of ports.
PORT_SETS = (Set(rules.MACS, type_of(INDEX, ETHER), 12),
             Set(rules.IPV4, type_of(INDEX, ETHER, IP), 16),
             Set(rules.IPV6, type_of(INDEX, ETHER, IP6), 28),
             Set(rules.LINK_LOCAL, type_of(INDEX, ETHER, IP6), 28))
#: Where an address may be that is a port's own.
_IPV4_SETS = rules.IPV4, agent_table.IPV4_PREFIX
_IPV6_SETS = rules.IPV6, agent_table.IPV6_PREFIX
_SHIELDED_SET = Set(SHIELDED, GROUP, 4, is_number=True)
#: What is counted is forgotten a week after the last one. No guest can have
#: more elements than there are reasons.
_DROPS_SET = Set(DROPS, type_of(INDEX, MARK), 8, is_by_rules=True,
                 seconds=604800)
SETS = (Set(GROUPS, GROUP, 4, is_number=True, size=agent_table.GROUPS_MOST),
        *PORT_SETS, _SHIELDED_SET, Set(SHIELDS, type_of(GROUP, MARK), 8),
        *agent_table.SETS, _DROPS_SET, *exit_rules.SETS,
        Set(LOGGED, INDEX, 4, is_number=True))
#: Hooks, and when they are had: before what others have there, and conntrack.
#: Source: include/uapi/linux/netfilter_bridge.h
_PREROUTING, _INPUT, _PRIORITY = 0, 1, -350

# Of a frame.
_DESTINATION_START = nftx.field(nftx.ETHERNET, 0, 3)
_SOURCE = nftx.field(nftx.ETHERNET, 6, 6)
_ETHERTYPE = nftx.field(nftx.ETHERNET, 12, 2)
_IPV4, _IPV6 = 0x0800, 0x86dd
#: 01:80:c2, which bridges and switches keep to themselves.
_RESERVED = 0x0180c2
_OWN_MAC = nftx.IIF, _SOURCE
# Of ARP: for Ethernet and IPv4, with addresses so long.
_ARP_KIND, _ETHERNET_AND_IP = nftx.field(nftx.NETWORK, 0, 6), 0x000108000604
_OPERATION = nftx.field(nftx.NETWORK, 6, 2)
_REQUEST, _REPLY, _REVERSE_REQUEST = 1, 2, 3
_SENDER = nftx.IIF, nftx.field(nftx.NETWORK, 8, 6)
_SENDER_IP = nftx.field(nftx.NETWORK, 14, 4)
_TARGET = nftx.IIF, nftx.field(nftx.NETWORK, 18, 6)
_TARGET_IP = nftx.field(nftx.NETWORK, 24, 4)
# Of IPv4 and IPv6.
_IP_SOURCE = nftx.field(nftx.NETWORK, 12, 4)
_IP_DESTINATION = nftx.field(nftx.NETWORK, 16, 4)
_NO_IP, _EVERYBODY = 0, 0xffffffff
#: Where it says that it is a fragment: more come, and which one it is.
_IP_FRAGMENT = nftx.field(nftx.NETWORK, 6, 2)
_MORE, _LATER, _LATER6 = 0x2000, 0x1fff, 0xfff8
_IP6_LENGTH = nftx.field(nftx.NETWORK, 4, 2)
_IP6_NEXT = nftx.field(nftx.NETWORK, 6, 1)
_IP6_SOURCE = nftx.field(nftx.NETWORK, 8, 16)
_IP6_DESTINATION = nftx.field(nftx.NETWORK, 24, 16)
_NO_IP6 = 0
_DHCP6_SERVERS = int.from_bytes(socket.inet_pton(
    socket.AF_INET6, 'ff02::1:2'), 'big')
# Of what is in these.
_ICMP, _IGMP, _TCP, _UDP, _AH, _ICMP6, _NO_PROTOCOL = 1, 2, 6, 17, 51, 58, 255
_TYPE = nftx.field(nftx.TRANSPORT, 0, 1)
_FROM_PORT = nftx.field(nftx.TRANSPORT, 0, 2)
_TO_PORT = nftx.field(nftx.TRANSPORT, 2, 2)
_PORTS = nftx.field(nftx.TRANSPORT, 0, 4)
_ND_TARGET = nftx.field(nftx.TRANSPORT, 8, 16)
#: Of DHCP, for IPv4 and IPv6.
_SERVER, _CLIENT, _SERVER6, _CLIENT6 = 67, 68, 547, 546
# Types. Source: IANA, "IGMP Type Numbers", "ICMP Type Numbers", "ICMPv6 Type
# Numbers"
_IGMP_OF_ROUTERS = {0x11: 'IGMP query', 0x13: 'DVMRP', 0x14: 'PIM',
                    0x30: 'multicast router advertisement',
                    0x32: 'multicast router termination'}
_ICMP_OF_ROUTERS = {5: 'redirect', 9: 'router advertisement'}
_ICMP6_OF_ROUTERS = {
    130: 'MLD query', 134: 'router advertisement', 137: 'redirect',
    138: 'router renumbering', 141: 'inverse neighbour solicitation',
    142: 'inverse neighbour advertisement',
    149: 'certification path advertisement',
    151: 'multicast router advertisement',
    153: 'multicast router termination'}
_ROUTER_SOLICITATION, _SOLICITATION, _ADVERTISEMENT = 133, 135, 136
_MLD_REPORTS = 131, 132, 143
#: What must not be in fragments: a header behind which another may hide, and
#: ICMPv6. Hop-by-hop, routing, fragment, ESP, AH, ICMPv6, destination,
#: mobility, HIP, Shim6. Source: RFC 7113, RFC 6980
_NOT_IN_FRAGMENTS = 0, 43, 44, 50, 51, 58, 60, 135, 139, 140
#: Where an option of neighbour discovery may begin, from the type on, and how
#: long what follows the IPv6 header may be.
_ND_OPTIONS, _ND_MAX = range(24, 64, 8), 64
_RS_OPTIONS, _RS_MAX = range(8, 48, 8), 48
_rule, _accept, _go = nftx.rule, nftx.accept, nftx.go

#: Each with its number, from 1 on.
_REASONS: dict[str, int] = {}


def _drop(chain: str, why: str, *conditions: tuple[Expression, ...]) -> Rule:
    number = _REASONS.setdefault(why, len(_REASONS) + 1)
    return _rule(chain, *conditions, nftx.marked(number),
                 nftx.go_to('dropped'), why=why)


def _dropped(*what_else: Rule) -> tuple[Rule, ...]:
    """Return what becomes of all that is dropped.

    That it is counted is a rule of its own: where that is not possible, it is
    dropped as well.
    """
    return (_rule('dropped', nftx.counted(DROPS, nftx.IIF, nftx.MARK)),
            *what_else, _rule('dropped', nftx.DROP))


def _log() -> tuple[Rule, ...]:
    return (_rule(LOG, nftx.oftener_than(_LOGS, _LOGS_AT_ONCE), nftx.RETURN),
            *(_rule(LOG, nftx.is_mark(number),
                    nftx.logged('tapmac %s: ' % why))
              for why, number in _REASONS.items()))


def _shield() -> Rule:
    return _drop('to_host', 'to this host',
                 nftx.is_in(SHIELDED, nftx.IIFGROUP))


def _any_guest() -> list[Rule]:
    reserved = nftx.equals(_DESTINATION_START, _RESERVED)
    closed = nftx.is_in(GROUPS, nftx.IIFGROUP)
    return [
        _go('from_guests', closed, to='guest'),
        _drop('to_host', 'to what bridges keep to themselves', closed,
              reserved),
        _shield(),
        _drop('guest', 'to what bridges keep to themselves', reserved),
        *exit_rules.from_it('guest', to='guest_open'),
        _go('guest', nftx.is_in(agent_table.OPEN, nftx.IIF), to='guest_open'),
        # Most frames by far are of one of these.
        *(_go('guest', nftx.equals(_ETHERTYPE, number),
              nftx.is_in(addresses, *_OWN_MAC, source), to=chain)
          for number, addresses, source, chain in (
              (_IPV4, rules.IPV4, _IP_SOURCE, 'guest_own_ip'),
              (_IPV6, rules.IPV6, _IP6_SOURCE, 'guest_own_ip6'))),
        *(_go('guest', nftx.equals(_ETHERTYPE, number), to=chain)
          for number, chain in ((_IPV4, 'guest_ip'), (_IPV6, 'guest_ip6'),
                                (0x0806, 'guest_arp'),
                                (0x8035, 'guest_rarp'))),
        _drop('guest', 'another ethertype, or a tag'),
        *agent_table.tags('guest_open', _drop), _accept('guest_open')]


def _arp() -> list[Rule]:
    own_mac = nftx.is_in(rules.MACS, *_OWN_MAC)
    right_kind = nftx.equals(_ARP_KIND, _ETHERNET_AND_IP)
    return [
        *(_accept('guest_arp', right_kind,
                  nftx.equals(_OPERATION, operation), own_mac,
                  nftx.is_in(addresses, *_SENDER, _SENDER_IP))
          for addresses in _IPV4_SETS for operation in (_REQUEST, _REPLY)),
        # A probe: who is about to take the address asks whether it is free.
        *(_accept('guest_arp', right_kind, nftx.equals(_OPERATION, _REQUEST),
                  own_mac, nftx.equals(_SENDER_IP, _NO_IP),
                  nftx.is_in(addresses, *_SENDER, _TARGET_IP))
          for addresses in _IPV4_SETS),
        _drop('guest_arp', 'ARP that is not of its own addresses'),
        _accept('guest_rarp', right_kind,
                nftx.equals(_OPERATION, _REVERSE_REQUEST), own_mac,
                nftx.is_in(rules.MACS, *_SENDER),
                nftx.is_in(rules.MACS, *_TARGET)),
        _drop('guest_rarp', 'RARP that is not of its own MAC')]


def _ip() -> list[Rule]:
    nobody = nftx.equals(_IP_SOURCE, _NO_IP)
    udp, icmp, igmp = (nftx.equals(nftx.PROTOCOL, number)
                       for number in (_UDP, _ICMP, _IGMP))
    whole = nftx.has_no_bits(_IP_FRAGMENT, _MORE | _LATER)
    return [
        _go('guest_ip', nftx.is_in(agent_table.IPV4_PREFIX, *_OWN_MAC,
                                   _IP_SOURCE), to='guest_own_ip'),
        _drop('guest_ip', 'another MAC',
              nftx.is_not_in(rules.MACS, *_OWN_MAC)),
        _accept('guest_ip', nobody,
                nftx.equals(_IP_DESTINATION, _EVERYBODY), udp, whole,
                nftx.equals(_PORTS, _CLIENT << 16 | _SERVER)),
        _go('guest_ip', nobody, igmp, whole, to='guest_igmp'),
        _drop('guest_ip', 'another IPv4 address'),
        _accept('guest_own_ip', nftx.equals(nftx.PROTOCOL, _TCP)),
        _accept('guest_own_ip', nftx.has_bits(_IP_FRAGMENT, _LATER)),
        *_own_udp('guest_own_ip', udp, _SERVER, _CLIENT),
        *(_drop('guest_own_ip', why, icmp, nftx.equals(_TYPE, number))
          for number, why in _ICMP_OF_ROUTERS.items()),
        _go('guest_own_ip', igmp, to='guest_igmp'),
        # It is known of each packet that makes sense.
        _accept('guest_own_ip', nftx.is_so(
            nftx.PROTOCOL, nftx.NOT_EQUAL, bytes([_NO_PROTOCOL]))),
        _drop('guest_own_ip', 'malformed IPv4'),
        *(_drop('guest_igmp', why, nftx.equals(_TYPE, number))
          for number, why in _IGMP_OF_ROUTERS.items()),
        _accept('guest_igmp')]


def _own_udp(chain: str, udp: tuple[Expression, ...], server: int,
             client: int) -> list[Rule]:
    """Return what lets UDP pass, but for what servers of DHCP say."""
    return [_drop(chain, 'DHCP server', udp, nftx.equals(_FROM_PORT, server)),
            _drop(chain, 'to a DHCP client', udp,
                  nftx.equals(_TO_PORT, client)), _accept(chain, udp)]


def _ip6() -> list[Rule]:
    return [
        _go('guest_ip6', nftx.is_in(agent_table.IPV6_PREFIX, *_OWN_MAC,
                                    _IP6_SOURCE), to='guest_own_ip6'),
        _drop('guest_ip6', 'another MAC',
              nftx.is_not_in(rules.MACS, *_OWN_MAC)),
        _go('guest_ip6', nftx.equals(_IP6_SOURCE, _NO_IP6),
            to='guest_no_ip6'),
        _accept('guest_ip6',
                nftx.is_in(rules.LINK_LOCAL, *_OWN_MAC, _IP6_SOURCE),
                nftx.equals(_IP6_NEXT, _UDP),
                nftx.equals(_IP6_DESTINATION, _DHCP6_SERVERS),
                nftx.equals(_PORTS, _CLIENT6 << 16 | _SERVER6)),
        _drop('guest_ip6', 'another IPv6 address'),
        _accept('guest_own_ip6', nftx.equals(_IP6_NEXT, _TCP)),
        _rule('guest_own_ip6', nftx.equals(nftx.IS_FRAGMENT, 1),
              nftx.jump('guest_fragment')),
        *_own_udp('guest_own_ip6', nftx.equals(nftx.PROTOCOL, _UDP),
                  _SERVER6, _CLIENT6),
        _go('guest_own_ip6', nftx.equals(nftx.PROTOCOL, _ICMP6),
            to='guest_icmp6'),
        # No rule sees what is behind that, but its first octet says what.
        _go('guest_own_ip6', nftx.equals(nftx.PROTOCOL, _AH), to='guest_ah'),
        _accept('guest_own_ip6', nftx.is_so(
            nftx.PROTOCOL, nftx.NOT_EQUAL, bytes([_NO_PROTOCOL]))),
        _drop('guest_own_ip6', 'malformed IPv6'),
        *(_drop(chain, 'a header that may hide another',
                nftx.equals(where, header))
          for chain, where in (('guest_fragment', nftx.AFTER_FRAGMENT),
                               ('guest_ah', _TYPE))
          for header in _NOT_IN_FRAGMENTS),
        _accept('guest_ah', nftx.is_so(
            _TYPE, nftx.NOT_EQUAL, bytes([_NO_PROTOCOL]))),
        _drop('guest_ah', 'malformed IPv6'),
        _accept('guest_fragment', nftx.has_bits(nftx.FRAGMENT_OFFSET,
                                                _LATER6))]


def _icmp6() -> list[Rule]:
    """Return what ICMPv6 may say, of own addresses and with none yet."""
    unspecified, own = 'guest_no_ip6', 'guest_icmp6'

    def kind(number: int) -> tuple[Expression, ...]:
        return nftx.equals(_TYPE, number)

    icmp6 = nftx.equals(nftx.PROTOCOL, _ICMP6)
    return [
        _drop(unspecified, 'a fragment', nftx.equals(nftx.IS_FRAGMENT, 1)),
        *(_go(unspecified, icmp6, kind(_SOLICITATION), nftx.is_in(
            addresses, *_OWN_MAC, _ND_TARGET), to='guest_nd')
          for addresses in (rules.LINK_LOCAL, *_IPV6_SETS)),
        _go(unspecified, icmp6, kind(_ROUTER_SOLICITATION), to='guest_rs'),
        *(_accept(unspecified, icmp6, kind(number))
          for number in _MLD_REPORTS),
        _drop(unspecified, 'no IPv6 address'),
        *(_drop(own, why, kind(number))
          for number, why in _ICMP6_OF_ROUTERS.items()),
        _go(own, kind(_SOLICITATION), to='guest_nd'),
        *(_go(own, kind(_ADVERTISEMENT), nftx.is_in(
            addresses, *_OWN_MAC, _ND_TARGET), to='guest_nd')
          for addresses in _IPV6_SETS),
        _drop(own, 'advertisement of another\'s address',
              kind(_ADVERTISEMENT)),
        _go(own, kind(_ROUTER_SOLICITATION), to='guest_rs'),
        _accept(own, nftx.is_so(_TYPE, nftx.NOT_EQUAL, bytes([0]))),
        _drop(own, 'malformed ICMPv6'),
        *_own_options('guest_nd', _ND_OPTIONS, _ND_MAX),
        *_own_options('guest_rs', _RS_OPTIONS, _RS_MAX)]


def _own_options(chain: str, offsets: range, most: int) -> list[Rule]:
    """Return rules on the options of a message of neighbour discovery.

    No rule can go from one to the next, so each place is looked at where one
    may begin, and a message that has room for more is dropped. The first two
    kinds say a MAC: that of the source and that of the target.
    """
    return [
        _drop(chain, 'too many options', nftx.is_so(
            _IP6_LENGTH, nftx.MORE, most.to_bytes(2, 'big'))),
        *(_drop(chain, 'another\'s MAC in an option',
                nftx.equals(nftx.field(nftx.TRANSPORT, offset, 1), number),
                nftx.is_not_in(rules.MACS, nftx.IIF, nftx.field(
                    nftx.TRANSPORT, offset + 2, 6)))
          for offset in offsets for number in (1, 2)),
        _accept(chain)]


#: In the order in which they are looked at, in each chain.
_RULES = (*_any_guest(), *_arp(), *_ip(), *_ip6(), *_icmp6(),
          *_dropped(_rule('dropped', nftx.is_in(LOGGED, nftx.IIF),
                          nftx.jump(LOG))))
RULES = (*_RULES, *agent_table.RULES)
#: All there is in LOG, if anything is.
LOG_RULES = _log()
#: Why something is dropped, by its number.
REASONS = {number: why for why, number in _REASONS.items()}
_HOOKS = {'from_guests': (_PREROUTING, _PRIORITY),
          'to_host': (_INPUT, _PRIORITY)}
CHAINS = (Chain(LOG), *(Chain(name, _HOOKS.get(name)) for name in
                        dict.fromkeys(rule.chain for rule in _RULES)),
          *agent_table.CHAINS)


class Beside(typing.NamedTuple):
    """A table of another family, where a guest reaches the host as well.

    A bridge leaves frames to 01:80:c2:00:00:0e, which are for LLDP, to the
    port itself: IP and ARP take what is in them, and no hook of the bridge
    sees it on its way there. Source: net/bridge/br_input.c, br_handle_frame

    :param family: by its number, and as nft calls it
    """
    family: int
    name: str
    sets: tuple[Set, ...]
    chains: tuple[Chain, ...]
    rules: tuple[Rule, ...]


#: Prerouting of IP, and input of ARP, have the same number. Source:
#: include/uapi/linux/netfilter.h, linux/netfilter_arp.h
BESIDE = tuple(Beside(family, name, (_SHIELDED_SET, _DROPS_SET),
                      (Chain('dropped'), Chain('to_host', (0, _PRIORITY))),
                      (_shield(), *_dropped()))
               for family, name in ((nft.INET, 'inet'), (nft.ARP, 'arp')))
