# SPDX-License-Identifier: Apache-2.0

"""When all ports of a host are asked for anew, at moments of its own."""

import random
import time

from vif_plug_tapmac.agent import waiting


class Resync:
    """When that is done next; soon, at first.

    :param interval: after how many seconds it is done anyway
    :param spread: within how many seconds that is done that others do, too
    :ivar due: when it is, of the monotonic clock
    """

    def __init__(self, interval: float, spread: float) -> None:
        self._interval, self._spread = interval, spread
        self.due = self._moment()

    def is_due(self) -> bool:
        return time.monotonic() >= self.due

    def soon(self) -> None:
        """Have it done at a moment that others do not have."""
        self.due = min(self.due, self._moment())

    def done(self, is_whole: bool) -> None:
        """Have it done again later; sooner, if something was left out."""
        self.due = time.monotonic() + random.uniform(0.8, 1) * (
            self._interval if is_whole else waiting.LONGEST_PAUSE)

    def _moment(self) -> float:
        return time.monotonic() + random.uniform(0, self._spread)
