# SPDX-License-Identifier: Apache-2.0

"""Neutron's own IptablesFirewallDriver, in a process of its own.

Run by the Python of a Neutron, in the network namespace that it is told. All
of it is Neutron's own code, but for the database of the server and the
message queue: the part of the server that tells an agent of security groups
reads a world that comes in, and the agent asks it without a queue between.

A world has:

- ports: as the REST API shows them; those of this host with a "device", which
  is the name of their TAP
- rules: of security groups, as the REST API shows them
- stateful: of each security group, by its id
- address_groups: the addresses of each, by its id

If it is told where Neutron 25 is, it also has for each port what the Linux
bridge agent of that had by ebtables; of iptables that had what each newer
Neutron has, too.
"""

import ctypes
import importlib.util
import json
import os
import sys
import traceback

from neutron.agent import firewall
from neutron.agent import securitygroups_rpc
from neutron.conf.agent import common as agent_conf
from neutron.conf import common as neutron_conf
from neutron.db import securitygroups_rpc_base
from neutron import privileged
from neutron_lib.utils import net
from oslo_config import cfg

_CLONE_NEWNET = 0x40000000
#: After which Neutron names its chains.
_PROGRAM = 'neutron-linuxbridge-agent'
_ARP_PROTECT = 'neutron/plugins/ml2/drivers/linuxbridge/agent/arp_protect.py'


class Server(securitygroups_rpc_base.SecurityGroupServerRpcMixin):
    """What tells an agent of security groups, with a world for a database."""

    def set_world(self, world):
        """Take what there is from now on.

        :raises Exception: the REST API refuses one of its rules
        """
        for rule in world['rules']:
            rule.setdefault('project_id', 'demo')
            self._validate_base_security_group_rule_attributes(rule)
        self._world = world

    # Called by the agent, over the queue. Source: neutron/agent/
    # securitygroups_rpc.py; the server's side is in neutron/api/rpc/handlers/
    # securitygroups_rpc.py, SecurityGroupServerRpcCallback.

    def security_group_info_for_devices(self, context, devices):
        info = self.security_group_info_for_ports(context, {
            port['id']: dict(
                port, security_group_rules=[],
                security_group_source_groups=[],
                security_group_remote_address_groups=[],
                fixed_ips=[each['ip_address'] for each in port['fixed_ips']])
            for port in self._world['ports']
            if port.get('device') in devices
            and not net.is_port_trusted(port)})
        return json.loads(json.dumps(info, default=sorted_list))

    # Instead of the database.

    def _select_sg_ids_for_ports(self, context, ports):
        return {(group,) for port in ports.values()
                for group in port['security_groups']}

    def _select_rules_for_ports(self, context, ports):
        return [(port['id'], rule) for port in ports.values()
                for rule in self._world['rules']
                if rule['security_group_id'] in port['security_groups']]

    def _select_ips_for_remote_group(self, context, groups):
        found = {group: set() for group in groups}
        for port in self._world['ports']:
            # Of a port without address a join of tables has no row.
            if not port['fixed_ips']:
                continue
            for group in found.keys() & set(port['security_groups']):
                found[group].update(
                    (each['ip_address'], None) for each in port['fixed_ips'])
                found[group].update(
                    (pair['ip_address'], pair['mac_address'])
                    for pair in port['allowed_address_pairs'])
        return found

    def _select_ips_for_remote_address_group(self, context, groups):
        return {group: {(address, None) for address
                        in self._world['address_groups'][group]}
                for group in groups}

    def _get_sgs_stateful_flag(self, context, groups):
        return {group: self._world['stateful'][group] for group in groups}


def sorted_list(values):
    """Return the same for a set each time, as JSON has none."""
    return sorted(values, key=str)


def load_arp_protect(packages):
    """Return a module of Neutron 25, which goes with this Neutron's.

    :param packages: the directory of all that is installed there
    """
    specification = importlib.util.spec_from_file_location(
        'arp_protect', os.path.join(packages, _ARP_PROTECT))
    found = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(found)
    return found


class Host:
    """An agent's part for security groups, on this host.

    :param packages: of Neutron 25, if rules of ebtables are wanted
    """

    def __init__(self, packages=None):
        self._arp_protect = packages and load_arp_protect(packages)
        self._server = Server()
        self._agent = securitygroups_rpc.SecurityGroupAgentRpc(
            None, self._server)
        if type(self._agent.firewall).__name__ != 'IptablesFirewallDriver':
            raise RuntimeError(type(self._agent.firewall))
        self._devices = set()

    def apply(self, world):
        """Have a world instead of what was there; return what the RPC says."""
        self._server.set_world(world)
        self._agent.remove_devices_filter(self._devices)
        self._devices = {port['device'] for port in world['ports']
                         if port.get('device')}
        self._agent.prepare_devices_filter(self._devices)
        if self._arp_protect:
            for port in world['ports']:
                if port.get('device'):
                    self._arp_protect.setup_arp_spoofing_protection(
                        port['device'], port)
        return self._server.security_group_info_for_devices(
            None, self._devices)


def enter(namespace):
    """Be in a network namespace, given by the path of its file."""
    descriptor = os.open(namespace, os.O_RDONLY)
    if ctypes.CDLL(None).setns(descriptor, _CLONE_NEWNET) != 0:
        raise OSError('%s: no way in' % namespace)
    os.close(descriptor)


def configure(directory):
    neutron_conf.register_core_common_config_opts()
    agent_conf.register_root_helper(cfg.CONF)
    agent_conf.register_iptables_opts(cfg.CONF)
    agent_conf.register_agent_state_opts_helper(cfg.CONF)
    cfg.CONF([], project='neutron', default_config_files=[])
    cfg.CONF.set_override('lock_path', directory, 'oslo_concurrency')
    cfg.CONF.set_override('root_helper', '', 'AGENT')
    cfg.CONF.set_override('firewall_driver', 'iptables', 'SECURITYGROUP')
    for context in (privileged.default, privileged.conntrack_cmd,
                    privileged.namespace_cmd):
        context.set_client_mode(False)


def main(namespace, directory, *packages):
    """Answer each line of JSON by one: a world by what an agent is told."""
    sys.argv[0] = _PROGRAM
    enter(namespace)
    configure(directory)
    host = Host(*packages)
    print(json.dumps({'ready': firewall.__name__}), flush=True)
    for line in sys.stdin:
        print(json.dumps(host.apply(json.loads(line))), flush=True)


if __name__ == '__main__':
    status = 1
    try:
        main(*sys.argv[1:])
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        # What deletes connections is a thread of it that never ends.
        sys.stderr.flush()
        os._exit(status)
