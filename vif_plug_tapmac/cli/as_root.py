# SPDX-License-Identifier: Apache-2.0

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
