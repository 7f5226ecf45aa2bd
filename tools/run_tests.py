# SPDX-License-Identifier: Apache-2.0

"""Run checks and groups of tests side by side, and tell what happens.

For test.sh, which has set up what they need. A group is what runs in the
virtual environment of its name.
"""

import argparse
import collections
import dataclasses
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import textwrap
import threading
import time
import traceback
import typing

import subunit
import testtools

_VENVS = pathlib.Path('.venv')
_LOGS = _VENVS / 'log'
#: Seconds: whoever looks at the terminal is never left alone for longer.
_SILENCE = 20
#: Lines of what a failure says that are shown at the end: who can't get at the
#: log, as of a CI, has at least these.
_SHOWN = 20

_CHECKS = {
    'flake8': [_VENVS / 'test/bin/flake8'],
    'shellcheck': ['env', 'SHELLCHECK=%s' % (
        _VENVS.absolute() / 'test/bin/shellcheck'), 'tools/shellcheck.sh'],
    'bandit': [_VENVS / 'test/bin/bandit', '-q', '-c', 'pyproject.toml', '-r',
               'vif_plug_tapmac'],
    'licenses': [_VENVS / 'test/bin/python', 'tools/licenses.py'],
    'mypy': [_VENVS / 'test/bin/mypy'],
    'docs': ['tools/docs.sh'],
}

# What groups leave to others, in which the same would run: not in the long
# form.
_LEFT_OUT = {
    # What these tests run never sees the old libraries: environments are set
    # up, packages are built, and Nova and os-vif run, in others. Or it is
    # about the kernel, or a document, and takes long.
    'test-lowest': (
        r'tests\.(integration\.test_(kernel|packages?|release|os_vif_suite'
        r'|nova|set_up|run_tests|getting_started|deploying|troubleshooting'
        r'|ordinary_user)'
        r'|functional\.test_(benchmark|churn|contention|strangers|interference'
        r'|sigkill|demo|deleting|deleting_under_fire|never_quiet'
        r'|against_neutron|coming_over|right|group_rules|guest_filter|shield'
        r'|agent_\w+|full_fire|full_frames|full_rollout|udev|audit|before'
        r'|explain|network_managers|manager_checks|silent|rtnetlink|nft|frames'
        r'|kernel_facts|mac_clash|conntrack\w*|vlan_frames|vlan_filtering'
        r'|drops|emergency_exit|old_agent|boot|nftables_service|screens'
        r'|migration|adoption)\.'
        r'|cloud\.'
        r'|faults\.test_(scale|soak|steps|agent_steps|netlink|boundary)\.)'),
    # What the Nova before and the one after it do; its calls are in
    # test_routes.py.
    'nova-32': r'tests\.nova\.test_flows\.',
    # Where libvirt makes the TAP, os-vif 5 is called for a bridge alone, and
    # test_routes.py does that; for a port of Open vSwitch it is Nova 34's.
    'nova-33-os-vif-5': (
        r'tests\.nova\.test_flows\.(LibvirtTapTest|SwitchTest'
        r'|LibvirtContractTest|OpenVSwitchTest)\.'),
    # What the older Neutron and the newer one both refuse and rebind.
    'neutron-28': (
        r'tests\.neutron\.test_(refusals|migrate)\.'),
}

# What depends on the kernel: all that is done to it, but for what is only
# long, or takes many processes.
_ON_EACH_KERNEL = (
    r'tests\.(functional\.(?!test_(benchmark|churn|contention|strangers'
    r'|never_quiet|silent|deleting_under_fire)\.)'
    r'|faults\.test_(boundary|steps)\.)')
# What a kernel shows first if it does something in another way.
_CORE = (
    r'tests\.functional\.test_(plug|unplug|existing_tap|bridge|uplink|vlan\w*'
    r'|guard|frames|kernel_facts|rtnetlink|mac_clash'
    r'|conntrack_frames\.(Host|Room|WithIptables)Test)\.')

_LONG = os.environ.get('TAPMAC_LONG', '0') not in ('', '0')

_CAP_NET_ADMIN, _CAP_SYS_ADMIN = 12, 21

_PASSED = ('success', 'xfail')

#: What takes longest begins, and what waits most is beside that.
_FIRST = ('test', 'nova-33', 'nova-34', 'neutron-29', 'neutron-28',
          'neutron-25')

#: What ends last: nothing is left to run beside it then.
_LONGEST = ('test', 'neutron-29')

#: What the name of a group begins with that runs on another kernel.
_KERNEL = 'kernel-'


@dataclasses.dataclass(frozen=True)
class Failure:
    """A test or a check that failed.

    :param group: where: a name that "test.sh --only" takes
    :param test: its id; None for a check, or a group that ended badly
    :param said: the end of what it said of that
    """
    group: str
    test: str | None
    said: str = ''

    def __str__(self) -> str:
        return '%s (%s)' % (self.test, self.group) if self.test else self.group

    def command(self) -> str:
        """Return what runs it again."""
        words = ['tools/test.sh']
        if self.group.startswith(_KERNEL):
            words += ['--kernels', self.group.split('-')[1]]
        else:
            if os.environ.get('TAPMAC_ALL') and self.test:
                words.append('--all')
            words += ['--only', self.group]
        if self.test:
            words.append(re.escape(self.test).replace(r'\.', '.') + '$')
        return shlex.join(words)


class Board:
    """What has happened up to now, said as it happens. For all threads."""

    def __init__(self, since: float) -> None:
        self._since = since
        self._lock = threading.Lock()
        self._last_said = time.time()
        self._running: dict[str, list[str]] = {}
        self.passed = 0
        self.failures: list[Failure] = []
        self.skipped: collections.Counter[str] = collections.Counter()
        self._groups: set[str] = set()
        self._ran: set[str] = set()
        self._left_out: dict[str, str] = {}

    def started(self, group: str) -> None:
        with self._lock:
            self._running[group] = []
            self._say('%s: started' % group)

    def ended(self, group: str, said: str) -> None:
        with self._lock:
            del self._running[group]
            self._say('%s: %s' % (group, said))

    def test_started(self, group: str, test: str) -> None:
        with self._lock:
            self._running[group].append(test)

    def test_ended(self, group: str, test: str, status: str,
                   reason: str | None, said: str) -> None:
        with self._lock:
            if test in self._running[group]:
                self._running[group].remove(test)
            self._groups.add(group)
            if status == 'skip':
                self._left_out[test] = reason or 'without a reason'
                self.skipped[self._left_out[test]] += 1
                return
            self._ran.add(test)
            if status in _PASSED:
                self.passed += 1
            else:
                self._fail(Failure(group, test, _end(said)), status)

    def failed(self, group: str, why: str, said: str = '') -> None:
        with self._lock:
            self._fail(Failure(group, None, _end(said)), why)

    def has_failed(self, group: str) -> bool:
        with self._lock:
            return any(each.group == group for each in self.failures)

    def tick(self) -> None:
        """Say what runs, unless something was said a moment ago."""
        with self._lock:
            if time.time() - self._last_said < _SILENCE:
                return
            running = ['%s: %s' % (group, ', '.join(
                test.removeprefix('tests.') for test in tests) or '...')
                for group, tests in self._running.items()]
            self._say('%s; running %s' % (self._counts(), '; '.join(running)))

    def require_each_somewhere(self) -> None:
        """Fail for each test that no group could run."""
        for test in sorted(self.ran_nowhere()):
            with self._lock:
                self._fail(Failure('test', test), 'skipped wherever it was')

    def summary(self) -> None:
        """Say what came of it, with the ways to each failure.

        Of several groups, as of several kernels, also which tests none ran.
        """
        for reason, number in sorted(self.skipped.items()):
            print('skipped %d: %s' % (number, reason))
        if len(self._groups) > 1:
            reasons = collections.Counter(
                self._left_out[test] for test in self.ran_nowhere())
            for reason, number in sorted(reasons.items()):
                print('in no group %d: %s' % (number, reason))
        for failure in self.failures:
            print('failed: %s\n%s    again: %s\n    log:   %s' % (
                failure, textwrap.indent(failure.said, '    | '),
                failure.command(), _LOGS / failure.group))
        print('%s, in %s' % (self._counts(), self._time()), flush=True)

    def ran_nowhere(self) -> set[str]:
        """Return the tests that each group has skipped."""
        return set(self._left_out) - self._ran

    def _fail(self, failure: Failure, why: str) -> None:
        self.failures.append(failure)
        self._say('FAILED %s: %s, see %s' % (
            failure, why, _LOGS / failure.group))

    def _say(self, text: str) -> None:
        self._last_said = time.time()
        print('%s  %s' % (self._time(), text), flush=True)

    def _counts(self) -> str:
        return '%d passed, %d failed, %d skipped' % (
            self.passed, len(self.failures), self.skipped.total())

    def _time(self) -> str:
        return '%d:%02d' % divmod(int(time.time() - self._since), 60)


class Job:
    """A process, in a process group of its own, and a thread that hears it."""

    def __init__(self, name: str, board: Board) -> None:
        self.name = name
        self.board = board
        self.log = (_LOGS / name).open('w')
        self.process: subprocess.Popen[bytes] | None = None

    def run(self) -> None:
        self.board.started(self.name)
        said = 'could not be run'
        try:
            self.process = subprocess.Popen(
                [str(word) for word in self._command()],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=self.log, preexec_fn=os.setpgrp,
                env=self._environment())
            said = self._hear(self.process)
        except Exception as error:
            # Whatever that is, it is not that all is well.
            self.log.write(traceback.format_exc())
            self.board.failed(self.name, repr(error))
        finally:
            self.log.close()
            self.board.ended(self.name, said)

    def end(self) -> None:
        """Have it end, and all that it has started."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)

    def _command(self) -> list[typing.Any]:
        raise NotImplementedError

    def _environment(self) -> dict[str, str]:
        return dict(os.environ)

    def _hear(self, process: 'subprocess.Popen[bytes]') -> str:
        """Wait for its end.

        :returns: what is to be said then
        """
        raise NotImplementedError


class Check(Job):
    """A program that says by its exit status whether all is well."""

    def _command(self) -> list[typing.Any]:
        return _CHECKS[self.name]

    def _hear(self, process: 'subprocess.Popen[bytes]') -> str:
        said = process.communicate()[0].decode(errors='replace')
        self.log.write(said)
        if process.returncode:
            self.board.failed(
                self.name, 'exit status %d' % process.returncode, said)
            return (said.strip().splitlines() or [''])[-1]
        return 'ok'


class Group(Job):
    """The tests of a virtual environment, as stestr runs them."""

    def __init__(self, name: str, board: Board, filters: list[str],
                 workers: int, prefix: list[str]) -> None:
        super().__init__(name, board)
        self._filters = filters
        self._workers = workers
        self._prefix = prefix
        self._tests = 0
        self._all_ended_well = True

    def _command(self) -> list[typing.Any]:
        venv = _VENVS / self.name
        kind = self.name.partition('-')[0]
        tests = './tests/' + kind if kind in ('nova', 'neutron') else './tests'
        command = [*self._prefix, venv / 'bin/stestr', '--test-path', tests,
                   '--repo-url', venv, 'run', '--subunit',
                   '--concurrency', self._workers]
        if self.name in _LEFT_OUT and not (self._filters or _LONG):
            command += ['--exclude-regex', _LEFT_OUT[self.name]]
        return command + self._filters

    def _environment(self) -> dict[str, str]:
        # To test.sh it is what environments are made with, and to stestr what
        # runs the tests.
        environment = super()._environment()
        environment.pop('PYTHON', None)
        return environment

    def _hear(self, process: 'subprocess.Popen[bytes]') -> str:
        result = testtools.CopyStreamResult([
            _Meanwhile(self), testtools.StreamToDict(self._ended)])
        result.startTestRun()
        subunit.ByteStreamToStreamResult(
            process.stdout, non_subunit_name='stdout').run(result)
        result.stopTestRun()
        process.wait()
        if (process.returncode or not (self._tests or self._filters)
                or not self._all_ended_well
                and not self.board.has_failed(self.name)):
            self.board.failed(self.name, 'stestr ended with %d after %d tests'
                              % (process.returncode, self._tests),
                              self._log_until_now())
        return '%d tests done' % self._tests

    def _ended(self, test: dict[str, typing.Any]) -> None:
        begin, end = test['timestamps']
        status = test['status']
        if status == 'inprogress':
            status = 'never ended'
        elif status not in ('success', 'skip', 'xfail', 'fail', 'uxsuccess'):
            return  # That there is such a test, or what a worker printed.
        if test['id'] == 'process-returncode':
            # One of stestr's own processes; its tests have been told.
            self._all_ended_well = False
            return
        self._tests += 1
        reason = test['details'].pop('reason', None)
        reason = reason and reason.as_text()
        self.log.write('%s %s %.2f s %s\n' % (
            status, test['id'], (end - begin).total_seconds() if end else 0,
            reason or ''))
        details = {}
        # Of one that never ended, it says nothing; whatever ended its process
        # may have.
        said = self._log_until_now() if status == 'never ended' else ''
        if status not in (*_PASSED, 'skip'):
            details = {name: content.as_text() for name, content
                       in test['details'].items()}
            for name, text in details.items():
                self.log.write('--- %s\n%s\n' % (name, text))
        self.log.flush()
        self.board.test_ended(
            self.name, test['id'], status, reason,
            details.get('traceback') or '\n'.join(details.values()) or said)

    def _log_until_now(self) -> str:
        self.log.flush()
        return (_LOGS / self.name).read_text(errors='replace')


class Kernel(Group):
    """Tests of the newest libraries on another kernel, under QEMU.

    One process there loads them, once: that takes half a minute, or more.

    :param version: of Linux, as 6.1
    :param patterns: which tests: regular expressions that each fit, before the
        filters
    :param part: which part of them, from 0, and of how many
    """

    def __init__(self, version: str, board: Board, filters: list[str],
                 patterns: list[str],
                 part: tuple[int, int] = (0, 1)) -> None:
        name = _KERNEL + version + ('-%d' % part[0] if part[1] > 1 else '')
        super().__init__(name, board, filters, 1, [])
        self._version = version
        self._patterns = patterns
        self._part = part

    def _command(self) -> list[typing.Any]:
        tests = _part(self._list(), *self._part)
        listed = _LOGS.absolute() / (self.name + '.tests')
        listed.write_text('\n'.join(tests))
        modules = sorted(set(map(_module, tests)))
        return ['tools/kernel.sh', '--cpus', '1', self._version, ' '.join([
            'TAPMAC_EMULATED=1 exec .venv/test/bin/python -m subunit.run',
            '--load-list', shlex.quote(str(listed)), *modules,
            '2> /run/kept/said'])]

    def _list(self) -> list[str]:
        """Return the names of its tests."""
        said = subprocess.run(
            [_VENVS / 'test/bin/python', '-m', 'testtools.run', 'discover',
             '--list', '-t', '.', '-s', 'tests'], stdout=subprocess.PIPE,
            stderr=self.log, check=True, env=self._environment(),
            text=True).stdout
        return [test for test in said.split()
                if all(re.search(each, test) for each in (
                    *self._patterns, '|'.join(self._filters)))]

    def _environment(self) -> dict[str, str]:
        # What takes its time takes ten times as long there.
        environment = super()._environment()
        for name in 'TAPMAC_ALL', 'TAPMAC_LONG':
            environment.pop(name, None)
        return environment


def _end(text: str) -> str:
    """Return the last lines of a text, each with its newline."""
    return ''.join(line + '\n' for line in text.splitlines()[-_SHOWN:])


def _module(test: str) -> str:
    return test.rpartition('.')[0].rpartition('.')[0]


def _part(tests: list[str], part: int, parts: int) -> list[str]:
    """Return one of so many parts of tests: whole modules, about as many."""
    shares = [0] * parts
    wanted = set()
    for module, number in collections.Counter(
            map(_module, tests)).most_common():
        least = shares.index(min(shares))
        shares[least] += number
        if least == part:
            wanted.add(module)
    return [test for test in tests if _module(test) in wanted]


class _Meanwhile(testtools.StreamResult):
    """Tells what is not the end of a test: that one begins, and mere words."""

    def __init__(self, group: Group) -> None:
        super().__init__()
        self._group = group

    def status(self, test_id: str | None = None,
               test_status: str | None = None,
               file_bytes: bytes | memoryview | None = None,
               **_: typing.Any) -> None:
        if test_id is None:
            # Of a large one, it is a view of memory.
            self._group.log.write(bytes(file_bytes or b'').decode(
                errors='replace'))
        elif test_status == 'inprogress':
            self._group.board.test_started(self._group.name, test_id)


def _namespace() -> list[str]:
    """Return what gives the tests the privilege that they need, if need be."""
    with open('/proc/self/status') as status:
        capabilities = next(int(line.split()[1], 16) for line in status
                            if line.startswith('CapEff'))
    if (capabilities >> _CAP_NET_ADMIN & 1
            and capabilities >> _CAP_SYS_ADMIN & 1):
        return []
    prefix = ['unshare', '--user', '--map-root-user']
    try:
        works = subprocess.run([*prefix, '--net', 'true'],
                               stderr=subprocess.DEVNULL).returncode == 0
    except FileNotFoundError:
        return []
    return prefix if works else []


def _kernels(arguments: argparse.Namespace, board: Board) -> list[Job]:
    """Return what is to run on other kernels, of what has run on this one.

    What is whole is halved, so that no processor waits for another.
    """
    whole = [_ON_EACH_KERNEL]
    if arguments.each_somewhere and not _LONG:
        # The rest has just run on this machine's own kernel.
        whole.append('|'.join([_CORE, *(
            r'\A%s\Z' % re.escape(test) for test in board.ran_nowhere())]))
    return [
        Kernel(version, board, arguments.filters, patterns, (part, parts))
        for versions, patterns, parts in (
            (arguments.kernels, whole, 1 if arguments.filters else 2),
            (arguments.kernels_core, [_CORE], 1))
        for version in versions for part in range(parts)]


def _run(jobs: list[Job], at_once: int, board: Board) -> None:
    """Run each, so many at once, in this order; come back after all."""
    places = threading.Semaphore(at_once)

    def run(job: Job) -> None:
        try:
            job.run()
        finally:
            places.release()

    threads = []
    for job in jobs:
        while not places.acquire(timeout=1):
            board.tick()
        threads.append(threading.Thread(target=run, args=(job,), daemon=True))
        threads[-1].start()
    for thread in threads:
        while thread.is_alive():
            thread.join(timeout=1)
            board.tick()


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument('--since', type=float, default=time.time())
    parser.add_argument('--checks', nargs='*', default=[])
    parser.add_argument('--groups', nargs='*', default=[])
    parser.add_argument('--each-somewhere', action='store_true')
    parser.add_argument('--kernels', nargs='*', default=[])
    parser.add_argument('--kernels-core', nargs='*', default=[])
    parser.add_argument('filters', nargs='*')
    arguments = parser.parse_args()

    _LOGS.mkdir(exist_ok=True)
    for old in _LOGS.iterdir():
        old.unlink()
    board = Board(arguments.since)
    processors = os.cpu_count() or 1
    # Several at a time, because they also wait. Our own take longest.
    groups = sorted(arguments.groups, key=lambda name: (
        _FIRST.index(name) if name in _FIRST else len(_FIRST)))
    alone = len(groups) == 1
    workers = {name: 3 * processors if alone
               else processors if name in _LONGEST
               else (processors + 1) // 2 for name in groups}
    prefix = _namespace()
    if prefix:
        print('Without privilege: what needs some runs in a user namespace.')
    jobs: list[Job] = [
        *(Group(name, board, arguments.filters, workers[name], prefix)
          for name in groups),
        *(Check(name, board) for name in arguments.checks)]
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        _run(jobs, processors + 2, board)
        # After all others: real guests beside them would be too much.
        kernels = _kernels(arguments, board)
        jobs += kernels
        _run(kernels, processors, board)
        if arguments.each_somewhere:
            board.require_each_somewhere()
    except KeyboardInterrupt:
        board.failed('all', 'stopped')
        for job in jobs:
            job.end()
    board.summary()
    return 1 if board.failures or not board.passed and (
        arguments.groups or kernels) else 0


if __name__ == '__main__':
    sys.exit(main())
