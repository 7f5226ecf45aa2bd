# SPDX-License-Identifier: Apache-2.0

"""What the tests inside a Nova stand on."""

import typing
from unittest import mock

from lxml import etree
from nova import context
from nova.network import model
from nova.network import neutron
from nova import objects
from nova import version
from nova.virt.libvirt import vif as libvirt_vif
import os_vif

from tests import base
from tests import bound_port

#: Which Nova this is, as in 33.
NOVA = int(version.version_string().split('.')[0])

#: Where Nova has the TAP of make_hybrid_vif().
HYBRID_BRIDGE = ('qbr' + base.VIF_ID)[:14]

_UNWRAPPED = {
    method: getattr(libvirt_vif.LibvirtGenericVIFDriver, method)
    for method in ('_set_config_VIFBridge', '_plug_os_vif')}

objects.register_all()


def make_bridge_vif(**details: typing.Any) -> model.VIF:
    """Return a port that a Linux bridge driver has bound (up to Nova 33)."""
    return make_vif(model.VIF_TYPE_BRIDGE, **details)


def make_ovs_vif(**details: typing.Any) -> model.VIF:
    """Return a port that our mechanism driver has bound as one of ovs."""
    return make_vif(model.VIF_TYPE_OVS, **dict(
        bound_port.BINDING['binding:vif_details'], **details))


def make_neutron_vif(
        port: typing.Mapping[str, typing.Any] = bound_port.PORT,
        network: typing.Mapping[str, typing.Any] = bound_port.NETWORK,
) -> model.VIF:
    """Return a port of Neutron's answer as Nova's own code reads it."""
    client = mock.Mock(spec=['list_extensions', 'show_network'])
    client.list_extensions.return_value = {'extensions': []}
    client.show_network.return_value = {'network': network}
    with mock.patch.object(neutron, 'get_client', return_value=client):
        vif = neutron.API()._build_vif_model(
            context.get_admin_context(), client, port, [network], [])
    assert isinstance(vif, model.VIF)
    return vif


def make_hybrid_vif() -> model.VIF:
    """Return a port of Open vSwitch with a Linux bridge for its firewall."""
    return make_vif(model.VIF_TYPE_OVS, ovs_hybrid_plug=True)


def make_vif(kind: str, **details: typing.Any) -> model.VIF:
    """Return a port on br100, as Nova keeps it when Neutron has bound it.

    Source: nova/network/neutron.py, _build_vif_model (33.0.2)

    :param kind: the VIF type of its binding
    """
    return model.VIF(
        id=base.VIF_ID, address=base.GUEST_MAC, type=kind, details=details,
        devname=base.TAP, ovs_interfaceid=base.VIF_ID, active=True,
        profile={}, delegate_create=True, network=model.Network(
            id='5d6a7b8c-0000-4000-8000-000000000000', label='demo',
            bridge=base.BRIDGE, mtu=1450))


def make_instance(vcpus: int = 1, **extra_specs: str) -> objects.Instance:
    """Return a guest whose flavor has these extra specs.

    :param extra_specs: with "__" for the colon that Python does not admit
    """
    flavor = objects.Flavor(
        id=1, flavorid='1', name='tiny', vcpus=vcpus, memory_mb=1, root_gb=0,
        extra_specs={key.replace('__', ':'): value
                     for key, value in extra_specs.items()})
    return objects.Instance(
        id=1, uuid=base.INSTANCE.uuid, project_id='demo', user_id='demo',
        display_name='demo', image_ref='', flavor=flavor,
        system_metadata={})


def make_multiqueue_instance(vcpus: int = 4) -> objects.Instance:
    return make_instance(vcpus, hw__vif_multiqueue_enabled='true')


def unwrap_driver() -> None:
    """Undo what nova_managed_tap wraps, as the end of a process does."""
    for method, original in _UNWRAPPED.items():
        setattr(libvirt_vif.LibvirtGenericVIFDriver, method, original)


class NovaTestCase(base.FunctionalTestCase):
    """A guest that Nova's libvirt driver boots, but for libvirt itself."""

    #: Options of [os_vif_tapmac].
    OPTIONS: dict[str, typing.Any] = {}

    def setUp(self) -> None:
        super().setUp()
        self.use_virt_type('kvm')
        self.start_nova(**self.OPTIONS)
        self.vif = self.make_vif()
        self.instance = make_instance()

    def make_vif(self) -> model.VIF:
        return make_bridge_vif()

    def start_nova(self, **options: typing.Any) -> None:
        """Do what nova-compute does before it plugs, in the same order."""
        unwrap_driver()
        self.configure(**options)
        os_vif.initialize(reset=True)
        self.driver = libvirt_vif.LibvirtGenericVIFDriver()

    def use_virt_type(self, virt_type: str) -> None:
        self.config.config(group='libvirt', virt_type=virt_type)

    def plug(self) -> None:
        self.driver.plug(self.instance, self.vif)

    def unplug(self) -> None:
        self.driver.unplug(self.instance, self.vif)

    def xml(self, image: objects.ImageMeta | None = None) -> typing.Any:
        """Return the <interface> that Nova hands to libvirt.

        :param image: one to rescue the guest with, None for its own
        """
        config = self.driver.get_config(
            self.instance, self.vif, image or self.instance.image_meta,
            self.instance.flavor, self.config.conf.libvirt.virt_type)
        return etree.fromstring(config.to_xml())

    def queues(self, image: objects.ImageMeta | None = None) -> int | None:
        """Return how many queues Nova asks libvirt for, None if it does not.

        Without a number it is one.
        """
        driver = self.xml(image).find('driver')
        queues = None if driver is None else driver.get('queues')
        return None if queues is None else int(queues)

    def assert_libvirt_makes_the_tap(self, bridge: str = base.BRIDGE) -> None:
        """Expect XML with which libvirt refuses a TAP that exists."""
        self.assert_interface('bridge', {'bridge': bridge}, {})

    def assert_libvirt_finds_the_tap(self) -> None:
        """Expect XML with which libvirt uses a TAP as it is."""
        self.assert_interface('ethernet', None, {'managed': 'no'})

    def assert_interface(self, kind: str, source: dict[str, str] | None,
                         target: dict[str, str]) -> None:
        xml = self.xml()
        found = xml.find('source')
        self.assertEqual(kind, xml.get('type'))
        self.assertEqual(source, None if found is None else found.attrib)
        self.assertEqual(dict({'dev': self.vif['devname']}, **target),
                         xml.find('target').attrib)
        self.assertEqual(base.GUEST_MAC, xml.find('mac').get('address'))
        self.assertEqual('1450', xml.find('mtu').get('size'))

    def assert_bridge_is_ours(self, name: str = base.BRIDGE) -> None:
        bridge = self.host.link(name)
        self.assertEqual((29794, 'tapmac:bridge:1', True),
                         (bridge.group, bridge.alias, bridge.up))
