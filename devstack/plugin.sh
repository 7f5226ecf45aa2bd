#!/bin/bash
# shellcheck disable=SC2154 # DevStack sets them.
# DevStack sources this in each of its phases: "stack install" and so on.

TAPMAC_AGENT_CONF=${TAPMAC_AGENT_CONF:-/etc/neutron/tapmac-agent.conf}

function install_tapmac {
    local extras=ml2
    if is_service_enabled tapmac-agent; then
        extras+=,agent
    fi
    setup_develop "$DEST/vif-plug-tapmac" "$extras"
}

function configure_tapmac_nova {
    # n-cpu gets a copy of this file when it starts.
    iniset "$NOVA_CONF" os_vif_tapmac claim_plugins ovs
    if [[ -n $TAPMAC_BRIDGE_UPLINKS ]]; then
        iniset "$NOVA_CONF" os_vif_tapmac bridge_uplinks \
            "$TAPMAC_BRIDGE_UPLINKS"
    fi
    if is_service_enabled tapmac-agent; then
        iniset "$NOVA_CONF" os_vif_tapmac firewall agent
    fi
}

# Its privileged daemon reads this file and no other.
function configure_tapmac_agent {
    sudo install -D -m 0644 -o "$STACK_USER" /dev/null "$TAPMAC_AGENT_CONF"
    # Of names_file.
    sudo install -d -o "$STACK_USER" /run/tapmac-agent
    iniset "$TAPMAC_AGENT_CONF" os_vif_tapmac firewall agent
    # It makes bridges, too, for agents of Neutron's.
    if [[ -n $TAPMAC_BRIDGE_UPLINKS ]]; then
        iniset "$TAPMAC_AGENT_CONF" os_vif_tapmac bridge_uplinks \
            "$TAPMAC_BRIDGE_UPLINKS"
    fi
    iniset "$TAPMAC_AGENT_CONF" tapmac_agent bridge_mappings \
        "$TAPMAC_BRIDGE_MAPPINGS"
    iniset "$TAPMAC_AGENT_CONF" tapmac_agent conntrack "$TAPMAC_CONNTRACK"
    iniset "$TAPMAC_AGENT_CONF" tapmac_agent_privileged helper_command \
        "sudo $(get_python_exec_prefix)/privsep-helper \
--config-file $TAPMAC_AGENT_CONF"
}

function start_tapmac_agent {
    run_process tapmac-agent "$(get_python_exec_prefix)/tapmac-agent \
--config-file $NEUTRON_CONF --config-file $TAPMAC_AGENT_CONF"
}

function configure_tapmac_neutron {
    iniset "/$Q_PLUGIN_CONF_FILE" ml2_tapmac bridge_mappings \
        "$TAPMAC_BRIDGE_MAPPINGS"
    iniset "/$Q_PLUGIN_CONF_FILE" ml2_tapmac firewall "$TAPMAC_FIREWALL"
    if [[ $Q_AGENT == tapmac ]]; then
        # DevStack leaves it at the default, "local", which has no driver here.
        iniset "/$Q_PLUGIN_CONF_FILE" ml2 project_network_types ""
    fi
}

# What DevStack calls of the file of an agent of its own; there is none.
if [[ $Q_AGENT == tapmac ]]; then
    function neutron_plugin_create_nova_conf {
        :
    }

    function neutron_plugin_install_agent_packages {
        :
    }

    # Of the agents for DHCP and routers, with the file of each.
    function neutron_plugin_setup_interface_driver {
        iniset "$1" DEFAULT interface_driver tapmac
        if ! is_service_enabled tapmac-agent; then
            iniset "$1" ml2_tapmac bridge_mappings "$TAPMAC_BRIDGE_MAPPINGS"
        fi
    }

    function neutron_plugin_configure_dhcp_agent {
        :
    }

    function neutron_plugin_configure_l3_agent {
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
    if is_service_enabled tapmac-agent; then
        configure_tapmac_agent
    fi
elif [[ $1 == stack && $2 == extra ]]; then
    # neutron-server answers by now, and there is no guest yet.
    if is_service_enabled tapmac-agent; then
        start_tapmac_agent
    fi
elif [[ $1 == unstack ]]; then
    # What is wired stays as it is.
    if is_service_enabled tapmac-agent; then
        stop_process tapmac-agent
    fi
elif [[ $1 == clean ]]; then
    sudo rm -rf "$TAPMAC_AGENT_CONF" /run/tapmac-agent
fi
