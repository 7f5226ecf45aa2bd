#!/bin/sh
# Set up what a cloud of one's own runs: its services, libvirt with QEMU, and
# what its guests boot. As root.
set -eu
cd "$(dirname "$0")/.."
. tools/venv.sh

tools/guests.sh
for program in ip nft qemu-img genisoimage; do
    command -v $program > /dev/null || {
        apt_get install -y --no-install-recommends iproute2 nftables \
            qemu-utils genisoimage
        break
    }
done
unpack mariadb mariadb-server-core
unpack rabbitmq rabbitmq-server
unpack dhcp dnsmasq-base dnsmasq-utils haproxy
make_venv cloud -r tests/cloud/requirements.txt
