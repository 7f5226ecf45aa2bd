# SPDX-License-Identifier: Apache-2.0

"""Neutron's own driver for iptables, on one of the hosts."""

import os
import shutil
import typing

import fixtures

from tests import answering
from tests import base
from tests import hosts
from tests.oracle import worlds

_PYTHON = base.CHECKOUT / '.venv' / 'neutron-29' / 'bin' / 'python'
#: Where tools/programs.sh unpacks what a machine does not have.
_UNPACKED = base.CHECKOUT / '.venv' / 'firewall' / 'root' / 'usr'
_PROGRAMS = ('iptables-restore', 'ip6tables-restore', 'ipset', 'conntrack')


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
        self._program = self.useFixture(answering.Program(
            _PYTHON, '-m', 'tests.oracle.firewall',
            '/proc/%d/fd/%d' % (os.getpid(), self._host.namespace),
            self.useFixture(fixtures.TempDir()).path,
            environment=_environment()))

    def apply(self, world: worlds.World) -> dict[str, typing.Any]:
        """Have a world instead of what was there.

        :returns: what an agent is told of it: "devices", "security_groups"
            and "sg_member_ips", as Neutron's RPC calls them
        :raises AssertionError: Neutron does not take it
        """
        return typing.cast(dict[str, typing.Any], self._program.ask(world))
