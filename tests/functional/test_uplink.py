# SPDX-License-Identifier: Apache-2.0

"""What connects a bridge with the wire: found, joined, refused and watched."""

import concurrent.futures
import multiprocessing

from os_vif import exception as os_vif_exception

from tests import base
from tests.functional import test_bridge
from tests import hosts
from tests import patience
from vif_plug_tapmac import exception
from vif_plug_tapmac.kernel import bridge
from vif_plug_tapmac.kernel import bridge_health
from vif_plug_tapmac.kernel import netlink as nl
from vif_plug_tapmac import mark

_UPLINK, _UPLINK_MAC = 'eth7', '5a:00:00:00:00:07'


class UplinkTestCase(base.FunctionalTestCase):

    def setUp(self):
        super().setUp()
        bridge_health._warned.clear()
        self.add_uplink()
        self.configure(bridge_uplinks={base.BRIDGE: _UPLINK})

    def add_uplink(self, name=_UPLINK, mac=_UPLINK_MAC, **attributes):
        self.host.add(name, 'veth', address=mac, peer=name + '-peer',
                      **attributes)
        self.host.quiet_ipv6(name)

    def assert_joined(self, name=_UPLINK, mtu=1500):
        link = self.host.link(name)
        self.assertEqual((base.BRIDGE, True, mtu),
                         (self.host.master(name), link.up, link.mtu))

    def assert_unusable(self, *words, **fields):
        """Expect a typed error with these words, and nothing changed."""
        self.assert_plug_fails(exception.UplinkUnusable, base.BRIDGE, *words,
                               **fields)


class MadeBridgeTest(UplinkTestCase):
    """A bridge that we make gets its uplink."""

    def test_joins(self):
        self.plug()
        self.assert_joined()
        self.assert_finished()
        made = self.host.link(base.BRIDGE)
        self.assertEqual((_UPLINK_MAC, mark.BRIDGE_MARK, 1500),
                         (made.mac, made.alias, made.mtu))

    @base.needs_locked_ports
    def test_alternative_name_that_is_too_long_for_a_name(self):
        self.host.set(_UPLINK, mtu=1400)
        for length in 16, 127:
            name = 'pci-0000.00.1f.6-'.ljust(length, 'x')[:length]
            self.host.ip.link('property_add', altname=name,
                              index=self.host.link(_UPLINK).index)
            self.configure(bridge_uplinks={base.BRIDGE: name})
            self.plug()
            self.assert_joined()
            link = self.host.link(base.TAP)
            self.assertEqual(self.host.link(_UPLINK).index, link.backup_port)
            # It was there before, and the same again.
            self.host.set(_UPLINK, master=0)
            self.plug()
            self.assert_joined()
            self.unplug()
            self.host.delete(base.BRIDGE)

    def test_mac_is_the_uplinks_for_good(self):
        self.plug()
        self.host.delete(_UPLINK)
        self.unplug()
        self.add_uplink('low', '00:00:00:00:00:01')
        self.host.set('low', master=self.host.link(base.BRIDGE).index)
        self.assertEqual(_UPLINK_MAC, self.host.link(base.BRIDGE).mac)

    def test_mtu_grows_before_it_joins(self):
        self.plug(base.make_vif(mtu=9000))
        self.assert_joined(mtu=9000)
        self.assertEqual(9000, self.host.link(base.BRIDGE).mtu)

    def test_mtu_never_shrinks(self):
        self.host.set(_UPLINK, mtu=9000)
        self.plug()
        self.assert_joined(mtu=9000)
        self.assertEqual(1500, self.host.link(base.BRIDGE).mtu)

    def test_without_one_there_is_one_warning(self):
        self.configure(bridge_uplinks={})
        for number in range(3):
            self.plug(base.numbered_vif(number))
        self.assertEqual(1, self.logs.output.count('has no uplink'))
        self.assert_logged('ip link set <uplink> master br100')

    def test_frames_get_to_the_wire_and_back(self):
        self.plug()
        wire = self.useFixture(hosts.Peer())
        self.host.ip.link('set', net_ns_fd=wire.namespace,
                          index=self.host.link(_UPLINK + '-peer').index)
        wire.configure(_UPLINK + '-peer', '192.0.2.2')
        self.host.ip.addr('add', index=self.host.link(base.BRIDGE).index,
                          address='192.0.2.1', prefixlen=24)
        self.host.wait_until_forwarding(_UPLINK)
        pinger = hosts.Pinger(wire, '192.0.2.1', interval=0.01)
        patience.wait_until(lambda: len(pinger.sent) > 10, 'nobody pings')
        pinger.stop()
        self.assertEqual(0, pinger.lost)


class UnfitTest(UplinkTestCase):
    """What cannot be an uplink is refused, and stays as it is."""

    def test_absent(self):
        self.configure(bridge_uplinks={base.BRIDGE: 'eth8'})
        self.assert_unusable('eth8', 'does not exist', 'bridge_uplinks')

    def test_absent_with_a_name_that_no_device_can_have(self):
        name = 'pci-0000.00.1f.6'
        self.configure(bridge_uplinks={base.BRIDGE: name})
        self.assert_unusable(name, 'does not exist', 'bridge_uplinks')
        self.host.ip.link('property_add', altname=name,
                          index=self.host.link(_UPLINK).index)
        self.configure(bridge_uplinks={base.BRIDGE: name + '.200'})
        self.assert_unusable(name + '.200', 'more than 15 characters',
                             'VLAN 200 of ' + name)

    def test_loopback(self):
        self.configure(bridge_uplinks={base.BRIDGE: 'lo'})
        self.assert_unusable('lo', 'the loopback device')

    def test_bridge(self):
        self.host.add('br7', 'bridge')
        self.configure(bridge_uplinks={base.BRIDGE: 'br7'})
        self.assert_unusable('br7', 'is a bridge')

    def test_port_of_another_bridge(self):
        self.host.add('br7', 'bridge')
        self.host.set(_UPLINK, master=self.host.link('br7').index)
        self.assert_unusable(_UPLINK, 'is a port of br7',
                             'ip link set eth7 nomaster')

    def test_tap_of_a_guest(self):
        self.configure(bridge_uplinks={})
        vif = base.numbered_vif(1, bridge_name='br7')
        self.plug(vif)
        self.host.set(vif.vif_name, master=0)
        self.configure(bridge_uplinks={base.BRIDGE: vif.vif_name})
        self.assert_unusable('is the TAP of a guest')

    def test_addresses(self):
        for number, (address, length) in enumerate((
                ('192.0.2.7', 24), ('2001:db8::7', 64))):
            name = 'up%d' % number
            self.add_uplink(name, '5a:00:00:00:00:1%d' % number)
            self.configure(bridge_uplinks={base.BRIDGE: name})
            # Where it is down the kernel has not checked it yet.
            for end in name, name + '-peer':
                self.host.quiet_ipv6(end)  # Nothing is to come later.
                self.host.set(end, state='up')
            self.host.ip.addr('add', index=self.host.link(name).index,
                              address=address, prefixlen=length,
                              ifa_flags=0x02)  # IFA_F_NODAD
            whole = '%s/%d' % (address, length)
            self.assert_unusable(
                'has the addresses %s' % whole, 'netplan',
                'interfaces: [%s]' % name, 'addresses: [%s]' % whole,
                'systemd-networkd', 'Bridge=%s' % base.BRIDGE,
                'Address=%s' % whole)

    def test_link_local_address_is_none(self):
        self.host.ip.addr('add', index=self.host.link(_UPLINK).index,
                          address='fe80::7', prefixlen=64, scope=253)
        self.plug()
        self.assert_joined()

    def test_one_name_for_all(self):
        self.configure(bridge_uplinks={base.BRIDGE: base.TAP})
        self.assert_plug_fails(exception.InvalidVif, 'have one name')


class RefusedByTheKernelTest(UplinkTestCase):
    """What the kernel takes for no port is refused at once, with the reason.

    It says so when the device joins; the bridge is made by then.
    """

    def setUp(self):
        super().setUp()
        # Nobody else is at work here: nothing is to be done twice.
        self.bridges = []
        create = nl.Netlink.create_bridge

        def count(*args):
            self.bridges.append(args)
            return create(*args)
        self.patch(nl.Netlink, 'create_bridge', count)

    def assert_refused(self, *words, **fields):
        self.assert_unusable(*words, **fields)
        self.assertLessEqual(len(self.bridges), 1)

    def add_on_uplink(self, name, kind, **attributes):
        self.host.add(name, kind, link=self.host.link(_UPLINK).index,
                      **attributes)
        self.host.quiet_ipv6(name)

    def test_macvlan_on_it(self):
        self.add_on_uplink('mv0', 'macvlan')
        self.assert_refused('EBUSY', 'mv0 (macvlan)', 'ip link delete mv0')

    def test_macvlan_on_it_and_a_larger_mtu(self):
        # The MTU is set first, and is as it was afterwards.
        self.add_on_uplink('mv0', 'macvtap')
        # It may be a guest's.
        self.assert_refused('EBUSY', 'mv0 (macvtap)', 'name another uplink, '
                            'or, if nobody uses it: "ip link delete mv0"',
                            vif=base.make_vif(mtu=9000))
        self.assertEqual(1500, self.host.link(_UPLINK).mtu)

    def test_device_without_ethernet(self):
        self.host.add_tap('tun7', flags=hosts.IFF_TUN)
        self.configure(bridge_uplinks={base.BRIDGE: 'tun7'})
        self.assert_refused('tun7', 'no Ethernet')

    def test_mtu_that_the_device_refuses(self):
        self.add_on_uplink('mv0', 'macvlan')
        self.configure(bridge_uplinks={base.BRIDGE: 'mv0'})
        self.assert_refused('mv0', 'MTU 9000', 'EINVAL',
                            vif=base.make_vif(mtu=9000))

    def test_device_that_can_not_be_brought_up(self):
        # A macvlan with the MAC of what it stands on.
        self.add_on_uplink('mv0', 'macvlan', address=_UPLINK_MAC)
        self.host.set(_UPLINK, mtu=9000, state='up')
        self.configure(bridge_uplinks={base.BRIDGE: 'mv0'})
        self.assert_refused('mv0', 'brought up', 'EADDRINUSE',
                            vif=base.make_vif(mtu=9000))

    def test_bridge_that_is_there_goes_on_without(self):
        self.plug()
        self.host.set(_UPLINK, master=0)
        self.add_on_uplink('mv0', 'macvlan')
        for number in range(1, 3):
            self.plug(base.numbered_vif(number))
        self.assert_finished('tap00000001', mac='fe:16:3e:00:00:01')
        self.assertEqual(1, self.logs.output.count('mv0 (macvlan)'))
        self.assertNotIn('has it again', self.logs.output)
        self.host.delete('mv0')
        self.plug()
        self.assert_joined()
        self.assert_logged('has it again')

    def test_idle_tap_that_something_stands_on(self):
        self.plug()
        self.host.set(base.TAP, master=0)
        self.host.add('mv0', 'macvlan', link=self.host.link(base.TAP).index)
        joins = []
        change = nl.Netlink.change

        def count(netlink, link, fields, step=None):
            joins.extend(field for field in fields if field == 'master')
            change(netlink, link, fields, step)
        self.patch(nl.Netlink, 'change', count)
        error = self.assertRaises(os_vif_exception.PlugException, self.plug)
        self.assertIn('EBUSY', str(error))
        self.assertIn('macvlan', str(error))
        self.assertEqual(1, len(joins))


class ConfigurationTest(UplinkTestCase):

    def test_wrong_names(self):
        for uplinks in ({base.BRIDGE: 'eth 7'}, {base.BRIDGE: ''},
                        {base.BRIDGE: 'x' * 128}, {'br%d': 'eth7'},
                        {'sixteencharacter': 'eth7'}):
            self.configure(bridge_uplinks=uplinks)
            self.assert_plug_fails(exception.InvalidConfig, 'bridge_uplinks',
                                   'can not be the name of a device')

    def test_one_uplink_of_two_bridges(self):
        self.configure(bridge_uplinks={base.BRIDGE: _UPLINK, 'br7': _UPLINK})
        self.assert_plug_fails(exception.InvalidConfig, 'br100 and br7')

    def test_wrong_pattern(self):
        for pattern in 'br', '{bridge}', '{vlan}', '{bridge}{bridge}{vlan}':
            self.configure(vlan_bridge=pattern)
            self.assert_plug_fails(exception.InvalidConfig, 'vlan_bridge')


class VifTest(UplinkTestCase):
    """A client that names the uplink itself."""

    def make_vif(self, uplink):
        vif = base.make_vif()
        vif.network.bridge_interface = uplink
        return vif

    def test_is_honoured(self):
        self.configure(bridge_uplinks={}, allowed_uplinks=['eth7'])
        self.plug(self.make_vif(_UPLINK))
        self.assert_joined()

    def test_none_and_empty_are_none(self):
        for number, uplink in enumerate((None, '')):
            vif = base.numbered_vif(number)
            vif.network.bridge_interface = uplink
            self.plug(vif)
        self.assert_joined()

    def test_same_as_in_the_configuration(self):
        self.plug(self.make_vif(_UPLINK))
        self.assert_joined()

    def test_another_than_in_the_configuration(self):
        self.assert_plug_fails(exception.InvalidVif, 'eth8', 'bridge_uplinks',
                               vif=self.make_vif('eth8'))

    def test_not_allowed(self):
        self.configure(bridge_uplinks={}, allowed_uplinks=['eth8', 'bond*'])
        self.assert_plug_fails(exception.InvalidConfig, 'allowed_uplinks',
                               'may not have the uplink eth7',
                               vif=self.make_vif(_UPLINK))


class ExistingBridgeTest(UplinkTestCase):

    def test_others_bridge_is_not_rewritten(self):
        # With the MAC that it would have if it were ours.
        before = self.host.add(base.BRIDGE, 'bridge', address=_UPLINK_MAC)
        uplink = self.host.link(_UPLINK)
        for number in range(2):
            self.plug(base.numbered_vif(number))
        self.assertEqual((before, uplink), (self.host.link(base.BRIDGE),
                                            self.host.link(_UPLINK)))
        self.assertEqual(1, self.logs.output.count(
            'Bridge br100 lacks its uplink eth7'))

    def test_uplink_comes_back(self):
        self.plug()
        self.host.delete(_UPLINK)
        self.add_uplink()
        self.plug()
        self.assert_joined()
        self.assert_logged('had lost its uplink eth7')

    def test_uplink_is_gone(self):
        # Guests reach each other still, so this is no reason to refuse.
        self.plug()
        self.host.delete(_UPLINK)
        self.plug(base.numbered_vif(1))
        self.assert_finished('tap00000001', mac='fe:16:3e:00:00:01')
        self.assert_logged('lacks its uplink eth7', 'does not exist')

    def test_another_uplink_may_close_a_loop(self):
        self.plug()
        self.add_uplink('eth8', '5a:00:00:00:00:08')
        self.configure(bridge_uplinks={base.BRIDGE: 'eth8'})
        self.plug(base.numbered_vif(1))
        self.assertIsNone(self.host.link('eth8').master)
        self.assert_logged('lacks its uplink eth8',
                           'ip link set eth8 master br100')

    def test_smaller_mtu_than_the_networks_is_warned_about_once(self):
        self.plug()
        for number in range(1, 3):
            self.plug(base.numbered_vif(number, mtu=9000))
        self.assertEqual(1, self.logs.output.count(
            'Bridge br100 has MTU 1500, and the network of tap00000001 has '
            '9000'))

    def test_running_guest_does_not_notice(self):
        self.plug()
        with hosts.Guest(base.TAP, base.GUEST_MAC):
            before = self.host.link(base.TAP)
            self.configure(bridge_uplinks={base.BRIDGE: 'lo'})
            self.plug()
            self.assertEqual(before, self.host.link(base.TAP))


class HalfMadeTest(UplinkTestCase):

    def test_next_plug_finishes_it(self):
        port = base.make_port(uplink=_UPLINK, mtu=9000)
        died = 0
        while test_bridge.make_and_die(port, died + 1):
            died += 1
            self.assertIsNone(self.host.link(base.BRIDGE).alias)
            self.plug(base.make_vif(mtu=9000))
            self.assert_joined(mtu=9000)
            self.assertEqual((mark.BRIDGE_MARK, _UPLINK_MAC),
                             (self.host.link(base.BRIDGE).alias,
                              self.host.link(base.BRIDGE).mac))
            for name in base.TAP, base.BRIDGE, _UPLINK:
                self.host.delete(name)
            self.add_uplink()
        # Three sysctls, MTU, up; of the uplink MTU, master, up; alias.
        self.assertEqual(9, died)


class ConcurrencyTest(UplinkTestCase):
    """64 first plugs on 8 bridges, all at once."""

    def setUp(self):
        super().setUp()
        self.bridges = ['br%d' % number for number in range(8)]
        self.configure(bridge_uplinks={
            name: 'up%d' % number
            for number, name in enumerate(self.bridges)})
        for number in range(8):
            self.add_uplink('up%d' % number, '5a:00:00:00:01:%02x' % number)
        self.vifs = [base.numbered_vif(
            number, bridge_name=self.bridges[number % 8])
            for number in range(64)]

    def assert_all_plugged(self):
        for number, vif in enumerate(self.vifs):
            self.assert_finished(vif.vif_name, master=vif.bridge_name,
                                 mac='fe:16:3e:00:00:%02x' % number)
        for number, name in enumerate(self.bridges):
            self.assertEqual(name, self.host.master('up%d' % number))
            self.assertEqual('5a:00:00:00:01:%02x' % number,
                             self.host.link(name).mac)
        self.assertEqual(
            8, sum(1 for link in self.host.links() if link.kind == 'bridge'))

    def test_threads(self):
        with concurrent.futures.ThreadPoolExecutor(64) as executor:
            for future in [executor.submit(self.plug, vif)
                           for vif in self.vifs]:
                future.result()
        self.assert_all_plugged()

    def test_processes(self):
        fork = multiprocessing.get_context('fork')
        start = fork.Barrier(len(self.vifs))

        def plug(vif):
            start.wait()
            self.plug(vif)

        processes = [fork.Process(target=plug, args=(vif,))
                     for vif in self.vifs]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        self.assertEqual({0}, {process.exitcode for process in processes})
        self.assert_all_plugged()


class VlanNameTest(UplinkTestCase):
    """What is said of VLANs before the kernel is asked."""

    def test_by_the_name_of_the_bridge(self):
        self.add_uplink('eth7.200', '5a:00:00:00:00:20')
        self.plug(base.make_vif(bridge_name='br100-200'))
        self.assertEqual('br100-200', self.host.master('eth7.200'))
        self.assertIsNone(self.host.link(_UPLINK).master)

    def test_by_another_pattern(self):
        self.configure(vlan_bridge='v{vlan}.{bridge}')
        self.add_uplink('eth7.4094', '5a:00:00:00:00:20')
        self.plug(base.make_vif(bridge_name='v4094.br100'))
        self.assertEqual('v4094.br100', self.host.master('eth7.4094'))

    def test_own_entry_comes_first(self):
        self.add_uplink('eth8', '5a:00:00:00:00:08')
        self.configure(bridge_uplinks={base.BRIDGE: _UPLINK,
                                       'br100-200': 'eth8'})
        self.plug(base.make_vif(bridge_name='br100-200'))
        self.assertEqual('br100-200', self.host.master('eth8'))

    def test_numbers_that_no_vlan_has(self):
        for number, name in enumerate(
                ('br100-0', 'br100-4095', 'br100-01', 'br100-2x', 'br100-')):
            self.plug(base.numbered_vif(number, bridge_name=name))
        self.assertIsNone(self.host.link(_UPLINK).master)
        self.assertEqual(5, self.logs.output.count('has no uplink'))

    def test_no_parent(self):
        self.configure(bridge_uplinks={base.BRIDGE: 'eth8.200'})
        self.assert_unusable('eth8.200', 'there is no eth8')

    def test_not_a_vlan(self):
        for name in 'eth7.0', 'eth7.4095', 'eth7.x', 'eth7.':
            self.configure(bridge_uplinks={base.BRIDGE: name})
            self.assert_unusable(name + ' ', 'does not exist')

    def test_parent_with_a_smaller_mtu(self):
        self.configure(bridge_uplinks={base.BRIDGE: 'eth7.200'})
        self.assert_unusable('MTU 9000', 'eth7 has 1500',
                             vif=base.make_vif(mtu=9000))

    def test_kernel_without_vlans(self):
        if hosts.kernel_knows_vlans():
            self.skipTest('this kernel has 802.1Q')
        self.configure(bridge_uplinks={base.BRIDGE: 'eth7.200'})
        self.assert_plug_fails(exception.KernelRefused, 'eth7.200',
                               'VLAN 200 on eth7', 'EOPNOTSUPP',
                               'modprobe 8021q')


class VlanTest(UplinkTestCase):

    def setUp(self):
        super().setUp()
        if not hosts.kernel_knows_vlans():
            self.skipTest(hosts.NO_VLANS)
        self.configure(bridge_uplinks={base.BRIDGE: 'eth7.200'})

    def test_is_made(self):
        self.plug()
        self.assert_joined('eth7.200')
        self.assertEqual('vlan', self.host.link('eth7.200').kind)
        self.assertEqual(_UPLINK_MAC, self.host.link(base.BRIDGE).mac)

    def test_is_gone_after_a_failure(self):
        def fail(*args):
            raise exception.VerifyFailed(device='x', differences='y')
        self.patch(bridge, '_finish', fail)
        self.assert_plug_fails(exception.VerifyFailed)

    def test_at_once(self):
        vifs = [base.numbered_vif(number) for number in range(16)]
        with concurrent.futures.ThreadPoolExecutor(16) as executor:
            for future in [executor.submit(self.plug, vif) for vif in vifs]:
                future.result()
        self.assert_joined('eth7.200')
