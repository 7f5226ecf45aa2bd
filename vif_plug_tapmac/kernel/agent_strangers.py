# SPDX-License-Identifier: Apache-2.0

"""What is in an agent's part of the table that no agent has put there.

Nobody remembers what an agent has said when its process has ended. But a chain
of several groups has a name that is made of theirs, so that all of it can be
made anew and compared; each rule of a group says by its comment which one of
Neutron's it is, begins with a family, and counts what it accepts; and each
element of a port says of which VIF it is.
"""

import re
import typing

from vif_plug_tapmac.kernel import agent_chains
from vif_plug_tapmac.kernel import agent_table
from vif_plug_tapmac.kernel.attributes import Attributes
from vif_plug_tapmac.kernel import filter_table as table
from vif_plug_tapmac.kernel import group_rules
from vif_plug_tapmac.kernel import nft
from vif_plug_tapmac.kernel import nft_expressions as nftx
from vif_plug_tapmac.kernel import nft_rules
from vif_plug_tapmac.kernel import nft_sets

#: How the chain of several groups is called, behind its direction.
_OF_SEVERAL = re.compile('[0-9a-f]{32}')
#: Where a verdict is in its expression, and the chain in that. Source:
#: include/uapi/linux/netfilter/nf_tables.h, NFTA_IMMEDIATE_DATA,
#: NFTA_DATA_VERDICT, NFTA_VERDICT_CHAIN
_VERDICT_IN_DATA, _CHAIN = (2, 2), 2
#: What a rule of a group ends with.
_END = (*nftx.COUNTED, *nftx.ACCEPT)


class Found(typing.NamedTuple):
    """What there is.

    :param chains: with rules that are not an agent's, or without some of its
    :param ports: of which VIF elements of a port are, by its index: the
        comments of all of them
    """
    chains: list[str]
    ports: dict[int, set[str]]


def look() -> Found:
    """Return it as it is now.

    In a number of requests that does not depend on that of ports, or groups.

    :raises KernelRefused: nf_tables is missing, or no privilege to ask
    """
    with nft.Session() as session:
        # One without rules, too: what comes to its end passes.
        rules: dict[str, list[Attributes]] = {
            name: [] for name in session.chains(table.NAME)}
        for body in session.rules(table.NAME, None):
            told = nft.read(body)
            if told.text(nft.RULE_TABLE) == table.NAME:
                rules.setdefault(told.text(nft.RULE_CHAIN) or '',
                                 []).append(told)
        ports: dict[int, set[str]] = {}
        for name in agent_table.BY_INDEX:
            for each in nft_sets.elements(session, table.NAME, name):
                ports.setdefault(int.from_bytes(each.key, nft.BYTE_ORDER),
                                 set()).add(each.comment)
    return Found(sorted(name for name, its in rules.items()
                        if not _is_an_agents(name, its)), ports)


def _is_an_agents(name: str, rules: list[Attributes]) -> bool:
    prefix = next(filter(name.startswith, group_rules.PREFIXES.values()), '')
    of = name.removeprefix(prefix).removesuffix(group_rules.LATER)
    if not prefix:
        return True  # Others look at these.
    if _OF_SEVERAL.fullmatch(of):
        return any(_is_made_of(name, prefix, of, rules, connections)
                   for connections in (False, True))
    return all(_is_of_group(nft_rules.read_one(name, each).rule)
               for each in rules)


def _is_made_of(name: str, prefix: str, of: str, rules: list[Attributes],
                connections: bool) -> bool:
    """Return whether a chain is that of the groups that it asks."""
    end = group_rules.LATER * name.endswith(group_rules.LATER)
    asked = {target.removeprefix(prefix).removesuffix(end)
             for told in rules for target in _targets(told)
             if target.startswith(prefix)}
    groups = tuple(sorted(asked - {of, of + group_rules.LATER}))
    return group_rules.set_name(groups) == of and nft.are_rules(rules, [
        rule for rule in agent_chains.set_chain(groups, connections).rules
        if rule.chain == name])


def _targets(told: Attributes) -> typing.Iterator[str]:
    """Yield the chains that a rule has look, or leaves the rest to."""
    for name, values in nft_rules.read_one('', told).rule.expressions:
        if name == 'immediate':
            data: typing.Any = values
            for kind in _VERDICT_IN_DATA:
                data = data.get(kind, {})
            chain = data.get(_CHAIN, b'')
            yield chain.rstrip(b'\0').decode('utf-8', 'replace')


def _is_of_group(rule: nft.Rule) -> bool:
    return (bool(rule.comment)
            and _are(rule.expressions[-len(_END):], _END)
            and any(_are(rule.expressions[:len(family)], family)
                    for family in group_rules.FAMILIES))


def _are(found: typing.Sequence[nft.Expression],
         wanted: typing.Sequence[nft.Expression]) -> bool:
    """Return whether there is all of this; a kernel may tell more."""
    return len(found) == len(wanted) and all(
        name == its and _has(values, of)
        for (name, values), (its, of) in zip(found, wanted))


def _has(found: nft.Values, wanted: nft.Values) -> bool:
    for kind, value in wanted.items():
        there = found.get(kind)
        if isinstance(value, bytes) or not isinstance(there, dict):
            if there != value:
                return False
        elif not _has(there, value):
            return False
    return True
