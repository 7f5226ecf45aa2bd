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

"""A guest's port: observe, converge, verify; or remove."""

import contextlib
import dataclasses
import errno
import secrets
import time
import typing

from oslo_log import log as logging

from vif_plug_tapmac import exception
from vif_plug_tapmac.kernel import bridge
from vif_plug_tapmac.kernel import clash
from vif_plug_tapmac.kernel import guard
from vif_plug_tapmac.kernel import link as link_data
from vif_plug_tapmac.kernel.link import Link
from vif_plug_tapmac.kernel import netlink as nl
from vif_plug_tapmac.kernel import shield
from vif_plug_tapmac.kernel import tun
from vif_plug_tapmac.kernel import udev
from vif_plug_tapmac import mac
from vif_plug_tapmac import mark
from vif_plug_tapmac.wanted.limits import Limits
from vif_plug_tapmac.wanted import names
from vif_plug_tapmac.wanted import port as port_values
from vif_plug_tapmac.wanted.port import TapIdentity
from vif_plug_tapmac.wanted.port import TapPort

LOG = logging.getLogger(__name__)

# Set, read back and found good; or repaired once and found good; and one more
# where two TAPs that cross each other's guests join at once.
_ROUNDS = 4
# How the kernel says so. EEXIST: another plug of this VIF was first. ENODEV,
# and EBADFD of our descriptor: the TAP was removed, or the bridge. EBUSY: the
# TAP was brought up before it had its name (Linux before 6.2).
_OVERTAKEN = (errno.EEXIST, errno.ENODEV, errno.EBADFD, errno.EBUSY)
# How long a plug goes on in spite of others, and waits for another plug of the
# same VIF, in seconds. What it waits for udev comes on top.
_PATIENCE = 10.0
_PAUSE = 0.02


class _Overtaken(Exception):
    """The host changed while we worked on it; it deserves another look.

    :param error: what to raise if it never gets better
    """

    def __init__(self, error: exception.TapMacError) -> None:
        super().__init__(str(error))
        self.error = error


def ensure(port: TapPort, limits: Limits) -> str | None:
    """Have the port's TAP on its bridge, finished and verified.

    Any number of callers may do this at once, also for one VIF.

    :returns: what was made, for the log; None if the TAP was there. It is not
        logged here: what the privileged daemon logs is a message of its own
        to the caller, and would be a tenth of the time that a plug takes
    :raises TapMacError: a TAP that this call was making is gone again. Never
        raised for a TAP that a guest holds: that is logged with the remedy,
        because nova-compute plugs every guest when it starts and would not
        start for one bad port.
    """
    deadline = time.monotonic() + _PATIENCE + limits.udev_timeout
    with nl.Netlink() as netlink:
        while True:
            try:
                return _ensure_once(netlink, port, limits, deadline)
            except _Overtaken as overtaken:
                if time.monotonic() > deadline:
                    raise overtaken.error
                LOG.debug('Starting over: %s', overtaken)
            time.sleep(_PAUSE)


def _ensure_once(netlink: nl.Netlink, port: TapPort,
                 limits: Limits, deadline: float) -> str | None:
    found = netlink.find(port.name)
    LOG.debug('Wanted: %s. Observed: %s', port, found)
    if found is not None and _is_being_made(found):
        found = _wait_for_other_plug(netlink, port, found, deadline)
    if found is not None and not found.is_tap:
        raise exception.DeviceConflict(
            device=port.name,
            reason='a device of another kind (%s) has the name of this TAP'
                   % (found.kind or 'hardware'),
            remedy='rename or remove that device')
    if found is not None and found.held:
        _keep(netlink, port, limits, found)
        return None
    limits.require_bridge(port)
    try:
        if found is None and not port.create_tap:
            bridge.ensure(netlink, port, bridge.find(netlink, port))
            return None
        if found is None:
            return _make(netlink, port, limits)
        return _reuse(netlink, port, limits, found)
    except exception.KernelRefused as error:
        if (error.kwargs.get('code') not in _OVERTAKEN
                or error.kwargs['device'] == tun.TUN_DEVICE):  # No driver.
            raise
        raise _Overtaken(error)


def _is_being_made(link: Link) -> bool:
    """Return whether another plug is at work on this TAP.

    Ours have their mark before they have their name, and are persistent when
    they are finished.
    """
    return (link.is_tap and link.held and not link.persistent
            and mark.TapMark.parse(link.alias) is not None)


def _wait_for_other_plug(netlink: nl.Netlink, port: TapPort,
                         found: Link, deadline: float) -> Link | None:
    """Wait until the other plug is done, or was killed; return what is left.

    If it takes forever it is no plug, but a guest who made its TAP vanish with
    itself.
    """
    left: Link | None = found
    while (left is not None and _is_being_made(left)
           and time.monotonic() < deadline):
        time.sleep(_PAUSE)
        left = netlink.find(port.name)
    return left


def remove(identity: TapIdentity) -> None:
    """Delete the TAP if it carries our mark for this VIF.

    Absent is success. Anything else of that name stays and is warned about.

    :raises KernelRefused: the TAP is still there
    """
    with nl.Netlink() as netlink:
        try:
            found = netlink.find(identity.name)
        except exception.DeviceConflict as conflict:
            LOG.warning('Nothing is removed. %s', conflict)
            return
        if found is None:
            LOG.debug('%s is absent already', identity.name)
            return
        if not _is_marked(found, identity.vif_id):
            LOG.warning('%s stays: it does not carry the mark of tapmac for '
                        'VIF %s (its alias is %s). If nothing uses it: "ip '
                        'link delete %s".', identity.name, identity.vif_id,
                        found.alias, identity.name)
            return
        if found.held:
            LOG.warning('%s is removed while a guest still holds it: that '
                        'guest\'s NIC is dead until it is attached anew',
                        identity.name)
        netlink.delete(found)
        LOG.info('%s removed', identity.name)


def remove_many(identities: typing.Collection[TapIdentity],
                also_held: bool) -> list[str]:
    """Delete many TAPs that carry our mark, each for its VIF, at once.

    They are put in a link group of their own, and go with it: the kernel takes
    about half a millisecond for each instead of fifteen. Whoever plugs one of
    these VIFs meanwhile takes its TAP out of that group again, and who makes a
    new one never puts it there.

    :param also_held: whether those go, too, that a process holds
    :returns: the names of those that went; all others stay as they are
    :raises KernelRefused: some of them may be gone
    """
    wanted = {identity.name: identity.vif_id for identity in identities}
    with nl.Netlink() as netlink:
        links = netlink.links()
        going = {link.index: link for link in links
                 if link.name in wanted and (also_held or not link.held)
                 and _is_marked(link, wanted[link.name])}
        group = _unused_group(links)
        for link in going.values():
            netlink.change(link, {'group': group})
        members = [link for link in netlink.links() if link.group == group]
        going = {link.index: link for link in members
                 if link.index in going and (also_held or not link.held)
                 and _is_marked(link, wanted.get(link.name))}
        if len(going) == len(members):
            netlink.delete_group(group)
        else:  # Somebody else has something in it, or took a TAP just now.
            for link in going.values():
                netlink.delete(link)
    for link in going.values():
        LOG.info('%s removed', link.name)
    return [link.name for link in going.values()]


def _is_marked(link: Link, vif_id: str | None) -> bool:
    found = mark.TapMark.parse(link.alias)
    return link.is_tap and found is not None and found.vif_id == vif_id


def _unused_group(links: list[Link]) -> int:
    used = {link.group for link in links}
    return next(group for group in iter(lambda: secrets.randbits(31), None)
                if group not in used and group >= port_values.LINK_GROUP_MIN)


def _make(netlink: nl.Netlink, port: TapPort, limits: Limits,
          instead_of: Link | None = None) -> str:
    """Make the TAP; it outlives us only if every step went well.

    It gets its own name together with its mark, so that whoever finds a TAP of
    this name knows whose it is; until then nobody can know how to attach to
    it. Whatever may fail for lack of something comes first, so that a bridge
    is made, or an old TAP given up, only for a TAP that will be there.
    """
    found_bridge = bridge.find(netlink, port)
    made_after = udev.now()
    with tun.TunDevice(port.name) as device, contextlib.ExitStack() as undo:
        name = _unguessable_name()
        device.create(name, port.multi_queue, port.owner)
        # At once, before udev looks.
        device.set_mac(mac.tap_mac(port.guest_mac))
        link = _require_tap(netlink.find(name, port.name), port, name)
        # Closing is not enough where a stranger got in before the owner was
        # set: his queue keeps the TAP alive, and him on the guest's wire.
        undo.callback(_discard, netlink, link)
        _require_sole_user(port, link)
        tap_mark = mark.TapMark(port.vif_id, port.guest_mac, int(time.time()))
        wanted = dict(_wanted(port, tap_mark), name=port.name)
        on_bridge = bridge.ensure(netlink, port, found_bridge)
        if instead_of is not None:
            netlink.delete(instead_of)
        link = _converge(netlink, port, on_bridge, link, wanted)
        if limits.udev_timeout and udev.is_running():
            udev.wait_for(link, port.name, made_after, limits.udev_timeout)
            link = _converge(
                netlink, port, on_bridge,
                _require_tap(netlink.get(link.index, port.name), port),
                wanted)
        _require_sole_user(port, link)
        _require_bridge_name(port, on_bridge)
        device.persist()
        undo.pop_all()
    bridge.warn_if_nearly_full(on_bridge, link)
    return '%s made for guest %s: %s on bridge %s' % (
        port.name, port.guest_mac, link.mac, port.bridge)


def _unguessable_name() -> str:
    """Return a name for a TAP that nobody shall find before it is ready.

    With "tap" in front, for .link files and rules that match on that. No TAP
    of Nova's is named so, theirs have a "-" after eight digits.
    """
    return 'tapmac-' + secrets.token_hex(4)


def _require_sole_user(port: TapPort, link: Link) -> None:
    sole_user = {'is_tap': True, 'owner': port.owner,
                 'multi_queue': port.multi_queue,
                 'queues': 1 if port.multi_queue else None}
    if link.differences(sole_user):
        raise _Overtaken(exception.VerifyFailed(
            device=port.name, differences=link.explain(sole_user)))


def _require_bridge_name(port: TapPort, on_bridge: Link) -> None:
    if not nl.is_named(on_bridge.index, port.bridge):
        raise _Overtaken(exception.VerifyFailed(
            device=port.bridge,
            differences='the bridge was removed or renamed'))


def _keep(netlink: nl.Netlink, port: TapPort, limits: Limits,
          found: Link) -> None:
    """Mend a TAP that a guest holds, so that the guest does not notice."""
    found_mark = mark.TapMark.parse(found.alias)
    if found_mark is not None and found_mark.vif_id != port.vif_id:
        LOG.error('%s is used by the guest of another VIF, %s, and stays as '
                  'it is. Remedy: give one of the two VIFs another name.',
                  port.name, found_mark.vif_id)
        return
    if found_mark is None and not port.has_nova_name:
        LOG.error('%s is used by somebody, and stays as it is: tapmac did not '
                  'make it, and Nova would name the TAP of VIF %s %s. Remedy: '
                  'give that VIF this name, or have its TAP made by tapmac.',
                  port.name, port.vif_id,
                  names.nova_tap_name(port.vif_id))
        return
    faults = _faults(netlink, port, found, found_mark)
    if faults:
        LOG.error('%s is used by a guest, and wrong: %s. It stays as it is, '
                  'because mending it would cut the guest off. Remedy: hard '
                  'reboot the instance, or detach and attach the interface.',
                  port.name, '; '.join(faults))
        return
    wanted = _wanted(port, found_mark)
    if port.mtu is not None:
        wanted['mtu'] = max(port.mtu, found.mtu)
        if wanted['mtu'] != port.mtu:
            LOG.warning('%s keeps MTU %d though its network has %d, because a '
                        'guest uses it; a hard reboot of the instance changes '
                        'it', port.name, found.mtu, port.mtu)
    try:
        limits.require_bridge(port)
        on_bridge = bridge.ensure(netlink, port, bridge.find(netlink, port))
        _converge(netlink, port, on_bridge, found, wanted)
    except (exception.TapMacError, _Overtaken) as error:
        LOG.error('%s is used by a guest and could not be mended: %s',
                  port.name, error)


def _reuse(netlink: nl.Netlink, port: TapPort, limits: Limits,
           found: Link) -> str | None:
    """Mend an idle TAP, make it anew or refuse.

    One that libvirt is to make is in libvirt's way if it is wrong, and goes.
    """
    found_mark = mark.TapMark.parse(found.alias)
    if found_mark is None and not port.has_nova_name:
        raise exception.DeviceConflict(
            device=port.name,
            reason='a TAP of this name exists that tapmac did not make',
            remedy='if nothing uses it, remove it with "ip link delete %s"'
            % port.name)
    if found_mark is not None and found_mark.vif_id != port.vif_id:
        raise exception.DeviceConflict(
            device=port.name,
            reason='the TAP of another VIF, %s, has this name'
            % found_mark.vif_id,
            remedy='unplug that VIF first, or give one of the two another '
                   'name')
    faults = _faults(netlink, port, found, found_mark)
    if port.create_tap and (found_mark is None or faults):
        LOG.info('%s is made anew: %s', port.name,
                 '; '.join(faults) or 'tapmac did not make it')
        return _make(netlink, port, limits, instead_of=found)
    on_bridge = bridge.ensure(netlink, port, bridge.find(netlink, port))
    if found_mark is not None and faults:
        netlink.delete(found)
        LOG.info('%s is removed, and libvirt makes it anew: %s', port.name,
                 '; '.join(faults))
        return None
    _converge(netlink, port, on_bridge, found, _wanted(port, found_mark))
    return None


def _faults(netlink: nl.Netlink, port: TapPort, found: Link,
            found_mark: mark.TapMark | None) -> list[str]:
    """Return what only a new TAP can put right, in words."""
    faults = []
    if found.master is not None and not nl.is_named(found.master, port.bridge):
        master = netlink.get(found.master,
                             'the bridge of %s' % port.name)
        if master is not None and master.name != port.bridge:
            faults.append('it is on %s and should be on %s'
                          % (master.name, port.bridge))
    if found_mark is not None:
        facts = {'owner': port.owner, 'persistent': True}
        if port.create_tap:  # Else nobody said how many queues there are.
            facts['multi_queue'] = port.multi_queue
        if found.differences(facts):
            faults.append(found.explain(facts))
    return faults


def _wanted(port: TapPort,
            tap_mark: mark.TapMark | None) -> dict[str, typing.Any]:
    """Return the fields that a TAP shall have, but for MAC and master.

    :param tap_mark: None if tapmac did not make it: it stays without mark
    """
    wanted: dict[str, typing.Any] = {'up': True}
    if port.mtu is not None:
        wanted['mtu'] = port.mtu
    if tap_mark is not None:
        alias = mark.TapMark(port.vif_id, port.guest_mac, tap_mark.made)
        wanted.update(group=port.link_group, alias=str(alias),
                      addr_gen_mode=link_data.ADDR_GEN_NONE)
    return wanted


def _converge(netlink: nl.Netlink, port: TapPort, on_bridge: Link,
              link: Link, wanted: dict[str, typing.Any]) -> Link:
    """Set what differs until it reads back right; return what was read."""
    wanted = dict(wanted, master=on_bridge.index)
    shield.ensure(port)
    guard.forget_former(netlink, port, link)
    try:
        for _ in range(_ROUNDS):
            wanted['mac'] = clash.settle_tap_mac(netlink, on_bridge, port,
                                                 link)
            entry = guard.find_guest(netlink, on_bridge, port, link)
            arriving = guard.is_arriving(port, link, entry)
            wanted.update(guard.port_options(port, arriving))
            differing = _differing(link, wanted)
            guarded = guard.is_in_place(netlink, port, link, entry, arriving)
            if guarded and not differing:
                guard.lend_uplink(netlink, port, on_bridge, link)
                return link
            if arriving:
                guard.put_filter(netlink, port, link)
            _set(netlink, port, on_bridge, link, differing,
                 guarded or arriving)
            link = _require_tap(netlink.get(link.index, port.name), port)
    except exception.KernelRefused:
        # If the bridge is gone, that is why.
        _require_bridge_name(port, on_bridge)
        raise
    raise exception.VerifyFailed(
        device=port.name,
        differences=link.explain(_differing(link, wanted))
        or 'bridge %s does not keep the guest to its MAC' % port.bridge)


def _differing(link: Link,
               wanted: dict[str, typing.Any]) -> dict[str, typing.Any]:
    """Return the wanted fields that are to be set."""
    differing = link.differences(wanted)
    if not _can_have_ipv6(link, wanted):
        differing.pop('addr_gen_mode', None)
    joins = 'master' in differing
    for field, initial in link_data.PORT_OPTIONS.items():
        # What the kernel does not tell is as it always was.
        seen = None if joins else getattr(link, field)
        if (initial if seen is None else seen) == wanted[field]:
            differing.pop(field, None)
        else:
            differing[field] = wanted[field]
    return differing


def _set(netlink: nl.Netlink, port: TapPort, on_bridge: Link,
         link: Link, differing: dict[str, typing.Any],
         fixed: bool) -> None:
    """Set what differs, so that no frame comes in unguarded meanwhile.

    :param fixed: whether the guest's MAC is in the FDB where it is to be, or
        is not to be there
    """
    LOG.debug('%s: setting %s', port.name, differing)
    step = 'setting %s on bridge %s' % (', '.join(differing), port.bridge)
    joins = 'master' in differing
    if not joins:
        guard.require_kernel(link, differing)
    if joins and link.up:
        # It has no network yet, so a guest that holds it loses nothing.
        netlink.change(link, {'up': False}, step)
        differing['up'] = True
    late = {field: differing.pop(field) for field in list(differing)
            if field == 'up' or field in link_data.PORT_OPTIONS}
    netlink.change(link, differing, step)
    link = dataclasses.replace(link, name=port.name)
    if joins and guard.is_guest_local(netlink, on_bridge, port, link):
        return
    try:
        if not fixed:
            netlink.fix_fdb_entry(link, port.guest_mac)
        netlink.change(link, late, step)
    except exception.KernelRefused:
        seen = netlink.get(link.index, port.name)
        if seen is None or seen.master == on_bridge.index:
            raise
        # Taken off the bridge meanwhile: the next round puts it back.
        LOG.debug('%s: no port of bridge %s any more', port.name, port.bridge)
        return
    if joins:
        return
    guard.finish_change(netlink, port, link, late)
    if 'addr_gen_mode' in differing and link.up:
        # It has its addresses already.
        netlink.remove_addresses(link)


def _can_have_ipv6(link: Link, wanted: dict[str, typing.Any]) -> bool:
    """Whether there are IPv6 settings on the link, and will be."""
    return (link.addr_gen_mode is not None
            and wanted.get('mtu', link.mtu) >= link_data.IPV6_MTU_MIN)


def _require_tap(link: Link | None, port: TapPort,
                 name: str | None = None) -> Link:
    """Return the link if it has its name still.

    :param name: None: the port's
    """
    if link is None or link.name != (name or port.name):
        raise _Overtaken(exception.VerifyFailed(
            device=port.name,
            differences='it was %s' % ('deleted' if link is None
                                       else 'renamed to ' + link.name)))
    return link


def _discard(netlink: nl.Netlink, link: Link) -> None:
    try:
        netlink.delete(link)
    except exception.TapMacError as error:
        LOG.warning('%s could not be removed after a failed plug: %s',
                    link.name, error)
