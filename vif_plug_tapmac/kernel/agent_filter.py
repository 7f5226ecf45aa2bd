# SPDX-License-Identifier: Apache-2.0

"""What an agent says of ports and their security groups, put into the kernel.

All of a call is one transaction, on condition that nobody has changed rules
since they were looked at, or nothing. Then it is looked at again: what would
have to be done now is nothing. State is the kernel's alone: whoever is killed
at any point, or comes new, finds out what there is by asking.

Only after that a TAP joins the agent's link group, from which on nothing else
passes: so no guest is cut off that passed before. What the bridge keeps a port
to is narrower before, where it becomes so, and wider after all else.
"""

import contextlib
import typing

from vif_plug_tapmac import exception
from vif_plug_tapmac.kernel import agent_arrivals
from vif_plug_tapmac.kernel import agent_chains
from vif_plug_tapmac.kernel import agent_connections
from vif_plug_tapmac.kernel import agent_cuts
from vif_plug_tapmac.kernel import agent_elements
from vif_plug_tapmac.kernel import agent_guard
from vif_plug_tapmac.kernel import agent_memory
from vif_plug_tapmac.kernel import agent_table
from vif_plug_tapmac.kernel import emergency_exit
from vif_plug_tapmac.kernel import filter_state
from vif_plug_tapmac.kernel import filter_steps
from vif_plug_tapmac.kernel import filter_table as table
from vif_plug_tapmac.kernel import filtered_group
from vif_plug_tapmac.kernel import guest_filter
from vif_plug_tapmac.kernel import lasting_session
from vif_plug_tapmac.kernel.link import Link
from vif_plug_tapmac.kernel import netlink as nl
from vif_plug_tapmac.kernel import nft
from vif_plug_tapmac.kernel.nft_sets import Element
from vif_plug_tapmac import mark
from vif_plug_tapmac.wanted.port import Groups
from vif_plug_tapmac.wanted.security_groups import Change
from vif_plug_tapmac.wanted.security_groups import Port

_STEP = 'having guests kept to their security groups'
#: All threads of this process have one session, and one memory of what it did
#: there.
sessions = lasting_session.LastingSession()
_memory = agent_memory.Memory()


class Applied(typing.NamedTuple):
    """What was done.

    :param ports: the VIFs of those ports that are as they are to be
    :param refused: why it is not so with the others, by their VIF
    :param needs_all: whether nothing was done, because the table was made
        anew since the last change, or has to be: so the change must be all
    """
    ports: tuple[str, ...]
    refused: dict[str, str]
    needs_all: bool = False


def apply(change: Change, groups: Groups, moves: bool) -> Applied:
    """Have the table as a change says.

    Of a port only where its TAP is here, in one of our link groups, and has
    our mark for this VIF.

    :param groups: the link groups of our TAPs
    :param moves: whether their TAPs join the agent's group then
    :raises KernelRefused: this kernel cannot do that, or others change rules
        all the time; the rules are as they were
    :raises VerifyFailed: it is not so after it was done
    """
    with nl.Netlink() as netlink:
        links, refused = _find(netlink, change.ports, groups)
        with sessions.lock:
            memory = _current()
            work = _Work(netlink, change, links, refused, groups, memory)
            done = work.run()
            if not done.needs_all:
                memory.learn(change, work.ports, groups)
        if done.needs_all:
            return done
        wired = [port for port in change.ports if port.vif_id in done.ports]
        for port in wired:
            link = links[port.vif_id]
            if moves and link.group != groups.agent:
                _move(netlink, link, port, groups)
            try:
                _guard(netlink, link, port, groups)
            except exception.TapMacError as error:
                refused[port.vif_id] = str(error)
    return done._replace(ports=tuple(
        each for each in done.ports if each not in refused))


def _find(netlink: nl.Netlink, ports: typing.Iterable[Port], groups: Groups,
          ) -> tuple[dict[str, Link], dict[str, str]]:
    """Return the TAP of each port by its VIF, and why others have none."""
    links: dict[str, Link] = {}
    refused: dict[str, str] = {}
    for port in ports:
        try:
            link = netlink.find(port.tap)
        except exception.TapMacError as error:
            refused[port.vif_id] = str(error)
            continue
        why = _why_not(link, port, groups)
        if link is not None and why is None:
            links[port.vif_id] = link
        else:
            refused[port.vif_id] = why or ''
    return links, refused


def _why_not(link: Link | None, port: Port, groups: Groups) -> str | None:
    if link is None:
        return '%s is not here' % port.tap
    found = mark.TapMark.parse(link.alias)
    if not link.is_tap or link.group not in groups or found is None:
        return '%s is no TAP of tapmac' % port.tap
    if found.vif_id != port.vif_id:
        return '%s is the TAP of VIF %s' % (port.tap, found.vif_id)
    return None


def _move(netlink: nl.Netlink, link: Link, port: Port,
          groups: Groups) -> None:
    """Have a TAP in the agent's link group, if it is still what it was."""
    seen = netlink.get(link.index, link.name)
    if seen is not None and _why_not(seen, port, groups) is None:
        filtered_group.move(netlink, seen, groups.agent)


def _guard(netlink: nl.Netlink, link: Link, port: Port,
           groups: Groups) -> None:
    """Have the bridge keep a port to what it shall, if nft keeps it, too."""
    kept = agent_guard.wanted(port)
    if agent_guard.is_so(link, kept):
        return
    seen = netlink.get(link.index, link.name)
    if (seen is not None and _why_not(seen, port, groups) is None
            and seen.group == groups.agent):
        agent_arrivals.have(netlink, seen, kept)


def _current() -> agent_memory.Memory:
    """Return what this process knows of the namespace of this thread."""
    global _memory
    _, is_another = sessions.get()
    if is_another:
        _memory = agent_memory.Memory()
    return _memory


def heal(indexes: typing.Collection[int] | None,
         catch_up: typing.Callable[[], None]) -> bool:
    """Have it again as it was done, if somebody else has changed it.

    A TAP that is not in the agent's group any more is left as it is: it is
    somebody else's business by now, or gone.

    :param indexes: of the TAPs whose elements may be others; None: anything
        may be
    :param catch_up: remembers what others have done until now; called before
        anything of it is had in a table that is made anew
    :returns: whether anything had to be done
    :raises KernelRefused, VerifyFailed: as :func:`apply`
    """
    with nl.Netlink() as netlink, sessions.lock:
        memory = _current()
        if memory.groups is None:
            return False
        known = memory.indexes
        work = _Healing(netlink, memory.change(
            [port for index, port in known.items()
             if indexes is None or index in indexes], indexes is None),
            memory.groups, memory, catch_up)
        work.run()
        return work.did


def look(at_ports: bool) -> None:
    """Remember what others have in the table; see :class:`Memory`."""
    memory, (session, _) = _current(), sessions.get()
    memory.look(session, at_ports)


def hear_exit(name: str, elements: typing.Iterable[Element],
              is_gone: bool) -> None:
    """Remember who was opened or closed by hand; see :mod:`emergency_exit`."""
    memory = _current()
    memory.others = memory.others._replace(exits=emergency_exit.after(
        memory.others.exits, name, elements, is_gone))


def indexes() -> set[int]:
    """Return the indexes of the TAPs that this process has fed."""
    return set(_current().indexes)


def port() -> int:
    """Return by which number the kernel tells who has done that."""
    return sessions.get()[0].port


def has_table() -> bool:
    return sessions.get()[0].table(table.NAME) is not None


class _Work:
    """One change, and where it is to be done.

    :ivar ports: those of the change that can be had, by the index of each TAP
    :ivar did: whether anything had to be done
    """

    heals = False

    def __init__(self, netlink: nl.Netlink, change: Change,
                 links: dict[str, Link], refused: dict[str, str],
                 groups: Groups, memory: agent_memory.Memory) -> None:
        self._netlink, self._change, self._groups = netlink, change, groups
        self._links, self._refused = links, refused
        self._memory, self._cuts = memory, agent_cuts.Cuts(change)
        self._needs_all = self._is_anew = self.did = False
        self.ports: dict[int, Port] = {}
        self._ends: list[nft.Step] = []
        self._first: agent_elements.Sets | None = None
        self._last: agent_elements.Sets = {}
        self._narrowing = agent_guard.Narrowing(netlink, groups.agent)

    def run(self) -> Applied:
        session, _ = sessions.get()
        try:
            self.did = sessions.settle(_STEP, self._plan)
        except exception.TapMacError:
            self._narrowing.undo()
            raise
        if self._needs_all:
            return Applied((), self._refused, True)
        if not self._is_anew or self._change.is_all or self._memory.knows_all:
            found = session.table(table.NAME)
            self._memory.handle = None if found is None else found.handle
        for step in self._ends:
            # Somebody else may look there still: then it stays.
            with contextlib.suppress(exception.KernelRefused):
                session.transact(_STEP, [step])
        if self.did or self._ends:
            self._cuts.cut(session, self._netlink,
                           self._first or self._last, self._last)
        return Applied(tuple(each.vif_id for each in self.ports.values()),
                       self._refused)

    def _is_anothers(self, found: nft.Table | None) -> bool:
        """Return whether somebody has made the table since this process did.

        As a plug does after a flush, who does not know what was in there.

        :param found: the table that there is
        """
        return (self._memory.handle is not None and found is not None
                and self._memory.handle != found.handle)

    def _plan(self, session: nft.Session) -> list[nft.Step]:
        making = self._making(session)
        is_new = any(kind == nft.NEW_TABLE for kind, _, _ in making)
        is_anew = is_new or self._is_anothers(session.table(table.NAME))
        self._needs_all = is_anew and not (self._change.is_all or self.heals)
        if self._needs_all:
            return []
        self._is_anew |= is_anew
        here = (agent_chains.NOTHING if is_new
                else agent_chains.there(session))
        self.ports = self._known_ports(here)
        # Where nothing is said of ports, what is in their sets stays, however
        # much there is.
        names = (agent_elements.NAMES if self._change.is_all
                 or self._change.ports or self._change.gone
                 else agent_elements.MAPS)
        before = ({name: {} for name in names} if is_new
                  else agent_elements.there(session, names))
        self._first, self._last = self._first or before, before
        after = self._after(before)
        used = {element.data for name in agent_elements.MAPS
                for element in after[name].values()}
        chains = agent_chains.planned(
            session, here, self._change,
            [each.groups for each in self.ports.values()
             if not each.is_open],
            {each for each in used if isinstance(each, str)},
            agent_connections.is_possible())
        gone, new = agent_elements.changing(before, after)
        self._ends = chains.ends
        self._narrowing.begin(agent_elements.unlocked(before),
                              agent_elements.unlocked(after), self.ports)
        connections = agent_connections.planned(
            session, self._netlink, self._change, self.ports, is_new)
        return self._cuts.before(session, [
            *making, *gone, *connections, *chains.before, *new,
            *chains.after], chains.ends)

    def _known_ports(self, here: agent_chains.There) -> dict[int, Port]:
        """Return the ports that can be had, by the index of each TAP."""
        known = {each.id for each in self._change.groups} | {
            name.partition('_')[2] for name in here.chains}
        ports = {}
        for port in self._change.ports:
            if port.vif_id not in self._links:
                continue
            if (port.stateful and not port.is_open
                    and not agent_connections.is_possible()):
                self._refused[port.vif_id] = (
                    'its security groups are stateful, and this kernel has no '
                    'conntrack for bridges (NF_CONNTRACK_BRIDGE)')
                continue
            missing = [each for each in port.groups if each not in known]
            if missing:
                self._refused[port.vif_id] = (
                    'its security group %s is not known here' % missing[0])
                continue
            ports[self._links[port.vif_id].index] = port
        return ports

    def _after(self, before: agent_elements.Sets) -> agent_elements.Sets:
        """Return what is to be in the sets of ports then."""
        keys = {filter_steps.number_key(index) for index in self.ports}
        here = {port.vif_id for port in self.ports.values()}
        gone = {key for key, vif_id in agent_elements.owners(before).items()
                if key not in keys and (
                    self._change.is_all or vif_id in self._change.gone
                    # A TAP that its port had before.
                    or vif_id in here and self._link(key) is None)}
        # What a guest may speak from is not an agent's where a plug says it;
        # of a TAP that went it is all that an unplug has left.
        return agent_elements.after(before, self.ports, keys | gone, keys | {
            key for key in gone if self._is_agents(key)})

    def _is_agents(self, key: bytes) -> bool:
        link = self._link(key)
        return link is None or link.group == self._groups.agent

    def _link(self, key: bytes) -> Link | None:
        return self._netlink.get(int.from_bytes(key, nft.BYTE_ORDER))

    def _making(self, session: nft.Session) -> list[nft.Step]:
        """Return what makes the table right, and the agent's group closed."""
        found, is_whole, lasts = filter_state.look(session)
        if found is not None:
            filter_state.tell(filter_state.version_of(found.comment))
        own, others = {self._groups.agent}, self._memory.others
        putting = (others.putting(session) if found is None
                   or self._is_anothers(found) else [])
        if lasts:
            if filter_state.is_closed(session, self._groups.agent, True):
                return putting
            return filter_steps.closing(own, own) + putting
        groups, of_agent = (filter_state.groups_in(session, name) | own
                            for name in (table.GROUPS, agent_table.GROUPS))
        there = filter_state.elements(session)
        if not is_whole:
            groups = others.closable(self._netlink) | own
            of_agent |= others.of_agent
            there = {**others.ports, **there}
        return guest_filter.making_anew(session, found, groups, of_agent, {
            index: there[index] for index in there
            if not self._is_agents(filter_steps.number_key(index))},
            emergency_exit.NONE) + putting


class _Healing(_Work):
    """What was done before, to be had again."""

    heals = True

    def __init__(self, netlink: nl.Netlink, change: Change, groups: Groups,
                 memory: agent_memory.Memory,
                 catch_up: typing.Callable[[], None]) -> None:
        super().__init__(netlink, change, {}, {}, groups, memory)
        self._catch_up = catch_up

    def _plan(self, session: nft.Session) -> list[nft.Step]:
        found = session.table(table.NAME)
        if found is None or self._is_anothers(found):
            # All that was done to the former table is told before it is gone,
            # and what was done last may not have been heard yet.
            self._catch_up()
        self._links = {
            port.vif_id: link
            for index, port in self._memory.indexes.items()
            for link in [self._netlink.get(index)]
            if link is not None and link.group == self._groups.agent
            and _why_not(link, port, self._groups) is None}
        is_any = any(each.vif_id in self._links for each in self._change.ports)
        return (super()._plan(session)
                if is_any or self._change.groups or not self._change.ports
                else [])
