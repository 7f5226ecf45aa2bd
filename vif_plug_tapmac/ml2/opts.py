# SPDX-License-Identifier: Apache-2.0

"""The options of [ml2_tapmac], which neutron-server reads."""

import copy

from oslo_config import cfg

from vif_plug_tapmac.wanted import names
from vif_plug_tapmac.wanted import port as port_values

GROUP = 'ml2_tapmac'

ML2_TAPMAC_OPTS = [
    cfg.ListOpt(
        'bridge_mappings',
        default=[],
        help='The bridge of each physical network, as physnet1:br100, with '
             'commas between them. Guests on a flat network join this bridge; '
             'it has the same name on all compute hosts. At least one is '
             'needed. Ports on other physical networks are left to other '
             'mechanism drivers. Names have at most 14 characters, because '
             'Nova cuts what is longer.'),
    cfg.StrOpt(
        'flat_bridge',
        default='{bridge}',
        help='The bridge of a flat network: {bridge} stands for the bridge of '
             'its physical network in bridge_mappings, {network} for the '
             'first 11 characters of the network\'s id. brq{network} is what '
             'the Linux bridge agent of Neutron called it. Empty leaves flat '
             'networks to other mechanism drivers.'),
    cfg.StrOpt(
        'vlan_bridge',
        default=names.VLAN_BRIDGE,
        help='The bridge of a VLAN on a physical network: {bridge} stands for '
             'its bridge in bridge_mappings, {vlan} for the VLAN id, '
             '{network} for the first 11 characters of the network\'s id. '
             'Nova does not tell hosts of VLAN ids, so each VLAN has a bridge '
             'of its own on each host, whose uplink tags its frames. No name '
             'may have more than 14 characters, VLANs up to 4094 included, '
             'and no two networks may share a bridge. Empty leaves VLANs to '
             'other mechanism drivers.'),
    cfg.ListOpt(
        'hosts',
        default=['*'],
        help='The compute hosts with tapmac, as shell patterns of the names '
             'by which Neutron knows them: * for anything, ? for one '
             'character, [abc] for one of these. Ports on other hosts are '
             'left to other mechanism drivers. The default is right if no '
             'compute host has another driver.'),
    cfg.ListOpt(
        'bridge_hosts',
        default=[],
        help='Those of these hosts whose Nova is older than 33, as shell '
             'patterns. Such a Nova cannot plug what is bound as ovs, so '
             'ports there are bound as bridge, for linux_bridge in '
             'claim_plugins of the os-vif plugin. Nova 34 and newer refuses '
             'bridge. Take a host out when its Nova is 33; ports that are '
             'bound stay as they are until they are bound anew.'),
    cfg.ListOpt(
        'full_hosts',
        default=[],
        help='Those of these hosts whose os-vif plugin has anti_spoofing = '
             'full, as shell patterns. There a guest is kept to the fixed IPs '
             'that its port has when it is plugged, and nobody tells the host '
             'of a change. So this is refused on ports that are bound there: '
             'a change of their fixed IPs, also by a subnet of SLAAC that '
             'comes or goes, allowed address pairs, and to switch port '
             'security off. Name a host here before its option is changed. '
             'On hosts with tapmac-agent nothing of this is refused, because '
             'it hears of such a change.'),
    cfg.StrOpt(
        'firewall',
        default='none',
        choices=port_values.FIREWALLS,
        help='Who keeps guests to the security groups of their ports, on '
             'hosts of ours, if agent_hosts is empty. none: nobody. agent: '
             'tapmac-agent, on all of them, together with firewall = agent '
             'of the os-vif plugin. Where there is an agent, ports have '
             'port_filter true, are bound only while it is alive and on '
             'networks that it has in its bridge_mappings, ports of DHCP and '
             'routers included, and are ACTIVE when it guards them. Elsewhere '
             'they are ACTIVE when they are bound. This needs Neutron 28 or '
             'newer.'),
    cfg.ListOpt(
        'agent_hosts',
        default=[],
        help='Those of these hosts that have tapmac-agent, as shell '
             'patterns, and no others, whatever firewall says here. Where '
             'one comes to one host after the other, name each when its '
             'agent runs. Ports that are bound stay as they are until they '
             'are bound anew.'),
]


def group(conf: cfg.ConfigOpts) -> cfg.ConfigOpts.GroupAttr:
    """Return our group of a configuration that may not know it yet."""
    conf.register_opts(ML2_TAPMAC_OPTS, group=GROUP)
    options: cfg.ConfigOpts.GroupAttr = conf[GROUP]
    return options


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """Return our options for oslo-config-generator."""
    return [(GROUP, copy.deepcopy(ML2_TAPMAC_OPTS))]
