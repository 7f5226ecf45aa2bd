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

"""Who may know what: the structure that the design promises."""

import ast
import subprocess
import sys

from tests import base

PACKAGE = base.CHECKOUT / 'vif_plug_tapmac'
KERNEL = PACKAGE / 'kernel'


class LayersTest(base.TestCase):

    def imports(self, path):
        """Return all that a module imports, as dotted names."""
        found = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names)
            if isinstance(node, ast.ImportFrom):
                found.update('%s.%s' % (node.module, alias.name)
                             for alias in node.names)
        return found

    def modules_that_import(self, name):
        return {str(path.relative_to(PACKAGE))
                for path in PACKAGE.rglob('*.py')
                for imported in self.imports(path)
                if imported == name or imported.startswith(name + '.')}

    def test_no_module_knows_pyroute2(self):
        self.assertEqual(set(),
                         self.modules_that_import('pyroute2'))

    def test_only_one_module_has_doors_to_root(self):
        self.assertEqual(
            {'privileged.py'},
            {str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob('*.py')
             if '.entrypoint' in path.read_text()})

    def test_root_side_knows_no_configuration_no_vif_and_no_privsep(self):
        for path in KERNEL.glob('*.py'):
            for imported in self.imports(path):
                self.assertFalse(
                    imported.startswith(('oslo_config', 'oslo_privsep',
                                         'os_vif', 'vif_plug_tapmac.priv')),
                    (path, imported))

    def test_nobody_uses_what_os_vif_keeps_to_itself(self):
        self.assertEqual(set(), self.modules_that_import('os_vif.internal'))

    def test_only_the_mechanism_driver_knows_neutron(self):
        self.assertLess(set(), self.modules_that_import('neutron_lib'))
        self.assertEqual(set(), self.modules_that_import('neutron'))
        for module in (self.modules_that_import('neutron_lib')
                       | self.modules_that_import('vif_plug_tapmac.ml2')):
            self.assertTrue(module.startswith('ml2/'), module)

    def test_plugin_needs_no_neutron(self):
        # What is not imported by name may still be, by what is.
        code = ('import sys; sys.modules["neutron_lib"] = None; '
                'import vif_plug_tapmac.plugin, vif_plug_tapmac.opts; '
                'sys.exit("vif_plug_tapmac.ml2" in sys.modules)')
        self.assertEqual(0, subprocess.run([sys.executable, '-c', code],
                                           cwd=base.CHECKOUT).returncode)

    def test_no_subprocesses(self):
        self.assertEqual(set(), self.modules_that_import('subprocess'))
