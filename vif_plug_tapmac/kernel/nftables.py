# SPDX-License-Identifier: Apache-2.0

"""nf_tables: what drops frames on this host, and what we put in to do so.

Its bytes are those of nft.py, which makes them for bridges, here on other
families, too. Source: include/uapi/linux/netfilter/nf_tables.h
"""

import contextlib
import dataclasses
import errno
import logging
import socket
import struct

from vif_plug_tapmac import exception
from vif_plug_tapmac.kernel import attributes
from vif_plug_tapmac.kernel.attributes import Attributes
from vif_plug_tapmac.kernel import nft
from vif_plug_tapmac.kernel import nft_expressions
from vif_plug_tapmac.kernel import rtnetlink

LOG = logging.getLogger(__name__)

#: The tables, one of each family, and the chain in each, that keep guests from
#: the host.
SHIELD = 'tapmac_shield'

#: NFT_MSG_..., each of NFNL_SUBSYS_NFTABLES.
_NEW_TABLE, _NEW_CHAIN, _GET_CHAIN, _GET_RULE, _DELETE_RULE = (
    10 << 8 | number for number in (0, 3, 4, 7, 8))
_NFPROTO_INET, _NFPROTO_ARP, _NFPROTO_BRIDGE = 1, 3, 7

#: Attributes.
_TABLE_NAME = 1
_CHAIN_TABLE, _CHAIN_NAME, _CHAIN_HOOK, _CHAIN_POLICY = 1, 3, 4, 5
_HOOK_NUMBER = 1
_RULE_TABLE, _RULE_CHAIN, _RULE_HANDLE, _RULE_EXPRESSIONS = 1, 2, 3, 4
_RULE_USERDATA = 7
_EXPRESSION_NAME, _EXPRESSION_DATA = 1, 2
_META_KEY, _COMPARE_HOW, _COMPARE_WITH = 2, 2, 3
_IMMEDIATE_DATA, _DATA_VALUE, _DATA_VERDICT, _VERDICT_CODE = 2, 1, 2, 1
#: NFT_META_IIFGROUP
_IIFGROUP = 21
#: Source: include/uapi/linux/netfilter.h, linux/netfilter_bridge.h
_DROP = 0
_INET_PREROUTING, _ARP_INPUT, _BRIDGE_INPUT = 0, 0, 1
#: Where what ports send to the host passes: family, how nft calls that, hook.
#: From the bridge; but what is sent to 01:80:c2:00:00:0e, which is for LLDP,
#: comes from the port itself, and passes no hook of the bridge on its way to
#: IP and ARP. Source: net/bridge/br_input.c, br_handle_frame
_WAYS_TO_THE_HOST = ((_NFPROTO_BRIDGE, 'bridge', _BRIDGE_INPUT),
                     (_NFPROTO_INET, 'inet', _INET_PREROUTING),
                     (_NFPROTO_ARP, 'arp', _ARP_INPUT))
_FAMILIES = {family: name for family, name, _ in _WAYS_TO_THE_HOST}
#: What goes from port to port passes these hooks: prerouting, forward and
#: postrouting, of each family.
_ON_THE_WAY = 0, 2, 4
#: And by the family of a chain, what of it passes that.
IPV4, IPV6, FRAMES = 'IPv4', 'IPv6', 'Ethernet'
_PASSED_BY = {socket.AF_INET: (IPV4,), socket.AF_INET6: (IPV6,),
              _NFPROTO_INET: (IPV4, IPV6), _NFPROTO_BRIDGE: (FRAMES,)}
#: Before whatever else there may be.
_FIRST = -300
#: Before whose a rule is, in its comment.
_OF = 'host_shield of '
#: Table and chain that iptables-nft makes for what is forwarded, and
#: ip6tables-nft and ebtables-nft in their families.
_IPTABLES = 'filter', 'FORWARD'
#: How often to look again for what to remove while others change rules.
_ROUNDS = 5
#: In seconds: how long a look at other people's chains may take.
_LOOKS_FOR = 0.05


@dataclasses.dataclass(frozen=True)
class Shield:
    """A rule that keeps what ports of a link group send from the host.

    :param family: of its table, by the name that nft has for it
    :param handle: by which the kernel knows it
    :param service: whose it is; None: it does not say
    """
    family: str
    handle: int
    group: int
    service: str | None

    def is_of(self, group: int, service: str | None) -> bool:
        """Return whether it is for a link group, and of a service.

        :param service: None: of any
        """
        return self.group == group and service in (None, self.service)


def host_shields() -> list[Shield]:
    """Return those of all services on this host.

    :raises KernelRefused: nf_tables is missing, or no privilege to ask
    """
    with nft.Session() as session:
        return [rule for family in _FAMILIES
                for _, rule in _rules(session, family) if rule is not None]


def is_host_shielded(group: int, service: str | None = None) -> bool:
    """Return whether what ports of a link group send to the host is dropped.

    :param service: by whose rules; None: by anybody's
    :raises KernelRefused: nf_tables is missing, or no privilege to ask
    """
    return {shield.family for shield in host_shields() if shield.is_of(
        group, service)} == set(_FAMILIES.values())


def shield_host(group: int, service: str = '') -> None:
    """Drop what ports of a link group send to the host through bridges.

    One rule of each family for all of them, whoever is in the group: no port
    is without. Done twice, there are two such rules, and no harm.

    :param service: whose rules they are to be, which "nft list" shows as their
        comment: :attr:`Limits.service`
    :raises KernelRefused: nf_tables is missing, or no privilege
    """
    with nft.Session() as session:
        session.transact('adding %s' % SHIELD, [
            step for family, _, hook in _WAYS_TO_THE_HOST
            for step in _additions(family, hook, group, service)])


def _additions(family: int, hook: int, group: int,
               service: str) -> list[nft.Step]:
    return [
        (_NEW_TABLE, rtnetlink.CREATE,
         _body(family, attributes.text(_TABLE_NAME, SHIELD))),
        _of_family(family, nft.new_chain(SHIELD, nft.Chain(
            SHIELD, (hook, _FIRST)))),
        _of_family(family, nft.new_rule(SHIELD, nft.Rule(
            SHIELD, _dropping(group), _OF + service)))]


def unshield_host(group: int | None = None,
                  service: str | None = None) -> None:
    """Remove the rules of a link group, and each table with its last one.

    Another service on this host may have its own. There is none, or no
    nf_tables, is success.

    :param group: None: whatever is in the tables
    :param service: whose rules; None: anybody's
    """
    for family in _FAMILIES:
        with (contextlib.suppress(exception.KernelRefused),
              nft.Session() as session):
            _unshield(session, family, group, service)


def _unshield(session: nft.Session, family: int, group: int | None,
              service: str | None) -> None:
    for _ in range(_ROUNDS):
        generation = session.generation()
        rules = _rules(session, family)
        own = [handle for handle, rule in rules if group is None
               or rule is not None and rule.is_of(group, service)]
        if group is not None and not own:
            return
        # Between the look and this nobody is to add one.
        if session.transact(
                'removing %s' % SHIELD,
                [_deletion(family, handle) for handle in own]
                if len(own) < len(rules) else
                [_of_family(family, nft.delete_table(SHIELD))],
                only_if=generation):
            return


def _rules(session: nft.Session,
           family: int) -> list[tuple[bytes, Shield | None]]:
    """Return what is in our table: each with its handle, if it is a shield.

    :param family: one: of all families, the kernel lists the first table that
        is called so. Source: net/netfilter/nf_tables_api.c,
        nf_tables_dump_rules
    :returns: None beside the handle of any other rule
    """
    return session.list(
        'nftables', 'looking for %s' % SHIELD, _GET_RULE,
        _body(family, attributes.text(_RULE_TABLE, SHIELD)), _rule)


def _rule(body: bytes) -> tuple[bytes, Shield | None]:
    rule = nft.read(body)
    handle, group = rule.octets(_RULE_HANDLE) or b'', _dropped_group(rule)
    return handle, None if group is None else Shield(
        _FAMILIES.get(body[0], ''), int.from_bytes(handle, 'big'), group,
        _service(nft.comment_of(rule.octets(_RULE_USERDATA))))


def _service(comment: str) -> str | None:
    """Return whose a rule is, by its comment; None if that does not say."""
    return comment.removeprefix(_OF) if comment.startswith(_OF) else None


def _deletion(family: int, handle: bytes) -> nft.Step:
    return _DELETE_RULE, 0, _body(
        family, attributes.text(_RULE_TABLE, SHIELD),
        attributes.text(_RULE_CHAIN, SHIELD),
        attributes.attribute(_RULE_HANDLE, handle))


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


def chains_that_drop(seconds: float | None = None) -> dict[str, str]:
    """Return chains that drop what goes from port to port of a bridge.

    Unless a rule accepts it. IPv4 and IPv6 pass those of the host only where
    br_netfilter has them do so. Chains of the old ip_tables do not show here,
    those of iptables-nft do.

    Those that iptables-nft makes are asked for by their name. Others may be
    among tens of thousands.

    :param seconds: for how long these are looked at; None: as a plug may
    :returns: table and name of one, by what it drops: IPV4, IPV6 or FRAMES;
        none where none is known
    """
    found: dict[str, str] = {}
    try:
        with nft.Session() as session:
            for family in socket.AF_INET, socket.AF_INET6, _NFPROTO_BRIDGE:
                found |= session.ask(
                    'nftables', 'looking up chain %s %s' % _IPTABLES,
                    _GET_CHAIN, _body(
                        family, attributes.text(_CHAIN_TABLE, _IPTABLES[0]),
                        attributes.text(_CHAIN_NAME, _IPTABLES[1])),
                    _NEW_CHAIN, _dropped, tolerated=errno.ENOENT) or {}
            for dropped in session.some(
                    'nftables', 'listing its chains', _GET_CHAIN,
                    _body(socket.AF_UNSPEC), _dropped,
                    _LOOKS_FOR if seconds is None else seconds):
                found = dropped | found
    except exception.KernelRefused as error:
        # It is for a warning: no plug is to fail for it.
        LOG.debug('The chains of netfilter are not known: %s', error)
    return found


def _dropped(body: bytes) -> dict[str, str]:
    """Return what a chain drops on its way, each with its table and name."""
    chain = nft.read(body)
    if (nft.value(chain.nested(_CHAIN_HOOK), _HOOK_NUMBER) not in _ON_THE_WAY
            or nft.value(chain, _CHAIN_POLICY) != _DROP):
        return {}
    name = '%s %s' % (chain.text(_CHAIN_TABLE), chain.text(_CHAIN_NAME))
    return dict.fromkeys(_PASSED_BY.get(body[0], ()), name)


def _dropping(group: int) -> tuple[nft.Expression, ...]:
    """Return the expressions that drop what comes from a link group."""
    return (*nft_expressions.is_so(
        nft_expressions.IIFGROUP, nft_expressions.EQUAL,
        struct.pack('=I', group)), *nft_expressions.DROP)


def _dropped_group(rule: Attributes) -> int | None:
    """Return the group of a rule that has what :func:`_dropping` returns."""
    if rule.text(_RULE_TABLE) != SHIELD:
        return None
    expressions = [Attributes(value) for _, value in attributes.every(
        rule.octets(_RULE_EXPRESSIONS) or b'')]
    if [each.text(_EXPRESSION_NAME) for each in expressions] != [
            'meta', 'cmp', 'immediate']:
        return None
    meta, compared, immediate = (each.nested(_EXPRESSION_DATA)
                                 for each in expressions)
    verdict = immediate.nested(_IMMEDIATE_DATA).nested(_DATA_VERDICT)
    if (nft.value(meta, _META_KEY) != _IIFGROUP
            or nft.value(compared, _COMPARE_HOW) != nft_expressions.EQUAL
            or nft.value(verdict, _VERDICT_CODE) != _DROP):
        return None
    return compared.nested(_COMPARE_WITH).number(_DATA_VALUE)


def _body(family: int, *parts: bytes) -> bytes:
    """Return the body of a message on a family."""
    return _in_family(family, nft.body(*parts))


def _of_family(family: int, step: nft.Step) -> nft.Step:
    """Return the same step on another family."""
    kind, flags, body = step
    return kind, flags, _in_family(family, body)


def _in_family(family: int, body: bytes) -> bytes:
    # The first octet: struct nfgenmsg of linux/netfilter/nfnetlink.h.
    return bytes([family]) + body[1:]
