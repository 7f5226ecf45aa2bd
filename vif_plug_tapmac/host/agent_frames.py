# SPDX-License-Identifier: Apache-2.0

"""By what frames of a port are judged that an agent feeds."""

import ipaddress

from vif_plug_tapmac.host import interpreting
from vif_plug_tapmac.host.packet import IPV4
from vif_plug_tapmac.host.packet import IPV6
from vif_plug_tapmac.host.packet import Packet
from vif_plug_tapmac.kernel import agent_conntrack
from vif_plug_tapmac.kernel.agent_port import AgentPort
from vif_plug_tapmac.kernel import agent_table
from vif_plug_tapmac.kernel import conntrack
from vif_plug_tapmac.kernel import filter_steps
from vif_plug_tapmac.kernel import filter_table
from vif_plug_tapmac.kernel import group_rules
from vif_plug_tapmac.kernel import nft_expressions as nftx
from vif_plug_tapmac.wanted import security_groups

_SOURCES = {IPV4: nftx.field(nftx.NETWORK, 12, 4),
            IPV6: nftx.field(nftx.NETWORK, 8, 16)}
_DESTINATIONS = {IPV4: nftx.field(nftx.NETWORK, 16, 4),
                 IPV6: nftx.field(nftx.NETWORK, 24, 16)}
_PORTS, _TYPE = (nftx.field(nftx.TRANSPORT, 0, length) for length in (4, 1))
#: What answers an echo request, by protocol.
_REPLIES = {security_groups.ICMP[4]: 0, security_groups.ICMP[6]: 129}


def sets(port: AgentPort | None, index: int, group: int) -> interpreting.Sets:
    """Return what there is in the agent's sets for a port.

    :param port: None: nothing
    :param index: of its TAP
    :param group: the link group of that
    """
    key = filter_steps.number_key(index)
    found: dict[str, interpreting.Keys] = {
        agent_table.GROUPS: {filter_steps.number_key(group)}}
    if port is None:
        return found
    if port.is_open:
        found[agent_table.OPEN] = {key}
    if port.stateful:
        found[agent_table.STATEFUL] = {key}
    for name, direction in ((agent_table.EGRESS, security_groups.EGRESS),
                            (agent_table.INGRESS, security_groups.INGRESS)):
        if direction in port.chains:
            found[name] = {key: port.chains[direction]}
    for name, pairs in {**port.members, **port.prefixes}.items():
        found[name] = interpreting.Intervals(pairs)
    return found


def rules(port: AgentPort) -> interpreting.Rules:
    """Return all rules that a frame of a port meets."""
    connections = () if port.zone is None else agent_conntrack.rules()
    return interpreting.Rules(
        [each for each in filter_table.CHAINS
         # The host's own frames meet what those of others do.
         if each.name != 'host_to_guests'],
        [*filter_table.RULES, *(each for each in connections
                                if not each.chain.startswith(
                                    ('ct_zone', 'ct_ip', 'ct_limit'))),
         *(each.rule for each in port.rules)])


def is_of_groups(chain: str | None) -> bool:
    """Return whether a chain is of what security groups say."""
    return chain is not None and (
        chain.startswith((*group_rules.PREFIXES.values(), 'ct_'))
        or chain in {each.name for each in agent_table.CHAINS})


def passes_by(chain: str, port: AgentPort) -> str | None:
    """Return by what a frame passes that no rule of a group lets pass.

    :param chain: of the rule that does; None is returned of one that says
        nothing of groups
    """
    if chain == 'ct_state':
        return 'a connection that the kernel knows'
    if port.is_open and chain in ('leaving', 'entering_open'):
        return 'port security is off, or the port is trusted'
    if chain.endswith('_no_ip'):
        return 'ARP, which security groups are not asked about'
    if chain.startswith(tuple(agent_table.LAST.values())):
        return 'what passes whatever groups say, as DHCP'
    return None


def state(packet: Packet, port: AgentPort) -> int:
    """Return which part a frame would have in its connection.

    :returns: nftx.ESTABLISHED if the kernel has one that it belongs to, else
        nftx.NEW
    :raises KernelRefused: the kernel does not tell
    """
    if port.zone is None or packet.ethertype not in _SOURCES:
        return nftx.NEW
    ends = [packet.read(each[packet.ethertype])
            for each in (_SOURCES, _DESTINATIONS)]
    if None in ends:
        return nftx.NEW
    source, destination = (str(ipaddress.ip_address(each or b''))
                           for each in ends)
    numbers = _numbers(packet)
    is_answer = packet.read(_TYPE) == bytes(
        [_REPLIES[packet.protocol]]) if packet.protocol in _REPLIES else None
    for each in conntrack.connections(port.zone, [source]):
        if each.protocol != packet.protocol:
            continue
        if (each.source, each.destination, each.ports) == (
                source, destination, numbers) and is_answer is not True:
            return nftx.ESTABLISHED if each.is_answered else nftx.NEW
        if (each.destination, each.source) == (source, destination) and (
                is_answer or is_answer is None and each.ports == (
                    numbers and numbers[::-1])):
            return nftx.ESTABLISHED
    return nftx.NEW


def _numbers(packet: Packet) -> tuple[int, int] | None:
    """Return from which port to which it is; None: it has none."""
    found = (packet.read(_PORTS)
             if packet.protocol in security_groups.WITH_PORTS else None)
    return None if found is None else (int.from_bytes(found[:2], 'big'),
                                       int.from_bytes(found[2:], 'big'))
