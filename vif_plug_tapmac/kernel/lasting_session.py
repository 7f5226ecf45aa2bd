# SPDX-License-Identifier: Apache-2.0

"""A conversation with nf_tables that goes on from one call to the next.

Who closes one waits until what was deleted is freed, as long as an unplug
takes. It is of one network namespace, which is there as long as there is a
session with it, and of one process, who has a session for itself.
Source: net/netfilter/nf_tables_api.c, nft_rcv_nl_event
"""

import errno
import os

from vif_plug_tapmac import exception
from vif_plug_tapmac.kernel import nft

#: What says in which network namespace a thread is.
_NAMESPACE = '/proc/thread-self/ns/net'


class LastingSession:
    """The session with the namespace that this thread is in."""

    def __init__(self) -> None:
        self._place: tuple[int, int] | None = None
        self._session: nft.Session | None = None

    def get(self) -> tuple[nft.Session, bool]:
        """Return it, and whether it is another one than the last time.

        Then what is known is of somewhere else.
        """
        try:
            place = os.getpid(), os.stat(_NAMESPACE).st_ino
        except OSError as error:
            raise exception.KernelRefused.from_errno(
                _NAMESPACE, 'looking it up', error.errno or errno.EIO)
        if self._session is not None and place == self._place:
            return self._session, False
        former, self._session = self._session, nft.Session()
        self._place = place
        if former is not None:
            former.__exit__(None, None, None)
        return self._session, True
