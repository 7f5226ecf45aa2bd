# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""What the caller wants, as values that are valid or do not exist.

Nothing here touches the network. The configuration is resolved while the value
is built. The privileged side builds the value once more from plain fields, and
so checks everything again; it compares what came from the configuration with
its own, and reads the limits that it sets to every caller.
"""

import dataclasses
import fnmatch
import functools
import pwd
import re
import typing

from os_vif.objects import vif as vif_objects
from oslo_config import cfg

from vif_plug_tapmac import exception
from vif_plug_tapmac import linux_bridge
from vif_plug_tapmac import mac

# The tun driver accepts far more and treats some of it as templates (t%d), or
# cuts what is too long and so names another device: see the functional tests.
_DEVICE_NAME = re.compile(r'[A-Za-z0-9][A-Za-z0-9_.-]{0,14}\Z')
# Directories of /proc/sys/net/ipv4/conf, not interfaces.
_RESERVED_NAMES = ('all', 'default')
#: The port profile of an Open vSwitch VIF says so where Neutron's tapmac
#: driver bound it: Nova has no other words for a TAP that os-vif makes.
DATAPATH_TYPE = 'tapmac'
_UUID = re.compile(r'[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z')

#: How the bridge of a VLAN is named unless the operator says otherwise.
VLAN_BRIDGE = '{bridge}-{vlan}'
#: 0 is for frames without a VLAN, 4095 is reserved.
#: Source: IEEE 802.1Q, table 9-2
VLAN_MIN, VLAN_MAX = 1, 4094
#: Names of other plugins that Nova knows, and tapmac can answer for.
CLAIMABLE = ('ovs', 'linux_bridge')
#: What a guest can be kept to: nothing, or its MAC.
ANTI_SPOOFING = ('none', 'mac')
#: How a TAP is kept to a guest that is still on another host.
ARRIVING_GUESTS = ('lock', 'filter')
#: Limits of a TAP's MTU in bytes. Source: drivers/net/tun.c, MIN_MTU and
#: MAX_MTU less the Ethernet header.
TAP_MTU_MIN, TAP_MTU_MAX = 68, 65521
#: A uid of 2**32 - 1 means "no owner" to the tun driver.
UID_MAX = 2 ** 32 - 2
#: Link groups are signed in the kernel; 0 is where every link starts.
LINK_GROUP_MIN, LINK_GROUP_MAX = 1, 2 ** 31 - 1
#: To how many characters Nova cuts the names of TAPs and bridges. Source:
#: nova/network/model.py, NIC_NAME_LEN (33.0.2)
NOVA_NAME_LENGTH = 14


def nova_tap_name(vif_id: str) -> str:
    """Return the name that Nova gives to the TAP of a port.

    Source: nova/network/neutron.py, _build_vif_model (33.0.2)
    """
    return ('tap' + vif_id)[:NOVA_NAME_LENGTH]


def parse_vlan_device(name: str) -> tuple[str, int] | None:
    """Return of which device another is which VLAN, by its name: eth1.200.

    :returns: None if the name says nothing of the kind
    """
    match = re.fullmatch(r'(.+)\.([1-9][0-9]{0,3})', name)
    if match is None or int(match[2]) > VLAN_MAX:
        return None
    return match[1], int(match[2])


def is_device_name(name: typing.Any) -> bool:
    """Return whether TAPs and bridges may have this name here."""
    return (isinstance(name, str) and name not in _RESERVED_NAMES
            and _DEVICE_NAME.match(name) is not None)


_FieldsT = typing.TypeVar('_FieldsT', bound='_Fields')


@dataclasses.dataclass(frozen=True)
class _Fields:
    """What identifies a TAP, checked as it is built."""
    vif_id: str
    name: str

    def __post_init__(self) -> None:
        if not isinstance(self.vif_id, str) or not _UUID.match(self.vif_id):
            raise exception.InvalidVif(
                vif=repr(self.vif_id), reason='its id is not a UUID')
        self._check_device_name('vif_name', self.name)

    def _require(self, valid: bool, reason: str, *values: object) -> None:
        if not valid:
            raise self._invalid(reason % values)

    def _invalid(self, reason: str) -> exception.InvalidVif:
        return exception.InvalidVif(vif=_label(self.vif_id, self.name),
                                    reason=reason)

    def _check_device_name(self, field: str, name: str) -> None:
        self._require(
            is_device_name(name),
            '%s %r is no name for a network device here: 1 to 15 letters, '
            'digits, "_", "." and "-", starting with a letter or a digit, '
            'and not "all" or "default"', field, name)

    def to_fields(self) -> dict[str, typing.Any]:
        """Return plain fields that can cross the privilege boundary."""
        return dict(vars(self))

    @classmethod
    def from_fields(cls: type[_FieldsT],
                    fields: dict[str, typing.Any]) -> _FieldsT:
        """Build from what :meth:`to_fields` returned, trusting nothing.

        :raises InvalidVif: a field is missing, unknown or wrong
        """
        names = cls.__dataclass_fields__.keys()
        if not isinstance(fields, dict) or fields.keys() != names:
            raise exception.InvalidVif(
                vif='(from an unprivileged caller)',
                reason='its fields must be exactly %s'
                       % ', '.join(sorted(names)))
        return cls(**fields)


@dataclasses.dataclass(frozen=True)
class TapIdentity(_Fields):
    """Which TAP: enough to remove it.

    :param vif_id: the VIF's UUID in canonical lower case form
    :param name: the TAP's name, 1 to 15 characters
    :raises InvalidVif: the first field that is wrong
    """

    @classmethod
    def from_vif(cls, vif: vif_objects.VIFBase) -> 'TapIdentity':
        """Return which TAP a VIF means.

        :raises InvalidVif: the class of the VIF is not one we plug, or a
            field is unset or wrong
        """
        _require_ours(vif)
        return cls(vif_id=_vif_id(vif), name=_field(vif, 'vif_name'))


@dataclasses.dataclass(frozen=True)
class TapPort(_Fields):
    """A guest's TAP and its bridge, as they shall be on the host.

    :param vif_id: the VIF's UUID in canonical lower case form
    :param name: the TAP's name, 1 to 15 characters
    :param bridge: the bridge's name, 1 to 15 characters
    :param guest_mac: MAC of the guest's NIC, as :func:`mac.parse` returns it
    :param mtu: in bytes, 68 to 65521; None leaves the kernel's default on
        what is made and does not touch what exists
    :param create_tap: whether we make the TAP; if not, libvirt will, on a
        bridge that we have ready, and we only mend what we find
    :param owner: uid of the one user who may attach to the TAP
    :param multi_queue: whether the guest's NIC has more than one queue
    :param create_bridge: whether a missing bridge may be made
    :param link_group: group number of our TAPs
    :param bridge_group: group number of our bridges
    :param uplink: the device that is to connect the bridge with the wire, 1
        to 15 characters; None if nobody names one
    :param anti_spoofing: one of ANTI_SPOOFING: what the guest is kept to
    :param arriving_guests: one of ARRIVING_GUESTS: how the guest is kept to
        that while it is still on another host
    :param port_isolated: whether the guest does not reach other such guests
    :param port_flood_unicast: whether the guest gets frames for MACs that the
        bridge does not know
    :param port_flood_multicast: whether it gets multicast of groups that
        nobody is known to have joined
    :param port_hairpin: whether its frames may come back to it
    :param host_shield: whether guests do not reach the host through bridges
    :raises InvalidVif: the first field that is wrong
    """
    bridge: str
    guest_mac: str
    mtu: int | None
    create_tap: bool
    owner: int
    multi_queue: bool
    create_bridge: bool
    link_group: int
    bridge_group: int
    uplink: str | None
    anti_spoofing: str
    arriving_guests: str
    port_isolated: bool
    port_flood_unicast: bool
    port_flood_multicast: bool
    port_hairpin: bool
    host_shield: bool

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_device_name('bridge_name', self.bridge)
        if self.uplink is not None:
            self._check_device_name('uplink', self.uplink)
        names = [self.name, self.bridge, self.uplink]
        self._require(len(set(names)) == len(names),
                      'two of TAP, bridge and uplink have one name: '
                      '%s, %s, %s', *names)
        self._check_guest_mac()
        if self.mtu is not None:
            self._check_number('MTU', self.mtu, TAP_MTU_MIN, TAP_MTU_MAX)
        self._check_number('owner', self.owner, 0, UID_MAX)
        for field in ('link_group', 'bridge_group'):
            self._check_number(field, getattr(self, field),
                               LINK_GROUP_MIN, LINK_GROUP_MAX)
        self._require(self.link_group != self.bridge_group,
                      'TAPs and bridges share link group %s', self.link_group)
        self._require(self.anti_spoofing in ANTI_SPOOFING,
                      'anti_spoofing %r is none of %s', self.anti_spoofing,
                      ', '.join(ANTI_SPOOFING))
        self._require(self.arriving_guests in ARRIVING_GUESTS,
                      'arriving_guests %r is none of %s',
                      self.arriving_guests, ', '.join(ARRIVING_GUESTS))
        for field in ('create_tap', 'multi_queue', 'create_bridge',
                      'port_isolated', 'port_flood_unicast',
                      'port_flood_multicast', 'port_hairpin',
                      'host_shield'):
            self._require(isinstance(getattr(self, field), bool),
                          '%s is not a boolean', field)

    def _check_guest_mac(self) -> None:
        self._require(isinstance(self.guest_mac, str),
                      'MAC %r is no text', self.guest_mac)
        try:
            parsed = mac.parse(self.guest_mac)
        except ValueError as error:
            raise self._invalid(str(error))
        self._require(parsed == self.guest_mac,
                      'MAC %s is not in lower case', self.guest_mac)

    def _check_number(self, field: str, value: int, least: int,
                      most: int) -> None:
        self._require(
            type(value) is int and least <= value <= most,
            '%s %r is not a whole number from %d to %d',
            field, value, least, most)

    @property
    def has_nova_name(self) -> bool:
        """Whether the TAP's name is the one that Nova gives to this VIF."""
        return self.name == nova_tap_name(self.vif_id)

    @property
    def is_guarded(self) -> bool:
        """Whether the guest may send from its own MAC only."""
        return self.anti_spoofing != 'none'

    def require_configuration(self, config: cfg.ConfigOpts.GroupAttr) -> None:
        """Check that the fields that the configuration gives are as here.

        For the privileged side. Else a caller could have a TAP that he owns
        himself, or have the bridge of somebody else taken for one of ours by
        naming its link group.

        :param config: the ``[os_vif_tapmac]`` group of this side
        :raises InvalidConfig: the caller had another configuration
        """
        for field, value in config_fields(config).items():
            # The caller may know better how many queues a guest has.
            if field != 'multi_queue' and getattr(self, field) != value:
                raise exception.InvalidConfig(
                    option=field, value=getattr(self, field),
                    reason='the privileged daemon has %s there. It was '
                           'started with other configuration files, or '
                           'before they were changed: restart the service, '
                           'and name all its files in helper_command of '
                           '[vif_plug_tapmac_privileged]' % value)

    @classmethod
    def from_vif(cls, vif: vif_objects.VIFBase,
                 config: cfg.ConfigOpts.GroupAttr,
                 multi_queue: bool | None = None) -> 'TapPort':
        """Return what a VIF and the configuration ask for.

        :param vif: a VIFBridge, or a VIFOpenVSwitch that
            :func:`is_bound_by_tapmac`; its bridge is ``bridge_name``, else
            ``network.bridge``
        :param config: the ``[os_vif_tapmac]`` group
        :param multi_queue: whether the guest's NIC has more than one queue;
            None if the caller does not know. Then the port profile says so,
            else the configuration.
        :raises InvalidVif: the class of the VIF is not one we plug, or a
            field is unset or wrong
        :raises InvalidConfig: an option has a value that cannot work here, or
            the VIF needs one that is not set
        """
        _require_ours(vif)
        _require_claim(vif, config)
        fields = config_fields(config)
        bridge = _bridge_name(vif)
        if multi_queue is None:
            multi_queue = _get(_get(vif, 'port_profile'), 'multiqueue')
        if multi_queue is not None:
            fields['multi_queue'] = multi_queue
        return cls(
            vif_id=_vif_id(vif),
            name=_field(vif, 'vif_name'),
            bridge=bridge,
            uplink=_uplink(vif, bridge, config),
            guest_mac=str(_field(vif, 'address')).lower(),
            mtu=_mtu(vif, config),
            create_tap=(_get(vif, 'plugin') != 'linux_bridge'
                        or config.nova_managed_tap),
            **fields)


@dataclasses.dataclass(frozen=True)
class Limits:
    """What no caller has a say in: the privileged side's own configuration.

    :param allowed_bridges: shell patterns of the bridges that TAPs may join
    :param allowed_uplinks: shell patterns of devices that may join bridges
    :param uplinks: which ones the configuration gives to which bridge
    :param udev_timeout: how many seconds to wait for udev at most; 0: not
    """
    allowed_bridges: tuple[str, ...]
    allowed_uplinks: tuple[str, ...]
    uplinks: 'Uplinks'
    udev_timeout: float

    @classmethod
    def from_config(cls, config: cfg.ConfigOpts.GroupAttr) -> 'Limits':
        """Return what the ``[os_vif_tapmac]`` group says."""
        return cls(allowed_bridges=tuple(config.allowed_bridges),
                   allowed_uplinks=tuple(config.allowed_uplinks),
                   uplinks=Uplinks.from_config(config),
                   udev_timeout=config.udev_timeout)

    def require_bridge(self, port: TapPort) -> None:
        """Check that TAPs may join the port's bridge, and so may its uplink.

        :raises InvalidConfig: one may not
        """
        self._require_allowed('allowed_bridges', '%s may not join bridge'
                              % port.name, port.bridge)
        own = self.uplinks.of(port.bridge)
        if port.uplink == own or self.uplinks.has_vlan(port.bridge,
                                                       port.uplink):
            return
        if own is not None:
            raise exception.InvalidConfig(
                option='bridge_uplinks', value='%s:%s' % (port.bridge, own),
                reason='%s is plugged as if the uplink of its bridge were %s. '
                       'The VIF says so, or nova-compute reads other '
                       'configuration files than the privileged daemon' % (
                           port.name, port.uplink))
        self._require_allowed('allowed_uplinks', 'bridge %s may not have the '
                              'uplink' % port.bridge, str(port.uplink))

    def _require_allowed(self, option: str, what: str, name: str) -> None:
        patterns = getattr(self, option)
        if not any(fnmatch.fnmatchcase(name, pattern)
                   for pattern in patterns):
            raise exception.InvalidConfig(
                option=option, value=','.join(patterns),
                reason='%s %s, which matches none of these patterns'
                       % (what, name))


@dataclasses.dataclass(frozen=True)
class Uplinks:
    """Which device connects which bridge with the wire.

    :param uplinks: by the name of the bridge
    :param vlan_bridge: how the bridge of a VLAN is named
    :param vlan_interfaces: by the name of a bridge whose VIFs say their VLAN:
        on which device this VLAN is
    """
    uplinks: dict[str, str]
    vlan_bridge: str
    vlan_interfaces: dict[str, str] = dataclasses.field(default_factory=dict)

    @classmethod
    def from_config(cls, config: cfg.ConfigOpts.GroupAttr) -> 'Uplinks':
        """Return what the ``[os_vif_tapmac]`` group says.

        :raises InvalidConfig: a name cannot be one, two bridges have one
            uplink, or the pattern lacks a part
        """
        flat, vlan = (linux_bridge.kept_of_one_bridge(config, option)
                      for option in ('flat_interface', 'vlan_interface'))
        for option, given in (('bridge_uplinks', config.bridge_uplinks),
                              ('flat_interface', flat),
                              ('vlan_interface', vlan)):
            for bridge, uplink in given.items():
                cls._require_names(option, bridge, uplink)
        uplinks = dict(config.bridge_uplinks, **flat)
        for uplink in uplinks.values():
            sharing = sorted(other for other in uplinks
                             if uplinks[other] == uplink)
            if len(sharing) > 1:
                raise exception.InvalidConfig(
                    option='bridge_uplinks', value=uplink,
                    reason='a device can be a port of one bridge only, and '
                           'this is the uplink of %s' % ' and '.join(sharing))
        pattern = config.vlan_bridge
        if pattern.count('{bridge}') != 1 or pattern.count('{vlan}') != 1:
            raise exception.InvalidConfig(
                option='vlan_bridge', value=pattern,
                reason='{bridge} and {vlan} must be in it, once each')
        return cls(uplinks, pattern, vlan)

    @staticmethod
    def _require_names(option: str, bridge: str, uplink: str) -> None:
        for name in bridge, uplink:
            if not _DEVICE_NAME.match(name):
                raise exception.InvalidConfig(
                    option=option, value='%s:%s' % (bridge, uplink),
                    reason='%r can not be the name of a device' % name)

    def has_vlan(self, bridge: str, uplink: str | None) -> bool:
        """Return whether a VIF's VLAN may make this a bridge's uplink."""
        found = parse_vlan_device(uplink or '')
        return (found is not None
                and found[0] == self.vlan_interfaces.get(bridge))

    def of(self, bridge: str, vlan: int | None = None) -> str | None:
        """Return the uplink of a bridge, None if there is none.

        :param vlan: that the VIF is to be on, by its network
        """
        if vlan is not None and bridge in self.vlan_interfaces:
            return _vlan_device(self.vlan_interfaces[bridge], vlan)
        if bridge in self.uplinks:
            return self.uplinks[bridge]
        for untagged, uplink in self.uplinks.items():
            number = self._vlan(bridge, untagged)
            if number is not None:
                return _vlan_device(uplink, number)
        return None

    def _vlan(self, bridge: str, untagged: str) -> int | None:
        """Return for which VLAN beside this bridge another one is."""
        pattern = re.escape(self.vlan_bridge.replace('{bridge}', untagged))
        match = re.fullmatch(pattern.replace(
            re.escape('{vlan}'), '([1-9][0-9]{0,3})'), bridge)
        if match is None or int(match[1]) > VLAN_MAX:
            return None
        return int(match[1])


def config_fields(
        config: cfg.ConfigOpts.GroupAttr) -> dict[str, typing.Any]:
    """Return the fields of a TapPort that the configuration gives.

    :param config: the ``[os_vif_tapmac]`` group
    :raises InvalidConfig: an option has a value that cannot work here
    """
    if config.link_group == config.bridge_group:
        raise exception.InvalidConfig(
            option='bridge_group', value=config.bridge_group,
            reason='it must differ from link_group')
    return {'owner': _uid(config.owner),
            'multi_queue': config.multiqueue,
            'create_bridge': config.create_bridge,
            'link_group': config.link_group,
            'bridge_group': config.bridge_group,
            'anti_spoofing': config.anti_spoofing,
            'arriving_guests': config.arriving_guests,
            'port_isolated': config.port_isolated,
            'port_flood_unicast': config.port_flood_unicast,
            'port_flood_multicast': config.port_flood_multicast,
            'port_hairpin': config.port_hairpin,
            'host_shield': config.host_shield}


def is_bound_by_tapmac(vif: vif_objects.VIFBase) -> bool:
    """Return whether this Open vSwitch VIF is a TAP on a bridge in disguise.

    So it is if its port profile has ``create_tap`` and the datapath type
    ``tapmac``. Any other is Open vSwitch's.
    """
    profile = _get(vif, 'port_profile')
    return (isinstance(vif, vif_objects.VIFOpenVSwitch)
            and _get(profile, 'create_tap') is True
            and _get(profile, 'datapath_type') == DATAPATH_TYPE)


def _require_ours(vif: vif_objects.VIFBase) -> None:
    if not isinstance(vif, vif_objects.VIFBridge) and not is_bound_by_tapmac(
            vif):
        raise exception.InvalidVif(
            vif=vif_label(vif),
            reason='tapmac plugs VIFBridge, and VIFOpenVSwitch whose port '
                   'profile has create_tap and datapath_type %s, and this is '
                   'a %s' % (DATAPATH_TYPE, type(vif).__name__))


def _require_claim(vif: vif_objects.VIFBase,
                   config: cfg.ConfigOpts.GroupAttr) -> None:
    plugin = _get(vif, 'plugin')
    if plugin in CLAIMABLE and plugin not in config.claim_plugins:
        raise exception.InvalidConfig(
            option='claim_plugins', value=','.join(config.claim_plugins),
            reason='VIF %s names the plugin %s, for which tapmac answers only '
                   'if it is in this list' % (vif_label(vif), plugin))


def _get(versioned_object: typing.Any, field: str) -> typing.Any:
    """Return a field, None if it is unset, empty or of an object not there.

    Reading an unset field of a versioned object raises NotImplementedError.
    """
    if versioned_object is None or field not in versioned_object:
        return None
    value = getattr(versioned_object, field)
    return None if value == '' else value


def _field(vif: vif_objects.VIFBase, field: str) -> typing.Any:
    value = _get(vif, field)
    if value is None:
        raise exception.InvalidVif(
            vif=vif_label(vif), reason='its %s is not set' % field)
    return value


def _vif_id(vif: vif_objects.VIFBase) -> str:
    vif_id = _get(vif, 'id')
    return '(without id)' if vif_id is None else str(vif_id).lower()


def vif_label(vif: vif_objects.VIFBase) -> str:
    """Return how errors shall call a VIF, whatever is unset."""
    return _label(_vif_id(vif), _get(vif, 'vif_name') or '(without vif_name)')


def _label(vif_id: str, name: str) -> str:
    return '%s, device %s' % (vif_id, name)


def _bridge_name(vif: vif_objects.VIFBase) -> typing.Any:
    name = (_get(vif, 'bridge_name')
            or _get(_get(vif, 'network'), 'bridge'))
    if name is None:
        raise exception.InvalidVif(
            vif=vif_label(vif),
            reason='neither bridge_name nor network.bridge is set')
    return name


def _uplink(vif: vif_objects.VIFBase, bridge: str,
            config: cfg.ConfigOpts.GroupAttr) -> str | None:
    """Return the uplink of a VIF's bridge, None if nobody names one.

    :raises InvalidVif: the VIF names another than the configuration
    """
    uplinks = Uplinks.from_config(config)
    network = _get(vif, 'network')
    named = _get(network, 'bridge_interface')
    vlan = None
    if _get(network, 'should_provide_vlan') and (
            named is not None or bridge in uplinks.vlan_interfaces):
        vlan = _vlan(vif)
    own = uplinks.of(bridge, vlan)
    if named is not None and vlan is not None:
        named = _vlan_device(named, vlan)
    if own is not None and named not in (None, own):
        raise exception.InvalidVif(
            vif=vif_label(vif),
            reason='its network has the bridge_interface %s, and the uplink '
                   'of %s is %s by bridge_uplinks, flat_interface or '
                   'vlan_interface' % (named, bridge, own))
    return own or named


def _vlan(vif: vif_objects.VIFBase) -> int:
    """Return the VLAN of a VIF that says that it has one."""
    vlan = _get(_get(vif, 'network'), 'vlan')
    if vlan is None or not VLAN_MIN <= vlan <= VLAN_MAX:
        raise exception.InvalidVif(
            vif=vif_label(vif),
            reason='its network has should_provide_vlan, and the vlan %s, '
                   'which is no number from %d to %d'
                   % (vlan, VLAN_MIN, VLAN_MAX))
    return int(vlan)


def _vlan_device(parent: str, vlan: int) -> str:
    return '%s.%d' % (parent, vlan)


def _mtu(vif: vif_objects.VIFBase,
         config: cfg.ConfigOpts.GroupAttr) -> int | None:
    mtu: int | None = _get(_get(vif, 'network'), 'mtu')
    if mtu is None:
        mtu = linux_bridge.kept(config, 'network_device_mtu')
    return mtu


@functools.cache
def _uid(owner: str) -> int:
    """Return the uid for a user's name or number, looked up once.

    Who knows the users may be far away.
    """
    try:
        uid = int(owner)
    except ValueError:
        try:
            uid = pwd.getpwnam(owner).pw_uid
        except KeyError:
            raise exception.InvalidConfig(
                option='owner', value=owner,
                reason='this host has no such user')
    if not 0 <= uid <= UID_MAX:
        raise exception.InvalidConfig(
            option='owner', value=owner,
            reason='a uid is a number from 0 to %d' % UID_MAX)
    return uid
