# SPDX-License-Identifier: Apache-2.0

"""What is wrong with bridges, TAPs and the host: all that the checks find."""

from oslo_config import cfg

from vif_plug_tapmac.host import bridge_checks
from vif_plug_tapmac.host.finding import Finding
from vif_plug_tapmac.host import host_checks
from vif_plug_tapmac.host.inventory import Inventory
from vif_plug_tapmac.host import tap_checks


def audit(seen: Inventory,
          config: cfg.ConfigOpts.GroupAttr) -> list[Finding]:
    """Return what is wrong, bridges first, then TAPs, then the host.

    :param config: the ``[os_vif_tapmac]`` group
    """
    return [*audit_links(seen), *audit_host(config)]


def audit_links(seen: Inventory) -> list[Finding]:
    """Return what is wrong with bridges and TAPs."""
    found: list[Finding] = []
    for bridge in seen.bridges:
        # Of one that is half-made there is nothing more to say.
        half_made = list(bridge_checks.half_made(seen, bridge))
        found.extend(half_made)
        for check in () if half_made else bridge_checks.CHECKS:
            found.extend(check(seen, bridge))
    holders = tap_checks.holders_by_bridge(seen)
    for tap in seen.taps:
        if not tap.is_being_made:
            for check_tap in tap_checks.CHECKS:
                found.extend(check_tap(seen, tap))
            found.extend(tap_checks.clash(tap, holders))
    found.extend(tap_checks.strangers_in_group(seen))
    return found


def audit_host(config: cfg.ConfigOpts.GroupAttr) -> list[Finding]:
    """Return what is wrong with the host beside its links."""
    return [finding for check in host_checks.CHECKS
            for finding in check(config)]
