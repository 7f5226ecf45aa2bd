# SPDX-License-Identifier: Apache-2.0

"""The marks that our devices carry: written, read, and no other."""

import types

from hypothesis import given
from hypothesis import strategies as st

from tests import base
from tests.unit import test_mac
from vif_plug_tapmac import mark
from vif_plug_tapmac.wanted import names

MARK = ('tapmac:1:1a2b3c4d-5e6f-4a1b-8c2d-3e4f5a6b7c8d:fa:16:3e:28:64:c2:'
        'br100:1795396982')

PORT = '1a2b3c4d-5e6f-4a1b-8c2d-3e4f5a6b7c8d'
INTERFACE = 'tapmac:interface:1:%s:fa:16:3e:28:64:c2:' % PORT


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


class InterfaceMarkTest(base.TestCase):
    """Of the host's end of an interface of a DHCP or L3 agent."""

    def test_text(self):
        for bridge, text in (None, INTERFACE), ('br100', INTERFACE + 'br100'):
            wanted = mark.InterfaceMark(PORT, 'fa:16:3e:28:64:c2', bridge)
            self.assertEqual(text, str(wanted))
            self.assertEqual(wanted, mark.InterfaceMark.parse(text))

    @given(st.uuids(), test_mac.guest_macs, st.none() | st.from_regex(
        names.DEVICE_NAME).filter(names.is_device_name))
    def test_round_trip(self, port_id, mac, bridge):
        wanted = mark.InterfaceMark(str(port_id), mac, bridge)
        self.assertEqual(wanted, mark.InterfaceMark.parse(str(wanted)))
        self.assertLess(len(str(wanted)), 256)
        # Neither is taken for the other.
        self.assertIsNone(mark.TapMark.parse(str(wanted)))

    def test_anything_else_is_no_mark(self):
        whole = INTERFACE + 'br100'
        for alias in (None, '', 'uplink of rack 7', MARK, mark.BRIDGE_MARK,
                      INTERFACE[:-1], whole + '\n', ' ' + whole, whole + ':7',
                      whole.upper(), whole.replace(':1:', ':2:'),
                      whole.replace('br100', 'a/b'),
                      whole.replace('br100', 'all'),
                      whole.replace('br100', 'b' * 16),
                      whole.replace(':c2', '')):
            self.assertIsNone(mark.InterfaceMark.parse(alias), alias)

    @given(st.text())
    def test_parse_never_raises(self, alias):
        mark.InterfaceMark.parse(alias)
        mark.InterfaceMark.parse('tapmac:interface:1:' + alias)

    def test_which_links_are_interfaces(self):
        fields = {'index': 7, 'name': 'tap1a2b3c4d-5e', 'kind': 'veth',
                  'group': mark.INTERFACE_GROUP, 'alias': INTERFACE}

        def is_interface(**changed):
            return mark.is_interface(types.SimpleNamespace(
                **{**fields, **changed}))
        for its in ({}, {'group': 0}, {'name': 'renamed'},
                    # Somebody has overwritten its mark.
                    {'alias': None}, {'alias': 'by lldpd'}):
            self.assertTrue(is_interface(**its), its)
        for other in ({'kind': 'tun'}, {'kind': None},
                      {'alias': None, 'group': 0},
                      {'alias': None, 'name': 'eth1'},
                      {'alias': MARK, 'group': 0}):
            self.assertFalse(is_interface(**other), other)
