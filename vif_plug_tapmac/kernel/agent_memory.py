# SPDX-License-Identifier: Apache-2.0

"""What a process remembers of what an agent has said, and of the rest.

Of an agent's part that is what was done; of what others have in the table, it
is what was there when it was looked at last. With that the table can be made
anew by who did not make all that was in it.
"""

import typing

from vif_plug_tapmac.kernel import agent_table
from vif_plug_tapmac.kernel import emergency_exit
from vif_plug_tapmac.kernel.emergency_exit import Exits
from vif_plug_tapmac.kernel import filter_state
from vif_plug_tapmac.kernel.filter_steps import Elements
from vif_plug_tapmac.kernel import filter_table as table
from vif_plug_tapmac.kernel import netlink as nl
from vif_plug_tapmac.kernel import nft
from vif_plug_tapmac.kernel import shields
from vif_plug_tapmac.kernel.shields import Shield
from vif_plug_tapmac.wanted.port import Groups
from vif_plug_tapmac.wanted.security_groups import Change
from vif_plug_tapmac.wanted.security_groups import Group
from vif_plug_tapmac.wanted.security_groups import Members
from vif_plug_tapmac.wanted.security_groups import MembersKey
from vif_plug_tapmac.wanted.security_groups import Port


class Others(typing.NamedTuple):
    """What is in the table that no agent has said.

    :param groups: the link groups that are closed
    :param of_agent: which of them pass only what an agent lets pass
    :param ports: what guests may speak from that no agent knows
    :param shields: who is kept from this host
    :param exits: who is open by the emergency exit
    """
    groups: frozenset[int] = frozenset()
    of_agent: frozenset[int] = frozenset()
    ports: dict[int, Elements] = {}
    shields: tuple[Shield, ...] = ()
    exits: Exits = emergency_exit.NONE

    def putting(self, session: nft.Session) -> list[nft.Step]:
        """Return what has shields and exits again in a table made anew."""
        return [*(shields.putting(session, self.shields)
                  if self.shields else []),
                *emergency_exit.additions(self.exits,
                                          emergency_exit.there(session))]

    def closable(self, netlink: nl.Netlink) -> set[int]:
        """Return the groups that may be closed so that no guest is cut off.

        Those are not of which a TAP is not known: its own plug does that.
        """
        unknown = set() if self.groups <= self.of_agent else {
            link.group for link in netlink.links()
            if link.is_tap and link.index not in self.ports}
        return set(self.of_agent | self.groups - unknown)


class Memory:
    """What one process knows of one network namespace.

    :ivar handle: of the table that it has had all in; None: of none
    :ivar knows_all: whether it was told all that is to be there
    :ivar groups: the link groups of our TAPs; None: it was told nothing yet
    """

    def __init__(self) -> None:
        self.handle: int | None = None
        self.knows_all = False
        self.groups: Groups | None = None
        self.others = Others()
        self._ports: dict[str, tuple[int, Port]] = {}
        self._groups: dict[str, Group] = {}
        self._members: dict[MembersKey, Members] = {}

    @property
    def indexes(self) -> dict[int, Port]:
        """The ports that are known, by the index of each TAP."""
        return dict(self._ports.values())

    def learn(self, change: Change, ports: typing.Mapping[int, Port],
              groups: Groups) -> None:
        """Remember a change that was done.

        :param ports: of these it was, by the index of each TAP
        """
        self.groups = groups
        if change.is_all:
            self.knows_all = True
            for each in self._ports, self._groups, self._members:
                each.clear()
        for name in change.gone:
            self._ports.pop(name, None)
        for name in change.gone_groups:
            self._groups.pop(name, None)
        for key in change.gone_members:
            self._members.pop(key, None)
        self._ports |= {port.vif_id: (index, port)
                        for index, port in ports.items()}
        self._groups |= {each.id: each for each in change.groups}
        self._members |= {each.key: each for each in change.members}

    def change(self, ports: typing.Iterable[Port], all_groups: bool) -> Change:
        """Return the change that has ports as they were.

        :param all_groups: and security groups and members
        """
        return Change(tuple(ports), groups=tuple(
            self._groups.values()) if all_groups else (), members=tuple(
                self._members.values()) if all_groups else ())

    def look(self, session: nft.Session, at_ports: bool) -> None:
        """Remember what others have in the table, if there is a whole one.

        Not if it changes meanwhile: then that is heard, and it looks again.

        :param at_ports: also what guests may speak from, where no agent says
            it: there may be a thousand
        """
        generation = session.generation()
        found = session.table(table.NAME)
        if (found is None or found.handle != self.handle
                or not all(filter_state.has_canary(session, each)
                           for each in table.PORT_SETS)):
            return
        groups, of_agent = (
            frozenset(filter_state.groups_in(session, name))
            for name in (table.GROUPS, agent_table.GROUPS))
        ports = {} if groups <= of_agent else self.others.ports
        if at_ports and not groups <= of_agent:
            known = self.indexes
            ports = {index: there for index, there in filter_state.elements(
                session).items() if index not in known}
        others = Others(groups, of_agent, ports,
                        tuple(shields.there(session)),
                        emergency_exit.there(session))
        # Or a part of this may have been flushed meanwhile.
        if session.generation() == generation:
            self.others = others
