# SPDX-License-Identifier: Apache-2.0

"""What is in "Deploying with Nova": what can be checked without a host."""

import ast
import fnmatch
import importlib.metadata
import pathlib
import re

import fixtures
from oslo_config import cfg
from oslo_privsep import priv_context

from tests import base
from tests import documents
from vif_plug_tapmac.agent import opts as agent_opts
from vif_plug_tapmac.agent import state
from vif_plug_tapmac.cli import status
from vif_plug_tapmac.ml2 import mappings
from vif_plug_tapmac.ml2 import opts as ml2_opts
from vif_plug_tapmac import opts

_PACKAGE = base.CHECKOUT / 'vif_plug_tapmac'
_LEVELS = {'exception': 'ERROR'}

#: The blocks of text that are no log, by a word that only they have, and what
#: becomes of them.
TEXTS = {
    'NOPASSWD': 'installed by tests/integration',
    'MACAddressPolicy': 'installed by tests/integration',
    'Unmanaged=': 'used by tests/functional',
    'unmanaged-devices': 'used by tests/functional',
    '[Service]\nExecStop=': 'used by tests/functional',
    'NFTABLES_CONF=': 'used by tests/functional',
    'nft delete table': 'run by tests/functional',
    'enable_plugin': 'no DevStack here',
    'ausearch': 'no SELinux here',
    'module tapmac': 'no SELinux here',
    'semodule -i': 'no SELinux here',
}
#: The groups of nova.conf that are ours, and their options.
GROUPS = {opts.GROUP: opts.TAPMAC_OPTS,
          'vif_plug_tapmac_privileged': priv_context.OPTS}


def logging_calls():
    """Return level, logger and message of each place that logs.

    But for commands, which log where they are run.
    """
    for path in _PACKAGE.rglob('*.py'):
        if path.parent.name in ('cli', 'host'):
            continue
        name = '.'.join(
            path.relative_to(base.CHECKOUT).with_suffix('').parts)
        for node in ast.walk(ast.parse(path.read_text())):
            if (isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Attribute)
                    and isinstance(node.func.value, ast.Name)
                    and node.func.value.id == 'LOG'
                    and node.func.attr != 'debug'):
                level = node.func.attr
                yield (_LEVELS.get(level, level.upper()), name,
                       node.args[0].value)


class BlocksTest(base.TestCase):

    def test_each_directive_is_found(self):
        for document in (base.README, documents.DEPLOYING,
                         documents.COMING, documents.PROVIDER,
                         documents.GETTING_STARTED, documents.ROAD,
                         documents.TROUBLESHOOTING, documents.AGENT,
                         documents.CLOUD, documents.DHCP):
            self.assertEqual(document.read_text().count('code-block::'),
                             len(documents.blocks(document)))

    def test_each_is_run_parsed_or_known(self):
        texts = [block.text for block in documents.blocks(documents.DEPLOYING)
                 if block.language not in ('shell', 'ini')
                 and ':class: log\n' not in block.options]
        for word in TEXTS:
            text, = (text for text in texts if word in text)
            texts.remove(text)
        self.assertEqual([], texts)


class LogTest(base.TestCase):

    def test_each_place_that_logs_has_its_line(self):
        lines = documents.log_lines()
        calls = list(logging_calls())
        self.assertNotEqual([], calls)
        for level, name, message in calls:
            pattern = re.sub(r'%[\\\d.]*[a-z]', '.+', re.escape(
                '%s %s %s' % (level, name, message)))
            self.assertTrue(
                any(re.fullmatch(pattern, line) for line in lines),
                '%s: no line of the document is "%s"' % (name, message))


class RequirementsTest(base.TestCase):
    """What the document says that os-vif does not need itself."""

    def names(self, requirements):
        return {re.match(r'[\w.-]+', line).group().lower()
                for line in requirements if not line.startswith('#')}

    def test_rows(self):
        ours = self.names(
            (base.CHECKOUT / 'requirements.txt').read_text().splitlines())
        of_os_vif = self.names(importlib.metadata.requires('os-vif'))
        extra = {'neutron', 'neutron-lib', 'openstacksdk'}
        self.assertEqual(
            ours - of_os_vif - {'os-vif'} | extra,
            {name for name, _ in documents.rows(documents.DEPLOYING,
                                                'Requirements')})


class EtcTest(base.TestCase):
    """The files in etc/ are what the documents show."""

    def read(self, path):
        """Return a file of etc/ without its comments."""
        text = (base.CHECKOUT / 'etc' / path).read_text()
        return re.sub(r'(?m)\A(#.*\n)+\n', '', text)

    def test_files(self):
        for path, word in (('sudoers.d/nova-tapmac', 'NOPASSWD'),
                           ('systemd/network/70-tapmac.link',
                            'MACAddressPolicy'),
                           ('systemd/network/00-tapmac.network', 'Unmanaged='),
                           ('NetworkManager/conf.d/tapmac.conf',
                            'unmanaged-devices'),
                           ('systemd/system/networking.service.d/tapmac.conf',
                            '[Service]\nExecStop='),
                           ('systemd/system/nftables.service.d/tapmac.conf',
                            'NFTABLES_CONF=')):
            self.assertEqual(
                documents.block(documents.DEPLOYING, word, 'text'),
                self.read(path))

    def test_interfaces(self):
        shown = documents.block(documents.BRIDGES, 'condone-regex', 'text')
        self.assertEqual(shown.partition('\n')[2],
                         self.read('network/interfaces.d/br100'))

    def test_nova_conf(self):
        self.assertEqual('%s\n%s' % (
            documents.block(base.README, 'allowed_bridges = br1', 'ini'),
            documents.block(documents.DEPLOYING, 'helper_command', 'ini')),
            self.read('nova/tapmac.conf'))


class AgentTest(base.TestCase):
    """What "Security groups with tapmac-agent" shows, and etc/ has for it."""

    def read(self, path):
        text = (base.CHECKOUT / 'etc' / path).read_text()
        return re.sub(r'(?m)\A(#.*\n)+\n', '', text)

    def test_files(self):
        for word, language, path in (
                ('NOPASSWD', 'text', 'sudoers.d/neutron-tapmac'),
                ('metrics_file', 'ini', 'neutron/tapmac-agent.conf')):
            self.assertEqual(documents.block(documents.AGENT, word, language),
                             self.read(path))

    def test_options(self):
        path = base.CHECKOUT / 'etc/neutron/tapmac-agent.conf'
        conf = cfg.ConfigOpts()
        for group, options in {
                opts.GROUP: opts.TAPMAC_OPTS,
                agent_opts.GROUP: agent_opts.TAPMAC_AGENT_OPTS,
                'tapmac_agent_privileged': priv_context.OPTS}.items():
            conf.register_opts(options, group=group)
        conf(['--config-file', str(path)], default_config_files=[])
        written = {}
        cfg.ConfigParser(str(path), written).parse()
        self.assertEqual('agent', conf.os_vif_tapmac.firewall)
        for group in written:
            for option in written[group]:
                self.assertIsNotNone(conf[group][option])

    def test_every_option_is_explained(self):
        for opt in agent_opts.TAPMAC_AGENT_OPTS:
            self.assertGreater(len(opt.help), 80, opt.name)
            self.assertIsNotNone(opt.default, opt.name)

    def test_metrics(self):
        self.assertEqual(
            [name for name, _ in documents.rows(documents.AGENT, 'Metrics')],
            re.findall('# TYPE (\\S+)', state.State('').metrics()))


class SecurityTest(base.TestCase):
    """What "Security" says of who may do what names the test of it."""

    def test_each_test_is_there(self):
        table = documents.rows(documents.SECURITY,
                               'Who may do what with an agent')
        self.assertNotEqual([], table)
        for *_, test in table:
            *path, case, name = test.split('.')
            module = ast.parse(base.CHECKOUT.joinpath(*path).with_suffix(
                '.py').read_text())
            # It may have it of another class of its module.
            self.assertLess({case, name}, {
                each.name for each in ast.walk(module)
                if isinstance(each, (ast.ClassDef, ast.FunctionDef))}, test)


class StatusTest(base.TestCase):

    def test_each_check_is_documented(self):
        text = (documents.DEPLOYING.parent / 'cli/tapmac-status.rst'
                ).read_text()
        _, ours, agents = re.split(r'(?m)^Checks.*\n===+$', text)
        for checks, section in (
                (status.Checks, ours),
                (status.AgentChecks, agents.split('Exit status')[0])):
            self.assertEqual(
                [name for name, _ in checks._upgrade_checks],
                re.findall(r'(?m)^(\S.*)\n    \S', section))


class NovaConfTest(base.TestCase):
    """What the documents show of nova.conf is what oslo.config takes."""

    def setUp(self):
        super().setUp()
        self.path = pathlib.Path(
            self.useFixture(fixtures.TempDir()).path) / 'nova.conf'

    def load(self, text):
        """Return what is read of each option in the text."""
        self.path.write_text(text)
        conf = cfg.ConfigOpts()
        for group, options in GROUPS.items():
            conf.register_opts(options, group=group)
        conf(['--config-file', str(self.path)], default_config_files=[])
        written = {}
        cfg.ConfigParser(str(self.path), written).parse()
        return {(group, option): conf[group][option]
                for group in written for option in written[group]}

    def test_wrong_ones_are_seen(self):
        for wrong, error in (
                ('[os_vif]\nclaim_plugins = ovs', cfg.NoSuchOptError),
                ('[os_vif_tapmac]\nclaim_plugin = ovs', cfg.NoSuchOptError),
                ('[os_vif_tapmac]\nclaim_plugins = noop', ValueError)):
            self.assertRaises(error, self.load, wrong + '\n')

    def test_documents(self):
        blocks = [block.text for document in (base.README, documents.DEPLOYING,
                                              documents.COMING)
                  for block in documents.blocks(document)
                  if block.language == 'ini']
        self.assertEqual(7, len(blocks))
        for block in blocks:
            self.assertNotEqual({}, self.load(block))


class ProviderNetworkTest(base.TestCase):
    """What "Neutron: flat and VLAN provider networks" shows of our sections.

    tests/neutron starts a neutron-server with the whole of ml2_conf.ini.
    """

    GROUPS = {opts.GROUP: opts.TAPMAC_OPTS,
              ml2_opts.GROUP: ml2_opts.ML2_TAPMAC_OPTS}

    def load(self, text):
        """Return the configuration, and which options are written in it."""
        path = pathlib.Path(
            self.useFixture(fixtures.TempDir()).path) / 'file.conf'
        path.write_text(text)
        conf = cfg.ConfigOpts()
        for group, options in self.GROUPS.items():
            conf.register_opts(options, group=group)
        conf(['--config-file', str(path)], default_config_files=[])
        written = {}
        cfg.ConfigParser(str(path), written).parse()
        return conf, [(group, option) for group in written
                      if group in self.GROUPS for option in written[group]]

    def test_blocks(self):
        found = [self.load(block.text)
                 for block in documents.blocks(documents.PROVIDER)
                 if block.language == 'ini']
        self.assertEqual(
            [[(ml2_opts.GROUP, 'bridge_mappings')],
             [(ml2_opts.GROUP, 'bridge_mappings'),
              (ml2_opts.GROUP, 'agent_hosts')],
             [(opts.GROUP, 'claim_plugins'), (opts.GROUP, 'create_bridge'),
              (opts.GROUP, 'allowed_bridges')]],
            [written for _, written in found])
        neutron, _, nova = (conf for conf, _ in found)
        for conf, written in found:
            for group, option in written:
                self.assertIsNotNone(conf[group][option])
        # One cloud: what Neutron names, the hosts allow.
        bridges = mappings.Bridges.from_config(neutron[ml2_opts.GROUP])
        for _, _, bridge in bridges._all():
            self.assertTrue(any(
                fnmatch.fnmatchcase(bridge, pattern) for pattern
                in nova[opts.GROUP].allowed_bridges), bridge)

    def test_options_with_their_defaults(self):
        text = documents.PROVIDER.read_text()
        for opt in ml2_opts.ML2_TAPMAC_OPTS:
            default = opt.default
            if isinstance(default, list):
                default = ','.join(default)
            self.assertRegex(text, '(?m)^``%s`` +%s ' % (
                opt.name, re.escape('``%s``' % default if default
                                    else '(none)')))
