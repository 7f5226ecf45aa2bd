# SPDX-License-Identifier: Apache-2.0

"""What Neutron's RPC says of security groups, as our values."""

from neutron_lib import constants

from tests import base
from vif_plug_tapmac.wanted import from_neutron
from vif_plug_tapmac.wanted.security_groups import Members
from vif_plug_tapmac.wanted.security_groups import Rule

_PORT, _GROUP, _OTHER, _ADDRESSES = (
    '%s-0000-4000-8000-000000000000' % (each * 8) for each in 'abcd')
_TAP, _MAC = 'tapaaaaaaaa-00', base.GUEST_MAC


def _info(*rules, members=None, **port):
    """Return an answer about one port, as the server gives it."""
    return {'devices': {_PORT: {
        'id': _PORT, 'device': _TAP, 'device_owner': 'compute:nova',
        'mac_address': _MAC, 'fixed_ips': ['192.0.2.10', '2001:db8::10'],
        'allowed_address_pairs': [], 'port_security_enabled': True,
        'security_groups': [_GROUP], 'security_group_rules': [], **port}},
        'security_groups': {_GROUP: [
            {'direction': 'ingress', 'ethertype': 'IPv4', 'stateful': True,
             **each} for each in rules]},
        'sg_member_ips': members or {}}


class FromNeutronTest(base.TestCase):

    def rules(self, *told, **more):
        answer = from_neutron.from_rpc(_info(*told, **more), is_all=True)
        self.assertEqual((), answer.refused)
        return answer.change.groups[0].rules

    def rule(self, **told):
        found, = self.rules(told)
        return found.family, found.protocol, found.first, found.last

    def test_every_protocol_by_name_and_number(self):
        self.assertEqual(constants.IP_PROTOCOL_MAP, from_neutron.PROTOCOLS)
        for name, number in constants.IP_PROTOCOL_MAP.items():
            for told in (name, name.upper(), str(number), number):
                self.assertEqual((6, {1: 58}.get(number, number) or None,
                                  None, None),
                                 self.rule(ethertype='IPv6', protocol=told))
        for number in range(1, 256):
            self.assertEqual((4, number, None, None),
                             self.rule(protocol=str(number)))
        for any_ in (None, 'any', '0', 'ip', 'hopopt'):
            self.assertEqual((4, None, None, None), self.rule(protocol=any_))

    def test_ports_and_types(self):
        for told in ('tcp', 'udp', 'dccp', 'sctp', 'udplite', '6', '17', '33',
                     '132', '136'):
            self.assertEqual((22, 80), self.rule(
                protocol=told, port_range_min=22, port_range_max=80)[2:])
        for told, least, most, wanted in (
                ({'protocol': 'icmp'}, 0, None, (4, 1, 0, None)),
                ({'protocol': '1'}, 8, 0, (4, 1, 8, 0)),
                ({'protocol': 'icmp', 'ethertype': 'IPv6'}, 128, 0,
                 (6, 58, 128, 0)),
                ({'protocol': 'icmpv6', 'ethertype': 'IPv6'}, 1, None,
                 (6, 58, 1, None)),
                ({'protocol': '1', 'ethertype': 'IPv6'}, 255, 255,
                 (6, 58, 255, 255)),
                # A protocol that has none, which the server refuses.
                ({'protocol': 'vrrp'}, 1, 2, (4, 112, None, None))):
            self.assertEqual(wanted, self.rule(
                port_range_min=least, port_range_max=most, **told))

    def test_remote(self):
        group, addresses = 'group:' + _OTHER, 'address_group:' + _ADDRESSES
        for told, wanted in (
                ({}, (None, None)),
                ({'source_ip_prefix': '192.0.2.0/24'}, ('192.0.2.0/24', None)),
                ({'source_ip_prefix': '192.0.2.5/24'}, ('192.0.2.0/24', None)),
                ({'source_ip_prefix': '0.0.0.0/0'}, ('0.0.0.0/0', None)),
                # Of the other direction.
                ({'dest_ip_prefix': '192.0.2.0/24'}, (None, None)),
                ({'direction': 'egress', 'dest_ip_prefix': '192.0.2.0/24'},
                 ('192.0.2.0/24', None)),
                ({'ethertype': 'IPv6', 'source_ip_prefix': '2001:DB8::/32'},
                 ('2001:db8::/32', None)),
                ({'remote_group_id': _OTHER}, (None, group)),
                ({'remote_address_group_id': _ADDRESSES}, (None, addresses))):
            rule, = self.rules(told)
            self.assertEqual(wanted, (rule.remote, rule.remote_set))

    def test_members_of_the_families_that_rules_name_only(self):
        told = {_OTHER: {'IPv4': [['192.0.2.0', None], ['192.0.2.1', _MAC]],
                         'IPv6': [['2001:db8::1', None]]},
                _ADDRESSES: {'IPv6': [['2001:db8::/64', None]]}}
        rules = [{'remote_group_id': _OTHER},
                 {'remote_address_group_id': _ADDRESSES, 'ethertype': 'IPv6'}]
        self.assertEqual({
            Members('group:' + _OTHER, 4, frozenset(['192.0.2.0/31'])),
            Members('address_group:' + _ADDRESSES, 6,
                    frozenset(['2001:db8::/64']))},
            set(from_neutron.from_rpc(
                _info(*rules, members=told)).change.members))

    def test_members_that_it_does_not_tell_are_none(self):
        found, = from_neutron.from_rpc(
            _info({'remote_group_id': _OTHER}), is_all=True).change.members
        self.assertEqual(Members('group:' + _OTHER, 4), found)

    def test_a_port(self):
        other = '02:00:00:00:00:01'
        port, = from_neutron.from_rpc(_info(allowed_address_pairs=[
            {'mac_address': other.upper(), 'ip_address': '192.0.2.9/24'},
            {'mac_address': _MAC, 'ip_address': '192.0.2.10'}])).change.ports
        self.assertEqual(
            (_PORT, _TAP, _MAC, (
                (other, '192.0.2.0/24'), (_MAC, '192.0.2.10/32'),
                (_MAC, '2001:db8::10/128')), (_GROUP,), False, True),
            tuple(vars(port).values()))

    def test_a_port_without_addresses_may_have_none(self):
        # Neutron's driver lets it have any, then.
        port, = from_neutron.from_rpc(_info(fixed_ips=[])).change.ports
        self.assertEqual((), port.own)

    def test_who_is_open(self):
        def is_open(**told):
            port, = from_neutron.from_rpc(_info(**told)).change.ports
            return port.is_open
        self.assertFalse(is_open())
        self.assertTrue(is_open(port_security_enabled=False))
        self.assertTrue(is_open(device_owner='network:dhcp'))
        self.assertFalse(is_open(device_owner='compute:network:'))

    def test_who_is_trusted(self):
        # Of a trusted port the answer about groups says nothing; nor does it
        # of one that has gone, or is bound elsewhere.
        told = {'device': _TAP, 'port_id': _PORT, 'mac_address': _MAC,
                'device_owner': 'network:dhcp', 'fixed_ips': [
                    {'ip_address': '192.0.2.2', 'subnet_id': _OTHER}]}
        nothing = {'devices': {}, 'security_groups': {}, 'sg_member_ips': {}}
        port, = from_neutron.from_rpc(nothing, [told]).change.ports
        self.assertEqual((True, ((_MAC, '192.0.2.2/32'),)),
                         (port.is_open, port.own))
        for other in ({**told, 'device_owner': 'compute:nova'},
                      {'device': _TAP},
                      {'device': _TAP, 'no_active_binding': True}):
            self.assertEqual((), from_neutron.from_rpc(
                nothing, [other]).change.ports)
        # What is in the answer is not trusted, whatever it was before.
        port, = from_neutron.from_rpc(_info(), [told]).change.ports
        self.assertFalse(port.is_open)

    def test_stateful(self):
        info = _info({'stateful': False})
        info['security_groups'][_OTHER] = []
        info['devices'][_PORT]['security_groups'] = [_OTHER, _GROUP]
        change = from_neutron.from_rpc(info, is_all=True).change
        self.assertFalse(change.ports[0].stateful)
        self.assertEqual({_GROUP: False, _OTHER: True},
                         {each.id: each.stateful for each in change.groups})

    def test_what_is_wrong_costs_itself_only(self):
        info = _info(
            {}, {'protocol': 'tcp', 'port_range_min': 22},
            {'protocol': 'tcp', 'port_range_min': 9, 'port_range_max': 8},
            {'protocol': 'tcp', 'port_range_max': 8}, {'protocol': 'x'},
            {'protocol': '256'}, {'ethertype': 'IPX'}, {'direction': 'both'},
            {'source_ip_prefix': '::/0'}, {'source_ip_prefix': 'x'},
            {'source_ip_prefix': '10.0.0.0/8', 'remote_group_id': _OTHER},
            {'remote_group_id': _OTHER}, {'remote_group_id': 'x'},
            members={_OTHER: {'IPv4': [['x', None], ['192.0.2.1', None],
                                       ['::1', None]]}},
            allowed_address_pairs=[
                {'mac_address': 'x', 'ip_address': '192.0.2.1'},
                {'mac_address': _MAC, 'ip_address': '224.0.0.1'}])
        info['devices']['x'] = {**info['devices'][_PORT], 'id': 'x'}
        info['devices']['y'] = {'id': _OTHER, 'device': 'tapy'}
        change, refused = from_neutron.from_rpc(info, is_all=True)
        self.assertEqual(
            (Rule('any', 'ingress', 4),
             Rule('any group:' + _OTHER, 'ingress', 4,
                  remote_set='group:' + _OTHER)), change.groups[0].rules)
        self.assertEqual((Members('group:' + _OTHER, 4,
                                  frozenset(['192.0.2.1/32'])),),
                         change.members)
        self.assertEqual(2, len(change.ports[0].own))
        self.assertEqual([_PORT], [each.vif_id for each in change.ports])
        # Eleven rules, two members, two pairs, twice, and two ports.
        self.assertEqual(19, len(refused), refused)

    def test_a_group_that_is_too_much_is_as_if_it_had_no_rules(self):
        info = _info(*[{'protocol': 'tcp', 'port_range_min': each,
                        'port_range_max': each} for each in range(1, 4098)])
        change, refused = from_neutron.from_rpc(info, is_all=True)
        self.assertEqual(((), ()), (change.groups, change.ports[0].groups))
        self.assertEqual(1, len(refused))
