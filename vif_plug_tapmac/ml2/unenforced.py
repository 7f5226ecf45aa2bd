# SPDX-License-Identifier: Apache-2.0

"""What a port has, or gets, that nobody enforces on its host. Pure.

Each with its remedy.
"""

import typing

from neutron_lib.api.definitions import provider_net
from neutron_lib.api.definitions import trunk_details
from neutron_lib import constants
from neutron_lib.services.qos import constants as qos

from vif_plug_tapmac.ml2 import others

#: What to do where a subnet gives addresses to ports by itself.
_SUBNET_BEFORE = (
    'Detach the ports of the network from their servers, change the subnet, '
    'and attach them again; or let it have the ipv6_address_mode '
    'dhcpv6-stateful')
#: What Neutron says of a port, network or subnet.
_Resource = typing.Mapping[str, typing.Any]


def of_port(port: _Resource, network: _Resource) -> dict[str, str]:
    """Return what a port has that nobody enforces on any host of ours."""
    found = _network_qos(network, port)
    policy = port.get(qos.QOS_POLICY_ID)
    if policy:
        found['QoS policy %s' % policy] = (
            'Remove the policy from the port')
    details = port.get(trunk_details.TRUNK_DETAILS)
    if details:
        feature, remedy = trunk(details['trunk_id'])
        found[feature] = remedy
    providers = others.allocated(port)
    if providers:
        found['the resources of %s' % ', '.join(providers)] = (
            'Leave the port without guaranteed bandwidth')
    if not port['admin_state_up']:
        found['admin_state_up False'] = (
            'Leave the port up, and detach it from its server instead')
    return found


def where_full(port: _Resource) -> dict[str, str]:
    """Return the same of hosts with anti_spoofing = full, beside that."""
    found = {}
    if port.get('allowed_address_pairs'):
        found['allowed address pairs'] = (
            'Give the port the addresses as fixed IPs before it is attached, '
            'or use a host that is not in [ml2_tapmac] full_hosts')
    if port.get('port_security_enabled') is False:
        found['port_security_enabled False'] = (
            'Leave port security on, or use a host that is not in '
            '[ml2_tapmac] full_hosts')
    return found


def other_addresses(former: _Resource, port: _Resource) -> dict[str, str]:
    """Return that a port has other fixed IPs than before, if it has."""
    if _addresses(former) == _addresses(port):
        return {}
    return {'other fixed IPs while it is bound there': (
        'Detach the port from its server, change them, and attach it again')}


def subnet_of_addresses(subnet: _Resource) -> tuple[str, str]:
    """Return that ports get addresses of a new subnet."""
    return ('an address of the new subnet %s while it is bound there'
            % subnet['cidr'], _SUBNET_BEFORE)


def changed_subnet(subnet: _Resource) -> tuple[str, str]:
    """Return that addresses of ports are another subnet's from now on."""
    return ('other fixed IPs in %s while it is bound there' % subnet['cidr'],
            _SUBNET_BEFORE)


def deleted_subnet() -> tuple[str, str]:
    """Return that ports lose their addresses of a subnet."""
    return ('fewer fixed IPs, without this subnet, while it is bound there',
            'Detach the ports of the network from their servers, delete the '
            'subnet, and attach them again')


def gives_addresses(subnet: _Resource) -> bool:
    """Return whether each port of a network gets an address of a subnet.

    Neutron gives it to those that are there already, too.
    """
    return subnet.get('ipv6_address_mode') in (
        constants.IPV6_SLAAC, constants.DHCPV6_STATELESS)


def _addresses(port: _Resource) -> set[str]:
    return {str(fixed_ip['ip_address'])
            for fixed_ip in port.get('fixed_ips') or ()}


def changed_network(former: _Resource, network: _Resource,
                    port: _Resource | None = None) -> dict[str, str]:
    """Return what a network has for a port since it was changed.

    :param port: None: that of a guest
    """
    found = {}
    if former.get(qos.QOS_POLICY_ID) != network.get(qos.QOS_POLICY_ID):
        found.update(_network_qos(network, port))
    vlan = network.get(provider_net.SEGMENTATION_ID)
    if former.get(provider_net.SEGMENTATION_ID) != vlan:
        found['VLAN %s for its network while it is bound there' % vlan] = (
            'Detach the ports of the network from their servers, change it, '
            'and attach them again')
    return found


def _network_qos(network: _Resource, port: _Resource | None,
                 ) -> dict[str, str]:
    policy = network.get(qos.QOS_POLICY_ID)
    # That is for guests, not for Neutron's own ports.
    is_for_it = port is None or not port['device_owner'].startswith(
        constants.DEVICE_OWNER_NETWORK_PREFIX)
    return {} if not policy or not is_for_it else {
        'QoS policy %s of its network' % policy:
            'Leave the network without policy'}


def trunk(trunk_id: str) -> tuple[str, str]:
    return ('trunk %s' % trunk_id,
            'Give the server a port on each of the networks instead')


def log() -> tuple[str, str]:
    return ('a log of its security groups',
            'Have "tapmac explain TAP --log-drops on" on the host log what is '
            'dropped there')
