# SPDX-License-Identifier: Apache-2.0

"""Somebody changes TAP or bridge while they are plugged.

A plug ends in bounded time: either with an error that is typed and no TAP, or
with the TAP as it should be. What is changed after the last look is as if it
were changed after the plug, and the next plug mends that.
"""

import contextlib
import itertools
import logging
import os
import signal
import socket
import time

from os_vif import exception as os_vif_exception
import pyroute2

from tests import base
from tests.functional import test_failures
from tests import hosts
from tests import patience
from vif_plug_tapmac import exception

#: All that a bridge can have.
_PORTS = 1023
_STOLEN = 'stolen0'


def our_taps():
    """Return the names of the TAPs that plugs have made or are making."""
    return [name for _, name in socket.if_nameindex()
            if name == base.TAP or name.startswith('tapmac-')]


class Rival:
    """What somebody else may do to links, by netlink as we do."""

    def __init__(self):
        self.ip = pyroute2.IPRoute()
        self.others_bridge = socket.if_nametoindex('br200')

    def index(self, name):
        return socket.if_nametoindex(name)

    def delete_tap(self):
        for name in our_taps():
            self.ip.link('del', index=self.index(name))

    def set_tap(self, **attributes):
        for name in our_taps():
            self.ip.link('set', index=self.index(name), **attributes)

    def move_tap(self):
        self.set_tap(master=self.others_bridge)

    def release_tap(self):
        self.set_tap(master=0)

    def change_tap_mac(self):
        self.set_tap(address='02:00:00:00:00:66')

    def bring_tap_down(self):
        self.set_tap(state='down')

    def rename_tap(self):
        self.set_tap(ifname=_STOLEN)

    def delete_bridge(self):
        self.ip.link('del', index=self.index(base.BRIDGE))

    def rename_bridge(self):
        self.ip.link('set', index=self.index(base.BRIDGE), ifname=_STOLEN)

    def fill_bridge(self):
        bridge = self.index(base.BRIDGE)
        for number in range(_PORTS):
            self.ip.link('set', index=self.index('port%d' % number),
                         master=bridge)

    def do(self, what):
        """Do it if there is anything to do it to."""
        with contextlib.suppress(pyroute2.NetlinkError, OSError):
            getattr(self, what)()


class InterferenceTest(base.FunctionalTestCase):

    LOG_LEVEL = logging.WARNING

    def setUp(self):
        super().setUp()
        self.host.add('br200', 'bridge')
        self.rival = Rival()
        self.addCleanup(self.rival.ip.close)

    def plug_in_time(self):
        """Plug; return the error, None if there is none."""
        start = time.monotonic()
        try:
            self.plug()
            return None
        except os_vif_exception.PlugException as error:
            self.assertIsInstance(error.kwargs['err'], exception.TapMacError)
            return error.kwargs['err']
        finally:
            self.assertLess(time.monotonic() - start, patience.HANG)

    def plug_while(self, what, at):
        """Plug; somebody does something before a step.

        :returns: (error or None, the step's name or None if it did not come)
        """
        steps = itertools.count(1)
        came = []

        def disturbed(name, function):
            def wrapper(*args, **kwargs):
                if next(steps) == at:
                    came.append(name)
                    self.rival.do(what)
                return function(*args, **kwargs)
            return wrapper

        with contextlib.ExitStack() as undo:
            for holder, name in test_failures.STEPS:
                function = getattr(holder, name)
                undo.callback(setattr, holder, name, function)
                setattr(holder, name, disturbed(name, function))
            error = self.plug_in_time()
        return error, came[0] if came else None

    def remove_all(self):
        for name in our_taps() + [base.BRIDGE, _STOLEN]:
            if self.host.find(name) is not None:
                self.host.delete(name)

    def assert_right_whenever(self, what, bridge_there=False):
        """Let it happen before each step; return the errors it caused."""
        errors = {}
        for at in itertools.count(1):
            self.remove_all()
            if bridge_there:
                self.plug(base.numbered_vif(1))
                self.unplug(base.numbered_vif(1))
            error, step = self.plug_while(what, at)
            if error is not None:
                errors[at] = str(error)
                self.assertEqual([], our_taps(), (at, step))
            elif step == 'persist':
                self.plug()
            if error is None:
                self.assert_finished()
                self.assertEqual([base.TAP], our_taps())
            if step is None:
                self.assertGreater(at, 5)
                return errors

    def test_tap_is_deleted(self):
        self.assertEqual({}, self.assert_right_whenever('delete_tap'))

    def test_tap_is_moved(self):
        self.assertEqual({}, self.assert_right_whenever('move_tap'))

    def test_tap_is_released(self):
        self.assertEqual({}, self.assert_right_whenever('release_tap'))

    def test_tap_mac_is_changed(self):
        self.assertEqual({}, self.assert_right_whenever('change_tap_mac'))

    def test_tap_is_brought_down(self):
        self.assertEqual({}, self.assert_right_whenever('bring_tap_down'))

    def test_tap_is_renamed(self):
        self.assertEqual({}, self.assert_right_whenever('rename_tap'))

    def test_bridge_is_deleted(self):
        for there in (False, True):
            self.assertEqual({}, self.assert_right_whenever(
                'delete_bridge', there))

    def test_bridge_is_renamed(self):
        for there in (False, True):
            self.assertEqual({}, self.assert_right_whenever(
                'rename_bridge', there))

    @base.too_slow_emulated('a bridge with all the ports that it can have')
    def test_bridge_is_filled(self):
        self.only_in_full()
        for number in range(_PORTS):
            self.host.add_tap('port%d' % number)
        errors = self.assert_right_whenever('fill_bridge', bridge_there=True)
        self.assertGreater(len(errors), 0)
        for error in errors.values():
            self.assertIn('EXFULL', error)
            self.assertIn('1023', error)

    def let_loose(self, what):
        """Have a process do it again and again; return what ends that."""
        def run():
            rival = Rival()
            while True:
                rival.do(what)
        child = hosts.fork(run)

        def end():
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        return end

    def test_again_and_again(self):
        for what in ('delete_tap', 'move_tap', 'change_tap_mac',
                     'bring_tap_down', 'rename_tap', 'delete_bridge',
                     'rename_bridge'):
            self.remove_all()
            end = self.let_loose(what)
            try:
                for _ in range(2):
                    self.plug_in_time()
                    with contextlib.suppress(os_vif_exception.UnplugException):
                        self.unplug()
                    if self.host.find(_STOLEN) is not None:
                        self.host.delete(_STOLEN)
            finally:
                end()
            self.assertLessEqual(set(our_taps()), {base.TAP}, what)
            self.plug()
            self.assert_finished()
