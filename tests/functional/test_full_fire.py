# SPDX-License-Identifier: Apache-2.0

"""``anti_spoofing = full`` where nobody waits for anybody.

A guest that lies takes its TAP as soon as there is one, and sends what is
false, and at last what is honest, again and again, while its VIF is plugged,
plugged again and unplugged; and while somebody flushes the rules at any
moment. And processes that plug at once, where there is nothing yet.
"""

import contextlib
import os
import random
import threading
import typing

from oslo_privsep import capabilities
from scapy import packet as scapy_packet

from tests import base
from tests.functional import test_contention
from tests.functional import test_full
from tests.functional import test_full_frames as frames
from tests import hosts
from tests import patience
from vif_plug_tapmac.kernel import filter_state
from vif_plug_tapmac.kernel import nft
from vif_plug_tapmac.wanted import rules

_NUMBER = b'%08d'


def start(frame, words):
    """Return a frame that these words end, but for the number after them.

    It is part of the packet: the kernel cuts off what is behind that.
    """
    return bytes(frame / scapy_packet.Raw(words + _NUMBER % 0))[:-8]


_HONEST = start(frames.arp(), b'honest ')
_FALSE = [start(frame, b'false ') for frame in (
    frames.arp(psrc=frames.GATEWAY), frames.arp(op=2, hwsrc=frames.STRANGER),
    frames.ipv4(src=frames.GATEWAY, dst='192.0.2.255') / frames.udp(),
    frames.ipv4() / frames.udp(67, 68),
    frames.ipv6(src=frames.NEIGHBOURS_IPV6) / frames.udp(),
    frames.ipv6(src=frames.LINK_LOCAL, to=frames.NODES) / frames.icmp6(134))]
#: What the lock is for, table or no table.
_OF_ANOTHER = start(frames.ether(hosts.BROADCAST, frames.STRANGER)
                    / frames.arp().payload, b'stranger ')
#: After so many rounds a guest lets go of its TAP, and takes it again.
_ROUNDS = 300
#: Between two flushes, at the most: rounds of a guest that sends, and seconds
#: where none does.
_ROUNDS_MAX, _PAUSE = 30, 0.03


class Rules(typing.NamedTuple):
    """What is known of the rules, at one time.

    :param number: of what has changed before
    :param hold: whether nobody has flushed them since they were right
    """
    number: int
    hold: bool


class FireTestCase(test_full.FullTestCase):

    def setUp(self):
        super().setUp()
        self.plugged = threading.Lock()
        self.rules = Rules(0, False)
        self.over, self.has_tap = threading.Event(), False
        # Of the guest: how many rounds it has sent, in how many its honest
        # frame came out, and of these, how many while rules held. Which lies
        # came out then, how many ever, and how many of another MAC.
        self.sent = self.honest = self.judged = 0
        self.lies, self.believed, self.strangers = [], 0, 0

    @contextlib.contextmanager
    def burning(self, *others):
        """Have the guest send meanwhile, and others do what they do."""
        threads = [threading.Thread(target=each, daemon=True)
                   for each in (self.blast, *others)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self.over.set()
            for thread in threads:
                thread.join()

    def blast(self):
        # Who has no capability opens what is there, and makes none.
        capabilities.drop_all_caps_except([], [], [])
        while not self.over.is_set():
            with contextlib.suppress(OSError), hosts.Guest(
                    base.TAP, base.GUEST_MAC) as guest:
                self.has_tap = True
                for _ in range(_ROUNDS):
                    self.send_round(guest)
            self.has_tap = False
            os.sched_yield()

    def send_round(self, guest):
        """Send all; look at what has come out if the last one has.

        Nothing overtakes on this way, so what is not there by then never is.
        """
        before = self.rules
        self.sent += 1  # First: a round that breaks off has its number, too.
        number = _NUMBER % self.sent
        for frame in *_FALSE, _OF_ANOTHER, _HONEST:
            guest.write(frame + number)
        came = self.wire.waiting()
        self.strangers += sum(b'stranger ' in frame for frame in came)
        lies = [frame for frame in came
                if frame.endswith(b'false ' + number)]
        self.believed += len(lies)
        if not any(frame.endswith(b'honest ' + number) for frame in came):
            return
        self.honest += 1
        if before.hold and self.rules == before:
            self.judged += 1
            self.lies += lies

    def plug_in(self, is_there):
        """Plug the VIF: from then on all is held until the next flush.

        :param is_there: whether it is plugged already; else that is so from
            the start
        """
        with self.plugged:
            begin = self.rules.number
            if not is_there:
                begin += 1
                self.rules = Rules(begin, True)
        self.plug(self.vif)
        with self.plugged:
            if self.rules.number == begin and not self.rules.hold:
                self.rules = Rules(begin + 1, True)

    def flush_at_random(self):
        source = random.Random(24)
        while not self.over.is_set():
            # On a busy machine, a round takes as long as many elsewhere.
            enough = self.sent + source.randrange(1, _ROUNDS_MAX)
            while (not self.over.wait(source.random() * _PAUSE)
                   and self.has_tap and self.sent < enough):
                pass
            with self.plugged:
                self.rules = Rules(self.rules.number + 1, False)
                with contextlib.suppress(Exception):  # There is none.
                    self.flush()

    def wait_for_more(self, what):
        enough = getattr(self, what) + 3
        patience.wait_until(
            lambda: getattr(self, what) > enough, 'the guest is mute',
            pause=0.001)

    def burn(self, count, *others):
        with self.burning(*others):
            for _ in range(count):
                self.plug_in(is_there=False)
                self.wait_for_more('honest')
                before = self.judged
                while self.judged == before:
                    self.plug_in(is_there=True)
                    self.wait_for_more('honest')
                self.unplug(self.vif)
                self.assertEqual(([], 0), (self.lies, self.strangers))


@base.too_slow_emulated('a guest that sends all it can, and others who flush')
class UnderFireTest(FireTestCase):

    def test_nothing_gets_out(self):
        self.burn(patience.amount(10, 50, 500))
        self.assertEqual(0, self.believed)

    def test_the_rules_are_flushed_at_random(self):
        self.burn(patience.amount(10, 50, 500), self.flush_at_random)
        # Or nobody would have flushed anything.
        self.assertGreater(self.believed, 0)

    def test_without_full(self):
        # Or the guest would never lie.
        self.configure(anti_spoofing='mac')
        with self.burning():
            self.plug(self.vif)
            self.wait_for_more('believed')
        self.assertEqual(0, self.strangers)


@base.too_slow_emulated('eight processes at once, again and again')
@base.needs_locked_ports
class TogetherTest(test_contention.ContentionTestCase):
    """Eight processes, each with guests of its own, and a host without any.

    There is neither a bridge nor a table when they start; in the end each
    guest is held to all its addresses, and to no others.
    """

    _PROCESSES, _EACH = 8, 2

    def plug_at_once(self):
        start, starts = os.pipe()

        def plug_own(number):
            os.close(starts)
            os.read(start, 1)  # Until all are there, and the test lets go.
            for vif in self.vifs[number::self._PROCESSES]:
                self.plug(vif)
        self.children.clear()
        for number in range(self._PROCESSES):
            self.start(plug_own, number)
        os.close(start)
        os.close(starts)
        for child in self.children:
            self.assertEqual(0, os.waitpid(child, 0)[1])

    def test_on_a_host_that_has_nothing(self):
        self.define()
        for _ in range(patience.amount(3, 20, 200)):
            self.assertIsNone(self.host.find(base.BRIDGE))
            self.plug_at_once()
            self.assert_all_held()
            self.host.ip.link('del', IFLA_GROUP=29795)
            self.host.delete(base.BRIDGE)
            self.flush()
        self.assert_nothing_said()

    def test_again_after_a_flush(self):
        """By processes of which each knows its own guests at the most."""
        self.define()
        self.plug_at_once()
        for _ in range(patience.amount(3, 20, 200)):
            self.flush()
            self.plug_at_once()
            self.assert_all_held()
        self.assert_nothing_said()

    def define(self):
        self.configure(anti_spoofing='full')
        self.vifs = [base.numbered_vif(number, addresses=[
            '192.0.2.%d' % number, '2001:db8::%x' % number])
            for number in range(1, 1 + self._PROCESSES * self._EACH)]

    def flush(self):
        with nft.Session() as session:
            session.transact('', [nft.delete_table(
                test_full.filter_table.NAME)])

    def assert_nothing_said(self):
        self.children.clear()
        self.wait_for_all()

    def assert_all_held(self):
        links = [self.host.link(vif.vif_name) for vif in self.vifs]
        self.assertEqual({(29795, self.host.link(base.BRIDGE).index)}, {
            (link.group, link.master) for link in links})
        with nft.Session() as session:
            self.assertTrue(filter_state.is_right(session))
            there = filter_state.elements(session)
        self.assertEqual({link.index: dict.fromkeys(rules.of_port(
            vif.id, vif.address, (
                '192.0.2.%d' % number, '2001:db8::%x' % number)).elements,
            vif.id) for number, (link, vif) in enumerate(
                zip(links, self.vifs), 1)}, there)
