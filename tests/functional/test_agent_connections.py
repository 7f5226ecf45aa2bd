# SPDX-License-Identifier: Apache-2.0

"""Stateful security groups as an agent feeds them, and whom a change cuts.

On kernels with conntrack for bridges; on others such ports are refused.
"""

import dataclasses

from tests import base
from tests import connections
from tests.functional import test_agent_filter
from tests.functional.test_agent_filter import GATEWAY
from tests.functional.test_agent_filter import group
from tests.functional.test_agent_filter import GROUP
from tests.functional.test_agent_filter import ipv4
from tests.functional.test_agent_filter import mac
from tests.functional.test_agent_filter import members
from tests.functional.test_agent_filter import OTHER_GROUP
from tests.functional.test_agent_filter import port
from tests.functional.test_agent_filter import rule
from tests.functional.test_agent_filter import udp
from tests.functional.test_agent_filter import vif
from vif_plug_tapmac.cli import port_view
from vif_plug_tapmac.host import agent_frames
from vif_plug_tapmac.host import agent_names
from vif_plug_tapmac.host import explaining
from vif_plug_tapmac.host import inventory
from vif_plug_tapmac.host import keeping
from vif_plug_tapmac.host.packet import Packet
from vif_plug_tapmac.kernel import agent_connections
from vif_plug_tapmac.kernel import agent_cuts
from vif_plug_tapmac.kernel import conntrack
from vif_plug_tapmac.kernel import nft
from vif_plug_tapmac.wanted import security_groups

_DNS = rule(protocol=17, first=53, last=53)
_NTP = rule(protocol=17, first=123, last=123, number=2)
_OUT = rule('egress', number=3)


def stateful(*its, id=GROUP):
    return security_groups.Group(id, True, its)


class StatefulTestCase(test_agent_filter.AgentTestCase):

    def setUp(self):
        super().setUp()
        if not agent_connections.is_possible():
            self.skipTest(connections.NONE_IN_BRIDGES)
        connections.stay()
        self.start()

    def feed(self, *its, **fields):
        """Have both ports in a group with these rules."""
        applied = self.apply(
            *(port(number, stateful=True) for number in self.NUMBERS),
            groups=(stateful(*its),), **fields)
        self.assertEqual({}, applied['refused'])

    def ask(self, number=1, dport=53):
        """Have a flow from the wire to a guest."""
        self.assertEqual({number}, self.send(0, udp(0, number, dport, 4000)))
        self.assertEqual({0}, self.send(number, udp(number, 0, 4000, dport)))

    def goes_on(self, number=1, dport=53):
        """Return whether the wire still gets through, in such a flow."""
        return bool(self.send(0, udp(0, number, dport, 4000)))

    def answered(self, number=1, dport=53):
        return bool(self.send(number, udp(number, 0, 4000, dport)))

    def found(self, number=1):
        zone, = self.zones().values()
        return len(conntrack.connections(zone, [ipv4(number)]))

    def zones(self):
        with nft.Session() as session:
            return agent_connections.zones(session)

    def generation(self):
        with nft.Session() as session:
            return session.generation()


class FeedingTest(StatefulTestCase):

    def test_answers_pass_and_nothing_else(self):
        self.feed(_DNS)
        self.assertEqual(set(), self.send(1, udp(1, 0, 4000, 53)))
        self.ask()
        self.assertEqual(set(), self.send(1, udp(1, 0, 4001, 53)))
        self.assertEqual(set(), self.send(0, udp(0, 1, 54, 4000)))
        self.feed(_OUT)
        self.assertEqual(set(), self.send(0, udp(0, 1, 4000, 123)))
        self.assertEqual({0}, self.send(1, udp(1, 0, 123, 4000)))
        self.assertEqual({1}, self.send(0, udp(0, 1, 4000, 123)))

    def test_again_changes_nothing(self):
        self.feed(_DNS, _OUT)
        before = self.generation()
        self.feed(_DNS, _OUT)
        self.assertEqual(before, self.generation())

    def test_connections_go_on_when_rules_were_flushed(self):
        self.feed(_DNS)
        self.ask()
        zones = self.zones()
        self.assertEqual({base.BRIDGE}, set(zones))
        self.flush()
        self.feed(_DNS, is_all=True)
        self.assertEqual(zones, self.zones())
        self.assertTrue(self.answered())
        self.assertEqual(1, self.found())

    def test_one_is_stateless(self):
        self.apply(port(1, stateful=True), port(2, groups=(OTHER_GROUP,)),
                   groups=(stateful(_OUT), group(_DNS, _OUT, id=OTHER_GROUP)))
        self.assertEqual({2}, self.send(1, udp(1, 2, 53, 4000)))
        self.assertEqual({1}, self.send(2, udp(2, 1, 4000, 53)))
        self.assertEqual({0}, self.send(2, udp(2, 0, 53, 4000)))
        self.assertEqual(set(), self.send(0, udp(0, 2, 4000, 53)))
        self.assertEqual(1, connections.count())

    def test_operator_is_told(self):
        """Which there are, and what belongs to one."""
        self.feed(_DNS)
        self.ask()
        seen = inventory.read(self.options)
        tap, = seen.find(vif(1).vif_name)
        passes, _, told = port_view.describe(seen, tap, agent_names.NONE,
                                             connections=True)
        self.assertEqual('what its security groups say, and answers', passes)
        found, = told.value
        self.assertEqual(
            ('UDP', GATEWAY, ipv4(1), 4000, 53, True),
            tuple(found[key] for key in (
                'Protocol', 'Source', 'Destination', 'Source port',
                'Destination port', 'Answered')))
        there = keeping.agent_port(tap)
        for sport, passes in (53, True), (54, False):
            packet = Packet(bytes(udp(1, 0, 4000, sport)), tap.link.index,
                            tap.link.group)
            packet = dataclasses.replace(
                packet, state=agent_frames.state(packet, there))
            sets = {**agent_frames.sets(there, tap.link.index,
                                        tap.link.group)}
            rules = agent_frames.rules(there)
            rules.entries = ['egress_of_guests']
            self.assertEqual(passes, explaining.explain(
                packet, sets, rules).passes)
            self.assertEqual(passes, bool(self.send(
                1, udp(1, 0, 4000, sport))))


class CuttingTest(StatefulTestCase):

    def test_a_rule_goes_and_one_comes(self):
        self.feed(_DNS)
        self.ask(1)
        self.ask(2)
        # What only comes cuts nobody, however long he says nothing.
        self.feed(_DNS, _NTP)
        self.assertTrue(self.answered())
        self.assertEqual(1, self.found())
        self.ask(dport=123)
        self.feed(_NTP)
        self.assertFalse(self.answered())
        self.assertFalse(self.goes_on())
        self.assertFalse(self.goes_on(2))
        self.ask(dport=123)

    def test_members_that_go(self):
        it = rule(protocol=17, first=53, last=53,
                  remote_set='group:' + OTHER_GROUP)
        other = '192.0.2.253'
        self.feed(it, members=(members(GATEWAY + '/32', other + '/32'),))
        self.ask()
        theirs = udp(0, 1, 53, 4000)
        theirs['IP'].src = other
        answer = udp(1, 0, 4000, 53)
        answer['IP'].dst = other
        self.assertEqual({1}, self.send(0, theirs))
        self.apply(members=(members(other + '/32'),))
        self.assertFalse(self.answered())
        self.assertFalse(self.goes_on())
        self.assertEqual({0}, self.send(1, answer))
        self.assertEqual(1, self.found())

    def test_a_port_in_more_groups_and_in_fewer(self):
        self.feed(_DNS)
        self.ask()
        self.ask(2)
        self.apply(port(1, groups=(GROUP, OTHER_GROUP), stateful=True),
                   groups=(stateful(_NTP, id=OTHER_GROUP),))
        self.assertTrue(self.answered())
        self.assertEqual(1, self.found())
        self.apply(port(1, groups=(OTHER_GROUP,), stateful=True))
        self.assertFalse(self.answered())
        self.assertFalse(self.goes_on())
        self.assertTrue(self.answered(2))

    def test_an_address_that_goes(self):
        self.feed(_DNS)
        self.ask()
        self.apply(port(1, stateful=True, own=(
            (mac(1), '192.0.2.77/32'),)))
        self.assertEqual(0, self.found())

    def test_a_port_that_goes(self):
        self.feed(_DNS)
        self.ask()
        self.ask(2)
        self.apply(gone=(vif(1).id,))
        self.assertEqual(0, self.found())
        self.assertTrue(self.answered(2))


class LookingTest(test_agent_filter.AgentTestCase):
    """All rules are read for that only where something goes."""

    def setUp(self):
        super().setUp()
        self.looked = []
        look = agent_cuts._look
        self.patch(agent_cuts, '_look', lambda *about: (
            self.looked.append(about) or look(*about)))

    def looks(self, *applied, **fields):
        """Return whether anybody has looked because of this change."""
        del self.looked[:]
        self.assertEqual({}, self.apply(*applied, **fields)['refused'])
        return bool(self.looked)

    def test_who_only_adds_does_not_look(self):
        self.start()
        of = rule(protocol=17, first=53, last=53,
                  remote_set='group:' + OTHER_GROUP)
        its, far = (group(of),), (members('198.51.100.1/32'),)
        # What is for all ports is made with the first.
        self.looks(port(1), groups=its, members=far)
        for fields in (
                {'groups': its}, {'members': far},
                {'members': (members('198.51.100.1/32', '198.51.100.9/32'),)}):
            self.assertFalse(self.looks(port(1), **fields), fields)
        self.assertFalse(self.looks(port(1), port(2)))
        self.assertTrue(self.looks(members=far))
        self.assertTrue(self.looks(groups=(group(),)))
        self.assertTrue(self.looks(gone=(vif(2).id,)))


class RefusedTest(test_agent_filter.AgentTestCase):

    def test_stateful_where_the_kernel_knows_no_connections(self):
        if agent_connections.is_possible():
            self.skipTest('this kernel has conntrack for bridges')
        self.start()
        applied = self.apply(port(1, stateful=True), port(2),
                             groups=(group(_DNS),))
        self.assertEqual((vif(2).id,), tuple(applied['ports']))
        self.assertIn('NF_CONNTRACK_BRIDGE', applied['refused'][vif(1).id])
        self.assertEqual(set(), self.elements_of(1))
