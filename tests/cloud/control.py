# SPDX-License-Identifier: Apache-2.0

"""What a cloud has beside its hosts: databases, queue, APIs, schedulers."""

import os
import pathlib
import re
import sys

import fixtures

from tests import base as tests_base
from tests.cloud import progress
from tests import documents
from tests.neutron import base
from tests.neutron import cloud

#: Of TCP at 127.0.0.1, on each host, too.
NEUTRON, NOVA, METADATA, PLACEMENT, GLANCE = 9696, 8774, 8775, 8778, 9292
#: For the shell only.
KEYSTONE = 5000
#: Between the metadata agent and Nova.
SECRET = 'demo'

#: Seconds until who says nothing is taken for dead, and until nobody waits for
#: a port any more; None: as Neutron and Nova have it. On a busy machine all of
#: that takes longer, and nothing is wrong.
PATIENCE = os.environ.get('TAPMAC_CLOUD_PATIENCE')

_BIN = pathlib.Path(sys.prefix) / 'bin'

#: Beside it are the lines of the pages.
_NEUTRON_CONF = """
[DEFAULT]
auth_strategy = keystone
api_paste_config = %(directory)s/api-paste.ini
core_plugin = ml2
service_plugins =
transport_url = %(queue)s
state_path = %(directory)s
rpc_workers = 1
rpc_state_report_workers = 0
# There is one.
dhcp_agents_per_network = 1
[database]
connection = mysql+pymysql://root@localhost/neutron?unix_socket=%(database)s
[nova]
auth_type = none
endpoint = http://127.0.0.1:%(nova)d/v2.1
[oslo_concurrency]
lock_path = %(directory)s
%(more)s
"""
_PATIENT_NEUTRON = """
[DEFAULT]
agent_down_time = {0}
"""
_PATIENT_NOVA = """
[DEFAULT]
service_down_time = {0}
vif_plugging_timeout = {0}
"""

#: What is in [ml2_tapmac], and what of other sections is beside it.
ML2_CONF = documents.block(
    documents.PROVIDER, 'mechanism_drivers', 'ini') + 'firewall = agent\n'
#: Also of nova-compute, which does without a database.
NOVA_CONF = """
[DEFAULT]
transport_url = %(queue)s
state_path = %(directory)s
rpc_response_timeout = 180
compute_driver = libvirt.LibvirtDriver
[wsgi]
api_paste_config = %(directory)s/api-paste.ini
[neutron]
auth_type = none
endpoint_override = http://127.0.0.1:{neutron}
service_metadata_proxy = true
metadata_proxy_shared_secret = {secret}
[placement]
auth_type = admin_token
token = admin
endpoint = http://127.0.0.1:{placement}
endpoint_override = http://127.0.0.1:{placement}
[glance]
endpoint_override = http://127.0.0.1:{glance}
[oslo_concurrency]
lock_path = %(directory)s
[conductor]
workers = 1
[scheduler]
workers = 1
discover_hosts_in_cells_interval = 2
%(more)s
""".format(neutron=NEUTRON, secret=SECRET, placement=PLACEMENT, glance=GLANCE)
if PATIENCE:
    NOVA_CONF += _PATIENT_NOVA.format(PATIENCE)
_DATABASES = """
[api_database]
connection = mysql+pymysql://root@localhost/nova_api?unix_socket=%(database)s
[database]
connection = mysql+pymysql://root@localhost/nova?unix_socket=%(database)s
"""
_PLACEMENT_CONF = """
[api]
auth_strategy = noauth2
[placement_database]
connection = mysql+pymysql://root@localhost/placement?unix_socket=%(database)s
"""
_GLANCE_CONF = """
[DEFAULT]
enabled_backends = files:file
[paste_deploy]
flavor = keystone
config_file = %(directory)s/glance-api-paste.ini
[database]
connection = mysql+pymysql://root@localhost/glance?unix_socket=%(database)s
[glance_store]
default_backend = files
[files]
filesystem_store_datadir = %(directory)s/images
[oslo_concurrency]
lock_path = %(directory)s
"""

#: What makes the tables of each, and tells Nova's API of its one cell.
_SYNC = {
    'placement': 'placement-manage --config-file {0}/placement.conf db sync',
    'Glance': 'glance-manage --config-file {0}/glance-api.conf db sync',
    'Nova': ' && '.join('nova-manage --config-file {0}/nova.conf ' + each
                        for each in (
                            'api_db sync',
                            'cell_v2 map_cell0 --database_connection {1}',
                            'db sync', 'cell_v2 create_cell --name cell1'))}
_CELL0 = 'mysql+pymysql://root@localhost/nova_cell0?unix_socket=%s'


def write_paste(service: str, name: str, directory: pathlib.Path) -> None:
    """Write how a service is put together, without Keystone."""
    text = (pathlib.Path(sys.prefix) / 'etc' / service / name).read_text()
    text, count = re.subn(
        r'(?m)^(paste\.filter_factory =) keystonemiddleware\..*$',
        r'\1 tests.cloud.user:filter_factory', text)
    assert count == 1, '%s of %s has no Keystone' % (name, service)
    (directory / name).write_text(text)


class Control(cloud.Cloud):
    """All of it; it begins with Neutron, and Neutron with the database.

    :ivar directory: where its files are
    """

    TEMPLATE = _NEUTRON_CONF

    def __init__(self) -> None:
        # Without the lines of Cloud, which are for tests.
        base.Neutron.__init__(
            self, ML2_CONF + (
                _PATIENT_NEUTRON.format(PATIENCE) if PATIENCE else ''),
            port=NEUTRON, nova_port=NOVA, processes=1)

    def _setUp(self) -> None:
        self.directory = pathlib.Path(
            self.useFixture(fixtures.TempDir()).path)
        self.useFixture(fixtures.EnvironmentVariable(
            'PYTHONPATH', str(tests_base.CHECKOUT)))
        self.useFixture(fixtures.EnvironmentVariable(
            'PATH', '%s:%s' % (_BIN, os.environ['PATH'])))
        # Nova's new way, which is to be the only one.
        self.useFixture(fixtures.EnvironmentVariable(
            'OS_NOVA_DISABLE_EVENTLET_PATCHING', '1'))
        with progress.step('MariaDB, RabbitMQ, databases, neutron-server'):
            super()._setUp()
        with progress.step('placement, Glance, Nova'):
            self._start_services()

    def upgrade_database(self, *arguments: str) -> None:
        """Have all databases made, each beside the others."""
        values = {'directory': self.directory, 'queue': self.transport_url,
                  'database': self.database.socket, 'more': ''}
        for name in 'nova_api', 'nova', 'nova_cell0', 'placement', 'glance':
            self.database.execute(
                'CREATE DATABASE %s CHARACTER SET utf8mb4' % name)
        for name, text in (('nova', NOVA_CONF + _DATABASES),
                           ('placement', _PLACEMENT_CONF),
                           ('glance-api', _GLANCE_CONF)):
            (self.directory / (name + '.conf')).write_text(text % values)
        write_paste('neutron', 'api-paste.ini', self.configuration.parent)
        write_paste('nova', 'api-paste.ini', self.directory)
        write_paste('glance', 'glance-api-paste.ini', self.directory)
        syncs = {name: self._run(
            'databases of ' + name, 'sh', '-c', command.format(
                self.directory, "'%s'" % _CELL0 % self.database.socket))
            for name, command in _SYNC.items()}
        super().upgrade_database(*arguments)
        for name, each in syncs.items():
            if each.process.wait():
                raise AssertionError('%s: its databases are not made:\n%s' % (
                    name, each.log.read_text()))

    def _start_services(self) -> None:
        """Start all else, one beside the other; then wait for each."""
        services = [
            self._serve('who is there for Keystone', 'tests.cloud.user',
                        KEYSTONE),
            self._serve('placement', 'placement.wsgi.api', PLACEMENT),
            self._serve('glance-api', 'glance.wsgi.api', GLANCE),
            self._serve('nova-api', 'nova.wsgi.osapi_compute', NOVA),
            self._serve('nova-metadata', 'nova.wsgi.metadata', METADATA)]
        workers = {
            name: self._run(name, _BIN / ('nova-' + name), '--config-file',
                            self.directory / 'nova.conf')
            for name in ('conductor', 'scheduler')}
        for each in services:
            each.wait_for(lambda: 'WSGI app 0 ' in each.log.read_text())
        for name, each in workers.items():
            each.wait_for(lambda: self.broker.consumers(name) > 0)

    def _serve(self, name: str, module: str, port: int) -> base.Process:
        return self._run(
            name, *base.uwsgi(module, port, processes=1), '--need-app',
            **{'OS_%s_CONFIG_DIR' % service: str(self.directory)
               for service in ('NOVA', 'PLACEMENT', 'GLANCE')})

    def _run(self, name: str, *command: str | pathlib.Path,
             **environment: str) -> base.Process:
        """Start a program that goes on beside us."""
        return self.useFixture(base.Process(
            *command, log=self.directory / (name.replace(' ', '-') + '.log'),
            name=name, **environment))
