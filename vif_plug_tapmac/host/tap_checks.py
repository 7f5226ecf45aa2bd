# SPDX-License-Identifier: Apache-2.0

"""What can be wrong with a TAP."""

import typing

from vif_plug_tapmac.host.finding import finds
from vif_plug_tapmac.host.finding import REBOOT
from vif_plug_tapmac.host.finding import Remedy
from vif_plug_tapmac.host.finding import REPAIR
from vif_plug_tapmac.host.finding import REPLUG
from vif_plug_tapmac.host.finding import Seen
from vif_plug_tapmac.host.inventory import Inventory
from vif_plug_tapmac.host import keeping
from vif_plug_tapmac.host.tap import Tap
from vif_plug_tapmac.kernel import adopting
from vif_plug_tapmac.kernel import agent_guard
from vif_plug_tapmac.kernel import link as link_data
from vif_plug_tapmac import mac
from vif_plug_tapmac import mark

#: How old a TAP is, in seconds, before it can be left over.
GRACE = mark.ARRIVES_WITHIN
#: Of VLANs, or MACs, in one finding.
_MOST_SHOWN = 8
#: How much of a TAP's name by Nova tells whose it is: "tap" and eight digits.
_AS_LONG_AS_IT_TELLS = 11


@finds('TM201')
def _other_mac(seen: Inventory, tap: Tap) -> Seen:
    if (tap.guest_mac is not None and tap.link.mac != tap.guest_mac
            and tap.link.mac not in mac.possible_tap_macs(tap.guest_mac)):
        yield (tap.link.name, 'it is %s, and should be %s for guest %s'
               % (tap.link.mac, mac.tap_mac(tap.guest_mac), tap.guest_mac),
               _set_mac(tap, tap.guest_mac))


@finds('TM202')
def _mac_of_its_guest(seen: Inventory, tap: Tap) -> Seen:
    if tap.guest_mac is not None and tap.link.mac == tap.guest_mac:
        yield (tap.link.name, 'both have %s: no unicast frame reaches the '
               'guest through a bridge' % tap.guest_mac,
               _set_mac(tap, tap.guest_mac))


def _set_mac(tap: Tap, guest_mac: str) -> Remedy:
    return REPAIR if tap.can_be_plugged else Remedy(
        '"ip link set %s address %s"' % (tap.link.name,
                                         mac.tap_mac(guest_mac)))


def holders_by_bridge(
        seen: Inventory) -> dict[tuple[int, str], str]:
    """Return which port of a bridge has a MAC itself."""
    return {(link.master, str(link.mac)): link.name
            for link in seen.links.values() if link.master is not None}


@finds('TM203')
def clash(tap: Tap,
          holders: dict[tuple[int, str], str]) -> Seen:
    if tap.bridge is None or tap.link.mac == tap.guest_mac:
        return
    holder = holders.get((tap.bridge.index, str(tap.guest_mac)))
    if holder is not None:
        yield (tap.link.name, 'its guest has %s, and so has %s, another '
               'port of %s: nobody reaches this guest'
               % (tap.guest_mac, holder, tap.bridge.name),
               # Plugged again, it has the other TAP give way.
               REPAIR if tap.can_be_plugged else
               'give one of them another MAC')


@finds('TM204')
def _open_to_all(seen: Inventory, tap: Tap) -> Seen:
    # Of one queue, whoever holds it keeps all others out.
    if (tap.link.owner is None and not adopting.is_of_libvirt(tap.link)
            and (tap.link.multi_queue or not tap.link.held)):
        yield (tap.link.name, 'it has no owner, so that every user of '
               'this host can attach to the guest\'s network',
               REPAIR if tap.can_be_plugged and not tap.link.held
               else REBOOT if tap.is_ours
               else 'have it made by tapmac; if nothing uses it, "ip link '
               'delete %s"' % tap.link.name)


@finds('TM205')
def _strange_holder(seen: Inventory,
                    tap: Tap) -> Seen:
    if tap.nic is None:
        return
    holders = tap.link.queues or (1 if tap.link.held else 0)
    queues = tap.nic.queues if tap.nic.active else 0
    if holders > queues:
        yield (tap.link.name, '%d queues are attached, and domain %s '
               'has %d' % (holders, tap.nic.domain, queues),
               'find out by whom: "grep -l %s /proc/[0-9]*/fdinfo/*" as root '
               'names the processes' % tap.link.name)


@finds('TM206')
def _off_bridge(seen: Inventory, tap: Tap) -> Seen:
    if tap.bridge is None:
        evidence = 'its guest has no network'
        if tap.mark is not None and tap.home is None:
            evidence += (', and %s, where it belongs, does not exist'
                         % tap.mark.bridge)
        yield (tap.link.name, evidence,
               REPAIR if tap.can_be_plugged else
               'start nova-compute again, or "%s --bridge <bridge> %s"'
               % (REPAIR, tap.link.name))


@finds('TM207')
def _tap_down(seen: Inventory, tap: Tap) -> Seen:
    if not tap.link.up:
        yield (tap.link.name, 'its guest has no network',
               REPAIR if tap.can_be_plugged
               else '"ip link set %s up"' % tap.link.name)


@finds('TM208')
def _tap_mtu(seen: Inventory, tap: Tap) -> Seen:
    if tap.bridge is not None and tap.link.mtu < tap.bridge.mtu:
        yield (tap.link.name, 'it is %d, and that of %s is %d: larger '
               'frames to the guest are lost'
               % (tap.link.mtu, tap.bridge.name, tap.bridge.mtu),
               'have the same MTU for the network in Neutron and for the '
               'bridge')


@finds('TM209')
def _addresses(seen: Inventory, tap: Tap) -> Seen:
    wrong = (['has %s' % ', '.join(tap.addresses)]
             if tap.addresses and not tap.is_anothers else [])
    if (tap.is_ours
            and tap.link.addr_gen_mode not in (None, link_data.ADDR_GEN_NONE)):
        wrong.append('gets a link-local address when it comes up')
    if wrong:
        yield (tap.link.name, 'it ' + ' and '.join(wrong),
               REPAIR if tap.can_be_plugged
               and tap.link.addr_gen_mode != link_data.ADDR_GEN_NONE
               else '"ip address flush dev %s"' % tap.link.name)


def is_orphan(seen: Inventory, tap: Tap,
              grace: float = GRACE) -> bool:
    """Return whether this TAP of ours belongs to no domain of libvirt.

    False also where libvirt does not answer, or not for all domains.

    :param grace: how old it is then at least, in seconds
    """
    return (seen.knows_domains and tap.mark is not None
            and tap.nic is None and tap.mark.is_older_than(grace)
            and not seen.services.is_anothers(tap))


@finds('TM210')
def _left_over(seen: Inventory, tap: Tap) -> Seen:
    if is_orphan(seen, tap):
        assert seen.libvirt is not None
        yield (tap.link.name, 'no domain of libvirt has it (%s, with %d '
               'domains)' % (seen.libvirt.uri, seen.libvirt.domains)
               + (', but a process holds it' if tap.link.held else ''),
               '"tapmac purge%s"' % (' --force ' + tap.shown_name
                                     if tap.link.held else ''))


@finds('TM211')
def _group(seen: Inventory, tap: Tap) -> Seen:
    if tap.mark is None or tap.link.group in seen.right_groups:
        return
    if seen.services.is_anothers(tap):
        if seen.services.of_group(tap.link.group) is None:
            yield _of_other_service(seen, tap)
    else:
        yield (tap.link.name, 'it carries our mark, and is in link '
               'group %d instead of %d' % (tap.link.group, seen.group),
               REPAIR if tap.can_be_plugged
               else '"ip link set %s group %d"' % (tap.link.name,
                                                   seen.group))


def _of_other_service(seen: Inventory, tap: Tap) -> tuple[str, str, str]:
    """Say of a TAP that no configuration here is known to be its own."""
    return (tap.link.name, 'it carries our mark, for VIF %s on %s, and is in '
            'link group %d, which is none of this service (%s): it may be '
            'another one\'s, and stays as it is' % (
                tap.vif_id, tap.mark and tap.mark.bridge, tap.link.group,
                ', '.join(str(each) for each in seen.groups)),
            'if another nova-compute of this host plugged it, "tapmac '
            '--config-file <its file> audit"; if it was this one, "ip link '
            'set %s group %d"' % (tap.link.name, seen.group))


@finds('TM211')
def strangers_in_group(seen: Inventory) -> Seen:
    ours = {tap.link.index for tap in seen.taps if tap.is_ours}
    for link in seen.links.values():
        if link.group in seen.groups and link.index not in ours:
            yield (link.name, 'it is in link group %d without our mark'
                   % link.group, '"ip link set %s group default"' % link.name)


@finds('TM212')
def _queue_mode(seen: Inventory, tap: Tap) -> Seen:
    if (tap.nic is not None and not tap.link.held
            and (tap.nic.queues > 1) != tap.link.multi_queue):
        yield (tap.link.name, 'domain %s has %d queues, and the TAP is '
               '%s: it can not start'
               % (tap.nic.domain, tap.nic.queues, 'multi-queue'
                  if tap.link.multi_queue else 'single-queue'),
               REPAIR if tap.can_be_plugged else
               'have it made anew by whoever made it; if nothing uses it, '
               '"ip link delete %s"' % tap.link.name)


@finds('TM213')
def _owner(seen: Inventory, tap: Tap) -> Seen:
    if (tap.is_ours and tap.link.owner is not None and seen.wanted
            and tap.link.owner != seen.wanted['owner']):
        yield (tap.link.name, 'it is uid %d, and [os_vif_tapmac] owner '
               'is uid %d' % (tap.link.owner, seen.wanted['owner']),
               REPAIR if tap.can_be_plugged and not tap.link.held else REBOOT)


@finds('TM214')
def _guard(seen: Inventory, tap: Tap) -> Seen:
    if tap.bridge is None or tap.guest_mac is None:
        return
    kept = keeping.by_agent(seen, tap)
    if kept is not None and not kept.locked:
        yield from _unlocked(seen, tap, kept)
        return
    if kept is None and (not seen.wanted
                         or seen.wanted['anti_spoofing'] == 'none'):
        return
    if tap.is_anothers:
        return  # There it is TM409: the first plug does it.
    fixed = (tap.link.index, tap.guest_mac) in seen.fixed_macs
    mute = sorted(_mute_vlans(seen, tap, tap.guest_mac))
    if tap.link.locked and not tap.link.learning and fixed and not mute:
        return
    if not tap.link.locked and keeping.is_source_filtered(seen, tap):
        if tap.link.learning is not False:
            return
        evidence = ('its guest arrives, and its port learns nothing: others '
                    'do not find it here')
    elif not tap.link.locked:
        evidence = 'its guest can send from any MAC: the port is not locked'
    elif not fixed:
        if tap.guest_mac in [port.mac for port in seen.ports(tap.bridge)]:
            return  # Which is why: TM202 or TM203.
        evidence = ('its guest has no network: the port is locked, and the '
                    'FDB of %s does not have %s there for good'
                    % (tap.bridge.name, tap.guest_mac))
    elif mute:
        evidence = ('its guest is mute in VLAN %s: the port is locked, and '
                    'the FDB of %s does not have %s there for good'
                    % (_some(mute), tap.bridge.name, tap.guest_mac))
    else:
        evidence = 'its port learns the MACs that it is to be kept from'
    yield (tap.link.name, evidence,
           REPAIR if tap.can_be_plugged else REPLUG)


def _unlocked(seen: Inventory, tap: Tap, kept: agent_guard.Kept) -> Seen:
    """Look at a port that an agent has not locked."""
    wrong = []
    if tap.link.locked or tap.link.learning is False:
        wrong.append('the port is locked, or learns nothing')
    if (tap.link.index, tap.guest_mac) in seen.fixed_macs:
        wrong.append('the FDB of it has %s there for good' % tap.guest_mac)
    if wrong:
        wrong = ['its guest can not share a MAC with others: '
                 + ', and '.join(wrong)]
    if kept.macs is None and keeping.sources(tap) is not None:
        wrong.append('port security is off, and a filter on the TAP is not')
    if kept.macs is not None and not keeping.is_source_filtered(seen, tap):
        wrong.append('no filter on the TAP keeps its guest to %s' % _some(
            sorted(kept.macs)))
    if wrong:
        yield (tap.link.name, '; '.join(wrong),
               REPAIR if tap.can_be_plugged else REPLUG)


def _mute_vlans(seen: Inventory, tap: Tap, guest_mac: str) -> set[int]:
    """Return the VLANs of a port in which a lock leaves its guest mute."""
    return {vlan for vlan in seen.vlans(tap) or () if (
        tap.link.index, guest_mac, vlan) not in seen.fixed_entries}


def _some(things: typing.Sequence[int | str]) -> str:
    """Return the first of these in words: a port may have 4094 VLANs."""
    words = [str(each) for each in things[:_MOST_SHOWN]]
    return ', '.join(words + ['...'] * (len(things) > _MOST_SHOWN))


@finds('TM218')
def _other_bridge(seen: Inventory, tap: Tap) -> Seen:
    if (tap.mark is None or tap.bridge is None
            or tap.bridge.name == tap.mark.bridge):
        return
    now, home = tap.bridge.name, tap.mark.bridge
    evidence = 'it is on %s, and belongs on %s' % (now, home)
    if tap.home is None:
        yield (tap.link.name, evidence + ', which does not exist',
               'if %s is called %s now, have Neutron call it so, and %s; else '
               '%s' % (home, now, REPLUG, REBOOT))
    else:
        yield (tap.link.name, evidence,
               REBOOT if tap.link.held else REPAIR)


@finds('TM219')
def _mark_lost(seen: Inventory, tap: Tap) -> Seen:
    if not tap.is_ours or tap.mark is not None:
        return
    yield (tap.link.name, 'its alias is %r; by its name it is the TAP of '
           'VIF %s' % (tap.link.alias or '', tap.whose),
           REPAIR if tap.can_be_plugged else
           REPLUG + '; if nothing uses it, "ip link delete %s"'
           % tap.link.name)


@finds('TM220')
def _renamed(seen: Inventory, tap: Tap) -> Seen:
    former = tap.name_by_nova
    # Whoever takes more or less of the id than Nova does names it, too.
    if (tap.mark is None or former is None
            or tap.name.startswith(former[:_AS_LONG_AS_IT_TELLS])
            or tap.link.name in (seen.nics or {})):
        return
    evidence = 'it is the TAP of VIF %s, which Nova calls %s' % (
        tap.mark.vif_id, former)
    if former in seen.by_name:
        yield (tap.link.name, evidence + ', a name that is taken',
               'if no guest holds it, "ip link delete %s"' % tap.link.name)
    else:
        yield (tap.link.name, evidence,
               '"ip link set %s down", "ip link set %s name %s", "ip link set '
               '%s up"' % (tap.link.name, tap.link.name, former, former))


@finds('TM225')
def _heard_elsewhere(seen: Inventory, tap: Tap) -> Seen:
    if (tap.mark is None or tap.bridge is None or not tap.link.held
            or not tap.mark.is_older_than(mark.ARRIVES_WITHIN)):
        return
    vlans = seen.vlans(tap)
    _, uplink = seen.joined_uplink(tap.bridge)
    for index, vlan in seen.heard.get(tap.mark.guest_mac, ()):
        port = seen.links.get(index)
        # Whose MAC is heard from a guest's TAP is that guest's own affair.
        if (port is not None and port.master == tap.bridge.index
                and index != tap.link.index
                and (vlans is None or vlan in vlans)
                and (not port.is_tap or port is uplink)):
            yield (tap.link.name, '%s is heard on %s, though a guest holds '
                   'the TAP, which is %d minutes old at least: somebody on '
                   'the wire has the MAC of this guest, as a gateway'
                   % (tap.mark.guest_mac, port.name,
                      mark.ARRIVES_WITHIN // 60),
                   'unless a live migration of the guest is at work still, '
                   'give the port another MAC')


@finds('TM216')
def _no_vlan(seen: Inventory, tap: Tap) -> Seen:
    if tap.bridge is not None and seen.vlans(tap) == set():
        yield (tap.link.name, 'its guest has no network: %s filters VLANs, '
               'and gives ports %s' % (tap.bridge.name, 'VLAN %d'
                                       % tap.bridge.default_pvid
                                       if tap.bridge.default_pvid
                                       else 'none by default'),
               '"bridge vlan add dev %s vid <VLAN> pvid untagged", and then '
               '"tapmac repair %s"' % (tap.link.name, tap.link.name))


@finds('TM217')
def half_deleted(seen: Inventory, tap: Tap) -> Seen:
    if tap.link.lost_name is not None:
        yield (tap.name, 'it is called %s, and its guest can not find it'
               % tap.link.name, REPAIR if tap.can_be_plugged else
               'start nova-compute again, or "ip link set %s name %s"'
               % (tap.link.name, tap.name))


#: Those that look at one TAP alone.
CHECKS = (_other_mac, _mac_of_its_guest, _open_to_all, _strange_holder,
          _off_bridge, _tap_down, _tap_mtu, _addresses, _left_over, _group,
          _queue_mode, _owner, _guard, _no_vlan, _other_bridge,
          _mark_lost, _renamed, _heard_elsewhere)
