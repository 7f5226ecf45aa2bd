# SPDX-License-Identifier: Apache-2.0

"""What was measured, as tables and as a plot."""

import typing

from benchmarks import contestants
from benchmarks import filters

_Results = dict[str, typing.Any]

_WORKS = {'plug': 'Plug, new', 'replug': 'Plug again, unchanged',
          'unplug': 'Unplug'}


class Goal(typing.NamedTuple):
    """What is to be reached, and what was.

    :param measured: None if this was not measured
    """
    what: str
    must: float
    aim: float
    measured: float | None


def _get(results: _Results, *path: typing.Any) -> typing.Any:
    for step in path:
        if not isinstance(results, dict) or step not in results:
            return None
        results = results[step]
    return results


def _median(results: _Results, name: str, work: str, ports: int) -> float:
    found: float | None = _get(results, 'ports', name, work, ports, 'median')
    return float('nan') if found is None else found


def _worst(results: _Results, one: tuple[str, str],
           other: tuple[str, str]) -> float | None:
    """Return how many times the other one is, at the worst port count."""
    ratios = [_median(results, *one, ports) / _median(results, *other, ports)
              for ports in results['plan']['ports']]
    return max(ratios) if all(ratio == ratio for ratio in ratios) else None


def _growth(results: _Results) -> float | None:
    """Return how much more a plug's cost grows than the limit's."""
    first, last = results['plan']['ports'][0], results['plan']['ports'][-1]
    ours, limit = (
        _median(results, name, 'plug', last) / _median(results, name, 'plug',
                                                       first)
        for name in ('in process', 'limit'))
    ratio = ours / limit
    return ratio if ratio == ratio else None


def _threads(results: _Results, name: str) -> float | None:
    seen = _get(results, 'host', name, 'unplug')
    return None if seen is None else seen[16]['total'] / seen[1]['total']


def _start(results: _Results, *what: str) -> float | None:
    """Return how many times os-vif's start alone another one is."""
    kind = what[-1] if what[0] == 'starting' else 'seconds'
    alone, found = (_get(results, 'starting', 'os-vif', kind),
                    _get(results, *what))
    return found / alone if found and alone else None


def _more(results: _Results, part: str, before: str, after: str, what: str,
          unit: float) -> float | None:
    one, other = (_get(results, part, when, what) for when in (before, after))
    return None if one is None else (other - one) / unit


def _frame(results: _Results, one: str, other: str) -> float | None:
    """Return how many times the other filter takes for a frame."""
    seen = [_get(results, 'filters', 'frame', name, 'median')
            for name in (one, other)]
    return None if None in seen else seen[0] / seen[1]


def _kept(results: _Results, work: str) -> float | None:
    """Return how many times what takes a guest kept to its MAC alone."""
    found: float | None = _get(results, 'kept', 'works', work, 'times')
    return found


def _purge(results: _Results) -> float | None:
    seen = _get(results, 'kept', 'purge')
    return (None if seen is None
            else seen[contestants.KEPT] / seen[contestants.GUARDED])


def _milli(seconds: float | None) -> float | None:
    return None if seconds is None else 1000 * seconds


def goals(results: _Results) -> list[Goal]:
    """Return what the project wants to reach."""
    audits = _get(results, 'host', 'audit')
    purge, serial = (_get(results, 'host', 'purge'),
                     _get(results, 'host', 'in process', 'unplug', 1, 'total'))
    return [
        Goal('plug new, in process: times the limit', 4, 2.5,
             _worst(results, ('in process', 'plug'), ('limit', 'plug'))),
        Goal('plug new, privsep: times Nova 34', 0.25, 0.25,
             _worst(results, ('privsep', 'plug'), ('Nova 34', 'plug'))),
        Goal('plug new, privsep: times linux_bridge 4.3.1', 1.5, 1,
             _worst(results, ('privsep', 'plug'),
                    ('linux_bridge 4.3.1', 'plug'))),
        Goal('plug again, in process: times plug new', 0.6, 0.3,
             _worst(results, ('in process', 'replug'),
                    ('in process', 'plug'))),
        Goal('growth from the least to the most ports: times the limit\'s',
             1.2, 1.05, _growth(results)),
        Goal('unplug, in process: times the limit', 1.1, 1,
             _worst(results, ('in process', 'unplug'), ('limit', 'unplug'))),
        Goal('unplug all, 16 threads, in process: times one thread', 0.25, 0.1,
             _threads(results, 'in process')),
        Goal('unplug all, 16 threads, privsep: times one thread', 0.25, 0.1,
             _threads(results, 'privsep')),
        Goal('loading: ms more', 60, 30, _more(
            results, 'loading', 'without', 'with', 'seconds', 0.001)),
        Goal('loading: MiB more', 8, 4, _more(
            results, 'loading', 'without', 'with', 'kib', 1024)),
        Goal('starting with the plugin: processor time, times os-vif alone',
             1.25, 1.1, _start(results, 'starting', 'plugin', 'processor')),
        Goal('"tapmac list": processor time, times os-vif alone', 1, 0.7,
             _start(results, 'starting', 'tapmac list', 'processor')),
        Goal('"tapmac mac": processor time, times os-vif alone', 1, 0.7,
             _start(results, 'starting', 'tapmac mac', 'processor')),
        Goal('first plug after a start, privsep: times os-vif\'s own start',
             1.5, 1, _start(results, 'first', 'privsep', 'median')),
        Goal('daemon after all pairs: MiB more', 0.5, 0.1, _more(
            results, 'pairs', 'before', 'after', 'kib', 1024)),
        Goal('daemon after all pairs: descriptors more', 0, 0, _more(
            results, 'pairs', 'before', 'after', 'descriptors', 1)),
        Goal('daemon after all pairs: threads more', 0, 0, _more(
            results, 'pairs', 'before', 'after', 'threads', 1)),
        Goal('"tapmac audit": seconds', 2, 2,
             min(each['total'] for each in audits) if audits else None),
        Goal('"tapmac purge", all at once: times one by one', 1, 0.1,
             purge / serial if purge and serial else None),
        *(Goal('plug, %s %s: times %s' % (most, what, least), 1.1, 1.05,
               seen[most]['median'] / seen[least]['median'])
          for what, seen in results.get('flat', {}).items()
          for least, most in [list(seen)]),
        Goal('plug new, full: processor time, times mac', 1.5, 1.3,
             _kept(results, 'plug')),
        Goal('unplug, full: processor time, times mac', 1.2, 1.1,
             _kept(results, 'unplug')),
        Goal('purge, full: times mac', 1.2, 1.05, _purge(results)),
        Goal('a frame behind full, many ports: times no filter', 1.5, 1.3,
             _frame(results, filters.FULL, filters.WITHOUT)),
        Goal('a frame behind full, many ports: times few ports', 1.1, 1.05,
             _frame(results, filters.FULL, filters.FULL_FEW)),
        Goal('a frame behind tapmac, many ports: times no filter', 2.2, 2,
             _frame(results, filters.MANY, filters.WITHOUT)),
        Goal('a frame behind tapmac, many ports: times few ports', 1.15, 1.05,
             _frame(results, filters.MANY, filters.FEW)),
        Goal('one more rule of a group that many ports are in: ms of '
             'processor time', 200, 50, _milli(_get(
                 results, 'filters', 'rule', 'median'))),
    ]


def _verdict(goal: Goal) -> str:
    if goal.measured is None:
        return 'not measured'
    rounded = round(goal.measured, 2)
    return ('missed' if rounded > goal.must
            else 'must' if rounded > goal.aim else 'aim')


def tables(results: _Results) -> str:
    """Return everything as text, each table in reStructuredText's form."""
    machine, plan = results['machine'], results['plan']
    parts = ['%(time)s, %(cpus)d CPUs (%(model)s), Linux %(kernel)s, '
             'Python %(python)s, load %(load).1f' % machine
             + ', multicast snooping' * plan['snooping']]
    for work, title in _WORKS.items():
        for what, cell in _CELLS.items():
            rows = [[name, *(cell(results, name, work, ports)
                             for ports in plan['ports'])]
                    for name in contestants.NAMES
                    if _get(results, 'ports', name, work)]
            if rows:
                parts.append(_table(
                    '%s: %s' % (title, what),
                    ['', *('%d ports' % ports for ports in plan['ports'])],
                    rows))
    for work in 'plug', 'unplug':
        rows = [[name, *('%.2f' % seen[work][threads]['total']
                         for threads in plan['threads'])]
                for name in contestants.NAMES
                if (seen := _get(results, 'host', name))]
        if rows:
            parts.append(_table(
                '%s of %d: seconds for all' % (work.capitalize(),
                                               plan['host']),
                ['', *('%d threads' % each for each in plan['threads'])],
                rows))
    first = results.get('first')
    if first:
        parts.append(_table(
            'First plug after a start', ['', 'ms'],
            [[name, '%.0f' % (1000 * each['median'])]
             for name, each in first.items()]))
    starting = results.get('starting')
    if starting:
        parts.append(_table(
            'Starting a process: ms, and of them the processor\'s; times '
            'os-vif alone', ['', 'ms', 'processor', 'times'],
            [[name, *('%.0f' % (1000 * each[kind])
                      for kind in ('seconds', 'processor')),
              '%.2f' % (each['processor'] / starting['os-vif']['processor'])]
             for name, each in starting.items()]))
    flat = results.get('flat')
    if flat:
        parts.append(_table(
            'Plug, new, where there is much of something: ms, median and 99th '
            'percentile; times where there is little',
            ['', 'median', '99th', 'times'],
            [['%s %s' % (amount, what), '%.2f' % (1000 * each['median']),
              '%.2f' % (1000 * each['p99']),
              '%.2f' % (each['median'] / seen[min(seen, key=int)]['median'])]
             for what, seen in flat.items() for amount, each in seen.items()]))
    kept = results.get('kept')
    if kept:
        rows = [[title, '%.2f' % (1000 * each[contestants.GUARDED]),
                 '%.2f' % (1000 * each[contestants.KEPT]),
                 '%.2f' % each['times']] for title, each in (
            (_WORKS[work], each) for work, each in kept['works'].items())]
        parts.append(_table(
            'Guests kept to their addresses (full) beside ones kept to their '
            'MACs, one port of %d: ms of processor time; times mac, as the '
            'median of turns' % kept['ports'],
            ['', 'mac', 'full', 'times'], rows))
        one, other = (kept['purge'][name] for name in (contestants.GUARDED,
                                                       contestants.KEPT))
        parts.append(_table(
            'Purge of %d: seconds for all' % kept['ports'],
            ['', 'seconds', 'times'],
            [['mac', '%.2f' % one, '1.00'],
             ['full', '%.2f' % other, '%.2f' % (other / one)]]))
    filtered = _get(results, 'filters', 'frame')
    if filtered:
        without = filtered[filters.WITHOUT]['median']
        parts.append(_table(
            'A frame from a guest to another: microseconds of processor time; '
            'times no filter', ['', 'ports', 'microseconds', 'times'],
            [[name, str(each['ports']), '%.2f' % (1e6 * each['median']),
              '%.2f' % (each['median'] / without)]
             for name, each in filtered.items()]))
    parts.append(_table(
        'Goals', ['', 'must', 'aim', 'measured', 'reached'],
        [[goal.what, '%g' % goal.must, '%g' % goal.aim,
          '' if goal.measured is None else '%.2f' % goal.measured,
          _verdict(goal)] for goal in results['goals']]))
    return '\n\n'.join(parts)


def _milliseconds(what: str) -> typing.Callable[..., str]:
    """Return what says one of these figures of a contestant as text."""
    def told(results: _Results, name: str, work: str, ports: int) -> str:
        seen: float = results['ports'][name][work][ports][what]
        return '%.2f' % (1000 * seen)
    return told


def _times(results: _Results, name: str, work: str, ports: int) -> str:
    seen = results['ports'][name][work][ports]
    ratio = seen['median'] / _median(results, 'limit', work, ports)
    return 'not measured' if ratio != ratio else '%.1f' % ratio


#: What is told of a plug or an unplug, each in a table of its own.
_CELLS = {'ms, median': _milliseconds('median'),
          'ms, 99th percentile': _milliseconds('p99'),
          'times the limit, median': _times}


def _table(title: str, head: list[str], rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(head, *rows)]
    # An empty cell in front would go on with the row before.
    rule = '  '.join('=' * max(width, 1) for width in widths)
    lines = ['  '.join(cell.ljust(width) for cell, width
                       in zip([cell or '\\' for cell in row[:1]] + row[1:],
                              widths)).rstrip()
             for row in [head, *rows]]
    return '\n'.join([title, '', rule, lines[0], rule, *lines[1:], rule])


def require_matplotlib() -> None:
    """Check that there can be a plot.

    :raises Missing: matplotlib is not there
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise contestants.Missing(
            'matplotlib is missing, which --plot needs: pip install '
            '"vif-plug-tapmac[bench]"')


def plot(results: _Results, path: str) -> None:
    """Draw what a plug and an unplug cost, by the number of ports."""
    import matplotlib
    matplotlib.use('agg')
    matplotlib.rcParams['svg.hashsalt'] = 'tapmac'
    from matplotlib import pyplot
    figure, axes = pyplot.subplots(1, 3, figsize=(12, 4.5), sharey=True)
    ports = results['plan']['ports']
    for axis, (work, title) in zip(axes, _WORKS.items()):
        for number, name in enumerate(contestants.NAMES):
            if _get(results, 'ports', name, work):
                axis.plot(ports, [1000 * _median(results, name, work, each)
                                  for each in ports],
                          label=name, color='C%d' % number,
                          marker='o' if name in contestants.OURS else '.',
                          linestyle='--' if name == 'limit' else '-')
        axis.set(title=title, xlabel='ports on the bridge', yscale='log')
        axis.grid(alpha=0.3)
    axes[0].set_ylabel('ms, median')
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc='lower center', ncol=len(labels) // 2)
    figure.tight_layout(rect=(0, 0.18, 1, 1))
    figure.savefig(path, metadata={'Date': None}
                   if path.endswith('.svg') else None)
