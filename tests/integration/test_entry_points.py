# SPDX-License-Identifier: Apache-2.0

"""What the installed package offers to others, found the way they find it."""

import subprocess
import sys

import os_vif
from stevedore import extension

from tests import base
from vif_plug_tapmac.agent import opts as agent_opts
from vif_plug_tapmac import opts
from vif_plug_tapmac import plugin


class EntryPointTest(base.TestCase):

    def test_os_vif_finds_and_loads_the_plugin(self):
        os_vif.initialize(reset=True)
        found = extension.ExtensionManager('os_vif')
        self.assertIs(plugin.TapMacPlugin, found['tapmac'].plugin)
        self.assertEqual(['VIFBridge'], [
            info.vif_object_name for described in
            os_vif.host_info().plugin_info
            if described.plugin_name == 'tapmac'
            for info in described.vif_info])

    def test_option_generator_prints_every_option(self):
        printed = subprocess.run(
            [sys.executable, '-m', 'oslo_config.generator',
             '--namespace', 'vif_plug_tapmac'],
            check=True, capture_output=True, text=True).stdout
        self.assertIn('[os_vif_tapmac]', printed)
        for opt in opts.TAPMAC_OPTS:
            default = opt.default
            if isinstance(default, (list, dict)):
                default = ','.join(default)
            line = '#%s = %s' % (opt.name, str(default).lower())
            self.assertIn('\n%s\n' % line.rstrip(), printed)
        self.assertIn('Minimum value: 1\n', printed)
        self.assertIn('Maximum value: 2147483647\n', printed)

    def test_options_of_the_agent_need_no_neutron(self):
        code = ('import sys; sys.modules["neutron"] = None; '
                'from oslo_config import generator; '
                'generator.main(["--namespace", "vif_plug_tapmac.agent"])')
        printed = subprocess.run(
            [sys.executable, '-c', code], check=True, capture_output=True,
            text=True).stdout
        self.assertIn('[tapmac_agent]', printed)
        for opt in agent_opts.TAPMAC_AGENT_OPTS:
            self.assertIn('\n#%s =' % opt.name, printed)

    def test_command_line_explains_itself(self):
        for arguments in (['--help'], ['demo', '--help'], ['help', 'demo']):
            done = base.run_command('main', *arguments)
            self.assertEqual((0, ''), (done.returncode, done.stderr))
            self.assertIn('demo', done.stdout)


class PluginTest(base.FunctionalTestCase):
    """Through os_vif, as Nova does it, twice each."""

    def test_plug_and_unplug_twice(self):
        for _ in range(2):
            self.plug()
            self.assert_finished()
        for _ in range(2):
            self.unplug()
            self.assertIsNone(self.host.find(base.TAP))
