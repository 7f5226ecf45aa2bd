# SPDX-License-Identifier: Apache-2.0

"""What a guest may say of itself, as elements of sets that frames meet.

Pure: what the sets are compared with, and how they get into the kernel, is
for kernel/. A rule is the same for all ports; what differs is in the sets.
"""

import dataclasses
import ipaddress
import socket
import typing

#: The sets: of MACs; of these with an IPv4 or an IPv6 address that belongs to
#: the port; and with the link-local IPv6 address that each MAC has, and that a
#: guest without addresses may ask for one by.
MACS, IPV4, IPV6, LINK_LOCAL = (
    'guest_mac', 'guest_ipv4', 'guest_ipv6', 'guest_link_local')
#: How many addresses a port can have. Neutron's default is 5 for each network.
ADDRESSES_MAX = 1024
_LINK_LOCAL_START = b'\xfe\x80' + bytes(6)
#: The bit of a MAC that says who gave it, in its first octet, which IPv6 has
#: the other way round. Source: RFC 4291, appendix A
_LOCAL_BIT = 2


class Element(typing.NamedTuple):
    """What is in a set for a port, beside the index of its TAP.

    :param set: one of the names above
    :param mac: as :func:`vif_plug_tapmac.mac.parse` returns it
    :param address: in its canonical form; None: the set has none
    """
    set: str
    mac: str
    address: str | None = None


@dataclasses.dataclass(frozen=True)
class PortRules:
    """All that the sets have for one port.

    :param vif_id: which is said with each element
    """
    vif_id: str
    elements: frozenset[Element]


def of_port(vif_id: str, guest_mac: str,
            addresses: typing.Collection[str]) -> PortRules:
    """Return what a guest may send from.

    :param guest_mac: as :func:`vif_plug_tapmac.mac.parse` returns it
    :param addresses: its fixed IPs, each as :func:`require_address` returns
        it. None of them: it has its MAC only, which is enough to ask for an
        address, and no more
    """
    own = link_local(guest_mac)
    elements = {Element(MACS, guest_mac), Element(LINK_LOCAL, guest_mac, own)}
    if addresses:
        elements.add(Element(IPV6, guest_mac, own))
    for address in addresses:
        elements.add(Element(IPV6 if ':' in address else IPV4, guest_mac,
                             address))
    return PortRules(vif_id, frozenset(elements))


def link_local(guest_mac: str) -> str:
    """Return the address that IPv6 makes of a MAC. Source: RFC 4291, 2.5.1."""
    octets = bytearray.fromhex(guest_mac.replace(':', ''))
    octets[0] ^= _LOCAL_BIT
    # As ipaddress would say it, in a tenth of the time.
    return socket.inet_ntop(socket.AF_INET6, _LINK_LOCAL_START + octets[:3]
                            + b'\xff\xfe' + octets[3:])


def require_address(value: typing.Any) -> str:
    """Return the canonical form of an address that a port can have.

    :param value: what an address can be made of
    :raises ValueError: it is none, or one that no single host has
    """
    try:
        address = ipaddress.ip_address(str(value))
    except ValueError:
        raise ValueError('%r is no IP address' % str(value))
    if (address.is_multicast or address.is_unspecified or address.is_loopback
            or address == ipaddress.IPv4Address('255.255.255.255')
            or getattr(address, 'scope_id', None)
            or getattr(address, 'ipv4_mapped', None)):
        raise ValueError('%s can not be the address of a port' % address)
    return str(address)
