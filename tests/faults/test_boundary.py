# SPDX-License-Identifier: Apache-2.0

"""What the faults are injected into is all there is, as strace sees it too."""

import collections
import errno
import os
import re
import subprocess
import tempfile

from tests import base
from tests.faults import boundary
from tests.faults import test_steps
from tests import hosts
from tests import patience

_BEGIN = '/here-it-begins'
_LINE = re.compile(r'\d+ +(\w+)\((.*)')
_MESSAGE = re.compile(r'nlmsg_type=(\w+).*?nlmsg_flags=([\w|]+)')
#: They ask nothing of the kernel that it could refuse a plug.
_HARMLESS = ('lseek', 'fstat', 'newfstatat', 'fcntl', 'read', 'dup',
             'getsockname', 'getpeername', 'getsockopt', 'epoll_wait',
             'epoll_pwait', 'poll', 'select', 'pselect6', 'mmap')


def step_of(line):
    """Return what boundary.py calls a call, from what strace prints of it."""
    found = _LINE.match(line)
    if not found:
        return None
    name, rest = found.groups()
    if name == 'openat':
        path = re.search(r'"([^"]*)"', rest).group(1)
        return 'open ' + path if path.startswith(
            ('/dev/', '/proc/sys/', '/sys/class/net/')) else None
    if name == 'socket':
        return 'socket ' + re.match(r'AF_(\w+)', rest).group(1).lower()
    if name in ('epoll_create1', 'socketpair'):
        return name
    if name in ('clone', 'clone3'):
        return 'thread'
    if name == 'epoll_ctl':
        return name if '<NETLINK:' in rest else None
    where = re.match(r'\d+<(\w+|[^>]*?)[:<>]', rest)
    path = where.group(1) if where else ''
    if name == 'ioctl':
        request = rest.split(', ')[1]
        return None if request in ('TCGETS', 'FIONBIO') else 'ioctl ' + request
    if name == 'write':
        return 'write ' + path if path.startswith('/proc/sys/') else None
    if name == 'close':
        return {'/dev/net/tun': 'close /dev/net/tun',
                'NETLINK': 'close netlink'}.get(path)
    if path != 'NETLINK' or name in _HARMLESS:
        return None
    if name == 'sendto':
        kind, flags = _MESSAGE.search(rest).groups()
        number = (int(kind, 16) if kind.startswith('0x')
                  else boundary.MESSAGES[kind])
        return boundary.message_name(
            boundary.HEADER.pack(0, number, _flags(flags), 0, 0),
            0 if number < 256 else None)
    return None if name in ('recvfrom', 'recvmsg') else name


def _flags(text):
    return sum(int(flag, 16) if flag.startswith('0x')
               else boundary.NLM_F[flag.removeprefix('NLM_F_')]
               for flag in text.split('|'))


class StraceTest(test_steps.StepsTestCase):

    def setUp(self):
        super().setUp()
        self.needs_program('strace')

    def strace(self, *options):
        """Let strace watch a call; return its log and what was raised."""
        reader, writer = os.pipe()
        waits, told = os.pipe()

        def traced():
            os.read(waits, 1)
            os.path.exists(_BEGIN)
            try:
                self.call()
            except Exception as error:
                os.write(writer, str(error.kwargs['err']).encode())

        with tempfile.NamedTemporaryFile('r') as log:
            child = hosts.fork(traced)
            with subprocess.Popen(
                    ['strace', '-f', '-yy', '-o', log.name, '-p', str(child),
                     *options], stderr=subprocess.PIPE, text=True) as tracer:
                # It is a tracer before it sees any call.
                while ' attached' not in tracer.stderr.readline():
                    self.assertIsNone(tracer.poll())
                os.write(told, b'.')
                try:
                    tracer.communicate(timeout=patience.HANG)
                except subprocess.TimeoutExpired:
                    tracer.kill()
            self.assertEqual(0, tracer.returncode)
            os.waitpid(child, 0)
            for descriptor in writer, waits, told:
                os.close(descriptor)
            with os.fdopen(reader) as opened:
                return log.read(), opened.read()

    def assert_same_list(self):
        self.start_anew()
        log, error = self.strace(
            '-e', 'trace=%network,%desc,%file,%process')
        self.assertEqual('', error)
        seen = collections.Counter(filter(None, map(
            step_of, log.partition(_BEGIN)[2].splitlines())))
        self.start_anew()
        met = collections.Counter(
            step for step, _ in self.run_with(boundary.Kernel()).steps
            if not step.startswith(('answer to ', 'late answer')))
        # A thread may ask for the owner once more or less, and the kernel
        # itself begins anew with a write while others change links.
        for steps in seen, met:
            for step in steps:
                if step == 'ioctl TUNSETOWNER' or step.startswith('write '):
                    steps[step] = 1
        self.assertEqual(seen, met)
        for step in seen:
            test_steps.errnos(step)

    def test_plug_on_a_new_bridge(self):
        self.assert_same_list()

    def test_plug_with_many_queues(self):
        self.configure(multiqueue=True)
        self.assert_same_list()

    def test_plug_of_an_existing_tap(self):
        self.prepare = self.plug
        self.assert_same_list()

    def test_unplug(self):
        self.prepare = self.plug
        self.call = self.unplug
        self.assert_same_list()

    def test_same_errors_as_by_strace(self):
        for place, name, options in (
                (('open /dev/net/tun', 0), 'EMFILE', (
                    'openat', '-P', '/dev/net/tun')),
                (('socket netlink', 0), 'ENOBUFS', ('socket',)),
                (('ioctl TUNSETPERSIST', 0), 'EPERM', (
                    'ioctl', ':when=4', '-P', '/dev/net/tun'))):
            call, *rest = options
            when = rest.pop(0) if rest and rest[0].startswith(':') else (
                ':when=1')
            self.start_anew()
            _, by_strace = self.strace(
                '-e', 'trace=' + call, '-e',
                'inject=%s:error=%s%s' % (call, name, when), *rest)
            self.start_anew()
            outcome = self.run_with(boundary.Refusing(
                place, getattr(errno, name)))
            self.assertIn(name, by_strace)
            self.assertEqual(by_strace, str(outcome.error))


class UnknownStepTest(base.TestCase):

    def test_fails_the_suite(self):
        error = self.assertRaises(AssertionError, test_steps.errnos,
                                  'ioctl TUNSETVNETHDRSZ')
        self.assertIn('say in ERRNOS how it can fail', str(error))
