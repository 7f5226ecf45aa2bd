# SPDX-License-Identifier: Apache-2.0

"""The domains of libvirt, as far as TAPs are concerned.

libvirt is asked read-only, which every user may, and in bounded time: it may
accept a connection and never say a word. Its Python binding need not be
installed.
"""

import contextlib
import dataclasses
import os
import typing
from xml.etree import ElementTree

from oslo_config import cfg

from vif_plug_tapmac import bounded
from vif_plug_tapmac.kernel.link import Link
from vif_plug_tapmac.wanted import names

#: Of Nova, as far as they say which libvirt it asks.
_GROUP = 'libvirt'
_OPTIONS = (cfg.StrOpt('connection_uri', default=''),
            cfg.StrOpt('virt_type', default='kvm'))
#: Where it asks if it is not told: by virt_type, and for all others.
#: Source: nova/virt/libvirt/driver.py, LibvirtDriver._uri
_URIS = {'lxc': 'lxc:///', 'parallels': 'parallels:///system'}
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
    :param instance: the domain's UUID, which is that of the instance in Nova;
        None if libvirt does not say
    :param is_limited: whether it asks for a limit of bandwidth
    :param kind: what libvirt makes of it, as "ethernet"
    :param bridge: which libvirt puts its TAP on; None: none
    """
    domain: str
    active: bool
    guest_mac: str
    queues: int
    vif_id: str | None = None
    instance: str | None = None
    is_limited: bool = False
    kind: str = ''
    bridge: str | None = None


@dataclasses.dataclass(frozen=True)
class Answer:
    """What libvirt says of its domains, those that run and those that do not.

    :param uri: which libvirt was asked
    :param domains: how many it has
    :param nics: by the name of their TAP
    :param unread: why it does not tell what one of its domains has, by the
        name of that. A TAP that is in no other domain may be of one of these
    """
    uri: str
    domains: int
    nics: dict[str, Nic]
    unread: dict[str, str] = dataclasses.field(default_factory=dict)

    def doubts(self, taps: typing.Collection[Link]) -> typing.Iterator[str]:
        """Yield why this may not be what there is to be known, in words.

        :param taps: those of tapmac
        """
        if self.unread:
            name, why = min(self.unread.items())
            yield ('libvirt %s does not tell what %d of its %d domains have, '
                   'so a TAP without a domain may be of one of these: %s: %s'
                   % (self.uri, len(self.unread), self.domains, name, why))
        if self.uri != uri_of_service() and cfg.CONF.list_all_sections():
            yield ('libvirt %s is asked, by LIBVIRT_DEFAULT_URI, because no '
                   'file has a section [%s]; nova-compute asks %s then'
                   % (self.uri, _GROUP, uri_of_service()))
        if (not self.unread and any(tap.held for tap in taps)
                and self.nics.keys().isdisjoint(tap.name for tap in taps)):
            yield ('libvirt %s has no domain with a TAP of tapmac, and '
                   'somebody holds one here, so it may be another than that '
                   'of the guests. Remedy: correct connection_uri in [%s] of '
                   'the configuration of nova-compute' % (self.uri, _GROUP))


def uri_of_service() -> str:
    """Return which libvirt nova-compute asks, by its configuration.

    That is what was read last, by whichever command runs here.
    """
    # Nova has its own where it is loaded, as by tapmac-status.
    with contextlib.suppress(cfg.DuplicateOptError):
        cfg.CONF.register_opts(_OPTIONS, group=_GROUP)
    options = cfg.CONF[_GROUP]
    return str(options.connection_uri
               or _URIS.get(options.virt_type, _URI))


def uri() -> str:
    """Return which libvirt is asked here: the service's.

    Where no file has a section for it, as where Nova is not here at all,
    LIBVIRT_DEFAULT_URI counts, as it does for libvirt's own commands.
    """
    by_service = uri_of_service()
    if _GROUP in cfg.CONF.list_all_sections():
        return by_service
    return os.environ.get('LIBVIRT_DEFAULT_URI') or by_service


def ask() -> bounded.Question:
    """Have libvirt asked for the NICs of all domains; see :func:`answer`."""
    return bounded.Question(_ask_for_nics, uri())


def answer(question: bounded.Question | None = None) -> Answer:
    """Return what libvirt says of its domains.

    :param question: what :func:`ask` returned; None: it is asked now
    :raises Unknown: the text says why, and after how many seconds
    """
    with _unknown():
        asked, count, found, unread = (question or ask()).answer()
        return Answer(asked, count, {
            name: Nic(*fields) for name, *fields in found}, unread)


def version() -> tuple[int, int, int]:
    """Return the version of the libvirt that runs here.

    :raises Unknown: the text says why, and after how many seconds
    """
    with _unknown():
        number = bounded.ask(_ask_for_version, uri())
    return number // 1000000, number // 1000 % 1000, number % 1000


@contextlib.contextmanager
def _unknown() -> typing.Iterator[None]:
    try:
        yield
    except bounded.Unanswered as error:
        raise Unknown('%s: %s' % (uri(), error))


def _ask_for_nics(
    asked: str,
) -> tuple[str, int, list[tuple[typing.Any, ...]], dict[str, str]]:
    """Return what an :class:`Answer` is made of.

    For each NIC, the name of its TAP with what its :class:`Nic` is made of.
    """
    found, count = [], 0
    unread: dict[str, str] = {}
    with _connection(asked) as (libvirt, connection):
        for domain in connection.listAllDomains():
            try:
                active = bool(domain.isActive())
                found += [(active, name, *dataclasses.astuple(nic))
                          for name, nic in _nics(domain.XMLDesc(0), active)]
            except libvirt.libvirtError as error:
                # It is gone since the list was made.
                if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                    continue
                unread[domain.name()] = str(error)
            except (ElementTree.ParseError, ValueError) as error:
                unread[domain.name()] = 'not understood: %s' % error
            count += 1
    # Those that run come last, and have the last word.
    return asked, count, [each[1:] for each in sorted(
        found, key=lambda each: each[0])], unread


def _ask_for_version(asked: str) -> int:
    with _connection(asked) as (_, connection):
        return int(connection.getLibVersion())


@contextlib.contextmanager
def _connection(
    asked: str,
) -> typing.Iterator[tuple[typing.Any, typing.Any]]:
    """Ask libvirt.

    :returns: the module of its binding, and the connection
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
        connection = libvirt.openReadOnly(asked)
        try:
            yield libvirt, connection
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
                vif_id=vif_ids.get(target.get('dev', '')),
                instance=domain.findtext('uuid'),
                is_limited=interface.find('bandwidth') is not None,
                kind=interface.get('type', ''), bridge=_bridge(interface))


def _bridge(interface: ElementTree.Element) -> str | None:
    source = interface.find('source')
    return None if source is None else source.get('bridge')
