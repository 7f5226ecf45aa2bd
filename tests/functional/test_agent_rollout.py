# SPDX-License-Identifier: Apache-2.0

"""``firewall = agent`` comes to a host full of guests, and goes again.

They speak, and lie, as in test_full_rollout.py. nova-compute starts again
before the agent knows a port, and after it; and again without an agent.
"""

from tests import base
from tests.functional import test_agent_filter as agent
from tests.functional import test_full_rollout
from tests import patience
from vif_plug_tapmac.kernel import agent_elements
from vif_plug_tapmac.kernel import nft
from vif_plug_tapmac import privileged
from vif_plug_tapmac.wanted import security_groups

#: How many ports the agent says something of at once.
_AT_ONCE = 10
_GUESTS = 50
_FORMER = {'full': agent.FILTERED, 'mac': agent.UNFILTERED}


class Talk(test_full_rollout.TalkAndLies):
    """The wire speaks IPv4, too, or nothing of it passes."""

    def _speak(self, guest, receiver, words):
        if (guest, receiver) in self._headers:
            super()._speak(guest, receiver, words)
        else:
            guest.write(test_full_rollout.header(
                guest, receiver, agent.GATEWAY) + words)


class AgentRolloutTest(test_full_rollout.RolloutTestCase):

    TALK = Talk

    def wait(self):
        self.talk.wait_for(2 * self.talk.round)

    def start_nova(self, mode, firewall):
        """Have another daemon plug all guests, one after the other."""
        base.privsep.vif_plug.stop()
        self.configure(anti_spoofing=mode, firewall=firewall)
        self.start_daemon()
        for vif in self.vifs:
            self.plug(vif)

    def groups(self):
        return {self.host.link(vif.vif_name).group for vif in self.vifs}

    def feed(self):
        ports = [agent.port(number) for number in range(1, _GUESTS + 1)]
        for start in range(0, _GUESTS, _AT_ONCE):
            change = security_groups.Change(
                tuple(ports[start:start + _AT_ONCE]),
                groups=(agent.group(*agent.EVERYTHING),),
                # As an agent begins that starts; it finds nothing here.
                is_all=start == 0)
            applied = privileged.apply_filter(change.as_fields())
            self.assertEqual(_AT_ONCE, len(applied['ports']), applied)

    def fed(self):
        """Return of how many ports there is something of an agent."""
        with nft.Session() as session:
            there = agent_elements.there(session)
            return {len(there[name]) for name in agent_elements.ONLY_FED
                    if there[name]}

    def roll(self, mode):
        held = range(_GUESTS) if mode == 'full' else ()
        self.start_nova(mode, 'none')
        self.start_talk()
        self.talk.hold(held)
        self.wait()
        for _ in range(patience.amount(1, 2, 10)):
            self.start_nova(mode, 'agent')
            self.assertEqual({_FORMER[mode]}, self.groups())
            self.wait()
            self.feed()
            self.talk.hold(range(_GUESTS))
            self.assertEqual({agent.AGENT}, self.groups())
            self.wait()
            self.start_nova(mode, 'agent')
            self.wait()
            self.assertEqual({agent.AGENT}, self.groups())
            self.assertEqual({_GUESTS}, self.fed())
            if mode != 'full':
                self.talk.release(range(_GUESTS))
            self.start_nova(mode, 'none')
            self.assertEqual({_FORMER[mode]}, self.groups())
            self.assertEqual(set(), self.fed())
            self.wait()
        sent, received = self.talk.end()
        self.assertEqual(0, sent - received, 'of %d' % sent)
        of_held, others = self.talk.lies
        self.assertEqual(0, of_held)
        self.assertEqual(mode != 'full', others > 0)

    def test_full(self):
        self.roll('full')

    def test_mac(self):
        self.roll('mac')
