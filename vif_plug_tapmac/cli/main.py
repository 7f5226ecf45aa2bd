# SPDX-License-Identifier: Apache-2.0

"""The command ``tapmac``; each subcommand has a module beside."""

import argparse
from importlib import metadata
import os
import sys

from cliff import app
from cliff import command
from cliff import commandmanager
from pbr import version


class _Commands(commandmanager.CommandManager):
    """The commands, each loaded when it is run; cliff's own loads them all."""

    def load_commands(self, namespace: str) -> None:
        self.group_list.append(namespace)
        for entry in metadata.entry_points(group=namespace):
            self.commands[entry.name] = entry


class TapMacApp(app.App):
    """TAPs with a stable MAC for guests on Linux bridges."""

    # Warnings and errors; -v adds what is made and removed, -vv every detail.
    DEFAULT_VERBOSE_LEVEL = 0

    def __init__(self) -> None:
        super().__init__(
            description=self.__doc__,
            version=version.VersionInfo('vif-plug-tapmac').version_string(),
            command_manager=_Commands('vif_plug_tapmac.cli'),
            deferred_help=True)

    def build_option_parser(
        self, description: str | None, version: str | None,
        argparse_kwargs: dict[str, str] | None = None,
    ) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().build_option_parser(
            description, version, argparse_kwargs)
        parser.add_argument(
            '--config-file', action='append', metavar='FILE', default=[],
            help='a configuration file of nova-compute; may be given several '
                 'times. Default: those that nova-compute finds by itself, '
                 'if they can be read: nova.conf, nova-compute.conf and '
                 'nova-cpu.conf, then the files in nova.conf.d and so on. '
                 'What changes something needs a section [os_vif_tapmac] in '
                 'one of them.')
        return parser

    def prepare_to_run_command(self, cmd: command.Command) -> None:
        # That it is none of a plugin's: cliff reads of all distributions that
        # are installed what is theirs, only to say so.
        setattr(cmd, 'get_epilog', str)


def main() -> int:
    """Run the command line; return its exit status."""
    os.environ.setdefault('CLIFF_FIT_WIDTH', '1')
    return TapMacApp().run(sys.argv[1:])
