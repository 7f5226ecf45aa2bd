# SPDX-License-Identifier: Apache-2.0

"""A local user who wants a queue of a guest's TAP, and so onto its wire.

/dev/net/tun is open to everyone, as udev makes it. The stranger tries the name
of each TAP in a tight loop from before it is made, and another one each new
link that the kernel tells of; what they once got they keep.
"""

import contextlib
import errno
import fcntl
import logging
import mmap
import os
import re
import signal
import socket
import stat
import struct

from tests import base
from tests import hosts
from tests import patience
from vif_plug_tapmac.kernel import port

_NOBODY = 65534
_PLUGS = patience.amount(50, 200, 500)
_RTMGRP_LINK = 1
_TUNSETQUEUE = 0x400454d9
_IFF_DETACH_QUEUE = 0x400
_MULTI_QUEUE = hosts.IFF_TAP | hosts.IFF_MULTI_QUEUE


class Board:
    """What the test and the strangers know of each other."""

    def __init__(self):
        self._memory = mmap.mmap(-1, 8)

    def _field(position):
        def get(self):
            return struct.unpack_from('i', self._memory, position)[0]

        def put(self, value):
            struct.pack_into('i', self._memory, position, value)
        return property(get, put)

    #: The number of the VIF that is plugged now.
    target = _field(0)
    #: How many queues the strangers have got so far.
    attached = _field(4)


def attach(name, flags, detach):
    """Try to get a queue; return its descriptor, or the errno, negative."""
    descriptor = os.open('/dev/net/tun', os.O_RDWR | os.O_NONBLOCK)
    try:
        fcntl.ioctl(descriptor, hosts.TUNSETIFF, struct.pack(
            '16sH22x', name, flags | hosts.IFF_NO_PI))
        if detach:
            fcntl.ioctl(descriptor, _TUNSETQUEUE, struct.pack(
                '16sH22x', name, _IFF_DETACH_QUEUE))
    except OSError as error:
        os.close(descriptor)
        return -error.errno
    return descriptor


def hammer(board, flags, detach):
    """Try the name that a TAP will have."""
    while True:
        if attach(b'tap%08x' % board.target, flags, detach) >= 0:
            board.attached += 1


def watch(board, flags, detach):
    """Try each name that the kernel tells of."""
    news = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW,
                         socket.NETLINK_ROUTE)
    news.bind((0, _RTMGRP_LINK))
    while True:
        with contextlib.suppress(OSError):  # Too slow: some are lost.
            for name in re.findall(rb'tap[\w-]+', news.recv(65536)):
                if attach(name, flags, detach) >= 0:
                    board.attached += 1


@base.needs_real_root(base.SEVERAL_USERS)
class StrangersTest(base.FunctionalTestCase):

    LOG_LEVEL = logging.WARNING

    def setUp(self):
        super().setUp()
        self.enter(hosts.private_mounts())
        hosts.mount('tmpfs', '/dev/net', 'tmpfs', options='mode=755')
        os.mknod('/dev/net/tun', stat.S_IFCHR | 0o666, os.makedev(10, 200))
        os.chmod('/dev/net/tun', 0o666)
        self.board = Board()

    def let_loose(self, function, *arguments):
        """Run this for as long as the test runs, as nobody."""
        def run():
            self.become_nobody()
            function(self.board, *arguments)
        child = hosts.fork(run)
        self.addCleanup(os.waitpid, child, 0)
        self.addCleanup(os.kill, child, signal.SIGKILL)

    def become_nobody(self):
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)

    def as_nobody(self, function, *arguments):
        """Return what a small negative number is, in a child's exit status."""
        child = os.fork()
        if child == 0:
            status = 0
            try:
                self.become_nobody()
                status = -min(0, function(*arguments))
            finally:
                os._exit(status)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def assert_no_stranger_on(self, name):
        link = self.host.link(name)
        self.assertFalse(link.held, link)

    def plug_among_strangers(self, flags, detach):
        # Who is overtaken by a stranger tries again.
        self.patch(port, '_GIVES_UP_AFTER', patience.HANG)
        self.let_loose(hammer, flags, detach)
        self.let_loose(watch, flags, detach)
        vifs = [base.numbered_vif(number) for number in range(_PLUGS)]
        for vif in vifs:
            self.plug_as_target(vif)
        for vif in vifs:
            self.assert_no_stranger_on(vif.vif_name)
        self.assert_finished(vif.vif_name, mac='fe' + str(vif.address)[2:],
                             multi_queue=bool(flags & hosts.IFF_MULTI_QUEUE))

    def plug_as_target(self, vif):
        self.board.target = int(vif.vif_name[3:], 16)
        self.plug(vif)
        self.assert_no_stranger_on(vif.vif_name)

    def wait_for_a_stranger(self):
        """Plug until strangers were in TAPs.

        In such as did not live to see the end of the plug.
        """
        vif = base.numbered_vif(_PLUGS)

        def is_one_in():
            self.plug_as_target(vif)
            self.unplug(vif)
            return self.board.attached
        patience.wait_until(is_one_in, 'strangers get nowhere', pause=0)

    def test_single_queue(self):
        self.plug_among_strangers(hosts.IFF_TAP, False)
        self.assertEqual(0, self.board.attached)

    def test_multi_queue(self):
        self.configure(multiqueue=True)
        self.plug_among_strangers(_MULTI_QUEUE, False)
        self.wait_for_a_stranger()

    def test_multi_queue_and_a_stranger_who_hides(self):
        self.configure(multiqueue=True)
        self.plug_among_strangers(_MULTI_QUEUE, True)
        self.wait_for_a_stranger()

    def test_finished_taps_refuse_him(self):
        for number, multiqueue in enumerate((False, True)):
            self.configure(multiqueue=multiqueue)
            vif = base.numbered_vif(number)
            self.plug(vif)
            flags = _MULTI_QUEUE if multiqueue else hosts.IFF_TAP
            arguments = vif.vif_name.encode(), flags, False
            self.assertEqual(errno.EPERM, self.as_nobody(attach, *arguments))
            with hosts.Guest(vif.vif_name, flags=flags):
                self.assertEqual(errno.EPERM,
                                 self.as_nobody(attach, *arguments))

    def test_control(self):
        # A TAP as most programs make it is his, with what he has here.
        for number, flags in enumerate((hosts.IFF_TAP, _MULTI_QUEUE)):
            name = 'tap%08x' % number
            self.host.add_tap(name, flags)
            self.assertEqual(0, self.as_nobody(
                attach, name.encode(), flags, False))
