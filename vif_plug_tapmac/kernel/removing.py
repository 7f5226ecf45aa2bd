# SPDX-License-Identifier: Apache-2.0

"""Removing TAPs: those that carry our mark, and no others.

To look whether a guest holds a TAP, and then to delete it, is a race that a
guest loses which starts in between: its NIC is dead until it is attached anew.
So whoever is not told to delete a TAP under its guest first takes its name
away: nobody can open it any more. Then he looks, and gives the name back if
somebody has it. He deletes it by the name that only he knows, so that it stays
if somebody else has given its own one back meanwhile. An alternative name that
is too long to open a TAP by tells what it was called: whoever wants to plug or
unplug finds it by that, also if the one who was at it was killed.
"""

import dataclasses
import errno
import logging
import secrets
import typing

from vif_plug_tapmac import exception
from vif_plug_tapmac.kernel import address_guard
from vif_plug_tapmac.kernel import link as link_data
from vif_plug_tapmac.kernel.link import Link
from vif_plug_tapmac.kernel import netlink as nl
from vif_plug_tapmac import mark
from vif_plug_tapmac.wanted import names
from vif_plug_tapmac.wanted import port as port_values
from vif_plug_tapmac.wanted.port import Groups
from vif_plug_tapmac.wanted.port import TapIdentity

LOG = logging.getLogger(__name__)


class Held(Exception):
    """Somebody holds the TAP that was to be deleted; it is as it was."""


def remove(identity: TapIdentity, groups: Groups) -> None:
    """Delete the TAP if it carries our mark for this VIF, or has lost it.

    Held or not. Absent is success. Anything else of that name stays and is
    warned about. What its guest was kept to goes after it, so that nothing
    gets out meanwhile.

    :param groups: that our TAPs are in
    :raises KernelRefused: the TAP is still there
    """
    with nl.Netlink() as netlink:
        try:
            found = (netlink.find(identity.name)
                     or _find_being_deleted(netlink, identity.name))
        except exception.DeviceConflict as conflict:
            LOG.warning('Nothing is removed. %s', conflict)
            return
        if found is None:
            LOG.debug('%s is absent already', identity.name)
            address_guard.forget_gone(netlink, identity.vif_id)
            return
        if not (_is_marked(found, identity.vif_id)
                or identity.has_nova_name and mark.is_lost(
                    found, groups)):
            LOG.warning('%s stays: it does not carry the mark of tapmac for '
                        'VIF %s (its alias is %r). If nothing uses it: "ip '
                        'link delete %s".', identity.name, identity.vif_id,
                        found.alias, found.name)
            return
        if found.held:
            LOG.warning('%s is removed while a guest still holds it: that '
                        'guest\'s NIC is dead until it is attached anew',
                        identity.name)
        netlink.delete(found)
        address_guard.forget([found], groups)
        LOG.info('%s removed', identity.name)


def delete_idle(netlink: nl.Netlink, link: Link, own_queues: int = 0) -> bool:
    """Delete a TAP that nobody holds, whoever wants to open it meanwhile.

    :param own_queues: how many queues of a multi-queue TAP are the caller's
    :returns: False if somebody else was at it, too, and it stays: it deserves
        another look
    :raises Held: somebody holds it
    :raises KernelRefused: it is as it was
    """
    nameless = _take_name(netlink, link)
    if nameless is None:
        return True
    held = False
    try:
        held = _is_held(netlink, nameless, own_queues)
        if not held and netlink.delete_named(nameless.name, nameless.former):
            return True
    except BaseException:
        _give_back(netlink, nameless)
        raise
    stays = _give_back(netlink, nameless)
    if stays and held:
        raise Held()
    return not stays


def restore(netlink: nl.Netlink, name: str, found: Link | None,
            group: int, groups: typing.Collection[int]) -> Link | None:
    """Have a TAP back that somebody was deleting, killed in the middle or not.

    :param found: which has the name now, if one has
    :param group: of one that carries our mark, and was to go with others, in
        a group of their own
    :param groups: in which it stays, if it is: to what its guest is kept is
        changed with more than the group
    :returns: the link that has the name then
    :raises DeviceConflict: what is to have this name is no TAP
    """
    link = found or netlink.find_being_deleted(name)
    if link is None or found is not None and link.former_name is None:
        return link
    if not link.is_tap or found is None and link.former_name != name:
        raise exception.DeviceConflict(
            device=name,
            reason='%s, which is %s, has the alternative name %s'
            % (link.name, 'that of another VIF' if link.is_tap else 'no TAP',
               names.being_deleted(name)),
            remedy='remove it with "ip link property del dev %s altname %s"'
            % (link.name, names.being_deleted(name)))
    LOG.info('%s was being deleted as %s, and stays', name, link.name)
    try:
        if link.lost_name is not None:
            netlink.rename(link, name, name, None if link.group in groups or (
                mark.TapMark.parse(link.alias) is None) else group)
        netlink.mark_deletion(link, name, False)
    except exception.KernelRefused as error:
        # It is gone, or another has the name: see what there is.
        if error.kwargs.get('code') not in (errno.ENODEV, errno.EEXIST):
            raise
    return netlink.find(name)


def remove_many(identities: typing.Collection[TapIdentity],
                also_held: bool, link_group: int | None = None,
                groups: Groups | None = None) -> list[str]:
    """Delete many TAPs that carry our mark, each for its VIF, at once.

    Those that nobody holds lose their names, are put in a link group of their
    own, and go with it: the kernel takes about half a millisecond for each
    instead of fifteen. Whoever plugs one of these VIFs meanwhile takes its TAP
    out of that group again together with giving it its name, and who makes a
    new one never puts it there.

    :param also_held: whether those go, too, that a process holds
    :param link_group: of what somebody was deleting before, and was killed; it
        is in this one if it stays. None: in the one that it was found in
    :param groups: that our TAPs are in: it stays in the one of these that it
        is in, as for :func:`restore`; None: they are not known
    :returns: the names of those that went, by whomever; all others stay as
        they are
    :raises KernelRefused: some of them may be gone
    """
    wanted = {identity.name: identity.vif_id for identity in identities}
    gone, concerned = [], []
    with nl.Netlink() as netlink:
        links = netlink.links()
        batch = _Batch(netlink, _unused_group(links), also_held)
        try:
            for link in links:
                name = link.former_name or link.name
                if not _is_marked(link, wanted.get(name)):
                    continue
                if (link.lost_name is not None and link_group is not None
                        and link.group not in (groups or ())):
                    link = dataclasses.replace(link, group=link_group)
                concerned.append(link)
                if not link.held:
                    batch.add(link)
                elif also_held:
                    netlink.delete(link)
                    gone.append(name)
            batch.delete()
        finally:
            gone += batch.close()
    address_guard.forget((link for link in concerned if (
        link.former_name or link.name) in gone), groups)
    for name in gone:
        LOG.info('%s removed', name)
    return gone


@dataclasses.dataclass(frozen=True)
class _Nameless:
    """A TAP whose name was taken away.

    :param link: as it was before
    :param former: the name that guests know
    :param name: which it has now
    """
    link: Link
    former: str
    name: str


class _Batch:
    """TAPs without their names, which go at once, in a link group."""

    def __init__(self, netlink: nl.Netlink, group: int,
                 also_held: bool) -> None:
        self._netlink = netlink
        self._group = group
        self._also_held = also_held
        self._all: list[_Nameless] = []
        self._gone: list[str] = []
        self._idle: dict[int, str] = {}

    def add(self, link: Link) -> None:
        """Take a TAP's name, and see that nobody holds it."""
        nameless = _take_name(self._netlink, link)
        if nameless is None:
            self._gone.append(link.former_name or link.name)
            return
        self._all.append(nameless)
        if not _is_held(self._netlink, nameless):
            # Not before: the group is none of those that are kept from the
            # host. And only while it has no name that a guest could say.
            if self._netlink.change_named(
                    nameless.name, nameless.former, 'setting its link group',
                    *link_data.settings({'group': self._group})):
                self._idle[link.index] = nameless.name
        elif self._also_held:
            self._netlink.delete_named(nameless.name, nameless.former)
        else:
            self._all.remove(nameless)
            _give_back(self._netlink, nameless)

    def delete(self) -> None:
        members = [link for link in self._netlink.links()
                   if link.group == self._group]
        if all(self._idle.get(link.index) == link.name for link in members):
            self._netlink.delete_group(self._group)
            return
        for link in members:  # Somebody else has something in it.
            if self._idle.get(link.index) == link.name:
                self._netlink.delete_named(link.name, link.name)

    def close(self) -> list[str]:
        """Give back the names of those that stay, and return all others'."""
        return self._gone + [nameless.former for nameless in self._all
                             if not _give_back(self._netlink, nameless)]


def _take_name(netlink: nl.Netlink, link: Link) -> _Nameless | None:
    """Have nobody open a TAP any more.

    :returns: None if it is gone already
    """
    nameless = _Nameless(link, link.former_name or link.name,
                         names.unguessable())
    try:
        netlink.mark_deletion(link, nameless.former, True)
        netlink.rename(link, nameless.name, nameless.former)
    except exception.KernelRefused as error:
        if error.kwargs.get('code') == errno.ENODEV:
            return None
        _give_back(netlink, nameless)
        raise
    except BaseException:
        _give_back(netlink, nameless)
        raise
    return nameless


def _is_held(netlink: nl.Netlink, nameless: _Nameless,
             own_queues: int = 0) -> bool:
    """Return whether others hold a TAP that nobody can open any more."""
    seen = netlink.find(nameless.name, nameless.former)
    if seen is None:
        return False
    if seen.multi_queue:
        return (seen.queues or 0) > own_queues
    return seen.held or bool(netlink.is_attached(nameless.name,
                                                 nameless.former))


def _give_back(netlink: nl.Netlink, nameless: _Nameless) -> bool:
    """Have a TAP as it was; return whether it is there.

    What somebody else has given a name by now keeps that one.
    """
    link, former = nameless.link, nameless.former
    try:
        seen = netlink.get(link.index, former)
        if seen is None:
            return False
        if seen.name == nameless.name:
            netlink.rename(seen, former, former, link.group)
        if link.up and not seen.up:
            # Before Linux 6.2 it was to be down to lose its name.
            netlink.change(link, {'up': True})
        if seen.name in (former, nameless.name):
            netlink.mark_deletion(link, former, False)
    except exception.TapMacError as error:
        LOG.error('%s stays, and may be called %s by now. Remedy: "tapmac '
                  'repair", or restart nova-compute. %s', former,
                  nameless.name, error)
    return True


def _find_being_deleted(netlink: nl.Netlink, name: str) -> Link | None:
    """Return the TAP that had this name; None: another has it besides."""
    link = netlink.find_being_deleted(name)
    return link if link is not None and link.former_name == name else None


def _is_marked(link: Link, vif_id: str | None) -> bool:
    found = mark.TapMark.parse(link.alias)
    return link.is_tap and found is not None and found.vif_id == vif_id


def _unused_group(links: list[Link]) -> int:
    used = {link.group for link in links}
    return next(group for group in iter(lambda: secrets.randbits(31), None)
                if group not in used and group >= port_values.LINK_GROUP_MIN)
