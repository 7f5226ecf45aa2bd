# SPDX-License-Identifier: Apache-2.0

"""Having what an audit finds mended: each TAP is plugged once more.

No TAP is put on a bridge that is not there: where it belongs is known by its
mark, or the operator says it.
"""

import typing
import uuid

from oslo_config import cfg
from oslo_log import log as logging

from vif_plug_tapmac import exception
from vif_plug_tapmac.host.finding import Finding
from vif_plug_tapmac.host import inventory
from vif_plug_tapmac.host.tap import Tap
from vif_plug_tapmac.kernel import agent_guard
from vif_plug_tapmac.kernel import bridge as bridges
from vif_plug_tapmac.kernel.link import Link
from vif_plug_tapmac.kernel import strangers
from vif_plug_tapmac.wanted import from_config
from vif_plug_tapmac.wanted import names
from vif_plug_tapmac.wanted.port import TapPort

LOG = logging.getLogger(__name__)

#: The codes of what no plug looks for: see kernel/strangers.py.
OF_STRANGERS = ('TM114', 'TM221')
#: And of what none changes: see kernel/bridge.py.
OF_OTHER_GROUP = ('TM119',)
#: And of what is an agent's where one feeds the port: see
#: kernel/agent_guard.py.
OF_GUARD = ('TM214',)


def mend(seen: inventory.Inventory, config: cfg.ConfigOpts.GroupAttr,
         findings: list[Finding], bridge: str | None,
         progress: typing.TextIO) -> None:
    """Plug once more what the findings are about, whatever fails of it.

    :param bridge: where TAPs go that are on none; None: where they belong
    :param progress: where to say how far it is, if that is a terminal
    """
    names = sorted({finding.device for finding in findings})
    with_strangers = _devices(findings, OF_STRANGERS)
    unguarded = _devices(findings, OF_GUARD)
    in_other_group = _devices(findings, OF_OTHER_GROUP)
    for number, name in enumerate(names, 1):
        if progress.isatty():
            progress.write('\r%d of %d: %-15s' % (number, len(names), name))
        try:
            _plug(_port(seen, name, config, bridge))
            if name in unguarded:
                agent_guard.restore(name, config.agent_group)
            if name in with_strangers:
                _remove_strangers(name, config.bridge_group)
            if name in in_other_group:
                bridges.join_group(name, config.bridge_group)
        except exception.TapMacError as error:
            LOG.error('%s', error)
        # One that nobody thought of is no reason to leave all others broken.
        except Exception as error:
            LOG.error('%s could not be mended: %s: %s', name,
                      type(error).__name__, error)
    if progress.isatty():
        progress.write('\r%40s\r' % '')


def _devices(findings: list[Finding], codes: tuple[str, ...]) -> set[str]:
    """Return what findings of these codes are about."""
    return {finding.device for finding in findings if finding.code in codes}


def _plug(port: TapPort) -> None:
    from vif_plug_tapmac import privileged
    made = privileged.ensure_port(port.to_fields())
    if made is not None:
        LOG.info('%s', made)


def _remove_strangers(name: str, bridge_group: int) -> None:
    """Remove them in this process: who repairs may do so."""
    LOG.info('Removed from the FDB of %s: %s', name, ', '.join(
        strangers.remove(name, bridge_group)) or 'nothing')


def _port(seen: inventory.Inventory, name: str,
          config: cfg.ConfigOpts.GroupAttr, bridge: str | None) -> TapPort:
    taps = {tap.name: tap for tap in seen.taps}
    if name in taps:
        return _port_of_tap(taps[name], config, bridge)
    return _port_for_bridge(seen.by_name[name], config)


def _port_of_tap(tap: Tap, config: cfg.ConfigOpts.GroupAttr,
                 bridge: str | None) -> TapPort:
    """Return the port that a TAP is, by its mark and as it is.

    :raises TapMacError: nobody knows, or where it belongs is not here; or it
        is of another service of this host
    """
    if tap.seen.services.is_anothers(tap):
        raise exception.TapMacError(
            '%s stays as it is: it is of another service of this host, or was '
            'taken out of the link groups of this one.' % tap.link.name)
    on_bridge = tap.home.name if tap.home else None
    if bridge is not None and tap.bridge is None:
        on_bridge = bridge
    if on_bridge is None or tap.vif_id is None or tap.guest_mac is None:
        raise exception.TapMacError(
            '%s stays as it is: its %s is not known, or not here.' % (
                tap.link.name, 'bridge' if on_bridge is None else 'VIF'))
    multi_queue = tap.link.multi_queue
    if tap.nic is not None and not tap.link.held:
        multi_queue = tap.nic.queues > 1
    return TapPort(**_fields(
        config, on_bridge, vif_id=tap.vif_id, name=tap.name,
        guest_mac=tap.guest_mac, mtu=tap.link.mtu, create_tap=True,
        multi_queue=multi_queue))


def _port_for_bridge(bridge: Link,
                     config: cfg.ConfigOpts.GroupAttr) -> TapPort:
    """Return a port whose TAP libvirt is to make, on a bridge to be mended."""
    vif_id = str(uuid.uuid4())
    return TapPort(**_fields(
        config, bridge.name, vif_id=vif_id,
        name=names.nova_tap_name(vif_id), guest_mac='fa:16:3e:00:00:00',
        mtu=bridge.mtu, create_tap=False))


def _fields(config: cfg.ConfigOpts.GroupAttr, bridge: str,
            **fields: typing.Any) -> dict[str, typing.Any]:
    return dict(from_config.port_fields(config), bridge=bridge,
                uplink=from_config.uplinks(config).of(bridge),
                **fields)
