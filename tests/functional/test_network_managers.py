# SPDX-License-Identifier: Apache-2.0

"""Who else configures links: with the files in etc/ he leaves guests alone.

Test strategy: the real systemd-networkd, ifupdown2 and NetworkManager start
again, and read their files again, while each of 20 guests is spoken to through
the uplink of their bridge. Not a frame may be lost. Without the file in etc/
guests, or their uplink, are taken off the bridge.
"""

import contextlib

import fixtures

from tests import base
from tests import hosts
from tests import network_configuration
from tests import patience
from vif_plug_tapmac.host import audit
from vif_plug_tapmac.host import inventory

_ETC = base.CHECKOUT / 'etc'
_GUESTS = 20
_CARD, _CARD_MAC = 'eth1', '52:54:00:12:34:56'


@base.needs_real_root(base.SEVERAL_USERS)
@base.too_slow_emulated('programs that start again and again')
class ManagerTestCase(base.FunctionalTestCase):

    #: What keeps the manager from running here, None if nothing does.
    missing: str | None = None

    def setUp(self):
        super().setUp()
        if self.missing:
            self.cannot_run(self.missing)
        # As files in etc/ match the names by Nova.
        self.vifs = [base.make_vif(
            id='%08x-0000-4000-8000-000000000000' % number,
            vif_name='tap%08x-00' % number,
            address='fa:16:3e:00:00:%02x' % number)
            for number in range(_GUESTS)]
        self.taps = [vif.vif_name for vif in self.vifs]
        self.peer = self.useFixture(hosts.Peer())
        self.host.add(_CARD, 'veth', address=_CARD_MAC, peer={
            'ifname': 'wire', 'net_ns_fd': self.peer.namespace})
        self.host.quiet_ipv6(_CARD)
        self.host.set(_CARD, state='up')
        self.peer.configure('wire', '192.0.2.1')

    def hold_guests(self, **options):
        """Plug all guests, with the card as their uplink, and start them."""
        self.configure(**options)
        self.guests = []
        for vif in self.vifs:
            self.plug(vif)
            guest = hosts.Guest(vif.vif_name, vif.address)
            self.addCleanup(guest.close)
            self.guests.append(guest)
        for name in (*self.taps, _CARD):
            self.host.wait_until_forwarding(name)

    def plug_again(self):
        """Have guests back, as when nova-compute starts again."""
        for vif in self.vifs:
            self.plug(vif)

    def masters(self, names):
        return {self.host.master(name) for name in names}

    @contextlib.contextmanager
    def nothing_lost(self):
        """Expect all to stay on the bridge, and each frame to get there."""
        traffic = hosts.Traffic(self.peer, 'wire', self.guests)
        try:
            yield
        finally:
            traffic.stop()
        self.assertEqual({base.BRIDGE}, self.masters((*self.taps, _CARD)))
        self.assertEqual(0, traffic.lost())

    def assert_taken(self, *names):
        """Expect these to be taken off their bridge."""
        patience.wait_until(lambda: self.masters(names) == {None},
                            'they stay on their bridge')


class NetworkdTest(ManagerTestCase):

    missing = network_configuration.missing_networkd()
    OURS = {'00-tapmac.network':
            (_ETC / 'systemd/network/00-tapmac.network').read_text()}
    CARD = {'10-card.network':
            '[Match]\nName=eth1\n[Network]\nKeepMaster=yes\n'
            'LinkLocalAddressing=no\n'}
    #: Some distributions have one.
    ALL = {'zz-all.network':
           '[Match]\nName=*\n[Network]\nLinkLocalAddressing=no\n'}

    def setUp(self):
        super().setUp()
        # Comes last, and tells by its address that all is done.
        self.host.add('witness', 'veth', peer='other')
        self.done = 0

    def files(self, *parts):
        self.done += 1
        files = {'20-witness.network':
                 '[Match]\nName=witness\n[Network]\nAddress=192.0.2.%d/32\n'
                 'ConfigureWithoutCarrier=yes\n'
                 'LinkLocalAddressing=no\n' % self.done}
        for part in parts:
            files.update(part)
        return files

    def wait(self):
        patience.wait_until(
            lambda: '192.0.2.%d/32' % self.done in self.host.addresses(
                'witness'), 'networkd does not get to its last link')

    def test_leaves_guests_alone(self):
        self.hold_guests(bridge_uplinks={base.BRIDGE: _CARD})
        parts = self.OURS, self.CARD, self.ALL
        with network_configuration.networkd(self.files(*parts)) as networkd:
            self.wait()
            for change in networkd.restart, networkd.reload:
                with self.nothing_lost():
                    change(self.files(*parts))
                    self.wait()

    def test_reads_our_file(self):
        self.hold_guests(bridge_uplinks={base.BRIDGE: _CARD})
        with network_configuration.networkd(self.files(self.CARD, {
                'zz-all.network': self.ALL['zz-all.network']
                + 'KeepMaster=yes\n'})) as networkd:
            self.wait()
            with self.nothing_lost():
                networkd.reload(self.files(self.OURS, self.CARD, self.ALL))
                self.wait()
            self.assertEqual({True}, {self.host.link(tap).up
                                      for tap in self.taps})

    def test_takes_guests_without_our_file(self):
        self.hold_guests(bridge_uplinks={base.BRIDGE: _CARD})
        with network_configuration.networkd(self.files(
                self.CARD, self.ALL)) as networkd:
            self.wait()
            self.assert_taken(*self.taps)
            self.plug_again()
            networkd.reload(self.files(self.CARD, {
                'zz-all.network':
                self.ALL['zz-all.network'] + 'DHCP=no\n'}))
            self.assert_taken(*self.taps)


class Ifupdown2Test(ManagerTestCase):

    missing = network_configuration.missing_ifupdown2()
    OURS = (_ETC / 'network/interfaces.d/br100').read_text()
    DROP_IN = (_ETC / 'systemd/system/networking.service.d/tapmac.conf'
               ).read_text()

    def setUp(self):
        super().setUp()
        self.state = self.useFixture(fixtures.TempDir()).path

    def service(self, command, interfaces, drop_in=''):
        network_configuration.networking_service(
            command, interfaces, self.state, drop_in)

    def test_leaves_guests_alone(self):
        self.service('restart', self.OURS)
        self.hold_guests()
        with self.nothing_lost():
            self.service('restart', self.OURS, self.DROP_IN)
        with self.nothing_lost():
            self.service('reload', self.OURS.replace('2.7', '2.8'))

    def test_leaves_uplink_alone(self):
        card = 'auto eth1\niface eth1\n'
        self.hold_guests(bridge_uplinks={base.BRIDGE: _CARD})
        # It is down for a moment, if addrgenmode is not what it wants.
        self.service('reload', card)
        self.host.wait_until_forwarding(_CARD)
        with self.nothing_lost():
            self.service('restart', card, self.DROP_IN)
        with self.nothing_lost():
            self.service('reload', card + '    mtu 1500\n')

    def test_takes_guests_without_our_files(self):
        self.service('restart', self.OURS)
        self.hold_guests()
        without = self.OURS.replace('bridge-ports-condone-regex ^tap', '')
        self.service('reload', without.replace('2.7', '2.8'))
        self.assert_taken(*self.taps)
        self.plug_again()
        self.service('restart', without, self.DROP_IN)
        self.assert_taken(*self.taps)
        self.plug_again()
        self.service('restart', self.OURS)
        self.assert_taken(*self.taps)


class NetworkManagerTest(ManagerTestCase):

    missing = network_configuration.missing_network_manager()
    TEXT = (_ETC / 'NetworkManager/conf.d/tapmac.conf').read_text()
    OURS = {'conf.d/tapmac.conf': TEXT}
    #: As it says there.
    WITH_UPLINK = {'conf.d/tapmac.conf': '%s;interface-name:eth1;'
                   'interface-name:br100\n' % TEXT.rstrip()}

    def start(self, files):
        manager = network_configuration.NetworkManager(files)
        self.addCleanup(manager.close)
        return manager

    def wait(self, manager):
        """Wait until it has started, and has nothing more to do."""
        patience.wait_until(
            lambda: manager.has_started() and set(self.taps) | {_CARD} <= set(
                manager.states()), 'NetworkManager does not start')

    def test_leaves_guests_alone(self):
        self.hold_guests(bridge_uplinks={base.BRIDGE: _CARD})
        manager = self.start(self.WITH_UPLINK)
        self.wait(manager)
        for change in manager.restart, manager.reload:
            with self.nothing_lost():
                change(self.WITH_UPLINK)
                self.wait(manager)
            states = manager.states()
            self.assertEqual({'unmanaged'}, {
                states[name] for name in (*self.taps, _CARD, base.BRIDGE)})

    def test_takes_uplink_without_our_file(self):
        self.hold_guests(bridge_uplinks={base.BRIDGE: _CARD})
        self.start({})
        self.assert_taken(_CARD)

    def test_takes_uplink_that_our_file_does_not_name(self):
        self.hold_guests(bridge_uplinks={base.BRIDGE: _CARD})
        self.start(self.OURS)
        self.assert_taken(_CARD)
        self.assertEqual({base.BRIDGE}, self.masters(self.taps))

    def test_reads_our_file_when_it_starts(self):
        self.hold_guests(bridge_uplinks={base.BRIDGE: _CARD})
        manager = self.start({})
        self.assert_taken(_CARD)
        patience.wait_until(
            lambda: set(self.taps) <= set(manager.states()),
            'NetworkManager does not look at all')
        manager.restart(self.WITH_UPLINK)
        self.wait(manager)
        self.assertEqual({(True, base.BRIDGE)}, self.states_of_taps())

    def states_of_taps(self):
        """Return whether they are up, and on which bridge."""
        return {(self.host.link(tap).up, self.host.master(tap))
                for tap in self.taps}

    def test_ends(self):
        self.hold_guests(bridge_uplinks={base.BRIDGE: _CARD})
        manager = self.start(self.WITH_UPLINK)
        self.wait(manager)
        manager.restart(self.WITH_UPLINK)
        self.wait(manager)
        self.assertEqual({'TM209'}, {
            each.code for each in audit.audit_links(
                inventory.read(self.options))})
        self.plug_again()
        self.assertEqual([], audit.audit_links(inventory.read(self.options)))

    #: A bridge of its own, with an address of the host.
    BRIDGE = {
        'system-connections/br100.nmconnection':
        '[connection]\nid=br100\ntype=bridge\ninterface-name=br100\n'
        'uuid=00000000-0000-4000-8000-000000000001\n'
        '[bridge]\nstp=false\nmac-address=%s\n'
        '[ipv4]\nmethod=manual\naddress1=192.0.2.7/24\n'
        '[ipv6]\nmethod=disabled\n' % _CARD_MAC,
        'system-connections/eth1.nmconnection':
        '[connection]\nid=eth1\ntype=ethernet\ninterface-name=eth1\n'
        'uuid=00000000-0000-4000-8000-000000000002\n'
        'master=br100\nslave-type=bridge\n'}

    def test_leaves_guests_on_its_bridge(self):
        files = dict(self.OURS, **self.BRIDGE)
        manager = self.start(files)
        patience.wait_until(
            lambda: self.host.master(_CARD) == base.BRIDGE,
            'NetworkManager does not make its bridge')
        self.hold_guests()
        self.wait(manager)
        for change in manager.restart, manager.reload:
            with self.nothing_lost():
                change(files)
                self.wait(manager)
        manager.command('device', 'reapply', base.BRIDGE)
        self.assertEqual({base.BRIDGE}, self.masters(self.taps))
        # That is what it does to its bridges, whoever manages their ports.
        manager.command('connection', 'up', base.BRIDGE)
        self.assert_taken(*self.taps)
