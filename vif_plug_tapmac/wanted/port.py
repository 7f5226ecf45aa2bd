# SPDX-License-Identifier: Apache-2.0

"""A guest's TAP as it is wanted: a value that is valid or does not exist.

It knows neither VIFs nor configuration: see the files beside.
"""

import dataclasses
import re
import typing

from vif_plug_tapmac import exception
from vif_plug_tapmac import mac
from vif_plug_tapmac.wanted import names
from vif_plug_tapmac.wanted import port_options
from vif_plug_tapmac.wanted import rules

_UUID = re.compile(r'[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z')

#: What a guest can be kept to: nothing, its MAC, or its addresses, too.
ANTI_SPOOFING = ('none', 'mac', 'full')
#: How a TAP is kept to a guest that is still on another host.
ARRIVING_GUESTS = ('lock', 'filter')
#: Limits of a TAP's MTU in bytes. Source: drivers/net/tun.c, MIN_MTU and
#: MAX_MTU less the Ethernet header.
TAP_MTU_MIN, TAP_MTU_MAX = 68, 65521
#: A uid of 2**32 - 1 means "no owner" to the tun driver.
UID_MAX = 2 ** 32 - 2
#: Who keeps guests to their security groups: nobody, or an agent.
FIREWALLS = ('none', 'agent')
#: The defaults of filtered_group and agent_group.
FILTERED_GROUP, AGENT_GROUP = 29795, 29796
#: Link groups are signed in the kernel; 0 is where every link starts.
LINK_GROUP_MIN, LINK_GROUP_MAX = 1, 2 ** 31 - 1


class Groups(typing.NamedTuple):
    """The link groups that TAPs of ours are in, by what is done there.

    :param link: of those whose guests are kept to their MACs, or to nothing
    :param filtered: of those that are kept to their addresses
    :param agent: of those of which an agent says what passes
    """
    link: int
    filtered: int
    agent: int

    def shielded_with(self, group: int) -> tuple[int, ...]:
        """Return from which of them this host is to be kept (host_shield).

        Guests that are not filtered yet, and will be, are in another one than
        those that are.

        :param group: of them, in which the next TAP is
        """
        return (self.link,) if group == self.link else tuple(self)


_FieldsT = typing.TypeVar('_FieldsT', bound='_Fields')


@dataclasses.dataclass(frozen=True)
class _Fields:
    """What identifies a TAP, checked as it is built."""
    vif_id: str
    name: str

    def __post_init__(self) -> None:
        if not isinstance(self.vif_id, str) or not _UUID.match(self.vif_id):
            raise exception.InvalidVif(
                vif=repr(self.vif_id), reason='its id is not a UUID')
        self._check_device_name('vif_name', self.name)

    def _require(self, valid: bool, reason: str, *values: object) -> None:
        if not valid:
            raise self._invalid(reason % values)

    def _invalid(self, reason: str) -> exception.InvalidVif:
        return exception.InvalidVif(vif=label(self.vif_id, self.name),
                                    reason=reason)

    def _check_device_name(self, field: str, name: str) -> None:
        self._require(
            names.is_device_name(name),
            '%s %r is no name for a network device here: 1 to 15 letters, '
            'digits, "_", "." and "-", starting with a letter or a digit, '
            'and not "all" or "default"', field, name)

    @property
    def has_nova_name(self) -> bool:
        """Whether the TAP's name is the one that Nova gives to this VIF."""
        return self.name == names.nova_tap_name(self.vif_id)

    def to_fields(self) -> dict[str, typing.Any]:
        """Return plain fields that can cross the privilege boundary."""
        return dict(vars(self))

    @classmethod
    def from_fields(cls: type[_FieldsT],
                    fields: dict[str, typing.Any]) -> _FieldsT:
        """Build from what :meth:`to_fields` returned, trusting nothing.

        :raises InvalidVif: a field is missing, unknown or wrong
        """
        known = cls.__dataclass_fields__.keys()
        if not isinstance(fields, dict) or fields.keys() != known:
            raise exception.InvalidVif(
                vif='(from an unprivileged caller)',
                reason='its fields must be exactly %s'
                       % ', '.join(sorted(known)))
        return cls(**fields)


@dataclasses.dataclass(frozen=True)
class TapIdentity(_Fields):
    """Which TAP: enough to remove it.

    :param vif_id: the VIF's UUID in canonical lower case form
    :param name: the TAP's name, 1 to 15 characters
    :raises InvalidVif: the first field that is wrong
    """


if typing.TYPE_CHECKING:
    class _PortFields:
        """What code reads by the table only."""
else:
    _PortFields = dataclasses.make_dataclass(
        '_PortFields', [(each.option, bool)
                        for each in port_options.CONFIGURED], frozen=True)


@dataclasses.dataclass(frozen=True)
class TapPort(_PortFields, _Fields):
    """A guest's TAP and its bridge, as they shall be on the host.

    :param vif_id: the VIF's UUID in canonical lower case form
    :param name: the TAP's name, 1 to 15 characters
    :param bridge: the bridge's name, 1 to 15 characters
    :param guest_mac: MAC of the guest's NIC, as :func:`mac.parse` returns it
    :param mtu: in bytes, 68 to 65521; None leaves the kernel's default on
        what is made and does not touch what exists
    :param create_tap: whether we make the TAP; if not, libvirt will, on a
        bridge that we have ready, and we only mend what we find
    :param owner: uid of the one user who may attach to the TAP
    :param multi_queue: whether the guest's NIC has more than one queue
    :param create_bridge: whether a missing bridge may be made
    :param link_group: group number of our TAPs, but of those of guests that
        are kept to their addresses
    :param bridge_group: group number of our bridges
    :param uplink: the device that is to connect the bridge with the wire, by
        its name or an alternative one, 1 to 127 characters; None if nobody
        names one
    :param anti_spoofing: one of ANTI_SPOOFING: what the guest is kept to
    :param arriving_guests: one of ARRIVING_GUESTS: how the guest is kept to
        that while it is still on another host
    :param port_...: how its port on the bridge shall be: see
        :data:`port_options.CONFIGURED`
    :param host_shield: whether guests do not reach the host through bridges
    :param filtered_group: group number of our TAPs whose guests are kept to
        their addresses
    :param firewall: one of FIREWALLS: who says what passes
    :param agent_group: group number of our TAPs of which an agent says it
    :param addresses: the guest's fixed IPs, each in its canonical form; empty
        if it has none; None if they are not known, as to a command, or do
        not matter
    :raises InvalidVif: the first field that is wrong
    """
    bridge: str
    guest_mac: str
    mtu: int | None
    create_tap: bool
    owner: int
    multi_queue: bool
    create_bridge: bool
    link_group: int
    bridge_group: int
    uplink: str | None
    anti_spoofing: str
    arriving_guests: str
    host_shield: bool
    filtered_group: int = FILTERED_GROUP
    firewall: str = 'none'
    agent_group: int = AGENT_GROUP
    addresses: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_device_name('bridge_name', self.bridge)
        if self.uplink is not None:
            self._require(
                names.is_uplink_name(self.uplink),
                'uplink %r is no name for a network device here, nor an '
                'alternative one: 1 to 127 letters, digits, "_", "." and "-", '
                'starting with a letter or a digit, and not "all" or '
                '"default"', self.uplink)
        three = [self.name, self.bridge, self.uplink]
        self._require(len(set(three)) == len(three),
                      'two of TAP, bridge and uplink have one name: '
                      '%s, %s, %s', *three)
        self._check_guest_mac()
        if self.mtu is not None:
            self._check_number('MTU', self.mtu, TAP_MTU_MIN, TAP_MTU_MAX)
        self._check_number('owner', self.owner, 0, UID_MAX)
        for field in ('link_group', 'bridge_group', 'filtered_group',
                      'agent_group'):
            self._check_number(field, getattr(self, field),
                               LINK_GROUP_MIN, LINK_GROUP_MAX)
        self._require(self.link_group != self.bridge_group,
                      'TAPs and bridges share link group %s', self.link_group)
        self._require(self.filtered_group not in (
            self.link_group, self.bridge_group),
            'TAPs that are filtered share link group %s with others',
            self.filtered_group)
        self._require(self.agent_group not in (
            self.link_group, self.bridge_group, self.filtered_group),
            'TAPs whose security groups an agent knows share link group %s '
            'with others', self.agent_group)
        self._require(self.firewall in FIREWALLS,
                      'firewall %r is none of %s', self.firewall,
                      ', '.join(FIREWALLS))
        self._require(self.anti_spoofing in ANTI_SPOOFING,
                      'anti_spoofing %r is none of %s', self.anti_spoofing,
                      ', '.join(ANTI_SPOOFING))
        self._require(self.arriving_guests in ARRIVING_GUESTS,
                      'arriving_guests %r is none of %s',
                      self.arriving_guests, ', '.join(ARRIVING_GUESTS))
        for field in ('create_tap', 'multi_queue', 'create_bridge',
                      *(each.option for each in port_options.CONFIGURED),
                      'host_shield'):
            self._require(isinstance(getattr(self, field), bool),
                          '%s is not a boolean', field)

        self._check_addresses()

    def _check_addresses(self) -> None:
        if self.addresses is None:
            return
        self._require(
            isinstance(self.addresses, tuple)
            and len(self.addresses) <= rules.ADDRESSES_MAX,
            'its fixed IPs are no tuple of %d at most', rules.ADDRESSES_MAX)
        for address in self.addresses:
            try:
                canonical = rules.require_address(address)
            except ValueError as error:
                raise self._invalid('fixed IP: %s' % error)
            self._require(canonical == address,
                          'fixed IP %r is not in its canonical form', address)

    def _check_guest_mac(self) -> None:
        self._require(isinstance(self.guest_mac, str),
                      'MAC %r is no text', self.guest_mac)
        try:
            parsed = mac.parse(self.guest_mac)
        except ValueError as error:
            raise self._invalid(str(error))
        self._require(parsed == self.guest_mac,
                      'MAC %s is not in lower case', self.guest_mac)

    def _check_number(self, field: str, value: int, least: int,
                      most: int) -> None:
        self._require(
            type(value) is int and least <= value <= most,
            '%s %r is not a whole number from %d to %d',
            field, value, least, most)

    @property
    def is_guarded(self) -> bool:
        """Whether the guest may send from its own MAC only."""
        return self.anti_spoofing != 'none'

    @property
    def is_of_agent(self) -> bool:
        """Whether an agent says what passes."""
        return self.firewall == 'agent'

    @property
    def is_filtered(self) -> bool:
        """Whether the guest may speak from these addresses only.

        Those that an agent feeds have theirs from there.
        """
        return self.anti_spoofing == 'full' and not self.is_of_agent

    @property
    def group(self) -> int:
        """The link group that its TAP shall be in: it says what is done."""
        if self.is_of_agent:
            return self.agent_group
        return self.filtered_group if self.is_filtered else self.link_group

    @property
    def groups(self) -> Groups:
        """Those that TAPs of ours are in."""
        return Groups(self.link_group, self.filtered_group, self.agent_group)


def label(vif_id: str, name: str) -> str:
    """Return how errors call a VIF."""
    return '%s, device %s' % (vif_id, name)
