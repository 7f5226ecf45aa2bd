# SPDX-License-Identifier: Apache-2.0

"""Hosts with tapmac-agent, of which the test does what the agent does.

It asks and tells what an agent asks and tells; there is no message queue
between them, see :mod:`tests.neutron.rpc`.
"""

import datetime
import pathlib
import sys
import typing

from tests import answering
from tests.neutron import base


class Server(answering.Program):
    """The part of a neutron-server that answers agents.

    :param configuration: the file of that server
    """

    def __init__(self, configuration: pathlib.Path) -> None:
        super().__init__(sys.executable, '-W', 'ignore', '-m',
                         'tests.neutron.rpc', configuration)

    def call(self, name: str, method: str, **passed: typing.Any) -> typing.Any:
        """Return what an agent is answered that calls this."""
        return self.ask([name, method, passed])


_shared: dict[base.Neutron, Server] = {}


class ServerTestCase(base.NeutronTestCase):
    """A test whose neutron-server answers agents, too."""

    @property
    def server(self) -> Server:
        if self.neutron not in _shared:
            _shared[self.neutron] = self.neutron.useFixture(
                Server(self.neutron.configuration))
        return _shared[self.neutron]


class AgentTestCase(ServerTestCase):
    """A test with hosts whose agent is alive.

    :cvar first, second: two of them
    """

    first, second = 'host3', 'host4'

    def setUp(self) -> None:
        super().setUp()
        for host in self.first, self.second:
            self.tapmac_agent(host)

    def tapmac_agent(self, host: str, *physnets: str) -> str:
        """Have an agent of ours that Neutron takes for alive; return its id.

        :param physnets: that it has bridges for; none: those of our driver
        """
        return self.agent('tapmac', host, bridge_mappings={
            physnet: 'br-of-' + physnet
            for physnet in physnets or ('physnet1', 'physnet2')})

    def kill_agent(self, host: str) -> None:
        """Have Neutron take an agent for dead."""
        self.neutron.database.execute(
            'UPDATE neutron.agents SET heartbeat_timestamp = "2020-01-01" '
            'WHERE host = %s', host)

    def report(self, host: str, *physnets: str) -> None:
        """Do what an agent does when it starts."""
        self.server.call(
            'agents', 'report_state',
            time=(datetime.datetime.now(datetime.timezone.utc)
                  + datetime.timedelta(days=1)).strftime(
                      '%Y-%m-%dT%H:%M:%S.%f'),
            agent_state={'agent_state': {
                'agent_type': 'tapmac agent', 'binary': 'tapmac-agent',
                'topic': 'N/A', 'host': host, 'start_flag': True,
                'configurations': {'bridge_mappings': {
                    physnet: 'br-of-' + physnet for physnet in physnets}}}})
        self.neutron.database.execute(
            'UPDATE neutron.agents SET heartbeat_timestamp = '
            'DATE_ADD(UTC_TIMESTAMP(), INTERVAL 1 DAY) WHERE host = %s', host)
        self.addCleanup(self.neutron.database.execute,
                        'DELETE FROM neutron.agents WHERE host = %s', host)

    def ask(self, port: typing.Any, host: str) -> typing.Any:
        """Return what an agent is told that asks for a port."""
        answer = self.server.call(
            'ports', 'get_devices_details_list_and_failed_devices',
            agent_id='demo', host=host,
            devices=[port['id']])
        self.assertEqual([], answer['failed_devices'])
        details, = answer['devices']
        return details

    def tell(self, port: typing.Any, host: str, what: str) -> None:
        """Have an agent say what has become of a port.

        :param what: "up" or "down"
        """
        passed = {'devices_up': [], 'devices_down': []}
        passed['devices_' + what].append(port['id'])
        answer = self.server.call('ports', 'update_device_list',
                                  agent_id='demo', host=host, **passed)
        self.assertEqual([], answer['failed_devices_' + what])

    def tell_dhcp(self, port: typing.Any) -> None:
        """Have a DHCP agent say that it knows a port."""
        self.server.call('dhcp', 'dhcp_ready_on_ports', port_ids=[port['id']])

    def plug(self, port: typing.Any, host: str, *heard: str) -> None:
        """Do what happens on a host where Nova plugs a port.

        :param heard: what Nova has heard of it by then
        """
        self.wait_for_events(port, *heard)
        # It is not the only one who has something to say.
        self.tell_dhcp(port)
        self.assertEqual('DOWN', self.show(port)['status'])
        self.assertEqual(port['id'], self.ask(port, host).get('port_id'))
        self.tell_dhcp(port)
        self.assertEqual('BUILD', self.show(port)['status'])
        self.update(port, name='renamed meanwhile')
        self.guard(port, host)
        self.assertEqual('ACTIVE', self.show(port)['status'])

    def guard(self, port: typing.Any, host: str) -> None:
        """Have an agent say that it guards a port now."""
        self.tell(port, host, 'up')

    def unplug(self, port: typing.Any, host: str) -> None:
        """Do what happens on a host whose TAP goes."""
        self.tell(port, host, 'down')

    def nudge(self) -> None:
        super().nudge()
        self.guard(self.port(self.nudged_network, self.second), self.second)

    def _wait_for_all_events(self) -> None:
        port = self.port(self.vlan_network(), self.second)
        self.guard(port, self.second)
        self.wait_for_events(port, 'vif-plugged')
        super()._wait_for_all_events()
