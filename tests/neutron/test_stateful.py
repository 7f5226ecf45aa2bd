# SPDX-License-Identifier: Apache-2.0

"""Security groups that are stateful, as all are by default, end to end.

That needs connections on bridges, which not every kernel knows. So what is of
a compute host is on a kernel that does: two of them, their agents and guests,
and the test itself. All else is on this machine, as it is for other tests.
"""

import os
import shlex
import subprocess
import sys

from tests import base as tests_base
from tests import hosts
from tests.neutron import base
from tests.neutron import broker
from tests.neutron import cloud
from tests.neutron import hypervisor
from tests import patience

MEMBERS, OTHERS = hypervisor.MEMBERS, hypervisor.OTHERS
_KERNEL = '6.1'


class StatefulTest(hypervisor.HypervisorTestCase):

    def test_all(self):
        within = self.group({'direction': 'egress'})
        self.add_rules(within, self.tcp(MEMBERS, remote_group_id=within))
        served, without = self.group(), self.group({'direction': 'egress'})
        self.start_agents()
        member, guest, server, outsider = [
            self.guest(host, its) for host, its in (
                (self.one, within), (self.other, within),
                (self.other, served), (self.one, without))]
        self.wait_until_active(member, guest, server, outsider)

        between = self.connect(member, guest, MEMBERS)
        self.assert_refused_tcp(outsider, guest, MEMBERS)
        self.assert_refused_tcp(member, guest, OTHERS)
        self.assert_refused_tcp(outsider, server, OTHERS)

        rule, = self.add_rules(served, self.tcp(OTHERS))
        ends = self.connect(outsider, server, OTHERS)
        # Answers are all that one of them may send, and the other may get.
        self.assert_refused_tcp(server, outsider, OTHERS)
        self.assert_refused_tcp(member, outsider, OTHERS)
        self.delete_rule(rule)
        self.wait_until_cut(*ends)

        rule, = self.add_rules(served, self.tcp(OTHERS))
        ends = self.connect(outsider, server, OTHERS)
        self.other.kill_agent()
        self.delete_rule(rule)
        self.add_rules(served, self.tcp(MEMBERS))
        for each in between, ends:
            self.wait_until_goes_on(*each)
        self.assert_refused_tcp(outsider, server, MEMBERS)
        self.start_agents(self.other)
        self.connect(outsider, server, MEMBERS)
        self.wait_until_cut(*ends)

        self.wait_until_goes_on(*between)
        self.neutron.request('DELETE', 'ports/' + guest.port['id'])
        self.wait_until_cut(*between)

    def tcp(self, port, **fields):
        return self.rule('tcp', port, **fields)

    def delete_rule(self, rule):
        self.neutron.request('DELETE', 'security-group-rules/' + rule)

    def ends(self, client, server, port):
        return hypervisor.End(client), hypervisor.End(server, port)

    def connect(self, *way):
        """Have a guest connect to another one's port; return both ends."""
        client, server = ends = self.ends(*way)
        took = self.wait_until_passes(client, server, client.SYN)
        print('A connection can be made after %.1f s' % took, flush=True)
        self.wait_until_passes(server, client, client.SYN | client.ACK)
        self.wait_until_goes_on(*ends)
        return ends

    def assert_refused_tcp(self, *way):
        """Expect that a guest can not connect to another one's port."""
        client, server = self.ends(*way)
        self.wait_until_refused(client, server, client.SYN)

    def wait_until_goes_on(self, client, server):
        self.wait_until_passes(client, server)
        self.wait_until_passes(server, client)

    def wait_until_cut(self, client, server):
        took = self.wait_until_refused(client, server)
        print('A connection is cut after %.1f s' % took, flush=True)
        self.wait_until_refused(server, client)


class OtherKernelTest(tests_base.TestCase):

    def test_stateful(self):
        missing = (base.Database.missing() or broker.Broker.missing()
                   or hosts.missing_privilege())
        if missing:
            self.cannot_run(missing)
        port = base.free_port()
        there = self.useFixture(cloud.Cloud(port=port))
        done = subprocess.run(
            ['tools/kernel.sh', '--net', _KERNEL, shlex.join([
                sys.executable, '-W', 'ignore', '-m', 'testtools.run',
                '%s.%s' % (StatefulTest.__module__, StatefulTest.__name__)])],
            cwd=tests_base.CHECKOUT, stdin=subprocess.DEVNULL, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            # There an agent takes minutes to load Neutron.
            env=dict(os.environ, TAPMAC_EMULATED='1', TAPMAC_HANG='3000', **{
                cloud.FAR: '%d,%d' % (port, there.queue_port)}))
        self.assertEqual(0, done.returncode, done.stdout)
        print(done.stdout)


def load_tests(loader, tests, pattern):
    """Load what begins all this: it takes some minutes."""
    return base.without(tests, StatefulTest, *(
        () if patience.LONG and base.NEUTRON >= 28 else (OtherKernelTest,)))
