# SPDX-License-Identifier: Apache-2.0

"""Which device connects which bridge with the wire."""

import dataclasses
import functools
import re

from vif_plug_tapmac.wanted import names

_PLACES = re.compile(r'\{(?:bridge|vlan)\}')
_NUMBER = re.compile(r'[1-9][0-9]*')


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
        found = self._untagged(bridge)
        return found and names.vlan_device(self.uplinks[found[0]], found[1])

    def _untagged(self, bridge: str) -> tuple[str, int] | None:
        """Return beside which bridge this one is, and for which VLAN.

        The number has one to four digits, so there are four bridges at most to
        look for, however many there are. Where several are there, which
        takes a template with nothing between the two, the first is meant.
        """
        match = self._template.fullmatch(bridge)
        candidates = [] if match is None else [
            self._split(match['both'], digits) for digits in range(1, 5)]
        return min((each for each in candidates if each is not None),
                   key=lambda each: self._order[each[0]], default=None)

    def _split(self, both: str, digits: int) -> tuple[str, int] | None:
        """Return bridge and VLAN if the number has so many digits."""
        between = self._between
        if self._vlan_first:
            number, rest = both[:digits], both[digits:]
            untagged = rest.removeprefix(between)
        else:
            number, rest = both[-digits:], both[:-digits]
            untagged = rest.removesuffix(between)
        if (len(untagged) != len(rest) - len(between)
                or untagged not in self.uplinks
                or _NUMBER.fullmatch(number) is None
                or int(number) > names.VLAN_MAX):
            return None
        return untagged, int(number)

    @functools.cached_property
    def _order(self) -> dict[str, int]:
        return {bridge: place for place, bridge in enumerate(self.uplinks)}

    @functools.cached_property
    def _vlan_first(self) -> bool:
        return (self.vlan_bridge.index('{vlan}')
                < self.vlan_bridge.index('{bridge}'))

    @functools.cached_property
    def _between(self) -> str:
        return _PLACES.split(self.vlan_bridge)[1]

    @functools.cached_property
    def _template(self) -> re.Pattern[str]:
        before, _, after = _PLACES.split(self.vlan_bridge)
        return re.compile('%s(?P<both>.+)%s' % (re.escape(before),
                                                re.escape(after)))
