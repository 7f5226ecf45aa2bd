# SPDX-License-Identifier: Apache-2.0

"""A link as the kernel describes it: from the bytes of a message, and back.

Pure: nothing here asks or tells the kernel anything.
"""

import dataclasses
import socket
import struct
import sys
import typing

from vif_plug_tapmac.kernel import attributes
from vif_plug_tapmac.kernel.attributes import Attributes
from vif_plug_tapmac.kernel import rtnetlink
from vif_plug_tapmac.wanted import names
from vif_plug_tapmac.wanted import port_options

IFF_UP = 1
_TUN_TYPE_TAP = 2
#: IN6_ADDR_GEN_MODE_NONE, include/uapi/linux/if_link.h
ADDR_GEN_NONE = 1
#: A link with a smaller MTU has no IPv6 at all: the kernel takes its IPv6
#: settings away, and makes new ones by default when the MTU grows again.
#: Source: net/ipv6/addrconf.c addrconf_notify, NETDEV_CHANGEMTU
IPV6_MTU_MIN = 1280
# Attributes. Source: include/uapi/linux/if_link.h
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK = 1, 3, 4, 5
_IFLA_MASTER = 10
_IFLA_LINKINFO, _IFLA_IFALIAS, _IFLA_AF_SPEC, _IFLA_GROUP = 18, 20, 26, 27
_IFLA_EXT_MASK, _IFLA_CARRIER, _IFLA_LINK_NETNSID = 29, 33, 37
_IFLA_PROP_LIST, _IFLA_ALT_IFNAME = 52, 53
_INFO_KIND, _INFO_DATA, _INFO_SLAVE_KIND, _INFO_SLAVE_DATA = 1, 2, 4, 5
_INET_CONF, _INET6_CONF, _INET6_ADDR_GEN_MODE = 1, 2, 8
_VLAN_ID, _VLAN_PROTOCOL = 1, 5
_TUN_OWNER, _TUN_TYPE, _TUN_PERSIST, _TUN_MULTI_QUEUE = 1, 3, 6, 7
_TUN_NUM_QUEUES, _TUN_NUM_DISABLED_QUEUES = 8, 9
#: Places in arrays of sysctls. Source: include/uapi/linux/ip.h (which counts
#: from 1), linux/ipv6.h
_ARP_ANNOUNCE, _ARP_IGNORE = 17, 18
_FORWARDING, _ACCEPT_RA, _DISABLE_IPV6 = 0, 3, 26
#: The counters of a link take the kernel a look at each CPU.
#: Source: include/uapi/linux/rtnetlink.h, RTEXT_FILTER_SKIP_STATS
WITHOUT_STATISTICS = attributes.number(_IFLA_EXT_MASK, 1 << 3)

#: How the fields of a Link are written, but for those of its port.
_ATTRIBUTES: dict[str, typing.Callable[[typing.Any], bytes]] = {
    'name': lambda value: attributes.text(_IFLA_IFNAME, value),
    'mac': lambda value: attributes.mac(_IFLA_ADDRESS, value),
    'mtu': lambda value: attributes.number(_IFLA_MTU, value),
    'master': lambda value: attributes.number(_IFLA_MASTER, value),
    'group': lambda value: attributes.number(_IFLA_GROUP, value),
    'alias': lambda value: attributes.text(_IFLA_IFALIAS, value),
    'addr_gen_mode': lambda value: attributes.attribute(
        _IFLA_AF_SPEC, attributes.attribute(
            socket.AF_INET6, attributes.octet(_INET6_ADDR_GEN_MODE, value))),
}

#: The fields of a Link that only ports of bridges have, and how they are when
#: a port joins.
PORT_OPTIONS = {each.field: each.initial for each in port_options.TABLE}
#: The fields of a Link that only bridges have: number and size of their
#: attributes. Source: as above, IFLA_BR_...
_BRIDGE_OPTIONS = {
    'forward_delay': (1, 4), 'stp': (5, 4), 'vlan_filtering': (7, 1),
    'multicast_snooping': (23, 1), 'nf_call_iptables': (36, 1),
    'nf_call_ip6tables': (37, 1), 'nf_call_arptables': (38, 1),
    'default_pvid': (39, 2)}
#: Among these, those that are more than on or off.
_NUMBERS = ('forward_delay', 'default_pvid')
#: Of a port, beside those. Source: include/uapi/linux/if_link.h
_BRPORT_NO, _BRPORT_FLUSH, _BRPORT_BACKUP_PORT = 18, 24, 34

_T = typing.TypeVar('_T')


if typing.TYPE_CHECKING:
    class _PortFields:
        """Those that code reads by their names; all others by the table."""
        learning: bool | None
        locked: bool | None
else:
    _PortFields = dataclasses.make_dataclass(
        '_PortFields', [(field, 'bool | None', None)
                        for field in PORT_OPTIONS], frozen=True, kw_only=True)


@dataclasses.dataclass(frozen=True)
class Link(_PortFields):
    """A network device as the kernel describes it.

    :param kind: "bridge", "veth", ...; "tun" for TUN and TAP alike; None for
        hardware and loopback
    :param master: index of the bridge it is a port of, or None
    :param carrier: on a TAP, whether a process holds it open
    :param addr_gen_mode: how IPv6 makes its link-local address; None where
        there is no IPv6 (in this kernel, or below its least MTU)
    :param disable_ipv6: the sysctl of that name; None likewise
    :param arp_ignore: the sysctl of that name, for this device
    :param arp_announce: likewise
    :param lower: index of the link that it is made on, as a VLAN or a macvlan
        is, or of the other end of a cable; None if that is not here
    :param takes_ra: whether a router advertisement that comes in there gets
        this host an IPv6 address and a default route; None without IPv6
    :param owner: uid that may attach to the TUN or TAP, None: everyone
    :param queues: processes' queues of a multi-queue TUN or TAP, detached
        ones included; None if it is single-queue
    :param altnames: its alternative names; two links may differ in these
    :param former_name: what it was called before somebody began to delete it,
        who is at it still, or ended in the middle; None: nobody did. It may
        have this name still, or again
    :param persistent: whether it outlives the process that holds it
    :param port_number: of a port, which it is on its bridge, from 1; each
        gets the lowest that is free
    :param backup_port: of a port, the index of another that gets its frames
        while it has no carrier; None if there is none
    :param ...: of a port, each field of :data:`port_options.TABLE`; None where
        the kernel has no such option
    :param stp: of a bridge, whether it runs the spanning tree protocol
    :param forward_delay: of a bridge, in hundredths of a second
    :param vlan_filtering: of a bridge, whether a port takes only frames of the
        VLANs that it has
    :param default_pvid: of a bridge, the VLAN that a port has when it joins; 0
        or None: none
    :param vlan: of a VLAN, its id
    :param vlan_protocol: of a VLAN, the ethertype of its tag
    :param nf_call_...: of a bridge, whether its frames pass the firewall of
        the host whatever the host's own switch says; None where the kernel
        cannot do that
    """
    index: int
    name: str
    kind: str | None
    mac: str | None
    mtu: int
    up: bool
    carrier: bool
    master: int | None
    group: int
    alias: str | None
    addr_gen_mode: int | None
    disable_ipv6: int | None
    arp_ignore: int | None
    arp_announce: int | None = None
    lower: int | None = None
    takes_ra: bool | None = None
    is_tap: bool = False
    owner: int | None = None
    multi_queue: bool = False
    queues: int | None = None
    persistent: bool = False
    altnames: tuple[str, ...] = dataclasses.field(default=(), compare=False)
    former_name: str | None = None
    port_number: int | None = None
    backup_port: int | None = None
    stp: bool | None = None
    forward_delay: int | None = None
    multicast_snooping: bool | None = None
    vlan_filtering: bool | None = None
    default_pvid: int | None = None
    vlan: int | None = None
    vlan_protocol: int | None = None
    nf_call_iptables: bool | None = None
    nf_call_ip6tables: bool | None = None
    nf_call_arptables: bool | None = None

    @property
    def held(self) -> bool:
        """Whether a process, most likely a guest's, has this TAP open."""
        return self.is_tap and (self.carrier or bool(self.queues))

    def is_called(self, name: str) -> bool:
        """Return whether this is its name, or one of its alternative ones."""
        return name == self.name or name in self.altnames

    @property
    def lost_name(self) -> str | None:
        """The name that it had until it was to be deleted; None: it has it."""
        return None if self.former_name == self.name else self.former_name

    def differences(
            self, wanted: dict[str, typing.Any]) -> dict[str, typing.Any]:
        """Return the part of the wanted fields that this link has not."""
        return {field: value for field, value in wanted.items()
                if getattr(self, field) != value}

    def explain(self, wanted: dict[str, typing.Any]) -> str:
        """Return in words what differs, for an error or a log line."""
        return ', '.join(
            '%s is %s and should be %s' % (field, getattr(self, field), value)
            for field, value in self.differences(wanted).items())

    @classmethod
    def from_message(cls, body: bytes) -> 'Link':
        """Return the link that a message describes.

        :raises LookupError: the message was cut off, or is of another kind
        """
        message = rtnetlink.LinkMessage(body)
        told = message.attributes
        link_info = told.nested(_IFLA_LINKINFO)
        altnames = _altnames(told)
        af_spec = told.nested(_IFLA_AF_SPEC)
        inet_conf = af_spec.nested(socket.AF_INET).numbers(_INET_CONF)
        af_inet6 = af_spec.nested(socket.AF_INET6)
        inet6_conf = af_inet6.numbers(_INET6_CONF)
        return cls(
            index=message.index,
            name=_required(told.text(_IFLA_IFNAME)),
            kind=link_info.text(_INFO_KIND),
            mac=told.mac(_IFLA_ADDRESS),
            mtu=_required(told.number(_IFLA_MTU)),
            up=bool(message.flags & IFF_UP),
            carrier=bool(told.number(_IFLA_CARRIER)),
            master=told.number(_IFLA_MASTER),
            group=told.number(_IFLA_GROUP) or 0,
            alias=told.text(_IFLA_IFALIAS),
            addr_gen_mode=af_inet6.number(_INET6_ADDR_GEN_MODE),
            disable_ipv6=inet6_conf[_DISABLE_IPV6] if inet6_conf else None,
            arp_ignore=inet_conf[_ARP_IGNORE] if inet_conf else None,
            arp_announce=inet_conf[_ARP_ANNOUNCE] if inet_conf else None,
            lower=(None if _IFLA_LINK_NETNSID in told
                   else told.number(_IFLA_LINK) or None),
            takes_ra=_takes_ra(inet6_conf) if inet6_conf else None,
            altnames=altnames,
            former_name=_former_name(altnames),
            **_port_data(link_info),
            **_info_data(link_info))


def named(name: str) -> bytes:
    """Return the attribute that says which link is meant, by its name."""
    return attributes.text(_IFLA_IFNAME, name)


def also_named(name: str) -> bytes:
    """Return the attribute that says so by an alternative name."""
    return attributes.text(_IFLA_ALT_IFNAME, name)


def alternative_name(name: str) -> bytes:
    """Return the attribute that gives a link another name, or takes it."""
    return attributes.attribute(_IFLA_PROP_LIST | attributes.NESTED,
                                also_named(name))


def carrier(there: bool) -> bytes:
    """Return the attribute that switches the carrier."""
    return attributes.octet(_IFLA_CARRIER, there)


def settings(fields: dict[str, typing.Any]) -> list[bytes]:
    """Return the attributes that set these fields of a Link.

    But "up", which is a flag, and those of a port.
    """
    own = [_ATTRIBUTES[field](value) for field, value in fields.items()
           if field in _ATTRIBUTES]
    return own + _bridge_settings(fields)


def _bridge_settings(fields: dict[str, typing.Any]) -> list[bytes]:
    options = [attributes.attribute(number, int(fields[field]).to_bytes(
        size, sys.byteorder))
        for field, (number, size) in _BRIDGE_OPTIONS.items()
        if field in fields]
    return [_info('bridge', *options)] if options else []


def new_bridge(name: str, mac: str, group: int, mtu: int | None) -> bytes:
    """Return the body that makes a bridge, silent and with a MAC for good."""
    fields: dict[str, typing.Any] = {
        'name': name, 'mac': mac, 'group': group, 'forward_delay': 0,
        'stp': False, 'multicast_snooping': False}
    if mtu is not None:
        fields['mtu'] = mtu
    return rtnetlink.link(0, *settings(fields))


def new_vlan(name: str, parent_index: int, vlan: int) -> bytes:
    """Return the body that makes the device of a VLAN."""
    return rtnetlink.link(
        0, named(name), attributes.number(_IFLA_LINK, parent_index), _info(
            'vlan', attributes.attribute(_VLAN_ID, struct.pack('=H', vlan))))


def new_cable(name: str) -> bytes:
    """Return the body that makes a veth pair, of which one has this name."""
    return rtnetlink.link(0, named(name), _info('veth'))


def _info(kind: str, *data: bytes) -> bytes:
    return attributes.attribute(
        _IFLA_LINKINFO, attributes.text(_INFO_KIND, kind)
        + attributes.attribute(_INFO_DATA, b''.join(data)))


def port_settings(fields: dict[str, typing.Any]) -> list[bytes]:
    """Return the attribute that sets those of these that are of a port."""
    options = [attributes.octet(each.attribute, fields[each.field])
               for each in port_options.TABLE if each.field in fields]
    return [port_attribute(*options)] if options else []


def backup_port(index: int) -> bytes:
    """Return the attribute that gives a port another for its frames.

    :param index: of the other; 0: none
    """
    return port_attribute(attributes.number(_BRPORT_BACKUP_PORT, index))


def forget_learned() -> bytes:
    """Return the attribute that has no MAC on a port that was learned."""
    return port_attribute(attributes.attribute(_BRPORT_FLUSH, b''))


def port_attribute(*options: bytes) -> bytes:
    """Return the attribute that sets these options of a port."""
    return attributes.attribute(
        _IFLA_LINKINFO, attributes.text(_INFO_SLAVE_KIND, 'bridge')
        + attributes.attribute(_INFO_SLAVE_DATA, b''.join(options)))


def _required(value: _T | None) -> _T:
    """Return what each such message has.

    :raises LookupError: this one was cut off, or is of another kind
    """
    if value is None:
        raise LookupError()
    return value


def _altnames(told: Attributes) -> tuple[str, ...]:
    return tuple(value.rstrip(b'\0').decode('utf-8', 'replace')
                 for kind, value in attributes.every(
                     told.octets(_IFLA_PROP_LIST) or b'')
                 if kind == _IFLA_ALT_IFNAME)


def _former_name(altnames: tuple[str, ...]) -> str | None:
    for name in altnames:
        if name.endswith(names.BEING_DELETED):
            return name[:-len(names.BEING_DELETED)]
    return None


def _takes_ra(conf: tuple[int, ...]) -> bool:
    # Source: Documentation/networking/ip-sysctl.rst, accept_ra
    return not conf[_DISABLE_IPV6] and (
        conf[_ACCEPT_RA] == 2
        or bool(conf[_ACCEPT_RA]) and not conf[_FORWARDING])


def _port_data(link_info: Attributes) -> dict[str, typing.Any]:
    """Return the fields that only ports of bridges have."""
    if link_info.text(_INFO_SLAVE_KIND) != 'bridge':
        return {}
    data = link_info.nested(_INFO_SLAVE_DATA)
    options = {each.field: data.number(each.attribute)
               for each in port_options.TABLE}
    return dict({field: None if value is None else bool(value)
                 for field, value in options.items()},
                port_number=data.number(_BRPORT_NO),
                backup_port=data.number(_BRPORT_BACKUP_PORT))


def _info_data(link_info: Attributes) -> dict[str, typing.Any]:
    """Return the fields that only links of this kind have."""
    kind = link_info.text(_INFO_KIND)
    if _INFO_DATA not in link_info:
        return {}
    data = link_info.nested(_INFO_DATA)
    if kind == 'tun':
        multi_queue = bool(data.number(_TUN_MULTI_QUEUE))
        return {
            'is_tap': data.number(_TUN_TYPE) == _TUN_TYPE_TAP,
            'owner': data.number(_TUN_OWNER),
            'persistent': bool(data.number(_TUN_PERSIST)),
            'multi_queue': multi_queue,
            'queues': (data.number(_TUN_NUM_QUEUES) or 0)
            + (data.number(_TUN_NUM_DISABLED_QUEUES) or 0)
            if multi_queue else None,
        }
    if kind == 'bridge':
        told = {field: data.number(number)
                for field, (number, _) in _BRIDGE_OPTIONS.items()}
        return {field: value if field in _NUMBERS or value is None
                else bool(value) for field, value in told.items()}
    if kind == 'vlan':
        return {
            'vlan': data.number(_VLAN_ID),
            'vlan_protocol': int.from_bytes(
                data.octets(_VLAN_PROTOCOL) or b'', 'big'),
        }
    return {}
