# SPDX-License-Identifier: Apache-2.0

"""Each system call of what an agent has done fails, or is the last one.

What there is for ports, groups and members then is what there was, or what
there is to be, and never a mixture.
"""

from tests import base
from tests import faults
from tests.faults import test_steps
from tests.functional import test_agent_filter as agent
from tests import patience
from vif_plug_tapmac import exception
from vif_plug_tapmac.kernel import agent_elements
from vif_plug_tapmac.kernel import filter_table
from vif_plug_tapmac.kernel import netlink as nl
from vif_plug_tapmac.kernel import nft
from vif_plug_tapmac.kernel import nft_sets
from vif_plug_tapmac.kernel import source_filter
from vif_plug_tapmac import privileged
from vif_plug_tapmac.wanted import security_groups

#: Attributes of a rule. Source: include/uapi/linux/netfilter/nf_tables.h
_CHAIN, _EXPRESSIONS, _COMMENT = 2, 4, 7
#: What begins a transaction, and what has a TAP join the group.
_CHANGES = 'netfilter 0x10', 'RTM_NEWLINK'


def port(**fields):
    return agent.port(1, vif_id=base.VIF_ID, tap=base.TAP,
                      mac=base.GUEST_MAC, **fields)


_FORMER = security_groups.Change(
    (port(own=((base.GUEST_MAC, '192.0.2.1/32'),)),),
    groups=(agent.group(*agent.EVERYTHING), agent.group(
        agent.rule(remote_set='group:' + agent.OTHER_GROUP),
        id=agent.OTHER_GROUP)),
    members=(agent.members('10.0.0.0/8', '192.0.2.7/32'),), is_all=True)
_LATER = security_groups.Change(
    (port(own=((base.GUEST_MAC, '192.0.2.0/25'),),
          groups=(agent.GROUP, agent.OTHER_GROUP)),),
    groups=(agent.group(agent.EVERYTHING[0]),),
    members=(agent.members('10.1.0.0/16'),))


class AgentStepsTestCase(test_steps.StepsTestCase):
    """What an agent says, by a change from one state to the other."""

    FORMER, LATER = _FORMER, _LATER

    # There is nothing to be moved, or to be removed.
    ONLY_IF_TRUE = (('RTM_NEWLINK', 'ENODEV'), ('RTM_DELNEIGH', 'ENOENT'))

    def start_anew(self):
        super().start_anew()
        # It differs each time: so all is made anew each time.
        return [[], object()]

    def call(self):
        applied = privileged.apply_filter(self.LATER.as_fields())
        for why in applied['refused'].values():
            raise exception.TapMacError(why)
        assert applied['ports'] == (base.VIF_ID,), applied

    def read_back(self):
        """Return what is there for the port, and its link group."""
        with nft.Session() as session:
            rules = [(told.text(_CHAIN), told.octets(_EXPRESSIONS),
                      told.octets(_COMMENT))
                     for told in map(nft.read, session.rules(
                         filter_table.NAME, None))]
            own = [(name, key[0][4:], element.comment, element.data)
                   for name, some in agent_elements.there(session).items()
                   for key, element in some.items()]
            members = [(name, nft_sets.elements(
                session, filter_table.NAME, name))
                for name in nft_sets.names(session, filter_table.NAME)
                if name.startswith('members')]
        return ((sorted(rules, key=repr), sorted(own, key=repr),
                 sorted(members)), self.host.link(base.TAP).group)

    def assert_complete(self):
        there, group = self.read_back()
        self.assertEqual(self.complete[0], there)
        self.assertEqual(agent.AGENT, group)


class FeedTest(AgentStepsTestCase):

    def prepare(self):
        with nft.Session() as session:
            if session.table(filter_table.NAME):
                session.transact('', [nft.delete_table(filter_table.NAME)])
        self.configure(firewall='none', anti_spoofing='full')
        self.plug(base.make_vif(addresses=['192.0.2.1']))
        privileged.apply_filter(self.FORMER.as_fields())
        self.configure(firewall='agent')
        self.former = self.read_back()

    def learn(self):
        # Most of hundreds of steps only look.
        steps = super().learn()
        return [place for number, place in enumerate(steps)
                if patience.LONG or place[0].endswith(_CHANGES)
                or number % patience.amount(80, 30, 1) == 0]

    def assert_nothing_in_between(self, seen, before):
        there, group = self.read_back()
        self.assertIn(there, (self.former[0], self.complete[0]))
        if group == agent.AGENT:
            self.assertEqual(self.complete[0], there)

    def test_it(self):
        self.inject_all()


#: MACs of pairs, and of nobody.
_MACS = _PAIR, _OTHER, _STRANGER = (
    '00:00:5e:00:01:07', '00:00:5e:00:01:08', '52:54:00:00:00:99')


def _with(*macs, **fields):
    return security_groups.Change((port(own=(
        (base.GUEST_MAC, '192.0.2.1/32'),
        *((each, '192.0.2.9/32') for each in macs)), **fields),),
        groups=(agent.group(*agent.EVERYTHING),), is_all=True)


class GuardTest(AgentStepsTestCase):
    """What keeps a port to MACs beside the rules lets no more pass than they.

    So it is narrower first, and wider last.
    """

    def prepare(self):
        with nft.Session() as session:
            if session.table(filter_table.NAME):
                session.transact('', [nft.delete_table(filter_table.NAME)])
        self.configure(firewall='agent')
        self.plug()
        privileged.apply_filter(self.FORMER.as_fields())
        self.former = self.read_back()

    def learn(self):
        return [place for place in test_steps.StepsTestCase.learn(self)
                if place[0].startswith(('RTM_NEW', 'RTM_DEL'))
                or place[0].endswith(_CHANGES)]

    def lets_pass(self):
        """Return which MACs the bridge may learn, with or without rules."""
        link = self.host.link(base.TAP)
        if link.locked:
            return {base.GUEST_MAC}
        with nl.Netlink() as netlink:
            found = source_filter.sources(netlink, link)
        return {base.GUEST_MAC, *_MACS} if found is None else set(found)

    def allowed(self):
        """Return which the rules take."""
        with nft.Session() as session:
            there = agent_elements.there(session)
        if there['open_ports']:
            return {base.GUEST_MAC, *_MACS}
        return {key[0][4:10].hex(':') for key in there['guest_mac']}

    def assert_nothing_in_between(self, seen, before):
        self.assertIn(self.read_back()[0], (self.former[0],
                                            self.complete[0]))
        self.assertLessEqual(self.lets_pass(), self.allowed())

    def assert_complete(self):
        super().assert_complete()
        self.assertEqual(self.allowed(), self.lets_pass())
        link = self.host.link(base.TAP)
        self.assertEqual(link.locked, not link.learning)
        with nl.Netlink() as netlink:
            entry = netlink.fdb_entry(self.host.link(base.BRIDGE),
                                      base.GUEST_MAC)
        self.assertEqual(link.locked, bool(entry and entry.fixed))

    def report(self, injected):
        self.assertGreater(injected, 0)
        faults.tell(self, '%d faults injected' % injected)

    def change(self, former, later):
        self.FORMER, self.LATER = former, later
        self.inject_all()

    def test_unlocking(self):
        self.change(_with(), _with(_PAIR))

    def test_locking(self):
        self.change(_with(_PAIR), _with())

    def test_another_pair(self):
        self.change(_with(_PAIR), _with(_OTHER))

    def test_opening(self):
        self.change(_with(_PAIR), _with(is_open=True))

    def test_closing(self):
        self.change(_with(is_open=True), _with(_PAIR))

    def test_locking_what_was_open(self):
        self.change(_with(is_open=True), _with())
