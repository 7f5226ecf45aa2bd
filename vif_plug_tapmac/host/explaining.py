# SPDX-License-Identifier: Apache-2.0

"""Why a frame of a guest is dropped, and what it would pass with. Pure.

What it would pass with is found by trying: each rule on its way says what it
would have taken; the frame is changed so, and judged once more.
"""

import dataclasses
import itertools
import typing

from vif_plug_tapmac.host import interpreting
from vif_plug_tapmac.host.interpreting import Condition
from vif_plug_tapmac.host.interpreting import Met
from vif_plug_tapmac.host.interpreting import Outcome
from vif_plug_tapmac.host.packet import Packet
from vif_plug_tapmac.host import wording
from vif_plug_tapmac.kernel import agent_table
from vif_plug_tapmac.kernel import filter_table
from vif_plug_tapmac.kernel import nft
from vif_plug_tapmac.kernel import nft_expressions as nftx

#: What makes another kind of frame of it, and is no advice: its ethertype,
#: what is in IP, and the kind of an option.
_KINDS = ('ethertype', 'next header', 'protocol', 'kind of the option')
#: How many parts of a frame are changed at most, and how many frames are
#: tried: a set may have a thousand addresses. With many rules, so many that
#: no more of these are looked at.
_CHANGES, _TRIES, _LOOKS = 3, 4000, 1000000
#: How many values are named of one part.
_SHOWN = 8
#: The rules that are the same for all ports.
RULES = interpreting.Rules(filter_table.CHAINS, filter_table.RULES)
#: What passes whatever groups say, which is no advice for what they drop.
_ALWAYS = tuple(agent_table.LAST.values())


class _Table(typing.NamedTuple):
    """What is judged by."""
    sets: interpreting.Sets
    rules: interpreting.Rules


class Change(typing.NamedTuple):
    """A part of a frame that would be another.

    :param wanted: what it would be; None: anything but what it is
    """
    part: nftx.Load
    wanted: bytes | None


@dataclasses.dataclass(frozen=True)
class Explanation:
    """What becomes of a frame by the rules, in words.

    :param chain: of the rule that drops it; None: it passes
    :param why: what that says of such frames
    :param because: what in the frame it is about
    :param passes_with: each in words a way in which it would pass; none:
        nothing that is nearly like it does
    :param by: the rule that lets it pass, where that has a name, as those of
        security groups have; None: it is dropped, or passes by another
    """
    chain: str | None = None
    why: str = ''
    because: str = ''
    passes_with: tuple[str, ...] = ()
    by: nft.Rule | None = None

    @property
    def passes(self) -> bool:
        return self.chain is None


def explain(packet: Packet, sets: interpreting.Sets,
            rules: interpreting.Rules = RULES) -> Explanation:
    """Return what rules do with a frame, and why.

    :param rules: those of this release, and those of groups, if there are any
    :raises NotUnderstood: nobody knows
    """
    table = _Table(sets, rules)
    outcome = _judge(packet, table)
    if outcome.passes:
        return Explanation(by=outcome.by and outcome.by.rule)
    last = outcome.why
    nearest = ([] if last.conditions
               and not last.rule.chain.startswith(_ALWAYS)
               else _nearest(outcome))
    ways = tuple(dict.fromkeys(_in_words(packet, _ways(packet, table))))
    return Explanation(
        last.rule.chain, last.rule.comment,
        ', '.join(dict.fromkeys(
            wording.condition(each, packet)
            for each in nearest or last.conditions)),
        ways or tuple(_of_another_kind(packet, nearest)))


def _judge(packet: Packet, table: _Table) -> Outcome:
    return interpreting.judge(packet, table.sets, table.rules)


def _nearest(outcome: Outcome) -> list[Condition]:
    """Return what would have been taken, and was not so.

    By the last chain; or by rules of groups, of what these have dropped.
    """
    chain = outcome.why.rule.chain
    of_groups = chain.startswith(_ALWAYS)
    tried = [_not_so(each) for each in outcome.met
             if (_is_near(each) and (
                 each.meaning.rule.comment or each.meaning.accepts
                 and each.meaning.rule.chain.startswith(_ALWAYS))
                 if of_groups else each.meaning.rule.chain == chain)
             and each.meaning.lets_on and not all(each.matches)]
    least = min(map(len, tried), default=0)
    return [each for some in tried if len(some) == least
            for each in (_of_its_kind(some) if of_groups else some)]


def _of_its_kind(conditions: list[Condition]) -> list[Condition]:
    """Return what is to be said of these.

    Where the protocol is another one, what is in it means something else.
    """
    return [each for each in conditions
            if each.parts == (nftx.PROTOCOL,)] or conditions


def _is_near(met: Met) -> bool:
    """Return whether something like this frame may be what a rule is about.

    What passes whatever groups say is about some protocols.
    """
    return not met.meaning.rule.chain.startswith(_ALWAYS) or not any(
        part == nftx.PROTOCOL or part.name == 'payload'
        and part.values[2] == nft.octets(nftx.TRANSPORT)
        for each in _not_so(met) for part in each.parts)


def _not_so(met: Met) -> list[Condition]:
    return [each for each, is_so in zip(met.meaning.conditions, met.matches)
            if not is_so]


def _ways(packet: Packet, table: _Table,
          ) -> list[tuple[Change, ...]]:
    """Return the changes with which it would pass, of as few as it takes."""
    tries, most = itertools.count(), min(
        _TRIES, _LOOKS // max(1, len(table.rules)))
    level: list[tuple[Packet, tuple[Change, ...]]] = [(packet, ())]
    while level:
        found, after = [], []
        for changed, changes in level:
            for other, more in _nearly(changed, table):
                known = {wording.field(each.part, packet)
                         for each in changes}
                if len(changes) + len(more) > _CHANGES or any(
                        wording.field(each.part, packet) in known
                        for each in more) or next(tries) > most:
                    continue
                if _judge(other, table).passes:
                    found.append(changes + more)
                else:
                    after.append((other, changes + more))
        if found:
            least = min(map(len, found))
            return [each for each in found if len(each) == least]
        level = after
    return []


def _nearly(packet: Packet, table: _Table,
            ) -> typing.Iterator[tuple[Packet, tuple[Change, ...]]]:
    """Yield frames that go another way, each with what differs."""
    outcome = _judge(packet, table)
    for met in outcome.met:
        if not _is_near(met):
            continue
        if met.meaning.drops and all(met.matches):
            for each in met.meaning.conditions:
                yield from _without(packet, each, table)
        elif met.meaning.lets_on and not all(met.matches):
            yield from _with(packet, _not_so(met), table)


def _with(packet: Packet, conditions: list[Condition],
          table: _Table,
          ) -> typing.Iterator[tuple[Packet, tuple[Change, ...]]]:
    """Yield frames of which all of these conditions are so."""
    if len(conditions) > _CHANGES:
        return
    ways: list[tuple[Packet, tuple[Change, ...]]] = [(packet, ())]
    for each in conditions:
        ways = [(further, changes + more) for changed, changes in ways
                for further, more in _made_so(changed, each, table)]
    yield from ways


def _made_so(packet: Packet, condition: Condition, table: _Table,
             ) -> typing.Iterator[tuple[Packet, tuple[Change, ...]]]:
    """Yield frames of which a condition is so."""
    if condition.how is None:
        if not condition.inverted:
            yield from _in_set(packet, condition, table)
        return
    part, = condition.parts
    seen = packet.read(part)
    if seen is None:
        return
    if condition.mask is not None:
        if condition.how == nftx.EQUAL:
            yield from _changed(packet, part, bytes(
                one & ~other | value for one, other, value in zip(
                    seen, condition.mask, condition.value)))
    elif condition.how == interpreting.WITHIN:
        yield from _changed(packet, part, condition.value)
    elif condition.how == nftx.EQUAL:
        yield from _changed(packet, part, condition.value)


def _in_set(packet: Packet, condition: Condition, table: _Table,
            ) -> typing.Iterator[tuple[Packet, tuple[Change, ...]]]:
    for key in sorted(table.sets.get(condition.set, ())):
        place, changed, changes = 0, packet, []
        for part in condition.parts:
            wanted = key[place:place + part.length]
            place += part.length + -part.length % 4
            if packet.read(part) == wanted:
                continue
            more = next(_changed(changed, part, wanted), None)
            if more is None:
                break
            changed, (change,) = more
            changes.append(change)
        else:
            yield changed, tuple(changes)


def _without(packet: Packet, condition: Condition, table: _Table,
             ) -> typing.Iterator[tuple[Packet, tuple[Change, ...]]]:
    """Yield frames of which a condition is not so any more."""
    if condition.how is None:
        if condition.inverted:
            yield from _in_set(packet, condition, table)
        return
    part = condition.parts[-1]
    if packet.read(part) is None:
        return
    if condition.how == nftx.MORE:
        yield from _changed(packet, part, condition.value)
    elif condition.how == nftx.EQUAL and condition.mask is None:
        for wanted in (bytes(part.length), b'\xff' * part.length,
                       b'\x80' * part.length,
                       (8).to_bytes(part.length, 'big')):
            for changed, _ in _changed(packet, part, wanted):
                if not interpreting.is_so(condition, changed, table.sets):
                    yield changed, (Change(part, None),)


def _changed(packet: Packet, part: nftx.Load, wanted: bytes,
             ) -> typing.Iterator[tuple[Packet, tuple[Change, ...]]]:
    """Yield the frame with something else at a place, if it has that."""
    place = packet.place(part)
    if place is None or wording.field(part, packet).startswith(_KINDS):
        return
    octets = (packet.octets[:place] + wanted
              + packet.octets[place + len(wanted):])
    yield dataclasses.replace(packet, octets=octets), (Change(part, wanted),)


def _in_words(packet: Packet, ways: list[tuple[Change, ...]],
              ) -> typing.Iterator[str]:
    """Yield each way in words, those that differ in values only as one."""
    by_parts: dict[tuple[str, ...], list[tuple[Change, ...]]] = {}
    for way in ways:
        by_parts.setdefault(tuple(
            wording.field(each.part, packet) for each in way), []).append(way)
    for parts, same in by_parts.items():
        if len(parts) == 1:
            yield _words(packet, parts[0], [way[0] for way in same])
        else:
            for way in same[:_SHOWN]:
                yield ' and '.join(_words(packet, name, [change])
                                   for name, change in zip(parts, way))


def _of_another_kind(packet: Packet, conditions: list[Condition],
                     ) -> typing.Iterator[str]:
    """Yield of which kind a frame would have to be, if that is all."""
    for kind in _KINDS[0], wording.field(nftx.PROTOCOL, packet):
        values = dict.fromkeys(
            wording.value(each.parts[0], each.value) for each in conditions
            if wording.field(each.parts[-1], packet) == kind)
        if values:
            yield 'another frame, of %s %s' % (kind, ' or '.join(values))


def _words(packet: Packet, name: str, changes: list[Change]) -> str:
    part = changes[0].part
    seen = wording.value(part, packet.read(part))
    if any(change.wanted is None for change in changes):
        return '%s other than %s' % (name, seen)
    values = list(dict.fromkeys(wording.value(part, change.wanted)
                                for change in changes))
    return '%s %s instead of %s' % (
        name, ' or '.join(values[:_SHOWN]) + (
            ' or one of %d more' % (len(values) - _SHOWN)
            if len(values) > _SHOWN else ''), seen)
