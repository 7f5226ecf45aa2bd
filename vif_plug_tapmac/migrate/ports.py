# SPDX-License-Identifier: Apache-2.0

"""How a port is bound, what becomes of it, and what stops that. Pure.

A port, here, is what openstacksdk makes of Neutron's; a network, too.
"""

import dataclasses
import typing

#: The mechanism driver of this package.
OURS = 'tapmac'
#: The one that Neutron had until its release 25.
_LINUX_BRIDGE = 'linuxbridge'

#: In the profile of a port, between the two requests that have it bound anew.
MARK = 'tapmac-migrate'

_BRIDGE, _OVS = 'bridge', 'ovs'
_UNBOUND = ('unbound', 'binding_failed')
#: Owners of ports that no compute service plugs.
_NOT_PLUGGED = ('network:', 'trunk:subport')
#: Networks that have a bridge.
_OUR_NETWORKS = ('flat', 'vlan')

#: nova-api from its release 33, and from 34 on, knows these microversions.
_NOVA_33, _NOVA_34 = (2, 101), (2, 104)

STAYS, REBOUND, NOT_SERVED = 'stays', 're-bound', 'not served by tapmac'


@dataclasses.dataclass(frozen=True)
class Binding:
    """How a port is, or would be, bound.

    :param vif_type: Neutron's; None: not known
    :param bridge: that Nova would plug it into; None: none, or not known
    :param driver: the mechanism driver; None: none
    :param has_agent: whether it is ours, and tapmac-agent of its host is to
        guard it
    """
    vif_type: str | None
    bridge: str | None = None
    driver: str | None = None
    has_agent: bool = False

    @classmethod
    def of(cls, port: typing.Any) -> 'Binding':
        """Return how a port is bound now."""
        details = port.binding_vif_details or {}
        drivers = details.get('bound_drivers') or {}
        bridge = details.get('bridge_name')
        if bridge is None and port.binding_vif_type == _BRIDGE:
            # As Nova has it, and the Linux bridge agent.
            bridge = 'brq' + port.network_id[:11]
        driver = drivers.get(max(drivers, default=''))
        return cls(port.binding_vif_type, bridge, driver,
                   driver == OURS and bool(details.get('port_filter')))

    @property
    def is_ours(self) -> bool:
        return self.driver == OURS

    @property
    def is_old(self) -> bool:
        """Whether it is one of Linux bridges, and not ours."""
        return self.vif_type == _BRIDGE and not self.is_ours

    def __str__(self) -> str:
        return '%s%s%s%s' % (
            self.vif_type or 'ovs or bridge',
            ' on %s' % self.bridge if self.bridge else '',
            ' by %s' % self.driver if self.driver else '',
            ' with tapmac-agent' if self.has_agent else '')


def profile(port: typing.Any) -> dict[str, typing.Any]:
    """Return the profile that a port has without us."""
    found = dict(port.binding_profile or {})
    found.pop(MARK, None)
    if getattr(port, 'trusted', None) is not None:
        # A field of the port, which Neutron shows there, too.
        found.pop('trusted', None)
    return found


def is_marked(port: typing.Any) -> bool:
    """Return whether somebody began to have a port bound anew."""
    return MARK in (port.binding_profile or {})


class Facts(typing.NamedTuple):
    """What is known beside the port itself.

    :ivar network: that it belongs to; None: it is gone
    :ivar becomes: how a driver would bind it now; None: not known
    :ivar refusal: why nobody would, None: somebody would, or not known
    :ivar beside: other hosts that the port has a binding on
    :ivar task: what Nova does with its server now; None: nothing
    :ivar nova: the newest microversion of nova-api; None: not known
    """

    network: typing.Any = None
    becomes: Binding | None = None
    refusal: str | None = None
    beside: tuple[str, ...] = ()
    task: str | None = None
    nova: tuple[int, ...] | None = None


class Fate(typing.NamedTuple):
    """What becomes of a port.

    :ivar what: one of :data:`STAYS`, :data:`REBOUND`, :data:`NOT_SERVED`
    :ivar becomes: how it would be bound; None: as it is, or not known
    :ivar stops: why it cannot be, with who must do what; none: it can
    :ivar notes: what to know before
    """

    what: str
    becomes: Binding | None = None
    stops: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def is_plugged(port: typing.Any) -> bool:
    """Return whether a compute service plugs a port."""
    return not port.device_owner.startswith(_NOT_PLUGGED)


def may_be_rebound(port: typing.Any) -> bool:
    """Return whether a port is one that a binding of ours could be for."""
    now = Binding.of(port)
    return is_plugged(port) and (
        now.is_old or now.is_ours or is_marked(port)
        or now.vif_type in _UNBOUND and bool(port.device_id))


def fate(port: typing.Any, facts: Facts) -> Fate:
    """Return what becomes of a port if it is bound anew."""
    now = Binding.of(port)
    if not is_plugged(port) and (now.is_old or now.vif_type in _UNBOUND):
        return Fate(NOT_SERVED, stops=(
            'no compute service plugs a port of %s' % port.device_owner,))
    if not may_be_rebound(port):
        return Fate(STAYS)
    if (now.is_ours and not is_marked(port)
            and facts.becomes in (None, now)):
        return Fate(STAYS)
    elsewhere = tuple(not_served(port, facts.network))
    if elsewhere:
        return Fate(NOT_SERVED, stops=elsewhere)
    return Fate(REBOUND, facts.becomes,
                tuple(_stops(port, facts)), tuple(_notes(port, now, facts)))


def not_served(port: typing.Any,
               network: typing.Any) -> typing.Iterator[str]:
    """Yield why tapmac has no bridge for a port; nothing: it may have."""
    if port.binding_vnic_type != 'normal':
        yield 'its vnic_type is %s' % port.binding_vnic_type
    kinds = network_types(network)
    if kinds and not kinds & set(_OUR_NETWORKS):
        yield 'its network is of the type %s' % ', '.join(sorted(kinds))


def network_types(network: typing.Any) -> set[str]:
    """Return of which types a network's segments are; none: not known."""
    if network is None:
        return set()
    # With several segments Neutron has these instead.
    found = {segment.get('provider:network_type')
             for segment in network.segments or ()}
    return (found | {network.provider_network_type}) - {None}


def _stops(port: typing.Any, facts: Facts) -> typing.Iterator[str]:
    yield from _unenforced(port, facts.network)
    if facts.beside:
        yield ('it has a binding on %s, too, as during a live migration: '
               'repeat this afterwards' % ', '.join(facts.beside))
    if facts.task:
        yield ('Nova is busy with its server (%s): repeat this afterwards'
               % facts.task)
    if facts.refusal:
        yield facts.refusal
    elif (facts.becomes is not None and not facts.becomes.is_ours
          # A mark goes, wherever a live migration took it.
          and not (is_marked(port) and facts.becomes == Binding.of(port))):
        yield ('it would be bound as %s: the operator must have tapmac bind '
               'it, by the order of [ml2] mechanism_drivers, [ml2_tapmac] '
               'hosts and bridge_mappings' % facts.becomes)
    elif facts.becomes is not None:
        yield from _wrong_nova(facts.becomes.vif_type, facts.nova)


def _unenforced(port: typing.Any,
                network: typing.Any) -> typing.Iterator[str]:
    """Yield what the mechanism driver refuses, with the remedy."""
    if port.qos_policy_id:
        yield ('QoS policy %s: remove it from the port' % port.qos_policy_id)
    policy = port.qos_network_policy_id or getattr(
        network, 'qos_policy_id', None)
    if policy:
        yield ('QoS policy %s of its network: remove it from the network'
               % policy)
    if (port.binding_profile or {}).get('allocation'):
        yield ('guaranteed bandwidth: give its server a port without it '
               'instead')
    if not port.is_admin_state_up:
        yield ('admin_state_up False: set it up, and detach it from its '
               'server instead')
    if port.trunk_details:
        yield ('trunk %s: give its server a port on each of the networks '
               'instead' % port.trunk_details.get('trunk_id'))


def _wrong_nova(vif_type: str | None, nova: tuple[int, ...] | None,
                ) -> typing.Iterator[str]:
    """Yield what is wrong if no host has the right Nova.

    nova-api is never older than its hosts, and at most two releases newer.
    """
    if nova is None:
        return
    if vif_type == _OVS and nova < _NOVA_33:
        yield ('no host has Nova 33 yet, and an older one cannot plug ovs: '
               'name the host in [ml2_tapmac] bridge_hosts')
    if vif_type == _BRIDGE and nova >= _NOVA_34:
        yield ('each host has Nova 33 at least by now, and Nova 34 refuses '
               'bridge: take the host out of [ml2_tapmac] bridge_hosts')


def _notes(port: typing.Any, now: Binding,
           facts: Facts) -> typing.Iterator[str]:
    becomes = facts.becomes
    if is_marked(port):
        yield 'tapmac-migrate was stopped here: this restores its profile'
    if (becomes is not None and becomes.vif_type == _OVS
            and facts.nova is not None
            and _NOVA_33 <= facts.nova < _NOVA_34):
        yield ('its host must have Nova 33: an older one cannot plug ovs, '
               'and Nova does not tell which it has')
    if (becomes is not None and becomes.bridge and now.bridge
            and now.bridge != becomes.bridge):
        yield ('its TAP stays on %s until that bridge is called %s, or its '
               'server had a hard reboot' % (now.bridge, becomes.bridge))
    has_agent = becomes is not None and becomes.has_agent
    if has_agent:
        yield 'it is DOWN until tapmac-agent of its host guards it'
    if port.is_port_security_enabled is False or has_agent:
        return
    if now.is_ours and not (now.has_agent and becomes):
        return
    if port.security_group_ids:
        yield ('nobody enforces its security groups any more: %s'
               % ', '.join(port.security_group_ids))
    others = sorted({pair['mac_address']
                     for pair in port.allowed_address_pairs or ()
                     if pair.get('mac_address', port.mac_address).lower()
                     != port.mac_address.lower()})
    if others:
        yield ('allowed address pairs of other MACs: a guest is kept to its '
               'own, %s, and cannot send from %s, unless anti_spoofing of '
               'its host is none' % (port.mac_address, ', '.join(others)))
    elif port.allowed_address_pairs:
        yield 'nobody enforces its allowed address pairs any more'


def unserved(port: typing.Any,
             hosts_with_agent: typing.Container[str]) -> str | None:
    """Return why nobody serves the binding of a port; None: somebody does.

    :param hosts_with_agent: where the Linux bridge agent is alive
    """
    now = Binding.of(port)
    if is_marked(port):
        return ('"tapmac-migrate rebind" was stopped in the middle of it: '
                'repeat it')
    if now.vif_type == 'binding_failed':
        return 'no mechanism driver could bind it; none tries by itself'
    if now.vif_type == 'unbound' and port.device_id:
        return 'it has a host and a device, and is not bound'
    if now.is_old and port.binding_host_id not in hosts_with_agent:
        return ('it is bound by %s, and no Linux bridge agent of its host is '
                'alive' % (now.driver or 'a driver that is not known'))
    return None
