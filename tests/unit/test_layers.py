# SPDX-License-Identifier: Apache-2.0

"""Who may know what: the structure that the design promises."""

import ast
import subprocess
import sys

from tests import base

PACKAGE = base.CHECKOUT / 'vif_plug_tapmac'
KERNEL = PACKAGE / 'kernel'


class FirstLineTest(base.TestCase):

    def test_each_file_has_its_licence_and_then_says_what_it_is(self):
        for directory in ('vif_plug_tapmac', 'tests', 'tools', 'benchmarks'):
            for path in (base.CHECKOUT / directory).rglob('*.py'):
                text = path.read_text()
                if text:
                    self.assertTrue(text.startswith(
                        '# SPDX-License-Identifier: Apache-2.0\n\n"""'), path)


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

    def test_only_mechanism_driver_and_agent_know_neutron(self):
        for name, knows in (('neutron_lib', ('ml2/', 'agent/')),
                            # The driver: where neutron-lib has nothing.
                            ('neutron', ('agent/', 'ml2/agents.py',
                                         'ml2/logs.py')),
                            # Which bridge a network has is said in one place.
                            ('vif_plug_tapmac.ml2', ('ml2/', 'agent/')),
                            ('vif_plug_tapmac.agent', ('agent/',))):
            found = self.modules_that_import(name)
            self.assertLess(set(), found)
            self.assertEqual(set(), {each for each in found
                                     if not each.startswith(knows)}, name)

    def test_plugin_and_options_need_no_neutron(self):
        # What is not imported by name may still be, by what is.
        code = ('import sys; sys.modules["neutron"] = None; '
                'sys.modules["neutron_lib"] = None; '
                'import vif_plug_tapmac.plugin, vif_plug_tapmac.opts; '
                'loaded = {"vif_plug_tapmac.ml2", "vif_plug_tapmac.agent"} '
                '& set(sys.modules); '
                'import vif_plug_tapmac.agent.opts; '
                'sys.exit(bool(loaded))')
        self.assertEqual(0, subprocess.run([sys.executable, '-c', code],
                                           cwd=base.CHECKOUT).returncode)

    def test_no_subprocesses(self):
        self.assertEqual(set(), self.modules_that_import('subprocess'))


#: What a process of each kind loads, and what must not come along. A name
#: that ends with a dot is a package of ours, of which every module is loaded.
_LOADS = {
    'nova-compute': (
        ('vif_plug_tapmac.plugin', 'vif_plug_tapmac.privileged'),
        ('vif_plug_tapmac.kernel', 'vif_plug_tapmac.host',
         'vif_plug_tapmac.cli', 'vif_plug_tapmac.ml2',
         'vif_plug_tapmac.agent', 'pyroute2')),
    'the daemon': (
        ('vif_plug_tapmac.privileged', 'vif_plug_tapmac.kernel.'),
        ('vif_plug_tapmac.host', 'vif_plug_tapmac.cli',
         'vif_plug_tapmac.ml2', 'vif_plug_tapmac.agent',
         'vif_plug_tapmac.plugin', 'os_vif.objects', 'oslo_messaging',
         'pyroute2')),
    'what is wanted': (
        ('vif_plug_tapmac.wanted.',),
        ('os_vif', 'oslo_config', 'oslo_log', 'oslo_privsep',
         'vif_plug_tapmac.kernel', 'vif_plug_tapmac.agent')),
    'what asks the kernel': (
        ('vif_plug_tapmac.kernel.',),
        ('os_vif', 'oslo_config', 'oslo_log', 'oslo_privsep', 'asyncio',
         'pyroute2', 'vif_plug_tapmac.agent')),
    'an operator': (
        ('vif_plug_tapmac.host.', 'vif_plug_tapmac.cli.'),
        ('oslo_messaging', 'eventlet', 'dns', 'os_vif', 'oslo_privsep',
         'pyroute2', 'vif_plug_tapmac.ml2', 'vif_plug_tapmac.agent')),
    'an operator of a cloud': (
        # The rest of it has openstacksdk, whatever that loads.
        tuple('vif_plug_tapmac.migrate.' + name
              for name in ('main', 'plan', 'rebind', 'check', 'ports')),
        ('openstack', 'oslo_config', 'oslo_messaging', 'os_vif',
         'oslo_privsep', 'neutron_lib', 'pyroute2', 'vif_plug_tapmac.kernel',
         'vif_plug_tapmac.host', 'vif_plug_tapmac.cli',
         'vif_plug_tapmac.ml2', 'vif_plug_tapmac.agent')),
    'neutron-server': (
        ('vif_plug_tapmac.ml2.',),
        ('vif_plug_tapmac.kernel', 'vif_plug_tapmac.privileged',
         'vif_plug_tapmac.host', 'vif_plug_tapmac.cli',
         'vif_plug_tapmac.migrate', 'vif_plug_tapmac.agent')),
}
_LOAD = """
import importlib, pkgutil, sys
for name in sys.argv[1:]:
    module = importlib.import_module(name.rstrip('.'))
    if name.endswith('.'):
        for each in pkgutil.iter_modules(module.__path__, name):
            try:
                importlib.import_module(each.name)
            except ModuleNotFoundError as error:
                # In its own environments it is there.
                if error.name != 'neutron':
                    raise
print(*sys.modules)
"""


class LoadingTest(base.TestCase):
    """What a process has loaded, whoever imported it: each in its own."""

    def test_what_each_process_loads(self):
        for process, (loads, unwanted) in _LOADS.items():
            done = subprocess.run(
                [sys.executable, '-W', 'ignore', '-c', _LOAD, *loads],
                cwd=base.CHECKOUT, text=True, capture_output=True)
            self.assertEqual(0, done.returncode, done.stderr)
            modules = done.stdout.split()
            self.assertLess(set(each for each in loads
                                if not each.endswith('.')), set(modules))
            self.assertEqual([], sorted(
                module for module in modules for name in unwanted
                if module == name or module.startswith(name + '.')), process)
