# SPDX-License-Identifier: Apache-2.0

"""Debian 13 gets, upgrades and loses our packages, with guests on the host.

The packages are built there, by what it has, and installed by its own dpkg;
the links and the filter are those of a host of the test. No systemd runs: what
maintainer scripts may ask of it, test_packages.py looks at.
"""

import pathlib
import shutil
import subprocess
import unittest

import fixtures

from tests import base
from tests.functional import test_full
from tests import hosts
from tests import patience

_DEBIAN = base.CHECKOUT / '.venv/debian-13/root'
#: What is written there stays apart, and is there for the next command.
_INSIDE = """
set -eu
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" \
    "$2/root"
mount --rbind /dev "$2/root/dev"
mount -t proc proc "$2/root/proc"
mount -t sysfs sysfs "$2/root/sys"
exec chroot "$2/root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin LC_ALL=C.UTF-8 \
    DEBIAN_FRONTEND=noninteractive HOME=/root sh -euc "$3"
"""


def load_tests(_, tests, __):
    return tests if patience.LONG else unittest.TestSuite()


@base.needs_real_root(base.INSTALLING)
class DebianTest(test_full.FullTestCase):

    def setUp(self):
        super().setUp()
        if not _DEBIAN.exists():
            self.cannot_run('needs .venv/debian-13: run tools/packages.sh '
                            'with TAPMAC_LONG=1')
        self.debian = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        for name in 'upper', 'work', 'root':
            (self.debian / name).mkdir()
        # What belongs to root inside is removed by root here.
        self.addCleanup(shutil.rmtree, self.debian, ignore_errors=True)

    def run_inside(self, command, fails=False):
        """Run commands of a shell there, on this host; return what is said."""
        done = subprocess.run(
            ['unshare', '--mount', 'sh', '-c', _INSIDE, 'inside',
             str(_DEBIAN), str(self.debian), command],
            text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT)
        self.assertEqual(fails, bool(done.returncode), done.stdout)
        return done.stdout

    def build(self, version):
        """Have the packages there, in a directory of the version's name."""
        source = self.debian / 'upper' / 'source'
        shutil.rmtree(source, ignore_errors=True)
        source.mkdir()
        archive = hosts.at_home(
            subprocess.run, ['git', 'archive', 'HEAD'], cwd=base.CHECKOUT,
            stdout=subprocess.PIPE, check=True).stdout
        subprocess.run(['tar', '-x', '-C', str(source)], input=archive,
                       check=True)
        changelog = source / 'packaging/debian/changelog'
        changelog.write_text(changelog.read_text().replace(
            '(1.0.0-1)', '(%s-1)' % version))
        self.run_inside('/source/packaging/deb.sh /%s' % version)

    def test_guests_never_notice(self):
        for version in '1.0.0', '1.0.1':
            self.build(version)
        self.plug(self.vif)
        guest = self.enter(hosts.Guest(base.TAP, base.GUEST_MAC))
        self.assertFalse(self.passes(guest))
        before = self.host.state(), self.ports()

        both = '{0}/python3-vif-plug-tapmac_*.deb {0}/tapmac_*.deb'
        for command, check in (
                ('dpkg -i ' + both.format('/1.0.0'), self.is_installed),
                ('dpkg -i ' + both.format('/1.0.1'), self.is_upgraded),
                ('dpkg -r tapmac python3-vif-plug-tapmac', None),
                ('dpkg -i ' + both.format('/1.0.1'), self.is_upgraded),
                ('dpkg --force-depends -i /1.0.1/tapmac-agent_*.deb',
                 self.has_right_units),
                ('dpkg -P tapmac-agent', None),
                ('dpkg -P tapmac python3-vif-plug-tapmac', self.is_gone)):
            with self.sending(guest) as lost:
                self.run_inside(command)
                if check is not None:
                    check()
            self.assertEqual([], lost, command)
            self.assertEqual(before, (self.host.state(), self.ports()),
                             command)
            self.assertFalse(self.passes(guest), command)
            self.assert_held()

    def is_installed(self):
        self.assertIn('1.0.0', self.run_inside('tapmac --version'))
        self.run_inside('tapmac demo')
        self.run_inside('tapmac-status --help; visudo -c')
        self.assertIn('tapmac', self.run_inside(
            'bash -c ". /usr/share/bash-completion/completions/tapmac; '
            'complete -p tapmac"'))
        # Its own command sees the guest as it is.
        self.assertIn(base.TAP, self.run_inside('tapmac list'))
        said = self.run_inside('dpkg -i /1.0.0/tapmac-agent_*.deb', fails=True)
        self.assertIn('depends on python3-neutron (>= 2:28.0.0~)', said)
        self.run_inside('dpkg -P tapmac-agent')

    def is_upgraded(self):
        self.assertIn('1.0.1', self.run_inside('tapmac --version'))

    def has_right_units(self):
        self.assertEqual('', self.run_inside(
            'systemd-analyze verify tapmac-agent.service '
            'tapmac-audit.service tapmac-audit.timer'))
        # One of another package, with what ours has as an example.
        self.assertEqual('', self.run_inside(
            'directory=/etc/systemd/system/nftables.service.d; '
            'mkdir -p $directory; cp /usr/share/doc/tapmac/examples/'
            'nftables.service.d/tapmac.conf $directory; '
            'systemd-analyze verify nftables.service; rm -r $directory'))

    def is_gone(self):
        self.assertEqual('', self.run_inside(
            'find /usr /etc /var -path "*dpkg/info*" -prune -o '
            '-name "*tapmac*" -print | grep -v /var/lib/dpkg || :'))
