# SPDX-License-Identifier: Apache-2.0

"""nf_tables: what chains of others drop on this host.

Source: include/uapi/linux/netfilter/nf_tables.h
"""

import errno
import logging
import socket
import time
import typing

from vif_plug_tapmac import exception
from vif_plug_tapmac.kernel import attributes
from vif_plug_tapmac.kernel.attributes import Attributes
from vif_plug_tapmac.kernel import filter_table
from vif_plug_tapmac.kernel import nft

LOG = logging.getLogger(__name__)

#: NFT_MSG_..., each of NFNL_SUBSYS_NFTABLES.
_NEW_CHAIN, _GET_CHAIN = (10 << 8 | number for number in (3, 4))

#: Attributes.
_CHAIN_TABLE, _CHAIN_NAME, _CHAIN_HOOK, _CHAIN_POLICY = 1, 3, 4, 5
_CHAIN_USE = 6
_HOOK_NUMBER, _HOOK_DEVICE, _HOOK_DEVICES = 1, 3, 4
#: Of a device among several: it is how names begin (NFTA_DEVICE_PREFIX).
_BEGINS_SO = 2
#: The families with chains of devices; the first is NFPROTO_NETDEV.
_FAMILIES_OF_DEVICES = {5: 'netdev', nft.INET: 'inet'}
#: Source: include/uapi/linux/netfilter.h
_DROP, _ACCEPT = 0, 1
#: What goes from port to port passes these hooks: prerouting, forward and
#: postrouting, of each family.
_ON_THE_WAY = 0, 2, 4
#: And by the family of a chain, what of it passes that.
IPV4, IPV6, FRAMES = 'IPv4', 'IPv6', 'Ethernet'
_PASSED_BY = {socket.AF_INET: (IPV4,), socket.AF_INET6: (IPV6,),
              nft.INET: (IPV4, IPV6), nft.BRIDGE: (FRAMES,)}
#: Table and chain that iptables-nft makes for what is forwarded, and
#: ip6tables-nft and ebtables-nft in their families.
_IPTABLES = 'filter', 'FORWARD'
#: Of a rule: what is in it beside a condition and what becomes of the frame;
#: and attributes of that. Source: as above, and
#: include/uapi/linux/netfilter/nf_tables_compat.h
_WITHOUT_CONDITION = ('counter', 'log')
_TARGET_NAME, _IMMEDIATE_DATA, _VERDICT, _CODE = 1, 2, 2, 1
#: In seconds: how long a look at other people's chains may take.
_LOOKS_FOR = 0.05


def generation() -> int | None:
    """Return a number that is another one after each change of all rules.

    :returns: None where nobody knows: nf_tables is missing, or no privilege
    """
    try:
        with nft.Session() as session:
            return session.generation()
    except exception.KernelRefused as error:
        LOG.debug('The rules of netfilter are not known: %s', error)
        return None


def chains_that_drop(seconds: float | None = None,
                     by_rule: bool = False) -> dict[str, str]:
    """Return chains that drop what goes from port to port of a bridge.

    Unless a rule accepts it. IPv4 and IPv6 pass those of the host only where
    br_netfilter has them do so. Chains of the old ip_tables do not show here,
    those of iptables-nft do.

    Those that iptables-nft makes are asked for by their name. Others may be
    among tens of thousands.

    :param seconds: for how long these are looked at; None: as a plug may
    :param by_rule: whether those count, too, that have a rule which drops, or
        rejects, all that comes to it: firewalld ends so
    :returns: table and name of one, by what it drops: IPV4, IPV6 or FRAMES;
        none where none is known
    """
    found: dict[str, str] = {}
    end = time.monotonic() + (_LOOKS_FOR if seconds is None else seconds)
    passed: list[_Chain] = []
    try:
        with nft.Session() as session:
            for family in socket.AF_INET, socket.AF_INET6, nft.BRIDGE:
                found |= session.ask(
                    'nftables', 'looking up chain %s %s' % _IPTABLES,
                    _GET_CHAIN, _body(
                        family, attributes.text(_CHAIN_TABLE, _IPTABLES[0]),
                        attributes.text(_CHAIN_NAME, _IPTABLES[1])),
                    _NEW_CHAIN, _dropped, tolerated=errno.ENOENT) or {}
            for body in session.some(
                    'nftables', 'listing its chains', _GET_CHAIN,
                    _body(socket.AF_UNSPEC), lambda body: body,
                    end - time.monotonic()):
                found = _dropped(body) | found
                passed += _passed(body) if by_rule else ()
        with nft.Session() as session:
            for chain in passed:
                if time.monotonic() > end:
                    break
                if _ends_all(session.on(chain.family).rules(chain.table,
                                                            chain.name)):
                    found = _by_family(chain) | found
    except exception.KernelRefused as error:
        # It is for a warning: no plug is to fail for it.
        LOG.debug('The chains of netfilter are not known: %s', error)
    return found


class OfDevice(typing.NamedTuple):
    """A chain that frames of one device come to, before or after all else.

    :param device: its name, or how names begin with "*" behind it
    :param name: family, table and chain, as nft has them
    """
    device: str
    name: str


def chains_of_devices(seconds: float) -> list[OfDevice]:
    """Return those of nftables, but for the ones that let all pass.

    :param seconds: for how long they are looked at
    :returns: none where none is known
    """
    found: list[OfDevice] = []
    try:
        for family, name in _FAMILIES_OF_DEVICES.items():
            with nft.Session() as session:
                for body in session.some(
                        'nftables', 'listing its chains', _GET_CHAIN,
                        _body(family), lambda body: body, seconds):
                    told = nft.read(body)
                    if (nft.value(told, _CHAIN_POLICY) == _ACCEPT
                            and not nft.value(told, _CHAIN_USE)):
                        continue
                    found += [OfDevice(device, '%s %s %s' % (
                        name, told.text(_CHAIN_TABLE),
                        told.text(_CHAIN_NAME))) for device in _devices(
                            told.nested(_CHAIN_HOOK))]
    except exception.KernelRefused as error:
        LOG.debug('The chains of devices are not known: %s', error)
    return found


def _devices(hook: Attributes) -> list[str]:
    """Return what a chain is for."""
    several = hook.octets(_HOOK_DEVICES)
    if several is None:
        return [device for device in [hook.text(_HOOK_DEVICE)] if device]
    return [octets.rstrip(b'\0').decode('utf-8', 'replace')
            + '*' * (kind == _BEGINS_SO)
            for kind, octets in attributes.every(several)]


class _Chain(typing.NamedTuple):
    """A chain on the way from port to port."""
    family: int
    table: str
    name: str


def _dropped(body: bytes) -> dict[str, str]:
    """Return what a chain drops on its way, each with its table and name."""
    return {what: name for chain in _on_the_way(body, _DROP)
            for what, name in _by_family(chain).items()}


def _passed(body: bytes) -> list[_Chain]:
    """Return a chain, not ours, that lets pass what no rule of it drops."""
    return [chain for chain in _on_the_way(body, _ACCEPT)
            if (chain.family, chain.table) != (nft.BRIDGE, filter_table.NAME)]


def _on_the_way(body: bytes, policy: int) -> typing.Iterator[_Chain]:
    """Yield the chain of a message, if it is one on the way, of a policy."""
    told = nft.read(body)
    if (nft.value(told.nested(_CHAIN_HOOK), _HOOK_NUMBER) in _ON_THE_WAY
            and nft.value(told, _CHAIN_POLICY) == policy
            and body[0] in _PASSED_BY):
        yield _Chain(body[0], told.text(_CHAIN_TABLE) or '',
                     told.text(_CHAIN_NAME) or '')


def _by_family(chain: _Chain) -> dict[str, str]:
    return dict.fromkeys(_PASSED_BY[chain.family],
                         '%s %s' % (chain.table, chain.name))


def _ends_all(rules: list[bytes]) -> bool:
    """Return whether nothing gets to the end of these rules.

    By a rule without a condition that drops or rejects. Who reads on after an
    accept for all reads what does not count.
    """
    for body in rules:
        verdicts = _unconditional(body)
        if verdicts is not None:
            return verdicts
    return False


def _unconditional(body: bytes) -> bool | None:
    """Return what a rule does with all: True: drops, False: lets pass.

    :returns: None: neither, or it has a condition
    """
    for _, octets in attributes.every(nft.read(body).octets(
            nft.RULE_EXPRESSIONS) or b''):
        told = Attributes(octets)
        name = told.text(nft.EXPRESSION_NAME)
        data = told.nested(nft.EXPRESSION_DATA)
        if name == 'reject' or name == 'target' and data.text(
                _TARGET_NAME) in ('REJECT', 'DROP'):
            return True
        if name == 'immediate':
            code = nft.value(data.nested(_IMMEDIATE_DATA).nested(_VERDICT),
                             _CODE)
            return code == _DROP if code in (_DROP, _ACCEPT) else None
        if name not in _WITHOUT_CONDITION:
            return None
    return None


def _body(family: int, *parts: bytes) -> bytes:
    """Return the body of a message on a family."""
    return nft.of_family(family, nft.body(*parts))
