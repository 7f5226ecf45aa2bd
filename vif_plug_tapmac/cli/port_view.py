# SPDX-License-Identifier: Apache-2.0

"""What ``tapmac show`` tells of a port that an agent guards."""

import errno
import ipaddress
import typing

from vif_plug_tapmac.cli import output
from vif_plug_tapmac import exception
from vif_plug_tapmac.host import agent_names
from vif_plug_tapmac.host import group_wording
from vif_plug_tapmac.host.inventory import Inventory
from vif_plug_tapmac.host import keeping
from vif_plug_tapmac.host.tap import Tap
from vif_plug_tapmac.host import wording
from vif_plug_tapmac.kernel import agent_connections
from vif_plug_tapmac.kernel.agent_port import AgentPort
from vif_plug_tapmac.kernel.agent_port import group_of
from vif_plug_tapmac.kernel import conntrack
from vif_plug_tapmac.kernel import group_rules
from vif_plug_tapmac.kernel.nft_rules import Told

#: In this order for all commands.
COLUMNS = 'Passes', 'Security groups', 'Connections'
_UNKNOWN = output.Said(None, 'unknown to all but root')
_NOTHING = 'nothing, as the agent has not said what may'
#: How many rules of a group people are told, and how many connections.
_SHOWN = 100
#: Where an address begins in a key: after the index and the MAC.
_PLACE = 12
_Cells = tuple[typing.Any, typing.Any, typing.Any]


def describe(seen: Inventory, tap: Tap, names: agent_names.Names,
             connections: bool) -> _Cells:
    """Return what a TAP has in each of :data:`COLUMNS`.

    :param connections: whether these are asked for
    """
    if not keeping.is_agents(seen, tap):
        return (None, None, output.Said(None, 'no agent guards this TAP')
                if connections else None)
    try:
        port = keeping.agent_port(tap)
    except exception.TapMacError as error:
        unknown = _UNKNOWN if error.kwargs.get('code') in (
            errno.EPERM, errno.EACCES) else output.Said(
                None, 'unknown: %s' % error)
        return unknown, unknown, unknown if connections else None
    return (_passes(seen, tap, port),
            None if port is None else _groups(port, names),
            _connections(seen, tap, port) if connections else None)


def _passes(seen: Inventory, tap: Tap, port: AgentPort | None) -> str:
    if keeping.is_off(seen, tap.link):
        return 'everything, as "tapmac filter --off" says'
    if not keeping.is_closed(seen, tap.link):
        return 'everything, as no rule is about its link group (see "Wrong")'
    if port is None:
        return _NOTHING
    if port.is_open:
        return 'everything, as port security is off or the port is trusted'
    return 'what its security groups say, %s' % (
        'and answers' if port.stateful else 'which are stateless')


def _groups(port: AgentPort, names: agent_names.Names) -> output.Said:
    """Return its groups, each with its rules; in words a line for each."""
    found = []
    for uuid in port.groups:
        rules = [_rule(uuid, each, port.rules, names) for each in port.rules
                 if group_of(each.rule.chain) == uuid
                 and not each.rule.chain.endswith(group_rules.LATER)]
        found.append({'Id': uuid, 'Name': names.groups.get(uuid),
                      'Rules': rules})
    lines = [line for each in found for line in _lines(each, names)]
    return output.Said(found, '\n'.join(lines) or 'none')


def _rule(group: str, told: Told, rules: typing.Iterable[Told],
          names: agent_names.Names) -> dict[str, typing.Any]:
    rule = told.rule
    # What a rule says of later fragments is in another chain, where one rule
    # is that of all that differ in their ports only.
    counted = [told, *(
        each for each in rules
        if each.rule.chain == rule.chain + group_rules.LATER
        and each.rule.comment == rule.comment
        and group_wording.family(each.rule) == group_wording.family(rule))]
    packets = [each.packets for each in counted if each.packets is not None]
    return {'Id': names.rule(group, rule),
            'Direction': group_wording.direction(rule.chain),
            'Lets pass': group_wording.says(rule, names.group),
            'Packets': sum(packets) if packets else None,
            'Bytes': sum(each.bytes or 0 for each in counted)
            if packets else None}


def _lines(group: dict[str, typing.Any],
           names: agent_names.Names) -> typing.Iterator[str]:
    count = len(group['Rules'])
    yield '%s: %s' % (names.group(group['Id']), _count(count, 'rule'))
    for each in group['Rules'][:_SHOWN]:
        yield '  %s %s: %s%s' % (
            each['Direction'], each['Lets pass'],
            'not counted' if each['Packets'] is None
            else _count(each['Packets'], 'packet'),
            ', rule %s' % each['Id'] if each['Id'] else '')
    if count > _SHOWN:
        yield '  and %d more, with "-f json"' % (count - _SHOWN)


def _count(number: int, what: str) -> str:
    return '%d %s%s' % (number, what, 's' * (number != 1))


def _connections(seen: Inventory, tap: Tap,
                 port: AgentPort | None) -> typing.Any:
    """Return what the kernel keeps of a port's connections."""
    if not agent_connections.is_possible():
        return output.Said(None, 'this kernel keeps none on bridges '
                           '(CONFIG_NF_CONNTRACK_BRIDGE)')
    if port is None or port.zone is None:
        return output.Said([], 'none')
    found = sorted(conntrack.connections(port.zone, set(_own(seen, tap,
                                                             port))))
    lines = [_line(each) for each in found[:_SHOWN]]
    if len(found) > _SHOWN:
        lines.append('and %d more, with "-f json"' % (len(found) - _SHOWN))
    return output.Said([
        {'Protocol': wording.protocol(each.protocol),
         'Source': each.source, 'Destination': each.destination,
         'Source port': each.ports and each.ports[0],
         'Destination port': each.ports and each.ports[1],
         'Answered': each.is_answered, 'Seconds': each.seconds}
        for each in found], '\n'.join(lines) or 'none')


def _line(found: conntrack.Connection) -> str:
    source, destination = (
        (found.source, found.destination) if found.ports is None else
        ('%s port %d' % each for each in zip(
            (found.source, found.destination), found.ports)))
    return '%s %s > %s, %s, %d s' % (
        wording.protocol(found.protocol), source, destination,
        'answered' if found.is_answered else 'not answered', found.seconds)


def _own(seen: Inventory, tap: Tap,
         port: AgentPort) -> typing.Iterator[str]:
    """Yield the addresses and networks that a port may call its own."""
    for each in _elements(seen, tap):
        if each.address is not None:
            yield each.address
    for pairs in port.prefixes.values():
        for first, last in pairs:
            yield from map(str, ipaddress.summarize_address_range(
                *(ipaddress.ip_address(key[_PLACE:])
                  for key in (first, last))))


def _elements(seen: Inventory, tap: Tap) -> typing.Iterable[typing.Any]:
    table = seen.guest_filter
    return () if table is None else table.ports.get(tap.link.index, ())
