# SPDX-License-Identifier: Apache-2.0

"""What the pages say, done in one cloud: their commands, in their order.

Those of "A cloud of your own", and between them those of the pages on networks
of Neutron, tapmac-agent, and DHCP: exactly these, but for what is called
otherwise in each cloud. And what is left of a cloud that is killed: nothing.
"""

import os
import pathlib
import re
import shlex
import socket
import subprocess
import threading
import unittest

import fixtures

from tests import base
from tests import documents
from tests import guest_image
from tests import hosts
from tests import patience

#: In seconds: to start, and to do all; pages wait for guests as long as they
#: have to.
_PATIENCE = 4 * patience.HANG
_TOOL = base.CHECKOUT / 'tools' / 'cloud.sh'
#: Begins what a block says.
_MARK = '=== '
#: Before this section of "A cloud of your own", other pages are done.
_MIGRATION = 'From one host to the other'

#: What pages have for examples, and what that is here, of a guest on a host.
_HERE = '''
port=$(openstack port list --server demo -f value -c ID)
agents=$(openstack network agent list -f value -c ID -c Host -c Binary)
here() {
    agent=$(echo "$agents" | sed -n "s/ $2 $1$//p")
    tap=tap$(echo "$port" | cut -c-11)
    sed -e "s/%(port)s/$port/" -e "s/%(tap)s/$tap/" -e "s/%(agent)s/$agent/" \\
        -e "s/compute1/$2/"
}
''' % {'port': base.VIF_ID, 'tap': base.TAP,
       'agent': '7f5c1a2e-0000-4000-8000-000000000000'}


def load_tests(loader, tests, pattern):
    # Each cloud takes minutes.
    if patience.LONG:
        return tests
    return unittest.TestSuite(
        [PageTest('test_commands')] if patience.IN_FULL else [])


class PageTest(base.TestCase):

    def setUp(self):
        super().setUp()
        missing = hosts.missing_privilege() or guest_image.missing()
        if missing:
            self.cannot_run(missing)
        self.directory = pathlib.Path(
            self.useFixture(fixtures.TempDir()).path)

    def start(self, script):
        """Start a cloud that runs a script.

        What is asked where it is kept is the answer of a namespace's own.
        """
        path = self.directory / 'script'
        path.write_text(script)
        return subprocess.Popen(
            [_TOOL, '--run', path], text=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            preexec_fn=hosts.die_with_parent, env=dict(
                os.environ, TAPMAC_CLOUD_PATIENCE='%d' % patience.HANG))

    def blocks(self, document):
        """Return the blocks of a page that one with a cloud can run."""
        found = [block for block in documents.blocks(document)
                 if block.language == 'shell' and not block.elsewhere]
        self.assertNotEqual([], found)
        return found

    def write(self, block, agent=None, host='$host'):
        """Return what runs a block.

        :param agent: which one the page means; None: it is of no host, and has
            no examples
        :param host: as the shell says it: where it is typed, and the agent is
        """
        path = self.directory / str(len(os.listdir(self.directory)))
        path.write_text(block.text)
        mark = 'echo %s' % shlex.quote('%s%s: %s' % (
            _MARK, block.section, block.text.splitlines()[0].rstrip(' \\')))
        if agent is None:
            return '%s\n%s' % (mark, block.text)
        return '%s\nhere %s %s < %s > %s.here\n%s sh -e %s.here' % (
            mark, agent, host, path, path, host, path)

    def script(self):
        """Return all commands, in an order in which they make sense."""
        cloud = self.blocks(documents.CLOUD)
        later = [block.section for block in cloud].index(_MIGRATION)
        return '\n'.join([
            *map(self.write, cloud[:later]), _HERE,
            *map(self.write, self.blocks(documents.PROVIDER)),
            *(self.write(block, 'tapmac-agent')
              for block in self.blocks(documents.AGENT)),
            *(self.write(block, 'neutron-dhcp-agent', 'compute1')
              for block in self.blocks(documents.DHCP)),
            'openstack server delete --wait demo200',
            *map(self.write, cloud[later:]),
            'readlink /proc/self/ns/pid', 'sleep infinity', ''])

    def test_commands(self):
        before = socket.if_nameindex()
        with self.start(self.script()) as cloud:
            timer = threading.Timer(_PATIENCE, cloud.kill)
            timer.start()
            self.addCleanup(timer.cancel)
            said = []
            for line in cloud.stdout:
                said.append(line)
                if line.startswith('pid:'):
                    break
            cloud.kill()
        said = ''.join(said)
        self.assertRegex(said, r'pid:\S+\n\Z')
        self.check({
            part.partition('\n')[0]: part.partition('\n')[2]
            for part in said.split('\n' + _MARK)[1:]}, said)
        # Whatever ends it ends all that is in it.
        namespace = said.split()[-1]
        patience.wait_until(lambda: not _members(namespace),
                            lambda: 'still there: %s' % _members(namespace))
        self.assertEqual(before, socket.if_nameindex())

    def check(self, parts, said):
        """Expect what each block is to say.

        :param parts: by the section and the first line of a block
        """
        def part(section, command):
            found, = [text for mark, text in parts.items()
                      if mark.startswith('%s: %s' % (section, command))]
            return found

        def has(section, command, *words):
            for word in words:
                self.assertRegex(part(section, command), word, said)
        answers = ' 3 received, 0%'
        has('A guest that answers', 'until ping', answers)
        has('A guest that answers', 'openstack security', '(?m)^metadata demo')
        has('What the hosts have', 'host=', r'\bbr100\b.* full\b',
            'table bridge tapmac', r'eth1\b.*master br100')
        has('Network, subnet and server', 'openstack network create',
            r'\| status +\| ACTIVE')
        has('The service', 'grep', 'tapmac-agent has begun',
            r'\| tapmac agent ')
        has('A first group', 'openstack security group create',
            r'\| status +\| ACTIVE')
        has('A first group', 'tapmac list', r'\bbr100\b.* full\b')
        has('Watching it', 'openstack network agent show',
            '(?m)^tapmac_agent_ports_waiting [0-9]')
        has('Without tapmac-agent', 'openstack network agent list',
            r'\| DHCP agent ')
        has(_MIGRATION, 'openstack server migrate', answers,
            r'\| status +\| ACTIVE')
        before, = re.findall(r'\| binding_host_id +\| (\S+)', part(
            'A first group', 'openstack security group create'))
        after, = re.findall(r'\| (compute[12]) +\|', part(
            _MIGRATION, 'openstack server migrate'))
        self.assertNotEqual(before, after)
        has('A host that boots', 'host=', after + ' has booted again', answers,
            r'\bbr100\b.* full\b')
        has('When a rule goes, and a server', 'rule=', 'no answer')
        self.assertEqual(2, part(
            'When a rule goes, and a server', 'openstack server delete').count(
                'There is no TAP of tapmac.'), said)

    def test_exit_status(self):
        with self.start('exit 7\n') as cloud:
            said, _ = cloud.communicate(timeout=_PATIENCE)
        self.assertEqual(7, cloud.returncode, said)


def _members(namespace):
    """Return the processes that are in a namespace for processes."""
    found = []
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try:
            if os.readlink('/proc/%s/ns/pid' % pid) == namespace:
                found.append(pid)
        except OSError:
            pass  # It has ended.
    return found
