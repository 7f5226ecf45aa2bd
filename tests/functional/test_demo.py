# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""``tapmac demo`` as a user runs it: a process of its own."""

import json
import os

from tests import base
from tests import hosts
from tests import udevd
from vif_plug_tapmac.cli import demo
from vif_plug_tapmac.cli import main
from vif_plug_tapmac.kernel import netlink as nl


class DemoTest(base.FunctionalTestCase):

    def demo(self, *arguments, prefix=()):
        return base.run_command('main', 'demo', *arguments, prefix=prefix)

    def test_shows_right_facts_and_touches_nothing(self):
        before = self.host.state()
        done = self.demo('-f', 'json')
        self.assertEqual(0, done.returncode, done.stderr)
        self.assertEqual('', done.stderr)
        facts = {row['Fact']: row for row in json.loads(done.stdout)}
        self.assertEqual({'yes'}, {row['Right'] for row in facts.values()})
        self.assertEqual(
            {'TAP MAC': base.TAP_MAC, 'TAP master': 'br100',
             'TAP state': 'UP', 'TAP owner': 'root',
             'TAP IP addresses': 'none'},
            {name: facts[name]['Plugged'] for name in (
                'TAP MAC', 'TAP master', 'TAP state', 'TAP owner',
                'TAP IP addresses')})
        bridge = facts['br100 MAC']
        self.assertEqual(1, len({bridge['Before'], bridge['Plugged'],
                                 bridge['Unplugged']}))
        for name, row in facts.items():
            if name.startswith('TAP'):
                self.assertEqual(('-', '-'), (row['Before'], row['Unplugged']))
        self.assertEqual(before, self.host.state())

    def test_table(self):
        done = self.demo()
        self.assertEqual(0, done.returncode, done.stderr)
        self.assertIn('| TAP MAC ', done.stdout)
        self.assertLessEqual(max(map(len, done.stdout.splitlines())), 100)

    def test_without_privilege(self):
        done = self.demo(prefix=('setpriv', '--bounding-set', '-all'))
        self.assertEqual(1, done.returncode)
        self.assertIn('may not', done.stderr)
        self.assertIn('root', done.stderr)

    def test_without_tun_device(self):
        with hosts.private_mounts():
            hosts.mount('tmpfs', '/dev/net', 'tmpfs')
            done = self.demo()
        self.assertEqual(1, done.returncode)
        self.assertIn('/dev/net/tun is missing', done.stderr)

    def test_does_not_wait_for_the_udev_of_the_host(self):
        with udevd.run_directory() as run:
            (run / 'control').touch()
            done = self.demo('-v')
        self.assertEqual(0, done.returncode, done.stderr)
        self.assertIn(' removed', done.stderr)
        self.assertNotIn('udev', done.stderr)

    def test_wrong_fact_is_told_by_the_exit_status(self):
        # In our own namespace instead of the demo's, with a rival that
        # changes the MAC just before the demo looks.
        self.patch(demo, '_enter_own_network_namespace', lambda: None)
        observe = demo._observe

        def spoil_and_observe():
            if self.host.find(demo._TAP):
                with nl.Netlink() as netlink:
                    netlink.change(self.host.link(demo._TAP),
                                   {'mac': '02:00:00:00:00:99'})
            return observe()
        self.patch(demo, '_observe', spoil_and_observe)
        app = main.TapMacApp()
        with open(os.devnull, 'w') as app.stdout:
            self.assertEqual(1, app.run(['demo']))
