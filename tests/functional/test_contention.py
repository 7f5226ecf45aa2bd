# SPDX-License-Identifier: Apache-2.0

"""Many processes plug and unplug at once; what they were told stays true."""

import collections
import logging
import mmap
import multiprocessing
import os
import random
import struct
import time
import traceback

from tests import base
from tests import hosts
from tests import patience
from vif_plug_tapmac.kernel import port

_PROCESSES = 16
_VIFS = 64
_BRIDGES = 4
#: For how long it goes on at least, and until how much was done and checked.
_SECONDS = patience.amount(0, 15, 60)
_OPERATIONS, _CHECKS = 2000, 1000

#: What a process was told of a VIF: how often anything was begun or ended, so
#: that it is odd while something is under way; and whether it is plugged.
Word = collections.namedtuple('Word', ('count', 'plugged'))


class Ledger:
    """What each process was told, for all to read while it goes on."""

    _FORMAT = 'i?0i'
    _SIZE = struct.calcsize(_FORMAT)

    def __init__(self, length):
        self._memory = mmap.mmap(-1, length * self._SIZE)

    def __getitem__(self, number):
        return Word(*struct.unpack_from(self._FORMAT, self._memory,
                                        number * self._SIZE))

    def __setitem__(self, number, word):
        struct.pack_into(self._FORMAT, self._memory, number * self._SIZE,
                         *word)


class ContentionTestCase(base.FunctionalTestCase):

    LOG_LEVEL = logging.WARNING

    def setUp(self):
        super().setUp()
        # Who is overtaken tries again, and there are many to overtake him.
        self.patch(port, '_GIVES_UP_AFTER', patience.HANG)
        self.children = []
        reader, writer = os.pipe()
        self.errors, self.error_writer = os.fdopen(reader), writer
        self.addCleanup(self.errors.close)

    def start(self, function, *arguments):
        """Run a function in a process; what it raises fails the test."""
        def run():
            try:
                function(*arguments)
            except BaseException:
                os.write(self.error_writer,
                         traceback.format_exc()[-4000:].encode())
        self.children.append(hosts.fork(run))

    def wait_for_all(self):
        for child in self.children:
            self.assertEqual(0, os.waitpid(child, 0)[1])
        os.close(self.error_writer)
        self.assertEqual('', self.errors.read())


class OwnVifsTest(ContentionTestCase):
    """Each process has its VIFs, on bridges that all share."""

    def setUp(self):
        super().setUp()
        self.vifs = [base.numbered_vif(
            number, bridge_name='br%d' % (number % _BRIDGES))
            for number in range(_PROCESSES * _VIFS)]
        self.ledger = Ledger(len(self.vifs))
        self.bridges = {}
        self.over = mmap.mmap(-1, 1)

    def plug_and_unplug(self, numbers):
        random.seed(numbers[0])
        while not self.over[0]:
            number = random.choice(numbers)
            word = self.ledger[number]
            self.ledger[number] = Word(word.count + 1, word.plugged)
            # Both are safe to repeat, so one in four does so.
            plug = random.random() < (0.25 if word.plugged else 0.75)
            (self.plug if plug else self.unplug)(self.vifs[number])
            self.ledger[number] = Word(word.count + 2, plug)

    def check(self, number):
        """Compare the kernel with what was said; return whether it could."""
        before = self.ledger[number]
        vif = self.vifs[number]
        link = self.host.find(vif.vif_name)
        master = link and self.bridge_name(link.master)
        if before.count % 2 or self.ledger[number] != before:
            return False
        self.assertEqual(before.plugged, link is not None, vif.vif_name)
        if link is not None:
            self.assertEqual(
                ('fe' + str(vif.address)[2:], vif.bridge_name, True, True, 0,
                 29793, 1500),
                (link.mac, master, link.up, link.persistent, link.owner,
                 link.group, link.mtu))
        return True

    def operations(self):
        """Return how many have ended."""
        return sum(self.ledger[number].count // 2
                   for number in range(len(self.vifs)))

    def bridge_name(self, index):
        """Return the name of a bridge; it is looked up once, and stays."""
        if index not in self.bridges:
            self.bridges = {
                link.index: link.name for link in map(self.host.find, (
                    'br%d' % number for number in range(_BRIDGES))) if link}
        return self.bridges.get(index)

    def test_what_is_acknowledged_is_so(self):
        for first in range(_PROCESSES):
            self.start(self.plug_and_unplug, range(
                first, len(self.vifs), _PROCESSES))
        self.addCleanup(self.over.__setitem__, 0, 1)
        begin = time.monotonic()
        checked = 0

        def is_enough():
            nonlocal checked
            checked += sum(self.check(random.randrange(len(self.vifs)))
                           for _ in range(100))
            return (checked > _CHECKS and self.operations() > _OPERATIONS
                    and time.monotonic() > begin + _SECONDS)
        patience.wait_until(is_enough, 'too little is done', pause=0)
        self.over[0] = 1
        self.wait_for_all()
        self.assertTrue(all(map(self.check, range(len(self.vifs)))))
        taps = {vif.vif_name for number, vif in enumerate(self.vifs)
                if self.ledger[number].plugged}
        self.assertEqual(
            taps | {'br%d' % number for number in range(_BRIDGES)} | {'lo'},
            {link.name for link in self.host.state()[0]})


class OneVifTest(ContentionTestCase):
    """All processes have the same VIF, another one each round."""

    ROUNDS = 20

    def together(self, *functions):
        """Call each function in a process of its own, in step with others."""
        start = multiprocessing.get_context('fork').Barrier(
            len(functions), timeout=patience.HANG)

        def run(function):
            try:
                for number in range(self.ROUNDS):
                    start.wait()
                    function(base.numbered_vif(number))
            except BaseException:
                start.abort()
                raise
        for function in functions:
            self.start(run, function)
        self.wait_for_all()

    def assert_plugged(self, vif):
        self.assert_finished(vif.vif_name, mac='fe' + str(vif.address)[2:])

    def test_plugs(self):
        def plug_and_look(vif):
            self.plug(vif)
            self.assert_plugged(vif)
        self.together(*[plug_and_look] * 8)
        self.assertEqual(2 + self.ROUNDS, len(self.host.state()[0]))

    def test_plugs_and_unplugs(self):
        self.together(*[self.plug, self.unplug] * 4)
        for number in range(self.ROUNDS):
            vif = base.numbered_vif(number)
            self.plug(vif)
            self.assert_plugged(vif)
            self.unplug(vif)
        self.assertEqual(2, len(self.host.state()[0]))
