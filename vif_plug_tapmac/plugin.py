# SPDX-License-Identifier: Apache-2.0

"""The os-vif plugin ``tapmac``.

:raises ImportError: os-vif is older than 3.1, as where a package was installed
    in spite of what it depends on
"""

import contextlib
from importlib import metadata

from os_vif.objects import host_info
from os_vif.objects import instance_info as instance_objects
from os_vif.objects import vif as vif_objects
from os_vif import plugin
from oslo_config import cfg
from oslo_log import log as logging

from vif_plug_tapmac import claim
from vif_plug_tapmac import linux_bridge
from vif_plug_tapmac import nova_driver
from vif_plug_tapmac import opts
from vif_plug_tapmac import privileged
from vif_plug_tapmac import privsep
from vif_plug_tapmac import startup
from vif_plug_tapmac.wanted import from_vif

LOG = logging.getLogger(__name__)

with contextlib.suppress(metadata.PackageNotFoundError):
    _found = metadata.version('os-vif')
    if [int(part) for part in _found.split('.')[:2]] < [3, 1]:
        raise ImportError('vif_plug_tapmac needs os-vif 3.1 or newer, and '
                          'this is %s' % _found)


class TapMacPlugin(plugin.PluginBase):
    """Owns the whole TAP of a guest on a Linux bridge."""

    CONFIG_OPTS = opts.TAPMAC_OPTS

    @classmethod
    def load(cls, plugin_name: str) -> 'TapMacPlugin':
        """Return the plugin; answer for others, too, if so configured.

        :raises InvalidConfig: what is configured does not go with this Nova
            or os-vif; nova-compute then does not start
        """
        tapmac: TapMacPlugin = super().load(plugin_name)
        claim.take_over(tapmac.config.claim_plugins, tapmac)
        linux_bridge.warn_of_ignored(tapmac.config, cfg.CONF)
        startup.tell(tapmac.config)
        if tapmac.config.nova_managed_tap:
            nova_driver.leave_taps_to_us(tapmac.config)
        return tapmac

    def describe(self) -> host_info.HostPluginInfo:
        """Return which VIFs we plug: VIFBridge 1.0."""
        return host_info.HostPluginInfo(
            plugin_name='tapmac',
            vif_info=[
                host_info.HostVIFInfo(
                    vif_object_name=vif_objects.VIFBridge.__name__,
                    min_version='1.0',
                    max_version='1.0'),
            ])

    def plug(self, vif: vif_objects.VIFBase,
             instance_info: instance_objects.InstanceInfo) -> None:
        """Have the VIF's TAP finished on its bridge, made or mended.

        Plugging again is safe, also under a running guest. A TAP of this VIF
        that a guest holds never makes this raise once the VIF itself is valid:
        what is wrong with it is logged as an error with the remedy.

        :raises TapMacError: see :mod:`vif_plug_tapmac.exception`; nothing
            half-made is left
        """
        port = from_vif.tap_port(vif, self.config,
                                 nova_driver.multi_queue())
        with privsep.vif_plug.calling(port.name):
            made = privileged.ensure_port(port.to_fields())
        if made is not None:
            # os-vif says at INFO what was plugged; a second line would say
            # little more, and take time from each plug.
            LOG.debug('%s', made)

    def unplug(self, vif: vif_objects.VIFBase,
               instance_info: instance_objects.InstanceInfo) -> None:
        """Remove the VIF's TAP if it is ours; absent is success.

        :raises TapMacError: see :mod:`vif_plug_tapmac.exception`
        """
        identity = from_vif.tap_identity(vif)
        with privsep.vif_plug.calling(identity.name):
            privileged.remove_port(identity.to_fields())
