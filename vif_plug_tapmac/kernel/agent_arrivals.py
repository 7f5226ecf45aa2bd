# SPDX-License-Identifier: Apache-2.0

"""Locking a guest that arrives by live migration as soon as it is heard.

While it speaks elsewhere its port is not locked, but kept to its MAC by a
filter: see guard.py. When the bridge has heard it on its own TAP, the kernel
tells that, and a thread of the process that does what the agent says locks its
port, and takes the filter away. What is heard on other ports wakes nobody.

When that process ends, the next one does it when it is told of the port.
"""

import logging
import threading

from vif_plug_tapmac import exception
from vif_plug_tapmac.kernel import agent_guard
from vif_plug_tapmac.kernel import events
from vif_plug_tapmac.kernel import lasting_session
from vif_plug_tapmac.kernel.link import Link
from vif_plug_tapmac.kernel import netlink as nl

LOG = logging.getLogger(__name__)

#: In seconds: until what the kernel refused is tried again, and until it is
#: seen that another thread does all this.
_TRIES_AGAIN_AFTER, _ENDS_WITHIN = 1.0, 60.0

#: For whoever changes what such a port is kept to.
_lock = threading.Lock()
_listener: '_Listener | None' = None


def have(netlink: nl.Netlink, link: Link, kept: agent_guard.Kept) -> None:
    """Have a port kept to this, now or when its guest has arrived.

    :param link: as for :func:`agent_guard.have`, which may raise, too
    """
    with _lock:
        if agent_guard.have(netlink, link, kept):
            listener = _listening()
            if listener is not None:
                listener.expect(link)
                # It may have been heard before anybody listened.
                listener.look(netlink, link.index)
        elif _listener is not None:
            _listener.forget(link.index)


def _listening() -> '_Listener | None':
    """Return who listens where this thread is; None: nobody can."""
    global _listener
    place = lasting_session.where()
    if _listener is None or _listener.place != place:
        try:
            _listener = _Listener(place)
        except OSError as error:
            LOG.error('Guests that arrive by live migration are not locked '
                      'before the agent looks at their ports again, because '
                      'what bridges hear is not told: %s. Remedy: start the '
                      'agent again.', error)
            return None
        _listener.start()
    return _listener


class _Listener(threading.Thread):
    """Hears bridges in the namespace of the thread that makes it.

    All but :meth:`run` is for who has the lock.

    :ivar place: which one that is
    """

    def __init__(self, place: tuple[int, int]) -> None:
        super().__init__(name='tapmac_arrivals', daemon=True)
        self.place = place
        self._events = events.HeardEvents()
        # The link group in which each is expected, by the index of its TAP.
        self._expected: dict[int, int | None] = {}
        self._refused: set[int] = set()

    def expect(self, link: Link) -> None:
        """Have a port locked when its guest is heard there."""
        self._expected[link.index] = link.group
        self._events.only(self._expected)

    def forget(self, index: int) -> None:
        """Leave a port as it is, from now on."""
        self._refused.discard(index)
        if index in self._expected:
            del self._expected[index]
            self._events.only(self._expected)

    def look(self, netlink: nl.Netlink, index: int) -> None:
        """Lock a port that is expected, if its guest is here.

        That is seen in the FDB, whatever MAC was heard.
        """
        link = netlink.get(index)
        if link is None or link.group != self._expected.get(index):
            self.forget(index)  # It is gone, or somebody else's by now.
        elif not agent_guard.have(netlink, link, agent_guard.LOCKED):
            self.forget(index)
            LOG.info('%s: its guest has arrived, and its port is locked',
                     link.name)

    def run(self) -> None:
        with self._events:
            while _listener is self:
                heard = self._hear()
                with _lock, nl.Netlink() as netlink:
                    for index in self._expected.keys() & heard:
                        self._try(netlink, index)

    def _hear(self) -> set[int]:
        """Return on which ports something was heard; none after a while."""
        try:
            return self._refused | self._events.wait(
                _TRIES_AGAIN_AFTER if self._refused else _ENDS_WITHIN)
        except events.Overrun:
            return set(self._expected)

    def _try(self, netlink: nl.Netlink, index: int) -> None:
        try:
            self.look(netlink, index)
        except exception.TapMacError as error:
            if index not in self._refused:
                LOG.error('A guest has arrived by live migration, and its '
                          'port is not locked yet: %s', error)
            self._refused.add(index)
        else:
            self._refused.discard(index)
