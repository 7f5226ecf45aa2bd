# SPDX-License-Identifier: Apache-2.0

"""The privileged contexts: CAP_NET_ADMIN and nothing else.

One for the plugin, one for an agent. A daemon runs the doors of its own only:
who has got hold of nova-compute opens no port of an agent's.
"""

from concurrent import futures
import contextlib
import threading
import typing

from oslo_config import cfg
from oslo_log import log as logging
from oslo_privsep import capabilities
from oslo_privsep import comm
from oslo_privsep import priv_context

from vif_plug_tapmac import exception
from vif_plug_tapmac import opts

LOG = logging.getLogger(__name__)

_SECTION = 'vif_plug_tapmac_privileged'
_AGENTS_SECTION = 'tapmac_agent_privileged'
#: How many calls the daemon works on at once. The default of oslo.privsep, as
#: many as there are CPUs, is for work; but nearly all of an unplug is that the
#: kernel waits (synchronize_net), which many can do at once.
_THREADS = 16
#: In seconds, for the daemon to be there. It takes one; a sudo that asks a
#: directory of users may take any time.
_STARTS_WITHIN = 60.0
#: In seconds, for the end of a connection to be noticed.
_END_IS_NOTICED_WITHIN = 5.0
#: In seconds, for an answer, beside what it waits for udev: several times what
#: the longest call may take.
_ANSWERS_WITHIN = 60.0


class Context(priv_context.PrivContext):
    """A context whose daemon may die: the call fails, the next one works.

    oslo.privsep sees to that by itself only if the daemon had read all that
    was sent to it. If not, its end is a reset of the connection, of which the
    thread that reads dies: the call waits for ever, and no later one starts
    another daemon.
    Source: oslo_privsep/comm.py, ClientChannel._reader_main
    """

    def __init__(self, *args: typing.Any, **kwargs: typing.Any) -> None:
        super().__init__(*args, **kwargs)
        self._restart = threading.Lock()
        self._begin = threading.Lock()
        self._start: futures.Future[None] | None = None

    def start(self, *args: typing.Any, **kwargs: typing.Any) -> None:
        """Start the daemon, or wait for it where that was begun before.

        oslo.privsep waits for its helper without bound, in a thread of its own
        here. Whenever that comes to an end, the next call knows.

        :raises _Unstarted: it is not there in time
        """
        with self._begin:
            if self._start is None or self._start.done():
                self._start = futures.Future()
                threading.Thread(name='tapmac_privsep_start', daemon=True,
                                 target=self._run_start,
                                 args=(self._start, args, kwargs)).start()
            start = self._start
        futures.wait([start], _STARTS_WITHIN)
        if not start.done():
            raise _Unstarted()
        start.result()

    def _run_start(self, start: 'futures.Future[None]',
                   args: tuple[typing.Any, ...],
                   kwargs: dict[str, typing.Any]) -> None:
        try:
            super().start(*args, **kwargs)
            threading.Thread(name='tapmac_privsep_end', daemon=True,
                             target=_wait_for_end,
                             args=(self.channel,)).start()
            start.set_result(None)
        except BaseException as error:  # Of whatever kind, who waits gets it.
            start.set_exception(error)

    @contextlib.contextmanager
    def calling(self, device: str) -> typing.Iterator[None]:
        """Have a daemon, and say so if a call in here gets no answer.

        :param device: what the call is about, for the error
        :raises DaemonUnstarted: its helper has not started it in time
        :raises DaemonLost: it ended
        :raises DaemonSilent: it has not answered in time
        """
        # The calls of a context have one limit; this is always the same.
        self.timeout = seconds = (_ANSWERS_WITHIN
                                  + opts.group(cfg.CONF).udev_timeout)
        with self._restart:
            if (self.channel is not None
                    and not self.channel.reader_thread.is_alive()):
                LOG.warning('The privileged daemon of tapmac has ended; '
                            'another is started')
                self.stop()
        try:
            yield
        except _Unstarted:
            raise exception.DaemonUnstarted(
                device=device, seconds='%g' % _STARTS_WITHIN,
                section=self.cfg_section)
        except comm.PrivsepTimeout:
            raise exception.DaemonSilent(device=device,
                                         seconds='%g' % seconds)
        except OSError as error:
            if self.channel is None:
                raise
            self.channel.reader_thread.join(_END_IS_NOTICED_WITHIN)
            if self.channel.reader_thread.is_alive():
                raise
            raise exception.DaemonLost(device=device, error=error)


class _Unstarted(Exception):
    """The daemon is not there in time; its start goes on."""


def _wait_for_end(channel: typing.Any) -> None:
    """Do what a reader does at its end, if it did not get there."""
    channel.reader_thread.join()
    with channel.lock:
        for future in channel.outstanding_msgs.values():
            future.set_exception(ConnectionResetError(
                'the connection was reset'))
        channel.running = False


vif_plug = Context(
    'vif_plug_tapmac',
    cfg_section=_SECTION,
    pypath=__name__ + '.vif_plug',
    capabilities=[capabilities.CAP_NET_ADMIN],
)
cfg.CONF.set_default('thread_pool_size', _THREADS, group=_SECTION)

filter = Context(
    'vif_plug_tapmac',
    cfg_section=_AGENTS_SECTION,
    pypath=__name__ + '.filter',
    capabilities=[capabilities.CAP_NET_ADMIN],
)
