# SPDX-License-Identifier: Apache-2.0

"""Attributes of netlink messages, as bytes.

Source: include/uapi/linux/netlink.h
"""

import struct
import sys
import typing

#: Flags of an attribute's type; one of them: there are others inside.
_TYPE_MASK, NESTED = 0x3fff, 0x8000
_ATTRIBUTE = struct.Struct('=HH')


class Attributes:
    """The attributes in a part of a message, each found by its number.

    A missing one is None.
    """

    def __init__(self, data: bytes) -> None:
        # As octets: half of them are asked for, by their numbers.
        self._values: dict[int, bytes] = {}
        values, unpack, mask = self._values, _ATTRIBUTE.unpack_from, _TYPE_MASK
        place, least = 0, _ATTRIBUTE.size
        last = len(data) - least
        while place <= last:
            length, kind = unpack(data, place)
            if length < least:
                break
            values[kind & mask] = data[place + least:place + length]
            place += (length + 3) & ~3  # As in aligned.

    def __contains__(self, kind: int) -> bool:
        return kind in self._values

    def beyond(self, kind: int) -> list[int]:
        """Return the numbers of those that come after this one."""
        return sorted(each for each in self._values if each > kind)

    def octets(self, kind: int) -> bytes | None:
        """Return a value as it is."""
        return self._values.get(kind)

    def number(self, kind: int) -> int | None:
        """Return an unsigned number of any size."""
        octets = self.octets(kind)
        return None if octets is None else int.from_bytes(octets,
                                                          sys.byteorder)

    def text(self, kind: int) -> str | None:
        """Return a string, without the zero at its end."""
        octets = self.octets(kind)
        return (None if octets is None
                else octets.rstrip(b'\0').decode('utf-8', 'replace'))

    def mac(self, kind: int) -> str | None:
        """Return an address as six colon-separated hex octets, lower case."""
        octets = self.octets(kind)
        return None if octets is None else octets.hex(':')

    def numbers(self, kind: int) -> tuple[int, ...] | None:
        """Return an array of numbers with 32 bits each."""
        octets = self.octets(kind)
        return (None if octets is None
                else struct.unpack('=%dI' % (len(octets) // 4), octets))

    def nested(self, kind: int) -> 'Attributes':
        """Return the attributes inside of one; none if it is missing."""
        return Attributes(self.octets(kind) or b'')


def every(data: bytes) -> typing.Iterator[tuple[int, bytes]]:
    """Yield number and value of each, also where several have one number."""
    place = 0
    while place <= len(data) - _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data, place)
        if length < _ATTRIBUTE.size:
            return
        yield kind & _TYPE_MASK, data[place + _ATTRIBUTE.size:place + length]
        place += aligned(length)


def attribute(kind: int, value: bytes) -> bytes:
    length = _ATTRIBUTE.size + len(value)
    return (_ATTRIBUTE.pack(length, kind) + value
            + bytes(aligned(length) - length))


def octet(kind: int, value: int) -> bytes:
    return attribute(kind, bytes([value]))


def number(kind: int, value: int) -> bytes:
    return attribute(kind, value.to_bytes(4, sys.byteorder))


def text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode('utf-8') + b'\0')


def mac(kind: int, value: str) -> bytes:
    return attribute(kind, bytes.fromhex(value.replace(':', '')))


def aligned(length: int) -> int:
    """Return how many octets so many take in a message."""
    return (length + 3) & ~3
