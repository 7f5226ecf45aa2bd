# SPDX-License-Identifier: Apache-2.0

"""A host with many guests: what an agent does that is started there anew."""

import itertools
import os
import pathlib
import threading
import time
import typing

from benchmarks import fleet
from tests.neutron import cloud
from tests.neutron import crowd
from tests.neutron import hypervisor
from tests import patience
from vif_plug_tapmac.kernel import nft

MEMBERS, OTHERS = hypervisor.MEMBERS, hypervisor.OTHERS


def load_tests(loader, tests, pattern):
    return cloud.load_tests(tests, FleetTest, RestartTest, long=[ChurnTest])


class FleetTest(cloud.CloudTestCase):
    """The benchmark of many hosts, with two."""

    def test_all_is_counted(self):
        self.only_in_full()
        self.patch(fleet, 'QUIET', 0.5)
        with fleet.Fleet(self.neutron, 'tapmac', list(cloud.HOSTS), 2,
                         spread=0) as hosts:
            hosts.run(also_queue=False)
        self.assertEqual(6, len(hosts.rows))
        for row in hosts.rows:
            for name in 'messages', 'octets', 'queries', 'server':
                self.assertLess(0, getattr(row.cost, name), row)


class Talk:
    """Guests that speak to each other all the time, and lose nothing.

    Each speaks to the next one, and the last one to the first; one thread
    does it, so that no queue is ever full.

    :param nics: members of a group, whose rules are in force
    """

    _PAUSE = 0.001
    #: After how many frames it is looked what has come.
    _AT_ONCE = 50

    def __init__(self, nics):
        self._ring = list(zip(nics, [*nics[1:], nics[0]]))
        self._sent = {nic: set() for nic in nics}
        self._stop = threading.Event()

    def __enter__(self):
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc_info):
        self._stop.set()
        self._thread.join()

    def lost(self):
        """Return how many never came; nothing is under way any more."""
        return sum(len(sent - nic.got()) for nic, sent in self._sent.items())

    def sent(self):
        return sum(map(len, self._sent.values()))

    def _run(self):
        for number, (sender, receiver) in enumerate(
                itertools.cycle(self._ring), 1):
            self._sent[receiver].add(sender.send(receiver, MEMBERS))
            if number % self._AT_ONCE == 0:
                for nic in self._sent:
                    nic.got()
            if self._stop.wait(self._PAUSE):
                return


class Size(typing.NamedTuple):
    """What a process has.

    :param memory: that is resident, in KiB
    """
    memory: int
    descriptors: int
    threads: int

    @classmethod
    def of(cls, pid: int) -> 'Size':
        told = dict(line.split(':', 1) for line in pathlib.Path(
            '/proc/%d/status' % pid).read_text().splitlines())
        return cls(int(told['VmRSS'].split()[0]),
                   len(os.listdir('/proc/%d/fd' % pid)), int(told['Threads']))


class ChurnTest(hypervisor.HypervisorTestCase):

    #: In seconds, after which both have seen all that there is to see.
    _SETTLED = 300

    def test_guests_come_and_go(self):
        """The agent and its daemon are no larger for it.

        An hour of it in the long form, or TAPMAC_CHURN seconds.
        """
        self.group_id, self.others = self.members(), self.outsiders()
        self.start_agents(self.other)
        self.stays = self.guest(self.other, self.group_id)
        self.wait_until_active(self.stays)
        seconds = int(os.environ.get('TAPMAC_CHURN', '3600'))
        before = self.churn(self._SETTLED)
        after = self.churn(seconds - self._SETTLED)
        for one, other in zip(before, after):
            # What is done at this moment needs some.
            self.assertLess(other.descriptors, one.descriptors + 5)
            self.assertLess(other.threads, one.threads + 5)
            self.assertLess(other.memory, one.memory * 1.05)

    def churn(self, seconds):
        """Have guests come and go; return the sizes of both processes then."""
        began, done, told = time.monotonic(), 0, -60
        while time.monotonic() < began + seconds:
            self.do_round()
            done += 1
            if time.monotonic() > told + 60:
                told = time.monotonic()
                print('%5d s, %4d rounds: %s' % (
                    told - began, done, self.sizes()), flush=True)
        found = self.sizes()
        print('After %d s and %d rounds: %s' % (
            time.monotonic() - began, done, found), flush=True)
        return found

    def sizes(self):
        return tuple(map(Size.of, self.other.processes()))

    def do_round(self):
        """Have a guest come, others be allowed, and all that go again."""
        port = self.bound_port(self.other, self.group_id)
        nic = hypervisor.Nic(self.other, port)
        self.wait_until_active(nic)
        rule, = self.add_rules(self.group_id, self.udp(OTHERS))
        self.wait_until_passes(self.stays, nic, OTHERS)
        self.update(port, security_groups=[self.others])
        self.neutron.request('DELETE', 'security-group-rules/' + rule)
        self.wait_until_refused(self.stays, nic, MEMBERS)
        nic.close()
        self.neutron.request('DELETE', 'ports/' + port['id'])


class RestartTest(hypervisor.HypervisorTestCase):

    def test_restart_under_traffic(self):
        """Rules are right soon, and nobody notices anything else."""
        self.only_in_full()
        nics, group = self.crowd(patience.amount(0, 40, 1000))
        host = self.other
        with Talk(nics) as talk:
            rule, = self.add_rules(group, self.udp(OTHERS))
            self.wait_until_passes(nics[0], nics[1], OTHERS)
            host.kill_agent()
            self.neutron.request('DELETE', 'security-group-rules/' + rule)
            took = self.restart(host)
            for one, other in itertools.pairwise(nics):
                self.assertFalse(one.reaches(other, OTHERS))
            print('%d ports are as they are to be after their agent was '
                  'started: %s' % (len(nics), took))

            # What is right already is looked at, and left alone.
            host.kill_agent()
            before = self.generation(host)
            took = self.restart(host)
            self.assertEqual(before, self.generation(host))
            print('... where nothing has changed: %s' % took)
        print('%d frames were sent meanwhile' % talk.sent())
        self.assertEqual(0, talk.lost())

    def restart(self, host):
        """Start an agent; return in words how long it took to have all right.

        On a machine that has nothing else to do, that is about as long as it
        had a processor, and those who answered it.
        """
        began = time.time()
        before = fleet.cost(self.neutron, {})
        host.start_agent()
        patience.wait_until(lambda: host.synced() > began,
                            lambda: host.log()[-20000:], 0.05)
        cost = fleet.cost(self.neutron, {}).minus(before)
        agent, daemon = map(fleet.seconds, host.processes())
        return ('%.1f s (processors: agent %.1f s, its daemon %.1f s, Neutron '
                '%.1f s, queue and database %.1f s)' % (
                    host.synced() - began, agent, daemon, cost.server,
                    cost.queue + cost.database))

    def generation(self, host):
        """Return a number that changes with each change of rules."""
        def read():
            with nft.Session() as session:
                return session.generation()
        return host.run(read)

    def crowd(self, count):
        """Return guests on one host that are wired, and their group."""
        group, host = self.members(), self.other
        subnet = self.create('subnet', network_id=self.network['id'],
                             ip_version=4, cidr='10.1.0.0/16',
                             enable_dhcp=False)['id']
        # No port is bound where no agent has ever been.
        self.start_agents(host)
        first = self.start_guest(host, self.port(
            self.network, host.name, security_groups=[group],
            fixed_ips=[{'subnet_id': subnet}]))
        self.wait_until_active(first)
        # To tell Neutron of each that it is up would take a second each. Of
        # those that are elsewhere it is not told.
        host.kill_agent()
        copies = crowd.copies(self.neutron, self.show(first.port), count - 1,
                              lambda number: self.one.name)
        self.addCleanup(crowd.remove, self.neutron, copies)
        nics = [first, *(self.start_guest(host, port) for port in copies)]
        took = self.restart(host)
        print('%d guests that came together are guarded after their agent '
              'was started: %s' % (count, took))
        crowd.move(self.neutron, copies, host.name)
        return nics, group
