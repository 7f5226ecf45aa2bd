# SPDX-License-Identifier: Apache-2.0

"""Each audit code: the fault is made, and exactly this code is found.

Test strategy: a host that was plugged by tapmac is clean; each test does one
thing to it and expects one code, and the device that it concerns. Faults that
"tapmac repair" promises to mend are mended here, too, also under a guest.
"""

import contextlib
import os
import pathlib
import pty
import re
import shutil
import socket
import subprocess
import sys
import threading
import tty

import fixtures

from tests import base
from tests import bpf
from tests import hosts
from tests import libvirt_domains
from tests import network_configuration
from tests import patience
from vif_plug_tapmac import exception
from vif_plug_tapmac.host import audit
from vif_plug_tapmac.host import finding
from vif_plug_tapmac.host.finding import Remedy
from vif_plug_tapmac.host import host_checks
from vif_plug_tapmac.host import inventory
from vif_plug_tapmac.host import mending
from vif_plug_tapmac.host import network_managers
from vif_plug_tapmac.kernel import bridge_health
from vif_plug_tapmac.kernel import filter_table
from vif_plug_tapmac.kernel import guest_filter
from vif_plug_tapmac.kernel import link as link_data
from vif_plug_tapmac.kernel import netlink as nl
from vif_plug_tapmac.kernel import nft
from vif_plug_tapmac.kernel import removing
from vif_plug_tapmac.kernel import shield
from vif_plug_tapmac.kernel import shields
from vif_plug_tapmac.kernel import source_filter
from vif_plug_tapmac import mark
from vif_plug_tapmac import privileged

OTHER = base.numbered_vif(1)
_ETC = base.CHECKOUT / 'etc'
_LONG_AGO = 1000000000
STRANGER = 'fa:16:3e:77:77:77'


class AuditTestCase(base.FunctionalTestCase):

    def setUp(self):
        super().setUp()
        missing = libvirt_domains.missing()
        if missing and patience.IN_FULL:
            self.cannot_run(missing)
        self.enter(hosts.private_mounts())
        # Of this network namespace.
        hosts.mount('sysfs', '/sys', 'sysfs')
        # What manages the network of this machine is none of the test's.
        self.patch(network_managers, '_PATH', '/nowhere')
        # However busy this machine is, all of the firewall is looked at.
        for module in host_checks, inventory:
            self.patch(module, '_LOOKS_FOR', patience.HANG)
        self.set_sysctl('bridge/bridge-nf-call-iptables', '0')
        if missing:
            self.domains = libvirt_domains.NoDomains(self)
        else:
            self.domains = self.useFixture(libvirt_domains.Domains())
            self.domains.define((base.TAP, base.GUEST_MAC, True, 1))
        inventory._warn.cache_clear()

    def set_sysctl(self, path, value):
        path = pathlib.Path('/proc/sys/net', path)
        if path.exists():
            path.write_text(value)

    def findings(self):
        return audit.audit(inventory.read(self.options), self.options)

    def assert_finds(self, code, device, *words):
        """Expect one finding, of this code."""
        found = self.findings()
        self.assertEqual([(code, device)],
                         [(each.code, each.device) for each in found], found)
        for word in words:
            self.assertIn(word, found[0].evidence + found[0].remedy)
        # Whoever shows it sets its commands apart.
        self.assertEqual(re.findall('"(.*?)"', found[0].remedy),
                         Remedy(found[0].remedy).commands)
        return found[0]

    def do(self, remedy):
        """Do as a remedy says, in a shell."""
        for command in re.findall('"(.*?)"', remedy):
            subprocess.run(['sh', '-c', command], check=True)

    def assert_clean(self):
        self.assertEqual([], self.findings())

    def repair(self, bridge=None):
        """Do what "tapmac repair" does."""
        seen = inventory.read(self.options)
        mending.mend(seen, self.options, [
            finding for finding in audit.audit_links(seen)
            if finding.mendable or bridge], bridge, open(os.devnull, 'w'))

    def assert_mends(self, code, device, *words):
        """Expect a finding, and none after a repair."""
        self.assertTrue(self.assert_finds(code, device, *words).mendable)
        self.repair()
        self.assert_clean()

    def hold(self, tap=base.TAP, mac=base.GUEST_MAC, flags=hosts.IFF_TAP):
        guest = hosts.Guest(tap, mac, flags=flags)
        self.addCleanup(guest.close)
        return guest

    def plug_clean(self, **fields):
        self.plug(base.make_vif(**fields))
        self.assert_clean()

    def have_ifupdown2(self, interfaces):
        """Have it installed, with this in /etc/network/interfaces."""
        missing = network_configuration.missing_ifupdown2()
        if missing:
            self.cannot_run(missing)
        network_configuration.install_ifupdown2(interfaces)
        self.patch(network_managers, '_PATH', '/sbin:/usr/bin:/bin')

    def have_network_manager(self, text):
        """Have it installed, with this in its tapmac.conf."""
        missing = network_configuration.missing_network_manager()
        if missing:
            self.cannot_run(missing)
        network_configuration.install_network_manager(
            {'conf.d/tapmac.conf': text})
        self.patch(network_managers, '_PATH', '/usr/sbin:/usr/bin:/bin')


class FailingCheckTest(AuditTestCase):
    """What can not be looked at is a finding, and all else is looked at."""

    def refuse(self, *args):
        raise exception.KernelRefused.from_errno(base.TAP, 'asking', 5)

    def test_of_a_tap(self):
        self.configure(arriving_guests='filter')
        self.plug_clean()
        hosts.set_port_options(self.host.link(base.TAP).index, LOCKED=0)
        self.host.set(base.TAP, mtu=1400)
        self.patch(source_filter, 'is_there', self.refuse)
        found = self.findings()
        self.assertEqual([('TM208', base.TAP), ('TM214', base.TAP)],
                         [(each.code, each.device) for each in found])
        self.assertIn('could not be seen: ' + base.TAP, found[1].evidence)
        self.assertFalse(found[1].mendable)

    def test_of_a_bridge(self):
        self.plug_clean()
        self.patch(bridge_health, 'is_pinned', self.refuse)
        self.assert_finds('TM101', base.BRIDGE, 'asking failed with EIO')

    def test_of_the_host(self):
        self.configure(host_shield=True)

        def fail(group):
            raise PermissionError(13, 'no')
        self.patch(shields, 'is_shielded', fail)
        self.assert_finds('TM308', 'this host', 'no')


class CodesTest(AuditTestCase):

    def test_clean_host(self):
        self.assert_clean()
        self.plug_clean()
        self.hold()
        self.assert_clean()

    def test_clean_host_that_never_saw_tapmac(self):
        self.host.add('virbr0', 'bridge')
        self.host.add_tap('vnet0')
        self.host.set('vnet0', master=self.host.link('virbr0').index)
        self.assert_clean()

    def foreign_bridge(self, **attributes):
        """Have a bridge of the host's own, with nothing wrong about it."""
        index = self.host.add(base.BRIDGE, 'bridge',
                              address='02:00:00:00:00:01',
                              **attributes).index
        self.set_sysctl('ipv6/conf/%s/disable_ipv6' % base.BRIDGE, '1')
        self.host.set(base.BRIDGE, state='up')
        self.plug()
        return index

    def test_tm101(self):
        index = self.host.add(base.BRIDGE, 'bridge').index
        self.set_sysctl('ipv6/conf/%s/disable_ipv6' % base.BRIDGE, '1')
        self.host.set(base.BRIDGE, state='up')
        self.host.add('eth0', 'veth', peer='wire',
                      address='52:54:00:12:34:56')
        self.host.set('eth0', master=index)
        self.plug()
        self.assert_finds('TM101', base.BRIDGE, 'that of eth0',
                          'it becomes ' + base.TAP_MAC,
                          'ip link set br100 address 52:54:00:12:34:56')

    def test_tm102(self):
        self.plug_clean()
        self.host.set(base.BRIDGE, ifalias='')
        self.assert_mends('TM102', base.BRIDGE)
        self.assertEqual(mark.BRIDGE_MARK,
                         self.host.link(base.BRIDGE).alias)

    def test_tm103(self):
        self.plug_clean()
        self.host.set(base.BRIDGE, state='down')
        self.assert_mends('TM103', base.BRIDGE)

    def test_tm103_of_somebody_else(self):
        self.foreign_bridge()
        self.host.set(base.BRIDGE, state='down')
        found = self.assert_finds('TM103', base.BRIDGE, 'ip link set br100 up')
        self.assertFalse(found.mendable)

    def test_tm104(self):
        self.foreign_bridge(br_stp_state=1)
        self.assert_finds('TM104', base.BRIDGE, '30 s', 'stp_state 0')

    def test_tm105(self):
        self.plug_clean()
        self.patch(bridge_health, 'NEARLY_ALL_PORTS', 1)
        self.assert_finds('TM105', base.BRIDGE, '1 ports of 1023')

    def test_tm106(self):
        self.plug_clean()
        self.configure(bridge_uplinks={base.BRIDGE: 'eth1'})
        self.assert_finds('TM106', base.BRIDGE,
                          'ip link set eth1 master br100')
        self.add_uplink()
        self.assert_finds('TM106', base.BRIDGE)
        self.host.set('eth1', master=self.host.link(base.BRIDGE).index)
        self.assert_clean()

    def add_uplink(self, name='eth1'):
        """Have a card with a wire, up."""
        self.host.add(name, 'veth', peer='wire')
        for each in name, 'wire':
            self.host.quiet_ipv6(each)
            self.host.set(each, state='up')

    def plug_with_uplink(self):
        self.add_uplink()
        self.configure(bridge_uplinks={base.BRIDGE: 'eth1'})
        self.plug_clean()

    def test_uplink_by_another_name(self):
        self.add_uplink('enp5s0')
        for name in 'enp5s0-of-the-top-of-rack', 'eth1':
            self.plug_clean()
            self.unplug()
            self.host.delete(base.BRIDGE)
            self.host.ip.link('property_add', altname=name,
                              index=self.host.link('enp5s0').index)
            self.configure(bridge_uplinks={base.BRIDGE: name})
        self.plug_clean()
        self.assertEqual(base.BRIDGE, self.host.master('enp5s0'))
        for isolated in 1, 0:
            hosts.set_port_options(self.host.link('enp5s0').index,
                                   ISOLATED=isolated)
            if isolated:
                self.assert_finds('TM115', base.BRIDGE, 'of eth1')
        self.host.set('enp5s0', master=0)
        self.assert_finds('TM106', base.BRIDGE)
        self.plug_clean()
        self.assertNotIn('altname', self.logs.output)
        self.host.set('enp5s0', mtu=1400)
        self.assert_finds('TM111', base.BRIDGE, 'eth1 has MTU 1400')
        self.host.set('enp5s0', mtu=1500, state='down')
        self.assert_finds('TM116', base.BRIDGE, 'eth1 is down')
        self.unplug()
        self.host.add('br200', 'bridge')
        self.host.set('enp5s0', state='up',
                      master=self.host.link('br200').index)
        self.assert_finds('TM118', base.BRIDGE, 'eth1, which is a port of br')

    def test_tm107(self):
        self.foreign_bridge()
        self.assert_clean()
        self.set_sysctl('ipv6/conf/%s/disable_ipv6' % base.BRIDGE, '0')
        self.assert_finds('TM107', base.BRIDGE, 'accept_ra=0')
        self.set_sysctl('ipv6/conf/%s/accept_ra' % base.BRIDGE, '0')
        self.assert_clean()

    def test_tm108(self):
        self.plug_clean()
        self.host.set(base.BRIDGE, mtu=1400)
        self.assert_finds('TM108', base.BRIDGE, 'it is 1400',
                          'ip link set br100 mtu 1500')

    def test_tm108_without_ipv6(self):
        self.plug_clean()
        self.host.set(base.BRIDGE, mtu=1000)
        self.assert_finds(
            'TM108', base.BRIDGE, '"ip link set br100 mtu 1500 && '
            'sysctl net/ipv6/conf/br100/disable_ipv6=1"')

    def test_tm109(self):
        self.plug_clean()
        for path, number in (('ipv4/conf/%s/arp_ignore', 1),
                             ('ipv4/conf/%s/arp_announce', 2),
                             ('ipv6/conf/%s/disable_ipv6', 1)):
            self.set_sysctl(path % base.BRIDGE, '0')
            found = self.assert_finds(
                'TM109', base.BRIDGE, '%s is 0 and should be %d'
                % (path.split('/')[-1], number))
            self.assertEqual(finding.Severity.ERROR, found.severity)
            self.assert_mends('TM109', base.BRIDGE)

    def test_tm109_of_the_bridge_itself(self):
        self.plug_clean()
        for field, attributes in (
                ('stp', {'br_stp_state': 1, 'br_forward_delay': 1500}),
                ('forward_delay', {'br_forward_delay': 400}),
                ('multicast_snooping', {'br_mcast_snooping': 1}),
                ('nf_call_iptables', {'br_nf_call_iptables': 1}),
                ('nf_call_ip6tables', {'br_nf_call_ip6tables': 1})):
            self.host.set(base.BRIDGE, kind='bridge', **attributes)
            self.assert_mends('TM109', base.BRIDGE, field)

    def test_tm109_link_group(self):
        self.plug_clean()
        self.unplug()
        self.host.set(base.BRIDGE, group=0)
        self.assert_mends('TM109', base.BRIDGE, 'group is 0')

    def test_tm119(self):
        self.plug_clean()
        self.configure(bridge_group=8)
        self.plug()
        self.hold()
        self.assert_mends('TM119', base.BRIDGE, 'in link group 29794, and')
        self.assertEqual(8, self.host.link(base.BRIDGE).group)

    def test_tm109_mtu_that_was_too_small_for_ipv6(self):
        self.plug_clean()
        for mtu in 1200, 1500:
            self.host.set(base.BRIDGE, mtu=mtu)
        self.assert_mends('TM109', base.BRIDGE, 'disable_ipv6 is 0')

    def test_tm110(self):
        self.configure(bridge_uplinks={base.BRIDGE: 'eth1.200'})
        self.add_uplink('eth1.200')
        self.plug_clean()
        self.host.delete('eth1.200')
        self.host.add('eth1.200', 'ifb',
                      master=self.host.link(base.BRIDGE).index)
        self.assert_finds('TM110', base.BRIDGE,
                          'eth1.200 is no VLAN at all (ifb)',
                          'bridge_uplinks')

    def test_tm116(self):
        self.plug_with_uplink()
        self.host.set('eth1', state='down')
        self.assert_finds('TM116', base.BRIDGE, 'eth1 is down',
                          '"ip link set eth1 up"')
        self.plug()
        self.assert_finds('TM116', base.BRIDGE)

    def test_tm117(self):
        self.plug_with_uplink()
        self.host.set('wire', state='down')
        self.assert_finds('TM117', base.BRIDGE, 'eth1 has no carrier')
        self.host.set('wire', state='up')
        self.assert_clean()

    def test_tm118(self):
        self.plug_with_uplink()
        self.host.add('br200', 'bridge')
        self.host.set('eth1', master=self.host.link('br200').index)
        self.assert_finds('TM118', base.BRIDGE, 'eth1, which is a port of '
                          'br200', '"ip link set eth1 master br100"')
        self.host.add('veth7', 'veth', master=self.host.link('br200').index)
        self.assert_leaves_uplink_to_br200()
        self.host.delete('veth7')
        self.host.ip.addr('add', index=self.host.link('br200').index,
                          address='192.0.2.1', prefixlen=24)
        self.assert_leaves_uplink_to_br200()

    def assert_leaves_uplink_to_br200(self):
        found = self.assert_finds(
            'TM118', base.BRIDGE, 'leave it there', 'brq{network}', '"ip link '
            'set br100 name <another> && ip link set br200 name br100"')
        self.assertNotIn('set eth1', found.remedy)

    def test_tm111(self):
        self.configure(bridge_uplinks={base.BRIDGE: 'eth1'})
        self.add_uplink()
        self.plug_clean()
        self.host.set('eth1', mtu=1400)
        self.assert_finds('TM111', base.BRIDGE, 'eth1 has MTU 1400',
                          '"ip link set eth1 mtu 1500", and the same')

    def test_tm112(self):
        self.plug_clean()
        self.host.set(base.BRIDGE, ifalias='rack 7')
        found = self.assert_finds('TM112', base.BRIDGE, "'rack 7'")
        self.do(found.remedy)
        self.assert_clean()

    def test_tm113(self):
        self.plug_clean()
        for mac in '52:54:00:00:00:07', '02:00:00:00:00:07', base.TAP_MAC:
            self.host.set(base.BRIDGE, address=mac)
            found = self.assert_finds('TM113', base.BRIDGE, mac)
        self.do(found.remedy)
        self.assert_clean()

    def test_tm113_with_an_uplink(self):
        self.configure(bridge_uplinks={base.BRIDGE: 'eth1'})
        self.add_uplink()
        self.plug_clean()
        for mac in '52:54:00:00:00:07', '02:00:00:00:00:07':
            self.host.set(base.BRIDGE, address=mac)
            found = self.assert_finds('TM113', base.BRIDGE, 'that of eth1')
        self.do(found.remedy)
        self.assert_clean()

    def test_tm114(self):
        self.plug_clean()
        self.host.ip.fdb('add', ifindex=self.host.link(base.BRIDGE).index,
                         lladdr=STRANGER, state=0x80, flags=2)
        self.assert_mends('TM114', base.BRIDGE, STRANGER)

    def test_tm115(self):
        self.configure(bridge_uplinks={base.BRIDGE: 'eth1'})
        self.host.add('eth1', 'veth', peer='wire')
        self.host.set('wire', state='up')
        self.plug_clean()
        hosts.set_port_options(self.host.link('eth1').index, ISOLATED=1)
        self.assert_finds('TM115', base.BRIDGE, 'isolated is True')
        self.host.set('eth1', master=0)
        self.host.set('eth1', master=self.host.link(base.BRIDGE).index)
        self.assert_clean()

    def test_tm201(self):
        self.plug_clean()
        self.hold()
        self.host.set(base.TAP, address='02:00:00:00:00:07')
        self.assert_mends('TM201', base.TAP, 'should be ' + base.TAP_MAC)
        self.assertEqual(base.TAP_MAC, self.host.link(base.TAP).mac)

    def test_tm201_alternate_is_right(self):
        self.plug_clean()
        self.host.set(base.TAP, address='f6' + base.TAP_MAC[2:])
        self.assert_clean()

    def test_tm202(self):
        self.plug_clean()
        self.hold()
        self.host.set(base.TAP, address=base.GUEST_MAC)
        self.assert_mends('TM202', base.TAP)
        self.assertEqual(base.TAP_MAC, self.host.link(base.TAP).mac)

    def test_tm202_of_what_libvirt_made(self):
        self.foreign_bridge()
        self.unplug()
        self.domains.define((base.TAP, base.GUEST_MAC, True, 1))
        self.plug(OTHER)
        self.domains.define((base.TAP, base.GUEST_MAC, True, 1),
                            (OTHER.vif_name, OTHER.address, True, 1))
        tap = self.hold()
        tap.persist()
        self.host.set(base.TAP, address=base.GUEST_MAC, state='up',
                      master=self.host.link(base.BRIDGE).index)
        self.host.quiet_ipv6(base.TAP)
        found = [each for each in self.findings()
                 if each.code not in ('TM209', 'TM214')]
        self.assertEqual([('TM202', False)],
                         [(each.code, each.mendable) for each in found])

    def test_tm203(self):
        self.plug_clean()
        rival = base.numbered_vif(1, address=base.TAP_MAC)
        self.plug(rival)
        self.domains.define((base.TAP, base.GUEST_MAC, True, 1),
                            (rival.vif_name, rival.address, True, 1))
        self.assert_clean()
        self.host.set(base.TAP, address=base.TAP_MAC)
        self.assert_mends('TM203', rival.vif_name, base.TAP)
        self.assertNotEqual(base.TAP_MAC, self.host.link(base.TAP).mac)

    def make_open(self, flags=hosts.IFF_TAP):
        """Have a TAP without owner with all that makes it look like ours.

        A kernel takes no owner away.
        """
        self.configure(anti_spoofing='none')
        self.plug()
        ours = self.host.link(base.TAP)
        self.host.delete(base.TAP)
        self.host.add_tap(base.TAP, flags=flags)
        self.host.quiet_ipv6(base.TAP)
        self.host.set(base.TAP, address=ours.mac, master=ours.master,
                      group=ours.group, ifalias=ours.alias, state='up')
        for path, value in {'ipv4/conf/%s/arp_ignore': '1',
                            'ipv4/conf/%s/arp_announce': '2',
                            'ipv6/conf/%s/accept_ra': '0'}.items():
            self.set_sysctl(path % base.TAP, value)

    def test_tm204(self):
        self.make_open()
        self.assert_mends('TM204', base.TAP, 'every user')
        self.assertEqual(0, self.host.link(base.TAP).owner)

    def test_tm204_held_with_several_queues(self):
        self.domains.define((base.TAP, base.GUEST_MAC, True, 2))
        multi = hosts.IFF_TAP | hosts.IFF_MULTI_QUEUE
        self.make_open(multi)
        self.hold(flags=multi)
        found = self.assert_finds('TM204', base.TAP, 'hard reboot')
        self.assertFalse(found.mendable)

    def test_tm204_held_with_one_queue_is_safe(self):
        self.make_open()
        self.hold()
        self.assert_clean()

    def test_tm205(self):
        self.configure(multiqueue=True)
        self.plug()
        self.domains.define((base.TAP, base.GUEST_MAC, True, 2))
        flags = hosts.IFF_TAP | hosts.IFF_MULTI_QUEUE
        self.hold(flags=flags)
        self.hold(flags=flags)
        self.assert_clean()
        self.hold(flags=flags)
        found = self.assert_finds('TM205', base.TAP, '3 queues', 'has 2',
                                  'grep -l')
        # What it says is true: we are the one.
        command = re.search('"(grep .*?)"', found.remedy)[1]
        said = subprocess.run(['sh', '-c', command], capture_output=True,
                              text=True).stdout
        self.assertIn('/proc/%d/fdinfo/' % os.getpid(), said)

    def test_tm205_while_the_domain_is_off(self):
        self.plug_clean()
        self.domains.define((base.TAP, base.GUEST_MAC, False, 1))
        self.assert_clean()
        self.hold()
        self.assert_finds('TM205', base.TAP, 'has 0')

    def test_tm206(self):
        self.plug_clean()
        self.hold()
        self.host.set(base.TAP, master=0)
        self.assert_mends('TM206', base.TAP, 'no network')
        self.assertEqual(base.BRIDGE, self.host.master(base.TAP))

    def test_tm206_without_its_bridge(self):
        self.plug_clean()
        self.hold()
        self.host.delete(base.BRIDGE)
        found = self.assert_finds('TM206', base.TAP, 'no network',
                                  'br100, where it belongs, does not exist',
                                  '--bridge')
        self.assertFalse(found.mendable)
        self.assert_repair_changes_nothing(found)
        self.host.add_bridge('br-new')
        self.repair(bridge='br-new')
        self.assert_clean()
        self.assertEqual('br-new', self.host.master(base.TAP))

    def assert_repair_changes_nothing(self, found):
        """Expect the host as it was, although the finding is to be mended."""
        before = self.host.state()
        seen = inventory.read(self.options)
        mending.mend(seen, self.options, [found], None,
                     open(os.devnull, 'w'))
        self.assertEqual(before, self.host.state())

    def test_tm207(self):
        self.plug_clean()
        self.hold()
        self.host.set(base.TAP, state='down')
        self.assert_mends('TM207', base.TAP)

    def test_tm208(self):
        self.plug_clean()
        self.host.set(base.TAP, mtu=1400)
        self.assert_finds('TM208', base.TAP, 'it is 1400')

    def test_tm209(self):
        self.plug_clean()
        self.hold()
        self.host.set(base.TAP, **hosts.addr_gen_mode(0))
        self.assert_mends('TM209', base.TAP, 'link-local')

    def test_tm209_with_an_address(self):
        self.plug_clean()
        index = self.host.link(base.TAP).index
        self.host.ip.addr('add', index=index, address='192.0.2.1',
                          prefixlen=24)
        self.assert_finds('TM209', base.TAP, '192.0.2.1/24', 'flush')
        self.host.set(base.TAP, state='down')
        self.host.set(base.TAP, **hosts.addr_gen_mode(0))
        self.host.set(base.TAP, state='up')
        self.repair()
        self.assertEqual([], self.host.addresses(base.TAP))
        self.assert_clean()

    def make_old(self):
        self.host.set(base.TAP, ifalias=str(mark.TapMark(
            base.VIF_ID, base.GUEST_MAC, base.BRIDGE, _LONG_AGO)))

    def test_tm210(self):
        self.plug_clean()
        self.make_old()
        self.assert_clean()
        self.domains.define()
        self.assert_finds('TM210', base.TAP, 'tapmac purge')
        self.hold()
        self.assert_finds('TM210', base.TAP, 'a process holds it', '--force')

    def test_tm210_not_yet(self):
        self.domains.define()
        self.plug_clean()

    def test_tm210_unknown_without_libvirt(self):
        self.plug_clean()
        self.make_old()
        self.domains.end()
        self.assert_clean()
        self.assert_logged('libvirt does not answer')

    def test_tm211(self):
        self.plug_clean()
        self.hold()
        self.host.set(base.TAP, group=0)
        self.assert_mends('TM211', base.TAP, 'link group 0')

    def test_tm211_of_a_stranger(self):
        self.host.add_tap('tap0')
        self.host.set('tap0', group=29793)
        found = self.assert_finds('TM211', 'tap0', 'without our mark')
        self.assertFalse(found.mendable)

    def test_tm212(self):
        self.plug_clean()
        self.domains.define((base.TAP, base.GUEST_MAC, False, 2))
        self.assert_mends('TM212', base.TAP, 'has 2 queues')
        self.assertTrue(self.host.link(base.TAP).multi_queue)

    def test_tm212_of_somebody_else(self):
        self.plug(base.numbered_vif(1))
        self.host.add_tap('tap0')
        self.host.quiet_ipv6('tap0')
        self.host.set('tap0', state='up',
                      master=self.host.link(base.BRIDGE).index)
        self.domains.define(('tap0', base.GUEST_MAC, False, 2))
        self.host.set('tap00000001', state='down')
        found = self.assert_finds_of('TM212', 'tap0')
        self.assertFalse(found.mendable)
        self.assertIn('ip link delete tap0', found.remedy)
        # Were it to be mended, it would not keep others from that.
        seen = inventory.read(self.options)
        mending.mend(seen, self.options, [
            found, self.assert_finds_of('TM207', 'tap00000001')], None,
            open(os.devnull, 'w'))
        self.assert_logged('tap0 stays as it is')
        self.assertTrue(self.host.link('tap00000001').up)

    @base.needs_real_root(base.SEVERAL_USERS)
    def test_tm213(self):
        self.plug_clean()
        self.configure(owner='nobody')
        self.assert_mends('TM213', base.TAP, 'is uid 0')

    def test_tm213_held(self):
        self.plug_clean()
        self.hold()
        self.configure(owner='nobody')
        self.assertFalse(self.assert_finds('TM213', base.TAP).mendable)

    def brport(self, **options):
        hosts.set_port_options(self.host.link(base.TAP).index, **options)

    @base.needs_locked_ports
    def test_tm214(self):
        self.plug_clean()
        self.hold()
        self.brport(LOCKED=0)
        self.assert_mends('TM214', base.TAP, 'is not locked')
        self.brport(LEARNING=1)
        self.assert_mends('TM214', base.TAP, 'learns')

    @base.needs_locked_ports
    def test_tm214_without_entry(self):
        self.plug_clean()
        self.hold()
        with nl.Netlink() as netlink:
            netlink.remove_fdb_entry(self.host.link(base.TAP),
                                     base.GUEST_MAC)
        self.assert_mends('TM214', base.TAP, 'has no network')

    @base.needs_locked_ports
    def test_tm214_only_if_configured(self):
        self.configure(anti_spoofing='none')
        self.plug_clean()
        self.configure(anti_spoofing='mac')
        self.assert_mends('TM214', base.TAP)

    @base.needs_locked_ports
    def test_tm214_filter_will_do(self):
        self.plug_clean()
        with nl.Netlink() as netlink:
            source_filter.put(netlink, self.host.link(base.TAP),
                              base.GUEST_MAC)
        self.brport(LOCKED=0, LEARNING=1)
        self.assert_clean()
        self.configure(arriving_guests='lock')
        self.assert_finds('TM214', base.TAP)

    @base.needs_locked_ports
    def test_tm214_of_a_guest_that_arrives(self):
        self.plug_clean()
        with nl.Netlink() as netlink:
            source_filter.put(netlink, self.host.link(base.TAP),
                              base.GUEST_MAC)
        self.brport(LOCKED=0, LEARNING=0)
        self.assert_mends('TM214', base.TAP, 'learns nothing')

    def test_tm215(self):
        self.plug_clean()
        self.hold()
        self.brport(ISOLATED=1)
        self.assert_mends('TM215', base.TAP,
                          'isolated is True and should be False')

    @base.needs_locked_ports
    def test_tm215_of_what_libvirt_made(self):
        port = base.make_port(create_tap=False).to_fields()
        privileged.ensure_port(port)
        tap = self.hold()
        tap.persist()
        self.host.quiet_ipv6(base.TAP)
        self.host.set(base.TAP, address=base.TAP_MAC, state='up',
                      master=self.host.link(base.BRIDGE).index)

        def found():
            return [(each.code, each.mendable) for each in self.findings()
                    if each.code != 'TM204']  # This test has no owner for it.
        privileged.ensure_port(port)
        self.assertEqual([], found())
        self.brport(ISOLATED=1)
        self.assertEqual([('TM215', False)], found())
        privileged.ensure_port(port)
        self.assertEqual([], found())

    @base.needs_locked_ports
    def test_tm215_where_nobody_is_kept_to_a_mac(self):
        self.configure(anti_spoofing='none')
        self.plug_clean()
        self.hold()
        for option in {'LOCKED': 1}, {'LEARNING': 0}:
            self.brport(**option)
            self.assert_mends('TM215', base.TAP, 'should be')

    def test_tm216(self):
        if not hosts.filters_vlans(self.host):
            self.skipTest(hosts.FILTERS_NO_VLANS)
        self.foreign_bridge(br_vlan_filtering=1, br_vlan_default_pvid=0)
        self.configure(anti_spoofing='none')
        self.plug()
        self.assert_finds('TM216', base.TAP,
                          'bridge vlan add dev %s vid' % base.TAP)
        self.host.ip.vlan_filter('add', index=self.host.link(base.TAP).index,
                                 vlan_info={'vid': 200, 'flags': 6})
        self.assert_clean()

    def leave_half_deleted(self, name):
        """Leave the TAP as one does who is killed while deleting it."""
        with nl.Netlink() as netlink:
            self.assertIsNotNone(removing._take_name(
                netlink, self.host.link(name)))

    def test_tm217(self):
        self.plug_clean()
        self.leave_half_deleted(base.TAP)
        self.assert_mends('TM217', base.TAP, 'it is called tapmac-')
        self.hold()
        self.leave_half_deleted(base.TAP)
        self.assert_mends('TM217', base.TAP, 'it is called tapmac-')
        self.assertTrue(self.host.link(base.TAP).held)

    def test_tm217_of_one_that_lost_its_mark(self):
        self.plug_clean()
        self.host.set(base.TAP, ifalias='rack 7')
        self.leave_half_deleted(base.TAP)
        found = self.assert_finds_of('TM217', base.TAP)
        self.assertFalse(found.mendable)
        self.assertIn('nova-compute', found.remedy)
        tap, = inventory.read(self.options).taps
        self.assertTrue(tap.is_ours)
        self.assertEqual(base.VIF_ID[:11] + '...', tap.whose)
        self.plug_clean()

    def test_tm217_without_its_bridge(self):
        self.plug_clean()
        self.host.delete(base.BRIDGE)
        self.leave_half_deleted(base.TAP)
        found = self.assert_finds_of('TM217', base.TAP)
        self.assertFalse(found.mendable)
        self.assert_repair_changes_nothing(found)

    def test_tm217_is_not_what_somebody_is_at(self):
        self.plug_clean()
        self.leave_half_deleted(base.TAP)
        real = nl.Netlink.get

        def get(netlink, index, name):
            self.patch(nl.Netlink, 'get', real)
            self.unplug()
            return real(netlink, index, name)
        self.patch(nl.Netlink, 'get', get)
        self.assert_clean()

    def test_tm218(self):
        self.plug_clean()
        self.plug(base.numbered_vif(1, bridge_name='br200'))
        self.host.set(base.TAP, master=self.host.link('br200').index)
        found = self.assert_finds_of('TM218', base.TAP)
        self.assertIn('it is on br200, and belongs on br100', found.evidence)
        self.assertTrue(found.mendable)
        self.repair()
        self.assert_clean()
        self.assert_finished()

    def test_tm218_held(self):
        self.plug_clean()
        self.plug(base.numbered_vif(1, bridge_name='br200'))
        self.hold()
        self.host.set(base.TAP, master=self.host.link('br200').index)
        found = self.assert_finds_of('TM218', base.TAP)
        self.assertIn('hard reboot', found.remedy)
        self.assertFalse(found.mendable)
        self.assert_repair_changes_nothing(found)
        self.repair()
        self.assertEqual('br200', self.host.master(base.TAP))
        self.assertIn(':br100:', self.host.link(base.TAP).alias)

    def test_tm218_of_a_bridge_that_was_renamed(self):
        self.plug_clean()
        self.host.rename(base.BRIDGE, 'br-new')
        found = self.assert_finds_of('TM218', base.TAP)
        self.assertFalse(found.mendable)
        self.assert_repair_changes_nothing(found)
        self.plug(base.make_vif(bridge_name='br-new'))
        self.assert_clean()

    def assert_finds_of(self, code, device):
        """Expect this finding among others of the device."""
        found, = [each for each in self.findings()
                  if (each.code, each.device) == (code, device)]
        return found

    def lose_mark(self, **fields):
        self.plug(base.make_vif(**fields))
        self.host.set(base.TAP, ifalias='rack 7')

    def test_tm219(self):
        self.lose_mark()
        found = self.assert_finds(
            'TM219', base.TAP, "its alias is 'rack 7'",
            'VIF %s...' % base.VIF_ID[:11], 'nova-compute')
        self.assertFalse(found.mendable)
        self.assert_repair_changes_nothing(found)
        self.hold()
        self.plug()
        self.assert_clean()

    def test_tm219_where_nova_says_whose_it_is(self):
        for held in False, True:
            self.lose_mark()
            self.domains.define((base.TAP, base.GUEST_MAC, held, 1),
                                vif_id=base.VIF_ID)
            if held:
                self.hold()
            self.assert_mends('TM219', base.TAP, 'VIF ' + base.VIF_ID)
            self.assertIn(base.VIF_ID, self.host.link(base.TAP).alias)

    def test_tm219_with_what_cannot_be_mended_then(self):
        self.lose_mark()
        self.host.set(base.TAP, state='down', master=0)
        found = self.findings()
        self.assertEqual(['TM206', 'TM207', 'TM219'],
                         [each.code for each in found])
        for each in found:
            self.assertFalse(each.mendable, each)
            self.assert_repair_changes_nothing(each)

    def test_tm220(self):
        self.plug_clean()
        self.host.rename(base.TAP, 'x')
        found = self.assert_finds('TM220', 'x', base.TAP, base.VIF_ID)
        for command in re.findall('"(.*?)"', found.remedy):
            subprocess.run(['sh', '-c', command], check=True)
        self.assert_clean()

    def test_tm220_with_its_name_taken(self):
        self.plug_clean()
        self.host.rename(base.TAP, 'x')
        self.host.add_tap(base.TAP)
        self.assert_finds('TM220', 'x', 'a name that is taken',
                          'ip link delete x')

    def test_tm220_is_not_left_over(self):
        self.plug_clean()
        self.make_old()
        self.domains.define((base.TAP, base.GUEST_MAC, False, 1))
        self.host.rename(base.TAP, 'x')
        self.assert_finds('TM220', 'x')

    def test_tm220_not_of_what_a_domain_calls_so(self):
        self.domains.define(('x', base.GUEST_MAC, True, 1))
        self.plug_clean(vif_name='x')

    def test_tm221(self):
        self.plug_clean()
        self.hold()
        self.host.ip.fdb('add', ifindex=self.host.link(base.TAP).index,
                         lladdr=STRANGER, state=0x40, flags=4)
        self.assert_mends('TM221', base.TAP, STRANGER)

    def test_tm222(self):
        self.plug_clean()
        self.hold()
        self.host.wait_until_up(base.TAP)
        self.host.wait_until_forwarding(base.TAP)
        hosts.set_port_state(self.host.link(base.TAP).index, 0)
        self.assert_mends('TM222', base.TAP, 'disabled')
        self.host.wait_until_forwarding(base.TAP)

    def test_tm222_by_its_carrier(self):
        self.configure(multiqueue=True)
        self.plug()
        self.hold(flags=hosts.IFF_TAP | hosts.IFF_MULTI_QUEUE)
        with nl.Netlink() as netlink:
            netlink.change_named(base.TAP, base.TAP, 'switching it off',
                                 link_data.carrier(False))
        found = self.assert_finds('TM222', base.TAP, 'its carrier is off')
        self.do(found.remedy)
        self.assert_clean()

    def test_tm222_put_to_sleep(self):
        self.plug_clean()
        self.hold()
        self.host.wait_until_up(base.TAP)
        self.host.set(base.TAP, operstate='DORMANT')
        self.assert_mends('TM222', base.TAP, 'dormant')
        self.host.wait_until_forwarding(base.TAP)

    def test_tm223(self):
        self.plug_clean()
        self.hold()
        self.host.set(base.TAP, flags=0x100, change=0x100)
        self.assert_mends('TM223', base.TAP, 'promisc is True')

    @base.needs_real_root(base.PROGRAMS)
    def test_tm224(self):
        self.plug_clean()
        bpf.attach(self.host.link(base.TAP).index)
        self.assert_finds('TM224', base.TAP, 'xdp off')

    def test_tm301(self):
        if not os.path.exists('/proc/sys/net/bridge'):
            self.cannot_run('needs br_netfilter')
        self.set_sysctl('bridge/bridge-nf-call-iptables', '1')
        self.assert_finds('TM301', 'bridge-nf-call-iptables', 'FORWARD')
        self.host.forward_by_default(0)
        self.assert_finds('TM301', 'bridge-nf-call-iptables',
                          'filter FORWARD drops it')

    def test_tm301_ipv6(self):
        if not os.path.exists('/proc/sys/net/bridge'):
            self.cannot_run('needs br_netfilter')
        self.host.forward_by_default(0, family=socket.AF_INET6)
        self.assert_finds('TM301', 'bridge-nf-call-ip6tables',
                          'filter FORWARD drops it')
        self.set_sysctl('bridge/bridge-nf-call-ip6tables', '0')
        self.assert_clean()

    def test_tm301_of_bridges(self):
        self.host.forward_by_default(0, 'guests', family=7)
        self.assert_finds('TM301', 'nftables', 'guests FORWARD')

    def test_tm301_by_the_last_rule(self):
        # As firewalld, ip6tables and ebtables end.
        for family, kept, last, device in (
                ('inet', 'iif lo accept',
                 'reject with icmpx type admin-prohibited',
                 'bridge-nf-call-ip6tables'),
                ('ip6', 'ip6 nexthdr icmpv6 accept', 'counter reject',
                 'bridge-nf-call-ip6tables'),
                ('bridge', 'ether type arp accept', 'counter drop',
                 'nftables')):
            if device != 'nftables' and not os.path.exists(
                    '/proc/sys/net/bridge'):
                continue
            self.nft('add table %s firewall' % family,
                     'add chain %s firewall forwarded { type filter hook '
                     'forward priority 10 ; policy accept ; }' % family,
                     'add rule %s firewall forwarded %s' % (family, kept))
            self.assert_clean()
            self.nft('add rule %s firewall forwarded %s' % (family, last))
            self.assert_finds('TM301', device, 'firewall forwarded')
            # What comes after an accept for all does not count.
            self.nft('insert rule %s firewall forwarded accept' % family)
            self.assert_clean()
            self.nft('delete table %s firewall' % family)

    def nft(self, *commands):
        self.needs_program('nft')
        subprocess.run(['nft', '; '.join(commands)], check=True)

    def test_tm301_own_switch_of_a_bridge(self):
        self.foreign_bridge()
        self.assert_clean()
        for field in 'nf_call_iptables', 'nf_call_ip6tables':
            self.host.set(base.BRIDGE, kind='bridge', **{'br_' + field: 1})
            self.assert_finds(
                'TM301', base.BRIDGE, field + ' is 1',
                '"ip link set br100 type bridge %s 0"' % field)
            self.host.set(base.BRIDGE, kind='bridge', **{'br_' + field: 0})

    def test_tm308(self):
        self.configure(host_shield=True)
        self.assert_finds('TM308', 'nftables', 'link group 29793')
        self.plug_clean()
        for family in nft.BRIDGE, nft.INET, nft.ARP:
            with nft.Session() as session:
                session.transact('', nft.on(family, [nft.delete_table(
                    filter_table.NAME)]))
            self.assert_finds('TM308', 'nftables', filter_table.NAME)
            self.plug_clean()

    @base.needs_locked_ports
    def test_tm225(self):
        self.plug_with_uplink()
        self.unplug()
        self.host.wait_until_forwarding('eth1')
        self.host.hear(base.BRIDGE, 'wire', base.GUEST_MAC)
        self.plug_clean()
        self.hold()
        self.assert_clean()
        self.host.set(base.TAP, ifalias=str(mark.TapMark(
            base.VIF_ID, base.GUEST_MAC, base.BRIDGE, _LONG_AGO)))
        self.assert_finds('TM225', base.TAP, base.GUEST_MAC, 'on eth1')

    def shield_host(self, group, service):
        with nl.Netlink() as netlink:
            guest_filter.GuestFilter().shield(netlink, [group], service)

    def test_tm226(self):
        path = pathlib.Path(self.useFixture(fixtures.TempDir()).path, 'x.conf')
        self.configure(host_shield=True)
        self.plug_clean()
        self.shield_host(30000, 'SHA-256 0')
        self.assert_clean()
        self.shield_host(29793, str(path))
        self.assert_finds('TM226', 'nftables', '29793 . 0x',
                          '%s, which is not there any more' % path)
        for text, words in {
                'host_shield = true': None,
                'host_shield = true\nlink_group = 30000': 'for it any more',
                'host_shield = no': 'for it any more',
                'host_shield = perhaps': None,
                'host_shield': None}.items():
            path.write_text('[os_vif_tapmac]\n%s\n' % text)
            if words is None:
                self.assert_clean()
            else:
                self.assert_finds('TM226', 'nftables', words, str(path))
        self.configure(host_shield=False)
        self.assert_finds('TM226', 'nftables', 'is for no file, which')
        shield._looked = False  # As after a restart.
        self.plug_clean()

    @base.needs_locked_ports
    def test_tm226_of_groups_that_guests_may_come_from(self):
        for options in ({'anti_spoofing': 'full'}, {'firewall': 'agent'}):
            self.configure(host_shield=True, **options)
            self.plug(base.make_vif(addresses=['192.0.2.1']))
            self.assertNotIn('TM226', [each.code for each in self.findings()])
        self.configure(firewall='none', anti_spoofing='mac')
        self.assertIn('TM226', [each.code for each in self.findings()])

    def have_link_files(self, **files):
        """Have these in /etc/systemd/network, and none elsewhere."""
        for directory in '/etc', '/run', '/usr/lib':
            directory = pathlib.Path(directory, 'systemd/network')
            if not directory.exists():
                hosts.mount('tmpfs', str(directory.parent), 'tmpfs')
                directory.mkdir()
            hosts.mount('tmpfs', str(directory), 'tmpfs')
        for name, text in files.items():
            path = pathlib.Path('/etc/systemd/network', name + '.link')
            path.write_text(text)

    def test_tm302(self):
        if os.path.exists('/run/udev/control'):
            hosts.mount('tmpfs', '/run/udev', 'tmpfs')
        default = ('[Match]\nOriginalName=*\n[Link]\n'
                   'NamePolicy=keep kernel\nMACAddressPolicy=persistent\n')
        self.have_link_files(**{'99-default': default})
        self.assert_finds('TM302', '/etc/systemd/network/99-default.link',
                          'no /run/udev')
        for first, code in (
                ('[Match]\nOriginalName=eth*\n[Link]\n', 'TM302'),
                ('[Match]\nDriver=tun\n[Link]\nMACAddressPolicy=none\n', None),
                ('[Match]\nOriginalName=vnet* tap*\n[Link]\n', None),
                ('[Match]\nPath=pci-*\n[Link]\n', 'TM302')):
            self.have_link_files(**{'99-default': default, '10-tap': first})
            self.assertEqual([code] if code else [],
                             [each.code for each in self.findings()], first)

    def test_tm302_with_a_udev_that_is_not_waited_for(self):
        pathlib.Path('/run/udev').mkdir(exist_ok=True)
        hosts.mount('tmpfs', '/run/udev', 'tmpfs')
        pathlib.Path('/run/udev/control').touch()
        self.have_link_files(**{'99-default':
                                '[Match]\nOriginalName=*\n[Link]\n'
                                'MACAddressPolicy=persistent\n'})
        self.assert_finds('TM302', '/etc/systemd/network/99-default.link',
                          'udev_timeout is 0')
        self.configure(udev_timeout=5)
        self.assert_clean()

    def test_tm303(self):
        directory = self.useFixture(fixtures.TempDir()).path
        rival = pathlib.Path(directory, 'rival-1.0.dist-info')
        rival.mkdir()
        (rival / 'METADATA').write_text('Name: rival\nVersion: 1.0\n')
        (rival / 'entry_points.txt').write_text(
            '[os_vif]\novs = rival:Plugin\n')
        self.useFixture(fixtures.PythonPathEntry(directory))
        self.assert_finds('TM303', 'ovs', 'rival:Plugin')

    def test_tm304(self):
        selinux = self.useFixture(SELinux(allowed=0x0))
        self.assert_clean()  # Neither libvirt nor our daemon runs.
        selinux.run('privsep-helper', 'system_u:system_r:nova_t:s0')
        selinux.run('virtqemud', 'system_u:system_r:virtqemud_t:s0')
        self.assert_finds('TM304', 'SELinux', 'virtqemud_t', 'relabelfrom',
                          'nova_t')
        selinux.allowed = 0x30  # Bits 5 and 6.
        self.assert_clean()
        selinux.allowed = 0x10
        self.assert_finds('TM304', 'SELinux', 'relabelto')

    def test_tm305(self):
        hosts.mount('tmpfs', '/dev/net', 'tmpfs')
        self.assert_finds('TM305', '/dev/net/tun', 'modprobe tun')

    def test_tm306(self):
        hosts.mount_read_only('/proc/sys')
        self.assert_finds('TM306', '/proc/sys/net/ipv4/conf', 'read-only')
        self.configure(create_bridge=False)
        self.assert_clean()

    def test_tm307(self):
        self.plug_clean()
        self.configure(owner='no-such-user')
        self.assert_finds('TM307', '[os_vif_tapmac]', 'no-such-user')

    def test_tm309(self):
        directory = pathlib.Path('/etc/systemd/network')
        self.have_link_files()
        (directory / 'all.network').write_text('[Match]\nName=*\n')
        found = self.assert_finds(
            'TM309', str(directory / 'all.network'), 'tap00000000-00',
            '00-tapmac.network')
        self.assertFalse(found.mendable)
        shutil.copy(_ETC / 'systemd/network/00-tapmac.network', directory)
        self.assert_clean()

    @base.needs_real_root(base.SEVERAL_USERS)
    @base.too_slow_emulated('programs in Python that are asked')
    def test_tm310(self):
        right = (_ETC / 'network/interfaces.d/br100').read_text()
        self.have_ifupdown2(right)
        self.assert_clean()
        pathlib.Path('/etc/network/interfaces').write_text(
            right.replace('^tap', '^vnet'))
        self.assert_finds('TM310', base.BRIDGE, 'takes tap00000000-00 off',
                          'bridge-ports-condone-regex ^tap')
        self.configure(allowed_bridges=['br2*'])
        self.assert_clean()

    @base.needs_real_root(base.SEVERAL_USERS)
    def test_tm311(self):
        self.configure(bridge_uplinks={base.BRIDGE: 'eth7'})
        right = (_ETC / 'NetworkManager/conf.d/tapmac.conf').read_text()
        self.have_network_manager(right)
        self.assert_finds('TM311', 'NetworkManager',
                          'eth7, the uplink of br100', 'interface-name:eth7')
        pathlib.Path('/etc/NetworkManager/conf.d/tapmac.conf').write_text(
            right.rstrip() + ';interface-name:eth7\n')
        self.assert_clean()

    def test_each_code_has_a_test(self):
        """Here, or beside what else it is about."""
        self.assertEqual(
            sorted(finding.CODES),
            sorted({code.upper() for path in pathlib.Path(
                __file__).parent.glob('test_*.py') for code in re.findall(
                r"def test_(tm\d{3})|\.assert_(?:found|one)\('(TM\d{3})'",
                path.read_text()) for code in code if code}))


class SELinux(fixtures.Fixture):
    """A kernel that enforces a policy, by its files.

    There is none here: what is written and read is as the kernel's
    security/selinux/selinuxfs.c has it.

    :ivar allowed: what it allows of the class tun_socket, as bits
    """

    def __init__(self, allowed):
        super().__init__()
        self.allowed = allowed

    def _setUp(self):
        self._processes = pathlib.Path(
            self.useFixture(fixtures.TempDir()).path)
        hosts.mount('tmpfs', '/sys/fs', 'tmpfs')
        root = pathlib.Path('/sys/fs/selinux')
        (root / 'class/tun_socket/perms').mkdir(parents=True)
        (root / 'enforce').write_text('1')
        (root / 'class/tun_socket/index').write_text('77')
        (root / 'class/tun_socket/perms/relabelfrom').write_text('5')
        (root / 'class/tun_socket/perms/relabelto').write_text('6')
        kernel, user = pty.openpty()
        tty.setraw(user)
        (root / 'access').symlink_to(os.ttyname(user))
        self.addCleanup(os.close, user)
        thread = threading.Thread(target=self._answer, args=(kernel,),
                                  daemon=True)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(os.write, user, b'end')

    def _answer(self, kernel):
        while True:
            asked = os.read(kernel, 4096).decode().split()
            if asked == ['end']:
                return os.close(kernel)
            assert len(asked) == 3 and asked[2] == '77', asked
            os.write(kernel, b'%x ffffffff 0 ffffffff 1 0' % self.allowed)

    def run(self, name, label):
        """Have a process of this name with this label."""
        process = subprocess.Popen(
            [sys.executable, '-c', 'import sys, time; '
             'open("/proc/self/comm", "w").write(sys.argv[1]); '
             'print(flush=True); time.sleep(600)', name],
            stdout=subprocess.PIPE)
        self.addCleanup(process.__exit__, None, None, None)
        self.addCleanup(process.kill)
        process.stdout.readline()
        path = self._processes / name
        path.write_text(label + '\0')
        hosts.mount(str(path), '/proc/%d/attr/current' % process.pid, None,
                    hosts.MS_BIND)


class ScaleTest(AuditTestCase):
    """How long 1000 ports take is for the benchmark to say."""

    def test_one_dump_of_links(self):
        self.plug_clean()
        before = self.asked()
        self.assertEqual(1, before.count('links'))
        for number in range(20):
            self.plug(base.numbered_vif(number + 2))
        self.assertEqual(before, self.asked())

    def asked(self):
        """Return what is asked of the kernel to read the host, in order."""
        asked = []
        with contextlib.ExitStack() as patches:
            for name in 'links', 'all_addresses', '_request':
                patches.enter_context(fixtures.MonkeyPatch(
                    'vif_plug_tapmac.kernel.netlink.Netlink.' + name,
                    self.counting(name, asked)))
            self.findings()
        return asked

    def counting(self, name, asked):
        real = getattr(nl.Netlink, name)

        def count(*args, **kwargs):
            asked.append(name)
            return real(*args, **kwargs)
        return count
