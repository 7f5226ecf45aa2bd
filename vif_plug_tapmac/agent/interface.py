# SPDX-License-Identifier: Apache-2.0

"""What Neutron's DHCP and L3 agents make their interfaces with.

Each is one end of a veth pair, in a namespace of the agent's. The other end
stays on the host and joins the bridge of the port's segment. tapmac-agent has
it join; where none runs, the driver does so itself.

All that is privileged here is Neutron's own: the agents have what it needs.
"""

import dataclasses
import logging
import time
import typing

from neutron.agent.linux import interface
from neutron.agent.linux import ip_lib
from neutron.agent import rpc as agent_rpc
from neutron.privileged.agent.linux import ip_lib as privileged
from neutron_lib.agent import topics
from neutron_lib.api.definitions import provider_net
from neutron_lib import constants
from neutron_lib import context
from neutron_lib.plugins.ml2 import api
from oslo_config import cfg

from vif_plug_tapmac import exception
from vif_plug_tapmac.kernel.link import Link
from vif_plug_tapmac.kernel import netlink as nl
from vif_plug_tapmac import mac
from vif_plug_tapmac import mark
from vif_plug_tapmac.mark import InterfaceMark
from vif_plug_tapmac.ml2.mappings import Bridges
from vif_plug_tapmac.ml2 import opts as ml2_opts

LOG = logging.getLogger(__name__)

#: For how many seconds tapmac-agent is waited for, and between two looks.
_JOINS_WITHIN, _PAUSE = 5.0, 0.02
#: Of a segment, by what networks have for it.
_PROVIDER = {provider_net.NETWORK_TYPE: api.NETWORK_TYPE,
             provider_net.PHYSICAL_NETWORK: api.PHYSICAL_NETWORK,
             provider_net.SEGMENTATION_ID: api.SEGMENTATION_ID}
_NO_DVR = (
    '[DEFAULT] agent_mode = %s: with interface_driver = tapmac there are no '
    'distributed routers (DVR), which are a matter of the flows of Open '
    'vSwitch on each host. The operator must have agent_mode = legacy for '
    'this agent, or another interface_driver.')
#: How interfaces of routers begin: that of a highly available one's own, and
#: others. Source: neutron/agent/l3/ha_router.py, namespaces.py
_HA, _OF_ROUTERS = 'ha-', ('qr-', 'qg-')
_GONE = (ip_lib.NetworkInterfaceNotFound, privileged.NetworkNamespaceNotFound)


class TapMacInterfaceDriver(
        interface.LinuxInterfaceDriver):  # type: ignore[misc]
    """Makes, mends and removes such pairs.

    Until the host's end is on its bridge it is down, so that the other one has
    no carrier: IPv6 looks for duplicates when there is somebody to ask.

    :raises InvalidConfig: [ml2_tapmac] has bridge_mappings that are none, or
        this is an L3 agent that is to have its part of distributed routers
    """

    DEV_NAME_PREFIX = 'ns-'

    def __init__(self, conf: cfg.ConfigOpts,
                 get_networks_callback: typing.Any = None,
                 **kwargs: typing.Any) -> None:
        super().__init__(conf, **kwargs)
        # Agents without routers have no such option.
        mode = getattr(conf, 'agent_mode', constants.L3_AGENT_MODE_LEGACY)
        if mode != constants.L3_AGENT_MODE_LEGACY:
            raise exception.InvalidConfig(_NO_DVR % mode)
        self._get_networks = get_networks_callback
        options = ml2_opts.group(conf)
        self._bridges = (Bridges.from_config(options)
                         if options.bridge_mappings else None)

    def plug_new(self, network_id: str, port_id: str, device_name: str,
                 mac_address: str, bridge: str | None = None,
                 namespace: str | None = None, prefix: str | None = None,
                 mtu: int | None = None) -> None:
        """Make the interface, and have its host's end on a bridge.

        :param device_name: of the interface in its namespace
        :param bridge: None: that of the port's segment
        :param prefix: that its name has; None: that of DHCP's
        :param mtu: in bytes; None or 0: the kernel's default
        :raises TapMacError: it can not be had; there is none
        """
        name = self._host_end(device_name, prefix)
        if name is None:
            raise exception.DeviceConflict(
                device=device_name, reason='an interface of port %s is to '
                'have this name, which does not begin with %s' % (
                    port_id, prefix or self.DEV_NAME_PREFIX),
                remedy='have another interface_driver for this agent')
        if not bridge and self._bridges is not None:
            if prefix == _HA:
                raise exception.DeviceConflict(
                    device=device_name, reason='it is of a highly available '
                    'router, for which Neutron has VRRP run when tapmac-agent '
                    'says that it is wired, and by bridge_mappings of '
                    '[ml2_tapmac] there is none on this host',
                    remedy='run tapmac-agent here and take bridge_mappings '
                    'out of the configuration of this agent, or take the '
                    'router from it')
            bridge = self._bridge_of(network_id, device_name)
        _remove_left_over(name)
        if namespace:
            ip_lib.IPWrapper().ensure_namespace(namespace)
        inner_mac = mac.parse(mac_address)
        more = {'mtu': mtu} if mtu else {}
        peer = {'ifname': device_name, 'address': inner_mac, **more,
                **({'net_ns_fd': namespace} if namespace else {})}
        privileged.create_interface(
            name, None, 'veth', address=mac.tap_mac(inner_mac),
            group=mark.INTERFACE_GROUP, peer=peer, **more)
        try:
            self._finish(name, InterfaceMark(port_id, inner_mac, None), bridge)
            ip_lib.IPDevice(device_name, namespace).link.set_up()
            if not bridge and not self._comes_later(prefix, namespace):
                _wait_for_agent(name)
        except Exception:
            _delete(name)
            raise
        LOG.info('%s is made for port %s of network %s, with %s on this host',
                 device_name, port_id, network_id, name)

    def unplug(self, device_name: str, bridge: str | None = None,
               namespace: str | None = None,
               prefix: str | None = None) -> None:
        """Remove an interface, both ends of it; none is success."""
        name = self._host_end(device_name, prefix)
        link = name and _find(name)
        if link and link.kind == 'veth':
            _delete(link.name)
        _delete(device_name, namespace)

    def set_mtu(self, device_name: str, mtu: int,
                namespace: str | None = None,
                prefix: str | None = None) -> None:
        """Have both ends of an interface as they are to be, with this MTU.

        The agents call this for each that they find when they start: it may
        be half-made, or of another driver.
        """
        inner = ip_lib.IPDevice(device_name, namespace)
        name = self._host_end(device_name, prefix)
        link = name and _find(name)
        if not link or link.kind != 'veth':
            raise exception.DeviceConflict(
                device=device_name, reason='its end on this host, %s, is '
                'missing' % (name or 'whatever it is called'),
                remedy='remove it with "ip -n %s link delete %s", and start '
                'the agent again' % (namespace, device_name))
        for each in ip_lib.IPDevice(link.name), inner:
            each.link.set_mtu(mtu)
        found = mark.InterfaceMark.parse(link.alias) or InterfaceMark(
            self._port_of(link.name), mac.parse(inner.link.address), None)
        # tapmac-agent sees to the others.
        self._finish(link.name, found,
                     self._bridges is not None and found.bridge or None)

    @staticmethod
    def _comes_later(prefix: str | None, namespace: str | None) -> bool:
        """Return whether Neutron may bind the port much later, as of HA.

        Those of a highly available router that has been active nowhere yet
        are bound when it is. Its own port is bound at once, and its interface
        made first. Source: neutron/api/rpc/handlers/l3_rpc.py
        """
        return prefix in _OF_ROUTERS and any(
            each.name.startswith(_HA)
            for each in ip_lib.IPWrapper(namespace).get_devices())

    def _host_end(self, device_name: str, prefix: str | None) -> str | None:
        """Return how the host's end is called: as Nova calls a TAP."""
        prefix = prefix or self.DEV_NAME_PREFIX
        if not device_name.startswith(prefix):
            return None
        return str(constants.TAP_DEVICE_PREFIX
                   + device_name.removeprefix(prefix))

    def _finish(self, name: str, its_mark: InterfaceMark,
                bridge: str | None) -> None:
        """Have the host's end as it is to be, and on a bridge if one is."""
        ip_lib.IPDevice(name).disable_ipv6()
        if bridge:
            index = _require_bridge(name, bridge).index
            its_mark = dataclasses.replace(its_mark, bridge=bridge)
        # The MAC comes before its first frame: a bridge takes the lowest of
        # its ports. And after the alias: of a link that is down the kernel
        # tells nobody of a new alias, but of a MAC, whatever that was before,
        # and tapmac-agent hears. Source: net/core/rtnetlink.c, do_setlink;
        # net/core/dev.c, netif_set_mac_address
        steps: list[dict[str, typing.Any]] = [
            {'group': mark.INTERFACE_GROUP, 'ifalias': str(its_mark)},
            {'address': mac.tap_mac(its_mark.mac)}]
        if bridge:
            steps += [{'master': index}, {'state': 'up'}]
        for step in steps:
            privileged.set_link_attribute(name, None, **step)

    def _bridge_of(self, network_id: str, device_name: str) -> str:
        """Return the bridge of a network, where no tapmac-agent knows it.

        :raises DeviceConflict: it has none here
        """
        assert self._bridges is not None
        fields = ['id', *_PROVIDER, 'segments']
        for network in self._get_networks(filters={'id': [network_id]},
                                          fields=fields):
            for segment in network.get('segments') or [network]:
                bridge = self._bridges.bridge({
                    api.NETWORK_ID: network_id, **{
                        key: segment.get(provider)
                        for provider, key in _PROVIDER.items()}})
                if bridge is not None:
                    return bridge
        raise exception.DeviceConflict(
            device=device_name, reason='no segment of network %s has a bridge '
            'here' % network_id,
            remedy='have its physical network in bridge_mappings of '
            '[ml2_tapmac] in the configuration of this agent, or take the '
            'network from this agent')

    def _port_of(self, name: str) -> str:
        """Return the port of an interface that has lost its mark.

        Or has never had one, as another driver made it.

        :raises DeviceConflict: Neutron has not bound it to this host
        """
        told = agent_rpc.PluginApi(topics.PLUGIN).get_device_details(
            context.get_admin_context_without_session(), name,
            'tapmac-interface-%s' % self.conf.host, self.conf.host)
        if 'port_id' in told:
            return str(told['port_id'])
        raise exception.DeviceConflict(
            device=name, reason='its alias does not say for which port it is, '
            'nor does Neutron, which has bound none of this name to this host',
            remedy='remove it with "ip link delete %s", and start the agent '
            'again, which makes it anew' % name)


def _find(name: str) -> Link | None:
    with nl.Netlink() as netlink:
        return netlink.find(name)


def _require_bridge(name: str, bridge: str) -> Link:
    """Return the bridge that a device is to join.

    :raises DeviceConflict: there is none of this name
    """
    link = _find(bridge)
    if link is None or link.kind != 'bridge':
        raise exception.DeviceConflict(
            device=name, reason='it is to be on the bridge %s, %s' % (
                bridge, 'which is missing' if link is None else
                'and a device of another kind has this name'),
            remedy='make that bridge, with the uplink of its network, in what '
            'configures the network of this host')
    return link


def _remove_left_over(name: str) -> None:
    """Remove what an agent left that was killed, or its namespace.

    :raises DeviceConflict: something else has the name
    """
    link = _find(name)
    if link is None:
        return
    if link.kind != 'veth':
        raise exception.DeviceConflict(
            device=name, reason='the host\'s end of an interface of Neutron '
            'is to have this name, and a device of another kind (%s) has it'
            % (link.kind or 'hardware'),
            remedy='rename or remove that device')
    LOG.warning('%s was left over, without its other end where it is to be; '
                'it is made anew', name)
    _delete(name)


def _delete(name: str, namespace: str | None = None) -> None:
    try:
        privileged.delete_interface(name, namespace)
    except _GONE:
        pass


def _wait_for_agent(name: str) -> None:
    """Wait until tapmac-agent has the host's end on its bridge.

    Whoever begins to speak before loses what he says.
    """
    deadline = time.monotonic() + _JOINS_WITHIN
    while time.monotonic() < deadline:
        link = _find(name)
        if link is None or link.master is not None and link.up:
            return
        time.sleep(_PAUSE)
    LOG.warning('%s is on no bridge yet, for which tapmac-agent is to see. If '
                'it stays so: see that it runs on this host, and what it '
                'logs; or have bridge_mappings of [ml2_tapmac] in the '
                'configuration of this agent, which then does it itself.',
                name)
