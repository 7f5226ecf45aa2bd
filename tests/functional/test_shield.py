# SPDX-License-Identifier: Apache-2.0

"""Guests are kept from the host that their bridge is on, and from nobody else.

Each kind of frame is sent with the option and without it.
"""

import errno
import pathlib
import socket

import fixtures
from pyroute2.nftables import main as pyroute2_nftables
from scapy.layers import inet
from scapy.layers import inet6
from scapy.layers import l2
from scapy import packet as scapy_packet

from tests import base
from tests.functional import test_guard
from tests import hosts
from tests import patience
from vif_plug_tapmac import exception
from vif_plug_tapmac.kernel import attributes
from vif_plug_tapmac.kernel import filter_steps
from vif_plug_tapmac.kernel import filter_table
from vif_plug_tapmac.kernel import guest_filter
from vif_plug_tapmac.kernel import netlink as nl
from vif_plug_tapmac.kernel import nft
from vif_plug_tapmac.kernel import nft_sets
from vif_plug_tapmac.kernel import rtnetlink
from vif_plug_tapmac.kernel import shield
from vif_plug_tapmac.kernel import shields

_BRIDGE = '02:00:00:00:00:05'
_ADDRESS, _OTHER_ADDRESS, _GUESTS_ADDRESS = (
    '192.0.2.1', '198.51.100.7', '192.0.2.10')
_GUESTS_IPV6, _PORT = 'fe80::f816:3eff:fe28:64c2', 7777


class ShieldTest(test_guard.GuardTestCase):

    def setUp(self):
        super().setUp()
        self.patch(shield, '_looked', False)
        self.directory = pathlib.Path(
            self.useFixture(fixtures.TempDir()).path)
        self.host.set('lo', state='up')
        for name, address in (base.BRIDGE, _ADDRESS), ('lo', _OTHER_ADDRESS):
            self.host.ip.addr('add', index=self.host.link(name).index,
                              address=address, prefixlen=24)
        # A bridge of somebody else, on which the host has IPv6.
        for sysctl in 'accept_dad=0', 'accept_ra=2':
            name, value = sysctl.split('=')
            with open('/proc/sys/net/ipv6/conf/%s/%s' % (base.BRIDGE, name),
                      'w') as opened:
                opened.write(value)
        self.host.ip.addr('add', index=self.host.link(base.BRIDGE).index,
                          address='fe80::5', prefixlen=64)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(self.socket.close)
        self.socket.bind(('', _PORT))
        self.socket.settimeout(patience.HANG)
        self.host.wait_for_addresses()

    def ether(self, destination=_BRIDGE):
        return l2.Ether(src=base.GUEST_MAC, dst=destination)

    def is_answered(self, frame, kind):
        self.guest.waiting()
        self.guest.write(bytes(frame))
        return any(kind in l2.Ether(octets)
                   for octets in self.guest.frames_until(self.wire))

    def arp(self):
        return self.is_answered(
            self.ether(hosts.BROADCAST) / l2.ARP(
                op=1, hwsrc=base.GUEST_MAC, psrc=_GUESTS_ADDRESS,
                pdst=_ADDRESS), l2.ARP)

    def udp(self, address, mac=_BRIDGE):
        """Return whether a guest's packet comes before one from the wire."""
        for sender, payload, frame in (
                (self.guest, b'hello', self.ether(mac)),
                (self.wire, b'last', self.ether())):
            sender.write(bytes(
                frame / inet.IP(src=_GUESTS_ADDRESS, dst=address)
                / inet.UDP(sport=7, dport=_PORT) / scapy_packet.Raw(payload)))
        came = list(iter(lambda: self.socket.recv(100), b'last'))
        return came == [b'hello']

    def link_local(self):
        return self.is_answered(
            self.ether('33:33:ff:00:00:05')
            / inet6.IPv6(src=_GUESTS_IPV6, dst='ff02::1:ff00:5', hlim=255)
            / inet6.ICMPv6ND_NS(tgt='fe80::5')
            / inet6.ICMPv6NDOptSrcLLAddr(lladdr=base.GUEST_MAC),
            inet6.ICMPv6ND_NA)

    def router_advertisement(self, mac='33:33:00:00:00:01'):
        self.guest.write(bytes(
            self.ether(mac)
            / inet6.IPv6(src=_GUESTS_IPV6, dst='ff02::1', hlim=255)
            / inet6.ICMPv6ND_RA(routerlifetime=600)))
        return any(route.get_attr('RTA_GATEWAY') == _GUESTS_IPV6
                   for route in self.host.ip.get_default_routes(
                       family=socket.AF_INET6))

    def reached(self):
        """Return by what the guest reaches the host."""
        return [name for name, reaches in (
            ('ARP', self.arp()),
            ("the bridge's address", self.udp(_ADDRESS)),
            ('another address', self.udp(_OTHER_ADDRESS)),
            ("the TAP's own MAC", self.udp(_ADDRESS, base.TAP_MAC)),
            ('link-local', self.link_local()),
            ('router advertisement', self.router_advertisement())) if reaches]

    def start(self, **options):
        self.configure(**options)
        self.plug()
        self.guest = self.open(base.TAP, base.GUEST_MAC)

    def tables(self):
        found = []
        for family in nft.BRIDGE, nft.INET, nft.ARP:
            with pyroute2_nftables.NFTables(nfgen_family=family) as tables:
                found += [(family, table.get_attr('NFTA_TABLE_NAME'))
                          for table in tables.get_tables()]
        return found

    def shield_host(self, group, service=''):
        """Have a link group kept from the host, as another process does."""
        with nl.Netlink() as netlink:
            guest_filter.GuestFilter().shield(netlink, [group], service)

    def test_without(self):
        self.start()
        self.assertEqual(
            ['ARP', "the bridge's address", 'another address',
             "the TAP's own MAC", 'link-local', 'router advertisement'],
            self.reached())
        self.assertEqual([], self.tables())

    def test_with(self):
        self.start(host_shield=True)
        self.assertEqual([], self.reached())

    def test_frames_that_the_bridge_leaves_to_the_port(self):
        """01:80:c2:00:00:0e is for LLDP; what is in them, IP takes, too."""
        lldp = '01:80:c2:00:00:0e'
        self.start()
        for host_shield in False, True:
            self.configure(host_shield=host_shield)
            self.plug()
            self.assertFalse(self.is_answered(
                self.ether(lldp) / l2.ARP(
                    op=1, hwsrc=base.GUEST_MAC, psrc=_GUESTS_ADDRESS,
                    pdst=_ADDRESS), l2.ARP))
            self.assertFalse(self.router_advertisement(lldp))
            self.assertEqual([not host_shield] * 2, [
                self.udp(address, lldp)
                for address in (_ADDRESS, _OTHER_ADDRESS)])
            self.assertEqual([], list(self.host.ip.get_default_routes(
                family=socket.AF_INET6)))

    def test_others_are_reached(self):
        self.start(host_shield=True)
        neighbour = base.numbered_vif(1)
        self.plug(neighbour)
        neighbour = self.open(neighbour.vif_name, neighbour.address)
        ends = self.guest, neighbour, self.wire
        for one in ends:
            for other in ends:
                if one is not other:
                    for destination in other.mac, hosts.BROADCAST:
                        payload = ('%s to %s' % (one.mac,
                                                 destination)).encode()
                        one.send(destination, payload)
                        self.assertTrue(any(
                            payload in frame for frame in other.frames()),
                            payload)

    def test_wire_reaches_the_host(self):
        self.start(host_shield=True)
        self.guest = self.wire
        self.assertTrue(self.udp(_ADDRESS))

    def ruleset(self):
        """Return all rules and elements there are, by their families."""
        with nft.Session() as session:
            return [session.list(
                '', '', kind, nft.of_family(family, nft.body(*what)),
                lambda told: told[4:], tolerated=errno.ENOENT)
                for family in (nft.BRIDGE, nft.INET, nft.ARP)
                for kind, what in ((0xa07, ()), *(
                    (0xa0d, (attributes.text(1, filter_table.NAME),
                             attributes.text(2, each.name)))
                    for each in filter_table.SETS))]

    def test_nothing_for_a_port(self):
        self.start(host_shield=True)
        before = self.ruleset()
        for number in range(3):
            self.plug(base.numbered_vif(number))
        self.assertEqual(before, self.ruleset())
        self.unplug(base.numbered_vif(1))
        self.assertEqual(before, self.ruleset())
        self.assertTrue(shields.is_shielded(29793))

    def change(self, family, *steps):
        with nft.Session() as session:
            self.assertTrue(session.transact('', nft.on(family, steps)))

    def test_next_plug_heals(self):
        self.start(host_shield=True)
        name = filter_table.NAME
        for family in nft.BRIDGE, nft.INET, nft.ARP:
            for damage in (
                    [nft.delete_table(name)],
                    [nft_sets.delete_elements(name, filter_table.SHIELDED, [
                        nft_sets.Element(filter_steps.number_key(29793))])[0]],
                    [nft.delete_table(name), nft.new_table(name, 'mine')],
                    [(0xa08, 0, nft.body(attributes.text(1, name),
                                         attributes.text(2, 'to_host')))],
                    [(0xa00, 0x400, nft.body(attributes.text(1, name),
                                             nft.number(2, 1)))]):
                self.change(family, *damage)
                self.assertFalse(shields.is_shielded(29793))
                self.plug()
                self.assertTrue(shields.is_shielded(29793), damage)
        self.assertEqual([], self.reached())

    def test_next_plug_heals_what_is_flushed(self):
        self.start(host_shield=True)
        for undo in (lambda: None, lambda: self.shield_host(5),
                     lambda: self.shield_host(5, 'other')):
            guest_filter.GuestFilter().unshield()
            self.assertEqual([], self.tables())
            undo()
            self.assertFalse(shields.is_shielded(29793))
            self.plug()
            self.assertEqual([], self.reached())

    def test_nobody_is_closed_by_it(self):
        self.start(host_shield=True)
        with nft.Session() as session:
            self.assertEqual([], nft_sets.elements(
                session, filter_table.NAME, filter_table.GROUPS))

    def test_a_newer_table_stays(self):
        """In each family, and what it has is added to."""
        self.start()
        with fixtures.MonkeyPatch(filter_table.__name__ + '.VERSION', 99):
            self.shield_host(5, 'newer')
        before = self.tables()
        self.configure(host_shield=True)
        self.plug()
        self.assertEqual(before, self.tables())
        self.assertEqual([], self.reached())
        self.configure(host_shield=False)
        shield._looked = False  # As after a restart.
        self.plug()
        self.assertEqual(before, self.tables())
        self.assertEqual([5], [each.group for each
                               in shields.of_all_services()])

    def test_an_older_table_is_replaced(self):
        self.start()
        with fixtures.MonkeyPatch(filter_table.__name__ + '.VERSION', 1):
            self.shield_host(5, 'older')
        self.configure(host_shield=True)
        self.plug()
        self.assertEqual([], self.reached())
        # What another service wants stays.
        for group in 5, 29793:
            self.assertTrue(shields.is_shielded(group))

    def test_switched_on_and_off(self):
        self.start()
        self.assertNotEqual([], self.reached())
        self.configure(host_shield=True)
        self.plug()
        self.assertFalse(self.arp())
        # Another table of that family is not ours.
        with pyroute2_nftables.NFTables(nfgen_family=7) as others:
            others.table('add', name='others')
        self.configure(host_shield=False)
        shield._looked = False  # As after a restart.
        self.plug()
        self.assertEqual([(nft.BRIDGE, 'others')], self.tables())
        self.assertTrue(self.arp())

    def test_two_services(self):
        """Each has its own section, and keeps its own guests from the host."""
        self.start(host_shield=True)
        for options in ({'host_shield': False}, {'host_shield': True},
                        {'host_shield': False}):
            shield._looked = False  # As in another process.
            self.configure(link_group=30000, **options)
            self.plug(base.numbered_vif(1))
            self.assertEqual(
                (True, options['host_shield']),
                (shields.is_shielded(29793),
                 shields.is_shielded(30000)))
            self.assertFalse(self.arp())

    def be(self, service, **options):
        """Be a service of this host, with its own file, that has started."""
        path = self.directory / (service + '.conf')
        path.write_text('\n'.join(['[os_vif_tapmac]', 'udev_timeout = 0', *(
            '%s = %s' % option for option in options.items())]))
        self.config.conf([], project='tapmac',
                         default_config_files=[str(path)])
        shield._looked = False

    def own(self):
        """Return which services want it."""
        return sorted(pathlib.Path(each.service).stem
                      for each in shields.of_all_services())

    def test_two_services_of_one_group(self):
        """Each has its own section, and the TAPs of both are in one group."""
        self.be('one', host_shield=True)
        self.plug()
        self.guest = self.open(base.TAP, base.GUEST_MAC)
        self.assertFalse(self.arp())
        for host_shield, own in ((False, ['one']), (True, ['one', 'two']),
                                 (False, ['one'])):
            for _ in range(2):  # It may start again.
                self.be('two', host_shield=host_shield)
                self.plug(base.numbered_vif(1))
                self.assertEqual(own, self.own())
                self.assertFalse(self.arp())

    def test_two_services_keep_their_guests_to_different_things(self):
        """What a plug does about a port concerns that port alone."""
        services = {'one': {'anti_spoofing': 'mac', 'port_isolated': True},
                    'two': {'anti_spoofing': 'none', 'port_hairpin': True}}
        vifs = {'one': base.make_vif(), 'two': base.numbered_vif(1)}
        seen = {}
        for service in ('one', 'two') * 2:
            self.be(service, **services[service])
            self.plug(vifs[service])
            seen.setdefault(service, self.host.link(vifs[service].vif_name))
            for other in seen:
                self.assertEqual(seen[other],
                                 self.host.link(vifs[other].vif_name))
        one, two = seen['one'], seen['two']
        self.assertEqual(
            [(True, True, False), (False, False, True)],
            [(each.locked, each.isolated, each.hairpin)
             for each in (one, two)])
        with nl.Netlink() as netlink:
            self.assertEqual({(one.index, base.GUEST_MAC)},
                             netlink.fixed_macs())

    def test_last_service_that_wants_none_is_the_one(self):
        for service in 'one', 'two':
            self.be(service, host_shield=True)
            self.plug()
        self.guest = self.open(base.TAP, base.GUEST_MAC)
        for service, own in ('one', ['two']), ('two', []):
            self.be(service, host_shield=False)
            self.plug()
            self.assertEqual(own, self.own())
            self.assertEqual(not own, self.arp())
        self.assertEqual([], self.tables())

    def test_commands_act_for_the_service_whose_files_they_read(self):
        self.be('one', host_shield=True)
        self.plug()
        for service, own in ('two', ['one']), ('one', []):
            self.be(service, host_shield=False)
            result = base.run_command(
                'main', '--config-file', str(self.directory / service)
                + '.conf', 'plug', '--bridge', base.BRIDGE, '--mac',
                'fa:16:3e:00:00:01')
            self.assertEqual(0, result.returncode, result.stderr)
            self.assertEqual(own, self.own())

    def test_no_caller_says_whose_it_is(self):
        self.be('one', host_shield=True)
        self.plug()
        port = base.make_port()
        self.assertNotIn('service', port.to_fields())

    def test_nft_shows_whose_it_is(self):
        self.shield_host(29793, '/etc/nova/nova.conf')
        with nft.Session() as session:
            self.assertEqual(
                ['host_shield of /etc/nova/nova.conf'],
                [each.comment for each in nft_sets.elements(
                    session, filter_table.NAME, filter_table.SHIELDS)])

    def test_one_of_nobody_stays(self):
        self.shield_host(29793, '/etc/nova/other.conf')
        self.change(nft.BRIDGE, *nft_sets.add_elements(
            filter_table.NAME, filter_table.SHIELDS,
            [nft_sets.Element(bytes(8))]))
        self.be('one', host_shield=False)
        self.plug()
        self.assertEqual([None, '/etc/nova/other.conf'], [
            each.service for each in sorted(shields.of_all_services())])

    def test_one_that_comes_meanwhile_stays(self):
        self.shield_host(29793)
        real = nft.Session.transact

        def transact(session, step, steps, only_if=None):
            if not shields.is_shielded(30000):
                self.patch(nft.Session, 'transact', real)
                self.shield_host(30000)
            return real(session, step, steps, only_if)
        self.patch(nft.Session, 'transact', transact)
        guest_filter.GuestFilter().unshield([29793])
        self.assertEqual([False, True], [
            shields.is_shielded(group) for group in (29793, 30000)])

    def test_kernel_without_nftables(self):
        self.configure(host_shield=True)

        def refuse(*args):
            raise exception.KernelRefused.from_errno('nftables', 'asking', 93)
        self.patch(nft.Session, 'generation', refuse)
        self.assert_plug_fails(exception.KernelRefused, 'nf_tables',
                               'host_shield')

    def test_refusals_that_no_module_mends(self):
        for code in (errno.ENOBUFS, errno.EMSGSIZE, errno.ENOMEM,
                     errno.ETIMEDOUT, errno.EINTR, errno.EBUSY, errno.EPERM):
            def refuse(*args):
                raise exception.KernelRefused.from_errno('nftables', 'x', code)
            self.patch(nft.Session, 'generation', refuse)
            self.patch(shield, '_looked', False)
            with nl.Netlink() as netlink:
                error = self.assertRaises(
                    exception.KernelRefused, shield.ensure, netlink,
                    base.make_port(host_shield=True))
            self.assertNotIn('load nf_tables', str(error))
            self.assertIn(errno.errorcode[code], str(error))

    def test_rules_of_others_are_not_listed(self):
        self.configure(host_shield=True)
        hosts.add_rules('others', 1000)
        # What the firewall of this host drops is looked up once more after
        # rules have changed, as the first plug's do.
        self.plug()
        self.plug()
        came = []
        receive = rtnetlink.Socket._receive

        def count(netlink, how):
            came.append(receive(netlink, how))
            return came[-1]
        self.patch(rtnetlink.Socket, '_receive', count)
        self.plug()
        self.assertEqual([], [each for each in came if b'others' in each])
        del came[:]
        self.assertTrue(shields.is_shielded(29793))
        self.assertEqual([], [each for each in came if b'others' in each])

    def test_somebody_removes_it_at_once(self):
        self.configure(host_shield=True)
        self.patch(guest_filter.GuestFilter, 'shield', lambda *args: True)
        self.assert_plug_fails(exception.VerifyFailed, filter_table.NAME)
