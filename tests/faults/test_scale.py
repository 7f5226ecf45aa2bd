# SPDX-License-Identifier: Apache-2.0

"""The edges of what a host can have."""

import logging

from tests import base
from tests import hosts
from tests import patience
from vif_plug_tapmac import exception
from vif_plug_tapmac.kernel import bridge_health

_BRIDGES = 50


class ScaleTest(base.FunctionalTestCase):

    LOG_LEVEL = logging.WARNING

    def fill(self, ports):
        """Have that many ports on the bridge, the last ones plugged.

        In the long form all are.
        """
        plugged = ports if patience.LONG else 30
        self.plug(base.numbered_vif(1))
        index = self.host.link(base.BRIDGE).index
        for number in range(ports - plugged):
            self.host.ip.link('set', master=index, index=self.host.add_tap(
                'p%d' % number).index)
        for number in range(2, plugged + 1):
            self.plug(base.numbered_vif(number))

    def ports(self):
        index = self.host.link(base.BRIDGE).index
        return [link for link in self.host.state()[0] if link.master == index]

    def test_all_ports_of_a_bridge(self):
        self.only_in_full()
        self.fill(bridge_health.PORTS)
        self.assertEqual(bridge_health.PORTS, len(self.ports()))
        self.assert_logged('has 1000 ports of 1023 at least')
        self.assert_finished('tap00000002', mac='fe:16:3e:00:00:02')
        # It is refused, nothing changes, and no other bridge minds.
        self.assert_plug_fails(exception.KernelRefused, base.TAP, base.BRIDGE,
                               'EXFULL', '1023 ports')
        self.plug(base.make_vif(bridge_name='br101'))
        self.assert_finished(master='br101')
        self.unplug()
        # What is there is mended all the same, and makes place.
        self.host.set('tap00000002', mtu=1400)
        self.plug(base.numbered_vif(2))
        self.assert_finished('tap00000002', mac='fe:16:3e:00:00:02')
        self.unplug(base.numbered_vif(2))
        self.plug()
        self.assert_finished()
        self.assertEqual(bridge_health.PORTS, len(self.ports()))

    def test_many_bridges(self):
        vifs = [base.numbered_vif(number, bridge_name='br%d' % number)
                for number in range(_BRIDGES)]
        for _ in range(2):
            for vif in vifs:
                self.plug(vif)
        self.assertEqual(_BRIDGES, len({
            self.host.link(vif.bridge_name).mac for vif in vifs}))
        for vif in vifs:
            self.assert_finished(vif.vif_name, master=vif.bridge_name,
                                 mac='fe' + str(vif.address)[2:])
            self.unplug(vif)
        self.assertEqual(
            {'lo'} | {vif.bridge_name for vif in vifs},
            {link.name for link in self.host.state()[0]})

    def test_names_that_differ_in_the_last_character(self):
        # As long as a name may be, and as Nova's are.
        vifs = [base.numbered_vif(
            number, vif_name=tap + end, bridge_name=on + end)
            for number, (tap, on, end) in enumerate(
                (tap, on, end)
                for tap, on in (('tap1a2b3c4d-5', 'br1'),
                                ('abcdefghijklmn', 'br-abcdefghijk'))
                for end in '0123456789abcdefABCDEF')]
        for vif in vifs:
            self.plug(vif)
        for vif in reversed(vifs):
            self.assert_finished(vif.vif_name, master=vif.bridge_name,
                                 mac='fe' + str(vif.address)[2:])
        gone, *others = vifs
        with hosts.Guest(others[0].vif_name):
            self.unplug(gone)
        self.assertIsNone(self.host.find(gone.vif_name))
        for vif in others:
            self.assert_finished(vif.vif_name, master=vif.bridge_name,
                                 mac='fe' + str(vif.address)[2:])
