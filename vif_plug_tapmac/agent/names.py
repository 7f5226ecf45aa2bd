# SPDX-License-Identifier: Apache-2.0

"""How security groups are called, for people; see :mod:`names_file`.

Neutron tells an agent groups by their UUIDs, and rules without any. So it is
asked once more, by a thread of its own, after all is in force; nothing of it
is ever waited for, and nothing is in force by it.
"""

import json
import logging
import random
import threading
import typing

from vif_plug_tapmac.agent import state
from vif_plug_tapmac.wanted import from_neutron
from vif_plug_tapmac.wanted.security_groups import Group

LOG = logging.getLogger(__name__)

#: In seconds: at most so long it waits after a change, so that not all hosts
#: ask at once, and what changes next is asked for with it; and before it asks
#: again where there was no answer.
_PAUSE, _AGAIN = 5.0, 60.0
_Describe = typing.Callable[
    [typing.Iterable[str]],
    tuple[dict[str, str], list[dict[str, typing.Any]]]]


class Names:
    """Writes the file, whenever something is another one.

    :param describe: as :meth:`agent.server.Server.describe`
    :param file: its path
    """

    def __init__(self, describe: _Describe, file: str) -> None:
        self._describe, self._file = describe, file
        self._changed = threading.Condition()
        # Those that there are, and those that are to be asked for.
        self._groups: dict[str, Group] = {}
        self._unknown: set[str] = set()
        self._written: dict[str, typing.Any] = {}
        self._has_failed = False

    def start(self) -> None:
        """Do it from now on."""
        threading.Thread(name='tapmac_names', target=self._run,
                         daemon=True).start()

    def learn(self, groups: dict[str, Group], is_all: bool) -> None:
        """Hear which groups there are, as Neutron said them.

        :param is_all: whether all are to be asked for anew: that one has
            another name is told to nobody
        """
        with self._changed:
            self._unknown |= {
                name for name, group in groups.items()
                if is_all or self._groups.get(name) != group}
            self._groups = dict(groups)
            self._unknown &= groups.keys()
            self._changed.notify()

    def _run(self) -> None:
        while True:
            groups, unknown = self._next()
            if not self._ask(groups, unknown):
                with self._changed:
                    self._unknown |= unknown & self._groups.keys()
                    self._changed.wait_for(lambda: False, _AGAIN)

    def _next(self) -> tuple[dict[str, Group], frozenset[str]]:
        """Wait for something to do; return all groups, and those to ask for.

        The latter are some of the former.
        """
        with self._changed:
            while not self._unknown and (
                    self._written.keys() <= _named(self._groups)):
                self._changed.wait()
            self._changed.wait_for(lambda: False, random.uniform(0, _PAUSE))
            unknown = frozenset(self._unknown)
            self._unknown.clear()
            return self._groups, unknown

    def _ask(self, groups: dict[str, Group],
             unknown: typing.AbstractSet[str]) -> bool:
        """Write what there is then; return whether Neutron has answered."""
        which = _named({name: groups[name] for name in unknown})
        try:
            names, rules = self._describe(which) if which else ({}, [])
        except Exception as error:  # Of whatever kind, the next may do.
            if not self._has_failed:
                LOG.warning('Neutron does not say how security groups are '
                            'called: %s. "tapmac show" has their ids until it '
                            'does', type(error).__name__)
            self._has_failed = True
            return False
        self._has_failed = False
        for uuid, name in names.items():
            former = self._written.get(uuid, {}).get('rules', [])
            self._written[uuid] = {'name': name, 'rules': [
                line for each in rules if each['security_group_id'] == uuid
                for line in _lines(each)] if uuid in unknown else former}
        for uuid in self._written.keys() - _named(groups):
            del self._written[uuid]
        state.write(self._file, json.dumps({'groups': self._written}),
                    'names_file')
        return True


def _named(groups: dict[str, Group]) -> set[str]:
    """Return the UUIDs of groups, and of those that their rules name."""
    return {*groups, *(
        rule.remote_set.partition(':')[2]
        for group in groups.values() for rule in group.rules
        if rule.remote_set and rule.remote_set.startswith('group:'))}


def _lines(told: dict[str, typing.Any]) -> typing.Iterator[list[typing.Any]]:
    """Yield what there is to say of a rule, if it can be had at all."""
    try:
        rule = from_neutron.rule({**told, 'id': None})
    except (ValueError, KeyError, TypeError):
        return
    yield [told['id'], rule.direction, rule.family, rule.id]
