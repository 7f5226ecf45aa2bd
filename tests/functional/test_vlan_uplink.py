# SPDX-License-Identifier: Apache-2.0

"""VLANs as uplinks: whose they really are, and what is on the way to them.

Test strategy: one end of a cable is this host's network card, and its
configuration makes VLANs of it as others would: late, down, elsewhere, or
something else of that name. Names are believed of nothing here.
"""

import concurrent.futures

from tests import base
from tests.functional import test_audit
from tests.functional import test_uplink
from tests import hosts
from vif_plug_tapmac import exception
from vif_plug_tapmac.kernel import bridge_health

CARD, CARD_MAC = 'eth7', '5a:00:00:00:00:07'
VLAN_BRIDGE = base.BRIDGE + '-200'
VLAN = 'eth7.200'
_802_1AD = 0x88a8


def require_vlans(test):
    """Skip where the kernel has no VLANs."""
    if not hosts.kernel_knows_vlans():
        test.skipTest(hosts.NO_VLANS)


class VlanTestCase(test_uplink.UplinkTestCase):

    #: Whether the card is up: else it is as when a host boots.
    UP = True

    def setUp(self):
        super().setUp()
        require_vlans(self)
        self.vif = base.make_vif(bridge_name=VLAN_BRIDGE)

    def add_uplink(self, name=CARD, mac=CARD_MAC, **fields):
        super().add_uplink(name, mac, **fields)
        if self.UP:
            self.host.set(name, state='up')

    def add_vlan(self, name=VLAN, parent=CARD, vlan=200, **fields):
        return self.host.add(name, 'vlan', link=self.host.link(parent).index,
                             vlan_id=vlan, **fields)

    def assert_on_vlan(self, name=VLAN, bridge=VLAN_BRIDGE, **expected):
        link = self.host.link(name)
        self.assertEqual((bridge, True, 'vlan'), (
            self.host.master(name), link.up, link.kind))

    def assert_refused(self, *words, vif=None):
        self.assert_plug_fails(exception.UplinkUnusable, VLAN_BRIDGE, *words,
                               vif=vif or self.vif)


class ParentTest(VlanTestCase):
    """A VLAN comes up on a parent that is up."""

    UP = False

    def test_down_as_when_the_host_boots(self):
        self.plug(self.vif)
        self.assert_on_vlan()
        self.assertTrue(self.host.link(CARD).up)
        self.assert_logged('eth7 was down', VLAN)

    def test_of_a_vlan_that_others_made(self):
        self.add_vlan()
        self.plug(self.vif)
        self.assert_on_vlan()
        self.assertTrue(self.host.link(CARD).up)

    def test_each_of_two_above_each_other(self):
        self.add_vlan('eth7.5', vlan=5)
        self.configure(bridge_uplinks={VLAN_BRIDGE: 'eth7.5.200'})
        self.plug(self.vif)
        self.assert_on_vlan('eth7.5.200')
        for name in CARD, 'eth7.5':
            self.assertTrue(self.host.link(name).up)

    def test_of_a_macvlan(self):
        self.host.add('mv7', 'macvlan', link=self.host.link(CARD).index)
        self.configure(bridge_uplinks={VLAN_BRIDGE: 'mv7'})
        self.plug(self.vif)
        self.assertEqual((True, True), (self.host.link('mv7').up,
                                        self.host.link(CARD).up))

    def test_that_is_up_is_not_spoken_of(self):
        self.host.set(CARD, state='up')
        self.plug(self.vif)
        self.assert_on_vlan()
        self.assertNotIn('was down', self.logs.output)

    def test_other_end_of_a_cable_is_no_parent(self):
        self.plug()
        self.assertFalse(self.host.link(CARD + '-peer').up)

    def test_stays_down_where_nothing_is_plugged(self):
        self.host.add(VLAN_BRIDGE, 'bridge')
        self.plug(self.vif)
        self.assertFalse(self.host.link(CARD).up)

    def test_is_as_small_as_the_vlan(self):
        self.add_vlan()
        for _ in range(2):
            self.assert_refused(
                'MTU 9000', 'eth7 has 1500', 'give eth7 a larger MTU',
                vif=base.make_vif(bridge_name=VLAN_BRIDGE, mtu=9000))
            self.host.set(VLAN, mtu=1400)

    def test_is_large_enough(self):
        self.host.set(CARD, mtu=9000)
        self.add_vlan(mtu=1500)
        self.plug(base.make_vif(bridge_name=VLAN_BRIDGE, mtu=9000))
        self.assertEqual(9000, self.host.link(VLAN).mtu)


class IdentityTest(VlanTestCase):
    """What is named as a VLAN is that VLAN, or is not taken."""

    def others(self):
        """Yield what else may have the name, in words, and make it."""
        self.add_uplink('eth8', '5a:00:00:00:00:08')
        self.add_vlan(vlan=300)
        yield 'is VLAN 300 of eth7'
        self.add_vlan(parent='eth8')
        yield 'is VLAN 200 of eth8'
        self.add_vlan(vlan_protocol=_802_1AD)
        yield '802.1ad'
        for kind in 'dummy', 'bridge', 'ifb':
            self.host.add(VLAN, kind)
            yield 'is a bridge' if kind == 'bridge' else (
                'is no VLAN at all (%s)' % kind)
        self.host.add(VLAN, 'macvlan', link=self.host.link(CARD).index)
        yield 'is no VLAN at all (macvlan)'

    def test_new_bridge(self):
        for words in self.others():
            self.assert_refused(words, VLAN)
            self.host.delete(VLAN)

    def test_half_made_bridge(self):
        self.host.add(VLAN_BRIDGE, 'bridge', group=29794)
        for words in self.others():
            if 'bridge' not in words:
                self.host.set(VLAN, master=self.host.link(VLAN_BRIDGE).index)
                self.assert_refused(words, VLAN)
            self.host.delete(VLAN)

    def test_port_of_the_bridge(self):
        # Whoever comes is told; who is there runs on.
        self.plug(self.vif)
        self.host.delete(VLAN)
        self.add_vlan(vlan=300, master=self.host.link(VLAN_BRIDGE).index)
        self.assert_refused('is VLAN 300 of eth7', vif=base.numbered_vif(
            1, bridge_name=VLAN_BRIDGE))
        with hosts.Guest(base.TAP, base.GUEST_MAC):
            before = self.host.state()
            self.plug(self.vif)
            self.assertEqual(before, self.host.state())
        self.assert_logged('is used by a guest and could not be mended',
                           'is VLAN 300 of eth7')

    def test_others_bridge(self):
        self.host.add(VLAN_BRIDGE, 'bridge')
        self.add_vlan(vlan=300, master=self.host.link(VLAN_BRIDGE).index)
        self.assert_refused('is VLAN 300 of eth7')

    def test_is_not_taken_back(self):
        self.plug(self.vif)
        self.host.delete(VLAN)
        self.add_vlan(vlan=300)
        self.plug(base.numbered_vif(1, bridge_name=VLAN_BRIDGE))
        self.assertIsNone(self.host.master(VLAN))
        self.assert_logged('lacks its uplink eth7.200', 'is VLAN 300 of eth7')
        self.assertNotIn('ip link set', self.logs.output)

    def test_parent_that_was_renamed(self):
        self.add_vlan()
        # Before Linux 6.2 a link that is up keeps its name.
        self.host.set(CARD, state='down')
        self.host.ip.link('set', index=self.host.link(CARD).index,
                          ifname='lan7')
        self.assert_refused('is VLAN 200 of lan7', 'bridge_uplinks')

    def test_of_another_network_namespace(self):
        # As in a container, that has the VLAN and not the card.
        outside = self.useFixture(hosts.Peer())
        self.host.set(CARD, state='down')
        self.add_vlan()
        self.host.ip.link('set', index=self.host.link(CARD).index,
                          net_ns_fd=outside.namespace)
        self.assert_plug_fails(exception.UplinkUnusable, 'ENETDOWN',
                               'made on is down', vif=self.vif)
        outside.configure(CARD, '192.0.2.7')
        self.plug(self.vif)
        self.assert_on_vlan()

    def test_without_the_name_of_one(self):
        self.add_vlan('lan', vlan=300)
        self.configure(bridge_uplinks={VLAN_BRIDGE: 'lan'})
        self.plug(self.vif)
        self.assert_on_vlan('lan')

    def test_there_under_another_name(self):
        self.add_vlan('vlan200')
        self.add_vlan('eth7.300', vlan=300)
        self.assert_refused('VLAN 200 of eth7 is vlan200', 'bridge_uplinks',
                            'ip link set vlan200 name eth7.200')
        self.configure(bridge_uplinks={VLAN_BRIDGE: 'vlan200'})
        self.plug(self.vif)
        self.assert_on_vlan('vlan200')

    def test_there_under_another_name_with_8021ad(self):
        self.add_vlan('outer200', vlan_protocol=_802_1AD)
        self.plug(self.vif)
        self.assert_on_vlan()

    def test_in_another_network_namespace(self):
        outside = self.useFixture(hosts.Peer())
        index = self.add_vlan().index
        self.host.ip.link('set', index=index, net_ns_fd=outside.namespace)
        self.assert_refused('another network namespace')


class ComesBackTest(VlanTestCase):
    """The card goes, and comes back."""

    def setUp(self):
        super().setUp()
        self.plug(self.vif)
        self.host.delete(CARD)
        self.next = base.numbered_vif(1, bridge_name=VLAN_BRIDGE)

    def test_as_it_was(self):
        self.add_uplink()
        self.plug(self.next)
        self.assert_on_vlan()
        self.assert_logged('had lost its uplink eth7.200')

    def test_with_another_mac(self):
        self.plug(self.next)
        self.assert_logged('there is no eth7')
        self.add_uplink(mac='5a:00:00:00:00:17')
        for _ in range(2):
            self.plug(self.next)
        self.assertIsNone(self.host.find(VLAN))
        self.assertEqual(2, self.logs.output.count('lacks its uplink'))
        self.assert_logged('5a:00:00:00:00:17', CARD_MAC,
                           'ip link add link eth7 name eth7.200 type vlan id '
                           '200', 'ip link set eth7.200 master br100-200')

    def test_with_another_mac_and_its_vlan(self):
        self.add_uplink(mac='5a:00:00:00:00:17')
        self.add_vlan()
        self.plug(self.next)
        self.assertIsNone(self.host.master(VLAN))
        self.assert_logged('5a:00:00:00:00:17', CARD_MAC,
                           '"ip link set eth7.200 master br100-200')

    def test_under_another_name(self):
        self.add_uplink()
        self.add_vlan('vlan200')
        self.plug(self.next)
        self.assertIsNone(self.host.master('vlan200'))
        self.assert_logged('VLAN 200 of eth7 is vlan200')
        self.assertNotIn('ip link add', self.logs.output)

    def test_of_anothers_bridge(self):
        self.host.delete(VLAN_BRIDGE)
        self.host.add(VLAN_BRIDGE, 'bridge', address=CARD_MAC)
        self.add_uplink()
        self.plug(self.next)
        self.assertIsNone(self.host.find(VLAN))


class AuditTest(test_audit.AuditTestCase):

    def setUp(self):
        super().setUp()
        require_vlans(self)
        bridge_health._warned.clear()
        self.configure(bridge_uplinks={base.BRIDGE: CARD})
        self.add_card()
        self.plug_clean(bridge_name=VLAN_BRIDGE)

    def add_card(self, mac=CARD_MAC):
        self.host.add(CARD, 'veth', address=mac, peer='peer')
        for name in CARD, 'peer':
            self.host.set(name, state='up')

    def test_down_with_its_card(self):
        self.host.set(CARD, state='down')
        self.assert_finds('TM116', VLAN_BRIDGE, 'eth7 and eth7.200 are down',
                          '"ip link set eth7 up", "ip link set eth7.200 up"')

    def test_card_by_another_name(self):
        self.host.delete(VLAN)
        self.host.rename(CARD, 'enp7')
        self.assert_finds('TM106', VLAN_BRIDGE)
        self.host.ip.link('property_add', altname=CARD,
                          index=self.host.link('enp7').index)
        self.plug_clean(bridge_name=VLAN_BRIDGE)
        self.assertEqual(VLAN_BRIDGE, self.host.master(VLAN))
        self.assertEqual(self.host.link('enp7').index,
                         self.host.link(VLAN).lower)

    def test_another_vlan(self):
        self.host.delete(VLAN)
        self.host.add(VLAN, 'vlan', link=self.host.link(CARD).index,
                      vlan_id=300, master=self.host.link(VLAN_BRIDGE).index)
        self.assert_finds('TM110', VLAN_BRIDGE, 'eth7.200 is VLAN 300 of eth7')

    def test_another_vlan_that_is_no_port(self):
        self.host.delete(VLAN)
        self.host.add(VLAN, 'vlan', link=self.host.link(CARD).index,
                      vlan_id=300)
        found = self.assert_finds('TM106', VLAN_BRIDGE,
                                  'eth7.200 is VLAN 300 of eth7')
        self.assertNotIn('master', found.remedy)

    def test_another_mac(self):
        self.host.delete(CARD)
        self.add_card('5a:00:00:00:00:17')
        self.assert_finds('TM106', VLAN_BRIDGE, '5a:00:00:00:00:17', CARD_MAC,
                          'ip link add link eth7 name eth7.200')

    def test_narrow(self):
        for mtu in 1400, 1500:
            self.host.set(CARD, mtu=mtu)
            found = self.assert_finds('TM111', VLAN_BRIDGE,
                                      'eth7.200 has MTU 1400')
            self.assertIs(mtu == 1500, found.mendable)
        self.repair()
        self.assert_clean()

    def test_another_name(self):
        self.host.delete(VLAN)
        self.host.add('vlan200', 'vlan', link=self.host.link(CARD).index,
                      vlan_id=200)
        self.assert_finds('TM106', VLAN_BRIDGE, 'is there as vlan200',
                          '"ip link set vlan200 name eth7.200"')


class AtOnceTest(VlanTestCase):

    def test_first_plugs(self):
        vifs = [base.numbered_vif(number, bridge_name='%s-%d' % (
            base.BRIDGE, 200 + number % 3)) for number in range(12)]
        with concurrent.futures.ThreadPoolExecutor(len(vifs)) as executor:
            for future in [executor.submit(self.plug, vif) for vif in vifs]:
                future.result()
        for number in 200, 201, 202:
            self.assert_on_vlan('eth7.%d' % number,
                                '%s-%d' % (base.BRIDGE, number))
