# SPDX-License-Identifier: Apache-2.0

"""What stops a binding beside the active one, as for a live migration.

It is made without precommit, and to refuse its activation comes too late.
"""

import typing

from neutron_lib import constants
from neutron_lib.plugins.ml2 import api

from vif_plug_tapmac.ml2 import bindings
from vif_plug_tapmac.ml2 import hosts

_Binding = typing.Mapping[str, typing.Any]


def is_activation(context: api.PortContext) -> bool:
    """Return whether a binding beside the active one becomes that.

    The former one stays then; a port that is bound anew takes its binding
    along to the other host.
    """
    return context.host != context.original_host and any(
        binding['host'] == context.original_host for binding in
        bindings.of_port(context.plugin_context, context.current['id']))


def obstacle(context: api.PortContext, active: _Binding | None, bridge: str,
             bridge_hosts: hosts.Hosts) -> str | None:
    """Return why a port must not be bound beside its binding in use.

    :param active: that one, None if it has none
    :param bridge: where the port would be bound to
    :param bridge_hosts: where Nova is older than 33
    :returns: None if it may be, or if there is nothing to be beside
    """
    if (active is None or active['host'] == context.host
            or active['vif_type'] in bindings.UNBOUND):
        return None
    return (_other_bridge(context, active, bridge)
            or _too_old(context, active, bridge_hosts))


def _other_bridge(context: api.PortContext, active: _Binding, bridge: str,
                  ) -> str | None:
    source = bindings.bridge(active, context.current['network_id'])
    if source == bridge:
        return None
    return ('Nova would have it plugged into the bridge of that binding, %s, '
            'and here it is %s. Remedy: the operator must bind it to %s there '
            'first, or move its server by a cold migration'
            % (source or 'though it has none', bridge, bridge))


def _too_old(context: api.PortContext, active: _Binding,
             bridge_hosts: hosts.Hosts) -> str | None:
    """Return why Nova could not migrate a guest live to where it is ovs.

    The Nova of the source writes the domain for the target, and one before
    33 knows no TAP that is there already: libvirt would refuse it.
    """
    if (not context.current['device_owner'].startswith(
            constants.DEVICE_OWNER_COMPUTE_PREFIX)
            or active['host'] not in bridge_hosts
            or context.host in bridge_hosts):
        return None
    return ('the Nova there is older than 33, by [ml2_tapmac] bridge_hosts, '
            'and could not start the guest here, where the port is ovs. '
            'Remedy: the operator must take %s out of bridge_hosts once its '
            'Nova is 33, or move its server by a cold migration'
            % active['host'])
