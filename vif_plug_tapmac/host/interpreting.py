# SPDX-License-Identifier: Apache-2.0

"""What rules of nf_tables do with a frame, worked out without the kernel.

The rules are the values that the kernel is given; what they are made of is
understood as the kernel does. Pure.
Source: net/netfilter/nft_payload.c, nft_meta.c, nft_exthdr.c, nft_cmp.c,
nft_bitwise.c, nft_lookup.c, nf_tables_core.c
"""

import struct
import typing

from vif_plug_tapmac.host.packet import Packet
from vif_plug_tapmac.kernel import nft
from vif_plug_tapmac.kernel import nft_expressions as nftx

#: The keys that are in each set, by its name.
Sets = typing.Mapping[str, typing.Collection[bytes]]
#: What counts or tells, and decides nothing: neither does what it is given.
_WITHOUT_EFFECT = ('counter', 'log', 'limit', 'quota', 'dynset', 'objref')
_DROP, _ACCEPT, _JUMP, _GOTO = 0, 1, -3, -4
_VERDICT_REGISTER, _MARK = 0, 3


class NotUnderstood(Exception):
    """A rule has something that is not known here.

    :param what: the expression
    """

    def __init__(self, rule: nft.Rule, what: str) -> None:
        super().__init__('a rule in the chain %s has %r' % (rule.chain, what))


class Condition(typing.NamedTuple):
    """What a rule looks at, and how that is to be.

    :param parts: what is loaded, one after the other
    :param mask: of it, which bits count; None: all
    :param how: how it compares with the value, as nftx.EQUAL; None: it is
        looked up
    :param value: None: likewise
    :param set: where it is looked up
    :param inverted: whether it is not to be there
    """
    parts: tuple[nftx.Load, ...]
    mask: bytes | None = None
    how: int | None = None
    value: bytes = b''
    set: str = ''
    inverted: bool = False


class Meaning(typing.NamedTuple):
    """A rule, as it is to be read.

    :param verdict: one of those above; None: it decides nothing
    :param chain: where it goes on
    """
    rule: nft.Rule
    conditions: tuple[Condition, ...]
    verdict: int | None
    chain: str

    @property
    def drops(self) -> bool:
        """Whether frames that it matches are dropped: it says why."""
        return bool(self.rule.comment)

    @property
    def lets_on(self) -> bool:
        """Whether frames that it matches may pass by it."""
        return not self.drops and self.verdict in (_ACCEPT, _JUMP, _GOTO)


class Met(typing.NamedTuple):
    """A rule that a frame came to.

    :param matches: whether each of its conditions is so, in their order
    """
    meaning: Meaning
    matches: tuple[bool, ...]


class Outcome(typing.NamedTuple):
    """What became of a frame.

    :param passes: whether no rule drops it
    :param met: the rules that it came to
    """
    passes: bool
    met: tuple[Met, ...]

    @property
    def why(self) -> Meaning:
        """The rule by which it is dropped, of one that is."""
        return [each.meaning for each in self.met
                if all(each.matches) and each.meaning.drops][-1]


def judge(packet: Packet, sets: Sets, chains: typing.Sequence[nft.Chain],
          rules: typing.Sequence[nft.Rule]) -> Outcome:
    """Return what becomes of a frame that a port's guest sends.

    :param chains: of which those with a hook are entered, in their order
    :raises NotUnderstood: nobody knows
    """
    journey = _Journey(packet, sets, rules)
    for chain in chains:
        if chain.hook is not None and journey.go(chain.name) is False:
            return Outcome(False, tuple(journey.met))
    return Outcome(True, tuple(journey.met))


class _Journey:
    """A frame on its way through chains."""

    def __init__(self, packet: Packet, sets: Sets,
                 rules: typing.Sequence[nft.Rule]) -> None:
        self._packet, self._sets, self._rules = packet, sets, rules
        self.met: list[Met] = []

    def go(self, chain: str) -> bool | None:
        """Return whether a chain, and those that it leaves it to, accept it.

        :returns: None if none of them says anything
        """
        for rule in self._rules:
            if rule.chain != chain:
                continue
            found = meaning(rule)
            matches = tuple(is_so(each, self._packet, self._sets)
                            for each in found.conditions)
            self.met.append(Met(found, matches))
            if not all(matches) or found.verdict is None:
                continue
            if found.verdict in (_DROP, _ACCEPT):
                return found.verdict == _ACCEPT
            said = self.go(found.chain)
            if said is not None or found.verdict == _GOTO:
                return said
        return None


def meaning(rule: nft.Rule) -> Meaning:
    """Return what a rule says.

    :raises NotUnderstood: it has something that is not known here
    """
    parts: list[nftx.Load] = []
    conditions: list[Condition] = []
    mask, verdict, chain = None, None, ''
    for name, values in rule.expressions:
        if name in ('payload', 'meta', 'exthdr') and 1 in values:
            parts.append(_load(name, values))
        elif name == 'bitwise':
            mask = _octets(values, 4)
        elif name == 'cmp':
            conditions.append(Condition(
                tuple(parts), mask, _number(values, 2), _octets(values, 3)))
            parts, mask = [], None
        elif name == 'lookup' and 3 not in values:
            conditions.append(Condition(
                tuple(parts), set=_text(values, 1),
                inverted=bool(_number(values, 5))))
            parts = []
        elif name == 'immediate' and _number(
                values, 1) == _VERDICT_REGISTER:
            said = typing.cast(nft.Values, typing.cast(
                nft.Values, values[2])[2])
            verdict = _signed(said, 1)
            chain = _text(said, 2) if 2 in said else ''
        elif name in _WITHOUT_EFFECT:
            parts = []
        elif not _sets_mark(name, values):
            raise NotUnderstood(rule, name)
    return Meaning(rule, tuple(conditions), verdict, chain)


def _sets_mark(name: str, values: nft.Values) -> bool:
    """Return whether it is about what a frame carries along in this host."""
    return name == 'immediate' or (
        name == 'meta' and _number(values, 2) == _MARK)


def _load(name: str, values: nft.Values) -> nftx.Load:
    length = (_number(values, 4) if name != 'meta' else
              {_number(each.values, 2): each.length for each in (
                  nftx.PROTOCOL, nftx.IIFTYPE)}.get(_number(values, 2), 4))
    return nftx.Load(name, {kind: typing.cast(bytes, value) for kind, value
                            in values.items() if kind != 1}, length)


def is_so(condition: Condition, packet: Packet, sets: Sets) -> bool:
    """Return whether a condition of a rule is so for a frame."""
    loaded = [packet.read(each) for each in condition.parts]
    if None in loaded:
        return False
    key = b''.join(each + bytes(-len(each) % 4)
                   for each in loaded if each is not None)
    if condition.how is None:
        return (key in sets.get(condition.set, ())) != condition.inverted
    seen = loaded[0] or b''
    if condition.mask is not None:
        seen = bytes(one & other for one, other in zip(seen, condition.mask))
    return _compare(seen, condition.how, condition.value)


def _compare(seen: bytes, how: int, value: bytes) -> bool:
    return {nftx.EQUAL: seen == value, nftx.NOT_EQUAL: seen != value,
            nftx.LESS: seen < value, nftx.AT_MOST: seen <= value,
            nftx.MORE: seen > value, nftx.AT_LEAST: seen >= value}[how]


def _octets(values: nft.Values, kind: int) -> bytes:
    return typing.cast(bytes, typing.cast(nft.Values, values[kind])[1])


def _number(values: nft.Values, kind: int) -> int:
    return int.from_bytes(typing.cast(bytes, values.get(kind, b'')), 'big')


def _signed(values: nft.Values, kind: int) -> int:
    found: int = struct.unpack('>i', typing.cast(bytes, values[kind]))[0]
    return found


def _text(values: nft.Values, kind: int) -> str:
    return typing.cast(bytes, values[kind]).rstrip(b'\0').decode()
