# SPDX-License-Identifier: Apache-2.0

"""What libvirt 9 and newer does with the TAPs of a guest, on a real kernel.

Nova's own stand-in for libvirt keeps domains in memory and knows no TAPs.
Here each connection belongs to a host, and a domain that runs holds the TAPs
of its interfaces there, as QEMU would. Who makes a TAP, and what must be there
before a domain starts, goes by the XML of the interface:

- ``bridge``: libvirt makes the TAP, and takes it away when the domain ends;
  one that is there already is an error;
- ``ethernet`` with ``managed='no'``: the TAP must be there, in the queue mode
  that the XML asks for; libvirt opens it, and closes it in the end;
- any other ``ethernet``: libvirt makes the TAP, on no bridge; one that is
  there already is an error, and gone afterwards.

Source: libvirt 9.0.0, src/util/virnetdevtap.c and src/qemu/qemu_interface.c,
and what it did with a real QEMU.
"""

import copy
import re

from lxml import etree
from nova.tests.fixtures import libvirt as fakelibvirt
from nova.virt.libvirt import event as libvirt_event

from tests import hosts
from vif_plug_tapmac.kernel import netlink as nl

_XML_INACTIVE = 2
_AFFECT_LIVE = 1
_AFFECT_CONFIG = 2


def _error(message):
    return fakelibvirt.make_libvirtError(
        fakelibvirt.libvirtError, message,
        error_code=fakelibvirt.VIR_ERR_INTERNAL_ERROR,
        error_message=message, error_domain=fakelibvirt.VIR_FROM_QEMU)


class Interface:
    """An interface of a domain that runs, and the TAP it holds."""

    def __init__(self, element):
        self.element = copy.deepcopy(element)
        self.mac = element.find('mac').get('address')
        self.tap = element.find('target').get('dev')
        self._queues = []

    @property
    def _makes_tap(self):
        """Whether libvirt does, and not somebody before it."""
        return not (self.element.get('type') == 'ethernet'
                    and self.element.find('target').get('managed') == 'no')

    @property
    def queues(self):
        """How many queues the guest asks for."""
        driver = self.element.find('driver')
        return 1 if driver is None else int(driver.get('queues', 1))

    def open(self, host):
        """Hold the TAP, having made it if that is libvirt's part."""
        with host.entered(), nl.Netlink() as netlink:
            found = netlink.find(self.tap)
            if not self._makes_tap and found is None:
                raise _error('Unable to open %s: specified dev does not exist'
                             % self.tap)
            if self._makes_tap and found is not None:
                if self.element.get('type') == 'ethernet':
                    netlink.delete(found)
                raise _error('The %s interface already exists' % self.tap)
            try:
                self._open_queues()
                if self._makes_tap:
                    self._finish(netlink)
            except Exception:
                self._close_queues()
                raise

    def close(self, host):
        """Let go of the TAP; one that libvirt made goes with that."""
        with host.entered():
            self._close_queues()

    def _open_queues(self):
        mode = hosts.IFF_MULTI_QUEUE if self.queues > 1 else 0
        try:
            for _ in range(self.queues):
                self._queues.append(hosts.Guest(
                    self.tap, self.mac, hosts.IFF_TAP | mode))
        except OSError as error:
            raise _error('Unable to create tap device %s: %s' % (
                self.tap, error.strerror))

    def _close_queues(self):
        while self._queues:
            self._queues.pop().close()

    def _finish(self, netlink):
        link = netlink.find(self.tap)
        wanted = {'mac': 'fe' + self.mac[2:], 'up': True}
        source = self.element.find('source')
        if self.element.get('type') == 'bridge':
            bridge = netlink.find(source.get('bridge'))
            if bridge is None:
                raise _error('Cannot get interface MTU on \'%s\': No such '
                             'device' % source.get('bridge'))
            wanted.update(master=bridge.index, mtu=bridge.mtu)
        mtu = self.element.find('mtu')
        if mtu is not None:
            wanted['mtu'] = int(mtu.get('size'))
        netlink.change(link, wanted)


class Connection(fakelibvirt.Connection):
    """The libvirt of one host.

    :ivar host: where its domains hold their TAPs
    :ivar peers: the connections of all hosts, by host name
    :ivar live: the interfaces of each domain that runs, by its name; libvirt
        keeps what a domain was started with beside what it is defined as
    :ivar driver: Nova's, to be told that a device is gone; None as long as
        there is none
    :ivar fails_migration: whether a guest that leaves here comes back
    """

    def __init__(self, *args, hosts, peers, **kwargs):
        super().__init__(*args, **kwargs)
        self.host = hosts[self.hostname]
        self.peers = peers
        self.live = {}
        self.driver = None
        self.fails_migration = False
        peers[self.hostname] = self

    def defineXML(self, xml):
        """Define a domain, or what one that runs is to be next time."""
        name = etree.fromstring(xml).findtext('name')
        known = self._vms.get(name)
        if known is None or name not in self.live:
            return super().defineXML(xml)
        known.redefine(xml)
        return known

    def createXML(self, xml, flags):
        raise NotImplementedError('Nova starts no transient domains')

    def start(self, name, elements):
        """Have a domain hold all of its TAPs, or none."""
        interfaces = []
        try:
            for element in elements:
                interface = Interface(element)
                interface.open(self.host)
                interfaces.append(interface)
        except Exception:
            for interface in interfaces:
                interface.close(self.host)
            raise
        self.live[name] = interfaces

    def stop(self, name):
        for interface in self.live.pop(name, []):
            interface.close(self.host)

    def power_off(self):
        """End all domains as if the host lost its power."""
        for name in list(self.live):
            self._vms[name].destroy()


class Domain(fakelibvirt.Domain):
    """A domain whose interfaces are what its XML says."""

    def _parse_definition(self, xml):
        self._elements = [
            _complete(element, number) for number, element
            in enumerate(etree.fromstring(xml).findall('devices/interface'))]
        return super()._parse_definition(xml)

    def redefine(self, xml):
        self._def = self._parse_definition(xml)

    @property
    def _live(self):
        return self._connection.live.get(self.name())

    def XMLDesc(self, flags):
        """Return the XML, with the interfaces as they were given."""
        domain = etree.fromstring(super().XMLDesc(flags))
        devices = domain.find('devices')
        for element in devices.findall('interface'):
            devices.remove(element)
        elements = self._elements
        if self._live is not None and not flags & _XML_INACTIVE:
            elements = [interface.element for interface in self._live]
        devices.extend(copy.deepcopy(element) for element in elements)
        return etree.tostring(domain, encoding='unicode')

    def createWithFlags(self, flags):
        self._connection.start(self.name(), self._elements)
        super().createWithFlags(flags)

    def destroy(self):
        self._connection.stop(self.name())
        super().destroy()

    def shutdown(self):
        self._connection.stop(self.name())
        super().shutdown()

    def managedSave(self, flags):
        # The process ends here too.
        self._connection.stop(self.name())
        super().managedSave(flags)
        self._state = fakelibvirt.VIR_DOMAIN_SHUTOFF

    def attachDeviceFlags(self, xml, flags):
        """Attach a device to what runs, to what is defined, or to both."""
        if not xml.startswith('<interface'):
            return super().attachDeviceFlags(xml, flags)
        element = _complete(etree.fromstring(xml), len(self._elements))
        if flags & _AFFECT_LIVE:
            interface = Interface(element)
            interface.open(self._connection.host)
            self._live.append(interface)
        if flags & _AFFECT_CONFIG:
            self._elements.append(element)

    def detachDeviceFlags(self, xml, flags):
        """Detach a device; the guest lets go of it at once."""
        if not xml.startswith('<interface'):
            return super().detachDeviceFlags(xml, flags)
        mac = etree.fromstring(xml).find('mac').get('address')
        if flags & _AFFECT_CONFIG:
            self._elements = [element for element in self._elements
                              if element.find('mac').get('address') != mac]
        if flags & _AFFECT_LIVE:
            interface, = [interface for interface in self._live
                          if interface.mac == mac]
            interface.close(self._connection.host)
            self._live.remove(interface)
            self._connection.driver.emit_event(
                libvirt_event.DeviceRemovedEvent(
                    self.UUIDString(), interface.element.find(
                        'alias').get('name')))

    def migrateToURI3(self, dconnuri, params, flags):
        """Move the guest; both hosts hold its TAPs for a moment.

        If it fails, it does so when the guest is all there, just before it
        would run.
        """
        self._job_type = fakelibvirt.VIR_DOMAIN_JOB_UNBOUNDED
        host = re.search('//([^/]+)/', dconnuri).group(1)
        target = self._connection.peers[host]
        guest = target.defineXML(params['destination_xml'])
        try:
            guest.create()
        except Exception:
            target._undefine(guest)
            self._job_type = fakelibvirt.VIR_DOMAIN_JOB_NONE
            raise
        if self._connection.fails_migration:
            guest.destroy()
            guest.undefine()
            self._job_type = fakelibvirt.VIR_DOMAIN_JOB_NONE
            raise _error('operation failed: migration job: unexpectedly '
                         'failed')
        self.destroy()
        self.undefine()
        self.complete_job()


def _complete(element, number):
    """Return an interface with what libvirt adds to it."""
    if element.find('alias') is None:
        etree.SubElement(element, 'alias', name='net%d' % number)
    if element.find('address') is None:
        etree.SubElement(element, 'address', type='pci', domain='0x0000',
                         bus='0x00', slot='0x03', function='0x%x' % number)
    return element
