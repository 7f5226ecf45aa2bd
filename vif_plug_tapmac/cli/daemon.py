# SPDX-License-Identifier: Apache-2.0

"""Whether a privileged daemon can be started as its service starts it."""

import contextlib
import io
import logging
import os
import select
import shlex
import signal
import typing

from oslo_config import cfg


#: In seconds; it takes half of one.
_STARTS_WITHIN = 30.0
#: Of what a daemon that fails has said.
_WORDS = 60


def failure(context: str) -> str | None:
    """Start a daemon and end it; return what went wrong, None if nothing.

    In a process of its own, which has no terminal: sudo is to fail rather than
    to ask for a password. oslo.privsep may hang where the daemon fails; it is
    given half a minute.

    :param context: which of :mod:`vif_plug_tapmac.privsep`: "vif_plug" is
        nova-compute's, "filter" is tapmac-agent's
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            os.write(writer, _start(context).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, 'rb', buffering=0) as said:
        try:
            if not select.select([said], [], [], _STARTS_WITHIN)[0]:
                return ('it neither started nor failed within %g s'
                        % _STARTS_WITHIN)
            # Nothing: the process was killed.
            answer = said.read(65536).decode() or 'it ended without a word'
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
    return None if answer == _STARTED else answer


_STARTED = 'started'


def _start(name: str) -> str:
    from oslo_privsep import priv_context
    from vif_plug_tapmac import privsep
    # A service opens its log before it starts the daemon. Made by that, as
    # root, it would be closed to the service.
    if cfg.CONF.log_file:
        path = os.path.join(cfg.CONF.log_dir or '', cfg.CONF.log_file)
        try:
            open(path, 'a').close()
        except OSError as error:
            return 'the log can not be opened: %s' % error
    if name == 'vif_plug':
        with contextlib.suppress(ImportError):  # As nova-compute does it.
            from nova import utils
            priv_context.init(root_helper=shlex.split(utils.get_root_helper()))
    # What the daemon says before it is one; of interest if it fails.
    said = io.StringIO()
    logging.basicConfig(stream=said, format='%(message)s', force=True)
    context: typing.Any = getattr(privsep, name)
    try:
        context.start(priv_context.Method.ROOTWRAP)
    except Exception as error:  # Whatever it is, it keeps plugs from working.
        return '%s: %s (%s)' % (type(error).__name__, error, ' '.join(
            said.getvalue().split()[-_WORDS:]))
    context.stop()
    return _STARTED
