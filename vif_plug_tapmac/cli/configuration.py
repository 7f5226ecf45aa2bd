# SPDX-License-Identifier: Apache-2.0

"""The configuration of services, for commands that it concerns."""

import argparse
import functools
import glob
import os
import typing

from oslo_config import cfg
from oslo_log import log as logging

from vif_plug_tapmac import exception
from vif_plug_tapmac.host import agent_names
from vif_plug_tapmac import names_file
from vif_plug_tapmac import opts

LOG = logging.getLogger(__name__)
#: Where packages have nova-compute's; its files may be for that only.
_DIRECTORY = '/etc/nova'


class Service(typing.NamedTuple):
    """Who reads a configuration.

    :param project: whose files it reads by itself
    :param programs: whose files it reads beside those: what is its own, and
        what DevStack gives it
    """
    project: str
    programs: tuple[str, ...]


NOVA_COMPUTE = Service('nova', ('nova-compute', 'nova-cpu'))
TAPMAC_AGENT = Service('neutron', ('tapmac-agent',))


def read(app_args: argparse.Namespace | None) -> cfg.ConfigOpts.GroupAttr:
    """Return the group [os_vif_tapmac] of the files that shall be read.

    Where this user may not read what nova-compute reads, that is said, and
    the defaults are taken.

    :param app_args: with ``config_file``, a list of paths; empty for those
        that nova-compute finds by itself
    """
    files, directories = _paths(app_args)
    LOG.info('Configuration: %s', _named(files, directories))
    cfg.CONF([], project=NOVA_COMPUTE.project, default_config_files=files,
             default_config_dirs=directories)
    return opts.group(cfg.CONF)


def names() -> agent_names.Names:
    """Return how security groups are called, by what tapmac-agent wrote.

    In the file that the configuration says which was read, or its default.
    """
    return agent_names.read(names_file.path(cfg.CONF))


def read_to_change(
        app_args: argparse.Namespace | None) -> cfg.ConfigOpts.GroupAttr:
    """Do the same for a command that changes something.

    :raises TapMacError: no file has the group. With the defaults, guests would
        be kept to what nobody asked for, and freed of what was.
    """
    config = read(app_args)
    files, directories = _paths(app_args)
    if not any(map(_has_our_section, _all_files(files, directories))):
        raise exception.TapMacError(
            'Nothing is changed: no file has a section [%s], so nobody knows '
            'how nova-compute is configured. Read: %s. Remedy: name its files '
            'by --config-file, or write the section into one, empty if the '
            'defaults are meant.' % (opts.GROUP, _named(files, directories)))
    return config


def default_files(service: Service = NOVA_COMPUTE) -> list[str]:
    """Return the files that a service reads if it is told none."""
    return _found(cfg.find_config_files, service)


def default_directories(service: Service = NOVA_COMPUTE) -> list[str]:
    """Return the directories whose files it reads after these."""
    return _found(cfg.find_config_dirs, service)


def _found(find: typing.Callable[..., list[str]], service: Service,
           ) -> list[str]:
    return list(dict.fromkeys(
        path for program in service.programs
        for path in find(project=service.project, prog=program)))


def _paths(app_args: argparse.Namespace | None,
           ) -> tuple[list[str], list[str]]:
    """Return which files and directories to read."""
    if app_args and app_args.config_file:
        return app_args.config_file, []
    _readable([_DIRECTORY] if os.path.isdir(_DIRECTORY) else [])
    return _readable(default_files()), _readable(default_directories())


def _all_files(files: list[str], directories: list[str]) -> list[str]:
    return files + [path for directory in directories for path in sorted(
        glob.glob(os.path.join(directory, '*.conf')))]


def _named(files: list[str], directories: list[str]) -> str:
    return ', '.join(_all_files(files, directories)) or 'no file'


def _has_our_section(path: str) -> bool:
    sections: dict[str, typing.Any] = {}
    cfg.ConfigParser(path, sections).parse()
    return opts.GROUP in (name.lower() for name in sections)


def _readable(paths: list[str]) -> list[str]:
    for path in paths:
        if not _is_readable(path):
            _warn(path)
    return [path for path in paths if _is_readable(path)]


@functools.cache
def _warn(path: str) -> None:
    LOG.warning('%s can not be read by this user: what it says is not known '
                'here', path)


def _is_readable(path: str) -> bool:
    return os.access(path, os.R_OK | (os.X_OK if os.path.isdir(path) else 0))
