# SPDX-License-Identifier: Apache-2.0

"""What tables of nftables are made of, as the kernel has it.

What frames make of it is in the tests of the table itself.
"""

import errno
import gc
import ipaddress
import struct

from tests import base
from vif_plug_tapmac import exception
from vif_plug_tapmac.kernel import nft
from vif_plug_tapmac.kernel import nft_expressions as nftx
from vif_plug_tapmac.kernel import nft_sets
from vif_plug_tapmac.kernel.nft_sets import Element

_TABLE = 'try'
_IP, _IP6, _ETHER, _INDEX, _NUMBER, _NAME = 7, 8, 9, 20, 4, 41
_MEMBERS = nft_sets.Set('members4', _IP, 4, is_interval=True)
_MEMBERS6 = nft_sets.Set('members6', _IP6, 16, is_interval=True)
_PREFIXES = nft_sets.Set('prefixes', _INDEX << 12 | _ETHER << 6 | _IP, 16,
                         is_interval=True, parts=(4, 6, 4))
_CHAINS = nft_sets.Set('by_port', _INDEX, 4, is_number=True,
                       data=nft_sets.VERDICTS)
_ZONES = nft_sets.Set('zones', _NAME, 16, is_number=True,
                      data=(_NUMBER, 2))
_SETS = _MEMBERS, _MEMBERS6, _PREFIXES, _CHAINS, _ZONES


def octets(address):
    return ipaddress.ip_address(address).packed


def between(first, last, comment=''):
    return nft_sets.interval(octets(first), octets(last), comment)


def prefix(index, mac, first, last, comment=''):
    start = struct.pack('=I', index) + bytes.fromhex(mac) + bytes(2)
    return Element(start + octets(first), comment, start + octets(last))


class NftTestCase(base.FunctionalTestCase):

    def setUp(self):
        super().setUp()
        self.session = nft.Session()
        self.addCleanup(self.session.__exit__, None, None, None)
        self.do(nft.new_table(_TABLE, ''),
                *(nft_sets.new_set(_TABLE, each, number)
                  for number, each in enumerate(_SETS, 1)),
                *(nft.new_chain(_TABLE, nft.Chain(name))
                  for name in ('one', 'other')))

    def do(self, *steps):
        self.assertTrue(self.session.transact('trying', steps))

    def add(self, where, *elements):
        self.do(*nft_sets.add_elements(_TABLE, where.name, elements))

    def delete(self, where, *elements):
        self.do(*nft_sets.delete_elements(_TABLE, where.name, elements))

    def elements(self, where):
        return nft_sets.elements(self.session, _TABLE, where.name)

    def assert_refused(self, code, *steps):
        error = self.assertRaises(exception.KernelRefused, self.do, *steps)
        self.assertEqual(code, error.kwargs['code'])

    def test_kinds_of_sets(self):
        self.assertEqual(sorted(each.name for each in _SETS),
                         sorted(nft_sets.names(self.session, _TABLE)))
        for each in _SETS:
            self.assertTrue(nft_sets.is_right(self.session, _TABLE, each))
            for other in (each._replace(length=each.length + 4),
                          each._replace(is_interval=not each.is_interval),
                          each._replace(data=None if each.data else (4, 4)),
                          each._replace(name='missing')):
                self.assertFalse(
                    nft_sets.is_right(self.session, _TABLE, other), other)

    def test_as_many_rules_as_are_asked_for(self):
        # An answer to each would be more than a socket keeps.
        self.do(*(nft.new_rule(_TABLE, nft.Rule('one', nftx.DROP, str(each)))
                  for each in range(5000)))
        rules = [nft.Rule('one', nftx.DROP, str(each))
                 for each in range(5000)]
        self.assertTrue(self.session.has_rules(_TABLE, 'one', rules))
        # All or none, wherever it goes wrong.
        for place in 0, 2500, 5000:
            steps = [nft.new_rule(_TABLE, each) for each in rules]
            steps.insert(place, nft.new_rule(
                _TABLE, nft.Rule('missing', nftx.DROP)))
            self.assert_refused(errno.ENOENT, *steps)
        self.assertTrue(self.session.has_rules(_TABLE, 'one', rules))

    def test_intervals_of_addresses(self):
        for where, wanted in (
                (_MEMBERS, [('0.0.0.0', '9.255.255.255'),
                            ('10.0.0.1', '10.0.0.1'),
                            ('10.0.0.2', '10.0.0.2'),
                            ('10.1.0.0', '10.1.0.255'),
                            ('192.0.2.7', '255.255.255.255')]),
                (_MEMBERS6, [('2001:db8::', '2001:db8::ffff'),
                             ('fe80::', 'febf:' + ':'.join(['ffff'] * 7))])):
            put = [each for pair in wanted for each in between(*pair)]
            self.add(where, *put)
            self.add(where, *put)  # Which they are already.
            self.assertEqual(
                [tuple(map(octets, pair)) for pair in wanted],
                nft_sets.intervals(self.elements(where)))
            self.delete(where, *between(*wanted[1]))
            self.assertEqual(
                [tuple(map(octets, pair))
                 for pair in wanted[:1] + wanted[2:]],
                nft_sets.intervals(self.elements(where)))

    def test_an_interval_keeps_its_comment(self):
        self.add(_MEMBERS, *between('192.0.2.0', '192.0.2.255', 'whose'))
        self.assertEqual(['whose'], [
            each.comment for each in self.elements(_MEMBERS)
            if not each.ends])

    def test_a_thousand_intervals(self):
        many = [each for number in range(1000)
                for each in between(*[ipaddress.IPv4Address(2 * number)] * 2)]
        self.add(_MEMBERS, *many)
        self.assertEqual(sorted(many), sorted(self.elements(_MEMBERS)))
        self.delete(_MEMBERS, *many)
        self.assertEqual([], self.elements(_MEMBERS))

    def test_intervals_must_not_overlap(self):
        self.add(_MEMBERS, *between('10.0.0.0', '10.0.0.255'))
        self.assert_refused(errno.EEXIST, *nft_sets.add_elements(
            _TABLE, _MEMBERS.name, between('10.0.0.9', '10.0.1.9')))

    def test_intervals_of_keys_with_parts(self):
        one, other = (
            prefix(7, '525400000001', '10.0.0.0', '10.0.0.255', 'vif'),
            prefix(7, '00005e000101', '10.0.0.9', '10.0.0.9'))
        self.add(_PREFIXES, one, other)
        self.add(_PREFIXES, one)
        self.assertEqual(sorted([one, other]), sorted(
            each if each.last else each._replace(last=each.key)
            for each in self.elements(_PREFIXES)))
        self.delete(_PREFIXES, one)
        self.assertEqual([other.key], [
            each.key for each in self.elements(_PREFIXES)])

    def test_a_map_of_verdicts(self):
        there = [Element(struct.pack('=I', number), 'vif', data=chain)
                 for number, chain in ((7, 'one'), (8, 'one'), (9, 'other'))]
        self.add(_CHAINS, *there)
        self.add(_CHAINS, *there)
        self.assertEqual(there, sorted(self.elements(_CHAINS)))
        # It has one for each; the other one first goes.
        self.assert_refused(errno.EEXIST, *nft_sets.add_elements(
            _TABLE, _CHAINS.name, [there[0]._replace(data='other')]))
        changed = there[0]._replace(data='other')
        self.do(*nft_sets.delete_elements(_TABLE, _CHAINS.name, there[:1]),
                *nft_sets.add_elements(_TABLE, _CHAINS.name, [changed]))
        self.assertEqual([changed, *there[1:]],
                         sorted(self.elements(_CHAINS)))

    def test_a_map_of_numbers(self):
        there = Element(b'br100'.ljust(16, b'\0'),
                        data=(4711).to_bytes(2, 'little'))
        self.add(_ZONES, there)
        self.assertEqual([there], self.elements(_ZONES))

    def test_what_is_gone_is_forgotten(self):
        """A process that reads sets for months needs no memory for it."""
        for index in range(99):
            element = prefix(index, '020000000001', '192.0.2.7', '192.0.2.7')
            self.add(_PREFIXES, element)
            self.assertEqual([element], self.elements(_PREFIXES))
            self.delete(_PREFIXES, element)
        del element
        self.assertEqual([], self.elements(_PREFIXES))
        gc.collect()
        self.assertEqual([], [
            each for each in gc.get_objects() if isinstance(each, Element)
            and each.key[4:10] == bytes.fromhex('020000000001')])

    def test_rules_that_look_there(self):
        source, protocol = nftx.field(nftx.NETWORK, 12, 4), nftx.PROTOCOL
        wanted = [
            nft.Rule('one', (*nftx.is_in(_MEMBERS.name, source),
                             *nftx.is_between(nftx.field(
                                 nftx.TRANSPORT, 2, 2), 80, 443),
                             *nftx.ACCEPT), 'which'),
            nft.Rule('one', nftx.is_in(
                _PREFIXES.name, nftx.IIF,
                nftx.field(nftx.ETHERNET, 6, 6), source)),
            nft.Rule('one', (*nftx.equals(protocol, 6),
                             *nftx.as_map_says(_CHAINS.name, nftx.OIF)))]
        self.do(*(nft.new_rule(_TABLE, each) for each in wanted))
        self.assertTrue(self.session.has_rules(_TABLE, 'one', wanted))
        for other in (wanted[:2], wanted[1:], [*wanted, wanted[0]],
                      [wanted[1], wanted[0], wanted[2]],
                      [wanted[0]._replace(comment='x'), *wanted[1:]]):
            self.assertFalse(self.session.has_rules(_TABLE, 'one', other))
        self.assertTrue(self.session.has_rules(_TABLE, 'other', []))
        self.assertTrue(self.session.has_rules(_TABLE, 'missing', []))
        self.assert_refused(errno.EBUSY,
                            nft_sets.delete_set(_TABLE, _MEMBERS.name))
        self.do(nft.delete_rules(_TABLE, 'one'),
                nft_sets.delete_set(_TABLE, _MEMBERS.name))
        self.assertTrue(self.session.has_rules(_TABLE, 'one', []))
        self.assertNotIn(_MEMBERS.name,
                         nft_sets.names(self.session, _TABLE))

    def test_what_is_led_to_goes_after_what_leads_there(self):
        self.assertEqual(['one', 'other'],
                         sorted(self.session.chains(_TABLE)))
        leads = Element(struct.pack('=I', 7), data='one')
        self.add(_CHAINS, leads)
        self.do(nft.new_rule(_TABLE, nft.Rule('one', nftx.jump('other'))))
        for name in 'one', 'other':
            self.assert_refused(errno.EBUSY, nft.delete_chain(_TABLE, name))
        self.do(*nft_sets.delete_elements(_TABLE, _CHAINS.name, [leads]),
                nft.delete_chain(_TABLE, 'one'),
                nft.delete_chain(_TABLE, 'other'))
        self.assertEqual([], self.session.chains(_TABLE))
        self.assertEqual([], self.session.chains('missing'))
        self.assertEqual([], nft_sets.names(self.session, 'missing'))
