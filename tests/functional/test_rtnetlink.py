# SPDX-License-Identifier: Apache-2.0

"""Our own reading and writing of netlink says what pyroute2's says.

Test strategy: a host with links of many kinds is described by both, so that
neither a number that we took down wrong, nor one that means something else in
this kernel, goes unseen. What comes in otherwise than expected is made up.
"""

import errno
import socket
import struct
import threading

import fixtures
import hypothesis
from hypothesis import strategies as st
import pyroute2

from tests import base
from tests import hosts
from tests import patience
from vif_plug_tapmac import exception
from vif_plug_tapmac.kernel import attributes
from vif_plug_tapmac.kernel.attributes import Attributes
from vif_plug_tapmac.kernel.fdb import FdbEntry
from vif_plug_tapmac.kernel.link import Link
from vif_plug_tapmac.kernel import netlink as nl
from vif_plug_tapmac.kernel import rtnetlink
from vif_plug_tapmac.kernel import session

_MULTI_QUEUE = hosts.IFF_TAP | hosts.IFF_MULTI_QUEUE
_PORT_OPTIONS = {
    'isolated': 'IFLA_BRPORT_ISOLATED', 'locked': 'IFLA_BRPORT_LOCKED',
    'flood_unicast': 'IFLA_BRPORT_UNICAST_FLOOD',
    'flood_multicast': 'IFLA_BRPORT_MCAST_FLOOD',
    'hairpin': 'IFLA_BRPORT_MODE', 'learning': 'IFLA_BRPORT_LEARNING'}


def described(message):
    """Return a link as pyroute2 describes it, by the fields of a Link."""
    nested = message.get_nested
    conf = nested('IFLA_AF_SPEC', 'AF_INET6', 'IFLA_INET6_CONF')
    inet = nested('IFLA_AF_SPEC', 'AF_INET')
    fields = {
        'index': message['index'], 'name': message.get_attr('IFLA_IFNAME'),
        'kind': nested('IFLA_LINKINFO', 'IFLA_INFO_KIND'),
        'mac': message.get_attr('IFLA_ADDRESS'),
        'mtu': message.get_attr('IFLA_MTU'),
        'up': bool(message['flags'] & 1),
        'carrier': bool(message.get_attr('IFLA_CARRIER')),
        'master': message.get_attr('IFLA_MASTER'),
        'group': message.get_attr('IFLA_GROUP'),
        'alias': message.get_attr('IFLA_IFALIAS'),
        'addr_gen_mode': nested('IFLA_AF_SPEC', 'AF_INET6',
                                'IFLA_INET6_ADDR_GEN_MODE'),
        'disable_ipv6': conf['disable_ipv6'] if conf else None,
        'arp_ignore': inet['arp_ignore'],
        'lower': None if message.get_attr('IFLA_LINK_NETNSID') is not None
        else message.get_attr('IFLA_LINK') or None,
        'takes_ra': None if not conf else bool(
            not conf['disable_ipv6'] and conf['accept_ra']
            and (conf['accept_ra'] == 2 or not conf['forwarding']))}
    data = nested('IFLA_LINKINFO', 'IFLA_INFO_DATA')
    if fields['kind'] == 'tun':
        multi_queue = bool(data.get_attr('IFLA_TUN_MULTI_QUEUE'))
        fields.update(
            is_tap=data.get_attr('IFLA_TUN_TYPE') == 2,
            owner=data.get_attr('IFLA_TUN_OWNER'),
            persistent=bool(data.get_attr('IFLA_TUN_PERSIST')),
            multi_queue=multi_queue, queues=None if not multi_queue else
            data.get_attr('IFLA_TUN_NUM_QUEUES')
            + data.get_attr('IFLA_TUN_NUM_DISABLED_QUEUES'))
    if fields['kind'] == 'bridge':
        fields.update(
            stp=bool(data.get_attr('IFLA_BR_STP_STATE')),
            forward_delay=data.get_attr('IFLA_BR_FORWARD_DELAY'),
            multicast_snooping=bool(
                data.get_attr('IFLA_BR_MCAST_SNOOPING')),
            vlan_filtering=bool(data.get_attr('IFLA_BR_VLAN_FILTERING')),
            default_pvid=data.get_attr('IFLA_BR_VLAN_DEFAULT_PVID'))
    if fields['kind'] == 'vlan':
        fields.update(
            vlan=data.get_attr('IFLA_VLAN_ID'),
            vlan_protocol=data.get_attr('IFLA_VLAN_PROTOCOL'))
    port = nested('IFLA_LINKINFO', 'IFLA_INFO_SLAVE_DATA')
    if port is not None:
        fields['port_number'] = port.get_attr('IFLA_BRPORT_NO')
        for field, name in _PORT_OPTIONS.items():
            value = port.get_attr(name)
            # pyroute2 before 0.9.1 does not know locked.
            if field != 'locked' or value is not None:
                fields[field] = bool(value)
    return fields


class ContractTest(base.FunctionalTestCase):

    def lay_links(self):
        for name, options in (
                ('br1', {'br_stp_state': 1, 'br_forward_delay': 400}),
                ('br2', {'br_mcast_snooping': 0, 'group': 7})):
            self.host.add(name, 'bridge', **options)
        self.host.add('veth0', 'veth', peer='veth1', mtu=9000,
                      address='52:54:00:12:34:56')
        self.host.add('ifb7', 'ifb')
        self.host.add_tap('tun0', flags=hosts.IFF_TUN)
        self.host.add_tap('tap0', owner=(
            0 if hosts.in_user_namespace() else 65534))
        self.host.add_tap('tap1', flags=_MULTI_QUEUE, owner=0)
        for name in 'tap0', 'veth0':
            self.host.set(name, master=self.host.link('br1').index)
        self.host.set('tap1', ifalias='\u00e4 b' * 30, state='up')
        self.host.set('tap0', **hosts.addr_gen_mode(1))
        self.host.set('br2', state='up')
        hosts.set_port_options(self.host.link('tap0').index, LOCKED=1,
                               LEARNING=0, ISOLATED=1)
        for path, value in (('ipv4/conf/br1/arp_ignore', 8),
                            ('ipv6/conf/br1/accept_ra', 2),
                            ('ipv6/conf/br1/forwarding', 1),
                            ('ipv6/conf/veth1/disable_ipv6', 1),
                            ('ipv6/conf/ifb7/forwarding', 1)):
            with open('/proc/sys/net/' + path, 'w') as opened:
                opened.write(str(value))

    def test_links(self):
        self.lay_links()
        with hosts.Guest('tap0'), hosts.Guest('tap1', flags=_MULTI_QUEUE):
            messages = list(self.host.ip.get_links())
            self.assertEqual(9, len(messages))
            with nl.Netlink() as netlink:
                links = {link.name: link for link in netlink.links()}
                for message in messages:
                    wanted = described(message)
                    for link in (links[wanted['name']],
                                 netlink.find(wanted['name']),
                                 netlink.get(wanted['index'])):
                        self.assertEqual({}, link.differences(wanted))

    def test_vlans(self):
        if not hosts.kernel_knows_vlans():
            self.skipTest(hosts.NO_VLANS)
        outside = self.useFixture(hosts.Peer())
        self.host.add('eth7', 'veth', peer='peer7')
        index = self.host.link('eth7').index
        self.host.add('eth7.200', 'vlan', link=index, vlan_id=200)
        self.host.add('outer', 'vlan', link=index, vlan_id=4094,
                      vlan_protocol=0x88a8)
        self.host.add('eth8', 'veth', peer='peer8')
        self.host.add('eth8.1', 'vlan', link=self.host.link('eth8').index,
                      vlan_id=1)
        self.host.ip.link('set', index=self.host.link('eth8').index,
                          net_ns_fd=outside.namespace)
        for message in self.host.ip.get_links():
            wanted = described(message)
            self.assertEqual({}, self.host.link(wanted['name']).differences(
                wanted))
        self.assertEqual(
            [(index, 200, 0x8100), (index, 4094, 0x88a8), (None, 1, 0x8100)],
            [(link.lower, link.vlan, link.vlan_protocol) for link in map(
                self.host.link, ('eth7.200', 'outer', 'eth8.1'))])

    def test_what_is_set(self):
        self.lay_links()
        fields = {'name': 'tap9', 'mac': '02:00:00:00:00:09', 'mtu': 1280,
                  'group': 77, 'alias': 'an alias', 'addr_gen_mode': 1,
                  'up': True, 'isolated': True, 'hairpin': True,
                  'flood_unicast': False, 'flood_multicast': False,
                  'learning': False}
        tap = self.host.link('tap0')
        with nl.Netlink() as netlink:
            netlink.change(tap, fields)
        message, = self.host.ip.get_links(tap.index)
        seen = described(message)
        self.assertEqual(fields, {field: seen[field] for field in fields})

    def test_fdb(self):
        self.lay_links()
        port, br1 = self.host.link('veth0'), self.host.link('br1')
        with nl.Netlink() as netlink:
            netlink.fix_fdb_entry(port, base.GUEST_MAC)
            self.assertEqual({(port.index, base.GUEST_MAC)},
                             netlink.fixed_macs())
            self.assertEqual(FdbEntry(port.index, False, True),
                             netlink.fdb_entry(br1, base.GUEST_MAC))
            entries = [each for each in self.host.ip.fdb(
                'dump', ifindex=port.index) if each.get_attr(
                    'NDA_LLADDR') == base.GUEST_MAC]
            # For frames without a VLAN, and for VLAN 1, which ports have where
            # the kernel knows VLANs, whether the bridge looks at them or not.
            self.assertIn([each.get_attr('NDA_VLAN') for each in entries],
                          ([None], [1, None], [None, 1]))
            for entry in entries:
                self.assertEqual((0x40, 0x40), (entry['state'],
                                                entry['flags'] & 0x40))
            netlink.remove_fdb_entry(port, base.GUEST_MAC)
            self.assertIsNone(netlink.fdb_entry(br1, base.GUEST_MAC))


class DumpTest(base.FunctionalTestCase):

    def churn(self, stop):
        with pyroute2.IPRoute() as ip:
            while not stop.wait(0.02):
                ip.link('add', ifname='coming', kind='ifb')
                ip.link('del', index=ip.link_lookup(ifname='coming')[0])

    def test_links_that_come_and_go(self):
        names = ['ifb%d' % number for number in range(50)]
        for name in names:
            self.host.add(name, 'ifb')
        stop = threading.Event()
        thread = threading.Thread(target=self.churn, args=(stop,))
        thread.start()
        try:
            with nl.Netlink() as netlink:
                for _ in range(20):
                    seen = [link.name for link in netlink.links()]
                    self.assertEqual(sorted([*names, 'lo']), sorted(
                        set(seen) - {'coming'}))
                    self.assertEqual('lo', netlink.get(1).name)
        finally:
            stop.set()
            thread.join()

    def test_interrupted_one_is_asked_for_again(self):
        rounds = []
        dump = rtnetlink.Socket.dump

        def interrupted(asked, *arguments):
            found = dump(asked, *arguments)
            rounds.append(found)
            if len(rounds) < 3:
                raise rtnetlink.Interrupted()
            return found
        self.patch(rtnetlink.Socket, 'dump', interrupted)
        with nl.Netlink() as netlink:
            self.assertEqual(['lo'], [link.name for link in netlink.links()])
        self.assertEqual(3, len(rounds))

    def test_interrupted_for_ever(self):
        def interrupted(*_):
            raise rtnetlink.Interrupted()
        self.patch(rtnetlink.Socket, 'dump', interrupted)
        self.patch(session, '_LISTS_WITHIN', 0.05)
        with nl.Netlink() as netlink:
            error = str(self.assertRaises(exception.KernelRefused,
                                          netlink.links))
        for words in ('EINTR', 'in 0.05 s the list was never whole',
                      'ip monitor'):
            self.assertIn(words, error)

    def test_what_the_kernel_does_not_know_in_a_list_it_refuses(self):
        with nl.Netlink() as netlink:
            error = self.assertRaises(
                exception.KernelRefused, netlink.list, 'lo', 'listing',
                rtnetlink.GET_LINK, rtnetlink.link(1), bytes)
        self.assertIn('EINVAL (Invalid argument: ', str(error))

    def test_words_of_the_kernel(self):
        bridges = [self.host.add(name, 'bridge') for name in ('br1', 'br2')]
        with nl.Netlink() as netlink:
            error = self.assertRaises(
                exception.KernelRefused, netlink.change, bridges[0],
                {'master': bridges[1].index})
        self.assertIn('Can not enslave a bridge to a bridge', str(error))

    def test_addresses_of_one_link(self):
        self.host.add('br1', 'bridge')
        self.host.set('lo', state='up')
        for name, address, length in (('br1', '192.0.2.7', 24),
                                      ('br1', '2001:db8::7', 64)):
            self.host.ip.addr('add', index=self.host.link(name).index,
                              address=address, prefixlen=length)
        with nl.Netlink() as netlink:
            br1 = self.host.link('br1')
            self.assertEqual(['192.0.2.7/24', '2001:db8::7/64'],
                             netlink.global_addresses(br1))
            self.assertEqual({'192.0.2.7/24', '2001:db8::7/64'},
                             set(netlink.all_addresses()[br1.index]))
            netlink.remove_addresses(br1)
            self.assertEqual([], netlink.addresses(br1))
            self.host.delete('br1')
            self.assertEqual([], netlink.addresses(br1))


def message(kind, sequence, body, length=None):
    return struct.pack('=IHHII', 16 + len(body) if length is None else length,
                       kind, 0, sequence, 0) + body


def link(sequence, index=7):
    """Return the least that describes a link."""
    return message(rtnetlink.NEW_LINK, sequence, rtnetlink.link(
        index, attributes.text(3, 'tap0'), attributes.number(4, 1500)))


_LINK = link(1)
#: Source: include/uapi/linux/rtnetlink.h
_NEW_ADDRESS = 20


class AnswersTest(base.TestCase):
    """Answers that are not as they should be."""

    def setUp(self):
        super().setUp()
        self.patch(rtnetlink, '_ANSWERS_WITHIN', patience.HANG)
        self.netlink = nl.Netlink()
        self.addCleanup(self.netlink.__exit__, None, None, None)
        self.kernel, ours = socket.socketpair(socket.AF_UNIX,
                                              socket.SOCK_SEQPACKET)
        self.addCleanup(self.kernel.close)
        self.netlink._socket.close()
        self.netlink._socket._socket = self.ours = ours

    def assert_timeout(self, *answers):
        """Expect it to give up what it waits for."""
        with fixtures.MonkeyPatch(
                'vif_plug_tapmac.kernel.rtnetlink._ANSWERS_WITHIN', 0.2):
            self.ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO,
                                 rtnetlink._timeval(0.2))
            self.assert_refused(errno.ETIMEDOUT, *answers)

    def get(self, *answers):
        for answer in answers:
            self.kernel.send(answer)
        return self.netlink.get(7)

    def assert_refused(self, code, *answers):
        error = self.assertRaises(exception.KernelRefused, self.get, *answers)
        self.assertIn(errno.errorcode[code], str(error))
        self.assertIn('link 7: looking it up', str(error))

    def test_right(self):
        self.assertEqual(7, self.get(_LINK).index)

    def test_none(self):
        self.assert_timeout()

    def test_of_another_request(self):
        self.assertEqual(7, self.get(link(99, 8), _LINK).index)

    def test_of_another_process(self):
        ours = self.netlink._socket._socket

        class Other:
            send, close = ours.send, ours.close

            def recvmsg(self, *how):
                data, control, flags, _ = ours.recvmsg(*how)
                stranger = data == link(1, 8)
                return data, control, flags, (77 if stranger else 0, 0)
        self.netlink._socket._socket = Other()
        self.assertEqual(7, self.get(link(1, 8), _LINK).index)

    def test_that_is_there_when_we_are_late(self):
        # As for a process that others keep from the processor.
        self.patch(rtnetlink, '_ANSWERS_WITHIN', 0)
        self.assertEqual(7, self.get(_LINK).index)

    def test_interrupted_list_is_read_to_its_end(self):
        for kind, flags, body in ((rtnetlink.NEW_LINK, 0x12, _LINK[16:]),
                                  (3, 2, bytes(4))):
            self.kernel.send(struct.pack(
                '=IHHII', 16 + len(body), kind, flags, 1, 0) + body)
        self.assertRaises(rtnetlink.Interrupted, self.netlink._socket.dump,
                          rtnetlink.GET_LINK, rtnetlink.link(0))
        self.assertRaises(BlockingIOError, self.ours.recv, 1,
                          socket.MSG_DONTWAIT)

    def test_address_that_is_not_of_ip(self):
        # As MCTP has: family 45, one octet. Source: net/mctp/device.c
        body = struct.pack('=BBBBI', 45, 0, 0, 0, 1) + struct.pack(
            '=HHB3x', 5, 2, 8)
        for kind, flags, body in ((_NEW_ADDRESS, 2, body),
                                  (3, 2, bytes(4))):
            self.kernel.send(struct.pack(
                '=IHHII', 16 + len(body), kind, flags, 1, 0) + body)
        self.assertEqual({}, self.netlink.all_addresses())

    def test_late_one_is_passed_over(self):
        self.assert_timeout()
        self.assertEqual(7, self.get(_LINK, link(2)).index)

    def test_only_others_for_ever(self):
        stop = threading.Event()

        def chatter():
            while not stop.wait(0.01):
                self.kernel.send(message(rtnetlink.NEW_LINK, 99, b''))
        thread = threading.Thread(target=chatter)
        thread.start()
        try:
            self.assert_timeout()
        finally:
            stop.set()
            thread.join()

    def test_cut_off(self):
        for length in range(1, len(_LINK)):
            self.netlink._socket._sequence = 0
            self.assert_refused(errno.EBADMSG, _LINK[:length])

    def test_of_another_kind(self):
        self.assert_refused(errno.EBADMSG, message(
            rtnetlink.NEW_NEIGHBOUR, 1, b'x' * 16))

    def test_refusal(self):
        self.assertIsNone(self.get(message(
            2, 1, struct.pack('=i', -errno.ENODEV))))

    def test_refusal_without_a_code(self):
        self.assert_refused(errno.EBADMSG, message(2, 1, b''))

    def test_closed(self):
        self.netlink._socket.close()
        self.assertRaises(exception.KernelRefused, self.netlink.get, 7)

    @hypothesis.given(st.binary(max_size=200))
    def test_attributes_of_any_octets(self, octets):
        attributes = Attributes(octets)
        for kind in range(64):
            attributes.number(kind), attributes.text(kind)
            attributes.mac(kind), attributes.nested(kind)

    @hypothesis.given(st.binary(max_size=300))
    def test_link_of_any_octets(self, octets):
        def answer(*arguments):
            return bytes(16) + octets
        try:
            self.netlink._request('7', 'looking it up', answer,
                                  decode=Link.from_message)
        except exception.KernelRefused as error:
            self.assertIn('EBADMSG', str(error))
