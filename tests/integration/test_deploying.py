# SPDX-License-Identifier: Apache-2.0

"""What "Deploying with Nova" says, done on a machine that is left as it was.

Its commands are run in their order, with the mounts, the user nova, the Python
and the network namespace of the test. Between them come nova-compute, which is
an os-vif client that runs as nova, and a guest: QEMU as "Getting started" has
it.
"""

import os
import pathlib
import pwd
import re
import select
import shutil
import signal
import stat
import subprocess
import sys
import sysconfig

import fixtures
from testtools import content

from tests import base
from tests import documents
from tests import guest_image
from tests import hosts
from tests.integration import test_daemon
from tests import patience

# All up to the guest's end, which comes when the standard input says so.
_NOVA_COMPUTE = '''\
import sys
import os_vif
from os_vif.objects import vif as vif_objects
from tests import base
from tests import os_vif_client
vif = base.make_vif()
profile = vif_objects.VIFPortProfileOpenVSwitch
if 'create_tap' in profile.fields:  # os-vif 4.3 or newer.
    vif = base.make_vif(
        plugin='ovs', cls=vif_objects.VIFOpenVSwitch, port_profile=profile(
            interface_id=base.VIF_ID, datapath_type='tapmac', create_tap=True))
os_vif_client.start(*sys.argv[1:])
os_vif.plug(vif, base.INSTANCE)
print('done', flush=True)
sys.stdin.readline()
os_vif.unplug(vif, base.INSTANCE)
'''
_LOG = pathlib.Path('/var/log/nova/nova-compute.log')
# Nova's packages say where the log is. A udev of this machine does not see the
# host of the test.
_NOVA_CONF = '''\
[DEFAULT]
log_file = %s
%s
udev_timeout = 0
%s'''

#: What the commands say, by a word of theirs; whatever else they have to do.
SAID = {
    'pip install': [],
    'tapmac demo': [base.TAP_MAC, base.BRIDGE],
    'visudo': ['/etc/sudoers.d/nova-tapmac: parsed OK'],
    'sudo -l': ['privsep-helper ^--config-file'],
    'install -m': [],
    'upgrade check': ['Success'],
    'grep': ['plugin ovs'],
    'ip -d link': [base.TAP, base.TAP_MAC, 'master ' + base.BRIDGE,
                   'tapmac:1:' + base.VIF_ID],
    'ping': ['3 received'],
}


class DeployingTest(test_daemon.UnprivilegedTestCase):

    def setUp(self):
        home = os.open('/proc/thread-self/ns/net', os.O_RDONLY)
        self.addCleanup(os.close, home)
        super().setUp()
        self.only_in_full()
        for program in 'ip', 'ping', 'qemu-system-x86_64':
            if not shutil.which(program):
                self.cannot_run('needs %s: run tools/peers.sh' % program)
        if guest_image.missing():
            self.cannot_run(guest_image.missing())
        if not (base.CHECKOUT / '.git').exists():
            self.cannot_run('needs a git checkout')
        self.home = home
        self.add_user()
        self.directory = self.make_directory()
        self.make_python()
        self.install('/etc/sudoers', test_daemon.SUDOERS + (
            'root ALL = (ALL) NOPASSWD: ALL\n'
            'Defaults secure_path="%s:/usr/sbin:/usr/bin:/sbin:/bin"\n'
            % self.bin))
        os.chown('/etc/sudoers', 0, 0)
        hosts.mount('tmpfs', '/var/log', 'tmpfs')
        os.makedirs('/etc/systemd/network')
        _LOG.parent.mkdir()
        os.chown(_LOG.parent, self.user.pw_uid, self.user.pw_gid)

    def make_directory(self):
        """Return a directory that the user can enter."""
        directory = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        directory.chmod(0o755)
        return directory

    def add_user(self):
        """Have a user nova; the kernel knows it as the one of the test."""
        passwd = self.make_directory() / 'passwd'
        passwd.write_text('nova:*:%d:%d::/:/bin/sh\n' % (
            self.user.pw_uid, self.user.pw_gid)
            + pathlib.Path('/etc/passwd').read_text())
        hosts.mount(str(passwd), '/etc/passwd', None, hosts.MS_BIND)
        self.user = pwd.getpwnam('nova')

    def make_python(self):
        """Make nova-compute's Python: all that we have, but for tapmac."""
        self.bin = self.directory / 'bin'
        subprocess.run([sys.executable, '-m', 'venv', '--without-pip',
                        self.directory], check=True)
        packages, = self.directory.glob('lib/python*/site-packages')
        (packages / 'others.pth').write_text(
            sysconfig.get_path('purelib') + '\n')
        nova = packages / 'nova-33.0.2.dist-info'
        nova.mkdir()
        (nova / 'METADATA').write_text('Name: nova\nVersion: 33.0.2\n')
        for name in 'pip', 'privsep-helper':
            script = (test_daemon.BIN / name).read_text()
            (self.bin / name).write_text('#!%s\n%s' % (
                self.bin / 'python', script.split('\n', 1)[1]))
            (self.bin / name).chmod(0o755)
        self.clone = self.directory / 'clone'
        subprocess.run(['git', 'clone', '-q', base.CHECKOUT, self.clone],
                       check=True)

    def document(self, word, language):
        """Return a block of the document with the paths of this host."""
        return documents.block(documents.DEPLOYING, word, language).replace(
            '/usr/bin/privsep-helper', str(self.bin / 'privsep-helper'))

    def configure_nova(self):
        self.install('/etc/nova/nova.conf', _NOVA_CONF % (
            _LOG, self.document('= ovs', 'ini'),
            self.document('helper_command', 'ini')))
        sudoers = pathlib.Path('/etc/sudoers.d/nova-tapmac')
        self.install(sudoers, self.document('NOPASSWD', 'text'))
        # What comes next in the document puts this right.
        sudoers.chmod(0o644)

    def run_block(self, block):
        """Run commands; expect them to succeed, and to say what they shall."""
        word, = (word for word in SAID if word in block.text)
        done = subprocess.run(
            ['sh', '-eu', '-c', documents.patient(block.text)],
            cwd=self.clone, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, timeout=patience.HANG,
            # Packages are not to be had in the namespace of the test.
            preexec_fn=(lambda: hosts.enter(self.home))
            if block.section == 'Package' else None,
            env={'PATH': '%s:%s' % (self.bin, os.environ['PATH']),
                 'LC_ALL': 'C', 'PYTHONWARNINGS': 'ignore'})
        self.assertEqual(0, done.returncode, block.text + done.stdout)
        for said in SAID[word]:
            self.assertIn(said, done.stdout)
        return word

    def start_nova_compute(self):
        self.nova_compute = subprocess.Popen(
            [self.bin / 'python', '-c', _NOVA_COMPUTE], **self.as_user(),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL)
        self.addCleanup(self.nova_compute.__exit__, None, None, None)
        self.addCleanup(self.nova_compute.kill)
        ready = select.select([self.nova_compute.stdout], [], [],
                              patience.HANG)[0]
        self.assertTrue(ready, 'hangs')
        self.assertEqual('done\n', self.nova_compute.stdout.readline(),
                         _LOG.exists() and _LOG.read_text())

    def start_guest(self):
        """Boot a guest on the TAP, and let this host be its neighbour."""
        image = self.useFixture(guest_image.GuestImage())
        command = documents.block(documents.GETTING_STARTED, 'ifname=',
                                  'shell')
        for old, new in (('ip netns exec try ', ''), ('"$tap"', base.TAP),
                         ('.venv/guest', str(image.kernel.parent))):
            command = command.replace(old, new)
        subprocess.run(['sh', '-eu', '-c', command], check=True,
                       stdin=subprocess.DEVNULL)
        self.host.ip.addr('add', index=self.host.link(base.BRIDGE).index,
                          address='10.0.0.1', prefixlen=24)
        self.guest = int((image.kernel.parent / 'pid').read_text())

    def end_guest(self):
        os.kill(self.guest, signal.SIGTERM)
        patience.wait_until(lambda: not self.host.link(base.TAP).held,
                            'the guest does not end')
        self.nova_compute.communicate('\n', patience.HANG)
        self.assertEqual(0, self.nova_compute.returncode)

    def test_from_package_to_guest(self):
        self.configure_nova()
        done = []
        for block in documents.blocks(documents.DEPLOYING):
            if block.language != 'shell':
                continue
            if block.section == 'nova-compute starts':
                self.start_nova_compute()
            if block.text.startswith('ping'):
                self.start_guest()
            done.append(self.run_block(block))
        self.assertEqual(list(SAID), done)
        self.assertEqual(
            pathlib.Path('/etc/systemd/network/70-tapmac.link').read_text(),
            (base.CHECKOUT / 'etc/systemd/network/70-tapmac.link').read_text())
        self.assertEqual(base.BRIDGE, self.host.master(base.TAP))
        self.end_guest()
        self.assertIsNone(self.host.find(base.TAP))
        self.assert_log()

    def assert_log(self):
        """Expect what is documented of a guest's life, in this order."""
        log = _LOG.read_text()
        self.addDetail('log', content.text_content(log))
        found = re.findall(r'(\d+) ([A-Z]+) (vif_plug_tapmac\S+) \[.*?\] (.*)',
                           log)
        documented = [documents.without_chance(line) for section in (
            'nova-compute starts', 'A guest boots', 'A guest is deleted')
            for line in documents.log_lines(section)]
        # What other options say there; so does test_log.
        documented = [line for line in documented if not re.search(
            r'startup (firewall = agent|anti_spoofing = full)\b', line)]
        logged = [documents.without_chance(' '.join(words))
                  for _, *words in found]
        # One of two, as this user may try what the kernel can, or not.
        tried = [line for line in documented if ' arriving_guests = ' in line]
        self.assertEqual(2, len(tried))
        self.assertEqual(1, len(set(tried) & set(logged)))
        self.assertEqual([line for line in documented
                          if line in logged or line not in tried], logged)
        # The daemon's number is another than nova-compute's.
        for number, _, logger, *_ in found:
            self.assertEqual(
                logger.startswith('vif_plug_tapmac.kernel.'),
                int(number) != self.nova_compute.pid, logger)


class ContainerTest(base.FunctionalTestCase):
    """nova-compute and its daemon in a container that lacks something."""

    def start_nova_compute(self, *prefix):
        """Start one behind a command; return it and the file of its log."""
        directory = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        nova_conf = directory / 'nova.conf'
        nova_conf.write_text(
            '[os_vif_tapmac]\nclaim_plugins = ovs\nudev_timeout = 0\n'
            '[vif_plug_tapmac_privileged]\n'
            'helper_command = %s --config-file %s\n' % (
                test_daemon.BIN / 'privsep-helper', nova_conf))
        log = directory / 'log'
        with log.open('w') as opened:
            nova_compute = subprocess.Popen(
                [*prefix, sys.executable, '-c', _NOVA_COMPUTE, nova_conf],
                cwd=base.CHECKOUT, stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=opened)
        self.addCleanup(nova_compute.__exit__, None, None, None)
        self.addCleanup(nova_compute.kill)
        return nova_compute, log

    def assert_plug_fails_with(self, *words, prefix=()):
        nova_compute, log = self.start_nova_compute(*prefix)
        nova_compute.wait(patience.HANG)
        error = re.findall('Got error: (.*)', log.read_text())[-1]
        for word in words:
            self.assertIn(word, error)
        self.assertIsNone(self.host.find(base.TAP))

    def test_no_capability(self):
        # oslo.privsep may hang then: do not wait for the end.
        _, log = self.start_nova_compute(
            'setpriv', '--inh-caps=-net_admin', '--bounding-set=-net_admin')
        patience.wait_until(
            lambda: '[Errno 1] Operation not permitted' in log.read_text(),
            log.read_text)
        self.assertIsNone(self.host.find(base.TAP))

    @base.needs_real_root(base.SEVERAL_USERS)
    def test_device_of_another_user(self):
        device = os.stat('/dev/net/tun')
        with hosts.private_mounts():
            hosts.mount('tmpfs', '/dev/net', 'tmpfs')
            os.mknod('/dev/net/tun', stat.S_IFCHR | 0o600, device.st_rdev)
            os.chown('/dev/net/tun', pwd.getpwnam('nobody').pw_uid, 0)
            self.assert_plug_fails_with('/dev/net/tun', 'EACCES')

    def test_user_namespace(self):
        self.assert_plug_fails_with('EPERM', prefix=['unshare', '-U', '-r'])
