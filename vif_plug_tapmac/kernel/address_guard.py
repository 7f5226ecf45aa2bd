# SPDX-License-Identifier: Apache-2.0

"""Keeping a guest to its addresses, as a plug and an unplug do it.

The link group of its TAP says whether that is done: the table of
:mod:`filter_table` closes the group. So elements are there before a TAP is in
the group, and go after it is not, or is gone.
"""

import logging
import typing

from vif_plug_tapmac import exception
from vif_plug_tapmac.kernel import filter_state
from vif_plug_tapmac.kernel import filter_table
from vif_plug_tapmac.kernel import guest_filter
from vif_plug_tapmac.kernel.link import Link
from vif_plug_tapmac.kernel import netlink as nl
from vif_plug_tapmac.wanted.port import TapPort
from vif_plug_tapmac.wanted import rules

LOG = logging.getLogger(__name__)


def ensure(netlink: nl.Netlink, port: TapPort, link: Link) -> None:
    """Have the guest kept to its addresses as soon as its TAP is in the group.

    One whose addresses nobody knows here is as it was.

    :raises KernelRefused, VerifyFailed: as :meth:`GuestFilter.put`
    """
    if port.is_filtered and port.addresses is not None:
        guest_filter.of_this_process.put(
            netlink, link.index, rules.of_port(
                port.vif_id, port.guest_mac, port.addresses),
            port.filtered_group, port.link_group)


def leave(port: TapPort, found: Link) -> None:
    """Forget what a TAP was kept to that is not in the group any more.

    :param found: it, as it was before
    """
    if not port.is_filtered and found.group == port.filtered_group:
        forget([found], port.filtered_group)


def forget(links: typing.Iterable[Link], filtered_group: int | None) -> None:
    """Have nothing in the sets for TAPs that are gone, or not filtered.

    What is left is of no effect until another TAP gets the index, and goes
    then: so whatever fails here is a warning.

    :param filtered_group: the group that they were in if there is something
    """
    indexes = [link.index for link in links if link.group == filtered_group
               or guest_filter.of_this_process.knows(link.index)]
    try:
        if indexes:
            guest_filter.of_this_process.remove(*indexes)
    except exception.TapMacError as error:
        LOG.warning('The addresses of TAPs that are gone stay in the table '
                    'bridge %s: %s', filter_table.NAME, error)


def known_addresses(link: Link, vif_id: str) -> tuple[str, ...] | None:
    """Return what a TAP's guest is kept to now; None: nobody knows.

    :raises KernelRefused: nf_tables is missing, or no privilege to ask
    """
    there = filter_state.state().ports.get(link.index, {})
    if vif_id not in there.values():
        return None
    return tuple(sorted(
        each.address for each, owner in there.items()
        if owner == vif_id and each.address is not None
        and each.set in (rules.IPV4, rules.IPV6)))
