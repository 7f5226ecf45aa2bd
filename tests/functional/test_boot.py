# SPDX-License-Identifier: Apache-2.0

"""VLANs that the host's own network configuration makes, when it boots.

Test strategy: the real systemd-networkd and the real ifupdown2, each before
and after the first plug, as it happens when all of a host starts at once. Then
a guest's frame must be on the wire with its tag.
"""

import contextlib

import fixtures

from tests import base
from tests.functional import test_vlan_frames
from tests import network_configuration
from tests import patience
from vif_plug_tapmac import exception

_CARD, _VLAN, _BRIDGE = 'eth7', 'eth7.200', 'br100-200'
_CARD_MAC = '5a:00:00:00:00:07'


class BootTestCase(test_vlan_frames.WireTestCase):

    def boot(self):
        """Have the network configuration do all that it does at boot."""
        raise NotImplementedError

    def plug_and_speak(self):
        guest = self.plug_and_hold(self.vif(), _VLAN)
        self.assert_on_wire(guest, (0x8100, 200))
        return guest

    def assert_speaks(self, guest):
        """Expect it still to be heard on the wire."""
        self.host.wait_until_forwarding(_VLAN)
        self.assert_on_wire(guest, (0x8100, 200))


@base.needs_real_root(base.SEVERAL_USERS)
class NetworkdTest(BootTestCase):

    CARD = (
        '[Match]\nName=eth7\n'
        '[Network]\nVLAN=eth7.200\nLinkLocalAddressing=no\n')
    VLAN = (
        '[Match]\nName=eth7.200\n'
        '[Network]\nKeepMaster=yes\nLinkLocalAddressing=no\n')
    PORT = '[Match]\nName=eth7.200\n[Network]\nBridge=br100-200\n'
    BRIDGE = (
        '[Match]\nName=br100-200\n'
        '[Network]\nAddress=192.0.2.7/24\nLinkLocalAddressing=no\n')

    def setUp(self):
        super().setUp()
        missing = network_configuration.missing_networkd()
        if missing:
            self.cannot_run(missing)
        self.running = contextlib.ExitStack()
        self.addCleanup(self.running.close)

    def start(self, vlan=VLAN, bridge=''):
        """Start it once more, with files for the VLAN, and for its bridge."""
        files = {
            'card.network': self.CARD,
            'vlan.netdev':
                '[NetDev]\nName=eth7.200\nKind=vlan\n[VLAN]\nId=200\n',
            'vlan.network': vlan}
        if bridge:
            files['bridge.network'] = bridge
            files['bridge.netdev'] = (
                '[NetDev]\nName=br100-200\nKind=bridge\nMACAddress=%s\n'
                '[Bridge]\nForwardDelaySec=0\n' % _CARD_MAC)
        self.running.close()
        return self.running.enter_context(
            network_configuration.networkd(files))

    def boot(self, *files):
        self.wait_for(self.start(*files), *(
            [_BRIDGE] if self.BRIDGE in files else []))

    def wait_for(self, networkd, *more):
        for name in _CARD, _VLAN, *more:
            networkd.wait_for(patience.wait_until(
                lambda: self.host.find(name), 'there is no %s' % name).index)

    def test_before_the_plug(self):
        self.boot()
        guest = self.plug_and_speak()
        self.boot()  # Again, as it is when its package is upgraded.
        self.assert_speaks(guest)

    def test_after_the_plug(self):
        guest = self.plug_and_speak()
        self.boot()
        self.assert_speaks(guest)

    def test_card_after_the_plug(self):
        self.wire.close()
        self.host.delete(_CARD)
        networkd = self.start()
        self.assert_plug_fails(exception.UplinkUnusable, 'no eth7',
                               vif=self.vif())
        self.add_card()
        self.wait_for(networkd)
        self.plug_and_speak()

    def test_takes_it_from_the_bridge(self):
        guest = self.plug_and_speak()
        # Without KeepMaster it has no port on a bridge but its own.
        self.boot(self.VLAN.replace('KeepMaster=yes\n', ''))
        self.assertIsNone(self.host.master(_VLAN))
        self.plug(self.vif())
        self.assert_logged('had lost its uplink eth7.200')
        self.assert_speaks(guest)

    def test_bridge(self):
        self.boot(self.PORT, self.BRIDGE)
        guest = self.plug_and_speak()
        self.boot(self.PORT, self.BRIDGE)
        self.assert_speaks(guest)

    def test_bridge_after_the_plug(self):
        guest = self.plug_and_speak()
        self.boot(self.PORT, self.BRIDGE)
        self.assert_speaks(guest)


class Ifupdown2Test(BootTestCase):

    INTERFACES = (
        'auto eth7\niface eth7\n'
        'auto eth7.200\niface eth7.200\n'
        '    vlan-raw-device eth7\n    vlan-id 200\n')
    BRIDGE = (
        'auto br100-200\niface br100-200\n'
        '    bridge-ports eth7.200\n    bridge-stp off\n'
        '    bridge-fd 0\n')

    def setUp(self):
        super().setUp()
        missing = network_configuration.missing_ifupdown2()
        if missing:
            self.cannot_run(missing)
        self.state = self.useFixture(fixtures.TempDir()).path

    def boot(self, command='ifup', more=''):
        network_configuration.ifupdown2(
            command, self.INTERFACES + more, self.state)

    def test_before_the_plug(self):
        self.boot()
        guest = self.plug_and_speak()
        self.boot('ifreload')
        self.assert_speaks(guest)

    def test_after_the_plug(self):
        guest = self.plug_and_speak()
        self.boot()
        self.assert_speaks(guest)

    def test_bridge(self):
        more = self.BRIDGE + '    bridge-ports-condone-regex ^tap\n'
        self.boot(more=more)
        guest = self.plug_and_speak()
        self.boot('ifreload', more=more)
        self.assert_speaks(guest)

    def test_takes_guests_from_its_bridge(self):
        guest = self.plug_and_speak()
        self.boot(more=self.BRIDGE)
        self.assertIsNone(self.host.master(self.vif().vif_name))
        self.plug(self.vif())
        self.assert_speaks(guest)
