# SPDX-License-Identifier: Apache-2.0

"""What neutron-server tells an agent over RPC, from its own classes.

To be run by the Python of a Neutron, with its configuration, a host, and the
names of TAPs there. Writes two things as JSON, as they go through a queue:
what there is about their security groups, and their details.
"""

import sys

from neutron.api.rpc.handlers import securitygroups_rpc
from neutron.common import config
from neutron import manager
from neutron.plugins.ml2 import rpc
from neutron_lib import context
from neutron_lib.plugins import directory
from oslo_serialization import jsonutils


def main(configuration, host, *devices):
    config.register_common_config_options()
    config.init(['--config-file', configuration])
    manager.init()
    plugin = directory.get_plugin()
    who = context.get_admin_context()
    told = securitygroups_rpc.SecurityGroupServerRpcCallback()
    details = rpc.RpcCallbacks(plugin.notifier, plugin.type_manager)
    print(jsonutils.dumps({
        'info': told.security_group_info_for_devices(
            who, devices=list(devices), call_version='1.3'),
        'details': details.get_devices_details_list(
            who, agent_id='demo', host=host, devices=list(devices))}))


if __name__ == '__main__':
    main(*sys.argv[1:])
