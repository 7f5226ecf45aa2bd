# SPDX-License-Identifier: Apache-2.0

"""tapmac-agent with a Neutron that says what a test has it say.

Both are in one process, which the test forks, and speak by oslo.messaging
within it. So it can be killed where a test wants it to be; what is privileged
is done by a daemon of its own, as always. With a real Neutron it is elsewhere.
"""

import contextlib
import json
import os
import pathlib
import select
import signal
import sys
import threading
import time
import traceback
import typing

import fixtures
# First, because it has oslo.service use threads.
import neutron  # noqa: F401
from neutron.api.rpc.handlers import securitygroups_rpc
from neutron.plugins.ml2 import rpc as ml2_rpc
from neutron_lib.agent import topics
from neutron_lib import constants
from neutron_lib import context
from neutron_lib import rpc
from oslo_config import cfg
import oslo_messaging
from oslo_privsep import capabilities
from oslo_privsep import priv_context

from tests import hosts
from tests import patience
from vif_plug_tapmac.agent import main
from vif_plug_tapmac import privileged
from vif_plug_tapmac import privsep

#: Where the process can be killed: when Neutron is asked, when it has
#: answered, when it is in force, when Neutron was told so.
STEPS = ASKED, ANSWERED, APPLIED, TOLD = 'asked', 'answered', 'applied', 'told'

_CONFIGURATION = """
[DEFAULT]
host = host1
transport_url = %(transport)s
rpc_response_timeout = %(timeout)d
debug = true
[AGENT]
report_interval = %(interval)d
[os_vif_tapmac]
firewall = %(firewall)s
[tapmac_agent]
conntrack = %(conntrack)s
bridge_mappings = physnet1:br100
metrics_file = %(metrics)s
names_file =
[tapmac_agent_privileged]
helper_command = %(helper)s --config-file %(directory)s/conf
"""

_Told = dict[str, typing.Any]


class Agent(fixtures.Fixture):
    """An agent that can be started, and its Neutron.

    :param transport: of oslo.messaging
    :param firewall: the option, and so on
    """

    def __init__(self, transport: str = 'fake://', firewall: str = 'agent',
                 conntrack: str = 'stateless_only',
                 helper: str = sys.prefix + '/bin/privsep-helper') -> None:
        self._transport = transport
        self._more = {'firewall': firewall, 'conntrack': conntrack,
                      'helper': helper}
        #: What Neutron says: ports by their UUID, rules by their group.
        self.ports: dict[str, _Told] = {}
        self.rules: dict[str, list[_Told]] = {}
        self.pid: int | None = None

    def _setUp(self) -> None:
        self._directory = pathlib.Path(
            self.useFixture(fixtures.TempDir()).path)
        self.metrics = self._directory / 'agent.prom'
        self.configuration = self._directory / 'conf'
        self.log_file = self._directory / 'log'
        self.configuration.write_text(_CONFIGURATION % {
            'transport': self._transport, 'timeout': patience.HANG,
            'metrics': self.metrics, 'interval': 1,
            'directory': self._directory, **self._more})
        self._said = self._directory / 'said'
        self.addCleanup(self.kill)

    def start(self, until: str | None = None) -> None:
        """Have it run.

        :param until: the one of :data:`STEPS` at which it kills itself
        """
        assert self.pid is None
        self._said.write_text('')
        self.log_file.touch()
        self.say()
        calls, self._calls = os.pipe()
        self.pid = hosts.fork(self._run, until, calls)
        os.close(calls)

    def kill(self, number: int = signal.SIGKILL) -> int | None:
        """End it by a signal; return how it ended."""
        if self.pid is None:
            return None
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)
        return self.wait()

    def wait(self) -> int:
        """Return how it ended, when it does."""
        assert self.pid is not None
        ended = os.pidfd_open(self.pid)
        assert select.select([ended], [], [], patience.HANG)[0], self.log()
        os.close(ended)
        _, status = os.waitpid(self.pid, 0)
        self.pid = None
        os.close(self._calls)
        return os.waitstatus_to_exitcode(status)

    def say(self, **more: typing.Any) -> None:
        """Have Neutron say from now on what it is to say.

        :param more: "holds": it does not answer as long as that is said
        """
        new = self._directory / 'new'
        new.write_text(json.dumps({
            'ports': self.ports, 'rules': self.rules, **more}))
        new.rename(self._directory / 'state')

    def call(self, what: str, *arguments: typing.Any) -> None:
        """Have Neutron tell its agents something, after it says it.

        :param what: a method of Neutron's notifier
        """
        self.say()
        os.write(self._calls, json.dumps([what, *arguments]).encode() + b'\n')

    def heard(self, what: str) -> list[typing.Any]:
        """Return what Neutron heard of a kind, since it was started."""
        # The last line may not be whole yet.
        lines = self._said.read_text().rpartition('\n')[0].splitlines()
        return [value for each in lines
                for kind, value in [json.loads(each)] if kind == what]

    def wait_for(self, what: str, value: typing.Any = None,
                 count: int = 1) -> None:
        """Wait until Neutron has heard that, so many times."""
        assert self.pid is not None
        ended = os.pidfd_open(self.pid)
        self.addCleanup(os.close, ended)

        def is_heard() -> bool:
            assert not select.select([ended], [], [], 0)[0], self.log()
            return count <= len([
                each for each in self.heard(what)
                if value is None or each == value or value in each])
        patience.wait_until(
            is_heard,
            lambda: 'no %s %s in %s; %s' % (what, value,
                                            self._said.read_text(),
                                            self.log()[-20000:]))

    def log(self) -> str:
        return self.log_file.read_text()

    def _run(self, until: str | None, calls: int) -> None:
        """Be the process."""
        log = os.open(self.log_file, os.O_APPEND | os.O_WRONLY)
        sys.stdout = sys.stderr = os.fdopen(log, 'w', buffering=1)
        os.close(self._calls)
        status = 2
        try:
            self._start(until, calls)
            status = main.run()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)

    def _start(self, until: str | None, calls: int) -> None:
        cfg.CONF.reset()
        main.configure(['--config-file', str(self.configuration)])
        cfg.CONF.set_override('capabilities', [capabilities.CAP_NET_ADMIN],
                              'tapmac_agent_privileged')
        privsep.filter.set_client_mode(True)
        privsep.filter.start(priv_context.Method.FORK)
        said = _Neutron(self._directory, until)
        if self._transport == 'fake://':
            said.serve(calls)


class _Neutron:
    """What answers in that process."""

    def __init__(self, directory: pathlib.Path, until: str | None) -> None:
        self._directory, self._until = directory, until
        apply = privileged.apply_filter

        def applied(fields: _Told) -> _Told:
            self._is_at(ANSWERED)
            done: _Told = apply(fields)
            self.hear('applied', sorted(done['ports']))
            self._is_at(APPLIED)
            return done
        privileged.apply_filter = applied

    def _is_at(self, step: str) -> None:
        if step == self._until:
            os.kill(os.getpid(), signal.SIGKILL)

    def serve(self, calls: int) -> None:
        for topic, endpoints in ((topics.PLUGIN, [_Groups(self),
                                                  _Plugin(self)]),
                                 (topics.REPORTS, [_Reports(self)])):
            rpc.get_server(oslo_messaging.Target(
                topic=topic, server='neutron'), endpoints).start()
        threading.Thread(target=self._call, args=(calls,),
                         daemon=True).start()

    def _call(self, calls: int) -> None:
        notifier = ml2_rpc.AgentNotifierApi(topics.AGENT)
        with open(calls) as lines:
            for line in lines:
                what, *arguments = json.loads(line)
                getattr(notifier, what)(context.get_admin_context(),
                                        *arguments)

    def hear(self, what: str, value: typing.Any) -> None:
        with (self._directory / 'said').open('a') as said:
            said.write(json.dumps([what, value]) + '\n')

    def state(self) -> _Told:
        while (found := json.loads((self._directory / 'state').read_text())
               ).get('holds'):
            time.sleep(0.01)
        return typing.cast(_Told, found)

    def asked(self, ports: list[str]) -> _Told:
        self.hear('asked', sorted(ports))
        self._is_at(ASKED)
        return self.state()

    def told(self, up: list[str], down: list[str]) -> None:
        for what, ports in ('up', up), ('down', down):
            if ports:
                self.hear(what, sorted(ports))
        if up:
            self._is_at(TOLD)


class _Groups:
    target = securitygroups_rpc.SecurityGroupServerRpcCallback.target

    def __init__(self, said: _Neutron) -> None:
        self._neutron = said

    def security_group_info_for_devices(
            self, context: typing.Any, devices: list[str],
            call_version: str) -> _Told:
        said = self._neutron.asked(devices)
        ports = {port: told for port, told in said['ports'].items()
                 if port in devices}
        return {'devices': ports, 'sg_member_ips': {}, 'security_groups': {
            group: said['rules'][group] for told in ports.values()
            for group in told['security_groups']}}


class _Plugin:
    target = ml2_rpc.RpcCallbacks.target

    def __init__(self, said: _Neutron) -> None:
        self._neutron = said

    def get_devices_details_list_and_failed_devices(
            self, context: typing.Any, devices: list[str], agent_id: str,
            host: str) -> _Told:
        return {'devices': [{'device': each} for each in devices],
                'failed_devices': []}

    def update_device_list(
            self, context: typing.Any, devices_up: list[str],
            devices_down: list[str], agent_id: str, host: str,
            refresh_tunnels: bool) -> _Told:
        self._neutron.told(devices_up, devices_down)
        return {'devices_up': devices_up, 'failed_devices_up': [],
                'devices_down': devices_down, 'failed_devices_down': []}


class _Reports:
    target = oslo_messaging.Target(
        version='1.4', namespace=constants.RPC_NAMESPACE_STATE)

    def __init__(self, said: _Neutron) -> None:
        self._neutron = said

    def report_state(self, context: typing.Any, agent_state: _Told,
                     time: str) -> str:
        self._neutron.hear('report', agent_state['agent_state'])
        return 'alive'
