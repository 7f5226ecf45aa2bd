# SPDX-License-Identifier: Apache-2.0

"""How this agent is, for whoever asks; and for Prometheus, in a file."""

import contextlib
import logging
import os
import threading
import time

LOG = logging.getLogger(__name__)


class State:
    """How this agent is, as the thread that works has it.

    :param file: where :meth:`write` writes it; empty for nowhere

    :ivar ports: how many are here: TAPs of ours, and interfaces of DHCP and L3
        agents
    :ivar waiting: how many of these are not as Neutron says, or not known to
        be so
    :ivar retries: how often something was tried again
    :ivar synced: when all ports were last as Neutron said, in seconds since
        1970; 0 before the first time
    """

    def __init__(self, file: str) -> None:
        self._file = file
        self._writing = threading.Lock()
        self.ports = self.waiting = self.retries = 0
        self.synced = 0.0

    def metrics(self) -> str:
        """Return that in the text format of Prometheus."""
        return ''.join(
            '# HELP tapmac_agent_%s %s\n# TYPE tapmac_agent_%s %s\n'
            'tapmac_agent_%s %s\n' % (name, meaning, name, kind, name,
                                      repr(value))
            for name, meaning, kind, value in (
                ('ports', 'TAPs of tapmac on this host, and interfaces of '
                 'DHCP and L3 agents.', 'gauge', self.ports),
                ('ports_waiting', 'Those of them that are not as Neutron '
                 'says, or not known to be.', 'gauge', self.waiting),
                ('retries_total', 'How often something was tried again.',
                 'counter', self.retries),
                ('last_sync_time_seconds', 'When all ports were as Neutron '
                 'said, in seconds since 1970; 0: never yet.', 'gauge',
                 round(self.synced, 3)),
                ('written_time_seconds', 'When this was written, in seconds '
                 'since 1970.', 'gauge', round(time.time(), 3))))

    def write(self) -> None:
        """Write the file, if there is to be one, as a whole."""
        if not self._file:
            return
        with self._writing:
            write(self._file, self.metrics(), 'metrics_file')


def write(path: str, text: str, option: str) -> bool:
    """Write a file as a whole; return whether that could be done.

    :param option: which has its path, for the log
    """
    new = path + '.new'
    try:
        with open(new, 'w') as file:
            file.write(text)
        os.replace(new, path)
        return True
    except OSError as error:
        LOG.warning('%s can not be written: %s', option, error)
        with contextlib.suppress(OSError):
            os.unlink(new)
        return False
