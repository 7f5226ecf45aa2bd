# SPDX-License-Identifier: Apache-2.0

"""What there is in the kernel for one port that an agent feeds.

It is asked for, of this port and what its rules look at; nobody's memory is.
"""

import re
import typing

from vif_plug_tapmac import exception
from vif_plug_tapmac.kernel import agent_conntrack
from vif_plug_tapmac.kernel import agent_table
from vif_plug_tapmac.kernel import filter_steps
from vif_plug_tapmac.kernel import filter_table as table
from vif_plug_tapmac.kernel import group_rules
from vif_plug_tapmac.kernel import nft
from vif_plug_tapmac.kernel import nft_rules
from vif_plug_tapmac.kernel.nft_rules import Told
from vif_plug_tapmac.kernel import nft_sets
from vif_plug_tapmac.wanted import security_groups

_UUID = re.compile(r'[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z')
_MAPS = {security_groups.INGRESS: agent_table.INGRESS,
         security_groups.EGRESS: agent_table.EGRESS}
#: How often it is looked at anew where others change rules meanwhile.
_ROUNDS = 5
#: First and last, of all keys that are in between.
Pairs = list[tuple[bytes, bytes]]


class AgentPort(typing.NamedTuple):
    """What there is for a port.

    :param is_open: whether all passes, as port security is off
    :param stateful: whether what belongs to a connection passes, too
    :param chains: where its groups are asked, by direction; of one that is
        open, none
    :param groups: the UUIDs of its groups, sorted
    :param rules: those of these chains, and of the chains of its groups
    :param members: what is in the sets that these look at, by their names
    :param prefixes: the networks that are its own, each key with index and
        MAC, by the names of the sets
    :param zone: of its bridge; None: there is none, as the kernel knows no
        connections on bridges
    """
    is_open: bool
    stateful: bool
    chains: dict[str, str]
    groups: tuple[str, ...]
    rules: tuple[Told, ...]
    members: dict[str, Pairs]
    prefixes: dict[str, Pairs]
    zone: int | None


def read(index: int, bridge: str | None) -> AgentPort | None:
    """Return what there is for a TAP; None: no agent has said anything of it.

    :param index: of the TAP
    :param bridge: what that is a port of; None: of nothing
    :raises KernelRefused: no privilege to ask, or nf_tables is missing
    :raises VerifyFailed: others change rules all the time
    """
    with nft.Session() as session:
        for _ in range(_ROUNDS):
            generation = session.generation()
            found = _read(session, filter_steps.number_key(index), bridge)
            if session.generation() == generation:
                return found
    raise exception.VerifyFailed(
        device='nftables', differences='rules are changed all the time ("nft '
        'monitor" tells by whom)')


def _read(session: nft.Session, key: bytes,
          bridge: str | None) -> AgentPort | None:
    led = {direction: each.data for direction, name in _MAPS.items()
           for each in _elements(session, name) if each.key == key}
    is_open = nft_sets.has(session, table.NAME, agent_table.OPEN, key)
    if not led and not is_open:
        return None
    chains = {direction: str(chain) for direction, chain in led.items()}
    rules = [each for chain in chains.values()
             for name in (chain, chain + group_rules.LATER)
             for each in nft_rules.read(session, table.NAME, name)]
    names = sorted({name for each in rules for name in _asked(each.rule)})
    rules += [each for name in names
              for each in nft_rules.read(session, table.NAME, name)]
    zones = {each.key.rstrip(b'\0').decode(): agent_conntrack.zone_of(each)
             for each in _elements(session, agent_conntrack.ZONES)}
    return AgentPort(
        is_open,
        nft_sets.has(session, table.NAME, agent_table.STATEFUL, key),
        chains, tuple(sorted({group_of(name) or '' for name in names})),
        tuple(rules), {name: nft_sets.intervals(_elements(session, name))
                       for name in sorted(set(_members(rules)))},
        {each.name: [(found.key, found.last or found.key)
                     for found in _elements(session, each.name)
                     if found.key.startswith(key)]
         for each in agent_table.PREFIXES}, zones.get(bridge or ''))


def _elements(session: nft.Session, name: str) -> list[nft_sets.Element]:
    return nft_sets.elements(session, table.NAME, name)


def group_of(chain: str) -> str | None:
    """Return the UUID of the group whose chain this is; None: of no group."""
    name = chain.removesuffix(group_rules.LATER)
    for prefix in group_rules.PREFIXES.values():
        if name.startswith(prefix) and _UUID.match(name[len(prefix):]):
            return name[len(prefix):]
    return None


def _asked(rule: nft.Rule) -> typing.Iterator[str]:
    """Yield the chains of groups that a rule has asked."""
    for name, values in rule.expressions:
        if name == 'immediate':
            verdict = typing.cast(nft.Values, values[2]).get(2, {})
            chain = typing.cast(dict[int, bytes], verdict).get(2, b'')
            if group_of(_text(chain)) is not None:
                yield _text(chain)


def _members(rules: typing.Iterable[Told]) -> typing.Iterator[str]:
    for each in rules:
        for name, values in each.rule.expressions:
            if name == 'lookup' and group_of(each.rule.chain) is not None:
                yield _text(typing.cast(bytes, values[1]))


def _text(octets: bytes) -> str:
    return octets.rstrip(b'\0').decode('utf-8', 'replace')
