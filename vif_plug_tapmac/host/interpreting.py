# SPDX-License-Identifier: Apache-2.0

"""What rules of nf_tables do with a frame, worked out without the kernel.

The rules are the values that the kernel is given; what they are made of is
understood as the kernel does. Pure.
Source: net/netfilter/nft_payload.c, nft_meta.c, nft_exthdr.c, nft_cmp.c,
nft_bitwise.c, nft_lookup.c, nft_range.c, nft_ct.c, nf_tables_core.c
"""

import collections.abc
import functools
import struct
import typing

from vif_plug_tapmac.host.packet import Packet
from vif_plug_tapmac.kernel import nft
from vif_plug_tapmac.kernel import nft_expressions as nftx

#: The keys that are in each set, by its name; of a map of verdicts, with the
#: chain that each leads to.
Keys = typing.Collection[bytes]
Sets = typing.Mapping[str, Keys]
#: What counts or tells, and decides nothing: neither does what it is given.
_WITHOUT_EFFECT = ('counter', 'log', 'limit', 'quota', 'dynset', 'objref')
_DROP, _ACCEPT, _JUMP, _GOTO, _RETURN = 0, 1, -3, -4, -5
#: Beside those of nftx: how what is between two values compares.
WITHIN = 6
_VERDICT_REGISTER, _MARK = 0, 3
_LOADS = 'payload', 'meta', 'exthdr', 'ct'
#: What of the kernel's own is not four octets long.
_LENGTHS = {each.values[2]: each.length for each in (
    nftx.PROTOCOL, nftx.IIFTYPE, nftx.OIFTYPE, nftx.ETHERTYPE)}


class NotUnderstood(Exception):
    """A rule has something that is not known here.

    :param what: the expression
    """

    def __init__(self, rule: nft.Rule, what: str) -> None:
        super().__init__('a rule in the chain %s has %r' % (rule.chain, what))


class Intervals(collections.abc.Collection[bytes]):
    """All keys from one to another, several times; each begins with a first.

    :param pairs: first and last of each
    """

    def __init__(self, pairs: typing.Iterable[tuple[bytes, bytes]]) -> None:
        self._pairs = sorted(pairs)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, bytes) and any(
            first <= key <= last for first, last in self._pairs)

    def __iter__(self) -> typing.Iterator[bytes]:
        return (first for first, _ in self._pairs)

    def __len__(self) -> int:
        return len(self._pairs)


class Condition(typing.NamedTuple):
    """What a rule looks at, and how that is to be.

    :param parts: what is loaded, one after the other
    :param mask: of it, which bits count; None: all
    :param how: how it compares with the value, as nftx.EQUAL; None: it is
        looked up
    :param value: None: likewise
    :param set: where it is looked up
    :param inverted: whether it is not to be there
    :param last: of WITHIN, up to where
    """
    parts: tuple[nftx.Load, ...]
    mask: bytes | None = None
    how: int | None = None
    value: bytes = b''
    set: str = ''
    inverted: bool = False
    last: bytes = b''


class Meaning(typing.NamedTuple):
    """A rule, as it is to be read.

    :param verdict: one of those above; None: it decides nothing
    :param chain: where it goes on; with a map, the name of this, which says it
        of what the last condition is about
    """
    rule: nft.Rule
    conditions: tuple[Condition, ...]
    verdict: int | None
    chain: str
    is_map: bool = False

    @property
    def drops(self) -> bool:
        """Whether frames that it matches are dropped: it says why."""
        return bool(self.rule.comment) and self.verdict != _ACCEPT

    @property
    def accepts(self) -> bool:
        return self.verdict == _ACCEPT

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

    @property
    def by(self) -> Meaning | None:
        """The rule that let it pass last, of one that passes; None: none."""
        return next((each.meaning for each in reversed(self.met)
                     if all(each.matches) and each.meaning.accepts), None)


class Rules:
    """Chains, and what is in them.

    :param chains: of which those with a hook are entered, in their order
    """

    def __init__(self, chains: typing.Iterable[nft.Chain],
                 rules: typing.Iterable[nft.Rule]) -> None:
        self.entries = [each.name for each in chains if each.hook is not None]
        self._rules: dict[str, list[nft.Rule]] = {}
        for rule in rules:
            self._rules.setdefault(rule.chain, []).append(rule)
        self.of = functools.cache(self._of)

    def __len__(self) -> int:
        return sum(map(len, self._rules.values()))

    def _of(self, chain: str) -> list['Meaning']:
        return [meaning(each) for each in self._rules.get(chain, ())]


def judge(packet: Packet, sets: Sets, rules: Rules) -> Outcome:
    """Return what becomes of a frame that a port's guest sends, or gets.

    :raises NotUnderstood: nobody knows
    """
    journey = _Journey(packet, sets, rules)
    for chain in rules.entries:
        if journey.go(chain) is False:
            return Outcome(False, tuple(journey.met))
    return Outcome(True, tuple(journey.met))


class _Journey:
    """A frame on its way through chains."""

    def __init__(self, packet: Packet, sets: Sets, rules: Rules) -> None:
        self._packet, self._sets, self._rules = packet, sets, rules
        self.met: list[Met] = []

    def go(self, chain: str) -> bool | None:
        """Return whether a chain, and those that it leaves it to, accept it.

        :returns: None if none of them says anything
        """
        for found in self._rules.of(chain):
            matches = tuple(is_so(each, self._packet, self._sets)
                            for each in found.conditions)
            self.met.append(Met(found, matches))
            if not all(matches) or found.verdict is None:
                continue
            if found.verdict in (_DROP, _ACCEPT):
                return found.verdict == _ACCEPT
            if found.verdict == _RETURN:
                return None
            said = self.go(self._where(found))
            if said is not None or found.verdict == _GOTO:
                return said
        return None

    def _where(self, found: 'Meaning') -> str:
        """Return in which chain it goes on."""
        if not found.is_map:
            return found.chain
        led = typing.cast(typing.Mapping[bytes, str], self._sets[found.chain])
        return led[_key(found.conditions[-1], self._packet) or b'']


def meaning(rule: nft.Rule) -> Meaning:
    """Return what a rule says.

    :raises NotUnderstood: it has something that is not known here
    """
    parts: list[nftx.Load] = []
    conditions: list[Condition] = []
    mask, verdict, chain, is_map = None, None, '', False
    for name, values in rule.expressions:
        if name in _LOADS and 1 in values:
            parts.append(_load(name, values))
        elif name == 'bitwise':
            mask = _octets(values, 4)
        elif name in ('cmp', 'range'):
            conditions.append(_compared(name, tuple(parts), mask, values))
            parts, mask = [], None
        elif name == 'lookup' and (
                3 not in values or _number(values, 3) == _VERDICT_REGISTER):
            conditions.append(Condition(
                tuple(parts), set=_text(values, 1),
                inverted=bool(_number(values, 5))))
            parts = []
            if 3 in values:
                verdict, chain, is_map = _GOTO, _text(values, 1), True
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
    return Meaning(rule, tuple(conditions), verdict, chain, is_map)


def _compared(name: str, parts: tuple[nftx.Load, ...], mask: bytes | None,
              values: nft.Values) -> Condition:
    if name == 'range':
        return Condition(parts, None, WITHIN, _octets(values, 3),
                         last=_octets(values, 4))
    return Condition(parts, mask, _number(values, 2), _octets(values, 3))


def _sets_mark(name: str, values: nft.Values) -> bool:
    """Return whether it is about what a frame carries along in this host."""
    return name == 'immediate' or (
        name == 'meta' and _number(values, 2) == _MARK)


def _load(name: str, values: nft.Values) -> nftx.Load:
    length = (_number(values, 4) if name in ('payload', 'exthdr') else
              _LENGTHS.get(typing.cast(bytes, values[2]), 4)
              if name == 'meta' else 4)
    return nftx.Load(name, {kind: typing.cast(bytes, value) for kind, value
                            in values.items() if kind != 1}, length)


def is_so(condition: Condition, packet: Packet, sets: Sets) -> bool:
    """Return whether a condition of a rule is so for a frame."""
    key = _key(condition, packet)
    if key is None:
        return False
    if condition.how is None:
        return (key in sets.get(condition.set, ())) != condition.inverted
    seen = packet.read(condition.parts[0]) or b''
    if condition.how == WITHIN:
        return condition.value <= seen <= condition.last
    if condition.mask is not None:
        seen = bytes(one & other for one, other in zip(seen, condition.mask))
    return _compare(seen, condition.how, condition.value)


def _key(condition: Condition, packet: Packet) -> bytes | None:
    """Return what is looked up, or compared; None: it is not there."""
    loaded = [packet.read(each) for each in condition.parts]
    return None if None in loaded else b''.join(
        each + bytes(-len(each) % 4) for each in loaded if each is not None)


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
