# SPDX-License-Identifier: Apache-2.0

"""Where there is no Nova that could be wrapped; for the rest: tests/nova."""

from tests import base
from vif_plug_tapmac import exception
from vif_plug_tapmac import nova_driver
from vif_plug_tapmac import plugin


class NovaDriverTest(base.TestCase):

    def assert_does_not_load(self, *words):
        error = self.assertRaises(exception.InvalidConfig,
                                  plugin.TapMacPlugin.load, 'tapmac')
        for word in words:
            self.assertIn(word, str(error))

    def test_no_claim(self):
        self.configure(nova_managed_tap=True)
        self.assert_does_not_load('nova_managed_tap', 'linux_bridge',
                                  'claim_plugins')

    def test_no_nova(self):
        # As in a process of another os-vif client.
        base.os_vif.initialize()
        self.configure(nova_managed_tap=True, claim_plugins=['linux_bridge'])
        self.assert_does_not_load('nova_managed_tap', 'Nova',
                                  'switch this option off')

    def test_nobody_told_of_queues(self):
        self.assertIsNone(nova_driver.multi_queue())
