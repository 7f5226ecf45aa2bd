# SPDX-License-Identifier: Apache-2.0

"""``anti_spoofing = full``: when a guest is held to its addresses, and how.

Which frames that drops is in test_full_frames.py, and how the table is made
and mended in test_guest_filter.py.
"""

import contextlib
import io
import itertools
import os
import pathlib
import sys
import threading

from tests import base
from tests.functional import test_full_frames as frames
from tests.functional import test_guard
from tests import hosts
from tests import patience
from vif_plug_tapmac import exception
from vif_plug_tapmac.host import audit
from vif_plug_tapmac.host import inventory
from vif_plug_tapmac.host import mending
from vif_plug_tapmac.kernel import address_guard
from vif_plug_tapmac.kernel import converging
from vif_plug_tapmac.kernel import filter_state
from vif_plug_tapmac.kernel import filter_steps
from vif_plug_tapmac.kernel import filter_table
from vif_plug_tapmac.kernel import guest_filter
from vif_plug_tapmac.kernel import making
from vif_plug_tapmac.kernel import netlink as nl
from vif_plug_tapmac.kernel import nft
from vif_plug_tapmac.kernel import nft_sets
from vif_plug_tapmac.kernel import removing
from vif_plug_tapmac.kernel import shield
from vif_plug_tapmac.kernel import shields
from vif_plug_tapmac import privileged
from vif_plug_tapmac.wanted.port import TapIdentity
from vif_plug_tapmac.wanted import rules

_FILTERED, _UNFILTERED = 29795, 29793
_ADDRESSES = [frames.IPV4, frames.IPV6]
_HONEST = bytes(frames.arp())
_FALSE = bytes(frames.arp(psrc=frames.GATEWAY))


@base.needs_locked_ports
class FullTestCase(test_guard.GuardTestCase):

    def setUp(self):
        super().setUp()
        self.configure(anti_spoofing='full')
        self.vif = base.make_vif(addresses=_ADDRESSES)

    def ports(self):
        """Return what there is for each index, without whose it is."""
        with nft.Session() as session:
            return {index: frozenset(there) for index, there
                    in filter_state.elements(session).items()}

    def expected(self, vif=None, addresses=tuple(_ADDRESSES)):
        vif = vif or self.vif
        return {self.host.link(vif.vif_name).index: rules.of_port(
            vif.id, vif.address, addresses).elements}

    def is_right(self):
        with nft.Session() as session:
            return filter_state.is_right(session)

    def flush(self):
        with nft.Session() as session:
            session.transact('', [nft.delete_table(filter_table.NAME)],
                             session.generation())

    def passes(self, guest):
        """Return whether false frames of a guest pass; honest ones do."""
        for _ in range(3):
            guest.write(_FALSE + b'false')
        guest.write(_HONEST + b'honest')
        for frame in self.wire.frames():
            if frame.endswith(b'false'):
                return True
            if frame.endswith(b'honest'):
                return False

    def assert_held(self, vif=None, addresses=tuple(_ADDRESSES)):
        vif = vif or self.vif
        self.assertEqual(_FILTERED, self.host.link(vif.vif_name).group)
        index, = self.expected(vif)
        self.assertEqual(self.expected(vif, addresses)[index],
                         self.ports().get(index))
        self.assertTrue(self.is_right())

    @contextlib.contextmanager
    def sending(self, guest):
        """Have a guest send; yield a list of what does not come out."""
        stop, lost, numbers = threading.Event(), [], itertools.count()

        def send():
            expected = 0
            while not stop.is_set():
                number = next(numbers)
                guest.write(_HONEST + b'%08d' % number)
                with contextlib.suppress(BlockingIOError):
                    while True:
                        frame = os.read(self.wire.descriptor, 2048)
                        if frame.startswith(_HONEST):
                            lost.extend(range(expected, int(frame[-8:])))
                            expected = int(frame[-8:]) + 1
            lost.extend(range(expected, next(numbers)))

        thread = threading.Thread(target=send)
        thread.start()
        try:
            yield lost
        finally:
            stop.set()
            thread.join()


class PlugTest(FullTestCase):

    def test_plug_and_unplug(self):
        self.plug(self.vif)
        self.assert_finished(group=_FILTERED)
        self.assert_guarded()
        self.assert_held()
        self.assertFalse(self.passes(self.open(base.TAP, base.GUEST_MAC)))
        self.unplug(self.vif)
        self.assertEqual({}, self.ports())
        self.assertTrue(self.is_right())

    def test_by_the_daemon(self):
        self.start_daemon()
        self.plug(self.vif)
        self.assert_held()
        self.unplug(self.vif)
        self.assertEqual({}, self.ports())

    def test_without_fixed_ips(self):
        self.plug()
        self.assert_held(addresses=())

    def test_two_queues(self):
        self.configure(multiqueue=True)
        self.plug(self.vif)
        self.assert_held()

    def test_plug_again(self):
        self.plug(self.vif)
        guest = self.open(base.TAP, base.GUEST_MAC)
        before = self.host.state()
        self.plug(self.vif)
        self.assertEqual(before, self.host.state())
        self.assert_held()
        self.plug(base.make_vif(addresses=[frames.GATEWAY]))
        self.assert_held(addresses=[frames.GATEWAY])
        guest.write(_FALSE)
        self.assertTrue(any(
            frame.startswith(_FALSE) for frame in self.wire.frames()))

    def test_running_guest_on_a_bridge_that_is_not_allowed(self):
        self.plug(self.vif)
        self.open(base.TAP, base.GUEST_MAC)
        self.configure(allowed_bridges=['br7'])
        before = self.host.state()
        self.plug(base.make_vif(addresses=[frames.GATEWAY]))
        self.assertEqual(before, self.host.state())
        self.assert_held()
        self.assert_logged(base.TAP, 'allowed_bridges')

    def test_a_plug_that_fails_leaves_nothing(self):
        def fail(*arguments):
            raise exception.VerifyFailed(device='tap', differences='all')
        self.plug(base.numbered_vif(1))
        before = self.ports()
        self.patch(making.converging, 'require_bridge_name', fail)
        self.assert_plug_fails(exception.VerifyFailed, vif=self.vif)
        self.assertEqual(before, self.ports())

    def test_made_anew(self):
        self.plug(self.vif)
        former = self.host.link(base.TAP).index
        self.configure(multiqueue=True)
        self.plug(self.vif)
        self.assertNotEqual(former, self.host.link(base.TAP).index)
        self.assertEqual(self.expected(), self.ports())

    def test_a_bad_address(self):
        for addresses in ['224.0.0.1'], ['0.0.0.0']:
            self.assert_plug_fails(
                exception.InvalidVif, addresses[0],
                vif=base.make_vif(addresses=addresses))
        self.configure(anti_spoofing='mac')
        self.plug(base.make_vif(addresses=['224.0.0.1']))

    def test_libvirt_makes_the_tap(self):
        before = self.host.state()
        raised = self.assertRaises(
            exception.InvalidConfig, privileged.ensure_port, base.make_port(
                create_tap=False, anti_spoofing='full',
                addresses=tuple(_ADDRESSES)).to_fields())
        self.assertIn('nova_managed_tap', str(raised))
        self.assertEqual(before, self.host.state())

    def test_libvirt_is_to_make_the_next_tap(self):
        self.plug(self.vif)
        guest = self.open(base.TAP, base.GUEST_MAC)
        self.assertIsNone(privileged.ensure_port(base.make_port(
            create_tap=False, anti_spoofing='full',
            addresses=tuple(_ADDRESSES)).to_fields()))
        self.assert_held()
        self.assertFalse(self.passes(guest))

    def test_guests_are_kept_from_the_host_in_both_groups(self):
        self.configure(host_shield=True)
        self.plug(self.vif)
        self.assertTrue(shields.is_shielded(_FILTERED))
        self.assertTrue(shields.is_shielded(_UNFILTERED))
        self.patch(shield, '_looked', False)
        self.configure(host_shield=False)
        self.plug(self.vif)
        self.assertFalse(shields.is_shielded(_FILTERED))
        self.assertFalse(shields.is_shielded(_UNFILTERED))

    def test_a_guest_on_a_tap_of_somebody_else(self):
        self.host.add_tap(base.TAP)
        self.host.set(base.TAP, master=self.host.link(base.BRIDGE).index,
                      state='up')
        guest = self.open(base.TAP, base.GUEST_MAC)
        self.plug(self.vif)
        self.assert_logged(base.TAP, 'addresses',
                           'hard reboot the instance')
        self.assert_guarded()
        self.assertEqual(0, self.host.link(base.TAP).group)
        guest.write(_HONEST)
        self.assertTrue(any(
            frame.startswith(_HONEST) for frame in self.wire.frames()))

    def test_a_guest_that_hides_on_a_tap_of_somebody_else(self):
        self.host.add_tap(base.TAP)
        self.host.set(base.TAP, master=self.host.link(base.BRIDGE).index,
                      state='up')
        self.open(base.TAP, base.GUEST_MAC).fake_carrier(False)
        self.plug(self.vif)
        self.assert_logged(base.TAP, 'addresses',
                           'hard reboot the instance')
        self.assertEqual(0, self.host.link(base.TAP).group)
        self.assertEqual({}, self.ports())

    def test_a_kernel_that_lacks_nf_tables(self):
        self.configure(anti_spoofing='mac')
        held = base.numbered_vif(1, addresses=['192.0.2.1'])
        self.plug(held)
        self.open(held.vif_name, held.address)
        self.patch(nft.Session, 'PROTOCOL', 31)
        self.configure(anti_spoofing='full')
        self.assert_plug_fails(exception.KernelRefused, 'anti_spoofing',
                               'nf_tables', vif=self.vif)
        before = self.host.state()
        self.plug(held)
        self.assertEqual(before, self.host.state())
        self.assert_logged(held.vif_name, 'anti_spoofing')

    def test_what_a_kernel_without_nf_tables_mends_all_the_same(self):
        former = guest_filter.of_this_process
        for mode, group in ('mac', _UNFILTERED), ('full', _FILTERED):
            self.configure(anti_spoofing=mode)
            self.plug(self.vif)
            before, there = self.host.link(base.TAP), self.ports()
            guest = self.open(base.TAP, base.GUEST_MAC)
            self.host.set(base.TAP, address='fe:16:3e:00:00:99', state='down',
                          master=0)
            self.patch(guest_filter, 'of_this_process',
                       guest_filter.GuestFilter())
            self.patch(nft.Session, 'PROTOCOL', 31)
            self.configure(anti_spoofing='full')
            self.plug(self.vif)
            self.assertEqual(group, self.host.link(base.TAP).group)
            self.assert_logged(base.TAP, 'anti_spoofing')
            self.patch(nft.Session, 'PROTOCOL', 12)
            self.assertEqual(there, self.ports())
            seen = self.host.link(base.TAP)
            self.assertEqual(
                (before.mac, before.master, True),
                (seen.mac, seen.master, seen.up))
            self.assert_guarded()
            self.patch(guest_filter, 'of_this_process', former)
            guest.close()

    def test_a_guest_that_arrives(self):
        self.wire.write(hosts.frame(hosts.BROADCAST, base.GUEST_MAC,
                                    b'I am elsewhere'))
        self.plug(self.vif)
        self.assert_held()
        self.assertFalse(self.host.link(base.TAP).locked)
        guest = self.open(base.TAP, base.GUEST_MAC)
        self.assertFalse(self.passes(guest))
        # From LLDP a bridge learns though no hook sees it.
        self.wire.send(hosts.BROADCAST, b'hello')
        guest.write(hosts.frame('01:80:c2:00:00:0e', self.wire.mac, b'LLDP'))
        self.assertEqual(self.host.link('uplink').index,
                         self.entry(self.wire.mac).port_index)
        self.plug(self.vif)
        self.assert_guarded()
        self.assert_held()

    def test_of_two_services_none_disturbs_the_other(self):
        self.plug(self.vif)
        other = base.numbered_vif(1, addresses=['192.0.2.1'])
        self.patch(guest_filter, 'of_this_process',
                   guest_filter.GuestFilter())
        self.configure(link_group=4711, filtered_group=4712)
        self.plug(other)
        self.assertEqual(4712, self.host.link(other.vif_name).group)
        self.assertEqual(
            {**self.expected(), **self.expected(other, ['192.0.2.1'])},
            self.ports())
        self.assertFalse(self.passes(self.open(base.TAP, base.GUEST_MAC)))


class ModesTest(FullTestCase):
    """From one mode to another, with a guest that goes on."""

    def test_a_guest_that_runs(self):
        self.configure(anti_spoofing='mac')
        self.plug(self.vif)
        guest = self.open(base.TAP, base.GUEST_MAC)
        with self.sending(guest) as lost:
            for mode, group in itertools.islice(itertools.cycle(
                    (('full', _FILTERED), ('mac', _UNFILTERED),
                     ('full', _FILTERED), ('none', _UNFILTERED))),
                    patience.amount(8, 20, 200)):
                self.configure(anti_spoofing=mode)
                self.plug(self.vif)
                self.assertEqual(group, self.host.link(base.TAP).group)
                if mode == 'full':
                    self.assert_held()
                else:
                    self.assertEqual({}, self.ports())
        self.assertEqual([], lost)

    def test_elements_come_first_and_go_last(self):
        self.configure(anti_spoofing='mac')
        self.plug(self.vif)
        put, remove = guest_filter.GuestFilter.put, (
            guest_filter.GuestFilter.remove)
        seen = []

        def look(what, function):
            def looking(*arguments):
                seen.append((what, self.host.link(base.TAP).group))
                return function(*arguments)
            return looking
        self.patch(guest_filter.GuestFilter, 'put', look('put', put))
        self.patch(guest_filter.GuestFilter, 'remove', look('remove', remove))
        for mode in 'full', 'mac':
            self.configure(anti_spoofing=mode)
            self.plug(self.vif)
        # The second is a look whether it is there still.
        self.assertEqual([('put', _UNFILTERED), ('put', _FILTERED),
                          ('remove', _UNFILTERED)], seen)

    def test_elements_come_first_where_a_tap_was_being_deleted(self):
        self.configure(anti_spoofing='mac')
        self.plug(self.vif)
        self.open(base.TAP, base.GUEST_MAC)
        self.lose_name()
        self.configure(anti_spoofing='full')
        put, seen = guest_filter.GuestFilter.put, []

        def looking(*arguments):
            seen.append(self.host.link(base.TAP).group)
            put(*arguments)
        self.patch(guest_filter.GuestFilter, 'put', looking)
        self.plug(self.vif)
        self.assertEqual([_UNFILTERED, _FILTERED], seen)
        self.assert_held()

    def test_a_tap_that_was_being_deleted_stays_as_it_was(self):
        modes = ('mac', _UNFILTERED), ('full', _FILTERED)
        for (mode, group), (other, _) in zip(modes, reversed(modes)):
            self.configure(anti_spoofing=mode)
            self.plug(self.vif)
            # Who hides is found only when the name is taken.
            guest = self.open(base.TAP, base.GUEST_MAC)
            guest.fake_carrier(False)
            self.lose_name()
            self.configure(anti_spoofing=other)
            self.assertEqual([], privileged.remove_ports([TapIdentity(
                self.vif.id, base.TAP).to_fields()], False))
            self.assertEqual(group, self.host.link(base.TAP).group)
            guest.close()

    def lose_name(self):
        """Leave the TAP as who was killed while he was deleting it."""
        with nl.Netlink() as netlink:
            removing._take_name(netlink, netlink.find(base.TAP))

    def test_a_neighbour_that_is_not_moved_yet(self):
        self.configure(anti_spoofing='mac')
        other = base.numbered_vif(1)
        self.plug(other)
        guest = self.open(other.vif_name, other.address)
        self.configure(anti_spoofing='full')
        self.plug(self.vif)
        guest.send(hosts.BROADCAST, b'any ethertype')
        self.assertTrue(any(
            b'any ethertype' in frame for frame in self.wire.frames()))


class FlushTest(FullTestCase):

    def test_a_plug_heals_all(self):
        vifs = [base.numbered_vif(number, addresses=['192.0.2.%d' % number])
                for number in range(1, 6)]
        for vif in vifs:
            self.plug(vif)
        self.flush()
        self.plug(vifs[3])
        for number, vif in enumerate(vifs, 1):
            self.assert_held(vif, ['192.0.2.%d' % number])
        self.unplug(vifs[0])
        self.flush()
        self.plug(vifs[3])
        self.assertEqual(4, len(self.ports()))

    def test_a_guest_that_nobody_knows_goes_on(self):
        self.plug(self.vif)
        guest = self.open(base.TAP, base.GUEST_MAC)
        self.flush()
        self.patch(guest_filter, 'of_this_process',
                   guest_filter.GuestFilter())
        self.plug(base.numbered_vif(1))
        self.assertTrue(self.passes(guest))
        self.assert_guarded()
        self.assertEqual(_UNFILTERED, self.host.link(base.TAP).group)
        self.wire.waiting()
        self.plug(self.vif)
        self.assert_held()
        self.assertFalse(self.passes(guest))

    def test_a_guest_that_another_lets_out_of_its_group_meanwhile(self):
        self.plug(self.vif)
        guest = self.open(base.TAP, base.GUEST_MAC)
        put = guest_filter.GuestFilter.put

        def release_before(*arguments):
            self.host.set(base.TAP, group=_UNFILTERED)
            self.patch(guest_filter.GuestFilter, 'put', put)
            put(*arguments)
        self.patch(guest_filter.GuestFilter, 'put', release_before)
        self.plug(self.vif)
        self.assert_held()
        self.assertFalse(self.passes(guest))

    def test_before_the_link_group_is_set(self):
        settle = converging._set

        def flush_before(*arguments):
            self.flush()
            settle(*arguments)
        for held in True, False:
            self.configure(anti_spoofing='mac')
            self.plug(self.vif)
            guest = self.open(base.TAP, base.GUEST_MAC) if held else None
            self.configure(anti_spoofing='full')
            self.patch(converging, '_set', flush_before)
            self.plug(self.vif)
            self.patch(converging, '_set', settle)
            self.assert_held()
            if guest:
                guest.close()
        self.unplug(self.vif)
        self.patch(converging, '_set', flush_before)
        self.plug(self.vif)
        self.assert_held()

    def test_unplug_makes_no_table(self):
        self.plug(self.vif)
        self.flush()
        self.unplug(self.vif)
        self.assertEqual({}, self.ports())
        self.assertFalse(self.is_right())


class OperatorTest(FullTestCase):
    """What an audit finds, and what commands do that know no addresses."""

    def setUp(self):
        super().setUp()
        self.enter(hosts.private_mounts())
        # What this machine starts is none of the test's.
        hosts.mount('tmpfs', '/etc/systemd', 'tmpfs')

    def findings(self):
        """Return codes and devices, but for the bridge of somebody else."""
        return [(each.code, each.device) for each in audit.audit_links(
            inventory.read(self.options).with_answer(None))
            if each.device != base.BRIDGE]

    def repair(self):
        seen = inventory.read(self.options).with_answer(None)
        mending.mend(seen, self.options, [
            finding for finding in audit.audit_links(seen)
            if finding.mendable], None, io.StringIO())

    def change(self, *steps):
        with nft.Session() as session:
            session.transact('', steps, session.generation())

    def assert_found(self, code, device=base.TAP):
        """Expect a finding that only a plug mends."""
        self.assertEqual([(code, device)], self.findings())
        self.repair()
        self.assertEqual([(code, device)], self.findings())
        self.patch(guest_filter, 'of_this_process',
                   guest_filter.GuestFilter())  # As after a restart.
        self.plug(self.vif)
        self.assertEqual([], self.findings())
        self.assert_held()

    def test_each_code(self):
        self.plug(self.vif)
        self.assertEqual([], self.findings())
        index = self.host.link(base.TAP).index
        name = filter_table.NAME
        guest_filter.GuestFilter().remove(index)
        self.assert_found('TM228')
        self.change(*nft_sets.add_elements(name, rules.IPV4, [
            nft_sets.Element(filter_steps.key(
                index, base.GUEST_MAC, frames.GATEWAY), 'x')]))
        self.assert_found('TM229')
        self.change(nft.new_rule(name, nft.Rule('guest', (('immediate', {
            1: nft.octets(0), 2: {2: {1: nft.octets(1)}}}),))))
        self.assert_found('TM313', 'nftables')
        self.change(*nft_sets.delete_elements(name, filter_table.GROUPS, [
            nft_sets.Element((29795).to_bytes(4, sys.byteorder))]))
        self.assert_found('TM314', 'nftables')
        self.flush()
        self.assert_found('TM312', 'nftables')

    def assert_one(self, code, device):
        self.assertEqual([(code, device)], self.findings())

    def test_a_set_that_somebody_empties(self):
        self.plug(self.vif)
        for name in rules.IPV4, rules.IPV6, rules.LINK_LOCAL:
            with nft.Session() as session:
                there = list(nft_sets.elements(
                    session, filter_table.NAME, name))
            self.change(*nft_sets.delete_elements(
                filter_table.NAME, name, there))
            self.assert_found('TM313', 'nftables')

    def test_tm315(self):
        system = pathlib.Path('/etc/systemd/system')
        drop_ins = system / 'nftables.service.d'
        wants = system / 'sysinit.target.wants'
        for each in drop_ins, wants:
            each.mkdir(parents=True)
        configuration = pathlib.Path('/etc/systemd/nftables.conf')
        load = '/usr/sbin/nft -f %s' % configuration
        unit = '[Service]\nExecStart=%s\nExecReload=%s\n' % (load, load)
        (system / 'nftables.service').write_text(unit)
        configuration.write_text('#!/usr/sbin/nft -f\n\nflush  ruleset\n')
        self.plug(self.vif)
        self.assertEqual([], self.findings())
        (wants / 'nftables.service').symlink_to(system / 'nftables.service')
        self.assert_one('TM315', 'nftables.service')
        configuration.write_text('table inet filter {\n}\n')
        self.assertEqual([], self.findings())
        (drop_ins / 'a.conf').write_text(
            '[Service]\nExecStop=/usr/sbin/nft flush ruleset\n')
        self.assert_one('TM315', 'nftables.service')
        configuration.write_text('flush ruleset\n')
        (drop_ins / 'tapmac.conf').write_text((
            base.CHECKOUT / 'etc/systemd/system/nftables.service.d/tapmac.conf'
        ).read_text())
        self.assertEqual([], self.findings())

    def test_tm227(self):
        self.configure(anti_spoofing='mac')
        self.plug(self.vif)
        self.assertEqual([], self.findings())
        self.configure(anti_spoofing='full')
        self.assert_found('TM227')

    def test_tm211(self):
        self.plug(self.vif)
        self.host.set(base.TAP, group=4711)
        self.assertIn(('TM211', base.TAP), self.findings())
        self.plug(self.vif)
        self.assertEqual([], self.findings())
        self.configure(anti_spoofing='mac')
        self.assertEqual([('TM211', base.TAP)], self.findings())
        self.repair()
        self.assertEqual([], self.findings())
        self.assertEqual({}, self.ports())

    def test_repair_leaves_a_guest_to_what_it_is_kept_to(self):
        self.plug(self.vif)
        guest = self.open(base.TAP, base.GUEST_MAC)
        self.host.set(base.TAP, address='fe:16:3e:00:00:99')
        self.repair()
        self.assert_finished(group=_FILTERED)
        self.assert_held()
        self.assertFalse(self.passes(guest))

    def test_repair_lists_addresses_only_for_what_it_makes(self):
        def refuse(*arguments):
            raise exception.KernelRefused.from_errno('nftables', '', 1)
        self.plug(self.vif)
        self.patch(address_guard, 'known_addresses', refuse)
        for held in False, True:
            if held:
                self.open(base.TAP, base.GUEST_MAC)
            self.host.set(base.TAP, address='fe:16:3e:00:00:99')
            self.repair()
            self.assert_finished(group=_FILTERED)
            self.assert_held()

    @base.needs_real_root(base.SEVERAL_USERS)
    def test_repair_makes_one_anew(self):
        self.plug(self.vif)
        former = self.host.link(base.TAP).index
        self.configure(owner='107')
        self.repair()
        self.assertNotEqual(former, self.host.link(base.TAP).index)
        self.assert_finished(group=_FILTERED, owner=107)
        self.assertEqual(self.expected(), self.ports())

    def test_repair_makes_no_table(self):
        self.plug(self.vif)
        self.flush()
        for options in {'owner': '107'}, {'owner': '0'}:
            self.configure(**options)
            self.host.set(base.TAP, address='fe:16:3e:00:00:99')
            self.repair()
            self.assertFalse(self.is_right())
        self.assert_logged('addresses', 'not known here')

    def test_purge(self):
        vifs = [base.numbered_vif(number, addresses=['192.0.2.%d' % number])
                for number in range(1, 6)]
        for vif in vifs:
            self.plug(vif)
        privileged.remove_ports([
            TapIdentity(vif.id, vif.vif_name).to_fields()
            for vif in vifs[:4]], False)
        self.assertEqual(self.expected(vifs[4], ['192.0.2.5']), self.ports())
