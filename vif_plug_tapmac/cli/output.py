# SPDX-License-Identifier: Apache-2.0

"""What commands tell: with types for scripts, and in words for people.

A row is made of values that JSON has: None where there is nothing to tell. See
"Output for scripts" in the documentation, which has the keys and types.
"""

import argparse
import typing

from cliff import lister
from cliff import show

from vif_plug_tapmac import exception

#: The formats that have types. All others have words.
_TYPED = ('json', 'yaml')
#: The same without a word for what is not there.
_NOTHING = {'csv': '', 'shell': ''}

Row = typing.Sequence[typing.Any]


class Said(typing.NamedTuple):
    """A value that people are told in other words than its own."""
    value: typing.Any
    words: str


class Lister(lister.Lister):
    """A command that tells rows.

    What it has for scripts only is left out of other formats than JSON and
    YAML, unless it is asked for.
    """
    FOR_SCRIPTS: tuple[str, ...] = ()

    def columns(self, parsed_args: argparse.Namespace) -> tuple[str, ...]:
        """Return what each row has."""
        raise NotImplementedError

    def run(self, parsed_args: argparse.Namespace) -> int:
        _require_known(parsed_args.columns, self.columns(parsed_args))
        return super().run(parsed_args)

    def produce_output(self, parsed_args: argparse.Namespace,
                       column_names: typing.Sequence[str],
                       data: typing.Iterable[Row]) -> int:
        return super().produce_output(parsed_args, *_told(
            self, parsed_args, column_names, data))


class ShowOne(show.ShowOne):
    """The same for a command that tells of one thing."""
    FOR_SCRIPTS: tuple[str, ...] = ()

    def columns(self, parsed_args: argparse.Namespace) -> tuple[str, ...]:
        """Return what is told."""
        raise NotImplementedError

    def run(self, parsed_args: argparse.Namespace) -> int:
        _require_known(parsed_args.columns, self.columns(parsed_args))
        return super().run(parsed_args)

    def produce_output(self, parsed_args: argparse.Namespace,
                       column_names: typing.Sequence[str],
                       data: Row) -> int:
        names, rows = _told(self, parsed_args, column_names, [data])
        return super().produce_output(parsed_args, names, rows[0])


def _require_known(asked: list[str], columns: tuple[str, ...]) -> None:
    """Check what -c says, before anything is done.

    :raises TapMacError: there is no such column
    """
    known = {_plain(column) for column in columns}
    for each in asked:
        if _plain(each) not in known:
            raise exception.TapMacError(
                'There is no column %s: there are %s.' % (
                    each, ', '.join(columns)))


def _plain(column: str) -> str:
    """Return a column as it may be typed, by cliff's rule."""
    return column.lower().strip().replace(' ', '_')


def _told(command: Lister | ShowOne, parsed_args: argparse.Namespace,
          columns: typing.Sequence[str], rows: typing.Iterable[Row],
          ) -> tuple[list[str], list[list[typing.Any]]]:
    """Return columns and rows as the format that was asked for has them."""
    if parsed_args.formatter in _TYPED:
        return list(columns), [[
            each.value if isinstance(each, Said) else each for each in row]
            for row in rows]
    nothing = _NOTHING.get(parsed_args.formatter, '-')
    kept = [number for number, column in enumerate(columns)
            if parsed_args.columns or column not in command.FOR_SCRIPTS]
    return [columns[number] for number in kept], [
        [_words(row[number], nothing) for number in kept] for row in rows]


def _words(value: typing.Any, nothing: str) -> typing.Any:
    if isinstance(value, Said):
        return value.words
    if value is None:
        return nothing
    if isinstance(value, bool):
        return 'yes' if value else 'no'
    if isinstance(value, (list, tuple)):
        return ', '.join(map(str, value))
    return value
