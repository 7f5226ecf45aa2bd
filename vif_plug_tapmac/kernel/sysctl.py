# SPDX-License-Identifier: Apache-2.0

"""Settings of IPv4 and IPv6 on a link, by their files."""

import errno
import os

from vif_plug_tapmac import exception
from vif_plug_tapmac.kernel.link import Link
from vif_plug_tapmac.kernel import netlink as nl

_PLACE = '/proc/sys/net'


def is_writable() -> bool:
    """Return whether they can be set: in many containers, they are not."""
    try:
        return not os.statvfs(_PLACE).f_flag & os.ST_RDONLY
    except OSError:
        return False


def write(link: Link, family: str, name: str, value: str) -> None:
    """Set one.

    :param link: by the name that it has now
    :param family: "ipv4" or "ipv6"
    :raises KernelRefused: it cannot be set; ENODEV if the link is gone
    """
    path = os.path.join(_PLACE, family, 'conf', link.name, name)
    try:
        with open(path, 'w') as opened:
            opened.write(value)
    except OSError as error:
        code = error.errno or 0
        if code == errno.ENOENT and not nl.is_named(link.index, link.name):
            code = errno.ENODEV
        raise exception.KernelRefused.from_errno(
            link.name, 'writing %s' % path, code)
