# SPDX-License-Identifier: Apache-2.0

"""The host's ends of interfaces of Neutron's own agents, and their bridges.

What the agents make them with is tested where there is a Neutron.
"""

import pathlib

import fixtures

from tests import base
from tests.functional import test_audit
from tests import hosts
from tests import patience
from vif_plug_tapmac import exception
from vif_plug_tapmac.host import link_files
from vif_plug_tapmac import mark
from vif_plug_tapmac import privileged

MAC, HOST_MAC = 'fa:16:3e:00:00:77', 'fe:16:3e:00:00:77'
PORT = '77777777-7777-4777-8777-777777777777'
NAME = 'tap77777777-77'


class InterfaceTestCase(test_audit.AuditTestCase):

    def setUp(self):
        super().setUp()
        # As the driver does, but for what is in a namespace.
        self.host.add(NAME, 'veth', peer={'ifname': 'ns', 'address': MAC},
                      address=HOST_MAC, group=mark.INTERFACE_GROUP)
        self.host.set(NAME, ifalias=str(mark.InterfaceMark(PORT, MAC, None)))
        self.host.set('ns', state='up')

    def join(self, **fields):
        return privileged.join_interface({
            'vif_id': PORT, 'name': NAME, 'bridge': base.BRIDGE,
            'guest_mac': MAC, 'mtu': 1400, **fields})

    def assert_joined(self, bridge=base.BRIDGE):
        link = self.host.link(NAME)
        self.assertEqual(
            (HOST_MAC, 1400, bridge, True, False, True,
             str(mark.InterfaceMark(PORT, MAC, bridge))),
            (link.mac, link.mtu, self.host.master(NAME), link.up, link.locked,
             link.learning, link.alias))


class JoinTest(InterfaceTestCase):

    def test_twice_and_moved(self):
        self.configure(owner='nobody who is on this host', firewall='agent')
        for bridge in base.BRIDGE, base.BRIDGE, 'br200':
            self.assertTrue(self.join(bridge=bridge))
            self.assert_joined(bridge)
        self.assertNotIn(self.host.link(NAME).group, (29793, 29795, 29796))

    def test_what_was_changed(self):
        self.join()
        for changed in ({'address': '02:00:00:00:00:01'}, {'group': 7},
                        {'ifalias': 'by lldpd'}, {'state': 'down'},
                        {'mtu': 1300}, {'master': 0}):
            self.host.set(NAME, **changed)
            self.join()
            self.assert_joined()
        self.host.delete(NAME)
        self.assertFalse(self.join())

    def test_bridge_keeps_its_mac(self):
        self.host.add(base.BRIDGE, 'bridge')
        self.host.add('wire', 'veth', address='fc:00:00:00:00:01', peer={
            'ifname': 'far', 'address': 'fc:00:00:00:00:02'})
        self.host.set('wire', master=self.host.link(base.BRIDGE).index)
        before = self.host.link(base.BRIDGE).mac
        self.host.set(NAME, address='02:00:00:00:00:01')
        self.join()
        self.assertEqual('fc:00:00:00:00:01', before)
        self.assertEqual(before, self.host.link(base.BRIDGE).mac)

    def test_nothing_else_is_touched(self):
        self.host.add('eth7', 'veth', peer='eth8')
        self.plug()
        before = self.host.state()
        for fields in ({'name': 'eth7'}, {'name': base.TAP}, {'name': 'lo'},
                       {'vif_id': base.VIF_ID}):
            self.assertRaises(exception.DeviceConflict, self.join, **fields)
        self.assertRaises(exception.InvalidVif, self.join, owner=0)
        self.assertRaises(exception.InvalidVif, self.join, bridge='a/b')
        self.configure(allowed_bridges=['br7'])
        self.assertRaises(exception.InvalidConfig, self.join)
        self.configure(allowed_bridges=['*'], create_bridge=False)
        self.assertRaises(exception.BridgeNotFound, self.join, bridge='br8')
        self.assertEqual(before, self.host.state())


class AuditTest(InterfaceTestCase):

    def assert_found(self, code, *words):
        finding = self.assert_finds(code, NAME, *words)
        if self.host.master(NAME) or 'master' in finding.remedy:
            self.do(finding.remedy)
            self.assert_clean()

    def test_tm230(self):
        self.join()
        self.assert_clean()
        for changed, words in (
                ({'address': '02:00:00:00:00:01'}, '02:00:00:00:00:01'),
                ({'state': 'down'}, 'down'), ({'master': 0}, 'no bridge')):
            self.host.set(NAME, **changed)
            self.assert_found('TM230', words)
        index = self.host.link(NAME).index
        for change, words in (
                (lambda: self.host.set('ns', state='down'), 'other end'),
                (lambda: hosts.set_port_options(index, LOCKED=1), 'locked'),
                (lambda: hosts.set_port_state(index, 0), 'forward')):
            if words == 'locked' and self.host.link(NAME).locked is None:
                continue  # Not before Linux 5.18.
            change()
            self.assert_finds('TM230', NAME, words, 'start the DHCP or L3')
            self.host.set('ns', state='up')
            patience.wait_until(
                lambda: self.host.link(NAME).is_operational, 'no carrier')
            self.join()
            self.assert_clean()
        self.host.add_bridge('br200')
        self.host.set(NAME, master=self.host.link('br200').index)
        self.assert_found('TM230', 'br200', base.BRIDGE)
        self.host.set(NAME, ifalias='by lldpd')
        self.assert_finds('TM230', NAME, 'by lldpd', 'agent')

    def test_networkd_would_take_it_off(self):
        self.join()
        directory = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        self.patch(link_files, '_DIRECTORIES', [str(directory)])
        file = directory / 'a.network'
        for text, is_taken in (
                ('[Match]\nKind=veth\n', True),
                ('[Match]\nKind=veth\n[Link]\nUnmanaged=yes\n', False),
                ('[Match]\nName=wire\n', False)):
            file.write_text(text)
            if is_taken:
                found = self.assert_finds(
                    'TM309', str(file), '%s, an interface of DHCP or of a '
                    'router' % NAME, '00-tapmac.network')
                self.assertNotIn('uplink', found.evidence + found.remedy)
            else:
                self.assert_clean()

    def test_is_no_uplink_of_a_bridge_that_has_none(self):
        self.join()
        self.host.set(base.BRIDGE, address='52:54:00:00:00:07')
        self.assertLess(self.host.link(NAME).index,
                        self.host.link(base.BRIDGE).index)
        found = self.assert_finds('TM113', base.BRIDGE, 'without an uplink')
        self.do(found.remedy)
        self.assert_clean()

    def test_is_no_uplink_of_a_bridge_that_is_younger(self):
        self.configure(bridge_uplinks={base.BRIDGE: 'wire'})
        self.host.add('wire', 'veth', peer='far')
        for name in 'wire', 'far':
            self.host.set(name, state='up')
        self.join()
        self.assertLess(self.host.link(NAME).index,
                        self.host.link(base.BRIDGE).index)
        self.assert_clean()
