# SPDX-License-Identifier: Apache-2.0

"""What is asked of Neutron, told to it, and heard from it: its own classes.

Ports are called by their UUIDs here, also where Neutron asks for a device: it
finds them by these at once, and by the start of one only if nobody else's has
the same.
"""

import logging
import typing

# First, because it has oslo.service use threads.
from neutron.agent import rpc as agent_rpc
from neutron.api.rpc.callbacks.consumer import registry
from neutron.api.rpc.callbacks import resources
from neutron.api.rpc.handlers import resources_rpc
from neutron.api.rpc.handlers import securitygroups_rpc
from neutron.db import securitygroups_rpc_base
from neutron_lib.agent import topics
from neutron_lib import context
from oslo_config import cfg
import oslo_messaging

from vif_plug_tapmac.agent.dirty import Batch
from vif_plug_tapmac.agent.dirty import Dirty

LOG = logging.getLogger(__name__)

#: What Neutron sends to all agents, and about what.
_CONSUMED = ([topics.PORT, topics.UPDATE], [topics.PORT, topics.DELETE],
             [topics.SECURITY_GROUP, topics.UPDATE],
             [topics.PORT_BINDING, topics.ACTIVATE],
             [topics.PORT_BINDING, topics.DEACTIVATE])

#: Of security groups it is asked for so many times more ports at once than of
#: details: they are looked up together, and with each answer come all members
#: of a group again, however few of the ports are in it.
_OF_GROUPS = 10

_Told = dict[str, typing.Any]


class Answer(typing.NamedTuple):
    """What Neutron says of ports.

    :param info: of security_group_info_for_devices: all but those that are
        not there, or trusted
    :param details: of get_devices_details_list_and_failed_devices, for these
    :param failed: UUIDs of those of which it could not say anything
    """
    info: _Told
    details: list[_Told]
    failed: frozenset[str]

    def by_port(self) -> dict[str, _Told]:
        """Return what it says of each, by its UUID."""
        return {**{each['port_id']: each for each in self.details
                   if 'port_id' in each},
                **{each['id']: each for each in self.info['devices'].values()}}


class Server:
    """Neutron, as this host sees it.

    Whatever is asked raises what oslo.messaging raises where there is no
    answer, or nobody at Neutron who could answer.
    """

    def __init__(self) -> None:
        self._host = cfg.CONF.host
        self._context = context.get_admin_context_without_session()
        self._plugin = agent_rpc.PluginApi(topics.PLUGIN)
        self._groups = securitygroups_rpc.SecurityGroupServerRpcApi(
            topics.PLUGIN)
        self._resources = resources_rpc.ResourcesPullRpcApi()
        for each in self._plugin, self._groups, self._resources:
            # There is one of the last in a process.
            if not isinstance(each.client, _Patience):
                each.client = _Patience(each.client)

    @property
    def agent_id(self) -> str:
        """By what Neutron's log calls this agent."""
        return 'tapmac-agent-%s' % self._host

    def listen(self, dirty: Dirty) -> None:
        """Have all that Neutron tells marked; wait until that is so."""
        heard = _Heard(dirty)
        connection = agent_rpc.create_consumers(
            [heard], topics.AGENT, list(map(list, _CONSUMED)),
            start_listening=False)
        # Of address groups Neutron tells by objects only.
        registry.register(heard.address_groups, resources.ADDRESSGROUP)
        connection.create_consumer(
            resources_rpc.resource_type_versioned_topic(
                resources.ADDRESSGROUP),
            [resources_rpc.ResourcesPushRpcCallback()], fanout=True)
        for each in connection.servers:
            # What is heard is written down and no more. Each of them would
            # have up to 64 threads by and by, in which one has nothing to do.
            each.start(override_pool_size=1)

    def ask(self, ports: typing.Collection[str]) -> Answer:
        """Return what Neutron says of ports, which need not be bound here.

        That does not change what it says of them to others, but for those
        that are trusted, which are BUILD until they are said to be up.

        :param ports: their UUIDs
        """
        info: _Told = {'devices': {}, 'security_groups': {},
                       'sg_member_ips': {}}
        for some in _parts(ports, _OF_GROUPS):
            _add(info, self._groups.security_group_info_for_devices(
                self._context, devices=some))
        details: list[_Told] = []
        failed: list[str] = []
        for some in _parts(set(ports) - info['devices'].keys()):
            found = self._plugin.get_devices_details_list_and_failed_devices(
                self._context, devices=some, agent_id=self.agent_id,
                host=self._host)
            details += found['devices']
            failed += found['failed_devices']
        return Answer(info, details, frozenset(failed))

    def describe(self, groups: typing.Iterable[str],
                 ) -> tuple[dict[str, str], list[_Told]]:
        """Return the names of groups by their UUIDs, and all their rules.

        Each as in security_group_info_for_devices, and with its UUID and that
        of its group. A group that is gone is in neither.
        """
        names: dict[str, str] = {}
        rules: list[_Told] = []
        for some in _parts(list(groups)):
            for each in self._resources.bulk_pull(
                    self._context, resources.SECURITYGROUP,
                    filter_kwargs={'id': some}):
                names[each.id] = each.name or ''
            rules += map(_rule, self._resources.bulk_pull(
                self._context, resources.SECURITYGROUPRULE,
                filter_kwargs={'security_group_id': some}))
        return names, rules

    def is_to_be_up(self, told: _Told) -> bool:
        """Return whether Neutron waits for a port to be wired here.

        :param told: a port of an answer, of either kind
        """
        return self._is_here(told) and told.get('status') != 'ACTIVE'

    def is_up(self, told: _Told) -> bool:
        """Return whether Neutron has it that a port is wired here."""
        return self._is_here(told) and told.get('status') == 'ACTIVE'

    def _is_here(self, told: _Told) -> bool:
        # Details are told only of what is bound here.
        return bool(told.get('binding:host_id', self._host) == self._host)

    def set_up(self, ports: typing.Collection[str]) -> frozenset[str]:
        """Say that ports are wired; return those that could not be said of."""
        return self._update(devices_up=sorted(ports))['failed_devices_up']

    def set_down(self, ports: typing.Collection[str]) -> frozenset[str]:
        """Say that ports have no TAP here; return as :meth:`set_up`.

        Neutron passes over those that are not bound to this host.
        """
        return self._update(devices_down=sorted(ports))['failed_devices_down']

    def _update(self, devices_up: typing.Sequence[str] = (),
                devices_down: typing.Sequence[str] = (),
                ) -> dict[str, frozenset[str]]:
        if not devices_up and not devices_down:
            return {'failed_devices_up': frozenset(),
                    'failed_devices_down': frozenset()}
        done = self._plugin.update_device_list(
            self._context, devices_up, devices_down, self.agent_id,
            self._host)
        return {what: frozenset(done[what])
                for what in ('failed_devices_up', 'failed_devices_down')}


class _Heard:
    """What Neutron calls on all agents.

    It says nothing that could be used: what comes later may be older.
    """

    target = oslo_messaging.Target(version='1.5')

    def __init__(self, dirty: Dirty) -> None:
        self._dirty = dirty

    def port_update(self, context: typing.Any, **told: typing.Any) -> None:
        port = told['port']
        # What others may hear from it is told by this only where it is an
        # allowed address pair that came or went.
        # Source: neutron/db/securitygroups_rpc_base.py,
        # check_and_notify_security_group_member_changed
        self._dirty.add(Batch(
            ports=frozenset({port['id']}),
            members=frozenset(port.get('security_groups') or ())))

    def port_delete(self, context: typing.Any, **told: typing.Any) -> None:
        self._port(told['port_id'])

    def binding_activate(self, context: typing.Any,
                         **told: typing.Any) -> None:
        self._port(told['port_id'])

    def binding_deactivate(self, context: typing.Any,
                           **told: typing.Any) -> None:
        self._port(told['port_id'])

    def security_groups_rule_updated(self, context: typing.Any,
                                     **told: typing.Any) -> None:
        self._dirty.add(Batch(groups=frozenset(told['security_groups'])))

    def security_groups_member_updated(self, context: typing.Any,
                                       **told: typing.Any) -> None:
        self._dirty.add(Batch(members=frozenset(told['security_groups'])))

    def address_groups(self, context: typing.Any, resource_type: str,
                       groups: typing.Iterable[typing.Any],
                       event_type: str) -> None:
        self._dirty.add(Batch(members=frozenset(each.id for each in groups)))

    def _port(self, port: str) -> None:
        self._dirty.add(Batch(ports=frozenset({port})))


class _Patience:
    """A client that waits for each answer as long as is configured.

    Neutron's own waits twice as long after each answer that came too late, and
    then sleeps as long; here who asks pauses himself.

    And it does not wait where nobody can answer: after the message queue was
    gone, agents are back at it before Neutron is, and what they ask would be
    in no queue at all. That is MessageUndeliverable at once.
    """

    def __init__(self, client: typing.Any) -> None:
        self._client = client

    def prepare(self, **arguments: typing.Any) -> typing.Any:
        return self._client.prepare(
            timeout=cfg.CONF.rpc_response_timeout,
            transport_options=oslo_messaging.TransportOptions(
                at_least_once=True), **arguments)


def _rule(told: typing.Any) -> _Told:
    """Return a rule as others are told it, with its UUID and its group."""
    prefix = told.normalized_cidr or told.remote_ip_prefix
    return {
        **{name: getattr(told, name) for name in (
            'id', 'security_group_id', 'direction', 'ethertype', 'protocol',
            'port_range_min', 'port_range_max', 'remote_group_id',
            'remote_address_group_id')},
        securitygroups_rpc_base.DIRECTION_IP_PREFIX[told.direction]:
            prefix and str(prefix)}


def _parts(ports: typing.Collection[str],
           times: int = 1) -> typing.Iterator[list[str]]:
    """Yield as many at once as Neutron is to be asked for.

    :param times: so many times what is configured
    """
    every = sorted(ports)
    step = cfg.CONF.rpc_resources_processing_step * times
    for first in range(0, len(every), step):
        yield every[first:first + step]


def _add(info: _Told, more: _Told) -> None:
    """Have all that two answers say in the first."""
    for what in 'devices', 'security_groups':
        info[what].update(more[what])
    # Of each group there are those families only that were asked for.
    for group, members in more['sg_member_ips'].items():
        info['sg_member_ips'].setdefault(group, {}).update(members)
