# SPDX-License-Identifier: Apache-2.0

"""How security groups and their rules are called, as tapmac-agent wrote it.

The agent is no part of the privileged side: whoever can write as its user can
write anything there. So nothing of it is taken for true but what something is
called, and none of it reaches a terminal that is no text. What is in force is
the kernel's to say.
"""

import dataclasses
import json
import logging
import os
import re
import stat
import typing

from vif_plug_tapmac.host import group_wording
from vif_plug_tapmac.kernel import nft

LOG = logging.getLogger(__name__)

#: How much is read of the file, in octets, and how long a name may be.
_MOST, _NAME_MOST = 64 << 20, 255
_UUID = re.compile(r'[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z')

#: What a rule is known by: the UUID of its group, direction, family, and what
#: its comment in the kernel says.
_Key = tuple[str, str, int, str]


@dataclasses.dataclass(frozen=True)
class Names:
    """What is known.

    :param groups: names by UUIDs
    :param rules: UUIDs by what rules say
    """
    groups: dict[str, str]
    rules: dict[_Key, str]

    def group(self, uuid: str) -> str:
        """Return how people are told of a group: name and UUID, or that."""
        name = self.groups.get(uuid)
        return uuid if name is None else '%s (%s)' % (name, uuid)

    def rule(self, group: str, rule: nft.Rule) -> str | None:
        """Return the UUID of a rule in Neutron; None: nobody told it.

        :param group: the UUID of its group
        :param rule: one of that, as it is in the kernel
        """
        if _UUID.match(rule.comment):
            return rule.comment
        return self.rules.get((
            group, group_wording.direction(rule.chain),
            group_wording.family(rule), rule.comment))


NONE = Names({}, {})


def read(path: str) -> Names:
    """Return what the agent has written; nothing where it has not.

    :param path: of its file; empty for none
    """
    if not path:
        return NONE
    try:
        told = json.loads(_octets(path))
        return Names(
            {uuid: _plain(each['name'])
             for uuid, each in told['groups'].items()
             if _is_uuid(uuid) and isinstance(each.get('name'), str)},
            {(uuid, str(direction), family, str(says)): rule
             for uuid, each in told['groups'].items()
             for rule, direction, family, says in each['rules']
             if _is_uuid(rule) and family in (4, 6)})
    except FileNotFoundError:
        LOG.debug('%s is not there: no names are known', path)
    except (OSError, ValueError, TypeError, KeyError, AttributeError,
            RecursionError) as error:
        LOG.warning('%s tells no names of security groups, which are shown by '
                    'their ids: %s', path,
                    getattr(error, 'strerror', None) or type(error).__name__)
    return NONE


def _octets(path: str) -> bytes:
    """Return what is in a file, if it is one that ends.

    :raises OSError, ValueError: it is not
    """
    opened = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
                     | os.O_CLOEXEC)
    with os.fdopen(opened, 'rb') as file:
        if not stat.S_ISREG(os.fstat(opened).st_mode):
            raise ValueError('no regular file')
        octets = file.read(_MOST + 1)
    if len(octets) > _MOST:
        raise ValueError('too long')
    return octets


def _is_uuid(what: typing.Any) -> bool:
    return isinstance(what, str) and _UUID.match(what) is not None


def _plain(name: str) -> str:
    """Return a name that does nothing to who sees it."""
    return ''.join(each if each.isprintable() else '?'
                   for each in name[:_NAME_MOST])
