# SPDX-License-Identifier: Apache-2.0

"""What other programs have put on guests' TAPs, and tapmac never does."""

from vif_plug_tapmac.host.finding import finds
from vif_plug_tapmac.host.finding import Seen
from vif_plug_tapmac.host.inventory import Inventory
from vif_plug_tapmac.wanted import names


@finds('TM240')
def _said_to_be_deleted(seen: Inventory) -> Seen:
    """Look for links that are said to have been a TAP that they are not."""
    for link in seen.links.values():
        for altname in link.altnames:
            former = altname.removesuffix(names.BEING_DELETED)
            if former not in (altname, link.former_name):
                yield (link.name, 'its alternative name %s says that it was '
                       '%s, and is being deleted: neither is so'
                       % (altname, former),
                       '"ip link property del dev %s altname %s"'
                       % (link.name, altname))


HOST_CHECKS = (_said_to_be_deleted,)
