# SPDX-License-Identifier: Apache-2.0

"""Guests that send each other numbered frames, steadily, and count them."""

import contextlib
import re
import select
import threading
import time
import typing

from tests import hosts
from tests import patience

_NUMBER = re.compile(rb'number (\d+)\.')
#: Between two frames of a guest, in seconds.
_PAUSE = 0.01


class Traffic:
    """Each of these guests sends to the next one, and the last to the first.

    One thread does all, so no queue on the way is ever full.

    :param rings: guests that reach each other, each ring for itself
    """

    def __init__(self, *rings: typing.Sequence[hosts.Guest]) -> None:
        self._next = {sender: receiver for ring in rings for sender, receiver
                      in zip(ring, [*ring[1:], ring[0]])}
        self._sent = 0
        #: Those that nobody has to get.
        self._excused: set[int] = set()
        #: When each was sent.
        self._times: list[float] = []
        self._got: dict[hosts.Guest, set[int]] = {
            guest: set() for guest in self._next}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __enter__(self) -> 'Traffic':
        return self

    def __exit__(self, *exc_info: typing.Any) -> None:
        self._stop.set()
        self._thread.join()

    @contextlib.contextmanager
    def held(self) -> typing.Iterator[None]:
        """Have none under way; those that were have come, or never will."""
        with self._lock:
            self._send()
            last = self._sent
            deadline = time.monotonic() + patience.HANG
            while any(max(got, default=0) < last
                      for got in self._got.values()):
                assert time.monotonic() < deadline, self.lost()
                self._send()
                self._listen()
            yield

    @contextlib.contextmanager
    def interrupted(self) -> typing.Iterator[None]:
        """Be in what may lose frames: those that are sent meanwhile.

        It ends when each guest gets frames again, and is heard.
        """
        with self.held():
            first = self._sent + 1
        yield
        with self.held():
            self._excused.update(range(first, self._sent))

    def lost(self) -> dict[str, list[int]]:
        """Return what never came, by the MAC of whom it was for.

        Without what was lost in :meth:`interrupted`. To be asked for where
        none is under way.
        """
        return {guest.mac or '': missing for guest, got in self._got.items()
                if (missing := sorted(
                    set(range(1, max(got, default=self._sent)))
                    - got - self._excused))}

    def silence(self) -> float:
        """Return for how many seconds a guest got nothing, at the most.

        From when the first frame was sent that is lost until when the next one
        was that is not; 0 if none is. To be asked for as :meth:`lost`.
        """
        longest = 0.0
        for missing in self.lost().values():
            for first in missing:
                after = first
                while after in missing:
                    after += 1
                longest = max(longest, (self._times[after - 1]
                                        - self._times[first - 1]))
        return longest

    def sent(self) -> int:
        """Return how many frames each guest has sent."""
        return self._sent

    def _run(self) -> None:
        while not self._stop.is_set():
            with self._lock:
                self._send()
                self._listen()
            # Who waits for the lock gets it.
            time.sleep(_PAUSE / 10)

    def _send(self) -> None:
        self._sent += 1
        self._times.append(time.monotonic())
        for sender, receiver in self._next.items():
            assert receiver.mac is not None
            sender.send(receiver.mac, b'number %d.' % self._sent)

    def _listen(self) -> None:
        by_descriptor = {guest.descriptor: guest for guest in self._next}
        deadline = time.monotonic() + _PAUSE
        while ready := select.select(list(by_descriptor), [], [], max(
                0, deadline - time.monotonic()))[0]:
            for guest in map(by_descriptor.__getitem__, ready):
                for frame in guest.waiting():
                    # What floods to others is not theirs.
                    found = _NUMBER.search(frame)
                    if found and frame[:6].hex(':') == guest.mac:
                        self._got[guest].add(int(found[1]))
