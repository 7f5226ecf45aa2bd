# SPDX-License-Identifier: Apache-2.0

"""What somebody changed about a bridge that tapmac made, and its uplink.

What is right is not here: see kernel/bridge.py, which each plug reads.
"""

import os

from vif_plug_tapmac.host.finding import finds
from vif_plug_tapmac.host.finding import REPAIR
from vif_plug_tapmac.host.finding import Seen
from vif_plug_tapmac.host.inventory import Inventory
from vif_plug_tapmac.kernel import bridge as kernel_bridge
from vif_plug_tapmac.kernel import bridge_port
from vif_plug_tapmac.kernel.link import Link
from vif_plug_tapmac.kernel import settings
from vif_plug_tapmac.kernel import strangers
from vif_plug_tapmac import mark

_SYSCTLS = '/proc/sys/net/ipv4/conf'
#: Of an uplink's port: what keeps frames back, or sends them back.
_OPEN = {'locked': False, 'isolated': False, 'flood_unicast': True,
         'flood_multicast': True, 'flood_broadcast': True,
         'vlan_tunnel': False, 'hairpin': False, 'newer_options': ()}
#: Likewise, but of a tunnel, where an EVPN has it otherwise: what has frames
#: flooded to all, and the host answer for others, or keep back what a guest
#: says of itself. Source: net/bridge/br_arp_nd_proxy.c,
#: br_do_proxy_suppress_arp
_HONEST = {'learning': True, 'neighbour_suppress': False, 'arp_proxy': False,
           'arp_proxy_wifi': False}


@finds('TM112')
def _mark_lost(seen: Inventory, bridge: Link) -> Seen:
    if (bridge.group == seen.bridge_group
            and bridge.alias not in (None, mark.BRIDGE_MARK)):
        yield (bridge.name, 'its alias is %r' % bridge.alias,
               '"ip link set %s alias %s"' % (bridge.name, mark.BRIDGE_MARK))


@finds('TM113')
def _other_mac(seen: Inventory, bridge: Link) -> Seen:
    if not seen.is_ours(bridge) or kernel_bridge.is_unique_mac(
            str(bridge.mac)):
        return
    ports = [port for port in seen.ports(bridge)
             if not port.is_tap and not mark.is_interface(port)]
    # One that is younger than the bridge may be there instead of its uplink.
    older = [port for port in ports if port.index < bridge.index]
    if older and bridge.mac not in (port.mac for port in ports):
        yield (bridge.name, 'it is %s, and that of %s is %s'
               % (bridge.mac, older[0].name, older[0].mac),
               '"ip link set %s address %s"'
               % (bridge.name, older[0].mac))
    if not ports and seen.uplinks and not seen.uplinks.of(bridge.name):
        yield (bridge.name, 'it is %s, which is none of those that tapmac '
               'gives to a bridge without an uplink' % bridge.mac,
               '"ip link set %s address %s"'
               % (bridge.name, kernel_bridge.unique_mac()))


@finds('TM114')
def _keeps(seen: Inventory, bridge: Link) -> Seen:
    if not seen.is_ours(bridge):
        return
    macs = strangers.of_bridge(bridge, seen.fdb_entries)
    if macs:
        yield (bridge.name, 'this host gets, and no guest does, what is for '
               + ', '.join(macs), REPAIR)


@finds('TM109')
def _sysctls(seen: Inventory, bridge: Link) -> Seen:
    """Look for those of which a plug does not care what they are.

    The kernel has a new default in each device of which nobody has set it.
    Source: net/ipv4/devinet.c, devinet_copy_dflt_conf
    """
    if not seen.is_ours(bridge):
        return
    for sysctl in sorted(set(os.listdir(os.path.join(_SYSCTLS, 'default')))
                         - settings.IPV4.keys()):
        usual = _sysctl('default', sysctl)
        value = _sysctl(bridge.name, sysctl)
        # This one does not follow the default, but only what is for all.
        if value is not None and value != usual and not (
                sysctl == 'forwarding' and value == _sysctl('all', sysctl)):
            yield (bridge.name, '%s is %s, and by default %s'
                   % (sysctl, value, usual),
                   '"sysctl net/ipv4/conf/%s/%s=%s"'
                   % (bridge.name, sysctl, usual))


def _sysctl(device: str, sysctl: str) -> str | None:
    try:
        with open(os.path.join(_SYSCTLS, device, sysctl)) as opened:
            return opened.read().strip()
    except OSError:  # It is for root to read, or the bridge is gone.
        return None


@finds('TM115')
def _uplink(seen: Inventory, bridge: Link) -> Seen:
    name, port = seen.joined_uplink(bridge)
    if port is None or not seen.is_ours(bridge):
        return
    right = _OPEN if port.kind == 'vxlan' else {**_OPEN, **_HONEST}
    wanted = {field: value for field, value in right.items()
              if getattr(port, field) is not None}
    wanted.update(bridge_port.wanted_state(port, bridge))
    if port.differences(wanted):
        yield (bridge.name, 'of %s, %s' % (name, port.explain(wanted)),
               '"ip link set %s nomaster", "ip link set %s master %s", after '
               'which all of it is as in a new port; and find out who set it'
               % (name, name, bridge.name))


@finds('TM119')
def _other_group(seen: Inventory, bridge: Link) -> Seen:
    if kernel_bridge.is_in_other_group(bridge, seen.bridge_group):
        yield (bridge.name, 'it is in link group %d, and bridge_group is %d: '
               'it is that of another service, or bridge_group was changed'
               % (bridge.group, seen.bridge_group), REPAIR)


#: In the order of their codes.
CHECKS = (_sysctls, _mark_lost, _other_mac, _keeps, _uplink, _other_group)
