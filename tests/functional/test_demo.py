# SPDX-License-Identifier: Apache-2.0

"""``tapmac demo`` as a user runs it: a process of its own."""

import json
import os
import subprocess
import sys

from testtools import matchers

from tests import base
from tests import hosts
from tests import situations
from tests import udevd
from vif_plug_tapmac.cli import demo
from vif_plug_tapmac.cli import main
from vif_plug_tapmac.kernel import netlink as nl
from vif_plug_tapmac.kernel import tun


#: One that runs in a user namespace, and one that does not.
_TESTS = ['tests.functional.test_plug.PlugTest.' + name
          for name in ('test_tap_is_finished', 'test_owner_by_name')]
_USER_NAMESPACE = 'unshare', '--user', '--map-root-user'


class DemoTestCase(base.FunctionalTestCase):

    def demo(self, *arguments, prefix=()):
        return base.run_command('main', 'demo', *arguments, prefix=prefix)

    def assert_shows_right_facts_and_touches_nothing(self, prefix=()):
        before = self.host.state()
        done = self.demo('-f', 'json', prefix=prefix)
        self.assertEqual(0, done.returncode, done.stderr)
        self.assertEqual('', done.stderr)
        facts = {row['Fact']: row for row in json.loads(done.stdout)}
        self.assertEqual({True}, {row['Right'] for row in facts.values()})
        self.assertEqual(
            {'TAP MAC': base.TAP_MAC, 'TAP master': 'br100',
             'TAP state': 'UP', 'TAP owner': 'root',
             'TAP IP addresses': 'none'},
            {name: facts[name]['Plugged'] for name in (
                'TAP MAC', 'TAP master', 'TAP state', 'TAP owner',
                'TAP IP addresses')})
        bridge = facts['br100 MAC']
        self.assertEqual(1, len({bridge['Before'], bridge['Plugged'],
                                 bridge['Unplugged']}))
        for name, row in facts.items():
            if name.startswith('TAP'):
                self.assertEqual((None, None),
                                 (row['Before'], row['Unplugged']))
        self.assertEqual(before, self.host.state())

    def assert_lacks(self, done, *words):
        """Expect one sentence with these words, and nothing else."""
        self.assertEqual((1, ''), (done.returncode, done.stdout))
        line, = done.stderr.splitlines()
        self.assertThat(line, matchers.StartsWith('The demo lacks '))
        for word in words:
            self.assertIn(word, line)


@base.too_slow_emulated('a Python for each test')
class DemoTest(DemoTestCase):

    def test_shows_right_facts_and_touches_nothing(self):
        self.assert_shows_right_facts_and_touches_nothing()

    def test_table(self):
        done = self.demo()
        self.assertEqual(0, done.returncode, done.stderr)
        self.assertIn('| TAP MAC ', done.stdout)
        self.assertLessEqual(max(map(len, done.stdout.splitlines())), 100)

    def test_without_privilege(self):
        done = self.demo(prefix=('setpriv', '--bounding-set', '-all'))
        self.assert_lacks(done, 'a network namespace', 'as root',
                          '"--cap-add SYS_ADMIN --cap-add NET_ADMIN"')
        self.assertNotIn(tun.TUN_DEVICE, done.stderr)

    def test_without_the_privilege_for_links(self):
        done = self.demo(prefix=('setpriv', '--bounding-set', '-net_admin'))
        self.assertEqual((0, ''), (done.returncode, done.stderr))

    def test_without_tun_device(self):
        with hosts.private_mounts():
            hosts.mount('tmpfs', '/dev/net', 'tmpfs')
            done = self.demo()
        self.assert_lacks(done, '/dev/net/tun (No such file', 'modprobe tun',
                          '"--device /dev/net/tun"')
        self.assertNotIn('namespace', done.stderr)

    def test_read_only_sysctls(self):
        with hosts.private_mounts():
            hosts.mount_read_only('/proc/sys')
            done = self.demo()
        self.assert_lacks(done, '/proc/sys/net (Read-only', 'systempaths')

    def test_does_not_wait_for_the_udev_of_the_host(self):
        with udevd.run_directory() as run:
            (run / 'control').touch()
            done = self.demo('-v')
        self.assertEqual(0, done.returncode, done.stderr)
        self.assertIn(' removed', done.stderr)
        self.assertNotIn('udev', done.stderr)

    def test_wrong_fact_is_told_by_the_exit_status(self):
        # In our own namespace instead of the demo's, with a rival that
        # changes the MAC just before the demo looks.
        self.patch(demo, '_enter_own_network_namespace', lambda: None)
        observe = demo._observe

        def spoil_and_observe():
            if self.host.find(demo._TAP):
                with nl.Netlink() as netlink:
                    netlink.change(self.host.link(demo._TAP),
                                   {'mac': '02:00:00:00:00:99'})
            return observe()
        self.patch(demo, '_observe', spoil_and_observe)
        app = main.TapMacApp()
        with open(os.devnull, 'w') as app.stdout:
            self.assertEqual(1, app.run(['demo']))


@base.too_slow_emulated('a Python for each test')
class LittlePrivilegeTest(DemoTestCase):
    """As whoever has just got the checkout may run it, and the tests."""

    def run_tests(self, *prefix):
        """Run two tests there; return what is said of them."""
        environment = dict(os.environ, PYTHONWARNINGS='ignore')
        environment.pop('TAPMAC_NO_SKIP', None)
        done = subprocess.run(
            [*prefix, sys.executable, '-m', 'unittest', '-v', *_TESTS],
            cwd=base.CHECKOUT, env=environment, text=True,
            capture_output=True)
        self.assertEqual(0, done.returncode, done.stderr)
        return done.stderr

    def assert_all_skipped(self, reason, *prefix):
        said = self.run_tests(*prefix)
        self.assertIn('skipped %r' % reason, said)
        self.assertIn('OK (skipped=2)', said)

    @base.needs_real_root(base.SEVERAL_USERS)
    def test_ordinary_user(self):
        user = situations.command('user')
        self.assert_shows_right_facts_and_touches_nothing(user)
        self.assert_all_skipped(hosts.NO_CAPABILITIES, *user)

    @base.needs_real_root(base.SEVERAL_USERS)
    def test_ordinary_user_in_a_user_namespace(self):
        prefix = *situations.command('user'), *_USER_NAMESPACE
        self.assert_shows_right_facts_and_touches_nothing(prefix)
        said = self.run_tests(*prefix)
        self.assertIn("skipped 'needs real root: several users'", said)
        self.assertIn('OK (skipped=1)', said)

    @base.needs_real_root(base.SEVERAL_USERS)
    def test_ordinary_user_who_may_not_open_the_tun_device(self):
        user = situations.command('user-without-tun')
        self.assert_lacks(self.demo(prefix=user), '/dev/net/tun (Permission',
                          'as root', '"--device /dev/net/tun"')
        self.assert_all_skipped(hosts.NO_TUN_PERMISSION, *user,
                                *_USER_NAMESPACE)

    def test_root_in_a_container(self):
        if situations.missing():
            self.cannot_run(situations.missing())
        container = situations.command('container')
        self.assert_lacks(
            self.demo(prefix=container), 'a network namespace of its own',
            '/dev/net/tun (No such file', '/proc/sys/net (Read-only',
            '"--cap-add SYS_ADMIN --cap-add NET_ADMIN --device /dev/net/tun ',
            '"--privileged"')
        self.assert_all_skipped(hosts.NO_CAPABILITIES, *container)

    def test_container_has_no_namespaces(self):
        if situations.missing():
            self.cannot_run(situations.missing())
        for flag in '--user', '--net':
            done = subprocess.run(
                [*situations.command('container'), 'unshare', flag, 'true'],
                cwd=base.CHECKOUT, text=True, capture_output=True)
            self.assertIn('Operation not permitted', done.stderr)
