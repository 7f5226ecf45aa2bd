# SPDX-License-Identifier: Apache-2.0

"""Having Nova's libvirt driver leave the TAPs of linux_bridge to us.

Nova up to 33 tells libvirt to make the TAP of a VIFBridge. From 9.0 on libvirt
refuses one that exists, unless the domain says ``type='ethernet'`` and
``managed='no'``. And Nova tells os-vif nothing about queues, while a TAP opens
in the queue mode it was made with and in no other. Nova has no option for
either, so two methods of its VIF driver are wrapped: the one that writes the
domain's interface, and the one that calls os-vif.
"""

import collections.abc
import contextvars
import functools
import inspect
import typing

from os_vif.objects import vif as vif_objects
from oslo_config import cfg

from vif_plug_tapmac import exception

#: The methods of Nova that we wrap or call, and their parameters.
#: Source: nova/virt/libvirt/vif.py, LibvirtGenericVIFDriver (31.3 to 33.0)
_METHODS = {
    '_set_config_VIFBridge': ('self', 'instance', 'vif', 'conf'),
    '_set_config_VIFGeneric': ('self', 'instance', 'vif', 'conf'),
    '_plug_os_vif': ('self', 'instance', 'vif'),
    'get_base_config': ('self', 'instance', 'mac', 'image_meta', 'flavor',
                        'virt_type', 'vnic_type'),
}

# Tells our wrappers from others': Nova's profiler has some.
_MARK = '_wrapped_by_tapmac'

_multi_queue: contextvars.ContextVar[bool | None] = contextvars.ContextVar(
    'multi_queue', default=None)


def multi_queue() -> bool | None:
    """Return whether the VIF that Nova plugs just now has several queues.

    None if it is not Nova that plugs, or Nova was not wrapped.
    """
    return _multi_queue.get()


def leave_taps_to_us(config: cfg.ConfigOpts.GroupAttr) -> None:
    """Wrap Nova's VIF driver in this process; again: nothing changes.

    Concerns VIFBridge of the plugin linux_bridge only; the hybrid ones of
    other plugins stay as they are.

    :param config: the ``[os_vif_tapmac]`` group
    :raises InvalidConfig: as :func:`require_nova`; nothing was wrapped then
    """
    driver = require_nova(config)
    for name, wrap in (('_set_config_VIFBridge', _wrap_set_config),
                       ('_plug_os_vif', _wrap_plug)):
        original = getattr(driver, name)
        if not hasattr(original, _MARK):
            wrapper = functools.wraps(original)(wrap(original))
            setattr(wrapper, _MARK, True)
            setattr(driver, name, wrapper)


def _invalid(reason: str) -> exception.InvalidConfig:
    return exception.InvalidConfig(
        option='nova_managed_tap', value=True, reason=reason)


def require_nova(config: cfg.ConfigOpts.GroupAttr) -> typing.Any:
    """Return the class of Nova's VIF driver, found to be as we know it.

    :param config: the ``[os_vif_tapmac]`` group
    :raises InvalidConfig: linux_bridge is not claimed, or this Nova is none
        that we know how to wrap
    """
    if 'linux_bridge' not in config.claim_plugins:
        raise _invalid('it needs linux_bridge in claim_plugins')
    try:
        from nova import version
        from nova.virt.libvirt import config as libvirt_config
        from nova.virt.libvirt import vif as libvirt_vif
        driver = libvirt_vif.LibvirtGenericVIFDriver
    except (ImportError, AttributeError) as error:
        raise _invalid('the libvirt driver of Nova cannot be found here (%s); '
                       'switch this option off' % error)
    nova = 'Nova %s' % version.version_string()
    if int(version.version_string().split('.')[0]) >= 34:
        raise _invalid('%s has no VIFs of linux_bridge any more; switch this '
                       'option off, and bind ports for ovs' % nova)
    for name, parameters in _METHODS.items():
        method = inspect.unwrap(getattr(driver, name, _absent))
        if tuple(inspect.signature(method).parameters) != parameters:
            raise _invalid(
                '%s is none that tapmac knows how to have leave TAPs to it: '
                '%s.%s does not have the parameters %s; switch this option '
                'off' % (nova, driver.__name__, name, ', '.join(parameters)))
    if not hasattr(libvirt_config.LibvirtConfigGuestInterface(), 'managed'):
        raise _invalid('%s cannot tell libvirt to leave TAPs alone; switch '
                       'this option off' % nova)
    return driver


def _absent() -> None:
    """Stand for a method that is missing: it has no parameters."""


def _is_ours(vif: typing.Any) -> bool:
    return (vif.plugin == 'linux_bridge'
            and isinstance(vif, vif_objects.VIFBridge))


def _wrap_set_config(
    original: collections.abc.Callable[..., None],
) -> collections.abc.Callable[..., None]:
    def set_config(self: typing.Any, instance: typing.Any, vif: typing.Any,
                   conf: typing.Any) -> None:
        if not _is_ours(vif):
            return original(self, instance, vif, conf)
        self._set_config_VIFGeneric(instance, vif, conf)
        conf.managed = 'no'
        # The image that a guest is rescued with may ask for other queues than
        # its own, and its TAP is not made anew for that. Without a driver no
        # queues get into the domain.
        own = _own_config(self, instance, vif)
        conf.driver_name = own.driver_name
        conf.vhost_queues = own.vhost_queues
        return None
    return set_config


def _wrap_plug(
    original: collections.abc.Callable[..., None],
) -> collections.abc.Callable[..., None]:
    def plug(self: typing.Any, instance: typing.Any, vif: typing.Any) -> None:
        if not _is_ours(vif):
            return original(self, instance, vif)
        queues = _own_config(self, instance, vif).vhost_queues
        token = _multi_queue.set((queues or 1) > 1)
        try:
            return original(self, instance, vif)
        finally:
            _multi_queue.reset(token)
    return plug


def _own_config(driver: typing.Any, instance: typing.Any,
                vif: typing.Any) -> typing.Any:
    """Return what Nova asks libvirt for if the guest boots its own image.

    Its ``vhost_queues`` is the number of queues, None if it is not said: one.
    """
    return driver.get_base_config(
        instance, vif.address, instance.image_meta, instance.flavor,
        cfg.CONF.libvirt.virt_type, 'normal')
