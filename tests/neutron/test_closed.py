# SPDX-License-Identifier: Apache-2.0

"""A guest's port is closed before its rules, whatever is broken.

And what was wired before that stays as it was. Guests of a group all send each
other, all the time, what no rule allows; not one packet of that ever comes.
"""

import contextlib
import socket
import time

from tests.neutron import cloud
from tests.neutron import hypervisor
from tests import patience
from vif_plug_tapmac.kernel import agent_table
from vif_plug_tapmac.kernel import filter_steps
from vif_plug_tapmac.kernel import filter_table
from vif_plug_tapmac.kernel import group_rules
from vif_plug_tapmac.kernel import nft
from vif_plug_tapmac.kernel import nft_expressions
from vif_plug_tapmac.kernel import nft_sets

MEMBERS, OTHERS = hypervisor.MEMBERS, hypervisor.OTHERS


def load_tests(loader, tests, pattern):
    return cloud.load_tests(tests, ClosedTest)


class ClosedTest(hypervisor.HypervisorTestCase):

    def setUp(self):
        super().setUp()
        self.members_of = self.members()
        self.start_agents()
        self.sender, self.receiver, self.rebooted = [
            self.guest(host, self.members_of)
            for host in (self.one, self.other, self.other)]
        self.wait_until_active(self.sender, self.receiver, self.rebooted)
        self.sentinels = hypervisor.Sentinels(
            self.sender, self.receiver, self.rebooted)

    def test_always(self):
        """A guest that is new, and one that is started anew."""
        with self.sentinels:
            for state in self.states()[:patience.amount(1, 6, 8)]:
                late = self.bound_port(self.other, self.members_of)
                with state():
                    guest = self.start_guest(self.other, late)
                    self.sentinels.add(guest)
                    self.rebooted.reboot()
                    for each in guest, self.rebooted:
                        self.assert_closed(each)
                for each in guest, self.rebooted:
                    self.wait_until_passes(self.sender, each, MEMBERS)
                    self.wait_until_passes(each, self.sender, MEMBERS)
                self.wait_until_active(guest)
        self.assertEqual([], self.sentinels.heard())

    def assert_closed(self, guest):
        """Expect a guest to be closed, and what was wired to be open."""
        self.wait_until_refused(self.sender, guest, MEMBERS)
        self.wait_until_refused(guest, self.sender, MEMBERS)
        self.wait_until_refused(guest, self.receiver, MEMBERS)
        self.wait_until_passes(self.sender, self.receiver, MEMBERS)
        self.wait_until_passes(self.receiver, self.sender, MEMBERS)

    def test_agent_that_is_killed_again_and_again(self):
        """Whatever it is doing: it begins with a guest to wire."""
        with self.sentinels:
            self.other.kill_agent()
            for number in range(patience.amount(0, 2, 15)):
                self.rebooted.reboot()
                self.other.start_agent()
                self.other.wait_for_agent()
                # Not for anything: it is killed earlier or later in its work.
                time.sleep(number % 15 * 0.02)
                self.other.kill_agent()
                self.wait_until_passes(self.sender, self.receiver, MEMBERS)
            self.start_agents(self.other)
            self.wait_until_passes(self.sender, self.rebooted, MEMBERS)
            self.wait_until_passes(self.rebooted, self.sender, MEMBERS)
        self.assertEqual([], self.sentinels.heard())

    def test_agent_that_loses_what_the_kernel_tells(self):
        """It looks at all then, and misses nothing; nor does its daemon."""
        self.only_in_full()
        late = self.bound_port(self.other, self.members_of)
        with self.sentinels:
            with self.other.deaf():
                guest = self.start_guest(self.other, late)
                self.sentinels.add(guest)
                self.rebooted.reboot()
                for each in guest, self.rebooted:
                    self.assert_closed(each)
            self.assert_open(guest, self.rebooted)
            self.wait_until_active(guest)
            with self.other.deaf():
                self.other.run(self.spoil_rules)
                self.wait_until_passes(self.sender, self.receiver, OTHERS)
                self.wait_until_refused(self.receiver, self.sender, MEMBERS)
            self.assert_open(guest, self.rebooted, self.receiver)
        self.assertEqual([], self.sentinels.heard())
        found = self.other.rules()
        # Who knows nothing yet looks at all.
        self.other.kill_agent()
        self.start_agents(self.other)
        self.other.wait_until_synced()
        self.assertEqual(self.other.rules(), found)

    def assert_open(self, *guests):
        """Expect guests to get, and send, what their group lets them."""
        for each in guests:
            self.wait_until_passes(self.sender, each, MEMBERS)
            self.wait_until_passes(each, self.sender, MEMBERS)
            self.wait_until_refused(self.sender, each, OTHERS)

    def spoil_rules(self):
        """Do what others do: a port has no rules, and a group has more."""
        chain = group_rules.chain_name('ingress', self.members_of)
        index = socket.if_nametoindex(self.receiver.tap)
        with nft.Session() as session:
            session.transact('', [
                nft.new_rule(filter_table.NAME, nft_expressions.accept(
                    chain, nft_expressions.equals(
                        nft_expressions.field(
                            nft_expressions.TRANSPORT, 2, 2), OTHERS))),
                *nft_sets.delete_elements(
                    filter_table.NAME, agent_table.EGRESS,
                    [nft_sets.Element(filter_steps.number_key(index))])])

    def states(self):
        return [self.agent_is_dead, self.agent_is_slow, self.queue_is_gone,
                self.queue_is_silent, self.workers_are_gone,
                self.database_is_slow, self.queue_starts_again,
                self.server_starts_again]

    @contextlib.contextmanager
    def agent_is_dead(self):
        self.other.kill_agent()
        yield
        self.start_agents(self.other)

    @contextlib.contextmanager
    def agent_is_slow(self):
        self.other.pause_agent()
        yield
        self.other.resume_agent()

    @contextlib.contextmanager
    def queue_is_gone(self):
        self.other.line.cut()
        yield
        self.other.line.mend()

    @contextlib.contextmanager
    def queue_is_silent(self):
        self.other.line.stall()
        yield
        self.other.line.flow()

    @contextlib.contextmanager
    def workers_are_gone(self):
        self.neutron.stop_workers()
        yield
        self.neutron.start_workers()

    @contextlib.contextmanager
    def database_is_slow(self):
        with self.neutron.database.locked('neutron.ports'):
            yield

    @contextlib.contextmanager
    def queue_starts_again(self):
        self.neutron.broker.stop()
        yield
        self.neutron.broker.start()

    @contextlib.contextmanager
    def server_starts_again(self):
        self.neutron.stop_workers()
        self.neutron.restart()
        yield
        self.neutron.start_workers()
