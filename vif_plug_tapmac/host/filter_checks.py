# SPDX-License-Identifier: Apache-2.0

"""Whose rules filter guests that are to be tapmac's, and what becomes of that.

Rules of an agent that is gone stay as they are, and may be all that a guest is
filtered by: whoever takes them away, or has bridges pass netfilter by, opens
that guest.
"""

import collections
import dataclasses
import functools
import os
import typing

from vif_plug_tapmac import exception
from vif_plug_tapmac.host.finding import Finding
from vif_plug_tapmac.host.finding import finds
from vif_plug_tapmac.host.finding import Remedy
from vif_plug_tapmac.host.finding import Seen
from vif_plug_tapmac.host.inventory import Inventory
from vif_plug_tapmac.host import keeping
from vif_plug_tapmac.host.tap import Tap
from vif_plug_tapmac.kernel import bridge_health
from vif_plug_tapmac.kernel.link import Link
from vif_plug_tapmac.kernel import nftables
from vif_plug_tapmac.kernel import port_rules
from vif_plug_tapmac.wanted import names

#: Of devices in one finding: a host may have a thousand.
_MOST_SHOWN = 8
_ONLY_AFTER = (
    'only after each of these guests has another filter, or its port needs '
    'none (port security off in Neutron), ')


#: Rules, by the name of the TAP that they are about.
_Rules = dict[str, list[port_rules.PortRule]]


@dataclasses.dataclass(frozen=True)
class Filters:
    """The rules of others about ports of bridges.

    :param seen: with which TAPs and bridges
    :param ask: returns the rules, or raises KernelRefused
    """
    seen: Inventory
    ask: typing.Callable[[], list[port_rules.PortRule]] = (
        port_rules.all_of_them)

    @functools.cached_property
    def answer(self) -> list[port_rules.PortRule] | exception.KernelRefused:
        """The rules, or why they are not known."""
        try:
            return self.ask()
        except exception.KernelRefused as error:
            return error

    @property
    def rules(self) -> list[port_rules.PortRule]:
        """The rules, none where they are not known."""
        return self.answer if isinstance(self.answer, list) else []

    @functools.cached_property
    def of_taps(self) -> _Rules:
        """Those that are about each TAP that is here, by its name."""
        exact = collections.defaultdict(list)
        for rule in self.rules:
            exact[rule.port].append(rule)
        patterns = [port for port in exact if port.endswith('+')]
        return {tap.link.name: exact[tap.link.name] + [
            rule for port in patterns for rule in exact[port]
            if rule.is_about(tap.link.name)] for tap in self.seen.taps}

    @functools.cached_property
    def filtered(self) -> dict[str, _Rules]:
        """Those that keep something back, by what passes them, and the TAP.

        What passes is nftables.IPV4, IPV6 or FRAMES.
        """
        found: dict[str, _Rules] = {
            what: {} for what in (*bridge_health.SWITCHES, nftables.FRAMES)}
        for name, rules in self.of_taps.items():
            for rule in rules:
                if rule.filters and name not in self.agents and not (
                        rule.what == nftables.FRAMES
                        and name in self._kept_by_us):
                    found[rule.what].setdefault(name, []).append(rule)
        return found

    @functools.cached_property
    def needless(self) -> _Rules:
        """Those about TAPs that pass nothing but what our agent says."""
        found = {name: [rule for rule in self.of_taps[name] if rule.filters]
                 for name in self.agents}
        return {name: rules for name, rules in found.items() if rules}

    @functools.cached_property
    def agents(self) -> set[str]:
        """The TAPs that pass nothing but what our agent says."""
        return {tap.link.name for tap in self.seen.taps
                if keeping.is_guarded_by_agent(self.seen, tap)}

    @functools.cached_property
    def _kept_by_us(self) -> set[str]:
        """Those whose guests tapmac keeps to their MACs and addresses."""
        return {tap.link.name for tap in self.seen.taps
                if tap.link.group == self.seen.filtered_group}

    def on(self, bridge: Link, what: str) -> _Rules:
        """Return those of TAPs on a bridge, by the TAP."""
        of_all = self.filtered[what]
        return {port.name: of_all[port.name]
                for port in self.seen.ports(bridge) if port.name in of_all}


def find(filters: Filters) -> list[Finding]:
    """Return what is to be known of the filters of guests."""
    found = list(unknown(filters))
    for bridge in filters.seen.bridges:
        for check in CHECKS:
            found.extend(check(filters, bridge))
    for tap in filters.seen.taps:
        found.extend(not_filtered(filters, tap))
    found.extend(left_over(filters))
    found.extend(needless(filters))
    return found


@finds('TM411')
def unknown(filters: Filters) -> Seen:
    """Say if nobody knows."""
    if isinstance(filters.answer, exception.KernelRefused):
        raise filters.answer
    yield from ()


@finds('TM411')
def kept_by_nobody(filters: Filters, bridge: Link) -> Seen:
    """Look for guests whose only filter are rules that stay as they are."""
    for what in (*bridge_health.SWITCHES, nftables.FRAMES):
        found = filters.on(bridge, what)
        if found and counts(what, bridge):
            yield (bridge.name, 'rules of %s are all that filters %s by %s, '
                   'and stay as they are when the agent that made them is '
                   'gone; without them, or with br_netfilter off, these '
                   'guests are open' % (_where(found), _some(found), what)
                   if what != nftables.FRAMES else
                   'rules of %s keep %s to addresses and MACs, and stay as '
                   'they are when the agent that made them is gone; without '
                   'them these guests can speak as others' % (
                       _where(found), _some(found)),
                   _ONLY_AFTER + (
                       'remove the rules; anti_spoofing = full is such a '
                       'filter' if what == nftables.FRAMES else
                       '%s, and then remove the rules'
                       % _switches_off(what, bridge)))


def _switches_off(what: str, bridge: Link) -> str:
    """Return how what passes a bridge would pass no rules any more."""
    commands = []
    if bridge_health.passes_netfilter(what):
        commands.append('sysctl net.bridge.%s=0'
                        % bridge_health.SWITCHES[what])
    own = bridge_health.OWN_SWITCHES[what]
    if getattr(bridge, own):
        commands.append(bridge_health.own_switch_off(bridge, own))
    return _not_to_copy(' and '.join(commands))


def counts(what: str, bridge: Link) -> bool:
    """Return whether what passes a bridge passes the rules."""
    return (what == nftables.FRAMES or bridge_health.passes_netfilter(what)
            or bool(getattr(bridge, bridge_health.OWN_SWITCHES[what])))


@finds('TM412')
def passed_by(filters: Filters, bridge: Link) -> Seen:
    """Look for guests that are open, because no rule of theirs counts."""
    for what in bridge_health.SWITCHES:
        found = filters.on(bridge, what)
        if found and not counts(what, bridge):
            yield (bridge.name, 'rules of %s are there for %s, and what is '
                   'bridged does not pass them: these guests are open'
                   % (_where(found), _some(found)),
                   '%s"sysctl net.bridge.%s=1", unless they are meant to be '
                   'open' % ('' if os.path.isdir('/proc/sys/net/bridge')
                             else '"modprobe br_netfilter", ',
                             bridge_health.SWITCHES[what]))


@finds('TM413')
def not_filtered(filters: Filters, tap: Tap) -> Seen:
    """Look for a guest that no rule knows, where others are filtered."""
    if (names.start_of_vif_id(tap.name) is None
            or filters.of_taps[tap.link.name]
            or tap.link.name in filters.agents):
        return
    found = [what for what in bridge_health.SWITCHES
             if filters.filtered[what]]
    if found:
        yield (tap.link.name, 'rules filter other guests here by %s, and none '
               'is about this one: it came when the agent that makes them was '
               'gone, and is open' % ' and '.join(found),
               'start that agent again, or see that nobody needs this guest '
               'to be filtered')


@finds('TM414')
def left_over(filters: Filters) -> Seen:
    """Look for rules about ports that are not here."""
    gone: _Rules = collections.defaultdict(list)
    for rule in filters.rules:
        if (names.start_of_vif_id(rule.port) is not None
                and filters.seen.named(rule.port) is None):
            gone[rule.port].append(rule)
    if gone:
        yield ('netfilter', 'rules of %s are left of %s, which %s not here: '
               'a guest that comes back by this name gets them' % (
                   _where(gone), _some(gone),
                   'is' if len(gone) == 1 else 'are'),
               'remove these rules, and no others')


@finds('TM237')
def needless(filters: Filters) -> Seen:
    """Look for rules that are nobody's only filter any more."""
    if filters.needless and not any(filters.filtered.values()):
        yield ('netfilter', 'rules of %s filter %s beside tapmac-agent, and '
               'nobody brings them in line with Neutron: what they do not '
               'let pass is lost, whatever the security groups say' % (
                   _where(filters.needless), _some(filters.needless)),
               'nobody is opened by it: remove them, if they are those of '
               'Neutron\'s Linux bridge agent, as "Clean-up" of the page '
               'about coming from there says')


def with_care(filters: Filters, finding: Finding) -> Finding:
    """Return a finding whose remedy opens no guest unsaid.

    :param finding: of any check
    """
    what = next((each for each, switch in bridge_health.SWITCHES.items()
                 if finding.code == 'TM301' and (
                     switch in finding.remedy
                     or bridge_health.OWN_SWITCHES[each] in finding.remedy)),
                None)
    if what is None:
        return finding
    if isinstance(filters.answer, exception.KernelRefused):
        return dataclasses.replace(finding, remedy=Remedy(
            'only after root has looked (tapmac audit --all-bridges) for '
            'guests that it would open, ' + _not_to_copy(finding.remedy)))
    found = filters.filtered[what]
    if not found:
        return finding
    return dataclasses.replace(finding, remedy=Remedy(
        'this would open %s, see TM411: %s%s' % (
            _some(found), _ONLY_AFTER, _not_to_copy(finding.remedy))))


def _not_to_copy(remedy: str) -> str:
    """Return a remedy without commands that people, or scripts, just do."""
    return remedy.replace('"', '')


def _where(found: _Rules) -> str:
    """Return which program shows these rules, and one chain with some."""
    programs: dict[str, str] = {}
    for rules in found.values():
        for rule in rules:
            programs.setdefault(rule.program, rule.chain)
    return ' and '.join('%s (%s)' % each for each in programs.items())


def _some(found: typing.Collection[str]) -> str:
    """Return the first of these in words, and how many there are."""
    shown = sorted(found)[:_MOST_SHOWN]
    return ', '.join(shown) + (' and %d more' % (len(found) - len(shown))
                               if len(found) > len(shown) else '')


#: In the order of their codes.
CHECKS = (kept_by_nobody, passed_by)
