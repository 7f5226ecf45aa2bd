# SPDX-License-Identifier: Apache-2.0

"""Keeping guests from the host that their bridge is on.

The host takes part in each of its bridges: it answers ARP there, and takes
IPv4 packets for any address it has. A rule of nftables drops what comes to it
from ports in the link groups of guests' TAPs: in the table bridge tapmac, and
in those beside it. A TAP is in the group from the message on that makes it a
port, so no port is ever without, and there is nothing to add for it and to
remove.
"""

import contextlib
import errno

from vif_plug_tapmac import exception
from vif_plug_tapmac.kernel import filter_table
from vif_plug_tapmac.kernel import guest_filter
from vif_plug_tapmac.kernel import netlink as nl
from vif_plug_tapmac.kernel import shields
from vif_plug_tapmac.wanted.port import TapPort

# How the kernel says that it lacks nf_tables, or the bridge family of it: no
# such protocol, subsystem, family, or type of chain.
_MISSING = (errno.EPROTONOSUPPORT, errno.EOPNOTSUPP, errno.EINVAL,
            errno.EAFNOSUPPORT, errno.ENOENT)
#: Whether this process has looked for what another configuration left.
_looked = False


def ensure(netlink: nl.Netlink, port: TapPort, service: str = '') -> None:
    """Have guests of the port's link groups kept from the host, or not.

    What the service does not want any more is looked for once in a process.
    That of another service, or another link group, is none of its business.

    :param service: that wants it: :attr:`Limits.service`
    :raises KernelRefused: this kernel cannot do that
    :raises VerifyFailed: it is not so after it was done
    """
    global _looked
    if port.host_shield:
        _require(netlink, port.groups.shielded_with(port.group), service)
    elif not _looked:
        with contextlib.suppress(exception.KernelRefused):
            guest_filter.of_this_process.unshield(port.groups, service)
        _looked = True


def _require(netlink: nl.Netlink, groups: tuple[int, ...],
             service: str) -> None:
    try:
        if not guest_filter.of_this_process.shield(netlink, groups, service):
            return
        if all(shields.is_shielded(group, service) for group in groups):
            return
    except exception.KernelRefused as error:
        if error.kwargs.get('code') not in _MISSING:
            raise
        raise exception.KernelRefused(
            device='nftables', step='keeping guests from this host',
            code=errno.EOPNOTSUPP, error=error.kwargs['error'],
            remedy='load nf_tables (CONFIG_NF_TABLES_BRIDGE, '
                   'CONFIG_NF_TABLES_INET and CONFIG_NF_TABLES_ARP), or set '
                   'host_shield of [os_vif_tapmac] to false')
    raise exception.VerifyFailed(
        device='nftables', differences='a table %s is removed again'
        % filter_table.NAME)
