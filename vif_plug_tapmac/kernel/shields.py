# SPDX-License-Identifier: Apache-2.0

"""Which link groups do not reach this host, and which services want that.

The table of the filter says it for what comes through bridges, those of other
families beside it for what a bridge leaves to the port itself. Each service on
this host has an element of its own, also where they share a group: what guests
send to this host is dropped as long as one of them wants it.
"""

import struct
import typing
import zlib

from vif_plug_tapmac.kernel import filter_state
from vif_plug_tapmac.kernel import filter_steps
from vif_plug_tapmac.kernel import filter_table as table
from vif_plug_tapmac.kernel import nft
from vif_plug_tapmac.kernel import nft_sets
from vif_plug_tapmac.kernel.nft_sets import Element

#: Before whose an element is, in its comment.
_OF = 'host_shield of '
_KEY = struct.Struct('=II')


class Shield(typing.NamedTuple):
    """That a service wants a link group to be kept from this host.

    :param number: made of the service's name
    :param service: None: it does not say
    """
    group: int
    number: int
    service: str | None

    @classmethod
    def of(cls, group: int, service: str) -> 'Shield':
        return cls(group, zlib.crc32(service.encode()), service)

    @property
    def key(self) -> bytes:
        return _KEY.pack(self.group, self.number)


def there(session: nft.Session) -> list[Shield]:
    """Return those of all services on this host."""
    return [Shield(group, number, each.comment.removeprefix(_OF)
                   if each.comment.startswith(_OF) else None)
            for each in nft_sets.elements(session, table.NAME, table.SHIELDS)
            if len(each.key) == _KEY.size
            for group, number in [_KEY.unpack(each.key)]]


def of_all_services() -> list[Shield]:
    """Return the same.

    :raises KernelRefused: nf_tables is missing, or no privilege to ask
    """
    with nft.Session() as session:
        return there(session)


def is_shielded(group: int, service: str | None = None) -> bool:
    """Return whether what ports of a link group send to the host is dropped.

    :param service: that wants it; None: any
    :raises KernelRefused: nf_tables is missing, or no privilege to ask
    """
    with nft.Session() as session:
        found = session.table(table.NAME)
        return (found is not None
                and filter_state.lasts(session, found, is_whole=True)
                and any(each.group == group and service in (
                    None, each.service) for each in there(session))
                and not _without(session, {group})
                and all(filter_state.is_right_beside(view, each)
                        and not _without(view, {group})
                        for each in table.BESIDE
                        for view in [session.on(each.family)]))


def additions(shields: typing.Collection[Shield]) -> list[nft.Step]:
    """Return what has these in the table of bridges, and what they want."""
    return [*nft_sets.add_elements(table.NAME, table.SHIELDS, [
        Element(each.key, '' if each.service is None else _OF + each.service)
        for each in shields]),
        *filter_steps.shielding({each.group for each in shields})]


def putting(session: nft.Session, wanted: typing.Collection[Shield],
            ) -> list[nft.Step]:
    """Return what has these in force beside those that are there.

    The table of bridges is there, or made in the same transaction with what
    is there now.
    """
    known = there(session)
    groups = {each.group for each in (*known, *wanted)}
    new = [each for each in wanted if each not in known]
    keys = {each.key for each in new}
    steps = [*nft_sets.delete_elements(table.NAME, table.SHIELDS, [
        Element(each.key) for each in known if each.key in keys]),
        *additions(new)]
    steps += filter_steps.shielding(_without(session, groups))
    for beside in table.BESIDE:
        view = session.on(beside.family)
        if filter_state.is_right_beside(view, beside):
            steps += nft.on(beside.family, filter_steps.shielding(
                _without(view, groups)))
        else:
            steps += _deletion(view, beside.family)
            steps += filter_steps.making_beside(beside, groups)
    return steps


def removing(session: nft.Session, groups: typing.Collection[int] | None,
             service: str | None) -> list[nft.Step]:
    """Return what removes those of a service, and all that is without use.

    :param groups: None: whichever there are
    :param service: None: anybody's
    """
    known = there(session)
    own = [each for each in known
           if (groups is None or each.group in groups)
           and service in (None, each.service)]
    left = {each.group for each in known if each not in own}
    steps: list[nft.Step] = []
    for family in *(each.family for each in table.BESIDE), nft.BRIDGE:
        view = session.on(family)
        here = filter_state.groups_in(view, table.SHIELDED)
        gone = here - left if groups is None else here & set(groups) - left
        is_last = here == gone and (family != nft.BRIDGE or (
            bool(own) and not left and not filter_state.is_used(session)))
        steps += (is_last and _deletion(view, family)) or nft.on(family, [
            *nft_sets.delete_elements(table.NAME, table.SHIELDED, [
                Element(filter_steps.number_key(each)) for each in gone]),
            *(nft_sets.delete_elements(table.NAME, table.SHIELDS, [
                Element(each.key) for each in own])
              if family == nft.BRIDGE else [])])
    return steps


def _without(session: nft.Session, groups: set[int]) -> set[int]:
    """Return which of these groups reach the host by one family."""
    return {each for each in groups if not nft_sets.has(
        session, table.NAME, table.SHIELDED, filter_steps.number_key(each))}


def _deletion(session: nft.Session, family: int) -> list[nft.Step]:
    """Return what removes a table, if it is not of a newer release."""
    found = session.table(table.NAME)
    if found is None or (
            filter_state.version_of(found.comment) > table.VERSION):
        return []
    return nft.on(family, [nft.delete_table(table.NAME)])
