# SPDX-License-Identifier: Apache-2.0

"""What nobody enforces is refused, over REST, with a message that says so.

Each of these leaves the port as it was before.
"""

import json
import os
import re
import subprocess
import sys

from tests import documents
from tests.neutron import base
from tests import patience


class RefusalTest(base.NeutronTestCase):

    def setUp(self):
        super().setUp()
        self.policy = self.create('policy', name='demo')['id']
        self.network = self.vlan_network()

    def ports(self):
        return self.neutron.request(
            'GET', 'ports?network_id=' + self.network['id'])['ports']

    def assert_unchanged(self, port):
        volatile = {'updated_at', 'revision_number'}
        found = self.show(port)
        self.assertEqual(
            {name: port[name] for name in port.keys() - volatile},
            {name: found[name] for name in port.keys() - volatile})

    def assert_update_refused(self, port, *words, **fields):
        self.assert_refused(port['id'], 'on host host1', *words,
                            request=lambda: self.update(port, **fields))
        self.assert_unchanged(port)

    def assert_create_refused(self, *words, **fields):
        before = self.ports()
        self.assert_refused('on host host1', *words, request=lambda: self.port(
            self.network, **fields))
        self.assertEqual(before, self.ports())

    def assert_bind_refused(self, port, *words):
        """Expect that a server cannot boot with this port."""
        self.assert_refused(
            port['id'], 'on host host1', *words, request=lambda: self.update(
                port, **{'binding:host_id': 'host1'}))
        found = self.show(port)
        self.assertEqual(('unbound', 'DOWN'), (
            found['binding:vif_type'], found['status']))
        self.assert_events(port)
        # As Nova does when the boot has failed.
        self.update(port, **{'binding:host_id': ''})

    def test_port_down(self):
        words = ('admin_state_up False', 'Leave the port up')
        self.assert_create_refused(*words, admin_state_up=False)
        self.assert_bind_refused(self.port(
            self.network, host=None, admin_state_up=False), *words)
        self.assert_update_refused(self.port(self.network), *words,
                                   admin_state_up=False)

    def test_qos_policy_of_the_port(self):
        words = ('QoS policy %s:' % self.policy,
                 'Remove the policy from the port')
        self.assert_create_refused(*words, qos_policy_id=self.policy)
        self.assert_bind_refused(self.port(
            self.network, host=None, qos_policy_id=self.policy), *words)
        self.assert_update_refused(self.port(self.network), *words,
                                   qos_policy_id=self.policy)

    def test_qos_policy_of_the_network(self):
        words = ('QoS policy %s of its network' % self.policy,
                 'Leave the network without policy')
        path = 'networks/' + self.network['id']
        change = {'network': {'qos_policy_id': self.policy}}
        port = self.port(self.network)
        self.assert_refused(
            port['id'], 'on host host1', *words,
            request=lambda: self.neutron.request('PUT', path, change))
        self.assertIsNone(self.neutron.request(
            'GET', path)['network']['qos_policy_id'])
        self._delete('ports/' + port['id'])
        self.neutron.request('PUT', path, change)
        self.assert_create_refused(*words)
        self.assert_bind_refused(self.port(self.network, host=None), *words)

    def test_trunk(self):
        parent = self.port(self.network, host=None)
        trunk = self.create('trunk', port_id=parent['id'])
        self.assert_bind_refused(parent, 'trunk ' + trunk['id'],
                                 'a port on each of the networks')

    def test_trunk_of_a_bound_port(self):
        """It is refused by Neutron, unless another driver would have it."""
        port = self.port(self.network)
        refused = self.assertRaises(base.Refused, self.create, 'trunk',
                                    port_id=port['id'])
        self.assertEqual((409, 'ParentPortInUse'),
                         (refused.status, refused.type))
        self.assertIn('not eligible for use as a parent port', str(refused))
        self.assert_unchanged(port)

    def test_all_else_can_change(self):
        port = self.port(self.network)
        changed = self.update(port, name='renamed', description='it is',
                              qos_policy_id=None, admin_state_up=True)
        self.assertEqual(('renamed', 'ovs', 'ACTIVE'), (
            changed['name'], changed['binding:vif_type'], changed['status']))

    def test_ports_elsewhere_are_not_ours_to_refuse(self):
        port = self.port(self.network, host='elsewhere', admin_state_up=False,
                         qos_policy_id=self.policy)
        self.assertEqual('binding_failed', port['binding:vif_type'])
        self.create('trunk', port_id=self.port(self.network, host=None)['id'])
        self.neutron.request(
            'PUT', 'networks/' + self.network['id'],
            {'network': {'qos_policy_id': self.policy}})

    def test_live_migration_from_another_driver(self):
        """No second binding: its activation could not be refused in time."""
        port = self.port(self.network, host='elsewhere',
                         qos_policy_id=self.policy)
        # The agent that would make this so is not here.
        self.neutron.database.execute(
            'UPDATE neutron.ml2_port_bindings '
            'SET vif_type = %s, vif_details = %s WHERE port_id = %s',
            'ovs', json.dumps({'datapath_type': 'system'}), port['id'])
        before = self.show(port)
        refused = self.assertRaises(
            base.Refused, self.neutron.request, 'POST',
            'ports/%s/bindings' % port['id'], {'binding': {'host': 'host1'}})
        self.assertEqual('PortBindingError', refused.type)
        self.assert_unchanged(before)
        self.assertIn(
            'tapmac does not bind port %s on host host1 beside its binding '
            'on elsewhere: nothing would enforce QoS policy %s.' % (
                port['id'], self.policy), self.neutron.log())


class StartTest(base.NeutronTestCase):
    """Wrong mappings end the start of neutron-server, and say why."""

    def test_wrong_ones(self):
        configuration = self.neutron.configuration.read_text()
        right = 'bridge_mappings = physnet1:br100,physnet2:br200\n'
        self.assertIn(right, configuration)
        for wrong, reason in (
                ('bridge_mappings = physnet1:br1,physnet1:br2\n',
                 'physnet1 in mapping: \'physnet1:br2\' not unique'),
                ('bridge_mappings = physnet1:br/1\n',
                 'is no name for a bridge'),
                ('bridge_mappings = physnet1:br-provider-one\n',
                 'br-provider-one for physnet1 has 15 characters')):
            self.assert_ends(configuration.replace(right, wrong), reason)

    def test_what_the_documentation_shows(self):
        configuration = self.neutron.configuration.read_text()
        before = configuration.split('[ml2]\n', 1)[0]
        shown = documents.block(documents.PROVIDER, '[ml2]', 'ini')
        # Neither trunks nor QoS are for a server like this.
        done = self.start(before.replace('trunk,qos', '') + shown)
        self.assertEqual(0, done.returncode, done.stdout)
        line = next(line for line in documents.log_lines()
                    if 'tapmac binds ports on' in line)
        level, logger, message = line.split(' ', 2)
        self.assertRegex(done.stdout, r'%s %s .*\] %s' % (
            level, logger, re.escape(message)))

    def test_no_trunks_without_another_driver(self):
        configuration = self.neutron.configuration.read_text()
        done = self.start(configuration.replace(',openvswitch', ''))
        self.assertNotEqual(0, done.returncode)
        self.assertIn('Cannot load trunk plugin', done.stdout)

    def assert_ends(self, configuration, reason):
        done = self.start(configuration)
        self.assertNotEqual(0, done.returncode)
        self.assertIn('[ml2_tapmac] bridge_mappings', done.stdout)
        self.assertIn(reason, done.stdout)

    def start(self, configuration):
        """Do what each of uWSGI's processes does to start."""
        changed = self.neutron.configuration.with_suffix('.wrong')
        changed.write_text(configuration)
        return subprocess.run(
            [sys.executable, '-c', 'import neutron.wsgi.api'],
            env=dict(os.environ, **base.configured_by(changed)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=patience.HANG)
