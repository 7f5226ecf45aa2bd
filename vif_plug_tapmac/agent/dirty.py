# SPDX-License-Identifier: Apache-2.0

"""What is to be looked at anew: told by many threads, taken by one.

What is told while something is being handled is there with the next that is
taken, whatever becomes of the former. Neutron's own agents swap such sets
without a lock, which was right as long as they had one thread.
"""

import threading
import typing

_NOTHING: frozenset[str] = frozenset()


class Batch(typing.NamedTuple):
    """What is to be looked at anew.

    :param ports: UUIDs, of ports that may be elsewhere, too
    :param lost: UUIDs of ports whose TAP went, even if there is another by now
    :param groups: UUIDs of security groups whose rules may be others
    :param members: UUIDs of security and address groups that may have others
        in them
    :param is_all: whether all ports here are to be looked at
    :param resync: whether they are to be looked at soon. Other hosts have the
        same reason at this moment, so each does it at a moment of its own
    """
    ports: frozenset[str] = _NOTHING
    lost: frozenset[str] = _NOTHING
    groups: frozenset[str] = _NOTHING
    members: frozenset[str] = _NOTHING
    is_all: bool = False
    resync: bool = False

    def also(self, other: 'Batch') -> 'Batch':
        """Return all that is in one of the two."""
        return Batch(self.ports | other.ports, self.lost | other.lost,
                     self.groups | other.groups, self.members | other.members,
                     self.is_all or other.is_all, self.resync or other.resync)


EMPTY = Batch()


class Dirty:
    """What nobody has taken yet."""

    def __init__(self) -> None:
        self._told = threading.Condition()
        self._batch = EMPTY

    def add(self, batch: Batch) -> None:
        """Have it taken with the next."""
        with self._told:
            self._batch = self._batch.also(batch)
            self._told.notify_all()

    def take(self, seconds: float) -> Batch:
        """Take all that there is, and wait if there is nothing.

        :param seconds: at most; less than 0 is 0
        :returns: :data:`EMPTY` if nothing comes in time
        """
        with self._told:
            self._told.wait_for(lambda: self._batch != EMPTY,
                                max(0.0, seconds))
            batch, self._batch = self._batch, EMPTY
            return batch
