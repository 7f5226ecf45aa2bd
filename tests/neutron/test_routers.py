# SPDX-License-Identifier: Apache-2.0

"""Routers of Neutron's own L3 agent, between bridges of ours."""

import fixtures
import pyroute2

from tests import base
from tests import hosts
from tests.neutron import cloud
from tests.neutron import hypervisor
from tests.neutron import routers
from tests.neutron.routers import GATEWAY
from tests import patience
from vif_plug_tapmac.kernel import link
from vif_plug_tapmac import mark
from vif_plug_tapmac.wanted import names


def load_tests(loader, tests, pattern):
    # Minutes where others are busy, too: each agent loads Neutron.
    return cloud.load_tests(tests, long=[
        RouterTest, WithoutAgentTest, HighlyAvailableTest])


class RouterTest(routers.RouterTestCase):

    def test_all(self):
        (red, (red_subnet, more, six)), (blue, (blue_subnet,)) = [
            self.inner_network(*cidrs) for cidrs in (
                ('10.1.0.0/24', '10.3.0.0/24', '2001:db8:1::/64'),
                ('10.2.0.0/24',))]
        router = self.router(red_subnet, more, six, blue_subnet)
        self.start_agents()
        node = self.node(self.one)
        node.start('l3', 'metadata')
        self.wait_until_wired(self.one, router)
        self.assert_made(node, router)
        one, two = [self.machine(self.one, *each) for each in (
            (red, red_subnet), (blue, blue_subnet))]
        self.wait_until_known_as(one.fetch, one.nic.address, two.nic.address)
        self.wait_until_known_as(one.fetch, self.gateway_of(router), GATEWAY)
        said = patience.wait_until(
            lambda: one.fetch('http://169.254.169.254/instance-id'),
            'no metadata')
        self.assertEqual('/instance-id of ' + base.INSTANCE.uuid, said)
        floating = self.create(
            'floatingip', floating_network_id=self.network['id'],
            port_id=two.nic.port['id'])
        address = floating['floating_ip_address']
        self.wait_until_known_as(self.fetch, GATEWAY, address)
        self.wait_until_known_as(two.fetch, address, GATEWAY)
        print('CHECK routed', flush=True)

        self.change_all(node, router, more, one)
        self.wait_until_known_as(self.fetch, GATEWAY, address)
        print('CHECK changed', flush=True)

        # What it does goes on, and what changes meanwhile is made good.
        before = self.interfaces(self.one)
        node.kill('l3')
        self.wait_until_known_as(one.fetch, one.nic.address, two.nic.address)
        self.wait_until_known_as(self.fetch, GATEWAY, address)
        self.neutron.request('PUT', 'floatingips/' + floating['id'], {
            'floatingip': {'port_id': one.nic.port['id']}})
        node.start('l3')
        self.wait_until_known_as(one.fetch, address, GATEWAY)
        self.wait_until_known_as(two.fetch, self.gateway_of(router), GATEWAY)
        self.assertEqual(
            {port: each.index for port, each in before.items()},
            {port: each.index for port, each in self.interfaces(
                self.one).items()})
        print('CHECK restarted', flush=True)

        node.kill('l3')
        self.delete_router(router)
        node.start('l3')
        self.wait_until_nothing_is_left(self.one, node)
        print('CHECK gone', flush=True)
        node.wait_until_refused(
            'l3', 'InvalidConfig: [DEFAULT] agent_mode = dvr_snat: ',
            '--config-file', self.conf_of_dvr())

    def assert_made(self, node, router):
        """Expect all its interfaces to be as both sides want them."""
        inner = self.inner(node, router)
        outer = self.interfaces(self.one)
        for port in self.ports(router):
            owner = port['device_owner']
            prefix = {'network:router_gateway': 'qg-'}.get(owner, 'qr-')
            near = inner.pop(prefix + port['id'][:11])
            far = outer.pop(port['id'])
            mtu = 1500 if prefix == 'qg-' else 1400
            self.assertEqual(
                (port['mac_address'], mtu, 'UP'),
                (near['address'], near['mtu'], near['operstate']))
            self.assertEqual(
                (True, mtu, False, 'fe' + port['mac_address'][2:]),
                (far.up, far.mtu, far.locked, far.mac))
            # It is wired before it has any.
            patience.wait_until(
                lambda: {each['ip_address'] for each in port['fixed_ips']}
                == routers.addresses(self.inner(node, router)[near['ifname']]),
                lambda: str(near))
            self.assertEqual(
                port['binding:vif_details']['bridge_name'],
                mark.InterfaceMark.parse(far.alias).bridge)
        self.assertEqual(({}, {}), (inner, outer))

    def change_all(self, node, router, subnet, machine):
        """Have the router be another one meanwhile."""
        self.interface(router, 'remove', subnet)
        self.change(router, external_gateway_info={
            'network_id': self.network['id'], 'external_fixed_ips': [
                {'subnet_id': self.subnet, 'ip_address': '192.0.2.99'}]})
        self.wait_until_known_as(machine.fetch, '192.0.2.99', GATEWAY)
        self.wait_until_wired(self.one, router)
        self.neutron.request('PUT', 'networks/' + machine.nic.port[
            'network_id'], {'network': {'mtu': 1300}})
        patience.wait_until(
            lambda: {1300, 1400, 1500} == {each.mtu for each in
                                           self.interfaces(self.one).values()},
            'the MTU is as it was')

    def conf_of_dvr(self):
        path = self.useFixture(fixtures.TempDir()).join('conf')
        with open(path, 'w') as file:
            file.write('[DEFAULT]\nagent_mode = dvr_snat\n')
        return path


class WithoutAgentTest(routers.RouterTestCase):
    """A host with no tapmac-agent, whose L3 agent knows the bridges."""

    def test_all(self):
        network, (subnet,) = self.inner_network('10.1.0.0/24')
        router = self.router(subnet)
        host = self.useFixture(hypervisor.Hypervisor(self.neutron, 'host5'))
        host.run(self._make_gateway)
        self.useFixture(routers.Web(host.peer))
        bridge = names.VLAN_BRIDGE.format(
            bridge=hypervisor.BRIDGE, vlan=network['provider:segmentation_id'])
        host.run(self.make_bridge, bridge, '06:00:00:00:00:05')
        node = self.node(host, '[ml2_tapmac]\nbridge_mappings = %s:%s' % (
            hypervisor.PHYSNET, hypervisor.BRIDGE))
        node.start('l3')
        patience.wait_until(
            lambda: [hypervisor.BRIDGE, bridge] == sorted(
                its.bridge or '' for each in self.interfaces(host).values()
                for its in [mark.InterfaceMark.parse(each.alias)] if its),
            lambda: node.log('l3')[-20000:])
        self.wait_until_known_as(
            lambda url: node.run(
                'sh', '-c', 'ip netns exec qrouter-%s curl -s %s || true' % (
                    router['id'], url)),
            self.gateway_of(router), GATEWAY)
        self.assertEqual({('binding_failed', 'DOWN')}, {
            (each['binding:vif_type'], each['status'])
            for each in self.ports(router)})
        print('CHECK without', flush=True)

        self.router(ha=True)
        patience.wait_until(
            lambda: 'it is of a highly available router, for which Neutron '
            'has VRRP run when tapmac-agent says that it is wired'
            in node.log('l3'), lambda: node.log('l3')[-20000:])
        self.assertFalse(node.processes('keepalived'))


class HighlyAvailableTest(routers.RouterTestCase):
    """A router on two hosts, of which one is cut off."""

    def test_all(self):
        inner, (subnet,) = self.inner_network('10.1.0.0/24')
        router = self.router(subnet, ha=True)
        for network in self.neutron.request(
                'GET', 'networks?provider:network_type=vlan')['networks']:
            self.wire(names.VLAN_BRIDGE.format(
                bridge=hypervisor.BRIDGE,
                vlan=network['provider:segmentation_id']))
        self.start_agents()
        nodes = []
        for host in self.one, self.other:
            nodes.append(self.node(host))
            nodes[-1].start('l3')
            self.wait_until_wired(host, router)
            self.wait_until_primary(router, 'host1')
        print('CHECK wired', flush=True)
        machine = self.machine(self.other, inner, subnet)
        floating = self.create(
            'floatingip', floating_network_id=self.network['id'],
            port_id=machine.nic.port['id'])['floating_ip_address']
        self.wait_until_known_as(self.fetch, GATEWAY, floating)
        self.assert_one_has_addresses(nodes, router, nodes[0])

        self.one.run(self.set_wires, 'down')
        self.wait_until_known_as(self.fetch, GATEWAY, floating)
        self.wait_until_known_as(machine.fetch, floating, GATEWAY)
        self.wait_until_primary(router, 'host2')
        print('CHECK failed over', flush=True)

        self.one.run(self.set_wires, 'up')
        patience.wait_until(lambda: self.one_has_addresses(nodes, router),
                            'there are two')
        self.wait_until_known_as(self.fetch, GATEWAY, floating)
        print('CHECK one again', flush=True)
        self.delete_router(router)
        for host, node in zip((self.one, self.other), nodes):
            self.wait_until_nothing_is_left(host, node)

    def wire(self, bridge):
        """Have a bridge of this name on both hosts, with a cable between."""
        end = 'w' + bridge[2:]

        def make():
            with pyroute2.IPRoute() as ip:
                ip.link('add', ifname=end, kind='veth', peer={
                    'ifname': end, 'net_ns_fd': self.other.peer.namespace})

        def join(mac):
            index = self.make_bridge(bridge, mac)
            with pyroute2.IPRoute() as ip:
                ip.link('set', index=ip.link_lookup(ifname=end)[0], state='up',
                        master=index, **hosts.addr_gen_mode(
                            link.ADDR_GEN_NONE))
        self.one.run(make)
        for number, host in enumerate((self.one, self.other)):
            host.run(join, '06:00:00:00:00:%02x' % number)

    def set_wires(self, state):
        with pyroute2.IPRoute() as ip:
            for each in ip.get_links():
                if each.get_attr('IFLA_IFNAME').startswith('w'):
                    ip.link('set', index=each['index'], state=state)

    def wait_until_primary(self, router, host):
        def agents():
            return {each['host']: each['ha_state'] for each in
                    self.neutron.request('GET', 'routers/%s/l3-agents'
                                         % router['id'])['agents']}
        patience.wait_until(lambda: agents().get(host) == 'active',
                            lambda: str(agents()), 0.1)

    def one_has_addresses(self, nodes, router):
        """Return which of two has them; None: both, or neither."""
        found = [node for node in nodes for each in self.inner(
            node, router).values() if each['ifname'].startswith('qr-')
            and routers.addresses(each)]
        return found[0] if len(found) == 1 else None

    def assert_one_has_addresses(self, nodes, router, which):
        self.assertIs(which, self.one_has_addresses(nodes, router))
