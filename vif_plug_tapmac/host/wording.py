# SPDX-License-Identifier: Apache-2.0

"""What rules look at in a frame, and what is there, in words. Pure."""

import ipaddress

from vif_plug_tapmac.host.interpreting import Condition
from vif_plug_tapmac.host import packet as packets
from vif_plug_tapmac.host.packet import Packet
from vif_plug_tapmac.kernel import nft_expressions as nftx

#: Of each ethertype, and of what is in IP, what is at which place, and how
#: long that is.
_ETHERNET = {(0, 1): 'destination MAC', (0, 3): 'destination MAC',
             (0, 6): 'destination MAC', (6, 6): 'source MAC',
             (12, 2): 'ethertype'}
_OF_ARP = {(0, 6): 'kinds of addresses in ARP', (6, 2): 'operation of ARP',
           (8, 6): 'sender MAC in ARP', (14, 4): 'sender address in ARP',
           (18, 6): 'target MAC in ARP', (24, 4): 'target address in ARP'}
_NETWORK = {
    packets.ARP: _OF_ARP, packets.RARP: _OF_ARP,
    packets.IPV4: {(6, 2): 'fragment flags and offset',
                   (12, 4): 'source address', (16, 4): 'destination address'},
    packets.IPV6: {(4, 2): 'payload length', (6, 1): 'next header',
                   (8, 16): 'source address',
                   (24, 16): 'destination address'}}
_TCP, _UDP, _AH = 6, 17, 51
_OF_PORTS = {(0, 2): 'source port', (2, 2): 'destination port',
             (0, 4): 'ports'}
_TRANSPORT = {_TCP: _OF_PORTS, _UDP: _OF_PORTS, _AH: {
    (0, 1): 'header behind AH'}}
#: Of all other protocols: ICMP, IGMP and ICMPv6.
_OF_MESSAGES = {(0, 1): 'type', (8, 16): 'target address', (0, 4): 'ports'}
_FRAGMENT = {(0, 1): 'header behind the fragment header',
             (2, 2): 'fragment offset'}
_PORT = nftx.IIF, nftx.IIFTYPE, nftx.OIF, nftx.OIFTYPE
_PROTOCOLS = {1: 'ICMP', 2: 'IGMP', 6: 'TCP', 17: 'UDP', 50: 'ESP', 51: 'AH',
              58: 'ICMPv6'}
_ETHERTYPES = {packets.IPV4: 'IPv4', packets.ARP: 'ARP',
               packets.RARP: 'RARP', packets.IPV6: 'IPv6',
               0x8100: 'a tag of 802.1Q', 0x88a8: 'a tag of 802.1ad',
               0x88cc: 'LLDP'}
#: Below that it is no ethertype, but how long a frame of LLC is.
_LEAST_ETHERTYPE = 0x600


def field(what: nftx.Load, packet: Packet) -> str:
    """Return how a part of this frame is called."""
    if what == nftx.PROTOCOL:
        return 'protocol'
    if what == nftx.ETHERTYPE:
        return 'ethertype'
    if what in (nftx.IIFGROUP, nftx.OIFGROUP):
        return 'link group'
    if what in _PORT:
        return 'port'
    if what.name == 'ct':
        return 'part in its connection'
    if what == nftx.IS_FRAGMENT:
        return 'fragment header'
    if what.name == 'exthdr':
        return _FRAGMENT.get((_number(what, 3), what.length), 'header')
    place = _number(what, 3), what.length
    base = _number(what, 2)
    if base == nftx.ETHERNET:
        return _ETHERNET.get(place) or _at(place, 'Ethernet')
    if base == nftx.NETWORK:
        return _NETWORK.get(packet.ethertype, {}).get(
            place) or _at(place, 'the packet')
    return (_TRANSPORT.get(packet.protocol or 0, _OF_MESSAGES).get(place)
            or _of_option(place))


def _of_option(place: tuple[int, int]) -> str:
    """Return how a part of an option of neighbour discovery is called."""
    offset, length = place
    return ('kind of the option at octet %d' % offset if length == 1
            else 'MAC in the option at octet %d' % (offset - 2))


def _at(place: tuple[int, int], where: str) -> str:
    return '%d octets at %d of %s' % (place[1], place[0], where)


def value(what: nftx.Load, octets: bytes | None) -> str:
    """Return a part of a frame as people write it.

    :param octets: what is there; None: it is too short
    """
    if octets is None:
        return 'missing'
    number = int.from_bytes(octets, 'big')
    if what == nftx.PROTOCOL:
        return _named(number, _PROTOCOLS)
    if len(octets) == 16:
        return str(ipaddress.IPv6Address(octets))
    if len(octets) == 6 and (_number(what, 2), _number(what, 3)) != (
            nftx.NETWORK, 0):
        return octets.hex(':')
    if len(octets) == 3:
        return octets.hex(':') + ':...'
    if len(octets) == 4 and _number(what, 2) == nftx.NETWORK:
        return str(ipaddress.IPv4Address(octets))
    if len(octets) == 4 and _number(what, 2) == nftx.TRANSPORT:
        return '%d to %d' % (number >> 16, number & 0xffff)
    if what == nftx.ETHERTYPE or (_number(what, 2), _number(what, 3)) == (
            nftx.ETHERNET, 12):
        return '0x%04x (%s)' % (number, ethertype(number))
    return '0x' + octets.hex() if len(octets) > 2 else str(number)


def ethertype(number: int) -> str:
    """Return what a frame has, by its ethertype."""
    if number < _LEAST_ETHERTYPE:
        return 'LLC, and how long it is'
    return _ETHERTYPES.get(number, 'another protocol')


def protocol(number: int) -> str:
    """Return how what is in IP is called, by its number."""
    return _named(number, _PROTOCOLS)


def summary(packet: Packet) -> str:
    """Return from whom to whom a frame is, and of which kind, in a line."""
    octets = packet.octets
    kind = _ETHERTYPES.get(packet.ethertype) or (
        'ethertype 0x%04x' % packet.ethertype)
    if packet.protocol is not None:
        kind += ', ' + (_PROTOCOLS.get(packet.protocol)
                        or 'protocol %d' % packet.protocol)
    return '%s > %s, %s' % (octets[6:12].hex(':'), octets[:6].hex(':'), kind)


def condition(found: Condition, packet: Packet) -> str:
    """Return what a condition sees in a frame, without its port."""
    seen = ['%s %s' % (field(part, packet), value(part, packet.read(part)))
            for part in found.parts
            if part not in (*_PORT, nftx.IIFGROUP, nftx.OIFGROUP)]
    return ' and '.join(seen) or 'link group %d' % packet.group


def _named(number: int, known: dict[int, str]) -> str:
    return known.get(number) or str(number)


def _number(what: nftx.Load, kind: int) -> int:
    return int.from_bytes(what.values.get(kind, b''), 'big')
