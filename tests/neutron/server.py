# SPDX-License-Identifier: Apache-2.0

"""neutron-server for a test of another Python, until its input ends.

To be run by the Python of a Neutron, with the TCP port that it is to listen
on, the one where Nova takes its events, both at 127.0.0.1, lines for its
section [ml2_tapmac], and whether there are agents: then it has a message queue
and RPC workers, too. Says "started" when it is. Each line of its input is what
is to be done then, as JSON: one of these names, with what it is given; it says
what comes of that in a line of JSON, too.
"""

import json
import os
import sys

from tests.neutron import base
from tests.neutron import cloud
from tests.neutron import hypervisor
from tests.neutron import network_node


def main(port, nova_port, more, agents=''):
    kind = cloud.Cloud if agents else base.Neutron
    with kind(more=more, port=int(port),
              nova_port=int(nova_port)) as neutron:
        hosts, nodes = {}, {}

        def start_agent(name, namespace):
            hosts[name] = neutron.useFixture(hypervisor.AgentHost(
                neutron, name, os.open(namespace, os.O_RDONLY)))
            hosts[name].start_agent()
            hosts[name].wait_for_agent()

        def start_node(name, *nova):
            nodes[name] = neutron.useFixture(network_node.NetworkNode(
                hosts[name], nova=nova))
            nodes[name].start('dhcp', 'metadata')
            return str(nodes[name].directory)

        def restart_part(name, part):
            if part in neutron.processes():
                neutron.restart_part(part)
            elif part in ('dhcp', 'metadata'):
                nodes[name].kill(part)
                nodes[name].start(part)
            elif part in ('dnsmasq', 'haproxy'):
                nodes[name].end_process(part)
            elif part == 'tapmac-agent':
                hosts[name].kill_agent()
                hosts[name].start_agent()
                hosts[name].wait_for_agent()
            else:
                hosts[name].kill_daemon()

        known = {'execute': neutron.database.execute, 'log': neutron.log,
                 'restart': lambda changes: neutron.restart(**changes),
                 'start_agent': start_agent, 'start_node': start_node,
                 'restart_part': restart_part,
                 'log_of_agent': lambda name: hosts[name].log()}
        print('started', flush=True)
        for line in sys.stdin:
            name, *arguments = json.loads(line)
            print(json.dumps(known[name](*arguments)), flush=True)


if __name__ == '__main__':
    main(*sys.argv[1:])
