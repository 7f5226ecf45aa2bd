# SPDX-License-Identifier: Apache-2.0

"""What Neutron says of ports, put in force; with one call to the daemon."""

import dataclasses
import logging
import typing

from vif_plug_tapmac import privileged
from vif_plug_tapmac import privsep
from vif_plug_tapmac.wanted import from_neutron
from vif_plug_tapmac.wanted.security_groups import Group
from vif_plug_tapmac.wanted.security_groups import Port

LOG = logging.getLogger(__name__)

#: What a call to the daemon is about, for what is said when it fails.
_ABOUT = 'security groups'
_STATEFUL = (
    'its security groups are stateful, and this kernel knows no connections '
    'on bridges (CONFIG_NF_CONNTRACK_BRIDGE). Give it stateless groups only, '
    'or boot a kernel that has it')
#: That of ports whose TAP outlives them, or that are not there yet.
UNKNOWN = 'Neutron does not know it'
_UNFIT = 'what Neutron says of it can not be had; the log says why before'

_Told = typing.Mapping[str, typing.Any]


class Outcome(typing.NamedTuple):
    """What became of the ports that Neutron was asked for.

    :param kept: UUIDs of those that are kept to what Neutron says
    :param shut: why those pass nothing that are to pass nothing, by their UUID
    :param refused: why the others are not as it says, by their UUID. They pass
        nothing, or what they passed before
    :param ports: what Neutron says of all that it knows, had or not
    :param groups: likewise
    :param needs_all: whether nothing was done, because it must be all that the
        host has
    """
    kept: frozenset[str]
    shut: dict[str, str]
    refused: dict[str, str]
    ports: tuple[Port, ...]
    groups: tuple[Group, ...]
    needs_all: bool


def has_conntrack() -> bool:
    """Return whether this kernel knows connections on bridges.

    :raises TapMacError: the daemon, or the kernel, does not say
    """
    with privsep.filter.calling(_ABOUT):
        known: bool = privileged.knows_connections()
        return known


def unfed(taps: typing.Collection[str]) -> frozenset[str]:
    """Return which of these TAPs are closed, and were never fed.

    :raises TapMacError: the daemon, or the kernel, does not say
    """
    if not taps:
        return frozenset()
    with privsep.filter.calling(_ABOUT):
        return frozenset(privileged.unfed_taps(sorted(taps)))


class Firewall:
    """What is in force on this host.

    :param has_conntrack: whether ports with stateful groups can be had
    """

    def __init__(self, has_conntrack: bool) -> None:
        self._has_conntrack = has_conntrack

    def apply(self, info: _Told, details: typing.Iterable[_Told],
              taps: typing.Mapping[str, str],
              gone: typing.Iterable[str], is_all: bool) -> Outcome:
        """Put in force what Neutron says.

        :param info: of :class:`vif_plug_tapmac.agent.server.Answer`
        :param details: likewise
        :param taps: the TAP of each port of whom that is, by its UUID
        :param gone: UUIDs of ports that have no TAP any more
        :param is_all: whether that is all the host has
        :raises TapMacError: it could not be; all is as it was
        :raises ValueError: it is too much for a host
        """
        devices, trusted, shut = _here(info, details, taps)
        answer = from_neutron.from_rpc({**info, 'devices': devices}, trusted,
                                       is_all=is_all)
        for each in answer.refused:
            LOG.warning('Neutron says what can not be had, which lets nothing '
                        'pass: %s', each)
        ports = [self._possible(port, answer.change.groups)
                 for port in answer.change.ports]
        had = tuple(filter(self._is_had, ports))
        refused = {port: _UNFIT if port in devices else UNKNOWN
                   for port in taps.keys() - shut.keys()}
        refused.update((each.vif_id, _STATEFUL) for each in ports)
        for port in had:
            del refused[port.vif_id]
        change = dataclasses.replace(answer.change, ports=had, gone=(
            () if is_all else tuple({*gone, *shut, *refused})))
        with privsep.filter.calling(_ABOUT):
            done = privileged.apply_filter(change.as_fields())
        return Outcome(frozenset(done['ports']), shut,
                       {**refused, **done['refused']}, answer.change.ports,
                       answer.change.groups, done['needs_all'])

    def _possible(self, port: Port, groups: typing.Iterable[Group]) -> Port:
        """Return a port as it can be had; what has no rules has no answers."""
        if self._has_conntrack or not port.stateful or any(
                group.rules for group in groups if group.id in port.groups):
            return port
        return dataclasses.replace(port, stateful=False)

    def _is_had(self, port: Port) -> bool:
        return port.is_open or not port.stateful or self._has_conntrack


def _here(info: _Told, details: typing.Iterable[_Told],
          taps: typing.Mapping[str, str],
          ) -> tuple[dict[str, _Told], list[_Told], dict[str, str]]:
    """Return what is told of ports, each with its TAP, by both kinds.

    And why others pass nothing, by their UUID.
    """
    devices: dict[str, _Told] = {
        each['id']: {**each, 'device': taps[each['id']]}
        for each in info['devices'].values() if each['id'] in taps}
    trusted: dict[str, _Told] = {
        each['port_id']: {**each, 'device': taps[each['port_id']]}
        for each in details if each.get('port_id') in taps}
    shut = {}
    for kind in devices, trusted:
        for port, told in list(kind.items()):
            if not told.get('admin_state_up', True):
                shut[port] = 'its admin state is down'
                del kind[port]
    return devices, list(trusted.values()), shut
