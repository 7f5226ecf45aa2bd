# SPDX-License-Identifier: Apache-2.0

"""What ``tapmac plug`` and ``tapmac unplug`` share: a VIF by hand.

os-vif is loaded by whoever calls it: it loads oslo.messaging, which takes
longer than all the rest.
"""

import argparse
import logging
import typing

from oslo_config import cfg

from vif_plug_tapmac.cli import as_root
from vif_plug_tapmac.cli import mac as mac_command
from vif_plug_tapmac import opts


def add_arguments(parser: argparse.ArgumentParser, required: bool) -> None:
    """Add what says which VIF.

    :param required: whether bridge and MAC must be given
    """
    parser.add_argument('--bridge', metavar='BRIDGE', required=required,
                        help='the bridge of the TAP, as in br100')
    parser.add_argument('--mac', metavar='MAC', required=required,
                        type=mac_command.mac_argument,
                        help='the MAC of the guest')
    parser.add_argument('--dry-run', action='store_true',
                        help='only say what would be done')


def call_os_vif(function: str, vif: typing.Any) -> None:
    """Have os-vif do something with a VIF, as root, in this process.

    :param function: "plug" or "unplug"
    :raises TapMacError: what tapmac raises
    """
    as_root.act_as_root()
    import os_vif
    from os_vif import exception as os_vif_exception
    from os_vif.objects import instance_info
    # Wrapping Nova is for nova-compute.
    cfg.CONF.set_override('nova_managed_tap', False, group=opts.GROUP)
    try:
        os_vif.initialize()
        # It logs the traceback of what it raises, which is told without.
        logging.getLogger('os_vif').setLevel(logging.CRITICAL)
        getattr(os_vif, function)(vif, instance_info.InstanceInfo(
            uuid='00000000-0000-4000-8000-000000000000', name='by-hand'))
    except (os_vif_exception.PlugException,
            os_vif_exception.UnplugException) as error:
        raise error.kwargs['err']
