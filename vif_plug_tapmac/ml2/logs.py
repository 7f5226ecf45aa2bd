# SPDX-License-Identifier: Apache-2.0

"""Logs of security groups, which nobody writes of ports that we have bound.

By the type of their bindings they are Open vSwitch's ports for Neutron's
plugin ``log``, and where that has a driver for these it takes a log of one.
So we are a driver of it, too, which can log nothing, and is asked before
anything is written.
Source: neutron/services/logapi/drivers/manager.py;
neutron/services/logapi/common/validators.py, validate_log_type_for_port
"""

import typing

from neutron.services.logapi.drivers import base

from vif_plug_tapmac.ml2 import bindings
from vif_plug_tapmac.ml2 import exception
from vif_plug_tapmac.ml2 import unenforced


class NoLogs(base.DriverBase):
    """Refuses a log of a port that we have bound, also beside the active one.

    One of a group, or of a project, is of ports elsewhere, too.

    :param would_place: as for :func:`bindings.ours`
    """

    def __init__(self, would_place: typing.Callable[..., bool]) -> None:
        super().__init__('tapmac', vif_types=(), vnic_types=(),
                         supported_logging_types=())
        self._would_place = would_place

    def create_log_precommit(self, context: typing.Any,
                             log_obj: typing.Any) -> None:
        """Refuse it when it is made, unless it is off.

        :raises NotEnforced: naming the port
        """
        self._refuse(context, log_obj)

    def update_log_precommit(self, context: typing.Any,
                             log_obj: typing.Any) -> None:
        """Refuse it when it is switched on.

        :raises NotEnforced: naming the port
        """
        if log_obj.enabled:
            self._refuse(context, log_obj)

    def _refuse(self, context: typing.Any, log: typing.Any) -> None:
        if not log.target_id:
            return
        for port, host in bindings.ours(context, self._would_place,
                                        id=[log.target_id]):
            raise exception.NotEnforced(port, *unenforced.log(), host)
