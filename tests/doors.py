# SPDX-License-Identifier: Apache-2.0

"""The doors to root, and what somebody says there who means no good.

Anything at all, and what is right but for a little: about devices of ours, and
of others that a test has.
"""

from hypothesis import strategies as st
from oslo_privsep import priv_context

from tests import base
from vif_plug_tapmac import privileged
from vif_plug_tapmac import privsep
from vif_plug_tapmac.wanted import names

OTHERS_VIF = 'deadbeef-0000-4000-8000-000000000000'
#: VIFs whose TAPs Nova would give a name that another kind of device has, or
#: that is an alternative name of somebody's TAP.
IFBS_VIF = '1fb00000-0000-4000-8000-000000000000'
ALTNAMES_VIF = 'a1700000-0000-4000-8000-000000000000'
VIFS = (base.VIF_ID, IFBS_VIF, ALTNAMES_VIF)
OTHERS_GROUP = 77
#: The end of an interface that Neutron's DHCP agent has for another port.
OTHERS_INTERFACE = 'dhcp'
OTHERS = ('eth7', 'wire', 'mgmt', 'storage', 'tap0', 'vnet0', 'vnet1', 'vpn0',
          OTHERS_INTERFACE, names.nova_tap_name(OTHERS_VIF),
          names.nova_tap_name(IFBS_VIF))
ALTNAMES = ('uplink0', names.nova_tap_name(ALTNAMES_VIF))
#: The end of one that he may have moved.
INTERFACE = 'tap1f000000-00'
INTERFACES_PORT = '1f000000-0000-4000-8000-000000000000'
INTERFACES_MAC = 'fa:16:3e:00:00:01'

_names = st.sampled_from(
    OTHERS + ALTNAMES + (
        base.TAP, base.BRIDGE, INTERFACE, 'br101', 'lo', 'all', 'default',
        '', '.', '..', '../../etc', '/etc/passwd', 'br1/../../x', 'a b',
        'tap%d', 'tapmac-%d', 'x' * 16, 'br100\0', 'br100\n', '-x', '*'))
_macs = st.sampled_from((
    base.GUEST_MAC, 'fe:16:3e:28:64:c2', 'fa:16:3e:00:00:07',
    '02:00:00:00:00:07', 'ff:ff:ff:ff:ff:ff', '00:00:00:00:00:00',
    '01:80:c2:00:00:00', 'FA:16:3E:28:64:C2', '', 'x'))
_numbers = st.sampled_from((
    -2 ** 63, -1, 0, 1, 67, 68, 1500, 9000, 65521, 65522, OTHERS_GROUP,
    29793, 29794, 29795, 65534, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 63))
_addresses = st.sampled_from((
    '192.0.2.1', '2001:db8::1', '0.0.0.0', '224.0.0.1', '::', 'ff02::1',
    '::ffff:192.0.2.1', '127.0.0.1', 'fe80::1%eth7', '192.0.2.1/24', '', 'x'))
#: All that can cross the boundary.
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text()
    | st.binary() | _names | _macs | _numbers,
    lambda inner: st.lists(inner, max_size=3).map(tuple)
    | st.dictionaries(st.text() | st.binary(), inner, max_size=3),
    max_leaves=5)
#: What each field should be, of the right type at least.
_proper = {
    'vif_id': st.sampled_from(VIFS + (
        INTERFACES_PORT, 'vnet0000-0000-4000-8000-000000000000',
        base.VIF_ID.upper(), '')),
    'name': _names, 'bridge': _names, 'guest_mac': _macs,
    'mtu': _numbers | st.none(), 'owner': _numbers,
    'create_tap': st.booleans(), 'multi_queue': st.booleans(),
    'create_bridge': st.booleans(), 'link_group': _numbers,
    'bridge_group': _numbers, 'uplink': _names | st.none(),
    'filtered_group': _numbers, 'agent_group': _numbers,
    'firewall': st.sampled_from(('none', 'agent', '')),
    'addresses': st.lists(_addresses, max_size=3).map(tuple) | st.none(),
    'anti_spoofing': st.sampled_from(('none', 'mac', 'full', 'ip', '')),
    'arriving_guests': st.sampled_from(('lock', 'filter', '')),
    'port_isolated': st.booleans(), 'port_flood_unicast': st.booleans(),
    'port_flood_multicast': st.booleans(), 'port_hairpin': st.booleans(),
    'port_flood_broadcast': st.booleans(),
    'host_shield': st.booleans()}


GROUP = '00000007-0000-4000-8000-000000000000'
#: What an agent can say of one port, with words of every kind in between.
_ports = st.fixed_dictionaries({
    'vif_id': st.sampled_from(VIFS + (OTHERS_VIF, '')), 'tap': _names,
    'mac': _macs, 'own': st.lists(st.tuples(_macs, st.sampled_from((
        '192.0.2.1/32', '0.0.0.0/0', '2001:db8::/64', '', 'x'))), max_size=2),
    'groups': st.lists(st.sampled_from((GROUP, '../x', '')), max_size=1),
    'is_open': st.booleans(), 'stateful': st.booleans()})
CHANGES = st.fixed_dictionaries({
    'ports': st.lists(_ports, max_size=2),
    'gone': st.lists(st.sampled_from(VIFS + ('',)), max_size=1),
    'groups': st.lists(st.fixed_dictionaries({
        'id': st.sampled_from((GROUP, '')), 'stateful': st.booleans(),
        'rules': st.just(())}), max_size=1),
    'gone_groups': st.lists(st.sampled_from((GROUP, 'to_guests', 'x')),
                            max_size=1),
    'members': st.just(()), 'gone_members': st.just(()),
    'is_all': st.booleans()})


@st.composite
def _requests(draw, valid):
    """A valid request, but for a few fields that are not as they should be."""
    fields = dict(valid)
    for name in draw(st.sets(st.sampled_from(sorted(fields)), max_size=3)):
        fields[name] = draw(_proper[name])
    wrong = draw(st.sampled_from(('nothing',) * 6 + ('type', 'less', 'more')))
    if wrong == 'type':
        fields[draw(st.sampled_from(sorted(fields)))] = draw(PLAIN)
    elif wrong == 'less':
        del fields[draw(st.sampled_from(sorted(fields)))]
    elif wrong == 'more':
        fields[draw(st.text() | st.sampled_from(sorted(_proper)))] = draw(
            PLAIN)
    return fields


_interfaces = _requests({
    'vif_id': INTERFACES_PORT, 'name': INTERFACE, 'bridge': base.BRIDGE,
    'guest_mac': INTERFACES_MAC, 'mtu': 1400})
_identities = _requests({'vif_id': base.VIF_ID, 'name': base.TAP})
#: What is said at each door, by its name.
SAID = {
    'ensure_port': st.tuples(_requests(base.make_port().to_fields())),
    'remove_port': st.tuples(_identities),
    'remove_ports': st.tuples(st.lists(_identities, max_size=3),
                              st.booleans() | PLAIN),
    'apply_filter': st.tuples(CHANGES | PLAIN),
    'join_interface': st.tuples(_interfaces),
    'unfed_taps': st.tuples(st.lists(_names, max_size=3) | PLAIN),
    'knows_connections': st.just(()),
}


def found():
    """Return all doors to root, each with whose they are, by their names."""
    contexts = [each for each in vars(privsep).values()
                if isinstance(each, priv_context.PrivContext)]
    return {name: (door, context) for name, door in vars(privileged).items()
            for context in contexts if context.is_entrypoint(door)}
