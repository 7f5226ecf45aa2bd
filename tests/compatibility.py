# SPDX-License-Identifier: Apache-2.0

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
