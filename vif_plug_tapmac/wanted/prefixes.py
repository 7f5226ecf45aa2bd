# SPDX-License-Identifier: Apache-2.0

"""Addresses and networks of a family, as text in one form."""

import ipaddress
import typing


def canonical(prefix: typing.Any, family: int) -> str:
    """Return the one form of a prefix, its length always with it.

    :param prefix: text of an address or a network, host bits and all
    :param family: 4 or 6
    :raises ValueError: it is none, or of the other family
    """
    return str(_network(prefix, family))


def merged(prefixes: typing.Iterable[typing.Any],
           family: int) -> typing.Iterator[str]:
    """Return the fewest prefixes that have the same addresses, sorted.

    :raises ValueError: one is none, or of the other family
    """
    # Its type is for networks of one of the families.
    return map(str, ipaddress.collapse_addresses(  # type: ignore[type-var]
        [_network(each, family) for each in prefixes]))


def is_address(prefix: typing.Any, family: int) -> bool:
    """Return whether a prefix is of one address.

    :raises ValueError: it is none, or of the other family
    """
    return _network(prefix, family).num_addresses == 1


def family_of(prefix: str) -> int:
    """Return of which family a prefix looks."""
    return 6 if ':' in prefix else 4


def _network(prefix: typing.Any, family: int,
             ) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    # Of numbers ipaddress makes addresses, too.
    if not isinstance(prefix, str) or '%' in prefix:
        raise ValueError('%r is no prefix' % (prefix,))
    if family == 4:
        return ipaddress.IPv4Network(prefix, strict=False)
    return ipaddress.IPv6Network(prefix, strict=False)
