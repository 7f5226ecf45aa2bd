# SPDX-License-Identifier: Apache-2.0

"""A conversation with nf_tables that goes on from one call to the next.

Who closes one waits until what was deleted is freed, as long as an unplug
takes. It is of one network namespace, which is there as long as there is a
session with it, and of one process, who has a session for itself.
Source: net/netfilter/nf_tables_api.c, nft_rcv_nl_event
"""

import errno
import os
import threading
import time
import typing

from vif_plug_tapmac import exception
from vif_plug_tapmac.kernel import nft

# How the kernel says that what was looked at is not there any more, or there
# by now, or used.
OVERTAKEN = errno.ENOENT, errno.EEXIST, errno.EBUSY
#: For how long others may change rules while we do, and how long we leave
#: these to them, in seconds.
GIVES_UP_AFTER, PAUSE = 30.0, 0.005
#: How often in a row the same may be planned though nobody interfered.
_ROUNDS = 3
#: How often what was planned is left to a time in which no one else changes
#: any rule of this host, which may never come.
_WAITS_FOR_QUIET = 5
#: What says in which network namespace a thread is.
_NAMESPACE = '/proc/thread-self/ns/net'


def where() -> tuple[int, int]:
    """Return in which process and network namespace this thread is."""
    try:
        return os.getpid(), os.stat(_NAMESPACE).st_ino
    except OSError as error:
        raise exception.KernelRefused.from_errno(
            _NAMESPACE, 'looking it up', error.errno or errno.EIO)


class LastingSession:
    """The session with the namespace that this thread is in.

    :ivar lock: for whoever has it, one thread at a time: what the kernel
        answers to one another would read
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._place: tuple[int, int] | None = None
        self._session: nft.Session | None = None

    def get(self) -> tuple[nft.Session, bool]:
        """Return it, and whether it is another one than the last time.

        Then what is known is of somewhere else.
        """
        place = where()
        if self._session is not None and place == self._place:
            return self._session, False
        former, self._session = self._session, nft.Session()
        self._place = place
        if former is not None:
            former.__exit__(None, None, None)
        return self._session, True

    def settle(self, step: str, plan: typing.Callable[
            [nft.Session], list[nft.Step]]) -> bool:
        """Do what is planned, and plan anew until nothing is to be done.

        Each time in one transaction, on condition that nobody has changed
        rules since they were looked at. So what was done is looked at, too.
        Where others change rules all the time that condition is dropped: what
        does not fit what is there by then is refused as a whole, and what is
        not as it is to be after that is planned again. But for who makes the
        table: what others put into the former one is not to be lost. Other
        threads wait meanwhile.

        :param step: for errors
        :returns: whether anything had to be done
        :raises KernelRefused: the rules are as they were
        :raises VerifyFailed: they are not as they are to be after that, or
            others change rules all the time
        """
        with self.lock:
            return self._settle(step, plan)

    def _settle(self, step: str, plan: typing.Callable[
            [nft.Session], list[nft.Step]]) -> bool:
        deadline, tries = time.monotonic() + GIVES_UP_AFTER, 0
        overtaken = 0
        while True:
            session, _ = self.get()
            generation = session.generation()
            steps = plan(session)
            if not steps:
                return tries > 0
            refusal = None
            try:
                waits = overtaken < _WAITS_FOR_QUIET or any(
                    kind == nft.NEW_TABLE for kind, _, _ in steps)
                done = session.transact(step, steps,
                                        generation if waits else None)
                tries += done
                overtaken += not done
            except exception.KernelRefused as error:
                if error.kwargs.get('code') not in OVERTAKEN or (
                        session.generation() == generation):
                    raise
                refusal = error
                time.sleep(PAUSE)
            if tries >= _ROUNDS or time.monotonic() > deadline:
                raise refusal or exception.VerifyFailed(
                    device='nftables', differences='rules are changed all the '
                    'time ("nft monitor" tells by whom)')
