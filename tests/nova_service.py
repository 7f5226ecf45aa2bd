# SPDX-License-Identifier: Apache-2.0

"""Starts a nova-compute, which is tests/nova_compute.py, and ends it."""

import json
import os
import pathlib
import signal
import subprocess
import typing

from tests import base
from tests import patience

#: Against a start that hangs; it takes three seconds.
_NOVA_CONF = """
[DEFAULT]
host = host1
my_ip = 127.0.0.1
state_path = {directory}
compute_driver = {driver}
transport_url = fake:///
periodic_enable = false
manager_shutdown_timeout = 0
log_file = {directory}/nova-compute.log
[compute]
provider_config_location = {directory}
[database]
connection = sqlite:///{directory}/nova.sqlite
[oslo_concurrency]
lock_path = {directory}
[vif_plug_tapmac_privileged]
helper_command = {helper} {config}
[os_vif_tapmac]
udev_timeout = 0
"""


class NovaCompute:
    """A nova-compute in a process of its own.

    :ivar started: whether it got so far that it works
    """

    def __init__(self, directory: str, python: pathlib.Path,
                 guests: list[dict[str, typing.Any]],
                 driver: str = 'fake.TapMacDriver', more_conf: str = '',
                 helper: str | None = None,
                 popen: typing.Callable[..., typing.Any] | None = None,
                 more_path: str = '') -> None:
        """Start it, and wait until it works or has ended.

        :param directory: of its own, except for one that was there before
        :param guests: see tests/nova_compute.py
        :param helper: starts the privsep daemon; None for Nova's own
        :param popen: starts a program where nova-compute is to be; None for
            here
        :param more_path: a directory for Python to find modules in
        """
        self.directory = pathlib.Path(directory)
        # Both, or Nova reads /etc/nova as well.
        nova_conf = self.directory / 'nova.conf'
        config = ['--config-file', str(nova_conf),
                  '--config-dir', str(self.directory)]
        nova_conf.write_text(_NOVA_CONF.format(
            directory=directory, driver=driver, config=' '.join(config),
            helper=helper or python.parent / 'privsep-helper') + more_conf)
        with open(self.directory / 'stderr', 'a') as stderr:
            self._process = (popen or subprocess.Popen)(
                [str(python), '-m', 'tests.nova_compute', *config],
                text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=stderr,
                env=dict(os.environ, PYTHONWARNINGS='ignore',
                         PYTHONPATH='%s:%s' % (base.CHECKOUT, more_path),
                         OS_NOVA_DISABLE_EVENTLET_PATCHING=''))
        json.dump(guests, self._process.stdin)
        self._process.stdin.close()
        self.started = self._process.stdout.readline() == 'started\n'

    def end(self, number: int = signal.SIGTERM) -> int:
        """End it as an init system does, or worse; return its exit status."""
        if self.started:
            self._process.send_signal(number)
        self._process.stdout.close()
        return self._process.wait(patience.HANG)

    @property
    def log(self) -> str:
        log = self.directory / 'nova-compute.log'
        return log.read_text() if log.exists() else ''

    @property
    def stderr(self) -> str:
        return (self.directory / 'stderr').read_text()
