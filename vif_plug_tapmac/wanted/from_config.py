# SPDX-License-Identifier: Apache-2.0

"""The values that the configuration gives.

The ``[os_vif_tapmac]`` group of oslo.config goes in, values come out.
"""

import functools
import hashlib
import os
import re
import typing

from vif_plug_tapmac import bounded
from vif_plug_tapmac import exception
from vif_plug_tapmac import users
from vif_plug_tapmac.wanted.limits import Limits
from vif_plug_tapmac.wanted.limits import SERVICE_MAX
from vif_plug_tapmac.wanted import names
from vif_plug_tapmac.wanted import port as port_values
from vif_plug_tapmac.wanted.port import TapPort
from vif_plug_tapmac.wanted import port_options
from vif_plug_tapmac.wanted.uplinks import Uplinks

if typing.TYPE_CHECKING:
    from oslo_config import cfg

_WILDCARDS = '*?['
# A path that can be in a comment of nft, with others.
_PLAIN = re.compile(r'[A-Za-z0-9_./+,:@~-]+')


def port_fields(
        config: 'cfg.ConfigOpts.GroupAttr') -> dict[str, typing.Any]:
    """Return the fields of a TapPort that the configuration gives.

    :param config: the ``[os_vif_tapmac]`` group
    :raises InvalidConfig: an option has a value that cannot work here
    """
    for option, others in (('bridge_group', ('link_group',)),
                           ('filtered_group', ('link_group',
                                               'bridge_group')),
                           ('agent_group', ('link_group', 'bridge_group',
                                            'filtered_group'))):
        for other in others:
            if config[option] == config[other]:
                raise exception.InvalidConfig(
                    option=option, value=config[option],
                    reason='it must differ from %s' % other)
    return {'owner': _uid(config.owner), **_without_owner(config)}


def _without_owner(
        config: 'cfg.ConfigOpts.GroupAttr') -> dict[str, typing.Any]:
    return {'multi_queue': config.multiqueue,
            'create_bridge': config.create_bridge,
            'link_group': config.link_group,
            'bridge_group': config.bridge_group,
            'filtered_group': config.filtered_group,
            'firewall': config.firewall,
            'agent_group': config.agent_group,
            'anti_spoofing': config.anti_spoofing,
            'arriving_guests': config.arriving_guests,
            'host_shield': config.host_shield,
            **{each.option: config[each.option]
               for each in port_options.CONFIGURED}}


def interface(config: 'cfg.ConfigOpts.GroupAttr',
              fields: dict[str, typing.Any]) -> TapPort:
    """Return the port of an interface of Neutron's own, as for DHCP.

    No guest has its TAP, so that it needs no user of guests on this host.

    :param fields: vif_id, name, bridge, guest_mac and mtu of a TapPort
    :raises InvalidVif: one is wrong
    :raises InvalidConfig: an option has a value that cannot work here
    """
    if fields.keys() != {'vif_id', 'name', 'bridge', 'guest_mac', 'mtu'}:
        raise exception.InvalidVif(vif='(from an unprivileged caller)',
                                   reason='its fields are others')
    return TapPort(**dict(
        _without_owner(config), owner=0, create_tap=False, firewall='none',
        anti_spoofing='none', uplink=uplinks(config).of(fields['bridge'])),
        **fields)


def group(config: 'cfg.ConfigOpts.GroupAttr') -> int:
    """Return the link group that TAPs are in: it says what is done."""
    if config.firewall == 'agent':
        return int(config.agent_group)
    return int(config.filtered_group if config.anti_spoofing == 'full'
               else config.link_group)


def groups(config: 'cfg.ConfigOpts.GroupAttr') -> port_values.Groups:
    """Return the link groups that TAPs of ours are in."""
    return port_values.Groups(config.link_group, config.filtered_group,
                              config.agent_group)


def require_same(port: TapPort, config: 'cfg.ConfigOpts.GroupAttr') -> None:
    """Check that the fields that the configuration gives are as here.

    For the privileged side. Else a caller could have a TAP that he owns
    himself, or have the bridge of somebody else taken for one of ours by
    naming its link group.

    :param config: the ``[os_vif_tapmac]`` group of this side
    :raises InvalidConfig: the caller had another configuration
    """
    for field, value in port_fields(config).items():
        # The caller may know better how many queues a guest has.
        if field != 'multi_queue' and getattr(port, field) != value:
            raise exception.InvalidConfig(
                option=field, value=getattr(port, field),
                reason='the privileged daemon has %s there. It was '
                       'started with other configuration files, or '
                       'before they were changed: restart the service, '
                       'and name all its files in helper_command of '
                       '[vif_plug_tapmac_privileged]' % value)


def service(conf: 'cfg.ConfigOpts') -> str:
    """Return by what one service on this host is known from another.

    By the files and directories that its configuration is read from, whatever
    they say.

    :returns: their paths, with spaces between; a checksum where these are too
        long, or have characters that nft would take for others
    """
    # Who has read no files has no such options.
    paths = [os.path.abspath(path) for option in ('config_file', 'config_dir')
             for path in getattr(conf, option, None) or ()]
    name = ' '.join(paths) or 'no file'
    if len(name) <= SERVICE_MAX and all(map(_PLAIN.fullmatch, paths)):
        return name
    return 'SHA-256 ' + hashlib.sha256(os.fsencode(name)).hexdigest()


def limits(config: 'cfg.ConfigOpts.GroupAttr', service: str = '') -> Limits:
    """Return what no caller has a say in.

    :param service: what :func:`service` returns of this side
    """
    return Limits(allowed_bridges=tuple(config.allowed_bridges),
                  allowed_uplinks=tuple(config.allowed_uplinks),
                  uplinks=uplinks(config),
                  udev_timeout=config.udev_timeout, service=service)


#: What the configuration was, and what was made of it, last.
_built: tuple[tuple[typing.Any, ...], Uplinks] | None = None


def uplinks(config: 'cfg.ConfigOpts.GroupAttr') -> Uplinks:
    """Return what the ``[os_vif_tapmac]`` group says.

    Built once for a configuration: oslo.config returns the same objects until
    it changes, so that nothing is compared that grows with their number.

    :raises InvalidConfig: a name cannot be one, two bridges have one
        uplink, or the pattern lacks a part
    """
    global _built
    given = (config.bridge_uplinks, config.vlan_bridge, *(
        kept_of_one_bridge(config, option)
        for option in ('flat_interface', 'vlan_interface')))
    if (_built is None or _built[0][0] is not given[0]
            or _built[0][1:] != given[1:]):
        _built = given, _build_uplinks(*given)
    return _built[1]


def _build_uplinks(by_option: dict[str, str], pattern: str,
                   flat: dict[str, str], vlan: dict[str, str]) -> Uplinks:
    for option, given in (('bridge_uplinks', by_option),
                          ('flat_interface', flat),
                          ('vlan_interface', vlan)):
        for bridge, uplink in given.items():
            _require_names(option, bridge, uplink)
    by_bridge = dict(by_option, **flat)
    sharers: dict[str, list[str]] = {}
    for bridge, uplink in by_bridge.items():
        sharers.setdefault(uplink, []).append(bridge)
    for uplink, sharing in sharers.items():
        if len(sharing) > 1:
            raise exception.InvalidConfig(
                option='bridge_uplinks', value=uplink,
                reason='a device can be a port of one bridge only, and '
                       'this is the uplink of %s'
                       % ' and '.join(sorted(sharing)))
    if pattern.count('{bridge}') != 1 or pattern.count('{vlan}') != 1:
        raise exception.InvalidConfig(
            option='vlan_bridge', value=pattern,
            reason='{bridge} and {vlan} must be in it, once each')
    return Uplinks(by_bridge, pattern, vlan)


def _require_names(option: str, bridge: str, uplink: str) -> None:
    for name, is_valid in ((bridge, names.is_device_name),
                           (uplink, names.is_uplink_name)):
        if not is_valid(name):
            raise exception.InvalidConfig(
                option=option, value='%s:%s' % (bridge, uplink),
                reason='%r can not be the name of a device' % name)


def one_bridge(config: 'cfg.ConfigOpts.GroupAttr') -> str | None:
    """Return the bridge of a host that has one, None if it has others.

    It has one if allowed_bridges is one name, without wildcards.

    :param config: the ``[os_vif_tapmac]`` group
    """
    names = set(config.allowed_bridges)
    if len(names) != 1 or any(char in name for name in names
                              for char in _WILDCARDS):
        return None
    return str(names.pop())


def kept(config: 'cfg.ConfigOpts.GroupAttr', option: str) -> typing.Any:
    """Return the value of an old option (:data:`linux_bridge.KEPT`).

    None if it has none.
    """
    if 'linux_bridge' not in config.claim_plugins:
        return None
    return config[option] or None


def kept_of_one_bridge(config: 'cfg.ConfigOpts.GroupAttr',
                       option: str) -> dict[str, str]:
    """Return to which bridge the interface of an option belongs, if to any."""
    interface = kept(config, option)
    if interface is None:
        return {}
    bridge = one_bridge(config)
    if bridge is None or bridge in config.bridge_uplinks:
        return {}
    return {bridge: interface}


@functools.cache
def _uid(owner: str) -> int:
    """Return the uid for a user's name or number, looked up once.

    Who knows the users may be far away.

    :raises InvalidConfig: there is no such user, or nobody says in time
    """
    try:
        uid = int(owner)
    except ValueError:
        uid = _uid_of(owner)
    if not 0 <= uid <= port_values.UID_MAX:
        raise exception.InvalidConfig(
            option='owner', value=owner,
            reason='a uid is a number from 0 to %d' % port_values.UID_MAX)
    return uid


def _uid_of(owner: str) -> int:
    try:
        uid = users.uid_of(owner)
        reason = 'this host has no such user'
    except bounded.Unanswered as error:
        uid, reason = None, (
            'the directory of users (NSS) does not say who that is: %s. Have '
            'the uid there, or mend the directory' % error)
    if uid is None:
        raise exception.InvalidConfig(option='owner', value=owner,
                                      reason=reason)
    return uid
