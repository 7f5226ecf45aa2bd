# SPDX-License-Identifier: Apache-2.0

"""The domains of libvirt, as far as TAPs are concerned.

libvirt is asked read-only, which every user may. Its Python binding need not
be installed.
"""

import contextlib
import dataclasses
import os
import typing
from xml.etree import ElementTree

from vif_plug_tapmac.wanted import names

_URI = 'qemu:///system'


class Unknown(Exception):
    """libvirt does not answer, or its binding is not installed."""


@dataclasses.dataclass(frozen=True)
class Nic:
    """A NIC of a domain.

    :param domain: the domain's name
    :param active: whether the domain runs, or is paused
    :param guest_mac: in lower case
    :param queues: how many it has
    :param vif_id: of the port in Neutron, by what Nova writes down in the
        domain; None if it does not
    """
    domain: str
    active: bool
    guest_mac: str
    queues: int
    vif_id: str | None = None


def nics() -> dict[str, Nic]:
    """Return the NICs of all domains, by the name of their TAP.

    Those that are defined and those that run.

    :raises Unknown: the text says why
    """
    with _connection() as connection:
        # Those that run come last, and have the last word.
        return {
            name: nic
            for domain in sorted(connection.listAllDomains(),
                                 key=lambda each: each.isActive())
            for name, nic in _nics(domain.XMLDesc(0),
                                   bool(domain.isActive()))}


def version() -> tuple[int, int, int]:
    """Return the version of the libvirt that runs here.

    :raises Unknown: the text says why
    """
    with _connection() as connection:
        number = connection.getLibVersion()
    return number // 1000000, number // 1000 % 1000, number % 1000


@contextlib.contextmanager
def _connection() -> typing.Iterator[typing.Any]:
    """Ask libvirt where its own commands do: by LIBVIRT_DEFAULT_URI, or here.

    :raises Unknown: also from inside, for what libvirt does not answer
    """
    try:
        import libvirt
    except ImportError:
        raise Unknown('its Python binding (libvirt-python) is not installed '
                      'here')
    # It would print each error besides.
    libvirt.registerErrorHandler(lambda *_: None, None)
    try:
        connection = libvirt.openReadOnly(
            os.environ.get('LIBVIRT_DEFAULT_URI') or _URI)
        try:
            yield connection
        finally:
            connection.close()
    except libvirt.libvirtError as error:
        raise Unknown(str(error))


def _nics(xml: str, active: bool) -> typing.Iterator[tuple[str, Nic]]:
    domain = ElementTree.fromstring(xml)
    # By Nova, in a namespace that has its version.
    vif_ids = {names.nova_tap_name(port.get('uuid', '')): port.get('uuid')
               for port in domain.iterfind('metadata//{*}ports/{*}port')}
    for interface in domain.iterfind('devices/interface'):
        target, address, driver = (interface.find(name)
                                   for name in ('target', 'mac', 'driver'))
        if target is not None and address is not None:
            yield target.get('dev', ''), Nic(
                domain=domain.findtext('name', ''), active=active,
                guest_mac=address.get('address', '').lower(),
                queues=int('1' if driver is None
                           else driver.get('queues', '1')),
                vif_id=vif_ids.get(target.get('dev', '')))
