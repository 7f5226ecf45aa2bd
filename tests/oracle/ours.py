# SPDX-License-Identifier: Apache-2.0

"""Our filter, on one of the hosts, fed with what Neutron's RPC says."""

import dataclasses
import typing

from vif_plug_tapmac import privileged
from vif_plug_tapmac import privsep
from vif_plug_tapmac.wanted import from_neutron

_Told = dict[str, typing.Any]


def apply(info: _Told, details: typing.Iterable[_Told],
          is_all: bool = True, stateful: bool = False) -> None:
    """Have what Neutron says of this host.

    :param info: of security_group_info_for_devices
    :param details: of get_devices_details_list
    :param is_all: whether it is instead of all that was there
    :param stateful: whether groups are what Neutron says; else all are
        stateless, because not every kernel knows the connections of bridges:
        what begins one is judged alike
    :raises AssertionError: something of it was refused
    """
    answer = from_neutron.from_rpc(info, details, is_all=is_all)
    assert not answer.refused, answer.refused
    change = dataclasses.replace(answer.change, ports=tuple(
        dataclasses.replace(each, stateful=each.stateful and stateful)
        for each in answer.change.ports))
    privsep.filter.set_client_mode(False)
    applied = privileged.apply_filter(change.as_fields())
    assert not applied['refused'] and not applied['needs_all'], applied
