# SPDX-License-Identifier: Apache-2.0

"""Security groups from Neutron's REST to what a guest gets, on two hosts.

Nothing between the two is ours but what is tested: neutron-server and its RPC
workers, RabbitMQ and MariaDB are what operators run, and so is the agent. The
guests' groups are stateless, as not every kernel knows connections on bridges.
"""

import contextlib

from tests.neutron import cloud
from tests.neutron import hypervisor

MEMBERS, OTHERS = hypervisor.MEMBERS, hypervisor.OTHERS


def load_tests(loader, tests, pattern):
    return cloud.load_tests(tests, ChangesWithoutAgentsTest)


class ChangesTestCase(hypervisor.HypervisorTestCase):

    def make_all_changes(self, meanwhile):
        """Make each change that there is; look that it is in force.

        :param meanwhile: given hosts that have to act, a context for a change
        """
        group, others = self.members(), self.outsiders()
        self.start_agents()
        member, guest, outsider = [
            self.guest(host, its) for host, its in (
                (self.one, group), (self.other, group), (self.one, others))]
        self.wait_until_active(member, guest, outsider)
        for nic in member, guest, outsider:
            self.wait_for_events(nic.port, 'vif-plugged')
        self.wait_until_passes(member, guest, MEMBERS)
        self.wait_until_passes(guest, member, MEMBERS)
        self.wait_until_refused(outsider, guest, MEMBERS)
        self.wait_until_refused(member, guest, OTHERS)

        with meanwhile(self.other):
            rule, = self.add_rules(group, self.udp(OTHERS))
        took = self.wait_until_passes(outsider, guest, OTHERS)
        print('A rule is in force after %.1f s' % took)
        with meanwhile(self.other):
            self.neutron.request('DELETE', 'security-group-rules/' + rule)
        took = self.wait_until_refused(outsider, guest, OTHERS)
        print('A rule is not in force any more after %.1f s' % took)

        way = member, guest, MEMBERS, '192.0.2.77'
        self.wait_until_refused(*way)
        with meanwhile(self.one):
            self.update(member.port, allowed_address_pairs=[
                {'ip_address': '192.0.2.77'}])
        took = self.wait_until_passes(*way)
        print('A pair is in force after %.1f s' % took)

        with meanwhile(self.other):
            self.update(guest.port, security_groups=[],
                        port_security_enabled=False)
        self.wait_until_passes(outsider, guest, OTHERS)
        with meanwhile(self.other):
            self.update(guest.port, security_groups=[group],
                        port_security_enabled=True)
        self.wait_until_refused(outsider, guest, OTHERS)
        self.wait_until_passes(member, guest, MEMBERS)

        with meanwhile(self.other):
            self.update(outsider.port, security_groups=[group])
        self.wait_until_passes(outsider, guest, MEMBERS)
        with meanwhile(self.other):
            self.update(outsider.port, security_groups=[others])
        self.wait_until_refused(outsider, guest, MEMBERS)

        former, new = member.address, '192.0.2.200'
        with meanwhile(self.one, self.other):
            self.update(member.port, fixed_ips=[
                {'subnet_id': self.subnet, 'ip_address': new}])
        self.wait_until_passes(member, guest, MEMBERS, new)
        self.wait_until_refused(member, guest, MEMBERS, former)

        with meanwhile(self.other):
            self.neutron.request('DELETE', 'ports/' + guest.port['id'])
        self.wait_until_refused(member, guest, MEMBERS, new)


class ChangesTest(ChangesTestCase):

    def test_all(self):
        self.make_all_changes(lambda *_: contextlib.nullcontext())


class ChangesWithoutAgentsTest(ChangesTestCase):

    def test_all(self):
        self.make_all_changes(self.killed)

    @contextlib.contextmanager
    def killed(self, *hosts):
        """Have the agents of hosts killed before a change, and back after."""
        for host in hosts:
            host.kill_agent()
        yield
        self.start_agents(*hosts)


class LiveMigrationTest(hypervisor.HypervisorTestCase):
    """A guest is open where it arrives, and no more than it was."""

    def test_groups_are_there_before_the_guest(self):
        group = self.members()
        self.start_agents()
        member, source, there, outsider = [self.guest(host, its) for host, its
                                           in ((self.one, group),
                                               (self.one, group),
                                               (self.other, group),
                                               (self.one, self.outsiders()))]
        self.wait_until_active(member, source, there, outsider)
        self.wait_until_passes(member, source, MEMBERS)
        self.bind_second(source.port, self.other.name)
        target = self.start_guest(self.other, source.port)
        # Nova waits for nobody here. What is flooded to it tells.
        took = self.wait_until_passes(there, target, MEMBERS)
        print('A guest that arrives can be reached after %.1f s' % took)
        self.wait_until_refused(outsider, target, MEMBERS)
        self.wait_until_passes(member, source, MEMBERS)

        source.close()
        target.send(member, MEMBERS)
        took = self.wait_until_passes(member, target, MEMBERS)
        print('A guest that has arrived was not reached for %.1f s' % took)
        self.wait_until_passes(target, member, MEMBERS)
        self.activate(source.port, self.other.name)
        self.wait_until_active(target)
        self.assertEqual(self.other.name,
                         self.show(source.port)['binding:host_id'])
        self.wait_until_passes(member, target, MEMBERS)
        self.wait_until_passes(target, member, MEMBERS)
        self.wait_until_refused(outsider, target, MEMBERS)
