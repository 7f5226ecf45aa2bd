# SPDX-License-Identifier: Apache-2.0

"""Which bridge a network has on every host. Pure.

The names are checked by the rules of the os-vif plugin, and for Nova's limit,
all of them before the first port: what exists is valid.
"""

import dataclasses
import itertools
import typing

from neutron_lib import constants
from neutron_lib.plugins.ml2 import api
from neutron_lib.utils import helpers
from oslo_config import cfg

from vif_plug_tapmac.ml2 import exception
from vif_plug_tapmac.wanted import names

_FLAT_BRIDGE = '{bridge}'

#: How much of a network's id Neutron's Linux bridge agent had in a name.
_NETWORK_LENGTH = 11


@dataclasses.dataclass(frozen=True)
class Bridges:
    """The bridges that ``[ml2_tapmac]`` says.

    :param physnets: bridge of each physical network
    :param vlan_bridge: template for the names of VLANs' bridges; empty: none
    :param flat_bridge: the same for flat networks
    :raises InvalidConfig: a name cannot be a bridge of Nova, or two networks
        would share a bridge
    """
    physnets: typing.Mapping[str, str]
    vlan_bridge: str
    flat_bridge: str = _FLAT_BRIDGE

    def __post_init__(self) -> None:
        networks: dict[str, str] = {}
        for option, network, bridge in self._all():
            self._check_name(option, network, bridge)
            other = networks.setdefault(bridge, network)
            if other != network:
                raise self._invalid(
                    option, '%s and %s would both have the bridge %s'
                    % (other, network, bridge))

    def _all(self) -> typing.Iterator[tuple[str, str, str]]:
        """Yield each bridge with its network and the option that names it.

        No two networks have the same id, so each is given one here.
        """
        ids = map('{:011x}'.format, itertools.count())
        flat = ('bridge_mappings' if self.flat_bridge == _FLAT_BRIDGE
                else 'flat_bridge')
        for physnet in self.physnets if self.flat_bridge else ():
            yield flat, physnet, self._name(flat, physnet, next(ids))
        for physnet in self.physnets if self.vlan_bridge else ():
            for vlan in range(constants.MIN_VLAN_TAG,
                              constants.MAX_VLAN_TAG + 1):
                yield ('vlan_bridge', 'VLAN %d of %s' % (vlan, physnet),
                       self._name('vlan_bridge', physnet, next(ids), vlan))

    def _name(self, option: str, physnet: str, network_id: str,
              vlan: int | None = None) -> str:
        """Return the name of a bridge, by the template for its kind."""
        values: dict[str, typing.Any] = {
            'bridge': self.physnets[physnet],
            'network': network_id[:_NETWORK_LENGTH]}
        template = self.flat_bridge
        if vlan is not None:
            values['vlan'] = vlan
            template = self.vlan_bridge
        try:
            return template.format(**values)
        except (AttributeError, IndexError, KeyError, TypeError,
                ValueError):
            *most, last = map('{%s}'.__mod__, sorted(values))
            raise self._invalid(
                option, '%s and %s are all that it may have in braces'
                % (', '.join(most), last))

    def _check_name(self, option: str, network: str, bridge: str) -> None:
        if not names.is_device_name(bridge):
            raise self._invalid(
                option, '%r for %s is no name for a bridge: letters, digits, '
                '"_", "." and "-", starting with a letter or a digit, and not '
                '"all" or "default"' % (bridge, network))
        if len(bridge) > names.NOVA_NAME_LENGTH:
            raise self._invalid(
                option, '%s for %s has %d characters, and Nova keeps %d'
                % (bridge, network, len(bridge), names.NOVA_NAME_LENGTH))

    def _invalid(self, option: str, reason: str) -> exception.InvalidConfig:
        value = {'vlan_bridge': self.vlan_bridge,
                 'flat_bridge': self.flat_bridge,
                 'bridge_mappings': ','.join(
                     map(':'.join, self.physnets.items()))}[option]
        return exception.InvalidConfig(option=option, value=value,
                                       reason=reason)

    @classmethod
    def from_config(cls, config: cfg.ConfigOpts.GroupAttr) -> 'Bridges':
        """Return the bridges of a configuration.

        :param config: the ``[ml2_tapmac]`` group
        :raises InvalidConfig: as above, or the mappings are none
        """
        try:
            physnets = helpers.parse_mappings(config.bridge_mappings)
        except ValueError as error:
            raise exception.InvalidConfig(
                option='bridge_mappings',
                value=','.join(config.bridge_mappings),
                reason=str(error).rstrip('.'))
        if not physnets:
            raise exception.InvalidConfig(
                option='bridge_mappings', value='',
                reason='it has no physical network, as in physnet1:br100')
        return cls(physnets, config.vlan_bridge, config.flat_bridge)

    def bridge(self, segment: typing.Mapping[str, typing.Any]) -> str | None:
        """Return the bridge of a network's segment, None if it has none."""
        physnet = segment[api.PHYSICAL_NETWORK]
        if physnet not in self.physnets:
            return None
        network = segment.get(api.NETWORK_ID, '')
        if segment[api.NETWORK_TYPE] == constants.TYPE_FLAT:
            if self.flat_bridge:
                return self._name('flat_bridge', physnet, network)
        if segment[api.NETWORK_TYPE] == constants.TYPE_VLAN:
            if self.vlan_bridge:
                return self._name('vlan_bridge', physnet, network,
                                  segment[api.SEGMENTATION_ID])
        return None
