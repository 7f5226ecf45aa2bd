# SPDX-License-Identifier: Apache-2.0

"""What can be wrong with the host's ends of interfaces of Neutron's agents.

What is right is not here: see kernel/interface.py, by which they join.
"""

from vif_plug_tapmac.host.finding import finds
from vif_plug_tapmac.host.finding import Remedy
from vif_plug_tapmac.host.finding import Seen
from vif_plug_tapmac.host.inventory import Inventory
from vif_plug_tapmac.kernel import bridge_port
from vif_plug_tapmac.kernel import interface
from vif_plug_tapmac.kernel.link import Link
from vif_plug_tapmac import mark

_START = ('start the DHCP or L3 agent of Neutron again whose interface it is, '
          'which makes that right')


@finds('TM230')
def _wrong(seen: Inventory, link: Link) -> Seen:
    found = mark.InterfaceMark.parse(link.alias)
    if found is None:
        yield link.name, 'its alias, which says whose it is, is %r' % (
            link.alias or ''), _START
        return
    right = interface.right_mac(link, found.mac)
    if link.mac != right:
        yield (link.name, 'its MAC is %s, which may become that of its bridge'
               % link.mac, Remedy('"ip link set %s address %s"'
                                  % (link.name, right)))
    if link.master is None and found.bridge is None:
        yield (link.name, 'it is on no bridge yet, so that nobody reaches '
               'what is behind it',
               'see that tapmac-agent runs, and what it logs; without one, '
               + _START)
        return
    bridge = seen.links.get(link.master or 0)
    if found.bridge is not None and (
            bridge is None or not bridge.is_called(found.bridge)):
        yield (link.name, 'it is on %s, and belongs on %s' % (
            bridge.name if bridge else 'no bridge', found.bridge),
            Remedy('"ip link set %s master %s"' % (link.name, found.bridge))
            if found.bridge in seen.by_name else _START)
    elif not link.up:
        yield (link.name, 'it is down',
               Remedy('"ip link set %s up"' % link.name))
    elif not link.carrier:
        yield (link.name, 'its other end, in a namespace of the agent, is '
               'down', _START)
    # What is up has its state on the bridge a moment later.
    elif bridge is not None and (link.locked or link.differences(
            bridge_port.wanted_state(link, bridge))):
        yield link.name, 'its port on %s is locked, or does not forward' % (
            bridge.name), _START


CHECKS = (_wrong,)
