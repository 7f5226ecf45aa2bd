# SPDX-License-Identifier: Apache-2.0

"""What happens to TAPs and bridges, event by event.

An event costs the same however many links there are, and each is told by
itself: two that come at once, as of a guest that opens its TAP and closes it,
are two. What events do not tell, a look at the whole host does.
"""

import typing

from vif_plug_tapmac.host.inventory import Inventory
from vif_plug_tapmac.kernel.events import LinkEvent
from vif_plug_tapmac.kernel.link import Link
from vif_plug_tapmac.kernel import making
from vif_plug_tapmac import mark

#: What happened: in a word, to which device, and details.
Happening = tuple[str, str, str]
Happenings = typing.Iterator[Happening]


class Following:
    """A host as it is by the last look and all events since.

    :param seen: how it is to begin with
    """

    def __init__(self, seen: Inventory) -> None:
        self._seen = seen
        self._links = dict(seen.links)
        self._bridges = {bridge.index for bridge in seen.bridges}
        self._told = {index for index, link in seen.links.items()
                      if self._concerns(link)}

    @property
    def seen(self) -> Inventory:
        """All that is known now."""
        return self._seen.with_links(dict(self._links))

    def event(self, event: LinkEvent) -> Happenings:
        """Yield what happened by an event."""
        yield from self._set(event.link.index,
                             None if event.deleted else event.link)

    def look(self, seen: Inventory, newer: set[int]) -> Happenings:
        """Yield what events did not tell, by a look at the whole host.

        :param newer: indices of the links that events told of since the look
            began: these are right, and what was seen may be older
        """
        links = {index: link for index, link in seen.links.items()
                 if index not in newer}
        links.update((index, self._links[index]) for index in newer
                     if index in self._links)
        self._seen = seen.with_links(links)
        self._bridges = {bridge.index for bridge in self._seen.bridges}
        for index in sorted(links.keys() | self._links.keys()):
            yield from self._set(index, links.get(index))

    def _set(self, index: int, new: Link | None) -> Happenings:
        old = self._links.pop(index, None)
        before = old if index in self._told else None
        now = new if new is not None and self._concerns(new) else None
        if new is not None:
            self._links[index] = new
        else:
            self._bridges.discard(index)
        if now is not None:
            self._told.add(index)
            yield from self._bridge_of(now)
        else:
            self._told.discard(index)
        link = now or before
        for event, details in self._changes(before, now):
            assert link is not None
            yield event, link.name, details

    def _bridge_of(self, link: Link) -> Happenings:
        """Yield that a bridge concerns us now, by its first TAP of ours."""
        if link.kind == 'bridge':
            self._bridges.add(link.index)
        elif (link.master is not None and link.master not in self._bridges
              and link.master in self._links):
            self._bridges.add(link.master)
            yield from self._set(link.master, self._links[link.master])

    def _concerns(self, link: Link) -> bool:
        """Return whether the link is one that an inventory would have."""
        if link.kind == 'bridge':
            return (link.index in self._bridges or self._seen.is_ours(link)
                    or self._seen.uplinks is not None
                    and link.name in self._seen.uplinks.uplinks)
        return (link.is_tap and not making.is_being_made(link)
                and (mark.TapMark.parse(link.alias) is not None
                     or mark.is_lost(link, self._seen.groups)
                     or link.master in self._bridges))

    def _changes(self, old: Link | None, new: Link | None,
                 ) -> typing.Iterator[tuple[str, str]]:
        """Yield each event, in a word, with details."""
        link = new or old
        if old is None or new is None:
            if link is not None:
                yield (('plug' if new else 'unplug') if link.is_tap
                       else ('bridge' if new else 'removed'),
                       'MAC %s%s' % (link.mac, self._on(link)))
            return
        if old.mac != new.mac:
            yield 'MAC', '%s, was %s' % (new.mac, old.mac)
        if old.master != new.master:
            yield ('join' if new.master else 'leave',
                   'now%s, was%s' % (self._on(new) or ' on no bridge',
                                     self._on(old) or ' on no bridge'))
        if old.mtu != new.mtu:
            yield 'MTU', '%d, was %d' % (new.mtu, old.mtu)
        if old.up != new.up:
            yield ('up' if new.up else 'down'), ''
        if old.held != new.held:
            yield (('held', 'a guest has it') if new.held
                   else ('released', 'no guest has it any more'))

    def _on(self, link: Link) -> str:
        bridge = self._links.get(link.master or 0)
        return ' on %s' % bridge.name if bridge else ''
