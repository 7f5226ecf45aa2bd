# SPDX-License-Identifier: Apache-2.0

"""What is right is one description: whatever root changes is found.

Test strategy: a host as a plug leaves it, with a bridge of ours, an uplink, a
TAP that a process holds and an idle one. One thing is changed, of all that the
kernel lets root change (tests/changes.py): an audit names the device, or it is
of a kind that was found harmless. Then a repair: the host is as it was at
first, and the audit clean; or as it was before the repair. What the host is
like is compared as the kernel tells it, octet by octet. What a kernel refuses,
or takes without doing it, is counted, and passed over.

The short form leaves out what is harmless, and the idle TAP; where the kernel
is emulated, each fourth is changed.
"""

import collections
import contextlib
import errno
import itertools
import os
import pathlib
import socket

import pyroute2
from testtools import content

from tests import base
from tests import changes
from tests import hosts
from tests import patience
from vif_plug_tapmac.host import audit
from vif_plug_tapmac.host import inventory
from vif_plug_tapmac.host import mending
from vif_plug_tapmac.kernel import attributes
from vif_plug_tapmac.kernel import fdb
from vif_plug_tapmac.kernel import netlink as nl
from vif_plug_tapmac.kernel import rtnetlink

#: What a kernel says that has no such thing, or has it not there.
_REFUSALS = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOENT, errno.ERANGE,
             errno.EBUSY, errno.ENETDOWN, errno.EPERM)
#: Attributes of a link that go by themselves: counters, and what follows the
#: carrier. Families have counters, too, and sysctls, which are read below.
_OF_ITSELF = {7, 16, 23, 26, 33, 35, 47, 48}
_LINKINFO, _DATA, _SLAVE_DATA, _XSTATS = 18, 2, 5, 3
_AF_SPEC, _CONF, _ADDR_GEN_MODE = 26, 2, 8
#: Timers, what STP makes of bridge and port, and the state of a port.
_OF_BRIDGE_ITSELF = {*range(10, 20), 47, 48}
_OF_PORT_ITSELF = {1, *range(13, 18), *range(19, 24), 38, 41}
#: Of an entry: static or permanent.
_STAYS = 0x40 | 0x80
#: Running, lower up and dormant: they follow the carrier, too.
_FLAGS_OF_THEMSELVES = 0x40 | 0x10000 | 0x20000


def _values(data, without):
    return {number: value for number, value in attributes.every(data)
            if number not in without}


def _link(body):
    """Return a link as the kernel tells it, but for what goes by itself."""
    message = rtnetlink.LinkMessage(body)
    told = _values(body[16:], _OF_ITSELF)
    info = _values(told.pop(_LINKINFO, b''), {_XSTATS})
    data = _values(info.pop(_DATA, b''), (
        _OF_BRIDGE_ITSELF if info.get(1) == b'bridge\0' else set()))
    port = _values(info.pop(_SLAVE_DATA, b''), _OF_PORT_ITSELF)
    flags = message.flags & ~_FLAGS_OF_THEMSELVES
    families = message.attributes.nested(_AF_SPEC)
    sysctls = (families.octets(socket.AF_INET), [
        families.nested(socket.AF_INET6).octets(number)
        for number in (_CONF, _ADDR_GEN_MODE)])
    return message.index, flags, told, info, data, port, sysctls


def _entry(body):
    """Return an entry of an FDB, or a MAC of a device."""
    message = rtnetlink.NeighbourMessage(body)
    return (message.index, fdb.mac_of(body), fdb.vlan_of(body), message.state,
            message.flags)


class RightTest(base.FunctionalTestCase):

    def setUp(self):
        super().setUp()
        self.enter(hosts.private_mounts())
        hosts.mount('sysfs', '/sys', 'sysfs')
        switch = pathlib.Path('/proc/sys/net/bridge/bridge-nf-call-iptables')
        if switch.exists():
            switch.write_text('0')
        self.configure(bridge_uplinks={changes.BRIDGE: changes.UPLINK})
        self.guest = None
        self.addCleanup(self.let_go)
        self.skipped = collections.Counter()

    def let_go(self):
        if self.guest is not None:
            self.guest.close()

    def lay(self):
        """Have a healthy host, without anything of the last one."""
        self.let_go()
        for link in self.host.links():
            if link.index != 1 and self.host.find(link.name) is not None:
                self.host.delete(link.name)
        self.host.add(changes.UPLINK, 'veth', peer='wire',
                      address='52:54:00:12:34:56')
        for name in changes.UPLINK, 'wire':
            self.host.quiet_ipv6(name)
        self.host.set('wire', state='up')
        for number, tap in (1, changes.HELD), (2, changes.IDLE):
            self.plug(base.numbered_vif(number, vif_name=tap))
        self.host.add_bridge(changes.OTHER_BRIDGE)
        self.guest = hosts.Guest(changes.HELD,
                                 changes.GUEST_MACS[changes.HELD])
        for name in changes.HELD, changes.UPLINK, 'wire':
            self.host.wait_until_up(name)
        self.host.wait_until_forwarding(changes.HELD)
        self.host.wait_until_forwarding(changes.UPLINK)
        self.assertEqual([], self.findings())

    def look(self):
        return inventory.read(self.options).with_answer(None)

    def findings(self):
        return audit.audit_links(self.look())

    def state(self):
        """Return the host as it is, but for what goes by itself."""
        with nl.Netlink() as netlink:
            links = netlink.list('', '', rtnetlink.GET_LINK, rtnetlink.link(0),
                                 _link)
            entries = netlink.list(
                '', '', rtnetlink.GET_NEIGHBOUR, rtnetlink.neighbour(0),
                _entry)
            own = {self.host.link(name).index for name in (
                changes.HELD, changes.IDLE) if self.host.find(name)}
            addresses = netlink.all_addresses()
        # IP and IPv6 join groups by themselves, and IPv6 speaks to them.
        return [links, sorted(
            each for each in entries if not hosts.is_of_a_group(each[1])
            and (each[0] in own or each[3] & _STAYS)), addresses]

    def repair(self):
        seen = self.look()
        with open(os.devnull, 'w') as progress:
            mending.mend(seen, self.options, [
                each for each in audit.audit_links(seen) if each.mendable],
                None, progress)

    def make(self, change):
        """Return whether the kernel has it changed."""
        try:
            undo = change.make(self.host)
            self.undo = undo if callable(undo) else None
            return True
        except (pyroute2.NetlinkError, OSError) as error:
            code = getattr(error, 'code', None) or error.errno
            if code not in _REFUSALS:
                raise
            self.skipped[errno.errorcode[code]] += 1
            return False

    def wrong(self, change):
        """Return what is wrong with what is done about a change, in words."""
        healthy = self.state()
        if not self.make(change):
            return None
        changed = self.state()
        found = self.findings()
        if changed == healthy and not change.follows:
            self.skipped['changes nothing'] += 1
            return None
        named = [each for each in found
                 if change.device in '%s %s' % (each.device, each.evidence)]
        if change.harmless and found:
            return 'is said to be harmless, and found: %s' % found
        if not change.harmless and not named:
            return 'is not found'
        self.repair()
        after, left = self.state(), self.findings()
        if after == changed and left == found:
            return None
        if after != healthy and not change.anew:
            return 'is made something else by repair: %s' % (
                self.differences(healthy, after))
        return 'is found after repair, too: %s' % left if left else None

    def differences(self, before, after):
        return [(was, now) for one, other in zip(before, after)
                for was, now in zip(one, other) if was != now]

    def try_each(self, kinds):
        wrong, healthy = [], None
        if patience.EMULATED or not patience.IN_FULL:
            kinds = itertools.islice(kinds, 0, None, 4)
        for change in kinds:
            if change.harmless and not patience.IN_FULL:
                continue
            if healthy is None or not self.is_as(healthy):
                self.lay()
                healthy = self.state()
            self.undo = None
            reason = self.wrong(change)
            if reason is not None:
                wrong.append('%s %s' % (change, reason))
            if self.undo is not None and not self.is_as(healthy):
                with contextlib.suppress(OSError):
                    self.undo()
        self.addDetail('skipped', content.text_content(repr(self.skipped)))
        self.assertEqual([], wrong, '\n'.join(wrong))

    def is_as(self, healthy):
        return self.state() == healthy and not self.findings()

    @base.needs_locked_ports
    def test_tap_that_is_held(self):
        self.try_each(changes.of_tap(changes.HELD))

    @base.needs_locked_ports
    def test_idle_tap(self):
        self.only_in_full()
        self.try_each(changes.of_tap(changes.IDLE))

    @base.needs_locked_ports
    def test_bridge(self):
        self.try_each(changes.of_bridge())

    @base.needs_locked_ports
    def test_uplink(self):
        self.try_each(changes.of_uplink())


class ListTest(base.TestCase):

    def test_few_are_harmless_and_each_is_used(self):
        kinds = [change for each in (
            changes.of_tap(changes.HELD), changes.of_bridge(),
            changes.of_uplink()) for change in each]
        self.assertLessEqual(len(changes.HARMLESS), 10)
        self.assertEqual(set(changes.HARMLESS), {
            change.harmless for change in kinds if change.harmless})
        self.assertLessEqual(60, len([
            change for change in kinds if not change.harmless]))
