# SPDX-License-Identifier: Apache-2.0

"""Says what is being done, and that it still is."""

import contextlib
import sys
import threading
import time
import typing

#: Seconds: whoever looks at the terminal is never left alone for longer.
_SILENCE = 20
_begun = time.monotonic()


def say(what: str) -> None:
    """Say something, with the seconds since this program began."""
    print('%4d s  %s' % (time.monotonic() - _begun, what), file=sys.stderr,
          flush=True)


@contextlib.contextmanager
def step(what: str) -> typing.Iterator[None]:
    """Say what is done meanwhile, again and again as long as it is."""
    say(what)
    done = threading.Event()

    def go_on() -> None:
        while not done.wait(_SILENCE):
            say('%s: still' % what)
    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
