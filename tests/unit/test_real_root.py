# SPDX-License-Identifier: Apache-2.0

"""Tests that need real root are marked, and skipped elsewhere."""

import unittest

import fixtures
import testtools

from tests import base
from tests import hosts


class Some(base.TestCase):

    @base.needs_real_root(base.DEVICE_NODES)
    def device_nodes(self):
        pass

    def nothing(self):
        pass


@base.needs_real_root(base.SEVERAL_USERS)
class All(Some):
    pass


class RealRootTest(testtools.TestCase):

    def setUp(self):
        super().setUp()
        self.useFixture(fixtures.EnvironmentVariable('TAPMAC_NO_SKIP'))

    def outcome(self, test):
        """Return why a test is skipped, None if it passes."""
        result = unittest.TestResult()
        test.run(result)
        self.assertEqual((1, [], []), (
            result.testsRun, result.errors, result.failures))
        return result.skipped[0][1] if result.skipped else None

    def test_in_a_user_namespace(self):
        self.patch(hosts, 'in_user_namespace', lambda: True)
        for case, test, why in (
                (Some, 'nothing', None),
                (Some, 'device_nodes', 'needs real root: device nodes'),
                (All, 'nothing', 'needs real root: several users'),
                (All, 'device_nodes', 'needs real root: device nodes')):
            self.assertEqual(why, self.outcome(case(test)))

    def test_elsewhere(self):
        self.patch(hosts, 'in_user_namespace', lambda: False)
        for case, test in ((Some, 'device_nodes'), (All, 'nothing')):
            self.assertIsNone(self.outcome(case(test)))

    def test_fails_where_nothing_may_be_skipped(self):
        self.patch(hosts, 'in_user_namespace', lambda: True)
        self.useFixture(fixtures.EnvironmentVariable('TAPMAC_NO_SKIP', '1'))
        result = unittest.TestResult()
        All('nothing').run(result)
        self.assertEqual(([], 1), (result.skipped, len(result.failures)))

    def test_is_listed(self):
        self.assertEqual(
            [base.DEVICE_NODES, base.SEVERAL_USERS],
            [Some.device_nodes.why_real_root, All.why_real_root])
