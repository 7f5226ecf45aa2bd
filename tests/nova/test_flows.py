# SPDX-License-Identifier: Apache-2.0

"""What Nova does to a guest, and what becomes of its TAP, on each route.

A test says which calls of its VIF driver Nova makes, and what the kernel has
before and after: the calls are Nova's business, but they are all we get, and
what a guest needs has to follow from them.
"""

import dataclasses
import unittest

from lxml import etree
from nova.tests.fixtures import libvirt as fakelibvirt
import testtools

from tests import base
from tests import compute_host
from tests import hosts
from tests.nova import base as nova_base
from tests.nova import cloud
from tests.nova import libvirt_contract
from vif_plug_tapmac import mark
from vif_plug_tapmac.wanted import names


class Guests:
    """What a test says of a guest.

    :cvar LIBVIRT_MAKES_TAP: or we do
    """

    LIBVIRT_MAKES_TAP = False

    def setUp(self):
        super().setUp()
        self.port = self.neutron.port_1
        self.tap = names.nova_tap_name(self.port['id'])

    def boot(self, flavor='1', **expected):
        """Boot a guest on host1; return its TAP there."""
        self.server = self._create_server(
            networks=[{'port': self.port['id']}], host='host1',
            flavor_id=flavor)
        self.assert_calls('host1 get_config', 'host1 plug')
        return self.assert_runs(**expected)

    def assert_calls(self, *expected):
        """Expect that Nova called this since the last time we looked."""
        calls = ['%s %s' % call for call in self.calls]
        self.calls.clear()
        self.assertEqual(list(expected), calls)

    def assert_runs(self, host='host1', port=None, **expected):
        """Expect that a guest holds a TAP with all that makes it finished.

        :returns: the TAP
        """
        return self._assert_tap(host, port or self.port, held=True,
                                **expected)

    def assert_waits(self, host, tap):
        """Expect no guest; our TAP, then, waits for it as it was."""
        if self.LIBVIRT_MAKES_TAP:
            self.assert_gone(host)
        else:
            self.assertEqual(tap.index, self._assert_tap(
                host, self.port, held=False).index)

    def assert_gone(self, host, port=None):
        port = port or self.port
        self.assertIsNone(self.hosts[host].find(
            names.nova_tap_name(port['id'])))

    def assert_kept(self, tap, other):
        """Expect that a TAP of ours served two guests, one after the other.

        One of libvirt's ends with the first.
        """
        self.assertEqual(not self.LIBVIRT_MAKES_TAP,
                         tap.index == other.index)

    def assert_made_anew(self, tap, other):
        self.assertNotEqual(tap.index, other.index)

    def _assert_tap(self, host, port, **expected):
        on_host = self.hosts[host]
        tap = on_host.link(names.nova_tap_name(port['id']))
        wanted = {'mac': 'fe' + port['mac_address'][2:], 'up': True,
                  'mtu': 1450, 'multi_queue': False, 'master': base.BRIDGE,
                  'marked_for': port['id'], 'persistent': True, 'owner': 0}
        seen = {field: getattr(tap, field) for field in (
            'mac', 'up', 'mtu', 'multi_queue', 'held', 'persistent', 'owner')}
        tap_mark = mark.TapMark.parse(tap.alias)
        seen.update(master=on_host.master(tap.name),
                    marked_for=tap_mark and tap_mark.vif_id)
        if self.LIBVIRT_MAKES_TAP:
            wanted.update(marked_for=None, persistent=False,
                          owner=seen['owner'])
        self.assertEqual(dict(wanted, **expected), seen)
        return tap

    def interface(self, host='host1'):
        """Return the interface in the XML of the guest."""
        domain = self.connections[host].lookupByUUIDString(self.server['id'])
        found, = etree.fromstring(domain.XMLDesc(0)).findall(
            'devices/interface')
        return found

    def plugged_again(self, tap):
        """Return a TAP as it is after another plug: kept to its guest's MAC.

        What libvirt makes is not before.
        """
        return dataclasses.replace(tap, learning=False, locked=True)


class Flows(Guests):
    """The flows; each route is a class of its own."""

    def test_boot(self):
        self.assertIsNone(self.hosts['host1'].find(base.BRIDGE))
        self.boot()
        bridge = self.hosts['host1'].link(base.BRIDGE)
        self.assertEqual((mark.BRIDGE_MARK, True),
                         (bridge.alias, bridge.up))
        target = self.interface().find('target')
        self.assertEqual(
            ('bridge', None) if self.LIBVIRT_MAKES_TAP
            else ('ethernet', 'no'),
            (self.interface().get('type'), target.get('managed')))
        self.assertEqual(self.tap, target.get('dev'))

    def test_restart_of_nova_compute(self):
        before = self.plugged_again(self.boot())
        self.restart_compute_service('host1')
        self.assert_calls('host1 plug')
        self.assertEqual(before, self.assert_runs())

    def test_restart_of_nova_compute_with_stopped_guest(self):
        tap = self.boot()
        self._stop_server(self.server)
        self.restart_compute_service('host1')
        self.assert_calls('host1 plug')
        self.assert_waits('host1', tap)

    def test_stop_and_start(self):
        tap = self.boot()
        self._stop_server(self.server)
        self.assert_calls()
        self.assert_waits('host1', tap)
        self._start_server(self.server)
        # As for a hard reboot.
        self.assert_calls('host1 unplug', 'host1 get_config', 'host1 plug')
        self.assert_made_anew(tap, self.assert_runs())

    def test_hard_reboot(self):
        tap = self.boot()
        self._reboot_server(self.server, hard=True)
        self.assert_calls('host1 unplug', 'host1 get_config', 'host1 plug')
        self.assert_made_anew(tap, self.assert_runs())

    def test_soft_reboot(self):
        tap = self.boot()
        self._reboot_server(self.server)
        self.assert_calls()
        self.assert_kept(tap, self.assert_runs())

    def test_suspend_and_resume(self):
        tap = self.boot()
        self._suspend_server(self.server)
        self.assert_calls()
        self.assert_waits('host1', tap)
        self._resume_server(self.server)
        self.assert_calls('host1 plug')
        self.assert_kept(tap, self.assert_runs())

    def test_rescue_and_unrescue(self):
        tap = self.boot()
        self._rescue_server(self.server)
        self.assert_calls('host1 get_config')
        rescued = self.assert_runs()
        self.assert_kept(tap, rescued)
        self._unrescue_server(self.server)
        self.assert_calls()
        self.assert_kept(rescued, self.assert_runs())

    def test_shelve_and_unshelve(self):
        self.boot()
        self.start_compute('host2')
        self._shelve_server(self.server)
        self.assert_calls('host1 unplug')
        self.assert_gone('host1')
        self.api.post_server_action(self.server['id'],
                                    {'unshelve': {'host': 'host2'}})
        self._wait_for_state_change(self.server, 'ACTIVE')
        self.assert_calls('host2 get_config', 'host2 plug')
        self.assert_runs('host2')

    def test_cold_migration(self):
        self.boot()
        self.start_compute('host2')
        self._migrate_server(self.server)
        self.assert_calls('host1 unplug', 'host2 get_config', 'host2 plug')
        self.assert_gone('host1')
        tap = self.assert_runs('host2')
        self._confirm_resize(self.server)
        self.assert_calls('host1 unplug')
        self.assertEqual(tap, self.assert_runs('host2'))

    def test_cold_migration_and_back(self):
        self.boot()
        self.start_compute('host2')
        self._migrate_server(self.server)
        self.calls.clear()
        self._revert_resize(self.server)
        self.assert_calls('host2 unplug', 'host1 get_config', 'host1 plug')
        self.assert_gone('host2')
        self.assert_runs('host1')

    def test_resize_to_several_queues(self):
        flavor = self.flavor({'hw:vif_multiqueue_enabled': 'true'})
        self.boot()
        self.start_compute('host2')
        self._resize_server(self.server, flavor)
        self.assert_calls('host1 unplug', 'host2 get_config', 'host2 plug')
        self.assertEqual(
            '2', self.interface('host2').find('driver').get('queues'))
        self.assert_gone('host1')
        self.assert_runs('host2', multi_queue=True)

    def test_hard_reboot_with_several_queues(self):
        tap = self.boot(self.flavor({'hw:vif_multiqueue_enabled': 'true'}),
                        multi_queue=True)
        self._reboot_server(self.server, hard=True)
        self.assert_made_anew(tap, self.assert_runs(multi_queue=True))

    def test_evacuate(self):
        tap = self.boot()
        self.start_compute('host2')
        self.computes['host1'].stop()
        self.connections['host1'].power_off()
        self.api.put_service_force_down(
            self.computes['host1'].service_ref.uuid, True)
        self._evacuate_server(self.server, expected_host='host2')
        # Nova starts it there, and stops it.
        self.assert_calls('host2 get_config', 'host2 plug')
        self.assert_waits('host1', tap)
        self.assert_waits('host2', self.hosts['host2'].find(self.tap))
        # The host that was down is up again.
        self.restart_compute_service('host1')
        self.assert_calls('host1 unplug')
        self.assert_gone('host1')
        self._start_server(self.server)
        self.assert_calls('host2 unplug', 'host2 get_config', 'host2 plug')
        self.assert_runs('host2')

    def test_live_migration(self):
        self.boot()
        self.start_compute('host2')
        self._live_migrate(self.server)
        self.assert_calls('host2 plug', 'host1 get_config', 'host1 unplug')
        self.assert_gone('host1')
        self.assert_runs('host2')

    def test_live_migration_and_rollback(self):
        before = self.boot()
        self.start_compute('host2')
        self.connections['host1'].fails_migration = True
        self.live_migrate_in_vain(
            self.server, 'ERROR' if nova_base.NOVA > 31 else 'ACTIVE')
        # With shared storage Nova leaves what it plugged on the target.
        self.assert_calls('host2 plug', 'host1 get_config')
        self.assertEqual(before, self.assert_runs())
        self.assert_waits('host2', self.hosts['host2'].find(self.tap))
        # It is in nobody's way.
        self.connections['host1'].fails_migration = False
        self.reset_server_state(self.server)
        self._live_migrate(self.server)
        self.assert_gone('host1')
        self.assert_runs('host2')

    def test_attach_and_detach(self):
        before = self.boot()
        other = self.neutron.port_2
        self._attach_interface(self.server, other['id'])
        self.assert_calls('host1 plug', 'host1 get_config')
        self.assert_runs(port=other)
        self._detach_interface(self.server, other['id'])
        self.assert_calls('host1 get_config', 'host1 unplug')
        self.assert_gone('host1', other)
        self.assertEqual(before, self.assert_runs())

    def test_delete(self):
        self.boot()
        self._delete_server(self.server)
        self.assert_calls('host1 unplug')
        self.assert_gone('host1')

    def test_bandwidth_limits_stay(self):
        self.boot(self.flavor({'quota:vif_inbound_average': '1000',
                               'quota:vif_outbound_average': '2000'}))
        self.assertEqual(
            {'inbound': '1000', 'outbound': '2000'},
            {limit.tag: limit.get('average')
             for limit in self.interface().find('bandwidth')})


class LibvirtTapTest(Flows, cloud.BridgeCloud):
    """Binding type bridge; libvirt makes the TAP, and we the bridge."""

    OPTIONS = {'claim_plugins': ['linux_bridge']}
    LIBVIRT_MAKES_TAP = True


class NovaManagedTapTest(Flows, cloud.BridgeCloud):
    """Binding type bridge, and Nova has us make the TAP."""

    OPTIONS = {'claim_plugins': ['linux_bridge'], 'nova_managed_tap': True}


class OpenVSwitchTest(Flows, cloud.OpenVSwitchCloud):
    """Binding type ovs, by our mechanism driver; we make the TAP."""

    OPTIONS = {'claim_plugins': ['ovs']}


class SwitchTest(Guests, cloud.BridgeCloud):
    """The option nova_managed_tap is switched while there are guests."""

    OPTIONS = {'claim_plugins': ['linux_bridge']}
    LIBVIRT_MAKES_TAP = True

    def switch(self, on):
        """Switch the option, and have nova-compute start with it."""
        self.reconfigure(nova_managed_tap=on)
        self.assert_calls('host1 plug')

    def hard_reboot(self):
        self._reboot_server(self.server, hard=True)
        self.calls.clear()

    def boot_switched_on(self):
        """Boot a guest whose TAP we make."""
        self.boot()
        self.switch(True)
        self.hard_reboot()
        self.LIBVIRT_MAKES_TAP = False
        return self.assert_runs()

    def test_on(self):
        before = self.plugged_again(self.boot())
        self.switch(True)
        self.assertEqual(before, self.assert_runs())
        self._reboot_server(self.server)
        self.assert_runs()
        self.hard_reboot()
        self.LIBVIRT_MAKES_TAP = False
        self.assert_runs()

    def test_off(self):
        before = self.boot_switched_on()
        self.switch(False)
        self.assertEqual(before, self.assert_runs())
        self._reboot_server(self.server)
        self.assertEqual(before, self.assert_runs())
        self.hard_reboot()
        self.LIBVIRT_MAKES_TAP = True
        self.assert_runs()

    def test_on_while_suspended(self):
        # nova-compute plugs this guest when it starts. Its saved state has
        # libvirt make the TAP.
        self.boot()
        self._suspend_server(self.server)
        self.switch(True)
        self.act_in_vain(self.server, 'resume')
        self.hard_reboot()
        self.LIBVIRT_MAKES_TAP = False
        self.assert_runs()

    def test_off_while_suspended(self):
        tap = self.boot_switched_on()
        self._suspend_server(self.server)
        self.switch(False)
        self._resume_server(self.server)
        self.assert_kept(tap, self.assert_runs())

    # Nova writes the XML of a rescued guest anew, and does not plug.

    def test_on_and_rescue(self):
        self.boot()
        self.switch(True)
        self.act_in_vain(self.server, 'rescue')
        self.hard_reboot()
        self.LIBVIRT_MAKES_TAP = False
        self.assert_runs()

    def test_off_and_rescue(self):
        self.boot_switched_on()
        self.switch(False)
        self.act_in_vain(self.server, 'rescue')
        self.hard_reboot()
        self.LIBVIRT_MAKES_TAP = True
        self.assert_runs()


class LibvirtContractTest(testtools.TestCase):
    """Our libvirt does to a TAP what the real one was seen to do.

    As a table: the interface, the TAP there is, the error, and whether the TAP
    is there afterwards.
    """

    BRIDGE = ("<interface type='bridge'><mac address='%s'/>"
              "<source bridge='br100'/><target dev='tap0'/></interface>"
              % base.GUEST_MAC)
    ETHERNET = ("<interface type='ethernet'><mac address='%s'/>"
                "<target dev='tap0'/></interface>" % base.GUEST_MAC)
    UNMANAGED = ("<interface type='ethernet'><mac address='%s'/>"
                 "<target dev='tap0' managed='no'/>"
                 "<driver queues='1'/></interface>" % base.GUEST_MAC)
    TWO_QUEUES = UNMANAGED.replace("'1'", "'2'")
    SINGLE = hosts.IFF_TAP
    MULTI = hosts.IFF_TAP | hosts.IFF_MULTI_QUEUE

    def setUp(self):
        super().setUp()
        self.useFixture(hosts.Host())
        self.host = self.useFixture(compute_host.ComputeHost())

    def start(self, xml, existing=None):
        self.host.add('br100', 'bridge')
        if existing is not None:
            with self.host.entered(), hosts.Guest(
                    'tap0', flags=existing) as device:
                device.persist()
        interface = libvirt_contract.Interface(etree.fromstring(xml))
        interface.open(self.host)
        self.addCleanup(interface.close, self.host)
        return interface

    def assert_refused(self, words, left, xml, existing=None):
        error = self.assertRaises(fakelibvirt.libvirtError, self.start, xml,
                                  existing)
        self.assertIn(words, str(error))
        found = self.host.find('tap0')
        self.assertEqual((left, False),
                         (found is not None, found is not None and found.held))

    def test_bridge(self):
        interface = self.start(self.BRIDGE)
        tap = self.host.link('tap0')
        self.assertEqual((base.TAP_MAC, True, True, 'br100'),
                         (tap.mac, tap.up, tap.held, self.host.master('tap0')))
        interface.close(self.host)
        self.assertIsNone(self.host.find('tap0'))

    def test_bridge_and_tap(self):
        self.assert_refused('tap0 interface already exists', True,
                            self.BRIDGE, self.SINGLE)

    def test_ethernet_and_tap(self):
        self.assert_refused('tap0 interface already exists', False,
                            self.ETHERNET, self.SINGLE)

    def test_unmanaged(self):
        for existing, xml in ((self.SINGLE, self.UNMANAGED),
                              (self.MULTI, self.TWO_QUEUES)):
            with self.subTest(xml):
                self.host = self.useFixture(compute_host.ComputeHost())
                interface = self.start(xml, existing)
                before = self.host.link('tap0')
                self.assertEqual((True, False, None),
                                 (before.held, before.up, before.master))
                interface.close(self.host)
                self.assertFalse(self.host.link('tap0').held)

    def test_unmanaged_and_no_tap(self):
        self.assert_refused('does not exist', False, self.UNMANAGED)

    def test_unmanaged_and_another_queue_mode(self):
        for existing, xml in ((self.MULTI, self.UNMANAGED),
                              (self.SINGLE, self.TWO_QUEUES)):
            with self.subTest(xml):
                self.host = self.useFixture(compute_host.ComputeHost())
                self.assert_refused('Invalid argument', True, xml, existing)


def load_tests(loader, tests, pattern):
    """Load the routes that this Nova has: nothing is to be skipped."""
    cases = [case for case in (LibvirtTapTest, NovaManagedTapTest,
                               OpenVSwitchTest, SwitchTest)
             if nova_base.NOVA in case.NOVAS]
    return unittest.TestSuite(
        loader.loadTestsFromTestCase(case)
        for case in [*cases, LibvirtContractTest])
