# SPDX-License-Identifier: Apache-2.0

"""The options, as the documentation and the generator have them."""

import re
import types

from oslo_config import cfg

from tests import base
from tests import documents
from vif_plug_tapmac import opts
from vif_plug_tapmac.wanted import port_options


class OptsTest(base.TestCase):

    def test_every_option_is_explained(self):
        for opt in opts.TAPMAC_OPTS:
            self.assertGreater(len(opt.help), 80, opt.name)
            self.assertIsNotNone(opt.default, opt.name)
            if isinstance(opt, cfg.IntOpt):
                self.assertIsNotNone(opt.type.min, opt.name)
                self.assertIsNotNone(opt.type.max, opt.name)

    def test_defaults(self):
        self.assertEqual(
            {'owner': 'root', 'multiqueue': False, 'claim_plugins': [],
             'nova_managed_tap': False, 'create_bridge': True,
             'bridge_uplinks': {}, 'vlan_bridge': '{bridge}-{vlan}',
             'allowed_uplinks': [],
             'link_group': 29793, 'bridge_group': 29794,
             'allowed_bridges': ['*'], 'anti_spoofing': 'mac',
             'arriving_guests': 'filter',
             'port_isolated': False, 'port_flood_unicast': True,
             'port_flood_multicast': True, 'port_flood_broadcast': True,
             'port_hairpin': False,
             'host_shield': False, 'filtered_group': 29795,
             'firewall': 'none', 'agent_group': 29796,
             'udev_timeout': 5.0,
             'flat_interface': '', 'vlan_interface': '',
             'network_device_mtu': 0},
            {opt.name: self.options[opt.name] for opt in opts.TAPMAC_OPTS})

    def test_only_known_anti_spoofing(self):
        self.configure(anti_spoofing='none')
        self.assertRaises(ValueError, self.configure, anti_spoofing='ip')

    def test_port_options_that_the_kernel_may_lack(self):
        self.configure(port_flood_broadcast=False, anti_spoofing='mac')
        for release, missing in (
                ('5.18.0', []), ('5.15.0-91-generic', ['anti_spoofing']),
                ('4.9.0', ['anti_spoofing', 'port_flood_broadcast'])):
            self.patch(opts.os, 'uname',
                       lambda: types.SimpleNamespace(release=release))
            self.assertEqual(missing, [
                line.partition(' ')[0]
                for line in opts.port_options_too_new(self.options)])

    def test_options_of_ports_are_those_of_the_table(self):
        self.assertEqual(
            {each.option: each.initial for each in port_options.CONFIGURED},
            {opt.name: opt.default for opt in opts.TAPMAC_OPTS
             if opt.name.startswith('port_')})

    def test_ranges(self):
        for name in ('link_group', 'bridge_group', 'filtered_group',
                     'agent_group'):
            for value in (0, -1, 2 ** 31):
                self.assertRaises(ValueError, self.configure, **{name: value})

    def test_only_known_plugins_can_be_claimed(self):
        self.configure(claim_plugins=['linux_bridge', 'ovs'])
        self.assertRaises(ValueError, self.configure, claim_plugins=['noop'])

    def test_udev_timeout_is_not_negative(self):
        self.configure(udev_timeout=0)
        self.assertRaises(ValueError, self.configure, udev_timeout=-0.1)

    def test_page_tells_of_each(self):
        text = documents.CONFIGURATION.read_text().partition(
            '.. show-options::')[0]
        for opt in opts.TAPMAC_OPTS:
            self.assertTrue(re.search('``%s``' % opt.name, text), opt.name)
