# SPDX-License-Identifier: Apache-2.0

"""Root for an unprivileged user: through sudo and through nova-rootwrap.

What "Deploying with Nova" shows is what is installed here, in private mounts;
only the user and the path of privsep-helper are others.
"""

import contextlib
import json
import os
import pathlib
import pwd
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile

from oslo_privsep import capabilities
from testtools import content

from tests import base
from tests import documents
from tests import hosts
from tests import os_vif_client
from tests import patience

NOVA = base.CHECKOUT / '.venv/nova-33'
BIN = pathlib.Path(sys.prefix) / 'bin'

# As Debian 12 has it, but for the last directory and the host's log.
SUDOERS = '''\
Defaults env_reset, use_pty, !syslog
Defaults secure_path="/usr/sbin:/usr/bin:/sbin:/bin:%s"
@includedir /etc/sudoers.d
''' % (NOVA / 'bin')
# As in Debian's package nova-common.
ROOTWRAP_SUDOERS = '''\
nova ALL = (root) NOPASSWD: /usr/bin/nova-rootwrap /etc/nova/rootwrap.conf *
'''

# nova-compute up to 33, and from 34 on.
EVENTLET = '''\
import eventlet
eventlet.monkey_patch()
from tests import os_vif_client
os_vif_client.main(eventlet.GreenPool(os_vif_client.VIFS).imap)
'''
THREADS = '''\
from concurrent import futures
from tests import os_vif_client
os_vif_client.main(futures.ThreadPoolExecutor(os_vif_client.VIFS).map)
'''

#: Seconds until we call it a hang. A case takes one or two.
# A udev of this machine does not see the host of the test.
NOVA_CONF = documents.block(
    base.README, '[os_vif_tapmac]') + 'udev_timeout = 0\n'


def status(pid):
    """Return what the kernel says of a process, word by word."""
    lines = pathlib.Path('/proc/%d/status' % pid).read_text().splitlines()
    return {name: value.split() for name, value in (
        line.split(':', 1) for line in lines)}


@base.needs_real_root(base.SUDO)
class UnprivilegedTestCase(base.FunctionalTestCase):
    """A test whose /etc is its own, and that acts as the user nobody."""

    def setUp(self):
        super().setUp()
        if not shutil.which('sudo'):
            self.cannot_run('needs sudo: run tools/peers.sh')
        self.user = pwd.getpwnam('nobody')
        self.enter(hosts.private_mounts())
        self.addCleanup(self.end_processes)
        for directory in base.CHECKOUT, sys.prefix, sys.base_prefix:
            hosts.make_reachable(str(directory))
        hosts.mount_copy('/etc', without=(
            'neutron', 'nova', 'sudoers', 'sudoers.d', 'systemd'))
        self.install('/etc/sudoers', SUDOERS)

    def end_processes(self):
        for pid in self.host.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def install(self, path, text):
        """Write a file below /etc that our user can read."""
        file = pathlib.Path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        os.chown(file, 0, self.user.pw_gid)
        file.chmod(0o440)

    def install_sudoers(self, text):
        """Write a line for a service, with our user and our paths."""
        for old, new in (('nova ALL', '%s ALL' % self.user.pw_name),
                         ('neutron ALL', '%s ALL' % self.user.pw_name),
                         ('/usr/bin/privsep-helper', BIN / 'privsep-helper'),
                         ('/usr/bin/nova-rootwrap',
                          NOVA / 'bin/nova-rootwrap')):
            text = text.replace(old, str(new))
        self.install('/etc/sudoers.d/nova-tapmac', text)

    def allow_as_documented(self, document=documents.DEPLOYING):
        said = subprocess.run(['sudo', '-V'], capture_output=True, text=True)
        version = re.match(r'Sudo version (\d+)\.(\d+)\.(\d+)', said.stdout)
        if not version or tuple(map(int, version.groups())) < (1, 9, 10):
            self.cannot_run('needs sudo 1.9.10: regular expressions')
        self.install_sudoers(
            documents.block(document, 'NOPASSWD'))

    def as_user(self):
        """Return what makes Popen run a command as the user.

        The environment is what a service has: no TMPDIR, above all.
        """
        return {'user': self.user.pw_uid, 'group': self.user.pw_gid,
                'extra_groups': [], 'cwd': base.CHECKOUT, 'text': True,
                'env': {'PATH': '/usr/sbin:/usr/bin:/sbin:/bin',
                        'LC_ALL': 'C', 'PYTHONWARNINGS': 'ignore'}}


class DaemonTest(UnprivilegedTestCase):
    """Plugs of many VIFs at once, each of which may start the daemon."""

    def setUp(self):
        super().setUp()
        # README.rst shows "create_bridge = false". The daemon refuses that if
        # it has not read the same.
        self.host.add(base.BRIDGE, 'bridge')
        self.log = tempfile.TemporaryFile('w+')
        self.addCleanup(self.log.close)
        self.addOnException(lambda _: self.addDetail(
            'log of the client', content.text_content(self.read_log())))

    def read_log(self):
        self.log.seek(0)
        return self.log.read()

    def wait_until_done(self, client):
        """Wait for the client to say so, or to hang."""
        ready = select.select([client.stdout], [], [], patience.HANG)[0]
        self.assertTrue(ready, 'hangs')
        self.assertEqual('done\n', client.stdout.readline())

    def wait_until_alone(self):
        """Wait for the daemon to notice that the client is gone."""
        patience.wait_until(lambda: not self.host.processes(),
                            lambda: 'there is %s' % self.host.processes())

    def check(self, script):
        client = subprocess.Popen(
            [sys.executable, '-c', script], **self.as_user(),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log)
        self.addCleanup(client.__exit__, None, None, None)
        self.addCleanup(client.kill)
        vifs = [base.numbered_vif(number)
                for number in range(os_vif_client.VIFS)]
        self.wait_until_done(client)
        self.assert_unprivileged(client.pid)
        self.assert_one_daemon(client.pid)
        for vif in vifs:
            self.assert_finished(vif.vif_name,
                                 mac='fe' + str(vif.address)[2:])
        print(file=client.stdin, flush=True)
        self.wait_until_done(client)
        for vif in vifs:
            self.assertIsNone(self.host.find(vif.vif_name))
        client.communicate('\n', patience.HANG)
        self.assertEqual(0, client.returncode)
        self.wait_until_alone()

    def assert_unprivileged(self, pid):
        seen = status(pid)
        self.assertEqual({str(self.user.pw_uid)}, set(seen['Uid']))
        for capability_set in 'CapEff', 'CapPrm', 'CapAmb':
            self.assertEqual(0, int(seen[capability_set][0], 16))

    def assert_one_daemon(self, client):
        daemon, = (pid for pid in self.host.processes() if pid != client)
        command = pathlib.Path('/proc/%d/cmdline' % daemon).read_text()
        words = command.rstrip('\0').split('\0')
        self.assertEqual(
            [str(BIN / 'privsep-helper'), '--config-file',
             '/etc/nova/nova.conf', '--privsep_context',
             'vif_plug_tapmac.privsep.vif_plug', '--privsep_sock_path'],
            words[1:-1])
        seen = status(daemon)
        self.assertEqual({'0'}, set(seen['Uid']))
        # oslo.privsep leaves the bounding set alone: it bounds what a program
        # gets that the daemon runs, and ours runs none.
        for capability_set, expected in (
                ('CapEff', 1 << capabilities.CAP_NET_ADMIN),
                ('CapPrm', 1 << capabilities.CAP_NET_ADMIN),
                ('CapInh', 0), ('CapAmb', 0)):
            self.assertEqual(expected, int(seen[capability_set][0], 16),
                             capability_set)

    def use_sudo(self):
        """Do what "Deploying with Nova" says."""
        helper = documents.block(documents.DEPLOYING, 'helper_command', 'ini')
        self.install('/etc/nova/nova.conf',
                     NOVA_CONF + helper.replace('/usr/bin', str(BIN)))
        self.allow_as_documented()

    def use_rootwrap(self):
        """Do what Nova's packages do, with Nova's own files."""
        self.only_in_full()
        if not NOVA.exists():
            self.cannot_run('needs Nova: run tools/peers.sh')
        self.install('/etc/nova/nova.conf', NOVA_CONF)
        for file in (NOVA / 'etc/nova/rootwrap.d').iterdir():
            self.install('/etc/nova/rootwrap.d/' + file.name, file.read_text())
        conf = (NOVA / 'etc/nova/rootwrap.conf').read_text()
        self.install('/etc/nova/rootwrap.conf', re.sub(
            '(?m)^exec_dirs=.*', 'exec_dirs=%s' % BIN, conf))
        self.install_sudoers(ROOTWRAP_SUDOERS)

    def test_sudo_eventlet(self):
        self.use_sudo()
        self.check(EVENTLET)

    def test_sudo_threads(self):
        self.use_sudo()
        self.check(THREADS)

    def test_rootwrap_eventlet(self):
        self.use_rootwrap()
        self.check(EVENTLET)

    def test_rootwrap_threads(self):
        self.use_rootwrap()
        self.check(THREADS)


class SudoersTest(UnprivilegedTestCase):
    """The documented line for sudoers admits one command and no other."""

    HELPER = str(BIN / 'privsep-helper')
    DOCUMENT = documents.DEPLOYING
    FILE, OTHER_FILE = '/etc/nova/nova.conf', '/etc/nova/nova_conf'
    CONTEXT, OTHERS_CONTEXT = 'vif_plug', 'filter'
    SECTION = 'VIF_PLUG_TAPMAC_PRIVILEGED'

    def setUp(self):
        super().setUp()
        self.install(self.FILE, '')
        self.allow_as_documented(self.DOCUMENT)
        self.ADMITTED = (
            '--config-file', self.FILE, '--privsep_context',
            'vif_plug_tapmac.privsep.' + self.CONTEXT, '--privsep_sock_path',
            '/tmp/tmpab_12345/privsep.sock')

    def run_sudo(self, *command):
        """Return what is said of why this cannot be done."""
        done = subprocess.run(
            ['sudo', '-n', *command], **self.as_user(), timeout=patience.HANG,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.assertEqual(1, done.returncode, done.stdout)
        return done.stdout

    def assert_refused(self, arguments):
        self.assertIn('sudo: a password is required',
                      self.run_sudo(self.HELPER, *arguments))

    def test_admits_its_command(self):
        # The helper runs, and nobody listens.
        self.assertIn('FileNotFoundError',
                      self.run_sudo(self.HELPER, *self.ADMITTED))

    def test_refuses_another_word(self):
        for position, word in (
                (1, '/tmp/nova.conf'),
                (1, self.OTHER_FILE),
                (3, 'vif_plug_ovs.privsep.vif_plug'),
                (3, 'vif_plug_tapmac_privsep.' + self.CONTEXT),
                (3, 'vif_plug_tapmac.privsep.' + self.OTHERS_CONTEXT),
                (5, '/run/tmpa/privsep.sock'),
                (5, '/tmp/tmpa/../x/privsep.sock'),
                (5, '/tmp/tmpa /privsep.sock'),
                (5, '/tmp/tmpa\n/privsep.sock'),
                (5, '/tmp/tmpa/privsep.sock.x')):
            changed = list(self.ADMITTED)
            changed[position] = word
            self.assert_refused(changed)

    def test_refuses_more_and_fewer_words(self):
        for more in (['--config-file', '/tmp/nova.conf'],
                     ['--config-dir', '/tmp']):
            for position in 0, 2, 4, 6:
                changed = list(self.ADMITTED)
                changed[position:position] = more
                self.assert_refused(changed)
        # A wildcard for the socket would take these for one path.
        self.assert_refused([*self.ADMITTED[:5], '/tmp/tmpa', '--config-file',
                             '/tmp/nova.conf/privsep.sock'])
        self.assert_refused(self.ADMITTED[2:])
        self.assert_refused([])

    def test_refuses_options_in_the_environment(self):
        # oslo.config would take this before what nova.conf says.
        self.assertIn('not allowed to set', self.run_sudo(
            'OS_%s__CAPABILITIES=21' % self.SECTION, self.HELPER,
            *self.ADMITTED))


class AgentsSudoersTest(SudoersTest):
    """The same of the line for tapmac-agent."""

    DOCUMENT = documents.AGENT
    FILE = '/etc/neutron/tapmac-agent.conf'
    OTHER_FILE = '/etc/neutron/tapmac-agent_conf'
    CONTEXT, OTHERS_CONTEXT = 'filter', 'vif_plug'
    SECTION = 'TAPMAC_AGENT_PRIVILEGED'

    def test_the_check_before_it_is_started(self):
        conf = documents.block(documents.AGENT, 'helper_command')
        self.install(self.FILE, conf.replace('/usr/bin', str(BIN)))
        self.assertNotIn('Privileged daemon', self.check_agent())
        os.unlink('/etc/sudoers.d/nova-tapmac')
        self.assertIn('a password is required',
                      self.check_agent()['Privileged daemon'])

    def check_agent(self):
        """Return what tapmac-status says to the user, by the check."""
        done = subprocess.run(
            [sys.executable, '-c', 'import sys; from vif_plug_tapmac.cli '
             'import status; sys.exit(status.main())', '--agent', 'upgrade',
             'check', '--json'], **self.as_user(), capture_output=True,
            timeout=patience.HANG)
        return {check['check']: check['details']
                for check in json.loads(done.stdout)['checks']
                if check['result'] != 0}
