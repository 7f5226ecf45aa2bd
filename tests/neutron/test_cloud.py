# SPDX-License-Identifier: Apache-2.0

"""What an agent hears of Neutron, and is told, by a real message queue."""

import json
import pathlib
import subprocess
import sys
import threading

import fixtures
from testtools import content

from tests import base as tests_base
from tests import hosts
from tests.neutron import cloud
from tests import patience
from vif_plug_tapmac.wanted import names


def load_tests(loader, tests, pattern):
    return cloud.load_tests(tests)


class CloudTest(cloud.CloudTestCase):

    def test_agent_hears_of_ports_and_asks(self):
        self.listen()
        port = self.port(self.vlan_network(), host='host3')
        group, = port['security_groups']
        self.assertEqual(group, self.told(port)['security_groups'][0])
        self.update(port, allowed_address_pairs=[
            {'ip_address': '192.0.2.77'}])
        self.wait_for('port_update', lambda fields: (
            fields['port']['id'],
            bool(fields['port']['allowed_address_pairs'])) == (
                port['id'], True))
        self.add_rules(group, {'protocol': 'tcp'})
        self.wait_for('security_groups_rule_updated',
                      lambda fields: fields['security_groups'] == [group])
        self.neutron.request('DELETE', 'ports/' + port['id'])
        self.wait_for('port_delete',
                      lambda fields: fields['port_id'] == port['id'])

    def listen(self):
        self._heard = []
        log = self.useFixture(fixtures.TempDir()).join('log')
        with open(log, 'w') as errors:
            self._process = subprocess.Popen(
                [sys.executable, '-W', 'ignore', '-m',
                 'tests.neutron.listener', self.neutron.configuration],
                cwd=tests_base.CHECKOUT, text=True, stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=errors,
                preexec_fn=hosts.die_with_parent)
        # Read while it is there: a Content of the file would be read after
        # the test, when its directory is gone.
        self.addOnException(lambda _: self.addDetail(
            'stderr', content.text_content(pathlib.Path(log).read_text())))
        reader = threading.Thread(target=self._read)
        reader.start()
        self.addCleanup(self._process.wait)
        self.addCleanup(reader.join)
        self.addCleanup(self._process.stdin.close)
        self.wait_for('started', lambda fields: True)

    def _read(self):
        for line in self._process.stdout:
            self._heard.append(json.loads(line))

    def wait_for(self, name, condition):
        """Return, once, what came by this name and is as wanted."""
        found = patience.wait_until(
            lambda: [each for each in list(self._heard)
                     if each[0] == name and condition(each[1])],
            lambda: 'no %s in %s' % (name, self._heard))[0]
        self._heard.remove(found)
        return found[1]

    def ask(self, port):
        self._process.stdin.write(json.dumps(
            [names.nova_tap_name(port['id'])]) + '\n')
        self._process.stdin.flush()

    def told(self, port):
        self.ask(port)
        told = self.wait_for('told', lambda fields: port['id'] in str(fields))
        device, = told['devices'].values()
        return device
