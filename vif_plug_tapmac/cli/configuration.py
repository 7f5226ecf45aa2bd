# SPDX-License-Identifier: Apache-2.0

"""nova-compute's configuration, for commands that it concerns."""

import argparse
import os

from oslo_config import cfg
from oslo_log import log as logging

from vif_plug_tapmac import opts

LOG = logging.getLogger(__name__)
_PROJECT = 'nova'
#: Where packages have it; its files may be for nova-compute only.
_DIRECTORY = '/etc/nova'


def read(app_args: argparse.Namespace | None) -> cfg.ConfigOpts.GroupAttr:
    """Return the group [os_vif_tapmac] of the files that shall be read.

    Where this user may not read what nova-compute reads, that is said, and
    the defaults are taken.

    :param app_args: with ``config_file``, a list of paths; empty for those
        that nova-compute finds by itself
    """
    given = app_args.config_file if app_args else []
    if not given:
        _readable([_DIRECTORY] if os.path.isdir(_DIRECTORY) else [])
    cfg.CONF([], project=_PROJECT,
             default_config_files=given or _readable(
                 cfg.find_config_files(project=_PROJECT)),
             default_config_dirs=[] if given else _readable(
                 cfg.find_config_dirs(project=_PROJECT)))
    return opts.group(cfg.CONF)


def _readable(paths: list[str]) -> list[str]:
    for path in paths:
        if not _is_readable(path):
            LOG.warning('%s can not be read by this user: what it says is '
                        'not known here', path)
    return [path for path in paths if _is_readable(path)]


def _is_readable(path: str) -> bool:
    return os.access(path, os.R_OK | (os.X_OK if os.path.isdir(path) else 0))
