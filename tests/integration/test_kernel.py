# SPDX-License-Identifier: Apache-2.0

"""tools/kernel.sh: a command of this checkout on another kernel."""

import http.server
import os
import pathlib
import platform
import re
import shutil
import subprocess
import threading

import fixtures

from tests import base
from tests import hosts

_VERSION = '6.1'


class KernelTest(base.TestCase):

    def setUp(self):
        super().setUp()
        self.only_in_full()
        if platform.machine() != 'x86_64':
            self.skipTest('other kernels are for x86_64')
        missing = hosts.missing_privilege()
        if missing:
            self.cannot_run(missing)

    def run_there(self, *arguments, **environment):
        return subprocess.run(
            ['tools/kernel.sh', *arguments], cwd=base.CHECKOUT, text=True,
            capture_output=True, stdin=subprocess.DEVNULL,
            env=dict(os.environ, **environment))

    def kept(self, done):
        """Return where it says that it has kept what came of it."""
        found = re.search(r' s, see (\S+)$', done.stderr)
        self.assertIsNotNone(found, done.stderr)
        return pathlib.Path(found[1])

    def test_command(self):
        done = self.run_there(
            _VERSION, 'sh', '-c', 'uname -r; pwd; echo "$@"; echo $TAPMAC_X; '
            '.venv/test/bin/python -c "import vif_plug_tapmac as package; '
            'print(package.__file__)"; echo gone > README.rst; '
            'echo stays > /run/kept/left; exit 7', 'sh', "it's", '$HOME  *',
            TAPMAC_X='a b')
        self.assertEqual(7, done.returncode, done.stderr)
        release, *said = done.stdout.splitlines()
        self.assertTrue(release.startswith(_VERSION + '.'), release)
        self.assertEqual([
            str(base.CHECKOUT), "it's $HOME  *", 'a b',
            str(base.CHECKOUT / 'vif_plug_tapmac/__init__.py')], said)
        kept = self.kept(done)
        self.assertEqual(done.stdout, (kept / 'log').read_text())
        self.assertEqual('7\n', (kept / 'status').read_text())
        self.assertEqual('stays\n', (kept / 'left').read_text())
        self.assertIn('Linux version ' + release,
                      (kept / 'dmesg').read_text())
        self.assertNotEqual('gone\n', base.README.read_text())

    def test_net_is_our_loopback_and_nothing_else(self):
        server = http.server.ThreadingHTTPServer(
            ('127.0.0.1', 0), http.server.BaseHTTPRequestHandler)
        self.addCleanup(server.server_close)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(server.shutdown)
        done = self.run_there(
            '--net', _VERSION, 'busybox wget http://10.0.2.2:%d/; '
            'ip route show default | wc -l' % server.server_port)
        self.assertIn('501 ', done.stdout)  # What it serves is nothing.
        self.assertEqual('0', done.stdout.split()[-1])

    def test_kernel_that_crashes(self):
        done = self.run_there(_VERSION, 'echo c > /proc/sysrq-trigger')
        self.assertEqual(125, done.returncode, done.stderr)
        self.assertIn('ended before the command did', done.stderr)
        self.assertIn('sysrq', (self.kept(done) / 'console').read_text())

    def test_command_that_does_not_end(self):
        done = self.run_there('--timeout', '1', _VERSION, 'sleep 1000')
        self.assertEqual(124, done.returncode, done.stderr)
        self.assertIn('stopped after 1 s', done.stderr)

    def test_what_is_missing_is_said(self):
        path = self.useFixture(fixtures.TempDir()).path
        for program in 'dirname', 'uname', 'id', 'sed', 'grep':
            os.symlink(shutil.which(program), os.path.join(path, program))
        done = subprocess.run(
            [shutil.which('setpriv'), '--bounding-set=-all', '/bin/sh',
             'tools/kernel.sh', _VERSION, 'true'], cwd=base.CHECKOUT,
            text=True, capture_output=True, env={'PATH': path})
        self.assertEqual(1, done.returncode)
        self.assertRegex(done.stderr, 'may not install it; run: sudo apt-get '
                         'install .* qemu-system-x86 ')

    def test_not_enough_memory(self):
        done = self.run_there('--memory', '99999999', _VERSION, 'true')
        self.assertEqual(1, done.returncode)
        self.assertRegex(done.stderr, 'is to have 99999999 MiB of memory, and '
                         r'this machine has \d+ left')

    def test_version_that_nobody_has(self):
        done = self.run_there('1.2', 'true')
        self.assertEqual(1, done.returncode)
        self.assertRegex(done.stderr, r'has no Linux 1\.2; it has .*6\.1')

    def test_wrong_usage(self):
        for arguments in ([], ['6.1'], ['--cpus', 'x', '6.1', 'true'],
                          ['--nonsense', '6.1', 'true']):
            done = self.run_there(*arguments)
            self.assertEqual(2, done.returncode, arguments)
            self.assertIn('Usage: tools/kernel.sh', done.stderr)
        done = self.run_there('six', 'true')
        self.assertIn('six is no version of Linux', done.stderr)
