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
from vif_plug_tapmac.kernel.link import Link
from vif_plug_tapmac.kernel import netlink as nl
from vif_plug_tapmac import mark

LOG = logging.getLogger(__name__)


def members(netlink: nl.Netlink, group: int) -> list[Link]:
    """Return the TAPs that are in it: a list of all links is asked for."""
    return [link for link in netlink.links()
            if link.is_tap and link.group == group]


def release(netlink: nl.Netlink, links: typing.Iterable[Link], group: int,
            open_group: int) -> None:
    """Have TAPs of ours in another link group, which is not closed.

    Those that carry no mark of ours stay, and the log says so.

    :param links: whose addresses nobody knows
    """
    for link in links:
        # By now it may be gone, or another.
        seen = netlink.get(link.index, link.name)
        if seen is None or seen.group != group:
            continue
        if mark.TapMark.parse(seen.alias) is None:
            LOG.error('%s has no mark of tapmac, and is in link group %d, '
                      'from which nothing passes whose addresses are not '
                      'known. Remedy: plug it, or "ip link set %s group 0".',
                      seen.name, group, seen.name)
            continue
        try:
            netlink.change(seen, {'group': open_group})
        except exception.KernelRefused as error:
            if error.kwargs.get('code') != errno.ENODEV:
                raise
            continue
        LOG.error('%s: its guest is kept to its MAC only until its next plug, '
                  'because the table of nftables that kept it to its '
                  'addresses was gone, and this process does not know them. '
                  'Remedy: start nova-compute again, or hard reboot the '
                  'instance.', seen.name)
