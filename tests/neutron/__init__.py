# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.


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
