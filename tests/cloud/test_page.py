# SPDX-License-Identifier: Apache-2.0

"""What "A cloud of your own" says, done in one: its commands, in their order.

And what is left of a cloud that is killed: nothing.
"""

import os
import pathlib
import re
import socket
import subprocess
import unittest

import fixtures

from tests import base
from tests import documents
from tests import guest_image
from tests import hosts
from tests import patience

#: In seconds: to start, and to do all.
_PATIENCE = 4 * patience.HANG
_TOOL = base.CHECKOUT / 'tools' / 'cloud.sh'


def load_tests(loader, tests, pattern):
    # Each cloud takes minutes.
    return tests if patience.LONG else unittest.TestSuite()


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
            preexec_fn=hosts.die_with_parent)

    def test_commands(self):
        before = socket.if_nameindex()
        commands = '\n'.join(
            block.text for block in documents.blocks(documents.CLOUD)
            if block.language == 'shell')
        with self.start('echo begun\n%s\nexit 7\n' % commands) as cloud:
            said, _ = cloud.communicate(timeout=_PATIENCE)
        self.assertEqual(7, cloud.returncode, said)
        # Without a rule, with one, and on the other host.
        self.assertEqual(2, len(re.findall(' 3 received, 0%', said)), said)
        self.assertIn('no answer', said)
        self.assertRegex(said, '(?m)^metadata demo')
        host, *_ = re.findall(r'\+?(compute[12]) +\|', said)
        self.assertTrue(host, said)
        self.assertEqual(2, said.count('There is no TAP of tapmac.'), said)
        self.assertEqual(before, socket.if_nameindex())

    def test_killed(self):
        """Whatever ends it ends all that is in it."""
        with self.start('echo begun; readlink /proc/self/ns/pid; '
                        'sleep infinity') as cloud:
            said = []
            for line in cloud.stdout:
                said.append(line)
                if line.startswith('pid:'):
                    break
            self.assertIn('begun\n', said)
            cloud.kill()
        patience.wait_until(lambda: not _members(line.strip()),
                            lambda: 'still there: %s' % _members(line.strip()))


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
