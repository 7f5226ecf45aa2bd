# SPDX-License-Identifier: Apache-2.0

"""What is still read of the options of os-vif's old plugin."""

import pathlib

import fixtures
from os_vif.objects import network
from oslo_config import cfg

from tests import base
from vif_plug_tapmac import exception
from vif_plug_tapmac import linux_bridge
from vif_plug_tapmac import opts
from vif_plug_tapmac import plugin
from vif_plug_tapmac.wanted import from_config
from vif_plug_tapmac.wanted import from_vif

_CLAIMED = '[os_vif_tapmac]\nclaim_plugins = linux_bridge\n'
_ONE_BRIDGE = _CLAIMED + 'allowed_bridges = br100\n'


def make_vif(vlan=None, **fields):
    return base.make_vif(network=network.Network(
        should_provide_vlan=vlan is not None, vlan=vlan, **fields))


class LinuxBridgeTestCase(base.TestCase):

    def setUp(self):
        super().setUp()
        self.patch(linux_bridge, '_warned', set())

    def load(self, *texts):
        """Read a nova.conf."""
        path = pathlib.Path(
            self.useFixture(fixtures.TempDir()).path) / 'nova.conf'
        path.write_text('\n'.join(texts))
        self.config.conf([], default_config_files=[str(path)])

    def port(self, **fields):
        port = from_vif.tap_port(make_vif(**fields), self.options)
        from_config.limits(self.options).require_bridge(port)
        return port


class KeptTest(LinuxBridgeTestCase):

    def test_groups(self):
        for section in 'os_vif_tapmac', 'os_vif_linux_bridge', 'DEFAULT':
            self.load('[%s]' % section, 'flat_interface = eth1',
                      'network_device_mtu = 1450', _ONE_BRIDGE)
            self.assertEqual(('eth1', 1450),
                             (self.port().uplink, self.port().mtu), section)

    def test_our_group_comes_first(self):
        self.load(_ONE_BRIDGE, 'flat_interface = eth2',
                  '[os_vif_linux_bridge]', 'flat_interface = eth1')
        self.assertEqual('eth2', self.port().uplink)

    def test_only_where_linux_bridge_is_claimed(self):
        self.load('[os_vif_linux_bridge]', 'flat_interface = eth1',
                  'vlan_interface = eth1', 'network_device_mtu = 1450',
                  '[os_vif_tapmac]', 'claim_plugins = ovs',
                  'allowed_bridges = br100')
        port = self.port(vlan=200)
        self.assertEqual((None, None), (port.uplink, port.mtu))

    def test_only_where_there_is_one_bridge(self):
        for allowed, uplink in (('br100', 'eth1'), ('br100,br100', 'eth1'),
                                ('br100,br101', None), ('br10?', None),
                                ('br10[0]', None), ('*', None)):
            self.load('[os_vif_linux_bridge]', 'flat_interface = eth1',
                      'vlan_interface = eth2', _CLAIMED,
                      'allowed_bridges = ' + allowed)
            self.assertEqual(uplink, self.port().uplink)
            self.assertEqual(uplink and 'eth2.200',
                             self.port(vlan=200).uplink)

    def test_bridge_uplinks_comes_first(self):
        self.load('[os_vif_linux_bridge]', 'flat_interface = eth1',
                  'vlan_interface = eth1', _ONE_BRIDGE,
                  'bridge_uplinks = br100:eth2')
        self.assertEqual('eth2', self.port().uplink)
        self.assertEqual('eth2', self.port(vlan=200).uplink)

    def test_vlan_interface_is_for_vlans(self):
        self.load('[os_vif_linux_bridge]', 'vlan_interface = eth1',
                  _ONE_BRIDGE)
        self.assertIsNone(self.port().uplink)
        self.assertEqual('eth1.1', self.port(vlan=1).uplink)
        self.assertEqual('eth1.4094', self.port(vlan=4094).uplink)
        for vlan in 0, 4095, -1:
            error = self.assertRaises(exception.InvalidVif, self.port,
                                      vlan=vlan)
            self.assertIn('the vlan %d' % vlan, str(error))

    def test_vlan_without_a_number(self):
        vif = base.make_vif(network=network.Network(should_provide_vlan=True))
        port = from_vif.tap_port(vif, self.options)
        self.assertIsNone(port.uplink)
        self.load('[os_vif_linux_bridge]', 'vlan_interface = eth1',
                  _ONE_BRIDGE)
        self.assertRaises(exception.InvalidVif, from_vif.tap_port,
                          vif, self.options)

    def test_what_the_privileged_side_refuses(self):
        self.load('[os_vif_linux_bridge]', 'vlan_interface = eth1',
                  _ONE_BRIDGE)
        limits = from_config.limits(self.options)
        limits.require_bridge(base.make_port(uplink='eth1.200'))
        for uplink in ('eth1', 'eth2.200', 'eth1.0', 'eth1.4095', 'eth1.07',
                       'eth1.2.3', 'xeth1.2'):
            self.assertRaises(exception.InvalidConfig, limits.require_bridge,
                              base.make_port(uplink=uplink))

    def test_wrong_names(self):
        for option in 'flat_interface', 'vlan_interface':
            self.load('[os_vif_linux_bridge]', option + ' = eth 1',
                      _ONE_BRIDGE)
            error = self.assertRaises(exception.InvalidConfig, self.port)
            self.assertIn(option, str(error))

    def test_mtu_of_the_network_comes_first(self):
        self.load('[os_vif_linux_bridge]', 'network_device_mtu = 1450',
                  _CLAIMED)
        self.assertEqual(1500, self.port(mtu=1500).mtu)
        self.assertEqual(1450, self.port(mtu=None).mtu)

    def test_vif_names_a_vlan_of_its_device(self):
        self.configure(allowed_uplinks=['eth*'])
        self.assertEqual('eth1.200', self.port(
            vlan=200, bridge_interface='eth1').uplink)
        self.configure(bridge_uplinks={'br100': 'eth1'})
        self.assertRaises(exception.InvalidVif, self.port,
                          vlan=200, bridge_interface='eth1')


class IgnoredTest(LinuxBridgeTestCase):

    def warn(self, *texts):
        """Return what is said of a nova.conf, with level and logger."""
        self.load(*texts)
        with fixtures.FakeLogger(
                linux_bridge.__name__,
                format='%(levelname)s %(message)s') as logs:
            linux_bridge.warn_of_ignored(self.options, cfg.CONF)
        return logs.output.splitlines()

    def assert_warned(self, *words, text):
        line, = self.warn(_CLAIMED, text)
        for word in ('WARNING', 'is ignored', 'Remedy', *words):
            self.assertIn(word, line)

    def test_each(self):
        for option, value in (('use_ipv6', 'True'),
                              ('iptables_top_regex', 'a b'),
                              ('iptables_bottom_regex', '^c'),
                              ('iptables_drop_action', 'LOG'),
                              ('forward_bridge_interface', 'eth0')):
            for section in 'os_vif_linux_bridge', 'DEFAULT':
                self.patch(linux_bridge, '_warned', set())
                self.assert_warned(
                    '[os_vif_linux_bridge] %s = %s' % (option, value),
                    text='[%s]\n%s = %s' % (section, option, value))

    def test_several_values_and_nonsense(self):
        self.assert_warned(
            'forward_bridge_interface = eth0,eth1',
            text='[os_vif_linux_bridge]\nforward_bridge_interface = eth0\n'
                 'forward_bridge_interface = eth1')
        self.assert_warned('use_ipv6 = (not valid)',
                           text='[DEFAULT]\nuse_ipv6 = maybe')

    def test_once(self):
        text = '[os_vif_linux_bridge]\nuse_ipv6 = true'
        self.assertEqual(1, len(self.warn(_CLAIMED, text)))
        self.assertEqual([], self.warn(_CLAIMED, text))

    def test_defaults_are_nothing_to_say(self):
        self.assertEqual([], self.warn(
            _CLAIMED, '[os_vif_linux_bridge]', 'use_ipv6 = no',
            'iptables_top_regex =', 'iptables_bottom_regex =',
            'iptables_drop_action = DROP', 'forward_bridge_interface = all',
            'flat_interface =', 'network_device_mtu = 1450'))

    def test_old_plugin_is_still_in_use(self):
        self.assertEqual([], self.warn(
            '[os_vif_linux_bridge]', 'use_ipv6 = true',
            'flat_interface = eth1', '[os_vif_tapmac]',
            'claim_plugins = ovs'))

    def test_interfaces_of_more_bridges_than_one(self):
        for option in 'flat_interface', 'vlan_interface':
            text = '[os_vif_linux_bridge]\n%s = eth1' % option
            self.assert_warned(option + ' = eth1', '(*)', 'bridge_uplinks',
                               text=text)
            self.assertEqual([], self.warn(_ONE_BRIDGE, text))

    def test_bridge_has_another_uplink(self):
        for option in 'flat_interface', 'vlan_interface':
            line, = self.warn(
                '[os_vif_linux_bridge]', option + ' = eth1', _ONE_BRIDGE,
                'bridge_uplinks = br100:eth2')
            self.assertIn('bridge_uplinks has the uplink of br100, eth2', line)

    def test_nothing_was_parsed(self):
        conf = cfg.ConfigOpts()
        conf.register_opts(opts.TAPMAC_OPTS, group=opts.GROUP)
        conf.set_override('claim_plugins', ['linux_bridge'], opts.GROUP)
        linux_bridge.warn_of_ignored(conf[opts.GROUP], conf)
        self.assertNotIn('is ignored', self.logs.output)

    def test_what_the_plugin_loads_says_so(self):
        self.load(_CLAIMED, '[os_vif_linux_bridge]', 'use_ipv6 = true')
        self.patch(plugin.claim, 'take_over', lambda names, ours: None)
        plugin.TapMacPlugin.load('tapmac')
        self.assertIn('[os_vif_linux_bridge] use_ipv6 = True is ignored',
                      self.logs.output)


class TwoGroupsTest(LinuxBridgeTestCase):
    """os-vif may register its own options, whatever they are by then."""

    def test_os_vif_registers_others(self):
        for first in True, False:
            conf = cfg.ConfigOpts()
            steps = [
                lambda: conf.register_opts(
                    [cfg.StrOpt('flat_interface', help='Not as ours.'),
                     cfg.StrOpt('use_ipv6', default='other')],
                    group=linux_bridge.GROUP),
                lambda: linux_bridge.warn_of_ignored(opts.group(conf), conf)]
            for step in steps if first else reversed(steps):
                step()
            conf([], default_config_files=[])
            self.assertEqual('', opts.group(conf).flat_interface)
