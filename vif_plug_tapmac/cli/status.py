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

"""The command ``tapmac-status upgrade check``.

Run it as nova-compute's user on each compute host, before nova-compute is
started with a new release.
"""

import contextlib
import importlib.metadata
import os

from oslo_config import cfg
from oslo_upgradecheck import upgradecheck

from vif_plug_tapmac import desired
from vif_plug_tapmac import exception
from vif_plug_tapmac.kernel import tun
from vif_plug_tapmac import nova_driver
from vif_plug_tapmac import opts


class Checks(upgradecheck.UpgradeCommands):
    """What must be so for nova-compute to plug anything here."""

    def _check_plugin(self) -> upgradecheck.Result:
        """os-vif takes one of the plugins of a name, nobody knows which."""
        found = [entry_point.value for entry_point in
                 importlib.metadata.entry_points(group='os_vif')
                 if entry_point.name == 'tapmac']
        return _result(
            found == ['vif_plug_tapmac.plugin:TapMacPlugin'],
            'os-vif finds these plugins of the name tapmac: %s. Install '
            'vif-plug-tapmac once, and nothing else that offers this name.'
            % (', '.join(found) or 'none'))

    def _check_configuration(self) -> upgradecheck.Result:
        try:
            desired.config_fields(cfg.CONF[opts.GROUP])
            desired.Uplinks.from_config(cfg.CONF[opts.GROUP])
        except (exception.InvalidConfig, cfg.ConfigFileValueError) as error:
            return _result(False, str(error))
        return _result(True)

    def _check_routes(self) -> upgradecheck.Result:
        """Nova names other plugins, and each only in some releases."""
        nova = _nova_release()
        if nova is None:
            return _result(True)
        config = cfg.CONF[opts.GROUP]
        if not config.claim_plugins:
            return _warning(
                'claim_plugins is empty, and Nova names tapmac for no port: '
                'it will not be called. Set it to ovs or linux_bridge '
                '("Deploying with Nova" in the documentation).')
        for name, releases, known in (('ovs', '33 and newer', nova >= 33),
                                      ('linux_bridge', '33 and older',
                                       nova <= 33)):
            if name in config.claim_plugins and not known:
                return _warning(
                    'claim_plugins has %s, and this is Nova %d: only Nova %s '
                    'gives tapmac a port by that name.' % (
                        name, nova, releases))
        try:
            if config.nova_managed_tap:
                nova_driver.require_nova(config)
        except exception.InvalidConfig as error:
            return _result(False, str(error))
        return _result(True)

    def _check_tun_device(self) -> upgradecheck.Result:
        return _result(os.path.exists(tun.TUN_DEVICE), tun.TUN_MISSING)

    _upgrade_checks = (('os-vif plugin', _check_plugin),
                       ('[%s]' % opts.GROUP, _check_configuration),
                       ('Routes from Nova', _check_routes),
                       ('TUN device', _check_tun_device))


def _result(good: bool, details: str | None = None) -> upgradecheck.Result:
    if good:
        return upgradecheck.Result(upgradecheck.Code.SUCCESS)
    return upgradecheck.Result(upgradecheck.Code.FAILURE, details)


def _warning(details: str) -> upgradecheck.Result:
    return upgradecheck.Result(upgradecheck.Code.WARNING, details)


def _nova_release() -> int | None:
    """Return the major version of the Nova installed here, None: none."""
    try:
        return int(importlib.metadata.version('nova').split('.')[0])
    except importlib.metadata.PackageNotFoundError:
        return None


def main() -> int:
    """Check this host against its nova.conf; return the exit status.

    0 if all is well, 1 if something deserves a look, 2 if something must be
    mended first, 255 for an error.
    """
    with contextlib.suppress(ImportError):
        # Nova's command line options can be registered before parsing only.
        import nova.conf  # noqa: F401
    opts.group(cfg.CONF)
    return upgradecheck.main(cfg.CONF, project='nova',
                             upgrade_command=Checks())
