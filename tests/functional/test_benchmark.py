# SPDX-License-Identifier: Apache-2.0

"""The benchmark runs and tells; how fast anything is, is not asked here."""

import json
import os
import shutil
import subprocess
import sys

from tests import base


class BenchmarkTest(base.FunctionalTestCase):

    def setUp(self):
        super().setUp()
        self.only_in_full()

    def run_benchmark(self, *arguments):
        return subprocess.run(
            [sys.executable, '-W', 'ignore', '-m', 'benchmarks', *arguments],
            cwd=base.CHECKOUT, text=True, capture_output=True,
            env=dict(os.environ, PYTHONPATH=str(base.CHECKOUT)))

    def test_tells_what_it_measured(self):
        if not shutil.which('cc'):
            self.cannot_run('needs a C compiler: install gcc and libc6-dev')
        before = self.host.state()
        path = os.path.join(self.useFixture(base.fixtures.TempDir()).path,
                            'results.json')
        done = self.run_benchmark('--quick', '--json', path, '--only', 'limit',
                                  'in process', 'privsep', 'ip')
        self.assertEqual(0, done.returncode, done.stderr)
        with open(path) as opened:
            results = json.load(opened)
        names = ['limit', 'in process', 'privsep', 'ip']
        self.assertEqual(names, list(results['ports']))
        for name in names:
            for work in 'plug', 'replug', 'unplug':
                for seen in results['ports'][name][work].values():
                    self.assertTrue(0 < seen['median'] <= seen['p99'])
        for work in 'plug', 'unplug':
            self.assertEqual(['1', '4', '16'],
                             list(results['host']['privsep'][work]))
        for each in results['host']['audit']:
            self.assertIn(each['status'], (0, 10, 20))
        self.assertEqual(names, list(results['first']))
        self.assertEqual({'with', 'without'}, set(results['loading']))
        self.assertEqual(['os-vif', 'plugin', 'tapmac list', 'tapmac mac'],
                         list(results['starting']))
        for when in 'before', 'after':
            self.assertTrue(all(value > 0 for value
                                in results['pairs'][when].values()))
        self.assertEqual(5, len(results['flat']))
        for seen in results['flat'].values():
            self.assertEqual(2, len(seen))
        unmeasured = [what for what, _, _, measured in results['goals']
                      if measured is None]
        self.assertEqual(['plug new, privsep: times Nova 34',
                          'plug new, privsep: times linux_bridge 4.3.1'],
                         unmeasured)
        for what, _, _, _ in results['goals']:
            self.assertIn(what, done.stdout)
        self.assertEqual(before, self.host.state())
