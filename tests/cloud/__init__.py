# SPDX-License-Identifier: Apache-2.0

"""A whole small cloud on one machine, for a first look and for tests.

tools/cloud.sh runs it, in namespaces that end with it. Real are MariaDB,
RabbitMQ, placement, Glance, Neutron with its DHCP and metadata agents, Nova,
libvirt with QEMU's emulation, and ours. Not real is Keystone: in its place is
:mod:`tests.cloud.user`.
"""
