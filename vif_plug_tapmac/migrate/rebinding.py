# SPDX-License-Identifier: Apache-2.0

"""Having ports bound anew, one by one, and Nova know of it.

Neutron binds a port anew when its profile changes. So it is changed, by a mark
of ours, and changed back. It may end before and after each request: a repeat
goes on from what it finds. A port with the mark is bound anew by the request
that removes it.
"""

import time
import typing

from openstack import exceptions

from vif_plug_tapmac import exception
from vif_plug_tapmac.migrate import cloud as clouds
from vif_plug_tapmac.migrate import ports

#: How often a port may be changed by others while we try.
_TRIES = 5
#: In seconds: between two looks whether agents have done it, and between two
#: sentences about that.
_LOOKS_EVERY, _SAYS_EVERY = 1.0, 10.0


class MustStop(exception.TapMacError):
    """What went wrong with a port would go wrong with the next one, too."""


class Job(typing.NamedTuple):
    """A port and what becomes of it."""

    port: typing.Any
    fate: ports.Fate

    @property
    def is_to_do(self) -> bool:
        return self.fate.what == ports.REBOUND and not self.fate.stops

    @property
    def is_stopped(self) -> bool:
        return bool(self.fate.stops) and (
            self.fate.what == ports.REBOUND
            or ports.Binding.of(self.port).is_old)


def jobs(cloud: clouds.Cloud, seen: typing.Iterable[typing.Any],
         trials: typing.Mapping[tuple[str, str], clouds.Trial],
         expected: typing.Callable[[typing.Any], ports.Binding | None],
         tasks: typing.Mapping[str, str]) -> typing.Iterator[Job]:
    """Yield what becomes of each of these ports.

    :param trials: of networks on hosts
    :param expected: how a port will be bound, where there was no trial
    :param tasks: what Nova does with servers now
    """
    for port in seen:
        trial = trials.get((port.network_id, port.binding_host_id))
        facts = ports.Facts(
            network=cloud.networks.get(port.network_id),
            becomes=expected(port) if trial is None else trial.becomes,
            refusal=trial and trial.refusal,
            task=tasks.get(port.device_id), nova=cloud.nova)
        fate = ports.fate(port, facts)
        if fate.what == ports.REBOUND:
            # A request for each, so not for those that stay.
            fate = ports.fate(port, facts._replace(
                beside=cloud.hosts_beside(port)))
        yield Job(port, fate)


def try_networks(cloud: clouds.Cloud, seen: typing.Iterable[typing.Any],
                 ) -> dict[tuple[str, str], clouds.Trial]:
    """Try each network on each host that a port could be ours on."""
    where = sorted({(port.network_id, port.binding_host_id) for port in seen
                    if ports.may_be_rebound(port) and not any(
                        ports.not_served(
                            port, cloud.networks.get(port.network_id)))})
    return {each: cloud.try_host(*each) for each in where}


def rebind(cloud: clouds.Cloud, job: Job) -> ports.Binding | None:
    """Have one port bound anew, with the profile that it had.

    :returns: how it is bound then; None: it is gone
    :raises MustStop: no other port is to follow
    :raises TapMacError: this one could not be bound anew
    """
    for _ in range(_TRIES):
        port = cloud.port(job.port.id)
        if port is None:
            return None
        if port.binding_host_id != job.port.binding_host_id:
            raise exception.TapMacError(
                'It has moved to %s meanwhile' % port.binding_host_id)
        try:
            found = ports.Binding.of(_touch(cloud, port, job.fate.becomes))
        except (clouds.Overtaken, exceptions.NotFoundException):
            continue
        if found != job.fate.becomes:
            raise MustStop(
                'Neutron has it as %s, and not as %s; its profile is as it '
                'was. The operator must see to what neutron-server\'s log '
                'says of it, and repeat this' % (found, job.fate.becomes))
        return found
    raise exception.TapMacError('Others change it again and again')


def _touch(cloud: clouds.Cloud, port: typing.Any,
           wanted: ports.Binding | None) -> typing.Any:
    """Change a port's profile, and change it back; return the port."""
    profile = ports.profile(port)
    try:
        if not ports.is_marked(port) and ports.Binding.of(port) != wanted:
            port = cloud.set_profile(port, dict(
                profile, **{ports.MARK: str(ports.Binding.of(port))}))
        if ports.is_marked(port):
            port = cloud.set_profile(port, profile)
        return port
    except exceptions.ForbiddenException as error:
        raise MustStop(
            'Neutron does not let this user change binding:profile; the port '
            'is as it was. The operator must use one with the role service'
        ) from error
    except (exceptions.BadRequestException,
            exceptions.ConflictException) as error:
        raise exception.TapMacError(
            'Neutron declines: %s' % clouds.details(error)) from error


def wait_for_agent(cloud: clouds.Cloud, host: str, done: typing.Iterable[Job],
                   seconds: float, say: typing.Callable[[str], None]) -> None:
    """Wait until the agent of a host guards what was bound for it.

    :param seconds: at most
    :param say: is given a sentence, now and then
    """
    expected = {job.port.id for job in done
                if job.fate.becomes and job.fate.becomes.has_agent}
    until, next_ = time.monotonic() + seconds, time.monotonic()
    while expected:
        left = [port for port in cloud.ports(host) if port.id in expected
                and port.status != 'ACTIVE' and ports.Binding.of(
                    port).has_agent and not ports.is_marked(port)]
        now = time.monotonic()
        if not left:
            return
        if now >= next_:
            say('Waiting for tapmac-agent of %s: %d of %d ports are not '
                'ACTIVE yet, %d s at most.' % (
                    host, len(left), len(expected), max(0.0, until - now)))
            next_ = now + _SAYS_EVERY
        if now >= until:
            return
        time.sleep(min(_LOOKS_EVERY, until - now))


def doubts(cloud: clouds.Cloud, host: str,
           done: typing.Iterable[Job]) -> typing.Iterator[str]:
    """Yield what Neutron or Nova has otherwise than it should be.

    Nova does not show how its servers' ports are bound, as it knows it. It is
    told to ask Neutron, and what it shows of servers and ports is compared.
    """
    jobs_of = {job.port.id: job for job in done}
    now = {port.id: port for port in cloud.ports(host)}
    for port_id, job in jobs_of.items():
        port = now.get(port_id)
        if port is not None and (
                ports.is_marked(port) or port.status != 'ACTIVE'
                or ports.Binding.of(port) != job.fate.becomes):
            found = ports.Binding.of(port)
            yield 'port %s is %s, and %s%s' % (
                port_id, port.status, found,
                '; tapmac-agent of %s %s, unless its server has no TAP there'
                % (host, cloud.tapmac_agent(host))
                if found == job.fate.becomes and found.has_agent else '')
    of_nova = [port for port_id, port in now.items() if port_id in jobs_of
               and port.device_owner.startswith('compute:')]
    if of_nova:
        yield from _doubts_of_nova(cloud, host, of_nova)


def _doubts_of_nova(cloud: clouds.Cloud, host: str,
                    of_nova: list[typing.Any]) -> typing.Iterator[str]:
    try:
        declined = cloud.look_again(
            (port.device_id, port.id) for port in of_nova)
    except exceptions.ForbiddenException:
        yield ('Nova takes no events from this user, so that nobody but '
               'Neutron tells it to ask: the operator must use one with the '
               'role service')
        declined = {}
    for port_id, why in declined.items():
        yield 'Nova does not ask how port %s is bound: %s' % (port_id, why)
    servers = cloud.servers(host)
    shown = {server: cloud.interfaces(server) for server in sorted(
        {port.device_id for port in of_nova} & servers.keys())}
    for port in of_nova:
        server = servers.get(port.device_id)
        if server is None:
            yield 'Nova has no server %s on %s, which port %s is of' % (
                port.device_id, host, port.id)
        elif shown[server.id].get(port.id) != 'ACTIVE':
            yield 'Nova has port %s of server %s as %s' % (
                port.id, server.id, shown[server.id].get(port.id, 'gone'))
        elif port.fixed_ips and port.mac_address not in _macs(server):
            yield 'Nova shows no address of server %s at %s, port %s' % (
                server.id, port.mac_address, port.id)


def _macs(server: typing.Any) -> set[str]:
    """Return the MACs of the addresses that Nova shows, from its cache."""
    return {address['OS-EXT-IPS-MAC:mac_addr']
            for addresses in (server.addresses or {}).values()
            for address in addresses}
