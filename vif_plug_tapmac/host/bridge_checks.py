# SPDX-License-Identifier: Apache-2.0

"""What can be wrong with a bridge."""

from vif_plug_tapmac.host.finding import finds
from vif_plug_tapmac.host.finding import REPAIR
from vif_plug_tapmac.host.finding import Seen
from vif_plug_tapmac.host.inventory import Inventory
from vif_plug_tapmac.host import other_bridges
from vif_plug_tapmac.kernel import bridge as bridges
from vif_plug_tapmac.kernel import bridge_health
from vif_plug_tapmac.kernel.link import Link
from vif_plug_tapmac.kernel import uplink
from vif_plug_tapmac.kernel import vlan_device
from vif_plug_tapmac.wanted import names


@finds('TM101')
def _fixed_mac(seen: Inventory, bridge: Link) -> Seen:
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
    yield (bridge.name, '%s: %s' % (bridge.mac, evidence),
           '"ip link set %s address %s", and the same in the network '
           'configuration of this host' % (bridge.name, bridge.mac))


@finds('TM102')
def half_made(seen: Inventory, bridge: Link) -> Seen:
    """Look for a bridge whose making was cut short."""
    if seen.is_ours(bridge) and bridge.alias is None:
        yield (bridge.name, 'it is in link group %d and has no alias'
               % bridge.group, REPAIR)


@finds('TM103')
def _down(seen: Inventory, bridge: Link) -> Seen:
    if not bridge.up:
        yield (bridge.name, 'no guest on it has a network',
               REPAIR if seen.is_ours(bridge) else
               '"ip link set %s up", and the same in the network '
               'configuration of this host' % bridge.name)


@finds('TM104')
def _stp(seen: Inventory, bridge: Link) -> Seen:
    if bridge.stp and bridge.forward_delay and not seen.is_ours(bridge):
        yield (bridge.name,
               'each guest waits %.0f s for its network'
               % (2 * bridge.forward_delay / 100),
               '"ip link set %s type bridge stp_state 0"' % bridge.name)


@finds('TM105')
def _nearly_full(seen: Inventory, bridge: Link) -> Seen:
    count = len(seen.ports(bridge))
    if count >= bridge_health.NEARLY_ALL_PORTS:
        yield (bridge.name,
               '%d ports of %d' % (count, bridge_health.PORTS),
               'move guests to another bridge or host')


@finds('TM106')
def _uplink(seen: Inventory, bridge: Link) -> Seen:
    name, link = seen.uplink(bridge) or ('', None)
    if not name or link is not None and link.master is not None:
        return  # In another bridge it is TM118.
    evidence = 'bridge_uplinks has %s, which is no port of it' % name
    fault = misnamed(seen, link, name)
    other = _other_name(seen, name)
    if fault is not None:
        yield bridge.name, '%s: %s' % (evidence, fault), _make_right(name)
    elif other is not None:
        yield (bridge.name, '%s: this VLAN is there as %s' % (evidence, other),
               'name %s for %s in bridge_uplinks, or "ip link set %s name %s"'
               % (other, bridge.name, other, name))
    else:
        yield (bridge.name, evidence + _other_mac(seen, bridge, name),
               '"%s", if no other port of it leads to the same wire'
               % uplink.command(bridge.name, name, link is None))


def _other_name(seen: Inventory, name: str) -> str | None:
    """Return how a VLAN that is named so, and missing, is called here."""
    parent, vlan = names.parse_vlan_device(name) or ('', 0)
    lower = seen.named(parent)
    if lower is None or seen.named(name) is not None:
        return None
    return vlan_device.other_name(seen.links.values(), lower, vlan)


def _other_mac(seen: Inventory, bridge: Link, name: str) -> str:
    """Return by which MAC it can't be told that it was the uplink before."""
    parent, _ = names.parse_vlan_device(name) or ('', 0)
    there = seen.named(name) or seen.named(parent)
    if there is None or not seen.is_ours(bridge) or there.mac == bridge.mac:
        return ''
    return (': its MAC is %s, and the bridge has that of its first one, %s'
            % (there.mac, bridge.mac))


@finds('TM107')
def _router_advertisements(seen: Inventory,
                           bridge: Link) -> Seen:
    if bridge.takes_ra and not seen.is_ours(bridge):
        sysctl = 'net/ipv6/conf/%s' % bridge.name  # A name may have dots.
        yield (bridge.name, 'IPv6 is on, and router advertisements are '
               'accepted from its ports',
               '"sysctl %s/disable_ipv6=1", or "sysctl %s/accept_ra=0" where '
               'the host needs IPv6 on it, and the same in /etc/sysctl.d'
               % (sysctl, sysctl))


@finds('TM108')
def _bridge_mtu(seen: Inventory, bridge: Link) -> Seen:
    larger = [port for port in seen.ports(bridge)
              if port.is_tap and port.mtu > bridge.mtu]
    if larger:
        yield (bridge.name, 'it is %d, and that of %s is %d'
               % (bridge.mtu, larger[0].name, larger[0].mtu),
               '%s, and the same in the network configuration of this host'
               % bridge_health.larger_mtu(
                   bridge, max(port.mtu for port in larger)))


@finds('TM109')
def _changed(seen: Inventory, bridge: Link) -> Seen:
    if seen.is_ours(bridge):
        wanted = bridges.wanted_fields(bridge, seen.bridge_group)
        if bridge.differences(wanted):
            yield bridge.name, bridge.explain(wanted), REPAIR


@finds('TM110')
def _another_vlan(seen: Inventory, bridge: Link) -> Seen:
    name, port = seen.joined_uplink(bridge)
    fault = misnamed(seen, port, name)
    if fault is not None:
        yield (bridge.name, fault + ': its guests are on another network',
               _make_right(name))


def _make_right(name: str) -> str:
    return ('have the network configuration of this host make %s as its name '
            'says, or name the right device in bridge_uplinks' % name)


@finds('TM111')
def _narrow_uplink(seen: Inventory, bridge: Link) -> Seen:
    name, port = wire(seen, bridge)
    widest, mtu = 'the bridge', bridge.mtu
    if not seen.concerns(bridge):
        # Its MTU may follow that of its ports, and so says nothing.
        for tap in seen.ports(bridge):
            if tap.is_tap and tap.mtu > mtu:
                widest, mtu = tap.name, tap.mtu
    if port is not None and port.mtu < mtu:
        below = _below(seen, port)
        yield (bridge.name, '%s has MTU %d, and %s %d: larger frames to the '
               'wire are lost' % (name, port.mtu, widest, mtu),
               REPAIR if seen.is_ours(bridge) and below
               and below.mtu >= mtu else
               '"ip link set %s mtu %d"%s, and the same in the network '
               'configuration of this host' % (
                   name, mtu, ', after that of ' + below.name
                   if below else ''))


@finds('TM116')
def _uplink_down(seen: Inventory, bridge: Link) -> Seen:
    name, port = wire(seen, bridge)
    if port is None or port.up or misnamed(seen, port, name):
        return
    down, below = [name], _below(seen, port)
    while below is not None:
        if not below.up:
            down.insert(0, below.name)
        below = _below(seen, below)
    yield (bridge.name, '%s %s down: no guest on it reaches the wire'
           % (' and '.join(down), 'is' if len(down) == 1 else 'are'),
           '%s, and the same in the network configuration of this host'
           % ', '.join('"ip link set %s up"' % each for each in down))


@finds('TM117')
def _uplink_without_carrier(seen: Inventory, bridge: Link) -> Seen:
    name, port = wire(seen, bridge)
    if port is not None and port.up and not port.carrier:
        yield (bridge.name, '%s has no carrier: no guest on it reaches the '
               'wire' % name, 'see to the cable of %s and to what is at its '
               'other end' % name)


@finds('TM118')
def _uplink_elsewhere(seen: Inventory, bridge: Link) -> Seen:
    name, link = seen.uplink(bridge) or ('', None)
    if link is None or link.master in (None, bridge.index):
        return
    master = seen.links.get(link.master or 0)
    other = master.name if master else 'another device'
    fault = misnamed(seen, link, name)
    used = master is None or uplink.is_used(
        master, seen.links.values(),
        [address for address in seen.addresses.get(master.index, ())
         if not address.startswith('fe80:')])
    yield (bridge.name, 'bridge_uplinks has %s, which is a port of %s%s'
           % (name, other, ': ' + fault if fault else ''),
           _make_right(name) if fault else
           uplink.leave_there(link, master, bridge.name, True) if used else
           '"ip link set %s master %s", and out of %s in the network '
           'configuration of this host, or name another for %s in '
           'bridge_uplinks' % (name, bridge.name, other, bridge.name))


@finds('TM301')
def _own_firewall(seen: Inventory, bridge: Link) -> Seen:
    if seen.is_ours(bridge):
        return  # There it is TM109.
    for what, field in bridge_health.OWN_SWITCHES.items():
        if getattr(bridge, field):
            yield (bridge.name, '%s is 1: what guests send to each other by '
                   '%s passes the FORWARD chain of this host, whatever the '
                   'switch for all bridges says' % (field, what),
                   '%s, and the same in the network configuration of this '
                   'host, unless the firewall is meant for guests'
                   % bridge_health.own_switch_off(bridge, field))


def wire(seen: Inventory, bridge: Link) -> tuple[str, Link | None]:
    """Return name and link of what connects a bridge with the wire.

    Of one that does not concern us it is what seems to do so.
    """
    if seen.uplink(bridge) is None and not seen.concerns(bridge):
        found = other_bridges.uplinks(seen.ports(bridge))
        return (found[0].name, found[0]) if found else ('', None)
    return seen.joined_uplink(bridge)


def _below(seen: Inventory, link: Link) -> Link | None:
    """Return what a VLAN is made on, None if it is none, or that not here."""
    return seen.links.get(link.lower or 0) if link.kind == 'vlan' else None


def misnamed(seen: Inventory, link: Link | None,
             name: str) -> str | None:
    """Return what this, or a link that it is made on, is against its name.

    :param name: the one of its names that is meant
    """
    while link is not None:
        lower = seen.links.get(link.lower or 0)
        fault = vlan_device.misnamed(link, lower, name)
        if fault is not None:
            return '%s %s' % (name, fault)
        said = names.parse_vlan_device(name)
        link = lower if link.kind == 'vlan' else None
        name = said[0] if said else ''
    return None


#: In the order of their codes.
CHECKS = (_fixed_mac, _down, _stp, _nearly_full, _uplink,
          _router_advertisements, _bridge_mtu, _changed,
          _another_vlan, _narrow_uplink, _uplink_down,
          _uplink_without_carrier, _uplink_elsewhere, _own_firewall)
