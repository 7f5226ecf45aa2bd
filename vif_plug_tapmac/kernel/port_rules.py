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
from vif_plug_tapmac.kernel import attributes
from vif_plug_tapmac.kernel.attributes import Attributes
from vif_plug_tapmac.kernel import nft
from vif_plug_tapmac.kernel import nftables

#: NFNL_SUBSYS_NFTABLES and NFT_MSG_GETRULE; struct nfgenmsg.
_GET_RULE, _ABOUT = 10 << 8 | 7, struct.Struct('>BBH')
#: NFPROTO_..., and what passes its tables.
_PASSING = {socket.AF_INET: nftables.IPV4, socket.AF_INET6: nftables.IPV6,
            7: nftables.FRAMES}
#: Errno where this kernel has no nf_tables.
_MISSING = errno.EPROTONOSUPPORT, errno.EINVAL, errno.EOPNOTSUPP
#: Attributes of a rule of nf_tables, and of what is in it: the name of each
#: expression and its data; which meta; of a comparison, the other side; of a
#: verdict, the way to its number; of a match of iptables, name and data.
#: Source: include/uapi/linux/netfilter/nf_tables.h, nf_tables_compat.h
_TABLE, _CHAIN, _EXPRESSIONS = 1, 2, 4
_NAME, _DATA = 1, 2
_META_KEY, _COMPARED_WITH, _VALUE = 2, 3, 1
_IMMEDIATE, _VERDICT, _CODE = 2, 2, 1
_MATCH_NAME, _MATCH_DATA = 1, 3
#: NFT_META_IIFNAME and NFT_META_OIFNAME
_META_NAMES = 6, 7
#: Of a rule that keeps something back, or has another chain do so: NF_DROP,
#: NFT_JUMP, NFT_GOTO.
_KEEPS = 0, -3 & 0xffffffff, -4 & 0xffffffff
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
    return [each for look in (
        *map(_of_nf_tables, _PASSING), *map(_of_old_tables, _FAMILIES))
        for each in look]


def _of_nf_tables(family: int) -> list[PortRule]:
    """Return those of nf_tables, none where that is missing."""
    try:
        with nft.Session() as asked:
            found = asked.list(
                'nftables', 'listing its rules', _GET_RULE,
                _ABOUT.pack(family, 0, 0),
                lambda body: _of(_PASSING[family], nft.read(body)))
    except exception.KernelRefused as error:
        if error.kwargs.get('code') in _MISSING:
            return []
        raise
    return [each for rules in found for each in rules]


def _of(what: str, rule: Attributes) -> list[PortRule]:
    """Return what a rule of nf_tables says of each port."""
    names: list[str] = []
    physdev: list[str] = []
    verdict, is_name = None, False
    for _, value in attributes.every(rule.octets(_EXPRESSIONS) or b''):
        expression = Attributes(value)
        name, data = expression.text(_NAME), expression.nested(_DATA)
        if name == 'cmp' and is_name:
            names.append(_pattern(
                data.nested(_COMPARED_WITH).octets(_VALUE) or b''))
        is_name = name == 'meta' and nft.value(data, _META_KEY) in _META_NAMES
        if name == 'match' and data.text(_MATCH_NAME) == 'physdev':
            physdev = _of_physdev(data.octets(_MATCH_DATA) or b'')
        if name == 'immediate':
            verdict = nft.value(data.nested(_IMMEDIATE).nested(_VERDICT),
                                _CODE)
    # Elsewhere the names are those of bridges, and of what is routed.
    is_frames = what == nftables.FRAMES
    table, chain = rule.text(_TABLE) or '', rule.text(_CHAIN) or ''
    return [PortRule(what, _PROGRAMS[what], '%s %s' % (table, chain), port,
                     verdict in _KEEPS
                     and (is_frames or table not in _PREPARING))
            for port in (names if is_frames else physdev)]


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
