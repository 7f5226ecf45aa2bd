# SPDX-License-Identifier: Apache-2.0

"""What "Security groups with tapmac-agent" says, done on a host and its cloud.

Its files are installed, and its commands run in their order, on one of two
hosts: with mounts of its own, as root, and the agent as a user neutron with
sudo. Not real are systemd, of which the test does what the unit says, and the
process of the client "openstack": that takes seconds to load, and is loaded
once. Then, row by row, what the page has of failures is brought about, and
looked at as it says.
"""

import contextlib
import io
import os
import pathlib
import pwd
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile

import fixtures
from oslo_config import cfg
from pyroute2.nftables import main as nftables
from testtools import content

from tests import base as tests_base
from tests import documents
from tests import hosts
from tests.neutron import base
from tests.neutron import front
from tests.neutron import hypervisor
from tests import patience
from vif_plug_tapmac.kernel import conntrack
from vif_plug_tapmac.wanted import names

_BIN = pathlib.Path(sys.prefix) / 'bin'
_UNIT = pathlib.Path('etc/systemd/system/tapmac-agent.service')
_LOG = '/var/log/neutron/tapmac-agent.log'
#: Ready when it says so, and gone when its input ends.
_MACHINE = """
import sys
from tests import hosts
passwd, *reachable = sys.argv[1:]
hosts.own_mounts()
for each in reachable:
    hosts.make_reachable(each)
hosts.mount_copy('/etc', without=('neutron', 'nova', 'sudoers', 'sudoers.d',
                                  'passwd', 'group'))
hosts.mount('tmpfs', '/var/log', 'tmpfs')
hosts.mount('tmpfs', '/var/lib', 'tmpfs')
hosts.mount('sysfs', '/sys', 'sysfs')
print(flush=True)
sys.stdin.read()
"""
_SUDOERS = """
Defaults env_reset, use_pty, !syslog
Defaults secure_path="%s:/usr/sbin:/usr/bin:/sbin:/bin"
root ALL = (ALL) NOPASSWD: ALL
@includedir /etc/sudoers.d
""" % _BIN
#: Of UDP; the page has the first.
_DNS, _OTHER = 53, 54
#: Of an audit. What it warns of here is nothing that the agent is about.
_WARNINGS = 10
_EXTRA = 'pip install'


def load_tests(loader, tests, pattern):
    # Of all Neutrons, with the newest: its client is only there.
    return tests if base.NEUTRON > 28 else type(tests)()


class Machine(fixtures.Fixture):
    """The page's host: root's files and commands there.

    :param namespace: its network
    :param uid, gid: those of its user neutron
    """

    def __init__(self, namespace, uid, gid):
        self._namespace, self.uid, self.gid = namespace, uid, gid

    def _setUp(self):
        directory = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        process = subprocess.Popen(
            [sys.executable, '-W', 'ignore', '-c', _MACHINE, directory,
             tests_base.CHECKOUT, sys.prefix, sys.base_prefix],
            cwd=tests_base.CHECKOUT, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, preexec_fn=lambda: (
                hosts.die_with_parent(), hosts.enter(self._namespace)))
        self.addCleanup(process.wait)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.stdin.close)
        assert process.stdout.readline(), 'no machine'
        self._pid = process.pid
        self.write('/etc/passwd', 'neutron:*:%d:%d::/:/bin/sh\n%s' % (
            self.uid, self.gid,
            pathlib.Path('/etc/passwd').read_text()), 0o644)
        self.write('/etc/group', 'neutron:x:%d:\n%s' % (
            self.gid, pathlib.Path('/etc/group').read_text()), 0o644)
        self.write('/etc/sudoers', _SUDOERS, group=0)

    def enter(self):
        """Be there; for a child process."""
        hosts.die_with_parent()
        hosts.enter(self._namespace)
        hosts.enter_mounts(self._pid)
        os.chdir(tests_base.CHECKOUT)

    def run(self, command):
        return subprocess.run(
            ['sh', '-eu', '-c', command], preexec_fn=self.enter, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, timeout=patience.HANG, env={
                'PATH': '%s:%s' % (_BIN, os.environ['PATH']), 'LC_ALL': 'C',
                'PYTHONWARNINGS': 'ignore'})

    def path(self, path):
        """Return by which path others find a file of it."""
        return pathlib.Path('/proc/%d/root' % self._pid, path.lstrip('/'))

    def write(self, path, text, mode=0o440, group=None):
        """Have a file that neutron can read, or another group."""
        file = self.path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        os.chown(file, 0, self.gid if group is None else group)
        file.chmod(mode)

    def read(self, path):
        file = self.path(path)
        return file.read_text() if file.exists() else ''


class Service(base.Process):
    """The agent as its unit has it started, and nothing else of systemd."""

    def __init__(self, machine, unit, log):
        options = dict(re.findall(r'(?m)^(\w+)=(.*)$', unit))
        super().__init__(
            'setpriv', '--reuid', options['User'], '--regid',
            str(machine.gid), '--clear-groups', '--pdeathsig', 'KILL', 'env',
            '-i', 'PATH=/usr/sbin:/usr/bin:/sbin:/bin',
            'PYTHONWARNINGS=ignore', 'LC_ALL=C',
            *shlex.split(options['ExecStart'].replace(
                '/usr/bin/tapmac-agent', str(_BIN / 'tapmac-agent'))), log=log)
        self._machine = machine

    def _begin(self):
        self._machine.enter()


@tests_base.needs_locked_ports
@tests_base.needs_real_root(tests_base.SUDO)
class OperatingTest(hypervisor.HypervisorTestCase):

    def setUp(self):
        super().setUp()
        self.only_in_full()
        for program in 'sudo', 'visudo', 'setpriv':
            if not shutil.which(program):
                self.cannot_run('needs %s: run tools/peers.sh' % program)
        nobody = pwd.getpwnam('nobody')
        self.machine = self.useFixture(Machine(
            self.one.peer.namespace, nobody.pw_uid, nobody.pw_gid))
        self.front = self.useFixture(front.Front(self.neutron))
        self.front.project = 'demo'
        self.directory = pathlib.Path(
            self.useFixture(fixtures.TempDir()).path)
        self.service = None
        self.addCleanup(self.stop)
        # What the page has for examples, and what that is here.
        self.names = {
            '/usr/bin/privsep-helper': str(_BIN / 'privsep-helper'),
            'rabbit://openstack:secret@controller:5672/':
                'rabbit://guest:guest@127.0.0.1:%d/' % self.one.line.port,
            'compute1': self.one.name}
        self.addOnException(lambda _: self.addDetail(
            'log of the agent', content.text_content(self.log())))

    def text(self, word, language='ini'):
        return self.here(documents.block(documents.AGENT, word, language))

    def here(self, text):
        for old, new in self.names.items():
            text = text.replace(old, new)
        return text

    def configure_host(self):
        """Have the files of the page where it says."""
        self.machine.write('/etc/neutron/neutron.conf', self.text(
            'transport_url') + 'host = %s\n[AGENT]\nreport_interval = 1\n'
            '[oslo_messaging_rabbit]\nrabbit_retry_interval = 1\n'
            'rabbit_retry_backoff = 0\n' % self.one.name)
        self.machine.write('/etc/neutron/tapmac-agent.conf',
                           self.text('metrics_file'))
        # What comes next in the page puts its mode right.
        self.machine.write('/etc/sudoers.d/neutron-tapmac',
                           self.text('NOPASSWD', 'text'), 0o644)
        nova = self.text('claim_plugins')
        self.machine.write('/etc/nova/nova.conf', nova + 'udev_timeout = 0\n')
        path = self.directory / 'nova.conf'
        path.write_text(nova)
        written = {}
        cfg.ConfigParser(str(path), written).parse()
        self.assertEqual({'os_vif_tapmac'}, written.keys())
        self.configure(firewall=written['os_vif_tapmac']['firewall'][0])
        self.assertEqual(['ovs'], written['os_vif_tapmac']['claim_plugins'])

    # What is not run by a shell of the host.

    def openstack(self, *arguments):
        """Return what the client says, of which a process is forked."""
        from openstackclient import shell
        with tempfile.TemporaryFile('w+') as said:
            child = os.fork()
            if not child:
                with contextlib.suppress(BaseException):
                    sys.stdout = sys.stderr = io.TextIOWrapper(
                        io.FileIO(os.dup(said.fileno()), 'w'),
                        write_through=True)
                    os._exit(shell.OpenStackShell().run(list(arguments)))
                os._exit(99)
            _, status = os.waitpid(child, 0)
            said.seek(0)
            return os.waitstatus_to_exitcode(status), said.read()

    def systemctl(self, verb, *arguments):
        """Do what systemd does by what the unit says."""
        if arguments[-1:] != ('tapmac-agent',):
            self.assertIn((verb, *arguments), (
                ('daemon-reload',), ('restart', 'nova-compute')))
            return 0, ''
        if verb == 'is-active':
            is_active = (self.service is not None
                         and self.service.process.poll() is None)
            return (0, 'active') if is_active else (3, 'inactive')
        self.assertIn(verb, ('enable', 'start', 'restart', 'stop'))
        if verb != 'enable':
            self.stop()
        if verb != 'stop':
            self.start()
        return 0, ''

    def start(self):
        unit = self.machine.read('/' + str(_UNIT))
        self.service = Service(self.machine, unit, self.directory / 'stdout')
        began = self.log().count('has begun')
        self.service.setUp()
        self.service.wait_for(
            lambda: self.log().count('has begun') > began
            or self.service.process.poll() is not None)

    def stop(self):
        if self.service is not None:
            self.service.cleanUp()
        self.service = None

    def log(self):
        return self.machine.read(_LOG)

    def run_line(self, line):
        words = shlex.split(line)
        if words[0] == 'openstack':
            return self.openstack(*words[1:])
        if words[0] == 'systemctl':
            return self.systemctl(*words[1:])
        done = self.machine.run(line)
        return done.returncode, done.stdout

    def run_block(self, word):
        """Run the lines of a block that has a word; return what they say."""
        all_said = ''
        for line in self.text(word, 'shell').splitlines():
            self.done.append(line)
            status, said = self.run_line(line)
            self.assertIn(status, self.may_end(line), line + '\n' + said)
            all_said += said
        return all_said

    def may_end(self, line):
        """Return how a line may end; some warn of what is so here."""
        warns = ('audit' in line and _WARNINGS
                 or 'tapmac-status' in line and not conntrack.probe())
        return (0, int(warns))

    def look(self, state):
        """Look as the row of a state says, until that says what it shall."""
        (_, look, words, _), = [row for row in self.rows if row[0] == state]
        self.rows_left.remove(state)
        patience.wait_until(lambda: self.here(words) in self.said(look),
                            lambda: '%s: %s' % (state, self.said(look)), 0.1)

    def said(self, look):
        """Return what there is to be seen where a row says so."""
        return self.log() if look == 'LOG' else self.run_line(
            self.here(look))[1]

    def test_from_package_to_upgrade(self):
        self.done = []
        self.rows = documents.rows(documents.AGENT, 'Failures')
        self.rows_left = [row[0] for row in self.rows]
        self.configure_host()
        self.set_up()
        guests = self.have_guests()
        self.first_group(*guests)
        self.watch()
        self.fail_one_by_one(*guests)
        self.emergency(*guests)
        self.run_block('restart tapmac-agent')
        self.wait_until_passes(*guests, _DNS)
        self.wait_until_refused(*guests, _OTHER)
        self.assertEqual([], self.rows_left)
        self.assertEqual(
            [line for block in documents.blocks(documents.AGENT)
             if block.language == 'shell' and _EXTRA not in block.text
             for line in self.here(block.text).splitlines()], self.done)

    def set_up(self):
        self.run_block('visudo')
        said = self.run_block('tapmac-status')
        # By whom it can be done, and with which Neutron.
        self.assertEqual(4 if conntrack.probe() else 3,
                         said.count('Result: Success'), said)
        self.run_block('install -m')
        if not conntrack.probe():
            self.look('The kernel has no conntrack for bridges: the agent '
                      'does not start')
            self.machine.write('/etc/neutron/tapmac-agent.conf', self.text(
                'metrics_file') + self.text('stateless_only'))
            self.systemctl('start', 'tapmac-agent')
        self.wait_until_reported(self.one)
        self.assertIn(self.one.name, self.run_block('has begun'))
        self.assertIn('capabilities (eff/prm/inh): '
                      'CAP_NET_ADMIN/CAP_NET_ADMIN/none', self.log())
        agent, = [each for each in self.neutron.request(
            'GET', 'agents?host=' + self.one.name)['agents']
            if each['binary'] == 'tapmac-agent']
        self.names['7f5c1a2e-0000-4000-8000-000000000000'] = agent['id']

    def have_guests(self):
        """Return two: who asks, and the one of the page."""
        self.group_id = self.outsiders()
        guests = [self.guest(self.one, self.group_id) for _ in range(2)]
        self.wait_until_active(*guests)
        port = guests[1].port['id']
        self.names['1a2b3c4d-5e6f-4a1b-8c2d-3e4f5a6b7c8d'] = port
        self.names['tap1a2b3c4d-5e'] = names.nova_tap_name(port)
        return guests

    def first_group(self, sender, guest):
        self.wait_until_refused(sender, guest, _DNS)
        self.addCleanup(self.delete_group)
        self.assertIn('ACTIVE', self.run_block('port set'))
        self.wait_until_passes(sender, guest, _DNS)
        self.wait_until_refused(sender, guest, _OTHER)
        self.assertEqual(2, self.run_block('tapmac list').count(' full '))

    def delete_group(self):
        for port in self.neutron.request(
                'GET', 'ports?device_owner=compute:nova')['ports']:
            self.neutron.request('DELETE', 'ports/' + port['id'])
        for each in self.neutron.request(
                'GET', 'security-groups?name=dns')['security_groups']:
            self.neutron.request('DELETE', 'security-groups/' + each['id'])

    def watch(self):
        said = self.run_block('agent show')
        for words in ('ports_waiting', 'last_sync', 'tapmac_agent_ports 2',
                      'tapmac_agent_ports_waiting 0'):
            self.assertIn(words, said)
        self.assertNotRegex(said, 'TM(214|23[456]|31[67])')

    def forget(self):
        """Have a log that says nothing of the past."""
        os.truncate(self.machine.path(_LOG), 0)

    def flush(self):
        def delete():
            with nftables.NFTables(nfgen_family=socket.AF_BRIDGE) as nft:
                nft.table('del', name='tapmac')
        self.one.run(delete)

    def fail_one_by_one(self, sender, guest):
        self.assert_way(sender, guest)
        self.no_agent()
        self.assert_way(sender, guest)
        self.no_queue()
        self.assert_way(sender, guest)
        self.forget()
        self.flush()
        self.look('The rules were flushed')
        self.assert_way(sender, guest)
        if patience.LONG:
            self.no_sudo()
        else:
            # What is said then, test_agent has seen.
            self.rows_left = [each for each in self.rows_left
                              if not each.startswith('sudo')]
        self.wrong_groups(guest)
        if conntrack.probe():
            self.rows_left = [each for each in self.rows_left
                              if 'conntrack' not in each]
        else:
            self.start_guest(self.one, self.bound_port(
                self.one, self.group({'direction': 'egress'})))
            self.look('With conntrack = stateless_only: a port with a '
                      'stateful group is DOWN and mute')

    def assert_way(self, sender, guest):
        self.wait_until_passes(sender, guest, _DNS)
        self.wait_until_refused(sender, guest, _OTHER)

    def no_agent(self):
        self.systemctl('stop', 'tapmac-agent')
        mute = self.guest(self.one, self.group_id)
        self.look('The agent is down: new guests are DOWN and mute, others go '
                  'on')
        self.look('The same, on the host of a guest that is mute')
        self.neutron.database.execute(
            'UPDATE neutron.agents SET heartbeat_timestamp = "2020-01-01" '
            'WHERE host = %s', self.one.name)
        self.look('The same, in Neutron')
        self.flush()
        self.look('The rules were flushed while the agent was down: guests '
                  'are open')
        self.systemctl('start', 'tapmac-agent')
        self.wait_until_active(mute)

    def no_queue(self):
        self.forget()
        self.one.line.cut()
        self.look('The message queue is gone, or does not let the agent in')
        self.one.line.mend()

    def no_sudo(self):
        self.forget()
        self.machine.path('/etc/sudoers.d/neutron-tapmac').unlink()
        self.systemctl('restart', 'tapmac-agent')
        self.look('sudo does not let the agent have its daemon')
        self.machine.write('/etc/sudoers.d/neutron-tapmac',
                           self.text('NOPASSWD', 'text'), group=0)
        self.systemctl('start', 'tapmac-agent')

    def wrong_groups(self, guest):
        dns, = self.neutron.request(
            'GET', 'security-groups?name=dns')['security_groups']
        right = self.show(guest.port)['security_groups']
        wrong = self.outsiders()
        self.names['00000007-0000-4000-8000-000000000000'] = wrong
        self.update(guest.port, security_groups=[wrong])
        self.look('A port has another group than it should')
        self.update(guest.port, security_groups=right)
        rule, = self.add_rules(dns['id'], self.udp(_OTHER))
        self.look('A group has another rule than it should')
        self.neutron.request('DELETE', 'security-group-rules/' + rule)

    def emergency(self, sender, guest):
        self.run_block('filter --off')
        self.wait_until_passes(sender, guest, _OTHER)
        self.look('A guest is open by the emergency exit')
        self.run_block('filter --on')
        self.wait_until_refused(sender, guest, _OTHER)
        self.assertEqual(0, self.run_line('tapmac filter --off')[0])
        self.wait_until_passes(sender, guest, _OTHER)
        self.look('All of the host are')
        self.assertEqual(0, self.run_line('tapmac filter --on')[0])
        self.wait_until_refused(sender, guest, _OTHER)
