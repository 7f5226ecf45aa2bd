# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""What can be wrong with a bridge."""

from vif_plug_tapmac.host.finding import Finding
from vif_plug_tapmac.host.finding import Findings
from vif_plug_tapmac.host.finding import REPAIR
from vif_plug_tapmac.host.inventory import Inventory
from vif_plug_tapmac.kernel import bridge_health
from vif_plug_tapmac.kernel.link import Link


def _fixed_mac(seen: Inventory, bridge: Link) -> Findings:
    if bridge_health.is_pinned(bridge) is not False:
        return
    macs = {port.name: str(port.mac) for port in seen.ports(bridge)}
    holder = next((name for name in macs if macs[name] == bridge.mac), None)
    if holder is None:
        evidence = 'it becomes that of the first port that joins'
    else:
        others = [macs[name] for name in macs if name != holder]
        evidence = 'it is that of %s; when that leaves, it becomes %s' % (
            holder, min(others, default='00:00:00:00:00:00'))
    yield Finding(
        'TM101', bridge.name, '%s: %s' % (bridge.mac, evidence),
        '"ip link set %s address %s", and the same in the network '
        'configuration of this host' % (bridge.name, bridge.mac))


def _down(seen: Inventory, bridge: Link) -> Findings:
    if not bridge.up:
        yield Finding(
            'TM103', bridge.name, 'no guest on it has a network',
            REPAIR if seen.is_ours(bridge) else
            '"ip link set %s up", and the same in the network configuration '
            'of this host' % bridge.name)


def _stp(seen: Inventory, bridge: Link) -> Findings:
    if bridge.stp and bridge.forward_delay:
        yield Finding(
            'TM104', bridge.name,
            'each guest waits %.0f s for its network'
            % (2 * bridge.forward_delay / 100),
            '"ip link set %s type bridge stp_state 0"' % bridge.name)


def _nearly_full(seen: Inventory, bridge: Link) -> Findings:
    count = len(seen.ports(bridge))
    if count >= bridge_health.NEARLY_ALL_PORTS:
        yield Finding(
            'TM105', bridge.name,
            '%d ports of %d' % (count, bridge_health.PORTS),
            'move guests to another bridge or host')


def _uplink(seen: Inventory, bridge: Link) -> Findings:
    uplink = seen.uplinks and seen.uplinks.of(bridge.name)
    if uplink and uplink not in (port.name for port in seen.ports(bridge)):
        yield Finding(
            'TM106', bridge.name, 'bridge_uplinks has %s, which is no port of '
            'it' % uplink,
            '"ip link set %s master %s", if no other port of it leads to the '
            'same wire' % (uplink, bridge.name))


def _router_advertisements(seen: Inventory,
                           bridge: Link) -> Findings:
    if bridge.takes_ra:
        sysctl = 'net/ipv6/conf/%s' % bridge.name  # A name may have dots.
        yield Finding(
            'TM107', bridge.name, 'IPv6 is on, and router advertisements are '
            'accepted from its ports',
            '"sysctl %s/disable_ipv6=1", or "sysctl %s/accept_ra=0" where the '
            'host needs IPv6 on it, and the same in /etc/sysctl.d'
            % (sysctl, sysctl))


def _bridge_mtu(seen: Inventory, bridge: Link) -> Findings:
    larger = [port for port in seen.ports(bridge)
              if port.is_tap and port.mtu > bridge.mtu]
    if larger:
        yield Finding(
            'TM108', bridge.name, 'it is %d, and that of %s is %d'
            % (bridge.mtu, larger[0].name, larger[0].mtu),
            '"ip link set %s mtu %d", and the same in the network '
            'configuration of this host'
            % (bridge.name, max(port.mtu for port in larger)))


def _changed(seen: Inventory, bridge: Link) -> Findings:
    made = {'arp_ignore': 1, 'multicast_snooping': False}
    if seen.is_ours(bridge) and bridge.differences(made):
        yield Finding(
            'TM109', bridge.name, bridge.explain(made),
            '"sysctl net/ipv4/conf/%s/arp_ignore=1", "ip link set %s type '
            'bridge mcast_snooping 0", unless this host wants it so'
            % (bridge.name, bridge.name))


#: In the order of their codes.
CHECKS = (_fixed_mac, _down, _stp, _nearly_full, _uplink,
          _router_advertisements, _bridge_mtu, _changed)
