# SPDX-License-Identifier: Apache-2.0

"""nova-compute on a host that has guests already; says "started" once it has.

To be run by the Python of a Nova, with nova-compute's own arguments, and with
a JSON list on the standard input: for each guest its uuid and name, and its
VIFs as Nova keeps them; an empty list once the database has them. Exits as
nova-compute does.

All is Nova's own, from the command line through os-vif to the privsep daemon,
but for

- the hypervisor, if nova.conf has fake.TapMacDriver: that is Nova's fake
  driver, with the libvirt driver's way to plug;
- the conductor: it is across RPC, so we ask the database ourselves;
- Placement: down, but only after a client of it could be made;
- the VIF type "tapmac": no Nova knows it.

RPC is oslo.messaging's fake transport: what is cast reaches nobody.
"""

# First, because it decides how this Nova runs: Eventlet or native threads.
from nova.cmd import compute

import json
import sys

from keystoneauth1 import adapter
from keystoneauth1 import noauth
from keystoneauth1 import session
from nova.compute import power_state
from nova.compute import vm_states
from nova.conductor import rpcapi as conductor_rpcapi
import nova.conf
from nova import context as nova_context
from nova.db.main import api as database
from nova.db import migration
from nova.network import model
from nova.network import os_vif_util
from nova import objects
from nova import service
from nova import utils
from nova.virt import fake
from nova.virt import hardware
from nova.virt.libvirt import driver as libvirt_driver
from nova.virt.libvirt import vif as libvirt_vif
from nova.virt import node
from os_vif.objects import vif as vif_objects

CONF = nova.conf.CONF
VIF_TYPE = 'tapmac'
NODE = '0d000000-0000-4000-8000-000000000000'


class Driver(fake.FakeDriverWithoutFakeNodes):
    """A hypervisor whose guests run, and whose VIFs are plugged for real."""

    plug_vifs = libvirt_driver.LibvirtDriver.plug_vifs

    def __init__(self, virtapi):
        super().__init__(virtapi)
        self.vif_driver = libvirt_vif.LibvirtGenericVIFDriver()

    def get_info(self, instance, use_cache=True):
        return hardware.InstanceInfo(state=power_state.RUNNING)


def fill_database(guests):
    """Have a host in the database that was started before, with guests."""
    migration.db_sync()
    context = nova_context.get_admin_context()
    objects.Service(
        context, host=CONF.host, binary='nova-compute', topic='compute',
        report_count=0).create()
    node.write_local_node_uuid(NODE)
    compute_node = objects.ComputeNode(
        context, uuid=NODE, host=CONF.host, hypervisor_hostname=CONF.host,
        hypervisor_type='fake', hypervisor_version=1, cpu_info='', vcpus=8,
        vcpus_used=0, memory_mb=8192, memory_mb_used=0, local_gb=8,
        local_gb_used=0)
    compute_node.create()
    for guest in guests:
        add_guest(context, compute_node, **guest)


def add_guest(context, compute_node, uuid, name, vifs):
    """Have a running guest in the database."""
    flavor = objects.Flavor(
        id=1, flavorid='1', name='tiny', memory_mb=1, vcpus=1, root_gb=0,
        ephemeral_gb=0, swap=0, rxtx_factor=1.0, vcpu_weight=0,
        disabled=False, is_public=True, extra_specs={})
    instance = objects.Instance(
        context, host=CONF.host, node=CONF.host, compute_id=compute_node.id,
        project_id='demo', user_id='demo', uuid=uuid, display_name=name,
        vm_state=vm_states.ACTIVE, power_state=power_state.RUNNING,
        memory_mb=1, vcpus=1, root_gb=0, ephemeral_gb=0, flavor=flavor,
        old_flavor=None, new_flavor=None, system_metadata={}, metadata={})
    instance.create()
    instance.info_cache.network_info = model.NetworkInfo.hydrate(vifs)
    instance.info_cache.save()


def convert(vif, nova_to_osvif_vif=os_vif_util.nova_to_osvif_vif):
    """Convert a VIF to os-vif's, also one of the type no Nova knows yet."""
    if vif['type'] != VIF_TYPE:
        return nova_to_osvif_vif(vif)
    return os_vif_util._get_vif_instance(
        vif, vif_objects.VIFBridge, plugin='tapmac',
        vif_name=os_vif_util._get_vif_name(vif),
        bridge_name=vif['network']['bridge'])


def nobody_answers(service_type, **arguments):
    """Return a client of a service that is down.

    Nova's own asks for the service's version at once, and nova-compute ends
    if it cannot; all that it asks for later it does without.
    """
    return adapter.Adapter(session.Session(noauth.NoAuth()),
                           service_type=service_type,
                           endpoint_override='http://127.0.0.1:1')


def create(create_service=service.Service.create, **arguments):
    """Make the service, on a host that is known to have guests.

    Not before: nova.conf can be read only once, and now it has been.
    """
    guests = json.load(sys.stdin)
    if guests:
        fill_database(guests)
    return create_service(**arguments)


def start(server, start_service=service.Service.start):
    """Start the service, and say so."""
    start_service(server)
    print('started', flush=True)


def main():
    fake.TapMacDriver = Driver  # nova.conf: compute_driver
    os_vif_util.nova_to_osvif_vif = convert
    conductor_rpcapi.ConductorAPI = lambda: None
    database._check_db_access = lambda: None
    utils.get_sdk_adapter = nobody_answers
    service.Service.create = create
    service.Service.start = start
    return compute.main()


if __name__ == '__main__':
    sys.exit(main())
