# SPDX-License-Identifier: Apache-2.0

"""Random frames of a world: from its guests, and from the wire.

The same world, seed and count make the same frames. Many are made of a rule
and lie just within or just without it; some lie about who sends them.
"""

import dataclasses
import ipaddress
import random
import struct
import typing

from scapy.contrib import igmp
from scapy.layers import dhcp
from scapy.layers import inet
from scapy.layers import inet6
from scapy.layers import l2
from scapy import packet as scapy_packet

from tests.oracle import worlds

#: Where frames come from and go to, beside the TAPs.
WIRE = 'uplink'
#: MACs of who is at the wire, and of nobody.
GATEWAY, NOBODY = '52:54:00:00:00:01', '52:54:00:00:00:99'
BROADCAST = 'ff:ff:ff:ff:ff:ff'
#: What is in each frame, so that it is known where it comes out.
_MARK = 'frame %08d.'
_MARK_LENGTH = len(_MARK % 0)
#: How much of a packet is in its first fragment.
_FIRST = 64

_Packet = scapy_packet.Packet
_Object = dict[str, typing.Any]


@dataclasses.dataclass(frozen=True)
class Frame:
    """What is sent.

    :param number: of a world's frames
    :param sender: name of a TAP, or :data:`WIRE`
    :param kind: what it is, for a reader
    :param packet: the whole of it
    :param octets: of each frame on the wire: several, if it is in fragments
    """
    number: int
    sender: str
    kind: str
    packet: _Packet
    octets: tuple[bytes, ...]

    def __str__(self) -> str:
        return 'frame %d, %s from %s: %s' % (
            self.number, self.kind, self.sender, self.packet.summary())

    def endpoints(self) -> tuple[str, str] | None:
        """Return source and destination of it, None if it is not of IP."""
        for layer in inet.IP, inet6.IPv6:
            if layer in self.packet:
                return self.packet[layer].src, self.packet[layer].dst
        return None


def mark(number: int) -> bytes:
    """Return what is in a frame of this number."""
    return (_MARK % number).encode()


def number_of(octets: bytes) -> int | None:
    """Return the number of the frame that this is, None if it has none."""
    place = octets.find(b'frame ')
    number = octets[place + 6:place + _MARK_LENGTH - 1]
    return int(number) if place >= 0 and number.isdigit() else None


class Maker:
    """Makes the frames of a world."""

    def __init__(self, world: worlds.World, seed: int) -> None:
        self._chance = random.Random('frames %d' % seed)
        self._world = world
        self._ports = world['ports']
        self._here = [port for port in self._ports if 'device' in port]
        self._number = 0

    def make(self, count: int) -> list[Frame]:
        """Return so many frames."""
        return [self._frame() for _ in range(count)]

    def _frame(self) -> Frame:
        chance = self._chance
        sender = chance.choice([*self._here, *[None] * (len(self._here) // 2)])
        others = [port for port in self._ports if port is not sender and (
            sender is not None or 'device' in port)]
        receiver = chance.choice(others)
        source = sender or chance.choice(
            [port for port in self._ports if 'device' not in port])
        make, = chance.choices(*zip(*_KINDS.items()))
        kind = _name(make)
        packet = make(self, source, receiver)
        self._number += 1
        if make is Maker._fragments:
            octets = tuple(map(bytes, _fragments(packet, self._number)))
        else:
            octets = (bytes(packet / scapy_packet.Raw(
                mark(self._number))).ljust(60, b'\0'),)
        return Frame(self._number, sender['device'] if sender else WIRE, kind,
                     packet, octets)

    # Who, in a frame.

    def _family(self, source: _Object, receiver: _Object) -> int:
        """Return a version of IP, one that both have if there is one."""
        both = [family for family in (4, 6)
                if of_family(source, family) and of_family(receiver, family)]
        return self._chance.choice(both or [4, 6])

    def _addresses(self, port: _Object, family: int, true: float) -> str:
        """Return an address of a port, or of another with some chance."""
        own = of_family(port, family)
        for pair in port['allowed_address_pairs']:
            own += self._within(pair['ip_address'], family)
        if family == 6:
            own = own * 2 + [link_local(port['mac_address'])]
        if own and self._chance.random() < true:
            return self._chance.choice(own)
        return self._chance.choice([
            *worlds.OUTSIDE[family], '10.0.0.5' if family == 4 else
            '2001:db8::11', *(address for other in self._ports
                              for address in of_family(other, family))])

    def _within(self, prefix: str, family: int) -> list[str]:
        network = ipaddress.ip_network(prefix, strict=False)
        if network.version != family:
            return []
        return [str(network[self._chance.randrange(
            min(network.num_addresses, 256))])]

    def _ether(self, source: _Object, receiver: _Object,
               destination: str | None = None, **fields: typing.Any,
               ) -> _Packet:
        """Return Ethernet to a port, or to a group or all."""
        macs = [source['mac_address']] * 15 + [NOBODY] + [
            pair['mac_address']
            for pair in source['allowed_address_pairs']] * 4
        if destination is None:
            destination = self._chance.choice(
                [receiver['mac_address']] * 20 + [NOBODY, BROADCAST] + [
                    pair['mac_address']
                    for pair in receiver['allowed_address_pairs']] * 3)
        return l2.Ether(src=self._chance.choice(macs), dst=destination,
                        **fields)

    def _ip(self, source: _Object, receiver: _Object, family: int,
            true: float = .85, **fields: typing.Any) -> _Packet:
        values = dict({'src': self._addresses(source, family, true),
                       'dst': self._addresses(receiver, family, .8)},
                      **fields)
        if family == 4:
            return inet.IP(id=self._number + 1, **values)
        return inet6.IPv6(**values)

    # What is in it.

    def _rule(self, source: _Object, receiver: _Object,
              family: int) -> _Object | None:
        """Return a rule that it may meet, if there is one."""
        groups = {'egress': source['security_groups'],
                  'ingress': receiver['security_groups']}
        return self._one([
            rule for rule in self._world['rules']
            if rule['security_group_id'] in groups[rule['direction']]
            and rule['ethertype'] == 'IPv%d' % family])

    def _one(self, values: typing.Sequence[typing.Any]) -> typing.Any:
        return self._chance.choice(values) if values else None

    def _payload(self, source: _Object, receiver: _Object, family: int,
                 ) -> tuple[int, _Packet]:
        """Return a protocol and what it has, often what a rule is about."""
        chance = self._chance
        rule = self._rule(source, receiver, family)
        number = chance.choice([6, 6, 17, 17, 1 if family == 4 else 58,
                                chance.choice(list(_OTHERS))])
        low = high = None
        if rule and rule['protocol'] and chance.random() < .7:
            number = worlds.number_of(rule['protocol'])
            low, high = rule['port_range_min'], rule['port_range_max']
        if number in worlds.WITH_PORTS:
            port = chance.choice([22, 80, 1500, 53, 9999])
            if low is not None and chance.random() < .8:
                port = chance.choice([
                    low, high, max(1, low - 1), min(65535, high + 1),
                    (low + high) // 2])
            return number, self._with_ports(
                number, chance.randrange(1024, 65536), port)
        if number == (58 if family == 6 else 1):
            kind = chance.choice([0, 3, 5, 8, 9, 13, 128, 129, 130, 134, 136])
            code = chance.choice([0, 0, 1, 7])
            if low is not None and chance.random() < .8:
                kind = low
                code = code if high is None else chance.choice([high, code])
            return number, self._icmp(number, kind, code)
        if number in _EXTENSIONS or number == 0:
            number = 99
        return number, scapy_packet.Raw(chance.randbytes(8))

    def _icmp(self, number: int, kind: int, code: int) -> _Packet:
        if number == 58:
            return inet6.ICMPv6Unknown(type=kind, code=code,
                                       msgbody=self._chance.randbytes(8))
        return inet.ICMP(type=kind, code=code,
                         id=self._chance.randrange(65536))

    def _with_ports(self, number: int, sport: int, dport: int) -> _Packet:
        if number == 6:
            return inet.TCP(sport=sport, dport=dport, flags=self._one(
                ['S', 'S', 'S', 'A', 'PA', 'SA', 'R', 'F']))
        if number == 17:
            return inet.UDP(sport=sport, dport=dport)
        if number == 132:  # INIT
            return scapy_packet.Raw(struct.pack(
                '!HHII', sport, dport, 0, 0) + bytes.fromhex(
                    '01000014 00000001 00001000 000a000a 00000001'))
        if number == 33:  # a request
            return scapy_packet.Raw(struct.pack(
                '!HHBBHBBHI', sport, dport, 5, 0, 0, 0, 0, 0, 1) + bytes(4))
        return scapy_packet.Raw(struct.pack('!HHHH', sport, dport, 8, 0))

    # Kinds of frames.

    def _packet(self, source: _Object, receiver: _Object) -> _Packet:
        family = self._family(source, receiver)
        number, payload = self._payload(source, receiver, family)
        name = 'proto' if family == 4 else 'nh'
        return self._ether(source, receiver) / self._ip(
            source, receiver, family, **{name: number}) / payload

    def _packet_to_many(self, source: _Object, receiver: _Object) -> _Packet:
        family = self._family(source, receiver)
        number, payload = self._payload(source, receiver, family)
        if family == 4:
            address, destination = self._one([
                ('255.255.255.255', BROADCAST), ('10.0.0.255', BROADCAST),
                ('224.0.0.251', '01:00:5e:00:00:fb'),
                ('224.0.0.18', '01:00:5e:00:00:12')])
            return self._ether(source, receiver, destination) / self._ip(
                source, receiver, 4, dst=address, proto=number) / payload
        return self._ether(source, receiver, '33:33:00:00:00:fb') / self._ip(
            source, receiver, 6, dst='ff02::fb', nh=number) / payload

    def _fragments(self, source: _Object, receiver: _Object) -> _Packet:
        family = self._family(source, receiver)
        number, payload = self._payload(source, receiver, family)
        name = 'proto' if family == 4 else 'nh'
        return self._ether(source, receiver) / self._ip(
            source, receiver, family, **{name: number}) / payload

    def _extension_headers(self, source: _Object,
                           receiver: _Object) -> _Packet:
        number, payload = self._payload(source, receiver, 6)
        header = self._one([
            lambda: inet6.IPv6ExtHdrHopByHop(nh=number,
                                             options=[inet6.RouterAlert()]),
            lambda: inet6.IPv6ExtHdrDestOpt(nh=number),
            *2 * [lambda: scapy_packet.Raw(bytes([number, 4]) + bytes(22))]])()
        if isinstance(header, scapy_packet.Raw):
            return self._ether(source, receiver) / self._ip(
                source, receiver, 6, nh=51) / header / payload
        return self._ether(source, receiver) / self._ip(
            source, receiver, 6) / header / payload

    def _error(self, source: _Object, receiver: _Object) -> _Packet:
        family = self._family(source, receiver)
        inner = self._ip(receiver, source, family) / inet.UDP(
            sport=self._chance.randrange(65536), dport=9)
        if family == 4:
            return self._ether(source, receiver) / self._ip(
                source, receiver, 4) / inet.ICMP(type=3, code=3) / inner
        return self._ether(source, receiver) / self._ip(
            source, receiver, 6) / inet6.ICMPv6DestUnreach() / inner

    def _dhcp_client(self, source: _Object, receiver: _Object) -> _Packet:
        request = inet.UDP(sport=68, dport=67) / dhcp.BOOTP(
            chaddr=bytes(6)) / dhcp.DHCP(
                options=[('message-type', 'discover'), 'end'])
        if self._chance.random() < .6:
            return self._ether(source, receiver, BROADCAST) / self._ip(
                source, receiver, 4, src='0.0.0.0', dst=self._one(
                    ['255.255.255.255'] * 4 + ['10.0.0.1'])) / request
        return self._ether(source, receiver) / self._ip(
            source, receiver, 4) / request

    def _dhcp_server(self, source: _Object, receiver: _Object) -> _Packet:
        answer = inet.UDP(sport=self._one([67, 67, 67, 9]),
                          dport=self._one([68, 68, 68, 9])) / dhcp.BOOTP(
            op=2, chaddr=bytes(6)) / dhcp.DHCP(
                options=[('message-type', 'offer'), 'end'])
        if self._chance.random() < .4:
            return self._ether(source, receiver, BROADCAST) / self._ip(
                source, receiver, 4, dst='255.255.255.255') / answer
        return self._ether(source, receiver) / self._ip(
            source, receiver, 4) / answer

    def _dhcpv6(self, source: _Object, receiver: _Object) -> _Packet:
        if self._chance.random() < .5:
            return self._ether(
                source, receiver, '33:33:00:01:00:02') / self._ip(
                    source, receiver, 6, dst='ff02::1:2') / inet.UDP(
                        sport=546, dport=547)
        return self._ether(source, receiver) / self._ip(
            source, receiver, 6) / inet.UDP(
                sport=self._one([547, 547, 9]), dport=self._one([546, 9]))

    def _solicitation(self, source: _Object, receiver: _Object) -> _Packet:
        target = self._addresses(receiver, 6, .9)
        return self._ether(source, receiver, '33:33:ff:00:00:01') / self._ip(
            source, receiver, 6, dst='ff02::1:ff00:1'
        ) / inet6.ICMPv6ND_NS(tgt=target)

    def _detection(self, source: _Object, receiver: _Object) -> _Packet:
        return self._ether(source, receiver, '33:33:ff:00:00:01') / self._ip(
            source, receiver, 6, src='::', dst='ff02::1:ff00:1'
        ) / inet6.ICMPv6ND_NS(tgt=self._addresses(source, 6, .7))

    def _advertisement(self, source: _Object, receiver: _Object) -> _Packet:
        return self._ether(source, receiver) / self._ip(
            source, receiver, 6) / inet6.ICMPv6ND_NA(
                tgt=self._addresses(source, 6, .8))

    def _of_routers(self, source: _Object, receiver: _Object) -> _Packet:
        return self._ether(source, receiver, '33:33:00:00:00:01') / self._ip(
            source, receiver, 6, dst='ff02::1') / self._icmp(
                58, self._one([130, 134, 134, 137, 138, 141, 142]), 0)

    def _router_solicitation(self, source: _Object,
                             receiver: _Object) -> _Packet:
        return self._ether(source, receiver, '33:33:00:00:00:02') / self._ip(
            source, receiver, 6, dst='ff02::2', src=self._one(
                ['::', link_local(source['mac_address'])])
        ) / inet6.ICMPv6ND_RS()

    def _mld(self, source: _Object, receiver: _Object) -> _Packet:
        return self._ether(source, receiver, '33:33:00:00:00:16') / self._ip(
            source, receiver, 6, dst='ff02::16', hlim=1, src=self._one(
                ['::', link_local(source['mac_address'])])
        ) / inet6.IPv6ExtHdrHopByHop(
            nh=58, options=[inet6.RouterAlert()]) / self._icmp(
                58, self._one([130, 131, 132, 143]), 0)

    def _igmp(self, source: _Object, receiver: _Object) -> _Packet:
        return self._ether(source, receiver, '01:00:5e:00:00:16') / self._ip(
            source, receiver, 4, dst='224.0.0.22', proto=2, ttl=1
        ) / igmp.IGMP(type=self._one([0x11, 0x16, 0x17, 0x16]),
                      gaddr='239.1.2.3')

    def _arp(self, source: _Object, receiver: _Object) -> _Packet:
        operation = self._one([1, 1, 2])
        sender = self._addresses(source, 4, .75)
        ether = self._ether(source, receiver,
                            BROADCAST if operation == 1 else None)
        return ether / l2.ARP(
            op=operation, hwsrc=self._one([ether.src] * 6 + [NOBODY]),
            psrc=self._one([sender] * 6 + ['0.0.0.0']),
            pdst=self._one([self._addresses(receiver, 4, .9)] * 3 + [sender]))

    def _another_ethertype(self, source: _Object,
                           receiver: _Object) -> _Packet:
        return self._ether(source, receiver, type=self._one(
            [0x88b5, 0x88cc, 0x8863, 0x8847, 0x9000])) / scapy_packet.Raw(
                bytes(40))

    def _tag(self, source: _Object, receiver: _Object) -> _Packet:
        return self._ether(source, receiver) / l2.Dot1Q(
            vlan=self._one([0, 100])) / self._ip(
                source, receiver, 4) / inet.UDP(sport=7, dport=7)

    def _reserved_destination(self, source: _Object,
                              receiver: _Object) -> _Packet:
        return self._ether(source, receiver, '01:80:c2:00:00:21') / self._ip(
            source, receiver, 4) / inet.UDP(sport=7, dport=7)


def of_family(port: _Object, family: int) -> list[str]:
    """Return the fixed IPs of a port, of a version of IP."""
    return [each['ip_address'] for each in port['fixed_ips']
            if (':' in each['ip_address']) == (family == 6)]


def link_local(mac: str) -> str:
    """Return the address that IPv6 makes of a MAC. Source: RFC 4291, 2.5.1."""
    octets = bytearray.fromhex(mac.replace(':', ''))
    octets[0] ^= 2
    return str(ipaddress.IPv6Address(
        bytes.fromhex('fe80000000000000') + octets[:3] + b'\xff\xfe'
        + octets[3:]))


def _fragments(packet: _Packet, number: int) -> list[_Packet]:
    """Return a packet in two fragments, each with the mark in it."""
    ether, ip = l2.Ether(src=packet.src, dst=packet.dst), packet[1]
    filler = bytes(_FIRST - len(bytes(ip.payload)) - _MARK_LENGTH)
    headers = 20 if isinstance(ip, inet.IP) else 40
    octets = bytes(ip / scapy_packet.Raw(
        mark(number) + filler + mark(number)))[headers:]
    parts = (1, 0, octets[:_FIRST]), (0, _FIRST // 8, octets[_FIRST:])
    if isinstance(ip, inet.IP):
        return [ether / inet.IP(
            src=ip.src, dst=ip.dst, proto=ip.proto, id=number,
            flags='MF' if more else 0, frag=offset) / part
            for more, offset, part in parts]
    return [ether / inet6.IPv6(src=ip.src, dst=ip.dst)
            / inet6.IPv6ExtHdrFragment(nh=ip.nh, m=more, offset=offset,
                                       id=number) / part
            for more, offset, part in parts]


_EXTENSIONS = 43, 44, 51, 60, 135, 139, 140
_OTHERS = 2, 4, 8, 33, 41, 46, 47, 50, 59, 89, 99, 112, 113, 132, 136, 200, 255
#: How often there is which kind.
_KINDS: dict[typing.Callable[[Maker, _Object, _Object], _Packet], int] = {
    Maker._packet: 50, Maker._packet_to_many: 8, Maker._fragments: 4,
    Maker._extension_headers: 6, Maker._error: 2, Maker._dhcp_client: 4,
    Maker._dhcp_server: 4, Maker._dhcpv6: 3, Maker._solicitation: 3,
    Maker._detection: 2, Maker._advertisement: 3, Maker._of_routers: 3,
    Maker._router_solicitation: 2, Maker._mld: 3, Maker._igmp: 2,
    Maker._arp: 6, Maker._another_ethertype: 1, Maker._tag: 1,
    Maker._reserved_destination: 1}


def _name(make: typing.Callable[..., _Packet]) -> str:
    return make.__name__.strip('_').replace('_', ' ')
