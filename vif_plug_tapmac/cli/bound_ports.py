# SPDX-License-Identifier: Apache-2.0

"""How Neutron has the ports of this host bound.

It is asked as nova-compute asks it, by the section ``[neutron]``.
"""

import types
import typing

from oslo_config import cfg

from vif_plug_tapmac.migrate import ports

_GROUP = 'neutron'
#: For each answer, in seconds.
_PATIENCE = 10


class Unknown(Exception):
    """Neutron cannot be asked, or does not say; with the reason."""


def read(conf: cfg.ConfigOpts) -> list[tuple[typing.Any, str | None]] | None:
    """Return the ports of this host, and why nobody serves their bindings.

    :returns: pairs of port, as :mod:`ports` has it, and reason, which is None
        where somebody does; None: nova.conf says of no Neutron
    :raises Unknown: it does, but nothing is known
    """
    try:
        host = conf.host
        from keystoneauth1 import loading
    except (cfg.NoSuchOptError, ImportError):  # There is no Nova here.
        return None
    if _GROUP not in conf or 'auth_type' not in conf[_GROUP]:
        loading.register_session_conf_options(conf, _GROUP)
        loading.register_auth_conf_options(conf, _GROUP)
        loading.register_adapter_conf_options(conf, _GROUP)
        conf.set_default('service_type', 'network', group=_GROUP)
    try:
        auth = loading.load_auth_from_conf_options(conf, _GROUP)
        if auth is None:
            return None
        adapter = loading.load_adapter_from_conf_options(
            conf, _GROUP, auth=auth,
            session=loading.load_session_from_conf_options(
                conf, _GROUP, timeout=_PATIENCE))
        seen = _get(adapter, 'ports', **{'binding:host_id': host})
        alive = {agent['host'] for agent in _get(
            adapter, 'agents', host=host, agent_type='Linux bridge agent')
            if agent['alive']}
    except Exception as error:  # Each plugin of keystoneauth1 has its own.
        raise Unknown(str(error).strip().rstrip('.')) from error
    if not all('binding:vif_type' in port for port in seen):
        raise Unknown('it shows no bindings to the user of [neutron]')
    return [(port, ports.unserved(port, alive))
            for port in map(_port, seen)]


def _get(adapter: typing.Any, what: str, **query: str) -> typing.Any:
    return adapter.get('/v2.0/' + what, params=query,
                       connect_retries=0).json()[what]


def _port(found: dict[str, typing.Any]) -> typing.Any:
    """Return a port as openstacksdk would call what it has."""
    return types.SimpleNamespace(**{
        name.replace(':', '_'): value for name, value in found.items()})
