# SPDX-License-Identifier: Apache-2.0

"""The table that holds guests to their addresses: made, mended and filled.

Which frames pass it is in test_full_frames.py.
"""

import contextlib
import errno
import itertools
import os
import struct
import traceback

from tests import base
from tests.functional import test_full_frames
from tests import hosts
from tests import patience
from vif_plug_tapmac import exception
from vif_plug_tapmac.kernel import filter_state
from vif_plug_tapmac.kernel import filter_table
from vif_plug_tapmac.kernel import filtered_group
from vif_plug_tapmac.kernel import guest_filter
from vif_plug_tapmac.kernel import lasting_session
from vif_plug_tapmac.kernel import netlink as nl
from vif_plug_tapmac.kernel import nft
from vif_plug_tapmac.kernel import nft_sets
from vif_plug_tapmac.kernel import shield
from vif_plug_tapmac.kernel import shields
from vif_plug_tapmac import mark
from vif_plug_tapmac.wanted import rules

_GROUP, _OTHER_GROUP, _OPEN_GROUP = 29795, 4711, 29793
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_DROP_ALL = nft.Rule('guest', (('immediate', {
    1: nft.octets(0), 2: {2: {1: nft.octets(0)}}}),))


def rules_of(number, *addresses):
    vif = base.numbered_vif(number)
    return rules.of_port(vif.id, vif.address, addresses)


class GuestFilterTestCase(base.FunctionalTestCase):

    def setUp(self):
        super().setUp()
        self.filter = guest_filter.GuestFilter()
        self.version = filter_table.VERSION
        self.nft = nft.Session()
        self.netlink = nl.Netlink()
        self.addCleanup(self.nft.__exit__, None, None, None)
        self.addCleanup(self.netlink.__exit__, None, None, None)

    def as_child(self, writer, function, *arguments):
        """Call a function, and write down what it raises."""
        try:
            # What its parent has is one socket for all of them.
            with nl.Netlink() as self.netlink:
                function(*arguments)
        except Exception:
            os.write(writer, traceback.format_exc().encode())

    def at_once(self, function, calls):
        """Call a function in a process for each; what one raises fails."""
        reader, writer = os.pipe()
        with open(reader), open(writer, 'w'):
            os.set_blocking(reader, False)
            children = [hosts.fork(self.as_child, writer, function, *each)
                        for each in calls]
            for child in children:
                os.waitpid(child, 0)
            with contextlib.suppress(BlockingIOError):
                self.fail(os.read(reader, 65536).decode())

    def add_port(self, number):
        """Have a TAP with our mark; return its index."""
        vif = base.numbered_vif(number)
        self.host.add_tap(vif.vif_name)
        return self.host.set(vif.vif_name, ifalias=str(mark.TapMark(
            vif.id, vif.address, base.BRIDGE, 1))).index

    def put(self, index, wanted, group=_GROUP, process=None):
        (process or self.filter).put(self.netlink, index, wanted, group,
                                     _OPEN_GROUP)

    def ports(self):
        """Return what there is for each index, all of it with its owner."""
        return {index: (frozenset(there), *set(there.values()))
                for index, there in filter_state.elements(self.nft).items()}

    def of(self, *ports):
        """Return the same, of indexes and rules."""
        return {index: (wanted.elements, wanted.vif_id)
                for index, wanted in ports}

    def groups(self):
        return sorted(struct.unpack('=I', each.key)[0] for each in
                      nft_sets.elements(self.nft, filter_table.NAME,
                                        filter_table.GROUPS))

    def change(self, *steps):
        """Change rules as somebody else does."""
        self.assertTrue(self.nft.transact('', steps, self.nft.generation()))

    def flush(self):
        self.change(nft.delete_table(filter_table.NAME))


class PuttingTest(GuestFilterTestCase):

    def test_what_a_port_has(self):
        wanted = rules_of(1, '192.0.2.1', '2001:db8::1')
        self.put(7, wanted)
        self.assertEqual(self.of((7, wanted)), self.ports())
        self.assertEqual(
            {('guest_mac', 'fa:16:3e:00:00:01', None),
             ('guest_link_local', 'fa:16:3e:00:00:01',
              'fe80::f816:3eff:fe00:1'),
             ('guest_ipv6', 'fa:16:3e:00:00:01', 'fe80::f816:3eff:fe00:1'),
             ('guest_ipv6', 'fa:16:3e:00:00:01', '2001:db8::1'),
             ('guest_ipv4', 'fa:16:3e:00:00:01', '192.0.2.1')},
            set(wanted.elements))
        self.assertEqual([_GROUP], self.groups())
        self.assertTrue(filter_state.is_right(self.nft))

    def test_again_changes_nothing(self):
        self.put(7, rules_of(1, '192.0.2.1'))
        before = self.nft.generation()
        self.put(7, rules_of(1, '192.0.2.1'))
        self.assertEqual(before, self.nft.generation())

    def test_other_addresses(self):
        for process in self.filter, guest_filter.GuestFilter():
            self.put(7, rules_of(1, '192.0.2.1', '192.0.2.2'),
                     process=process)
            self.put(8, rules_of(2, '192.0.2.3'), process=process)
            wanted = rules_of(1, '192.0.2.2', '2001:db8::1')
            self.put(7, wanted, process=process)
            self.assertEqual(
                self.of((7, wanted), (8, rules_of(2, '192.0.2.3'))),
                self.ports())

    def test_other_addresses_after_a_restart(self):
        self.put(7, rules_of(1, '192.0.2.1', '192.0.2.2'))
        wanted = rules_of(1, '192.0.2.2')
        self.put(7, wanted, process=guest_filter.GuestFilter())
        self.assertEqual(self.of((7, wanted)), self.ports())

    def test_an_index_that_comes_back(self):
        self.put(7, rules_of(1, '192.0.2.1'))
        wanted = rules_of(2, '192.0.2.1')
        self.put(7, wanted, process=guest_filter.GuestFilter())
        self.assertEqual(self.of((7, wanted)), self.ports())

    def test_the_same_guest_of_another_vif(self):
        self.put(7, rules_of(1, '192.0.2.1'))
        wanted = rules.of_port(base.VIF_ID, base.numbered_vif(1).address,
                               ['192.0.2.1'])
        self.put(7, wanted)
        self.assertEqual(self.of((7, wanted)), self.ports())

    def test_a_thousand_addresses(self):
        wanted = rules_of(1, *('10.0.%d.%d' % (number // 250, number % 250)
                               for number in range(rules.ADDRESSES_MAX)))
        # The kernel's table of them may grow while it is listed at first.
        for _ in range(patience.amount(2, 5, 50)):
            self.put(7, wanted)
            self.assertEqual(self.of((7, wanted)), self.ports())
            self.filter.remove(7)
            self.assertEqual({}, self.ports())

    def test_two_services(self):
        self.put(7, rules_of(1))
        other = guest_filter.GuestFilter()
        self.put(8, rules_of(2), _OTHER_GROUP, other)
        self.assertEqual([_OTHER_GROUP, _GROUP], self.groups())
        self.assertEqual(self.of((7, rules_of(1)), (8, rules_of(2))),
                         self.ports())

    def test_root_of_another_user_namespace(self):
        reader, writer = os.pipe()
        self.addCleanup(os.close, reader)

        def put():
            try:
                hosts._call('unshare', _CLONE_NEWUSER | _CLONE_NEWNET)
            except OSError:
                os.write(writer, b'none')
                return
            try:
                with nl.Netlink() as netlink:
                    guest_filter.GuestFilter().put(
                        netlink, 7, rules_of(1, *(
                            '10.0.%d.%d' % (number // 250, number % 250)
                            for number in range(rules.ADDRESSES_MAX))),
                        _GROUP, _OPEN_GROUP)
            except Exception:
                os.write(writer, traceback.format_exc().encode())
        child = hosts.fork(put)
        os.close(writer)
        os.waitpid(child, 0)
        said = os.read(reader, 65536)
        if said == b'none':
            self.cannot_run('no user namespace can be made here')
        self.assertEqual(b'', said)

    def test_rules_that_are_as_they_were_are_not_read_again(self):
        self.put(7, rules_of(1))
        self.assertTrue(filter_state.is_right(self.nft))
        self.put(8, rules_of(2))
        self.patch(nft, '_has_expressions', None)
        self.assertTrue(filter_state.is_right(self.nft))

    def test_without_proc(self):
        self.patch(lasting_session, '_NAMESPACE', '/nowhere')
        self.assertRaises(exception.KernelRefused, self.put, 7, rules_of(1))

    def test_eight_processes_at_once(self):
        for _ in range(patience.amount(2, 5, 20)):
            self.at_once(self.put, [(7 + number, rules_of(number))
                                    for number in range(8)])
            self.assertEqual(
                self.of(*((7 + number, rules_of(number))
                          for number in range(8))), self.ports())
            self.assertTrue(filter_state.is_right(self.nft))
            self.flush()

    def test_a_kernel_that_lacks_it(self):
        def refuse(*arguments, **named):
            raise exception.KernelRefused.from_errno(
                'nftables', 'step', errno.EOPNOTSUPP)
        self.patch(nft.Session, 'transact', refuse)
        raised = self.assertRaises(exception.KernelRefused, self.put, 7,
                                   rules_of(1))
        self.assertIn('anti_spoofing', str(raised))
        self.assertEqual({}, self.ports())

    def test_a_kernel_that_lacks_what_a_rule_is_made_of(self):
        """It says that something is not there, as it does of a set."""
        transact, tries = nft.Session.transact, []

        def count(*arguments):
            tries.append(arguments)
            return transact(*arguments)
        self.patch(nft.Session, 'transact', count)
        self.patch(guest_filter, '_GIVES_UP_AFTER', 3.0)
        self.patch(filter_table, 'RULES', (
            *filter_table.RULES, nft.Rule('guest', (('is-missing', {}),))))
        for refused in (
                lambda: self.put(7, rules_of(1)),
                lambda: shield.ensure(self.netlink, base.make_port(
                    host_shield=True))):
            raised = self.assertRaises(exception.KernelRefused, refused)
            self.assertEqual(errno.EOPNOTSUPP, raised.kwargs['code'])
            self.assertIn('load nf_tables', str(raised))
        self.assertEqual(4, len(tries))
        self.assertIsNone(self.nft.table(filter_table.NAME))


class RemovingTest(GuestFilterTestCase):

    def test_one_of_two(self):
        self.put(7, rules_of(1, '192.0.2.1'))
        self.put(8, rules_of(2, '192.0.2.2'))
        self.filter.remove(7)
        self.assertEqual(self.of((8, rules_of(2, '192.0.2.2'))),
                         self.ports())

    def test_by_a_process_that_knows_nothing(self):
        self.put(7, rules_of(1, '192.0.2.1'))
        guest_filter.GuestFilter().remove(7)
        self.assertEqual({}, self.ports())
        # Who has put it there does not mind.
        self.filter.remove(7)
        self.put(7, rules_of(1))
        self.assertEqual(self.of((7, rules_of(1))), self.ports())

    def test_what_is_not_there(self):
        self.filter.remove(7)
        self.assertIsNone(self.nft.table(filter_table.NAME))
        self.put(7, rules_of(1))
        self.filter.remove(8)
        self.flush()
        self.filter.remove(7)
        self.assertIsNone(self.nft.table(filter_table.NAME))


class MendingTestCase(GuestFilterTestCase):

    def lay(self):
        """Have three ports, of which the third is plugged again."""
        self.indexes = [self.add_port(number) for number in (1, 2, 3)]
        self.wanted = [rules_of(number, '192.0.2.%d' % number)
                       for number in (1, 2, 3)]
        for number, index, wanted in zip((1, 2, 3), self.indexes,
                                         self.wanted):
            self.put(index, wanted)
            self.host.set(base.numbered_vif(number).vif_name, group=_GROUP)
        self.all = self.of(*zip(self.indexes, self.wanted))

    def assert_mended(self, process=None):
        self.put(self.indexes[2], self.wanted[2], process=process)
        self.assertEqual(self.all, self.ports())
        self.assertTrue(filter_state.is_right(self.nft))
        self.assertEqual([_GROUP], self.groups())
        before = self.nft.generation()
        self.put(self.indexes[2], self.wanted[2], process=process)
        self.assertEqual(before, self.nft.generation())

    def group_of(self, number):
        return self.host.link(base.numbered_vif(number).vif_name).group

    def assert_moved(self, *others):
        """Expect who is not known to be out of the group that is closed."""
        self.put(self.indexes[2], self.wanted[2],
                 process=guest_filter.GuestFilter())
        self.assertEqual(
            [_OPEN_GROUP, _OPEN_GROUP, _GROUP],
            [self.group_of(number) for number in (1, 2, 3)])
        self.assertEqual(
            self.of((self.indexes[2], self.wanted[2]), *others), self.ports())
        self.assertEqual([_GROUP], self.groups())
        self.assertTrue(filter_state.is_right(self.nft))
        for number in 1, 2:
            self.assert_logged(
                '%s: its guest is kept to its MAC only'
                % base.numbered_vif(number).vif_name)

    def empty(self, name):
        return [(0xa0e, 0, nft.body(
            nft.attributes.text(1, filter_table.NAME),
            nft.attributes.text(2, name)))]

    def without_rules(self, chain):
        return 0xa08, 0, nft.body(
            nft.attributes.text(1, filter_table.NAME),
            nft.attributes.text(2, chain))

    def without_chain(self, chain):
        return 0xa05, 0, nft.body(
            nft.attributes.text(1, filter_table.NAME),
            nft.attributes.text(3, chain))

    def dormant(self, flag):
        return 0xa00, 0x400, nft.body(
            nft.attributes.text(1, filter_table.NAME),
            nft.number(2, flag))


class MendingTest(MendingTestCase):

    def test_flushed_rules(self):
        self.lay()
        self.flush()
        self.assert_mended()

    def test_flushed_rules_and_an_unplug(self):
        self.lay()
        self.flush()
        self.filter.remove(self.indexes[0])
        del self.all[self.indexes[0]]
        self.assert_mended()

    def test_a_flushed_set_and_an_unplug(self):
        self.lay()
        first = self.all.pop(self.indexes[0])
        for each in filter_table.PORT_SETS:
            self.change(*self.empty(each.name))
            self.filter.remove(self.indexes[0])
            self.assert_mended()
            self.put(self.indexes[0], self.wanted[0])
            self.assertEqual({**self.all, self.indexes[0]: first},
                             self.ports())

    def test_flushed_rules_and_a_restart(self):
        self.lay()
        self.flush()
        self.assert_moved()

    def test_a_flushed_set_and_a_restart(self):
        for each in filter_table.PORT_SETS:
            self.lay()
            self.change(*self.empty(each.name))
            self.assert_moved()
            for number in 1, 2, 3:
                self.host.delete(base.numbered_vif(number).vif_name)
            self.flush()

    def test_flushed_rules_and_another_daemon(self):
        self.lay()
        other, index = guest_filter.GuestFilter(), self.add_port(4)
        self.put(index, rules_of(4, '192.0.2.4'), process=other)
        # Of the first one, other knows what it was.
        self.wanted[0] = rules_of(1, '192.0.2.11')
        self.put(self.indexes[0], self.wanted[0])
        for first, second in ((other, self.filter), (self.filter, other)):
            self.flush()
            self.put(index, rules_of(4, '192.0.2.4'), process=first)
            self.put(index, rules_of(4, '192.0.2.4'), process=second)
            self.assertEqual(
                self.of(*zip(self.indexes, self.wanted),
                        (index, rules_of(4, '192.0.2.4'))), self.ports())

    def test_another_daemon_that_knows_nobody(self):
        self.lay()
        self.flush()
        index = self.add_port(4)
        self.put(index, rules_of(4), process=guest_filter.GuestFilter())
        self.assertEqual(self.of((index, rules_of(4))), self.ports())
        self.put(self.indexes[0], self.wanted[0])
        self.assertEqual({**self.all, **self.of((index, rules_of(4)))},
                         self.ports())

    def test_a_flushed_set_and_other_addresses(self):
        for each in filter_table.PORT_SETS:
            for process in self.filter, guest_filter.GuestFilter():
                self.put(7, rules_of(1, '192.0.2.1', '2001:db8::1'))
                self.change(*self.empty(each.name))
                wanted = rules_of(1, '192.0.2.2')
                self.put(7, wanted, process=process)
                self.assertEqual(self.of((7, wanted)), self.ports())

    def test_a_flushed_set_and_the_group_of_another_service(self):
        other = guest_filter.GuestFilter()
        for each in filter_table.PORT_SETS:
            self.lay()
            index, theirs = self.add_port(4), rules_of(4, '192.0.2.4')
            self.put(index, theirs, _OTHER_GROUP, other)
            self.host.set(base.numbered_vif(4).vif_name, group=_OTHER_GROUP)
            self.change(*self.empty(each.name))
            self.assert_mended()  # What is not known is open.
            self.put(index, theirs, _OTHER_GROUP, other)
            self.assertEqual([_OTHER_GROUP, _GROUP], self.groups())
            self.assertEqual({**self.all, **self.of((index, theirs))},
                             self.ports())
            self.flush()
            for number in 1, 2, 3, 4:
                self.host.delete(base.numbered_vif(number).vif_name)

    def test_a_group_that_was_open(self):
        self.lay()
        self.change(*nft_sets.delete_elements(
            filter_table.NAME, filter_table.GROUPS,
            [nft_sets.Element(struct.pack('=I', _GROUP))]))
        guest_filter.GuestFilter().remove(*self.indexes[:2])
        self.assert_moved()

    def before(self, name, function):
        """Have something happen before the next of what is done to a group."""
        real = getattr(filtered_group, name)

        def first(*arguments):
            self.patch(filtered_group, name, real)
            function()
            return real(*arguments)
        self.patch(filtered_group, name, first)

    def test_a_guest_of_another_who_makes_the_table_meanwhile(self):
        other, index = guest_filter.GuestFilter(), self.add_port(4)
        theirs = rules_of(4, '192.0.2.4')

        def plug():
            self.put(index, theirs, process=other)
            self.host.set(base.numbered_vif(4).vif_name, group=_GROUP)
        self.before('members', plug)
        self.put(7, rules_of(1))
        self.assertEqual(_GROUP, self.group_of(4))
        self.assertEqual(self.of((index, theirs), (7, rules_of(1))),
                         self.ports())
        self.assertNotIn('kept to its MAC only', self.logs.output)

    def test_a_guest_whom_another_knows_who_comes_meanwhile(self):
        self.lay()
        self.flush()
        other = guest_filter.GuestFilter()
        self.before('release', lambda: self.put(
            self.indexes[0], self.wanted[0], process=other))
        self.put(self.indexes[2], self.wanted[2],
                 process=guest_filter.GuestFilter())
        # The third goes back when its plug looks at the TAP.
        self.assertEqual([_GROUP, _OPEN_GROUP, _OPEN_GROUP], [
            self.group_of(number) for number in (1, 2, 3)])
        self.assertEqual(self.of(*((
            self.indexes[place], self.wanted[place]) for place in (0, 2))),
            self.ports())
        self.assertNotIn(base.numbered_vif(1).vif_name, self.logs.output)

    def test_who_is_not_moved(self):
        self.lay()
        for number, attributes in enumerate((
                {'group': _OTHER_GROUP}, {'ifalias': 'rack 7'}), 1):
            self.host.set(base.numbered_vif(number).vif_name, **attributes)
        self.flush()
        self.put(self.indexes[2], self.wanted[2],
                 process=guest_filter.GuestFilter())
        self.assertEqual([_OTHER_GROUP, _GROUP, _GROUP],
                         [self.group_of(number) for number in (1, 2, 3)])
        self.assert_logged('%s has no mark'
                           % base.numbered_vif(2).vif_name)

    def test_what_is_no_tap_is_not_moved_and_named(self):
        self.host.add_bridge(base.BRIDGE)
        self.host.add('wire', 'veth', peer='end', group=_GROUP)
        self.put(7, rules_of(1))
        self.assertNotIn('wire', self.logs.output)
        self.host.set('wire', master=self.host.link(base.BRIDGE).index)
        self.flush()
        self.put(7, rules_of(1))
        self.assertEqual(_GROUP, self.host.link('wire').group)
        self.assert_logged('wire has no mark of tapmac, and is in link group '
                           '%d' % _GROUP, 'Remedy: "ip link set wire group')

    def test_flushed_rules_and_a_mark_that_is_lost(self):
        self.lay()
        self.host.set(base.numbered_vif(1).vif_name, ifalias='rack 7')
        self.flush()
        self.assert_mended()

    def test_flushed_rules_and_the_tap_of_another(self):
        self.lay()
        self.host.set(base.numbered_vif(1).vif_name, ifalias=str(mark.TapMark(
            base.VIF_ID, base.GUEST_MAC, base.BRIDGE, 1)))
        self.flush()
        del self.all[self.indexes[0]]
        self.assert_mended()

    def test_flushed_rules_and_a_tap_that_is_gone(self):
        self.lay()
        self.host.delete(base.numbered_vif(1).vif_name)
        self.flush()
        del self.all[self.indexes[0]]
        self.assert_mended()

    def test_what_others_may_do(self):
        self.lay()
        name = filter_table.NAME
        for damage in (
                [nft_sets.delete_elements(name, filter_table.GROUPS, [
                    nft_sets.Element(struct.pack('=I', _GROUP))])],
                *([self.empty(each.name)] for each in filter_table.SETS),
                [[nft.new_rule(name, _DROP_ALL)]],
                [[nft.new_rule(name, nft.Rule('from_guests', (
                    ('immediate', {1: nft.octets(0), 2: {
                        2: {1: nft.octets(1)}}}),)))]],
                [[self.without_rules('guest_nd')]],
                [[self.without_rules('from_guests'),
                  self.without_chain('from_guests')]],
                [[self.without_rules('to_host')]],
                [[self.dormant(1)]],
                [[nft.delete_table(name)], [nft.new_table(name, 'tapmac 0')]],
                [[nft.delete_table(name)], [nft.new_table(name, 'mine')]],
        ):
            self.change(*itertools.chain.from_iterable(damage))
            self.assert_mended()

    def test_the_same_after_a_restart(self):
        self.lay()
        for damage in (self.without_rules('guest_nd'), self.dormant(1)):
            self.change(damage)
            self.assert_mended(guest_filter.GuestFilter())

    def test_who_removes_a_port_has_not_looked_at_the_table(self):
        self.lay()
        self.change(nft.new_rule(filter_table.NAME, _DROP_ALL))
        self.filter.remove(self.indexes[0])
        del self.all[self.indexes[0]]
        self.assert_mended()

    @property
    def next_version(self):
        return 'tapmac %d' % (self.version + 1)

    def test_a_newer_table_stays(self):
        self.patch(filter_table, 'VERSION', filter_table.VERSION + 1)
        self.patch(filter_table, 'RULES', (*filter_table.RULES, _DROP_ALL))
        self.put(7, rules_of(1))
        self.patch(filter_table, 'VERSION', filter_table.VERSION - 1)
        self.patch(filter_table, 'RULES', filter_table.RULES[:-1])
        self.put(8, rules_of(2), process=guest_filter.GuestFilter())
        self.assertFalse(filter_state.is_right(self.nft))
        self.assertEqual((self.next_version, True),
                         self.nft.table(filter_table.NAME)[:2])
        self.assertEqual(self.of((7, rules_of(1)), (8, rules_of(2))),
                         self.ports())

    def test_an_older_table_is_replaced(self):
        self.lay()
        self.patch(filter_table, 'VERSION', filter_table.VERSION + 1)
        self.assert_mended(guest_filter.GuestFilter())
        self.assertEqual((self.next_version, True),
                         self.nft.table(filter_table.NAME)[:2])


class ShieldingTest(MendingTestCase):
    """Guests that are kept from the host are in the same table."""

    def shield(self, group=_OPEN_GROUP, service='one', process=None):
        (process or guest_filter.GuestFilter()).shield(
            self.netlink, [group], service)

    def shields(self):
        """Return who keeps which group from the host, in all families."""
        found = sorted((each.group, each.service)
                       for each in shields.of_all_services())
        for group, service in found:
            self.assertTrue(shields.is_shielded(group, service))
        return found

    def test_closes_nobody(self):
        self.shield()
        self.assertEqual([], self.groups())
        self.assertTrue(filter_state.is_right(self.nft))
        self.assertEqual([(_OPEN_GROUP, 'one')], self.shields())

    def test_before_and_after_a_port(self):
        for first, second in itertools.permutations((
                self.shield, lambda: self.put(7, rules_of(1)))):
            first()
            second()
            self.assertEqual(self.of((7, rules_of(1))), self.ports())
            self.assertEqual([_GROUP], self.groups())
            self.assertEqual([(_OPEN_GROUP, 'one')], self.shields())
            self.filter = guest_filter.GuestFilter()
            self.flush()

    def test_again_changes_nothing(self):
        self.shield(process=self.filter)
        before = self.nft.generation()
        for process in self.filter, self.filter, None:
            self.shield(process=process)
            self.assertEqual(before, self.nft.generation())

    def test_heals_flushed_rules_of_ports_that_it_knows(self):
        self.lay()
        self.flush()
        self.shield(process=self.filter)
        self.assertEqual(self.all, self.ports())
        self.assertEqual([_GROUP], self.groups())
        self.assertEqual([_GROUP] * 3,
                         [self.group_of(number) for number in (1, 2, 3)])

    def test_a_changed_table_is_mended_by_who_knows_nobody(self):
        self.lay()
        self.shield(_OTHER_GROUP, 'other')
        self.change(nft.new_rule(filter_table.NAME, _DROP_ALL))
        self.shield()
        self.assertTrue(filter_state.is_right(self.nft))
        self.assertEqual(self.all, self.ports())
        self.assertEqual([_GROUP], self.groups())
        self.assertEqual([(_OTHER_GROUP, 'other'), (_OPEN_GROUP, 'one')],
                         self.shields())

    def test_what_is_flushed_is_closed_by_a_port_only(self):
        """Who knows nobody cuts nobody off."""
        self.lay()
        for damage in ([nft.delete_table(filter_table.NAME)],
                       self.empty(filter_table.PORT_SETS[0].name)):
            self.change(*damage)
            self.shield()
            self.assertEqual([], self.groups())
            self.assert_moved()
            self.shields()
            for number in 1, 2, 3:
                self.host.delete(base.numbered_vif(number).vif_name)
            self.flush()
            self.filter = guest_filter.GuestFilter()
            self.lay()

    def test_a_port_that_mends_the_table_keeps_them(self):
        self.lay()
        for service in 'one', 'two':
            self.shield(service=service)
        self.change(nft.new_rule(filter_table.NAME, _DROP_ALL))
        self.assert_mended()
        self.assertEqual([(_OPEN_GROUP, 'one'), (_OPEN_GROUP, 'two')],
                         self.shields())

    def test_the_last_one_leaves_the_table_of_guests(self):
        self.lay()
        for service in 'one', 'two':
            self.shield(service=service)
        process = guest_filter.GuestFilter()
        for service, left in (('three', ['one', 'two']), ('two', ['one']),
                              ('one', [])):
            process.unshield([_OPEN_GROUP], service)
            self.assertEqual([(_OPEN_GROUP, each) for each in left],
                             self.shields())
        self.assertEqual(self.all, self.ports())
        for family in nft.INET, nft.ARP:
            self.assertIsNone(self.nft.on(family).table(filter_table.NAME))

    @base.too_slow_emulated('eight processes that wait for each other')
    def test_eight_processes_at_once(self):
        for _ in range(patience.amount(2, 5, 20)):
            self.at_once(self.shield, [(1 + number % 3, str(number))
                                       for number in range(8)])
            self.assertEqual([(1 + number % 3, str(number)) for number in
                              sorted(range(8), key=lambda each: (
                                  each % 3, str(each)))], self.shields())
            guest_filter.GuestFilter().unshield()
            self.assertIsNone(self.nft.table(filter_table.NAME))


class UnderFireTest(test_full_frames.FullFramesTestCase):
    """A guest sends all the time while the table is made anew."""

    def test_nothing_gets_out_and_nothing_is_lost(self):
        self.lay_network()
        index = self.host.link(base.TAP).index
        self.host.set(base.TAP, ifalias=str(mark.TapMark(
            base.VIF_ID, base.GUEST_MAC, base.BRIDGE, 1)))
        self.hold()
        with self.speaking() as after, nft.Session() as session:
            for round_ in range(patience.amount(20, 100, 1000)):
                wait = after(2)
                session.transact('', [nft.new_rule(
                    filter_table.NAME, nft.Rule('guest_nd', (
                        ('immediate', {1: nft.octets(0), 2: {
                            2: {1: nft.octets(1)}}}),)))],
                    session.generation())
                self.filter.put(
                    self.netlink, index, rules.of_port(
                        base.VIF_ID, base.GUEST_MAC, [
                            test_full_frames.IPV4, '192.0.2.%d' % (
                                100 + round_ % 100)]), _GROUP, _OPEN_GROUP)
                self.assertTrue(filter_state.is_right(session))
                wait()
