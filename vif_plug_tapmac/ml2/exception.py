# SPDX-License-Identifier: Apache-2.0

"""What the mechanism driver refuses, and with which words."""

import typing

from neutron_lib import exceptions


class InvalidConfig(exceptions.NeutronException):
    """neutron-server must not start with this configuration."""
    message = ('[ml2_tapmac] %(option)s = %(value)s: %(reason)s. The operator '
               'must correct the configuration.')


class NotEnforced(exceptions.BadRequest):
    """Who asks for this would believe that it is so (400)."""
    message = ('Port %(port)s on host %(host)s cannot have %(feature)s: '
               'nothing enforces this for ports that the mechanism driver '
               'tapmac binds. %(remedy)s.')

    def __init__(self, port: typing.Mapping[str, typing.Any], feature: str,
                 remedy: str, host: str) -> None:
        super().__init__(port=port['id'], feature=feature, remedy=remedy,
                         host=host)


class NotOurs(Exception):
    """Why the mechanism driver leaves a port to others; never leaves it."""


class NoAgent(NotOurs):
    """Why the agent of a host cannot have a port; the operator must act."""
