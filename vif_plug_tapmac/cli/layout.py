# SPDX-License-Identifier: Apache-2.0

"""How commands tell people: formats of cliff that fit 80 columns.

They get all that a command has, as scripts do, and leave out what is for these
only. A command to copy has a line of its own, and is never broken.
"""

import argparse
import textwrap
import typing

from cliff.formatters import base

from vif_plug_tapmac.cli import output
from vif_plug_tapmac.host.finding import Remedy

#: So that no terminal of 80 columns puts an empty line after a full one.
_WIDTH = 79
#: Between columns.
_GAP = '  '


class Paragraphs(base.ListFormatter):
    """A paragraph for each finding, and how many there are."""

    def add_argument_group(self, parser: argparse.ArgumentParser) -> None:
        pass

    def emit_list(self, column_names: typing.Sequence[str],
                  data: typing.Iterable[output.Row], stdout: typing.TextIO,
                  parsed_args: argparse.Namespace) -> None:
        findings = [dict(zip(column_names, row)) for row in data]
        for finding in findings:
            stdout.write(paragraph(finding) + '\n')
        stdout.write(_count(findings) + '\n')


class Columns(base.ListFormatter):
    """A line for each row, of some columns; the last may have its own line.

    :param columns: which are shown
    :param nothing: what is said if there is no row
    """

    def __init__(self, columns: tuple[str, ...], nothing: str) -> None:
        self._columns, self._nothing = columns, nothing

    def add_argument_group(self, parser: argparse.ArgumentParser) -> None:
        pass

    def emit_list(self, column_names: typing.Sequence[str],
                  data: typing.Iterable[output.Row], stdout: typing.TextIO,
                  parsed_args: argparse.Namespace) -> None:
        rows = [[_text(dict(zip(column_names, row))[column])
                 for column in self._columns] for row in data]
        if not rows:
            stdout.write(self._nothing + '\n')
            return
        rows.insert(0, list(self._columns))
        widths = [max(map(len, column)) for column in zip(*rows)]
        for *cells, last in rows:
            line = _GAP.join(cell.ljust(width)
                             for cell, width in zip(cells, widths))
            if len(line + _GAP + last) > _WIDTH:
                stdout.write(line.rstrip() + '\n')
                line = _GAP
            stdout.write((line + _GAP + last).rstrip() + '\n')


class Fields(base.SingleFormatter):
    """A line for each field, and what is wrong below.

    :param hidden: the fields that are not shown
    :param if_told: those that are not where there is nothing to tell
    """

    def __init__(self, hidden: tuple[str, ...],
                 if_told: tuple[str, ...] = ()) -> None:
        self._hidden, self._if_told = hidden, if_told

    def add_argument_group(self, parser: argparse.ArgumentParser) -> None:
        pass

    def emit_one(self, column_names: typing.Sequence[str],
                 data: output.Row, stdout: typing.TextIO,
                 parsed_args: argparse.Namespace) -> None:
        fields = dict(zip(column_names, data))
        findings = fields.pop('Wrong').value
        shown = {name: value for name, value in fields.items()
                 if name not in self._hidden
                 and not (value is None and name in self._if_told)}
        width = max(map(len, shown)) + len(_GAP)
        for name, value in shown.items():
            first, *lines = _text(value).split('\n')
            stdout.write(_wrapped(name.ljust(width) + first,
                                  '', ' ' * width) + '\n')
            # What has lines of its own has them below it.
            for line in lines:
                text = line.lstrip()
                stdout.write(_wrapped(text, '  ' + line[:-len(text)],
                                      '      ') + '\n')
        for finding in findings:
            stdout.write('\n' + paragraph(finding))
        stdout.write('\n' + _count(findings) + '\n')


class Verdicts(base.ListFormatter):
    """What becomes of each frame, why, and what it would pass with."""

    def add_argument_group(self, parser: argparse.ArgumentParser) -> None:
        pass

    def emit_list(self, column_names: typing.Sequence[str],
                  data: typing.Iterable[output.Row], stdout: typing.TextIO,
                  parsed_args: argparse.Namespace) -> None:
        frames = [dict(zip(column_names, row)) for row in data]
        for frame in frames:
            lines = ['%s: frame %d, %s' % (
                frame['Verdict'], frame['Number'], frame['Frame'])]
            if frame['By'] is not None:
                lines.append('  By: ' + frame['By'] + (
                    ', "%s" (chain %s)' % (frame['Rule'], frame['Chain'])
                    if frame['Chain'] else ''))
                lines.append('  Seen: ' + frame['Because'])
                lines.append('  Passes with: ' + (', or with '.join(
                    frame['Passes with']) or 'nothing that is nearly like it'))
            elif frame['Let pass by'] is not None:
                lines.append('  By: ' + frame['Let pass by'])
            stdout.write('\n'.join(_wrapped(line, '', '    ')
                                   for line in lines) + '\n')


def paragraph(finding: dict[str, typing.Any]) -> str:
    """Return a finding in some lines.

    :param finding: as commands tell it, by key; with "Result" it says what was
        done about it
    """
    lines = [_wrapped('%s %s %s: %s' % (
        finding['Severity'], finding['Code'], finding['Device'],
        finding['Meaning']), '', '    ')]
    lines += [_wrapped('%s: %s' % (label, finding[key]), '  ', '    ')
              for label, key in (('Seen', 'Evidence'), ('Why', 'Why'))]
    result = finding.get('Result', 'Remedy')
    lines += (_remedy(finding) if result.startswith('Remedy')
              else ['  Result: ' + result])
    return '\n'.join(lines) + '\n'


def _remedy(finding: dict[str, typing.Any]) -> typing.Iterator[str]:
    parts = (['', finding['Remedy'], ''] if finding['Mendable']
             else Remedy(finding['Remedy']).parts)
    words = [part.strip(' ,;:') for part in parts[::2]]
    # A command follows all but the last.
    words[:-1] = [each and each + ':' for each in words[:-1]]
    yield _wrapped(('Remedy: ' + words[0]) if words[0] else 'Remedy:',
                   '  ', '    ')
    for command, said in zip(parts[1::2], words[1:]):
        yield ' ' * 8 + command
        if said:
            yield _wrapped(said, '    ', '    ')


def _count(findings: typing.Sequence[dict[str, typing.Any]]) -> str:
    """Return how much is wrong by now."""
    left = [finding['Severity'] for finding in findings
            if not finding.get('Mended')]
    if not left:
        return 'Nothing is wrong.'
    counts = {severity: left.count(severity)
              for severity in ('error', 'warning')}
    return ', '.join('%d %s%s' % (count, severity, 's' * (count != 1))
                     for severity, count in counts.items() if count) + '.'


def _text(value: typing.Any) -> str:
    return str(output.words(value, '-'))


def _wrapped(text: str, first: str, others: str) -> str:
    return textwrap.fill(text, _WIDTH, initial_indent=first,
                         subsequent_indent=others, break_on_hyphens=False)
