# SPDX-License-Identifier: Apache-2.0

"""All that matters to guests' TAPs on this host, seen at one time.

Reading it takes one dump of links, whatever the number of ports.
"""

import dataclasses
import functools
import time
import typing
import uuid

from oslo_config import cfg
from oslo_log import log as logging

from vif_plug_tapmac import bounded
from vif_plug_tapmac import exception
from vif_plug_tapmac.host import domains
from vif_plug_tapmac.host import other_bridges
from vif_plug_tapmac.host import services
from vif_plug_tapmac.host.tap import Tap
from vif_plug_tapmac.kernel import bridge as bridges
from vif_plug_tapmac.kernel.fdb import PlacedEntry
from vif_plug_tapmac.kernel import filter_drops
from vif_plug_tapmac.kernel import filter_state
from vif_plug_tapmac.kernel.link import Link
from vif_plug_tapmac.kernel import netlink as nl
from vif_plug_tapmac.kernel import nftables
from vif_plug_tapmac.kernel import queueing
from vif_plug_tapmac.kernel import strangers
from vif_plug_tapmac import mark
from vif_plug_tapmac.wanted import from_config
from vif_plug_tapmac.wanted import names
from vif_plug_tapmac.wanted.port import Groups
from vif_plug_tapmac.wanted.uplinks import Uplinks

LOG = logging.getLogger(__name__)

#: How long a TAP has no name, in seconds, before it goes or gets it back: a
#: purge takes that long with a thousand. And between two looks at it.
_DELETED_WITHIN, _PAUSE = 3.0, 0.1
#: In seconds: how long other people's chains are looked at.
_LOOKS_FOR = 1.0
#: When a TAP without its name was first seen, by its index and name.
_first_seen: dict[tuple[int, str], float] = {}


@dataclasses.dataclass(frozen=True)
class Inventory:
    """What was seen.

    :param links: all of them, by index
    :param addresses: of links, by index
    :param link_group: of TAPs, by the configuration
    :param filtered_group: of those whose guests are kept to their addresses
    :param agent_group: of those of which an agent says what passes
    :param bridge_group: of bridges, by the configuration
    :param wanted: what the configuration says of each port, by the fields of
        a TapPort; None if it can't be used
    :param uplinks: by the configuration, None if that can't be used
    :param ask: returns what :attr:`libvirt` is, and is called once at most
    :param all_bridges: whether those that do not concern us are among
        :attr:`bridges`, too, but for those of containers
    :param allowed_bridges, service: see :class:`services.Services`
    """
    links: dict[int, Link]
    addresses: dict[int, list[str]]
    link_group: int
    filtered_group: int
    agent_group: int
    bridge_group: int
    wanted: dict[str, typing.Any] | None
    uplinks: Uplinks | None
    ask: typing.Callable[[], domains.Answer | None]
    all_bridges: bool = False
    allowed_bridges: tuple[str, ...] = ('*',)
    service: str = ''

    @functools.cached_property
    def services(self) -> services.Services:
        """What tells another service's from ours."""
        return services.Services(self, self.allowed_bridges, self.service)

    @property
    def groups(self) -> Groups:
        """Those that our TAPs are in."""
        return Groups(self.link_group, self.filtered_group, self.agent_group)

    @property
    def is_of_agent(self) -> bool:
        """Whether an agent is to say what passes."""
        return bool(self.wanted and self.wanted['firewall'] == 'agent')

    @property
    def is_filtering(self) -> bool:
        """Whether guests are to be kept to their addresses."""
        return not self.is_of_agent and bool(
            self.wanted and self.wanted['anti_spoofing'] == 'full')

    @property
    def group(self) -> int:
        """The one that our TAPs are to be in."""
        return (self.agent_group if self.is_of_agent else self.filtered_group
                if self.is_filtering else self.link_group)

    @property
    def right_groups(self) -> tuple[int, ...]:
        """Those that they may be in, as far as their mark is concerned.

        One that is not filtered yet is for another check.
        """
        if self.is_of_agent:
            return self.groups
        return self.groups[:1 + self.is_filtering]

    @functools.cached_property
    def guest_filter(self) -> filter_state.State | None:
        """The table that keeps guests to their addresses.

        None if this process may not ask for it, or the kernel has none.
        """
        try:
            return filter_state.state()
        except exception.KernelRefused as error:
            LOG.debug('The table of guests is not known: %s', error)
            return None

    @functools.cached_property
    def drops(self) -> dict[int, dict[str, tuple[int, int]]] | None:
        """What that has dropped, by the index of the port, and why.

        Packets and bytes; None as above.
        """
        try:
            return filter_drops.drops()
        except exception.KernelRefused as error:
            LOG.debug('What is dropped is not known: %s', error)
        return None

    @functools.cached_property
    def libvirt(self) -> domains.Answer | None:
        """What libvirt says of its domains.

        None if it does not answer. That, and any doubt, is said once.
        """
        found = self.ask()
        for doubt in () if found is None else found.doubts(
                [self.links[index] for index in self._ours]):
            _warn(doubt)
        return found

    @property
    def knows_domains(self) -> bool:
        """Whether libvirt tells of all of its domains."""
        return bool(self.libvirt and not self.libvirt.unread)

    @property
    def nics(self) -> dict[str, domains.Nic] | None:
        """The NICs of libvirt's domains, by the name of their TAP."""
        return None if self.libvirt is None else self.libvirt.nics

    @functools.cached_property
    def indices(self) -> dict[str, int]:
        """The index of each link, by its name."""
        return {link.name: link.index for link in self.links.values()}

    @functools.cached_property
    def half_deleted(self) -> list[Link]:
        """The TAPs that somebody was deleting, and left so.

        To know it, they are looked at again, for as long as it may take; once
        in a process.
        """
        left = [link for link in self.links.values()
                if link.is_tap and link.lost_name is not None]
        for link in left:
            _first_seen.setdefault((link.index, link.name), time.monotonic())
        deadline = _DELETED_WITHIN + max(
            (_first_seen[link.index, link.name] for link in left), default=0)
        with nl.Netlink() as netlink:
            while left and time.monotonic() < deadline:
                time.sleep(_PAUSE)
                left = [link for link in left for now in [netlink.get(
                    link.index, link.name)] if now and now.name == link.name]
        return left

    @functools.cached_property
    def fixed_macs(self) -> set[tuple[int, str]]:
        """Where bridges send frames for good: index of the port, MAC."""
        with nl.Netlink() as netlink:
            return netlink.fixed_macs()

    @functools.cached_property
    def fixed_entries(self) -> set[tuple[int, str, int]]:
        """The same, each with its VLAN."""
        with nl.Netlink() as netlink:
            return netlink.fixed_entries()

    @functools.cached_property
    def fdb_entries(self) -> list[PlacedEntry]:
        """All entries of all bridges."""
        with nl.Netlink() as netlink:
            return strangers.entries(netlink, None)

    @functools.cached_property
    def queueing(self) -> dict[int, list[str]]:
        """How what goes out of each link is queued, by its index."""
        return queueing.kinds()

    @functools.cached_property
    def chains_of_devices(self) -> list[nftables.OfDevice]:
        """What nftables has before all else, by device."""
        return nftables.chains_of_devices(_LOOKS_FOR)

    @functools.cached_property
    def heard(self) -> dict[str, set[tuple[int, int]]]:
        """Where each MAC was heard: index of the port, VLAN."""
        found: dict[str, set[tuple[int, int]]] = {}
        for entry in self.fdb_entries:
            if not entry.stays:
                found.setdefault(entry.mac, set()).add((entry.index,
                                                        entry.vlan))
        return found

    @functools.cached_property
    def _vlans(self) -> dict[int, set[int]]:
        with nl.Netlink() as netlink:
            return netlink.vlans_of_ports()

    def vlans(self, tap: Tap) -> set[int] | None:
        """Return the VLANs of a TAP; None: its bridge does not filter them."""
        if tap.bridge is None or not tap.bridge.vlan_filtering:
            return None
        return self._vlans.get(tap.link.index, set())

    @functools.cached_property
    def taps(self) -> list[Tap]:
        """Our TAPs, and all others on bridges that have any; by name."""
        on_bridges = {bridge.index for bridge in self.bridges}
        return [self._tap(link) for link in sorted(self.links.values(),
                                                   key=lambda each: each.name)
                if link.is_tap and (link.index in self._ours
                                    or link.master in on_bridges)]

    @functools.cached_property
    def _ours(self) -> set[int]:
        return {link.index for link in self.links.values() if link.is_tap
                and (mark.TapMark.parse(link.alias) is not None
                     or mark.is_lost(link, self.groups))}

    def bridge(self, name: str) -> Link | None:
        """Return the bridge of this name, None if there is none."""
        link = self.by_name.get(name)
        return link if link is not None and link.kind == 'bridge' else None

    def _tap(self, link: Link) -> Tap:
        return Tap(link=link, mark=mark.TapMark.parse(link.alias),
                   bridge=self.links.get(link.master or 0),
                   addresses=tuple(self.addresses.get(link.index, ())),
                   seen=self)

    @functools.cached_property
    def bridges(self) -> list[Link]:
        """Those that concern us, or are asked for besides; by name."""
        return sorted(
            (link for link in self.links.values() if link.kind == 'bridge'
             and (self.concerns(link) or self.all_bridges
                  and not other_bridges.is_of_containers(
                      link, self.ports(link)))), key=lambda each: each.name)

    def concerns(self, bridge: Link) -> bool:
        """Return whether a bridge concerns us.

        tapmac made it, it has TAPs of ours, or interfaces, or the
        configuration has an uplink for it.
        """
        return (self.is_ours(bridge) or bridge.index in self._with_ours
                or self.uplinks is not None
                and bridge.name in self.uplinks.uplinks)

    @functools.cached_property
    def _with_ours(self) -> set[int | None]:
        return {*(self.links[index].master for index in self._ours),
                *(link.master for link in self.interfaces)}

    @functools.cached_property
    def interfaces(self) -> list[Link]:
        """The ends of interfaces of Neutron's own agents; by name."""
        return sorted(filter(mark.is_interface, self.links.values()),
                      key=lambda each: each.name)

    @functools.cached_property
    def by_name(self) -> dict[str, Link]:
        """All links, by name."""
        return {link.name: link for link in self.links.values()}

    @functools.cached_property
    def _by_altname(self) -> dict[str, Link]:
        return {name: link for link in self.links.values()
                for name in link.altnames}

    def named(self, name: str) -> Link | None:
        """Return the link of this name, or that has it beside its own."""
        return self.by_name.get(name) or self._by_altname.get(name)

    def uplink(self, bridge: Link) -> tuple[str, Link | None] | None:
        """Return what is to connect a bridge with the wire: name and link.

        :returns: no link if there is none; None if nobody names one
        """
        name = self.uplinks and self.uplinks.of(bridge.name)
        return None if not name else (name, self.named(name))

    def joined_uplink(self, bridge: Link) -> tuple[str, Link | None]:
        """Return name and link of the uplink if it is a port of its bridge."""
        name, link = self.uplink(bridge) or ('', None)
        joined = link is not None and link.master == bridge.index
        return name, link if joined else None

    @functools.cached_property
    def _ports(self) -> dict[int, list[Link]]:
        found: dict[int, list[Link]] = {}
        for link in self.links.values():
            if link.master is not None:
                found.setdefault(link.master, []).append(link)
        return found

    def ports(self, bridge: Link) -> list[Link]:
        """Return the ports of a bridge."""
        return self._ports.get(bridge.index, [])

    def with_links(self, links: dict[int, Link]) -> 'Inventory':
        """Return the same but for the links, asking nobody."""
        return dataclasses.replace(self, links=links)

    def with_answer(self, answer: domains.Answer | None) -> 'Inventory':
        """Return the same with what libvirt says of domains."""
        return dataclasses.replace(self, ask=lambda: answer)

    def is_ours(self, bridge: Link) -> bool:
        """Return whether tapmac made this bridge."""
        return bridges.is_ours(bridge, self.bridge_group)

    def find(self, what: str) -> list[Tap]:
        """Return our TAPs of this name, VIF id, guest's or own MAC.

        One that was renamed by its former name, too, and one that lost its
        mark by each VIF id that it can be of.
        """
        what = what.lower()
        return [tap for tap in self.taps if tap.is_ours and (
            what in (tap.name.lower(), tap.link.name.lower(), tap.vif_id,
                     tap.guest_mac, tap.link.mac, tap.name_by_nova)
            or tap.vif_id is None and len(what) == len(str(uuid.UUID(int=0)))
            and names.nova_tap_name(what) == tap.link.name)]


def read(config: cfg.ConfigOpts.GroupAttr,
         all_bridges: bool = False) -> Inventory:
    """Look at this host.

    :param config: the ``[os_vif_tapmac]`` group
    :param all_bridges: see :class:`Inventory`
    """
    with nl.Netlink() as netlink:
        links = {link.index: link for link in netlink.links()}
        addresses = netlink.all_addresses()
    wanted, uplinks = None, None
    try:
        wanted = from_config.port_fields(config)
        uplinks = from_config.uplinks(config)
    except exception.InvalidConfig as error:
        LOG.debug('The configuration can not be used: %s', error)
    return Inventory(links=links, addresses=addresses,
                     link_group=config.link_group,
                     filtered_group=config.filtered_group,
                     agent_group=config.agent_group,
                     bridge_group=config.bridge_group, wanted=wanted,
                     uplinks=uplinks, ask=answer, all_bridges=all_bridges,
                     allowed_bridges=tuple(config.allowed_bridges),
                     service=from_config.service(cfg.CONF))


def answer(question: bounded.Question | None = None) -> domains.Answer | None:
    """Return what libvirt says: see :func:`domains.answer`.

    :returns: None if it does not answer, which is said once as a warning
    """
    try:
        return domains.answer(question)
    except domains.Unknown as error:
        _warn('libvirt does not answer, so nothing is known of domains: %s'
              % error)
        return None


@functools.cache
def _warn(text: str) -> None:
    LOG.warning('%s', text)
