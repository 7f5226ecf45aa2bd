# SPDX-License-Identifier: Apache-2.0

"""The plugin for DevStack, run with functions of it that write files.

DevStack is not here. What it does with the variables of the plugin, and in
which order it asks the plugin, is as in its stack.sh, lib/neutron,
lib/neutron_plugins/ml2 and lib/nova of July 2026.
"""

import os
import pathlib
import subprocess

import fixtures
from oslo_config import cfg

from tests import base

#: What is written of an option, by section and option.
Options = dict[str, dict[str, list[str]]]

#: By what DevStack calls its variable.
_FILES = {'NOVA_CONF': 'nova', 'NEUTRON_CONF': 'neutron',
          'Q_PLUGIN_CONF_FILE': 'neutron', 'TAPMAC_AGENT_CONF': 'agent',
          'Q_DHCP_CONF_FILE': 'dhcp'}
_DEVSTACK = '''
define_plugin() { :; }
is_service_enabled() {
    local service
    for service; do
        [[ ,$ENABLED_SERVICES, != *,$service,* ]] || return 0
    done
    return 1
}
disable_service() { say disable_service "$*"; }
iniset() { printf '[%s]\\n%s = %s\\n' "$2" "$3" "${4-}" >> "$1"; }
say() { iniset "$SAID" said "$1" "$2"; }
setup_develop() { say setup_develop "$*"; }
run_process() { say run_process "$phase $*"; }
stop_process() { say stop_process "$*"; }
get_python_exec_prefix() { echo /opt/stack/venv/bin; }
sudo() { say sudo "$*"; }

if [[ -e override-defaults ]]; then
    . ./override-defaults
fi
# The defaults of lib/neutron and lib/nova, and of the file for this agent.
Q_AGENT=${Q_AGENT:-ovn}
Q_ML2_PLUGIN_MECHANISM_DRIVERS=${Q_ML2_PLUGIN_MECHANISM_DRIVERS:-ovn}
Q_ML2_TENANT_NETWORK_TYPE=${Q_ML2_TENANT_NETWORK_TYPE:-geneve}
Q_ML2_PLUGIN_EXT_DRIVERS=${Q_ML2_PLUGIN_EXT_DRIVERS-port_security}
ML2_L3_PLUGIN=${ML2_L3_PLUGIN-router}
PHYSICAL_NETWORK=${PHYSICAL_NETWORK:-public}
ENABLE_ISOLATED_METADATA=${ENABLE_ISOLATED_METADATA:-False}
FORCE_CONFIG_DRIVE=${FORCE_CONFIG_DRIVE:-False}
if [[ $Q_AGENT == ovn ]]; then
    neutron_plugin_create_nova_conf() { :; }
fi
. ./settings
for phase in pre-install install; do
    . ./plugin.sh stack $phase
done
# configure_neutron, and what it calls.
if is_service_enabled q-dhcp neutron-dhcp; then
    iniset "$Q_DHCP_CONF_FILE" DEFAULT enable_isolated_metadata \\
        "$ENABLE_ISOLATED_METADATA"
    neutron_plugin_install_agent_packages
    neutron_plugin_setup_interface_driver "$Q_DHCP_CONF_FILE"
    neutron_plugin_configure_dhcp_agent "$Q_DHCP_CONF_FILE"
fi
if is_service_enabled q-svc neutron-api; then
    ml2() { [[ -z $3 ]] || iniset "/$Q_PLUGIN_CONF_FILE" "$@"; }
    iniset "$NEUTRON_CONF" DEFAULT core_plugin ml2
    iniset "$NEUTRON_CONF" DEFAULT service_plugins "$ML2_L3_PLUGIN"
    iniset "$NEUTRON_CONF" DEFAULT rpc_state_report_workers 0
    ml2 ml2 mechanism_drivers "$Q_ML2_PLUGIN_MECHANISM_DRIVERS"
    ml2 ml2 type_drivers "${Q_ML2_PLUGIN_TYPE_DRIVERS-}"
    ml2 ml2 extension_drivers "$Q_ML2_PLUGIN_EXT_DRIVERS"
    if [[ $Q_ML2_TENANT_NETWORK_TYPE != local ]]; then
        ml2 ml2 project_network_types "$Q_ML2_TENANT_NETWORK_TYPE"
    fi
    flat=${Q_ML2_PLUGIN_FLAT_TYPE_OPTIONS:-flat_networks=$PHYSICAL_NETWORK,}
    ml2 ml2_type_flat "${flat%%=*}" "${flat#*=}"
    ml2 ml2_type_vlan network_vlan_ranges \\
        "${ML2_VLAN_RANGES:-$PHYSICAL_NETWORK}"
fi
if is_service_enabled n-cpu; then
    if [[ $FORCE_CONFIG_DRIVE != False ]]; then
        iniset "$NOVA_CONF" DEFAULT force_config_drive "$FORCE_CONFIG_DRIVE"
    fi
    if is_service_enabled q-meta neutron-metadata-agent; then
        iniset "$NOVA_CONF" neutron service_metadata_proxy True
    fi
    neutron_plugin_create_nova_conf "$NOVA_CONF"
fi
for phase in post-config extra; do
    . ./plugin.sh stack $phase
done
. ./plugin.sh unstack
. ./plugin.sh clean
'''


def configure(test: base.TestCase, services: str,
              **variables: str) -> dict[str, Options]:
    """Return what there is in the end, by file.

    The files are "nova", "neutron", "agent" and "dhcp", without those that
    nobody wrote; and "said", of which the one section, "said", has what the
    plugin asked DevStack for.

    :param services: of local.conf, with commas between them
    :param variables: of local.conf
    """
    directory = pathlib.Path(test.useFixture(fixtures.TempDir()).path)
    paths = {variable: directory / name for variable, name in _FILES.items()}
    environment = {name: str(path) for name, path in paths.items()}
    environment['Q_PLUGIN_CONF_FILE'] = environment['NEUTRON_CONF'][1:]
    subprocess.run(
        ['bash', '-eu', '-c', _DEVSTACK],
        cwd=base.CHECKOUT / 'devstack',
        env=dict(os.environ, DEST='/opt/stack', STACK_USER='stack',
                 ENABLED_SERVICES=services, SAID=str(directory / 'said'),
                 **environment, **variables),
        check=True)
    return {path.name: read(path) for path in sorted(
        directory.iterdir())}


def read(path: pathlib.Path) -> Options:
    """Return what a file says of each option, each time."""
    written: Options = {}
    cfg.ConfigParser(str(path), written).parse()
    return written
