# SPDX-License-Identifier: Apache-2.0

"""Many ports at once: the server makes one, and the database copies of it.

To the server, and to its agents, they are as if it had made them, which takes
it some tenths of a second each.
"""

import ipaddress
import typing
import uuid

from tests.neutron import base

#: Of a statement.
_AT_ONCE = 500
_Row = dict[str, typing.Any]


def copies(neutron: base.Neutron, port: typing.Any, count: int,
           host_of: typing.Callable[[int], str] | None = None,
           group_of: typing.Callable[[int], str] | None = None,
           ) -> list[typing.Any]:
    """Have more ports of the same network, which is large enough.

    They have the addresses after that of the port, and MACs of their own.

    :param port: bound to a host, with one address
    :param host_of: the host of the one of this number, from 0; None: the same
    :param group_of: likewise its only security group
    :returns: of each what a request would show, as far as it differs
    """
    database = neutron.database
    first = ipaddress.ip_address(port['fixed_ips'][0]['ip_address'])
    found = [{
        **port, 'id': str(uuid.uuid4()),
        'mac_address': 'fa:16:3f:%02x:%02x:%02x' % (
            number >> 16, number >> 8 & 255, number & 255),
        'fixed_ips': [{**port['fixed_ips'][0],
                       'ip_address': str(first + number + 1)}],
        'binding:host_id': (host_of(number) if host_of
                            else port['binding:host_id']),
        'security_groups': ([group_of(number)] if group_of
                            else port['security_groups'])}
        for number in range(count)]
    row, = _rows(neutron, 'ports', 'id', port)
    attributes, = database.execute(
        'SELECT * FROM neutron.standardattributes WHERE id = %s',
        row['standard_attr_id'])
    last = database.execute(
        'SELECT MAX(id) AS id FROM neutron.standardattributes')[0]['id'] + 1000
    numbers = range(last, last + count)
    _insert(neutron, 'standardattributes', [
        {**attributes, 'id': number} for number in numbers])
    _insert(neutron, 'ports', [
        {**row, 'id': each['id'], 'mac_address': each['mac_address'],
         'standard_attr_id': number} for each, number in zip(found, numbers)])
    for table in ('ipallocations', 'ml2_port_bindings',
                  'ml2_port_binding_levels', 'portsecuritybindings',
                  'securitygroupportbindings'):
        _insert(neutron, table, [
            {**one, 'port_id': each['id'], **{
                name: value for name, value in (
                    ('ip_address', each['fixed_ips'][0]['ip_address']),
                    ('host', each['binding:host_id']),
                    ('security_group_id', each['security_groups'][0]))
                if name in one}}
            for one in _rows(neutron, table, 'port_id', port)
            for each in found])
    # What each is to wait for before it is ACTIVE.
    _insert(neutron, 'provisioningblocks', [
        {**block, 'standard_attr_id': number}
        for block in database.execute(
            'SELECT * FROM neutron.provisioningblocks WHERE '
            'standard_attr_id = %s', row['standard_attr_id'])
        for number in numbers])
    return found


def move(neutron: base.Neutron, ports: typing.Sequence[typing.Any],
         host: str) -> None:
    """Have ports bound to another host in the database; nobody is told."""
    for some in _parts([each['id'] for each in ports]):
        for table in 'ml2_port_bindings', 'ml2_port_binding_levels':
            neutron.database.execute(
                'UPDATE neutron.%s SET host = %%s WHERE port_id IN (%s)' % (
                    table, ', '.join(['%s'] * len(some))), host, *some)


def remove(neutron: base.Neutron, ports: typing.Sequence[typing.Any]) -> None:
    """Have ports gone from the database; nobody is told."""
    for some in _parts([each['id'] for each in ports]):
        neutron.database.execute(
            'DELETE FROM neutron.standardattributes WHERE id IN (SELECT '
            'standard_attr_id FROM neutron.ports WHERE id IN (%s))'
            % ', '.join(['%s'] * len(some)), *some)


def _rows(neutron: base.Neutron, table: str, column: str,
          port: typing.Any) -> list[_Row]:
    return neutron.database.execute(
        'SELECT * FROM neutron.%s WHERE %s = %%s' % (table, column),
        port['id'])


def _insert(neutron: base.Neutron, table: str, rows: list[_Row]) -> None:
    for some in _parts(rows):
        neutron.database.execute(
            'INSERT INTO neutron.%s (%s) VALUES %s' % (
                table, ', '.join('`%s`' % name for name in some[0]),
                ', '.join(['(%s)' % ', '.join(['%s'] * len(some[0]))]
                          * len(some))),
            *(value for row in some for value in row.values()))


def _parts(things: typing.Sequence[typing.Any],
           ) -> typing.Iterator[typing.Sequence[typing.Any]]:
    for first in range(0, len(things), _AT_ONCE):
        yield things[first:first + _AT_ONCE]
