# SPDX-License-Identifier: Apache-2.0

"""What is said when the plugin starts: what guests are kept to here."""

import functools
import os
import select
import signal
import sys

from oslo_config import cfg
from oslo_log import log as logging

from vif_plug_tapmac import opts

LOG = logging.getLogger(__name__)

#: In seconds, for a process that takes a tenth of one.
_TRIES_WITHIN = 10.0
#: How Python is told to try, and what that exits with.
_TRYING = ('-m', 'vif_plug_tapmac.kernel.trying')
_CAN, _CANNOT = 0, 10


def tell(config: cfg.ConfigOpts.GroupAttr) -> None:
    """Say what guests are kept to, and where they are not.

    :param config: the ``[os_vif_tapmac]`` group
    """
    if config.firewall != 'none':
        _tell_of_security_groups(config)
    if config.anti_spoofing == 'none' and not opts.kernel_can_lock():
        LOG.warning('anti_spoofing = none: guests can send from any MAC, '
                    'because this kernel, %s, is older than 5.18, from where '
                    'on ports of bridges can be locked. Remedy: a newer '
                    'kernel, or "anti_spoofing = mac" if the distribution has '
                    'added this to its own.', os.uname().release)
        return
    LOG.info('anti_spoofing = %s', config.anti_spoofing)
    if config.anti_spoofing == 'full' and config.firewall == 'none':
        _tell_of_addresses(config)
    elif (config.anti_spoofing != 'none' and not config.nova_managed_tap
            and 'linux_bridge' in config.claim_plugins):
        LOG.warning('anti_spoofing = %s begins for ports of linux_bridge when '
                    'they are plugged again, as nova-compute does when it '
                    'starts: libvirt makes their TAPs after they are plugged. '
                    'Remedy: nova_managed_tap = true.', config.anti_spoofing)
    _tell_of_arriving(config)


def _tell_of_security_groups(config: cfg.ConfigOpts.GroupAttr) -> None:
    LOG.info('firewall = %s', config.firewall)
    why = cannot('addresses')
    if why:
        LOG.error('firewall = agent: this kernel, %s, can not keep guests to '
                  'their security groups (%s). No new guest gets a TAP, and '
                  'one that runs is kept to what it was. Remedy: load '
                  'nf_tables (CONFIG_NF_TABLES_BRIDGE), or set firewall = '
                  'none.', os.uname().release, why)
    if (not config.nova_managed_tap
            and 'linux_bridge' in config.claim_plugins):
        LOG.error('firewall = agent: no new port of linux_bridge can be '
                  'plugged, because libvirt makes its TAP after that. Remedy: '
                  'nova_managed_tap = true.')


def _tell_of_addresses(config: cfg.ConfigOpts.GroupAttr) -> None:
    why = cannot('addresses')
    if why is None:
        LOG.info('anti_spoofing = full, if the kernel can keep guests to '
                 'their addresses, which this user may not try; else each '
                 'plug says so')
    elif why:
        LOG.error('anti_spoofing = full: this kernel, %s, can not keep guests '
                  'to their addresses (%s). No new guest gets a TAP, and one '
                  'that runs is kept to what it was. Remedy: load nf_tables '
                  '(CONFIG_NF_TABLES_BRIDGE), or set anti_spoofing = mac.',
                  os.uname().release, why)
    if (not config.nova_managed_tap
            and 'linux_bridge' in config.claim_plugins):
        LOG.error('anti_spoofing = full: no new port of linux_bridge can be '
                  'plugged, because libvirt makes its TAP after that. Guests '
                  'that run are taken in when they are plugged again. Remedy: '
                  'nova_managed_tap = true.')


def _tell_of_arriving(config: cfg.ConfigOpts.GroupAttr) -> None:
    fault = arriving_fault(config)
    if fault:
        LOG.warning('arriving_guests = lock: %s', fault)
    elif fault is None:
        LOG.info('arriving_guests = filter, if the kernel can, which this '
                 'user may not try; else the first plug of such a guest says '
                 'so')
    else:
        LOG.info('arriving_guests = %s', config.arriving_guests)


def arriving_fault(config: cfg.ConfigOpts.GroupAttr) -> str | None:
    """Return why arriving guests are locked here against the configuration.

    :param config: the ``[os_vif_tapmac]`` group
    :returns: with the remedy; empty if they are as configured; None if nobody
        knows before the first of them is plugged
    """
    if config.anti_spoofing == 'none' or config.arriving_guests == 'lock':
        return ''
    why = cannot('filter')
    return why and ('this kernel, %s, can not filter by the source (%s). '
                    'Guests of this host do not reach a guest that arrives by '
                    'live migration before it is here. Remedy: load '
                    'sch_ingress and cls_bpf, or set arriving_guests = lock.'
                    % (os.uname().release, why))


@functools.cache
def cannot(what: str) -> str | None:
    """Return why this kernel cannot do something.

    It is tried, in a process and a network namespace of its own: nothing
    changes, and nothing of what it takes is loaded here.

    :param what: one of those that :mod:`vif_plug_tapmac.kernel.trying` has, as
        "filter", "lock" or "addresses"
    :returns: empty if it can; None if this user may not try
    """
    try:
        status, words = _run_apart(what)
    except Exception as error:  # Nothing here keeps nova-compute from work.
        LOG.debug('Not tried whether this kernel can %s: %r', what, error)
        return None
    return '' if status == _CAN else words if status == _CANNOT else None


def _run_apart(what: str) -> tuple[int, str]:
    """Have Python run what tries; return its exit status and its words.

    It is spawned, not forked: this process may have threads.
    """
    reader, writer = os.pipe()
    with open(reader, 'rb', buffering=0) as said:
        try:
            child = os.posix_spawn(
                sys.executable, [sys.executable, *_TRYING, what], os.environ,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, writer, 1),
                    (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0)])
        finally:
            os.close(writer)
        words = b''
        if select.select([said], [], [], _TRIES_WITHIN)[0]:
            words = said.read(4096)
        else:
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), words.decode().strip()
