# SPDX-License-Identifier: Apache-2.0

"""What a frame says, and whose it is, at the place where it comes out or not.

It is read from its octets, as a kernel does.
"""

import functools
import ipaddress
import struct
import typing

from tests.oracle import frames
from tests.oracle import judge
from tests.oracle import worlds

IPV4, ARP, RARP, TAG, IPV6 = 0x0800, 0x0806, 0x8035, 0x8100, 0x86dd
ICMP, IGMP, UDP, AH, ICMP6 = 1, 2, 17, 51, 58
#: Extension headers of IPv6 that others follow, with that of authentication.
_EXTENSIONS = 0, 43, 60, AH
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Meeting:
    """A frame and a place, in a world.

    :ivar sender: the port that it comes from; None: the wire
    :ivar receiver: the port of the place; None: the wire
    """

    def __init__(self, world: worlds.World, verdict: judge.Verdict) -> None:
        ports = {port['device']: port for port in world['ports']
                 if 'device' in port}
        self.world = world
        self.frame = verdict.frame
        self.octets = verdict.frame.octets[0]
        self.sender = ports.get(verdict.frame.sender)
        self.receiver = ports.get(verdict.place)

    @property
    def source_mac(self) -> str:
        return self.octets[6:12].hex(':')

    @property
    def destination_mac(self) -> str:
        return self.octets[:6].hex(':')

    @property
    def to_many(self) -> bool:
        return bool(self.octets[0] & 1)

    @property
    def ethertype(self) -> int:
        return int.from_bytes(self.octets[12:14], 'big')

    @property
    def is_fragment(self) -> bool:
        return len(self.frame.octets) > 1

    @functools.cached_property
    def _headers(self) -> tuple[tuple[int, ...], bytes]:
        """The protocols, one within the other, and what the last has."""
        packet = self.octets[14:]
        if self.ethertype == IPV4:
            return (packet[9],), packet[(packet[0] & 15) * 4:]
        if self.ethertype != IPV6:
            return (), b''
        protocols, rest = [packet[6]], packet[40:]
        if protocols[0] == 44:
            return (44, rest[0]), rest[8:]
        while protocols[-1] in _EXTENSIONS:
            length = ((rest[1] + 2) * 4 if protocols[-1] == AH
                      else (rest[1] + 1) * 8)
            protocols.append(rest[0])
            rest = rest[length:]
        return tuple(protocols), rest

    @property
    def protocols(self) -> tuple[int, ...]:
        """Of IP, from the outermost on; none: it is no IP."""
        return self._headers[0]

    @property
    def protocol(self) -> int | None:
        return self.protocols[-1] if self.protocols else None

    @property
    def icmp_type(self) -> int | None:
        """Of ICMP, ICMPv6 and IGMP."""
        return (self._headers[1][0]
                if self.protocol in (ICMP, IGMP, ICMP6) else None)

    @property
    def udp_ports(self) -> tuple[int, int] | None:
        return (struct.unpack('!HH', self._headers[1][:4])
                if self.protocol == UDP else None)

    @property
    def source(self) -> _Address | None:
        """Of IP."""
        if self.ethertype == IPV4:
            return ipaddress.IPv4Address(self.octets[26:30])
        if self.ethertype == IPV6:
            return ipaddress.IPv6Address(self.octets[22:38])
        return None

    @property
    def destination(self) -> _Address | None:
        """Of IP."""
        if self.ethertype == IPV4:
            return ipaddress.IPv4Address(self.octets[30:34])
        if self.ethertype == IPV6:
            return ipaddress.IPv6Address(self.octets[38:54])
        return None

    @property
    def nd_target(self) -> ipaddress.IPv6Address:
        return ipaddress.IPv6Address(self._headers[1][8:24])

    def arp_is_true(self) -> bool:
        """Return whether ARP speaks of what its sender has."""
        operation, = struct.unpack('!H', self.octets[20:22])
        mac = self.octets[22:28].hex(':')
        address = ipaddress.IPv4Address(self.octets[28:32])
        if operation == 1 and int(address) == 0:  # a probe
            address = ipaddress.IPv4Address(self.octets[38:42])
        return (mac_is_own(self.sender, self.source_mac)
                and is_own(self.sender, mac, address))


def is_filtered(port: dict[str, typing.Any] | None) -> bool:
    """Return whether there are rules for a port."""
    return (port is not None and port['port_security_enabled']
            and not port['device_owner'].startswith('network:'))


def own(port: dict[str, typing.Any]) -> list[tuple[str, _Network]]:
    """Return what a port has been given, each with its MAC."""
    return [*((port['mac_address'],
               ipaddress.ip_network(each['ip_address']))
              for each in port['fixed_ips']),
            *((pair['mac_address'],
               ipaddress.ip_network(pair['ip_address'], strict=False))
              for pair in port['allowed_address_pairs'])]


def mac_is_own(port: dict[str, typing.Any], mac: str) -> bool:
    return mac in {port['mac_address'], *(each for each, _ in own(port))}


def is_own(port: dict[str, typing.Any], mac: str, address: _Address) -> bool:
    """Return whether a port may have an address: given, or link-local.

    Who has been given none has no link-local one either.
    """
    return (any(mac == each and address in network
                for each, network in own(port))
            or bool(own(port)) and mac_is_own(port, mac)
            and str(address) == frames.link_local(mac))
