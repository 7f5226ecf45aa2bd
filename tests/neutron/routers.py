# SPDX-License-Identifier: Apache-2.0

"""A Neutron with routers, and hosts on whose bridges they are."""

import json
import threading

import fixtures
import pyroute2

from tests import hosts
from tests.neutron import base
from tests.neutron import cloud
from tests.neutron import hypervisor
from tests.neutron import network_guest
from tests.neutron import network_node
from tests import patience
from vif_plug_tapmac.kernel import link
from vif_plug_tapmac.kernel import netlink as nl
from vif_plug_tapmac import mark

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
        class Handler(base.http_server.BaseHTTPRequestHandler):

            def do_GET(self):
                body = self.client_address[0].encode()
                self.send_response(200)
                self.send_header('Content-Length', str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments):
                pass
        server = self._peer.run(lambda: base.http_server.ThreadingHTTPServer(
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
        return base.shared(RouterCloud)

    def setUp(self):
        super().setUp()
        missing = network_node.NetworkNode.missing()
        if missing:
            self.cannot_run(missing)
        self.neutron.request('PUT', 'networks/' + self.network['id'],
                             {'network': {'router:external': True}})
        # Of tests before, and long taken for alive: they would get a router.
        for agent in self.neutron.request(
                'GET', 'agents?agent_type=L3%20agent')['agents']:
            self.neutron.request('DELETE', 'agents/' + agent['id'])
        self.everyone = self.outsiders()
        # Answers, which no stateless group knows.
        self.add_rules(self.everyone, {'protocol': 'tcp'})
        self.other.run(self._make_gateway)
        self.useFixture(Web(self.other.peer))

    def _make_gateway(self):
        with pyroute2.IPRoute() as ip:
            bridge, = ip.link_lookup(ifname=hypervisor.BRIDGE)
            ip.addr('add', index=bridge, address=GATEWAY, prefixlen=24)

    def make_bridge(self, name, mac):
        with pyroute2.IPRoute() as ip:
            ip.link('add', ifname=name, kind='bridge', address=mac,
                    br_mcast_snooping=0)
            index, = ip.link_lookup(ifname=name)
            ip.link('set', index=index, state='up',
                    **hosts.addr_gen_mode(link.ADDR_GEN_NONE))
        return index

    def node(self, host, more=''):
        node = self.useFixture(network_node.NetworkNode(host, more))
        self.addOnException(lambda _: print(
            host.name, node.log('l3')[-20000:]))
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
        machine = self.useFixture(network_guest.Machine(nic))
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
        return network_guest.fetch(self.other.peer, url)

    def interfaces(self, host):
        """Return what a host has of interfaces, by the port of each."""
        def interfaces():
            with nl.Netlink() as netlink:
                found = list(filter(mark.is_interface, netlink.links()))
            # One that is being made has no alias yet.
            marks = [mark.InterfaceMark.parse(each.alias) for each in found]
            return {its and its.port_id: each
                    for its, each in zip(marks, found)}
        return host.run(interfaces)

    def inner(self, node, router):
        """Return what is in a router, by the names of its interfaces."""
        return {each['ifname']: each for each in json.loads(node.run(
            'ip', '-n', 'qrouter-' + router['id'], '-json', 'address'))
            if each['ifname'] != 'lo'}

    def wait_until_wired(self, host, router):
        """Wait until each of its ports has an interface, and is ACTIVE.

        A highly available one has an interface for each on each of its hosts,
        wherever that port is bound; only of those by which they hear of each
        other each host has its own. Source: neutron/agent/l3/ha_router.py,
        external_gateway_added
        """
        def is_so():
            ports = [each for each in self.ports(router)
                     if each['binding:host_id'] == host.name
                     or each['device_owner'] != 'network:router_ha_interface']
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
