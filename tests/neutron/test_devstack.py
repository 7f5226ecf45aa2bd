# SPDX-License-Identifier: Apache-2.0

"""The plugin for DevStack has what the cloud of tools/cloud.sh has.

That one is seen to work. What differs, and why, is in one table.
"""

import pathlib

import fixtures

from tests import base
from tests.cloud import compute
from tests.cloud import control
from tests import devstack
from tests.neutron import cloud
from tests.neutron import hypervisor
from tests.neutron import network_node

#: What local.conf says for such a cloud, on one host.
_SERVICES = 'q-svc,n-cpu,tapmac-agent,q-dhcp,q-meta'
_LOCAL = {'TAPMAC_BRIDGE_UPLINKS': 'br100:eth1', 'TAPMAC_BRIDGE_MAPPINGS':
          '%s:%s' % (hypervisor.PHYSNET, hypervisor.BRIDGE)}

#: Where the two differ: by the reason, the options of each file.
DIFFERENCES = {
    'where things are, which DevStack itself says for its own': {
        'neutron': 'DEFAULT.state_path DEFAULT.api_paste_config '
                   'DEFAULT.transport_url database.connection nova.endpoint '
                   'oslo_concurrency.lock_path',
        'nova': 'DEFAULT.state_path DEFAULT.transport_url DEFAULT.my_ip '
                'DEFAULT.instances_path wsgi.api_paste_config '
                'neutron.endpoint_override glance.endpoint_override '
                'placement.endpoint placement.endpoint_override '
                'oslo_concurrency.lock_path',
        'dhcp': 'DEFAULT.state_path DEFAULT.transport_url '
                'DEFAULT.dnsmasq_dns_servers '
                'DEFAULT.nova_metadata_host DEFAULT.nova_metadata_port '
                'oslo_concurrency.lock_path',
        'agent': 'DEFAULT.state_path oslo_concurrency.lock_path'},
    'there is a Keystone, by which services know each other': {
        'neutron': 'DEFAULT.auth_strategy nova.auth_type',
        'nova': 'neutron.auth_type placement.auth_type placement.token'},
    'metadata: DevStack tells both sides no secret': {
        'nova': 'neutron.metadata_proxy_shared_secret',
        'dhcp': 'DEFAULT.metadata_proxy_shared_secret'},
    'tapmac-agent reads neutron.conf of DevStack, too': {
        'agent': 'DEFAULT.transport_url'},
    'two hosts are one machine here: a name, libvirt and sockets of its own': {
        'nova': 'DEFAULT.host libvirt.connection_uri '
                'libvirt.live_migration_uri',
        'agent': 'DEFAULT.host tapmac_agent.names_file',
        'dhcp': 'DEFAULT.host'},
    'no udev sees these hosts; that of DevStack does': {
        'nova': 'os_vif_tapmac.udev_timeout',
        'agent': 'os_vif_tapmac.udev_timeout'},
    'all is root here; with DevStack sudo and rootwrap make it so': {
        'nova': 'vif_plug_tapmac_privileged.helper_command '
                'nova_sys_admin.helper_command',
        'agent': 'tapmac_agent_privileged.helper_command',
        'dhcp': 'AGENT.root_helper DEFAULT.dnsmasq_config_file '
                'DEFAULT.metadata_proxy_user DEFAULT.metadata_proxy_group'},
    'DevStack has its own for all drivers, and so have hosts with KVM': {
        'nova': 'DEFAULT.compute_driver libvirt.virt_type vnc.enabled '
                'workarounds.disable_deep_image_inspection '
                'scheduler.discover_hosts_in_cells_interval'},
    'a small machine: few processes, and patience': {
        'neutron': 'DEFAULT.rpc_workers',
        'nova': 'DEFAULT.rpc_response_timeout conductor.workers '
                'scheduler.workers',
        'agent': 'DEFAULT.rpc_response_timeout',
        'dhcp': 'DEFAULT.rpc_response_timeout DEFAULT.metadata_workers'},
    'tests do not wait long for what was gone, or has changed': {
        'agent': 'oslo_messaging_rabbit.rabbit_retry_interval '
                 'oslo_messaging_rabbit.rabbit_retry_backoff',
        'dhcp': 'oslo_messaging_rabbit.rabbit_retry_interval '
                'oslo_messaging_rabbit.rabbit_retry_backoff '
                'AGENT.report_interval AGENT.check_child_processes_interval '
                'DEFAULT.resync_interval DEFAULT.resync_throttle'},
    'a host of the cloud boots, and its guests with it': {
        'nova': 'DEFAULT.resume_guests_state_on_host_boot'},
    'the default, said again': {
        'neutron': 'DEFAULT.dhcp_agents_per_network'},
    'nobody here reads metrics, and tests do': {
        'agent': 'tapmac_agent.metrics_file'},
}


def load_tests(loader, tests, pattern):
    return cloud.load_tests(tests, DevStackTest)


class _Values(dict[str, object]):
    """What a file has of one run is of no interest."""

    def __missing__(self, key):
        return 0


class DevStackTest(base.TestCase):

    def cloud(self):
        """Return what the cloud has, by file, section and option."""
        directory = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        found = {}
        for name, text in {
                'neutron': control.Control.TEMPLATE % _Values(
                    more=control.ML2_CONF),
                'nova': compute.nova_conf('compute1', directory) % _Values(
                    more=''),
                'agent': hypervisor.CONFIGURATION % _Values(
                    more=compute.AGENT_MORE, conntrack='required',
                    mappings=_LOCAL['TAPMAC_BRIDGE_MAPPINGS']),
                'dhcp': network_node.CONFIGURATION % _Values(more=''),
        }.items():
            (directory / name).write_text(text)
            found[name] = devstack.read(directory / name)
        return found

    def flat(self, files):
        return {(name, '%s.%s' % (section, option)): values[-1].lower()
                for name, sections in files.items() if name != 'said'
                for section, options in sections.items()
                for option, values in options.items()}

    def test_each_difference_has_its_reason(self):
        ours = self.flat(devstack.configure(self, _SERVICES, **_LOCAL))
        theirs = self.flat(self.cloud())
        differ = {key: (theirs.get(key), ours.get(key))
                  for key in ours.keys() | theirs.keys()
                  if ours.get(key) != theirs.get(key)}
        known = [(name, option) for files in DIFFERENCES.values()
                 for name, options in files.items()
                 for option in options.split()]
        self.assertEqual(sorted(set(known)), sorted(known))
        # What the cloud has, and what DevStack has.
        self.assertEqual({}, {key: differ[key] for key in differ
                              if key not in known})
        # No reason outlives its difference.
        self.assertEqual([], [key for key in known if key not in differ])
