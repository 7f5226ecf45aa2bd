# SPDX-License-Identifier: Apache-2.0

"""What Neutron's Linux bridge agent leaves on a host, and libvirt with it.

Imitated from its sources of 2024.2: linuxbridge_neutron_agent.py makes the
bridges, iptables_firewall.py the rules of iptables, which its own class writes
so in a network namespace, arp_protect.py those of ebtables.
"""

import os
import shutil
import subprocess

from tests import hosts

NETWORK_ID = '5d6a7b8c-0000-4000-8000-000000000000'
BRIDGE = 'brq5d6a7b8c-00'
#: What iptables calls its two kinds.
NFT, LEGACY = 'nft', 'legacy'
#: include/uapi/linux/if_tun.h; QEMU's TAPs have headers of virtio.
_IFF_VNET_HDR = 0x4000

_TABLES = '''\
*raw
:neutron-linuxbri-PREROUTING - [0:0]
-A PREROUTING -j neutron-linuxbri-PREROUTING
{raw}
COMMIT
*filter
:neutron-filter-top - [0:0]
:neutron-linuxbri-FORWARD - [0:0]
:neutron-linuxbri-INPUT - [0:0]
:neutron-linuxbri-local - [0:0]
:neutron-linuxbri-sg-chain - [0:0]
:neutron-linuxbri-sg-fallback - [0:0]
{chains}
-A INPUT -j neutron-linuxbri-INPUT
-A FORWARD -j neutron-filter-top
-A FORWARD -j neutron-linuxbri-FORWARD
-A OUTPUT -j neutron-filter-top
-A neutron-filter-top -j neutron-linuxbri-local
{filter}
-A neutron-linuxbri-sg-chain -j ACCEPT
-A neutron-linuxbri-sg-fallback -j DROP
COMMIT
*nat
:neutron-linuxbri-PREROUTING - [0:0]
-A PREROUTING -j neutron-linuxbri-PREROUTING
{nat}
COMMIT
'''
_RAW = '''\
-A neutron-linuxbri-PREROUTING -m physdev --physdev-in {bridge} -j CT --zone 9
-A neutron-linuxbri-PREROUTING -i {bridge} -j CT --zone 9
-A neutron-linuxbri-PREROUTING -m physdev --physdev-in {tap} -j CT --zone 9'''
_CHAINS = '''\
:neutron-linuxbri-i{end} - [0:0]
:neutron-linuxbri-o{end} - [0:0]'''
_FILTERED = '''\
-A neutron-linuxbri-FORWARD -m physdev --physdev-out {tap} \
--physdev-is-bridged -j neutron-linuxbri-sg-chain
-A neutron-linuxbri-FORWARD -m physdev --physdev-in {tap} \
--physdev-is-bridged -j neutron-linuxbri-sg-chain
-A neutron-linuxbri-INPUT -m physdev --physdev-in {tap} \
--physdev-is-bridged -j neutron-linuxbri-o{end}
-A neutron-linuxbri-sg-chain -m physdev --physdev-out {tap} \
--physdev-is-bridged -j neutron-linuxbri-i{end}
-A neutron-linuxbri-sg-chain -m physdev --physdev-in {tap} \
--physdev-is-bridged -j neutron-linuxbri-o{end}
-A neutron-linuxbri-i{end} -p tcp -m tcp --dport 22 -j RETURN
-A neutron-linuxbri-i{end} -j neutron-linuxbri-sg-fallback
-A neutron-linuxbri-o{end} -j RETURN'''
_ACCEPTED = '''\
-A neutron-linuxbri-FORWARD -m physdev --physdev-out {tap} \
--physdev-is-bridged -j ACCEPT
-A neutron-linuxbri-FORWARD -m physdev --physdev-in {tap} \
--physdev-is-bridged -j ACCEPT
-A neutron-linuxbri-INPUT -m physdev --physdev-in {tap} \
--physdev-is-bridged -j ACCEPT'''
_NAT = '''\
-A neutron-linuxbri-PREROUTING -m physdev --physdev-in {tap} -j ACCEPT'''


def missing():
    """Return what keeps us from making its rules, None if nothing does."""
    for program in 'iptables-nft-restore', 'iptables-legacy-restore':
        if shutil.which(program) is None:
            return 'needs %s: run tools/programs.sh' % program
    return None


def add_bridge(host, uplink=None, name=BRIDGE):
    """Make a bridge as the agent does, with its uplink."""
    link = host.add(name, 'bridge')
    host.set(name, kind='bridge', br_forward_delay=0)
    host.set(name, kind='bridge', br_stp_state=0)
    host.set(name, state='up')
    if uplink is not None:
        host.set(uplink, master=link.index)
    return link


def add_guest(host, tap, guest_mac, bridge=BRIDGE):
    """Start a guest as libvirt does on a bridge; return what holds its TAP.

    It goes with the guest: it is not persistent, and nobody owns it.
    """
    guest = hosts.Guest(tap, guest_mac, flags=hosts.IFF_TAP | _IFF_VNET_HDR)
    host.set(tap, address='fe' + guest_mac[2:])
    host.set(tap, master=host.link(bridge).index)
    host.set(tap, state='up')
    return guest


def filter_by_iptables(filtered=(), accepted=(), kind=NFT, families=(4, 6),
                       bridge=BRIDGE):
    """Write the rules of the agent for these TAPs.

    :param accepted: whose ports have no port security
    """
    def each(rules, taps):
        return '\n'.join(rules.format(tap=tap, end=tap[3:13], bridge=bridge)
                         for tap in taps)
    tables = _TABLES.format(
        raw=each(_RAW, filtered), chains=each(_CHAINS, filtered),
        filter=each(_FILTERED, filtered) + '\n' + each(_ACCEPTED, accepted),
        nat=each(_NAT, [*filtered, *accepted]))
    for family in families:
        subprocess.run(
            ['ip%stables-%s-restore' % ('6' * (family == 6), kind)],
            input=tables, text=True, check=True, env=environment())


def filter_by_ebtables(tap, guest_mac, address):
    """Write what keeps a guest to its MAC, and ARP to its address."""
    for chain in 'neutronMAC-' + tap, 'neutronARP-' + tap:
        _ebtables('-N', chain, '-P', 'DROP')
        _ebtables('-A', chain, '-j', 'DROP')
    _ebtables('-I', 'PREROUTING', '-i', tap, '-j', 'neutronMAC-' + tap)
    _ebtables('-I', 'neutronMAC-' + tap, '-i', tap, '--among-src', guest_mac,
              '-j', 'RETURN')
    _ebtables('-I', 'neutronARP-' + tap, '-p', 'ARP', '--arp-ip-src', address,
              '-j', 'ACCEPT')
    _ebtables('-A', 'PREROUTING', '-i', tap, '-j', 'neutronARP-' + tap,
              '-p', 'ARP')


def _ebtables(*arguments):
    subprocess.run(['ebtables-nft', '-t', 'nat', '--concurrent', *arguments],
                   check=True, env=environment())


def iptables(program, *arguments):
    """Have one of its programs do something."""
    subprocess.run([program, *arguments], check=True, env=environment())


def environment():
    """Return the environment of its programs, whose lock is for root."""
    return dict(os.environ, XTABLES_LOCKFILE='/dev/null')
