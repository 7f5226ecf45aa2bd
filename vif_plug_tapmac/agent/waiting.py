# SPDX-License-Identifier: Apache-2.0

"""What has to be tried again, after pauses that grow."""

import random
import time
import typing

#: In seconds: the first pause before something is tried again, and the longest
#: of all ports, and of one. Each is twice as long as the one before.
FIRST_PAUSE, LONGEST_PAUSE, LONGEST_OF_ONE = 1.0, 10.0, 60.0


class Waiting(typing.NamedTuple):
    """A port that is not as it is to be, or not known to be.

    :param tries: how often it was tried
    :param due: when it is tried again, of the monotonic clock
    """
    why: str = ''
    tries: int = 0
    due: float = 0.0

    def again(self, why: str) -> 'Waiting':
        """Return it when it was tried once more, and why it is not so."""
        tries = self.tries + 1
        return Waiting(why, tries,
                       time.monotonic() + pause(tries, LONGEST_OF_ONE))


def due(waiting: typing.Mapping[str, Waiting]) -> frozenset[str]:
    """Return those that are to be tried again now."""
    now = time.monotonic()
    return frozenset(port for port, each in waiting.items()
                     if each.due <= now)


def pause(tries: int, longest: float) -> float:
    """Return for how many seconds to wait, a bit other for each host."""
    most = min(longest, FIRST_PAUSE * 2.0 ** min(tries, 10))
    return random.uniform(most / 2, most)
