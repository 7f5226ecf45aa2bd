# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""Links and forwarding entries, as the kernel tells and takes them.

The only module that knows pyroute2, and the only one that translates what
netlink refuses.
"""

import contextlib
import dataclasses
import errno
import select
import socket
import struct
import types
import typing

from oslo_log import log as logging
import pyroute2
from pyroute2 import netlink as pyroute2_netlink
from pyroute2.netlink.exceptions import NetlinkDumpInterrupted
from pyroute2.netlink import rtnl
from pyroute2.netlink.rtnl import ifinfmsg
from pyroute2.netlink.rtnl import marshal
from pyroute2.nftables import main as nftables

from vif_plug_tapmac import exception

LOG = logging.getLogger(__name__)

_IFF_UP = 1
_NFPROTO_INET, _NF_INET_FORWARD, _NF_DROP = 1, 2, 0
_TUN_TYPE_TAP = 2
#: State and flags of a forwarding entry.
#: Source: include/uapi/linux/neighbour.h
_NUD_NOARP, _NUD_PERMANENT = 0x40, 0x80
_NTF_MASTER, _NTF_STICKY = 0x04, 0x40
#: Of an address; the larger, the less far it reaches. linux/rtnetlink.h
_RT_SCOPE_LINK, _RT_SCOPE_HOST = 253, 254
#: How often a list is asked for that others change meanwhile.
_DUMPS = 10
#: In bytes: of what happens while nobody reads, and of one message at most.
_EVENT_BUFFER, _EVENT_SIZE = 4 << 20, 1 << 16
#: IN6_ADDR_GEN_MODE_NONE, include/uapi/linux/if_link.h
ADDR_GEN_NONE = 1
#: A link with a smaller MTU has no IPv6 at all: the kernel takes its IPv6
#: settings away, and makes new ones by default when the MTU grows again.
#: Source: net/ipv6/addrconf.c addrconf_notify, NETDEV_CHANGEMTU
IPV6_MTU_MIN = 1280


_T = typing.TypeVar('_T')


@dataclasses.dataclass(frozen=True)
class Link:
    """A network device as the kernel describes it.

    :param kind: "bridge", "veth", ...; "tun" for TUN and TAP alike; None for
        hardware and loopback
    :param master: index of the bridge it is a port of, or None
    :param carrier: on a TAP, whether a process holds it open
    :param addr_gen_mode: how IPv6 makes its link-local address; None where
        there is no IPv6 (in this kernel, or below its least MTU)
    :param disable_ipv6: the sysctl of that name; None likewise
    :param arp_ignore: the sysctl of that name, for this device
    :param takes_ra: whether a router advertisement that comes in there gets
        this host an IPv6 address and a default route; None without IPv6
    :param owner: uid that may attach to the TUN or TAP, None: everyone
    :param queues: processes' queues of a multi-queue TUN or TAP, detached
        ones included; None if it is single-queue
    :param persistent: whether it outlives the process that holds it
    :param port_number: of a port, which it is on its bridge, from 1; each
        gets the lowest that is free
    :param isolated: of a port, whether it does not reach other such ports
    :param flood_unicast: of a port, whether it gets frames for MACs that the
        bridge does not know
    :param flood_multicast: of a port, whether it gets multicast of groups
        that nobody is known to have joined
    :param hairpin: of a port, whether a frame may leave where it came in
    :param learning: of a port, whether its frames tell the bridge who is there
    :param locked: of a port, whether only frames from MACs in the FDB come in;
        None where the kernel has no such option (before 5.18)
    :param stp: of a bridge, whether it runs the spanning tree protocol
    :param forward_delay: of a bridge, in hundredths of a second
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
    takes_ra: bool | None = None
    is_tap: bool = False
    owner: int | None = None
    multi_queue: bool = False
    queues: int | None = None
    persistent: bool = False
    port_number: int | None = None
    isolated: bool | None = None
    flood_unicast: bool | None = None
    flood_multicast: bool | None = None
    hairpin: bool | None = None
    learning: bool | None = None
    locked: bool | None = None
    stp: bool | None = None
    forward_delay: int | None = None
    multicast_snooping: bool | None = None

    @property
    def held(self) -> bool:
        """Whether a process, most likely a guest's, has this TAP open."""
        return self.is_tap and (self.carrier or bool(self.queues))

    def differences(
            self, wanted: dict[str, typing.Any]) -> dict[str, typing.Any]:
        """Return the part of the wanted fields that this link has not."""
        return {field: value for field, value in wanted.items()
                if getattr(self, field) != value}

    def verify(self, wanted: dict[str, typing.Any]) -> None:
        """Check that the link has all wanted fields.

        :raises VerifyFailed: it has not
        """
        if self.differences(wanted):
            raise exception.VerifyFailed(device=self.name,
                                         differences=self.explain(wanted))

    def explain(self, wanted: dict[str, typing.Any]) -> str:
        """Return in words what differs, for an error or a log line."""
        return ', '.join(
            '%s is %s and should be %s' % (field, getattr(self, field), value)
            for field, value in self.differences(wanted).items())


@dataclasses.dataclass(frozen=True)
class FdbEntry:
    """Where a bridge sends frames for a MAC.

    :param local: the MAC is a port's or the bridge's own; frames for it go to
        the host and never out of the port
    :param fixed: it does not age, and no frame of another port moves it
        ("static sticky")
    """
    port_index: int
    local: bool
    fixed: bool = False


class Netlink:
    """One netlink socket, for the time of one operation."""

    def __init__(self) -> None:
        self._ip = pyroute2.IPRoute()

    def __enter__(self) -> 'Netlink':
        return self

    def __exit__(self, exc_type: type[BaseException] | None,
                 exc: BaseException | None,
                 traceback: types.TracebackType | None) -> None:
        self._ip.close()

    def find(self, name: str) -> Link | None:
        """Return the link of this name, None if there is none.

        :raises DeviceConflict: the name is an alternative name of another
            link. The kernel looks both up alike, so that whoever asks for one
            gets, and changes, the other.
        """
        link = self._get(ifname=name)
        if link is not None and link.name != name:
            raise exception.DeviceConflict(
                device=name,
                reason='this is an alternative name of %s' % link.name,
                remedy='remove it with "ip link property del dev %s altname '
                       '%s", or use another name' % (link.name, name))
        return link

    def get(self, index: int) -> Link | None:
        """Return the link with this index, None if there is none."""
        return self._get(index=index)

    def _get(self, **which: typing.Any) -> Link | None:
        answer = self._request(
            str(*which.values()), 'looking it up', self._ip.link, 'get',
            tolerated=errno.ENODEV, **which)
        return None if answer is None else _to_link(answer[0])

    def links(self) -> list[Link]:
        """Return all links there are.

        For those who look at a whole host. A plug never does: this takes
        about a millisecond for each link.
        """
        return self._dump(self._ip.get_links, _to_link)

    def all_addresses(self) -> dict[int, list[str]]:
        """Return the IP addresses of all links, by their index."""
        found: dict[int, list[str]] = {}
        for index, address in self._dump(
                self._ip.get_addr,
                lambda message: (message['index'], _to_address(message))):
            found.setdefault(index, []).append(address)
        return found

    def _dump(self, function: typing.Callable[[], typing.Any],
              convert: typing.Callable[[typing.Any], _T]) -> list[_T]:
        """Return a whole answer, also where links come and go meanwhile.

        Converted one by one: messages are large, and many.
        """
        for _ in range(_DUMPS):
            with contextlib.suppress(NetlinkDumpInterrupted):
                return [convert(message) for message in function()]
        raise exception.KernelRefused.from_errno(
            'the host', 'listing what is there', errno.EINTR)

    def create_bridge(self, name: str, mac: str, group: int,
                      mtu: int | None) -> bool:
        """Make a bridge that is silent and has its MAC for good.

        All in one message, so nobody ever sees the bridge otherwise: the
        address given here pins it, and neither udev nor a port moves it. The
        MTU given here does not pin itself; see kernel/bridge.py.

        :returns: False if the name was taken already
        """
        attributes = {} if mtu is None else {'mtu': mtu}
        return self._request(
            name, 'creating the bridge', self._ip.link, 'add',
            tolerated=errno.EEXIST, ifname=name, kind='bridge', address=mac,
            group=group, br_stp_state=0, br_forward_delay=0,
            br_mcast_snooping=0, **attributes) is not None

    def create_vlan(self, name: str, parent: Link, vlan: int) -> bool:
        """Make the device of a VLAN, with the MTU of its parent.

        :param vlan: from 1 to 4094
        :returns: False if the name was taken already
        """
        return self._request(
            name, 'creating the device of VLAN %d on %s' % (vlan, parent.name),
            self._ip.link, 'add', tolerated=errno.EEXIST, ifname=name,
            kind='vlan', link=parent.index, vlan_id=vlan) is not None

    def change(self, link: Link, fields: dict[str, typing.Any],
               step: str | None = None) -> None:
        """Set fields of a link.

        "up" goes in a message after all others: in one message the kernel
        raises the link first, and with carrier gives it an IPv6 address before
        addr_gen_mode can say otherwise. The options of a port go with it: they
        need a bridge, so they cannot go with the master, and in one message
        with "up" they come first.
        Source: net/core/rtnetlink.c, rtnl_changelink

        :param fields: of :class:`Link`, from name, mac, mtu, master, group,
            alias, addr_gen_mode, those in PORT_OPTIONS, up
        :param step: what this is for, in words for the error; None names the
            fields
        """
        early: dict[str, typing.Any] = {}
        late: dict[str, typing.Any] = {}
        for field, value in fields.items():
            if field != 'up' and field not in PORT_OPTIONS:
                early.update(_ATTRIBUTES[field](value))
        options = [(_BRPORT[field], int(fields[field]))
                   for field in PORT_OPTIONS if field in fields]
        if options:
            late.update(_port_options(options))
        if 'up' in fields:
            late['state'] = 'up' if fields['up'] else 'down'
        step = step or 'setting ' + ', '.join(fields)
        for attributes in early, late:
            if attributes:
                self._set(link, step, attributes)

    def _set(self, link: Link, step: str,
             attributes: dict[str, typing.Any]) -> None:
        self._request(attributes.get('ifname', link.name), step,
                      self._ip.link, 'set', index=link.index, **attributes)

    def delete(self, link: Link) -> None:
        """Delete a link by its index; gone already is success."""
        self._request(link.name, 'deleting it', self._ip.link, 'del',
                      tolerated=errno.ENODEV, index=link.index)

    def delete_group(self, group: int) -> None:
        """Delete all links of a link group, in one message.

        Whoever is in it, and whoever joins it meanwhile.
        """
        self._request('link group %d' % group, 'deleting it', self._ip.link,
                      'del', index=0, group=group)

    def remove_addresses(self, link: Link) -> None:
        """Take all IP addresses from a link."""
        for message in self._ip.get_addr(index=link.index):
            self._request(
                link.name, 'removing its address', self._ip.addr, 'del',
                tolerated=errno.EADDRNOTAVAIL, index=link.index,
                address=message.get_attr('IFA_ADDRESS'),
                prefixlen=message['prefixlen'])

    def fdb_entry(self, bridge: Link, mac: str) -> FdbEntry | None:
        """Return where the bridge sends frames for a MAC; None: everywhere.

        One look-up in the kernel's hash table, whatever the number of ports.
        """
        answer = self._request(
            bridge.name, 'looking up %s in its FDB' % mac, self._ip.fdb, 'get',
            tolerated=errno.ENOENT, lladdr=mac, master=bridge.index)
        if answer is None:
            return None
        state, flags = answer[0]['state'], answer[0]['flags']
        return FdbEntry(answer[0]['ifindex'], bool(state & _NUD_PERMANENT),
                        bool(state & _NUD_NOARP and flags & _NTF_STICKY))

    def fixed_macs(self) -> set[tuple[int, str]]:
        """Return all fixed entries of all bridges: index of the port, MAC.

        For those who look at a whole host.
        """
        return set(self._dump(
            lambda: [message for message in self._ip.fdb('dump')
                     if message['state'] & _NUD_NOARP
                     and message['flags'] & _NTF_STICKY],
            lambda message: (message['ifindex'],
                             message.get_attr('NDA_LLADDR'))))

    def fix_fdb_entry(self, link: Link, mac: str) -> None:
        """Have the bridge send frames for a MAC to this port, for good.

        Whatever entry there was for the MAC is this one now. It is gone when
        the port leaves the bridge.
        """
        self._request(
            link.name, 'setting %s in the FDB of its bridge' % mac,
            self._ip.fdb, 'replace', ifindex=link.index, lladdr=mac,
            state=_NUD_NOARP, flags=_NTF_MASTER | _NTF_STICKY)

    def remove_fdb_entry(self, link: Link, mac: str) -> None:
        """Have a MAC no more on this port; it was not is success."""
        self._request(
            link.name, 'removing %s from the FDB of its bridge' % mac,
            self._ip.fdb, 'del', tolerated=errno.ENOENT, ifindex=link.index,
            lladdr=mac, flags=_NTF_MASTER)

    def filter_sources(self, link: Link, mac: str) -> None:
        """Have a TAP drop what comes in from any other MAC.

        Before the bridge sees it, whether the TAP is a port or not.
        """
        step = 'filtering by the source %s' % mac
        self._request(link.name, step, self._ip.tc, 'add',
                      tolerated=errno.EEXIST, kind='clsact', index=link.index)
        self._request(link.name, step, _exchange, 'replace',
                      message=_source_filter(link, mac))

    def filters_sources(self, link: Link, mac: str) -> bool:
        """Return whether the TAP does that, for this MAC."""
        answer = self._request(
            link.name, 'looking up its filter', _exchange, 'get',
            tolerated=errno.EINVAL, message=_source_filter(link))
        options = answer and answer.get_attr('TCA_OPTIONS')
        return (options is not None
                and options.get_attr('TCA_BPF_OPS') == _only_from(mac)
                and options.get_attr('TCA_BPF_FLAGS') == _ACT_DIRECT)

    def unfilter_sources(self, link: Link) -> None:
        """Have a TAP take what comes in, from any MAC; it did is success."""
        with contextlib.suppress(exception.KernelRefused):
            self._request(link.name, 'removing its filter', _exchange, 'del',
                          message=_source_filter(link))

    def forget_learned(self, link: Link) -> None:
        """Have no MAC on this port any more that the bridge had learned."""
        self._set(link, 'flushing what was learned there',
                  _port_options([('IFLA_BRPORT_FLUSH', None)]))

    def _request(self, device: str, step: str,
                 function: typing.Callable[..., typing.Any], command: str,
                 tolerated: int | None = None,
                 **attributes: typing.Any) -> typing.Any:
        """Return the kernel's answer, None if it refuses with this errno.

        :raises KernelRefused: it refuses with another
        """
        try:
            return function(command, **attributes)
        except pyroute2.NetlinkError as error:
            if error.code == tolerated:
                return None
            raise exception.KernelRefused.from_errno(device, step, error.code)

    def addresses(self, link: Link) -> list[str]:
        """Return the IP addresses of a link, each with its prefix length."""
        return self._addresses(link, _RT_SCOPE_HOST)

    def global_addresses(self, link: Link) -> list[str]:
        """Return those that are good for more than the link itself."""
        return self._addresses(link, _RT_SCOPE_LINK - 1)

    def _addresses(self, link: Link, scope: int) -> list[str]:
        return [_to_address(message)
                for message in self._ip.get_addr(index=link.index)
                if message['scope'] <= scope]


@dataclasses.dataclass(frozen=True)
class LinkEvent:
    """A link as it is now, or as it was when it was deleted."""
    link: Link
    deleted: bool


class Overrun(Exception):
    """Events were lost, for the kernel had more than it could keep."""


class LinkEvents:
    """What happens to links, as the kernel tells everybody who listens."""

    def __init__(self) -> None:
        self._marshal = marshal.MarshalRtnl()
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF,
                                _EVENT_BUFFER)
        self._socket.bind((0, rtnl.RTMGRP_LINK))

    def __enter__(self) -> 'LinkEvents':
        return self

    def __exit__(self, exc_type: type[BaseException] | None,
                 exc: BaseException | None,
                 traceback: types.TracebackType | None) -> None:
        self._socket.close()

    def wait(self, seconds: float) -> list[LinkEvent]:
        """Return what comes next, nothing if nothing comes in time.

        :raises Overrun: list the links anew
        """
        if not select.select([self._socket], [], [], seconds)[0]:
            return []
        try:
            data = self._socket.recv(_EVENT_SIZE)
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            raise Overrun()
        # What bridges say of their ports has a family of its own, and tells
        # only a part.
        return [LinkEvent(_to_link(message),
                          message['header']['type'] == rtnl.RTM_DELLINK)
                for message in self._marshal.parse(data)
                if message['header']['type'] in (rtnl.RTM_NEWLINK,
                                                 rtnl.RTM_DELLINK)
                and message['family'] == socket.AF_UNSPEC]


def chain_that_drops_forwarded() -> str | None:
    """Return a netfilter chain that drops IPv4 unless a rule accepts it.

    Only chains that IPv4 packets pass on their way through the host. Chains of
    the old ip_tables do not show here, those of iptables-nft do.

    :returns: its table and name; None if there is none, or no nf_tables
    Source: include/uapi/linux/netfilter.h
    """
    try:
        with nftables.NFTables(nfgen_family=socket.AF_UNSPEC) as nft:
            chains = list(nft.get_chains())
    except Exception as error:
        # It is for a warning: whatever pyroute2 makes of a ruleset that it
        # does not know, no plug is to fail for it.
        LOG.debug('The chains of netfilter are not known: %r', error)
        return None
    for chain in chains:
        hook = chain.get_attr('NFTA_CHAIN_HOOK')
        if (hook is not None
                and chain['nfgen_family'] in (socket.AF_INET, _NFPROTO_INET)
                and hook.get_attr('NFTA_HOOK_HOOKNUM') == _NF_INET_FORWARD
                and chain.get_attr('NFTA_CHAIN_POLICY') == _NF_DROP):
            return '%s %s' % (chain.get_attr('NFTA_CHAIN_TABLE'),
                              chain.get_attr('NFTA_CHAIN_NAME'))
    return None


def is_named(link: Link, name: str) -> bool:
    """Return whether this is, by now, the link of this name.

    An ioctl: much cheaper than to have all of the link described.
    """
    try:
        return socket.if_nametoindex(name) == link.index
    except OSError:
        return False


_ATTRIBUTES: dict[str, typing.Callable[[typing.Any], dict[str, typing.Any]]]
_ATTRIBUTES = {
    'name': lambda value: {'ifname': value},
    'mac': lambda value: {'address': value},
    'mtu': lambda value: {'mtu': value},
    'master': lambda value: {'master': value},
    'group': lambda value: {'group': value},
    'alias': lambda value: {'ifalias': value},
    'addr_gen_mode': lambda value: {
        'IFLA_AF_SPEC': {'attrs': [('AF_INET6', {'attrs': [
            ('IFLA_INET6_ADDR_GEN_MODE', value)]})]}},
}

#: The fields of a Link that only ports of bridges have, and how they are when
#: a port joins.
#: Source: net/bridge/br_if.c, new_nbp
PORT_OPTIONS = {'isolated': False, 'flood_unicast': True,
                'flood_multicast': True, 'hairpin': False, 'learning': True,
                'locked': False}
#: Source: include/uapi/linux/if_link.h
_BRPORT = {
    'isolated': 'IFLA_BRPORT_ISOLATED',
    'flood_unicast': 'IFLA_BRPORT_UNICAST_FLOOD',
    'flood_multicast': 'IFLA_BRPORT_MCAST_FLOOD',
    'hairpin': 'IFLA_BRPORT_MODE',
    'learning': 'IFLA_BRPORT_LEARNING',
    'locked': 'IFLA_BRPORT_LOCKED',
}


def _know_locked() -> None:
    """Have pyroute2 before 0.9.1 know the option: it ignores what it does not.

    Without a word, both in what is set and in what is read.
    """
    known = ifinfmsg.protinfo_bridge
    if 'IFLA_BRPORT_LOCKED' in [attribute[0] for attribute in known.nla_map]:
        return
    # In the kernel's order: the position is the number.
    ifinfmsg.ifinfbase.ifinfo.bridge_slave_data = type(
        'bridge_slave_data', (known,), {'nla_map': known.nla_map + (
            ('IFLA_BRPORT_MCAST_EHT_HOSTS_LIMIT', 'uint32'),
            ('IFLA_BRPORT_MCAST_EHT_HOSTS_CNT', 'uint32'),
            ('IFLA_BRPORT_LOCKED', 'uint8'))})


_know_locked()


#: Where a filter sees what comes in; for which frames, with which priority.
#: Source: include/uapi/linux/pkt_sched.h (TC_H_CLSACT, TC_H_MIN_INGRESS),
#: linux/if_ether.h (ETH_P_ALL)
_INGRESS, _PRIORITY, _ALL_FRAMES = 0xfffffff2, 29793, socket.htons(3)
#: The filter's verdict is final. Source: include/uapi/linux/pkt_cls.h,
#: TCA_BPF_FLAG_ACT_DIRECT, TC_ACT_UNSPEC (as if there were no filter),
#: TC_ACT_SHOT
_ACT_DIRECT, _PASS, _DROP = 1, 0xffffffff, 2


class _FilterMessage(pyroute2_netlink.nlmsg):  # type: ignore[misc]
    """A tc filter of classic BPF, which pyroute2 has for eBPF only."""
    prefix = 'TCA_'
    fields = (('family', 'B'), ('pad1', 'B'), ('pad2', 'H'), ('index', 'i'),
              ('handle', 'I'), ('parent', 'I'), ('info', 'I'))
    nla_map = (('TCA_UNSPEC', 'none'), ('TCA_KIND', 'asciiz'),
               ('TCA_OPTIONS', 'options'))

    class options(pyroute2_netlink.nla):  # type: ignore[misc]
        nla_map = (('TCA_BPF_UNSPEC', 'none'), ('TCA_BPF_ACT', 'hex'),
                   ('TCA_BPF_POLICE', 'hex'), ('TCA_BPF_CLASSID', 'uint32'),
                   ('TCA_BPF_OPS_LEN', 'uint16'), ('TCA_BPF_OPS', 'cdata'),
                   ('TCA_BPF_FD', 'uint32'), ('TCA_BPF_NAME', 'asciiz'),
                   ('TCA_BPF_FLAGS', 'uint32'))


def _only_from(mac: str) -> bytes:
    """Return the program that takes frames of one source MAC.

    Source: include/uapi/linux/filter.h, struct sock_filter
    """
    octets = bytes.fromhex(mac.replace(':', ''))
    program = (
        (0x20, 0, 0, 6),  # Load four octets of the source, ...
        (0x15, 0, 3, int.from_bytes(octets[:4], 'big')),  # ... else drop;
        (0x28, 0, 0, 10),  # and two.
        (0x15, 0, 1, int.from_bytes(octets[4:], 'big')),
        (0x06, 0, 0, _PASS),
        (0x06, 0, 0, _DROP))
    return b''.join(struct.pack('HBBI', *each) for each in program)


def _source_filter(link: Link, mac: str | None = None) -> _FilterMessage:
    message = _FilterMessage()
    message['index'] = link.index
    message['handle'] = 1
    message['parent'] = _INGRESS
    message['info'] = _PRIORITY << 16 | _ALL_FRAMES
    message['attrs'] = [('TCA_KIND', 'bpf')]
    if mac is not None:
        program = _only_from(mac)
        message['attrs'].append(('TCA_OPTIONS', {'attrs': [
            ('TCA_BPF_OPS_LEN', len(program) // struct.calcsize('HBBI')),
            ('TCA_BPF_OPS', program),
            ('TCA_BPF_FLAGS', _ACT_DIRECT)]}))
    return message


_COMMANDS = {
    'replace': (rtnl.RTM_NEWTFILTER, pyroute2_netlink.NLM_F_CREATE
                | pyroute2_netlink.NLM_F_REPLACE),
    'get': (rtnl.RTM_GETTFILTER, 0),
    'del': (rtnl.RTM_DELTFILTER, 0)}


def _exchange(command: str, message: _FilterMessage) -> typing.Any:
    """Send a message, and return the kernel's answer, None if it has none.

    IPRoute does this with messages of its own only, in newer versions.

    :raises pyroute2.NetlinkError: the kernel refuses
    """
    kind, flags = _COMMANDS[command]
    message['header']['type'] = kind
    message['header']['flags'] = (pyroute2_netlink.NLM_F_REQUEST
                                  | pyroute2_netlink.NLM_F_ACK | flags)
    message.encode()
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW,
                       socket.NETLINK_ROUTE) as netlink:
        netlink.send(message.data)
        data = netlink.recv(_EVENT_SIZE)
    if struct.unpack_from('H', data, 4)[0] != pyroute2_netlink.NLMSG_ERROR:
        answer = _FilterMessage(data)
        answer.decode()
        return answer
    code = -struct.unpack_from('i', data, 16)[0]
    if code:
        raise pyroute2.NetlinkError(code)
    return None


def _port_options(
        options: typing.Sequence[tuple[str, int | None]],
) -> dict[str, typing.Any]:
    return {'IFLA_LINKINFO': {'attrs': [
        ('IFLA_INFO_SLAVE_KIND', 'bridge'),
        ('IFLA_INFO_SLAVE_DATA', {'attrs': options})]}}


def _to_address(message: typing.Any) -> str:
    return '%s/%d' % (message.get_attr('IFA_ADDRESS'), message['prefixlen'])


class _Attributes:
    """The attributes of a message, by name.

    Each is decoded when it is asked for. pyroute2's own look-up goes through
    all of them each time.
    """

    def __init__(self, message: typing.Any) -> None:
        self._slots = ({} if message is None else
                       {slot[0]: slot for slot in message['attrs']})

    def __contains__(self, name: str) -> bool:
        return name in self._slots

    def get(self, name: str) -> typing.Any:
        """Return a value, None if there is none."""
        slot = self._slots.get(name)
        return None if slot is None else slot[1]

    def nested(self, name: str) -> '_Attributes':
        """Return the attributes inside of one; none if it is missing."""
        return _Attributes(self.get(name))


def _to_link(message: typing.Any) -> Link:
    attributes = _Attributes(message)
    link_info = attributes.nested('IFLA_LINKINFO')
    af_spec = attributes.nested('IFLA_AF_SPEC')
    af_inet = af_spec.get('AF_INET')
    af_inet6 = af_spec.nested('AF_INET6')
    inet6_conf = af_inet6.get('IFLA_INET6_CONF')
    return Link(
        index=message['index'],
        name=attributes.get('IFLA_IFNAME'),
        kind=link_info.get('IFLA_INFO_KIND'),
        mac=attributes.get('IFLA_ADDRESS'),
        mtu=attributes.get('IFLA_MTU'),
        up=bool(message['flags'] & _IFF_UP),
        carrier=bool(attributes.get('IFLA_CARRIER')),
        master=attributes.get('IFLA_MASTER'),
        group=attributes.get('IFLA_GROUP') or 0,
        alias=attributes.get('IFLA_IFALIAS'),
        addr_gen_mode=af_inet6.get('IFLA_INET6_ADDR_GEN_MODE'),
        disable_ipv6=inet6_conf['disable_ipv6'] if inet6_conf else None,
        arp_ignore=af_inet['arp_ignore'] if af_inet else None,
        takes_ra=_takes_ra(inet6_conf) if inet6_conf else None,
        **_port_data(link_info),
        **_info_data(link_info))


def _takes_ra(inet6_conf: dict[str, int]) -> bool:
    # Source: Documentation/networking/ip-sysctl.rst, accept_ra
    return not inet6_conf['disable_ipv6'] and (
        inet6_conf['accept_ra'] == 2
        or bool(inet6_conf['accept_ra']) and not inet6_conf['forwarding'])


def _port_data(link_info: _Attributes) -> dict[str, typing.Any]:
    """Return the fields that only ports of bridges have."""
    if link_info.get('IFLA_INFO_SLAVE_KIND') != 'bridge':
        return {}
    data = link_info.nested('IFLA_INFO_SLAVE_DATA')
    options = {field: data.get(name) for field, name in _BRPORT.items()}
    return dict({field: None if value is None else bool(value)
                 for field, value in options.items()},
                port_number=data.get('IFLA_BRPORT_NO'))


def _info_data(link_info: _Attributes) -> dict[str, typing.Any]:
    """Return the fields that only links of this kind have."""
    kind = link_info.get('IFLA_INFO_KIND')
    if kind == 'tun' and 'IFLA_INFO_DATA' in link_info:
        data = link_info.nested('IFLA_INFO_DATA')
        multi_queue = bool(data.get('IFLA_TUN_MULTI_QUEUE'))
        return {
            'is_tap': data.get('IFLA_TUN_TYPE') == _TUN_TYPE_TAP,
            'owner': data.get('IFLA_TUN_OWNER'),
            'persistent': bool(data.get('IFLA_TUN_PERSIST')),
            'multi_queue': multi_queue,
            'queues': data.get('IFLA_TUN_NUM_QUEUES')
            + data.get('IFLA_TUN_NUM_DISABLED_QUEUES')
            if multi_queue else None,
        }
    if kind == 'bridge' and 'IFLA_INFO_DATA' in link_info:
        data = link_info.nested('IFLA_INFO_DATA')
        return {
            'stp': bool(data.get('IFLA_BR_STP_STATE')),
            'forward_delay': data.get('IFLA_BR_FORWARD_DELAY'),
            'multicast_snooping': bool(data.get('IFLA_BR_MCAST_SNOOPING')),
        }
    return {}
