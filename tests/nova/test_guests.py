# SPDX-License-Identifier: Apache-2.0

"""Real guests on each route: seen from inside, and by netlink on the host.

Each test ends with the host as it was before, to the last link, FDB entry and
file.
"""

from importlib import metadata
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import unittest

import fixtures
from nova import context
from nova import objects
import os_vif
from os_vif.objects import vif as vif_objects
from oslo_config import cfg
from oslo_utils import uuidutils
from testtools import content

from tests import base
from tests import compute_host
from tests import libvirt_domains
from tests import machine
from tests.nova import base as nova_base
from tests.nova import cloud
from tests.nova import guests
from tests.nova import ping as pings
from tests.nova import raw
from tests.nova import test_flows
from tests import nova_service
from tests import patience
from vif_plug_tapmac import opts

_BRIDGE_ADDRESS, _UPLINK_ADDRESS = '10.0.0.2', '10.0.0.3'
_LAST_ADDRESS = '10.0.0.98'
_OTHER_BRIDGE = 'br200'

_STRANGER = '52:54:00:00:00:99'
#: What a guest can have its kernel send, and how the frame goes on after its
#: two MACs.
_FRAMES = {
    'ARP': ('arping -c 1 -w 1 -I eth0 10.0.0.99', rb'\x08\x06'),
    'ICMP': ('ping -c 1 -W 1 ' + _UPLINK_ADDRESS,
             rb'\x08\x00.{9}\x01'),
    'TCP': ('nc -w 1 %s 9 < /dev/null' % _UPLINK_ADDRESS,
            rb'\x08\x00.{9}\x06'),
    'DHCP': ('udhcpc -n -q -t 1 -T 1 -i eth0',
             rb'\x08\x00.{20}\x00\x44\x00\x43'),
    'neighbour discovery': ('ping6 -c 1 -W 1 fe80::99%eth0',
                            rb'\x86\xdd.{6}\x3a'),
}


class Guests(test_flows.Guests):
    """What each route must do; each is a class of its own."""

    def setUp(self):
        super().setUp()
        self.host = self.hosts['host1']
        self.nova_directory = self.useFixture(fixtures.TempDir()).path
        self.uplink = self.useFixture(compute_host.ComputeHost())
        self.consoles = {}
        self.addCleanup(self.close_consoles)

    def lay_network(self, mtu=1450):
        """Have br100 with an uplink to another host, and both an address."""
        self.mtu = mtu
        network = self.neutron.network_1
        self.neutron._networks[network['id']] = dict(network, mtu=mtu)
        self.make_bridge(base.BRIDGE)
        self.connect('eth1', (self.host, base.BRIDGE),
                     (self.uplink, _UPLINK_ADDRESS))
        self.give_address(self.host, base.BRIDGE, _BRIDGE_ADDRESS)
        self.assert_answers(self.uplink, _BRIDGE_ADDRESS)
        self.before = self.host.state(), self.files()

    def make_bridge(self, name, host=None):
        """Have a bridge of ours, as the first guest on it would."""
        vif = base.make_vif(bridge_name=name, mtu=self.mtu)
        with (host or self.host).entered():
            os_vif.plug(vif, base.INSTANCE)
            os_vif.unplug(vif, base.INSTANCE)

    def connect(self, name, *ends):
        """Lay a cable between two hosts.

        :param name: of its ends
        :param ends: for each its host, and the bridge it is a port of, or the
            address it has
        """
        (host, _), (other, _) = ends
        host.add(name, 'veth', mtu=self.mtu, peer={
            'ifname': name, 'mtu': self.mtu, 'net_ns_fd': other.namespace})
        for host, place in ends:
            host.quiet_ipv6(name)
            host.set(name, state='up')
            if place.startswith('br'):
                host.set(name, master=host.link(place).index)
            else:
                self.give_address(host, name, place)

    def give_address(self, host, name, address):
        host.ip.addr('add', index=host.link(name).index, address=address,
                     prefixlen=24)
        with host.entered():
            # Else nobody is there who does not answer for three seconds.
            for kind in 'mcast', 'ucast':
                pathlib.Path('/proc/sys/net/ipv4/neigh', name,
                             kind + '_solicit').write_text(
                                 '%d' % patience.HANG)

    def files(self):
        """Return which files there are because of guests."""
        return self.host.files(), [
            name for name in os.listdir(cfg.CONF.instances_path)
            if uuidutils.is_uuid_like(name)]

    def close_consoles(self):
        while self.consoles:
            self.consoles.popitem()[1].close()

    # Guests

    def boot_guest(self, port=None, flavor_id='1', **options):
        """Boot a guest; return its server, once Nova says it is active."""
        port = port or self.port
        server = self._create_server(
            networks=[{'port': port['id']}], host='host1',
            flavor_id=flavor_id, **options)
        return server

    def console(self, server, host='host1', fresh=False):
        """Return a guest's serial port, once it has booted.

        :param fresh: whether QEMU is another one than before
        """
        if fresh and server['id'] in self.consoles:
            self.consoles.pop(server['id']).close()
        if server['id'] not in self.consoles:
            console = guests.Console(self.hosts[host].virsh(
                'ttyconsole', server['id']))
            self.consoles[server['id']] = console
            console.wait_until_up()
        return self.consoles[server['id']]

    def make_port(self, number, bridge=base.BRIDGE,
                  mac='fa:16:3e:00:00:%02x'):
        """Have Neutron know one port more.

        :param number: from 1, or the addresses of hosts clash
        """
        port = dict(self.neutron.port_2, mac_address=mac % (number + 10),
                    id='%08x-0000-4000-8000-000000000000' % number)
        self.bind(port, bridge_name=bridge)
        return port

    def address(self, port, network=0):
        """Return which address the guest has there; see guest_init.sh."""
        return '10.0.%d.%d' % (network, int(port['mac_address'][-2:], 16))

    def assert_well(self, server, port=None, host='host1', fresh=False,
                    **expected):
        """Expect that all is right, from inside and from outside."""
        port = port or self.port
        console = self.console(server, host, fresh)
        self.assertEqual(
            [port['mac_address'], str(self.mtu)],
            console.run('cat /sys/class/net/eth0/address '
                        '/sys/class/net/eth0/mtu').split())
        tap = self.assert_runs(host, port, mtu=self.mtu, **expected)
        self.hosts[host].wait_until_forwarding(tap.name)
        self.assert_answers(self.uplink, self.address(port))
        if host == 'host1':
            self.assert_answers(self.host, self.address(port))
        console.run('ping -c 1 -W %d %s' % (patience.HANG, _UPLINK_ADDRESS))
        return tap

    def assert_answers(self, host, address, *options):
        said = guests.run_on(host, 'busybox', 'ping', '-c', '1', '-W',
                             '%d' % patience.HANG, *options, address)
        self.assertIn('1 packets received', said)

    def ping(self, port=None):
        """Ping a guest from the uplink until the test says end()."""
        ping = guests.Ping(self.uplink, self.address(port or self.port))
        self.addCleanup(ping.close)
        return ping

    def sight(self, host):
        sight = guests.Sight(host)
        self.addCleanup(sight.close)
        return sight

    def assert_moved(self, ping, host1, host2):
        """Expect of a live migration that no bridge lost anything.

        For how long a guest stands still is up to QEMU, and so is for how long
        it holds the TAP that the guest has left. What it does not take from
        there is lost, and no bridge loses anything.

        :param host1: what was seen there, and on host2
        """
        taken = {number for _, is_out, number in host1 if not is_out}
        sent = {number for _, is_out, number in host1 if is_out}
        self.assertLessEqual(set(range(ping.sent)), taken)
        self.assertEqual(set(), taken - sent)
        # What came to its new host got to its TAP there. Whether QEMU, which
        # has only begun there, takes it or forgets it, is not ours to say.
        to_host2 = {number for link, is_out, number in host1
                    if is_out and link == 'eth2' and number is not None}
        to_tap = {number for link, is_out, number in host2
                  if is_out and link == self.tap}
        self.assertTrue(to_host2)
        self.assertEqual(set(), to_host2 - to_tap)
        # QEMU says where the guest is, and nobody keeps that back.
        told = host2.count((self.tap, False, None))
        self.assertGreater(told, 0)
        self.assertEqual(told, host2.count(('eth2', True, None)))

    def lose_nothing(self, action, *arguments):
        """Do something under a ping, of which nothing may be lost."""
        ping = self.ping()
        action(*arguments)
        ping.end()
        self.assertGreater(ping.sent, 100)
        self.assertEqual([], ping.lost, 'of %d' % ping.sent)

    def join_hosts(self):
        """Have host2, one wire with host1, and libvirtds on speaking terms.

        :returns: it
        """
        other = self.hosts['host2']
        self.make_bridge(base.BRIDGE, other)
        self.connect('eth2', (self.host, base.BRIDGE), (other, base.BRIDGE))
        # Else a guest that has left is missed here until Nova unplugs it.
        self.flags(bridge_uplinks={base.BRIDGE: 'eth2'}, group=opts.GROUP)
        self.connect('eth0', *((self.hosts[name], address) for name, address
                               in machine.Machine.ADDRESSES.items()))
        self.start_compute('host2')
        return other

    def fail_to_plug_at_target(self, server):
        """Migrate a guest live to host2, where its name is taken."""
        target = self.hosts['host2']
        target.add(self.tap, 'bridge')
        self.live_migrate_in_vain(server, 'ACTIVE')
        self.assertIn('%s: a device of another kind (bridge)' % self.tap,
                      self.stdlog.logger.output)
        self.assertEqual('', target.virsh('list', '--all', '--name'))
        target.delete(self.tap)

    def states(self):
        """Return what is on both hosts."""
        return [(host.state(), host.files()) for host in self.hosts.values()]

    def assert_as_before(self):
        for server in self.api.get_servers():
            self._delete_server(server)
        self.assertEqual(self.before, (self.host.state(), self.files()))


class Flows(Guests):

    def test_power(self):
        self.lay_network()
        server = self.boot_guest()
        other_port = self.neutron.port_2
        other = self.boot_guest(other_port)
        tap = self.assert_well(server)
        self.assert_well(other, other_port)
        for one, port in (server, other_port), (other, self.port):
            self.console(one).run('ping -c 1 -W %d %s' % (
                patience.HANG, self.address(port)))

        self.host.virsh('destroy', server['id'])
        self.assert_waits('host1', tap)
        self.host.virsh('start', server['id'])
        self.assert_kept(tap, self.assert_well(server, fresh=True))

        tap = self.host.find(self.tap)
        self._reboot_server(server, hard=True)
        self.assert_made_anew(tap, self.assert_well(server, fresh=True))

        tap = self.host.find(self.tap)
        self._reboot_server(server)
        self.assert_kept(tap, self.assert_well(server, fresh=True))

        tap = self.host.find(self.tap)
        self.console(server).run('touch /was-here')
        self._suspend_server(server)
        self.assert_waits('host1', tap)
        self._resume_server(server)
        self.assert_kept(tap, self.assert_well(server, fresh=True))
        self.console(server).run('ls /was-here')

        self.assert_well(other, other_port)
        self.assert_as_before()

    def test_restarts(self):
        self.lay_network()
        server = self.boot_guest()
        tap = self.assert_well(server)
        self.start_nova_compute(self.nova_guest(server)).end(signal.SIGKILL)
        tap = self.plugged_again(tap)
        self.lose_nothing(self.restart_all, server)
        self.assertEqual(tap, self.assert_well(server))
        # Nova finds the new libvirtd.
        self._reboot_server(server, hard=True)
        self.assert_well(server, fresh=True)
        self.assert_as_before()

    def restart_all(self, server):
        # Once without notice, and once as it should be.
        self.start_nova_compute().end(signal.SIGKILL)
        service = self.start_nova_compute()
        service.end()
        starts = service.log.count(
            'Starting compute node (version %s.' % nova_base.NOVA)
        self.assertGreater(starts, 2)
        self.assertEqual(starts, service.log.count('Successfully plugged vif'))
        self.host.kill_libvirtd()
        self.host.start_libvirtd()
        self.assertEqual('running', self.host.virsh('domstate', server['id']))

    def nova_guest(self, server):
        """Return what another nova-compute is to know of a guest."""
        with context.target_cell(context.get_admin_context(),
                                 self.cell_mappings['cell1']) as cell:
            instance = objects.Instance.get_by_uuid(
                cell, server['id'], expected_attrs=['info_cache'])
        return {'uuid': instance.uuid, 'name': instance.display_name,
                'vifs': instance.info_cache.network_info}

    def start_nova_compute(self, *guests):
        """Start another nova-compute on host1, in a process of its own.

        :param guests: that it does not know yet
        """
        options = ['%s = %s' % (name, ','.join(value) if isinstance(
            value, list) else value) for name, value in self.OPTIONS.items()]
        service = nova_service.NovaCompute(
            self.nova_directory, pathlib.Path(sys.executable), guests,
            driver='libvirt.LibvirtDriver', popen=self.host.popen,
            more_conf='\n'.join([*options, '[libvirt]', 'virt_type = qemu']),
            more_path=libvirt_domains.binding())
        self.addDetail('nova-compute.log', content.text_content(service.log))
        self.addDetail('stderr', content.text_content(service.stderr))
        self.assertTrue(service.started)
        return service

    def test_attach_and_two_bridges(self):
        self.lay_network()
        self.make_bridge(_OTHER_BRIDGE)
        self.before = self.host.state(), self.files()
        ports = [self.make_port(number, _OTHER_BRIDGE) for number in (1, 2)]
        server = self.boot_guest()
        other = self.boot_guest(ports[0])
        tap = self.assert_well(server)
        console, other_console = map(self.console, (server, other))
        self.assert_runs(port=ports[0], master=_OTHER_BRIDGE)
        # Nobody gets from one bridge to the other.
        for one, port in (console, ports[0]), (other_console, self.port):
            self.assertIn('100% packet loss', one.run(
                'ping -c 3 -W 1 %s || true' % self.address(port)))

        other_console.run('address eth0 1')
        self.lose_nothing(self.attach_and_detach, server, *ports)
        self.assertEqual(tap, self.assert_well(server))
        self.assert_as_before()

    def attach_and_detach(self, server, *ports):
        """Attach an interface to a guest, look at it, and detach it.

        :param ports: of a guest on the same bridge, and of the interface
        """
        console = self.console(server)
        self._attach_interface(server, ports[1]['id'])
        self.assert_runs(port=ports[1], master=_OTHER_BRIDGE)
        self.assertEqual(
            [ports[1]['mac_address'], str(self.mtu)],
            console.run('while [ ! -e /sys/class/net/eth1 ]; do :; done; '
                        'address eth1 1; cat /sys/class/net/eth1/address '
                        '/sys/class/net/eth1/mtu').split())
        console.run('ping -c 3 -W %d %s' % (
            patience.HANG, self.address(ports[0], 1)))
        self._detach_interface(server, ports[1]['id'])
        self.assert_gone('host1', ports[1])
        self.assertEqual('', console.run('ls /sys/class/net | grep eth1 || :'))

    def test_live_migration(self):
        self.lay_network()
        self.join_hosts()
        before = self.states()
        server = self.boot_guest()
        tap = self.assert_well(server)
        self.console(server).run('touch /was-here')

        self.lose_nothing(self.fail_to_plug_at_target, server)
        self.assertEqual(tap, self.assert_well(server))

        sights = {name: self.sight(host) for name, host in self.hosts.items()}
        ping = self.ping()
        self._live_migrate(server)
        self.assert_gone('host1')
        arrived = self.assert_well(server, host='host2', fresh=True)
        self.assertEqual(tap.mac, arrived.mac)
        self.console(server).run('ls /was-here')
        ping.end()
        print('Live migration of %s: %d pings, one each %.0f ms; lost: %d' % (
            type(self).__name__, ping.sent, 1000 * pings.INTERVAL,
            len(ping.lost)), file=sys.__stderr__)
        self.assertGreater(ping.sent, 100)
        self.assert_moved(ping, **{
            name: sight.end() for name, sight in sights.items()})

        self._delete_server(server)
        self.assert_gone('host2')
        self.assertEqual(before, self.states())

    def test_several_queues(self):
        self.lay_network()
        self.has_several_queues(True)
        self.leave_tap(multi_queue=False)
        server = self.boot_guest(flavor_id=self.flavor(
            {'hw:vif_multiqueue_enabled': 'true'}))
        self.assert_well(server, multi_queue=True)
        self.assertEqual('2', self.console(server).run(
            'ls -d /sys/class/net/eth0/queues/tx-* | wc -l'))
        self._delete_server(server)

        self.has_several_queues(False)
        self.leave_tap(multi_queue=True)
        server = self.boot_guest()
        self.assert_well(server, fresh=True)
        self.assertEqual('1', self.console(server).run(
            'ls -d /sys/class/net/eth0/queues/tx-* | wc -l'))
        self.assert_as_before()

    def has_several_queues(self, several):
        """Have Nova ask for as many as the flavor says, or for one."""
        # Only for kvm it does; libvirt never hears of that, see guests.py.
        self.flags(virt_type='kvm' if several else 'qemu', group='libvirt')

    def leave_tap(self, multi_queue):
        """Have a TAP that another guest left, with other queues."""
        if self.LIBVIRT_MAKES_TAP:
            return  # It would refuse any that is there.
        vif = base.make_vif(
            id=self.port['id'], vif_name=self.tap, mtu=self.mtu,
            address=self.port['mac_address'])
        before = cfg.CONF[opts.GROUP].multiqueue
        self.flags(multiqueue=multi_queue, group=opts.GROUP)
        with self.host.entered():
            os_vif.plug(vif, base.INSTANCE)
        self.flags(multiqueue=before, group=opts.GROUP)
        tap = self.host.link(self.tap)
        self.assertEqual((multi_queue, False), (tap.multi_queue, tap.held))

    def test_big_frames_for_a_mac_that_starts_with_fe(self):
        self.lay_network(mtu=9000)
        port = self.make_port(1, mac='fe:16:3e:00:00:%02x')
        server = self.boot_guest(port)
        self.assert_well(server, port, mac='fa' + port['mac_address'][2:])
        for host in self.host, self.uplink:
            # With headers 8000 octets, in one frame.
            self.assert_answers(host, self.address(port), '-s', '7972')
        self.console(server).run('ping -c 1 -W %d -s 7972 %s' % (
            patience.HANG, _UPLINK_ADDRESS))
        self.assert_as_before()


class LibvirtTapTest(Flows, guests.GuestCloud, cloud.BridgeCloud):
    """Binding type bridge; libvirt makes the TAP, and we the bridge."""

    OPTIONS = {'claim_plugins': ['linux_bridge']}
    LIBVIRT_MAKES_TAP = True


class NovaManagedTapTest(Flows, guests.GuestCloud, cloud.BridgeCloud):
    """Binding type bridge, and Nova has us make the TAP."""

    OPTIONS = {'claim_plugins': ['linux_bridge'], 'nova_managed_tap': True}


class OpenVSwitchTest(Flows, guests.GuestCloud, cloud.OpenVSwitchCloud):
    """Binding type ovs, by our mechanism driver; we make the TAP."""

    OPTIONS = {'claim_plugins': ['ovs']}

    def test_only_its_own_frames_get_out(self):
        self.lay_network()
        server = self.boot_guest()
        self.assert_well(server)
        self.assertEqual(set(), self.seen(server, _STRANGER))
        self.assertEqual(set(_FRAMES),
                         self.seen(server, self.port['mac_address']))
        self.assert_well(server)
        self.reconfigure(anti_spoofing='none')
        self.assertEqual(set(_FRAMES), self.seen(server, _STRANGER))
        self.reconfigure(anti_spoofing='mac')
        # The other end of the wire still believes what it was told.
        self.console(server).run(
            'ip link set eth0 address %s; arping -c 1 -I eth0 %s' % (
                self.port['mac_address'], _UPLINK_ADDRESS))
        self.assert_well(server)
        self.assert_as_before()

    def seen(self, server, mac):
        """Return which kinds of frames come out that it sends from a MAC."""
        console = self.console(server)
        console.run('ip link set eth0 address ' + mac)
        seen = set()
        with self.uplink.entered():
            wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW,
                                 socket.htons(3))  # ETH_P_ALL
        with wire:
            wire.bind(('eth1', 0))
            wire.settimeout(patience.HANG)
            for command, _ in _FRAMES.values():
                console.run('arp -s %s %s; %s; true' % (
                    _UPLINK_ADDRESS, self.uplink.link('eth1').mac, command))
            # What comes after these comes out after these, and it may.
            console.run('ip link set eth0 address %s; '
                        'arping -c 1 -w 1 -I eth0 %s; true' % (
                            self.port['mac_address'], _LAST_ADDRESS))
            while socket.inet_aton(_LAST_ADDRESS) not in (
                    frame := wire.recv(65536)):
                for kind, (_, pattern) in _FRAMES.items():
                    if (frame[6:12] == bytes.fromhex(mac.replace(':', ''))
                            and re.match(pattern, frame[12:], re.DOTALL)):
                        seen.add(kind)
        return seen

    def tapmac(self, *arguments, status=(0,)):
        """Run our command on host1, and return what it prints, as objects."""
        nova_conf = pathlib.Path(
            self.useFixture(fixtures.TempDir()).path) / 'nova.conf'
        nova_conf.write_text('[os_vif_tapmac]\n')
        process = self.host.popen(
            [sys.executable, '-W', 'ignore', '-c', 'import sys; '
             'from vif_plug_tapmac.cli import main; sys.exit(main.main())',
             '--config-file', str(nova_conf), *arguments, '-f', 'json'],
            stderr=subprocess.PIPE,
            cwd=base.CHECKOUT, env=dict(
                os.environ, PYTHONPATH=libvirt_domains.binding()))
        with process:
            said, self.complaints = process.communicate()
        self.assertIn(process.returncode, status, self.complaints)
        return json.loads(said) if said else None

    def wrong(self):
        """Return which codes an audit has for TAP and bridge."""
        return {row['Code'] for row in self.tapmac('audit', status=(0, 10, 20))
                if row['Device'] in (self.tap, base.BRIDGE)}

    def test_what_an_operator_sees_and_removes(self):
        self.lay_network()
        server = self.boot_guest()
        self.assert_well(server)
        domain = self.host.virsh('list', '--name')
        self.assertEqual(
            [(self.tap, domain, True)],
            [(row['TAP'], row['Domain'], row['Carrier'])
             for row in self.tapmac('list')])
        self.assertEqual(set(), self.wrong())
        self.assertEqual([], self.tapmac('purge', '--older-than', '0'))

        # Somebody removes the guest without Nova.
        self.host.virsh('destroy', domain)
        self.assertEqual([], self.tapmac('purge', '--older-than', '0'))
        self.host.virsh('undefine', domain)
        self.host.kill_libvirtd()
        self.tapmac('purge', '--older-than', '0', status=(1,))
        self.assertIn('Nothing is removed', self.complaints)
        self.host.start_libvirtd()
        self.assertEqual(
            [(self.tap, 'removed')],
            [(row['TAP'], row['Result'])
             for row in self.tapmac('purge', '--older-than', '0',
                                    self.tap)])
        self.assertIsNone(self.host.find(self.tap))
        self._delete_server(server)


class TapMacTest(Flows, guests.GuestCloud, cloud.OpenVSwitchCloud):
    """A caller that names our plugin: Nova, if it were one.

    Its domain is the one of the binding type ovs; nothing is claimed.
    """

    def _load_plugins(self):
        super()._load_plugins()
        for name in 'plug', 'unplug':
            self.useFixture(fixtures.MonkeyPatch(
                'os_vif.' + name, _naming_tapmac(getattr(os_vif, name))))

    def nova_guest(self, server):
        guest = super().nova_guest(server)
        for vif in guest['vifs']:
            vif['type'] = 'tapmac'  # See tests/nova_compute.py.
        return guest

    def has_several_queues(self, several):
        super().has_several_queues(several)
        self.flags(multiqueue=several, group=opts.GROUP)

    def test_only_its_own_addresses_speak(self):
        self.lay_network()
        self.reconfigure(anti_spoofing='full')
        server = self.boot_guest()
        self.console(server)
        self.assertEqual(29795, self.host.link(self.tap).group)
        frames = raw.Frames(self.port['mac_address'], *(
            self.port['fixed_ips'][0]['ip_address'], _UPLINK_ADDRESS))
        pairs = frames.pairs()
        # All that may be sent comes out, and nothing else does.
        self.assertEqual({kind: (True, False) for kind in pairs},
                         self.which_come_out(server, frames, pairs))
        self.reconfigure(anti_spoofing='none')
        self.assertEqual({kind: (True, True) for kind in pairs},
                         self.which_come_out(server, frames, pairs))
        self.assert_as_before()

    def which_come_out(self, server, frames, pairs):
        """Return of each frame of these pairs whether it does."""
        console = self.console(server)
        index = int(console.run('cat /sys/class/net/eth0/ifindex'))
        console.run('%s > /bin/raw; chmod 755 /bin/raw' % raw.printing(
            raw.program(index)))
        with self.uplink.entered():
            wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW,
                                 socket.htons(3))  # ETH_P_ALL
        with wire:
            wire.bind(('eth1', 0))
            wire.settimeout(patience.HANG)
            for frame in {*(each for pair in pairs.values() for each in pair)}:
                console.run(raw.printing(frame) + ' | raw')
            console.run(raw.printing(frames.last()) + ' | raw')
            seen = [frame := wire.recv(65536)]
            while not raw.is_same(frames.last(), frame):
                seen.append(frame := wire.recv(65536))
        return {kind: tuple(
            any(raw.is_same(frame, each) for each in seen) for frame in pair)
            for kind, pair in pairs.items()}


def _naming_tapmac(call):
    def call_with_tapmac(vif, instance):
        if vif.plugin != 'tapmac':
            vif = vif_objects.VIFBridge(plugin='tapmac', **{
                field: getattr(vif, field) for field in (
                    'id', 'vif_name', 'address', 'bridge_name', 'network')})
        return call(vif, instance)
    return call_with_tapmac


#: The routes, by Nova and os-vif; more of them differ in nothing that libvirt
#: or QEMU would see.
_ROUTES = {(33, 4): (LibvirtTapTest, NovaManagedTapTest, OpenVSwitchTest),
           (34, 5): (OpenVSwitchTest, TapMacTest)}


def load_tests(loader, tests, pattern):
    """Load the routes that this Nova has: nothing is to be skipped."""
    os_vif_version = metadata.version('os-vif').split('.')[0]
    return unittest.TestSuite(
        loader.loadTestsFromTestCase(case)
        for case in _ROUTES.get((nova_base.NOVA, int(os_vif_version)), ()))
