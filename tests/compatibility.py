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


"""The table in "Deploying with Nova" that says what goes with what."""

import dataclasses
import re

from tests import documents

_ROW = re.compile(
    r'(?P<nova>\d+) \(\S+\) +(?P<os_vif>[\d.]+) +'
    r'(?P<bindings>``.*``) +``(?P<environment>\S+)``')


@dataclasses.dataclass(frozen=True)
class Row:
    """What works with a Nova and an os-vif.

    :param nova: release, as in 33
    :param os_vif: release, as in 5 or 4.3
    :param bindings: VIF types of the ports that tapmac plugs
    :param environment: of tox, which tests it
    """
    nova: int
    os_vif: str
    bindings: frozenset[str]
    environment: str


def rows() -> list[Row]:
    """Return the rows of the table."""
    text = documents.DEPLOYING.read_text()
    section = text.split('\nCompatibility\n-', 1)[1]
    return [Row(int(found['nova']), found['os_vif'],
                frozenset(re.findall(r'\w+', found['bindings'])),
                found['environment'])
            for found in map(_ROW.fullmatch, section.splitlines()) if found]
