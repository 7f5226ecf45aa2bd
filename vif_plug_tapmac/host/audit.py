# SPDX-License-Identifier: Apache-2.0

"""What is wrong with bridges, TAPs and the host: all that the checks find."""

import typing

from oslo_config import cfg

from vif_plug_tapmac.host import agent_checks
from vif_plug_tapmac.host import before_checks
from vif_plug_tapmac.host import bridge_checks
from vif_plug_tapmac.host import domain_checks
from vif_plug_tapmac.host import exit_checks
from vif_plug_tapmac.host import filter_checks
from vif_plug_tapmac.host.finding import Finding
from vif_plug_tapmac.host import foreign_checks
from vif_plug_tapmac.host import host_checks
from vif_plug_tapmac.host import interface_checks
from vif_plug_tapmac.host import inventory
from vif_plug_tapmac.host.inventory import Inventory
from vif_plug_tapmac.host import manager_checks
from vif_plug_tapmac.host import own_bridge_checks
from vif_plug_tapmac.host import port_checks
from vif_plug_tapmac.host import spoofing_checks
from vif_plug_tapmac.host import tap_checks

#: The codes of what is found only where libvirt answers.
OF_DOMAINS = ('TM205', 'TM210', 'TM212', 'TM243')


def confirmed(
    config: cfg.ConfigOpts.GroupAttr,
    check: typing.Callable[[Inventory], list[Finding]],
    before: Inventory | None = None,
    all_bridges: bool = False,
) -> tuple[Inventory, list[Finding]]:
    """Look at this host, and where something is wrong once more.

    Links, addresses, the FDB and domains are read one after the other, while
    guests come and go: what is wrong only once was read in between.

    :param config: the ``[os_vif_tapmac]`` group
    :param check: returns what is wrong with what was seen
    :param before: what was seen before: a libvirt that did not answer then is
        not waited for again
    :param all_bridges: see :class:`Inventory`
    :returns: what was seen last, and what was wrong each time
    """
    seen = _read(config, before, all_bridges)
    found = check(seen)
    if found:
        once = {key(seen, finding) for finding in found}
        seen = _read(config, seen, all_bridges)
        found = [finding for finding in check(seen)
                 if key(seen, finding) in once]
    return seen, found


def _read(config: cfg.ConfigOpts.GroupAttr, before: Inventory | None,
          all_bridges: bool) -> Inventory:
    seen = inventory.read(config, all_bridges)
    silent = before is not None and before.nics is None
    return seen.with_answer(None) if silent else seen


def key(seen: Inventory, finding: Finding) -> tuple[str, str, int | None]:
    """Return by what a finding is the same in another look.

    :returns: its code, its device, and the index of that, None for what is no
        link: another link may have the name by then
    """
    return finding.code, finding.device, seen.indices.get(finding.device)


def audit(seen: Inventory,
          config: cfg.ConfigOpts.GroupAttr) -> list[Finding]:
    """Return what is wrong, bridges first, then TAPs, then the host.

    Last, where all bridges are asked for, what will be.

    :param config: the ``[os_vif_tapmac]`` group
    """
    found = [*audit_links(seen), *audit_host(config),
             *audit_managers(seen, config)]
    if not seen.all_bridges:
        return found
    filters = filter_checks.Filters(seen)
    return [*(filter_checks.with_care(filters, each) for each in found),
            *before_checks.find(seen), *filter_checks.find(filters)]


def audit_links(seen: Inventory) -> list[Finding]:
    """Return what is wrong with bridges and TAPs."""
    found: list[Finding] = []
    for bridge in seen.bridges:
        # Of one that is half-made there is nothing more to say.
        half_made = list(bridge_checks.half_made(seen, bridge))
        found.extend(half_made)
        for check in () if half_made else (*bridge_checks.CHECKS,
                                           *own_bridge_checks.CHECKS):
            found.extend(check(seen, bridge))
    holders = tap_checks.holders_by_bridge(seen)
    for tap in seen.taps:
        if tap.is_being_made or tap.is_being_deleted:
            continue
        # As of bridges: of one that is half-deleted there is no more to say.
        half_deleted = list(tap_checks.half_deleted(seen, tap))
        found.extend(half_deleted)
        if not half_deleted:
            for check_tap in (*tap_checks.CHECKS, *port_checks.CHECKS,
                              *spoofing_checks.CHECKS,
                              *agent_checks.CHECKS,
                              *exit_checks.CHECKS,
                              *foreign_checks.CHECKS):
                found.extend(check_tap(seen, tap))
            found.extend(tap_checks.clash(tap, holders))
    for interface in seen.interfaces:
        for check_interface in interface_checks.CHECKS:
            found.extend(check_interface(seen, interface))
    found.extend(tap_checks.strangers_in_group(seen))
    for check_table in (*spoofing_checks.TABLE_CHECKS,
                        *agent_checks.TABLE_CHECKS,
                        *exit_checks.TABLE_CHECKS,
                        *foreign_checks.HOST_CHECKS,
                        *domain_checks.CHECKS):
        found.extend(check_table(seen))
    return seen.services.known_to_this(found)


def audit_host(config: cfg.ConfigOpts.GroupAttr) -> list[Finding]:
    """Return what is wrong with the host beside its links."""
    return [finding for check in host_checks.CHECKS
            for finding in check(config)]


def audit_managers(seen: Inventory,
                   config: cfg.ConfigOpts.GroupAttr) -> list[Finding]:
    """Return who else would take guests or uplinks off their bridges."""
    return [finding for check in manager_checks.CHECKS
            for finding in check(seen, config)]
