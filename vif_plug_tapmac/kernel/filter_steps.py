# SPDX-License-Identifier: Apache-2.0

"""The steps of transactions that make the table, and fill its sets."""

import socket
import struct
import typing

from vif_plug_tapmac.kernel import agent_table
from vif_plug_tapmac.kernel import filter_table as table
from vif_plug_tapmac.kernel import nft
from vif_plug_tapmac.kernel import nft_sets
from vif_plug_tapmac.wanted.rules import Element

#: Of what is in the sets for a port: whose each element is, by its comment.
Elements = dict[Element, str]
#: The comment of the table, before its version.
VERSION_OF = 'tapmac '
#: In each set that ports have elements in, and of no port: if it is gone, all
#: are.
CANARY, _CANARY_COMMENT = 0, 'tapmac'
#: What makes rules, of those of which that was asked before.
_made: dict[int, tuple[tuple[nft.Rule, ...], list[nft.Step]]] = {}


def key(index: int, mac: str, address: str | None) -> bytes:
    """Return the key of an element; each part has whole words."""
    octets = b'' if address is None else socket.inet_pton(
        socket.AF_INET6 if ':' in address else socket.AF_INET, address)
    return (struct.pack('=I', index) + bytes.fromhex(mac.replace(':', ''))
            + bytes(2) + octets)


def making(groups: set[int], of_agent: set[int]) -> list[nft.Step]:
    """Return what makes the table.

    :param groups: that are closed, and ``of_agent``, which of them pass only
        what an agent lets pass
    """
    return _making([*closing(groups, of_agent), *canaries()], table.SETS,
                   table.CHAINS, table.RULES)


def making_beside(beside: table.Beside, groups: set[int]) -> list[nft.Step]:
    """Return what makes a table of another family.

    :param groups: that do not reach this host
    """
    return nft.on(beside.family, _making(shielding(groups), beside.sets,
                                         beside.chains, beside.rules))


def _making(elements: list[nft.Step], sets: tuple[nft_sets.Set, ...],
            chains: tuple[nft.Chain, ...],
            rules: tuple[nft.Rule, ...]) -> list[nft.Step]:
    return [nft.new_table(table.NAME, '%s%d' % (VERSION_OF, table.VERSION)),
            *(nft_sets.new_set(table.NAME, each, number)
              for number, each in enumerate(sets, 1)), *elements,
            *(nft.new_chain(table.NAME, each) for each in chains),
            *_rules(rules)]


def _rules(rules: tuple[nft.Rule, ...]) -> list[nft.Step]:
    """Return what makes rules, which takes most of the time of the whole."""
    known, steps = _made.get(id(rules), ((), []))
    if known is not rules:
        steps = [nft.new_rule(table.NAME, each) for each in rules]
        _made[id(rules)] = rules, steps
    return steps


def shielding(groups: typing.Iterable[int]) -> list[nft.Step]:
    """Return what has link groups among those that do not reach this host."""
    return nft_sets.add_elements(table.NAME, table.SHIELDED, [
        nft_sets.Element(number_key(each)) for each in sorted(groups)])


def closing(groups: set[int], of_agent: set[int]) -> list[nft.Step]:
    return [step for name, some in ((agent_table.GROUPS, of_agent),
                                    (table.GROUPS, groups))
            for step in nft_sets.add_elements(table.NAME, name, [
                nft_sets.Element(number_key(each)) for each in sorted(some)])]


def number_key(number: int) -> bytes:
    """Return the key of a link group, or of the index of a port."""
    return struct.pack('=I', number)


def canaries() -> list[nft.Step]:
    return [step for each in table.PORT_SETS for step in nft_sets.add_elements(
        table.NAME, each.name,
        [nft_sets.Element(bytes(each.length), _CANARY_COMMENT)])]


def additions(ports: dict[int, Elements]) -> list[nft.Step]:
    return [step for name, elements in _by_set(ports).items()
            for step in nft_sets.add_elements(table.NAME, name, elements)]


def deletions(ports: dict[int, typing.Iterable[Element]],
              ) -> list[nft.Step]:
    return [step for name, elements in _by_set({
        index: dict.fromkeys(there, '') for index, there in ports.items()
    }).items() for step in nft_sets.delete_elements(table.NAME, name,
                                                    elements)]


def _by_set(ports: dict[int, Elements]) -> dict[str, list[nft_sets.Element]]:
    """Return what there is for ports in each set that there is any in."""
    found: dict[str, list[nft_sets.Element]] = {}
    for index, there in ports.items():
        for (name, mac, address), comment in there.items():
            found.setdefault(name, []).append(nft_sets.Element(
                key(index, mac, address), comment))
    return found


def differing(there: dict[int, Elements], wanted: dict[int, Elements],
              own: typing.Collection[int]) -> list[nft.Step]:
    """Return what puts in what is wanted and not there.

    And takes out what is there for some of these and is not wanted.

    :param own: their indexes
    """
    return [
        *deletions({
            index: there.get(index, {}).keys() - wanted[index].keys()
            for index in wanted if index in own}),
        *additions({
            index: {each: found[each] for each in found
                    if each not in there.get(index, {})}
            for index, found in wanted.items()})]
