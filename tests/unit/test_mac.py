# SPDX-License-Identifier: Apache-2.0

"""The MAC of a TAP, from its guest's."""

from hypothesis import given
from hypothesis import strategies as st

from tests import base
from vif_plug_tapmac import mac

octets = st.integers(0, 255)
guest_macs = st.tuples(octets, octets, octets, octets, octets, octets).map(
    lambda values: ':'.join('%02x' % value for value in values)).filter(
        lambda text: not int(text[:2], 16) & 1
        and text != '00:00:00:00:00:00')


class MacTest(base.TestCase):

    def test_rule(self):
        for guest, tap in {
                # The guest of the 2012 mail; what libvirt 9.0 was seen to do.
                'fa:16:3e:28:64:c2': 'fe:16:3e:28:64:c2',
                'fa:16:3e:00:00:05': 'fe:16:3e:00:00:05',
                '52:54:00:00:00:01': 'fe:54:00:00:00:01',
                '00:16:3e:00:00:05': 'fe:16:3e:00:00:05',
                'fe:16:3e:00:00:05': 'fa:16:3e:00:00:05'}.items():
            self.assertEqual(tap, mac.tap_mac(guest))

    @given(guest_macs)
    def test_rule_gives_a_high_local_unicast_mac_that_is_not_the_guests(
            self, guest):
        tap = mac.tap_mac(guest)
        self.assertNotEqual(guest, tap)
        self.assertEqual(guest[2:], tap[2:])
        self.assertIn(tap[:2], ('fe', 'fa'))
        self.assertEqual(tap, mac.parse(tap))

    @given(guest_macs)
    def test_alternates_are_what_the_rule_never_gives(self, guest):
        alternates = mac.alternate_tap_macs(guest)
        self.assertGreater(len(alternates), 4)
        for alternate in alternates:
            self.assertEqual(alternate, mac.parse(alternate))
            self.assertEqual(2, int(alternate[:2], 16) & 3)
            self.assertEqual(guest[2:], alternate[2:])
            self.assertNotIn(alternate[:2], ('fe', 'fa', guest[:2]))

    @given(guest_macs)
    def test_rival_is_the_tap_of_the_guest_that_ours_would_hit(self, guest):
        rival = mac.rival_guest_tap_mac(guest)
        if rival is None:
            self.assertIn(guest[:2], ('fe', 'fa'))
        else:
            self.assertEqual(mac.tap_mac(mac.tap_mac(guest)), rival)

    @given(guest_macs)
    def test_parse_takes_either_case(self, guest):
        self.assertEqual(guest, mac.parse(guest.upper()))
        self.assertEqual(guest, mac.parse(guest))

    def test_parse_refuses(self):
        for text in ('', 'fa:16:3e:28:64', 'fa:16:3e:28:64:c2:00',
                     'fa-16-3e-28-64-c2', 'fa163e2864c2', 'fa:16:3e:28:64:g2',
                     'fa:16:3e:28:64:c2\n', ' fa:16:3e:28:64:c2',
                     'fa:16:3e:28:64:\u0661\u0662'):
            error = self.assertRaises(ValueError, mac.parse, text)
            self.assertIn('is not a MAC', str(error))
        for text in ('01:00:00:00:00:00', 'ff:ff:ff:ff:ff:ff'):
            error = self.assertRaises(ValueError, mac.parse, text)
            self.assertIn('multicast', str(error))
        error = self.assertRaises(ValueError, mac.parse, '00:00:00:00:00:00')
        self.assertIn('zero', str(error))

    @given(st.text())
    def test_parse_returns_a_mac_or_raises_value_error(self, text):
        try:
            self.assertRegex(mac.parse(text),
                             r'\A([0-9a-f]{2}:){5}[0-9a-f]{2}\Z')
        except ValueError:
            pass
