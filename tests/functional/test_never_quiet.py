# SPDX-License-Identifier: Apache-2.0

"""Every command, and plug and unplug, on a host that is never quiet."""

import contextlib
import inspect
import io
import json
import logging
import pathlib
import re

from cliff import command
import fixtures

from tests import base
from tests import churn
from tests.functional import test_audit
from tests.functional import test_operator
from tests import hosts
from tests import patience
from vif_plug_tapmac.cli import main
from vif_plug_tapmac.host import audit
from vif_plug_tapmac.host import inventory
from vif_plug_tapmac.host import link_files
from vif_plug_tapmac.host import selinux
from vif_plug_tapmac.kernel import netlink as nl
from vif_plug_tapmac import opts

_RUNS = patience.amount(4, 20, 200)
_OTHER = 'fa:16:3e:00:00:%02x'


class ReadInBetweenTest(test_audit.AuditTestCase):
    """What is read one after the other, while a guest comes or goes."""

    def setUp(self):
        super().setUp()
        self.plug()
        self.plug(test_audit.OTHER)
        self.change = self.unplug
        real = nl.Netlink.fixed_macs

        def changed(netlink):
            self.change(test_audit.OTHER)
            return real(netlink)
        self.patch(nl.Netlink, 'fixed_macs', changed)

    def confirmed(self):
        return [each.code for each in audit.confirmed(
            self.options,
            lambda seen: audit.audit(seen, self.options))[1]]

    def test_guest_that_leaves(self):
        self.assertEqual([], self.confirmed())
        self.plug(test_audit.OTHER)
        # The control: one look alone believes it.
        self.assert_finds('TM214', test_audit.OTHER.vif_name)

    def test_another_of_its_name(self):
        def change(vif):
            self.unplug(vif)
            self.plug(vif)
        self.change = change
        self.assertEqual([], self.confirmed())

    def test_what_is_wrong_stays(self):
        self.change = lambda vif: None
        self.host.set(base.TAP, mtu=1400)
        self.assertEqual(['TM208'], self.confirmed())

    def test_gone_before_its_filter_is_looked_at(self):
        self.configure(arriving_guests='filter')
        hosts.set_port_options(
            self.host.link(test_audit.OTHER.vif_name).index, LOCKED=0)
        self.assertEqual([], self.confirmed())
        self.plug(test_audit.OTHER)
        hosts.set_port_options(
            self.host.link(test_audit.OTHER.vif_name).index, LOCKED=0)
        seen = inventory.read(self.options)
        self.unplug(test_audit.OTHER)
        self.assertEqual(['TM214'], [
            each.code for each in audit.audit_links(seen)])


class FilesTest(base.TestCase):
    """Directories and processes that come and go are passed over."""

    def test_directory_of_link_files(self):
        directory = self.useFixture(fixtures.TempDir()).path
        path = pathlib.Path(directory, 'a.link')
        path.write_text('[Match]\nOriginalName=*\n'
                        '[Link]\nMACAddressPolicy=persistent\n')
        self.patch(link_files, '_DIRECTORIES', (
            directory + '/gone', str(path), directory))
        self.patch(link_files.os.path, 'isdir', lambda _: True)
        self.assertEqual(str(path), link_files.file_that_rewrites())

    def test_name_of_a_process(self):
        path = pathlib.Path(self.useFixture(fixtures.TempDir()).path, 'comm')
        path.write_bytes(b'\xff\n')
        self.assertEqual('\ufffd', selinux._read(str(path)))


class NeverQuietTest(test_operator.WatchingTestCase):

    def setUp(self):
        super().setUp()
        path = pathlib.Path(self.useFixture(fixtures.TempDir()).path, 'conf')
        path.write_text('[os_vif_tapmac]\nudev_timeout = 0\n'
                        'host_shield = true\n[libvirt]\nconnection_uri = '
                        '%s\n' % self.domains.uri)
        self.path = str(path)
        self.configure(host_shield=True)
        self.plug()
        self.host.add('eth0', 'veth', peer='wire')
        self.host.set('eth0', state='up',
                      master=self.host.link(base.BRIDGE).index)
        self.define(0)
        self.churn = self.useFixture(churn.Churn(
            'eth0', self.define if hasattr(self.domains, '_file') else None))
        patience.wait_until(lambda: self.churn.count > 10 or self.churn.error,
                            'nothing changes')

    def define(self, number):
        """Have the guest's domain, and others that come and go."""
        self.domains.define(
            (base.TAP, base.GUEST_MAC, True, 1),
            *(('vnet%d' % (number + each), _OTHER % each, True, 1)
              for each in range(number % 3)))

    def run_here(self, *arguments, says=''):
        """Run a command in this process; return what it prints.

        :param says: a pattern of all that it may say besides
        """
        root = logging.getLogger()
        handlers, level = root.handlers[:], root.level
        printed, said = io.StringIO(), io.StringIO()
        try:
            with (contextlib.redirect_stdout(printed),
                  contextlib.redirect_stderr(said)):
                returncode = main.TapMacApp().run(
                    ['--config-file', self.path, *arguments])
        finally:
            root.handlers[:] = handlers
            root.setLevel(level)
            self.config.conf([], project='tapmac', default_config_files=[])
            self.config.conf.set_override('udev_timeout', 0, opts.GROUP)
        self.assertEqual(0, returncode, (arguments, said.getvalue()))
        self.assertIsNotNone(re.fullmatch(says, said.getvalue()),
                             (arguments, said.getvalue()))
        return printed.getvalue()

    def rows_here(self, *arguments, **kwargs):
        return json.loads(self.run_here(*arguments, '-f', 'json', **kwargs))

    def many(self, function):
        """Call it often, while everything changes."""
        before = self.churn.count
        for number in range(_RUNS):
            function()
        patience.wait_until(
            lambda: self.churn.count > before or self.churn.error,
            'nothing changed')
        self.assertIsNone(self.churn.error)

    def test_looking(self):
        def look():
            row, = self.rows_here('list')
            self.assertEqual((base.TAP, self.domains.of(base.TAP)),
                             (row['TAP'], row['Domain']))
            self.assertEqual([], self.rows_here('show', base.TAP)['Wrong'])
            self.assertEqual([], self.rows_here('audit'))
            row, = self.rows_here(
                'explain', base.TAP, hosts.frame(
                    hosts.BROADCAST, base.GUEST_MAC, b'hello').hex(),
                says='.*is not closed.*\n')
            self.assertEqual('passes', row['Verdict'])
            row, = self.rows_here('mac', '--reverse', base.TAP_MAC)
            self.assertEqual(base.TAP, row['TAP'])
        self.many(look)

    def test_changing(self):
        by_hand = '--bridge', base.BRIDGE, '--mac', _OTHER % 99

        def change():
            self.assertEqual([], self.rows_here('repair'))
            self.assertEqual([], self.rows_here(
                'purge', says=r'libvirt test://.* has \d domains.\n'))
            for _ in range(2):
                shown = self.rows_here('plug', *by_hand)
            self.assertEqual(99, int(shown['Guest MAC'][-2:], 16))
            self.assertIn('would be removed', self.run_here(
                'unplug', *by_hand, '--dry-run'))
            self.assertIn('is removed', self.run_here('unplug', *by_hand))
            for which in 'off', 'on':
                row, = self.rows_here('filter', '--' + which)
                self.assertEqual(which, row['Filter'])
        self.many(change)

    def test_plugin_beside_an_audit(self):
        vifs = [base.numbered_vif(number) for number in range(3)]

        def guests_come_and_go():
            for vif in vifs:
                self.plug(vif)
                self.plug(vif)
            self.assert_clean()
            for vif in vifs:
                self.unplug(vif)
            self.assert_clean()
        self.many(guests_come_and_go)

    def test_watch(self):
        self.start('--interval', '0.5')
        self.wait_for('watching')
        vif = base.numbered_vif(1)

        def visit():
            self.plug(vif)
            self.wait_for(' plug ', vif.vif_name)
            self.hold(vif.vif_name, None).close()
            self.unplug(vif)
            self.wait_for(' unplug ', vif.vif_name)
        self.many(visit)
        self.assertNotIn(b' TM', self.text)
        self.assertIsNone(self.watch.poll())

    def test_every_command_is_here(self):
        """Who adds a command has it run on a host that is never quiet."""
        commands = {path.stem for path in (
            base.CHECKOUT / 'vif_plug_tapmac/cli').glob('*.py')
            if any(isinstance(each, type) and issubclass(
                each, command.Command) and each.__module__.endswith(path.stem)
                and not inspect.isabstract(each)
                for each in vars(__import__(
                    'vif_plug_tapmac.cli.' + path.stem,
                    fromlist=['x'])).values())}
        self.assertEqual(
            {'list', 'show', 'audit', 'mac', 'repair', 'purge', 'plug',
             'unplug', 'watch', 'explain', 'filter',
             'complete',  # It looks at nothing.
             'demo'},  # In a network namespace of its own.
            commands)
