# SPDX-License-Identifier: Apache-2.0

"""The log is as "Deploying with Nova" quotes it.

Each line there is produced here, on the real kernel. VIF, MACs and names are
the same in the document and in the tests, so that lines are compared as they
are, but for what is random.
"""

import contextlib
import errno
import logging
import os
import pathlib
import re
import signal
import types
from unittest import mock

import fixtures
import os_vif
from os_vif import exception as os_vif_exception
from oslo_privsep import capabilities
from oslo_privsep import priv_context
from stevedore import extension

from tests import base
from tests import documents
from tests.functional import test_claim
from tests import hosts
from tests import patience
from tests import udevd
from vif_plug_tapmac import exception
from vif_plug_tapmac.kernel import agent_arrivals
from vif_plug_tapmac.kernel import agent_healing
from vif_plug_tapmac.kernel import bridge_health
from vif_plug_tapmac.kernel import converging
from vif_plug_tapmac.kernel import filter_state
from vif_plug_tapmac.kernel import filter_table
from vif_plug_tapmac.kernel import guest_filter
from vif_plug_tapmac.kernel import lasting_session
from vif_plug_tapmac.kernel import netlink as nl
from vif_plug_tapmac.kernel import nft
from vif_plug_tapmac.kernel import removing
from vif_plug_tapmac import linux_bridge
from vif_plug_tapmac.mac import alternate_tap_macs
from vif_plug_tapmac import mark
from vif_plug_tapmac import privileged
from vif_plug_tapmac import privsep
from vif_plug_tapmac.wanted import security_groups

_MULTI_QUEUE = hosts.IFF_TAP | hosts.IFF_MULTI_QUEUE
_RIVAL_MAC = 'fe:16:3e:28:64:c2'
_UPLINK_MAC = '52:54:00:12:34:56'


def refuse_to_delete(netlink, link):
    raise exception.KernelRefused.from_errno(
        link.name, 'deleting it', errno.EBUSY)


class LogTest(test_claim.ClaimTestCase):
    """Cases: one method for each, and together all that is quoted."""

    def hold(self, vif=None):
        """Hold the TAP of a VIF as a guest does, to the end of the case."""
        vif = vif or base.make_vif()
        guest = hosts.Guest(vif.vif_name, vif.address)
        self.case.callback(guest.close)
        return guest

    def case_claim(self):
        self.configure(claim_plugins=['ovs'])
        os_vif.initialize(reset=True)

    def case_claim_of_a_plugin_that_fails(self):
        self.load('tapmac = vif_plug_tapmac.plugin:TapMacPlugin',
                  'ovs = tests.functional.test_claim:FailingOvs',
                  claim_plugins=['ovs'])

    def case_kernel_cannot_lock(self):
        self.case.enter_context(fixtures.MonkeyPatch(
            'vif_plug_tapmac.opts.kernel_can_lock', lambda: False))
        self.case.enter_context(fixtures.MonkeyPatch(
            'os.uname', lambda: types.SimpleNamespace(release='5.15.0')))
        self.configure(anti_spoofing='none')
        os_vif.initialize(reset=True)

    def case_kernel_cannot_filter(self):
        self.case.enter_context(fixtures.MonkeyPatch(
            'os.uname', lambda: types.SimpleNamespace(release='6.1.0')))
        for why in 'ENOENT (No such file or directory)', None:
            with fixtures.MonkeyPatch(
                    'vif_plug_tapmac.startup.cannot', lambda what: why):
                os_vif.initialize(reset=True)

    def case_arriving_guest_that_can_not_be_filtered(self):
        def refuse(netlink, link, mac):
            raise exception.KernelRefused.from_errno(
                link.name, 'filtering', errno.ENOENT)
        self.case.enter_context(fixtures.MonkeyPatch(
            'vif_plug_tapmac.kernel.source_filter.put', refuse))
        self.plug(base.numbered_vif(1))
        self.host.add_tap('wire')
        index = self.host.set(
            'wire', master=self.host.link(base.BRIDGE).index).index
        self.host.ip.fdb('add', ifindex=index, lladdr=base.GUEST_MAC,
                         flags=4, state=0x40)
        self.plug()

    def case_addresses_that_nobody_can_keep_guests_to(self):
        self.case.enter_context(fixtures.MonkeyPatch(
            'os.uname', lambda: types.SimpleNamespace(release='6.1.0')))
        self.case.enter_context(fixtures.MonkeyPatch(
            'vif_plug_tapmac.startup.cannot',
            lambda what: 'EOPNOTSUPP (Operation not supported)'))
        self.configure(anti_spoofing='full', claim_plugins=['linux_bridge'])
        os_vif.initialize(reset=True)

    def case_addresses_that_nobody_may_try_to_keep_guests_to(self):
        self.case.enter_context(fixtures.MonkeyPatch(
            'vif_plug_tapmac.startup.cannot', lambda what: None))
        self.configure(anti_spoofing='full')
        os_vif.initialize(reset=True)

    def case_addresses_and_a_tap_of_somebody_else(self):
        self.configure(anti_spoofing='full')
        for flags, persists in ((hosts.IFF_TAP, False), (hosts.IFF_TAP, True),
                                (_MULTI_QUEUE, False)):
            with hosts.Guest(base.TAP, flags=flags) as guest:
                if persists:
                    guest.persist()
                self.plug()
            if self.host.find(base.TAP):
                self.host.delete(base.TAP)

    def case_agent_and_a_tap_of_libvirts(self):
        self.configure(firewall='agent')
        with hosts.Guest(base.TAP):
            self.plug()

    def case_interface_on_another_bridge(self):
        self.host.add(base.TAP, 'veth', peer='ns', group=mark.INTERFACE_GROUP)
        for bridge in 'br200', base.BRIDGE:
            privileged.join_interface({
                'vif_id': base.VIF_ID, 'name': base.TAP, 'bridge': bridge,
                'guest_mac': base.GUEST_MAC, 'mtu': 1500})

    def case_addresses_that_stay(self):
        def refuse(*args):
            raise exception.KernelRefused.from_errno(
                'nftables', 'removing what guests were kept to', errno.EPERM)
        self.configure(anti_spoofing='full')
        self.plug()
        with fixtures.MonkeyPatch('vif_plug_tapmac.kernel.guest_filter.'
                                  'GuestFilter.remove', refuse):
            self.unplug()

    def case_addresses_that_a_daemon_does_not_know(self):
        self.configure(anti_spoofing='full')
        self.case.callback(self.unplug, base.numbered_vif(1))
        for alias in None, 'rack 7':
            self.plug()
            if alias:
                self.host.set(base.TAP, ifalias=alias)
            with nft.Session() as session:
                session.transact('', [nft.delete_table(filter_table.NAME)])
            with fixtures.MonkeyPatch(
                    'vif_plug_tapmac.kernel.guest_filter.of_this_process',
                    guest_filter.GuestFilter()):
                self.plug(base.numbered_vif(1))

    def case_addresses_that_a_kernel_keeps_no_guest_to(self):
        for mode in 'mac', 'full':
            self.configure(anti_spoofing=mode)
            self.plug()
            if mode == 'mac':
                self.hold()
            self.configure(anti_spoofing='full')
            with fixtures.MonkeyPatch(
                    'vif_plug_tapmac.kernel.nft.Session.PROTOCOL', 31), (
                    fixtures.MonkeyPatch(
                        'vif_plug_tapmac.kernel.guest_filter.'
                        'of_this_process', guest_filter.GuestFilter())):
                self.plug()

    def case_security_groups_that_nobody_can_keep_guests_to(self):
        self.case.enter_context(fixtures.MonkeyPatch(
            'os.uname', lambda: types.SimpleNamespace(release='6.1.0')))
        self.case.enter_context(fixtures.MonkeyPatch(
            'vif_plug_tapmac.startup.cannot',
            lambda what: 'EOPNOTSUPP (Operation not supported)'))
        self.configure(firewall='agent', claim_plugins=['linux_bridge'])
        os_vif.initialize(reset=True)

    def case_security_groups_of_a_guest_that_runs(self):
        self.plug()
        self.hold()
        self.configure(firewall='agent')
        self.plug()

    def case_security_groups_that_can_not_be_brought_back(self):
        self.configure(firewall='agent')
        self.plug()
        self.hold()
        with fixtures.MonkeyPatch(
                'vif_plug_tapmac.kernel.nft.Session.PROTOCOL', 31), (
                fixtures.MonkeyPatch(
                    'vif_plug_tapmac.kernel.guest_filter.of_this_process',
                    guest_filter.GuestFilter())):
            self.plug()

    def feed(self, *pairs):
        """Have an agent say what passes at the TAP, of these MACs besides."""
        return privileged.apply_filter(security_groups.Change((
            security_groups.Port(
                vif_id=base.VIF_ID, tap=base.TAP, mac=base.GUEST_MAC,
                own=tuple((mac, '10.0.0.5/32')
                          for mac in (base.GUEST_MAC, *pairs)),
                groups=(), stateful=False),), is_all=True).as_fields())

    def start_fed(self, *pairs):
        self.configure(firewall='agent')
        self.plug()
        self.feed(*pairs)

    def delete_table(self):
        with nft.Session() as session:
            session.transact('', [nft.delete_table(filter_table.NAME)])

    def case_security_groups_that_somebody_flushes(self):
        self.start_fed()
        self.hear_and_undo()
        with self.saying('it is there again'):
            self.delete_table()
        for error in exception.KernelRefused.from_errno(
                'nftables', 'having guests kept to their security groups',
                errno.ENOMEM), ValueError:
            with self.saying('it is there again'), fixtures.MonkeyPatch(
                    'vif_plug_tapmac.kernel.agent_filter.heal',
                    mock.Mock(side_effect=error)), (
                    self.saying('it is not yet as the agent wants'
                                if isinstance(error, Exception)
                                else 'is not undone\n')):
                self.delete_table()

    def case_security_groups_that_two_want_otherwise(self):
        self.start_fed()
        healer = agent_healing._Healer(lasting_session.where())
        with healer._events:
            for _ in range(20):
                healer._rest()

    def case_security_groups_that_nobody_watches(self):
        with fixtures.MonkeyPatch(
                'vif_plug_tapmac.kernel.nft_events.TableEvents',
                mock.Mock(side_effect=PermissionError(
                    errno.EPERM, 'Operation not permitted'))):
            self.hearing()

    def hear_and_undo(self):
        """Have a thread do so until the case ends."""
        self.case.enter_context(fixtures.MonkeyPatch(
            'vif_plug_tapmac.kernel.agent_healing._ENDS_WITHIN', 0.1))
        self.hearing()

        def end():
            healer, agent_healing._healer = agent_healing._healer, None
            healer.join()
        self.case.callback(end)

    @contextlib.contextmanager
    def saying(self, words):
        """Wait until it is said by what is done in here, or after that."""
        said = len(self.logs.output)
        yield
        patience.wait_until(lambda: words in self.logs.output[said:],
                            'nobody says: ' + words)

    def case_security_groups_that_can_not_be_narrower(self):
        self.start_fed('00:00:5e:00:01:07')
        with fixtures.MonkeyPatch(
                'vif_plug_tapmac.kernel.nft.Session.transact',
                mock.Mock(side_effect=exception.KernelRefused.from_errno(
                    'nftables', 'changing rules', errno.EPERM))), (
                fixtures.MonkeyPatch(
                    'vif_plug_tapmac.kernel.source_filter.put',
                    mock.Mock(side_effect=exception.KernelRefused.from_errno(
                        base.TAP, 'filtering by the source '
                        '00:00:5e:00:01:07', errno.ENOMEM)))):
            self.assertRaises(exception.KernelRefused, self.feed)

    def case_guest_that_arrives(self):
        self.configure(firewall='agent')
        self.hear_on_the_wire()
        self.plug()
        with fixtures.MonkeyPatch(
                'vif_plug_tapmac.kernel.events.HeardEvents',
                mock.Mock(side_effect=OSError(
                    errno.EMFILE, 'Too many open files'))):
            self.feed()
        self.case.enter_context(fixtures.MonkeyPatch(
            'vif_plug_tapmac.kernel.agent_arrivals._ENDS_WITHIN', 0.1))
        self.feed()
        self.case.callback(self.end_listening)
        guest = self.hold()
        self.host.wait_until_forwarding(base.TAP)
        with self.saying('has arrived, and'), fixtures.MonkeyPatch(
                'vif_plug_tapmac.kernel.agent_guard.have',
                mock.Mock(side_effect=exception.KernelRefused.from_errno(
                    base.TAP, 'locking it', errno.ENOMEM))), (
                self.saying('is not locked yet')):
            # The bridge learns from that, whatever rules say.
            guest.write(hosts.frame('01:80:c2:00:00:0e', base.GUEST_MAC,
                                    b''))

    def end_listening(self):
        listener, agent_arrivals._listener = agent_arrivals._listener, None
        listener.join()

    def case_security_groups_of_two_releases(self):
        self.start_fed()
        version = filter_table.VERSION
        for number in version + 1, version - 1:
            with fixtures.MonkeyPatch(
                    'vif_plug_tapmac.kernel.filter_table.VERSION', number), (
                    fixtures.MonkeyPatch(
                        'vif_plug_tapmac.kernel.guest_filter.'
                        'of_this_process', guest_filter.GuestFilter())):
                self.plug()

    def case_mac_of_the_gateway(self):
        self.configure(arriving_guests='lock')
        self.case.callback(self.configure, arriving_guests='filter')
        self.hear_on_the_wire()
        self.plug()

    def case_mac_of_the_gateway_and_filter(self):
        self.hear_on_the_wire()
        self.plug()
        self.hold()
        self.host.set(base.TAP, ifalias=str(mark.TapMark(
            base.VIF_ID, base.GUEST_MAC, base.BRIDGE, 0)))
        self.plug()

    def hear_on_the_wire(self):
        """Have somebody there speak with the MAC of the guest."""
        self.plug(base.numbered_vif(1))
        self.host.add('eth1', 'veth', peer='wire',
                      master=self.host.link(base.BRIDGE).index)
        for name in 'eth1', 'wire':
            self.host.set(name, state='up')
        self.host.wait_until_forwarding('eth1')
        self.host.hear(base.BRIDGE, 'wire', base.GUEST_MAC)

    def load_options_of_linux_bridge(self, text, **options):
        path = pathlib.Path(
            self.useFixture(fixtures.TempDir()).path) / 'nova.conf'
        path.write_text('[os_vif_linux_bridge]\n' + text)
        self.config.conf([], default_config_files=[str(path)])
        self.case.callback(self.config.conf, [], default_config_files=[])
        self.configure(claim_plugins=['linux_bridge'], **options)
        os_vif.initialize(reset=True)

    def case_options_of_linux_bridge(self):
        self.load_options_of_linux_bridge(
            'use_ipv6 = true\niptables_top_regex = nova\n'
            'forward_bridge_interface = eth0\n'
            'forward_bridge_interface = eth1\nflat_interface = eth1\n')

    def case_option_of_linux_bridge_for_another_uplink(self):
        self.load_options_of_linux_bridge(
            'flat_interface = eth1\n', allowed_bridges=['br100'],
            bridge_uplinks={'br100': 'eth2'})

    def case_daemon_is_killed(self):
        self.config.config(group='vif_plug_tapmac_privileged',
                           capabilities=[capabilities.CAP_NET_ADMIN])
        privsep.vif_plug.start(priv_context.Method.FORK)
        daemon, = self.host.processes()
        os.kill(daemon, signal.SIGKILL)
        os.waitpid(daemon, 0)
        privsep.vif_plug.channel.reader_thread.join()
        with privsep.vif_plug.calling(base.TAP):
            pass

    def case_killed_while_deleting(self):
        self.plug()
        with nl.Netlink() as netlink:
            removing._take_name(netlink, self.host.link(base.TAP))
        self.plug()

    def case_name_taken_while_deleting(self):
        def look(*args):
            self.host.add_tap(base.TAP)
            return True
        self.plug()
        with fixtures.MonkeyPatch(removing.__name__ + '._is_held', look), \
                nl.Netlink() as netlink, contextlib.suppress(removing.Held):
            removing.delete_idle(netlink, self.host.link(base.TAP))

    def case_guest_of_a_plug_that_fails(self):
        def fail(*args):
            self.case.enter_context(hosts.Guest(
                base.TAP, flags=_MULTI_QUEUE))
            raise exception.KernelRefused.from_errno(
                base.TAP, 'going on', errno.EIO)
        self.configure(multiqueue=True)
        self.case.callback(self.configure, multiqueue=False)
        with fixtures.MonkeyPatch(
                converging.__name__ + '.require_bridge_name', fail):
            self.assertRaises(os_vif_exception.PlugException, self.plug)

    def case_boot_and_delete(self):
        self.plug()
        self.unplug()

    def case_owner_was_changed(self):
        self.plug()
        self.configure(owner='nobody')
        self.plug()

    def case_owner_was_changed_of_what_libvirt_makes(self):
        self.plug()
        self.configure(owner='nobody', claim_plugins=['linux_bridge'])
        os_vif.initialize(reset=True)
        self.plug(base.make_vif(plugin='linux_bridge'))

    def case_bridge_of_another_service(self):
        self.plug()
        self.configure(bridge_group=8)
        self.case.callback(self.configure, bridge_group=29794)
        self.plug()

    def case_bridge_of_somebody_else(self):
        self.host.add(base.BRIDGE, 'bridge', br_stp_state=1)
        self.host.set(base.BRIDGE, address='02:00:00:00:00:01')
        self.plug()

    def case_bridge_without_a_fixed_mac(self):
        # sysfs says so, for the network namespace that it was mounted in.
        self.case.enter_context(hosts.private_mounts())
        hosts.mount('sysfs', '/sys', 'sysfs')
        index = self.host.add(base.BRIDGE, 'bridge').index
        self.host.set(base.BRIDGE, state='up')
        self.host.add('eth0', 'veth', peer='wire', address=_UPLINK_MAC)
        self.host.set('eth0', master=index)
        self.plug()

    def add_uplink(self, name='eth1', mac=_UPLINK_MAC):
        self.host.add(name, 'veth', address=mac, peer=name + '-peer')

    def case_bridge_loses_its_uplink(self):
        self.configure(bridge_uplinks={base.BRIDGE: 'eth1'})
        self.add_uplink()
        self.plug()
        self.host.delete('eth1')
        self.plug()
        self.add_uplink()
        self.plug()

    def case_uplink_is_made_on_what_is_down(self):
        self.add_uplink()
        # Which kernels without VLANs have, too.
        self.host.add('macvlan1', 'macvlan', link=self.host.link('eth1').index)
        self.configure(bridge_uplinks={base.BRIDGE: 'macvlan1'})
        self.plug()

    def case_bridge_was_made_without_uplink(self):
        self.plug()
        self.add_uplink()
        self.configure(bridge_uplinks={base.BRIDGE: 'eth1'})
        self.plug()

    def case_network_with_a_larger_mtu(self):
        self.plug()
        self.plug(base.make_vif(mtu=9000))

    def case_firewall(self):
        self.host.forward_by_default(0)
        self.plug()

    def case_bridge_is_nearly_full(self):
        self.case.enter_context(fixtures.MonkeyPatch(
            'vif_plug_tapmac.kernel.bridge_health.NEARLY_ALL_PORTS', 1))
        self.plug()

    def case_bridge_went_down(self):
        self.plug()
        self.host.set(base.BRIDGE, state='down')
        self.plug(base.numbered_vif(1))

    def case_bridge_was_changed(self):
        self.plug()
        self.host.set(base.BRIDGE, kind='bridge', br_mcast_snooping=1)
        self.plug()
        for mtu in 1200, 1500:
            self.host.set(base.BRIDGE, mtu=mtu)
        self.case.enter_context(hosts.private_mounts())
        hosts.mount_read_only('/proc/sys')
        self.plug()

    def case_bridge_stays_half_made(self):
        self.case.enter_context(fixtures.MonkeyPatch(
            'vif_plug_tapmac.kernel.netlink.Netlink.delete',
            refuse_to_delete))
        self.case.enter_context(hosts.private_mounts())
        hosts.mount_read_only('/proc/sys')
        self.assertRaises(os_vif_exception.PlugException, self.plug)

    def case_guest_with_a_like_mac(self):
        rival = base.numbered_vif(1, address=_RIVAL_MAC)
        self.plug(rival)
        self.hold(rival).send(hosts.BROADCAST, b'hello')
        self.plug()

    def case_wire_that_has_all_macs(self):
        self.plug(base.numbered_vif(1))
        self.host.add_tap('wire')
        self.host.set('wire', master=self.host.link(base.BRIDGE).index,
                      state='up')
        wire = self.hold(types.SimpleNamespace(vif_name='wire', address=None))
        self.host.wait_until_forwarding('wire')
        for mac in [base.TAP_MAC, *alternate_tap_macs(base.GUEST_MAC)]:
            wire.write(hosts.frame(hosts.BROADCAST, mac, b'hello'))
        self.plug()

    def case_held_on_another_bridge(self):
        self.plug(base.make_vif(bridge_name='br101'))
        self.hold()
        self.plug()

    def case_held_with_another_mtu(self):
        self.plug()
        self.hold()
        self.plug(base.make_vif(mtu=1450))

    def case_held_without_its_mark(self):
        self.plug()
        self.hold()
        self.host.set(base.TAP, ifalias='rack 7')
        self.plug()

    def case_held_and_removed(self):
        self.plug()
        self.hold()
        self.unplug()

    def case_held_and_the_bridge_is_missing(self):
        self.plug()
        self.hold()
        self.host.delete(base.BRIDGE)
        self.configure(create_bridge=False)
        self.plug()

    def case_held_under_another_name(self):
        self.plug()
        self.hold()
        self.host.rename(base.TAP, 'x')
        self.plug()

    def case_held_by_somebody(self):
        self.host.add_tap('tap0')
        vif = base.make_vif(vif_name='tap0')
        self.hold(vif)
        self.plug(vif)

    def case_of_somebody_and_to_be_removed(self):
        self.host.add_tap(base.TAP)
        self.unplug()

    def case_altname_and_to_be_removed(self):
        self.host.ip.link('property_add', altname=base.TAP,
                          index=self.host.add('ifb7', 'ifb').index)
        self.unplug()

    def case_udev_is_busy(self):
        run = self.case.enter_context(udevd.run_directory())
        (run / 'control').touch()
        self.configure(udev_timeout=0.1)
        self.plug()

    def run_case(self, name):
        """Run a case on a host of its own; return what was logged."""
        self.configure(
            owner='root', claim_plugins=[], create_bridge=True,
            anti_spoofing='mac', firewall='none',
            udev_timeout=0, bridge_uplinks={}, allowed_bridges=['*'])
        extension.ExtensionManager.ENTRY_POINT_CACHE.pop('os_vif', None)
        # What is wrong with these is said once in a process.
        self.patch(bridge_health, '_warned', set())
        self.patch(linux_bridge, '_warned', set())
        filter_state.tell.cache_clear()
        with fixtures.FakeLogger(
                'vif_plug_tapmac', logging.INFO,
                '%(levelname)s %(name)s %(message)s') as self.logs:
            with hosts.Host() as self.host:
                with contextlib.ExitStack() as self.case:
                    os_vif.initialize(reset=True)
                    getattr(self, name)()
            return [line for line in self.logs.output.splitlines()
                    if re.match(r'[A-Z]+ vif_plug_tapmac\.', line)]

    @base.needs_locked_ports
    @base.needs_real_root(base.SEVERAL_USERS)
    def test_lines_are_as_documented(self):
        logged = {
            documents.without_chance(line) for name in dir(self)
            if name.startswith('case_') for line in self.run_case(name)}
        # What the mechanism driver and the agent say is seen in tests/neutron.
        lines = {documents.without_chance(line)
                 for line in documents.log_lines()
                 if not re.search(r' vif_plug_tapmac\.(ml2|agent)\.', line)}
        self.assertNotEqual(set(), lines)
        self.assertEqual(set(), lines - logged)
