# SPDX-License-Identifier: Apache-2.0

"""nova-compute starts again and plugs every guest: no guest may notice.

A hundred guests hold their TAPs; ten of them send to each other all the time,
from a process of their own, and count what arrives.
"""

import logging
import mmap
import os
import struct
import time

from tests import base
from tests import hosts
from tests import patience

_GUESTS = 100
_TALKERS = 10


class Talk:
    """Guests that send to their neighbour, in a circle.

    :ivar RATE: how many frames a second each sends
    """

    RATE = 500

    def __init__(self, guests):
        self._guests = guests
        #: Whether to stop; how many frames were sent, and how many arrived.
        self._board = mmap.mmap(-1, 12)
        self._child = hosts.fork(self._talk)

    @property
    def counted(self):
        """How many frames were sent, and how many arrived, so far."""
        return struct.unpack_from('ii', self._board, 4)

    def end(self):
        """Return how many frames were sent, and how many arrived."""
        self._board[0] = 1
        os.waitpid(self._child, 0)
        return self.counted

    def wait_for(self, frames):
        """Wait until so many more were sent."""
        enough = self.counted[0] + frames
        patience.wait_until(lambda: self.counted[0] >= enough,
                            'nobody talks')

    def _talk(self):
        sent, missing = 0, set()
        while not self._board[0]:
            sent = self._round(sent, missing)
            struct.pack_into('ii', self._board, 4, sent, sent - len(missing))
            time.sleep(1 / self.RATE)
        # Nobody is overtaken: once all of a round have arrived, what is
        # missing of those before is lost.
        begin, end = sent, self._round(sent, missing)
        deadline = time.monotonic() + patience.HANG
        while missing & set(range(begin, end)) and (
                time.monotonic() < deadline):
            begin, end = end, self._round(end, missing)
        struct.pack_into('ii', self._board, 4, sent, sent - len(
            missing & set(range(sent))))

    def _round(self, number, missing):
        """Have each send one frame, and take what there is.

        :param number: of the first frame
        :param missing: the numbers of what has not arrived
        :returns: the number of the next frame
        """
        for guest, receiver in self._pairs():
            self._speak(guest, receiver, b'talk%010d' % number)
            missing.add(number)
            number += 1
        for guest in self._guests:
            for frame in guest.waiting():
                place = frame.find(b'talk')
                if place > 0 and frame[:6] == hosts._octets(guest.mac):
                    missing.discard(int(frame[place + 4:place + 14]))
                self._hear(guest, frame)
        return number

    def _pairs(self):
        """Return who speaks to whom."""
        return zip(self._guests, self._guests[1:] + self._guests[:1])

    def _speak(self, guest, receiver, words):
        guest.send(receiver.mac, words)

    def _hear(self, guest, frame):
        """Be told of each frame that comes to a guest."""


class RestartTest(base.FunctionalTestCase):

    LOG_LEVEL = logging.WARNING

    def setUp(self):
        super().setUp()
        self.vifs = [base.numbered_vif(number) for number in range(_GUESTS)]
        self.guests = []
        for vif in self.vifs:
            self.plug(vif)
            self.guests.append(hosts.Guest(vif.vif_name, str(vif.address)))
            self.addCleanup(self.guests[-1].close)
        for vif in self.vifs:
            self.host.wait_until_forwarding(vif.vif_name)
        before = self.host.state()
        self.talk = Talk(self.guests[:_TALKERS])
        self.talk.wait_for(10 * _TALKERS)
        self.before = before[:2]
        self.sent_before = self.talk.counted[0]

    def assert_nothing_is_lost(self):
        self.assertGreater(self.talk.counted[0],
                           self.sent_before + 10 * _TALKERS)
        self.talk.wait_for(10 * _TALKERS)
        sent, received = self.talk.end()
        self.assertEqual(0, sent - received, 'of %d' % sent)

    def test_plugged_again(self):
        for _ in range(3):
            for vif in self.vifs:
                self.plug(vif)
        self.assert_nothing_is_lost()
        self.assertEqual(self.before, self.host.state()[:2])

    def test_plugged_again_with_something_to_mend(self):
        for vif in self.vifs:
            self.host.set(vif.vif_name, address='fe:00:00:00:00:01',
                          group=0)
            self.plug(vif)
        self.assert_nothing_is_lost()
        self.assertEqual(self.before, self.host.state()[:2])

    def test_plugged_again_after_the_configuration_changed(self):
        # None is as it should be now; idle, each would be made anew.
        self.configure(multiqueue=True)
        for vif in self.vifs:
            self.plug(vif)
        self.assert_nothing_is_lost()
        self.assertEqual(self.before, self.host.state()[:2])
        self.assertEqual(_GUESTS, self.logs.output.count(
            'is used by a guest, and wrong'))

    def test_control(self):
        # Less than a plug anew would do: the port leaves and comes back.
        master = self.host.link(base.BRIDGE).index
        for index in 0, master:
            self.host.set(self.vifs[0].vif_name, master=index)
            self.talk.wait_for(10 * _TALKERS)
        sent, received = self.talk.end()
        self.assertGreater(sent - received, 0)
