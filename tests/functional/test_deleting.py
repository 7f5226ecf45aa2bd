# SPDX-License-Identifier: Apache-2.0

"""A guest starts while its TAP is deleted, or the one who deletes is killed.

Test strategy: whatever deletes a TAP is run once for each request that it
makes of the kernel, and before that one a guest comes, or the process is
killed. There is no step at which a guest that has got its TAP loses it, and
none after which the next plug does not find the TAP as it was.
"""

import contextlib
import errno
import fcntl
import itertools
import os
import signal
import socket

import fixtures
from os_vif import exception as os_vif_exception

from tests import base
from tests.functional import test_sigkill
from tests import hosts
from vif_plug_tapmac import exception
from vif_plug_tapmac.kernel import converging
from vif_plug_tapmac.kernel import link as link_data
from vif_plug_tapmac.kernel import netlink as nl
from vif_plug_tapmac.kernel import removing
from vif_plug_tapmac import privileged
from vif_plug_tapmac.wanted.port import TapIdentity

_TUNGETIFF = 0x800454d2
MULTI_QUEUE = hosts.IFF_TAP | hosts.IFF_MULTI_QUEUE


def start_guest(tap, flags=hosts.IFF_TAP):
    """Open a TAP as libvirt does, which looks whether it is there.

    :returns: None if that fails
    """
    try:
        index = socket.if_nametoindex(tap)
        guest = hosts.Guest(tap, flags=flags)
    except OSError:
        return None
    if index_of(guest) == index:
        return guest
    guest.close()  # He has made one of his own, which is nobody's.
    return None


def index_of(guest):
    """Return the index of what a guest holds, None if his NIC is dead."""
    answer = bytearray(40)
    while True:
        try:
            fcntl.ioctl(guest.descriptor, _TUNGETIFF, answer)
        except OSError as error:
            if error.errno != errno.EBADFD:
                raise
            return None
        # Its name may be taken away, or given back, in between.
        with contextlib.suppress(OSError):
            return socket.if_nametoindex(
                bytes(answer[:16]).rstrip(b'\0').decode())


class DeletingTestCase(test_sigkill.SigkillTestCase):

    #: How a guest opens its TAP.
    FLAGS = hosts.IFF_TAP

    def remove_taps(self):
        for link in self.host.links():
            if link.is_tap:
                self.host.delete(link.name)

    def setUp(self):
        super().setUp()
        # What is done once in a process is done.
        self.plug()
        self.remove_all()

    def before_request(self, number, function):
        """Have something happen before the request with this number.

        :returns: a list that has its name by then
        """
        real = nl.Netlink._request
        numbers = itertools.count(1)
        reached = []

        def request(netlink, device, step, *args, **kwargs):
            if next(numbers) == number:
                self.patch(nl.Netlink, '_request', real)
                reached.append(step)
                function()
            return real(netlink, device, step, *args, **kwargs)
        self.patch(nl.Netlink, '_request', request)
        return reached

    def each_request(self, prepare, act, function):
        """Call this before each request that something makes; yield which."""
        real = nl.Netlink._request
        for number in itertools.count(1):
            self.remove_taps()
            prepare()
            reached = self.before_request(number, function)
            act()
            self.patch(nl.Netlink, '_request', real)
            if not reached:
                return
            yield reached[0]

    def assert_no_guest_loses(self, prepare, act):
        guests = []

        def start():
            guest = start_guest(base.TAP, self.FLAGS)
            if guest is not None:
                guests.append(guest)
        started = 0
        for step in self.each_request(prepare, act, start):
            for guest in guests:
                self.assertEqual(
                    self.host.link(base.TAP).index, index_of(guest),
                    'dead, for it came before: ' + step)
                self.assertTrue(self.host.link(base.TAP).held, step)
                self.assertIsNone(self.host.link(base.TAP).former_name)
                self.assertEqual(29793, self.host.link(base.TAP).group)
                self.plug()
                self.assertIsNotNone(index_of(guest), step)
                started += 1
                guest.close()
            guests.clear()
        self.assertGreater(started, 1)

    def assert_back_after_each_kill(self, prepare, act):
        """Expect all to be as before for the next who plugs."""
        prepare()
        self.plug()
        expected = self.read_back()
        killed = set()
        for number in itertools.count(1):
            self.remove_taps()
            prepare()
            index = self.host.link(base.TAP).index

            def run(number=number):
                self.before_request(number, lambda: os.kill(
                    os.getpid(), signal.SIGKILL))
                act()
            if not self.wait(hosts.fork(run)):
                break
            self.assertLessEqual(self.links(),
                                 {base.TAP, base.BRIDGE, 'br200'})
            left = [link for link in self.host.links() if link.is_tap]
            killed |= {link.lost_name for link in left}
            self.assertEqual([index] * len(left),
                             [link.index for link in left])
            self.plug()
            self.assertEqual(expected, self.read_back(), number)
        return killed


class GuestsTest(DeletingTestCase):

    def put_on_another_bridge(self):
        self.plug(base.make_vif(bridge_name='br200'))

    def purge(self):
        removing.remove_many([TapIdentity(base.VIF_ID, base.TAP)], False)

    def test_plug_that_makes_it_anew(self):
        self.assert_no_guest_loses(self.put_on_another_bridge, self.plug)

    @base.needs_real_root(base.SEVERAL_USERS)
    def test_plug_for_another_owner(self):
        def prepare():
            self.configure(owner='nobody')
            self.plug()
            self.configure(owner='root')
        self.assert_no_guest_loses(prepare, self.plug)

    def test_plug_where_libvirt_makes_it(self):
        def plug():
            privileged.ensure_port(base.make_port(
                create_tap=False, bridge='br200',
                anti_spoofing=self.options.anti_spoofing).to_fields())
        self.assert_no_guest_loses(self.plug, plug)

    def test_purge(self):
        self.assert_no_guest_loses(self.plug, self.purge)

    def test_stranger_has_the_name_by_then(self):
        self.plug()
        strangers = []
        self.addCleanup(lambda: [each.close() for each in strangers])

        def look(netlink, *args):
            strangers.append(hosts.Guest(base.TAP))
            return True
        self.patch(removing, '_is_held', look)
        self.purge()
        self.assert_logged(base.TAP, 'stays, and may be called', 'tapmac '
                           'repair')
        left, = (link for link in self.host.links() if link.persistent)
        self.assertEqual(base.TAP, left.lost_name)


class GuestsWithManyQueuesTest(GuestsTest):

    FLAGS = MULTI_QUEUE

    def setUp(self):
        super().setUp()
        self.configure(multiqueue=True)

    def test_plug_that_fails(self):
        # He comes when the TAP has its name, and its plug fails after that.
        self.put_on_another_bridge()
        guests = []

        def fail(*args):
            guests.append(start_guest(base.TAP, self.FLAGS))
            raise exception.KernelRefused.from_errno(
                base.TAP, 'going on', errno.EIO)
        with fixtures.MonkeyPatch(
                converging.__name__ + '.require_bridge_name', fail):
            self.assertRaises(os_vif_exception.PlugException, self.plug)
        self.assertEqual(self.host.link(base.TAP).index, index_of(guests[0]))
        self.assert_logged('a guest uses it already')
        self.plug()
        self.assert_finished(multi_queue=True)
        self.assertEqual(self.host.link(base.TAP).index, index_of(guests[0]))
        guests[0].close()
        self.assert_finished(multi_queue=True)


class HiddenHolderTest(DeletingTestCase):
    """His carrier was switched off, so that nothing seems to hold the TAP."""

    def setUp(self):
        super().setUp()
        self.plug()
        self.guest = hosts.Guest(base.TAP)
        self.addCleanup(self.guest.close)
        with nl.Netlink() as netlink:
            netlink.change_named(base.TAP, base.TAP, 'switching it off',
                                 link_data.carrier(False))
        self.assertFalse(self.host.link(base.TAP).held)
        self.before = self.host.link(base.TAP)

    def assert_stays(self):
        self.assertEqual(self.before, self.host.link(base.TAP))
        self.assertEqual(self.before.index, index_of(self.guest))

    def test_plug_that_would_make_it_anew(self):
        self.plug(base.make_vif(bridge_name='br200'))
        self.assert_stays()
        self.assert_logged('is used by a guest, and wrong')

    def test_purge(self):
        self.assertEqual([], removing.remove_many(
            [TapIdentity(base.VIF_ID, base.TAP)], False))
        self.assert_stays()

    def test_told_to(self):
        self.assertEqual([base.TAP], removing.remove_many(
            [TapIdentity(base.VIF_ID, base.TAP)], True))
        self.assertIsNone(index_of(self.guest))


class KilledTest(DeletingTestCase):

    def test_plug_that_makes_it_anew(self):
        def prepare():
            self.plug(base.make_vif(bridge_name='br200'))
        self.assertEqual({None, base.TAP}, self.assert_back_after_each_kill(
            prepare, self.plug))

    def test_purge(self):
        self.assertEqual({None, base.TAP}, self.assert_back_after_each_kill(
            self.plug, lambda: removing.remove_many(
                [TapIdentity(base.VIF_ID, base.TAP)], False)))

    def kill_purge(self, vifs, step):
        """Have it killed when it does this for the last time.

        :param step: the beginning of the words for it
        """
        real = nl.Netlink._request
        left = itertools.count(len(vifs) - 1, -1)

        def request(netlink, device, words, *args, **kwargs):
            if words.startswith(step) and next(left) == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(netlink, device, words, *args, **kwargs)

        def purge():
            self.patch(nl.Netlink, '_request', request)
            self.purge(vifs)
        self.assertTrue(self.wait(hosts.fork(purge)))

    def purge(self, vifs):
        return removing.remove_many([TapIdentity(
            vif.id, vif.vif_name) for vif in vifs], False, 29793)

    def test_purge_of_many(self):
        vifs = [base.numbered_vif(number) for number in range(1, 5)]
        for step in ('noting', 'renaming', 'setting its link group'):
            for vif in vifs:
                self.plug(vif)
            self.kill_purge(vifs, step)
            # One gets its name and all else back, one goes.
            self.plug(vifs[0])
            self.assert_finished(vifs[0].vif_name, mac='fe:16:3e:00:00:01')
            self.unplug(vifs[1])
            self.assertEqual({base.BRIDGE} | {
                vif.vif_name for vif in vifs if vif != vifs[1]}, self.links())
            self.assertEqual(3, len(self.purge(vifs)), step)
            self.assertEqual({base.BRIDGE}, self.links())

    def test_next_purge_is_overtaken(self):
        # What stays after all has the group that it had before the first.
        self.plug()
        vif = base.make_vif()
        self.kill_purge([vif], 'deleting')
        left, = (link for link in self.host.links() if link.is_tap)
        self.assertNotEqual(29793, left.group)
        self.patch(removing, '_is_held', lambda *args: True)
        self.assertEqual([], self.purge([vif]))
        self.assert_finished()

    def test_unplug_that_finds_it_so(self):
        self.plug()
        self.kill_purge([base.make_vif()], 'deleting')
        self.unplug()
        self.assertEqual({base.BRIDGE}, self.links())

    def test_told_by_anothers_device(self):
        self.host.add(base.TAP[:-1], 'bridge')
        self.host.ip.link(
            'property_add', index=self.host.link(base.TAP[:-1]).index,
            altname=base.TAP + '.tapmac-being-deleted')
        self.assert_plug_fails(exception.DeviceConflict,
                               'is no TAP, has the alternative name')

    def test_told_by_the_tap_of_another_vif(self):
        other = base.numbered_vif(1)
        self.plug(other)
        self.host.ip.link(
            'property_add', index=self.host.link(other.vif_name).index,
            altname=base.TAP + '.tapmac-being-deleted')
        self.assert_plug_fails(exception.DeviceConflict,
                               'is that of another VIF')
        # Nor is it that VIF's to remove, or the other's to be renamed by.
        before = self.host.state()
        self.unplug()
        self.plug(other)
        self.assertEqual(before, self.host.state())
        self.assertNotIn('ip link delete', self.logs.output)
        # Neither while that one is being deleted itself.
        self.kill_purge([other], 'deleting')
        self.assert_plug_fails(exception.DeviceConflict,
                               'is that of another VIF')
        self.plug(other)
        self.assert_finished(other.vif_name, mac='fe:16:3e:00:00:01')


class OvertakenTest(DeletingTestCase):
    """Somebody else removes one, or gives it its name back."""

    def test_purge_beside_unplug(self):
        vifs = [base.numbered_vif(number) for number in range(1, 4)]

        def prepare():
            self.remove_all()
            for vif in vifs:
                self.unplug(vif)
            for vif in vifs:
                self.plug(vif)
            self.result = None

        def purge():
            self.result = removing.remove_many([TapIdentity(
                vif.id, vif.vif_name) for vif in vifs], False)
        for step in self.each_request(prepare, purge, lambda: (
                self.unplug(vifs[1]))):
            self.assertEqual({base.BRIDGE}, self.links(), step)
            self.assertLessEqual({vifs[0].vif_name, vifs[2].vif_name},
                                 set(self.result), step)

    def test_purge_beside_plug(self):
        def prepare():
            self.plug()
            self.index = self.host.link(base.TAP).index

        def purge():
            self.gone = removing.remove_many(
                [TapIdentity(base.VIF_ID, base.TAP)], False)
        for step in self.each_request(prepare, purge, self.plug):
            tap = self.host.find(base.TAP)
            self.assertEqual([] if tap and tap.index == self.index
                             else [base.TAP], self.gone, step)
            if tap is not None:
                self.assert_finished()

    def test_refused(self):
        # Whatever is refused, what is left is as it was.
        vifs = [base.numbered_vif(number) for number in range(1, 4)]
        for vif in vifs:
            self.plug(vif)
        real = nl.Netlink._request
        before = self.host.state()
        for number in itertools.count(1):
            numbers = itertools.count(1)

            def request(netlink, device, step, *args, **kwargs):
                if next(numbers) == number:
                    raise exception.KernelRefused.from_errno(
                        device, step, errno.ENOMEM)
                return real(netlink, device, step, *args, **kwargs)
            self.patch(nl.Netlink, '_request', request)
            try:
                removing.remove_many([TapIdentity(
                    vif.id, vif.vif_name) for vif in vifs], False)
            except exception.KernelRefused:
                self.patch(nl.Netlink, '_request', real)
                self.assertEqual(before, self.host.state())
            else:
                break
        self.assertGreater(number, 10)
        self.patch(nl.Netlink, '_request', real)
        self.assertEqual({base.BRIDGE}, self.links())
