# SPDX-License-Identifier: Apache-2.0

"""Which guests are open because somebody wants it: "tapmac filter --off"."""

from vif_plug_tapmac.host.finding import finds
from vif_plug_tapmac.host.finding import Remedy
from vif_plug_tapmac.host.finding import Seen
from vif_plug_tapmac.host.inventory import Inventory
from vif_plug_tapmac.host.tap import Tap


@finds('TM234')
def _port(seen: Inventory, tap: Tap) -> Seen:
    if (seen.guest_filter is not None
            and tap.link.index in seen.guest_filter.exits.ports):
        yield (tap.link.name, 'its filter was switched off by hand: its guest '
               'is kept to its MAC at most', Remedy(
                   '"tapmac filter --on %s", as soon as it can be'
                   % tap.link.name))


@finds('TM317')
def _host(seen: Inventory) -> Seen:
    if seen.guest_filter is not None and seen.guest_filter.exits.is_host:
        yield ('nftables', 'the filter of all guests on this host was '
               'switched off by hand: they are kept to their MACs at most',
               Remedy('"tapmac filter --on", as soon as it can be'))


CHECKS = (_port,)
TABLE_CHECKS = (_host,)
