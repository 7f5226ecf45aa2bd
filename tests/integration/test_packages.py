# SPDX-License-Identifier: Apache-2.0

"""The packages of distributions: what they are made of is in packaging/."""

import pathlib
import re
import stat
import subprocess
import sys
import tempfile

from tests import base
from tests import building

#: What a host gets, by package, beside modules and documentation.
FILES = {
    'python3-vif-plug-tapmac': set(),
    'tapmac': {
        '/etc/sudoers.d/nova-tapmac',
        '/usr/bin/tapmac', '/usr/bin/tapmac-migrate', '/usr/bin/tapmac-status',
        '/usr/lib/NetworkManager/conf.d/tapmac.conf',
        '/usr/lib/systemd/network/00-tapmac.network',
        '/usr/lib/systemd/network/70-tapmac.link',
        '/usr/lib/systemd/system/tapmac-audit.service',
        '/usr/lib/systemd/system/tapmac-audit.timer',
        '/usr/share/bash-completion/completions/tapmac',
        '/usr/share/man/man8/tapmac-migrate.8',
        '/usr/share/man/man8/tapmac-status.8',
        '/usr/share/man/man8/tapmac.8'},
    'tapmac-agent': {
        '/etc/sudoers.d/neutron-tapmac', '/usr/bin/tapmac-agent',
        '/usr/lib/systemd/system/tapmac-agent.service',
        '/usr/share/man/man8/tapmac-agent.8'},
}
#: What the documentation of a package has beside of etc/: options.
_SAMPLES = {'nova.conf.sample', 'ml2_conf.conf.sample',
            'tapmac-agent.conf.sample'}

#: All that maintainer scripts of Debian may run: what compiles modules, and
#: what speaks with systemd of our own units.
_MAY_RUN = re.compile(
    r"^(set -e|if .*; then|else|fi|_dh_action=(re)?start|"
    r"py(py)?3(compile|clean) .*|systemctl --system daemon-reload >.*|"
    r"deb-systemd-(helper|invoke) (--quiet )?[\w\$-]+ "
    r"'tapmac-(agent\.service|audit\.timer)'.*|"
    r"find /usr/lib/python3/dist-packages/ .*|"
    r"dpkg -L python3-vif-plug-tapmac .*)$")


class PackagesTest(building.BuildingTestCase):

    def setUp(self):
        super().setUp()
        self.only_in_full()
        docs = base.CHECKOUT / '.venv/docs'
        if not docs.exists():
            self.cannot_run('needs .venv/docs: run tools/docs.sh')
        self.packages = [str(next((each / 'lib').glob('python3*')).joinpath(
            'site-packages')) for each in (pathlib.Path(sys.prefix), docs)]

    def modules(self):
        """Return the modules of the package, from the top of the checkout."""
        return {str(path.relative_to(self.clone)) for path in
                (self.clone / 'vif_plug_tapmac').rglob('*.py')}

    def assert_holds(self, package, paths):
        """Expect what a package has to have, and nothing else.

        :param paths: as they are on a host
        """
        modules, rest = set(), set()
        for path in paths:
            # Before Debian 13, /lib is what it says.
            path = re.sub('^/lib/', '/usr/lib/', path)
            module = re.search('/(?:site|dist)-packages/(.*)', path)
            if module is not None:
                modules.add(module[1])
            elif not re.match('/usr/share/(doc|licenses)/', path):
                rest.add(path.removesuffix('.gz'))
        self.assertEqual(FILES[package], rest)
        self.assertEqual(
            self.modules() if package.startswith('python3') else set(),
            {path for path in modules
             if '.dist-info' not in path and '__pycache__' not in path})

    def assert_documented(self, paths):
        """Expect each file of etc/ in some package."""
        names = {pathlib.PurePath(path).name.removesuffix('.gz')
                 for path in paths}
        self.assertEqual(set(), {
            path.name for path in (self.clone / 'etc').rglob('*')
            if path.is_file()} - names)

    def test_debian(self):
        # That of the distribution runs modules of this one's environments.
        if '%d.%d' % sys.version_info[:2] not in subprocess.run(
                ['/usr/bin/python3', '-V'], capture_output=True,
                text=True).stdout:
            self.cannot_run('needs the Python of the distribution')
        target = pathlib.Path(tempfile.mkdtemp(dir=self.temporary))
        # Of the libraries that it is built with, Debian 12 has older ones.
        if pathlib.Path('/etc/debian_version').read_text().startswith('12'):
            self.assertIn('Unmet build dependencies: python3-pbr (>= 6.1.0) ',
                          self.refused('packaging/deb.sh'))
        self.run_command('packaging/deb.sh', str(target), '-d',
                         PYTHONPATH=':'.join(self.packages))
        self.assertEqual(set(FILES), {
            path.name.partition('_')[0] for path in target.glob('*.deb')})
        everything = set()
        for path in target.glob('*.deb'):
            package = path.name.partition('_')[0]
            self.run_command('dpkg-deb', '-R', str(path), package, cwd=target)
            unpacked = target / package
            paths = {'/' + str(each.relative_to(unpacked))
                     for each in unpacked.rglob('*') if not each.is_dir()}
            everything |= paths
            self.assert_holds(package, {each for each in paths if
                                        not each.startswith('/DEBIAN/')})
            for sudoers in unpacked.glob('etc/sudoers.d/*'):
                self.assertEqual(0o440, stat.S_IMODE(sudoers.stat().st_mode))
                self.run_command('/usr/sbin/visudo', '-c', '-f', str(sudoers))
            for script in 'preinst', 'postinst', 'prerm', 'postrm':
                if (unpacked / 'DEBIAN' / script).exists():
                    self.assert_harmless(unpacked / 'DEBIAN' / script)
        self.assert_documented(everything)
        self.assertLessEqual(_SAMPLES, {pathlib.PurePath(each).name.
                                        removesuffix('.gz')
                                        for each in everything})

    def refused(self, script):
        """Return what is said of why nothing can be built here."""
        done = subprocess.run([script, str(self.temporary / 'none')],
                              cwd=self.clone, capture_output=True, text=True)
        self.assertNotEqual(0, done.returncode)
        return done.stderr

    def assert_harmless(self, script):
        """Expect no command that could reach a guest."""
        for line in script.read_text().splitlines():
            line = line.partition('#')[0].strip()
            if line:
                self.assertRegex(line, _MAY_RUN)

    def test_rpm(self):
        self.assertIn('python3-devel >= 3.10 is needed',
                      self.refused('packaging/rpm.sh'))
        target = pathlib.Path(tempfile.mkdtemp(dir=self.temporary))
        python = sys.executable
        library = '/usr/lib/python%d.%d/site-packages' % sys.version_info[:2]
        # These are Fedora's macros; here, what they come to.
        macros = {
            '__python3': python, 'python3_sitelib': library,
            '_unitdir': '/usr/lib/systemd/system',
            'pyproject_wheel': '%s -m build --wheel --no-isolation' % python,
            'pyproject_install': (
                '%s -m pip install -q --root %%{buildroot} --prefix /usr '
                '--no-deps --no-index --ignore-installed dist/*.whl' % python),
            'systemd_post()': ': %1', 'systemd_preun()': ': %1',
            'systemd_postun_with_restart()': ': %1'}
        self.run_command(
            'packaging/rpm.sh', str(target), '--nodeps',
            *(word for name, value in macros.items()
              for word in ('--define', '%s %s' % (name, value))),
            PYTHONPATH=':'.join(self.packages))
        everything = set()
        for path in (target / 'noarch').iterdir():
            package = re.sub(r'-[0-9][^-]*-[^-]*$', '', path.name)
            paths = {line.split(None, 1)[1] for line in self.run_command(
                'rpm', '-qp', '--qf', '[%{FILEMODES:perms} %{FILENAMES}\n]',
                str(path)).splitlines() if not line.startswith('d')}
            everything |= paths
            self.assert_holds(package, paths)
        self.assertEqual(3, len(list((target / 'noarch').iterdir())))
        self.assert_documented(everything)
