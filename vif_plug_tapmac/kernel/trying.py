# SPDX-License-Identifier: Apache-2.0

"""Whether this kernel can filter by the source: tried, for a process to say.

In a network namespace of its own, so that nothing changes. Without privilege
it is one of a user namespace, where the kernel allows these. Run by
:mod:`vif_plug_tapmac.startup`; its exit status is the answer, its words are
the reason.
"""

import ctypes
import errno
import os
import sys

from vif_plug_tapmac import exception
from vif_plug_tapmac.kernel import netlink as nl
from vif_plug_tapmac.kernel import source_filter

#: Exit statuses.
CAN, CANNOT, UNKNOWN = 0, 10, 20
#: Source: include/uapi/linux/sched.h
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_MAC = '02:00:00:00:00:00'


def main() -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    if (libc.unshare(_CLONE_NEWNET) != 0
            and libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) != 0):
        print(os.strerror(ctypes.get_errno()))
        return UNKNOWN
    try:
        with nl.Netlink() as netlink:
            link = netlink.find('lo')
            assert link is not None
            source_filter.put(netlink, link, _MAC)
            if source_filter.is_there(netlink, link, _MAC):
                return CAN
            print('the filter is not there after it was put')
            return CANNOT
    except exception.KernelRefused as error:
        print(error.kwargs['error'])
        return (CANNOT if error.kwargs.get('code') in (
            errno.ENOENT, errno.EOPNOTSUPP) else UNKNOWN)


if __name__ == '__main__':
    sys.exit(main())
