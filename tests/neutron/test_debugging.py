# SPDX-License-Identifier: Apache-2.0

"""What an operator is told of a guest whose network does not do as it should.

With names and ids as Neutron has them, where an agent could ask for these.
"""

import json

from tests import base as tests_base
from tests import documents
from tests.neutron import cloud
from tests.neutron import hypervisor
from tests import patience
from vif_plug_tapmac.kernel import conntrack
from vif_plug_tapmac.kernel import filter_table
from vif_plug_tapmac.kernel import nft
from vif_plug_tapmac.wanted import names

MEMBERS, OTHERS = hypervisor.MEMBERS, hypervisor.OTHERS


def load_tests(loader, tests, pattern):
    return cloud.load_tests(tests, DebuggingTest)


class DebuggingTest(hypervisor.HypervisorTestCase):

    NOTHING = 'nothing, as the agent has not said what may'

    def setUp(self):
        self.only_in_full()
        super().setUp()

    def told(self, nic, command, *arguments, returncode=(0,)):
        done = nic.host.run(
            tests_base.run_command, 'main', '--config-file',
            str(nic.host.configuration), command,
            names.nova_tap_name(nic.port['id']), *arguments, '-f', 'json',
            PYTHONPATH=str(tests_base.CHECKOUT))
        self.assertIn(done.returncode, returncode, done.stderr)
        return json.loads(done.stdout)

    def shown(self, nic):
        return self.told(nic, 'show', returncode=(0, 10, 20))

    def explain(self, sender, to, port):
        """Return what is told of a packet where it arrives."""
        row, = self.told(to, 'explain', sender.frame(to, port).hex(), '--to',
                         returncode=(0, 10))
        return row

    def assert_passes(self, nic, words):
        """Expect what the page says, where it shows this command."""
        self.assertEqual(words, self.shown(nic)['Passes'])
        self.assertIn(words, documents.TROUBLESHOOTING.read_text())

    def wait_until_said(self, words, *more):
        """Wait for a line of the log that the page says to look for."""
        self.assertIn(words, documents.TROUBLESHOOTING.read_text())
        patience.wait_until(
            lambda: any(all(each in line for each in (words, *more))
                        for line in self.one.log().splitlines()),
            self.one.log)

    def wait_until_named(self, host, *words):
        patience.wait_until(
            lambda: host.names.exists() and all(
                each in host.names.read_text() for each in words),
            lambda: '%s: %s' % (words, host.log()))

    def test_symptoms(self):
        group, others = self.members(), self.outsiders()
        rule, = self.add_rules(group, self.udp(OTHERS))
        self.start_agents(self.one)
        one, other = self.guest(self.one, group), self.guest(self.one, group)
        self.wait_until_active(one, other)
        self.wait_until_passes(one, other, OTHERS)
        self.wait_until_named(self.one, group, rule)

        with self.subTest('all is well'):
            row = self.explain(one, other, OTHERS)
            self.assertEqual((group, rule), (
                row['Security group'], row['Security group rule']))
            its, = self.shown(other)['Security groups']
            self.assertEqual('demo', its['Name'])
            counts = {each['Id']: each['Packets'] for each in its['Rules']}
            self.assertLess(0, counts[rule])

        with self.subTest('another group'):
            self.update(other.port, security_groups=[others])
            self.wait_until_refused(one, other, OTHERS)
            row = self.explain(one, other, OTHERS)
            self.assertEqual(('dropped', 'security groups'),
                             (row['Verdict'], row['By']))
            self.assertEqual([others], [each['Id'] for each in self.shown(
                other)['Security groups']])

        with self.subTest('the queue is gone'):
            self.one.line.cut()
            late = self.guest(self.one, group)
            self.wait_until_said('is unreachable')
            self.assert_passes(late, self.NOTHING)
            self.one.line.mend()
            self.wait_until_active(late)

        if not self.one.run(conntrack.probe):
            with self.subTest('the kernel knows no connections'):
                late = self.guest(self.one, self.group(
                    {'direction': 'egress'}))
                self.wait_until_said('is not wired', late.port['id'])
                self.assertIn('CONFIG_NF_CONNTRACK_BRIDGE', self.one.log())
                self.assert_passes(late, self.NOTHING)

        self.one.kill_agent()
        with self.subTest('the agent is dead'):
            late = self.guest(self.one, group)
            self.assert_passes(late, self.NOTHING)
            self.assertIsNone(self.shown(late)['Security groups'])
            self.assertEqual('its security groups are not known here',
                             self.explain(one, late, OTHERS)['Rule'])

        with self.subTest('rules are flushed, and nobody hears it'):
            def flush():
                with nft.Session() as session:
                    session.transact('', [nft.delete_table(
                        filter_table.NAME)])
            self.one.run(flush)
            row = self.shown(one)
            self.assertIn('as no rule is about its link group', row['Passes'])
            self.assertNotEqual([], row['Wrong'])
