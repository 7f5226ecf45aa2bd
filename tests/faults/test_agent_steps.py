# SPDX-License-Identifier: Apache-2.0

"""Each system call of what an agent has done fails, or is the last one.

What there is for ports, groups and members then is what there was, or what
there is to be, and never a mixture.
"""

from tests import base
from tests.faults import test_steps
from tests.functional import test_agent_filter as agent
from tests import patience
from vif_plug_tapmac.kernel import agent_elements
from vif_plug_tapmac.kernel import filter_table
from vif_plug_tapmac.kernel import nft
from vif_plug_tapmac.kernel import nft_sets
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


class FeedTest(test_steps.StepsTestCase):

    # There is nothing to be moved.
    ONLY_IF_TRUE = (('RTM_NEWLINK', 'ENODEV'),)

    def prepare(self):
        with nft.Session() as session:
            if session.table(filter_table.NAME):
                session.transact('', [nft.delete_table(filter_table.NAME)])
        self.configure(firewall='none', anti_spoofing='full')
        self.plug(base.make_vif(addresses=['192.0.2.1']))
        privileged.apply_filter(_FORMER.as_fields())
        self.configure(firewall='agent')
        self.former = self.read_back()

    def start_anew(self):
        super().start_anew()
        # It differs each time: so all is made anew each time.
        return [[], object()]

    def learn(self):
        # Most of hundreds of steps only look.
        steps = super().learn()
        return [place for number, place in enumerate(steps)
                if patience.LONG or place[0].endswith(_CHANGES)
                or number % patience.amount(80, 30, 1) == 0]

    def call(self):
        applied = privileged.apply_filter(_LATER.as_fields())
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

    def assert_nothing_in_between(self, seen, before):
        there, group = self.read_back()
        self.assertIn(there, (self.former[0], self.complete[0]))
        if group == agent.AGENT:
            self.assertEqual(self.complete[0], there)

    def assert_complete(self):
        there, group = self.read_back()
        self.assertEqual(self.complete[0], there)
        self.assertEqual(agent.AGENT, group)

    def test_it(self):
        self.inject_all()
