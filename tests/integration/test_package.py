# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""Installing: from a checkout, from an archive of it, from an sdist."""

import os
import pathlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile

import fixtures

from tests import base

CHECKOUT = pathlib.Path(base.__file__).parent.parent
VERSION = '1.2.3'


class PackageTest(base.TestCase):

    def setUp(self):
        super().setUp()
        if not (CHECKOUT / '.git').exists():
            self.cannot_run('needs a git checkout')
        self.temporary = pathlib.Path(self.useFixture(
            fixtures.TempDir()).path)
        self.clone = self.temporary / 'clone'
        self.run_command('git', 'clone', '-q', str(CHECKOUT), str(self.clone),
                         cwd=CHECKOUT)

    def run_command(self, *command, cwd=None, **environment):
        done = subprocess.run(
            command, cwd=cwd or self.clone, text=True,
            env=dict(os.environ, **environment), stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT)
        self.assertEqual(0, done.returncode, done.stdout)
        return done.stdout

    def build(self, source, *arguments, **environment):
        """Build as pip does, in an environment of its own."""
        target = pathlib.Path(tempfile.mkdtemp(dir=self.temporary))
        self.run_command(sys.executable, '-m', 'build', '-o', str(target),
                         *arguments, cwd=source, **environment)
        return target

    def assert_wheel(self, target, version=None):
        wheel, = target.glob('vif_plug_tapmac-*.whl')
        with zipfile.ZipFile(wheel) as opened:
            names = opened.namelist()
            metadata, = [name for name in names if name.endswith('/METADATA')]
            entry_points, = [name for name in names
                             if name.endswith('/entry_points.txt')]
            self.assertIn(b'tapmac = vif_plug_tapmac.plugin:TapMacPlugin',
                          opened.read(entry_points))
            for line in opened.read(metadata).decode().splitlines():
                if line.startswith('Version: ') and version:
                    self.assertEqual('Version: ' + version, line)
        info = metadata.split('/')[0]
        self.assertEqual({'vif_plug_tapmac', info},
                         {name.split('/')[0] for name in names})
        self.assertEqual(
            {str(path.relative_to(self.clone)) for path in
             (self.clone / 'vif_plug_tapmac').rglob('*.py')},
            {name for name in names if not name.startswith(info)})

    def test_checkout(self):
        self.assert_wheel(self.build(self.clone, '--wheel'))

    def test_archive_with_a_version(self):
        archive = self.temporary / 'archive.tar'
        self.run_command('git', 'archive', '-o', str(archive), 'HEAD')
        source = self.temporary / 'source'
        with tarfile.open(archive) as opened:
            opened.extractall(source)
        self.assert_wheel(self.build(source, '--wheel', PBR_VERSION=VERSION),
                          VERSION)

    def test_sdist(self):
        target = self.build(self.clone, '--sdist', PBR_VERSION=VERSION)
        with tarfile.open(next(target.glob('*.tar.gz'))) as opened:
            opened.extractall(self.temporary)
        source = self.temporary / ('vif_plug_tapmac-' + VERSION)
        for name in ('LICENSE', 'README.rst', 'ChangeLog', 'tests/base.py'):
            self.assertTrue((source / name).exists(), name)
        self.assert_wheel(self.build(source, '--wheel'), VERSION)
