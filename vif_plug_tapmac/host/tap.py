# SPDX-License-Identifier: Apache-2.0

"""A guest's TAP, as an operator is told of it: whose it is, and where."""

import dataclasses
import typing

from vif_plug_tapmac.host import domains
from vif_plug_tapmac.kernel.link import Link
from vif_plug_tapmac.kernel import making
from vif_plug_tapmac import mac
from vif_plug_tapmac import mark
from vif_plug_tapmac.wanted import names

if typing.TYPE_CHECKING:
    from vif_plug_tapmac.host.inventory import Inventory


@dataclasses.dataclass(frozen=True)
class Tap:
    """A TAP of a guest: ours, or another one on a bridge that concerns us.

    :param mark: None if it is not ours, or has lost it
    :param bridge: what it is a port of, None: of nothing
    :param addresses: the host's own ones on it
    :param seen: where this was seen
    """
    link: Link
    mark: mark.TapMark | None
    bridge: Link | None
    addresses: tuple[str, ...]
    seen: 'Inventory' = dataclasses.field(repr=False, compare=False)

    @property
    def name(self) -> str:
        """What guests and Nova call it, also while it is being deleted."""
        return self.link.former_name or self.link.name

    @property
    def shown_name(self) -> str:
        """By which the host finds it, for the operator to read."""
        return (self.link.name if self.link.lost_name is None
                else names.being_deleted(self.link.lost_name))

    @property
    def is_ours(self) -> bool:
        """Whether it has our mark, or has lost it."""
        return self.mark is not None or mark.is_lost(self.link,
                                                     self.seen.groups)

    @property
    def is_anothers(self) -> bool:
        """Whether it is looked at although it does not concern us."""
        return not self.is_ours and not (
            self.bridge is not None and self.seen.concerns(self.bridge))

    @property
    def has_nova_name(self) -> bool:
        """Whether Nova may have given it its name."""
        return names.start_of_vif_id(self.name) is not None

    @property
    def name_by_nova(self) -> str | None:
        """How Nova calls the TAP with this mark, None without one."""
        return (None if self.mark is None
                else names.nova_tap_name(self.mark.vif_id))

    @property
    def nic(self) -> domains.Nic | None:
        """Of the domain that uses it; None: of none that is known.

        Of a TAP that was renamed, the one that asks for its former name.
        """
        nics = self.seen.nics or {}
        found = nics.get(self.name)
        if (found is None and self.name_by_nova is not None
                and self.name_by_nova not in self.seen.by_name):
            found = nics.get(self.name_by_nova)
            if found is not None and found.guest_mac != self.guest_mac:
                return None
        return found

    @property
    def guest_mac(self) -> str | None:
        """The MAC of the guest's NIC, None if nobody says."""
        if self.mark is not None:
            return self.mark.guest_mac
        if self.name in (self.seen.nics or {}):
            return (self.seen.nics or {})[self.name].guest_mac
        return self._mac_it_is_kept_to() if self.is_ours else None

    def _mac_it_is_kept_to(self) -> str | None:
        """Return the one guest's MAC that its port has for good, if it has."""
        found = [guest_mac for index, guest_mac in self.seen.fixed_macs
                 if index == self.link.index
                 and self.link.mac in mac.possible_tap_macs(guest_mac)]
        return found[0] if len(found) == 1 else None

    @property
    def vif_id(self) -> str | None:
        """Of a TAP of ours: whose it is; None if nobody says."""
        if self.mark is not None:
            return self.mark.vif_id
        return self.nic.vif_id if self.nic and self.is_ours else None

    @property
    def whose(self) -> str | None:
        """The id of its VIF, or how that begins; None if nobody says."""
        start = names.start_of_vif_id(self.name)
        return self.vif_id or (start and start + '...')

    @property
    def home(self) -> Link | None:
        """The bridge that it belongs on, None if that is not here."""
        if self.mark is not None:
            return self.seen.bridge(self.mark.bridge)
        return self.bridge and self.seen.bridge(self.bridge.name)

    @property
    def can_be_plugged(self) -> bool:
        """Whether all is known that a plug of its VIF needs."""
        return None not in (self.vif_id, self.guest_mac, self.home)

    @property
    def is_being_made(self) -> bool:
        """Whether a plug is at work on it just now."""
        return making.is_being_made(self.link)

    @property
    def is_being_deleted(self) -> bool:
        """Whether somebody is at it just now, and not killed in the middle."""
        return (self.link.lost_name is not None
                and self.link not in self.seen.half_deleted)
