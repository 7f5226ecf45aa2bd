# SPDX-License-Identifier: Apache-2.0

"""The link group that the table closes, before it is closed anew.

Whoever makes the table after a flush does not know the addresses of all that
are in the group: those would not say a word more. They were kept to their MACs
meanwhile, and are so until their own plug.
"""

import errno
import logging
import typing

from vif_plug_tapmac import exception
from vif_plug_tapmac.kernel.filter_steps import Elements
from vif_plug_tapmac.kernel.link import Link
from vif_plug_tapmac.kernel import netlink as nl
from vif_plug_tapmac import mark

LOG = logging.getLogger(__name__)


def members(netlink: nl.Netlink, group: int) -> list[Link]:
    """Return the TAPs, and what else is a port, that are in it.

    A list of all links is asked for.
    """
    return [link for link in netlink.links() if link.group == group
            and (link.is_tap or link.master is not None)]


def release(netlink: nl.Netlink, links: typing.Iterable[Link], group: int,
            open_group: int) -> list[Link]:
    """Have TAPs of ours in another link group, which is not closed.

    Those that carry no mark of ours stay, and the log says so.

    :param links: whose addresses nobody knows
    :returns: each that is there now, as it was before
    """
    released = []
    for link in links:
        # By now it may be gone, or another.
        seen = netlink.get(link.index, link.name)
        if seen is None or seen.group != group:
            continue
        if not seen.is_tap or mark.TapMark.parse(seen.alias) is None:
            LOG.error('%s has no mark of tapmac, and is in link group %d, '
                      'from which nothing passes whose addresses are not '
                      'known. Remedy: %s"ip link set %s group 0".', seen.name,
                      group, 'plug it, or ' if seen.is_tap else '', seen.name)
        elif move(netlink, seen, open_group):
            released.append(seen)
    return released


def take_back(netlink: nl.Netlink, released: typing.Iterable[Link],
              ports: dict[int, Elements]) -> list[Link]:
    """Have those in their group again whose addresses came meanwhile.

    :param released: what :func:`release` returned
    :param ports: what is in the sets now
    :returns: the others
    """
    left = []
    for link in released:
        found = mark.TapMark.parse(link.alias)
        if (found is None or found.vif_id not in ports.get(
                link.index, {}).values() or not move(
                    netlink, link, link.group)):
            left.append(link)
    return left


def tell(released: typing.Iterable[Link]) -> None:
    """Say who is not kept to his addresses any more."""
    for link in released:
        LOG.error('%s: its guest is kept to its MAC only until its next plug, '
                  'because the table of nftables that kept it to its '
                  'addresses was gone, and this process does not know them. '
                  'Remedy: start nova-compute again, or hard reboot the '
                  'instance.', link.name)


def move(netlink: nl.Netlink, link: Link, group: int | None) -> bool:
    """Have a TAP in a link group; return False if it is gone."""
    try:
        netlink.change(link, {'group': group})
    except exception.KernelRefused as error:
        if error.kwargs.get('code') != errno.ENODEV:
            raise
        return False
    return True
