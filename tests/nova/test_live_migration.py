# SPDX-License-Identifier: Apache-2.0

"""Live migrations between a host of Neutron's Linux bridge agent and ours.

Nova and Neutron 25 are real; libvirt is the stand-in of
:mod:`tests.nova.libvirt_contract`. Of the agent there is what it leaves to
others: its bridge, and that it is alive.
"""

import importlib.util
import os
import unittest

import fixtures
import os_vif

from tests.nova import base as nova_base
from tests.nova import cloud
from tests.nova import test_flows
from tests.nova import test_neutron

_AGENT = """
INSERT INTO neutron.agents (id, agent_type, `binary`, topic, host, created_at,
started_at, heartbeat_timestamp, configurations) VALUES (
'7f5c1a2e-0000-4000-8000-000000000000', 'Linux bridge agent', 'demo', 'demo',
'host1', UTC_TIMESTAMP(), UTC_TIMESTAMP(),
DATE_ADD(UTC_TIMESTAMP(), INTERVAL 1 DAY),
'{"interface_mappings": {"physnet1": "eth1"}}')
"""


class OldKindTest(test_neutron.WithNeutron, test_flows.Guests,
                  cloud.BridgeCloud):
    """host1 has the agent and os-vif's own plugin, host2 has tapmac."""

    OPTIONS = {'claim_plugins': ['linux_bridge']}
    LIBVIRT_MAKES_TAP = True
    NEUTRON = 25
    ML2_TAPMAC = """
hosts = host2
bridge_hosts = *
flat_bridge = brq{network}
[ml2]
mechanism_drivers = tapmac,linuxbridge
"""
    mtu = 1450

    def _load_plugins(self):
        # Nova up to 33 comes with an os-vif that has it.
        from vif_plug_linux_bridge import privsep
        privsep.vif_plug.set_client_mode(False)
        os_vif.initialize(reset=True)
        theirs = os_vif._EXT_MANAGER
        super()._load_plugins()
        ours = os_vif._EXT_MANAGER

        def of_this_host(call):
            def call_there(*arguments):
                os_vif._EXT_MANAGER = theirs if self._is_on('host1') else ours
                return call(*arguments)
            return call_there

        for name in 'plug', 'unplug':
            self.useFixture(fixtures.MonkeyPatch(
                'os_vif.' + name, of_this_host(getattr(os_vif, name))))

    def _is_on(self, host):
        return os.path.samestat(os.stat('/proc/thread-self/ns/net'),
                                os.fstat(self.hosts[host].namespace))

    def boot_bound(self, host):
        """Boot a guest with a port of its own."""
        return self._create_server(networks=[{'port': self.port['id']}],
                                   host=host)

    def assert_here(self, server, host, driver, bridge=None):
        """Expect a guest there, and its port bound there alone.

        :param bridge: as the binding has it
        """
        self.server = server
        self.assertEqual([(host, 'ACTIVE', 'bridge', bridge)],
                         self.bindings())
        self.assertEqual({'0': driver}, self.client.show_port(
            self.port['id'])['port']['binding:vif_details']['bound_drivers'])
        name = bridge or self.bridge
        self.assert_runs(host, master=name)
        interface = self.interface(host)
        self.assertEqual(('bridge', name), (
            interface.get('type'), interface.find('source').get('bridge')))

    def test_there_and_back(self):
        """And where the bridges are called otherwise, not a step."""
        self.server_of_neutron.execute(' '.join(_AGENT.split()))
        self.create_port(network_type='flat', physical_network='physnet1')
        self.bridge = 'brq' + self.network['id'][:11]
        self.hosts['host1'].add(self.bridge, 'bridge', br_forward_delay=0)
        self.hosts['host1'].set(self.bridge, state='up')
        self.start_compute('host2')
        server = self.boot_bound('host1')
        self.assert_here(server, 'host1', 'linuxbridge')

        self.calls.clear()
        self._live_migrate(server)
        self.assert_calls('host2 plug', 'host1 get_config', 'host1 unplug')
        self.assert_gone('host1')
        self.assert_here(server, 'host2', 'tapmac', self.bridge)
        self.assertEqual('ACTIVE', self.client.show_port(
            self.port['id'])['port']['status'])

        self._live_migrate(server)
        self.assert_gone('host2')
        self.assert_here(server, 'host1', 'linuxbridge')

        self.server_of_neutron.restart(flat_bridge='{bridge}')
        self.assert_declined(
            server, self.port, 'host2', 'tapmac does not bind port %s on host '
            'host2 beside its binding on host1: Nova would have it plugged '
            'into the bridge of that binding, %s, and here it is br100'
            % (self.port['id'], self.bridge))
        self.assert_here(server, 'host1', 'linuxbridge')
        self._delete_server(server)

        server = self.boot_bound('host2')
        self.assert_here(server, 'host2', 'tapmac', 'br100')
        self.assert_declined(
            server, self.port, 'host1', 'tapmac has no other driver bind port '
            '%s on host host1 beside its binding on host2: Nova would have it '
            'plugged into the bridge of that binding, br100, and there it is '
            '%s' % (self.port['id'], self.bridge))
        self.assert_here(server, 'host2', 'tapmac', 'br100')
        self._delete_server(server)


def load_tests(loader, tests, pattern):
    """Load them where both kinds of hosts may be; nothing is to be skipped."""
    # os-vif 5 has no linux_bridge any more.
    if nova_base.NOVA != 33 or not importlib.util.find_spec(
            'vif_plug_linux_bridge'):
        return unittest.TestSuite()
    return loader.loadTestsFromTestCase(OldKindTest)
