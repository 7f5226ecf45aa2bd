# SPDX-License-Identifier: Apache-2.0

"""Frames as they are, sent by a guest that has busybox and no more.

None of its programs sends what it is given, so it gets one that does: twenty
instructions, which need no compiler on the machine of the test.
"""

import socket
import struct

_START, _HEADERS, _ROOM = 0x400000, 64 + 56, 4096
_TAGGED = b'\x81\x00'


def program(index: int) -> bytes:
    """Return an x86-64 program that sends its standard input as one frame.

    It exits with 1 if the kernel refuses that.

    :param index: of the link that it sends on
    """
    address = struct.pack('=HHiHBB8x', socket.AF_PACKET, 0, index, 0, 0, 6)
    code = b''
    for _ in range(2):  # It is as long as it is before it knows how long.
        to = _START + _HEADERS + len(code)
        code = _code(to, to + len(address))
    size = _HEADERS + len(code) + len(address)
    return (
        b'\x7fELF\2\1\1' + bytes(9) + struct.pack(
            '=HHIQQQIHHHHHH', 2, 62, 1, _START + _HEADERS, 64, 0, 0, 64, 56,
            1, 64, 0, 0)
        + struct.pack('=IIQQQQQQ', 1, 7, 0, _START, _START, size,
                      size + _ROOM, 4096) + code + address)


def _code(address: int, room: int) -> bytes:
    def number(opcode: str, value: int) -> bytes:
        return bytes.fromhex(opcode) + struct.pack('=I', value)
    call = b'\x0f\x05'
    return b''.join((
        # ebx = socket(AF_PACKET, SOCK_RAW, 0)
        number('bf', socket.AF_PACKET), number('be', socket.SOCK_RAW),
        b'\x31\xd2', number('b8', 41), call, b'\x89\xc3',
        # edx = read(0, room, ...)
        b'\x31\xff', number('be', room), number('ba', _ROOM), b'\x31\xc0',
        call, b'\x89\xc2',
        # sendto(ebx, room, edx, 0, address, 20)
        b'\x89\xdf', number('be', room), b'\x45\x31\xd2',
        number('41b8', address), number('41b9', 20), number('b8', 44), call,
        # exit(eax < 0)
        b'\xc1\xe8\x1f\x89\xc7', number('b8', 60), call))


def printing(octets: bytes) -> str:
    """Return a command of a shell that prints octets."""
    return "printf '%s'" % ''.join('\\x%02x' % each for each in octets)


def is_same(sent: bytes, seen: bytes) -> bool:
    """Return whether that is a frame which has come out.

    The kernel takes tags out before anybody sees them, and may cut off what
    fills up a frame behind its packet.
    """
    if sent[12:14] == _TAGGED:
        sent = sent[:12] + sent[16:]
    return seen.startswith(sent.rstrip(b'\0'))


class Frames:
    """Pairs of frames of a guest: what it may send, and what it may not.

    They differ in one field.

    :param mac: the guest's
    :param address: its IPv4 address
    :param other: one that it has not
    """

    #: Of nobody.
    STRANGER = '52:54:00:00:00:99'
    _ALL, _ROUTERS = 'ff:ff:ff:ff:ff:ff', '01:80:c2:00:00:00'

    def __init__(self, mac: str, address: str, other: str) -> None:
        self._mac = mac
        self._own, self._other = map(socket.inet_aton, (address, other))
        octets = bytes.fromhex(mac.replace(':', ''))
        self._link_local = (b'\xfe\x80' + bytes(6) + bytes([octets[0] ^ 2])
                            + octets[1:3] + b'\xff\xfe' + octets[3:])
        self._others = b'\xfe\x80' + bytes(13) + b'\1'

    def pairs(self) -> dict[str, tuple[bytes, bytes]]:
        """Return them, by what is different."""
        udp, udp6, echo = self._udp(), self._udp6(), self._icmp6(128)
        octets = udp[14:]
        return {
            'IPv4 address': (udp, self._udp(source=self._other)),
            'MAC': (udp, self._frame(0x0800, octets, source=self.STRANGER)),
            'who it is for': (udp, self._frame(0x0800, octets,
                                               self._ROUTERS)),
            'a tag': (udp, self._frame(0x8100, octets)),
            'ethertype': (udp, self._frame(0x88b5, octets)),
            'DHCP server': (udp, self._udp(port=67)),
            'address in ARP': (self._arp(), self._arp(sender=self._other)),
            'MAC in ARP': (self._arp(), self._arp(mac=self.STRANGER)),
            'MAC in RARP': (self._arp(0x8035, 3, bytes(4)),
                            self._arp(0x8035, 3, bytes(4), self.STRANGER)),
            'IPv6 address': (udp6, self._udp6(source=self._others)),
            'DHCPv6 server': (udp6, self._udp6(port=547)),
            'router advertisement': (echo, self._icmp6(134)),
            'redirect': (echo, self._icmp6(137)),
            'target of an advertisement': (
                self._icmp6(136, self._link_local),
                self._icmp6(136, self._others)),
        }

    def last(self) -> bytes:
        """Return a frame that is like none of these, and may be sent."""
        return self._udp(port=9)

    def _frame(self, kind: int, payload: bytes, destination: str = _ALL,
               source: str | None = None) -> bytes:
        return (bytes.fromhex((destination + (source or self._mac)).replace(
            ':', '')) + struct.pack('!H', kind) + payload).ljust(60, b'\0')

    def _arp(self, kind: int = 0x0806, operation: int = 1,
             sender: bytes | None = None, mac: str | None = None) -> bytes:
        own = bytes.fromhex(self._mac.replace(':', ''))
        said = bytes.fromhex((mac or self._mac).replace(':', ''))
        return self._frame(kind, struct.pack('!HHBBH', 1, 0x0800, 6, 4,
                                             operation)
                           + said + (self._own if sender is None else sender)
                           + (own if operation == 3 else bytes(6))
                           + (bytes(4) if operation == 3 else self._other))

    def _udp(self, source: bytes | None = None, port: int = 7) -> bytes:
        header = struct.pack('!BBHHHBBH4s4s', 0x45, 0, 40, 1, 0, 64, 17, 0,
                             source or self._own, b'\xff' * 4)
        total = sum(struct.unpack('!10H', header))
        total = ~((total >> 16) + (total & 0xffff)) & 0xffff
        return self._frame(0x0800, header[:10] + struct.pack('!H', total)
                           + header[12:] + struct.pack(
                               '!HHHH', port, 7, 20, 0) + bytes(12))

    def _ip6(self, following: int, payload: bytes,
             source: bytes | None = None) -> bytes:
        return self._frame(0x86dd, struct.pack(
            '!IHBB', 6 << 28, len(payload), following, 255)
            + (source or self._link_local)
            + socket.inet_pton(socket.AF_INET6, 'ff02::1') + payload)

    def _udp6(self, source: bytes | None = None, port: int = 7) -> bytes:
        return self._ip6(17, struct.pack('!HHHH', port, 7, 20, 0)
                         + bytes(12), source)

    def _icmp6(self, kind: int, target: bytes = bytes(16)) -> bytes:
        return self._ip6(58, bytes([kind]) + bytes(7) + target)
