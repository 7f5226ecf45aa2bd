# SPDX-License-Identifier: Apache-2.0

"""What a TAP's port on its bridge shall be, and whether this kernel can."""

import errno
import typing

from vif_plug_tapmac import exception
from vif_plug_tapmac.kernel.link import Link
from vif_plug_tapmac.wanted.port import TapPort
from vif_plug_tapmac.wanted import port_options


def wanted_options(port: TapPort,
                   arriving: bool) -> dict[str, typing.Any]:
    """Return the fields of a :class:`Link` that the port shall have.

    :param arriving: what :func:`guard.is_arriving` returned
    """
    locked = port.is_guarded and not arriving
    decided = {'learning': not locked, 'locked': locked}
    return {each.field: getattr(port, each.option) if each.is_configured
            else decided[each.field] for each in port_options.TABLE}


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
