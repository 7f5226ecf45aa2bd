# SPDX-License-Identifier: Apache-2.0

"""Servers that do not start: what a user and an operator see of them.

To be run in a cloud that nobody has used yet. The last line that it says is
JSON: of each server what Nova says in the end, and what was looked at beside.
"""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import typing

import openstack

from tests.cloud import compute
from tests import documents
from tests import hosts
from tests.neutron import hypervisor
from tests import patience

#: So many has a bridge of Linux.
_PORTS = 1023
_ONE, _OTHER = compute.ADDRESSES

_Facts = dict[str, typing.Any]


class Agent:
    """tapmac-agent of a host, which is stopped and started here."""

    def __init__(self, host: str) -> None:
        for process in pathlib.Path('/proc').glob('[0-9]*'):
            with contextlib.suppress(OSError):  # It has ended.
                command = (process / 'cmdline').read_text().split('\0')[:-1]
                if (command[-2:-1] == ['--config-file']
                        and pathlib.Path(command[-3]).name == 'tapmac-agent'
                        and 'host = %s\n' % host in pathlib.Path(
                            command[-1]).read_text()):
                    self._process, self._command = process, command
        self._namespace = os.open(self._process / 'ns' / 'net', os.O_RDONLY)

    def stop(self) -> None:
        os.kill(int(self._process.name), signal.SIGTERM)
        patience.wait_until(self._has_ended, 'the agent goes on')

    def _has_ended(self) -> bool:
        # Whoever started it may not look.
        return ') Z ' in (self._process / 'stat').read_text()

    def start(self) -> None:
        """Have it run again, until this process ends."""
        def begin() -> None:
            hosts.die_with_parent()
            hosts.enter(self._namespace)
        subprocess.Popen(self._command, preexec_fn=begin,
                         stdin=subprocess.DEVNULL, stdout=sys.stderr)


class Project:
    """A user's network, ports and servers."""

    def __init__(self) -> None:
        self._client = openstack.connect()
        self.facts: dict[str, _Facts] = {}
        network = self._client.network
        self._network = network.create_network(
            name='data', provider_network_type='flat',
            provider_physical_network=hypervisor.PHYSNET)
        network.create_subnet(network_id=self._network.id, ip_version=4,
                              cidr='192.0.2.0/24', gateway_ip='192.0.2.1')
        self._group = network.create_security_group(name='web', stateful=False)
        self._image = self._client.image.find_image('demo')
        self._flavor = self._client.compute.find_flavor('demo')
        self._servers: dict[str, typing.Any] = {}

    def port(self, **fields: typing.Any) -> str:
        port = self._client.network.create_port(
            network_id=self._network.id, security_group_ids=[self._group.id],
            **fields)
        id_: str = port.id
        return id_

    def enable(self, port: str) -> None:
        self._client.network.update_port(port, is_admin_state_up=True)

    def show(self, port: str) -> _Facts:
        found = self._client.network.get_port(port)
        return {'status': found.status, 'vif_type': found.binding_vif_type,
                'device_id': found.device_id}

    def create(self, name: str, host: str | None = None,
               port: str | None = None) -> None:
        """Create a server.

        :param host: which alone may have it; None: any
        :param port: None: Nova makes one
        """
        print('creating', name, file=sys.stderr)
        where = {'availability_zone': 'nova:' + host} if host else {}
        self._servers[name] = self._client.compute.create_server(
            name=name, image_id=self._image.id, flavor_id=self._flavor.id,
            networks=[{'port': port} if port else
                      {'uuid': self._network.id}],
            security_groups=[{'name': self._group.id}], **where)

    def settle(self, name: str) -> None:
        """Wait until a server is there or not, and keep what Nova says."""
        def get() -> _Facts | None:
            found: _Facts = self._client.compute.get(
                '/servers/' + self._servers[name].id).json()['server']
            return None if found['status'] == 'BUILD' else found
        found = patience.wait_until(get, name + ' is being built', 1)
        print(name, 'is', found['status'], file=sys.stderr)
        self.facts[name] = {
            'status': found['status'], 'id': found['id'],
            'host': found['OS-EXT-SRV-ATTR:host'],
            'fault': found.get('fault', {}).get('message'),
            'ports': [port.id for port in self._client.network.ports(
                device_id=found['id'])]}

    def delete(self, *names: str) -> None:
        for name in names:
            self._client.compute.delete_server(self._servers[name])
        for name in names:
            self._client.compute.wait_for_delete(
                self._servers[name], wait=patience.HANG)

    def is_alive(self, host: str) -> bool:
        found, = [agent for agent in self._client.network.agents(host=host)
                  if agent.agent_type == 'tapmac agent']
        return bool(found.is_alive)

    def owners(self) -> list[str]:
        """Return who has the ports that there are."""
        return sorted(port.device_owner
                      for port in self._client.network.ports())


def on(host: str, *command: str, text: str | None = None) -> str:
    """Return what a command says on a host."""
    return subprocess.run([host, *command], input=text, text=True,
                          stdout=subprocess.PIPE, check=True).stdout


def show_as_page(name: str) -> str:
    """Return what the command of the page says of a server."""
    command = documents.block(documents.TROUBLESHOOTING, '-c fault')
    return subprocess.run(
        ['sh', '-c', command.replace(' demo\n', ' %s\n' % name)], text=True,
        stdout=subprocess.PIPE, check=True).stdout


def taps(host: str) -> list[str]:
    return [line.split(': ')[1] for line in on(
        host, 'ip', '-o', 'link', 'show', 'type', 'tun').splitlines()]


def audit(host: str) -> str:
    """Return what an audit says that finds something."""
    return on(host, 'sh', '-c', '! tapmac audit')


def fill(host: str) -> None:
    """Have the bridge of a host have no room, by ports that are down."""
    patience.wait_until(
        lambda: hypervisor.BRIDGE in on(host, 'ip', '-br', 'link'),
        'no bridge')
    on(host, 'ip', '-batch', '-', text=''.join(
        'link add full%d type veth peer name also%d\n' % (each, each)
        for each in range(_PORTS // 2)))
    free = _PORTS - len(on(host, 'ip', '-o', 'link', 'show', 'master',
                           hypervisor.BRIDGE).splitlines())
    on(host, 'ip', '-batch', '-', text=''.join([
        'link set %s%d master %s\n' % (name, each, hypervisor.BRIDGE)
        for each in range(_PORTS // 2) for name in ('full', 'also')][:free]))


def empty(host: str) -> None:
    on(host, 'ip', '-batch', '-', text=''.join(
        'link del full%d\n' % each for each in range(_PORTS // 2)))


def said(name: str, words: str) -> list[str]:
    """Return the lines in which words are, of all logs with that name."""
    logs = [path for path in pathlib.Path(os.environ['TMPDIR']).rglob(name)
            if path.is_file()]
    return [line for path in logs
            for line in path.read_text(errors='replace').splitlines()
            if words in line]


def main() -> None:
    project = Project()
    facts = project.facts
    agent = Agent(_OTHER)
    # Neutron soon knows that the agent is gone: these are bound before.
    early, late = (project.port(binding_host_id=_OTHER) for _ in range(2))
    assert project.show(late)['vif_type'] == 'ovs', project.show(late)
    agent.stop()
    project.create('silent', _OTHER, early)
    patience.wait_until(lambda: taps(_OTHER), 'not plugged', 1)
    facts['waiting'] = {'port': project.show(early), 'audit': audit(_OTHER)}

    closed = project.port(is_admin_state_up=False)
    project.create('refused', port=closed)
    project.settle('refused')
    facts['refused'].update(
        port=project.show(closed), shown=show_as_page('refused'),
        log=said('nova-compute.log', 'Instance failed network setup'))
    project.create('refused there', _ONE, closed)
    project.settle('refused there')
    project.delete('refused', 'refused there')
    project.enable(closed)
    project.create('mended', _ONE, closed)
    project.settle('mended')
    project.delete('mended')

    fill(_ONE)
    project.create('full', _ONE)
    project.settle('full')
    facts['full'].update(
        taps=taps(_ONE), audit=audit(_ONE),
        log=said('nova-compute.log', 'EXFULL')[:1])
    empty(_ONE)

    patience.wait_until(lambda: not project.is_alive(_OTHER),
                        'Neutron takes the agent for alive', 1)
    project.create('unbound', _OTHER)
    project.settle('unbound')
    facts['unbound']['log'] = said('log', 'does not bind port')
    project.settle('silent')
    facts['silent'].update(
        port=project.show(early), taps=taps(_OTHER),
        log=said('nova-compute.log', 'Timeout waiting for'))

    project.create('late', _OTHER, late)
    patience.wait_until(lambda: taps(_OTHER), 'not plugged', 1)
    agent.start()
    project.settle('late')
    facts['late']['port'] = project.show(late)

    project.delete('full', 'unbound', 'silent', 'late')
    facts['left'] = {'taps': taps(_ONE) + taps(_OTHER),
                     'owners': project.owners()}
    print(json.dumps(facts))


if __name__ == '__main__':
    main()
