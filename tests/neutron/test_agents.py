# SPDX-License-Identifier: Apache-2.0

"""Ports where tapmac-agent is: bound while it lives, ACTIVE by its word."""

from oslo_config import cfg

from tests import base as tests_base
from tests.neutron import agents
from tests.neutron import base
from tests.neutron import test_binding
from vif_plug_tapmac.ml2 import driver
from vif_plug_tapmac.ml2 import exception
from vif_plug_tapmac.ml2 import opts


class AgentEventsTest(agents.AgentTestCase, test_binding.EventsTest):
    """Each thing that happens to a server, with an agent on both hosts."""

    first, second = agents.AgentTestCase.first, agents.AgentTestCase.second
    has_agent = True

    def test_evacuation(self):
        """The agent of the host that is dead says nothing."""
        port = self.boot()
        self.kill_agent(self.first)
        self.update(port, **{'binding:host_id': self.second})
        self.plug(port, self.second, 'vif-plugged', 'vif-unplugged')
        self.assert_active_on(self.second, port)
        self.assert_events(port, 'vif-plugged', 'vif-unplugged',
                           'vif-plugged')

    def test_arrival(self):
        """The target's agent is told nothing before the activation."""
        port = self.boot()
        self.bind_second(port, self.second)
        self.assertTrue(self.ask(port, self.second)['no_active_binding'])
        self.assert_active_on(self.first, port)

    def test_to_a_host_without_an_agent_and_back(self):
        """There it is ACTIVE when it is bound, and nothing is left of this."""
        port = self.port(self.vlan_network(), self.first)
        heard = []
        for bind in (lambda host: self.update(port, **{
                'binding:host_id': host}), self.migrate_live(port)):
            bind('host1')
            found = self.show(port)
            self.assertEqual(('host1', 'ACTIVE', False), (
                found['binding:host_id'], found['status'],
                found['binding:vif_details']['port_filter']))
            heard.append('vif-plugged')
            self.wait_for_events(port, *heard)
            bind(self.first)
            heard.append('vif-unplugged')
            self.plug(port, self.first, *heard)
            self.assert_active_on(self.first, port)
            heard += ['vif-plugged', 'vif-unplugged']

    def migrate_live(self, port):
        def bind(host):
            former = self.show(port)['binding:host_id']
            self.bind_second(port, host)
            self.activate(port, host)
            self.unbind(port, former)
        return bind


class OldestTest(tests_base.TestCase):
    """A Neutron that the agent is not for."""

    def test_start_is_refused(self):
        opts.group(cfg.CONF)
        for name, value in (('firewall', 'agent'),
                            ('agent_hosts', ['host1', 'host2'])):
            cfg.CONF.reset()
            self.config.config(
                group=opts.GROUP, bridge_mappings=['physnet1:br100'],
                firewall='none', agent_hosts=[])
            self.config.config(group=opts.GROUP, **{name: value})
            refused = self.assertRaises(
                exception.InvalidConfig,
                driver.TapMacMechanismDriver().initialize)
            self.assertIn('[ml2_tapmac] %s = ' % name, str(refused))
            self.assertIn('tapmac-agent needs Neutron 28 or newer, and this '
                          'is %d.' % base.NEUTRON, str(refused))


def load_tests(loader, tests, pattern):
    """Leave out what this Neutron has not: nothing is skipped."""
    del loader, pattern
    return base.without(tests, *(
        [OldestTest] if base.AGENT_HOSTS
        else [AgentEventsTest]))
