# SPDX-License-Identifier: Apache-2.0

"""Ports where tapmac-agent is: bound while it lives, ACTIVE by its word."""

from oslo_config import cfg

from tests import base as tests_base
from tests.neutron import agents
from tests.neutron import base
from tests.neutron import test_binding
from tests import patience
from vif_plug_tapmac.ml2 import agents as ml2_agents
from vif_plug_tapmac.ml2 import driver
from vif_plug_tapmac.ml2 import exception
from vif_plug_tapmac.ml2 import opts


class AgentEventsTest(agents.AgentTestCase, test_binding.EventsTest):
    """Each thing that happens to a server, with an agent on both hosts."""

    first, second = agents.AgentTestCase.first, agents.AgentTestCase.second
    has_agent = True

    def test_evacuation(self):
        """The agent of the host that is dead says nothing."""
        port = self.boot()
        self.kill_agent(self.first)
        self.update(port, **{'binding:host_id': self.second})
        self.plug(port, self.second, 'vif-plugged', 'vif-unplugged')
        self.assert_active_on(self.second, port)
        self.assert_events(port, 'vif-plugged', 'vif-unplugged',
                           'vif-plugged')

    def test_arrival(self):
        """The target's agent is told nothing before the activation."""
        port = self.boot()
        self.bind_second(port, self.second)
        self.assertTrue(self.ask(port, self.second)['no_active_binding'])
        self.assert_active_on(self.first, port)

    def test_to_a_host_without_an_agent_and_back(self):
        """There it is ACTIVE when it is bound, and nothing is left of this."""
        port = self.port(self.vlan_network(), self.first)
        heard = []
        for bind in (lambda host: self.update(port, **{
                'binding:host_id': host}), self.migrate_live(port)):
            bind('host1')
            found = self.show(port)
            self.assertEqual(('host1', 'ACTIVE', False), (
                found['binding:host_id'], found['status'],
                found['binding:vif_details']['port_filter']))
            heard.append('vif-plugged')
            self.wait_for_events(port, *heard)
            bind(self.first)
            heard.append('vif-unplugged')
            self.plug(port, self.first, *heard)
            self.assert_active_on(self.first, port)
            heard.append('vif-plugged')
            # Another process answers what comes next, and may be sooner.
            self.wait_for_events(port, *heard)
            heard.append('vif-unplugged')

    def migrate_live(self, port):
        def bind(host):
            former = self.show(port)['binding:host_id']
            self.bind_second(port, host)
            self.activate(port, host)
            self.unbind(port, former)
        return bind


class BindingTest(agents.AgentTestCase):
    """Which ports are bound where an agent is to be, and how.

    :cvar other: a host that is to have an agent, and has none yet
    """

    other = 'host5'

    def assert_bound(self, port, bridge, host=None):
        self.assertEqual(
            (host or self.first, 'ovs', bridge, True, 'DOWN'), (
                port['binding:host_id'], port['binding:vif_type'],
                port['binding:vif_details'].get('bridge_name'),
                port['binding:vif_details'].get('port_filter'),
                port['status']))

    def assert_left_to_others(self, port, *words):
        """Expect that a port is not bound, and these words of why not."""
        self.assertEqual(('binding_failed', 'DOWN'),
                         (port['binding:vif_type'], port['status']))
        said = [line for line in self.neutron.log().splitlines()
                if port['id'] in line and 'vif_plug_tapmac' in line]
        # Once in the one request that there was, though Neutron tries again.
        self.assertEqual(1 if words else 0, len(said), said)
        for word in words:
            self.assertEqual(1, said[-1].count(word), said)

    def bridge_of(self, network, bridge='br100'):
        return '%s-%d' % (bridge, network['provider:segmentation_id'])

    def test_agent_that_is_not_there_or_dead(self):
        network = self.vlan_network()
        port = self.port(network, self.other)
        self.assert_left_to_others(
            port, 'tapmac does not bind port', 'no tapmac-agent of that host '
            'has ever reported itself. Remedy: the operator must start it')
        self.tapmac_agent(self.other)
        self.assert_bound(self.update(port, name='renamed'),
                          self.bridge_of(network), self.other)
        self.kill_agent(self.other)
        # What is bound stays so; what nobody would guard is not bound.
        self.assert_bound(self.update(port, name='again'),
                          self.bridge_of(network), self.other)
        self.assert_left_to_others(
            self.port(network, self.other), 'its tapmac-agent has not '
            'reported itself since 2020-01-01 00:00:00. Remedy: the operator '
            'must start it there.')
        at_home = self.port(network, self.first)
        refused = self.assertRaises(base.Refused, self.bind_second, at_home,
                                    self.other)
        self.assertEqual('PortBindingError', refused.type)
        self.assert_bound(self.show(at_home), self.bridge_of(network))

    def test_physical_network_that_an_agent_has_not(self):
        self.tapmac_agent(self.other, 'physnet2', 'physnet7')
        network = self.vlan_network(physnet='physnet2')
        self.assert_bound(self.port(network, self.other),
                          self.bridge_of(network, 'br200'), self.other)
        self.assert_left_to_others(
            self.port(self.vlan_network(), self.other), 'its tapmac-agent has '
            'no bridge for physnet1 in its bridge_mappings. Remedy: ')

    def test_segment_that_an_agent_has(self):
        self.tapmac_agent(self.other, 'physnet2')
        network = self.create('network', name='demo', segments=[
            {'provider:network_type': 'vlan',
             'provider:physical_network': 'physnet%d' % number,
             'provider:segmentation_id': 90 + number} for number in (1, 2)])
        self.assert_bound(self.port(network, self.first), 'br100-91')
        self.assert_bound(self.port(network, self.other), 'br200-92',
                          self.other)

    def test_other_driver_where_no_agent_is(self):
        network = self.vlan_network()
        policy = self.create('policy', name='demo')['id']
        self.ovs_agent(self.other)
        for fields in {}, {'qos_policy_id': policy}:
            self.assertEqual('br-int', self.port(
                network, self.other, **fields)['binding:vif_details'][
                    'bridge_name'])

    def test_what_is_refused(self):
        """What the agent does not do either; nothing that it does."""
        network = self.vlan_network()
        policy = self.create('policy', name='demo')['id']
        subnet = self.create('subnet', network_id=network['id'], ip_version=4,
                             cidr='192.0.2.0/24')['id']
        # It is in full_hosts, too.
        self.tapmac_agent('host7')
        for host in self.first, 'host7':
            port = self.port(network, host, fixed_ips=[
                {'subnet_id': subnet}])
            for words, fields in (
                    ('QoS policy', {'qos_policy_id': policy}),
                    ('admin_state_up', {'admin_state_up': False})):
                self.assert_refused(
                    port['id'], 'on host ' + host, words,
                    request=lambda: self.update(port, **fields))
            self.update(port, allowed_address_pairs=[
                {'ip_address': '192.0.2.99'}])
            self.update(port, fixed_ips=[
                {'subnet_id': subnet}, {'subnet_id': subnet}])
            self.update(port, allowed_address_pairs=[], security_groups=[],
                        port_security_enabled=False)
            self._delete('ports/' + port['id'])
        parent = self.port(network, host=None)
        self.create('trunk', port_id=parent['id'])
        self.assert_refused(
            parent['id'], 'trunk ', request=lambda: self.update(
                parent, **{'binding:host_id': self.first}))
        self.update(parent, **{'binding:host_id': ''})

    def test_ports_of_neutron_itself(self):
        network = self.vlan_network()
        for owner in ('network:dhcp', 'network:router_gateway',
                      'network:router_interface',
                      'network:router_ha_interface',
                      'network:ha_router_replicated_interface'):
            port = self.port(network, self.first, device_owner=owner)
            self.assert_bound(port, self.bridge_of(network))
            self.guard(port, self.first)
            self.assertEqual('ACTIVE', self.show(port)['status'])
            for host in 'host1', self.other:
                self.assert_left_to_others(self.port(
                    network, host, device_owner=owner))
        for owner in ('network:router_centralized_snat',
                      'network:floatingip_agent_gateway'):
            self.assert_left_to_others(self.port(network, self.first,
                                                 device_owner=owner))
        distributed = self.port(
            network, self.first,
            device_owner='network:router_interface_distributed')
        self.assertEqual(('distributed', 'DOWN'), (
            distributed['binding:vif_type'], distributed['status']))

    def test_dhcp_agents(self):
        """Those that can be plugged into a bridge of the network."""
        self.tapmac_agent(self.other, 'physnet2')
        agent = self.agent('DHCP', self.first)
        for host in 'host1', self.other:
            self.agent('DHCP', host)
        network = self.vlan_network()
        self.create('subnet', network_id=network['id'], ip_version=4,
                    cidr='192.0.2.0/24', enable_dhcp=True)
        self.port(network, self.first)
        found = self.neutron.request(
            'GET', 'networks/%s/dhcp-agents' % network['id'])['agents']
        self.assertEqual([agent], [each['id'] for each in found])

    def test_dhcp_agent_that_is_later(self):
        """It is held back once, whatever changes before the other is ready."""
        self.agent('DHCP', self.second)
        network = self.vlan_network()
        subnet = self.create('subnet', network_id=network['id'], ip_version=4,
                             cidr='192.0.2.0/24', enable_dhcp=True)
        port = self.port(network, self.first, fixed_ips=[
            {'subnet_id': subnet['id']}])
        self.guard(port, self.first)
        self.update(port, name='renamed')
        self.assertEqual('DOWN', self.show(port)['status'])
        self.tell_dhcp(port)
        self.assertEqual('ACTIVE', self.show(port)['status'])

    def test_agent_reports_itself_by_the_name_that_is_looked_for(self):
        from vif_plug_tapmac.agent import report
        self.assertEqual(report.AGENT_TYPE, ml2_agents.AGENT_TYPE)


class RoutedNetworkTest(agents.AgentTestCase):
    """Each host is on the segments that its agent has a bridge for."""

    def setUp(self):
        super().setUp()
        self.report('host3', 'physnet1')
        self.report('host4', 'physnet2')
        self.network = self.create('network', name='demo', segments=[
            {'provider:network_type': 'vlan',
             'provider:physical_network': 'physnet%d' % number,
             'provider:segmentation_id': 93 + number} for number in (1, 2)])
        # It may come after the networks.
        self.report('host7', 'physnet1', 'physnet2')
        self.subnets = {}
        for segment in self.neutron.request(
                'GET', 'segments?network_id=' + self.network['id'])[
                    'segments']:
            number = segment['physical_network'][-1]
            self.subnets[number] = self.create(
                'subnet', network_id=self.network['id'], ip_version=4,
                cidr='198.51.%s.0/24' % number, segment_id=segment['id'],
                enable_dhcp=False)['id']

    def assert_on(self, number, port):
        self.assertEqual(
            ('ovs', 'br%s00-9%d' % (number, 3 + int(number)),
             [self.subnets[number]]), (
                port['binding:vif_type'],
                port['binding:vif_details'].get('bridge_name'),
                [each['subnet_id'] for each in port['fixed_ips']]))

    def made(self, host, **fields):
        """Create a port that Neutron gives an address of its segment."""
        return self.create('port', **dict(
            {'network_id': self.network['id'], 'device_id': 'demo',
             'device_owner': 'compute:nova'},
            **({'binding:host_id': host} if host else {}), **fields))

    def test_addresses_of_the_segment_of_the_host(self):
        for host, number in ('host3', '1'), ('host4', '2'):
            self.assert_on(number, self.made(host))
            later = self.made(None)
            self.assertEqual('deferred', later['ip_allocation'])
            self.assert_on(number, self.update(
                later, **{'binding:host_id': host}))

    def test_host_on_both(self):
        for number, subnet in self.subnets.items():
            self.assert_on(number, self.made('host7', fixed_ips=[
                {'subnet_id': subnet}]))

    def test_host_on_neither(self):
        for host in 'host1', 'host5':
            refused = self.assertRaises(base.Refused, self.made, host)
            self.assertEqual((409, 'HostNotConnectedToAnySegment'),
                             (refused.status, refused.type))


class OldestTest(tests_base.TestCase):
    """A Neutron that the agent is not for."""

    def test_start_is_refused(self):
        opts.group(cfg.CONF)
        for name, value in (('firewall', 'agent'),
                            ('agent_hosts', ['host1', 'host2'])):
            cfg.CONF.reset()
            self.config.config(
                group=opts.GROUP, bridge_mappings=['physnet1:br100'],
                firewall='none', agent_hosts=[])
            self.config.config(group=opts.GROUP, **{name: value})
            refused = self.assertRaises(
                exception.InvalidConfig,
                driver.TapMacMechanismDriver().initialize)
            self.assertIn('[ml2_tapmac] %s = ' % name, str(refused))
            self.assertIn('tapmac-agent needs Neutron 28 or newer, and this '
                          'is %d.' % base.NEUTRON, str(refused))


def load_tests(loader, tests, pattern):
    """Leave out what this Neutron has not: nothing is skipped.

    And for the older of those with agents what takes long.
    """
    del loader, pattern
    if not base.AGENT_HOSTS:
        return base.without(tests, AgentEventsTest, BindingTest,
                            RoutedNetworkTest)
    return base.without(tests, OldestTest, *(
        [AgentEventsTest] if base.NEUTRON < 29 and not patience.LONG else []))
