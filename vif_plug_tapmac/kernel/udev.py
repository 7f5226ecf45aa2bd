# SPDX-License-Identifier: Apache-2.0

"""Waiting for udev's word on a new device, which may cost it its MAC.

With MACAddressPolicy=persistent, the default of many distributions, udev gives
each new device a MAC of its own making unless somebody set one before. It
looks (addr_assign_type) and then writes; a MAC set in between is lost without
a word. So a MAC is safe only after udev is done with the device, which it says
by writing its record of it.
Source: systemd src/udev/net/link-config.c, src/libsystemd/sd-device
"""

import logging
import os
import time

from vif_plug_tapmac.kernel.link import Link

LOG = logging.getLogger(__name__)

_RUN = '/run/udev'
# The clock of file times. It ticks every few milliseconds, so any other is
# ahead of it and would make a fresh record look stale.
_CLOCK_REALTIME_COARSE = 5
_PAUSE = 0.001


def now() -> int:
    """Return the time to compare records with, in nanoseconds."""
    return time.clock_gettime_ns(_CLOCK_REALTIME_COARSE)


def is_running() -> bool:
    """Return whether a udev is here that may touch new devices."""
    return os.path.exists(os.path.join(_RUN, 'control'))


def wait_for(link: Link, name: str, since: int, timeout: float) -> None:
    """Wait until udev has handled a new device; warn if it does not in time.

    Numbers of devices repeat, in other network namespaces and after udev
    missed that one went: a record from before the device says nothing.

    :param name: of the device, for the warning
    :param since: what :func:`now` returned before the device was made
    :param timeout: in seconds
    """
    deadline = time.monotonic() + timeout
    while not _has_record(link, since):
        left = deadline - time.monotonic()
        if left <= 0:
            LOG.warning(
                '%s: udev did not say within %g s that it is done with this '
                'device, so it could still overwrite the MAC, which was '
                'right when it was looked at last. If the udev of %s does '
                'not see this network namespace, as in some containers, set '
                '[os_vif_tapmac] udev_timeout to 0; else find out what keeps '
                'it busy.', name, timeout, _RUN)
            return
        time.sleep(min(_PAUSE, left))


def _has_record(link: Link, since: int) -> bool:
    try:
        record = os.stat(os.path.join(_RUN, 'data', 'n%d' % link.index))
    except OSError:
        return False
    return record.st_mtime_ns >= since
