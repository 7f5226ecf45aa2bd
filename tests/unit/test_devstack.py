# SPDX-License-Identifier: Apache-2.0

"""What the plugin for DevStack writes, by what is in local.conf.

Whether that is what a cloud needs: tests/neutron/test_devstack.py.
"""

from oslo_config import cfg
from oslo_privsep import priv_context

from tests import base
from tests import devstack
from vif_plug_tapmac.agent import opts as agent_opts
from vif_plug_tapmac.ml2 import opts as ml2_opts
from vif_plug_tapmac import opts

_NODE = 'q-svc,n-cpu'
_OPTIONS = {opts.GROUP: opts.TAPMAC_OPTS,
            ml2_opts.GROUP: ml2_opts.ML2_TAPMAC_OPTS,
            agent_opts.GROUP: agent_opts.TAPMAC_AGENT_OPTS,
            'tapmac_agent_privileged': priv_context.OPTS}
#: What is removed beside another driver, of OVN.
_DISABLED = ('ovn-controller ovn-northd ovs-vswitchd ovsdb-server '
             'q-ovn-agent')


class DevStackTest(base.TestCase):

    def configure(self, services, **variables):
        """Return what is configured, by file, and what was said."""
        written = devstack.configure(self, services, **variables)
        for name in written:
            self.assert_options(written[name])
        return written, written.pop('said')['said']

    def assert_options(self, written):
        """Expect all to be options of ours that take these values."""
        conf = cfg.ConfigOpts()
        for group, options in _OPTIONS.items():
            conf.register_opts(options, group=group)
            for option, values in written.get(group, {}).items():
                conf.set_override(option, values[-1].split(',') if isinstance(
                    conf[group][option], list) else values[-1], group)

    def test_without_the_agent(self):
        written, said = self.configure(_NODE)
        self.assertEqual(
            {'setup_develop': ['/opt/stack/vif-plug-tapmac ml2'],
             'disable_service': [_DISABLED]},
            {name: said[name] for name in said if name != 'sudo'})
        self.assertEqual({
            'DEFAULT': {'force_config_drive': ['True']},
            'os_vif_tapmac': {'claim_plugins': ['ovs']}}, written.pop('nova'))
        neutron = written.pop('neutron')
        self.assertEqual({'bridge_mappings': ['public:br100'],
                          'firewall': ['none']}, neutron['ml2_tapmac'])
        self.assertEqual([''], neutron['ml2']['project_network_types'])
        self.assertEqual(['public'], neutron['ml2_type_flat']['flat_networks'])
        self.assertEqual({}, written)

    def test_agent(self):
        written, said = self.configure(_NODE + ',tapmac-agent')
        conf = said['sudo'][0].split()[-1]
        self.assertEqual([
            'install -D -m 0644 -o stack /dev/null ' + conf,
            'install -d -o stack /run/tapmac-agent',
            'rm -rf %s /run/tapmac-agent' % conf], said['sudo'])
        self.assertEqual(
            ['/opt/stack/vif-plug-tapmac ml2,agent'], said['setup_develop'])
        command, = said['run_process']
        self.assertRegex(
            command, '^extra tapmac-agent /opt/stack/venv/bin/tapmac-agent '
            '--config-file /.*/neutron --config-file %s$' % conf)
        self.assertEqual(['tapmac-agent'], said['stop_process'])
        self.assertEqual(
            {'helper_command': ['sudo /opt/stack/venv/bin/privsep-helper '
                                '--config-file ' + conf]},
            written['agent']['tapmac_agent_privileged'])

    def test_where_the_agent_is_elsewhere(self):
        """neutron-server, and a DHCP agent, on a host without it."""
        written, said = self.configure(
            'q-svc,q-dhcp', TAPMAC_FIREWALL='agent',
            TAPMAC_BRIDGE_MAPPINGS='one:br1,two:br2')
        self.assertEqual(['agent'],
                         written['neutron']['ml2_tapmac']['firewall'])
        self.assertEqual(['one,two'], written['neutron']['ml2_type_vlan'][
            'network_vlan_ranges'])
        self.assertEqual({
            'DEFAULT': {'interface_driver': ['tapmac'],
                        'enable_isolated_metadata': ['True']},
            'ml2_tapmac': {'bridge_mappings': ['one:br1,two:br2']}},
            written['dhcp'])
        self.assertNotIn('run_process', said)

    def test_beside_another_driver(self):
        written, said = self.configure(
            _NODE, Q_AGENT='ovn', Q_ML2_PLUGIN_MECHANISM_DRIVERS='ovn,tapmac',
            TAPMAC_BRIDGE_UPLINKS='br100:eth1',
            TAPMAC_BRIDGE_MAPPINGS='physnet1:br100')
        self.assertNotIn('disable_service', said)
        self.assertEqual({'os_vif_tapmac': {
            'claim_plugins': ['ovs'], 'bridge_uplinks': ['br100:eth1']}},
            written['nova'])
        self.assertEqual(['physnet1:br100'],
                         written['neutron']['ml2_tapmac']['bridge_mappings'])
        self.assertEqual({
            'mechanism_drivers': ['ovn,tapmac'],
            'extension_drivers': ['port_security'],
            'project_network_types': ['geneve']}, written['neutron']['ml2'])
