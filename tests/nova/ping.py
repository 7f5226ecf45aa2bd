# SPDX-License-Identifier: Apache-2.0

"""Pings an address until its input ends, and says which pings were lost.

To be run as a program, with the address. A ping is never lost because
somebody is slow: only so many are on their way that no queue between here and
there is ever full, and nobody waits for an answer for a time. Pings are
answered in their order, so one is lost when a later one has its answer.

Says, in JSON, how many pings it sent, and the numbers of those that were lost.
"""

import contextlib
import json
import os
import select
import socket
import struct
import sys
import time

#: Between two pings, in seconds, if there is time.
INTERVAL = 0.01
#: How many may be on their way like this; then there is one a second. A TAP
#: has room for 1000.
_WINDOW, _SLOW = 400, 1.0
#: How many there are at least, however short it was.
_LEAST = 101
#: How many after the end, one after the other.
_AFTER = 10

ECHO, _ECHO_REPLY = 8, 0
#: Of a packet, with headers of 20 and 8.
LENGTH = 32
_SO_RCVBUFFORCE = 33


class Pings:
    """What was sent, and what came back."""

    def __init__(self, address):
        self._address = address
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_RAW,
                                     socket.IPPROTO_ICMP)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 1 << 24)
        self._ident = os.getpid() & 0xffff
        self._last = 0.0
        self.sent = 0
        self.lost = set()
        #: The first that may yet be answered.
        self.next = 0

    def go_on(self, window, inputs=()):
        """Send one if it is time; return which of the inputs has something.

        :param window: how many may be on their way
        """
        pause = INTERVAL if self.sent - self.next < window else _SLOW
        left = self._last + pause - time.monotonic()
        if left <= 0:
            self._last = time.monotonic()
            self._send()
        return self._listen(max(0, left), inputs)

    def is_answered(self):
        """Return whether the last one has its answer by now."""
        while select.select([self._socket], [], [], 0)[0]:
            self._listen(0, ())
        return self.next == self.sent

    def close(self):
        self._socket.close()

    def _send(self):
        message = struct.pack('!BBHHHI', ECHO, 0, 0, self._ident,
                              self.sent & 0xffff, self.sent)
        self.sent += 1
        total = sum(struct.unpack('!6H', message))
        while total >> 16:
            total = (total & 0xffff) + (total >> 16)
        message = message[:2] + struct.pack('!H', ~total & 0xffff) + \
            message[4:]
        with contextlib.suppress(OSError):  # Nobody has that address now.
            self._socket.sendto(message, (self._address, 0))

    def _listen(self, seconds, inputs):
        ready = select.select([self._socket, *inputs], [], [], seconds)[0]
        if self._socket in ready:
            packet = self._socket.recv(65536)[20:]
            kind, _, _, ident, _ = struct.unpack('!BBHHH', packet[:8])
            if (kind, ident) == (_ECHO_REPLY, self._ident):
                number, = struct.unpack('!I', packet[8:12])
                self.lost.update(range(self.next, number))
                self.lost.discard(number)
                self.next = max(self.next, number + 1)
        return [found for found in ready if found in inputs]


def main(address):
    pings = Pings(address)
    has_ended = False
    while not has_ended or pings.sent < _LEAST:
        has_ended = bool(pings.go_on(_WINDOW, [sys.stdin])) or has_ended
    sent = pings.sent
    while pings.next < sent + _AFTER:
        pings.go_on(1)
    json.dump({'sent': sent, 'lost': sorted(pings.lost)}, sys.stdout)


if __name__ == '__main__':
    main(*sys.argv[1:])
