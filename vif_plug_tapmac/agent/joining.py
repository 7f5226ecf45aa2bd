# SPDX-License-Identifier: Apache-2.0

"""Interfaces of DHCP and L3 agents, put on the bridges of their segments."""

import functools
import typing

from neutron_lib import exceptions
from neutron_lib.plugins.ml2 import api

from oslo_config import cfg

from vif_plug_tapmac.agent.taps import Tap
from vif_plug_tapmac import exception
from vif_plug_tapmac.ml2.mappings import Bridges
from vif_plug_tapmac.ml2 import opts as ml2_opts
from vif_plug_tapmac import privileged
from vif_plug_tapmac import privsep

_UNBOUND = ('Neutron has not bound its port to this host; the log of '
            'neutron-server says why, unless it is of a highly available '
            'router that is not active on any host yet')


class Joining:
    """Knows which bridge it is.

    :param mappings: the bridge of each physical network of this host
    """

    def __init__(self, mappings: dict[str, str]) -> None:
        self._mappings = mappings

    @functools.cached_property
    def _bridges(self) -> Bridges:
        options = ml2_opts.group(cfg.CONF)
        return Bridges(self._mappings, options.vlan_bridge,
                       options.flat_bridge)

    def join(self, port: str, interface: Tap,
             told: typing.Mapping[str, typing.Any]) -> str | None:
        """Have an interface's end on the bridge of its port's segment.

        :param told: what Neutron says of the port; empty: nothing
        :returns: why it is not there; None if it is, or is gone
        """
        if not told.get(api.NETWORK_TYPE):
            return _UNBOUND
        try:
            bridge = self._bridges.bridge(told)
            if bridge is None:
                return ('its segment (%s, physical network %s) has no bridge '
                        'here. Have it in bridge_mappings of [tapmac_agent]'
                        % (told[api.NETWORK_TYPE],
                           told[api.PHYSICAL_NETWORK]))
            with privsep.filter.calling(interface.name):
                privileged.join_interface({
                    'vif_id': port, 'name': interface.name, 'bridge': bridge,
                    'guest_mac': told['mac_address'].lower(),
                    'mtu': told['mtu']})
        except (exception.TapMacError, exceptions.NeutronException) as error:
            return str(error)
        return None
