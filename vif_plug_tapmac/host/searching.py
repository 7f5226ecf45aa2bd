# SPDX-License-Identifier: Apache-2.0

"""Which TAP an operator means, by what he has at hand.

For what only looks: what changes something takes names and whole ids.
"""

import typing

from vif_plug_tapmac.host.inventory import Inventory
from vif_plug_tapmac.host.tap import Tap
from vif_plug_tapmac.wanted import names

#: How much of a VIF's id is enough to begin with.
LEAST = 4


def search(seen: Inventory, which: str) -> list[Tap]:
    """Return our TAPs that are meant; several if it can be each of them.

    By the first of these that any TAP has: its name, or an alternative one, as
    it is written; then, in either case, its name, the id of its VIF, the MAC
    of its guest or its own; the name of the domain, as it is written, or the
    id of the instance; or how the id of its VIF begins. libvirt is asked only
    if it comes to that.
    """
    ours = [tap for tap in seen.taps if tap.is_ours]
    ways: tuple[typing.Callable[[], list[Tap]], ...] = (
        lambda: [tap for tap in ours if which == tap.name
                 or tap.link.is_called(which)],
        lambda: seen.find(which),
        lambda: [tap for tap in ours if tap.nic is not None and (
            which == tap.nic.domain or which.lower() == tap.nic.instance)],
        lambda: [tap for tap in ours if _begins(tap, which.lower())])
    return next((found for way in ways if (found := way())), [])


def _begins(tap: Tap, what: str) -> bool:
    """Return whether the id of its VIF can begin so."""
    if len(what) < LEAST:
        return False
    if tap.vif_id is not None:
        return tap.vif_id.startswith(what)
    # Of one that lost its mark, not all of the id is known.
    known = names.start_of_vif_id(tap.name)
    return known is not None and (known.startswith(what)
                                  or what.startswith(known))
