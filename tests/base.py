# SPDX-License-Identifier: Apache-2.0

"""What the tests stand on."""

import logging
import os
import pathlib
import shutil
import subprocess
import sys
import typing

import fixtures
import hypothesis
import os_vif
from os_vif import exception as os_vif_exception
from os_vif.objects import fixed_ip
from os_vif.objects import instance_info
from os_vif.objects import network
from os_vif.objects import subnet
from os_vif.objects import vif as vif_objects
from oslo_config import cfg
from oslo_config import fixture as config_fixture
from oslo_privsep import capabilities
from oslo_privsep import priv_context
import testtools

from tests import hosts
from tests import patience
from vif_plug_tapmac.kernel import agent_healing
from vif_plug_tapmac import opts
from vif_plug_tapmac import privsep
from vif_plug_tapmac.wanted import names
from vif_plug_tapmac.wanted.port import TapPort

os_vif.objects.register_all()

# Tests share the machine with each other: slow says nothing about the code.
hypothesis.settings.register_profile(
    'tapmac', deadline=None, database=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile('tapmac')

CHECKOUT = pathlib.Path(__file__).parent.parent
README = CHECKOUT / 'README.rst'
VIF_ID = '1a2b3c4d-5e6f-4a1b-8c2d-3e4f5a6b7c8d'
TAP = names.nova_tap_name(VIF_ID)
GUEST_MAC = 'fa:16:3e:28:64:c2'
TAP_MAC = 'fe:16:3e:28:64:c2'
BRIDGE = 'br100'
INSTANCE = instance_info.InstanceInfo(
    uuid='d1b6c1b2-0000-4000-8000-000000000000', name='demo')
_Test = typing.TypeVar('_Test', bound=typing.Callable[..., typing.Any])
_Entered = typing.TypeVar('_Entered')
#: A field of a VIF that is to stay unset.
UNSET = object()


def make_vif(**fields: typing.Any) -> vif_objects.VIFBridge:
    """Return a valid VIFBridge, but for the fields given.

    :param cls: another class of VIF, of which only the common fields are set
    :param addresses: its fixed IPs
    """
    mtu = fields.pop('mtu', 1500)
    addresses = fields.pop('addresses', UNSET)
    cls = fields.pop('cls', vif_objects.VIFBridge)
    net = {'id': '5d6a7b8c-0000-4000-8000-000000000000', 'mtu': mtu,
           'subnets': UNSET if addresses is UNSET else _subnets(addresses)}
    values = dict(
        {'id': VIF_ID, 'plugin': 'tapmac', 'vif_name': TAP,
         'address': GUEST_MAC, 'bridge_name': BRIDGE,
         'network': network.Network(**{
             field: value for field, value in net.items()
             if value is not UNSET})}, **fields)
    return cls(**{
        field: value for field, value in values.items()
        if value is not UNSET and field in cls.fields})


def _subnets(addresses: typing.Iterable[str]) -> subnet.SubnetList:
    """Return what a network has of a VIF's fixed IPs, as Nova says it."""
    return subnet.SubnetList(objects=[
        subnet.Subnet(ips=fixed_ip.FixedIPList(objects=[
            fixed_ip.FixedIP(address=address)])) for address in addresses])


def make_port(**fields: typing.Any) -> TapPort:
    """Return a valid TapPort, but for the fields given."""
    values = dict(
        {'vif_id': VIF_ID, 'name': TAP, 'bridge': BRIDGE,
         'guest_mac': GUEST_MAC, 'mtu': 1500, 'create_tap': True,
         'owner': 0, 'multi_queue': False, 'create_bridge': True,
         'link_group': 29793, 'bridge_group': 29794, 'uplink': None,
         'anti_spoofing': 'mac', 'arriving_guests': 'filter',
         'port_isolated': False,
         'port_flood_unicast': True, 'port_flood_multicast': True,
         'port_flood_broadcast': True,
         'port_hairpin': False, 'host_shield': False},
        **fields)
    return TapPort(**values)


def numbered_vif(number: int, **fields: typing.Any) -> vif_objects.VIFBridge:
    """Return one of many VIFs, each with id, name and MAC of its own."""
    vif_id = '%08x-0000-4000-8000-000000000000' % number
    return make_vif(**dict(
        {'id': vif_id, 'vif_name': 'tap%08x' % number,
         'address': 'fa:16:3e:%02x:%02x:%02x' % (
             number >> 16 & 255, number >> 8 & 255, number & 255)},
        **fields))


def run_command(
    module: str, *arguments: str, prefix: typing.Sequence[str] = (),
    **environment: str,
) -> 'subprocess.CompletedProcess[str]':
    """Run a command line of ours in a process of its own, as a user does.

    :param module: of vif_plug_tapmac.cli: "main" is tapmac
    :param prefix: a command that runs it
    """
    return subprocess.run(
        [*prefix, sys.executable, '-c',
         'import sys; from vif_plug_tapmac.cli import %s as command; '
         'sys.exit(command.main())' % module, *arguments],
        env=dict(os.environ, PYTHONWARNINGS='', **environment), text=True,
        capture_output=True)


#: What a user namespace does not have, for :func:`needs_real_root`.
SEVERAL_USERS = 'several users'
DEVICE_NODES = 'device nodes'
INSTALLING = 'installing packages'
SUDO = 'sudo'
PROGRAMS = 'programs in the kernel'
KERNEL_LOG = "the kernel's log"


def copy_checkout(to: pathlib.Path) -> None:
    """Copy the checkout as it is, without what is made in it."""
    def left_out(directory: str, names: list[str]) -> set[str]:
        return {name for name in names
                if name in ('.git', '.venv', '.tox', '.stestr', 'build',
                            # Where what runs beside it has files that go.
                            '.mypy_cache', '__pycache__', '_static')
                or name.endswith('.egg-info')}
    shutil.copytree(CHECKOUT, to, ignore=left_out)


def needs_real_root(why: str) -> typing.Callable[[_Test], _Test]:
    """Mark a test, or a class of tests, that a user namespace cannot run.

    The mark is the attribute "why_real_root".

    :param why: what is not to be had there: one of few, because skipped tests
        are counted by it
    """
    def mark(test: _Test) -> _Test:
        test.why_real_root = why  # type: ignore[attr-defined]
        return test
    return mark


def too_slow_emulated(why: str) -> typing.Callable[[_Test], _Test]:
    """Mark a test, or a class of tests, that tools/kernel.sh cannot run.

    The mark is the attribute "why_too_slow".

    :param why: what takes ten or twenty times as long there
    """
    def mark(test: _Test) -> _Test:
        test.why_too_slow = why  # type: ignore[attr-defined]
        return test
    return mark


def needs_locked_ports(test: _Test) -> _Test:
    """Mark a test, or a class of tests, of what keeps a guest to its MAC.

    The mark is the attribute "needs_lock".
    """
    test.needs_lock = True  # type: ignore[attr-defined]
    return test


class TestCase(testtools.TestCase):
    """A test that needs nothing."""

    #: Set by :func:`needs_real_root`.
    why_real_root: str | None = None
    #: Set by :func:`too_slow_emulated`.
    why_too_slow: str | None = None

    #: What is kept of the log, and shown with the test's result, which may
    #: have 4 MB (subunit).
    LOG_LEVEL = logging.INFO

    def setUp(self) -> None:
        super().setUp()
        why = getattr(getattr(self, self._testMethodName), 'why_real_root',
                      self.why_real_root)
        if why is not None and hosts.in_user_namespace():
            self.cannot_run('needs real root: ' + why)
        why = getattr(getattr(self, self._testMethodName), 'why_too_slow',
                      self.why_too_slow)
        if why is not None and patience.EMULATED:
            self.skipTest('too slow in emulation: ' + why)
        self.logs = self.useFixture(fixtures.FakeLogger(level=self.LOG_LEVEL))
        self.config = self.useFixture(config_fixture.Config(cfg.CONF))
        self.config.conf([], project='tapmac', default_config_files=[])
        self.config.register_opts(opts.TAPMAC_OPTS, group=opts.GROUP)

    def configure(self, **options: typing.Any) -> None:
        self.config.config(group=opts.GROUP, **options)

    @property
    def options(self) -> typing.Any:
        return cfg.CONF[opts.GROUP]

    def enter(self, context: typing.ContextManager[_Entered]) -> _Entered:
        """Be in a context until the test ends; return what it gives."""
        entered = context.__enter__()
        self.addCleanup(context.__exit__, None, None, None)
        return entered

    def cannot_run(self, reason: str) -> None:
        """Skip, or fail where every test that can run must run."""
        if os.environ.get('TAPMAC_NO_SKIP') == '1':
            self.fail('This test may not be skipped here: %s' % reason)
        self.skipTest(reason)

    def needs_program(self, name: str) -> None:
        """Skip where none of the machine's directories has this program."""
        if shutil.which(name) is None:
            self.cannot_run('needs %s: run tools/programs.sh' % name)

    def only_in_full(self) -> None:
        """Leave this test to ``tools/test.sh --all``."""
        if not patience.IN_FULL:
            self.skipTest('left to tools/test.sh --all')


class FunctionalTestCase(TestCase):
    """A test in a network namespace of its own, with privilege."""

    #: Set by :func:`needs_locked_ports`.
    needs_lock = False

    def setUp(self) -> None:
        super().setUp()
        missing = hosts.missing_privilege()
        if missing:
            self.cannot_run(missing)
        self.host = self.useFixture(hosts.Host())
        if (getattr(getattr(self, self._testMethodName), 'needs_lock',
                    self.needs_lock) and not hosts.locks_ports(self.host)):
            self.skipTest(hosts.LOCKS_NO_PORTS)
        # A udev of this machine does not see the host of the test.
        self.configure(udev_timeout=0)
        privsep.vif_plug.set_client_mode(False)
        privsep.filter.set_client_mode(False)
        # A thread of this process would undo what a test does; that of a
        # daemon does: see start_daemon.
        self.hearing = agent_healing.start
        self.patch(agent_healing, 'start', lambda: None)
        os_vif.initialize()

    def start_daemon(self, context: typing.Any = privsep.vif_plug) -> None:
        """Have a privsep daemon do what is privileged from here on.

        Forked, so that it is in the network namespace of the test.

        :param context: the plugin's, or that of an agent
        """
        # The context sets this as a default when it is imported; the reset
        # of the configuration between tests takes such defaults away.
        self.config.config(group=context.cfg_section,
                           capabilities=[capabilities.CAP_NET_ADMIN])
        context.set_client_mode(True)
        self.addCleanup(context.set_client_mode, False)
        with fixtures.MonkeyPatch(agent_healing.__name__ + '.start',
                                  self.hearing):
            context.start(priv_context.Method.FORK)
        self.addCleanup(context.stop)

    def plug(self, vif: vif_objects.VIFBridge | None = None) -> None:
        os_vif.plug(vif or make_vif(), INSTANCE)

    def unplug(self, vif: vif_objects.VIFBridge | None = None) -> None:
        os_vif.unplug(vif or make_vif(), INSTANCE)

    def assert_plug_fails(self, error: type[Exception], *words: str,
                          vif: vif_objects.VIFBridge | None = None) -> None:
        """Expect this error with these words, and the host as it was."""
        before = self.host.state()
        raised = self.assertRaises(os_vif_exception.PlugException,
                                   self.plug, vif)
        self.assertIsInstance(raised.kwargs['err'], error)
        for word in words:
            self.assertIn(word, str(raised.kwargs['err']))
        self.assertEqual(before, self.host.state())

    def assert_finished(self, tap: str = TAP, **expected: typing.Any) -> None:
        """Expect all that makes a TAP finished, but for the fields given."""
        link = self.host.link(tap)
        seen = {'mac': link.mac, 'up': link.up, 'mtu': link.mtu,
                'master': self.host.master(tap), 'group': link.group,
                'owner': link.owner, 'persistent': link.persistent,
                'multi_queue': link.multi_queue,
                'addresses': self.host.addresses(tap)}
        self.assertEqual(dict(
            {'mac': TAP_MAC, 'up': True, 'mtu': 1500, 'master': BRIDGE,
             'group': 29793, 'owner': 0, 'persistent': True,
             'multi_queue': False, 'addresses': []}, **expected), seen)

    def assert_logged(self, *words: str) -> None:
        for word in words:
            self.assertIn(word, self.logs.output)
