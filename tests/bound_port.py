# SPDX-License-Identifier: Apache-2.0

"""A port that our mechanism driver has bound, as Neutron's REST API shows it.

tests/neutron compares it with what a real neutron-server answers; tests/nova
gives it to Nova. So neither can change without the other.
"""

import typing

from tests import base

NETWORK_ID = '5d6a7b8c-0000-4000-8000-000000000000'

#: What tests/neutron compares.
BINDING: dict[str, typing.Any] = {
    'binding:vnic_type': 'normal',
    'binding:vif_type': 'ovs',
    'binding:vif_details': {
        'bridge_name': base.BRIDGE,
        'datapath_type': 'tapmac',
        'ovs_create_tap': True,
        'port_filter': False,
        'connectivity': 'l2',
        'bound_drivers': {'0': 'tapmac'},
    },
    'binding:profile': {},
    'status': 'ACTIVE',
    'admin_state_up': True,
}

PORT: dict[str, typing.Any] = dict(BINDING, **{
    'id': base.VIF_ID,
    'mac_address': base.GUEST_MAC,
    'network_id': NETWORK_ID,
    'project_id': 'demo',
    'tenant_id': 'demo',
    'device_id': base.INSTANCE.uuid,
    'device_owner': 'compute:nova',
    'binding:host_id': 'host1',
    'fixed_ips': [],
})

NETWORK: dict[str, typing.Any] = {
    'id': NETWORK_ID,
    'name': 'demo',
    'project_id': 'demo',
    'tenant_id': 'demo',
    'mtu': 1450,
    'provider:network_type': 'flat',
    'provider:physical_network': 'physnet1',
    'provider:segmentation_id': None,
}
