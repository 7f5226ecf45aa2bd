# SPDX-License-Identifier: Apache-2.0

"""A frame as nf_tables finds its way in it: where each header is. Pure.

Source: include/net/netfilter/nf_tables_ipv4.h, nf_tables_ipv6.h;
net/ipv6/exthdrs_core.c, ipv6_find_hdr
"""

import dataclasses
import functools
import struct
import typing

from vif_plug_tapmac.kernel import exit_rules
from vif_plug_tapmac.kernel import nft_expressions as nftx

#: How long an Ethernet header is: a TAP takes nothing shorter.
ETHERNET_LENGTH = 14
#: The longest that a TAP takes.
LONGEST = 65535
IPV4, ARP, RARP, IPV6 = 0x0800, 0x0806, 0x8035, 0x86dd
_IPV4_LENGTH, _IPV6_LENGTH = 20, 40
#: Headers of IPv6 behind which others come. Source: as above, ipv6_ext_hdr
_HOP_BY_HOP, _ROUTING, _FRAGMENT, _AUTHENTICATION, _NONE, _OPTIONS = (
    0, 43, 44, 51, 59, 60)
_EXTENSIONS = (_HOP_BY_HOP, _ROUTING, _FRAGMENT, _AUTHENTICATION, _NONE,
               _OPTIONS)
_PRESENT = 1
#: The port of a frame, its link group and its kind, by whether it goes out.
_PORT = {False: (nftx.IIF, nftx.IIFGROUP, nftx.IIFTYPE),
         True: (nftx.OIF, nftx.OIFGROUP, nftx.OIFTYPE)}
#: In a fragment header of IPv6: of which place it is.
_PLACE = 0xfff8


class _Header(typing.NamedTuple):
    """A header that was found behind that of IP.

    :param number: which it is
    :param start: where it is
    :param said_at: where it is said which it is
    """
    number: int
    start: int
    said_at: int


@dataclasses.dataclass(frozen=True)
class Packet:
    """A frame that came in at a port, or goes out there.

    :param octets: from its Ethernet header on; a tag has its place there
    :param index: of the port
    :param group: its link group
    :param goes_out: whether it goes out; where it came in is not known then
    :param state: which part it has in its connection, one of nftx.NEW,
        ESTABLISHED and INVALID
    """
    octets: bytes
    index: int
    group: int
    goes_out: bool = False
    state: int = nftx.NEW

    def read(self, what: nftx.Load) -> bytes | None:
        """Return what an expression loads; None if it is not there."""
        if what.name == 'meta':
            return self._known(what)
        if what.name == 'ct':
            return (struct.pack('=I', self.state) if what == nftx.CT_STATE
                    else None)
        if what.name == 'exthdr' and _number(what, 5) & _PRESENT:
            return bytes([self._fragment is not None])
        place = self.place(what)
        return None if place is None else self.octets[
            place:place + what.length]

    def place(self, what: nftx.Load) -> int | None:
        """Return where it is in the frame; None: nowhere, or too short."""
        place = None
        if what == nftx.PROTOCOL and self._transport is not None:
            place = self._transport.said_at
        elif what.name == 'exthdr' and self._fragment is not None:
            place = self._fragment.start + _number(what, 3)
        elif what.name == 'payload':
            base = {nftx.ETHERNET: 0, nftx.NETWORK: ETHERNET_LENGTH,
                    nftx.TRANSPORT: self._transport
                    and self._transport.start}[_number(what, 2)]
            place = None if base is None else base + _number(what, 3)
        if place is None or place + what.length > len(self.octets):
            return None
        return place

    def _known(self, what: nftx.Load) -> bytes | None:
        if what == nftx.PROTOCOL:
            return (None if self._transport is None
                    else bytes([self._transport.number]))
        if what == nftx.ETHERTYPE:
            return self.octets[12:14]
        port, group, kind = _PORT[self.goes_out]
        if what == port:
            return struct.pack('=I', self.index)
        if what == kind:
            return exit_rules.ALL_TAPS
        return struct.pack('=I', self.group) if what == group else None

    @property
    def ethertype(self) -> int:
        return int.from_bytes(self.octets[12:14], 'big')

    @property
    def protocol(self) -> int | None:
        """What is in IP; None if it is none, or makes no sense."""
        return self._transport and self._transport.number

    @functools.cached_property
    def _transport(self) -> _Header | None:
        packet = self.octets[ETHERNET_LENGTH:]
        if self.ethertype == IPV4:
            return _in_ipv4(packet)
        if self.ethertype != IPV6 or len(packet) < _IPV6_LENGTH:
            return None
        length, = struct.unpack_from('>H', packet, 4)
        if packet[0] >> 4 != 6 or _IPV6_LENGTH + length > len(packet):
            return None
        return self._find(None)

    @functools.cached_property
    def _fragment(self) -> _Header | None:
        if (self.ethertype != IPV6
                or len(self.octets) < ETHERNET_LENGTH + _IPV6_LENGTH):
            return None
        return self._find(_FRAGMENT)

    def _find(self, wanted: int | None) -> _Header | None:
        """Return a header of IPv6; None if there is none.

        :param wanted: None: the first behind which no other comes, or AH
        """
        said_at = ETHERNET_LENGTH + 6
        start = ETHERNET_LENGTH + _IPV6_LENGTH
        while True:
            number = self.octets[said_at]
            header = _Header(number, start, said_at)
            if number not in _EXTENSIONS or number == _NONE:
                return header if wanted is None else None
            # What says how long it is, or of which fragment, must be there.
            if start + (4 if number == _FRAGMENT else 2) > len(self.octets):
                return None
            if number == wanted or (number == _AUTHENTICATION
                                    and wanted is None):
                return header
            if number == _FRAGMENT:
                if int.from_bytes(self.octets[start + 2:start + 4],
                                  'big') & _PLACE:
                    return self._in_later_fragment(start)
                length = 8
            else:
                length = ((self.octets[start + 1] + 2) * 4
                          if number == _AUTHENTICATION
                          else (self.octets[start + 1] + 1) * 8)
            said_at, start = start, start + length

    def _in_later_fragment(self, start: int) -> _Header | None:
        """Return what is in a fragment but the first, if that ends headers.

        The place where it would begin is that of IPv6 itself, to the kernel.
        """
        number = self.octets[start]
        if number in _EXTENSIONS and number != _NONE:
            return None
        return _Header(number, ETHERNET_LENGTH, start)


def _in_ipv4(packet: bytes) -> _Header | None:
    if len(packet) < _IPV4_LENGTH:
        return None
    start, length = (packet[0] & 15) * 4, int.from_bytes(packet[2:4], 'big')
    if packet[0] >> 4 != 4 or start < _IPV4_LENGTH or not (
            start <= length <= len(packet)):
        return None
    return _Header(packet[9], ETHERNET_LENGTH + start, ETHERNET_LENGTH + 9)


def _number(what: nftx.Load, kind: int) -> int:
    return int.from_bytes(what.values.get(kind, b''), 'big')
