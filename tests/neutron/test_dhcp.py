# SPDX-License-Identifier: Apache-2.0

"""DHCP and metadata for guests on our bridges, by Neutron's own agents."""

from tests import base
from tests.neutron import cloud
from tests.neutron import hypervisor
from tests.neutron import network_node
from tests import patience
from vif_plug_tapmac.kernel import netlink as nl
from vif_plug_tapmac import mark


def load_tests(loader, tests, pattern):
    # Minutes where others are busy, too: each agent loads Neutron.
    return cloud.load_tests(tests, long=[DhcpTest])


class DhcpTest(hypervisor.HypervisorTestCase):

    def setUp(self):
        super().setUp()
        missing = network_node.NetworkNode.missing()
        if missing:
            self.cannot_run(missing)
        self.neutron.request('PUT', 'networks/' + self.network['id'],
                             {'network': {'mtu': 1400}})
        self.neutron.request('PUT', 'subnets/' + self.subnet, {'subnet': {
            'enable_dhcp': True, 'dns_nameservers': ['192.0.2.53'],
            'host_routes': [{'destination': '198.51.100.0/24',
                             'nexthop': '192.0.2.9'}]}})

    def test_guest(self):
        group = self.outsiders()
        # Answers, which no stateless group knows.
        self.add_rules(group, {'protocol': 'tcp'})
        self.start_agents()
        node = self.useFixture(network_node.NetworkNode(self.one))
        self.addOnException(lambda _: print(node.log('dhcp')[-20000:],
                                            self.one.log()))
        node.start('dhcp', 'metadata')
        nic = self.guest(self.other, group)
        self.wait_until_active(nic)
        machine = self.useFixture(network_node.Machine(nic))

        self.assert_leased(node, machine, nic.address)
        self.assert_trusted()
        print('CHECK leased and trusted', flush=True)

        # What it serves goes on, and what changes meanwhile is made good.
        node.kill('dhcp')
        self.assert_leased(node, machine, nic.address)
        self.update(nic.port, fixed_ips=[
            {'subnet_id': self.subnet, 'ip_address': '192.0.2.200'}])
        node.start('dhcp')
        self.assert_leased(node, machine, '192.0.2.200')
        print('CHECK killed, changed', flush=True)
        self.addOnException(lambda _: print(node.log('metadata')[-3000:]))
        self.assert_metadata(machine)
        print('CHECK metadata', flush=True)
        self.neutron.request('DELETE', 'ports/' + nic.port['id'])
        patience.wait_until(lambda: machine.dhcp() is None,
                            'a port that is gone has an address')

    def assert_leased(self, node, machine, address):
        lease = patience.wait_until(
            lambda: (lambda found: found and found['ip'] == address
                     and found)(machine.dhcp()),
            lambda: node.log('dhcp')[-20000:])
        self.assertEqual(
            ('1400', '24', '192.0.2.53'),
            tuple(lease[each] for each in ('mtu', 'mask', 'dns')), lease)
        self.assertIn('198.51.100.0/24 192.0.2.9', lease['staticroutes'])
        self.assertIn('169.254.169.254/32', lease['staticroutes'])

    def assert_metadata(self, machine):
        said = patience.wait_until(
            lambda: machine.fetch('http://169.254.169.254/instance-id'),
            'no metadata')
        self.assertEqual('/instance-id of ' + base.INSTANCE.uuid, said)

    def assert_trusted(self):
        """Expect what tapmac-agent has put on the bridge as it is to be."""
        link, = self.one.run(self.interfaces)
        self.assertEqual(hypervisor.BRIDGE,
                         mark.InterfaceMark.parse(link.alias).bridge)
        self.assertEqual((True, 1400, False, 'fe'),
                         (link.up, link.mtu, link.locked, link.mac[:2]))
        port, = self.neutron.request(
            'GET', 'ports?device_owner=network:dhcp&network_id='
            + self.network['id'])['ports']
        self.assertEqual(port['id'],
                         mark.InterfaceMark.parse(link.alias).port_id)
        self.assertEqual('ACTIVE', port['status'])

    def interfaces(self):
        with nl.Netlink() as netlink:
            return list(filter(mark.is_interface, netlink.links()))
