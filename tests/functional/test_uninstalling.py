# SPDX-License-Identifier: Apache-2.0

"""What "Uninstalling" says removes all that tapmac has made on a host."""

import subprocess

from tests import base
from tests import documents
from tests import network_configuration
from vif_plug_tapmac.kernel import filter_table

_FAMILIES = ['bridge', 'inet', 'arp']


class UninstallingTest(base.FunctionalTestCase):

    def tables(self):
        """Return the families in which there is a table of tapmac."""
        said = subprocess.run(['nft', 'list', 'tables'], check=True,
                              text=True, capture_output=True).stdout
        return [family for family in _FAMILIES
                if 'table %s %s\n' % (family, filter_table.NAME) in said]

    @base.needs_locked_ports
    def test_nothing_is_left(self):
        missing = network_configuration.missing_nftables()
        if missing:
            self.cannot_run(missing)
        before = self.host.state()
        self.configure(anti_spoofing='full', host_shield=True)
        self.plug()
        self.assertEqual(_FAMILIES, self.tables())
        self.unplug()
        self.assertEqual(_FAMILIES, self.tables())
        commands = documents.block(documents.DEPLOYING, 'nft delete table')
        *commands, last = commands.splitlines()
        self.assertEqual('pip uninstall -y vif-plug-tapmac', last)
        subprocess.run(['sh', '-euc', '\n'.join(commands)], check=True)
        self.assertEqual([], self.tables())
        self.assertEqual(before, self.host.state())
