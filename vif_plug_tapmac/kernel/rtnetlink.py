# SPDX-License-Identifier: Apache-2.0

"""rtnetlink as bytes: what a plug asks of the kernel, and its answers.

pyroute2 knows all of this, and takes half a second to be loaded, and 0.2 to
0.6 ms for each request that the kernel answers in 0.01 ms: it runs an event
loop for each, and finds out anew how each attribute of a link is to be
decoded, of which there are a hundred. A plug has a dozen requests. See
"Performance" in the documentation.
Source: include/uapi/linux/netlink.h, include/uapi/linux/rtnetlink.h
"""

import errno
import os
import socket
import struct
import time
import typing

from vif_plug_tapmac.kernel import attributes
from vif_plug_tapmac.kernel.attributes import Attributes

# Message types, by what is done to what.
NEW_LINK, DELETE_LINK, GET_LINK, SET_LINK = 16, 17, 18, 19
DELETE_ADDRESS, GET_ADDRESS = 21, 22
NEW_NEIGHBOUR, DELETE_NEIGHBOUR, GET_NEIGHBOUR = 28, 29, 30
NEW_QUEUEING, GET_QUEUEING = 36, 38
NEW_FILTER, DELETE_FILTER, GET_FILTER = 44, 45, 46
NEW_PROPERTY, DELETE_PROPERTY = 108, 109
GET_VLAN = 114
#: Add flags to a request: replace what there is, or fail; make it.
REPLACE, EXCLUSIVE, CREATE = 0x100, 0x200, 0x400

_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_REQUEST, _ACK, _DUMP, _DUMP_INTERRUPTED = 0x1, 0x4, 0x300, 0x10
#: Of an acknowledgement: the request is not in it but for its header; words
#: follow. And the number of these words.
_CAPPED, _WORDS_FOLLOW, _WORDS = 0x100, 0x200, 1
#: Options of a socket.
_SOL_NETLINK, _CAP_ACK, _EXT_ACK, _GET_STRICT_CHK = 270, 10, 11, 12

_HEADER = struct.Struct('=IHHII')
_ERROR = struct.Struct('=i')
#: struct timeval: seconds, microseconds
_TIMEVAL = struct.Struct('@ll')
#: struct ifinfomsg: family, type, index, flags, which flags to change
_LINK = struct.Struct('=BxHiII')
#: struct ifaddrmsg: family, length of the prefix, flags, scope, index
_ADDRESS = struct.Struct('=BBBBI')
#: struct ndmsg: family, index, state, flags, type
_NEIGHBOUR = struct.Struct('=BxxxiHBB')
#: struct tcmsg: family, index, handle, parent, info
_TRAFFIC_CONTROL = struct.Struct('=BxxxiIII')
#: struct br_vlan_msg: family, index
_VLAN = struct.Struct('=BxxxI')

# In bytes. A link takes about 2000.
_MESSAGE_SIZE = 1 << 16
# As numbers, for an enumeration takes a while to compare.
_TRUNCATED, _WITHOUT_WAITING = int(socket.MSG_TRUNC), int(socket.MSG_DONTWAIT)
#: Who sends what the kernel sends.
KERNEL = 0
# In seconds. The kernel does what it is asked for while it is asked, so an
# answer that is not there soon after was lost.
_ANSWERS_WITHIN = 10.0
#: Source: include/linux/err.h
_MAX_ERRNO = 4095


class LinkMessage:
    """A link as the kernel describes it."""

    def __init__(self, body: bytes) -> None:
        if len(body) < _LINK.size:
            raise _garbled()
        self.family, _, self.index, self.flags, _ = _LINK.unpack_from(body)
        self.attributes = Attributes(body[_LINK.size:])


class NeighbourMessage:
    """An entry of a bridge's FDB as the kernel describes it."""

    def __init__(self, body: bytes) -> None:
        if len(body) < _NEIGHBOUR.size:
            raise _garbled()
        (self.family, self.index, self.state, self.flags,
         _) = _NEIGHBOUR.unpack_from(body)
        self.attributes = Attributes(body[_NEIGHBOUR.size:])


def link(index: int, *parts: bytes, flags: int = 0,
         change: int = 0) -> bytes:
    """Return the body of a message on a link.

    :param index: 0 where an attribute says which link
    :param flags: IFF_UP and the like
    :param change: which of these are to be set
    """
    return _LINK.pack(socket.AF_UNSPEC, 0, index, flags, change) + b''.join(
        parts)


def neighbour(index: int, *parts: bytes, state: int = 0,
              flags: int = 0) -> bytes:
    """Return the body of a message on an entry of a bridge's FDB.

    :param index: of the port, 0 where it is not known
    """
    return (_NEIGHBOUR.pack(socket.AF_BRIDGE, index, state, flags, 0)
            + b''.join(parts))


def address(index: int, family: int, length: int, *parts: bytes) -> bytes:
    """Return the body of a message on an IP address.

    :param index: of the link; 0 where all are meant
    :param length: of the prefix, in bits
    """
    return _ADDRESS.pack(family, length, 0, 0, index) + b''.join(parts)


def read_address(body: bytes) -> tuple[int, int, int, int, Attributes]:
    """Return what such a message says.

    :returns: family, length of the prefix, scope, index of the link, and the
        attributes
    """
    if len(body) < _ADDRESS.size:
        raise _garbled()
    family, length, _, scope, index = _ADDRESS.unpack_from(body)
    return family, length, scope, index, Attributes(body[_ADDRESS.size:])


def traffic_control(index: int, handle: int, parent: int, info: int,
                    *parts: bytes) -> bytes:
    """Return the body of a message on traffic control of a link."""
    return (_TRAFFIC_CONTROL.pack(socket.AF_UNSPEC, index, handle, parent,
                                  info) + b''.join(parts))


def read_traffic_control(
        body: bytes) -> tuple[int, int, int, int, Attributes]:
    """Return what such a message says: four numbers, then the rest."""
    if len(body) < _TRAFFIC_CONTROL.size:
        raise _garbled()
    _, index, handle, parent, info = _TRAFFIC_CONTROL.unpack_from(body)
    return index, handle, parent, info, Attributes(
        body[_TRAFFIC_CONTROL.size:])


def vlans(index: int) -> bytes:
    """Return the body of a message on the VLANs of a port of a bridge.

    :param index: of the port; 0 where all are meant
    """
    return _VLAN.pack(socket.AF_BRIDGE, index)


def read_vlans(body: bytes) -> tuple[int, bytes]:
    """Return what such a message says: index of the port, attributes."""
    if len(body) < _VLAN.size:
        raise _garbled()
    return _VLAN.unpack_from(body)[1], body[_VLAN.size:]


class Message(typing.NamedTuple):
    """What came in, apart from its length and who sent it.

    :param sequence: the number of the request that it answers
    :param port: of the socket that asked for it, or had done what it tells
    """
    kind: int
    flags: int
    sequence: int
    body: bytes
    port: int


def messages(data: bytes) -> typing.Iterator[Message]:
    """Yield each message of what came in at once.

    :raises OSError: EBADMSG: one is cut off
    """
    place = 0
    while place < len(data):
        if place + _HEADER.size > len(data):
            raise _garbled()
        length, kind, flags, sequence, port = _HEADER.unpack_from(data, place)
        if not _HEADER.size <= length <= len(data) - place:
            raise _garbled()
        yield Message(kind, flags, sequence,
                      data[place + _HEADER.size:place + length], port)
        place += attributes.aligned(length)


class Interrupted(Exception):
    """What was to be listed changed meanwhile, so that some may be missing."""


class Socket:
    """A netlink socket, for one thread.

    It is of the network namespace that it was opened in. What comes in that
    answers none of its last request is passed over, so that it may be used on
    after whatever went wrong.
    """

    def __init__(self, protocol: int = socket.NETLINK_ROUTE) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW, protocol)
        # The kernel is to watch the time: Python asks it before each call.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO,
                                _timeval(_ANSWERS_WITHIN))
        # To say why it refuses; and to refuse what it does not know in a
        # request for a list, rather than to send all there is (Linux 4.20).
        for option in _CAP_ACK, _EXT_ACK, _GET_STRICT_CHK:
            self._switch_on(option)
        self._sequence = 0

    def _switch_on(self, option: int) -> None:
        try:
            self._socket.setsockopt(_SOL_NETLINK, option, 1)
        except OSError as error:
            if error.errno != errno.ENOPROTOOPT:
                raise

    def close(self) -> None:
        self._socket.close()

    @property
    def port(self) -> int:
        """The number that the kernel calls it by; 0: it has none yet."""
        return int(self._socket.getsockname()[0])

    def set_option(self, option: int, value: int) -> None:
        """Set an option that any socket has."""
        self._socket.setsockopt(socket.SOL_SOCKET, option, value)

    def set(self, kind: int, body: bytes, flags: int = 0) -> None:
        """Have something done.

        :raises OSError: the kernel refuses, or its answer does not come or
            makes no sense
        """
        self._send(kind, _ACK | flags, body)
        if next(self._answers()).kind != _NLMSG_ERROR:
            raise _garbled()

    def transact(self, requests: typing.Sequence[tuple[int, int, bytes]],
                 is_whole: bool = True) -> None:
        """Have several things done, of which all or none is.

        :param requests: types, flags and bodies; the first and the last frame
            the others, of which there is one at least, and are not answered
        :param is_whole: whether there is such a last one. Without it the
            kernel tries all, and does nothing
        :raises OSError: as :meth:`set`
        """
        self._sequence += 1
        # What goes wrong is said in any case, and before that the last is
        # done: answers to all would be more than the socket keeps.
        *others, (kind, flags, body) = requests[:-1] if is_whole else requests
        self._socket.send(b''.join(self._pack(*each) for each in (
            *others, (kind, flags | _ACK, body),
            *(requests[-1:] if is_whole else ()))))
        if next(self._answers()).kind != _NLMSG_ERROR:
            raise _garbled()

    def get(self, kind: int, body: bytes, answer: int) -> bytes:
        """Return what the one message has that answers.

        :param answer: the type that it has
        :raises OSError: as :meth:`set`; the kernel may have nothing
        """
        self._send(kind, 0, body)
        message = next(self._answers())
        if message.kind != answer:
            raise _garbled()
        return message.body

    def dump(self, kind: int, body: bytes) -> list[bytes]:
        """Return what all the messages have that answer.

        :raises OSError: as :meth:`set`
        :raises Interrupted: do it again
        """
        self._send(kind, _DUMP, body)
        found: list[bytes] = []
        interrupted = False
        # To its end in any case: a list that is not read through keeps the
        # socket busy.
        for message in self._answers():
            interrupted |= bool(message.flags & _DUMP_INTERRUPTED)
            if message.kind == _NLMSG_DONE:
                break
            found.append(message.body)
        if interrupted:
            raise Interrupted()
        return found

    def each(self, kind: int, body: bytes) -> typing.Iterator[bytes]:
        """Yield what each of the messages has that answer, as it comes.

        Whoever does not read them all closes the socket: it is busy else.

        :raises OSError: as :meth:`set`
        """
        self._send(kind, _DUMP, body)
        for message in self._answers():
            if message.kind == _NLMSG_DONE:
                return
            yield message.body

    def _send(self, kind: int, flags: int, body: bytes) -> None:
        self._sequence += 1
        self._socket.send(self._pack(kind, flags, body))

    def _pack(self, kind: int, flags: int, body: bytes) -> bytes:
        return _HEADER.pack(_HEADER.size + len(body), kind, _REQUEST | flags,
                            self._sequence, 0) + body

    def _answers(self) -> typing.Iterator[Message]:
        """Yield what answers the last request, as long as somebody asks.

        :raises OSError: it is a refusal; none comes in time (ETIMEDOUT); or
            what comes makes no sense (EBADMSG)
        """
        deadline = time.monotonic() + _ANSWERS_WITHIN
        while True:
            # Who was kept from the processor may have his answer all the same.
            is_late = time.monotonic() >= deadline
            for message in messages(self._receive(
                    _WITHOUT_WAITING if is_late else 0)):
                if message.sequence == self._sequence:
                    if message.kind in (_NLMSG_ERROR, _NLMSG_DONE):
                        _require_success(message.body, _words(message))
                    yield message
                    deadline = time.monotonic() + _ANSWERS_WITHIN

    def _receive(self, how: int) -> bytes:
        try:
            data, _, flags, sender = self._socket.recvmsg(
                _MESSAGE_SIZE, 0, how)
        except BlockingIOError:
            raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
        if sender and sender[0] != KERNEL:
            return b''
        if flags & _TRUNCATED:
            raise _garbled()
        return data


def _timeval(seconds: float) -> bytes:
    return _TIMEVAL.pack(int(seconds), int(seconds % 1 * 1e6))


class Refused(OSError):
    """The kernel refuses, and perhaps says why, in a sentence of its own."""

    words: str | None = None


def _words(message: Message) -> str | None:
    """Return what the kernel says beside the number of an error, if it does.

    Source: include/uapi/linux/netlink.h, enum nlmsgerr_attrs
    """
    if not message.flags & _WORDS_FOLLOW:
        return None
    place = _ERROR.size
    if message.kind == _NLMSG_ERROR:
        if len(message.body) < place + _HEADER.size:
            return None
        length, *_ = _HEADER.unpack_from(message.body, place)
        place += (_HEADER.size if message.flags & _CAPPED
                  else attributes.aligned(length))
    return Attributes(message.body[place:]).text(_WORDS)


def _require_success(body: bytes, words: str | None = None) -> None:
    """Check what the kernel says at the end of its work.

    :param words: what it says besides
    :raises OSError: it refuses, or could not go on
    """
    if len(body) < _ERROR.size:
        raise _garbled()
    code = -_ERROR.unpack_from(body)[0]
    if not 0 <= code <= _MAX_ERRNO:
        raise _garbled()
    if code:
        refused = Refused(code, os.strerror(code))
        refused.words = words
        raise refused


def _garbled() -> OSError:
    return OSError(errno.EBADMSG, os.strerror(errno.EBADMSG))
