# SPDX-License-Identifier: Apache-2.0

"""The mark that a TAP of ours carries: written, read, and no other."""

from hypothesis import given
from hypothesis import strategies as st

from tests import base
from tests.unit import test_mac
from vif_plug_tapmac import mark
from vif_plug_tapmac.wanted import names

MARK = ('tapmac:1:1a2b3c4d-5e6f-4a1b-8c2d-3e4f5a6b7c8d:fa:16:3e:28:64:c2:'
        'br100:1795396982')


class MarkTest(base.TestCase):

    def test_text(self):
        self.assertEqual(MARK, str(mark.TapMark(
            base.VIF_ID, base.GUEST_MAC, base.BRIDGE, 1795396982)))

    @given(st.uuids(), test_mac.guest_macs,
           st.from_regex(names.DEVICE_NAME).filter(names.is_device_name),
           st.integers(0, 2 ** 64))
    def test_round_trip(self, vif_id, guest_mac, bridge, made):
        wanted = mark.TapMark(str(vif_id), guest_mac, bridge, made)
        self.assertEqual(wanted, mark.TapMark.parse(str(wanted)))
        self.assertLess(len(str(wanted)), 256)

    def test_anything_else_is_no_mark(self):
        for alias in (None, '', 'uplink of rack 7', mark.BRIDGE_MARK,
                      MARK + ':', MARK + '\n', ' ' + MARK,
                      MARK.replace(':1:', ':2:'), MARK[:-11], MARK.upper(),
                      MARK.replace('br100:', ''), MARK.replace('100', '/'),
                      MARK.replace('br100', 'all'),
                      MARK.replace('br100', 'b' * 16)):
            self.assertIsNone(mark.TapMark.parse(alias), alias)

    @given(st.text())
    def test_parse_never_raises(self, alias):
        mark.TapMark.parse(alias)
        mark.TapMark.parse('tapmac:1:' + alias)
