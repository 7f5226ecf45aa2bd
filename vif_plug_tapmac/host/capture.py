# SPDX-License-Identifier: Apache-2.0

"""Frames as people have them: in hex, or as tcpdump writes them. Pure."""

import re
import struct
import typing

from vif_plug_tapmac.host import packet

#: How a file begins that tcpdump writes, by which times have which precision.
#: Source: libpcap, pcap-savefile(5)
_MAGICS = 0xa1b2c3d4, 0xa1b23c4d
#: That of its successor, which Wireshark writes.
_SUCCESSOR = b'\n\r\r\n'
_HEAD, _EACH = 24, 16
#: LINKTYPE_ETHERNET
_ETHERNET = 1
#: What tools put before each line, and between octets.
_OFFSET = re.compile(rb'^\s*(?:0x[0-9a-f]+:|[0-9a-f]{4,8}:? {2,})',
                     re.MULTILINE | re.IGNORECASE)
_BETWEEN = re.compile(rb'[\s:.-]+|0x', re.IGNORECASE)


class Frame(typing.NamedTuple):
    """A frame that was captured.

    :param octets: of what was not captured, zeros
    :param is_whole: whether all of it was
    """
    octets: bytes
    is_whole: bool


def read(data: bytes) -> list[Frame]:
    """Return the frames of a file, or of a text with one in hex.

    :raises ValueError: it is neither, or none that a guest can send
    """
    if data[:4] == _SUCCESSOR:
        raise ValueError('it is a pcapng file: "editcap -F pcap" makes a pcap '
                         'file of it')
    for order in '<>':
        if len(data) >= 4 and struct.unpack_from(
                order + 'I', data)[0] in _MAGICS:
            found = list(_of_file(data, order))
            break
    else:
        found = [Frame(_of_text(data), True)]
    for number, each in enumerate(found, 1):
        if not (packet.ETHERNET_LENGTH <= len(each.octets)
                <= packet.LONGEST):
            raise ValueError(
                'frame %d has %d octets, and a guest sends %d to %d' % (
                    number, len(each.octets), packet.ETHERNET_LENGTH,
                    packet.LONGEST))
    return found


def _of_file(data: bytes, order: str) -> typing.Iterator[Frame]:
    if len(data) < _HEAD:
        raise ValueError('the file is cut off')
    kind = struct.unpack_from(order + 'I', data, 20)[0] & 0xffff
    if kind != _ETHERNET:
        raise ValueError('it has no Ethernet frames, but those of link type '
                         '%d: capture at the TAP itself' % kind)
    place = _HEAD
    while place < len(data):
        if place + _EACH > len(data):
            raise ValueError('the file is cut off')
        kept, length = struct.unpack_from(order + 'II', data, place + 8)
        place += _EACH
        if place + kept > len(data) or length > packet.LONGEST:
            raise ValueError('the file is cut off, or damaged')
        yield Frame(data[place:place + kept].ljust(length, b'\0'),
                    kept >= length)
        place += kept


def _of_text(data: bytes) -> bytes:
    text = _BETWEEN.sub(b'', _OFFSET.sub(b'', data))
    try:
        return bytes.fromhex(text.decode('ascii'))
    except ValueError:
        raise ValueError('it is neither a frame in hex, nor a pcap file')
