# SPDX-License-Identifier: Apache-2.0

"""Bridges of the operator that filter VLANs.

Who sets a port's VLANs is the operator: by what the bridge gives each port
that joins, or later, by hand or by a hook. A guest is heard in all of them.
"""

import struct

from tests import base
from tests.functional import test_audit
from tests import hosts
from vif_plug_tapmac.kernel import netlink as nl

_WIRE, _WIRE_MAC = 'wire7', '52:54:00:00:00:01'
_OTHER_MAC = 'fa:16:3e:00:00:99'
_PVID, _UNTAGGED = 2, 4
_TAG = 0x8100


def tagged(vlan, destination, source, payload):
    """Return a frame with a tag."""
    frame = hosts.frame(destination, source, payload)
    return frame[:12] + struct.pack('!HH', _TAG, vlan) + frame[12:]


class Filtering:
    """A bridge of the operator's that filters, with a wire that is a trunk."""

    #: Of the wire, beside the one that each port has.
    VLANS = 200, 300

    def lay_bridge(self, **options):
        if not hosts.filters_vlans(self.host):
            self.skipTest(hosts.FILTERS_NO_VLANS)
        if not hosts.locks_ports(self.host):
            self.skipTest(hosts.LOCKS_NO_PORTS)
        bridge = self.host.add(
            base.BRIDGE, 'bridge', address='02:00:00:00:00:05',
            br_mcast_snooping=0, br_vlan_filtering=1, **options)
        self.host.quiet_ipv6(base.BRIDGE)
        with open('/proc/sys/net/ipv6/conf/%s/disable_ipv6' % base.BRIDGE,
                  'w') as opened:
            opened.write('1')
        self.host.set(base.BRIDGE, state='up')
        self.host.add_tap(_WIRE, owner=0)
        self.host.quiet_ipv6(_WIRE)
        self.host.set(_WIRE, master=bridge.index, state='up')
        for vlan in self.VLANS:
            self.vlan('add', _WIRE, vlan)

    def vlan(self, command, name, vlan, flags=0):
        self.host.ip.vlan_filter(command, index=self.host.link(name).index,
                                 vlan_info={'vid': vlan, 'flags': flags})

    def move(self, vlan, name=base.TAP):
        """Have a port in this VLAN and no more in the one by default."""
        self.vlan('add', name, vlan, _PVID | _UNTAGGED)
        self.vlan('del', name, 1)

    def entries(self, mac=base.GUEST_MAC, name=base.TAP):
        """Return in which of its VLANs the port has the MAC for good.

        0: without one. In a VLAN that it was taken out of the kernel keeps the
        entry until the port goes, where it serves nobody.
        """
        with nl.Netlink() as netlink:
            index = self.host.link(name).index
            vlans = {0} | netlink.vlans_of_ports().get(index, set())
            return sorted(vlan for port, lladdr, vlan
                          in netlink.fixed_entries()
                          if (port, lladdr) == (index, mac) and vlan in vlans)


class PlugTest(Filtering, base.FunctionalTestCase):

    def setUp(self):
        super().setUp()
        self.lay_bridge()
        self.wire = hosts.Guest(_WIRE, _WIRE_MAC)
        self.addCleanup(self.wire.close)
        self.host.wait_until_forwarding(_WIRE)

    def hold(self):
        guest = hosts.Guest(base.TAP, base.GUEST_MAC)
        self.addCleanup(guest.close)
        self.host.wait_until_forwarding(base.TAP)
        return guest

    def assert_heard(self, guest, vlan, payload=b'I am in a VLAN'):
        """Expect frames of the guest at the wire, with a tag, and replies."""
        guest.send(_WIRE_MAC, payload)
        frame = next(frame for frame in self.wire.frames()
                     if payload in frame)
        if vlan == 1:  # As each port has it: without a tag.
            self.assertEqual((hosts.ETHERTYPE,), struct.unpack_from(
                '!H', frame, 12))
            self.wire.send(guest.mac, b'reply to ' + payload)
        else:
            self.assertEqual((_TAG, vlan), struct.unpack_from(
                '!HH', frame, 12))
            self.wire.write(tagged(vlan, guest.mac, self.wire.mac,
                                   b'reply to ' + payload))
        self.assertTrue(guest.receive(b'reply to ' + payload))

    def test_vlan_by_default(self):
        self.plug()
        self.assert_heard(self.hold(), 1)

    def test_another_vlan_by_default(self):
        self.host.set(base.BRIDGE, kind='bridge', br_vlan_default_pvid=200)
        self.vlan('add', _WIRE, 200)  # It had it by default just now.
        self.plug()
        self.assertEqual([0, 200], self.entries())
        self.assert_heard(self.hold(), 200)

    def test_set_later(self):
        self.plug()
        self.move(200)
        self.plug()
        self.assertEqual([0, 200], self.entries())
        self.assert_heard(self.hold(), 200)

    def test_set_later_under_a_guest(self):
        self.plug()
        guest = self.hold()
        self.move(200)
        before = self.host.link(base.TAP)
        self.plug()
        self.assertEqual(before, self.host.link(base.TAP))
        self.assert_heard(guest, 200)
        self.move(300)
        self.vlan('del', base.TAP, 200)
        self.plug()
        self.assert_heard(guest, 300)

    def test_none_and_set_later(self):
        self.host.set(base.BRIDGE, kind='bridge', br_vlan_default_pvid=0)
        self.plug()
        self.assertEqual([0], self.entries())
        guest = self.hold()
        self.vlan('add', base.TAP, 200, _PVID | _UNTAGGED)
        self.plug()
        self.assert_heard(guest, 200)

    def test_filtering_set_later(self):
        self.host.set(base.BRIDGE, kind='bridge', br_vlan_filtering=0)
        self.plug()
        guest = self.hold()
        self.move(200)
        self.host.set(base.BRIDGE, kind='bridge', br_vlan_filtering=1)
        self.plug()
        self.assert_heard(guest, 200)

    def test_hundred_vlans(self):
        self.plug()
        for vlan in range(1000, 1100):
            self.vlan('add', base.TAP, vlan)
        self.plug()
        self.assertEqual([0, 1, *range(1000, 1100)], self.entries())

    def test_spoofed_in_none(self):
        self.plug()
        guest = self.hold()
        self.move(200)
        self.plug()
        guest.write(hosts.frame(_WIRE_MAC, _OTHER_MAC, b'I am another'))
        self.assert_heard(guest, 200)
        self.assertFalse(any(b'another' in frame
                             for frame in self.wire.waiting()))

    def test_unplug_and_again(self):
        self.plug()
        self.move(200)
        self.plug()
        self.unplug()
        with nl.Netlink() as netlink:
            self.assertEqual(set(), netlink.fixed_entries())
        self.plug()
        self.assertEqual([0, 1], self.entries())

    def test_another_mac(self):
        self.plug()
        self.vlan('add', base.TAP, 200)
        self.plug()
        self.plug(base.make_vif(address=_OTHER_MAC))
        self.assertEqual(([], [0, 1, 200]),
                         (self.entries(), self.entries(_OTHER_MAC)))

    def test_lock_is_taken_off(self):
        self.plug()
        self.vlan('add', base.TAP, 200)
        self.plug()
        self.configure(anti_spoofing='none')
        self.plug()
        self.assertEqual([], self.entries())

    def test_guest_that_arrives_speaks_on(self):
        # It is heard from the wire, where it is still, in the VLAN that its
        # port has by default.
        self.configure(arriving_guests='filter')
        self.wire.write(hosts.frame(hosts.BROADCAST, base.GUEST_MAC, b'here'))
        self.plug()
        self.assertEqual([], self.entries())
        self.assertFalse(self.host.link(base.TAP).locked)
        self.assert_heard(self.hold(), 1)


class AuditTest(Filtering, test_audit.AuditTestCase):

    def test_vlan_that_came_later(self):
        self.lay_bridge()
        self.plug_clean()
        self.hold()
        self.move(200)
        self.vlan('add', base.TAP, 300)
        self.assert_mends('TM214', base.TAP, 'mute in VLAN 200, 300')
        self.assertEqual([0, 200, 300], self.entries())

    def test_no_vlan(self):
        self.lay_bridge(br_vlan_default_pvid=0)
        self.plug()
        self.hold()
        self.assert_finds('TM216', base.TAP, 'none by default',
                          'bridge vlan add dev %s' % base.TAP)
        self.vlan('add', base.TAP, 200, _PVID | _UNTAGGED)
        self.assert_mends('TM214', base.TAP)

    def test_no_lock_no_entry(self):
        self.lay_bridge()
        self.configure(anti_spoofing='none')
        self.plug_clean()
        self.move(200)
        self.assert_clean()
