# SPDX-License-Identifier: Apache-2.0

"""``tapmac watch``: what happens to TAPs and bridges, as it happens."""

import argparse
import datetime
import json
import time
import typing

from cliff import command

from vif_plug_tapmac.cli import configuration
from vif_plug_tapmac.host import audit
from vif_plug_tapmac.host.finding import Finding
from vif_plug_tapmac.host import inventory
from vif_plug_tapmac.kernel import events
from vif_plug_tapmac.kernel.link import Link

# A plug makes a dozen events in some milliseconds; what is wrong is looked
# for when they are through, or after so many seconds in any case.
_QUIET, _LATEST = 0.3, 2.0
#: How often to look at once where something happens all the time.
_LOOKS = 3


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
            '--interval', metavar='SECONDS', type=float, default=10.0,
            help='how often to look for what netlink does not tell: domains, '
                 'sysctls. Default: %(default)g')
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        self._json = parsed_args.format == 'json'
        self._config = configuration.read(self.app_args)
        self._findings: dict[tuple[str, str], Finding] = {}
        try:
            with events.LinkEvents() as happening:
                self._watch(happening, parsed_args.interval)
        except KeyboardInterrupt:
            return

    def _watch(self, happening: events.LinkEvents, interval: float) -> None:
        self._seen = inventory.read(self._config)
        self._say('watching', 'this host', '%d TAPs, %d bridges' % (
            sum(tap.is_ours for tap in self._seen.taps),
            len(self._seen.bridges)))
        while True:
            self._audit()
            self._collect(happening, interval)
            self._follow(self._read(happening))

    def _read(self, happening: events.LinkEvents) -> inventory.Inventory:
        """Look at the whole host, and pass over what happened before.

        Events that came before the look would tell again, and backwards, what
        it has seen already.
        """
        for _ in range(_LOOKS):
            seen = inventory.read(self._config)
            if not self._next(happening, 0):
                break
            while self._next(happening, 0):
                pass
        return seen

    def _collect(self, happening: events.LinkEvents, interval: float) -> None:
        """Say what happens, up to when it deserves a look at the whole."""
        batch = self._next(happening, interval)
        latest = time.monotonic() + _LATEST
        while batch:
            links = dict(self._seen.links)
            for event in batch:
                links.pop(event.link.index, None)
                if not event.deleted:
                    links[event.link.index] = event.link
            self._follow(self._seen.with_links(links))
            if time.monotonic() > latest:
                break
            batch = self._next(happening, _QUIET)

    def _next(self, happening: events.LinkEvents,
              seconds: float) -> list[events.LinkEvent]:
        try:
            return happening.wait(seconds)
        except events.Overrun:  # All links are read next.
            return []

    def _follow(self, now: inventory.Inventory) -> None:
        """Say what is different by now."""
        before, after = _concerned(self._seen), _concerned(now)
        for index in sorted(before | after):
            for event, details in _changes(
                    self._seen if index in before else None,
                    now if index in after else None, index):
                name = (now if index in after else self._seen).links[
                    index].name
                self._say(event, name, details)
        self._seen = now

    def _audit(self) -> None:
        found = {(finding.code, finding.device): finding for finding
                 in audit.audit(self._seen, self._config)}
        for key in found.keys() - self._findings.keys():
            self._say(key[0], key[1], '%s: %s. Remedy: %s' % (
                found[key].severity, found[key].evidence, found[key].remedy))
        for key in self._findings.keys() - found.keys():
            self._say(key[0], key[1], 'gone')
        self._findings = found

    def _say(self, event: str, device: str, details: str) -> None:
        now = datetime.datetime.now(datetime.timezone.utc).isoformat(
            timespec='milliseconds')
        words = {'time': now, 'event': event, 'device': device,
                 'details': details}
        self.app.stdout.write(
            json.dumps(words) + '\n' if self._json
            else '%s %-9s %-15s %s\n' % tuple(words.values()))
        self.app.stdout.flush()


def _concerned(seen: inventory.Inventory) -> set[int]:
    return ({tap.link.index for tap in seen.taps if not tap.is_being_made}
            | {bridge.index for bridge in seen.bridges})


def _changes(before: inventory.Inventory | None,
             now: inventory.Inventory | None,
             index: int) -> typing.Iterator[tuple[str, str]]:
    """Yield each event, in a word, with details."""
    old = before.links[index] if before else None
    new = now.links[index] if now else None
    if old is None or new is None:
        appeared = new is not None
        link = new or old
        assert link is not None
        yield (('plug' if appeared else 'unplug') if link.is_tap
               else ('bridge' if appeared else 'removed'),
               'MAC %s%s' % (link.mac, _on((now or before), link)))
        return
    if old.mac != new.mac:
        yield 'MAC', '%s, was %s' % (new.mac, old.mac)
    if old.master != new.master:
        yield ('join' if new.master else 'leave',
               'now%s, was%s' % (_on(now, new) or ' on no bridge',
                                 _on(before, old) or ' on no bridge'))
    if old.mtu != new.mtu:
        yield 'MTU', '%d, was %d' % (new.mtu, old.mtu)
    if old.up != new.up:
        yield ('up' if new.up else 'down'), ''
    if old.held != new.held:
        yield (('held', 'a guest has it') if new.held
               else ('released', 'no guest has it any more'))


def _on(seen: inventory.Inventory | None, link: Link) -> str:
    bridge = seen and seen.links.get(link.master or 0)
    return ' on %s' % bridge.name if bridge else ''
