# SPDX-License-Identifier: Apache-2.0

"""A cloud of Nova's own code, in this process, on hosts of the real kernel.

From the REST API through scheduler, conductor, compute manager and libvirt
driver to os-vif, our plugin and the kernel, all is what runs in production.
Not real are libvirtd with QEMU (:mod:`tests.nova.libvirt_contract`), disks,
Neutron, Glance and Cinder (Nova's own fixtures), and that there is one
process: each host is a network namespace, and a thread is there for as long as
the nova-compute or the libvirt of that host works on links.
"""

import contextlib
import functools
import logging
import os
import sys

import fixtures
from nova import context
from nova.db.main import api as db_api
from nova.db.main import models
from nova.tests import fixtures as nova_fixtures
from nova.tests.functional.api import client
from nova.tests.functional.libvirt import base as functional_base
from nova.virt.libvirt import driver as libvirt_driver
from nova.virt.libvirt import utils as libvirt_utils
from nova.virt.libvirt import vif as libvirt_vif
import os_vif
from oslo_config import cfg

from tests import bound_port
from tests import compute_host
from tests import hosts
from tests.nova import base as nova_base
from tests.nova import libvirt_contract
from tests import patience
from vif_plug_tapmac import opts
from vif_plug_tapmac import privsep

#: How often we look at what Nova does, in seconds.
_PAUSE = 0.05


class Cloud(functional_base.ServersTestBase):
    """A test with Nova on "host1", and on "host2" once that is started.

    :ivar calls: what each nova-compute called of its VIF driver, in order, as
        pairs of host and name
    """

    ADMIN_API = True
    microversion = 'latest'

    #: Of ``[os_vif_tapmac]``.
    OPTIONS = {}
    #: What Neutron says of a port that it bound.
    VIF_TYPE = None
    VIF_DETAILS = {}

    HOSTS = ('host1', 'host2')

    #: The major versions of Nova that have such ports.
    NOVAS = ()

    def setUp(self):
        missing = hosts.missing_privilege()
        if missing and os.environ.get('TAPMAC_NO_SKIP') != '1':
            self.skipTest(missing)
        # Importing Nova's tests sets up logging, and DEBUG buries the rest.
        self.useFixture(fixtures.FakeLogger(level=logging.INFO))
        # What happens on no host of the test happens on none of ours.
        nowhere = self.useFixture(hosts.Host())
        nowhere.set('lo', state='up')  # Eventlet talks to its own threads.
        self.hosts = {name: self.useFixture(self._make_host(name))
                      for name in self.HOSTS}
        self.connections = {}
        self._configure()
        self._replace_libvirt()
        self.calls = []
        self._watch_vif_driver()
        super().setUp()
        self.useFixture(fixtures.MonkeyPatch(
            'nova.virt.libvirt.LibvirtDriver._create_image', _create_image))
        self._be_patient()
        self._load_plugins()
        for port in self.neutron.port_1, self.neutron.port_2:
            self.bind(port)
        self.start_compute('host1')

    def tearDown(self):
        # What goes on after a test meets the next one.
        patience.wait_until(lambda: self._unfinished_actions() == 0,
                            'Nova goes on and on', _PAUSE)
        super().tearDown()

    def _unfinished_actions(self):
        with context.target_cell(context.get_admin_context(),
                                 self.cell_mappings['cell1']) as cell:
            return _count_unfinished_actions(cell)

    def _make_host(self, name):
        return compute_host.ComputeHost()

    def _configure(self):
        # Where pip put it.
        self.flags(api_paste_config=os.path.join(
            sys.prefix, 'etc', 'nova', 'api-paste.ini'), group='wsgi')
        # Nova makes warnings of its libraries errors, for its own good.
        self.useFixture(fixtures.MonkeyPatch(
            'nova.tests.fixtures.WarningsFixture', fixtures.Fixture))

    def _be_patient(self):
        """Have Nova, and what its tests wait for, meet no bound but ours."""
        self.flags(rpc_response_timeout=round(patience.HANG),
                   service_down_time=round(patience.HANG))
        self.useFixture(fixtures.MonkeyPatch(
            'nova.context.CELL_TIMEOUT', patience.HANG))
        self.useFixture(fixtures.MonkeyPatch(
            'nova.tests.fixtures.notifications.NotificationFixture'
            '.wait_for_versioned_notifications', _wait_for_notifications))

    def _replace_libvirt(self):
        self.useFixture(fixtures.MonkeyPatch(
            'nova.tests.fixtures.LibvirtFixture',
            functools.partial(nova_fixtures.LibvirtFixture,
                              stub_os_vif=False)))
        self.useFixture(fixtures.MonkeyPatch(
            'nova.virt.libvirt.LibvirtDriver._get_instance_disk_info',
            lambda *args, **kwargs: []))
        self.useFixture(fixtures.MonkeyPatch(
            'nova.tests.fixtures.libvirt.Domain', libvirt_contract.Domain))
        self.useFixture(fixtures.MonkeyPatch(
            'nova.tests.fixtures.libvirt.Connection',
            functools.partial(libvirt_contract.Connection, hosts=self.hosts,
                              peers=self.connections)))

    def _load_plugins(self):
        """Have os-vif load its plugins as nova-compute does."""
        opts.group(cfg.CONF)
        # The udev of this machine does not see the hosts.
        self.flags(udev_timeout=0, **self.OPTIONS, group=opts.GROUP)
        privsep.vif_plug.set_client_mode(False)
        nova_base.unwrap_driver()
        self.addCleanup(nova_base.unwrap_driver)
        os_vif.initialize(reset=True)

    def reconfigure(self, **options):
        """Start nova-compute of host1 again with these options of ours."""
        self.flags(**options, group=opts.GROUP)
        nova_base.unwrap_driver()
        os_vif.initialize(reset=True)
        self.restart_compute_service('host1')

    def _watch_vif_driver(self):
        """Have plug and unplug happen on their hosts, and remembered."""
        for name in 'plug', 'unplug', 'get_config':
            self.useFixture(fixtures.MonkeyPatch(
                'nova.virt.libvirt.vif.LibvirtGenericVIFDriver.' + name,
                self._on_host(getattr(
                    libvirt_vif.LibvirtGenericVIFDriver, name))))

        self.useFixture(fixtures.MonkeyPatch(
            'nova.virt.libvirt.LibvirtDriver._cleanup_resize',
            self._knowing_its_host(
                libvirt_driver.LibvirtDriver._cleanup_resize)))

    def _knowing_its_host(self, method):
        """Have the configuration name the host; the process has but one."""
        @functools.wraps(method)
        def wrapped(driver, *args, **kwargs):
            before = cfg.CONF.host
            self.flags(host=driver._host.get_connection().getHostname())
            try:
                return method(driver, *args, **kwargs)
            finally:
                self.flags(host=before)
        return wrapped

    def _on_host(self, method):
        @functools.wraps(method)
        def wrapped(driver, *args, **kwargs):
            host = driver.host.get_connection().getHostname()
            self.calls.append((host, method.__name__))
            with self.hosts[host].entered():
                return method(driver, *args, **kwargs)
        return wrapped

    def bind(self, port, **details):
        """Have Neutron know a port, to be bound by our route."""
        self.neutron._ports[port['id']] = dict(port, **{
            'binding:vif_type': self.VIF_TYPE,
            'binding:vif_details': dict(self.VIF_DETAILS, **details)})

    def start_compute(self, hostname='compute1', *args, **kwargs):
        started = super().start_compute(hostname, *args, **kwargs)
        if hostname in self.connections:  # Those of the stand-in only.
            self.connections[hostname].driver = self.computes[hostname].driver
        return started

    def flavor(self, extra_specs):
        """Return the id of a new flavor with two CPUs."""
        return self._create_flavor(extra_spec=extra_specs, disk=1,
                                   ephemeral=0)

    def live_migrate_in_vain(self, server, status):
        """Try to migrate a guest live; wait until Nova has given up.

        :param status: the server's then; Nova sets it last, when the
            migration has already failed and there is no task any more
        """
        self.api.post_server_action(server['id'], {'os-migrateLive': {
            'host': None, 'block_migration': 'auto'}})
        self._wait_for_migration_status(server, ['error', 'failed'])
        self._wait_for_server_parameter(
            server, {'status': status, 'OS-EXT-STS:task_state': None})

    def act_in_vain(self, server, action):
        """Have Nova do what it cannot; wait until it has given up."""
        # A cast is a call here, and most casts that fail raise.
        with contextlib.suppress(client.OpenStackApiException):
            self.api.post_server_action(server['id'], {action: {}})
        self._wait_for_server_parameter(
            server, {'status': 'ERROR', 'OS-EXT-STS:task_state': None})

    def reset_server_state(self, server):
        """Have Nova believe that a guest is well."""
        self.api.post_server_action(
            server['id'], {'os-resetState': {'state': 'active'}})

    # Nova's tests look twice a second, and five seconds at most.

    def _wait_for_server_parameter(self, server, expected_params,
                                   *args, **kwargs):
        return _wait_for(
            lambda: self.api.get_server(server['id']),
            lambda found: expected_params.items() <= found.items())

    def _wait_until_deleted(self, server):
        def is_deleted():
            try:
                found = self.api.get_server(server['id'])
            except client.OpenStackApiNotFoundException:
                return True
            if server.get('status') != 'ERROR':
                self.assertNotEqual('ERROR', found['status'], found)
            return False
        patience.wait_until(is_deleted, 'it is not deleted', _PAUSE)

    def _wait_for_instance_action_event(self, server, action_name, event_name,
                                        event_result):
        """Wait for an event of an action, and return it."""
        def look():
            for action in self.api.get_instance_actions(server['id']):
                if action['action'] == action_name:
                    for event in self.api.get_instance_action_details(
                            server['id'], action['request_id'])['events']:
                        result = (event['result'] or '').lower()
                        if (event['event'], result) == (event_name,
                                                        event_result):
                            return event
            return None
        return patience.wait_until(
            look, 'no %s of %s' % (event_name, action_name), _PAUSE)

    def _wait_for_migration_status(self, server, expected_statuses):
        """Wait for the latest migration of the server.

        One that was to be completed, and has failed, is not waited for.
        """
        failed = ({'error', 'failed'} if 'completed' in expected_statuses
                  else set())
        found = _wait_for(
            lambda: max(self.api.api_get(
                '/os-migrations?instance_uuid=' + server['id']
            ).body['migrations'], key=lambda migration: migration['id']),
            lambda found: found['status'] in {*expected_statuses, *failed})
        self.assertIn(found['status'], expected_statuses, found)
        return found


@db_api.pick_context_manager_reader
def _count_unfinished_actions(cell):
    return cell.session.query(models.InstanceActionEvent).filter_by(
        finish_time=None).count()


def _wait_for(look, is_right):
    """Look until it is right; return what is seen then."""
    seen = []

    def look_once():
        seen[:] = [look()]
        return is_right(*seen)
    patience.wait_until(
        look_once, lambda: 'this goes on and on: %s' % seen, _PAUSE)
    return seen[0]


def _wait_for_notifications(fixture, event_type, n_events=1, timeout=None):
    """Do what Nova's fixture does, for as long as it takes."""
    return fixture.fake_versioned_notifier.wait_for_versioned_notifications(
        event_type, n_events, patience.HANG)


class BridgeCloud(Cloud):
    """With ports that are bound as Linux bridge agents did."""

    VIF_TYPE = 'bridge'
    VIF_DETAILS = {'bridge_name': 'br100', 'connectivity': 'l2'}
    NOVAS = (31, 32, 33)


class OpenVSwitchCloud(Cloud):
    """With ports that our mechanism driver bound."""

    VIF_TYPE = 'ovs'
    VIF_DETAILS = bound_port.BINDING['binding:vif_details']
    NOVAS = (33, 34)


def _create_image(driver, context, instance, *args, **kwargs):
    """Make no disks, only where they would be: a resize moves that."""
    os.makedirs(libvirt_utils.get_instance_path(instance), exist_ok=True)
    return False, False
