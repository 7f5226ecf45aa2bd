# SPDX-License-Identifier: Apache-2.0

"""DHCP and metadata for guests on our bridges, by Neutron's own agents."""

import contextlib

from tests import base
from tests.neutron import cloud
from tests.neutron import hypervisor
from tests.neutron import network_guest
from tests.neutron import network_node
from tests import patience
from vif_plug_tapmac.kernel import netlink as nl
from vif_plug_tapmac import mark


#: Of the guest, at first and later.
_FIRST, _SECOND, _THIRD = '192.0.2.100', '192.0.2.200', '203.0.113.7'
_FIRST6 = '2001:db8::100'
_METADATA = 'http://169.254.169.254/instance-id'


def load_tests(loader, tests, pattern):
    # Minutes where others are busy, too: each agent loads Neutron.
    return cloud.load_tests(tests, long=[DhcpTest, AloneTest])


class DhcpTestCase(hypervisor.HypervisorTestCase):

    def setUp(self):
        super().setUp()
        missing = network_node.NetworkNode.missing()
        if missing:
            self.cannot_run(missing)
        self.set_mtu(1400)
        self.neutron.request('PUT', 'subnets/' + self.subnet, {'subnet': {
            'enable_dhcp': True, 'dns_nameservers': ['192.0.2.53'],
            'host_routes': [{'destination': '198.51.100.0/24',
                             'nexthop': '192.0.2.9'}]}})
        self.subnet6 = self.add_subnet(
            6, '2001:db8::/64', ipv6_address_mode='dhcpv6-stateful',
            dns_nameservers=['2001:db8::53'], allocation_pools=[
                {'start': '2001:db8::1:1', 'end': '2001:db8::1:ffff'}])

    def add_subnet(self, version, cidr, **fields):
        return self.create('subnet', network_id=self.network['id'],
                           ip_version=version, cidr=cidr, **fields)['id']

    def set_mtu(self, mtu):
        self.neutron.request('PUT', 'networks/' + self.network['id'],
                             {'network': {'mtu': mtu}})

    def node(self, host, more=''):
        """Have agents of Neutron's on a host."""
        node = self.useFixture(network_node.NetworkNode(host, more))

        def show(_):
            with contextlib.suppress(OSError):
                print(*(node.log(each)[-20000:] for each in (
                    'dhcp', 'metadata')))
                print(host.log())
        self.addOnException(show)
        node.start('dhcp', 'metadata')
        return node

    def schedule(self, network, host):
        """Have the DHCP agent of a host serve a network, too."""
        agent, = self.neutron.request(
            'GET', 'agents?agent_type=DHCP%%20agent&host=%s' % host.name
        )['agents']
        self.neutron.request('POST', 'agents/%s/dhcp-networks' % agent['id'],
                             {'network_id': network['id']})

    def guest_of(self, host, *groups):
        """Have a guest on a host, with an address of each family."""
        nic = self.start_guest(host, self.port(
            self.network, host.name, security_groups=list(groups), fixed_ips=[
                {'subnet_id': subnet, 'ip_address': address}
                for subnet, address in ((self.subnet, _FIRST),
                                        (self.subnet6, _FIRST6))]))
        return nic, self.useFixture(network_guest.Machine(nic))

    def give(self, nic, subnet, address):
        """Have the guest's port have another address, of IPv4."""
        self.update(nic.port, fixed_ips=[
            {'subnet_id': subnet, 'ip_address': address},
            {'subnet_id': self.subnet6, 'ip_address': _FIRST6}])

    def assert_leased(self, machine, address, mtu='1400'):
        lease = self.wait_for_lease(machine, address, mtu)
        self.assertEqual(('24', '192.0.2.53'), (lease['mask'], lease['dns']))
        self.assertIn('198.51.100.0/24 192.0.2.9', lease['staticroutes'])
        self.assertIn('169.254.169.254/32', lease['staticroutes'])

    def wait_for_lease(self, machine, address, mtu='1400'):
        seen = []

        def look():
            seen[:] = [machine.dhcp()]
            lease, = seen
            return lease and (lease['ip'], lease['mtu']) == (
                address, mtu) and lease
        return patience.wait_until(
            look, lambda: '%s is to have %s, MTU %s' % (seen, address, mtu))

    def assert_leased6(self, machine):
        lease = patience.wait_until(machine.dhcp6, 'no address of IPv6')
        self.assertEqual(
            (_FIRST6, '2001:db8::53'),
            (lease['new_ip6_address'], lease['new_dhcp6_name_servers']))

    def assert_metadata(self, machine):
        said = patience.wait_until(lambda: machine.fetch(_METADATA),
                                   'no metadata')
        self.assertEqual('/instance-id of ' + base.INSTANCE.uuid, said)

    def assert_trusted(self, host, mtu=1400):
        """Expect the interface on its bridge, as it is to be."""
        link, = host.run(self.interfaces)
        found = mark.InterfaceMark.parse(link.alias)
        self.assertEqual(
            (hypervisor.BRIDGE, True, mtu, False, 'fe', mark.INTERFACE_GROUP),
            (found.bridge, link.up, link.mtu, link.locked, link.mac[:2],
             link.group))
        port, = [each for each in self.dhcp_ports()
                 if each['binding:host_id'] == host.name]
        self.assertEqual((port['id'], port['mac_address']),
                         (found.port_id, found.mac))
        return link

    def dhcp_ports(self):
        return self.neutron.request(
            'GET', 'ports?device_owner=network:dhcp&network_id='
            + self.network['id'])['ports']

    def interfaces(self):
        with nl.Netlink() as netlink:
            return list(filter(mark.is_interface, netlink.links()))

    def check(self, what):
        print('CHECK', what, flush=True)


class DhcpTest(DhcpTestCase):
    """With a tapmac-agent, on two hosts; the guest is behind its firewall."""

    def test_guest(self):
        self.start_agents()
        first = self.node(self.one)
        group = self.outsiders()
        # Answers, which no stateless group knows.
        self.add_rules(group, {'protocol': 'tcp'})
        nic, machine = self.guest_of(self.other, group)
        self.wait_until_active(nic)
        self.assert_leased(machine, _FIRST)
        self.assert_leased6(machine)
        before = self.assert_trusted(self.one)
        self.assertEqual(['ACTIVE'], [
            each['status'] for each in self.dhcp_ports()])
        self.assert_metadata(machine)
        self.check('leased, by both families, and metadata')

        self.give(nic, self.subnet, _SECOND)
        self.assert_leased(machine, _SECOND)
        self.check('another address')

        self.set_mtu(1300)
        subnets = [self.add_subnet(4, cidr, **fields) for cidr, fields in (
            # Of it that of DHCP itself has one, too, and is sooner.
            ('203.0.113.0/24', {'allocation_pools': [
                {'start': '203.0.113.100', 'end': '203.0.113.199'}]}),
            ('10.1.0.0/16', {}), ('10.2.0.0/16', {}))]
        self.add_subnet(6, '2001:db8:1::/64',
                        ipv6_address_mode='dhcpv6-stateful')
        self.give(nic, subnets[0], _THIRD)
        self.wait_for_lease(machine, _THIRD, '1300')
        self.assertEqual(before.index, self.assert_trusted(
            self.one, 1300).index)
        self.check('another MTU, and many subnets')

        # What it serves goes on, and what changes meanwhile is made good.
        first.kill('dhcp')
        self.wait_for_lease(machine, _THIRD, '1300')
        self.give(nic, self.subnet, _FIRST)
        first.start('dhcp')
        self.assert_leased(machine, _FIRST, '1300')
        self.assertEqual(before.index, self.assert_trusted(
            self.one, 1300).index)
        self.check('killed and started')

        first.kill_all()
        self.assertIsNone(machine.dhcp())
        first.forget_namespace(self.network['id'])
        first.start('dhcp', 'metadata')
        self.assert_leased(machine, _FIRST, '1300')
        self.assert_trusted(self.one, 1300)
        self.check('what was left over')

        second = self.node(self.other)
        self.schedule(self.network, self.other)
        patience.wait_until(lambda: second.processes('dnsmasq'),
                            lambda: second.log('dhcp')[-20000:])
        first.kill_all()
        self.assert_leased(machine, _FIRST, '1300')
        self.assert_leased6(machine)
        self.assert_metadata(machine)
        self.assert_trusted(self.other, 1300)
        self.assertEqual({'host1', 'host2'}, {
            each['binding:host_id'] for each in self.dhcp_ports()})
        self.check('the other one of two')

        self.neutron.request('DELETE', 'ports/' + nic.port['id'])
        patience.wait_until(lambda: machine.dhcp() is None,
                            'a port that is gone has an address')


class AloneTest(DhcpTestCase):
    """With no tapmac-agent, and a guest that is kept to its addresses."""

    def test_guest(self):
        self.configure(firewall='none', anti_spoofing='full')
        host = self.useFixture(hypervisor.Hypervisor(self.neutron, 'host6'))
        node = self.node(host, '[ml2_tapmac]\nbridge_mappings = %s:%s' % (
            hypervisor.PHYSNET, hypervisor.BRIDGE))
        self.schedule(self.network, host)
        nic, machine = self.guest_of(host)
        self.assert_leased(machine, _FIRST)
        self.assert_leased6(machine)
        before = self.assert_trusted(host)
        self.assert_metadata(machine)
        group, = host.run(lambda: [
            link.group for link in self.links() if link.name == nic.tap])
        self.assertEqual(self.options.filtered_group, group)
        # Nobody binds it, which nobody minds.
        self.assertEqual(['DOWN'], [
            each['status'] for each in self.dhcp_ports()])
        self.check('leased, by both families, and metadata')

        node.kill('dhcp')
        self.set_mtu(1300)
        node.start('dhcp')
        self.assert_leased(machine, _FIRST, '1300')
        self.assertEqual(before.index, self.assert_trusted(host, 1300).index)
        self.check('killed and started')

        # A network that has no bridge there is an error, and nothing else.
        network = self.vlan_network(physnet='physnet2')
        self.create('subnet', network_id=network['id'], ip_version=4,
                    cidr='10.3.0.0/24')
        self.schedule(network, host)
        patience.wait_until(
            lambda: 'no segment of network %s has a bridge here'
            % network['id'] in node.log('dhcp'),
            lambda: node.log('dhcp')[-20000:])
        self.assert_trusted(host, 1300)
        self.assert_leased(machine, _FIRST, '1300')

    def links(self):
        with nl.Netlink() as netlink:
            return netlink.links()
