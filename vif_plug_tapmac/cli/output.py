# SPDX-License-Identifier: Apache-2.0

"""What commands tell: with types for scripts, and in words for people.

A row is made of values that JSON has: None where there is nothing to tell. See
"Output for scripts" in the documentation, which has the keys and types.
"""

import argparse
import typing

from cliff import display
from cliff.formatters import base
from cliff import lister
from cliff import show
from stevedore import extension

from vif_plug_tapmac import exception

#: The formats that have types. All others have words.
_TYPED = ('json', 'yaml')
#: The one for people, of commands that have a layout for them.
TEXT = 'text'
PROMETHEUS = 'prometheus'
#: The same without a word for what is not there.
_NOTHING = {'csv': '', 'shell': ''}

Row = typing.Sequence[typing.Any]


class Said(typing.NamedTuple):
    """A value that people are told in other words than its own."""
    value: typing.Any
    words: str


class _Command(display.DisplayCommandBase):  # type: ignore[type-arg]
    """A command that tells something.

    What it has for scripts only is left out of other formats than JSON and
    YAML, unless it is asked for.
    """
    FOR_SCRIPTS: tuple[str, ...] = ()
    #: The format for people; None: that is the table.
    LAYOUT: base.Formatter | None = None

    def _load_formatter_plugins(self) -> typing.Any:
        return with_format(super()._load_formatter_plugins(), TEXT,
                           self.LAYOUT)

    @property
    def formatter_default(self) -> str:
        return TEXT if self.LAYOUT else 'table'

    def columns(self, parsed_args: argparse.Namespace) -> tuple[str, ...]:
        """Return what is told: what each row has, or the one thing."""
        raise NotImplementedError

    def run(self, parsed_args: argparse.Namespace) -> int:
        _prepare(parsed_args, self.columns(parsed_args))
        return super().run(parsed_args)


class Lister(_Command, lister.Lister):
    """A command that tells rows."""

    def produce_output(self, parsed_args: argparse.Namespace,
                       column_names: typing.Sequence[str],
                       data: typing.Iterable[Row]) -> int:
        return super().produce_output(parsed_args, *_told(
            self, parsed_args, column_names, data))


class ShowOne(_Command, show.ShowOne):
    """The same for a command that tells of one thing."""

    def produce_output(self, parsed_args: argparse.Namespace,
                       column_names: typing.Sequence[str],
                       data: Row) -> int:
        names, rows = _told(self, parsed_args, column_names, [data])
        return super().produce_output(parsed_args, names, rows[0])


def with_format(formats: typing.Any, name: str,
                formatter: base.Formatter | None) -> typing.Any:
    """Return cliff's formats with another one, which has no entry point.

    By an entry point, each command line of cliff's on this host would have it.

    :param formats: a stevedore ExtensionManager
    :param formatter: gets all columns, and values as they are; None: nothing
        is added
    """
    if formatter is not None:
        formats.extensions.append(extension.Extension(
            name, typing.cast(typing.Any, None), type(formatter), formatter))
    return formats


def _prepare(parsed_args: argparse.Namespace,
             columns: tuple[str, ...]) -> None:
    """Check what -c says, before anything is done.

    Columns that somebody chose are shown as a table, if no format is named
    that has some.

    :raises TapMacError: there is no such column
    """
    if parsed_args.columns and parsed_args.formatter == TEXT:
        parsed_args.formatter = 'table'
    known = {_plain(column) for column in columns}
    for each in parsed_args.columns:
        if _plain(each) not in known:
            raise exception.TapMacError(
                'There is no column %r: there are %s.' % (
                    each, ', '.join(columns)))


def _plain(column: str) -> str:
    """Return a column as it may be typed, by cliff's rule."""
    return column.lower().strip().replace(' ', '_')


def _told(command: _Command, parsed_args: argparse.Namespace,
          columns: typing.Sequence[str], rows: typing.Iterable[Row],
          ) -> tuple[list[str], list[list[typing.Any]]]:
    """Return columns and rows as the format that was asked for has them."""
    if parsed_args.formatter in (TEXT, PROMETHEUS):
        return list(columns), [list(row) for row in rows]
    if parsed_args.formatter in _TYPED:
        return list(columns), [[
            each.value if isinstance(each, Said) else each for each in row]
            for row in rows]
    nothing = _NOTHING.get(parsed_args.formatter, '-')
    kept = [number for number, column in enumerate(columns)
            if parsed_args.columns or column not in command.FOR_SCRIPTS]
    return [columns[number] for number in kept], [
        [words(row[number], nothing) for number in kept] for row in rows]


def words(value: typing.Any, nothing: str) -> typing.Any:
    """Return a value as people are told it; numbers stay.

    :param nothing: what is said of None
    """
    if isinstance(value, Said):
        return value.words
    if value is None:
        return nothing
    if isinstance(value, bool):
        return 'yes' if value else 'no'
    if isinstance(value, (list, tuple)):
        return ', '.join(map(str, value))
    return value
