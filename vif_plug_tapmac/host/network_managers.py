# SPDX-License-Identifier: Apache-2.0

"""What ifupdown2 and NetworkManager are told of links: they say it themselves.

Both print what is in all their files, for any user. systemd-networkd has
nothing like that: see link_files.
"""

import fnmatch
import functools
import json
import os
import re
import shutil
import typing

from vif_plug_tapmac import bounded

#: Where programs of the system are, and the Python that they are made for.
_PATH = '/usr/sbin:/usr/bin:/sbin:/bin'
#: Their files, whose times tell whether it has to be asked again.
_OF_IFUPDOWN2 = ('/etc/network',)
_OF_NETWORK_MANAGER = ('/etc/NetworkManager', '/run/NetworkManager/conf.d',
                       '/usr/lib/NetworkManager')
_FALSE = frozenset(('0', 'no', 'false', 'off', 'n', 'f'))

#: What NetworkManager's patterns ask of a link, by what is before the ":".
Facts = typing.Mapping[str, str]


class Stanza:
    """A bridge in the files of ifupdown2.

    :param said: the values of each key
    """

    def __init__(self, name: str, said: typing.Mapping[str, typing.Any]):
        self.name = name
        self._said = said

    def keeps(self, port: str) -> bool:
        """Return whether a port of this name stays on it."""
        words = self._value('bridge-ports').split()
        return port in words or any(_is_match(pattern, port) for pattern in (
            self._value('bridge-ports-condone-regex'),
            *(after for word, after in zip(words, words[1:])
              if word == 'regex')))

    def _value(self, key: str) -> str:
        """Return the first value, which is the one that counts."""
        value = self._said.get(key, '')
        return str(value[0] if isinstance(value, list) else value)


def _is_match(pattern: str, name: str) -> bool:
    try:
        return bool(pattern) and re.match(pattern, name) is not None
    except re.error:  # Of which it says so itself, and then does nothing.
        return False


def bridges_of_ifupdown2() -> list[Stanza]:
    """Return the bridges that "ifreload -a" has as their stanzas say.

    :returns: none where there is no ifupdown2
    :raises OSError: it does not say, or says what is no JSON
    """
    # Another ifupdown has an ifquery, too, and leaves ports alone.
    if shutil.which('ifreload', path=_PATH) is None:
        return []
    said = _said(_state(_OF_IFUPDOWN2), 'ifquery', '-a', '-o', 'json')
    try:
        return [Stanza(each['name'], each['config'])
                for each in json.loads(said or '[]')
                if 'bridge-ports' in each['config']]
    except (ValueError, KeyError, TypeError) as error:
        raise OSError('ifquery: %r' % error)


class Unmanaged:
    """What NetworkManager is told to leave alone.

    :param always: patterns of what it never manages
    :param decided: patterns, and whether it leaves those alone: the first that
        a link is decides
    """

    def __init__(self, always: list[str],
                 decided: list[tuple[list[str], bool]]) -> None:
        self._always = always
        self._decided = decided

    def asks(self, what: str) -> bool:
        """Return whether this is asked of links: a key of their facts."""
        return any(what + ':' in each for patterns in (
            self._always, *(patterns for patterns, _ in self._decided))
            for each in patterns)

    def has(self, facts: Facts) -> bool:
        """Return whether it leaves a link alone."""
        return _is_one(self._always, facts) or next(
            (leaves for patterns, leaves in self._decided
             if _is_one(patterns, facts)), False)


def unmanaged_by_network_manager() -> Unmanaged | None:
    """Return what it leaves alone; None where there is no NetworkManager.

    :raises OSError: it does not say
    """
    if shutil.which('NetworkManager', path=_PATH) is None:
        return None
    said: dict[str, dict[str, str]] = {}
    section = ''
    for line in _said(_state(_OF_NETWORK_MANAGER), 'NetworkManager',
                      '--print-config').splitlines():
        key, equals, value = line.partition('=')
        if line.startswith('['):
            section = line.strip('[]')
        elif equals and not line.startswith('#'):
            said.setdefault(section, {})[key] = value
    return Unmanaged(
        _patterns(said.get('keyfile', {}).get('unmanaged-devices', '')),
        [(_patterns(values.get('match-device', '*')),
          values['managed'].lower() in _FALSE)
         for section, values in said.items()
         if section.startswith('device') and 'managed' in values])


def _patterns(value: str) -> list[str]:
    return [each.strip() for each in re.split('[,;]', value) if each.strip()]


def _is_one(patterns: list[str], facts: Facts) -> bool:
    """Return whether a link is what a list of patterns says.

    Source: NetworkManager.conf(5), Device List Format
    """
    excepted = [each.removeprefix('except:') for each in patterns
                if each.startswith('except:')]
    meant = [each for each in patterns if not each.startswith('except:')]
    if not patterns or any(_is_this(each, facts) for each in excepted):
        return False
    return not meant or any(_is_this(each, facts) for each in meant)


def _is_this(pattern: str, facts: Facts) -> bool:
    what, colon, value = pattern.partition(':')
    if pattern == '*':
        return True
    if not colon or what not in ('interface-name', 'mac', 'type', 'driver'):
        # A name alone, or a MAC alone.
        return pattern in (facts['interface-name'], facts.get('mac', ''))
    own = facts.get(what, '')
    if what == 'mac':
        return value.lower() == own
    if what == 'interface-name' and value.startswith('='):
        return value[1:] == own
    return fnmatch.fnmatchcase(own, value.removeprefix('~'))


def _state(paths: typing.Iterable[str]) -> tuple[typing.Any, ...]:
    """Return what is another when a file in one of these has changed."""
    found = []
    for top in paths:
        for directory, _, names in os.walk(top):
            for path in (os.path.join(directory, name)
                         for name in ('', *sorted(names))):
                try:
                    status = os.stat(path)
                except OSError:  # It goes away, or leads nowhere.
                    continue
                found.append((path, status.st_mtime_ns, status.st_size))
    return tuple(found)


@functools.lru_cache(maxsize=2)
def _said(state: tuple[typing.Any, ...], program: str,
          *arguments: str) -> str:
    """Return what a program says.

    :param state: as long as it is the same, so is what is said
    :raises OSError: it fails, or does not end
    """
    try:
        return bounded.run(program, *arguments, path=_PATH)
    except bounded.Unanswered as error:
        raise OSError(str(error))
