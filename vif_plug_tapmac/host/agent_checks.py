# SPDX-License-Identifier: Apache-2.0

"""What can be wrong with what keeps guests to their security groups."""

from vif_plug_tapmac.host.finding import finds
from vif_plug_tapmac.host.finding import REBOOT
from vif_plug_tapmac.host.finding import REPLUG
from vif_plug_tapmac.host.finding import Seen
from vif_plug_tapmac.host.inventory import Inventory
from vif_plug_tapmac.host import keeping
from vif_plug_tapmac.host.tap import Tap
from vif_plug_tapmac.kernel import adopting
from vif_plug_tapmac.kernel import agent_strangers
from vif_plug_tapmac.kernel import agent_table
from vif_plug_tapmac.kernel import filter_table
from vif_plug_tapmac import mark

_TABLE = 'the table bridge %s' % filter_table.NAME
_AGENT_ANEW = ('start the agent again, which says anew what passes, and find '
               'out who changed it: "nft monitor" tells what others do')
_AGENT = 'see that the agent runs, and what it logs'


@finds('TM235')
def _unfiltered(seen: Inventory, tap: Tap) -> Seen:
    if not keeping.is_to_be_the_agents(seen, tap):
        return
    why = None if tap.is_ours else adopting.obstacle(tap.link)
    yield (tap.link.name, 'firewall is agent, and it is in link group %d '
           'instead of %d%s' % (tap.link.group, seen.agent_group,
                                ': %s' % why if why else ''),
           _AGENT if tap.is_ours else REBOOT if why or tap.mark else REPLUG)


@finds('TM236')
def _unknown(seen: Inventory, tap: Tap) -> Seen:
    if (tap.link.group == seen.agent_group and tap.bridge is not None
            and seen.guest_filter is not None
            and seen.guest_filter.version is not None
            and tap.link.index not in seen.guest_filter.fed):
        yield (tap.link.name, '%s has no security groups for it'
               % _TABLE, _AGENT)


@finds('TM316')
def _open(seen: Inventory) -> Seen:
    taps = sorted(link.name for link in seen.links.values()
                  if link.is_tap and link.group == seen.agent_group
                  and link.master is not None)
    found = seen.guest_filter
    if taps and found is not None and not (
            seen.agent_group in found.groups
            and seen.agent_group in found.agent_groups):
        yield ('nftables', 'link group %d is not in the sets %s and %s of %s, '
               'and %s is in it' % (
                   seen.agent_group, filter_table.GROUPS, agent_table.GROUPS,
                   _TABLE, taps[0]), REPLUG)


@finds('TM313')
def _strange(seen: Inventory) -> Seen:
    """Look for what lets pass what no agent has said."""
    found = seen.guest_filter
    if found is None or found.version != filter_table.VERSION or not (
            found.agent_groups):
        return
    there = agent_strangers.look()
    for chain in there.chains:
        yield ('nftables', 'chain %s of %s has not the rules that an agent '
               'makes it of' % (chain, _TABLE), _AGENT_ANEW)
    for index, owners in sorted(there.ports.items()):
        link = seen.links.get(index)
        its = mark.TapMark.parse(link.alias) if link else None
        if link and its and owners != {its.vif_id}:
            yield (link.name, '%s has it for %s, and it is the TAP of VIF %s'
                   % (_TABLE, ' and '.join(
                       sorted(owner or 'nobody' for owner in owners
                              if owner != its.vif_id)), its.vif_id),
                   _AGENT_ANEW)


CHECKS = (_unfiltered, _unknown)
TABLE_CHECKS = (_open, _strange)
