# SPDX-License-Identifier: Apache-2.0

"""Tests with a real neutron-server, from its REST API to what Nova hears.

"tox -e neutron-29" and the like, and tools/test.sh --all, run them with the
Neutron of a file in requirements/. Where there is no Neutron there is nothing
to run.
"""

import importlib.util
import pathlib
import typing
import unittest


def load_tests(loader: unittest.TestLoader, tests: unittest.TestSuite,
               pattern: str | None) -> unittest.TestSuite:
    """Load all tests where Neutron can be imported, and none elsewhere."""
    if importlib.util.find_spec('neutron') is None:
        return unittest.TestSuite()
    return typing.cast(unittest.TestSuite, loader.discover(
        str(pathlib.Path(__file__).parent), pattern or 'test*.py'))
