# SPDX-License-Identifier: Apache-2.0

"""udev and the MAC: the real one never wins, and one that lies costs no MAC.

The race is real but rare, so there is a control that must lose it: a program
that makes the TAP persistent first and sets the MAC afterwards.
"""

import contextlib
import logging
import multiprocessing
import os
import pathlib
import random
import signal
import threading
import time

import fixtures

from tests import base
from tests import hosts
from tests import patience
from tests import udevd
from vif_plug_tapmac.host import link_files
from vif_plug_tapmac.kernel import udev

_PLUGS = patience.amount(20, 100, 200)
_MOST_CONTROLS = 5000
_UDEVS_MAC = '02:00:00:00:00:77'
# How a device came to its MAC, as sysfs says it (addr_assign_type).
_AT_RANDOM, _BY_SOMEBODY = '1', '3'


@base.too_slow_emulated('a udevd that has to lose a race')
class UdevdTest(base.FunctionalTestCase):
    """systemd-udevd with MACAddressPolicy=persistent."""

    LOG_LEVEL = logging.WARNING

    def setUp(self):
        super().setUp()
        missing = udevd.missing()
        if missing:
            self.cannot_run(missing)
        self.configure(udev_timeout=patience.HANG)
        random.seed(self.id())

    @contextlib.contextmanager
    def load(self):
        """Keep every CPU busy three times over."""
        processes = [
            multiprocessing.get_context('fork').Process(target=spin)
            for _ in range(3 * len(os.sched_getaffinity(0)))]
        for process in processes:
            process.start()
        try:
            yield
        finally:
            for process in processes:
                process.kill()
                process.join()

    @contextlib.contextmanager
    def stutter(self, process):
        """Stop udevd for a moment, again and again: wherever it is just now.

        Now and then that is between its look at the MAC and its overwriting.
        """
        stop = threading.Event()

        def run():
            while not stop.is_set():
                for number, longest in ((signal.SIGSTOP, 0.05),
                                        (signal.SIGCONT, 0.002)):
                    os.killpg(process.pid, number)
                    time.sleep(random.uniform(0, longest))
        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def mac_after_udev(self, name):
        """Return the MAC of a link once udev has nothing more to do to it."""
        link = self.host.link(name)
        record = pathlib.Path('/run/udev/data/n%d' % link.index)
        patience.wait_until(record.exists, '%s has no record' % name,
                            pause=0.001)
        return self.host.link(name).mac

    def assert_no_mac_is_lost(self):
        vifs = [base.numbered_vif(number) for number in range(_PLUGS)]
        for vif in vifs:
            self.plug(vif)
        # Each record was there before the TAP was persistent; and as there is
        # more to come with the renaming, look again after udev is idle.
        self.mac_after_udev(self.host.add('last', 'veth', peer='peer').name)
        for vif in vifs:
            self.assertEqual('fe' + vif.address[2:],
                             self.host.link(vif.vif_name).mac)
        self.assertNotIn('udev did not say', self.logs.output)

    def lose_a_mac(self):
        """Do as libvirt does, until udev is faster."""
        took = 0.003
        for number in range(_MOST_CONTROLS):
            with hosts.Guest('ctl') as device:
                begin = time.monotonic()
                device.persist()
                # Any time while udev is at it, on a busy machine as well.
                time.sleep(random.uniform(0, took))
                self.host.set('ctl', address=base.TAP_MAC)
            lost = self.mac_after_udev('ctl') != base.TAP_MAC
            took = time.monotonic() - begin
            self.host.delete('ctl')
            if lost:
                return
        self.fail('udev never won in %d tries' % _MOST_CONTROLS)

    def test_idle(self):
        with udevd.running():
            self.assert_no_mac_is_lost()

    def test_under_load(self):
        with udevd.running(), self.load():
            self.assert_no_mac_is_lost()

    def test_stuttering(self):
        with udevd.running() as process, self.stutter(process):
            self.assert_no_mac_is_lost()

    def test_control(self):
        self.only_in_full()
        with udevd.running():
            self.lose_a_mac()

    def test_link_file(self):
        link_file = base.CHECKOUT / 'etc/systemd/network/70-tapmac.link'
        with udevd.running(link_file):
            for name, assigned in ((base.TAP, _AT_RANDOM),
                                   ('tapmac-372726ff', _AT_RANDOM),
                                   ('tap0', _BY_SOMEBODY)):
                self.host.add_tap(name)
                self.mac_after_udev(name)
                self.assertEqual(assigned, self.assigned(name), name)

    def assigned(self, name):
        return pathlib.Path('/sys/class/net', name,
                            'addr_assign_type').read_text().strip()

    def test_what_is_beside_a_link_file(self):
        beside = pathlib.Path(self.useFixture(fixtures.TempDir()).join(
            '99-default.link.d'))
        beside.mkdir()
        (beside / 'keep.conf').write_text('[Link]\nMACAddressPolicy=none\n')
        for files, assigned, rewrites in (
                ((), _BY_SOMEBODY, '/run/systemd/network/99-default.link'),
                ((beside,), _AT_RANDOM, None)):
            with udevd.running(*files):
                self.host.add_tap('tap0')
                self.mac_after_udev('tap0')
                self.assertEqual(assigned, self.assigned('tap0'))
                self.assertEqual(rewrites, link_files.file_that_rewrites())
            self.host.delete('tap0')


def spin():
    while True:
        pass


class LyingUdevTest(base.FunctionalTestCase):
    """A /run/udev whose udev is slow, or does not see our devices at all."""

    def setUp(self):
        super().setUp()
        self.run = self.enter(udevd.run_directory())
        (self.run / 'control').touch()

    def plug_for(self):
        """Plug; return how many seconds it took."""
        start = time.monotonic()
        self.plug()
        took = time.monotonic() - start
        self.assert_finished()
        return took

    def assert_warned(self):
        self.assert_logged(base.TAP, 'udev did not say within 0.3 s',
                           'udev_timeout')

    def assert_not_waited(self):
        """Plug; expect it not to wait for what never comes."""
        self.plug_for()
        self.assertNotIn('udev did not say', self.logs.output)

    def test_record_is_never_written(self):
        self.configure(udev_timeout=0.3)
        self.assertGreaterEqual(self.plug_for(), 0.3)
        self.assert_warned()

    def test_record_of_an_older_link_with_the_same_index(self):
        # Older by a tick of the clock of file times, at least.
        a_tick_ago = udev.now() - 1
        for index in range(100):
            record = self.run / 'data' / ('n%d' % index)
            record.touch()
            os.utime(record, ns=(a_tick_ago, a_tick_ago))
        self.configure(udev_timeout=0.3)
        self.assertGreaterEqual(self.plug_for(), 0.3)
        self.assert_warned()

    def overwrite_mac(self):
        """Do what udev does when it loses no race: overwrite the MAC."""
        index = self.host.set(base.TAP, address=_UDEVS_MAC).index
        self.persistent = self.host.link(base.TAP).persistent
        (self.run / 'data' / ('n%d' % index)).touch()

    def overwrite_mac_later(self):
        """Do so in the midst of a plug."""
        def run():
            patience.wait_until(lambda: self.host.find(base.TAP),
                                'no TAP is made', pause=0.001)
            time.sleep(0.3)
            self.overwrite_mac()
        thread = threading.Thread(target=run)
        thread.start()
        self.addCleanup(thread.join)

    def test_record_is_written_late(self):
        self.configure(udev_timeout=patience.HANG)
        self.overwrite_mac_later()
        self.assertGreaterEqual(self.plug_for(), 0.3)
        self.assertFalse(self.persistent)
        self.assertNotIn('udev did not say', self.logs.output)

    def test_record_is_written_too_late(self):
        # The MAC is lost, then; it is put right by the next plug.
        self.configure(udev_timeout=0.3)
        self.plug_for()
        self.assert_warned()
        self.overwrite_mac()
        self.assertTrue(self.persistent)
        self.assertEqual(_UDEVS_MAC, self.host.link(base.TAP).mac)
        self.plug_for()

    def test_no_waiting_where_no_udev_runs(self):
        (self.run / 'control').unlink()
        self.configure(udev_timeout=0.3)
        self.assert_not_waited()

    def test_no_waiting_if_told_so(self):
        self.configure(udev_timeout=0)
        self.assert_not_waited()

    def test_no_waiting_for_a_tap_that_exists(self):
        self.configure(udev_timeout=0)
        self.plug()
        self.configure(udev_timeout=0.3)
        self.assert_not_waited()
