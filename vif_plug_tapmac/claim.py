# SPDX-License-Identifier: Apache-2.0

"""Answering for the plugins that Nova names: ovs and linux_bridge.

A second entry point of such a name would win or lose by chance of installation
order. So the names are taken over in os-vif's loaded extensions, and only if
the configuration says so.
"""

import typing

import os_vif
from os_vif.objects import host_info
from os_vif.objects import instance_info as instance_objects
from os_vif.objects import vif as vif_objects
from os_vif import plugin
from oslo_log import log as logging
from stevedore import extension

from vif_plug_tapmac import exception
from vif_plug_tapmac.wanted import from_vif

LOG = logging.getLogger(__name__)


class Claim(plugin.PluginBase):
    """Stands where a plugin of os-vif stood: our VIFs to us, others to it.

    :param name: the plugin's name
    :param ours: the plugin that gets our VIFs
    :param original: the plugin that gets all others; None if there is none,
        or it could not be loaded
    """

    def __init__(self, name: str, ours: plugin.PluginBase,
                 original: plugin.PluginBase | None) -> None:
        super().__init__(ours.config if original is None
                         else original.config)
        self.ours = ours
        self.original = original
        self._name = name

    def describe(self) -> host_info.HostPluginInfo:
        """Return what the original plugs, and what we plug in its name."""
        described = host_info.HostPluginInfo(
            plugin_name=self._name, vif_info=[])
        if self.original is not None:
            described = self.original.describe()
        if not any(info.vif_object_name == self._our_class.__name__
                   for info in described.vif_info):
            described.vif_info = [*described.vif_info, host_info.HostVIFInfo(
                vif_object_name=self._our_class.__name__,
                min_version='1.0', max_version='1.0')]
        return described

    @property
    def _our_class(self) -> type[vif_objects.VIFBase]:
        return (vif_objects.VIFOpenVSwitch if self._name == 'ovs'
                else vif_objects.VIFBridge)

    def plug(self, vif: vif_objects.VIFBase,
             instance_info: instance_objects.InstanceInfo) -> None:
        """Have a VIF plugged by the plugin whose it is."""
        self._whose(vif).plug(vif, instance_info)

    def unplug(self, vif: vif_objects.VIFBase,
               instance_info: instance_objects.InstanceInfo) -> None:
        """Have a VIF unplugged by the plugin whose it is."""
        self._whose(vif).unplug(vif, instance_info)

    def _whose(self, vif: vif_objects.VIFBase) -> plugin.PluginBase:
        # A VIFBridge of ovs is its hybrid, on a bridge of its own.
        if (from_vif.is_bound_by_tapmac(vif) if self._name == 'ovs'
                else isinstance(vif, vif_objects.VIFBridge)):
            return self.ours
        if self.original is None:
            raise exception.InvalidVif(
                vif=from_vif.label(vif),
                reason='it is for the os-vif plugin %s, which is not there or '
                       'could not be loaded (the log says why), and tapmac '
                       'plugs no such %s in its name'
                       % (self._name, type(vif).__name__))
        return self.original


class _Loader:
    """Stands for a plugin's class while os-vif loads it: makes the claim."""

    def __init__(self, name: str, ours: plugin.PluginBase,
                 original: type[plugin.PluginBase]) -> None:
        self._name = name
        self._ours = ours
        self._original = original

    def __getattr__(self, attribute: str) -> typing.Any:
        return getattr(self._original, attribute)

    def load(self, plugin_name: str) -> Claim:
        """Load the original; one that fails is logged, and missing then."""
        try:
            original = self._original.load(plugin_name)
        except Exception:
            LOG.exception('The os-vif plugin %s could not be loaded: only '
                          'VIFs of tapmac can be plugged in its name',
                          plugin_name)
            original = None
        return Claim(self._name, self._ours, original)


def take_over(names: typing.Iterable[str], ours: plugin.PluginBase) -> None:
    """Answer for these plugins of os-vif, also for one that is not there.

    To be called while os-vif loads us. Those that it has loaded before are
    replaced, and those to come when they come. Doing so again changes nothing.

    :param ours: the plugin that gets our VIFs
    :raises InvalidConfig: os-vif keeps its plugins in another way than we know
    """
    for name in names:
        # There is no other way: os-vif has no call to register a plugin.
        manager: typing.Any = getattr(os_vif, '_EXT_MANAGER', None)
        try:
            found = [each for each in manager.extensions if each.name == name]
            for each in found:
                _replace(each, ours)
            if not found:
                _add(manager, name, ours)
            claimed = manager[name]
        except (AttributeError, LookupError, TypeError) as error:
            raise exception.InvalidConfig(
                option='claim_plugins', value=name,
                reason='this os-vif or stevedore keeps plugins in a way that '
                       'tapmac does not know, so it cannot answer for them '
                       '(%r)' % error)
        LOG.info('tapmac answers for the os-vif plugin %s', claimed.name)


def _replace(found: typing.Any, ours: plugin.PluginBase) -> None:
    if isinstance(found.plugin, _Loader) or isinstance(found.obj, Claim):
        return
    found.plugin = _Loader(found.name, ours, found.plugin)
    if found.obj is not None:
        found.obj = Claim(found.name, ours, found.obj)


def _add(manager: typing.Any, name: str, ours: plugin.PluginBase) -> None:
    entry_point = next(each.entry_point for each in manager.extensions
                       if each.plugin is type(ours))
    manager.extensions.append(extension.Extension(
        name, entry_point, type(ours), Claim(name, ours, None)))
    # Or it would not be found by its name.
    manager._extensions_by_name_cache = None
