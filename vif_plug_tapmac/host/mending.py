# SPDX-License-Identifier: Apache-2.0

"""Having what an audit finds mended: each TAP is plugged once more."""

import typing
import uuid

from oslo_config import cfg
from oslo_log import log as logging

from vif_plug_tapmac import exception
from vif_plug_tapmac.host.finding import Finding
from vif_plug_tapmac.host import inventory
from vif_plug_tapmac.kernel.link import Link
from vif_plug_tapmac.wanted import from_config
from vif_plug_tapmac.wanted import names
from vif_plug_tapmac.wanted.port import TapPort

LOG = logging.getLogger(__name__)


def mend(seen: inventory.Inventory, config: cfg.ConfigOpts.GroupAttr,
         findings: list[Finding], bridge: str | None,
         progress: typing.TextIO) -> None:
    from vif_plug_tapmac import privileged
    names = sorted({finding.device for finding in findings})
    taps = {tap.name: tap for tap in seen.taps}
    bridges = {link.name: link for link in seen.bridges}
    for number, name in enumerate(names, 1):
        if progress.isatty():
            progress.write('\r%d of %d: %-15s' % (number, len(names), name))
        try:
            port = (_port_of_tap(taps[name], config, bridge) if name in taps
                    else _port_for_bridge(bridges[name], config))
            made = privileged.ensure_port(port.to_fields())
            if made is not None:
                LOG.info('%s', made)
        except exception.TapMacError as error:
            LOG.error('%s', error)
    if progress.isatty():
        progress.write('\r%40s\r' % '')


def _port_of_tap(tap: inventory.Tap, config: cfg.ConfigOpts.GroupAttr,
                 bridge: str | None) -> TapPort:
    """Return the port that a TAP is, by its mark and as it is."""
    on_bridge = tap.bridge.name if tap.bridge else bridge
    queues = tap.nic.queues if tap.nic else (2 if tap.link.multi_queue else 1)
    return TapPort(**_fields(
        config, str(on_bridge), vif_id=tap.vif_id, name=tap.name,
        guest_mac=str(tap.guest_mac), mtu=tap.link.mtu, create_tap=True,
        multi_queue=queues > 1))


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
