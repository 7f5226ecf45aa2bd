# SPDX-License-Identifier: Apache-2.0

"""What nova-compute does around plug, in a process of its own.

The test that starts it chooses the user, and eventlet or native threads.
"""

import sys
import typing

import os_vif
from oslo_config import cfg
from oslo_log import log as logging
from oslo_privsep import priv_context

from tests import base

#: How many VIFs are plugged at once.
VIFS = 16


def start(nova_conf: str = '/etc/nova/nova.conf') -> None:
    """Do what nova-compute does before it plugs.

    In the order of nova.cmd.compute.main, and with its default root helper.
    """
    logging.register_options(cfg.CONF)
    cfg.CONF.set_default('use_stderr', True)
    cfg.CONF([], project='nova', default_config_files=[nova_conf])
    logging.setup(cfg.CONF, 'nova')
    priv_context.init(
        root_helper=['sudo', 'nova-rootwrap', '/etc/nova/rootwrap.conf'])
    os_vif.initialize()


def main(
    concurrently: typing.Callable[..., typing.Iterable[typing.Any]],
) -> None:
    """Plug all VIFs at once; unplug them when a line comes in.

    :param concurrently: a "map" that makes all calls at the same time
    """
    start()
    vifs = [base.numbered_vif(number) for number in range(VIFS)]
    for call in os_vif.plug, os_vif.unplug:
        list(concurrently(call, vifs, [base.INSTANCE] * VIFS))
        print('done', flush=True)
        sys.stdin.readline()
