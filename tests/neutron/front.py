# SPDX-License-Identifier: Apache-2.0

"""Where an operator's commands reach a cloud, and how they lose it.

Requests for Neutron go to the real one, with the roles that Keystone would
have found. There is no Nova here: what commands ask of it is answered as far
as they need it; tests/nova has a real one.
"""

import contextlib
import io
import json
import pathlib
import threading
import typing
import urllib.parse

import fixtures

from tests.neutron import base

_CLOUDS = """
clouds:
  demo:
    auth_type: none
    auth: {endpoint: "http://127.0.0.1:%(port)d"}
    network_endpoint_override: "http://127.0.0.1:%(port)d/network/v2.0"
    compute_endpoint_override: "http://127.0.0.1:%(port)d/compute/v2.1"
"""


class Nova:
    """What is shown of servers; each has the ports that Neutron has of it.

    :ivar microversion: the newest
    :ivar servers: by id, what differs from an idle server
    :ivar events: that it was given
    """

    def __init__(self, neutron: base.Neutron) -> None:
        self._neutron = neutron
        self.microversion = '2.103'
        self.servers: dict[str, dict[str, typing.Any]] = {}
        self.events: list[dict[str, str]] = []
        self.takes_events = True

    def answer(self, method: str, path: list[str], query: dict[str, str],
               body: typing.Any) -> tuple[int, typing.Any]:
        if not path:
            return 200, {'version': {
                'id': 'v2.1', 'status': 'CURRENT', 'min_version': '2.1',
                'version': self.microversion, 'links': [
                    {'rel': 'self', 'href': '/compute/v2.1'}]}}
        if path == ['servers', 'detail']:
            return 200, {'servers': [
                self._server(id_) for id_, server in self.servers.items()
                if query.get('host') in (None, server['host'])]}
        if path[-1] == 'os-interface':
            return 200, {'interfaceAttachments': [
                {'port_id': port['id'], 'port_state': port['status'],
                 'net_id': port['network_id'], 'fixed_ips': [],
                 'mac_addr': port['mac_address']}
                for port in self._ports(path[1])]}
        assert (method, path) == ('POST', ['os-server-external-events']), path
        if not self.takes_events:
            return 403, {'forbidden': {'code': 403, 'message': 'Policy'}}
        self.events += body['events']
        return 200, {'events': [
            dict(event, status='completed', code=200)
            if event['server_uuid'] in self.servers
            else dict(event, status='failed', code=404)
            for event in body['events']]}

    def _server(self, id_: str) -> dict[str, typing.Any]:
        server = self.servers[id_]
        return {'id': id_, 'name': 'demo', 'status': 'ACTIVE',
                'OS-EXT-SRV-ATTR:host': server['host'],
                'OS-EXT-STS:task_state': server.get('task_state'),
                'addresses': {'demo': [
                    {'addr': '192.0.2.9', 'version': 4,
                     'OS-EXT-IPS-MAC:mac_addr': port['mac_address']}
                    for port in self._ports(id_)]}}

    def _ports(self, id_: str) -> list[typing.Any]:
        found: list[typing.Any] = self._neutron.request(
            'GET', 'ports?device_id=' + id_)['ports']
        return found


class Front(fixtures.Fixture):
    """The door of the cloud.

    :ivar requests: methods and paths, in order
    :ivar limit: how many requests there may be, None: any number; then the
        door is shut, as for a command that was killed
    :ivar answers_last: whether the last of these reaches the cloud; its answer
        never comes back
    """

    def __init__(self, neutron: base.Neutron) -> None:
        self._neutron = neutron
        self.nova = Nova(neutron)
        self.requests: list[str] = []
        self.limit: int | None = None
        self.answers_last = False
        #: Of the user.
        self.roles = 'admin,service'
        #: Of what is made without one that is said; None: that is refused.
        self.project: str | None = None
        #: Called before each request of a method and the start of a path.
        self.meanwhile: dict[str, typing.Callable[[], typing.Any]] = {}

    def _setUp(self) -> None:
        front = self

        class Handler(base.http_server.BaseHTTPRequestHandler):

            protocol_version = 'HTTP/1.1'

            def do_GET(self) -> None:
                body = self.rfile.read(
                    int(self.headers.get('Content-Length', 0)))
                front.requests.append('%s %s' % (self.command, self.path))
                last = (front.limit is not None
                        and len(front.requests) >= front.limit)
                if last and not (front.answers_last
                                 and len(front.requests) == front.limit):
                    self.close_connection = True
                    return
                status, text = front.answer(
                    self.command, self.path, body, self.headers)
                if last:
                    self.close_connection = True
                    return
                self.send_response(status)
                self.send_header('Content-Type', 'application/json')
                self.send_header('Content-Length', str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_POST = do_PUT = do_DELETE = do_GET

            def log_message(self, *arguments: typing.Any) -> None:
                pass

        server = base.http_server.ThreadingHTTPServer(
            ('127.0.0.1', 0), Handler)
        server.daemon_threads = True
        server.block_on_close = False
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        self.url = 'http://127.0.0.1:%d' % server.server_address[1]
        clouds = pathlib.Path(
            self.useFixture(fixtures.TempDir()).path) / 'clouds.yaml'
        clouds.write_text(_CLOUDS % {'port': server.server_address[1]})
        self.useFixture(fixtures.EnvironmentVariable(
            'OS_CLIENT_CONFIG_FILE', str(clouds)))
        self.useFixture(fixtures.EnvironmentVariable('OS_CLOUD', 'demo'))

    def answer(self, method: str, target: str, body: bytes,
               headers: typing.Any) -> tuple[int, bytes]:
        for start, act in list(self.meanwhile.items()):
            if ('%s %s' % (method, target)).startswith(start):
                del self.meanwhile[start]
                act()
        url = urllib.parse.urlsplit(target)
        _, service, _, *path = url.path.rstrip('/').split('/')
        if service == 'network' and not path:
            # Neutron itself has this one level higher.
            return 200, json.dumps({'version': {
                'id': 'v2.0', 'status': 'CURRENT', 'links': [
                    {'rel': 'self', 'href': url.path}]}}).encode()
        if service == 'network':
            return self._neutron.forward(
                method, target.removeprefix('/network'),
                self._owned(body) if method == 'POST' else body,
                {'X-Roles': self.roles, **{
                    name: headers[name] for name in ('If-Match',)
                    if headers.get(name)}})
        status, answer = self.nova.answer(
            method, path, dict(urllib.parse.parse_qsl(url.query)),
            json.loads(body or 'null'))
        return status, json.dumps(answer).encode()

    def _owned(self, body: bytes) -> bytes:
        """Return what is to be made, of a project: Keystone would say it."""
        made = json.loads(body)
        for each in made.values():
            if self.project and isinstance(each, dict):
                each.setdefault('project_id', self.project)
        return json.dumps(made).encode()

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Run tapmac-migrate; return exit status, output and errors."""
        from vif_plug_tapmac.migrate import main
        self.requests.clear()
        output, errors = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(output), \
                contextlib.redirect_stderr(errors):
            status = main.MigrateApp().run(list(arguments))
        return status, output.getvalue(), errors.getvalue()
