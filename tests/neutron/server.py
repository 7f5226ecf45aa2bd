# SPDX-License-Identifier: Apache-2.0

"""neutron-server for a test of another Python, until its input ends.

To be run by the Python of a Neutron, with the TCP port that it is to listen
on, the one where Nova takes its events, both at 127.0.0.1, and lines for its
section [ml2_tapmac]. Says "started" when it is. Each line of its input is what
is to be done then, as JSON: one of these names, with what it is given; it says
what comes of that in a line of JSON, too.
"""

import json
import sys

from tests.neutron import base


def main(port, nova_port, more):
    with base.Neutron(more=more, port=int(port),
                      nova_port=int(nova_port)) as neutron:
        known = {'execute': neutron.database.execute, 'log': neutron.log,
                 'restart': lambda changes: neutron.restart(**changes)}
        print('started', flush=True)
        for line in sys.stdin:
            name, *arguments = json.loads(line)
            print(json.dumps(known[name](*arguments)), flush=True)


if __name__ == '__main__':
    main(*sys.argv[1:])
