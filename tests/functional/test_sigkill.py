# SPDX-License-Identifier: Apache-2.0

"""SIGKILL at any moment: the next plug finds nothing that it cannot finish.

A killed process runs no undo. What the kernel removes with its descriptors,
and what the next plug completes, must be enough.
"""

import dataclasses
import itertools
import logging
import mmap
import os
import random
import signal
import time

from tests import base
from tests.functional import test_failures
from tests import hosts
from tests import patience
from vif_plug_tapmac.kernel import tun

_RANDOM_KILLS = patience.amount(20, 50, 100)


class SigkillTestCase(base.FunctionalTestCase):

    LOG_LEVEL = logging.WARNING

    def wait(self, child):
        """Return whether the child was killed."""
        return os.waitstatus_to_exitcode(
            os.waitpid(child, 0)[1]) == -signal.SIGKILL

    def read_back(self):
        """Return all that the kernel says of TAP and bridge.

        But for what differs from plug to plug: the indexes, the bridge's MAC,
        and when the TAP was made.
        """
        tap, bridge = map(self.host.link, (base.TAP, base.BRIDGE))
        return (
            dataclasses.replace(tap, index=0, master=0,
                                alias=tap.alias.rpartition(':')[0]),
            self.host.master(base.TAP), self.host.addresses(base.TAP),
            dataclasses.replace(bridge, index=0, mac=bridge.mac[:2],
                                carrier=False),
            self.host.addresses(base.BRIDGE), self.keeps_its_mtu(),
            [self.host.sysctl('%s/conf/%s/%s' % (family, base.BRIDGE, name))
             for family, name in (
                ('ipv4', 'arp_ignore'), ('ipv4', 'arp_announce'),
                ('ipv6', 'disable_ipv6'), ('ipv6', 'accept_ra'))])

    def keeps_its_mtu(self):
        """Return whether the bridge does when a port has a smaller one."""
        bridge = self.host.link(base.BRIDGE)
        self.host.add_tap('probe')
        self.host.set('probe', mtu=bridge.mtu - 1, master=bridge.index)
        seen = self.host.link(base.BRIDGE).mtu
        self.host.delete('probe')
        return seen == bridge.mtu

    def remove_all(self):
        for name in (base.TAP, base.BRIDGE, 'br200'):
            for link in self.host.links():
                if name in (link.name, link.former_name):
                    self.host.delete(link.name)

    def links(self):
        """Return their names, and of what is being deleted the former one."""
        return {link.former_name or link.name
                for link in self.host.state()[0]} - {'lo'}


class EachStepTest(SigkillTestCase):

    def kill_before(self, step):
        """Plug in a process that dies before it changes the host once more.

        :returns: what it would have done, None if it was through before
        """
        reader, writer = os.pipe()
        steps = itertools.count(1)

        def dying(name, function):
            def wrapper(*args, **kwargs):
                if next(steps) == step:
                    os.write(writer, name.encode())
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*args, **kwargs)
            return wrapper

        def plug():
            for holder, name in test_failures.STEPS:
                setattr(holder, name, dying(name, getattr(holder, name)))
            self.plug()

        killed = self.wait(hosts.fork(plug))
        os.close(writer)
        with os.fdopen(reader) as opened:
            name = opened.read()
        self.assertEqual(killed, bool(name))
        return name or None

    def assert_finished_after_each_kill(self, prepare):
        """Kill before each step; return the steps.

        :param prepare: makes the host as it is before the plug
        """
        prepare()
        self.plug()
        expected = self.read_back()
        names = []
        for step in itertools.count(1):
            self.remove_all()
            prepare()
            name = self.kill_before(step)
            if name is None:
                self.assertEqual(expected, self.read_back())
                return names
            names.append(name)
            self.assertLessEqual(self.links(),
                                 {base.TAP, base.BRIDGE, 'br200'}, name)
            self.plug()
            self.assertEqual(expected, self.read_back(), name)

    def test_nothing_there(self):
        def prepare():
            pass
        for multiqueue in (False, True):
            self.configure(multiqueue=multiqueue)
            self.assertEqual(
                ['create', 'set_mac', 'create_bridge']
                + ['write'] * 3 + ['_set'] * 3 + test_failures.JOINING
                + ['persist'],
                self.assert_finished_after_each_kill(prepare))

    def test_no_tap_is_left_before_the_last_step(self):
        for step in itertools.count(1):
            self.remove_all()
            if self.kill_before(step) is None:
                break
            self.assertNotIn(base.TAP, self.links())
        self.assert_finished()

    def test_bridge_of_ours_there(self):
        self.assertEqual(
            ['create', 'set_mac', *test_failures.JOINING, 'persist'],
            self.assert_finished_after_each_kill(self.prepare_bridge))

    def prepare_bridge(self):
        self.plug()
        self.host.delete(base.TAP)

    def test_making_a_tap_anew(self):
        def prepare():
            self.plug(base.make_vif(bridge_name='br200'))
        # Elsewhere it is refused, brought down, and then renamed.
        renaming = 1 if hosts.renames_what_is_up(self.host) else 3
        self.assertEqual(
            ['create', 'set_mac', 'create_bridge']
            + ['write'] * 3 + ['_set'] * 3
            + ['mark_deletion'] + ['_set'] * renaming + ['delete_named']
            + test_failures.JOINING + ['persist'],
            self.assert_finished_after_each_kill(prepare))

    def test_mending(self):
        def prepare():
            self.plug()
            self.host.set(base.TAP, address='02:00:00:00:00:01', mtu=1400,
                          state='down', master=0, group=0)
        self.assertEqual(['_set', '_set'],
                         self.assert_finished_after_each_kill(prepare))


@base.too_slow_emulated('a process for each of a hundred moments')
class AnyMomentTest(SigkillTestCase):
    """Not only before a system call of ours, but wherever it is."""

    def kill_between_creation_and_persistence(self, longest):
        """Return whether it was killed while it had a TAP to lose.

        :param longest: seconds that it lives after the creation, at most
        """
        stage = mmap.mmap(-1, 1)

        def reaches(number, function, before=False):
            def wrapper(*args):
                if before:
                    stage[0] = number
                result = function(*args)
                stage[0] = number
                return result
            return wrapper

        def plug():
            tun.TunDevice.create = reaches(1, tun.TunDevice.create)
            tun.TunDevice.persist = reaches(2, tun.TunDevice.persist, True)
            self.plug()

        child = hosts.fork(plug)
        patience.wait_until(lambda: stage[0], 'no TAP is made', pause=0.0001)
        time.sleep(random.uniform(0, longest))
        os.kill(child, signal.SIGKILL)
        self.wait(child)
        return stage[0] == 1

    def test_a_hundred_times(self):
        random.seed(self.id())
        expected = {}
        for multiqueue in (False, True):
            self.configure(multiqueue=multiqueue)
            self.plug()
            expected[multiqueue] = self.read_back()
            self.remove_all()
        killed = tries = 0
        longest = 0.012
        while killed < _RANDOM_KILLS:
            tries += 1
            self.assertLess(tries, 100 * _RANDOM_KILLS)
            multiqueue = random.choice((False, True))
            self.configure(multiqueue=multiqueue)
            if self.kill_between_creation_and_persistence(longest):
                killed += 1
                longest *= 1.1
                self.assertLessEqual(self.links(), {base.BRIDGE})
            else:  # A plug takes less here and now.
                longest *= 0.9
            self.plug()
            self.assertEqual(expected[multiqueue], self.read_back())
            self.host.delete(base.TAP)
            if random.random() < 0.7:
                self.host.delete(base.BRIDGE)

    def test_while_a_guest_holds_the_tap(self):
        random.seed(self.id())
        self.plug()
        with hosts.Guest(base.TAP):
            expected = self.read_back()
            for _ in range(_RANDOM_KILLS):
                self.host.set(base.TAP, state='down', master=0, group=0)
                child = hosts.fork(self.plug)
                time.sleep(random.uniform(0, 0.02))
                os.kill(child, signal.SIGKILL)
                self.wait(child)
                self.plug()
                self.assertEqual(expected, self.read_back())
