# SPDX-License-Identifier: Apache-2.0

"""What is unsafe about a bridge: found, and said once."""

import logging
import os

from vif_plug_tapmac.kernel import link as link_data
from vif_plug_tapmac.kernel.link import Link
from vif_plug_tapmac.kernel import nftables
from vif_plug_tapmac.wanted.port import TapPort

LOG = logging.getLogger(__name__)

#: How many ports a bridge can have, and how many are nearly as many.
#: Source: net/bridge/br_private.h, BR_PORT_BITS
PORTS, NEARLY_ALL_PORTS = 1023, 1000
_NETFILTER_SWITCH = '/proc/sys/net/bridge/bridge-nf-call-iptables'

#: What was said of which bridge, so that it is said once.
_warned: set[tuple[int, str, str]] = set()
#: Among it, that the firewall of the host was looked at; and what was found.
_LOOKED = 0, '', 'netfilter'
_chain: str | None = None


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


def warn_about_netfilter(link: Link) -> None:
    if not first_time(link, 'netfilter') or not passes_netfilter():
        return
    chain = _chain_that_drops()
    if chain is not None:
        LOG.warning('Bridge %s: what guests send to each other by IPv4 passes '
                    'the firewall of this host, whose chain %s drops it '
                    'unless a rule accepts it. Remedy: "sysctl '
                    'net.bridge.bridge-nf-call-iptables=0", and the same in '
                    '/etc/sysctl.d, or such a rule.', link.name, chain)


def _chain_that_drops() -> str | None:
    """Return what the first look in this process has found.

    Whatever else the host has there is looked at once, not for each bridge.
    """
    global _chain
    if _LOOKED not in _warned:
        _warned.add(_LOOKED)
        _chain = nftables.chain_that_drops_forwarded()
    return _chain


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


def passes_netfilter() -> bool:
    """Return whether bridged IPv4 passes the firewall of this host."""
    try:
        with open(_NETFILTER_SWITCH) as switch:
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
