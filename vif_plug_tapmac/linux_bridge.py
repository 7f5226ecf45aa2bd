# SPDX-License-Identifier: Apache-2.0

"""What is left of the options of os-vif's own plugin linux_bridge.

Those that keep a meaning are options of ours, too, which oslo.config finds in
the group of the old plugin: see :mod:`vif_plug_tapmac.opts`. All others are
said to be ignored. Only a host whose claim_plugins has linux_bridge came from
there; anywhere else the old plugin may still be in use, with these options.
"""

import typing

from oslo_config import cfg
from oslo_log import log as logging

from vif_plug_tapmac.wanted import from_config

LOG = logging.getLogger(__name__)

#: The group of the old plugin.
GROUP = 'os_vif_linux_bridge'
#: What of it keeps a meaning.
KEPT = ('flat_interface', 'vlan_interface', 'network_device_mtu')

_FIREWALL = ('tapmac writes no iptables rules. Remedy: remove it, and have '
             'the firewall of this host do what is still needed')
#: Options without a meaning, with the defaults of the old plugin, and why.
_IGNORED: tuple[tuple[cfg.Opt, str], ...] = (
    (cfg.BoolOpt('use_ipv6', default=False, deprecated_group='DEFAULT'),
     'it was for ip6tables rules, and tapmac writes none. Remedy: remove it; '
     'guests have IPv6, whatever it says'),
    (cfg.StrOpt('iptables_top_regex', default='', deprecated_group='DEFAULT'),
     _FIREWALL),
    (cfg.StrOpt('iptables_bottom_regex', default='',
                deprecated_group='DEFAULT'), _FIREWALL),
    (cfg.StrOpt('iptables_drop_action', default='DROP',
                deprecated_group='DEFAULT'), _FIREWALL),
    (cfg.MultiStrOpt('forward_bridge_interface', default=['all'],
                     deprecated_group='DEFAULT'),
     'tapmac neither allows nor forbids to forward between a bridge and other '
     'interfaces. Remedy: remove it, and have the firewall of this host do '
     'what is still needed'),
)

#: What of it has none any more.
IGNORED = tuple(opt.name for opt, _ in _IGNORED)

#: What was said, so that it is said once.
_warned: set[str] = set()


def warn_of_ignored(config: cfg.ConfigOpts.GroupAttr,
                    conf: cfg.ConfigOpts) -> None:
    """Say once in a process which options are ignored, and why.

    :param config: the ``[os_vif_tapmac]`` group, as everywhere here
    :param conf: the whole configuration
    """
    for option, value, reason in ignored(config, conf):
        if option not in _warned:
            _warned.add(option)
            LOG.warning('%s = %s is ignored: %s.', option, value, reason)


def ignored(
    config: cfg.ConfigOpts.GroupAttr, conf: cfg.ConfigOpts,
) -> list[tuple[str, str, str]]:
    """Return which options are ignored: name, value, and why.

    :param conf: the whole configuration
    """
    if 'linux_bridge' not in config.claim_plugins:
        return []
    return [*_misplaced(config), *_meaningless(conf)]


def _misplaced(config: cfg.ConfigOpts.GroupAttr,
               ) -> typing.Iterator[tuple[str, str, str]]:
    bridge = from_config.one_bridge(config)
    for option in 'flat_interface', 'vlan_interface':
        interface = from_config.kept(config, option)
        if interface is None:
            continue
        if bridge is None:
            yield (option, interface,
                   'it says nothing of the bridge, and allowed_bridges (%s) '
                   'is not the name of one bridge. Remedy: have the bridge '
                   'and its uplink in bridge_uplinks, or the name of the one '
                   'bridge of this host in allowed_bridges'
                   % ','.join(config.allowed_bridges))
        elif bridge in config.bridge_uplinks:
            yield (option, interface,
                   'bridge_uplinks has the uplink of %s, %s. Remedy: remove '
                   'one of the two' % (bridge, config.bridge_uplinks[bridge]))


def _meaningless(
        conf: cfg.ConfigOpts) -> typing.Iterator[tuple[str, str, str]]:
    # Read apart from all else: os-vif registers options of these names in
    # this group, too, before us or after us, and two that differ in as much
    # as their help would keep it from starting.
    own = cfg.ConfigOpts()
    for opt, _ in _IGNORED:
        own.register_opt(opt, group=GROUP)
    # Both are missing where nothing was parsed.
    own([], default_config_files=getattr(conf, 'config_file', None) or [],
        default_config_dirs=getattr(conf, 'config_dir', None) or [])
    for opt, reason in _IGNORED:
        try:
            value = own[GROUP][opt.name]
        except ValueError:
            value = '(not valid)'
        if value != opt.default:
            yield ('[%s] %s' % (GROUP, opt.name),
                   ','.join(value) if isinstance(value, list) else str(value),
                   reason)
