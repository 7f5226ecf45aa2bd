# SPDX-License-Identifier: Apache-2.0

"""A compute host: its libvirtd, tapmac-agent and nova-compute.

And Neutron's agents for DHCP and metadata, where it has them.
"""

import contextlib
import os
import pathlib
import shlex
import shutil
import sys

import fixtures
import pyroute2

from tests.cloud import control as controls
from tests import documents
from tests import hosts
from tests import machine
from tests.neutron import base
from tests.neutron import hypervisor
from tests.neutron import network_node
from tests import patience

#: The end of each host on the wire of the data centre.
UPLINK = 'eth1'
#: Of all hosts, for what they say to each other in a migration.
ADDRESSES = {'compute1': '198.51.100.1', 'compute2': '198.51.100.2'}

#: Of each host its own: guests take their disks along.
_INSTANCES = '/var/lib/libvirt/instances'
_CONFIGURATION, _STATE = '/etc/nova/nova.conf', '/var/lib/nova'
#: What is asked for by who is on a host, at its own 127.0.0.1.
_APIS = (controls.NEUTRON, controls.NOVA, controls.PLACEMENT, controls.GLANCE,
         controls.KEYSTONE)

#: Of tapmac-agent, in [os_vif_tapmac].
AGENT_MORE = 'bridge_uplinks = %s:%s' % (hypervisor.BRIDGE, UPLINK)
_MORE = """
[DEFAULT]
host = {name}
my_ip = {address}
instances_path = {instances}
# When the host boots, its guests do.
resume_guests_state_on_host_boot = true
{nova}
bridge_uplinks = {bridge}:{uplink}
# The udev of this machine does not see the hosts.
udev_timeout = 0
[vif_plug_tapmac_privileged]
helper_command = {helper} --config-file {configuration}
[nova_sys_admin]
helper_command = {helper} --config-file {configuration}
[libvirt]
virt_type = qemu
connection_uri = {uri}
live_migration_uri = {uris}
[vnc]
enabled = false
[workarounds]
# Else a guest's kernel, which looks like a disk, may not go to another host.
disable_deep_image_inspection = true
"""

_DOOR = """\
#!/bin/sh
if [ "$*" = reboot ]; then
    kill -KILL %(process)d
    while grep -q 'kill -KILL %(process)d$' "$0"; do sleep 0.2; done
    exit
fi
exec %(enter)s "$@"
"""


def nova_conf(name: str, shared: pathlib.Path) -> str:
    """Return what configures nova-compute, but for what is of one run.

    :param name: of the host
    :param shared: a directory that all hosts have
    """
    return controls.NOVA_CONF + _MORE.format(
        name=name, address=ADDRESSES[name], instances=_INSTANCES,
        configuration=_CONFIGURATION,
        bridge=hypervisor.BRIDGE, uplink=UPLINK,
        helper=pathlib.Path(sys.prefix) / 'bin' / 'privsep-helper',
        uri=Machine.uri(shared, name), uris=Machine.uri(shared, '%%s'),
        nova=documents.block(documents.AGENT, 'claim_plugins', 'ini'))


class Machine(machine.Machine):
    """A machine that the others know by the name that Nova has for it."""

    ADDRESSES = ADDRESSES
    #: Also what is written by who does not run in here.
    PARTS = 'run', 'etc', 'var/lib', 'var/log', 'var/cache/libvirt'

    @property
    def process(self) -> int:
        """Return the process that it ends with."""
        id_: int = self._unshare.pid
        return id_

    def _write_files(self) -> None:
        """Have its files: when it boots again, those that it had."""
        shutil.rmtree(self.directory / 'run', ignore_errors=True)
        if not self.directory.exists():
            shutil.copytree('/etc', self.directory / 'etc', symlinks=True)
        super()._write_files()


class Compute(fixtures.Fixture):
    """One of the hosts.

    :param name: as in "compute1"
    :param shared: a directory that all hosts have
    :param conntrack: option of tapmac-agent
    :ivar machine: it
    """

    def __init__(self, control: controls.Control, name: str,
                 shared: pathlib.Path, conntrack: str) -> None:
        self.name = name
        self._control, self._shared = control, shared
        self._conntrack = conntrack
        self._cables: list[tuple[hosts.Host, str]] = []

    def _setUp(self) -> None:
        self.machine = self.useFixture(Machine(self.name, self._shared))
        # Where the kernel has bridges ask them, no firewall is for guests.
        self.machine.run('sh', '-c', 'for each in /proc/sys/net/bridge/'
                         'bridge-nf-call-*; do ! [ -e "$each" ] || '
                         'echo 0 > "$each"; done')
        self._agent = self.useFixture(hypervisor.AgentHost(
            self._control, self.name, self.machine.namespace,
            conntrack=self._conntrack, root=self.machine.directory,
            more=AGENT_MORE))
        for port in _APIS:
            self.useFixture(hypervisor.Line(
                self._agent.peer, ('127.0.0.1', port), port))
        self._write_configuration()
        self._compute = base.Process(
            *self.machine.inside(
                pathlib.Path(sys.prefix) / 'bin' / 'nova-compute',
                '--config-file', _CONFIGURATION),
            log=self._file('/var/log/nova/nova-compute.log'),
            name='nova-compute of ' + self.name,
            network=self.machine.namespace)

    def _write_configuration(self) -> None:
        self._file(_INSTANCES).mkdir(exist_ok=True)
        self._file(_CONFIGURATION).write_text(
            nova_conf(self.name, self._shared) % {
                'queue': 'rabbit://guest:guest@127.0.0.1:%d/'
                % self._agent.line.port,
                'directory': _STATE, 'more': ''})
        controls.write_paste('nova', 'api-paste.ini',
                             self._file(_STATE + '/api-paste.ini').parent)

    def _file(self, path: str) -> pathlib.Path:
        """Return where a file of the host is, in a directory that is."""
        found = self.machine.directory / path.lstrip('/')
        found.parent.mkdir(parents=True, exist_ok=True)
        return found

    def connect(self, here: hosts.Host, link: str, bridge: str, name: str,
                address: str | None = None) -> None:
        """Lay a cable from here to the host.

        :param link: its end here, on a bridge
        :param name: its end there
        :param address: which that has; None: it is up, and has none
        """
        self.machine.add(name, 'veth', peer={
            'ifname': link, 'net_ns_fd': here.namespace})
        self.machine.quiet_ipv6(name)
        self.machine.set(name, state='up')
        here.set(link, master=here.link(bridge).index, state='up')
        if address:
            self.machine.ip.addr(
                'add', index=self.machine.link(name).index, address=address,
                prefixlen=24)
        self._cables.append((here, link))

    def write_door(self, directory: pathlib.Path) -> None:
        """Write a program, of the host's name, that runs a command there.

        Where that is "reboot", the host loses its power, and the program ends
        when another one is in its place.
        """
        door = directory / (self.name + '.new')
        door.write_text(_DOOR % {
            'process': self.machine.process, 'enter': shlex.join([
                'nsenter', '--net=/proc/%d/fd/%d' % (
                    os.getpid(), self.machine.namespace),
                '--', *self.machine.inside()])})
        door.chmod(0o755)
        door.rename(directory / self.name)

    def start(self) -> None:
        """Have its agent and its nova-compute run from now on."""
        self._agent.start_agent()
        self.useFixture(self._compute)

    def wait(self) -> None:
        """Wait until both have begun."""
        self._agent.wait_for_agent()
        self._compute.wait_for(lambda: self._control.broker.consumers(
            'compute.' + self.name) > 0)

    def serve(self) -> None:
        """Have Neutron's agents run there from now on."""
        node = self.useFixture(network_node.NetworkNode(
            self._agent, nova=(controls.METADATA, controls.SECRET)))
        node.start('dhcp', 'metadata')

    def end(self) -> None:
        """Have nothing of it but its disk, as when it has no power."""
        self._agent.kill_agent()
        self.cleanUp()
        while self._cables:
            here, link = self._cables.pop()
            with contextlib.suppress(pyroute2.NetlinkError):
                here.ip.link('del', ifname=link)
            patience.wait_until(lambda: here.find(link) is None,
                                '%s is still there' % link)
