# SPDX-License-Identifier: Apache-2.0

"""The interface driver of Neutron's agents, with a real kernel.

What it does with a Neutron is elsewhere: see test_dhcp.
"""

import pathlib
import sys
import threading

import fixtures

from tests import answering
from tests import base
from tests.neutron import cloud
from tests import patience
from vif_plug_tapmac.kernel import events
from vif_plug_tapmac import mark
from vif_plug_tapmac import privileged
from vif_plug_tapmac.wanted import names

MAC, HOST_MAC = 'fa:16:3e:00:00:77', 'fe:16:3e:00:00:77'
PORT = '77777777-7777-4777-8777-777777777777'
INNER, OUTER = 'ns-77777777-77', 'tap77777777-77'
NAMESPACE = 'qdhcp-demo'


def load_tests(loader, tests, pattern):
    return cloud.load_tests(tests, DriverTest)


class DriverTest(base.FunctionalTestCase):

    def setUp(self):
        super().setUp()
        self.only_in_full()
        configuration = pathlib.Path(
            self.useFixture(fixtures.TempDir()).path) / 'conf'
        configuration.write_text('')
        self.program = self.useFixture(answering.Program(
            sys.executable, '-W', 'ignore', '-m',
            'tests.neutron.interface_driver', configuration))
        # With a MAC that a port could have it change, as no bridge of ours.
        self.host.add('br100', 'bridge')
        self.host.add('wire', 'veth', peer={
            'ifname': 'far', 'address': 'fc:00:00:00:00:02'},
            address='fc:00:00:00:00:01')
        self.host.set('wire', master=self.host.link('br100').index)
        self.host.set('br100', state='up')

    def test_all(self):
        # It takes the program longest to begin.
        for check in [each for each in dir(self) if each.startswith('check_')]:
            print(check)
            getattr(self, check)()
            self.call('unplug', device_name=INNER, namespace=NAMESPACE)
            self.assert_nothing()

    def call(self, name, **passed):
        answer, error = self.program.ask([name, passed])
        self.assertIsNone(error, error)
        return answer

    def refusal(self, name, **passed):
        answer, error = self.program.ask([name, passed])
        self.assertIsNotNone(error, answer)
        return error

    def plug(self, ask=None, **fields):
        return (ask or self.call)('plug', **{
            'network_id': PORT, 'port_id': PORT, 'device_name': INNER,
            'mac_address': MAC, 'bridge': 'br100', 'namespace': NAMESPACE,
            'mtu': 1400, **fields})

    def inner(self, name=INNER, namespace=NAMESPACE):
        return self.call('look', device=name, namespace=namespace)

    def assert_wired(self, name=OUTER, bridge='br100', mtu=1400):
        link = self.host.link(name)
        self.assertEqual(
            ('veth', HOST_MAC, mtu, bridge, True, mark.INTERFACE_GROUP, 1,
             [], mark.InterfaceMark(PORT, MAC, bridge)),
            (link.kind, link.mac, link.mtu, self.host.master(name), link.up,
             link.group, link.disable_ipv6, self.host.addresses(name),
             mark.InterfaceMark.parse(link.alias)))
        self.assertTrue(mark.is_interface(link))

    def assert_nothing(self):
        self.assertIsNone(self.host.find(OUTER))
        self.assertIsNone(self.inner())

    def check_plug_twice_and_unplug_twice(self):
        self.plug()
        self.assert_wired()
        before = self.host.link(OUTER).index
        inner = self.inner()
        self.assertEqual((MAC, 1400, 'up'), (
            inner['link/ether'], inner['mtu'], inner['state'].lower()))
        self.assertIn('fe80::f816:3eff:fe00:77/64', inner['addresses'])
        self.plug()
        self.assert_wired()
        self.assertEqual(before, self.host.link(OUTER).index)
        for _ in range(2):
            self.call('unplug', device_name=INNER, namespace=NAMESPACE)
            self.assert_nothing()

    def check_tapmac_agent_hears_of_it(self):
        with events.LinkEvents() as told:
            thread = threading.Thread(target=self.be_agent, args=(told,))
            thread.start()
            self.plug(bridge=None)
            # Which waits for that.
            self.assert_wired()
            thread.join()

    def check_no_wait_for_ports_of_a_router_that_is_active_nowhere(self):
        own = {'device_name': 'ha-88888888-88', 'prefix': 'ha-'}
        self.plug(**own)
        self.call('said')
        # Neutron has not bound it: no agent could have it anywhere.
        its = {'device_name': 'qr-77777777-77', 'prefix': 'qr-'}
        self.plug(bridge=None, **its)
        self.assertEqual(['qr-77777777-77 is made for port %s of network %s, '
                          'with %s on this host' % (PORT, PORT, OUTER)],
                         self.call('said'))
        link = self.host.link(OUTER)
        self.assertEqual((False, None), (link.up, link.master))
        for each in own, its:
            self.call('unplug', namespace=NAMESPACE, **each)

    def be_agent(self, told):
        """Have what is heard of join the bridge, as tapmac-agent does."""
        patience.wait_until(lambda: [each for each in told.wait(1) if (
            mark.InterfaceMark.parse(each.link.alias))], 'nothing is heard')
        privileged.join_interface({
            'vif_id': PORT, 'name': OUTER, 'bridge': 'br100',
            'guest_mac': MAC, 'mtu': 1400})

    def check_names_of_all_agents(self):
        for prefix in 'ns-', 'qr-', 'qg-', 'ha-', 'sg-':
            name = prefix + INNER[3:]
            # None is that of DHCP.
            more = {} if prefix == 'ns-' else {'prefix': prefix}
            self.plug(device_name=name, **more)
            self.assert_wired()
            self.assertEqual(names.nova_tap_name(PORT), OUTER)
            self.assertTrue(self.inner(name))
            self.call('unplug', device_name=name, namespace=NAMESPACE, **more)
            self.assert_nothing()

    def check_distributed_routers_are_refused(self):
        self.call('other', mode='legacy')
        for mode in 'dvr', 'dvr_snat', 'dvr_no_external':
            said = self.refusal('other', mode=mode)
            self.assertIn('InvalidConfig: [DEFAULT] agent_mode = %s: with '
                          'interface_driver = tapmac there are no distributed '
                          'routers' % mode, said)

    def check_highly_available_routers_need_an_agent(self):
        said = self.refusal(
            'other', mode='legacy', mappings='physnet1:br100', passed={
                'network_id': PORT, 'port_id': PORT, 'prefix': 'ha-',
                'device_name': 'ha-77777777-77', 'mac_address': MAC,
                'namespace': NAMESPACE})
        self.assertIn('has VRRP run when tapmac-agent says that it is wired',
                      said)
        self.assert_nothing()

    def check_bridge_keeps_its_mac(self):
        # It has the lowest of its ports.
        before = self.host.link('br100').mac
        self.assertEqual(self.host.link('wire').mac, before)
        self.plug()
        self.assertEqual(before, self.host.link('br100').mac)

    def check_mtu_changes_and_all_is_as_it_is_to_be_when_an_agent_starts(self):
        self.plug(mtu=1500)
        for mtu in 1280, 9000:
            self.call('set_mtu', device_name=INNER, namespace=NAMESPACE,
                      mtu=mtu)
            self.assertEqual(mtu, self.inner()['mtu'])
            self.assertEqual(mtu, self.host.link(OUTER).mtu)
        self.host.set(OUTER, state='down', address='02:00:00:00:00:01',
                      group=0)
        self.plug(mtu=1500)
        link = self.host.link(OUTER)
        self.assertEqual((HOST_MAC, mark.INTERFACE_GROUP, 1500),
                         (link.mac, link.group, link.mtu))

    def check_left_over_with_no_namespace(self):
        self.plug()
        before = self.host.link(OUTER).index
        self.call('forget_namespace', namespace=NAMESPACE)
        self.plug()
        self.assert_wired()
        self.assertNotEqual(before, self.host.link(OUTER).index)
        self.assertTrue(self.inner())

    def check_left_over_is_unplugged(self):
        self.plug()
        self.call('forget_namespace', namespace=NAMESPACE)
        self.call('unplug', device_name=INNER, namespace=NAMESPACE)
        self.assertIsNone(self.host.find(OUTER))

    def check_what_is_not_ours_stays(self):
        self.host.add_tap(OUTER)
        before = self.host.link(OUTER)
        said = self.plug(self.refusal)
        self.assertIn('DeviceConflict', said)
        self.assertIn(OUTER, said)
        self.call('unplug', device_name=INNER, namespace=NAMESPACE)
        self.assertEqual(before, self.host.link(OUTER))
        self.host.delete(OUTER)
        # Which no agent has made, but finds in its namespace.
        self.host.add('eth7', 'veth', peer='eth8')
        self.call('unplug', device_name='eth7', namespace=NAMESPACE)
        self.assertTrue(self.host.find('eth7'))

    def check_nothing_stays_of_what_can_not_be(self):
        for fields, words in (({'bridge': 'br7'}, 'br7, which is missing'),
                              ({'bridge': 'lo'}, 'of another kind'),
                              ({'mac_address': 'x'}, 'x')):
            self.assertIn(words, self.plug(self.refusal, **fields))
            self.assert_nothing()
        self.assertIn('begin', self.plug(self.refusal, device_name='x'))

    def check_many_addresses_of_both_families(self):
        self.plug()
        cidrs = ['192.0.%d.2/24' % number for number in range(9)] + [
            '2001:db8:%d::2/64' % number for number in range(1, 9)]
        for _ in range(2):
            self.call('init_l3', device_name=INNER, ip_cidrs=cidrs,
                      namespace=NAMESPACE)
            self.assertEqual(
                sorted([*cidrs, 'fe80::f816:3eff:fe00:77/64']),
                sorted(self.inner()['addresses']))
            cidrs = cidrs[3:]
