# SPDX-License-Identifier: Apache-2.0

"""The loop: what is dirty is asked for, put in force, and said to be up.

One thread does it, so that what was asked for later is in force later. A port
that something went wrong with is tried again after growing pauses; what was
wired stays as it is until Neutron has said something else of it.
"""

import itertools
import logging
import math
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
from vif_plug_tapmac.agent.resync import Resync
from vif_plug_tapmac.agent.state import State
from vif_plug_tapmac.agent.taps import Tap
from vif_plug_tapmac.agent.taps import Taps
from vif_plug_tapmac.agent.telling import AT_ONCE
from vif_plug_tapmac.agent.telling import Telling
from vif_plug_tapmac.agent import waiting
from vif_plug_tapmac.agent.waiting import Waiting
from vif_plug_tapmac import exception
from vif_plug_tapmac.wanted.security_groups import Group
from vif_plug_tapmac.wanted.security_groups import Port

if typing.TYPE_CHECKING:
    # Neutron is there only where the agent is.
    from vif_plug_tapmac.agent.joining import Joining
    from vif_plug_tapmac.agent.server import Answer
    from vif_plug_tapmac.agent.server import Server

LOG = logging.getLogger(__name__)

#: What is to be expected to go wrong, and needs no traceback.
_EXPECTED = (oslo_messaging.MessagingException,
             oslo_messaging.MessageUndeliverable, exception.TapMacError,
             daemon.FailedToDropPrivileges, OSError)
_UNGUARDED = (
    '%s is not in agent_group, so the privileged daemon has another '
    'configuration, without firewall = agent. Name all files of the agent '
    'that have [os_vif_tapmac] in helper_command of [tapmac_agent_privileged]')


class Manager:
    """Keeps the ports of this host as Neutron says.

    :param resync: when all are asked for anew
    :param names: is told which groups there are; None: nobody is
    """

    def __init__(self, dirty: dirty_ports.Dirty, taps: Taps,
                 server: 'Server', keeper: Firewall, state: State,
                 joining: 'Joining', resync: Resync,
                 names: Names | None = None) -> None:
        self._dirty, self._taps, self._server = dirty, taps, server
        self._firewall, self._state = keeper, state
        self._joining, self._resync, self._names = joining, resync, names
        self._stopped = threading.Event()
        self._failures = 0
        self._is_syncing = False
        self._telling = Telling(server, taps, state)
        # Those that are not fed before Neutron has heard that they were lost.
        self._behind: frozenset[str] = frozenset()
        self._waiting: dict[str, Waiting] = {}
        # The index of the TAP by which a port was guarded.
        self._wired: dict[str, int] = {}
        # As Neutron said last, whether they could be had or not.
        self._ports: dict[str, Port] = {}
        self._groups: dict[str, Group] = {}

    def run(self) -> None:
        """Do it until :meth:`stop`."""
        self._count()
        while not self._stopped.is_set():
            batch = self._next()
            if self._stopped.is_set():
                continue
            try:
                if batch != dirty_ports.EMPTY:
                    self.handle(batch)
                    batch = dirty_ports.EMPTY
                self.tell()
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
        due = min([self._resync.due, self._telling.due(), *(
            each.due for each in self._waiting.values())])
        if self._behind:
            due = -math.inf
        batch = self._dirty.take(due - time.monotonic())
        if batch.resync:
            self._resync.soon()
            batch = batch._replace(resync=False)
        again = waiting.due(self._waiting)
        self._state.retries += len(again)
        again |= set(itertools.islice(self._behind, AT_ONCE))
        return batch.also(Batch(
            ports=again, is_all=self._resync.is_due()))

    def _fail(self, error: Exception) -> None:
        self._failures += 1
        self._state.retries += 1
        pause = waiting.pause(self._failures, waiting.LONGEST_PAUSE)
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
            len(self._waiting.keys() | self._telling.left()) if is_known
            else self._state.ports)
        self._state.write()

    def handle(self, batch: Batch) -> None:
        """Bring what is dirty in line with what Neutron says.

        What Neutron is to hear of it after that is told by :meth:`tell`.

        :raises Exception: of whatever kind, it has to be done again
        """
        here = self._taps.here()
        self._telling.lose(batch.lost)
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
        self._telling.lose(self._made_anew(asked, answer))
        down = frozenset(filter(self._telling.is_lost, asked))
        behind = self._telling.tell_lost(down)
        self._behind = (self._behind & here.keys()) - asked.keys() | behind
        for port in behind:
            del asked[port]
        gone = batch.lost - here.keys()
        for port in gone:
            for each in self._waiting, self._ports, self._wired:
                each.pop(port, None)
        if asked or gone or is_all:
            groups -= self._put_in_force(asked, answer, gone, is_all, down)
        # Who was to tell them may have gone meanwhile.
        self._dirty.add(Batch(groups=groups.intersection(
            group for port in self._ports.values() if port.vif_id in here
            for group in port.groups)))
        if batch.is_all:
            self._resync.done(is_all)

    def tell(self) -> None:
        """Tell Neutron of some ports that are wired, or whose TAP went.

        :raises Exception: of whatever kind, it is still to be told
        """
        for port in self._telling.tell():
            self._set_waiting(port, 'Neutron could not have it up')

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

    def _put_in_force(self, asked: dict[str, Tap], answer: 'Answer',
                      gone: typing.Iterable[str], is_all: bool,
                      down: frozenset[str]) -> frozenset[str]:
        """Do so; return which groups were told, or are going to be.

        :param down: those that Neutron has down since it answered, or will
        """
        outcome = self._firewall.apply(
            answer.info, answer.details,
            {port: tap.name for port, tap in asked.items()}, gone, is_all)
        if outcome.needs_all:
            self._dirty.add(Batch(is_all=True))
            return frozenset(self._groups)
        self._learn(asked.keys(), outcome, is_all)
        self._judge(asked, answer, outcome, down)
        self._is_syncing |= is_all
        if self._is_syncing and not self._behind:
            self._is_syncing, self._state.synced = False, time.time()
        return frozenset(each.id for each in outcome.groups)

    def _join(self, interfaces: dict[str, Tap], answer: 'Answer') -> None:
        """Have those of DHCP and of routers on their bridges."""
        told = answer.by_port()
        for port, interface in interfaces.items():
            self._set_waiting(port, self._joining.join(
                port, interface, told.get(port, {})))
        self._telling.wire({port: tap for port, tap in interfaces.items()
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
        """Have it told of each port that it is up, or say why it is not."""
        told = answer.by_port()
        guarded = self._taps.guarded(asked.values())
        for port, tap in asked.items():
            why = outcome.refused.get(port)
            is_guarded = guarded[tap]
            self._wired.pop(port, None)
            self._telling.unwire(port)
            if is_guarded is None:
                why = None  # It is another one by now, and dirty.
            elif port in outcome.kept:
                if not is_guarded:
                    why = _UNGUARDED % tap.name
                else:
                    self._wired[port] = tap.index
                    if (self._server.is_to_be_up(told[port])
                            or port in down
                            and self._server.is_up(told[port])):
                        self._telling.wire({port: tap})
            self._set_waiting(port, why)
        for port, why in outcome.shut.items():
            LOG.info('Port %s is closed: %s', port, why)

    def _set_waiting(self, port: str, why: str | None) -> None:
        before = self._waiting.pop(port, None)
        if why is None:
            return
        if before is None or before.why != why:
            if why == firewall.UNKNOWN:
                LOG.info('Port %s is not wired: %s', port, why)
            else:
                LOG.error('Port %s is not wired: %s', port, why)
        self._waiting[port] = (before or Waiting()).again(why)


def _words(error: Exception) -> str:
    """Return in one line what went wrong; some say nothing, some a page."""
    if isinstance(error, oslo_messaging.MessageUndeliverable):
        return 'nobody takes from the message queue what agents ask Neutron'
    return (str(error).strip().splitlines() or [''])[0] or type(error).__name__
