# SPDX-License-Identifier: Apache-2.0

"""A filter on a TAP that takes frames of some source MACs only.

Before the bridge sees them, whether the TAP is a port or not.
"""

import contextlib
import dataclasses
import errno
import itertools
import socket
import struct
import typing

from vif_plug_tapmac import exception
from vif_plug_tapmac.kernel import attributes
from vif_plug_tapmac.kernel.attributes import Attributes
from vif_plug_tapmac.kernel.link import Link
from vif_plug_tapmac.kernel import netlink as nl
from vif_plug_tapmac.kernel import rtnetlink

#: Where a filter sees what comes in; for which frames; with which priority
#: where no other is before it. One that somebody adds without a priority comes
#: after this. Source: net/sched/cls_api.c, tcf_auto_prio;
#: include/uapi/linux/pkt_sched.h (TC_H_CLSACT, TC_H_MIN_INGRESS),
#: linux/if_ether.h (ETH_P_ALL)
INGRESS, EGRESS = 0xfffffff2, 0xfffffff3
_ALL_FRAMES, _PRIORITY = socket.htons(3), 29793
#: The place for filters of a link. Source: as above, TC_H_CLSACT
_CLSACT_HANDLE, _CLSACT = 0xffff0000, 0xfffffff1
#: The filter's verdict is final. Source: include/uapi/linux/pkt_cls.h,
#: TCA_BPF_FLAG_ACT_DIRECT, TC_ACT_UNSPEC (as if there were no filter),
#: TC_ACT_SHOT
_ACT_DIRECT, _PASS, _DROP = 1, 0xffffffff, 2
#: Attributes. Source: include/uapi/linux/rtnetlink.h, linux/pkt_cls.h
_TCA_KIND, _TCA_OPTIONS, _TCA_CHAIN = 1, 2, 11
_TCA_BPF_OPS_LEN, _TCA_BPF_OPS, _TCA_BPF_FLAGS = 4, 5, 8
#: How many MACs one can have: the kernel takes 4096 instructions, and tells of
#: no more than fit into 32 KiB. Source: include/uapi/linux/bpf_common.h,
#: BPF_MAXINSNS; net/netlink/af_netlink.c, netlink_dump
MACS_MAX = 512
#: Instructions: load four octets of the source, or its last two; go on if they
#: are as said, or so many further; end with a verdict.
_LOAD_FIRST, _LOAD_LAST = (0x20, 0, 0, 6), (0x28, 0, 0, 10)
_IF_EQUAL, _END = 0x15, 0x06
_INSTRUCTION = struct.Struct('HBBI')
#: How many MACs with equal first four octets are looked at together: no jump
#: goes further than 255 instructions.
_TOGETHER = 100
#: What a kernel needs for it.
REMEDY = 'load sch_ingress and cls_bpf'


@dataclasses.dataclass(frozen=True)
class Filter:
    """A filter of a link, of anybody's.

    :param macs: the sources that it takes; None: it is not ours
    :param kind: what it goes by, as "u32"
    :param told: all that the kernel tells of it
    """
    priority: int
    handle: int
    macs: frozenset[str] | None
    kind: str
    told: Attributes = dataclasses.field(repr=False, compare=False)

    @classmethod
    def from_message(cls, body: bytes) -> 'Filter | None':
        """Return what a message describes; None if no frame comes there."""
        _, handle, _, info, told = rtnetlink.read_traffic_control(body)
        if told.number(_TCA_CHAIN):
            return None
        return cls(info >> 16, handle, _macs_of(told),
                   told.text(_TCA_KIND) or '', told)


def put(netlink: nl.Netlink, link: Link, *macs: str) -> None:
    """Have a TAP drop what comes in from any other MAC than these.

    Beside whatever others have put there, as libvirt does for bandwidth; and
    before it, because the verdict of a filter may be the last. One that is
    there is replaced at once: no frame comes in between.

    :param macs: up to 512; none: nothing comes in
    :raises KernelRefused: ENOENT or EOPNOTSUPP: this kernel cannot do that;
        E2BIG: they are too many. What was there is as it was
    """
    step = 'filtering by the source %s' % ', '.join(sorted(macs)[:3])
    if len(macs) > MACS_MAX:
        raise exception.KernelRefused(
            device=link.name, step=step, code=errno.E2BIG,
            error='it may have %d MACs, and there is room for %d' % (
                len(macs), MACS_MAX),
            remedy='give its port fewer allowed address pairs')
    netlink.set(link.name, step, rtnetlink.NEW_QUEUEING,
                rtnetlink.traffic_control(
                    link.index, _CLSACT_HANDLE, _CLSACT, 0,
                    attributes.text(_TCA_KIND, 'clsact')),
                rtnetlink.CREATE | rtnetlink.EXCLUSIVE,
                tolerated=errno.EEXIST)
    ours, others = split(filters(netlink, link))
    place = _place(others)
    handle = next((each.handle for each in ours if each.priority == place), 1)
    program = _only_from(macs)
    netlink.set(
        link.name, step, rtnetlink.NEW_FILTER,
        _filter(link, place, handle, attributes.attribute(
            _TCA_OPTIONS, b''.join((
                attributes.attribute(_TCA_BPF_OPS_LEN, struct.pack(
                    'H', len(program) // _INSTRUCTION.size)),
                attributes.attribute(_TCA_BPF_OPS, program),
                attributes.number(_TCA_BPF_FLAGS, _ACT_DIRECT))))),
        rtnetlink.CREATE | rtnetlink.REPLACE)
    _remove(netlink, link, [each for each in ours if
                            (each.priority, each.handle) != (place, handle)])


def is_there(netlink: nl.Netlink, link: Link, *macs: str) -> bool:
    """Return whether the TAP does that, for these MACs, before all else."""
    ours, others = split(filters(netlink, link))
    first = min((each.priority for each in others), default=_PRIORITY + 1)
    return ({each.macs for each in ours} == {frozenset(macs)} and all(
        each.priority < first or first == 1 for each in ours))


def sources(netlink: nl.Netlink, link: Link) -> frozenset[str] | None:
    """Return from which MACs a TAP takes what comes in; None: from any."""
    some = [each.macs for each in split(filters(netlink, link))[0]
            if each.macs is not None]
    return frozenset.intersection(*some) if some else None


def remove(netlink: nl.Netlink, link: Link) -> None:
    """Have a TAP take what comes in, from any MAC; it did is success.

    Filters of others stay.
    """
    with contextlib.suppress(exception.KernelRefused):
        _remove(netlink, link, split(filters(netlink, link))[0])


def filters(netlink: nl.Netlink, link: Link,
            where: int = INGRESS) -> list[Filter]:
    """Return the filters of what comes in at a link, or goes out there.

    :param where: INGRESS or EGRESS; of the latter a link may know nothing
    """
    found = netlink.list(
        link.name, 'looking up its filters', rtnetlink.GET_FILTER,
        rtnetlink.traffic_control(link.index, 0, where, 0),
        Filter.from_message,
        tolerated=None if where == INGRESS else errno.EINVAL)
    return [each for each in found if each is not None]


def split(filters: list[Filter]) -> tuple[list[Filter], list[Filter]]:
    """Return ours, and those of others."""
    ours = [each for each in filters if each.macs is not None]
    places = {each.priority for each in ours}
    # Of each place there is one more that has none but its number.
    return ours, [each for each in filters if each.macs is None
                  and (each.handle or each.priority not in places)]


def _place(others: list[Filter]) -> int:
    """Return the priority to have: before the others, where there is one."""
    taken = {each.priority for each in others}
    first = min(taken, default=_PRIORITY + 1)
    if first > 1:
        return min(_PRIORITY, first - 1)
    return next(number for number in itertools.count(2)
                if number not in taken)


def _remove(netlink: nl.Netlink, link: Link,
            filters: list[Filter]) -> None:
    for each in filters:
        netlink.set(link.name, 'removing its filter', rtnetlink.DELETE_FILTER,
                    _filter(link, each.priority, each.handle),
                    tolerated=errno.ENOENT)


def _macs_of(told: Attributes) -> frozenset[str] | None:
    """Return the MACs of a filter of ours, None if it is none."""
    options = told.nested(_TCA_OPTIONS)
    program = options.octets(_TCA_BPF_OPS)
    if (program is None or len(program) % _INSTRUCTION.size
            or options.number(_TCA_BPF_FLAGS) != _ACT_DIRECT):
        return None
    found, first = set(), 0
    for code, _, otherwise, value in _INSTRUCTION.iter_unpack(program):
        if code == _IF_EQUAL and otherwise == 1:
            found.add((first << 16 | value & 0xffff).to_bytes(6, 'big'))
        elif code == _IF_EQUAL:
            first = value
    macs = frozenset(each.hex(':') for each in found)
    return macs if program == _only_from(macs) else None


def _only_from(macs: typing.Iterable[str]) -> bytes:
    """Return the program that takes frames of these source MACs.

    Those that begin alike are looked at together. After the last of them it
    is loaded anew what others are compared with.
    Source: include/uapi/linux/filter.h, struct sock_filter
    """
    firsts: dict[int, list[int]] = {}
    for mac in sorted(macs):
        octets = bytes.fromhex(mac.replace(':', ''))
        firsts.setdefault(int.from_bytes(octets[:4], 'big'), []).append(
            int.from_bytes(octets[4:], 'big'))
    some = [(first, lasts[start:start + _TOGETHER])
            for first, lasts in firsts.items()
            for start in range(0, len(lasts), _TOGETHER)]
    program = [_LOAD_FIRST]
    for number, (first, lasts) in enumerate(some, 1):
        found = [_LOAD_LAST]
        for last in lasts:
            found += [(_IF_EQUAL, 0, 1, last), (_END, 0, 0, _PASS)]
        if number < len(some):
            found.append(_LOAD_FIRST)
        program += [(_IF_EQUAL, 0, len(found), first), *found]
    program.append((_END, 0, 0, _DROP))
    return b''.join(_INSTRUCTION.pack(*each) for each in program)


def _filter(link: Link, priority: int, handle: int,
            *parts: bytes) -> bytes:
    return rtnetlink.traffic_control(
        link.index, handle, INGRESS, priority << 16 | _ALL_FRAMES,
        attributes.text(_TCA_KIND, 'bpf'), *parts)
