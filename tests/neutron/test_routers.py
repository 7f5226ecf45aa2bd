# SPDX-License-Identifier: Apache-2.0

"""Routers of Neutron's own L3 agent, between bridges of ours."""

from http import server as http_server
import json
import threading

import fixtures
import pyroute2

from tests import base
from tests import hosts
from tests.neutron import cloud
from tests.neutron import hypervisor
from tests.neutron import network_node
from tests import patience
from vif_plug_tapmac.kernel import netlink as nl
from vif_plug_tapmac import mark
from vif_plug_tapmac.wanted import names

#: Of the data centre, on the provider's network.
GATEWAY = '192.0.2.1'
_MORE = """
[DEFAULT]
service_plugins = trunk,qos,segments,router
l3_ha_network_type = vlan
l3_ha_network_physical_name = physnet1
[ml2_type_vlan]
network_vlan_ranges = physnet1:2000:2999
[ml2_tapmac]
"""


def load_tests(loader, tests, pattern):
    # Minutes where others are busy, too: each agent loads Neutron.
    return cloud.load_tests(tests, long=[RouterTest, HighlyAvailableTest])


class RouterCloud(cloud.Cloud):

    def __init__(self):
        super().__init__(_MORE)


class Web(fixtures.Fixture):
    """What says to who fetches something by which address it is known.

    :param peer: where it listens
    """

    def __init__(self, peer):
        self._peer = peer

    def _setUp(self):
        class Handler(http_server.BaseHTTPRequestHandler):

            def do_GET(self):
                body = self.client_address[0].encode()
                self.send_response(200)
                self.send_header('Content-Length', str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments):
                pass
        server = self._peer.run(lambda: http_server.ThreadingHTTPServer(
            ('0.0.0.0', 80), Handler))
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)


def addresses(interface):
    """Return those of an interface that others may use, as "ip" has it."""
    return {each['local'] for each in interface['addr_info']
            if each['scope'] == 'global'}


class RouterTestCase(hypervisor.HypervisorTestCase):
    """The network of the hosts is the provider's: others are behind routers.

    What is of the data centre is on the second host.
    """

    def find_neutron(self):
        return cloud.base.shared(RouterCloud)

    def setUp(self):
        super().setUp()
        missing = network_node.NetworkNode.missing()
        if missing:
            self.cannot_run(missing)
        self.neutron.request('PUT', 'networks/' + self.network['id'],
                             {'network': {'router:external': True}})
        self.everyone = self.outsiders()
        # Answers, which no stateless group knows.
        self.add_rules(self.everyone, {'protocol': 'tcp'})
        self.other.run(self._make_gateway)
        self.useFixture(Web(self.other.peer))

    def _make_gateway(self):
        with pyroute2.IPRoute() as ip:
            bridge, = ip.link_lookup(ifname=hypervisor.BRIDGE)
            ip.addr('add', index=bridge, address=GATEWAY, prefixlen=24)

    def node(self, host):
        node = self.useFixture(network_node.NetworkNode(host))
        self.addOnException(lambda _: print(
            host.name, node.log('l3')[-20000:], host.log()))
        return node

    def inner_network(self, *cidrs):
        """Create a network with a VLAN, and subnets; return both."""
        network = self.create(
            'network', name='inner', mtu=1400, **{
                'provider:network_type': 'vlan',
                'provider:physical_network': 'physnet1'})
        return network, [self.create(
            'subnet', network_id=network['id'], cidr=cidr,
            ip_version=6 if ':' in cidr else 4, enable_dhcp=False)['id']
            for cidr in cidrs]

    def router(self, *subnets, **fields):
        router = self.create('router', name='demo', external_gateway_info={
            'network_id': self.network['id']}, **fields)
        self.addCleanup(self.delete_router, router)
        for subnet in subnets:
            self.interface(router, 'add', subnet)
        return router

    def interface(self, router, action, subnet):
        self.neutron.request('PUT', 'routers/%s/%s_router_interface' % (
            router['id'], action), {'subnet_id': subnet})

    def change(self, router, **fields):
        return self.neutron.request('PUT', 'routers/' + router['id'], {
            'router': fields})['router']

    def delete_router(self, router):
        if not self.neutron.request(
                'GET', 'routers?id=' + router['id'])['routers']:
            return
        for floating in self.neutron.request(
                'GET', 'floatingips?router_id=' + router['id'])['floatingips']:
            self._delete('floatingips/' + floating['id'])
        self.change(router, external_gateway_info={})
        for port in self.ports(router):
            if 'router_interface' in port['device_owner'] or (
                    'replicated_interface' in port['device_owner']):
                self.neutron.request(
                    'PUT', 'routers/%s/remove_router_interface'
                    % router['id'], {'port_id': port['id']})
        self.neutron.request('DELETE', 'routers/' + router['id'])

    def ports(self, router):
        return self.neutron.request(
            'GET', 'ports?device_id=' + router['id'])['ports']

    def gateway_of(self, router):
        """Return the address that it has on the provider's network."""
        port, = [each for each in self.ports(router)
                 if each['device_owner'] == 'network:router_gateway']
        return port['fixed_ips'][0]['ip_address']

    def machine(self, host, network, subnet):
        """Have a guest behind a router, which is at the first address."""
        port = self.port(network, host.name, security_groups=[self.everyone],
                         fixed_ips=[{'subnet_id': subnet}])
        nic = self.start_guest(host, port)
        self.wait_until_active(nic)
        machine = self.useFixture(network_node.Machine(nic))
        machine.run('ip', 'address', 'add', nic.address + '/24',
                    'dev', 'eth0')
        machine.run('ip', 'route', 'add', 'default', 'via',
                    nic.address.rpartition('.')[0] + '.1')
        self.useFixture(Web(machine.peer))
        machine.nic = nic
        return machine

    def wait_until_known_as(self, who, address, at):
        """Wait until somebody there has heard who speaks, as this address."""
        heard = []

        def is_known():
            heard.append(who('http://%s/' % at))
            return heard[-1] == address
        patience.wait_until(is_known, lambda: '%s at %s: %s' % (
            address, at, heard[-5:]))

    def fetch(self, url):
        """Return what the data centre is told."""
        return network_node.fetch(self.other.peer, url)

    def interfaces(self, host):
        """Return what a host has of interfaces, by the port of each."""
        def interfaces():
            with nl.Netlink() as netlink:
                found = list(filter(mark.is_interface, netlink.links()))
            # One that is being made has no alias yet.
            marks = [mark.InterfaceMark.parse(each.alias) for each in found]
            return {its and its.port_id: link
                    for its, link in zip(marks, found)}
        return host.run(interfaces)

    def inner(self, node, router):
        """Return what is in a router, by the names of its interfaces."""
        return {each['ifname']: each for each in json.loads(node.run(
            'ip', '-n', 'qrouter-' + router['id'], '-json', 'address'))
            if each['ifname'] != 'lo'}

    def wait_until_wired(self, host, router):
        """Wait until each of its ports has an interface, and is ACTIVE."""
        def is_so():
            ports = [each for each in self.ports(router)
                     if each['binding:host_id'] == host.name
                     or 'replicated' in each['device_owner']]
            return ports and (
                {each['id'] for each in ports} == set(self.interfaces(host))
                and all(each['status'] == 'ACTIVE' for each in ports))
        patience.wait_until(
            is_so, lambda: '%s: %s\n%s' % (
                self.interfaces(host), self.ports(router), host.log()), 0.1)

    def wait_until_nothing_is_left(self, host, node):
        patience.wait_until(
            lambda: not self.interfaces(host)
            and not node.run('ip', 'netns') and not node.processes('haproxy')
            and not node.processes('keepalived'),
            lambda: '%s %s %s' % (self.interfaces(host), node.run(
                'ip', 'netns'), node.log('l3')[-20000:]))


class RouterTest(RouterTestCase):

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
            {port: link.index for port, link in before.items()},
            {port: link.index for port, link in self.interfaces(
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
            link = outer.pop(port['id'])
            mtu = 1500 if prefix == 'qg-' else 1400
            self.assertEqual(
                (port['mac_address'], mtu, 'UP'),
                (near['address'], near['mtu'], near['operstate']))
            self.assertEqual(
                (True, mtu, False, 'fe' + port['mac_address'][2:]),
                (link.up, link.mtu, link.locked, link.mac))
            # It is wired before it has any.
            patience.wait_until(
                lambda: {each['ip_address'] for each in port['fixed_ips']}
                == addresses(self.inner(node, router)[near['ifname']]),
                lambda: str(near))
            self.assertEqual(
                port['binding:vif_details']['bridge_name'],
                mark.InterfaceMark.parse(link.alias).bridge)
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
            lambda: {1300, 1400, 1500} == {link.mtu for link in
                                           self.interfaces(self.one).values()},
            'the MTU is as it was')

    def conf_of_dvr(self):
        path = self.useFixture(fixtures.TempDir()).join('conf')
        with open(path, 'w') as file:
            file.write('[DEFAULT]\nagent_mode = dvr_snat\n')
        return path


class HighlyAvailableTest(RouterTestCase):
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
            with pyroute2.IPRoute() as ip:
                ip.link('add', ifname=bridge, kind='bridge',
                        br_mcast_snooping=0, address=mac)
                index, = ip.link_lookup(ifname=bridge)
                ip.link('set', index=index, state='up',
                        **hosts.addr_gen_mode(1))
                ip.link('set', index=ip.link_lookup(ifname=end)[0],
                        state='up', master=index, **hosts.addr_gen_mode(1))
        self.one.run(make)
        for number, host in enumerate((self.one, self.other)):
            host.run(join, '06:00:00:00:00:%02x' % number)

    def set_wires(self, state):
        with pyroute2.IPRoute() as ip:
            for link in ip.get_links():
                if link.get_attr('IFLA_IFNAME').startswith('w'):
                    ip.link('set', index=link['index'], state=state)

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
            and addresses(each)]
        return found[0] if len(found) == 1 else None

    def assert_one_has_addresses(self, nodes, router, which):
        self.assertIs(which, self.one_has_addresses(nodes, router))
