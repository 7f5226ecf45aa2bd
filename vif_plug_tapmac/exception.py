# SPDX-License-Identifier: Apache-2.0

"""What can go wrong, named by who must act.

Every class here crosses the privsep boundary as ``cls(*args)`` with the
finished message as its only argument, so none but the first has an
``__init__``, and every fact is in the message: don't look for attributes on
the other side.
"""

import errno
import os
import typing


class TapMacError(Exception):
    """Base of all errors that vif_plug_tapmac raises on purpose.

    :param message: finished; None: it is made of :attr:`msg_fmt` and the
        keywords, which are in :attr:`kwargs`
    """
    msg_fmt = 'Something went wrong.'

    def __init__(self, message: str | None = None,
                 **kwargs: typing.Any) -> None:
        self.kwargs = kwargs
        super().__init__(self.msg_fmt % kwargs if message is None
                         else message)


class InvalidVif(TapMacError):
    """The request is wrong; the host is untouched."""
    msg_fmt = ("VIF %(vif)s: %(reason)s. Whoever made this VIF (Nova, "
               "Neutron or another os-vif client) must correct it; nothing "
               "was changed on the host.")


class InvalidConfig(TapMacError):
    """The configuration is wrong; the host is untouched."""
    msg_fmt = ("[os_vif_tapmac] %(option)s = %(value)s: %(reason)s. The "
               "operator must correct the configuration; nothing was changed "
               "on the host.")


class BridgeNotFound(TapMacError):
    """The bridge is missing and may not be made; the host is untouched."""
    msg_fmt = ("%(device)s cannot be plugged: bridge %(bridge)s does not "
               "exist, and [os_vif_tapmac] create_bridge is off. The operator "
               "must create the bridge, or switch create_bridge on.")


class UplinkUnusable(TapMacError):
    """The uplink that a bridge is to have can't be; the host is untouched."""
    msg_fmt = ("Uplink %(uplink)s of bridge %(bridge)s %(reason)s. The "
               "operator must act: %(remedy)s. Nothing was changed on the "
               "host.")


class DeviceConflict(TapMacError):
    """A name or a MAC is taken by something that is not ours to change."""
    msg_fmt = ("%(device)s: %(reason)s. The operator must resolve this: "
               "%(remedy)s.")


class KernelRefused(TapMacError):
    """The kernel said no to one step.

    A TAP or bridge that this call was making is gone again; one that was
    there before may have been changed in part. The positive errno is in
    ``kwargs['code']``, on the side that raised it only.
    """
    msg_fmt = ("%(device)s: %(step)s failed with %(error)s. The operator must "
               "act: %(remedy)s.")

    @classmethod
    def from_errno(cls, device: str, step: str, code: int,
                   words: str | None = None) -> 'KernelRefused':
        """Return the error for an errno.

        :param device: what the step was done to: a link's name or a path
        :param step: what was being done, as in "setting the MTU"
        :param code: positive errno
        :param words: the kernel's own, where it says more than a number
        """
        # One number has two names, of which the kernel uses this one.
        name = ('EOPNOTSUPP' if code == errno.EOPNOTSUPP
                else errno.errorcode.get(code, str(code)))
        return cls(device=device, step=step, code=code,
                   error='%s (%s)' % (name, ': '.join(filter(None, (
                       os.strerror(code), (words or '').rstrip('.'))))),
                   remedy=_REMEDIES.get(
                       code, _READ_THE_WORDS if words else _READ_THE_ERRNO))


class DaemonLost(TapMacError):
    """The privileged daemon ended before it answered.

    A TAP that it was making is gone, unless it was finished; the next plug or
    unplug starts another daemon, and completes what was begun.
    """
    msg_fmt = ("%(device)s: the privileged daemon of tapmac ended before it "
               "was done (%(error)s). Try again: another one is started. The "
               "operator must find out what ended it, as in \"dmesg | grep -i "
               "'out of memory'\", or whoever killed it.")


class DaemonUnstarted(TapMacError):
    """The privileged daemon is not there in time; nothing was asked of it.

    Its start goes on: as soon as it is there, plugs work.
    """
    msg_fmt = ("%(device)s: the privileged daemon of tapmac did not start "
               "within %(seconds)s s. The operator must find out what its "
               "helper_command, of [%(section)s] or else "
               "sudo privsep-helper, waits for (as sudo for a directory of "
               "users), and end that. Try again after that.")


class DaemonSilent(TapMacError):
    """The privileged daemon does not answer in time.

    What it was asked for it may still do. It is not ended: whatever keeps it
    may be found there.
    """
    msg_fmt = ("%(device)s: the privileged daemon of tapmac did not answer "
               "within %(seconds)s s. The operator must find out what keeps "
               "it (it is a privsep-helper: stopped, or waiting for the "
               "kernel, as dmesg may say), and end it: another one is started "
               "then. Try again after that.")


class VerifyFailed(TapMacError):
    """What the kernel reads back is not what was set.

    Another program changes the device, or we have a bug. A TAP that this call
    was making is gone again.
    """
    msg_fmt = ("%(device)s does not stay as it was set: %(differences)s. "
               "Another program on this host changes it at the same time, or "
               "vif_plug_tapmac has a bug: the operator must look for the "
               "former (udev, NetworkManager, a script) and report the "
               "latter.")


_READ_THE_ERRNO = ('the kernel gives no more than this error code; its log '
                   '(dmesg) may say why')
_READ_THE_WORDS = ('what the kernel says tells what is in the way; its log '
                   '(dmesg) may say more')
_NOT_PERMITTED = (
    'changing links needs CAP_NET_ADMIN in this network namespace; run as '
    'root, or check helper_command in [vif_plug_tapmac_privileged] and the '
    'device permissions of /dev/net/tun')
_NO_TUN = ('the tun driver is missing: load it (modprobe tun), or pass '
           '/dev/net/tun into the container')
_REMEDIES = {
    errno.EPERM: _NOT_PERMITTED,
    errno.EACCES: _NOT_PERMITTED,
    errno.ENOENT: _NO_TUN + '; if /proc/sys is missing, mount it',
    errno.ENODEV: 'the device vanished meanwhile, or ' + _NO_TUN,
    errno.ENXIO: _NO_TUN,
    errno.ENETDOWN: ('what it is made on is down, and not in this network '
                     'namespace: bring that up'),
    errno.EEXIST: ('another program makes a device of this name again and '
                   'again; find and stop it, then plug again'),
    errno.EBUSY: ('something else has the device for itself, as a macvlan '
                  'that stands on it: find it with "ip -d link", and remove '
                  'it'),
    errno.EXFULL: ('the bridge has all the 1023 ports that Linux allows; move '
                   'guests to another bridge or host'),
    errno.EOPNOTSUPP: ('this kernel lacks the driver for such a device: load '
                       'it, as in "modprobe 8021q" for a VLAN'),
    errno.EROFS: ('this path is mounted read-only, as in many containers; '
                  'mount it writable, or make the bridge yourself before the '
                  'first guest comes'),
}
