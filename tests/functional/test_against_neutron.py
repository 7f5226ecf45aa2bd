# SPDX-License-Identifier: Apache-2.0

"""Security groups as Neutron's own driver for iptables has them, and as ours.

The same worlds are on two hosts, with the one's and the other's filter, and
the same frames are sent there.
"""

import contextlib

from tests import base
from tests import hosts
from tests.oracle import driver
from tests.oracle import frames
from tests.oracle import judge
from tests.oracle import worlds
from tests import patience

#: How many frames are sent in a world.
_FRAMES = 250
#: As the bridge of a network is called there.
_BRIDGE = 'brq' + worlds.NETWORK_ID[:11]


@base.too_slow_emulated('thousands of frames, and Neutron')
class AgainstNeutronTestCase(base.FunctionalTestCase):

    def setUp(self):
        super().setUp()
        self.only_in_full()
        missing = driver.missing()
        if missing:
            self.cannot_run(missing)
        self.closing = contextlib.ExitStack()
        self.addCleanup(self.closing.close)
        self.theirs, self.neutron = self.have_neutron()

    def have_neutron(self):
        """Return a host, and Neutron's driver there."""
        side = self.lay_network(_BRIDGE)
        return side, self.useFixture(driver.Driver(side.host))

    def lay_network(self, bridge):
        host = self.useFixture(hosts.Host())
        host.add(bridge, 'bridge', address='02:00:00:00:00:05',
                 br_mcast_snooping=0)
        host.quiet_ipv6(bridge)
        host.set(bridge, state='up')
        return judge.Side(host, bridge, self.closing)


class JudgeTest(AgainstNeutronTestCase):
    """The judge sees what differs, and nothing else: both are Neutron's."""

    def setUp(self):
        super().setUp()
        self.other, self.others_neutron = self.have_neutron()

    def different(self, world, others, made):
        """Return what became of frames in one of two worlds only, and all."""
        self.neutron.apply(world)
        self.others_neutron.apply(others)
        verdicts = list(judge.verdicts(self.theirs, self.other, made))
        return [str(verdict) for verdict in verdicts
                if verdict.theirs != verdict.ours], verdicts

    def test_what_differs_and_nothing_else(self):
        for seed in range(patience.amount(1, 1, 20)):
            world = worlds.make(seed)
            made = frames.Maker(world, seed).make(_FRAMES)
            different, verdicts = self.different(world, world, made)
            self.assertEqual([], different)
            passed = sum(verdict.theirs > 0 for verdict in verdicts)
            self.assertLess(len(verdicts) / 20, passed)
            self.assertLess(passed, len(verdicts) * 19 / 20)
        # Others may say what a rule says, or it is about what no frame is.
        self.assertTrue(any(
            self.different(world, dict(world, rules=[
                rule for rule in world['rules'] if rule is not left_out]),
                made)[0] for left_out in world['rules']))
