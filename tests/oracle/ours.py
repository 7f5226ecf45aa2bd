# SPDX-License-Identifier: Apache-2.0

"""Our filter, on one of the hosts, fed with what Neutron's RPC says."""

import ipaddress
import struct
import typing

from tests import hosts
from vif_plug_tapmac.kernel import agent_table
from vif_plug_tapmac.kernel import filter_steps
from vif_plug_tapmac.kernel import filter_table
from vif_plug_tapmac.kernel import group_rules
from vif_plug_tapmac.kernel import nft
from vif_plug_tapmac.kernel import nft_expressions as nftx
from vif_plug_tapmac.kernel import nft_sets
from vif_plug_tapmac.wanted import from_neutron
from vif_plug_tapmac.wanted import rules
from vif_plug_tapmac.wanted import security_groups
from vif_plug_tapmac.wanted.security_groups import Port

#: The link group of TAPs whose frames the agent decides about.
AGENT_GROUP = 29796
_Told = dict[str, typing.Any]


class Ours:
    """Our part, on a host.

    :param host: where TAPs are in :data:`AGENT_GROUP`
    """

    def __init__(self, host: hosts.Host) -> None:
        self._host = host
        with host.here():
            self._nft = nft.Session()

    def close(self) -> None:
        self._nft.__exit__(None, None, None)

    def apply(self, info: _Told, details: typing.Iterable[_Told]) -> None:
        """Have all that Neutron says of this host, instead of what was there.

        :param info: of security_group_info_for_devices
        :param details: of get_devices_details_list
        :raises AssertionError: something of it was refused
        """
        answer = from_neutron.from_rpc(info, details, is_all=True)
        assert not answer.refused, answer.refused
        with self._host.here():
            steps = self._steps(answer.change)
            if self._nft.table(filter_table.NAME) is not None:
                steps.insert(0, nft.delete_table(filter_table.NAME))
            assert self._nft.transact('what Neutron says', steps)

    def _steps(self, change: security_groups.Change) -> list[nft.Step]:
        steps = filter_steps.making({AGENT_GROUP}, {AGENT_GROUP})
        for number, each in enumerate(change.members, 100):
            made, elements = group_rules.sets(each)
            steps.append(nft_sets.new_set(filter_table.NAME, made, number))
            steps += nft_sets.add_elements(filter_table.NAME, made.name,
                                           elements)
        for group in change.groups:
            steps += _chains(group_rules.chains(group))
        for groups in {port.groups for port in change.ports}:
            made = group_rules.set_chain(groups)
            first = tuple(nft.Rule(group_rules.chain_name(
                direction, group_rules.set_name(groups)),
                nftx.jump(begins)) for direction, begins in (
                    ('egress', agent_table.LEAVING),
                    ('ingress', agent_table.ENTERING)))
            steps += _chains(made._replace(rules=(*first, *made.rules)))
        for port in change.ports:
            for name, element in self._elements(port):
                steps += nft_sets.add_elements(filter_table.NAME, name,
                                               [element])
        return steps

    def _elements(self, port: Port,
                  ) -> typing.Iterator[tuple[str, nft_sets.Element]]:
        index = self._host.link(port.tap).index
        number = struct.pack('=I', index)
        chain = group_rules.set_name(port.groups)
        if port.is_open:
            yield agent_table.OPEN, nft_sets.Element(number)
        for name, direction in (agent_table.EGRESS, 'egress'), (
                agent_table.INGRESS, 'ingress'):
            yield name, nft_sets.Element(number, data=group_rules.chain_name(
                direction, chain))
        found = set()
        for mac in {port.mac, *(mac for mac, _ in port.own)}:
            local = rules.link_local(mac)
            found.add((rules.MACS, filter_steps.key(index, mac, None)))
            found.add((rules.LINK_LOCAL,
                       filter_steps.key(index, mac, local)))
            if port.own:
                found.add((rules.IPV6, filter_steps.key(index, mac, local)))
        for mac, prefix in port.own:
            network = ipaddress.ip_network(prefix)
            first, last = (filter_steps.key(index, mac, str(network[number]))
                           for number in (0, -1))
            if first == last:
                found.add((rules.IPV4 if network.version == 4 else rules.IPV6,
                           first))
            else:
                yield (agent_table.IPV4_PREFIX if network.version == 4
                       else agent_table.IPV6_PREFIX,
                       nft_sets.Element(first, last=last))
        for name, key in found:
            yield name, nft_sets.Element(key)


def _chains(made: group_rules.Made) -> list[nft.Step]:
    return [*(nft.new_chain(filter_table.NAME, each) for each in made.chains),
            *(nft.new_rule(filter_table.NAME, each) for each in made.rules)]
