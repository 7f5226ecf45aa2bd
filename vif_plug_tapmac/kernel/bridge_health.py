# SPDX-License-Identifier: Apache-2.0

"""What is unsafe about a bridge: found, and said once."""

import logging
import os
import time

from vif_plug_tapmac.kernel import link as link_data
from vif_plug_tapmac.kernel.link import Link
from vif_plug_tapmac.kernel import nftables
from vif_plug_tapmac.wanted.port import TapPort

LOG = logging.getLogger(__name__)

#: How many ports a bridge can have, and how many are nearly as many.
#: Source: net/bridge/br_private.h, BR_PORT_BITS
PORTS, NEARLY_ALL_PORTS = 1023, 1000
#: What has bridged packets pass the host's firewall: the switch for all
#: bridges, in /proc/sys/net/bridge, and the field of a bridge for itself.
SWITCHES = {nftables.IPV4: 'bridge-nf-call-iptables',
            nftables.IPV6: 'bridge-nf-call-ip6tables'}
OWN_SWITCHES = {nftables.IPV4: 'nf_call_iptables',
                nftables.IPV6: 'nf_call_ip6tables'}

#: What was said of which bridge, so that it is said once.
_warned: set[tuple[int, str, str]] = set()
#: Among it, that the firewall of the host was looked at.
_LOOKED = 0, '', 'netfilter'


def first_time(link: Link, about: str) -> bool:
    """Return whether this was not said of this bridge before."""
    key = link.index, link.name, about
    if key in _warned:
        return False
    _warned.add(key)
    return True


def warn_of_anothers(link: Link) -> None:
    """Say what is unsafe about a bridge that somebody else made, each once."""
    if not link.up and first_time(link, 'down'):
        LOG.warning('Bridge %s is down: no guest on it has a network. '
                    'Remedy: "ip link set %s up", and the same in the '
                    'network configuration of this host.',
                    link.name, link.name)
    if link.stp and link.forward_delay and first_time(link, 'STP'):
        LOG.warning('Bridge %s runs STP with a forward delay: each guest '
                    'waits %.0f s for its network. Remedy: "ip link set %s '
                    'type bridge stp_state 0".', link.name,
                    2 * link.forward_delay / 100, link.name)
    # Looked at once: it takes three files to tell.
    if first_time(link, 'MAC') and is_pinned(link) is False:
        LOG.warning('Bridge %s has no fixed MAC: it changes as guests come '
                    'and go, and cuts off for many seconds whoever talks to '
                    'this host through it. Remedy: "ip link set %s address '
                    '%s", and the same in the network configuration of this '
                    'host.', link.name, link.name, link.mac)


def warn_of_group(link: Link, bridge_group: int) -> None:
    """Say once that a bridge of ours is in the group of other services."""
    if first_time(link, 'group %d of %d' % (link.group, bridge_group)):
        LOG.warning('Bridge %s of tapmac is in link group %d, and '
                    'bridge_group is %d. It stays there: it may be another '
                    'service\'s of this host. Remedy: the same bridge_group '
                    'for all services; then "tapmac repair %s".', link.name,
                    link.group, bridge_group, link.name)


def warn_about_mtu(link: Link, port: TapPort) -> None:
    if (port.mtu is not None and link.mtu < port.mtu
            and first_time(link, 'MTU %d of %d' % (link.mtu, port.mtu))):
        LOG.warning('Bridge %s has MTU %d, and the network of %s has %d: this '
                    'host and its guests lose larger frames to each other. '
                    'Remedy: %s, and the same in the network configuration of '
                    'this host.', link.name, link.mtu, port.name, port.mtu,
                    larger_mtu(link, port.mtu))


def larger_mtu(link: Link, mtu: int) -> str:
    """Return the command, in quotes, that gives a bridge a larger MTU.

    Where it had none for IPv6, it gets IPv6 with it, and a guest's router
    advertisement would give this host a default route.
    """
    command = 'ip link set %s mtu %d' % (link.name, mtu)
    if link.mtu < link_data.IPV6_MTU_MIN <= mtu:
        command += ' && sysctl net/ipv6/conf/%s/disable_ipv6=1' % link.name
    return '"%s"' % command


def warn_about_netfilter(link: Link, ours: bool) -> None:
    """Say which chains drop what guests on a bridge send to each other.

    :param ours: whether tapmac made it, and has its own switches off
    """
    for what, chain in _firewall.chains().items():
        remedy = _how_to_pass_by(what, link, ours)
        if remedy and first_time(link, 'chain %s %s %s' % (what, chain,
                                                           remedy)):
            LOG.warning('Bridge %s: what guests send to each other by %s '
                        'passes the firewall of this host, whose chain %s '
                        'drops it unless a rule accepts it. Remedy: %s, or '
                        'such a rule.', link.name, what, chain, remedy)


def _how_to_pass_by(what: str, link: Link, ours: bool) -> str | None:
    """Return how a bridge's frames pass no firewall; None: they do not."""
    if what == nftables.FRAMES:
        return 'have whoever made it leave bridges alone'
    if passes_netfilter(what):
        return ('"sysctl net.bridge.%s=0", and the same in /etc/sysctl.d'
                % SWITCHES[what])
    field = OWN_SWITCHES[what]
    if not ours and getattr(link, field):
        return own_switch_off(link, field)
    return None


def own_switch_off(link: Link, field: str) -> str:
    """Return the command, in quotes, that switches a bridge's own one off."""
    return '"ip link set %s type bridge %s 0"' % (link.name, field)


class _Firewall:
    """What the host's firewall drops, as it is now.

    It is looked at again only if some rule has changed, and in all for no more
    than a part of the time: where rules change all the time and there are
    tens of thousands, plugs go on with what is known.
    """
    #: In seconds: the most that looks take in a row. And which part of the
    #: time they may take, as each plug asks whether a rule has changed.
    _MOST, _PART = 0.1, 0.02
    #: The same, where nothing can be known: until 25 s later.
    _NOTHING_THERE = -0.5

    def __init__(self) -> None:
        self._left, self._last = self._MOST, 0.0
        self._generation: int | None = None
        self._chains: dict[str, str] = {}

    def chains(self) -> dict[str, str]:
        """Return what :func:`nftables.chains_that_drop` does."""
        if _LOOKED not in _warned:
            _warned.add(_LOOKED)
            self._left, self._generation = self._MOST, None
        now = time.monotonic()
        self._left = min(self._MOST,
                         self._left + (now - self._last) * self._PART)
        if self._left > 0:
            self._look()
            self._left -= time.monotonic() - now
        self._last = time.monotonic()
        return self._chains

    def _look(self) -> None:
        generation = nftables.generation()
        if generation is None:
            self._left, self._chains = self._NOTHING_THERE, {}
        elif generation != self._generation:
            self._chains = nftables.chains_that_drop()
            self._generation = generation


_firewall = _Firewall()


def warn_if_nearly_full(link: Link, newest: Link) -> None:
    """Say once that a bridge will not take many ports more.

    :param newest: the port that was added last; its number tells how many
        there are at least, without asking for them all
    """
    if ((newest.port_number or 0) >= NEARLY_ALL_PORTS
            and first_time(link, 'ports')):
        LOG.warning('Bridge %s has %d ports of %d at least: move guests to '
                    'another bridge or host, or the plug after the last port '
                    'fails.', link.name, newest.port_number, PORTS)


def passes_netfilter(what: str = nftables.IPV4) -> bool:
    """Return whether bridged IPv4, or IPv6, passes the host's firewall.

    By the switch for all bridges; each has one of its own.
    """
    try:
        with open('/proc/sys/net/bridge/' + SWITCHES[what]) as switch:
            return switch.read().strip() != '0'
    except OSError:  # br_netfilter is not loaded.
        return False


def is_pinned(link: Link) -> bool | None:
    """Return whether the bridge's MAC was set by hand; None: can't tell.

    netlink does not say. sysfs does, for the network namespace it was mounted
    in, which need not be ours: hence the comparison of index and MAC.
    Source: Documentation/ABI/testing/sysfs-class-net, addr_assign_type
    """
    def read(attribute: str) -> str:
        with open(os.path.join('/sys/class/net', link.name,
                               attribute)) as opened:
            return opened.read().strip()
    try:
        if (read('ifindex'), read('address')) != (str(link.index), link.mac):
            return None
        return read('addr_assign_type') == '3'
    except OSError:
        return None
