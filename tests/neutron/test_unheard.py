# SPDX-License-Identifier: Apache-2.0

"""What an agent asks when there is nobody who would ever answer."""

import json
import os
import pathlib

import fixtures
from oslo_config import cfg

from tests import base as tests_base
from tests import hosts
from tests.neutron import base
from tests.neutron import broker
from tests.neutron import cloud
from tests import patience

if base.NEUTRON >= 28:
    import oslo_messaging
    from vif_plug_tapmac.agent import main
    from vif_plug_tapmac.agent import server

_CONFIGURATION = """
[DEFAULT]
host = host1
transport_url = %s
rpc_response_timeout = %d
log_file = %s
"""


def load_tests(loader, tests, pattern):
    return cloud.load_tests(tests, UnheardTest)


class UnheardTest(tests_base.TestCase):
    """The queue is there, and no RPC worker: as after it was restarted."""

    def setUp(self):
        super().setUp()
        missing = broker.Broker.missing()
        if missing:
            self.cannot_run(missing)

    def test_nothing_is_waited_for(self):
        queue = self.useFixture(broker.Broker())
        directory = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        configuration, log = directory / 'conf', directory / 'log'
        configuration.write_text(_CONFIGURATION % (
            queue.url, patience.HANG, log))
        reading, writing = os.pipe()
        child = hosts.fork(self.ask, configuration, writing)
        os.close(writing)
        with open(reading) as told:
            answers = told.read()
        os.waitpid(child, 0)
        self.assertTrue(answers, log.read_text())
        self.assertEqual([oslo_messaging.MessageUndeliverable.__name__] * 4,
                         json.loads(answers))

    @staticmethod
    def ask(configuration, writing):
        cfg.CONF.reset()
        main.configure(['--config-file', str(configuration)])
        neutron, found = server.Server(), []
        for what in (neutron.ask, neutron.set_up, neutron.set_down,
                     neutron.describe):
            try:
                found.append(what(['a']))
            except Exception as error:
                found.append(type(error).__name__)
        with open(writing, 'w') as told:
            json.dump(found, told)
