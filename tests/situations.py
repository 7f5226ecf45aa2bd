# SPDX-License-Identifier: Apache-2.0

"""Run a command with less privilege than the tests have.

"python -m tests.situations user COMMAND..." runs it as an ordinary user of a
machine where all may open /dev/net/tun; "user-without-tun", where only root
may; "container", as root in a container with the default settings of Docker.
All that was made for that is gone when the command ends.
"""

import ctypes
import errno
import os
import platform
import stat
import struct
import sys
import typing

from tests import hosts

_NOBODY = '65534'
#: Source: moby oci/caps/defaults.go
_CONTAINERS_CAPABILITIES = (
    'chown', 'dac_override', 'fowner', 'fsetid', 'kill', 'setgid', 'setuid',
    'setpcap', 'net_bind_service', 'net_raw', 'sys_chroot', 'mknod',
    'audit_write', 'setfcap')

_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_RET_ALLOW, _RET_ERRNO = 0x7fff0000, 0x00050000
_LOAD, _JUMP_IF_EQUAL, _JUMP_IF_ANY, _RETURN = 0x20, 0x15, 0x45, 0x06
#: Where seccomp has the number of a call and the low half of its first
#: argument.
_NUMBER, _ARGUMENT = 0, 16
_NAMESPACES = 0x7e020000
#: Of x86-64 and of the architectures that came after it.
_CALLS = {
    'x86_64': {'clone': 56, 'clone3': 435, 'mount': 165, 'umount2': 166,
               'unshare': 272, 'setns': 308},
    'aarch64': {'clone': 220, 'clone3': 435, 'mount': 40, 'umount2': 39,
                'unshare': 97, 'setns': 268}}


def missing() -> str | None:
    """Return why there are no containers here, None if there are."""
    if platform.machine() not in _CALLS or sys.maxsize < 2 ** 32:
        return 'knows the system calls of x86-64 and ARM64 only'
    return None


def command(situation: str) -> list[str]:
    """Return what to write before a command, at the top of the checkout."""
    return [sys.executable, '-m', 'tests.situations', situation]


def _forbid_namespaces() -> None:
    """Filter system calls as Docker does for who has no CAP_SYS_ADMIN.

    Source: moby profiles/seccomp/default.json
    """
    calls = _CALLS[platform.machine()]
    program = [(_LOAD, 0, 0, _NUMBER),
               (_JUMP_IF_EQUAL, 0, 1, calls['clone3']),
               (_RETURN, 0, 0, _RET_ERRNO | errno.ENOSYS)]
    for name in ('mount', 'umount2', 'unshare', 'setns'):
        program += [(_JUMP_IF_EQUAL, 0, 1, calls[name]),
                    (_RETURN, 0, 0, _RET_ERRNO | errno.EPERM)]
    program += [(_JUMP_IF_EQUAL, 0, 3, calls['clone']),
                (_LOAD, 0, 0, _ARGUMENT),
                (_JUMP_IF_ANY, 0, 1, _NAMESPACES),
                (_RETURN, 0, 0, _RET_ERRNO | errno.EPERM),
                (_RETURN, 0, 0, _RET_ALLOW)]
    code = ctypes.create_string_buffer(
        b''.join(struct.pack('HBBI', *line) for line in program))
    header = struct.pack('HxxxxxxQ', len(program), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER,
                  ctypes.create_string_buffer(header), 0, 0) != 0:
        raise OSError(ctypes.get_errno(), 'seccomp')


def _become_user(mode: int) -> list[str]:
    """Be nobody.

    :param mode: of the tun device
    """
    hosts.own_mounts()
    hosts.mount('tmpfs', '/dev/net', 'tmpfs', options='mode=755')
    os.mknod('/dev/net/tun', stat.S_IFCHR | mode, os.makedev(10, 200))
    os.chmod('/dev/net/tun', mode)  # Not kept from it by the umask.
    for directory in os.getcwd(), sys.prefix, sys.base_prefix:
        hosts.make_reachable(directory)
    os.chdir(os.getcwd())  # What was here is covered.
    return ['setpriv', '--reuid', _NOBODY, '--regid', _NOBODY,
            '--clear-groups', '--inh-caps=-all', '--bounding-set=-all']


def _enter_container() -> list[str]:
    hosts.own_mounts()
    hosts.mount('tmpfs', '/dev/net', 'tmpfs', options='mode=755')
    hosts.mount_read_only('/proc/sys')
    _forbid_namespaces()
    kept = ','.join('+' + name for name in _CONTAINERS_CAPABILITIES)
    return ['setpriv', '--inh-caps=-all', '--bounding-set=-all,' + kept]


_SITUATIONS: dict[str, typing.Callable[[], list[str]]] = {
    'user': lambda: _become_user(0o666),
    'user-without-tun': lambda: _become_user(0o600),
    'container': _enter_container}


if __name__ == '__main__':
    prefix = _SITUATIONS[sys.argv[1]]()
    os.execvp(prefix[0], prefix + sys.argv[2:])
