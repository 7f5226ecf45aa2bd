# SPDX-License-Identifier: Apache-2.0

"""The boundary between a plug and the kernel, and what can go wrong there.

A plug runs in a child process whose system calls come to the test first, by a
seccomp listener: the test lets one pass, answers it with an error in the
kernel's place, kills the child before it, or rewrites what the kernel sends by
netlink. So it does not matter which library makes the call, and a call that is
added to the plug is met by the same faults the day it comes.
Source: Documentation/userspace-api/seccomp_filter.rst, "Userspace
Notification"
"""

import collections
import contextlib
import ctypes
import dataclasses
import errno
import fcntl
import mmap
import os
import pickle
import platform
import select
import signal
import socket
import struct
import sys
import time
import traceback
import typing

from pyroute2.netlink import rtnl

from tests import hosts
from tests import patience

#: Numbers of the system calls that we look at; see asm/unistd_64.h.
CALLS = {1: 'write', 3: 'close', 16: 'ioctl', 41: 'socket', 44: 'sendto',
         45: 'recvfrom', 46: 'sendmsg', 47: 'recvmsg', 49: 'bind',
         53: 'socketpair', 54: 'setsockopt', 56: 'clone', 233: 'epoll_ctl',
         257: 'openat', 291: 'epoll_create1', 435: 'clone3'}
_RECEIVES = ('recvfrom', 'recvmsg')
_AUDIT_ARCH_X86_64 = 0xc000003e
_SYS_SECCOMP, _SYS_PIDFD_OPEN, _SYS_PIDFD_GETFD = 317, 434, 438
_SET_MODE_FILTER, _NEW_LISTENER = 1, 1 << 3
_RET_ALLOW, _RET_USER_NOTIF = 0x7fff0000, 0x7fc00000
_PR_SET_NO_NEW_PRIVS = 38
_NOTIF, _RESPONSE = struct.Struct('QIIiIQ6Q'), struct.Struct('QqiI')
_NOTIF_RECV, _NOTIF_SEND = 0xc0502100, 0xc0182101
_CONTINUE = 1

HEADER = struct.Struct('IHHII')
NLMSG_NOOP, NLMSG_ERROR, NLMSG_DONE = 1, 2, 3
#: Those of a request for something have other meanings: linux/netlink.h
NLM_F = {'REQUEST': 1, 'MULTI': 2, 'ACK': 4, 'DUMP': 0x300,
         'REPLACE': 0x100, 'EXCL': 0x200, 'CREATE': 0x400, 'APPEND': 0x800}
_TELLING = {'GET': ('DUMP',), 'NEW': ('REPLACE', 'EXCL', 'CREATE', 'APPEND')}
_IOCTLS = {0x400454ca: 'TUNSETIFF', 0x400454cb: 'TUNSETPERSIST',
           0x400454cc: 'TUNSETOWNER', 0x8924: 'SIOCSIFHWADDR',
           0x8933: 'SIOCGIFINDEX'}
#: Of netlink messages, by name.
MESSAGES = dict(rtnl.RTM_NAMES)
_RTNL = {number: name for name, number in MESSAGES.items()}

_libc = ctypes.CDLL(None, use_errno=True)


def missing() -> str | None:
    """Return why no faults can be injected here, None if they can."""
    if platform.machine() != 'x86_64' or sys.maxsize < 2 ** 32:
        return 'knows the system calls of x86-64 only'
    return None


def _syscall(number: int, *arguments: typing.Any) -> int:
    result = _libc.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return int(result)


def _listen() -> int:
    """Have all calls of this process that we look at wait for a listener."""
    load, jump_if_equal, answer = 0x20, 0x15, 0x06
    program = [(load, 0, 0, 4),
               (jump_if_equal, 1, 0, _AUDIT_ARCH_X86_64),
               (answer, 0, 0, _RET_ALLOW),
               (load, 0, 0, 0)]
    for left, number in zip(range(len(CALLS), 0, -1), CALLS):
        program.append((jump_if_equal, left, 0, number))
    program += [(answer, 0, 0, _RET_ALLOW), (answer, 0, 0, _RET_USER_NOTIF)]
    code = b''.join(struct.pack('HBBI', *line) for line in program)
    buffer = ctypes.create_string_buffer(code)
    header = struct.pack('HxxxxxxQ', len(program), ctypes.addressof(buffer))
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    return _syscall(_SYS_SECCOMP, _SET_MODE_FILTER, _NEW_LISTENER,
                    ctypes.create_string_buffer(header))


#: Of a step in a plug: which it is, and how many such came before.
Place = tuple[str, int]


@dataclasses.dataclass(frozen=True)
class Call:
    """A system call that a plug is about to make.

    :param step: which it is, as in "ioctl TUNSETIFF" or "RTM_NEWLINK
        EXCL|CREATE"; None for one that has nothing to do with the plug
    :param number: how many such it made before, from 0
    """
    identity: int
    name: str
    arguments: tuple[int, ...]
    step: str | None
    number: int

    @property
    def place(self) -> 'Place':
        return self.step or '', self.number

    @property
    def descriptor(self) -> int:
        return self.arguments[0] & 0xffffffff


@dataclasses.dataclass
class Outcome:
    """How a plug ended.

    :param steps: the system calls it made, in order
    :param error: what it raised, None if nothing or if it was killed
    :param log: what it logged
    :param traceback: of the error
    """
    steps: list[Place]
    killed: bool = False
    error: BaseException | None = None
    log: str = ''
    traceback: str = ''


class Kernel:
    """What the child meets in the kernel's place: here, the kernel.

    Subclasses say what is different.
    """

    def call(self, call: Call, child: 'Child') -> int | None:
        """Return what the call returns (an errno as a negative number).

        :returns: None if the kernel is to answer
        """
        return None

    def answer(self, data: bytes) -> bytes | int:
        """Return what the child gets instead of what netlink sent.

        :returns: a negative errno: the answer is lost, and this is returned
        """
        return data


class Child:
    """A process that is at work, and whose calls come to us."""

    def __init__(self, function: typing.Callable[[], typing.Any],
                 log: typing.Callable[[], str]) -> None:
        shared = mmap.mmap(-1, 4)
        reader, writer = os.pipe()
        self._result = os.fdopen(reader, 'rb')
        self.pid = hosts.fork(self._run, function, log, shared, writer)
        os.close(writer)
        self._pidfd = os.pidfd_open(self.pid)
        self._listener = self.take(patience.wait_until(
            lambda: struct.unpack('i', shared[:4])[0], 'no seccomp listener',
            pause=0.0002))
        self._memory = os.open('/proc/%d/mem' % self.pid, os.O_RDWR)
        self.killed = False
        self._asked: str | None = None
        self._seen: collections.Counter[str | None] = collections.Counter()

    def _run(self, function: typing.Callable[[], typing.Any],
             log: typing.Callable[[], str], shared: mmap.mmap,
             writer: int) -> None:
        error, text = None, ''
        before = len(log())
        shared[:4] = struct.pack('i', _listen())
        try:
            function()
        except BaseException as raised:
            error, text = raised, traceback.format_exc()
        result = (str(error), error and _what(error), text, log()[before:])
        with os.fdopen(writer, 'wb') as opened:
            pickle.dump(result, opened)

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        self._result.close()
        for descriptor in self._pidfd, self._listener, self._memory:
            os.close(descriptor)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self.killed = True

    def take(self, descriptor: int) -> int:
        """Return a descriptor of ours for a descriptor of the child's."""
        return _syscall(_SYS_PIDFD_GETFD, self._pidfd, descriptor, 0)

    def read(self, address: int, length: int) -> bytes:
        return os.pread(self._memory, length, address)

    def write(self, address: int, data: bytes) -> None:
        os.pwrite(self._memory, data, address)

    def next_call(self, timeout: float) -> Call | None:
        """Return the next call, None if the child is gone.

        :raises TimeoutError: it makes none any more, and lives
        """
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        # Before Linux 6.11, who has ended is heard by the listener only when
        # somebody has waited for it.
        poll.register(self._pidfd, select.POLLIN)
        while True:
            ready = dict(poll.poll(timeout * 1000))
            if not ready:
                raise TimeoutError()
            if not ready.get(self._listener, 0) & select.POLLIN:
                return None
            notif = bytearray(_NOTIF.size)
            try:
                fcntl.ioctl(self._listener, _NOTIF_RECV, notif)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.EINTR):
                    continue  # The caller was killed.
                raise
            identity, _, _, number, _, _, *arguments = _NOTIF.unpack(notif)
            name = CALLS[number]
            step = self._step(name, arguments)
            self._seen[step] += 1
            return Call(identity, name, tuple(arguments), step,
                        self._seen[step] - 1)

    def respond(self, call: Call, value: int | None) -> None:
        """Let the kernel answer a call (None), or answer it in its place."""
        response = (
            _RESPONSE.pack(call.identity, 0, 0, _CONTINUE) if value is None
            else _RESPONSE.pack(call.identity, max(value, 0), min(value, 0),
                                0))
        with contextlib.suppress(FileNotFoundError):  # It was killed.
            fcntl.ioctl(self._listener, _NOTIF_SEND, response)

    def _step(self, name: str, arguments: list[int]) -> str | None:
        descriptor = arguments[0] & 0xffffffff
        if name == 'openat':
            path = self.read(arguments[1], 4096).partition(b'\0')[0].decode()
            return 'open ' + path if path.startswith(
                ('/dev/', '/proc/sys/', '/sys/class/net/')) else None
        if name == 'socket':
            return 'socket %s' % {
                socket.AF_NETLINK: 'netlink', socket.AF_INET: 'inet',
                socket.AF_UNIX: 'unix'}.get(descriptor, str(descriptor))
        if name in ('epoll_create1', 'socketpair'):
            return name
        if name in ('clone', 'clone3'):
            return 'thread'
        if name == 'epoll_ctl':
            return name if self.is_netlink(arguments[2]) else None
        if name == 'ioctl':
            number = arguments[1] & 0xffffffff
            return ('ioctl ' + _IOCTLS.get(number, '%#x' % number)
                    if number >> 8 != 0x54 else None)  # Not of a file.
        if name == 'write':
            path = self._path(descriptor)
            return 'write ' + path if path.startswith('/proc/sys/') else None
        if name == 'close':
            path = self._path(descriptor)
            if path == '/dev/net/tun':
                return 'close ' + path
            return 'close netlink' if self.is_netlink(descriptor) else None
        if not self.is_netlink(descriptor):
            return None
        if name == 'sendto':
            self._asked = message_name(
                self.read(arguments[1], HEADER.size),
                self._protocol(descriptor))
            return self._asked
        if name in _RECEIVES:
            # What comes after the answer itself, as it happens, is an
            # acknowledgement that nobody waits for.
            asked, self._asked = self._asked, None
            return 'answer to ' + asked if asked else 'late answer'
        return name

    def _path(self, descriptor: int) -> str:
        try:
            return os.readlink('/proc/%d/fd/%d' % (self.pid, descriptor))
        except OSError:
            return ''

    def is_netlink(self, descriptor: int) -> bool:
        return self._protocol(descriptor) is not None

    def _protocol(self, descriptor: int) -> int | None:
        """Return which netlink a descriptor is, None if it is none."""
        if not self._path(descriptor).startswith('socket:'):
            return None
        with socket.socket(fileno=self.take(descriptor)) as taken:
            return (taken.proto if taken.family == socket.AF_NETLINK
                    else None)

    def result(self) -> tuple[str, typing.Any, str, str] | None:
        """Return what the child tells, None if it was killed."""
        data = self._result.read()
        return pickle.loads(data) if data else None


def _what(error: BaseException) -> typing.Any:
    """Return what can be told of an error to another process.

    os-vif wraps what the plugin raises; that is what we look at.
    """
    inner = getattr(error, 'kwargs', {}).get('err', error)
    return type(inner), str(inner)


def message_name(header: bytes, protocol: int | None) -> str:
    """Return what a netlink request is called, with flags that matter."""
    _, kind, flags, _, _ = HEADER.unpack(header)
    if protocol != socket.NETLINK_ROUTE:
        return 'netfilter %#x' % kind
    name = _RTNL.get(kind, '%#x' % kind)
    said = [flag for flag in _TELLING.get(name[4:7], ())
            if flags & NLM_F[flag] == NLM_F[flag]]
    return ' '.join([name, '|'.join(said)]).strip()


def is_request(step: str) -> bool:
    return step.startswith(('RTM_', 'netfilter'))


def run(function: typing.Callable[[], typing.Any], kernel: Kernel,
        log: typing.Callable[[], str] = str) -> Outcome:
    """Call a function in a child whose system calls meet this kernel.

    :param log: returns what was logged so far, in the process it runs in
    :raises TimeoutError: it hangs, and was killed
    """
    child = Child(function, log)
    start = time.monotonic()
    outcome = Outcome([])
    try:
        while (call := child.next_call(
                max(0.0, start + patience.HANG - time.monotonic())
        )) is not None:
            value = None
            if call.step is not None:
                outcome.steps.append(call.place)
                value = kernel.call(call, child)
                if (value is None and call.name in _RECEIVES
                        and not child.killed):
                    value = _receive(call, child, kernel)
            child.respond(call, value)
        result = child.result()
        if result is None:
            outcome.killed = True
        else:
            _, told, outcome.traceback, outcome.log = result
            if told is not None:
                outcome.error = Told(*told)
    finally:
        child.close()
    return outcome


class Told(Exception):
    """An error that was raised in the child.

    :param kind: its class
    """

    def __init__(self, kind: type[BaseException], text: str) -> None:
        super().__init__(text)
        self.kind = kind


def _receive(call: Call, child: Child, kernel: Kernel) -> int:
    """Receive in the child's place, and let the kernel object change it."""
    if call.name == 'recvmsg':
        descriptor, header, flags = call.arguments[:3]
        address, vector = struct.unpack_from('Q8xQ', child.read(header, 24))
        address_length = header + 8
        buffer, length = struct.unpack('QQ', child.read(vector, 16))
    else:
        (descriptor, buffer, length, flags, address,
         address_length) = call.arguments
        header = 0
    with socket.socket(fileno=child.take(descriptor & 0xffffffff)) as taken:
        try:
            data, sender = taken.recvfrom(1 << 16, flags & 0x7fffffff
                                          | socket.MSG_DONTWAIT)
        except OSError as error:
            return -(error.errno or errno.EIO)
    if flags & socket.MSG_PEEK:
        answer: bytes | int = data
    else:
        answer = kernel.answer(data)
    if isinstance(answer, int):
        return answer
    child.write(buffer, answer[:length])
    if address:
        child.write(address, struct.pack('HHII', socket.AF_NETLINK, 0,
                                         *sender))
        child.write(address_length, struct.pack('I', 12))
    if header:  # No ancillary data, and whether it was too long.
        child.write(header + 40, struct.pack(
            'QI', 0, socket.MSG_TRUNC if len(answer) > length else 0))
    return len(answer) if flags & socket.MSG_TRUNC else min(
        len(answer), length)


class Dying(Kernel):
    """Kills the child before it makes a call.

    :param place: of the call
    """

    def __init__(self, place: Place) -> None:
        self._place = place

    def call(self, call: Call, child: Child) -> int | None:
        if call.place == self._place:
            child.kill()
        return None


class Refusing(Kernel):
    """Refuses one step as the kernel would, with an errno.

    What netlink refuses is said in an answer, so the request goes into one
    that asks for nothing, and its answer into the refusal.

    :param place: of the step
    """

    def __init__(self, place: Place, code: int) -> None:
        self._place = place
        self._code = code
        self._refused = b''

    def call(self, call: Call, child: Child) -> int | None:
        if call.place != self._place:
            return None
        if is_request(self._place[0]):
            return self.refuse_request(call, child)
        return self.refuse_call(call, child)

    def refuse_call(self, call: Call, child: Child) -> int | None:
        return -self._code

    def refuse_request(self, call: Call, child: Child) -> int | None:
        request = child.read(call.arguments[1], call.arguments[2])
        sequence, port = HEADER.unpack_from(request)[3:]
        nothing = HEADER.pack(HEADER.size, NLMSG_NOOP,
                              NLM_F['REQUEST'] | NLM_F['ACK'], sequence, port)
        with socket.socket(fileno=child.take(call.descriptor)) as taken:
            taken.sendto(nothing, (0, 0))
        self._refused = request
        return len(request)

    def answer(self, data: bytes) -> bytes | int:
        refused, self._refused = self._refused, b''
        return error_message(refused, self._code) if refused else data


class RefusingToSend(Refusing):
    """Refuses to take a request at all."""

    def refuse_request(self, call: Call, child: Child) -> int | None:
        return -self._code


class Betraying(Refusing):
    """Does what a step asks for, and says that it was refused.

    rtnetlink does so: one message changes several things, and what was
    changed before one of them is refused stays changed.
    """

    def refuse_call(self, call: Call, child: Child) -> int | None:
        descriptor, request, argument, *_ = call.arguments
        taken = child.take(descriptor & 0xffffffff)
        try:
            if call.name == 'write':
                os.write(taken, child.read(request, argument))
            elif (request & 0xffffffff) in _BY_VALUE:
                fcntl.ioctl(taken, request & 0xffffffff,
                            struct.unpack('q', struct.pack('Q', argument))[0])
            else:
                fcntl.ioctl(taken, request & 0xffffffff,
                            child.read(argument, 40))
        except OSError as error:  # There was no success to hide.
            return -(error.errno or errno.EIO)
        finally:
            os.close(taken)
        return -self._code

    def refuse_request(self, call: Call, child: Child) -> int | None:
        self._refused = child.read(*call.arguments[1:3])
        return None


_BY_VALUE = (0x400454cb, 0x400454cc)


def error_message(request: bytes, code: int) -> bytes:
    """Return the kernel's refusal of a request, which follows it."""
    sequence, port = HEADER.unpack_from(request)[3:]
    return HEADER.pack(20 + len(request), NLMSG_ERROR, 0, sequence,
                       port) + struct.pack('i', -code) + request
