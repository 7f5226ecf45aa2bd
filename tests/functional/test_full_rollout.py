# SPDX-License-Identifier: Apache-2.0

"""``anti_spoofing = full`` comes to a host full of guests, and goes again.

Fifty guests hold their TAPs. All of them speak all the time, to both of their
neighbours in a circle that the wire is in, too; and each tells the wire lies,
from an address that nobody has, and from another MAC. Both come from a process
of their own, which counts what arrives. nova-compute starts again between one
mode and the next: another daemon, which knows nobody, plugs all.
"""

import logging
import mmap
import struct

from scapy.layers import inet

from tests import base
from tests.functional import test_frames
from tests.functional import test_full
from tests.functional import test_full_frames as frames
from tests.functional import test_restart
from tests import hosts
from tests import patience

_GUESTS = 50
#: Of a foreign TAP that is in the link group of guests that are not filtered.
_FOREIGN_MAC = '52:54:00:00:00:42'
#: An address of no guest.
_FALSE = '192.0.2.254'
_WORDS = b'talk%010d'
_OURS = {'link_group': 29793, 'filtered_group': 29795}
_THEIRS = {'link_group': 4711, 'filtered_group': 4712}


def addresses(number):
    return ['192.0.2.%d' % number, '2001:db8::%x' % number]


def header(guest, receiver, source):
    """Return how a guest's frames begin that have some words at the end."""
    return bytes(test_frames.ether(receiver.mac, guest.mac) / inet.IP(
        src=source, dst='192.0.2.200') / inet.UDP(sport=7, dport=7, chksum=0)
        / (_WORDS % 0))[:-len(_WORDS % 0)]


class TalkAndLies(test_restart.Talk):
    """Guests that speak to both neighbours, and tell the wire lies.

    :param guests: with the address that each is to speak from
    :param others: who speak, and are not held to anything
    :param wire: to whom the lies are told; one of the others
    """

    RATE = 300

    def __init__(self, guests, others, wire):
        self._wire = wire
        #: Of whom no lie about addresses may come out any more.
        self._held = mmap.mmap(-1, len(guests))
        #: How many lies came out: of those who are held, of others.
        self._out = mmap.mmap(-1, 8)
        circle = [*(guest for guest, _ in guests), *others]
        sources = {guest: source for guest, source in guests}
        both = list(zip(circle, circle[1:] + circle[:1]))
        self._both = [*both, *((one, other) for other, one in both)]
        self._headers = {
            (guest, receiver): header(guest, receiver, sources[guest])
            for guest, receiver in self._both if guest in sources}
        self._lies = [self._lies_of(guest) for guest, _ in guests]
        super().__init__(circle)

    def _lies_of(self, guest):
        """Return what is false in it, and what has even a false MAC."""
        claim = frames.arp(self._wire.mac, op=2, psrc=_FALSE,
                           hwsrc=guest.mac)
        claim.src = guest.mac
        other = claim.copy()
        other.src = other.payload.hwsrc = frames.STRANGER
        return [bytes(claim), header(guest, self._wire, _FALSE)
                ], bytes(other)

    @property
    def round(self):
        """How many frames there are in a round."""
        return len(self._both)

    @property
    def lies(self):
        """How many have come out: of guests that are held, of others."""
        return struct.unpack('ii', self._out[:])

    def hold(self, numbers):
        """Expect no lie of these guests any more, by their places."""
        for number in numbers:
            self._held[number] = 1

    def release(self, numbers):
        """Expect any from now on; what was sent before is through then."""
        for number in numbers:
            self._held[number] = 0
        self.wait_for(2 * self.round)

    def _pairs(self):
        for number, (lies, other) in enumerate(self._lies):
            for lie in lies:
                self._guests[number].write(lie + (
                    b'lie%d' % self._held[number]).ljust(14))
            self._guests[number].write(other + b'lie1')
        return self._both

    def _speak(self, guest, receiver, words):
        start = self._headers.get((guest, receiver))
        if start is None:
            return super()._speak(guest, receiver, words)
        guest.write(start + words)

    def _hear(self, guest, frame):
        place = frame.find(b'lie')
        if guest is self._wire and place > 0:
            held, others = self.lies
            is_held = frame[place + 3:place + 4] == b'1'
            self._out[:] = struct.pack('ii', held + is_held,
                                       others + (not is_held))


@base.too_slow_emulated('fifty guests that talk all the time')
class RolloutTestCase(test_full.FullTestCase):

    LOG_LEVEL = logging.WARNING
    #: How they talk.
    TALK = TalkAndLies

    def setUp(self):
        super().setUp()
        self.vifs = [base.numbered_vif(number, addresses=addresses(number))
                     for number in range(1, _GUESTS + 1)]
        self.expected_groups = {}
        self.expected_ports = {}

    def start_talk(self, *others):
        guests = [hosts.Guest(vif.vif_name, str(vif.address))
                  for vif in self.vifs]
        for guest in guests:
            self.addCleanup(guest.close)
        for vif in self.vifs:
            self.host.wait_until_forwarding(vif.vif_name)
        self.wire.send(hosts.BROADCAST, b'I am here')
        self.talk = self.TALK(
            [(guest, '192.0.2.%d' % number)
             for number, guest in enumerate(guests, 1)],
            [self.wire, *others], self.wire)
        self.talk.wait_for(3 * self.talk.round)

    def start_again(self, mode, service=_OURS, guests=range(_GUESTS)):
        """Have another daemon plug guests of a service, by their places."""
        base.privsep.vif_plug.stop()
        self.configure(anti_spoofing=mode, **service)
        self.start_daemon()
        if mode != 'full' and hasattr(self, 'talk'):
            self.talk.release(guests)
        for place in guests:
            self.plug(self.vifs[place])
            if mode == 'full' and hasattr(self, 'talk'):
                self.talk.hold([place])
        self.note(mode, service, guests)
        if hasattr(self, 'talk'):
            self.talk.wait_for(2 * self.talk.round)

    def note(self, mode, service, guests):
        group = service['filtered_group' if mode == 'full' else 'link_group']
        for place in guests:
            name = self.vifs[place].vif_name
            self.expected_groups[name] = group
            index, = own = self.expected(self.vifs[place],
                                         addresses(place + 1))
            self.expected_ports[index] = (own[index] if mode == 'full'
                                          else None)
        self.assert_groups_and_elements()

    def assert_groups_and_elements(self):
        self.assertEqual(self.expected_groups, {
            name: self.host.link(name).group for name in self.expected_groups})
        self.assertEqual(
            {index: there for index, there in self.expected_ports.items()
             if there}, self.ports())

    def assert_nothing_lost_and_no_lie(self):
        sent, received = self.talk.end()
        self.assertEqual(0, sent - received, 'of %d' % sent)
        held, others = self.talk.lies
        self.assertEqual(0, held)
        self.assertGreater(others, 0)


class RolloutTest(RolloutTestCase):

    def test_of_two_services(self):
        ours, theirs = range(0, _GUESTS, 2), range(1, _GUESTS, 2)
        both = (_OURS, ours), (_THEIRS, theirs)
        for service, guests in both:
            self.start_again('mac', service, guests)
        self.host.add_tap('foreign')
        self.host.quiet_ipv6('foreign')
        self.host.set('foreign', group=_OURS['link_group'], state='up',
                      master=self.host.link(base.BRIDGE).index)
        self.start_talk(self.open('foreign', _FOREIGN_MAC))
        for _ in range(patience.amount(1, 1, 10)):
            for mode in 'full', 'mac':
                for service, guests in both:
                    self.start_again(mode, service, guests)
        self.assert_nothing_lost_and_no_lie()
        self.assertEqual(_OURS['link_group'],
                         self.host.link('foreign').group)

    def test_flushed_rules_and_one_plug(self):
        self.start_again('full')
        self.start_talk()
        self.talk.hold(range(_GUESTS))
        self.talk.wait_for(2 * self.talk.round)
        for place in range(0, _GUESTS, _GUESTS // patience.amount(2, 5, 25)):
            self.talk.release(range(_GUESTS))
            self.flush()
            self.talk.wait_for(2 * self.talk.round)
            self.plug(self.vifs[place])
            self.talk.hold(range(_GUESTS))
            self.assert_groups_and_elements()
            self.assertTrue(self.is_right())
            self.talk.wait_for(2 * self.talk.round)
        self.assert_nothing_lost_and_no_lie()
