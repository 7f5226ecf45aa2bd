# SPDX-License-Identifier: Apache-2.0

"""The options of a TAP's port on its bridge: the one table of them.

Whatever sets them, reads them back, audits, lists or checks them reads this
table. Another one is an entry here, an option in opts.py, and a line of
documentation.
"""

import typing


class PortOption(typing.NamedTuple):
    """One thing that a bridge does, or does not, with a port.

    :param field: of a :class:`vif_plug_tapmac.kernel.link.Link`
    :param attribute: its number in netlink: IFLA_BRPORT_...
    :param initial: how the kernel has it when a port joins
    :param option: which option of ``[os_vif_tapmac]`` asks for it. A field of
        the same name is in each TapPort, unless this is another's
    :param since: the first Linux that has it
    """
    field: str
    attribute: int
    initial: bool
    option: str
    since: tuple[int, int]

    @property
    def is_configured(self) -> bool:
        """Whether the option says just this, and nothing else."""
        return self.option == 'port_' + self.field


#: Source: include/uapi/linux/if_link.h; net/bridge/br_if.c, new_nbp
TABLE = (
    # Only frames from MACs in the FDB come in.
    PortOption('locked', 39, False, 'anti_spoofing', (5, 18)),
    # It does not reach other such ports.
    PortOption('isolated', 33, False, 'port_isolated', (4, 18)),
    # A frame may leave where it came in.
    PortOption('hairpin', 4, False, 'port_hairpin', (3, 8)),
    # Its frames tell the bridge who is there.
    PortOption('learning', 8, True, 'anti_spoofing', (3, 11)),
    # It gets frames for MACs that the bridge does not know.
    PortOption('flood_unicast', 9, True, 'port_flood_unicast', (3, 11)),
    # It gets multicast of groups that nobody is known to have joined.
    PortOption('flood_multicast', 27, True, 'port_flood_multicast', (4, 9)),
    # It gets broadcast.
    PortOption('flood_broadcast', 30, True, 'port_flood_broadcast', (4, 12)),
)

#: Those that an option of their own says.
CONFIGURED = tuple(each for each in TABLE if each.is_configured)
