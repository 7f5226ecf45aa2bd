# SPDX-License-Identifier: Apache-2.0

"""What "Getting started" says, done from a clean checkout up to the ping.

Its commands are run in one shell, as a reader types them. They have mounts and
processes of their own, so that neither namespaces nor guests can be left, but
the network of this machine, for packages.
"""

import os
import shutil
import socket
import subprocess

import fixtures

from tests import base
from tests import documents
from tests import guest_image
from tests import hosts
from tests import patience

_OWN_PROCESSES = ('setpriv', '--pdeathsig', 'KILL', 'unshare', '--pid',
                  '--fork', '--kill-child', '--mount-proc')


class GettingStartedTest(base.TestCase):

    def setUp(self):
        super().setUp()
        self.only_in_full()
        missing = hosts.missing_privilege() or guest_image.missing()
        if missing:
            self.cannot_run(missing)
        for program in 'ip', 'ping', 'qemu-system-x86_64':
            if not shutil.which(program):
                self.cannot_run('needs %s: run tools/peers.sh' % program)
        if not (base.CHECKOUT / '.git').exists():
            self.cannot_run('needs a git checkout')
        self.clone = self.useFixture(fixtures.TempDir()).join('clone')
        subprocess.run(['git', 'clone', '-q', base.CHECKOUT, self.clone],
                       check=True)
        # What is downloaded once need not be again.
        os.makedirs(self.clone + '/.venv/guest')
        os.symlink(guest_image.UNPACKED, self.clone + '/.venv/guest/root')

    def run_in_order(self):
        """Run all commands in one shell; return what they say."""
        commands = '\n'.join(
            documents.patient(block.text)
            for block in documents.blocks(documents.GETTING_STARTED)
            if block.language == 'shell')
        environment = dict(os.environ, LC_ALL='C')
        environment.pop('PYTHON', None)
        with hosts.private_mounts():
            # A machine whose udev does not see namespaces, as all have one.
            hosts.mount_copy('/run', without=('netns', 'udev'))
            os.makedirs('/run/udev')
            open('/run/udev/control', 'w').close()
            done = subprocess.run(
                [*_OWN_PROCESSES, 'sh', '-eux', '-c', commands],
                cwd=self.clone, env=environment, text=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                # It is set up, and then a guest boots.
                timeout=2 * patience.HANG)
        self.assertEqual(0, done.returncode, done.stdout)
        return done.stdout

    def test_from_checkout_to_ping(self):
        before = socket.if_nameindex()
        said = self.run_in_order()
        self.assertEqual(3, said.count(' bytes from 10.0.0.194'), said)
        for word in (base.GUEST_MAC, base.TAP_MAC, 'master br100',
                     'br100 has no uplink', 'is removed'):
            self.assertIn(word, said)
        self.assertNotIn('udev did not say', said)
        self.assertEqual(before, socket.if_nameindex())
