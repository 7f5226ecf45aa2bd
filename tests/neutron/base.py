# SPDX-License-Identifier: Apache-2.0

"""neutron-server as it runs in production, with our driver, and its company.

Real are uWSGI with two processes, Neutron and MariaDB. They speak through
Unix sockets in a directory of the test. Neutron 25 runs as its own
neutron-server instead: with uWSGI and Eventlet, Nova hears of a port when the
next request comes. Not real are Keystone (there is none), the message queue
(nobody is there who would answer), and Nova, of which only the part is here
that takes events.
"""

import atexit
import contextlib
import functools
from http import client as http_client
from http import server as http_server
from importlib import metadata
import itertools
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import types
import typing
import unittest
import uuid

import fixtures
import pymysql
import pymysql.cursors

from tests import base
from tests import hosts
from tests import patience

#: Where tools/neutron.sh unpacks it.
_MARIADB = base.CHECKOUT / '.venv' / 'mariadb' / 'root' / 'usr'
#: How often we look, in seconds.
_PAUSE = 0.05
#: After how many seconds Nova should have heard what there is for it.
_NUDGE = 5.0
#: Of the server.
PROCESSES = 2
#: Which Neutron this is, as in 29.
NEUTRON = int(metadata.version('neutron').split('.')[0])

# What came before ours there, and binds where its agent is. The last one binds
# nothing here, having no agent; without it there are no trunks.
_DRIVERS = ('linuxbridge,' if NEUTRON < 26 else '') + 'tapmac,openvswitch'
#: What Neutron calls a project in its options.
PROJECT = 'tenant' if NEUTRON < 28 else 'project'

NEUTRON_CONF = """
[DEFAULT]
bind_host = 127.0.0.1
bind_port = %(port)d
api_workers = %(processes)d
rpc_workers = 1
rpc_state_report_workers = 0
auth_strategy = noauth
core_plugin = ml2
service_plugins = trunk,qos,segments,log
transport_url = %(queue)s
state_path = %(directory)s
api_paste_config = %(prefix)s/etc/neutron/api-paste.ini
# For so many seconds events for Nova are collected; Neutron's default is 2.
send_events_interval = 1
rpc_response_timeout = %(patience)d
[database]
connection = mysql+pymysql://root@localhost/neutron?unix_socket=%(database)s\
&connect_timeout=%(patience)d
pool_timeout = %(patience)d
[oslo_concurrency]
lock_path = %(directory)s
[nova]
auth_type = none
endpoint = http://127.0.0.1:%(nova)d
[experimental]
# For the driver of that name, as long as there is one.
linuxbridge = true
[ml2]
type_drivers = flat,vlan,vxlan
%(project)s_network_types =
mechanism_drivers = %(drivers)s
extension_drivers = qos,port_security
[ml2_type_flat]
flat_networks = *
[ml2_type_vlan]
network_vlan_ranges = physnet1,physnet2,physnet3
[ml2_type_vxlan]
vni_ranges = 1:1000
[ml2_tapmac]
hosts = host?
bridge_hosts = host8,host9
full_hosts = host6,host7
bridge_mappings = physnet1:br100,physnet2:br200
%(agent_hosts)s
%(more)s
"""

#: Those with tapmac-agent; older ones have none.
AGENT_HOSTS = 'host[3457]' if NEUTRON >= 28 else ''


def configured_by(path: pathlib.Path) -> dict[str, str]:
    """Return the environment in which neutron-server reads this file."""
    return {'OS_NEUTRON_CONFIG_DIR': str(path.parent),
            'OS_NEUTRON_CONFIG_FILES': path.name}


class Process(fixtures.Fixture):
    """A process that ends with the test; nobody else's is ever touched.

    :param log: what it says
    :param network: the namespace that it is in; None for that of the test
    :param mounts: likewise, the process whose mounts it has
    :param name: what it is called when it does not start; None: its program
    """

    def __init__(self, *command: str | pathlib.Path, log: pathlib.Path,
                 network: int | None = None, mounts: int | None = None,
                 name: str | None = None, **environment: str) -> None:
        self._command = command
        self._name = name or command[0]
        self._environment = environment
        self._network, self._mounts = network, mounts
        self.log = log

    def _setUp(self) -> None:
        with self.log.open('w') as log:
            self.process = subprocess.Popen(
                list(map(str, self._command)), stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, preexec_fn=self._begin,
                env=dict(os.environ, PYTHONWARNINGS='ignore',
                         **self._environment))
        self.addCleanup(self._end)

    def _begin(self) -> None:
        hosts.die_with_parent()
        if self._network is not None:
            hosts.enter(self._network)
        if self._mounts is not None:
            hosts.enter_mounts(self._mounts)

    def _end(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(patience.HANG)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def wait_for(self, condition: typing.Callable[[], bool]) -> None:
        patience.wait_until(
            lambda: condition() or self.process.poll() is not None,
            self._describe, _PAUSE)
        if not condition():
            raise AssertionError(self._describe())

    def _describe(self) -> str:
        return '%s does not start:\n%s' % (
            self._name, self.log.read_text()[-20000:])


class Database(fixtures.Fixture):
    """A MariaDB with an empty database ``neutron``."""

    @staticmethod
    def missing() -> str | None:
        if not (_MARIADB / 'sbin' / 'mariadbd').exists():
            return 'needs MariaDB: tools/neutron.sh unpacks it, on Debian'
        return None

    def _setUp(self) -> None:
        directory = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        self.socket = directory / 'socket'
        (directory / 'data').mkdir()
        share = _MARIADB / 'share' / 'mysql'
        self._mariadb = Process(
            _MARIADB / 'sbin' / 'mariadbd', '--no-defaults',
            *(['--user=root'] if os.geteuid() == 0 else []),
            '--datadir=%s' % (directory / 'data'),
            '--socket=%s' % self.socket,
            '--pid-file=%s' % (directory / 'pid'),
            '--skip-networking', '--skip-grant-tables',
            '--lc-messages-dir=%s' % share,
            '--character-sets-dir=%s' % (share / 'charsets'),
            *('--%s-timeout=%d' % (name, patience.HANG) for name in (
                'connect', 'net-read', 'net-write', 'innodb-lock-wait')),
            # Nothing here needs to outlive a power failure.
            '--innodb-flush-log-at-trx-commit=0', '--innodb-fast-shutdown=2',
            log=directory / 'log', name='MariaDB')
        self._start()
        self.addCleanup(lambda: self._mariadb.cleanUp())
        self.execute('CREATE DATABASE neutron CHARACTER SET utf8mb4')

    def _start(self) -> None:
        self._mariadb.setUp()
        self._mariadb.wait_for(self._answers)

    def _answers(self) -> bool:
        # It is bound before somebody listens there.
        try:
            with contextlib.closing(self._connect()):
                return True
        except pymysql.OperationalError:
            return False

    def restart(self) -> None:
        """Start it again, with all that it had."""
        # Or what it has not written yet is nowhere.
        self.execute('SET GLOBAL innodb_fast_shutdown = 1')
        self._mariadb.cleanUp()
        self._start()

    def execute(self, statement: str, *values: typing.Any,
                ) -> list[dict[str, typing.Any]]:
        """Return the rows that a statement has, if any."""
        with contextlib.closing(self._connect()) as connection:
            cursor = connection.cursor(pymysql.cursors.DictCursor)
            cursor.execute(statement, values)
            return list(cursor.fetchall())

    @contextlib.contextmanager
    def locked(self, table: str) -> typing.Iterator[None]:
        """Have whoever reads a table, or writes there, wait meanwhile."""
        with contextlib.closing(self._connect()) as connection:
            connection.cursor().execute('LOCK TABLES %s WRITE' % table)
            yield

    def copy(self, source: str, target: str) -> None:
        """Have a database be what another one is, as by a dump of it."""
        with contextlib.closing(self._connect()) as connection:
            cursor = connection.cursor()

            def run(statement: str) -> typing.Any:
                cursor.execute(statement)
                return cursor.fetchall()

            # Tables come before those that they refer to.
            run('SET foreign_key_checks = 0')
            run('DROP DATABASE IF EXISTS ' + target)
            run('CREATE DATABASE %s CHARACTER SET utf8mb4' % target)
            run('USE ' + target)
            for table, in run('SHOW TABLES IN ' + source):
                (_, definition), = run('SHOW CREATE TABLE %s.%s' % (
                    source, table))
                run(definition)
                run('INSERT INTO %s SELECT * FROM %s.%s' % (
                    table, source, table))

    def _connect(self) -> 'pymysql.Connection[typing.Any]':
        return pymysql.connect(
            user='root', unix_socket=str(self.socket), autocommit=True,
            connect_timeout=round(patience.HANG))


class Nova(fixtures.Fixture):
    """What listens to Neutron's events for servers, and keeps them."""

    def _setUp(self) -> None:
        # To load much of Neutron makes "http.server" another module, whose
        # threads never run here: that is eventlet's.
        assert vars(http_server)['socketserver'].socket is socket
        self._events: list[dict[str, str]] = []
        kept = self._events

        class Handler(http_server.BaseHTTPRequestHandler):

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(
                    int(self.headers['Content-Length'])))
                kept.extend(body['events'])
                answer = json.dumps({'events': [
                    dict(event, code=200) for event in body['events']]})
                self.send_response(200)
                self.send_header('Content-Type', 'application/json')
                self.send_header('Content-Length', str(len(answer)))
                self.end_headers()
                self.wfile.write(answer.encode())

            def log_message(self, *arguments: typing.Any) -> None:
                pass

        server = http_server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        self.port: int = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)

    def events(self, port_id: str) -> list[str]:
        """Return what it heard of a port that it may wait for, in order.

        As in "vif-plugged". That a port "changed" nobody waits for.
        """
        return [event['name'].removeprefix('network-')
                for event in self._events if event.get('tag') == port_id
                and event['name'].startswith('network-vif-')]


class _Connection(http_client.HTTPConnection):

    def __init__(self, address: pathlib.Path | int, loopback: str) -> None:
        super().__init__('localhost', timeout=patience.HANG)
        self._address = address
        self._loopback = loopback

    def connect(self) -> None:
        if isinstance(self._address, int):
            self.sock = socket.create_connection(
                (self._loopback, self._address), self.timeout)
            return
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._address))


#: Of :func:`free_port`.
_kept: list[socket.socket] = []


def free_port() -> int:
    """Return a port of TCP at 127.0.0.1 that is ours as long as we live.

    The kernel gives it to nobody who asks for any, as others do meanwhile.
    Who asks for this one has it, by SO_REUSEADDR, which servers say. Source:
    net/ipv4/inet_connection_sock.c, inet_csk_get_port
    """
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(('127.0.0.1', 0))
    _kept.append(holder)
    port: int = holder.getsockname()[1]
    return port


class Refused(Exception):
    """What a request ended with that was not granted.

    :ivar status: of HTTP
    :ivar type: of Neutron's error
    """

    def __init__(self, status: int, body: str) -> None:
        try:
            error = json.loads(body)['NeutronError']
        except (KeyError, ValueError):
            error = {'type': '', 'message': body}
        super().__init__(error['message'])
        self.status = status
        self.type: str = error['type']


def uwsgi(module: str, address: pathlib.Path | int, processes: int,
          prefix: pathlib.Path = pathlib.Path(sys.prefix),
          ) -> list[str | pathlib.Path]:
    """Return the command of a server, as OpenStack's are run today.

    As in Neutron's "WSGI Usage with the Neutron API".

    :param module: that has "application"
    :param address: a Unix socket, or a port of TCP at 127.0.0.1
    """
    return [
        prefix / 'bin' / 'uwsgi', '--http-socket', '127.0.0.1:%d' % address
        if isinstance(address, int) else address,
        '--add-header', 'Connection: close',
        '--module', module + ':application', '--master',
        '--lazy-apps', '--enable-threads', '--processes', str(processes),
        '--thunder-lock', '--die-on-term', '--no-orphans',
        '--buffer-size', '65535', '--socket-timeout', '%d' % patience.HANG]


class Neutron(fixtures.Fixture):
    """neutron-server with a database and a Nova of its own.

    :param more: lines for the section [ml2_tapmac]
    :param port: of TCP, to listen on at 127.0.0.1; None for a Unix socket
    :param nova_port: of TCP, where a Nova listens at 127.0.0.1; None for one
        of its own
    :param processes: of the server
    """

    #: What it is configured by.
    TEMPLATE = NEUTRON_CONF
    #: Where its messages for agents go.
    transport_url = 'fake://'
    #: Of the machine that it is on, for those who ask.
    loopback = '127.0.0.1'

    def __init__(self, more: str = '', port: int | None = None,
                 nova_port: int | None = None,
                 processes: int = PROCESSES) -> None:
        self._more = more
        self._processes = processes
        self._port = port
        self._nova_port = nova_port
        #: Which Neutron it is, and where it is installed.
        self._release, self._prefix = NEUTRON, pathlib.Path(sys.prefix)

    def _setUp(self) -> None:
        nova_port = self._nova_port
        if nova_port is None:
            self.nova = self.useFixture(Nova())
            nova_port = self.nova.port
        self.database = self.useFixture(Database())
        directory = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        self._address: pathlib.Path | int = directory / 'api'
        if self._port is not None:
            self._address = self._port
        elif NEUTRON < 26:
            self._address = free_port()
        self.configuration = directory / 'neutron.conf'
        self.configuration.write_text(self.TEMPLATE % {
            'directory': directory, 'prefix': sys.prefix, 'more': self._more,
            'nova': nova_port, 'database': self.database.socket,
            'patience': patience.HANG, 'drivers': _DRIVERS,
            'project': PROJECT, 'processes': self._processes,
            'queue': self.transport_url,
            'agent_hosts': 'agent_hosts = ' + AGENT_HOSTS,
            'port': self._address if isinstance(self._address, int) else 0})
        self.upgrade_database()
        self._log = directory / 'log'
        self._start()
        self.addCleanup(lambda: self._server.cleanUp())

    def upgrade_database(self, *arguments: str) -> None:
        """Have the database as this Neutron wants it.

        :param arguments: of neutron-db-manage; none: those that do it
        """
        subprocess.run(
            [self._prefix / 'bin' / 'neutron-db-manage', '--config-file',
             self.configuration, *(arguments or ('upgrade', 'heads'))],
            check=True, capture_output=True,
            env=dict(os.environ, PYTHONWARNINGS='ignore'))

    def move_to(self, release: int, prefix: pathlib.Path, configuration: str,
                *arguments: str,
                before: typing.Callable[[], None] = lambda: None) -> None:
        """Have another release go on with this database.

        :param prefix: where that is installed
        :param configuration: what it is configured by from then on
        :param arguments: of its neutron-db-manage
        :param before: called first, when the former one has stopped
        """
        self._server.cleanUp()
        before()
        self.configuration.write_text(configuration.replace(
            str(self._prefix), str(prefix)))
        self._release, self._prefix = release, prefix
        self.upgrade_database(*arguments)
        self._start()

    def _start(self) -> None:
        self._server = Process(*self._command(), log=self._log,
                               name='neutron-server',
                               **configured_by(self.configuration))
        self._server.setUp()
        self._server.wait_for(self._is_up)

    def _command(self) -> list[str | pathlib.Path]:
        if self._release < 26:
            return [self._prefix / 'bin' / 'neutron-server', '--config-file',
                    self.configuration]
        return uwsgi('neutron.wsgi.api', self._address, self._processes,
                     self._prefix)

    def _is_up(self) -> bool:
        text = self.log()
        if 'CRITICAL' in text or 'DAMN' in text:
            raise AssertionError(text[-20000:])
        return len(re.findall('WSGI app 0 |wsgi starting up',
                              text)) == self._processes

    def log(self) -> str:
        return self._log.read_text()

    def process_of(self, request: str) -> str:
        """Return the id of the process that answered a request.

        :param request: method and path; there is only one like it
        """
        pattern = re.compile((
            r'(\d+) INFO neutron\.api\.wsgi .* "%s HTTP' if NEUTRON < 26
            else r'\[pid: (\d+)\|.* %s => ') % re.escape(request))
        found = patience.wait_until(
            lambda: pattern.search(self.log()),
            lambda: 'no %s in %s' % (request, self.log()[-20000:]), _PAUSE)
        assert found is not None
        return found[1]

    def restart(self, **changes: str) -> None:
        """Start it again.

        :param changes: lines of its configuration, by their options: what is
            after the equals sign for as long as it runs now
        """
        self._server.cleanUp()
        before = self.configuration.read_text()
        text = before
        for option, value in changes.items():
            text = re.sub(r'(?m)^%s = .*$' % option,
                          lambda found: '%s = %s' % (option, value), text)
        self.configuration.write_text(text)
        try:
            self._start()
        finally:
            self.configuration.write_text(before)

    def request(self, method: str, path: str,
                body: typing.Any = None) -> typing.Any:
        """Return the answer to a request of an administrator and of Nova."""
        status, text = self.forward(method, '/v2.0/' + path,
                                    body and json.dumps(body).encode())
        if status >= 400:
            raise Refused(status, text.decode())
        return json.loads(text) if text else None

    def forward(self, method: str, path: str, body: bytes | None,
                headers: typing.Mapping[str, str] = types.MappingProxyType({}),
                ) -> tuple[int, bytes]:
        """Return status and body of an answer.

        :param headers: that differ from those of one who may do all
        """
        with contextlib.closing(_Connection(
                self._address, self.loopback)) as connection:
            connection.request(
                method, path, body, dict(
                    {'Accept': 'application/json',
                     'X-Roles': 'admin,service'}, **headers,
                    **({'Content-Type': 'application/json'} if body else {})))
            response = connection.getresponse()
            return response.status, response.read()


_shared: dict[type[Neutron], Neutron | Exception] = {}


def shared(kind: type[Neutron] = Neutron) -> Neutron:
    """Return the neutron-server of this process, started for the first."""
    if kind not in _shared:
        neutron = kind()
        try:
            neutron.setUp()
        except Exception as error:
            # The next test would wait as long for the same.
            _shared[kind] = error
        else:
            _shared[kind] = neutron
            atexit.register(neutron.cleanUp)
    found = _shared[kind]
    if isinstance(found, Exception):
        raise found
    return found


def without(tests: unittest.TestSuite,
            *classes: type[unittest.TestCase]) -> unittest.TestSuite:
    """Return the tests of a module that are of none of these classes."""
    return unittest.TestSuite(
        test for suite in tests
        for test in typing.cast(unittest.TestSuite, suite)
        if not isinstance(test, classes))


class NeutronTestCase(base.TestCase):
    """A test with a neutron-server that others use before and after it."""

    _vlans = itertools.count(100)

    def setUp(self) -> None:
        super().setUp()
        missing = Database.missing()
        if missing:
            self.cannot_run(missing)
        self.neutron = self.find_neutron()

    def find_neutron(self) -> Neutron:
        return shared()

    def create(self, kind: str, **fields: typing.Any) -> typing.Any:
        """Create a resource that goes away with the test."""
        path = 'qos/policies' if kind == 'policy' else kind + 's'
        # In paths there are hyphens, in bodies there are none.
        kind = kind.replace('-', '_')
        made = self.neutron.request('POST', path, {
            kind: dict(fields, project_id='demo')})[kind]
        self.addCleanup(self._delete, '%s/%s' % (path, made['id']))
        return made

    def group(self, *rules: dict[str, typing.Any],
              **fields: typing.Any) -> str:
        """Create a security group that has these rules and no others.

        :returns: its id
        """
        made = self.create('security-group', name='demo', **fields)
        for each in made['security_group_rules']:
            self.neutron.request('DELETE',
                                 'security-group-rules/' + each['id'])
        if rules:
            self.add_rules(made['id'], *rules)
        id_: str = made['id']
        return id_

    def add_rules(self, group: str, *rules: dict[str, typing.Any],
                  ) -> list[str]:
        """Give a security group rules; return their ids."""
        return [rule['id'] for rule in self.neutron.request(
            'POST', 'security-group-rules', {'security_group_rules': [{
                'security_group_id': group, 'project_id': 'demo',
                'direction': 'ingress', 'ethertype': 'IPv4', **each}
                for each in rules]})['security_group_rules']]

    def _delete(self, path: str) -> None:
        try:
            self.neutron.request('DELETE', path)
        except Refused as refused:
            if refused.status != 404:
                raise

    def flat_network(self, physnet: str = 'physnet1',
                     **fields: typing.Any) -> typing.Any:
        return self.create('network', **{
            'name': 'demo', 'provider:network_type': 'flat',
            'provider:physical_network': physnet}, **fields)

    def vlan_network(self, vlan: int | None = None,
                     physnet: str = 'physnet1',
                     **fields: typing.Any) -> typing.Any:
        return self.create('network', **{
            'name': 'demo', 'provider:network_type': 'vlan',
            'provider:physical_network': physnet,
            'provider:segmentation_id': vlan or next(self._vlans)}, **fields)

    def port(self, network: typing.Any, host: str | None = 'host1',
             **fields: typing.Any) -> typing.Any:
        """Create the port of a guest, bound to a host or to none."""
        return self.create('port', **dict(
            {'network_id': network['id'], 'device_id': base.INSTANCE.uuid,
             'device_owner': 'compute:nova', 'fixed_ips': []},
            **({'binding:host_id': host} if host else {}), **fields))

    def show(self, port: typing.Any) -> typing.Any:
        return self.neutron.request('GET', 'ports/' + port['id'])['port']

    def update(self, port: typing.Any, **fields: typing.Any) -> typing.Any:
        return self.neutron.request('PUT', 'ports/' + port['id'],
                                    {'port': fields})['port']

    def agent(self, kind: str, host: str, **configuration: typing.Any) -> str:
        """Have an agent that Neutron takes for alive; return its id.

        :param kind: as in "DHCP"
        """
        agent = str(uuid.uuid4())
        self.neutron.database.execute(
            'INSERT INTO neutron.agents (id, agent_type, `binary`, topic, '
            'host, created_at, started_at, heartbeat_timestamp, '
            'configurations) VALUES (%s, %s, "demo", "demo", %s, '
            'UTC_TIMESTAMP(), UTC_TIMESTAMP(), '
            'DATE_ADD(UTC_TIMESTAMP(), INTERVAL 1 DAY), %s)',
            agent, kind + ' agent', host, json.dumps(configuration))
        self.addCleanup(self.neutron.database.execute,
                        'DELETE FROM neutron.agents WHERE id = %s', agent)
        return agent

    def ovs_agent(self, host: str, physnet: str = 'physnet1') -> None:
        """Have the driver openvswitch bind ports on a host."""
        self.agent('Open vSwitch', host, integration_bridge='br-int',
                   bridge_mappings={physnet: 'br-ex'})

    def linux_bridge_agent(self, host: str, physnet: str = 'physnet1') -> str:
        """Have the driver linuxbridge, where there is one, bind ports there.

        :returns: the agent's id
        """
        return self.agent('Linux bridge', host,
                          interface_mappings={physnet: 'eth1'})

    def rows(self, *ports: typing.Any) -> list[dict[str, typing.Any]]:
        """Return what the database has of these ports and their bindings."""
        return [row for port in ports for table, column, order in (
            ('ports', 'id', 'id'), ('ml2_port_bindings', 'port_id', 'host'),
            ('ml2_port_binding_levels', 'port_id', 'host'),
            ('ipallocations', 'port_id', 'ip_address'),
            ('qos_port_policy_bindings', 'port_id', 'policy_id'))
            for row in self.neutron.database.execute(
                'SELECT * FROM neutron.%s WHERE %s = %%s ORDER BY %s' % (
                    table, column, order), port['id'])]

    def leave_to_linux_bridge(self, port: typing.Any) -> None:
        """Have a port bound as Neutron's former driver leaves it."""
        self.neutron.database.execute(
            'UPDATE neutron.ml2_port_bindings SET vif_type = "bridge", '
            'vif_details = %s WHERE port_id = %s',
            json.dumps({'connectivity': 'l2', 'port_filter': True}),
            port['id'])
        self.neutron.database.execute(
            'DELETE FROM neutron.ml2_port_binding_levels WHERE port_id = %s',
            port['id'])
        segment, = self.neutron.database.execute(
            'SELECT id FROM neutron.networksegments WHERE network_id = %s',
            port['network_id'])
        self.neutron.database.execute(
            'INSERT INTO neutron.ml2_port_binding_levels (port_id, host, '
            'level, driver, segment_id) VALUES (%s, %s, 0, "linuxbridge", %s)',
            port['id'], port['binding:host_id'], segment['id'])
        self.neutron.database.execute(
            'UPDATE neutron.ports SET status = "ACTIVE" WHERE id = %s',
            port['id'])

    def bind_second(self, port: typing.Any, host: str = 'host2',
                    **fields: typing.Any) -> typing.Any:
        """Do what Nova does before a live migration."""
        return self.neutron.request(
            'POST', 'ports/%s/bindings' % port['id'],
            {'binding': dict(fields, host=host)})['binding']

    def activate(self, port: typing.Any, host: str) -> None:
        self.neutron.request('PUT', 'ports/%s/bindings/%s/activate'
                             % (port['id'], host))

    def wait_for_events(self, port: typing.Any, *names: str) -> None:
        """Wait until Nova has heard these events of a port, in this order."""
        def heard() -> list[str]:
            return self.neutron.nova.events(port['id'])
        self._wait_for_nova(
            lambda: heard() == list(names),
            lambda: 'Nova has heard %s, and not %s' % (heard(), names))

    def _wait_for_nova(self, condition: typing.Callable[[], bool],
                       what: typing.Callable[[], str]) -> None:
        """Wait until Nova has heard something.

        A process of Neutron that has just sent events may keep the next one
        until there is another: BatchNotifier looks whether there are more
        before it lets others send. So there is another, now and then.
        """
        next_ = time.monotonic() + _NUDGE

        def is_so() -> bool:
            nonlocal next_
            if condition():
                return True
            if time.monotonic() > next_:
                self.nudge()
                next_ = time.monotonic() + _NUDGE
            return False
        patience.wait_until(is_so, what, _PAUSE)

    def nudge(self) -> None:
        """Have one of Neutron's processes tell Nova something."""
        self.update(self.port(self.nudged_network, host=None),
                    **{'binding:host_id': 'host1'})

    @functools.cached_property
    def nudged_network(self) -> typing.Any:
        # One: there is a quota, and the reason why nothing comes is wanted.
        return self.vlan_network()

    def assert_events(self, port: typing.Any, *names: str) -> None:
        """Expect these events of a port, in this order, and no more.

        To be asked for after each step: uWSGI's processes collect events each
        for itself, and may send what came later first.
        """
        self._wait_for_all_events()
        self.assertEqual(list(names), self.neutron.nova.events(port['id']))

    def _wait_for_all_events(self) -> None:
        """Wait until Nova has heard all that there was for it.

        A process sends them in their order. So each is given one more.
        """
        network = self.vlan_network()
        given: dict[str, str] = {}

        def give() -> bool:
            # First all, then each: they take turns.
            for port in [self.port(network, host=None) for _ in range(
                    PROCESSES)]:
                self.update(port, **{'binding:host_id': 'host1'})
                given[self.neutron.process_of(
                    'PUT /v2.0/ports/' + port['id'])] = port['id']
            return len(given) == PROCESSES
        patience.wait_until(give, 'one process answers all')
        self._wait_for_nova(
            lambda: all(map(self.neutron.nova.events, given.values())),
            lambda: 'Nova hears nothing more')

    def assert_refused(self, *words: str, status: int = 400,
                       request: typing.Callable[[], typing.Any]) -> None:
        """Expect a request to be refused, with these words."""
        refused = self.assertRaises(Refused, request)
        self.assertEqual((status, 'NotEnforced'),
                         (refused.status, refused.type), str(refused))
        for word in words:
            self.assertIn(word, str(refused))
