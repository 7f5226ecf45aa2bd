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

_Told = typing.Mapping[str, typing.Any]


class Outcome(typing.NamedTuple):
    """What became of the ports that Neutron was asked for.

    :param kept: UUIDs of those that are kept to what Neutron says
    :param closed: why those pass nothing that could pass something otherwise,
        by their UUID
    :param refused: why it is not so with the others, by their UUID: these are
        as they were
    :param ports: what Neutron says of all that it knows, had or not
    :param groups: likewise
    :param needs_all: whether nothing was done, because it must be all that the
        host has
    """
    kept: frozenset[str]
    closed: dict[str, str]
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
        up, down = _here(info, details, taps)
        answer = from_neutron.from_rpc(
            {**info, 'devices': up[0]}, up[1], is_all=is_all)
        for each in answer.refused:
            LOG.warning('Neutron says what can not be had, which lets nothing '
                        'pass: %s', each)
        closed = dict.fromkeys(down, 'its admin state is down')
        ports = []
        for port in answer.change.ports:
            port = self._possible(port, answer.change.groups)
            if self._is_had(port):
                ports.append(port)
            else:
                closed[port.vif_id] = _STATEFUL
        shut = {*gone, *(taps.keys() - {each.vif_id for each in ports})}
        change = dataclasses.replace(
            answer.change, ports=tuple(ports),
            gone=() if is_all else tuple(sorted(shut)))
        with privsep.filter.calling(_ABOUT):
            done = privileged.apply_filter(change.as_fields())
        return Outcome(frozenset(done['ports']), closed, done['refused'],
                       answer.change.ports, answer.change.groups,
                       done['needs_all'])

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
          ) -> tuple[tuple[dict[str, _Told], list[_Told]], list[str]]:
    """Return what is told of ports, each with its TAP.

    :returns: those of both kinds whose admin state is up, and the UUIDs of
        those where it is down
    """
    devices: dict[str, _Told] = {}
    trusted: list[_Told] = []
    down = []
    every = [(each['id'], each) for each in info['devices'].values()]
    every += [(each['port_id'], each) for each in details
              if 'port_id' in each]
    for port, told in every:
        if port not in taps:
            continue
        if not told.get('admin_state_up', True):
            down.append(port)
        elif 'port_id' in told:
            trusted.append({**told, 'device': taps[port]})
        else:
            devices[port] = {**told, 'device': taps[port]}
    return (devices, trusted), down
