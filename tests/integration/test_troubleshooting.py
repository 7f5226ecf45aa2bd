# SPDX-License-Identifier: Apache-2.0

"""The commands of "Troubleshooting" can be typed as they are."""

import os
import shutil
import subprocess

from tests import base
from tests import documents
from tests import hosts
from tests.integration import test_daemon

#: What the commands need that is not here: a libvirt, Nova's user.
_NOT_RUN = ('virsh', 'sudo -u nova')
#: An audit says by its exit status how bad it is.
_WARNINGS, _ERRORS = 10, 20


class TroubleshootingTest(base.FunctionalTestCase):

    def run_block(self, block):
        return subprocess.run(
            ['sh', '-eu', '-c', block.text], text=True, capture_output=True,
            env=dict(os.environ, PYTHONWARNINGS='ignore', PATH='%s:%s' % (
                test_daemon.BIN, os.environ['PATH'])))

    def test_commands(self):
        for program in 'ip', 'bridge':
            if not shutil.which(program):
                self.cannot_run('needs iproute2: run tools/peers.sh')
        self.plug()
        with hosts.private_mounts():
            hosts.mount('sysfs', '/sys', 'sysfs')
            for block in documents.blocks(documents.TROUBLESHOOTING):
                if any(word in block.text for word in _NOT_RUN):
                    continue
                done = self.run_block(block)
                self.assertIn(done.returncode, (
                    0, _WARNINGS, _ERRORS) if 'audit' in block.text else (0,),
                    block.text + done.stderr)
                self.assertNotEqual('', done.stdout, block.text)
