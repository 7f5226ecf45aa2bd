# SPDX-License-Identifier: Apache-2.0

"""Whoever is asked may never answer: no command waits for that for long.

The libvirt here accepts connections and never says a word.
"""

import concurrent.futures
import json
import os

from tests import base
from tests.functional import test_operator
from tests import libvirt_domains
from vif_plug_tapmac import bounded
from vif_plug_tapmac.host import domains

_BOUND = 'within %g s' % bounded.SECONDS


class SilentLibvirtTest(test_operator.WatchingTestCase):

    def setUp(self):
        super().setUp()
        self.domains.define((base.TAP, base.GUEST_MAC, True, 1))
        self.plug()
        self.useFixture(libvirt_domains.Silent())

    def test_commands_go_on_without(self):
        commands = (('list',), ('show', base.TAP), ('audit',),
                    ('repair', '--dry-run'), ('repair',),
                    ('mac', '--reverse', base.TAP_MAC), ('purge',),
                    ('purge', '--dry-run', '--force'))
        path = '%s:%s' % (os.environ.get('PYTHONPATH', ''), base.CHECKOUT)
        with concurrent.futures.ThreadPoolExecutor(len(commands)) as pool:
            done = dict(zip(commands, pool.map(
                lambda command: base.run_command(
                    'main', *command, '-f', 'json', PYTHONPATH=path),
                commands)))
        for command in commands:
            self.assertEqual(int(command[0] == 'purge'),
                             done[command].returncode, done[command])
            if command[0] != 'mac':  # It does not ask.
                self.assertIn(_BOUND, done[command].stderr)
        row, = json.loads(done['list',].stdout)
        self.assertEqual('unknown', row['Domain'])
        self.assertIn('Nothing is removed', done['purge',].stderr)
        self.assertIsNotNone(self.host.find(base.TAP))

    def test_nobody_is_left_behind(self):
        before = self.host.processes()
        error = self.assertRaises(domains.Unknown, domains.nics)
        self.assertIn(_BOUND, str(error))
        self.assertRaises(domains.Unknown, domains.version)
        self.assertEqual(before, self.host.processes())


class VanishingDomainTest(test_operator.OperatorTestCase):

    def test_only_that_one_is_passed_over(self):
        self.domains.define((base.TAP, base.GUEST_MAC, True, 1),
                            ('tap00000001', 'fa:16:3e:00:00:01', True, 1),
                            ('tap00000002', 'fa:16:3e:00:00:02', False, 2))
        libvirt = libvirt_domains.import_libvirt()
        self.patch(libvirt, 'openReadOnly', libvirt.open)
        real = libvirt.virConnect.listAllDomains

        def list_and_lose_one(connection):
            found = real(connection)
            gone = connection.lookupByName(self.domains.of('tap00000001'))
            gone.destroy()
            gone.undefine()
            return found
        self.patch(libvirt.virConnect, 'listAllDomains', list_and_lose_one)
        self.assertEqual(
            {base.TAP: 1, 'tap00000002': 2},
            {name: nic.queues for name, nic in domains.nics().items()})
