# SPDX-License-Identifier: Apache-2.0

"""What Neutron is told of ports: whose TAP went, and which ones are wired.

That takes it some tenths of a second for each, so minutes for a thousand that
came together. No rule is to wait for that, so it is told in parts, and what is
dirty meanwhile comes in between.
"""

import itertools
import logging
import math
import typing

from vif_plug_tapmac.agent.state import State
from vif_plug_tapmac.agent.taps import Tap
from vif_plug_tapmac.agent.taps import Taps
from vif_plug_tapmac.agent import waiting
from vif_plug_tapmac.agent.waiting import Waiting

if typing.TYPE_CHECKING:
    # Neutron is there only where the agent is.
    from vif_plug_tapmac.agent.server import Server

LOG = logging.getLogger(__name__)

#: Of how many ports at once: by default Neutron is told so many in one call.
AT_ONCE = 20


class Telling:
    """What Neutron does not know yet.

    :param server: is told
    :param taps: know whether a port is still what it was when it was wired
    :param state: counts what is told again
    """

    def __init__(self, server: 'Server', taps: Taps, state: State) -> None:
        self._server, self._taps, self._state = server, taps, state
        self._lost: dict[str, Waiting] = {}
        self._wired: dict[str, Tap] = {}

    def lose(self, ports: typing.Iterable[str]) -> None:
        """Have it told that the TAPs of these went, even if others came."""
        for port in ports:
            self._lost[port] = self._lost.get(port, Waiting())._replace(
                due=0.0)

    def is_lost(self, port: str) -> bool:
        """Return whether Neutron is to hear that a port's TAP went."""
        return port in self._lost

    def wire(self, taps: typing.Mapping[str, Tap]) -> None:
        """Have it told that these ports are up, when they have been down."""
        self._wired.update(taps)

    def unwire(self, port: str) -> None:
        """Leave it untold: it may be another matter by now."""
        self._wired.pop(port, None)

    def left(self) -> set[str]:
        """Return the ports that there is something to be told of."""
        return {*self._lost, *self._wired}

    def due(self) -> float:
        """Return when there is, of the monotonic clock."""
        if self._wired.keys() - self._lost.keys():
            return -math.inf
        return min((each.due for each in self._lost.values()),
                   default=math.inf)

    def tell(self) -> frozenset[str]:
        """Tell it of some; return those that it could not have up.

        What fails by an exception is still to be told.
        """
        self._set_down(sorted(waiting.due(self._lost))[:AT_ONCE])
        here = self._taps.here()
        for port, tap in list(self._wired.items()):
            if here.get(port) != tap:
                self.unwire(port)  # It is dirty.
        some = dict(itertools.islice(
            ((port, tap) for port, tap in self._wired.items()
             if port not in self._lost), AT_ONCE))
        failed = self._server.set_up(some.keys())
        for port, tap in some.items():
            self.unwire(port)
            if port not in failed:
                LOG.info('Port %s is wired: %s', port, tap.name)
        return failed

    def tell_lost(self, ports: typing.Iterable[str]) -> frozenset[str]:
        """Tell it of some of these ports that their TAP went.

        Before these are fed: whoever was fed is not known to be lost, if the
        agent is killed before it has told so.

        :returns: those others of them that it is to be told of
        """
        lost = sorted(waiting.due(self._lost).intersection(ports))
        self._set_down(lost[:AT_ONCE])
        return frozenset(lost[AT_ONCE:])

    def _set_down(self, ports: list[str]) -> None:
        """Tell whose TAP went; what Neutron can not have down is tried again.

        One that is here again meanwhile is asked for with that, and is up as
        Neutron has it until it is down.
        """
        self._state.retries += sum(self._lost[port].tries > 0
                                   for port in ports)
        failed = self._server.set_down(ports)
        for port in ports:
            before = self._lost.pop(port)
            if port not in failed:
                continue
            if not before.tries:
                LOG.warning('Neutron could not have port %s down, whose TAP '
                            'is gone; it is told so again and again', port)
            self._lost[port] = before.again('')
