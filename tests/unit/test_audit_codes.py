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

    def test_severity_is_the_exit_status(self):
        self.assertEqual([10, 20], sorted(Severity))
