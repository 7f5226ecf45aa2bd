# SPDX-License-Identifier: Apache-2.0

"""Connections that the kernel is told of, instead of seeing their frames."""

import errno
import pathlib
import socket
import struct

from vif_plug_tapmac.kernel import attributes
from vif_plug_tapmac.kernel import nft
from vif_plug_tapmac.kernel import rtnetlink

#: Why there is no test on a kernel; skipped tests are counted by it.
NONE_IN_BRIDGES = 'this kernel has no conntrack for bridges'
NO_CONNTRACK = 'this kernel keeps no connections, or does not tell of them'

#: Of ctnetlink. Source: include/uapi/linux/netfilter/nfnetlink_conntrack.h
_NETLINK_NETFILTER, _NEW, _GET = 12, 0x100, 0x101
_ORIGINAL, _REPLY, _TIMEOUT, _ZONE = 1, 2, 7, 18
_ICMP = 1
#: As long as each is kept, in seconds.
_SECONDS = 600
_TIMEOUTS = pathlib.Path('/proc/sys/net/netfilter')


def can_be_made() -> bool:
    """Return whether the kernel keeps connections, and takes those of us."""
    try:
        count()
    except OSError as error:
        if error.errno not in (errno.EPROTONOSUPPORT, errno.EINVAL):
            raise
        return False
    return True


def stay() -> None:
    """Have those of this network namespace stay as long as a test may take.

    Of UDP, one that was answered at once stays for half a minute only.
    Source: net/netfilter/nf_conntrack_proto_udp.c, nf_conntrack_udp_packet
    """
    for protocol in 'udp', 'icmp', 'icmpv6':
        for path in _TIMEOUTS.glob('nf_conntrack_%s_timeout*' % protocol):
            path.write_text(str(_SECONDS))


def make(zone: int, protocol: int, source: str, destination: str,
         *numbers: int) -> None:
    """Have a connection, as after its first frame.

    :param numbers: the ports from which and to which; of ICMP its id; of a
        protocol without ports, none
    """
    family = socket.AF_INET6 if ':' in source else socket.AF_INET
    ends = [socket.inet_pton(family, each) for each in (source, destination)]
    body = struct.pack('>BBH', family, 0, 0) + (
        _tuple(_ORIGINAL, family, ends, protocol, numbers, 8)
        + _tuple(_REPLY, family, ends[::-1], protocol, numbers[::-1], 0)
        + nft.number(_TIMEOUT, _SECONDS))
    if protocol == 6:
        # struct: that it is established
        body += nft.nested(4, nft.nested(1, attributes.octet(1, 3)))
    if zone:
        body += attributes.attribute(_ZONE, struct.pack('>H', zone))
    netlink = rtnetlink.Socket(_NETLINK_NETFILTER)
    netlink.set(_NEW, body, rtnetlink.CREATE | rtnetlink.EXCLUSIVE)
    netlink.close()


def count() -> int:
    """Return how many there are in this network namespace."""
    netlink = rtnetlink.Socket(_NETLINK_NETFILTER)
    try:
        return len(netlink.dump(_GET, struct.pack('>BBH', 0, 0, 0)))
    finally:
        netlink.close()


def _tuple(kind: int, family: int, ends: list[bytes], protocol: int,
           numbers: tuple[int, ...], icmp_type: int) -> bytes:
    first = 1 if family == socket.AF_INET else 3
    told = attributes.octet(1, protocol)
    if protocol == _ICMP:
        told += (attributes.attribute(4, struct.pack('>H', numbers[0]))
                 + attributes.octet(5, icmp_type) + attributes.octet(6, 0))
    else:
        for number, each in enumerate(numbers, 2):
            told += attributes.attribute(number, struct.pack('>H', each))
    return nft.nested(kind, nft.nested(
        1, attributes.attribute(first, ends[0]),
        attributes.attribute(first + 1, ends[1])), nft.nested(2, told))
