# SPDX-License-Identifier: Apache-2.0

"""What ``tapmac watch`` tells where much happens, and what it costs.

What it tells of one port is in test_operator.
"""

import signal
import socket
import struct

from tests import base
from tests.functional import test_operator
from tests import hosts
from tests import libvirt_domains
from tests import patience
from vif_plug_tapmac import bounded
from vif_plug_tapmac.kernel import events

_TAPS = 400 if patience.IN_FULL else 40
_VISITS = patience.amount(10, 20, 50)
#: Longer than any test: nothing is looked at for the time that it is.
_NEVER = '86400'
_COUNTING = '''
import sys
from vif_plug_tapmac.cli import main
from vif_plug_tapmac.host import inventory
real = inventory.read
def read(config):
    print('look', flush=True)
    return real(config)
inventory.read = read
sys.exit(main.main())
'''
_RTMGRP_LINK = 1
_NEW_LINK = 16


class CrowdTest(test_operator.WatchingTestCase):
    """A host with many TAPs."""

    def setUp(self):
        super().setUp()
        self.domains.define()
        for number in range(1, _TAPS):
            self.plug(base.numbered_vif(number))

    def looks(self):
        """Return how often it has looked up to the last line waited for."""
        return self.told.count(b'look\n')

    def test_one_look_for_a_plug(self):
        with hosts.Guest('tap00000001'):
            # Its bridge is not down any more, and does not tell of that.
            self.host.wait_until_forwarding('tap00000001')
            self.start('--interval', _NEVER, code=_COUNTING)
            self.wait_for('watching', '%d TAPs' % (_TAPS - 1))
            self.assertEqual(1, self.looks())
            # However long it takes, it is told of at once.
            self.watch.send_signal(signal.SIGSTOP)
            with events.LinkEvents() as happening:
                self.plug()
                self.wait_for_kernel(happening, held=False)
            self.watch.send_signal(signal.SIGCONT)
            self.wait_for(' plug ', base.TAP)
            while self.looks() < 2:
                self.wait_for('look')
            # Had it looked any more, it would have by this.
            self.host.set(base.TAP, mtu=1400)
            self.wait_for(' MTU ', base.TAP)
            self.assertEqual(2, self.looks())

    def test_each_visit_is_told(self):
        self.plug()
        self.start('--interval', _NEVER)
        self.wait_for('watching')
        with events.LinkEvents() as happening:
            for _ in range(_VISITS):
                with hosts.Guest(base.TAP):
                    self.wait_for_kernel(happening, held=True)
                self.wait_for_kernel(happening, held=False)
        for _ in range(_VISITS):
            self.wait_for(' held ', base.TAP)
            self.wait_for(' released ', base.TAP)

    def wait_for_kernel(self, happening, held):
        """Wait until the kernel tells that a guest came or went."""
        patience.wait_until(
            lambda: any(event.link.name == base.TAP
                        and event.link.held is held
                        for event in happening.wait(0.1)),
            'the kernel tells nothing')


class UnreadableTest(test_operator.WatchingTestCase):

    def tell_all(self, data):
        """Send what claims to be an event to all who listen."""
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW,
                           socket.NETLINK_ROUTE) as sender:
            sender.sendto(data, (0, _RTMGRP_LINK))

    def test_passed_over(self):
        self.plug()
        self.start('--interval', _NEVER)
        self.wait_for('watching')
        for data in (b'x', b'\0' * 16, struct.pack('=IHHII', 999, 16, 0, 0, 0),
                     struct.pack('=IHHII', 16, _NEW_LINK, 0, 0, 0),
                     struct.pack('=IHHII', 32, _NEW_LINK, 0, 0, 0)
                     + bytes(16)):
            self.tell_all(data)
        self.host.set(base.TAP, mtu=1400)
        self.wait_for(' MTU ', base.TAP)

    def test_one_of_the_kernel(self):
        """No other is lost for one that is not understood."""
        index = self.host.add_tap('tap0').index
        real = events.Link.from_message

        def from_message(body):
            link = real(body)
            if link.index == index:
                raise LookupError()
            return link
        self.patch(events.Link, 'from_message', from_message)
        with events.LinkEvents() as happening:
            self.host.ip.link('set', index=index, mtu=1400)
            self.host.add('br0', 'bridge')
            names = []
            while 'br0' not in names:
                names += [event.link.name
                          for event in happening.wait(patience.HANG)]
        self.assertNotIn('tap0', names)

    def test_more_than_is_kept(self):
        """What happens after that was said is told again."""
        self.host.add_tap('tap0')
        self.patch(events, '_EVENT_BUFFER', 1 << 13)
        with events.LinkEvents() as happening:
            for number in range(100):
                self.host.set('tap0', mtu=1000 + number)
            lost = self.assertRaises(events.Overrun, happening.wait, 0)
            self.assertNotEqual([], lost.kept)
            self.host.set('tap0', mtu=1500)
            self.assertEqual([1500], [
                event.link.mtu for event in happening.wait(patience.HANG)])


class SilentLibvirtTest(test_operator.WatchingTestCase):

    def test_links_are_seen(self):
        self.only_in_full()
        self.domains.define()
        self.useFixture(libvirt_domains.Silent())
        self.start()
        self.wait_for('watching')
        self.plug()
        self.wait_for(' plug ', base.TAP)
        with hosts.Guest(base.TAP):
            self.wait_for(' held ', base.TAP)
        self.wait_for(' released ', base.TAP)
        self.host.set(base.TAP, address='02:00:00:00:00:07')
        self.wait_for(' TM201 ', base.TAP, 'warning')
        self.plug()
        self.wait_for(' TM201 ', base.TAP, 'gone')
        self.watch.terminate()
        self.assertIn('within %g s' % bounded.SECONDS,
                      self.watch.stderr.read().decode())
