# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""What is wrong with bridges, TAPs and the host: findings with stable codes.

Each code has a section in "Audit codes" of the documentation.
"""

import collections
import contextlib
import dataclasses
import enum
import importlib.metadata
import os
import time
import typing

from oslo_config import cfg

from vif_plug_tapmac import exception
from vif_plug_tapmac.host import inventory
from vif_plug_tapmac.host import link_files
from vif_plug_tapmac.host import selinux
from vif_plug_tapmac.kernel import bridge_health
from vif_plug_tapmac.kernel import link as link_data
from vif_plug_tapmac.kernel.link import Link
from vif_plug_tapmac.kernel import netlink as nl
from vif_plug_tapmac.kernel import nftables
from vif_plug_tapmac.kernel import source_filter
from vif_plug_tapmac.kernel import tun
from vif_plug_tapmac.kernel import udev
from vif_plug_tapmac import mac
from vif_plug_tapmac.wanted import from_config
from vif_plug_tapmac.wanted import names

_SYSCTLS = '/proc/sys/net/ipv4/conf'


class Severity(enum.IntEnum):
    """How bad it is; the number is the exit status of an audit."""
    WARNING = 10
    ERROR = 20

    def __str__(self) -> str:
        return self.name.lower()


#: What each code means. A code is never used for something else again.
CODES: dict[str, tuple[Severity, str]] = {
    'TM101': (Severity.WARNING, 'The MAC of a bridge is not fixed'),
    'TM102': (Severity.WARNING, 'A bridge is half-made'),
    'TM103': (Severity.ERROR, 'A bridge is down'),
    'TM104': (Severity.WARNING, 'A bridge runs STP with a delay'),
    'TM105': (Severity.WARNING, 'A bridge is nearly full'),
    'TM106': (Severity.WARNING, 'A bridge lacks its uplink'),
    'TM107': (Severity.WARNING, 'Guests can give the host IPv6 routes'),
    'TM108': (Severity.WARNING, 'The MTU of a bridge is too small'),
    'TM109': (Severity.WARNING, 'A bridge of tapmac was changed'),
    'TM201': (Severity.WARNING, 'The MAC of a TAP is not that of its guest'),
    'TM202': (Severity.ERROR, 'A TAP has the MAC of its own guest'),
    'TM203': (Severity.ERROR, 'The MAC of a guest is that of another TAP'),
    'TM204': (Severity.ERROR, 'A TAP is open to every user'),
    'TM205': (Severity.ERROR, 'Somebody else holds the TAP of a guest'),
    'TM206': (Severity.ERROR, 'A TAP is on no bridge'),
    'TM207': (Severity.ERROR, 'A TAP is down'),
    'TM208': (Severity.WARNING, 'The MTU of a TAP is too small'),
    'TM209': (Severity.WARNING, 'A TAP has IPv6 or IPv4 of the host'),
    'TM210': (Severity.WARNING, 'A TAP is left over'),
    'TM211': (Severity.WARNING, 'Mark and link group do not match'),
    'TM212': (Severity.ERROR, 'A TAP has the wrong queue mode'),
    'TM213': (Severity.WARNING, 'A TAP has another owner than configured'),
    'TM214': (Severity.ERROR, 'A guest is not kept to its MAC'),
    'TM215': (Severity.WARNING, 'The port of a TAP is not as configured'),
    'TM301': (Severity.WARNING, 'The firewall stands between guests'),
    'TM302': (Severity.WARNING, 'A udev that is not seen rewrites MACs'),
    'TM303': (Severity.ERROR, 'Two os-vif plugins have one name'),
    'TM304': (Severity.WARNING, 'SELinux lacks the rule for TAPs'),
    'TM305': (Severity.ERROR, 'The TUN device is missing'),
    'TM306': (Severity.WARNING, 'No bridge can be made here'),
    'TM307': (Severity.ERROR, 'The configuration can not be used'),
    'TM308': (Severity.ERROR, 'Guests can reach this host'),
}


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    :param code: of :data:`CODES`
    :param device: what it concerns: a link's name, a path, a plugin
    :param evidence: what was seen
    :param remedy: what the operator can do
    """
    code: str
    device: str
    evidence: str
    remedy: str

    @property
    def severity(self) -> Severity:
        return CODES[self.code][0]

    @property
    def meaning(self) -> str:
        return CODES[self.code][1]

    @property
    def mendable(self) -> bool:
        """Whether "tapmac repair" mends it, and disturbs no guest by it."""
        return self.remedy == _REPAIR


_Findings = typing.Iterator[Finding]
_REPAIR = 'tapmac repair'
#: How old a TAP is, in seconds, before it can be left over: its domain may
#: still be on the way, from Nova or from the host that it migrates from.
GRACE = 600.0
_REBOOT = ('hard reboot the instance, or detach and attach the interface')


def audit(seen: inventory.Inventory,
          config: cfg.ConfigOpts.GroupAttr) -> list[Finding]:
    """Return what is wrong, bridges first, then TAPs, then the host.

    :param config: the ``[os_vif_tapmac]`` group
    """
    return [*audit_links(seen), *audit_host(config)]


def audit_links(seen: inventory.Inventory) -> list[Finding]:
    """Return what is wrong with bridges and TAPs."""
    found: list[Finding] = []
    for bridge in seen.bridges:
        if seen.is_ours(bridge) and bridge.alias is None:
            found.append(Finding(
                'TM102', bridge.name, 'it is in link group %d and has no '
                'alias' % bridge.group, _REPAIR))
            continue
        for check in _BRIDGE_CHECKS:
            found.extend(check(seen, bridge))
    holders = _holders_by_bridge(seen)
    for tap in seen.taps:
        if not tap.is_being_made:
            for check_tap in _TAP_CHECKS:
                found.extend(check_tap(seen, tap))
            found.extend(_clash(tap, holders))
    found.extend(_strangers_in_group(seen))
    return found


def audit_host(config: cfg.ConfigOpts.GroupAttr) -> list[Finding]:
    """Return what is wrong with the host beside its links."""
    return [finding for check in _HOST_CHECKS for finding in check(config)]


def _fixed_mac(seen: inventory.Inventory, bridge: Link) -> _Findings:
    if bridge_health.is_pinned(bridge) is not False:
        return
    macs = {port.name: str(port.mac) for port in seen.ports(bridge)}
    holder = next((name for name in macs if macs[name] == bridge.mac), None)
    if holder is None:
        evidence = 'it becomes that of the first port that joins'
    else:
        others = [macs[name] for name in macs if name != holder]
        evidence = 'it is that of %s; when that leaves, it becomes %s' % (
            holder, min(others, default='00:00:00:00:00:00'))
    yield Finding(
        'TM101', bridge.name, '%s: %s' % (bridge.mac, evidence),
        '"ip link set %s address %s", and the same in the network '
        'configuration of this host' % (bridge.name, bridge.mac))


def _down(seen: inventory.Inventory, bridge: Link) -> _Findings:
    if not bridge.up:
        yield Finding(
            'TM103', bridge.name, 'no guest on it has a network',
            _REPAIR if seen.is_ours(bridge) else
            '"ip link set %s up", and the same in the network configuration '
            'of this host' % bridge.name)


def _stp(seen: inventory.Inventory, bridge: Link) -> _Findings:
    if bridge.stp and bridge.forward_delay:
        yield Finding(
            'TM104', bridge.name,
            'each guest waits %.0f s for its network'
            % (2 * bridge.forward_delay / 100),
            '"ip link set %s type bridge stp_state 0"' % bridge.name)


def _nearly_full(seen: inventory.Inventory, bridge: Link) -> _Findings:
    count = len(seen.ports(bridge))
    if count >= bridge_health.NEARLY_ALL_PORTS:
        yield Finding(
            'TM105', bridge.name,
            '%d ports of %d' % (count, bridge_health.PORTS),
            'move guests to another bridge or host')


def _uplink(seen: inventory.Inventory, bridge: Link) -> _Findings:
    uplink = seen.uplinks and seen.uplinks.of(bridge.name)
    if uplink and uplink not in (port.name for port in seen.ports(bridge)):
        yield Finding(
            'TM106', bridge.name, 'bridge_uplinks has %s, which is no port of '
            'it' % uplink,
            '"ip link set %s master %s", if no other port of it leads to the '
            'same wire' % (uplink, bridge.name))


def _router_advertisements(seen: inventory.Inventory,
                           bridge: Link) -> _Findings:
    if bridge.takes_ra:
        sysctl = 'net/ipv6/conf/%s' % bridge.name  # A name may have dots.
        yield Finding(
            'TM107', bridge.name, 'IPv6 is on, and router advertisements are '
            'accepted from its ports',
            '"sysctl %s/disable_ipv6=1", or "sysctl %s/accept_ra=0" where the '
            'host needs IPv6 on it, and the same in /etc/sysctl.d'
            % (sysctl, sysctl))


def _bridge_mtu(seen: inventory.Inventory, bridge: Link) -> _Findings:
    larger = [port for port in seen.ports(bridge)
              if port.is_tap and port.mtu > bridge.mtu]
    if larger:
        yield Finding(
            'TM108', bridge.name, 'it is %d, and that of %s is %d'
            % (bridge.mtu, larger[0].name, larger[0].mtu),
            '"ip link set %s mtu %d", and the same in the network '
            'configuration of this host'
            % (bridge.name, max(port.mtu for port in larger)))


def _changed(seen: inventory.Inventory, bridge: Link) -> _Findings:
    made = {'arp_ignore': 1, 'multicast_snooping': False}
    if seen.is_ours(bridge) and bridge.differences(made):
        yield Finding(
            'TM109', bridge.name, bridge.explain(made),
            '"sysctl net/ipv4/conf/%s/arp_ignore=1", "ip link set %s type '
            'bridge mcast_snooping 0", unless this host wants it so'
            % (bridge.name, bridge.name))


def _tap_mac(seen: inventory.Inventory, tap: inventory.Tap) -> _Findings:
    guest_mac = tap.guest_mac
    if guest_mac is None:
        return
    right = [mac.tap_mac(guest_mac), *mac.alternate_tap_macs(guest_mac)]
    remedy = (_REPAIR if tap.mark is not None
              else '"ip link set %s address %s"' % (tap.link.name, right[0]))
    if tap.link.mac == guest_mac:
        yield Finding(
            'TM202', tap.link.name, 'both have %s: no unicast frame reaches '
            'the guest through a bridge' % guest_mac, remedy)
    elif tap.link.mac not in right:
        yield Finding(
            'TM201', tap.link.name, 'it is %s, and should be %s for guest %s'
            % (tap.link.mac, right[0], guest_mac), remedy)


def _holders_by_bridge(
        seen: inventory.Inventory) -> dict[tuple[int, str], str]:
    """Return which port of a bridge has a MAC itself."""
    return {(link.master, str(link.mac)): link.name
            for link in seen.links.values() if link.master is not None}


def _clash(tap: inventory.Tap,
           holders: dict[tuple[int, str], str]) -> _Findings:
    if tap.bridge is None or tap.link.mac == tap.guest_mac:
        return
    holder = holders.get((tap.bridge.index, str(tap.guest_mac)))
    if holder is not None:
        yield Finding(
            'TM203', tap.link.name, 'its guest has %s, and so has %s, another '
            'port of %s: nobody reaches this guest'
            % (tap.guest_mac, holder, tap.bridge.name),
            # Plugged again, it has the other TAP give way.
            _REPAIR if tap.mark is not None else
            'give one of them another MAC')


def _open_to_all(seen: inventory.Inventory, tap: inventory.Tap) -> _Findings:
    # Of one queue, whoever holds it keeps all others out.
    if tap.link.owner is None and (tap.link.multi_queue or not tap.link.held):
        yield Finding(
            'TM204', tap.link.name, 'it has no owner, so that every user of '
            'this host can attach to the guest\'s network',
            _REPAIR if tap.mark is not None and not tap.link.held
            else _REBOOT if tap.mark is not None
            else 'have it made by tapmac; if nothing uses it, "ip link delete '
            '%s"' % tap.link.name)


def _strange_holder(seen: inventory.Inventory,
                    tap: inventory.Tap) -> _Findings:
    if tap.nic is None:
        return
    holders = tap.link.queues or (1 if tap.link.held else 0)
    queues = tap.nic.queues if tap.nic.active else 0
    if holders > queues:
        yield Finding(
            'TM205', tap.link.name, '%d queues are attached, and domain %s '
            'has %d' % (holders, tap.nic.domain, queues),
            'find out by whom: "grep -l %s /proc/[0-9]*/fdinfo/*" as root '
            'names the processes' % tap.link.name)


def _off_bridge(seen: inventory.Inventory, tap: inventory.Tap) -> _Findings:
    if tap.bridge is None:
        yield Finding(
            'TM206', tap.link.name, 'its guest has no network',
            'restart nova-compute, or "%s --bridge <bridge> %s"'
            % (_REPAIR, tap.link.name))


def _tap_down(seen: inventory.Inventory, tap: inventory.Tap) -> _Findings:
    if not tap.link.up:
        yield Finding(
            'TM207', tap.link.name, 'its guest has no network',
            _REPAIR if tap.mark is not None
            else '"ip link set %s up"' % tap.link.name)


def _tap_mtu(seen: inventory.Inventory, tap: inventory.Tap) -> _Findings:
    if tap.bridge is not None and tap.link.mtu < tap.bridge.mtu:
        yield Finding(
            'TM208', tap.link.name, 'it is %d, and that of %s is %d: larger '
            'frames to the guest are lost'
            % (tap.link.mtu, tap.bridge.name, tap.bridge.mtu),
            'have the same MTU for the network in Neutron and for the bridge')


def _addresses(seen: inventory.Inventory, tap: inventory.Tap) -> _Findings:
    wrong = ['has %s' % ', '.join(tap.addresses)] if tap.addresses else []
    if (tap.mark is not None
            and tap.link.addr_gen_mode not in (None, link_data.ADDR_GEN_NONE)):
        wrong.append('gets a link-local address when it comes up')
    if wrong:
        yield Finding(
            'TM209', tap.link.name, 'it ' + ' and '.join(wrong),
            _REPAIR if tap.mark is not None
            and tap.link.addr_gen_mode != link_data.ADDR_GEN_NONE
            else '"ip address flush dev %s"' % tap.link.name)


def is_orphan(seen: inventory.Inventory, tap: inventory.Tap,
              grace: float = GRACE) -> bool:
    """Return whether this TAP of ours belongs to no domain of libvirt.

    False also where libvirt does not answer.

    :param grace: how old it is then at least, in seconds
    """
    return (seen.nics is not None and tap.mark is not None
            and tap.nic is None and time.time() - tap.mark.made >= grace)


def _left_over(seen: inventory.Inventory, tap: inventory.Tap) -> _Findings:
    if is_orphan(seen, tap):
        yield Finding(
            'TM210', tap.link.name, 'no domain of libvirt has it%s' % (
                ', but a process holds it' if tap.link.held else ''),
            'tapmac purge' + (' --force' if tap.link.held else ''))


def _group(seen: inventory.Inventory, tap: inventory.Tap) -> _Findings:
    if tap.mark is not None and tap.link.group != seen.link_group:
        yield Finding(
            'TM211', tap.link.name, 'it carries our mark, and is in link '
            'group %d instead of %d' % (tap.link.group, seen.link_group),
            _REPAIR)


def _strangers_in_group(seen: inventory.Inventory) -> _Findings:
    marked = {tap.link.index for tap in seen.taps if tap.mark is not None}
    for link in seen.links.values():
        if link.group == seen.link_group and link.index not in marked:
            yield Finding(
                'TM211', link.name, 'it is in link group %d without our mark'
                % link.group, '"ip link set %s group default"' % link.name)


def _queue_mode(seen: inventory.Inventory, tap: inventory.Tap) -> _Findings:
    if (tap.nic is not None and not tap.link.held
            and (tap.nic.queues > 1) != tap.link.multi_queue):
        yield Finding(
            'TM212', tap.link.name, 'domain %s has %d queues, and the TAP is '
            '%s: it can not start' % (
                tap.nic.domain, tap.nic.queues,
                'multi-queue' if tap.link.multi_queue else 'single-queue'),
            _REPAIR)


def _owner(seen: inventory.Inventory, tap: inventory.Tap) -> _Findings:
    if (tap.mark is not None and tap.link.owner is not None and seen.wanted
            and tap.link.owner != seen.wanted['owner']):
        yield Finding(
            'TM213', tap.link.name, 'it is uid %d, and [os_vif_tapmac] owner '
            'is uid %d' % (tap.link.owner, seen.wanted['owner']),
            _REBOOT if tap.link.held else _REPAIR)


def _guard(seen: inventory.Inventory, tap: inventory.Tap) -> _Findings:
    if (not seen.wanted or seen.wanted['anti_spoofing'] == 'none'
            or tap.bridge is None or tap.guest_mac is None):
        return
    fixed = (tap.link.index, tap.guest_mac) in seen.fixed_macs
    if tap.link.locked and not tap.link.learning and fixed:
        return
    if not tap.link.locked and _is_filtered(seen, tap, tap.guest_mac):
        return
    if not tap.link.locked:
        evidence = 'its guest can send from any MAC: the port is not locked'
    elif not fixed:
        if tap.guest_mac in [port.mac for port in seen.ports(tap.bridge)]:
            return  # Which is why: TM202 or TM203.
        evidence = ('its guest has no network: the port is locked, and the '
                    'FDB of %s does not have %s there for good'
                    % (tap.bridge.name, tap.guest_mac))
    else:
        evidence = 'its port learns the MACs that it is to be kept from'
    yield Finding('TM214', tap.link.name, evidence,
                  _REPAIR if tap.mark is not None else 'start nova-compute '
                  'again, which plugs each guest')


def _is_filtered(seen: inventory.Inventory, tap: inventory.Tap,
                 guest_mac: str) -> bool:
    if not seen.wanted or seen.wanted['arriving_guests'] != 'filter':
        return False
    with nl.Netlink() as netlink:
        return source_filter.is_there(netlink, tap.link, guest_mac)


def _port_options(seen: inventory.Inventory,
                  tap: inventory.Tap) -> _Findings:
    if tap.mark is None or tap.bridge is None or not seen.wanted:
        return
    wanted = {field: seen.wanted['port_' + field] for field in (
        'isolated', 'flood_unicast', 'flood_multicast', 'hairpin')}
    if tap.link.differences(wanted):
        yield Finding('TM215', tap.link.name, tap.link.explain(wanted),
                      _REPAIR)


def _firewall(config: cfg.ConfigOpts.GroupAttr) -> _Findings:
    if bridge_health.passes_netfilter():
        yield Finding(
            'TM301', 'bridge-nf-call-iptables', 'it is 1: what guests send to '
            'each other by IPv4 passes the FORWARD chain of this host',
            '"sysctl net.bridge.bridge-nf-call-iptables=0", and the same in '
            '/etc/sysctl.d, unless the firewall is meant for guests')


def hidden_udev(config: cfg.ConfigOpts.GroupAttr) -> _Findings:
    """Look for a udev that can rewrite MACs after a plug (TM302)."""
    path = link_files.file_that_rewrites()
    if path is not None and not (udev.is_running() and config.udev_timeout):
        yield Finding(
            'TM302', path, 'it has MACAddressPolicy=persistent for TAPs, and '
            '%s' % ('udev_timeout is 0' if udev.is_running() else 'there is '
                    'no /run/udev to see by when udev is done'),
            'show /run/udev of the host to nova-compute, and wait for it '
            '(udev_timeout); or have a .link file with MACAddressPolicy=none '
            'for TAPs that comes first')


def rivals(config: cfg.ConfigOpts.GroupAttr) -> _Findings:
    """Look for plugins of one name, of which one wins by chance (TM303)."""
    plugins = collections.defaultdict(set)
    for entry_point in importlib.metadata.entry_points(group='os_vif'):
        plugins[entry_point.name].add(entry_point.value)
    for name, found in plugins.items():
        if len(found) > 1 and name in ('tapmac', *names.CLAIMABLE):
            yield Finding(
                'TM303', name, 'os-vif finds %s'
                % ' and '.join(sorted(found)),
                'remove all but one of these packages')


def _selinux(config: cfg.ConfigOpts.GroupAttr) -> _Findings:
    refused = selinux.refusal()
    if refused is not None:
        yield Finding(
            'TM304', 'SELinux', refused,
            'load the module of "Deploying with Nova", SELinux')


def _tun_device(config: cfg.ConfigOpts.GroupAttr) -> _Findings:
    if not os.path.exists(tun.TUN_DEVICE):
        yield Finding('TM305', tun.TUN_DEVICE, 'it is missing',
                      'modprobe tun; in a container, pass the device in')


def _sysctls(config: cfg.ConfigOpts.GroupAttr) -> _Findings:
    if (config.create_bridge and os.path.isdir(_SYSCTLS)
            and os.statvfs(_SYSCTLS).f_flag & os.ST_RDONLY):
        yield Finding(
            'TM306', _SYSCTLS, 'it is mounted read-only, and create_bridge '
            'is on', 'mount it writable, or have the host make the bridges '
            'and switch create_bridge off')


def _configuration(config: cfg.ConfigOpts.GroupAttr) -> _Findings:
    try:
        from_config.port_fields(config)
        from_config.uplinks(config)
    except (exception.InvalidConfig, cfg.ConfigFileValueError) as error:
        yield Finding('TM307', '[os_vif_tapmac]', str(error),
                      'correct nova.conf')


def _shield(config: cfg.ConfigOpts.GroupAttr) -> _Findings:
    # Whoever may not ask the kernel does not know, and nothing is said.
    with contextlib.suppress(exception.KernelRefused):
        if config.host_shield and not nftables.is_host_shielded(
                config.link_group):
            yield Finding(
                'TM308', 'nftables', 'host_shield is on, and no rule in the '
                'table bridge %s drops what link group %d sends to this host'
                % (nftables.SHIELD, config.link_group),
                'start nova-compute again, which plugs each guest, or plug '
                'one by hand; and find what flushes the rules')


_BRIDGE_CHECKS = (_fixed_mac, _down, _stp, _nearly_full, _uplink,
                  _router_advertisements, _bridge_mtu, _changed)
_TAP_CHECKS = (_tap_mac, _open_to_all, _strange_holder, _off_bridge,
               _tap_down, _tap_mtu, _addresses, _left_over, _group,
               _queue_mode, _owner, _guard, _port_options)
_HOST_CHECKS = (_firewall, hidden_udev, rivals, _selinux, _tun_device,
                _sysctls, _configuration, _shield)
