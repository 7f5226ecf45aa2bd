# SPDX-License-Identifier: Apache-2.0

"""Plug of a TAP that does not exist yet."""

import socket
import time

from os_vif import exception as os_vif_exception

from tests import base
from tests import hosts
from vif_plug_tapmac import exception
from vif_plug_tapmac.kernel.fdb import FdbEntry
from vif_plug_tapmac.kernel import link as link_data
from vif_plug_tapmac.kernel import netlink as nl
from vif_plug_tapmac import mark


def _is_router_solicitation(frame):
    return (frame[12:14] == b'\x86\xdd' and frame[20] == socket.IPPROTO_ICMPV6
            and frame[54] == 133)


def _is_bpdu(frame):
    return frame.startswith(b'\x01\x80\xc2\0\0\0')


class PlugTest(base.FunctionalTestCase):

    def test_tap_is_finished(self):
        before = int(time.time())
        self.plug()
        self.assert_finished()
        link = self.host.link(base.TAP)
        self.assertEqual(link_data.ADDR_GEN_NONE, link.addr_gen_mode)
        self.assertFalse(link.held)
        found = mark.TapMark.parse(link.alias)
        self.assertEqual((base.VIF_ID, base.GUEST_MAC, base.BRIDGE),
                         (found.vif_id, found.guest_mac, found.bridge))
        self.assertTrue(before <= found.made <= time.time())

    def test_mac_counts_as_set_by_hand(self):
        # addr_assign_type 3 is what keeps udev's MACAddressPolicy away.
        with hosts.private_mounts():
            hosts.mount('sysfs', '/sys', 'sysfs')
            self.plug()
            with open('/sys/class/net/%s/addr_assign_type' % base.TAP) as kind:
                self.assertEqual('3', kind.read().strip())

    def test_guest_that_starts_with_fe(self):
        self.plug(base.make_vif(address='fe:16:3e:28:64:c2'))
        self.assert_finished(mac='fa:16:3e:28:64:c2')

    def test_upper_case_mac(self):
        self.plug(base.make_vif(address=base.GUEST_MAC.upper()))
        self.assert_finished()

    @base.needs_real_root(base.SEVERAL_USERS)
    def test_owner_by_name(self):
        self.configure(owner='nobody')
        self.plug()
        self.assert_finished(owner=65534)

    @base.needs_real_root(base.SEVERAL_USERS)
    def test_owner_by_uid(self):
        for uid in (0, 4242, 2 ** 31, 2 ** 32 - 2):
            self.configure(owner=str(uid))
            self.plug()
            self.assert_finished(owner=uid)
            self.unplug()

    def test_multi_queue(self):
        self.configure(multiqueue=True)
        self.plug()
        self.assert_finished(multi_queue=True)
        flags = hosts.IFF_TAP | hosts.IFF_MULTI_QUEUE
        with hosts.Guest(base.TAP, flags=flags), \
                hosts.Guest(base.TAP, flags=flags):
            self.assertEqual(2, self.host.link(base.TAP).queues)

    def test_link_group(self):
        for group in (1, 2 ** 31 - 1):
            self.configure(link_group=group)
            self.plug()
            self.assert_finished(group=group)
            self.unplug()

    def test_mtu_at_both_ends_of_the_range(self):
        for mtu in (68, 65521):
            self.plug(base.make_vif(mtu=mtu))
            self.assert_finished(mtu=mtu)
            self.unplug()

    def test_no_mtu(self):
        for mtu in (None, base.UNSET):
            self.plug(base.make_vif(mtu=mtu))
            self.assert_finished(mtu=1500)
            self.unplug()

    def test_name_of_15_characters(self):
        self.plug(base.make_vif(vif_name='a' * 15, bridge_name='b' * 15))
        self.assert_finished(tap='a' * 15, master='b' * 15)

    def test_bridge_from_the_network(self):
        vif = base.make_vif(bridge_name=base.UNSET)
        vif.network.bridge = 'br200'
        self.plug(vif)
        self.assert_finished(master='br200')

    def test_plug_twice(self):
        self.plug()
        before = self.host.state()
        self.plug()
        self.assertEqual(before, self.host.state())

    @base.needs_locked_ports
    def test_guest_talks_to_the_bridge_and_is_known_by_its_own_mac(self):
        self.plug()
        with hosts.Guest(base.TAP, base.GUEST_MAC) as guest:
            self.host.wait_until_forwarding(base.TAP)
            guest.send(hosts.BROADCAST, b'hello')
            with nl.Netlink() as netlink:
                entry = netlink.fdb_entry(self.host.link(base.BRIDGE),
                                          base.GUEST_MAC)
        self.assertEqual(
            FdbEntry(self.host.link(base.TAP).index, local=False,
                     fixed=True), entry)

    def test_no_frame_disturbs_the_guest(self):
        self.plug()
        with hosts.Guest(base.TAP, base.GUEST_MAC) as guest:
            self.host.wait_until_forwarding(base.TAP)
            self.wait_for_frames_of_plain_bridges()
            self.assertEqual([], guest.waiting())
            self.assertEqual([], self.host.addresses(base.TAP))
            self.assertEqual([], self.host.addresses(base.BRIDGE))

    def wait_for_frames_of_plain_bridges(self):
        """Let all come that a bridge sends which nobody configured.

        IPv6 asks for a router at last, and the spanning tree protocol tells
        of each port.
        """
        for name, stp, last in (('br0', 0, _is_router_solicitation),
                                ('br1', 1, _is_bpdu)):
            bridge = self.host.add(name, 'bridge', br_stp_state=stp)
            self.host.set(name, state='up')
            self.host.add_tap('tap' + name)
            self.host.set('tap' + name, master=bridge.index, state='up')
            with hosts.Guest('tap' + name) as guest:
                self.assertTrue(any(map(last, guest.frames())))

    def test_unknown_vif_class(self):
        error = self.assertRaises(
            os_vif_exception.PlugException, self.plug,
            base.vif_objects.VIFHostDevice(
                id=base.VIF_ID, plugin='tapmac', address=base.GUEST_MAC))
        self.assertIsInstance(error.kwargs['err'], exception.InvalidVif)
        self.assertIn('VIFHostDevice', str(error.kwargs['err']))
