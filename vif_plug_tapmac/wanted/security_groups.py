# SPDX-License-Identifier: Apache-2.0

"""Security groups as values that are valid or do not exist.

Rules, groups, who is in the groups that rules name, ports, and what changed
of all this. They cross the privilege boundary as plain fields and are built
again there, which checks them again. What Neutron says becomes them in
from_neutron; what the kernel makes of them is for kernel/.
"""

import dataclasses
import re
import typing

from vif_plug_tapmac import mac
from vif_plug_tapmac.wanted import names
from vif_plug_tapmac.wanted import prefixes
from vif_plug_tapmac.wanted import rules

DIRECTIONS = INGRESS, EGRESS = 'ingress', 'egress'
FAMILIES = 4, 6
#: The protocols that have ports: TCP, UDP, DCCP, SCTP, UDP-Lite; and the one
#: of each family that has types and codes.
WITH_PORTS = frozenset((6, 17, 33, 132, 136))
ICMP = {4: 1, 6: 58}
PROTOCOL_MAX, PORT_MAX, TYPE_MAX = 255, 65535, 255
#: How many octets the name of a rule has at most: nft takes comments of 128.
ID_MAX = 120
#: How many rules a group can have; prefixes a set; groups, and addresses and
#: networks, a port; and ports, groups and sets a host.
RULES_MAX, PREFIXES_MAX, GROUPS_MAX = 4096, 65536, 256
OWN_MAX = rules.ADDRESSES_MAX
PORTS_MAX, ALL_GROUPS_MAX, ALL_MEMBERS_MAX = 4096, 4096, 8192
#: How many rules all groups of a host have together, and all sets prefixes.
ALL_RULES_MAX, ALL_PREFIXES_MAX = 2 ** 17, 2 ** 20

_UUID = re.compile(r'[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z')
_SET = re.compile(r'(address_)?group:(?=.{36}\Z)')

_ValueT = typing.TypeVar('_ValueT', bound='_Value')
#: What names the members of a group, of one family.
MembersKey = tuple[str, int]


class _Value:
    """What is as fields a dict of str, int, bool, None, dicts and lists."""

    #: Of what fields that hold many are made, each from its plain form.
    _items: typing.ClassVar[dict[str, typing.Callable[[typing.Any],
                                                      typing.Any]]] = {}

    def as_fields(self) -> dict[str, typing.Any]:
        """Return plain fields that can cross the privilege boundary."""
        return {name: _plain(value) for name, value in vars(self).items()}

    @classmethod
    def from_fields(cls: type[_ValueT], fields: typing.Any) -> _ValueT:
        """Build from what :meth:`as_fields` returned, trusting nothing.

        :raises ValueError: a field is missing, unknown or wrong
        """
        known = cls.__dataclass_fields__.keys()  # type: ignore[attr-defined]
        _require(isinstance(fields, dict) and fields.keys() == known,
                 'the fields of a %s must be exactly %s',
                 cls.__name__, ', '.join(sorted(known)))
        many = {}
        for name, build in cls._items.items():
            # A list that crosses the boundary arrives as a tuple.
            _require(isinstance(fields[name], (list, tuple)),
                     '%s of a %s is no list', name, cls.__name__)
            many[name] = tuple(map(build, fields[name]))
        return cls(**{**fields, **many})


@dataclasses.dataclass(frozen=True)
class Rule(_Value):
    """What may pass; all that it says must be so.

    ICMP's type 255 is type 255, which iptables takes for any.

    :param id: how it is called in the kernel, 1 to 120 printable characters
        of ASCII: its UUID or, as Neutron's RPC does not tell that, what it
        says
    :param direction: 'ingress', to the guest, or 'egress', from it
    :param family: 4 or 6: it never lets anything else of the other pass
    :param protocol: 1 to 255; None: any. Of IPv6 it is the one that follows
        the extension headers, so that a rule about such a header (0, 43, 44,
        51, 60) matches nothing, as with ip6tables
    :param first: the first port, or the type of ICMP; None: any
    :param last: the last port, not before the first, or the code of ICMP;
        None, for ports with the first only: any
    :param remote: whom it may be from or to, a prefix of its family in
        canonical form; None: anybody
    :param remote_set: the name of :class:`Members`, one of whom it must be
        from or to; None: anybody. There is no rule with both
    :raises ValueError: what is wrong
    """
    id: str
    direction: str
    family: int
    protocol: int | None = None
    first: int | None = None
    last: int | None = None
    remote: str | None = None
    remote_set: str | None = None

    def __post_init__(self) -> None:
        _require(isinstance(self.id, str) and 0 < len(self.id) <= ID_MAX
                 and self.id.isascii() and self.id.isprintable(),
                 'rule %r: its name is no text of 1 to %d printable '
                 'characters', self.id, ID_MAX)
        _require(self.direction in DIRECTIONS, 'rule %s: direction %r is '
                 'none of %s', self.id, self.direction, DIRECTIONS)
        _require_family(self.family)
        _require(self.protocol is None
                 or _is_number(self.protocol, 1, PROTOCOL_MAX),
                 'rule %s: protocol %r is no number of 1 to %d', self.id,
                 self.protocol, PROTOCOL_MAX)
        _require(self._has_range(),
                 'rule %s: protocol %s has no %r to %r', self.id,
                 self.protocol, self.first, self.last)
        if self.remote is not None:
            found = prefixes.canonical(self.remote, self.family)
            _require(self.remote == found,
                     'rule %s: %r is not in its canonical form', self.id,
                     self.remote)
        if self.remote_set is not None:
            _require_set(self.remote_set)
            _require(self.remote is None,
                     'rule %s has a prefix and a group', self.id)

    def _has_range(self) -> bool:
        if self.protocol in WITH_PORTS and self.first is not None:
            return (_is_number(self.first, 0, PORT_MAX)
                    and _is_number(self.last, self.first, PORT_MAX))
        if self.protocol == ICMP[self.family] and self.first is not None:
            return (_is_number(self.first, 0, TYPE_MAX)
                    and (self.last is None
                         or _is_number(self.last, 0, TYPE_MAX)))
        return self.first is None and self.last is None

    @property
    def members(self) -> MembersKey | None:
        """What the set is found by that it looks up; None: it has none."""
        return self.remote_set and (self.remote_set, self.family) or None


@dataclasses.dataclass(frozen=True)
class Group(_Value):
    """A security group: what one of its rules lets pass may pass.

    :param id: its UUID in canonical lower case form
    :param stateful: whether answers to what passed may pass, too
    :param rules: up to 4096; none: nothing may pass
    :raises ValueError: what is wrong
    """
    id: str
    stateful: bool
    rules: tuple[Rule, ...] = ()

    _items = {'rules': Rule.from_fields}

    def __post_init__(self) -> None:
        _require_uuid('group', self.id)
        _require_bool('stateful', self.stateful)
        _require_many('rules', self.rules, Rule, RULES_MAX)

    @property
    def key(self) -> str:
        return self.id


@dataclasses.dataclass(frozen=True)
class Members(_Value):
    """The addresses of one family that are in a group that rules name.

    :param name: 'group:' or 'address_group:', and the UUID of the group
    :param family: 4 or 6
    :param prefixes: addresses and networks, up to 65536; as it is built they
        are merged to the fewest, none of which overlap, in canonical form
    :raises ValueError: what is wrong
    """
    name: str
    family: int
    prefixes: frozenset[str] = frozenset()

    _items = {'prefixes': lambda each: each}

    def __post_init__(self) -> None:
        _require_set(self.name)
        _require_family(self.family)
        _require(isinstance(self.prefixes, (frozenset, tuple))
                 and len(self.prefixes) <= PREFIXES_MAX,
                 '%s has more than %d prefixes', self.name, PREFIXES_MAX)
        object.__setattr__(self, 'prefixes', frozenset(
            prefixes.merged(self.prefixes, self.family)))

    @property
    def key(self) -> MembersKey:
        return self.name, self.family


@dataclasses.dataclass(frozen=True)
class Port(_Value):
    """A port: whose it is, what it may call itself, and its groups.

    :param vif_id: its UUID in canonical lower case form
    :param tap: the name of its TAP, 1 to 15 characters
    :param mac: its MAC, as :func:`vif_plug_tapmac.mac.parse` returns it
    :param own: MACs and what each may have, addresses and networks as
        prefixes in canonical form: fixed IPs with the MAC of the port and
        allowed address pairs; up to 1024. As it is built they are sorted,
        and networks of one MAC merged; addresses are kept beside networks
        that have them. Without any it has its MAC only, to ask for one by
    :param groups: their UUIDs, up to 256, sorted as it is built. Without any
        the guest can get an address, and no more
    :param is_open: all may pass: port security is off, or its owner is
        trusted
    :param stateful: whether answers to what passed may pass, too
    :raises ValueError: what is wrong
    """
    vif_id: str
    tap: str
    mac: str
    own: tuple[tuple[str, str], ...] = ()
    groups: tuple[str, ...] = ()
    is_open: bool = False
    stateful: bool = True

    _items = {'own': lambda each: each, 'groups': lambda each: each}

    def __post_init__(self) -> None:
        _require_uuid('port', self.vif_id)
        _require(isinstance(self.tap, str) and names.is_device_name(self.tap),
                 'port %s: %r is no name for a TAP', self.vif_id, self.tap)
        _require_mac(self.mac)
        _require_bool('is_open', self.is_open)
        _require_bool('stateful', self.stateful)
        _require_many('groups', self.groups, str, GROUPS_MAX)
        for group in self.groups:
            _require_uuid('group', group)
        object.__setattr__(self, 'groups', tuple(sorted(set(self.groups))))
        _require_many('own', self.own, (list, tuple), OWN_MAX)
        object.__setattr__(self, 'own', _merged_own(self.own))

    @property
    def key(self) -> str:
        return self.vif_id


@dataclasses.dataclass(frozen=True)
class Change(_Value):
    """What is to be had anew, and what is to go; or all that is to be had.

    :param ports: up to 4096
    :param gone: UUIDs of ports that pass nothing any more
    :param groups: up to 4096, with 131072 rules together
    :param gone_groups: their UUIDs
    :param members: up to 8192, with 1048576 prefixes together
    :param gone_members: the names and families of such
    :param is_all: what is not mentioned goes, too; then all that ports and
        rules name is there, and nothing is gone
    :raises ValueError: what is wrong
    """
    ports: tuple[Port, ...] = ()
    gone: tuple[str, ...] = ()
    groups: tuple[Group, ...] = ()
    gone_groups: tuple[str, ...] = ()
    members: tuple[Members, ...] = ()
    gone_members: tuple[MembersKey, ...] = ()
    is_all: bool = False

    _items = {'ports': Port.from_fields, 'gone': lambda each: each,
              'groups': Group.from_fields, 'gone_groups': lambda each: each,
              'members': Members.from_fields, 'gone_members': lambda each: (
                  tuple(each) if isinstance(each, list) else each)}

    def __post_init__(self) -> None:
        _require_many('ports', self.ports, Port, PORTS_MAX)
        _require_many('groups', self.groups, Group, ALL_GROUPS_MAX)
        _require_many('members', self.members, Members, ALL_MEMBERS_MAX)
        _require_many('gone', self.gone, str, PORTS_MAX)
        _require_many('gone_groups', self.gone_groups, str, ALL_GROUPS_MAX)
        _require_many('gone_members', self.gone_members, tuple,
                      ALL_MEMBERS_MAX)
        _require_bool('is_all', self.is_all)
        for name in self.gone + self.gone_groups:
            _require_uuid('port or group', name)
        for key in self.gone_members:
            _require(len(key) == 2, '%r is no name and family', key)
            _require_set(key[0])
            _require_family(key[1])
        for what, many, most in (
                ('rules', self.groups, ALL_RULES_MAX),
                ('prefixes', self.members, ALL_PREFIXES_MAX)):
            _require(sum(len(getattr(each, what)) for each in many) <= most,
                     'more than %d %s', most, what)
        self._check_names()

    def _check_names(self) -> None:
        for kind, there, gone in (
                ('port', self.ports, self.gone),
                ('TAP', [each.tap for each in self.ports], ()),
                ('group', self.groups, self.gone_groups),
                ('members', self.members, self.gone_members)):
            keys = [getattr(each, 'key', each) for each in there] + list(gone)
            _require(len(set(keys)) == len(keys), 'a %s is there twice', kind)
        if not self.is_all:
            return
        _require(not (self.gone or self.gone_groups or self.gone_members),
                 'something is gone of what is all')
        _require({group for port in self.ports for group in port.groups}
                 <= {each.id for each in self.groups},
                 'a port is in a group that is not there')
        _require({rule.members for each in self.groups for rule in each.rules}
                 <= {None, *(each.key for each in self.members)},
                 'a rule names members that are not there')


def own(whose: typing.Any, prefix: typing.Any) -> tuple[str, str]:
    """Return what a port may call itself, as :class:`Port` has it.

    :raises ValueError: it is no MAC and prefix, or no single host's address
    """
    _require_mac(whose)
    _require(isinstance(prefix, str), '%r is no prefix', prefix)
    family = prefixes.family_of(prefix)
    found = prefixes.canonical(prefix, family)
    if prefixes.is_address(prefix, family):
        rules.require_address(found.partition('/')[0])
    return whose, found


def _merged_own(every: tuple[typing.Any, ...]) -> tuple[tuple[str, str], ...]:
    networks: dict[tuple[str, int], list[str]] = {}
    found = set()
    for each in every:
        _require(len(each) == 2, '%r is no MAC and prefix', each)
        whose, prefix = own(*each)
        family = prefixes.family_of(prefix)
        if prefixes.is_address(prefix, family):
            found.add((whose, prefix))
        else:
            networks.setdefault((whose, family), []).append(prefix)
    for (whose, family), many in networks.items():
        found.update((whose, prefix)
                     for prefix in prefixes.merged(many, family))
    return tuple(sorted(found))


def _plain(value: typing.Any) -> typing.Any:
    if isinstance(value, _Value):
        return value.as_fields()
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return value


def _require(is_so: bool, problem: str, *values: typing.Any) -> None:
    if not is_so:
        raise ValueError(problem % values)


def _require_many(what: str, values: typing.Any, kind: typing.Any,
                  most: int) -> None:
    _require(isinstance(values, tuple) and len(values) <= most
             and all(isinstance(each, kind) for each in values),
             '%s: no tuple of at most %d of their kind', what, most)


def _require_bool(what: str, value: typing.Any) -> None:
    _require(isinstance(value, bool), '%s is not a boolean', what)


def _require_uuid(what: str, value: typing.Any) -> None:
    _require(isinstance(value, str) and bool(_UUID.match(value)),
             'the id of a %s, %r, is not a UUID', what, value)


def _require_set(name: typing.Any) -> None:
    found = isinstance(name, str) and _SET.match(name)
    _require(bool(found and _UUID.match(name[found.end():])),
             '%r names no members: group: or address_group:, and a UUID',
             name)


def _require_family(value: typing.Any) -> None:
    _require(type(value) is int and value in FAMILIES,
             'family %r is neither 4 nor 6', value)


def _require_mac(value: typing.Any) -> None:
    _require(isinstance(value, str) and mac.parse(value) == value,
             'MAC %r is no text in lower case', value)


def _is_number(value: typing.Any, least: int, most: int) -> bool:
    return type(value) is int and least <= value <= most
