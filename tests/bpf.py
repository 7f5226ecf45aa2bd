# SPDX-License-Identifier: Apache-2.0

"""Programs that see a link's frames first, as somebody else may attach them.

Source: include/uapi/linux/bpf.h, linux/if_link.h (IFLA_XDP)
"""

import ctypes
import os
import platform
import struct

from vif_plug_tapmac.kernel import attributes
from vif_plug_tapmac.kernel import rtnetlink

_NUMBER = {'x86_64': 321, 'aarch64': 280, 's390x': 351, 'ppc64le': 361}
_PROG_LOAD, _TYPE_XDP = 5, 6
_IFLA_XDP, _FD, _FLAGS, _SKB_MODE = 43, 1, 3, 2
#: Two instructions: the verdict XDP_PASS, and the end.
_PASS = struct.pack('=BBhi', 0xb7, 0, 0, 2) + struct.pack('=BBhi', 0x95, 0,
                                                          0, 0)
_libc = ctypes.CDLL(None, use_errno=True)


def attach(index: int) -> None:
    """Have a program on a link that passes each frame."""
    program = _load()
    try:
        netlink = rtnetlink.Socket()
        netlink.set(rtnetlink.NEW_LINK, rtnetlink.link(
            index, attributes.attribute(
                _IFLA_XDP | attributes.NESTED,
                attributes.number(_FD, program)
                + attributes.number(_FLAGS, _SKB_MODE))))
        netlink.close()
    finally:
        os.close(program)


def _load() -> int:
    code = ctypes.create_string_buffer(_PASS)
    licence = ctypes.create_string_buffer(b'GPL')
    # Type, number of instructions, where they are, and the licence; no log.
    request = struct.pack('=IIQQ', _TYPE_XDP, len(_PASS) // 8,
                          ctypes.addressof(code), ctypes.addressof(licence))
    request = request.ljust(72, b'\0')
    program = _libc.syscall(_NUMBER[platform.machine()], _PROG_LOAD,
                            ctypes.create_string_buffer(request),
                            len(request))
    if program < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return int(program)
