# SPDX-License-Identifier: Apache-2.0

"""From Neutron's Linux bridge agent to tapmac, by the page that says how.

Three hosts, two networks, six guests. Test strategy: what the page shows is
what is done, block by block; after each step the cloud must work, for guests
that run, that come, and that migrate.
"""

import contextlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import unittest
import uuid

import os_vif
from os_vif.objects import vif as vif_objects

from tests import base as tests_base
from tests import compute_host
from tests import documents
from tests import hosts
from tests.neutron import base
from tests.neutron import front
from tests.neutron import traffic
from tests import patience
from vif_plug_tapmac.kernel import bridge_health
from vif_plug_tapmac import mark
from vif_plug_tapmac import privsep
from vif_plug_tapmac.wanted import names

HOSTS = 'compute1', 'compute2', 'compute3'
#: What the page calls things of one host, that have other names here.
_VLAN_BRIDGE, _FLAT_BRIDGE = 'brq5d6a7b8c-00', 'brq6e7b8c9d-00'
_MAC = '52:54:00:12:34:56'
_PORT, _AGENT = tests_base.VIF_ID, '7f5c1a2e-0000-4000-8000-000000000000'
_VLAN = 200
#: What tests/functional/test_coming_over.py does.
_OTHERS = 'Security groups again'
_OTHER_PREFIX = tests_base.CHECKOUT / '.venv' / 'neutron-29'


class ComputeHost(compute_host.VisitedHost):
    """One of the three.

    :ivar agent: the id of its Linux bridge agent in Neutron
    """

    agent = ''

    def __init__(self, name):
        super().__init__()
        self.name = name

    def add_bridge(self, name):
        with self.entered():
            return super().add_bridge(name)

    def run(self, commands):
        """Run commands in a shell there."""
        with self.entered():
            done = subprocess.run(['sh', '-ec', commands], text=True,
                                  capture_output=True)
        assert done.returncode == 0, (commands, done.stderr)
        return done.stdout

    def lay_cable(self, name, switch, bridge):
        """Have a device that leads to a bridge of another host."""
        end = '%s-%s' % (self.name[-1], name)
        self.add(name, 'veth', address='52:54:00:%02x:00:0%s' % (
            len(name), self.name[-1]), peer={
                'ifname': end, 'net_ns_fd': switch.namespace})
        switch.set(end, master=switch.link(bridge).index)
        for host, each in (self, name), (switch, end):
            host.quiet_ipv6(each)
            host.set(each, state='up')

    def add_agents_bridge(self, name, uplink):
        """Have what the agent's ensure_bridge() makes."""
        self.add(name, 'bridge')
        self.set(name, kind='bridge', br_forward_delay=0)
        self.set(name, kind='bridge', br_stp_state=0)
        self.set(name, state='up')
        self.set(uplink, master=self.link(name).index)

    def is_operational(self, name):
        with self.entered():
            self.wait_until_forwarding(name)


class Road(base.NeutronTestCase):
    """The cloud, and what is done to it."""

    def find_neutron(self):
        """Return Neutron 25, as the page begins.

        It is started again and again: none of it is for others than us.
        """
        return self.useFixture(base.Neutron(
            more='[DEFAULT]\nrpc_workers = 0\n'
            + self.block('linuxbridge = true'), processes=1))

    def setUp(self):
        if not (_OTHER_PREFIX / 'bin' / 'python').exists():
            self.cannot_run('needs %s: run tools/peers.sh' % _OTHER_PREFIX)
        self.shown = [block.text for block in documents.blocks(documents.ROAD)
                      if block.language in ('shell', 'ini')
                      and block.section != _OTHERS]
        super().setUp()
        missing = hosts.missing_privilege()
        if missing:
            self.cannot_run(missing)
        bridge_health._warned.clear()
        privsep.vif_plug.set_client_mode(False)
        self.addCleanup(setattr, os_vif, '_EXT_MANAGER', None)
        self.configure(udev_timeout=0)
        self.front = self.useFixture(front.Front(self.neutron))
        # Nova 32's.
        self.front.nova.microversion = '2.100'
        self.hosts = {name: self.useFixture(ComputeHost(name))
                      for name in HOSTS}
        self.set_up_network()
        self.bridges = {_VLAN_BRIDGE: self.bridge_of(self.vlan),
                        _FLAT_BRIDGE: self.bridge_of(self.flat)}
        self.guests = {}
        for network in self.vlan, self.flat:
            for name in HOSTS:
                port = self.new_port(network, name)
                self.guests[port['id']] = self.start_guest(name, port)

    def set_up_network(self):
        switch = self.useFixture(ComputeHost('switch'))
        for bridge in 'vlan', 'flat':
            switch.add_bridge(bridge)
        self.vlan, self.flat = self.vlan_network(_VLAN), self.flat_network()
        for name, host in self.hosts.items():
            host.agent = self.linux_bridge_agent(name)
            for network, uplink, bridge in (
                    (self.vlan, 'eth1.%d' % _VLAN, 'vlan'),
                    (self.flat, 'eth1', 'flat')):
                host.lay_cable(uplink, switch, bridge)
                host.add_agents_bridge(self.bridge_of(network), uplink)
                for each, device in (host, uplink), (
                        switch, '%s-%s' % (name[-1], uplink)):
                    each.is_operational(device)

    @staticmethod
    def bridge_of(network):
        return 'brq' + network['id'][:11]

    # What the page shows.

    def block(self, *words):
        """Return a block of the page, which is done then."""
        found, = (text for text in self.shown
                  if all(word in text for word in words))
        self.shown.remove(found)
        return found

    def translated(self, text, host=None, **more):
        """Return what it says, with the names that things have here."""
        known = dict(self.bridges, **more)
        if host is not None:
            known['compute1'] = host.name
            known[_AGENT] = host.agent
        return re.sub('|'.join(map(re.escape, known)),
                      lambda match: known[match[0]], text)

    def configure_neutron(self, text):
        """Add a block to ml2_conf.ini, and start neutron-server again."""
        before = self.neutron.configuration.read_text()
        self.neutron.configuration.write_text(before + text)
        self.neutron.restart()

    def configure_nova(self, text):
        """Have these options in nova.conf of each host, as this process."""
        for name, value in re.findall(r'^(\w+) = (.*)$', text, re.MULTILINE):
            self.configure(**{name: dict(
                pair.split(':') for pair in value.split(','))
                if name == 'bridge_uplinks' else value.split(',')})
        os_vif.initialize(reset=True)

    def run_commands(self, text, host):
        for command in text.splitlines():
            program, *arguments = self.translated(command, host).split()
            if program == 'ip':
                host.run(' '.join([program, *arguments]))
            elif program == 'tapmac-migrate':
                self.migrate(arguments)
            else:
                self.RUN[program, arguments[0]](self, host, arguments[1:])

    def migrate(self, arguments):
        """Run tapmac-migrate, which must be content."""
        status, output, errors = self.front.run(*arguments)
        self.assertEqual(0, status, (arguments, output, errors))

    def stop_agent(self, host, arguments):
        """Have its agent stopped, as Neutron sees it."""
        self.assertEqual(['--now', 'neutron-linuxbridge-agent'], arguments)
        self.neutron.database.execute(
            'UPDATE neutron.agents SET heartbeat_timestamp = created_at '
            'WHERE id = %s', host.agent)

    def delete_agent(self, host, arguments):
        self.assertEqual(['agent', 'delete', host.agent], arguments)
        self.neutron.request('DELETE', 'agents/' + host.agent)

    def start_agent(self, host, arguments):
        self.assertEqual(['--now', 'neutron-linuxbridge-agent'], arguments)
        host.agent = self.linux_bridge_agent(host.name)

    def change_profile(self, host, arguments):
        action, option, value, port = arguments
        self.assertEqual('--binding-profile', option)
        self.update({'id': port}, **{'binding:profile': dict(
            [value.split('=')] if action == 'set' else [])})

    RUN = {('systemctl', 'disable'): stop_agent,
           ('systemctl', 'enable'): start_agent,
           ('openstack', 'network'): delete_agent,
           ('openstack', 'port'): change_profile}

    # Ports, VIFs and guests.

    def ports(self, host=None):
        return self.neutron.request('GET', 'ports' + (
            '' if host is None else '?binding:host_id=' + host.name))['ports']

    @staticmethod
    def driver(port):
        return port['binding:vif_details'].get('bound_drivers', {}).get('0')

    def new_port(self, network, host_name):
        """Create a port; if the agent's driver has it, it reports it up."""
        server = str(uuid.uuid4())
        self.front.nova.servers[server] = {'host': host_name}
        port = self.port(network, host_name, device_id=server)
        if self.driver(port) == 'linuxbridge':
            self.report_up(port)
        return self.show(port)

    def report_up(self, port):
        """Do what the agent has Neutron do when it has wired a port."""
        self.neutron.database.execute(
            'UPDATE neutron.ports SET status = "ACTIVE" WHERE id = %s',
            port['id'])
        self.neutron.database.execute(
            'DELETE FROM neutron.provisioningblocks WHERE standard_attr_id = '
            '(SELECT standard_attr_id FROM neutron.ports WHERE id = %s)',
            port['id'])

    def vif(self, port):
        """Return what Nova makes of a port."""
        details = port['binding:vif_details']
        fields = {'id': port['id'], 'address': port['mac_address'],
                  'vif_name': names.nova_tap_name(port['id']),
                  'bridge_name': details.get('bridge_name')
                  or 'brq' + port['network_id'][:11]}
        if port['binding:vif_type'] == 'bridge':
            return tests_base.make_vif(plugin='linux_bridge', **fields)
        made = tests_base.make_vif(
            plugin='ovs', cls=vif_objects.VIFOpenVSwitch, **fields)
        made.port_profile = vif_objects.VIFPortProfileOpenVSwitch(
            interface_id=port['id'], create_tap=details['ovs_create_tap'],
            datapath_type=details['datapath_type'])
        return made

    def plug(self, port):
        with self.hosts[port['binding:host_id']].entered():
            os_vif.plug(self.vif(port), tests_base.INSTANCE)

    def start_guest(self, host_name, port):
        """Have a guest; if nobody made its TAP, libvirt does."""
        host, vif = self.hosts[host_name], self.vif(port)
        made = host.find(vif.vif_name) is None
        with host.entered():
            guest = hosts.Guest(vif.vif_name, port['mac_address'])
        self.addCleanup(guest.close)
        if made:
            host.quiet_ipv6(vif.vif_name)
            host.set(vif.vif_name, address='fe' + vif.address[2:],
                     master=host.link(vif.bridge_name).index, state='up')
        host.is_operational(vif.vif_name)
        return guest

    # What works.

    def assert_works(self, driver, vif_type='bridge', named=False, new=None):
        """Expect the cloud to work, whoever has a port by now.

        :param driver: of each host's ports
        :param named: whether bridges have the names of tapmac's
        :param new: of each host's ports that are new, None: the same
        """
        seen = self.ports()
        self.assertEqual(6, len(seen))
        for port in seen:
            self.assert_bound(port, driver, vif_type, named)
            if driver[port['binding:host_id']] == 'tapmac':
                # As nova-compute does when it starts.
                self.plug(port)
        self.assertNotIn('is used by a guest', self.logs.output)
        self.assert_frames_flow()
        self.assert_guests_come(new or driver, vif_type, named)
        self.assert_guests_may_migrate(seen)

    def assert_bound(self, port, driver, vif_type, named):
        ours = driver[port['binding:host_id']] == 'tapmac'
        bridge = self.bridge_of({'id': port['network_id']})
        if named:
            bridge = ('br100-%d' % _VLAN
                      if port['network_id'] == self.vlan['id'] else 'br100')
        self.assertEqual(
            ('ACTIVE', driver[port['binding:host_id']],
             vif_type if ours else 'bridge', bridge if ours else None),
            (port['status'], self.driver(port), port['binding:vif_type'],
             port['binding:vif_details'].get('bridge_name')), port)

    def assert_frames_flow(self):
        with self.traffic.held():
            self.assert_lost_nothing()

    def assert_lost_nothing(self):
        self.assertEqual({}, self.traffic.lost())

    def assert_guests_come(self, driver, vif_type, named):
        """Each host can have a new one, who reaches another host."""
        for host_name, network in zip(HOSTS, (
                self.vlan, self.flat, self.vlan)):
            port = self.new_port(network, host_name)
            self.assert_bound(port, driver, vif_type, named)
            if self.driver(port) == 'tapmac':
                self.plug(port)
            guest = self.start_guest(host_name, port)
            peer = next(self.guests[each['id']] for each in self.ports()
                        if each['id'] in self.guests
                        and each['network_id'] == network['id']
                        and each['binding:host_id'] != host_name)
            with self.traffic.held():
                guest.send(peer.mac, b'I have come')
                self.assertTrue(peer.receive(b'I have come'))
            guest.close()
            with self.hosts[host_name].entered():
                os_vif.unplug(self.vif(port), tests_base.INSTANCE)
            self._delete('ports/' + port['id'])
            del self.front.nova.servers[port['device_id']]

    def assert_guests_may_migrate(self, seen):
        """Each may go to the next host, whosever that is: what Nova asks."""
        for port in seen[:3]:
            target = HOSTS[HOSTS.index(port['binding:host_id']) - 1]
            second = self.bind_second(port, target)
            self.assertEqual('INACTIVE', second['status'])
            self.neutron.request('DELETE', 'ports/%s/bindings/%s' % (
                port['id'], target))

    def hard_reboot(self, port):
        """Have a guest off and on again, as Nova does it."""
        host_name = port['binding:host_id']
        self.guests[port['id']].close()
        with self.hosts[host_name].entered():
            os_vif.unplug(self.vif(port), tests_base.INSTANCE)
        self.plug(port)
        self.guests[port['id']] = self.start_guest(host_name, port)


class RoadTest(Road):
    """The way there; in the long form, after each step the way back, too."""

    def test_from_end_to_end(self):
        """By the steps of the page, in their order."""
        self.drivers = dict.fromkeys(HOSTS, 'linuxbridge')
        with self.traffic_of_all():
            self.go()
        self.assertGreater(self.traffic.sent(), 100)
        self.assert_lost_nothing()
        self.reboot_all()
        if patience.LONG:
            self.return_with_taps_of_ours()
        self.clean_up(self.hosts['compute1'])

    @contextlib.contextmanager
    def traffic_of_all(self):
        guests = list(self.guests.values())
        with traffic.Traffic(guests[:3], guests[3:]) as self.traffic:
            yield

    def go(self):
        self.go_beside_the_agent()
        self.move_hosts()
        self.go_without_linuxbridge()
        self.bind_as_ovs()
        self.name_bridges()

    def go_beside_the_agent(self):
        self.uplinks = self.translated(self.block(
            'claim_plugins = linux_bridge'))
        self.configure_nova(self.uplinks)
        self.assert_works(self.drivers)
        self.run_commands(self.block('tapmac-migrate plan'), None)
        if patience.LONG:
            for drivers in 'linuxbridge', 'tapmac,linuxbridge,l2population':
                self.use_drivers(drivers)
                self.assert_works(self.drivers)

    def use_drivers(self, drivers):
        """Have these in Neutron 25, and what goes with them."""
        trunk = 'trunk,' if 'linuxbridge' in drivers else ''
        self.configure_neutron(
            '[DEFAULT]\nservice_plugins = %sqos,segments\n'
            '[ml2]\nmechanism_drivers = %s\n' % (trunk, drivers))

    def move_hosts(self):
        """One after the other; the first one goes back once."""
        pinning = self.block('address ' + _MAC)
        self.naming = self.block('hosts = compute1')
        self.rebinding, *others = [
            text for text in self.shown
            if text == 'tapmac-migrate rebind compute1\n']
        for each in self.rebinding, *others:
            self.shown.remove(each)
        self.leaving = self.block('systemctl disable')
        self.returning = self.block('systemctl enable')
        for host in self.hosts.values():
            for bridge in self.bridges.values():
                self.run_commands(self.translated(
                    pinning, **{_VLAN_BRIDGE: bridge,
                                _MAC: host.link(bridge).mac}), host)
        first, *_ = hosts = list(self.hosts.values())
        self.name_hosts(first.name)
        self.move(first)
        self.go_back(first)
        self.name_hosts(*HOSTS)
        for host in hosts:
            self.move(host, new=dict.fromkeys(HOSTS, 'tapmac'))
        if patience.LONG:
            self.go_back(hosts[1])
            self.name_hosts(*HOSTS)
            self.move(hosts[1], new=dict.fromkeys(HOSTS, 'tapmac'))

    def name_hosts(self, *names):
        self.configure_neutron(
            self.naming.replace('compute1', ','.join(names)))

    def move(self, host, new=None):
        self.run_commands(self.rebinding, host)
        self.drivers[host.name] = 'tapmac'
        self.assert_works(self.drivers, new=new)
        self.run_commands(self.leaving, host)

    def go_back(self, host):
        enabling, *touching = self.returning.splitlines()
        self.run_commands(enabling, host)
        self.drivers[host.name] = 'linuxbridge'
        self.name_hosts(*(name for name, driver in self.drivers.items()
                          if driver == 'tapmac'))
        for port in self.ports(host):
            for command in touching:
                self.run_commands(command.replace(_PORT, port['id']), host)
            self.report_up(port)
            self.assertEqual({}, self.show(port)['binding:profile'])
        self.assert_works(self.drivers)

    def go_without_linuxbridge(self):
        """First on Neutron 25, then on the newer one."""
        self.run_commands(self.block('tapmac-migrate check'), None)
        if patience.LONG:
            for drivers in 'tapmac', 'tapmac,linuxbridge':
                self.use_drivers(drivers)
                self.assert_works(self.drivers)
        alone = self.block('mechanism_drivers = tapmac\n')
        _, *upgrading = self.block('neutron-db-manage').split()
        self.upgrade(alone, *upgrading)
        self.assert_works(self.drivers)
        if patience.LONG:
            self.return_to_the_older()
            self.upgrade(alone, *upgrading)
            self.assert_works(self.drivers)

    def upgrade(self, text, *arguments):
        """Have the newer Neutron; of the database a dump is kept."""
        self.former = self.neutron.configuration.read_text()
        self.neutron.move_to(29, _OTHER_PREFIX, re.sub(
            'tenant_(?=network_types)', 'project_', self.former.replace(
                'trunk,qos', 'qos')) + text, *arguments,
            before=lambda: self.neutron.database.copy('neutron', 'dump'))

    def return_to_the_older(self):
        self.neutron.move_to(
            base.NEUTRON, pathlib.Path(sys.prefix), self.former,
            before=lambda: self.neutron.database.copy('dump', 'neutron'))
        self.assert_works(self.drivers)

    def bind_as_ovs(self):
        self.front.nova.microversion = '2.101'
        self.configure_nova(self.block('claim_plugins = ovs,linux_bridge'))
        changing = self.block('bridge_hosts =\n')
        self.bind_anew(changing)
        self.assert_works(self.drivers, 'ovs')
        if patience.LONG:
            self.return_to_bridge()
            self.bind_anew(changing)
            self.assert_works(self.drivers, 'ovs')

    def bind_anew(self, configuration):
        self.configure_neutron(configuration)
        for host in self.hosts.values():
            self.run_commands(self.rebinding, host)

    def return_to_bridge(self):
        self.bind_anew('[ml2_tapmac]\nbridge_hosts = *\n')
        self.assert_works(self.drivers)

    def name_bridges(self):
        naming = (self.block('vlan_bridge = {bridge}-{vlan}'),
                  self.block('bridge_uplinks = br100:eth1'))
        self.renaming = self.block('link set %s name br100\n' % _FLAT_BRIDGE)
        self.older = self.block('link set %s down\n' % _VLAN_BRIDGE)
        self.rename_bridges(*naming, self.renaming)
        self.assert_works(self.drivers, 'ovs', True)
        if patience.LONG:
            self.return_to_old_names()
            self.rename_bridges(*naming, self.renaming)
            self.assert_works(self.drivers, 'ovs', True)

    def return_to_old_names(self):
        uplinks = re.search('bridge_uplinks = .*\n', self.uplinks)[0]
        self.rename_bridges(
            '[ml2_tapmac]\nflat_bridge = brq{network}\n'
            'vlan_bridge = brq{network}\n', uplinks,
            re.sub(r'set (\S+) name (\S+)', r'set \2 name \1',
                   self.renaming))
        self.assert_works(self.drivers, 'ovs')

    def rename_bridges(self, of_neutron, of_nova, commands):
        """Have all bridges get other names, host by host."""
        self.configure_neutron(of_neutron)
        self.configure_nova(of_nova)
        for host in self.hosts.values():
            if hosts_rename(host):
                self.run_commands(commands, host)
            else:
                self.rename_while_down(host, commands)
            self.run_commands(self.rebinding, host)

    def rename_while_down(self, host, commands):
        """Do it with the other block, which is of one bridge."""
        for former, new in re.findall(r'set (\S+) name (\S+)', commands):
            block = self.translated(
                self.older, host, **{_VLAN_BRIDGE: self.translated(former),
                                     'br100-200': self.translated(new)})
            with self.traffic.interrupted():
                host.run(block)

    def return_with_taps_of_ours(self):
        """To bridges of libvirt's, with the next hard reboots."""
        with self.traffic_of_all():
            self.return_to_old_names()
            self.return_to_bridge()
        self.assert_lost_nothing()
        for port in self.ports():
            self.hard_reboot(port)
            self.assertIsNone(self.hosts[port['binding:host_id']].link(
                self.vif(port).vif_name).alias)
        with self.traffic_of_all():
            self.assert_works(self.drivers)

    def reboot_all(self):
        """From now on each has a TAP of ours."""
        for port in self.ports():
            self.hard_reboot(port)
            vif, host = self.vif(port), self.hosts[port['binding:host_id']]
            found = mark.TapMark.parse(host.link(vif.vif_name).alias)
            self.assertEqual((port['id'], vif.bridge_name), (
                found.vif_id, found.bridge))
        with self.traffic_of_all():
            self.assert_frames_flow()

    def clean_up(self, host):
        """What the agent left is gone, and nothing else."""
        if shutil.which('ebtables-save') is None:
            self.cannot_run('needs iptables-save and ebtables-save')
        host.run(_RULES_OF_OTHERS)
        saved = 'iptables-save; ebtables-save'
        before = without_time(host.run(saved))
        host.run(_RULES_OF_THE_AGENT)
        self.assertIn('neutron', host.run(saved))
        host.run(self.block('iptables-save'))
        self.assertEqual(before, without_time(host.run(saved)))
        switching_off = self.block('sysctl')
        if os.path.isdir('/proc/sys/net/bridge'):
            host.run(switching_off)
        self.assertEqual([], self.shown)


_RULES_OF_OTHERS = """
iptables -A FORWARD -s 192.0.2.1 -j ACCEPT
ebtables -t nat -A PREROUTING -i eth9 -j DROP
"""
#: As Neutron 25 makes them.
_RULES_OF_THE_AGENT = """
iptables -N neutron-filter-top
iptables -N neutron-linuxbri-FORWARD
iptables -N neutron-linuxbri-i1a2b3c4d-5
iptables -I FORWARD -j neutron-filter-top
iptables -I FORWARD -j neutron-linuxbri-FORWARD
iptables -A neutron-linuxbri-FORWARD -m physdev --physdev-out tap1a2b3c4d-5e \
    --physdev-is-bridged -j neutron-linuxbri-i1a2b3c4d-5
iptables -A neutron-linuxbri-i1a2b3c4d-5 -j DROP
for kind in MAC ARP; do
    ebtables -t nat -N neutron$kind-tap1a2b3c4d-5e -P DROP
    ebtables -t nat -A neutron$kind-tap1a2b3c4d-5e -j DROP
    ebtables -t nat -I PREROUTING -i tap1a2b3c4d-5e \
        -j neutron$kind-tap1a2b3c4d-5e
done
"""


def without_time(rules):
    """Return what iptables-save says without date and counters."""
    return re.sub(r'(?m)^#.*\n|\[\d+:\d+\]', '', rules)


def hosts_rename(host):
    with host.entered():
        return hosts.renames_what_is_up(host)


def load_tests(loader, tests, pattern):
    """Load it where the road begins."""
    return tests if base.NEUTRON == 25 else unittest.TestSuite()
