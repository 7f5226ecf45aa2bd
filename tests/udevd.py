# SPDX-License-Identifier: Apache-2.0

"""A real systemd-udevd that sees one network namespace only."""

import contextlib
import os
import pathlib
import subprocess
import typing

from tests import base
from tests import hosts
from tests import patience

#: Where tools/peers.sh unpacks udev on a machine that has none.
_UNPACKED = base.CHECKOUT / '.venv' / 'udev' / 'root'
#: Each may be where a rule or a link file comes from.
_FOREIGN = ('/etc/udev', '/lib/udev/rules.d', '/usr/lib/udev/rules.d',
            '/usr/local/lib/udev', '/etc/systemd/network',
            '/lib/systemd/network', '/usr/lib/systemd/network',
            '/usr/local/lib/systemd/network')
_MACHINE_ID = '0123456789abcdef0123456789abcdef'

# The whole of what Debian's udev does to a virtual network device.
_RULES = ('SUBSYSTEM=="net", ACTION!="remove", '
          'IMPORT{builtin}="net_setup_link"\n')
_LINK = ('[Match]\nOriginalName=*\n'
         '[Link]\nNamePolicy=keep kernel\nMACAddressPolicy=persistent\n')


def missing() -> str | None:
    """Return what keeps us from running udevd, None if nothing does."""
    if _program() is None:
        return 'needs udev: run tools/peers.sh'
    return None


def _program() -> pathlib.Path | None:
    for root in (pathlib.Path('/'), _UNPACKED):
        for directory in ('bin', 'usr/bin'):
            program = root / directory / 'udevadm'
            if program.exists():
                return program
    return None


@contextlib.contextmanager
def run_directory() -> typing.Iterator[pathlib.Path]:
    """Be in a mount namespace with an empty /run; return its udev/."""
    with hosts.private_mounts():
        hosts.mount('tmpfs', '/run', 'tmpfs')
        os.makedirs('/run/udev/data')
        yield pathlib.Path('/run/udev')


@contextlib.contextmanager
def running(
    *link_files: pathlib.Path,
) -> typing.Iterator['subprocess.Popen[bytes]']:
    """Be where udevd runs for this thread's network namespace.

    It and its workers are a process group of their own. It gets a /dev of its
    own, because it hears of the machine's disks, too.

    :param link_files: what it has beside 99-default.link; directories, too
    """
    program = _program()
    assert program is not None
    with run_directory() as run:
        hosts.mount('sysfs', '/sys', 'sysfs')
        # udev makes MACs of it. Not every container has one.
        hosts.mount_copy('/etc', without=['machine-id'])
        pathlib.Path('/etc/machine-id').write_text(_MACHINE_ID + '\n')
        for path in filter(os.path.isdir, _FOREIGN):
            hosts.mount('tmpfs', path, 'tmpfs')
        (run / 'rules.d').mkdir()
        (run / 'rules.d' / '80-net-setup-link.rules').write_text(_RULES)
        os.makedirs('/run/systemd/network')
        pathlib.Path('/run/systemd/network/99-default.link').write_text(_LINK)
        for path in link_files:
            subprocess.run(['cp', '-r', path, '/run/systemd/network'],
                           check=True)
        process = subprocess.Popen(
            # udevadm is udevd where it is called so.
            ['systemd-udevd'], executable=program,
            preexec_fn=_set_up_child, start_new_session=True,
            env=dict(os.environ, LD_LIBRARY_PATH=_library_path()),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL)
        try:
            _wait_until_it_answers(run, process)
            yield process
        finally:
            process.terminate()
            process.wait()


def _set_up_child() -> None:
    hosts.die_with_parent()
    hosts.own_empty_dev()


def _library_path() -> str:
    return ':'.join({str(path.parent) for path in _UNPACKED.rglob('*.so*')})


def _wait_until_it_answers(run: pathlib.Path,
                           process: 'subprocess.Popen[bytes]') -> None:
    """Wait until udevd hears of links: its socket is there before that."""
    def is_there() -> bool:
        assert process.poll() is None, 'udevd ended: %s' % process.returncode
        return (run / 'control').exists()
    patience.wait_until(is_there, 'udevd does not start')
    subprocess.run(
        [str(_program()), 'control', '--ping',
         '--timeout=%d' % patience.HANG], check=True,
        env=dict(os.environ, LD_LIBRARY_PATH=_library_path()))
