# SPDX-License-Identifier: Apache-2.0

"""nova.conf: read by Nova's own code, and by the daemon that it starts."""

import pathlib
import pwd
import sys
import typing

import fixtures
from nova import config as nova_config
from nova import exception
import os_vif
from oslo_config import cfg

from tests import base
from tests.nova import base as nova_base
from vif_plug_tapmac import exception as tapmac_exception
from vif_plug_tapmac import linux_bridge
from vif_plug_tapmac import opts
from vif_plug_tapmac import privsep

HELPER = '%s/privsep-helper --config-file ' % (
    pathlib.Path(sys.prefix) / 'bin')
#: All options of ours, none with its default where this Nova admits it.
OPTIONS: dict[str, typing.Any] = {
    'owner': 'nobody', 'multiqueue': True,
    'claim_plugins': ['ovs', 'linux_bridge'],
    'nova_managed_tap': nova_base.NOVA < 34, 'create_bridge': False,
    'link_group': 4711, 'bridge_group': 4712, 'filtered_group': 4715,
    'agent_group': 4717, 'firewall': 'agent',
    'allowed_bridges': ['br1??', 'br-storage'], 'udev_timeout': 0.0,
    'bridge_uplinks': {'br200': 'eth2'}, 'vlan_bridge': '{bridge}.{vlan}',
    'allowed_uplinks': ['eth*'], 'flat_interface': 'eth1',
    'vlan_interface': 'eth1', 'network_device_mtu': 1400,
    'anti_spoofing': 'none', 'arriving_guests': 'lock',
    'host_shield': True, 'port_isolated': True, 'port_flood_unicast': False,
    'port_flood_multicast': False, 'port_flood_broadcast': False,
    'port_hairpin': True}
#: The same, all with other values.
CHANGED: dict[str, typing.Any] = {
    'owner': 'root', 'multiqueue': False, 'claim_plugins': ['ovs'],
    'nova_managed_tap': nova_base.NOVA >= 34, 'create_bridge': True,
    'link_group': 4713, 'bridge_group': 4714, 'filtered_group': 4716,
    'agent_group': 4718, 'firewall': 'none',
    'allowed_bridges': ['*'], 'udev_timeout': 1.0,
    'bridge_uplinks': {'br200': 'eth3'},
    'vlan_bridge': '{bridge}v{vlan}', 'allowed_uplinks': ['bond*'],
    'flat_interface': 'eth4', 'vlan_interface': 'eth4',
    'network_device_mtu': 1300, 'anti_spoofing': 'mac',
    'arriving_guests': 'filter', 'host_shield': False, 'port_isolated': False,
    'port_flood_unicast': True, 'port_flood_multicast': True,
    'port_flood_broadcast': True, 'port_hairpin': False}


def to_text(value: typing.Any) -> str:
    """Return the value of an option as nova.conf has it."""
    if isinstance(value, dict):
        value = ['%s:%s' % item for item in value.items()]
    return ','.join(value) if isinstance(value, list) else str(value)


class NovaConfTest(nova_base.NovaTestCase):

    def setUp(self):
        super().setUp()
        self.nova_conf = pathlib.Path(
            self.useFixture(fixtures.TempDir()).path) / 'nova.conf'
        # So that nothing but nova.conf has a say.
        cfg.CONF.reset()
        self.write(OPTIONS, HELPER + str(self.nova_conf))
        nova_config.parse_args(
            ['nova-compute', '--config-file', str(self.nova_conf)],
            configure_db=False, init_rpc=False)
        os_vif.initialize(reset=True)
        privsep.vif_plug.set_client_mode(True)
        self.addCleanup(privsep.vif_plug.stop)

    def make_vif(self):
        return (nova_base.make_bridge_vif() if nova_base.NOVA < 33
                else nova_base.make_ovs_vif())

    def write(self, options, helper):
        self.nova_conf.write_text(
            '[os_vif_tapmac]\n%s\n'
            '[vif_plug_tapmac_privileged]\nhelper_command = %s\n' % (
                '\n'.join('%s = %s' % (name, to_text(value))
                          for name, value in options.items()), helper))

    def assert_configured(self):
        config = os_vif._EXT_MANAGER['tapmac'].obj.config
        self.assertEqual(OPTIONS, {
            opt.name: config[opt.name] for opt in opts.TAPMAC_OPTS})
        self.assertEqual(HELPER + str(self.nova_conf),
                         privsep.vif_plug.conf.helper_command)

    def test_values_arrive(self):
        self.assert_configured()
        self.assert_libvirt_finds_the_tap()

    def test_values_arrive_at_the_daemon(self):
        # It refuses what differs from its own configuration.
        bridge = self.host.add(base.BRIDGE, 'bridge')
        self.host.set(base.BRIDGE, state='up')
        self.plug()
        self.assert_finished(mtu=1450, group=4717,
                             owner=pwd.getpwnam('nobody').pw_uid)
        self.assertEqual(bridge.index, self.host.link(base.TAP).master)
        self.assertEqual(1, len(self.host.processes()))
        self.unplug()
        self.assertIsNone(self.host.find(base.TAP))

    def test_error_crosses_the_daemon_unharmed(self):
        raised = self.assertRaises(exception.InternalError, self.plug)
        self.assertEqual(1, len(self.host.processes()))
        ours = str(tapmac_exception.BridgeNotFound(
            device=base.TAP, bridge=base.BRIDGE))
        self.assertEqual(1, str(raised).count(ours), raised)

    def test_sighup_changes_nothing(self):
        self.write(CHANGED, 'false')
        # What Nova does on SIGHUP. Source: oslo_service/service.py, where
        # restart_method is mutate.
        cfg.CONF.mutate_config_files()
        self.assert_configured()
        for option in 'helper_command', *OPTIONS:
            self.assertIn(
                'Ignoring change to immutable option %s.%s\n' % (
                    'vif_plug_tapmac_privileged'
                    if option == 'helper_command' else opts.GROUP, option),
                self.logs.output)


class LinuxBridgeTest(nova_base.NovaTestCase):
    """nova.conf of a host that had os-vif's own plugin linux_bridge.

    Up to Nova 33 with os-vif 4, that plugin is there, and registers the group.
    """

    def setUp(self):
        super().setUp()
        if nova_base.NOVA >= 34:
            self.skipTest('no linux_bridge in this Nova')
        nova_conf = pathlib.Path(
            self.useFixture(fixtures.TempDir()).path) / 'nova.conf'
        nova_conf.write_text(
            '[os_vif_linux_bridge]\nflat_interface = eth1\n'
            'iptables_drop_action = REJECT\n'
            '[os_vif_tapmac]\nclaim_plugins = linux_bridge\n'
            'allowed_bridges = br100\nudev_timeout = 0\n'
            '[vif_plug_tapmac_privileged]\nhelper_command = %s%s\n'
            % (HELPER, nova_conf))
        cfg.CONF.reset()
        nova_config.parse_args(
            ['nova-compute', '--config-file', str(nova_conf)],
            configure_db=False, init_rpc=False)
        self.patch(linux_bridge, '_warned', set())
        os_vif.initialize(reset=True)
        privsep.vif_plug.set_client_mode(True)
        self.addCleanup(privsep.vif_plug.stop)

    def test_daemon_uses_it_too(self):
        self.host.add('eth1', 'ifb')
        self.plug()
        self.assertEqual(base.BRIDGE, self.host.master('eth1'))
        self.assertEqual(1, len(self.host.processes()))

    def test_what_is_ignored_is_said(self):
        self.assert_logged('iptables_drop_action = REJECT is ignored')
