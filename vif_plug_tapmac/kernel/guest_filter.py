# SPDX-License-Identifier: Apache-2.0

"""The table in the kernel: made, mended, and the elements of each port in it.

Whatever is done is one transaction, on condition that nobody has changed rules
since they were looked at; whoever loses that race looks again. What a process
has done itself it need not look at, as long as the number of changes tells
that there were no others.

A process remembers what is in the sets. Whoever makes the table anew, because
somebody flushed the rules, puts in what he remembers in the same transaction,
and has all others out of the group before: no guest is cut off by that, or let
loose. The table's handle tells other processes that it is another one.
"""

import contextlib
import errno
import threading
import time
import typing

from vif_plug_tapmac import exception
from vif_plug_tapmac.kernel import agent_table
from vif_plug_tapmac.kernel import emergency_exit
from vif_plug_tapmac.kernel import filter_drops
from vif_plug_tapmac.kernel import filter_memory
from vif_plug_tapmac.kernel.filter_memory import Plan
from vif_plug_tapmac.kernel import filter_state
from vif_plug_tapmac.kernel import filter_steps
from vif_plug_tapmac.kernel.filter_steps import Elements
from vif_plug_tapmac.kernel import filter_table as table
from vif_plug_tapmac.kernel import filtered_group
from vif_plug_tapmac.kernel import lasting_session
from vif_plug_tapmac.kernel.link import Link
from vif_plug_tapmac.kernel import netlink as nl
from vif_plug_tapmac.kernel import nft
from vif_plug_tapmac.kernel import shields
from vif_plug_tapmac.kernel.shields import Shield
from vif_plug_tapmac.wanted.rules import PortRules

# How the kernel says that it lacks nf_tables, or the bridge family of it, or
# what rules are made of.
_MISSING = (errno.EPROTONOSUPPORT, errno.EOPNOTSUPP, errno.EINVAL,
            errno.EAFNOSUPPORT, errno.ENOENT)
# For how long others may change rules while we do, in seconds.
_GIVES_UP_AFTER = lasting_session.GIVES_UP_AFTER


class GuestFilter:
    """What is done to the table, and what one process knows of it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sessions = lasting_session.LastingSession()
        self._known = filter_memory.Memory()
        # Who went to an open group in the transaction that is under way.
        self._released: list[Link] = []

    def put(self, netlink: nl.Netlink, index: int, wanted_rules: PortRules,
            group: int, open_group: int, fed_by_agent: bool = False) -> None:
        """Have a port's elements in the sets, and what looks at them.

        Anything else that is there for this index goes, together with that.

        :param index: of its TAP
        :param group: whose ports are to be closed
        :param open_group: of TAPs that would be cut off by that, because
            their elements are gone and this process does not know them
        :param fed_by_agent: whether what is there may be an agent's
        :raises KernelRefused: this kernel cannot do that; or EBUSY where
            others change rules all the time. The rules are as they were
        :raises VerifyFailed: likewise
        """
        wanted = dict.fromkeys(wanted_rules.elements, wanted_rules.vif_id)

        def plan(session: nft.Session, is_known: bool) -> Plan:
            steps: list[nft.Step] = []
            there = (self._known.ports or {}).get(index, {})
            handle = self._known.handle
            if self._known.closes(group, open_group) or not is_known:
                steps, there, handle = self._mend(session, netlink, index)
            if fed_by_agent:
                there = filter_state.elements(session).get(index, {})
            old = [each for each in there if wanted.get(each) != there[each]]
            new = {each: wanted[each] for each in wanted if (
                there.get(each) != wanted[each] if is_known
                # To add what is there is no change, and has no number.
                else handle == filter_memory.MADE
                or not filter_state.has_element(session, index, each))}
            return Plan([*steps, *filter_steps.deletions({index: old}),
                         *filter_steps.additions({index: new})],
                        looked=True, mends=bool(steps), handle=handle)

        self._put('keeping guests to their addresses', plan, {index: wanted},
                  'anti_spoofing of [os_vif_tapmac] to mac')

    def close(self, netlink: nl.Netlink, group: int) -> None:
        """Have a link group closed of whose ports an agent says what passes.

        All else is left to that agent.

        :raises KernelRefused, VerifyFailed: as :meth:`put`
        """
        def plan(session: nft.Session, is_known: bool) -> Plan:
            steps: list[nft.Step] = []
            handle = self._known.handle
            if self._known.closes(group, None) or not is_known:
                steps, _, handle = self._mend(session, netlink)
            return Plan(steps, looked=True, mends=True, handle=handle)

        self._put('closing what the agent opens', plan, {},
                  'firewall of [os_vif_tapmac] to none')

    def _put(self, step: str, plan: typing.Callable[
            [nft.Session, bool], Plan], wanted: dict[int, Elements],
            remedy: str) -> None:
        """Do what is planned, with a remedy where a kernel cannot do it.

        :param remedy: which option to set, and to what
        """
        try:
            self._change(step, plan, wanted)
        except exception.KernelRefused as error:
            if error.kwargs.get('code') not in _MISSING:
                raise
            raise exception.KernelRefused(
                device='nftables', step=step, code=errno.EOPNOTSUPP,
                error=error.kwargs['error'],
                remedy='load nf_tables (CONFIG_NF_TABLES_BRIDGE), or set '
                       + remedy)

    def shield(self, netlink: nl.Netlink, groups: typing.Iterable[int],
               service: str) -> bool:
        """Have what ports of link groups send to this host dropped.

        Nobody is closed by that who was not.

        :param service: that wants it: :attr:`Limits.service`
        :returns: whether something had to be done for it
        :raises KernelRefused, VerifyFailed: as :meth:`put`
        """
        wanted = frozenset(Shield.of(group, service) for group in groups)

        def plan(session: nft.Session, is_known: bool) -> Plan:
            steps: list[nft.Step] = []
            handle = self._known.handle
            if not is_known:
                steps, _, handle = self._mend(session, netlink)
            if not wanted <= self._known.shields:
                steps += shields.putting(session, wanted)
            return Plan(steps, True, True, handle, wanted)

        return self._change('keeping guests from this host', plan, {})

    def unshield(self, groups: typing.Collection[int] | None = None,
                 service: str | None = None) -> None:
        """Have a service not want that any more; it does not is success.

        Tables that nobody needs then are removed.

        :param groups: the link groups that are concerned; None: all
        :param service: None: anybody
        """
        def plan(session: nft.Session, is_known: bool) -> Plan:
            steps = shields.removing(session, groups, service)
            return Plan(steps, is_known and not steps, True,
                        self._known.handle)

        self._change('letting guests reach this host', plan, {})

    def knows(self, index: int) -> bool:
        """Return whether this process has put in something for an index."""
        return index in (self._known.ports or ())

    def of_vif(self, vif_id: str) -> list[int]:
        """Return for which indexes it has put in something of a VIF."""
        return [index for index, there in (self._known.ports or {}).items()
                if vif_id in there.values()]

    def remove(self, *indexes: int) -> None:
        """Have nothing in the sets for indexes; there is none is success.

        The table stays, and is not made.

        :raises KernelRefused: they are there still
        """
        def plan(session: nft.Session, is_known: bool) -> Plan:
            if not is_known and self._known.ports is None:
                self._known.ports = filter_state.elements(session)
            assert self._known.ports is not None
            return Plan(filter_steps.deletions({
                index: self._known.ports.get(index, {}) for index in indexes}),
                looked=is_known, mends=False, handle=self._known.handle)

        self._change('removing what guests were kept to', plan,
                     dict.fromkeys(indexes, {}))

    def _change(self, step: str, plan: typing.Callable[
            [nft.Session, bool], Plan],
            wanted: dict[int, Elements]) -> bool:
        """Do what is planned for ports; plan anew until nobody interferes.

        Who changes nothing but elements does not wait for a time in which no
        one else does so: then nothing is known afterwards, and that is all.

        :param plan: called with whether all that is known is so still
        :param wanted: what there is for each index after that
        :returns: whether anything had to be done
        """
        with self._alone() as session:
            done = self._at_once(session, step, plan, wanted)
            if done is None:
                done = self._in_the_end(session, step, plan, wanted)
            return done

    def _at_once(self, session: nft.Session, step: str,
                 plan: typing.Callable[[nft.Session, bool], Plan],
                 wanted: dict[int, Elements]) -> bool | None:
        """Do it if all that is known is so still.

        That is the condition of the transaction, so it is not asked before.

        :returns: as :meth:`_change`; None: it is not, and nothing was done
        """
        generation = self._known.generation
        if generation is None:
            return None
        planned = plan(session, True)
        if not planned.steps:
            if session.generation() != generation:
                return None
            self._known.know(generation, planned)
            return False
        try:
            if not session.transact(step, planned.steps, generation):
                return None
        except exception.KernelRefused as error:
            if error.kwargs.get('code') not in lasting_session.OVERTAKEN:
                raise
            self._known.doubt(session, wanted)
            return None
        self._known.know(generation + 1, planned)
        self._known.remember(wanted)
        return True

    def _in_the_end(self, session: nft.Session, step: str,
                    plan: typing.Callable[[nft.Session, bool], Plan],
                    wanted: dict[int, Elements]) -> bool:
        """Do it, however often others interfere."""
        deadline = time.monotonic() + _GIVES_UP_AFTER
        overtaken, refused_at = False, None
        while True:
            generation = session.generation()
            is_known = generation == self._known.generation
            if not is_known:
                self._known.shields.clear()
                if session.table(table.NAME) is not None:
                    self._known.exits = emergency_exit.there(session)
            planned = plan(session, is_known)
            if not planned.steps:
                self._known.know(generation, planned)
                return False
            only_if = generation if planned.mends or not overtaken else None
            refusal = None
            try:
                if session.transact(step, planned.steps, only_if):
                    self._known.know(generation + 1 if only_if else None,
                                     planned)
                    self._known.remember(wanted)
                    return True
                overtaken = True
            except exception.KernelRefused as error:
                code = error.kwargs.get('code')
                if (code not in lasting_session.OVERTAKEN
                        or refused_at == generation):
                    raise  # What was looked at is there still.
                refusal, refused_at = error, generation
                self._known.doubt(session, wanted)
            self._known.generation = None
            time.sleep(lasting_session.PAUSE)
            if time.monotonic() > deadline:
                raise refusal or exception.VerifyFailed(
                    device='nftables', differences='rules are changed all the '
                    'time ("nft monitor" tells by whom)')

    @contextlib.contextmanager
    def _alone(self) -> typing.Iterator[nft.Session]:
        """Be the only thread that changes anything; say who had to go."""
        with self._lock:
            try:
                yield self._open()
            finally:
                filtered_group.tell(self._released)
                self._released = []

    def _open(self) -> nft.Session:
        session, is_another = self._sessions.get()
        if is_another:
            self._known = filter_memory.Memory()
        return session

    def _mend(self, session: nft.Session, netlink: nl.Netlink,
              index: int | None = None,
              ) -> tuple[list[nft.Step], Elements, int]:
        """Return what makes the table right, and what it has for an index.

        Groups are closed for those only of whom all is there then. Where
        somebody else has made the table since, he did not know all that we do.

        :param index: what is remembered of it is no concern here
        :returns: also the table's handle, or filter_memory.MADE
        """
        if self._released:
            self._released = filtered_group.take_back(
                netlink, self._released, filter_state.elements(session))
        found, is_whole, lasts = self._look(session)
        is_closed = lasts and is_whole and all(
            filter_state.is_closed(session, group, open_group is None)
            for group, open_group in self._known.closed.items())
        if is_closed and found is not None:
            if self._known.ports is None:
                self._known.ports = filter_state.elements(session)
                self._known.handle = found.handle
            if self._known.handle == found.handle:
                return [], self._known.ports.get(index or 0, {}), found.handle
        # Who joins a group has his elements already: they are looked at later.
        members = {} if is_closed else {
            (group, open_group): filtered_group.members(netlink, group)
            for group, open_group in self._known.closed.items()
            if open_group is not None}
        found, is_whole, lasts = self._look(session)
        there = filter_state.elements(session)
        self._known.learn(there if is_whole else {})
        left = self._known.left(netlink, index)
        for (group, open_group), links in members.items():
            self._released += filtered_group.release(netlink, [
                each for each in links
                if each.index != index and each.index not in left],
                group, open_group)
        of_agent = self._known.of_agent()
        if lasts and found is not None:
            steps = [*filter_steps.closing(set(self._known.closed), of_agent),
                     *filter_steps.canaries(),
                     *filter_steps.differing(there, left, self._known.own)]
            return steps, there.get(index or 0, {}), found.handle
        groups = set(self._known.closed)
        if is_whole:
            groups |= filter_state.groups_in(session, table.GROUPS)
            of_agent |= filter_state.groups_in(session, agent_table.GROUPS)
        return (making_anew(session, found, groups, of_agent, left,
                            self._known.exits), {}, filter_memory.MADE)

    @staticmethod
    def _look(session: nft.Session) -> tuple[nft.Table | None, bool, bool]:
        """Return what :func:`filter_state.look` does; agents' ones stay."""
        found, is_whole, lasts = filter_state.look(session)
        is_left = filter_state.is_left_to_agent(session, found, is_whole)
        if found is not None:
            filter_state.tell(filter_state.version_of(found.comment), is_left)
        return found, is_whole, lasts or is_left


def making_anew(session: nft.Session, found: nft.Table | None,
                groups: set[int], of_agent: set[int],
                ports: dict[int, Elements],
                exits: emergency_exit.Exits) -> list[nft.Step]:
    """Return what makes the table instead of one that is there.

    Those who are kept from this host by that one are so by the new one, and
    those are open who are open there.

    :param found: None: there is none
    :param groups: as for :func:`filter_steps.making`, and ``of_agent``
    :param exits: who is open where there is none
    """
    return [*([] if found is None else [nft.delete_table(table.NAME)]),
            *filter_steps.making(groups, of_agent),
            *shields.additions(shields.there(session)),
            *emergency_exit.additions(
                exits if found is None else emergency_exit.there(session)),
            *filter_steps.additions(ports)]


#: That of this process.
of_this_process = GuestFilter()
#: What it has dropped, and whether the kernel's log says so.
drops, log_drops = filter_drops.drops, filter_drops.log_drops
