# SPDX-License-Identifier: Apache-2.0

"""Installing: from a checkout, from an archive of it, from an sdist."""

import pathlib
import sys
import tarfile
import tempfile
import zipfile

from tests import building

VERSION = '1.2.3'


class PackageTest(building.BuildingTestCase):

    def build(self, source, what, **environment):
        """Build a wheel or sdist in an environment of its own."""
        target = pathlib.Path(tempfile.mkdtemp(dir=self.temporary))
        self.run_command(sys.executable, '-m', 'build', '-o', str(target),
                         '--' + what, cwd=source, **environment)
        return target

    def assert_installs(self, source, version=None, **environment):
        """Run "pip install ." there; expect our package and metadata only."""
        target = self.temporary / 'installed'
        self.run_command(sys.executable, '-m', 'pip', 'install', '-q',
                         '--no-deps', '--target', str(target), '.',
                         cwd=source, **environment)
        info, = target.glob('vif_plug_tapmac-*.dist-info')
        self.assertEqual({'vif_plug_tapmac', 'bin', info.name},
                         {path.name for path in target.iterdir()})
        if version:
            self.assertIn('Version: %s\n' % version,
                          (info / 'METADATA').read_text())
        self.assertIn('tapmac = vif_plug_tapmac.plugin:TapMacPlugin',
                      (info / 'entry_points.txt').read_text())
        self.assertEqual(
            {'tapmac', 'tapmac-agent', 'tapmac-migrate', 'tapmac-status'},
            {path.name for path in (target / 'bin').iterdir()})
        self.run_command(sys.executable, '-c', 'import sys, vif_plug_tapmac; '
                         'sys.exit(%r not in vif_plug_tapmac.__file__)'
                         % str(target), cwd='/', PYTHONPATH=str(target))

    def test_checkout(self):
        self.only_in_full()
        self.assert_installs(self.clone)

    def test_archive_with_a_version(self):
        self.only_in_full()
        archive = self.temporary / 'archive.tar'
        self.run_command('git', 'archive', '-o', str(archive), 'HEAD')
        source = self.temporary / 'source'
        with tarfile.open(archive) as opened:
            opened.extractall(source)
        self.assert_installs(source, VERSION, PBR_VERSION=VERSION)

    def test_sdist(self):
        self.only_in_full()
        target = self.build(self.clone, 'sdist', PBR_VERSION=VERSION)
        with tarfile.open(next(target.glob('*.tar.gz'))) as opened:
            opened.extractall(self.temporary)
        source = self.temporary / ('vif_plug_tapmac-' + VERSION)
        for name in ('LICENSE', 'README.rst', 'ChangeLog', 'tests/base.py'):
            self.assertTrue((source / name).exists(), name)
        self.assert_installs(source, VERSION)

    def test_wheel_holds_the_package_and_nothing_else(self):
        self.only_in_full()
        wheel, = self.build(self.clone, 'wheel').glob('*.whl')
        with zipfile.ZipFile(wheel) as opened:
            names = [name for name in opened.namelist()
                     if '.dist-info/' not in name]
        self.assertEqual(
            sorted(str(path.relative_to(self.clone)) for path in
                   (self.clone / 'vif_plug_tapmac').rglob('*.py')),
            sorted(names))
