# SPDX-License-Identifier: Apache-2.0

"""Hosts of a live migration that disagree on nova_managed_tap.

The source writes the domain that the target starts, and the target plugs as
its own nova.conf says. If the two do not go together the target's libvirt says
so, before the guest has left its source.
"""

import contextlib
import unittest

from tests import base
from tests.nova import base as nova_base
from tests.nova import libvirt_contract


class Here:
    """A host of the libvirt contract: the one that the test is on."""

    entered = contextlib.nullcontext


class DisagreementTest(nova_base.NovaTestCase):

    OPTIONS = {'claim_plugins': ['linux_bridge']}

    def migrate(self, source, target):
        """Plug on a target, and have its libvirt start the guest.

        :returns: what it says against that, None if it is running
        """
        self.start_nova(nova_managed_tap=source)
        interface = libvirt_contract.Interface(self.xml())
        self.start_nova(nova_managed_tap=target)
        self.plug()
        try:
            interface.open(Here)
            self.addCleanup(interface.close, Here)
            return None
        except Exception as error:
            return str(error)

    def assert_rolled_back(self):
        """Expect that nothing is left when Nova has unplugged again."""
        self.unplug()
        self.assertIsNone(self.host.find(base.TAP))

    def test_both_on(self):
        self.assertIsNone(self.migrate(source=True, target=True))
        self.assert_finished(mtu=1450)
        self.assertTrue(self.host.link(base.TAP).held)

    def test_both_off(self):
        self.assertIsNone(self.migrate(source=False, target=False))
        self.assertTrue(self.host.link(base.TAP).held)
        self.assertIsNone(self.host.link(base.TAP).alias)

    def test_source_off_target_on(self):
        self.assertIn('already exists', self.migrate(source=False,
                                                     target=True))
        self.assertFalse(self.host.link(base.TAP).held)
        self.assert_rolled_back()

    def test_source_on_target_off(self):
        self.assertIn('does not exist', self.migrate(source=True,
                                                     target=False))
        self.assert_rolled_back()


def load_tests(loader, tests, pattern):
    """Load this where Nova still has such ports."""
    cases = [DisagreementTest] if nova_base.NOVA <= 33 else []
    return unittest.TestSuite(map(loader.loadTestsFromTestCase, cases))
