# SPDX-License-Identifier: Apache-2.0

"""The loop: what is dirty is asked for, put in force, and said to be up.

One thread does it, so that what was asked for later is in force later. A port
that something went wrong with is tried again after growing pauses; what was
wired stays as it is until Neutron has said something else of it.
"""

import logging
import math
import random
import threading
import time
import typing

import oslo_messaging
from oslo_privsep import daemon

from vif_plug_tapmac.agent import dirty as dirty_ports
from vif_plug_tapmac.agent.dirty import Batch
from vif_plug_tapmac.agent import firewall
from vif_plug_tapmac.agent.firewall import Firewall
from vif_plug_tapmac.agent.firewall import Outcome
from vif_plug_tapmac.agent.names import Names
from vif_plug_tapmac.agent.state import State
from vif_plug_tapmac.agent.taps import Tap
from vif_plug_tapmac.agent.taps import Taps
from vif_plug_tapmac import exception
from vif_plug_tapmac.wanted.security_groups import Group
from vif_plug_tapmac.wanted.security_groups import Port

if typing.TYPE_CHECKING:
    # Neutron is there only where the agent is.
    from vif_plug_tapmac.agent.joining import Joining
    from vif_plug_tapmac.agent.server import Answer
    from vif_plug_tapmac.agent.server import Server

LOG = logging.getLogger(__name__)

#: In seconds: the first pause before something is tried again, and the longest
#: of all ports, and of one. Each is twice as long as the one before.
_FIRST_PAUSE, _LONGEST_PAUSE, _LONGEST_OF_ONE = 1.0, 10.0, 60.0
#: What is to be expected to go wrong, and needs no traceback.
_EXPECTED = (oslo_messaging.MessagingException, exception.TapMacError,
             daemon.FailedToDropPrivileges, OSError)
_UNGUARDED = (
    '%s is not in agent_group, so the privileged daemon has another '
    'configuration, without firewall = agent. Name all files of the agent '
    'that have [os_vif_tapmac] in helper_command of [tapmac_agent_privileged]')


class _Waiting(typing.NamedTuple):
    """A port that is not as it is to be.

    :param tries: how often it was tried
    :param due: when it is tried again, of the monotonic clock
    """
    why: str
    tries: int
    due: float

    @classmethod
    def after(cls, before: '_Waiting | None', why: str) -> '_Waiting':
        """Return it when it was tried once more; None: for the first time."""
        tries = before.tries + 1 if before else 1
        return cls(why, tries,
                   time.monotonic() + _pause(tries, _LONGEST_OF_ONE))


def _due(waiting: typing.Mapping[str, _Waiting]) -> frozenset[str]:
    """Return those that are to be tried again now."""
    now = time.monotonic()
    return frozenset(port for port, each in waiting.items()
                     if each.due <= now)


class Manager:
    """Keeps the ports of this host as Neutron says.

    :param resync_interval: after how many seconds all are asked for anew
    :param resync_spread: within how many seconds that is done that other hosts
        do, too
    :param names: is told which groups there are; None: nobody is
    """

    def __init__(self, dirty: dirty_ports.Dirty, taps: Taps,
                 server: 'Server', keeper: Firewall, state: State,
                 joining: 'Joining', resync_interval: float,
                 resync_spread: float, names: Names | None = None) -> None:
        self._dirty, self._taps, self._server = dirty, taps, server
        self._firewall, self._state = keeper, state
        self._joining, self._names = joining, names
        self._resync_interval = resync_interval
        self._resync_spread = resync_spread
        # As if there was nothing to do before.
        self._resync_due = math.inf
        self._resync_soon()
        self._stopped = threading.Event()
        self._failures = 0
        self._waiting: dict[str, _Waiting] = {}
        # The index of the TAP by which a port was guarded.
        self._wired: dict[str, int] = {}
        # Those whose TAP went, which Neutron does not know yet.
        self._lost: dict[str, _Waiting] = {}
        # As Neutron said last, whether they could be had or not.
        self._ports: dict[str, Port] = {}
        self._groups: dict[str, Group] = {}

    def run(self) -> None:
        """Do it until :meth:`stop`."""
        self._count()
        while not self._stopped.is_set():
            batch = self._next()
            if self._stopped.is_set() or batch == dirty_ports.EMPTY:
                continue
            try:
                self.handle(batch)
                self._failures = 0
            except Exception as error:
                self._dirty.add(batch)
                self._fail(error)
            self._count()

    def stop(self) -> None:
        """Have :meth:`run` return when it has done what it does now."""
        self._stopped.set()
        self._dirty.add(Batch(is_all=True))

    def _next(self) -> Batch:
        """Wait for something to do, and return it; it may be nothing."""
        due = min([self._resync_due, *(
            each.due for some in (self._waiting, self._lost)
            for each in some.values())])
        batch = self._dirty.take(due - time.monotonic())
        if batch.resync:
            self._resync_soon()
            batch = batch._replace(resync=False)
        lost = _due(self._lost)
        again = _due(self._waiting) | lost
        self._state.retries += len(again)
        return batch.also(Batch(
            ports=again, lost=lost,
            is_all=time.monotonic() >= self._resync_due))

    def _resync_soon(self) -> None:
        """Have all ports asked for at a moment that others do not have."""
        self._resync_due = min(self._resync_due, time.monotonic()
                               + random.uniform(0, self._resync_spread))

    def _fail(self, error: Exception) -> None:
        self._failures += 1
        self._state.retries += 1
        pause = _pause(self._failures, _LONGEST_PAUSE)
        if not isinstance(error, _EXPECTED):
            LOG.exception('This should not happen; tried again in %.1f s',
                          pause)
        LOG.warning('Ports can not be brought in line with Neutron: %s. What '
                    'is wired stays as it is, what is not stays closed; tried '
                    'again in %.1f s', _words(error), pause)
        self._stopped.wait(pause)

    def _count(self) -> None:
        self._state.ports = len(self._taps.here())
        is_known = self._state.synced and not self._failures
        self._state.waiting = (
            len(self._waiting.keys() | self._lost.keys()) if is_known
            else self._state.ports)
        self._state.write()

    def handle(self, batch: Batch) -> None:
        """Bring what is dirty in line with what Neutron says.

        :raises Exception: of whatever kind, it has to be done again
        """
        here = self._taps.here()
        # Before those that are here again are said to be up.
        self._set_down(batch.lost)
        groups = self._concerned(batch)
        ports = set(here) if batch.is_all else here.keys() & (
            batch.ports | self._in_each(groups, here.keys()))
        answer = self._server.ask(ports)
        for port in answer.failed:
            self._ports.pop(port, None)
            self._set_waiting(port, 'Neutron does not say what it is')
        # What it says nothing of goes, where all is said.
        is_all = batch.is_all and not answer.failed
        asked = {port: here[port] for port in ports - answer.failed}
        interfaces = {port: tap for port, tap in asked.items()
                      if tap.is_interface}
        self._join(interfaces, answer)
        for port in interfaces:
            del asked[port]
        anew = self._made_anew(asked, answer)
        self._set_down(anew)
        gone = batch.lost - here.keys()
        for port in gone:
            for each in self._waiting, self._ports, self._wired:
                each.pop(port, None)
        if asked or gone or is_all:
            groups -= self._put_in_force(asked, answer, gone, is_all,
                                         anew - self._lost.keys())
        # Who was to tell them may have gone meanwhile.
        self._dirty.add(Batch(groups=groups.intersection(
            group for port in self._ports.values() if port.vif_id in here
            for group in port.groups)))
        if batch.is_all:
            self._resync_due = time.monotonic() + random.uniform(0.8, 1) * (
                self._resync_interval if is_all else _LONGEST_PAUSE)

    def _made_anew(self, asked: dict[str, Tap], answer: 'Answer',
                   ) -> frozenset[str]:
        """Return those that are up for Neutron, and pass nothing yet.

        Their TAP was made while there was no agent that would have said that
        the former one went. Nova may wait to hear that they are up, which it
        does when they were down.
        """
        told = answer.by_port()
        taps = {tap.name: port for port, tap in asked.items()
                if port in told and self._server.is_up(told[port])
                and self._wired.get(port) != tap.index}
        return frozenset(taps[name] for name in firewall.unfed(taps))

    def _set_down(self, lost: frozenset[str]) -> None:
        """Say that the TAPs of these went; what fails is tried again.

        One that is here again meanwhile is asked for with that, and is up as
        Neutron has it until it is down.
        """
        failed = self._server.set_down(lost)
        for port in lost:
            before = self._lost.pop(port, None)
            if port not in failed:
                continue
            if before is None:
                LOG.warning('Neutron could not have port %s down, whose TAP '
                            'is gone; it is told so again and again', port)
            self._lost[port] = _Waiting.after(before, '')

    def _put_in_force(self, asked: dict[str, Tap], answer: 'Answer',
                      gone: typing.Iterable[str], is_all: bool,
                      down: frozenset[str]) -> frozenset[str]:
        """Do so; return which groups were told, or are going to be.

        :param down: those that Neutron was told to have down since it said so
        """
        outcome = self._firewall.apply(
            answer.info, answer.details,
            {port: tap.name for port, tap in asked.items()}, gone, is_all)
        if outcome.needs_all:
            self._dirty.add(Batch(is_all=True))
            return frozenset(self._groups)
        self._learn(asked.keys(), outcome, is_all)
        self._judge(asked, answer, outcome, down)
        if is_all:
            self._state.synced = time.time()
        return frozenset(each.id for each in outcome.groups)

    def _join(self, interfaces: dict[str, Tap], answer: 'Answer') -> None:
        """Have those of DHCP and of routers on their bridges."""
        told = answer.by_port()
        for port, interface in interfaces.items():
            self._set_waiting(port, self._joining.join(
                port, interface, told.get(port, {})))
        self._say_up({port: tap for port, tap in interfaces.items()
                      if port not in self._waiting})

    def _concerned(self, batch: Batch) -> frozenset[str]:
        """Return which groups are to be told anew."""
        return batch.groups.union(
            group.id for group in self._groups.values()
            if any(rule.remote_set
                   and rule.remote_set.partition(':')[2] in batch.members
                   for rule in group.rules))

    def _in_each(self, groups: typing.Iterable[str],
                 here: typing.Container[str]) -> frozenset[str]:
        """Return ports by which Neutron tells all of these groups.

        All of a group is told by one that is in it. Those that wait could not
        be had the last time, and may be now.
        """
        left, found = set(groups), set()
        for port in self._ports.values():
            if port.vif_id in here and left.intersection(port.groups):
                found.add(port.vif_id)
                if port.vif_id not in self._waiting:
                    left.difference_update(port.groups)
        return frozenset(found)

    def _learn(self, asked: typing.Collection[str], outcome: Outcome,
               is_all: bool) -> None:
        """Keep what Neutron said; have others asked for that it concerns."""
        former = self._groups
        if is_all:
            self._ports, self._groups = {}, {}
        for port in asked:
            self._ports.pop(port, None)
        self._ports.update((each.vif_id, each) for each in outcome.ports)
        others = {each.id for each in outcome.groups if each.id in former
                  and former[each.id].stateful != each.stateful}
        self._groups = {**self._groups,
                        **{each.id: each for each in outcome.groups}}
        if self._names is not None:
            self._names.learn(self._groups, is_all)
        self._dirty.add(Batch(ports=frozenset(
            port.vif_id for port in self._ports.values()
            if others.intersection(port.groups)
            and port.vif_id not in asked)))

    def _judge(self, asked: dict[str, Tap], answer: 'Answer',
               outcome: Outcome, down: frozenset[str]) -> None:
        """Say of each port that it is up, or why it is not."""
        told = answer.by_port()
        up = set()
        for port, tap in asked.items():
            why = outcome.refused.get(port)
            is_guarded = self._taps.is_guarded(tap)
            self._wired.pop(port, None)
            if is_guarded is None:
                why = None  # It is another one by now, and dirty.
            elif port in outcome.kept:
                if not is_guarded:
                    why = _UNGUARDED % tap.name
                else:
                    self._wired[port] = tap.index
                    if port in down or self._server.is_to_be_up(told[port]):
                        up.add(port)
            self._set_waiting(port, why)
        self._say_up({port: asked[port] for port in up})
        for port, why in outcome.shut.items():
            LOG.info('Port %s is closed: %s', port, why)

    def _say_up(self, taps: dict[str, Tap]) -> None:
        """Have Neutron know that these ports are wired."""
        failed = self._server.set_up(taps.keys())
        for port in failed:
            self._set_waiting(port, 'Neutron could not have it up')
        for port in taps.keys() - failed:
            LOG.info('Port %s is wired: %s', port, taps[port].name)

    def _set_waiting(self, port: str, why: str | None) -> None:
        before = self._waiting.pop(port, None)
        if why is None:
            return
        if before is None or before.why != why:
            if why == firewall.UNKNOWN:
                LOG.info('Port %s is not wired: %s', port, why)
            else:
                LOG.error('Port %s is not wired: %s', port, why)
        self._waiting[port] = _Waiting.after(before, why)


def _words(error: Exception) -> str:
    """Return in one line what went wrong; some say nothing, some a page."""
    return (str(error).strip().splitlines() or [''])[0] or type(error).__name__


def _pause(tries: int, longest: float) -> float:
    """Return for how many seconds to wait, a bit other for each host."""
    most = min(longest, _FIRST_PAUSE * 2.0 ** min(tries, 10))
    return random.uniform(most / 2, most)
