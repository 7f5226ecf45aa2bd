# SPDX-License-Identifier: Apache-2.0

"""Options of a guest's port, and the lock that keeps a guest to its MAC.

Which frames pass is in test_frames.py; here is when the lock is set, and that
it never is set too late.
"""

import contextlib
import fcntl
import itertools
import struct
import threading
import time

from tests import base
from tests import hosts
from tests import patience
from vif_plug_tapmac import exception
from vif_plug_tapmac.host import audit
from vif_plug_tapmac.host import inventory
from vif_plug_tapmac.kernel.fdb import FdbEntry
from vif_plug_tapmac.kernel import link as link_data
from vif_plug_tapmac.kernel import netlink as nl
from vif_plug_tapmac import mark
from vif_plug_tapmac.wanted import names

_MULTI_QUEUE = hosts.IFF_TAP | hosts.IFF_MULTI_QUEUE
_STRANGER = '52:54:00:00:00:99'
_SPOOFED, _HONEST = b'I am somebody else', b'I am myself'
#: How many frames of a guest tell whether its spoofed ones pass.
_FRAMES = 100


class GuardTestCase(base.FunctionalTestCase):

    def setUp(self):
        super().setUp()
        # The wire: what a guest sends to strangers comes out here.
        bridge = self.host.add(base.BRIDGE, 'bridge', br_mcast_snooping=0,
                               address='02:00:00:00:00:05')
        self.host.quiet_ipv6(base.BRIDGE)
        self.host.set(base.BRIDGE, state='up')
        self.host.add_tap('uplink')
        self.host.quiet_ipv6('uplink')
        self.host.set('uplink', master=bridge.index, state='up')
        self.wire = self.open('uplink', '52:54:00:00:00:01')

    def open(self, tap, mac, flags=hosts.IFF_TAP):
        guest = hosts.Guest(tap, mac, flags)
        self.addCleanup(guest.close)
        if self.host.master(tap):
            self.host.wait_until_forwarding(tap)
        return guest

    def options_of(self, tap=base.TAP):
        link = self.host.link(tap)
        return {field: getattr(link, field)
                for field in link_data.PORT_OPTIONS}

    def entry(self, mac=base.GUEST_MAC):
        with nl.Netlink() as netlink:
            return netlink.fdb_entry(self.host.link(base.BRIDGE), mac)

    def fixed(self, tap=base.TAP):
        return FdbEntry(self.host.link(tap).index, local=False, fixed=True)

    def assert_guarded(self, tap=base.TAP, mac=base.GUEST_MAC):
        self.assertEqual(dict(link_data.PORT_OPTIONS, learning=False,
                              locked=True),
                         self.options_of(tap))
        self.assertEqual(self.fixed(tap), self.entry(mac))


class PortOptionsTest(GuardTestCase):

    @base.needs_locked_ports
    def test_each_is_set_and_set_back(self):
        for option in ('isolated', 'flood_unicast', 'flood_multicast',
                       'hairpin'):
            initial = link_data.PORT_OPTIONS[option]
            self.configure(**{'port_' + option: not initial})
            self.plug()
            self.assertIs(not initial, self.options_of()[option], option)
            self.configure(**{'port_' + option: initial})
            self.plug()
            self.assert_guarded()
        self.assert_finished()

    @base.needs_locked_ports
    def test_all_at_once_from_the_start(self):
        self.configure(port_isolated=True, port_flood_unicast=False,
                       port_flood_multicast=False, port_hairpin=True,
                       port_flood_broadcast=False, anti_spoofing='none')
        self.plug()
        self.assertEqual(
            {'isolated': True, 'flood_unicast': False,
             'flood_multicast': False, 'flood_broadcast': False,
             'hairpin': True, 'learning': True, 'locked': False},
            self.options_of())

    @base.needs_locked_ports
    def test_a_kernel_that_lacks_one(self):
        # It takes the message, and says nothing of the option ever after.
        told = link_data._port_data
        for field, options in {'locked': {},
                               'isolated': {'port_isolated': True,
                                            'anti_spoofing': 'none'}}.items():
            self.configure(**options)
            self.patch(link_data, '_port_data',
                       lambda data: dict(told(data), **{field: None}))
            self.assert_plug_fails(exception.KernelRefused, field,
                                   'newer kernel', 'anti_spoofing = none')
            self.patch(link_data, '_port_data', told)

    def test_a_kernel_that_lacks_all_and_none_is_wanted(self):
        self.configure(anti_spoofing='none')
        self.patch(link_data, '_port_data', lambda data: {})
        self.plug()
        self.assert_finished()

    def test_guests_are_isolated(self):
        self.configure(port_isolated=True)
        guests = []
        for number in (1, 2):
            vif = base.numbered_vif(number)
            self.plug(vif)
            guests.append(self.open(vif.vif_name, vif.address))
        guests[0].send(guests[1].mac, _HONEST)
        self.assertFalse(any(_HONEST in frame for frame
                             in guests[1].frames_until(self.wire)))
        guests[0].send(self.wire.mac, _HONEST)
        self.assertTrue(self.wire.receive(_HONEST))
        self.wire.send(guests[1].mac, _HONEST)
        self.assertTrue(guests[1].receive(_HONEST))

    def test_broadcast_is_not_shown(self):
        for flood in True, False:
            self.configure(port_flood_broadcast=flood)
            self.plug()
            with hosts.Guest(base.TAP, base.GUEST_MAC) as guest:
                self.host.wait_until_forwarding(base.TAP)
                self.wire.send(hosts.BROADCAST, _HONEST)
                # What comes after it, and is for the guest alone.
                self.wire.send(guest.mac, b'last')
                self.assertIs(flood, any(
                    _HONEST in frame for frame in itertools.takewhile(
                        lambda frame: b'last' not in frame, guest.frames())))

    @base.needs_locked_ports
    def test_unknown_unicast_is_not_shown(self):
        for flood in True, False:
            self.configure(port_flood_unicast=flood)
            self.plug()
            with hosts.Guest(base.TAP, base.GUEST_MAC) as guest:
                self.host.wait_until_forwarding(base.TAP)
                self.wire.send(_STRANGER, _HONEST)
                self.assertIs(flood, any(
                    _HONEST in frame
                    for frame in guest.frames_until(self.wire)))
                self.wire.send(guest.mac, _HONEST)
                self.assertTrue(guest.receive(_HONEST))


@base.needs_locked_ports
class LockTest(GuardTestCase):

    def blast(self, flags=hosts.IFF_TAP):
        """Have a guest that attaches as soon as it can, and sends for good."""
        stop = threading.Event()
        self.tries = 0

        def run():
            hosts.enter(self.host.namespace)
            frames = [hosts.frame(hosts.BROADCAST, _STRANGER, _SPOOFED),
                      hosts.frame(hosts.BROADCAST, base.GUEST_MAC, _HONEST)]
            guest = None
            while not stop.is_set():
                with contextlib.suppress(OSError):
                    guest = guest or hosts.Guest(base.TAP, flags=flags)
                    for frame in frames:
                        guest.write(frame)
                self.tries += 1
                time.sleep(0)  # Let others have the interpreter.
            guest.close()
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(stop.set)

    def seen_on_the_wire(self):
        """Yield of each frame of the guest whether it is a spoofed one."""
        for frame in self.wire.frames():
            if _SPOOFED in frame or _HONEST in frame:
                yield _SPOOFED in frame

    def assert_only_honest_frames(self):
        """Expect no spoofed frame, and honest ones as soon as they can be.

        Of each pair that it sends the spoofed one comes first.
        """
        self.assertEqual([False] * _FRAMES, list(
            itertools.islice(self.seen_on_the_wire(), _FRAMES)))

    def assert_both_kinds(self):
        seen = self.seen_on_the_wire()
        for kind in True, False:
            self.assertIn(kind, seen)

    def assert_no_frames(self):
        """Expect none of what the guest goes on to send."""
        self.wire.waiting()
        enough = self.tries + _FRAMES
        patience.wait_until(lambda: self.tries > enough, 'it sends nothing')
        self.assertEqual([], self.wire.waiting())

    def test_guest_that_sends_from_the_first_moment(self):
        self.blast()
        self.plug()
        self.assert_only_honest_frames()
        self.assert_guarded()

    def test_the_same_with_several_queues(self):
        self.configure(multiqueue=True)
        self.blast(_MULTI_QUEUE)
        self.plug()
        self.assert_only_honest_frames()
        self.assert_guarded()

    def test_the_same_without_anti_spoofing(self):
        # Or the two above would pass for a guest that sends nothing.
        self.configure(anti_spoofing='none')
        self.blast()
        self.plug()
        self.host.wait_until_forwarding(base.TAP)
        self.assert_both_kinds()

    def test_held_tap_that_comes_back_to_its_bridge(self):
        self.plug()
        self.blast()
        self.assert_only_honest_frames()
        for lost in ({'master': 0}, {'master': 0, 'state': 'down'}):
            self.host.set(base.TAP, **lost)
            self.assert_no_frames()
            self.plug()
            self.assert_only_honest_frames()
            self.assert_guarded()
            self.assert_finished()

    def test_held_tap_whose_bridge_was_deleted(self):
        self.plug()
        with hosts.Guest(base.TAP):
            self.host.delete(base.BRIDGE)
            self.plug()
            self.assert_guarded()

    def test_switched_on_under_a_running_guest(self):
        self.configure(anti_spoofing='none')
        self.plug()
        self.blast()
        self.host.wait_until_forwarding(base.TAP)
        self.assert_both_kinds()
        self.assertFalse(self.entry(_STRANGER).fixed)
        self.configure(anti_spoofing='mac')
        self.plug()
        self.wire.waiting()
        self.assert_only_honest_frames()
        self.assert_guarded()
        # It was learned there before, and lets nothing in any more.
        self.assertIsNone(self.entry(_STRANGER))

    def test_the_running_guest_does_not_notice(self):
        self.configure(anti_spoofing='none')
        self.plug()
        guest = self.open(base.TAP, base.GUEST_MAC)
        neighbour = base.numbered_vif(1)
        self.plug(neighbour)
        neighbour = self.open(neighbour.vif_name, neighbour.address)
        stop = threading.Event()
        sent = received = plugs = 0

        def replug():
            nonlocal plugs
            hosts.enter(self.host.namespace)
            try:
                while plugs < 20 or sent < 100:
                    self.configure(anti_spoofing=('mac', 'none')[plugs % 2])
                    self.plug()
                    plugs += 1
            finally:
                stop.set()
        thread = threading.Thread(target=replug, daemon=True)
        thread.start()
        while not stop.is_set():
            guest.send(self.wire.mac, b'%08d' % sent)
            received += any(b'%08d' % sent in frame for frame
                            in self.wire.frames_until(neighbour))
            sent += 1
        thread.join()
        self.assertGreaterEqual(plugs, 20)
        self.assertGreaterEqual(sent, 100)
        self.assertEqual(sent, received)

    def test_switched_off(self):
        self.plug()
        self.assert_guarded()
        self.configure(anti_spoofing='none')
        self.plug()
        self.assertEqual(link_data.PORT_OPTIONS, self.options_of())
        self.assertIsNone(self.entry())

    def test_what_somebody_undid_is_done_again(self):
        for undo in (
                lambda index: hosts.set_port_options(index, LOCKED=0),
                lambda index: hosts.set_port_options(index, LEARNING=1),
                lambda index: self.host.ip.fdb(
                    'del', ifindex=index, lladdr=base.GUEST_MAC, flags=4),
                # Static, but not sticky; and permanent.
                lambda index: self.host.ip.fdb(
                    'replace', ifindex=index, lladdr=base.GUEST_MAC, flags=4,
                    state=0x40),
                lambda index: self.host.ip.fdb(
                    'replace', ifindex=index, lladdr=base.GUEST_MAC, flags=4,
                    state=0x80)):
            self.plug()
            with hosts.Guest(base.TAP):
                undo(self.host.link(base.TAP).index)
                self.assertNotEqual(
                    (True, False, self.fixed()),
                    (self.options_of()['locked'],
                     self.options_of()['learning'], self.entry()))
                self.plug()
                self.assert_guarded()

    def test_plugging_again_changes_nothing(self):
        for anti_spoofing in ('mac', 'none'):
            self.configure(anti_spoofing=anti_spoofing)
            self.plug()
            before = self.host.state()
            self.plug()
            self.assertEqual(before, self.host.state())

    def test_other_mac_of_the_port(self):
        self.plug()
        other = 'fa:16:3e:00:00:77'
        self.plug(base.make_vif(address=other))
        self.assert_guarded(mac=other)
        self.assertIsNone(self.entry())

    def test_nothing_is_left_after_unplug(self):
        self.plug()
        self.unplug()
        self.assertIsNone(self.entry())

    def test_tap_of_libvirt(self):
        # Made, and a port, after the plug; the next one finds it.
        self.configure(claim_plugins=['linux_bridge'])
        vif = base.make_vif(plugin='tapmac')
        self.host.add_tap(base.TAP)
        self.host.set(base.TAP, master=self.host.link(base.BRIDGE).index,
                      state='up')
        with hosts.Guest(base.TAP):
            self.plug(vif)
            self.assert_guarded()


@base.needs_locked_ports
class FdbTest(GuardTestCase):

    def test_guest_that_was_elsewhere_before(self):
        # As the target of a migration sees it: on the uplink.
        self.configure(arriving_guests='lock')
        for state in (0x02, 0x40):  # Learned; static.
            self.host.ip.fdb(
                'replace', ifindex=self.host.link('uplink').index, flags=4,
                lladdr=base.GUEST_MAC, state=state)
            self.plug()
            self.assert_guarded()
            self.unplug()

    def test_one_frame_from_the_wire_with_the_guests_mac(self):
        self.plug()
        guest = self.open(base.TAP, base.GUEST_MAC)
        neighbour = base.numbered_vif(1)
        self.plug(neighbour)
        neighbour = self.open(neighbour.vif_name, neighbour.address)
        self.wire.write(hosts.frame(hosts.BROADCAST, guest.mac, _SPOOFED))
        self.assertTrue(any(_SPOOFED in frame
                            for frame in neighbour.frames()))
        self.assertEqual(self.fixed(), self.entry())
        for sender in self.wire, neighbour:
            sender.send(guest.mac, _HONEST)
            self.assertTrue(guest.receive(_HONEST))
        guest.send(self.wire.mac, _HONEST)
        self.assertTrue(self.wire.receive(_HONEST))

    def test_two_guests_of_one_mac(self):
        self.plug()
        vif_id = '2' + base.VIF_ID[1:]
        other = base.make_vif(id=vif_id,
                              vif_name=names.nova_tap_name(vif_id))
        self.assert_plug_fails(exception.DeviceConflict, base.GUEST_MAC,
                               base.TAP, vif=other)
        self.assert_guarded()
        # Whoever runs already is not cut off from anything.
        self.host.add_tap(other.vif_name)
        with hosts.Guest(other.vif_name):
            self.plug(other)
            self.assert_logged('could not be mended', base.GUEST_MAC)
        self.assert_guarded()

    def test_fixed_on_what_is_no_tap(self):
        """As EVPN has it for a guest that was on another host until now."""
        bridge = self.host.link(base.BRIDGE)
        self.host.add('vxlan7', 'veth', peer='tunnel', master=bridge.index)
        for arriving in 'lock', 'filter':
            self.configure(arriving_guests=arriving)
            with nl.Netlink() as netlink:
                netlink.fix_fdb_entry(self.host.link('vxlan7'),
                                      base.GUEST_MAC)
            self.plug()
            self.assert_guarded()
            self.assert_logged('%s was on vxlan7 for good' % base.GUEST_MAC)
            guest = self.open(base.TAP, base.GUEST_MAC)
            self.wire.send(base.GUEST_MAC, _HONEST)
            self.assertTrue(guest.receive(_HONEST))
            guest.close()
            self.unplug()

    def test_mac_of_the_gateway(self):
        self.configure(arriving_guests='lock',
                       bridge_uplinks={base.BRIDGE: 'uplink'})
        self.wire.mac = base.GUEST_MAC
        self.wire.send(hosts.BROADCAST, b'I am the gateway')
        patience.wait_until(lambda: self.entry() is not None, 'not heard')
        for _ in range(2):
            self.plug()
        self.assertEqual(1, self.logs.output.count(
            'MAC %s was heard on uplink' % base.GUEST_MAC))
        self.assert_guarded()

    def test_mac_of_the_gateway_where_it_is_filtered(self):
        self.configure(bridge_uplinks={base.BRIDGE: 'uplink'})
        self.wire.mac = base.GUEST_MAC
        self.wire.send(hosts.BROADCAST, b'I am the gateway')
        patience.wait_until(lambda: self.entry() is not None, 'not heard')
        told = 'MAC %s is heard on uplink' % base.GUEST_MAC

        def tells(made):
            self.host.set(base.TAP, ifalias=str(mark.TapMark(
                base.VIF_ID, base.GUEST_MAC, base.BRIDGE, int(made))))
            found = [each.device for each in audit.audit_links(
                inventory.read(self.options).with_answer(None))
                if each.code == 'TM225']
            self.plug()
            was, self.said = self.said, self.logs.output.count(told)
            self.assertEqual([base.TAP] * (self.said - was), found)
            return found != []
        self.plug()
        self.said = self.logs.output.count(told)
        self.assertFalse(tells(0))  # Nobody holds it.
        guest = self.open(base.TAP, base.GUEST_MAC)
        self.assertTrue(tells(time.time() - 601))
        self.assertFalse(tells(time.time()))
        guest.send(hosts.BROADCAST, b'I am here')
        self.assertTrue(any(b'I am here' in frame
                            for frame in self.wire.frames()))
        self.assertFalse(tells(0))
        self.assert_guarded()

    def test_two_services(self):
        """One keeps its guests to their MACs, the other does not."""
        self.plug()
        guest = self.open(base.TAP, base.GUEST_MAC)
        for options in {}, {'link_group': 30000}, {'bridge_group': 30001}:
            self.configure(anti_spoofing='none', **options)
            # The second one has a MAC that concerns the other's TAP.
            for other in base.numbered_vif(1), base.numbered_vif(
                    2, address=base.TAP_MAC):
                self.plug(other)
                self.unplug(other)
            self.assertEqual(dict(link_data.PORT_OPTIONS, learning=False,
                                  locked=True), self.options_of())
            self.assertEqual(self.fixed(), self.entry())
            self.assertEqual(29793, self.host.link(base.TAP).group)
        guest.write(hosts.frame(hosts.BROADCAST, _STRANGER, _SPOOFED))
        guest.send(hosts.BROADCAST, _HONEST)
        frame = next(frame for frame in self.wire.frames()
                     if _SPOOFED in frame or _HONEST in frame)
        self.assertIn(_HONEST, frame)

    def test_whoever_holds_a_tap_gives_it_the_mac_of_a_neighbour(self):
        # The kernel lets him: without privilege, on the open TAP.
        neighbour = base.numbered_vif(1)
        self.plug(neighbour)
        victim = self.open(neighbour.vif_name, neighbour.address)
        self.plug()
        thief = self.open(base.TAP, base.GUEST_MAC)
        octets = bytes.fromhex(neighbour.address.replace(':', ''))
        fcntl.ioctl(thief.descriptor, 0x8924,  # SIOCSIFHWADDR
                    struct.pack('16xH6s16x', 1, octets))
        self.assertTrue(self.entry(neighbour.address).local)
        self.wire.send(victim.mac, b'for the victim')
        for guest in victim, thief:
            self.assertFalse(any(b'for the victim' in frame
                                 for frame in guest.frames_until(self.wire)))
        for again in neighbour, None:
            self.plug(again)
        self.assert_guarded(neighbour.vif_name, neighbour.address)
        self.assert_guarded()
        self.wire.send(victim.mac, _HONEST)
        self.assertTrue(victim.receive(_HONEST))

    def test_tap_of_the_vif_under_another_name(self):
        self.plug()
        self.host.rename(base.TAP, 'renamed0')
        self.plug()
        self.assert_guarded()
