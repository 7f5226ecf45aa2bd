# SPDX-License-Identifier: Apache-2.0

"""Tests that run inside a Nova, with its own code from a port to os-vif.

"tox -e nova-34" and the like, and tools/test.sh --all, run them with the Nova
and the os-vif of a file in requirements/. Where there is no Nova there is
nothing to run.
"""

import importlib.util
import os
import pathlib
import typing
import unittest


def _decide_threads() -> None:
    """Have Nova run as nova-compute does: from 34 on, in native threads.

    Nova's own tests would still have Eventlet. Before anything else, because
    Eventlet comes too late for what is imported already, and Nova does not go
    without it once oslo.privsep has imported it.
    """
    from nova import version
    if int(version.version_string().split('.')[0]) >= 34:
        os.environ.setdefault('OS_NOVA_DISABLE_EVENTLET_PATCHING', '1')
    from nova import monkey_patch
    # Up to 31 the import does it.
    getattr(monkey_patch, 'patch', lambda: None)()


if importlib.util.find_spec('nova') is not None:
    _decide_threads()


def load_tests(loader: unittest.TestLoader, tests: unittest.TestSuite,
               pattern: str | None) -> unittest.TestSuite:
    """Load all tests where Nova can be imported, and none elsewhere."""
    if importlib.util.find_spec('nova') is None:
        return unittest.TestSuite()
    return typing.cast(unittest.TestSuite, loader.discover(
        str(pathlib.Path(__file__).parent), pattern or 'test*.py'))
