# SPDX-License-Identifier: Apache-2.0

"""The bridge: made so that its MAC cannot flap, or left as it was found."""

import concurrent.futures
import dataclasses
import itertools
import multiprocessing
import os
import re
import socket
import struct
import unittest.mock

import pyroute2
from scapy.layers import inet6
from scapy.layers import l2

from tests import base
from tests import hosts
from tests import patience
from vif_plug_tapmac import exception
from vif_plug_tapmac.kernel import bridge
from vif_plug_tapmac.kernel import bridge_health
from vif_plug_tapmac.kernel import netlink as nl
from vif_plug_tapmac.kernel import nftables
from vif_plug_tapmac.kernel import port
from vif_plug_tapmac.kernel import sysctl
from vif_plug_tapmac import mark


class BridgeTestCase(base.FunctionalTestCase):
    """What makes a bridge finished, and how to see it."""

    def describe(self, name=base.BRIDGE):
        """Return all that makes a bridge finished."""
        link = self.host.link(name)
        return {
            'kind': link.kind, 'mtu': link.mtu, 'up': link.up,
            'group': link.group, 'alias': link.alias, 'stp': link.stp,
            'forward_delay': link.forward_delay,
            'multicast_snooping': link.multicast_snooping,
            'disable_ipv6': self.host.sysctl(
                'ipv6/conf/%s/disable_ipv6' % name),
            'arp_ignore': self.host.sysctl('ipv4/conf/%s/arp_ignore' % name),
            'arp_announce': self.host.sysctl(
                'ipv4/conf/%s/arp_announce' % name),
            'addresses': self.host.addresses(name)}

    FINISHED = {
        'kind': 'bridge', 'mtu': 1500, 'up': True, 'group': 29794,
        'alias': mark.BRIDGE_MARK, 'stp': False, 'forward_delay': 0,
        'multicast_snooping': False, 'disable_ipv6': '1', 'arp_ignore': '1',
        'arp_announce': '2', 'addresses': []}

    def assert_mac_is_pinned(self):
        mac = self.host.link(base.BRIDGE).mac
        index = self.host.link(base.BRIDGE).index
        self.host.add('low', 'veth', peer='low-peer',
                      address='00:00:00:00:00:01', master=index)
        self.assertEqual(mac, self.host.link(base.BRIDGE).mac)
        self.host.delete('low')
        self.assertEqual(mac, self.host.link(base.BRIDGE).mac)


class MadeBridgeTest(BridgeTestCase):

    def test_is_finished(self):
        self.plug()
        self.assertEqual(self.FINISHED, self.describe())

    def test_bridge_group(self):
        self.configure(bridge_group=8)
        self.plug()
        self.assertEqual(dict(self.FINISHED, group=8), self.describe())

    def test_mac_never_moves(self):
        self.plug()
        self.assert_mac_is_pinned()
        self.unplug()
        self.assert_mac_is_pinned()

    def test_mac_counts_as_set_by_hand(self):
        with hosts.private_mounts():
            hosts.mount('sysfs', '/sys', 'sysfs')
            self.plug()
            self.assertTrue(bridge_health.is_pinned(
                self.host.link(base.BRIDGE)))

    def test_mac_is_local_and_unique_to_host_and_bridge(self):
        self.plug()
        self.plug(base.numbered_vif(1, bridge_name='br200'))
        peer = self.useFixture(hosts.Peer())
        peer.run(self.plug)
        macs = {self.host.link(base.BRIDGE).mac, self.host.link('br200').mac,
                peer.run(lambda: self.host.link(base.BRIDGE).mac)}
        self.assertEqual(3, len(macs))
        self.assertEqual({'02'}, {mac[:2] for mac in macs})

    def test_mtu_is_pinned(self):
        for number, mtu in enumerate((1500, 9000, 1400)):
            name = 'br%d' % mtu
            self.plug(base.numbered_vif(number, bridge_name=name, mtu=mtu))
            for port_mtu in (1300, 65000):
                self.host.add('port', 'veth', peer='peer', mtu=port_mtu,
                              master=self.host.link(name).index)
                self.assertEqual(mtu, self.host.link(name).mtu)
                self.host.delete('port')
            self.unplug(base.numbered_vif(number))
            self.assertEqual(mtu, self.host.link(name).mtu)

    def test_second_network_mtu_does_not_change_it(self):
        self.plug()
        self.plug(base.numbered_vif(1, mtu=9000))
        self.assertEqual(self.FINISHED, self.describe())

    def test_stays_after_the_last_guest(self):
        self.plug()
        self.unplug()
        self.assertEqual(self.FINISHED, self.describe())

    def spoil(self):
        """Have all of a bridge of ours otherwise that can be."""
        for mtu in 1200, 1500:  # IPv6 comes back with it.
            self.host.set(base.BRIDGE, mtu=mtu)
        for path in 'arp_ignore', 'arp_announce':
            with open('/proc/sys/net/ipv4/conf/%s/%s' % (base.BRIDGE, path),
                      'w') as opened:
                opened.write('0')
        self.host.set(base.BRIDGE, group=0, kind='bridge', br_stp_state=1,
                      br_forward_delay=1500, br_mcast_snooping=1)

    def test_is_mended_by_each_plug(self):
        self.plug()
        for again in (self.plug,
                      lambda: self.plug(base.numbered_vif(1)),
                      self.plug_held):
            self.spoil()
            self.assertNotEqual(self.FINISHED, self.describe())
            again()
            self.assertEqual(self.FINISHED, self.describe())
        self.assertEqual(3, self.logs.output.count('Bridge br100 was changed'))

    def test_group_of_another_service(self):
        self.patch(bridge_health, '_warned', set())
        self.plug()
        for number, group in enumerate((8, 29794) * 2):
            self.configure(bridge_group=group)
            self.plug(base.numbered_vif(number))
            self.assertEqual(self.FINISHED, self.describe())
            # All else is as for its own.
            self.host.set(base.BRIDGE, kind='bridge', br_stp_state=1)
            self.plug(base.numbered_vif(number))
            self.assertEqual(self.FINISHED, self.describe())
        words = 'is in link group 29794, and bridge_group is 8.'
        self.assertEqual(1, self.logs.output.count(words))

    def plug_held(self):
        with hosts.Guest(base.TAP):
            self.plug()

    def test_nothing_is_asked_beyond_the_first_look(self):
        self.plug()
        sets = []
        request = nl.Netlink.set
        self.patch(nl.Netlink, 'set', lambda *args, **kwargs: (
            sets.append(args), request(*args, **kwargs))[1])
        self.plug()
        self.assertEqual([], sets)

    def test_no_default_route_by_a_guest(self):
        # All by the remedy in our own log.
        bridge_health._warned.clear()
        self.plug(base.make_vif(mtu=1000))
        self.assertIsNone(self.host.link(base.BRIDGE).disable_ipv6)
        guests = base.numbered_vif(1)
        self.plug(guests)
        command = re.search('"(ip link set br100 mtu 1500.*?)"',
                            self.logs.output)[1]
        ip, sysctl = command.split(' && ')
        self.assertEqual('ip link set br100 mtu 1500', ip)
        self.host.set(base.BRIDGE, mtu=1500)
        with open('/proc/sys/' + sysctl.split()[1].split('=')[0],
                  'w') as opened:
            opened.write(sysctl.split('=')[1])
        self.assertEqual(self.FINISHED, self.describe())
        with hosts.Guest(guests.vif_name, guests.address) as guest:
            self.host.wait_until_forwarding(guests.vif_name)
            guest.write(bytes(
                l2.Ether(src=guest.mac, dst='33:33:00:00:00:01')
                / inet6.IPv6(src='fe80::1', dst='ff02::1', hlim=255)
                / inet6.ICMPv6ND_RA(routerlifetime=600)))
            self.assertEqual([], list(self.host.ip.get_default_routes(
                family=socket.AF_INET6)))

    def test_that_can_not_be_mended_refuses_no_guest(self):
        self.plug()
        self.spoil()
        with hosts.private_mounts():
            hosts.mount_read_only('/proc/sys')
            self.plug(base.numbered_vif(1))
        self.assert_finished('tap00000001', mac='fe:16:3e:00:00:01')
        self.assert_logged('can not be mended', 'read-only')

    def test_comes_up_again(self):
        self.plug()
        self.host.set(base.BRIDGE, state='down')
        self.plug(base.numbered_vif(1))
        self.assertEqual(self.FINISHED, self.describe())
        self.assert_logged('br100 was down')

    def test_alias_of_an_administrator_is_kept(self):
        self.plug()
        self.host.set(base.BRIDGE, ifalias='uplink of rack 7')
        self.plug(base.numbered_vif(1))
        self.assertEqual('uplink of rack 7',
                         self.host.link(base.BRIDGE).alias)

    def test_what_an_administrator_changed_later_is_kept(self):
        self.plug()
        self.host.set(base.BRIDGE, mtu=9000, address='02:00:00:00:00:07')
        self.plug(base.numbered_vif(1))
        link = self.host.link(base.BRIDGE)
        self.assertEqual((9000, '02:00:00:00:00:07'), (link.mtu, link.mac))

    def test_without_creation_an_existing_bridge_is_used(self):
        self.plug()
        self.configure(create_bridge=False)
        self.plug(base.numbered_vif(1))
        self.assert_finished('tap00000001', mac='fe:16:3e:00:00:01')


def make_and_die(port, step):
    """Make a bridge in a process that is gone before this step.

    :returns: whether it came that far
    """
    steps = itertools.count(1)

    def dying(function):
        def wrapper(*args, **kwargs):
            if next(steps) == step:
                os._exit(9)
            return function(*args, **kwargs)
        return wrapper

    child = os.fork()
    if child == 0:
        try:
            nl.Netlink._set = dying(nl.Netlink._set)
            sysctl.write = dying(sysctl.write)
            with nl.Netlink() as netlink:
                bridge.ensure(netlink, port, None)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


class HalfMadeBridgeTest(BridgeTestCase):
    """The first plug dies on the way; the second finishes its bridge."""

    def test_is_finished_by_the_next_plug(self):
        died = 0
        for step in itertools.count(1):
            if not make_and_die(base.make_port(), step):
                break
            died += 1
            half_made = self.host.link(base.BRIDGE)
            self.assertIsNone(half_made.alias)
            self.plug()
            self.assertEqual(self.FINISHED, self.describe())
            self.assertEqual(half_made.mac, self.host.link(base.BRIDGE).mac)
            self.assert_mac_is_pinned()
            self.host.add('port', 'veth', peer='peer', mtu=1300,
                          master=self.host.link(base.BRIDGE).index)
            self.assertEqual(1500, self.host.link(base.BRIDGE).mtu)
            for name in ('port', base.TAP, base.BRIDGE):
                self.host.delete(name)
        # Three sysctls, MTU, up, alias.
        self.assertEqual(6, died)

    def test_is_finished_by_a_plug_that_may_not_create(self):
        self.assertTrue(make_and_die(base.make_port(), 1))
        self.configure(create_bridge=False)
        self.plug()
        self.assertEqual(self.FINISHED, self.describe())


class ConcurrencyTest(base.FunctionalTestCase):
    """First plugs on one missing bridge, all at once."""

    def assert_all_plugged(self, executor, count):
        vifs = [base.numbered_vif(number) for number in range(count)]
        for future in [executor.submit(self.plug, vif) for vif in vifs]:
            future.result()
        for number, vif in enumerate(vifs):
            self.assert_finished(vif.vif_name,
                                 mac='fe:16:3e:00:00:%02x' % number)
        self.assertEqual(mark.BRIDGE_MARK, self.host.link(base.BRIDGE).alias)

    def test_threads(self):
        for _ in range(5):
            with concurrent.futures.ThreadPoolExecutor(16) as executor:
                self.assert_all_plugged(executor, 16)
            for number in range(16):
                self.unplug(base.numbered_vif(number))
            self.host.delete(base.BRIDGE)

    def test_with_different_mtus(self):
        for _ in range(5):
            with concurrent.futures.ThreadPoolExecutor(8) as executor:
                for future in [executor.submit(self.plug, base.numbered_vif(
                        number, mtu=1500 + 100 * number))
                        for number in range(8)]:
                    future.result()
            self.assertIn(self.host.link(base.BRIDGE).mtu,
                          range(1500, 2300, 100))
            for number in range(8):
                self.unplug(base.numbered_vif(number))
            self.host.delete(base.BRIDGE)

    def test_another_mtu_each_time(self):
        change = nl.Netlink.change

        def change_and_be_overtaken(netlink, link, fields, *args):
            change(netlink, link, fields, *args)
            if link.name == base.BRIDGE and 'mtu' in fields:
                self.host.set(base.BRIDGE, mtu=1600)
        self.patch(nl.Netlink, 'change', change_and_be_overtaken)
        self.plug()
        self.assert_finished()
        self.assertEqual((1600, mark.BRIDGE_MARK), (
            self.host.link(base.BRIDGE).mtu,
            self.host.link(base.BRIDGE).alias))

    def test_processes(self):
        start = multiprocessing.get_context('fork').Barrier(8)

        def plug(number):
            start.wait()
            self.plug(base.numbered_vif(number))

        processes = [
            multiprocessing.get_context('fork').Process(
                target=plug, args=(number,)) for number in range(8)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        self.assertEqual([0] * 8, [process.exitcode for process in processes])
        for number in range(8):
            self.assert_finished('tap%08x' % number,
                                 mac='fe:16:3e:00:00:%02x' % number)


class WarningTest(BridgeTestCase):
    """What is said of every bridge, and once."""

    def setUp(self):
        super().setUp()
        bridge_health._warned.clear()
        # However busy this machine is.
        self.patch(bridge_health._Firewall, '_MOST', patience.HANG)

    def plug_some(self, count=4):
        for number in range(count):
            self.plug(base.numbered_vif(number))

    def switch_netfilter(self, value, switch=None):
        # Of this network namespace. Where there is none, nothing is switched.
        path = '/proc/sys/net/' + (switch or self.SWITCH)
        if not os.path.exists(path):
            self.cannot_run('needs br_netfilter: modprobe br_netfilter')
        with open(path, 'w') as switch:
            switch.write(value)

    SWITCH = 'bridge/bridge-nf-call-iptables'
    SWITCH_OF_IPV6 = 'bridge/bridge-nf-call-ip6tables'
    DROPS = 'whose chain filter FORWARD drops it'

    def guests_reach_each_other(self):
        """Return whether an IPv4 packet gets from one guest to another."""
        guests = []
        for number in range(2):
            vif = base.numbered_vif(number)
            guests.append(hosts.Guest(vif.vif_name, vif.address))
            self.addCleanup(guests[-1].close)
            self.host.wait_until_forwarding(vif.vif_name)
        sender, receiver = guests
        packet = bytes.fromhex(
            '4500001c 00004000 4011 0000 c0000201 c0000202'
            ' 1234 1234 0008 0000')
        checksum = 0xffff - sum(struct.unpack('!10H', packet[:20])) % 0xffff
        packet = packet[:10] + struct.pack('!H', checksum) + packet[12:]
        frame = hosts.frame(receiver.mac, sender.mac, b'')
        sender.write(frame[:12] + b'\x08\0' + packet)
        return any(packet in seen for seen in receiver.frames_until(sender))

    def test_firewall_that_drops(self):
        self.switch_netfilter('1')
        self.host.forward_by_default(0)
        self.plug_some()
        self.assertEqual(1, self.logs.output.count(self.DROPS))
        self.assertFalse(self.guests_reach_each_other())

    def count_looks(self):
        """Return how often the host's chains are looked at, and what came."""
        looks = []
        look = nftables.chains_that_drop

        def count():
            looks.append(look())
            return looks[-1]
        self.patch(nftables, 'chains_that_drop', count)
        return looks

    def test_firewall_is_looked_at_once(self):
        self.switch_netfilter('1')
        self.host.forward_by_default(0)
        looks = self.count_looks()
        for number in range(4):
            self.plug(base.numbered_vif(number, bridge_name='br%d' % number))
        self.assertEqual([{'IPv4': 'filter FORWARD'}], looks)
        self.assertEqual(4, self.logs.output.count(self.DROPS))

    def test_firewall_that_comes_later(self):
        """As Docker's does."""
        self.switch_netfilter('1')
        looks = self.count_looks()
        self.plug_some()
        self.assertEqual([{}], looks)
        hosts.add_chains('others', 1)
        self.host.forward_by_default(0)
        self.plug_some()
        self.assertEqual(1, self.logs.output.count(self.DROPS))
        self.assertEqual(2, len(looks))
        self.host.forward_by_default(0, family=socket.AF_INET6)
        self.plug_some()
        self.assertEqual(2, self.logs.output.count(self.DROPS))
        self.plug(base.numbered_vif(9, bridge_name='br200'))
        self.assertEqual(4, self.logs.output.count(self.DROPS))
        self.assertEqual(3, len(looks))

    def test_looks_at_a_firewall_that_changes_all_the_time_are_few(self):
        self.switch_netfilter('1')
        self.patch(bridge_health._Firewall, '_PART', 0)
        self.patch(bridge_health._Firewall, '_MOST', 1e-9)
        looks = self.count_looks()
        for number in range(3):
            hosts.add_chains('others%d' % number, 1)
            self.plug_some()
        self.assertEqual(1, len(looks))

    def test_firewall_of_ipv6(self):
        self.switch_netfilter('0')
        self.host.forward_by_default(0, family=socket.AF_INET6)
        self.switch_netfilter('0', self.SWITCH_OF_IPV6)
        self.plug_some()
        self.assertNotIn('firewall', self.logs.output)
        self.switch_netfilter('1', self.SWITCH_OF_IPV6)
        self.plug_some()
        self.assertEqual(1, self.logs.output.count(self.DROPS))
        self.assert_logged('by IPv6', 'bridge-nf-call-ip6tables=0')

    def test_firewall_of_bridges(self):
        for switch in self.SWITCH, self.SWITCH_OF_IPV6:
            self.switch_netfilter('0', switch)
        self.plug_some()
        self.host.forward_by_default(0, family=7)
        self.plug_some()
        self.assertEqual(1, self.logs.output.count(self.DROPS))
        self.assert_logged('by Ethernet', 'leave bridges alone')

    def test_own_switch_of_a_bridge(self):
        for switch in self.SWITCH, self.SWITCH_OF_IPV6:
            self.switch_netfilter('0', switch)
        self.host.forward_by_default(0)
        self.host.add(base.BRIDGE, 'bridge', address='02:00:00:00:00:05')
        self.plug_some()
        self.assertNotIn('firewall', self.logs.output)
        self.host.set(base.BRIDGE, kind='bridge', br_nf_call_iptables=1)
        self.plug_some()
        self.assertEqual(1, self.logs.output.count(self.DROPS))
        self.assert_logged('"ip link set br100 type bridge '
                           'nf_call_iptables 0"')

    def test_own_switch_of_our_bridge(self):
        # It is mended.
        for switch in self.SWITCH, self.SWITCH_OF_IPV6:
            self.switch_netfilter('0', switch)
        self.host.forward_by_default(0)
        self.plug_some()
        self.host.set(base.BRIDGE, kind='bridge', br_nf_call_iptables=1)
        self.plug_some()
        self.assertNotIn('firewall', self.logs.output)
        self.assertFalse(self.host.link(base.BRIDGE).nf_call_iptables)

    def test_firewall_of_many_chains(self):
        # The look is bounded, and what iptables makes is found all the same.
        self.switch_netfilter('1')
        hosts.add_chains('many', 2000)
        self.host.forward_by_default(0)
        self.patch(nftables, '_LOOKS_FOR', 0)
        self.assertEqual({'IPv4': 'filter FORWARD'},
                         nftables.chains_that_drop())

    def test_firewall_by_another_name(self):
        self.host.forward_by_default(0, 'guests')
        self.patch(nftables, '_LOOKS_FOR', patience.HANG)
        self.assertEqual({'IPv4': 'guests FORWARD'},
                         nftables.chains_that_drop())
        self.patch(nftables, '_LOOKS_FOR', 0)
        self.assertEqual({}, nftables.chains_that_drop())

    def test_firewall_of_both_families(self):
        self.patch(nftables, '_LOOKS_FOR', patience.HANG)
        self.host.forward_by_default(0, 'both', family=1)
        self.assertEqual(dict.fromkeys(('IPv4', 'IPv6'), 'both FORWARD'),
                         nftables.chains_that_drop())

    def test_firewall_that_accepts(self):
        self.switch_netfilter('1')
        self.host.forward_by_default(1)
        self.plug_some()
        self.assertNotIn('firewall', self.logs.output)
        self.assertTrue(self.guests_reach_each_other())

    def test_firewall_that_is_not_asked(self):
        self.switch_netfilter('0')
        self.host.forward_by_default(0)
        self.plug_some()
        self.assertNotIn('firewall', self.logs.output)
        self.assertTrue(self.guests_reach_each_other())

    def test_bridge_of_somebody_else_and_firewall(self):
        self.switch_netfilter('1')
        self.host.forward_by_default(0)
        self.host.add(base.BRIDGE, 'bridge', address='02:00:00:00:00:05')
        self.plug_some()
        self.assertEqual(1, self.logs.output.count(self.DROPS))

    def test_nearly_all_ports(self):
        self.patch(bridge_health, 'NEARLY_ALL_PORTS', 3)
        self.plug_some(2)
        self.assertNotIn('ports of 1023', self.logs.output)
        self.plug_some(4)
        self.assertEqual(1, self.logs.output.count(
            'Bridge br100 has 3 ports of 1023'))


class OthersBridgeTest(base.FunctionalTestCase):
    """A bridge that somebody else made is used, never rewritten."""

    def setUp(self):
        super().setUp()
        bridge_health._warned.clear()

    def make(self, **attributes):
        made = self.host.add(base.BRIDGE, 'bridge', **attributes)
        return self.host.set(base.BRIDGE, state='up') if made else None

    def test_is_not_rewritten(self):
        before = self.make(address='02:00:00:00:00:05', mtu=1500,
                           br_stp_state=0)
        self.plug()
        self.assert_finished()
        # It had its TAP's carrier for a moment, and loses it in its own time.
        self.assertEqual(before, dataclasses.replace(
            self.host.link(base.BRIDGE), carrier=before.carrier))
        self.assertNotIn('Bridge br100', self.logs.output)

    def test_unpinned_mac_is_warned_about_once(self):
        with hosts.private_mounts():
            hosts.mount('sysfs', '/sys', 'sysfs')
            self.make()
            self.plug()
            self.plug(base.numbered_vif(1))
        self.assert_finished()
        self.assertEqual(1, self.logs.output.count('has no fixed MAC'))
        self.assert_logged('ip link set br100 address')

    def test_unpinned_mac_is_not_moved_by_our_port(self):
        # What 0xFE is for: it protects a bridge that has another port.
        self.make()
        self.host.add('eth7', 'veth', peer='p', address='f0:00:00:00:00:01',
                      master=self.host.link(base.BRIDGE).index)
        for plug in (self.plug, self.unplug):
            plug()
            self.assertEqual('f0:00:00:00:00:01',
                             self.host.link(base.BRIDGE).mac)

    def test_pinned_mac_is_not_warned_about(self):
        with hosts.private_mounts():
            hosts.mount('sysfs', '/sys', 'sysfs')
            self.make(address='02:00:00:00:00:05')
            self.plug()
        self.assertNotIn('has no fixed MAC', self.logs.output)

    def test_sysfs_of_another_namespace_is_not_believed(self):
        # /sys shows where it was mounted: here, and not on the peer, whose
        # bridge of the same name is pinned.
        def on_peer():
            with pyroute2.IPRoute() as ip:
                ip.link('add', ifname='v0', kind='veth', peer='v1')
                ip.link('add', ifname=base.BRIDGE, kind='bridge',
                        address='02:00:00:00:00:05')
            self.plug()
        with hosts.private_mounts():
            hosts.mount('sysfs', '/sys', 'sysfs')
            self.make()
            self.useFixture(hosts.Peer()).run(on_peer)
        self.assert_logged('Bridge br100 is down')  # It was looked at.
        self.assertNotIn('has no fixed MAC', self.logs.output)

    def test_no_sysfs_at_all(self):
        self.make()
        self.plug()
        self.assertNotIn('has no fixed MAC', self.logs.output)

    def test_stp_with_delay_is_warned_about(self):
        self.make(address='02:00:00:00:00:05', br_stp_state=1)
        self.plug()
        self.assert_logged('STP', '30 s', 'stp_state 0')
        self.assertTrue(self.host.link(base.BRIDGE).stp)

    def test_down_is_warned_about(self):
        self.host.add(base.BRIDGE, 'bridge', address='02:00:00:00:00:05')
        self.plug()
        self.assert_logged('is down', 'ip link set br100 up')
        self.assertFalse(self.host.link(base.BRIDGE).up)

    def test_bridge_of_our_group_that_vanishes(self):
        # Deleted between our look and our use: an error, and no TAP.
        self.plug()
        self.unplug()
        gone = self.host.link(base.BRIDGE)
        self.host.delete(base.BRIDGE)
        self.patch(port, '_GIVES_UP_AFTER', 0.2)
        with unittest.mock.patch.object(bridge, 'find', return_value=gone):
            self.assert_plug_fails(exception.VerifyFailed, base.BRIDGE,
                                   'removed or renamed')
