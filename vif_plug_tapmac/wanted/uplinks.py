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

"""Which device connects which bridge with the wire."""

import dataclasses
import re

from vif_plug_tapmac.wanted import names


@dataclasses.dataclass(frozen=True)
class Uplinks:
    """Which device connects which bridge with the wire.

    :param uplinks: by the name of the bridge
    :param vlan_bridge: how the bridge of a VLAN is named
    :param vlan_interfaces: by the name of a bridge whose VIFs say their VLAN:
        on which device this VLAN is
    """
    uplinks: dict[str, str]
    vlan_bridge: str
    vlan_interfaces: dict[str, str] = dataclasses.field(default_factory=dict)

    def has_vlan(self, bridge: str, uplink: str | None) -> bool:
        """Return whether a VIF's VLAN may make this a bridge's uplink."""
        found = names.parse_vlan_device(uplink or '')
        return (found is not None
                and found[0] == self.vlan_interfaces.get(bridge))

    def of(self, bridge: str, vlan: int | None = None) -> str | None:
        """Return the uplink of a bridge, None if there is none.

        :param vlan: that the VIF is to be on, by its network
        """
        if vlan is not None and bridge in self.vlan_interfaces:
            return names.vlan_device(self.vlan_interfaces[bridge], vlan)
        if bridge in self.uplinks:
            return self.uplinks[bridge]
        for untagged, uplink in self.uplinks.items():
            number = self._vlan(bridge, untagged)
            if number is not None:
                return names.vlan_device(uplink, number)
        return None

    def _vlan(self, bridge: str, untagged: str) -> int | None:
        """Return for which VLAN beside this bridge another one is."""
        pattern = re.escape(self.vlan_bridge.replace('{bridge}', untagged))
        match = re.fullmatch(pattern.replace(
            re.escape('{vlan}'), '([1-9][0-9]{0,3})'), bridge)
        if match is None or int(match[1]) > names.VLAN_MAX:
            return None
        return int(match[1])
