# SPDX-License-Identifier: Apache-2.0

"""Many TAPs for long: nothing is lost, nothing grows, nothing is said."""

import contextlib
import gc
import itertools
import logging
import mmap
import os
import pathlib
import re
import signal
import struct
import time

import pyroute2

from tests import base
from tests import faults
from tests import hosts
from tests import patience
from vif_plug_tapmac import privsep

#: TAPs, those of them that carry frames, bridges, and how often all are
#: plugged again.
_TAPS, _TALKING, _BRIDGES, _ROUNDS = (
    (1000, 20, 10, 10) if patience.LONG else (60, 10, 3, 4))
#: In seconds, between two frames of one guest.
_PAUSE = 0.01
#: In kB, from the second round to the last: what Python's memory varies by.
_GROWTH = 4096
#: What may be said above INFO, and why.
_EXPLAINED = (
    # Of each bridge once, for none has an uplink here.
    r'Bridge br\d+ has no uplink: ',
)


def usage(process):
    """Return what a process has: descriptors, threads, memory in kB."""
    path = pathlib.Path('/proc/%d' % process)
    said = dict(line.split(':', 1) for line in
                (path / 'status').read_text().splitlines() if ':' in line)
    return (len(list((path / 'fd').iterdir())), int(said['Threads']),
            int(said['VmRSS'].split()[0]))


class Talk:
    """Guests that send numbered frames round in a ring, in a process."""

    def __init__(self, vifs):
        self._counters = mmap.mmap(-1, 24)
        self._vifs = vifs
        self._process = hosts.fork(self._run)

    def _set(self, *numbers):
        self._counters[:] = struct.pack('3Q', *numbers)

    def counters(self):
        """Return how many frames were sent, and how many came."""
        return struct.unpack('3Q', self._counters[:])[:2]

    def _run(self):
        end = []
        signal.signal(signal.SIGTERM, lambda *args: end.append(True))
        guests = [hosts.Guest(vif.vif_name, vif.address)
                  for vif in self._vifs]
        missing = set()
        # Until all ports forward, frames are lost by right.
        last = self._talk_until_a_round_arrives(guests, 0, missing)
        missing.clear()
        first = last
        while not end:
            last = self._round(guests, last, missing)
            self._set(last - first, last - first - len(missing), 1)
            time.sleep(_PAUSE)
        # Nobody is overtaken, so what is missing then is lost.
        self._talk_until_a_round_arrives(guests, last, missing)
        lost = sum(number <= last for number in missing)
        self._set(last - first, last - first - lost, 1)

    def _talk_until_a_round_arrives(self, guests, last, missing):
        """Return the number of its last frame."""
        deadline = time.monotonic() + patience.HANG
        while time.monotonic() < deadline:
            before, last = last, self._round(guests, last, missing)
            if not any(number > before for number in missing):
                break
            time.sleep(_PAUSE)
        return last

    def _round(self, guests, last, missing):
        """Have each guest send a frame, and take what there is.

        :param last: the number of the last frame before
        :param missing: the numbers of what has not arrived
        :returns: the number of the last frame
        """
        for guest, receiver in zip(guests, guests[1:] + guests[:1]):
            last += 1
            missing.add(last)
            guest.send(receiver.mac, b'soak' + struct.pack('!Q', last))
        for guest in guests:
            for frame in guest.waiting():
                if frame[14:18] == b'soak':
                    missing.discard(*struct.unpack('!Q', frame[18:26]))
        return last

    def wait_until_it_runs(self):
        patience.wait_until(lambda: self._counters[16], 'nobody talks')

    def stop(self):
        os.kill(self._process, signal.SIGTERM)
        os.waitpid(self._process, 0)


def churn():
    """Make and delete bridges, and peers on bridges with guests."""
    with pyroute2.IPRoute() as ip:
        for number in itertools.count():
            bridge, port = 'churn%d' % (number % 7), 'peer%d' % (number % 7)
            with contextlib.suppress(pyroute2.NetlinkError):
                ip.link('add', ifname=bridge, kind='bridge')
                ip.link('add', ifname=port, kind='veth', peer=port + 'x')
                guests = ip.link_lookup(ifname='br%d' % (number % _BRIDGES))
                for name in port, port + 'x', bridge:
                    index, = ip.link_lookup(ifname=name)
                    ip.link('set', index=index, state='up')
                ip.link('set', index=ip.link_lookup(ifname=port)[0],
                        master=guests[0])
            time.sleep(0.02)
            for name in bridge, port:
                for index in ip.link_lookup(ifname=name):
                    ip.link('del', index=index)
            time.sleep(0.02)


class SoakTest(base.FunctionalTestCase):

    LOG_LEVEL = logging.WARNING

    def setUp(self):
        super().setUp()
        # It starts another thread whenever a call comes before the last one
        # is done with its answer, up to so many: by default one a CPU.
        self.config.config(group=privsep.vif_plug.cfg_section,
                           thread_pool_size=1)
        self.start_daemon()
        self.daemon, = self.host.processes()

    def usage(self):
        gc.collect()
        return usage(os.getpid()), usage(self.daemon)

    def assert_no_growth(self, before, after):
        for (files, threads, memory), now in zip(before, after):
            self.assertEqual((files, threads), now[:2])
            self.assertLess(now[2], memory + _GROWTH)

    def test_soak(self):
        vifs = [base.numbered_vif(
            number, bridge_name='br%d' % (number // _TALKING % _BRIDGES))
            for number in range(_TAPS)]
        talking, idle = vifs[:_TALKING], vifs[_TALKING:]
        for vif in vifs:
            self.plug(vif)
        talk = Talk(talking)
        talk.wait_until_it_runs()
        churning = hosts.fork(churn)
        self.addCleanup(os.waitpid, churning, 0)
        self.addCleanup(os.kill, churning, signal.SIGKILL)
        measured = []
        for number in range(_ROUNDS):
            for vif in vifs:
                self.plug(vif)
            for vif in idle[number::10]:
                self.unplug(vif)
                self.plug(vif)
            measured.append(self.usage())
            faults.tell(self, 'round %d: %s, %s' % (
                number, talk.counters(), measured[-1]))
        patience.wait_until(lambda: talk.counters()[0] > 100 * _TALKING,
                            'nobody talks any more')
        talk.stop()
        sent, received = talk.counters()
        self.assertEqual(sent, received)
        self.assert_no_growth(measured[1], measured[-1])
        for vif in vifs:
            self.assert_finished(vif.vif_name, master=vif.bridge_name,
                                 mac='fe' + str(vif.address)[2:])
        for vif in vifs:
            self.unplug(vif)
        self.assertEqual([], [link.name for link in self.host.state()[0]
                              if link.is_tap])
        self.assertEqual([], [
            line for line in self.logs.output.splitlines()
            if not re.match('|'.join(_EXPLAINED), line)])
