# SPDX-License-Identifier: Apache-2.0

"""What libvirt's domains have that is not here, or not where they say.

A TAP that is gone, and one of libvirt's own that is on no bridge, are nobody's
to find but by the domain that runs with it.
"""

from vif_plug_tapmac.host import domains
from vif_plug_tapmac.host.finding import finds
from vif_plug_tapmac.host.finding import REBOOT
from vif_plug_tapmac.host.finding import Seen
from vif_plug_tapmac.host.inventory import Inventory
from vif_plug_tapmac.wanted import names

#: Interfaces whose guests have a TAP. Source: libvirt, docs/formatdomain.rst
_WITH_TAP = ('bridge', 'ethernet')


def _running(seen: Inventory) -> list[tuple[str, domains.Nic]]:
    """Return the NICs of running domains of Nova's, by their TAP.

    None where nothing here is of ours: libvirt is not asked for nothing.
    """
    if not seen.bridges and not seen.taps:
        return []
    return [(name, nic) for name, nic in sorted((seen.nics or {}).items())
            if nic.active and nic.kind in _WITH_TAP
            and names.start_of_vif_id(name) is not None]


@finds('TM243')
def _gone(seen: Inventory) -> Seen:
    # Of those that were renamed, or are being deleted, others tell.
    known = {name for tap in seen.taps
             for name in (tap.name, tap.name_by_nova)}
    running = _running(seen)
    if not any(name in seen.by_name for name, _ in running):
        return  # It may be the libvirt of another namespace, or host.
    for name, nic in running:
        if name not in seen.by_name and name not in known:
            yield (name, 'domain %s runs with it, for %s, and it is not '
                   'here: it was deleted under its guest, renamed, or moved '
                   'to another network namespace ("ip -all netns exec ip link '
                   'show %s")' % (nic.domain, nic.guest_mac, name), REBOOT)


@finds('TM206')
def _off_bridge(seen: Inventory) -> Seen:
    """Look for TAPs of libvirt's own that are on no bridge."""
    ours = {tap.link.index for tap in seen.taps}
    for name, nic in _running(seen):
        link = seen.by_name.get(name)
        if (link is not None and link.is_tap and link.master is None
                and nic.bridge is not None and link.index not in ours):
            yield (name, 'its guest has no network: domain %s has it on %s, '
                   'and it is on no bridge' % (nic.domain, nic.bridge),
                   '"ip link set %s master %s"' % (name, nic.bridge))


@finds('TM218')
def _other_bridge(seen: Inventory) -> Seen:
    """Look for the same on another bridge than libvirt put them on."""
    for name, nic in _running(seen):
        link = seen.by_name.get(name)
        master = seen.links.get(link.master or 0) if link else None
        if (master is None or nic.bridge in (None, master.name)
                or nic.bridge not in seen.by_name
                or any(tap.mark is not None for tap in seen.taps
                       if tap.link is link)):
            continue
        yield (name, 'it is on %s, and domain %s has it on %s' % (
            master.name, nic.domain, nic.bridge), REBOOT)


CHECKS = (_gone, _off_bridge, _other_bridge)
