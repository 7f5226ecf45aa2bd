# SPDX-License-Identifier: Apache-2.0

"""What os-vif calls: one dict goes over the boundary, and errors come back."""

import builtins

import msgpack
import os_vif
from os_vif.objects import host_info

from tests import base
from vif_plug_tapmac.kernel import netlink as nl
from vif_plug_tapmac.kernel import tun
from vif_plug_tapmac import plugin
from vif_plug_tapmac import privileged
from vif_plug_tapmac import startup


class PluginTest(base.TestCase):

    def test_describe(self):
        os_vif.initialize()
        described = plugin.TapMacPlugin.load('tapmac').describe()
        self.assertIsInstance(described, host_info.HostPluginInfo)
        self.assertEqual('tapmac', described.plugin_name)
        self.assertEqual(
            [('VIFBridge', '1.0', '1.0')],
            [(info.vif_object_name, info.min_version, info.max_version)
             for info in described.vif_info])

    def test_loading_and_describing_does_no_io(self):
        # But for trying the kernel, which is a process of its own, once.
        self.patch(startup, 'cannot', lambda what: '')

        def no_io(*args, **kwargs):
            raise AssertionError('I/O while loading: %s' % (args,))
        self.patch(builtins, 'open', no_io)
        for name in ('open', 'stat', 'listdir'):
            self.patch(tun.os, name, no_io)
        self.patch(nl, 'Netlink', no_io)
        for door in ('ensure_port', 'remove_port'):
            self.patch(privileged, door, no_io)
        plugin.TapMacPlugin.load('tapmac').describe()

    def test_each_operation_is_one_privileged_call(self):
        calls = []
        for door in ('ensure_port', 'remove_port'):
            self.patch(privileged, door, lambda fields, door=door:
                       calls.append((door, fields)))
        tapmac = plugin.TapMacPlugin.load('tapmac')
        tapmac.plug(base.make_vif(), base.INSTANCE)
        tapmac.unplug(base.make_vif(), base.INSTANCE)
        self.assertEqual(
            [('ensure_port', base.make_port().to_fields()),
             ('remove_port', {'vif_id': base.VIF_ID, 'name': base.TAP})],
            calls)

    def test_request_does_not_grow_with_the_configuration(self):
        requests = []
        self.patch(privileged, 'ensure_port', requests.append)
        tapmac = plugin.TapMacPlugin.load('tapmac')
        for count in 1, 1000:
            self.configure(
                bridge_uplinks={'b%d' % number: 'e%d' % number
                                for number in range(count)},
                allowed_bridges=['br100'] * count,
                allowed_uplinks=['e%d' % number for number in range(count)])
            tapmac.plug(base.make_vif(), base.INSTANCE)
            self.assertNotIn('e0', str(requests))
        self.assertEqual(*map(msgpack.packb, requests))
