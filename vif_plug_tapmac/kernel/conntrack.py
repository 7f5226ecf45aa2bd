# SPDX-License-Identifier: Apache-2.0

"""The connections that the kernel keeps of guests: found, and cut.

A rule that goes leaves those that it let through: they are established. So
whoever takes one away has the connections deleted, too, and the next frame of
each meets the rules.
Source: include/uapi/linux/netfilter/nfnetlink_conntrack.h
"""

import errno
import ipaddress
import socket
import struct
import time
import typing

from vif_plug_tapmac import exception
from vif_plug_tapmac.kernel import agent_conntrack
from vif_plug_tapmac.kernel import attributes
from vif_plug_tapmac.kernel import nft
from vif_plug_tapmac.kernel import session

#: NFNL_SUBSYS_CTNETLINK, and what is done there.
_GET, _DELETE, _COUNT = (1 << 8 | each for each in (1, 2, 5))
#: How the kernel says that it has no conntrack for bridges (EPROTO), or lacks
#: nf_tables, the bridge family of it, or something that rules ask for.
_MISSING = (errno.EPROTO, errno.EPROTONOSUPPORT, errno.EOPNOTSUPP,
            errno.EINVAL, errno.EAFNOSUPPORT, errno.ENOENT)
# Attributes.
_ORIGINAL, _STATUS, _TIMEOUT, _ID, _ZONE, _FILTER = 1, 3, 7, 12, 18, 25
_IP, _PROTOCOL = 1, 2
_SOURCE, _DESTINATION = {4: 1, 6: 3}, {4: 2, 6: 4}
_NUMBER, _FROM_PORT, _TO_PORT = 1, 2, 3
_ORIGINAL_FLAGS = 1
#: What the kernel is to compare. Source: net/netfilter/nf_internals.h
_BY_SOURCE, _BY_DESTINATION = 1, 2
#: Source: include/uapi/linux/netfilter/nf_conntrack_common.h, IPS_SEEN_REPLY
#: and IPS_ASSURED
_SEEN_REPLY, _ASSURED = 1 << 1, 1 << 2
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
#: A zone has 16 bits. That without a number is the host's own.
ZONES = range(1, 1 << 16)
#: For so many addresses the kernel goes through what it has for each, twice,
#: and tells what is theirs. For more it tells all that is in the zone.
_FEW = 8
#: For how long it may tell, in seconds.
_TELLS_WITHIN = 30.0

_Network = typing.Union[ipaddress.IPv4Network, ipaddress.IPv6Network]


class Connection(typing.NamedTuple):
    """What the kernel keeps of a connection, as the first frame had it.

    :param protocol: the number that IP has for it
    :param ports: from which to which; None: it has none, as ICMP
    :param is_answered: whether there were frames in both directions
    :param is_assured: whether it stays when the table is full
    :param seconds: until it is forgotten, unless there are more frames
    :param key: what the kernel knows it by: its family, and attributes
    """
    zone: int
    protocol: int
    source: str
    destination: str
    ports: tuple[int, int] | None
    is_answered: bool
    is_assured: bool
    seconds: int
    key: tuple[int, bytes]


def probe() -> bool:
    """Return whether this kernel can have all that needs connections.

    That is conntrack for bridges (NF_CONNTRACK_BRIDGE, since Linux 5.3),
    zones, a limit of connections, and telling of them. Nothing is changed.

    :raises KernelRefused: it does not say; no privilege to ask
    """
    try:
        with nft.Session() as tables:
            tables.transact('trying conntrack for bridges',
                            agent_conntrack.trial(), is_done=False)
        with _Session() as netlink:
            netlink.ask('conntrack', 'counting connections', _COUNT, _body(0),
                        _COUNT, lambda _: True)
    except exception.KernelRefused as error:
        if error.kwargs.get('code') not in _MISSING:
            raise
        return False
    return True


def connections(zone: int, addresses: typing.Iterable[str],
                ) -> list[Connection]:
    """Return the connections that addresses have, from them and to them.

    The kernel tells what belongs to each of a few addresses only; of many, and
    of networks, it tells all of the zone, and before Linux 6.8 all there is.
    So the costs grow with what others have only there, and only in that the
    kernel goes through it.

    :param zone: of :data:`ZONES`: that of their bridge
    :param addresses: IPv4 and IPv6, each alone or with a prefix
    :raises ValueError: there is no such zone or address
    :raises KernelRefused: it does not tell
    """
    if zone not in ZONES:
        raise ValueError('no zone of a bridge: %r' % zone)
    networks = {ipaddress.ip_network(each) for each in addresses}
    found: dict[tuple[int, bytes], Connection] = {}
    for version in sorted({each.version for each in networks}):
        own = [each for each in networks if each.version == version]
        for part in _parts(own):
            found.update((each.key, each) for each in _listed(
                zone, version, part, _concerns(own)))
    return list(found.values())


def delete(zone: int, addresses: typing.Iterable[str]) -> int:
    """Have the kernel forget the connections that addresses have.

    As it would if they had never been: what may go on under the rules does so
    with the next frame, TCP, too (unless nf_conntrack_tcp_loose is 0).

    :param zone: as for :func:`connections`
    :param addresses: likewise
    :returns: how many there were
    :raises ValueError: there is no such zone or address
    :raises KernelRefused: some are there still
    """
    found = connections(zone, addresses)
    if not found:
        return 0
    with _Session() as netlink:
        return sum(netlink.forget(each) for each in found)


def _parts(networks: typing.Collection[_Network]) -> list[bytes]:
    """Return with what the kernel is asked, one time after the other."""
    if len(networks) > _FEW or any(
            each.num_addresses > 1 for each in networks):
        return [b'']
    return [nft.nested(_ORIGINAL, nft.nested(_IP, attributes.attribute(
        where[each.version], each.network_address.packed)))
        + nft.nested(_FILTER, attributes.number(_ORIGINAL_FLAGS, flag))
        for each in networks
        for where, flag in ((_SOURCE, _BY_SOURCE),
                            (_DESTINATION, _BY_DESTINATION))]


def _listed(zone: int, version: int, part: bytes,
            concerns: typing.Callable[[bytes], bool],
            ) -> typing.Iterator[Connection]:
    until = time.monotonic() + _TELLS_WITHIN
    # Who knows it compares the zone; whatever comes is compared here, too.
    body = _body(_FAMILIES[version], _zone(zone), part)
    with _Session() as netlink:
        for told in netlink.some(
                'conntrack', 'listing the connections of guests', _GET, body,
                lambda each: _read(each, zone, concerns), _TELLS_WITHIN):
            if told is not None:
                yield told
    if time.monotonic() > until:
        raise exception.KernelRefused(
            device='conntrack', step='listing the connections of guests',
            code=errno.ETIMEDOUT, error='ETIMEDOUT (there are more than the '
            'kernel tells in %g s)' % _TELLS_WITHIN,
            remedy='have a smaller net.netfilter.nf_conntrack_max')


class _Session(session.Session):
    """A conversation with the kernel about connections."""

    PROTOCOL = nft.Session.PROTOCOL

    def forget(self, which: Connection) -> bool:
        """Return whether it was there still, and is no more."""
        family, key = which.key
        return self.set('conntrack', 'deleting a connection of %s' %
                        which.source, _DELETE,
                        _body(family, _zone(which.zone), key),
                        tolerated=errno.ENOENT)


def _body(family: int, *parts: bytes) -> bytes:
    return struct.pack('>BBH', family, 0, 0) + b''.join(parts)


def _zone(zone: int) -> bytes:
    return attributes.attribute(_ZONE, zone.to_bytes(2, 'big'))


def _read(body: bytes, zone: int, concerns: typing.Callable[[bytes], bool],
          ) -> Connection | None:
    """Return a connection; None if it is in another zone, or of no concern."""
    told, family = nft.read(body), body[0]
    version = 4 if family == socket.AF_INET else 6
    original = told.nested(_ORIGINAL)
    ends = original.nested(_IP)
    source, destination = (ends.octets(where[version]) or b''
                           for where in (_SOURCE, _DESTINATION))
    if (nft.value(told, _ZONE) or 0) != zone or not (
            concerns(source) or concerns(destination)):
        return None
    protocol = original.nested(_PROTOCOL)
    status = nft.value(told, _STATUS) or 0
    first, second = (nft.value(protocol, each)
                     for each in (_FROM_PORT, _TO_PORT))
    return Connection(
        zone, nft.value(protocol, _NUMBER) or 0,
        socket.inet_ntop(family, source),
        socket.inet_ntop(family, destination),
        None if first is None or second is None else (first, second),
        bool(status & _SEEN_REPLY), bool(status & _ASSURED),
        nft.value(told, _TIMEOUT) or 0,
        (family, attributes.attribute(
            _ORIGINAL | attributes.NESTED, told.octets(_ORIGINAL) or b'')
         + attributes.attribute(_ID, told.octets(_ID) or b'')))


def _concerns(networks: typing.Iterable[_Network],
              ) -> typing.Callable[[bytes], bool]:
    """Return what tells whether an address is one of these."""
    alone = {each.network_address.packed for each in networks
             if each.num_addresses == 1}
    ranges = [(each.network_address.packed, each.broadcast_address.packed)
              for each in networks if each.num_addresses > 1]
    return lambda address: address in alone or any(
        first <= address <= last for first, last in ranges)
