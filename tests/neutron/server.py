# SPDX-License-Identifier: Apache-2.0

"""neutron-server for a test of another Python, until its input ends.

To be run by the Python of a Neutron, with the TCP port that it is to listen
on and the one where Nova takes its events; both at 127.0.0.1. Says "started"
when it is.
"""

import sys

from tests.neutron import base


def main(port, nova_port):
    with base.Neutron(port=int(port), nova_port=int(nova_port)):
        print('started', flush=True)
        sys.stdin.read()


if __name__ == '__main__':
    main(*sys.argv[1:])
