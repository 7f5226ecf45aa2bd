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
from oslo_privsep import priv_context

from tests import base
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

_OTHERS_VIF = 'deadbeef-0000-4000-8000-000000000000'
#: VIFs whose TAPs Nova would give a name that another kind of device has, or
#: that is an alternative name of somebody's TAP.
_IFBS_VIF = '1fb00000-0000-4000-8000-000000000000'
_ALTNAMES_VIF = 'a1700000-0000-4000-8000-000000000000'
_VIFS = (base.VIF_ID, _IFBS_VIF, _ALTNAMES_VIF)
_OTHERS_GROUP = 77
#: The end of an interface that Neutron's DHCP agent has for another port.
_OTHERS_INTERFACE = 'dhcp'
_OTHERS = ('eth7', 'wire', 'mgmt', 'storage', 'tap0', 'vnet0', 'vnet1',
           'vpn0', _OTHERS_INTERFACE, names.nova_tap_name(_OTHERS_VIF),
           names.nova_tap_name(_IFBS_VIF))
_ALTNAMES = ('uplink0', names.nova_tap_name(_ALTNAMES_VIF))
#: The end of one that he may have moved.
_INTERFACE = 'tap1f000000-00'
_INTERFACES_PORT = '1f000000-0000-4000-8000-000000000000'
_INTERFACES_MAC = 'fa:16:3e:00:00:01'

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

_names = st.sampled_from(
    _OTHERS + _ALTNAMES + (
        base.TAP, base.BRIDGE, _INTERFACE, 'br101', 'lo', 'all', 'default',
        '', '.', '..', '../../etc', '/etc/passwd', 'br1/../../x', 'a b',
        'tap%d', 'tapmac-%d', 'x' * 16, 'br100\0', 'br100\n', '-x', '*'))
_macs = st.sampled_from((
    base.GUEST_MAC, 'fe:16:3e:28:64:c2', 'fa:16:3e:00:00:07',
    '02:00:00:00:00:07', 'ff:ff:ff:ff:ff:ff', '00:00:00:00:00:00',
    '01:80:c2:00:00:00', 'FA:16:3E:28:64:C2', '', 'x'))
_numbers = st.sampled_from((
    -2 ** 63, -1, 0, 1, 67, 68, 1500, 9000, 65521, 65522, _OTHERS_GROUP,
    29793, 29794, 29795, 65534, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 63))
_addresses = st.sampled_from((
    '192.0.2.1', '2001:db8::1', '0.0.0.0', '224.0.0.1', '::', 'ff02::1',
    '::ffff:192.0.2.1', '127.0.0.1', 'fe80::1%eth7', '192.0.2.1/24', '', 'x'))
#: All that can cross the boundary.
_plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text()
    | st.binary() | _names | _macs | _numbers,
    lambda inner: st.lists(inner, max_size=3).map(tuple)
    | st.dictionaries(st.text() | st.binary(), inner, max_size=3),
    max_leaves=5)
#: What each field should be, of the right type at least.
_proper = {
    'vif_id': st.sampled_from(_VIFS + (
        _INTERFACES_PORT, 'vnet0000-0000-4000-8000-000000000000',
        base.VIF_ID.upper(), '')),
    'name': _names, 'bridge': _names, 'guest_mac': _macs,
    'mtu': _numbers | st.none(), 'owner': _numbers,
    'create_tap': st.booleans(), 'multi_queue': st.booleans(),
    'create_bridge': st.booleans(), 'link_group': _numbers,
    'bridge_group': _numbers, 'uplink': _names | st.none(),
    'filtered_group': _numbers, 'agent_group': _numbers,
    'firewall': st.sampled_from(('none', 'agent', '')),
    'addresses': st.lists(_addresses, max_size=3).map(tuple) | st.none(),
    'anti_spoofing': st.sampled_from(('none', 'mac', 'full', 'ip', '')),
    'arriving_guests': st.sampled_from(('lock', 'filter', '')),
    'port_isolated': st.booleans(), 'port_flood_unicast': st.booleans(),
    'port_flood_multicast': st.booleans(), 'port_hairpin': st.booleans(),
    'port_flood_broadcast': st.booleans(),
    'host_shield': st.booleans()}


_GROUP = '00000007-0000-4000-8000-000000000000'
#: What an agent can say of one port, with words of every kind in between.
_ports = st.fixed_dictionaries({
    'vif_id': st.sampled_from(_VIFS + (_OTHERS_VIF, '')), 'tap': _names,
    'mac': _macs, 'own': st.lists(st.tuples(_macs, st.sampled_from((
        '192.0.2.1/32', '0.0.0.0/0', '2001:db8::/64', '', 'x'))), max_size=2),
    'groups': st.lists(st.sampled_from((_GROUP, '../x', '')), max_size=1),
    'is_open': st.booleans(), 'stateful': st.booleans()})
_changes = st.fixed_dictionaries({
    'ports': st.lists(_ports, max_size=2),
    'gone': st.lists(st.sampled_from(_VIFS + ('',)), max_size=1),
    'groups': st.lists(st.fixed_dictionaries({
        'id': st.sampled_from((_GROUP, '')), 'stateful': st.booleans(),
        'rules': st.just(())}), max_size=1),
    'gone_groups': st.lists(st.sampled_from((_GROUP, 'to_guests', 'x')),
                            max_size=1),
    'members': st.just(()), 'gone_members': st.just(()),
    'is_all': st.booleans()})


@st.composite
def _requests(draw, valid):
    """A valid request, but for a few fields that are not as they should be."""
    fields = dict(valid)
    for name in draw(st.sets(st.sampled_from(sorted(fields)), max_size=3)):
        fields[name] = draw(_proper[name])
    wrong = draw(st.sampled_from(('nothing',) * 6 + ('type', 'less', 'more')))
    if wrong == 'type':
        fields[draw(st.sampled_from(sorted(fields)))] = draw(_plain)
    elif wrong == 'less':
        del fields[draw(st.sampled_from(sorted(fields)))]
    elif wrong == 'more':
        fields[draw(st.text() | st.sampled_from(sorted(_proper)))] = draw(
            _plain)
    return fields


_interfaces = _requests({
    'vif_id': _INTERFACES_PORT, 'name': _INTERFACE, 'bridge': base.BRIDGE,
    'guest_mac': _INTERFACES_MAC, 'mtu': 1400})
_identities = _requests({'vif_id': base.VIF_ID, 'name': base.TAP})
#: What is said at each door, by its name.
_SAID = {
    'ensure_port': st.tuples(_requests(base.make_port().to_fields())),
    'remove_port': st.tuples(_identities),
    'remove_ports': st.tuples(st.lists(_identities, max_size=3),
                              st.booleans() | _plain),
    'apply_filter': st.tuples(_changes | _plain),
    'join_interface': st.tuples(_interfaces),
    'unfed_taps': st.tuples(st.lists(_names, max_size=3) | _plain),
    'knows_connections': st.just(()),
}


def _doors():
    """Return all doors to root, each with whose they are, by their names."""
    contexts = [each for each in vars(privsep).values()
                if isinstance(each, priv_context.PrivContext)]
    return {name: (door, context) for name, door in vars(privileged).items()
            for context in contexts if context.is_entrypoint(door)}


class CompromisedCallerTest(base.FunctionalTestCase):

    LOG_LEVEL = logging.WARNING

    def setUp(self):
        super().setUp()
        self.configure(allowed_bridges=['br1*'])
        add, tap = self.host.add, self.host.add_tap
        add('eth7', 'veth', peer='wire', address='02:00:00:00:00:07')
        add(names.nova_tap_name(_IFBS_VIF), 'ifb')
        add('mgmt', 'bridge')
        for name, port, mac in (
                (_INTERFACE, _INTERFACES_PORT, _INTERFACES_MAC),
                (_OTHERS_INTERFACE, _OTHERS_VIF, 'fa:16:3e:00:00:02')):
            add(name, 'veth', peer=name[3:] + 'ns', address='fe' + mac[2:],
                group=mark.INTERFACE_GROUP)
            self.host.set(name,
                          ifalias=str(mark.InterfaceMark(port, mac, None)))
        # As a bridge of ours looks that is half-made, but for the number.
        storage = add('storage', 'bridge', group=_OTHERS_GROUP)
        self.host.set('wire', master=storage.index, state='up')
        for name in ('tap0', 'vnet0', 'vnet1',
                     names.nova_tap_name(_OTHERS_VIF)):
            tap(name)
            self.host.quiet_ipv6(name)  # Nothing is to come later.
        tap('vpn0', hosts.IFF_TUN)
        self.host.set('vnet1', master=storage.index, state='up')
        for name in ('vnet0', 'vnet1'):
            guest = hosts.Guest(name)
            self.addCleanup(guest.close)
        for name, altname in zip(('eth7', 'vnet0'), _ALTNAMES):
            self.host.ip.link('property_add', altname=altname,
                              index=self.host.link(name).index)
        # Who is the user of that name is looked up once in a process.
        from_config.port_fields(self.options)
        self.call(privileged.ensure_port, base.make_port().to_fields())
        self.before = self.others()
        self.assertEqual(len(_OTHERS), len(self.before[0]))

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
        links = [link for link in links if link.name in _OTHERS]
        indexes = [link.index for link in links]
        return (links, [address for address in addresses
                        if address[0] in indexes],
                [entry for entry in entries if entry[0] in indexes])

    def assert_nothing_touched(self):
        self.assertEqual(self.before, self.others())
        self.assertEqual([], _watch.touched)

    @base.too_slow_emulated('hundreds of calls')
    @hypothesis.settings(max_examples=400)
    @hypothesis.given(_SAID['ensure_port'])
    def test_ensure(self, said):
        self.call(privileged.ensure_port, *said)
        self.assert_nothing_touched()

    @base.too_slow_emulated('hundreds of calls')
    @hypothesis.settings(max_examples=200)
    @hypothesis.given(st.sampled_from(('remove_port', 'remove_ports')),
                      st.data())
    def test_remove(self, name, data):
        self.call(getattr(privileged, name), *data.draw(_SAID[name]))
        self.assert_nothing_touched()

    @base.too_slow_emulated('hundreds of calls')
    @hypothesis.settings(max_examples=100)
    @hypothesis.given(_SAID['join_interface'])
    def test_interface(self, said):
        self.call(privileged.join_interface, *said)
        self.assert_nothing_touched()

    @base.too_slow_emulated('hundreds of calls')
    @hypothesis.settings(max_examples=100)
    @hypothesis.given(st.sampled_from(sorted(_SAID)), st.data())
    def test_each_door(self, name, data):
        # Whichever there are: those that change nothing, too.
        self.call(getattr(privileged, name), *data.draw(_SAID[name]))
        self.assert_nothing_touched()

    @base.too_slow_emulated('hundreds of calls')
    @hypothesis.settings(max_examples=200)
    @hypothesis.given(st.sampled_from(sorted(_SAID)),
                      st.lists(_plain, max_size=2))
    def test_anything_at_all(self, name, arguments):
        self.call(getattr(privileged, name), *arguments)
        self.assert_nothing_touched()

    def test_no_door_is_forgotten(self):
        self.assertEqual(set(_SAID), set(_doors()))

    @base.too_slow_emulated('hundreds of calls')
    @hypothesis.settings(max_examples=200)
    @hypothesis.given(_changes | _plain)
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
        group = {'id': _GROUP, 'stateful': False, 'rules': []}
        prefixes = ['10.%d.%d.%d/32' % (each >> 16, each >> 8 & 255,
                                        each & 255) for each in range(70000)]
        for wrong in (
                {'ports': [port] * 5000}, {'gone': [base.VIF_ID] * 5000},
                {'ports': [{**port, 'groups': [_GROUP] * 300}]},
                {'ports': [{**port, 'own': [
                    (base.GUEST_MAC, each) for each in prefixes[:1100]]}]},
                {'groups': [{**group, 'rules': [rule] * 5000}]},
                {'groups': [{**group, 'rules': [{**rule, 'id': 'x' * 200}]}]},
                {'members': [{'name': 'group:' + _GROUP, 'family': 4,
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
                ('firewall', 'none'), ('agent_group', _OTHERS_GROUP),
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
             else privsep.filter for name in _SAID},
            {name: context for name, (_, context) in _doors().items()})

    def test_every_pair_of_names(self):
        # Not left to chance: each device as the TAP, and as the bridge.
        for vif_id, name in itertools.product(
                _VIFS, _OTHERS + _ALTNAMES + (base.TAP,)):
            for bridge in _OTHERS + _ALTNAMES + (base.BRIDGE,):
                self.reaches(vif_id=vif_id, name=name, bridge=bridge)
            self.call(privileged.remove_port,
                      {'vif_id': vif_id, 'name': name})
            self.assert_nothing_touched()

    def reaches(self, **fields):
        return self.call(privileged.ensure_port, dict(
            base.make_port().to_fields(), **fields))

    def test_every_bridge_for_an_interface(self):
        for name, bridge in itertools.product(
                _OTHERS + _ALTNAMES + (base.TAP, _INTERFACE),
                _OTHERS + _ALTNAMES + ('new',)):
            self.assertFalse(self.joins(name=name, bridge=bridge))
            self.assertIsNone(self.host.master(_INTERFACE), bridge)
        self.assert_nothing_touched()

    def joins(self, **fields):
        return self.call(privileged.join_interface, {
            'vif_id': _INTERFACES_PORT, 'name': _INTERFACE,
            'bridge': base.BRIDGE, 'guest_mac': _INTERFACES_MAC,
            'mtu': 1400, **fields})

    def test_his_own_uid_or_group(self):
        for field, value in (('owner', 65534), ('link_group', _OTHERS_GROUP),
                             ('bridge_group', _OTHERS_GROUP)):
            self.assertFalse(self.reaches(
                name='tap9', bridge='br101', **{field: value}), field)
            self.assertIsNone(self.host.find('tap9'))

    def test_half_made_bridge_that_is_not_ours(self):
        # Even an allowed one: it only looks as if it were half-made.
        self.host.add('br102', 'bridge', group=_OTHERS_GROUP)
        before = self.host.state()
        self.assertFalse(self.reaches(
            name='tap9', bridge='br102', bridge_group=_OTHERS_GROUP))
        self.assertEqual(before, self.host.state())

    def test_bridge_that_is_not_allowed(self):
        for bridge in ('mgmt', 'storage', 'new'):
            before = self.host.state()
            self.assertFalse(self.reaches(name='tap9', bridge=bridge))
            self.assertFalse(self.reaches(bridge=bridge))
            self.assertEqual(before, self.host.state())

    def test_uplink_that_is_not_allowed(self):
        for uplink in _OTHERS + _ALTNAMES:
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
        self.assertEqual(base.BRIDGE, self.host.master(_INTERFACE))
        self.assert_nothing_touched()
