# SPDX-License-Identifier: Apache-2.0

"""nf_tables as bytes: transactions, tables, and chains of rules.

Its messages are those of netlink, with numbers whose first octet counts most.
Source: include/uapi/linux/netfilter/nf_tables.h, linux/netfilter/nfnetlink.h
"""

import collections
import copy
import errno
import socket
import struct
import sys
import typing

from vif_plug_tapmac.kernel import attributes
from vif_plug_tapmac.kernel.attributes import Attributes
from vif_plug_tapmac.kernel import rtnetlink
from vif_plug_tapmac.kernel import session

#: Source: include/uapi/linux/netlink.h
_NETLINK_NETFILTER = 12
#: NFNL_SUBSYS_NFTABLES, and what begins and ends a transaction.
_NF_TABLES, _BEGIN, _END = 10, 0x10, 0x11
_TABLE, _CHAIN, _RULE = 0, 3, 6
#: What deletes each of the same.
_OFF = 2
NEW_GENERATION, _GET_GENERATION = _NF_TABLES << 8 | 15, _NF_TABLES << 8 | 16
_APPEND = 0x800
#: The type of a message that makes a table.
NEW_TABLE = _NF_TABLES << 8
#: struct nfgenmsg: family, version, which part of netfilter
_BODY = struct.Struct('>BBH')
#: Families. Source: include/uapi/linux/netfilter.h
INET, ARP, BRIDGE = 1, 3, 7
_OF_BRIDGE = _BODY.pack(BRIDGE, 0, 0)
# Attributes.
_TABLE_NAME, _TABLE_FLAGS, _TABLE_USE = 1, 2, 3
_TABLE_HANDLE, _TABLE_USERDATA = 4, 6
_GENERATION_ID, _BATCH_GENERATION = 1, 1
_CHAIN_TABLE, _CHAIN_NAME, _CHAIN_HOOK, _CHAIN_POLICY, _CHAIN_TYPE = (
    1, 3, 4, 5, 7)
_HOOK_NUMBER, _HOOK_PRIORITY = 1, 2
RULE_TABLE, RULE_CHAIN, RULE_EXPRESSIONS, RULE_USERDATA = 1, 2, 4, 7
EXPRESSION_NAME, EXPRESSION_DATA = 1, 2
#: Of each that is in a list.
IN_LIST = 1
#: How nft keeps the comment of a table, a rule or an element: which kind of
#: thing it is, its length, and itself with a zero at its end.
#: Source: libnftnl, include/libnftnl/udata.h, NFTNL_UDATA_..._COMMENT
_COMMENT = 0
_ACCEPT = 1
#: That of numbers that are the kernel's own.
BYTE_ORDER = sys.byteorder
#: Of a verdict: the rest is another chain's.
GO_TO = -4
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
    :param things: how many chains and sets it has
    """
    comment: str
    is_in_force: bool
    handle: int
    things: int


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


class Session(session.Session):
    """A conversation with nf_tables, on tables of the bridge family."""

    PROTOCOL = _NETLINK_NETFILTER
    _family = BRIDGE

    def __init__(self) -> None:
        super().__init__()
        self._found_right: tuple[typing.Sequence[Rule], list[bytes]] = (), []

    def on(self, family: int) -> 'Session':
        """Return the same conversation, on tables of another family."""
        other = copy.copy(self)
        other._family = family
        return other

    def transact(self, step: str, steps: typing.Sequence[Step],
                 only_if: int | None = None, is_done: bool = True) -> bool:
        """Have several things done, of which all or none is.

        :param only_if: the generation that the rules must be of; None: any
        :param is_done: else the kernel only says what it would say
        :returns: False if they are of another; nothing is done
        """
        self._make_room(sum(len(body) for _, _, body in steps))
        frame = _BODY.pack(0, 0, _NF_TABLES)
        begin = frame if only_if is None else frame + number(
            _BATCH_GENERATION, only_if)
        return self._request(
            'nftables', step, self._socket.transact,
            [(_BEGIN, 0, begin), *steps, *[(_END, 0, frame)] * is_done],
            is_done, tolerated=errno.ERESTART,
            decode=lambda _: True) is not None

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
                         NEW_GENERATION,
                         lambda body: value(read(body), _GENERATION_ID))
        return found or 0

    def table(self, name: str) -> Table | None:
        """Return a table; None if there is none."""
        found: Table | None = self.look_up(
            _TABLE, name, attributes.text(_TABLE_NAME, name),
            lambda told: Table(comment_of(told.octets(_TABLE_USERDATA)),
                               not value(told, _TABLE_FLAGS),
                               value(told, _TABLE_HANDLE) or 0,
                               value(told, _TABLE_USE) or 0))
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
        return bool(self.look_up(
            _CHAIN, chain.name, attributes.text(_CHAIN_TABLE, table)
            + attributes.text(_CHAIN_NAME, chain.name), is_right))

    def are_right_rules(self, table: str, rules: typing.Sequence[Rule],
                        chains: typing.Iterable[str | None] = (None,),
                        ) -> bool:
        """Return whether a table has these rules, and no others.

        :param chains: what others are in there does not matter; None: all
        """
        bodies = [
            # Its head has the generation, which is always another.
            each[_BODY.size:] for chain in chains for each in self.rules(
                table, chain)]
        # To find out what they say takes ten times as long as to have them.
        if self._found_right != (rules, bodies):
            found: dict[str | None, list[Attributes]] = {}
            for told in map(Attributes, bodies):
                if told.text(RULE_TABLE) == table:
                    found.setdefault(told.text(RULE_CHAIN), []).append(told)
            if ({chain: len(each) for chain, each in found.items()}
                    != collections.Counter(rule.chain for rule in rules)
                    or not all(_has_expressions(found[rule.chain].pop(0), rule)
                               for rule in rules)):
                return False
            self._found_right = rules, bodies
        return True

    def chains(self, table: str) -> list[str]:
        """Return the names of all chains of a table; none without it."""
        return [name for of, name in self.list(
            'nftables', 'listing the chains of %s' % table,
            message(_CHAIN, get=True), self.body(),
            lambda each: (read(each).text(_CHAIN_TABLE) or '',
                          read(each).text(_CHAIN_NAME) or '')) if of == table]

    def has_rules(self, table: str, chain: str,
                  rules: typing.Sequence[Rule]) -> bool:
        """Return whether a chain has these rules in this order, no others.

        With these comments. That there is no such chain is that it has none.

        :param rules: of this chain
        """
        return are_rules(list(map(read, self.rules(table, chain))), rules)

    def rules(self, table: str, chain: str | None) -> list[bytes]:
        """Return the messages that tell the rules of a table, or a chain."""
        return self.list(
            'nftables', 'listing the rules of %s' % (chain or table),
            message(_RULE, get=True), self.body(
                attributes.text(RULE_TABLE, table),
                b'' if chain is None else attributes.text(RULE_CHAIN,
                                                          chain)),
            lambda each: each, tolerated=errno.ENOENT)

    def look_up(self, kind: int, name: str, which: bytes,
                decode: typing.Callable[[Attributes], typing.Any],
                ) -> typing.Any:
        """Return what the kernel tells of something; None: it is not there.

        :param kind: of thing, as its messages are numbered
        :param name: for the error
        """
        return self.ask('nftables', 'looking up %s' % name,
                        message(kind, get=True), self.body(which),
                        message(kind), lambda answer: decode(read(answer)),
                        tolerated=errno.ENOENT)

    def body(self, *parts: bytes) -> bytes:
        """Return the body of a message on the family of this conversation."""
        return of_family(self._family, body(*parts))


def new_table(name: str, comment: str) -> Step:
    """Make a table that is not there yet; the comment says of which kind."""
    return (message(_TABLE), rtnetlink.CREATE | rtnetlink.EXCLUSIVE, body(
        attributes.text(_TABLE_NAME, name),
        attributes.attribute(_TABLE_USERDATA, userdata(comment))))


def delete_table(name: str) -> Step:
    return message(_TABLE) + _OFF, 0, body(
        attributes.text(_TABLE_NAME, name))


def new_chain(table: str, chain: Chain) -> Step:
    parts = [attributes.text(_CHAIN_TABLE, table),
             attributes.text(_CHAIN_NAME, chain.name)]
    if chain.hook is not None:
        parts += [nested(_CHAIN_HOOK, number(_HOOK_NUMBER, chain.hook[0]),
                         number(_HOOK_PRIORITY, chain.hook[1])),
                  number(_CHAIN_POLICY, _ACCEPT),
                  attributes.text(_CHAIN_TYPE, 'filter')]
    return message(_CHAIN), rtnetlink.CREATE, body(*parts)


def delete_chain(table: str, name: str) -> Step:
    """Have a chain no more, and its rules; EBUSY where something leads there.

    What did so and is deleted before, in the same transaction, does not.
    """
    return message(_CHAIN) + _OFF, 0, body(
        attributes.text(_CHAIN_TABLE, table),
        attributes.text(_CHAIN_NAME, name))


def delete_rules(table: str, chain: str) -> Step:
    """Have all rules of a chain no more; there are none is success."""
    return message(_RULE) + _OFF, 0, body(
        attributes.text(RULE_TABLE, table),
        attributes.text(RULE_CHAIN, chain))


def new_rule(table: str, rule: Rule) -> Step:
    parts = [attributes.text(RULE_TABLE, table),
             attributes.text(RULE_CHAIN, rule.chain),
             nested(RULE_EXPRESSIONS, *(
                 nested(IN_LIST, attributes.text(EXPRESSION_NAME, name),
                        nested(EXPRESSION_DATA, *_encoded(values)))
                 for name, values in rule.expressions))]
    if rule.comment:
        parts.append(attributes.attribute(RULE_USERDATA,
                                          userdata(rule.comment)))
    return message(_RULE), rtnetlink.CREATE | _APPEND, body(*parts)


def message(kind: int, get: bool = False) -> int:
    """Return the type of a message that makes a thing, or asks for it."""
    return _NF_TABLES << 8 | kind + get


def userdata(comment: str) -> bytes:
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


def are_rules(found: typing.Sequence[Attributes],
              rules: typing.Sequence[Rule]) -> bool:
    """Return whether what was told of a chain's rules are these, in order."""
    return len(found) == len(rules) and all(
        comment_of(told.octets(RULE_USERDATA)) == rule.comment
        and _has_expressions(told, rule) for told, rule in zip(found, rules))


def _has_expressions(told: Attributes, rule: Rule) -> bool:
    found = [Attributes(octets) for _, octets in attributes.every(
        told.octets(RULE_EXPRESSIONS) or b'')]
    return (len(found) == len(rule.expressions) and all(
        each.text(EXPRESSION_NAME) == name
        and _has(each.nested(EXPRESSION_DATA), values)
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
    return _OF_BRIDGE + b''.join(parts)


def of_family(family: int, message: bytes) -> bytes:
    """Return the same body of a message, on another family."""
    return bytes([family]) + message[1:]


def on(family: int, steps: typing.Iterable[Step]) -> list[Step]:
    """Return the same steps, on tables of another family."""
    return [(kind, flags, of_family(family, message))
            for kind, flags, message in steps]


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
