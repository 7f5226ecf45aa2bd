# SPDX-License-Identifier: Apache-2.0

"""A guest that is served by Neutron's own agents: DHCP, and what it fetches.

What it runs is what guests run: udhcpc of busybox, and dhclient.
"""

import contextlib
import pathlib
import re
import subprocess
import typing
from urllib import request

import fixtures
import pyroute2

from tests import base as tests_base
from tests import hosts
from tests.neutron import hypervisor
from tests import patience

#: In seconds, for what a guest fetches.
_ANSWERS_WITHIN = 10
#: Where tools/neutron.sh unpacks it.
DHCLIENT = (tests_base.CHECKOUT / '.venv' / 'dhclient' / 'root' / 'sbin'
            / 'dhclient')


def fetch(peer: hosts.Peer, url: str) -> str | None:
    """Return what a host finds at a URL; None: nobody says so."""
    def call() -> str | None:
        with contextlib.suppress(OSError):
            with request.urlopen(url, timeout=_ANSWERS_WITHIN) as answer:
                return str(answer.read().decode())
        return None
    return typing.cast(str | None, peer.run(call))


class Lease(dict[str, str]):
    """What udhcpc was told, by the names that its scripts have for it.

    Or dhclient, which has others.
    """


class Machine(fixtures.Fixture):
    """A guest with a network stack of its own, behind the TAP of a port.

    :param nic: what is plugged for it
    """

    def __init__(self, nic: hypervisor.Nic) -> None:
        self._nic = nic

    def _setUp(self) -> None:
        self.peer = self.useFixture(hosts.Peer())
        self._near = self.peer.run(lambda: hosts.Guest('eth0'))
        self.addCleanup(self._near.close)
        self.peer.run(self._configure)
        cable = hosts.Cable(self._near, self._nic.guest)
        self.addCleanup(cable.cut)
        self._directory = pathlib.Path(
            self.useFixture(fixtures.TempDir()).path)
        self._script = self._directory / 'script'
        self._script.write_text(
            '#!/bin/sh\n[ "$1" = bound ] || exit 0\n'
            'ip -4 address flush dev eth0\n'
            'ip address add $ip/$mask dev eth0\nenv > %s/lease\n'
            'set -- $staticroutes\nwhile [ $# -gt 1 ]; do\n'
            '    ip route replace $1 via $2\n    shift 2\ndone\n'
            % self._directory)
        self._script.chmod(0o755)
        self._script6 = self._directory / 'script6'
        self._script6.write_text(
            '#!/bin/sh\n[ "$reason" = BOUND6 ] || exit 0\n'
            'cd %s\nenv > lease6.new\nmv lease6.new lease6\n'
            % self._directory)
        self._script6.chmod(0o755)

    def _configure(self) -> None:
        # Nobody else has its addresses, and it need not wait to be sure.
        pathlib.Path('/proc/sys/net/ipv6/conf/eth0/accept_dad').write_text('0')
        with pyroute2.IPRoute() as ip:
            ip.link('set', index=1, state='up')
            index, = ip.link_lookup(ifname='eth0')
            ip.link('set', index=index, address=self._nic.mac, state='up')

    def run(self, *command: str) -> str:
        """Return what a command says that the guest runs."""
        def call() -> subprocess.CompletedProcess[str]:
            return subprocess.run(command, text=True, capture_output=True,
                                  timeout=patience.HANG)
        done = self.peer.run(call)
        assert done.returncode == 0, done
        return str(done.stdout + done.stderr)

    def fetch(self, url: str) -> str | None:
        """Return what is at a URL; None: nobody says so."""
        return fetch(self.peer, url)

    def dhcp(self) -> Lease | None:
        """Return what a DHCP server has for it; None: none answers soon."""
        lease = self._directory / 'lease'
        lease.unlink(missing_ok=True)
        with contextlib.suppress(AssertionError):
            self.run('busybox', 'udhcpc', '-i', 'eth0', '-f', '-n', '-q',
                     '-t', '4', '-T', '1', '-O', 'mtu', '-O', 'staticroutes',
                     '-s', str(self._script))
        if not lease.exists():
            return None
        return Lease(re.findall(r'(?m)^(\w+)=(.*)$', lease.read_text()))

    def dhcp6(self) -> Lease | None:
        """Return likewise what it has for IPv6."""
        lease, told = self._directory / 'lease6', self._directory / 'told6'
        for each in lease, told:
            each.unlink(missing_ok=True)
        (self._directory / 'conf6').write_text('timeout 4;\n')
        with (self._directory / 'log6').open('w') as log:
            process = self.peer.run(lambda: subprocess.Popen(
                [DHCLIENT, '-6', '-1', '-d', '-cf', self._directory / 'conf6',
                 '-lf', told, '-pf', self._directory / 'pid6', '-sf',
                 self._script6, 'eth0'], stdout=log, stderr=log))
        try:
            patience.wait_until(
                lambda: lease.exists() or process.poll() is not None,
                (self._directory / 'log6').read_text)
        finally:
            process.kill()
            process.wait()
        if not lease.exists():
            return None
        return Lease(re.findall(r'(?m)^(\w+)=(.*)$', lease.read_text()))
