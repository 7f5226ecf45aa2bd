# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""nova-compute starts again and plugs every guest: no guest may notice.

A hundred guests hold their TAPs; ten of them send to each other all the time,
from a process of their own, and count what arrives.
"""

import logging
import os
import select
import struct
import time

from tests import base
from tests import hosts

_GUESTS = 100
_TALKERS = 10
#: Frames a second, of each talker.
_RATE = 500


class Talk:
    """Guests that send to their neighbour, in a circle."""

    def __init__(self, guests):
        self._guests = guests
        control, self._stop = os.pipe()
        self._result, result = os.pipe()
        self._child = hosts.fork(lambda: os.write(
            result, struct.pack('ii', *self._talk(control))))
        os.close(control)
        os.close(result)

    def end(self):
        """Return how many frames were sent, and how many arrived."""
        os.write(self._stop, b'x')
        os.waitpid(self._child, 0)
        try:
            return struct.unpack('ii', os.read(self._result, 8))
        finally:
            os.close(self._stop)
            os.close(self._result)

    def _talk(self, control):
        sent, received = 0, set()
        while not select.select([control], [], [], 0)[0]:
            for number, guest in enumerate(self._guests):
                receiver = self._guests[(number + 1) % len(self._guests)]
                guest.send(receiver.mac, b'talk%010d' % sent)
                sent += 1
            self._listen(received, 1 / _RATE)
        self._listen(received, 1)
        return sent, len(received)

    def _listen(self, received, seconds):
        deadline = time.monotonic() + seconds
        guests = {guest.descriptor: guest for guest in self._guests}
        while (left := deadline - time.monotonic()) > 0:
            for end in select.select(list(guests), [], [], left)[0]:
                frame = os.read(end, 65536)
                if frame[14:18] == b'talk' and frame[:6] == bytes.fromhex(
                        guests[end].mac.replace(':', '')):
                    received.add(frame[18:28])


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
        time.sleep(0.5)
        self.before = before[:2]

    def assert_nothing_is_lost(self):
        sent, received = self.talk.end()
        self.assertGreater(sent, 100 * _TALKERS)
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
            time.sleep(0.5)
        sent, received = self.talk.end()
        self.assertGreater(sent - received, 0)
