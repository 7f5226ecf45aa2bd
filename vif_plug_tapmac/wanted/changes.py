# SPDX-License-Identifier: Apache-2.0

"""What is to be done about security groups so that a host has what is wanted.

All that there is and all that is wanted are values of :class:`Change` that
are all. Between two of them is a change, which has what differs, and no more.
"""

import typing

from vif_plug_tapmac.wanted.security_groups import Change
from vif_plug_tapmac.wanted.security_groups import Group
from vif_plug_tapmac.wanted.security_groups import Members
from vif_plug_tapmac.wanted.security_groups import MembersKey
from vif_plug_tapmac.wanted.security_groups import Port

_ThingT = typing.TypeVar('_ThingT', Port, Group, Members)
_KeyT = typing.TypeVar('_KeyT', str, MembersKey)


def difference(former: Change, new: Change) -> Change:
    """Return what makes of all that there was all that there shall be.

    :param former: which is all
    :param new: which is all
    """
    return Change(
        _other(former.ports, new.ports),
        _gone(_keys(former.ports), _keys(new.ports)),
        _other(former.groups, new.groups),
        _gone(_keys(former.groups), _keys(new.groups)),
        _other(former.members, new.members),
        _gone(_members_keys(former), _members_keys(new)))


def after(former: Change, change: Change) -> Change:
    """Return all that there is when a change is done.

    What nothing names any more is left out: groups that no port is in, and
    members that no rule names.

    :param former: which is all
    :raises ValueError: then a port or a rule would name what is not there
    """
    if change.is_all:
        former = Change(is_all=True)
    ports = _there(former.ports, change.ports, change.gone)
    named = {group for each in ports for group in each.groups}
    groups = tuple(each for each in _there(
        former.groups, change.groups, change.gone_groups) if each.id in named)
    asked = {rule.members for each in groups for rule in each.rules}
    members = tuple(each for each in _there(
        former.members, change.members, change.gone_members)
        if each.key in asked)
    return Change(ports, groups=groups, members=members, is_all=True)


def _by_key(things: tuple[_ThingT, ...]) -> dict[typing.Any, _ThingT]:
    return {each.key: each for each in things}


def _keys(things: tuple[Port, ...] | tuple[Group, ...]) -> tuple[str, ...]:
    return tuple(each.key for each in things)


def _members_keys(change: Change) -> tuple[MembersKey, ...]:
    return tuple(each.key for each in change.members)


def _other(former: tuple[_ThingT, ...],
           new: tuple[_ThingT, ...]) -> tuple[_ThingT, ...]:
    there = _by_key(former)
    return tuple(each for each in new if there.get(each.key) != each)


def _gone(former: tuple[_KeyT, ...],
          new: tuple[_KeyT, ...]) -> tuple[_KeyT, ...]:
    return tuple(sorted(set(former) - set(new)))


def _there(former: tuple[_ThingT, ...], new: tuple[_ThingT, ...],
           gone: tuple[typing.Any, ...]) -> tuple[_ThingT, ...]:
    found = {**_by_key(former), **_by_key(new)}
    left = set(found).difference(gone)
    return tuple(each for key, each in found.items() if key in left)
