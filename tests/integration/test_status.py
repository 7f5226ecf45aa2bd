# SPDX-License-Identifier: Apache-2.0

"""``tapmac-status upgrade check`` as an operator runs it."""

import json
import pathlib

import fixtures

from tests import base
from tests.functional import test_audit
from tests import hosts
from tests.integration import test_daemon
from tests import patience
from vif_plug_tapmac.kernel import conntrack


class StatusTestCase(base.FunctionalTestCase):
    """A test of the command, with its section for the privileged daemon."""

    SECTION = 'vif_plug_tapmac_privileged'

    def setUp(self):
        super().setUp()
        self.helper_command = '%s --config-file %%s' % (
            test_daemon.BIN / 'privsep-helper')
        self.directory = pathlib.Path(self.useFixture(fixtures.TempDir()).path)

    def check(self, nova_conf='', options=(), **environment):
        """Return the exit status and what was said of each check."""
        conf = self.directory / 'nova.conf'
        conf.write_text(
            '[os_vif_tapmac]\n%s\n[%s]\nhelper_command = %s\n' % (
                nova_conf, self.SECTION, self.helper_command % conf))
        done = base.run_command('status', *options, '--config-file', str(conf),
                                'upgrade', 'check', '--json', **environment)
        # No libvirt is meant here.
        self.assertRegex(done.stderr, r'\A(libvirt does not answer, so its '
                         r'version is not known: .*\n)?\Z')
        return done.returncode, {
            check['check']: check['details']
            for check in json.loads(done.stdout)['checks']
            if check['result'] != 0}

    def assert_finds(self, check, *words, nova_conf='', status=2,
                     **environment):
        returncode, found = self.check(nova_conf, **environment)
        self.assertEqual((status, [check]), (returncode, list(found)))
        for word in words:
            self.assertIn(word, found[check])

    def add_distribution(self, name, version):
        """Have a package, but nothing in it, in PYTHONPATH."""
        found = self.directory / ('%s-%s.dist-info' % (name, version))
        found.mkdir()
        (found / 'METADATA').write_text(
            'Name: %s\nVersion: %s\n' % (name, version))
        return found


class StatusTest(StatusTestCase):
    """What is said of a host with nova-compute."""

    def test_good(self):
        self.assertEqual((0, {}), self.check())

    def test_unknown_owner(self):
        self.assert_finds('[os_vif_tapmac]', 'owner', 'no-such-user',
                          nova_conf='owner = no-such-user')

    def test_one_group_for_both(self):
        self.assert_finds('[os_vif_tapmac]', 'bridge_group',
                          nova_conf='link_group = 7\nbridge_group = 7')

    def test_one_uplink_for_two_bridges(self):
        self.assert_finds('[os_vif_tapmac]', 'br1 and br2',
                          nova_conf='bridge_uplinks = br1:eth1,br2:eth1')

    def test_option_out_of_range(self):
        self.assert_finds('[os_vif_tapmac]', 'link_group',
                          nova_conf='link_group = 0')

    @base.needs_real_root(base.SEVERAL_USERS)
    def test_network_managers(self):
        with hosts.private_mounts():
            test_audit.CodesTest.have_link_files(self)
            pathlib.Path('/etc/systemd/network/all.network').write_text(
                '[Match]\nName=*\n')
            self.assert_finds('Network managers', 'TM309', 'all.network',
                              '00-tapmac.network', status=1)

    def test_kernel(self):
        nova_conf = ('host_shield = true\nanti_spoofing = mac\n'
                     'bridge_uplinks = br100:eth1.200')
        if hosts.kernel_knows_vlans():
            self.assertEqual((0, {}), self.check(nova_conf))
        else:
            self.assert_finds(
                'Kernel', 'bridge_uplinks', '802.1Q (EOPNOTSUPP',
                '"Kernels"', nova_conf=nova_conf, status=1)

    def test_kernel_for_security_groups(self):
        if conntrack.probe():
            self.assertEqual((0, {}), self.check('firewall = agent'))
        else:
            self.assert_finds(
                'Kernel', 'stateful security groups need conntrack',
                'CONFIG_NF_CONNTRACK_BRIDGE', 'stateless_only',
                nova_conf='firewall = agent', status=1)

    def test_two_distributions_of_one_name(self):
        rival = self.add_distribution('rival', '1.0')
        (rival / 'entry_points.txt').write_text(
            '[os_vif]\ntapmac = rival:Plugin\n')
        self.assert_finds('os-vif plugin', 'rival:Plugin',
                          'vif_plug_tapmac.plugin:TapMacPlugin',
                          PYTHONPATH=str(self.directory))

    def test_two_plugins_of_another_name(self):
        for number in 1, 2:
            rival = self.add_distribution('rival%d' % number, '1.0')
            (rival / 'entry_points.txt').write_text(
                '[os_vif]\novs = rival%d:Plugin\n' % number)
        self.assert_finds('Other os-vif plugins', 'TM303', 'rival1:Plugin',
                          status=1, PYTHONPATH=str(self.directory))

    def assert_finds_routes(self, nova, nova_conf, *words, status=1):
        self.add_distribution('nova', nova)
        if nova.startswith('34.'):  # Which needs it.
            self.add_distribution('os_vif', '5.2.0')
        self.assert_finds('Routes from Nova', *words, status=status,
                          nova_conf=nova_conf, PYTHONPATH=str(self.directory))

    def test_nova_that_never_calls_us(self):
        self.assert_finds_routes('34.0.0', '', 'claim_plugins is empty')

    def test_claims_that_this_nova_does_not_know(self):
        self.assert_finds_routes('34.0.0', 'claim_plugins = linux_bridge',
                                 'linux_bridge', 'Nova 34')

    def test_claim_that_comes_too_early(self):
        self.assert_finds_routes('32.1.0', 'claim_plugins = ovs', 'ovs',
                                 'Nova 32')

    def test_right_claims(self):
        self.add_distribution('nova', '33.0.2')
        self.assertEqual((0, {}), self.check(
            'claim_plugins = ovs,linux_bridge',
            PYTHONPATH=str(self.directory)))

    def test_nova_that_cannot_be_wrapped(self):
        self.assert_finds_routes(
            '33.0.2', 'claim_plugins = linux_bridge\nnova_managed_tap = true',
            'nova_managed_tap', 'switch this option off', status=2)

    def test_daemon_that_does_not_start(self):
        self.helper_command = 'no-such-program %s'
        self.assert_finds('Privileged daemon', 'no-such-program',
                          'helper_command')

    def test_daemon_that_fails(self):
        self.helper_command = 'false %s'
        self.assert_finds('Privileged daemon', 'exited non-zero')

    def test_daemon_that_asks_for_a_password(self):
        self.helper_command = (
            'sh -c "exec < /dev/tty && read password" %s')
        self.assert_finds('Privileged daemon', 'exited non-zero')

    def test_log_that_can_not_be_opened(self):
        self.assert_finds('Privileged daemon', 'log can not be opened',
                          nova_conf='[DEFAULT]\nlog_file = /proc/no/log')

    def test_no_process_is_left(self):
        before = set(self.host.processes())
        self.check()
        # Who is killed is there until it has had a processor.
        patience.wait_until(
            lambda: set(self.host.processes()) == before,
            lambda: 'not %s: %s' % (before, self.host.processes()))

    def test_versions_that_were_not_tested(self):
        for name, version in (('os-vif', '6.0.0'), ('nova', '35.0.0')):
            self.add_distribution(name.replace('-', '_'), version)
        self.assert_finds('Versions', 'os-vif 6.0.0', 'Nova 35.0.0', status=1,
                          PYTHONPATH=str(self.directory),
                          nova_conf='claim_plugins = ovs')

    def test_old_options(self):
        conf = ('claim_plugins = linux_bridge\nflat_interface = eth1\n'
                '[os_vif_linux_bridge]\nuse_ipv6 = true\n')
        self.assert_finds('[os_vif_linux_bridge]', 'use_ipv6 = True',
                          'flat_interface = eth1', status=1, nova_conf=conf)

    def test_udev(self):
        with hosts.private_mounts():
            pathlib.Path('/etc/systemd/network').mkdir(parents=True,
                                                       exist_ok=True)
            hosts.mount('tmpfs', '/etc/systemd/network', 'tmpfs')
            pathlib.Path('/etc/systemd/network/00-all.link').write_text(
                '[Match]\nOriginalName=*\n'
                '[Link]\nMACAddressPolicy=persistent\n')
            if pathlib.Path('/run/udev').exists():
                hosts.mount('tmpfs', '/run/udev', 'tmpfs')
            self.assert_finds('udev', 'TM302', '00-all.link', status=1)

    def test_no_tun_device(self):
        with hosts.private_mounts():
            hosts.mount('tmpfs', '/dev/net', 'tmpfs')
            self.assert_finds('TUN device', '/dev/net/tun', 'modprobe tun')


class AgentStatusTest(StatusTestCase):
    """What is said of a host that is to have tapmac-agent."""

    SECTION = 'tapmac_agent_privileged'

    def check_agent(self, nova_conf, neutron):
        """Return the exit status and what was said of each check."""
        self.add_distribution('neutron', neutron)
        return self.check(nova_conf, ['--agent'],
                          PYTHONPATH=str(self.directory))

    def test_good(self):
        returncode, found = self.check_agent('firewall = agent', '28.0.0')
        if conntrack.probe():
            self.assertEqual((0, {}), (returncode, found))
        else:
            self.assertEqual((1, ['Kernel']), (returncode, list(found)))
            self.assertIn('stateful security groups need conntrack',
                          found['Kernel'])

    def test_all_that_is_wrong(self):
        self.helper_command = 'no-such-program %s'
        returncode, found = self.check_agent('firewall = none', '27.0.2')
        self.assertEqual(2, returncode)
        self.assertEqual(['[os_vif_tapmac]', 'Neutron', 'Privileged daemon'],
                         list(found))
        for check, word in (('[os_vif_tapmac]', 'firewall is none'),
                            ('Neutron', '28 or newer, and this Python has 27'),
                            ('Privileged daemon', '[tapmac_agent_privileged]'),
                            ('Privileged daemon', 'no-such-program')):
            self.assertIn(word, found[check])
