# SPDX-License-Identifier: Apache-2.0

"""An agent's end of the queue, without an agent, until its input ends.

To be run by the Python of a Neutron, with its configuration. What is heard of
ports and security groups it says as a line of JSON: the method's name, and its
arguments. Each line of its input is a list of TAPs; what the server tells of
their security groups is a line, too, with the name "told".
"""

import functools
import sys

from neutron.agent import rpc
from neutron.api.rpc.handlers import securitygroups_rpc
from neutron.common import config
from neutron_lib.agent import topics
from neutron_lib import context
import oslo_messaging
from oslo_serialization import jsonutils

_METHODS = ('port_update', 'port_delete', 'security_groups_rule_updated',
            'security_groups_member_updated')


def _say(name, fields):
    # As a whole: several threads hear.
    sys.stdout.write(jsonutils.dumps([name, fields]) + '\n')
    sys.stdout.flush()


class _Heard:
    """What the server sends to all agents."""

    target = oslo_messaging.Target(version='1.4')


for _name in _METHODS:
    setattr(_Heard, _name, functools.partialmethod(
        lambda self, name, _, **fields: _say(name, fields), _name))


def main(configuration):
    config.register_common_config_options()
    config.init(['--config-file', configuration])
    rpc.create_consumers([_Heard()], topics.AGENT, [
        [topics.PORT, topics.UPDATE], [topics.PORT, topics.DELETE],
        [topics.SECURITY_GROUP, topics.UPDATE]])
    server = securitygroups_rpc.SecurityGroupServerRpcApi(topics.PLUGIN)
    _say('started', {})
    for line in sys.stdin:
        _say('told', server.security_group_info_for_devices(
            context.get_admin_context_without_session(),
            devices=jsonutils.loads(line)))


if __name__ == '__main__':
    main(*sys.argv[1:])
