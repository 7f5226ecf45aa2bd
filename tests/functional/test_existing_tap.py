# SPDX-License-Identifier: Apache-2.0

"""Plug of a TAP that exists: each cell of the table in the design.

Columns: held (a guest has it open: carrier) and idle. A held TAP is never
replaced, and never makes plug fail unless it is another VIF's.
"""

import dataclasses

import os_vif

from tests import base
from tests import hosts
from vif_plug_tapmac import exception
from vif_plug_tapmac import mark

_MULTI_QUEUE = hosts.IFF_TAP | hosts.IFF_MULTI_QUEUE


class Ours(base.FunctionalTestCase):
    """The TAP carries our mark for this VIF."""

    def setUp(self):
        super().setUp()
        self.plug()
        self.made = self.host.link(base.TAP)

    def hold(self, flags=hosts.IFF_TAP):
        guest = hosts.Guest(base.TAP, base.GUEST_MAC, flags)
        self.addCleanup(guest.close)
        return guest

    def assert_same_tap(self):
        self.assertEqual(self.made.index, self.host.link(base.TAP).index)

    def assert_made_anew(self):
        self.assertNotEqual(self.made.index, self.host.link(base.TAP).index)

    def spoil(self):
        self.host.set(base.TAP, state='down', master=0)
        self.host.set(base.TAP, address='02:00:00:00:00:99', group=0)

    def test_right_held_is_untouched(self):
        guest = self.hold()
        before = self.host.state()
        self.plug()
        self.assertEqual(before, self.host.state())
        guest.send(hosts.BROADCAST, b'still here')

    def test_spoiled_held_is_mended(self):
        self.hold()
        self.spoil()
        self.plug()
        self.assert_finished()
        self.assert_same_tap()

    def test_spoiled_idle_is_mended(self):
        self.spoil()
        self.plug()
        self.assert_finished()
        self.assert_same_tap()

    def test_addresses_go_when_it_joins_again(self):
        self.hold()
        self.host.set(base.TAP, state='down', master=0)
        self.host.set(base.TAP, **hosts.addr_gen_mode(0))
        self.host.set(base.TAP, state='up')
        self.assertEqual(1, len(self.host.addresses(base.TAP)))
        self.plug()
        self.assert_finished()
        self.assert_same_tap()

    def test_deleted_bridge_held_is_made_and_joined(self):
        self.hold()
        self.host.delete(base.BRIDGE)
        self.plug()
        self.assert_finished()
        self.assert_same_tap()

    def test_missing_bridge_held_is_no_error(self):
        self.hold()
        self.host.delete(base.BRIDGE)
        self.configure(create_bridge=False)
        before = self.host.state()
        self.plug()
        self.assertEqual(before, self.host.state())
        self.assert_logged('could not be mended', base.BRIDGE)

    def test_missing_bridge_idle_is_an_error(self):
        self.host.delete(base.BRIDGE)
        self.configure(create_bridge=False)
        self.assert_plug_fails(exception.BridgeNotFound, base.BRIDGE)

    def test_mtu_held_goes_up(self):
        self.hold()
        self.plug(base.make_vif(mtu=9000))
        self.assert_finished(mtu=9000)
        self.assert_same_tap()

    def test_mtu_held_never_goes_down(self):
        self.hold()
        self.plug(base.make_vif(mtu=1400))
        self.assert_finished(mtu=1500)
        self.assert_logged('keeps MTU 1500', '1400')

    def test_mtu_idle_goes_either_way(self):
        for mtu in (9000, 1400):
            self.plug(base.make_vif(mtu=mtu))
            self.assert_finished(mtu=mtu)
        self.assert_same_tap()

    def test_mtu_idle_across_the_least_of_ipv6(self):
        # Below 1280 the kernel forgets addr_gen_mode; above, it has to be
        # set again before the link has a carrier.
        for mtu in (1279, 1500, 1280):
            self.plug(base.make_vif(mtu=mtu))
            with hosts.Guest(base.TAP):
                self.assert_finished(mtu=mtu)
        self.assert_same_tap()

    def test_other_mac_of_the_port(self):
        self.plug(base.make_vif(address='fa:16:3e:00:00:77'))
        self.assert_finished(mac='fe:16:3e:00:00:77')
        self.assertIn('fa:16:3e:00:00:77', self.host.link(base.TAP).alias)
        self.assert_same_tap()

    def rename_bridge(self):
        self.host.rename(base.BRIDGE, 'br-new')
        return base.make_vif(bridge_name='br-new')

    def assert_plugged_into(self, bridge):
        """Expect the same TAP there, and its mark to say so."""
        self.assert_finished(master=bridge)
        self.assert_same_tap()
        before = mark.TapMark.parse(self.made.alias)
        self.assertEqual(
            dataclasses.replace(before, bridge=bridge),
            mark.TapMark.parse(self.host.link(base.TAP).alias))

    def test_bridge_with_another_name_held(self):
        self.hold()
        self.plug(self.rename_bridge())
        self.assert_plugged_into('br-new')

    def test_bridge_with_another_name_idle(self):
        self.plug(self.rename_bridge())
        self.assert_plugged_into('br-new')

    def test_other_bridge_after_it_lost_its_own(self):
        self.hold()
        self.host.set(base.TAP, master=0)
        self.plug(base.make_vif(bridge_name='br200'))
        self.assert_plugged_into('br200')

    def assert_held_stays_with_error(self, *words, vif=None):
        before = self.host.state()
        self.plug(vif)
        self.assertEqual(before, self.host.state())
        self.assert_logged('used by a guest, and wrong', 'Remedy', *words)

    def test_wrong_bridge_held(self):
        self.hold()
        self.assert_held_stays_with_error(
            'is on br100 and should be on br200',
            vif=base.make_vif(bridge_name='br200'))

    def test_wrong_bridge_idle(self):
        self.plug(base.make_vif(bridge_name='br200'))
        self.assert_finished(master='br200')
        self.assert_made_anew()

    def test_wrong_queue_mode_held(self):
        self.hold()
        self.configure(multiqueue=True)
        self.assert_held_stays_with_error('multi_queue is False')

    def test_wrong_queue_mode_idle(self):
        self.configure(multiqueue=True)
        self.plug()
        self.assert_finished(multi_queue=True)
        self.assert_made_anew()
        self.configure(multiqueue=False)
        self.plug()
        self.assert_finished()

    def test_wrong_owner_held(self):
        self.hold()
        self.configure(owner='nobody')
        self.assert_held_stays_with_error('owner is 0 and should be 65534')

    @base.needs_real_root(base.SEVERAL_USERS)
    def test_wrong_owner_idle(self):
        self.configure(owner='nobody')
        self.plug()
        self.assert_finished(owner=65534)
        self.assert_made_anew()

    def test_multi_queue_held_is_never_opened(self):
        # A second queue would take half of the guest's frames.
        self.configure(multiqueue=True)
        self.plug()
        self.made = self.host.link(base.TAP)
        self.hold(_MULTI_QUEUE)
        self.host.set(base.TAP, state='down')
        self.plug()
        self.assert_finished(multi_queue=True)
        self.assertEqual(1, self.host.link(base.TAP).queues)
        self.assert_same_tap()

    def test_multi_queue_held_by_one_who_hides_the_carrier(self):
        self.configure(multiqueue=True)
        self.plug()
        self.made = self.host.link(base.TAP)
        self.hold(_MULTI_QUEUE).fake_carrier(False)
        self.assertFalse(self.host.link(base.TAP).carrier)
        self.configure(multiqueue=False)
        self.assert_held_stays_with_error('multi_queue is True')


class Renamed(base.FunctionalTestCase):
    """The TAP carries our mark for this VIF, and somebody renamed it."""

    def setUp(self):
        super().setUp()
        self.plug()
        self.host.rename(base.TAP, 'x')

    @base.needs_locked_ports
    def test_held(self):
        with hosts.Guest('x') as guest:
            self.host.set('x', state='up')
            before = self.host.state()
            self.plug()
            self.assertEqual(before, self.host.state())
            self.assert_logged('under another name, x', 'Remedy')
            # The bridge still sends to the guest what is for it.
            self.plug(base.numbered_vif(1))
            with hosts.Guest('tap00000001', 'fa:16:3e:00:00:01') as other:
                guest.mac = base.GUEST_MAC
                other.send(base.GUEST_MAC, b'hello')
                self.assertTrue(guest.receive(b'hello'))

    def test_idle(self):
        self.plug()
        self.assert_finished()
        self.assertIsNotNone(self.host.find('x'))


class MarkLost(base.FunctionalTestCase):
    """Somebody else wrote the alias of a TAP that is in our link group."""

    def setUp(self):
        super().setUp()
        self.plug()
        self.mark = mark.TapMark.parse(self.host.link(base.TAP).alias)

    def lose_mark(self):
        """Yield after each way to lose it."""
        for alias in ('', 'rack 7\nport 3', str(self.mark)[:-11],
                      'tapmac:1:' + 'x' * 200):
            self.host.set(base.TAP, ifalias=alias)
            yield alias

    def assert_marked_again(self):
        self.assert_finished()
        found = mark.TapMark.parse(self.host.link(base.TAP).alias)
        self.assertEqual(self.mark, dataclasses.replace(
            found, made=self.mark.made))
        self.assertLessEqual(self.mark.made, found.made)

    def test_held(self):
        index = self.host.link(base.TAP).index
        with hosts.Guest(base.TAP, base.GUEST_MAC) as guest:
            for alias in self.lose_mark():
                self.plug()
                self.assert_marked_again()
                self.assert_logged('had lost the mark', repr(alias))
            guest.send(hosts.BROADCAST, b'still here')
        self.assertEqual(index, self.host.link(base.TAP).index)

    def test_held_is_mended_besides(self):
        with hosts.Guest(base.TAP):
            self.host.set(base.TAP, ifalias='')
            self.host.set(base.TAP, address='02:00:00:00:00:99', master=0)
            self.plug()
            self.assert_marked_again()

    def test_held_on_wrong_bridge(self):
        self.host.set(base.TAP, ifalias='')
        with hosts.Guest(base.TAP):
            before = self.host.state()
            self.plug(base.make_vif(bridge_name='br200'))
            self.assertEqual(before, self.host.state())
        self.assert_logged('is on br100 and should be on br200')

    def test_idle(self):
        for _ in self.lose_mark():
            self.plug()
            self.assert_marked_again()

    def test_idle_where_libvirt_makes_taps(self):
        self.configure(claim_plugins=['linux_bridge'])
        os_vif.initialize(reset=True)
        self.addCleanup(os_vif.initialize, reset=True)
        self.addCleanup(self.configure, claim_plugins=[])
        self.host.set(base.TAP, ifalias='')
        self.plug(base.make_vif(plugin='linux_bridge'))
        self.assert_marked_again()

    def test_held_by_a_guest_whose_tap_somebody_else_made(self):
        self.unplug()
        self.host.add_tap(base.TAP)
        self.host.quiet_ipv6(base.TAP)
        self.host.set(base.TAP, group=29793)
        with hosts.Guest(base.TAP):
            self.plug()
            self.assert_finished(owner=None)
            self.assertIsNotNone(mark.TapMark.parse(
                self.host.link(base.TAP).alias))

    def test_other_name_than_novas(self):
        vif = base.make_vif(vif_name='vnet0')
        self.plug(vif)
        self.host.set('vnet0', ifalias='')
        self.assert_plug_fails(exception.DeviceConflict, 'vnet0', vif=vif)


class OthersVif(base.FunctionalTestCase):
    """The TAP carries our mark, but for another VIF."""

    def setUp(self):
        super().setUp()
        self.other = base.numbered_vif(1, vif_name=base.TAP)
        self.plug(self.other)

    def assert_refused(self):
        self.assert_plug_fails(exception.DeviceConflict, base.TAP,
                               self.other.id)

    def test_held(self):
        with hosts.Guest(base.TAP):
            self.assert_refused()

    def test_held_with_several_queues(self):
        # The second guest would open a queue, and hear what is the first's.
        self.unplug(self.other)
        self.configure(multiqueue=True)
        self.plug(self.other)
        with hosts.Guest(base.TAP, flags=_MULTI_QUEUE) as guest:
            self.assert_refused()
            guest.fake_carrier(False)
            self.assert_refused()

    def test_idle(self):
        self.assert_refused()


class UnmarkedWithNovasName(base.FunctionalTestCase):
    """A TAP that tapmac did not make, with Nova's name for this VIF."""

    def setUp(self):
        super().setUp()
        self.made = self.host.add_tap(base.TAP)

    def assert_mended_but_not_marked(self, **expected):
        self.assert_finished(**dict(
            {'group': 0, 'owner': None, 'persistent': True}, **expected))
        link = self.host.link(base.TAP)
        self.assertEqual(self.made.index, link.index)
        self.assertIsNone(link.alias)

    def test_held_is_mended_but_not_marked(self):
        # Silence comes with our mark only, so keep IPv6 quiet ourselves.
        self.host.quiet_ipv6(base.TAP)
        with hosts.Guest(base.TAP):
            self.plug()
            self.assert_mended_but_not_marked()

    def test_held_mtu_goes_up_only(self):
        self.host.quiet_ipv6(base.TAP)
        with hosts.Guest(base.TAP):
            self.plug(base.make_vif(mtu=9000))
            self.assert_mended_but_not_marked(mtu=9000)
            self.plug()
            self.assert_mended_but_not_marked(mtu=9000)

    def test_held_on_wrong_bridge(self):
        other = self.host.add('br200', 'bridge')
        self.host.set(base.TAP, master=other.index)
        with hosts.Guest(base.TAP):
            before = self.host.state()
            self.plug()
            self.assertEqual(before, self.host.state())
        self.assert_logged('is on br200 and should be on br100', 'Remedy')

    @base.needs_real_root(base.SEVERAL_USERS)
    def test_held_with_any_queue_mode_and_owner(self):
        self.host.delete(base.TAP)
        self.made = self.host.add_tap(base.TAP, _MULTI_QUEUE, owner=65534)
        self.host.quiet_ipv6(base.TAP)
        with hosts.Guest(base.TAP, flags=_MULTI_QUEUE):
            self.plug()
            self.assert_mended_but_not_marked(multi_queue=True, owner=65534)

    def test_idle(self):
        self.plug()
        self.assert_finished()
        self.assertNotEqual(self.made.index, self.host.link(base.TAP).index)


class UnmarkedWithOtherName(base.FunctionalTestCase):
    """A TAP that tapmac did not make, with any other name.

    Nothing tells that it is this VIF's, so whoever may name VIFs could have
    any TAP of the host changed or put on a bridge.
    """

    def setUp(self):
        super().setUp()
        self.host.add_tap('vnet0')
        self.vif = base.make_vif(vif_name='vnet0')

    def test_held(self):
        with hosts.Guest('vnet0'):
            before = self.host.state()
            self.plug(self.vif)
            self.assertEqual(before, self.host.state())
        self.assert_logged('vnet0 is used by somebody', base.TAP, 'Remedy')

    def test_idle(self):
        self.assert_plug_fails(exception.DeviceConflict, 'vnet0',
                               'ip link delete vnet0', vif=self.vif)


class AnythingElse(base.FunctionalTestCase):
    """The name is not that of a TAP: refused, held or not."""

    def test_other_kinds(self):
        for kind, make in {
                'bridge': lambda: self.host.add(base.TAP, 'bridge'),
                'veth': lambda: self.host.add(base.TAP, 'veth', peer='p'),
                'macvlan': lambda: self.host.add(
                    base.TAP, 'macvlan', link=self.host.add('v', 'veth').index,
                    macvlan_mode='bridge'),
                'tun': lambda: self.host.add_tap(base.TAP, hosts.IFF_TUN),
        }.items():
            make()
            self.assert_plug_fails(exception.DeviceConflict, base.TAP, kind)
            self.host.delete(base.TAP)

    def test_tun_that_is_held(self):
        with hosts.Guest(base.TAP, flags=hosts.IFF_TUN):
            self.assert_plug_fails(exception.DeviceConflict, base.TAP, 'tun')

    def test_loopback(self):
        self.assert_plug_fails(exception.DeviceConflict, 'lo',
                               vif=base.make_vif(vif_name='lo'))

    def test_altname(self):
        self.host.add('eth7', 'veth', peer='p')
        self.host.ip.link('property_add', altname=base.TAP,
                          index=self.host.link('eth7').index)
        self.assert_plug_fails(exception.DeviceConflict, base.TAP,
                               'alternative name of eth7')

    def test_altname_of_a_held_tap_of_ours(self):
        other = base.numbered_vif(1)
        self.plug(other)
        self.host.ip.link('property_add', altname=base.TAP,
                          index=self.host.link(other.vif_name).index)
        with hosts.Guest(other.vif_name):
            self.assert_plug_fails(exception.DeviceConflict, base.TAP,
                                   'alternative name of ' + other.vif_name)
