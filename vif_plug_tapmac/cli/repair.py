# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""``tapmac repair`` and ``tapmac purge``: mending and cleaning a host."""

import argparse
import typing
import uuid

from cliff import lister
from oslo_config import cfg
from oslo_log import log as logging

from vif_plug_tapmac.cli import configuration
from vif_plug_tapmac.cli import look
from vif_plug_tapmac.cli import vif
from vif_plug_tapmac import exception
from vif_plug_tapmac.host import audit
from vif_plug_tapmac.host import inventory
from vif_plug_tapmac.kernel.link import Link
from vif_plug_tapmac import privileged
from vif_plug_tapmac.wanted import from_config
from vif_plug_tapmac.wanted import names
from vif_plug_tapmac.wanted.port import TapIdentity
from vif_plug_tapmac.wanted.port import TapPort

LOG = logging.getLogger(__name__)


class Repair(lister.Lister):
    """Mend what "tapmac audit" finds and no running guest notices.

    Each TAP is plugged once more, as nova-compute does when it starts; one
    that no guest holds may be made anew. Half-made bridges are finished, and
    those of tapmac brought up. What the operator must do is listed with the
    remedy. Exit status: as "tapmac audit" has it afterwards. Needs
    CAP_NET_ADMIN.
    """

    _left: list[audit.Finding] = []

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument('--dry-run', action='store_true',
                            help='only say what would be mended')
        parser.add_argument(
            '--bridge', metavar='BRIDGE',
            help='put TAPs that are on no bridge on this one: nothing on the '
                 'host tells where they were')
        parser.add_argument('devices', metavar='DEVICE', nargs='*',
                            help='only these TAPs and bridges; default: all')
        return parser

    def take_action(
        self, parsed_args: argparse.Namespace,
    ) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        config = configuration.read(self.app_args)
        seen = inventory.read(config)
        _require_known(seen, parsed_args.devices)
        found = [finding for finding in audit.audit_links(seen)
                 if not parsed_args.devices
                 or finding.device in parsed_args.devices]
        mendable = [
            finding for finding in found if finding.mendable
            or finding.code == 'TM206' and parsed_args.bridge is not None]
        self._left = found
        if mendable and not parsed_args.dry_run:
            vif.act_as_root()
            _mend(seen, config, mendable, parsed_args.bridge,
                  self.app.stderr)
            self._left = [finding for finding in audit.audit_links(
                inventory.read(config)) if not parsed_args.devices
                or finding.device in parsed_args.devices]
        left = {(finding.code, finding.device) for finding in self._left}
        rows: list[tuple[str, ...]] = []
        for finding in found:
            if parsed_args.dry_run and finding in mendable:
                result = 'would be mended'
            elif (finding.code, finding.device) not in left:
                result = 'mended'
            elif finding in mendable:
                result = 'could not be mended'
            else:
                result = 'Remedy: ' + finding.remedy
            rows.append((finding.code, str(finding.severity), finding.device,
                         finding.evidence, result))
        return ('Code', 'Severity', 'Device', 'Evidence', 'Result'), rows

    def run(self, parsed_args: argparse.Namespace) -> int:
        return super().run(parsed_args) or look.exit_status(self._left)


class Purge(lister.Lister):
    """Remove TAPs of tapmac that no domain of libvirt has.

    All of them at once, in a link group of their own. One that a process
    holds stays unless forced; nothing is removed where libvirt does not
    answer. Needs CAP_NET_ADMIN.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument('--dry-run', action='store_true',
                            help='only say what would be removed')
        parser.add_argument('--force', action='store_true',
                            help='remove those, too, that a process holds')
        parser.add_argument(
            '--older-than', metavar='SECONDS', type=float,
            default=audit.GRACE,
            help='leave those that were made since then: their domain may '
                 'still be on the way. Default: %(default)g')
        return parser

    def take_action(
        self, parsed_args: argparse.Namespace,
    ) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        seen = inventory.read(configuration.read(self.app_args))
        if seen.nics is None:
            raise exception.TapMacError(
                'Nothing is removed: without an answer of libvirt nobody '
                'knows which TAPs are left over.')
        orphans = [tap for tap in seen.taps if audit.is_orphan(
            seen, tap, parsed_args.older_than)]
        going = [tap for tap in orphans
                 if parsed_args.force or not tap.link.held]
        gone: typing.Collection[str] = ()
        if going and not parsed_args.dry_run:
            vif.act_as_root()
            LOG.info('Removing %d TAPs', len(going))
            gone = privileged.remove_ports(
                [TapIdentity(_vif_id(tap), tap.link.name).to_fields()
                 for tap in going], parsed_args.force)
        return ('TAP', 'Bridge', 'Guest MAC', 'VIF', 'Result'), [
            (tap.link.name, tap.bridge.name if tap.bridge else '',
             tap.guest_mac or '', _vif_id(tap),
             'removed' if tap.link.name in gone
             else 'stays: a process holds it' if tap not in going
             else 'would be removed' if parsed_args.dry_run
             else 'stays: it is in use by now') for tap in orphans]


def _vif_id(tap: inventory.Tap) -> str:
    assert tap.mark is not None
    return tap.mark.vif_id


def _require_known(seen: inventory.Inventory, names: list[str]) -> None:
    known = [tap.link.name for tap in seen.taps] + [
        bridge.name for bridge in seen.bridges]
    for name in names:
        if name not in known:
            raise exception.TapMacError(
                '%s is no TAP and no bridge of tapmac on this host.' % name)


def _mend(seen: inventory.Inventory, config: cfg.ConfigOpts.GroupAttr,
          findings: list[audit.Finding], bridge: str | None,
          progress: typing.TextIO) -> None:
    names = sorted({finding.device for finding in findings})
    taps = {tap.link.name: tap for tap in seen.taps}
    bridges = {link.name: link for link in seen.bridges}
    for number, name in enumerate(names, 1):
        if progress.isatty():
            progress.write('\r%d of %d: %-15s' % (number, len(names), name))
        try:
            port = (_port_of(taps[name], config, bridge) if name in taps
                    else _port_on(bridges[name], config))
            made = privileged.ensure_port(port.to_fields())
            if made is not None:
                LOG.info('%s', made)
        except exception.TapMacError as error:
            LOG.error('%s', error)
    if progress.isatty():
        progress.write('\r%40s\r' % '')


def _port_of(tap: inventory.Tap, config: cfg.ConfigOpts.GroupAttr,
             bridge: str | None) -> TapPort:
    """Return the port that a TAP is, by its mark and as it is."""
    on_bridge = tap.bridge.name if tap.bridge else bridge
    queues = tap.nic.queues if tap.nic else (2 if tap.link.multi_queue else 1)
    return TapPort(**_fields(
        config, str(on_bridge), vif_id=_vif_id(tap), name=tap.link.name,
        guest_mac=str(tap.guest_mac), mtu=tap.link.mtu, create_tap=True,
        multi_queue=queues > 1))


def _port_on(bridge: Link,
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
