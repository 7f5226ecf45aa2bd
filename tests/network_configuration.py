# SPDX-License-Identifier: Apache-2.0

"""Who configures the network of a host: the real ones.

systemd-networkd, ifupdown2 and NetworkManager see one network namespace only,
the test's, and no configuration but the test's.
"""

import contextlib
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import typing

from tests import base
from tests import hosts
from tests import patience

_VENVS = base.CHECKOUT / '.venv'
#: Where tools/programs.sh unpacks what a machine does not have.
_SYSTEMD, _IFUPDOWN2, _NETWORKMANAGER = (
    _VENVS / name / 'root'
    for name in ('networkd', 'ifupdown2', 'networkmanager'))
_NETWORKD = 'lib/systemd/systemd-networkd'
_IFUPDOWN2_FILES = 'usr/share/ifupdown2'
_NETWORKMANAGER_PROGRAM = 'usr/sbin/NetworkManager'
#: Where there may be a message bus.
_WITH_BUS = (_NETWORKMANAGER, _SYSTEMD)
#: Each may be where a file for networkd comes from.
_FOREIGN = ('/etc/systemd/network', '/lib/systemd/network',
            '/usr/lib/systemd/network', '/usr/local/lib/systemd/network')
_DIRECTORY = '/run/systemd/network'
_NFTABLES = pathlib.Path('/lib/systemd/system/nftables.service')
_PATH = '/usr/sbin:/usr/bin:/sbin:/bin'
_UID = 998
_USERS = ('root:x:0:0:root:/root:/bin/sh\n'
          'systemd-network:x:%d:%d::/:/usr/sbin/nologin\n' % (_UID, _UID))
_GROUPS = 'root:x:0:\nsystemd-network:x:%d:\n' % _UID
_MS_RDONLY = 0x1
#: Who may do what is no matter here.
_BUS = """<busconfig>
  <listen>unix:path=/run/dbus/system_bus_socket</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_destination="*"/>
    <allow receive_sender="*"/>
  </policy>
</busconfig>
"""


def missing_networkd() -> str | None:
    """Return what keeps us from running it, None if nothing does."""
    if _find(_NETWORKD, _SYSTEMD) is None:
        return 'needs systemd-networkd: run tools/programs.sh'
    return _missing_bus()


def missing_ifupdown2() -> str | None:
    """Return what keeps us from running it, None if nothing does."""
    if _find(_IFUPDOWN2_FILES, _IFUPDOWN2) is None:
        return 'needs ifupdown2: run tools/programs.sh'
    return None


def missing_network_manager() -> str | None:
    """Return what keeps us from running it, None if nothing does."""
    if _find(_NETWORKMANAGER_PROGRAM, _NETWORKMANAGER) is None:
        return 'needs NetworkManager: run tools/programs.sh'
    return _missing_bus()


def _missing_bus() -> str | None:
    if _find('usr/bin/dbus-daemon', *_WITH_BUS) is None:
        return 'needs dbus-daemon: run tools/programs.sh'
    return None


def _find(path: str, *unpacked: pathlib.Path) -> pathlib.Path | None:
    """Return the root directory below which this is."""
    return next((root for root in (pathlib.Path('/'), *unpacked)
                 if (root / path).exists()), None)


def _environment(root: pathlib.Path) -> dict[str, str]:
    """Return the environment for what is installed, or unpacked, there."""
    if root == pathlib.Path('/'):
        return dict(os.environ)
    return dict(os.environ, LD_LIBRARY_PATH=':'.join(sorted(
        {str(path.parent) for path in root.rglob('lib*.so.*')})))


Files = typing.Mapping[str, str | None]


class _Host:
    """The files and the message bus that programs of a host see.

    They are there as long as the bus is, with what one leaves for the next.

    :param set_up: makes more of the files, where they are mounted
    """

    def __init__(self, set_up: typing.Callable[[], None]) -> None:
        root = _find('usr/bin/dbus-daemon', *_WITH_BUS)
        assert root is not None

        def set_up_all() -> None:
            hosts.die_with_parent()
            _own_files()
            # Where this is read-only there is no udev to wait for.
            hosts.mount('sysfs', '/sys', 'sysfs', _MS_RDONLY)
            os.mkdir('/run/dbus')
            pathlib.Path('/run/dbus/bus.conf').write_text(_BUS)
            set_up()
        self._bus = subprocess.Popen(
            [str(root / 'usr/bin/dbus-daemon'), '--nofork', '--nopidfile',
             '--config-file=/run/dbus/bus.conf', '--print-address'],
            preexec_fn=set_up_all, env=_environment(root),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL)
        assert self._bus.stdout is not None
        # It says so when it listens.
        assert self._bus.stdout.readline(), 'dbus-daemon ended'

    def path(self, path: str) -> pathlib.Path:
        """Return how we get to a file of this host."""
        return pathlib.Path('/proc/%d/root%s' % (self._bus.pid, path))

    def start(self, root: pathlib.Path,
              *arguments: str) -> 'subprocess.Popen[bytes]':
        """Start a program of the root directory that it is below."""
        return subprocess.Popen(
            [str(root / arguments[0]), *arguments[1:]],
            preexec_fn=self._enter, env=_environment(root),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL)

    def run(self, root: pathlib.Path, *arguments: str) -> tuple[int, str]:
        """Run one; return its exit status, and what it says."""
        done = subprocess.run(
            [str(root / arguments[0]), *arguments[1:]],
            preexec_fn=self._enter, env=_environment(root),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True)
        return done.returncode, done.stdout

    def _enter(self) -> None:
        hosts.die_with_parent()
        hosts.enter_mounts(self._bus.pid)

    def close(self) -> None:
        self._bus.terminate()
        self._bus.communicate()


class _Manager:
    """A manager of networks that runs on a host of its own.

    :param files: what each of its files has in it, by its path
    """

    #: Its program, and where it is if it is not installed.
    PLACES: tuple[str, pathlib.Path]

    def __init__(self, files: typing.Any) -> None:
        root = _find(*self.PLACES)
        assert root is not None
        self._root = root
        self._host = _Host(self._set_up)
        self._begin(files)

    def restart(self, files: typing.Any) -> None:
        """Have it end, and start with these files."""
        self._end()
        self._begin(files)

    def _end(self) -> None:
        self.process.terminate()
        self.process.wait()

    def close(self) -> None:
        self._end()
        self._host.close()


class Networkd(_Manager):
    """A systemd-networkd that runs. Without udev, as in a container.

    :param files: what each of its files has in it, by a path that may begin in
        /run/systemd/network; None: it hides those of its name
    """

    PLACES = _NETWORKD, _SYSTEMD

    @staticmethod
    def _set_up() -> None:
        for path in filter(os.path.isdir, _FOREIGN):
            hosts.mount('tmpfs', path, 'tmpfs')
        for directory in 'network', 'netif':
            os.makedirs('/run/systemd/' + directory)
        os.chown('/run/systemd/netif', _UID, _UID)

    def _begin(self, files: Files) -> None:
        self._write(files)
        self.process = self._host.start(self._root, _NETWORKD)

    def path(self, path: str) -> str:
        """Return how we get to a file that it sees."""
        return str(self._host.path(path))

    def _write(self, files: Files) -> None:
        for directory in filter(os.path.isdir, map(self._host.path, (
                *_FOREIGN, _DIRECTORY))):
            for entry in directory.iterdir():
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        for name, text in files.items():
            path = self._host.path(os.path.join(_DIRECTORY, name))
            path.parent.mkdir(exist_ok=True)
            if text is None:
                path.symlink_to(os.devnull)
            else:
                path.write_text(text)

    def reload(self, files: Files) -> None:
        """Have it read these files, as "networkctl reload" does."""
        self._write(files)

        def is_done() -> bool:
            # It may not be on the bus yet.
            return self._host.run(self._root, 'usr/bin/networkctl',
                                  'reload')[0] == 0
        patience.wait_until(is_done, 'networkd does not reload')

    def wait_for(self, link_index: int) -> None:
        """Wait until it has done all that it does to a link."""
        seen = self._host.path('/run/systemd/netif/links/%d' % link_index)

        def is_configured() -> bool:
            assert self.process.poll() is None, (
                'networkd ended: %s' % self.process.returncode)
            return (seen.exists()
                    and 'ADMIN_STATE=configured\n' in seen.read_text())
        patience.wait_until(is_configured, 'networkd does not configure it')


@contextlib.contextmanager
def networkd(files: Files) -> typing.Iterator[Networkd]:
    """Be where systemd-networkd runs for this thread's network namespace.

    :param files: what each of its files has in it
    """
    running = Networkd(files)
    try:
        yield running
    finally:
        running.close()


class NetworkManager(_Manager):
    """A NetworkManager that runs. Without udev, as in a container.

    :param files: what each of its files has in it, by its path below
        /etc/NetworkManager
    """

    #: We are root, and need no polkit for that.
    _CONFIGURATION = '[main]\nplugins=keyfile\nauth-polkit=false\n'

    PLACES = _NETWORKMANAGER_PROGRAM, _NETWORKMANAGER

    @classmethod
    def _set_up(cls) -> None:
        cls.own_directories()
        hosts.mount('tmpfs', '/var/lib', 'tmpfs')

    @classmethod
    def own_directories(cls) -> None:
        """Have nothing in them but what it cannot do without."""
        for path in ('/etc/NetworkManager', '/usr/lib/NetworkManager/conf.d',
                     '/usr/lib/NetworkManager/system-connections'):
            if os.path.isdir(path):
                hosts.mount('tmpfs', path, 'tmpfs')
        for directory in 'conf.d', 'system-connections':
            os.makedirs('/etc/NetworkManager/' + directory)
        pathlib.Path('/etc/NetworkManager/NetworkManager.conf').write_text(
            cls._CONFIGURATION)

    def _begin(self, files: dict[str, str]) -> None:
        self._write(files)
        self.process = self._host.start(
            self._root, _NETWORKMANAGER_PROGRAM, '--no-daemon')

    def _write(self, files: dict[str, str]) -> None:
        for directory in 'conf.d', 'system-connections':
            for path in self._host.path(
                    '/etc/NetworkManager/' + directory).iterdir():
                path.unlink()
        for name, text in files.items():
            path = self._host.path('/etc/NetworkManager/' + name)
            path.write_text(text)
            path.chmod(0o600)  # It takes no connections else.

    def reload(self, files: dict[str, str]) -> None:
        """Have it read these files, as "nmcli" does."""
        self._write(files)
        for what in 'general', 'connection':
            self.command(what, 'reload')

    def command(self, *arguments: str) -> str:
        """Run nmcli; return what it says."""
        status, said = self._host.run(self._root, 'usr/bin/nmcli', *arguments)
        assert status == 0, said
        return said

    def configuration(self) -> str:
        """Return what is in its files, as it prints it."""
        return self._host.run(
            self._root, _NETWORKMANAGER_PROGRAM, '--print-config')[1]

    def states(self) -> dict[str, str]:
        """Return the state of each link that it knows; none before it runs."""
        return dict(line.split(':', 1) for line in self._ask(
            '-f', 'DEVICE,STATE', 'device').splitlines())

    def has_started(self) -> bool:
        """Return whether it has done all that it does when it starts."""
        return self._ask('-f', 'STARTUP', 'general') == 'started\n'

    def _ask(self, *arguments: str) -> str:
        """Return what nmcli says; nothing where it finds nobody to ask."""
        assert self.process.poll() is None, (
            'NetworkManager ended: %s' % self.process.returncode)
        status, said = self._host.run(
            self._root, 'usr/bin/nmcli', '-t', *arguments)
        return '' if status else said


def ifupdown2(command: str, interfaces: str, state: str) -> None:
    """Run a command of ifupdown2 for this thread's network namespace.

    :param command: as "ifup"; it takes all interfaces that are "auto"
    :param interfaces: what /etc/network/interfaces has in it
    :param state: a directory for what it knows from one command to the next
    :raises AssertionError: it fails
    """
    _run_ifupdown2(['/sbin/' + command, '-a'], interfaces, state)


def networking_service(command: str, interfaces: str, state: str,
                       drop_in: str = '') -> None:
    """Do what systemd does to the service of ifupdown2, which is one-shot.

    :param command: "restart" or "reload"
    :param drop_in: of the service
    """
    root = _find(_IFUPDOWN2_FILES, _IFUPDOWN2)
    assert root is not None
    # Only root's own ones are there where it is installed.
    unit = (root / 'lib/systemd/system/networking.service').read_text()
    commands: dict[str, list[str]] = {}
    for line in (unit + drop_in).splitlines():
        key, equals, value = line.partition('=')
        if equals and key.startswith('Exec'):
            commands[key] = [value] if value else []
    for key in (['ExecReload'] if command == 'reload'
                else ['ExecStop', 'ExecStart']):
        for each in commands[key]:
            _run_ifupdown2(each.split(), interfaces, state)


def missing_nftables() -> str | None:
    """Return what keeps us from running its service, None if nothing does."""
    if shutil.which('nft', path=_PATH) is None or not _NFTABLES.exists():
        return 'needs nftables: run tools/programs.sh'
    return None


def nftables_service(command: str, configuration: str,
                     drop_in: str = '') -> tuple[int, str]:
    """Do what systemd does to the service of nftables, which is one-shot.

    :param command: "start", "restart", "reload" or "stop"
    :param configuration: what /etc/nftables.conf has in it
    :param drop_in: of the service
    :returns: the status of the first command that fails, or 0; what all say
    """
    commands: dict[str, list[str]] = {}
    environment = {'PATH': _PATH}
    for line in re.sub(r'\\\n', ' ', _NFTABLES.read_text()
                       + drop_in).splitlines():
        key, _, value = line.partition('=')
        if key.startswith('Exec'):
            commands[key] = [*commands.get(key, []), value] if value else []
        elif key == 'Environment':
            environment.update(each.split('=', 1) for each
                               in shlex.split(value))

    def set_up() -> None:
        hosts.die_with_parent()
        _own_files()
        pathlib.Path('/etc/nftables.conf').write_text(configuration)
    said = ''
    for key in {'restart': ('ExecStop', 'ExecStart'), 'stop': ('ExecStop',),
                'start': ('ExecStart',), 'reload': ('ExecReload',)}[command]:
        for each in commands[key]:
            done = subprocess.run(
                [re.sub(r'\A\$\{(\w+)\}\Z', lambda found: environment[
                    found[1]], word) for word in shlex.split(each)],
                preexec_fn=set_up, stdin=subprocess.DEVNULL, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                env=environment)
            said += done.stdout
            if done.returncode:
                return done.returncode, said
    return 0, said


def _run_ifupdown2(command: list[str], interfaces: str, state: str) -> None:

    def set_up() -> None:
        hosts.die_with_parent()
        _own_files()
        hosts.mount('sysfs', '/sys', 'sysfs')
        # What it brought up is in the second; it takes down what is no longer
        # wanted of that, so that it must not be another test's.
        hosts.mount('tmpfs', '/var/tmp', 'tmpfs')
        for path in '/run/network', '/var/tmp/network':
            os.mkdir(path)
            hosts.mount(state, path, None, hosts.MS_BIND)
        _unpack_ifupdown2()
        pathlib.Path('/etc/network/interfaces').write_text(interfaces)
    done = subprocess.run(
        command, preexec_fn=set_up, stdin=subprocess.DEVNULL, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        # With the Python that it is made for.
        env=dict(os.environ, PATH='/usr/sbin:/usr/bin:/sbin:/bin'))
    assert done.returncode == 0, done.stdout


def install_ifupdown2(interfaces: str) -> None:
    """Have it where private mounts are, and nothing of its that is here.

    :param interfaces: what /etc/network/interfaces has in it
    """
    hosts.mount('tmpfs', '/var/tmp', 'tmpfs')
    _own_etc('/var/tmp')
    _unpack_ifupdown2()
    pathlib.Path('/etc/network/interfaces').write_text(interfaces)


def _unpack_ifupdown2() -> None:
    """Have its files where they belong, in an /etc to write in."""
    root = _find(_IFUPDOWN2_FILES, _IFUPDOWN2)
    assert root is not None
    if root == _IFUPDOWN2:
        shutil.copytree(root / 'etc/network', '/etc/network',
                        dirs_exist_ok=True)
        for path in 'usr/share', 'sbin':
            hosts.mount('overlay', '/' + path, 'overlay', 0,
                        'lowerdir=%s:/%s' % (root / path, path))


def install_network_manager(files: dict[str, str]) -> None:
    """Have it where private mounts are, and nothing of its that is here.

    :param files: as :class:`NetworkManager` has them
    """
    root = _find(_NETWORKMANAGER_PROGRAM, _NETWORKMANAGER)
    assert root is not None
    hosts.mount('tmpfs', '/var/tmp', 'tmpfs')
    _own_etc('/var/tmp')
    NetworkManager.own_directories()
    for name, text in files.items():
        pathlib.Path('/etc/NetworkManager', name).write_text(text)
    if root == _NETWORKMANAGER:
        path = pathlib.Path('/var/tmp/sbin')
        path.mkdir()
        (path / 'NetworkManager').write_text(
            '#!/bin/sh\nLD_LIBRARY_PATH=%s exec %s "$@"\n' % (
                _environment(root)['LD_LIBRARY_PATH'],
                root / _NETWORKMANAGER_PROGRAM))
        (path / 'NetworkManager').chmod(0o755)
        hosts.mount('overlay', '/usr/sbin', 'overlay', 0,
                    'lowerdir=%s:/usr/sbin' % path)


def _own_files() -> None:
    """Have an empty /run, and an /etc to write in, which knows two users."""
    hosts.own_mounts()
    hosts.mount('tmpfs', '/run', 'tmpfs')
    _own_etc('/run')
    pathlib.Path('/etc/passwd').write_text(_USERS)
    pathlib.Path('/etc/group').write_text(_GROUPS)


def _own_etc(directory: str) -> None:
    """Have an /etc to write in; what is written is in this directory."""
    for name in 'etc', 'work':
        os.mkdir(os.path.join(directory, name))
    hosts.mount('overlay', '/etc', 'overlay', 0,
                'lowerdir=/etc,upperdir={0}/etc,workdir={0}/work'.format(
                    directory))
