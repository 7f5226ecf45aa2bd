# SPDX-License-Identifier: Apache-2.0

"""Security groups as Neutron's own driver for iptables has them, and as ours.

The same worlds are on two hosts, with the one's and the other's filter, and
the same frames are sent there: whatever comes out on one of them only is a
fault, or has a reason in tests/oracle/reasons.py. TAPMAC_SEED has the number
of the first world; a failure says that of each, which can be run alone.

Each frame is the first of its flow, for this kernel knows no connections in a
bridge but by way of iptables.
"""

import collections
import contextlib
import os
import random

from tests import base
from tests import hosts
from tests.oracle import driver
from tests.oracle import frames
from tests.oracle import judge
from tests.oracle import ours
from tests.oracle import reasons
from tests.oracle import worlds
from tests import patience

#: How many frames are sent in a world.
_FRAMES = 250
#: Kinds of frames that there are many of.
_OFTEN = ('packet', 'packet to many', 'arp', 'dhcp client', 'mld')
#: How many differences are shown.
_SHOWN = 20
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

    def lay_network(self, bridge, *functions):
        host = self.useFixture(hosts.Host())
        host.add(bridge, 'bridge', address='02:00:00:00:00:05',
                 br_mcast_snooping=0)
        host.quiet_ipv6(bridge)
        host.set(bridge, state='up')
        for function in functions:
            function()
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


class SameVerdictsTest(AgainstNeutronTestCase):

    def setUp(self):
        super().setUp()
        self.configure(firewall='agent')
        self.side = self.lay_network(base.BRIDGE, self.plug_all)
        self.counted = collections.Counter()
        self.used = set()

    def plug_all(self):
        for number, tap in enumerate(worlds.TAPS):
            self.plug(base.make_vif(
                id=worlds.vif_id(number), vif_name=tap,
                address=worlds.mac(number)))

    def unreviewed(self, seed):
        """Return what differs in a world without a reason, or for one."""
        world = worlds.make(seed)
        told = self.neutron.apply(world)
        with self.side.host.here():
            ours.apply(told, worlds.details(world))
            self.side.settle()
        found = []
        for verdict in judge.verdicts(self.theirs, self.side, frames.Maker(
                world, seed).make(_FRAMES)):
            forbidden = reasons.forbids(world, verdict)
            if forbidden is not None:
                found.append('TAPMAC_SEED=%d: %s, though: %s' % (
                    seed, verdict, forbidden.why))
            if verdict.theirs == verdict.ours:
                self.counted[verdict.frame.kind, verdict.theirs > 0] += 1
                continue
            reason = reasons.reason(world, verdict)
            self.used.add(reason)
            if reason is None:
                found.append('TAPMAC_SEED=%d: %s' % (seed, verdict))
        return found

    def test_random_worlds(self):
        """Those that were found to differ once, in time, and any others."""
        count = patience.amount(1, 3, 80)
        first = int(os.environ.get('TAPMAC_SEED', random.randrange(
            1 << 30) if patience.LONG else 0))
        print('TAPMAC_SEED=%d' % first)
        found = []
        for seed in range(first, first + count):
            found += self.unreviewed(seed)
        self.assertEqual([], found[:_SHOWN])
        if not patience.LONG:
            return
        print('No frame was about: %s' % [
            each.why for each in reasons.REASONS if each not in self.used])
        # What never passes, or always, says nothing.
        self.assertEqual([], [
            (kind, passed) for kind in _OFTEN for passed in (True, False)
            if not self.counted[kind, passed]])
