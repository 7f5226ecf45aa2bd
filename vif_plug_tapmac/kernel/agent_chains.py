# SPDX-License-Identifier: Apache-2.0

"""The chains of security groups, and the sets of their members, in the kernel.

What is there is asked for, and only what differs is done: a chain whose rules
are right stays as it is, and so does an interval of a set.
"""

import typing

from vif_plug_tapmac.kernel import agent_conntrack
from vif_plug_tapmac.kernel import agent_table
from vif_plug_tapmac.kernel import filter_table as table
from vif_plug_tapmac.kernel import group_rules
from vif_plug_tapmac.kernel import nft
from vif_plug_tapmac.kernel import nft_sets
from vif_plug_tapmac.wanted.security_groups import Change

#: How the names of chains and sets begin that an agent makes.
_CHAINS = tuple(group_rules.PREFIXES.values())
_SETS = 'members4_', 'members6_'


class There(typing.NamedTuple):
    """The names of what an agent has made."""
    chains: frozenset[str]
    sets: frozenset[str]


NOTHING = There(frozenset(), frozenset())


def there(session: nft.Session) -> There:
    """Return what there is of it now."""
    return There(
        frozenset(each for each in session.chains(table.NAME)
                  if each.startswith(_CHAINS)),
        frozenset(each for each in nft_sets.names(session, table.NAME)
                  if each.startswith(_SETS)))


class Plan(typing.NamedTuple):
    """What is to be done, in this order, and between the two with ports.

    :param ends: what makes chains of groups, and sets, go that may still be
        used; each for itself
    """
    before: list[nft.Step]
    after: list[nft.Step]
    ends: list[nft.Step]


def planned(session: nft.Session, here: There, change: Change,
            groups: typing.Iterable[tuple[str, ...]],
            used: typing.Collection[str], connections: bool) -> Plan:
    """Return what makes it as a change says.

    :param here: what there is
    :param groups: those of each port of the change
    :param used: the chains that ports are led to then
    :param connections: whether what knows them is there before that
    """
    made = [group_rules.chains(each) for each in change.groups]
    made += [set_chain(each, connections) for each in dict.fromkeys(groups)]
    wanted = {chain.name: [rule for rule in each.rules
                           if rule.chain == chain.name]
              for each in made for chain in each.chains}
    changed = {name: rules for name, rules in wanted.items()
               if name not in here.chains
               or not session.has_rules(table.NAME, name, rules)}
    before = [
        *_members(session, here, change),
        *(nft.new_chain(table.NAME, nft.Chain(name))
          for name in changed if name not in here.chains),
        *(nft.delete_rules(table.NAME, name)
          for name in changed if name in here.chains),
        *(nft.new_rule(table.NAME, rule)
          for rules in changed.values() for rule in rules)]
    of_groups = {name for each in made for chain in each.chains
                 for name in [chain.name]}
    gone = [name for name in here.chains if name not in of_groups
            and _is_unused(name, change, used)]
    after = [step for each in (nft.delete_rules, nft.delete_chain)
             for step in [each(table.NAME, name) for name in gone]]
    return Plan(before, after, _ends(here, change))


def set_chain(groups: tuple[str, ...],
              connections: bool) -> group_rules.Made:
    """Return what decides for ports in these groups, whatever they say first.

    That is, with what is for all ports that are known.
    """
    made = group_rules.set_chain(groups, agent_table.LAST)
    of = group_rules.set_name(groups)
    rules: list[nft.Rule] = []
    for direction in agent_table.LAST:
        name = group_rules.chain_name(direction, of)
        rules += agent_table.first(direction, name)
        if connections:
            rules.append(agent_conntrack.first(direction, name))
    return made._replace(rules=(*rules, *made.rules))


def _is_unused(name: str, change: Change,
               used: typing.Collection[str]) -> bool:
    """Return whether nothing leads to a chain that is not of the change.

    Of the chains of several groups, which only maps lead to, one knows; those
    of groups are known to be of no use only where the change is all.
    """
    of = next(name.removeprefix(each) for each in _CHAINS
              if name.startswith(each))
    if '-' in of:
        return change.is_all
    whole = name.removesuffix(group_rules.LATER)
    return whole not in used


def _members(session: nft.Session, here: There,
             change: Change) -> list[nft.Step]:
    """Return what has the members in their sets, and a set for each rule."""
    steps: list[nft.Step] = []
    made = [group_rules.sets(each) for each in change.members]
    known = {each.name for each, _ in made} | here.sets
    made += [(group_rules.members_set(*key), []) for key in dict.fromkeys(
        rule.members for group in change.groups for rule in group.rules)
        if key and group_rules.members_set(*key).name not in known]
    for number, (each, elements) in enumerate(made, 1):
        found: list[tuple[bytes, bytes]] = []
        if each.name in here.sets:
            found = nft_sets.intervals(nft_sets.elements(
                session, table.NAME, each.name))
        else:
            steps.append(nft_sets.new_set(table.NAME, each, number))
        wanted = nft_sets.intervals(elements)
        for function, some in (
                (nft_sets.delete_elements, set(found) - set(wanted)),
                (nft_sets.add_elements, set(wanted) - set(found))):
            steps += function(table.NAME, each.name, [
                element for pair in sorted(some)
                for element in nft_sets.interval(*pair)])
    return steps


def _ends(here: There, change: Change) -> list[nft.Step]:
    if change.is_all:
        wanted = {group_rules.members_set(*each.key).name
                  for each in change.members}
        return [nft_sets.delete_set(table.NAME, name)
                for name in sorted(here.sets - wanted)]
    chains = {group_rules.chain_name(direction, group) + end
              for group in change.gone_groups
              for direction in group_rules.PREFIXES
              for end in ('', group_rules.LATER)}
    sets = {group_rules.members_set(*key).name
            for key in change.gone_members}
    return [*(nft.delete_chain(table.NAME, name)
              for name in sorted(chains & here.chains)),
            *(nft_sets.delete_set(table.NAME, name)
              for name in sorted(sets & here.sets))]
