# SPDX-License-Identifier: Apache-2.0

"""The ML2 mechanism driver: binds ports to Linux bridges of compute hosts.

Where there is no agent a port is ACTIVE as soon as it is bound, because all
that remains is done by os-vif when Nova plugs it. What nobody enforces on
such a port is refused when the binding is asked for, or the feature: in the
first precommit, as long as nothing is written and no binding given up.
"""

import collections
import typing

from neutron_lib.api.definitions import portbindings
from neutron_lib.callbacks import events
from neutron_lib.callbacks import registry
from neutron_lib.callbacks import resources
from neutron_lib import constants
from neutron_lib import context as neutron_context
from neutron_lib.plugins import directory
from neutron_lib.plugins.ml2 import api
from neutron_lib.services.logapi import constants as logs_of_neutron
from oslo_config import cfg
from oslo_log import log as logging

from vif_plug_tapmac.ml2 import agents
from vif_plug_tapmac.ml2 import bindings
from vif_plug_tapmac.ml2 import exception
from vif_plug_tapmac.ml2 import hosts
from vif_plug_tapmac.ml2 import live_migration
from vif_plug_tapmac.ml2 import opts
from vif_plug_tapmac.ml2 import others
from vif_plug_tapmac.ml2 import places
from vif_plug_tapmac.ml2 import subnets
from vif_plug_tapmac.ml2 import unenforced

LOG = logging.getLogger(__name__)

#: What Neutron says of a port or network: Nova may call it anything.
_Resource = typing.Mapping[str, typing.Any]

#: Of a port and its network, what nobody enforces on any host of ours.
_unenforced = unenforced.of_port

#: What makes Neutron give a binding up, for another one, if it changes.
_BOUND_BY = (portbindings.HOST_ID, portbindings.VNIC_TYPE,
             portbindings.PROFILE, 'device_owner')


class TapMacMechanismDriver(subnets.AddressKeeper):
    """Binds ports for the os-vif plugin: see ``from_vif``."""

    def initialize(self) -> None:
        """Read the configuration, which must be right, and say what we are.

        :raises InvalidConfig: it is not; neutron-server does not start
        """
        config = opts.group(cfg.CONF)
        self._places = places.Places(config)
        # An agent hears of a change.
        self.keep_addresses_on(hosts.Hosts(config.full_hosts,
                                           but=self._places.agent_hosts))
        # Segments whose ports are not all on one bridge, said once in a
        # process.
        self._parted: set[str] = set()
        # In which request, of which port, on which host, what was said last.
        self._said: collections.deque[tuple[str, str, str, str]] = (
            collections.deque(maxlen=100))
        registry.subscribe(self.refuse_trunk, resources.TRUNK,
                           events.PRECOMMIT_CREATE)
        registry.subscribe(self.refuse_logs, logs_of_neutron.LOGGING_PLUGIN,
                           events.AFTER_INIT)
        registry.subscribe(self.look_at_bound_ports, resources.PROCESS,
                           events.AFTER_INIT)
        LOG.info('tapmac binds ports on hosts %s for %s. %s.',
                 ','.join(config.hosts), ','.join(config.bridge_mappings),
                 _who_enforces(self._places.agent_hosts))
        if not config.hosts:
            LOG.warning('tapmac binds no ports, because [ml2_tapmac] hosts is '
                        'empty. Remedy: the operator must name the compute '
                        'hosts with tapmac there, or remove tapmac from '
                        '[ml2] mechanism_drivers.')

    @property
    def connectivity(self) -> str:
        return str(portbindings.CONNECTIVITY_L2)

    def filter_hosts_with_segment_access(
            self, context: typing.Any, segments: typing.Any,
            candidate_hosts: typing.Any,
            agent_getter: typing.Any) -> set[str]:
        """Return those hosts whose agent reaches one of these segments.

        ML2 filters hosts for its DHCP agents only if each driver has this.
        """
        if not self._places.agent_hosts.patterns:
            return set()
        found = agent_getter(context, filters={
            'host': list(candidate_hosts), 'agent_type': [agents.AGENT_TYPE]})
        return {agent['host'] for agent in found if any(
            self._places.binds_at(agent, segment) for segment in segments)}

    def check_segment_for_agent(self, segment: typing.Any,
                                agent: _Resource) -> bool:
        """Return whether ports on a segment are bound by us at an agent.

        By this Neutron has it which hosts are on which segments of a routed
        network.
        """
        return self._places.binds_at(agent, segment)

    def bind_port(self, context: api.PortContext) -> None:
        """Bind a port to the bridge of the first segment that has one.

        What is not ours is left to other drivers.
        """
        reason: exception.NotOurs | None = None
        try:
            segment, bridge = self._places.find(
                context.plugin_context, context.current, context.host,
                context.segments_to_bind)
            if others.is_allocated(context, self):
                raise exception.NotOurs('another driver has the resources '
                                        'that Placement gave it')
        except exception.NotOurs as error:
            reason = error
        if reason is not None:
            # Not while it is handled, or oslo.log adds it to the line again.
            self._say_whose(context, reason)
            others.keep_from_another_bridge(context, self)
            return
        active = bindings.active(bindings.of_port(
            context.plugin_context, context.current['id']))
        missing = _unenforced(context.current, context.network.current)
        if context.host in self.full_hosts:
            missing.update(unenforced.where_full(context.current))
        obstacle = (
            'nothing would enforce %s' % ', '.join(sorted(missing)) if missing
            else live_migration.obstacle(context, active, bridge,
                                         self._places.bridge_hosts))
        if obstacle:
            beside = ('' if active is None or active['host'] == context.host
                      else ' beside its binding on %s' % active['host'])
            self._warn(context, beside, obstacle)
            return
        self._warn_of_other_bridges(context, segment)
        vif_type = self._places.vif_type(context.host)
        has_agent = self._places.has_agent(context.host)
        context.set_binding(
            segment, vif_type, bindings.vif(bridge, vif_type, has_agent),
            # An agent says it when it guards the port.
            None if has_agent else constants.PORT_STATUS_ACTIVE)

    def _warn_of_other_bridges(self, context: api.PortContext,
                               segment: str) -> None:
        """Say so, if other ports of a segment are bound to another bridge.

        Only the configuration changes bridges, so what was right when this
        process started is right until its end.
        """
        if segment not in self._parted:
            return
        found = bindings.on_other_bridges(context.plugin_context.elevated(),
                                          self._places.bridges, segment)
        if not found:
            self._parted.discard(segment)
        self._say_parted(found)

    def look_at_bound_ports(self, resource: str, event: str,
                            trigger: typing.Any, payload: typing.Any) -> None:
        """Warn of bound ports whose bridge or driver is another by now."""
        admin = neutron_context.get_admin_context()
        found = bindings.on_other_bridges(admin, self._places.bridges)
        self._parted = set(found)
        self._say_parted(found)
        others.warn_of_gone(admin)

    @staticmethod
    def _say_parted(found: typing.Mapping[str, bindings.OnOtherBridges],
                    ) -> None:
        for segment, other in found.items():
            LOG.warning(
                '%d ports on segment %s are bound to other bridges, as %s, '
                'than [ml2_tapmac] says now: %s. Guests on the one do not '
                'reach guests on the other. Remedy: the operator must restore '
                'the option, or bind these ports anew, by a change of their '
                'binding:profile, and hard reboot their servers.',
                other.ports, segment, other.bridge, other.wanted or 'none')

    def create_port_precommit(self, context: api.PortContext) -> None:
        """Refuse to bind a new port with what nobody enforces.

        :raises NotEnforced: for the first such feature
        """
        self._refuse(
            context,
            _unenforced(context.current, context.network.current),
            unenforced.where_full(context.current))

    def update_port_precommit(self, context: api.PortContext) -> None:
        """Refuse what nobody enforces: with a binding, and when it is added.

        And keep a port from being ACTIVE that an agent is to guard.

        ML2 calls this with the result of bind_port and of an activation, too.
        That is no time to refuse: the old binding has been given up by then.

        :raises NotEnforced: for the first such feature
        """
        everywhere = _unenforced(context.current, context.network.current)
        where_full = unenforced.where_full(context.current)
        if (bindings.is_bound(context.current)
                or all(context.current[name] == context.original[name]
                       for name in _BOUND_BY)):
            for known in (*_unenforced(context.original,
                                       context.network.current),
                          *unenforced.where_full(context.original)):
                everywhere.pop(known, None)
                where_full.pop(known, None)
        if bindings.is_bound(context.current):
            where_full.update(unenforced.other_addresses(context.original,
                                                         context.current))
        if (everywhere or where_full) and not live_migration.is_activation(
                context):
            self._refuse(context, everywhere, where_full)
        agents.hold_back(context)

    def _refuse(self, context: api.PortContext,
                everywhere: typing.Mapping[str, str],
                where_full: typing.Mapping[str, str]) -> None:
        """Refuse the first of these, if the port is ours or will be.

        :param where_full: what is one on hosts of full_hosts only
        """
        if not everywhere and not (where_full and self.full_hosts.patterns):
            return
        for host in self._our_hosts(context):
            found = dict(everywhere)
            if host in self.full_hosts:
                found.update(where_full)
            for feature, remedy in found.items():
                raise exception.NotEnforced(context.current, feature,
                                            remedy, host)

    def _say_whose(self, context: api.PortContext,
                   reason: exception.NotOurs) -> None:
        if isinstance(reason, exception.NoAgent):
            self._warn(context, '', str(reason))
        else:
            LOG.debug('tapmac leaves port %s on host %s to other drivers: %s.',
                      context.current['id'], context.host, reason)

    def _warn(self, context: api.PortContext, beside: str, why: str) -> None:
        """Say why a port is not bound: once, while Neutron tries ten times.

        :param beside: which binding there is, too; may be empty
        """
        said = (context.plugin_context.request_id, context.current['id'],
                context.host, why)
        if said not in self._said:
            self._said.append(said)
            LOG.warning('tapmac does not bind port %s on host %s%s: %s.',
                        context.current['id'], context.host, beside, why)

    def _our_hosts(self, context: api.PortContext) -> typing.Iterator[str]:
        """Yield the hosts on which the port is ours or would be."""
        port = context.current
        if bindings.is_ours(port) or (
                not bindings.is_bound(port) and context.host
                and not others.is_allocated(context, self)
                and self._would_bind(context, context.host)):
            yield str(context.host)
        for other in bindings.of_port(context.plugin_context, port['id']):
            # For a live migration: it may become the active one any time.
            if other['host'] != context.host and (
                    bindings.is_our(other['vif_type'], other['vif_details'])
                    or other['vif_type'] in bindings.UNBOUND
                    and self._would_bind(context, other['host'])):
                yield str(other['host'])

    def _would_bind(self, context: api.PortContext, host: str) -> bool:
        """Return whether it is us who would bind a port on a host."""
        return (self.would_place(context.plugin_context, context.current,
                                 host, context.network.network_segments)
                and not others.is_bound_before(context, host, self))

    def would_place(self, plugin_context: typing.Any, port: _Resource,
                    host: str, segments: typing.Collection[_Resource],
                    ) -> bool:
        """Return whether a port is ours on a host, if no driver comes before.

        :param segments: of its network
        """
        try:
            self._places.find(plugin_context, port, host, segments)
        except exception.NotOurs:
            return False
        return True

    def update_port_postcommit(self, context: api.PortContext) -> None:
        """Set a port ACTIVE whose second binding has been activated.

        Neutron sets it DOWN and leaves it to an agent to set it ACTIVE, of
        which nova-compute must hear.
        """
        port = context.current
        if (bindings.is_ours(port) and not bindings.is_guarded(port)
                and port['status'] == constants.PORT_STATUS_DOWN):
            directory.get_plugin().update_port_status(
                context.plugin_context, port['id'],
                constants.PORT_STATUS_ACTIVE, context.host)

    def update_network_precommit(self, context: api.NetworkContext) -> None:
        """Refuse a QoS policy, or another VLAN, where we have bound ports.

        Also those that have a binding of ours beside the active one. Neutron
        has a VLAN changed if it takes all ports for Open vSwitch's, by their
        type, whose agent would hear of it.

        :raises NotEnforced: naming one of these ports
        """
        before, after = context.original, context.current
        if not unenforced.changed_network(before, after):
            return
        for port, host in bindings.ours(context.plugin_context,
                                        self.would_place,
                                        network_id=[after['id']]):
            for refused in unenforced.changed_network(
                    before, after, port).items():
                raise exception.NotEnforced(port, *refused, host)

    def refuse_trunk(self, resource: str, event: str, trigger: typing.Any,
                     payload: typing.Any) -> None:
        """Refuse a trunk whose parent we have bound.

        Also beside the active binding.

        :raises NotEnforced: naming the parent
        """
        created = payload.desired_state
        for port, host in bindings.ours(payload.context, self.would_place,
                                        id=[created.port_id]):
            raise exception.NotEnforced(
                port, *unenforced.trunk(created.id), host)

    def refuse_logs(self, resource: str, event: str, trigger: typing.Any,
                    payload: typing.Any) -> None:
        """Have logs of ports refused that we have bound.

        :param trigger: Neutron's plugin for logs, which asks its drivers
        """
        # Where there is no such plugin, nobody loads this.
        from vif_plug_tapmac.ml2 import logs
        trigger.register_driver(logs.NoLogs(self.would_place))


def _who_enforces(agent_hosts: hosts.Hosts) -> str:
    """Return who keeps guests to their security groups, and where."""
    what = 'security groups, port security and allowed address pairs on'
    if not agent_hosts.patterns:
        return 'Nothing enforces %s them (port_filter is false)' % what
    return ('tapmac-agent enforces %s hosts %s of them (port_filter is true), '
            'and nothing does on others'
            % (what, ','.join(agent_hosts.patterns)))
