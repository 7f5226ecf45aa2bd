# SPDX-License-Identifier: Apache-2.0

"""Whether this kernel can do something: tried, for a process to say.

In a network namespace of its own, so that nothing changes. Without privilege
it is one of a user namespace, where the kernel allows these. Run by
:mod:`vif_plug_tapmac.startup`, with one of :data:`TRIALS` as its argument; its
exit status is the answer, its words are the reason.
"""

import ctypes
import errno
import os
import sys

from vif_plug_tapmac import exception
from vif_plug_tapmac.kernel import conntrack
from vif_plug_tapmac.kernel import filter_state
from vif_plug_tapmac.kernel import guest_filter
from vif_plug_tapmac.kernel.link import Link
from vif_plug_tapmac.kernel import netlink as nl
from vif_plug_tapmac.kernel import shields
from vif_plug_tapmac.kernel import source_filter
from vif_plug_tapmac.wanted import rules

#: Exit statuses.
CAN, CANNOT, UNKNOWN = 0, 10, 20
#: Source: include/uapi/linux/sched.h
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_MAC = '02:00:00:00:00:00'
# How the kernel says that it lacks something.
_LACKS = (errno.ENOENT, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT,
          errno.EAFNOSUPPORT)


def _filter(netlink: nl.Netlink) -> str:
    link = _require(netlink, 'lo')
    source_filter.put(netlink, link, _MAC)
    return '' if source_filter.is_there(netlink, link, _MAC) else (
        'the filter is not there after it was put')


def _lock(netlink: nl.Netlink) -> str:
    netlink.create_bridge('bridge', _MAC, 0, None)
    netlink.create_cable('port')
    link = _require(netlink, 'port')
    netlink.change(link, {'master': _require(netlink, 'bridge').index})
    return '' if _require(netlink, 'port').locked is not None else (
        'it came with Linux 5.18')


def _shield(netlink: nl.Netlink) -> str:
    guest_filter.of_this_process.shield(netlink, [1], '')
    return '' if shields.is_shielded(1) else (
        'the rule is not there after it was made')


def _addresses(netlink: nl.Netlink) -> str:
    guest_filter.of_this_process.put(
        netlink, 1, rules.of_port('', _MAC, ['192.0.2.1', '2001:db8::1']), 1,
        0)
    return '' if filter_state.state().is_right else (
        'the table is another one after it was made')


def _vlan(netlink: nl.Netlink) -> str:
    netlink.create_bridge('bridge', _MAC, 0, None)
    netlink.create_vlan('bridge.1', _require(netlink, 'bridge'), 1)
    return ''


def _connections(netlink: nl.Netlink) -> str:
    return '' if conntrack.probe() else (
        'CONFIG_NF_CONNTRACK_BRIDGE came with Linux 5.3')


def _require(netlink: nl.Netlink, name: str) -> Link:
    link = netlink.find(name)
    assert link is not None, name
    return link


#: What can be tried: to filter by the source, to lock a port of a bridge, to
#: keep guests from the host by nf_tables, and to their addresses, to make the
#: device of a VLAN, and to know connections on bridges. Each returns why not,
#: empty if it can.
TRIALS = {'filter': _filter, 'lock': _lock, 'shield': _shield,
          'addresses': _addresses, 'vlan': _vlan,
          'connections': _connections}


def main(what: str) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    if (libc.unshare(_CLONE_NEWNET) != 0
            and libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) != 0):
        print(os.strerror(ctypes.get_errno()))
        return UNKNOWN
    try:
        with nl.Netlink() as netlink:
            why = TRIALS[what](netlink)
        print(why)
        return CANNOT if why else CAN
    except exception.KernelRefused as error:
        print(error.kwargs['error'])
        return CANNOT if error.kwargs.get('code') in _LACKS else UNKNOWN


if __name__ == '__main__':
    sys.exit(main(sys.argv[1]))
