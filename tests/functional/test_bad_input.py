# SPDX-License-Identifier: Apache-2.0

"""Requests and hosts that cannot work: a typed error, and nothing changed."""

import errno
import os
import socket
import stat
import threading

from os_vif import exception as os_vif_exception
from oslo_privsep import capabilities

from tests import base
from tests import hosts
from vif_plug_tapmac import exception
from vif_plug_tapmac.kernel import netlink as nl
from vif_plug_tapmac.kernel import port
from vif_plug_tapmac.kernel import sysctl
from vif_plug_tapmac.kernel import tun

#: A misc device for local use: no driver comes with Linux.
#: Source: Documentation/admin-guide/devices.txt
_NOBODYS_DEVICE = os.makedev(10, 240)

#: What the tun driver cuts, completes, refuses or accepts to our harm.
BAD_NAMES = [
    'a' * 16, 'tap%d', '%d', 't%dx', 'tap%', 'tap%s', 'a/b', 'a:b', 'a b',
    'a\tb', 'a\n', ' ', '.', '..', 'all', 'default', '"', 'a"', ';', 'a;b',
    't*', '-tap', '_tap', '.tap', 'täp', 'tap\0x', '１']


class BadVifTest(base.FunctionalTestCase):

    def assert_refused(self, *words, **fields):
        name = fields.get('vif_name', base.TAP)
        self.assert_plug_fails(
            exception.InvalidVif, base.VIF_ID, 'must correct it',
            name if name not in ('', base.UNSET) else 'without vif_name',
            *words, vif=base.make_vif(**fields))

    def test_tap_names(self):
        for name in BAD_NAMES:
            self.assert_refused('vif_name', repr(name), vif_name=name)

    def test_no_tap_name(self):
        for name in ('', base.UNSET):
            self.assert_refused('vif_name', vif_name=name)

    def test_bridge_names(self):
        for name in BAD_NAMES:
            self.assert_refused('bridge_name', repr(name), bridge_name=name)

    def test_no_bridge_name(self):
        for name in ('', base.UNSET):
            self.assert_refused('bridge_name', bridge_name=name)

    def test_one_name_for_both(self):
        self.assert_refused('br100', vif_name='br100')

    def test_macs(self):
        for mac in ('01:16:3e:28:64:c2', 'ff:ff:ff:ff:ff:ff',
                    '33:33:00:00:00:01'):
            self.assert_refused('multicast', mac, address=mac)
        self.assert_refused('all zero', address='00:00:00:00:00:00')

    def test_no_mac(self):
        for mac in (None, base.UNSET):
            self.assert_refused('address', address=mac)

    def test_mtus(self):
        for mtu in (-1, 0, 67, 65522, 2 ** 31):
            self.assert_refused('MTU %d' % mtu, '68 to 65521', mtu=mtu)

    def test_no_id(self):
        before = self.host.state()
        for function in (self.plug, self.unplug):
            error = self.assertRaises(os_vif_exception.ExceptionBase, function,
                                      base.make_vif(id=base.UNSET))
            self.assertIsInstance(error.kwargs['err'], exception.InvalidVif)
        self.assertEqual(before, self.host.state())

    def test_unplug_of_bad_names(self):
        before = self.host.state()
        for name in BAD_NAMES:
            error = self.assertRaises(
                os_vif_exception.UnplugException, self.unplug,
                base.make_vif(vif_name=name))
            self.assertIsInstance(error.kwargs['err'], exception.InvalidVif)
        self.assertEqual(before, self.host.state())


class BadConfigTest(base.FunctionalTestCase):

    def test_unknown_owner(self):
        self.configure(owner='no-such-user')
        self.assert_plug_fails(exception.InvalidConfig, 'owner',
                               'no-such-user', 'operator')

    def test_owner_out_of_range(self):
        for owner in ('-1', str(2 ** 32 - 1), str(2 ** 64)):
            self.configure(owner=owner)
            self.assert_plug_fails(exception.InvalidConfig, 'owner', owner)

    def test_one_group_for_both(self):
        self.configure(link_group=7, bridge_group=7)
        self.assert_plug_fails(exception.InvalidConfig, 'bridge_group')

    def test_missing_bridge(self):
        self.configure(create_bridge=False)
        self.assert_plug_fails(exception.BridgeNotFound, base.TAP,
                               base.BRIDGE, 'create_bridge', 'operator')


class BadHostTest(base.FunctionalTestCase):

    def test_bridge_name_taken(self):
        for kind, make in {
                'veth': lambda: self.host.add(base.BRIDGE, 'veth', peer='p'),
                'tun': lambda: self.host.add_tap(base.BRIDGE),
                'ifb': lambda: self.host.add(base.BRIDGE, 'ifb'),
        }.items():
            make()
            self.assert_plug_fails(exception.DeviceConflict, base.BRIDGE,
                                   kind, 'operator')
            self.host.delete(base.BRIDGE)

    def test_bridge_name_is_hardware(self):
        self.assert_plug_fails(exception.DeviceConflict, 'lo', 'operator',
                               vif=base.make_vif(bridge_name='lo'))

    def test_bridge_name_is_an_altname(self):
        self.host.add('br0', 'bridge')
        self.host.ip.link('property_add', altname=base.BRIDGE,
                          index=self.host.link('br0').index)
        self.assert_plug_fails(exception.DeviceConflict, base.BRIDGE,
                               'alternative name of br0')

    def test_no_tun_device(self):
        with hosts.private_mounts():
            hosts.mount('tmpfs', '/dev/net', 'tmpfs')
            self.assert_plug_fails(exception.KernelRefused, '/dev/net/tun',
                                   'ENOENT', 'modprobe tun')

    @base.needs_real_root(base.DEVICE_NODES)
    def test_no_tun_driver(self):
        # ENODEV, as of a link that somebody removed meanwhile. For that we
        # would start over, and here it helps nobody.
        opened = []
        self.patch(os, 'open', lambda path, *args, open=os.open: (
            opened.append(path), open(path, *args))[1])
        with hosts.private_mounts():
            hosts.mount('tmpfs', '/dev/net', 'tmpfs')
            os.mknod('/dev/net/tun', stat.S_IFCHR | 0o600, _NOBODYS_DEVICE)
            self.assert_plug_fails(exception.KernelRefused, '/dev/net/tun',
                                   'ENODEV', 'modprobe tun')
        self.assertEqual(1, opened.count(tun.TUN_DEVICE))

    def test_no_tun_device_keeps_the_tap_that_was_to_be_made_anew(self):
        self.plug()
        self.configure(owner='nobody')
        with hosts.private_mounts():
            hosts.mount('tmpfs', '/dev/net', 'tmpfs')
            self.assert_plug_fails(exception.KernelRefused, '/dev/net/tun')

    def test_read_only_sysctls(self):
        with hosts.private_mounts():
            hosts.mount_read_only('/proc/sys')
            self.assert_plug_fails(exception.KernelRefused, base.BRIDGE,
                                   '/proc/sys/net/ipv4/conf/br100/arp_ignore',
                                   'EROFS', 'mount it writable')

    def test_no_sysctls(self):
        with hosts.private_mounts():
            hosts.mount('tmpfs', '/proc/sys', 'tmpfs')
            self.assert_plug_fails(exception.KernelRefused, base.BRIDGE,
                                   '/proc/sys/net/ipv4/conf/br100/arp_ignore',
                                   'ENOENT', 'mount it')

    def test_read_only_sysctls_do_not_matter_once_the_bridge_is_there(self):
        self.plug(base.numbered_vif(1))
        with hosts.private_mounts():
            hosts.mount_read_only('/proc/sys')
            self.plug()
        self.assert_finished()

    def test_sysctls_that_only_writing_says_are_read_only(self):
        """As where a policy refuses it, which no file system says."""
        self.patch(sysctl, '_refused', False)
        self.plug(base.numbered_vif(1))
        with hosts.private_mounts():
            hosts.mount_read_only('/proc/sys/net/ipv6')
            for _ in range(2):
                self.plug()
        self.assert_finished()

    def without_capabilities(self, function):
        """Call a function in a thread that has no capability left."""
        errors = []

        def run():
            capabilities.drop_all_caps_except([], [], [])
            try:
                function()
            except os_vif_exception.ExceptionBase as error:
                errors.append(error.kwargs['err'])
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        return errors

    def test_no_privilege(self):
        before = self.host.state()
        error, = self.without_capabilities(self.plug)
        self.assertIsInstance(error, exception.KernelRefused)
        for word in (base.TAP, 'EPERM', 'CAP_NET_ADMIN', 'helper_command'):
            self.assertIn(word, str(error))
        self.assertEqual(before, self.host.state())

    def test_no_privilege_to_unplug(self):
        self.plug()
        before = self.host.state()
        error, = self.without_capabilities(self.unplug)
        self.assertIsInstance(error, exception.KernelRefused)
        self.assertIn('CAP_NET_ADMIN', str(error))
        self.assertEqual(before, self.host.state())

    def test_no_privilege_and_nothing_to_do(self):
        self.plug()
        self.assertEqual([], self.without_capabilities(self.plug))

    def test_tap_that_appears_after_the_look(self):
        # Somebody else's: it must not be taken for what we made.
        self.plug(base.numbered_vif(1))
        self.host.add_tap(base.TAP)
        self.patch(port, '_GIVES_UP_AFTER', 0.2)
        find = nl.Netlink.find
        self.patch(nl.Netlink, 'find', lambda netlink, name, *label: (
            None if name == base.TAP else find(netlink, name)))
        self.assert_plug_fails(exception.KernelRefused, base.TAP, 'EEXIST',
                               'again and again')

    def stranger_comes_after(self, holder, name):
        """Let a stranger attach to the first TAP right after a step of ours.

        He must lose it: the plug starts over, with another TAP.
        """
        original = getattr(holder, name)
        strangers = []

        def wrapper(*args, **kwargs):
            result = original(*args, **kwargs)
            if not strangers:
                tap, = (found for _, found in socket.if_nameindex()
                        if found.startswith('tapmac-'))
                strangers.append(hosts.Guest(
                    tap, base.GUEST_MAC,
                    flags=hosts.IFF_TAP | hosts.IFF_MULTI_QUEUE))
                self.addCleanup(strangers[0].close)
            return result
        self.patch(holder, name, wrapper)
        self.configure(multiqueue=True)
        self.plug()
        self.assert_finished(multi_queue=True)
        self.assertFalse(self.host.link(base.TAP).held)
        error = self.assertRaises(OSError, strangers[0].send,
                                  hosts.BROADCAST, b'still there?')
        self.assertEqual(errno.EBADFD, error.errno)

    def test_stranger_before_the_owner_is_set(self):
        self.stranger_comes_after(tun.TunDevice, 'create')

    def test_stranger_before_the_end(self):
        self.plug(base.numbered_vif(1))
        self.stranger_comes_after(nl.Netlink, 'fdb_entry')
