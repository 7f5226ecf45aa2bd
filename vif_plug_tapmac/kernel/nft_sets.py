# SPDX-License-Identifier: Apache-2.0

"""Sets of nf_tables as bytes: what they are, and their elements.

Source: include/uapi/linux/netfilter/nf_tables.h
"""

import errno
import itertools
import struct
import typing

from vif_plug_tapmac.kernel import attributes
from vif_plug_tapmac.kernel.attributes import Attributes
from vif_plug_tapmac.kernel import nft
from vif_plug_tapmac.kernel.nft import Step
from vif_plug_tapmac.kernel import rtnetlink

#: What there are messages of.
_SET, _ELEMENTS = 9, 12
_DELETE_ELEMENTS = nft.message(14)
# Attributes.
_SET_TABLE, _SET_NAME, _SET_FLAGS, _SET_KEY_TYPE, _SET_KEY_LENGTH, _SET_ID = (
    1, 2, 3, 4, 5, 10)
_SET_USERDATA = 13
_LIST_TABLE, _LIST_SET, _LIST_ELEMENTS = 1, 2, 3
_ELEMENT_KEY, _ELEMENT_USERDATA, _DATA_VALUE = 1, 6, 1
#: How nft keeps which order the octets of a key have: kind, length, and that
#: of this machine. Source: libnftnl, include/libnftnl/udata.h,
#: NFTNL_UDATA_SET_KEYBYTEORDER; nftables, include/datatype.h,
#: BYTEORDER_HOST_ENDIAN
_HOST_ORDER = struct.pack('=BBI', 0, 4, 1)
#: How many elements are in one message: it has 65535 octets at most.
_AT_ONCE = 400
#: How often a long set is listed until two listings are the same.
_LISTINGS = 8


class Set(typing.NamedTuple):
    """A set of keys.

    :param key_type: as nft shows them
    :param length: of a key, in octets
    :param is_number: whether it is one, which nft has to be told
    """
    name: str
    key_type: int
    length: int
    is_number: bool = False


def has(session: nft.Session, table: str, name: str, key: bytes) -> bool:
    """Return whether a key is in a set."""
    return bool(session.look_up(
        _ELEMENTS, name, _elements(table, name, [(key, '')]),
        lambda _: True))


def elements(session: nft.Session, table: str,
             name: str) -> list[tuple[bytes, str]]:
    """Return the keys of a set, each with its comment.

    What the kernel keeps them in may grow or shrink between two parts of
    a listing, which then passes some over, so a long one is compared with
    another. Source: net/netfilter/nft_set_hash.c, nft_rhash_walk

    :returns: none where there is no such set
    """
    found: dict[bytes, str] = {}
    for _ in range(_LISTINGS):
        before, parts = found, session.list(
            'nftables', 'listing %s' % name, nft.message(_ELEMENTS, get=True),
            nft.body(attributes.text(_LIST_TABLE, table),
                     attributes.text(_LIST_SET, name)),
            lambda each: nft.read(each).octets(_LIST_ELEMENTS) or b'',
            tolerated=errno.ENOENT)
        found = {told.nested(_ELEMENT_KEY).octets(_DATA_VALUE) or b'':
                 nft.comment_of(told.octets(_ELEMENT_USERDATA))
                 for part in parts for _, data in attributes.every(part)
                 for told in [Attributes(data)]}
        if len(parts) < 2 or found == before:
            break
    return list(found.items())


def is_right(session: nft.Session, table: str, wanted: Set) -> bool:
    """Return whether a set is there, with keys of this length."""
    return bool(session.look_up(
        _SET, wanted.name, attributes.text(_SET_TABLE, table)
        + attributes.text(_SET_NAME, wanted.name),
        lambda told: nft.value(told, _SET_KEY_LENGTH) == wanted.length
        and not nft.value(told, _SET_FLAGS)))


def new_set(table: str, wanted: Set, number_in_transaction: int) -> Step:
    parts = [attributes.text(_SET_TABLE, table),
             attributes.text(_SET_NAME, wanted.name),
             nft.number(_SET_KEY_TYPE, wanted.key_type),
             nft.number(_SET_KEY_LENGTH, wanted.length),
             nft.number(_SET_ID, number_in_transaction)]
    if wanted.is_number:
        parts.append(attributes.attribute(_SET_USERDATA, _HOST_ORDER))
    return nft.message(_SET), rtnetlink.CREATE, nft.body(*parts)


def add_elements(table: str, name: str,
                 elements: typing.Iterable[tuple[bytes, str]]) -> list[Step]:
    """Have keys in a set, each with a comment; they may be there already."""
    return [(nft.message(_ELEMENTS), rtnetlink.CREATE,
             nft.body(_elements(table, name, some)))
            for some in _in_parts(elements)]


def delete_elements(table: str, name: str,
                    keys: typing.Iterable[bytes]) -> list[Step]:
    """Have keys in a set no more; one that is not there is ENOENT."""
    return [(_DELETE_ELEMENTS, 0, nft.body(_elements(table, name, some)))
            for some in _in_parts((key, '') for key in keys)]


def _in_parts(elements: typing.Iterable[tuple[bytes, str]],
              ) -> typing.Iterator[list[tuple[bytes, str]]]:
    left = iter(elements)
    while some := list(itertools.islice(left, _AT_ONCE)):
        yield some


def _elements(table: str, name: str,
              elements: typing.Iterable[tuple[bytes, str]]) -> bytes:
    parts = []
    for key, comment in elements:
        told = nft.nested(_ELEMENT_KEY, attributes.attribute(_DATA_VALUE, key))
        if comment:
            told += attributes.attribute(_ELEMENT_USERDATA,
                                         nft.userdata(comment))
        parts.append(nft.nested(nft.IN_LIST, told))
    return (attributes.text(_LIST_TABLE, table)
            + attributes.text(_LIST_SET, name)
            + nft.nested(_LIST_ELEMENTS, *parts))
