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
from vif_plug_tapmac.kernel import filter_drops
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
from vif_plug_tapmac import mark
from vif_plug_tapmac.wanted.rules import PortRules

# How the kernel says that it lacks nf_tables, or the bridge family of it, or
# what rules are made of.
_MISSING = (errno.EPROTONOSUPPORT, errno.EOPNOTSUPP, errno.EINVAL,
            errno.EAFNOSUPPORT, errno.ENOENT)
# For how long others may change rules while we do, in seconds.
_GIVES_UP_AFTER = lasting_session.GIVES_UP_AFTER
#: Instead of the handle of a table that we have made, and not seen since.
_MADE = -1


class _Plan(typing.NamedTuple):
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


class GuestFilter:
    """What is done to the table, and what one process knows of it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sessions = lasting_session.LastingSession()
        self._generation: int | None = None
        self._ports: dict[int, Elements] | None = None
        # Of these we know better than the kernel, of others it does.
        self._own: set[int] = set()
        self._handle: int | None = None
        # What this process has closed: which group TAPs go to whose elements
        # nobody knows; None: no one goes, as it is an agent's. And what is in
        # force as long as no one else changes it.
        self._closed: dict[int, int | None] = {}
        # Who went there in the transaction that is under way.
        self._released: list[Link] = []
        self._shields: set[Shield] = set()

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

        def plan(session: nft.Session, is_known: bool) -> _Plan:
            steps: list[nft.Step] = []
            there, handle = (self._ports or {}).get(index, {}), self._handle
            if self._closes(group, open_group) or not is_known:
                steps, there, handle = self._mend(session, netlink, index)
            if fed_by_agent:
                there = filter_state.elements(session).get(index, {})
            old = [each for each in there if wanted.get(each) != there[each]]
            new = {each: wanted[each] for each in wanted
                   if not is_known or there.get(each) != wanted[each]}
            return _Plan([*steps, *filter_steps.deletions({index: old}),
                          *filter_steps.additions({index: new})],
                         looked=True, mends=bool(steps), handle=handle)

        self._put('keeping guests to their addresses', plan, {index: wanted},
                  'anti_spoofing of [os_vif_tapmac] to mac')

    def close(self, netlink: nl.Netlink, group: int) -> None:
        """Have a link group closed of whose ports an agent says what passes.

        All else is left to that agent.

        :raises KernelRefused, VerifyFailed: as :meth:`put`
        """
        def plan(session: nft.Session, is_known: bool) -> _Plan:
            steps: list[nft.Step] = []
            handle = self._handle
            if self._closes(group, None) or not is_known:
                steps, _, handle = self._mend(session, netlink)
            return _Plan(steps, looked=True, mends=True, handle=handle)

        self._put('closing what the agent opens', plan, {},
                  'firewall of [os_vif_tapmac] to none')

    def _closes(self, group: int, open_group: int | None) -> bool:
        """Return whether this process has not closed a group so before."""
        is_new = self._closed.get(group, -1) != open_group
        self._closed[group] = open_group
        return is_new

    def _put(self, step: str, plan: typing.Callable[
            [nft.Session, bool], '_Plan'], wanted: dict[int, Elements],
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

        def plan(session: nft.Session, is_known: bool) -> _Plan:
            steps: list[nft.Step] = []
            handle = self._handle
            if not is_known:
                steps, _, handle = self._mend(session, netlink)
            if not wanted <= self._shields:
                steps += shields.putting(session, wanted)
            return _Plan(steps, True, True, handle, wanted)

        return self._change('keeping guests from this host', plan, {})

    def unshield(self, groups: typing.Collection[int] | None = None,
                 service: str | None = None) -> None:
        """Have a service not want that any more; it does not is success.

        Tables that nobody needs then are removed.

        :param groups: the link groups that are concerned; None: all
        :param service: None: anybody
        """
        def plan(session: nft.Session, is_known: bool) -> _Plan:
            steps = shields.removing(session, groups, service)
            return _Plan(steps, is_known and not steps, True, self._handle)

        self._change('letting guests reach this host', plan, {})

    def knows(self, index: int) -> bool:
        """Return whether this process has put in something for an index."""
        return index in (self._ports or ())

    def of_vif(self, vif_id: str) -> list[int]:
        """Return for which indexes it has put in something of a VIF."""
        return [index for index, there in (self._ports or {}).items()
                if vif_id in there.values()]

    def remove(self, *indexes: int) -> None:
        """Have nothing in the sets for indexes; there is none is success.

        The table stays, and is not made.

        :raises KernelRefused: they are there still
        """
        def plan(session: nft.Session, is_known: bool) -> _Plan:
            if not is_known and self._ports is None:
                self._ports = filter_state.elements(session)
            assert self._ports is not None
            return _Plan(filter_steps.deletions({
                index: self._ports.get(index, {}) for index in indexes}),
                looked=is_known, mends=False, handle=self._handle)

        self._change('removing what guests were kept to', plan,
                     dict.fromkeys(indexes, {}))

    def _change(self, step: str, plan: typing.Callable[
            [nft.Session, bool], '_Plan'],
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
                 plan: typing.Callable[[nft.Session, bool], '_Plan'],
                 wanted: dict[int, Elements]) -> bool | None:
        """Do it if all that is known is so still.

        That is the condition of the transaction, so it is not asked before.

        :returns: as :meth:`_change`; None: it is not, and nothing was done
        """
        generation = self._generation
        if generation is None:
            return None
        planned = plan(session, True)
        if not planned.steps:
            if session.generation() != generation:
                return None
            self._know(generation, planned)
            return False
        try:
            if not session.transact(step, planned.steps, generation):
                return None
        except exception.KernelRefused as error:
            if error.kwargs.get('code') not in lasting_session.OVERTAKEN:
                raise
            self._doubt(session, wanted)
            self._generation = None
            return None
        self._know(generation + 1, planned)
        self._remember(wanted)
        return True

    def _in_the_end(self, session: nft.Session, step: str,
                    plan: typing.Callable[[nft.Session, bool], '_Plan'],
                    wanted: dict[int, Elements]) -> bool:
        """Do it, however often others interfere."""
        deadline = time.monotonic() + _GIVES_UP_AFTER
        overtaken, refused_at = False, None
        while True:
            generation = session.generation()
            is_known = generation == self._generation
            if not is_known:
                self._shields.clear()
            planned = plan(session, is_known)
            if not planned.steps:
                self._know(generation, planned)
                return False
            only_if = generation if planned.mends or not overtaken else None
            refusal = None
            try:
                if session.transact(step, planned.steps, only_if):
                    self._know(generation + 1 if only_if else None, planned)
                    self._remember(wanted)
                    return True
                overtaken = True
            except exception.KernelRefused as error:
                code = error.kwargs.get('code')
                if (code not in lasting_session.OVERTAKEN
                        or refused_at == generation):
                    raise  # What was looked at is there still.
                refusal, refused_at = error, generation
                self._doubt(session, wanted)
            self._generation = None
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

    def _doubt(self, session: nft.Session,
               indexes: typing.Iterable[int]) -> None:
        """Remember of indexes what is there, and of all others what was.

        Their elements may be gone, too: then nobody but us knows them.
        """
        if self._ports is None:
            return
        there = filter_state.elements(session)
        for index in indexes:
            self._ports.pop(index, None)
            if index in there:
                self._ports[index] = there[index]

    def _open(self) -> nft.Session:
        session, is_another = self._sessions.get()
        if is_another:
            self._generation = self._ports = self._handle = None
            for each in self._own, self._closed, self._shields:
                each.clear()
        return session

    def _know(self, generation: int | None, planned: _Plan) -> None:
        self._handle = planned.handle
        self._generation = generation if planned.looked else None
        self._shields |= planned.shields

    def _remember(self, wanted: dict[int, Elements]) -> None:
        for index, there in wanted.items():
            assert self._ports is not None
            if there:
                self._ports[index] = there
                self._own.add(index)
            else:
                self._ports.pop(index, None)
                self._own.discard(index)

    def _mend(self, session: nft.Session, netlink: nl.Netlink,
              index: int | None = None,
              ) -> tuple[list[nft.Step], Elements, int]:
        """Return what makes the table right, and what it has for an index.

        Groups are closed for those only of whom all is there then. Where
        somebody else has made the table since, he did not know all that we do.

        :param index: what is remembered of it is no concern here
        :returns: also the table's handle, or _MADE
        """
        if self._released:
            self._released = filtered_group.take_back(
                netlink, self._released, filter_state.elements(session))
        found, is_whole, lasts = filter_state.look(session)
        is_closed = (lasts and is_whole
                     and all(filter_state.is_closed(session, group,
                                                    open_group is None)
                             for group, open_group in self._closed.items()))
        if is_closed and found is not None:
            if self._ports is None:
                self._ports = filter_state.elements(session)
                self._handle = found.handle
            if self._handle == found.handle:
                return [], self._ports.get(index or 0, {}), found.handle
        # Who joins a group has his elements already: they are looked at later.
        members = {} if is_closed else {
            (group, open_group): filtered_group.members(netlink, group)
            for group, open_group in self._closed.items()
            if open_group is not None}
        found, is_whole, lasts = filter_state.look(session)
        there = filter_state.elements(session)
        self._learn(there if is_whole else {})
        left = self._left(netlink, index)
        for (group, open_group), links in members.items():
            self._released += filtered_group.release(netlink, [
                each for each in links
                if each.index != index and each.index not in left],
                group, open_group)
        of_agent = {group for group, open_group in self._closed.items()
                    if open_group is None}
        if lasts and found is not None:
            steps = [*filter_steps.closing(set(self._closed), of_agent),
                     *filter_steps.canaries(),
                     *filter_steps.differing(there, left, self._own)]
            return steps, there.get(index or 0, {}), found.handle
        groups = set(self._closed)
        if is_whole:
            groups |= filter_state.groups_in(session, table.GROUPS)
            of_agent |= filter_state.groups_in(session, agent_table.GROUPS)
        return making_anew(session, found, groups, of_agent, left), {}, _MADE

    def _learn(self, there: dict[int, Elements]) -> None:
        """Remember what is there of others as it is there."""
        self._ports = {**(self._ports or {}), **{
            index: found for index, found in there.items()
            if index not in self._own}}

    def _left(self, netlink: nl.Netlink,
              without: int | None) -> dict[int, Elements]:
        """Return what is remembered of TAPs that are there still.

        All else is forgotten, also of those that are an agent's by now.
        """
        assert self._ports is not None
        of_agent = [group for group, open_group in self._closed.items()
                    if open_group is None]
        for index, there in list(self._ports.items()):
            link = None if index == without else netlink.get(index)
            found = mark.TapMark.parse(link.alias) if link else None
            # One that has lost its mark is whose it was.
            if link is None or not link.is_tap or link.group in of_agent or (
                    found is not None and found.vif_id not in there.values()):
                del self._ports[index]
                self._own.discard(index)
        return self._ports


def making_anew(session: nft.Session, found: nft.Table | None,
                groups: set[int], of_agent: set[int],
                ports: dict[int, Elements]) -> list[nft.Step]:
    """Return what makes the table instead of one that is there.

    Those who are kept from this host by that one are so by the new one.

    :param found: None: there is none
    :param groups: as for :func:`filter_steps.making`, and ``of_agent``
    """
    return [*([] if found is None else [nft.delete_table(table.NAME)]),
            *filter_steps.making(groups, of_agent),
            *shields.additions(shields.there(session)),
            *filter_steps.additions(ports)]


#: That of this process.
of_this_process = GuestFilter()
#: What it has dropped, and whether the kernel's log says so.
drops, log_drops = filter_drops.drops, filter_drops.log_drops
