# SPDX-License-Identifier: Apache-2.0

"""What nobody enforces is refused, over REST, with a message that says so.

Each of these leaves the port as it was before.
"""

import json
import os
import re
import subprocess
import sys

from tests import documents
from tests.neutron import base
from tests import patience


class RefusalTestCase(base.NeutronTestCase):

    def setUp(self):
        super().setUp()
        self.policy = self.create('policy', name='demo')['id']
        self.network = self.vlan_network()

    def ports(self):
        return self.neutron.request(
            'GET', 'ports?network_id=' + self.network['id'])['ports']

    def assert_unchanged(self, port):
        volatile = {'updated_at', 'revision_number'}
        found = self.show(port)
        self.assertEqual(
            {name: port[name] for name in port.keys() - volatile},
            {name: found[name] for name in port.keys() - volatile})


class RefusalTest(RefusalTestCase):

    def assert_update_refused(self, port, *words, **fields):
        self.assert_refused(port['id'], 'on host host1', *words,
                            request=lambda: self.update(port, **fields))
        self.assert_unchanged(port)

    def assert_create_refused(self, *words, **fields):
        before = self.ports()
        self.assert_refused('on host host1', *words, request=lambda: self.port(
            self.network, **fields))
        self.assertEqual(before, self.ports())

    def assert_bind_refused(self, port, *words):
        """Expect that a server cannot boot with this port."""
        self.assert_refused(
            port['id'], 'on host host1', *words, request=lambda: self.update(
                port, **{'binding:host_id': 'host1'}))
        found = self.show(port)
        self.assertEqual(('unbound', 'DOWN'), (
            found['binding:vif_type'], found['status']))
        self.assert_events(port)
        # As Nova does when the boot has failed.
        self.update(port, **{'binding:host_id': ''})

    def test_port_down(self):
        words = ('admin_state_up False', 'Leave the port up')
        self.assert_create_refused(*words, admin_state_up=False)
        self.assert_bind_refused(self.port(
            self.network, host=None, admin_state_up=False), *words)
        self.assert_update_refused(self.port(self.network), *words,
                                   admin_state_up=False)

    def test_qos_policy_of_the_port(self):
        words = ('QoS policy %s:' % self.policy,
                 'Remove the policy from the port')
        self.assert_create_refused(*words, qos_policy_id=self.policy)
        self.assert_bind_refused(self.port(
            self.network, host=None, qos_policy_id=self.policy), *words)
        self.assert_update_refused(self.port(self.network), *words,
                                   qos_policy_id=self.policy)

    def test_qos_policy_of_the_network(self):
        words = ('QoS policy %s of its network' % self.policy,
                 'Leave the network without policy')
        path = 'networks/' + self.network['id']
        change = {'network': {'qos_policy_id': self.policy}}
        port = self.port(self.network)
        self.assert_refused(
            port['id'], 'on host host1', *words,
            request=lambda: self.neutron.request('PUT', path, change))
        self.assertIsNone(self.neutron.request(
            'GET', path)['network']['qos_policy_id'])
        self._delete('ports/' + port['id'])
        self.neutron.request('PUT', path, change)
        self.assert_create_refused(*words)
        self.assert_bind_refused(self.port(self.network, host=None), *words)

    def test_trunk(self):
        parent = self.port(self.network, host=None)
        trunk = self.create('trunk', port_id=parent['id'])
        self.assert_bind_refused(parent, 'trunk ' + trunk['id'],
                                 'a port on each of the networks')

    def test_trunk_of_a_bound_port(self):
        """It is refused by Neutron, unless another driver would have it."""
        port = self.port(self.network)
        refused = self.assertRaises(base.Refused, self.create, 'trunk',
                                    port_id=port['id'])
        self.assertEqual((409, 'ParentPortInUse'),
                         (refused.status, refused.type))
        self.assertIn('not eligible for use as a parent port', str(refused))
        self.assert_unchanged(port)

    def log(self, **fields):
        """Have what rules of a group do logged, as by Open vSwitch."""
        made = self.neutron.request('POST', 'log/logs', {'log': dict({
            'resource_type': 'security_group', 'event': 'ALL',
            'project_id': 'demo'}, **fields)})['log']
        self.addCleanup(self._delete, 'log/logs/' + made['id'])
        return made['id']

    def test_log(self):
        words = ('a log of its security groups', 'tapmac explain TAP --log')
        port = self.port(self.network)
        self.assert_refused(
            port['id'], 'on host host1', *words,
            request=lambda: self.log(target_id=port['id']))
        self.assertEqual([], self.neutron.request('GET', 'log/logs')['logs'])
        switch = self.log(target_id=port['id'], enabled=False)
        self.assert_refused(
            port['id'], 'on host host1', *words,
            request=lambda: self.neutron.request(
                'PUT', 'log/logs/' + switch, {'log': {'enabled': True}}))
        self.assertFalse(self.neutron.request(
            'GET', 'log/logs/' + switch)['log']['enabled'])
        self.assert_unchanged(port)

    def test_logs_of_others(self):
        """They are of ports of Open vSwitch, or of some of these."""
        self.ovs_agent('elsewhere')
        self.log(target_id=self.port(self.network, host='elsewhere')['id'])
        self.log(target_id=self.port(self.network, host=None)['id'])
        self.port(self.network)
        self.log(resource_id=self.group())
        self.log()

    def test_routed_network(self):
        """Which hosts reach a segment Neutron hears from agents only."""
        segment, = self.neutron.request(
            'GET', 'segments?network_id=' + self.network['id'])['segments']
        self.create('subnet', network_id=self.network['id'], ip_version=4,
                    cidr='192.0.2.0/24', segment_id=segment['id'],
                    enable_dhcp=False)
        fields = {'network_id': self.network['id'], 'device_id': 'demo',
                  'device_owner': 'compute:nova'}
        port = self.create('port', **fields)
        self.assertEqual('deferred', port['ip_allocation'])
        before = self.rows(port), self.ports()
        host = {'binding:host_id': 'host1'}
        for request in (lambda: self.update(port, **host),
                        lambda: self.create('port', **fields, **host)):
            refused = self.assertRaises(base.Refused, request)
            self.assertEqual((409, 'HostNotConnectedToAnySegment'),
                             (refused.status, refused.type))
            self.assertEqual(before, (self.rows(port), self.ports()))

    def subnet_with(self, *addresses):
        """Return fixed IPs of a subnet of the network, for a port."""
        if not hasattr(self, '_subnet'):
            self._subnet = self.create(
                'subnet', network_id=self.network['id'], ip_version=4,
                cidr='192.0.2.0/24')['id']
        return [{'subnet_id': self._subnet, 'ip_address': address}
                for address in addresses]

    def test_where_guests_are_kept_to_their_addresses(self):
        first, other = (self.subnet_with(address)
                        for address in ('192.0.2.10', '192.0.2.11'))
        pairs = [{'ip_address': '192.0.2.99'}]
        for host in 'host6', 'host1':
            port = self.port(self.network, host=host, fixed_ips=first,
                             port_security_enabled=True)
            self.assertEqual('ovs', port['binding:vif_type'])
            for words, fields in (
                    ('fixed IPs', {'fixed_ips': other}),
                    ('fixed IPs', {'fixed_ips': first + other}),
                    ('allowed address pairs',
                     {'allowed_address_pairs': pairs}),
                    ('port_security_enabled False',
                     {'port_security_enabled': False,
                      'security_groups': []})):
                if host == 'host6':
                    self.assert_refused(
                        port['id'], 'on host host6', words,
                        request=lambda: self.update(port, **fields))
                    self.assert_unchanged(port)
            self.update(port, name='renamed', fixed_ips=first)
            if host == 'host1':
                self.update(port, fixed_ips=other,
                            allowed_address_pairs=pairs)
                self.assert_refused(
                    port['id'], 'on host host6', 'allowed address pairs',
                    request=lambda: self.update(
                        port, **{'binding:host_id': 'host6'}))
            self._delete('ports/' + port['id'])
        self.assert_refused(
            'on host host6', 'allowed address pairs',
            request=lambda: self.port(self.network, host='host6',
                                      allowed_address_pairs=pairs))
        unbound = self.port(self.network, host=None, fixed_ips=first)
        self.update(unbound, fixed_ips=other)
        moved = self.update(unbound, **{'binding:host_id': 'host6'})
        self.assertEqual('ovs', moved['binding:vif_type'])

    def ipv6_subnet(self, number=1, mode='slaac', **fields):
        return dict({
            'network_id': self.network['id'], 'ip_version': 6,
            'cidr': '2001:db8:%x::/64' % number, 'ipv6_ra_mode': mode,
            'ipv6_address_mode': mode, 'project_id': 'demo'}, **fields)

    def subnets(self):
        return self.neutron.request(
            'GET', 'subnets?network_id=' + self.network['id'])['subnets']

    def assert_subnet_refused(self, port, request, *words):
        before = self.rows(port), self.subnets()
        self.assert_refused(port['id'], 'on host host6', *words,
                            request=request)
        self.assertEqual(before, (self.rows(port), self.subnets()))
        self.assert_unchanged(port)

    def post_subnets(self, *subnets):
        self.neutron.request('POST', 'subnets', {'subnets': subnets})

    def test_subnets_of_ports_that_are_kept_to_their_addresses(self):
        """Neutron gives and takes addresses of SLAAC by itself."""
        first = self.subnet_with('192.0.2.10')
        port = self.port(self.network, host='host6', fixed_ips=first)
        for mode in 'slaac', 'dhcpv6-stateless':
            self.assert_subnet_refused(
                port, lambda: self.create('subnet', **self.ipv6_subnet(
                    mode=mode)), 'the new subnet 2001:db8:1::/64',
                'dhcpv6-stateful')
        self.assert_subnet_refused(port, lambda: self.post_subnets(
            self.ipv6_subnet(1, mode='dhcpv6-stateful'), self.ipv6_subnet(2)))
        self.create('subnet', **self.ipv6_subnet(3, mode='dhcpv6-stateful'))
        subnet = self.create('subnet', network_id=self.network['id'],
                             ip_version=4, cidr='198.51.100.0/24')
        self.neutron.request('PUT', 'subnets/' + subnet['id'], {'subnet': {
            'name': 'renamed', 'gateway_ip': None, 'enable_dhcp': False}})
        self.neutron.request('PUT', 'networks/' + self.network['id'], {
            'network': {'port_security_enabled': False}})
        self._delete('subnets/' + subnet['id'])
        self.assert_unchanged(port)
        self._delete('ports/' + port['id'])
        # Elsewhere it is as it was.
        port = self.port(self.network, fixed_ips=first)
        self.create('subnet', **self.ipv6_subnet())
        self.assertEqual(2, len(self.show(port)['fixed_ips']))

    def test_a_subnet_that_ports_have_addresses_of(self):
        subnet = self.create('subnet', **self.ipv6_subnet())
        port = self.port(self.network, host='host6', fixed_ips=[
            {'subnet_id': subnet['id']}])
        self.assert_subnet_refused(
            port, lambda: self.neutron.request(
                'DELETE', 'subnets/' + subnet['id']), 'fewer fixed IPs')
        self.update(port, **{'binding:host_id': ''})
        self.neutron.request('DELETE', 'subnets/' + subnet['id'])
        self.assertEqual([], self.show(port)['fixed_ips'])

    def test_a_subnet_while_a_guest_is_on_its_way(self):
        port = self.port(self.network, fixed_ips=self.subnet_with(
            '192.0.2.10'))
        # Of several bindings each may become the active one.
        for host in 'host2', 'host6', 'host8':
            self.bind_second(port, host)
        self.assert_subnet_refused(port, lambda: self.create(
            'subnet', **self.ipv6_subnet()))

    def test_a_subnet_when_a_guest_has_just_gone(self):
        """It may come back, as when Nova aborts that."""
        port = self.port(self.network, host='host6',
                         fixed_ips=self.subnet_with('192.0.2.10'))
        self.bind_second(port, 'host1')
        self.activate(port, 'host1')
        self.assert_subnet_refused(self.show(port), lambda: self.create(
            'subnet', **self.ipv6_subnet()))

    def test_all_else_can_change(self):
        port = self.port(self.network)
        changed = self.update(port, name='renamed', description='it is',
                              qos_policy_id=None, admin_state_up=True)
        self.assertEqual(('renamed', 'ovs', 'ACTIVE'), (
            changed['name'], changed['binding:vif_type'], changed['status']))

    def test_ports_elsewhere_are_not_ours_to_refuse(self):
        port = self.port(self.network, host='elsewhere', admin_state_up=False,
                         qos_policy_id=self.policy)
        self.assertEqual('binding_failed', port['binding:vif_type'])
        self.create('trunk', port_id=self.port(self.network, host=None)['id'])
        self.neutron.request(
            'PUT', 'networks/' + self.network['id'],
            {'network': {'qos_policy_id': self.policy}})


class NothingIsGivenUpTest(RefusalTestCase):
    """After a refusal the database is as before it."""

    def setUp(self):
        super().setUp()
        self.ovs_agent('elsewhere')

    def bound_elsewhere(self, **fields):
        port = self.port(self.network, host='elsewhere', **fields)
        self.assertEqual('br-int', port['binding:vif_details']['bridge_name'])
        return port

    def assert_nothing_done(self, *ports, request):
        """Return what was refused with no trace in the database."""
        before = self.rows(*ports), self.ports()
        refused = self.assertRaises(base.Refused, request)
        self.assertEqual(before, (self.rows(*ports), self.ports()))
        return refused

    def assert_second_refused(self, port, *words, host='host1', **fields):
        before = len(self.neutron.log())
        refused = self.assert_nothing_done(
            port, request=lambda: self.bind_second(port, host, **fields))
        self.assertEqual('PortBindingError', refused.type)
        said = self.neutron.log()[before:]
        self.assertNotIn('Mechanism driver tapmac failed', said)
        for word in ('tapmac does not bind port %s on host %s beside its '
                     'binding on ' % (port['id'], host), *words):
            self.assertIn(word, said)

    def test_neighbours_in_one_request(self):
        self.create('subnet', network_id=self.network['id'], ip_version=4,
                    cidr='192.0.2.0/24', enable_dhcp=False)
        for wrong in ({'admin_state_up': False},
                      {'qos_policy_id': self.policy},
                      {'binding:profile': {'allocation': {'a': 'b'}}}):
            ports = [{'network_id': self.network['id'], 'project_id': 'demo',
                      'device_owner': 'compute:nova', 'device_id': 'demo',
                      'binding:host_id': 'host1'} for _ in range(5)]
            ports[2].update(wrong)
            refused = self.assert_nothing_done(
                request=lambda: self.neutron.request(
                    'POST', 'ports', {'ports': ports}))
            self.assertEqual((400, 'NotEnforced'),
                             (refused.status, refused.type))
        self.assertEqual([], self.neutron.database.execute(
            'SELECT * FROM neutron.ipallocations WHERE network_id = %s',
            self.network['id']))

    def test_binding_of_another_driver(self):
        for wrong in ({'qos_policy_id': self.policy},
                      {'admin_state_up': False}):
            port = self.bound_elsewhere(**wrong)
            refused = self.assert_nothing_done(
                port, request=lambda: self.update(
                    port, **{'binding:host_id': 'host1'}))
            self.assertEqual((400, 'NotEnforced'),
                             (refused.status, refused.type))
            self.update(port, **{'binding:host_id': 'elsewhere'})
            self.assert_unchanged(port)

    def test_binding_of_ours(self):
        """A new one is refused while the old one is there, too."""
        port = self.port(self.network)
        self.neutron.database.execute(
            'UPDATE neutron.ports SET admin_state_up = 0 WHERE id = %s',
            port['id'])
        for change in ({'binding:host_id': 'host2'},
                       {'binding:profile': {'touched': 'now'}}):
            refused = self.assert_nothing_done(
                port, request=lambda: self.update(port, **change))
            self.assertEqual('NotEnforced', refused.type)
        self.update(port, name='renamed')
        self.update(port, **{'binding:host_id': 'elsewhere'})
        self.assertEqual('br-int', self.show(
            port)['binding:vif_details']['bridge_name'])

    def test_resources_of_another_driver(self):
        port = self.port(self.network)
        profile = {'allocation': {'group': self.policy}}
        refused = self.assert_nothing_done(port, request=lambda: self.update(
            port, **{'binding:profile': profile}))
        self.assertEqual('NotEnforced', refused.type)
        self.assertIn('the resources of ' + self.policy, str(refused))
        self.assert_second_refused(
            port, 'the resources of ' + self.policy, host='host2',
            profile=profile)

    def test_live_migration_with_what_nobody_enforces(self):
        """No second binding: its activation could not be refused in time."""
        for owner in 'compute:nova', 'manila:share':
            port = self.bound_elsewhere(
                qos_policy_id=self.policy, device_owner=owner)
            self.assert_second_refused(
                port, 'tapmac does not bind port %s on host host1 beside its '
                'binding on elsewhere: nothing would enforce QoS policy %s.'
                % (port['id'], self.policy))

    def test_live_migration_to_another_bridge(self):
        """Nova would have the bridge of the source there."""
        words = ('Nova would have it plugged into the bridge of that binding, '
                 '%s, and here it is %s. Remedy: the operator must')
        bridge = 'br100-%d' % self.network['provider:segmentation_id']
        for owner in 'compute:nova', 'manila:share':
            self.assert_second_refused(
                self.bound_elsewhere(device_owner=owner),
                words % ('br-int', bridge))
        port = self.port(self.network)
        details = dict(port['binding:vif_details'], bridge_name='br-old')
        self.neutron.database.execute(
            'UPDATE neutron.ml2_port_bindings SET vif_details = %s '
            'WHERE port_id = %s', json.dumps(details), port['id'])
        self.assert_second_refused(port, words % ('br-old', bridge),
                                   host='host2')
        # It is bound anew first, as the documentation has it.
        self.update(port, **{'binding:profile': {'touched': 'now'}})
        self.bind_second(port)

    def test_live_migration_away_to_another_bridge(self):
        """Nova would have ours there, whatever the other driver calls it."""
        for owner in 'compute:nova', 'manila:share':
            port = self.port(self.network, device_owner=owner)
            before = len(self.neutron.log())
            refused = self.assert_nothing_done(
                port, request=lambda: self.bind_second(port, 'elsewhere'))
            self.assertEqual('PortBindingError', refused.type)
            self.assertIn(
                'tapmac has no other driver bind port %s on host elsewhere '
                'beside its binding on host1: Nova would have it plugged into '
                'the bridge of that binding, br100-%d, and there it is br-int.'
                ' Remedy: the operator must' % (
                    port['id'], self.network['provider:segmentation_id']),
                self.neutron.log()[before:])
            # A cold migration is nobody's business but his who binds it.
            self.assertEqual('br-int', self.update(
                port, **{'binding:host_id': 'elsewhere'})[
                    'binding:vif_details']['bridge_name'])

    def test_live_migration_from_a_nova_before_33(self):
        """It writes the domain, and libvirt would refuse that."""
        port = self.port(self.network, host='host9')
        self.assert_second_refused(
            port, 'the Nova there is older than 33, by [ml2_tapmac] '
            'bridge_hosts', 'must take host9 out of bridge_hosts')
        # Where Nova is as old it may go, and elsewhere by a cold migration.
        self.bind_second(port, 'host8')
        self.assertEqual('ovs', self.update(
            port, **{'binding:host_id': 'host1'})['binding:vif_type'])
        # What is no server's is none of Nova's business.
        self.bind_second(self.port(self.network, host='host9',
                                   device_owner='manila:share'), 'host1')

    def test_during_a_live_migration(self):
        """What would be wrong on the other host is refused on this one."""
        port = self.port(self.network)
        self.agent(
            'Open vSwitch', 'namesake', bridge_mappings={'physnet1': 'br-ex'},
            integration_bridge=port['binding:vif_details']['bridge_name'])
        self.bind_second(port, 'namesake')
        self.activate(port, 'namesake')
        self.assert_policy_refused(port)
        self.assert_policy_of_network_refused(port)
        # Nova has aborted it.
        self.activate(port, 'host1')
        self.assert_policy_refused(port)
        self.assert_policy_of_network_refused(port)
        bound = self.update(port, **{'binding:host_id': 'host1'})
        self.assertEqual(('ovs', 'ACTIVE'), (
            bound['binding:vif_type'], bound['status']))

    def test_network_during_a_live_migration(self):
        port = self.bound_elsewhere()
        # As by a driver whose bridges are called like ours.
        self.neutron.database.execute(
            'UPDATE neutron.ml2_port_bindings SET vif_details = %s '
            'WHERE port_id = %s', json.dumps({'bridge_name': 'br100-%d' % (
                self.network['provider:segmentation_id'])}), port['id'])
        self.bind_second(port, 'host1')
        self.assert_policy_of_network_refused(port)

    def test_another_vlan_of_the_network(self):
        """Neutron has it changed if all ports are of a type of Open vSwitch's.

        As all of ours are.
        """
        port = self.port(self.network)
        path = 'networks/' + self.network['id']
        change = {'network': {'provider:segmentation_id': 4000}}
        refused = self.assert_not_enforced(
            port, lambda: self.neutron.request('PUT', path, change))
        self.assertIn('VLAN 4000 for its network', str(refused))
        self.assertEqual(
            self.network['provider:segmentation_id'], self.neutron.request(
                'GET', path)['network']['provider:segmentation_id'])
        self.update(port, **{'binding:host_id': 'elsewhere'})
        self.neutron.request('PUT', path, change)
        self.assertEqual('br100-4000', self.port(
            self.network)['binding:vif_details']['bridge_name'])

    def test_trunk_during_a_live_migration(self):
        """The driver linuxbridge has trunks of ports that are bound."""
        self.linux_bridge_agent('old1')
        port = self.port(self.network, host='old1')
        self.neutron.database.execute(
            'UPDATE neutron.ml2_port_bindings SET vif_details = %s '
            'WHERE port_id = %s', json.dumps({'bridge_name': 'br100-%d' % (
                self.network['provider:segmentation_id'])}), port['id'])
        self.bind_second(port, 'host1')
        self.assert_not_enforced(port, lambda: self.create(
            'trunk', port_id=port['id']))
        self.assertEqual([], self.neutron.request(
            'GET', 'trunks?port_id=' + port['id'])['trunks'])

    if base.NEUTRON > 25:
        # It has no driver that would have it.
        del test_trunk_during_a_live_migration

    def assert_policy_refused(self, port):
        self.assert_not_enforced(port, lambda: self.update(
            port, qos_policy_id=self.policy))

    def assert_policy_of_network_refused(self, port):
        path = 'networks/' + self.network['id']
        self.assert_not_enforced(port, lambda: self.neutron.request(
            'PUT', path, {'network': {'qos_policy_id': self.policy}}))
        self.assertIsNone(self.neutron.request(
            'GET', path)['network']['qos_policy_id'])

    def assert_not_enforced(self, port, request):
        refused = self.assert_nothing_done(port, request=request)
        self.assertEqual((400, 'NotEnforced'), (refused.status, refused.type))
        self.assertIn('on host host1', str(refused))
        return refused


class StartTest(base.NeutronTestCase):
    """Wrong mappings end the start of neutron-server, and say why."""

    def test_wrong_ones(self):
        configuration = self.neutron.configuration.read_text()
        right = 'bridge_mappings = physnet1:br100,physnet2:br200\n'
        self.assertIn(right, configuration)
        for wrong, reason in (
                ('bridge_mappings = physnet1:br1,physnet1:br2\n',
                 'physnet1 in mapping: \'physnet1:br2\' not unique'),
                ('bridge_mappings = physnet1:br/1\n',
                 'is no name for a bridge'),
                ('bridge_mappings = physnet1:br-provider-one\n',
                 'br-provider-one for physnet1 has 15 characters')):
            self.assert_ends(configuration.replace(right, wrong), reason)

    def test_what_the_documentation_shows(self):
        configuration = self.neutron.configuration.read_text()
        before = configuration.split('[ml2]\n', 1)[0]
        shown = documents.block(documents.PROVIDER, '[ml2]', 'ini').replace(
            'project_', base.PROJECT + '_')
        # Neither trunks nor QoS are for a server like this.
        done = self.start(before.replace('trunk,qos,segments', '') + shown)
        self.assertEqual(0, done.returncode, done.stdout)
        line = next(line for line in documents.log_lines()
                    if 'tapmac binds ports on' in line)
        level, logger, message = line.split(' ', 2)
        self.assertRegex(done.stdout, r'%s %s .*\] %s' % (
            level, logger, re.escape(message)))

    def test_no_hosts(self):
        configuration = self.neutron.configuration.read_text()
        done = self.start(configuration.replace('hosts = host?', 'hosts ='))
        self.assertEqual(0, done.returncode, done.stdout)
        self.assertIn('tapmac binds no ports, because [ml2_tapmac] hosts is '
                      'empty. Remedy: the operator must', done.stdout)

    def test_mappings_that_have_changed(self):
        """Said at the start, and at the next binding there."""
        networks = [self.flat_network(physnet)
                    for physnet in ('physnet1', 'physnet2')]
        for network in networks:
            self.port(network)
        self.addCleanup(self.neutron.restart)
        self.neutron.restart(bridge_mappings='physnet1:br101,physnet2:br200')
        words = (
            'are bound to other bridges, as br100, than [ml2_tapmac] says '
            'now: br101. Guests on the one do not reach guests on the other. '
            'Remedy: the operator must restore the option, or bind these '
            'ports anew')

        def said():
            return [line for line in self.neutron.log().splitlines()
                    if 'are bound to other bridges' in line]
        # That server also has one for RPC, and one for the rest.
        started = base.PROCESSES + (2 if base.NEUTRON < 26 else 0)
        for times in started, started + 1:
            patience.wait_until(lambda: len(said()) >= times, 'nothing said')
            self.assertEqual(times, len(said()), said())
            for line in said():
                self.assertIn('1 ports on segment ', line)
                self.assertIn(words, line)
            for network in networks:
                self.port(network)

    def test_ports_of_a_driver_that_is_gone(self):
        network = self.flat_network()
        for _ in range(2):
            self.neutron.database.execute(
                'UPDATE neutron.ml2_port_binding_levels SET driver = "gone" '
                'WHERE port_id = %s', self.port(network)['id'])
        self.port(network)
        done = self.start(self.neutron.configuration.read_text())
        self.assertEqual(0, done.returncode, done.stdout)
        said, = [line for line in done.stdout.splitlines()
                 if 'are bound by mechanism drivers' in line]
        self.assertIn(
            'WARNING vif_plug_tapmac.ml2.others', said)
        self.assertIn(
            ' 2 ports are bound by mechanism drivers that are not in [ml2] '
            'mechanism_drivers: 2 by gone. Nobody serves these', said)

    def test_no_trunks_without_another_driver(self):
        configuration = self.neutron.configuration.read_text()
        done = self.start(re.sub(
            '(?m)^mechanism_drivers = .*$', 'mechanism_drivers = tapmac',
            configuration))
        self.assertNotEqual(0, done.returncode)
        self.assertIn('Cannot load trunk plugin', done.stdout)

    def assert_ends(self, configuration, reason):
        done = self.start(configuration)
        self.assertNotEqual(0, done.returncode)
        self.assertIn('[ml2_tapmac] bridge_mappings', done.stdout)
        self.assertIn(reason, done.stdout)

    def start(self, configuration):
        """Do what each of uWSGI's processes does to start."""
        changed = self.neutron.configuration.with_suffix('.wrong')
        changed.write_text(configuration)
        return subprocess.run(
            [sys.executable, '-c', 'import neutron.wsgi.api'],
            env=dict(os.environ, **base.configured_by(changed)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=patience.HANG)


def load_tests(loader, tests, pattern):
    """Leave out for the oldest what takes a server for each test."""
    return base.without(tests, *(
        [StartTest] if base.NEUTRON < 26 and not patience.LONG else []))
