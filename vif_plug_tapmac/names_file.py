# SPDX-License-Identifier: Apache-2.0

"""Where tapmac-agent writes how security groups are called, and who reads it.

As JSON: ``groups`` has by the UUID of each group its ``name``, and a list of
its ``rules``, each a list: UUID, direction, family, and by what the kernel
knows it.
"""

from oslo_config import cfg

#: The section of the agent.
GROUP = 'tapmac_agent'
OPTION = cfg.StrOpt(
    'names_file',
    default='/run/tapmac-agent/names.json',
    help='Where the agent writes how the security groups of its ports are '
         'called, and which ids their rules have in Neutron, for "tapmac '
         'show" and "tapmac explain"; without it they tell the ids of groups, '
         'and what rules let pass. A path in a directory that the agent may '
         'write to. For it the agent asks Neutron once more, some seconds '
         'after a group of its ports became another one. Empty: it does not, '
         'and writes none.')


def path(conf: cfg.ConfigOpts) -> str:
    """Return where it is, by a configuration that was read; empty: nowhere."""
    conf.register_opt(OPTION, group=GROUP)
    found: str = conf[GROUP].names_file
    return found
