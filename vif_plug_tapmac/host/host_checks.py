# SPDX-License-Identifier: Apache-2.0

"""What can be wrong with a host beside its links."""

import collections
import contextlib
import importlib.metadata
import os
import typing

from oslo_config import cfg

from vif_plug_tapmac import exception
from vif_plug_tapmac.host.finding import finds
from vif_plug_tapmac.host.finding import Seen
from vif_plug_tapmac.host import link_files
from vif_plug_tapmac.host import selinux
from vif_plug_tapmac.kernel import bridge_health
from vif_plug_tapmac.kernel import filter_table
from vif_plug_tapmac.kernel import nftables
from vif_plug_tapmac.kernel import shields
from vif_plug_tapmac.kernel import tun
from vif_plug_tapmac.kernel import udev
from vif_plug_tapmac import opts
from vif_plug_tapmac.wanted import from_config
from vif_plug_tapmac.wanted import names

_SYSCTLS = '/proc/sys/net/ipv4/conf'
#: In seconds: how long other people's rules are looked at.
_LOOKS_FOR = 2.0


@finds('TM301')
def _firewall(config: cfg.ConfigOpts.GroupAttr) -> Seen:
    # Whoever may not ask the kernel knows of none.
    chains = nftables.chains_that_drop(_LOOKS_FOR, by_rule=True)
    for what, switch in bridge_health.SWITCHES.items():
        chain = chains.get(what)
        if (chain or what == nftables.IPV4) and (
                bridge_health.passes_netfilter(what)):
            yield (switch, 'it is 1: what guests send to each other by %s '
                   'passes the FORWARD chain of this host' % what
                   + (', and %s drops it unless a rule accepts it' % chain
                      if chain else ''),
                   '"sysctl net.bridge.%s=0", and the same in /etc/sysctl.d, '
                   'unless the firewall is meant for guests' % switch)
    if nftables.FRAMES in chains:
        yield ('nftables', 'chain %s of the bridge family drops what guests '
               'send to each other unless a rule accepts it'
               % chains[nftables.FRAMES],
               'have whoever made it leave bridges alone, unless the firewall '
               'is meant for guests')


@finds('TM302')
def hidden_udev(config: cfg.ConfigOpts.GroupAttr) -> Seen:
    """Look for a udev that can rewrite MACs after a plug (TM302)."""
    path = link_files.file_that_rewrites()
    if path is not None and not (udev.is_running()
                                 and _waits_for_udev(config)):
        yield (path, 'it has MACAddressPolicy=persistent for TAPs, and '
               '%s' % ('udev_timeout is 0' if udev.is_running() else 'there '
                       'is no /run/udev to see by when udev is done'),
               'show /run/udev of the host to nova-compute, and wait for it '
               '(udev_timeout); or have a .link file with '
               'MACAddressPolicy=none for TAPs that comes first')


def _waits_for_udev(config: cfg.ConfigOpts.GroupAttr) -> bool:
    try:
        return bool(config.udev_timeout)
    except cfg.ConfigFileValueError:  # Which is TM307.
        return True


@finds('TM303')
def rivals(config: cfg.ConfigOpts.GroupAttr) -> Seen:
    """Look for plugins of one name, of which one wins by chance (TM303)."""
    plugins = collections.defaultdict(set)
    for entry_point in importlib.metadata.entry_points(group='os_vif'):
        plugins[entry_point.name].add(entry_point.value)
    for name, found in plugins.items():
        if len(found) > 1 and name in ('tapmac', *names.CLAIMABLE):
            yield (name, 'os-vif finds %s'
                   % ' and '.join(sorted(found)),
                   'remove all but one of these packages')


@finds('TM304')
def _selinux(config: cfg.ConfigOpts.GroupAttr) -> Seen:
    refused = selinux.refusal()
    if refused is not None:
        yield ('SELinux', refused,
               'load the module that the page Deploying with Nova has, under '
               'SELinux')


@finds('TM305')
def _tun_device(config: cfg.ConfigOpts.GroupAttr) -> Seen:
    if not os.path.exists(tun.TUN_DEVICE):
        yield (tun.TUN_DEVICE, 'it is missing',
               '"modprobe tun"; in a container, pass the device in')


@finds('TM306')
def _sysctls(config: cfg.ConfigOpts.GroupAttr) -> Seen:
    if (config.create_bridge and os.path.isdir(_SYSCTLS)
            and os.statvfs(_SYSCTLS).f_flag & os.ST_RDONLY):
        yield (_SYSCTLS, 'it is mounted read-only, and create_bridge '
               'is on', 'mount it writable, or have the host make the bridges '
               'and switch create_bridge off')


@finds('TM307')
def _configuration(config: cfg.ConfigOpts.GroupAttr) -> Seen:
    try:
        from_config.port_fields(config)
        from_config.limits(config)
    except (exception.InvalidConfig, cfg.ConfigFileValueError) as error:
        yield ('[os_vif_tapmac]', str(error),
               'correct nova.conf')


@finds('TM308')
def _shield(config: cfg.ConfigOpts.GroupAttr) -> Seen:
    # Whoever may not ask the kernel does not know, and nothing is said.
    with contextlib.suppress(exception.KernelRefused):
        group = from_config.group(config)
        if config.host_shield and not shields.is_shielded(group):
            yield ('nftables', 'host_shield is on, and rules in the tables '
                   '%s do not drop what link group %d sends to this host' % (
                       filter_table.NAME, group),
                   'start nova-compute again, which plugs each guest, or plug '
                   'one by hand; and find what flushes the rules')


@finds('TM226')
def _shield_of_nobody(config: cfg.ConfigOpts.GroupAttr) -> Seen:
    found: list[shields.Shield] = []
    with contextlib.suppress(exception.KernelRefused):
        found = shields.of_all_services()
    for shield in found:
        reason = _why_unwanted(shield, config)
        if reason is not None:
            yield ('nftables', 'what link group %d sends to this host is '
                   'dropped by rules in the tables %s, for an element of the '
                   'set %s that %s' % (
                       shield.group, filter_table.NAME, filter_table.SHIELDS,
                       reason),
                   ', '.join('"%s"' % each for each in _removing(
                       shield, found)))


def _removing(shield: shields.Shield,
              found: list[shields.Shield]) -> typing.Iterator[str]:
    """Yield the commands that remove one of those that were found."""
    delete = 'nft delete element %s %s %s { %s }'
    yield delete % ('bridge', filter_table.NAME, filter_table.SHIELDS,
                    '%d . 0x%08x' % (shield.group, shield.number))
    if [each.group for each in found].count(shield.group) == 1:
        for family in 'bridge', *(each.name for each in filter_table.BESIDE):
            yield delete % (family, filter_table.NAME, filter_table.SHIELDED,
                            shield.group)


def _why_unwanted(shield: shields.Shield,
                  config: cfg.ConfigOpts.GroupAttr) -> str | None:
    """Return why no configuration has a rule; None: one has, or may have.

    :param config: that of the service that is asked about
    """
    if shield.service is None:
        return 'does not say for which service'
    try:
        if shield.service != from_config.service(cfg.CONF):
            # A comment is anybody's: only what is a file is opened.
            paths = shield.service.split()
            if not all(map(os.path.isabs, paths)):
                return None
            config = _read(paths)
        wanted = from_config.groups(config).shielded_with(
            from_config.group(config))
        if config.host_shield and shield.group in wanted:
            return None
        return 'is for %s, which %s not ask for it any more' % (
            shield.service, 'do' if ' ' in shield.service else 'does')
    except FileNotFoundError as error:
        return 'is for %s, which is not there any more' % error
    except (cfg.Error, OSError, ValueError):
        return None


def _read(paths: list[str]) -> cfg.ConfigOpts.GroupAttr:
    """Return our group of the configuration of another service."""
    files, directories = [], []
    for path in paths:
        if os.path.isdir(path):
            directories.append(path)
        elif os.path.isfile(path):
            files.append(path)
        else:
            raise FileNotFoundError(path)
    conf = cfg.ConfigOpts()
    conf([], default_config_files=files, default_config_dirs=directories)
    return opts.group(conf)


#: In the order of their codes, but for what is another service's.
CHECKS = (_firewall, hidden_udev, rivals, _selinux, _tun_device,
          _sysctls, _configuration, _shield, _shield_of_nobody)
