# SPDX-License-Identifier: Apache-2.0

"""Where ports belong on hosts, and why a port is not ours to bind there."""

import typing

from neutron_lib.api.definitions import portbindings
from neutron_lib import constants
from neutron_lib.plugins.ml2 import api
from neutron_lib.services.trunk import constants as trunk
from oslo_config import cfg
from oslo_log import log as logging

from vif_plug_tapmac.ml2 import exception
from vif_plug_tapmac.ml2 import hosts
from vif_plug_tapmac.ml2 import mappings

LOG = logging.getLogger(__name__)

#: Ports that no compute service plugs, and that belong to other drivers.
_NOT_PLUGGED = (constants.DEVICE_OWNER_NETWORK_PREFIX,
                trunk.TRUNK_SUBPORT_OWNER)


class Places:
    """The places for ports that ``[ml2_tapmac]`` says.

    :param config: that group
    :raises InvalidConfig: as :class:`mappings.Bridges` has it
    """

    def __init__(self, config: cfg.ConfigOpts.GroupAttr) -> None:
        self.bridges = mappings.Bridges.from_config(config)
        self.bridge_hosts = hosts.Hosts(config.bridge_hosts)
        self._hosts = hosts.Hosts(config.hosts)
        # Said once in a process.
        self._missed: set[tuple[str, str]] = set()

    def find(self, port: typing.Mapping[str, typing.Any], host: str,
             segments: typing.Iterable[typing.Mapping[str, typing.Any]],
             ) -> tuple[str, str]:
        """Return where on a host a port belongs, if it is ours there.

        :param segments: of its network
        :returns: the id of the segment, and the bridge
        :raises NotOurs: why it is not
        """
        if port[portbindings.VNIC_TYPE] != portbindings.VNIC_NORMAL:
            raise exception.NotOurs(
                'its vnic_type is %s' % port[portbindings.VNIC_TYPE])
        if port['device_owner'].startswith(_NOT_PLUGGED):
            raise exception.NotOurs(
                'no compute service plugs a port of %s' % port['device_owner'])
        if host not in self._hosts:
            self._warn_if_missed('binds no ports', host, self._hosts, 'hosts')
            raise exception.NotOurs('[ml2_tapmac] hosts has %s only'
                                    % (','.join(self._hosts.patterns) or '""'))
        found = [(segment[api.ID], bridge) for segment in segments
                 for bridge in [self.bridges.bridge(segment)] if bridge]
        if len(found) > len({bridge for _, bridge in found}):
            # A template with {network} and without the rest.
            raise exception.NotOurs('several segments of its network would '
                                    'have the bridge %s' % found[0][1])
        if found:
            return found[0]
        raise exception.NotOurs('no segment of its network has a bridge in '
                                '[ml2_tapmac] bridge_mappings or vlan_bridge')

    def vif_type(self, host: str) -> str:
        """Return as what ports of ours are bound on a host."""
        if host in self.bridge_hosts:
            return str(portbindings.VIF_TYPE_BRIDGE)
        self._warn_if_missed('binds ports as ovs', host, self.bridge_hosts,
                             'bridge_hosts')
        return str(portbindings.VIF_TYPE_OVS)

    def _warn_if_missed(self, what: str, host: str, meant: hosts.Hosts,
                        option: str) -> None:
        """Say once of a host that it seems to be meant by an option.

        :param what: is done, because it is not among these hosts
        """
        pattern = meant.nearly(host)
        if pattern is None or (host, option) in self._missed:
            return
        self._missed.add((host, option))
        LOG.warning('tapmac %s on host %s: it differs from %s of [ml2_tapmac] '
                    '%s by case or domain only. Remedy: if it is meant, the '
                    'operator must name it there as it calls itself.',
                    what, host, pattern, option)
