# SPDX-License-Identifier: Apache-2.0

"""What systemd's files say of links: udev's .link, networkd's .network.

And of a service, which are read likewise. For each link the first file counts
whose [Match] fits.
Source: systemd.link(5), systemd.network(5); net_match_config of systemd's
src/shared/network-util (252)
"""

import contextlib
import dataclasses
import fnmatch
import functools
import glob
import os
import re
import typing

from vif_plug_tapmac import bounded

#: Those that come first win.
_DIRECTORIES = ('/etc/systemd/network', '/run/systemd/network',
                '/usr/local/lib/systemd/network', '/usr/lib/systemd/network',
                '/lib/systemd/network')
_OF_SERVICES = tuple(os.path.join(os.path.dirname(each), 'system')
                     for each in _DIRECTORIES)
#: What can be asked of a link, and of a host; else a key counts for nothing.
_OF_LINKS = frozenset((
    'MACAddress', 'PermanentMACAddress', 'Path', 'Driver', 'Type', 'Kind',
    'Property', 'WLANInterfaceType', 'SSID', 'BSSID'))
_OF_HOSTS = frozenset((
    'Host', 'Virtualization', 'KernelCommandLine', 'KernelVersion',
    'Credential', 'Architecture', 'Firmware'))
_TRUE = frozenset(('1', 'yes', 'y', 'true', 't', 'on'))

#: What is known of a link, by the keys of [Match]: each value is one of its
#: own. What a file asks for beyond that is not so.
Facts = typing.Mapping[str, typing.Collection[str]]


def tap(name: str, *other_names: str, mac: str = '') -> Facts:
    """Return what is known of a TAP."""
    return {'OriginalName': (name,), 'Name': (name, *other_names),
            'Driver': ('tun',), 'Type': ('ether',), 'Kind': ('tun',),
            'MACAddress': (mac,)}


def file_that_rewrites() -> str | None:
    """Return the file by which udev gives each TAP a MAC of its own making.

    :returns: None if the file that udev uses for TAPs does not say so, or
        there is none
    """
    found = _first(read('.link'), tap('tap00000000-00'))
    if found and found.last('Link', 'MACAddressPolicy') == 'persistent':
        return found.path
    return None


def file_that_takes_off(files: typing.Iterable['File'], facts: Facts,
                        bridge: str | None) -> str | None:
    """Return the file by which networkd takes a link off its bridge.

    :param files: networkd's, as :func:`read` returns them
    :param bridge: to which it belongs, None if any file's is another
    :returns: None if networkd leaves it there, as what no file is for
    """
    found = _first(files, facts)
    if (found is None or found.is_true('Link', 'Unmanaged')
            or found.is_true('Network', 'KeepMaster')):
        return None
    there = found.last('Network', 'Bridge')
    return None if there and there == bridge else found.path


def _first(files: typing.Iterable['File'], facts: Facts) -> 'File | None':
    return next((file for file in files if file.matches(facts)), None)


@dataclasses.dataclass(frozen=True)
class File:
    """A file, with those that are beside to add to it.

    :param path: its own
    :param said: the values of each key, by section and key, in their order
    """
    path: str
    said: typing.Mapping[tuple[str, str], typing.Sequence[str]]

    def last(self, section: str, key: str) -> str:
        """Return the value that counts where there is one; '' if none."""
        return (self.said.get((section, key)) or ('',))[-1]

    def is_true(self, section: str, key: str) -> bool:
        return self.last(section, key).lower() in _TRUE

    @functools.cached_property
    def asks(self) -> dict[str, typing.Sequence[str]]:
        """What it asks of links and hosts: the values of each key."""
        name = 'OriginalName' if self.path.endswith('.link') else 'Name'
        return {key: values for (section, key), values in self.said.items()
                if section == 'Match' and values
                and key in _OF_LINKS | _OF_HOSTS | {name}}

    def matches(self, facts: Facts) -> bool:
        """Return whether it is for a link; one that asks nothing is not."""
        return bool(self.asks) and all(
            _holds(key, values[-1]) if key in _OF_HOSTS
            else _fits(key, values, facts.get(key, ()))
            for key, values in self.asks.items())


def read(suffix: str) -> list[File]:
    """Return the files that count, in the order in which they are tried.

    Those that may not be read are left out.

    :param suffix: ".link" or ".network"
    """
    found = []
    # One of no size hides those of its name that come after.
    for path in filter(os.path.isfile, _in_order(suffix)):
        with contextlib.suppress(OSError, UnicodeDecodeError):
            found.append(_read(path))
    return found


def service(name: str) -> File | None:
    """Return what is said of a service; None if there is none, or no right.

    :param name: with ".service"
    """
    path = next(filter(os.path.isfile, (
        os.path.join(directory, name) for directory in _OF_SERVICES)), None)
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return path and _read(path, _OF_SERVICES) or None
    return None


def is_enabled(name: str) -> bool:
    """Return whether a service is started when the host starts."""
    return any(glob.glob(os.path.join(directory, '*.%s' % how, name))
               for directory in _OF_SERVICES for how in ('wants', 'requires'))


def _in_order(suffix: str, below: str = '',
              directories: tuple[str, ...] = ()) -> list[str]:
    """Return one path for each name, sorted by name."""
    found: dict[str, str] = {}
    for directory in directories or _DIRECTORIES:
        directory = os.path.join(directory, below)
        # It is not there, or goes away, or is not for this user.
        with contextlib.suppress(OSError):
            for name in os.listdir(directory):
                if name.endswith(suffix):
                    found.setdefault(name, os.path.join(directory, name))
    return [found[name] for name in sorted(found)]


def _read(path: str, directories: tuple[str, ...] = ()) -> File:
    said: dict[tuple[str, str], list[str]] = {}
    if os.path.getsize(path):  # Else nothing beside it counts either.
        for each in path, *filter(os.path.isfile, _in_order(
                '.conf', os.path.basename(path) + '.d', directories)):
            with open(each) as opened:
                _add(said, opened.read())
    return File(path, said)


def _add(said: dict[tuple[str, str], list[str]], text: str) -> None:
    """Add what a file says; a value of nothing takes all before it away."""
    section = ''
    for line in re.sub(r'\\\n', ' ', text).splitlines():
        line = line.strip()
        key, equals, value = (part.strip() for part in line.partition('='))
        if line.startswith('[') and line.endswith(']'):
            section = line[1:-1]
        elif equals and not line.startswith(('#', ';')):
            values = said.setdefault((section, key), [])
            values[:] = [*values, value] if value else []


def _fits(key: str, values: typing.Iterable[str],
          own: typing.Collection[str]) -> bool:
    """Return whether one of a link's values is what is asked for."""
    if key.endswith('MACAddress') or key == 'BSSID':
        return not {_digits(each) for each in own if each}.isdisjoint(
            _digits(each) for value in values for each in value.split())
    words = [(value.startswith('!'), word) for value in values
             for word in value.removeprefix('!').split()]
    if key == 'Property':
        return all(not_so != (word in own) for not_so, word in words)
    own = [each for each in own if each]
    if not own:  # It is not what it must not be.
        return all(not_so for not_so, _ in words)
    return any(_matches(words, each) for each in own)


def _digits(mac: str) -> str:
    return re.sub('[^0-9a-f]', '', mac.lower())


def _matches(words: typing.Sequence[tuple[bool, str]], value: str) -> bool:
    """Return whether this is one of some patterns, and none of others."""
    found = {not_so for not_so, word in words
             if fnmatch.fnmatchcase(value, word)}
    return True not in found and (
        False in found or all(not_so for not_so, _ in words))


@functools.lru_cache
def _holds(key: str, value: str) -> bool:
    """Return whether something is so on this host; True if nobody knows."""
    try:
        bounded.run('systemd-analyze', 'condition',
                    'Condition%s=%s' % (key, value))
    except bounded.Failed:
        return False
    except bounded.Unanswered:
        pass
    return True


def udev_properties(name: str) -> dict[str, str]:
    """Return what udev knows of a link by its name, nothing without udev."""
    try:
        said = bounded.run('udevadm', 'info', '--query=property',
                           '--path=/sys/class/net/' + name)
    except bounded.Unanswered:
        return {}
    return dict(line.split('=', 1) for line in said.splitlines()
                if '=' in line)
