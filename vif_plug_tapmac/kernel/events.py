# SPDX-License-Identifier: Apache-2.0

"""What happens to links, as the kernel tells everybody who listens."""

import dataclasses
import errno
import select
import socket
import types

from vif_plug_tapmac.kernel.link import Link
from vif_plug_tapmac.kernel import rtnetlink

#: In bytes: of what happens while nobody reads, and of one message at most.
_EVENT_BUFFER, _EVENT_SIZE = 4 << 20, 1 << 16
#: Source: include/uapi/linux/rtnetlink.h
_RTMGRP_LINK = 1


@dataclasses.dataclass(frozen=True)
class LinkEvent:
    """A link as it is now, or as it was when it was deleted."""
    link: Link
    deleted: bool


class Overrun(Exception):
    """Events were lost, for the kernel had more than it could keep."""


class LinkEvents:
    """What happens to links, as the kernel tells everybody who listens."""

    def __init__(self) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF,
                                _EVENT_BUFFER)
        self._socket.bind((0, _RTMGRP_LINK))

    def __enter__(self) -> 'LinkEvents':
        return self

    def __exit__(self, exc_type: type[BaseException] | None,
                 exc: BaseException | None,
                 traceback: types.TracebackType | None) -> None:
        self._socket.close()

    def wait(self, seconds: float) -> list[LinkEvent]:
        """Return what comes next, nothing if nothing comes in time.

        :raises Overrun: list the links anew
        """
        if not select.select([self._socket], [], [], seconds)[0]:
            return []
        try:
            data = self._socket.recv(_EVENT_SIZE)
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            raise Overrun()
        # What bridges say of their ports has a family of its own, and tells
        # only a part.
        return [LinkEvent(Link.from_message(message.body),
                          message.kind == rtnetlink.DELETE_LINK)
                for message in rtnetlink.messages(data)
                if message.kind in (rtnetlink.NEW_LINK, rtnetlink.DELETE_LINK)
                and message.body[0] == socket.AF_UNSPEC]
