# SPDX-License-Identifier: Apache-2.0

"""``tapmac explain``: what becomes of a frame that a guest sends, and why."""

import argparse
import dataclasses
import os
import sys
import typing

from oslo_log import log as logging

from vif_plug_tapmac.cli import as_root
from vif_plug_tapmac.cli import configuration
from vif_plug_tapmac.cli import layout
from vif_plug_tapmac.cli import output
from vif_plug_tapmac.cli import tap_table
from vif_plug_tapmac import exception
from vif_plug_tapmac.host import agent_frames
from vif_plug_tapmac.host import agent_names
from vif_plug_tapmac.host import capture
from vif_plug_tapmac.host import explaining
from vif_plug_tapmac.host import group_wording
from vif_plug_tapmac.host import interpreting
from vif_plug_tapmac.host import inventory
from vif_plug_tapmac.host import keeping
from vif_plug_tapmac.host.packet import Packet
from vif_plug_tapmac.host.tap import Tap
from vif_plug_tapmac.host import wording
from vif_plug_tapmac.kernel.agent_port import AgentPort
from vif_plug_tapmac.kernel.agent_port import group_of
from vif_plug_tapmac.kernel import exit_rules
from vif_plug_tapmac.kernel import filter_steps
from vif_plug_tapmac.kernel import filter_table
from vif_plug_tapmac.kernel import guest_filter

LOG = logging.getLogger(__name__)

_COLUMNS = ('Number', 'Frame', 'Verdict', 'By', 'Chain', 'Rule', 'Because',
            'Passes with', 'Let pass by', 'Security group',
            'Security group rule')
_PASSES, _DROPPED = 'passes', 'dropped'
#: The exit status if a frame is dropped.
_SOME_DROPPED = 10
#: Source: net/bridge/br_input.c, br_handle_frame
_LLDP = bytes.fromhex('0180c200000e')
#: How much is read of a file, in octets: more is not looked through at once.
_MOST = 64 << 20


class _Judges(typing.NamedTuple):
    """By what the frames of a TAP are judged."""
    sets: interpreting.Sets
    rules: interpreting.Rules
    port: AgentPort | None
    names: agent_names.Names


class Explain(output.Lister):
    """Say what becomes of frames that the guest of a TAP sends, and why.

    The rules that keep guests to their addresses (anti_spoofing = full) are
    gone through with what the kernel has for this TAP, and so are its security
    groups, if tapmac-agent enforces them, and the lock of its port. With --to,
    the frames are for the guest, and only its security groups are asked. Of a
    frame that is dropped it is said by which rule, what that has seen in it,
    and with what instead it would pass; of one that passes, which rule of
    which security group lets it. Where groups are stateful, it is looked
    whether the kernel has a connection that the frame belongs to; the first
    frame of one is meant if not. No frame is sent, and nothing is changed, but
    by --log-drops. For a capture of what the guest sends, and only that:
    "tcpdump -i TAP -Q in -w - | tapmac explain TAP -"; of what it gets, "-Q
    out" and --to.

    Exit status: 0 if all frames pass, 10 if one is dropped, 1 if it can not be
    told. Needs CAP_NET_ADMIN, to see the rules.
    """

    LAYOUT = layout.Verdicts()
    _dropped = False

    def columns(self, parsed_args: argparse.Namespace) -> tuple[str, ...]:
        return _COLUMNS

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument('which', metavar='TAP',
                            help='as for "tapmac show"')
        parser.add_argument(
            '--log-drops', choices=('on', 'off'),
            help='instead, have the kernel\'s log say what is dropped of '
                 'this TAP\'s frames, ten in a second at most, or not; until '
                 'the table is made anew, as after "nft flush ruleset"')
        parser.add_argument(
            '--to', action='store_true',
            help='the frames are for the guest, not from it; what becomes of '
                 'them where they come from is another matter')
        parser.add_argument(
            'frame', metavar='FRAME', nargs='?',
            help='a frame in hex, from its destination MAC on, or a pcap '
                 'file with some; "-": either of them from standard input')
        # Or no option could be between the two.
        setattr(parser, 'parse_args', parser.parse_intermixed_args)
        return parser

    def take_action(
        self, parsed_args: argparse.Namespace,
    ) -> tuple[tuple[str, ...], list[tuple[typing.Any, ...]]]:
        if not as_root.may_change_links():
            raise exception.TapMacError(
                'What nftables drops is told to CAP_NET_ADMIN only: run this '
                'as root.')
        if (parsed_args.frame is None) == (parsed_args.log_drops is None):
            raise exception.TapMacError('Either a FRAME is to be explained, '
                                        'or --log-drops switches the log.')
        frames = [] if parsed_args.log_drops else _frames(parsed_args.frame)
        seen = inventory.read(configuration.read(self.app_args))
        tap = tap_table.require_one(seen, parsed_args.which)
        if parsed_args.log_drops:
            guest_filter.log_drops(tap.link.index,
                                   parsed_args.log_drops == 'on')
            return _COLUMNS, []
        for note in _notes(seen, tap):
            LOG.warning('%s', note)
        judges = _judges(seen, tap)
        rows = []
        for number, frame in enumerate(frames, 1):
            if not frame.is_whole:
                LOG.warning('Frame %d was cut off when it was captured: what '
                            'is missing is taken for zeros.', number)
            rows.append((number, *_row(seen, tap, judges, Packet(
                frame.octets, tap.link.index, tap.link.group,
                parsed_args.to))))
        self._dropped = any(_DROPPED in row for row in rows)
        return _COLUMNS, rows

    def run(self, parsed_args: argparse.Namespace) -> int:
        return super().run(parsed_args) or (
            _SOME_DROPPED if self._dropped else 0)


def _frames(what: str) -> list[capture.Frame]:
    """Return the frames that are meant.

    :raises TapMacError: there are none
    """
    try:
        if what == '-':
            data = sys.stdin.buffer.read(_MOST + 1)
        elif os.path.exists(what):
            with open(what, 'rb') as file:
                data = file.read(_MOST + 1)
        else:
            data = os.fsencode(what)
        if len(data) > _MOST:
            raise ValueError('it has more than %d MiB' % (_MOST >> 20))
        return capture.read(data)
    except (OSError, ValueError) as error:
        raise exception.TapMacError('%s tells no frame: %s.' % (
            'Standard input' if what == '-' else what[:80],
            getattr(error, 'strerror', None) or error))


def _judges(seen: inventory.Inventory, tap: Tap) -> _Judges:
    """Return what this kernel has for a TAP."""
    sets, rules, port = _sets(seen, tap), explaining.RULES, None
    names = agent_names.NONE
    if keeping.is_agents(seen, tap):
        port = keeping.agent_port(tap)
        sets = {**sets, **agent_frames.sets(port, tap.link.index,
                                            tap.link.group)}
        names = configuration.names()
    if port is not None:
        rules = agent_frames.rules(port)
    return _Judges(sets, rules, port, names)


def _sets(seen: inventory.Inventory, tap: Tap) -> interpreting.Sets:
    """Return what the kernel has in its sets, as far as it is of a TAP."""
    found: dict[str, set[bytes]] = {}
    if seen.guest_filter is not None:
        found[filter_table.GROUPS] = set(map(filter_steps.number_key,
                                             seen.guest_filter.groups))
        exits = seen.guest_filter.exits
        found[exit_rules.PORTS] = set(map(filter_steps.number_key,
                                          exits.ports))
        found[exit_rules.HOST] = (
            {exit_rules.ALL_TAPS + bytes(2)} if exits.is_host else set())
        for each in seen.guest_filter.ports.get(tap.link.index, ()):
            found.setdefault(each.set, set()).add(filter_steps.key(
                tap.link.index, each.mac, each.address))
    return found


def _notes(seen: inventory.Inventory, tap: Tap) -> typing.Iterator[str]:
    """Yield why it may be otherwise than the rules say."""
    name, table = tap.shown_name, seen.guest_filter
    if tap.bridge is None or not tap.link.up:
        yield ('%s is %s: nothing of its guest gets anywhere.' % (
            name, 'on no bridge' if tap.bridge is None else 'down'))
    if table is None or table.version is None:
        yield ('There is no table bridge %s in this kernel: no rule of it '
               'drops anything.' % filter_table.NAME)
        return
    if table.version > filter_table.VERSION or not table.is_right:
        yield ('The table bridge %s in the kernel is not the one that this '
               'release makes (its version is %d, and this release makes %d): '
               'what is said here of frames is what that one would do.' % (
                   filter_table.NAME, table.version, filter_table.VERSION))
    if keeping.is_off(seen, tap.link):
        yield ('The filter of %s is off: all that its guest sends passes but '
               'for tags, frames to 01:80:c2, and other MACs. See "tapmac '
               'filter".' % name)
    elif not keeping.is_closed(seen, tap.link):
        yield ('%s is in link group %d, which is not closed: no rule looks at '
               'what its guest sends. See "tapmac audit".'
               % (name, tap.link.group))
    elif not table.ports.get(tap.link.index):
        yield ('The table bridge %s has nothing for %s: all that its guest '
               'sends is dropped (TM228).' % (filter_table.NAME, name))


def _row(seen: inventory.Inventory, tap: Tap, judges: _Judges,
         packet: Packet) -> tuple[typing.Any, ...]:
    """Return what a frame has in the columns, but for its number."""
    frame = wording.summary(packet)
    if packet.octets.startswith(_LLDP) and not packet.goes_out:
        return _dropped(
            frame, 'bridge', 'destination MAC %s, for which no rule is asked: '
            'a bridge forwards it to nobody, and programs of this host that '
            'listen at the TAP get it' % _LLDP.hex(':'))
    if judges.port is not None and judges.port.stateful:
        packet = dataclasses.replace(packet, state=agent_frames.state(
            packet, judges.port))
    try:
        found = (explaining.explain(packet, judges.sets, judges.rules)
                 if filter_table.GROUPS in judges.sets
                 else explaining.Explanation())
    except interpreting.NotUnderstood as error:
        raise exception.TapMacError('Nothing can be told: %s.' % error)
    if not found.passes:
        return (frame, _DROPPED, 'security groups'
                if agent_frames.is_of_groups(found.chain) else 'filter',
                found.chain, found.why,
                found.because or 'no rule of its security groups is about '
                'such frames', list(found.passes_with), None, None, None)
    source = packet.octets[6:12].hex(':')
    by = None if packet.goes_out else (
        'lock' if keeping.is_locked_out(tap, source) else
        'source filter' if source not in keeping.macs(seen, tap)
        and not tap.link.locked and keeping.is_source_filtered(seen, tap)
        else None)
    if by is None:
        return (frame, _PASSES, None, None, None, None, [],
                *_let_pass(found, packet, judges))
    return _dropped(frame, by, 'source MAC %s' % source,
                    ['source MAC %s' % tap.guest_mac] if tap.guest_mac else [])


def _dropped(frame: str, by: str, because: str,
             passes_with: list[str] = []) -> tuple[typing.Any, ...]:
    return (frame, _DROPPED, by, None, None, because, passes_with, None, None,
            None)


def _let_pass(found: explaining.Explanation, packet: Packet,
              judges: _Judges) -> tuple[typing.Any, ...]:
    """Return by what it passes: in words, group, and rule."""
    port = judges.port
    if port is None or found.by is None:
        return None, None, None
    group = group_of(found.by.chain)
    if group is None:
        return (agent_frames.passes_by(found.by.chain, port), None, None)
    rule = judges.names.rule(group, found.by)
    says = group_wording.says(found.by, judges.names.group)
    return ('rule %s of security group %s' % (
        '%s (%s)' % (rule, says) if rule else '"%s"' % says,
        judges.names.group(group)), group, rule)
