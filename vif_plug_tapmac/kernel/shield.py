# SPDX-License-Identifier: Apache-2.0

"""Keeping guests from the host that their bridge is on.

The host takes part in each of its bridges: it answers ARP there, and takes
IPv4 packets for any address it has. One rule of nftables drops what comes to
it from ports in the link group of guests' TAPs: in the bridge family, and in
those of IP and ARP, for what a bridge leaves to the port itself. A TAP is
in the group from the message on that makes it a port, so no port is ever
without, and there is nothing to add for it and to remove.

Each service on this host has a rule of its own, also where they share the
group: it stays as long as one of them wants it.
"""

import errno

from vif_plug_tapmac import exception
from vif_plug_tapmac.kernel import nftables
from vif_plug_tapmac.wanted.port import TapPort

# How the kernel says that it lacks nf_tables, or the bridge family of it: no
# such protocol, subsystem, family, or type of chain.
_MISSING = (errno.EPROTONOSUPPORT, errno.EOPNOTSUPP, errno.EINVAL,
            errno.EAFNOSUPPORT, errno.ENOENT)
#: Whether this process has looked for what another configuration left.
_looked = False


def ensure(port: TapPort, service: str = '') -> None:
    """Have the service's own rule, or not, as the port says.

    One that it does not want any more is looked for once in a process. That of
    another service, or another link group, is none of its business.

    :param service: whose rule: :attr:`Limits.service`
    :raises KernelRefused: this kernel cannot do that
    :raises VerifyFailed: the rule is not there after it was made
    """
    global _looked
    if port.host_shield:
        # Those that are not filtered yet, and will be, are in the other one.
        for group in port.groups if port.is_filtered else (port.link_group,):
            _require(group, service)
    elif not _looked:
        for group in port.groups:
            nftables.unshield_host(group, service)
        _looked = True


def _require(group: int, service: str) -> None:
    try:
        if nftables.is_host_shielded(group, service):
            return
        nftables.shield_host(group, service)
        if nftables.is_host_shielded(group, service):
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
        % nftables.SHIELD)
