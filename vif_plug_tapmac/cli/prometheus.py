# SPDX-License-Identifier: Apache-2.0

"""What an audit found, for the textfile collector of Prometheus.

Source: https://prometheus.io/docs/instrumenting/exposition_formats, the text
format: a backslash escapes backslashes, quotes and newlines in the value of a
label.
"""

import argparse
import collections
import time
import typing

from cliff.formatters import base

from vif_plug_tapmac.cli import output
from vif_plug_tapmac.host.finding import Severity
from vif_plug_tapmac.host.inventory import Inventory

_ESCAPES = str.maketrans({'\\': r'\\', '"': r'\"', '\n': r'\n'})

#: Labels, and a value.
_Sample = tuple[dict[str, str], float]


class Metrics(base.ListFormatter):
    """The format "prometheus" of findings.

    :ivar seen: where they were found; to be set before they are written
    """
    seen: Inventory

    def add_argument_group(self, parser: argparse.ArgumentParser) -> None:
        pass

    def emit_list(self, column_names: typing.Sequence[str],
                  data: typing.Iterable[output.Row], stdout: typing.TextIO,
                  parsed_args: argparse.Namespace) -> None:
        rows = [dict(zip(column_names, row)) for row in data]
        for name, meaning, samples in _metrics(self.seen, rows):
            stdout.write('# HELP tapmac_%s %s\n# TYPE tapmac_%s gauge\n'
                         % (name, meaning, name))
            for labels, value in samples:
                stdout.write('tapmac_%s%s %s\n' % (
                    name, _labels(labels), repr(value)))


def _metrics(
    seen: Inventory, findings: list[dict[str, typing.Any]],
) -> typing.Iterator[tuple[str, str, list[_Sample]]]:
    """Yield name, meaning and samples of each metric."""
    # One code can be found several times on a device, and a sample only once.
    each = collections.Counter(
        (row['Code'], row['Severity'], row['Device']) for row in findings)
    yield 'finding', 'What is wrong, by code and device.', [
        ({'code': code, 'severity': severity, 'device': device}, count)
        for (code, severity, device), count in each.items()]
    severities = collections.Counter(row['Severity'] for row in findings)
    yield 'findings', 'How much is wrong, by severity.', [
        ({'severity': str(severity)}, severities[str(severity)])
        for severity in Severity]
    ours = [tap for tap in seen.taps if tap.is_ours]
    for name, meaning, value in (
            ('taps', 'TAPs of tapmac.', len(ours)),
            ('taps_held', 'Those of them that a guest, or another process, '
             'holds.', sum(tap.link.held for tap in ours)),
            ('bridges', 'Bridges that were looked at.', len(seen.bridges)),
            ('libvirt_answered', 'Whether libvirt did; without, some codes '
             'are not looked for.', int(seen.libvirt is not None)),
            ('audit_time_seconds', 'When this was, in seconds since 1970.',
             round(time.time(), 3))):
        yield name, meaning, [({}, value)]


def _labels(labels: dict[str, str]) -> str:
    return '' if not labels else '{%s}' % ','.join(
        '%s="%s"' % (name, value.translate(_ESCAPES))
        for name, value in labels.items())
