# SPDX-License-Identifier: Apache-2.0

"""What the design believes of the kernel; a change here changes the design."""

import errno
import fcntl
import os
import socket
import struct

import pyroute2

from tests import base
from tests import compatibility
from tests import hosts
from vif_plug_tapmac import exception
from vif_plug_tapmac.kernel.fdb import FdbEntry
from vif_plug_tapmac.kernel import netlink as nl
from vif_plug_tapmac.kernel import trying

_MULTI_QUEUE = hosts.IFF_TAP | hosts.IFF_MULTI_QUEUE


class TunTest(base.FunctionalTestCase):

    def assert_errno(self, code, function, *args, **kwargs):
        error = self.assertRaises((OSError, pyroute2.NetlinkError), function,
                                  *args, **kwargs)
        self.assertEqual(code, getattr(error, 'code', None) or error.errno)

    def test_netlink_cannot_make_a_tap(self):
        # By hand: pyroute2 turns "tun" and "tuntap" into ioctls in secret.
        def attribute(kind, value):
            return struct.pack('HH', 4 + len(value), kind) + value.ljust(
                (len(value) + 3) // 4 * 4, b'\0')
        body = (struct.pack('BBHiII', 0, 0, 0, 0, 0, 0)
                + attribute(3, b't0\0')            # IFLA_IFNAME
                + attribute(18, attribute(1, b'tun\0')))  # IFLA_LINKINFO
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW) as netlink:
            # RTM_NEWLINK; REQUEST, ACK, CREATE, EXCL
            netlink.send(struct.pack('IHHII', 16 + len(body), 16, 0x605, 1, 0)
                         + body)
            answer = netlink.recv(4096)
        self.assertEqual(-errno.EOPNOTSUPP,
                         struct.unpack_from('i', answer, 16)[0])

    def test_pyroute2_tuntap_drops_what_is_given_with_it(self):
        self.host.add('t0', 'tuntap', mode='tap', mtu=1400, state='up',
                      address=base.TAP_MAC)
        link = self.host.link('t0')
        self.assertEqual((1500, False), (link.mtu, link.up))
        self.assertNotEqual(base.TAP_MAC, link.mac)
        self.assertIsNone(link.owner)
        self.assertTrue(link.persistent)

    def test_opening_what_exists(self):
        self.host.add_tap('t0')
        hosts.Guest('t0').close()  # Idle: no error, and no way to know.
        self.assert_errno(errno.EINVAL, hosts.Guest, 't0', flags=_MULTI_QUEUE)
        self.assert_errno(errno.EINVAL, hosts.Guest, 't0', flags=hosts.IFF_TUN)
        with hosts.Guest('t0'):
            self.assert_errno(errno.EBUSY, hosts.Guest, 't0')
        self.host.add('v0', 'veth', peer='v1')
        self.assert_errno(errno.EINVAL, hosts.Guest, 'v0')
        for name in ('t0', 'v0', 'lo'):
            self.assert_errno(errno.EBUSY, hosts.Guest, name,
                              flags=hosts.IFF_TAP | 0x8000)

    def test_16_bytes_are_cut_to_15(self):
        with hosts.Guest('sixteen-bytes-15'):
            self.assertIsNotNone(self.host.find('sixteen-bytes-1'))

    def test_templates_and_the_empty_name(self):
        for template, name in {'tap%d': 'tap0', 't%dx': 't0x', '%d': '0',
                               '': 'tap1'}.items():
            guest = hosts.Guest(template)
            self.addCleanup(guest.close)
            self.assertIsNotNone(self.host.find(name), template)

    def test_names_that_the_driver_accepts_and_we_do_not(self):
        for name in ('"', ';', 't*', '-tap', 'täp'):
            with hosts.Guest(name):
                self.assertIn(name, [
                    message.get_attr('IFLA_IFNAME')
                    for message in self.host.ip.get_links()])

    def test_names_that_the_driver_refuses(self):
        for name in ('tap%', 'tap%s', 'a/b', 'a:b', 'a b', '.', '..', 'all',
                     'default'):
            self.assert_errno(errno.EINVAL, hosts.Guest, name)

    def test_kind_is_tun_for_tun_and_tap(self):
        for flags, is_tap in ((hosts.IFF_TUN, False), (hosts.IFF_TAP, True)):
            with hosts.Guest('t0', flags=flags):
                link = self.host.link('t0')
                self.assertEqual(('tun', is_tap), (link.kind, link.is_tap))

    def test_carrier_tells_whether_it_is_held_up_or_down(self):
        self.host.add_tap('t0')
        for state in ('down', 'up'):
            self.host.set('t0', state=state)
            self.assertFalse(self.host.link('t0').held)
            with hosts.Guest('t0'):
                self.assertTrue(self.host.link('t0').held)
            self.assertFalse(self.host.link('t0').held)

    def test_gone_with_its_holder_until_persistent(self):
        hosts.Guest('t0').close()
        self.assertIsNone(self.host.find('t0'))

    def test_stranger_keeps_it_alive(self):
        guest = hosts.Guest('t0', flags=_MULTI_QUEUE)
        with hosts.Guest('t0', flags=_MULTI_QUEUE):
            guest.close()
            self.assertIsNotNone(self.host.find('t0'))

    def test_held_tap_can_be_deleted(self):
        self.host.add_tap('t0')
        with hosts.Guest('t0', base.GUEST_MAC) as guest:
            self.host.delete('t0')
            self.assert_errno(errno.EBADFD, guest.send, hosts.BROADCAST, b'')

    def test_device_of_a_deleted_tap_takes_nothing(self):
        # Persistence above all: a plug cannot believe that it made one.
        with hosts.Guest('t0') as device:
            self.host.delete('t0')
            self.assert_errno(errno.EBADFD, device.persist)

    def test_owner_needs_a_tap(self):
        descriptor = os.open('/dev/net/tun', os.O_RDWR)
        self.addCleanup(os.close, descriptor)
        self.assert_errno(errno.EBADFD, fcntl.ioctl, descriptor,
                          hosts.TUNSETOWNER, 0)

    def test_name_comes_with_the_mark(self):
        # Nobody sees the one without the other: the message holds the lock.
        with hosts.Guest('t0'):
            self.host.ip.link('set', index=self.host.link('t0').index,
                              ifname='t1', ifalias='mark')
            link = self.host.link('t1')
        self.assertEqual(('t1', 'mark'), (link.name, link.alias))

    def test_taken_name_is_refused(self):
        self.host.add('t1', 'ifb')
        with hosts.Guest('t0'):
            self.assert_errno(errno.EEXIST, self.host.set, 't0', ifname='t1')

    def test_fdb_of_a_deleted_bridge(self):
        index = self.host.add('br0', 'bridge').index
        self.host.delete('br0')
        self.assert_errno(errno.EINVAL, self.host.ip.fdb, 'get',
                          lladdr=base.TAP_MAC, master=index)

    def test_deleted_bridge_is_no_master(self):
        index = self.host.add('br0', 'bridge').index
        self.host.delete('br0')
        self.host.add_tap('t0')
        self.assert_errno(errno.EINVAL, self.host.set, 't0', master=index)

    def test_mtu_limits(self):
        self.host.add_tap('t0')
        for mtu in (68, 65521):
            self.host.set('t0', mtu=mtu)
        for mtu in (67, 65522):
            self.assert_errno(errno.EINVAL, self.host.set, 't0', mtu=mtu)

    def test_bad_macs(self):
        self.host.add_tap('t0')
        for mac in ('01:16:3e:28:64:c2', '00:00:00:00:00:00'):
            self.assert_errno(errno.EADDRNOTAVAIL, self.host.set, 't0',
                              address=mac)

    @base.needs_real_root(base.SEVERAL_USERS)
    def test_owner_that_means_none(self):
        with hosts.Guest('t0') as device:
            fcntl.ioctl(device.descriptor, 0x400454cc,
                        struct.unpack('i', struct.pack('I', 2 ** 32 - 2))[0])
            self.assertEqual(2 ** 32 - 2, self.host.link('t0').owner)


class LinkTest(base.FunctionalTestCase):

    def test_one_message_is_no_transaction(self):
        self.host.add_tap('t0')
        self.assertRaises(pyroute2.NetlinkError, self.host.set, 't0',
                          address=base.TAP_MAC, mtu=1400, master=4242)
        link = self.host.link('t0')
        self.assertEqual((base.TAP_MAC, 1400), (link.mac, link.mtu))

    def test_altname_finds_the_other_device(self):
        self.host.add('v0', 'veth', peer='v1')
        self.host.ip.link('property_add', altname='alias0',
                          index=self.host.link('v0').index)
        self.assertEqual('v0', self.host.ip.link('get', ifname='alias0')[
            0].get_attr('IFLA_IFNAME'))

    def test_up_with_carrier_in_one_message_makes_an_address(self):
        for changes, addresses in (
                ([{'addr_gen_mode': 1, 'up': True}], 0),
                ([{'up': True}, {'addr_gen_mode': 1}], 1)):
            with hosts.Guest('t0'), nl.Netlink() as netlink:
                for change in changes:
                    netlink.change(self.host.link('t0'), change)
                self.assertEqual(addresses, len(self.host.addresses('t0')))
        with hosts.Guest('t0'):
            self.host.set('t0', state='up', IFLA_AF_SPEC={'attrs': [
                ('AF_INET6', {'attrs': [('IFLA_INET6_ADDR_GEN_MODE', 1)]})]})
            self.assertEqual(1, len(self.host.addresses('t0')))

    def test_least_mtu_of_ipv6_takes_its_settings_away(self):
        self.host.add_tap('t0')
        self.host.quiet_ipv6('t0')
        self.assertIsNone(self.host.set('t0', mtu=1279).addr_gen_mode)
        self.assertEqual(0, self.host.set('t0', mtu=1280).addr_gen_mode)


class BridgeTest(base.FunctionalTestCase):

    def join(self, name, bridge, **attributes):
        return self.host.add(name, 'veth', peer=name + '-peer',
                             master=self.host.link(bridge).index, **attributes)

    def test_unpinned_takes_the_lowest_mac_of_its_ports(self):
        self.host.add('b0', 'bridge')
        macs = []
        for octet in ('fe', '06', '0a'):
            self.join('p' + octet, 'b0', address=octet + ':00:00:00:00:01')
            macs.append(self.host.link('b0').mac[:2])
        self.host.delete('p06')
        macs.append(self.host.link('b0').mac[:2])
        self.assertEqual(['fe', '06', '06', '0a'], macs)

    def test_pinned_by_an_address_at_creation(self):
        self.host.add('b0', 'bridge', address='0a:00:00:00:00:01')
        self.join('p0', 'b0', address='02:00:00:00:00:01')
        self.assertEqual('0a:00:00:00:00:01', self.host.link('b0').mac)

    def test_mtu_at_creation_is_not_kept(self):
        self.host.add('b0', 'bridge', mtu=9000)
        self.join('p0', 'b0', mtu=1500)
        self.assertEqual(1500, self.host.link('b0').mtu)

    def test_mtu_set_to_the_present_value_is_not_kept(self):
        self.host.add('b0', 'bridge')
        self.host.set('b0', mtu=1500)
        self.join('p0', 'b0', mtu=9000)
        self.assertEqual(9000, self.host.link('b0').mtu)

    def test_mtu_set_to_another_value_is_kept(self):
        self.host.add('b0', 'bridge', mtu=9001)
        self.host.set('b0', mtu=9000)
        self.join('p0', 'b0', mtu=1500)
        self.assertEqual(9000, self.host.link('b0').mtu)

    def test_creation_keeps_group_and_ignores_alias(self):
        link = self.host.add('b0', 'bridge', group=5, ifalias='x')
        self.assertEqual((5, None), (link.group, link.alias))

    def test_shared_mac_moves_to_the_other_port(self):
        self.host.add('b0', 'bridge')
        mac = 'fe:00:00:00:00:01'
        one = self.join('p0', 'b0', address=mac)
        other = self.join('p1', 'b0', address=mac)
        with nl.Netlink() as netlink:
            bridge = self.host.link('b0')
            self.assertEqual(FdbEntry(one.index, local=True),
                             netlink.fdb_entry(bridge, mac))
            self.host.delete('p0')
            self.assertEqual(FdbEntry(other.index, local=True),
                             netlink.fdb_entry(bridge, mac))
            self.host.delete('p1')
            self.assertIsNone(netlink.fdb_entry(bridge, mac))

    def deliver(self, taps):
        """Send from the first guest to all others; say who got it.

        :param taps: guest MACs and the TAP MACs they get, in order
        """
        bridge = self.host.add('b0', 'bridge', address='02:00:00:00:00:05')
        self.host.set('b0', state='up')
        guests = []
        for number, (guest_mac, tap_mac) in enumerate(taps):
            name = 't%d' % number
            self.host.add_tap(name)
            self.host.quiet_ipv6(name)
            self.host.set(name, address=tap_mac, master=bridge.index)
            self.host.set(name, state='up')
            guests.append(hosts.Guest(name, guest_mac))
            self.addCleanup(guests[-1].close)
            self.host.wait_until_forwarding(name)
        for guest in guests:
            guest.send(hosts.BROADCAST, b'hello')
        for guest in guests[1:]:
            guests[0].send(guest.mac, b'to you')
        return [any(b'to you' in frame
                    for frame in guest.frames_until(guests[0]))
                for guest in guests[1:]]

    def test_tap_with_the_guests_mac_loses_all_unicast(self):
        first = ('fa:16:3e:00:00:01', 'fe:16:3e:00:00:01')
        self.assertEqual([False, True], self.deliver([
            first, (base.GUEST_MAC, base.GUEST_MAC),
            ('fa:16:3e:00:00:02', 'fe:16:3e:00:00:02')]))

    def test_rule_crosses_for_guests_fa_and_fe(self):
        self.assertEqual([False, False], self.deliver([
            ('fa:16:3e:00:00:01', 'fe:16:3e:00:00:01'),
            ('fa:16:3e:28:64:c2', 'fe:16:3e:28:64:c2'),
            ('fe:16:3e:28:64:c2', 'fa:16:3e:28:64:c2')]))


class SysctlTest(base.FunctionalTestCase):

    def test_shows_the_network_namespace_of_the_thread(self):
        # Unlike sysfs, which shows the one it was mounted in.
        self.host.add('b0', 'bridge')
        self.assertEqual('0', self.host.sysctl('ipv4/conf/b0/arp_ignore'))
        self.assertFalse(os.path.exists('/sys/class/net/b0'))


class ReadmeTest(base.FunctionalTestCase):
    """What the README says of this kernel."""

    TRIALS = {'``anti_spoofing = mac``': 'lock',
              '``arriving_guests = filter``': 'filter',
              '``host_shield``': 'shield',
              'VLANs in ``bridge_uplinks``': 'vlan'}

    def can(self, trial):
        try:
            with nl.Netlink() as netlink:
                return not trying.TRIALS[trial](netlink)
        except exception.KernelRefused:
            return False

    def can_plug(self):
        self.plug()
        self.host.set(base.TAP, state='down', master=0)
        self.plug()
        self.assert_finished()
        self.unplug()
        return self.host.find(base.TAP) is None

    def test_what_works_here(self):
        release = '.'.join(os.uname().release.split('.')[:2])
        column = compatibility.kernels().get(release)
        if column is None:
            self.skipTest('the README says nothing of this kernel')
        found = {what: self.can(trial) for what, trial in self.TRIALS.items()}
        found.update({'plug, unplug, mend': self.can_plug(),
                      'bridges that filter VLANs':
                          hosts.filters_vlans(self.host)})
        self.assertEqual(column, found)
