# SPDX-License-Identifier: Apache-2.0

"""What is dropped of a guest's frames is counted, by port and reason.

And the kernel's log says so where that is switched on.
"""

import contextlib
import errno
import os
import pathlib
import struct
import time

from scapy.layers import inet
from scapy.layers import l2
from scapy import packet as scapy_packet

from tests import base
from tests.functional import test_full_frames
from tests.functional.test_full_frames import ALL
from tests.functional.test_full_frames import GATEWAY
from tests.functional.test_full_frames import GUEST
from tests.functional.test_full_frames import IPV4
from tests import patience
from vif_plug_tapmac import exception
from vif_plug_tapmac.kernel import agent_table
from vif_plug_tapmac.kernel import filter_state
from vif_plug_tapmac.kernel import filter_table
from vif_plug_tapmac.kernel import guest_filter
from vif_plug_tapmac.kernel import nft
from vif_plug_tapmac.kernel import nft_expressions
from vif_plug_tapmac.kernel import nft_sets

#: Whether the kernel writes what is logged in other network namespaces than
#: the first, which is where this file is loaded, and may be.
_LOGS_ALL = pathlib.Path('/proc/sys/net/netfilter/nf_log_all_netns')
_IS_WRITTEN = _LOGS_ALL.exists() and _LOGS_ALL.read_text() == '1\n'
_OTHER_MAC = 'fa:16:3e:99:99:99'


def packet(source, mac=GUEST, sport=7, octets=100):
    return (l2.Ether(src=mac, dst=ALL) / inet.IP(src=source, dst='192.0.2.77')
            / inet.UDP(sport=sport, dport=9)
            / scapy_packet.Raw(bytes(octets - 28)))


class DropsTest(test_full_frames.FullFramesTestCase):

    def setUp(self):
        super().setUp()
        self.lay_network()

    def send(self, *frames):
        """Have the guest send, and nothing of it come out."""
        for frame in frames:
            self.queues[0].write(bytes(frame))
        self.assertEqual([set()], self.who_gets([packet(GATEWAY)],
                                                self.queues[0]))

    def drops(self):
        return guest_filter.drops().get(self.host.link(base.TAP).index, {})

    def test_by_port_and_reason(self):
        self.assertEqual({}, guest_filter.drops())
        self.hold()
        self.assertEqual({}, guest_filter.drops())
        self.send(packet(IPV4, _OTHER_MAC), packet(IPV4, _OTHER_MAC),
                  packet(IPV4, sport=67, octets=200))
        payload = len(b'frame 00000001.')
        self.assertEqual({'another MAC': (2, 200), 'DHCP server': (1, 200),
                          'another IPv4 address': (1, 100 + payload)},
                         self.drops())
        self.send()
        self.assertEqual((2, 200 + 2 * payload),
                         self.drops()['another IPv4 address'])

    def test_what_passes_is_not_counted(self):
        self.hold()
        self.assertEqual([{'neighbour', 'wire', 'host'}], self.who_gets(
            [packet(IPV4)], self.queues[0]))
        self.assertEqual({}, guest_filter.drops())

    def test_to_the_host(self):
        """From whichever family."""
        self.filter.shield(self.netlink, [4711], '')
        self.host.set(base.TAP, group=4711)
        host = self.host.link(base.BRIDGE).mac
        for destination in host, '01:80:c2:00:00:0e':
            frame = packet(IPV4)
            frame.dst = destination
            self.queues[0].write(bytes(frame))
        patience.wait_until(
            lambda: self.drops() == {'to this host': (2, 200)},
            'not all is counted')

    def test_where_it_cannot_be_counted_it_is_dropped(self):
        self.patch(filter_table, 'SETS', tuple(
            each._replace(size=1) if each.name == filter_table.DROPS else each
            for each in filter_table.SETS))
        self.hold()
        self.send(packet(IPV4, _OTHER_MAC), packet(IPV4, sport=67))
        self.assertEqual(['another MAC'], list(self.drops()))

    def test_the_table_stays_right(self):
        self.hold()
        self.send()
        with nft.Session() as session:
            self.assertTrue(filter_state.is_right(session))
            before = session.generation()
            self.hold()
            self.assertEqual(before, session.generation())
        self.assertNotEqual({}, self.drops())

    def test_of_a_newer_table(self):
        self.hold()
        self.send()
        self.patch(filter_table, 'VERSION', filter_table.VERSION - 1)
        number, = (each for each, why in filter_table.REASONS.items()
                   if why == 'another IPv4 address')
        self.assertEqual(['reason %d' % number], list(self.drops()))

    def test_nothing_is_dropped_uncounted(self):
        drop = nft.Rule('', nft_expressions.DROP).expressions
        for rules in filter_table.RULES, *(
                each.rules for each in filter_table.BESIDE):
            self.assertEqual(['dropped'], [
                rule.chain for rule in rules
                if rule.expressions[-1:] == drop
                and rule not in agent_table.RULES])

    def logged(self):
        with nft.Session() as session:
            self.assertTrue(filter_state.is_right(session))
            rules = session.list(
                '', '', 0xa07, nft.body(
                    nft.attributes.text(1, filter_table.NAME),
                    nft.attributes.text(2, filter_table.LOG)), len)
            there = {struct.unpack('=I', each.key)[0]
                     for each in nft_sets.elements(
                         session, filter_table.NAME, filter_table.LOGGED)}
        self.assertEqual(bool(there), bool(rules))
        return there

    def test_logged_and_not_again(self):
        index, other = (self.host.link(name).index
                        for name in (base.TAP, 'neighbour'))
        guest_filter.log_drops(index, False)
        self.hold()
        for which, on, there in (
                (index, False, set()), (index, True, {index}),
                (index, True, {index}), (other, True, {index, other}),
                (index, False, {other}), (index, False, {other}),
                (other, False, set())):
            guest_filter.log_drops(which, on)
            self.assertEqual(there, self.logged())
            self.send(packet(IPV4, _OTHER_MAC))

    @base.needs_real_root(base.KERNEL_LOG)
    def test_what_the_log_says(self):
        """As far as the kernel writes it for this namespace."""
        self.hold()
        self.send(packet(IPV4, _OTHER_MAC))
        guest_filter.log_drops(self.host.link(base.TAP).index, True)
        log = os.open('/dev/kmsg', os.O_RDONLY | os.O_NONBLOCK)
        self.addCleanup(os.close, log)
        os.lseek(log, 0, os.SEEK_END)
        self.send(packet(IPV4, _OTHER_MAC))
        said = []
        with contextlib.suppress(BlockingIOError):
            while True:
                said.append(os.read(log, 8192))
        said = [each for each in said if b'tapmac ' in each]
        if not _IS_WRITTEN:
            self.assertEqual([], said)
            return
        self.assertIn(b'tapmac another MAC: IN=%s' % base.TAP.encode(),
                      said[0])

    def test_the_log_has_so_many_a_second(self):
        self.hold()
        guest_filter.log_drops(self.host.link(base.TAP).index, True)
        with nft.Session() as session:
            # What gets as far as to be logged is counted once more.
            session.transact('', [nft.new_rule(filter_table.NAME, nft.Rule(
                filter_table.LOG, nft_expressions.counted(
                    filter_table.DROPS, nft_expressions.IIF,
                    nft_expressions.MARK)))])
        start = time.monotonic()
        self.send(*[packet(IPV4, _OTHER_MAC)] * 100)
        logged = self.drops()['another MAC'][0] - 100
        self.assertLessEqual(20, logged)
        self.assertLessEqual(logged, 21 + 10 * (time.monotonic() - start))

    def test_logging_ends_with_the_tap_and_with_the_table(self):
        self.hold()
        self.host.add_tap('gone')
        guest_filter.log_drops(self.host.link('gone').index, True)
        self.host.delete('gone')
        index = self.host.link(base.TAP).index
        guest_filter.log_drops(index, True)
        self.assertEqual({index}, self.logged())
        with nft.Session() as session:
            session.transact('', [nft.delete_table(filter_table.NAME)])
        self.hold()
        self.assertEqual(set(), self.logged())

    def test_logging_does_not_cost_a_table(self):
        """Who plugs finds it as it should be."""
        self.hold()
        guest_filter.log_drops(self.host.link(base.TAP).index, True)
        with nft.Session() as session:
            before = session.table(filter_table.NAME)
            process = guest_filter.GuestFilter()
            process.shield(self.netlink, [4711], '')
            self.assertEqual(before, session.table(filter_table.NAME))
        self.assertEqual(1, len(self.logged()))

    def test_log_without_a_table_of_this_release(self):
        self.assertEqual(errno.ENOENT, self.assertRaises(
            exception.KernelRefused, guest_filter.log_drops, 1,
            True).kwargs['code'])
        self.hold()
        self.patch(filter_table, 'VERSION', filter_table.VERSION - 1)
        self.assertEqual(errno.ENOENT, self.assertRaises(
            exception.KernelRefused, guest_filter.log_drops, 1,
            True).kwargs['code'])

    def test_a_kernel_that_cannot_log(self):
        self.hold()
        name, values = filter_table.LOG_RULES[-1].expressions[-1]
        self.patch(filter_table, 'LOG_RULES', (nft.Rule(
            filter_table.LOG, ((name + '-that-is-missing', values),)),))
        raised = self.assertRaises(
            exception.KernelRefused, guest_filter.log_drops,
            self.host.link(base.TAP).index, True)
        self.assertEqual(errno.EOPNOTSUPP, raised.kwargs['code'])
        self.assertIn('nft_log', str(raised))
        self.assertEqual(set(), self.logged())
