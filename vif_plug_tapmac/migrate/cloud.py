# SPDX-License-Identifier: Apache-2.0

"""What Neutron and Nova tell, and what they are asked to do."""

import argparse
import functools
import typing

import openstack
from openstack import exceptions

from vif_plug_tapmac import exception
from vif_plug_tapmac.migrate import ports

#: The name of ports that only try a host. They have no device.
_TRIAL = 'tapmac-migrate tries this host'


class Overtaken(Exception):
    """A port is not as it was when it was read: read it again."""


class Trial(typing.NamedTuple):
    """What became of a port that only tried a network on a host.

    :ivar becomes: how it was bound; None: it was not
    :ivar refusal: why it was not, with who must act
    """

    becomes: ports.Binding | None
    refusal: str | None = None


class Cloud:
    """One cloud, as an administrator."""

    def __init__(self, connection: typing.Any) -> None:
        self._network = connection.network
        self._compute = connection.compute

    def ports(self, host: str | None = None,
              **query: typing.Any) -> list[typing.Any]:
        """Return the ports that have a host.

        :param host: they have this one; None: any
        """
        if host is not None:
            query['binding:host_id'] = host
        found = [port for port in self._network.ports(**query)
                 if port.binding_host_id]
        if not found and not self._sees_all():
            raise exception.TapMacError(
                'Neutron shows no bindings of ports to this user. The '
                'operator must use one with the roles admin and service.')
        return sorted(found, key=lambda port: (port.binding_host_id, port.id))

    def _sees_all(self) -> bool:
        """Return whether ports are shown to us with their bindings."""
        seen = next(iter(self._network.ports(limit=1)), None)
        return seen is None or seen.binding_vif_type is not None

    def port(self, port_id: str) -> typing.Any | None:
        """Return a port as it is now, None if it is gone."""
        try:
            return self._network.get_port(port_id)
        except exceptions.NotFoundException:
            return None

    @functools.cached_property
    def networks(self) -> dict[str, typing.Any]:
        return {network.id: network for network in self._network.networks()}

    def hosts_beside(self, port: typing.Any) -> tuple[str, ...]:
        """Return on which other hosts a port has a binding."""
        response = self._network.get('/ports/%s/bindings' % port.id)
        if response.status_code == 404:
            # The port is gone, or Neutron has no such extension.
            return ()
        exceptions.raise_from_response(response)
        return tuple(sorted(
            binding['host'] for binding in response.json()['bindings']
            if binding['host'] != port.binding_host_id))

    def hosts_with_agent(self) -> set[str]:
        """Return where Neutron's Linux bridge agent is alive."""
        return {agent.host for agent in self._network.agents(
            agent_type='Linux bridge agent') if agent.is_alive}

    def tapmac_agent(self, host: str) -> str:
        """Return how tapmac-agent of a host is, as the end of a sentence."""
        found = next(iter(self._network.agents(agent_type='tapmac agent',
                                               host=host)), None)
        if found is None:
            return 'has never reported itself'
        return ('is alive: its log says why' if found.is_alive else
                'has not reported itself since %s' % found.last_heartbeat_at)

    def set_profile(self, port: typing.Any, profile: dict[str, typing.Any],
                    ) -> typing.Any:
        """Change the profile of a port, which has Neutron bind it anew.

        :returns: the port as it is then
        :raises Overtaken: somebody changed the port; it is as that one left it
        """
        try:
            self._network.update_port(
                port.id, if_revision=port.revision_number,
                binding_profile=profile)
            # Not each Neutron answers with the driver, too.
            return self._network.get_port(port.id)
        except exceptions.PreconditionFailedException as error:
            raise Overtaken(str(error)) from error

    def try_host(self, network_id: str, host: str) -> Trial:
        """Have a port bound on a host that is of no use else, and delete it.

        It has no address. What a call left that was killed goes, too.
        """
        for left in self._network.ports(
                name=_TRIAL, **{'binding:host_id': host}):
            self._network.delete_port(left)
        try:
            made = self._network.create_port(
                name=_TRIAL, network_id=network_id, binding_host_id=host,
                device_owner='compute:nova', fixed_ips=[],
                security_group_ids=[])
        except exceptions.ForbiddenException:
            raise
        except exceptions.HttpException as error:
            return Trial(None, 'Neutron made no port to try its host: %s'
                         % details(error))
        # Not each Neutron answers with the driver, too.
        found = ports.Binding.of(self._network.get_port(made.id))
        self._network.delete_port(made)
        if found.vif_type in ('unbound', 'binding_failed'):
            return Trial(None, 'no mechanism driver binds ports of network %s '
                         'on %s: the operator must look at [ml2_tapmac] hosts '
                         'and bridge_mappings, whether tapmac-agent is alive '
                         'if it is to be there, and at neutron-server\'s log'
                         % (network_id, host))
        return Trial(found)

    @functools.cached_property
    def nova(self) -> tuple[int, ...] | None:
        """The newest microversion of nova-api."""
        data = self._compute.get_endpoint_data()
        return None if data is None else data.max_microversion

    def servers(self, host: str | None = None) -> dict[str, typing.Any]:
        """Return the servers of a host, or of all, by id."""
        query = {} if host is None else {'compute_host': host}
        return {server.id: server for server in
                self._compute.servers(all_projects=True, **query)}

    def interfaces(self, server_id: str) -> dict[str, str]:
        """Return which ports Nova takes for a server's, and their state."""
        try:
            return {found.port_id: found.port_state for found in
                    self._compute.server_interfaces(server_id)}
        except exceptions.NotFoundException:
            return {}

    def look_again(self, events: typing.Iterable[tuple[str, str]],
                   ) -> dict[str, str]:
        """Have Nova ask Neutron how ports are bound.

        :param events: servers and ports
        :returns: which port it will not, and why
        """
        given = [{'name': 'network-changed', 'server_uuid': server,
                  'tag': port} for server, port in events]
        response = self._compute.post('/os-server-external-events',
                                      json={'events': given})
        if response.status_code == 404:
            return {event['tag']: 'it knows no such server'
                    for event in given}
        exceptions.raise_from_response(response)
        return {event['tag']: 'it says %s (%s)' % (
            event['status'], event['code'])
            for event in response.json()['events'] if event['code'] != 200}


def details(error: exceptions.HttpException) -> str:
    """Return what an API said, as one sentence without its full stop."""
    return str(error.details or error).strip().rstrip('.')


def connect(options: argparse.Namespace | None) -> Cloud:
    """Return the cloud of the environment (OS_*) or of clouds.yaml.

    :raises TapMacError: there is none
    """
    try:
        return Cloud(openstack.connect(
            cloud=options and options.os_cloud, app_name='tapmac-migrate'))
    except Exception as error:
        raise exception.TapMacError(
            'There is no cloud to ask: %s. The operator must name one of '
            'clouds.yaml with --os-cloud, or set OS_* as for "openstack".'
            % str(error).rstrip('.')) from error
