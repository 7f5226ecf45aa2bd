# SPDX-License-Identifier: Apache-2.0

"""A caller who is not nova-compute any more, at the doors to root.

Or not the agent. He calls them with anything he likes. What he can reach are
TAPs of ours, the TAP that Nova would name after the VIF he names, interfaces
of the port he names, and bridges that the operator allows. Other people's
devices, and all files, stay as they are.
"""

import itertools
import logging
import os
import re
import sys

import hypothesis
from hypothesis import strategies as st

from tests import base
from tests import doors
from tests import hosts
from vif_plug_tapmac.kernel import agent_elements
from vif_plug_tapmac.kernel import emergency_exit
from vif_plug_tapmac.kernel import filter_state
from vif_plug_tapmac.kernel import filter_steps
from vif_plug_tapmac.kernel import filter_table
from vif_plug_tapmac.kernel import nft
from vif_plug_tapmac.kernel import nft_expressions as nftx
from vif_plug_tapmac import mark
from vif_plug_tapmac import privileged
from vif_plug_tapmac import privsep
from vif_plug_tapmac.wanted import from_config
from vif_plug_tapmac.wanted import names

#: Audit events by which Python changes files, or has others do it.
_CHANGES = re.compile(
    r'(os\.(chflags|chmod|chown|link|mkdir|remove|rename|rmdir|setxattr|'
    r'symlink|truncate|utime|system|exec|fork|forkpty|posix_spawn|spawn|'
    r'startfile|putenv)|shutil\..*|tempfile\..*|subprocess\..*|ctypes\..*)\Z')
_MAY_WRITE = re.compile(
    r'/dev/net/tun\Z|/proc/sys/net/(ipv4/conf/br1[\w.-]*/arp_(ignore|announce)'
    r'|ipv6/conf/br1[\w.-]*/disable_ipv6'
    r'|ipv6/conf/(tap|br1)[\w.-]*/accept_ra)\Z')
_MAY_READ = re.compile(
    r'/sys/class/net/br1[\w.-]*/\w+\Z|.*\.pyc?\Z'
    r'|/proc/sys/net/bridge/bridge-nf-call-iptables\Z')


class Watch:
    """Notes each file that this process touches; there is no way to end it."""

    def __init__(self):
        self.on = False
        self.touched = []
        sys.addaudithook(self._hook)

    def _hook(self, event, args):
        if not self.on:
            return
        if event == 'open':
            path, _, flags = args
            path = os.fsdecode(path) if not isinstance(path, int) else path
            writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if not (_MAY_WRITE if writes else _MAY_READ).match(str(path)):
                self.touched.append((event, path, flags))
        elif _CHANGES.match(event):
            self.touched.append((event, args))


_watch = Watch()


class CompromisedCallerTest(base.FunctionalTestCase):

    LOG_LEVEL = logging.WARNING

    def setUp(self):
        super().setUp()
        self.configure(allowed_bridges=['br1*'])
        add, tap = self.host.add, self.host.add_tap
        add('eth7', 'veth', peer='wire', address='02:00:00:00:00:07')
        add(names.nova_tap_name(doors.IFBS_VIF), 'ifb')
        add('mgmt', 'bridge')
        for name, port, mac in (
                (doors.INTERFACE, doors.INTERFACES_PORT, doors.INTERFACES_MAC),
                (doors.OTHERS_INTERFACE, doors.OTHERS_VIF,
                 'fa:16:3e:00:00:02')):
            add(name, 'veth', peer=name[3:] + 'ns', address='fe' + mac[2:],
                group=mark.INTERFACE_GROUP)
            self.host.set(name,
                          ifalias=str(mark.InterfaceMark(port, mac, None)))
        # As a bridge of ours looks that is half-made, but for the number.
        storage = add('storage', 'bridge', group=doors.OTHERS_GROUP)
        self.host.set('wire', master=storage.index, state='up')
        for name in ('tap0', 'vnet0', 'vnet1',
                     names.nova_tap_name(doors.OTHERS_VIF)):
            tap(name)
            self.host.quiet_ipv6(name)  # Nothing is to come later.
        tap('vpn0', hosts.IFF_TUN)
        self.host.set('vnet1', master=storage.index, state='up')
        for name in ('vnet0', 'vnet1'):
            guest = hosts.Guest(name)
            self.addCleanup(guest.close)
        for name, altname in zip(('eth7', 'vnet0'), doors.ALTNAMES):
            self.host.ip.link('property_add', altname=altname,
                              index=self.host.link(name).index)
        # Who is the user of that name is looked up once in a process.
        from_config.port_fields(self.options)
        self.call(privileged.ensure_port, base.make_port().to_fields())
        self.before = self.others()
        self.assertEqual(len(doors.OTHERS), len(self.before[0]))

    def call(self, door, *arguments):
        """Call a door; what it raises is the caller's business."""
        _watch.on = True
        try:
            door(*arguments)
            return True
        except Exception:
            return False
        finally:
            _watch.on = False

    def others(self):
        """Return all about the devices that are not ours."""
        links, addresses, entries = self.host.state()
        links = [link for link in links if link.name in doors.OTHERS]
        indexes = [link.index for link in links]
        return (links, [address for address in addresses
                        if address[0] in indexes],
                [entry for entry in entries if entry[0] in indexes])

    def assert_nothing_touched(self):
        self.assertEqual(self.before, self.others())
        self.assertEqual([], _watch.touched)

    @base.too_slow_emulated('hundreds of calls')
    @hypothesis.settings(max_examples=400)
    @hypothesis.given(doors.SAID['ensure_port'])
    def test_ensure(self, said):
        self.call(privileged.ensure_port, *said)
        self.assert_nothing_touched()

    @base.too_slow_emulated('hundreds of calls')
    @hypothesis.settings(max_examples=200)
    @hypothesis.given(st.sampled_from(('remove_port', 'remove_ports')),
                      st.data())
    def test_remove(self, name, data):
        self.call(getattr(privileged, name), *data.draw(doors.SAID[name]))
        self.assert_nothing_touched()

    @base.too_slow_emulated('hundreds of calls')
    @hypothesis.settings(max_examples=100)
    @hypothesis.given(doors.SAID['join_interface'])
    def test_interface(self, said):
        self.call(privileged.join_interface, *said)
        self.assert_nothing_touched()

    @base.too_slow_emulated('hundreds of calls')
    @hypothesis.settings(max_examples=100)
    @hypothesis.given(st.sampled_from(sorted(doors.SAID)), st.data())
    def test_each_door(self, name, data):
        # Whichever there are: those that change nothing, too.
        self.call(getattr(privileged, name), *data.draw(doors.SAID[name]))
        self.assert_nothing_touched()

    @base.too_slow_emulated('hundreds of calls')
    @hypothesis.settings(max_examples=200)
    @hypothesis.given(st.sampled_from(sorted(doors.SAID)),
                      st.lists(doors.PLAIN, max_size=2))
    def test_anything_at_all(self, name, arguments):
        self.call(getattr(privileged, name), *arguments)
        self.assert_nothing_touched()

    def test_no_door_is_forgotten(self):
        self.assertEqual(set(doors.SAID), set(doors.found()))

    @base.too_slow_emulated('hundreds of calls')
    @hypothesis.settings(max_examples=200)
    @hypothesis.given(doors.CHANGES | doors.PLAIN)
    def test_agent(self, fields):
        other = nft.Rule('chain', nftx.ACCEPT, 'of somebody else')
        with nft.Session() as session:
            if session.table('other') is None:
                session.transact('', [
                    nft.new_table('other', ''),
                    nft.new_chain('other', nft.Chain('chain')),
                    nft.new_rule('other', other)])
            self.call(privileged.apply_filter, fields)
            self.assert_nothing_touched()
            self.assertTrue(session.has_rules('other', 'chain', [other]))
            found = session.table(filter_table.NAME)
            if found is not None:
                self.assertTrue(filter_state.lasts(session, found, True))
            self.assertLessEqual(
                {agent_elements.index_of(element) for some
                 in agent_elements.there(session).values()
                 for element in some.values()},
                {filter_steps.number_key(self.host.link(base.TAP).index)})

    def test_an_agents_words_have_an_end(self):
        port = {'vif_id': base.VIF_ID, 'tap': base.TAP,
                'mac': base.GUEST_MAC, 'own': [], 'groups': [],
                'is_open': False, 'stateful': False}
        change = {'ports': [port], 'gone': [], 'groups': [],
                  'gone_groups': [], 'members': [], 'gone_members': [],
                  'is_all': True}
        rule = {'id': 'x', 'direction': 'ingress', 'family': 4,
                'protocol': None, 'first': None, 'last': None,
                'remote': None, 'remote_set': None}
        group = {'id': doors.GROUP, 'stateful': False, 'rules': []}
        prefixes = ['10.%d.%d.%d/32' % (each >> 16, each >> 8 & 255,
                                        each & 255) for each in range(70000)]
        for wrong in (
                {'ports': [port] * 5000}, {'gone': [base.VIF_ID] * 5000},
                {'ports': [{**port, 'groups': [doors.GROUP] * 300}]},
                {'ports': [{**port, 'own': [
                    (base.GUEST_MAC, each) for each in prefixes[:1100]]}]},
                {'groups': [{**group, 'rules': [rule] * 5000}]},
                {'groups': [{**group, 'rules': [{**rule, 'id': 'x' * 200}]}]},
                {'members': [{'name': 'group:' + doors.GROUP, 'family': 4,
                              'prefixes': prefixes}]}):
            self.assertFalse(self.call(privileged.apply_filter,
                                       {**change, **wrong}))
        self.assertTrue(self.call(privileged.apply_filter, change))

    def test_an_agent_switches_no_emergency_exit(self):
        port = {'vif_id': base.VIF_ID, 'tap': base.TAP,
                'mac': base.GUEST_MAC, 'own': [], 'groups': [],
                'is_open': True, 'stateful': False}
        nothing = {'ports': [], 'gone': [], 'groups': [], 'gone_groups': [],
                   'members': [], 'gone_members': [], 'is_all': True}
        one = {self.host.link(base.TAP).index: base.VIF_ID}
        emergency_exit.switch_off(emergency_exit.NONE)
        for exits in (emergency_exit.NONE, emergency_exit.Exits(True),
                      emergency_exit.Exits(ports=one)):
            emergency_exit.switch_off(exits)
            for change in ({**nothing, 'ports': [port]}, nothing,
                           {**nothing, 'is_all': False,
                            'gone': [base.VIF_ID]}):
                self.assertTrue(self.call(privileged.apply_filter, change))
                self.assertEqual(exits, emergency_exit.now())
            emergency_exit.switch_on(exits)
        self.assert_nothing_touched()

    @base.needs_locked_ports
    def test_nova_compute_takes_no_guest_from_its_agent(self):
        self.configure(firewall='agent')
        self.assertTrue(self.call(privileged.ensure_port, self.of_agent()))
        link = self.host.link(base.TAP)
        self.assertEqual(self.options.agent_group, link.group)
        for field, value in (
                ('firewall', 'none'), ('agent_group', doors.OTHERS_GROUP),
                ('anti_spoofing', 'none'), ('anti_spoofing', 'full'),
                ('agent_group', self.options.link_group)):
            self.assertFalse(self.call(privileged.ensure_port, {
                **self.of_agent(), field: value}), field)
            self.assertEqual(link, self.host.link(base.TAP))
        # Nor does he say what passes there.
        with nft.Session() as session:
            self.assertEqual([], [
                element for some in agent_elements.there(session).values()
                for element in some.values()])

    def of_agent(self):
        return base.make_port(firewall='agent').to_fields()

    def test_each_daemon_has_doors_of_its_own(self):
        of_nova_compute = {'ensure_port', 'remove_port', 'remove_ports'}
        self.assertEqual(
            {name: privsep.vif_plug if name in of_nova_compute
             else privsep.filter for name in doors.SAID},
            {name: context for name, (_, context) in doors.found().items()})

    def test_every_pair_of_names(self):
        # Not left to chance: each device as the TAP, and as the bridge.
        for vif_id, name in itertools.product(
                doors.VIFS, doors.OTHERS + doors.ALTNAMES + (base.TAP,)):
            for bridge in doors.OTHERS + doors.ALTNAMES + (base.BRIDGE,):
                self.reaches(vif_id=vif_id, name=name, bridge=bridge)
            self.call(privileged.remove_port,
                      {'vif_id': vif_id, 'name': name})
            self.assert_nothing_touched()

    def reaches(self, **fields):
        return self.call(privileged.ensure_port, dict(
            base.make_port().to_fields(), **fields))

    def test_every_bridge_for_an_interface(self):
        for name, bridge in itertools.product(
                doors.OTHERS + doors.ALTNAMES + (base.TAP, doors.INTERFACE),
                doors.OTHERS + doors.ALTNAMES + ('new',)):
            self.assertFalse(self.joins(name=name, bridge=bridge))
            self.assertIsNone(self.host.master(doors.INTERFACE), bridge)
        self.assert_nothing_touched()

    def joins(self, **fields):
        return self.call(privileged.join_interface, {
            'vif_id': doors.INTERFACES_PORT, 'name': doors.INTERFACE,
            'bridge': base.BRIDGE, 'guest_mac': doors.INTERFACES_MAC,
            'mtu': 1400, **fields})

    def test_his_own_uid_or_group(self):
        for field, value in (('owner', 65534),
                             ('link_group', doors.OTHERS_GROUP),
                             ('bridge_group', doors.OTHERS_GROUP)):
            self.assertFalse(self.reaches(
                name='tap9', bridge='br101', **{field: value}), field)
            self.assertIsNone(self.host.find('tap9'))

    def test_half_made_bridge_that_is_not_ours(self):
        # Even an allowed one: it only looks as if it were half-made.
        self.host.add('br102', 'bridge', group=doors.OTHERS_GROUP)
        before = self.host.state()
        self.assertFalse(self.reaches(
            name='tap9', bridge='br102', bridge_group=doors.OTHERS_GROUP))
        self.assertEqual(before, self.host.state())

    def test_bridge_that_is_not_allowed(self):
        for bridge in ('mgmt', 'storage', 'new'):
            before = self.host.state()
            self.assertFalse(self.reaches(name='tap9', bridge=bridge))
            self.assertFalse(self.reaches(bridge=bridge))
            self.assertEqual(before, self.host.state())

    def test_uplink_that_is_not_allowed(self):
        for uplink in doors.OTHERS + doors.ALTNAMES:
            before = self.host.state()
            self.assertFalse(self.reaches(name='tap9', bridge='br109',
                                          uplink=uplink))
            self.assertEqual(before, self.host.state())

    @base.needs_locked_ports
    def test_held_tap_of_ours_is_not_moved_either(self):
        index = self.host.link(base.TAP).index
        self.host.set(base.TAP, master=0)
        with hosts.Guest(base.TAP):
            self.assertTrue(self.reaches(bridge='mgmt'))
            self.assertIsNone(self.host.master(base.TAP))
        self.assert_logged('allowed_bridges = br1*')
        self.assertEqual(index, self.host.link(base.TAP).index)

    @base.needs_locked_ports
    def test_the_honest_caller_is_served(self):
        # Or all of the above would pass for a door that is always shut.
        self.host.delete(base.TAP)
        self.assertTrue(self.reaches())
        self.assert_finished()
        self.assertTrue(self.joins())
        self.assertEqual(base.BRIDGE, self.host.master(doors.INTERFACE))
        self.assert_nothing_touched()
