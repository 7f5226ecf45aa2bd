# SPDX-License-Identifier: Apache-2.0

"""Keeping a guest to its addresses, as a plug and an unplug do it.

The link group of its TAP says whether that is done: the table of
:mod:`filter_table` closes the group. So elements are there before a TAP is in
the group, and go after it is not, or is gone.

Or an agent does that, and more: then a plug has the agent's group closed, and
leaves the rest to the agent. It takes a guest out of that group as into it:
elements first, then the group, then what is not of use any more.
"""

import functools
import logging
import typing

from vif_plug_tapmac import exception
from vif_plug_tapmac.kernel import emergency_exit
from vif_plug_tapmac.kernel import filter_state
from vif_plug_tapmac.kernel import filter_steps
from vif_plug_tapmac.kernel.filter_steps import Elements
from vif_plug_tapmac.kernel import filter_table
from vif_plug_tapmac.kernel import guest_filter
from vif_plug_tapmac.kernel import lasting_session
from vif_plug_tapmac.kernel.link import Link
from vif_plug_tapmac.kernel import netlink as nl
from vif_plug_tapmac.kernel import nft
from vif_plug_tapmac.wanted.port import Groups
from vif_plug_tapmac.wanted.port import TapPort
from vif_plug_tapmac.wanted import rules

#: For what is an agent's, which this process remembers nothing of.
_sessions = lasting_session.LastingSession()
LOG = logging.getLogger(__name__)


def ensure(netlink: nl.Netlink, port: TapPort, link: Link) -> None:
    """Have the guest kept to its addresses as soon as its TAP is in the group.

    One whose addresses nobody knows here is as it was. One that is open by the
    emergency exit is open at another TAP, too.

    :raises KernelRefused, VerifyFailed: as :meth:`GuestFilter.put`
    """
    if port.is_of_agent:
        guest_filter.of_this_process.close(netlink, port.agent_group)
    elif port.is_filtered and port.addresses is not None:
        guest_filter.of_this_process.put(
            netlink, link.index, rules.of_port(
                port.vif_id, port.guest_mac, port.addresses),
            port.filtered_group, port.link_group,
            link.group == port.agent_group)
    else:
        return
    _sessions.settle('opening who was open', lambda session: (
        emergency_exit.following(session, netlink, link.index, port.vif_id)))


def leave(port: TapPort, found: Link) -> None:
    """Forget what a TAP was kept to that is not in the group any more.

    :param found: it, as it was before
    """
    if port.is_of_agent:
        return  # What there is is the agent's, by now or as soon as it comes.
    if found.group == port.agent_group:
        own: Elements | None = {}
        if port.is_filtered:
            own = None if port.addresses is None else dict.fromkeys(
                rules.of_port(port.vif_id, port.guest_mac,
                              port.addresses).elements, port.vif_id)
        _try(functools.partial(_unfeed, own=own), found.index)
    elif not port.is_filtered and found.group == port.filtered_group:
        forget([found], port.groups)


def forget(links: typing.Iterable[Link], groups: Groups | None) -> None:
    """Have nothing in the sets for TAPs that are gone, or not filtered.

    What is left is of no effect until another TAP gets the index, and goes
    then: so whatever fails here is a warning. Of what an agent knows of a
    port, that is what it may speak from stays until the agent takes it out:
    only the agent knows what that is.

    :param groups: that they were in if there is something
    """
    some = list(links)
    indexes = [link.index for link in some if (
        groups is not None and link.group == groups.filtered
        or guest_filter.of_this_process.knows(link.index))]
    if indexes:
        _try(guest_filter.of_this_process.remove, *indexes)
    fed = [link.index for link in some
           if groups is not None and link.group == groups.agent]
    if fed:
        _try(_unfeed, *fed)


def forget_gone(netlink: nl.Netlink, vif_id: str) -> None:
    """Do that for a VIF whose TAP went with its guest, as libvirt's do."""
    indexes = [index for index in guest_filter.of_this_process.of_vif(vif_id)
               if netlink.get(index, 'the TAP of VIF %s' % vif_id) is None]
    if indexes:
        _try(guest_filter.of_this_process.remove, *indexes)


def _unfeed(*indexes: int, own: Elements | None = None) -> None:
    """Have an agent say no more what passes at TAPs.

    :param own: what their guests may speak from then, whatever the agent has
        put in again meanwhile; None: what they may now
    """
    def plan(session: nft.Session) -> list[nft.Step]:
        steps = [step for index in indexes
                 for step in filter_state.unfeeding(session, index)]
        if own is not None:
            steps += filter_steps.differing(
                filter_state.elements(session),
                dict.fromkeys(indexes, own), indexes)
        return steps

    _sessions.settle('taking out what an agent has put in', plan)


def _try(function: typing.Callable[..., None], *indexes: int) -> None:
    try:
        function(*indexes)
    except exception.TapMacError as error:
        LOG.warning('The addresses of TAPs that are gone stay in the table '
                    'bridge %s: %s', filter_table.NAME, error)


def is_fed(link: Link) -> bool:
    """Return whether an agent has said what may pass at a TAP.

    :raises KernelRefused: nf_tables is missing, or no privilege to ask
    """
    with nft.Session() as session:
        return filter_state.is_fed(session, link.index)


def is_unlocked(link: Link) -> bool:
    """Return whether an agent has said that no bridge is to lock its port.

    :raises KernelRefused: as :func:`is_fed`
    """
    with nft.Session() as session:
        return filter_state.is_unlocked(session, link.index)


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
