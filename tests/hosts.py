# SPDX-License-Identifier: Apache-2.0

"""Hosts to test on: network namespaces, guests, and what is seen on a wire."""

import concurrent.futures
import contextlib
import ctypes
import dataclasses
import errno
import fcntl
import functools
import itertools
import os
import pathlib
import select
import signal
import socket
import struct
import sys
import threading
import time
import typing

import fixtures
import pyroute2
from pyroute2.nftables import main as nftables

from tests import patience
from vif_plug_tapmac.kernel import attributes
from vif_plug_tapmac.kernel import link as link_data
from vif_plug_tapmac.kernel.link import Link
from vif_plug_tapmac.kernel import netlink as nl
from vif_plug_tapmac.kernel import rtnetlink

#: Why there is no test on a kernel; skipped tests are counted by it.
NO_CAPABILITIES = (
    'needs CAP_SYS_ADMIN and CAP_NET_ADMIN: root, or a user namespace; in a '
    'container, --cap-add SYS_ADMIN --cap-add NET_ADMIN')
NO_TUN = ('needs /dev/net/tun: modprobe tun; in a container, '
          '--device /dev/net/tun')
NO_TUN_PERMISSION = ('may not open /dev/net/tun: needs root, or mode 0666; in '
                     'a container, --device /dev/net/tun')

#: The same, of tests that need more of it than others.
NO_VLANS = 'this kernel has no 802.1Q'
FILTERS_NO_VLANS = 'the bridges of this kernel filter no VLANs'
LOCKS_NO_PORTS = ('this kernel has no lock for ports, so no entry keeps a '
                  'guest to its MAC: it came with Linux 5.18')

_MOUNTS = '/proc/thread-self/ns/mnt'
#: As they were found.
_MOUNTS_OF_THE_MACHINE = os.readlink(_MOUNTS)
_CLONE_NEWNS = 0x00020000
_CLONE_NEWNET = 0x40000000
_MS_REC_PRIVATE = 0x4000 | 0x40000
_MS_BIND_REMOUNT_RDONLY = 0x1000 | 0x20 | 0x1
#: nosuid, nodev, noexec: in a user namespace they are there to stay.
_MS_LOCKED = 0x2 | 0x4 | 0x8
MS_BIND = 0x1000
_MS_REC = 0x4000
_PR_SET_PDEATHSIG = 1
_NS_GET_USERNS = 0xb701
_CAP_NET_ADMIN, _CAP_SYS_ADMIN = 12, 21
#: What the initial user namespace has, with other spaces between.
_EVERY_USER = ['0', '0', '4294967295']

TUNSETIFF = 0x400454ca
_TUNSETPERSIST = 0x400454cb
TUNSETOWNER = 0x400454cc
_TUNSETCARRIER = 0x400454e2
IFF_TUN, IFF_TAP, IFF_MULTI_QUEUE, IFF_NO_PI = 0x1, 0x2, 0x100, 0x1000

_BR_STATE_FORWARDING = 3
_IFA_F_TENTATIVE = 0x40
_IFLA_PROTINFO, _IFLA_BRPORT_STATE = 12, 1

#: Number and size of attributes IFLA_BRPORT_.... Source: linux/if_link.h
PORT_OPTIONS = {'LEARNING': (8, 1), 'BACKUP_PORT': (34, 4), 'LOCKED': (39, 1),
                'MAB': (40, 1), 'ISOLATED': (33, 1)}

BROADCAST = 'ff:ff:ff:ff:ff:ff'
#: IEEE 802 "local experimental ethertype 1": nobody answers it.
ETHERTYPE = 0x88b5

_libc = ctypes.CDLL(None, use_errno=True)
_Result = typing.TypeVar('_Result')
_numbers = itertools.count()


def _call(function: str, *arguments: typing.Any) -> None:
    if getattr(_libc, function)(*arguments) != 0:
        raise OSError(ctypes.get_errno(), '%s: %s' % (
            function, os.strerror(ctypes.get_errno())))


def _own_namespace(kind: str) -> int:
    # A namespace belongs to a thread, not to the process.
    return os.open('/proc/thread-self/ns/' + kind, os.O_RDONLY)


def enter(namespace: int) -> None:
    """Have this thread in another network namespace."""
    _call('setns', namespace, _CLONE_NEWNET)


@contextlib.contextmanager
def returning() -> typing.Iterator[None]:
    """Come back to the network namespace that this thread is in now."""
    _settle()
    home = _own_namespace('net')
    try:
        yield
    finally:
        enter(home)
        os.close(home)


def missing_privilege() -> str | None:
    """Return what keeps us from making hosts, None if nothing does."""
    with open('/proc/thread-self/status') as status:
        caps = next(int(line.split()[1], 16) for line in status
                    if line.startswith('CapEff'))
    if not caps >> _CAP_SYS_ADMIN & 1 or not caps >> _CAP_NET_ADMIN & 1:
        return NO_CAPABILITIES
    try:
        os.close(os.open('/dev/net/tun', os.O_RDWR))
    except PermissionError:
        return NO_TUN_PERMISSION
    except OSError:
        return NO_TUN
    return None


def in_user_namespace() -> bool:
    """Return whether root here is another user outside."""
    with open('/proc/self/uid_map') as opened:
        return opened.read().split() != _EVERY_USER


@functools.lru_cache
def _settle() -> concurrent.futures.Executor | None:
    """Have namespaces to come back to.

    Who is root in a user namespace only may leave what is not of that, as the
    host's network, and never comes back: this thread does so, into empty ones.

    :returns: what calls functions where this thread was; None if it still is
    """
    home = _own_namespace('net')
    try:
        os.close(fcntl.ioctl(home, _NS_GET_USERNS))
        return None
    except PermissionError:
        pass
    finally:
        os.close(home)
    staying = concurrent.futures.ThreadPoolExecutor(1)
    staying.submit(int).result()  # A thread starts where this one is.
    _call('unshare', _CLONE_NEWNET)
    own_mounts()
    return staying


def at_home(function: typing.Callable[..., _Result],
            *arguments: typing.Any, **named: typing.Any) -> _Result:
    """Call a function that needs the network of the machine, as pip does."""
    staying = _settle() if in_user_namespace() else None
    if staying is None:
        return function(*arguments, **named)
    return staying.submit(function, *arguments, **named).result()


def kernel_knows_vlans() -> bool:
    """Return whether there is 802.1Q: many test machines have none."""
    with Peer() as peer:
        return bool(peer.run(_can_make_a_vlan))


def _can_make_a_vlan() -> bool:
    with pyroute2.IPRoute() as ip:
        # Not on the loopback device: that never takes a VLAN.
        ip.link('add', ifname='v', kind='veth', peer='p')
        try:
            ip.link('add', ifname='v.1', kind='vlan', vlan_id=1,
                    link=ip.link_lookup(ifname='v')[0])
        except pyroute2.NetlinkError as error:
            if error.code != errno.EOPNOTSUPP:
                raise
            return False
        return True


def filters_vlans(host: 'Host') -> bool:
    """Return whether the kernel has bridges that filter VLANs."""
    try:
        host.add('probe', 'bridge', br_vlan_filtering=1)
    except pyroute2.NetlinkError as error:
        if error.code != errno.EOPNOTSUPP:
            raise
        return False
    host.delete('probe')
    return True


def locks_ports(host: 'Host') -> bool:
    """Return whether the kernel has a lock for ports of bridges."""
    bridge = host.add('probe', 'bridge')
    host.add('port', 'veth', peer='other', master=bridge.index)
    try:
        return host.link('port').locked is not None
    finally:
        host.delete('port')
        host.delete('probe')


def renames_what_is_up(host: 'Host') -> bool:
    """Return whether a link that is up may get another name.

    It may since Linux 6.2.
    """
    index = host.add('probe', 'bridge').index
    host.set('probe', state='up')
    try:
        host.ip.link('set', index=index, ifname='renamed')
        return True
    except pyroute2.NetlinkError as error:
        if error.code != errno.EBUSY:
            raise
        return False
    finally:
        host.ip.link('del', index=index)


#: NUD_NOARP and NUD_PERMANENT: an entry that was not learned. Source:
#: include/uapi/linux/neighbour.h; net/bridge/br_fdb.c, fdb_to_nud
_NUD_BY_HAND = 0x40 | 0x80


def addr_gen_mode(mode: int) -> dict[str, typing.Any]:
    """Return what sets this of a link, for :meth:`Host.set`."""
    return {'IFLA_AF_SPEC': {'attrs': [('AF_INET6', {'attrs': [
        ('IFLA_INET6_ADDR_GEN_MODE', mode)]})]}}


#: Of nf_tables, as their types and attributes are numbered. Source:
#: include/uapi/linux/netfilter/nf_tables.h
_NETLINK_NETFILTER = 12
_NEW_TABLE, _NEW_CHAIN, _NEW_RULE = 0xa00, 0xa03, 0xa06
_AT_ONCE = 100


def add_rules(table: str, count: int, family: int = 7) -> None:
    """Have a table of somebody else with so many rules, of no effect."""
    start = struct.pack('>BBH', family, 0, 0)
    own = attributes.text(1, table) + attributes.text(2, 'c')
    _transact(table, family, [(_NEW_CHAIN, start + attributes.text(1, table)
                               + attributes.text(3, 'c'))])
    _transact(table, family, [(_NEW_RULE, start + own)] * count)


def add_chains(table: str, count: int, family: int = socket.AF_INET) -> None:
    """Have a table of somebody else with so many chains, of no effect."""
    start = struct.pack('>BBH', family, 0, 0) + attributes.text(1, table)
    _transact(table, family, [
        (_NEW_CHAIN, start + attributes.text(3, 'c%d' % number))
        for number in range(count)])


def _transact(table: str, family: int,
              requests: list[tuple[int, bytes]]) -> None:
    netlink = rtnetlink.Socket(_NETLINK_NETFILTER)
    frame = struct.pack('>BBH', 0, 0, 10)
    start = struct.pack('>BBH', family, 0, 0)
    for first in range(0, len(requests), _AT_ONCE):
        netlink.transact([
            (0x10, 0, frame),
            (_NEW_TABLE, rtnetlink.CREATE, start + attributes.text(1, table)),
            *((kind, rtnetlink.CREATE | 0x800, body)
              for kind, body in requests[first:first + _AT_ONCE]),
            (0x11, 0, frame)])
    netlink.close()


def set_port_options(index: int, **options: int) -> None:
    """Set options of a port of a bridge: those of :data:`PORT_OPTIONS`."""
    netlink = rtnetlink.Socket()
    netlink.set(rtnetlink.NEW_LINK, rtnetlink.link(
        index, link_data.port_attribute(*(
            attributes.attribute(number, options[name].to_bytes(
                size, sys.byteorder))
            for name, (number, size) in PORT_OPTIONS.items()
            if name in options))))
    netlink.close()


def set_port_state(index: int, state: int) -> None:
    """Set the state of a port of a bridge, as "bridge link set" does.

    Nobody is told, so the bridge does not look at the port again.
    """
    body = rtnetlink.link(index, attributes.attribute(
        _IFLA_PROTINFO | attributes.NESTED,
        attributes.octet(_IFLA_BRPORT_STATE, state)))
    netlink = rtnetlink.Socket()
    netlink.set(rtnetlink.SET_LINK, bytes([socket.AF_BRIDGE]) + body[1:])
    netlink.close()


def is_of_a_group(mac: str) -> bool:
    """Return whether a MAC is that of many, or of all."""
    return bool(int(mac[:2], 16) & 1)


def _state_of(ip: typing.Any, index: int) -> str:
    # One link that is asked for is up to date since Linux 6.9; in a dump none
    # is, nor are the others.
    return str(ip.link('get', index=index)[0].get_attr('IFLA_OPERSTATE'))


def _wait_until_up(ip: typing.Any, name: str) -> None:
    index, = ip.link_lookup(ifname=name)
    patience.wait_until(lambda: _state_of(ip, index) == 'UP',
                        '%s does not come up' % name)


class Host(fixtures.Fixture):
    """A network namespace that the test's thread is in."""

    def _setUp(self) -> None:
        home = returning()
        home.__enter__()
        self.addCleanup(home.__exit__, None, None, None)
        _call('unshare', _CLONE_NEWNET)
        self.ip = pyroute2.IPRoute()
        self.addCleanup(self.ip.close)
        self.namespace = _own_namespace('net')
        self.addCleanup(os.close, self.namespace)

    @contextlib.contextmanager
    def here(self) -> typing.Iterator[None]:
        """Have this thread on this host meanwhile: there may be another."""
        with returning():
            enter(self.namespace)
            yield

    def processes(self) -> list[int]:
        """Return the other processes that are in this namespace."""
        namespace = os.fstat(self.namespace)
        found = []
        for pid in filter(str.isdigit, os.listdir('/proc')):
            with contextlib.suppress(OSError):  # It has ended.
                if os.path.samestat(namespace, os.stat(
                        '/proc/%s/ns/net' % pid)) and int(pid) != os.getpid():
                    found.append(int(pid))
        return found

    def find(self, name: str) -> Link | None:
        with nl.Netlink() as netlink:
            return netlink.find(name)

    def link(self, name: str) -> Link:
        link = self.find(name)
        assert link is not None, '%s does not exist' % name
        return link

    def master(self, name: str) -> str | None:
        index = self.link(name).master
        with nl.Netlink() as netlink:
            master = None if index is None else netlink.get(index)
        return master and master.name

    def addresses(self, name: str) -> list[str]:
        with nl.Netlink() as netlink:
            return netlink.addresses(self.link(name))

    def wait_until_forwarding(self, name: str) -> None:
        """Wait for the bridge to notice that a port has a carrier.

        And that it has one itself by that: until then it loses what this host
        sends there. The kernel tells both by a work queue that runs once a
        second at worst (net/core/link_watch.c).
        """
        def forwards() -> bool:
            message = self.ip.link('get', index=self.link(name).index)[0]
            return bool(message.get_nested(
                'IFLA_LINKINFO', 'IFLA_INFO_SLAVE_DATA',
                'IFLA_BRPORT_STATE') == _BR_STATE_FORWARDING
                and _state_of(self.ip, message.get_attr('IFLA_MASTER'))
                in ('UP', 'UNKNOWN'))
        patience.wait_until(forwards, '%s does not forward' % name)

    def wait_until_up(self, name: str) -> None:
        """Wait for the kernel to have done all that a carrier makes it do.

        Until then a cable loses what is sent into the end that was up first.
        A device that has never lacked a carrier is not said to be up.
        """
        _wait_until_up(self.ip, name)

    def hear(self, bridge: str, wire: str, mac: str) -> None:
        """Have a bridge hear a MAC from a device that leads to it.

        :param wire: the other end of a cable whose end there forwards
        """
        self.wait_until_up(wire)
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
            sender.bind((wire, 0))
            sender.send(frame(BROADCAST, mac, b''))
        with nl.Netlink() as netlink:
            patience.wait_until(lambda: netlink.fdb_entry(
                self.link(bridge), mac), 'not heard')

    def wait_for_addresses(self) -> None:
        """Wait until IPv6 has made sure that nobody else has ours."""
        patience.wait_until(
            lambda: not any(message['flags'] & _IFA_F_TENTATIVE
                            for message in self.ip.get_addr()),
            'an address is tentative')

    def sysctl(self, path: str) -> str:
        with open('/proc/sys/net/' + path) as opened:
            return opened.read().strip()

    def links(self) -> list[Link]:
        with nl.Netlink() as netlink:
            return netlink.links()

    def state(self) -> list[typing.Any]:
        """Return all that could tell of a change, except traffic.

        A bridge's carrier follows its ports' a moment later, IP joins the
        groups of an address a moment after it is there, and a bridge learns
        from frames, IPv6's own among them: these tell only of the time that
        went by.
        """
        return [[link if link.is_tap
                 else dataclasses.replace(link, carrier=False)
                 for link in self.links()],
                [(message['index'], message.get_attr('IFA_ADDRESS'))
                 for message in self.ip.get_addr()],
                [(message['ifindex'], message['state'],
                  message.get_attr('NDA_LLADDR'))
                 for message in self.ip.fdb('dump')
                 if message['state'] & _NUD_BY_HAND
                 and not is_of_a_group(message.get_attr('NDA_LLADDR'))]]

    def add(self, name: str, kind: str, **attributes: typing.Any) -> Link:
        self.ip.link('add', ifname=name, kind=kind, **attributes)
        return self.link(name)

    def add_bridge(self, name: str) -> Link:
        """Have a bridge as careful administrators do."""
        self.add(name, 'bridge', address='02:00:00:00:00:02')
        self.quiet_ipv6(name)
        with open('/proc/sys/net/ipv6/conf/%s/disable_ipv6' % name,
                  'w') as sysctl:
            sysctl.write('1')
        return self.set(name, state='up')

    def set(self, name: str, **attributes: typing.Any) -> Link:
        self.ip.link('set', index=self.link(name).index, **attributes)
        return self.link(name)

    def rename(self, name: str, new: str) -> None:
        """Give a link that is up another name.

        Before Linux 6.2 it is down meanwhile.
        """
        index = self.link(name).index
        try:
            self.ip.link('set', index=index, ifname=new)
        except pyroute2.NetlinkError as error:
            if error.code != errno.EBUSY:
                raise
            self.ip.link('set', index=index, state='down')
            self.ip.link('set', index=index, ifname=new)
            self.ip.link('set', index=index, state='up')

    def forward_by_default(self, verdict: int, table: str = 'filter',
                           family: int = socket.AF_INET) -> None:
        """Have a firewall as iptables-nft makes it.

        :param verdict: 0 drops, 1 accepts
        :param family: AF_INET6 as ip6tables-nft, 7 as ebtables-nft
        """
        with nftables.NFTables(nfgen_family=family) as nft:
            nft.table('add', name=table)
            nft.chain('add', table=table, name='FORWARD', type='filter',
                      hook='forward', policy=verdict)

    def delete(self, name: str) -> None:
        self.ip.link('del', index=self.link(name).index)

    def quiet_ipv6(self, name: str) -> None:
        """Keep a link from getting a link-local address."""
        self.set(name, **addr_gen_mode(link_data.ADDR_GEN_NONE))

    def add_tap(self, name: str, flags: int = IFF_TAP,
                owner: int | None = None) -> Link:
        """Make a TUN or TAP as any other program would: nobody's yet."""
        with Guest(name, flags=flags) as device:
            device.persist()
            if owner is not None:
                fcntl.ioctl(device.descriptor, TUNSETOWNER, owner)
        return self.link(name)


class Guest:
    """A process that holds a TAP open, as QEMU does, and speaks through it."""

    def __init__(self, tap: str, mac: str | None = None,
                 flags: int = IFF_TAP) -> None:
        self.mac = mac
        self.descriptor = os.open('/dev/net/tun', os.O_RDWR | os.O_NONBLOCK)
        try:
            fcntl.ioctl(self.descriptor, TUNSETIFF, struct.pack(
                '16sH22x', tap.encode(), flags | IFF_NO_PI))
        except OSError:
            self.close()
            raise

    def __enter__(self) -> 'Guest':
        return self

    def __exit__(self, *exc_info: typing.Any) -> None:
        self.close()

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
        self.descriptor = -1

    def persist(self) -> None:
        fcntl.ioctl(self.descriptor, _TUNSETPERSIST, 1)

    def fake_carrier(self, carrier: bool) -> None:
        fcntl.ioctl(self.descriptor, _TUNSETCARRIER,
                    struct.pack('i', carrier))

    def send(self, destination: str, payload: bytes) -> None:
        assert self.mac is not None
        self.write(frame(destination, self.mac, payload))

    def write(self, frame: bytes) -> None:
        """Send a frame that is made already."""
        os.write(self.descriptor, frame)

    def frames(self) -> typing.Iterator[bytes]:
        """Yield each frame that comes out, for whoever waits for one.

        :raises AssertionError: he waits for what never comes
        """
        deadline = time.monotonic() + patience.HANG
        while (left := deadline - time.monotonic()) > 0:
            if select.select([self.descriptor], [], [], left)[0]:
                yield os.read(self.descriptor, 65536)
        raise AssertionError('the frame that is waited for never comes')

    def frames_until(self, sender: 'Guest') -> list[bytes]:
        """Return what came out before a frame that this one sends to all now.

        One queue keeps the order, and whoever sends has sent when he returns:
        what was sent before and is not among these never comes.
        """
        last = b'last %d.' % next(_numbers)
        sender.send(BROADCAST, last)
        return list(itertools.takewhile(
            lambda frame: last not in frame, self.frames()))

    def waiting(self) -> list[bytes]:
        """Return what has come out by now."""
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                found.append(os.read(self.descriptor, 65536))
        return found

    def receive(self, payload: bytes) -> bool:
        """Wait for a frame with this payload for us; return that it came."""
        assert self.mac is not None
        octets = _octets(self.mac)
        return any(frame[:6] == octets and payload in frame
                   for frame in self.frames())


def _octets(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(':', ''))


def frame(destination: str, source: str, payload: bytes) -> bytes:
    """Return an Ethernet frame of our own ethertype, padded to 60 bytes."""
    return (_octets(destination) + _octets(source)
            + struct.pack('!H', ETHERTYPE) + payload).ljust(60, b'\0')


@contextlib.contextmanager
def private_mounts() -> typing.Iterator[None]:
    """Be in a mount namespace of one's own; what is mounted is gone after.

    Only for a process without other threads: the way back is closed to one
    that shares its working directory.
    """
    _settle()
    before = _own_namespace('mnt')
    directory = os.getcwd()
    _call('unshare', _CLONE_NEWNS)
    try:
        mount(None, '/', None, _MS_REC_PRIVATE)
        yield
    finally:
        _leave_mounts(before)
        os.close(before)
        os.chdir(directory)


def _leave_mounts(namespace: int) -> None:
    def leaves() -> bool:
        # A thread that was joined is still there for the kernel for a moment.
        try:
            _call('setns', namespace, _CLONE_NEWNS)
            return True
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return False
    patience.wait_until(leaves, 'there are other threads', pause=0.001)


def mount(source: str | None, target: str, kind: str | None,
          flags: int = 0, options: str | None = None) -> None:
    """Mount something, in a mount namespace of a test's own only.

    What is mounted on the machine itself is there for all tests, and stays.
    """
    assert os.readlink(_MOUNTS) != _MOUNTS_OF_THE_MACHINE, (
        '%s would be covered for all' % target)
    _call('mount', source and source.encode(), target.encode(),
          kind and kind.encode(), flags, options and options.encode())


def mount_read_only(path: str) -> None:
    mount(path, path, None, MS_BIND)
    mount(None, path, None, _MS_BIND_REMOUNT_RDONLY
          | os.statvfs(path).f_flag & _MS_LOCKED)


def die_with_parent() -> None:
    """Be killed when the thread that started us ends; for a child process."""
    _call('prctl', _PR_SET_PDEATHSIG, signal.SIGKILL)


def fork(function: typing.Callable[..., typing.Any],
         *arguments: typing.Any) -> int:
    """Call a function in a process that dies with this one; return its pid."""
    child = os.fork()
    if child == 0:
        try:
            die_with_parent()
            function(*arguments)
        finally:
            os._exit(0)
    return child


def own_mounts() -> None:
    """Be in a mount namespace of one's own; for a child process."""
    _call('unshare', _CLONE_NEWNS)
    mount(None, '/', None, _MS_REC_PRIVATE)


def enter_mounts(pid: int) -> None:
    """Be in the mount namespace of a process; for a child process."""
    namespace = os.open('/proc/%d/ns/mnt' % pid, os.O_RDONLY)
    _call('setns', namespace, _CLONE_NEWNS)
    os.close(namespace)


def own_empty_dev() -> None:
    """Have a /dev without devices; for a child process before it starts."""
    own_mounts()
    null = os.open('/dev/null', os.O_RDWR)
    mount('tmpfs', '/dev', 'tmpfs')
    os.close(os.open('/dev/null', os.O_CREAT | os.O_WRONLY, 0o666))
    mount('/proc/self/fd/%d' % null, '/dev/null', None, MS_BIND)


def mount_copy(directory: str, without: typing.Container[str] = ()) -> None:
    """Cover a directory with one that all may enter, with the same in it.

    What is made or removed in there never gets to the disk; what was there
    before is still the real thing.

    :param without: names to leave out
    """
    covered = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        mount('tmpfs', directory, 'tmpfs', options='mode=755')
        for entry in os.scandir(covered):
            with contextlib.suppress(FileNotFoundError):  # It is gone now.
                if entry.name not in without:
                    _mount_entry(covered, entry, directory)
    finally:
        os.close(covered)


def _mount_entry(covered: int, entry: 'os.DirEntry[str]',
                 directory: str) -> None:
    target = os.path.join(directory, entry.name)
    if entry.is_symlink():
        return os.symlink(os.readlink(entry.name, dir_fd=covered), target)
    if entry.is_dir():
        os.mkdir(target)
    else:
        os.close(os.open(target, os.O_CREAT))
    mount('/proc/self/fd/%d/%s' % (covered, entry.name), target, None,
          MS_BIND | _MS_REC)


def make_reachable(directory: str) -> None:
    """Let other users get to a directory by its path, in private mounts.

    A checkout, or the Python that runs the tests, may be in somebody's home.
    """
    for path in os.path.abspath(directory), os.path.realpath(directory):
        for part in *reversed(pathlib.Path(path).parents), pathlib.Path(path):
            needed = 0o005 if str(part) == path else 0o001
            if part.stat().st_mode & needed != needed:
                mount_copy(str(part))


class Peer(fixtures.Fixture):
    """A second host: a network namespace that only its own threads enter."""

    def _setUp(self) -> None:
        opened: list[int] = []
        thread = threading.Thread(target=lambda: (
            _call('unshare', _CLONE_NEWNET),
            opened.append(_own_namespace('net'))))
        thread.start()
        thread.join()
        self.namespace, = opened
        self.addCleanup(os.close, self.namespace)

    def run(self, function: typing.Callable[[], typing.Any]) -> typing.Any:
        """Call a function on this host and return what it returns."""
        results: list[typing.Any] = []
        thread = self.start(lambda: results.append(function()))
        thread.join()
        return results[0]

    def start(self, function: typing.Callable[[], typing.Any],
              ) -> threading.Thread:
        """Start a function on this host, in a thread."""
        def run() -> None:
            enter(self.namespace)
            function()
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread

    def configure(self, name: str, address: str,
                  mac: str | None = None) -> None:
        """Bring a link of this host up with an IPv4 address (a /24)."""
        def on_host() -> None:
            with pyroute2.IPRoute() as ip:
                index = ip.link_lookup(ifname=name)[0]
                if mac is not None:
                    ip.link('set', index=index, address=mac)
                ip.addr('add', index=index, address=address, prefixlen=24)
                ip.link('set', index=index, state='up')
        self.run(on_host)

    def wait_until_up(self, name: str) -> None:
        """Do as :meth:`Host.wait_until_up` does."""
        def on_host() -> None:
            with pyroute2.IPRoute() as ip:
                _wait_until_up(ip, name)
        self.run(on_host)


class Traffic:
    """A host that speaks to all guests, steadily, from when it is made.

    :param link: what it speaks on
    """

    #: In seconds, between two frames.
    _PAUSE = 0.005

    def __init__(self, peer: Peer, link: str,
                 guests: typing.Sequence[Guest]) -> None:
        peer.wait_until_up(link)
        self._guests = guests
        self._words = b'counted %d.' % next(_numbers)
        self._heard = [0] * len(guests)
        self._sent = 0
        self._stop = threading.Event()
        self._speaker = peer.run(lambda: socket.socket(
            socket.AF_PACKET, socket.SOCK_RAW))
        self._speaker.bind((link, 0))
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        """Stop it."""
        self._stop.set()
        self._thread.join()

    def lost(self) -> int:
        """Return how many frames did not get to a guest, after it stopped.

        :raises AssertionError: there is a guest that hears nothing any more
        """
        last = b'last %d.' % next(_numbers)
        self._speak(last)
        for number, guest in enumerate(self._guests):
            self._heard[number] += sum(self._words in each for each in (
                itertools.takewhile(lambda frame: last not in frame,
                                    guest.frames())))
        self._speaker.close()
        return self._sent * len(self._guests) - sum(self._heard)

    def _run(self) -> None:
        while not self._stop.wait(self._PAUSE):
            self._speak(self._words)
            self._sent += 1
            # A queue has not room for all.
            for number, guest in enumerate(self._guests):
                self._heard[number] += sum(
                    self._words in each for each in guest.waiting())

    def _speak(self, words: bytes) -> None:
        self._speaker.send(frame(BROADCAST, '52:54:00:00:00:01', words))


class Pinger:
    """Pings an address steadily and knows which echoes never came back."""

    #: How many may be under way, at the most: a queue on the way has room for
    #: so many on a machine that is too busy to empty it.
    _WINDOW = 50

    def __init__(self, peer: Peer, address: str, interval: float) -> None:
        self._address = address
        self._interval = interval
        self._stop = threading.Event()
        self.sent: set[int] = set()
        self.received: set[int] = set()
        self._latest = 0
        self._thread = peer.start(self._run)

    @property
    def lost(self) -> int:
        return len(self.sent - self.received)

    def stop(self) -> None:
        """Stop sending; wait until all echoes have come that ever will."""
        self._stop.set()
        self._thread.join()
        assert self._latest > max(self.sent), 'no echo comes back any more'

    def _run(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_RAW,
                           socket.IPPROTO_ICMP) as icmp:
            icmp.setblocking(False)
            number = 0
            while not self._stop.is_set():
                number += 1
                self.sent.add(number)
                self._send(icmp, number)
                self._listen(icmp, self._interval)
                if number - self._latest > self._WINDOW:
                    self._listen(icmp, 0.1)
            # Echoes keep their order: after one of these nothing comes.
            deadline = time.monotonic() + patience.HANG
            last = number
            while self._latest <= last and time.monotonic() < deadline:
                number += 1
                self._send(icmp, number)
                self._listen(icmp, 0.1)

    def _send(self, icmp: socket.socket, number: int) -> None:
        message = struct.pack('!BBHHH', 8, 0, 0, 0x7461, number)
        checksum = sum(struct.unpack('!4H', message))
        checksum = ~((checksum >> 16) + (checksum & 0xffff)) & 0xffff
        message = struct.pack('!BBHHH', 8, 0, checksum, 0x7461, number)
        with contextlib.suppress(OSError):  # No ARP answer: an echo lost.
            icmp.sendto(message, (self._address, 0))

    def _listen(self, icmp: socket.socket, seconds: float) -> None:
        """Take what comes in this time, and all that has come already."""
        deadline = time.monotonic() + seconds
        while select.select([icmp], [], [], max(
                0, deadline - time.monotonic()))[0]:
            with contextlib.suppress(OSError):
                packet = icmp.recv(2048)
                kind, _, _, ident, number = struct.unpack(
                    '!BBHHH', packet[20:28])
                if kind == 0 and ident == 0x7461:
                    self.received.add(number)
                    self._latest = number


class Cable:
    """Carries frames between a guest's TAP and a TAP of another host."""

    def __init__(self, one: Guest, other: Guest) -> None:
        self._ends = {one.descriptor: other.descriptor,
                      other.descriptor: one.descriptor}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def cut(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            for end in select.select(list(self._ends), [], [], 0.1)[0]:
                with contextlib.suppress(OSError):
                    os.write(self._ends[end], os.read(end, 65536))
