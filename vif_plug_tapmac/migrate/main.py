# SPDX-License-Identifier: Apache-2.0

"""The command ``tapmac-migrate``; each subcommand has a module beside."""

import argparse
import os
import sys
import typing

from cliff import app
from cliff import commandmanager
from pbr import version

from vif_plug_tapmac import exception

if typing.TYPE_CHECKING:
    from vif_plug_tapmac.migrate import cloud


class MigrateApp(app.App):
    """Ports that another mechanism driver bound come to tapmac."""

    DEFAULT_VERBOSE_LEVEL = 0

    def __init__(self) -> None:
        super().__init__(
            description=self.__doc__,
            version=version.VersionInfo('vif-plug-tapmac').version_string(),
            command_manager=commandmanager.CommandManager(
                'vif_plug_tapmac.migrate'),
            deferred_help=True)

    def build_option_parser(
        self, description: str | None, version: str | None,
        argparse_kwargs: dict[str, str] | None = None,
    ) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().build_option_parser(
            description, version, argparse_kwargs)
        parser.add_argument(
            '--os-cloud', metavar='CLOUD', default=os.environ.get('OS_CLOUD'),
            help='the cloud in clouds.yaml. Default: OS_CLOUD, or what the '
                 'other variables OS_* say, as for "openstack". The user '
                 'needs the roles admin and service, as Nova\'s has.')
        return parser


def connect(options: argparse.Namespace | None) -> 'cloud.Cloud':
    """Return the cloud that the options, or the environment, name.

    :raises TapMacError: there is none, or nothing to reach it with
    """
    try:
        # It takes its time, and --help does without.
        from vif_plug_tapmac.migrate import cloud
    except ImportError as error:
        raise exception.TapMacError(
            'openstacksdk cannot be used: %s. The operator must install '
            'vif-plug-tapmac with the extra migrate.' % error) from error
    return cloud.connect(options)


def main() -> int:
    """Run the command line; return its exit status."""
    os.environ.setdefault('CLIFF_FIT_WIDTH', '1')
    return MigrateApp().run(sys.argv[1:])
