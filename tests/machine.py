# SPDX-License-Identifier: Apache-2.0

"""A compute host with a libvirtd of its own, and what runs in there.

Its processes have namespaces of their own for links, mounts, processes and the
host name. What libvirt writes is in a directory of the test; only what it
installs is the machine's. It ends, with all its guests, when the test does, in
whatever way that happens.
"""

import pathlib
import shutil
import socket
import subprocess

from tests import compute_host
from tests import libvirt_domains
from tests import patience

_QEMU_CONF = '''\
# QEMU cannot be kept from anything in a sandbox that may have no cgroups.
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
namespaces = []
cgroup_controllers = []
stdio_handler = "file"
# Whoever does not answer is busy.
keepalive_interval = -1
'''

# Files that several programs know by their name, and that are ours in here.
# The first process lives as long as the machine, and reaps.
_START = '''\
set -e
for part in $2
do
    mkdir -p "/$part"
    mount --bind "$0/$part" "/$part"
done
for file in passwd group hosts; do
    mount --bind "$0/etc/$file" "/etc/$file"
done
mount -t sysfs sysfs /sys
ip link set lo up
echo "$1" > /proc/sys/kernel/hostname
echo ready
sleep infinity & wait
'''


def missing():
    """Return what keeps us from having one, None if nothing does."""
    for program in 'libvirtd', 'virsh', 'qemu-system-x86_64':
        if shutil.which(program) is None:
            return 'needs %s: run tools/peers.sh' % program
    return libvirt_domains.missing()


class Machine(compute_host.ComputeHost):
    """A host whose libvirtd runs.

    :ivar directory: what its processes have as /run, /var/lib/libvirt etc.
    """

    #: What it has for its own of the directories of the machine it is on.
    PARTS = ('run', 'etc/libvirt', 'var/lib/libvirt', 'var/log/libvirt',
             'var/cache/libvirt')
    #: Which addresses they call each other at.
    ADDRESSES = {'host1': '192.0.2.1', 'host2': '192.0.2.2'}

    def __init__(self, name, directory):
        super().__init__()
        self.name = name
        self.directory = pathlib.Path(directory) / name

    @staticmethod
    def uri(directory, name):
        """Return where the libvirtd of a host is reached, even from others.

        :param name: may be "%s"
        """
        return 'qemu+unix:///system?socket=%s/%s/run/libvirt/libvirt-sock' % (
            directory, name)

    def _setUp(self):
        super()._setUp()
        self._write_files()
        with self.entered():
            self._unshare = subprocess.Popen(
                ['setpriv', '--pdeathsig', 'KILL', 'unshare', '--mount',
                 '--pid', '--fork', '--uts', '--kill-child', '--mount-proc',
                 'sh', '-c', _START, self.directory, self.name,
                 ' '.join(self.PARTS)],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        self.addCleanup(self._end)
        if self._unshare.stdout.readline() != 'ready\n':
            raise AssertionError('The namespaces of %s were not made'
                                 % self.name)
        self.start_libvirtd()

    def _end(self):
        self._unshare.kill()
        self._unshare.communicate()
        patience.wait_until(lambda: not self.processes(),
                            lambda: 'still there: %s' % self.processes())

    def _write_files(self):
        for part in self.PARTS:
            (self.directory / part).mkdir(parents=True, exist_ok=True)
        etc = self.directory / 'etc'
        # libvirt looks for the user that Debian's QEMU has before it reads
        # that it is to be another.
        for file, line in (('passwd', 'libvirt-qemu:x:64055:64055::/:/bin/sh'),
                           ('group', 'libvirt-qemu:x:64055:')):
            known = pathlib.Path('/etc', file).read_text()
            (etc / file).write_text('%s%s\n' % (known, line))
        (etc / 'hosts').write_text('127.0.0.1 localhost\n' + ''.join(
            '%s %s\n' % (address, name)
            for name, address in self.ADDRESSES.items()))
        (etc / 'libvirt/qemu.conf').write_text(_QEMU_CONF)
        # Machines are told from each other by that of their hardware.
        (etc / 'libvirt/libvirtd.conf').write_text(
            'host_uuid = "00000000-0000-4000-8000-%012x"\n'
            'keepalive_interval = -1\n' % int(self.name[-1]))

    def inside(self, *command):
        """Return a command for who is in its network, to be on it wholly.

        What is started there ends with SIGKILL when its parent does.
        """
        namespaces = '/proc/%d/ns/' % self._unshare.pid
        return ['nsenter', '--mount=%smnt' % namespaces,
                '--uts=%suts' % namespaces,
                '--pid=%spid_for_children' % namespaces, '--',
                'setpriv', '--pdeathsig', 'KILL', *command]

    def popen(self, command, **arguments):
        """Start a program on this machine."""
        with self.entered():
            return subprocess.Popen(
                self.inside(*command),
                **dict({'stdin': subprocess.DEVNULL,
                        'stdout': subprocess.PIPE,
                        'stderr': subprocess.STDOUT, 'text': True},
                       **arguments))

    def run(self, *command):
        """Run a program on this machine; return what it says."""
        with self.popen(command) as process:
            said, _ = process.communicate(timeout=patience.HANG)
        if process.returncode:
            raise AssertionError('%s: %s' % (' '.join(command), said))
        return said

    def virsh(self, *arguments):
        return self.run('virsh', '-q', *arguments).strip()

    def start_libvirtd(self):
        with open(self.directory / 'libvirtd.log', 'a') as log:
            # So that guests, which it starts, do not wait for all that tests
            # run beside them.
            self._libvirtd = self.popen(['nice', '-n', '-15', 'libvirtd'],
                                        stdout=log)
        self._wait_for_libvirtd(True)

    def kill_libvirtd(self):
        """End it without warning; guests go on without it."""
        self._libvirtd.kill()
        self._wait_for_libvirtd(False)

    def _wait_for_libvirtd(self, answers):
        patience.wait_until(lambda: self._answers() == answers,
                            self.libvirtd_log)

    def _answers(self):
        with socket.socket(socket.AF_UNIX) as client:
            try:
                client.connect(str(
                    self.directory / 'run/libvirt/libvirt-sock'))
            except OSError:
                return False
            return True

    def libvirtd_log(self):
        return (self.directory / 'libvirtd.log').read_text()

    def files(self):
        """Return what is there of guests on this machine.

        Not what is kept for whoever looks into a problem, nor what libvirt
        has for itself from the first guest on.
        """
        return sorted(
            str(path.relative_to(self.directory))
            for part in ('run', 'etc', 'var/lib')
            for path in (self.directory / part).rglob('*')
            if not path.is_dir() or path.name.startswith('domain-'))
