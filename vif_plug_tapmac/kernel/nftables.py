# SPDX-License-Identifier: Apache-2.0

"""nf_tables: what chains of others drop on this host.

Source: include/uapi/linux/netfilter/nf_tables.h
"""

import errno
import logging
import socket

from vif_plug_tapmac import exception
from vif_plug_tapmac.kernel import attributes
from vif_plug_tapmac.kernel import nft

LOG = logging.getLogger(__name__)

#: NFT_MSG_..., each of NFNL_SUBSYS_NFTABLES.
_NEW_CHAIN, _GET_CHAIN = (10 << 8 | number for number in (3, 4))

#: Attributes.
_CHAIN_TABLE, _CHAIN_NAME, _CHAIN_HOOK, _CHAIN_POLICY = 1, 3, 4, 5
_HOOK_NUMBER = 1
#: Source: include/uapi/linux/netfilter.h
_DROP = 0
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
            for family in socket.AF_INET, socket.AF_INET6, nft.BRIDGE:
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


def _body(family: int, *parts: bytes) -> bytes:
    """Return the body of a message on a family."""
    return nft.of_family(family, nft.body(*parts))
