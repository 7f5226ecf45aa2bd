# SPDX-License-Identifier: Apache-2.0

"""tapmac answers for other plugins of os-vif: through os_vif, as Nova calls.

os-vif and stevedore are real. What is chosen here is which entry points there
are, and in which order, because that depends on how a host was installed.
"""

import importlib.metadata
import itertools

import os_vif
from os_vif import exception as os_vif_exception
from os_vif.objects import host_info
from os_vif.objects import vif as vif_objects
from os_vif import plugin as os_vif_plugin
from stevedore import extension
from vif_plug_ovs import ovs

from tests import base
from tests import hosts
from vif_plug_tapmac import claim
from vif_plug_tapmac import exception

_TAPMAC = 'tapmac = vif_plug_tapmac.plugin:TapMacPlugin'
_OVS = 'ovs = vif_plug_ovs.ovs:OvsPlugin'
_NOOP = 'noop = vif_plug_noop.noop:NoOpPlugin'
_HERE = 'tests.functional.test_claim:'
_LINUX_BRIDGE = 'linux_bridge = %sOldLinuxBridge' % _HERE

_PROFILE = vif_objects.VIFPortProfileOpenVSwitch


class OldLinuxBridge(os_vif_plugin.PluginBase):
    """Stands for os-vif's linux_bridge, which newer releases lack."""

    def describe(self):
        return host_info.HostPluginInfo(
            plugin_name='linux_bridge', vif_info=[])

    def plug(self, vif, instance_info):
        raise AssertionError('plugged by the plugin that was claimed')

    def unplug(self, vif, instance_info):
        raise AssertionError('unplugged by the plugin that was claimed')


class FailingOvs(OldLinuxBridge):
    """A plugin that can be imported, and no more."""

    @classmethod
    def load(cls, plugin_name):
        raise OSError('no Open vSwitch here')


class SpyingOvs(ovs.OvsPlugin):
    """os-vif's own plugin; notes what gets there, and goes no further."""

    calls = []

    def plug(self, vif, instance_info):
        self.calls.append(('plug', vif, instance_info))

    def unplug(self, vif, instance_info):
        self.calls.append(('unplug', vif, instance_info))


def make_linux_bridge_vif(**fields):
    return base.make_vif(plugin='linux_bridge', **fields)


def make_ovs_vif(cls=vif_objects.VIFOpenVSwitch, profile=None, **fields):
    """Return a VIF of the plugin ovs, as Nova makes it."""
    vif = base.make_vif(plugin='ovs', cls=cls, **fields)
    if profile is not None:
        vif.port_profile = profile
    return vif


def make_profile(**fields):
    return _PROFILE(**dict({'interface_id': base.VIF_ID}, **fields))


class ClaimTestCase(base.FunctionalTestCase):

    def setUp(self):
        super().setUp()
        del SpyingOvs.calls[:]
        cache = extension.ExtensionManager.ENTRY_POINT_CACHE
        self.patch(extension.ExtensionManager, 'ENTRY_POINT_CACHE',
                   dict(cache))
        # Whatever a test leaves in os-vif, the next one starts afresh.
        self.addCleanup(setattr, os_vif, '_EXT_MANAGER', None)

    def load(self, *entry_points, **options):
        """Start a process, as it were, on a host with these entry points."""
        self.configure(**options)
        extension.ExtensionManager.ENTRY_POINT_CACHE['os_vif'] = [
            importlib.metadata.EntryPoint(*each.split(' = '), 'os_vif')
            for each in entry_points]
        os_vif.initialize(reset=True)

    def described(self):
        """Return what each plugin says it plugs, in host_info()."""
        return {described.plugin_name: sorted(
            info.vif_object_name for info in described.vif_info)
            for described in os_vif.host_info().plugin_info}

    def assert_plugged(self, vif, **expected):
        self.plug(vif)
        self.assert_finished(**expected)
        self.unplug(vif)
        self.assertIsNone(self.host.find(base.TAP))


class LinuxBridgeTest(ClaimTestCase):

    CLAIM = {'claim_plugins': ['linux_bridge']}

    def assert_ours(self):
        """Expect the bridge that we make, with our mark on it."""
        self.plug(make_linux_bridge_vif())
        self.assertEqual('tapmac:bridge:1',
                         self.host.link(base.BRIDGE).alias)
        self.unplug(make_linux_bridge_vif())
        self.host.delete(base.BRIDGE)

    def test_in_any_order(self):
        for order in itertools.permutations((_TAPMAC, _NOOP, _LINUX_BRIDGE)):
            self.load(*order, **self.CLAIM)
            self.assert_ours()

    def test_os_vif_has_none(self):
        for order in ((_TAPMAC, _NOOP), (_NOOP, _TAPMAC)):
            self.load(*order, **self.CLAIM)
            self.assert_ours()

    def test_again_and_again(self):
        for order in ((_TAPMAC, _LINUX_BRIDGE), (_LINUX_BRIDGE, _TAPMAC),
                      (_TAPMAC,)):
            self.load(*order, **self.CLAIM)
            for _ in range(3):
                os_vif.initialize(reset=True)
                os_vif.initialize()
                self.assert_ours()

    def test_two_distributions_of_either(self):
        for order in set(itertools.permutations(
                (_TAPMAC, _TAPMAC, _LINUX_BRIDGE, _LINUX_BRIDGE))):
            self.load(*order, **self.CLAIM)
            self.assert_ours()

    def test_no_longer_claimed(self):
        self.load(_TAPMAC, _LINUX_BRIDGE, **self.CLAIM)
        self.load(_TAPMAC, _LINUX_BRIDGE, claim_plugins=[])
        raised = self.assertRaises(os_vif_exception.PlugException, self.plug,
                                   make_linux_bridge_vif())
        self.assertIn('plugin that was claimed', str(raised.kwargs['err']))
        self.load(_TAPMAC, claim_plugins=[])
        self.assertRaises(os_vif_exception.NoMatchingPlugin, self.plug,
                          make_linux_bridge_vif())

    def test_host_info(self):
        for order in ((_TAPMAC, _LINUX_BRIDGE), (_LINUX_BRIDGE, _TAPMAC),
                      (_TAPMAC,)):
            self.load(*order, **self.CLAIM)
            self.assertEqual({'tapmac': ['VIFBridge'],
                              'linux_bridge': ['VIFBridge']},
                             self.described())

    def test_what_was_claimed_is_logged(self):
        self.load(_TAPMAC, claim_plugins=[])
        self.assertNotIn('answers for', self.logs.output)
        self.load(_TAPMAC, **self.CLAIM)
        self.assert_logged('tapmac answers for the os-vif plugin linux_bridge')

    def test_another_class(self):
        self.load(_TAPMAC, **self.CLAIM)
        vif = make_ovs_vif()
        vif.plugin = 'linux_bridge'
        self.assert_plug_fails(exception.InvalidVif, 'linux_bridge',
                               'VIFOpenVSwitch', base.VIF_ID, vif=vif)

    def test_os_vif_that_we_do_not_know(self):
        self.load(_TAPMAC, claim_plugins=[])
        manager = os_vif._EXT_MANAGER
        self.configure(**self.CLAIM)
        for unknown in (None, {}, extension.ExtensionManager):
            os_vif._EXT_MANAGER = unknown
            error = self.assertRaises(exception.InvalidConfig,
                                      manager['tapmac'].plugin.load, 'tapmac')
            for word in ('claim_plugins', 'linux_bridge', 'os-vif'):
                self.assertIn(word, str(error))

    def test_vif_that_needs_a_claim(self):
        # It cannot get to us, but by a claim that nobody configured.
        self.load(_TAPMAC, claim_plugins=[])
        claim.take_over(['linux_bridge'], os_vif._EXT_MANAGER['tapmac'].obj)
        self.assert_plug_fails(exception.InvalidConfig, 'claim_plugins',
                               'linux_bridge', base.VIF_ID,
                               vif=make_linux_bridge_vif())


class LibvirtMakesTheTapTest(ClaimTestCase):
    """linux_bridge without nova_managed_tap."""

    def setUp(self):
        super().setUp()
        self.load(_TAPMAC, claim_plugins=['linux_bridge'])
        self.vif = make_linux_bridge_vif()

    def assert_mended(self, **expected):
        """Expect a TAP that is right, but still libvirt's: not marked."""
        self.assert_finished(**dict({'group': 0, 'owner': None}, **expected))
        self.assertIsNone(self.host.link(base.TAP).alias)

    def add_libvirts_tap(self):
        index = self.host.add_tap(base.TAP).index
        self.host.quiet_ipv6(base.TAP)
        return index

    def test_bridge_only(self):
        for _ in range(2):
            self.plug(self.vif)
            self.assertIsNone(self.host.find(base.TAP))
            self.assertEqual('tapmac:bridge:1',
                             self.host.link(base.BRIDGE).alias)
        self.unplug(self.vif)

    def test_idle_is_mended(self):
        index = self.add_libvirts_tap()
        other = self.host.add('br200', 'bridge')
        for master in (0, other.index):
            self.host.set(base.TAP, master=master)
            self.plug(self.vif)
            self.assert_mended()
        self.assertEqual(index, self.host.link(base.TAP).index)

    def test_held_is_mended(self):
        index = self.add_libvirts_tap()
        with hosts.Guest(base.TAP):
            self.plug(self.vif)
            self.assert_mended()
        self.assertEqual(index, self.host.link(base.TAP).index)

    def test_held_on_wrong_bridge(self):
        other = self.host.add('br200', 'bridge')
        self.add_libvirts_tap()
        self.host.set(base.TAP, master=other.index)
        with hosts.Guest(base.TAP):
            before = self.host.state()
            self.plug(self.vif)
            self.assertEqual(before, self.host.state())
        self.assert_logged('is on br200 and should be on br100')

    def test_other_name(self):
        self.host.add_tap('vnet0')
        vif = make_linux_bridge_vif(vif_name='vnet0')
        self.assert_plug_fails(exception.DeviceConflict, 'vnet0', vif=vif)

    def test_unplug_leaves_it(self):
        self.plug(self.vif)
        self.add_libvirts_tap()
        before = self.host.state()
        self.unplug(self.vif)
        self.assertEqual(before, self.host.state())
        self.assert_logged('%s stays' % base.TAP)

    def plug_ours(self):
        """Make a TAP as with the option, which was switched off later."""
        self.plug()
        return self.host.link(base.TAP).index

    def test_ours_is_mended(self):
        index = self.plug_ours()
        self.host.set(base.TAP, master=0, mtu=1400)
        self.plug(self.vif)
        self.assert_finished()
        self.assertEqual(index, self.host.link(base.TAP).index)

    def test_ours_that_is_wrong_is_removed(self):
        # libvirt makes it; it would refuse one that exists.
        self.plug_ours()
        self.configure(owner='nobody')
        self.plug(self.vif)
        self.assertIsNone(self.host.find(base.TAP))
        self.assert_logged('libvirt makes it anew')

    def test_ours_of_a_running_guest_with_several_queues(self):
        # Nobody says how many queues there should be.
        self.configure(multiqueue=True)
        index = self.plug_ours()
        self.configure(multiqueue=False)
        with hosts.Guest(base.TAP, flags=hosts.IFF_TAP
                         | hosts.IFF_MULTI_QUEUE):
            self.plug(self.vif)
            self.assertEqual(index, self.host.link(base.TAP).index)
        self.assertNotIn('and wrong', self.logs.output)

    def test_ours_that_is_wrong_and_held_stays(self):
        index = self.plug_ours()
        self.configure(owner='nobody')
        with hosts.Guest(base.TAP):
            self.plug(self.vif)
            self.assertEqual(index, self.host.link(base.TAP).index)
        self.assert_logged('is used by a guest, and wrong')

    def test_bridge_that_is_missing(self):
        self.configure(create_bridge=False)
        self.assert_plug_fails(exception.BridgeNotFound, base.BRIDGE,
                               vif=self.vif)

    def test_bridge_that_is_not_allowed(self):
        self.configure(allowed_bridges=['br2*'])
        self.assert_plug_fails(exception.InvalidConfig, 'allowed_bridges',
                               vif=self.vif)


class OvsOriginalTest(ClaimTestCase):
    """What a claimed ovs forwards: all that Neutron did not bind for us."""

    SPY = 'ovs = %sSpyingOvs' % _HERE
    CLAIM = {'claim_plugins': ['ovs']}

    def every_vif(self):
        """Yield a VIF of every class, with every profile, none of it ours."""
        profiles = [None, make_profile(), make_profile(datapath_type='system'),
                    make_profile(datapath_type='tapmac'),
                    vif_objects.VIFPortProfileOVSRepresentor(
                        interface_id=base.VIF_ID, datapath_type='tapmac'),
                    vif_objects.VIFPortProfileFPOpenVSwitch(
                        interface_id=base.VIF_ID, datapath_type='tapmac')]
        if 'create_tap' in _PROFILE.fields:
            profiles += [
                make_profile(create_tap=True),
                make_profile(create_tap=True, datapath_type='system'),
                make_profile(create_tap=False, datapath_type='tapmac')]
        classes = [cls for cls in vars(vif_objects).values()
                   if isinstance(cls, type)
                   and issubclass(cls, vif_objects.VIFBase)]
        self.assertGreater(len(classes), 7)
        for cls, profile in itertools.product(classes, profiles):
            if profile is None or 'port_profile' in cls.fields:
                yield make_ovs_vif(cls, profile)

    def test_forwards_every_vif_untouched(self):
        before = self.host.state()
        for order in ((_TAPMAC, self.SPY), (self.SPY, _TAPMAC)):
            self.load(*order, **self.CLAIM)
            for vif in self.every_vif():
                primitive = vif.obj_to_primitive()
                for name in 'plug', 'unplug':
                    getattr(os_vif, name)(vif, base.INSTANCE)
                    said, seen, instance = SpyingOvs.calls.pop()
                    self.assertEqual(name, said)
                    self.assertIs(vif, seen)
                    self.assertIs(base.INSTANCE, instance)
                self.assertEqual(primitive, vif.obj_to_primitive())
        self.assertEqual(before, self.host.state())

    def test_host_info_is_the_original_one(self):
        self.load(_TAPMAC, _OVS, claim_plugins=[])
        expected = os_vif.host_info().obj_to_primitive()
        self.load(_TAPMAC, _OVS, **self.CLAIM)
        self.assertEqual(expected, os_vif.host_info().obj_to_primitive())
        self.load(_TAPMAC, **self.CLAIM)
        self.assertEqual(['VIFOpenVSwitch'], self.described()['ovs'])

    def test_options_of_the_original_are_its_own(self):
        self.load(_TAPMAC, _OVS, **self.CLAIM)
        self.assertEqual('tcp:127.0.0.1:6640',
                         base.cfg.CONF.os_vif_ovs.ovsdb_connection)

    def test_original_is_missing(self):
        for rest in ((), ('ovs = no.such.module:Plugin',),
                     ('ovs = %sFailingOvs' % _HERE,)):
            for order in ((_TAPMAC,) + rest, rest + (_TAPMAC,)):
                if order[0].endswith('FailingOvs'):
                    continue  # Loaded before us: os-vif itself fails.
                self.load(*order, **self.CLAIM)
                self.assert_plug_fails(
                    exception.InvalidVif, base.VIF_ID, 'plugin ovs',
                    'could not be loaded', vif=make_ovs_vif())
        self.assert_logged('could not be loaded', 'no Open vSwitch here')


if 'create_tap' in _PROFILE.fields:  # os-vif 4.3 or newer.

    class OvsTest(ClaimTestCase):
        """What Neutron bound for tapmac comes to us."""

        CLAIM = {'claim_plugins': ['ovs']}

        def make_vif(self, **profile):
            return make_ovs_vif(profile=make_profile(**dict(
                {'datapath_type': 'tapmac', 'create_tap': True}, **profile)))

        def test_plugged_by_us_in_any_order(self):
            for order in itertools.permutations((_TAPMAC, _OVS, _NOOP)):
                self.load(*order, **self.CLAIM)
                self.assert_plugged(self.make_vif())

        def test_original_is_missing(self):
            for rest in ((), ('ovs = no.such.module:Plugin',),
                         ('ovs = %sFailingOvs' % _HERE,)):
                self.load(_TAPMAC, *rest, **self.CLAIM)
                self.assert_plugged(self.make_vif())

        def test_queues_of_the_port_profile(self):
            self.load(_TAPMAC, _OVS, **self.CLAIM)
            for multiqueue in (False, True):
                self.configure(multiqueue=not multiqueue)
                self.assert_plugged(self.make_vif(multiqueue=multiqueue),
                                    multi_queue=multiqueue)

        def test_queues_that_nobody_told(self):
            self.load(_TAPMAC, _OVS, multiqueue=True, **self.CLAIM)
            self.assert_plugged(self.make_vif(), multi_queue=True)

        def test_bridge_of_the_vif(self):
            self.load(_TAPMAC, _OVS, **self.CLAIM)
            vif = self.make_vif()
            vif.network.bridge = 'br-int'
            vif.bridge_name = 'br200'
            self.assert_plugged(vif, master='br200')

        def test_both_claims(self):
            self.load(_TAPMAC, claim_plugins=['ovs', 'linux_bridge'])
            self.assert_plugged(self.make_vif())
            self.plug(make_linux_bridge_vif())
