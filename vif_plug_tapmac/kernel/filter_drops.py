# SPDX-License-Identifier: Apache-2.0

"""What the table has dropped of each port, and why."""

import collections
import struct

from vif_plug_tapmac.kernel import filter_state
from vif_plug_tapmac.kernel import filter_table as table
from vif_plug_tapmac.kernel import nft
from vif_plug_tapmac.kernel import nft_sets

#: Of a set: the index of the port, and the number of the reason.
_KEY = struct.Struct('=II')


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
