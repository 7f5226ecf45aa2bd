# SPDX-License-Identifier: Apache-2.0

"""What neutron-server does for agents over RPC, by its own classes.

To be run by the Python of a Neutron, with its configuration. Says "started"
when it is. Each line of its input is a call, as JSON: a class, one of its
methods, and what an agent passes. It says in a line of JSON what the agent
would be answered, as it goes through a queue. Nova it tells itself, as
neutron-server does.
"""

import json
import sys

from neutron.api.rpc.handlers import dhcp_rpc
from neutron.api.rpc.handlers import securitygroups_rpc
from neutron.common import config
from neutron.db import agents_db
from neutron import manager
from neutron.plugins.ml2 import rpc
from neutron_lib import context
from neutron_lib.plugins import directory
from oslo_serialization import jsonutils


def main(configuration):
    # What is logged goes elsewhere.
    answers, sys.stdout = sys.stdout, sys.stderr
    config.register_common_config_options()
    config.init(['--config-file', configuration])
    config.setup_logging()
    manager.init()
    plugin = directory.get_plugin()
    known = {'ports': rpc.RpcCallbacks(plugin.notifier, plugin.type_manager),
             'groups': securitygroups_rpc.SecurityGroupServerRpcCallback(),
             'dhcp': dhcp_rpc.DhcpRpcCallback(),
             'agents': agents_db.AgentExtRpcCallback()}
    print('started', file=answers, flush=True)
    for line in sys.stdin:
        name, method, passed = json.loads(line)
        answer = getattr(known[name], method)(
            context.get_admin_context(), **passed)
        print(jsonutils.dumps(answer), file=answers, flush=True)


if __name__ == '__main__':
    main(*sys.argv[1:])
