# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""nf_tables: what drops frames on this host, and what we put in to do so."""

import asyncio
import contextlib
import socket
import struct
import typing

from oslo_log import log as logging
from pyroute2.nftables import main as nftables

from vif_plug_tapmac import exception
from vif_plug_tapmac.kernel import netlink as nl

LOG = logging.getLogger(__name__)

_NFPROTO_INET, _NF_INET_FORWARD, _NF_DROP = 1, 2, 0
#: The table and the chain in it that keep guests from the host.
SHIELD = 'tapmac_shield'
#: Source: include/uapi/linux/netfilter.h, NFPROTO_BRIDGE, NF_ACCEPT;
#: linux/netfilter/nf_tables.h: NFT_META_IIFGROUP, NFT_REG_1, NFT_CMP_EQ,
#: NFT_REG_VERDICT
_NFPROTO_BRIDGE, _NF_ACCEPT = 7, 1
_META_IIFGROUP, _REG_1, _CMP_EQ, _REG_VERDICT = 21, 1, 0, 0
#: Before whatever else there may be.
_FIRST = -300


def is_host_shielded(group: int) -> bool:
    """Return whether what ports of a link group send to the host is dropped.

    :raises KernelRefused: nf_tables is missing, or no privilege to ask
    """
    with _bridge_nftables('looking for %s' % SHIELD) as nft:
        return any(rule.get_attr('NFTA_RULE_TABLE') == SHIELD
                   and _drops_group(rule, group) for rule in nft.get_rules())


def shield_host(group: int) -> None:
    """Drop what ports of a link group send to the host through bridges.

    One rule for all of them, whoever is in the group: no port is without. Done
    twice, there are two such rules, and no harm.

    :raises KernelRefused: nf_tables is missing, or no privilege
    """
    with _bridge_nftables('adding %s' % SHIELD) as nft:
        nft.table('add', name=SHIELD)
        nft.chain('add', table=SHIELD, name=SHIELD, type='filter',
                  hook='input', priority=_FIRST, policy=_NF_ACCEPT)
        nft.rule('add', table=SHIELD, chain=SHIELD, expressions=([
            _expression('meta', key=_META_IIFGROUP, dreg=_REG_1),
            _expression('cmp', sreg=_REG_1, op=_CMP_EQ, data={'attrs': [
                ('NFTA_DATA_VALUE', struct.pack('=I', group))]}),
            _expression('immediate', dreg=_REG_VERDICT, data={'attrs': [
                ('NFTA_DATA_VERDICT', {'attrs': [
                    ('NFTA_VERDICT_CODE', _NF_DROP)]})]})],))


def unshield_host() -> None:
    """Remove the table; there is none, or no nf_tables, is success."""
    with contextlib.suppress(exception.KernelRefused):
        with _bridge_nftables('removing %s' % SHIELD) as nft:
            nft.table('del', name=SHIELD)


@contextlib.contextmanager
def _bridge_nftables(step: str) -> typing.Iterator[typing.Any]:
    try:
        with (nftables.NFTables(nfgen_family=_NFPROTO_BRIDGE) as nft,
              nl.in_time(nft)):
            yield nft
    except nl.FAILURES as error:
        raise exception.KernelRefused.from_errno(
            'nftables', step, nl.errno_of(error, 'nftables', step))


def _expression(name: str, **data: typing.Any) -> dict[str, typing.Any]:
    return {'attrs': [
        ('NFTA_EXPR_NAME', name),
        ('NFTA_EXPR_DATA', {'attrs': [
            ('NFTA_%s_%s' % (name.upper(), field.upper()), value)
            for field, value in data.items()]})]}


def _drops_group(rule: typing.Any, group: int) -> bool:
    expressions = rule.get_attr('NFTA_RULE_EXPRESSIONS') or []
    if [each.get_attr('NFTA_EXPR_NAME') for each in expressions] != [
            'meta', 'cmp', 'immediate']:
        return False
    meta, compared, verdict = (each.get_attr('NFTA_EXPR_DATA')
                               for each in expressions)
    value = compared.get_attr('NFTA_CMP_DATA').get_attr('NFTA_DATA_VALUE')
    code = verdict.get_attr('NFTA_IMMEDIATE_DATA').get_attr(
        'NFTA_DATA_VERDICT')
    return bool(meta.get_attr('NFTA_META_KEY') == 'NFT_META_IIFGROUP'
                and compared.get_attr('NFTA_CMP_OP') == 'NFT_CMP_EQ'
                and value == struct.pack('=I', group) and code is not None
                and code.get_attr('NFTA_VERDICT_CODE') == 'NF_DROP')


def chain_that_drops_forwarded() -> str | None:
    """Return a netfilter chain that drops IPv4 unless a rule accepts it.

    Only chains that IPv4 packets pass on their way through the host. Chains of
    the old ip_tables do not show here, those of iptables-nft do.

    :returns: its table and name; None if there is none, or no nf_tables
    Source: include/uapi/linux/netfilter.h
    """
    try:
        with (nftables.NFTables(nfgen_family=socket.AF_UNSPEC) as nft,
              nl.in_time(nft)):
            chains = list(nft.get_chains())
    except (Exception, asyncio.CancelledError) as error:
        # It is for a warning: whatever pyroute2 makes of a ruleset that it
        # does not know, no plug is to fail for it.
        LOG.debug('The chains of netfilter are not known: %r', error)
        return None
    for chain in chains:
        hook = chain.get_attr('NFTA_CHAIN_HOOK')
        if (hook is not None
                and chain['nfgen_family'] in (socket.AF_INET, _NFPROTO_INET)
                and hook.get_attr('NFTA_HOOK_HOOKNUM') == _NF_INET_FORWARD
                and chain.get_attr('NFTA_CHAIN_POLICY') == _NF_DROP):
            return '%s %s' % (chain.get_attr('NFTA_CHAIN_TABLE'),
                              chain.get_attr('NFTA_CHAIN_NAME'))
    return None
