# SPDX-License-Identifier: Apache-2.0

"""What rules of nf_tables are made of: where frames are looked at, and how.

Each function returns the expressions that do one thing, or a rule of them.
Source: include/uapi/linux/netfilter/nf_tables.h
"""

import itertools
import struct
import sys
import typing

from vif_plug_tapmac.kernel import nft
from vif_plug_tapmac.kernel.nft import Expression
from vif_plug_tapmac.kernel.nft import Rule

#: Of a frame, its Ethernet header, that of IP or ARP, and what follows this.
ETHERNET, NETWORK, TRANSPORT = 0, 1, 2
#: How what is loaded compares.
EQUAL, NOT_EQUAL, LESS, AT_MOST, MORE, AT_LEAST = range(6)
#: The first register that holds 16 octets, and the second of those with 4.
_FIRST, _SECOND, _VERDICT = 1, 9, 0
#: Which of them has what a map had.
FOUND = _FIRST
_DROP, _ACCEPT, _JUMP, _RETURN = 0, 1, -3, -5
_PRESENT, _INVERTED, _UPDATE = 1, 1, 1
#: Of what is between two others: that it is.
_WITHIN = 0
_PACKETS, _INFO = 0, 6
_IPV6_FRAGMENT = 44
_CT_ZONE, _ADD, _OVER = 17, 0, 1


class Load(typing.NamedTuple):
    """Something to be loaded, into the register that its attribute 1 says.

    :param length: in octets
    """
    name: str
    values: dict[int, bytes]
    length: int


def field(base: int, offset: int, length: int) -> Load:
    """Return a part of a frame; where it is too short, no rule matches.

    Of a packet that is a later fragment, TRANSPORT may be what is there where
    that header is in others. So such are to be told before.
    Source: net/netfilter/nf_tables_core.c, nft_payload_fast_eval
    """
    return Load('payload', {2: nft.octets(base), 3: nft.octets(offset),
                            4: nft.octets(length)}, length)


def _known(key: int, length: int) -> Load:
    return Load('meta', {2: nft.octets(key)}, length)


def _fragment(offset: int, length: int, flags: int) -> Load:
    return Load('exthdr', {
        2: bytes([_IPV6_FRAGMENT]), 3: nft.octets(offset),
        4: nft.octets(length), 5: nft.octets(flags), 6: nft.octets(0)},
        length)


#: What a frame carries; the index of the port that it came in at, its link
#: group, and which protocol is in IP, whatever headers there are before.
ETHERTYPE = _known(1, 2)
IIF, IIFGROUP, PROTOCOL = _known(4, 4), _known(21, 4), _known(16, 1)
#: The same of the port that a frame goes out at.
OIF, OIFGROUP = _known(5, 4), _known(22, 4)
#: What kind of links these ports are.
IIFTYPE, OIFTYPE = _known(8, 2), _known(9, 2)
#: For whom the frame is, as the kernel sees it, and what its bridge is called.
PACKET_KIND, BRIDGE = _known(19, 1), _known(17, 16)
#: A number that a packet carries along inside this host.
MARK = _known(3, 4)
#: Whether a packet of IPv6 is a fragment; which header comes after that; and
#: what is in it, of which it is, in 13 bits.
IS_FRAGMENT = _fragment(0, 1, _PRESENT)
AFTER_FRAGMENT, FRAGMENT_OFFSET = _fragment(0, 1, 0), _fragment(2, 2, 0)
#: Of its connection: which part a frame has in it, as one of the bits that
#: follow, and what has happened to it, as other bits.
CT_STATE, CT_STATUS = (Load('ct', {2: nft.octets(key)}, 4) for key in (0, 2))
#: None, as it makes no sense; of one that there is; of that of another, as an
#: error is; of a new one. Source: include/uapi/linux/netfilter/
#: nf_conntrack_common.h, NF_CT_STATE_BIT
INVALID, ESTABLISHED, RELATED, NEW = 1, 2, 4, 8
#: Of what has happened: that its first frame has got through.
CONFIRMED = 8


def is_so(what: Load, how: int, wanted: bytes) -> tuple[Expression, ...]:
    """Match where something compares so with these octets."""
    return _loaded(what, _FIRST), ('cmp', {
        1: nft.octets(_FIRST), 2: nft.octets(how), 3: {1: wanted}})


def equals(what: Load, wanted: int) -> tuple[Expression, ...]:
    """Match where something is this number."""
    return is_so(what, EQUAL, wanted.to_bytes(what.length, 'big'))


def is_between(what: Load, first: int, last: int) -> tuple[Expression, ...]:
    """Match where something is one of these numbers, or between them."""
    return _loaded(what, _FIRST), ('range', {
        1: nft.octets(_FIRST), 2: nft.octets(_WITHIN),
        3: {1: first.to_bytes(what.length, 'big')},
        4: {1: last.to_bytes(what.length, 'big')}})


def has_bits(what: Load, mask: int) -> tuple[Expression, ...]:
    """Match where one of these bits of something is set."""
    return _masked(what, mask, NOT_EQUAL)


def has_no_bits(what: Load, mask: int) -> tuple[Expression, ...]:
    """Match where none of these bits of something is set."""
    return _masked(what, mask, EQUAL)


def begins_with(what: Load, wanted: bytes,
                length: int) -> tuple[Expression, ...]:
    """Match where so many bits of something are these, from the first on."""
    mask = -1 << 8 * what.length - length & (1 << 8 * what.length) - 1
    return _masked(what, mask, EQUAL, wanted)


def is_mark(mark: int) -> tuple[Expression, ...]:
    """Match where a packet carries this MARK."""
    return is_so(MARK, EQUAL, struct.pack('=I', mark))


def is_one_of(what: Load, bits: int) -> tuple[Expression, ...]:
    """Match where one of these bits of a number of this machine is set."""
    return has_bits(what, _turned(bits))


def is_none_of(what: Load, bits: int) -> tuple[Expression, ...]:
    """Match where none of these bits of a number of this machine is set."""
    return has_no_bits(what, _turned(bits))


def _turned(number: int) -> int:
    """Return the number whose octets are those of a number here."""
    return int.from_bytes(number.to_bytes(4, sys.byteorder), 'big')


def in_zone_of(name: str, *parts: Load) -> tuple[Expression, ...]:
    """Have conntrack take a frame for one of the zone that a map has.

    Before conntrack sees it. Before Linux 6.18.45, 6.12.104, 6.1.183 and
    5.10.265 that costs memory for good where it is neither IPv4 nor IPv6.
    Source: CVE-2026-74625
    """
    return *from_map(name, *parts), ('ct', {
        2: nft.octets(_CT_ZONE), 4: nft.octets(FOUND)})


def are_more_than(name: str, key: Load,
                  most: int) -> tuple[Expression, ...]:
    """Match a new connection if there are so many already, with this key.

    :param name: of a set in which the kernel keeps how many; a frame of a
        connection that has been counted is counted again, perhaps
    """
    return _loaded(key, _FIRST), ('dynset', {
        1: name.encode() + b'\0', 3: nft.octets(_ADD), 4: nft.octets(_FIRST),
        7: {1: b'connlimit\0',
            2: {1: nft.octets(most), 2: nft.octets(_OVER)}}})


def is_in(name: str, *parts: Load) -> tuple[Expression, ...]:
    """Match where what is loaded is in a set."""
    return _looked_up(name, parts, 0)


def is_not_in(name: str, *parts: Load) -> tuple[Expression, ...]:
    """Match where what is loaded is not in a set; as it has to be there."""
    return _looked_up(name, parts, _INVERTED)


def as_map_says(name: str, *parts: Load) -> tuple[Expression, ...]:
    """Do what a map of verdicts has for what is loaded, if it has that."""
    return _looked_up(name, parts, 0, _VERDICT)


def from_map(name: str, *parts: Load) -> tuple[Expression, ...]:
    """Match where what is loaded is in a map.

    What it has for it is in :data:`FOUND` then, for the next expression.
    """
    return _looked_up(name, parts, 0, FOUND)


def marked(mark: int) -> tuple[Expression, ...]:
    """Have a packet carry this MARK; it matches."""
    return ('immediate', {1: nft.octets(_FIRST), 2: {
        1: struct.pack('=I', mark)}}), ('meta', {
            **MARK.values, 3: nft.octets(_FIRST)})


def counted(name: str, *parts: Load) -> tuple[Expression, ...]:
    """Count by what is loaded, in a set; where that is full, do not match.

    There it is as long as the set says after it was there last.
    """
    return (*_loaded_at_once(parts), ('dynset', {
        1: name.encode() + b'\0', 3: nft.octets(_UPDATE),
        4: nft.octets(_FIRST), 7: {1: b'counter\0'}}))


def oftener_than(number: int, burst: int) -> tuple[Expression, ...]:
    """Match what comes oftener than so many times a second, but for some."""
    return ('limit', {1: struct.pack('>Q', number), 2: struct.pack('>Q', 1),
                      3: nft.octets(burst), 4: nft.octets(_PACKETS),
                      5: nft.octets(_INVERTED)}),


def logged(prefix: str) -> tuple[Expression, ...]:
    """Have the kernel's log say what is in a frame."""
    return ('log', {2: prefix.encode() + b'\0', 5: nft.octets(_INFO)}),


def go_to(chain: str) -> tuple[Expression, ...]:
    """Leave the rest to another chain."""
    return _verdict(nft.GO_TO, chain)


def jump(chain: str) -> tuple[Expression, ...]:
    """Have another chain look, and come back if it says nothing."""
    return _verdict(_JUMP, chain)


def _looked_up(name: str, parts: tuple[Load, ...], flags: int,
               register: int | None = None) -> tuple[Expression, ...]:
    into: nft.Values = {} if register is None else {3: nft.octets(register)}
    return (*_loaded_at_once(parts),
            ('lookup', {1: name.encode() + b'\0', 2: nft.octets(_FIRST),
                        5: nft.octets(flags), **into}))


def _loaded_at_once(parts: tuple[Load, ...]) -> tuple[Expression, ...]:
    # Each takes as many registers of four octets as it needs.
    places = itertools.accumulate(
        (-(-part.length // 4) for part in parts), initial=_SECOND - 1)
    return tuple(_loaded(part, _register(place))
                 for part, place in zip(parts, places))


def _register(place: int) -> int:
    """Return how the kernel calls a register when it tells of a rule.

    It has one of 16 octets where four of the others begin.
    """
    whole, rest = divmod(place - _SECOND + 1, 4)
    return place if rest else _FIRST + whole


def _masked(what: Load, mask: int, how: int,
            wanted: bytes | None = None) -> tuple[Expression, ...]:
    none = bytes(what.length)
    return _loaded(what, _FIRST), ('bitwise', {
        1: nft.octets(_FIRST), 2: nft.octets(_FIRST),
        3: nft.octets(what.length),
        4: {1: mask.to_bytes(what.length, 'big')}, 5: {1: none}}), (
        'cmp', {1: nft.octets(_FIRST), 2: nft.octets(how),
                3: {1: wanted or none}})


def _loaded(what: Load, register: int) -> Expression:
    return what.name, {1: nft.octets(register), **what.values}


def _verdict(code: int, chain: str = '') -> tuple[Expression, ...]:
    verdict: dict[int, bytes | nft.Values] = {1: nft.octets(code)}
    if chain:
        verdict[2] = chain.encode() + b'\0'
    return ('immediate', {1: nft.octets(_VERDICT), 2: {2: verdict}}),


DROP, ACCEPT, RETURN = (
    _verdict(_DROP), _verdict(_ACCEPT), _verdict(_RETURN))
#: Have the rule count what has matched so far: packets, and bytes.
COUNTED: tuple[Expression, ...] = ('counter', {}),
#: Have conntrack pass a frame over.
NO_TRACK: tuple[Expression, ...] = ('notrack', {}),


def rule(chain: str, *parts: tuple[Expression, ...], why: str = '') -> Rule:
    """Return a rule that does one after the other, as long as all match."""
    return Rule(chain, tuple(each for part in parts for each in part), why)


def drop(chain: str, why: str, *conditions: tuple[Expression, ...]) -> Rule:
    """Return a rule that drops what matches, which is this."""
    return rule(chain, *conditions, DROP, why=why)


def accept(chain: str, *conditions: tuple[Expression, ...]) -> Rule:
    """Return a rule that lets pass what matches."""
    return rule(chain, *conditions, ACCEPT)


def go(chain: str, *conditions: tuple[Expression, ...], to: str) -> Rule:
    """Return a rule that leaves what matches to another chain."""
    return rule(chain, *conditions, go_to(to))
