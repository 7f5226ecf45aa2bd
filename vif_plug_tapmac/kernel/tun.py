# SPDX-License-Identifier: Apache-2.0

"""The tun character device: TAPs by ioctl, for netlink cannot make them.

Source: Linux drivers/net/tun.c, include/uapi/linux/if_tun.h
"""

import contextlib
import errno
import fcntl
import os
import platform
import struct
import threading
import types
import typing

from vif_plug_tapmac import exception

TUN_DEVICE = '/dev/net/tun'
#: For those who look for the device before they need it.
TUN_MISSING = ('%s is missing. Load the driver (modprobe tun); in a '
               'container, pass the device in.' % TUN_DEVICE)

# _IOW('T', nr, int); the direction bits differ on two families of CPUs.
_IOW = (0x80000000 if platform.machine().startswith(('ppc', 'mips'))
        else 0x40000000) | struct.calcsize('i') << 16 | ord('T') << 8
_TUNSETIFF = _IOW | 202
_TUNSETPERSIST = _IOW | 203
_TUNSETOWNER = _IOW | 204
_SIOCSIFHWADDR = 0x8924

_IFF_TAP = 0x0002
_IFF_MULTI_QUEUE = 0x0100
_IFF_NO_PI = 0x1000
_IFF_TUN_EXCL = 0x8000
_ARPHRD_ETHER = 1

# More than enough for the creation of a TAP, a few milliseconds at most.
_CLAIMS = 2000


class TunDevice:
    """An open tun device; once :meth:`create` was called, a TAP.

    The TAP is gone when this is closed, also by the death of the process,
    unless :meth:`persist` was called before.

    :param label: what errors shall call the TAP, whatever its name is so far
    """

    def __init__(self, label: str) -> None:
        self._label = label
        try:
            self._descriptor = os.open(TUN_DEVICE, os.O_RDWR)
        except OSError as error:
            raise exception.KernelRefused.from_errno(
                TUN_DEVICE, 'opening it', error.errno or 0)

    def __enter__(self) -> 'TunDevice':
        return self

    def __exit__(self, exc_type: type[BaseException] | None,
                 exc: BaseException | None,
                 traceback: types.TracebackType | None) -> None:
        # Whatever this says, the kernel has closed it.
        with contextlib.suppress(OSError):
            os.close(self._descriptor)

    def create(self, name: str, multi_queue: bool, owner: int) -> None:
        """Make a TAP that did not exist, and let only this user attach to it.

        The kernel takes an owner only for a TAP that exists, so there is a
        moment in which everyone may attach to a multi-queue TAP (of a single
        queue we hold the one), and a stranger who watches for new links is
        often faster than our next call. Hence a thread that asks for the owner
        all the time: it waits for the lock that the creation holds, and mostly
        is the first to get it. Mostly: look at the queues afterwards.
        Source: drivers/net/tun.c, __tun_chr_ioctl (rtnl_lock)

        :param owner: uid; CAP_NET_ADMIN may attach besides
        :raises KernelRefused: EBUSY if a link of that name exists by now
        """
        request = struct.pack('16sH22x', name.encode('ascii'),
                              _IFF_TAP | _IFF_NO_PI | _IFF_TUN_EXCL
                              | (_IFF_MULTI_QUEUE if multi_queue else 0))
        with (self._claiming(owner) if multi_queue
              else contextlib.nullcontext()):
            self._ioctl('creating the TAP', _TUNSETIFF, request)
            self._set_owner(owner)

    @contextlib.contextmanager
    def _claiming(self, owner: int) -> typing.Iterator[None]:
        done = threading.Event()
        claim = threading.Thread(target=self._claim, args=(owner, done))
        self._start(claim)
        try:
            yield
        finally:
            done.set()
            claim.join()

    def _start(self, thread: threading.Thread) -> None:
        try:
            thread.start()
        except RuntimeError:  # Python does not say why, and this is why.
            raise exception.KernelRefused.from_errno(
                self._label, 'starting a thread', errno.EAGAIN)

    def _claim(self, owner: int, done: threading.Event) -> None:
        # Bounded, for a thread that is none (eventlet's) never sees the end.
        for _ in range(_CLAIMS):
            if done.is_set():
                return
            with contextlib.suppress(exception.KernelRefused):  # No TAP yet.
                return self._set_owner(owner)

    def _set_owner(self, uid: int) -> None:
        # The kernel takes 32 unsigned bits, Python's ioctl 32 signed ones.
        self._ioctl('setting the owner', _TUNSETOWNER,
                    uid if uid < 2 ** 31 else uid - 2 ** 32)

    def set_mac(self, mac: str) -> None:
        """Set the TAP's MAC, at once and for good in udev's eyes.

        netlink would do, but later: each microsecond between creation and
        this is one in which udev's MACAddressPolicy may come first.
        """
        octets = bytes.fromhex(mac.replace(':', ''))
        self._ioctl('setting the MAC', _SIOCSIFHWADDR,
                    struct.pack('16xH6s16x', _ARPHRD_ETHER, octets))

    def persist(self) -> None:
        """Let the TAP outlive us."""
        self._ioctl('making the TAP persistent', _TUNSETPERSIST, 1)

    def _ioctl(self, step: str, request: int, argument: int | bytes) -> None:
        try:
            fcntl.ioctl(self._descriptor, request, argument)
        except OSError as error:
            raise exception.KernelRefused.from_errno(
                self._label, step, error.errno or 0)
