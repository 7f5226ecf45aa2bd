# SPDX-License-Identifier: Apache-2.0

"""Security groups as values: what they refuse, keep, and carry across."""

import dataclasses
import ipaddress

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import msgpack

from tests import base
from vif_plug_tapmac.wanted import changes
from vif_plug_tapmac.wanted import prefixes
from vif_plug_tapmac.wanted import security_groups
from vif_plug_tapmac.wanted.security_groups import Change
from vif_plug_tapmac.wanted.security_groups import Group
from vif_plug_tapmac.wanted.security_groups import Members
from vif_plug_tapmac.wanted.security_groups import Port
from vif_plug_tapmac.wanted.security_groups import Rule

_A, _B = ('%s-0000-4000-8000-000000000000' % (each * 8) for each in 'ab')
_MAC = base.GUEST_MAC

_UUIDS = st.sampled_from([
    '%08x-0000-4000-8000-000000000000' % number for number in range(4)])
_SETS = st.builds(str.__add__, st.sampled_from(['group:', 'address_group:']),
                  _UUIDS)
_FAMILIES = st.sampled_from([4, 6])


def _prefixes(family):
    bits = 32 if family == 4 else 128
    return st.builds(
        lambda address, length: prefixes.canonical(
            '%s/%d' % (address, length), family),
        st.ip_addresses(v=family), st.integers(0, bits))


@st.composite
def _rules(draw):
    family = draw(_FAMILIES)
    protocol = draw(st.one_of(st.none(), st.integers(1, 255),
                              st.sampled_from([1, 6, 17, 58])))
    first = last = None
    if protocol in security_groups.WITH_PORTS and draw(st.booleans()):
        first, last = sorted(draw(st.tuples(*[st.integers(0, 65535)] * 2)))
    elif protocol == security_groups.ICMP[family] and draw(st.booleans()):
        first = draw(st.integers(0, 255))
        last = draw(st.one_of(st.none(), st.integers(0, 255)))
    remote = draw(st.one_of(st.none(), _prefixes(family)))
    name = draw(st.none() if remote else st.one_of(st.none(), _SETS))
    return Rule('a rule', draw(st.sampled_from(['ingress', 'egress'])),
                family, protocol, first, last, remote, name)


_GROUPS = st.builds(Group, _UUIDS, st.booleans(),
                    st.lists(_rules(), max_size=4).map(tuple))
_MEMBERS = _FAMILIES.flatmap(lambda family: st.builds(
    Members, _SETS, st.just(family),
    st.frozensets(_prefixes(family), max_size=6)))
_PORTS = st.builds(
    lambda vif_id, *rest: Port(vif_id, 'tap' + vif_id[:8], *rest),
    _UUIDS, st.just(_MAC),
    st.lists(st.tuples(
        st.sampled_from([_MAC, '02:00:00:00:00:01']),
        st.sampled_from(['192.0.2.1', '192.0.2.0/24', '2001:db8::/64',
                         '0.0.0.0/0'])), max_size=4).map(tuple),
    st.lists(_UUIDS, max_size=3).map(tuple), st.booleans(), st.booleans())


def _unique(values):
    return st.lists(values, max_size=4, unique_by=lambda each: each.key).map(
        tuple)


_CHANGES = st.builds(
    lambda *there: Change(there[0], groups=there[1], members=there[2]),
    _unique(_PORTS), _unique(_GROUPS), _unique(_MEMBERS))


@st.composite
def _states(draw):
    """Return all of a host: what ports and rules name is there, no more."""
    groups = {each.id: each for each in draw(_unique(_GROUPS))}
    ports = tuple(dataclasses.replace(each, groups=tuple(
        group for group in each.groups if group in groups))
        for each in draw(_unique(_PORTS)))
    used = {group for each in ports for group in each.groups}
    groups = tuple(each for each in groups.values() if each.id in used)
    members = tuple(
        Members(*key, draw(st.frozensets(_prefixes(key[1]), max_size=3)))
        for key in sorted({rule.members for each in groups
                           for rule in each.rules} - {None}))
    return Change(ports, groups=groups, members=members, is_all=True)


def _sorted(change):
    return tuple(sorted(getattr(change, kind), key=lambda each: each.key)
                 for kind in ('ports', 'groups', 'members'))


class SecurityGroupsTest(base.TestCase):

    @given(_CHANGES)
    @settings(max_examples=25, deadline=None)
    def test_a_change_crosses_the_boundary(self, change):
        # As privsep packs and unpacks it.
        fields = msgpack.unpackb(msgpack.packb(change.as_fields()),
                                 use_list=False)
        self.assertEqual(change, Change.from_fields(fields))

    @given(_FAMILIES.flatmap(lambda family: st.tuples(
        st.just(family), st.lists(_prefixes(family), max_size=6))))
    def test_members_are_merged_and_the_same(self, what):
        family, every = what
        networks = [ipaddress.ip_network(each) for each in every]
        found = [ipaddress.ip_network(each) for each in
                 Members('group:' + _A, family, frozenset(every)).prefixes]
        self.assertEqual(
            [], [(one, other) for one in found for other in found
                 if one is not other and one.overlaps(other)])
        for one, many in ((networks, found), (found, networks)):
            left = ipaddress.collapse_addresses(one)
            self.assertEqual([], [each for each in left if not any(
                each.subnet_of(other)
                for other in ipaddress.collapse_addresses(many))])

    def test_ends_of_the_addresses(self):
        for family, given_, wanted in (
                (4, ['0.0.0.0/1', '128.0.0.0/1', '192.0.2.1'], ['0.0.0.0/0']),
                (4, ['255.255.255.255', '255.255.255.254'],
                 ['255.255.255.254/31']),
                (6, ['::/0', '2001:db8::1'], ['::/0']),
                (4, ['192.0.2.1', '192.0.2.2'],
                 ['192.0.2.1/32', '192.0.2.2/32'])):
            self.assertEqual(frozenset(wanted), Members(
                'group:' + _A, family, frozenset(given_)).prefixes)

    def test_no_such_rule(self):
        for bad in (
                {'id': ''}, {'id': 'x' * 121}, {'id': 'a\nb'}, {'id': 'ä'},
                {'id': None}, {'direction': 'in'}, {'direction': []},
                {'family': 5}, {'family': '4'}, {'family': True},
                {'protocol': 0}, {'protocol': 256}, {'protocol': 'tcp'},
                {'protocol': True}, {'first': 1}, {'last': 1},
                {'protocol': 6, 'first': 22}, {'protocol': 6, 'last': 22},
                {'protocol': 6, 'first': 23, 'last': 22},
                {'protocol': 6, 'first': -1, 'last': 22},
                {'protocol': 6, 'first': 1, 'last': 65536},
                {'protocol': 6, 'first': '1', 'last': '2'},
                {'protocol': 1, 'last': 0}, {'protocol': 1, 'first': 256},
                {'protocol': 1, 'first': 3, 'last': 256},
                {'protocol': 58, 'first': 128},
                {'protocol': 47, 'first': 1, 'last': 1},
                {'remote': '192.0.2.1'}, {'remote': '192.0.2.1/24'},
                {'remote': '::/0'}, {'remote': 5}, {'remote': 'x'},
                {'remote': '192.0.2.0/255.255.255.0'},
                {'remote_set': _A}, {'remote_set': 'group:x'},
                {'remote_set': 'group:%s\n' % _A}, {'remote_set': 5},
                {'remote_set': 'group:' + _A, 'remote': '0.0.0.0/0'}):
            self.assertRaises(ValueError, lambda: Rule(**{
                'id': 'x', 'direction': 'ingress', 'family': 4, **bad}))

    def test_the_least_and_the_most_of_a_rule(self):
        for good in (
                {'protocol': 255}, {'protocol': 6, 'first': 0, 'last': 65535},
                {'protocol': 1, 'first': 0, 'last': 0},
                {'protocol': 1, 'first': 8, 'last': 0},
                {'protocol': 1, 'first': 255, 'last': 255},
                {'remote': '0.0.0.0/0'}, {'remote': '255.255.255.255/32'}):
            Rule(**{'id': 'x' * 120, 'direction': 'egress', 'family': 4,
                    **good})
        Rule('x', 'egress', 6, 58, 0, None, '::/0')

    def test_no_such_port(self):
        for bad in (
                {'vif_id': 'x'}, {'vif_id': _A.upper()}, {'tap': 'a/b'},
                {'tap': 'x' * 16}, {'tap': None}, {'mac': _MAC.upper()},
                {'mac': '01:00:00:00:00:00'}, {'mac': 5}, {'own': [1]},
                {'own': (('x', '192.0.2.1'),)}, {'own': ((_MAC, 5),)},
                {'own': ((_MAC,),)}, {'own': ((_MAC, '224.0.0.1'),)},
                {'own': ((_MAC, '0.0.0.0'),)}, {'own': (7,)},
                {'own': ((_MAC, '192.0.2.1'),) * 1025}, {'groups': ('x',)},
                {'groups': [_A]}, {'groups': (_A,) * 257}, {'is_open': 1},
                {'stateful': None}):
            self.assertRaises(ValueError, lambda: Port(**{
                'vif_id': _A, 'tap': 'tapa', 'mac': _MAC, **bad}))

    def test_what_a_port_may_call_itself(self):
        other = '02:00:00:00:00:01'
        self.assertEqual(
            ((other, '192.0.2.0/25'), (_MAC, '0.0.0.0/0'),
             (_MAC, '192.0.2.1/32'), (_MAC, '2001:db8::/64')),
            Port(_A, 'tapa', _MAC, (
                (_MAC, '192.0.2.0/24'), (_MAC, '192.0.2.1'),
                (_MAC, '192.0.2.1/32'), (_MAC, '0.0.0.0/0'),
                (other, '192.0.2.0/25'), (_MAC, '2001:db8::1/64'))).own)

    def test_no_such_change(self):
        port = Port(_A, 'tapa', _MAC)
        in_a = Port(_A, 'tapa', _MAC, groups=(_A,))
        asks = Rule('x', 'ingress', 4, remote_set='group:' + _B)
        for bad in (
                {'ports': [port]}, {'ports': (port, port)},
                {'ports': (port, Port(_B, 'tapa', _MAC))},
                {'ports': (port,), 'gone': (_A,)}, {'gone': ('x',)},
                {'groups': (Group(_A, True),), 'gone_groups': (_A,)},
                {'members': (Members('group:' + _A, 4),) * 2},
                {'gone_members': (('group:x', 4),)},
                {'gone_members': (('group:' + _A, 5),)},
                {'gone_members': (('group:' + _A,),)},
                {'is_all': True, 'gone': (_A,)},
                {'is_all': True, 'ports': (in_a,)},
                {'is_all': True, 'groups': (Group(_A, True, (asks,)),)},
                {'is_all': True, 'groups': (Group(_A, True, (asks,)),),
                 'members': (Members('group:' + _B, 6),)},
                {'is_all': 1}, {'ports': (port,) * 4097},
                {'groups': tuple(Group(_numbered(each), True, (asks,) * 4096)
                                 for each in range(33))}):
            self.assertRaises(ValueError, lambda: Change(**bad))
        Change((in_a,), groups=(Group(_A, True, (asks,)),),
               members=(Members('group:' + _B, 4),), is_all=True)

    def test_fields_that_are_wrong(self):
        fields = Change((Port(_A, 'tapa', _MAC),)).as_fields()
        port = fields['ports'][0]
        for bad in (None, [], {}, {**fields, 'more': 1},
                    {**fields, 'ports': 5},
                    {**fields, 'ports': 'xy'}, {**fields, 'ports': [5]},
                    {**fields, 'ports': {'a': 1}},
                    {**fields, 'ports': [{**port, 'own': None}]},
                    {**fields, 'gone_members': [None]}):
            self.assertRaises(ValueError, Change.from_fields, bad)


class ChangesTest(base.TestCase):

    @given(_states(), _states())
    @settings(max_examples=25, deadline=None)
    def test_a_difference_makes_the_one_of_the_other(self, former, new):
        between = changes.difference(former, new)
        self.assertEqual(_sorted(new),
                         _sorted(changes.after(former, between)))
        # It has nothing that is there already.
        for kind in 'ports', 'groups', 'members':
            self.assertEqual(
                set(), {*getattr(between, kind)} & {*getattr(former, kind)})
        self.assertEqual(Change(), changes.difference(new, new))
        self.assertEqual(_sorted(new), _sorted(changes.after(former, new)))

    def test_it_touches_what_it_concerns_only(self):
        asks = Rule('x', 'ingress', 4, remote_set='group:' + _B)
        ports = (Port(_A, 'tapa', _MAC, groups=(_A,)),
                 Port(_B, 'tapb', _MAC, groups=(_B,)))
        one, other, more = (Group(_A, True, (asks,)), Group(_B, True),
                            Group(_B, True, (asks,)))
        few, many = (Members('group:' + _B, 4, frozenset(each)) for each in (
            ['192.0.2.1'], ['192.0.2.1', '192.0.2.7']))
        former = Change(ports, groups=(one, other), members=(few,),
                        is_all=True)
        for fields, wanted in (
                ({}, Change()),
                ({'groups': (one, more)}, Change(groups=(more,))),
                ({'groups': (other, one)}, Change()),
                ({'members': (many,)}, Change(members=(many,))),
                ({'ports': ports[:1]}, Change(gone=(_B,))),
                ({'groups': (Group(_A, True), other), 'members': ()},
                 Change(groups=(Group(_A, True),),
                        gone_members=(few.key,)))):
            self.assertEqual(wanted, changes.difference(
                former, dataclasses.replace(former, **fields)))

    def test_what_nothing_names_goes(self):
        asks = Rule('x', 'ingress', 4, remote_set='group:' + _B)
        former = Change((Port(_A, 'tapa', _MAC, groups=(_A,)),),
                        groups=(Group(_A, True, (asks,)),),
                        members=(Members('group:' + _B, 4),), is_all=True)
        self.assertEqual(Change(is_all=True),
                         changes.after(former, Change(gone=(_A,))))
        found = changes.after(former, Change((Port(_A, 'tapa', _MAC),)))
        self.assertEqual(((), ()), (found.groups, found.members))

    def test_what_is_named_has_to_be_there(self):
        self.assertRaises(ValueError, changes.after, Change(is_all=True),
                          Change((Port(_A, 'tapa', _MAC, groups=(_A,)),)))


def _numbered(number):
    return '%08x-0000-4000-8000-000000000000' % number
