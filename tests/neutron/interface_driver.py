# SPDX-License-Identifier: Apache-2.0

"""Our interface driver as an agent of Neutron has it, and its namespaces.

To be run by the Python of a Neutron. Nobody else sees the namespaces that it
makes. Says "started" when it can be asked. Each line of its input is a call,
as JSON: of the driver, or of a function here, and what is passed. It says in
a line of JSON what that returned, and what it raised, if it did.
"""

import json
import logging
import os
import sys

from neutron.agent.linux import ip_lib
from neutron.common import config as neutron_config
from neutron.conf.agent import common as agent_options
from neutron.conf.agent.l3 import config as l3_options
from neutron import privileged
from oslo_config import cfg
from oslo_privsep import priv_context

from tests import hosts
from tests import patience
from vif_plug_tapmac.agent import interface
from vif_plug_tapmac.ml2 import opts as ml2_options


def look(device, namespace):
    """Return what there is of a device in a namespace; None: nothing."""
    found = ip_lib.IPDevice(device, namespace)
    return found.exists() and {
        **found.link.attributes,
        'addresses': [each['cidr'] for each in found.addr.list()]} or None


def forget_namespace(namespace):
    """Have a namespace without its name, as who is in it keeps it."""
    held = os.open('/run/netns/' + namespace, os.O_RDONLY)
    ip_lib.IPWrapper().netns.delete(namespace)
    return held


class Kept(logging.Handler):
    """Keeps what is logged from when it is made."""

    def __init__(self):
        super().__init__()
        self.messages = []
        interface.LOG.setLevel(logging.INFO)
        interface.LOG.addHandler(self)

    def emit(self, record):
        self.messages.append(record.getMessage())


def said():
    """Return what the driver has logged since it was asked before."""
    found, kept.messages = kept.messages, []
    return found


def other(mode, mappings='', passed=None):
    """Make another driver, as an L3 agent does, and have it plug.

    :param mode: agent_mode
    :param mappings: bridge_mappings
    :param passed: None: it plugs nothing
    """
    conf = cfg.ConfigOpts()
    agent_options.register_interface_driver_opts_helper(conf)
    conf.register_opts(l3_options.OPTS)
    ml2_options.group(conf)
    conf([])
    conf.set_override('agent_mode', mode)
    conf.set_override('bridge_mappings', mappings, 'ml2_tapmac')
    driver = interface.TapMacInterfaceDriver(conf)
    if passed is not None:
        driver.plug(**passed)


def main(configuration):
    answers, sys.stdout = sys.stdout, sys.stderr
    hosts.own_mounts()
    hosts.mount('tmpfs', '/run', 'tmpfs')
    neutron_config.register_common_config_options()
    agent_options.register_root_helper()
    cfg.CONF.set_default('root_helper', '', 'AGENT')
    neutron_config.init(['--config-file', configuration])
    for each in vars(privileged).values():
        if isinstance(each, priv_context.PrivContext):
            each.set_client_mode(False)
    # On a busy machine it takes longer until an agent is heard of.
    interface._JOINS_WITHIN = patience.HANG
    global kept
    kept = Kept()
    driver = interface.TapMacInterfaceDriver(cfg.CONF)
    print('started', file=answers, flush=True)
    for line in sys.stdin:
        name, passed = json.loads(line)
        try:
            answer = (globals().get(name) or getattr(driver, name))(
                **passed), None
        except Exception as error:
            answer = None, '%s: %s' % (type(error).__name__, error)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == '__main__':
    main(*sys.argv[1:])
