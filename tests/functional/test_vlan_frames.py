# SPDX-License-Identifier: Apache-2.0

"""VLANs from end to end: from a guest to the wire, with its tag, and back.

Test strategy: the host's network card is a TAP that the test holds, so that
what it reads and writes there is on the wire, tags and all.
"""

import errno
import socket
import struct

import pyroute2
from pyroute2 import netlink
from pyroute2.netlink import generic

from tests import base
from tests.functional import test_vlan_uplink
from tests import hosts
from tests import patience
from vif_plug_tapmac.kernel import bridge_health

_CARD, _CARD_MAC = 'eth7', '5a:00:00:00:00:07'
_PEER_MAC = '52:54:00:00:00:01'
_TAG, _SERVICE_TAG = 0x8100, 0x88a8
_BOND_MODES = {'active-backup': 1, '802.3ad': 4}
# With a word of LACP each second.
_LACP = {'bond_mode': 4, 'bond_miimon': 100, 'bond_ad_lacp_rate': 1}


def with_tags(frame, *tags):
    """Return a frame with these tags, pairs of ethertype and VLAN."""
    return frame[:12] + b''.join(
        struct.pack('!HH', *tag) for tag in tags) + frame[12:]


def tags_of(frame):
    """Return the tags of a frame, pairs of ethertype and VLAN."""
    found, place = [], 12
    while (tag := struct.unpack_from('!HH', frame, place))[0] in (
            _TAG, _SERVICE_TAG):
        found.append(tag)
        place += 4
    return found


class _TeamMessage(netlink.genlmsg):
    """A message of a team driver. Source: linux/if_team.h"""

    nla_map = (('NONE', 'none'), ('IFINDEX', 'uint32'), ('OPTIONS', 'options'))

    class options(netlink.nla):
        nla_map = (('NONE', 'none'), ('OPTION', 'option'))

        class option(netlink.nla):
            nla_map = (('NONE', 'none'), ('NAME', 'asciiz'),
                       ('CHANGED', 'flag'), ('TYPE', 'uint8'),
                       ('DATA', 'asciiz'))


def set_team_mode(index, mode):
    """Have a team device do something with its ports, as teamd does."""
    message = _TeamMessage()
    message['cmd'], message['version'] = 1, 1  # TEAM_CMD_OPTIONS_SET
    message['attrs'] = [('IFINDEX', index), ('OPTIONS', {'attrs': [
        ('OPTION', {'attrs': [('NAME', 'mode'), ('TYPE', 5),  # NLA_STRING
                              ('DATA', mode)]})]})]
    with generic.GenericNetlinkSocket() as team:
        team.bind('team', _TeamMessage)
        try:
            team.nlm_request(
                message, msg_type=team.prid,
                msg_flags=netlink.NLM_F_REQUEST | netlink.NLM_F_ACK)
        except pyroute2.NetlinkError as error:
            if error.code != errno.ESRCH:  # It is done, and nobody listens.
                raise


class WireTestCase(base.FunctionalTestCase):

    def setUp(self):
        super().setUp()
        test_vlan_uplink.require_vlans(self)
        bridge_health._warned.clear()
        self.configure(bridge_uplinks={base.BRIDGE: _CARD})
        self.wire = None
        self.add_card()
        self.addCleanup(lambda: self.wire.close())

    def add_card(self, name=_CARD, mac=_CARD_MAC):
        if self.wire is not None:
            self.wire.close()
        self.host.add_tap(name)
        self.host.quiet_ipv6(name)
        self.host.set(name, address=mac)
        self.wire = hosts.Guest(name, _PEER_MAC)

    def add(self, name, kind, **fields):
        """Make a link of a kind that this kernel may lack."""
        try:
            return self.host.add(name, kind, **fields)
        except pyroute2.NetlinkError as error:
            if error.code != errno.EOPNOTSUPP:
                raise
            self.skipTest('this kernel has no driver for a %s' % kind)

    def vif(self, number=0, vlan=200, **fields):
        return base.numbered_vif(number, bridge_name='%s-%d' % (
            base.BRIDGE, vlan) if vlan else base.BRIDGE, **fields)

    def hold(self, vif):
        guest = hosts.Guest(vif.vif_name, vif.address)
        self.addCleanup(guest.close)
        self.host.wait_until_forwarding(vif.vif_name)
        return guest

    def assert_on_wire(self, guest, *tags):
        """Expect a guest's frame at the wire with these tags, and a reply."""
        payload = b'from %s' % guest.mac.encode()
        guest.send(_PEER_MAC, payload)
        frame = next(frame for frame in self.wire.frames()
                     if payload in frame)
        self.assertEqual(list(tags), tags_of(frame))
        self.wire.write(with_tags(hosts.frame(
            guest.mac, _PEER_MAC, b'reply ' + payload), *tags))
        self.assertTrue(guest.receive(b'reply ' + payload))

    def plug_and_hold(self, vif, uplink):
        self.plug(vif)
        self.host.wait_until_forwarding(uplink)
        return self.hold(vif)


class FramesTest(WireTestCase):

    def test_there_and_back(self):
        self.assert_on_wire(self.plug_and_hold(self.vif(), 'eth7.200'),
                            (_TAG, 200))

    def test_lowest_and_highest(self):
        for vlan in 1, 4094:
            guest = self.plug_and_hold(self.vif(vlan, vlan),
                                       'eth7.%d' % vlan)
            self.assert_on_wire(guest, (_TAG, vlan))

    def test_longest_names(self):
        self.add_card('enp1234s0f', '5a:00:00:00:00:17')
        self.configure(bridge_uplinks={'longer789': 'enp1234s0f'})
        vif = base.numbered_vif(1, bridge_name='longer789-4094')
        guest = self.plug_and_hold(vif, 'enp1234s0f.4094')
        self.assert_on_wire(guest, (_TAG, 4094))

    def test_each_vlan_alone(self):
        guests = {vlan: self.plug_and_hold(
            self.vif(vlan, vlan), 'eth7.%d' % vlan if vlan else _CARD)
            for vlan in (0, 200, 201)}
        for vlan, guest in guests.items():
            self.assert_on_wire(guest, *([(_TAG, vlan)] if vlan else []))
            self.wire.write(with_tags(
                hosts.frame(hosts.BROADCAST, _PEER_MAC, b'all of %d.' % vlan),
                *([(_TAG, vlan)] if vlan else [])))
        for vlan, guest in guests.items():
            heard = b''.join(self.until_reply(guest, vlan))
            for other in guests:
                self.assertIs(vlan == other, b'all of %d.' % other in heard)

    def until_reply(self, guest, vlan):
        """Yield what the guest gets before what is sent to it now."""
        last = b'last for %d.' % vlan
        self.wire.write(with_tags(hosts.frame(guest.mac, _PEER_MAC, last),
                                  *([(_TAG, vlan)] if vlan else [])))
        for frame in guest.frames():
            if last in frame:
                return
            yield frame

    def test_unplug_and_again(self):
        vif = self.vif()
        for _ in range(2):
            guest = self.plug_and_hold(vif, 'eth7.200')
            self.assert_on_wire(guest, (_TAG, 200))
            guest.close()
            self.unplug(vif)
            self.assertEqual('br100-200', self.host.master('eth7.200'))

    def test_card_that_goes_and_comes_back(self):
        vif = self.vif()
        guest = self.plug_and_hold(vif, 'eth7.200')
        self.wire.close()
        self.host.delete(_CARD)
        self.add_card()
        self.plug(vif)
        self.host.wait_until_forwarding('eth7.200')
        self.assert_on_wire(guest, (_TAG, 200))

    def test_card_that_was_down_for_a_while(self):
        guest = self.plug_and_hold(self.vif(), 'eth7.200')
        for state in 'down', 'up':
            self.host.set(_CARD, state=state)
        self.host.wait_until_forwarding('eth7.200')
        self.assert_on_wire(guest, (_TAG, 200))

    def test_vlan_that_others_made_first(self):
        self.host.add('eth7.200', 'vlan', link=self.host.link(_CARD).index,
                      vlan_id=200)
        self.assert_on_wire(self.plug_and_hold(self.vif(), 'eth7.200'),
                            (_TAG, 200))

    def test_vlan_and_bridge_that_others_made_first(self):
        bridge = self.host.add('br100-200', 'bridge', br_mcast_snooping=0)
        self.host.add('eth7.200', 'vlan', link=self.host.link(_CARD).index,
                      vlan_id=200, master=bridge.index)
        for name in _CARD, 'eth7.200', 'br100-200':
            self.host.set(name, state='up')
        self.assert_on_wire(self.plug_and_hold(self.vif(), 'eth7.200'),
                            (_TAG, 200))


class MtuTest(WireTestCase):

    def assert_takes(self, guest, size):
        """Expect a frame with so much in it at the wire."""
        payload = b'%d' % size + bytes(size - 4)
        guest.send(_PEER_MAC, payload)
        self.assertTrue(any(payload in frame for frame in self.wire.frames()
                            if len(frame) >= size))

    def test_jumbo_frames(self):
        self.host.set(_CARD, mtu=9000)
        vif = self.vif(mtu=9000)
        guest = self.plug_and_hold(vif, 'eth7.200')
        self.assertEqual([9000] * 3, [self.host.link(name).mtu for name in (
            'eth7.200', 'br100-200', vif.vif_name)])
        self.assert_takes(guest, 8900)

    def test_smaller_beside_larger(self):
        self.host.set(_CARD, mtu=9000)
        self.plug(self.vif(1, mtu=9000))
        self.plug(self.vif(2, vlan=201, mtu=1400))
        self.assertEqual([9000, 1400], [self.host.link(name).mtu for name in (
            'br100-200', 'br100-201')])

    def test_card_that_was_smaller_for_a_while(self):
        vif = self.vif()
        guest = self.plug_and_hold(vif, 'eth7.200')
        self.host.set(_CARD, mtu=1400)
        self.plug(vif)
        self.assertEqual(1400, self.host.link('eth7.200').mtu)
        self.host.set(_CARD, mtu=1500)
        self.plug(vif)
        self.assertEqual(1500, self.host.link('eth7.200').mtu)
        self.assert_takes(guest, 1480)


class BondTest(WireTestCase):
    """Several cards that are one."""

    def add_bond(self, mode='active-backup'):
        bond = self.add('bond0', 'bond', bond_mode=_BOND_MODES[mode],
                        bond_miimon=100)
        self.host.quiet_ipv6('bond0')
        self.host.set('bond0', address=_CARD_MAC)
        self.host.set(_CARD, state='down')
        self.host.set(_CARD, master=bond.index)
        return bond

    def test_active_backup(self):
        self.add_bond()
        self.configure(bridge_uplinks={base.BRIDGE: 'bond0'})
        guest = self.plug_and_hold(self.vif(vlan=0), 'bond0')
        self.assert_on_wire(guest)

    def test_vlan_on_active_backup(self):
        self.add_bond()
        self.configure(bridge_uplinks={base.BRIDGE: 'bond0'})
        guest = self.plug_and_hold(self.vif(), 'bond0.200')
        self.assertTrue(self.host.link('bond0').up)
        self.assert_on_wire(guest, (_TAG, 200))

    def test_vlan_on_8023ad(self):
        # Whose other end speaks no LACP: one card is used all the same.
        self.add_bond('802.3ad')
        self.configure(bridge_uplinks={base.BRIDGE: 'bond0'})
        guest = self.plug_and_hold(self.vif(), 'bond0.200')
        self.assertEqual(_CARD_MAC, self.host.link('br100-200').mac)
        self.assert_on_wire(guest, (_TAG, 200))

    def test_vlan_on_a_team(self):
        team = self.add('team0', 'team', address=_CARD_MAC)
        set_team_mode(team.index, 'roundrobin')
        self.host.set(_CARD, state='down')
        self.host.set(_CARD, master=team.index)
        self.configure(bridge_uplinks={base.BRIDGE: 'team0'})
        guest = self.plug_and_hold(self.vif(), 'team0.200')
        self.assertTrue(self.host.link('team0').up)
        self.assert_on_wire(guest, (_TAG, 200))

    def test_member_is_no_uplink(self):
        self.add_bond()
        self.assert_plug_fails(Exception, 'is a port of bond0',
                               vif=self.vif(vlan=0))


class LacpTest(WireTestCase):
    """Both ends of two cables are bonds of 802.3ad, as at a switch."""

    def add_bonds(self):
        peer = self.useFixture(hosts.Peer())
        bond = self.add('bond0', 'bond', **_LACP)
        self.host.quiet_ipv6('bond0')
        for name in 'eth1', 'eth2':
            self.host.add(name, 'veth', peer='at-' + name)
            self.host.ip.link(
                'set', index=self.host.link('at-' + name).index,
                net_ns_fd=peer.namespace)
            self.host.set(name, master=bond.index)
        peer.run(self.add_other_bond)
        self.configure(bridge_uplinks={base.BRIDGE: 'bond0'})
        return peer

    def add_other_bond(self):
        with pyroute2.IPRoute() as ip:
            ip.link('add', ifname='bond0', kind='bond', **_LACP)
            bond, = ip.link_lookup(ifname='bond0')
            for name in 'at-eth1', 'at-eth2':
                ip.link('set', index=ip.link_lookup(ifname=name)[0],
                        master=bond)
            ip.link('set', index=bond, state='up')
            ip.link('add', ifname='vlan200', kind='vlan', vlan_id=200,
                    link=bond)
            ip.link('set', index=ip.link_lookup(ifname='vlan200')[0],
                    state='up')

    def test_there_and_back(self):
        peer = self.add_bonds()
        guest = self.plug_and_hold(self.vif(), 'bond0.200')
        other = peer.run(lambda: socket.socket(
            socket.AF_PACKET, socket.SOCK_RAW, socket.htons(hosts.ETHERTYPE)))
        self.addCleanup(other.close)
        other.bind(('vlan200', hosts.ETHERTYPE))
        other.setblocking(False)

        def heard():
            guest.send(_PEER_MAC, b'from the guest')
            try:
                return b'from the guest' in other.recv(2048)
            except BlockingIOError:
                return False

        def answered():
            other.send(hosts.frame(guest.mac, _PEER_MAC, b'to the guest'))
            return any(b'to the guest' in frame for frame in guest.waiting())
        # Each end waits for the other to be ready, on each cable, and the way
        # back may be another one.
        patience.wait_until(heard, 'nothing gets through', pause=0.1)
        patience.wait_until(answered, 'nothing comes back', pause=0.1)
        patience.wait_until(lambda: self.ports_in_use() == 2,
                            'one cable is not used')

    def ports_in_use(self):
        """Return how many cables the two ends have agreed on."""
        message = self.host.ip.link(
            'get', index=self.host.link('bond0').index)[0]
        return message.get_nested(
            'IFLA_LINKINFO', 'IFLA_INFO_DATA', 'IFLA_BOND_AD_INFO',
            'IFLA_BOND_AD_INFO_NUM_PORTS')


class BesideTest(WireTestCase):
    """What else is on the card, and stays so."""

    def assert_beside(self, kind, **fields):
        self.add('beside', kind, link=self.host.link(_CARD).index, **fields)
        self.host.set('beside', state='up')
        before = self.host.link('beside')
        self.assert_on_wire(self.plug_and_hold(self.vif(), 'eth7.200'),
                            (_TAG, 200))
        self.assertEqual(before, self.host.link('beside'))

    def test_macvlan(self):
        self.host.set(_CARD, state='up')
        self.assert_beside('macvlan')

    def test_ipvlan(self):
        self.host.set(_CARD, state='up')
        self.assert_beside('ipvlan')


class DoubleTagTest(WireTestCase):
    """A VLAN in a VLAN."""

    def assert_two_tags(self, outer, ethertype):
        self.configure(bridge_uplinks={'br100-200': outer + '.200'})
        self.assert_on_wire(
            self.plug_and_hold(self.vif(), outer + '.200'),
            (ethertype, 5), (_TAG, 200))

    def test_of_8021q(self):
        self.host.add('eth7.5', 'vlan', link=self.host.link(_CARD).index,
                      vlan_id=5)
        self.assert_two_tags('eth7.5', _TAG)

    def test_of_8021ad(self):
        self.host.add('outer5', 'vlan', link=self.host.link(_CARD).index,
                      vlan_id=5, vlan_protocol=_SERVICE_TAG)
        self.assert_two_tags('outer5', _SERVICE_TAG)
