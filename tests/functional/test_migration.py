# SPDX-License-Identifier: Apache-2.0

"""The TAP of a guest that is still elsewhere: the target of a live migration.

QEMU holds it open long before the guest runs there. Until then frames for the
guest must go where it is, so the TAP may not draw any; and the guest's first
frame, by which it says that it is here now, must pass. Afterwards no frame
from elsewhere should draw the guest's traffic away.

Nothing that the kernel has for a port does all of that, as is seen here.
"""

import contextlib
import errno
import socket
import struct

import os_vif
from scapy import packet as scapy_packet

from tests import base
from tests.functional import test_full_frames as frames
from tests.functional import test_guard
from tests import hosts
from vif_plug_tapmac import exception
from vif_plug_tapmac.host import audit
from vif_plug_tapmac.host import inventory
from vif_plug_tapmac.kernel import attributes
from vif_plug_tapmac.kernel import link as link_data
from vif_plug_tapmac.kernel import netlink as nl
from vif_plug_tapmac.kernel import rtnetlink
from vif_plug_tapmac.kernel import source_filter
from vif_plug_tapmac import startup

_STRANGER = '52:54:00:00:00:99'


class MigrationTestCase(test_guard.GuardTestCase):

    def setUp(self):
        super().setUp()
        neighbour = base.numbered_vif(1)
        self.plug(neighbour)
        self.neighbour = self.open(neighbour.vif_name, neighbour.address)
        self.speak_elsewhere()

    def speak_elsewhere(self, payload=b'still elsewhere'):
        """Have a frame of the guest, or in its name, come from the wire."""
        self.wire.write(hosts.frame(hosts.BROADCAST, base.GUEST_MAC, payload))
        self.assertTrue(any(payload in frame
                            for frame in self.neighbour.frames()))

    def passes(self, mac):
        """Return whether a frame that the guest sends comes out."""
        self.guest.write(hosts.frame(hosts.BROADCAST, mac, b'here I am'))
        self.neighbour.waiting()
        return any(b'here I am' in frame
                   for frame in self.wire.frames_until(self.neighbour))

    def reaches(self, payload):
        """Return where the neighbour's frame for the guest comes out."""
        self.neighbour.send(base.GUEST_MAC, payload)
        return [name for name, end in (('guest', self.guest),
                                       ('wire', self.wire))
                if any(payload in frame
                       for frame in end.frames_until(self.neighbour))]

    def see(self):
        """Return what the TAP does, from the first moment on."""
        before = self.reaches(b'to you elsewhere')
        spoofed, own = self.passes(_STRANGER), self.passes(base.GUEST_MAC)
        after = self.reaches(b'to you here')
        self.speak_elsewhere(b'false')
        stolen = self.reaches(b'is it you')
        self.passes(base.GUEST_MAC)
        return {'draws too early': before != ['wire'], 'spoofs': spoofed,
                'can say that it is here': own,
                'is reached then': after == ['guest'],
                'loses its traffic to a false frame': stolen != ['guest'],
                'has it back when it speaks':
                    self.reaches(b'it is you') == ['guest']}


@base.needs_locked_ports
class KernelTest(MigrationTestCase):
    """What each means of the kernel does."""

    def setUp(self):
        super().setUp()
        self.configure(anti_spoofing='none')
        self.plug()
        self.tap = self.host.link(base.TAP)

    def options(self, **options):
        hosts.set_port_options(self.tap.index, **options)

    def fix(self):
        with nl.Netlink() as netlink:
            netlink.fix_fdb_entry(self.tap, base.GUEST_MAC)

    def assert_seen(self, *expected):
        self.guest = self.open(base.TAP, base.GUEST_MAC)
        self.assertEqual(list(expected), [
            name for name, value in self.see().items() if value])
        self.guest.close()

    def test_nothing(self):
        self.assert_seen('spoofs', 'can say that it is here',
                         'is reached then',
                         'loses its traffic to a false frame',
                         'has it back when it speaks')

    def test_lock_and_entry(self):
        self.options(LOCKED=1, LEARNING=0)
        self.fix()
        self.assert_seen('draws too early', 'can say that it is here',
                         'is reached then', 'has it back when it speaks')

    def test_lock_alone(self):
        for learning in 0, 1:
            self.options(LOCKED=1, LEARNING=learning)
            self.assert_seen('loses its traffic to a false frame')

    def test_lock_that_notes_who_was_kept_out(self):
        # MAC authentication bypass: for a daemon to look at.
        self.options(LOCKED=1, LEARNING=1, MAB=1)
        self.assert_seen('loses its traffic to a false frame')

    def test_lock_and_entry_with_another_port_instead(self):
        # That is for a port without carrier, and QEMU gives it one too early.
        self.options(LOCKED=1, LEARNING=0,
                     BACKUP_PORT=self.host.link('uplink').index)
        self.fix()
        self.assertEqual(['wire'], self.reaches_idle(b'to you elsewhere'))
        self.assert_seen('draws too early', 'can say that it is here',
                         'is reached then', 'has it back when it speaks')

    def reaches_idle(self, payload):
        self.neighbour.send(base.GUEST_MAC, payload)
        return ['wire'] if any(payload in frame for frame
                               in self.wire.frames_until(self.neighbour)
                               ) else []

    def test_filter(self):
        with nl.Netlink() as netlink:
            source_filter.put(netlink, self.tap, base.GUEST_MAC)
        self.assert_seen('can say that it is here', 'is reached then',
                         'loses its traffic to a false frame',
                         'has it back when it speaks')


@base.needs_locked_ports
class DepartedGuestTest(MigrationTestCase):
    """The source of a live migration, after QEMU has ended there."""

    def setUp(self):
        super().setUp()
        # It was here, and locked, for long; its frames come from elsewhere.
        self.configure(arriving_guests='lock')

    def plug_with_uplink(self, **options):
        self.configure(bridge_uplinks={base.BRIDGE: 'uplink'}, **options)
        self.plug()
        self.uplink = self.host.link('uplink')

    def reaches_wire(self, payload):
        self.neighbour.send(base.GUEST_MAC, payload)
        return any(payload in frame
                   for frame in self.wire.frames_until(self.neighbour))

    def test_it_is_reached_by_the_wire(self):
        self.plug_with_uplink()
        self.assertTrue(self.reaches_wire(b'before it comes'))
        self.guest = self.open(base.TAP, base.GUEST_MAC)
        self.assertEqual(['guest'], self.reaches(b'while it is here'))
        self.guest.close()
        self.assertTrue(self.reaches_wire(b'after it went'))
        # What comes from the wire does not go back there.
        self.wire.send(base.GUEST_MAC, b'from the wire')
        self.assertEqual([], [
            frame for frame in self.wire.frames_until(self.neighbour)
            if b'from the wire' in frame])
        self.assert_guarded()

    def test_it_is_not_where_the_uplink_is_unknown(self):
        self.plug()
        self.assertFalse(self.reaches_wire(b'before it comes'))

    def test_plugging_again(self):
        self.plug_with_uplink()
        before = self.host.state()
        self.plug()
        self.assertEqual(before, self.host.state())
        self.assertEqual(self.uplink.index,
                         self.host.link(base.TAP).backup_port)
        self.configure(anti_spoofing='none')
        self.plug()
        self.assertIsNone(self.host.link(base.TAP).backup_port)

    def test_uplink_that_comes_back(self):
        self.plug_with_uplink()
        self.host.set('uplink', master=0)
        self.plug()
        self.assertIsNone(self.host.link(base.TAP).backup_port)
        self.host.set('uplink', master=self.host.link(base.BRIDGE).index)
        self.plug()
        self.assertEqual(self.uplink.index,
                         self.host.link(base.TAP).backup_port)


@base.needs_locked_ports
class ArrivingGuestTest(MigrationTestCase):

    def arrive(self, arriving_guests='filter'):
        self.configure(arriving_guests=arriving_guests)
        self.plug()
        self.guest = self.open(base.TAP, base.GUEST_MAC)

    def is_filtered(self):
        link = self.host.link(base.TAP)
        with nl.Netlink() as netlink:
            return source_filter.is_there(netlink, link, base.GUEST_MAC)

    def assert_filtered(self):
        self.assertEqual(link_data.PORT_OPTIONS, self.options_of())
        self.assertTrue(self.is_filtered())
        self.assert_finished()

    def test_lock(self):
        self.arrive('lock')
        self.assert_guarded()
        self.assertEqual(['guest'], self.reaches(b'too early'))
        self.assertTrue(self.passes(base.GUEST_MAC))

    def test_filter_until_it_is_heard_here(self):
        self.arrive()
        self.assert_filtered()
        self.assertEqual(['wire'], self.reaches(b'elsewhere'))
        # Plugged again meanwhile: nothing changes.
        before = self.host.state()
        self.plug()
        self.assertEqual(before, self.host.state())
        self.assert_filtered()
        self.assertFalse(self.passes(_STRANGER))
        self.assertTrue(self.passes(base.GUEST_MAC))
        self.assertEqual(['guest'], self.reaches(b'here'))
        self.plug()
        self.assert_guarded()
        self.assertFalse(self.is_filtered())
        self.speak_elsewhere(b'false')
        self.assertEqual(['guest'], self.reaches(b'here for good'))
        self.assertFalse(self.passes(_STRANGER))

    def test_guest_that_is_not_heard_elsewhere(self):
        self.configure(arriving_guests='filter')
        for vif in (base.numbered_vif(7), base.numbered_vif(1)):
            self.plug(vif)
            self.assert_guarded(vif.vif_name, vif.address)

    def test_what_is_locked_stays_so(self):
        self.arrive('lock')
        self.configure(arriving_guests='filter')
        self.plug()
        self.assert_guarded()

    def test_filter_that_somebody_removed(self):
        self.arrive()
        for remove in (
                lambda netlink, link: source_filter.remove(netlink, link),
                lambda netlink, link: source_filter.put(netlink, link,
                                                        _STRANGER),
                lambda netlink, link: self.host.ip.tc(
                    'del', kind='clsact', index=link.index)):
            with nl.Netlink() as netlink:
                remove(netlink, self.host.link(base.TAP))
            self.assertFalse(self.is_filtered())
            self.plug()
            self.assert_filtered()

    def add_ingress(self):
        """Have a place for filters as libvirt makes it, without ours."""
        index = self.host.link(base.TAP).index
        self.host.ip.tc('del', kind='clsact', index=index)
        self.host.ip.tc('add', kind='ingress', index=index,
                        handle=0xffff0000)
        return index

    def add_bpf(self, priority, handle=1, verdict=0xffffffff):
        """Have another's filter that takes, or passes on, each frame."""
        program = struct.pack('HBBI', 0x06, 0, 0, verdict)
        kind = attributes.text(1, 'bpf')
        options = attributes.attribute(2, b''.join((
            attributes.attribute(4, struct.pack('H', 1)),
            attributes.attribute(5, program), attributes.number(8, 1))))
        netlink = rtnetlink.Socket()
        netlink.set(rtnetlink.NEW_FILTER, rtnetlink.traffic_control(
            self.host.link(base.TAP).index, handle, 0xfffffff2,
            priority << 16 | socket.htons(3), kind, options),
            rtnetlink.CREATE | rtnetlink.EXCLUSIVE)
        netlink.close()

    def add_u32(self, priority):
        """As libvirt limits what a guest sends, but for the limit."""
        self.host.ip.tc(
            'add-filter', kind='u32', index=self.add_ingress(),
            handle=0, parent=0xffff0000, prio=priority, protocol=3,
            target=0x10000, keys=['0x0/0x0+0'])

    def filters(self):
        """Return the places of all filters that frames come to."""
        return [(message['info'] >> 16, message['handle'])
                for message in self.host.ip.get_filters(
                    index=self.host.link(base.TAP).index, parent=0xfffffff2)
                if message['handle']]

    def codes(self):
        return [found.code for found in audit.audit_links(
            inventory.read(self.options)) if found.device == base.TAP]

    def assert_filtered_beside(self, add):
        """Expect the guest to be kept to its MAC, and theirs as it was."""
        self.arrive()
        with nl.Netlink() as netlink:
            source_filter.remove(netlink, self.host.link(base.TAP))
        add()
        theirs = self.filters()
        self.assertNotEqual([], theirs)
        self.assertIn('TM214', self.codes())
        self.plug()
        self.assertNotIn('TM214', self.codes())
        self.assert_filtered()
        self.assertLess(set(theirs), set(self.filters()))
        self.assertFalse(self.passes(_STRANGER))
        before = self.host.state(), self.filters()
        self.plug()
        self.assertEqual(before, (self.host.state(), self.filters()))
        self.assertNotIn('could not be mended', self.logs.output)
        self.assertTrue(self.passes(base.GUEST_MAC))
        self.plug()
        self.assert_guarded()
        self.assertEqual(theirs, self.filters())

    def test_beside_a_limit_of_bandwidth(self):
        self.assert_filtered_beside(lambda: self.add_u32(49152))

    def test_beside_one_that_comes_first(self):
        self.assert_filtered_beside(lambda: self.add_u32(10))

    def test_beside_one_at_our_place(self):
        self.assert_filtered_beside(lambda: self.add_bpf(29793))

    def test_beside_one_with_our_priority(self):
        self.assert_filtered_beside(lambda: self.add_u32(29793))

    def test_beside_many(self):
        def add():
            for place in (1, 1), (1, 2), (2, 1), (4, 1), (60000, 7):
                self.add_bpf(*place)
        self.assert_filtered_beside(add)

    def test_before_one_whose_word_is_final(self):
        self.assert_filtered_beside(lambda: self.add_bpf(5, verdict=0))

    def test_one_that_came_first_later(self):
        self.arrive()
        self.add_bpf(5, verdict=0)
        self.assertTrue(self.passes(_STRANGER))
        self.assertIn('TM214', self.codes())
        self.speak_elsewhere()
        self.plug()
        self.assert_filtered()
        self.assertFalse(self.passes(_STRANGER))
        self.assertEqual(2, len(self.filters()))

    def test_anti_spoofing_is_switched_off(self):
        self.arrive()
        self.configure(anti_spoofing='none')
        self.plug()
        self.assertFalse(self.is_filtered())
        self.assertTrue(self.passes(_STRANGER))

    def test_other_mac_of_the_port(self):
        self.arrive()
        self.guest.close()
        other = 'fa:16:3e:00:00:77'
        self.plug(base.make_vif(address=other))
        self.assert_guarded(mac=other)
        with contextlib.suppress(BlockingIOError):
            self.guest = self.open(base.TAP, other)
        self.assertTrue(self.passes(other))

    def test_filter_is_the_default(self):
        self.plug()
        self.guest = self.open(base.TAP, base.GUEST_MAC)
        self.assert_filtered()
        self.assertEqual(['wire'], self.reaches(b'elsewhere'))

    def test_by_the_daemon(self):
        # Which has CAP_NET_ADMIN and nothing else.
        self.start_daemon()
        self.plug()
        self.assert_filtered()

    def test_kernel_that_cannot_filter(self):
        # It locks, whatever of the two it lacks.
        for function, code in (('put', errno.ENOENT),
                               ('put', errno.EOPNOTSUPP),
                               ('is_there', errno.EOPNOTSUPP)):
            def refuse(netlink, link, mac):
                raise exception.KernelRefused.from_errno(
                    link.name, 'filtering', code)
            self.patch(source_filter, function, refuse)
            self.speak_elsewhere()
            self.plug()
            self.assert_guarded()
            self.assert_logged('load sch_ingress and cls_bpf',
                               errno.errorcode[code].replace('ENOTSUP',
                                                             'EOPNOTSUPP'))
            self.unplug()

    def test_filters_that_are_another_devices_too(self):
        # What is put there is for all of them; the lock is for one.
        self.arrive()
        self.host.ip.tc('del', kind='clsact',
                        index=self.host.link(base.TAP).index)
        netlink = rtnetlink.Socket()
        netlink.set(rtnetlink.NEW_QUEUEING, rtnetlink.traffic_control(
            self.host.link(base.TAP).index, 0xffff0000, 0xfffffff1, 0,
            attributes.text(1, 'clsact'), attributes.number(13, 7)),
            rtnetlink.CREATE | rtnetlink.EXCLUSIVE)
        netlink.close()
        self.plug()
        self.assert_guarded()

    def test_lldp_in_the_name_of_another(self):
        # No hook of netfilter sees it, and the bridge learns from it.
        self.arrive()
        self.wire.send(hosts.BROADCAST, b'hello')
        for victim, other in ((self.neighbour, self.wire),
                              (self.wire, self.neighbour)):
            self.guest.write(hosts.frame('01:80:c2:00:00:0e', victim.mac,
                                         b'LLDP'))
            other.send(victim.mac, b'secret')
            self.assertTrue(any(b'secret' in frame for frame
                                in victim.frames_until(other)))
            self.assertFalse(any(b'secret' in frame for frame
                                 in self.guest.frames_until(other)))


class DepartedInFullTest(DepartedGuestTest):
    """The same with a guest that is kept to its addresses."""

    def setUp(self):
        super().setUp()
        self.configure(anti_spoofing='full')


@base.needs_locked_ports
class ArrivingInFullTest(MigrationTestCase):
    """The guest is kept to its addresses, wherever it is."""

    def setUp(self):
        super().setUp()
        self.configure(anti_spoofing='full', arriving_guests='filter')
        self.vif = base.make_vif(addresses=[frames.IPV4, frames.IPV6])

    def comes_out(self, frame):
        """Return whether what the guest sends does."""
        self.guest.write(bytes(frame / scapy_packet.Raw(b'from the guest')))
        return any(b'from the guest' in seen
                   for seen in self.wire.frames_until(self.neighbour))

    def draws(self, payload):
        """Return whether what is for the guest does not get elsewhere."""
        self.neighbour.send(base.GUEST_MAC, payload)
        return not any(payload in frame for frame
                       in self.wire.frames_until(self.neighbour))

    def assert_arrives(self, announcement, lies):
        self.speak_elsewhere()
        self.plug(self.vif)
        self.assertFalse(self.draws(b'while it is idle'))
        self.plug(self.vif)
        self.guest = self.open(base.TAP, base.GUEST_MAC)
        self.assertEqual(['wire'], self.reaches(b'while it is held'))
        self.plug(self.vif)
        for lie in lies:
            self.assertFalse(self.comes_out(lie))
        self.assertEqual(['wire'], self.reaches(b'while it is silent'))
        self.assertTrue(self.comes_out(announcement))
        self.assertEqual(['guest'], self.reaches(b'here'))
        self.plug(self.vif)
        self.assert_guarded()
        self.assertFalse(any(map(self.comes_out, lies)))
        self.assertEqual(['guest'], self.reaches(b'here for good'))
        self.guest.close()
        self.unplug(self.vif)

    def test_whatever_its_first_words_are(self):
        """By RARP QEMU says where it is, by the others some guests do."""
        claims = [frames.arp(psrc=frames.GATEWAY, pdst=frames.GATEWAY),
                  frames.advertisement(frames.NEIGHBOURS_IPV6)
                  / frames.target()]
        for announcement in (
                frames.rarp(), frames.arp(pdst=frames.IPV4),
                frames.arp(op=2, pdst=frames.IPV4),
                frames.advertisement() / frames.target()):
            other = announcement.copy()
            other.src = _STRANGER
            self.assert_arrives(announcement, [other, *claims])

    def test_what_the_lock_would_draw(self):
        # Or the test above would pass for a TAP that draws all.
        self.configure(arriving_guests='lock')
        self.plug(self.vif)
        self.assertTrue(self.draws(b'too early'))


@base.needs_locked_ports
class TryingTest(base.FunctionalTestCase):
    """Whether the kernel can filter is tried, and nothing changes by it."""

    def setUp(self):
        super().setUp()
        startup.cannot.cache_clear()
        self.addCleanup(startup.cannot.cache_clear)

    def test_it_can(self):
        before = self.host.state()
        os_vif.initialize(reset=True)
        self.assert_logged('arriving_guests = filter\n')
        self.assertEqual('', startup.cannot('filter'))
        self.assertEqual(before, self.host.state())

    def try_with(self, *lines):
        """Return what is said of a kernel on which this is so."""
        script = '\n'.join((
            'import sys',
            'from vif_plug_tapmac import exception',
            'from vif_plug_tapmac.kernel import source_filter',
            'from vif_plug_tapmac.kernel import trying',
            'def refuse(*args):',
            '    raise exception.KernelRefused.from_errno("lo", "x", code)',
            *lines, 'sys.exit(trying.main(sys.argv[1]))'))
        self.patch(startup, '_TRYING', ('-c', script))
        return startup.arriving_fault(self.options)

    def test_it_can_not(self):
        self.assertIn('(ENOENT (No such file or directory))', self.try_with(
            'code = 2', 'source_filter.put = refuse'))
        os_vif.initialize(reset=True)
        self.assert_logged('arriving_guests = lock: this kernel')

    def test_nobody_may_try(self):
        self.assertIsNone(self.try_with(
            'code = 1', 'source_filter.put = refuse'))
        self.assertIsNone(self.try_with('raise ValueError'))

    def test_only_where_it_matters(self):
        self.patch(startup, 'cannot', lambda what: 'it can not')
        self.configure(arriving_guests='lock')
        self.assertEqual('', startup.arriving_fault(self.options))
        self.configure(arriving_guests='filter', anti_spoofing='none')
        self.assertEqual('', startup.arriving_fault(self.options))
