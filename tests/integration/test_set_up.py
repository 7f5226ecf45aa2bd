# SPDX-License-Identifier: Apache-2.0

"""The set-up of the README's two commands, where it cannot succeed.

It ends with one sentence that says why, and whoever mends that and runs it
again comes further. In a copy of this checkout, an archive: without .git.
"""

import functools
import http.server
import os
import pathlib
import shutil
import subprocess
import threading

import fixtures

from tests import base
from tests import hosts

_UV = base.CHECKOUT / '.venv/uv'
#: As in a new account: what was downloaded for others does not help.
_NOTHING_CACHED = {'PIP_NO_CACHE_DIR': '1', 'UV_NO_CACHE': '1',
                   'PIP_CONFIG_FILE': '/dev/null', 'PIP_RETRIES': '1'}
_OFFLINE = ('unshare', '--net')


class _BrokenMirror(http.server.BaseHTTPRequestHandler):

    def do_GET(self):
        self.send_error(502)

    def log_message(self, *_):
        pass


class SetUpTest(base.TestCase):

    def setUp(self):
        super().setUp()
        # Who changes tools/ runs them.
        self.only_in_full()
        missing = hosts.missing_privilege()
        if missing:
            self.cannot_run(missing)
        self.useFixture(fixtures.EnvironmentVariable('PIP_FIND_LINKS'))
        self.copy = pathlib.Path(self.useFixture(fixtures.TempDir()).join('c'))
        base.copy_checkout(self.copy)

    def demo(self, *prefix, **environment):
        return subprocess.run(
            [*prefix, 'tools/demo.sh'], cwd=self.copy, text=True,
            capture_output=True, stdin=subprocess.DEVNULL,
            env=dict(os.environ, **_NOTHING_CACHED, **environment))

    def assert_refused(self, done, *words):
        """Expect one sentence at the end, with these words."""
        self.assertEqual(1, done.returncode, done.stderr)
        self.assertNotIn('Traceback', done.stderr)
        sentence = done.stderr.splitlines()[-1]
        self.assertTrue(sentence.startswith('tools/demo.sh: '), done.stderr)
        for word in words:
            self.assertIn(word, sentence)

    def have_uv(self):
        if not _UV.exists():
            self.cannot_run('needs .venv/uv: run tools/test.sh')
        (self.copy / '.venv').mkdir()
        (self.copy / '.venv/uv').symlink_to(_UV)

    def python(self, script):
        """Have a Python that is this one but for what a script says."""
        path = self.copy / 'python'
        path.write_text('#!/bin/sh\n%s\nexec %s "$@"\n' % (
            script, shutil.which('python3')))
        path.chmod(0o755)
        return str(path)

    def python_without_pip(self):
        """Have a Python as Debian has it without python3-venv."""
        return self.python('case $* in *ensurepip*) exit 1 ;; esac')

    def test_no_network(self):
        done = self.demo(*_OFFLINE)
        self.assertIn('Setting up .venv/uv\n', done.stderr)
        self.assert_refused(done, 'Setting up .venv/uv: failed', 'network',
                            'run this again', '.venv/log/setup')

    def test_no_network_for_libraries(self):
        self.have_uv()
        self.assert_refused(self.demo(*_OFFLINE),
                            'Setting up .venv/demo: failed', 'network',
                            'run this again', '.venv/log/setup')

    def mirror(self):
        server = http.server.ThreadingHTTPServer(
            ('127.0.0.1', 0), _BrokenMirror)
        self.addCleanup(server.server_close)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.shutdown)
        return {name: 'http://127.0.0.1:%d/simple' % server.server_port
                for name in ('PIP_INDEX_URL', 'UV_DEFAULT_INDEX')}

    def test_broken_mirror(self):
        self.assert_refused(self.demo(**self.mirror()),
                            'Setting up .venv/uv: failed',
                            'where packages come from')

    def test_broken_mirror_for_libraries(self):
        self.have_uv()
        self.assert_refused(self.demo(**self.mirror()),
                            'Setting up .venv/demo: failed',
                            'where packages come from')

    def test_mirror_of_pip_is_uvs(self):
        self.have_uv()
        url = self.mirror()['PIP_INDEX_URL']
        self.assert_refused(self.demo(*_OFFLINE, PIP_INDEX_URL=url),
                            'Setting up .venv/demo: failed')
        self.assertIn(url, (self.copy / '.venv/log/setup').read_text())

    def test_full_disk(self):
        (self.copy / '.venv').mkdir()
        with hosts.private_mounts():
            hosts.mount('tmpfs', str(self.copy / '.venv'), 'tmpfs',
                        options='size=1m')
            done = self.demo()
        self.assert_refused(done, 'the disk is full')

    def test_disk_that_was_full_before(self):
        (self.copy / '.venv').mkdir()
        with hosts.private_mounts():
            hosts.mount('tmpfs', str(self.copy / '.venv'), 'tmpfs',
                        options='size=4k,nr_inodes=1')
            done = self.demo()
        self.assert_refused(done, 'cannot write', 'disk full')

    def test_read_only_checkout(self):
        with hosts.private_mounts():
            hosts.mount_read_only(str(self.copy))
            done = self.demo()
        self.assert_refused(done, 'cannot write', 'read-only')

    def test_python_that_is_too_old(self):
        python = self.python('case $1 in -V) echo Python 3.8.18; exit ;; esac'
                             '\nexit 1')
        self.assert_refused(self.demo(PYTHON=python),
                            'Python 3.10 or newer', '3.8.18')

    def test_no_python(self):
        self.assert_refused(self.demo(PYTHON='/nowhere/python3'),
                            'Python 3.10 or newer', 'missing')

    def test_no_pip_and_no_apt(self):
        python = self.python_without_pip()
        with hosts.private_mounts():
            if os.path.exists('/usr/bin/apt-get'):
                hosts.mount('/dev/null', '/usr/bin/apt-get', None,
                            hosts.MS_BIND)
            done = self.demo(PYTHON=python)
        self.assert_refused(done, '-venv', 'no apt-get')

    def test_no_pip_and_no_right_to_install(self):
        if not os.path.exists('/usr/bin/apt-get'):
            self.cannot_run('needs apt-get')
        python = self.python_without_pip()
        done = self.demo('setpriv', '--bounding-set', '-all', PYTHON=python)
        self.assert_refused(done, 'sudo apt-get install -y', '-venv')

    @base.needs_real_root(base.INSTALLING)
    def test_no_pip_whatever_apt_says(self):
        if not os.path.exists('/usr/bin/apt-get'):
            self.cannot_run('needs apt-get')
        python = self.python_without_pip()
        with hosts.private_mounts():
            hosts.mount('/bin/true', '/usr/bin/apt-get', None, hosts.MS_BIND)
            done = self.demo(PYTHON=python)
        self.assert_refused(done, 'ensurepip', 'PYTHON=')

    @base.needs_real_root(base.INSTALLING)
    def test_scripts_go_on_after_something_is_installed(self):
        """What they have set before is still theirs; all share one shell."""
        if not os.path.exists('/usr/bin/apt-get'):
            self.cannot_run('needs apt-get')
        # As kernel_image.sh does, on a machine without QEMU.
        with hosts.private_mounts():
            hosts.mount('/bin/true', '/usr/bin/apt-get', None, hosts.MS_BIND)
            done = subprocess.run(
                ['sh', '-euc', '. tools/venv.sh\napt=$PWD/mine site=mine\n'
                 'apt_get install -y something\necho $apt $site'],
                cwd=self.copy, text=True, capture_output=True)
        self.assertEqual((0, '%s/mine mine\n' % self.copy),
                         (done.returncode, done.stdout), done.stderr)

    @base.needs_real_root(base.INSTALLING)
    def test_apt_that_fails(self):
        if not os.path.exists('/usr/bin/apt-get'):
            self.cannot_run('needs apt-get')
        python = self.python_without_pip()
        with hosts.private_mounts():
            # It knows neither what is here nor what there is.
            for directory in '/var/lib/apt', '/var/lib/dpkg':
                hosts.mount('tmpfs', directory, 'tmpfs')
            done = self.demo(*_OFFLINE, PYTHON=python)
        self.assert_refused(done, 'apt-get install', 'failed')

    def test_goes_on_where_it_stopped(self):
        self.have_uv()
        self.assertEqual(1, self.demo(*_OFFLINE).returncode)
        run = functools.partial(
            subprocess.run, ['tools/demo.sh'], cwd=self.copy, text=True,
            capture_output=True)
        done = run()
        self.assertEqual(0, done.returncode, done.stderr)
        self.assertIn('Setting up .venv/demo', done.stderr)
        self.assertNotIn('Setting up .venv/uv', done.stderr)
        done = run()
        self.assertEqual((0, ''), (done.returncode, done.stderr))
