# SPDX-License-Identifier: Apache-2.0

"""Which MAC a TAP can have on its bridge, where guests differ only in front.

The rule gives guest fa:X the TAP fe:X, and guest fe:X the TAP fa:X. Both on
one bridge, each TAP has the other guest's MAC: the bridge then delivers frames
for either guest to the host, and nobody reaches them. So a TAP gives way to a
guest of its MAC, and takes an alternate octet.

Only the FDB is asked, by at most a handful of look-ups: their number does not
grow with the ports. A guest that is kept to its MAC (kernel/guard.py) is
always in the FDB. Another may be silent and so not there, but its TAP's MAC
always is, as a local entry, and gives it away:

- our guest's MAC is local on another port: that TAP must give way to us;
- the TAP MAC of the one guest that our TAP would hit is local on another port:
  that guest is here;
- the alternate is local on another port: some guests with these five octets
  have met before, one of them may still be here.

TAPs may share one MAC; that harms nobody (the entry just moves along).

What this cannot see: a third guest with the same five octets whose own first
octet is an alternate (F6, F2 ...), as long as it is silent and not kept to its
MAC. Plugging its VIF again puts it right.
"""

import logging

from vif_plug_tapmac import exception
from vif_plug_tapmac.kernel.fdb import FdbEntry
from vif_plug_tapmac.kernel.link import Link
from vif_plug_tapmac.kernel import netlink as nl
from vif_plug_tapmac import mac
from vif_plug_tapmac import mark
from vif_plug_tapmac.wanted.port import TapPort

LOG = logging.getLogger(__name__)

# More TAPs than this cannot share one MAC but by intent: 64 octets are both
# unicast and locally administered.
_MOST_IN_THE_WAY = 64


def settle_tap_mac(netlink: nl.Netlink, bridge: Link,
                   port: TapPort, link: Link) -> str:
    """Return the MAC that the port's TAP shall have on this bridge.

    TAPs of ours that have the guest's own MAC get another one first; guests
    behind them don't notice, for the host end's MAC is nobody's address.

    :param link: the TAP as it is now, on the bridge or not yet
    :raises DeviceConflict: the guest's MAC belongs to a device on the bridge
        that is not a TAP of ours, so no frame would ever reach the guest
    """
    moved = _make_way(netlink, bridge, port, link)
    rule = mac.tap_mac(port.guest_mac)
    alternates = mac.alternate_tap_macs(port.guest_mac)
    if (not moved and link.master == bridge.index
            and link.mac in [rule] + alternates):
        return link.mac
    crossed = moved or _is_rival_here(netlink, bridge, port, link)
    if not crossed and not _is_guest(netlink.fdb_entry(bridge, rule), link):
        return rule
    chosen = _first_without_guest(
        netlink, bridge, alternates if crossed else [rule] + alternates,
        link, port.name)
    if chosen != rule:
        LOG.warning('%s: on bridge %s another guest has a MAC that differs '
                    'from this guest\'s %s in the first octet only; the TAP '
                    'gets %s instead of %s', port.name, bridge.name,
                    port.guest_mac, chosen, rule)
    return chosen


def _make_way(netlink: nl.Netlink, bridge: Link, port: TapPort,
              link: Link) -> bool:
    """Move our TAPs off the guest's MAC; return whether there was one."""
    for count in range(_MOST_IN_THE_WAY):
        entry = netlink.fdb_entry(bridge, port.guest_mac)
        if not _is_local_elsewhere(entry, link):
            return count > 0
        assert entry is not None
        _move_aside(netlink, bridge, port, entry.port_index)
    raise exception.VerifyFailed(
        device=port.name,
        differences='the guest\'s MAC %s comes back as the MAC of other '
                    'ports of %s' % (port.guest_mac, bridge.name))


def _move_aside(netlink: nl.Netlink, bridge: Link, port: TapPort,
                index: int) -> None:
    holder = netlink.get(index, 'port %d of %s' % (index, bridge.name))
    if holder is None:
        return
    holder_mark = mark.TapMark.parse(holder.alias)
    if not holder.is_tap or holder_mark is None:
        raise exception.DeviceConflict(
            device=port.name,
            reason='its guest\'s MAC %s is the MAC of %s on bridge %s, so no '
                   'frame would reach the guest' % (
                       port.guest_mac, holder.name, bridge.name),
            remedy='give %s or the port another MAC' % holder.name)
    alternates = [alternate for alternate
                  in mac.alternate_tap_macs(holder_mark.guest_mac)
                  if alternate != port.guest_mac]
    chosen = _first_without_guest(netlink, bridge, alternates, holder,
                                  holder.name)
    LOG.warning('%s: its MAC %s is that of the guest of %s on bridge %s; it '
                'gets %s instead', holder.name, holder.mac, port.name,
                bridge.name, chosen)
    netlink.change(holder, {'mac': chosen})
    if holder.locked:
        # A TAP that joins with the MAC of a guest takes its entry away.
        netlink.fix_fdb_entry(holder, holder_mark.guest_mac)


def _is_rival_here(netlink: nl.Netlink, bridge: Link,
                   port: TapPort, link: Link) -> bool:
    """Return whether a TAP shows that the guest of the rule's MAC is here."""
    signs = [mac.rival_guest_tap_mac(port.guest_mac),
             mac.alternate_tap_macs(port.guest_mac)[0]]
    return any(
        _is_local_elsewhere(netlink.fdb_entry(bridge, sign), link)
        for sign in signs if sign is not None)


def _first_without_guest(netlink: nl.Netlink, bridge: Link,
                         candidates: list[str], link: Link,
                         device: str) -> str:
    """Return the first of these MACs that no guest has.

    Where each is somebody's, the first that was only heard in a frame, which
    may be a lie: whoever can send some could else keep a guest from its TAP.
    """
    heard = None
    for candidate in candidates:
        entry = netlink.fdb_entry(bridge, candidate)
        if not _is_guest(entry, link):
            return candidate
        if heard is None and entry is not None and entry.heard:
            heard = candidate
    if heard is None:
        raise exception.DeviceConflict(
            device=device,
            reason='guests on bridge %s have all MACs that its host end could '
                   'have: %s' % (bridge.name, ', '.join(candidates)),
            remedy='give the guest a MAC with other last five octets')
    LOG.error('%s: frames on bridge %s come from all MACs that its host end '
              'could have, most likely false ones; it gets %s. If a guest has '
              'that MAC, nobody on this host reaches it. Remedy: find out who '
              'sends them, as in "bridge fdb show br %s"; else give one of '
              'the two guests a MAC with other last five octets.', device,
              bridge.name, heard, bridge.name)
    return heard


def _is_local_elsewhere(entry: FdbEntry | None, link: Link) -> bool:
    return (entry is not None and entry.local
            and entry.port_index != link.index)


def _is_guest(entry: FdbEntry | None, link: Link) -> bool:
    return (entry is not None and not entry.local
            and entry.port_index != link.index)
