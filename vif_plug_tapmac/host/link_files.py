# SPDX-License-Identifier: Apache-2.0

"""What udev's .link files say of the MAC of a new TAP.

Source: systemd.link(5)
"""

import configparser
import contextlib
import fnmatch
import os

#: Those that come first win.
_DIRECTORIES = ('/etc/systemd/network', '/run/systemd/network',
                '/usr/local/lib/systemd/network', '/usr/lib/systemd/network',
                '/lib/systemd/network')
#: What is known of a TAP; a file that asks for anything else is not for it.
_TAP = {'originalname': 'tap00000000-00', 'driver': 'tun', 'type': 'ether'}


def file_that_rewrites() -> str | None:
    """Return the file by which udev gives each TAP a MAC of its own making.

    :returns: None if the file that udev uses for TAPs does not say so, or
        there is none
    """
    for path in _files():
        link = configparser.ConfigParser(
            interpolation=None, strict=False, delimiters=('=',),
            allow_no_value=True)
        try:
            link.read(path)
        except (configparser.Error, UnicodeDecodeError):
            continue
        if _matches(link):
            policy = link.get('Link', 'MACAddressPolicy', fallback='')
            return path if policy == 'persistent' else None
    return None


def _files() -> list[str]:
    """Return the files that count, in the order in which udev tries them."""
    found: dict[str, str] = {}
    for directory in _DIRECTORIES:
        # It is not there, or goes away, or is not for this user.
        with contextlib.suppress(OSError):
            for name in os.listdir(directory):
                if name.endswith('.link'):
                    found.setdefault(name, os.path.join(directory, name))
    # One of no size hides those of its name that come after.
    return [found[name] for name in sorted(found)
            if os.path.isfile(found[name])]


def _matches(link: configparser.ConfigParser) -> bool:
    if not link.has_section('Match') or not link.options('Match'):
        return False
    return all(
        key in _TAP and any(fnmatch.fnmatchcase(_TAP[key], pattern)
                            for pattern in (value or '').split())
        for key, value in link.items('Match'))
