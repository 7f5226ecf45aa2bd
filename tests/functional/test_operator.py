# SPDX-License-Identifier: Apache-2.0

"""``tapmac`` as an operator runs it: a process for each command.

What an audit finds is in test_audit.
"""

import json
import os
import pathlib
import select
import signal
import subprocess
import sys
import time

from tests import base
from tests.functional import test_audit
from tests import hosts
from tests import libvirt_domains
from tests import patience
from vif_plug_tapmac.host import domains
from vif_plug_tapmac.host import finding
from vif_plug_tapmac.host import inventory
from vif_plug_tapmac.host import searching
from vif_plug_tapmac.kernel import netlink as nl
from vif_plug_tapmac.kernel import removing
from vif_plug_tapmac import mark
from vif_plug_tapmac.wanted.port import TapIdentity

_NOBODY = ('setpriv', '--reuid', '65534', '--regid', '65534',
           '--clear-groups')
#: Commands that want a configuration.
_CHANGING = ('plug', 'unplug', 'repair', 'purge')
_NO_CAPABILITY = ('setpriv', '--inh-caps=-net_admin',
                  '--bounding-set=-net_admin')


@base.too_slow_emulated('a Python for each command')
class OperatorTestCase(test_audit.AuditTestCase):

    def run_tapmac(self, *arguments, prefix=(), returncode=0):
        """Run a command; return what it prints on standard output.

        With defaults for a configuration, where it must have one.
        """
        if arguments[0] in _CHANGING:
            arguments = (*self.configuration(self.domains.uri), *arguments)
        done = base.run_command('main', *arguments, prefix=prefix,
                                PYTHONPATH='%s:%s' % (
                                    os.environ.get('PYTHONPATH', ''),
                                    base.CHECKOUT))
        self.assertEqual(returncode, done.returncode,
                         done.stdout + done.stderr)
        self.said = done.stderr
        return done.stdout

    def configuration(self, uri):
        """Return arguments: a nova.conf of defaults, with this libvirt."""
        return '--config-file', AuditTest.create_tempfiles(
            self, '[os_vif_tapmac]\n[libvirt]\nconnection_uri = %s\n' % uri)

    def rows(self, *arguments, **kwargs):
        return json.loads(self.run_tapmac(*arguments, '-f', 'json', **kwargs))


class MacTest(OperatorTestCase):

    def test_rule(self):
        row, = self.rows('mac', 'FA:16:3E:28:64:C2')
        self.assertEqual((base.GUEST_MAC, base.TAP_MAC),
                         (row['Guest MAC'], row['TAP MAC']))
        self.assertTrue(row['Instead, if taken'][0].startswith('f6:16:3e'))

    def test_values_for_scripts(self):
        self.assertEqual('fa:16:3e:28:64:c2\n', self.run_tapmac(
            'mac', 'fe:16:3e:28:64:c2', '-f', 'value', '-c', 'TAP MAC'))

    def test_no_mac(self):
        self.run_tapmac('mac', '01:00:5e:00:00:01', returncode=1)
        self.assertRegex(self.said, r'^tapmac mac: .* is a multicast MAC.*\. '
                         r'See "tapmac mac --help"\.\n$')

    def test_reverse(self):
        self.plug()
        row, = self.rows('mac', '--reverse', base.TAP_MAC)
        self.assertEqual(
            {'TAP MAC': base.TAP_MAC, 'Guest MAC': base.GUEST_MAC,
             'TAP': base.TAP, 'VIF': base.VIF_ID}, row)

    def test_reverse_elsewhere(self):
        self.run_tapmac('mac', '--reverse', base.TAP_MAC, returncode=1)
        self.assertIn('base_mac it is ' + base.GUEST_MAC, self.said)


class ListTest(OperatorTestCase):

    def test_facts(self):
        before = int(time.time())
        self.plug()
        self.hold()
        self.host.ip.brport('set', index=self.host.link(base.TAP).index,
                            isolated=1)
        row, = self.rows('list')
        made = row.pop('Made')
        self.assertEqual(
            {'TAP': base.TAP, 'Bridge': base.BRIDGE, 'MTU': 1500,
             'Guest MAC': base.GUEST_MAC, 'TAP MAC': base.TAP_MAC,
             'VIF': base.VIF_ID, 'Owner': 'root', 'Carrier': True,
             'Mode': 'mac', 'Addresses': None, 'Drops': [],
             'Port options': ['locked', 'isolated', 'no learning'],
             'Domain': self.domains.of(base.TAP),
             'Instance': self.domains.instance_of(base.TAP),
             'Domain known': self.domains.uri != ''},
            row)
        self.assertRegex(made, r'\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00')
        self.assertLessEqual(before, mark.TapMark.parse(
            self.host.link(base.TAP).alias).made)

    def test_bridge(self):
        self.plug()
        self.plug(base.numbered_vif(1, bridge_name='br200'))
        self.host.add_tap('tap0')
        self.assertEqual(2, len(self.rows('list')))
        self.assertEqual(['tap00000001'], [
            row['TAP'] for row in self.rows('list', '--bridge', 'br200')])
        self.assertEqual([], self.rows(
            'list', '--bridge', self.host.add('br300', 'bridge').name))
        self.run_tapmac('list', '--bridge', 'nosuch', returncode=1)
        self.assertEqual('There is no bridge nosuch on this host.\n',
                         self.said)

    def test_bridge_that_was_deleted(self):
        self.plug()
        self.host.delete(base.BRIDGE)
        self.assertEqual([base.TAP], [
            row['TAP'] for row in self.rows('list', '--bridge', base.BRIDGE)])

    def test_mark_lost(self):
        self.plug()
        self.host.set(base.TAP, ifalias='')
        row, = self.rows('list')
        # Its fixed entry tells which guest it is for.
        self.assertEqual(
            (base.TAP, base.GUEST_MAC, base.VIF_ID[:11] + '...', None),
            (row['TAP'], row['Guest MAC'], row['VIF'], row['Made']))
        self.assertEqual(base.TAP, self.rows(
            'show', base.VIF_ID, returncode=10)['TAP'])

    def test_renamed(self):
        self.plug()
        self.host.rename(base.TAP, 'x')
        for which in base.TAP, 'x', base.VIF_ID:
            shown = self.rows('show', which, returncode=10)
            self.assertEqual('x', shown['TAP'])
            self.assertIn('name ' + base.TAP, shown['Wrong'][0]['Remedy'])

    @base.needs_real_root(base.SEVERAL_USERS)
    def test_nobody_may_look(self):
        self.plug()
        for command in 'list', 'audit':
            self.rows(command, prefix=_NOBODY)
        self.rows('show', base.TAP, prefix=_NOBODY)

    def test_formats(self):
        self.plug()
        for format in 'table', 'json', 'yaml', 'csv', 'value':
            self.assertIn(base.VIF_ID, self.run_tapmac('list', '-f', format))

    def test_libvirt_does_not_answer(self):
        self.plug()
        self.domains.end()
        row, = self.rows('list')
        self.assertEqual((None, False), (row['Domain'], row['Domain known']))
        self.assertIn('libvirt does not answer', self.said)


class ShowTest(OperatorTestCase):

    def test_by_any_name(self):
        self.plug()
        for which in (base.TAP, base.VIF_ID, base.GUEST_MAC, base.TAP_MAC,
                      base.GUEST_MAC.upper()):
            shown = self.rows('show', which)
            self.assertEqual((base.TAP, [], 1), (
                shown['TAP'], shown['Wrong'], shown['Queues']))

    def test_by_domain(self):
        self.domains.define(
            (base.TAP, base.GUEST_MAC, True, 1),
            ('tap00000001', 'fa:16:3e:00:00:01', True, 1))
        self.plug()
        self.plug(base.numbered_vif(1))
        for which in (self.domains.of(base.TAP),
                      self.domains.instance_of(base.TAP).upper()):
            self.assertEqual(base.TAP, self.rows('show', which)['TAP'])

    def test_what_is_wrong(self):
        self.plug()
        self.plug(base.numbered_vif(1))
        self.host.set(base.TAP, mtu=1400)
        self.host.set('tap00000001', state='down')
        shown = self.rows('show', base.TAP, returncode=10)
        self.assertEqual(['TM208'], [each['Code'] for each in shown['Wrong']])

    def test_none(self):
        self.run_tapmac('show', 'tap0', returncode=1)
        self.assertIn('No TAP of tapmac has this name', self.said)

    def test_several(self):
        self.plug()
        self.plug(base.numbered_vif(1, address=base.GUEST_MAC,
                                    bridge_name='br200'))
        self.run_tapmac('show', base.GUEST_MAC, returncode=1)
        self.assertIn('tap00000001', self.said)


class SearchTest(test_audit.AuditTestCase):
    """What "tapmac show" takes for which TAP."""

    TWIN = 'tap1a2b0000-00'

    def setUp(self):
        super().setUp()
        self.plug()
        self.plug(base.numbered_vif(
            1, id='1a2b0000-0000-4000-8000-000000000000', vif_name=self.TWIN))

    def found(self, which):
        return [tap.name for tap in searching.search(
            inventory.read(self.options), which)]

    def test_by_what_one_tap_has(self):
        self.host.ip.link('property_add', altname='Guest.of.Mine',
                          index=self.host.link(base.TAP).index)
        self.host.rename(self.TWIN, 'TAP1')
        for which in (base.TAP, base.TAP.upper(), 'Guest.of.Mine',
                      base.VIF_ID, base.VIF_ID.upper(), base.VIF_ID[:5],
                      base.VIF_ID[:-1].upper(), base.GUEST_MAC.upper(),
                      base.TAP_MAC.upper()):
            self.assertEqual([base.TAP], self.found(which), which)
        self.assertEqual(['TAP1'], self.found(self.TWIN))
        for which in ('', '1a2', base.VIF_ID[1:], 'guest.of.mine', 'lo',
                      base.VIF_ID + '0', 'ffff'):
            self.assertEqual([], self.found(which), which)

    def test_several(self):
        self.assertEqual([self.TWIN, base.TAP], sorted(self.found('1A2b')))

    def test_as_it_is_written_first(self):
        self.host.rename(self.TWIN, base.TAP.upper())
        for name in base.TAP, base.TAP.upper():
            self.assertEqual([name], self.found(name))
        self.assertEqual(2, len(self.found(base.TAP.title())))

    def test_without_its_mark(self):
        self.domains.end()
        self.host.set(base.TAP, ifalias='')
        for length in 5, 11, 20, 36:
            self.assertEqual([base.TAP], self.found(base.VIF_ID[:length]))
        self.assertEqual([], self.found('1a2b3c4d-5f'))

    def test_whole_before_a_beginning(self):
        self.domains.define()
        self.plug(base.numbered_vif(
            3, id='9c000000-0000-4000-8000-000000000000', vif_name='1a2b'))
        self.assertEqual(['1a2b'], self.found('1a2b'))

    def test_by_domain(self):
        self.domains.define(('tap0', 'fa:16:3e:00:00:09', True, 1),
                            (base.TAP, base.GUEST_MAC, False, 1))
        name = self.domains.of(base.TAP)
        for which in name, self.domains.instance_of(base.TAP):
            self.assertEqual([base.TAP], self.found(which))
        for which in name.upper(), name[:-1], self.domains.of('tap0'):
            self.assertEqual([], self.found(which))


class AuditTest(OperatorTestCase):

    def test_exit_status(self):
        self.plug()
        self.assertEqual([], self.rows('audit'))
        self.host.set(base.TAP, mtu=1400)
        row, = self.rows('audit', returncode=10)
        self.assertEqual(
            ('TM208', 'warning', base.TAP, finding.CODES['TM208'][1]),
            (row['Code'], row['Severity'], row['Device'], row['Meaning']))
        self.host.set(base.TAP, state='down')
        self.rows('audit', returncode=20)

    def test_configuration(self):
        path = self.create_tempfiles('[os_vif_tapmac]\nlink_group = 7\n')
        self.plug()
        row, = self.rows('--config-file', path, 'audit', returncode=10)
        self.assertEqual('TM211', row['Code'])

    @base.needs_real_root(base.SEVERAL_USERS)
    def test_configuration_that_is_not_for_everybody(self):
        hosts.mount_copy('/etc', without=('nova',))
        os.makedirs('/etc/nova')
        with open('/etc/nova/nova.conf', 'w') as opened:
            opened.write('[os_vif_tapmac]\nlink_group = 7\n')
        for path in '/etc/nova/nova.conf', '/etc/nova':
            os.chmod(path, 0o700)
            self.rows('audit', prefix=_NOBODY)
            self.assertEqual(path + ' can not be read by this user: what it '
                             'says is not known here\n', self.said)
        self.plug()
        row, = self.rows('audit', returncode=10)
        self.assertEqual('TM211', row['Code'])

    def create_tempfiles(self, text):
        path = os.path.join(self.useFixture(
            test_audit.fixtures.TempDir()).path, 'nova.conf')
        with open(path, 'w') as opened:
            opened.write(text)
        return path

    def test_missing_configuration(self):
        self.run_tapmac('--config-file', '/nowhere.conf', 'audit',
                        returncode=1)
        self.assertIn('/nowhere.conf', self.said)


class ConfigurationTest(OperatorTestCase):
    """Whose files are read: those of nova-compute, as it finds them."""

    NONE = '[os_vif_tapmac]\nanti_spoofing = none\n'

    def setUp(self):
        super().setUp()
        self.patch(sys.modules[__name__], '_CHANGING', ())
        hosts.mount_copy('/etc', without=('nova',))
        os.makedirs('/etc/nova')
        self.configure(anti_spoofing='none')
        self.plug()

    def write(self, path, text):
        path = pathlib.Path('/etc/nova', path)
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        self.addCleanup(path.unlink)
        return str(path)

    def test_where_nova_compute_has_it(self):
        # Without it, the default finds that the guest is not locked.
        self.write('nova.conf', '[os_vif_tapmac]\n')
        for path in ('nova-compute.conf', 'nova-cpu.conf',
                     'nova.conf.d/50-tapmac.conf',
                     'nova-compute.conf.d/50-tapmac.conf',
                     'nova-cpu.conf.d/50-tapmac.conf'):
            path = self.write(path, self.NONE)
            self.assertEqual([], self.rows('repair', '-v'), path)
            self.assertIn(path, self.said)
            os.rename(path, path + '.off')
            self.addCleanup(os.rename, path + '.off', path)
        self.assertFalse(self.host.link(base.TAP).locked)
        row, = self.rows('repair')
        self.assertEqual(('TM214', 'mended'), (row['Code'], row['Result']))

    def test_what_comes_later_wins(self):
        self.write('nova.conf', '[os_vif_tapmac]\nanti_spoofing = mac\n')
        self.write('nova-compute.conf', self.NONE)
        self.assertEqual([], self.rows('audit'))
        self.write('nova.conf.d/1.conf',
                   '[os_vif_tapmac]\nanti_spoofing = mac\n')
        self.rows('audit', returncode=20)

    def test_nothing_is_changed_without_our_section(self):
        before = self.host.state()
        said = []
        for path in ('nova.conf', 'nova-compute.conf.d/90.conf'):
            for command in (
                    ('repair',), ('purge', '--force'),
                    ('plug', *PlugTest.ARGUMENTS, '--vif-id', base.VIF_ID),
                    ('unplug', '--mac', base.GUEST_MAC)):
                self.run_tapmac(*command, returncode=1)
                self.assertIn('no file has a section [os_vif_tapmac]',
                              self.said)
                self.assertIn('Read: %s.' % (', '.join(said) or 'no file'),
                              self.said)
            said.append(self.write(path, '[libvirt]\nvirt_type = kvm\n'))
        self.run_tapmac('--config-file', said[0], 'repair', returncode=1)
        self.assertIn('Read: %s.' % said[0], self.said)
        self.assertEqual(before, self.host.state())


class RepairTest(OperatorTestCase):

    def break_two(self):
        """Have one held TAP that can be mended, and one that can not."""
        self.plug()
        self.hold()
        self.plug(base.numbered_vif(1))
        self.host.set(base.TAP, address='02:00:00:00:00:07')
        self.host.set('tap00000001', mtu=1400)

    def test_dry_run(self):
        self.break_two()
        before = self.host.state()
        rows = self.rows('repair', '--dry-run', returncode=10,
                         prefix=_NO_CAPABILITY)
        self.assertEqual(
            {'TM201': 'would be mended', 'TM208': 'Remedy: have the same MTU '
             'for the network in Neutron and for the bridge'},
            {row['Code']: row['Result'] for row in rows})
        self.assertEqual(before, self.host.state())

    def test_repair(self):
        self.break_two()
        index = self.host.link(base.TAP).index
        rows = self.rows('repair', returncode=10)
        self.assertEqual(['mended'], [row['Result'] for row in rows
                                      if row['Code'] == 'TM201'])
        self.assertEqual((base.TAP_MAC, index, True), (
            self.host.link(base.TAP).mac, self.host.link(base.TAP).index,
            self.host.link(base.TAP).held))
        self.assertEqual(['TM208'], [row['Code'] for row in self.rows(
            'repair', returncode=10)])

    def test_only_some(self):
        self.break_two()
        self.assertEqual([], self.rows('repair', base.BRIDGE))
        self.assertEqual('02:00:00:00:00:07', self.host.link(base.TAP).mac)
        self.run_tapmac('repair', 'eth7', returncode=1)
        self.assertIn('eth7 is no TAP', self.said)

    def test_lost_bridge(self):
        self.plug()
        self.hold()
        self.host.set(base.TAP, master=0)
        row, = self.rows('repair')
        self.assertEqual('mended', row['Result'])
        self.assertEqual(base.BRIDGE, self.host.master(base.TAP))

    def delete_two_bridges(self):
        self.plug()
        self.plug(base.numbered_vif(1, bridge_name='br200'))
        self.hold()
        for name in base.BRIDGE, 'br200':
            self.host.delete(name)

    def assert_refused(self, *arguments, words):
        """Expect one sentence, and the host as it was."""
        before = self.host.state()
        self.run_tapmac(*arguments, returncode=1)
        # Here may be no binding of libvirt's.
        lines = [line for line in self.said.splitlines()
                 if not line.startswith('libvirt does not answer')]
        self.assertEqual(1, len(lines), self.said)
        self.assertIn(words, self.said)
        self.assertEqual(before, self.host.state())

    def test_bridges_that_were_deleted(self):
        self.delete_two_bridges()
        before = self.host.state()
        rows = self.rows('repair', returncode=20)
        self.assertEqual(['TM206'] * 2, [row['Code'] for row in rows])
        self.assertIn('--bridge', rows[0]['Result'])
        self.assertEqual(before, self.host.state())
        self.host.add_bridge('br300')
        self.assert_refused('repair', '--bridge', 'br300',
                            words='for TAPs that are named')
        row, = self.rows('repair', '--bridge', 'br300', base.TAP)
        self.assertEqual('mended', row['Result'])
        self.assertEqual(['br300', None], [
            self.host.master(name) for name in (base.TAP, 'tap00000001')])

    def test_bridge_that_is_not_there(self):
        self.delete_two_bridges()
        self.assert_refused('repair', '--bridge', 'nosuch', base.TAP,
                            words='no bridge nosuch')
        self.host.add('nosuch', 'ifb')
        self.assert_refused('repair', '--bridge', 'nosuch', base.TAP,
                            words='no bridge nosuch')

    def test_bridge_where_it_does_not_belong(self):
        self.delete_two_bridges()
        self.host.add_bridge('br200')
        self.assert_refused(
            'repair', '--bridge', 'br200', base.TAP, 'tap00000001', 'br200',
            words='br200 is no TAP')
        self.host.add_bridge(base.BRIDGE)
        self.assert_refused('repair', '--bridge', 'br200', base.TAP,
                            words='belongs on br100')

    def test_other_bridge(self):
        self.plug()
        self.plug(base.numbered_vif(1, bridge_name='br200'))
        wrong = self.host.link('br200').index
        self.host.set(base.TAP, master=wrong)
        self.assertEqual('mended', {
            row['Code']: row['Result'] for row in self.rows('repair')}[
                'TM218'])
        self.assertEqual(base.BRIDGE, self.host.master(base.TAP))
        self.hold()
        self.host.set(base.TAP, master=wrong)
        before = self.host.state()
        self.assertIn('hard reboot', {
            row['Code']: row['Result'] for row in self.rows(
                'repair', base.TAP, returncode=20)}['TM218'])
        self.assertEqual(before[0], self.host.state()[0])

    @base.needs_real_root(base.SEVERAL_USERS)
    def test_what_fails_does_not_end_it(self):
        """One is to be made anew; the other is held, so that it never is."""
        self.plug()
        self.hold()
        self.host.set(base.TAP, address='02:00:00:00:00:07')
        self.configure(owner='nobody')
        self.plug(base.numbered_vif(2))
        # The command has the default: whoever runs it.
        with hosts.private_mounts():
            hosts.mount('/dev/null', '/dev/net/tun', None, hosts.MS_BIND)
            rows = self.rows('repair', returncode=10)
        self.assertEqual(
            {'TM201': 'mended', 'TM213': 'could not be mended'},
            {row['Code']: row['Result'] for row in rows})
        self.assertIn('tap00000002: creating the TAP failed', self.said)

    def test_without_privilege(self):
        self.domains.define((base.TAP, base.GUEST_MAC, True, 1))
        self.break_two()
        self.run_tapmac('repair', prefix=_NO_CAPABILITY, returncode=1)
        self.assertEqual(
            'This changes links and needs CAP_NET_ADMIN: run it as root, or '
            'with --dry-run.\n', self.said)


class PurgeTest(OperatorTestCase):

    def setUp(self):
        super().setUp()
        self.domains.define()

    def plug_old(self, *numbers):
        for number in numbers:
            vif = base.numbered_vif(number)
            self.plug(vif)
            self.host.set(vif.vif_name, ifalias=str(mark.TapMark(
                vif.id, vif.address, base.BRIDGE, 1000000000)))

    def results(self, *arguments, **kwargs):
        return {row['TAP']: row['Result'] for row in self.rows(
            'purge', *arguments, **kwargs)}

    def test_only_what_is_left_over(self):
        self.plug()  # Just now.
        self.plug_old(1, 2, 3)
        self.hold('tap00000002', None)
        self.domains.define(('tap00000003', 'fa:16:3e:00:00:03', False, 1))
        self.host.add_tap('tap0')
        before = self.host.state()
        self.assertEqual(
            {'tap00000001': 'would be removed',
             'tap00000002': 'stays: a process holds it'},
            self.results('--dry-run', prefix=_NO_CAPABILITY))
        self.assertEqual(before, self.host.state())
        self.assertEqual(
            {'tap00000001': 'removed',
             'tap00000002': 'stays: a process holds it'}, self.results())
        self.assertEqual(
            [False, True, True, True, True],
            [self.host.find(name) is not None for name in (
                'tap00000001', 'tap00000002', 'tap00000003', base.TAP,
                'tap0')])
        self.assertIn('libvirt %s has 1 domains.' % self.domains.uri,
                      self.said)

    def test_held_only_by_name_and_force(self):
        self.plug_old(1, 2)
        self.hold('tap00000001', None)
        stays = {'tap00000001': 'stays: a process holds it'}
        self.domains.define(('tap00000002', 'fa:16:3e:00:00:02', False, 1))
        self.assertEqual(stays, self.results('--force'))
        self.assertEqual(stays, self.results('tap00000001'))
        self.assertEqual({'tap00000001': 'removed'},
                         self.results('--force', 'tap00000001'))

    def test_libvirt_has_none_of_ours(self):
        self.plug_old(1, 2, 3)
        self.plug()  # Too new to be left over, and not known either.
        self.host.add_tap('tap0')
        self.hold('tap00000001', None)
        before = self.host.state()
        for others in (), (('tap0', 'fa:16:3e:00:00:09', True, 1),):
            self.domains.define(*others)
            for arguments in (), ('--force',), ('--dry-run',):
                self.run_tapmac('purge', *arguments, returncode=1)
                self.assertIn(
                    '%s, with %d domains, has none of the 4 TAPs'
                    % (self.domains.uri, len(others)), self.said)
        self.assertEqual(before, self.host.state())
        self.assertEqual({'tap00000002': 'removed',
                          'tap00000003': 'removed'},
                         self.results('tap00000003', 'tap00000002'))

    def test_only_what_is_left_over_can_be_named(self):
        self.plug_old(1, 2)
        self.plug()
        self.domains.define(('tap00000001', 'fa:16:3e:00:00:01', False, 1))
        for name in base.TAP, 'tap00000001', 'lo', 'nosuch':
            self.run_tapmac('purge', 'tap00000002', name, returncode=1)
            self.assertIn('%s is no TAP' % name, self.said)
        self.assertEqual(['tap00000002'], list(self.results()))

    def test_libvirt_of_the_service(self):
        self.plug_old(1)
        self.hold('tap00000001', None)
        self.domains.define(('tap00000001', 'fa:16:3e:00:00:01', True, 1))
        # What libvirt's own commands ask has no domain.
        other = self.useFixture(libvirt_domains.Domains())
        self.assertEqual({}, self.results('--force', '--older-than', '0'))
        self.assertIn('libvirt %s has 1 domains.' % self.domains.uri,
                      self.said)
        own = self.configuration(self.domains.uri)
        self.assertEqual('guest-of-tap00000001',
                         self.rows(*own, 'list')[0]['Domain'])
        self.assertEqual([], self.rows(*own, 'audit'))
        self.rows(*own, 'show', 'tap00000001')
        row, = self.rows(*self.configuration(other.uri), 'audit',
                         returncode=10)
        self.assertEqual('TM210', row['Code'])
        self.assertIn(other.uri, row['Evidence'])

    def test_other_libvirt_than_that_of_the_service(self):
        self.plug_old(1, 2)
        self.domains.define(('tap00000001', 'fa:16:3e:00:00:01', True, 1))
        before = self.host.state()
        for which in (), ('tap00000002',):
            self.run_tapmac(*self.configuration(''), 'purge', *which,
                            returncode=1)
            self.assertIn('qemu:///system', self.said)
            self.assertIn('Nothing is removed', self.said)
        self.assertEqual(before, self.host.state())

    def test_younger_ones_if_asked(self):
        self.plug()
        self.assertEqual({}, self.results())
        self.assertEqual({base.TAP: 'removed'},
                         self.results('--older-than', '0', base.TAP))

    def test_what_a_purge_left_that_was_killed(self):
        self.only_in_full()
        self.plug_old(1, 2)
        self.domains.define(('tap00000002', 'fa:16:3e:00:00:02', False, 1))
        for name in 'tap00000001', 'tap00000002':
            test_audit.CodesTest.leave_half_deleted(self, name)
        left = ['tap00000001.tapmac-being-deleted',
                'tap00000002.tapmac-being-deleted']
        self.assertEqual(left, sorted(
            row['TAP'] for row in self.rows('list')))
        for name in left:
            self.host.ip.link('get', altname=name)
        self.assertEqual('tap00000002.tapmac-being-deleted', self.rows(
            'show', 'tap00000002', returncode=20)['TAP'])
        self.assertEqual({left[0]: 'would be removed'},
                         self.results('--dry-run'))
        self.assertEqual({left[0]: 'removed'}, self.results())
        self.assertEqual(['mended'], [row['Result'] for row in self.rows(
            'repair', 'tap00000002')])
        self.assertEqual(['tap00000002'], [
            row['TAP'] for row in self.rows('list')])

    def test_libvirt_does_not_answer(self):
        self.plug_old(1)
        self.domains.end()
        self.run_tapmac('purge', '--force', returncode=1)
        self.assertIn('Nothing is removed', self.said)
        self.assertIsNotNone(self.host.find('tap00000001'))

    def test_without_privilege(self):
        self.plug_old(1)
        self.run_tapmac('purge', 'tap00000001', prefix=_NO_CAPABILITY,
                        returncode=1)
        self.assertIn('needs CAP_NET_ADMIN', self.said)


class UriTest(base.TestCase):
    """Which libvirt nova-compute asks."""

    def uri(self, text):
        path = self.useFixture(test_audit.fixtures.TempDir()).path + '/conf'
        with open(path, 'w') as opened:
            opened.write(text)
        self.config.conf([], project='nova', default_config_files=[path])
        return domains.uri_of_service()

    def test_by_configuration(self):
        for text, uri in (
                ('', 'qemu:///system'),
                ('[libvirt]\n', 'qemu:///system'),
                ('[libvirt]\nconnection_uri =\n', 'qemu:///system'),
                ('[libvirt]\nvirt_type = qemu\n', 'qemu:///system'),
                ('[libvirt]\nvirt_type = lxc\n', 'lxc:///'),
                ('[libvirt]\nvirt_type = parallels\n',
                 'parallels:///system'),
                ('[libvirt]\nvirt_type = lxc\nconnection_uri = qemu:///x\n',
                 'qemu:///x')):
            self.assertEqual(uri, self.uri(text), text)

    def test_of_libvirts_own_commands(self):
        self.useFixture(test_audit.fixtures.EnvironmentVariable(
            'LIBVIRT_DEFAULT_URI', 'test:///default'))
        self.uri('[libvirt]\nconnection_uri = qemu:///x\n')
        self.assertEqual('qemu:///x', domains.uri())
        self.uri('[libvirt]\nconnection_uri =\n')
        self.assertEqual('qemu:///system', domains.uri())
        self.uri('')
        self.assertEqual('test:///default', domains.uri())


class RemoveManyTest(test_audit.AuditTestCase):
    """What the privileged side makes of it."""

    def setUp(self):
        super().setUp()
        self.vifs = [base.numbered_vif(number) for number in range(1, 6)]
        for vif in self.vifs:
            self.plug(vif)
        self.deleted = []

    def identities(self):
        return [TapIdentity(vif.id, vif.vif_name)
                for vif in self.vifs]

    def before_deletion(self, function):
        """Have something happen once all names are taken, and are to go."""
        real = nl.Netlink.links
        calls = []

        def links(netlink):
            calls.append(1)
            if len(calls) == 2:
                function()
            return real(netlink)
        self.patch(nl.Netlink, 'links', links)

    def remove(self, also_held=False):
        return removing.remove_many(self.identities(), also_held)

    def left(self):
        return [vif.vif_name for vif in self.vifs
                if self.host.find(vif.vif_name) is not None]

    def test_in_one_message(self):
        self.patch(nl.Netlink, 'delete', None)
        self.remove()
        self.assertEqual([], self.left())

    def test_only_with_our_mark_for_this_vif(self):
        self.host.set('tap00000001', ifalias='mine')
        self.host.set('tap00000002', ifalias=str(mark.TapMark(
            base.VIF_ID, base.GUEST_MAC, base.BRIDGE, 1)))
        self.assertEqual(3, len(self.remove()))
        self.assertEqual(['tap00000001', 'tap00000002'], self.left())

    def test_plugged_meanwhile(self):
        self.before_deletion(lambda: self.plug(self.vifs[2]))
        self.assertEqual(4, len(self.remove()))
        self.assertEqual(['tap00000003'], self.left())
        self.assertEqual(29793, self.host.link('tap00000003').group)

    def test_plugged_and_held_meanwhile(self):
        def start():
            self.plug(self.vifs[2])
            self.hold('tap00000003', None)
        self.before_deletion(start)
        self.assertEqual(4, len(self.remove()))
        self.assertEqual(['tap00000003'], self.left())
        self.assertTrue(self.host.link('tap00000003').held)

    def test_stranger_joins_the_group(self):
        stranger = self.host.add_tap('tap0')

        def join():
            group = next(link.group for link in self.host.links()
                         if link.former_name == 'tap00000001')
            self.host.ip.link('set', index=stranger.index, group=group)
        self.before_deletion(join)
        self.assertEqual(5, len(self.remove()))
        self.assertEqual([], self.left())
        self.assertIsNotNone(self.host.find('tap0'))

    def test_interrupted_meanwhile(self):
        before = self.host.state()
        self.before_deletion(sys.exit)
        self.assertRaises(SystemExit, self.remove)
        self.assertEqual(before, self.host.state())
        self.assert_clean()
        self.assertEqual(5, len(self.remove()))

    def test_group_of_all_others_is_left_alone(self):
        self.plug()
        self.remove()
        self.assertIsNotNone(self.host.find(base.TAP))


class PlugTest(OperatorTestCase):

    ARGUMENTS = '--bridge', base.BRIDGE, '--mac', base.GUEST_MAC

    def test_plug_and_unplug(self):
        self.domains.define()
        self.rows('plug', *self.ARGUMENTS, '--dry-run',
                  prefix=_NO_CAPABILITY)
        self.assertIsNone(self.host.find(base.BRIDGE))
        shown = self.rows('plug', *self.ARGUMENTS)
        self.assertEqual(base.TAP_MAC, shown['TAP MAC'])
        self.assert_finished(shown['TAP'])
        self.assert_clean()
        # Again: the same VIF.
        index = self.host.link(shown['TAP']).index
        self.assertEqual(shown, self.rows('plug', *self.ARGUMENTS))
        self.assertEqual(index, self.host.link(shown['TAP']).index)
        self.assertEqual(
            shown['TAP'] + ' would be removed.\n', self.run_tapmac(
                'unplug', *self.ARGUMENTS, '--dry-run'))
        self.assertIn('is removed', self.run_tapmac(
            'unplug', *self.ARGUMENTS))
        self.assertIsNone(self.host.find(shown['TAP']))
        self.assertIn('Nothing to do', self.run_tapmac(
            'unplug', *self.ARGUMENTS))

    def test_named(self):
        shown = self.rows(
            'plug', *self.ARGUMENTS, '--vif-id', base.VIF_ID, '--mtu',
            '1400', '--name', 'tap-by-hand')
        self.assertEqual(('tap-by-hand', base.VIF_ID, 1400),
                         (shown['TAP'], shown['VIF'], shown['MTU']))

    def test_mtu_of_the_bridge(self):
        self.plug(base.numbered_vif(1, mtu=9000))
        self.assertEqual(9000, self.rows('plug', *self.ARGUMENTS)['MTU'])

    def test_dry_run_says_what_a_plug_would_say(self):
        path = AuditTest.create_tempfiles(
            self, '[os_vif_tapmac]\ncreate_bridge = false\n')
        for dry_run in (), ('--dry-run',):
            self.run_tapmac('--config-file', path, 'plug', *self.ARGUMENTS,
                            *dry_run, returncode=1)
            self.assertIn('create_bridge is off', self.said)

    def test_held(self):
        self.plug()
        self.hold()
        self.run_tapmac('unplug', *self.ARGUMENTS, returncode=1)
        self.assertIn('--force', self.said)
        self.run_tapmac('unplug', *self.ARGUMENTS, '--force')
        self.assertIsNone(self.host.find(base.TAP))

    def test_mtu_that_none_can_be(self):
        for mtu, *dry_run in (
                ('-1',), ('0', '--dry-run'), ('67',), ('67', '--dry-run'),
                ('65522',), ('99999999999', '--dry-run')):
            self.run_tapmac('plug', *self.ARGUMENTS, '--mtu', mtu,
                            *dry_run, returncode=1)
            self.assertEqual(
                '--mtu %s: the MTU of a TAP is a number of bytes from 68 '
                'to 65521.\n' % mtu, self.said)
        self.assertIsNone(self.host.find(base.BRIDGE))

    def test_what_fails_is_a_line(self):
        self.plug(base.numbered_vif(1, vif_name='x'))
        self.run_tapmac('plug', *self.ARGUMENTS, '--name', 'x', returncode=1)
        self.assertTrue(self.said.startswith('x: the TAP of another VIF'))
        self.assertEqual(1, self.said.count('\n'))

    def test_unplug_without_its_bridge(self):
        for which in (self.ARGUMENTS, ('--mac', base.GUEST_MAC),
                      ('--vif-id', base.VIF_ID)):
            self.plug()
            self.host.delete(base.BRIDGE)
            self.assertIn('is removed', self.run_tapmac('unplug', *which))
            self.assertIsNone(self.host.find(base.TAP))

    def test_unplug_what_lost_its_mark(self):
        self.domains.define()
        self.plug()
        self.host.set(base.TAP, ifalias='')
        self.run_tapmac('unplug', *self.ARGUMENTS, returncode=1)
        self.assertIn('name it by --vif-id', self.said)
        self.run_tapmac('unplug', '--vif-id', base.VIF_ID)
        self.assertIsNone(self.host.find(base.TAP))

    def test_unplug_one_of_several(self):
        self.plug()
        self.plug(base.numbered_vif(1, address=base.GUEST_MAC,
                                    bridge_name='br200'))
        self.run_tapmac('unplug', '--mac', base.GUEST_MAC, returncode=1)
        self.assertIn('tap00000001 and ' + base.TAP, self.said)
        self.run_tapmac('unplug', returncode=1)
        self.assertIn('--mac or --vif-id', self.said)
        self.run_tapmac('unplug', '--mac', base.GUEST_MAC, '--bridge',
                        'br200')
        self.assertIsNone(self.host.find('tap00000001'))
        self.assertIsNotNone(self.host.find(base.TAP))

    def test_without_privilege(self):
        self.run_tapmac('plug', *self.ARGUMENTS, prefix=_NO_CAPABILITY,
                        returncode=1)
        self.assertIn('needs CAP_NET_ADMIN', self.said)


class WatchingTestCase(OperatorTestCase):

    def start(self, *arguments, code='import sys; '
              'from vif_plug_tapmac.cli import main; sys.exit(main.main())'):
        self.watch = subprocess.Popen(
            [sys.executable, '-c', code, 'watch', '--interval', '1',
             *arguments], cwd=base.CHECKOUT,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            # It may be ignored in those that start us.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
        self.addCleanup(self.watch.__exit__, None, None, None)
        self.addCleanup(self.watch.kill)
        #: What it has said, beyond the last line waited for, and up to it.
        self.text, self.told = b'', b''

    def wait_for(self, *words):
        """Return the first line that has all these words."""
        deadline = time.monotonic() + patience.HANG
        while time.monotonic() < deadline:
            *lines, rest = self.text.split(b'\n')
            for number, line in enumerate(lines):
                if all(word in line.decode() for word in words):
                    self.told += b'\n'.join(lines[:number + 1]) + b'\n'
                    self.text = b'\n'.join(lines[number + 1:] + [rest])
                    return line.decode()
            if select.select([self.watch.stdout], [], [], 0.1)[0]:
                self.text += os.read(self.watch.stdout.fileno(), 65536)
        raise AssertionError('%s not in %s' % (words, self.text.decode()))


class WatchTest(WatchingTestCase):

    def test_life_of_a_port(self):
        self.start()
        self.wait_for('watching', '0 TAPs')
        self.plug()
        self.wait_for(' plug ', base.TAP, base.TAP_MAC, 'on br100')
        guest = self.hold()
        self.wait_for(' held ', base.TAP)
        self.host.set(base.TAP, address='02:00:00:00:00:07')
        self.wait_for(' MAC ', base.TAP, '02:00:00:00:00:07, was '
                      + base.TAP_MAC)
        self.wait_for(' TM201 ', base.TAP, 'warning')
        self.plug()
        self.wait_for(' TM201 ', base.TAP, 'gone')
        self.host.set(base.TAP, master=0)
        self.wait_for(' leave ', base.TAP, 'was on br100')
        self.wait_for(' TM206 ', base.TAP, 'error')
        self.plug()
        self.wait_for(' join ', base.TAP, 'now on br100')
        guest.close()
        self.wait_for(' released ', base.TAP)
        self.unplug()
        self.wait_for(' unplug ', base.TAP)
        self.watch.send_signal(signal.SIGINT)
        self.assertEqual(0, self.watch.wait(patience.HANG))

    def test_what_netlink_does_not_tell(self):
        self.plug()
        self.start()
        self.wait_for('watching', '1 TAPs')
        self.domains.define((base.TAP, base.GUEST_MAC, True, 2))
        self.wait_for(' TM212 ', base.TAP)

    def test_flap(self):
        index = self.host.add(base.BRIDGE, 'bridge').index
        self.host.set(base.BRIDGE, state='up')
        self.plug()
        self.start()
        self.wait_for(' TM101 ', base.BRIDGE)
        self.host.add('eth0', 'veth', peer='wire',
                      address='52:54:00:12:34:56')
        self.host.set('eth0', master=index)
        self.wait_for(' MAC ', base.BRIDGE, '52:54:00:12:34:56')

    def test_json(self):
        self.start('-f', 'json')
        self.wait_for('watching')
        self.plug()
        line = json.loads(self.wait_for('"plug"'))
        self.assertEqual(base.TAP, line['device'])

    def test_storm(self):
        """More events than it can keep: nothing is lost for good."""
        self.start()
        self.wait_for('watching')
        self.watch.send_signal(signal.SIGSTOP)
        self.plug()
        bridge = self.host.link(base.BRIDGE).index
        names = ['tap%d' % number for number in range(40)]
        for name in names:
            self.host.add_tap(name)
            self.host.set(name, master=bridge)
        for _ in range(40):
            for name in names:
                self.host.ip.link(
                    'set', index=self.host.ip.link_lookup(ifname=name)[0],
                    ifalias='x' * 200)
        self.host.set(base.TAP, address='02:00:00:00:00:07')
        self.watch.send_signal(signal.SIGCONT)
        self.wait_for(' TM201 ', base.TAP)


class ApplicationTest(OperatorTestCase):

    COMMANDS = ('audit', 'demo', 'explain', 'list', 'mac', 'plug', 'purge',
                'repair', 'show', 'unplug', 'watch')

    def test_help(self):
        listed = self.run_tapmac('--help')
        for command in self.COMMANDS:
            self.assertIn('\n  %s ' % command, listed)
            self.assertIn('usage: ', self.run_tapmac(command, '--help'))

    def test_completion(self):
        script = self.run_tapmac('complete')
        done = subprocess.run(['bash', '-n'], input=script, text=True)
        self.assertEqual(0, done.returncode)
        for command in self.COMMANDS:
            self.assertIn(command, script)

    def test_plugin_does_not_look_at_hosts(self):
        code = ('import sys; import vif_plug_tapmac.plugin; '
                'sys.exit(any(name.startswith("vif_plug_tapmac.host") '
                'for name in sys.modules))')
        self.assertEqual(0, subprocess.run(
            [sys.executable, '-c', code], cwd=base.CHECKOUT).returncode)
