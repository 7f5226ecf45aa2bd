# SPDX-License-Identifier: Apache-2.0

"""The ML2 mechanism driver: binds ports to Linux bridges of compute hosts.

There is no agent and no RPC: a port is ACTIVE as soon as it is bound, because
all that remains is done by os-vif when Nova plugs it. What nobody enforces on
such a port is refused when it is bound, or asked for afterwards.
"""

import fnmatch
import typing

from neutron_lib.api.definitions import portbindings
from neutron_lib.api.definitions import trunk_details
from neutron_lib.callbacks import events
from neutron_lib.callbacks import registry
from neutron_lib.callbacks import resources
from neutron_lib import constants
from neutron_lib.plugins import directory
from neutron_lib.plugins.ml2 import api
from neutron_lib.services.qos import constants as qos
from neutron_lib.services.trunk import constants as trunk
from oslo_config import cfg
from oslo_log import log as logging

from vif_plug_tapmac.ml2 import exception
from vif_plug_tapmac.ml2 import mappings
from vif_plug_tapmac.ml2 import opts
from vif_plug_tapmac.wanted import names

LOG = logging.getLogger(__name__)

#: What Neutron says of a port or network: Nova may call it anything.
_Resource = typing.Mapping[str, typing.Any]

#: Ports that no compute service plugs, and that belong to other drivers.
_NOT_PLUGGED = (constants.DEVICE_OWNER_DVR_INTERFACE,
                trunk.TRUNK_SUBPORT_OWNER)


class TapMacMechanismDriver(api.MechanismDriver):
    """Binds ports for the os-vif plugin, as ``ovs``: see ``from_vif``."""

    def initialize(self) -> None:
        """Read the configuration, which must be right, and say what we are.

        :raises InvalidConfig: it is not; neutron-server does not start
        """
        config = opts.group(cfg.CONF)
        self._bridges = mappings.Bridges.from_config(config)
        self._hosts: list[str] = config.hosts
        registry.subscribe(self.refuse_trunk, resources.TRUNK,
                           events.PRECOMMIT_CREATE)
        LOG.info('tapmac binds ports on hosts %s for %s. Nothing '
                 'enforces security groups, port security and allowed address '
                 'pairs on them (port_filter is false).',
                 ','.join(self._hosts), ','.join(config.bridge_mappings))

    @property
    def connectivity(self) -> str:
        return str(portbindings.CONNECTIVITY_L2)

    def bind_port(self, context: api.PortContext) -> None:
        """Bind a port to the bridge of the first segment that has one.

        What is not ours is left to other drivers.
        """
        if not self._may_bind(context):
            return
        for segment in context.segments_to_bind:
            bridge = self._bridges.bridge(segment)
            if bridge is not None:
                if self._can_be_refused(context):
                    context.set_binding(
                        segment[api.ID], portbindings.VIF_TYPE_OVS,
                        _vif_details(bridge), constants.PORT_STATUS_ACTIVE)
                return

    def _may_bind(self, context: api.PortContext) -> bool:
        port = context.current
        return (port[portbindings.VNIC_TYPE] == portbindings.VNIC_NORMAL
                and port['device_owner'] not in _NOT_PLUGGED
                and any(fnmatch.fnmatchcase(context.host, pattern)
                        for pattern in self._hosts))

    def _can_be_refused(self, context: api.PortContext) -> bool:
        """Return whether we may bind this port, to be refused in precommit.

        A binding beside the active one, as for a live migration, is made
        without precommit, and to refuse its activation comes too late:
        Neutron has unbound the port by then.
        """
        unenforced = _unenforced(context.current, context.network.current)
        active = _active_host(context) if unenforced else None
        if active in (None, context.host):
            return True
        LOG.warning('tapmac does not bind port %s on host %s beside its '
                    'binding on %s: nothing would enforce %s.',
                    context.current['id'], context.host, active,
                    ', '.join(sorted(unenforced)))
        return False

    def update_port_precommit(self, context: api.PortContext) -> None:
        """Refuse what nobody enforces: at the binding, and when it is added.

        ML2 calls this with the result of bind_port, too, and rolls that back.

        :raises NotEnforced: for the first such feature
        """
        if not _is_ours(context.current):
            return
        network = context.network.current
        found = _unenforced(context.current, network)
        if _is_ours(context.original):
            for known in _unenforced(context.original, network):
                found.pop(known, None)
        for feature, remedy in found.items():
            raise _refusal(context.current, feature, remedy)

    def update_port_postcommit(self, context: api.PortContext) -> None:
        """Set a port ACTIVE whose second binding has been activated.

        Neutron sets it DOWN and leaves it to an agent to set it ACTIVE, of
        which nova-compute must hear.
        """
        port = context.current
        if _is_ours(port) and port['status'] == constants.PORT_STATUS_DOWN:
            directory.get_plugin().update_port_status(
                context.plugin_context, port['id'],
                constants.PORT_STATUS_ACTIVE, context.host)

    def update_network_precommit(self, context: api.NetworkContext) -> None:
        """Refuse a QoS policy for a network on which we have bound ports.

        :raises NotEnforced: naming one of these ports
        """
        policy = context.current.get(qos.QOS_POLICY_ID)
        if not policy or policy == context.original.get(qos.QOS_POLICY_ID):
            return
        ports = directory.get_plugin().get_ports(
            context.plugin_context.elevated(),
            filters={'network_id': [context.current['id']]})
        for port in filter(_is_ours, ports):
            for feature, remedy in _network_qos(port, context.current):
                raise _refusal(port, feature, remedy)

    def refuse_trunk(self, resource: str, event: str, trigger: typing.Any,
                     payload: typing.Any) -> None:
        """Refuse a trunk whose parent we have bound.

        :raises NotEnforced: naming the parent
        """
        created = payload.desired_state
        port = directory.get_plugin().get_port(payload.context,
                                               created.port_id)
        if _is_ours(port):
            raise _refusal(port, *_trunk(created.id))


def _vif_details(bridge: str) -> dict[str, typing.Any]:
    """Return what makes Nova have os-vif make the TAP, and us be os-vif."""
    return {portbindings.VIF_DETAILS_BRIDGE_NAME: bridge,
            portbindings.OVS_DATAPATH_TYPE: names.DATAPATH_TYPE,
            # neutron-lib has no name for this.
            'ovs_create_tap': True,
            portbindings.CAP_PORT_FILTER: False,
            portbindings.VIF_DETAILS_CONNECTIVITY:
                portbindings.CONNECTIVITY_L2}


def _is_ours(port: _Resource) -> bool:
    """Return whether a port is bound by us now."""
    details = port.get(portbindings.VIF_DETAILS) or {}
    return (port.get(portbindings.VIF_TYPE) == portbindings.VIF_TYPE_OVS
            and details.get(portbindings.OVS_DATAPATH_TYPE)
            == names.DATAPATH_TYPE)


def _active_host(context: api.PortContext) -> str | None:
    """Return where the port is bound, and not only to be bound."""
    port = context.current
    # No other port can have two bindings, or be asked for them.
    if not port['device_owner'].startswith(
            constants.DEVICE_OWNER_COMPUTE_PREFIX):
        return None
    for binding in directory.get_plugin().get_port_bindings(
            context.plugin_context.elevated(), port['id']):
        if binding['status'] == constants.ACTIVE:
            return str(binding['host'])
    return None


def _unenforced(port: _Resource, network: _Resource) -> dict[str, str]:
    """Return what a port has that nobody enforces, each with its remedy."""
    found = dict(_network_qos(port, network))
    policy = port.get(qos.QOS_POLICY_ID)
    if policy:
        found['QoS policy %s' % policy] = (
            'Remove the policy from the port')
    details = port.get(trunk_details.TRUNK_DETAILS)
    if details:
        feature, remedy = _trunk(details['trunk_id'])
        found[feature] = remedy
    if not port['admin_state_up']:
        found['admin_state_up False'] = (
            'Leave the port up, and detach it from its server instead')
    return found


def _network_qos(port: _Resource, network: _Resource,
                 ) -> typing.Iterator[tuple[str, str]]:
    policy = network.get(qos.QOS_POLICY_ID)
    # A policy of the network is for guests, not for Neutron's own ports.
    if policy and not port['device_owner'].startswith(
            constants.DEVICE_OWNER_NETWORK_PREFIX):
        yield ('QoS policy %s of its network' % policy,
               'Leave the network without policy')


def _trunk(trunk_id: str) -> tuple[str, str]:
    return ('trunk %s' % trunk_id,
            'Give the server a port on each of the networks instead')


def _refusal(port: _Resource, feature: str,
             remedy: str) -> exception.NotEnforced:
    return exception.NotEnforced(
        port=port['id'], host=port[portbindings.HOST_ID], feature=feature,
        remedy=remedy)
