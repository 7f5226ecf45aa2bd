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

The only module that translates what netlink refuses.
"""

import asyncio
import contextlib
import errno
import functools
import socket
import struct
import types
import typing

from oslo_log import log as logging
import pyroute2
from pyroute2.netlink.exceptions import NetlinkDecodeError
from pyroute2.netlink.exceptions import NetlinkDumpInterrupted

from vif_plug_tapmac import exception
from vif_plug_tapmac.kernel import fdb
from vif_plug_tapmac.kernel.fdb import FdbEntry
from vif_plug_tapmac.kernel import link as link_data
from vif_plug_tapmac.kernel.link import Link
from vif_plug_tapmac.kernel import rtnetlink

LOG = logging.getLogger(__name__)

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
FAILURES = (pyroute2.NetlinkError, asyncio.CancelledError, OSError,
            *_GARBLED)

_T = typing.TypeVar('_T')


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
        link = self._get(device or name, 0, link_data.named(name))
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
            rtnetlink.link(index, *attributes, link_data.WITHOUT_STATISTICS),
            rtnetlink.NEW_LINK, tolerated=errno.ENODEV,
            decode=Link.from_message)
        return answer

    def links(self) -> list[Link]:
        """Return all links there are.

        For those who look at a whole host. A plug never does.
        """
        return self._list('links', rtnetlink.GET_LINK,
                          rtnetlink.link(0, link_data.WITHOUT_STATISTICS),
                          Link.from_message)

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
            alias, addr_gen_mode, those in link_data.PORT_OPTIONS, up
        :param step: what this is for, in words for the error; None names the
            fields
        """
        early = link_data.settings(fields)
        late = link_data.port_settings(fields)
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
                      rtnetlink.link(
                          index, *attributes,
                          flags=link_data.IFF_UP if up else 0,
                          change=0 if up is None else link_data.IFF_UP))

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
            rtnetlink.GET_NEIGHBOUR, fdb.question(bridge.index, mac),
            rtnetlink.NEW_NEIGHBOUR, tolerated=errno.ENOENT,
            decode=FdbEntry.from_message)
        return answer

    def fixed_macs(self) -> set[tuple[int, str]]:
        """Return all fixed entries of all bridges: index of the port, MAC.

        For those who look at a whole host.
        """
        return {(entry.port_index, mac) for entry, mac in self._list(
            'forwarding entries', rtnetlink.GET_NEIGHBOUR,
            rtnetlink.neighbour(0), lambda body: (
                FdbEntry.from_message(body), fdb.mac_of(body)))
                if entry.fixed}

    def fix_fdb_entry(self, link: Link, mac: str) -> None:
        """Have the bridge send frames for a MAC to this port, for good.

        Whatever entry there was for the MAC is this one now. It is gone when
        the port leaves the bridge.
        """
        self._request(
            link.name, 'setting %s in the FDB of its bridge' % mac,
            self._socket.set, rtnetlink.NEW_NEIGHBOUR,
            fdb.fixed(link.index, mac), rtnetlink.CREATE | rtnetlink.REPLACE)

    def remove_fdb_entry(self, link: Link, mac: str) -> None:
        """Have a MAC no more on this port; it was not is success."""
        self._request(
            link.name, 'removing %s from the FDB of its bridge' % mac,
            self._socket.set, rtnetlink.DELETE_NEIGHBOUR,
            fdb.any_kind(link.index, mac), tolerated=errno.ENOENT)

    def set_backup_port(self, link: Link, other: Link | None) -> None:
        """Have another port of the bridge get a port's frames in its place.

        Only while it has no carrier: for a TAP, while nobody holds it.

        :param other: None: none
        """
        self._set(link.index, link.name, 'setting its backup port', [
            link_data.backup_port(other.index if other else 0)])

    def forget_learned(self, link: Link) -> None:
        """Have no MAC on this port any more that the bridge had learned."""
        self._set(link.index, link.name, 'flushing what was learned there',
                  [link_data.forget_learned()])

    def add_clsact(self, link: Link, step: str) -> None:
        """Have a place for filters on a link; it has one is success."""
        self._request(link.name, step, self._ip.tc, 'add',
                      tolerated=errno.EEXIST, kind='clsact', index=link.index)

    def set(self, device: str, step: str, kind: int, body: bytes,
            flags: int = 0, tolerated: int | None = None) -> None:
        """Have something done.

        :param device: what it is done to, for the error; ``step`` likewise
        """
        self._request(device, step, self._socket.set, kind, body, flags,
                      tolerated=tolerated)

    def ask(self, device: str, step: str, kind: int, body: bytes,
            answer: int, decode: typing.Callable[[bytes], _T],
            tolerated: int | None = None) -> _T | None:
        """Return what the one message says that answers.

        :param answer: the type that it has
        :returns: None if the kernel refuses with the errno ``tolerated``
        """
        found: _T | None = self._request(
            device, step, self._socket.get, kind, body, answer,
            tolerated=tolerated, decode=decode)
        return found

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
            with in_time(self._opened):
                return decode(function(*arguments, **attributes))
        except NetlinkDumpInterrupted:
            raise
        except FAILURES as error:
            code = errno_of(error, device, step)
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


def errno_of(error: BaseException, device: str, step: str) -> int:
    """Return the errno that says what one of :data:`FAILURES` was."""
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


def in_time(of_pyroute2: typing.Any) -> typing.ContextManager[None]:
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


def is_named(index: int, name: str) -> bool:
    """Return whether the link with this index has, by now, this name.

    An ioctl: much cheaper than to have all of the link described.
    """
    try:
        return socket.if_nametoindex(name) == index
    except OSError:
        return False


def _never_whole(device: str) -> exception.KernelRefused:
    return exception.KernelRefused.from_errno(
        device, 'listing what is there', errno.EINTR)


def _to_address(message: typing.Any) -> str:
    return '%s/%d' % (message.get_attr('IFA_ADDRESS'), message['prefixlen'])
