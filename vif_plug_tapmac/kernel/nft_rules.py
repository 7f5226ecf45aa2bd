# SPDX-License-Identifier: Apache-2.0

"""Rules of nf_tables as the kernel tells them, and what they have counted.

Source: include/uapi/linux/netfilter/nf_tables.h
"""

import typing

from vif_plug_tapmac.kernel import attributes
from vif_plug_tapmac.kernel.attributes import Attributes
from vif_plug_tapmac.kernel import nft
from vif_plug_tapmac.kernel.nft import Rule

_NAME, _BYTES, _PACKETS = 'counter', 1, 2
#: That name in a rule, behind the head of its expression.
_COUNTER = attributes.text(nft.EXPRESSION_NAME, _NAME)
_HEAD = 4
#: Which attributes of each expression have others in them, and these likewise.
_Nested = typing.Mapping[int, typing.Any]
_NESTED: dict[str, _Nested] = {
    'cmp': {3: {}}, 'bitwise': {4: {}, 5: {}}, 'range': {3: {}, 4: {}},
    'immediate': {2: {2: {}}}}


class Told(typing.NamedTuple):
    """A rule, as it is there.

    :param packets: how many it has counted since it was made, and ``bytes``;
        of one that counts, else None
    """
    rule: Rule
    packets: int | None
    bytes: int | None


def read(session: nft.Session, table: str, chain: str) -> list[Told]:
    """Return the rules of a chain in their order; none without the chain."""
    return [read_one(chain, nft.read(each))
            for each in session.rules(table, chain)]


def read_one(chain: str, told: Attributes) -> Told:
    """Return a rule of a chain, from what was told of it."""
    found: list[nft.Expression] = []
    counter = Attributes(b'')
    for _, octets in attributes.every(
            told.octets(nft.RULE_EXPRESSIONS) or b''):
        each = Attributes(octets)
        name = each.text(nft.EXPRESSION_NAME) or ''
        if name == _NAME:
            counter = each.nested(nft.EXPRESSION_DATA)
        found.append((name, {} if name == _NAME else _values(
            each.octets(nft.EXPRESSION_DATA) or b'', _NESTED.get(name, {}))))
    return Told(
        Rule(chain, tuple(found),
             nft.comment_of(told.octets(nft.RULE_USERDATA))),
        nft.value(counter, _PACKETS), nft.value(counter, _BYTES))


def _values(octets: bytes, nested: _Nested) -> dict[int, typing.Any]:
    return {kind: _values(value, nested[kind]) if kind in nested else value
            for kind, value in attributes.every(octets)}


def uncounted(expressions: bytes) -> bytes:
    """Return what a rule is made of, but for what it has counted.

    :param expressions: as the kernel tells them
    """
    # Not by reading what is in each: there may be a hundred thousand rules.
    place = expressions.find(_COUNTER) - _HEAD
    if place < 0:
        return expressions
    length = int.from_bytes(expressions[place:place + 2], nft.BYTE_ORDER)
    return (expressions[:place]
            + expressions[place + attributes.aligned(length):])
