# SPDX-License-Identifier: Apache-2.0

"""How this agent is, told to Neutron; and whether that heard it."""

import logging
import random
import threading
import time
import typing

from neutron.agent import rpc as agent_rpc
from neutron.api.rpc.callbacks import resources
from neutron_lib.agent import constants as agent_constants
from neutron_lib.agent import topics
from neutron_lib import constants
from neutron_lib import context
from oslo_config import cfg

from vif_plug_tapmac.agent.dirty import Batch
from vif_plug_tapmac.agent.dirty import Dirty
from vif_plug_tapmac.agent.state import State

LOG = logging.getLogger(__name__)

AGENT_TYPE, BINARY = 'tapmac agent', 'tapmac-agent'
#: In seconds, between two looks where nothing is reported to Neutron.
_PAUSE = 30.0


class Report:
    """Tells Neutron, again and again, and has the state written.

    :param bridge_mappings: the bridge of each physical network of this host
    :param dirty: is told that all is to be looked at soon, after Neutron has
        not heard of this agent for a while
    """

    def __init__(self, state: State, bridge_mappings: dict[str, str],
                 dirty: Dirty) -> None:
        self._state, self._dirty = state, dirty
        self._context = context.get_admin_context_without_session()
        self._told = {
            'binary': BINARY,
            'host': cfg.CONF.host,
            'topic': constants.L2_AGENT_TOPIC,
            'agent_type': AGENT_TYPE,
            'configurations': {'bridge_mappings': bridge_mappings},
            'resource_versions': resources.LOCAL_RESOURCE_VERSIONS,
            'start_flag': True}
        self._has_failed = False

    def start(self) -> None:
        """Tell from now on."""
        threading.Thread(name='tapmac_report', target=self._run,
                         daemon=True).start()

    def _run(self) -> None:
        server = agent_rpc.PluginReportStateAPI(topics.REPORTS)
        interval = cfg.CONF.AGENT.report_interval
        while True:
            self._state.write()
            began = time.monotonic()
            if interval:
                self._tell(server)
            # Those that were started at once do not tell at once for ever.
            pause = (interval or _PAUSE) * random.uniform(0.9, 1.0)
            time.sleep(max(1.0, began + pause - time.monotonic()))

    def _tell(self, server: typing.Any) -> None:
        state = self._state
        self._told['configurations'].update(
            devices=state.ports, ports_waiting=state.waiting,
            retries=state.retries, last_sync=round(state.synced))
        try:
            status = server.report_state(self._context, dict(self._told),
                                         use_call=True)
        except Exception as error:  # Of whatever kind, the next may do.
            LOG.warning('Neutron can not be told that this agent lives: %s. '
                        'Tried again in %g s', type(error).__name__,
                        cfg.CONF.AGENT.report_interval)
            self._has_failed = True
            return
        if self._has_failed or status == agent_constants.AGENT_REVIVED:
            LOG.info('Neutron hears this agent again: all ports are asked '
                     'for anew')
            self._dirty.add(Batch(resync=True))
        self._has_failed = False
        self._told.pop('resource_versions', None)
        if state.synced:
            self._told.pop('start_flag', None)
