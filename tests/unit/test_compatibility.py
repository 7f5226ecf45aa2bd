# SPDX-License-Identifier: Apache-2.0

"""Documents, tools and requirements agree on what goes with what."""

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


class MatrixTest(base.TestCase):
    """Each Neutron and each Nova of the README's table is one of tox."""

    def setUp(self):
        super().setUp()
        self.tox = configparser.ConfigParser(interpolation=None)
        self.tox.read(base.CHECKOUT / 'tox.ini')
        self.matrix = compatibility.matrix()
        self.neutrons = {neutron for neutron, _ in self.matrix}

    def test_each_cell_is_tested(self):
        self.assertEqual(
            {'neutron-%d' % neutron for neutron in self.neutrons},
            {section.removeprefix('testenv:') for section in self.tox
             if section.startswith('testenv:neutron-')})
        self.assertLess(
            {'neutron-%d' % neutron for neutron in self.neutrons},
            set(re.split(r'[,\s]+', self.tox['tox']['envlist'])))
        for neutron in self.neutrons:
            section = self.tox['testenv:neutron-%d' % neutron]
            path = 'tests/neutron/requirements/%d.txt' % neutron
            self.assertEqual('-r{toxinidir}/' + path, section['deps'])
            self.assertEqual('{[neutron]commands}', section['commands'])
            self.assertEqual('{[neutron]commands_pre}',
                             section['commands_pre'])
            self.assertIn('Neutron %d (' % neutron, section['description'])
            self.assertIn('\nneutron>=%d.0.0,<%d #' % (neutron, neutron + 1),
                          (base.CHECKOUT / path).read_text())
        self.assertIn('--test-path ./tests/neutron ',
                      self.tox['neutron']['commands'])

    def test_each_neutron_has_a_route_to_each_nova(self):
        for row in compatibility.rows():
            for neutron in self.neutrons:
                self.assertEqual(row.bindings,
                                 self.matrix[neutron, row.nova])
                self.assertNotEqual(frozenset(), row.bindings)
        self.assertEqual({row.nova for row in compatibility.rows()},
                         {nova for _, nova in self.matrix})


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
