# SPDX-License-Identifier: Apache-2.0

"""Guests come and go while somebody talks to the host through the bridge.

A second host pings the bridge's address. On a bridge of ours nothing is lost;
on one that nobody pinned, the control, some is.
"""

import pathlib
import random

from tests import base
from tests import hosts
from tests import patience

_BRIDGE_ADDRESS, _PEER_ADDRESS = '192.0.2.1', '192.0.2.2'
_GUESTS = 20
_PINGS = patience.amount(1200, 2400, 6000)
#: How many are sent before the next guest comes or goes.
_PINGS_A_CHANGE = 30
#: Between two of them, in seconds, if there is time.
_INTERVAL = 0.002
# A busy machine loses one at times; a bridge that flaps loses some each time.
_TRIES = 3


class ChurnTest(base.FunctionalTestCase):

    def setUp(self):
        super().setUp()
        self.peer = self.useFixture(hosts.Peer())
        random.seed(self.id())

    def give_bridge_an_address(self):
        self.host.ip.addr('add', index=self.host.link(base.BRIDGE).index,
                          address=_BRIDGE_ADDRESS, prefixlen=24)

    def connect_by_tap(self):
        """Make the second host a guest: the bridge has TAP ports only."""
        vif = base.numbered_vif(0, address='fa:80:00:00:00:00')
        self.plug(vif)

        def open_far_end():
            guest = hosts.Guest('eth0')
            self.addCleanup(guest.close)
            return guest
        far = self.peer.run(open_far_end)
        self.peer.configure('eth0', _PEER_ADDRESS, mac=vif.address)
        near = hosts.Guest(vif.vif_name, vif.address)
        self.addCleanup(near.close)
        self.addCleanup(hosts.Cable(near, far).cut)
        self.host.wait_until_forwarding(vif.vif_name)

    def connect_by_uplink(self):
        """Make the second host a neighbour on the wire."""
        self.host.add('eth1', 'veth', address='02:00:00:00:00:07', peer={
            'ifname': 'eth0', 'net_ns_fd': self.peer.namespace})
        self.host.quiet_ipv6('eth1')
        self.host.set('eth1', state='up',
                      master=self.host.link(base.BRIDGE).index)
        self.peer.configure('eth0', _PEER_ADDRESS)
        self.host.wait_until_forwarding('eth1')

    def forget_soon(self):
        """Have the second host look for a MAC that is gone, and not wait."""
        for name, value in (('base_reachable_time_ms', 500),
                            ('delay_first_probe_time', 0),
                            ('retrans_time_ms', 100)):
            pathlib.Path('/proc/sys/net/ipv4/neigh/eth0', name).write_text(
                str(value))

    def churn(self, pings=_PINGS):
        """Let guests with random MACs come and go for that many pings.

        :returns: sent, lost
        """
        guests = [base.numbered_vif(
            number, address='fa:' + ':'.join(
                '%02x' % random.randrange(256) for _ in range(5)))
            for number in range(1, _GUESTS + 1)]
        pinger = hosts.Pinger(self.peer, _BRIDGE_ADDRESS, _INTERVAL)
        while len(pinger.sent) < pings:
            for change in self.plug, self.unplug:
                for vif in guests:
                    change(vif)
                    enough = len(pinger.sent) + _PINGS_A_CHANGE
                    patience.wait_until(lambda: len(pinger.sent) > enough,
                                        'nobody pings')
                random.shuffle(guests)
        pinger.stop()
        return len(pinger.sent), pinger.lost

    def assert_nothing_is_lost(self):
        mac = self.host.link(base.BRIDGE).mac
        for _ in range(_TRIES):
            sent, lost = self.churn()
            self.assertGreaterEqual(sent, _PINGS)
            self.assertEqual(mac, self.host.link(base.BRIDGE).mac)
            if not lost:
                return
        self.fail('Lost %d of %d' % (lost, sent))

    def test_tap_ports_only(self):
        self.connect_by_tap()
        self.give_bridge_an_address()
        self.assert_nothing_is_lost()

    def test_with_an_uplink(self):
        self.plug(base.numbered_vif(0))
        self.give_bridge_an_address()
        self.connect_by_uplink()
        self.assert_nothing_is_lost()

    def test_control_on_an_unpinned_bridge(self):
        self.host.add(base.BRIDGE, 'bridge')
        self.host.set(base.BRIDGE, state='up')
        self.connect_by_tap()
        self.give_bridge_an_address()
        self.peer.run(self.forget_soon)
        patience.wait_until(lambda: self.churn(_PINGS_A_CHANGE)[1],
                            'nothing is lost')
