# SPDX-License-Identifier: Apache-2.0

"""nf_tables as bytes: transactions, and what tables are made of.

Its messages are those of netlink, with numbers whose first octet counts most.
Source: include/uapi/linux/netfilter/nf_tables.h, linux/netfilter/nfnetlink.h
"""

import errno
import itertools
import socket
import struct
import typing

from vif_plug_tapmac.kernel import attributes
from vif_plug_tapmac.kernel.attributes import Attributes
from vif_plug_tapmac.kernel import rtnetlink
from vif_plug_tapmac.kernel import session

#: Source: include/uapi/linux/netlink.h
_NETLINK_NETFILTER = 12
#: NFNL_SUBSYS_NFTABLES, and what begins and ends a transaction.
_NF_TABLES, _BEGIN, _END = 10, 0x10, 0x11
_TABLE, _CHAIN, _RULE, _SET, _ELEMENTS = 0, 3, 6, 9, 12
_NEW_GENERATION, _GET_GENERATION = _NF_TABLES << 8 | 15, _NF_TABLES << 8 | 16
_APPEND = 0x800
#: struct nfgenmsg: family, version, which part of netfilter
_BODY = struct.Struct('>BBH')
_BRIDGE = 7
# Attributes.
_TABLE_NAME, _TABLE_FLAGS, _TABLE_HANDLE, _TABLE_USERDATA = 1, 2, 4, 6
_GENERATION_ID, _BATCH_GENERATION = 1, 1
_CHAIN_TABLE, _CHAIN_NAME, _CHAIN_HOOK, _CHAIN_POLICY, _CHAIN_TYPE = (
    1, 3, 4, 5, 7)
_HOOK_NUMBER, _HOOK_PRIORITY = 1, 2
_RULE_TABLE, _RULE_CHAIN, _RULE_EXPRESSIONS, _RULE_USERDATA = 1, 2, 4, 7
_SET_TABLE, _SET_NAME, _SET_FLAGS, _SET_KEY_TYPE, _SET_KEY_LENGTH, _SET_ID = (
    1, 2, 3, 4, 5, 10)
_SET_USERDATA = 13
_LIST_TABLE, _LIST_SET, _LIST_ELEMENTS = 1, 2, 3
_IN_LIST, _ELEMENT_KEY, _ELEMENT_USERDATA, _DATA_VALUE = 1, 1, 6, 1
_EXPRESSION_NAME, _EXPRESSION_DATA = 1, 2
#: How nft keeps the comment of a table, a rule or an element: which kind of
#: thing it is, its length, and itself with a zero at its end.
#: Source: libnftnl, include/libnftnl/udata.h, NFTNL_UDATA_..._COMMENT
_COMMENT = 0
#: How it keeps which order the octets of a key have: kind, length, and that of
#: this machine. Source: as above, NFTNL_UDATA_SET_KEYBYTEORDER; nftables,
#: include/datatype.h, BYTEORDER_HOST_ENDIAN
_HOST_ORDER = struct.pack('=BBI', 0, 4, 1)
_ACCEPT = 1
#: How many elements are in one message: it has 65535 octets at most.
_AT_ONCE = 400
#: How often a long set is listed until two listings are the same.
_LISTINGS = 8
#: How much a socket takes at once beside what is counted here, in bytes.
_OVERHEAD = 1 << 16
#: Source: include/uapi/asm-generic/socket.h
_SO_SNDBUFFORCE = 32

#: What is to be done in a transaction: type, flags and body of a message.
Step = tuple[int, int, bytes]
#: An expression of a rule: its name, and its attributes by their numbers.
Values = typing.Mapping[int, 'bytes | Values']
Expression = tuple[str, Values]


class Table(typing.NamedTuple):
    """A table that was found.

    :param is_in_force: whether its rules are
    :param handle: a number that no table has that is made after it; 0: this
        kernel does not tell
    """
    comment: str
    is_in_force: bool
    handle: int


class Chain(typing.NamedTuple):
    """A chain.

    :param hook: number and priority of where frames come from; None: from
        another chain
    """
    name: str
    hook: tuple[int, int] | None = None


class Rule(typing.NamedTuple):
    """A rule in a chain.

    :param comment: for whoever lists it; empty: none
    """
    chain: str
    expressions: tuple[Expression, ...]
    comment: str = ''


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


class Session(session.Session):
    """A conversation with nf_tables, on tables of the bridge family."""

    PROTOCOL = _NETLINK_NETFILTER

    def __init__(self) -> None:
        super().__init__()
        self._found_right: tuple[typing.Sequence[Rule], list[bytes]] = (), []

    def transact(self, step: str, steps: typing.Sequence[Step],
                 only_if: int | None = None) -> bool:
        """Have several things done, of which all or none is.

        :param only_if: the generation that the rules must be of; None: any
        :returns: False if they are of another; nothing is done
        """
        self._make_room(sum(len(body) for _, _, body in steps))
        frame = _BODY.pack(0, 0, _NF_TABLES)
        begin = frame if only_if is None else frame + number(
            _BATCH_GENERATION, only_if)
        return self._request(
            'nftables', step, self._socket.transact,
            [(_BEGIN, 0, begin), *steps, (_END, 0, frame)],
            tolerated=errno.ERESTART, decode=lambda _: True) is not None

    def _make_room(self, octets: int) -> None:
        if octets > _OVERHEAD:
            room = 2 * octets + _OVERHEAD
            try:
                self._socket.set_option(_SO_SNDBUFFORCE, room)
            except OSError:  # Root of another user namespace has a limit.
                self._socket.set_option(socket.SO_SNDBUF, room)

    def generation(self) -> int:
        """Return a number that is the next one after each change of rules."""
        found = self.ask('nftables', 'asking for its generation',
                         _GET_GENERATION, _BODY.pack(socket.AF_UNSPEC, 0, 0),
                         _NEW_GENERATION,
                         lambda body: value(read(body), _GENERATION_ID))
        return found or 0

    def table(self, name: str) -> Table | None:
        """Return a table; None if there is none."""
        found: Table | None = self._get(
            _TABLE, name, attributes.text(_TABLE_NAME, name),
            lambda told: Table(comment_of(told.octets(_TABLE_USERDATA)),
                               not value(told, _TABLE_FLAGS),
                               value(told, _TABLE_HANDLE) or 0))
        return found

    def is_right_chain(self, table: str, chain: Chain) -> bool:
        """Return whether a chain is there, with its hook, and lets all pass.

        What is in it is another matter.
        """
        def is_right(told: Attributes) -> bool:
            if chain.hook is None:
                return True
            hook = told.nested(_CHAIN_HOOK)
            number, priority = chain.hook
            return (value(hook, _HOOK_NUMBER) == number
                    and value(hook, _HOOK_PRIORITY) == priority % (1 << 32)
                    and value(told, _CHAIN_POLICY) == _ACCEPT)
        return bool(self._get(
            _CHAIN, chain.name, attributes.text(_CHAIN_TABLE, table)
            + attributes.text(_CHAIN_NAME, chain.name), is_right))

    def are_right_rules(self, table: str,
                        rules: typing.Sequence[Rule]) -> bool:
        """Return whether a table has these rules, and no others."""
        bodies = self.list(
            'nftables', 'listing the rules of %s' % table,
            _message(_RULE, get=True),
            body(attributes.text(_RULE_TABLE, table)),
            # Its head has the generation, which is always another.
            lambda each: each[_BODY.size:])
        # To find out what they say takes ten times as long as to have them.
        if self._found_right != (rules, bodies):
            found: dict[str | None, list[Attributes]] = {}
            for told in map(Attributes, bodies):
                if told.text(_RULE_TABLE) == table:
                    found.setdefault(told.text(_RULE_CHAIN), []).append(told)
            if ({chain: len(each) for chain, each in found.items()}
                    != _count(rules)
                    or not all(_has_expressions(found[rule.chain].pop(0), rule)
                               for rule in rules)):
                return False
            self._found_right = rules, bodies
        return True

    def is_right_set(self, table: str, wanted: Set) -> bool:
        """Return whether a set is there, with keys of this length."""
        return bool(self._get(
            _SET, wanted.name, attributes.text(_SET_TABLE, table)
            + attributes.text(_SET_NAME, wanted.name),
            lambda told: value(told, _SET_KEY_LENGTH) == wanted.length
            and not value(told, _SET_FLAGS)))

    def has(self, table: str, name: str, key: bytes) -> bool:
        """Return whether a key is in a set."""
        return bool(self._get(
            _ELEMENTS, name, _elements(table, name, [(key, '')]),
            lambda _: True))

    def elements(self, table: str, name: str) -> list[tuple[bytes, str]]:
        """Return the keys of a set, each with its comment.

        What the kernel keeps them in may grow or shrink between two parts of
        a listing, which then passes some over, so a long one is compared with
        another. Source: net/netfilter/nft_set_hash.c, nft_rhash_walk

        :returns: none where there is no such set
        """
        found: dict[bytes, str] = {}
        for _ in range(_LISTINGS):
            before, parts = found, self.list(
                'nftables', 'listing %s' % name, _message(_ELEMENTS, get=True),
                body(attributes.text(_LIST_TABLE, table),
                     attributes.text(_LIST_SET, name)),
                lambda each: read(each).octets(_LIST_ELEMENTS) or b'',
                tolerated=errno.ENOENT)
            found = {told.nested(_ELEMENT_KEY).octets(_DATA_VALUE) or b'':
                     comment_of(told.octets(_ELEMENT_USERDATA))
                     for part in parts for _, data in attributes.every(part)
                     for told in [Attributes(data)]}
            if len(parts) < 2 or found == before:
                break
        return list(found.items())

    def _get(self, kind: int, name: str, which: bytes,
             decode: typing.Callable[[Attributes], typing.Any]) -> typing.Any:
        return self.ask('nftables', 'looking up %s' % name,
                        _message(kind, get=True), body(which), _message(kind),
                        lambda answer: decode(read(answer)),
                        tolerated=errno.ENOENT)


def new_table(name: str, comment: str) -> Step:
    """Make a table that is not there yet; the comment says of which kind."""
    return (_message(_TABLE), rtnetlink.CREATE | rtnetlink.EXCLUSIVE, body(
        attributes.text(_TABLE_NAME, name),
        attributes.attribute(_TABLE_USERDATA, _userdata(comment))))


def delete_table(name: str) -> Step:
    return _NF_TABLES << 8 | 2, 0, body(attributes.text(_TABLE_NAME, name))


def new_chain(table: str, chain: Chain) -> Step:
    parts = [attributes.text(_CHAIN_TABLE, table),
             attributes.text(_CHAIN_NAME, chain.name)]
    if chain.hook is not None:
        parts += [nested(_CHAIN_HOOK, number(_HOOK_NUMBER, chain.hook[0]),
                         number(_HOOK_PRIORITY, chain.hook[1])),
                  number(_CHAIN_POLICY, _ACCEPT),
                  attributes.text(_CHAIN_TYPE, 'filter')]
    return _message(_CHAIN), rtnetlink.CREATE, body(*parts)


def new_rule(table: str, rule: Rule) -> Step:
    parts = [attributes.text(_RULE_TABLE, table),
             attributes.text(_RULE_CHAIN, rule.chain),
             nested(_RULE_EXPRESSIONS, *(
                 nested(_IN_LIST, attributes.text(_EXPRESSION_NAME, name),
                        nested(_EXPRESSION_DATA, *_encoded(values)))
                 for name, values in rule.expressions))]
    if rule.comment:
        parts.append(attributes.attribute(_RULE_USERDATA,
                                          _userdata(rule.comment)))
    return _message(_RULE), rtnetlink.CREATE | _APPEND, body(*parts)


def new_set(table: str, wanted: Set, number_in_transaction: int) -> Step:
    parts = [attributes.text(_SET_TABLE, table),
             attributes.text(_SET_NAME, wanted.name),
             number(_SET_KEY_TYPE, wanted.key_type),
             number(_SET_KEY_LENGTH, wanted.length),
             number(_SET_ID, number_in_transaction)]
    if wanted.is_number:
        parts.append(attributes.attribute(_SET_USERDATA, _HOST_ORDER))
    return _message(_SET), rtnetlink.CREATE, body(*parts)


def add_elements(table: str, name: str,
                 elements: typing.Iterable[tuple[bytes, str]]) -> list[Step]:
    """Have keys in a set, each with a comment; they may be there already."""
    return [(_message(_ELEMENTS), rtnetlink.CREATE,
             body(_elements(table, name, some)))
            for some in _in_parts(elements)]


def delete_elements(table: str, name: str,
                    keys: typing.Iterable[bytes]) -> list[Step]:
    """Have keys in a set no more; one that is not there is ENOENT."""
    return [(_NF_TABLES << 8 | 14, 0, body(_elements(table, name, some)))
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
        told = nested(_ELEMENT_KEY, attributes.attribute(_DATA_VALUE, key))
        if comment:
            told += attributes.attribute(_ELEMENT_USERDATA,
                                         _userdata(comment))
        parts.append(nested(_IN_LIST, told))
    return (attributes.text(_LIST_TABLE, table)
            + attributes.text(_LIST_SET, name)
            + nested(_LIST_ELEMENTS, *parts))


def _message(kind: int, get: bool = False) -> int:
    return _NF_TABLES << 8 | kind + get


def _userdata(comment: str) -> bytes:
    octets = comment.encode() + b'\0'
    return bytes([_COMMENT, len(octets)]) + octets


def comment_of(userdata: bytes | None) -> str:
    """Return the comment of a table, a rule or an element; empty without.

    :param userdata: what the kernel keeps for nft; None: nothing
    """
    if not userdata or len(userdata) < 2 or userdata[0] != _COMMENT:
        return ''
    return userdata[2:2 + userdata[1]].rstrip(b'\0').decode('utf-8',
                                                            'replace')


def _count(rules: typing.Sequence[Rule]) -> dict[str, int]:
    counted: dict[str, int] = {}
    for rule in rules:
        counted[rule.chain] = counted.get(rule.chain, 0) + 1
    return counted


def _has_expressions(told: Attributes, rule: Rule) -> bool:
    found = [Attributes(octets) for _, octets in attributes.every(
        told.octets(_RULE_EXPRESSIONS) or b'')]
    return (len(found) == len(rule.expressions) and all(
        each.text(_EXPRESSION_NAME) == name
        and _has(each.nested(_EXPRESSION_DATA), values)
        for each, (name, values) in zip(found, rule.expressions)))


def _has(told: Attributes, values: Values) -> bool:
    """Return whether there is all of this; a kernel may tell more."""
    return all(told.octets(kind) == wanted if isinstance(wanted, bytes)
               else _has(told.nested(kind), wanted)
               for kind, wanted in values.items())


def _encoded(values: Values) -> typing.Iterator[bytes]:
    for kind, wanted in values.items():
        yield (attributes.attribute(kind, wanted) if isinstance(wanted, bytes)
               else nested(kind, *_encoded(wanted)))


def body(*parts: bytes) -> bytes:
    """Return the body of a message on the bridge family."""
    return _BODY.pack(_BRIDGE, 0, 0) + b''.join(parts)


def read(message: bytes) -> Attributes:
    """Return what a message says.

    :raises OSError: it is cut off
    """
    if len(message) < _BODY.size:
        raise OSError(errno.EBADMSG, 'cut off')
    return Attributes(message[_BODY.size:])


def nested(kind: int, *parts: bytes) -> bytes:
    return attributes.attribute(attributes.NESTED | kind, b''.join(parts))


def number(kind: int, value: int) -> bytes:
    return attributes.attribute(kind, octets(value))


def octets(value: int) -> bytes:
    return value.to_bytes(4, 'big', signed=value < 0)


def value(told: Attributes, kind: int) -> int | None:
    found = told.octets(kind)
    return None if found is None else int.from_bytes(found, 'big')
