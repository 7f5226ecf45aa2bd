# SPDX-License-Identifier: Apache-2.0

"""What the package says of itself: one version, bounds that can be kept."""

import configparser
import os
import pathlib
import re
import subprocess
import sys

import fixtures
from packaging import requirements

from tests import base
from tests import building

_CONSTRAINTS = base.CHECKOUT / 'tests/upper_constraints.ini'


class VersionTest(base.TestCase):

    def test_each_that_has_to_repeat_it(self):
        for path, pattern in (
                ('packaging/debian/changelog', r'\A\S+ \((\S+)-1\)'),
                ('packaging/rpm/vif-plug-tapmac.spec', r'\nVersion: +(\S+)'),
                ('README.rst', r'PBR_VERSION=(\S+)')):
            found = re.search(pattern, (base.CHECKOUT / path).read_text())
            self.assertEqual(building.version(), found[1], path)


class TooOldTest(base.TestCase):
    """What is too old is said in one sentence by whoever loads the package."""

    def said(self, program, path=''):
        done = subprocess.run(
            [sys.executable, '-W', 'ignore', '-c', program], text=True,
            capture_output=True, env=dict(os.environ, PYTHONPATH=os.pathsep
                                          .join([path, str(base.CHECKOUT)])))
        self.assertEqual(1, done.returncode)
        return done.stderr.splitlines()[-1]

    def test_python(self):
        self.assertEqual(
            'ImportError: vif_plug_tapmac needs Python 3.10 or newer, and '
            'this is 3.9', self.said('import sys; sys.version_info = (3, 9, 2)'
                                     '; import vif_plug_tapmac.plugin'))

    def have(self, name, version):
        """Return where there is a package, but nothing in it."""
        there = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        info = there / ('%s-%s.dist-info' % (name, version))
        info.mkdir()
        (info / 'METADATA').write_text(
            'Metadata-Version: 2.1\nName: %s\nVersion: %s\n' % (name, version))
        return str(there)

    def test_os_vif(self):
        self.assertEqual(
            'ImportError: vif_plug_tapmac needs os-vif 3.1 or newer, and this '
            'is 3.0.0', self.said('import vif_plug_tapmac.plugin',
                                  self.have('os_vif', '3.0.0')))

    def test_neutron(self):
        # The only one here, or before the one that is.
        self.assertEqual(
            'ImportError: tapmac-agent needs Neutron 28 or newer, and this is '
            '27.0.1', self.said('import vif_plug_tapmac.agent.main',
                                self.have('neutron', '27.0.1')))


class BoundsTest(base.TestCase):
    """Our requirements go with what each release of OpenStack is tested with.

    The data is OpenStack's; "commit" in it says whose.
    """

    def setUp(self):
        super().setUp()
        self.releases = configparser.ConfigParser(interpolation=None)
        self.releases.read(_CONSTRAINTS)
        self.required = {
            found.name: found for found in map(
                requirements.Requirement, self.lines())}

    def lines(self):
        """Return the requirements, of extras, too."""
        text = (base.CHECKOUT / 'requirements.txt').read_text()
        extras = building.metadata()['extras']
        for line in [*text.splitlines(), *(
                line for name in extras if name != 'test'
                for line in extras[name].splitlines())]:
            line = line.partition('#')[0].strip()
            if line:
                yield line

    def test_each_is_admitted_by_each_release(self):
        compared = set()
        for release in self.releases.sections():
            for name, version in self.releases[release].items():
                if name == 'commit':
                    continue
                compared.add(name)
                self.assertIn(version, self.required[name].specifier,
                              '%s of %s' % (name, release))
        # One is none of OpenStack's libraries, one nothing of OpenStack's.
        self.assertEqual({'matplotlib', 'neutron'},
                         set(self.required) - compared)

    def test_each_has_a_lower_bound(self):
        for name, required in self.required.items():
            self.assertEqual(
                ['>='], [each.operator for each in required.specifier], name)

    def test_the_lowest_that_are_tested_are_the_bounds(self):
        for line in (base.CHECKOUT / 'lower-constraints.txt'
                     ).read_text().splitlines():
            name, is_one, version = line.partition('==')
            if is_one and name != 'pyroute2':
                self.assertEqual('>=' + version,
                                 str(self.required[name].specifier), name)
