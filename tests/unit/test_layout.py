# SPDX-License-Identifier: Apache-2.0

"""How commands tell people what is wrong: it fits, and can be copied."""

import io

from tests import base
from vif_plug_tapmac.cli import findings
from vif_plug_tapmac.cli import layout
from vif_plug_tapmac.host import finding

_LONG = ' '.join(['brq12345678-90', 'words'] * 20)
_COMMAND = 'ip link set brq12345678-90 mtu 9000 && ' + 'sysctl x/y=1 ' * 9
_REMEDIES = (
    finding.REPAIR, finding.REBOOT, finding.Remedy(_LONG),
    finding.Remedy('find out by whom: "%s"; then "true", or "false" where %s'
                   % (_COMMAND, _LONG)),
    finding.Remedy('"%s"' % _COMMAND))


def _lines(*rows):
    """Return what is printed of some findings."""
    stdout = io.StringIO()
    layout.Paragraphs().emit_list(findings.COLUMNS, rows, stdout, None)
    return stdout.getvalue().splitlines()


class ParagraphsTest(base.TestCase):

    def test_fits_and_breaks_no_command(self):
        for code, (_, meaning) in finding.CODES.items():
            for remedy in _REMEDIES:
                for device, evidence in ('tap1a2b3c4d-5e', 'it is so'), (
                        '/usr/lib/' + 'x' * 99, _LONG + 'x' * 99):
                    lines = _lines(findings.describe(finding.Finding(
                        code, device, evidence, remedy)))
                    for command in remedy.commands:
                        lines.remove(' ' * 8 + command)
                    self.assertLessEqual(max(map(len, lines)), 80)
                    # Whatever is said is there, in its order.
                    text = ''.join(''.join(lines).split())
                    for part in (code, device, meaning, evidence,
                                 finding.WHY[code], 'Remedy:'):
                        self.assertIn(''.join(part.split()), text)

    def test_remedy(self):
        *_, first, second, words, third, _, _ = _lines(findings.describe(
            finding.Finding('TM107', 'br0', 'x', finding.Remedy(
                '"true 1", "true 2" where it is, or "true 3"'))))
        self.assertEqual(['        true 1', '        true 2',
                          '    where it is, or:', '        true 3'],
                         [first, second, words, third])

    def test_count(self):
        rows = [findings.describe(finding.Finding(
            code, 'br0', 'x', finding.REPAIR)) for code in (
                'TM101', 'TM103', 'TM104')]
        self.assertEqual(
            ['Nothing is wrong.', '1 warning.', '1 error, 1 warning.',
             '1 error, 2 warnings.'],
            [_lines(*rows[:count])[-1] for count in range(4)])


class ColumnsTest(base.TestCase):

    def lines(self, *rows):
        stdout = io.StringIO()
        layout.Columns(('TAP', 'Domain'), 'Nobody.').emit_list(
            ('Domain', 'TAP'), rows, stdout, None)
        return stdout.getvalue().splitlines()

    def test_last_column_may_be_long(self):
        long = 'x' * 70
        self.assertEqual(
            ['TAP        Domain', 'tap0123-4  a', 'tap1', '    ' + long,
             'tap2       -'],
            self.lines(('a', 'tap0123-4'), (long, 'tap1'), (None, 'tap2')))

    def test_nothing(self):
        self.assertEqual(['Nobody.'], self.lines())
