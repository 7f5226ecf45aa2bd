# SPDX-License-Identifier: Apache-2.0

"""The bridge that a TAP joins: found, or made so that its MAC cannot flap."""

import binascii
import contextlib
import errno
import logging
import secrets
import typing

from vif_plug_tapmac import exception
from vif_plug_tapmac.kernel import bridge_health
from vif_plug_tapmac.kernel import bridge_port
from vif_plug_tapmac.kernel.link import Link
from vif_plug_tapmac.kernel import netlink as nl
from vif_plug_tapmac.kernel import settings
from vif_plug_tapmac.kernel import sysctl as sysctls
from vif_plug_tapmac.kernel import uplink
from vif_plug_tapmac.kernel import uplink_port
from vif_plug_tapmac import mark
from vif_plug_tapmac.wanted.port import TapPort

LOG = logging.getLogger(__name__)

# What a bridge of ours answers to ARP is only for addresses of its own, from a
# source of the subnet asked; and it has no IPv6.
_SYSCTLS = (*(('ipv4', sysctl, right)
              for sysctl, (_, right) in settings.IPV4.items()),
            ('ipv6', 'disable_ipv6', 1))

# What a bridge of ours is, whatever its network is like: as it is made, and as
# each plug has it again.
_OURS = {**bridge_port.DEVICE,
         **{each.field: each.right for each in settings.BRIDGE},
         **{sysctl: right for _, sysctl, right in _SYSCTLS}}

# Where every link starts.
_NO_GROUP = 0

# Callers with different MTUs for one bridge may meet here; one of them wins,
# and after so many rounds that is somebody else.
_ROUNDS = 3


def find(netlink: nl.Netlink, port: TapPort) -> Link | None:
    """Return the bridge of the port, None if it is to be made.

    :raises BridgeNotFound: it is missing and may not be made
    :raises DeviceConflict: the name is taken by something else
    """
    link = netlink.find(port.bridge)
    if link is None and not port.create_bridge:
        raise exception.BridgeNotFound(device=port.name, bridge=port.bridge)
    if link is not None and link.kind != 'bridge':
        raise exception.DeviceConflict(
            device=port.bridge,
            reason='the bridge of %s is to have this name, and a device of '
                   'another kind (%s) has it' % (port.name,
                                                 link.kind or 'hardware'),
            remedy='rename that device, or name another bridge')
    return link


def is_ours(link: Link, bridge_group: int) -> bool:
    """Return whether tapmac made this bridge: group or mark tell."""
    return (link.kind == 'bridge'
            and (link.group == bridge_group or link.alias == mark.BRIDGE_MARK))


def is_in_other_group(link: Link, bridge_group: int) -> bool:
    """Return whether a bridge of ours is in the group of other services.

    Or in the one that was configured before. Group 0 is nobody's.
    """
    return (link.alias == mark.BRIDGE_MARK
            and link.group not in (_NO_GROUP, bridge_group))


def join_group(name: str, bridge_group: int) -> None:
    """Have a bridge of ours in this group, from whichever it is in.

    No plug does so: it would be back with the next one of the other service.
    """
    with nl.Netlink() as netlink:
        link = netlink.find(name)
        if link is not None and is_in_other_group(link, bridge_group):
            netlink.change(link, {'group': bridge_group})


def wanted_fields(link: Link, bridge_group: int) -> dict[str, typing.Any]:
    """Return the fields that a finished bridge of ours has.

    But MAC, MTU and ports, which are its network's; "up"; and the alias, which
    may be an administrator's.

    :param link: as it is: what this kernel does not tell is not wanted, as all
        of IPv6 where the MTU is too small for that
    """
    group = (link.group if is_in_other_group(link, bridge_group)
             else bridge_group)
    return {'group': group, **{
        field: value for field, value in _OURS.items()
        if getattr(link, field) is not None}}


def ensure(netlink: nl.Netlink, port: TapPort,
           found: Link | None) -> Link:
    """Return the bridge of the port, made or finished where needed.

    Any number of callers may do this at once: creation is one message, of
    which one caller's wins, and all later steps are the same for all. The
    alias comes last and says that no step is missing.

    :param found: what :func:`find` returned
    :raises UplinkUnusable: what is to be its uplink is not fit for that;
        nothing was made
    :raises KernelRefused: a bridge that this call created is gone again,
        unless another caller finished it meanwhile; and so is its uplink
    """
    if found is not None and not _is_unfinished(found, port):
        _look_after(netlink, port, found)
        bridge_health.warn_about_netfilter(
            found, is_ours(found, port.bridge_group))
        return found
    with contextlib.ExitStack() as undo:
        wire, made = uplink.make_missing(
            netlink, port, uplink.find(netlink, port, found))
        if wire is not None and made:
            undo.callback(_remove_half_made, netlink, wire)
        created = found is None and netlink.create_bridge(
            port.bridge, wire.mac if wire and wire.mac else unique_mac(),
            port.bridge_group, _unpinned_mtu(port))
        if found is None:
            found = _require(netlink, port)
        if created:
            undo.callback(_remove_half_made, netlink, found)
        if _is_unfinished(found, port):
            found = _finish(netlink, found, port, wire)
        undo.pop_all()
    bridge_health.warn_about_netfilter(found, True)
    return found


def _is_unfinished(link: Link, port: TapPort) -> bool:
    return link.group == port.bridge_group and link.alias is None


def _look_after(netlink: nl.Netlink, port: TapPort,
                link: Link) -> None:
    """Mend or warn of a bridge that was there before."""
    if not is_ours(link, port.bridge_group):
        bridge_health.warn_of_anothers(link)
    else:
        _mend(netlink, port, link)
        if is_in_other_group(link, port.bridge_group):
            bridge_health.warn_of_group(link, port.bridge_group)
    bridge_health.warn_about_mtu(link, port)
    if port.uplink is not None:
        _take_uplink_back(netlink, port, link)


def _mend(netlink: nl.Netlink, port: TapPort, link: Link) -> None:
    """Have a bridge of ours again as it was made; guests do not notice.

    It costs nothing where nothing differs. Where it fails there is no more
    harm than without a plug, so none fails for it.
    """
    wanted = wanted_fields(link, port.bridge_group)
    try:
        if link.differences(wanted):
            _set(netlink, link, wanted)
            LOG.warning('Bridge %s was changed: %s. It is as tapmac made it '
                        'again. Find out by whom.', link.name,
                        link.explain(wanted))
        if not link.up:
            netlink.change(link, {'up': True})
            LOG.warning('Bridge %s was down; it is up again', link.name)
    except exception.KernelRefused as error:
        if error.kwargs.get('code') == errno.ENODEV:
            raise
        LOG.error('Bridge %s was changed, and can not be mended: %s. %s',
                  link.name, link.explain(dict(wanted, up=True)), error)


def _take_uplink_back(netlink: nl.Netlink, port: TapPort,
                      link: Link) -> None:
    """Make the uplink a port again, if it was the bridge's before.

    It was if the bridge has its MAC. Any other device might close a loop.

    :raises UplinkUnusable: the device is a port of the bridge, and another
        VLAN than its name says
    """
    try:
        wire = uplink.find(netlink, port, link)
        if wire is not None and wire.master == link.index:
            if is_ours(link, port.bridge_group):
                uplink_port.widen(netlink, wire, link)
            return
        mac = uplink.own_mac(netlink, port, wire)
        if mac == link.mac and is_ours(link, port.bridge_group):
            wire, _ = uplink.make_missing(netlink, port, wire)
            assert wire is not None
            uplink_port.join(netlink, port, wire, link)
            LOG.warning('Bridge %s had lost its uplink %s, and has it again',
                        link.name, wire.name)
            return
        reason = _why_not_back(port, link, wire, mac)
    except exception.TapMacError as error:
        if (isinstance(error, exception.UplinkUnusable)
                and uplink_port.is_port(netlink, port, link)):
            raise
        reason = str(error)
    if bridge_health.first_time(link, reason):
        LOG.warning('Bridge %s lacks its uplink %s: %s', link.name,
                    port.uplink, reason)


def _why_not_back(port: TapPort, link: Link, wire: Link | None,
                  mac: str | None) -> str:
    """Return why an uplink is for the operator to join, and how he does it."""
    why = ('tapmac did not make this bridge.'
           if not is_ours(link, port.bridge_group) else
           'it was made without, or with one that had the MAC %s; that of %s '
           'is %s.' % (link.mac, port.uplink, mac))
    command = uplink.command(link.name, str(port.uplink), wire is None)
    return ('%s Remedy: "%s", if no other port of it leads to the same wire.'
            % (why, command))


def _require(netlink: nl.Netlink, port: TapPort) -> Link:
    link = find(netlink, port)
    if link is None:
        raise exception.KernelRefused.from_errno(
            port.bridge, 'using the bridge', errno.ENODEV)
    return link


def unique_mac() -> str:
    """Return a locally administered MAC that no TAP of ours can have.

    Random, because whatever could be derived is not unique: names repeat from
    host to host, and so does the machine-id of cloned hosts. The last octet
    follows from the others, so that one of somebody else's is known.
    """
    octets = b'\x02' + secrets.token_bytes(4)
    return (octets + _check(octets)).hex(':')


def is_unique_mac(mac: str) -> bool:
    """Return whether it is one of :func:`unique_mac`; by chance 1 of 256 is.

    :param mac: six colon-separated hex octets, lower case
    """
    octets = bytes.fromhex(mac.replace(':', ''))
    return octets[:1] == b'\x02' and _check(octets[:-1]) == octets[-1:]


def _check(octets: bytes) -> bytes:
    return bytes([binascii.crc32(octets) & 0xff])


def _unpinned_mtu(port: TapPort) -> int | None:
    """Return an MTU to make the bridge with that differs from the wanted one.

    Ports change a bridge's MTU until the administrator sets it, and the
    kernel takes only a change for that: neither what is given at creation nor
    the present value set once more. So the bridge starts beside the wanted
    value, and setting that pins it, no matter how many callers do so.
    Source: net/bridge/br_device.c br_change_mtu (BROPT_MTU_SET_BY_USER),
    called from net/core/dev.c dev_set_mtu only if the value differs
    """
    return None if port.mtu is None else port.mtu + 1


def _finish(netlink: nl.Netlink, link: Link, port: TapPort,
            wire: Link | None) -> Link:
    fields: dict[str, typing.Any] = {'up': True}
    if port.mtu is not None:
        fields['mtu'] = port.mtu
    for left in reversed(range(_ROUNDS)):
        wanted = dict(wanted_fields(link, port.bridge_group), **fields)
        _set(netlink, link, wanted)
        if wire is not None:
            uplink_port.join(netlink, port, wire, link)
        seen = _require(netlink, port)
        if seen.alias is not None:  # Another caller was faster.
            return seen
        differing = seen.differences(wanted)
        if not differing or not left and list(differing) == ['mtu']:
            netlink.change(link, {'alias': mark.BRIDGE_MARK})
            LOG.info('Bridge %s made, with the fixed MAC %s', link.name,
                     link.mac)
            if wire is None:
                LOG.warning('Bridge %s has no uplink: guests on it reach each '
                            'other and nobody else. If that is not meant: '
                            'name one in bridge_uplinks, and make it a port '
                            'with "ip link set <uplink> master %s".',
                            link.name, link.name)
            return seen
        link = seen
    raise exception.VerifyFailed(device=link.name,
                                 differences=link.explain(wanted))


def _set(netlink: nl.Netlink, link: Link,
         wanted: dict[str, typing.Any]) -> None:
    """Set what differs on a bridge of ours; "up" comes last."""
    differing = link.differences(wanted)
    for family, sysctl, value in _SYSCTLS:
        if sysctl in differing:
            del differing[sysctl]
            sysctls.write(link, family, sysctl, str(value))
    if 'stp' in differing:  # While it runs the delay has a least value.
        netlink.change(link, {'stp': differing.pop('stp')})
    if differing:
        netlink.change(link, differing)


def _remove_half_made(netlink: nl.Netlink, link: Link) -> None:
    try:
        seen = netlink.get(link.index, link.name)
        # Another caller may have finished the bridge meanwhile, or have made
        # this uplink a port of it.
        if (seen is not None and seen.alias is None
                and seen.master is None):
            netlink.delete(seen)
    except exception.TapMacError as error:
        LOG.warning('%s stays half-made; the next plug finishes it: %s',
                    link.name, error)
