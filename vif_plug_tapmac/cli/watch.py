# SPDX-License-Identifier: Apache-2.0

"""``tapmac watch``: what happens to TAPs and bridges, as it happens."""

import argparse
import datetime
import json
import select
import time
import typing

from cliff import command
from oslo_log import log as logging

from vif_plug_tapmac import bounded
from vif_plug_tapmac.cli import configuration
from vif_plug_tapmac.cli import number
from vif_plug_tapmac import exception
from vif_plug_tapmac.host import audit
from vif_plug_tapmac.host import domains
from vif_plug_tapmac.host.finding import Finding
from vif_plug_tapmac.host import following
from vif_plug_tapmac.host import inventory
from vif_plug_tapmac.kernel import events

LOG = logging.getLogger(__name__)

# A plug makes a dozen events in some milliseconds; what is wrong is looked
# for when they are through, or after so many seconds in any case.
_QUIET, _LATEST = 0.3, 2.0
#: How often to look at once where events are lost all the time.
_LOOKS = 3
#: In seconds: the most that --interval can be.
_DAY = 86400

#: By what a finding is the same again: code, device, index of the link.
_Key = tuple[str, str, int | None]


class Watch(command.Command):
    """Say what happens to TAPs and bridges of tapmac, as it happens.

    Plug and unplug, what changes of MAC, bridge, MTU and state, which guest
    comes or goes, and each finding of "tapmac audit" when it appears and when
    it is gone again. A line for each, until interrupted. Nothing is changed,
    and no privilege is needed.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument('-f', '--format', choices=('text', 'json'),
                            default='text', help='of each line')
        parser.add_argument(
            '--interval', metavar='SECONDS', default=10.0,
            type=number.between(0.1, _DAY, float),
            help='how often to look for what netlink does not tell: domains, '
                 'sysctls. 0.1 to 86400; default: %(default)g')
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        self._json = parsed_args.format == 'json'
        self._config = configuration.read(self.app_args)
        self._findings: dict[_Key, Finding] = {}
        self._question: bounded.Question | None = None
        self._answers, self._lost, self._stirred = True, False, False
        try:
            with events.LinkEvents() as self._happening:
                self._watch(parsed_args.interval)
        except KeyboardInterrupt:
            return
        finally:
            if self._question is not None:
                self._question.end()

    def _watch(self, interval: float) -> None:
        seen = inventory.read(self._config)
        self._following = following.Following(seen)
        # What happened before that look would be told backwards.
        self._drain(tell=False)
        seen = self._following.seen
        self._say('watching', 'this host', '%d TAPs, %d bridges' % (
            sum(tap.is_ours for tap in seen.taps),
            len(seen.bridges)))
        while True:
            self._audit()
            self._collect(interval)
            self._look()

    def _look(self) -> None:
        """Look at the whole host, once unless events were lost meanwhile."""
        for _ in range(_LOOKS):
            self._drain()
            self._lost = self._stirred = False
            try:
                seen = inventory.read(self._config)
            except exception.KernelRefused as error:
                LOG.warning('This look at the host is left out: %s', error)
                return
            newer = self._drain()
            if not self._lost:
                break
        self._tell(self._following.look(seen, newer))

    def _collect(self, interval: float) -> None:
        """Tell what happens, up to when it deserves a look at the whole."""
        now = time.monotonic()
        latest = now + _LATEST if self._stirred else None
        look_at = now + (_QUIET if self._stirred else interval)
        while (left := look_at - time.monotonic()) > 0:
            ready = self._wait(left)
            if self._question is not None and self._question.is_over():
                self._take_answer()
                if self._answers:  # It is back.
                    return
            if self._happening in ready:
                self._next()
                now = time.monotonic()
                latest = latest or now + _LATEST
                look_at = min(now + _QUIET, latest)

    def _wait(self, seconds: float) -> list[typing.Any]:
        """Wait for something to happen, or for libvirt if it was asked."""
        waited_for: list[typing.Any] = [self._happening]
        if self._question is not None:
            waited_for.append(self._question)
        return select.select(waited_for, [], [], seconds)[0]

    def _drain(self, tell: bool = True) -> set[int]:
        """Tell what has happened; return which links that was about."""
        found: set[int] = set()
        until = time.monotonic() + _LATEST
        while (select.select([self._happening], [], [], 0)[0]
               and time.monotonic() < until):
            found |= self._next(tell)
        return found

    def _next(self, tell: bool = True) -> set[int]:
        """Tell what comes next; return which links that is about."""
        self._stirred = True
        try:
            batch = self._happening.wait(0)
        except events.Overrun:
            self._lost = True
            return set()
        for event in batch:
            happenings = self._following.event(event)
            self._tell(happenings if tell else list(happenings)[:0])
        return {event.link.index for event in batch}

    def _tell(self, happenings: typing.Iterable[following.Happening]) -> None:
        for happening in happenings:
            self._say(*happening)

    def _audit(self) -> None:
        found = self._find()
        new = found.keys() - self._findings.keys()
        if new:
            # Links, addresses, the FDB, domains: each was read at its time,
            # and may have changed in between.
            self._look()
            again = self._find()
            found = {key: again[key] for key in again if key in found}
        for key in found.keys() - self._findings.keys():
            self._say(key[0], key[1], '%s: %s. Remedy: %s' % (
                found[key].severity, found[key].evidence, found[key].remedy),
                found[key], False)
        for key in self._findings.keys() - found.keys():
            self._say(key[0], key[1], 'gone', self._findings[key], True)
        self._findings = found

    def _find(self) -> dict[_Key, Finding]:
        """Return what is wrong, by what says that it is the same again."""
        seen = self._following.seen.with_answer(self._ask())
        found = {audit.key(seen, finding): finding
                 for finding in audit.audit(seen, self._config)}
        if not seen.knows_domains:
            # Nobody knows whether these are gone.
            names = {link.name for link in seen.links.values()}
            found.update((key, finding)
                         for key, finding in self._findings.items()
                         if finding.code in audit.OF_DOMAINS
                         and finding.device in names)
        return found

    def _ask(self) -> domains.Answer | None:
        """Return what libvirt says, and tell what happens meanwhile.

        One that was silent is not waited for: should it answer after all,
        :meth:`_collect` is told.
        """
        self._question = self._question or domains.ask()
        while not self._question.is_over():
            if not self._answers:
                return None
            self._wait(self._question.left)
            self._drain()
        return self._take_answer()

    def _take_answer(self) -> domains.Answer | None:
        question, self._question = self._question, None
        found = inventory.answer(question)
        self._answers = found is not None
        return found

    def _say(self, event: str, device: str, details: str,
             finding: Finding | None = None,
             gone: bool | None = None) -> None:
        now = datetime.datetime.now(datetime.timezone.utc).isoformat(
            timespec='milliseconds')
        words = {'time': now, 'event': event, 'device': device,
                 'details': details}
        self.app.stdout.write(
            '%s %-9s %-15s %s\n' % tuple(words.values())
            if not self._json else json.dumps({
                **words, 'code': finding and finding.code,
                'severity': finding and str(finding.severity),
                'gone': gone}) + '\n')
        self.app.stdout.flush()
