# SPDX-License-Identifier: Apache-2.0

"""Why something comes out on one of two hosts only, and shall.

Each was reviewed: it says what Neutron's driver does, where, and why we do
another thing. A difference that has none is a fault. "Driver" is
neutron/agent/linux/iptables_firewall.py of Neutron 29.
"""

import dataclasses
import typing

from tests.oracle import frames
from tests.oracle import judge
from tests.oracle import meeting
from tests.oracle.meeting import is_filtered
from tests.oracle.meeting import Meeting
from tests.oracle import worlds

#: Of DHCP, for each version of IP.
_SERVERS, _CLIENTS = (67, 547), (68, 546)
#: ND and MLD, which pass whatever the groups say.
_ND_AND_MLD = 131, 132, 133, 135, 136, 143
#: What only routers say. Source: IANA, "ICMPv6 Parameters", "IGMP Type
#: Numbers", "ICMP Parameters"
_OF_ROUTERS = {meeting.ICMP6: (130, 134, 137, 138, 141, 142, 149, 151, 153),
               meeting.IGMP: (0x11, 0x13, 0x14, 0x30, 0x32),
               meeting.ICMP: (5, 9)}


@dataclasses.dataclass(frozen=True)
class Reason:
    """Why we differ.

    :param why: in a sentence
    :param source: of what Neutron does
    :param is_so: whether it is about this
    :param ours: whether it passes with us only, or with Neutron only
    :param never: whether nothing that it is about may pass with us
    """
    why: str
    source: str
    is_so: typing.Callable[[Meeting], bool]
    ours: bool = False
    never: bool = False


def forbids(world: worlds.World, verdict: judge.Verdict) -> Reason | None:
    """Return why something must not pass with us, None if nothing says so.

    As long as not all of it does, it does not.
    """
    if verdict.ours < len(verdict.frame.octets):
        return None
    seen = Meeting(world, verdict)
    return next((each for each in REASONS
                 if each.never and each.is_so(seen)), None)


def reason(world: worlds.World, verdict: judge.Verdict) -> Reason | None:
    """Return why a verdict differs, None if it has no reason."""
    seen = Meeting(world, verdict)
    for each in REASONS:
        if each.ours == (verdict.ours > verdict.theirs) and each.is_so(seen):
            return each
    return None


def _from_guest(is_so: typing.Callable[[Meeting], bool],
                ) -> typing.Callable[[Meeting], bool]:
    return lambda seen: is_filtered(seen.sender) and is_so(seen)


def _to_guest(is_so: typing.Callable[[Meeting], bool],
              ) -> typing.Callable[[Meeting], bool]:
    return lambda seen: is_filtered(seen.receiver) and is_so(seen)


def _is_unseen(seen: Meeting) -> bool:
    return seen.ethertype not in (meeting.IPV4, meeting.IPV6, meeting.ARP,
                                  meeting.RARP)


def _is_false_arp(seen: Meeting) -> bool:
    return seen.ethertype == meeting.ARP and not seen.arp_is_true()


def _asks(seen: Meeting) -> bool:
    """Whether it is what a guest without an address may send."""
    whom = str(seen.destination)
    if seen.source.is_unspecified:
        return (whom == '255.255.255.255' and seen.udp_ports == (68, 67)
                or seen.protocol == meeting.ICMP6
                and seen.icmp_type in _ND_AND_MLD)
    return (whom == 'ff02::1:2' and seen.udp_ports == (546, 547)
            and meeting.mac_is_own(seen.sender, seen.source_mac)
            and str(seen.source) == frames.link_local(seen.source_mac))


def _has_no_spoof_chain(seen: Meeting) -> bool:
    """Whether no rule of Neutron's holds the guest to addresses."""
    family = {meeting.IPV4: 4, meeting.IPV6: 6}.get(seen.ethertype)
    if family is None or _asks(seen) or meeting.is_own(
            seen.sender, seen.source_mac, seen.source):
        return False
    return (not seen.sender['fixed_ips']
            or family not in {network.version for _, network
                              in meeting.own(seen.sender)})


def _is_link_local_besides(seen: Meeting) -> bool:
    """Whether it is of a MAC of the port that has no IPv6 address else."""
    return (str(seen.source) == frames.link_local(seen.source_mac)
            and meeting.is_own(seen.sender, seen.source_mac, seen.source)
            and not any(mac == seen.source_mac and network.version == 6
                        for mac, network in meeting.own(seen.sender)))


def _is_of_no_ones_mac(seen: Meeting) -> bool:
    return (seen.source is not None and seen.source.is_unspecified
            and not meeting.mac_is_own(seen.sender, seen.source_mac))


def _is_as_of_a_server(seen: Meeting) -> bool:
    ports = seen.udp_ports
    which = seen.ethertype == meeting.IPV6
    return ports is not None and (
        ports[0] == _SERVERS[which] or ports[1] == _CLIENTS[which])


def _is_dhcp_answer(seen: Meeting) -> bool:
    return (seen.udp_ports is not None and not seen.is_fragment
            and seen.udp_ports in zip(_SERVERS, _CLIENTS))


def _tells_of_another(seen: Meeting) -> bool:
    """Whether ND has another's address for its own."""
    kind = seen.icmp_type
    if seen.protocol != meeting.ICMP6 or kind not in (135, 136):
        return False
    if kind == 135 and not seen.source.is_unspecified:
        return False
    return not (meeting.is_own(seen.sender, seen.source_mac, seen.nd_target)
                or kind == 135 and str(seen.nd_target)
                == frames.link_local(seen.source_mac))


def _is_other_icmp6(seen: Meeting) -> bool:
    return (seen.protocol == meeting.ICMP6
            and seen.icmp_type not in _ND_AND_MLD)


def _has_a_rule_of_type_255(seen: Meeting) -> bool:
    return seen.protocol == meeting.ICMP and any(
        rule['port_range_min'] == 255 and rule['ethertype'] == 'IPv4'
        for rule in seen.world['rules'])


REASONS = (
    Reason('A guest sends and gets IP, ARP and RARP, without tags.',
           'Driver: there are rules for iptables and ip6tables only, which '
           'see nothing else.',
           lambda seen: _is_unseen(seen) and (
               is_filtered(seen.sender) or is_filtered(seen.receiver))),
    Reason('No guest sends or gets tags, even if all else may pass.',
           'Kernel: net.bridge.bridge-nf-filter-vlan-tagged is 0.',
           lambda seen: seen.ethertype == meeting.TAG, never=True),
    Reason('What bridges keep to themselves is nothing for a guest to send, '
           'even if all else may pass.',
           'Driver: no rule looks at a destination MAC.',
           lambda seen: seen.sender is not None
           and seen.destination_mac.startswith('01:80:c2'), never=True),
    Reason('A frame for the MAC of somebody else does not get to a guest, '
           'or a flow that others made would open it.',
           'Driver: no rule looks at a destination MAC.',
           _to_guest(lambda seen: not seen.to_many and not meeting.mac_is_own(
               seen.receiver, seen.destination_mac)), never=True),
    Reason('ARP speaks of the port\'s own addresses only.',
           'Driver: none; ebtables did that in agent/linux/arp_protect.py, '
           'which left with the Linux bridge agent.',
           _from_guest(_is_false_arp), never=True),
    Reason('Who has no address of a version of IP sends nothing of it, but '
           'what asks for one.',
           'Driver, _setup_spoof_filter_chain: no pairs, no chain; '
           '_spoofing_rule: without fixed IPs the MAC is enough.',
           _from_guest(_has_no_spoof_chain), never=True),
    Reason('Who asks for an address, or whether one is free, has a MAC of '
           'the port.',
           'Driver, _spoofing_rule: DHCP from 0.0.0.0 and ICMPv6 from :: '
           'return before MACs are looked at.',
           _from_guest(_is_of_no_ones_mac), never=True),
    Reason('Neighbour discovery tells of the port\'s own addresses only.',
           'Driver, _spoofing_rule: "-p ipv6-icmp -j RETURN".',
           _from_guest(_tells_of_another), never=True),
    Reason('A guest is no router.',
           'Driver, _spoofing_rule: of what routers say it drops router '
           'advertisements.',
           _from_guest(lambda seen: seen.icmp_type in _OF_ROUTERS.get(
               seen.protocol, ())), never=True),
    Reason('A guest sends nothing from a DHCP server\'s port, and nothing to '
           'a client\'s.',
           'Driver, _drop_dhcp_rule: both ports must be those of DHCP.',
           _from_guest(_is_as_of_a_server), never=True),
    Reason('Egress is what the groups say; of ICMPv6, ND and MLD pass '
           'always.',
           'Driver, _spoofing_rule: "-p ipv6-icmp -j RETURN".',
           _from_guest(_is_other_icmp6)),
    Reason('Without connection tracking in the bridge nobody puts fragments '
           'together, and later ones have no ports.',
           'Kernel: nf_defrag_ipv4 and nf_defrag_ipv6, by br_netfilter.',
           lambda seen: seen.is_fragment and (
               is_filtered(seen.sender) or is_filtered(seen.receiver))),
    Reason('What is behind an authentication header no rule sees.',
           'Kernel: net/ipv6/netfilter/ip6_tables.c, ip6_packet_match, looks '
           'behind it.',
           lambda seen: meeting.AH in seen.protocols[:-1] and (
               is_filtered(seen.sender) or is_filtered(seen.receiver))),
    Reason('The protocol of authentication is what has such a header.',
           'Kernel: net/ipv6/netfilter/ip6_tables.c, ip6_packet_match, looks '
           'behind it.',
           lambda seen: meeting.AH in seen.protocols[:-1], ours=True),
    Reason('The later of two fragments is good for nothing alone.',
           'Kernel: nf_defrag_ipv4 and nf_defrag_ipv6, by br_netfilter.',
           lambda seen: seen.is_fragment, ours=True),
    Reason('Protocol 255 is reserved, and tells nftables\' rules of what is '
           'malformed.',
           'Kernel: iptables knows none that is special.',
           _from_guest(lambda seen: seen.protocol == 255), never=True),
    Reason('Each MAC that a port has been given has its link-local address.',
           'Driver, _build_ipv4v6_mac_ip_list: with an IPv6 address only.',
           _from_guest(_is_link_local_besides), ours=True),
    # Nothing in a frame to all tells which ports have an IPv6 address: it
    # would take one more element of each.
    Reason('Who hears a router without having an IPv6 address may make one, '
           'and can not send from it.',
           'neutron/db/securitygroups_rpc_base.py, _add_ingress_ra_rule: with '
           'an IPv6 address only.',
           _to_guest(lambda seen: seen.protocol == meeting.ICMP6
                     and seen.icmp_type == 134 and not any(
                         frames.of_family(seen.receiver, 6))), ours=True),
    Reason('The addresses of pairs are a port\'s own for DHCP, too.',
           'neutron/db/securitygroups_rpc_base.py, _add_ingress_dhcp_rule: '
           'to fixed IPs only.',
           _to_guest(lambda seen: _is_dhcp_answer(seen) and meeting.is_own(
               seen.receiver, seen.destination_mac, seen.destination)),
           ours=True),
    Reason('What a DHCP server says to one address is for its MAC.',
           'Driver: no rule looks at a destination MAC.',
           _to_guest(lambda seen: _is_dhcp_answer(seen)
                     and not meeting.is_own(
                         seen.receiver, seen.destination_mac,
                         seen.destination))),
    Reason('Type 255 of ICMP is a type.',
           'Kernel: net/netfilter/x_tables, icmp_match: 255 is any.',
           _has_a_rule_of_type_255),
    Reason('Who has no address yet may look for routers, and leave groups.',
           'neutron-lib: ICMPV6_ALLOWED_UNSPEC_ADDR_TYPES has reports and '
           'solicitations of neighbours.',
           _from_guest(lambda seen: seen.protocol == meeting.ICMP6
                       and seen.icmp_type in (132, 133)
                       and seen.source.is_unspecified), ours=True),
)
