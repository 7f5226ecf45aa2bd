# SPDX-License-Identifier: Apache-2.0

"""Rules that other programs made for ports of bridges, by their names.

Whoever filters guests by iptables has the match "physdev" for it, and the rule
counts where br_netfilter hands over what is bridged; who does it by ebtables
compares names. Rules of nf_tables are asked for by netlink, those of the old
ip_tables as iptables-legacy does, by an option of a socket; those of the old
ebtables are not seen.
"""

import contextlib
import ctypes
import errno
import os
import socket
import struct
import sys
import typing

from vif_plug_tapmac import exception
from vif_plug_tapmac.kernel import nftables

#: Of a rule that keeps something back, or has another chain do so: NF_DROP,
#: NFT_JUMP, NFT_GOTO.
_KEEPS = 0, -3, -4
#: Where rules prepare frames, and keep none back.
_PREPARING = 'raw', 'nat', 'mangle'
#: struct xt_physdev_info: in, its mask, out, its mask, inverted, which count.
#: Source: include/uapi/linux/netfilter/xt_physdev.h
_PHYSDEV = struct.Struct('16s16s16s16sBB')
_IN, _OUT = 1, 2
#: Which tables of ip_tables are there: to ask for another would make it.
_TABLES = '/proc/thread-self/net/%s_tables_names'
#: Source: include/uapi/linux/netfilter_ipv4/ip_tables.h, struct ipt_getinfo,
#: ipt_get_entries; linux/netfilter/x_tables.h
_GET_INFO, _GET_ENTRIES = 64, 65
_INFO = struct.Struct('32s13I')
_ENTRIES = struct.Struct('32sI4x')
_MATCH = struct.Struct('H29sB')
_PLACES = struct.Struct('HH')
#: Of a rule's standard target: NF_DROP as it is there; what is not below 0 is
#: where the chain begins that it goes on in.
_OLD_DROP = -1
#: How often to ask again where others change rules meanwhile.
_ROUNDS = 5


class PortRule(typing.NamedTuple):
    """A rule about a port of a bridge.

    :param what: passes it: nftables.IPV4, IPV6 or FRAMES
    :param program: which shows it
    :param chain: its table and its name
    :param port: the name; of all that begin so if there is a "+" at its end
    :param filters: whether it keeps something back, or hands it to a chain
        that may
    """
    what: str
    program: str
    chain: str
    port: str
    filters: bool

    def is_about(self, name: str) -> bool:
        """Return whether it is about the port of this name."""
        return (name.startswith(self.port[:-1]) if self.port.endswith('+')
                else name == self.port)


class _Family(typing.NamedTuple):
    """How the old ip_tables has rules of IPv4 or IPv6.

    :param entry: how long what comes before the matches of a rule is
    :param places: where in it that is, and how long the whole rule
    """
    what: str
    program: str
    level: int
    tables: str
    entry: int
    places: int


#: Source: include/uapi/linux/netfilter_ipv4/ip_tables.h, struct ipt_entry;
#: linux/netfilter_ipv6/ip6_tables.h, struct ip6t_entry
_FAMILIES = {
    socket.AF_INET: _Family(nftables.IPV4, 'iptables-legacy',
                            socket.IPPROTO_IP, 'ip', 112, 88),
    socket.AF_INET6: _Family(nftables.IPV6, 'ip6tables-legacy',
                             socket.IPPROTO_IPV6, 'ip6', 168, 140)}
#: What shows those of nf_tables.
_PROGRAMS = {nftables.IPV4: 'iptables-nft', nftables.IPV6: 'ip6tables-nft',
             nftables.FRAMES: 'ebtables-nft'}


def all_of_them() -> list[PortRule]:
    """Return all rules about ports of bridges.

    :raises KernelRefused: no privilege to ask, as anybody but root
    """
    found = [each for rule in nftables.rules() for each in _of(rule)]
    for family in _FAMILIES:
        found.extend(_of_old_tables(family))
    return found


def _of(rule: nftables.Rule) -> typing.Iterator[PortRule]:
    """Yield what a rule of nf_tables says of each port."""
    ports = [] if rule.physdev is None else _of_physdev(rule.physdev)
    filters = rule.verdict in _KEEPS and rule.table not in _PREPARING
    if rule.what == nftables.FRAMES:
        # There the names of ports are those of what a frame comes in by.
        ports = [_pattern(each) for each in rule.ports]
        filters = rule.verdict in _KEEPS
    for port in ports:
        yield PortRule(rule.what, _PROGRAMS[rule.what],
                       '%s %s' % (rule.table, rule.chain), port, filters)


def _pattern(name: bytes) -> str:
    """Return a name, or how names begin, as far as it is compared."""
    return _text(name) + ('' if name.endswith(b'\0') else '+')


def _of_physdev(data: bytes) -> list[str]:
    """Return the ports that a match names."""
    came, came_mask, goes, goes_mask, _, which = _PHYSDEV.unpack_from(data)
    return [_pattern(name[:len(mask.rstrip(b'\0'))])
            for flag, name, mask in ((_IN, came, came_mask),
                                     (_OUT, goes, goes_mask)) if which & flag]


def _text(octets: bytes) -> str:
    return octets.split(b'\0')[0].decode('utf-8', 'replace')


def _of_old_tables(family: socket.AddressFamily) -> list[PortRule]:
    """Return those of the old ip_tables, none where that is not used."""
    about = _FAMILIES[family]
    try:
        with open(_TABLES % about.tables) as opened:
            tables = opened.read().split()
        with socket.socket(family, socket.SOCK_DGRAM) as asked:
            return [each for table in tables
                    for each in _of_old(asked, about, table)]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise exception.KernelRefused.from_errno(
            about.program, 'listing its rules', error.errno or errno.EIO)


def _of_old(asked: socket.socket, about: _Family,
            table: str) -> typing.Iterator[PortRule]:
    chain, place = '', 0
    rules = _entries(asked, about, table)
    while place + about.entry <= len(rules):
        target, following = _PLACES.unpack_from(rules, place + about.places)
        if not about.entry <= target < following:
            return
        matches = rules[place + about.entry:place + target]
        _, name, _ = _MATCH.unpack_from(rules, place + target)
        data = rules[place + target + _MATCH.size:place + following]
        if _text(name) == 'ERROR':  # Which is how a chain of users begins.
            chain = _text(data)
        filters = (table not in _PREPARING and not _text(name)
                   and int.from_bytes(data[:4], sys.byteorder, signed=True)
                   >= _OLD_DROP)
        for port in _of_matches(matches):
            yield PortRule(about.what, about.program,
                           ' '.join(filter(None, (table, chain))), port,
                           filters)
        place += following


def _of_matches(data: bytes) -> list[str]:
    while len(data) >= _MATCH.size:
        size, name, _ = _MATCH.unpack_from(data)
        if _text(name) == 'physdev':
            return _of_physdev(data[_MATCH.size:])
        if size < _MATCH.size:
            break
        data = data[size:]
    return []


def _entries(asked: socket.socket, about: _Family, table: str) -> bytes:
    """Return all rules of a table as they are in the kernel."""
    for _ in range(_ROUNDS):
        info = _option(asked, about.level, _GET_INFO,
                       _INFO.pack(table.encode(), *[0] * 13))
        size = _INFO.unpack(info)[-1]
        # Somebody was there meanwhile: their size is another.
        with contextlib.suppress(BlockingIOError):
            return _option(asked, about.level, _GET_ENTRIES,
                           _ENTRIES.pack(table.encode(), size)
                           + bytes(size))[_ENTRIES.size:]
    raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))


def _option(asked: socket.socket, level: int, option: int,
            question: bytes) -> bytes:
    """Ask by an option that has the question where the answer comes.

    Python's own has no place for a question.
    """
    buffer = ctypes.create_string_buffer(question, len(question))
    size = ctypes.c_uint32(len(question))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.getsockopt(asked.fileno(), level, option, buffer,
                       ctypes.byref(size)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return buffer.raw
