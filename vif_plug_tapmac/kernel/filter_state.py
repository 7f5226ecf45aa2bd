# SPDX-License-Identifier: Apache-2.0

"""What is in the kernel of the table that keeps guests to their addresses."""

import contextlib
import functools
import logging
import socket
import struct
import typing

from vif_plug_tapmac.kernel import agent_table
from vif_plug_tapmac.kernel import emergency_exit
from vif_plug_tapmac.kernel import filter_steps
from vif_plug_tapmac.kernel.filter_steps import Elements
from vif_plug_tapmac.kernel import filter_table as table
from vif_plug_tapmac.kernel import nft
from vif_plug_tapmac.kernel import nft_sets
from vif_plug_tapmac.wanted.rules import Element

LOG = logging.getLogger(__name__)


def element(name: str, octets: bytes) -> tuple[int, Element]:
    """Return what a key says: the index of a TAP, and what is its own.

    :raises ValueError: it is none of ours
    """
    if len(octets) not in (each.length for each in table.PORT_SETS):
        raise ValueError(octets)
    address = octets[12:]
    return int.from_bytes(octets[:4], 'little' if struct.pack(
        '=H', 1) == b'\1\0' else 'big'), Element(
            name, octets[4:10].hex(':'), socket.inet_ntop(
                socket.AF_INET6 if len(address) > 4 else socket.AF_INET,
                address) if address else None)


class State(typing.NamedTuple):
    """What is in the kernel.

    :param version: of the table; None: there is none
    :param is_right: whether it has all that it is made of, and no more, and
        nobody has emptied its sets
    :param groups: the link groups whose ports are closed
    :param ports: what is in the sets for each index
    :param agent_groups: which of the groups are an agent's
    :param fed: the indexes of which an agent has said what passes, in both
        directions, and ``open``, those of them at which all does
    :param exits: who is open by the emergency exit
    """
    version: int | None
    is_right: bool
    groups: frozenset[int]
    ports: dict[int, Elements]
    agent_groups: frozenset[int] = frozenset()
    fed: frozenset[int] = frozenset()
    open: frozenset[int] = frozenset()
    exits: emergency_exit.Exits = emergency_exit.NONE


def state() -> State:
    """Return what is in the kernel now.

    :raises KernelRefused: nf_tables is missing, or no privilege to ask
    """
    with nft.Session() as session:
        found, _, stays = look(session)
        if found is None:
            return State(None, False, frozenset(), {})
        leaving, entering, is_open = (_indexes(session, name) for name in (
            agent_table.EGRESS, agent_table.INGRESS, agent_table.OPEN))
        # What a newer release made of it is not for us to judge.
        return State(
            version_of(found.comment), found.is_in_force and stays,
            frozenset(groups_in(session, table.GROUPS)), elements(session),
            frozenset(groups_in(session, agent_table.GROUPS)),
            leaving & entering | is_open, is_open,
            emergency_exit.there(session))


def _indexes(session: nft.Session, name: str) -> frozenset[int]:
    return frozenset(int.from_bytes(each.key, nft.BYTE_ORDER)
                     for each in nft_sets.elements(session, table.NAME, name))


def elements(session: nft.Session) -> dict[int, Elements]:
    """Return what is in the sets for each index; none where there are none."""
    found: dict[int, Elements] = {}
    for each in table.PORT_SETS:
        for there in nft_sets.elements(session, table.NAME, each.name):
            with contextlib.suppress(ValueError):
                index, own = element(each.name, there.key)
                if index != filter_steps.CANARY:
                    found.setdefault(index, {})[own] = there.comment
    return found


def is_right(session: nft.Session) -> bool:
    """Return whether the table has all that it is made of, and no more."""
    return any(_has(session, table.SETS, table.CHAINS, rules) for rules in (
        table.RULES, (*table.RULES, *table.LOG_RULES)))


def _has(session: nft.Session, sets: tuple[nft_sets.Set, ...],
         chains: tuple[nft.Chain, ...], rules: tuple[nft.Rule, ...]) -> bool:
    return (all(session.is_right_chain(table.NAME, each)
                for each in chains if each.hook is not None)
            and all(nft_sets.is_right(session, table.NAME, each)
                    for each in sets)
            and session.are_right_rules(table.NAME, rules, _looked_at(
                session, sets, chains)))


def _looked_at(session: nft.Session, sets: tuple[nft_sets.Set, ...],
               chains: tuple[nft.Chain, ...],
               ) -> list[str] | tuple[None]:
    """Return the chains whose rules have to be right; None: all there are.

    Where the agent has chains and sets besides, they are its business, and
    there may be more of them than anybody wants to look at.
    """
    found = session.table(table.NAME)
    if found is None or found.things <= len(sets) + len(chains):
        return None,
    return [each.name for each in chains]


def is_right_beside(session: nft.Session, beside: table.Beside) -> bool:
    """Return whether a table of another family is right, or a newer one.

    :param session: on that family
    """
    found = session.table(table.NAME)
    return found is not None and (
        version_of(found.comment) > table.VERSION
        or version_of(found.comment) == table.VERSION and found.is_in_force
        and _has(session, beside.sets, beside.chains, beside.rules))


def look(session: nft.Session) -> tuple[nft.Table | None, bool, bool]:
    """Return the table; whether its sets are whole; whether it stays."""
    found = session.table(table.NAME)
    is_whole = all(has_canary(session, each) for each in table.PORT_SETS)
    return found, is_whole, (found is not None
                             and lasts(session, found, is_whole))


def lasts(session: nft.Session, found: nft.Table, is_whole: bool) -> bool:
    """Return whether a table stays: it is right, or of a newer release."""
    version = version_of(found.comment)
    return version > table.VERSION or (
        version == table.VERSION and found.is_in_force and is_whole
        and is_right(session))


def is_left_to_agent(session: nft.Session, found: nft.Table | None,
                     is_whole: bool) -> bool:
    """Return whether only an agent may replace an older release's table.

    That is, one has said what passes at ports: who does not know that would
    cut them off. It is in force as it is.
    """
    if found is None or not (found.is_in_force and is_whole and 0 < version_of(
            found.comment) < table.VERSION):
        return False
    return any(nft_sets.elements(session, table.NAME, name)
               for name in (agent_table.INGRESS, agent_table.OPEN))


@functools.cache
def tell(version: int, is_left: bool = False) -> None:
    """Say once that a table is of another release, and what becomes of it.

    :param is_left: whether it is an older one that is left to an agent
    """
    if version > table.VERSION:
        LOG.warning('The table bridge %s is of a newer release (version %d, '
                    'and this one makes %d), and is left as it is. Remedy: '
                    'start this service again, so that it runs that release, '
                    'too.', table.NAME, version, table.VERSION)
    elif is_left:
        LOG.warning('The table bridge %s is of an older release (version %d, '
                    'and this one makes %d), and is left as it is until the '
                    'agent that feeds it makes it anew. Remedy: start the '
                    'agent again.', table.NAME, version, table.VERSION)


def version_of(comment: str) -> int:
    """Return the version of a table; 0 if it is not one of ours."""
    number = comment.removeprefix(filter_steps.VERSION_OF)
    return int(number) if number.isdecimal() and number != comment else 0


def groups_in(session: nft.Session, name: str) -> set[int]:
    """Return the link groups in a set of these."""
    return {struct.unpack('=I', each.key)[0] for each in nft_sets.elements(
        session, table.NAME, name) if len(each.key) == 4}


def is_used(session: nft.Session) -> bool:
    """Return whether guests are kept to something by the table."""
    return bool(groups_in(session, table.GROUPS) or elements(session)
                or any(emergency_exit.there(session)))


def is_closed(session: nft.Session, group: int, by_agent: bool) -> bool:
    return all(nft_sets.has(session, table.NAME, name,
                            filter_steps.number_key(group))
               for name in [table.GROUPS, agent_table.GROUPS][:1 + by_agent])


def is_fed(session: nft.Session, index: int) -> bool:
    """Return whether an agent says what passes at the TAP with this index."""
    key = filter_steps.number_key(index)
    return any(nft_sets.has(session, table.NAME, name, key)
               for name in (agent_table.INGRESS, agent_table.OPEN))


def is_unlocked(session: nft.Session, index: int) -> bool:
    """Return whether that agent has it that the bridge does not lock it."""
    return nft_sets.has(session, table.NAME, agent_table.UNLOCKED,
                        filter_steps.number_key(index))


def unfeeding(session: nft.Session, index: int) -> list[nft.Step]:
    """Return what takes an index out of all that is an agent's alone."""
    key = filter_steps.number_key(index)
    own = [(name, [nft_sets.Element(key)]) for name in agent_table.BY_INDEX
           if nft_sets.has(session, table.NAME, name, key)]
    own += [(each.name, [element for element in nft_sets.elements(
        session, table.NAME, each.name) if element.key.startswith(key)])
        for each in agent_table.PREFIXES]
    return [step for name, elements in own for step in
            nft_sets.delete_elements(table.NAME, name, elements)]


def has_element(session: nft.Session, index: int, own: Element) -> bool:
    """Return whether an element is there for the TAP with this index."""
    return nft_sets.has(session, table.NAME, own.set, filter_steps.key(
        index, own.mac, own.address))


def has_canary(session: nft.Session, where: nft_sets.Set) -> bool:
    return nft_sets.has(session, table.NAME, where.name, bytes(where.length))
