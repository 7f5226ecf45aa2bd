# SPDX-License-Identifier: Apache-2.0

"""Ports as a neutron-server answers with them, through this Nova to a TAP.

To be run by the Python of a Nova, as tests.neutron.test_matrix does, with a
file: as JSON, a list of ports, each with its network, as the REST API shows
them. Each of these ports is plugged here, or this Nova says why it cannot be,
as the documentation has it.
"""

import json
import sys
import unittest

from nova import exception
from nova.network import os_vif_util

from tests import compatibility
from tests.nova import base as nova_base
from vif_plug_tapmac.wanted import from_vif


class AnsweredTest(nova_base.NovaTestCase):
    """A port, by the VIF type of its binding.

    :param port: as Neutron shows it, on a network with an MTU of 1450
    :param network: the same
    """

    def __init__(self, name, port, network):
        super().__init__(name)
        self._port = port
        self._network = network
        self._bindings = compatibility.bindings(nova_base.NOVA)

        # Where another driver has bound it, Nova knows what it has there.
        self.bridge = port['binding:vif_details'].get(
            'bridge_name', ('brq' + network['id'])[:14])

    def build(self):
        """Have Nova read Neutron's answer."""
        self.vif = nova_base.make_neutron_vif(self._port, self._network)
        self.assertEqual(self.bridge, self.vif['network']['bridge'])

    def start(self, plugin, nova_managed_tap=False):
        self.start_nova(claim_plugins=[plugin],
                        nova_managed_tap=nova_managed_tap)

    def test_ovs(self):
        self.build()
        self.start('ovs')
        if 'ovs' in self._bindings:
            self.assert_our_tap()
            return
        self.assert_interface('ethernet', None, {})
        self.assertFalse(from_vif.is_bound_by_tapmac(
            os_vif_util.nova_to_osvif_vif(self.vif)))

    def test_bridge(self):
        if 'bridge' not in self._bindings:
            raised = self.assertRaises(exception.NovaException, self.build)
            self.assertIn('Linux bridge VIFs are no longer supported',
                          str(raised))
            return
        self.build()
        self.start('linux_bridge')
        self.assert_libvirts_tap()
        self.start('linux_bridge', nova_managed_tap=True)
        self.assert_our_tap()

    def assert_our_tap(self):
        self.assert_libvirt_finds_the_tap()
        self.plug()
        self.assert_finished(self.vif['devname'], mtu=1450,
                             master=self.bridge)
        self.assert_bridge_is_ours(self.bridge)
        self.unplug()
        self.assertIsNone(self.host.find(self.vif['devname']))

    def assert_libvirts_tap(self):
        self.assert_libvirt_makes_the_tap(self.bridge)
        self.plug()
        self.assertIsNone(self.host.find(self.vif['devname']))
        self.assert_bridge_is_ours(self.bridge)
        self.unplug()


def main(path):
    with open(path) as file:
        answers = json.load(file)
    result = unittest.TextTestRunner(stream=sys.stdout).run(
        unittest.TestSuite(
            AnsweredTest('test_' + port['binding:vif_type'], port, network)
            for port, network in answers))
    return 0 if result.wasSuccessful() and not result.skipped else 1


if __name__ == '__main__':
    sys.exit(main(*sys.argv[1:]))
