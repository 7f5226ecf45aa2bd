# SPDX-License-Identifier: Apache-2.0

"""``anti_spoofing = full`` for guests that run on TAPs that libvirt made.

Test strategy: a TAP as libvirt makes it, which goes with who holds it, and has
no owner. Its guest sends all the time, and loses nothing.
"""

import fcntl

from tests import base
from tests.functional import test_full
from tests import hosts
from vif_plug_tapmac.host import audit
from vif_plug_tapmac.host import inventory
from vif_plug_tapmac.kernel import making
from vif_plug_tapmac import mark
from vif_plug_tapmac import privileged

_MULTI_QUEUE = hosts.IFF_TAP | hosts.IFF_MULTI_QUEUE
_FILTERED, _UNFILTERED = 29795, 29793


class AdoptionTestCase(test_full.FullTestCase):

    def setUp(self):
        super().setUp()
        self.guest = self.start_guest()

    def start_guest(self, name=base.TAP, flags=hosts.IFF_TAP,
                    bridge=base.BRIDGE):
        guest = hosts.Guest(name, base.GUEST_MAC, flags)
        self.addCleanup(guest.close)
        self.host.set(name, address=base.TAP_MAC)
        self.host.set(name, master=self.host.link(bridge).index, state='up')
        self.host.wait_until_forwarding(name)
        return guest

    def plug_without_making(self):
        privileged.ensure_port(base.make_port(
            create_tap=False, anti_spoofing=self.options.anti_spoofing,
            firewall=self.options.firewall,
            addresses=tuple(test_full._ADDRESSES)).to_fields())

    def assert_adopted(self):
        self.assert_finished(group=_FILTERED, owner=None, persistent=False)
        self.assert_guarded()
        self.assert_held()
        found = mark.TapMark.parse(self.host.link(base.TAP).alias)
        self.assertEqual((base.VIF_ID, base.GUEST_MAC, base.BRIDGE), (
            found.vif_id, found.guest_mac, found.bridge))
        self.assertNotIn('Remedy', self.logs.output)

    def assert_left_alone(self, *words, tap=base.TAP):
        """Expect words in the log, and its guest as it was."""
        before = self.host.link(tap)
        self.plug(base.make_vif(vif_name=tap,
                                addresses=test_full._ADDRESSES))
        seen = self.host.link(tap)
        self.assertEqual((before.index, 0, None),
                         (seen.index, seen.group, seen.alias))
        self.assertEqual({}, self.ports())
        self.assert_logged(tap, 'Remedy', *words)

    def findings(self):
        return [(each.code, each.device, str(each.remedy))
                for each in audit.audit_links(
                    inventory.read(self.options).with_answer(None))
                if each.code in ('TM227', 'TM233', 'TM235')]


class AdoptionTest(AdoptionTestCase):

    def test_a_guest_notices_nothing(self):
        with self.sending(self.guest) as lost:
            self.plug(self.vif)
        self.assertEqual([], lost)
        self.assert_adopted()
        self.assertFalse(self.passes(self.guest))

    def test_where_libvirt_makes_taps(self):
        self.plug_without_making()
        self.assert_adopted()
        before = self.host.state()
        self.plug_without_making()
        self.assertEqual(before, self.host.state())

    def test_plugged_again_it_is_no_plug_that_waits(self):
        self.plug(self.vif)
        before = self.host.state()
        self.assertFalse(making.is_being_made(self.host.link(base.TAP)))
        self.plug(self.vif)
        self.assertEqual(before, self.host.state())
        self.plug(base.make_vif(addresses=['192.0.2.77']))
        self.assert_held(addresses=['192.0.2.77'])

    def test_for_an_agent(self):
        """It gets the mark, and goes on as it was until the agent comes."""
        self.configure(anti_spoofing='mac', firewall='agent')
        with self.sending(self.guest) as lost:
            for plug in self.plug_without_making, lambda: self.plug(self.vif):
                plug()
                self.assertEqual((_UNFILTERED, base.VIF_ID), (
                    self.host.link(base.TAP).group, mark.TapMark.parse(
                        self.host.link(base.TAP).alias).vif_id))
        self.assertEqual([], lost)
        self.assertNotIn('Remedy', self.logs.output)
        self.assertEqual([('TM235', base.TAP)], [
            each[:2] for each in self.findings()])

    def test_from_mode_to_mode(self):
        with self.sending(self.guest) as lost:
            for mode, group in (('mac', 0), ('full', _FILTERED),
                                ('mac', _UNFILTERED), ('full', _FILTERED),
                                ('none', _UNFILTERED), ('full', _FILTERED)):
                self.configure(anti_spoofing=mode)
                self.plug(self.vif)
                self.assertEqual(group, self.host.link(base.TAP).group)
        self.assertEqual([], lost)
        self.assert_adopted()

    def test_one_that_hides(self):
        for plug in self.plug_without_making, self.plug:
            self.guest.fake_carrier(False)
            plug()
            self.guest.fake_carrier(True)
            self.assertEqual(_FILTERED, self.host.link(base.TAP).group)
            self.guest.close()
            self.assertIsNone(self.host.find(base.TAP))
            self.guest = self.start_guest()

    def test_its_vif_is_told_to_have_several_queues(self):
        self.configure(multiqueue=True)
        for _ in range(2):
            self.plug(self.vif)
            self.assert_adopted()

    def test_elements_come_first(self):
        put, seen = test_full.guest_filter.GuestFilter.put, []

        def looking(*arguments):
            seen.append((self.host.link(base.TAP).group,
                         self.host.link(base.TAP).alias is None))
            put(*arguments)
        self.patch(test_full.guest_filter.GuestFilter, 'put', looking)
        self.plug(self.vif)
        self.assertEqual([(0, True), (_FILTERED, False)], seen)

    def test_a_table_that_is_gone(self):
        self.plug(self.vif)
        self.flush()
        self.plug(self.vif)
        self.assert_adopted()

    def test_a_kernel_that_lacks_nf_tables(self):
        self.patch(test_full.nft.Session, 'PROTOCOL', 31)
        before = self.host.link(base.TAP)
        self.plug(self.vif)
        seen = self.host.link(base.TAP)
        self.assertEqual((before.group, before.alias),
                         (seen.group, seen.alias))
        self.assert_logged(base.TAP, 'anti_spoofing')

    def test_unplug(self):
        self.plug(self.vif)
        self.unplug(self.vif)
        self.assertIsNone(self.host.find(base.TAP))
        self.assertEqual({}, self.ports())

    def test_a_guest_that_ends_before(self):
        self.plug(self.vif)
        self.guest.close()
        self.assertNotEqual({}, self.ports())
        self.unplug(self.vif)
        self.assertEqual({}, self.ports())
        self.configure(multiqueue=True)
        self.plug(self.vif)
        self.assert_finished(group=_FILTERED, multi_queue=True)

    def test_unplug_of_one_that_was_renamed(self):
        self.plug(self.vif)
        before = self.ports()
        self.host.set(base.TAP, state='down')
        self.host.rename(base.TAP, 'elsewhere')
        self.unplug(self.vif)
        self.assertEqual(before, self.ports())


class NotAdoptedTest(AdoptionTestCase):
    """Each is named: by the log, and by an audit."""

    def assert_found(self, code, remedy):
        self.assertEqual([(code, base.TAP)], [
            each[:2] for each in self.findings()])
        self.assertIn(remedy, self.findings()[0][2])

    def test_tm233(self):
        self.plug(base.numbered_vif(1))  # So that the bridge concerns us.
        self.assert_found('TM227', 'start nova-compute')
        self.guest.persist()
        self.assert_found('TM233', 'hard reboot')
        self.guest.close()
        self.assert_found('TM227', 'hard reboot')
        self.host.delete(base.TAP)
        self.start_guest(flags=_MULTI_QUEUE)
        self.assert_found('TM233', 'hard reboot')

    def test_several_queues(self):
        self.guest.close()
        self.plug(base.numbered_vif(1))
        self.unplug(base.numbered_vif(1))
        self.start_guest(flags=_MULTI_QUEUE)
        self.assert_left_alone('several queues', 'hard reboot')

    @base.needs_real_root(base.SEVERAL_USERS)
    def test_an_owner(self):
        fcntl.ioctl(self.guest.descriptor, hosts.TUNSETOWNER, 64055)
        self.assert_left_alone('neither tapmac nor libvirt made it',
                               'hard reboot')

    def test_one_that_stays(self):
        self.guest.persist()
        self.assert_left_alone('neither tapmac nor libvirt made it')

    def test_several_queues_and_an_agent(self):
        self.configure(firewall='agent')
        self.plug(base.numbered_vif(1))  # So that the bridge concerns us.
        self.assert_found('TM235', 'start nova-compute')
        self.guest.close()
        self.start_guest(flags=_MULTI_QUEUE)
        self.assert_found('TM235', 'hard reboot')
        self.assert_left_alone('several queues', 'hard reboot', 'groups')

    def test_another_bridge(self):
        self.host.add('br200', 'bridge')
        self.host.set('br200', state='up')
        self.host.set(base.TAP, master=self.host.link('br200').index)
        self.assert_left_alone('it is on br200 and should be on br100')

    def test_another_name(self):
        self.guest.close()
        self.start_guest('tap0')
        self.assert_left_alone('stays as it is', tap='tap0')
