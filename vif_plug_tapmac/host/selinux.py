# SPDX-License-Identifier: Apache-2.0

"""Whether SELinux lets libvirt open the TAPs that tapmac makes.

Opening a TAP needs ``relabelfrom`` on the label of whoever made it: see
"Deploying with Nova", SELinux.
"""

import glob
import os

_SELINUX = '/sys/fs/selinux'
_CLASS = os.path.join(_SELINUX, 'class', 'tun_socket')
#: How the programs are named whose domains count.
_MAKERS, _OPENERS = ('privsep-helper',), ('virtqemud', 'libvirtd')


def refusal() -> str | None:
    """Return in words what SELinux will refuse, None if nothing is known.

    Nothing is known where SELinux does not enforce anything, or where the
    daemons of tapmac and libvirt do not run.
    """
    if _read(os.path.join(_SELINUX, 'enforce')) != '1':
        return None
    maker, opener = _domain_of(_MAKERS), _domain_of(_OPENERS)
    if maker is None or opener is None:
        return None
    for target, permission in (maker, 'relabelfrom'), (opener, 'relabelto'):
        if not _allowed(opener, target, permission):
            return '%s may not %s a tun_socket of %s' % (opener, permission,
                                                         target)
    return None


def _read(path: str) -> str | None:
    try:
        # A process may call itself whatever it likes.
        with open(path, errors='replace') as opened:
            return opened.read().strip('\n\0')
    except OSError:
        return None


def _domain_of(programs: tuple[str, ...]) -> str | None:
    """Return the label of the first process that runs one of them."""
    for process in glob.glob('/proc/[0-9]*'):
        if _read(process + '/comm') in [each[:15] for each in programs]:
            label = _read(process + '/attr/current')
            if label:
                return label
    return None


def _allowed(source: str, target: str, permission: str) -> bool:
    """Ask the kernel's policy; True also where it can't be asked.

    Source: Linux security/selinux/selinuxfs.c, sel_write_access
    """
    number = _read(os.path.join(_CLASS, 'index'))
    bit = _read(os.path.join(_CLASS, 'perms', permission))
    if number is None or bit is None:
        return True
    try:
        descriptor = os.open(os.path.join(_SELINUX, 'access'), os.O_RDWR)
        try:
            os.write(descriptor, ('%s %s %s' % (source, target,
                                                number)).encode())
            answer = os.read(descriptor, 4096).split()
        finally:
            os.close(descriptor)
    except OSError:
        return True
    return bool(int(answer[0], 16) >> (int(bit) - 1) & 1)
