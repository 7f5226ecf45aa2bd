# SPDX-License-Identifier: Apache-2.0

"""Ports with allowed address pairs of other MACs, and without port security.

No lock can hold such a guest to its MACs: what does, that nothing else does,
and that it is as it was when the pairs are gone.
"""

import contextlib
import itertools
import socket

from scapy.layers import l2

from tests import base
from tests.functional import test_agent_filter as agent
from tests.functional.test_agent_filter import EVERYTHING
from tests.functional.test_agent_filter import group
from tests.functional.test_agent_filter import ipv4
from tests.functional.test_agent_filter import mac
from tests.functional.test_agent_filter import members
from tests.functional.test_agent_filter import OTHER_GROUP
from tests.functional.test_agent_filter import port
from tests.functional.test_agent_filter import rule
from tests.functional.test_agent_filter import udp
from tests.functional.test_agent_filter import vif
from tests.functional.test_agent_filter import WIRE
from tests import hosts
from vif_plug_tapmac import exception
from vif_plug_tapmac.host import audit
from vif_plug_tapmac.host import inventory
from vif_plug_tapmac.host import mending
from vif_plug_tapmac.kernel import link as link_data
from vif_plug_tapmac.kernel import netlink as nl
from vif_plug_tapmac.kernel import nft
from vif_plug_tapmac.kernel import source_filter
from vif_plug_tapmac import mark

VIRTUAL, VIRTUAL_IP = '00:00:5e:00:01:07', '192.0.2.200'
STRANGER = '52:54:00:00:00:99'
LLDP = '01:80:c2:00:00:0e'
#: Source: include/uapi/linux/rtnetlink.h, RTMGRP_TC
_OF_FILTERS = 8


def announcement(whose=VIRTUAL, address=VIRTUAL_IP):
    """What says who has an address: to all, and not asked."""
    return l2.Ether(src=whose, dst=hosts.BROADCAST) / l2.ARP(
        op=1, hwsrc=whose, psrc=address, pdst=address)


def own(number, *pairs):
    return (*((mac(number), prefix) for prefix in (
        ipv4(number) + '/32', agent.ipv6(number) + '/128')), *pairs)


def pairs_port(number, *pairs, **fields):
    """A port with these, by default what VRRP needs."""
    return port(number, own=own(number, *(
        pairs or [(VIRTUAL, VIRTUAL_IP + '/32')])), **fields)


def to_virtual(payload=b'', whom=VIRTUAL):
    found = udp(0, 1) / payload
    found.dst = whom
    found['IP'].dst = VIRTUAL_IP
    return found


class PairsTestCase(agent.AgentTestCase):

    def is_kept(self, number, locked, macs=None):
        """Return whether this is what a port is kept to."""
        tap = vif(number).vif_name
        link, entry = self.host.link(tap), self.entry(mac(number))
        with nl.Netlink() as netlink:
            sources = source_filter.sources(netlink, link)
        return (link.locked, link.learning) == (locked, not locked) and (
            entry == self.fixed(tap) if locked
            else not entry or not entry.fixed) and sources == (
                None if macs is None else frozenset(macs))

    def assert_kept(self, number, *macs):
        """By the bridge; with MACs, to these by a filter."""
        self.assertTrue(self.is_kept(number, not macs, macs or None),
                        (self.options_of(vif(number).vif_name),
                         self.entry(mac(number))))

    def assert_open(self, number):
        self.assertTrue(self.is_kept(number, False))

    def with_pairs(self, *its):
        """Have guest 1 with pairs, and guest 2 without."""
        self.start()
        self.feed(*EVERYTHING)
        applied = self.apply(pairs_port(1, *its))
        self.assertEqual({}, applied['refused'])

    def say_all(self, number):
        """Have a guest say so much that the bridge learns what it can."""
        for source in STRANGER, WIRE, mac(3 - number):
            for whom in (hosts.BROADCAST, LLDP, '01:80:c2:00:00:02',
                         '01:80:c2:00:00:03', '01:80:c2:00:00:0f'):
                self.guests[number].write(hosts.frame(whom, source, b'x'))
            self.guests[number].write(bytes(announcement(source)))

    def assert_nothing_else_learned(self, number):
        self.send(0, agent.arp(0))
        self.say_all(number)
        self.assertIsNone(self.entry(STRANGER))
        self.assertEqual(self.host.link('uplink').index,
                         self.entry(WIRE).port_index)
        self.assertNotEqual(self.index(number),
                            getattr(self.entry(mac(3 - number)), 'port_index',
                                    None))


class PairsTest(PairsTestCase):

    def test_with_pairs_and_then_without(self):
        self.with_pairs()
        self.assert_kept(1, mac(1), VIRTUAL)
        self.assert_kept(2)
        self.assertEqual({0, 2, None}, self.send(1, announcement()))
        self.assertEqual({1}, self.send(0, to_virtual()))
        self.assertEqual({0}, self.send(1, udp(1, 0)))
        for whose in STRANGER, mac(2), WIRE:
            self.assertEqual(set(), self.send(1, announcement(whose)))
        self.assertEqual(set(), self.send(2, announcement()))
        self.assert_nothing_else_learned(1)
        self.apply(port(1))
        self.assert_kept(1)
        # Nor is the MAC of the pair there any more.
        self.assertIsNone(self.entry(VIRTUAL))
        self.assertEqual(set(), self.send(1, announcement()))
        self.assertEqual({0}, self.send(1, udp(1, 0)))
        self.guests[1].write(hosts.frame(LLDP, VIRTUAL, b'x'))
        self.assertIsNone(self.entry(VIRTUAL))

    def test_other_pairs(self):
        self.with_pairs()
        self.apply(pairs_port(1, (STRANGER, '192.0.2.201/32')))
        self.assert_kept(1, mac(1), STRANGER)
        self.assertEqual(set(), self.send(1, announcement()))
        self.assertEqual({0, 2, None}, self.send(1, announcement(
            STRANGER, '192.0.2.201')))
        self.apply(gone=(vif(1).id,))
        self.assert_kept(1)

    def test_pairs_of_its_own_mac(self):
        self.with_pairs((mac(1), '192.0.2.0/24'))
        self.assert_kept(1)

    def test_all_of_the_host_without_it(self):
        self.with_pairs()
        self.apply(port(2), groups=(group(*EVERYTHING),), is_all=True)
        self.assert_kept(1)

    def test_a_network_over_an_address_of_another(self):
        self.start()
        whole = '192.0.2.0/24'
        self.apply(pairs_port(1, (VIRTUAL, whole), (mac(1), whole)),
                   port(2, [OTHER_GROUP]), groups=(
                       group(*EVERYTHING), group(rule(
                           remote_set='group:' + OTHER_GROUP),
                           id=OTHER_GROUP)),
                   members=(members(whole, ipv4(1) + '/32', ipv4(2) + '/32',
                                    VIRTUAL_IP + '/32'),))
        for source in mac(1), VIRTUAL:
            for address in ipv4(1), ipv4(77), ipv4(2), VIRTUAL_IP:
                frame = udp(1, 2)
                frame.src, frame['IP'].src = source, address
                self.assertEqual({2}, self.send(1, frame), (source, address))
        frame['IP'].src = '198.51.100.1'
        self.assertEqual(set(), self.send(1, frame))
        frame = udp(2, 0)
        frame['IP'].src = ipv4(1)
        self.assertEqual(set(), self.send(2, frame))

    def test_a_hundred(self):
        # Who hears of each filter that goes has the kernel tell all of it.
        monitor = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)
        self.addCleanup(monitor.close)
        monitor.bind((0, _OF_FILTERS))
        # Some begin alike, some do not.
        macs = ['02:16:3e:%02x:%02x:%02x' % (
            min(number, 96), number // 9, number) for number in range(101)]
        many = [(each, '198.51.100.%d/32' % number)
                for number, each in enumerate(macs)]
        self.with_pairs(*many[:100])
        self.assert_kept(1, mac(1), *macs[:100])
        for number, each in enumerate(macs):
            frame = announcement(each, '198.51.100.%d' % number)
            self.assertEqual({0, 2, None} if number < 100 else set(),
                             self.send(1, frame), number)
        self.assert_nothing_else_learned(1)
        self.apply(port(1))
        self.assert_kept(1)

    def test_more_than_there_is_room_for(self):
        self.start()
        many = [('02:00:00:00:%02x:%02x' % divmod(number, 256),
                 VIRTUAL_IP + '/32')
                for number in range(source_filter.MACS_MAX)]
        applied = self.apply(pairs_port(1, *many), groups=(
            group(*EVERYTHING),))
        self.assertIn('fewer allowed address pairs',
                      applied['refused'][vif(1).id])
        self.assert_kept(1)
        self.assertEqual({0}, self.send(1, udp(1, 0)))
        self.apply(pairs_port(1, *many[:-1]))
        self.assert_kept(1, mac(1), *(each for each, _ in many[:-1]))
        self.apply(port(1))
        self.assert_kept(1)


class OpenTest(PairsTestCase):

    def test_without_port_security_and_with_it(self):
        self.start()
        self.feed(*EVERYTHING)
        self.apply(port(1, [], is_open=True))
        self.assert_open(1)
        self.assertEqual({0, 2, None}, self.send(1, announcement(STRANGER)))
        self.assertEqual({1}, self.send(0, to_virtual(whom=STRANGER)))
        self.assertEqual({0}, self.send(1, udp(1, 0)))
        for kind in 0x8100, 0x88a8, 0x9100:
            tagged = announcement(STRANGER)
            tagged.type = kind
            self.assertEqual(set(), self.send(1, tagged))
        for last in 0, 1, 2, 3, 0xe, 0xf, 0x10, 0x21:
            reserved = announcement(STRANGER)
            reserved.dst = '01:80:c2:00:00:%02x' % last
            self.assertFalse({0, 2} & self.send(1, reserved), last)
        self.feed(*EVERYTHING)
        self.assert_kept(1)
        self.assertIsNone(self.entry(STRANGER))
        self.assertEqual(set(), self.send(1, announcement(STRANGER)))
        self.assert_nothing_else_learned(1)

    def test_to_pairs_and_back(self):
        self.start()
        self.feed(*EVERYTHING)
        for _ in range(2):
            self.apply(port(1, [], is_open=True))
            self.assert_open(1)
            self.apply(pairs_port(1))
            self.assert_kept(1, mac(1), VIRTUAL)
            self.assert_nothing_else_learned(1)

    def test_a_port_that_goes(self):
        self.start()
        self.apply(port(1, [], is_open=True))
        self.apply(gone=(vif(1).id,))
        self.assert_kept(1)
        self.assert_nothing_else_learned(1)


class PlugTest(PairsTestCase):
    """A plug has the lock as it finds it, where an agent feeds a port."""

    def check(self, *fed, stays):
        self.start()
        self.feed(*EVERYTHING)
        for each in fed:
            self.apply(each)
        for mode in 'mac', 'full', 'none':
            self.configure(anti_spoofing=mode)
            self.start()
            stays()
            self.assertEqual([], self.findings())

    def findings(self):
        return [each for each in audit.audit_links(inventory.read(
            self.options)) if each.device == vif(1).vif_name]

    def test_pairs(self):
        self.check(pairs_port(1), stays=lambda: self.assert_kept(
            1, mac(1), VIRTUAL))
        self.assertEqual({0, 2, None}, self.send(1, announcement()))

    def test_open(self):
        self.check(port(1, [], is_open=True),
                   stays=lambda: self.assert_open(1))

    def test_its_own_mac(self):
        self.check(stays=lambda: self.assert_kept(1))

    def test_the_agent_is_gone(self):
        self.with_pairs()
        self.configure(firewall='none', anti_spoofing='mac')
        self.start()
        self.assertEqual(agent.UNFILTERED, self.group_of(1))
        self.assert_kept(1)
        self.assertEqual([], self.findings())

    def test_a_table_that_is_gone(self):
        self.with_pairs()
        self.flush()
        self.start(1)
        self.assert_kept(1)
        self.apply(pairs_port(1), port(2), groups=(group(*EVERYTHING),),
                   is_all=True)
        self.assert_kept(1, mac(1), VIRTUAL)

    def test_fed_before_it_is_in_the_group(self):
        self.configure(firewall='none')
        self.start()
        self.apply(pairs_port(1), groups=(group(*EVERYTHING),), is_all=True)
        # Nothing but the lock keeps it to its MAC.
        self.assert_kept(1)
        self.configure(firewall='agent')
        self.start()
        self.assertEqual(agent.AGENT, self.group_of(1))
        self.assert_kept(1, mac(1), VIRTUAL)

    def test_moved_by_the_agent(self):
        self.configure(firewall='none')
        self.start()
        self.configure(firewall='agent')
        self.apply(pairs_port(1), groups=(group(*EVERYTHING),), is_all=True)
        self.assert_kept(1, mac(1), VIRTUAL)

    def test_taken_off_its_bridge(self):
        for its, check in (
                (pairs_port(1), lambda: self.assert_kept(1, mac(1), VIRTUAL)),
                (port(1, [], is_open=True), lambda: self.assert_open(1))):
            self.with_pairs()
            self.apply(its)
            self.host.set(vif(1).vif_name, master=0)
            self.start(1)
            check()

    def test_unplug(self):
        self.with_pairs()
        self.send(1, announcement())
        index = self.index(1)
        self.unplug(vif(1))
        self.assertIsNone(self.entry(VIRTUAL))
        self.assertFalse([
            element for name in ('unlocked_ports', 'open_ports')
            for element in self.there()[name].values()
            if element.key == index.to_bytes(4, 'little')])
        self.guests.pop(1).close()
        self.start(1)
        self.assert_kept(1)

    def test_a_kernel_without_locks(self):
        told = link_data._port_data
        self.patch(link_data, '_port_data',
                   lambda data: dict(told(data), locked=None))
        self.configure(anti_spoofing='none', arriving_guests='lock')
        self.start()
        for its, macs in ((port(1), {mac(1)}),
                          (pairs_port(1), {mac(1), VIRTUAL}),
                          (port(1, [], is_open=True), None),
                          (port(1), {mac(1)})):
            applied = self.apply(its, groups=(group(*EVERYTHING),))
            self.assertEqual({}, applied['refused'])
            with nl.Netlink() as netlink:
                self.assertEqual(macs, source_filter.sources(
                    netlink, self.host.link(vif(1).vif_name)))
            self.assertEqual([], self.findings())
        self.assert_nothing_else_learned(1)

    def test_who_is_elsewhere_still(self):
        frame = udp(1, 0)
        self.wire.write(bytes(agent.arp(1)))
        self.start()
        self.apply(port(1), groups=(group(*EVERYTHING),))
        self.assert_kept(1, mac(1))
        self.assertEqual([], self.findings())
        self.apply(pairs_port(1))
        self.assert_kept(1, mac(1), VIRTUAL)
        self.apply(port(1))
        self.assert_kept(1, mac(1))
        self.assertEqual({0}, self.send(1, frame))
        self.apply(port(1))
        self.assert_kept(1)


class AuditTest(PairsTestCase):

    def found(self):
        return [each for each in audit.audit_links(inventory.read(
            self.options)) if each.device == vif(1).vif_name]

    def changed(self, *changes):
        """Yield for each change, and have it mended after that."""
        for change in changes:
            change()
            found = self.found()
            self.assertEqual({'TM214'}, {each.code for each in found},
                             change)
            yield found[0].evidence
            mending.mend(inventory.read(self.options), self.options, found,
                         None, open('/dev/null', 'w'))
            self.assertEqual([], self.found())

    def set_port(self, **options):
        hosts.set_port_options(self.index(1), **options)

    def filter(self, *macs):
        with nl.Netlink() as netlink:
            link = self.host.link(vif(1).vif_name)
            if macs:
                source_filter.put(netlink, link, *macs)
            else:
                source_filter.remove(netlink, link)

    def fix(self):
        with nl.Netlink() as netlink:
            netlink.fix_fdb_entry(self.host.link(vif(1).vif_name), mac(1))

    def test_tm214_with_pairs(self):
        self.with_pairs()
        self.assertEqual([], self.found())
        for _ in self.changed(
                lambda: self.set_port(LOCKED=1),
                lambda: self.set_port(LEARNING=0), self.fix, self.filter,
                lambda: self.filter(mac(1)),
                lambda: self.filter(mac(1), VIRTUAL, STRANGER)):
            pass
        self.assert_kept(1, mac(1), VIRTUAL)

    def test_tm214_open(self):
        self.start()
        self.apply(port(1, [], is_open=True))
        self.assertEqual([], self.found())
        for _ in self.changed(
                lambda: self.set_port(LOCKED=1, LEARNING=0), self.fix,
                lambda: self.filter(mac(1))):
            pass
        self.assert_open(1)

    def test_tm214_with_its_own_mac(self):
        self.configure(anti_spoofing='none')
        self.start()
        self.feed(*EVERYTHING)
        self.assertEqual([], self.found())

        def forget():
            with nl.Netlink() as netlink:
                netlink.remove_fdb_entry(self.host.link(vif(1).vif_name),
                                         mac(1))
        for _ in self.changed(
                lambda: self.set_port(LOCKED=0),
                lambda: self.set_port(LEARNING=1), forget,
                lambda: (self.set_port(LOCKED=0, LEARNING=1),
                         self.filter(mac(1), VIRTUAL))):
            pass
        self.assert_kept(1)


class RefusedTest(PairsTestCase):
    """The kernel does not do what is needed."""

    def refuse(self, module, function):
        def refuse(*arguments):
            raise exception.KernelRefused.from_errno('tap', 'trying', 1)
        self.patch(module, function, refuse)

    def test_rules_that_are_refused(self):
        self.with_pairs()
        former = nft.Session.transact
        for its in port(1), pairs_port(1, (STRANGER, '192.0.2.201/32')):
            self.refuse(nft.Session, 'transact')
            self.assertRaises(exception.KernelRefused, self.apply, its)
            self.patch(nft.Session, 'transact', former)
            # As it was: it goes on.
            self.assert_kept(1, mac(1), VIRTUAL)
            self.assertEqual({0, 2, None}, self.send(1, announcement()))

    def test_no_filter_no_unlocked_port(self):
        self.start()
        self.feed(*EVERYTHING)
        self.refuse(source_filter, 'put')
        applied = self.apply(pairs_port(1), port(2))
        self.assertEqual([vif(1).id], list(applied['refused']))
        self.assertEqual([vif(2).id], list(applied['ports']))
        self.assert_kept(1)

    def test_whose_taps(self):
        self.with_pairs()
        # One that lost its mark is not ours to unlock, or to lock.
        self.host.set(vif(1).vif_name, ifalias='')
        self.apply(gone=(vif(1).id,))
        self.assert_kept(1, mac(1), VIRTUAL)
        self.host.set(vif(1).vif_name, ifalias=str(mark.TapMark(
            vif(2).id, mac(1), base.BRIDGE, 0)))
        self.set_locked()
        applied = self.apply(pairs_port(1))
        self.assertIn(vif(1).id, applied['refused'])
        self.assertTrue(self.host.link(vif(1).vif_name).locked)

    def set_locked(self):
        hosts.set_port_options(self.index(1), LOCKED=1)


class TwoHostsTest(PairsTestCase):
    """VRRP between guests on two hosts; the wire is at the first."""

    def setUp(self):
        super().setUp()
        self.other = self.useFixture(hosts.Host())
        bridge = self.other.add(base.BRIDGE, 'bridge', br_mcast_snooping=0,
                                address='02:00:00:00:00:06')
        self.other.quiet_ipv6(base.BRIDGE)
        self.other.set(base.BRIDGE, state='up')
        self.other.add('cable', 'veth', master=bridge.index, peer={
            'ifname': 'cable', 'net_ns_fd': self.host.namespace})
        self.other.quiet_ipv6('cable')
        self.other.set('cable', state='up')
        with self.host.here():
            self.host.quiet_ipv6('cable')
            self.host.set('cable', state='up', master=self.host.link(
                base.BRIDGE).index)
            self.host.wait_until_forwarding('cable')
        self.other.wait_until_forwarding('cable')
        self.places = {1: self.host, 2: self.other}
        self.lasts = itertools.count()
        for number, place in self.places.items():
            with self.on(place):
                self.start(number)
                applied = self.apply(pairs_port(number), groups=(
                    group(*EVERYTHING),))
                self.assertEqual({}, applied['refused'])

    @contextlib.contextmanager
    def on(self, place):
        former, self.host = self.host, place
        try:
            with place.here():
                yield
        finally:
            self.host = former

    def said(self, sender, frame):
        """Have a frame sent; return who got it, 0: the wire."""
        everybody = {0: self.wire, **self.guests}
        octets, last = bytes(frame), b'last %d.' % next(self.lasts)
        everybody[sender].write(octets)
        everybody[sender].write(bytes(agent.arp(sender)) + last)
        return {number for number, each in everybody.items()
                if number != sender and any(
                    got.startswith(octets) for got in itertools.takewhile(
                        lambda got: last not in got, each.frames()))}

    def test_fail_over(self):
        for number in 1, 2, 1, 2:
            self.assertEqual({0, 3 - number},
                             self.said(number, announcement()))
            # The very next frame, and from the other guest, too.
            self.assertEqual({number}, self.said(0, to_virtual(b'1')))
            self.assertEqual({0}, self.said(number, udp(number, 0)))
            self.assertEqual({number}, self.said(0, to_virtual(b'2')))
            frame = to_virtual(b'3')
            frame.src, frame['IP'].src = mac(3 - number), ipv4(3 - number)
            self.assertEqual({number}, self.said(3 - number, frame))

    def test_nothing_else(self):
        for number, place in self.places.items():
            for whose in STRANGER, mac(3 - number), WIRE:
                self.assertEqual(set(), self.said(
                    number, announcement(whose)))
            self.said(0, agent.arp(0))
            self.said(3 - number, agent.arp(3 - number))
            self.say_all(number)
            self.said(number, agent.arp(number))
            with self.on(place):
                cable = self.host.link('cable').index
                self.assertIsNone(self.entry(STRANGER))
                self.assertEqual(
                    cable if number == 2 else self.host.link('uplink').index,
                    self.entry(WIRE).port_index)
                self.assertEqual(cable,
                                 self.entry(mac(3 - number)).port_index)
        for number, place in self.places.items():
            with self.on(place):
                self.assert_kept(number, mac(number), VIRTUAL)
