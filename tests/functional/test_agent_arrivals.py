# SPDX-License-Identifier: Apache-2.0

"""A guest that arrives by live migration is locked as soon as it is heard.

Test strategy: a real daemon, forked, is told of ports whose guests speak on
the wire still, and hears the bridge. Nobody plugs, or tells it anything more.
"""

from tests import base
from tests.functional import test_agent_filter as agent
from tests.functional.test_agent_filter import EVERYTHING
from tests.functional.test_agent_filter import group
from tests.functional.test_agent_filter import mac
from tests.functional.test_agent_filter import port
from tests.functional.test_agent_filter import udp
from tests.functional.test_agent_filter import vif
from tests.functional import test_agent_pairs as pairs
from tests.functional import test_guard
from tests import hosts
from tests import patience
from vif_plug_tapmac.kernel import events
from vif_plug_tapmac.kernel import netlink as nl
from vif_plug_tapmac.kernel import source_filter
from vif_plug_tapmac import privsep


class ArrivalsTestCase(pairs.PairsTestCase):

    def setUp(self):
        super().setUp()
        self.start_daemon(privsep.filter)

    def arrive(self, *numbers):
        """Have TAPs and rules for guests that speak on the wire still."""
        for number in numbers:
            self.wire.write(bytes(agent.arp(number)))
        self.start(*numbers)
        applied = self.apply(*map(port, numbers),
                             groups=(group(*EVERYTHING),))
        self.assertEqual({}, applied['refused'])
        self.assert_expected(*numbers)

    def assert_expected(self, *numbers):
        for number in numbers:
            self.assert_kept(number, mac(number))

    def wait_until_kept(self, number, *macs):
        patience.wait_until(
            lambda: self.is_kept(number, not macs, macs or None),
            lambda: '%s, %s' % (self.options_of(vif(number).vif_name),
                                self.entry(mac(number))), pause=0.001)

    def unfiltered(self, number):
        """As where libvirt has taken away the filter with its own."""
        with nl.Netlink() as netlink:
            source_filter.remove(netlink,
                                 self.host.link(vif(number).vif_name))


class ArrivalsTest(ArrivalsTestCase):

    def test_it_is_locked_when_it_speaks(self):
        self.arrive(1, 2)
        self.assert_nothing_else_learned(1)
        self.assert_expected(1, 2)
        self.assertEqual({0}, self.send(1, udp(1, 0)))
        self.wait_until_kept(1)
        # The other one is not here yet.
        self.assert_expected(2)
        self.assertEqual({1}, self.send(0, udp(0, 1)))
        self.assert_nothing_else_learned(1)
        self.guests[2].write(bytes(agent.arp(2)))
        self.wait_until_kept(2)

    def test_each_frame_of_it_passes_meanwhile(self):
        self.arrive(1)
        for number in range(200):
            self.assertEqual({0}, self.send(1, udp(1, 0, 7000 + number)))
        self.wait_until_kept(1)

    def test_a_wrong_mac(self):
        self.arrive(1)
        self.unfiltered(1)
        # Of these no rule knows, and the bridge learns from them.
        self.guests[1].write(hosts.frame(pairs.LLDP, pairs.STRANGER, b'x'))
        # It is not locked by that, and its guest not cut off.
        self.wait_until_kept(1, mac(1))
        self.assertEqual({0}, self.send(1, udp(1, 0)))
        self.wait_until_kept(1)
        self.assertIsNone(self.entry(pairs.STRANGER))

    def test_it_goes_back(self):
        """It speaks elsewhere again before anybody has seen it here."""
        self.arrive(1)
        for _ in range(20):
            self.guests[1].write(bytes(agent.arp(1)))
            self.wire.write(bytes(agent.arp(1)))
        self.guests[1].write(bytes(agent.arp(1)))
        self.wait_until_kept(1)

    def test_what_it_is_to_be_kept_to_changes(self):
        self.arrive(1, 2)
        for its, check in (
                (port(1, [], is_open=True), lambda: self.assert_open(1)),
                (pairs.pairs_port(1), lambda: self.assert_kept(
                    1, mac(1), pairs.VIRTUAL))):
            self.apply(its)
            self.guests[1].write(bytes(agent.arp(1)))
            # Whoever would lock it has done so before the other one.
            self.guests[2].write(bytes(agent.arp(2)))
            self.wait_until_kept(2)
            check()
            self.wire.write(bytes(agent.arp(1)))
            self.apply(port(1))
            self.assert_expected(1)
        self.guests[1].write(bytes(agent.arp(1)))
        self.wait_until_kept(1)

    def test_its_tap_is_gone_or_not_the_agents(self):
        self.arrive(1, 2)
        self.host.set(vif(2).vif_name, group=agent.UNFILTERED)
        self.guests[2].write(bytes(agent.arp(2)))
        self.guests.pop(1).close()
        self.unplug(vif(1))
        self.arrive(3)
        self.guests[3].write(bytes(agent.arp(3)))
        self.wait_until_kept(3)
        self.assertFalse(self.host.link(vif(2).vif_name).locked)

    def test_a_daemon_that_begins_later(self):
        self.arrive(1, 2)
        privsep.filter.stop()
        self.guests[1].write(bytes(agent.arp(1)))
        self.start_daemon(privsep.filter)
        self.apply(port(1), port(2), groups=(group(*EVERYTHING),),
                   is_all=True)
        self.assert_kept(1)
        self.assert_expected(2)
        self.guests[2].write(bytes(agent.arp(2)))
        self.wait_until_kept(2)


class HeardTest(test_guard.GuardTestCase):
    """Who hears only what is heard on some ports."""

    def test_of_these_ports_only(self):
        taps = ['uplink', 'tap1', 'tap2']
        for tap in taps[1:]:
            self.host.add_tap(tap)
            self.host.quiet_ipv6(tap)
            self.host.set(tap, state='up', master=self.host.link(
                base.BRIDGE).index)
        guests = [self.wire, *(self.open(tap, None) for tap in taps[1:])]
        indexes = [self.host.link(tap).index for tap in taps]
        with events.HeardEvents() as told:
            for number, wanted in enumerate((
                    set(), set(indexes[1:2]), set(indexes[1:]),
                    {indexes[1], *range(10000, 10100)}, set(),
                    {indexes[1], *range(10000, 11999)},
                    {indexes[1], *range(10000, 12000)})):
                told.only(wanted)
                for guest, last in zip(guests, (1, 2, 3)):
                    for _ in range(3):
                        guest.write(hosts.frame(
                            hosts.BROADCAST, '02:00:00:00:%02x:%02x' % (
                                number, last), b'x'))
                heard = self.heard(told)
                if len(wanted) == 2000 and heard == set(indexes):
                    continue  # Older kernels have no room for so many.
                # So many that a program has no room for them.
                self.assertEqual(
                    set(indexes) if len(wanted) > 2000
                    else wanted & set(indexes), heard)

    def heard(self, told):
        found = set()
        while more := told.wait(0):
            found |= more
        return found
