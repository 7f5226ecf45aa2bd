# SPDX-License-Identifier: Apache-2.0

"""What other programs, or hands, do to guests' TAPs: found, and left alone.

Test strategy: a host as a plug leaves it, and one thing more: an audit names
it, and what is ours is never said to be wrong; a repair changes nothing, or
mends it.
"""

import subprocess

from tests import base
from tests.functional import test_audit
from vif_plug_tapmac.host import domains
from vif_plug_tapmac.host import inventory
from vif_plug_tapmac.kernel import netlink as nl
from vif_plug_tapmac.kernel import source_filter

_LIMIT = "<bandwidth><inbound average='1000'/></bandwidth>"
_POLICE = 'police rate 8mbit burst 64k drop'


class ForeignTestCase(test_audit.AuditTestCase):

    def assert_left(self, code, device, *words):
        """Expect this finding alone, and a repair that changes nothing."""
        found = self.assert_finds(code, device, *words)
        self.assertFalse(found.mendable)
        before = self.host.state()
        self.repair()
        self.assertEqual(before, self.host.state())
        return found

    def run_each(self, *commands):
        for command in commands:
            subprocess.run(command.split(), check=True)

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


class FilterTest(ForeignTestCase):
    """Of tc, and of nftables, before all else."""

    def add(self, *options, where='ingress'):
        self.run_each('tc filter add dev %s %s protocol all %s' % (
            base.TAP, where, ' '.join(options)))

    def require(self, *kinds):
        """Leave out a test of what this kernel lacks."""
        for priority, kind in enumerate(kinds, 1):
            if subprocess.run(
                    'tc filter add dev lo ingress pref %d protocol all %s'
                    % (priority, kind), shell=True,
                    capture_output=True).returncode:
                self.skipTest('this kernel lacks: ' + kind.split()[-1])

    def assert_each_is_found(self, *kinds):
        for where, word in ('ingress', 'sends'), ('egress', 'gets'):
            for done, seen in kinds:
                self.add('pref 5', done, where=where)
                found = self.assert_left('TM241', base.TAP, word, seen)
                subprocess.run(found.remedy.commands[1].split(), check=True)
                self.assert_clean()

    def test_tm241(self):
        self.plug_clean()
        self.run_each('tc qdisc add dev %s clsact' % base.TAP)
        self.assert_clean()
        self.assert_each_is_found(
            ('u32 match u32 0 0 flowid 1:1', 'u32 of priority 5: its verdict'))

    @base.needs_locked_ports
    def test_tm241_before_ours(self):
        self.plug_clean()
        with nl.Netlink() as netlink:
            # As a guest has it that arrives.
            source_filter.put(netlink, self.host.link(base.TAP),
                              base.GUEST_MAC)
        self.assert_clean()
        for priority, words in (5, ', before ours: '), (60000, '60000: '):
            self.add('pref %d u32 match u32 0 0 flowid 1:1' % priority)
            self.assert_left('TM241', base.TAP, words)
            self.run_each('tc filter del dev %s ingress pref %d' % (
                base.TAP, priority))

    def test_tm241_and_tm242_of_actions(self):
        self.plug_clean()
        self.run_each('tc qdisc add dev lo clsact',
                      'tc qdisc add dev %s clsact' % base.TAP)
        self.require('matchall action mirred egress mirror dev lo',
                     'u32 match u32 0 0 ' + _POLICE, 'flower action drop')
        self.assert_each_is_found(
            ('matchall action mirred egress redirect dev br100', 'mirred'),
            ('flower action drop', 'gact'),
            ('u32 match u32 0 0 action ok', 'gact'))
        with nl.Netlink() as netlink:
            source_filter.put(netlink, self.host.link(base.TAP),
                              base.GUEST_MAC)
        self.say_of_domain(is_limited=True)
        # A limit that counts before ours lets pass what it does not drop.
        self.add('pref 5 u32 match u32 0 0', _POLICE)
        self.assert_left('TM241', base.TAP, 'priority 5, before ours')
        self.run_each('tc filter del dev %s ingress pref 5' % base.TAP)
        self.add('u32 match u32 0 0', _POLICE)
        self.assert_clean()
        self.say_of_domain(is_limited=False)
        self.assert_left('TM242', base.TAP, 'beyond some limit')

    def say_of_domain(self, is_limited):
        """Have libvirt say what there is of its domains."""
        answer = domains.Answer('test:///', 1, {base.TAP: domains.Nic(
            'guest', True, base.GUEST_MAC, 1, is_limited=is_limited)})
        self.patch(inventory, 'answer', lambda: answer)

    def test_tm120_and_tm241_of_nftables(self):
        self.needs_program('nft')
        self.host.add('eth1', 'veth', peer='wire', address='52:54:00:12:34:56')
        for name in 'eth1', 'wire':
            self.host.quiet_ipv6(name)  # Nothing is to come later.
            self.host.set(name, state='up')
        self.configure(bridge_uplinks={base.BRIDGE: 'eth1'})
        self.plug_clean()
        for device, code, found_at in (
                (base.TAP, 'TM241', base.TAP), ('eth1', 'TM120', base.BRIDGE)):
            subprocess.run(['nft', 'add table netdev guard; add chain netdev '
                            'guard early { type filter hook ingress device %s '
                            'priority 0 ; }' % device], check=True)
            self.assert_clean()  # It lets all pass.
            self.run_each('nft add rule netdev guard early counter drop')
            self.assert_left(code, found_at, 'netdev guard early')
            self.run_each('nft delete table netdev guard')
        self.assert_clean()

    def test_tm242(self):
        self.plug_clean()
        self.run_each('tc qdisc add dev %s root tbf rate 8mbit burst 64k '
                      'latency 1s' % base.TAP)
        found = self.assert_left('TM242', base.TAP, 'goes through tbf')
        subprocess.run(found.remedy.commands[0].split(), check=True)
        self.assert_clean()
        self.run_each('tc qdisc add dev %s root pfifo limit 100' % base.TAP)
        self.assert_clean()

    def test_tm242_is_not_what_the_domain_asks_for(self):
        self.domains.define((base.TAP, base.GUEST_MAC, True, 1), limit=_LIMIT)
        self.plug_clean()
        # Source: libvirt, src/util/virnetdevbandwidth.c
        self.run_each(
            'tc qdisc add dev %s root handle 1: htb default 1' % base.TAP,
            'tc class add dev %s parent 1: classid 1:1 htb rate 8mbit'
            % base.TAP)
        self.assert_clean()
        self.domains.define((base.TAP, base.GUEST_MAC, True, 1))
        self.assert_left('TM242', base.TAP, 'goes through htb')


class DomainTest(ForeignTestCase):
    """What only libvirt's domains tell of."""

    NAME, BESIDE = base.TAP, 'tap00000007-00'

    def setUp(self):
        super().setUp()
        self.say()
        self.plug(base.numbered_vif(7, vif_name=self.BESIDE))

    def say(self, xml="<interface type='ethernet'>", active=True):
        """Have libvirt say that a guest has its NIC so."""
        nics = dict(domains._nics(
            "<domain><name>guest</name><devices>%s<mac address='%s'/><target "
            "dev='%s'/></interface></devices></domain>" % (
                xml, base.GUEST_MAC, self.NAME), active))
        nics[self.BESIDE] = domains.Nic(
            'beside', True, 'fa:16:3e:00:00:07', 1, kind='ethernet')
        answer = domains.Answer('test:///', 1, nics)
        self.patch(inventory, 'answer', lambda: answer)

    def test_tm243(self):
        self.plug_clean()
        self.hold()
        self.say()
        self.assert_clean()
        index = self.host.link(base.TAP).index
        self.run_each('ip link set %s down' % base.TAP,
                      'ip link set %s name x' % base.TAP)
        # One that was renamed is known by its mark.
        self.assertNotIn('TM243', [each.code for each in self.findings()])
        self.run_each('ip link delete x')
        self.assertNotIn(index, [link.index for link in self.host.links()])
        self.assert_left('TM243', base.TAP, 'domain guest runs', 'namespace')
        self.say(active=False)
        self.assert_clean()
        self.say("<interface type='vhostuser'>")
        self.assert_clean()
        # Of a libvirt that has nothing here nobody knows where its TAPs are.
        self.say()
        self.host.delete(self.BESIDE)
        self.assert_clean()

    def test_libvirts_own(self):
        self.configure(anti_spoofing='none')
        self.say(active=False)
        for number, bridge in (7, base.BRIDGE), (2, 'br200'):
            self.plug(base.numbered_vif(
                number, bridge_name=bridge, **(
                    {'vif_name': self.BESIDE} if number == 7 else {})))
        self.host.add_tap(base.TAP, owner=0)
        self.host.quiet_ipv6(base.TAP)
        self.host.set(base.TAP, address=base.TAP_MAC, state='up',
                      master=self.host.link(base.BRIDGE).index)
        self.say("<interface type='bridge'><source bridge='br100'/>")
        self.assert_clean()
        self.host.set(base.TAP, master=0)
        found = self.assert_left('TM206', base.TAP, 'guest has it on br100')
        self.host.set(base.TAP, master=self.host.link('br200').index)
        self.assert_left('TM218', base.TAP, 'on br200')
        self.host.set(base.TAP, master=0)
        self.do(found.remedy)
        self.assert_clean()
        # One without a bridge is none that libvirt has put on one.
        self.host.set(base.TAP, master=0)
        self.say()
        self.assert_clean()
