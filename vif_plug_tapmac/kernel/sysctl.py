# SPDX-License-Identifier: Apache-2.0

"""Settings of IPv4 and IPv6 on a link, by their files."""

import errno
import logging
import os

from vif_plug_tapmac import exception
from vif_plug_tapmac.kernel.link import Link
from vif_plug_tapmac.kernel import netlink as nl

LOG = logging.getLogger(__name__)

_PLACE = '/proc/sys/net'
#: How it is said that files are read-only, or that a policy, as of SELinux,
#: has none written.
_NOT_ALLOWED = (errno.EROFS, errno.EACCES, errno.EPERM)
#: Whether this process was told so: no file system says it of a policy.
_refused = False


def is_writable() -> bool:
    """Return whether they can be set: in many containers, they are not."""
    try:
        return not (_refused or os.statvfs(_PLACE).f_flag & os.ST_RDONLY)
    except OSError:
        return False


def write_if_allowed(link: Link, family: str, name: str, value: str) -> None:
    """Set one; where none can be set, :func:`is_writable` knows from then on.

    :raises KernelRefused: it cannot be set for another reason
    """
    global _refused
    try:
        write(link, family, name, value)
    except exception.KernelRefused as error:
        if error.kwargs.get('code') not in _NOT_ALLOWED:
            raise
        _refused = True
        LOG.debug('No settings are written from now on: %s', error)


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
