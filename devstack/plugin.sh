#!/bin/bash
# shellcheck disable=SC2154 # DevStack sets them.
# DevStack sources this in each of its phases: "stack install" and so on.

function install_tapmac {
    setup_develop "$DEST/vif-plug-tapmac" ml2
}

function configure_tapmac_nova {
    # n-cpu gets a copy of this file when it starts.
    iniset "$NOVA_CONF" os_vif_tapmac claim_plugins ovs
    if [[ -n $TAPMAC_BRIDGE_UPLINKS ]]; then
        iniset "$NOVA_CONF" os_vif_tapmac bridge_uplinks \
            "$TAPMAC_BRIDGE_UPLINKS"
    fi
}

function configure_tapmac_neutron {
    iniset "/$Q_PLUGIN_CONF_FILE" ml2_tapmac bridge_mappings \
        "$TAPMAC_BRIDGE_MAPPINGS"
    if [[ $Q_AGENT == tapmac ]]; then
        # DevStack leaves it at the default, "local", which has no driver here.
        iniset "/$Q_PLUGIN_CONF_FILE" ml2 project_network_types ""
    fi
}

# What DevStack calls of the file of an agent; there is none.
if [[ $Q_AGENT == tapmac ]]; then
    function neutron_plugin_create_nova_conf {
        :
    }

    function is_neutron_ovs_base_plugin {
        return 1
    }
fi

if [[ $1 == stack && $2 == install ]]; then
    install_tapmac
elif [[ $1 == stack && $2 == post-config ]]; then
    if is_service_enabled n-cpu; then
        configure_tapmac_nova
    fi
    if is_service_enabled q-svc neutron-api; then
        configure_tapmac_neutron
    fi
fi
