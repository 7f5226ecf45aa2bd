# SPDX-License-Identifier: Apache-2.0

"""Names of TAPs, bridges and VLANs' devices, and what else has one.

What Nova, Neutron, os-vif and the kernel have to agree on.
"""

import re
import secrets
import typing

# The tun driver accepts far more and treats some of it as templates (t%d), or
# cuts what is too long and so names another device: see the functional tests.
DEVICE_NAME = re.compile(r'[A-Za-z0-9][A-Za-z0-9_.-]{0,14}\Z')
# An uplink may be meant by an alternative name, of up to 127 characters.
# Source: include/linux/netdevice.h, ALTIFNAMSIZ
_ANY_NAME = re.compile(r'[A-Za-z0-9][A-Za-z0-9_.-]{0,126}\Z')
#: The longest that a name of its own can be. Source: include/uapi/linux/if.h,
#: IFNAMSIZ
DEVICE_NAME_MAX = 15
# Directories of /proc/sys/net/ipv4/conf, not interfaces.
_RESERVED_NAMES = ('all', 'default')
#: The port profile of an Open vSwitch VIF says so where Neutron's tapmac
#: driver bound it: Nova has no other words for a TAP that os-vif makes.
DATAPATH_TYPE = 'tapmac'

#: How the bridge of a VLAN is named unless the operator says otherwise.
VLAN_BRIDGE = '{bridge}-{vlan}'
#: 0 is for frames without a VLAN, 4095 is reserved.
#: Source: IEEE 802.1Q, table 9-2
VLAN_MIN, VLAN_MAX = 1, 4094
#: Names of other plugins that Nova knows, and tapmac can answer for.
CLAIMABLE = ('ovs', 'linux_bridge')
#: To how many characters Nova cuts the names of TAPs and bridges. Source:
#: nova/network/model.py, NIC_NAME_LEN (33.0.2)
NOVA_NAME_LENGTH = 14
#: Follows the name that a TAP had, in the alternative name that it has while
#: it is being deleted. Too long for anybody to open the TAP by it.
BEING_DELETED = '.tapmac-being-deleted'
#: Of a name that nobody shall guess: see :func:`unguessable`.
UNGUESSABLE = 'tapmac-'
_UNGUESSABLE = re.compile('%s[0-9a-f]{8}' % re.escape(UNGUESSABLE))
_NOVA_TAP = re.compile('tap([0-9a-f]{8}-[0-9a-f]{2})')


def nova_tap_name(vif_id: str) -> str:
    """Return the name that Nova gives to the TAP of a port.

    Source: nova/network/neutron.py, _build_vif_model (33.0.2)
    """
    return ('tap' + vif_id)[:NOVA_NAME_LENGTH]


def being_deleted(name: str) -> str:
    """Return the alternative name of a TAP of this name that is to go."""
    return name + BEING_DELETED


def unguessable() -> str:
    """Return a name for a TAP that nobody shall find, not yet or not any more.

    With "tap" in front, for .link files and rules that match on that. No TAP
    of Nova's is named so, theirs have a "-" after eight digits.
    """
    return UNGUESSABLE + secrets.token_hex(4)


def is_unguessable(name: str) -> bool:
    """Return whether a name is one of these."""
    return _UNGUESSABLE.fullmatch(name) is not None


def start_of_vif_id(tap_name: str) -> str | None:
    """Return how the id of the port begins to whose TAP Nova gives this name.

    :returns: 11 characters of it; None if Nova gives no TAP such a name
    """
    match = _NOVA_TAP.fullmatch(tap_name)
    return match and match[1]


def parse_vlan_device(name: str) -> tuple[str, int] | None:
    """Return of which device another is which VLAN, by its name: eth1.200.

    :returns: None if the name says nothing of the kind
    """
    match = re.fullmatch(r'(.+)\.([1-9][0-9]{0,3})', name)
    if match is None or int(match[2]) > VLAN_MAX:
        return None
    return match[1], int(match[2])


def vlan_device(parent: str, vlan: int) -> str:
    """Return how the device of a VLAN on another is named."""
    return '%s.%d' % (parent, vlan)


def is_device_name(name: typing.Any) -> bool:
    """Return whether TAPs and bridges may have this name here."""
    return (isinstance(name, str) and name not in _RESERVED_NAMES
            and DEVICE_NAME.match(name) is not None)


def is_uplink_name(name: typing.Any) -> bool:
    """Return whether an uplink may be called so: name or alternative name."""
    return (isinstance(name, str) and name not in _RESERVED_NAMES
            and _ANY_NAME.match(name) is not None)
