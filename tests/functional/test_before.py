# SPDX-License-Identifier: Apache-2.0

"""The day before: what "tapmac audit --all-bridges" says of others' hosts.

Test strategy: a host as Neutron's Linux bridge agent leaves it, imitated from
its sources, has a known list of findings; each test changes one thing about a
host and expects what is found more, or less.
"""

import errno
import json
import os
import subprocess
import sys

from tests import base
from tests.functional import test_audit
from tests import hosts
from tests import linux_bridge_agent as agent
from tests import patience
from vif_plug_tapmac import exception
from vif_plug_tapmac.host import audit
from vif_plug_tapmac.host import inventory
from vif_plug_tapmac.kernel import bridge_health
from vif_plug_tapmac.kernel import nftables
from vif_plug_tapmac.kernel import port_rules
from vif_plug_tapmac import privileged
from vif_plug_tapmac.wanted import security_groups

OTHER_TAP = 'tap2b3c4d5e-6f'
OTHER_MAC = 'fa:16:3e:00:00:02'
_OTHER_VIF = '2b3c4d5e-6f00-4000-8000-000000000000'
_SWITCHES = {4: 'bridge/bridge-nf-call-iptables',
             6: 'bridge/bridge-nf-call-ip6tables'}


class BeforeTestCase(test_audit.AuditTestCase):

    def setUp(self):
        super().setUp()
        self.set_sysctl('bridge/bridge-nf-call-ip6tables', '0')

    def findings(self):
        return audit.audit(inventory.read(self.options, all_bridges=True),
                           self.options)

    def found(self, code, device=None):
        """Return what is found of this code, about this device."""
        return [each for each in self.findings() if each.code == code
                and device in (None, each.device)]

    def codes(self, device=None):
        return {each.code for each in self.findings()
                if device in (None, each.device)}

    def assert_one(self, code, device, *words):
        """Expect one finding of this code, beside others."""
        found = self.found(code)
        self.assertEqual([device], [each.device for each in found], found)
        for word in words:
            self.assertIn(word, found[0].evidence + ' | ' + found[0].remedy)
        return found[0]

    def add_wire(self, name='eth1'):
        self.host.add(name, 'veth', peer='wire',
                      address='52:54:00:12:34:56')
        self.host.set('wire', state='up')
        self.host.set(name, state='up')

    def add_clean_bridge(self, name='br200'):
        """Have one of the host's own, of which there is nothing to say."""
        self.add_wire()
        self.host.add(name, 'bridge', address='02:00:00:00:00:01',
                      br_mcast_snooping=0)
        self.set_sysctl('ipv6/conf/%s/disable_ipv6' % name, '1')
        self.host.set(name, state='up')
        self.host.set('eth1', master=self.host.link(name).index)
        return name

    def add_guest(self, tap=base.TAP, mac=base.GUEST_MAC, bridge=agent.BRIDGE):
        guest = agent.add_guest(self.host, tap, mac, bridge)
        self.addCleanup(guest.close)
        return guest


class BridgeTest(BeforeTestCase):

    def test_nothing_to_say_of_a_clean_one(self):
        self.add_clean_bridge()
        self.assert_clean()

    def test_of_containers(self):
        self.host.add('docker0', 'bridge')
        self.host.set('docker0', state='up')
        self.assert_clean()

    def test_what_is_found_of_ours_is_found_of_others(self):
        bridge = self.add_clean_bridge()
        for code, change, back in (
                ('TM103', {'state': 'down'}, {'state': 'up'}),
                ('TM104', {'kind': 'bridge', 'br_stp_state': 1},
                 {'kind': 'bridge', 'br_stp_state': 0}),
                ('TM301', {'kind': 'bridge', 'br_nf_call_iptables': 1},
                 {'kind': 'bridge', 'br_nf_call_iptables': 0})):
            with self.subTest(code):
                self.host.set(bridge, **change)
                self.assert_finds(code, bridge)
                self.assertEqual([], audit.audit(
                    inventory.read(self.options), self.options))
                self.host.set(bridge, **back)
        self.assert_clean()

    def test_uplink_that_nobody_named(self):
        bridge = self.add_clean_bridge()
        self.host.set('eth1', state='down')
        self.assert_finds('TM116', bridge, 'eth1 is down')
        self.host.set('eth1', state='up')
        self.host.set('wire', state='down')
        self.assert_finds('TM117', bridge, 'eth1 has no carrier')
        self.host.set('wire', state='up')
        self.host.set(bridge, mtu=1499)
        self.host.set('eth1', mtu=1400)
        self.assert_finds('TM111', bridge, 'eth1 has MTU 1400')

    def test_two_uplinks_of_which_one_works(self):
        self.add_clean_bridge()
        self.host.add('eth0', 'veth', peer='other')
        self.host.set('eth0', master=self.host.link('br200').index)
        self.assert_clean()

    def test_tm401(self):
        self.add_clean_bridge('br-a-long-name1')
        self.assert_finds('TM401', 'br-a-long-name1', 'br-a-long-name')

    def test_tm401_of_what_tapmac_refuses(self):
        self.add_clean_bridge('br+1')
        self.assert_finds('TM401', 'br+1', 'tapmac takes letters')

    def test_tm403(self):
        bridge = self.add_clean_bridge()
        self.host.set('eth1', master=0)
        self.assert_finds('TM403', bridge, 'reach each other')
        # An end of a cable to DHCP is none.
        self.host.add('tap77777777-77', 'veth', peer='ns-77777777-77')
        self.host.set('tap77777777-77', master=self.host.link(bridge).index)
        self.assert_finds('TM403', bridge)
        # This host is behind it.
        self.host.ip.addr('add', index=self.host.link(bridge).index,
                          address='192.0.2.1', prefixlen=24)
        self.assert_finds('TM408', bridge, '192.0.2.1')

    def test_tm404(self):
        bridge = self.add_clean_bridge()
        self.host.set('eth1', master=0)
        self.host.ip.link('add', ifname='long1a2b3c.1111', kind='macvlan',
                          link=self.host.link('eth1').index)
        self.host.set('long1a2b3c.1111', state='up',
                      master=self.host.link(bridge).index)
        self.assert_finds('TM404', bridge, 'long1a2b3c.1111')

    def test_tm405(self):
        bridge = self.add_clean_bridge()
        index = self.host.add('vxlan-70001', 'vxlan', vxlan_id=70001,
                              vxlan_port=8472).index
        self.host.set('vxlan-70001', master=index and self.host.link(
            bridge).index, state='up')
        self.assert_finds('TM405', bridge, 'vxlan-70001 is a tunnel')

    def test_tm406(self):
        bridge = self.add_clean_bridge()
        self.host.set(bridge, kind='bridge', br_mcast_snooping=1)
        self.do(self.assert_finds('TM406', bridge).remedy)
        self.assert_clean()

    def test_tm407(self):
        bridge = self.add_clean_bridge()
        self.host.set(bridge, kind='bridge', br_ageing_time=0)
        self.do(self.assert_finds('TM407', bridge).remedy)
        self.assert_clean()

    def test_tm408_of_link_local(self):
        bridge = self.add_clean_bridge()
        self.set_sysctl('ipv6/conf/%s/accept_ra' % bridge, '0')
        self.set_sysctl('ipv6/conf/%s/disable_ipv6' % bridge, '0')
        # It comes as soon as the bridge has a carrier.
        patience.wait_until(lambda: self.host.addresses(bridge),
                            'it has no address')
        self.do(self.assert_finds('TM408', bridge, 'fe80::').remedy)
        self.assert_clean()


class TapTest(BeforeTestCase):

    def setUp(self):
        super().setUp()
        self.bridge = self.add_clean_bridge()

    def add_guest(self, *args):
        guest = super().add_guest(*args, bridge=self.bridge)
        self.host.wait_for_addresses()
        return guest

    def test_tm409(self):
        self.add_guest()
        self.assert_finds('TM409', base.TAP, 'has no owner',
                          'start nova-compute again')

    def test_tm409_of_a_name_that_nova_does_not_give(self):
        self.add_guest('vnet0')
        self.assert_finds('TM409', 'vnet0', 'no plug looks at it')

    def test_it_is_said_what_a_plug_mends(self):
        """A plug keeps the guest to its MAC, as the finding has it."""
        self.add_guest()
        self.assertIn('not locked', self.found('TM409')[0].evidence)
        self.plug(base.make_vif(bridge_name=self.bridge))
        self.assertNotIn('not locked', self.found('TM409')[0].evidence)

    def test_what_it_is_not_kept_to_yet(self):
        self.add_guest()
        self.configure(anti_spoofing='full')
        self.assertEqual({'TM409'}, self.codes(base.TAP))

    def test_open_to_all(self):
        self.host.add_tap(base.TAP)
        self.host.quiet_ipv6(base.TAP)
        self.host.set(base.TAP, state='up', address=base.TAP_MAC,
                      master=self.host.link(self.bridge).index)
        self.assertEqual({'TM204', 'TM409'}, self.codes(base.TAP))

    def test_mac_of_its_guest(self):
        self.add_guest()
        self.domains.define((base.TAP, base.GUEST_MAC, True, 1))
        self.host.set(base.TAP, address=base.GUEST_MAC)
        self.assertEqual({'TM202', 'TM409'}, self.codes(base.TAP))

    def test_tm415(self):
        self.add_guest(OTHER_TAP, OTHER_MAC)
        self.host.set(OTHER_TAP, address=OTHER_MAC)
        self.assertEqual({'TM409', 'TM415'}, self.codes(OTHER_TAP))
        self.host.set(OTHER_TAP, address='fe' + OTHER_MAC[2:])
        self.assertEqual({'TM409'}, self.codes(OTHER_TAP))

    def test_uplink_that_is_narrower_than_a_tap(self):
        self.add_guest()
        self.host.set('eth1', mtu=1400)
        self.assert_one('TM111', self.bridge, 'eth1 has MTU 1400, and %s 1500'
                        % base.TAP)

    def test_tm410(self):
        guest = self.add_guest()
        self.assertEqual({'TM409'}, self.codes(base.TAP))
        guest.write(b'\0' * 10 + hosts.frame(
            'ff:ff:ff:ff:ff:ff', base.GUEST_MAC, b'own'))
        guest.write(b'\0' * 10 + hosts.frame(
            'ff:ff:ff:ff:ff:ff', '00:00:5e:00:01:07', b'VRRP'))
        self.assert_one('TM410', base.TAP, '00:00:5e:00:01:07:',
                        'anti_spoofing = none')
        self.configure(anti_spoofing='none')
        self.assertEqual([], self.found('TM410'))


class AgentTestCase(BeforeTestCase):
    """A host that Neutron's Linux bridge agent has left."""

    def setUp(self):
        super().setUp()
        reason = agent.missing()
        if reason:
            self.cannot_run(reason)
        self.add_wire()
        agent.add_bridge(self.host, 'eth1')
        self.add_guest()
        self.add_guest(OTHER_TAP, OTHER_MAC)

    def switch(self, families, on='1'):
        for family in families:
            self.set_sysctl(_SWITCHES[family], on)
            self.addCleanup(self.set_sysctl, _SWITCHES[family], '0')


class FilterTest(AgentTestCase):

    def assert_tm411(self, program):
        found = self.assert_one(
            'TM411', agent.BRIDGE, program, base.TAP, 'stay as they are',
            'only after each of these guests has another filter')
        # What would open guests is not to be copied.
        self.assertEqual([], found.remedy.commands)
        self.assertNotIn(OTHER_TAP, found.evidence)

    def test_tm411_of_each_kind(self):
        for kind, family in ((agent.NFT, 4), (agent.NFT, 6),
                             (agent.LEGACY, 4), (agent.LEGACY, 6)):
            with self.subTest('%s, IPv%d' % (kind, family)):
                self.switch([family])
                self.assertEqual([], self.found('TM411'))
                agent.filter_by_iptables([base.TAP], [OTHER_TAP], kind,
                                         [family])
                self.assert_tm411('ip%stables-%s (filter neutron-linuxbri-'
                                  % ('6' * (family == 6), kind))
                self.assertEqual(set(), self.codes() & {
                    'TM412', 'TM413', 'TM414'})
                self.flush(kind, family)
                self.switch([family], '0')

    def flush(self, kind, family):
        program = 'ip%stables-%s' % ('6' * (family == 6), kind)
        for table in 'raw', 'filter', 'nat':
            for what in '-F', '-X':
                agent.iptables(program, '-t', table, what)

    def test_remedy_of_tm301_would_open_guests(self):
        self.switch([4])
        device = bridge_health.SWITCHES[nftables.IPV4]
        self.assertNotIn('open', self.found('TM301', device)[0].remedy)
        agent.filter_by_iptables([base.TAP], families=[4])
        remedy = self.found('TM301', device)[0].remedy
        self.assertEqual([], remedy.commands)
        self.assertLess(remedy.index('this would open ' + base.TAP),
                        remedy.index('only after'))
        self.assertLess(remedy.index('only after'), remedy.index('sysctl'))

    def test_of_a_bridge_by_itself(self):
        self.host.set(agent.BRIDGE, kind='bridge', br_nf_call_iptables=1)
        agent.filter_by_iptables([base.TAP], families=[4])
        found = self.assert_one('TM411', agent.BRIDGE, 'ip link set %s type '
                                'bridge nf_call_iptables 0' % agent.BRIDGE)
        self.assertNotIn('sysctl', found.remedy)
        self.assertIn('this would open ' + base.TAP,
                      self.found('TM301', agent.BRIDGE)[0].remedy)

    def test_tm411_of_ebtables(self):
        agent.filter_by_ebtables(base.TAP, base.GUEST_MAC, '10.0.0.5')
        self.assert_one('TM411', agent.BRIDGE, 'ebtables-nft (nat ', base.TAP,
                        'speak as others', 'only after')

    def test_what_tapmac_keeps_to_its_addresses_by_itself(self):
        agent.filter_by_ebtables(base.TAP, base.GUEST_MAC, '10.0.0.5')
        self.host.set(base.TAP, group=self.options.filtered_group)
        self.assertEqual([], self.found('TM411'))

    def test_tm411_of_names_that_begin_so(self):
        self.switch([4])
        for kind in agent.NFT, agent.LEGACY:
            agent.iptables('iptables-' + kind, '-A', 'FORWARD', '-m',
                           'physdev', '--physdev-in', 'tap1+', '-j', 'DROP')
            self.assert_tm411('iptables-%s (filter' % kind)
            self.flush(kind, 4)

    def test_tm237(self):
        """Rules may go when each guest has what an agent says of it."""
        self.switch([4])
        self.configure(firewall='agent', anti_spoofing='none')
        agent.filter_by_iptables([base.TAP, OTHER_TAP], families=[4])
        agent.filter_by_ebtables(base.TAP, base.GUEST_MAC, '10.0.0.5')
        ports = []
        for vif_id, tap, guest_mac in (
                (base.VIF_ID, base.TAP, base.GUEST_MAC),
                (_OTHER_VIF, OTHER_TAP, OTHER_MAC)):
            self.assertEqual([], self.found('TM237'))
            self.assertEqual({agent.BRIDGE}, {
                each.device for each in self.found('TM411')})
            # A bridge without any of ours does not concern us yet.
            self.assertEqual([tap] if ports else [], [
                each.device for each in self.found('TM235')])
            self.plug(base.make_vif(
                id=vif_id, vif_name=tap, address=guest_mac,
                bridge_name=agent.BRIDGE))
            ports.append(security_groups.Port(
                vif_id=vif_id, tap=tap, mac=guest_mac, own=(), groups=(),
                stateful=False))
            applied = privileged.apply_filter(security_groups.Change(
                tuple(ports), is_all=True).as_fields())
            self.assertEqual({}, applied['refused'])
        self.assertEqual([], self.found('TM411'))
        self.assert_one('TM237', 'netfilter', 'iptables-nft (filter neutron-',
                        'ebtables-nft (nat ', base.TAP, OTHER_TAP)
        self.assertNotIn('open', self.found('TM301')[0].remedy)
        self.host.set(base.TAP, group=self.options.link_group)
        self.assertEqual([], self.found('TM237'))
        self.assertIn(base.TAP, self.found('TM411')[0].evidence)

    def test_tm412(self):
        agent.filter_by_iptables([base.TAP])
        found = self.found('TM412', agent.BRIDGE)
        self.assertEqual(2, len(found))
        for each in found:
            self.do(each.remedy)
        self.addCleanup(self.switch, [4, 6], '0')
        self.assertEqual([], self.found('TM412'))
        self.assertEqual(2, len(self.found('TM411')))

    def test_tm413(self):
        self.switch([4])
        agent.filter_by_iptables([base.TAP], families=[4])
        self.assert_one('TM413', OTHER_TAP, 'is open')

    def test_tm414(self):
        agent.filter_by_iptables(['tap99999999-99', base.TAP], [OTHER_TAP])
        found = self.assert_one('TM414', 'netfilter', 'tap99999999-99')
        self.assertNotIn(base.TAP, found.evidence)

    def test_what_only_root_may_ask_is_said(self):
        self.switch([4])

        def refuse(family):
            raise exception.KernelRefused.from_errno(
                'nftables', 'listing its rules', errno.EPERM)
        agent.filter_by_iptables([base.TAP], families=[4])
        self.patch(port_rules, '_of_nf_tables', refuse)
        self.assert_one('TM411', 'this host', 'could not be seen')
        self.assertIn('only after root has looked', self.found(
            'TM301', bridge_health.SWITCHES[nftables.IPV4])[0].remedy)

    def test_to_look_makes_no_tables(self):
        before = self.tables()
        port_rules.all_of_them()
        self.assertEqual(before, self.tables())

    def tables(self):
        found = []
        for name in 'ip', 'ip6':
            with open('/proc/thread-self/net/%s_tables_names' % name) as read:
                found += read.read().split()
        return found


class AgentHostTest(AgentTestCase):

    def test_all_that_will_be_wrong(self):
        self.switch([4, 6])
        agent.filter_by_iptables(
            [base.TAP, OTHER_TAP, 'tap99999999-99'], kind=agent.LEGACY)
        agent.filter_by_ebtables(base.TAP, base.GUEST_MAC, '10.0.0.5')
        self.host.ip.addr('add', index=self.host.link(agent.BRIDGE).index,
                          address='192.0.2.7', prefixlen=24)
        self.host.wait_for_addresses()
        done = subprocess.run(
            [sys.executable, '-c', 'import sys; from vif_plug_tapmac.cli '
             'import main; sys.exit(main.main())', 'audit', '--all-bridges',
             '-f', 'json'], text=True, capture_output=True,
            env=dict(os.environ, PYTHONWARNINGS='ignore'))
        self.assertEqual(20, done.returncode, done.stderr)
        found = json.loads(done.stdout)
        self.assertEqual(
            {('TM101', agent.BRIDGE), ('TM107', agent.BRIDGE),
             ('TM301', 'bridge-nf-call-iptables'),
             ('TM402', agent.BRIDGE), ('TM406', agent.BRIDGE),
             ('TM408', agent.BRIDGE), ('TM409', base.TAP),
             ('TM409', OTHER_TAP), ('TM411', agent.BRIDGE),
             ('TM414', 'netfilter')},
            {(each['Code'], each['Device']) for each in found})
        made = [each for each in found if each['Code'] == 'TM402'][0]
        self.assertIn('puts eth1 into it and gives it 192.0.2.7',
                      made['Evidence'])
        self.assertIn('bridge_uplinks = %s:eth1' % agent.BRIDGE,
                      made['Remedy'])

    def test_uplink_in_the_configuration(self):
        self.assert_one('TM402', agent.BRIDGE)
        self.configure(bridge_uplinks={agent.BRIDGE: 'eth1'})
        self.assertEqual([], self.found('TM402'))

    def test_without_the_option_nothing_is_said(self):
        agent.filter_by_iptables([base.TAP])
        self.assertEqual([], audit.audit(inventory.read(self.options),
                                         self.options))

    def test_vlan(self):
        if not hosts.kernel_knows_vlans():
            self.skipTest('this kernel has no 802.1Q')
        self.host.set('eth1', master=0)
        self.host.ip.link('add', ifname='eth1.200', kind='vlan', vlan_id=200,
                          link=self.host.link('eth1').index)
        self.host.set('eth1.200', state='up', master=self.host.link(
            agent.BRIDGE).index)
        self.assert_one('TM402', agent.BRIDGE, 'eth1.200')
        self.assertEqual([], self.found('TM404'))
        self.host.set('eth1', state='down')
        self.assert_one('TM116', agent.BRIDGE, 'eth1 and eth1.200 are down')
