# SPDX-License-Identifier: Apache-2.0

"""Bridges that others made: whose they are, and how they reach the wire."""

import re
import typing

from vif_plug_tapmac.kernel.link import Link

#: How Neutron's Linux bridge agent names a bridge, and a tunnel in it. Source:
#: neutron/plugins/ml2/drivers/linuxbridge/agent/linuxbridge_neutron_agent.py,
#: get_bridge_name, get_vxlan_device_name (2024.2)
_OF_AGENT = re.compile(r'brq[0-9a-f]{8}-[0-9a-f]{2}')
_TUNNEL = re.compile(r'vxlan-[0-9]+')
#: How Docker does.
_OF_DOCKER = re.compile(r'docker0|br-[0-9a-f]{12}')
#: How Neutron's agents begin the name of each end of a cable on a bridge.
_TAP = 'tap'


def is_of_agent(bridge: Link) -> bool:
    """Return whether Neutron's Linux bridge agent made it, by its name."""
    return _OF_AGENT.fullmatch(bridge.name) is not None


def is_tunnel_of_agent(port: Link) -> bool:
    """Return whether that agent made this tunnel, by its name."""
    return port.kind == 'vxlan' and _TUNNEL.fullmatch(port.name) is not None


def is_of_containers(bridge: Link, ports: typing.Collection[Link]) -> bool:
    """Return whether a bridge is there for containers, and no guests.

    Docker's by its name, others by their ports: cables, of each of which the
    other end is in another network namespace.
    """
    if is_of_agent(bridge) or any(port.is_tap for port in ports):
        return False
    if _OF_DOCKER.fullmatch(bridge.name):
        return True
    return bool(ports) and all(port.kind == 'veth' and port.lower is None
                               for port in ports)


def uplinks(ports: typing.Iterable[Link]) -> list[Link]:
    """Return the ports that may lead to a wire, what works first."""
    found = [port for port in ports if port.kind != 'tun'
             and not (port.kind == 'veth' and port.name.startswith(_TAP))]
    return sorted(found, key=lambda port: (not (port.up and port.carrier),
                                           port.index))
