# SPDX-License-Identifier: Apache-2.0

"""tapmac-migrate with the APIs of a real Nova and a real neutron-server."""

import contextlib
import io
import json
import unittest

import fixtures
from keystoneauth1 import noauth
from keystoneauth1 import session
from nova import context
from nova import objects
from openstack import connection

from tests import base
from tests.nova import base as nova_base
from tests.nova import cloud
from tests.nova import test_flows
from tests.nova import test_neutron
from vif_plug_tapmac.migrate import main


class _Administrator(noauth.NoAuth):
    """One whom Keystone would give the roles that the documentation names."""

    def get_headers(self, session, **kwargs):
        return {'X-Roles': 'admin,service', 'X-Auth-User': 'admin',
                'X-User-Id': 'admin', 'X-Auth-Project-Id': 'admin'}


class MigrateTest(test_neutron.WithNeutron, test_flows.Guests,
                  cloud.OpenVSwitchCloud):

    OPTIONS = {'claim_plugins': ['ovs']}
    mtu = 1450

    def setUp(self):
        super().setUp()
        neutron = self.client.httpclient.endpoint_override
        found = connection.Connection(
            session=session.Session(_Administrator(endpoint=neutron)),
            network_endpoint_override=neutron,
            compute_endpoint_override=self.admin_api.base_url)
        self.useFixture(fixtures.MonkeyPatch(
            'openstack.connect', lambda **_: found))
        # The log is Nova's here.
        self.useFixture(fixtures.MonkeyPatch(
            'cliff.app.App.configure_logging', lambda _: None))

    def run_migrate(self, *arguments, status=0):
        """Return what it writes to its standard output."""
        output, errors = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(output), \
                contextlib.redirect_stderr(errors):
            found = main.MigrateApp().run(list(arguments))
        self.assertEqual(status, found, output.getvalue() + errors.getvalue())
        return output.getvalue()

    def boot_with_port(self):
        self.create_port(network_type='flat', physical_network='physnet1')
        server = self._create_server(networks=[{'port': self.port['id']}],
                                     host='host1')
        self.assertEqual('ovs', self.vif(server)['type'])
        return server

    def vif(self, server):
        """Return the port as Nova's cache has it."""
        vif, = objects.Instance.get_by_uuid(
            context.get_admin_context(), server['id'],
            expected_attrs=['info_cache']).get_network_info()
        return vif

    def leave_to_linux_bridge(self, server):
        """Have Neutron's binding, and Nova's cache, as before tapmac."""
        self.server_of_neutron.execute(
            'UPDATE neutron.ml2_port_bindings SET vif_type = "bridge", '
            'vif_details = \'{"port_filter": true}\'')
        self.server_of_neutron.execute(
            'UPDATE neutron.ml2_port_binding_levels SET '
            'driver = "linuxbridge"')
        instance = objects.Instance.get_by_uuid(
            context.get_admin_context(), server['id'],
            expected_attrs=['info_cache'])
        cache = instance.info_cache
        cache.network_info[0]['type'] = 'bridge'
        cache.network_info = cache.network_info  # It does not see changes.
        cache.save()

    def test_running_server(self):
        server = self.boot_with_port()
        self.leave_to_linux_bridge(server)
        self.assertEqual('bridge', self.vif(server)['type'])
        row, = json.loads(self.run_migrate(
            'plan', '--host', 'host1', '-f', 'json'))
        self.assertEqual(
            (self.port['id'], server['id'], 're-bound', []),
            (row['Port'], row['Device'], row['Fate'], row['Stopped by']))
        said = self.run_migrate('rebind', 'host1')
        self.assertIn('-> ovs on %s by tapmac' % base.BRIDGE, said)
        self.assertIn('Neutron has these as they should be, and Nova, too',
                      said)
        self.assertEqual('ovs', self.vif(server)['type'])
        # Nova has an interface of it that is plugged, and can do with it.
        self._reboot_server(server, hard=True)
        self.migrate_live_once_the_bridge_is_renamed(server)
        self._delete_server(server)

    def migrate_live_once_the_bridge_is_renamed(self, server):
        """From a host where a port is on a bridge of another name, and back.

        Until it is bound there as it would be anywhere now, it stays.
        """
        self.server = server
        self.start_compute('host2')
        self.server_of_neutron.restart(
            bridge_mappings='physnet1:br300,physnet2:br200')
        self.assert_declined(
            server, self.port, 'host2', 'does not bind port %s on host host2 '
            'beside its binding on host1: Nova would have it plugged into the '
            'bridge of that binding, %s, and here it is br300' % (
                self.port['id'], base.BRIDGE))
        tap = self.assert_runs()
        self.hosts['host1'].rename(base.BRIDGE, 'br300')
        self.run_migrate('rebind', 'host1')
        self.assertEqual(tap.index, self.assert_runs(master='br300').index)
        for source, target in ('host1', 'host2'), ('host2', 'host1'):
            self._live_migrate(server)
            self.assert_gone(source)
            self.assert_runs(target, master='br300')
            self.assertEqual([(target, 'ACTIVE', 'ovs', 'br300')],
                             self.bindings())
            interface = self.interface(target)
            self.assertEqual(('ethernet', 'no'), (
                interface.get('type'),
                interface.find('target').get('managed')))

    def test_server_that_nova_is_busy_with(self):
        server = self.boot_with_port()
        self.leave_to_linux_bridge(server)
        instance = objects.Instance.get_by_uuid(
            context.get_admin_context(), server['id'])
        instance.task_state = 'rebooting_hard'
        instance.save()
        self.assertIn('Nova is busy with its server (rebooting_hard)',
                      self.run_migrate('rebind', 'host1', status=1))
        instance.task_state = None
        instance.save()
        self._delete_server(server)


def load_tests(loader, tests, pattern):
    """Load them where Nova is the newest; nothing is to be skipped."""
    if nova_base.NOVA < 34:
        return unittest.TestSuite()
    return loader.loadTestsFromTestCase(MigrateTest)
