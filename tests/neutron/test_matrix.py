# SPDX-License-Identifier: Apache-2.0

"""Each Nova plugs what this Neutron binds.

From REST to the kernel: a port as this neutron-server answers with it, Nova's
own code in an environment of its own, os-vif, our plugin, and the XML that
libvirt is given; see :mod:`tests.nova.answered`.
"""

import json
import pathlib
import subprocess

import fixtures

from tests import base as tests_base
from tests import compatibility
from tests import hosts
from tests.neutron import base
from tests import patience


class MatrixTest(base.NeutronTestCase):

    def setUp(self):
        super().setUp()
        missing = hosts.missing_privilege()
        if missing:
            self.cannot_run(missing)

    def answers(self):
        """Return a port of each kind, with its network."""
        kinds = [('ovs', 'tapmac', 'host1'), ('bridge', 'tapmac', 'host9')]
        if base.NEUTRON < 26:
            self.linux_bridge_agent('old1')
            kinds.append(('bridge', 'linuxbridge', 'old1'))
        found = []
        for vif_type, driver, host in kinds:
            network = self.vlan_network(mtu=1450)
            port = self.port(network, host,
                             mac_address=tests_base.GUEST_MAC)
            self.assertEqual((vif_type, {'0': driver}), (
                port['binding:vif_type'],
                port['binding:vif_details']['bound_drivers']))
            found.append((port, network))
        return found

    def assert_plugs(self, row):
        """Expect that a Nova does with these ports as the README says."""
        self.assertEqual(
            row.bindings, compatibility.matrix()[base.NEUTRON, row.nova])
        python = tests_base.CHECKOUT.joinpath(
            '.venv', row.environment, 'bin', 'python')
        if not python.exists():
            self.cannot_run('needs %s: run tools/peers.sh' % python)
        directory = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        file = directory / 'answers'
        file.write_text(json.dumps(self.answers()))
        done = subprocess.run(
            [python, '-W', 'ignore', '-m', 'tests.nova.answered', file],
            cwd=tests_base.CHECKOUT, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=patience.HANG)
        self.assertEqual(0, done.returncode, done.stdout)


def _test(row):
    return lambda self: self.assert_plugs(row)


for _row in compatibility.rows():
    setattr(MatrixTest, 'test_' + _row.environment.replace('-', '_'),
            _test(_row))
