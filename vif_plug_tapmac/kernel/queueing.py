# SPDX-License-Identifier: Apache-2.0

"""How frames of links are queued, and what filters of others do there.

Source: include/uapi/linux/rtnetlink.h, linux/pkt_cls.h
"""

from vif_plug_tapmac.kernel import attributes
from vif_plug_tapmac.kernel.attributes import Attributes
from vif_plug_tapmac.kernel import netlink as nl
from vif_plug_tapmac.kernel import rtnetlink
from vif_plug_tapmac.kernel import source_filter

_KIND, _OPTIONS, _ACTION_KIND = 1, 2, 1
#: In which attribute of its options a filter of a kind has its actions; and a
#: limit that is none of these.
_ACTIONS = {'bpf': 1, 'cgroup': 1, 'matchall': 2, 'flower': 3, 'basic': 3,
            'fw': 4, 'route': 6, 'u32': 7, 'flow': 9}
_LIMITS = {'cgroup': 2, 'basic': 4, 'fw': 2, 'route': 5, 'u32': 6, 'flow': 10}
#: The action that drops, or lets pass, what is more than so much.
LIMIT = 'police'


def kinds() -> dict[int, list[str]]:
    """Return the kinds of queueing of all links, as "tbf", by their index.

    One request, whatever their number.
    """
    found: dict[int, list[str]] = {}
    with nl.Netlink() as netlink:
        for index, kind in netlink.list(
                'the host', 'listing how it queues', rtnetlink.GET_QUEUEING,
                rtnetlink.traffic_control(0, 0, 0, 0), _index_and_kind):
            found.setdefault(index, []).append(kind)
    return found


def _index_and_kind(body: bytes) -> tuple[int, str]:
    index, _, _, _, told = rtnetlink.read_traffic_control(body)
    return index, told.text(_KIND) or ''


def is_filter(each: source_filter.Filter) -> bool:
    """Return whether this is a filter, and not only where some are.

    Source: net/sched/cls_u32.c, TC_U32_NODE
    """
    return bool(each.handle & 0xfff if each.kind == 'u32' else each.handle)


def actions(each: source_filter.Filter) -> list[str]:
    """Return the kinds of what a filter does, as "mirred"; none: a verdict."""
    options = each.told.nested(_OPTIONS)
    found = [LIMIT] * (_LIMITS.get(each.kind, 0) in options)
    return found + [
        Attributes(octets).text(_ACTION_KIND) or ''
        for _, octets in attributes.every(
            options.octets(_ACTIONS.get(each.kind, 0)) or b'')]
