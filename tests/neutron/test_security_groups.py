# SPDX-License-Identifier: Apache-2.0

"""Security groups, from REST to our values.

What is made over REST is told by the classes that neutron-server answers its
agents with, on the same database. What our values are is known here.
"""

from neutron_lib import constants

from tests.neutron import agents
from vif_plug_tapmac.wanted import from_neutron
from vif_plug_tapmac.wanted import names
from vif_plug_tapmac.wanted import security_groups

_PAIR_MAC = '02:00:00:00:00:01'


class SecurityGroupsTest(agents.ServerTestCase):

    def setUp(self):
        super().setUp()
        self.network = self.vlan_network()
        self.subnets = [self.create(
            'subnet', network_id=self.network['id'], ip_version=version,
            cidr=cidr, enable_dhcp=False) for version, cidr in (
                (4, '192.0.2.0/24'), (6, '2001:db8::/64'))]

    def port(self, *addresses, **fields):
        # Without any it would be in the default group of its project.
        return super().port(self.network, fixed_ips=[
            {'subnet_id': self.subnets[':' in each]['id'],
             'ip_address': each} for each in addresses], **dict(
                 {'security_groups': []}, **fields))

    def ask(self, *ports):
        """Return what the server tells the host of these ports."""
        devices = [names.nova_tap_name(each['id']) for each in ports]
        info = self.server.call('groups', 'security_group_info_for_devices',
                                devices=devices, call_version='1.3')
        return {'info': info, 'details': self.server.call(
            'ports', 'get_devices_details_list', agent_id='demo',
            host='host1', devices=devices)}

    def values(self, *ports):
        told = self.ask(*ports)
        answer = from_neutron.from_rpc(told['info'], told['details'],
                                       is_all=True)
        self.assertEqual((), answer.refused)
        return answer.change

    def test_from_rest_to_values(self):
        with_rules, check_rules = self.all_kinds_of_rules()
        ports, check_ports = self.all_kinds_of_ports()
        change = self.values(with_rules, *ports)
        check_rules(change)
        check_ports({each.vif_id: each for each in change.ports
                     if each.vif_id != with_rules['id']})

    def all_kinds_of_rules(self):
        """Create them; return a port, and what looks at the values."""
        remote = self.group()
        addresses = self.create('address-group', name='demo', addresses=[
            '198.51.100.0/25', '198.51.100.128/25', '2001:db8:1::/48'])['id']
        told, wanted = [], set()

        def expect(family, number, first=None, last=None, prefix=None,
                   members=None, direction='ingress', **fields):
            told.append({'ethertype': 'IPv%d' % family,
                         'direction': direction, **fields})
            wanted.add((direction, family, number, first, last, prefix,
                        members))

        for name in constants.IP_PROTOCOL_MAP:
            value = constants.IP_PROTOCOL_MAP[name]
            if name not in ('icmp', 'icmpv6', 'ip', 'hopopt'):
                expect(6, value, protocol=name)
                # The same twice is refused.
                expect(6, value, protocol=str(value), direction='egress')
        expect(4, None)
        expect(6, None, prefix='::/0', remote_ip_prefix='::/0')
        expect(4, 1, 8, 0, protocol='icmp', port_range_min=8,
               port_range_max=0)
        expect(4, 1, 0, protocol='1', port_range_min=0)
        expect(6, 58, 128, protocol='icmpv6', port_range_min=128)
        expect(6, 58, 1, 4, protocol='icmp', port_range_min=1,
               port_range_max=4, direction='egress')
        for protocol in security_groups.WITH_PORTS:
            expect(4, protocol, 22, 22, '192.0.2.0/24',
                   protocol=str(protocol), port_range_min=22,
                   port_range_max=22, remote_ip_prefix='192.0.2.77/24')
            expect(4, protocol, 1024, 65535, protocol=str(protocol),
                   port_range_min=1024, port_range_max=65535)
        # All ports are none to Neutron.
        expect(4, 6, direction='egress', protocol='tcp', port_range_min=1,
               port_range_max=65535)
        expect(4, 17, prefix='0.0.0.0/0', direction='egress', protocol='udp',
               remote_ip_prefix='0.0.0.0/0')
        expect(4, None, members='group:' + remote, remote_group_id=remote)
        for family in 4, 6:
            expect(family, 6, 443, 443, None, 'address_group:' + addresses,
                   'egress', protocol='tcp', port_range_min=443,
                   port_range_max=443, remote_address_group_id=addresses)
        group = self.group(*told)
        port = self.port('192.0.2.9', '2001:db8::9', security_groups=[group])
        self.port('192.0.2.11', '192.0.2.13', '2001:db8::11',
                  security_groups=[remote], allowed_address_pairs=[
                      {'ip_address': '203.0.113.0/24'}])

        def check(change):
            rules, = (each.rules for each in change.groups if each.id == group)
            self.assertEqual(wanted, {
                (each.direction, each.family, each.protocol, each.first,
                 each.last, each.remote, each.remote_set) for each in rules})
            self.assertEqual(len(told), len(rules))
            self.assertEqual({
                # Of IPv4 only, as no rule asks for others.
                ('group:' + remote, 4): {'192.0.2.11/32', '192.0.2.13/32',
                                         '203.0.113.0/24'},
                ('address_group:' + addresses, 4): {'198.51.100.0/24'},
                ('address_group:' + addresses, 6): {'2001:db8:1::/48'}},
                {each.key: each.prefixes for each in change.members})
        return port, check

    def all_kinds_of_ports(self):
        """Create them; return them, and what looks at the values."""
        stateful = self.group({'direction': 'egress'})
        stateless = self.group({'direction': 'egress'}, stateful=False)
        empty = self.group(stateful=False)
        guest = self.port(
            '192.0.2.10', '2001:db8::10', security_groups=[stateful],
            allowed_address_pairs=[
                {'ip_address': '10.0.0.0/8'},
                {'ip_address': '192.0.2.77', 'mac_address': _PAIR_MAC}])
        others = [
            self.port('192.0.2.20', security_groups=[stateless]),
            self.port('192.0.2.21', security_groups=[empty]),
            self.port('192.0.2.22', security_groups=[]),
            self.port('192.0.2.23', security_groups=[],
                      port_security_enabled=False),
            self.port('192.0.2.24'),
            self.port(security_groups=[stateful])]
        # The driver binds none such itself.
        trusted = others[-2]['id']
        self.neutron.database.execute(
            'UPDATE neutron.ports SET device_owner = "network:dhcp" '
            'WHERE id = %s', trusted)
        elsewhere = self.port('192.0.2.25', host='host2')
        gone = self.port('192.0.2.26')
        self.neutron.request('DELETE', 'ports/' + gone['id'])

        def check(ports):
            found = ports[guest['id']]
            mac = guest['mac_address']
            self.assertEqual(
                (names.nova_tap_name(guest['id']), mac, {
                    (mac, '192.0.2.10/32'), (mac, '2001:db8::10/128'),
                    (mac, '10.0.0.0/8'), (_PAIR_MAC, '192.0.2.77/32')},
                 (stateful,), False, True),
                (found.tap, found.mac, set(found.own), found.groups,
                 found.is_open, found.stateful))
            # Neutron tells what a port may, wherever it is; what is gone is
            # not taken for one that it trusts.
            self.assertEqual({guest['id'], elsewhere['id'], *(
                each['id'] for each in others)}, set(ports))
            self.assertEqual(
                [((stateless,), False, False), ((empty,), False, True),
                 ((), False, True), ((), True, True), ((), True, True),
                 ((stateful,), False, True)],
                [(found.groups, found.is_open, found.stateful)
                 for found in (ports[each['id']] for each in others)])
            self.assertEqual((), ports[others[-1]['id']].own)
        return [guest, *others, elsewhere, gone], check
