# SPDX-License-Identifier: Apache-2.0

"""Guests start at any moment while plug, unplug, repair and purge delete.

Test strategy: forty idle TAPs of another owner than configured, which repair
and plugs make anew, and purge and unplug remove. Meanwhile processes open them
as libvirt does. Whoever has got his TAP has it still at the end, but for those
whose TAP was unplugged. The control takes no names away, and guests lose.
"""

import collections
import itertools
import os
import random
import time

import fixtures

from tests import base
from tests import faults
from tests.functional import test_deleting
from tests import hosts
from tests import patience
from vif_plug_tapmac import exception
from vif_plug_tapmac.host import audit
from vif_plug_tapmac.host import inventory
from vif_plug_tapmac.host import mending
from vif_plug_tapmac.kernel import removing
from vif_plug_tapmac.wanted.port import TapIdentity

_TAPS = 40
_ROUNDS = patience.amount(2, 3, 20)
#: Which of them are unplugged, too.
_UNPLUGGED = range(_TAPS - 5, _TAPS)
#: The lives of guests, one octet each.
_WAITS, _STARTED, _ALIVE, _DEAD, _NEVER = b'.', b's', b'a', b'd', b'n'


def delete_unseen(netlink, link, own_queues=0):
    """Delete as was done before: whoever has looked believes what he saw."""
    netlink.delete(link)
    return True


def remove_many_unseen(identities, also_held, link_group=None):
    """Remove those that nobody holds at the first look."""
    names = {identity.name for identity in identities}
    with removing.nl.Netlink() as netlink:
        for link in netlink.links():
            if link.name in names and not link.held:
                netlink.delete(link)


@base.needs_real_root(base.SEVERAL_USERS)
class UnderFireTest(test_deleting.DeletingTestCase):

    MULTI_QUEUE = False

    def setUp(self):
        super().setUp()
        self.configure(multiqueue=self.MULTI_QUEUE)
        self.vifs = [base.numbered_vif(number) for number in range(_TAPS)]

    def run_guests(self, seconds):
        """Start a guest for each TAP, at a moment in this time.

        :returns: their processes, and what each writes of its life
        """
        lives = [os.pipe() for _ in self.vifs]
        orders = [os.pipe() for _ in self.vifs]
        flags = test_deleting.MULTI_QUEUE if self.MULTI_QUEUE else (
            hosts.IFF_TAP)

        def live(number):
            for other, (_, writer) in enumerate(lives):
                if other != number:
                    os.close(writer)
            random.seed((self.id(), number, time.monotonic()).__hash__())
            deadline = time.monotonic() + random.uniform(0, seconds)
            time.sleep(max(0, deadline - time.monotonic()))
            guest = test_deleting.start_guest(
                self.vifs[number].vif_name, flags)
            os.write(lives[number][1], _NEVER if guest is None else _STARTED)
            os.read(orders[number][0], 1)
            if guest is not None:
                alive = test_deleting.index_of(guest) is not None
                os.write(lives[number][1], _ALIVE if alive else _DEAD)
        children = [hosts.fork(lambda number=number: live(number))
                    for number in range(_TAPS)]
        for _, writer in lives:
            os.close(writer)  # Who dies without a word is heard.
        return children, lives, orders

    def round(self, *acts):
        """Have guests start beside these; return how each one fared."""
        self.remove_taps()
        self.configure(owner='nobody')
        for vif in self.vifs:
            self.plug(vif)
        self.configure(owner='root')
        begin = time.monotonic()
        # What is done takes about as long as there are guests to come.
        children, lives, orders = self.run_guests(self.seconds)
        workers = [hosts.fork(act) for act in acts]
        for worker in workers:
            self.assertEqual(0, os.waitpid(worker, 0)[1])
        self.seconds = max(0.05, time.monotonic() - begin)
        started = [os.read(reader, 1) for reader, _ in lives]
        for _, writer in orders:
            os.write(writer, b'.')
        ended = [life if life in (_NEVER, b'') else os.read(reader, 1)
                 for life, (reader, _) in zip(started, lives)]
        for child in children:
            os.waitpid(child, 0)
        self.assertNotIn(b'', started + ended, 'a guest had an error')
        for descriptor in [reader for reader, _ in lives] + list(
                itertools.chain(*orders)):
            os.close(descriptor)
        return ended

    def repair(self):
        seen = inventory.read(self.options)
        mending.mend(seen, self.options, [
            finding for finding in audit.audit_links(seen)
            if finding.mendable], None, open(os.devnull, 'w'))

    def plug_some(self):
        for vif in random.sample(self.vifs, 15):
            try:
                self.plug(vif)
            except Exception as error:
                # A guest of his own has the name.
                if not isinstance(error.kwargs['err'], exception.TapMacError):
                    raise

    def purge_some(self):
        removing.remove_many([
            TapIdentity(vif.id, vif.vif_name)
            for vif in random.sample(self.vifs, 15)], False, 29793)

    def unplug_some(self):
        for number in _UNPLUGGED:
            self.unplug(self.vifs[number])

    def fire(self, rounds):
        self.seconds = 1.0
        total = collections.Counter()
        for _ in range(rounds):
            ended = self.round(self.repair, self.plug_some, self.purge_some,
                               self.unplug_some)
            total += collections.Counter(
                life for number, life in enumerate(ended)
                if number not in _UNPLUGGED)
            self.assert_nothing_in_between()
        faults.tell(self, '%d guests have their TAP, %d lost it, %d got none'
                    % (total[_ALIVE], total[_DEAD], total[_NEVER]))
        return total

    def assert_nothing_in_between(self):
        self.assertEqual([], [link for link in self.host.links()
                              if link.former_name is not None])
        self.assertEqual({29793}, {
            link.group for link in self.host.links()
            if link.is_tap and link.persistent} | {29793})

    def test_no_guest_loses(self):
        total = self.fire(_ROUNDS)
        self.assertGreater(total[_ALIVE], 5 * _ROUNDS)
        self.assertEqual(0, total[_DEAD])

    def test_control(self):
        for place, instead in (('delete_idle', delete_unseen),
                               ('remove_many', remove_many_unseen)):
            self.useFixture(fixtures.MonkeyPatch(
                '%s.%s' % (removing.__name__, place), instead))
        lost = rounds = 0
        while not lost or rounds < _ROUNDS and patience.LONG:
            rounds += 1
            self.assertLess(rounds, 200, 'guests are never too late')
            lost += self.fire(1)[_DEAD]
        faults.tell(self, 'lost by the control: %d in %d rounds'
                    % (lost, rounds))


class UnderFireWithManyQueuesTest(UnderFireTest):

    MULTI_QUEUE = True
