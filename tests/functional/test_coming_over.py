# SPDX-License-Identifier: Apache-2.0

"""From the rules of Neutron's Linux bridge agent to those of tapmac-agent.

A host with guests on TAPs of libvirt's, filtered by what that agent's own code
has put into iptables and ebtables. All that may pass, and all that may not, is
sent again and again, before, during and after each step: at no time does a
frame get through that did not before, or get lost that got through.
"""

import contextlib
import re
import subprocess
import threading

import fixtures
from scapy.layers import inet
from scapy.layers import l2

from tests import base
from tests import documents
from tests import hosts
from tests.oracle import driver
from tests.oracle import ours
from tests.oracle import worlds
from tests import patience
from vif_plug_tapmac.host import audit
from vif_plug_tapmac.host import inventory
from vif_plug_tapmac import mark
from vif_plug_tapmac.wanted.port import AGENT_GROUP

_BRIDGE = 'brq' + worlds.NETWORK_ID[:11]
_WIRE, _WIRE_MAC, _GATEWAY = 'wire', '52:54:00:00:00:01', '10.0.0.254'
_UNFILTERED = 29793
_GROUP, _OTHER_GROUP = ('%08x-0000-4000-8000-000000000000' % number
                        for number in (0xa0, 0xa1))
#: Of UDP: what members of a group may say to each other, what the wire may to
#: them, what nobody may.
_MEMBERS, _SERVICE, _NOBODY = 7000, 53, 7001
#: Two members, one who is in another group, one without port security, and a
#: member who shares an address with others, as VRRP has it.
_GUESTS = _ONE, _TWO, _OUTSIDER, _OPEN, _SHARING = range(5)
_SHARED_MAC, _SHARED = '00:00:5e:00:01:07', '10.0.0.77'
_STRANGER, _FALSE = 'fa:16:3e:77:77:77', '10.0.0.99'
#: What an audit has to say of who filters a guest.
_CODES = ('TM235', 'TM236', 'TM237', 'TM411', 'TM412', 'TM413', 'TM414')
_OF_OTHERS = """
iptables -A FORWARD -s 192.0.2.1 -j ACCEPT
ebtables -t nat -A PREROUTING -i eth9 -j DROP
"""


def _rule(number, group=_GROUP, **fields):
    return {**{
        'id': 'rule %d' % number, 'security_group_id': group,
        'direction': 'ingress', 'ethertype': 'IPv4', 'protocol': None,
        'port_range_min': None, 'port_range_max': None,
        'remote_ip_prefix': None, 'remote_group_id': None,
        'remote_address_group_id': None}, **fields}


def _udp_rule(number, port, **fields):
    return _rule(number, protocol='udp', port_range_min=port,
                 port_range_max=port, **fields)


def _port(number):
    is_open = number == _OPEN
    group = _OTHER_GROUP if number == _OUTSIDER else _GROUP
    return {
        'id': worlds.vif_id(number), 'network_id': worlds.NETWORK_ID,
        'device': worlds.device(number), 'mac_address': worlds.mac(number),
        'device_owner': 'compute:nova', 'port_security_enabled': not is_open,
        'security_groups': [] if is_open else [group],
        'fixed_ips': [{'ip_address': _ip(number)}],
        'allowed_address_pairs': [{
            'mac_address': _SHARED_MAC, 'ip_address': _SHARED}]
        if number == _SHARING else []}


def _ip(number):
    return '10.0.0.%d' % (10 + number)


def _world(*more):
    """Return what there is in Neutron, as tests/oracle/worlds.py has it.

    :param more: rules
    """
    return {
        'ports': [_port(number) for number in _GUESTS],
        'stateful': {_GROUP: False, _OTHER_GROUP: False},
        'address_groups': {},
        'rules': [
            _rule(1, direction='egress'),
            _rule(2, _OTHER_GROUP, direction='egress'),
            _udp_rule(3, _MEMBERS, remote_group_id=_GROUP),
            _udp_rule(4, _SERVICE, remote_ip_prefix=_GATEWAY + '/32'),
            *more]}


class Frames:
    """All that is sent in a round, and where each frame comes out.

    :param guests: what holds each TAP, by its name
    """

    def __init__(self, guests):
        self._guests = guests
        self._frames = list(self._make())
        self._octets = [bytes(frame / (b'frame%03d.' % number))
                        for number, (_, frame) in enumerate(self._frames)]

    def _make(self):
        ends = {worlds.device(number): (worlds.mac(number), _ip(number))
                for number in _GUESTS}
        ends[_WIRE] = _WIRE_MAC, _GATEWAY
        for sender, source in ends.items():
            for receiver, target in ends.items():
                if sender != receiver:
                    for port in _MEMBERS, _SERVICE, _NOBODY:
                        yield sender, _udp(*source, *target, port)
            if sender == _WIRE:
                continue
            yield sender, _udp(source[0], _FALSE, *ends[_WIRE], _NOBODY)
            yield sender, _udp(_STRANGER, source[1], *ends[_WIRE], _NOBODY)
            yield sender, _udp(_SHARED_MAC, _SHARED, *ends[_WIRE], _NOBODY)
            for address in source[1], _FALSE:
                yield sender, l2.Ether(
                    src=source[0], dst=hosts.BROADCAST) / l2.ARP(
                        hwsrc=source[0], psrc=address, pdst=_GATEWAY)
            # As a DHCP server has it.
            yield sender, l2.Ether(
                src=source[0], dst=hosts.BROADCAST) / inet.IP(
                    src=source[1], dst='255.255.255.255') / inet.UDP(
                        sport=67, dport=68)

    def __iter__(self):
        return iter(range(len(self._frames)))

    def shown(self, number):
        sender, frame = self._frames[number]
        return '%s sends %s' % (sender, frame.summary())

    def send(self):
        """Return where each came out, by its number.

        Who writes to a TAP has the frame where it goes when he returns. Of one
        for somebody it counts whether he gets it: where the bridge forgets who
        is where, as when a port is not locked any more, it goes to all.
        """
        seen = {number: set() for number in self}
        for (sender, _), octets in zip(self._frames, self._octets):
            self._guests[sender].write(octets)
        for name, guest in self._guests.items():
            for octets in guest.waiting():
                _, found, rest = octets.partition(b'frame')
                if found and rest[3:4] == b'.' and (
                        octets[0] & 1
                        or octets[:6] == _octets(guest.mac)):
                    seen[int(rest[:3])].add(name)
        return seen


def _udp(source_mac, source, mac, address, port):
    return l2.Ether(src=source_mac, dst=mac) / inet.IP(
        src=source, dst=address) / inet.UDP(sport=4000, dport=port)


def _octets(mac):
    return bytes.fromhex(mac.replace(':', ''))


class Watch:
    """Sends all, again and again, and notes what becomes of it.

    :ivar rounds: how many there were
    :ivar wrong: what became of frames otherwise than it is to be, in words
    """

    def __init__(self, frames, wanted):
        self._frames, self.wanted = frames, wanted
        self.rounds, self.wrong = 0, []
        self._deaf = frozenset()
        self._done, self._turn = threading.Event(), threading.Condition()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exc_info):
        self._done.set()
        self._thread.join()

    def _run(self):
        while not self._done.is_set():
            seen = self._frames.send()
            with self._turn:
                self.wrong += [
                    '%s; comes to %s and should to %s' % (
                        self._frames.shown(number), sorted(seen[number]),
                        sorted(self.wanted[number]))
                    for number in seen
                    if seen[number] | self._deaf & self.wanted[number]
                    != self.wanted[number]]
                self.rounds += 1
                self._turn.notify_all()

    @contextlib.contextmanager
    def may_miss(self, *names):
        """Do not ask, as long as this lasts, what these guests get.

        What is to be dropped, and comes, is wrong as before.
        """
        with self._turn:
            self._deaf = frozenset(names)
        yield
        self.wait_for_a_round()
        with self._turn:
            self._deaf = frozenset()

    def wait_for_a_round(self):
        """Wait until one is over that has begun since."""
        with self._turn:
            until = self.rounds + 2
            if not self._turn.wait_for(lambda: self.rounds >= until,
                                       patience.HANG):
                raise AssertionError('nothing is sent any more')


@base.needs_locked_ports
@base.too_slow_emulated('hundreds of frames, again and again, and Neutron')
class ComingOverTest(base.FunctionalTestCase):

    def setUp(self):
        super().setUp()
        self.only_in_full()
        missing = driver.missing(ebtables=True)
        if missing:
            self.cannot_run(missing)
        # Who has pairs of other MACs, or no port security, can not be locked.
        self.configure(anti_spoofing='none', udev_timeout=0)
        index = self.host.add(_BRIDGE, 'bridge', br_mcast_snooping=0,
                              address='02:00:00:00:00:05').index
        self.host.quiet_ipv6(_BRIDGE)
        self.host.set(_BRIDGE, state='up')
        self.guests = {}
        for name, mac in ((_WIRE, _WIRE_MAC), *(
                (worlds.device(number), worlds.mac(number))
                for number in _GUESTS)):
            self.guests[name] = self.start_guest(name, mac, index)
        subprocess.run(['sh', '-ec', _OF_OTHERS], check=True)
        self.neutron = self.useFixture(driver.Driver(
            self.host, ebtables=True))
        self.told = self.neutron.apply(_world())
        self.frames = Frames(self.guests)

    def start_guest(self, name, mac, bridge):
        """Have one as libvirt does: its TAP goes with it, and nobody's is."""
        guest = hosts.Guest(name, mac)
        self.addCleanup(guest.close)
        self.host.quiet_ipv6(name)
        self.host.set(name, address='fe' + mac[2:], master=bridge, state='up')
        self.host.wait_until_forwarding(name)
        guest.write(hosts.frame(hosts.BROADCAST, mac, b'I am here'))
        return guest

    # The steps.

    def start_nova(self, firewall):
        """Have another daemon plug all guests."""
        base.privsep.vif_plug.stop()
        self.configure(firewall=firewall)
        self.start_daemon()
        for number in _GUESTS:
            self.plug(base.make_vif(
                id=worlds.vif_id(number), vif_name=worlds.device(number),
                address=worlds.mac(number), bridge_name=_BRIDGE))

    def feed(self, world, *numbers, is_all=True):
        """Have tapmac-agent say what Neutron says of these ports."""
        world = dict(world, ports=[
            port for port in world['ports']
            if port['id'] in map(worlds.vif_id, numbers)])
        ours.apply(dict(self.told, devices={
            name: device for name, device in self.told['devices'].items()
            if name in [port['id'] for port in world['ports']]}),
            worlds.details(world), is_all)

    def run_block(self, words):
        """Do what a block of the page says, with files of our own."""
        subprocess.run(['sh', '-ec', documents.block(
            documents.ROAD, words).replace('/root', self.directory)],
            check=True)

    # What is seen.

    def wanted(self):
        """Return what passes now, which some of it is known to do."""
        seen = self.frames.send()
        passed = {self.frames.shown(number) for number in seen
                  if seen[number]}
        for sender, to, port, passes in (
                (_ONE, _TWO, _MEMBERS, True), (_TWO, _ONE, _MEMBERS, True),
                (_SHARING, _TWO, _MEMBERS, True), (_ONE, _OPEN, _NOBODY, True),
                (_OUTSIDER, _ONE, _MEMBERS, False),
                (_OPEN, _ONE, _MEMBERS, False), (_ONE, _TWO, _NOBODY, False),
                (_ONE, _OUTSIDER, _MEMBERS, False)):
            shown = self.frames.shown(self.number(sender, to, port))
            self.assertEqual(passes, shown in passed, shown)
        return seen

    def number(self, sender, to, port):
        wanted = '%s sends %s' % (worlds.device(sender), _udp(
            worlds.mac(sender), _ip(sender), worlds.mac(to), _ip(to),
            port).summary())
        found, = (number for number in self.frames
                  if self.frames.shown(number) == wanted)
        return found

    def audit(self):
        """Return what an audit finds that asks for all bridges."""
        return audit.audit(
            inventory.read(self.options, all_bridges=True).with_answer(None),
            self.options)

    def findings(self):
        """Return code and device of what it says of filters."""
        return {(each.code, each.device) for each in self.audit()
                if each.code in _CODES}

    def groups(self):
        return {self.host.link(worlds.device(number)).group
                for number in _GUESTS}

    @contextlib.contextmanager
    def nothing_changes(self):
        """Expect the same of all that is sent, as long as this lasts."""
        with Watch(self.frames, self.wanted()) as watch:
            watch.wait_for_a_round()
            yield watch
            watch.wait_for_a_round()
        self.assertEqual([], watch.wrong[:10])
        print('%d rounds' % watch.rounds)

    def test_there_and_back(self):
        self.directory = self.useFixture(fixtures.TempDir()).path
        self.assertIn('neutron-linuxbri-sg-chain', self.rules())
        self.assertIn('neutronARP-' + worlds.device(_ONE), self.rules())
        with self.nothing_changes() as watch:
            before = self.rules()
            self.run_block('iptables-save >')
            self.have_both(watch)
            if patience.LONG:
                self.be_without_agent(watch)
                self.have_both(watch)
            self.clean_up(watch)
            self.run_block('iptables-restore < ')
            watch.wait_for_a_round()
            self.assertEqual(before, self.rules())
            self.assertEqual({('TM237', 'netfilter')}, self.findings())
            # Which the former rules do not let pass.
            self.allow(_NOBODY)
            self.feed(_world(), *_GUESTS)
            watch.wait_for_a_round()
            self.be_without_agent(watch)

    def have_both(self, watch):
        """Have tapmac-agent guard some guests, and then all."""
        self.assertEqual({('TM411', _BRIDGE)}, self.findings())
        self.start_nova('agent')
        self.assertEqual({_UNFILTERED}, self.groups())
        for number in _GUESTS:
            self.assertEqual(worlds.vif_id(number), mark.TapMark.parse(
                self.host.link(worlds.device(number)).alias).vif_id)
        watch.wait_for_a_round()
        for known in (), (_ONE, _OPEN):
            self.feed(_world(), *known)
            watch.wait_for_a_round()
            self.assertEqual({('TM411', _BRIDGE), *(
                ('TM235', worlds.device(each)) for each in _GUESTS
                if each not in known)}, self.findings())
        # Its pairs need a tc filter: the first on a link that is up has the
        # kernel exchange the link's queue, and drop what is sent there for as
        # long as it waits for others (dev_deactivate in qdisc_graft).
        with watch.may_miss(worlds.device(_SHARING)):
            self.feed(_world(), *_GUESTS)
        self.assertEqual({AGENT_GROUP}, self.groups())
        self.assertEqual({('TM237', 'netfilter')}, self.findings())

    def be_without_agent(self, watch):
        self.start_nova('none')
        self.assertEqual({_UNFILTERED}, self.groups())
        watch.wait_for_a_round()
        self.assertEqual({('TM411', _BRIDGE)}, self.findings())

    def clean_up(self, watch):
        """What the former agent left is gone, and nothing else."""
        self.run_block('iptables-save |')
        watch.wait_for_a_round()
        self.assertNotIn('neutron', self.rules())
        self.assertIn('192.0.2.1', self.rules())
        self.assertIn('eth9', self.rules())
        self.run_block('iptables=0')
        watch.wait_for_a_round()
        self.assertEqual(set(), self.findings())

    def rules(self):
        """Return those of others, without dates and counters."""
        return re.sub(r'(?m)^#.*\n|\[\d+:\d+\]', '', subprocess.run(
            ['sh', '-ec', 'iptables-save; ip6tables-save; ebtables-save'],
            check=True, capture_output=True, text=True).stdout)

    def allow(self, port):
        """Have one rule more in Neutron, which nobody tells iptables of."""
        rules = self.told['security_groups'][_GROUP]
        rule, = (each for each in rules
                 if each.get('port_range_min') == _MEMBERS)
        rules.append(dict(rule, port_range_min=port, port_range_max=port))
