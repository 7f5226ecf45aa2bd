# SPDX-License-Identifier: Apache-2.0

"""A compute host: its libvirtd, tapmac-agent and nova-compute."""

import os
import pathlib
import shlex
import sys

import fixtures

from tests.cloud import control as controls
from tests import documents
from tests import hosts
from tests import machine
from tests.neutron import base
from tests.neutron import hypervisor

#: The end of each host on the wire of the data centre.
UPLINK = 'eth1'
#: Of all hosts, for what they say to each other in a migration.
ADDRESSES = {'compute1': '198.51.100.1', 'compute2': '198.51.100.2'}

#: Of each host its own: guests take their disks along.
_INSTANCES = 'var/lib/libvirt/instances'

#: Of tapmac-agent, in [os_vif_tapmac].
AGENT_MORE = 'bridge_uplinks = %s:%s' % (hypervisor.BRIDGE, UPLINK)
_MORE = """
[DEFAULT]
host = {name}
my_ip = {address}
instances_path = {instances}
{nova}
bridge_uplinks = {bridge}:{uplink}
# The udev of this machine does not see the hosts.
udev_timeout = 0
[vif_plug_tapmac_privileged]
helper_command = {helper} --config-file %(directory)s/nova.conf
[nova_sys_admin]
helper_command = {helper} --config-file %(directory)s/nova.conf
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


def nova_conf(name: str, shared: pathlib.Path) -> str:
    """Return what configures nova-compute, but for what is of one run.

    :param name: of the host
    :param shared: a directory that all hosts have
    """
    return controls.NOVA_CONF + _MORE.format(
        name=name, address=ADDRESSES[name], instances='/' + _INSTANCES,
        bridge=hypervisor.BRIDGE, uplink=UPLINK,
        helper=pathlib.Path(sys.prefix) / 'bin' / 'privsep-helper',
        uri=Machine.uri(shared, name), uris=Machine.uri(shared, '%%s'),
        nova=documents.block(documents.AGENT, 'claim_plugins', 'ini'))


class Machine(machine.Machine):
    """A machine that the others know by the name that Nova has for it."""

    ADDRESSES = ADDRESSES


class Compute(fixtures.Fixture):
    """One of the hosts.

    :param name: as in "compute1"
    :param shared: a directory that all hosts have
    :param conntrack: option of tapmac-agent
    :ivar machine: it
    :ivar agent: what is there of tapmac-agent
    """

    def __init__(self, control: controls.Control, name: str,
                 shared: pathlib.Path, conntrack: str) -> None:
        self.name = name
        self._control, self._shared = control, shared
        self._conntrack = conntrack

    def _setUp(self) -> None:
        self.machine = self.useFixture(Machine(self.name, self._shared))
        self.agent = self.useFixture(hypervisor.AgentHost(
            self._control, self.name, self.machine.namespace,
            conntrack=self._conntrack, more=AGENT_MORE))
        for port in controls.NEUTRON, controls.PLACEMENT, controls.GLANCE:
            self.useFixture(hypervisor.Line(
                self.agent.peer, ('127.0.0.1', port), port))
        self._directory = pathlib.Path(
            self.useFixture(fixtures.TempDir()).path)
        self._write_configuration()
        self._compute = base.Process(
            *self.machine.inside(
                pathlib.Path(sys.prefix) / 'bin' / 'nova-compute',
                '--config-file', self._directory / 'nova.conf'),
            log=self._directory / 'nova-compute.log',
            name='nova-compute of ' + self.name,
            network=self.machine.namespace)

    def _write_configuration(self) -> None:
        (self.machine.directory / _INSTANCES).mkdir()
        (self._directory / 'nova.conf').write_text(
            nova_conf(self.name, self._shared) % {
                'queue': 'rabbit://guest:guest@127.0.0.1:%d/'
                % self.agent.line.port,
                'directory': self._directory, 'more': ''})
        controls.write_paste('nova', 'api-paste.ini', self._directory)

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

    def write_door(self, directory: pathlib.Path) -> None:
        """Write a program, of the host's name, that runs a command there."""
        door = directory / self.name
        door.write_text('#!/bin/sh\nexec nsenter --net=/proc/%d/fd/%d -- %s '
                        '"$@"\n' % (os.getpid(), self.machine.namespace,
                                    shlex.join(self.machine.inside())))
        door.chmod(0o755)

    def start(self) -> None:
        """Have its agent and its nova-compute run from now on."""
        self.agent.start_agent()
        self.useFixture(self._compute)

    def wait(self) -> None:
        """Wait until both have begun."""
        self.agent.wait_for_agent()
        self._compute.wait_for(lambda: self._control.broker.consumers(
            'compute.' + self.name) > 0)
