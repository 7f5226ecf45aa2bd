# SPDX-License-Identifier: Apache-2.0

"""The privileged daemon is killed: the call fails clearly, the next works.

A real daemon, started by privsep-helper as nova-compute starts it, but as
root without sudo.
"""

import logging
import os
import pathlib
import signal
import sys
import tempfile
import threading
import time

import fixtures
from os_vif import exception as os_vif_exception
from oslo_config import cfg
from oslo_privsep import capabilities

from tests import base
from tests import faults
from tests import patience
from vif_plug_tapmac import exception
from vif_plug_tapmac import privsep

_KILLS = 100 if patience.LONG else 10
_HELPER = pathlib.Path(sys.prefix) / 'bin/privsep-helper'


class KilledTest(base.FunctionalTestCase):

    LOG_LEVEL = logging.WARNING

    def setUp(self):
        super().setUp()
        options = tempfile.NamedTemporaryFile('w')
        self.addCleanup(options.close)
        options.write('[os_vif_tapmac]\nudev_timeout = 0\n')
        options.flush()
        self.config.config(
            group='vif_plug_tapmac_privileged',
            capabilities=[capabilities.CAP_NET_ADMIN],
            helper_command='%s --config-file %s' % (_HELPER, options.name))
        # Where the checkout is not installed.
        path = os.environ.get('PYTHONPATH')
        os.environ['PYTHONPATH'] = os.pathsep.join(
            filter(None, (str(base.CHECKOUT), path)))
        self.addCleanup(os.environ.__setitem__, 'PYTHONPATH', path or '')
        privsep.vif_plug.set_client_mode(True)
        self.addCleanup(privsep.vif_plug.set_client_mode, False)
        self.addCleanup(privsep.vif_plug.stop)
        # A reader that dies says so on stderr.
        self.patch(threading, 'excepthook', lambda args: None)
        self.plug()

    def daemon(self):
        daemon, = self.host.processes()
        return daemon

    def kill(self, daemon):
        os.kill(daemon, signal.SIGKILL)
        patience.wait_until(lambda: daemon not in self.host.processes(),
                            'it lives', pause=0.001)

    def wait_until_noticed(self):
        privsep.vif_plug.channel.reader_thread.join(patience.HANG)

    def wait_until_sent(self, calls):
        """Wait until so many calls wait for an answer."""
        channel = privsep.vif_plug.channel

        def are_sent():
            with channel.lock:  # Who sends has it until he waits.
                return len(channel.outstanding_msgs) == calls
        patience.wait_until(are_sent, 'calls are not sent')

    def start(self, function, *arguments):
        """Call it in a thread; return what waits for it.

        :returns: a function that returns what it raised, None if nothing
        """
        raised = []

        def run():
            try:
                function(*arguments)
            except Exception as error:
                raised.append(error.kwargs['err'] if isinstance(
                    error, os_vif_exception.ExceptionBase) else error)
        thread = threading.Thread(target=run, daemon=True)
        thread.start()

        def wait():
            thread.join(patience.HANG)
            self.assertFalse(thread.is_alive(), 'hangs')
            return raised[0] if raised else None
        return wait

    def assert_lost(self, error):
        self.assertIsInstance(error, exception.DaemonLost)
        self.assertIn(base.TAP, str(error))
        self.assertIn('another one is started', str(error))

    def assert_works_again(self):
        self.assertIsNone(self.start(self.plug)())
        self.assert_finished()
        self.daemon()

    def test_between_calls(self):
        self.kill(self.daemon())
        # It takes the reader a moment to notice.
        error = self.start(self.plug)()
        if error is not None:
            self.assert_lost(error)
        self.assert_works_again()
        # We say so, or oslo.privsep, whoever looks first.
        self.assertRegex(self.logs.output,
                         'daemon of tapmac has ended|RESTARTING PrivContext')

    def test_between_calls_and_then_unplug(self):
        self.kill(self.daemon())
        self.wait_until_noticed()
        self.assertIsNone(self.start(self.unplug)())
        self.assertIsNone(self.host.find(base.TAP))

    def test_before_it_has_read_the_call(self):
        # The connection is reset, and not only closed.
        daemon = self.daemon()
        os.kill(daemon, signal.SIGSTOP)
        waiting = [self.start(self.plug), self.start(self.unplug),
                   self.start(self.plug)]
        self.wait_until_sent(len(waiting))
        self.kill(daemon)
        for wait in waiting:
            self.assert_lost(wait())
        self.assert_works_again()

    def test_it_does_not_answer(self):
        self.patch(privsep, '_ANSWERS_WITHIN', 0.5)
        self.configure(udev_timeout=0.25)
        daemon = self.daemon()
        os.kill(daemon, signal.SIGSTOP)
        for function in self.plug, self.unplug:
            error = self.start(function)()
            self.assertIsInstance(error, exception.DaemonSilent)
            for words in base.TAP, 'within 0.75 s', 'end it':
                self.assertIn(words, str(error))
        self.patch(privsep, '_ANSWERS_WITHIN', patience.HANG)
        self.kill(daemon)  # As the message says.
        self.wait_until_noticed()
        self.assert_works_again()

    def test_it_does_not_start(self):
        """As when sudo asks a directory of users that does not answer."""
        gate = os.path.join(self.useFixture(fixtures.TempDir()).path, 'gate')
        os.mkfifo(gate)
        helper = cfg.CONF.vif_plug_tapmac_privileged.helper_command
        self.config.config(
            group='vif_plug_tapmac_privileged', helper_command=(
                'sh -c \'read _ < %s; exec %s "$@"\' sh' % (gate, helper)))
        self.kill(self.daemon())
        self.wait_until_noticed()
        self.patch(privsep, '_STARTS_WITHIN', 0.25)
        for function in self.plug, self.unplug, self.plug:
            error = self.start(function)()
            self.assertIsInstance(error, exception.DaemonUnstarted)
            for words in base.TAP, 'within 0.25 s', 'helper_command':
                self.assertIn(words, str(error))
        self.patch(privsep, '_STARTS_WITHIN', patience.HANG)
        with open(gate, 'w') as opened:
            opened.write('\n')
        self.assert_works_again()

    def test_in_the_middle_of_a_call(self):
        self.only_in_full()
        lost = number = 0
        while number < _KILLS or not lost:
            daemon = self.daemon()
            wait = self.start(self.unplug if number % 2 else self.plug,
                              base.make_vif(bridge_name='br%d' % number))
            time.sleep(0.02 * (number % _KILLS) / _KILLS)
            self.kill(daemon)
            error = wait()
            if error is not None:
                self.assert_lost(error)
                lost += 1
            self.wait_until_noticed()
            self.assert_works_again()
            number += 1
            self.assertLess(number, 10 * _KILLS)
        faults.tell(self, '%d kills, %d calls lost' % (number, lost))

    def test_many_callers_start_one_daemon(self):
        self.kill(self.daemon())
        vifs = [base.numbered_vif(number) for number in range(10)]
        self.wait_until_noticed()
        errors = [wait() for wait in [
            self.start(self.plug, vif) for vif in vifs]]
        self.assertEqual([None] * len(vifs), errors)
        self.daemon()

    def test_it_cannot_be_started_any_more(self):
        self.kill(self.daemon())
        self.wait_until_noticed()
        command = cfg.CONF.vif_plug_tapmac_privileged.helper_command
        self.config.config(group='vif_plug_tapmac_privileged',
                           helper_command='/bin/false')
        self.assertIn('privsep helper command exited non-zero',
                      str(self.start(self.plug)()))
        self.config.config(group='vif_plug_tapmac_privileged',
                           helper_command=command)
        self.assert_works_again()
