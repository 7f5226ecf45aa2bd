# SPDX-License-Identifier: Apache-2.0

"""Across the privilege boundary: a daemon that has CAP_NET_ADMIN only."""

import subprocess
import sys

import os_vif.exception
from oslo_privsep import capabilities

from tests import base
from vif_plug_tapmac import exception
from vif_plug_tapmac import privileged
from vif_plug_tapmac import privsep


class ForkedDaemonTest(base.FunctionalTestCase):

    def setUp(self):
        super().setUp()
        self.start_daemon()

    def test_plug_and_unplug(self):
        self.plug()
        self.assert_finished()
        self.plug()
        self.unplug()
        self.assertIsNone(self.host.find(base.TAP))

    def test_errors_come_back_as_they_were_raised(self):
        for wrong, error, words in (
                ({'vif_name': 'lo'}, exception.DeviceConflict,
                 'lo: a device of another kind'),
                ({'bridge_name': 'lo'}, exception.DeviceConflict,
                 'lo: the bridge of %s' % base.TAP)):
            raised = self.assertRaises(os_vif.exception.PlugException,
                                       self.plug, base.make_vif(**wrong))
            self.assertIs(error, type(raised.kwargs['err']))
            self.assertEqual(0, str(raised.kwargs['err']).index(words))

    def test_context_asks_for_one_capability(self):
        done = subprocess.run(
            [sys.executable, '-W', 'ignore', '-c',
             'from oslo_config import cfg\n'
             'from vif_plug_tapmac import privsep\n'
             'print(cfg.CONF.vif_plug_tapmac_privileged.capabilities)'],
            check=True, capture_output=True, text=True)
        self.assertEqual('[%d]' % capabilities.CAP_NET_ADMIN,
                         done.stdout.strip())

    def test_other_side_checks_again(self):
        fields = base.make_port().to_fields()
        for wrong in ({'name': '../x'}, {'guest_mac': 'x'}, {'extra': 1},
                      {'mtu': 'big'}):
            self.assertRaises(exception.InvalidVif, privileged.ensure_port,
                              dict(fields, **wrong))
        self.assertEqual([], [link.name for link in self.host.state()[0]
                              if link.name != 'lo'])

    def test_there_is_no_other_door(self):
        call = privsep.vif_plug.channel.remote_call
        for name in ('os.system', 'builtins.exec', 'os_vif.plug',
                     'vif_plug_tapmac.kernel.port.ensure',
                     'vif_plug_tapmac.kernel.netlink.Netlink.delete',
                     'vif_plug_tapmac.privsep.vif_plug.stop'):
            self.assertRaises((NameError, ImportError), call, name, (), {},
                              None)
        doors = [name for name, value in vars(privileged).items()
                 if privsep.vif_plug.is_entrypoint(value)]
        self.assertEqual(['ensure_port', 'remove_port', 'remove_ports'], doors)

    def test_survives_any_call(self):
        for door in (privileged.ensure_port, privileged.remove_port):
            for arguments in ((), (None,), ({}, {}), ({b'name': b'lo'},),
                              ([1, 2],), ('x' * 10000,)):
                self.assertRaises((TypeError, exception.InvalidVif), door,
                                  *arguments)
        self.plug()
        self.assert_finished()

    def test_only_plain_values_cross(self):
        # Why the doors take fields: a dataclass does not get through.
        self.assertRaises(TypeError, privileged.ensure_port, base.make_port())
