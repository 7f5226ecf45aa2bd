# SPDX-License-Identifier: Apache-2.0

"""What happens to a table of nf_tables, as the kernel tells who listens.

That needs CAP_NET_ADMIN. Source: net/netfilter/nf_tables_api.c,
nft_commit_notify; include/uapi/linux/netfilter/nfnetlink.h
"""

import os
import typing

from vif_plug_tapmac.kernel import attributes
from vif_plug_tapmac.kernel.attributes import Attributes
from vif_plug_tapmac.kernel import events
from vif_plug_tapmac.kernel import nft
from vif_plug_tapmac.kernel import nft_sets
from vif_plug_tapmac.kernel import rtnetlink
from vif_plug_tapmac.kernel import session

#: As bits: NFNLGRP_NFTABLES.
_NFTABLES = 1 << 7 - 1
#: What happens to tables, chains, rules, sets and elements; and what ends all
#: that was done at once, and says who did.
_KINDS = {nft.message(kind + off): kind
          for kind in (0, 3, 6, 9, 12) for off in (0, 2)}
TABLE, CHAIN, RULE, SET, ELEMENTS = 0, 3, 6, 9, 12
#: The attribute that has the name of what it happens to, of those with one,
#: and of rules that of their chain. That of its table is the first of each.
_NAME = {CHAIN: 3, RULE: 2, SET: 2, ELEMENTS: 2}
_TABLE_NAME, _LIST_ELEMENTS = 1, 3
_PROCESS_NUMBER, _PROCESS_NAME = 2, 3


class Event(typing.NamedTuple):
    """What somebody has done to a table.

    :param port: of the socket that it was done by
    :param kind: TABLE and so on: to what
    :param name: of a chain, or of a set; the chain that a rule is in; empty:
        of the table
    :param is_gone: whether it is not there any more
    :param elements: of a set
    """
    port: int
    kind: int
    name: str
    is_gone: bool
    elements: tuple[nft_sets.Element, ...] = ()


class TableEvents(events.Listener):
    """What happens to one table of the bridge family.

    :ivar by_whom: who has changed rules of this host at last, but for this
        process: another one, by its name and number; empty: nobody says
    """

    def __init__(self, table: str) -> None:
        super().__init__(nft.Session.PROTOCOL, _NFTABLES)
        self._table = table
        self.by_whom = ''

    def wait(self, seconds: float | None) -> list[Event] | None:
        """Return what comes next, which may be nothing about this table.

        :param seconds: None: for ever
        :returns: None if nothing comes in time
        :raises Overrun: some was lost; it has those that were kept
        """
        try:
            data = self.receive(seconds)
        except events.Overrun as lost:
            raise events.Overrun([event for data in lost.kept
                                  for event in self._events(data)])
        return None if data is None else list(self._events(data))

    def _events(self, data: bytes) -> typing.Iterator[Event]:
        try:
            for message in rtnetlink.messages(data):
                if message.kind == nft.NEW_GENERATION:
                    self._remember(nft.read(message.body))
                elif (message.kind in _KINDS
                        and message.body[:1] == bytes([nft.BRIDGE])):
                    told = nft.read(message.body)
                    if told.text(_TABLE_NAME) == self._table:
                        yield _event(message, told)
        except (OSError, *session.GARBLED):
            raise events.Overrun()  # As if it had not come.

    def _remember(self, told: Attributes) -> None:
        number = nft.value(told, _PROCESS_NUMBER)
        if number not in (None, os.getpid()):
            self.by_whom = '%s (process %d)' % (
                told.text(_PROCESS_NAME) or 'somebody', number)


def _event(message: rtnetlink.Message, told: Attributes) -> Event:
    kind = _KINDS[message.kind]
    return Event(
        message.port, kind, told.text(_NAME[kind]) or ''
        if kind in _NAME else '', message.kind != nft.message(kind),
        tuple(nft_sets.decoded(Attributes(octets))
              for _, octets in attributes.every(
                  told.octets(_LIST_ELEMENTS) or b''))
        if kind == ELEMENTS else ())
