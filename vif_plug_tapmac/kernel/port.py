# SPDX-License-Identifier: Apache-2.0

"""A guest's port: what is done about the TAP that is found, or not."""

import dataclasses
import errno
import logging
import time

from vif_plug_tapmac import exception
from vif_plug_tapmac.kernel import address_guard
from vif_plug_tapmac.kernel import adopting
from vif_plug_tapmac.kernel import bridge
from vif_plug_tapmac.kernel import converging
from vif_plug_tapmac.kernel import guard
from vif_plug_tapmac.kernel.link import Link
from vif_plug_tapmac.kernel import making
from vif_plug_tapmac.kernel import netlink as nl
from vif_plug_tapmac.kernel import removing
from vif_plug_tapmac import mark
from vif_plug_tapmac.wanted.limits import Limits
from vif_plug_tapmac.wanted import names
from vif_plug_tapmac.wanted.port import TapPort

LOG = logging.getLogger(__name__)

# How the kernel says of TAP or bridge that somebody else was faster. EEXIST:
# another plug of this VIF was first. ENODEV, and EBADFD of our descriptor: the
# TAP was removed, or the bridge. For EBUSY there are many reasons, most of
# which stay: see kernel/converging.py.
_OVERTAKEN = (errno.EEXIST, errno.ENODEV, errno.EBADFD)
# How often in a row the same may be refused: it is nobody's doing then.
_SAME_REFUSALS = 20
# How long a plug goes on in spite of others, and waits for another plug of the
# same VIF, in seconds. What it waits for udev comes on top.
_GIVES_UP_AFTER = 10.0
_PAUSE = 0.02


def ensure(port: TapPort, limits: Limits) -> str | None:
    """Have the port's TAP on its bridge, finished and verified.

    Any number of callers may do this at once, also for one VIF.

    :returns: what was made, for the log; None if the TAP was there. It is not
        logged here: what the privileged daemon logs is a message of its own
        to the caller, and would be a tenth of the time that a plug takes
    :raises TapMacError: a TAP that this call was making is gone again. Never
        raised for a TAP of this VIF that a guest holds: that is logged with
        the remedy, because nova-compute plugs every guest when it starts and
        would not start for one bad port.
    """
    deadline = time.monotonic() + _GIVES_UP_AFTER + limits.udev_timeout
    refusals: list[str] = []
    with nl.Netlink() as netlink:
        while True:
            try:
                return _ensure_once(netlink, port, limits, deadline)
            except guard.HeldElsewhere as elsewhere:
                LOG.error('%s is not made: the guest of VIF %s holds its TAP '
                          'under another name, %s, and would be cut off. '
                          'Remedy: "ip link set %s down", "ip link set %s '
                          'name %s", "ip link set %s up".', port.name,
                          port.vif_id, elsewhere.name, elsewhere.name,
                          elsewhere.name, port.name, port.name)
                return None
            except converging.Overtaken as overtaken:
                if (time.monotonic() > deadline
                        or _is_in_vain(overtaken, refusals)):
                    raise overtaken.error
                LOG.debug('Starting over: %s', overtaken)
            time.sleep(_PAUSE)


def _is_in_vain(overtaken: converging.Overtaken,
                refusals: list[str]) -> bool:
    """Return whether the kernel refuses the same again and again.

    :param refusals: what it has refused so far, the same things in a row
    """
    words = str(overtaken)
    if (not isinstance(overtaken.error, exception.KernelRefused)
            or words not in refusals):
        refusals.clear()
    refusals.append(words)
    return len(refusals) >= _SAME_REFUSALS


def _ensure_once(netlink: nl.Netlink, port: TapPort,
                 limits: Limits, deadline: float) -> str | None:
    found = netlink.find(port.name)
    if found is None or found.former_name is not None:
        found = removing.restore(netlink, port.name, found, port.group,
                                 port.groups)
    LOG.debug('Wanted: %s. Observed: %s', port, found)
    if found is not None and making.is_being_made(found):
        found = _wait_for_other_plug(netlink, port, found, deadline)
    if found is not None and not found.is_tap:
        raise exception.DeviceConflict(
            device=port.name,
            reason='a device of another kind (%s) has the name of this TAP'
                   % (found.kind or 'hardware'),
            remedy='rename or remove that device')
    wanted, port = port, _with_what_can_be_had(port, found)
    if found is not None and _is_held(found):
        _keep(netlink, port, limits, found, wanted)
        return None
    limits.require_bridge(port)
    try:
        if found is None and not port.create_tap:
            bridge.ensure(netlink, port, bridge.find(netlink, port))
            return None
        if found is None:
            return making.make(netlink, port, limits)
        return _reuse(netlink, port, limits, found)
    except removing.Held:
        # Since we looked; or its carrier was switched off, which hides him.
        assert found is not None
        _keep(netlink, _with_what_can_be_had(
            wanted, dataclasses.replace(found, carrier=True)), limits, found,
            wanted)
        return None
    except exception.KernelRefused as error:
        if (error.kwargs.get('code') not in _OVERTAKEN
                or error.kwargs['device'] not in (port.name, port.bridge)):
            raise
        raise converging.Overtaken(error)


def _is_held(found: Link) -> bool:
    """Return whether a TAP is, also by one who has switched its carrier off.

    That hides him where the TAP does not go with him.
    """
    return found.held or adopting.is_of_libvirt(found)


def _with_what_can_be_had(port: TapPort, found: Link | None) -> TapPort:
    """Return the port as it can be, where its guest is to be filtered.

    By a table that knows the index of its TAP before that takes a frame. That
    is not so for a TAP that libvirt makes after us. One that it has made, and
    a guest runs on, can be one of ours; of any other without our mark nobody
    knows whether it may be in the group. Who does not know its addresses
    leaves the guest to what it is kept to.

    :raises InvalidConfig: libvirt is to make the TAP
    """
    if not port.is_filtered and not port.is_of_agent:
        return port
    held = found is not None and _is_held(found)
    own = found is not None and (
        mark.TapMark.parse(found.alias) is not None
        or port.has_nova_name and mark.is_lost(found, port.groups))
    why = None
    if found is not None and held and not own:
        why = adopting.obstacle(found)
    if found is not None and port.is_of_agent and (
            own or held and why is None and port.has_nova_name):
        return _with_agent(port, found)
    if port.addresses is None and not port.is_of_agent:
        if found is None or not own:
            return port if port.create_tap else _unfiltered(port)
        if found.group == port.agent_group:
            return dataclasses.replace(port, firewall='agent')
        return (port if found.group == port.filtered_group
                else _unfiltered(port))
    option, value, what = (
        ('firewall', port.firewall, 'security groups') if port.is_of_agent
        else ('anti_spoofing', port.anti_spoofing, 'addresses'))
    if why is not None:
        LOG.error('%s: its guest is kept to its MAC only, and not to its '
                  '%s (%s = %s), because %s. Remedy: %s.', port.name, what,
                  option, value, why,
                  'hard reboot the instance' if port.create_tap
                  else 'nova_managed_tap = true, and a hard reboot')
        return _unfiltered(port)
    if not port.create_tap and not held:
        raise exception.InvalidConfig(
            option=option, value=value,
            reason='libvirt makes %s after it was plugged, so that nothing '
                   'keeps its guest to its %s. Set nova_managed_tap, or '
                   '%s = %s' % (port.name, what, option, 'none' if (
                       port.is_of_agent) else 'mac'))
    return port


def _unfiltered(port: TapPort) -> TapPort:
    """Return the port with its guest kept to its MAC at most."""
    return dataclasses.replace(
        port, firewall='none',
        anti_spoofing='mac' if port.is_guarded else 'none')


def _with_agent(port: TapPort, found: Link) -> TapPort:
    """Return the port of a TAP of which an agent is to say all.

    One of ours, or one that is adopted, which the agent knows by its mark. A
    guest that runs goes on as it was until the agent knows its port, or it
    would be cut off.
    """
    if (not _is_held(found) or found.group == port.agent_group
            or _is_fed(found)):
        return port
    LOG.warning('%s: its guest is not kept to its security groups (firewall = '
                'agent) before the agent knows its port. If it stays so: look '
                'whether the agent runs.', port.name)
    if found.group == port.filtered_group:
        return dataclasses.replace(port, firewall='none',
                                   anti_spoofing='full')
    return _unfiltered(port)


def _is_fed(found: Link) -> bool:
    try:
        return address_guard.is_fed(found)
    except exception.KernelRefused as error:
        # A guest holds it: whatever cannot be asked for is no error here.
        LOG.debug('%s: what an agent says of it is not known: %s', found.name,
                  error)
        return False


def _wait_for_other_plug(netlink: nl.Netlink, port: TapPort,
                         found: Link, deadline: float) -> Link | None:
    """Wait until the other plug is done, or was killed; return what is left.

    If it takes forever it is no plug, but a guest who made its TAP vanish with
    itself.
    """
    left: Link | None = found
    while (left is not None and making.is_being_made(left)
           and time.monotonic() < deadline):
        time.sleep(_PAUSE)
        left = netlink.find(port.name)
    return left


def _keep(netlink: nl.Netlink, port: TapPort, limits: Limits,
          found: Link, asked: TapPort) -> None:
    """Mend a TAP that a guest holds, so that the guest does not notice.

    :param port: as it can be
    :param asked: as it was asked for
    """
    found_mark = mark.TapMark.parse(found.alias)
    _require_same_vif(port, found_mark)
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
    try:
        limits.require_bridge(port)
        port = _with_what_the_kernel_keeps(netlink, port, found)
        wanted = converging.wanted_fields(port, found_mark or _new_mark(
            port, found) or adopting.new_mark(port, found, asked.is_of_agent))
        if port.mtu is not None:
            wanted['mtu'] = max(port.mtu, found.mtu)
            if wanted['mtu'] != port.mtu:
                LOG.warning('%s keeps MTU %d though its network has %d, '
                            'because a guest uses it; a hard reboot of the '
                            'instance changes it', port.name, found.mtu,
                            port.mtu)
        on_bridge = bridge.ensure(netlink, port, bridge.find(netlink, port))
        converging.converge(netlink, port, limits, on_bridge, found,
                            wanted)
    except (exception.TapMacError, converging.Overtaken) as error:
        LOG.error('%s is used by a guest and could not be mended: %s',
                  port.name, error)


def _with_what_the_kernel_keeps(netlink: nl.Netlink, port: TapPort,
                                found: Link) -> TapPort:
    """Return the port of a guest as it can be: filtered, or as it was.

    Where the kernel refuses that, all else is to be mended all the same.
    """
    try:
        address_guard.ensure(netlink, port, found)
    except exception.TapMacError as error:
        if port.is_of_agent and found.group == port.agent_group:
            LOG.error('%s: its guest may be cut off, or kept to nothing but '
                      'its MAC, until it is plugged again: %s', port.name,
                      error)
            return port
        if found.group == port.filtered_group:
            LOG.error('%s: its guest is kept to the addresses of its last '
                      'plug, if to any: %s', port.name, error)
            return dataclasses.replace(port, addresses=None)
        LOG.error('%s: its guest is kept to its MAC only, and not to its '
                  'addresses: %s', port.name, error)
        return _unfiltered(port)
    return port


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
    _require_same_vif(port, found_mark)
    faults = _faults(netlink, port, found, found_mark)
    if port.create_tap and (found_mark is None or faults):
        LOG.info('%s is made anew: %s', port.name,
                 '; '.join(faults) or 'it has no mark of tapmac')
        if port.is_filtered and port.addresses is None:
            port = dataclasses.replace(
                port, addresses=address_guard.known_addresses(found,
                                                              port.vif_id))
        return making.make(netlink, port, limits, instead_of=found)
    on_bridge = bridge.ensure(netlink, port, bridge.find(netlink, port))
    if found_mark is not None and faults:
        if not removing.delete_idle(netlink, found):
            raise converging.Overtaken(exception.VerifyFailed(
                device=port.name, differences='somebody else was removing it, '
                'too'))
        LOG.info('%s is removed, and libvirt makes it anew: %s', port.name,
                 '; '.join(faults))
        return None
    address_guard.ensure(netlink, port, found)
    converging.converge(netlink, port, limits, on_bridge, found,
                        converging.wanted_fields(
                            port, found_mark or _new_mark(port, found)))
    return None


def _require_same_vif(port: TapPort,
                      found_mark: mark.TapMark | None) -> None:
    """Check that the TAP is no other VIF's, or two guests share one wire.

    :raises DeviceConflict: it is, whether its guest holds it or not
    """
    if found_mark is not None and found_mark.vif_id != port.vif_id:
        raise exception.DeviceConflict(
            device=port.name,
            reason='the TAP of another VIF, %s, has this name'
            % found_mark.vif_id,
            remedy='unplug that VIF first, or give one of the two another '
                   'name')


def _new_mark(port: TapPort, found: Link) -> mark.TapMark | None:
    """Return a mark for a TAP of this VIF that has lost its own, else None.

    When it was made is not known any more.
    """
    if not port.has_nova_name or not mark.is_lost(found, port.groups):
        return None
    LOG.warning('%s had lost the mark of tapmac, and has it again. Its alias '
                'was %r: whatever writes it must leave the TAPs of link group '
                '%d alone.', port.name, found.alias or '', found.group)
    return mark.TapMark(port.vif_id, port.guest_mac, port.bridge,
                        int(time.time()))


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
    if found_mark is not None and not adopting.is_of_libvirt(found):
        facts = {'owner': port.owner, 'persistent': True}
        if port.create_tap:  # Else nobody said how many queues there are.
            facts['multi_queue'] = port.multi_queue
        if found.differences(facts):
            faults.append(found.explain(facts))
    return faults
