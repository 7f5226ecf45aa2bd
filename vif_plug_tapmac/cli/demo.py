# SPDX-License-Identifier: Apache-2.0

"""``tapmac demo``: plug and unplug a guest where it can harm nobody."""

import argparse
import contextlib
import ctypes
import dataclasses
import errno
import logging
import os
import typing

from oslo_config import cfg

from vif_plug_tapmac.cli import as_root
from vif_plug_tapmac.cli import output
from vif_plug_tapmac.cli import tap_table
from vif_plug_tapmac import exception
from vif_plug_tapmac.kernel import bridge
from vif_plug_tapmac.kernel.link import Link
from vif_plug_tapmac.kernel import netlink as nl
from vif_plug_tapmac.kernel import tun
from vif_plug_tapmac import opts

# os.CLONE_NEWNET and os.CLONE_NEWUSER, from Python 3.12 on
_CLONE_NEWNET = 0x40000000
_CLONE_NEWUSER = 0x10000000
#: A bridge that is made has others like it written.
_SYSCTL = '/proc/sys/net/ipv4/conf/all/arp_ignore'

_BRIDGE = 'br100'
_TAP = 'tap1a2b3c4d-5e'
_GUEST_MAC = 'fa:16:3e:28:64:c2'
_TAP_MAC = 'fe:16:3e:28:64:c2'


@dataclasses.dataclass(frozen=True)
class Fact:
    """One line of the demo: what was seen three times, and what is right.

    :param before: None: there is nothing; so in the two after
    :param right: whether the three values are as they should be
    """
    name: str
    before: str | None
    during: str | None
    after: str | None
    right: bool


class Demo(output.Lister):
    """Plug and unplug a guest's TAP on br100, and show what the kernel says.

    All of it happens in a network namespace made for this and gone
    afterwards; the links of this host are not touched. Who is not root gets a
    user namespace, too, where the kernel allows that and /dev/net/tun can be
    opened. Exit status: 0 if every fact is as it should be, 1 if one is wrong
    or the demo cannot run.
    """

    _all_right = False

    def columns(self, parsed_args: argparse.Namespace) -> tuple[str, ...]:
        return 'Fact', 'Before', 'Plugged', 'Unplugged', 'Right'

    def take_action(
        self, parsed_args: argparse.Namespace,
    ) -> tuple[tuple[str, ...], list[tuple[typing.Any, ...]]]:
        facts = self._facts()
        self._all_right = all(fact.right for fact in facts)
        return self.columns(parsed_args), [
            (fact.name, fact.before, fact.during, fact.after,
             output.Said(fact.right, 'yes' if fact.right else 'NO'))
            for fact in facts]

    def run(self, parsed_args: argparse.Namespace) -> int:
        super().run(parsed_args)
        return 0 if self._all_right else 1

    def _facts(self) -> list[Fact]:
        # os-vif takes longer to be loaded than all the rest.
        import os_vif
        from os_vif import exception as os_vif_exception
        from os_vif.objects import instance_info
        instance = instance_info.InstanceInfo(
            uuid='d1b6c1b2-0000-4000-8000-000000000000', name='demo')
        _enter_own_network_namespace()
        _start_os_vif()
        # The first guest ever on this host makes the bridge. It leaves again,
        # so that br100 can be watched before, with and without ours.
        first = _vif('00000000-0000-4000-8000-000000000001',
                     'tap00000000-00', 'fa:16:3e:00:00:01')
        ours = _vif('1a2b3c4d-5e6f-4a1b-8c2d-3e4f5a6b7c8d', _TAP, _GUEST_MAC)
        try:
            with _no_warnings():
                os_vif.plug(first, instance)
            os_vif.unplug(first, instance)
            before = _observe()
            os_vif.plug(ours, instance)
            during = _observe()
            os_vif.unplug(ours, instance)
            after = _observe()
        except (os_vif_exception.PlugException,
                os_vif_exception.UnplugException) as error:
            raise error.kwargs['err']
        return _compare(before, during, after)


@dataclasses.dataclass(frozen=True)
class _Lack:
    """What the demo cannot do without.

    :param host: how it is had on a host
    :param container: options of Docker and Podman that give it to a container
    """
    what: str
    error: OSError
    host: str
    container: str


_AS_ROOT = 'run it as root with CAP_SYS_ADMIN and CAP_NET_ADMIN'


def _enter_own_network_namespace() -> None:
    """Leave the host's links behind for good.

    :raises TapMacError: the demo cannot run, for the reasons that it says
    """
    lacks = list(_enter_and_find_lacks())
    if not lacks:
        return
    raise exception.TapMacError(
        'The demo lacks %s: %s; in a container, start that with "%s", or with '
        '"--privileged".' % (
            ', '.join('%s (%s)' % (lack.what, lack.error.strerror)
                      for lack in lacks),
            ', '.join(dict.fromkeys(lack.host for lack in lacks)),
            ' '.join(lack.container for lack in lacks)))


def _enter_and_find_lacks() -> typing.Iterator[_Lack]:
    entered = True
    try:
        _unshare_network()
    except OSError as error:
        entered = False
        yield _Lack('a network namespace of its own', error, _AS_ROOT,
                    '--cap-add SYS_ADMIN --cap-add NET_ADMIN')
    try:
        os.close(os.open(tun.TUN_DEVICE, os.O_RDWR))
    except OSError as error:
        yield _Lack(tun.TUN_DEVICE, error,
                    _AS_ROOT if isinstance(error, PermissionError)
                    else 'load the driver (modprobe tun)',
                    '--device ' + tun.TUN_DEVICE)
    try:
        if os.statvfs(_SYSCTL).f_flag & os.ST_RDONLY:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        if entered:  # Others than the namespace's owner may not write it.
            os.close(os.open(_SYSCTL, os.O_WRONLY))
    except OSError as error:
        yield _Lack('a writable /proc/sys/net', error,
                    'mount /proc/sys writable',
                    '--security-opt %s=unconfined' % (
                        'systempaths' if error.errno == errno.EROFS
                        else 'apparmor'))


def _unshare_network() -> None:
    """Get a network namespace, in a user namespace if it has to be."""
    if as_root.may_change_links():
        with contextlib.suppress(PermissionError):
            return _unshare(_CLONE_NEWNET)
    uid, gid = os.geteuid(), os.getegid()
    _unshare(_CLONE_NEWUSER | _CLONE_NEWNET)
    for name, line in (('setgroups', 'deny'), ('uid_map', '0 %d 1' % uid),
                       ('gid_map', '0 %d 1' % gid)):
        with open('/proc/self/' + name, 'w') as opened:
            opened.write(line)


def _unshare(flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(flags) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _start_os_vif() -> None:
    # No configuration file: the demo shows the defaults, but for udev, which
    # does not see our network namespace. Already root, it needs no daemon to
    # be root for it.
    cfg.CONF([], project='tapmac-demo', default_config_files=[])
    opts.group(cfg.CONF)
    cfg.CONF.set_override('udev_timeout', 0.0, group=opts.GROUP)
    import os_vif
    from vif_plug_tapmac import privsep
    privsep.vif_plug.set_client_mode(False)
    os_vif.initialize()


@contextlib.contextmanager
def _no_warnings() -> typing.Iterator[None]:
    """Make a bridge without uplink, on purpose."""
    logger = logging.getLogger(bridge.__name__)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _vif(vif_id: str, name: str, guest_mac: str) -> typing.Any:
    from os_vif.objects import network
    from os_vif.objects import vif as vif_objects
    return vif_objects.VIFBridge(
        id=vif_id, plugin='tapmac', vif_name=name, address=guest_mac,
        bridge_name=_BRIDGE,
        network=network.Network(
            id='5d6a7b8c-0000-4000-8000-000000000000', bridge=_BRIDGE,
            mtu=1500))


def _observe() -> dict[str, str | None]:
    """Return what the kernel says of bridge and TAP, in words.

    :returns: None of what is not there
    """
    with nl.Netlink() as netlink:
        br100 = netlink.find(_BRIDGE)
        tap = netlink.find(_TAP)
        return {
            'br100 MAC': _text(br100 and br100.mac),
            'br100 state': _state(br100),
            'TAP': _text(tap and tap.name),
            'TAP MAC': _text(tap and tap.mac),
            'TAP master': _text(tap and _master(netlink, tap)),
            'TAP state': _state(tap),
            'TAP owner': _text(tap and tap_table.user(tap.owner)),
            'TAP MTU': _text(tap and tap.mtu),
            'TAP IP addresses': _text(
                tap and (', '.join(netlink.addresses(tap)) or 'none')),
        }


def _text(value: typing.Any) -> str | None:
    return None if value is None else str(value)


def _state(link: Link | None) -> str | None:
    if link is None:
        return None
    return 'UP' if link.up else 'DOWN'


def _master(netlink: nl.Netlink, tap: Link) -> str:
    master = None if tap.master is None else netlink.get(tap.master)
    return 'none' if master is None else master.name


def _compare(before: dict[str, str | None], during: dict[str, str | None],
             after: dict[str, str | None]) -> list[Fact]:
    expected = {'br100 MAC': before['br100 MAC'], 'br100 state': 'UP',
                'TAP': _TAP, 'TAP MAC': _TAP_MAC, 'TAP master': _BRIDGE,
                'TAP state': 'UP', 'TAP owner': 'root', 'TAP MTU': '1500',
                'TAP IP addresses': 'none'}
    facts = []
    for name, value in expected.items():
        idle = None if name.startswith('TAP') else value
        seen = before[name], during[name], after[name]
        facts.append(Fact(name, *seen, right=seen == (idle, value, idle)
                          and value is not None))
    return facts
