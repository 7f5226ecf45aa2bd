# SPDX-License-Identifier: Apache-2.0

"""What is said when the plugin starts: what guests are kept to here."""

import os

from oslo_config import cfg
from oslo_log import log as logging

from vif_plug_tapmac import opts

LOG = logging.getLogger(__name__)


def tell(config: cfg.ConfigOpts.GroupAttr) -> None:
    """Say what guests are kept to, and where they are not.

    :param config: the ``[os_vif_tapmac]`` group
    """
    if config.anti_spoofing == 'none' and not opts.kernel_can_lock():
        LOG.warning('anti_spoofing = none: guests can send from any MAC, '
                    'because this kernel, %s, is older than 5.18, from where '
                    'on ports of bridges can be locked. Remedy: a newer '
                    'kernel, or "anti_spoofing = mac" if the distribution has '
                    'added this to its own.', os.uname().release)
        return
    LOG.info('anti_spoofing = %s', config.anti_spoofing)
    if (config.anti_spoofing != 'none' and not config.nova_managed_tap
            and 'linux_bridge' in config.claim_plugins):
        LOG.warning('anti_spoofing = %s begins for ports of linux_bridge when '
                    'they are plugged again, as nova-compute does when it '
                    'starts: libvirt makes their TAPs after they are plugged. '
                    'Remedy: nova_managed_tap = true.', config.anti_spoofing)
