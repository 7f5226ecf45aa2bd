# SPDX-License-Identifier: Apache-2.0

"""What a binding of ours is, and what Neutron's database has of bindings.

Nothing is written to it here.
"""

import collections
import json
import typing

from neutron_lib.api.definitions import portbindings
from neutron_lib import constants
from neutron_lib.db import api as db_api
from neutron_lib.objects import registry
from neutron_lib.plugins import directory
from neutron_lib.plugins.ml2 import api
import sqlalchemy

from vif_plug_tapmac.ml2 import mappings
from vif_plug_tapmac.wanted import names

#: The name of our driver, as ML2 knows it.
DRIVER = 'tapmac'

#: Of a binding that has come to nothing, or not to its end.
UNBOUND = (portbindings.VIF_TYPE_UNBOUND,
           portbindings.VIF_TYPE_BINDING_FAILED)

_Binding = typing.Mapping[str, typing.Any]
_Segments = typing.Sequence[typing.Mapping[str, typing.Any]]


def vif(bridge: str, vif_type: str, has_agent: bool,
        ) -> dict[str, typing.Any]:
    """Return the details of a binding: what Nova and os-vif need of it.

    :param vif_type: "ovs", which Nova from 33 on has os-vif make the TAP for,
        and us be os-vif; "bridge" for Nova up to 33
    :param has_agent: whether the host has one that guards the port
    """
    details = {portbindings.VIF_DETAILS_BRIDGE_NAME: bridge,
               # With "bridge" it is only our mark.
               portbindings.OVS_DATAPATH_TYPE: names.DATAPATH_TYPE,
               portbindings.CAP_PORT_FILTER: has_agent,
               portbindings.VIF_DETAILS_CONNECTIVITY:
                   portbindings.CONNECTIVITY_L2}
    if vif_type == portbindings.VIF_TYPE_OVS:
        # neutron-lib has no name for this.
        details['ovs_create_tap'] = True
    return details


def is_our(vif_type: str | None, details: _Binding | None) -> bool:
    """Return whether a binding is one that we made."""
    return (vif_type in (portbindings.VIF_TYPE_OVS,
                         portbindings.VIF_TYPE_BRIDGE)
            and (details or {}).get(portbindings.OVS_DATAPATH_TYPE)
            == names.DATAPATH_TYPE)


def is_ours(port: _Binding) -> bool:
    """Return whether a port is bound by us now."""
    return is_our(port.get(portbindings.VIF_TYPE),
                  port.get(portbindings.VIF_DETAILS))


def is_guarded(port: _Binding) -> bool:
    """Return whether a port is bound by us now, to a host with an agent."""
    return is_ours(port) and bool(
        port[portbindings.VIF_DETAILS].get(portbindings.CAP_PORT_FILTER))


def is_bound(port: _Binding) -> bool:
    """Return whether a port is bound now, by whomever."""
    return port[portbindings.VIF_TYPE] not in UNBOUND


def of_port(plugin_context: typing.Any, *port_ids: str) -> list[_Binding]:
    """Return all bindings of a port, or more, also those that are not active.

    It may be called within a transaction, as Neutron's API may not.
    """
    found: list[_Binding] = registry.load_class('PortBinding').get_objects(
        plugin_context.elevated(), port_id=list(port_ids))
    return found


def segments_of_addresses(plugin_context: typing.Any, port: _Binding,
                          ) -> set[str | None]:
    """Return the segments that the subnets of a port's addresses belong to.

    :returns: their ids; None among them for a subnet that is on all segments
    """
    ids = [each['subnet_id'] for each in port.get('fixed_ips') or ()]
    return {subnet.get('segment_id') for subnet in
            directory.get_plugin().get_subnets(
                plugin_context.elevated(), filters={'id': ids})
            } if ids else {None}


def ours(plugin_context: typing.Any,
         would_place: typing.Callable[
             [typing.Any, _Binding, str, _Segments], bool],
         **filters: typing.Any) -> typing.Iterator[tuple[_Binding, str]]:
    """Yield ports with the hosts on which a binding of theirs is ours.

    Also one beside the active one, of which there may be several, and one
    that is none any more, or not again, as of a guest that has moved to
    another driver's host, and may be fetched back from there.

    :param would_place: whether a port would be ours on a host; it is given
        this context first, and the segments of its network last
    :param filters: which ports, as Neutron's API has it
    """
    admin = plugin_context.elevated()
    ports = {port['id']: port for port in
             directory.get_plugin().get_ports(admin, filters=filters)}
    for binding in of_port(admin, *ports) if ports else ():
        port, host = ports[binding['port_id']], str(binding['host'])
        if is_our(binding['vif_type'], binding['vif_details']) or (
                binding['vif_type'] == portbindings.VIF_TYPE_UNBOUND and host
                and would_place(admin, port, host, _segments(
                    admin, port['network_id']))):
            yield port, host


def _segments(plugin_context: typing.Any, network_id: str) -> _Segments:
    found: _Segments = registry.load_class('NetworkSegment').get_objects(
        plugin_context, network_id=network_id)
    return found


def active(found: typing.Iterable[_Binding]) -> _Binding | None:
    """Return which of a port's bindings is in use."""
    return next((binding for binding in found
                 if binding['status'] == constants.ACTIVE), None)


def bridge(binding: _Binding, network_id: str) -> str | None:
    """Return the bridge that Nova takes from a binding, None without one."""
    name: str | None = (binding['vif_details'] or {}).get(
        portbindings.VIF_DETAILS_BRIDGE_NAME)
    # Without a name Nova takes one of its own, in _nw_info_build_network.
    return name or {
        portbindings.VIF_TYPE_BRIDGE: 'brq' + network_id[:11],
        portbindings.VIF_TYPE_OVS: 'br-int'}.get(binding['vif_type'])


def of_drivers_but(plugin_context: typing.Any,
                   drivers: typing.Collection[str]) -> dict[str, int]:
    """Return how many ports are bound by drivers that are not among these.

    One query, whose answer has a line for each driver.

    :returns: by the driver's name
    """
    level = registry.load_class('PortBindingLevel').db_model
    query = sqlalchemy.select(
        level.driver, sqlalchemy.func.count(level.port_id.distinct())).where(
        level.driver.not_in(drivers)).group_by(level.driver)
    with db_api.CONTEXT_READER.using(plugin_context):
        return dict(map(tuple, plugin_context.session.execute(query).all()))


class OnOtherBridges(typing.NamedTuple):
    """Ports of ours on a segment, bound to what was its bridge once."""

    bridge: str
    wanted: str | None
    ports: int


def on_other_bridges(plugin_context: typing.Any, bridges: mappings.Bridges,
                     segment_id: str | None = None,
                     ) -> dict[str, OnOtherBridges]:
    """Return where our bound ports are not on the bridges of these mappings.

    One query, whose answer has a line for each segment and bridge.

    :param segment_id: to look at this segment only
    :returns: by the segment's id, one of the other bridges with how many ports
        are bound to any of them
    """
    found: dict[str, OnOtherBridges] = {}
    counts: collections.Counter[str] = collections.Counter()
    for segment, details, count in _bound(plugin_context, segment_id):
        was = json.loads(details or '{}').get(
            portbindings.VIF_DETAILS_BRIDGE_NAME)
        wanted = bridges.bridge(segment)
        if was is not None and was != wanted:
            counts[segment[api.ID]] += count
            found[segment[api.ID]] = OnOtherBridges(
                was, wanted, counts[segment[api.ID]])
    return found


def _bound(plugin_context: typing.Any, segment_id: str | None,
           ) -> typing.Iterator[tuple[dict[str, typing.Any], str, int]]:
    """Yield segments, the details of our bindings there, and how many."""
    binding, level, segment = (
        registry.load_class(name).db_model
        for name in ('PortBinding', 'PortBindingLevel', 'NetworkSegment'))
    columns = (segment.id, segment.network_type, segment.physical_network,
               segment.segmentation_id, segment.network_id,
               binding.vif_details)
    query = sqlalchemy.select(*columns, sqlalchemy.func.count()).join(
        level, level.segment_id == segment.id).join(
        binding, sqlalchemy.and_(binding.port_id == level.port_id,
                                 binding.host == level.host)).where(
        level.driver == DRIVER).group_by(*columns)
    if segment_id is not None:
        query = query.where(segment.id == segment_id)
    with db_api.CONTEXT_READER.using(plugin_context):
        rows = plugin_context.session.execute(query).all()
    for id_, kind, physnet, tag, network, details, count in rows:
        yield ({api.ID: id_, api.NETWORK_TYPE: kind,
                api.PHYSICAL_NETWORK: physnet, api.SEGMENTATION_ID: tag,
                api.NETWORK_ID: network}, details, count)
