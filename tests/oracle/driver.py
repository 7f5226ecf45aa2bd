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
_OLD = base.CHECKOUT / '.venv' / 'neutron-25'
_PACKAGES = 'lib/python3*/site-packages'
#: Where tools/programs.sh unpacks what a machine does not have.
_UNPACKED = base.CHECKOUT / '.venv' / 'firewall' / 'root' / 'usr'
_PROGRAMS = ('iptables-restore', 'ip6tables-restore', 'ipset', 'conntrack')


def missing(ebtables: bool = False) -> str | None:
    """Return what keeps us from running it, None if nothing does.

    :param ebtables: as for :class:`Driver`
    """
    if not _PYTHON.exists():
        return 'needs .venv/neutron-29: run tools/peers.sh'
    if ebtables and not list(_OLD.glob(_PACKAGES)):
        return 'needs %s: run tools/peers.sh' % _OLD
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
    :param ebtables: whether it has the rules of ebtables, too, that the Linux
        bridge agent of Neutron 25 had
    """

    def __init__(self, host: hosts.Host, ebtables: bool = False) -> None:
        super().__init__()
        self._host = host
        self._packages = list(_OLD.glob(_PACKAGES)) if ebtables else []

    def _setUp(self) -> None:
        self._program = self.useFixture(answering.Program(
            _PYTHON, '-m', 'tests.oracle.firewall',
            '/proc/%d/fd/%d' % (os.getpid(), self._host.namespace),
            self.useFixture(fixtures.TempDir()).path, *self._packages,
            environment=_environment()))

    def apply(self, world: worlds.World) -> dict[str, typing.Any]:
        """Have a world instead of what was there.

        :returns: what an agent is told of it: "devices", "security_groups"
            and "sg_member_ips", as Neutron's RPC calls them
        :raises AssertionError: Neutron does not take it
        """
        return typing.cast(dict[str, typing.Any], self._program.ask(world))
