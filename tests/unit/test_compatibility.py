# SPDX-License-Identifier: Apache-2.0

"""Documentation, tools and requirements agree on Nova, os-vif and Linux."""

import configparser
import re

from tests import base
from tests import compatibility
from tests import documents

REQUIREMENTS = base.CHECKOUT / 'tests' / 'nova' / 'requirements'


def bounds(release):
    """Return the requirement that admits a release, and no other."""
    *major, last = map(int, release.split('.'))
    least = [*major, last] + [0] * (2 - len(major))
    return '>=%s,<%s' % ('.'.join(map(str, least)),
                         '.'.join(map(str, [*major, last + 1])))


class CompatibilityTest(base.TestCase):

    def setUp(self):
        super().setUp()
        self.rows = compatibility.rows()
        self.files = {path.stem: path.read_text()
                      for path in REQUIREMENTS.glob('[0-9]*.txt')}
        self.tox = configparser.ConfigParser(interpolation=None)
        self.tox.read(base.CHECKOUT / 'tox.ini')

    def test_each_row_is_tested(self):
        environments = {row.environment for row in self.rows}
        self.assertEqual(len(self.rows), len(environments))
        self.assertEqual(environments, {
            'nova-' + name for name in self.files})
        self.assertEqual(environments, {
            section.removeprefix('testenv:') for section in self.tox
            if section.startswith('testenv:nova-')})
        self.assertLess(environments, set(
            re.split(r'[,\s]+', self.tox['tox']['envlist'])))

    def test_files_have_the_releases_of_the_rows(self):
        for row in self.rows:
            name = row.environment.removeprefix('nova-')
            self.assertEqual(
                {'nova': bounds(str(row.nova)), 'os-vif': bounds(row.os_vif)},
                dict(re.findall(r'^([a-z-]+)([<>=].*?) #', self.files[name],
                                re.MULTILINE)))
            self.assertIn('-r common.txt\n', self.files[name])

    def test_tox_uses_the_files(self):
        for row in self.rows:
            section = self.tox['testenv:' + row.environment]
            self.assertEqual(
                '-r{toxinidir}/tests/nova/requirements/%s.txt'
                % row.environment.removeprefix('nova-'), section['deps'])
            self.assertEqual('{[nova]commands}', section['commands'])
            self.assertIn('Nova %d ' % row.nova, section['description'])
            self.assertIn('os-vif %s;' % row.os_vif, section['description'])
        self.assertIn('--test-path ./tests/nova ',
                      self.tox['nova']['commands'])


class KernelsTest(base.TestCase):
    """Each kernel in a table is one that tests run on."""

    def test_readme(self):
        self.assertEqual(set(compatibility.tested_kernels()),
                         set(compatibility.kernels()))

    def test_deploying(self):
        section = documents.DEPLOYING.read_text().split('\nKernels\n-', 1)[1]
        rows = re.findall(r'^(\d+\.\d+) +\d\d.*?  +(\S.*)$', section,
                          re.MULTILINE)
        self.assertEqual(
            {version: 'all that depends on the kernel' if in_full
             else 'what matters most'
             for version, in_full in compatibility.tested_kernels().items()},
            dict(rows))
