# SPDX-License-Identifier: Apache-2.0

"""The page "Audit codes" has a section for each code."""

import re

from tests import base
from tests import documents
from vif_plug_tapmac.host import finding
from vif_plug_tapmac.host.finding import Severity


class AuditCodesTest(base.TestCase):

    def test_each_has_its_section(self):
        sections = re.findall(
            r'^(TM\d{3}): (.*)\n-+\n\nSeverity: (.*)\.\n\n(?=\S)',
            documents.AUDIT_CODES.read_text(), re.MULTILINE)
        self.assertEqual(
            [(code, meaning, str(severity))
             for code, (severity, meaning) in finding.CODES.items()], sections)

    def test_each_says_why_it_matters(self):
        self.assertEqual(list(finding.CODES), list(finding.WHY))
        for why in finding.WHY.values():
            self.assertRegex(why, r'^[A-Z].*\.$')

    def test_commands_of_a_remedy(self):
        self.assertEqual(
            ['ip link set br100 up', 'tapmac repair'], finding.Remedy(
                '"ip link set br100 up", see "Deploying with Nova", then '
                '"tapmac repair"').commands)
        self.assertEqual(['tapmac repair'], finding.REPAIR.commands)
        self.assertEqual([], finding.REBOOT.commands)

    def test_severity_is_the_exit_status(self):
        self.assertEqual([10, 20], sorted(Severity))
