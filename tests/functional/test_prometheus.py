# SPDX-License-Identifier: Apache-2.0

"""What Prometheus gets of an audit, and the service that writes it."""

import configparser
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import time

import fixtures
from prometheus_client import parser

from tests import base
from tests import documents
from tests.functional import test_operator

_UNITS = base.CHECKOUT / 'etc/systemd/system'
_SERVICE = _UNITS / 'tapmac-audit.service'
#: A quote and a backslash, which a name may have.
_NAME = 'tap"\\1'


def _parse(text):
    """Return the samples by name: labels and value of each."""
    families = list(parser.text_string_to_metric_families(text))
    assert {'gauge'} == {family.type for family in families}, families
    assert all(family.documentation for family in families), families
    return {family.name: [(sample.labels, sample.value)
                          for sample in family.samples]
            for family in families}


class PrometheusTest(test_operator.OperatorTestCase):

    def metrics(self, returncode):
        return _parse(self.run_tapmac('audit', '-f', 'prometheus',
                                      returncode=returncode))

    def test_what_is_told(self):
        self.domains.define()
        before = time.time()
        seen = self.metrics(0)
        self.assertEqual(
            [metric for metric, _, _ in documents.rows(
                documents.OUTPUT, 'tapmac audit -f prometheus')], list(seen))
        when = seen.pop('tapmac_audit_time_seconds')[0][1]
        self.assertTrue(before - 1 <= when <= time.time() + 1, when)
        self.assertEqual(
            {'tapmac_finding': [],
             'tapmac_findings': [({'severity': 'warning'}, 0),
                                 ({'severity': 'error'}, 0)],
             'tapmac_taps': [({}, 0)], 'tapmac_taps_held': [({}, 0)],
             'tapmac_bridges': [({}, 0)],
             'tapmac_libvirt_answered': [({}, 1)]}, seen)
        self.plug()
        self.hold()
        self.plug(base.numbered_vif(1))
        self.host.rename('tap00000001', _NAME)
        self.host.set(_NAME, state='down', mtu=1400)
        for name in 'proxy_arp_pvlan', 'log_martians':
            # Two of one code, on one device.
            self.set_sysctl('ipv4/conf/%s/%s' % (base.BRIDGE, name), '1')
        self.domains.end()
        seen = self.metrics(20)
        self.assertEqual(
            [('TM109', 'error', base.BRIDGE, 2), ('TM207', 'error', _NAME, 1),
             ('TM208', 'warning', _NAME, 1), ('TM220', 'warning', _NAME, 1)],
            [(labels['code'], labels['severity'], labels['device'], value)
             for labels, value in seen['tapmac_finding']])
        self.assertEqual([2, 3], [
            value for _, value in seen['tapmac_findings']])
        self.assertEqual(
            [2, 1, 1, 0], [seen['tapmac_' + name][0][1] for name in (
                'taps', 'taps_held', 'bridges', 'libvirt_answered')])

    def test_no_columns(self):
        self.run_tapmac('audit', '-f', 'prometheus', '-c', 'Code',
                        returncode=1)
        self.assertIn('has no columns', self.said)


class ServiceTest(test_operator.OperatorTestCase):
    """Test strategy: systemd checks the units, and what they start is run."""

    def test_systemd_takes_the_units(self):
        program = shutil.which('systemd-analyze') or str(
            base.CHECKOUT / '.venv/networkd/root/usr/bin/systemd-analyze')
        if not os.path.exists(program):
            self.cannot_run('needs systemd-analyze: run tools/programs.sh')
        libraries = str(pathlib.Path(program).parent.parent / 'lib')
        # What a package has installed is not here.
        copies = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        units = []
        for path in _UNITS.iterdir():
            if path.is_file():
                units.append(str(copies / path.name))
                (copies / path.name).write_text(path.read_text().replace(
                    '\nExecStart=/usr/bin/tapmac-agent\n',
                    '\nExecStart=/bin/true\n'))
        done = subprocess.run(
            [program, 'verify', '--man=no', *units],
            text=True, capture_output=True, env=dict(
                os.environ, LD_LIBRARY_PATH=':'.join(
                    str(path.parent) for path in pathlib.Path(
                        libraries).rglob('libsystemd-shared*'))))
        self.assertEqual((0, '', ''), (
            done.returncode, done.stdout, done.stderr))

    def test_what_it_writes(self):
        self.plug()
        self.assertEqual((0, 1), self.start())
        self.host.set(base.TAP, state='down')
        self.assertEqual((20, 1), self.start())
        # What fails leaves what was there.
        self.assertEqual((1, 1), self.start('--config-file', '/nowhere'))

    def start(self, *options):
        """Do what systemd does to start the service.

        :returns: the exit status, and how many TAPs the collector sees then
        """
        service = configparser.ConfigParser(interpolation=None)
        service.optionxform = str
        service.read(_SERVICE)
        service = service['Service']
        if not hasattr(self, 'directory'):
            self.directory = self.useFixture(fixtures.TempDir()).path
            self.programs = self.useFixture(fixtures.TempDir()).path
        tapmac = pathlib.Path(self.programs) / 'tapmac'
        tapmac.write_text(
            '#!/bin/sh\nexec %s -W ignore -c "import sys; '
            'from vif_plug_tapmac.cli import main; sys.exit(main.main())" '
            '%s "$@"\n' % (sys.executable, ' '.join(options)))
        tapmac.chmod(0o755)
        environment = dict(
            os.environ, PATH='%s:%s' % (self.programs, os.environ['PATH']),
            PYTHONPATH='%s:%s' % (os.environ.get('PYTHONPATH', ''),
                                  base.CHECKOUT))
        status = subprocess.run(
            shlex.split(service['ExecStart']), cwd=self.directory,
            env=environment, stderr=subprocess.DEVNULL).returncode
        if str(status) in ('0', *service['SuccessExitStatus'].split()):
            subprocess.run(shlex.split(service['ExecStartPost']),
                           cwd=self.directory, check=True)
        written, = pathlib.Path(self.directory).glob('*.prom')
        self.assertEqual(0o644, written.stat().st_mode & 0o777)
        return status, _parse(written.read_text())['tapmac_taps'][0][1]
