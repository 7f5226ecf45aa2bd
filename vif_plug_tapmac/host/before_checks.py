# SPDX-License-Identifier: Apache-2.0

"""What will be wrong with bridges and TAPs of others once they are tapmac's.

For the day before: what a plug sets right by itself is a warning at most, what
an operator has to do first is an error.
"""

import ipaddress

from vif_plug_tapmac.host import bridge_checks
from vif_plug_tapmac.host.finding import Finding
from vif_plug_tapmac.host.finding import finds
from vif_plug_tapmac.host.finding import REBOOT
from vif_plug_tapmac.host.finding import REPLUG
from vif_plug_tapmac.host.finding import Seen
from vif_plug_tapmac.host.inventory import Inventory
from vif_plug_tapmac.host import other_bridges
from vif_plug_tapmac.host.tap import Tap
from vif_plug_tapmac.kernel.link import Link
from vif_plug_tapmac import mac
from vif_plug_tapmac.wanted import names

_NETWORK_CONFIGURATION = 'the network configuration of this host'
#: Of MACs in one finding: a guest may send from as many as it likes.
_MOST_SHOWN = 8


def find(seen: Inventory) -> list[Finding]:
    """Return what will be wrong with bridges and TAPs of others."""
    found: list[Finding] = []
    for bridge in seen.bridges:
        if not seen.is_ours(bridge):
            for check in CHECKS:
                found.extend(check(seen, bridge))
    for tap in seen.taps:
        if not (tap.is_ours or tap.is_being_made):
            for check_tap in TAP_CHECKS:
                found.extend(check_tap(seen, tap))
    return found


@finds('TM401')
def _name(seen: Inventory, bridge: Link) -> Seen:
    if not names.is_device_name(bridge.name):
        why = 'tapmac takes letters, digits, and ".", "_", "-" between them'
    elif len(bridge.name) > names.NOVA_NAME_LENGTH:
        why = 'Nova cuts it to %s' % bridge.name[:names.NOVA_NAME_LENGTH]
    else:
        return
    yield (bridge.name, 'no port can be plugged there: ' + why,
           'give it another name of %d characters at most in %s, and in '
           'Neutron (bridge_mappings, flat_bridge and vlan_bridge of '
           '[ml2_tapmac])' % (names.NOVA_NAME_LENGTH, _NETWORK_CONFIGURATION))


@finds('TM402')
def _nobody_makes_it(seen: Inventory, bridge: Link) -> Seen:
    if not other_bridges.is_of_agent(bridge):
        return
    lost, remedies = [], []
    known, _ = seen.uplink(bridge) or ('', None)
    for port in other_bridges.uplinks(seen.ports(bridge)):
        if not port.is_called(known) and port.kind != 'vxlan':
            lost.append('puts %s into it' % port.name)
            remedies.append('bridge_uplinks = %s:%s in [os_vif_tapmac], and '
                            'flat_bridge or vlan_bridge = brq{network} in '
                            '[ml2_tapmac] of Neutron'
                            % (bridge.name, port.name))
    addresses = _lasting(seen, bridge)
    if addresses:
        lost.append('gives it %s' % ', '.join(addresses))
        remedies.append('have %s make %s with its addresses and its uplink'
                        % (_NETWORK_CONFIGURATION, bridge.name))
    if lost:
        yield (bridge.name, 'Neutron\'s Linux bridge agent made it; when that '
               'is gone, nobody %s after the next boot' % ' and '.join(lost),
               '; '.join(remedies))


@finds('TM403')
def _no_wire(seen: Inventory, bridge: Link) -> Seen:
    if (seen.uplink(bridge) is None and not _lasting(seen, bridge)
            and not other_bridges.uplinks(seen.ports(bridge))):
        yield (bridge.name, 'it has no uplink: its guests reach each other '
               'and nobody else', 'if they are to reach the wire, "ip link '
               'set <uplink> master %s", and the same in %s'
               % (bridge.name, _NETWORK_CONFIGURATION))


@finds('TM404')
def _other_vlan(seen: Inventory, bridge: Link) -> Seen:
    if seen.uplink(bridge) is not None:
        return  # There it is TM110.
    for port in other_bridges.uplinks(seen.ports(bridge)):
        fault = bridge_checks.misnamed(seen, port, port.name)
        if fault is not None:
            yield (bridge.name, '%s: with that in bridge_uplinks no guest is '
                   'plugged there' % fault, 'have %s make this VLAN with a '
                   'name that says what it is, as eth1.200, or one that does '
                   'not end in a dot and a number' % _NETWORK_CONFIGURATION)


@finds('TM405')
def _tunnel(seen: Inventory, bridge: Link) -> Seen:
    for port in seen.ports(bridge):
        if other_bridges.is_tunnel_of_agent(port):
            yield (bridge.name, '%s is a tunnel of Neutron\'s Linux bridge '
                   'agent: when that is gone, nobody tells it on which host '
                   'a guest is, or makes it after the next boot' % port.name,
                   'move the guests to a flat network or a VLAN first: tapmac '
                   'makes no tunnels')


@finds('TM406')
def _snooping(seen: Inventory, bridge: Link) -> Seen:
    if bridge.multicast_snooping:
        yield (bridge.name, 'where a querier is heard, guests lose multicast '
               'that nobody joined', '"ip link set %s type bridge '
               'mcast_snooping 0", and the same in %s'
               % (bridge.name, _NETWORK_CONFIGURATION))


@finds('TM407')
def _ageing(seen: Inventory, bridge: Link) -> Seen:
    if getattr(bridge, 'ageing_time') == 0:
        yield (bridge.name, 'its ageing time is 0: what is for one guest goes '
               'to all ports', '"ip link set %s type bridge ageing_time '
               '30000", and the same in %s'
               % (bridge.name, _NETWORK_CONFIGURATION))


@finds('TM408')
def _addresses(seen: Inventory, bridge: Link) -> Seen:
    found = seen.addresses.get(bridge.index, [])
    lasting = _lasting(seen, bridge)
    # Where guests give it routes, too, it is TM107.
    if lasting or found and not bridge.takes_ra:
        yield (bridge.name, 'this host has %s on it, and guests reach it '
               'there' % ', '.join(found),
               ('if they shall not, move the address to a device without '
                'guests, or set host_shield in [os_vif_tapmac]') if lasting
               else '"sysctl net/ipv6/conf/%s/disable_ipv6=1", and the same '
               'in /etc/sysctl.d' % bridge.name)


def _lasting(seen: Inventory, link: Link) -> list[str]:
    """Return the host's addresses there that are not only for the link."""
    return [each for each in seen.addresses.get(link.index, [])
            if not ipaddress.ip_interface(each).is_link_local]


@finds('TM409')
def _not_ours(seen: Inventory, tap: Tap) -> Seen:
    wrong = []
    if tap.link.owner is None:
        wrong.append('has no owner')
    if tap.addresses and tap.is_anothers:
        wrong.append('has %s' % ', '.join(tap.addresses))
    if tap.link.locked is False and _locks(seen):
        wrong.append('its port is not locked, so that its guest can send from '
                     'any MAC')
    if names.start_of_vif_id(tap.name) is None:
        remedy = ('see whose it is: Nova gives no TAP such a name, and no '
                  'plug looks at it')
    else:
        remedy = '%s, and keeps them to their MAC; for it to be tapmac\'s, ' \
                 'where tapmac makes the TAPs: %s' % (REPLUG, REBOOT)
    yield (tap.link.name, 'it is not tapmac\'s' + ''.join(
        ', %s' % each for each in wrong), remedy)


def _locks(seen: Inventory) -> bool:
    return (seen.wanted is not None
            and seen.wanted['anti_spoofing'] != 'none')


@finds('TM410')
def _other_macs(seen: Inventory, tap: Tap) -> Seen:
    if tap.bridge is None or not _locks(seen):
        return
    heard = sorted({entry.mac for entry in seen.fdb_entries
                    if entry.index == tap.link.index
                    and entry.mac not in (tap.guest_mac, tap.link.mac)
                    # It is its own, by the rule, where nobody says which is.
                    and not (tap.guest_mac is None and tap.link.mac
                             in mac.possible_tap_macs(entry.mac))})
    if heard:
        yield (tap.link.name, '%s %s: the first plug keeps its guest from '
               'that (anti_spoofing)' % (
                   'its guest sends, beside its own MAC, from',
                   ', '.join(heard[:_MOST_SHOWN])
                   + (', ...' if heard[_MOST_SHOWN:] else '')),
               'if it may, as by allowed address pairs, set anti_spoofing = '
               'none on this host before')


@finds('TM415')
def _mac(seen: Inventory, tap: Tap) -> Seen:
    # Where libvirt says which guest it has, it is TM201, or TM202.
    if tap.guest_mac is None and not str(tap.link.mac).startswith('fe'):
        yield (tap.link.name, 'it is %s: if that is the MAC of its guest, no '
               'unicast frame reaches the guest through a bridge, and if it '
               'is lower than the others on its bridge, it may become that '
               'of the bridge' % tap.link.mac,
               REPLUG if names.start_of_vif_id(tap.name) is not None else
               '"ip link set %s address fe%s"' % (
                   tap.link.name, str(tap.link.mac)[2:]))


#: In the order of their codes.
CHECKS = (_name, _nobody_makes_it, _no_wire, _other_vlan, _tunnel, _snooping,
          _ageing, _addresses)
TAP_CHECKS = (_not_ours, _other_macs, _mac)
