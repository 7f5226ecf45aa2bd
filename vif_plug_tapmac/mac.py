# SPDX-License-Identifier: Apache-2.0

"""The MAC of a TAP's host end, from the MAC of the guest behind it."""

import re

_MAC = re.compile(r'([0-9a-f]{2}:){5}[0-9a-f]{2}\Z')

# An alternate must be a local unicast octet (bit 1 set, bit 0 clear), and as
# high as can be, because a bridge that nobody pinned takes the lowest MAC.
# FE and FA are missing on purpose: those are what the rule gives.
_ALTERNATE_OCTETS = ('f6', 'f2', 'ee', 'ea', 'e6', 'e2')


def parse(text: str) -> str:
    """Return a guest's MAC in lower case.

    :param text: six colon-separated hex octets, either case
    :returns: the same form, lower case
    :raises ValueError: malformed, multicast or all zero; the text says which.
        The kernel refuses the latter two with EADDRNOTAVAIL.
    """
    mac = text.lower()
    if not _MAC.match(mac):
        raise ValueError('%r is not a MAC of six colon-separated hex octets'
                         % text)
    if int(mac[:2], 16) & 1:
        raise ValueError('%s is a multicast MAC' % mac)
    if mac == '00:00:00:00:00:00':
        raise ValueError('the MAC is all zero')
    return mac


def tap_mac(guest_mac: str) -> str:
    """Return the MAC for the host end: the guest's with first octet 0xFE.

    A bridge takes the lowest MAC of its ports for its own; 0xFE keeps a TAP
    from being the lowest. A guest that starts with 0xFE itself gets 0xFA,
    because the two ends must differ: a bridge delivers frames for a port's
    own MAC to the host, never to the guest.

    :param guest_mac: as :func:`parse` returns it
    :returns: the same form
    Source: libvirt src/util/virnetdevtap.c, virNetDevTapCreateInBridgePort
    """
    return ('fa' if guest_mac.startswith('fe') else 'fe') + guest_mac[2:]


def rival_guest_tap_mac(guest_mac: str) -> str | None:
    """Return the TAP MAC of the one guest that our :func:`tap_mac` would hit.

    That guest has our TAP's MAC for its own, so its TAP shows its presence
    even while it is silent.

    :returns: None if that TAP has our guest's own MAC, which is always
        looked up anyway
    """
    rival = tap_mac(tap_mac(guest_mac))
    return None if rival == guest_mac else rival


def alternate_tap_macs(guest_mac: str) -> list[str]:
    """Return the MACs to try, in order, when the rule's meets another guest's.

    Every TAP with the same last five octets tries the same ones in the same
    order; TAPs may share a MAC, guests behind them may not.

    :param guest_mac: as :func:`parse` returns it
    """
    return [octet + guest_mac[2:] for octet in _ALTERNATE_OCTETS
            if octet != guest_mac[:2]]


def possible_tap_macs(guest_mac: str) -> list[str]:
    """Return all MACs that the host end may have, the rule's first.

    :param guest_mac: as :func:`parse` returns it
    """
    return [tap_mac(guest_mac), *alternate_tap_macs(guest_mac)]
