# SPDX-License-Identifier: Apache-2.0

"""What becomes of a port, by what is known of it.

tests/neutron has what a neutron-server makes of it.
"""

import dataclasses
import re
import types

from tests import base
from tests import bound_port
from vif_plug_tapmac.cli import status
from vif_plug_tapmac.migrate import check
from vif_plug_tapmac.migrate import plan
from vif_plug_tapmac.migrate import ports
from vif_plug_tapmac.migrate.ports import Binding
from vif_plug_tapmac.migrate.ports import Facts

_OURS = Binding('ovs', 'br100', 'tapmac')
_NETWORK = types.SimpleNamespace(
    segments=None, provider_network_type='flat', qos_policy_id=None)


def old_port(**fields):
    """Return a port that the Linux bridge agent had, as openstacksdk has it.

    But for these fields.
    """
    return types.SimpleNamespace(**dict({
        'id': base.VIF_ID, 'mac_address': base.GUEST_MAC,
        'network_id': bound_port.NETWORK_ID, 'device_id': 'demo',
        'device_owner': 'compute:nova', 'status': 'ACTIVE',
        'binding_host_id': 'host1', 'binding_vif_type': 'bridge',
        'binding_vif_details': {'bound_drivers': {'0': 'linuxbridge'}},
        'binding_vnic_type': 'normal', 'binding_profile': {},
        'is_admin_state_up': True, 'is_port_security_enabled': True,
        'security_group_ids': [], 'allowed_address_pairs': [],
        'qos_policy_id': None, 'qos_network_policy_id': None,
        'trunk_details': None}, **fields))


class FateTest(base.TestCase):

    def fate(self, becomes=_OURS, facts=None, **fields):
        known = {'network': _NETWORK, 'becomes': becomes}
        return ports.fate(old_port(**fields), Facts(
            **dict(known, **(facts or {}))))

    def test_old_ones(self):
        self.assertEqual(
            ('re-bound', _OURS, ()), self.fate()[:3])
        self.assertEqual(('re-bound', None, ()), self.fate(None)[:3])

    def test_those_of_others_stay(self):
        for vif_type, driver in (('ovs', 'openvswitch'), ('ovs', 'ovn'),
                                 ('hw_veb', 'sriovnicswitch')):
            self.assertEqual(('stays', None, (), ()), self.fate(
                binding_vif_type=vif_type,
                binding_vif_details={'bound_drivers': {'0': driver}}))

    def test_ours(self):
        details = {'bridge_name': 'br100', 'bound_drivers': {'0': 'tapmac'}}
        for vif_type, becomes, marked, what in (
                ('ovs', _OURS, False, 'stays'), ('ovs', None, False, 'stays'),
                ('bridge', _OURS, False, 're-bound'),
                ('ovs', Binding('ovs', 'br200', 'tapmac'), False, 're-bound'),
                ('ovs', _OURS, True, 're-bound')):
            self.assertEqual(what, self.fate(
                becomes, binding_vif_type=vif_type,
                binding_vif_details=details,
                binding_profile={ports.MARK: ''} if marked else {}).what)

    def test_where_an_agent_enforces_its_groups(self):
        fields = {'security_group_ids': ['demo'], 'allowed_address_pairs': [
            {'mac_address': 'fa:16:3e:00:00:07'}]}
        becomes = Binding.of(old_port(
            binding_vif_type='ovs', binding_vif_details={
                'bridge_name': 'br100', 'port_filter': True,
                'bound_drivers': {'0': 'tapmac'}}))
        for binding, count in (_OURS, 2), (becomes, 0):
            self.assertEqual(count, len([
                note for note in self.fate(binding, **fields).notes
                if re.search('nobody enforces|cannot send', note)]))

    def test_ours_of_before_there_was_an_agent(self):
        """And of after it."""
        guarded = dataclasses.replace(_OURS, has_agent=True)
        for port_filter, becomes, what in (
                (False, guarded, 're-bound'), (True, guarded, 'stays'),
                (True, _OURS, 're-bound'), (False, _OURS, 'stays')):
            found = self.fate(
                becomes, binding_vif_type='ovs', binding_vif_details={
                    'bridge_name': 'br100', 'port_filter': port_filter,
                    'bound_drivers': {'0': 'tapmac'}},
                security_group_ids=['demo'])
            self.assertEqual(what, found.what)
            self.assertEqual(
                [] if what == 'stays' else
                ['it is DOWN until tapmac-agent of its host guards it']
                if becomes is guarded else
                ['nobody enforces its security groups any more: demo'],
                list(found.notes))

    def test_old_ones_that_get_an_agent(self):
        found = self.fate(dataclasses.replace(_OURS, has_agent=True),
                          security_group_ids=['demo'])
        self.assertEqual('it is DOWN until tapmac-agent of its host guards it',
                         found.notes[-1])

    def test_mark_that_came_along_to_a_host_of_another_driver(self):
        """By a live migration, for which Nova copies the profile."""
        theirs = Binding('ovs', 'br-int', 'openvswitch')
        found = self.fate(
            theirs, binding_vif_type='ovs', binding_vif_details={
                'bridge_name': 'br-int',
                'bound_drivers': {'0': 'openvswitch'}},
            binding_profile={ports.MARK: ''})
        self.assertEqual(('re-bound', theirs, ()), found[:3])

    def test_what_came_to_nothing(self):
        for vif_type in 'unbound', 'binding_failed':
            for device, what in (('demo', 're-bound'), ('', 'stays')):
                self.assertEqual(what, self.fate(
                    binding_vif_type=vif_type, binding_vif_details={},
                    device_id=device).what)

    def test_what_tapmac_does_not_serve(self):
        for words, fields in (
                ('network:dhcp', {'device_owner': 'network:dhcp'}),
                ('trunk:subport', {'device_owner': 'trunk:subport'}),
                ('direct', {'binding_vnic_type': 'direct'}),
                *(('the type ' + kind, {'facts': {
                    'network': types.SimpleNamespace(
                        segments=None, provider_network_type=kind)}})
                  for kind in ('vxlan', 'gre', 'geneve'))):
            found = self.fate(**fields)
            self.assertEqual('not served by tapmac', found.what)
            self.assertIn(words, *found.stops)

    def test_one_segment_that_has_a_bridge_is_enough(self):
        network = types.SimpleNamespace(
            provider_network_type=None, qos_policy_id=None, segments=[
                {'provider:network_type': 'vxlan'},
                {'provider:network_type': 'vlan'}])
        self.assertEqual('re-bound', self.fate(
            facts={'network': network}).what)

    def test_what_stops_it(self):
        for words, fields in (
                ('QoS policy q', {'qos_policy_id': 'q'}),
                ('QoS policy q of its network',
                 {'qos_network_policy_id': 'q'}),
                ('guaranteed bandwidth',
                 {'binding_profile': {'allocation': {'g': 'p'}}}),
                ('admin_state_up False', {'is_admin_state_up': False}),
                ('trunk t', {'trunk_details': {'trunk_id': 't'}}),
                ('on host2, too', {'facts': {'beside': ('host2',)}}),
                ('(resizing)', {'facts': {'task': 'resizing'}}),
                ('nobody', {'facts': {'refusal': 'nobody', 'becomes': None}}),
                ('bound as bridge by linuxbridge',
                 {'becomes': Binding('bridge', None, 'linuxbridge')})):
            found = self.fate(**fields)
            self.assertEqual('re-bound', found.what)
            self.assertIn(words, *found.stops)

    def test_old_driver_that_would_do_it_again(self):
        found = self.fate(Binding.of(old_port()))
        self.assertEqual('re-bound', found.what)
        self.assertIn('it would be bound as bridge on brq5d6a7b8c-00 by '
                      'linuxbridge', *found.stops)

    def test_nova_of_the_host(self):
        bridge = Binding('bridge', 'br100', 'tapmac')
        for becomes, nova, stops in (
                (_OURS, (2, 96), 1), (_OURS, (2, 100), 1),
                (_OURS, (2, 103), 0), (_OURS, (2, 104), 0), (_OURS, None, 0),
                (bridge, (2, 100), 0), (bridge, (2, 103), 0),
                (bridge, (2, 104), 1), (None, (2, 100), 0)):
            self.assertEqual(stops, len(self.fate(
                becomes, {'nova': nova}).stops), (becomes, nova))

    def test_notes_stop_nothing(self):
        pair = {'ip_address': '192.0.2.7'}
        for words, fields in (
                ('security groups any more: g', {'security_group_ids': ['g']}),
                ('address pairs any more', {'allowed_address_pairs': [
                    dict(pair, mac_address=base.GUEST_MAC.upper())]}),
                ('address pairs any more', {'allowed_address_pairs': [pair]}),
                ('cannot send from fa:16:3e:00:00:07',
                 {'allowed_address_pairs': [
                     dict(pair, mac_address='fa:16:3e:00:00:07')]}),
                ('must have Nova 33', {'facts': {'nova': (2, 103)}}),
                ('restores its profile',
                 {'binding_profile': {ports.MARK: ''}})):
            found = self.fate(**fields)
            self.assertEqual(('re-bound', ()), (found.what, found.stops))
            self.assertIn(words, '; '.join(found.notes))

    def test_bridge_of_another_name(self):
        for details, times in (({'bridge_name': 'br100'}, 0), ({}, 1)):
            found = self.fate(binding_vif_details=dict(
                details, bound_drivers={'0': 'linuxbridge'}))
            self.assertEqual(times, '; '.join(found.notes).count(
                'its TAP stays on brq5d6a7b8c-00 until that bridge is called '
                'br100'))


class StatusTest(base.TestCase):
    """What tapmac-status makes of it on a compute host."""

    def test_bindings(self):
        old = old_port()
        ours = old_port(binding_vif_type='ovs')
        for seen, nova, code, words in (
                ([], 34, 0, None), ([(ours, None)], 34, 0, None),
                ([(old, None)], 33, 0, None), ([(old, None)], None, 0, None),
                ([(old, 'nobody')], 33, 1, 'Port %s: nobody.' % old.id),
                ([(ours, None), (old, None)], 34, 2, 'as these: ' + old.id)):
            found = status.bindings_result(seen, nova)
            self.assertEqual(code, found.code.value)
            if words:
                self.assertIn(words, found.details)


class PageTest(base.TestCase):

    def test_each_key_is_documented(self):
        text = (base.CHECKOUT / 'doc/source/cli/tapmac-migrate.rst'
                ).read_text().partition('Output for scripts\n')[2]
        self.assertEqual(
            {*plan.COLUMNS, *check.COLUMNS},
            {key for line in re.findall(r'(?m)^``.*``$', text)
             for key in re.findall('``(.+?)``', line)})


class ProfileTest(base.TestCase):

    def test_without_what_is_not_its_own(self):
        for given, fields, kept in (
                (None, {}, {}), ({'a': 'b'}, {}, {'a': 'b'}),
                ({'a': 'b', ports.MARK: 'x'}, {}, {'a': 'b'}),
                ({'trusted': True}, {'trusted': True}, {}),
                ({'trusted': True}, {'trusted': None}, {'trusted': True}),
                ({'trusted': True}, {}, {'trusted': True})):
            self.assertEqual(kept, ports.profile(
                old_port(binding_profile=given, **fields)))
