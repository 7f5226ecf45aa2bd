# SPDX-License-Identifier: Apache-2.0

"""A guest that has nothing but what it is told by DHCP, and by metadata.

Nova, with its metadata service, Neutron with its DHCP and metadata agents,
dnsmasq, haproxy, libvirtd, QEMU and the kernel are real; see
:mod:`tests.nova.test_neutron`.
"""

import contextlib
import json
import re
import socketserver
import threading
import unittest
from wsgiref import simple_server

import fixtures
from nova.api.openstack import wsgi_app  # noqa: F401 (the next needs it)
from nova.api import wsgi

from tests.nova import base as nova_base
from tests.nova import cloud
from tests.nova import guests
from tests.nova import test_guests
from tests.nova import test_neutron
from tests import patience
from vif_plug_tapmac.wanted import names

#: By which Nova knows who asks for a guest.
_SECRET = 'between Nova and Neutron'
_ADDRESS = '10.0.0.150'
#: What udhcpc runs in the guest. The route to metadata is one of those.
_SCRIPT = """\
#!/bin/sh
[ "$1" = bound ] || exit 0
ip address add $ip/$mask dev eth0
set -- $staticroutes
while [ $# -gt 1 ]; do
    ip route replace $1 via $2
    shift 2
done
"""
#: That are restarted, one after the other.
_PARTS = ('libvirtd', 'nova-compute', 'QEMU', 'database', 'server', 'workers',
          'queue', 'dnsmasq', 'haproxy', 'dhcp', 'metadata', 'tapmac-agent',
          'daemon')


class MetadataService(fixtures.Fixture):
    """Nova's own, at 127.0.0.1.

    :ivar port: of TCP
    """

    def _setUp(self):
        class Server(socketserver.ThreadingMixIn, simple_server.WSGIServer):
            daemon_threads = True

        class Handler(simple_server.WSGIRequestHandler):

            def log_message(self, *args):
                pass

        server = simple_server.make_server(
            '127.0.0.1', 0, wsgi.Loader().load_app('metadata'), Server,
            Handler)
        self.port = server.server_port
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)


class DhcpTest(test_neutron.WithNeutron, test_guests.Guests,
               guests.GuestCloud, cloud.OpenVSwitchCloud):

    OPTIONS = {'claim_plugins': ['ovs'], 'firewall': 'agent'}
    HAS_AGENTS = True

    def test_guest_keeps_both_through_a_restart_of_every_process(self):
        self.lay_network()
        self.flags(service_metadata_proxy=True,
                   metadata_proxy_shared_secret=_SECRET, group='neutron')
        self.flags(metadata_cache_expiration=0, group='api')
        self.start_host()
        self.create_port()
        self.flags(vif_plugging_timeout=int(patience.HANG))
        server = self.boot_guest()
        self.assertEqual('', server['config_drive'])
        self.assert_served(server, 'it has booted')
        for part in _PARTS:
            self.restart(server, part)
            self.assert_served(server, part)
        self._delete_server(server)
        self.delete_port()

    def restart(self, server, part):
        if part == 'libvirtd':
            self.host.kill_libvirtd()
            self.host.start_libvirtd()
        elif part == 'nova-compute':
            self.restart_compute_service('host1')
        elif part == 'QEMU':
            self._reboot_server(server, hard=True)
            self.consoles.pop(server['id']).close()
        else:
            self.server_of_neutron.restart_part('host1', part)

    def start_host(self):
        neutron = self.server_of_neutron
        neutron.start_agent('host1', self.host.namespace)
        logs = neutron.start_node(
            'host1', self.useFixture(MetadataService()).port, _SECRET)

        def show(_):
            # They go with who writes them.
            with contextlib.suppress(OSError):
                for log in logs.glob('*.log'):
                    print(log.read_text()[-9000:])
        self.addOnException(show)

    def create_port(self):
        self.network = self.create(
            'network', name='demo', mtu=self.mtu, **{
                'provider:network_type': 'flat',
                'provider:physical_network': 'physnet1'})
        # That of DHCP itself has one, too, and may be sooner.
        subnet = self.create(
            'subnet', network_id=self.network['id'], ip_version=4,
            cidr='10.0.0.0/24', allocation_pools=[
                {'start': '10.0.0.10', 'end': '10.0.0.99'}])
        # Not every kernel knows the connections of bridges.
        group = self.create('security_group', name='demo', stateful=False)
        self.create('security_group_rule', security_group_id=group['id'],
                    direction='ingress', ethertype='IPv4', protocol='tcp')
        self.port = self.create(
            'port', network_id=self.network['id'],
            security_groups=[group['id']],
            fixed_ips=[{'subnet_id': subnet['id'], 'ip_address': _ADDRESS}])
        self.tap = names.nova_tap_name(self.port['id'])

    def assert_served(self, server, after):
        """Expect a guest to get address and metadata, both anew."""
        console = self.console(server)
        lines = ' '.join("'%s'" % line for line in _SCRIPT.splitlines())
        console.run("printf '%%s\\n' %s > /bin/lease; chmod 755 /bin/lease"
                    % lines)

        said = []

        def address():
            said.append(console.run(
                'ip -4 address flush dev eth0; udhcpc -i eth0 -f -n -q -t 4 '
                '-T 1 -O staticroutes -s /bin/lease 2>&1 || :'))
            return console.run('ip -4 -o address show dev eth0')

        def metadata():
            # Its wget looks for the port of HTTP in vain, and crashes.
            said.append(console.run(
                "printf 'GET /openstack/latest/meta_data.json HTTP/1.0\\r\\n"
                "Host: metadata\\r\\n\\r\\n' | nc -w 10 169.254.169.254 80 "
                '2>&1; echo'))
            found = re.search(r'{.*}', said[-1])
            return found and json.loads(found[0])
        seen = patience.wait_until(
            address, lambda: 'no address after %s: %s' % (after, said[-3:]))
        self.assertIn(' %s/24 ' % _ADDRESS, seen)
        found = patience.wait_until(
            metadata, lambda: 'no metadata after %s: %s' % (after, said[-3:]))
        self.assertEqual(server['id'], found['uuid'])
        print('CHECK %s' % after, flush=True)


def load_tests(loader, tests, pattern):
    """Load it where Nova is the newest, in the long form: it takes minutes."""
    if nova_base.NOVA < 34 or not patience.LONG:
        return unittest.TestSuite()
    return tests
