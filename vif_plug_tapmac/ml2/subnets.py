# SPDX-License-Identifier: Apache-2.0

"""Changes of subnets by which bound ports have other addresses.

On hosts where guests are kept to the addresses that they were plugged with.
"""

import typing

from neutron_lib.callbacks import events
from neutron_lib.callbacks import registry
from neutron_lib.callbacks import resources
from neutron_lib.plugins.ml2 import api

from vif_plug_tapmac.ml2 import bindings
from vif_plug_tapmac.ml2 import exception
from vif_plug_tapmac.ml2 import hosts
from vif_plug_tapmac.ml2 import unenforced


class AddressKeeper(api.MechanismDriver):
    """The part of the mechanism driver that refuses such changes."""

    def keep_addresses_on(self, full_hosts: hosts.Hosts) -> None:
        """Have these hosts' ports keep their addresses.

        Of a subnet that is to be deleted drivers are told when ports have
        lost theirs.
        """
        self.full_hosts = full_hosts
        registry.subscribe(self.keep_subnet, resources.SUBNET,
                           events.PRECOMMIT_DELETE_ASSOCIATIONS)

    def would_place(self, plugin_context: typing.Any, port: typing.Any,
                    host: str, segments: typing.Any) -> bool:
        """Return whether a port is one of the driver's on a host."""
        raise NotImplementedError

    def create_subnet_precommit(self, context: api.SubnetContext) -> None:
        """Refuse a subnet of which bound ports get addresses by themselves.

        Neutron gives them when the subnet is there, and tells drivers of
        each port when it has its address.

        :raises NotEnforced: naming one of these ports
        """
        if unenforced.gives_addresses(context.current):
            self._keep_addresses(
                context.plugin_context,
                unenforced.subnet_of_addresses(context.current),
                network_id=[context.current['network_id']])

    def update_subnet_precommit(self, context: api.SubnetContext) -> None:
        """Refuse another prefix for a subnet that bound ports have.

        A router may get one by prefix delegation.

        :raises NotEnforced: naming one of these ports
        """
        if context.current['cidr'] != context.original['cidr']:
            self._keep_addresses(
                context.plugin_context,
                unenforced.changed_subnet(context.original),
                fixed_ips={'subnet_id': [context.current['id']]})

    def keep_subnet(self, resource: str, event: str, trigger: typing.Any,
                    payload: typing.Any) -> None:
        """Refuse to delete a subnet whose addresses bound ports have.

        :raises NotEnforced: naming one of these ports
        """
        self._keep_addresses(
            payload.context, unenforced.deleted_subnet(),
            fixed_ips={'subnet_id': [payload.resource_id]})

    def _keep_addresses(self, plugin_context: typing.Any,
                        refused: tuple[str, str], **filters: typing.Any,
                        ) -> None:
        """Refuse something if guests are kept to the addresses of ports.

        :param refused: what, and the remedy
        :param filters: which ports it concerns
        """
        if self.full_hosts.patterns:
            for port, host in bindings.ours(plugin_context, self.would_place,
                                            **filters):
                if host in self.full_hosts:
                    raise exception.NotEnforced(port, *refused, host)
