# SPDX-License-Identifier: Apache-2.0

"""Which ports are bound, how, and what Nova hears of them."""

from concurrent import futures

from tests import base as tests_base
from tests import bound_port
from tests.neutron import base
from tests import patience

#: What nobody but another driver could bind.
OTHER_VNIC_TYPES = (
    'direct', 'macvtap', 'baremetal', 'direct-physical', 'virtio-forwarder',
    'smart-nic', 'vdpa', 'accelerator-direct',
    'accelerator-direct-physical', 'remote-managed')


class BindingTest(base.NeutronTestCase):

    def assert_bound(self, port, bridge):
        self.assertEqual(
            ('ovs', bridge, 'ACTIVE'),
            (port['binding:vif_type'],
             port['binding:vif_details'].get('bridge_name'), port['status']))

    def assert_left_to_others(self, port):
        self.assertEqual(('binding_failed', 'DOWN'),
                         (port['binding:vif_type'], port['status']))

    def test_port_is_what_tests_of_nova_are_given(self):
        port = self.port(self.flat_network())
        self.assertEqual(bound_port.BINDING, {
            name: port[name] for name in bound_port.BINDING})
        self.assertLess(set(bound_port.PORT), set(port))
        self.assertEqual(port, dict(
            self.show(port), revision_number=port['revision_number'],
            updated_at=port['updated_at']))

    def test_network_is_what_tests_of_nova_are_given(self):
        network = self.flat_network(mtu=1450)
        self.assertEqual(
            dict(bound_port.NETWORK, id=network['id']),
            {name: network[name] for name in bound_port.NETWORK})

    def test_flat_networks(self):
        for physnet, bridge in (('physnet1', 'br100'), ('physnet2', 'br200')):
            port = self.port(self.flat_network(physnet))
            self.assert_bound(port, bridge)

    def test_vlans(self):
        for physnet, vlan, bridge in (
                ('physnet1', 1, 'br100-1'), ('physnet1', 4094, 'br100-4094'),
                ('physnet2', 4094, 'br200-4094')):
            self.assert_bound(self.port(self.vlan_network(vlan, physnet)),
                              bridge)

    def test_hosts_whose_nova_is_older_than_33(self):
        network = self.vlan_network(78)
        port = self.port(network, host='host9')
        self.assertEqual(
            ('bridge', 'br100-78', False, 'ACTIVE'), (
                port['binding:vif_type'],
                port['binding:vif_details']['bridge_name'],
                port['binding:vif_details']['port_filter'], port['status']))
        self.assertNotIn('ovs_create_tap', port['binding:vif_details'])
        # To a host whose Nova is newer, and back.
        self.assert_bound(self.update(
            port, **{'binding:host_id': 'host1'}), 'br100-78')
        self.assertEqual('bridge', self.bind_second(port, 'host9')['vif_type'])
        self.activate(port, 'host9')
        found = self.show(port)
        self.assertEqual(('host9', 'bridge', 'ACTIVE'), (
            found['binding:host_id'], found['binding:vif_type'],
            found['status']))
        self.assert_refused(
            'on host host9', request=lambda: self.update(
                port, admin_state_up=False))

    def test_port_with_an_address(self):
        network = self.vlan_network(79)
        self.create('subnet', network_id=network['id'], ip_version=4,
                    cidr='192.0.2.0/24', enable_dhcp=False)
        made = self.port(network, fixed_ips=[{'ip_address': '192.0.2.9'}])
        self.assert_bound(made, 'br100-79')

    def test_dhcp_without_an_agent(self):
        port = self.dhcp_port()
        self.assert_bound(port, 'br100-81')
        self.assert_no_dhcp(port)

    def test_dhcp_with_an_agent(self):
        """Nobody waits for it; it is ours to set the port ACTIVE."""
        self.ovs_agent('network1')
        agent = self.agent('DHCP', 'network1')
        port = self.dhcp_port()
        self.assert_bound(port, 'br100-81')
        agents = self.neutron.request(
            'GET', 'networks/%s/dhcp-agents' % port['network_id'])['agents']
        self.assertEqual([agent], [found['id'] for found in agents])

    def test_dhcp_agents_that_do_not_reach_a_network(self):
        """Another wire, or none; and we have nobody to plug their ports."""
        self.ovs_agent('network2', 'physnet2')
        for host in 'network2', 'network3', 'host1':
            self.agent('DHCP', host)
        port = self.dhcp_port()
        self.assert_bound(port, 'br100-81')
        self.assertEqual([], self.neutron.request(
            'GET', 'networks/%s/dhcp-agents' % port['network_id'])['agents'])

    def dhcp_port(self):
        network = self.vlan_network(81)
        self.create('subnet', network_id=network['id'], ip_version=4,
                    cidr='192.0.2.0/24', enable_dhcp=True)
        made = self.port(network, fixed_ips=[{'ip_address': '192.0.2.9'}])
        return self.show(made)

    def assert_no_dhcp(self, port):
        self.assertEqual([], self.neutron.request(
            'GET', 'ports?device_owner=network:dhcp&network_id='
            + port['network_id'])['ports'])

    def test_segment_that_is_ours_among_others(self):
        network = self.create('network', name='demo', segments=[
            {'provider:network_type': 'vxlan',
             'provider:segmentation_id': 5},
            {'provider:network_type': 'vlan',
             'provider:physical_network': 'physnet2',
             'provider:segmentation_id': 77}])
        self.assert_bound(self.port(network), 'br200-77')

    def test_what_is_not_ours(self):
        before = len(self.neutron.log())
        unknown = self.vlan_network(physnet='physnet3')
        tunnel = self.create('network', name='demo', **{
            'provider:network_type': 'vxlan', 'provider:segmentation_id': 6})
        ours = self.vlan_network()
        for port in (self.port(unknown), self.port(tunnel),
                     self.port(ours, host='elsewhere'),
                     self.port(ours, device_owner='trunk:subport')):
            self.assert_left_to_others(port)
        self.assertNotIn('vif_plug_tapmac', self.neutron.log()[before:])

    def test_other_vnic_types(self):
        network = self.vlan_network()
        for kind in OTHER_VNIC_TYPES:
            # Neutron itself fails on direct-physical without a profile.
            self.assert_left_to_others(self.port(network, **{
                'binding:vnic_type': kind,
                'binding:profile': {'pci_slot': '0000:00:00.1'}}))

    def test_ports_of_network_nodes(self):
        """An agent plugs them, and we have none; another driver may."""
        network = self.vlan_network()
        for owner in 'network:dhcp', 'network:router_gateway':
            self.assert_left_to_others(self.port(network, device_owner=owner))
        self.ovs_agent('host1')
        for owner, bridge in (('network:dhcp', 'br-int'),
                              ('compute:nova', bound_port.base.BRIDGE)):
            port = self.port(network, device_owner=owner)
            self.assertEqual('ovs', port['binding:vif_type'])
            self.assertTrue(port['binding:vif_details']['bridge_name']
                            .startswith(bridge))

    def test_host_that_seems_to_be_meant(self):
        network = self.vlan_network()
        for host in 'host1.example.org', 'HOST2', 'elsewhere':
            for _ in range(2):
                self.assert_left_to_others(self.port(network, host=host))
        for host, times in (('host1.example.org', 1), ('HOST2', 1),
                            ('elsewhere', 0)):
            # Each process says it once.
            self.assertIn(self.neutron.log().count(
                'tapmac binds no ports on host %s: it differs from host? of '
                '[ml2_tapmac] hosts by case or domain only.' % host),
                range(times, times * base.PROCESSES + 1), host)

    def test_after_a_restart(self):
        network = self.vlan_network(80)
        port = self.port(network)
        self.neutron.restart(
            hosts='host2*', bridge_hosts='host2', rpc_workers='0',
            transport_url='rabbit://nobody@127.0.0.1:9/')
        try:
            self.assert_bound(self.show(port), 'br100-80')
            self.assert_bound(self.port(network, 'host2.example.org'),
                              'br100-80')
            self.assertIn(
                'tapmac binds ports as ovs on host host2.example.org: it '
                'differs from host2 of [ml2_tapmac] bridge_hosts by case or '
                'domain only.', self.neutron.log())
            failed = self.port(network)
            self.assert_left_to_others(failed)
            # Who talks to no agent needs no message queue.
            self.assertNotIn('impl_rabbit', self.neutron.log())
        finally:
            self.neutron.restart()
        # It does not heal by itself.
        self.assert_left_to_others(self.show(failed))
        for each in failed, port:
            self.assert_bound(self.update(each, name='renamed'), 'br100-80')

    def test_availability_zones(self):
        """They are those of agents; Nova's are none of Neutron's business."""
        refused = self.assertRaises(
            base.Refused, self.vlan_network,
            availability_zone_hints=['zone1'])
        self.assertEqual((404, 'AvailabilityZoneNotFound'),
                         (refused.status, refused.type))
        self.assertEqual([], self.vlan_network()['availability_zones'])

    def test_said_at_start(self):
        self.assertIn(
            'vif_plug_tapmac.ml2.driver', self.neutron.log())
        what = 'security groups, port security and allowed address pairs on '
        self.assertIn(
            'tapmac binds ports on hosts host? for physnet1:br100,'
            'physnet2:br200. ' + (
                'tapmac-agent enforces %shosts host[3457] of them '
                '(port_filter is true), and nothing does on others.'
                if base.AGENT_HOSTS else
                'Nothing enforces %sthem (port_filter is false).') % what,
            self.neutron.log())


class LinuxBridgeAgentTest(base.NeutronTestCase):
    """Beside the driver linuxbridge, host by host. Up to Neutron 25."""

    def assert_theirs(self, port):
        port = self.show(port)
        details = port['binding:vif_details']
        self.assertEqual(
            ('bridge', {'0': 'linuxbridge'}, True, 'DOWN'), (
                port['binding:vif_type'], details['bound_drivers'],
                details['port_filter'], port['status']))
        self.assertNotIn('bridge_name', details)

    def assert_ours(self, port, host):
        port = self.show(port)
        self.assertEqual(
            (host, 'ovs', {'0': 'tapmac'}, 'ACTIVE'), (
                port['binding:host_id'], port['binding:vif_type'],
                port['binding:vif_details']['bound_drivers'],
                port['status']))

    def test_each_host_has_its_driver(self):
        network = self.vlan_network()
        self.linux_bridge_agent('old1')
        self.assert_theirs(self.port(network, 'old1'))
        self.assert_ours(self.port(network, 'host1'), 'host1')

    def test_what_is_theirs_is_not_refused(self):
        policy = self.create('policy', name='demo')['id']
        network = self.vlan_network()
        self.linux_bridge_agent('old1')
        self.assert_theirs(self.port(
            network, 'old1', admin_state_up=False, qos_policy_id=policy))
        self.neutron.request('PUT', 'networks/' + network['id'], {
            'network': {'qos_policy_id': policy}})

    def test_host_comes_to_us(self):
        """Theirs is named first, so it has a host until its agent goes."""
        agent = self.linux_bridge_agent('host1')
        port = self.port(self.vlan_network())
        self.assert_theirs(port)
        self.neutron.request('DELETE', 'agents/' + agent)
        self.assert_theirs(self.update(port, name='renamed'))
        self.assert_ours(self.update(port, **{
            'binding:profile': {'touched': 'now'}}), 'host1')
        self.assert_events(port, 'vif-plugged')


class EventsTest(base.NeutronTestCase):
    """What nova-compute waits for comes, and comes once.

    Without an agent nobody says what happens on a host.

    :cvar first, second: two hosts
    :cvar has_agent: whether ports are guarded there
    """

    first, second = 'host1', 'host2'
    has_agent = False

    def plug(self, port, host, *heard):
        """Do what happens on a host where Nova plugs a port.

        :param heard: what Nova has heard of it by then, if somebody is there
            who tells when it is plugged
        """

    def guard(self, port, host):
        """Do no more than to have the port be ACTIVE."""

    def unplug(self, port, host):
        """Do what happens on a host whose TAP goes."""

    def unbind(self, port, host):
        self.neutron.request('DELETE',
                             'ports/%s/bindings/%s' % (port['id'], host))

    def assert_active_on(self, host, port):
        found = self.show(port)
        self.assertEqual((host, 'ovs', 'ACTIVE', self.has_agent), (
            found['binding:host_id'], found['binding:vif_type'],
            found['status'], found['binding:vif_details']['port_filter']))

    def boot(self, network=None):
        """Return the port of a server that has started, as Nova has heard."""
        port = self.port(network or self.vlan_network(), self.first)
        self.plug(port, self.first)
        self.assert_active_on(self.first, port)
        self.wait_for_events(port, 'vif-plugged')
        return port

    def test_boot(self):
        """Nova creates the port with its host, and waits for the event."""
        self.assert_events(self.boot(), 'vif-plugged')

    def test_boot_with_a_port_that_was_there(self):
        port = self.port(self.vlan_network(), host=None)
        self.update(port, **{'binding:host_id': self.first})
        self.plug(port, self.first)
        self.assert_active_on(self.first, port)
        self.assert_events(port, 'vif-plugged')

    def test_reboot_and_rebuild(self):
        """The TAP is made anew, and the port is where it was."""
        port = self.boot()
        heard = ['vif-plugged']
        for _ in range(2):
            self.unplug(port, self.first)
            if self.has_agent:
                heard.append('vif-unplugged')
            self.plug(port, self.first, *heard)
            self.assert_active_on(self.first, port)
            if self.has_agent:
                heard.append('vif-plugged')
        self.assert_events(port, *heard)

    def move(self, port, *hosts, change=None):
        """Have Nova take a port to these hosts, one after the other.

        Without a live migration.
        """
        heard = ['vif-plugged']
        for host in hosts:
            if change:
                change()
                # Another process may answer what comes next, and be sooner.
                self.wait_for_events(port, *heard, 'vif-unplugged')
            self.update(port, **{'binding:host_id': host})
            # Whoever it left may say so late.
            self.unplug(port, self.first if host != self.first
                        else self.second)
            self.plug(port, host, *heard, 'vif-unplugged')
            self.assert_active_on(host, port)
            heard += ['vif-unplugged', 'vif-plugged']
            self.wait_for_events(port, *heard)
        self.assert_events(port, *heard)

    def test_resize_and_revert(self):
        """Nova moves the port to the other host, and back."""
        self.move(self.boot(), self.second, self.first)

    def test_shelve_and_unshelve(self):
        """It is on no host in between."""
        port = self.boot()
        self.move(port, self.second, change=lambda: self.update(
            port, **{'binding:host_id': '', 'binding:profile': {}}))

    def test_profile_that_changes(self):
        """As before a live migration: Neutron binds it anew where it is."""
        port = self.boot()
        self.update(port, **{'binding:profile': {'migrating_to': 'host2'}})
        self.plug(port, self.first, 'vif-plugged', 'vif-unplugged')
        self.assert_active_on(self.first, port)
        self.assert_events(port, 'vif-plugged', 'vif-unplugged',
                           'vif-plugged')

    def test_live_migration(self):
        port = self.boot(self.flat_network())
        second = self.bind_second(port, self.second)
        self.assertEqual(
            ('INACTIVE', 'ovs', dict({
                name: value for name, value in
                bound_port.BINDING['binding:vif_details'].items()
                if name != 'bound_drivers'}, port_filter=self.has_agent)),
            (second['status'], second['vif_type'], second['vif_details']))
        self.activate(port, self.second)
        self.plug(port, self.second, 'vif-plugged', 'vif-unplugged')
        self.assert_active_on(self.second, port)
        self.unplug(port, self.first)
        self.unbind(port, self.first)
        self.assert_active_on(self.second, port)
        self.assert_events(port, 'vif-plugged', 'vif-unplugged',
                           'vif-plugged')

    def test_rollback_of_a_live_migration(self):
        port = self.boot()
        for _ in range(2):
            self.bind_second(port, self.second)
            self.unplug(port, self.second)
            self.unbind(port, self.second)
        self.assert_active_on(self.first, port)
        self.assert_events(port, 'vif-plugged')

    def test_source_activated_again(self):
        """Neutron has unbound it, and binds it with the next update."""
        port = self.boot()
        self.bind_second(port, self.second)
        self.activate(port, self.second)
        self.plug(port, self.second, 'vif-plugged', 'vif-unplugged')
        heard = ['vif-plugged', 'vif-unplugged', 'vif-plugged']
        self.assert_events(port, *heard)
        self.activate(port, self.first)
        found = self.show(port)
        self.assertEqual((self.first, 'unbound', 'DOWN'), (
            found['binding:host_id'], found['binding:vif_type'],
            found['status']))
        heard.append('vif-unplugged')
        self.assert_events(port, *heard)
        self.update(port, **{'binding:host_id': self.first})
        self.plug(port, self.first, *heard)
        self.assert_active_on(self.first, port)
        self.assert_events(port, *heard, 'vif-plugged')

    def test_second_binding_elsewhere_fails(self):
        port = self.boot()
        refused = self.assertRaises(base.Refused, self.bind_second, port,
                                    'elsewhere')
        self.assertEqual('PortBindingError', refused.type)
        self.assert_active_on(self.first, port)

    def test_update_is_no_event_of_plugging(self):
        port = self.boot()
        self.update(port, name='renamed')
        self.assert_events(port, 'vif-plugged')

    def test_many_in_one_request(self):
        network = self.vlan_network()
        made = self.neutron.request('POST', 'ports', {'ports': [
            {'network_id': network['id'], 'project_id': 'demo',
             'device_owner': 'compute:nova',
             'device_id': tests_base.INSTANCE.uuid,
             'binding:host_id': self.first} for _ in range(20)]})['ports']
        for port in made:
            self.addCleanup(self._delete, 'ports/' + port['id'])
        self.assert_each_is_plugged_once(made)

    def test_many_at_once(self):
        network = self.vlan_network()
        ports = [self.port(network, host=None) for _ in range(30)]
        with futures.ThreadPoolExecutor(10) as threads:
            bound = list(threads.map(
                lambda port: self.update(port, **{
                    'binding:host_id': self.first}), ports))
        self.assert_each_is_plugged_once(bound)

    def assert_each_is_plugged_once(self, ports):
        for port in ports:
            self.guard(port, self.first)
            self.assert_active_on(self.first, port)
        self.assert_events(ports[-1], 'vif-plugged')
        for port in ports:
            self.assertEqual(['vif-plugged'],
                             self.neutron.nova.events(port['id']))


def load_tests(loader, tests, pattern):
    """Leave out what this Neutron has not: nothing is skipped."""
    return base.without(tests, *(
        [LinuxBridgeAgentTest] if base.NEUTRON > 25
        else [] if patience.LONG else [EventsTest]))
