# SPDX-License-Identifier: Apache-2.0

"""Asking who may never answer: libvirt, the directory of users, programs.

Their libraries block in C, where nothing interrupts them. A thread that waits
there would stay for good, and a long-lived process would gather them, or ask
nobody any more; so it is a process of its own that asks, and it is killed when
its time is up. It has no descriptor of ours, and no terminal.
"""

import contextlib
import json
import os
import select
import shutil
import signal
import time
import typing

#: For how long, in seconds, whoever is asked may keep an operator waiting.
SECONDS = 10.0
#: Before a process that was killed is left to itself: it may wait for a disk.
_DIES_WITHIN = 1.0


class Unanswered(Exception):
    """There is no answer; the text says why, and after how many seconds."""


class Failed(Unanswered):
    """A program ended, and not well."""


class Question:
    """What somebody is asked, from now on.

    :param function: asks, and returns what JSON can carry. It runs elsewhere:
        nothing that it changes is seen here
    :param seconds: how long it may take
    """

    def __init__(self, function: typing.Callable[..., typing.Any],
                 *arguments: typing.Any, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._deadline = time.monotonic() + seconds
        self._said = b''
        self._reader, writer = os.pipe()
        self._process = os.fork()
        if self._process == 0:
            _ask(writer, seconds, function, arguments)
        os.close(writer)

    def fileno(self) -> int:
        """Return what can be read when there is more to be had."""
        return self._reader

    @property
    def left(self) -> float:
        """For how many seconds an answer is waited for still; not below 0."""
        return max(0.0, self._deadline - time.monotonic())

    def is_over(self) -> bool:
        """Take what there is; return whether that, or the time, is all.

        Never waits. Then :meth:`answer` does not, either.
        """
        while select.select([self._reader], [], [], 0)[0]:
            read = os.read(self._reader, 1 << 16)
            self._said += read
            if not read:
                return True
        return not self.left

    def answer(self) -> typing.Any:
        """Wait for the answer, and return it. To be called once.

        :raises Unanswered: it does not come in time, or is an error
        """
        try:
            while not self.is_over():
                select.select([self._reader], [], [], self.left)
        finally:
            self.end()
        try:
            said = json.loads(self._said)
        except ValueError:
            raise Unanswered('no answer within %g s' % self._seconds
                             if not self.left else 'it ended without a word')
        if 'failed' in said:
            raise Unanswered(said['failed'])
        return said['value']

    def end(self) -> None:
        """Have it asked no more."""
        os.close(self._reader)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process, signal.SIGKILL)
        dead_by = time.monotonic() + _DIES_WITHIN
        with contextlib.suppress(ChildProcessError):
            while (os.waitpid(self._process, os.WNOHANG) == (0, 0)
                   and time.monotonic() < dead_by):
                time.sleep(0.001)


def ask(function: typing.Callable[..., typing.Any], *arguments: typing.Any,
        seconds: float = SECONDS) -> typing.Any:
    """Return what a function returns that may hang; see :class:`Question`.

    :raises Unanswered: it does not come in time, or is an error
    """
    return Question(function, *arguments, seconds=seconds).answer()


def _ask(writer: int, seconds: float,
         function: typing.Callable[..., typing.Any],
         arguments: typing.Sequence[typing.Any]) -> typing.NoReturn:
    """Be the process that asks. Nothing of its parent's is run at its end."""
    try:
        # Its parent may be killed before.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, seconds + 1)
        os.setsid()
        # A TAP that is held here would be held.
        for descriptor in map(int, os.listdir('/proc/self/fd')):
            if descriptor > 2 and descriptor != writer:
                with contextlib.suppress(OSError):
                    os.close(descriptor)
        try:
            said = {'value': function(*arguments)}
        except Exception as error:
            said = {'failed': str(error) or type(error).__name__}
        with open(writer, 'wb', buffering=0, closefd=False) as opened:
            opened.write(json.dumps(said).encode())
    finally:
        os._exit(0)


def run(*command: str, path: str | None = None,
        seconds: float = SECONDS) -> str:
    """Return what a program says on its standard output.

    :param path: where it, and what it runs, is looked for; None: as always
    :raises Unanswered: it is not there, fails, which is :class:`Failed`, or
        does not end in time
    """
    environment = dict(os.environ)
    if path is not None:
        environment['PATH'] = path
    program = shutil.which(command[0], path=path)
    if program is None:
        raise Unanswered('%s is not there' % command[0])
    output, errors = (os.memfd_create(command[0]) for _ in range(2))
    try:
        child = os.posix_spawn(program, command, environment, file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, output, 1),
            (os.POSIX_SPAWN_DUP2, errors, 2)], setsid=True)
        status = _wait(child, seconds)
        if status is None:
            raise Unanswered('%s: no answer within %g s' % (command[0],
                                                            seconds))
        if status:
            raise Failed('%s: %s' % (
                command[0], ' '.join(_read(errors).split())
                or 'it ended with %d' % status))
        return _read(output)
    finally:
        os.close(output)
        os.close(errors)


def _wait(child: int, seconds: float) -> int | None:
    """Return how a process ended; None if it had to be killed."""
    ended = os.pidfd_open(child)
    in_time = bool(select.select([ended], [], [], seconds)[0])
    os.close(ended)
    if not in_time:
        os.killpg(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    return os.waitstatus_to_exitcode(status) if in_time else None


def _read(descriptor: int) -> str:
    os.lseek(descriptor, 0, os.SEEK_SET)
    with open(descriptor, errors='replace', closefd=False) as opened:
        return opened.read()
