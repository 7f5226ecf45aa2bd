# SPDX-License-Identifier: Apache-2.0

"""Wrapping Nova's VIF driver, and the surprises that are found before."""

import functools
import unittest
import unittest.mock

from nova import version
from nova.virt.libvirt import config as libvirt_config
from nova.virt.libvirt import vif as libvirt_vif
import os_vif

from tests.nova import base as nova_base
from vif_plug_tapmac import exception

DRIVER = libvirt_vif.LibvirtGenericVIFDriver
_WRAPPED = ('_set_config_VIFBridge', '_plug_os_vif')
_USED = (*_WRAPPED, '_set_config_VIFGeneric', 'get_base_config')


class SurpriseTest(nova_base.NovaTestCase):
    """A Nova that is not as we know it: nova-compute does not start."""

    def methods(self):
        return [getattr(DRIVER, name, None) for name in _WRAPPED]

    def load(self):
        self.configure(claim_plugins=['linux_bridge'], nova_managed_tap=True)
        os_vif.initialize(reset=True)

    def assert_does_not_start(self, *words):
        before = self.methods()
        raised = self.assertRaises(exception.InvalidConfig, self.load)
        for word in ('nova_managed_tap', 'switch this option off',
                     'Nova %s' % version.version_string(), *words):
            self.assertIn(word, str(raised))
        self.assertEqual(before, self.methods())


class KnownNovaTest(SurpriseTest):

    def test_other_parameters(self):
        for name in _USED:
            with unittest.mock.patch.object(
                    DRIVER, name,
                    lambda self, instance, port: None):
                self.assert_does_not_start(name)

    def test_method_is_missing(self):
        for name in _USED:
            with unittest.mock.patch.object(DRIVER, name):
                delattr(DRIVER, name)
                self.assert_does_not_start(name)

    def test_cannot_leave_taps_alone(self):
        init = libvirt_config.LibvirtConfigGuestInterface.__init__

        def without(self):
            init(self)
            del self.managed
        self.patch(libvirt_config.LibvirtConfigGuestInterface, '__init__',
                   without)
        self.assert_does_not_start('cannot tell libvirt')

    def test_again_changes_nothing(self):
        self.load()
        before = self.methods()
        self.load()
        self.assertEqual(before, self.methods())

    def test_wrapped_by_the_profiler(self):
        # As osprofiler does it, if Nova is told to profile.
        for name in _WRAPPED:
            original = getattr(DRIVER, name)
            setattr(DRIVER, name, functools.wraps(original)(
                lambda *args, original=original: original(*args)))
        self.load()
        self.assert_libvirt_finds_the_tap()
        self.instance = nova_base.make_multiqueue_instance()
        self.plug()
        self.assert_finished(mtu=1450, multi_queue=True)


class NewNovaTest(SurpriseTest):

    def make_vif(self):
        return nova_base.make_ovs_vif()

    def test_has_no_such_ports(self):
        self.assert_does_not_start('no VIFs of linux_bridge any more')


def load_tests(loader, tests, pattern):
    """Load what goes with this Nova."""
    case = KnownNovaTest if nova_base.NOVA <= 33 else NewNovaTest
    return unittest.TestSuite([loader.loadTestsFromTestCase(case)])
