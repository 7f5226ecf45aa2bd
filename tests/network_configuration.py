# SPDX-License-Identifier: Apache-2.0

"""Who configures the network when a host boots: the real ones.

systemd-networkd and ifupdown2 see one network namespace only, the test's, and
no configuration but the test's.
"""

import contextlib
import os
import pathlib
import shutil
import subprocess
import typing

from tests import base
from tests import hosts
from tests import patience

_VENVS = base.CHECKOUT / '.venv'
#: Where tools/programs.sh unpacks what a machine does not have.
_SYSTEMD, _IFUPDOWN2 = (_VENVS / name / 'root'
                        for name in ('networkd', 'ifupdown2'))
_NETWORKD = 'lib/systemd/systemd-networkd'
_IFUPDOWN2_FILES = 'usr/share/ifupdown2'
#: Each may be where a file for networkd comes from.
_FOREIGN = ('/etc/systemd/network', '/lib/systemd/network',
            '/usr/lib/systemd/network', '/usr/local/lib/systemd/network')
_UID = 998
_USERS = ('root:x:0:0:root:/root:/bin/sh\n'
          'systemd-network:x:%d:%d::/:/usr/sbin/nologin\n' % (_UID, _UID))
_GROUPS = 'root:x:0:\nsystemd-network:x:%d:\n' % _UID
_MS_RDONLY = 0x1


def missing_networkd() -> str | None:
    """Return what keeps us from running it, None if nothing does."""
    if _find(_NETWORKD, _SYSTEMD) is None:
        return 'needs systemd-networkd: run tools/programs.sh'
    return None


def missing_ifupdown2() -> str | None:
    """Return what keeps us from running it, None if nothing does."""
    if _find(_IFUPDOWN2_FILES, _IFUPDOWN2) is None:
        return 'needs ifupdown2: run tools/programs.sh'
    return None


def _find(path: str, unpacked: pathlib.Path) -> pathlib.Path | None:
    """Return the root directory below which this is."""
    return next((root for root in (pathlib.Path('/'), unpacked)
                 if (root / path).exists()), None)


class Networkd:
    """A systemd-networkd that runs. Without udev, as in a container.

    :param process: its own
    """

    def __init__(self, process: 'subprocess.Popen[bytes]') -> None:
        self.process = process

    def wait_for(self, link_index: int) -> None:
        """Wait until it has done all that it does to a link."""
        seen = pathlib.Path('/proc/%d/root/run/systemd/netif/links/%d' % (
            self.process.pid, link_index))

        def is_configured() -> bool:
            assert self.process.poll() is None, (
                'networkd ended: %s' % self.process.returncode)
            return (seen.exists()
                    and 'ADMIN_STATE=configured\n' in seen.read_text())
        patience.wait_until(is_configured, 'networkd does not configure it')


@contextlib.contextmanager
def networkd(files: dict[str, str]) -> typing.Iterator[Networkd]:
    """Be where systemd-networkd runs for this thread's network namespace.

    :param files: what each of its files has in it
    """
    root = _find(_NETWORKD, _SYSTEMD)
    assert root is not None

    def set_up() -> None:
        hosts.die_with_parent()
        _own_files()
        # Where this is read-only there is no udev to wait for.
        hosts.mount('sysfs', '/sys', 'sysfs', _MS_RDONLY)
        for path in filter(os.path.isdir, _FOREIGN):
            hosts.mount('tmpfs', path, 'tmpfs')
        for directory in 'network', 'netif':
            os.makedirs('/run/systemd/' + directory)
        os.chown('/run/systemd/netif', _UID, _UID)
        for name, text in files.items():
            pathlib.Path('/run/systemd/network', name).write_text(text)
    process = subprocess.Popen(
        [str(root / _NETWORKD)], preexec_fn=set_up,
        env=dict(os.environ, LD_LIBRARY_PATH=':'.join({
            str(path.parent) for path in _SYSTEMD.rglob('*.so*')})),
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL)
    try:
        yield Networkd(process)
    finally:
        process.terminate()
        process.wait()


def ifupdown2(command: str, interfaces: str, state: str) -> None:
    """Run a command of ifupdown2 for this thread's network namespace.

    :param command: as "ifup"; it takes all interfaces that are "auto"
    :param interfaces: what /etc/network/interfaces has in it
    :param state: a directory for what it knows from one command to the next
    :raises AssertionError: it fails
    """
    root = _find(_IFUPDOWN2_FILES, _IFUPDOWN2)
    assert root is not None

    def set_up() -> None:
        hosts.die_with_parent()
        _own_files()
        hosts.mount('sysfs', '/sys', 'sysfs')
        hosts.mount('tmpfs', '/var/tmp', 'tmpfs')
        os.mkdir('/run/network')
        hosts.mount(state, '/run/network', None, hosts.MS_BIND)
        if root == _IFUPDOWN2:
            shutil.copytree(root / 'etc/network', '/etc/network',
                            dirs_exist_ok=True)
            hosts.mount('overlay', '/usr/share', 'overlay', 0,
                        'lowerdir=%s:/usr/share' % (root / 'usr/share'))
        pathlib.Path('/etc/network/interfaces').write_text(interfaces)
    done = subprocess.run(
        ['/usr/bin/python3', str(root / 'sbin' / command), '-a'],
        preexec_fn=set_up, stdin=subprocess.DEVNULL, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout


def _own_files() -> None:
    """Have an empty /run, and an /etc to write in, which knows two users."""
    hosts.own_mounts()
    hosts.mount('tmpfs', '/run', 'tmpfs')
    for directory in 'etc', 'work':
        os.mkdir('/run/' + directory)
    hosts.mount('overlay', '/etc', 'overlay', 0,
                'lowerdir=/etc,upperdir=/run/etc,workdir=/run/work')
    pathlib.Path('/etc/passwd').write_text(_USERS)
    pathlib.Path('/etc/group').write_text(_GROUPS)
