# SPDX-License-Identifier: Apache-2.0

"""Removing TAPs: those that carry our mark, and no others."""

import logging
import secrets
import typing

from vif_plug_tapmac import exception
from vif_plug_tapmac.kernel.link import Link
from vif_plug_tapmac.kernel import netlink as nl
from vif_plug_tapmac import mark
from vif_plug_tapmac.wanted import port as port_values
from vif_plug_tapmac.wanted.port import TapIdentity

LOG = logging.getLogger(__name__)


def remove(identity: TapIdentity, link_group: int) -> None:
    """Delete the TAP if it carries our mark for this VIF, or has lost it.

    Absent is success. Anything else of that name stays and is warned about.

    :param link_group: of our TAPs
    :raises KernelRefused: the TAP is still there
    """
    with nl.Netlink() as netlink:
        try:
            found = netlink.find(identity.name)
        except exception.DeviceConflict as conflict:
            LOG.warning('Nothing is removed. %s', conflict)
            return
        if found is None:
            LOG.debug('%s is absent already', identity.name)
            return
        if not (_is_marked(found, identity.vif_id)
                or identity.has_nova_name and mark.is_lost(found,
                                                           link_group)):
            LOG.warning('%s stays: it does not carry the mark of tapmac for '
                        'VIF %s (its alias is %r). If nothing uses it: "ip '
                        'link delete %s".', identity.name, identity.vif_id,
                        found.alias, identity.name)
            return
        if found.held:
            LOG.warning('%s is removed while a guest still holds it: that '
                        'guest\'s NIC is dead until it is attached anew',
                        identity.name)
        netlink.delete(found)
        LOG.info('%s removed', identity.name)


def remove_many(identities: typing.Collection[TapIdentity],
                also_held: bool) -> list[str]:
    """Delete many TAPs that carry our mark, each for its VIF, at once.

    They are put in a link group of their own, and go with it: the kernel takes
    about half a millisecond for each instead of fifteen. Whoever plugs one of
    these VIFs meanwhile takes its TAP out of that group again, and who makes a
    new one never puts it there.

    :param also_held: whether those go, too, that a process holds
    :returns: the names of those that went; all others stay as they are
    :raises KernelRefused: some of them may be gone
    """
    wanted = {identity.name: identity.vif_id for identity in identities}
    with nl.Netlink() as netlink:
        links = netlink.links()
        going = {link.index: link for link in links
                 if link.name in wanted and (also_held or not link.held)
                 and _is_marked(link, wanted[link.name])}
        group = _unused_group(links)
        for link in going.values():
            netlink.change(link, {'group': group})
        members = [link for link in netlink.links() if link.group == group]
        going = {link.index: link for link in members
                 if link.index in going and (also_held or not link.held)
                 and _is_marked(link, wanted.get(link.name))}
        if len(going) == len(members):
            netlink.delete_group(group)
        else:  # Somebody else has something in it, or took a TAP just now.
            for link in going.values():
                netlink.delete(link)
    for link in going.values():
        LOG.info('%s removed', link.name)
    return [link.name for link in going.values()]


def _is_marked(link: Link, vif_id: str | None) -> bool:
    found = mark.TapMark.parse(link.alias)
    return link.is_tap and found is not None and found.vif_id == vif_id


def _unused_group(links: list[Link]) -> int:
    used = {link.group for link in links}
    return next(group for group in iter(lambda: secrets.randbits(31), None)
                if group not in used and group >= port_values.LINK_GROUP_MIN)
