# SPDX-License-Identifier: Apache-2.0

"""A failure after each step: what the call made is gone, nothing else is.

The failure comes after the step took effect, which is the harder case; but for
the bridge's creation, whose caller can't know then that the bridge is its own:
that one is left half-made, for the next plug to finish (see test_bridge.py).
"""

import itertools

from os_vif import exception as os_vif_exception

from tests import base
from tests import hosts
from vif_plug_tapmac import exception
from vif_plug_tapmac.kernel import netlink as nl
from vif_plug_tapmac.kernel import sysctl
from vif_plug_tapmac.kernel import tun
from vif_plug_tapmac import mark

#: All that changes the host, one call each.
STEPS = [(nl.Netlink, 'create_bridge'), (nl.Netlink, '_set'),
         (nl.Netlink, 'delete'), (nl.Netlink, 'mark_deletion'),
         (nl.Netlink, 'delete_named'), (sysctl, 'write'),
         (tun.TunDevice, 'create'), (tun.TunDevice, 'set_mac'),
         (tun.TunDevice, 'persist')]
#: Those of a new TAP that joins its bridge: all but up, a sysctl, up.
JOINING = ['_set', 'write', '_set']


class FailureTest(base.FunctionalTestCase):

    def setUp(self):
        super().setUp()
        self.fail_at = 0
        self.done = []
        for holder, name in STEPS:
            self.patch(holder, name, self.failing(name, getattr(holder, name)))

    def failing(self, name, function):
        def wrapper(*args, **kwargs):
            self.done.append(name)
            fail = len(self.done) == self.fail_at
            result = None
            if not fail or name != 'create_bridge':
                result = function(*args, **kwargs)
            if fail:
                raise exception.KernelRefused(
                    device='injected', step=name, error='EIO', remedy='none')
            return result
        return wrapper

    def failures(self, function, *arguments):
        """Call it, failing after one step more each time, until it is done."""
        for self.fail_at in itertools.count(1):
            self.done = []
            try:
                function(*arguments)
                return
            except os_vif_exception.ExceptionBase as error:
                self.assertIn('injected', str(error.kwargs['err']))
                yield self.done[self.fail_at - 1]

    def test_first_plug_on_a_bridge(self):
        before = self.host.state()
        failed = []
        for step in self.failures(self.plug):
            failed.append(step)
            self.assertIsNone(self.host.find(base.TAP), step)
            # A finished bridge stays: others may be on it by now.
            left = self.host.find(base.BRIDGE)
            if left is not None:
                self.assertEqual(mark.BRIDGE_MARK, left.alias, step)
                self.host.delete(base.BRIDGE)
            self.assertEqual(before, self.host.state(), step)
        self.assertEqual(
            ['create', 'set_mac', 'create_bridge']
            + ['write'] * 3 + ['_set'] * 3 + JOINING + ['persist'], failed)
        self.assert_finished()

    def test_plug_on_a_bridge_of_ours(self):
        self.plug(base.numbered_vif(1))
        before = self.host.state()
        failed = []
        for step in self.failures(self.plug):
            failed.append(step)
            self.assertEqual(before, self.host.state(), step)
        self.assertEqual(['create', 'set_mac', *JOINING, 'persist'], failed)
        self.assert_finished()

    def test_mending_an_idle_tap(self):
        self.plug()
        self.host.set(base.TAP, state='down', master=0)
        failed = []
        for step in self.failures(self.plug):
            failed.append(step)
            self.host.set(base.TAP, state='down', master=0)
        self.assertEqual(['_set', '_set'], failed)
        self.assert_finished()

    def test_mending_a_held_tap_never_raises(self):
        self.plug()
        with hosts.Guest(base.TAP):
            self.host.set(base.TAP, state='down', master=0)
            self.fail_at, self.done = 1, []
            self.plug()
            self.assert_logged('could not be mended', 'injected')
            self.fail_at = 0
            self.plug()
            self.assert_finished()

    @base.needs_real_root(base.SEVERAL_USERS)
    def test_making_an_idle_tap_anew(self):
        self.plug()
        self.configure(owner='nobody')
        for step in self.failures(self.plug):
            left = self.host.find(base.TAP)
            self.assertTrue(left is None or left.owner == 0, step)
        self.assert_finished(owner=65534)

    def test_unplug(self):
        self.plug()
        list(self.failures(self.unplug))
        self.assertIsNone(self.host.find(base.TAP))

    def test_two_failures_leave_word(self):
        # The undo fails as well: the first error is the one that is raised.
        self.plug(base.numbered_vif(1))
        delete = nl.Netlink.delete

        def failing_delete(netlink, link):
            delete(netlink, link)
            raise exception.KernelRefused.from_errno(link.name, 'deleting', 5)
        self.patch(nl.Netlink, 'delete', failing_delete)
        self.fail_at = len(self.done) + 4
        self.assert_plug_fails(exception.KernelRefused, 'injected')
        self.assert_logged('could not be removed after a failed plug')
