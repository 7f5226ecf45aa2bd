# SPDX-License-Identifier: Apache-2.0

"""neutron-server for a test of another Python, until its input ends.

To be run by the Python of a Neutron, with the TCP port that it is to listen
on and the one where Nova takes its events; both at 127.0.0.1. Says "started"
when it is. Each line of its input is a statement for the database; it says
"done" when it is.
"""

import sys

from tests.neutron import base


def main(port, nova_port):
    with base.Neutron(port=int(port), nova_port=int(nova_port)) as neutron:
        print('started', flush=True)
        for statement in sys.stdin:
            neutron.database.execute(statement)
            print('done', flush=True)


if __name__ == '__main__':
    main(*sys.argv[1:])
