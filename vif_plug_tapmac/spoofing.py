# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""What guests are kept to on this host: decided and said when it starts."""

import os
import re

from oslo_config import cfg
from oslo_log import log as logging

LOG = logging.getLogger(__name__)


def kernel_can_lock() -> bool:
    """Return whether ports of bridges can be locked, by the kernel's version.

    From 5.18 on they can; what a distribution took into an older one is not
    seen. There is no other way to know before there is a port, and none that
    both sides of the privilege boundary have alike.
    Source: Linux commit a21d9a670d81 ("net: bridge: Add support for bridge
    port in locked mode")
    """
    version = re.match(r'([0-9]+)\.([0-9]+)', os.uname().release)
    return (version is not None
            and (int(version[1]), int(version[2])) >= (5, 18))


def tell(config: cfg.ConfigOpts.GroupAttr) -> None:
    """Say what guests are kept to, and where they are not.

    :param config: the ``[os_vif_tapmac]`` group
    """
    if config.anti_spoofing == 'none' and not kernel_can_lock():
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
