# SPDX-License-Identifier: Apache-2.0

"""What a TAP and its port on a bridge shall be, and whether this kernel can.

Beside name, MAC, MTU, mark, group and bridge, which each has for itself.
"""

import errno
import typing

from vif_plug_tapmac import exception
from vif_plug_tapmac.kernel import link as link_data
from vif_plug_tapmac.kernel.link import Link
from vif_plug_tapmac.kernel import settings
from vif_plug_tapmac.kernel import sysctl
from vif_plug_tapmac.wanted.port import TapPort
from vif_plug_tapmac.wanted import port_options


#: Of what tapmac made, TAP or bridge: how the kernel has it when it is made.
DEVICE = {'arp': True, 'promisc': False, 'allmulti': False,
          'multicast': True, 'broadcast': 'ff:ff:ff:ff:ff:ff', 'link_mode': 0}
#: Of a TAP: what the host has to do with it itself. A bridge leaves frames to
#: 01:80:c2:00:00:0e to its port, where IP takes what is in them: an address
#: that is asked for, or a router advertisement.
#: Source: net/bridge/br_input.c, br_handle_frame
_IPV4 = {field: right for field, (_, right) in settings.IPV4.items()}
#: Of its port, whatever the options say.
_DEFAULTS = {'newer_options': (), **{
    each.field: each.right for each in settings.PORT_DEFAULTS}}


def wanted_of_device(link: Link) -> dict[str, typing.Any]:
    """Return the fields that a TAP of ours shall have.

    :param link: as it is
    """
    wanted = dict(DEVICE, oper_state=link_data.OPER_UP
                  if link.is_put_to_sleep else link.oper_state)
    wanted.update((field, right) for field, right in _IPV4.items()
                  if getattr(link, field) is not None)
    if link.takes_ra is not None and sysctl.is_writable():
        wanted['takes_ra'] = False
    return wanted


def wanted_defaults(link: Link) -> dict[str, typing.Any]:
    """Return the fields that a port shall have, whatever the options say.

    :param link: as it is: what this kernel does not tell is not wanted
    """
    return {field: value for field, value in _DEFAULTS.items()
            if getattr(link, field) is not None}


def wanted_state(link: Link, on_bridge: Link) -> dict[str, typing.Any]:
    """Return the state that a port shall have; nothing if the kernel says.

    Which it does where STP runs, and for a port that is not in use. It never
    takes a port of which it said so out of use by itself.
    Source: net/bridge/br_stp.c, br_set_port_state; net/bridge/br.c,
    br_device_event
    """
    if (link.master != on_bridge.index or not link.is_operational
            or link.port_state is None or not on_bridge.up or on_bridge.stp):
        return {}
    return {'port_state': link_data.FORWARDING}


def wanted_options(port: TapPort,
                   arriving: bool) -> dict[str, typing.Any]:
    """Return the fields of a :class:`Link` that the port shall have.

    :param arriving: what :func:`guard.is_arriving` returned
    """
    locked = port.is_guarded and not arriving
    decided = {'learning': not locked, 'locked': locked}
    return {**_DEFAULTS, **{
        each.field: getattr(port, each.option) if each.is_configured
        else decided[each.field] for each in port_options.TABLE}}


def require_kernel(link: Link, differing: dict[str, typing.Any]) -> None:
    """Check that this kernel has the options that are to be set.

    :param link: a port as it was read
    :param differing: what is to be set, by the fields of a :class:`Link`
    :raises KernelRefused: it does not tell of one, so it would ignore it
    """
    for each in port_options.TABLE:
        if each.field in differing and getattr(link, each.field) is None:
            raise exception.KernelRefused(
                device=link.name,
                step='setting %s, for %s' % (each.field, each.option),
                code=errno.EOPNOTSUPP,
                error='no effect, because this kernel has no such option for '
                      'ports of bridges (%s came with Linux %d.%d)'
                      % (each.field, *each.since),
                remedy='boot a newer kernel, or leave %s of [os_vif_tapmac] '
                       'as the kernel has it (anti_spoofing = none)'
                       % each.option)
