# SPDX-License-Identifier: Apache-2.0

"""What somebody changed about a TAP, or its port, that a plug had made right.

What is right is not here: see kernel/bridge_port.py, which each plug reads.
"""

from vif_plug_tapmac.host.finding import finds
from vif_plug_tapmac.host.finding import Remedy
from vif_plug_tapmac.host.finding import REPAIR
from vif_plug_tapmac.host.finding import REPLUG
from vif_plug_tapmac.host.finding import Seen
from vif_plug_tapmac.host.inventory import Inventory
from vif_plug_tapmac.host import keeping
from vif_plug_tapmac.host.tap import Tap
from vif_plug_tapmac.kernel import bridge_port
from vif_plug_tapmac.kernel import strangers
from vif_plug_tapmac.wanted import port_options

#: The least queue that a TAP is made with by any kernel.
#: Source: drivers/net/tun.c, TUN_READQ_SIZE
_SHORTEST_QUEUE = 500
#: What a port's state is called. Source: include/uapi/linux/if_bridge.h
_STATES = ('disabled', 'listening', 'learning', 'forwarding', 'blocking')


def _mended(tap: Tap) -> Remedy:
    return REPAIR if tap.can_be_plugged else REPLUG


def _is_set_by_plugs(tap: Tap) -> bool:
    """Return whether a plug sets what a port is like.

    Also where libvirt made the TAP, if it has the name that Nova gives it.
    """
    return tap.is_ours or tap.has_nova_name and not tap.is_anothers


@finds('TM215')
def _port_options(seen: Inventory, tap: Tap) -> Seen:
    if not _is_set_by_plugs(tap) or tap.bridge is None or not seen.wanted:
        return
    wanted = {**bridge_port.wanted_defaults(tap.link), **{
        each.field: seen.wanted[each.option]
        for each in port_options.CONFIGURED}, **_where_unguarded(seen, tap)}
    if tap.link.differences(wanted):
        yield tap.link.name, tap.link.explain(wanted), _mended(tap)
    wrong = _backup(seen, tap)
    if wrong is not None:
        yield tap.link.name, wrong, _mended(tap)


def _where_unguarded(seen: Inventory, tap: Tap) -> dict[str, bool]:
    """Return the options of a port whose guest may send from any MAC.

    Any other is for TM214, and so is one of which an agent says what it is
    kept to.
    """
    if (not seen.wanted or seen.wanted['anti_spoofing'] != 'none'
            or keeping.by_agent(seen, tap) is not None):
        return {}
    return {each.field: each.initial for each in port_options.TABLE
            if not each.is_configured
            and getattr(tap.link, each.field) is not None}


def _backup(seen: Inventory, tap: Tap) -> str | None:
    """Return what is wrong about where its frames go while nobody holds it.

    To nobody is well: so it was before its bridge had an uplink.
    """
    other = seen.links.get(tap.link.backup_port or 0)
    name = (seen.uplinks.of(tap.bridge.name)
            if seen.uplinks and tap.bridge else None)
    # Who plugs may know an uplink that the configuration does not.
    if other is None or (not other.is_tap if name is None
                         else other.is_called(name)):
        return None
    return 'while nobody holds it, %s gets what is for its guest' % other.name


@finds('TM221')
def _strangers(seen: Inventory, tap: Tap) -> Seen:
    if (not _is_set_by_plugs(tap) or tap.bridge is None
            or tap.guest_mac is None):
        return
    macs = strangers.of_port(tap.link, tap.guest_mac, seen.fdb_entries)
    if macs:
        yield (tap.link.name, 'the FDB of %s has %s there: its guest can send '
               'from it, and gets what is for it'
               % (tap.bridge.name, ', '.join(macs)),
               REPAIR if tap.mark is not None and tap.can_be_plugged
               else '"bridge fdb del %s dev %s master"'
               % (macs[0], tap.link.name))


@finds('TM222')
def _not_forwarding(seen: Inventory, tap: Tap) -> Seen:
    if tap.bridge is None:
        return
    wanted = bridge_port.wanted_state(tap.link, tap.bridge)
    if tap.link.differences(wanted):
        yield (tap.link.name, 'its guest has no network: its port is %s'
               % _STATES[tap.link.port_state or 0], _mended(tap))
    elif tap.link.is_put_to_sleep:
        yield (tap.link.name, 'its guest has no network: somebody put the '
               'link into the state dormant, or testing',
               _mended(tap) if tap.mark is not None
               else '"ip link set %s state up"' % tap.link.name)
    # Of one queue, the kernel does not say whether somebody has it.
    elif tap.link.up and not tap.link.carrier and tap.link.queues:
        yield (tap.link.name, 'its guest has no network: it is used, and '
               'its carrier is off',
               '"ip link set %s carrier on"' % tap.link.name)


@finds('TM223')
def _device(seen: Inventory, tap: Tap) -> Seen:
    if not tap.is_ours:
        return
    wanted = bridge_port.wanted_of_device(tap.link)
    del wanted['oper_state']  # Which is worse: TM222.
    if tap.link.differences(wanted):
        yield tap.link.name, tap.link.explain(wanted), _mended(tap)
    if (tap.link.queue_length or 0) < _SHORTEST_QUEUE:
        yield (tap.link.name, 'its queue has room for %d frames: more that '
               'come at once are lost' % (tap.link.queue_length or 0),
               '"ip link set %s txqueuelen 1000"' % tap.link.name)


@finds('TM224')
def _program(seen: Inventory, tap: Tap) -> Seen:
    if tap.link.has_program:
        yield (tap.link.name, 'it may change what its guest sends, or lose it',
               'find out by whom: "bpftool net show"; "ip link set %s xdp '
               'off" takes it away' % tap.link.name)


CHECKS = (_port_options, _strangers, _not_forwarding, _device, _program)
