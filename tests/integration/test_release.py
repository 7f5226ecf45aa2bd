# SPDX-License-Identifier: Apache-2.0

"""What is uploaded: an sdist and a wheel, as tools/release.sh makes them."""

import hashlib
import re
import sys
import tarfile
import zipfile

from tests import building


class ReleaseTest(building.BuildingTestCase):

    def setUp(self):
        super().setUp()
        self.only_in_full()

    def release(self, name):
        """Return what is made, by the names of the files."""
        target = self.temporary / name
        self.run_command('tools/release.sh', str(target), '--no-isolation',
                         PYTHON=sys.executable)
        return {path.name: path for path in target.iterdir()}

    def test_a_release(self):
        self.run_command('git', '-c', 'user.name=a', '-c', 'user.email=b@c',
                         'tag', '-am', 'a release', building.version())
        made = self.release('made')
        sdist = 'vif_plug_tapmac-%s.tar.gz' % building.version()
        wheel = 'vif_plug_tapmac-%s-py3-none-any.whl' % building.version()
        self.assertEqual({sdist, wheel}, set(made))

        # In another clone, at another time: it is the same to the last byte.
        again = self.release('again')
        for name, path in made.items():
            self.assertEqual(*(
                hashlib.sha256(each.read_bytes()).hexdigest()
                for each in (path, again[name])), name)

        for module in ('twine', 'check', '--strict'), (
                'check_wheel_contents',):
            self.run_command(sys.executable, '-m', *module, *(
                str(path) for name, path in made.items()
                if module[0] == 'twine' or name == wheel))

        with zipfile.ZipFile(made[wheel]) as opened:
            metadata, = (opened.read(name).decode() for name
                         in opened.namelist() if name.endswith('/METADATA'))
        head, _, readme = metadata.partition('\n\n')
        lines = head.splitlines()
        self.assertIn('License-Expression: Apache-2.0', lines)
        self.assertEqual(
            {'agent', 'bench', 'libvirt', 'migrate', 'ml2', 'test'},
            {line.partition(': ')[2] for line in lines
             if line.startswith('Provides-Extra: ')})

        # A packager finds all in the sdist, and what tells the version.
        with tarfile.open(made[sdist]) as opened:
            names = {name.partition('/')[2] for name in opened.getnames()}
        tracked = set(self.run_command('git', 'ls-files').splitlines())
        self.assertEqual({'.gitignore', '.gitreview'}, tracked - names)
        self.assertLessEqual({'PKG-INFO', 'ChangeLog'}, names)

        # The README is shown where there is no checkout around it.
        self.assertNotRegex(readme, r'<doc/|:: doc/')
        links = re.findall(r'(?:<|:: )https://opendev\.org/x/vif-plug-tapmac/'
                           r'(src|raw)/branch/master/([^>\s]+)', readme)
        self.assertIn(('raw', 'doc/source/host-picture.svg'), links)
        self.assertLessEqual({'doc/source/%s.rst' % name for name in (
            'getting-started', 'security')}, {path for _, path in links})
        self.assertEqual(set(), {path for _, path in links} - tracked)
