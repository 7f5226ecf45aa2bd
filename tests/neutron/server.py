# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

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
