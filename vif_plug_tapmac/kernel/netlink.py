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

import asyncio
import contextlib
import dataclasses
import errno
import functools
import select
import socket
import struct
import types
import typing

from oslo_log import log as logging
import pyroute2
from pyroute2.netlink.exceptions import NetlinkDecodeError
from pyroute2.netlink.exceptions import NetlinkDumpInterrupted
from pyroute2.netlink import rtnl
from pyroute2.nftables import main as nftables

from vif_plug_tapmac import exception
from vif_plug_tapmac.kernel import rtnetlink

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
#: In seconds, for an answer by way of pyroute2; see rtnetlink.Socket.
_PATIENCE = 10.0
#: What comes of an answer that is cut off, or not to be understood.
_GARBLED = (NetlinkDecodeError, struct.error, AttributeError, LookupError,
            TypeError, ValueError)
#: Whatever can go wrong on the way to the kernel and back.
_FAILURES = (pyroute2.NetlinkError, asyncio.CancelledError, OSError,
             *_GARBLED)
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
    :param backup_port: of a port, the index of another that gets its frames
        while it has no carrier; None if there is none
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
    backup_port: int | None = None
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
    """One netlink socket, for the time of one operation.

    What a plug asks for goes by kernel/rtnetlink.py; what is rare by pyroute2,
    whose socket is opened when it is needed. Whatever goes wrong with either
    is a KernelRefused, and in bounded time.
    """

    def __init__(self) -> None:
        with _opening():
            self._socket = rtnetlink.Socket()
        self._opened: pyroute2.IPRoute | None = None

    @property
    def _ip(self) -> pyroute2.IPRoute:
        if self._opened is None:
            with _opening():
                self._opened = pyroute2.IPRoute()
                if not hasattr(self._opened, 'asyncore'):
                    # pyroute2 before 0.8 has no event loop: it blocks.
                    self._opened.settimeout(_PATIENCE)
        return self._opened

    def __enter__(self) -> 'Netlink':
        return self

    def __exit__(self, exc_type: type[BaseException] | None,
                 exc: BaseException | None,
                 traceback: types.TracebackType | None) -> None:
        # Whatever this says, the kernel has closed it.
        with contextlib.suppress(OSError):
            self._socket.close()
        self._close()

    def _close(self) -> None:
        if self._opened is not None:
            with contextlib.suppress(OSError):
                self._opened.close()
            self._opened = None

    def find(self, name: str, device: str | None = None) -> Link | None:
        """Return the link of this name, None if there is none.

        :param device: what errors shall call it, if not so
        :raises DeviceConflict: the name is an alternative name of another
            link. The kernel looks both up alike, so that whoever asks for one
            gets, and changes, the other.
        """
        link = self._get(device or name, 0, rtnetlink.text(_IFLA_IFNAME, name))
        if link is not None and link.name != name:
            raise exception.DeviceConflict(
                device=name,
                reason='this is an alternative name of %s' % link.name,
                remedy='remove it with "ip link property del dev %s altname '
                       '%s", or use another name' % (link.name, name))
        return link

    def get(self, index: int, device: str | None = None) -> Link | None:
        """Return the link with this index, None if there is none.

        :param device: what errors shall call it, if somebody knows
        """
        return self._get(device or 'link %d' % index, index)

    def _get(self, device: str, index: int,
             *attributes: bytes) -> Link | None:
        answer: Link | None = self._request(
            device, 'looking it up', self._socket.get, rtnetlink.GET_LINK,
            rtnetlink.link(index, *attributes, _WITHOUT_STATISTICS),
            rtnetlink.NEW_LINK, tolerated=errno.ENODEV, decode=_to_link)
        return answer

    def links(self) -> list[Link]:
        """Return all links there are.

        For those who look at a whole host. A plug never does.
        """
        return self._list('links', rtnetlink.GET_LINK,
                          rtnetlink.link(0, _WITHOUT_STATISTICS), _to_link)

    def _list(self, what: str, kind: int, body: bytes,
              decode: typing.Callable[[bytes], _T]) -> list[_T]:
        """Return a whole list, also where it changes meanwhile."""
        for _ in range(_DUMPS):
            with contextlib.suppress(rtnetlink.Interrupted):
                found: list[_T] = self._request(
                    'the host', 'listing its %s' % what, self._socket.dump,
                    kind, body, decode=lambda bodies: [
                        decode(each) for each in bodies])
                return found
        raise _never_whole('the host')

    def all_addresses(self) -> dict[int, list[str]]:
        """Return the IP addresses of all links, by their index."""
        found: dict[int, list[str]] = {}
        for index, address in self._dump(
                'the host', self._ip.get_addr,
                lambda message: (message['index'], _to_address(message))):
            found.setdefault(index, []).append(address)
        return found

    def _dump(self, device: str, function: typing.Callable[[], typing.Any],
              convert: typing.Callable[[typing.Any], _T]) -> list[_T]:
        """Return a whole answer, also where links come and go meanwhile.

        Converted one by one: messages are large, and many.
        """
        for _ in range(_DUMPS):
            with contextlib.suppress(NetlinkDumpInterrupted):
                found: list[_T] = self._request(
                    device, 'listing its addresses', lambda: [
                        convert(message) for message in function()])
                return found
        raise _never_whole(device)

    def create_bridge(self, name: str, mac: str, group: int,
                      mtu: int | None) -> bool:
        """Make a bridge that is silent and has its MAC for good.

        All in one message, so nobody ever sees the bridge otherwise: the
        address given here pins it, and neither udev nor a port moves it. The
        MTU given here does not pin itself; see kernel/bridge.py.

        :returns: False if the name was taken already
        """
        attributes: dict[str, typing.Any] = (
            {} if mtu is None else {'mtu': mtu})
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
        early = [_ATTRIBUTES[field](value) for field, value in fields.items()
                 if field != 'up' and field not in PORT_OPTIONS]
        options = [rtnetlink.octet(_PORT_OPTIONS[field], fields[field])
                   for field in PORT_OPTIONS if field in fields]
        late = [port_options(*options)] if options else []
        step = step or 'setting ' + ', '.join(fields)
        name = fields.get('name', link.name)
        if early:
            self._set(link.index, name, step, early)
        if late or 'up' in fields:
            self._set(link.index, name, step, late, up=fields.get('up'))

    def _set(self, index: int, name: str, step: str,
             attributes: typing.Iterable[bytes],
             up: bool | None = None) -> None:
        """Change a link.

        :param name: for the error
        :param up: None leaves that as it is
        """
        self._request(name, step, self._socket.set, rtnetlink.NEW_LINK,
                      rtnetlink.link(index, *attributes,
                                     flags=_IFF_UP if up else 0,
                                     change=0 if up is None else _IFF_UP))

    def delete(self, link: Link) -> None:
        """Delete a link by its index; gone already is success."""
        self._request(link.name, 'deleting it', self._socket.set,
                      rtnetlink.DELETE_LINK, rtnetlink.link(link.index),
                      tolerated=errno.ENODEV)

    def delete_group(self, group: int) -> None:
        """Delete all links of a link group, in one message.

        Whoever is in it, and whoever joins it meanwhile.
        """
        self._request('link group %d' % group, 'deleting it', self._ip.link,
                      'del', index=0, group=group)

    def remove_addresses(self, link: Link) -> None:
        """Take all IP addresses from a link."""
        for address in self.addresses(link):
            alone, _, length = address.partition('/')
            self._request(
                link.name, 'removing its address', self._ip.addr, 'del',
                tolerated=errno.EADDRNOTAVAIL, index=link.index,
                address=alone, prefixlen=int(length))

    def fdb_entry(self, bridge: Link, mac: str) -> FdbEntry | None:
        """Return where the bridge sends frames for a MAC; None: everywhere.

        One look-up in the kernel's hash table, whatever the number of ports.
        """
        answer: FdbEntry | None = self._request(
            bridge.name, 'looking up %s in its FDB' % mac, self._socket.get,
            rtnetlink.GET_NEIGHBOUR, rtnetlink.neighbour(
                0, rtnetlink.mac(_NDA_LLADDR, mac),
                rtnetlink.number(_NDA_MASTER, bridge.index)),
            rtnetlink.NEW_NEIGHBOUR, tolerated=errno.ENOENT,
            decode=_to_fdb_entry)
        return answer

    def fixed_macs(self) -> set[tuple[int, str]]:
        """Return all fixed entries of all bridges: index of the port, MAC.

        For those who look at a whole host.
        """
        return {(entry.port_index, mac) for entry, mac in self._list(
            'forwarding entries', rtnetlink.GET_NEIGHBOUR,
            rtnetlink.neighbour(0), lambda body: (
                _to_fdb_entry(body), str(rtnetlink.NeighbourMessage(
                    body).attributes.mac(_NDA_LLADDR)))) if entry.fixed}

    def fix_fdb_entry(self, link: Link, mac: str) -> None:
        """Have the bridge send frames for a MAC to this port, for good.

        Whatever entry there was for the MAC is this one now. It is gone when
        the port leaves the bridge.
        """
        self._request(
            link.name, 'setting %s in the FDB of its bridge' % mac,
            self._socket.set, rtnetlink.NEW_NEIGHBOUR, rtnetlink.neighbour(
                link.index, rtnetlink.mac(_NDA_LLADDR, mac), state=_NUD_NOARP,
                flags=_NTF_MASTER | _NTF_STICKY),
            rtnetlink.CREATE | rtnetlink.REPLACE)

    def remove_fdb_entry(self, link: Link, mac: str) -> None:
        """Have a MAC no more on this port; it was not is success."""
        self._request(
            link.name, 'removing %s from the FDB of its bridge' % mac,
            self._socket.set, rtnetlink.DELETE_NEIGHBOUR, rtnetlink.neighbour(
                link.index, rtnetlink.mac(_NDA_LLADDR, mac),
                flags=_NTF_MASTER), tolerated=errno.ENOENT)

    def filter_sources(self, link: Link, mac: str) -> None:
        """Have a TAP drop what comes in from any other MAC.

        Before the bridge sees it, whether the TAP is a port or not.
        """
        step = 'filtering by the source %s' % mac
        self._request(link.name, step, self._ip.tc, 'add',
                      tolerated=errno.EEXIST, kind='clsact', index=link.index)
        program = _only_from(mac)
        count = len(program) // struct.calcsize('HBBI')
        self._request(
            link.name, step, self._socket.set, rtnetlink.NEW_FILTER,
            _source_filter(link, rtnetlink.attribute(_TCA_OPTIONS, b''.join((
                rtnetlink.attribute(_TCA_BPF_OPS_LEN, struct.pack('H', count)),
                rtnetlink.attribute(_TCA_BPF_OPS, program),
                rtnetlink.number(_TCA_BPF_FLAGS, _ACT_DIRECT))))),
            rtnetlink.CREATE | rtnetlink.REPLACE)

    def filters_sources(self, link: Link, mac: str) -> bool:
        """Return whether the TAP does that, for this MAC."""
        answer = self._request(
            link.name, 'looking up its filter', self._socket.get,
            rtnetlink.GET_FILTER, _source_filter(link), rtnetlink.NEW_FILTER,
            tolerated=errno.EINVAL)
        if answer is None:
            return False
        options = rtnetlink.traffic_control_attributes(answer).nested(
            _TCA_OPTIONS)
        return (options.octets(_TCA_BPF_OPS) == _only_from(mac)
                and options.number(_TCA_BPF_FLAGS) == _ACT_DIRECT)

    def unfilter_sources(self, link: Link) -> None:
        """Have a TAP take what comes in, from any MAC; it did is success."""
        with contextlib.suppress(exception.KernelRefused):
            self._request(link.name, 'removing its filter', self._socket.set,
                          rtnetlink.DELETE_FILTER, _source_filter(link))

    def set_backup_port(self, link: Link, other: Link | None) -> None:
        """Have another port of the bridge get a port's frames in its place.

        Only while it has no carrier: for a TAP, while nobody holds it.

        :param other: None: none
        """
        self._set(link.index, link.name, 'setting its backup port', [
            port_options(rtnetlink.number(_BRPORT_BACKUP_PORT,
                                          other.index if other else 0))])

    def forget_learned(self, link: Link) -> None:
        """Have no MAC on this port any more that the bridge had learned."""
        self._set(link.index, link.name, 'flushing what was learned there',
                  [port_options(rtnetlink.attribute(_BRPORT_FLUSH, b''))])

    def _request(self, device: str, step: str,
                 function: typing.Callable[..., typing.Any],
                 *arguments: typing.Any, tolerated: int | None = None,
                 decode: typing.Callable[[typing.Any], typing.Any]
                 = lambda answer: answer,
                 **attributes: typing.Any) -> typing.Any:
        """Return the kernel's answer, None if it refuses with this errno.

        :raises KernelRefused: it refuses with another; EBADMSG where nobody
            understands its answer
        """
        try:
            with _in_time(self._opened):
                return decode(function(*arguments, **attributes))
        except NetlinkDumpInterrupted:
            raise
        except _FAILURES as error:
            code = _errno_of(error, device, step)
        if code == tolerated:
            return None
        # pyroute2 goes on with no socket of which it once had an error.
        self._close()
        raise exception.KernelRefused.from_errno(device, step, code)

    def addresses(self, link: Link) -> list[str]:
        """Return the IP addresses of a link, each with its prefix length."""
        return self._addresses(link, _RT_SCOPE_HOST)

    def global_addresses(self, link: Link) -> list[str]:
        """Return those that are good for more than the link itself."""
        return self._addresses(link, _RT_SCOPE_LINK - 1)

    def _addresses(self, link: Link, scope: int) -> list[str]:
        return [address for address, its_scope in self._dump(
            link.name, functools.partial(self._ip.get_addr, index=link.index),
            lambda message: (_to_address(message), message['scope']))
            if its_scope <= scope]


def _errno_of(error: BaseException, device: str, step: str) -> int:
    """Return the errno that says what one of :data:`_FAILURES` was."""
    if isinstance(error, pyroute2.NetlinkError):
        return int(error.code)
    if isinstance(error, asyncio.CancelledError):
        return errno.ETIMEDOUT
    if isinstance(error, OSError):
        return error.errno or errno.ETIMEDOUT
    LOG.debug('%s: %s: not understood: %r', device, step, error)
    return errno.EBADMSG


@contextlib.contextmanager
def _opening() -> typing.Iterator[None]:
    try:
        yield
    except OSError as error:
        raise exception.KernelRefused.from_errno(
            'netlink', 'opening a socket', error.errno or errno.EIO)


_UNWATCHED = contextlib.nullcontext()


def _in_time(of_pyroute2: typing.Any) -> typing.ContextManager[None]:
    """Give up, by CancelledError, if an answer of pyroute2 does not come.

    :param of_pyroute2: its socket; None: it is not asked
    """
    if not hasattr(of_pyroute2, 'asyncore'):
        return _UNWATCHED
    return _watched(of_pyroute2.asyncore.event_loop)


@contextlib.contextmanager
def _watched(loop: asyncio.AbstractEventLoop) -> typing.Iterator[None]:
    timer = loop.call_later(_PATIENCE, _cancel_all, loop)
    try:
        yield
    finally:
        timer.cancel()


def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    for task in asyncio.all_tasks(loop):
        task.cancel()


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
        return [LinkEvent(_to_link(message.body),
                          message.kind == rtnetlink.DELETE_LINK)
                for message in rtnetlink.messages(data)
                if message.kind in (rtnetlink.NEW_LINK, rtnetlink.DELETE_LINK)
                and message.body[0] == socket.AF_UNSPEC]


def chain_that_drops_forwarded() -> str | None:
    """Return a netfilter chain that drops IPv4 unless a rule accepts it.

    Only chains that IPv4 packets pass on their way through the host. Chains of
    the old ip_tables do not show here, those of iptables-nft do.

    :returns: its table and name; None if there is none, or no nf_tables
    Source: include/uapi/linux/netfilter.h
    """
    try:
        with (nftables.NFTables(nfgen_family=socket.AF_UNSPEC) as nft,
              _in_time(nft)):
            chains = list(nft.get_chains())
    except (Exception, asyncio.CancelledError) as error:
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


#: The table and the chain in it that keep guests from the host.
SHIELD = 'tapmac_shield'
#: Source: include/uapi/linux/netfilter.h, NFPROTO_BRIDGE, NF_ACCEPT;
#: linux/netfilter/nf_tables.h: NFT_META_IIFGROUP, NFT_REG_1, NFT_CMP_EQ,
#: NFT_REG_VERDICT
_NFPROTO_BRIDGE, _NF_ACCEPT = 7, 1
_META_IIFGROUP, _REG_1, _CMP_EQ, _REG_VERDICT = 21, 1, 0, 0
#: Before whatever else there may be.
_FIRST = -300


def is_host_shielded(group: int) -> bool:
    """Return whether what ports of a link group send to the host is dropped.

    :raises KernelRefused: nf_tables is missing, or no privilege to ask
    """
    with _bridge_nftables('looking for %s' % SHIELD) as nft:
        return any(rule.get_attr('NFTA_RULE_TABLE') == SHIELD
                   and _drops_group(rule, group) for rule in nft.get_rules())


def shield_host(group: int) -> None:
    """Drop what ports of a link group send to the host through bridges.

    One rule for all of them, whoever is in the group: no port is without. Done
    twice, there are two such rules, and no harm.

    :raises KernelRefused: nf_tables is missing, or no privilege
    """
    with _bridge_nftables('adding %s' % SHIELD) as nft:
        nft.table('add', name=SHIELD)
        nft.chain('add', table=SHIELD, name=SHIELD, type='filter',
                  hook='input', priority=_FIRST, policy=_NF_ACCEPT)
        nft.rule('add', table=SHIELD, chain=SHIELD, expressions=([
            _expression('meta', key=_META_IIFGROUP, dreg=_REG_1),
            _expression('cmp', sreg=_REG_1, op=_CMP_EQ, data={'attrs': [
                ('NFTA_DATA_VALUE', struct.pack('=I', group))]}),
            _expression('immediate', dreg=_REG_VERDICT, data={'attrs': [
                ('NFTA_DATA_VERDICT', {'attrs': [
                    ('NFTA_VERDICT_CODE', _NF_DROP)]})]})],))


def unshield_host() -> None:
    """Remove the table; there is none, or no nf_tables, is success."""
    with contextlib.suppress(exception.KernelRefused):
        with _bridge_nftables('removing %s' % SHIELD) as nft:
            nft.table('del', name=SHIELD)


@contextlib.contextmanager
def _bridge_nftables(step: str) -> typing.Iterator[typing.Any]:
    try:
        with (nftables.NFTables(nfgen_family=_NFPROTO_BRIDGE) as nft,
              _in_time(nft)):
            yield nft
    except _FAILURES as error:
        raise exception.KernelRefused.from_errno(
            'nftables', step, _errno_of(error, 'nftables', step))


def _expression(name: str, **data: typing.Any) -> dict[str, typing.Any]:
    return {'attrs': [
        ('NFTA_EXPR_NAME', name),
        ('NFTA_EXPR_DATA', {'attrs': [
            ('NFTA_%s_%s' % (name.upper(), field.upper()), value)
            for field, value in data.items()]})]}


def _drops_group(rule: typing.Any, group: int) -> bool:
    expressions = rule.get_attr('NFTA_RULE_EXPRESSIONS') or []
    if [each.get_attr('NFTA_EXPR_NAME') for each in expressions] != [
            'meta', 'cmp', 'immediate']:
        return False
    meta, compared, verdict = (each.get_attr('NFTA_EXPR_DATA')
                               for each in expressions)
    value = compared.get_attr('NFTA_CMP_DATA').get_attr('NFTA_DATA_VALUE')
    code = verdict.get_attr('NFTA_IMMEDIATE_DATA').get_attr(
        'NFTA_DATA_VERDICT')
    return bool(meta.get_attr('NFTA_META_KEY') == 'NFT_META_IIFGROUP'
                and compared.get_attr('NFTA_CMP_OP') == 'NFT_CMP_EQ'
                and value == struct.pack('=I', group) and code is not None
                and code.get_attr('NFTA_VERDICT_CODE') == 'NF_DROP')


def is_named(index: int, name: str) -> bool:
    """Return whether the link with this index has, by now, this name.

    An ioctl: much cheaper than to have all of the link described.
    """
    try:
        return socket.if_nametoindex(name) == index
    except OSError:
        return False


# Attributes. Source: include/uapi/linux/if_link.h
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER = 1, 3, 4, 10
_IFLA_LINKINFO, _IFLA_IFALIAS, _IFLA_AF_SPEC, _IFLA_GROUP = 18, 20, 26, 27
_IFLA_EXT_MASK, _IFLA_CARRIER = 29, 33
_INFO_KIND, _INFO_DATA, _INFO_SLAVE_KIND, _INFO_SLAVE_DATA = 1, 2, 4, 5
_INET_CONF, _INET6_CONF, _INET6_ADDR_GEN_MODE = 1, 2, 8
_BR_FORWARD_DELAY, _BR_STP_STATE, _BR_MCAST_SNOOPING = 1, 5, 23
_TUN_OWNER, _TUN_TYPE, _TUN_PERSIST, _TUN_MULTI_QUEUE = 1, 3, 6, 7
_TUN_NUM_QUEUES, _TUN_NUM_DISABLED_QUEUES = 8, 9
#: Of an entry of the FDB. Source: include/uapi/linux/neighbour.h
_NDA_LLADDR, _NDA_MASTER = 2, 9
#: Places in arrays of sysctls. Source: include/uapi/linux/ip.h (which counts
#: from 1), linux/ipv6.h
_ARP_IGNORE = 18
_FORWARDING, _ACCEPT_RA, _DISABLE_IPV6 = 0, 3, 26
#: The counters of a link take the kernel a look at each CPU.
#: Source: include/uapi/linux/rtnetlink.h, RTEXT_FILTER_SKIP_STATS
_WITHOUT_STATISTICS = rtnetlink.number(_IFLA_EXT_MASK, 1 << 3)

_ATTRIBUTES: dict[str, typing.Callable[[typing.Any], bytes]] = {
    'name': lambda value: rtnetlink.text(_IFLA_IFNAME, value),
    'mac': lambda value: rtnetlink.mac(_IFLA_ADDRESS, value),
    'mtu': lambda value: rtnetlink.number(_IFLA_MTU, value),
    'master': lambda value: rtnetlink.number(_IFLA_MASTER, value),
    'group': lambda value: rtnetlink.number(_IFLA_GROUP, value),
    'alias': lambda value: rtnetlink.text(_IFLA_IFALIAS, value),
    'addr_gen_mode': lambda value: rtnetlink.attribute(
        _IFLA_AF_SPEC, rtnetlink.attribute(
            socket.AF_INET6, rtnetlink.octet(_INET6_ADDR_GEN_MODE, value))),
}

#: The fields of a Link that only ports of bridges have, and how they are when
#: a port joins.
#: Source: net/bridge/br_if.c, new_nbp
PORT_OPTIONS = {'isolated': False, 'flood_unicast': True,
                'flood_multicast': True, 'hairpin': False, 'learning': True,
                'locked': False}
#: Source: include/uapi/linux/if_link.h
_PORT_OPTIONS = {'isolated': 33, 'flood_unicast': 9, 'flood_multicast': 27,
                 'hairpin': 4, 'learning': 8, 'locked': 39}
_BRPORT_NO, _BRPORT_FLUSH, _BRPORT_BACKUP_PORT = 18, 24, 34

#: Where a filter sees what comes in; for which frames, with which priority.
#: Source: include/uapi/linux/pkt_sched.h (TC_H_CLSACT, TC_H_MIN_INGRESS),
#: linux/if_ether.h (ETH_P_ALL)
_INGRESS, _PRIORITY, _ALL_FRAMES = 0xfffffff2, 29793, socket.htons(3)
#: The filter's verdict is final. Source: include/uapi/linux/pkt_cls.h,
#: TCA_BPF_FLAG_ACT_DIRECT, TC_ACT_UNSPEC (as if there were no filter),
#: TC_ACT_SHOT
_ACT_DIRECT, _PASS, _DROP = 1, 0xffffffff, 2
#: Attributes. Source: include/uapi/linux/rtnetlink.h, linux/pkt_cls.h
_TCA_KIND, _TCA_OPTIONS = 1, 2
_TCA_BPF_OPS_LEN, _TCA_BPF_OPS, _TCA_BPF_FLAGS = 4, 5, 8


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


def _source_filter(link: Link, *attributes: bytes) -> bytes:
    return rtnetlink.traffic_control(
        link.index, 1, _INGRESS, _PRIORITY << 16 | _ALL_FRAMES,
        rtnetlink.text(_TCA_KIND, 'bpf'), *attributes)


def port_options(*options: bytes) -> bytes:
    """Return the attribute that sets these options of a port."""
    return rtnetlink.attribute(
        _IFLA_LINKINFO, rtnetlink.text(_INFO_SLAVE_KIND, 'bridge')
        + rtnetlink.attribute(_INFO_SLAVE_DATA, b''.join(options)))


def _never_whole(device: str) -> exception.KernelRefused:
    return exception.KernelRefused.from_errno(
        device, 'listing what is there', errno.EINTR)


def _to_address(message: typing.Any) -> str:
    return '%s/%d' % (message.get_attr('IFA_ADDRESS'), message['prefixlen'])


def _to_fdb_entry(body: bytes) -> FdbEntry:
    entry = rtnetlink.NeighbourMessage(body)
    return FdbEntry(entry.index, bool(entry.state & _NUD_PERMANENT),
                    bool(entry.state & _NUD_NOARP
                         and entry.flags & _NTF_STICKY))


def _to_link(body: bytes) -> Link:
    message = rtnetlink.LinkMessage(body)
    attributes = message.attributes
    link_info = attributes.nested(_IFLA_LINKINFO)
    af_spec = attributes.nested(_IFLA_AF_SPEC)
    inet_conf = af_spec.nested(socket.AF_INET).numbers(_INET_CONF)
    af_inet6 = af_spec.nested(socket.AF_INET6)
    inet6_conf = af_inet6.numbers(_INET6_CONF)
    return Link(
        index=message.index,
        name=_required(attributes.text(_IFLA_IFNAME)),
        kind=link_info.text(_INFO_KIND),
        mac=attributes.mac(_IFLA_ADDRESS),
        mtu=_required(attributes.number(_IFLA_MTU)),
        up=bool(message.flags & _IFF_UP),
        carrier=bool(attributes.number(_IFLA_CARRIER)),
        master=attributes.number(_IFLA_MASTER),
        group=attributes.number(_IFLA_GROUP) or 0,
        alias=attributes.text(_IFLA_IFALIAS),
        addr_gen_mode=af_inet6.number(_INET6_ADDR_GEN_MODE),
        disable_ipv6=inet6_conf[_DISABLE_IPV6] if inet6_conf else None,
        arp_ignore=inet_conf[_ARP_IGNORE] if inet_conf else None,
        takes_ra=_takes_ra(inet6_conf) if inet6_conf else None,
        **_port_data(link_info),
        **_info_data(link_info))


def _required(value: _T | None) -> _T:
    """Return what each such message has.

    :raises LookupError: this one was cut off, or is of another kind
    """
    if value is None:
        raise LookupError()
    return value


def _takes_ra(conf: tuple[int, ...]) -> bool:
    # Source: Documentation/networking/ip-sysctl.rst, accept_ra
    return not conf[_DISABLE_IPV6] and (
        conf[_ACCEPT_RA] == 2
        or bool(conf[_ACCEPT_RA]) and not conf[_FORWARDING])


def _port_data(link_info: rtnetlink.Attributes) -> dict[str, typing.Any]:
    """Return the fields that only ports of bridges have."""
    if link_info.text(_INFO_SLAVE_KIND) != 'bridge':
        return {}
    data = link_info.nested(_INFO_SLAVE_DATA)
    options = {field: data.number(kind)
               for field, kind in _PORT_OPTIONS.items()}
    return dict({field: None if value is None else bool(value)
                 for field, value in options.items()},
                port_number=data.number(_BRPORT_NO),
                backup_port=data.number(_BRPORT_BACKUP_PORT))


def _info_data(link_info: rtnetlink.Attributes) -> dict[str, typing.Any]:
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
        return {
            'stp': bool(data.number(_BR_STP_STATE)),
            'forward_delay': data.number(_BR_FORWARD_DELAY),
            'multicast_snooping': bool(data.number(_BR_MCAST_SNOOPING)),
        }
    return {}
