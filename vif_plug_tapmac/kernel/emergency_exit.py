# SPDX-License-Identifier: Apache-2.0

"""The emergency exit in the kernel: who is open by it, and switching it.

It is the operator's: whoever makes the table anew has it as it was, and nobody
else changes it. A port is known by its VIF where its TAP is made anew.
"""

import typing

from vif_plug_tapmac import exception
from vif_plug_tapmac.kernel import exit_rules
from vif_plug_tapmac.kernel import filter_steps
from vif_plug_tapmac.kernel import filter_table as table
from vif_plug_tapmac.kernel import lasting_session
from vif_plug_tapmac.kernel import netlink as nl
from vif_plug_tapmac.kernel import nft
from vif_plug_tapmac.kernel import nft_sets
from vif_plug_tapmac.kernel.nft_sets import Element


class Exits(typing.NamedTuple):
    """Who is open.

    :param is_host: whether all ports are
    :param ports: the VIF of each port that is by itself, by its index
    """
    is_host: bool = False
    ports: dict[int, str] = {}


NONE = Exits()


def there(session: nft.Session) -> Exits:
    """Return who is open now; nobody where there is no table, or an old one.

    :raises KernelRefused: nf_tables is missing, or no privilege to ask
    """
    return Exits(
        nft_sets.has(session, table.NAME, exit_rules.HOST,
                     exit_rules.ALL_TAPS),
        {int.from_bytes(each.key, nft.BYTE_ORDER): each.comment
         for each in nft_sets.elements(session, table.NAME,
                                       exit_rules.PORTS)})


def now() -> Exits:
    """Return the same, for who has no session."""
    with nft.Session() as session:
        return there(session)


def after(exits: Exits, name: str, elements: typing.Iterable[Element],
          is_gone: bool) -> Exits:
    """Return who is open when elements of a set have come, or gone.

    :param name: of the set; of any other nothing comes of it
    """
    if name == exit_rules.HOST:
        return exits._replace(is_host=not is_gone)
    if name != exit_rules.PORTS:
        return exits
    its = {int.from_bytes(each.key, nft.BYTE_ORDER): each.comment
           for each in elements}
    return exits._replace(ports={
        index: vif_id for index, vif_id in exits.ports.items()
        if index not in its} if is_gone else {**exits.ports, **its})


def additions(exits: Exits, there: Exits = NONE) -> list[nft.Step]:
    """Return what opens these that are not open yet.

    :param there: who is
    """
    return [
        *nft_sets.add_elements(table.NAME, exit_rules.HOST, [
            Element(exit_rules.ALL_TAPS)
        ] if exits.is_host and not there.is_host else []),
        *nft_sets.add_elements(table.NAME, exit_rules.PORTS, [
            Element(filter_steps.number_key(index), vif_id)
            for index, vif_id in exits.ports.items()
            if index not in there.ports])]


def deletions(exits: Exits) -> list[nft.Step]:
    """Return what closes these, which are open."""
    return [
        *nft_sets.delete_elements(table.NAME, exit_rules.HOST, [
            Element(exit_rules.ALL_TAPS)] if exits.is_host else []),
        *nft_sets.delete_elements(table.NAME, exit_rules.PORTS, [
            Element(filter_steps.number_key(index))
            for index in exits.ports])]


def switch_off(wanted: Exits) -> None:
    """Open these, too; the table is made where there is none, closing nobody.

    :raises KernelRefused, VerifyFailed: nothing is changed
    :raises TapMacError: the table is of a release that has no such thing
    """
    def plan(session: nft.Session) -> list[nft.Step]:
        if session.table(table.NAME) is None:
            return [*filter_steps.making(set(), set()), *additions(wanted)]
        if exit_rules.PORTS not in nft_sets.names(session, table.NAME):
            raise exception.TapMacError(
                'Nothing is changed: the table bridge %s is of an older '
                'release, which has no emergency exit. Remedy: start what '
                'made it again: tapmac-agent, or nova-compute.' % table.NAME)
        return additions(wanted, there(session))

    _settle('opening ports', plan)


def switch_on(wanted: Exits) -> None:
    """Close these that are open.

    :raises KernelRefused, VerifyFailed: nothing is changed
    """
    def plan(session: nft.Session) -> list[nft.Step]:
        now = there(session)
        return deletions(Exits(wanted.is_host and now.is_host, {
            index: now.ports[index] for index in wanted.ports
            if index in now.ports}))

    _settle('closing ports', plan)


def _settle(step: str, plan: typing.Callable[
        [nft.Session], list[nft.Step]]) -> None:
    sessions = lasting_session.LastingSession()
    try:
        sessions.settle(step, plan)
    finally:
        sessions.get()[0].__exit__(None, None, None)


def following(session: nft.Session, netlink: nl.Netlink, index: int,
              vif_id: str) -> list[nft.Step]:
    """Return what opens the TAP of a VIF that was open at another one."""
    former = {each: owner for each, owner in there(session).ports.items()
              if owner == vif_id}
    if not former or index in former:
        return []
    gone = {each: owner for each, owner in former.items()
            if netlink.get(each) is None}
    return [*deletions(Exits(ports=gone)),
            *additions(Exits(ports={index: vif_id}))]
