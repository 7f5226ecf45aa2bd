# SPDX-License-Identifier: Apache-2.0

"""What commands tell scripts: the keys and types of "Output for scripts".

The tables of that page are what is expected.
"""

import datetime
import functools
import json
import re

import yaml

from tests import base
from tests import documents
from tests.functional import test_operator
from vif_plug_tapmac.host import finding


def _is_text(value):
    return isinstance(value, str) and value != ''


def _is_time(value):
    return (_is_text(value) and datetime.datetime.fromisoformat(
        value).utcoffset() is not None)


def _is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _are_texts(value):
    return isinstance(value, list) and all(map(_is_text, value))


#: What the page calls each type.
_TYPES = {
    'text': _is_text,
    'time': _is_time,
    'number': _is_number,
    'true or false': lambda value: isinstance(value, bool),
    'list of texts': _are_texts,
    'list of findings': lambda value: isinstance(value, list) and all(
        Contract('A finding').wrong(each) == [] for each in value),
    'list of drops': lambda value: isinstance(value, list) and all(
        Contract('A drop').wrong(each) == [] for each in value),
    **{'list of ' + what: functools.partial(
        lambda title, value: isinstance(value, list) and all(
            Contract(title).wrong(each) == [] for each in value), title)
       for what, title in (('groups', 'A group'), ('rules', 'A rule'),
                           ('connections', 'A connection'))},
    'true, false or null': lambda value: value in (True, False, None),
}


class Contract:
    """What the page promises of some object.

    :param titles: of its tables
    """

    def __init__(self, *titles):
        self.types = {re.sub(r' ?\\\*$', '', key): kind for title in titles
                      for key, kind, _ in documents.rows(documents.OUTPUT,
                                                         title)}

    def wrong(self, seen):
        """Return in what an object differs."""
        return ['keys: %s' % each for each in seen.keys() ^ self.types.keys()
                ] + ['%s: %r is no %s' % (key, seen[key], kind)
                     for key, kind in self.types.items() if key in seen
                     and not self._is(seen[key], kind)]

    def _is(self, value, kind):
        if kind in _TYPES:
            return _TYPES[kind](value)
        kind, null = kind.rsplit(' or ', 1)
        return null == 'null' and (value is None or _TYPES[kind](value))


class OutputTest(test_operator.WatchingTestCase):

    def assert_keeps(self, *titles, command, returncode=0):
        """Expect what a command tells to be as the tables say.

        :returns: all objects that it told
        """
        seen = self.rows(*command, returncode=returncode)
        objects = seen if isinstance(seen, list) else [seen]
        self.assertNotEqual([], objects)
        for each in objects:
            self.assertEqual([], Contract(*titles).wrong(each), each)
        return objects

    def break_it(self):
        """Have one TAP that can be mended, one that can not, one unmarked."""
        self.plug()
        self.plug(base.numbered_vif(1))
        self.plug(base.numbered_vif(2, vif_name='tap00000002-00'))
        self.host.set(base.TAP, address='02:00:00:00:00:07', mtu=1400)
        self.host.set('tap00000001', master=0)
        self.host.set('tap00000002-00', ifalias='')

    def test_list(self):
        self.break_it()
        for row in self.assert_keeps('tapmac list', command=('list',)):
            self.assertEqual(self.domains.uri != '', row['Domain known'])
            self.assertIs(False, row['Carrier'])

    def test_who_has_it(self):
        self.only_in_full()
        self.break_it()
        self.hold('tap00000001', None)
        rows = {row['TAP']: row for row in self.rows('list')}
        first, second = rows[base.TAP], rows['tap00000001']
        self.assertEqual((self.domains.of(base.TAP), True, False), (
            first['Domain'], first['Domain known'], first['Carrier']))
        self.assertEqual((None, None, True, True, None), (
            second['Domain'], second['Instance'], second['Domain known'],
            second['Carrier'], second['Bridge']))
        self.domains.end()
        row, = self.assert_keeps('tapmac list', 'tapmac show', returncode=10,
                                 command=('show', base.TAP))
        self.assertEqual((None, False), (row['Domain'], row['Domain known']))

    def test_findings(self):
        self.break_it()
        codes = {row['Code']: row for row in self.assert_keeps(
            'A finding', command=('audit',), returncode=20)}
        self.assertEqual(
            ('error', ['tapmac repair'], True),
            tuple(codes['TM206'][key]
                  for key in ('Severity', 'Commands', 'Mendable')))
        row, = self.assert_keeps('tapmac list', 'tapmac show', returncode=10,
                                 command=('show', base.TAP))
        self.assertEqual({'TM201', 'TM208'},
                         {each['Code'] for each in row['Wrong']})
        rows = self.assert_keeps(
            'A finding', 'tapmac repair', command=('repair', '--dry-run'),
            returncode=20)
        self.assertEqual({False}, {row['Mended'] for row in rows})
        rows = self.assert_keeps('A finding', 'tapmac repair',
                                 command=('repair',), returncode=10)
        self.assertEqual(
            {'TM201': True, 'TM206': True, 'TM208': False},
            {row['Code']: row['Mended'] for row in rows
             if row['Code'] in ('TM201', 'TM206', 'TM208')})

    def test_purge(self):
        self.domains.define((base.TAP, base.GUEST_MAC, True, 1))
        test_operator.PurgeTest.plug_old(self, 1)
        self.plug()
        for arguments, removed in ((('--dry-run',), False), ((), True)):
            row, = self.assert_keeps('tapmac purge',
                                     command=('purge', *arguments))
            self.assertIs(removed, row['Removed'])

    def test_plug(self):
        arguments = 'plug', '--bridge', base.BRIDGE, '--mac', base.GUEST_MAC
        self.assert_keeps('tapmac plug --dry-run',
                          command=(*arguments, '--dry-run'))
        self.assert_keeps('tapmac list', command=arguments)

    def test_mac(self):
        self.plug()
        self.assert_keeps('tapmac mac', command=('mac', base.GUEST_MAC))
        self.assert_keeps('tapmac mac --reverse', command=(
            'mac', '--reverse', base.TAP_MAC))

    def test_demo(self):
        self.assert_keeps('tapmac demo', command=('demo',))

    def test_watch(self):
        self.start('-f', 'json')
        told = [self.wait_for('"watching"')]
        self.plug()
        told.append(self.wait_for('"plug"'))
        self.host.set(base.TAP, state='down')
        told.append(self.wait_for('"TM207"'))
        self.host.set(base.TAP, state='up')
        told.append(self.wait_for('"TM207"'))
        told = list(map(json.loads, told))
        for each in told:
            self.assertEqual([], Contract('tapmac watch').wrong(each))
        self.assertEqual(
            [(None, None, None)] * 2 + [
                ('TM207', 'error', False), ('TM207', 'error', True)],
            [(each['code'], each['severity'], each['gone']) for each in told])

    def test_yaml_is_the_same(self):
        self.break_it()
        for command, returncode in (('list', 0), ('audit', 20)):
            self.assertEqual(
                self.rows(command, returncode=returncode),
                yaml.safe_load(self.run_tapmac(command, '-f', 'yaml',
                                               returncode=returncode)))

    def test_words(self):
        """Other formats are as people read them."""
        self.plug()
        self.host.set(base.TAP, master=0)
        for format, nothing in ('value', '-'), ('csv', ''):
            line = self.run_tapmac(
                'list', '-f', format, '-c', 'Bridge', '-c', 'Carrier', '-c',
                'Domain').splitlines()[-1]
            self.assertEqual(
                [nothing, 'off', self.domains.of(base.TAP) or 'unknown'],
                [word.strip('"') for word in re.split('[ ,]', line)])
        self.assertNotIn('Domain known', self.run_tapmac('list', '-f', 'csv'))
        self.assertIn('Domain known', self.run_tapmac(
            'list', '-f', 'csv', '-c', 'Domain known'))

    def test_for_people(self):
        self.break_it()
        lines = self.run_tapmac('audit', returncode=20).splitlines()
        self.assertIn('error TM206 tap00000001: ' + finding.CODES['TM206'][1],
                      lines)
        self.assertIn('        tapmac repair', lines)
        self.assertIn('1 error, ', lines[-1])
        self.assertIn('| TM206 ', self.run_tapmac(
            'audit', '-c', 'Code', returncode=20))

    def test_no_such_column(self):
        arguments = 'plug', '--bridge', base.BRIDGE, '--mac', base.GUEST_MAC
        self.run_tapmac(*arguments, '-c', 'TAP', '-c', 'Would', returncode=1)
        self.assertIn("no column 'Would'", self.said)
        self.assertIsNone(self.host.find(base.BRIDGE))
