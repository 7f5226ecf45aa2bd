# SPDX-License-Identifier: Apache-2.0

"""How long tests wait, and how much of them is run.

A test waits for an event, and not for a time: on a busy machine everything
takes twenty times as long, and nothing is wrong.
"""

import os
import time
import typing

#: Whether tests take as long as they can; nobody waits for that before each
#: change.
LONG = os.environ.get('TAPMAC_LONG', '0') not in ('', '0')

#: Whether tests run in full: those whose point is a long time, too. It is what
#: "tools/test.sh --all" does.
IN_FULL = LONG or os.environ.get('TAPMAC_ALL', '0') not in ('', '0')

#: Whether the kernel is one that tools/kernel.sh runs, ten or twenty times as
#: slow as this machine is.
EMULATED = os.environ.get('TAPMAC_EMULATED', '0') not in ('', '0')

#: Seconds after which whatever a test waits for hangs: a bound that no machine
#: reaches which only has much to do. TAPMAC_HANG is another one.
HANG = float(os.environ.get('TAPMAC_HANG') or 600)

_Result = typing.TypeVar('_Result')


def amount(few: int, many: int, most: int) -> int:
    """Return how much of something that is long for the sake of it is done.

    :param few: before each change
    :param many: in full
    :param most: in the long form
    """
    return most if LONG else many if IN_FULL else few


def wait_until(condition: typing.Callable[[], _Result],
               what: str | typing.Callable[[], str],
               pause: float = 0.01) -> _Result:
    """Return what this returns as soon as that is true.

    :param what: what does not come true, for whoever reads the failure; or
        what says so then
    :param pause: seconds between two looks
    :raises AssertionError: it hangs
    """
    deadline = time.monotonic() + HANG
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise AssertionError('for %d s: %s' % (
                HANG, what if isinstance(what, str) else what()))
        time.sleep(pause)
    return result
