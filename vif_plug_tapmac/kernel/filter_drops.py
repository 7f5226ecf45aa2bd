# SPDX-License-Identifier: Apache-2.0

"""What the table has dropped of each port, and why."""

import collections
import errno
import socket
import struct
import time

from vif_plug_tapmac import exception
from vif_plug_tapmac.kernel import filter_state
from vif_plug_tapmac.kernel import filter_table as table
from vif_plug_tapmac.kernel import nft
from vif_plug_tapmac.kernel import nft_sets

#: Of a set: the index of the port, and the number of the reason.
_KEY = struct.Struct('=II')
_INDEX = struct.Struct('=I')
#: For how long others may change rules while we do, in seconds.
_GIVES_UP_AFTER = 10.0


def drops() -> dict[int, dict[str, tuple[int, int]]]:
    """Return how much was dropped of what guests sent.

    What was counted for a reason is forgotten a week after the last frame, of
    ports that are gone, too; and whenever somebody makes the table anew.

    :returns: by the index of the port and the reason, as :data:`REASONS` of
        :mod:`filter_table` has it: packets, and bytes without their Ethernet
        header; empty where nothing was dropped, or there is no table
    :raises KernelRefused: nf_tables is missing, or no privilege to ask
    """
    found: dict[int, dict[str, tuple[int, int]]] = (
        collections.defaultdict(dict))
    with nft.Session() as session:
        for family in nft.BRIDGE, *(each.family for each in table.BESIDE):
            view = session.on(family)
            reasons = _reasons(view)
            for key, counted in nft_sets.counts(
                    view, table.NAME, table.DROPS).items():
                index, number = _KEY.unpack(key)
                reason = reasons.get(number, 'reason %d' % number)
                before = found[index].get(reason, (0, 0))
                found[index][reason] = (before[0] + counted[0],
                                        before[1] + counted[1])
    return dict(found)


def _reasons(session: nft.Session) -> dict[int, str]:
    """Return those of the table that is there, by their numbers.

    Those of another release are not known.
    """
    found = session.table(table.NAME)
    is_ours = found is not None and filter_state.version_of(
        found.comment) == table.VERSION
    return table.REASONS if is_ours else {}


def log_drops(index: int, on: bool) -> None:
    """Have the kernel's log say what is dropped of a port's frames, or not.

    Of all such ports, ten frames a second at most, each with "tapmac ", the
    reason, ": ", and what the kernel says of a frame (IN= is the TAP). What
    host_shield drops of frames to 01:80:c2:00:00:0e is not among them. It is
    off for each port until it is switched on, again so when the TAP is gone,
    and for all when the table is made anew. The kernel writes it for the
    network namespace of the host only, unless net.netfilter.nf_log_all_netns
    is 1.

    :param index: of its TAP; none there is success when it is switched off
    :raises KernelRefused: EOPNOTSUPP: this kernel cannot do that; ENOENT:
        there is no table, or one of another release; or no privilege. Nothing
        is changed
    :raises VerifyFailed: others change rules all the time; likewise
    """
    deadline = time.monotonic() + _GIVES_UP_AFTER
    with nft.Session() as session:
        while time.monotonic() < deadline:
            generation = session.generation()
            if _reasons(session):
                steps = _logging(session, index, on)
            elif on:
                raise _refused(errno.ENOENT, 'plug its guest, with '
                               'anti_spoofing = full or host_shield, and by '
                               'the same release as this command')
            else:
                return
            try:
                if not steps or session.transact(
                        'logging what is dropped', steps, generation):
                    return
            except exception.KernelRefused as error:
                if error.kwargs.get('code') != errno.ENOENT:
                    raise
                if session.generation() == generation:
                    raise _refused(
                        errno.EOPNOTSUPP, 'load nft_log, nft_limit and '
                        'nf_log_syslog (nf_log_bridge before Linux 5.13)')
    raise exception.VerifyFailed(
        device='nftables', differences='rules are changed all the time ("nft '
        'monitor" tells by whom)')


def _logging(session: nft.Session, index: int, on: bool) -> list[nft.Step]:
    """Return what has a port logged or not, and none that is gone."""
    own = _INDEX.pack(index)
    there = {each.key for each in nft_sets.elements(
        session, table.NAME, table.LOGGED)}
    left = {key for key in there if _is_there(*_INDEX.unpack(key))} - {own}
    if on:
        left.add(own)
    if left == there:
        return []
    return [*nft_sets.delete_elements(table.NAME, table.LOGGED,
                                      map(nft_sets.Element, there - left)),
            *nft_sets.add_elements(table.NAME, table.LOGGED,
                                   map(nft_sets.Element, left - there)),
            nft.delete_rules(table.NAME, table.LOG),
            *(nft.new_rule(table.NAME, each)
              for each in table.LOG_RULES if left)]


def _is_there(index: int) -> bool:
    try:
        return bool(socket.if_indextoname(index))
    except OSError:
        return False


def _refused(code: int, remedy: str) -> exception.KernelRefused:
    return exception.KernelRefused(
        device='nftables', step='logging what is dropped', code=code,
        error=errno.errorcode[code], remedy=remedy)
