# SPDX-License-Identifier: Apache-2.0

"""What happens to links, as the kernel tells everybody who listens."""

import array
import dataclasses
import errno
import logging
import select
import socket
import struct
import types
import typing

from vif_plug_tapmac.kernel.link import Link
from vif_plug_tapmac.kernel import rtnetlink
from vif_plug_tapmac.kernel import session

LOG = logging.getLogger(__name__)

#: In bytes: of what happens while nobody reads, and of one message at most.
_EVENT_BUFFER, _EVENT_SIZE = 4 << 20, 1 << 16
#: Source: include/uapi/linux/rtnetlink.h
_RTMGRP_LINK, _RTMGRP_NEIGH = 1, 4
#: What a socket is to keep of what comes. Source: asm-generic/socket.h
#: (SO_ATTACH_FILTER), linux/filter.h (struct sock_filter, struct sock_fprog)
_ATTACH_FILTER = 26
_INSTRUCTION, _PROGRAM = struct.Struct('HBBI'), struct.Struct('HP')
#: Instructions: load what is at an offset: two octets, four, or one; go so
#: much further if it is as said, or not; end, with how much is kept.
#: Source: include/uapi/linux/bpf_common.h
_LOAD_2, _LOAD_4, _LOAD_1, _IF_EQUAL, _END = 0x28, 0x20, 0x30, 0x15, 0x06
_ALL, _NOTHING = (_END, 0, 0, 0xffffffff), (_END, 0, 0, 0)
#: Where in a message its type is, and in one on an entry of an FDB its family
#: and the port. Source: struct nlmsghdr, struct ndmsg
_TYPE_AT, _FAMILY_AT, _INDEX_AT = 4, 16, 20
#: Of how many ports a program can tell: it has 4096 instructions at most.
_PORTS_MOST = 2000

#: What keeps news of entries of bridges, on whatever port. Numbers in messages
#: are as this host has them, and are loaded as those of networks are.
_HEARD_ANYWHERE = [
    (_LOAD_2, 0, 0, _TYPE_AT),
    (_IF_EQUAL, 1, 0, socket.htons(rtnetlink.NEW_NEIGHBOUR)), _NOTHING,
    (_LOAD_1, 0, 0, _FAMILY_AT),
    (_IF_EQUAL, 1, 0, socket.AF_BRIDGE), _NOTHING, _ALL]
_ListenerT = typing.TypeVar('_ListenerT', bound='Listener')


@dataclasses.dataclass(frozen=True)
class LinkEvent:
    """A link as it is now, or as it was when it was deleted."""
    link: Link
    deleted: bool


class Overrun(Exception):
    """Events were lost, for the kernel had more than it could keep.

    It says so once, and keeps nothing more before all is read: so all has been
    read by now, and who looks then misses nothing.
    Source: net/netlink/af_netlink.c, netlink_overrun and netlink_rcv_wake

    :ivar kept: what it had kept before that, as who raises this tells it
    """

    def __init__(self, kept: typing.Sequence[typing.Any] = ()) -> None:
        super().__init__()
        self.kept = kept


class Listener:
    """A socket that gets what happens in a part of the kernel."""

    def __init__(self, protocol: int, groups: int) -> None:
        """Listen from now on.

        :param groups: as bits, which of those that the protocol has
        """
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW, protocol)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF,
                                _EVENT_BUFFER)
        self._socket.bind((0, groups))

    def __enter__(self: _ListenerT) -> _ListenerT:
        return self

    def __exit__(self, exc_type: type[BaseException] | None,
                 exc: BaseException | None,
                 traceback: types.TracebackType | None) -> None:
        self._socket.close()

    def fileno(self) -> int:
        """Return what can be read when something has happened."""
        return self._socket.fileno()

    def receive(self, seconds: float | None) -> bytes | None:
        """Return the messages that come next, None if none come in time.

        :param seconds: None: for ever
        :raises Overrun: some were lost
        """
        poll = select.poll()  # It takes whatever number a descriptor has.
        poll.register(self._socket, select.POLLIN)
        if not poll.poll(None if seconds is None else seconds * 1000):
            return None
        try:
            return self._read()
        except Overrun:
            raise Overrun(list(self._rest()))

    def _read(self, flags: int = 0) -> bytes:
        try:
            data, _, _, sender = self._socket.recvmsg(_EVENT_SIZE, 0, flags)
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            raise Overrun()
        return data if sender[0] == rtnetlink.KERNEL else b''

    def _rest(self) -> typing.Iterator[bytes]:
        """Yield what there is still, whatever else was lost meanwhile."""
        while True:
            try:
                yield self._read(socket.MSG_DONTWAIT)
            except Overrun:
                pass
            except BlockingIOError:
                return


class LinkEvents(Listener):
    """What happens to links, as the kernel tells everybody who listens."""

    def __init__(self) -> None:
        super().__init__(socket.NETLINK_ROUTE, _RTMGRP_LINK)

    def wait(self, seconds: float) -> list[LinkEvent]:
        """Return what comes next, nothing if nothing comes in time.

        Nothing, too, if what comes tells of a part of a link only, or cannot
        be read: links are to be listed then as after all that happens.

        :raises Overrun: list the links anew
        """
        return list(_events(self.receive(seconds) or b''))


class HeardEvents(Listener):
    """On which ports bridges hear MACs that they did not hear there before.

    At first on none: what happens elsewhere wakes nobody who waits.
    """

    def __init__(self) -> None:
        super().__init__(socket.NETLINK_ROUTE, _RTMGRP_NEIGH)
        self.only(())

    def only(self, indexes: typing.Collection[int]) -> None:
        """Hear of these ports from now on, and of no others.

        :param indexes: if they are more than 2000, of all; likewise if the
            kernel has no room for so many: before Linux 6.7 that is so from
            some hundreds on (net.core.optmem_max)
        :raises OSError: the kernel has no room at all
        """
        try:
            self._attach(_heard_on(indexes))
        except OSError:
            self._attach(_HEARD_ANYWHERE)

    def _attach(self, instructions: list[tuple[int, int, int, int]]) -> None:
        program = array.array('B', b''.join(
            _INSTRUCTION.pack(*each) for each in instructions))
        self._socket.setsockopt(
            socket.SOL_SOCKET, _ATTACH_FILTER, _PROGRAM.pack(
                len(program) // _INSTRUCTION.size, program.buffer_info()[0]))

    def wait(self, seconds: float) -> set[int]:
        """Return the indexes of the next of these ports; none in time: none.

        :raises Overrun: look at all
        """
        try:
            return {rtnetlink.NeighbourMessage(message.body).index
                    for message in rtnetlink.messages(
                        self.receive(seconds) or b'')}
        except (OSError, *session.GARBLED):
            raise Overrun()  # As if it had not come.


def _heard_on(indexes: typing.Collection[int],
              ) -> list[tuple[int, int, int, int]]:
    """Return the program that keeps what is told of entries on these ports."""
    if not indexes:
        return [_NOTHING]
    if len(indexes) > _PORTS_MOST:
        return _HEARD_ANYWHERE
    return [*_HEARD_ANYWHERE[:-1], (_LOAD_4, 0, 0, _INDEX_AT), *(
        each for index in indexes
        for each in ((_IF_EQUAL, 0, 1, socket.htonl(index)), _ALL)), _NOTHING]


def _events(data: bytes) -> typing.Iterator[LinkEvent]:
    """Yield what can be read of what came in at once."""
    try:
        for message in rtnetlink.messages(data):
            # What bridges say of their ports has a family of its own, and
            # tells only a part.
            if (message.kind in (rtnetlink.NEW_LINK, rtnetlink.DELETE_LINK)
                    and message.body[:1] == bytes([socket.AF_UNSPEC])):
                yield from _event(message)
    except OSError as error:
        LOG.debug('An event is cut off: %s', error)


def _event(message: rtnetlink.Message) -> typing.Iterator[LinkEvent]:
    try:
        yield LinkEvent(Link.from_message(message.body),
                        message.kind == rtnetlink.DELETE_LINK)
    except (OSError, *session.GARBLED) as error:
        LOG.debug('An event is not understood: %r', error)
