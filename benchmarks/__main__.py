# SPDX-License-Identifier: Apache-2.0

"""Measure how fast ports come and go: beside the kernel's limit and others.

One run measures all contestants, each on a host of its own, one after the
other again and again, so that whatever else the machine does meets all of
them. Needs root.
"""

import argparse
import contextlib
import datetime
import json
import os
import pathlib
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import typing

from benchmarks import contestants
from benchmarks import filters
from benchmarks import report

#: Of ports that come and go, beside those that stay.
_VISITOR = 1000000
_LOADING = '''\
import sys, time
import os_vif
from stevedore import extension
if sys.argv[1] == 'without':
    listed = extension.ExtensionManager.list_entry_points
    extension.ExtensionManager.list_entry_points = lambda self: [
        each for each in listed(self) if each.name != 'tapmac']
start = time.perf_counter()
os_vif.initialize()
print(time.perf_counter() - start)
print(open('/proc/self/status').read().split('VmRSS:')[1].split()[0])
'''

_OS_VIF = 'from os_vif import objects; objects.register_all()'
_COMMAND = ('import sys; from vif_plug_tapmac.cli import main; '
            'sys.exit(main.main())')
#: What is started, as code and its arguments.
_STARTS: dict[str, tuple[str, ...]] = {
    'os-vif': (_OS_VIF,),
    'plugin': (_OS_VIF + '; import vif_plug_tapmac.plugin',),
    'tapmac list': (_COMMAND, 'list'),
    'tapmac mac': (_COMMAND, 'mac', 'fa:16:3e:28:64:c2'),
}

#: What a plug must not cost more for: in words; the work that makes it; and
#: how much there is of it, at the least and at the most.
FLAT = (
    ('bridge_uplinks', 'uplinks', 0, 1000),
    ('rules of nftables of others, host_shield', 'rules', 0, 20000),
    ('chains of others, each guest on a new bridge', 'chains', 0, 30000),
    ('links on the host', 'links', 10, 10000),
    ('ms for a look-up of a user', 'users', 0, 10),
)

_Results = dict[str, typing.Any]


class Plan(typing.NamedTuple):
    """How much is measured.

    :param ports: how many there are on the bridge, with the one that comes
    :param repeat: how many turns each contestant has, for each of these
    :param visitors: how many ports come and go in a turn, one by one
    :param host: how many ports come and go at once
    :param starts: how often a process is started anew
    :param pairs: of a plug and an unplug
    :param snooping: whether the bridges snoop on multicast
    :param most: of what a plug must not cost more for, at the most
    :param filtered: how many ports there are behind each filter
    :param frames: how many go through each in a turn
    """
    ports: list[int]
    repeat: int
    visitors: int
    host: int
    starts: int
    pairs: int
    snooping: bool
    most: int
    filtered: dict[str, int]
    frames: int
    threads: tuple[int, ...] = (1, 4, 16)


def _processor_time() -> float:
    """Return what processes have taken that have ended, in seconds."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _summary(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    return {'median': statistics.median(ordered),
            'p99': ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]}


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Run:
    """One run. Each part is a method that returns what it measured."""

    def __init__(self, plan: Plan, names: list[str], limit: str) -> None:
        self._plan = plan
        self._names = names
        self._limit = limit

    @contextlib.contextmanager
    def _ready(self, names: typing.Iterable[str],
               ) -> typing.Iterator[dict[str, contestants.Process]]:
        with contextlib.ExitStack() as stack:
            yield {name: stack.enter_context(contextlib.closing(
                contestants.Process(name, self._limit, self._plan.snooping)))
                for name in names if name in self._names}

    def ports(self) -> _Results:
        """A port comes, stays and goes, beside more and more others."""
        found: _Results = {name: {} for name in self._names}
        with self._ready(self._names) as ready:
            for process in ready.values():  # Whatever the first one costs.
                for work in 'plug', 'unplug':
                    process.run(work, _VISITOR)
            for ports in self._plan.ports:
                _say('one port, of %d' % ports)
                seconds = self._visits(ready, ports)
                for (name, work), each in seconds.items():
                    found[name].setdefault(work, {})[ports] = _summary(each)
        return found

    def _visits(self, ready: dict[str, contestants.Process], ports: int,
                ) -> dict[tuple[str, str], list[float]]:
        seconds: dict[tuple[str, str], list[float]] = {}
        for process in ready.values():
            process.fill(ports - 1)
        names = list(ready)
        for _ in range(self._plan.repeat):
            for name in names:
                for work in ready[name].works:
                    seconds.setdefault((name, work), []).extend(
                        ready[name].run(work, _VISITOR,
                                        self._plan.visitors)['each'])
            names.append(names.pop(0))  # Nobody always follows the same one.
        return seconds

    def host(self) -> _Results:
        """All ports of a host come, and go again."""
        found: _Results = {}
        count = self._plan.host
        names = [name for name in self._names if name != 'guarded']
        with self._ready(names) as ready:
            for process in ready.values():
                for work in 'plug', 'unplug':
                    process.run(work, 1, 16, 16)
            for threads in self._plan.threads:
                for name, process in ready.items():
                    _say('%d ports, %d threads: %s' % (count, threads, name))
                    for work in 'plug', 'unplug':
                        done = process.run(work, 1, count, threads)
                        found.setdefault(name, {}).setdefault(work, {})[
                            threads] = dict(_summary(done['each']),
                                            total=done['total'])
            if 'in process' in ready:
                ours = ready['in process']
                ours.run('plug', 1, count)
                found['audit'] = [ours.run('audit')
                                  for _ in range(self._plan.starts)]
                found['purge'] = ours.run('purge', 1, count)['total']
        return found

    def first(self) -> _Results:
        """The first port after a start: privsep starts its daemon then."""
        found: _Results = {}
        for start in range(self._plan.starts):
            for name in self._names:
                _say('first port after a start: %s' % name)
                with self._ready([name]) as ready:
                    found.setdefault(name, []).extend(
                        ready[name].run('plug')['each'])
        return {name: _summary(each) for name, each in found.items()}

    def loading(self) -> _Results:
        """os_vif.initialize() with tapmac installed, and without."""
        seen: dict[str, list[tuple[float, int]]] = {'with': [], 'without': []}
        _say('loading')
        for _ in range(4 * self._plan.starts):
            for how, each in seen.items():
                done = subprocess.run(
                    [sys.executable, '-W', 'ignore', '-c', _LOADING, how],
                    check=True, stdout=subprocess.PIPE, text=True,
                    cwd=contestants.CHECKOUT)
                seconds, kib = done.stdout.split()
                each.append((float(seconds), int(kib)))
        return {how: {'seconds': statistics.median(one for one, _ in each),
                      'kib': statistics.median(one for _, one in each)}
                for how, each in seen.items()}

    def starting(self) -> _Results:
        """Processes that are started, and end at once."""
        seen: dict[str, list[tuple[float, float]]] = {}
        _say('starting')
        for _ in range(4 * self._plan.starts):
            for name, command in _STARTS.items():
                before, start = _processor_time(), time.perf_counter()
                subprocess.run(
                    [sys.executable, '-W', 'ignore', '-c', *command],
                    check=True, stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL, cwd=contestants.CHECKOUT)
                seen.setdefault(name, []).append(
                    (time.perf_counter() - start, _processor_time() - before))
        return {name: {'seconds': statistics.median(one for one, _ in each),
                       'processor': statistics.median(one for _, one in each)}
                for name, each in seen.items()}

    def pairs(self) -> _Results:
        """What the daemon has after many plugs."""
        found: _Results = {}
        with self._ready(['privsep']) as ready:
            for process in ready.values():
                # Its threads, and what they keep, come with the work.
                process.run('pair', 1, self._plan.pairs // 2, 16)
                found['before'] = process.run('daemon')
                _say('%d pairs of plug and unplug' % self._plan.pairs)
                process.run('pair', 1, self._plan.pairs, 16)
                found['after'] = process.run('daemon')
        return found

    def flat(self) -> _Results:
        """Plugs on hosts with much of something, beside hosts with little."""
        return {what: self._compare(what, work, least,
                                    min(most, self._plan.most))
                for what, work, least, most in FLAT}

    def _compare(self, what: str, work: str, least: int,
                 most: int) -> _Results:
        seconds: dict[int, list[float]] = {least: [], most: []}
        with contextlib.ExitStack() as stack:
            ready = {}
            for amount in seconds:
                _say('%d %s' % (amount, what))
                ready[amount] = stack.enter_context(contextlib.closing(
                    contestants.Process(contestants.SITUATED, self._limit,
                                        self._plan.snooping)))
                ready[amount].run(work, count=amount)
                # Whatever the first one costs.
                ready[amount].run('pair', _VISITOR)
            for turn in range(self._plan.repeat):
                for amount in sorted(seconds, reverse=bool(turn % 2)):
                    for work in 'plug', 'unplug':
                        done = ready[amount].run(
                            work, 1 + turn * self._plan.visitors,
                            self._plan.visitors)
                        if work == 'plug':
                            seconds[amount].extend(done['each'])
        return {str(amount): _summary(each)
                for amount, each in seconds.items()}

    def kept(self) -> _Results:
        """Guests kept to their addresses beside ones kept to their MACs.

        As processor time, of one port of many: turns are short, so that what
        else the machine does meets both, and each is compared with the other
        one of its turn.
        """
        count, seen = self._plan.host, {}
        names = [contestants.GUARDED, contestants.KEPT]
        with contextlib.ExitStack() as stack:
            ready = {name: stack.enter_context(contextlib.closing(
                contestants.Process(name, self._limit, self._plan.snooping)))
                for name in names}
            for name, process in ready.items():
                _say('%d ports, %s' % (count, name))
                process.run('plug', 1, count)
                process.run('pair', _VISITOR)  # Whatever the first one costs.
            for turn in range(self._plan.repeat * self._plan.visitors):
                for name in names:
                    for work in ready[name].works:
                        seen.setdefault(work, {}).setdefault(name, []).extend(
                            ready[name].run(work, _VISITOR)['processor'])
                names.reverse()
            purge = {name: process.run('purge', 1, count)['total']
                     for name, process in ready.items()}
        return {'ports': count, 'purge': purge, 'works': {work: dict(
            {name: statistics.median(spent) for name, spent in each.items()},
            times=statistics.median(full / mac for mac, full in zip(
                each[contestants.GUARDED], each[contestants.KEPT])))
            for work, each in seen.items()}}

    def filters(self) -> _Results:
        """Frames from a guest to another, behind filters and without."""
        seconds, rule = filters.costs(
            self._plan.filtered, self._plan.repeat, self._plan.frames, _say)
        return {'frame': {
            name: dict(_summary(each), ports=self._plan.filtered[name])
            for name, each in seconds.items()}, 'rule': _summary(rule)}


PARTS = ('ports', 'host', 'first', 'loading', 'starting', 'pairs', 'flat',
         'kept', 'filters')


def _machine() -> _Results:
    model = [line.split(':', 1)[1].strip()
             for line in pathlib.Path('/proc/cpuinfo').read_text().splitlines()
             if line.startswith('model name')]
    return {'cpus': os.cpu_count(), 'model': model[0] if model else '',
            'kernel': platform.release(),
            'python': platform.python_version(),
            'time': datetime.datetime.now(datetime.timezone.utc).strftime(
                '%Y-%m-%d %H:%M UTC'),
            'load': os.getloadavg()[0]}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='python -m benchmarks', description=__doc__)
    parser.add_argument(
        '--ports', type=lambda text: [int(one) for one in text.split(',')],
        help='how many ports there are on the bridge (default: '
             '1,100,500,1000, which is the most)')
    parser.add_argument('--repeat', type=int,
                        help='how many turns of ten ports each contestant has '
                             '(default: 10)')
    parser.add_argument(
        '--only', nargs='+', default=[], metavar='NAME',
        choices=PARTS + contestants.NAMES,
        help='parts of the run (%s) or contestants (%s)'
             % (', '.join(PARTS), ', '.join(contestants.NAMES)))
    parser.add_argument('--snooping', action='store_true',
                        help='on bridges that snoop on multicast, as they do '
                             'if nobody says otherwise; those that tapmac '
                             'makes do not')
    parser.add_argument('--quick', action='store_true',
                        help='a few ports and repetitions: to see it work')
    parser.add_argument('--json', metavar='FILE',
                        help='write all that was measured')
    parser.add_argument(
        '--plot', metavar='FILE',
        help='draw cost against port count, as SVG for example; needs the '
             'extra "bench" (matplotlib)')
    return parser.parse_args()


def _able(names: typing.Iterable[str]) -> list[str]:
    """Return those that can take part; say of all others why not."""
    able = []
    for name in names:
        try:
            contestants.require(name)
            able.append(name)
        except contestants.Missing as missing:
            _say('Without %s: %s.' % (name, missing))
    return able


def main() -> int:
    """Run the command line; return its exit status."""
    arguments = _arguments()
    if os.geteuid() != 0:
        _say('Needs root: the benchmark makes network namespaces and TAPs.')
        return 1
    if arguments.plot is not None:
        report.require_matplotlib()
    quick = arguments.quick
    ports = arguments.ports or ([1, 20] if quick else [1, 100, 500, 1000])
    plan = Plan(ports=ports, repeat=arguments.repeat or (1 if quick else 10),
                visitors=3 if quick else 10, host=ports[-1],
                starts=1 if quick else 5, pairs=100 if quick else 10000,
                snooping=arguments.snooping, most=100 if quick else 1 << 30,
                filtered=dict(zip(
                    filters.NAMES, (2, 10, 60, 10, 60, 60, 20) if quick
                    else (2, 10, 1000, 10, 1000, 1000, 200))),
                frames=400 if quick else 10000)
    chosen = [name for name in contestants.NAMES if name in arguments.only]
    parts = [part for part in PARTS if part in arguments.only]
    results: _Results = {'machine': _machine(), 'plan': plan._asdict()}
    with tempfile.TemporaryDirectory() as directory:
        run = Run(plan, _able(chosen or contestants.NAMES),
                  contestants.compile_limit(directory))
        for part in parts or PARTS:
            results[part] = getattr(run, part)()
    results['goals'] = report.goals(results)
    print(report.tables(results))
    if arguments.json is not None:
        pathlib.Path(arguments.json).write_text(
            json.dumps(results, indent=1) + '\n')
    if arguments.plot is not None:
        report.plot(results, arguments.plot)
    return 0


if __name__ == '__main__':
    try:
        sys.exit(main())
    except contestants.Missing as missing:
        sys.exit('%s.' % missing)
