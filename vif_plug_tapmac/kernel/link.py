# SPDX-License-Identifier: Apache-2.0

"""A link as the kernel describes it: from the bytes of a message, and back.

Pure: nothing here asks or tells the kernel anything.
"""

import dataclasses
import socket
import typing

from vif_plug_tapmac.kernel import attributes
from vif_plug_tapmac.kernel.attributes import Attributes
from vif_plug_tapmac.kernel import rtnetlink
from vif_plug_tapmac.kernel import settings as tables
from vif_plug_tapmac import mark

#: Operational states: as long as nobody says one; as it is to be; and those
#: that only somebody who meddles gives to a TAP.
#: Source: include/uapi/linux/if.h, IF_OPER_...
_OPER_UNKNOWN, _OPER_TESTING, _OPER_DORMANT, OPER_UP = 0, 4, 5, 6
_TUN_TYPE_TAP = 2
#: IN6_ADDR_GEN_MODE_NONE, include/uapi/linux/if_link.h
ADDR_GEN_NONE = 1
#: A link with a smaller MTU has no IPv6 at all: the kernel takes its IPv6
#: settings away, and makes new ones by default when the MTU grows again.
#: Source: net/ipv6/addrconf.c addrconf_notify, NETDEV_CHANGEMTU
IPV6_MTU_MIN = 1280
# Attributes. Source: include/uapi/linux/if_link.h
_IFLA_ADDRESS, _IFLA_BROADCAST, _IFLA_IFNAME, _IFLA_MTU = 1, 2, 3, 4
_IFLA_LINK, _IFLA_MASTER = 5, 10
_IFLA_TXQLEN, _IFLA_OPERSTATE, _IFLA_LINKMODE, _IFLA_XDP = 13, 16, 17, 43
_IFLA_LINKINFO, _IFLA_IFALIAS, _IFLA_AF_SPEC, _IFLA_GROUP = 18, 20, 26, 27
_IFLA_EXT_MASK, _IFLA_CARRIER, _IFLA_LINK_NETNSID = 29, 33, 37
_IFLA_PROP_LIST, _IFLA_ALT_IFNAME = 52, 53
_INFO_KIND, _INFO_DATA, _INFO_SLAVE_KIND, _INFO_SLAVE_DATA = 1, 2, 4, 5
_INET_CONF, _INET6_CONF, _INET6_ADDR_GEN_MODE = 1, 2, 8
VLAN_ID, _VLAN_PROTOCOL = 1, 5
_TUN_OWNER, _TUN_TYPE, _TUN_PERSIST, _TUN_MULTI_QUEUE = 1, 3, 6, 7
_TUN_NUM_QUEUES, _TUN_NUM_DISABLED_QUEUES = 8, 9
_XDP_ATTACHED = 2
#: Places in the array of sysctls. Source: include/uapi/linux/ipv6.h
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
    'broadcast': lambda value: attributes.mac(_IFLA_BROADCAST, value),
    'link_mode': lambda value: attributes.octet(_IFLA_LINKMODE, value),
    'oper_state': lambda value: attributes.octet(_IFLA_OPERSTATE, value),
}

#: The fields of a Link that only ports of bridges have, and how they are when
#: a port joins: those of options, and all.
PORT_OPTIONS = {each.field: each.right for each in tables.PORT_OPTIONS}
PORT_FIELDS: dict[str, typing.Any] = {
    **{each.field: each.right for each in tables.PORT}, 'newer_options': ()}
#: Of a port, beside those. Source: include/uapi/linux/if_link.h
_BRPORT_STATE, _BRPORT_NO, _BRPORT_FLUSH, _BRPORT_BACKUP_PORT = 1, 18, 24, 34
#: Source: include/uapi/linux/if_bridge.h, BR_STATE_FORWARDING
FORWARDING = 3

_T = typing.TypeVar('_T')


if typing.TYPE_CHECKING:
    class _Told:
        """Those that code reads by their names; all others by the tables."""
        learning: bool | None
        locked: bool | None
        stp: bool | None
        forward_delay: int | None
        multicast_snooping: bool | None
        vlan_filtering: bool | None
        default_pvid: int | None
        nf_call_iptables: bool | None
        newer_options: tuple[int, ...] | None
else:
    _Told = dataclasses.make_dataclass(
        '_Told', [(field, type(right) | None, None) for field, right in (
            *PORT_FIELDS.items(),
            *((each.field, each.right) for each in tables.BRIDGE),
            *((field, right) for field, (_, right) in tables.IPV4.items()))],
        frozen=True, kw_only=True)


@dataclasses.dataclass(frozen=True)
class Link(_Told):
    """A network device as the kernel describes it.

    :param kind: "bridge", "veth", ...; "tun" for TUN and TAP alike; None for
        hardware and loopback
    :param master: index of the bridge it is a port of, or None
    :param carrier: on a TAP, whether a process holds it open
    :param addr_gen_mode: how IPv6 makes its link-local address; None where
        there is no IPv6 (in this kernel, or below its least MTU)
    :param disable_ipv6: the sysctl of that name; None likewise
    :param arp, promisc, allmulti, multicast: the flags of these names, as
        somebody set them
    :param broadcast: the MAC that frames for all are sent to
    :param queue_length: how many frames wait for whoever holds a TAP
    :param oper_state: IF_OPER_..., which says whether it is used
    :param link_mode: IF_LINK_MODE_...: 0, or its carrier is not enough for it
    :param has_program: whether XDP has one look at each frame
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
    :param port_state: of a port, :data:`FORWARDING` if frames pass
    :param newer_options: of a port, switches that are on, by their number,
        which are newer than this code
    :param ...: of a port, each field of :data:`settings.PORT`, of a bridge
        each of :data:`settings.BRIDGE`, of each link the sysctls of
        :data:`settings.IPV4`; None where the kernel has no such setting
    :param vlan: of a VLAN, its id
    :param vlan_protocol: of a VLAN, the ethertype of its tag
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
    arp: bool = True
    promisc: bool = False
    allmulti: bool = False
    multicast: bool = True
    broadcast: str | None = None
    queue_length: int | None = None
    link_mode: int | None = None
    has_program: bool = False
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
    vlan: int | None = None
    vlan_protocol: int | None = None
    # These follow the carrier, a moment later: two looks at one link are equal
    # all the same.
    oper_state: int | None = dataclasses.field(default=None, compare=False)
    port_state: int | None = dataclasses.field(default=None, compare=False)

    @property
    def held(self) -> bool:
        """Whether a process, most likely a guest's, has this TAP open."""
        return self.is_tap and (self.carrier or bool(self.queues))

    def is_called(self, name: str) -> bool:
        """Return whether this is its name, or one of its alternative ones."""
        return name == self.name or name in self.altnames

    @property
    def is_operational(self) -> bool:
        """Whether a bridge of which it is a port forwards for it."""
        return self.up and self.oper_state in (_OPER_UNKNOWN, OPER_UP)

    @property
    def is_put_to_sleep(self) -> bool:
        """Whether somebody said that it is not to be used; no TAP is so."""
        return self.oper_state in (_OPER_TESTING, _OPER_DORMANT)

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
            '%s is %s and should be %s' % (field, *map(
                _in_words, (getattr(self, field), value)))
            for field, value in self.differences(wanted).items())

    @classmethod
    def from_message(cls, body: bytes) -> 'Link':
        """Return the link that a message describes.

        :raises LookupError: the message was cut off, or is of another kind
        """
        message = rtnetlink.LinkMessage(body)
        told, altnames = message.attributes, _altnames(message.attributes)
        link_info = told.nested(_IFLA_LINKINFO)
        af_spec = told.nested(_IFLA_AF_SPEC)
        inet_conf = af_spec.nested(socket.AF_INET).numbers(_INET_CONF) or ()
        af_inet6 = af_spec.nested(socket.AF_INET6)
        inet6_conf = af_inet6.numbers(_INET6_CONF)
        return cls(
            index=message.index,
            name=_required(told.text(_IFLA_IFNAME)),
            kind=link_info.text(_INFO_KIND),
            mac=told.mac(_IFLA_ADDRESS),
            mtu=_required(told.number(_IFLA_MTU)),
            carrier=bool(told.number(_IFLA_CARRIER)),
            master=told.number(_IFLA_MASTER),
            group=told.number(_IFLA_GROUP) or 0,
            alias=told.text(_IFLA_IFALIAS),
            addr_gen_mode=af_inet6.number(_INET6_ADDR_GEN_MODE),
            disable_ipv6=inet6_conf[_DISABLE_IPV6] if inet6_conf else None,
            broadcast=told.mac(_IFLA_BROADCAST),
            queue_length=told.number(_IFLA_TXQLEN),
            oper_state=told.number(_IFLA_OPERSTATE),
            link_mode=told.number(_IFLA_LINKMODE),
            has_program=bool(told.nested(_IFLA_XDP).number(_XDP_ATTACHED)),
            lower=(None if _IFLA_LINK_NETNSID in told
                   else told.number(_IFLA_LINK) or None),
            takes_ra=_takes_ra(inet6_conf) if inet6_conf else None,
            altnames=altnames,
            former_name=mark.former_name(
                told.text(_IFLA_IFNAME) or '', told.text(_IFLA_IFALIAS),
                altnames),
            **tables.read_flags(message.flags),
            **tables.read_sysctls(inet_conf),
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
    return own + tables.write_families(fields) + _bridge_settings(fields)


def _bridge_settings(fields: dict[str, typing.Any]) -> list[bytes]:
    options = tables.write(tables.BRIDGE, fields)
    return [info('bridge', *options)] if options else []


def info(kind: str, *data: bytes) -> bytes:
    """Return the attribute with what only links of this kind have."""
    return attributes.attribute(
        _IFLA_LINKINFO, attributes.text(_INFO_KIND, kind)
        + attributes.attribute(_INFO_DATA, b''.join(data)))


def port_settings(fields: dict[str, typing.Any]) -> list[bytes]:
    """Return the attribute that sets those of these that are of a port."""
    options = tables.write(tables.PORT, fields)
    options += [attributes.octet(number, 0)
                for number in fields.get('newer_options', ())]
    if 'port_state' in fields:
        options.append(attributes.octet(_BRPORT_STATE, fields['port_state']))
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


def _in_words(value: typing.Any) -> str:
    return value.hex(':') if isinstance(value, bytes) else str(value)


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
    return dict(tables.read(tables.PORT, data),
                newer_options=tables.newer(data),
                port_state=data.number(_BRPORT_STATE),
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
        return dict(tables.read(tables.BRIDGE, data))
    if kind == 'vlan':
        return {
            'vlan': data.number(VLAN_ID),
            'vlan_protocol': int.from_bytes(
                data.octets(_VLAN_PROTOCOL) or b'', 'big'),
        }
    return {}
