# SPDX-License-Identifier: Apache-2.0

"""Where ports belong on hosts, and why a port is not ours to bind there."""

import typing

from neutron_lib.api.definitions import portbindings
from neutron_lib import constants
from neutron_lib.plugins.ml2 import api
from neutron_lib.services.trunk import constants as trunk
from oslo_config import cfg
from oslo_log import log as logging

from vif_plug_tapmac.ml2 import agents
from vif_plug_tapmac.ml2 import bindings
from vif_plug_tapmac.ml2 import exception
from vif_plug_tapmac.ml2 import hosts
from vif_plug_tapmac.ml2 import mappings

LOG = logging.getLogger(__name__)

#: Ports that are never plugged into a bridge, or into one of each host.
_NOT_PLUGGED = (trunk.TRUNK_SUBPORT_OWNER,
                constants.DEVICE_OWNER_DVR_INTERFACE,
                constants.DEVICE_OWNER_ROUTER_SNAT,
                constants.DEVICE_OWNER_AGENT_GW)

_Resource = typing.Mapping[str, typing.Any]


class Places:
    """The places for ports that ``[ml2_tapmac]`` says.

    :param config: that group
    :raises InvalidConfig: as :class:`mappings.Bridges` and
        :func:`agents.where` have it
    """

    def __init__(self, config: cfg.ConfigOpts.GroupAttr) -> None:
        self.bridges = mappings.Bridges.from_config(config)
        self.bridge_hosts = hosts.Hosts(config.bridge_hosts)
        self.agent_hosts = agents.where(config)
        self._hosts = hosts.Hosts(config.hosts)
        # Said once in a process.
        self._missed: set[tuple[str, str]] = set()

    def find(self, plugin_context: typing.Any, port: _Resource, host: str,
             segments: typing.Collection[_Resource]) -> tuple[str, str]:
        """Return where on a host a port belongs, if it is ours there.

        :param segments: of its network
        :returns: the id of the segment, and the bridge
        :raises NotOurs: why it is not
        """
        self._require_ours(port, host)
        found = [(segment, bridge) for segment in segments
                 for bridge in [self.bridges.bridge(segment)] if bridge]
        if not found:
            raise exception.NotOurs(
                'no segment of its network has a bridge in [ml2_tapmac] '
                'bridge_mappings or vlan_bridge')
        if len(segments) > 1:
            found = _of_addresses(plugin_context, port, found)
        if host in self.agent_hosts:
            found = _of_agent(agents.require(plugin_context, port, host),
                              found)
        if len(found) > len({bridge for _, bridge in found}):
            # A template with {network} and without the rest.
            raise exception.NotOurs('several segments of its network would '
                                    'have the bridge %s' % found[0][1])
        segment, bridge = found[0]
        return segment[api.ID], bridge

    def _require_ours(self, port: _Resource, host: str) -> None:
        """Require that a port is one that is plugged on hosts, on one of ours.

        :raises NotOurs: it is not
        """
        if port[portbindings.VNIC_TYPE] != portbindings.VNIC_NORMAL:
            raise exception.NotOurs(
                'its vnic_type is %s' % port[portbindings.VNIC_TYPE])
        owner = port['device_owner']
        if owner in _NOT_PLUGGED or (agents.is_network_owned(port)
                                     and host not in self.agent_hosts):
            raise exception.NotOurs(
                'no compute service plugs a port of %s' % owner)
        if host not in self._hosts:
            self._warn_if_missed('binds no ports', host, self._hosts, 'hosts')
            raise exception.NotOurs('[ml2_tapmac] hosts has %s only'
                                    % (','.join(self._hosts.patterns) or '""'))

    def binds_at(self, agent: _Resource, segment: typing.Any) -> bool:
        """Return whether ports on a segment are bound by us at an agent.

        :param agent: of any type, as Neutron knows it, or as it reports itself
        """
        return (agent['agent_type'] == agents.AGENT_TYPE
                and agent['host'] in self.agent_hosts
                and agent['host'] in self._hosts
                and self.bridges.bridge(segment) is not None
                and agents.reaches(agent, segment))

    def has_agent(self, host: str) -> bool:
        """Return whether ports of ours are guarded on a host, by an agent."""
        if host in self.agent_hosts:
            return True
        self._warn_if_missed('binds ports without an agent', host,
                             self.agent_hosts, 'agent_hosts')
        return False

    def vif_type(self, host: str) -> str:
        """Return as what ports of ours are bound on a host."""
        if host in self.bridge_hosts:
            return str(portbindings.VIF_TYPE_BRIDGE)
        self._warn_if_missed('binds ports as ovs', host, self.bridge_hosts,
                             'bridge_hosts')
        return str(portbindings.VIF_TYPE_OVS)

    def _warn_if_missed(self, what: str, host: str, meant: hosts.Hosts,
                        option: str) -> None:
        """Say once of a host that it seems to be meant by an option.

        :param what: is done, because it is not among these hosts
        """
        pattern = meant.nearly(host)
        if pattern is None or (host, option) in self._missed:
            return
        self._missed.add((host, option))
        LOG.warning('tapmac %s on host %s: it differs from %s of [ml2_tapmac] '
                    '%s by case or domain only. Remedy: if it is meant, the '
                    'operator must name it there as it calls itself.',
                    what, host, pattern, option)


_Places = list[tuple[_Resource, str]]


def _of_addresses(plugin_context: typing.Any, port: _Resource,
                  found: _Places) -> _Places:
    """Return those of these, with bridges, that a port has addresses for.

    :raises NotOurs: there is none
    """
    allowed = bindings.segments_of_addresses(plugin_context, port)
    if None in allowed:
        return found
    left = [place for place in found if place[0][api.ID] in allowed]
    if not left:
        raise exception.NotOurs('the segment of its addresses has no bridge '
                                'in [ml2_tapmac] bridge_mappings')
    return left


def _of_agent(agent: _Resource, found: _Places) -> _Places:
    """Return those of these, with bridges, that an agent reaches.

    :raises NoAgent: there is none
    """
    left = [place for place in found if agents.reaches(agent, place[0])]
    if not left:
        raise exception.NoAgent(
            'its tapmac-agent has no bridge for %s in its bridge_mappings. '
            'Remedy: the operator must give it one there, if that host is on '
            'this network' % ' or '.join(sorted({
                segment[api.PHYSICAL_NETWORK] for segment, _ in found})))
    return left
