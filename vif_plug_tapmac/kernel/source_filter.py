# SPDX-License-Identifier: Apache-2.0

"""A filter on a TAP that takes frames of one source MAC only.

Before the bridge sees them, whether the TAP is a port or not.
"""

import contextlib
import errno
import socket
import struct

from vif_plug_tapmac import exception
from vif_plug_tapmac.kernel import attributes
from vif_plug_tapmac.kernel.link import Link
from vif_plug_tapmac.kernel import netlink as nl
from vif_plug_tapmac.kernel import rtnetlink

#: Where a filter sees what comes in; for which frames, with which priority.
#: Source: include/uapi/linux/pkt_sched.h (TC_H_CLSACT, TC_H_MIN_INGRESS),
#: linux/if_ether.h (ETH_P_ALL)
_INGRESS, _PRIORITY, _ALL_FRAMES = 0xfffffff2, 29793, socket.htons(3)
#: The place for filters of a link. Source: as above, TC_H_CLSACT
_CLSACT_HANDLE, _CLSACT = 0xffff0000, 0xfffffff1
#: The filter's verdict is final. Source: include/uapi/linux/pkt_cls.h,
#: TCA_BPF_FLAG_ACT_DIRECT, TC_ACT_UNSPEC (as if there were no filter),
#: TC_ACT_SHOT
_ACT_DIRECT, _PASS, _DROP = 1, 0xffffffff, 2
#: Attributes. Source: include/uapi/linux/rtnetlink.h, linux/pkt_cls.h
_TCA_KIND, _TCA_OPTIONS = 1, 2
_TCA_BPF_OPS_LEN, _TCA_BPF_OPS, _TCA_BPF_FLAGS = 4, 5, 8


def put(netlink: nl.Netlink, link: Link, mac: str) -> None:
    """Have a TAP drop what comes in from any other MAC."""
    step = 'filtering by the source %s' % mac
    netlink.set(link.name, step, rtnetlink.NEW_QUEUEING,
                rtnetlink.traffic_control(
                    link.index, _CLSACT_HANDLE, _CLSACT, 0,
                    attributes.text(_TCA_KIND, 'clsact')),
                rtnetlink.CREATE | rtnetlink.EXCLUSIVE,
                tolerated=errno.EEXIST)
    program = _only_from(mac)
    count = len(program) // struct.calcsize('HBBI')
    netlink.set(
        link.name, step, rtnetlink.NEW_FILTER,
        _filter(link, attributes.attribute(_TCA_OPTIONS, b''.join((
            attributes.attribute(_TCA_BPF_OPS_LEN, struct.pack('H', count)),
            attributes.attribute(_TCA_BPF_OPS, program),
            attributes.number(_TCA_BPF_FLAGS, _ACT_DIRECT))))),
        rtnetlink.CREATE | rtnetlink.REPLACE)


def is_there(netlink: nl.Netlink, link: Link, mac: str) -> bool:
    """Return whether the TAP does that, for this MAC."""
    answer = netlink.ask(
        link.name, 'looking up its filter', rtnetlink.GET_FILTER,
        _filter(link), rtnetlink.NEW_FILTER, lambda body: body,
        tolerated=errno.EINVAL)
    if answer is None:
        return False
    options = rtnetlink.traffic_control_attributes(answer).nested(
        _TCA_OPTIONS)
    return (options.octets(_TCA_BPF_OPS) == _only_from(mac)
            and options.number(_TCA_BPF_FLAGS) == _ACT_DIRECT)


def remove(netlink: nl.Netlink, link: Link) -> None:
    """Have a TAP take what comes in, from any MAC; it did is success."""
    with contextlib.suppress(exception.KernelRefused):
        netlink.set(link.name, 'removing its filter',
                    rtnetlink.DELETE_FILTER, _filter(link))


def _only_from(mac: str) -> bytes:
    """Return the program that takes frames of one source MAC.

    Source: include/uapi/linux/filter.h, struct sock_filter
    """
    octets = bytes.fromhex(mac.replace(':', ''))
    program = (
        (0x20, 0, 0, 6),  # Load four octets of the source, ...
        (0x15, 0, 3, int.from_bytes(octets[:4], 'big')),  # ... else drop;
        (0x28, 0, 0, 10),  # and two.
        (0x15, 0, 1, int.from_bytes(octets[4:], 'big')),
        (0x06, 0, 0, _PASS),
        (0x06, 0, 0, _DROP))
    return b''.join(struct.pack('HBBI', *each) for each in program)


def _filter(link: Link, *parts: bytes) -> bytes:
    return rtnetlink.traffic_control(
        link.index, 1, _INGRESS, _PRIORITY << 16 | _ALL_FRAMES,
        attributes.text(_TCA_KIND, 'bpf'), *parts)
