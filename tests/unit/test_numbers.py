# SPDX-License-Identifier: Apache-2.0

"""Numbers that are none, or make no sense: refused, by the option's name.

All options that there are, found where they are defined: who adds one adds it
here.
"""

import argparse
import configparser
import contextlib
import importlib
import inspect
import io
import pathlib
import pkgutil
import re

from cliff import command
from cliff import lister
from cliff import show
import fixtures
from oslo_config import cfg
from oslo_config import types

from tests import base
from vif_plug_tapmac import cli
from vif_plug_tapmac import exception
from vif_plug_tapmac.host import host_checks
from vif_plug_tapmac.host import link_files
from vif_plug_tapmac.kernel import udev
from vif_plug_tapmac.wanted import from_config

#: What is no number, or none that anybody means.
_NONSENSE = ('', 'nan', '-nan', 'inf', '-inf', 'infinity', '1e999', '1e300',
             '-1', '-1e-3', '-0.5', '9' * 30, '-' + '9' * 30, '9' * 5000,
             'one', '0x10', '1,5')
#: Some of these is a number for whatever takes one.
_NUMBERS = ('1', '100', '1500', '30000')


def _number(convert):
    """Return a number that this takes, None if it takes none."""
    for text in _NUMBERS:
        with contextlib.suppress(ValueError, TypeError,
                                 argparse.ArgumentTypeError):
            if type(value := convert(text)) in (int, float):
                return value
    return None


class CommandLineTest(base.TestCase):

    def parsers(self):
        """Return the parser of each command, and what cliff has in it."""
        for module in pkgutil.iter_modules(cli.__path__):
            found = importlib.import_module('%s.%s' % (cli.__name__,
                                                       module.name))
            for each in vars(found).values():
                if (isinstance(each, type)
                        and issubclass(each, command.Command)
                        and not inspect.isabstract(each)
                        and each.__module__ == found.__name__):
                    kind = next(base for base in each.__mro__ if base in (
                        lister.Lister, show.ShowOne, command.Command))
                    yield (each(None, None).get_parser(module.name),
                           self.of_cliff(kind))

    def of_cliff(self, kind):
        class Bare(kind):
            def take_action(self, parsed_args):
                pass
        return {action.dest
                for action in Bare(None, None).get_parser('bare')._actions}

    def numeric(self):
        """Yield each parser with each of its options that takes a number."""
        for parser, of_cliff in self.parsers():
            for action in parser._actions:
                if (action.dest not in of_cliff and action.type is not None
                        and _number(action.type) is not None):
                    yield parser, action

    def test_nonsense_is_refused_by_name(self):
        for parser, action in self.numeric():
            option = action.option_strings[0]
            for text in _NONSENSE:
                if action.type is int and re.fullmatch(r'-?\d{1,99}', text):
                    # The command itself refuses it: see test_operator.
                    self.assertEqual('--mtu', option)
                    continue
                said = io.StringIO()
                with contextlib.redirect_stderr(said):
                    self.assertRaises(SystemExit, parser.parse_args, [
                        '%s=%s' % (option, text)])
                self.assertIn('argument %s: ' % option, said.getvalue(), text)

    def test_these_take_numbers(self):
        self.assertEqual(
            {('plug', 'mtu'), ('purge', 'older_than'), ('watch', 'interval')},
            {(parser.prog, action.dest)
             for parser, action in self.numeric()})

    def test_defaults_and_sense(self):
        for parser, action in self.numeric():
            self.assertEqual(_number(action.type), action.type(
                str(_number(action.type))))
            if action.default is not None:
                self.assertEqual(action.default,
                                 action.type(str(action.default)))


class ConfigurationTest(base.TestCase):

    def modules(self):
        """Return the module of options for each group that there is."""
        setup = configparser.ConfigParser()
        setup.read(base.CHECKOUT / 'setup.cfg')
        for line in setup['entry_points']['oslo.config.opts'].split('\n'):
            if line:
                yield importlib.import_module(
                    line.partition('= ')[2].partition(':')[0])

    def numeric(self):
        for module in self.modules():
            for group, options in module.list_opts():
                for opt in options:
                    if (isinstance(opt.type, types.Number)
                            or _number(opt.type) is not None):
                        yield group, opt

    def written(self, group, opt, text):
        """Return the option as it is read from a file with this value."""
        path = pathlib.Path(self.useFixture(fixtures.TempDir()).path, 'conf')
        path.write_text('[%s]\n%s = %s\n' % (group, opt.name, text))
        conf = cfg.ConfigOpts()
        conf.register_opt(opt, group=group)
        conf([], default_config_files=[str(path)], default_config_dirs=[])
        return conf[group][opt.name]

    def test_nonsense_is_refused_by_name(self):
        for group, opt in self.numeric():
            for text in _NONSENSE:
                error = self.assertRaises(
                    cfg.ConfigFileValueError, self.written, group, opt, text)
                self.assertIn(opt.name, str(error))

    def test_sense(self):
        found = set()
        for group, opt in self.numeric():
            found.add(opt.name)
            self.assertEqual(opt.default,
                             self.written(group, opt, str(opt.default)))
            for limit in opt.type.min, opt.type.max:
                self.assertEqual(limit, self.written(group, opt, str(limit)))
        self.assertEqual({'link_group', 'bridge_group', 'filtered_group',
                          'agent_group', 'udev_timeout',
                          'network_device_mtu', 'resync_interval',
                          'resync_spread'}, found)

    def test_owner_that_is_a_number(self):
        for text in _NONSENSE:
            self.configure(owner=text)
            error = self.assertRaises(
                exception.InvalidConfig, from_config.port_fields, self.options)
            self.assertIn('owner', str(error))

    def test_audit_says_which_it_is(self):
        """A check that needs the option leaves that to the one that looks."""
        path = self.useFixture(fixtures.TempDir()).path + '/nova.conf'
        pathlib.Path(path).write_text('[os_vif_tapmac]\nudev_timeout = nan\n')
        self.config.conf([], project='tapmac', default_config_files=[path])
        self.patch(link_files, 'file_that_rewrites', lambda: 'some.link')
        self.patch(udev, 'is_running', lambda: True)
        found = [finding for check in host_checks.CHECKS
                 for finding in check(self.options)
                 if finding.device in ('[os_vif_tapmac]', 'some.link')]
        self.assertEqual(['TM307'], [each.code for each in found])
        self.assertIn('udev_timeout', found[0].evidence)
