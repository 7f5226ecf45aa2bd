# SPDX-License-Identifier: Apache-2.0

"""An IP address of a link: from the bytes of a message, and back.

Pure: nothing here asks or tells the kernel anything.
"""

import dataclasses
import socket

from vif_plug_tapmac.kernel import attributes
from vif_plug_tapmac.kernel import rtnetlink

#: How far it reaches; the larger, the less. Source: linux/rtnetlink.h
SCOPE_LINK, SCOPE_HOST = 253, 254
#: Attributes. On a link with two ends the first is that of the other one.
#: Source: include/uapi/linux/if_addr.h
_ADDRESS, _LOCAL = 1, 2


@dataclasses.dataclass(frozen=True)
class Address:
    """An address of a link.

    :param family: AF_INET, AF_INET6, or one that is not of IP
    :param length: of the prefix, in bits
    :param scope: how far it reaches, as SCOPE_LINK
    :param octets: the address; of the other end, where a link has two
    :param local: the address here, None where it is the same
    """
    link_index: int
    family: int
    length: int
    scope: int
    octets: bytes
    local: bytes | None

    def __str__(self) -> str:
        return '%s/%d' % (socket.inet_ntop(self.family, self.octets),
                          self.length)

    @property
    def is_ip(self) -> bool:
        """Whether it is one: other families have addresses, too."""
        return self.family in (socket.AF_INET, socket.AF_INET6)

    @classmethod
    def from_message(cls, body: bytes) -> 'Address':
        """Return the address that a message describes.

        :raises LookupError: the message was cut off, or is of another kind
        """
        family, length, scope, index, told = rtnetlink.read_address(body)
        octets = told.octets(_ADDRESS) or told.octets(_LOCAL)
        if octets is None:
            raise LookupError()
        return cls(index, family, length, scope, octets, told.octets(_LOCAL))

    def to_body(self) -> bytes:
        """Return the body that means this address."""
        return rtnetlink.address(
            self.link_index, self.family, self.length,
            attributes.attribute(_ADDRESS, self.octets),
            *([] if self.local is None
              else [attributes.attribute(_LOCAL, self.local)]))
