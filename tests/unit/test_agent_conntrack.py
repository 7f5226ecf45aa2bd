# SPDX-License-Identifier: Apache-2.0

"""The part of the agent's table that knows connections, as a value."""

from tests import base
from vif_plug_tapmac.kernel import agent_conntrack
from vif_plug_tapmac.kernel import filter_table
from vif_plug_tapmac.kernel import nft_expressions as nftx


class ZonesTest(base.TestCase):

    def test_each_bridge_has_its_own(self):
        self.assertEqual({}, agent_conntrack.zones({}))
        self.assertEqual({'br100': 7, 'br200': 9},
                         agent_conntrack.zones({'br200': 9, 'br100': 7}))

    def test_index_that_is_no_zone(self):
        bridges = {'a': 65535, 'b': 65536, 'c': 65537, 'd': 1, 'e': 2,
                   'f': 131072, 'g': 131071}
        zones = agent_conntrack.zones(bridges)
        self.assertEqual(len(bridges), len(set(zones.values())))
        self.assertTrue(all(0 < zone < 65536 for zone in zones.values()))

    def test_who_comes_later_takes_nobodys_zone(self):
        before = agent_conntrack.zones({'a': 1, 'b': 65536, 'c': 65538})
        self.assertEqual(before, {
            name: zone for name, zone in agent_conntrack.zones(
                {'a': 1, 'b': 65536, 'c': 65538, 'd': 65539,
                 'e': 131073}).items() if name in before})


class RulesTest(base.TestCase):

    def test_nothing_of_it_is_there_without(self):
        # Of all that a frame meets, a chain with nothing in it costs most.
        empty = {each.name for each in filter_table.CHAINS} - {
            rule.chain for rule in filter_table.RULES}
        self.assertEqual({filter_table.LOG}, empty)
        self.assertEqual(set(), {each.name for each in agent_conntrack.CHAINS}
                         & {each.name for each in filter_table.CHAINS})

    def test_no_zone_for_what_is_no_ip(self):
        # Kernels with CVE-2026-74625 lose memory with each such frame.
        ways = {rule.chain: rule for rule in agent_conntrack.rules()
                if any(name == 'ct' and 4 in values
                       for name, values in rule.expressions)}
        self.assertEqual({'ct_ip'}, set(ways))
        leads = [rule for rule in agent_conntrack.rules()
                 if any(b'ct_ip\0' in str(values).encode().replace(
                     b'\\x00', b'\0') for _, values in rule.expressions)]
        self.assertEqual(
            [nftx.equals(nftx.ETHERTYPE, protocol)
             + nftx.go_to('ct_ip') for protocol in (0x0800, 0x86dd)],
            [rule.expressions for rule in leads])

    def test_names_fit(self):
        self.assertEqual(16, len(agent_conntrack.zone_element(
            'a' * 15, 1).key))
        self.assertEqual(24, len(agent_conntrack.mac_element(
            'br100', base.GUEST_MAC).key))
