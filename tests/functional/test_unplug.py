# SPDX-License-Identifier: Apache-2.0

"""Unplug: what goes, and what stays."""

import gc
import os

from os_vif import exception as os_vif_exception

from tests import base
from tests import hosts
from vif_plug_tapmac.kernel import netlink as nl


class UnplugTest(base.FunctionalTestCase):

    def test_leaves_nothing_but_the_bridge(self):
        self.plug(base.numbered_vif(1))
        self.unplug(base.numbered_vif(1))
        before = self.host.state()
        self.plug()
        self.unplug()
        self.assertIsNone(self.host.find(base.TAP))
        self.assertEqual(before, self.host.state())

    def test_leaves_no_descriptor_open(self):
        # The privileged daemon lives for months.
        def live():
            self.plug()
            self.assertRaises(os_vif_exception.PlugException, self.plug,
                              base.make_vif(vif_name='lo'))
            self.unplug()
        live()  # What is opened once may stay.
        gc.collect()  # What other tests have left goes.
        before = os.listdir('/proc/self/fd')
        for _ in range(5):
            live()
        self.assertEqual(before, os.listdir('/proc/self/fd'))

    def test_absent_is_success(self):
        before = self.host.state()
        self.unplug()
        self.assertEqual(before, self.host.state())

    def test_twice(self):
        self.plug()
        self.unplug()
        self.unplug()
        self.assertIsNone(self.host.find(base.TAP))

    def test_vanishes_between_our_look_and_our_deletion(self):
        self.plug()
        gone = self.host.link(base.TAP)
        self.host.delete(base.TAP)
        self.patch(nl.Netlink, 'find', lambda netlink, name: gone)
        self.unplug()

    def test_after_the_bridge_was_deleted(self):
        self.plug()
        self.host.delete(base.BRIDGE)
        self.unplug()
        self.assertIsNone(self.host.find(base.TAP))

    def test_after_the_link_group_option_changed(self):
        self.plug()
        self.configure(link_group=7)
        self.unplug()
        self.assertIsNone(self.host.find(base.TAP))

    def test_held_tap_goes_with_a_warning(self):
        self.plug()
        with hosts.Guest(base.TAP):
            self.unplug()
        self.assertIsNone(self.host.find(base.TAP))
        self.assert_logged(base.TAP, 'removed while a guest still holds it')

    def _assert_stays(self, *words, vif=None):
        before = self.host.state()
        self.unplug(vif)
        self.assertEqual(before, self.host.state())
        self.assert_logged(*words)

    def test_unmarked_tap_stays(self):
        self.host.add_tap(base.TAP)
        self._assert_stays(base.TAP, 'does not carry the mark of tapmac')

    def test_tap_that_lost_its_mark_goes(self):
        for alias in '', 'rack 7':
            self.plug()
            self.host.set(base.TAP, ifalias=alias)
            self.unplug()
            self.assertIsNone(self.host.find(base.TAP))

    def test_tap_that_lost_its_mark_stays_if_it_may_be_anothers(self):
        for change in {'group': 0}, {'ifname': 'vnet0'}:
            self.plug()
            self.host.set(base.TAP, ifalias='', state='down')
            name = change.get('ifname', base.TAP)
            self.host.ip.link('set', index=self.host.link(base.TAP).index,
                              **change)
            self._assert_stays(name, 'does not carry the mark of tapmac',
                               vif=base.make_vif(vif_name=name))
            self.host.delete(name)

    def test_tap_that_lost_its_mark_stays_for_another_vif(self):
        self.plug()
        self.host.set(base.TAP, ifalias='')
        self._assert_stays(
            base.TAP, 'does not carry the mark of tapmac',
            vif=base.numbered_vif(2, vif_name=base.TAP))

    def test_tap_of_another_vif_stays(self):
        self.plug()
        self._assert_stays(
            base.TAP, 'does not carry the mark of tapmac',
            vif=base.numbered_vif(2, vif_name=base.TAP))

    def test_other_kinds_stay_even_with_our_mark(self):
        self.plug()
        alias = self.host.link(base.TAP).alias
        self.unplug()
        for kind, make in {
                'bridge': lambda: self.host.add(base.TAP, 'bridge'),
                'veth': lambda: self.host.add(base.TAP, 'veth', peer='p'),
                'tun': lambda: self.host.add_tap(base.TAP, hosts.IFF_TUN),
        }.items():
            make()
            self.host.set(base.TAP, ifalias=alias)
            self._assert_stays(base.TAP)
            self.host.delete(base.TAP)

    def test_altname_of_another_tap_stays(self):
        self.plug()
        self.host.ip.link('property_add', altname='tapother',
                          index=self.host.link(base.TAP).index)
        self._assert_stays('alternative name of ' + base.TAP,
                           vif=base.make_vif(vif_name='tapother'))
