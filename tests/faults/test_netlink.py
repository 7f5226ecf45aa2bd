# SPDX-License-Identifier: Apache-2.0

"""netlink answers that are cut off, doubled, out of order, foreign or lost.

Whatever comes, a plug ends in time: with the TAP as it should be, or with an
error that is typed and a host that the next plug completes.
"""

import errno
import os
import random
import socket
import struct

from tests import base
from tests.faults import boundary
from tests.faults import test_steps
from tests import patience
from vif_plug_tapmac.kernel import netlink as nl

_HEADER = boundary.HEADER


def messages(data):
    """Return the messages of a datagram, each with its header."""
    found = []
    while len(data) >= _HEADER.size:
        length = (_HEADER.unpack_from(data)[0] + 3) & ~3
        found.append(data[:length])
        data = data[length:] if length else b''
    return found


def with_header(data, **changes):
    """Return a datagram whose first header is another."""
    names = 'length', 'kind', 'flags', 'sequence', 'port'
    fields = dict(zip(names, _HEADER.unpack_from(data)), **changes)
    return _HEADER.pack(*(fields[name] for name in names)) + data[16:]


def _acknowledgement(data):
    sequence, port = _HEADER.unpack_from(data)[3:]
    return _HEADER.pack(36, boundary.NLMSG_ERROR, 0x100, sequence, port) + (
        struct.pack('i', 0) + _HEADER.pack(16, 18, 5, sequence, port))


def _half(data):
    return max(_HEADER.size, len(data) // 8 * 4)


def _noise(data):
    return random.Random(len(data)).randbytes(max(0, len(data) - 16))


#: By name: what comes instead of an answer. A negative number is an errno.
MANGLED = {
    'nothing': lambda data: -errno.EAGAIN,
    'ENOBUFS': lambda data: -errno.ENOBUFS,
    'an empty datagram': lambda data: b'',
    'half a header': lambda data: data[:8],
    'a header': lambda data: data[:16],
    'a header that promises more': lambda data: with_header(data[:16]),
    'not all of the fields': lambda data: data[:22],
    'no attributes': lambda data: with_header(data[:32], length=32),
    'half of it': lambda data: data[:len(data) // 2],
    'half of it, as if that were all': lambda data: with_header(
        data[:_half(data)], length=_half(data)),
    'all but the last byte': lambda data: data[:-1],
    'it twice': lambda data: data * 2,
    'it 50 times': lambda data: data * 50,
    'its parts in reverse order': lambda data: b''.join(
        reversed(messages(data))),
    'an acknowledgement first': lambda data: _acknowledgement(data) + data,
    'an acknowledgement only': _acknowledgement,
    'the end of a list': lambda data: with_header(
        data[:20], length=20, kind=boundary.NLMSG_DONE),
    'the end of a list first': lambda data: with_header(
        data[:20], length=20, kind=boundary.NLMSG_DONE) + data,
    'one of many': lambda data: with_header(data, flags=2),
    'an interrupted list': lambda data: with_header(data, flags=0x12),
    'an answer to somebody else': lambda data: with_header(
        data, sequence=0xfffffff0),
    'an event first': lambda data: with_header(data, sequence=0) + data,
    'a type that nobody knows': lambda data: with_header(data, kind=0x7fff),
    'a route': lambda data: with_header(data, kind=24),
    'a length of nothing': lambda data: with_header(data, length=0),
    'a length of everything': lambda data: with_header(
        data, length=0xffffffff),
    'an errno that nobody knows': lambda data: boundary.error_message(
        data[:16], 4000),
    'a refusal without the request': lambda data: boundary.error_message(
        data[:16], errno.EPERM)[:20],
    'noise': lambda data: data[:16] + _noise(data),
    'noise in the attributes': lambda data: (
        data[:32] + _noise(data[:16] + data[32:])),
}


class Mangling(boundary.Kernel):
    """Replaces one answer."""

    def __init__(self, place, mangle):
        self._place = place
        self._mangle = mangle
        self._now = False

    def call(self, call, child):
        self._now = call.place == self._place
        return None

    def answer(self, data):
        return self._mangle(data) if self._now and data else data


class AnswersTest(test_steps.StepsTestCase):

    ANSWER_PATIENCE = 0.3

    def answers(self):
        return [place for place in self.learn()
                if place[0].startswith('answer to ')]

    def mangle_all(self):
        answers = self.answers()
        chosen = [(place, name) for place in answers for name in MANGLED]
        if not patience.LONG:
            # Each answer and each way, but not all pairs: these have no factor
            # in common with the number of either.
            chosen = chosen[::7 if patience.IN_FULL else 17]
        before = None
        for place, name in chosen:
            if before is None or before != self.host.state():
                before = self.start_anew()
            with test_steps.describing('%s as %s (%d)' % (name, *place)):
                outcome = self.run_with(Mangling(place, MANGLED[name]))
                self.check(outcome, before)
        self.report(len(chosen))

    def check(self, outcome, before):
        if outcome.error is not None:
            self.assert_typed(outcome)
        self.assert_nothing_in_between(self.host.state(), before)
        self.call()
        self.assert_complete()


class PlugTest(AnswersTest):

    def test_on_a_new_bridge(self):
        self.only_in_full()
        self.mangle_all()


class MendTest(AnswersTest):

    def prepare(self):
        self.plug()
        self.host.set(base.TAP, state='down', master=0)

    def assert_nothing_in_between(self, seen, before):
        self.assertIsNotNone(self.host.find(base.TAP))

    def test_it(self):
        self.mangle_all()


class Hurried(boundary.Kernel):
    """Lets everything pass, and has nobody wait for long."""


class ClosedSocketTest(AnswersTest):
    """Somebody closes what is not his."""

    def close_before(self, number):
        request = nl.Netlink._request
        left = [number]

        def closing(netlink, *arguments, **attributes):
            left[0] -= 1
            if left[0] == -1:
                for descriptor in map(int, os.listdir('/proc/self/fd')):
                    if is_netlink(descriptor):
                        os.close(descriptor)
            return request(netlink, *arguments, **attributes)
        self.patch(nl.Netlink, '_request', closing)

        def undo():
            nl.Netlink._request = request
        return undo

    def test_before_each_request(self):
        requests = sum(boundary.is_request(step) for step, _ in self.learn()
                       if not step.startswith('netfilter'))
        for number in range(0, requests, 1 if patience.LONG else 3):
            before = self.start_anew()
            undo = self.close_before(number)
            outcome = self.run_with(Hurried())
            undo()
            with test_steps.describing('before request %d' % number):
                self.assertIsNotNone(outcome.error)
                self.check(outcome, before)


def is_netlink(descriptor):
    try:
        with socket.socket(fileno=os.dup(descriptor)) as found:
            return found.family == socket.AF_NETLINK
    except OSError:
        return False
