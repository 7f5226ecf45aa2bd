# SPDX-License-Identifier: Apache-2.0

"""Which TAPs of ours are here, as the kernel tells everybody who listens.

And which ends of interfaces of DHCP and L3 agents.
"""

import dataclasses
import logging
import threading
import time
import typing

from vif_plug_tapmac.agent.dirty import Batch
from vif_plug_tapmac.agent.dirty import Dirty
from vif_plug_tapmac import exception
from vif_plug_tapmac.kernel import events
from vif_plug_tapmac.kernel.link import Link
from vif_plug_tapmac.kernel import netlink as nl
from vif_plug_tapmac import mark
from vif_plug_tapmac.wanted.port import Groups

LOG = logging.getLogger(__name__)

#: In seconds: how long it waits for an event, and before it lists links again
#: after the kernel refused.
_WAIT, _PAUSE = 60.0, 1.0


@dataclasses.dataclass(frozen=True)
class Tap:
    """A TAP of ours.

    :param index: of the link
    :param master: that of its bridge, None if it is on none
    :param is_interface: whether it is none, but the host's end of an
        interface of a DHCP or L3 agent
    """
    vif_id: str
    index: int
    name: str
    master: int | None
    is_interface: bool = False


class Taps:
    """Those that are here, by all that was told so far.

    :param groups: the link groups that they are in
    :param dirty: is told which ports have a TAP, have it no more, or have it
        on another bridge, since they were listed first
    """

    def __init__(self, groups: Groups, dirty: Dirty) -> None:
        self._groups, self._dirty = groups, dirty
        self._lock = threading.Lock()
        self._taps: dict[int, Tap] = {}
        self._listed = threading.Event()

    def start(self) -> None:
        """Listen from now on; return when all is known that was there."""
        threading.Thread(name='tapmac_taps', target=self._listen,
                         daemon=True).start()
        self._listed.wait()

    def here(self) -> dict[str, Tap]:
        """Return them by their VIFs."""
        with self._lock:
            # Of two the younger one, as a name may have changed hands.
            return {self._taps[index].vif_id: self._taps[index]
                    for index in sorted(self._taps)}

    def guarded(self, taps: typing.Iterable[Tap]) -> dict[Tap, bool | None]:
        """Return whether nothing passes each but what the agent says.

        As the kernel has it now. None: it is not here any more.
        """
        with nl.Netlink() as netlink:
            links = {tap: netlink.get(tap.index) for tap in taps}
        return {tap: (None if link is None or self._read(link) != tap
                      else link.group == self._groups.agent)
                for tap, link in links.items()}

    def _listen(self) -> None:
        while True:
            try:
                with events.LinkEvents() as told:
                    self._list()
                    while True:
                        for event in told.wait(_WAIT):
                            self._take(event)
            except events.Overrun:
                LOG.debug('Events of links were lost; they are listed anew')
            except (exception.TapMacError, OSError) as error:
                LOG.warning('Links can not be listed: %s. What was seen until '
                            'now stands; tried again in %g s', error, _PAUSE)
                time.sleep(_PAUSE)

    def _list(self) -> None:
        with nl.Netlink() as netlink:
            links = netlink.links()
        with self._lock:
            for index in self._taps.keys() - {each.index for each in links}:
                self._set(index, None)
            for link in links:
                self._see(link)
        self._listed.set()

    def _take(self, event: events.LinkEvent) -> None:
        with self._lock:
            if event.deleted:
                self._set(event.link.index, None)
            else:
                self._see(event.link)

    def _see(self, link: Link) -> None:
        found = self._read(link)
        if found is not None:
            self._set(link.index, found)

    def _read(self, link: Link) -> Tap | None:
        """Return what a link is for us; None for what is of no concern.

        That is so, too, for a TAP whose mark somebody has overwritten, or
        whose deletion has begun: what was known of it stays, until it is gone.
        """
        its = mark.InterfaceMark.parse(link.alias)
        if its is not None and mark.is_interface(link):
            return Tap(its.port_id, link.index, link.name, link.master, True)
        found = mark.TapMark.parse(link.alias)
        if (found is None or not link.is_tap or link.group not in self._groups
                or link.lost_name is not None):
            return None
        return Tap(found.vif_id, link.index, link.name, link.master)

    def _set(self, index: int, new: Tap | None) -> None:
        old = self._taps.pop(index, None)
        if new is not None:
            self._taps[index] = new
        if new == old or not self._listed.is_set():
            return
        self._dirty.add(Batch(
            ports=frozenset({new.vif_id} if new else ()),
            lost=frozenset({old.vif_id} if old and (
                new is None or old.vif_id != new.vif_id) else ())))
