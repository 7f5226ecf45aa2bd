# SPDX-License-Identifier: Apache-2.0

"""What rules of security groups let pass, in words: as the kernel has them.

Pure. What something is called is not the kernel's to say: see
:mod:`agent_names`.
"""

import ipaddress
import typing

from vif_plug_tapmac.host import interpreting
from vif_plug_tapmac.host.interpreting import Condition
from vif_plug_tapmac.host import wording
from vif_plug_tapmac.kernel import group_rules
from vif_plug_tapmac.kernel import nft
from vif_plug_tapmac.kernel import nft_expressions as nftx
from vif_plug_tapmac.wanted import security_groups

_FROM = {security_groups.INGRESS: 'from', security_groups.EGRESS: 'to'}
_FAMILIES = {b'\x08\x00': 4, b'\x86\xdd': 6}
_MESSAGES = 1, 58


def direction(chain: str) -> str:
    """Return to which direction a chain of groups belongs."""
    return next(each for each, prefix in group_rules.PREFIXES.items()
                if chain.startswith(prefix))


def family(rule: nft.Rule) -> int:
    """Return of which family a rule of a group is: 4 or 6.

    :raises NotUnderstood: it is none of a group
    """
    for each in interpreting.meaning(rule).conditions:
        if each.parts == (nftx.ETHERTYPE,) and each.value in _FAMILIES:
            return _FAMILIES[each.value]
    raise interpreting.NotUnderstood(rule, 'no family')


def says(rule: nft.Rule,
         called: typing.Callable[[str], str] = str) -> str:
    """Return what a rule of a group lets pass: "IPv4, TCP 22, from ...".

    :param called: how a group is called, by its UUID
    :raises NotUnderstood: it is none of a group
    """
    said = ['IPv%d' % family(rule)]
    protocol = None
    for each in interpreting.meaning(rule).conditions:
        part, = each.parts
        if part == nftx.ETHERTYPE:
            continue
        if part == nftx.PROTOCOL:
            protocol = each.value[0]
            said.append(wording.value(part, each.value))
        elif part.values[2] == nft.octets(nftx.TRANSPORT):
            said[-1] += ' ' + _ports(each, protocol)
        else:
            said.append('%s %s' % (_FROM[direction(rule.chain)],
                                   _whom(each, called)))
    if group_rules.LATER in rule.chain:
        said.append('later fragments')
    return ', '.join(said)


def _ports(found: Condition, protocol: int | None) -> str:
    if found.how == interpreting.WITHIN:
        return '%d-%d' % (int.from_bytes(found.value, 'big'),
                          int.from_bytes(found.last, 'big'))
    if protocol in _MESSAGES:
        return ' '.join('%s %d' % each for each in zip(
            ('type', 'code'), found.value))
    return str(int.from_bytes(found.value, 'big'))


def _whom(found: Condition, called: typing.Callable[[str], str]) -> str:
    if found.how is None:
        return 'members of %s' % called(found.set.partition('_')[2])
    address = ipaddress.ip_address(found.value)
    if found.mask is None:
        return str(address)
    return '%s/%d' % (address, sum(map(int.bit_count, found.mask)))
