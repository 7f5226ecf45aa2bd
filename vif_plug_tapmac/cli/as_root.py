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

"""Doing in this process what a daemon does for nova-compute."""

from vif_plug_tapmac import exception

_CAP_NET_ADMIN = 12


def act_as_root() -> None:
    """Have what runs as root run in this process, without a daemon.

    :raises TapMacError: this process may not
    """
    if not may_change_links():
        raise exception.TapMacError(
            'This changes links and needs CAP_NET_ADMIN: run it as root, or '
            'with --dry-run.')
    from vif_plug_tapmac import privsep
    privsep.vif_plug.set_client_mode(False)


def may_change_links() -> bool:
    """Return whether this process has CAP_NET_ADMIN."""
    with open('/proc/self/status') as status:
        capabilities = next(int(line.split()[1], 16) for line in status
                            if line.startswith('CapEff'))
    return bool(capabilities >> _CAP_NET_ADMIN & 1)
