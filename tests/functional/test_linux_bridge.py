# SPDX-License-Identifier: Apache-2.0

"""What os-vif's own plugin linux_bridge did, and what we do.

Both plug the same VIFs, each on a host of its own, and what the kernel has
then is compared with the tables of "Migrating from os-vif's linux_bridge", row
by row.
"""

import collections
import contextlib
import dataclasses
import glob
import itertools
import json
import os
import pathlib
import re
import subprocess
import typing

import fixtures
import os_vif
from os_vif import exception as os_vif_exception
from os_vif.objects import network

from tests import base
from tests import documents
from tests.functional import test_claim
from tests import hosts
from vif_plug_tapmac.kernel import bridge_health
from vif_plug_tapmac import linux_bridge

_PYTHON = base.CHECKOUT / '.venv' / 'os-vif-4.3.1' / 'bin' / 'python'
_VLAN = 200
#: The uplinks that a host has. This kernel makes no VLANs, so those that
#: either plugin would make are there.
_DEVICES = {'eth1': '5a:00:00:00:00:01', 'eth1.200': '5a:00:00:00:00:02',
            'vlan200': '5a:00:00:00:00:03'}
_LOWEST_MAC = '00:00:00:00:00:01'

#: All that a shape of VIF can be, by column of the table.
_VALUES = {'should_provide_bridge': ('False', 'True'),
           'should_provide_vlan': ('False', 'True'),
           'multi_host': ('False', 'True'),
           'mtu': ('unset', 'None', '1450'),
           'bridge_interface': ('unset', 'None', 'eth1')}
_MEANINGS = {'False': False, 'True': True, 'None': None, '1450': 1450,
             'eth1': 'eth1', 'unset': base.UNSET}


def make_vif(shape, filtering=True):
    fields = {name: _MEANINGS[value]
              for name, value in zip(_VALUES, shape)
              if value != 'unset'}
    return base.make_vif(
        plugin='linux_bridge', has_traffic_filtering=filtering,
        network=network.Network(vlan=_VLAN, **fields))


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a plugin said.

    :param error: type and text of what it raised, None: nothing
    :param rules: of iptables, that it wrote for the bridge
    """
    error: list[str] | None
    rules: list[str]


class Old(fixtures.Fixture):
    """os-vif 4.3.1 and its plugin.

    :param nova_conf: the path of one, if any
    """

    def __init__(self, *nova_conf):
        super().__init__()
        self._nova_conf = nova_conf

    def _setUp(self):
        directory = self.useFixture(fixtures.TempDir()).path
        self._process = subprocess.Popen(
            [str(_PYTHON), str(base.CHECKOUT / 'tests/old_linux_bridge.py'),
             directory, *self._nova_conf], text=True,
            preexec_fn=hosts.die_with_parent, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env=dict(os.environ, PYTHONWARNINGS='ignore'))
        self.addCleanup(self._end)
        self.options = json.loads(self._process.stdout.readline())

    def _end(self):
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def call(self, name, host, vif):
        self._process.stdin.write(json.dumps(
            {'call': name, 'vif': vif.obj_to_primitive(),
             'namespace': '/proc/%d/fd/%d' % (os.getpid(), host.namespace),
             }) + '\n')
        self._process.stdin.flush()
        return Answer(**json.loads(self._process.stdout.readline()))


class New:
    """os-vif of this process, and us."""

    def call(self, name, host, vif):
        try:
            getattr(os_vif, name)(vif, base.INSTANCE)
        except (os_vif_exception.PlugException,
                os_vif_exception.UnplugException) as raised:
            error = raised.kwargs['err']
            return Answer([type(error).__name__, str(error)], [])
        return Answer(None, [])


def uplinks(host):
    return [name for name in _DEVICES
            if host.find(name) is not None
            and host.master(name) == base.BRIDGE]


def outcome(host, answer):
    """Return what a plugin made of a VIF, as the table says it."""
    made = host.find(base.BRIDGE)
    if made is None:
        return ('nothing' if answer.error is None
                else '%s, and nothing made' % answer.error[0])
    assert answer.error is None, answer
    return 'bridge, %s' % (
        ' and '.join('uplink ' + name for name in uplinks(host))
        or 'no uplink')


def qualities(host, answer, shape, filtering):
    """Yield what a bridge that was made is like."""
    made = host.link(base.BRIDGE)
    yield 'State', 'up' if made.up else 'down'
    for name in uplinks(host):
        yield 'State of the uplink', 'up' if host.link(name).up else 'down'
    yield 'STP', 'on' if made.stp else 'off'
    yield 'Forward delay', '%d s' % (made.forward_delay / 100)
    yield 'Multicast snooping', 'on' if made.multicast_snooping else 'off'
    yield 'IPv6 of the host', 'off' if made.disable_ipv6 else 'on'
    for name in 'arp_ignore', 'arp_announce':
        yield name, host.sysctl('ipv4/conf/%s/%s' % (base.BRIDGE, name))
    yield 'Link group', str(made.group)
    yield 'Alias', made.alias or 'none'
    yield ('iptables rules, %s has_traffic_filtering' % (
        'with' if filtering else 'without'),
        '; '.join(rule.split('-FORWARD ')[-1] for rule in answer.rules)
        or 'none')
    if shape[3] == '1450':
        for name in uplinks(host):
            yield ('Uplink with a larger MTU than the network',
                   'keeps it' if host.link(name).mtu == 1500 else
                   'gets that of the network')
        if not uplinks(host):
            yield ('MTU of a bridge without uplink',
                   'that of the network' if made.mtu == 1450 else
                   '%d, whatever the network has' % made.mtu)
    host.add('low', 'ifb', address=_LOWEST_MAC)
    host.set('low', master=made.index)
    yield 'MAC', ('changes with its ports'
                  if host.link(base.BRIDGE).mac == _LOWEST_MAC else 'fixed')


#: What differs by chance, or by the time that went by.
_CHANCE = re.compile('CACHEINFO|_TIMER/|CARRIER|OPERSTATE')
_BY_CARRIER = 0x10000 | 0x40  # IFF_LOWER_UP, IFF_RUNNING
#: Which row of the table a difference belongs to.
_ROWS = {
    'br100 (IFLA_ADDRESS|.*(BRIDGE|ROOT)_ID/addr)/': 'MAC',
    'br100 IFLA_GROUP/': 'Link group',
    'br100 IFLA_IFALIAS/': 'Alias',
    'br100 .*(?i:mtu)/': 'MTU of a bridge without uplink',
    'eth1 .*(?i:mtu)/': 'Uplink with a larger MTU than the network'}


def everything(host):
    """Return all that the kernel says of each link and its addresses."""
    found = {}

    def add(name, value):
        if isinstance(value, dict) or hasattr(value, 'keys'):
            for key in set(value) - {'attrs', 'header', 'event'}:
                add('%s%s/' % (name, key), value[key])
            for key, inner in value.get('attrs', ()):
                add('%s%s/' % (name, key), inner)
        elif not _CHANCE.search(name):
            found[name] = value

    for message in host.ip.get_links():
        name = message.get_attr('IFLA_IFNAME')
        message['flags'] &= ~_BY_CARRIER
        add(name + ' ', message)
        for path in glob.glob('/proc/sys/net/*/conf/%s/*' % name):
            # Some are for writing only, and some have no value yet.
            with contextlib.suppress(OSError):
                add('%s %s/' % (name, path), pathlib.Path(path).read_text())
        add(name + ' addresses/', host.addresses(name))
    return found


def differences(one, other):
    return {name for name in {*one, *other}
            if one.get(name) != other.get(name)}


@dataclasses.dataclass(frozen=True)
class Plugged:
    """A host, and what became of it.

    :param before: its state before the plug
    """
    host: hosts.Host
    plugin: typing.Any
    answer: Answer
    before: list[typing.Any]


def add_devices(host):
    for name, mac in _DEVICES.items():
        # Of these, any may be in the VLAN that its name says; an ifb may not.
        host.add_tap(name)
        host.set(name, address=mac)
        host.quiet_ipv6(name)


class ComparisonTestCase(test_claim.ClaimTestCase):

    def setUp(self):
        super().setUp()
        self.only_in_full()
        if not _PYTHON.exists():
            self.cannot_run('needs .venv/os-vif-4.3.1: run tools/peers.sh')
        self.old, self.new = self.useFixture(Old()), New()
        # In the words of that page.
        self.configure(claim_plugins=['linux_bridge'],
                       allowed_uplinks=['eth*'])
        os_vif.initialize(reset=True)
        self.patch(bridge_health, '_warned', set())

    def on_both(self, shape, prepare=lambda host: None, filtering=True):
        """Plug on a host of each, and yield what became of it."""
        vif = make_vif(shape, filtering)
        for plugin in self.old, self.new:
            with hosts.Host() as host:
                add_devices(host)
                prepare(host)
                before = host.state()
                yield Plugged(host, plugin, plugin.call('plug', host, vif),
                              before)

    def assert_nothing_at_unplug(self, host, plugin, shape):
        before = host.state()
        answer = plugin.call('unplug', host, make_vif(shape))
        self.assertEqual(Answer(None, []), answer)
        self.assertEqual(before, host.state())


class ShapesTest(ComparisonTestCase):
    """VIFs of every shape."""

    def setUp(self):
        super().setUp()
        self.outcomes, self.differences = {}, set()
        self.qualities = collections.defaultdict(lambda: (set(), set()))
        for shape in itertools.product(*_VALUES.values()):
            self.see(shape)
        self.see(('True', 'False', 'False', 'None', 'eth1'), filtering=False)

    def see(self, shape, filtering=True):
        outcomes, bridges = [], []
        for each in self.on_both(shape, filtering=filtering):
            host = each.host
            outcomes.append(outcome(host, each.answer))
            # libvirt makes it, for either.
            self.assertIsNone(host.find(base.TAP))
            self.assert_nothing_at_unplug(host, each.plugin, shape)
            if host.find(base.BRIDGE) is None:
                self.assertEqual(each.before, host.state())
                continue
            bridges.append(everything(host))
            for name, value in qualities(host, each.answer, shape, filtering):
                self.qualities[name][each.plugin is self.new].add(value)
        self.outcomes[shape] = outcomes
        if len(bridges) == 2:
            self.differences |= differences(*bridges)

    def shapes(self, row):
        """Return the shapes that a row of the table is about."""
        values = []
        for column, cell in zip(_VALUES.values(), row):
            values.append(column if cell == 'any' else cell.split(', '))
            self.assertTrue(set(values[-1]) <= set(column), row)
        return itertools.product(*values)

    def test_tables(self):
        rows = documents.rows(documents.COMING, 'VIFs')
        said = {}
        for row in rows:
            for shape in self.shapes(row[:-2]):
                self.assertNotIn(shape, said, 'in two rows')
                said[shape] = row[-2:]
        self.assertEqual(self.outcomes, said)
        rows = documents.rows(documents.COMING, 'Bridges')
        self.assertEqual(
            sorted([name, *old, *new]
                   for name, (old, new) in self.qualities.items()
                   if old != new), sorted(rows))
        # Nothing else is different, whatever the kernel has to say.
        for name in self.differences:
            self.assertIn(
                [row for pattern, row in _ROWS.items()
                 if re.fullmatch(pattern, name)],
                [[row[0]] for row in rows], name)


class HostsTest(ComparisonTestCase):
    """The same VIF on hosts that are not ready for it."""

    SHAPE = ('True', 'False', 'False', 'None', 'eth1')

    def see(self, prepare):
        """Return what comes of it, as the table says it."""
        seen = []
        for each in self.on_both(self.SHAPE, prepare):
            host = each.host
            if each.answer.error is None:
                text = outcome(host, each.answer)
            else:
                text = each.answer.error[0]
                self.assertEqual(each.before, host.state())
            if host.find(base.BRIDGE) and host.addresses(base.BRIDGE):
                text += ', and the address on the bridge'
            seen.append(text)
        return seen

    @staticmethod
    def address(host):
        host.ip.addr('add', index=host.link('eth1').index,
                     address='192.0.2.7', prefixlen=24)

    @staticmethod
    def missing(host):
        host.delete('eth1')

    @staticmethod
    def bridge(host):
        host.add(base.BRIDGE, 'bridge')

    @staticmethod
    def another_bridge(host):
        host.set('eth1', master=host.add('br7', 'bridge').index)

    def test_table(self):
        seen = [[situation, *self.see(prepare)] for situation, prepare in (
            ('eth1 has an IPv4 address', self.address),
            ('There is no eth1', self.missing),
            ('eth1 is a port of another bridge', self.another_bridge),
            ('The bridge is there, without uplink', self.bridge))]
        self.assertEqual(seen, documents.rows(documents.COMING, 'Hosts'))


class RunningGuestTest(ComparisonTestCase):

    def test_nothing_is_touched(self):
        self.configure(anti_spoofing='none')
        shape = ('True', 'False', 'False', 'None', 'eth1')
        add_devices(self.host)
        self.old.call('plug', self.host, make_vif(shape))
        # What libvirt does.
        self.host.add_tap(base.TAP)
        self.host.quiet_ipv6(base.TAP)  # No address is to come later.
        self.host.set(base.TAP, address=base.TAP_MAC, state='up',
                      master=self.host.link(base.BRIDGE).index)
        with hosts.Guest(base.TAP, base.GUEST_MAC):
            self.host.wait_until_forwarding(base.TAP)
            before = self.host.state()
            self.configure(allowed_uplinks=[],
                           bridge_uplinks={base.BRIDGE: 'eth1'})
            vif = make_vif(('True', 'False', 'False', 'None', 'None'))
            self.assertEqual(Answer(None, []),
                             self.new.call('plug', self.host, vif))
            self.assertEqual(before, self.host.state())
        self.assert_nothing_at_unplug(self.host, self.new, shape)


class OptionsTest(ComparisonTestCase):

    def test_table_has_each(self):
        rows = documents.rows(documents.COMING, 'Options')
        self.assertEqual(self.old.options, [row[0] for row in rows])
        self.assertEqual(
            sorted(self.old.options),
            sorted([*linux_bridge.KEPT, *linux_bridge.IGNORED]))
        for option, now in rows:
            self.assertEqual(option in linux_bridge.IGNORED,
                             now.startswith('Ignored'), option)

    def write_nova_conf(self, *lines):
        path = pathlib.Path(
            self.useFixture(fixtures.TempDir()).path) / 'nova.conf'
        path.write_text('\n'.join(lines))
        return str(path)

    def test_those_that_are_kept(self):
        nova_conf = self.write_nova_conf(
            '[os_vif_linux_bridge]', 'flat_interface = eth1',
            'vlan_interface = eth1', 'network_device_mtu = 1450',
            '[os_vif_tapmac]', 'allowed_bridges = br100')
        self.old = self.useFixture(Old(nova_conf))
        self.config.conf([], default_config_files=[nova_conf])
        for vlan, expected in (
                ('False', [('bridge, uplink eth1', 1450)] * 2),
                ('True', [('TypeError, and nothing made', None),
                          ('bridge, uplink eth1.200', 1450)])):
            seen = []
            for each in self.on_both(
                    ('True', vlan, 'False', 'None', 'None')):
                made = each.host.find(base.BRIDGE)
                seen.append((outcome(each.host, each.answer),
                             made and made.mtu))
            self.assertEqual(expected, seen)

    def test_both_in_one_process(self):
        """os-vif registers its options in the group that we read, too."""
        nova_conf = self.write_nova_conf(
            '[os_vif_linux_bridge]', 'flat_interface = eth1',
            'use_ipv6 = true', '[os_vif_tapmac]', 'allowed_bridges = br100')
        old = ('from vif_plug_linux_bridge import linux_bridge as old; '
               'one = old.LinuxBridgePlugin.load("linux_bridge"); ')
        ours = ('from vif_plug_tapmac import plugin, linux_bridge; '
                'from vif_plug_tapmac.wanted import from_config; '
                'from oslo_config import cfg; '
                'two = plugin.TapMacPlugin.load("tapmac"); '
                'cfg.CONF.set_override("claim_plugins", ["linux_bridge"], '
                '"os_vif_tapmac"); '
                'linux_bridge.warn_of_ignored(two.config, cfg.CONF); ')
        for first, second in (old, ours), (ours, old):
            done = subprocess.run(
                [str(_PYTHON), '-c',
                 'import sys; from oslo_config import cfg; '
                 'cfg.CONF([], default_config_files=sys.argv[1:]); '
                 + first + second
                 + 'print(one.config.flat_interface, one.config.use_ipv6, '
                 'from_config.uplinks(two.config).of("br100"))',
                 nova_conf], text=True, capture_output=True,
                env=dict(os.environ, PYTHONWARNINGS='ignore',
                         PYTHONPATH=str(base.CHECKOUT)))
            self.assertEqual('eth1 True eth1\n', done.stdout, done.stderr)
            self.assertIn('use_ipv6 = True is ignored', done.stderr)
