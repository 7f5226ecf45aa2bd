# SPDX-License-Identifier: Apache-2.0

"""Servers that do not start, in a cloud: as "Troubleshooting" has them."""

import json
import pathlib
import subprocess
import unittest

import fixtures

from tests import base
from tests import documents
from tests import guest_image
from tests import hosts
from tests import patience

#: In seconds: for the cloud, and for each of its eight servers.
_PATIENCE = 10 * patience.HANG
_TOOL = base.CHECKOUT / 'tools' / 'cloud.sh'


def load_tests(loader, tests, pattern):
    # It takes a quarter of an hour.
    return tests if patience.LONG else unittest.TestSuite()


class FailingTest(base.TestCase):

    def setUp(self):
        super().setUp()
        missing = hosts.missing_privilege() or guest_image.missing()
        if missing:
            self.cannot_run(missing)

    def see(self):
        """Return the facts of :mod:`tests.cloud.failing`, by server."""
        script = pathlib.Path(
            self.useFixture(fixtures.TempDir()).path) / 'script'
        script.write_text('exec python -W ignore -m tests.cloud.failing\n')
        cloud = subprocess.run(
            [_TOOL, '--run', script], text=True, stdin=subprocess.DEVNULL,
            capture_output=True, timeout=_PATIENCE,
            preexec_fn=hosts.die_with_parent)
        self.assertEqual(0, cloud.returncode, cloud.stderr)
        return json.loads(cloud.stdout.splitlines()[-1])

    def test_each_is_as_the_page_says(self):
        seen = self.see()
        shown = iter(documents.rows(documents.TROUBLESHOOTING,
                                    'What Nova says'))
        for name, log in (('refused there', 'refused'), ('full', 'full'),
                          ('unbound', 'unbound'), ('silent', 'silent')):
            _, fault, _, words = next(shown)
            self.assertEqual('ERROR', seen[name]['status'], name)
            self.assertIn(fault, seen[name]['fault'])
            self.assertIn(words, seen[log]['log'][0])
        self.assertEqual([], list(shown))
        self.assertIn('Exhausted all hosts available',
                      seen['refused']['shown'])
        # By both hosts.
        self.assertEqual(2, len(seen['refused']['log']))
        self.assertRegex(seen['unbound']['log'][0],
                         r'has not reported itself since [^:]*:\d\d:\d\d\. '
                         'Remedy: the operator must start it there\\.$')
        self.check_what_is_left(seen)

    def check_what_is_left(self, seen):
        for name in 'refused', 'silent':
            self.assertEqual('unbound', seen[name]['port']['vif_type'], name)
            self.assertEqual('', seen[name]['port']['device_id'], name)
        for name in 'full', 'silent':
            self.assertEqual([], seen[name]['taps'], name)
        for name in 'full', 'unbound':
            self.assertEqual([], seen[name]['ports'], name)
        self.assertIn('TM105', seen['full']['audit'])
        self.assertIn('TM236', seen['waiting']['audit'])
        self.assertEqual('DOWN', seen['waiting']['port']['status'])
        # Whoever does what the page says has a server.
        for name in 'mended', 'late':
            self.assertEqual('ACTIVE', seen[name]['status'], seen[name])
        self.assertEqual('ACTIVE', seen['late']['port']['status'])
        self.assertEqual([], seen['left']['taps'])
        self.assertNotIn('compute:nova', seen['left']['owners'])
