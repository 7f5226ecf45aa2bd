# SPDX-License-Identifier: Apache-2.0

"""Whose TAPs and bridges are, where several services of Nova share a host.

A mark says for which port a TAP is, and not by which nova-compute it was
plugged. That is told by what differs between them: the bridges that a service
may use, its libvirt, its link groups. What is, or may be, another one's is
looked at, and neither mended nor removed: its configuration is not known here.
"""

import dataclasses
import fnmatch
import functools
import logging
import typing

from vif_plug_tapmac import exception
from vif_plug_tapmac.host.finding import Finding
from vif_plug_tapmac.host.finding import Remedy
from vif_plug_tapmac.kernel.link import Link
from vif_plug_tapmac.kernel import shields

if typing.TYPE_CHECKING:
    from vif_plug_tapmac.host.inventory import Inventory
    from vif_plug_tapmac.host.tap import Tap

LOG = logging.getLogger(__name__)

#: The codes of what compares TAP or bridge with a configuration, or with
#: libvirt: another service has others.
_OF_CONFIGURATION = ('TM119', 'TM210', 'TM213', 'TM214', 'TM215', 'TM227',
                     'TM233', 'TM235')
#: Of a link that nobody put into one. Source: include/linux/netdevice.h,
#: INIT_NETDEV_GROUP
_NO_GROUP = 0


class Services:
    """The one that was asked about, and all others of this host.

    :param seen: what was seen of the host
    :param allowed_bridges: shell patterns of the bridges that this one's TAPs
        may be on, by its configuration
    :param name: by which it is known from others: see
        :func:`from_config.service`
    """

    def __init__(self, seen: 'Inventory', allowed_bridges: tuple[str, ...],
                 name: str) -> None:
        self._seen = seen
        self._allowed = allowed_bridges
        self._name = name

    def is_anothers(self, tap: 'Tap') -> bool:
        """Return whether a TAP with our mark is, or may be, another one's."""
        if tap.mark is None:
            return False
        if not self._may_use(tap.mark.bridge):
            return True
        group = tap.link.group
        # A purge that was killed leaves them in a group that is nobody's.
        if group in self._seen.groups or tap.link.former_name is not None:
            return False
        return (group != _NO_GROUP or bool(self._groups_of_others)
                ) and tap.name not in (self._seen.nics or {})

    def is_anothers_bridge(self, bridge: Link) -> bool:
        """Return whether a bridge is, or may be, another one's.

        The configuration does not allow it, or it is in no link group of ours
        and has TAPs of others, and none of ours.
        """
        taps = self._taps_on.get(bridge.index, [])
        return not self._may_use(bridge.name) or (
            bridge.group not in (_NO_GROUP, self._seen.bridge_group)
            and bool(taps) and all(map(self.is_anothers, taps)))

    def of_group(self, group: int) -> str | None:
        """Return whose a link group is, by the files that configure it.

        :returns: None: nobody says
        """
        return self._of_groups.get(group)

    def known_to_this(self, found: list[Finding]) -> list[Finding]:
        """Return what of these is wrong, as far as this service can know.

        What is of another one is not for "tapmac repair" of this one.
        """
        others = self._others()
        return [_left(each, others[each.device]) if each.device in others
                else each for each in found
                if each.device not in others
                or each.code not in _OF_CONFIGURATION]

    def _others(self) -> dict[str, str | None]:
        """Return the devices of others, by each of their names, and whose."""
        found = {bridge.name: self._of_bridge(bridge)
                 for bridge in self._seen.bridges
                 if self.is_anothers_bridge(bridge)}
        for tap in self._seen.taps:
            if self.is_anothers(tap):
                found.update(dict.fromkeys((tap.name, tap.link.name),
                                           self.of_group(tap.link.group)))
        return found

    def _of_bridge(self, bridge: Link) -> str | None:
        """Return whose TAPs are on a bridge, None if nobody says."""
        return next(filter(None, (
            self.of_group(tap.link.group)
            for tap in self._taps_on.get(bridge.index, []))), None)

    def _may_use(self, bridge: str) -> bool:
        return any(fnmatch.fnmatchcase(bridge, pattern)
                   for pattern in self._allowed)

    @functools.cached_property
    def _groups_of_others(self) -> set[int]:
        """The link groups of marked TAPs that are none of this service's."""
        return {tap.link.group for tap in self._seen.taps
                if tap.mark is not None and tap.link.former_name is None
                and tap.link.group not in (_NO_GROUP, *self._seen.groups)}

    @functools.cached_property
    def _of_groups(self) -> dict[int, str]:
        """Link groups of other services, each with the files of one.

        Only those say so that keep their guests from this host.
        """
        try:
            return {each.group: each.service
                    for each in shields.of_all_services()
                    if each.service not in (None, self._name)
                    and each.group not in self._seen.groups}
        except exception.KernelRefused as error:
            LOG.debug('Other services are not known: %s', error)
            return {}

    @functools.cached_property
    def _taps_on(self) -> dict[int, list['Tap']]:
        """The TAPs with our mark, of any service, by their bridge."""
        found: dict[int, list['Tap']] = {}
        for tap in self._seen.taps:
            if tap.mark is not None and tap.bridge is not None:
                found.setdefault(tap.bridge.index, []).append(tap)
        return found


def _left(finding: Finding, service: str | None) -> Finding:
    if not finding.mendable:
        return finding
    return dataclasses.replace(finding, remedy=Remedy(
        '"tapmac %s repair %s": it is of another service of this host, and '
        'stays as it is' % (with_files_of(service), finding.device)))


def with_files_of(service: str | None) -> str:
    """Return the options of a command that is to read a service's files."""
    paths = (service or '').split()
    if not paths or not all(path.startswith('/') for path in paths):
        return '--config-file <its file>'
    return ' '.join('--config-file ' + path for path in paths)
