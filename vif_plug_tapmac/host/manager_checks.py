# SPDX-License-Identifier: Apache-2.0

"""Who else configures links, and would take some off their bridges."""

import collections
import fnmatch
import typing

from oslo_config import cfg

from vif_plug_tapmac.host.finding import finds
from vif_plug_tapmac.host.finding import Seen
from vif_plug_tapmac.host.inventory import Inventory
from vif_plug_tapmac.host import link_files
from vif_plug_tapmac.host import network_managers
from vif_plug_tapmac.kernel.link import Link
from vif_plug_tapmac import mark

#: Names that Nova may give, where there is no TAP yet.
_NAMES = ('tap00000000-00', 'tapffffffff-ff')
_ETC = 'of the page Deploying with Nova, Network managers'
#: What only udev knows of a link: it is asked for each, where a file does.
_OF_UDEV = frozenset(('Path', 'Driver', 'Type', 'Property'))
#: How networkd calls these, beside their kind.
_TYPES = frozenset(('bond', 'bridge', 'vlan'))


class _Uplink(typing.NamedTuple):
    """What connects a bridge with the wire.

    :param link: None if it is not there
    :param is_ours: whether tapmac made the bridge, or would
    """
    bridge: str
    name: str
    link: Link | None
    is_ours: bool


class _Taken:
    """What somebody would take off bridges, for people to read."""

    def __init__(self) -> None:
        self.taps: list[str] = []
        #: Ends of interfaces of Neutron's own agents.
        self.interfaces: list[str] = []
        self.uplinks: list[_Uplink] = []

    def __str__(self) -> str:
        return ' and '.join(
            ['%s, as TAPs of guests are named' % name
             for name in self.taps[:1]]
            + ['%s, an interface of DHCP or of a router' % name
               for name in self.interfaces[:1]]
            + ['%s, the uplink of %s' % (each.name, each.bridge)
               for each in self.uplinks])


def _uplinks(seen: Inventory) -> typing.Iterator[_Uplink]:
    """Yield the uplinks of bridges that concern us, or will."""
    for bridge in seen.bridges:
        named = seen.uplink(bridge)
        links = {port.name: port for port in seen.ports(bridge)
                 if not port.is_tap and not mark.is_interface(port)}
        if named is not None and (named[1] is None
                                  or named[1].name not in links):
            yield _Uplink(bridge.name, *named, seen.is_ours(bridge))
        for name, link in links.items():
            yield _Uplink(bridge.name, name, link, seen.is_ours(bridge))
    for name, device in (seen.uplinks.uplinks if seen.uplinks else {}).items():
        if name not in seen.by_name:
            yield _Uplink(name, device, seen.named(device), True)


@finds('TM309')
def _networkd(seen: Inventory, config: cfg.ConfigOpts.GroupAttr) -> Seen:
    files = link_files.read('.network')
    with_udev = any(not _OF_UDEV.isdisjoint(file.asks) for file in files)
    taken: dict[str, _Taken] = collections.defaultdict(_Taken)
    for facts in (*(link_files.tap(tap.link.name, *tap.link.altnames,
                                   mac=tap.link.mac or '')
                    for tap in seen.taps if tap.is_ours),
                  *map(link_files.tap, _NAMES)):
        path = link_files.file_that_takes_off(files, facts, None)
        if path is not None:
            taken[path].taps.append(next(iter(facts['Name'])))
    for link in seen.interfaces:
        path = link_files.file_that_takes_off(files, _facts(
            _Uplink('', link.name, link, True), with_udev), None)
        if path is not None:
            taken[path].interfaces.append(link.name)
    for uplink in _uplinks(seen):
        path = link_files.file_that_takes_off(
            files, _facts(uplink, with_udev), uplink.bridge)
        if path is not None:
            taken[path].uplinks.append(uplink)
    for path, those in taken.items():
        yield (path, 'it is for %s: systemd-networkd takes what it is for off '
               'a bridge that is not its own, when it starts' % those,
               ', and '.join(
                   ['install 00-tapmac.network ' + _ETC] * bool(
                       those.taps or those.interfaces)
                   + ['have KeepMaster=yes in a section [Network] for %s'
                      % each.name for each in those.uplinks])
               + ', then "networkctl reload"')


def _facts(uplink: _Uplink, with_udev: bool) -> link_files.Facts:
    link = uplink.link
    if link is None:
        return {'Name': (uplink.name,), 'Type': ('ether',)}
    udev = link_files.udev_properties(link.name) if with_udev else {}
    macs = (link.mac or '',)
    kind = link.kind or ''
    return {'Name': (link.name, *link.altnames), 'MACAddress': macs,
            # A card as it came out of its box.
            'PermanentMACAddress': () if kind else macs,
            'Kind': (kind,), 'Type': (udev.get('DEVTYPE') or (
                kind if kind in _TYPES else 'ether'),),
            'Path': (udev.get('ID_PATH', ''),),
            'Driver': (udev.get('ID_NET_DRIVER', kind),),
            'Property': ['%s=%s' % each for each in udev.items()]}


@finds('TM310')
def _ifupdown2(seen: Inventory, config: cfg.ConfigOpts.GroupAttr) -> Seen:
    ports = collections.defaultdict(list)
    for uplink in _uplinks(seen):
        ports[uplink.bridge].append(uplink.name)
    for tap in seen.taps:
        if tap.bridge is not None:
            ports[tap.bridge.name].append(tap.link.name)
    for stanza in network_managers.bridges_of_ifupdown2():
        name = stanza.name
        guests = _NAMES if any(fnmatch.fnmatchcase(name, pattern)
                               for pattern in config.allowed_bridges) else ()
        taken = [port for port in (*ports[name], *guests)
                 if not stanza.keeps(port)]
        if taken:
            yield (name, 'ifupdown2 takes %s off it at each ifup and ifreload'
                   % taken[0],
                   'have bridge-ports-condone-regex ^tap, and all its uplinks '
                   'in bridge-ports, for it in /etc/network/interfaces')


@finds('TM311')
def _network_manager(seen: Inventory,
                     config: cfg.ConfigOpts.GroupAttr) -> Seen:
    unmanaged = network_managers.unmanaged_by_network_manager()
    if unmanaged is None:
        return
    those = _Taken()
    those.taps = [name for name in (
        *(tap.link.name for tap in seen.taps if tap.is_ours), *_NAMES)
        if not unmanaged.has({'interface-name': name, 'type': 'tun',
                              'driver': 'tun'})]
    # Where the bridge is its own, so is the uplink.
    those.uplinks = [each for each in _uplinks(seen) if each.is_ours
                     and not unmanaged.has(_of_network_manager(
                         each, unmanaged.asks('driver')))]
    if those.taps or those.uplinks:
        yield ('NetworkManager', 'it manages %s; it takes uplinks off bridges '
               'that are not its own' % those,
               'install tapmac.conf %s%s, then "systemctl restart '
               'NetworkManager"' % (_ETC, ''.join(
                   ', with interface-name:%s in it' % each.name
                   for each in those.uplinks)))


def _of_network_manager(uplink: _Uplink,
                        with_driver: bool) -> network_managers.Facts:
    link = uplink.link
    udev = link_files.udev_properties(uplink.name) if with_driver else {}
    return {'interface-name': uplink.name,
            'type': (link and link.kind in _TYPES and link.kind) or 'ethernet',
            'mac': (link and link.mac) or '',
            'driver': udev.get('ID_NET_DRIVER', (link and link.kind) or '')}


#: In the order of their codes.
CHECKS = (_networkd, _ifupdown2, _network_manager)
