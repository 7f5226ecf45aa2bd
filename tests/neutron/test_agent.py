# SPDX-License-Identifier: Apache-2.0

"""tapmac-agent with a real kernel, and a Neutron that a test speaks for.

What is tested is the order of things: at no time does a frame pass a port
whose rules are not there. All groups are stateless, for kernels differ in what
they know of connections.
"""

import inspect
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
import unittest

from oslo_messaging._drivers import impl_rabbit

from tests import base as tests_base
from tests.functional import test_guard
from tests import hosts
from tests.neutron import base
from tests import patience
from vif_plug_tapmac.kernel import conntrack

if base.NEUTRON >= 28:
    from tests.neutron import alone
    from vif_plug_tapmac.agent import broker
    from vif_plug_tapmac.agent import dirty

GROUP, OTHER = ('%08d-0000-4000-8000-000000000000' % number
                for number in (7, 8))
WIRE, GATEWAY = '52:54:00:00:00:01', '192.0.2.254'
_ALLOWED, _FORBIDDEN = 7777, 6666


def vif(number):
    return tests_base.numbered_vif(number, addresses=[ipv4(number)])


def ipv4(number):
    return '192.0.2.%d' % number


def udp(source, to, port):
    """An Ethernet frame from whom to whom, each a MAC and an address."""
    words = b'nothing here is padded'
    payload = struct.pack('!HHHH', 5, port, 8 + len(words), 0) + words
    macs, addresses = zip(source, to)
    addresses = b''.join(map(socket.inet_aton, addresses))

    def header(checksum):
        return struct.pack('!BBHHHBBH', 0x45, 0, 20 + len(payload), 0, 0, 64,
                           17, checksum) + addresses
    # Who filters bridges by iptables drops what has a wrong one.
    total = sum(struct.unpack('!10H', header(0)))
    return (b''.join(bytes.fromhex(each.replace(':', ''))
                     for each in reversed(macs)) + b'\x08\x00'
            + header(~(total + (total >> 16)) & 0xffff) + payload)


def rule(direction, port):
    return {'direction': direction, 'ethertype': 'IPv4', 'protocol': 'udp',
            'port_range_min': port, 'port_range_max': port,
            'stateful': False}


@tests_base.needs_locked_ports
class AgentTestCase(test_guard.GuardTestCase):

    def setUp(self):
        super().setUp()
        self.configure(firewall='agent')
        self.guests = {}
        self.agent = self.useFixture(alone.Agent())
        self.agent.rules[GROUP] = [rule('ingress', _ALLOWED),
                                   rule('egress', _ALLOWED)]

    def plug_in(self, number, holds=False, **fields):
        """Have a guest, and Neutron know its port."""
        self.tell(number, **fields)
        self.agent.say(holds=holds)
        self.plug(vif(number))
        self.guests[number] = self.open(vif(number).vif_name,
                                        vif(number).address)

    def tell(self, number, status='DOWN', **fields):
        self.agent.ports[vif(number).id] = {
            'id': vif(number).id, 'device': 'demo', 'status': status,
            'admin_state_up': True, 'binding:host_id': 'host1',
            'mac_address': vif(number).address, 'fixed_ips': [ipv4(number)],
            'device_owner': 'compute:nova', 'security_groups': [GROUP],
            **fields}

    def passes(self, number, port=_ALLOWED):
        """Return whether frames pass from a guest, and to it.

        Who has sent to a TAP has had it forwarded when he returns.
        """
        guest, found = self.guests[number], []
        one, other = (guest.mac, ipv4(number)), (WIRE, GATEWAY)
        for sender, receiver, octets in (
                (guest, self.wire, udp(one, other, port)),
                (self.wire, guest, udp(other, one, port))):
            receiver.waiting()
            sender.write(octets)
            found.append(octets in receiver.waiting())
        return tuple(found)

    def assert_closed(self, number):
        self.assertEqual((False, False), self.passes(number))

    def assert_guarded(self, number):
        self.assertEqual((True, True), self.passes(number))
        self.assertEqual((False, False), self.passes(number, _FORBIDDEN))

    def wait_until_up(self, number, count=1):
        self.agent.wait_for('up', [vif(number).id], count)


class OrderTest(AgentTestCase):
    """What comes before what, whatever happens in between."""

    def test_nothing_passes_before_its_rules_at_whatever_it_is_killed(self):
        for number, step in enumerate(alone.STEPS, 1):
            self.plug_in(number)
            self.assert_closed(number)
            self.agent.start(until=step)
            self.assertEqual(-signal.SIGKILL, self.agent.wait(),
                             self.agent.log())
            if step in (alone.ASKED, alone.ANSWERED):
                self.assert_closed(number)
            else:
                self.assert_guarded(number)
            self.assertEqual(step == alone.TOLD, any(
                vif(number).id in each for each in self.agent.heard('up')))
        # What was wired is, and what was not becomes so.
        self.agent.start()
        for number in range(1, 5):
            self.agent.wait_for('up', vif(number).id)
            self.assert_guarded(number)

    def test_neutron_that_is_slow(self):
        self.agent.start()
        self.agent.wait_for('applied')
        self.plug_in(1, holds=True)
        self.agent.wait_for('asked', [vif(1).id])
        self.assert_closed(1)
        self.assertEqual([], self.agent.heard('up'))
        self.agent.say()
        self.wait_until_up(1)
        self.assert_guarded(1)

    def test_tap_that_is_made_anew_under_it(self):
        self.plug_in(1)
        self.agent.start()
        self.wait_until_up(1)
        former = self.host.link(vif(1).vif_name).index
        self.guests[1].close()
        self.unplug(vif(1))
        self.plug_in(1, holds=True)
        self.assertNotEqual(former, self.host.link(vif(1).vif_name).index)
        self.assert_closed(1)
        self.agent.say()
        self.wait_until_up(1, 2)
        self.assert_guarded(1)
        self.assertEqual([[vif(1).id]], self.agent.heard('down'))

    def test_tap_that_is_made_anew_while_it_is_dead(self):
        """Nova may wait to hear of it, as after a hard reboot."""
        self.plug_in(1)
        self.plug_in(2)
        self.agent.start()
        self.agent.wait_for('up', vif(2).id)
        self.agent.kill()
        self.guests[1].close()
        self.unplug(vif(1))
        self.tell(2, 'ACTIVE')
        self.plug_in(1, status='ACTIVE')
        self.agent.start(until=alone.ASKED)
        self.agent.wait()
        self.assertEqual([], self.agent.heard('down'))
        self.agent.start(until=alone.ANSWERED)
        self.agent.wait()
        # Before its rules, or who is killed then would not do it again.
        self.assertEqual([[vif(1).id]], self.agent.heard('down'))
        self.assert_closed(1)
        self.agent.start()
        self.agent.wait_for('up', vif(1).id)
        self.assertEqual([[vif(1).id]], self.agent.heard('down'))
        for number in 1, 2:
            self.assert_guarded(number)
        os.kill(self.agent.pid, signal.SIGHUP)
        self.agent.wait_for('applied', vif(1).id, 2)
        self.assertEqual([[vif(1).id]], self.agent.heard('down'))
        self.assertEqual([[vif(1).id]], self.agent.heard('up'))

    def test_guest_that_ran_before_there_was_an_agent(self):
        """It was never closed, so it is not down for a moment."""
        self.configure(firewall='none')
        self.plug_in(1, status='ACTIVE')
        self.agent.start()
        self.agent.wait_for('applied', [vif(1).id])
        os.kill(self.agent.pid, signal.SIGHUP)
        self.agent.wait_for('applied', [vif(1).id], 2)
        self.assert_guarded(1)
        for what in 'down', 'up':
            self.assertEqual([], self.agent.heard(what))

    def test_what_was_wired_stays(self):
        self.plug_in(1)
        self.agent.start()
        self.wait_until_up(1)
        self.agent.kill()
        self.assert_guarded(1)
        # It comes again; Neutron says nothing, and later the same.
        self.tell(1, 'ACTIVE')
        self.agent.start()
        self.agent.wait_for('applied', [vif(1).id])
        # And again, after which all is said that is said of the first time.
        os.kill(self.agent.pid, signal.SIGHUP)
        self.agent.wait_for('applied', [vif(1).id], 2)
        self.assert_guarded(1)
        for what in 'down', 'up':
            self.assertEqual([], self.agent.heard(what))

    def test_daemon_that_is_killed(self):
        self.plug_in(1)
        self.agent.start()
        self.wait_until_up(1)
        daemon, = re.findall('privsep daemon running as pid ([0-9]+)',
                             self.agent.log())
        os.kill(int(daemon), signal.SIGKILL)
        self.plug_in(2)
        self.assert_closed(2)
        self.wait_until_up(2)
        for number in 1, 2:
            self.assert_guarded(number)

    def test_groups_that_are_stateful(self):
        self.agent.rules[OTHER] = [
            dict(each, stateful=True) for each in self.agent.rules[GROUP]]
        self.plug_in(1)
        self.agent.start()
        self.wait_until_up(1)
        self.tell(1, 'ACTIVE', security_groups=[OTHER])
        self.plug_in(2, security_groups=[OTHER])
        self.agent.call('port_update', {'id': vif(1).id}, 'vlan', 7, 'demo')
        patience.wait_until(
            lambda: self.agent.log().count('are stateful') >= 2,
            self.agent.log)
        for number in 1, 2:
            self.assert_closed(number)
            self.assertIn('ERROR vif_plug_tapmac.agent.manager [-] Port %s is '
                          'not wired' % vif(number).id, self.agent.log())
        self.assertEqual([[vif(1).id]], self.agent.heard('up'))
        # Written after what is logged.
        patience.wait_until(
            lambda: '\ntapmac_agent_ports_waiting 2\n'
            in self.agent.metrics.read_text(), self.agent.metrics.read_text)

    def test_rules_that_change(self):
        self.plug_in(1)
        self.agent.start()
        self.wait_until_up(1)
        self.tell(1, 'ACTIVE')
        self.agent.rules[GROUP].append(rule('egress', _FORBIDDEN))
        self.agent.call('security_groups_rule_updated', [GROUP])
        self.agent.wait_for('applied', [vif(1).id], 2)
        self.assertEqual((True, False), self.passes(1, _FORBIDDEN))
        del self.agent.ports[vif(1).id]
        self.agent.call('port_delete', vif(1).id)
        self.agent.wait_for('applied', [], 1)
        self.assert_closed(1)
        # Said once.
        self.assertEqual([[vif(1).id]], self.agent.heard('up'))

    def test_many_ports_are_asked_for_at_once(self):
        """With each answer come all members of their groups again."""
        numbers = range(1, 31)
        for number in numbers:
            self.plug_in(number)
        self.agent.start()
        self.agent.wait_for('up', vif(30).id)
        self.assertEqual(sorted(vif(number).id for number in numbers),
                         self.agent.heard('asked')[0])


class BrokerTest(AgentTestCase):
    """Somebody at the message queue, who says what he likes to an agent."""

    def test_rubbish(self):
        self.plug_in(1)
        self.agent.start()
        self.wait_until_up(1)
        self.tell(1, 'ACTIVE')
        for what, *arguments in (
                ('port_update', {}, 'vlan', 7, 'demo'),
                ('port_update', {'id': ['x']}, 'vlan', 7, 'demo'),
                ('port_update', {'id': 7, 'security_groups': [7, None]},
                 'vlan', 7, 'demo'),
                ('port_delete', 7), ('port_delete', None),
                ('security_groups_rule_updated', [7, None]),
                ('security_groups_rule_updated', [[GROUP]]),
                ('security_groups_member_updated', 'x'),
                ('security_groups_member_updated', [{}])):
            self.agent.call(what, *arguments)
        for wrong in ({'mac_address': 7}, {'fixed_ips': 'x'},
                      {'allowed_address_pairs': [7]}, {'id': ['x']},
                      {'device_owner': {}}):
            self.say(**wrong)
            self.assertEqual((False, False), self.passes(1, _FORBIDDEN), wrong)
        rules = self.agent.rules[GROUP]
        self.agent.rules[GROUP] = [7, None, {}, {'direction': 'x'}, *rules]
        self.say()
        self.assertEqual((False, False), self.passes(1, _FORBIDDEN))
        # And is none the worse for it.
        self.agent.rules[GROUP] = [*rules, rule('egress', _FORBIDDEN)]
        self.say()
        patience.wait_until(
            lambda: self.passes(1, _FORBIDDEN) == (True, False),
            self.agent.log)
        self.assertEqual((True, True), self.passes(1))

    def say(self, **wrong):
        """Have the agent ask for its port, and be told that."""
        asked = len(self.agent.heard('asked'))
        self.tell(1, 'ACTIVE', **wrong)
        self.agent.call('port_update', {'id': vif(1).id}, 'vlan', 7, 'demo')
        self.agent.wait_for('asked', count=asked + 1)


class ProcessTest(tests_base.FunctionalTestCase):
    """What is told of it, and how it ends."""

    def start(self, **fields):
        agent = self.useFixture(alone.Agent(**fields))
        agent.start()
        return agent

    def test_what_is_reported(self):
        agent = self.start()
        agent.wait_for('applied')
        agent.wait_for('report', count=2)
        told = agent.heard('report')[-1]
        self.assertEqual(
            ('tapmac agent', 'tapmac-agent', 'host1',
             {'physnet1': 'br100'}),
            (told['agent_type'], told['binary'], told['host'],
             told['configurations']['bridge_mappings']))
        self.assertIn('\ntapmac_agent_ports 0\n', agent.metrics.read_text())

    def test_signals(self):
        agent = self.start()
        agent.wait_for('applied')
        os.kill(agent.pid, signal.SIGHUP)
        agent.wait_for('applied', count=2)
        self.assertEqual(0, agent.kill(signal.SIGTERM))

    def test_end_without_message_queue(self):
        # Nobody listens there.
        agent = self.useFixture(alone.Agent(
            transport='rabbit://demo:demo@127.0.0.1:9/'))
        process = self.run_it(agent)
        patience.wait_until(lambda: 'Connection failed' in agent.log(),
                            agent.log)
        began = time.monotonic()
        process.terminate()
        self.assertEqual(0, process.wait(patience.HANG))
        # What it waits for takes as long as anything here may take.
        self.assertLess(time.monotonic() - began, patience.HANG / 10)

    def run_it(self, agent):
        """Have it run, alone, as a user has it."""
        with agent.log_file.open('w') as log:
            process = subprocess.Popen(
                [sys.executable, '-W', 'ignore', '-c', 'import sys; from '
                 'vif_plug_tapmac.agent import main; sys.exit(main.main())',
                 '--config-file', agent.configuration], stdout=log,
                stderr=log, cwd=tests_base.CHECKOUT,
                preexec_fn=hosts.die_with_parent)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def test_daemon_that_can_not_be_started(self):
        agent = self.useFixture(alone.Agent(helper='false'))
        self.assertEqual(1, self.run_it(agent).wait(patience.HANG))
        self.assertIn('tapmac-agent does not start: its privileged daemon can '
                      'not be started', agent.log())

    def test_message_queue_that_is_there_again(self):
        told = dirty.Dirty()
        broker.listen(told)
        said, = re.findall(r"LOG.info\((.*Reconnected.*?)',",
                           inspect.getsource(impl_rabbit).replace("'\n", ''))
        impl_rabbit.LOG.info('Connection failed')
        self.assertEqual(dirty.EMPTY, told.take(0))
        impl_rabbit.LOG.info(said)
        self.assertTrue(told.take(0).resync)

    def test_threads_are_threads_and_not_lost_one_by_one(self):
        # To load a Neutron takes a while: it is done once.
        code = ('import sys, threading; from vif_plug_tapmac.agent import '
                'main; from oslo_service import backend; '
                'patcher = sys.modules.get("eventlet.patcher"); '
                'print(backend.get_backend_type().value, '
                'patcher and patcher.already_patched or None, flush=True); '
                'threading.excepthook = main._lose; '
                'threading.Thread(target=threading.Event().wait).start(); '
                'threading.Thread(name=main.THREADS[0], '
                'target=lambda: 1 / 0).start()')
        done = subprocess.run(
            [sys.executable, '-W', 'ignore', '-c', code],
            cwd=tests_base.CHECKOUT, capture_output=True, text=True,
            timeout=patience.HANG)
        self.assertEqual((1, 'threading None\n'),
                         (done.returncode, done.stdout))

    def test_it_does_not_start_where_nothing_would_be_guarded(self):
        agent = self.useFixture(alone.Agent(firewall='none'))
        agent.start()
        self.assertEqual(1, agent.wait())
        self.assertIn('CRITICAL vif_plug_tapmac.agent.main [-] tapmac-agent '
                      'does not start: [os_vif_tapmac] firewall is none',
                      agent.log())

    def test_without_conntrack_it_does_not_start(self):
        if conntrack.probe():
            self.skipTest('this kernel knows connections')
        agent = self.useFixture(alone.Agent(conntrack='required'))
        agent.start()
        self.assertEqual(1, agent.wait())
        self.assertIn('knows no connections on bridges', agent.log())


def load_tests(loader, tests, pattern):
    """Load it where Neutron has all that the agent needs; in full, once."""
    return tests if base.NEUTRON > 28 or (
        base.NEUTRON == 28 and patience.LONG) else unittest.TestSuite()
