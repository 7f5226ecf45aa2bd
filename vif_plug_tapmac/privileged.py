# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""The doors: all that an unprivileged process can ask root to do.

What is behind them is loaded by the first who goes through, on the other side:
nova-compute needs none of it.
"""

import typing

from oslo_config import cfg

from vif_plug_tapmac import opts
from vif_plug_tapmac import privsep
from vif_plug_tapmac.wanted import from_config
from vif_plug_tapmac.wanted.port import TapIdentity
from vif_plug_tapmac.wanted.port import TapPort


@privsep.vif_plug.entrypoint
def ensure_port(fields: dict[str, typing.Any]) -> str | None:
    """Make or mend a TAP; see :func:`vif_plug_tapmac.kernel.port.ensure`.

    :param fields: of a :class:`vif_plug_tapmac.wanted.port.TapPort`
    :returns: what was made, for the caller's log; None if nothing was
    :raises InvalidConfig: this side reads another configuration, or does not
        allow the bridge; the host is untouched
    """
    from vif_plug_tapmac.kernel import port as kernel_port
    config = opts.group(cfg.CONF)
    port = TapPort.from_fields(fields)
    from_config.require_same(port, config)
    return kernel_port.ensure(port, from_config.limits(config))


@privsep.vif_plug.entrypoint
def remove_port(fields: dict[str, typing.Any]) -> None:
    """Remove a TAP; see :func:`vif_plug_tapmac.kernel.removing.remove`.

    :param fields: of a :class:`vif_plug_tapmac.wanted.port.TapIdentity`
    """
    from vif_plug_tapmac.kernel import removing
    removing.remove(TapIdentity.from_fields(fields))


@privsep.vif_plug.entrypoint
def remove_ports(ports: typing.Iterable[dict[str, typing.Any]],
                 also_held: bool) -> list[str]:
    """Remove many; see :func:`vif_plug_tapmac.kernel.removing.remove_many`.

    :param ports: fields of :class:`vif_plug_tapmac.wanted.port.TapIdentity`
    :returns: the names of those that were removed
    """
    from vif_plug_tapmac.kernel import removing
    return removing.remove_many(
        [TapIdentity.from_fields(fields) for fields in ports],
        also_held)
