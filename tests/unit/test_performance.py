# SPDX-License-Identifier: Apache-2.0

"""Tables of what was measured: each cell is one value, in new ones, too."""

import re

from tests import base
from tests import documents

_TIMES = {ports: {'median': ports / 1000, 'p99': 2 * ports / 1000}
          for ports in (1, 1000)}
#: What a benchmark hands over, as far as a plug is concerned.
_RESULTS = {
    'machine': {'time': 'now', 'cpus': 2, 'model': 'demo', 'kernel': '6.18',
                'python': '3.11', 'load': 0.5},
    'plan': {'ports': [1, 1000], 'snooping': False},
    'ports': {'limit': {'plug': _TIMES}, 'privsep': {'plug': {
        ports: {what: 3 * value for what, value in seen.items()}
        for ports, seen in _TIMES.items()}}},
    'flat': {'links on the host': {
        '10': {'median': .002, 'p99': .004},
        '1000': {'median': .003, 'p99': .005}}},
    'goals': [],
}


def cells(text):
    """Return the rows of all tables, without what is at their front."""
    found = []
    for table in re.findall(r'^=[= ]+\n.*\n=[= ]+\n((?:.+\n)*?)=[= ]+$', text,
                            re.MULTILINE):
        found += [re.split(r' {2,}', row)[1:] for row in table.splitlines()]
    return found


class OneValueTest(base.TestCase):

    def assert_one_each(self, text):
        rows = cells(text)
        self.assertNotEqual([], rows)
        for row in rows:
            for cell in row:
                self.assertRegex(cell, r'^([\d.]+|[a-z ]*)$')

    def test_pages(self):
        source = documents.DEPLOYING.parent
        paths = sorted(source.glob('performance*.txt'))
        self.assertEqual(4, len(paths))
        for path in paths:
            self.assert_one_each(path.read_text())

    def test_new_ones(self):
        try:
            from benchmarks import report
        except ImportError as error:
            self.cannot_run(str(error))
        text = report.tables(_RESULTS)
        self.assert_one_each(text)
        for title, values in (
                ('Plug, new: ms, median', ['3.00', '3000.00']),
                ('Plug, new: ms, 99th percentile', ['6.00', '6000.00']),
                ('Plug, new: times the limit, median', ['3.0', '3.0'])):
            rows = cells(text.partition(title + '\n')[2])
            self.assertEqual(values, rows[1], title)
