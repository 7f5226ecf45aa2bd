# SPDX-License-Identifier: Apache-2.0

"""What a VIF of os-vif asks for."""

import typing

from vif_plug_tapmac import exception
from vif_plug_tapmac.wanted import from_config
from vif_plug_tapmac.wanted import names
from vif_plug_tapmac.wanted import port as port_values
from vif_plug_tapmac.wanted.port import TapIdentity
from vif_plug_tapmac.wanted.port import TapPort
from vif_plug_tapmac.wanted import rules

if typing.TYPE_CHECKING:
    from os_vif.objects import vif as vif_objects
    from oslo_config import cfg

#: Where os-vif has its classes of VIFs.
_OBJECTS = 'os_vif.objects.vif'


def tap_identity(vif: 'vif_objects.VIFBase') -> TapIdentity:
    """Return which TAP a VIF means.

    :raises InvalidVif: the class of the VIF is not one we plug, or a
        field is unset or wrong
    """
    _require_ours(vif)
    return TapIdentity(vif_id=_vif_id(vif), name=_field(vif, 'vif_name'))


def tap_port(vif: 'vif_objects.VIFBase', config: 'cfg.ConfigOpts.GroupAttr',
             multi_queue: bool | None = None) -> TapPort:
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
    fields = from_config.port_fields(config)
    bridge = _bridge_name(vif)
    if multi_queue is None:
        multi_queue = _get(_get(vif, 'port_profile'), 'multiqueue')
    if multi_queue is not None:
        fields['multi_queue'] = multi_queue
    return TapPort(
        vif_id=_vif_id(vif),
        name=_field(vif, 'vif_name'),
        bridge=bridge,
        uplink=_uplink(vif, bridge, config),
        guest_mac=str(_field(vif, 'address')).lower(),
        mtu=_mtu(vif, config),
        addresses=(_addresses(vif) if fields['anti_spoofing'] == 'full'
                   else None),
        create_tap=(_get(vif, 'plugin') != 'linux_bridge'
                    or config.nova_managed_tap),
        **fields)


def is_bound_by_tapmac(vif: 'vif_objects.VIFBase') -> bool:
    """Return whether this Open vSwitch VIF is a TAP on a bridge in disguise.

    So it is if its port profile has ``create_tap`` and the datapath type
    ``tapmac``. Any other is Open vSwitch's.
    """
    profile = _get(vif, 'port_profile')
    return (_is_a(vif, 'VIFOpenVSwitch')
            and _get(profile, 'create_tap') is True
            and _get(profile, 'datapath_type') == names.DATAPATH_TYPE)


def _require_ours(vif: 'vif_objects.VIFBase') -> None:
    if not _is_a(vif, 'VIFBridge') and not is_bound_by_tapmac(vif):
        raise exception.InvalidVif(
            vif=label(vif),
            reason='tapmac plugs VIFBridge, and VIFOpenVSwitch whose port '
                   'profile has create_tap and datapath_type %s, and this is '
                   'a %s' % (names.DATAPATH_TYPE, type(vif).__name__))


def _is_a(vif: 'vif_objects.VIFBase', name: str) -> bool:
    """Return whether a VIF is of os-vif's class of this name.

    Whoever has a VIF has loaded os-vif; whoever has none need not.
    """
    return any(cls.__name__ == name and cls.__module__ == _OBJECTS
               for cls in type(vif).__mro__)


def _require_claim(vif: 'vif_objects.VIFBase',
                   config: 'cfg.ConfigOpts.GroupAttr') -> None:
    plugin = _get(vif, 'plugin')
    if plugin in names.CLAIMABLE and plugin not in config.claim_plugins:
        raise exception.InvalidConfig(
            option='claim_plugins', value=','.join(config.claim_plugins),
            reason='VIF %s names the plugin %s, for which tapmac answers only '
                   'if it is in this list' % (label(vif), plugin))


def _get(versioned_object: typing.Any, field: str) -> typing.Any:
    """Return a field, None if it is unset, empty or of an object not there.

    Reading an unset field of a versioned object raises NotImplementedError.
    """
    if versioned_object is None or field not in versioned_object:
        return None
    value = getattr(versioned_object, field)
    return None if value == '' else value


def _field(vif: 'vif_objects.VIFBase', field: str) -> typing.Any:
    value = _get(vif, field)
    if value is None:
        raise exception.InvalidVif(
            vif=label(vif), reason='its %s is not set' % field)
    return value


def _vif_id(vif: 'vif_objects.VIFBase') -> str:
    vif_id = _get(vif, 'id')
    return '(without id)' if vif_id is None else str(vif_id).lower()


def label(vif: 'vif_objects.VIFBase') -> str:
    """Return how errors shall call a VIF, whatever is unset."""
    return port_values.label(
        _vif_id(vif), _get(vif, 'vif_name') or '(without vif_name)')


def _bridge_name(vif: 'vif_objects.VIFBase') -> typing.Any:
    name = (_get(vif, 'bridge_name')
            or _get(_get(vif, 'network'), 'bridge'))
    if name is None:
        raise exception.InvalidVif(
            vif=label(vif),
            reason='neither bridge_name nor network.bridge is set')
    return name


def _uplink(vif: 'vif_objects.VIFBase', bridge: str,
            config: 'cfg.ConfigOpts.GroupAttr') -> str | None:
    """Return the uplink of a VIF's bridge, None if nobody names one.

    :raises InvalidVif: the VIF names another than the configuration
    """
    uplinks = from_config.uplinks(config)
    network = _get(vif, 'network')
    named = _get(network, 'bridge_interface')
    vlan = None
    if _get(network, 'should_provide_vlan') and (
            named is not None or bridge in uplinks.vlan_interfaces):
        vlan = _vlan(vif)
    own = uplinks.of(bridge, vlan)
    if named is not None and vlan is not None:
        named = names.vlan_device(named, vlan)
    if own is not None and named not in (None, own):
        raise exception.InvalidVif(
            vif=label(vif),
            reason='its network has the bridge_interface %s, and the uplink '
                   'of %s is %s by bridge_uplinks, flat_interface or '
                   'vlan_interface' % (named, bridge, own))
    return own or named


def _vlan(vif: 'vif_objects.VIFBase') -> int:
    """Return the VLAN of a VIF that says that it has one."""
    vlan = _get(_get(vif, 'network'), 'vlan')
    if vlan is None or not names.VLAN_MIN <= vlan <= names.VLAN_MAX:
        raise exception.InvalidVif(
            vif=label(vif),
            reason='its network has should_provide_vlan, and the vlan %s, '
                   'which is no number from %d to %d'
                   % (vlan, names.VLAN_MIN, names.VLAN_MAX))
    return int(vlan)


def _addresses(vif: 'vif_objects.VIFBase') -> tuple[str, ...]:
    """Return the fixed IPs of a VIF, in the order that it has them.

    :raises InvalidVif: one can not be the address of a port
    """
    found: dict[str, None] = {}
    for subnet in _objects(_get(vif, 'network'), 'subnets'):
        for fixed_ip in _objects(subnet, 'ips'):
            try:
                found[rules.require_address(_get(fixed_ip, 'address'))] = None
            except ValueError as error:
                raise exception.InvalidVif(vif=label(vif),
                                           reason='fixed IP: %s' % error)
    return tuple(found)


def _objects(versioned_object: typing.Any,
             field: str) -> typing.Iterable[typing.Any]:
    """Return the objects of a list; none if it is unset."""
    return getattr(_get(versioned_object, field), 'objects', ())


def _mtu(vif: 'vif_objects.VIFBase',
         config: 'cfg.ConfigOpts.GroupAttr') -> int | None:
    mtu: int | None = _get(_get(vif, 'network'), 'mtu')
    if mtu is None:
        mtu = from_config.kept(config, 'network_device_mtu')
    return mtu
