# SPDX-License-Identifier: Apache-2.0

"""Which bridges and uplinks may be used: no caller has a say in that."""

import dataclasses
import fnmatch

from vif_plug_tapmac import exception
from vif_plug_tapmac.wanted.port import TapPort
from vif_plug_tapmac.wanted.uplinks import Uplinks

#: How many characters there are for the name of a service, which a comment of
#: nft has with some words before it. Source: nftables, include/rule.h,
#: NFTNL_UDATA_COMMENT_MAXLEN
SERVICE_MAX = 110


@dataclasses.dataclass(frozen=True)
class Limits:
    """What no caller has a say in: the privileged side's own configuration.

    :param allowed_bridges: shell patterns of the bridges that TAPs may join
    :param allowed_uplinks: shell patterns of devices that may join bridges
    :param uplinks: which ones the configuration gives to which bridge
    :param udev_timeout: how many seconds to wait for udev at most; 0: not
    :param service: by which the services of this host differ: see
        :func:`from_config.service`
    """
    allowed_bridges: tuple[str, ...]
    allowed_uplinks: tuple[str, ...]
    uplinks: Uplinks
    udev_timeout: float
    service: str = ''

    def require_bridge(self, port: TapPort) -> None:
        """Check that TAPs may join the port's bridge, and so may its uplink.

        :raises InvalidConfig: one may not
        """
        self._require_allowed('allowed_bridges', '%s may not join bridge'
                              % port.name, port.bridge)
        own = self.uplinks.of(port.bridge)
        if port.uplink == own or self.uplinks.has_vlan(port.bridge,
                                                       port.uplink):
            return
        if own is not None:
            raise exception.InvalidConfig(
                option='bridge_uplinks', value='%s:%s' % (port.bridge, own),
                reason='%s is plugged as if the uplink of its bridge were %s. '
                       'The VIF says so, or nova-compute reads other '
                       'configuration files than the privileged daemon' % (
                           port.name, port.uplink))
        self._require_allowed('allowed_uplinks', 'bridge %s may not have the '
                              'uplink' % port.bridge, str(port.uplink))

    def _require_allowed(self, option: str, what: str, name: str) -> None:
        patterns = getattr(self, option)
        if not any(fnmatch.fnmatchcase(name, pattern)
                   for pattern in patterns):
            raise exception.InvalidConfig(
                option=option, value=','.join(patterns),
                reason='%s %s, which matches none of these patterns'
                       % (what, name))
