# SPDX-License-Identifier: Apache-2.0

"""The emergency exit, as a value: what opens ports that the table closes.

By the index of one port, or by what all ports are, which no one can forget to
add. What stays are tags and frames to 01:80:c2, which are dropped, what guests
are kept from by a shield of the host, and all that is not of this table.
"""

import struct
import typing

from vif_plug_tapmac.kernel.nft import Expression
from vif_plug_tapmac.kernel.nft import Rule
from vif_plug_tapmac.kernel import nft_expressions as nftx
from vif_plug_tapmac.kernel.nft_sets import INDEX
from vif_plug_tapmac.kernel.nft_sets import LINK_TYPE
from vif_plug_tapmac.kernel.nft_sets import Set

#: The sets of the indexes of open ports, with their VIFs as comments; and of
#: which types of links all ports are open: there is one type of TAPs.
PORTS, HOST = 'off_ports', 'off_host'
SETS = (Set(PORTS, INDEX, 4, is_number=True),
        Set(HOST, LINK_TYPE, 2, is_number=True))
#: ARPHRD_ETHER, as a key. Source: include/uapi/linux/if_arp.h
ALL_TAPS = struct.pack('=H', 1)

_IN, _OUT = (nftx.IIF, nftx.IIFTYPE), (nftx.OIF, nftx.OIFTYPE)


def from_it(chain: str, to: str | None = None) -> list[Rule]:
    """Return rules that have what an open port sends go on, or accepted.

    :param to: in which chain it goes on; None: it is accepted
    """
    return _rules(chain, to, _IN)


def to_it(chain: str, to: str | None = None) -> list[Rule]:
    """Return the same of what is sent to an open port."""
    return _rules(chain, to, _OUT)


def is_closed(port: nftx.Load) -> tuple[Expression, ...]:
    """Return the condition that neither a port nor the host is open.

    :param port: IIF or OIF
    """
    which, what = _IN if port == nftx.IIF else _OUT
    return nftx.is_not_in(PORTS, which) + nftx.is_not_in(HOST, what)


def _rules(chain: str, to: str | None,
           loads: tuple[nftx.Load, nftx.Load]) -> list[Rule]:
    conditions: typing.Iterable[tuple[Expression, ...]] = (
        nftx.is_in(name, load) for name, load in zip((PORTS, HOST), loads))
    return [nftx.accept(chain, each) if to is None
            else nftx.go(chain, each, to=to) for each in conditions]
