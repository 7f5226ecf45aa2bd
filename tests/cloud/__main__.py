# SPDX-License-Identifier: Apache-2.0

"""Have a cloud, and a shell in it, until that ends; see tools/cloud.sh.

To be run in namespaces of its own for mounts and processes, by the Python that
has all of OpenStack that is needed.
"""

import argparse
import os
import pathlib
import select
import subprocess
import sys
import traceback
import typing

import fixtures
import openstack

from tests.cloud import compute
from tests.cloud import control
from tests.cloud import progress
from tests.cloud import user
from tests import guest_image
from tests import hosts
from tests import patience
from vif_plug_tapmac.kernel import agent_connections

#: The wire of the data centre; this shell has the address of the gateway.
_WIRE, _GATEWAY = 'wire', '192.0.2.1'
#: Hosts among themselves.
_MANAGEMENT = 'management'
#: Its VLAN 200, for hosts whose kernel has no VLANs.
_VLAN_WIRE, _VLAN = 'wire200', 200

_CLOUDS = """
clouds:
  demo:
    auth_type: none
    auth: {endpoint: "http://127.0.0.1:%(nova)d/v2.1"}
    compute_endpoint_override: "http://127.0.0.1:%(nova)d/v2.1"
    image_endpoint_override: "http://127.0.0.1:%(glance)d"
    network_endpoint_override: "http://127.0.0.1:%(neutron)d"
    identity_endpoint_override: "http://127.0.0.1:%(keystone)d/v3"
    identity_api_version: "3"
    compute_default_microversion: "2.30"
"""
#: Of the kernel of guests; a busy machine has it find no timer, or none that
#: ticks.
_GUEST = 'console=ttyS0 quiet panic=-1 no_timer_check dhcp'
#: In bytes, of a disk that no guest reads.
_DISK = 1 << 20
_MEMORY = 256
#: Lines of the log of a service that does not start.
_SHOWN = 30


class Cloud(fixtures.Fixture):
    """All of it, in a network namespace that this thread is in."""

    def _setUp(self) -> None:
        self._here = self.useFixture(hosts.Host())
        self._here.set('lo', state='up')
        for bridge in _WIRE, _MANAGEMENT, _VLAN_WIRE:
            self._here.add(bridge, 'bridge')
            self._here.quiet_ipv6(bridge)
            self._here.set(bridge, state='up')
        self._here.ip.addr('add', index=self._here.link(_WIRE).index,
                           address=_GATEWAY, prefixlen=24)
        self._control = self.useFixture(control.Control())
        self._connections = _has_connections()
        self._vlans = hosts.kernel_knows_vlans()
        with progress.step('hosts %s' % ', '.join(compute.ADDRESSES)):
            self._start_hosts()
        with progress.step('DHCP agent, metadata agent'):
            self._hosts[0].serve()
        with progress.step('image and flavor demo'):
            self._make_client()
            self._fill()
            patience.wait_until(self._knows_hosts, 'Nova knows no hosts', 0.1)

    def _start_hosts(self) -> None:
        shared, self._doors = (pathlib.Path(
            self.useFixture(fixtures.TempDir()).path) for _ in range(2))
        self._hosts = [
            self.useFixture(compute.Compute(
                self._control, name, shared,
                'required' if self._connections else 'stateless_only'))
            for name in compute.ADDRESSES]
        for host in self._hosts:
            self._start(host)
        for host in self._hosts:
            host.wait()
            host.write_door(self._doors)
        self.useFixture(fixtures.EnvironmentVariable(
            'PATH', '%s:%s' % (os.environ['PATH'], self._doors)))

    def _start(self, host: compute.Compute) -> None:
        """Lay the cables of a host, and have it begin."""
        number = self._hosts.index(host) + 1
        host.connect(self._here, 'wire%d' % number, _WIRE, compute.UPLINK)
        if not self._vlans:
            host.connect(self._here, 'vlan%d' % number, _VLAN_WIRE,
                         '%s.%d' % (compute.UPLINK, _VLAN))
        host.connect(self._here, 'host%d' % number, _MANAGEMENT, 'eth0',
                     compute.ADDRESSES[host.name])
        host.start()

    def _boot(self, host: compute.Compute) -> None:
        """Have a host anew, of which nothing is left but its disk."""
        with progress.step('%s boots' % host.name):
            host.end()
            host.setUp()
            self._start(host)
            host.wait()
            if host is self._hosts[0]:
                host.serve()
            host.write_door(self._doors)
        progress.say('%s has booted again.' % host.name)

    def run(self, *command: str | pathlib.Path) -> int:
        """Run a command; return its exit status.

        A host that ends meanwhile boots again.
        """
        # Nobody waits for it where a host does not boot: it may wait for that.
        process = subprocess.Popen(command)
        ended = os.pidfd_open(process.pid)
        while True:
            hosts_ended = {os.pidfd_open(host.machine.process): host
                           for host in self._hosts}
            ready, _, _ = select.select([ended, *hosts_ended], [], [])
            for each in hosts_ended:
                os.close(each)
            if ended in ready:
                return process.wait()
            for each in ready:
                self._boot(hosts_ended[each])

    def _make_client(self) -> None:
        clouds = pathlib.Path(
            self.useFixture(fixtures.TempDir()).path) / 'clouds.yaml'
        clouds.write_text(_CLOUDS % {
            'nova': control.NOVA, 'glance': control.GLANCE,
            'neutron': control.NEUTRON, 'keystone': control.KEYSTONE})
        for name, value in (('OS_CLIENT_CONFIG_FILE', clouds),
                            ('OS_CLOUD', 'demo')):
            self.useFixture(fixtures.EnvironmentVariable(name, str(value)))

    def _fill(self) -> None:
        """Have what the first guest is made of."""
        files = self.useFixture(guest_image.GuestImage())
        client = openstack.connect()

        def upload(name: str, format_: str, data: bytes,
                   **properties: str) -> str:
            image = client.image.create_image(
                name, disk_format=format_, container_format=(
                    'bare' if format_ == 'raw' else format_),
                data=data, visibility='public', validate_checksum=False,
                **properties)
            id_: str = image.id
            return id_
        upload('demo', 'raw', bytes(_DISK),
               kernel_id=upload('demo-kernel', 'aki',
                                files.kernel.read_bytes()),
               ramdisk_id=upload('demo-ramdisk', 'ari',
                                 files.initrd.read_bytes()),
               os_command_line=_GUEST)
        client.compute.create_flavor(
            name='demo', ram=_MEMORY, vcpus=1, disk=0)
        if not self._connections:
            for group in client.network.security_groups(
                    name='default', project_id=user.PROJECT):
                client.network.update_security_group(group, stateful=False)

    def _knows_hosts(self) -> bool:
        found, = self._control.database.execute(
            'SELECT COUNT(*) AS hosts FROM nova_api.host_mappings')
        return bool(found['hosts'] == len(self._hosts))


def _has_connections() -> bool:
    """Return whether there are stateful security groups; else, say so."""
    if agent_connections.is_possible():
        return True
    progress.say('This kernel, %s, knows no connections on bridges: security '
                 'groups have to be stateless, as the default one is here'
                 % os.uname().release)
    return False


def main() -> typing.NoReturn:
    parser = argparse.ArgumentParser('tools/cloud.sh', description=(
        'Have a small cloud, and a shell in it, until that ends.'))
    parser.add_argument('--run', metavar='FILE', type=pathlib.Path,
                        help='run a script instead, and exit as it does')
    arguments = parser.parse_args()
    try:
        # It lasts as long as somebody has it.
        cloud = Cloud()
        cloud.setUp()
        progress.say('The cloud is there.')
        status = cloud.run(*(['sh', '-e', arguments.run] if arguments.run
                             else [os.environ.get('SHELL', 'sh')]))
    except BaseException as error:
        status = 1
        _explain(error)
    # This is the first process of its namespace: all others end with it.
    sys.stderr.flush()
    os._exit(status)


def _explain(error: BaseException) -> None:
    """Say what went wrong: of a service that does not start, what it said."""
    while isinstance(error, fixtures.MultipleExceptions):
        error = error.args[0][1]
    if isinstance(error, AssertionError) and str(error):
        print('\n'.join(str(error).splitlines()[:1]
                        + str(error).splitlines()[1:][-_SHOWN:]),
              file=sys.stderr)
    else:
        traceback.print_exception(error)


if __name__ == '__main__':
    main()
