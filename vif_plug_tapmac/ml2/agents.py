# SPDX-License-Identifier: Apache-2.0

"""The agents that keep guests to their security groups, one on a host.

Each reports itself to Neutron, and which physical networks it has a bridge
for. A port that is bound where one lives is not ACTIVE before it is guarded.
"""

from importlib import metadata
import typing

from neutron_lib.callbacks import resources
from neutron_lib import constants
from neutron_lib.plugins import directory
from neutron_lib.plugins.ml2 import api
from oslo_config import cfg

from vif_plug_tapmac.ml2 import bindings
from vif_plug_tapmac.ml2 import exception
from vif_plug_tapmac.ml2 import hosts

#: By which Neutron knows them.
AGENT_TYPE = 'tapmac agent'

#: The oldest release that the agent is for.
_OLDEST = 28

_Agent = typing.Mapping[str, typing.Any]


def where(config: cfg.ConfigOpts.GroupAttr) -> hosts.Hosts:
    """Return the hosts on which there is to be an agent.

    :param config: the ``[ml2_tapmac]`` group
    :raises InvalidConfig: there are some, and this Neutron is too old
    """
    option, value = 'agent_hosts', ','.join(config.agent_hosts)
    patterns = config.agent_hosts
    if not patterns and config.firewall == 'agent':
        option, value, patterns = 'firewall', config.firewall, ['*']
    if patterns:
        release = metadata.version('neutron')
        if int(release.split('.')[0]) < _OLDEST:
            raise exception.InvalidConfig(
                option=option, value=value,
                reason='tapmac-agent needs Neutron %d or newer, and this is %s'
                % (_OLDEST, release))
    return hosts.Hosts(patterns)


def require(plugin_context: typing.Any, port: typing.Mapping[str, typing.Any],
            host: str) -> _Agent:
    """Return the agent of a host that is to have a port, as Neutron knows it.

    :raises NotOurs: there is none, and it is for another agent that it needs
        none, as for one of a network node
    :raises NoAgent: it has never reported itself, or not for too long
    """
    found = directory.get_plugin().get_agents(
        plugin_context.elevated(),
        filters={'agent_type': [AGENT_TYPE], 'host': [host]})
    if not found:
        raise (exception.NotOurs if is_network_owned(port)
               else exception.NoAgent)(
            'no tapmac-agent of that host has ever reported itself. Remedy: '
            'the operator must start it there, or have [ml2_tapmac] '
            'agent_hosts, or hosts, without that host')
    agent: _Agent = found[0]
    if not agent['alive']:
        raise exception.NoAgent(
            'its tapmac-agent has not reported itself since %s. Remedy: the '
            'operator must start it there' % agent['heartbeat_timestamp'])
    return agent


def is_network_owned(port: typing.Mapping[str, typing.Any]) -> bool:
    """Return whether a port is Neutron's own, as for DHCP or a router."""
    return str(port['device_owner']).startswith(
        constants.DEVICE_OWNER_NETWORK_PREFIX)


def reaches(agent: _Agent, segment: typing.Any) -> bool:
    """Return whether an agent has a bridge for a segment's physical network.

    :param agent: as Neutron knows it, or as it reports itself
    """
    found = agent['configurations'].get('bridge_mappings') or {}
    return segment[api.PHYSICAL_NETWORK] in found


def hold_back(context: api.PortContext) -> None:
    """Keep a port from being ACTIVE before its agent says that it guards it.

    In each transaction that changes a port: it is done when it is bound, and
    when it is ACTIVE no more. Others have something to say, too, as a DHCP
    agent, and Neutron has a port be ACTIVE when nobody is left who has not.
    Any other change must not do it again, because the agent says it once.
    Neutron's own ports are held back by no driver.
    """
    port, before = context.current, context.original
    if (not bindings.is_guarded(port)
            or port['status'] == constants.PORT_STATUS_ACTIVE
            or is_network_owned(port)):
        return
    if (context.host == context.original_host and bindings.is_ours(before)
            and before['status'] != constants.PORT_STATUS_ACTIVE):
        return
    # Neutron's own: neutron-lib has nothing for this.
    from neutron.db import provisioning_blocks
    provisioning_blocks.add_provisioning_component(
        context.plugin_context, port['id'], resources.PORT,
        provisioning_blocks.L2_AGENT_ENTITY)
