# SPDX-License-Identifier: Apache-2.0

"""The options of [tapmac_agent]."""

import copy

from oslo_config import cfg

from vif_plug_tapmac import names_file
from vif_plug_tapmac import opts

GROUP = names_file.GROUP
#: What conntrack can be.
REQUIRED, STATELESS_ONLY = 'required', 'stateless_only'

TAPMAC_AGENT_OPTS = [
    cfg.ListOpt(
        'bridge_mappings',
        default=[],
        help='The bridge of each physical network that this host is on, as '
             'physnet1:br100, with commas between them; what [ml2_tapmac] of '
             'Neutron has, but for networks that do not reach this host. The '
             'agent reports it, and Neutron takes its word for which segments '
             'of routed networks, and which DHCP agents, this host has.'),
    cfg.StrOpt(
        'conntrack',
        default=REQUIRED,
        choices=(REQUIRED, STATELESS_ONLY),
        help='What is done where the kernel knows no connections on bridges '
             '(CONFIG_NF_CONNTRACK_BRIDGE, Linux 5.3). required: the agent '
             'does not start. stateless_only: ports whose security groups are '
             'stateless (openstack security group create --stateless) are '
             'wired. Those with a stateful group, as all are by default, stay '
             'closed and DOWN, and an ERROR in the log names them. Where the '
             'kernel can, this changes nothing.'),
    cfg.IntOpt(
        'resync_interval',
        default=3600,
        min=10,
        max=604800,
        help='After how many seconds at the latest all ports of this host are '
             'asked for anew, 10 to 604800. What changes is told at once, and '
             'after the message queue was gone all is asked for anyway; this '
             'is for what gets lost nevertheless. Neutron has to look up each '
             'port of the host: with many hosts, longer is better.'),
    cfg.IntOpt(
        'resync_spread',
        default=3,
        min=0,
        max=600,
        help='Over how many seconds hosts spread what all of them have reason '
             'to do at one moment, 0 to 600: to ask for all their ports when '
             'the message queue or Neutron is back, or when all agents were '
             'started at once. New ports, and changes that Neutron tells, do '
             'not wait for that. With more than a hundred hosts, longer is '
             'kinder to Neutron: see "Scale" in the documentation.'),
    cfg.StrOpt(
        'metrics_file',
        default='',
        help='Where the agent writes how it is, for the textfile collector of '
             'Prometheus\' node exporter: a path that ends in .prom, in a '
             'directory that the agent may write to. Nobody ever reads half '
             'of it. Empty for none.'),
    names_file.OPTION,
]
opts.have_numbers(TAPMAC_AGENT_OPTS)


def group(conf: cfg.ConfigOpts) -> cfg.ConfigOpts.GroupAttr:
    """Return our group of a configuration that may not know it yet."""
    conf.register_opts(TAPMAC_AGENT_OPTS, group=GROUP)
    options: cfg.ConfigOpts.GroupAttr = conf[GROUP]
    return options


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """Return our options for oslo-config-generator."""
    return [(GROUP, copy.deepcopy(TAPMAC_AGENT_OPTS))]
