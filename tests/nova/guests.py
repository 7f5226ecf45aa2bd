# SPDX-License-Identifier: Apache-2.0

"""A cloud of Nova's own code whose guests are real: libvirtd and QEMU.

Nova's libvirt driver is as it is, connections, events and migrations
included. Between it and libvirt, this changes the XML that Nova made: no
disks, because there are no images; our kernel; and ``kvm`` and ``vhost``
become QEMU's own emulation, so that a machine without either can do it.
"""

import contextlib
import ctypes
import json
import logging
import os
import re
import select
import socket
import struct
import subprocess
import sys
import time
import tty

import fixtures
from lxml import etree
from nova.virt.libvirt import host as libvirt_host
from oslo_config import cfg
from testtools import content

from tests import guest_image
from tests import libvirt_domains
from tests import machine
from tests.nova import cloud
from tests.nova import ping
from tests import patience

LOG = logging.getLogger(__name__)

_ETH_P_ALL, _ETH_P_RARP = 0x0003, 0x8035
_SO_ATTACH_FILTER, _SO_RCVBUFFORCE = 26, 33
_SOL_PACKET, _PACKET_STATISTICS = 263, 6
#: Passes RARP, and IPv4 packets as long as those of ping.py: the lines of a
#: program of the classic BPF.
_FILTER = (
    (0x28, 0, 0, 12),  # the type of the frame
    (0x15, 3, 0, _ETH_P_RARP),
    (0x15, 0, 3, 0x0800),
    (0x28, 0, 0, 16),  # the length of the packet
    (0x15, 0, 1, ping.LENGTH),
    (0x06, 0, 0, 0xffff),
    (0x06, 0, 0, 0))

_UNAME = os.uname()

_events_run = False


class Console:
    """The serial port of a guest, where it does what it is told."""

    def __init__(self, path):
        self._port = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        tty.setraw(self._port)
        self._seen = ''
        self._number = 0

    def close(self):
        os.close(self._port)

    def wait_until_up(self):
        """Ask until the guest has booted, which takes two seconds alone."""
        # What is echoed while the terminal still does that is no answer.
        patience.wait_until(
            lambda: self._answer("echo u''p", '^up$', 1),
            lambda: 'the guest does not boot: ' + self._seen)

    def run(self, command):
        """Return what a shell command of the guest prints, without ends."""
        self._number += 1
        answer = self._answer(
            'echo start {0}; {1}; echo end {0} $?'.format(
                self._number, command),
            r'^start {0}\n(.*)^end {0} (\d+)$'.format(self._number),
            patience.HANG)
        if answer is None or answer[2] != '0':
            raise AssertionError('In the guest, %s: %s' % (
                command, self._seen))
        return answer[1].strip()

    def _answer(self, command, expected, seconds):
        """Return the match, None if there is none in time."""
        os.write(self._port, command.encode() + b'\n')
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if select.select([self._port], [], [], left)[0]:
                self._seen += os.read(self._port, 65536).decode(
                    errors='replace').replace('\r', '')
                match = re.search(expected, self._seen,
                                  re.MULTILINE | re.DOTALL)
                if match:
                    return match
        return None


def run_on(host, *command):
    """Run a program in a host's network namespace; return what it says."""
    with host.entered():
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT, text=True)
    return process.communicate(timeout=patience.HANG)[0]


class Ping:
    """Pings a guest a hundred times a second, from another host.

    What it says in the end is in its attributes.

    :ivar sent: how many
    :ivar lost: the numbers of those without an answer
    """

    def __init__(self, host, address):
        # It goes before what tests run beside it, as guests do.
        with host.entered():
            self._ping = subprocess.Popen(
                ['nice', '-n', '-15', sys.executable, ping.__file__, address],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def close(self):
        self._ping.kill()
        self._ping.communicate()

    def end(self):
        """End it once pings are answered that it sends from now on."""
        try:
            said, _ = self._ping.communicate(timeout=patience.HANG)
        except subprocess.TimeoutExpired:
            raise AssertionError('the guest answers no more')
        said = json.loads(said)
        self.sent, self.lost = said['sent'], said['lost']


class Sight:
    """What a host's kernel takes and sends of a :class:`Ping`, and of RARP.

    By RARP, QEMU says where a guest is now. What is seen is what the kernel
    does, however late QEMU and this process are; on all links, also those that
    there are later only.
    """

    def __init__(self, host):
        with host.entered():
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW,
                                         socket.htons(_ETH_P_ALL))
        program = ctypes.create_string_buffer(b''.join(
            struct.pack('=HBBI', *line) for line in _FILTER))
        self._socket.setsockopt(
            socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack(
                '@HP', len(_FILTER), ctypes.addressof(program)))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 1 << 27)
        self._socket.setblocking(False)

    def close(self):
        self._socket.close()

    def end(self):
        """Return the frames since the start, as they passed a link.

        :returns: for each the link's name, whether it went out there, and the
            number of the ping, None for RARP
        """
        frames = []
        with contextlib.suppress(BlockingIOError):
            while True:
                frame, (link, kind, way, _, _) = self._socket.recvfrom(65536)
                number = None
                if kind != _ETH_P_RARP:
                    kind, number = struct.unpack_from('!B7xI', frame, 34)
                if kind in (_ETH_P_RARP, ping.ECHO):
                    frames.append((link, way == socket.PACKET_OUTGOING,
                                   number))
        _, dropped = struct.unpack('II', self._socket.getsockopt(
            _SOL_PACKET, _PACKET_STATISTICS, 8))
        if dropped:
            raise AssertionError('%d frames went unseen' % dropped)
        return frames


class LibvirtFixture(fixtures.Fixture):
    """Instead of Nova's, which replaces libvirt."""

    def __init__(self, stub_os_vif=True):
        super().__init__()

    def _setUp(self):
        self.useFixture(fixtures.MockPatch(
            'nova.compute.utils.get_machine_ips'))
        self.useFixture(fixtures.MockPatch(
            'nova.virt.libvirt.host.Host._log_host_capabilities'))
        # Where Nova's tests may not look.
        self.useFixture(fixtures.MockPatch('os.uname', return_value=_UNAME))
        # It never ends, and a test does.
        self.useFixture(fixtures.MockPatch(
            'nova.virt.libvirt.host.Host._conn_event_thread'))


def _run_events_once(libvirt):
    """Return a thread's function: the first to run it serves the process.

    libvirt has one event loop for all connections.
    """
    def run(handler):
        global _events_run
        if not _events_run:
            _events_run = True
            while True:
                libvirt.virEventRunDefaultImpl()
    return run


class GuestCloud(cloud.Cloud):
    """A test with Nova and real guests."""

    def setUp(self):
        missing = guest_image.missing() or machine.missing()
        if missing and os.environ.get('TAPMAC_NO_SKIP') != '1':
            self.skipTest(missing)
        self.libvirt_module = libvirt_domains.import_libvirt()
        self.image = self.useFixture(guest_image.GuestImage())
        self.directory = self.useFixture(fixtures.TempDir()).path
        self.addOnException(self._add_logs)
        super().setUp()

    def _add_logs(self, exc_info):
        for name, host in self.hosts.items():
            self.addDetail(name, content.text_content(host.libvirtd_log()))

    def _make_host(self, name):
        return machine.Machine(name, self.directory)

    def _replace_libvirt(self):
        self.useFixture(fixtures.MonkeyPatch(
            'nova.tests.fixtures.LibvirtFixture', LibvirtFixture))
        self.useFixture(fixtures.MonkeyPatch(
            'nova.virt.libvirt.host.Host.write_instance_config',
            self._adapted(libvirt_host.Host.write_instance_config)))
        for module in 'driver', 'guest', 'host', 'migration':
            self.useFixture(fixtures.MonkeyPatch(
                'nova.virt.libvirt.%s.libvirt' % module,
                self.libvirt_module))
        for handler in vars(libvirt_host).values():
            if '_native_thread' in getattr(handler, '__dict__', ()):
                self.useFixture(fixtures.MonkeyPatch(
                    'nova.virt.libvirt.host.%s._native_thread'
                    % handler.__name__,
                    _run_events_once(self.libvirt_module)))
        # Nova's tests would do without both.
        self._really = {
            name: getattr(libvirt_host.Host, name)
            for name in ('get_connection', '_init_events')}

    def _be_patient(self):
        super()._be_patient()
        # libvirt asks a guest again each time that this is over.
        self.flags(wait_soft_reboot_seconds=round(patience.HANG),
                   device_detach_attempts=round(
                       patience.HANG / cfg.CONF.libvirt.device_detach_timeout),
                   group='libvirt')

    def _load_plugins(self):
        for name, method in self._really.items():
            self.useFixture(fixtures.MonkeyPatch(
                'nova.virt.libvirt.host.Host.' + name, method))
        self.flags(virt_type='qemu', live_migration_uri=machine.Machine.uri(
            self.directory, '%s'), group='libvirt')
        super()._load_plugins()

    def _adapted(self, write_instance_config):
        def write(host, xml):
            return write_instance_config(host, self.adapt(xml))
        return write

    def adapt(self, xml):
        """Return what Nova has for libvirt, as this machine can do it."""
        domain = etree.fromstring(xml)
        if domain.get('type') != 'qemu':
            LOG.info('%s becomes qemu: this machine may have no other',
                     domain.get('type'))
            domain.set('type', 'qemu')
        devices = domain.find('devices')
        for disk in devices.findall('disk'):
            devices.remove(disk)
        for driver in devices.findall('interface/driver[@name="vhost"]'):
            LOG.info('vhost becomes qemu')
            driver.set('name', 'qemu')
        boot = domain.find('os')
        for name, value in (
                ('kernel', str(self.image.kernel)),
                ('initrd', str(self.image.initrd)),
                # A busy machine has it find no timer, or none that ticks.
                ('cmdline', 'console=ttyS0 quiet panic=-1 no_timer_check')):
            for element in boot.findall(name):
                boot.remove(element)
            etree.SubElement(boot, name).text = value
        return etree.tostring(domain, encoding='unicode')

    def _get_connection(self, *args, **kwargs):
        return None

    def start_compute(self, hostname='compute1', *args, **kwargs):
        self.flags(connection_uri=machine.Machine.uri(
            self.directory, hostname), group='libvirt')
        started = super().start_compute(hostname, *args, **kwargs)
        host = self.computes[hostname].driver._host
        del host.get_connection
        # Before libvirtd ends: Nova would tell its database of that.
        self.addCleanup(_disconnect, host)
        return started


def _disconnect(host):
    connection = host.get_connection()
    connection.unregisterCloseCallback()
    connection.close()
