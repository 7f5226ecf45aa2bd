# SPDX-License-Identifier: Apache-2.0

"""All that root can change on a TAP, its port, its bridge and its uplink.

By numbers of the kernel's own, and not by the tables of the package: what is
not there is to be missed here.
Source: include/uapi/linux/if_link.h, linux/if.h, linux/neighbour.h
"""

import array
import dataclasses
import fcntl
import pathlib
import socket
import struct
import sys
import typing

from tests import bpf
from tests import hosts
from vif_plug_tapmac.kernel import attributes
from vif_plug_tapmac.kernel import rtnetlink

HELD, IDLE, BRIDGE, UPLINK = 'tap00000001', 'tap00000002', 'br100', 'eth1'
OTHER_BRIDGE = 'br200'
GUEST_MACS = {HELD: 'fa:16:3e:00:00:01', IDLE: 'fa:16:3e:00:00:02'}
STRANGER = 'fa:16:3e:77:77:77'

_IFLA_LINKINFO, _KIND, _DATA, _SLAVE_KIND, _SLAVE_DATA = 18, 1, 2, 4, 5
_IFLA_AF_SPEC, _IFLA_PROP_LIST, _ALT_IFNAME = 26, 52, 53
_REACHABLE, _NOARP, _PERMANENT = 0x02, 0x40, 0x80
_SELF, _MASTER, _EXT_LEARNED, _STICKY = 0x02, 0x04, 0x10, 0x40
#: Source: include/uapi/linux/sockios.h, linux/ethtool.h
_SIOCETHTOOL, _ETHTOOL_SGSO = 0x8946, 0x24
_PROC = pathlib.Path('/proc/sys/net')

#: Of a port: number, size, a value that it never has.
_OF_PORT = {
    'priority': (2, 2, 10), 'hairpin': (4, 1, 1), 'guard': (5, 1, 1),
    'root_block': (6, 1, 1), 'fast_leave': (7, 1, 1), 'learning': (8, 1, 1),
    'flood': (9, 1, 0), 'proxy_arp': (10, 1, 1), 'proxy_arp_wifi': (12, 1, 1),
    'mcast_router': (25, 1, 2), 'mcast_flood': (27, 1, 0),
    'mcast_to_unicast': (28, 1, 1), 'vlan_tunnel': (29, 1, 1),
    'bcast_flood': (30, 1, 0), 'group_fwd_mask': (31, 2, 0x4000),
    'neigh_suppress': (32, 1, 1), 'isolated': (33, 1, 1),
    'mcast_eht_hosts_limit': (37, 4, 5), 'locked': (39, 1, 0),
    'mab': (40, 1, 1), 'mcast_max_groups': (42, 4, 5),
    'neigh_vlan_suppress': (43, 1, 1), 'backup_nhid': (44, 4, 7)}
#: Of a port of an uplink, what keeps frames back, sends them to others than
#: they are for, or answers for others.
_OF_UPLINK_PORT = {
    'hairpin': (4, 1, 1), 'learning': (8, 1, 0), 'proxy_arp': (10, 1, 1),
    'proxy_arp_wifi': (12, 1, 1), 'neigh_suppress': (32, 1, 1),
    'flood': (9, 1, 0), 'mcast_flood': (27, 1, 0), 'bcast_flood': (30, 1, 0),
    'vlan_tunnel': (29, 1, 1), 'isolated': (33, 1, 1), 'locked': (39, 1, 1)}
#: Of a bridge, likewise.
_OF_BRIDGE = {
    'forward_delay': (1, 4, 500), 'hello_time': (2, 4, 300),
    'max_age': (3, 4, 1000), 'ageing_time': (4, 4, 100),
    'stp_state': (5, 4, 1), 'priority': (6, 2, 4096),
    'vlan_filtering': (7, 1, 1), 'vlan_protocol': (8, 2, b'\x88\xa8'),
    'group_fwd_mask': (9, 2, 8), 'group_addr': (20, 6, bytes.fromhex(
        '0180c2000005')), 'mcast_router': (22, 1, 2),
    'mcast_snooping': (23, 1, 1), 'mcast_query_use_ifaddr': (24, 1, 1),
    'mcast_querier': (25, 1, 1), 'nf_call_iptables': (36, 1, 1),
    'nf_call_ip6tables': (37, 1, 1), 'nf_call_arptables': (38, 1, 1),
    'vlan_default_pvid': (39, 2, 7), 'vlan_stats': (41, 1, 1),
    'mcast_stats': (42, 1, 1), 'mcast_igmp_version': (43, 1, 3),
    'mcast_mld_version': (44, 1, 2), 'vlan_stats_per_port': (45, 1, 1),
    **{name: (46, 8, 2 * bit.to_bytes(4, sys.byteorder)) for name, bit in {
        'no_linklocal_learn': 1, 'mcast_vlan_snooping': 2, 'mst': 4}.items()},
    'fdb_max_learned': (49, 4, 9)}
_TIMERS_OF_BRIDGE = {
    'hash_max': (27, 4, 1024), 'last_member_count': (28, 4, 3),
    'startup_query_count': (29, 4, 3), 'last_member_interval': (30, 8, 200),
    'membership_interval': (31, 8, 30000),
    'querier_interval': (32, 8, 30000), 'query_interval': (33, 8, 13000),
    'query_response_interval': (34, 8, 2000),
    'startup_query_interval': (35, 8, 4000)}
#: Flags: bit, and what it is by default.
_FLAGS = {'promisc': (0x100, 1), 'allmulti': (0x200, 1), 'noarp': (0x80, 1),
          'no multicast': (0x1000, 0), 'down': (0x1, 0)}
_IDLE_FLAGS = {'debug': (0x4, 1), 'notrailers': (0x20, 1),
               'dynamic': (0x8000, 1)}
#: Sysctls of IPv4: a value that is not the default.
_IPV4 = {'accept_local': 1, 'accept_redirects': None,
         'accept_source_route': None, 'arp_accept': 1, 'arp_announce': 0,
         'arp_evict_nocarrier': 0, 'arp_filter': 1, 'arp_ignore': 0,
         'arp_notify': 1, 'bc_forwarding': 1, 'bootp_relay': 1,
         'disable_policy': 1, 'disable_xfrm': 1, 'drop_gratuitous_arp': 1,
         'drop_unicast_in_l2_multicast': 1, 'force_igmp_version': 2,
         'forwarding': None, 'ignore_routes_with_linkdown': 1,
         'log_martians': 1, 'medium_id': 5, 'promote_secondaries': None,
         'proxy_arp': 1, 'proxy_arp_pvlan': 1, 'route_localnet': 1,
         'rp_filter': None, 'secure_redirects': None, 'send_redirects': None,
         'shared_media': None, 'src_valid_mark': 1, 'tag': 3}
#: Of these, what has IP answer, or take what is not for it.
_IPV4_ANSWERS = ('accept_local', 'arp_accept', 'arp_announce', 'arp_ignore',
                 'bc_forwarding', 'proxy_arp', 'proxy_arp_pvlan',
                 'route_localnet')
_IPV6 = ('accept_ra', 'forwarding', 'hop_limit', 'proxy_ndp', 'use_tempaddr',
         'accept_redirects', 'autoconf', 'dad_transmits')

#: Why nothing is wrong where these are changed. Each kind was looked up in the
#: kernel; the list is short, and stays so.
HARMLESS = {
    'cost of a port':
        'only STP compares it, which is off: net/bridge/br_stp.c, '
        'br_should_become_root_port',
    'sysctls of a TAP':
        'IP sees only frames to 01:80:c2:00:00:0e there, which it never '
        'forwards, and answers none: net/bridge/br_input.c, br_handle_frame; '
        'net/ipv4/ip_forward.c, ip_forward',
    'sizes':
        'of queues and of what is split, and where, for speed: '
        'drivers/net/tun.c, tun_queue_resize; net/core/dev.h, '
        'netif_set_gso_max_size; net/core/dev.c, validate_xmit_skb',
    'another name':
        'one more by which it is found: net/core/dev.c, '
        'netdev_name_node_alt_create',
    'what is off':
        'snooping, and VLANs, for which the bridge would have to filter: '
        'net/bridge/br_multicast.c, br_multicast_rcv; net/bridge/br_vlan.c, '
        'br_allowed_ingress',
    'IPv6 of a bridge':
        'it is off: net/ipv6/ip6_input.c, ip6_rcv_core',
    'the host\'s own':
        'addresses of a bridge, and what no plug sets of an uplink; EVPN puts '
        'entries there: net/ipv4/devinet.c, inet_rtm_newaddr; '
        'net/bridge/br_fdb.c, br_fdb_add',
    'carrier':
        'the kernel does not tell who holds a TAP of one queue, so that it is '
        'as if nobody did: drivers/net/tun.c, tun_net_change_carrier, '
        'tun_fill_info',
    'what nobody looks at':
        'a TAP takes whatever its guest sends, for whatever MAC, and an entry '
        'that is fixed stays so: drivers/net/tun.c, tun_net_mclist; '
        'net/core/dev.c, __dev_change_flags; net/bridge/br_fdb.c, '
        'br_fdb_external_learn_add',
    'no backup':
        'as before its bridge had an uplink; only while nobody holds it: '
        'net/bridge/br_forward.c, br_forward',
}


@dataclasses.dataclass(frozen=True)
class Change:
    """One thing that is changed.

    :param device: what it concerns
    :param what: in words
    :param make: does it, and returns what undoes it, or None
    :param harmless: a key of :data:`HARMLESS`
    :param follows: a look at the host does not show it, as what follows the
        carrier
    :param anew: a repair makes the device anew for it
    """
    device: str
    what: str
    make: typing.Callable[[hosts.Host], typing.Any]
    harmless: str | None = None
    follows: bool = False
    anew: bool = False

    def __str__(self) -> str:
        return '%s: %s' % (self.device, self.what)


def _value(size: int, value: int | bytes) -> bytes:
    return (value if isinstance(value, bytes)
            else value.to_bytes(size, sys.byteorder))


def _send(kind: int, body: bytes, flags: int = 0) -> None:
    netlink = rtnetlink.Socket()
    try:
        netlink.set(kind, body, flags)
    finally:
        netlink.close()


def _told(index: int) -> rtnetlink.LinkMessage:
    netlink = rtnetlink.Socket()
    try:
        return rtnetlink.LinkMessage(netlink.get(
            rtnetlink.GET_LINK, rtnetlink.link(index), rtnetlink.NEW_LINK))
    finally:
        netlink.close()


def _set(device: str, *parts: bytes, flags: int = 0, change: int = 0,
         inside: tuple[int, int] | None = None,
         ) -> typing.Callable[[hosts.Host], typing.Any]:
    """Return what sets these, and returns what sets them back.

    :param inside: in what of IFLA_LINKINFO, and where that has its kind
    """
    def send(index: int, values: typing.Iterable[bytes], flags: int) -> None:
        if inside is not None:
            values = [attributes.attribute(
                _IFLA_LINKINFO, attributes.text(inside[1], 'bridge')
                + attributes.attribute(inside[0], b''.join(values)))]
        _send(rtnetlink.NEW_LINK, rtnetlink.link(
            index, *values, flags=flags, change=change))

    def make(host: hosts.Host) -> typing.Any:
        index = host.link(device).index
        told = _told(index)
        place = told.attributes if inside is None else (
            told.attributes.nested(_IFLA_LINKINFO).nested(inside[0]))
        former = [attributes.attribute(number, place.octets(number) or b'')
                  for part in parts for number, _ in attributes.every(part)]
        send(index, parts, flags)
        return lambda: send(index, former, told.flags)
    return make


def _port(device: str, options: dict[str, typing.Any],
          harmless: str | None = None) -> typing.Iterator[Change]:
    for name, (number, size, value) in options.items():
        yield Change(device, 'port %s' % name, _set(
            device, attributes.attribute(number, _value(size, value)),
            inside=(_SLAVE_DATA, _SLAVE_KIND)), harmless)


def _bridge(options: dict[str, typing.Any],
            harmless: str | None = None) -> typing.Iterator[Change]:
    for name, (number, size, value) in options.items():
        yield Change(BRIDGE, 'bridge %s' % name, _set(
            BRIDGE, attributes.attribute(number, _value(size, value)),
            inside=(_DATA, _KIND)), harmless)


def _flags(device: str, flags: dict[str, tuple[int, int]],
           harmless: str | None = None) -> typing.Iterator[Change]:
    for name, (bit, value) in flags.items():
        yield Change(device, name, _set(
            device, flags=bit if value else 0, change=bit), harmless)


def _sysctl(device: str, family: str, name: str, value: int | None,
            ) -> typing.Callable[[hosts.Host], typing.Any]:
    def write(host: hosts.Host) -> typing.Any:
        path = _PROC / family / 'conf' / device / name
        former = path.read_text()
        path.write_text(str(1 - min(int(former), 1)
                            if value is None else value))
        return lambda: path.write_text(former)
    return write


def _fdb(device: str, mac: str, state: int, flags: int,
         kind: int = rtnetlink.NEW_NEIGHBOUR,
         ) -> typing.Callable[[hosts.Host], None]:
    return lambda host: _send(kind, rtnetlink.neighbour(
        host.link(device).index, attributes.mac(2, mac), state=state,
        flags=flags), rtnetlink.CREATE | rtnetlink.REPLACE
        if kind == rtnetlink.NEW_NEIGHBOUR else 0)


def _address(device: str, **address: typing.Any,
             ) -> typing.Callable[[hosts.Host], typing.Any]:
    return lambda host: host.ip.addr('add', index=host.link(device).index,
                                     **address)


def _join(device: str, bridge: str) -> typing.Callable[[hosts.Host],
                                                       typing.Any]:
    return lambda host: host.set(device, master=host.link(bridge).index)


def _of_device(device: str) -> typing.Iterator[Change]:
    """Yield what is the same for each device of ours."""
    for name, parts in {
            'MAC': attributes.mac(1, '52:54:00:00:00:07'),
            'broadcast': attributes.mac(2, STRANGER),
            'MTU smaller': attributes.number(4, 1400),
            'alias': attributes.text(20, 'rack 7'),
            'group': attributes.number(27, 7),
            'link mode': attributes.octet(17, 1)}.items():
        yield Change(device, name, _set(device, parts))
    for name, parts in {
            'longer queue': attributes.number(13, 5000),
            'gso_max_size': attributes.number(41, 30000),
            'gso_max_segs': attributes.number(40, 10),
            'gro_max_size': attributes.number(58, 30000),
            'gso_ipv4_max_size': attributes.number(63, 30000),
            'gro_ipv4_max_size': attributes.number(64, 30000)}.items():
        yield Change(device, name, _set(device, parts), 'sizes')
    yield Change(device, 'proto_down', _set(device, attributes.octet(39, 1)))
    yield Change(device, 'altname', _another_name(device), 'another name')
    yield from _flags(device, _FLAGS)
    yield from _flags(device, _IDLE_FLAGS, 'what nobody looks at')


def _another_name(device: str) -> typing.Callable[[hosts.Host], typing.Any]:
    def make(host: hosts.Host) -> typing.Any:
        body = rtnetlink.link(host.link(device).index, attributes.attribute(
            _IFLA_PROP_LIST | attributes.NESTED,
            attributes.text(_ALT_IFNAME, 'another-name-of-it')))
        _send(rtnetlink.NEW_PROPERTY, body)
        return lambda: _send(rtnetlink.DELETE_PROPERTY, body)
    return make


def of_tap(device: str) -> typing.Iterator[Change]:
    """Yield what can be changed on a TAP, its port and its FDB."""
    yield from _of_device(device)
    yield from _port(device, _OF_PORT)
    yield from _port(device, {'cost': (3, 4, 7)}, 'cost of a port')
    other = IDLE if device == HELD else HELD
    yield Change(device, 'port backup', lambda host: hosts.set_port_options(
        host.link(device).index, BACKUP_PORT=host.link(other).index))
    yield Change(device, 'port without backup',
                 lambda host: hosts.set_port_options(
                     host.link(device).index, BACKUP_PORT=0), 'no backup')
    if device == HELD:
        # The kernel says so of those that nobody holds.
        yield Change(device, 'port state', lambda host: hosts.set_port_state(
            host.link(device).index, 0), follows=True)
        yield Change(device, 'dormant', _set(device, attributes.octet(16, 5)),
                     follows=True)
        yield Change(device, 'testing', _set(device, attributes.octet(16, 4)),
                     follows=True)
        yield Change(device, 'carrier', _set(device, attributes.octet(33, 0)),
                     'carrier')
    yield Change(device, 'MTU larger', _set(device, attributes.number(
        4, 9000)))
    yield Change(device, 'short queue', _set(device, attributes.number(13, 1)))
    yield Change(device, 'no alias', _set(device, attributes.text(20, '')))
    yield Change(device, 'no master', _set(device, attributes.number(10, 0)))
    yield Change(device, 'other master', _join(device, OTHER_BRIDGE),
                 anew=device == IDLE)
    yield Change(device, 'name', lambda host: host.rename(device, 'x'))
    yield Change(device, 'program', lambda host: bpf.attach(
        host.link(device).index))
    yield Change(device, 'addr_gen_mode', _set(device, attributes.attribute(
        _IFLA_AF_SPEC, attributes.attribute(
            socket.AF_INET6, attributes.octet(8, 0)))))
    yield Change(device, 'IPv6 address', _address(
        device, address='fe80::7', prefixlen=64))
    yield Change(device, 'IPv4 address', _address(
        device, address='192.0.2.7', prefixlen=24))
    for name, value in _IPV4.items():
        yield Change(device, 'ipv4 ' + name, _sysctl(
            device, 'ipv4', name, value),
            None if name in _IPV4_ANSWERS else 'sysctls of a TAP')
    for name in _IPV6:
        yield Change(device, 'ipv6 ' + name, _sysctl(
            device, 'ipv6', name, None),
            None if name == 'accept_ra' else 'sysctls of a TAP')
    yield Change(device, 'VLAN', _vlan(device), 'what is off',
                 follows=True)
    yield Change(device, 'segmentation', _offload(device), 'sizes',
                 follows=True)
    yield from _fdb_of_tap(device)


def _vlan(device: str) -> typing.Callable[[hosts.Host], typing.Any]:
    def change(host: hosts.Host, what: str) -> None:
        host.ip.vlan_filter(what, index=host.link(device).index,
                            vlan_info={'vid': 7})

    def make(host: hosts.Host) -> typing.Any:
        change(host, 'add')
        return lambda: change(host, 'del')
    return make


def _offload(device: str) -> typing.Callable[[hosts.Host], typing.Any]:
    """Return what switches the splitting of large frames off, and on."""
    def change(value: int) -> None:
        command = array.array('B', struct.pack('=II', _ETHTOOL_SGSO, value))
        request = struct.pack('16sP16x', device.encode(),
                              command.buffer_info()[0])
        with socket.socket() as any_socket:
            fcntl.ioctl(any_socket, _SIOCETHTOOL, request)

    def make(host: hosts.Host) -> typing.Any:
        change(0)
        return lambda: change(1)
    return make


def _fdb_of_tap(device: str) -> typing.Iterator[Change]:
    mac = GUEST_MACS[device]
    for name, state, flags in (
            ('static', _NOARP, _MASTER), ('permanent', _PERMANENT, _MASTER),
            ('sticky', _NOARP, _MASTER | _STICKY),
            ('dynamic', _REACHABLE, _MASTER),
            ('external', _REACHABLE, _MASTER | _EXT_LEARNED)):
        yield Change(device, 'FDB stranger ' + name, _fdb(
            device, STRANGER, state, flags))
        if name != 'sticky':
            yield Change(device, 'FDB guest ' + name, _fdb(
                device, mac, state, flags), 'what nobody looks at'
                if name == 'external' else None)
    yield Change(device, 'FDB guest gone', _fdb(
        device, mac, 0, _MASTER, rtnetlink.DELETE_NEIGHBOUR))
    yield Change(device, 'FDB guest at the uplink', _fdb(
        UPLINK, mac, _NOARP, _MASTER))
    yield Change(device, 'FDB guest at the host', _fdb(
        BRIDGE, mac, _PERMANENT, _SELF))
    yield Change(device, 'MAC of the device', _fdb(
        device, STRANGER, _PERMANENT, _SELF), 'what nobody looks at')


def of_bridge() -> typing.Iterator[Change]:
    """Yield what can be changed on a bridge."""
    yield from _of_device(BRIDGE)
    yield from _bridge(_OF_BRIDGE)
    yield from _bridge(_TIMERS_OF_BRIDGE, 'what is off')
    yield Change(BRIDGE, 'no alias', _set(BRIDGE, attributes.text(20, '')))
    yield Change(BRIDGE, 'MTU larger', _set(BRIDGE, attributes.number(
        4, 9000)))
    yield Change(BRIDGE, 'MTU without IPv6', _set(BRIDGE, attributes.number(
        4, 1200)))
    yield Change(BRIDGE, 'name', lambda host: host.rename(BRIDGE, 'x'))
    yield Change(BRIDGE, 'gone', lambda host: host.delete(BRIDGE))
    yield Change(BRIDGE, 'FDB stranger', _fdb(
        BRIDGE, STRANGER, _PERMANENT, _SELF))
    yield Change(BRIDGE, 'IPv4 address', _address(
        BRIDGE, address='192.0.2.7', prefixlen=24), 'the host\'s own')
    for name, value in _IPV4.items():
        yield Change(BRIDGE, 'ipv4 ' + name, _sysctl(
            BRIDGE, 'ipv4', name, value))
    yield Change(BRIDGE, 'ipv6 disable_ipv6', _sysctl(
        BRIDGE, 'ipv6', 'disable_ipv6', 0))
    for name in _IPV6:
        yield Change(BRIDGE, 'ipv6 ' + name, _sysctl(
            BRIDGE, 'ipv6', name, None), 'IPv6 of a bridge')


def _pull_the_cable(host: hosts.Host) -> typing.Any:
    host.set('wire', state='down')
    return lambda: host.set('wire', state='up')


def of_uplink() -> typing.Iterator[Change]:
    """Yield what can be changed on an uplink."""
    yield from _port(UPLINK, _OF_UPLINK_PORT)
    yield Change(UPLINK, 'port state', lambda host: hosts.set_port_state(
        host.link(UPLINK).index, 0), follows=True)
    yield Change(UPLINK, 'MAC', _set(UPLINK, attributes.mac(
        1, '52:54:00:00:00:07')))
    yield Change(UPLINK, 'MTU smaller', _set(UPLINK, attributes.number(
        4, 1400)))
    yield Change(UPLINK, 'no master', _set(UPLINK, attributes.number(10, 0)))
    yield Change(UPLINK, 'other master', _join(UPLINK, OTHER_BRIDGE))
    yield Change(UPLINK, 'name', lambda host: host.rename(UPLINK, 'x'))
    for name, parts in {'alias': attributes.text(20, 'rack 7'),
                        'group': attributes.number(27, 7)}.items():
        yield Change(UPLINK, name, _set(UPLINK, parts), 'the host\'s own')
    yield from _flags(UPLINK, {'promisc': (0x100, 1)}, 'the host\'s own')
    yield from _flags(UPLINK, {'down': (0x1, 0)})
    yield Change(UPLINK, 'no carrier', _pull_the_cable, follows=True)
    yield from _port(UPLINK, {'cost': (3, 4, 7)}, 'cost of a port')
    yield Change(UPLINK, 'FDB stranger', _fdb(
        UPLINK, STRANGER, _NOARP, _MASTER), 'the host\'s own')
