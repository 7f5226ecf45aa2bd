# SPDX-License-Identifier: Apache-2.0

"""Security groups as Neutron's RPC gives them to an agent, as our values.

What one rule, pair or member says wrong costs that one only, which then lets
nothing pass; a port that is wrong itself is left out. All such are said.
Where the answer leaves things open, Neutron's iptables driver is followed.
Source: neutron/db/securitygroups_rpc_base.py, security_group_info_for_ports;
neutron/agent/linux/iptables_firewall.py
"""

import typing

from vif_plug_tapmac import mac
from vif_plug_tapmac.wanted import prefixes
from vif_plug_tapmac.wanted import security_groups
from vif_plug_tapmac.wanted.security_groups import Change
from vif_plug_tapmac.wanted.security_groups import Group
from vif_plug_tapmac.wanted.security_groups import Members
from vif_plug_tapmac.wanted.security_groups import Port
from vif_plug_tapmac.wanted.security_groups import Rule

#: Source: neutron_lib/constants.py, IP_PROTOCOL_MAP
PROTOCOLS = {
    'ah': 51, 'dccp': 33, 'egp': 8, 'esp': 50, 'gre': 47, 'hopopt': 0,
    'icmp': 1, 'icmpv6': 58, 'igmp': 2, 'ip': 0, 'ipip': 4, 'ipv6-encap': 41,
    'ipv6-frag': 44, 'ipv6-icmp': 58, 'ipv6-nonxt': 59, 'ipv6-opts': 60,
    'ipv6-route': 43, 'ospf': 89, 'pgm': 113, 'rsvp': 46, 'sctp': 132,
    'tcp': 6, 'udp': 17, 'udplite': 136, 'vrrp': 112}
_FAMILIES = {'IPv4': 4, 'IPv6': 6}
_NETWORK_OWNER = 'network:'
#: Where a rule has its prefix. Source: DIRECTION_IP_PREFIX
_PREFIX = {'ingress': 'source_ip_prefix', 'egress': 'dest_ip_prefix'}

_Told = typing.Mapping[str, typing.Any]
_ValueT = typing.TypeVar('_ValueT')


class Answer(typing.NamedTuple):
    """What was said, and what of it can not be.

    :param change: the rest
    :param refused: a text each
    """
    change: Change
    refused: tuple[str, ...]


def from_rpc(info: _Told, details: typing.Iterable[_Told] = (), *,
             is_all: bool = False) -> Answer:
    """Return what Neutron says of ports, their groups, and these's members.

    :param info: of security_group_info_for_devices, version 1.3; it has no
        trusted port. Of the ports that it was asked for only: members of a
        family that no rule of theirs names are not in it, and not known
    :param details: of get_devices_details_list, for those that are trusted;
        what has no owner there is not, as what is not bound here or has gone
    :param is_all: whether it was asked for all ports of the host
    :raises ValueError: it is too much for a host
    """
    reader = _Reader()
    groups = {each.id: each for each in reader.groups(info['security_groups'])}
    ports = {each.vif_id: each for each in [
        *reader.ports(details, groups, if_trusted=True),
        *reader.ports(info['devices'].values(), groups)]}
    members = tuple(reader.members(info['sg_member_ips'], groups.values()))
    return Answer(Change(tuple(ports.values()), groups=tuple(groups.values()),
                         members=members, is_all=is_all),
                  tuple(reader.refused))


class _Reader:
    """Reads one answer, and keeps what it had to leave out."""

    def __init__(self) -> None:
        self.refused: list[str] = []

    def _try(self, what: str, build: typing.Callable[..., _ValueT],
             *values: typing.Any) -> typing.Iterator[_ValueT]:
        try:
            yield build(*values)
        except (ValueError, KeyError, TypeError) as error:
            self.refused.append('%s: %s' % (what, error))

    def groups(self, told: _Told) -> typing.Iterator[Group]:
        for name, every in told.items():
            what = 'security group %s' % name
            rules = {found: None for each in every
                     for found in self._try(what, rule, each)}
            # Only its rules say; without any it lets nothing pass anyway.
            stateful = all(each.get('stateful', True) for each in every)
            yield from self._try(what, Group, name, stateful, tuple(rules))

    def members(self, told: _Told, groups: typing.Iterable[Group],
                ) -> typing.Iterator[Members]:
        for name, family in sorted({rule.members for group in groups
                                    for rule in group.rules if rule.members}):
            which = name.partition(':')[2]
            every = told.get(which, {}).get('IPv%d' % family, ())
            found = tuple(prefix for each in every for prefix in self._try(
                'member of %s' % name, prefixes.canonical, str(each[0]),
                family))
            yield Members(name, family, found)  # type: ignore[arg-type]

    def ports(self, told: typing.Iterable[_Told], groups: dict[str, Group],
              if_trusted: bool = False) -> typing.Iterator[Port]:
        for each in told:
            is_trusted = str(each.get('device_owner', '')).startswith(
                _NETWORK_OWNER)
            if is_trusted or not if_trusted:
                yield from self._try('port %s' % each.get('device'),
                                     self._port, each, groups, is_trusted)

    def _port(self, told: _Told, groups: dict[str, Group],
              is_trusted: bool) -> Port:
        # One that was made since it was read is there with the next answer.
        its = [groups[each] for each in told.get('security_groups') or ()
               if each in groups]
        vif_id = told.get('id') or told['port_id']
        whose = mac.parse(str(told['mac_address']))
        own = [(whose, each['ip_address'] if isinstance(each, dict) else each)
               for each in told['fixed_ips']]
        own += [(each['mac_address'], each['ip_address'])
                for each in told.get('allowed_address_pairs') or ()]
        return Port(
            vif_id, told['device'], whose,
            tuple(pair for each in own for pair in self._try(
                'port %s' % vif_id, _own, *each)),
            tuple(each.id for each in its),
            is_open=is_trusted or not told.get('port_security_enabled', True),
            # Neutron allows no port both kinds; less passes without state.
            stateful=all(each.stateful for each in its))


def _own(whose: typing.Any, prefix: typing.Any) -> tuple[str, str]:
    return security_groups.own(mac.parse(str(whose)), str(prefix))


def rule(told: _Told) -> Rule:
    """Return a rule of a group, by what Neutron says of it.

    :param told: as in security_group_info_for_devices
    :raises ValueError, KeyError, TypeError: it can not be
    """
    direction, family = told['direction'], _FAMILIES[told['ethertype']]
    protocol = _protocol(told.get('protocol'), family)
    first, last = told.get('port_range_min'), told.get('port_range_max')
    if (protocol not in security_groups.WITH_PORTS
            and protocol != security_groups.ICMP[family]):
        # Neutron's driver passes over what no protocol has, and its server
        # refuses it.
        first = last = None
    remote = told.get(_PREFIX[direction])
    if remote is not None:
        remote = prefixes.canonical(remote, family)
    group, addresses = (told.get('remote_group_id'),
                        told.get('remote_address_group_id'))
    name = ('group:%s' % group if group
            else 'address_group:%s' % addresses if addresses else None)
    return Rule(told.get('id') or _say(protocol, first, last, remote or name),
                direction, family, protocol, first, last, remote, name)


def _protocol(told: typing.Any, family: int) -> int | None:
    """Return the number of a protocol; None: any, as which Neutron has 0."""
    if told is None or told == 'any':
        return None
    number = PROTOCOLS.get(str(told).lower())
    if number is None:
        number = int(told)
    if family == 6 and number == security_groups.ICMP[4]:
        # So does the server with rules that are made now.
        number = security_groups.ICMP[6]
    return number or None


def _say(protocol: int | None, first: int | None, last: int | None,
         remote: str | None) -> str:
    """Return what a rule says, which is as good a name as any."""
    said = 'any' if protocol is None else str(protocol)
    if first is not None:
        said += ' %s' % first if last is None else ' %s-%s' % (first, last)
    return said + (' %s' % remote if remote else '')
