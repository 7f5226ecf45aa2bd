# SPDX-License-Identifier: Apache-2.0

"""Guests that differ in the first octet only, on one bridge.

Reachable means: a frame that a neighbour sends to the guest's MAC comes out of
the guest's descriptor.
"""

import concurrent.futures

from tests import base
from tests.functional import test_guard
from tests import hosts
from vif_plug_tapmac import exception
from vif_plug_tapmac.kernel.fdb import FdbEntry
from vif_plug_tapmac.kernel import netlink as nl

_TAIL = ':16:3e:28:64:c2'
_ALTERNATES = ('f6', 'f2', 'ee', 'ea', 'e6', 'e2')


class ClashTest(base.FunctionalTestCase):

    def setUp(self):
        super().setUp()
        self.guests = {}
        self.add('fa:16:3e:00:00:01', number=99)

    def vif(self, mac, number=None):
        number = int(mac[:2], 16) if number is None else number
        return base.numbered_vif(number, address=mac)

    def add(self, mac, **kwargs):
        """Plug a guest and let it open its TAP, in silence."""
        vif = self.vif(mac, **kwargs)
        self.plug(vif)
        self.hold(vif)
        return vif

    def hold(self, vif):
        guest = hosts.Guest(vif.vif_name, vif.address)
        self.addCleanup(guest.close)
        self.host.wait_until_forwarding(vif.vif_name)
        self.guests[vif.address] = guest

    def remove(self, mac):
        self.guests.pop(mac).close()
        self.unplug(self.vif(mac))

    def tap_octet(self, mac):
        return self.host.link(self.vif(mac).vif_name).mac[:2]

    def assert_all_reach_all(self):
        for sender in self.guests.values():
            for receiver in self.guests.values():
                if receiver is not sender:
                    payload = ('%s to %s' % (sender.mac,
                                             receiver.mac)).encode()
                    sender.send(receiver.mac, payload)
                    self.assertTrue(receiver.receive(payload), payload)

    def test_fa_then_fe(self):
        self.add('fa' + _TAIL)
        self.assertEqual('fe', self.tap_octet('fa' + _TAIL))
        self.add('fe' + _TAIL)
        self.assert_all_reach_all()
        self.assert_logged('differs from this guest', 'tap000000fa')

    def test_fe_then_fa(self):
        self.add('fe' + _TAIL)
        self.assertEqual('fa', self.tap_octet('fe' + _TAIL))
        self.add('fa' + _TAIL)
        self.assert_all_reach_all()

    def test_guests_that_have_spoken_before(self):
        self.add('fa' + _TAIL)
        self.guests['fa' + _TAIL].send(hosts.BROADCAST, b'hello')
        self.add('fe' + _TAIL)
        self.assert_all_reach_all()

    def test_at_once(self):
        for _ in range(20):
            with concurrent.futures.ThreadPoolExecutor(2) as executor:
                for done in [executor.submit(self.plug, self.vif(mac))
                             for mac in ('fa' + _TAIL, 'fe' + _TAIL)]:
                    done.result()
            for mac in ('fa' + _TAIL, 'fe' + _TAIL):
                self.hold(self.vif(mac))
            self.assert_all_reach_all()
            for mac in ('fa' + _TAIL, 'fe' + _TAIL):
                self.remove(mac)

    def test_either_comes_back_while_the_other_is_silent(self):
        self.add('fa' + _TAIL)
        self.add('fe' + _TAIL)
        for mac in ('fa' + _TAIL, 'fe' + _TAIL) * 2:
            self.remove(mac)
            self.add(mac)
            self.assert_all_reach_all()

    def test_plugging_again_changes_nothing(self):
        for mac in ('fa' + _TAIL, 'fe' + _TAIL):
            self.add(mac)
        before = self.host.state()
        for mac in ('fa' + _TAIL, 'fe' + _TAIL):
            self.plug(self.vif(mac))
        self.assertEqual(before, self.host.state())

    def test_mac_lost_while_the_other_is_silent(self):
        self.add('fa' + _TAIL)
        self.add('fe' + _TAIL)
        self.host.set('tap000000fa', address='02:00:00:00:00:99')
        self.plug(self.vif('fa' + _TAIL))
        self.assert_all_reach_all()

    def test_same_tail_without_clash_shares_the_tap_mac(self):
        for mac in ('52' + _TAIL, '50' + _TAIL):
            self.add(mac)
            self.assertEqual('fe', self.tap_octet(mac))
        self.assert_all_reach_all()

    def test_third_guest_meets_a_silent_fe(self):
        # The rule would give 52's TAP the very MAC of guest fe.
        self.add('fe' + _TAIL)
        self.add('52' + _TAIL)
        self.assert_all_reach_all()

    def test_fe_meets_two_that_share_its_mac(self):
        self.add('52' + _TAIL)
        self.add('50' + _TAIL)
        self.add('fe' + _TAIL)
        self.assert_all_reach_all()

    def test_all_octets_at_once(self):
        for octet in ('fa', 'fe', '52', '50', 'fc', '06'):
            self.add(octet + _TAIL)
        self.assert_all_reach_all()

    def test_guest_with_an_alternate_octet(self):
        self.add('fa' + _TAIL)
        self.add('fe' + _TAIL)
        self.assertEqual('f6', self.tap_octet('fe' + _TAIL))
        self.add('f6' + _TAIL)
        self.assert_all_reach_all()

    def test_alternate_octet_is_a_guests_that_has_spoken(self):
        self.add('f6' + _TAIL)
        self.guests['f6' + _TAIL].send(hosts.BROADCAST, b'hello')
        self.add('fa' + _TAIL)
        self.add('fe' + _TAIL)
        self.assertEqual('f2', self.tap_octet('fe' + _TAIL))
        self.assert_all_reach_all()

    def test_alternate_octet_is_a_silent_guests(self):
        # The one case that is not seen; its next plug puts it right.
        for mac in ('f6' + _TAIL, 'fa' + _TAIL, 'fe' + _TAIL):
            self.add(mac)
        self.plug(self.vif('f6' + _TAIL))
        self.assert_all_reach_all()

    def test_guest_behind_the_uplink(self):
        # Not on this host, so only its frames tell of it.
        self.host.add('uplink', 'veth', peer='wire',
                      master=self.host.link(base.BRIDGE).index)
        for name in ('uplink', 'wire'):
            self.host.quiet_ipv6(name)
            self.host.set(name, state='up')
        with nl.Netlink() as netlink:
            uplink = self.host.link('uplink')
            self.host.ip.fdb('add', ifindex=uplink.index, state=0x40, flags=4,
                             lladdr='fe' + _TAIL)
            self.add('fa' + _TAIL)
            self.assertEqual('f6', self.tap_octet('fa' + _TAIL))
            self.assertEqual(
                FdbEntry(uplink.index, local=False), netlink.fdb_entry(
                    self.host.link(base.BRIDGE), 'fe' + _TAIL))

    def test_port_with_the_guests_mac_that_goes_while_it_is_looked_at(self):
        # As an unplug does beside a plug: seen with both on a busy machine.
        taken = self.host.link(self.add('fa' + _TAIL).vif_name)
        get = nl.Netlink.get

        def delete_and_get(netlink, index, device=None):
            if index == taken.index and self.host.find(taken.name):
                self.host.delete(taken.name)
            return get(netlink, index, device)
        self.patch(nl.Netlink, 'get', delete_and_get)
        self.plug(base.make_vif(address='fa' + _TAIL))
        self.assert_finished(mac='fe' + _TAIL)

    def test_no_second_bridge_is_concerned(self):
        self.add('fa' + _TAIL)
        self.plug(base.numbered_vif(2, address='fe' + _TAIL,
                                    bridge_name='br200'))
        self.assertEqual('fe', self.tap_octet('fa' + _TAIL))
        self.assertEqual('fa' + _TAIL, self.host.link('tap00000002').mac)


class UnguardedClashTest(ClashTest):
    """The same where guests may be silent, and so not in the FDB."""

    def setUp(self):
        super().setUp()
        self.configure(anti_spoofing='none')


class HearsayTest(test_guard.GuardTestCase):
    """Frames from the wire in the names of guests that are not there.

    Whoever can send one can send it again, so none refuses a plug.
    """

    def setUp(self):
        super().setUp()
        neighbour = base.numbered_vif(99, address='fa:16:3e:00:00:01')
        self.plug(neighbour)
        self.neighbour = self.open(neighbour.vif_name, neighbour.address)

    def hear(self, *octets):
        for octet in octets:
            self.wire.write(hosts.frame(hosts.BROADCAST, octet + _TAIL,
                                        b'from ' + octet.encode()))
            self.assertTrue(any(b'from ' + octet.encode() in frame
                                for frame in self.neighbour.frames()))

    def assert_reached(self, tap=base.TAP, mac=base.GUEST_MAC):
        guest = self.open(tap, mac)
        self.neighbour.send(mac, b'is it you')
        self.assertTrue(guest.receive(b'is it you'))
        guest.close()

    @base.needs_locked_ports
    def test_of_every_octet(self):
        self.hear('fe', 'fa', *_ALTERNATES)
        self.configure(arriving_guests='lock')
        self.plug()
        self.assert_finished(mac=base.TAP_MAC)
        self.assert_guarded()
        self.assert_reached()
        self.assert_logged('find out who sends them')

    def test_of_a_guest_that_starts_with_fe(self):
        self.hear('fe', 'fa', *_ALTERNATES)
        self.configure(arriving_guests='lock')
        self.plug(base.make_vif(address='fe' + _TAIL))
        self.assert_finished(mac='fa' + _TAIL)

    def test_of_some_octets(self):
        self.hear('fe', 'f6')
        self.plug()
        self.assert_finished(mac='f2' + _TAIL)

    def test_beside_a_guest_that_is_there(self):
        # Its MAC is no hearsay, and stays its own.
        rival = base.numbered_vif(1, address='fe' + _TAIL)
        self.plug(rival)
        self.hear(*_ALTERNATES)
        self.plug()
        self.assertNotIn(self.host.link(base.TAP).mac[:2], ('fa', 'fe'))
        self.assert_reached()
        self.assert_reached(rival.vif_name, rival.address)

    def test_a_tap_that_has_to_give_way(self):
        self.plug(base.numbered_vif(1, address='fa' + _TAIL))
        self.hear(*_ALTERNATES)
        # The TAP of fa:X has the MAC of this guest.
        rival = base.numbered_vif(2, address='fe' + _TAIL)
        self.plug(rival)
        self.assert_reached('tap00000001', 'fa' + _TAIL)
        self.assert_reached(rival.vif_name, rival.address)

    def test_while_the_guest_runs(self):
        self.plug()
        with hosts.Guest(base.TAP, base.GUEST_MAC):
            self.host.set(base.TAP, address='02:00:00:00:00:99')
            self.hear('fe', 'fa', *_ALTERNATES)
            self.plug()
            self.assert_finished(mac=base.TAP_MAC)

    @base.needs_locked_ports
    def test_who_has_all_of_them_for_good(self):
        *octets, last = 'fe', *_ALTERNATES
        for number, octet in enumerate(octets, 1):
            self.plug(base.numbered_vif(number, address=octet + _TAIL))
        self.assert_plug_fails(exception.DeviceConflict, 'have all MACs',
                               vif=base.numbered_vif(9, address=last + _TAIL))


class ForeignHolderTest(base.FunctionalTestCase):
    """The guest's own MAC belongs to a device that is not ours to change."""

    def setUp(self):
        super().setUp()
        self.plug(base.numbered_vif(1))
        self.bridge = self.host.link(base.BRIDGE)

    def test_bridge(self):
        self.assert_plug_fails(
            exception.DeviceConflict, self.bridge.mac, base.BRIDGE,
            vif=base.make_vif(address=self.bridge.mac))

    def test_port(self):
        self.host.add('eth7', 'veth', peer='p', address=base.GUEST_MAC,
                      master=self.bridge.index)
        self.assert_plug_fails(exception.DeviceConflict, base.GUEST_MAC,
                               'eth7')

    def test_port_while_the_guest_runs(self):
        self.plug()
        with hosts.Guest(base.TAP):
            self.host.add('eth7', 'veth', peer='p', address=base.GUEST_MAC,
                          master=self.bridge.index)
            before = self.host.state()
            self.plug()
            self.assertEqual(before, self.host.state())
        self.assert_logged('eth7', 'could not be mended')
