# SPDX-License-Identifier: Apache-2.0

"""Users of this host, by name and by number, in bounded time.

Those of the host itself are in its file. All others a directory has, as LDAP
or SSSD, which may be far away and may never answer.
"""

import pwd
import time
import typing

from vif_plug_tapmac import bounded

_FILE = '/etc/passwd'
#: A directory that did not answer is left alone for so many seconds: whoever
#: asks for many users, or plugs many TAPs, waits for it once.
_RESPITE = 60.0

#: Up to when it is left alone, by time.monotonic, and what it said last.
_silent: tuple[float, str] = (0.0, '')


def uid_of(name: str) -> int | None:
    """Return the number of a user, None if there is no such user.

    :raises Unanswered: the directory of users does not say
    """
    for local, uid in _local():
        if local == name:
            return uid
    found: int | None = _ask(_uid_in_directory, name)
    return found


def name_of(uid: int) -> str | None:
    """Return the name of a user, None if nobody has this number.

    :raises Unanswered: the directory of users does not say
    """
    for local, number in _local():
        if number == uid:
            return local
    found: str | None = _ask(_name_in_directory, uid)
    return found


def _local() -> list[tuple[str, int]]:
    """Return name and number of each user that the host has itself."""
    try:
        with open(_FILE, encoding='utf-8', errors='replace') as opened:
            lines = [line.split(':') for line in opened]
    except OSError:
        return []
    return [(fields[0], int(fields[2])) for fields in lines
            if len(fields) > 2 and fields[2].isdecimal()]


def _ask(function: typing.Callable[..., typing.Any],
         who: str | int) -> typing.Any:
    global _silent
    if time.monotonic() < _silent[0]:
        raise bounded.Unanswered(_silent[1])
    try:
        return bounded.ask(function, who)
    except bounded.Unanswered as error:
        _silent = time.monotonic() + _RESPITE, str(error)
        raise


def _uid_in_directory(name: str) -> int | None:
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return None


def _name_in_directory(uid: int) -> str | None:
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return None
