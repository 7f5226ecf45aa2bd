# SPDX-License-Identifier: Apache-2.0

"""The mechanism driver's names of bridges, options, and what it refuses.

tests/neutron has what a neutron-server makes of it.
"""

import logging
import types
from unittest import mock

import fixtures
from neutron_lib.callbacks import events
from neutron_lib.callbacks import exceptions as callback_exceptions
from neutron_lib.callbacks import registry
from neutron_lib.callbacks import resources
from neutron_lib import fixture
from neutron_lib.plugins import directory
from neutron_lib.plugins.ml2 import api
from oslo_config import cfg
from stevedore import extension

from tests import base
from tests import bound_port
from vif_plug_tapmac.ml2 import bindings
from vif_plug_tapmac.ml2 import driver
from vif_plug_tapmac.ml2 import exception
from vif_plug_tapmac.ml2 import hosts
from vif_plug_tapmac.ml2 import mappings
from vif_plug_tapmac.ml2 import opts
from vif_plug_tapmac.ml2 import others
from vif_plug_tapmac.wanted import names


class Ml2TestCase(base.TestCase):

    def setUp(self):
        super().setUp()
        opts.group(cfg.CONF)

    @property
    def options(self):
        return cfg.CONF[opts.GROUP]

    def configure(self, **options):
        self.config.config(group=opts.GROUP, **options)


class OptsTest(Ml2TestCase):

    def test_every_option_is_explained(self):
        for opt in opts.ML2_TAPMAC_OPTS:
            self.assertGreater(len(opt.help), 80, opt.name)
            self.assertIsNotNone(opt.default, opt.name)

    def test_entry_points(self):
        for namespace, name, found in (
                ('oslo.config.opts', 'vif_plug_tapmac.ml2', opts.list_opts),
                ('neutron.ml2.mechanism_drivers', 'tapmac',
                 driver.TapMacMechanismDriver)):
            manager = extension.ExtensionManager(namespace)
            self.assertIs(found, manager[name].plugin)


class BridgesTest(Ml2TestCase):

    def bridges(self, *physnets, **options):
        self.configure(bridge_mappings=list(physnets), **options)
        return mappings.Bridges.from_config(self.options)

    def assert_invalid(self, option, reason, *physnets, **options):
        raised = self.assertRaises(exception.InvalidConfig, self.bridges,
                                   *physnets, **options)
        self.assertIn('[ml2_tapmac] %s = ' % option, str(raised))
        self.assertIn(reason, str(raised))

    def segment(self, kind, physnet='one', vlan=None):
        return {'network_type': kind, 'physical_network': physnet,
                'segmentation_id': vlan}

    def test_bridge_of_a_segment(self):
        bridges = self.bridges('one:br1', 'two:br2')
        for segment, bridge in (
                (self.segment('flat'), 'br1'),
                (self.segment('flat', 'two'), 'br2'),
                (self.segment('vlan', vlan=1), 'br1-1'),
                (self.segment('vlan', 'two', vlan=4094), 'br2-4094'),
                (self.segment('flat', 'three'), None),
                (self.segment('vlan', 'three', vlan=1), None),
                (self.segment('vxlan', None, vlan=1), None),
                (self.segment('local', None), None)):
            self.assertEqual(bridge, bridges.bridge(segment))

    def test_other_template(self):
        bridges = self.bridges('one:br1', vlan_bridge='v{vlan}.{bridge}')
        self.assertEqual('v7.br1',
                         bridges.bridge(self.segment('vlan', vlan=7)))

    def test_names_of_the_linux_bridge_agent(self):
        bridges = self.bridges(
            'one:br-provider-one', flat_bridge='brq{network}',
            vlan_bridge='brq{network}')
        for segment in (self.segment('flat'), self.segment('vlan', vlan=7)):
            self.assertEqual('brq5d6a7b8c-00', bridges.bridge(
                dict(segment, network_id=bound_port.NETWORK_ID)))

    def test_wrong_templates_of_flat_networks(self):
        for template, reason in (
                ('{bridge}-{vlan}', '{bridge} and {network} are all'),
                ('brqq{network}', 'has 15 characters'),
                ('br', 'one and two would both have the bridge br')):
            self.assert_invalid('flat_bridge', reason, 'one:br1', 'two:br2',
                                flat_bridge=template)

    def test_no_template_leaves_flat_networks_to_others(self):
        self.assertIsNone(self.bridges('one:br1', flat_bridge='').bridge(
            self.segment('flat')))

    def test_no_template_leaves_vlans_to_others(self):
        bridges = self.bridges('one:br-provider-1', vlan_bridge='')
        self.assertIsNone(bridges.bridge(self.segment('vlan', vlan=7)))

    def test_every_name_is_one_for_nova_and_for_the_plugin(self):
        bridges = self.bridges('one:br1234567', 'two:br-a')
        for _, _, bridge in bridges._all():
            self.assertLessEqual(len(bridge), names.NOVA_NAME_LENGTH)
            base.make_port(bridge=bridge)

    def test_wrong_mappings(self):
        for reason, *physnets in (
                ('no physical network',),
                ("Invalid mapping: 'one'", 'one'),
                ('Missing value', 'one:'),
                ('Key one', 'one:br1', 'one:br2'),
                ('Value br1', 'one:br1', 'two:br1'),
                ('no name for a bridge', 'one:br/1'),
                ('no name for a bridge', 'one:all'),
                ('no name for a bridge', 'one:-br'),
                ('br-provider-one for one has 15 characters, and Nova keeps '
                 '14', 'one:br-provider-one')):
            self.assert_invalid('bridge_mappings', reason, *physnets)

    def test_wrong_templates(self):
        for template, reason, *physnets in (
                ('{bridge}-{vlan}', 'br12345678-1000 for VLAN 1000 of one has '
                 '15 characters', 'one:br12345678'),
                ('{bridge}-{vlan}', 'two and VLAN 2 of one would both have '
                 'the bridge br1-2', 'two:br1-2', 'one:br1'),
                ('{bridge}{vlan}', 'would both have', 'one:br1', 'two:br11'),
                ('v{vlan}', 'VLAN 1 of one and VLAN 1 of two', 'one:br1',
                 'two:br2'),
                ('{bridge}', 'one and VLAN 1 of one', 'one:br1'),
                ('v', 'VLAN 1 of one and VLAN 2 of one', 'one:br1'),
                ('{bridge} {vlan}', 'no name for a bridge', 'one:br1'),
                ('{physnet}-{vlan}', 'all that it may have', 'one:br1'),
                ('{}-{vlan}', 'all that it may have', 'one:br1'),
                ('{bridge[x]}', 'all that it may have', 'one:br1'),
                ('{bridge.x}', 'all that it may have', 'one:br1'),
                ('{bridge', 'all that it may have', 'one:br1')):
            self.assert_invalid('vlan_bridge', reason, *physnets,
                                vlan_bridge=template)


class DriverTest(Ml2TestCase):
    """What a neutron-server alone, with its own drivers, cannot show."""

    def setUp(self):
        super().setUp()
        self.useFixture(fixture.CallbackRegistryFixture())
        self.useFixture(fixture.PluginDirectoryFixture())
        self.configure(bridge_mappings=['physnet1:br100'])
        # There is no database.
        self.patch(bindings, 'of_port', lambda *arguments: [])
        self.driver = driver.TapMacMechanismDriver()
        self.driver.initialize()

    def test_a_driver_with_no_mappings_does_not_start(self):
        self.configure(bridge_mappings=[])
        self.assertRaises(exception.InvalidConfig,
                          driver.TapMacMechanismDriver().initialize)

    def bind(self, us=None, host='host1', physnet='physnet1', **fields):
        """Return what a driver did with a port that is to be bound."""
        context = mock.Mock(
            spec=api.PortContext, host=host, plugin_context=None,
            current=dict(bound_port.PORT, **fields),
            segments_to_bind=[{'id': 'demo', 'network_type': 'flat',
                               'physical_network': physnet,
                               'segmentation_id': None}])
        context.network.current = {}
        (us or self.driver).bind_port(context)
        return context

    def test_why_a_port_is_not_ours(self):
        self.configure(hosts=['host?', 'other.example.org'])
        us = driver.TapMacMechanismDriver()
        us.initialize()
        log = self.useFixture(fixtures.FakeLogger(level=logging.DEBUG))
        for reason, fields in (
                ('vnic_type is direct', {'binding:vnic_type': 'direct'}),
                ('no compute service plugs a port of network:dhcp',
                 {'device_owner': 'network:dhcp'}),
                ('hosts has host?,other.example.org only', {'host': 'third'}),
                ('no segment of its network has a bridge',
                 {'physnet': 'physnet2'})):
            context = self.bind(us, **fields)
            context.set_binding.assert_not_called()
            self.assertIn('tapmac leaves port %s on host %s to other drivers: '
                          % (bound_port.PORT['id'], context.host), log.output)
            self.assertIn(reason, log.output)
        self.assertNotIn('case or domain', log.output)

    def test_host_that_seems_to_have_an_agent(self):
        """It has none: only a Neutron with agents could be told so."""
        self.driver._places.agent_hosts = hosts.Hosts(['HOST1.example.org'])
        log = self.useFixture(fixtures.FakeLogger())
        for _ in range(2):
            (_, _, details, status), _ = self.bind().set_binding.call_args
            self.assertEqual((False, 'ACTIVE'),
                             (details['port_filter'], status))
        self.assertEqual(1, log.output.count(
            'tapmac binds ports without an agent on host host1: it differs '
            'from HOST1.example.org of [ml2_tapmac] agent_hosts by case or '
            'domain only.'))

    def test_segments_that_a_template_does_not_tell_apart(self):
        self.configure(vlan_bridge='brq{network}')
        us = driver.TapMacMechanismDriver()
        us.initialize()
        segments = [{'id': str(vlan), 'network_type': 'vlan',
                     'physical_network': 'physnet1', 'segmentation_id': vlan,
                     'network_id': bound_port.NETWORK_ID} for vlan in (1, 2)]
        self.assertEqual(
            ('1', 'brq5d6a7b8c-00'),
            us._places.find(None, bound_port.PORT, 'host1', segments[:1]))
        raised = self.assertRaises(exception.NotOurs, us._places.find, None,
                                   bound_port.PORT, 'host1', segments)
        self.assertIn('several segments', str(raised))

    def test_hosts_that_seem_to_be_meant(self):
        found = hosts.Hosts(['host?', 'Other.example.org', '*.example.com'])
        for host in 'host1', 'Other.example.org', 'x.example.com':
            self.assertIn(host, found)
        for host, pattern in (
                ('host1.example.org', 'host?'), ('HOST1', 'host?'),
                ('other', 'Other.example.org'),
                ('x', '*.example.com')):
            self.assertNotIn(host, found)
            self.assertEqual(pattern, found.nearly(host))
        self.assertIsNone(hosts.Hosts(['host?']).nearly('host12'))
        self.assertIsNone(hosts.Hosts([]).nearly('host12'))

    def test_drivers_that_are_asked_before(self):
        """As ML2 does: the first that can, and one that fails cannot."""

        class Other(api.MechanismDriver):

            def __init__(self, act):
                self.bind_port = act

            def initialize(self):
                pass

            def bind_port(self, context):
                raise NotImplementedError

        def fail(context):
            raise ValueError

        def bind(context):
            for segment in context.segments_to_bind:
                context.set_binding(segment, 'ovs', {}, status='DOWN')

        def go_on(context):
            context.continue_binding('demo', [])

        context = mock.Mock(spec=api.PortContext)
        context.network.network_segments = ['demo']
        for expected, drivers in (
                (False, [self.driver, Other(bind)]),
                (False, [Other(fail), self.driver]),
                (True, [Other(fail), Other(bind), self.driver]),
                (True, [Other(go_on), self.driver])):
            plugin = mock.Mock()
            plugin.mechanism_manager.ordered_mech_drivers = [
                types.SimpleNamespace(obj=each) for each in drivers]
            directory.add_plugin('CORE', plugin)
            self.assertEqual(expected, others.is_bound_before(
                context, 'host1', self.driver))
        context.set_binding.assert_not_called()

    def test_whose_resources_a_port_has(self):
        for profile, found in ((None, []), ({}, []), ({'allocation': {}}, []),
                               ({'allocation': 'a'}, ['a']),
                               ({'allocation': {'x': 'b', 'y': 'a'}},
                                ['a', 'b'])):
            self.assertEqual(found, others.allocated(
                {'binding:profile': profile}))

    def have(self, port, beside=()):
        """Have a port, with bindings beside the active one.

        :returns: as it is asked for: filters of Neutron's API
        """
        asked = []
        directory.add_plugin('CORE', mock.Mock(
            spec=['get_ports'], get_ports=lambda context, filters: (
                asked.append(filters) or [port])))
        self.patch(bindings, 'of_port', lambda context, port_id: [
            {'port_id': port_id, 'host': host, 'vif_type': vif_type,
             'vif_details': details} for host, vif_type, details in [
                 tuple(port['binding:' + name] for name in (
                     'host_id', 'vif_type', 'vif_details')), *beside]])
        self.patch(bindings, '_segments', lambda context, network_id: [
            {'id': 'demo', 'network_type': 'flat', 'segmentation_id': None,
             'physical_network': 'physnet1', 'network_id': network_id}])
        return asked

    def test_another_prefix_of_a_subnet(self):
        """By prefix delegation, which only a router of Neutron asks for."""
        self.driver.full_hosts = hosts.Hosts(['host1'])
        asked = self.have(bound_port.PORT)
        before = {'id': 'demo', 'cidr': '::/64'}
        context = mock.Mock(spec=api.SubnetContext, original=before,
                            current=dict(before, name='renamed'),
                            plugin_context=mock.Mock())
        self.driver.update_subnet_precommit(context)
        context.current = dict(before, cidr='2001:db8::/64')
        self.assertIn('other fixed IPs in ::/64', str(self.assertRaises(
            exception.NotEnforced, self.driver.update_subnet_precommit,
            context)))
        self.assertEqual([{'fixed_ips': {'subnet_id': ['demo']}}], asked)
        self.driver.full_hosts = hosts.Hosts(['host2'])
        self.driver.update_subnet_precommit(context)

    def create_trunk(self, *bound, **fields):
        """Do what Neutron's trunk plugin does when its drivers would do.

        :param fields: of the parent
        """
        asked = self.have(dict(bound_port.PORT, **fields), bound)
        registry.publish(
            resources.TRUNK, events.PRECOMMIT_CREATE, self,
            events.DBEventPayload(
                mock.Mock(), resource_id='demo',
                desired_state=types.SimpleNamespace(
                    id='demo', port_id=bound_port.PORT['id'])))
        self.assertEqual([{'id': [bound_port.PORT['id']]}], asked)

    def test_trunk_of_a_port_of_ours(self):
        others = {'binding:host_id': 'host2',
                  'binding:vif_details': {'datapath_type': 'system'}}
        for bound, fields in (
                ((), {}),
                ([('host1', 'ovs', bound_port.PORT['binding:vif_details'])],
                 others),
                ([('host1', 'unbound', '')], others)):
            raised = self.assertRaises(callback_exceptions.CallbackFailure,
                                       self.create_trunk, *bound, **fields)
            refusal, = raised.inner_exceptions
            self.assertIsInstance(refusal, exception.NotEnforced)
            self.assertIn('on host host1 cannot have trunk demo', str(refusal))

    def test_trunk_of_a_port_of_another_driver(self):
        self.create_trunk(
            ('host2', 'binding_failed', ''),
            **{'binding:vif_details': {'datapath_type': 'system'}})
        self.create_trunk(**{
            'binding:vif_type': 'unbound', 'binding:vif_details': {},
            'binding:host_id': ''})
        self.create_trunk(**{
            'binding:vif_type': 'unbound', 'binding:vif_details': {},
            'binding:vnic_type': 'direct'})

    def test_ports_of_neutron_itself_have_no_policy_of_the_network(self):
        for owner, found in (('compute:nova', 1), ('network:dhcp', 0)):
            self.assertEqual(found, len(driver._unenforced(
                dict(bound_port.PORT, device_owner=owner),
                {'qos_policy_id': 'demo'})))
