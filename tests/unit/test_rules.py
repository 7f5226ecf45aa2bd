# SPDX-License-Identifier: Apache-2.0

"""What a guest may say of itself, made of its MAC and its fixed IPs."""

import ipaddress

from hypothesis import given
from hypothesis import strategies as st

from tests import base
from vif_plug_tapmac.kernel import filter_state
from vif_plug_tapmac.kernel import filter_steps
from vif_plug_tapmac.wanted import rules

_MACS = st.binary(min_size=6, max_size=6).map(lambda octets: octets.hex(':'))


class RulesTest(base.TestCase):

    def test_one_of_each_kind(self):
        found = rules.of_port(base.VIF_ID, base.GUEST_MAC,
                              ['192.0.2.10', '2001:db8::10'])
        self.assertEqual(base.VIF_ID, found.vif_id)
        self.assertEqual({
            ('guest_mac', base.GUEST_MAC, None),
            ('guest_ipv4', base.GUEST_MAC, '192.0.2.10'),
            ('guest_ipv6', base.GUEST_MAC, '2001:db8::10'),
            ('guest_ipv6', base.GUEST_MAC, 'fe80::f816:3eff:fe28:64c2'),
            ('guest_link_local', base.GUEST_MAC,
             'fe80::f816:3eff:fe28:64c2')}, set(found.elements))

    def test_without_fixed_ips(self):
        self.assertEqual({
            ('guest_mac', base.GUEST_MAC, None),
            ('guest_link_local', base.GUEST_MAC,
             'fe80::f816:3eff:fe28:64c2')},
            set(rules.of_port(base.VIF_ID, base.GUEST_MAC, []).elements))

    def test_link_local(self):
        for mac, address in (('52:54:00:00:00:01', 'fe80::5054:ff:fe00:1'),
                             ('00:16:3e:00:00:01', 'fe80::216:3eff:fe00:1')):
            self.assertEqual(address, rules.link_local(mac))

    def test_addresses(self):
        for given_, canonical in (
                ('192.0.2.1', '192.0.2.1'),
                ('2001:DB8:0:0::1', '2001:db8::1'),
                (ipaddress.ip_address('192.0.2.1'), '192.0.2.1')):
            self.assertEqual(canonical, rules.require_address(given_))

    def test_what_is_no_address_of_a_port(self):
        for bad in (None, '', 7.5, 'x', '192.0.2.1/24', '192.0.2', '0.0.0.0',
                    '::', '127.0.0.1', '::1', '224.0.0.1', 'ff02::1',
                    '255.255.255.255', 'fe80::1%eth0', '::ffff:192.0.2.1',
                    '192.0.2.1\n', ['192.0.2.1']):
            self.assertRaises(ValueError, rules.require_address, bad)

    @given(mac=_MACS, index=st.integers(1, 2 ** 31 - 1),
           address=st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)))
    def test_keys_say_all(self, mac, index, address):
        name = rules.IPV4 if address.version == 4 else rules.IPV6
        for wanted in (rules.Element(name, mac, str(address)),
                       rules.Element(rules.MACS, mac)):
            octets = filter_steps.key(index, wanted.mac, wanted.address)
            self.assertEqual(0, len(octets) % 4)
            found, element = filter_state.element(wanted.set, octets)
            self.assertEqual((index, mac), (found, element.mac))
            self.assertEqual(
                wanted.address and ipaddress.ip_address(wanted.address),
                element.address and ipaddress.ip_address(element.address))
