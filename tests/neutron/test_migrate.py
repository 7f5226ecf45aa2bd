# SPDX-License-Identifier: Apache-2.0

"""tapmac-migrate: ports that Neutron's Linux bridge agent had come to us."""

from concurrent import futures
import json
import pathlib
import uuid

import fixtures
from oslo_config import cfg

from tests.neutron import agents
from tests.neutron import base
from tests.neutron import front
from tests import patience
from vif_plug_tapmac.cli import bound_ports


class MigrateTestCase(base.NeutronTestCase):

    def setUp(self):
        super().setUp()
        self.front = self.useFixture(front.Front(self.neutron))
        self.network = self.vlan_network()
        self.bridge = 'br100-%d' % self.network['provider:segmentation_id']

    def server(self, host='host1', **fields):
        id_ = str(uuid.uuid4())
        self.front.nova.servers[id_] = dict(fields, host=host)
        return id_

    def old_port(self, network=None, host='host1', **fields):
        """Create a port that is bound as the old driver left it."""
        made = self.port(network or self.network, **dict(
            {'host': host, 'device_id': self.server(host)}, **fields))
        self.leave_to_linux_bridge(made)
        return made

    def run_json(self, *arguments, status=0):
        found, output, errors = self.front.run(*arguments, '-f', 'json')
        self.assertEqual(status, found, (output, errors))
        return {row['Port']: row for row in json.loads(output)}

    def plan(self, *arguments):
        return self.run_json('plan', *arguments)

    def rebind(self, *arguments, status=0):
        found, output, errors = self.front.run('rebind', *arguments)
        self.assertEqual(status, found, (output, errors))
        return output + errors

    def assert_ours(self, port, vif_type='ovs', bridge=None, profile=None):
        found = self.show(port)
        self.assertEqual(
            (vif_type, bridge or self.bridge, {'0': 'tapmac'}, 'ACTIVE',
             profile or {}),
            (found['binding:vif_type'],
             found['binding:vif_details'].get('bridge_name'),
             found['binding:vif_details'].get('bound_drivers'),
             found['status'], found['binding:profile']))

    def assert_no_trials(self):
        self.assertEqual([], self.neutron.database.execute(
            'SELECT id FROM neutron.ports WHERE device_id = "" AND '
            'name != ""'))


class RebindTest(MigrateTestCase):

    def test_all_of_a_host(self):
        profile = {'a': [1, {'b': None}], 'z': 'x'}
        ports = [self.old_port(), self.old_port(
            **{'binding:profile': profile}), self.old_port(host='host2')]
        ours = self.port(self.network)
        before = self.rows(ours, ports[2])
        said = self.rebind('host1')
        self.assert_ours(ports[0])
        self.assert_ours(ports[1], profile=profile)
        self.assertEqual(before, self.rows(ours, ports[2]))
        self.assertIn('host1: 2 to be bound anew, 0 skipped, 1 to stay', said)
        for number, port in enumerate(sorted(
                ports[:2], key=lambda port: port['id']), 1):
            self.assertIn(
                '%d of 2: port %s of compute:nova %s, bridge on brq%s by '
                'linuxbridge -> ovs on %s by tapmac\n' % (
                    number, port['id'], port['device_id'],
                    self.network['id'][:11], self.bridge), said)
        self.assertEqual(
            {port['id'] for port in ports[:2]},
            {event['tag'] for event in self.front.nova.events})
        self.assert_no_trials()
        again = self.rebind('host1')
        self.assertIn('host1: 0 to be bound anew, 0 skipped, 3 to stay', again)

    def test_dry_run(self):
        port = self.old_port()
        before = self.rows(port)
        said = self.rebind('host1', '--dry-run')
        self.assertIn('1 of 1: port ' + port['id'], said)
        self.assertEqual(before, self.rows(port))
        self.assertEqual([], self.changes())

    def changes(self):
        return [request for request in self.front.requests
                if not request.startswith('GET ')]

    def test_host_that_is_not_ours(self):
        """Nothing is touched, so there is nothing to put back."""
        ports = [self.old_port() for _ in range(2)]
        for port in ports:
            self.move_to_elsewhere(port)
        before = self.rows(*ports)
        said = self.rebind('elsewhere', status=1)
        self.assertEqual(before, self.rows(*ports))
        self.assertIn('tapmac binds no port on elsewhere, so none was touched',
                      said)
        self.assertIn('[ml2_tapmac] hosts and bridge_mappings', said)
        self.assert_no_trials()

    def move_to_elsewhere(self, port):
        for table in 'bindings', 'binding_levels':
            self.neutron.database.execute(
                'UPDATE neutron.ml2_port_%s SET host = "elsewhere" '
                'WHERE port_id = %%s' % table, port['id'])

    def test_host_of_another_driver(self):
        self.ovs_agent('elsewhere')
        port = self.old_port()
        self.move_to_elsewhere(port)
        before = self.rows(port)
        said = self.rebind('elsewhere', status=1)
        self.assertEqual(before, self.rows(port))
        self.assertIn('it would be bound as ovs on br-int by openvswitch',
                      said)

    def test_what_stops_a_port(self):
        policy = self.create('policy', name='demo')['id']
        with_policy = self.vlan_network()
        stopped = {
            'QoS policy %s:' % policy: self.old_port(),
            'QoS policy %s of its network:' % policy: self.old_port(
                with_policy),
            'admin_state_up False': self.old_port(),
            'trunk ': self.parent_of_trunk(),
            'binding on host2, too': self.old_port(),
            'busy with its server (rebooting)': self.old_port(),
            'no mechanism driver binds': self.old_port(self.vlan_network(
                physnet='physnet3')),
            'vnic_type is direct': self.old_port(),
            'type vxlan': self.old_port(self.create('network', name='demo', **{
                'provider:network_type': 'vxlan',
                'provider:segmentation_id': 7})),
            'no compute service plugs a port of network:dhcp': self.old_port(
                device_owner='network:dhcp')}
        ports = list(stopped.values())
        self.update(ports[0], qos_policy_id=policy)
        self.neutron.request('PUT', 'networks/' + with_policy['id'],
                             {'network': {'qos_policy_id': policy}})
        self.update(ports[2], admin_state_up=False)
        self.touch(ports[4])
        self.bind_second(ports[4], 'host2')
        self.leave_to_linux_bridge(ports[4])
        self.front.nova.servers[ports[5]['device_id']][
            'task_state'] = 'rebooting'
        self.neutron.database.execute(
            'UPDATE neutron.ml2_port_bindings SET vnic_type = "direct" '
            'WHERE port_id = %s', ports[7]['id'])
        free = self.old_port()
        before = self.rows(*ports)
        said = self.rebind('host1', status=1)
        self.assertEqual(before, self.rows(*ports))
        self.assert_ours(free)
        for words, port in stopped.items():
            line, = [line for line in said.splitlines() if port['id'] in line]
            self.assertIn('Skipped: ', line)
            self.assertIn(words, line)
        self.assertIn('host1: 1 to be bound anew, %d skipped' % len(ports),
                      said)
        self.assert_no_trials()

    def parent_of_trunk(self):
        """Create one that is bound as another driver could."""
        port = self.port(self.network, host=None)
        self.create('trunk', port_id=port['id'])
        # A parent that is bound cannot be deleted.
        self.addCleanup(
            self.neutron.database.execute, 'UPDATE neutron.ml2_port_bindings '
            'SET host = "" WHERE port_id = %s', port['id'])
        self.neutron.database.execute(
            'UPDATE neutron.ml2_port_bindings SET host = "host1" '
            'WHERE port_id = %s', port['id'])
        self.leave_to_linux_bridge(dict(port, **{'binding:host_id': 'host1'}))
        return port

    def touch(self, port):
        """Have Neutron bind a port anew, by hand."""
        self.update(port, **{'binding:profile': {'touched': 'now'}})

    def test_bindings_that_came_to_nothing(self):
        failed, unbound = self.old_port(), self.old_port()
        for port, vif_type in ((failed, 'binding_failed'),
                               (unbound, 'unbound')):
            self.neutron.database.execute(
                'UPDATE neutron.ml2_port_bindings SET vif_type = %s, '
                'vif_details = "" WHERE port_id = %s', vif_type, port['id'])
            self.neutron.database.execute(
                'DELETE FROM neutron.ml2_port_binding_levels '
                'WHERE port_id = %s', port['id'])
        self.rebind('host1')
        for port in failed, unbound:
            self.assert_ours(port)

    def test_ours_that_would_be_another_now(self):
        """The host was in bridge_hosts, and the bridge was another."""
        port = self.port(self.network, device_id=self.server())
        self.neutron.database.execute(
            'UPDATE neutron.ml2_port_bindings SET vif_type = "bridge", '
            'vif_details = %s WHERE port_id = %s', json.dumps(
                dict(port['binding:vif_details'], bridge_name='br-old')),
            port['id'])
        self.assertIn('bridge on br-old by tapmac -> ovs on %s by tapmac'
                      % self.bridge, self.rebind('host1'))
        self.assert_ours(port)

    def test_nova_of_the_host(self):
        old, new = self.old_port(host='host9'), self.old_port()
        for microversion, host, words in (
                ('2.104', 'host9', 'Nova 34 refuses bridge'),
                ('2.100', 'host1', 'an older one cannot plug ovs')):
            self.front.nova.microversion = microversion
            self.assertIn(words, self.rebind(host, status=1))
        self.rebind('host9')
        self.assert_ours(old, 'bridge')
        self.front.nova.microversion = '2.104'
        self.rebind('host1')
        self.assert_ours(new)

    def test_changed_by_nova_meanwhile(self):
        """Whoever changes it between our requests loses nothing."""
        port = self.old_port()
        put = 'PUT /network/v2.0/ports/' + port['id']
        self.front.meanwhile[put] = lambda: self.update(
            port, **{'binding:profile': {'of': 'nova'}})
        self.rebind('host1')
        self.assert_ours(port, profile={'of': 'nova'})

    def test_gone_meanwhile(self):
        first, gone, moved = sorted(
            (self.old_port() for _ in range(3)), key=lambda port: port['id'])

        def act():
            self.neutron.request('DELETE', 'ports/' + gone['id'])
            self.move_to_elsewhere(moved)
        self.front.meanwhile['PUT '] = act
        said = self.rebind('host1', status=1)
        self.assertIn(' -> it is gone', said)
        self.assertIn(' -> It has moved to elsewhere meanwhile', said)
        self.assert_ours(first)

    def test_binding_fails_all_the_same(self):
        profile = {'a': 'b'}
        first, second = sorted(
            (self.old_port(**{'binding:profile': profile})
             for _ in range(2)), key=lambda port: port['id'])
        before = self.rows(second)
        self.front.meanwhile['PUT '] = lambda: self.neutron.database.execute(
            'UPDATE neutron.networksegments SET physical_network = "physnet3" '
            'WHERE network_id = %s', self.network['id'])
        said = self.rebind('host1', status=1)
        self.assertIn('port ' + first['id'], said)
        self.assertIn('Neutron has it as binding_failed, and not as ovs on '
                      + self.bridge, said)
        self.assertIn('The 1 after it were not touched.', said)
        self.assertEqual(before, self.rows(second))
        found = self.show(first)
        self.assertEqual(('binding_failed', profile), (
            found['binding:vif_type'], found['binding:profile']))

    def test_nova_that_does_not_agree(self):
        here, unknown = self.old_port(), self.old_port()
        del self.front.nova.servers[unknown['device_id']]
        said = self.rebind('host1', status=1)
        for port in here, unknown:
            self.assert_ours(port)
        self.assertIn('Not right: Nova has no server %s on host1, which port '
                      '%s is of.' % (unknown['device_id'], unknown['id']),
                      said)
        self.assertNotIn('Not right: Nova has port ' + here['id'], said)

    def test_nova_that_takes_no_events(self):
        port = self.old_port()
        self.front.nova.takes_events = False
        said = self.rebind('host1', status=1)
        self.assert_ours(port)
        self.assertIn('the role service', said)

    def test_user_who_may_not(self):
        port = self.old_port()
        before = self.rows(port)
        for roles in 'member', 'admin':
            self.front.roles = roles
            self.assertIn('change binding:profile; the port is as it was.',
                          self.rebind('host1', status=1))
            self.assertEqual(before, self.rows(port))

    def test_killed_at_each_step(self):
        """Before each request, and before its answer; then again."""
        profile = {'a': {'b': 'c'}}
        ports = [self.old_port(**{'binding:profile': profile})
                 for _ in range(2 if patience.LONG else 1)]
        self.rebind('host1')
        of_all = list(self.front.requests)
        changes = [number for number, request in enumerate(of_all, 1)
                   if not request.startswith('GET ')]
        self.assertLess(4, len(changes))
        # One that only asks changes nothing, and before a change it is as
        # after the former.
        cases = [(number, True) for number in changes] + [
            (number, False) for number in range(1, len(of_all) + 1)
            if patience.LONG]
        for limit, answers_last in cases:
            for port in ports:
                self.leave_to_linux_bridge(port)
            self.front.limit, self.front.answers_last = limit, answers_last
            self.rebind('host1', status=1)
            case = '%s %s of %s' % (limit, answers_last, of_all)
            for port in ports:
                found = self.show(port)
                left = dict(found['binding:profile'])
                left.pop('tapmac-migrate', None)
                self.assertEqual(profile, left, case)
                self.assertIn(
                    found['binding:vif_details']['bound_drivers']['0'],
                    ('linuxbridge', 'tapmac'), case)
            self.front.limit = None
            self.rebind('host1')
            for port in ports:
                self.assert_ours(port, profile=profile)
            self.assert_no_trials()


class AgentTest(MigrateTestCase, agents.AgentTestCase):
    """A host with tapmac-agent, whose part the test does."""

    server = agents.AgentTestCase.server

    def former_port(self):
        """Create a port that was bound before its host had an agent."""
        port = self.port(self.network, self.first,
                         device_id=self.server_of(self.first))
        self.guard(port, self.first)
        self.neutron.database.execute(
            'UPDATE neutron.ml2_port_bindings SET vif_details = %s '
            'WHERE port_id = %s', json.dumps(
                dict(port['binding:vif_details'], port_filter=False)),
            port['id'])
        return port

    def server_of(self, host):
        return MigrateTestCase.server(self, host)

    def test_bound_before_there_was_an_agent(self):
        self.only_in_full()
        ports = [self.former_port() for _ in range(2)]
        with futures.ThreadPoolExecutor() as threads:
            rebound = threads.submit(self.rebind, self.first)
            for port in ports:
                patience.wait_until(
                    lambda: self.is_bound_anew(port) or rebound.done(),
                    'it is not bound anew')
                if not rebound.done():
                    self.guard(port, self.first)
            said = rebound.result()
        self.assertIn('-> ovs on %s by tapmac with tapmac-agent'
                      % self.bridge, said)
        self.assertNotIn('Not right', said)
        for port in ports:
            self.assert_ours(port)
            row, = self.neutron.database.execute(
                'SELECT vif_details FROM neutron.ml2_port_bindings '
                'WHERE port_id = %s', port['id'])
            self.assertIs(True, json.loads(row['vif_details'])['port_filter'])
        self.assertIn('0 to be bound anew', self.rebind(self.first))

    def is_bound_anew(self, port):
        found = self.show(port)
        return (found['binding:vif_details'].get('port_filter')
                and not found['binding:profile']
                and found['status'] == 'DOWN')

    def test_agent_that_does_nothing(self):
        self.only_in_full()
        port = self.former_port()
        said = self.rebind(self.first, '--wait', '0.1', status=1)
        self.assertIn('Waiting for tapmac-agent of %s: 1 of 1' % self.first,
                      said)
        self.assertIn('port %s is DOWN, and ovs on %s by tapmac with '
                      'tapmac-agent; tapmac-agent of %s is alive' % (
                          port['id'], self.bridge, self.first), said)


class LinuxBridgeAgentTest(MigrateTestCase):
    """Ports that the old driver has bound itself."""

    def test_as_long_as_its_agent_is_alive_and_then(self):
        profile = {'a': 'b'}
        agent = self.linux_bridge_agent('host1')
        port = self.port(self.network, device_id=self.server(), **{
            'binding:profile': profile})
        self.assertEqual(('bridge', {'0': 'linuxbridge'}), (
            port['binding:vif_type'],
            port['binding:vif_details']['bound_drivers']))
        before = self.rows(port)
        said = self.rebind('host1', status=1)
        self.assertIn('it would be bound as bridge on brq%s by linuxbridge'
                      % self.network['id'][:11], said)
        self.assertEqual(before, self.rows(port))
        self.assertEqual({}, self.run_json('check', '--host', 'host1'))
        self.neutron.request('DELETE', 'agents/' + agent)
        self.assertEqual([port['id']], list(self.run_json(
            'check', '--host', 'host1', status=1)))
        self.assertIn('bridge on brq%s by linuxbridge -> ovs on %s by tapmac'
                      % (self.network['id'][:11], self.bridge),
                      self.rebind('host1'))
        self.assert_ours(port, profile=profile)


class PlanTest(MigrateTestCase):

    def test_one_host_and_all(self):
        here, there = self.old_port(), self.old_port(host='host2')
        ours = self.port(self.network, device_id=self.server())
        of_host = self.plan('--host', 'host1')
        self.assertEqual({here['id'], ours['id']}, of_host.keys())
        of_all = self.plan()
        self.assertLess({here['id'], there['id'], ours['id']},
                        of_all.keys() | {''})
        row = of_all[there['id']]
        self.assertEqual(
            {'Port': there['id'], 'Host': 'host2', 'Owner': 'compute:nova',
             'Device': there['device_id'], 'Status': 'ACTIVE',
             'VIF type': 'bridge', 'Driver': 'linuxbridge',
             'Bridge': 'brq' + self.network['id'][:11], 'Fate': 're-bound',
             'New VIF type': None, 'New bridge': self.bridge,
             'Stopped by': []},
            {name: row[name] for name in row if name != 'Notes'})
        self.assertEqual('ovs', of_all[here['id']]['New VIF type'])
        self.assertEqual(('stays', None, []), (
            of_all[ours['id']]['Fate'], of_all[ours['id']]['New VIF type'],
            of_all[ours['id']]['Notes']))

    def test_what_neutron_is_asked(self):
        port = self.old_port(host='host9')
        row = self.plan('--host', 'host9')[port['id']]
        self.assertEqual(('re-bound', None, None), (
            row['Fate'], row['New VIF type'], row['New bridge']))
        row = self.plan('--host', 'host9', '--try')[port['id']]
        self.assertEqual(('bridge', self.bridge), (
            row['New VIF type'], row['New bridge']))
        self.assert_no_trials()

    def test_notes(self):
        port = self.old_port(allowed_address_pairs=[
            {'ip_address': '192.0.2.7', 'mac_address': 'fa:16:3e:00:00:07'}])
        notes = '\n'.join(self.plan('--try', '--host', 'host1')[
            port['id']]['Notes'])
        self.assertIn('nobody enforces its security groups any more: '
                      + port['security_groups'][0], notes)
        self.assertIn('cannot send from fa:16:3e:00:00:07', notes)
        self.assertIn('its TAP stays on brq%s until that bridge is called %s'
                      % (self.network['id'][:11], self.bridge), notes)
        self.assertIn('its host must have Nova 33', notes)
        open_ = self.old_port(port_security_enabled=False, security_groups=[])
        self.assertNotIn('security groups', '\n'.join(self.plan()[
            open_['id']]['Notes']))

    def test_table(self):
        port = self.old_port()
        status, output, _ = self.front.run('plan', '--host', 'host1')
        self.assertEqual(0, status)
        self.assertIn(port['id'], output)
        self.assertIn('re-bound', output)


class CheckTest(MigrateTestCase):

    def check(self, *arguments, status=1):
        return {port: row['Reason'] for port, row in self.run_json(
            'check', *arguments, status=status).items()}

    def test_what_nobody_serves(self):
        ours = self.port(self.network)
        old, served = self.old_port(), self.old_port(host='host2')
        self.agent('Linux bridge', 'host2')
        failed = self.port(self.network, host='elsewhere')
        marked = self.port(self.network, **{
            'binding:profile': {'tapmac-migrate': 'bridge'}})
        unbound = self.port(self.network)
        self.neutron.database.execute(
            'UPDATE neutron.ml2_port_bindings SET vif_type = "unbound", '
            'vif_details = "" WHERE port_id = %s', unbound['id'])
        found = self.check()
        for port, words in (
                (old, 'it is bound by linuxbridge, and no Linux bridge agent '
                      'of its host is alive'),
                (failed, 'no mechanism driver could bind it'),
                (marked, '"tapmac-migrate rebind" was stopped'),
                (unbound, 'has a host and a device, and is not bound')):
            self.assertIn(words, found.pop(port['id']))
        self.assertNotIn(ours['id'], found)
        self.assertNotIn(served['id'], found)
        self.assertEqual([failed['id']],
                         list(self.check('--host', 'elsewhere')))
        self.assertEqual({}, self.check('--host', 'host2', status=0))


class BoundPortsTest(MigrateTestCase):
    """What tapmac-status reads on a compute host."""

    def read(self, neutron, host='host1'):
        path = pathlib.Path(self.useFixture(
            fixtures.TempDir()).path) / 'nova.conf'
        path.write_text('[DEFAULT]\nhost = %s\n[neutron]\n%s' % (
            host, neutron))
        conf = cfg.ConfigOpts()
        conf.register_opt(cfg.StrOpt('host'))
        conf(['--config-file', str(path)], default_config_files=[])
        return bound_ports.read(conf)

    def section(self):
        return ('auth_type = none\nendpoint_override = %s/network\n'
                % self.front.url)

    def test_ports_of_the_host(self):
        old, ours = self.old_port(), self.port(self.network)
        self.old_port(host='host2')
        found = {port.id: (port.binding_vif_type, why)
                 for port, why in self.read(self.section())}
        self.assertEqual({old['id'], ours['id']}, found.keys())
        self.assertEqual(('ovs', None), found[ours['id']])
        self.assertEqual('bridge', found[old['id']][0])
        self.assertIn('no Linux bridge agent', found[old['id']][1])
        self.agent('Linux bridge', 'host2')
        (_, why), = self.read(self.section(), 'host2')
        self.assertIsNone(why)

    def test_nobody_to_ask(self):
        self.assertIsNone(self.read(''))
        self.assertIsNone(bound_ports.read(cfg.ConfigOpts()))

    def test_no_answer(self):
        self.old_port()
        self.front.limit = 0
        self.assertRaises(bound_ports.Unknown, self.read, self.section())


def load_tests(loader, tests, pattern):
    """Leave out what this Neutron has not: nothing is skipped.

    The commands are the same for each Neutron: what they say is asked of one.
    """
    return base.without(
        tests, *([LinuxBridgeAgentTest] if base.NEUTRON > 25 else []),
        *([] if base.NEUTRON > 28 or patience.LONG
          else [PlanTest, CheckTest, BoundPortsTest]),
        *([] if base.AGENT_HOSTS and (base.NEUTRON > 28 or patience.LONG)
          else [AgentTest]))
