# SPDX-License-Identifier: Apache-2.0

"""From neutron-server's REST API to a guest that pings, and all the way back.

Neutron, Nova's own code, libvirtd, QEMU and the kernel are real; see
:mod:`tests.neutron.base` and :mod:`tests.nova.guests` for what is not.
"""

import contextlib
import http.server
import json
import os
import pathlib
import subprocess
import threading
import time
import unittest

import fixtures
from keystoneauth1 import noauth
from keystoneauth1 import session
from neutronclient.v2_0 import client
from nova.network import neutron
from nova.tests.functional.api import client as api_client

from tests import base
from tests import hosts
from tests.nova import base as nova_base
from tests.nova import cloud
from tests.nova import guests
from tests.nova import ping
from tests.nova import test_guests
from tests import patience
from vif_plug_tapmac import opts
from vif_plug_tapmac.wanted import names

#: In a network namespace of the test.
_NEUTRON_PORT, _NOVA_PORT = 9696, 8774
#: How often it is looked whether a guest does not answer.
_TIMES = 3


class _Administrator(noauth.NoAuth):
    """Whoever asks may do everything."""

    def get_headers(self, session, **kwargs):
        return {'X-Roles': 'admin,service'}


class NeutronServer(fixtures.Fixture):
    """neutron-server, and a way for its events to Nova's API.

    :param python: of a Neutron
    :param api: Nova's, as an administrator
    :param more: lines for the section [ml2_tapmac]
    :param has_agents: whether agents can ask it, and be told
    :ivar events: that Neutron has sent
    """

    def __init__(self, python, api, more='', has_agents=False):
        super().__init__()
        self._has_agents = has_agents
        self._python = python
        self._api = api
        self._more = more
        self.events = []

    def _setUp(self):
        self._listen()
        self._process = subprocess.Popen(
            [str(self._python), '-m', 'tests.neutron.server',
             str(_NEUTRON_PORT), str(_NOVA_PORT), self._more,
             'agents' * self._has_agents],
            cwd=base.CHECKOUT, text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE)
        self.addCleanup(self._end)
        if self._process.stdout.readline() != 'started\n':
            raise AssertionError('neutron-server does not start')
        self.client = client.Client(
            session=session.Session(), auth=_Administrator(),
            endpoint_override='http://127.0.0.1:%d' % _NEUTRON_PORT)

    def _listen(self):
        relay = self

        class Handler(http.server.BaseHTTPRequestHandler):

            def do_POST(self):
                events = json.loads(self.rfile.read(
                    int(self.headers['Content-Length'])))
                relay.events += events['events']
                try:
                    status, answer = 200, relay.tell_nova(events)
                except api_client.OpenStackApiException as refused:
                    status, answer = refused.response.status_code, {}
                answer = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header('Content-Type', 'application/json')
                self.send_header('Content-Length', str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *args):
                pass

        server = http.server.ThreadingHTTPServer(
            ('127.0.0.1', _NOVA_PORT), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)

    def execute(self, statement):
        """Change Neutron's database."""
        self._have('execute', statement)

    def restart(self, **changes):
        """Start it again, for now with other values of these options."""
        self._have('restart', changes)

    def start_agent(self, host, namespace):
        """Have a tapmac-agent on a host; return when Neutron knows it."""
        self._have('start_agent', host, '/proc/%d/fd/%d' % (
            os.getpid(), namespace))
        patience.wait_until(
            lambda: self.client.list_agents(host=host)['agents'],
            lambda: 'no agent of %s:\n%s' % (host, self.log_of_agent(host)))

    def log_of_agent(self, host):
        return self._have('log_of_agent', host)

    def start_node(self, host, port, secret):
        """Have DHCP and metadata agents on a host that has a tapmac-agent.

        :param port: of TCP, at which Nova's metadata service listens here
        :param secret: by which that knows who asks for a guest
        :returns: the directory that their logs are in
        """
        return pathlib.Path(self._have('start_node', host, port, secret))

    def restart_part(self, host, part):
        """End a process of Neutron's, or of an agent, and start it again."""
        self._have('restart_part', host, part)

    def log(self):
        """Return what it has said since it was started."""
        return self._have('log')

    def _have(self, *words):
        self._process.stdin.write(json.dumps(words) + '\n')
        self._process.stdin.flush()
        said = self._process.stdout.readline()
        if not said:
            raise AssertionError('%s fails' % (words,))
        return json.loads(said)

    def tell_nova(self, events):
        return self._api.api_post('/os-server-external-events', events,
                                  check_response_status=(200, 207, 404)).body

    def _end(self):
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


class WithNeutron:
    """To be the first class of a :class:`cloud.Cloud`.

    :cvar NEUTRON: its release
    :cvar ML2_TAPMAC: lines for this section of its configuration
    :cvar HAS_AGENTS: whether agents can ask it, and be told
    """

    NEUTRON = 29
    HAS_AGENTS = False
    ML2_TAPMAC = ''

    def setUp(self):
        python = base.CHECKOUT.joinpath(
            '.venv', 'neutron-%d' % self.NEUTRON, 'bin', 'python')
        if (not python.exists()
                and os.environ.get('TAPMAC_NO_SKIP') != '1'):
            self.skipTest('needs %s: run tools/peers.sh' % python)
        super().setUp()
        self.server_of_neutron = self.useFixture(NeutronServer(
            python, self.admin_api, self.ML2_TAPMAC, self.HAS_AGENTS))
        self.client = self.server_of_neutron.client
        self.useFixture(fixtures.MonkeyPatch(
            'nova.network.neutron.get_client',
            lambda context, admin=False: neutron.ClientWrapper(
                self.client, admin=True)))

    def create(self, kind, **fields):
        """Create a resource over REST."""
        create = getattr(self.client, 'create_' + kind)
        return create({kind: dict(
            fields, project_id=self.neutron.tenant_id)})[kind]

    def create_port(self, **provider):
        """Create a port of a new network, which is what the test is about."""
        self.network = self.create('network', name='demo', mtu=self.mtu, **{
            'provider:' + name: value for name, value in provider.items()})
        self.create('subnet', network_id=self.network['id'], ip_version=4,
                    cidr='10.0.0.0/24', enable_dhcp=False)
        self.port = self.create(
            'port', network_id=self.network['id'],
            mac_address='fa:16:3e:00:00:64', fixed_ips=[
                {'ip_address': '10.0.0.100'}])
        self.tap = names.nova_tap_name(self.port['id'])

    def delete_port(self):
        self.client.delete_port(self.port['id'])
        self.client.delete_network(self.network['id'])

    def bindings(self, port=None):
        """Return where a port is bound, and how.

        :returns: for each binding host, status, VIF type and bridge, None
            where it names none
        """
        found = self.client.list_port_bindings(
            (port or self.port)['id'])['bindings']
        return [(each['host'], each['status'], each['vif_type'],
                 each['vif_details'].get('bridge_name'))
                for each in found]

    def assert_declined(self, server, port, host, *words):
        """Expect a live migration to end before anything has moved.

        :param host: where it would go to
        :param words: which Neutron says why in
        """
        before = (self.bindings(port),
                  [host.state() for host in self.hosts.values()])
        source = self.api.get_server(server['id'])['OS-EXT-SRV-ATTR:host']
        self.calls.clear()
        # A cast is a call here.
        with contextlib.suppress(api_client.OpenStackApiException):
            self.api.post_server_action(server['id'], {'os-migrateLive': {
                'host': host, 'block_migration': 'auto'}})
        self.assertEqual('error', self._wait_for_migration_status(
            server, ['error', 'failed', 'completed'])['status'])
        found = self._wait_for_server_parameter(
            server, {'status': 'ACTIVE', 'OS-EXT-STS:task_state': None})
        self.assertEqual(source, found['OS-EXT-SRV-ATTR:host'])
        self._wait_for_instance_action_event(
            server, 'live-migration', 'conductor_live_migrate_instance',
            'error')
        self.assertEqual([], self.calls)
        self.assertEqual(before, (
            self.bindings(port),
            [host.state() for host in self.hosts.values()]))
        for log, said in (
                (self.stdlog.logger.output, (
                    'Binding failed for port %s and host %s.' % (
                        port['id'], host),
                    'Failed to compute_task_migrate_server: No valid host')),
                (self.server_of_neutron.log(), words)):
            for each in said:
                self.assertIn(each, log)


class NeutronTest(WithNeutron, test_guests.Guests, guests.GuestCloud,
                  cloud.OpenVSwitchCloud):

    OPTIONS = {'claim_plugins': ['ovs']}

    def told(self):
        """Return what Neutron has told Nova of the port, in order."""
        return [event['name'].removeprefix('network-vif-')
                for event in self.server_of_neutron.events
                if event.get('tag') == self.port['id']
                and event['name'].startswith('network-vif-')]

    def show_port(self):
        return self.client.show_port(self.port['id'])['port']

    def test_from_rest_to_ping_and_back(self):
        self.lay_network()
        self.join_hosts()
        before = self.states()
        self.create_port(network_type='flat', physical_network='physnet1')
        server = self.boot_guest()
        tap = self.assert_well(server)
        port = self.show_port()
        self.assertEqual(('ACTIVE', 'ovs', 'host1', base.BRIDGE), (
            port['status'], port['binding:vif_type'], port['binding:host_id'],
            port['binding:vif_details']['bridge_name']))

        self._reboot_server(server, hard=True)
        self.assert_well(server, fresh=True)

        # The target's plug fails, and the binding there goes again.
        self.lose_nothing(self.fail_to_plug_at_target, server)
        self.assertEqual(['host1'], [
            binding['host'] for binding in
            self.client.list_port_bindings(port['id'])['bindings']])
        self.assertEqual('ACTIVE', self.show_port()['status'])

        self._live_migrate(server)
        self.assert_gone('host1')
        arrived = self.assert_well(server, host='host2', fresh=True)
        self.assertEqual(tap.mac, arrived.mac)
        port = self.show_port()
        self.assertEqual(('ACTIVE', 'host2'),
                         (port['status'], port['binding:host_id']))

        # A process of Neutron's collects them for some time.
        patience.wait_until(lambda: len(self.told()) >= 3,
                            lambda: 'Nova is told only %s' % self.told())
        self.assertEqual(['plugged', 'unplugged', 'plugged'], self.told()[:3])
        self._delete_server(server)
        self.delete_port()
        self.assertEqual(before, self.states())

        self.boot_on_a_vlan()
        self.assertEqual(before, self.states())

    def boot_on_a_vlan(self):
        """Boot a guest on a VLAN, as far as this kernel goes."""
        self.flags(bridge_uplinks={base.BRIDGE: 'eth1'}, group=opts.GROUP)
        self.create_port(network_type='vlan', physical_network='physnet1',
                         segmentation_id=200)
        has_vlans = hosts.kernel_knows_vlans()
        server = self.boot_guest(
            expected_state='ACTIVE' if has_vlans else 'ERROR')
        self.assertIn("bridge_name='br100-200'", self.stdlog.logger.output)
        if has_vlans:
            self.assert_runs(port=self.port, master='br100-200')
            self.assertEqual('br100-200', self.host.master('eth1.200'))
        else:
            self.assertIn('eth1.200: creating the device of VLAN 200 on eth1 '
                          'failed with EOPNOTSUPP', self.stdlog.logger.output)
        self._delete_server(server)
        self.delete_port()
        if has_vlans:
            for name in 'br100-200', 'eth1.200':
                self.host.delete(name)


class AgentTest(WithNeutron, test_guests.Guests, guests.GuestCloud,
                cloud.OpenVSwitchCloud):
    """A guest whose security groups tapmac-agent has, by a real queue."""

    OPTIONS = {'claim_plugins': ['ovs'], 'firewall': 'agent'}
    HAS_AGENTS = True

    def test_answers_exactly_while_a_rule_allows_it(self):
        self.lay_network()
        self.server_of_neutron.start_agent('host1', self.host.namespace)
        self.create_port(network_type='flat', physical_network='physnet1')
        # Not every kernel knows the connections of bridges.
        group = self.create('security_group', name='demo', stateful=False)
        self.client.update_port(self.port['id'], {'port': {
            'security_groups': [group['id']]}})
        # As nova-compute is by default: it starts no guest before.
        self.flags(vif_plugging_timeout=int(patience.HANG))
        server = self.boot_guest()
        self.assertEqual('ACTIVE', self.client.show_port(
            self.port['id'])['port']['status'])
        self.console(server)
        self.assert_silent()

        rule = self.create(
            'security_group_rule', security_group_id=group['id'],
            direction='ingress', ethertype='IPv4', protocol='icmp')
        self.wait_until_it_answers(True)
        self.client.delete_security_group_rule(rule['id'])
        self.wait_until_it_answers(False)
        self.assert_silent()
        self._delete_server(server)

    def answers(self):
        """Return whether the guest answers a ping, however slow it is.

        It answers ARP, too, in whatever order it is asked. The ping may have
        to wait for that itself, so what counts is the second time.
        """
        address = self.address(self.port)
        with self.uplink.entered():
            pings = ping.Pings(address)
        with contextlib.closing(pings):
            pings.go_on(1)
            for _ in range(2):
                self.assertIn('Received 1 ', guests.run_on(
                    self.uplink, 'busybox', 'arping', '-f', '-w',
                    '%d' % patience.HANG, '-I', 'eth1', address))
            return pings.is_answered()

    def assert_silent(self):
        for _ in range(_TIMES):
            self.assertFalse(self.answers())

    def wait_until_it_answers(self, wanted):
        began = time.monotonic()
        patience.wait_until(
            lambda: self.answers() == wanted,
            lambda: 'it answers: %s\n%s' % (
                not wanted, self.server_of_neutron.log_of_agent('host1')))
        print('It answers after %.1f s: %s' % (
            time.monotonic() - began, wanted))


def load_tests(loader, tests, pattern):
    """Load them where Nova is the newest; nothing is to be skipped."""
    if nova_base.NOVA < 34:
        return unittest.TestSuite()
    return unittest.TestSuite(map(loader.loadTestsFromTestCase, (
        NeutronTest, AgentTest)))
