# SPDX-License-Identifier: Apache-2.0

"""Hearing what others do to what an agent has said, and undoing that.

A thread of the process that did what the agent said: it remembers all of it.
When somebody flushes the rules, or takes a part of ours away, it looks, and
has what is missing there again in one transaction. What others may do there,
as a plug does and an unplug, is left as it is: it is not what an agent said.

When that process ends, as it does with its agent, nothing is undone any more.
"""

import collections
import logging
import threading
import time
import typing

from vif_plug_tapmac import exception
from vif_plug_tapmac.kernel import agent_conntrack
from vif_plug_tapmac.kernel import agent_elements
from vif_plug_tapmac.kernel import agent_filter
from vif_plug_tapmac.kernel import events
from vif_plug_tapmac.kernel import exit_rules
from vif_plug_tapmac.kernel import filter_steps
from vif_plug_tapmac.kernel import filter_table as table
from vif_plug_tapmac.kernel import lasting_session
from vif_plug_tapmac.kernel import nft
from vif_plug_tapmac.kernel import nft_events
from vif_plug_tapmac.kernel.nft_events import Event

LOG = logging.getLogger(__name__)

#: Sets, and a chain, in which others have what they like.
_OF_NO_CONCERN = (table.DROPS, table.LOGGED, table.LOG,
                  agent_conntrack.COUNTED)
#: Sets of what is not an agent's, but goes with the table.
_OF_OTHERS = (table.SHIELDED, table.SHIELDS, exit_rules.PORTS,
              exit_rules.HOST)
#: In seconds: until it is tried again; how often all is looked at that others
#: have, if they change it; and until it is seen that another thread does all
#: this.
_TRIES_AGAIN_AFTER, _LOOKS_EVERY, _ENDS_WITHIN = 1.0, 0.5, 60.0
#: How often within how many seconds what others do to a table that is there is
#: undone at once: two who want something else would do nothing but that.
_AT_ONCE, _WITHIN = 20, 10.0

_healer: '_Healer | None' = None


def start() -> None:
    """Hear what others do, if this process does not yet.

    Where nobody may listen that is an error in the log, and all.
    """
    global _healer
    with agent_filter.sessions.lock:
        place = lasting_session.where()
        if _healer is None or _healer.place != place:
            try:
                _healer = _Healer(place)
            except OSError as error:
                LOG.error('What others do to the table bridge %s is not '
                          'heard, and not undone: %s. Remedy: give this '
                          'process CAP_NET_ADMIN.', table.NAME, error)
            else:
                _healer.start()


class _Healer(threading.Thread):
    """Hears what happens in the namespace of the thread that makes it.

    :ivar place: which one that is
    """

    def __init__(self, place: tuple[int, int]) -> None:
        super().__init__(name='tapmac_healing', daemon=True)
        self.place = place
        self._events = nft_events.TableEvents(table.NAME)
        self._mended: typing.Deque[float] = collections.deque(maxlen=_AT_ONCE)
        # What is to be done: whether all has to be looked at, or which TAPs;
        # and whether what is of others.
        self._all = False
        self._indexes: set[int] = set()
        self._others, self._looked_at = True, -_LOOKS_EVERY

    def run(self) -> None:
        with self._events:
            while _healer is self:
                try:
                    self._hear()
                except exception.TapMacError as error:
                    LOG.error('Others have changed the table bridge %s, and '
                              'it is not yet as the agent wants it: %s',
                              table.NAME, error)
                    self._rest()
                except Exception:
                    LOG.exception('What others do to the table bridge %s is '
                                  'not undone', table.NAME)
                    time.sleep(_TRIES_AGAIN_AFTER)

    def _hear(self) -> None:
        found = self._wait()
        with agent_filter.sessions.lock:
            if _healer is not self:
                return
            self._note(found)
            mends = (self._all or bool(self._indexes)) and self._mend()
            if self._others:
                is_time = (time.monotonic() >= self._looked_at + _LOOKS_EVERY)
                agent_filter.look(at_ports=is_time)
                self._others = not is_time
                if is_time:
                    self._looked_at = time.monotonic()
        if mends:
            self._rest()

    def _wait(self) -> list[Event]:
        """Return all that has happened until now; nothing after a while."""
        seconds = (_TRIES_AGAIN_AFTER if self._all or self._indexes
                   else _LOOKS_EVERY if self._others else _ENDS_WITHIN)
        return list(self._read(seconds))

    def _catch_up(self) -> None:
        """Remember what had happened before the table was found gone."""
        self._note(list(self._read(0)))

    def _read(self, seconds: float) -> typing.Iterator[Event]:
        try:
            while (more := self._events.wait(seconds)) is not None:
                yield from more
                seconds = 0
        except events.Overrun as lost:
            self._all = self._others = True
            yield from lost.kept

    def _note(self, found: typing.Iterable[Event]) -> None:
        """Remember of what has happened what there is to be done."""
        own, known = agent_filter.port(), agent_filter.indexes()
        for each in found:
            if each.port == own or each.name in _OF_NO_CONCERN:
                continue
            if each.kind == nft_events.ELEMENTS:
                agent_filter.hear_exit(each.name, each.elements, each.is_gone)
            self._others |= (each.kind == nft_events.TABLE
                             or each.name in _OF_OTHERS)
            if (each.kind != nft_events.ELEMENTS
                    or each.name not in agent_elements.NAMES):
                self._all |= each.name not in _OF_OTHERS
                continue
            indexes = {int.from_bytes(element.key[:4], nft.BYTE_ORDER)
                       for element in each.elements}
            self._all |= filter_steps.CANARY in indexes
            self._others |= not indexes <= known
            self._indexes |= indexes & known

    def _mend(self) -> bool:
        """Undo it; return whether the table was there, and is another now."""
        started = time.monotonic()
        was_there = agent_filter.has_table()
        indexes = None if self._all else frozenset(self._indexes)
        did = agent_filter.heal(indexes, self._catch_up)
        if indexes is None:
            # What was heard meanwhile had happened before it was looked at.
            self._all, self._indexes = False, set()
        else:
            self._indexes -= indexes
        if not did:
            return False
        LOG.warning('%s has changed what the agent had in the table bridge '
                    '%s; it is there again after %d ms', self._events.by_whom
                    or 'Somebody', table.NAME,
                    1000 * (time.monotonic() - started))
        return was_there

    def _rest(self) -> None:
        """Have others do what they want for a while, if this is often."""
        now = time.monotonic()
        self._mended.append(now)
        if len(self._mended) == _AT_ONCE and now - self._mended[0] < _WITHIN:
            LOG.error('The table bridge %s was changed %d times in %g s, and '
                      'is not mended for %g s. Remedy: see that there is one '
                      'agent only on this host; "nft monitor" tells what '
                      'others do.', table.NAME, _AT_ONCE,
                      now - self._mended[0], _TRIES_AGAIN_AFTER)
            time.sleep(_TRIES_AGAIN_AFTER)
