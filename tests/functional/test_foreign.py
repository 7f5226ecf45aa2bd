# SPDX-License-Identifier: Apache-2.0

"""What other programs, or hands, do to guests' TAPs: found, and left alone.

Test strategy: a host as a plug leaves it, and one thing more: an audit names
it, and what is ours is never said to be wrong; a repair changes nothing, or
mends it.
"""

from tests import base
from tests.functional import test_audit


class ForeignTestCase(test_audit.AuditTestCase):

    def assert_left(self, code, device, *words):
        """Expect this finding alone, and a repair that changes nothing."""
        found = self.assert_finds(code, device, *words)
        self.assertFalse(found.mendable)
        before = self.host.state()
        self.repair()
        self.assertEqual(before, self.host.state())
        return found

    def name(self, device, altname):
        self.host.ip.link('property_add', altname=altname,
                          index=self.host.link(device).index)


class NameTest(ForeignTestCase):

    def test_tm240(self):
        self.plug_clean()
        self.name(base.TAP, 'tap77777777-77.tapmac-being-deleted')
        found = self.assert_left('TM240', base.TAP, 'tap77777777-77')
        self.hold()
        self.assert_left('TM240', base.TAP)
        self.do(found.remedy)
        self.assert_clean()
