# SPDX-License-Identifier: Apache-2.0

"""What a process knows of the table without looking at it.

That is so as long as nobody else has changed rules, which their number of
changes tells; and of what it has put in itself it is what has to be there,
whoever has flushed it.
"""

import typing

from vif_plug_tapmac.kernel import emergency_exit
from vif_plug_tapmac.kernel import filter_state
from vif_plug_tapmac.kernel.filter_steps import Elements
from vif_plug_tapmac.kernel import netlink as nl
from vif_plug_tapmac.kernel import nft
from vif_plug_tapmac.kernel.shields import Shield
from vif_plug_tapmac import mark

#: Instead of the handle of a table that we have made, and not seen since.
MADE = -1


class Plan(typing.NamedTuple):
    """What is to be done in one transaction.

    :param looked: whether the table was seen to be right, or is then
    :param mends: whether more than elements of a table that is right
    :param handle: of the table that all that is remembered is in then
    :param shields: that are in force then
    """
    steps: list[nft.Step]
    looked: bool
    mends: bool
    handle: int | None
    shields: frozenset[Shield] = frozenset()


class Memory:
    """What one process knows; at first, nothing.

    :ivar generation: of the rules that it is known of; None: it may be
        otherwise by now
    :ivar ports: what is in the sets for each index; None: nobody has looked
    :ivar own: the indexes of which we know better than the kernel
    :ivar handle: of the table that these are in
    :ivar closed: what this process has closed: which group TAPs go to whose
        elements nobody knows; None: no one goes, as it is an agent's
    :ivar shields: that are in force
    :ivar exits: who was open by the emergency exit, when it was looked at last
        and there was a table
    """

    def __init__(self) -> None:
        self.generation: int | None = None
        self.ports: dict[int, Elements] | None = None
        self.own: set[int] = set()
        self.handle: int | None = None
        self.closed: dict[int, int | None] = {}
        self.shields: set[Shield] = set()
        self.exits = emergency_exit.NONE

    def closes(self, group: int, open_group: int | None) -> bool:
        """Return whether this process has not closed a group so before."""
        is_new = self.closed.get(group, -1) != open_group
        self.closed[group] = open_group
        return is_new

    def of_agent(self) -> set[int]:
        """Return which of the groups that are closed are an agent's."""
        return {group for group, open_group in self.closed.items()
                if open_group is None}

    def know(self, generation: int | None, planned: Plan) -> None:
        """Remember that what was planned is so."""
        self.handle = planned.handle
        self.generation = generation if planned.looked else None
        self.shields |= planned.shields

    def remember(self, wanted: dict[int, Elements]) -> None:
        """Remember what has been put in, or taken out where that is none."""
        for index, there in wanted.items():
            assert self.ports is not None
            if there:
                self.ports[index] = there
                self.own.add(index)
            else:
                self.ports.pop(index, None)
                self.own.discard(index)

    def doubt(self, session: nft.Session,
              indexes: typing.Iterable[int]) -> None:
        """Remember of indexes what is there, and of all others what was.

        Their elements may be gone, too: then nobody but us knows them.
        """
        self.generation = None
        if self.ports is None:
            return
        there = filter_state.elements(session)
        for index in indexes:
            self.ports.pop(index, None)
            if index in there:
                self.ports[index] = there[index]

    def learn(self, there: dict[int, Elements]) -> None:
        """Remember what is there of others as it is there."""
        self.ports = {**(self.ports or {}), **{
            index: found for index, found in there.items()
            if index not in self.own}}

    def left(self, netlink: nl.Netlink,
             without: int | None) -> dict[int, Elements]:
        """Return what is remembered of TAPs that are there still.

        All else is forgotten, also of those that are an agent's by now.
        """
        assert self.ports is not None
        of_agent = self.of_agent()
        for index, there in list(self.ports.items()):
            link = None if index == without else netlink.get(index)
            found = mark.TapMark.parse(link.alias) if link else None
            # One that has lost its mark is whose it was.
            if link is None or not link.is_tap or link.group in of_agent or (
                    found is not None and found.vif_id not in there.values()):
                del self.ports[index]
                self.own.discard(index)
        return self.ports
