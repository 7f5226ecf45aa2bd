# SPDX-License-Identifier: Apache-2.0

"""A guest's port is closed before its rules, whatever is broken.

And what was wired before that stays as it was. Guests of a group all send each
other, all the time, what no rule allows; not one packet of that ever comes.
"""

import contextlib

from tests.neutron import cloud
from tests.neutron import hypervisor
from tests import patience

MEMBERS = hypervisor.MEMBERS


def load_tests(loader, tests, pattern):
    return cloud.load_tests(tests)


class ClosedTest(hypervisor.HypervisorTestCase):

    def test_always(self):
        group = self.members()
        self.start_agents()
        sender, receiver = [self.guest(host, group)
                            for host in (self.one, self.other)]
        self.wait_until_active(sender, receiver)
        with hypervisor.Sentinels(sender, receiver) as sentinels:
            self.wait_until_passes(sender, receiver, MEMBERS)
            for state in self.states()[:patience.amount(1, 6, 8)]:
                late = self.bound_port(self.other, group)
                with state():
                    guest = self.start_guest(self.other, late)
                    sentinels.add(guest)
                    self.assert_closed(sender, receiver, guest)
                self.wait_until_passes(sender, guest, MEMBERS)
                self.wait_until_passes(guest, sender, MEMBERS)
                self.wait_until_active(guest)
        self.assertEqual([], sentinels.heard())

    def assert_closed(self, sender, receiver, guest):
        """Expect a guest to be closed, and what was wired to be open."""
        self.wait_until_refused(sender, guest, MEMBERS)
        self.wait_until_refused(guest, sender, MEMBERS)
        self.wait_until_refused(guest, receiver, MEMBERS)
        self.wait_until_passes(sender, receiver, MEMBERS)
        self.wait_until_passes(receiver, sender, MEMBERS)

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
