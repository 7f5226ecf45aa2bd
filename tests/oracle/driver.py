# SPDX-License-Identifier: Apache-2.0

"""Neutron's own driver for iptables, on one of the hosts."""

import json
import os
import pathlib
import shutil
import subprocess
import typing

import fixtures

from tests import base
from tests import hosts
from tests.oracle import worlds

_PYTHON = base.CHECKOUT / '.venv' / 'neutron-29' / 'bin' / 'python'
#: Where tools/programs.sh unpacks what a machine does not have.
_UNPACKED = base.CHECKOUT / '.venv' / 'firewall' / 'root' / 'usr'
_PROGRAMS = ('iptables-restore', 'ip6tables-restore', 'ipset', 'conntrack')
#: How much of its log is shown when it ends before its time.
_LOG_SHOWN = 4000


def missing() -> str | None:
    """Return what keeps us from running it, None if nothing does."""
    if not _PYTHON.exists():
        return 'needs .venv/neutron-29: run tools/peers.sh'
    if not os.path.exists('/proc/sys/net/bridge'):
        return 'needs br_netfilter: modprobe br_netfilter'
    for program in _PROGRAMS:
        if shutil.which(program, path=_environment()['PATH']) is None:
            return 'needs %s: run tools/programs.sh' % program
    return None


def _environment() -> dict[str, str]:
    libraries = [str(each) for each in _UNPACKED.glob('lib/*-linux-*')]
    return dict(os.environ, PYTHONWARNINGS='ignore',
                PATH=':'.join([os.environ['PATH'], '/usr/sbin',
                               str(_UNPACKED / 'sbin')]),
                LD_LIBRARY_PATH=':'.join(libraries))


class Driver(fixtures.Fixture):
    """The process that it is in.

    :param host: where it is; its bridges have br_netfilter
    """

    def __init__(self, host: hosts.Host) -> None:
        super().__init__()
        self._host = host

    def _setUp(self) -> None:
        directory = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        self._log = directory / 'log'
        with self._log.open('w') as log:
            self._process = subprocess.Popen(
                [str(_PYTHON), '-m', 'tests.oracle.firewall',
                 '/proc/%d/fd/%d' % (os.getpid(), self._host.namespace),
                 str(directory)], text=True,
                preexec_fn=hosts.die_with_parent, cwd=base.CHECKOUT,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                env=_environment())
        self.addCleanup(self._end)
        self._read()

    def _end(self) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def apply(self, world: worlds.World) -> dict[str, typing.Any]:
        """Have a world instead of what was there.

        :returns: what an agent is told of it: "devices", "security_groups"
            and "sg_member_ips", as Neutron's RPC calls them
        :raises AssertionError: Neutron does not take it
        """
        assert self._process.stdin
        self._process.stdin.write(json.dumps(world) + '\n')
        self._process.stdin.flush()
        return typing.cast(dict[str, typing.Any], self._read())

    def _read(self) -> typing.Any:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise AssertionError(self._log.read_text()[-_LOG_SHOWN:])
        return json.loads(line)
