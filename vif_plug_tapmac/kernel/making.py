# SPDX-License-Identifier: Apache-2.0

"""Making a TAP that outlives us only if every step went well."""

import contextlib
import dataclasses
import logging
import time

from vif_plug_tapmac import exception
from vif_plug_tapmac.kernel import address_guard
from vif_plug_tapmac.kernel import bridge
from vif_plug_tapmac.kernel import bridge_health
from vif_plug_tapmac.kernel import converging
from vif_plug_tapmac.kernel.link import Link
from vif_plug_tapmac.kernel import netlink as nl
from vif_plug_tapmac.kernel import removing
from vif_plug_tapmac.kernel import tun
from vif_plug_tapmac.kernel import udev
from vif_plug_tapmac import mac
from vif_plug_tapmac import mark
from vif_plug_tapmac.wanted.limits import Limits
from vif_plug_tapmac.wanted import names
from vif_plug_tapmac.wanted.port import TapPort

LOG = logging.getLogger(__name__)


def make(netlink: nl.Netlink, port: TapPort, limits: Limits,
         instead_of: Link | None = None) -> str:
    """Make the TAP; it outlives us only if every step went well.

    It gets its own name together with its mark, so that whoever finds a TAP of
    this name knows whose it is; until then nobody can know how to attach to
    it. Whatever may fail for lack of something comes first, so that a bridge
    is made, or an old TAP given up, only for a TAP that will be there.

    :param instead_of: a TAP that goes unless somebody holds it
    :raises Held: somebody does; it is as it was
    """
    if port.is_filtered and port.addresses is None:
        raise exception.DeviceConflict(
            device=port.name, reason='the addresses that its guest is to be '
            'kept to (anti_spoofing = full) are not known here',
            remedy='have nova-compute plug it: start it again, or hard reboot '
                   'the instance')
    found_bridge = bridge.find(netlink, port)
    made_after = udev.now()
    with tun.TunDevice(port.name) as device, contextlib.ExitStack() as undo:
        name = names.unguessable()
        device.create(name, port.multi_queue, port.owner)
        # At once, before udev looks.
        device.set_mac(mac.tap_mac(port.guest_mac))
        link = converging.require_tap(netlink.find(name, port.name), port,
                                      name)
        # Closing is not enough where a stranger got in before the owner was
        # set: his queue keeps the TAP alive, and him on the guest's wire.
        undo.callback(address_guard.forget, [link], None)
        undo.callback(_discard, netlink, device, port, link)
        converging.require_sole_user(port, link)
        # What a kernel lacks is known now, before anything else is touched.
        address_guard.ensure(netlink, port, link)
        tap_mark = mark.TapMark(port.vif_id, port.guest_mac, port.bridge,
                                int(time.time()))
        wanted = dict(converging.wanted_fields(port, tap_mark), name=port.name)
        on_bridge = bridge.ensure(netlink, port, found_bridge)
        if instead_of is not None:
            _give_up(netlink, port, instead_of)
        link = converging.converge(netlink, port, limits, on_bridge, link,
                                   wanted)
        if limits.udev_timeout and udev.is_running():
            udev.wait_for(link, port.name, made_after, limits.udev_timeout)
            link = converging.converge_again(netlink, port, limits,
                                             on_bridge, link, wanted)
        converging.require_sole_user(port, link)
        converging.require_bridge_name(port, on_bridge)
        device.persist()
        undo.pop_all()
    bridge_health.warn_if_nearly_full(on_bridge, link)
    return '%s made for guest %s: %s on bridge %s' % (
        port.name, port.guest_mac, link.mac, port.bridge)


def is_being_made(link: Link) -> bool:
    """Return whether a plug is at work on this TAP just now.

    It is persistent when it is finished. It has its mark before it has its
    name, and another name before that. One without an owner was adopted.
    """
    return (link.is_tap and link.held and not link.persistent
            and (link.name.startswith(names.UNGUESSABLE)
                 or link.owner is not None
                 and mark.TapMark.parse(link.alias) is not None))


def _give_up(netlink: nl.Netlink, port: TapPort, former: Link) -> None:
    if not removing.delete_idle(netlink, former):
        raise converging.Overtaken(exception.VerifyFailed(
            device=port.name, differences='it was to be made anew, and '
            'somebody else was at it, too'))
    address_guard.forget([former], port.groups)


def _discard(netlink: nl.Netlink, device: tun.TunDevice, port: TapPort,
             link: Link) -> None:
    """Remove what did not become a TAP.

    But one that has its name, and several queues, may have a guest already,
    who was sooner than we were through: it is his.
    """
    try:
        if not port.multi_queue or not nl.is_named(link.index, port.name):
            netlink.delete(link)
            return
        try:
            removing.delete_idle(
                netlink, dataclasses.replace(link, name=port.name), 1)
        except removing.Held:
            LOG.warning('%s stays, though its plug failed: a guest uses it '
                        'already; the next plug mends it', port.name)
            device.persist()
    except exception.TapMacError as error:
        LOG.warning('%s could not be removed after a failed plug: %s',
                    link.name, error)
