# SPDX-License-Identifier: Apache-2.0

"""The process ``tapmac-agent``.

Its main thread does nothing but wait for a signal, so that it ends at once
whatever the others wait for: all state is the kernel's, and who comes next
goes on from there.
"""

import logging
import os
import signal
import sys
import threading
import types

from vif_plug_tapmac.agent import oldest  # noqa: F401

# First of all others, because it has oslo.service use threads.
import neutron  # noqa: F401
from neutron.common import config as neutron_config
from neutron.conf.agent import common as agent_options
from neutron.conf.agent.database import agents_db
from neutron_lib.utils import helpers
from oslo_config import cfg
from oslo_privsep import daemon

from vif_plug_tapmac.agent import broker
from vif_plug_tapmac.agent.dirty import Batch
from vif_plug_tapmac.agent.dirty import Dirty
from vif_plug_tapmac.agent import firewall
from vif_plug_tapmac.agent import joining
from vif_plug_tapmac.agent import manager
from vif_plug_tapmac.agent import names
from vif_plug_tapmac.agent import opts as agent_opts
from vif_plug_tapmac.agent import report
from vif_plug_tapmac.agent.resync import Resync
from vif_plug_tapmac.agent import server
from vif_plug_tapmac.agent.state import State
from vif_plug_tapmac.agent import taps
from vif_plug_tapmac import exception
from vif_plug_tapmac import opts
from vif_plug_tapmac.wanted import from_config

LOG = logging.getLogger(__name__)

#: In seconds, for what it does now.
_ENDS_WITHIN = 2.0
#: Those without which it does nothing.
THREADS = 'tapmac_agent', 'tapmac_taps', 'tapmac_report'


class _Unfit(Exception):
    """It can not start; the text says why, and what is to be done."""


def main() -> int:
    """Run the agent; return its exit status."""
    configure(sys.argv[1:])
    return run()


def run() -> int:
    """Run it as it is configured, until a signal ends this process.

    :returns: the exit status, where it can not start
    """
    threading.excepthook = _lose
    try:
        agent = Agent()
    except (_Unfit, exception.TapMacError) as error:
        LOG.critical('tapmac-agent does not start: %s', error)
        return 1
    ended = threading.Event()
    for number in signal.SIGTERM, signal.SIGINT:
        signal.signal(number, lambda *_: ended.set())
    signal.signal(signal.SIGHUP, agent.resync)
    agent.start()
    ended.wait()
    LOG.info('tapmac-agent ends; what is wired stays as it is')
    agent.stop(_ENDS_WITHIN)
    logging.shutdown()
    # Threads of the message queue would be waited for.
    os._exit(0)


def _lose(lost: threading.ExceptHookArgs) -> None:
    """End this process when a thread of its own does: half of it is no good.

    Whoever has started it starts another one.
    """
    threading.__excepthook__(lost)
    if lost.thread is not None and lost.thread.name in THREADS:
        LOG.critical('tapmac-agent ends, for it has a fault: %r',
                     lost.exc_value)
        logging.shutdown()
        os._exit(1)


def configure(arguments: list[str]) -> None:
    """Read the configuration, and have the log as it says."""
    neutron_config.register_common_config_options()
    agent_options.register_agent_state_opts_helper(cfg.CONF)
    agents_db.register_db_agents_opts()
    agent_opts.group(cfg.CONF)
    opts.group(cfg.CONF)
    neutron_config.init(arguments)
    neutron_config.setup_logging()


class Agent:
    """All that the agent consists of.

    :raises _Unfit: it can not work here
    :raises TapMacError: nor can the privileged daemon
    """

    def __init__(self) -> None:
        options = agent_opts.group(cfg.CONF)
        try:
            mappings = helpers.parse_mappings(options.bridge_mappings,
                                              unique_values=False)
        except ValueError as error:
            raise _Unfit('[tapmac_agent] bridge_mappings: %s' % error)
        ours = opts.group(cfg.CONF)
        if ours.firewall != 'agent':
            raise _Unfit(
                '[os_vif_tapmac] firewall is %s in its configuration. Have '
                'firewall = agent there, and in that of nova-compute, or do '
                'not run it' % ours.firewall)
        self._dirty = Dirty()
        self._taps = taps.Taps(from_config.groups(ours), self._dirty)
        self._server = server.Server()
        state = State(options.metrics_file)
        self._report = report.Report(state, mappings, self._dirty)
        self._names = (names.Names(self._server.describe, options.names_file)
                       if options.names_file else None)
        self._manager = manager.Manager(
            self._dirty, self._taps, self._server,
            firewall.Firewall(_has_conntrack(options)), state,
            joining.Joining(mappings), Resync(
                options.resync_interval, options.resync_spread), self._names)
        self._worker = threading.Thread(name='tapmac_agent', daemon=True,
                                        target=self._work)

    def start(self) -> None:
        """Work from now on."""
        self._report.start()
        self._worker.start()
        if self._names is not None:
            self._names.start()

    def resync(self, number: int, frame: types.FrameType | None) -> None:
        """Have all ports asked for anew: what a signal does."""
        LOG.info('All ports are asked for anew, as by a signal')
        self._dirty.add(Batch(is_all=True))

    def stop(self, seconds: float) -> None:
        """Have what is done now done, if it does not take longer."""
        self._manager.stop()
        self._worker.join(seconds)

    def _work(self) -> None:
        self._taps.start()
        broker.listen(self._dirty)
        # Before the first ports are asked for; it waits for the queue.
        self._server.listen(self._dirty)
        LOG.info('tapmac-agent has begun')
        self._manager.run()


def _has_conntrack(options: cfg.ConfigOpts.GroupAttr) -> bool:
    try:
        if firewall.has_conntrack():
            return True
    except daemon.FailedToDropPrivileges as error:
        raise _Unfit(
            'its privileged daemon can not be started (%s). See "Security '
            'groups with tapmac-agent" for helper_command of '
            '[tapmac_agent_privileged], and what sudo is to allow' % error)
    if options.conntrack == agent_opts.REQUIRED:
        raise _Unfit(
            'this kernel, %s, knows no connections on bridges '
            '(CONFIG_NF_CONNTRACK_BRIDGE, since Linux 5.3), which stateful '
            'security groups need. Load nf_conntrack_bridge, or boot a kernel '
            'that has it; or set [tapmac_agent] conntrack = stateless_only, '
            'to have ports whose groups are all stateless'
            % os.uname().release)
    LOG.warning('This kernel, %s, knows no connections on bridges: ports with '
                'a stateful security group stay closed (conntrack = '
                'stateless_only)', os.uname().release)
    return False
