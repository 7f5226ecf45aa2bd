# SPDX-License-Identifier: Apache-2.0

"""Sets of nf_tables as bytes: what they are, and their elements.

Source: include/uapi/linux/netfilter/nf_tables.h
"""

import collections
import errno
import functools
import struct
import typing

from vif_plug_tapmac.kernel import attributes
from vif_plug_tapmac.kernel.attributes import Attributes
from vif_plug_tapmac.kernel import nft
from vif_plug_tapmac.kernel.nft import Step
from vif_plug_tapmac.kernel import rtnetlink

#: What there are messages of.
_SET, _ELEMENTS = 9, 12
_NEW_ELEMENTS = nft.message(_ELEMENTS)
_DELETE_SET, _DELETE_ELEMENTS = nft.message(11), nft.message(14)
# Attributes.
_SET_TABLE, _SET_NAME, _SET_FLAGS, _SET_KEY_TYPE, _SET_KEY_LENGTH, _SET_ID = (
    1, 2, 3, 4, 5, 10)
_SET_DATA_TYPE, _SET_DATA_LENGTH, _SET_SHAPE, _SET_USERDATA = 6, 7, 9, 13
_SHAPE_SIZE, _SHAPE_PARTS, _PART_LENGTH = 1, 2, 1
_SET_TIMEOUT, _SET_SWEPT_EVERY = 11, 12
_LIST_TABLE, _LIST_SET, _LIST_ELEMENTS = 1, 2, 3
(_ELEMENT_KEY, _ELEMENT_DATA, _ELEMENT_FLAGS, _ELEMENT_USERDATA,
 _ELEMENT_EXPRESSION, _ELEMENT_LAST) = 1, 2, 3, 6, 7, 10
_DATA_VALUE, _DATA_VERDICT, _VERDICT_CODE, _VERDICT_CHAIN = 1, 2, 1, 2
_EXPRESSION_DATA, _COUNTER_BYTES, _COUNTER_PACKETS = 2, 1, 2
#: Flags of a set, and of an element.
_INTERVAL, _MAP, _FORGETS, _BY_RULES, _PARTS, _ENDS = (
    0x4, 0x8, 0x10, 0x20, 0x80, 1)
#: How often the kernel frees what is forgotten, in milliseconds.
_SWEEPS_EVERY = 3600000
#: How many elements rules put into a set at most, if it does not say.
_MOST_BY_RULES = 65535
#: How nft calls what keys are made of: addresses, MACs, marks; indexes, types,
#: groups and names of links.
#: Source: nftables, include/datatype.h, enum datatypes
IP, IP6, ETHER, MARK = 7, 8, 9, 19
INDEX, LINK_TYPE, GROUP, LINK_NAME = 20, 21, 35, 41
#: What a map has that says where to go on: how nft calls that, and its length.
VERDICTS = 0xffffff00, 16
#: How nft keeps which order the octets of a key have, and those of what a map
#: has for it: kind, length, and that of this machine. Source: libnftnl,
#: include/libnftnl/udata.h, NFTNL_UDATA_SET_KEYBYTEORDER, ..._DATABYTEORDER;
#: nftables, include/datatype.h, BYTEORDER_HOST_ENDIAN
_HOST_ORDER, _DATA_IN_HOST_ORDER = (
    struct.pack('=BBI', kind, 4, 1) for kind in (0, 1))
#: Of an element, its key, and the octets of that: how long each is, and what;
#: and of all elements of a message.
_KEY_HEADS = struct.Struct('=6H')
_LIST_HEAD = struct.Struct('=2H')
#: How many elements are in one message: it has 65535 octets at most.
_AT_ONCE = 400
#: How often a long set is listed until two listings are the same.
_LISTINGS = 8
#: Of how many sets it is known what they had when they were read last. Of a
#: thousand ports there are twelve thousand elements, which are read before a
#: change and after it, and nearly all are as they were.
_KEPT = 32
_read: collections.OrderedDict[
    tuple[str, str], dict[bytes, 'Element']] = collections.OrderedDict()


class Set(typing.NamedTuple):
    """A set of keys, or a map that has something for each.

    :param key_type: as nft shows them
    :param length: of a key, in octets
    :param is_number: whether it is one, or the name of a link, which nft has
        to be told
    :param is_interval: whether an element is all keys from one to another
    :param parts: of such keys that have several, how long each is, in octets,
        before it is filled up to whole words; empty: it has one
    :param data: of a map, how nft shows the number that it has, and how long
        that is in octets; VERDICTS: which chain to go to; None: it is a set
    :param is_by_rules: whether rules put in what is in it
    :param seconds: of such a set, how long it keeps what they have not put in
        again; 0: as long as it is there itself
    :param size: how many keys there may be, of which a number is found faster
        then; 0: 65535 of such a set, and of others as many as there is room
        for
    """
    name: str
    key_type: int
    length: int
    is_number: bool = False
    is_interval: bool = False
    parts: tuple[int, ...] = ()
    data: tuple[int, int] | None = None
    is_by_rules: bool = False
    seconds: int = 0
    size: int = 0


class Element(typing.NamedTuple):
    """What is in a set.

    :param comment: for whoever lists it; empty: none
    :param last: of an interval of keys with several parts, its end; the
        first and the last of each part are in it, and all between
    :param ends: whether an interval, of keys with one part, is over here
    :param data: what a map has for it; the name of a chain: that it goes
        there; None: nothing, as it is a set
    """
    key: bytes
    comment: str = ''
    last: bytes | None = None
    ends: bool = False
    data: bytes | str | None = None


def type_of(*parts: int) -> int:
    """Return how nft calls a key of several parts: six bits for each.

    Source: nftables, include/datatype.h, TYPE_BITS
    """
    found = 0
    for each in parts:
        found = found << 6 | each
    return found


def interval(first: bytes, last: bytes, comment: str = '') -> list[Element]:
    """Return what is in a set for all keys from one to another, of one part.

    No two of a set may have a key in common.
    """
    after = int.from_bytes(last, 'big') + 1
    if after >> 8 * len(last):  # It ends where all keys do.
        return [Element(first, comment)]
    return [Element(first, comment),
            Element(after.to_bytes(len(last), 'big'), ends=True)]


def intervals(found: typing.Iterable[Element]) -> list[tuple[bytes, bytes]]:
    """Return first and last key of each interval that is in a set, in order.

    :param found: all that is in it
    """
    pairs: list[tuple[bytes, bytes]] = []
    first: bytes | None = None
    for each in sorted(found, key=lambda each: (each.key, not each.ends)):
        if not each.ends:
            first = each.key
        elif first is not None:
            last = int.from_bytes(each.key, 'big') - 1
            pairs.append((first, last.to_bytes(len(first), 'big')))
            first = None
    return pairs if first is None else [*pairs,
                                        (first, b'\xff' * len(first))]


def has(session: nft.Session, table: str, name: str, key: bytes) -> bool:
    """Return whether a key is in a set, or begins an interval there."""
    return bool(session.look_up(
        _ELEMENTS, name, attributes.text(_LIST_TABLE, table)
        + attributes.text(_LIST_SET, name)
        + nft.nested(_LIST_ELEMENTS, _encoded_key(Element(key))),
        lambda _: True))


def elements(session: nft.Session, table: str, name: str) -> list[Element]:
    """Return what is in a set; none where there is no such set."""
    former = _read.pop((table, name), {})
    found = {octets: former.get(octets) or decoded(Attributes(octets))
             for octets in _listed(session, table, name, lambda each: each)}
    if found:
        _read[table, name] = found
    if len(_read) > _KEPT:
        _read.popitem(last=False)
    return list(found.values())


def counts(session: nft.Session, table: str, name: str,
           ) -> dict[bytes, tuple[int, int]]:
    """Return for each key of a set what was counted: packets and bytes.

    :returns: none where there is no such set
    """
    return dict(map(_counted, _listed(
        session, table, name, lambda octets: _counted(octets)[0])))


def _counted(octets: bytes) -> tuple[bytes, tuple[int, int]]:
    told = Attributes(octets)
    counter = told.nested(_ELEMENT_EXPRESSION).nested(_EXPRESSION_DATA)
    return told.nested(_ELEMENT_KEY).octets(_DATA_VALUE) or b'', (
        nft.value(counter, _COUNTER_PACKETS) or 0,
        nft.value(counter, _COUNTER_BYTES) or 0)


def _listed(session: nft.Session, table: str, name: str,
            key: typing.Callable[[bytes], bytes]) -> list[bytes]:
    """Return each element of a set, as the kernel tells it.

    What the kernel keeps it in may grow or shrink between two parts of a
    listing, which then passes some over, so a long one is compared with
    another. Source: net/netfilter/nft_set_hash.c, nft_rhash_walk

    :param key: what an element is known by
    """
    found: dict[bytes, bytes] = {}
    for _ in range(_LISTINGS):
        before, parts = found, session.list(
            'nftables', 'listing %s' % name, nft.message(_ELEMENTS, get=True),
            session.body(attributes.text(_LIST_TABLE, table),
                         attributes.text(_LIST_SET, name)),
            lambda each: nft.read(each).octets(_LIST_ELEMENTS) or b'',
            tolerated=errno.ENOENT)
        found = {key(each): each for part in parts
                 for _, each in attributes.every(part)}
        if len(parts) < 2 or found.keys() == before.keys():
            break
    return list(found.values())


def decoded(told: Attributes) -> Element:
    """Return an element, as the kernel tells it."""
    data: bytes | str | None = None
    if _ELEMENT_DATA in told:
        there = told.nested(_ELEMENT_DATA)
        data = there.octets(_DATA_VALUE)
        if data is None:
            data = there.nested(_DATA_VERDICT).text(_VERDICT_CHAIN) or ''
    return Element(
        told.nested(_ELEMENT_KEY).octets(_DATA_VALUE) or b'',
        nft.comment_of(told.octets(_ELEMENT_USERDATA)),
        told.nested(_ELEMENT_LAST).octets(_DATA_VALUE),
        bool((nft.value(told, _ELEMENT_FLAGS) or 0) & _ENDS), data)


def names(session: nft.Session, table: str) -> list[str]:
    """Return the names of all sets and maps of a table; none without it."""
    return session.list(
        'nftables', 'listing the sets of %s' % table,
        nft.message(_SET, get=True),
        session.body(attributes.text(_SET_TABLE, table)),
        lambda each: nft.read(each).text(_SET_NAME) or '',
        tolerated=errno.ENOENT)


def is_right(session: nft.Session, table: str, wanted: Set) -> bool:
    """Return whether a set is there, of this kind, with keys of this length.

    What is in it is another matter.
    """
    data = wanted.data[0] if wanted.data else None
    return bool(session.look_up(
        _SET, wanted.name, attributes.text(_SET_TABLE, table)
        + attributes.text(_SET_NAME, wanted.name),
        lambda told: nft.value(told, _SET_KEY_LENGTH) == wanted.length
        and (nft.value(told, _SET_FLAGS) or 0) == _flags(wanted)
        and nft.value(told, _SET_DATA_TYPE) == data))


def _flags(wanted: Set) -> int:
    return (_INTERVAL * wanted.is_interval | _PARTS * bool(wanted.parts)
            | _MAP * (wanted.data is not None)
            | _FORGETS * bool(wanted.seconds)
            | _BY_RULES * wanted.is_by_rules)


def new_set(table: str, wanted: Set, number_in_transaction: int) -> Step:
    """Make a set or a map; one of this kind may be there already."""
    parts = [attributes.text(_SET_TABLE, table),
             attributes.text(_SET_NAME, wanted.name),
             nft.number(_SET_KEY_TYPE, wanted.key_type),
             nft.number(_SET_KEY_LENGTH, wanted.length),
             nft.number(_SET_ID, number_in_transaction)]
    if flags := _flags(wanted):
        parts.append(nft.number(_SET_FLAGS, flags))
    if wanted.data:
        parts += [nft.number(_SET_DATA_TYPE, wanted.data[0]),
                  nft.number(_SET_DATA_LENGTH, wanted.data[1])]
    if wanted.parts:
        parts.append(nft.nested(_SET_SHAPE, nft.nested(_SHAPE_PARTS, *(
            nft.nested(nft.IN_LIST, nft.number(_PART_LENGTH, length))
            for length in wanted.parts))))
    if size := wanted.size or _MOST_BY_RULES * wanted.is_by_rules:
        parts.append(nft.nested(_SET_SHAPE, nft.number(_SHAPE_SIZE, size)))
    if wanted.seconds:
        parts += [attributes.attribute(
            _SET_TIMEOUT, struct.pack('>Q', wanted.seconds * 1000)),
            nft.number(_SET_SWEPT_EVERY, _SWEEPS_EVERY)]
    if wanted.is_number:
        parts.append(attributes.attribute(
            _SET_USERDATA, _HOST_ORDER + (
                b'' if wanted.data in (None, VERDICTS)
                else _DATA_IN_HOST_ORDER)))
    return nft.message(_SET), rtnetlink.CREATE, nft.body(*parts)


def delete_set(table: str, name: str) -> Step:
    """Have a set no more, and its elements; EBUSY where a rule looks at it.

    What did so and is deleted before, in the same transaction, does not.
    """
    return _DELETE_SET, 0, nft.body(attributes.text(_SET_TABLE, table),
                                    attributes.text(_SET_NAME, name))


def add_elements(table: str, name: str,
                 elements: typing.Iterable[Element]) -> list[Step]:
    """Have elements in a set; they may be there already.

    One that a map has something else for is EBUSY, or EEXIST.
    """
    return [(_NEW_ELEMENTS, rtnetlink.CREATE,
             _elements(table, name, map(_encoded, some)))
            for some in _in_parts(list(elements))]


def delete_elements(table: str, name: str,
                    elements: typing.Iterable[Element]) -> list[Step]:
    """Have elements in a set no more; one that is not there is ENOENT.

    Their comments, and what a map has for them, do not matter.
    """
    return [(_DELETE_ELEMENTS, 0,
             _elements(table, name, map(_encoded_key, some)))
            for some in _in_parts(list(elements))]


def _in_parts(elements: list[Element]) -> list[list[Element]]:
    return [elements[place:place + _AT_ONCE]
            for place in range(0, len(elements), _AT_ONCE)]


def _elements(table: str, name: str, encoded: typing.Iterable[bytes]) -> bytes:
    """Return the body of a message on elements."""
    octets = b''.join(encoded)
    return _head(table, name) + _LIST_HEAD.pack(
        _LIST_HEAD.size + len(octets),
        attributes.NESTED | _LIST_ELEMENTS) + octets


@functools.lru_cache(maxsize=256)
def _head(table: str, name: str) -> bytes:
    return nft.body(attributes.text(_LIST_TABLE, table),
                    attributes.text(_LIST_SET, name))


def _encoded(element: Element) -> bytes:
    """Return the message of an element, with all that it has."""
    rest = []
    if isinstance(element.data, bytes):
        rest.append(nft.nested(_ELEMENT_DATA, attributes.attribute(
            _DATA_VALUE, element.data)))
    elif element.data is not None:
        rest.append(nft.nested(_ELEMENT_DATA, nft.nested(
            _DATA_VERDICT, nft.number(_VERDICT_CODE, nft.GO_TO),
            attributes.text(_VERDICT_CHAIN, element.data))))
    if element.comment:
        rest.append(attributes.attribute(_ELEMENT_USERDATA,
                                         nft.userdata(element.comment)))
    return _encoded_key(element, b''.join(rest))


def _encoded_key(element: Element, rest: bytes = b'') -> bytes:
    """Return the message of an element, with its key and what is said.

    Each plug has some of them: three attributes that are in one another are
    written at once.
    """
    if element.last is not None:
        rest = nft.nested(_ELEMENT_LAST, attributes.attribute(
            _DATA_VALUE, element.last)) + rest
    if element.ends:
        rest = nft.number(_ELEMENT_FLAGS, _ENDS) + rest
    length = len(element.key)
    whole = attributes.aligned(length)
    return _KEY_HEADS.pack(
        12 + whole + len(rest), attributes.NESTED | nft.IN_LIST,
        8 + whole, attributes.NESTED | _ELEMENT_KEY,
        4 + length, _DATA_VALUE) + element.key + bytes(whole - length) + rest
