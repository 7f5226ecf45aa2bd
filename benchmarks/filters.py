# SPDX-License-Identifier: Apache-2.0

"""What a frame costs from a guest to another, behind a filter or without.

Each filter is on a host of its own, with as many ports as there are: two of
them, in the middle of all, are held by guests, and one sends to the other what
a rule lets pass for members of their group. A frame is where it goes when the
call that sends it returns, so what it cost is the processor time of that.

No filter knows connections, but Neutron's, which iptables needs for that, and
one of ours, where the kernel has conntrack for bridges.
"""

import contextlib
import pathlib
import time
import typing

from scapy.layers import inet
from scapy.layers import l2

from tests import hosts
from tests.oracle import driver
from tests.oracle import ours
from tests.oracle import worlds
from vif_plug_tapmac.kernel import agent_connections
from vif_plug_tapmac.kernel import guest_filter
from vif_plug_tapmac.kernel import netlink as nl
from vif_plug_tapmac import mark
from vif_plug_tapmac.wanted import rules

#: How many security groups there are, with at least two ports in each.
_GROUPS = 50
#: How many frames are sent before the guest takes them: they are in a queue.
_AT_ONCE = 200
#: Who is measured.
WITHOUT, FULL_FEW, FULL, FEW, MANY, CONNECTIONS, NEUTRON = NAMES = (
    'no filter', 'full, few ports', 'full', 'tapmac, few ports', 'tapmac',
    'tapmac, stateful', 'Neutron 29, iptables')
_BRIDGE = 'brq' + worlds.NETWORK_ID[:11]
_NUD_NOARP, _NTF_MASTER = 0x40, 0x04
#: The link groups of TAPs whose guests are kept to their MACs, to their
#: addresses, and to what an agent says.
_GROUP, _FILTERED_GROUP, _AGENT_GROUP = 29793, 29795, 29796


def _mac(number: int) -> str:
    return 'fa:16:3e:00:%02x:%02x' % divmod(number + 1, 256)


def _address(number: int) -> str:
    return '10.%d.%d.%d' % (1, *divmod(number + 1, 250))


def world(count: int, groups: int) -> worlds.World:
    """Return a world with so many ports, all of this host."""
    names = ['%08x-0000-4000-8000-000000000000' % (0xa0000 + number)
             for number in range(groups)]
    rule = {'protocol': None, 'port_range_min': None, 'port_range_max': None,
            'remote_ip_prefix': None, 'normalized_cidr': None,
            'remote_group_id': None, 'remote_address_group_id': None,
            'ethertype': 'IPv4', 'direction': 'ingress'}
    return {
        'ports': [{
            'id': '%08x-0000-4000-8000-000000000000' % (number + 1),
            'device': worlds.device(number), 'mac_address': _mac(number),
            'network_id': worlds.NETWORK_ID, 'device_owner': 'compute:nova',
            'port_security_enabled': True, 'allowed_address_pairs': [],
            'fixed_ips': [{'ip_address': _address(number)}],
            'security_groups': [names[number % groups]]}
            for number in range(count)],
        'rules': [dict(rule, security_group_id=name, **more)
                  for name in names for more in (
            {'direction': 'egress'},
            {'direction': 'egress', 'ethertype': 'IPv6'},
            {'protocol': 'tcp', 'port_range_min': 22, 'port_range_max': 22},
            {'protocol': 'icmp'},
            {'protocol': 'tcp', 'port_range_min': 8000,
             'port_range_max': 8999, 'remote_ip_prefix': '192.0.2.0/24'},
            {'remote_group_id': name})],
        'stateful': dict.fromkeys(names, True), 'address_groups': {}}


def told(world: worlds.World) -> dict[str, typing.Any]:
    """Return what Neutron's RPC tells an agent of a world."""
    members: dict[str, list[list[str | None]]] = {}
    for port in world['ports']:
        for group in port['security_groups']:
            members.setdefault(group, []).append(
                [port['fixed_ips'][0]['ip_address'], None])
    groups: dict[str, list[dict[str, typing.Any]]] = {}
    for rule in world['rules']:
        groups.setdefault(rule['security_group_id'], []).append(dict(
            rule, source_ip_prefix=rule['remote_ip_prefix'], stateful=True))
    return {'devices': {port['id']: port for port in world['ports']},
            'security_groups': groups,
            'sg_member_ips': {group: {'IPv4': each}
                              for group, each in members.items()}}


class Filtered:
    """A host with a filter, and two guests in the middle of all ports.

    :param name: of those above
    :param count: of ports
    """

    def __init__(self, name: str, count: int,
                 closing: contextlib.ExitStack) -> None:
        self._count = count
        groups = min(_GROUPS, self._count // 2)
        # Two of one group.
        middle = (self._count - groups) // 2
        self._ends = middle, middle + groups
        self.host = closing.enter_context(hosts.Host())
        self._call_iptables(name == NEUTRON)
        self._lay_network(name not in (WITHOUT, NEUTRON))
        self._guests = [closing.enter_context(contextlib.closing(
            hosts.Guest(worlds.device(number)))) for number in self._ends]
        for number in self._ends:
            self._settle(number)
        self._have_filter(name, world(self._count, groups), closing)
        self._frame = bytes(
            l2.Ether(src=_mac(self._ends[0]), dst=_mac(self._ends[1]))
            / inet.IP(src=_address(self._ends[0]), dst=_address(self._ends[1]))
            / inet.UDP(sport=1000, dport=2000) / bytes(64))
        if self._send(1) != 1:
            raise RuntimeError('%s: no frame gets through' % name)

    def _call_iptables(self, calls: bool) -> None:
        for family in 'iptables', 'ip6tables', 'arptables':
            with contextlib.suppress(FileNotFoundError):
                pathlib.Path('/proc/sys/net/bridge/bridge-nf-call-' + family
                             ).write_text(str(int(calls)))

    def _lay_network(self, all_taps: bool) -> None:
        host = self.host
        host.add(_BRIDGE, 'bridge', br_mcast_snooping=0)
        host.quiet_ipv6(_BRIDGE)
        bridge = host.set(_BRIDGE, state='up').index
        for number in range(self._count) if all_taps else self._ends:
            name = worlds.device(number)
            host.add_tap(name)
            host.quiet_ipv6(name)
            host.set(name, master=bridge, state='up')

    def _settle(self, number: int) -> None:
        name = worlds.device(number)
        self.host.wait_until_forwarding(name)
        self.host.ip.fdb('replace', ifindex=self.host.link(name).index,
                         lladdr=_mac(number), state=_NUD_NOARP,
                         flags=_NTF_MASTER)

    def _have_filter(self, name: str, wanted: worlds.World,
                     closing: contextlib.ExitStack) -> None:
        if name == NEUTRON:
            closing.enter_context(driver.Driver(self.host)).apply(wanted)
        elif name in (FULL_FEW, FULL):
            self._keep_to_addresses(wanted)
        elif name != WITHOUT:
            for port in wanted['ports']:
                self.host.set(port['device'], group=_AGENT_GROUP, ifalias=str(
                    mark.TapMark(port['id'], port['mac_address'], _BRIDGE, 1)))
            with self.host.here():
                ours.apply(told(wanted), [], stateful=name == CONNECTIONS)

    def _keep_to_addresses(self, wanted: worlds.World) -> None:
        """Do for each port what a plug with anti_spoofing = full does."""
        filtering = guest_filter.GuestFilter()
        with self.host.here(), nl.Netlink() as netlink:
            for port in wanted['ports']:
                filtering.put(
                    netlink, self.host.link(port['device']).index,
                    rules.of_port(port['id'], port['mac_address'], [
                        each['ip_address'] for each in port['fixed_ips']]),
                    _FILTERED_GROUP, _GROUP)
        for port in wanted['ports']:
            self.host.set(port['device'], group=_FILTERED_GROUP)

    def _send(self, count: int) -> int:
        """Send so many frames; return how many there are on the other side."""
        guest, other = self._guests
        for _ in range(count):
            guest.write(self._frame)
        return sum(octets == self._frame for octets in other.waiting())

    def cost(self, count: int) -> float:
        """Return the processor time of a frame, in seconds."""
        spent = 0.0
        guest, other = self._guests
        for _ in range(count // _AT_ONCE):
            start = time.thread_time()
            for _ in range(_AT_ONCE):
                guest.write(self._frame)
            spent += time.thread_time() - start
            other.waiting()
        return spent / (count // _AT_ONCE * _AT_ONCE)

    def rule(self, turns: int) -> list[float]:
        """Return what one more rule costs each time, in processor seconds.

        Of a group that all ports are in, besides those that they had, so that
        each is a member of it.
        """
        wanted = world(self._count, min(_GROUPS, self._count // 2))
        group = '%08x-0000-4000-8000-000000000000' % 0xb0000
        rule = dict(wanted['rules'][-1], security_group_id=group)
        for port in wanted['ports']:
            port['security_groups'].append(group)
        wanted['rules'].append(dict(rule, remote_group_id=group))
        found = []
        with self.host.here():
            ours.apply(told(wanted), [])
            for number in range(1, turns + 1):
                wanted['rules'].append(dict(
                    rule, remote_group_id=group, protocol='tcp',
                    port_range_min=number, port_range_max=number))
                change = dict(told(wanted), devices={})
                change['security_groups'] = {
                    group: change['security_groups'][group]}
                start = time.process_time()
                ours.apply(change, [], is_all=False)
                found.append(time.process_time() - start)
        return found


def costs(ports: typing.Mapping[str, int], turns: int, frames: int,
          say: typing.Callable[[str], None],
          ) -> tuple[dict[str, list[float]], list[float]]:
    """Return what a frame costs behind each, in each turn, in seconds.

    And what one more rule costs, of a group that all of many ports are in.

    :param ports: how many there are, by the name of each
    :param frames: how many are sent in a turn
    """
    found: dict[str, list[float]] = {}
    missing = {NEUTRON: driver.missing(), CONNECTIONS: (
        None if agent_connections.is_possible()
        else 'this kernel has no conntrack for bridges')}
    with contextlib.ExitStack() as closing:
        ready = {}
        for name, count in ports.items():
            if missing.get(name):
                say('Without %s: %s.' % (name, missing[name]))
                continue
            say('%s: %d ports' % (name, count))
            ready[name] = Filtered(name, count, closing)
        names = list(ready)
        for _ in range(turns):
            for name in names:
                found.setdefault(name, []).append(ready[name].cost(frames))
            names.append(names.pop(0))
        return found, ready[MANY].rule(turns)
