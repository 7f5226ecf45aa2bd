# SPDX-License-Identifier: Apache-2.0

"""Random worlds of ports and security groups, as plain data.

The same seed makes the same world. What is in one is as Neutron's REST API
shows it, and takes it; firewall.py says how it is laid out. All is small, so
that what two parts of a world say of each other meets often: a prefix that
has a port in it, a group whose members send to each other.
"""

import random
import typing

World = dict[str, typing.Any]
_Object = dict[str, typing.Any]

NETWORK_ID = '5d6a7b8c-0000-4000-8000-000000000000'
#: How many ports there are, here and on other hosts; and of what else.
HERE, ELSEWHERE, GROUPS, ADDRESS_GROUPS = 6, 3, 6, 2
#: Addresses that no port has.
OUTSIDE = {4: ['203.0.113.5', '198.51.100.77', '10.0.0.1', '10.0.0.99'],
           6: ['2001:db8:ffff::5', '2001:db8::1', 'fe80::1', '2001:db8::99']}
_PREFIXES = {
    4: ['10.0.0.0/24', '10.0.0.8/29', '10.0.0.13/28', '10.0.0.0/8',
        '203.0.113.0/24', '203.0.113.5/32', '0.0.0.0/0', '10.0.1.12/32'],
    6: ['2001:db8::/64', '2001:db8::10/126', '2001:db8::/32', 'fe80::/64',
        '2001:db8:ffff::5/128', '::/0', '2001:db8::12/127']}
#: Of the protocols that have a name in Neutron: each with its number.
#: Source: neutron-lib, neutron_lib/constants.py, IP_PROTOCOL_MAP
PROTOCOLS = {
    'ah': 51, 'dccp': 33, 'egp': 8, 'esp': 50, 'gre': 47, 'hopopt': 0,
    'icmp': 1, 'igmp': 2, 'ip': 0, 'ipip': 4, 'ipv6-encap': 41,
    'ipv6-frag': 44, 'ipv6-icmp': 58, 'icmpv6': 58, 'ipv6-nonxt': 59,
    'ipv6-opts': 60, 'ipv6-route': 43, 'ospf': 89, 'pgm': 113, 'rsvp': 46,
    'sctp': 132, 'tcp': 6, 'udp': 17, 'udplite': 136, 'vrrp': 112}
ICMP, ICMP6 = 1, 58
#: Those that have ports.
WITH_PORTS = 6, 17, 33, 132, 136
#: What a rule for IPv4 can not have.
#: Source: neutron/db/securitygroups_db.py, _validate_ethertype_and_protocol
_IPV6_ONLY = 41, 43, 44, 58, 59, 60
_PORT_RANGES = ((22, 22), (80, 80), (53, 53), (443, 8443), (1, 1),
                (1000, 2000), (65535, 65535), (1, 65535), (67, 68))
_ICMP_TYPES = {4: (0, 3, 5, 8, 9, 11, 13, 255),
               6: (1, 2, 128, 129, 130, 134, 135, 136, 137, 143, 200)}


def make(seed: int) -> World:
    """Return a world."""
    chance = random.Random(seed)
    stateful = {_id(0xa0 + number): number % 3 != 2
                for number in range(GROUPS)}
    address_groups = {
        _id(0xe0 + number): sorted(
            chance.choice([_prefix(chance, 4), _prefix(chance, 6),
                           chance.choice(OUTSIDE[4]) + '/32'])
            for _ in range(chance.randrange(5)))
        for number in range(ADDRESS_GROUPS)}
    ports = [_port(chance, number, stateful)
             for number in range(HERE + ELSEWHERE)]
    return {'ports': ports, 'stateful': stateful,
            'address_groups': address_groups,
            'rules': [_rule(chance, group, list(stateful),
                            list(address_groups))
                      for group in stateful
                      for _ in range(chance.randrange(1, 7))]}


def details(world: World) -> list[_Object]:
    """Return what Neutron's RPC tells an agent of the ports of this host.

    Source: neutron/plugins/ml2/rpc.py, _get_device_details
    """
    return [{'port_id': port['id'], **{
        name: port[name] for name in (
            'device', 'network_id', 'mac_address', 'fixed_ips',
            'device_owner', 'allowed_address_pairs',
            'port_security_enabled')}}
            for port in world['ports'] if 'device' in port]


def _id(number: int) -> str:
    return '%08x-0000-4000-8000-000000000000' % number


def vif_id(number: int) -> str:
    """Return the id of a port, by its number."""
    return _id(number + 1)


def mac(number: int) -> str:
    """Return the MAC of a port, by its number."""
    return 'fa:16:3e:00:00:%02x' % (number + 1)


def virtual(number: int) -> str:
    """Return a MAC that a port has beside its own, if a pair says so."""
    return '00:00:5e:00:01:%02x' % (number + 1)


def device(number: int) -> str:
    """Return the name of the TAP of a port, by its number."""
    return 'tap%08x-00' % (number + 1)


def number_of(protocol: str) -> int:
    """Return the number of a protocol that a rule has by name or number."""
    return int(PROTOCOLS.get(protocol, protocol))


TAPS = tuple(map(device, range(HERE)))


def _port(chance: random.Random, number: int,
          stateful: dict[str, bool]) -> _Object:
    kind = chance.choice([True, True, True, False])
    groups = sorted(chance.sample(
        [group for group in stateful if stateful[group] == kind],
        chance.choice([1, 1, 2, 2, 0] if number > 1 else [1, 2])))
    port = {'id': vif_id(number), 'network_id': NETWORK_ID,
            'mac_address': mac(number), 'device_owner': 'compute:nova',
            'port_security_enabled': True, 'security_groups': groups,
            'fixed_ips': [{'ip_address': address} for address
                          in _fixed_ips(chance, number)],
            'allowed_address_pairs': _pairs(chance, number)}
    if number < HERE:
        port['device'] = device(number)
    if number > 1 and chance.random() < .15:
        port.update(port_security_enabled=False, security_groups=[],
                    allowed_address_pairs=[])
    elif number > 1 and chance.random() < .1:
        port.update(device_owner='network:dhcp', security_groups=[],
                    allowed_address_pairs=[])
    return port


def _fixed_ips(chance: random.Random, number: int) -> list[str]:
    ipv4 = '10.0.0.%d' % (10 + number)
    ipv6 = chance.choice(['2001:db8::%x' % (0x10 + number),
                          '2001:db8::f816:3eff:fe00:%x' % (number + 1)])
    return chance.choice([
        [ipv4], [ipv4], [ipv4, ipv6], [ipv4, ipv6], [ipv6],
        [ipv4, '10.0.1.%d' % (10 + number), ipv6],
        [] if number > 1 else [ipv4]])


def _pairs(chance: random.Random, number: int) -> list[_Object]:
    other = virtual(number)
    return [{'mac_address': address_of, 'ip_address': address}
            for address_of, address in chance.sample([
                (mac(number), '10.0.0.200'), (other, '10.0.0.200'),
                (mac(number), '10.0.2.%d/28' % (number * 16)),
                (mac(number), '10.0.0.0/24'), (other, '2001:db8::200'),
                (mac(number), '2001:db8:5::/64')],
                chance.choice([0, 0, 0, 1, 1, 2]))]


def _prefix(chance: random.Random, family: int) -> str:
    return chance.choice(_PREFIXES[family])


def _rule(chance: random.Random, group: str, groups: list[str],
          address_groups: list[str]) -> _Object:
    family = chance.choice([4, 4, 6])
    rule = {'security_group_id': group, 'ethertype': 'IPv%d' % family,
            'direction': chance.choice(['ingress', 'ingress', 'egress']),
            **_protocol(chance, family),
            'remote_ip_prefix': None, 'normalized_cidr': None,
            'remote_group_id': None, 'remote_address_group_id': None}
    remote = chance.random()
    if remote < .35:
        rule['remote_ip_prefix'] = _prefix(chance, family)
    elif remote < .6:
        rule['remote_group_id'] = chance.choice([group, *groups])
    elif remote < .7:
        rule['remote_address_group_id'] = chance.choice(address_groups)
    return rule


def _protocol(chance: random.Random, family: int) -> _Object:
    """Return what a rule says of protocol and ports, or types."""
    number = chance.choice([
        None, 6, 6, 6, 17, 17, 17, *2 * [ICMP if family == 4 else ICMP6],
        chance.choice(list(PROTOCOLS.values())),
        chance.choice([51, 255, chance.randrange(256)])])
    found: _Object = {
        'protocol': None, 'port_range_min': None, 'port_range_max': None}
    if number is None or family == 4 and number in _IPV6_ONLY:
        return found
    found['protocol'] = chance.choice([str(number), *(
        name for name, each in PROTOCOLS.items() if each == number)])
    if number in WITH_PORTS and chance.random() < .8:
        found.update(zip(('port_range_min', 'port_range_max'),
                         chance.choice(_PORT_RANGES)))
    elif number in (ICMP, ICMP6) and chance.random() < .6:
        kinds = _ICMP_TYPES[6 if family == 6 else 4]
        found.update(port_range_min=chance.choice(kinds),
                     port_range_max=chance.choice([None, None, 0, 1]))
    return found
