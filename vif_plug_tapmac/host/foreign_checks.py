# SPDX-License-Identifier: Apache-2.0

"""What other programs have put on guests' TAPs, and tapmac never does."""

import errno
import fnmatch
import typing

from vif_plug_tapmac import exception
from vif_plug_tapmac.host.finding import finds
from vif_plug_tapmac.host.finding import Seen
from vif_plug_tapmac.host.inventory import Inventory
from vif_plug_tapmac.host.tap import Tap
from vif_plug_tapmac.kernel import netlink as nl
from vif_plug_tapmac.kernel import queueing
from vif_plug_tapmac.kernel import source_filter
from vif_plug_tapmac.wanted import names

#: Where filters of what comes in can be; the second has room for what goes
#: out, too.
_PLACES, _BOTH_WAYS = ('ingress', 'clsact'), 'clsact'
#: What keeps frames back, or loses them. Source: net/sched/sch_*.c
_THROTTLES = ('tbf', 'hfsc', 'cbq', 'netem', 'plug', 'blackhole', 'taprio')
#: And this, by which libvirt does what a domain asks for. Source: libvirt,
#: src/util/virnetdevbandwidth.c, virNetDevBandwidthSet
_OF_LIBVIRT = 'htb'


@finds('TM240')
def _said_to_be_deleted(seen: Inventory) -> Seen:
    """Look for links that are said to have been a TAP that they are not."""
    for link in seen.links.values():
        for altname in link.altnames:
            former = altname.removesuffix(names.BEING_DELETED)
            if former not in (altname, link.former_name):
                yield (link.name, 'its alternative name %s says that it was '
                       '%s, and is being deleted: neither is so'
                       % (altname, former),
                       '"ip link property del dev %s altname %s"'
                       % (link.name, altname))


@finds('TM241')
def _filters(seen: Inventory, tap: Tap) -> Seen:
    if tap.is_anothers:
        return
    kinds = seen.queueing.get(tap.link.index, [])
    for kind, where, word in ((_PLACES, source_filter.INGRESS, 'ingress'),
                              ((_BOTH_WAYS,), source_filter.EGRESS, 'egress')):
        if not set(kinds).intersection(kind):
            continue
        ours, others = _filters_of(tap, where)
        first = min((each.priority for each in ours), default=None)
        for each in others:
            done = queueing.actions(each)
            before = first is not None and each.priority < first
            if done == [queueing.LIMIT] and not before:
                continue
            yield (tap.link.name, 'somebody else has a filter on what its '
                   'guest %s, %s of priority %d%s: %s' % (
                       'sends' if word == 'ingress' else 'gets', each.kind,
                       each.priority, ', before ours' if before else '',
                       ', '.join(done) or 'its verdict is final'),
                   'find out by whom: "tc filter show dev %s %s"; "tc filter '
                   'del dev %s %s pref %d" takes it away' % (
                       tap.link.name, word, tap.link.name, word,
                       each.priority))


def _filters_of(tap: Tap, where: int) -> tuple[
        list[source_filter.Filter], list[source_filter.Filter]]:
    """Return ours and those of others, none if the TAP is gone by now."""
    with nl.Netlink() as netlink:
        try:
            found = source_filter.filters(netlink, tap.link, where)
        except exception.KernelRefused as error:
            if error.kwargs.get('code') != errno.ENODEV:
                raise
            return [], []
    return source_filter.split([each for each in found
                                if queueing.is_filter(each)])


@finds('TM241')
def _chains(seen: Inventory, tap: Tap) -> Seen:
    for chain in _of_device(seen, tap.link.name):
        yield (tap.link.name, 'the chain %s of nftables is before all else '
               'that its guest sends or gets' % chain,
               'find out by whom: "nft list chain %s"' % chain)


def _of_device(seen: Inventory, name: str) -> typing.Iterator[str]:
    return (each.name for each in seen.chains_of_devices
            if fnmatch.fnmatchcase(name, each.device))


@finds('TM242')
def _throttled(seen: Inventory, tap: Tap) -> Seen:
    if tap.is_anothers:
        return
    kinds = seen.queueing.get(tap.link.index, [])
    strange = [kind for kind in kinds if kind in _THROTTLES]
    # As libvirt does it where the domain asks for it.
    asks = tap.nic is None or tap.nic.is_limited
    if not asks and _OF_LIBVIRT in kinds:
        strange.append(_OF_LIBVIRT)
    if strange:
        yield (tap.link.name, 'what is for its guest goes through %s, which '
               'holds back, or loses, some of it; neither tapmac nor libvirt '
               'has it so' % ' and '.join(strange),
               '"tc qdisc del dev %s root", and find out who set it'
               % tap.link.name)
    if asks or not set(kinds).intersection(_PLACES):
        return
    if any(queueing.LIMIT in queueing.actions(each) for each in _filters_of(
            tap, source_filter.INGRESS)[1]):
        yield (tap.link.name, 'a filter drops what its guest sends beyond '
               'some limit, and domain %s asks for none'
               % (tap.nic and tap.nic.domain),
               '"tc filter show dev %s ingress" tells which'
               % tap.link.name)


@finds('TM120')
def _at_uplinks(seen: Inventory) -> Seen:
    for bridge in seen.bridges:
        name, uplink = seen.joined_uplink(bridge)
        for chain in _of_device(seen, uplink.name) if uplink else ():
            yield (bridge.name, 'the chain %s of nftables is before all else '
                   'that %s takes from the wire, or gives to it' % (
                       chain, name),
                   'see that it is meant for guests: "nft list chain %s"'
                   % chain)


CHECKS = (_filters, _chains, _throttled)
HOST_CHECKS = (_at_uplinks, _said_to_be_deleted)
