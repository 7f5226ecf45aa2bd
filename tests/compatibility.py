# SPDX-License-Identifier: Apache-2.0

"""What goes with what, as the documents have it in tables.

Which Nova with which os-vif, in "Deploying with Nova"; which Neutron with
which Nova, and what works on which kernel, in the README.
"""

import dataclasses
import re

from tests import base
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


def bindings(nova: int) -> frozenset[str]:
    """Return the VIF types of the ports that tapmac plugs in a Nova."""
    found, = {row.bindings for row in rows() if row.nova == nova}
    return found


def matrix() -> dict[tuple[int, int], frozenset[str]]:
    """Return the VIF types with which a port gets from a Neutron to a Nova.

    :returns: by the releases of both, as in (29, 34)
    """
    novas, rows = _table('Neutron')
    return {(int(neutron.split()[0]), int(nova.removeprefix('Nova '))):
            frozenset(re.findall(r'\w+', cell))
            for neutron, *cells in rows
            for nova, cell in zip(novas, cells, strict=True)}


def kernels() -> dict[str, dict[str, bool]]:
    """Return what works on each kernel: Linux, as in 6.1, and the rows."""
    versions, rows = _table('Linux')
    found: dict[str, dict[str, bool]] = {version: {} for version in versions}
    for what, *cells in rows:
        for version, cell in zip(versions, cells, strict=True):
            found[version][what] = {'yes': True, 'no': False}[cell]
    return found


def _table(corner: str) -> tuple[list[str], list[list[str]]]:
    """Return a table of the README: heads of its columns, and its rows.

    :param corner: what is above the heads of the rows
    """
    lines = base.README.read_text().splitlines()
    first = next(number for number, line in enumerate(lines)
                 if re.match(corner + r' {2,}\w.*\d$', line))
    end = lines.index(lines[first - 1], first + 2)
    head, *rows = [re.split(r' {2,}', line)
                   for line in [lines[first], *lines[first + 2:end]]]
    return head[1:], rows


def tested_kernels() -> dict[str, bool]:
    """Return which ones tools/test.sh runs, and whether in full."""
    text = (base.CHECKOUT / 'tools' / 'test.sh').read_text()
    found = re.search(r"kernels=(\S+) core='(.*)'$", text, re.MULTILINE)
    assert found is not None
    return {found[1]: True, **dict.fromkeys(found[2].split(), False)}
