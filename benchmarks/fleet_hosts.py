# SPDX-License-Identifier: Apache-2.0

"""Hosts whose agents are real, and whose kernels are not.

Loads Neutron once, and then forks a process for each host. In that runs the
agent as it is, :class:`vif_plug_tapmac.agent.main.Agent`; only the TAPs that
it sees are said to it, and what it puts in force is believed to be. Or what
Neutron's Open vSwitch agent has of RPC and security groups: its own classes,
in the order in which it calls them.

Each line of its input is a command, and the answer a line of JSON. What a host
sends and gets is counted where it leaves and enters its connections.
"""

import contextlib
import gc
import json
import mmap
import os
import pathlib
import signal
import struct
import sys
import threading
import time
import types
import typing

from amqp import transport
# First, because it has oslo.service use threads.
import neutron  # noqa: F401
from neutron.agent import firewall as neutron_firewall
from neutron.agent import rpc as agent_rpc
from neutron.agent import securitygroups_rpc as agent_groups
from neutron.api.rpc.handlers import securitygroups_rpc
from neutron_lib.agent import topics
from neutron_lib import context
from oslo_config import cfg
from oslo_messaging._drivers import amqpdriver

from tests import hosts as test_hosts
from vif_plug_tapmac.agent.dirty import Batch
from vif_plug_tapmac.agent import main as agent_main
from vif_plug_tapmac.agent.taps import Tap
from vif_plug_tapmac import privileged
from vif_plug_tapmac import privsep

#: What is counted of each host: messages and octets, from it and to it; what
#: it has put in force: how often, and when last, in ms since 1970; and how
#: many calls it waits for now.
COUNTED = ('sent', 'octets_sent', 'got', 'octets_got', 'applied', 'last',
           'asking')
_SIZE = 8 * len(COUNTED)
_MOST = 4096
#: Of AMQP: a frame that begins a message, and how it says which way.
_METHOD, _PUBLISH, _DELIVER = 1, b'\0\x3c\0\x28', b'\0\x3c\0\x3c'
_Taps = list[str]


class Counters:
    """Of all hosts, in memory that their processes share."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _SIZE * _MOST)

    def of(self, number: int) -> dict[str, int]:
        return dict(zip(COUNTED, struct.unpack_from(
            '=%dq' % len(COUNTED), self._memory, number * _SIZE)))

    def add(self, number: int, **counts: int) -> None:
        """Add to those of a host; "last" is set. Only its process does it."""
        for name, count in counts.items():
            place = number * _SIZE + 8 * COUNTED.index(name)
            before = 0 if name == 'last' else struct.unpack_from(
                '=q', self._memory, place)[0]
            struct.pack_into('=q', self._memory, place, before + count)

    def end(self, number: int) -> None:
        """Have a host wait for nothing, as it is gone."""
        self.add(number, asking=-self.of(number)['asking'])


class Host:
    """What runs in the process of a host.

    :param taps: the UUIDs of the ports whose TAPs are there
    """

    def __init__(self, number: int, counters: Counters, taps: _Taps) -> None:
        self._number, self._counters = number, counters
        self._lock = threading.Lock()
        self.here = {port: Tap(port, index, 'tap' + port[:11], 1)
                     for index, port in enumerate(taps, 2)}
        self._count_messages()

    def applied(self) -> None:
        self._add(applied=1, last=round(time.time() * 1000))

    def _count_messages(self) -> None:
        read = transport.TCPTransport.read_frame
        set_up = transport.TCPTransport._setup_transport

        def read_frame(carrier: typing.Any) -> typing.Any:
            kind, channel, payload = frame = read(carrier)
            self._add(octets_got=len(payload) + 8,
                      got=kind == _METHOD and payload[:4] == _DELIVER)
            return frame

        def setup(carrier: typing.Any) -> None:
            set_up(carrier)
            write = carrier._write

            def counted(data: bytes) -> None:
                self._add(octets_sent=len(data),
                          sent=data[0] == _METHOD and data[7:11] == _PUBLISH)
                write(data)
            carrier._write = counted
        send = amqpdriver.AMQPDriverBase.send

        def call(*arguments: typing.Any, **options: typing.Any) -> typing.Any:
            is_call = bool(options.get('wait_for_reply'))
            self._add(asking=is_call)
            try:
                return send(*arguments, **options)
            finally:
                self._add(asking=-is_call)
        transport.TCPTransport.read_frame = read_frame
        transport.TCPTransport._setup_transport = setup
        amqpdriver.AMQPDriverBase.send = call

    def _add(self, **counts: int) -> None:
        with self._lock:
            self._counters.add(self._number, **counts)

    # Of commands.
    def begin(self) -> None:
        raise NotImplementedError

    def plug(self, port: str) -> None:
        raise NotImplementedError

    def report(self) -> None:
        raise NotImplementedError


class TapmacHost(Host):
    """One with tapmac-agent."""

    def begin(self) -> None:
        host = self

        class Taps:
            def __init__(self, groups: typing.Any, dirty: typing.Any) -> None:
                host.dirty = dirty

            def start(self) -> None:
                pass

            def here(self) -> dict[str, Tap]:
                return dict(host.here)

            def guarded(self, taps: typing.Iterable[Tap]) -> dict[Tap, bool]:
                return dict.fromkeys(taps, True)

        def apply_filter(fields: dict[str, typing.Any]) -> typing.Any:
            self.applied()
            return {'ports': [each['vif_id'] for each in fields['ports']],
                    'refused': {}, 'needs_all': False}
        privileged.apply_filter = apply_filter
        # What was wired before is so still.
        privileged.unfed_taps = lambda names: []
        privsep.filter.calling = lambda about: contextlib.nullcontext()
        agent_main.taps = types.SimpleNamespace(Taps=Taps)
        agent_main._has_conntrack = lambda options: True
        threading.excepthook = agent_main._lose
        self._agent = agent_main.Agent()
        self._agent.start()

    dirty: typing.Any

    def plug(self, port: str) -> None:
        self.here[port] = Tap(port, len(self.here) + 2, 'tap' + port[:11], 1)
        self.dirty.add(Batch(ports=frozenset({port})))

    def report(self) -> None:
        self._agent._report._tell(agent_rpc.PluginReportStateAPI(
            topics.REPORTS))


class Firewall(neutron_firewall.FirewallDriver):
    """What the Open vSwitch agent has its firewall do, which does nothing."""

    host: typing.Any = None

    def __init__(self, integration_bridge: typing.Any = None) -> None:
        self._ports: dict[str, typing.Any] = {}

    @property
    def ports(self) -> dict[str, typing.Any]:
        return self._ports

    def prepare_port_filter(self, port: typing.Any) -> None:
        self._ports[port['device']] = port

    update_port_filter = apply_port_filter = prepare_port_filter

    def remove_port_filter(self, port: typing.Any) -> None:
        self._ports.pop(port['device'], None)

    def filter_defer_apply_off(self) -> None:
        self.host.applied()

    def _nothing(self, *arguments: typing.Any) -> None:
        pass

    filter_defer_apply_on = update_security_group_rules = _nothing
    update_security_group_members = process_trusted_ports = _nothing
    remove_trusted_ports = security_group_updated = _nothing


class OvsHost(Host):
    """One with what Neutron's Open vSwitch agent does by RPC.

    In the order of its rpc_loop: filters of what is new or has changed, then
    details of it, then that it is up. It looks every other second.
    """

    _PAUSE = 2.0

    def begin(self) -> None:
        cfg.CONF.set_override('firewall_driver', __name__ + '.Firewall',
                              'SECURITYGROUP')
        Firewall.host = self
        self._context = context.get_admin_context_without_session()
        self._plugin = agent_rpc.CacheBackedPluginApi(topics.PLUGIN)
        self._plugin.register_legacy_notification_callbacks(self)
        self._state = agent_rpc.PluginReportStateAPI(topics.REPORTS)
        self._state.has_alive_neutron_server(self._context)
        agent_rpc.create_consumers([self], topics.AGENT, [
            ['tunnel', topics.UPDATE], ['tunnel', topics.DELETE],
            ['dvr', topics.UPDATE]])
        groups = securitygroups_rpc.SecurityGroupServerAPIShim(
            self._plugin.remote_resource_cache)
        self._groups = agent_groups.SecurityGroupAgentRpc(
            self._context, groups, defer_refresh_firewall=True)
        groups.register_legacy_sg_notification_callbacks(self._groups)
        self._new, self._updated = set(self.here), set[str]()
        self.report()
        threading.Thread(target=self._loop, daemon=True).start()

    def plug(self, port: str) -> None:
        self._new.add(port)
        self.here[port] = Tap(port, 0, '', None)

    def report(self) -> None:
        self._state.report_state(self._context, {
            'binary': 'neutron-openvswitch-agent', 'host': cfg.CONF.host,
            'agent_type': 'Open vSwitch agent', 'topic': 'N/A',
            'configurations': {'bridge_mappings': {'physnet1': 'br-ex'},
                               'integration_bridge': 'br-int'},
            'start_flag': True}, use_call=True)

    def port_update(self, context: typing.Any, **told: typing.Any) -> None:
        self._updated.add(told['port']['id'])

    def _loop(self) -> None:
        while True:
            new, self._new = self._new, set()
            updated = self._updated & self.here.keys()
            self._updated = set()
            if new or updated or self._groups.firewall_refresh_needed():
                self._groups.setup_port_filters(new, updated)
                self._treat(new | updated)
            time.sleep(self._PAUSE)

    def _treat(self, ports: set[str]) -> None:
        told = self._plugin.get_devices_details_list_and_failed_devices(
            self._context, ports, 'demo', cfg.CONF.host)
        up = [each['device'] for each in told['devices'] if 'port_id' in each]
        if up:
            self._plugin.update_device_list(self._context, up, [], 'demo',
                                            cfg.CONF.host)


KINDS: dict[str, type[Host]] = {'tapmac': TapmacHost, 'ovs': OvsHost}


class Nursery:
    """Has hosts, each in a process of its own."""

    def __init__(self, *configuration: str) -> None:
        self._log = pathlib.Path(configuration[-1]).with_name('log')
        # Once: it takes half a second of a processor.
        agent_main.configure([argument for each in configuration
                              for argument in ('--config-file', each)])
        # What all have is in memory once, as long as nobody looks whether it
        # is still needed.
        gc.collect()
        gc.freeze()
        self._counters = Counters()
        self._numbers: dict[str, int] = {}
        self._lines: dict[str, tuple[int, typing.TextIO]] = {}

    def start(self, kind: str, hosts: dict[str, _Taps]) -> None:
        """Have hosts begin, all at once."""
        for name, taps in hosts.items():
            number = self._numbers.setdefault(name, len(self._numbers))
            reading, writing = os.pipe()
            pid = os.fork()
            if not pid:
                os.close(writing)
                self._be(KINDS[kind], name, number, taps, reading)
            os.close(reading)
            self._lines[name] = pid, os.fdopen(writing, 'w', buffering=1)

    def _be(self, kind: type[Host], name: str, number: int, taps: _Taps,
            commands: int) -> None:
        try:
            test_hosts.die_with_parent()
            log = os.open(self._log, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
            for each in 1, 2:
                os.dup2(log, each)
            cfg.CONF.set_override('host', name)
            host = kind(number, self._counters, taps)
            host.begin()
            with os.fdopen(commands) as lines:
                for line in lines:
                    method, *arguments = json.loads(line)
                    getattr(host, method)(*arguments)
        finally:
            os._exit(0)

    def tell(self, name: str, *command: str) -> None:
        """Have a host do something; see :class:`Host`."""
        self._lines[name][1].write(json.dumps(command) + '\n')

    def stop(self, *names: str) -> None:
        """Have hosts gone, as by a crash."""
        for name in names or list(self._lines):
            pid, line = self._lines.pop(name)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            self._counters.end(self._numbers[name])
            line.close()

    def count(self) -> dict[str, dict[str, int]]:
        """Return what each host has counted since it was first there."""
        return {name: self._counters.of(number)
                for name, number in self._numbers.items()}


def main(*configuration: str) -> None:
    # What is logged goes elsewhere.
    answers, sys.stdout = sys.stdout, sys.stderr
    nursery = Nursery(*configuration)
    print(json.dumps('started'), file=answers, flush=True)
    for line in sys.stdin:
        method, *arguments = json.loads(line)
        print(json.dumps(getattr(nursery, method)(*arguments)), file=answers,
              flush=True)
    nursery.stop()


if __name__ == '__main__':
    # By one name only: Neutron loads the firewall by it.
    from benchmarks import fleet_hosts
    fleet_hosts.main(*sys.argv[1:])
