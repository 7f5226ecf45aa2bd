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
