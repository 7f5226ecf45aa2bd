# SPDX-License-Identifier: Apache-2.0

"""Where frames come out, on two hosts that are alike but for their filter.

On each there is a bridge with the TAPs of guests, which we hold, and one more
TAP that is its way to the wire. The bridges learn nothing and have an entry
for each MAC that somebody has, so that a frame goes where its destination is
whatever was sent before it.
"""

import collections
import contextlib
import dataclasses
import itertools
import socket
import struct
import typing

from tests import hosts
from tests.oracle import frames
from tests.oracle import worlds
from vif_plug_tapmac.kernel import netlink as nl
from vif_plug_tapmac.kernel import rtnetlink
from vif_plug_tapmac.kernel import source_filter

#: How much of a frame came out at each place, by the names of TAPs: 1, or how
#: many of its fragments.
Seen = dict[str, int]

#: How many frames are on their way at once: fewer than a TAP's queue takes.
_AT_ONCE = 100
_NUD_NOARP, _NTF_MASTER = 0x40, 0x04
_NETLINK_NETFILTER = 12
#: Deletes connections: all, if it does not say which.
#: Source: linux/netfilter/nfnetlink_conntrack.h
_CT_DELETE = 1 << 8 | 2

#: The TAPs, each with the MACs that are there.
PLACES = {
    **{worlds.device(number): (worlds.mac(number), worlds.virtual(number))
       for number in range(worlds.HERE)},
    frames.WIRE: (frames.GATEWAY, *(
        each for number in range(worlds.HERE, worlds.HERE + worlds.ELSEWHERE)
        for each in (worlds.mac(number), worlds.virtual(number))))}


class Side:
    """One of the two hosts.

    :param bridge: the name of one that is there, with the TAPs or without
    """

    def __init__(self, host: hosts.Host, bridge: str,
                 closing: contextlib.ExitStack) -> None:
        self.host = host
        self._bridge = bridge
        with host.here():
            self._guests = {name: closing.enter_context(self._join(name))
                            for name in PLACES}
            self.settle()
            self._conntrack = rtnetlink.Socket(_NETLINK_NETFILTER)
        closing.callback(self._conntrack.close)

    def _join(self, name: str) -> hosts.Guest:
        if self.host.find(name) is None:
            self.host.add_tap(name)
            self.host.quiet_ipv6(name)
            self.host.set(name, state='up',
                          master=self.host.link(self._bridge).index)
        return hosts.Guest(name)

    def settle(self) -> None:
        """Have each MAC where it is, whatever the guests say.

        Nor does a lock, or what is on a TAP, keep a guest to its MACs: the
        rules are to do that.
        """
        for name, macs in PLACES.items():
            self.host.wait_until_forwarding(name)
            link = self.host.link(name)
            hosts.set_port_options(link.index, LEARNING=0, LOCKED=0)
            with nl.Netlink() as netlink:
                source_filter.remove(netlink, link)
            for mac in macs:
                self.host.ip.fdb('replace', ifindex=link.index, lladdr=mac,
                                 state=_NUD_NOARP, flags=_NTF_MASTER)

    def forget(self) -> None:
        """Have no connection any more: the next frame of each is its first."""
        self._conntrack.set(_CT_DELETE, struct.pack(
            '>BBH', socket.AF_UNSPEC, 0, 0))

    def send(self, batch: typing.Iterable[frames.Frame]) -> dict[int, Seen]:
        """Return where each of them came out, by their numbers.

        Whoever writes a frame to a TAP has it where it goes when he returns.
        """
        self.forget()
        seen: dict[int, collections.Counter[str]] = {}
        for frame in batch:
            seen[frame.number] = collections.Counter()
            for octets in frame.octets:
                self._guests[frame.sender].write(octets)
        for place, guest in self._guests.items():
            for octets in guest.waiting():
                number = frames.number_of(octets)
                if number in seen:
                    # Fragments may have been put together for good.
                    seen[number][place] += octets.count(frames.mark(number))
        return {number: dict(counted) for number, counted in seen.items()}


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What became of a frame at a place.

    :param place: name of a TAP that is not the sender's
    :param theirs: how much of it came out there on the one host
    :param ours: and on the other
    """
    frame: frames.Frame
    place: str
    theirs: int
    ours: int

    def __str__(self) -> str:
        return '%s; at %s theirs %d, ours %d' % (
            self.frame, self.place, self.theirs, self.ours)


def verdicts(theirs: Side, ours: Side, made: typing.Iterable[frames.Frame],
             ) -> typing.Iterator[Verdict]:
    """Send frames on both hosts; yield what became of each, at each place."""
    for batch in _batches(made):
        seen = theirs.send(batch), ours.send(batch)
        for frame, place in itertools.product(batch, PLACES):
            if place != frame.sender:
                yield Verdict(frame, place, *(
                    each[frame.number].get(place, 0) for each in seen))


def _batches(made: typing.Iterable[frames.Frame],
             ) -> typing.Iterator[list[frames.Frame]]:
    """Yield frames in the same order, none of which answers another."""
    batch: list[frames.Frame] = []
    spoken: set[tuple[str, str]] = set()
    for frame in made:
        pair = frame.endpoints()
        if (len(batch) == _AT_ONCE or pair and pair[::-1] in spoken
                or frame.kind == 'error'):
            yield batch
            batch, spoken = [], set()
        batch.append(frame)
        if pair:
            spoken.add(pair)
    yield batch
