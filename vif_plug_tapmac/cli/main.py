# SPDX-License-Identifier: Apache-2.0

"""The command ``tapmac``; each subcommand has a module beside."""

import argparse
import functools
from importlib import metadata
import logging
import os
import sys
import typing

from cliff import app
from cliff import command
from cliff import commandmanager
from pbr import version


#: As if by the signal.
_SIGPIPE_EXIT = 141


class _Commands(commandmanager.CommandManager):
    """The commands, each loaded when it is run; cliff's own loads them all."""

    def load_commands(self, namespace: str) -> None:
        self.group_list.append(namespace)
        for entry in metadata.entry_points(group=namespace):
            self.commands[entry.name] = entry


class _OneLine(logging.Formatter):
    """Messages in one line, whatever was put into them."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return ' '.join(super().formatMessage(record).splitlines())


class TapMacApp(app.App):
    """TAPs with a stable MAC for guests on Linux bridges."""

    # Warnings and errors; -v adds what is made and removed, -vv every detail.
    DEFAULT_VERBOSE_LEVEL = 0
    # Whatever the file is called.
    NAME = 'tapmac'

    def __init__(self) -> None:
        super().__init__(
            description=self.__doc__,
            version=version.VersionInfo('vif-plug-tapmac').version_string(),
            command_manager=_Commands('vif_plug_tapmac.cli'),
            deferred_help=True)
        # cliff's knows nothing of what is on a host.
        self.command_manager.commands['complete'] = metadata.EntryPoint(
            'complete', 'vif_plug_tapmac.cli.complete:Complete',
            'vif_plug_tapmac.cli')

    def build_option_parser(
        self, description: str | None, version: str | None,
        argparse_kwargs: dict[str, str] | None = None,
    ) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().build_option_parser(
            description, version, {'prog': self.NAME,
                                   **(argparse_kwargs or {})})
        _have_refused(parser)
        parser.add_argument(
            '--config-file', action='append', metavar='FILE', default=[],
            help='a configuration file of nova-compute; may be given several '
                 'times. Default: those that nova-compute finds by itself, '
                 'if they can be read: nova.conf, nova-compute.conf and '
                 'nova-cpu.conf, then the files in nova.conf.d and so on. '
                 'What changes something needs a section [os_vif_tapmac] in '
                 'one of them.')
        return parser

    def configure_logging(self) -> None:
        super().configure_logging()
        for handler in logging.getLogger().handlers:
            if not isinstance(handler, logging.FileHandler):
                handler.setFormatter(_OneLine(self.CONSOLE_MESSAGE_FORMAT))

    def initialize_app(self, argv: list[str]) -> None:
        if not argv:  # Not cliff's prompt.
            self.options.deferred_help = True

    def run_subcommand(self, argv: list[str]) -> int:
        try:
            self.command_manager.find_command(argv)
        except ValueError:
            _refuse(self.NAME, 'unrecognized arguments: ' + argv[0]
                    if argv[0].startswith('-') else
                    '%s is none of its commands, which are %s' % (
                        argv[0], ', '.join(sorted(
                            self.command_manager.commands))))
        return super().run_subcommand(argv)

    def prepare_to_run_command(self, cmd: command.Command) -> None:
        # That it is none of a plugin's: cliff reads of all distributions that
        # are installed what is theirs, only to say so.
        setattr(cmd, 'get_epilog', str)
        get_parser = cmd.get_parser
        setattr(cmd, 'get_parser', lambda name: _have_refused(
            get_parser(name)))


def _have_refused(
        parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Have what is wrong with arguments told as all that is refused is."""
    setattr(parser, 'error', functools.partial(_refuse, parser.prog))
    return parser


def _refuse(program: str, why: str) -> typing.NoReturn:
    """End with one sentence and 1; argparse has a paragraph and 2."""
    sys.stderr.write('%s: %s. See "%s --help".\n' % (
        program, ' '.join(why.split()).rstrip('.'), program))
    raise SystemExit(1)


def main() -> int:
    """Run the command line; return its exit status.

    Without a standard output nothing is done, for nobody would be told.
    """
    for name in 'stdin', 'stderr':
        if getattr(sys, name) is None:
            # Or a socket of ours would be where everybody writes.
            setattr(sys, name, open(os.devnull, 'r+'))
    if sys.stdout is None:
        return 1
    os.environ.setdefault('CLIFF_FIT_WIDTH', '1')
    try:
        return _told(TapMacApp().run(sys.argv[1:]))
    except SystemExit as end:
        return _told(int(end.code or 0))


def _told(status: int) -> int:
    """Return the exit status, which is another one if nobody was told."""
    try:
        sys.stdout.flush()
        return status
    except OSError as error:
        # What is left would be tried again, and complained about, at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return _SIGPIPE_EXIT
        if not status:
            sys.stderr.write('What is to be told could not be written: %s.\n'
                             % error.strerror)
        return status or 1
