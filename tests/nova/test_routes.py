# SPDX-License-Identifier: Apache-2.0

"""The ways by which a port gets from Nova to a TAP on a Linux bridge.

For each: what the domain XML asks libvirt for, and what is on the host.
"""

import dataclasses
import unittest

from nova import exception
from nova.network import os_vif_util
import os_vif

from tests import base
from tests import compatibility
from tests import hosts
from tests.nova import base as nova_base
from vif_plug_tapmac import exception as tapmac_exception
from vif_plug_tapmac.wanted import from_vif

#: What quota:vif_* in a flavor is in the domain XML.
BANDWIDTH = {
    'inbound': {'average': '1024', 'peak': '2048', 'burst': '512'},
    'outbound': {'average': '256', 'peak': '300', 'burst': '128'}}


class _AnyRouteTest(nova_base.NovaTestCase):
    """What holds whoever makes the TAP."""

    def test_bandwidth_limits_are_in_the_xml(self):
        self.instance = nova_base.make_instance(**{
            'quota__vif_%s_%s' % (direction, key): value
            for direction, limits in BANDWIDTH.items()
            for key, value in limits.items()})
        self.assertEqual(BANDWIDTH, {
            limit.tag: dict(limit.attrib)
            for limit in self.xml().find('bandwidth')})


class _ClaimedRouteTest(_AnyRouteTest):
    """What holds on every route that ends with us."""

    def assert_nova_fails(self, *words):
        """Expect our message as it is, and the host as it was."""
        before = self.host.state()
        raised = self.assertRaises(exception.InternalError, self.plug)
        ours = raised.__context__.kwargs['err']
        self.assertIsInstance(ours, tapmac_exception.TapMacError)
        self.assertEqual(1, str(raised).count(str(ours)), raised)
        for word in (base.TAP, *words):
            self.assertIn(word, str(ours))
        self.assertEqual(before, self.host.state())

    def boot(self, **attributes):
        """Make the TAP as libvirt does, and hold it as a guest does."""
        self.host.add_tap(base.TAP)
        self.host.quiet_ipv6(base.TAP)
        self.host.set(base.TAP, **dict(
            {'address': base.TAP_MAC, 'mtu': 1450, 'state': 'up',
             'master': self.host.link(base.BRIDGE).index}, **attributes))
        guest = hosts.Guest(base.TAP)
        self.addCleanup(guest.close)
        return guest

    def assert_libvirts(self, **expected):
        """Expect the TAP as libvirt makes it, and without our mark."""
        self.assert_finished(**dict(
            {'mtu': 1450, 'group': 0, 'owner': None}, **expected))
        self.assertIsNone(self.host.link(base.TAP).alias)

    def assert_plugs(self):
        self.plug()
        self.assert_bridge_is_ours()

    def test_name_of_the_tap_is_taken(self):
        self.host.add(base.TAP, 'veth', peer='veth0')
        self.assert_nova_fails('The operator must resolve this', 'veth')
        self.host.delete(base.TAP)
        self.assert_plugs()

    def test_name_of_the_bridge_is_taken(self):
        self.host.add(base.BRIDGE, 'ifb')
        self.assert_nova_fails('The operator must resolve this', base.BRIDGE,
                               'ifb')
        self.host.delete(base.BRIDGE)
        self.assert_plugs()

    def test_bridge_is_missing(self):
        self.configure(create_bridge=False)
        self.assert_nova_fails('The operator must create the bridge',
                               'bridge br100 does not exist')
        self.configure(create_bridge=True)
        self.assert_plugs()


class _OurTapTest(_ClaimedRouteTest):
    """What holds on every route on which we make the TAP."""

    def test_comes_and_goes(self):
        self.assert_comes_and_goes()

    def assert_comes_and_goes(self, **expected):
        """Expect that plug makes the TAP, and unplug removes it; twice."""
        self.assert_libvirt_finds_the_tap()
        for _ in range(2):
            for _ in range(2):
                self.plug()
                self.assert_finished(mtu=1450, **expected)
                self.assert_bridge_is_ours()
            for _ in range(2):
                self.unplug()
                self.assertIsNone(self.host.find(base.TAP))
        self.assert_bridge_is_ours()

    def assert_queues(self, queues):
        """Expect this number in the XML, and a TAP that goes with it."""
        self.assertEqual(queues, self.queues())
        self.assert_comes_and_goes(multi_queue=(queues or 1) > 1)

    def test_several_queues(self):
        self.instance = nova_base.make_multiqueue_instance()
        self.assert_queues(4)

    def test_queues_are_capped(self):
        self.config.config(group='libvirt', max_queues=2)
        self.instance = nova_base.make_multiqueue_instance()
        self.assert_queues(2)

    def test_one_vcpu_needs_one_queue(self):
        self.instance = nova_base.make_multiqueue_instance(vcpus=1)
        self.assert_queues(None)

    def test_several_vcpus_without_multiqueue(self):
        self.instance = nova_base.make_instance(vcpus=4)
        self.assert_queues(None)

    def test_image_asks_for_queues(self):
        self.instance = nova_base.make_instance(vcpus=3)
        self.instance.system_metadata = {
            'image_hw_vif_multiqueue_enabled': 'true'}
        self.assert_queues(3)

    def test_another_guest_has_another_queue_mode(self):
        single, multi = (nova_base.make_instance(),
                         nova_base.make_multiqueue_instance())
        for self.instance in single, multi, single:
            self.plug()
            self.assert_finished(
                mtu=1450, multi_queue=self.instance is multi)

    def test_option_multiqueue_has_no_say(self):
        self.configure(multiqueue=True)
        self.assert_queues(None)


class LibvirtsTapTest(_ClaimedRouteTest):
    """Binding type bridge: libvirt makes the TAP on a bridge of ours."""

    OPTIONS = {'claim_plugins': ['linux_bridge']}

    def test_makes_the_bridge_only(self):
        self.assert_libvirt_makes_the_tap()
        self.plug()
        self.assert_bridge_is_ours()
        self.assertIsNone(self.host.find(base.TAP))

    def test_takes_a_running_guest_for_what_it_is(self):
        self.plug()
        self.boot()
        before = self.host.link(base.TAP)
        self.plug()
        # It is kept to its MAC from now on, and else the same.
        self.assertEqual(
            dataclasses.replace(before, learning=False, locked=True),
            self.host.link(base.TAP))
        self.assert_libvirts()

    def test_mends_a_running_guest(self):
        self.plug()
        self.boot(address=base.GUEST_MAC, state='down', mtu=1400)
        self.plug()
        self.assert_libvirts()

    def test_mends_what_libvirt_left(self):
        self.plug()
        self.boot(address=base.GUEST_MAC, state='down').close()
        self.plug()
        self.assert_libvirts()

    def test_unplug_leaves_the_tap_to_libvirt(self):
        self.plug()
        guest = self.boot()
        before = self.host.link(base.TAP)
        self.unplug()
        self.assertEqual(before, self.host.link(base.TAP))
        guest.close()
        self.unplug()
        self.assert_bridge_is_ours()
        self.assertIsNotNone(self.host.find(base.TAP))

    def test_unplug_of_what_libvirt_removed(self):
        self.plug()
        self.unplug()
        self.unplug()
        self.assert_bridge_is_ours()

    def test_nova_managed_tap_is_switched_on(self):
        self.plug()
        guest = self.boot()
        self.start_nova(nova_managed_tap=True)
        self.plug()
        self.assert_libvirts()
        # A hard reboot: libvirt removes the TAP with the domain.
        guest.close()
        self.host.delete(base.TAP)
        self.unplug()
        self.assert_libvirt_finds_the_tap()
        self.plug()
        self.assert_finished(mtu=1450)


class NovasTapTest(_OurTapTest):
    """Binding type bridge: we make the TAP, and libvirt finds it."""

    OPTIONS = {'claim_plugins': ['linux_bridge'], 'nova_managed_tap': True}

    def test_queues_are_capped_to_one(self):
        self.config.config(group='libvirt', max_queues=1)
        self.instance = nova_base.make_multiqueue_instance()
        self.assert_queues(1)

    def test_no_queues_without_kvm(self):
        self.use_virt_type('qemu')
        self.instance = nova_base.make_multiqueue_instance()
        self.assert_queues(None)

    def test_no_queues_without_virtio(self):
        self.instance = nova_base.make_multiqueue_instance()
        self.instance.system_metadata = {'image_hw_vif_model': 'e1000'}
        self.assert_queues(None)

    def test_rescue_image_does_not_change_the_queues(self):
        # The TAP stays as it is while a guest is rescued.
        plain, multi = (
            {'image_hw_vif_multiqueue_enabled': value}
            for value in ('false', 'true'))
        self.instance = nova_base.make_instance(vcpus=3)
        for own, rescue in (plain, multi), (multi, plain):
            self.instance.system_metadata = rescue
            image = self.instance.image_meta
            self.instance.system_metadata = own
            self.plug()
            self.assert_finished(mtu=1450, multi_queue=own is multi)
            self.assertEqual(self.queues(), self.queues(image), own)

    def test_nova_managed_tap_is_switched_off(self):
        self.plug()
        guest = hosts.Guest(base.TAP)
        self.addCleanup(guest.close)
        before = self.host.link(base.TAP)
        self.start_nova(nova_managed_tap=False)
        self.plug()
        self.assertEqual(before, self.host.link(base.TAP))
        # A hard reboot.
        guest.close()
        self.unplug()
        self.assert_libvirt_makes_the_tap()
        self.plug()
        self.assertIsNone(self.host.find(base.TAP))

    def test_hybrid_port_of_ovs_stays_with_libvirt(self):
        self.vif = nova_base.make_hybrid_vif()
        self.assert_libvirt_makes_the_tap(bridge=nova_base.HYBRID_BRIDGE)


class UnclaimedBridgeTest(_AnyRouteTest):
    """Binding type bridge, and nobody asked us."""

    def test_stays_with_libvirt(self):
        self.assert_libvirt_makes_the_tap()

    def test_is_not_ours(self):
        plugins = os_vif._EXT_MANAGER
        if 'linux_bridge' in plugins:
            self.assertIn('vif_plug_linux_bridge.',
                          repr(plugins['linux_bridge'].obj))
            return
        raised = self.assertRaises(exception.InternalError, self.plug)
        self.assertIn('No VIF plug', str(raised))

    def test_nova_managed_tap_needs_the_claim(self):
        self.configure(nova_managed_tap=True)
        raised = self.assertRaises(tapmac_exception.InvalidConfig,
                                   os_vif.initialize, reset=True)
        self.assertIn('it needs linux_bridge in claim_plugins', str(raised))
        self.assert_libvirt_makes_the_tap()


class OvsTest(_OurTapTest):
    """Binding type ovs with ovs_create_tap: we make the TAP."""

    OPTIONS = {'claim_plugins': ['ovs']}

    def make_vif(self):
        return nova_base.make_neutron_vif()

    def test_nova_wants_queues_that_its_xml_lacks(self):
        # Nova's mistake: what it tells os-vif knows neither the hypervisor
        # nor max_queues. If this fails, then Nova was corrected.
        self.use_virt_type('qemu')
        self.instance = nova_base.make_multiqueue_instance()
        self.assertIsNone(self.queues())
        self.assert_comes_and_goes(multi_queue=True)

    def test_other_ports_of_ovs_are_not_ours(self):
        for vif in (nova_base.make_hybrid_vif(),
                    nova_base.make_ovs_vif(datapath_type='system'),
                    nova_base.make_ovs_vif(ovs_create_tap=False)):
            self.assertFalse(from_vif.is_bound_by_tapmac(
                os_vif_util.nova_to_osvif_vif(vif)))


class NoCreateTapTest(nova_base.NovaTestCase):
    """Binding type ovs: this Nova cannot have os-vif make the TAP."""

    OPTIONS = {'claim_plugins': ['ovs']}

    def make_vif(self):
        return nova_base.make_ovs_vif()

    def test_libvirt_makes_the_tap(self):
        self.assert_interface('ethernet', None, {})
        self.assertFalse(from_vif.is_bound_by_tapmac(
            os_vif_util.nova_to_osvif_vif(self.vif)))


class RefusedBridgeTest(nova_base.NovaTestCase):
    """Binding type bridge: this Nova refuses it."""

    OPTIONS = {'claim_plugins': ['linux_bridge']}

    def test_nova_refuses(self):
        for call in self.plug, self.unplug, self.xml:
            raised = self.assertRaises(exception.NovaException, call)
            self.assertEqual('Linux bridge VIF type is no longer supported',
                             str(raised))
        self.assertIsNone(self.host.find(base.BRIDGE))

    def test_nova_managed_tap_cannot_work(self):
        self.configure(nova_managed_tap=True)
        raised = self.assertRaises(tapmac_exception.InvalidConfig,
                                   os_vif.initialize, reset=True)
        self.assertIn('has no VIFs of linux_bridge any more', str(raised))


def load_tests(loader, tests, pattern):
    """Load what the documentation says of this Nova: nothing is skipped."""
    bindings = compatibility.bindings(nova_base.NOVA)
    cases = [RefusedBridgeTest]
    if 'bridge' in bindings:
        cases = [UnclaimedBridgeTest, LibvirtsTapTest, NovasTapTest]
    cases.append(OvsTest if 'ovs' in bindings else NoCreateTapTest)
    return unittest.TestSuite(map(loader.loadTestsFromTestCase, cases))
