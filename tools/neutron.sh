#!/bin/sh
# Set up what tests with a real neutron-server need: MariaDB, RabbitMQ, what its
# DHCP and L3 agents run, and the Novas that its ports go to.
set -eu
cd "$(dirname "$0")/.."
. tools/venv.sh

unpack mariadb mariadb-server-core
unpack rabbitmq rabbitmq-server
unpack dhcp dnsmasq-base dnsmasq-utils haproxy
# A guest whose DHCP is of IPv6, which no busybox knows.
unpack dhclient isc-dhcp-client
unpack routers keepalived conntrack radvd

for name in $(peer_venvs nova); do
    make_peer_venv "$name"
done
