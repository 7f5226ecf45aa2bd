# SPDX-License-Identifier: Apache-2.0

"""What a bridge and its ports can be set to, and how tapmac has it.

The one description of right, beside what an option says (port_options.py):
what a plug makes, verifies and mends reads these tables, and so does an audit.
Pure: nothing here asks or tells the kernel anything.
"""

import socket
import sys
import typing

from vif_plug_tapmac.kernel import attributes
from vif_plug_tapmac.kernel.attributes import Attributes
from vif_plug_tapmac.wanted import port_options

Value = bool | int | bytes
#: Attributes. Source: include/uapi/linux/if_link.h
_IFLA_AF_SPEC, _INET_CONF, _INET6_ADDR_GEN_MODE = 26, 1, 8


class Setting(typing.NamedTuple):
    """One thing that the kernel is told, and tells, by a number.

    :param field: of a :class:`vif_plug_tapmac.kernel.link.Link`
    :param attribute: its number in netlink
    :param size: in bytes
    :param right: how tapmac has it. Its type is that of the field
    """
    field: str
    attribute: int
    size: int
    right: Value

    def write(self, value: Value) -> bytes:
        """Return the attribute that sets it."""
        return attributes.attribute(
            self.attribute, value if isinstance(value, bytes)
            else int(value).to_bytes(self.size, sys.byteorder))


class _Switches(Setting):
    """Several in one number, each set only if a second one says so.

    Which is not said of MST_ENABLE, that does not change while there are
    VLANs, and is refused then even if it is to be what it is.
    Source: include/uapi/linux/if_bridge.h, struct br_boolopt_multi;
    net/bridge/br_mst.c, br_mst_set_enabled
    """
    __slots__ = ()
    _ALL_BUT_MST_ENABLE = 0xffffffff & ~(1 << 2)

    def write(self, value: Value) -> bytes:
        return attributes.attribute(self.attribute, b''.join(
            int(each).to_bytes(self.size, sys.byteorder)
            for each in (value, self._ALL_BUT_MST_ENABLE)))


#: Of a port, what an option asks for: as the kernel has it when a port joins.
PORT_OPTIONS = tuple(Setting(each.field, each.attribute, 1, each.initial)
                     for each in port_options.TABLE)

#: Of a port, what no option asks for: likewise. What is not here is how it
#: does: its cost follows the speed, and counts where STP runs.
#: Source: include/uapi/linux/if_link.h, IFLA_BRPORT_...;
#: net/bridge/br_if.c, new_nbp
PORT_DEFAULTS = (
    Setting('priority', 2, 2, 32),
    Setting('bpdu_guard', 5, 1, False),
    Setting('root_block', 6, 1, False),
    Setting('fast_leave', 7, 1, False),
    Setting('arp_proxy', 10, 1, False),
    Setting('arp_proxy_wifi', 12, 1, False),
    Setting('multicast_router', 25, 1, 1),
    Setting('multicast_to_unicast', 28, 1, False),
    Setting('vlan_tunnel', 29, 1, False),
    Setting('group_forward_mask', 31, 2, 0),
    Setting('neighbour_suppress', 32, 1, False),
    Setting('multicast_hosts_limit', 37, 4, 512),
    Setting('mac_authentication_bypass', 40, 1, False),
    Setting('multicast_max_groups', 42, 4, 0),
    Setting('neighbour_vlan_suppress', 43, 1, False),
    Setting('backup_nexthop', 44, 4, 0),
)
PORT = PORT_OPTIONS + PORT_DEFAULTS
#: The last attribute of a port that was known when this was written.
_LAST_OF_PORT = 44

#: Of a bridge. What is not here counts only for multicast snooping, which is
#: off, or for STP. Source: include/uapi/linux/if_link.h, IFLA_BR_...;
#: net/bridge/br_device.c, br_dev_setup
BRIDGE = (
    Setting('stp', 5, 4, False),
    Setting('forward_delay', 1, 4, 0),
    Setting('hello_time', 2, 4, 200),
    Setting('max_age', 3, 4, 2000),
    Setting('ageing_time', 4, 4, 30000),
    Setting('bridge_priority', 6, 2, 32768),
    Setting('vlan_filtering', 7, 1, False),
    Setting('vlan_ethertype', 8, 2, b'\x81\x00'),
    Setting('forwarded_groups', 9, 2, 0),
    Setting('group_address', 20, 6, b'\x01\x80\xc2\0\0\0'),
    Setting('bridge_multicast_router', 22, 1, 1),
    Setting('multicast_snooping', 23, 1, False),
    Setting('multicast_query_use_ifaddr', 24, 1, False),
    Setting('multicast_querier', 25, 1, False),
    Setting('nf_call_iptables', 36, 1, False),
    Setting('nf_call_ip6tables', 37, 1, False),
    Setting('nf_call_arptables', 38, 1, False),
    Setting('default_pvid', 39, 2, 1),
    Setting('vlan_stats', 41, 1, False),
    Setting('multicast_stats', 42, 1, False),
    Setting('igmp_version', 43, 1, 2),
    Setting('mld_version', 44, 1, 1),
    Setting('vlan_stats_per_port', 45, 1, False),
    _Switches('bridge_switches', 46, 4, 0),
    Setting('learned_limit', 49, 4, 0),
)

#: Flags of each link that anybody may switch, and what is so when they are on.
#: Source: include/uapi/linux/if.h
FLAGS = {'up': (0x1, True), 'arp': (0x80, False), 'promisc': (0x100, True),
         'allmulti': (0x200, True), 'multicast': (0x1000, True)}

#: Of the host's own IPv4 on a bridge, or on a TAP: the place in the array of
#: sysctls, from 0, and how it is. With proxy_arp the host answers for guests;
#: with route_localnet they reach what listens on 127.0.0.1.
#: Source: include/uapi/linux/ip.h (which counts from 1),
#: Documentation/networking/ip-sysctl.rst
IPV4 = {'arp_ignore': (18, 1), 'arp_announce': (17, 2), 'arp_accept': (20, 0),
        'proxy_arp': (2, 0), 'proxy_arp_pvlan': (24, 0),
        'accept_local': (22, 0), 'route_localnet': (25, 0),
        'bc_forwarding': (31, 0)}


def read(table: typing.Iterable[Setting],
         told: Attributes) -> dict[str, Value | None]:
    """Return what the kernel says of each, by its field.

    None: it has no such setting.
    """
    return {field: _value(told.octets(attribute), size, type(right))
            for field, attribute, size, right in table}


def _value(octets: bytes | None, size: int, kind: type) -> Value | None:
    if octets is None or kind is bytes:
        return octets
    number = int.from_bytes(octets[:size], sys.byteorder)
    return number != 0 if kind is bool else number


def write(table: typing.Iterable[Setting],
          fields: dict[str, typing.Any]) -> list[bytes]:
    """Return the attributes that set those of these fields that it has."""
    return [each.write(fields[each.field]) for each in table
            if each.field in fields]


def read_flags(flags: int) -> dict[str, typing.Any]:
    """Return the fields that these flags tell of."""
    return {field: bool(flags & bit) is meaning
            for field, (bit, meaning) in FLAGS.items()}


def write_flags(fields: typing.Mapping[str, typing.Any]) -> tuple[int, int]:
    """Return which flags are on, and which are to change, for these fields."""
    bits = [(bit, bit if fields[field] is meaning else 0)
            for field, (bit, meaning) in FLAGS.items() if field in fields]
    return sum(value for _, value in bits), sum(bit for bit, _ in bits)


def read_sysctls(ipv4: tuple[int, ...]) -> dict[str, typing.Any]:
    """Return the fields that the array of IPv4's sysctls tells of."""
    return {field: ipv4[place] if len(ipv4) > place else None
            for field, (place, _) in IPV4.items()}


def write_families(fields: typing.Mapping[str, typing.Any]) -> list[bytes]:
    """Return the attribute that sets those of IPv4 and IPv6, of any link.

    Source: net/ipv4/devinet.c, inet_set_link_af, which counts from 1;
    net/ipv6/addrconf.c, inet6_set_link_af
    """
    sysctls = b''.join(attributes.number(place + 1, fields[field])
                       for field, (place, _) in IPV4.items()
                       if field in fields)
    families = [attributes.attribute(socket.AF_INET, attributes.attribute(
        _INET_CONF, sysctls))] if sysctls else []
    if 'addr_gen_mode' in fields:
        families.append(attributes.attribute(
            socket.AF_INET6, attributes.octet(_INET6_ADDR_GEN_MODE,
                                              fields['addr_gen_mode'])))
    return [attributes.attribute(
        _IFLA_AF_SPEC, b''.join(families))] if families else []


def newer(told: Attributes) -> tuple[int, ...]:
    """Return which switches of a port are on that were not known here.

    A switch has one octet, and is off as long as nobody asks for it.
    """
    return tuple(number for number in told.beyond(_LAST_OF_PORT)
                 if told.octets(number) not in (b'\0', None)
                 and len(told.octets(number) or b'') == 1)
