# SPDX-License-Identifier: Apache-2.0

"""Asking the kernel by netlink, for the time of one operation.

The only module that translates what netlink refuses.
"""

import contextlib
import errno
import logging
import socket
import struct
import time
import types
import typing

from vif_plug_tapmac import exception
from vif_plug_tapmac.kernel import rtnetlink

LOG = logging.getLogger(__name__)

#: For how long, in seconds, a list is asked for that others change meanwhile.
_LISTS_WITHIN = 10.0
#: What comes of an answer that is cut off, or not to be understood.
GARBLED = (struct.error, AttributeError, LookupError, TypeError, ValueError)

_T = typing.TypeVar('_T')
_SessionT = typing.TypeVar('_SessionT', bound='Session')


class Session:
    """A netlink socket. What goes wrong is a KernelRefused, in bounded time.

    In all that is asked for, ``device`` is what it concerns, and ``step`` what
    it is, for the error.
    """

    PROTOCOL = socket.NETLINK_ROUTE

    def __init__(self) -> None:
        try:
            self._socket = rtnetlink.Socket(self.PROTOCOL)
        except OSError as error:
            raise exception.KernelRefused.from_errno(
                'netlink', 'opening a socket', error.errno or errno.EIO)

    def __enter__(self: _SessionT) -> _SessionT:
        return self

    def __exit__(self, exc_type: type[BaseException] | None,
                 exc: BaseException | None,
                 traceback: types.TracebackType | None) -> None:
        # Whatever this says, the kernel has closed it.
        with contextlib.suppress(OSError):
            self._socket.close()

    @property
    def port(self) -> int:
        """The number that the kernel calls its socket by, once it was used."""
        return self._socket.port

    def set(self, device: str, step: str, kind: int, body: bytes,
            flags: int = 0, tolerated: int | None = None) -> bool:
        """Have something done.

        :returns: False if the kernel refuses with the errno ``tolerated``
        """
        return self._request(
            device, step, self._socket.set, kind, body, flags,
            tolerated=tolerated, decode=lambda _: True) is not None

    def ask(self, device: str, step: str, kind: int, body: bytes,
            answer: int, decode: typing.Callable[[bytes], _T],
            tolerated: int | None = None) -> _T | None:
        """Return what the one message says that answers.

        :param answer: the type that it has
        :returns: None if the kernel refuses with the errno ``tolerated``
        """
        found: _T | None = self._request(
            device, step, self._socket.get, kind, body, answer,
            tolerated=tolerated, decode=decode)
        return found

    def list(self, device: str, step: str, kind: int, body: bytes,
             decode: typing.Callable[[bytes], _T],
             tolerated: int | None = None) -> typing.List[_T]:
        """Return a whole list, also where it changes meanwhile.

        :returns: nothing if the kernel refuses with the errno ``tolerated``
        """
        deadline = time.monotonic() + _LISTS_WITHIN
        while True:
            with contextlib.suppress(rtnetlink.Interrupted):
                return self._request(
                    device, step, self._socket.dump, kind, body,
                    tolerated=tolerated, decode=lambda bodies: [
                        decode(each) for each in bodies]) or []
            if time.monotonic() >= deadline:
                raise exception.KernelRefused(
                    device=device, step=step, code=errno.EINTR,
                    error='EINTR (in %g s the list was never whole before it '
                    'changed)' % _LISTS_WITHIN,
                    remedy='find who makes and removes links or entries all '
                    'the time ("ip monitor all"), and try again')

    def some(self, device: str, step: str, kind: int, body: bytes,
             decode: typing.Callable[[bytes], _T],
             seconds: float) -> typing.Iterator[_T]:
        """Yield of a list what comes within this time, as it comes.

        Nothing else is to be asked in this session: the list may have more.
        """
        deadline = time.monotonic() + seconds
        found = self._socket.each(kind, body)
        while time.monotonic() < deadline:
            message = self._request(device, step, next, found, None)
            if message is None:
                return
            yield self._request(device, step, decode, message)

    def _request(self, device: str, step: str,
                 function: typing.Callable[..., typing.Any],
                 *arguments: typing.Any, tolerated: int | None = None,
                 decode: typing.Callable[[typing.Any], typing.Any]
                 = lambda answer: answer) -> typing.Any:
        """Return the kernel's answer, None if it refuses with this errno.

        :raises KernelRefused: it refuses with another; EBADMSG where nobody
            understands its answer
        """
        try:
            return decode(function(*arguments))
        except (OSError, *GARBLED) as error:
            code = _errno_of(error, device, step)
            words = getattr(error, 'words', None)
        if code == tolerated:
            return None
        raise exception.KernelRefused.from_errno(device, step, code, words)


def _errno_of(error: Exception, device: str, step: str) -> int:
    """Return the errno that says what went wrong on the way."""
    if isinstance(error, OSError):
        return error.errno or errno.ETIMEDOUT
    LOG.debug('%s: %s: not understood: %r', device, step, error)
    return errno.EBADMSG
