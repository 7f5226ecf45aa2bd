#!/bin/sh
# Set up what some tests run against: os-vif alone, and, for root only, because
# their tests need it, Nova, Neutron, sudo, ip, strace, udev, and what guests.sh
# and neutron.sh do.
set -eu
cd "$(dirname "$0")/.."
. tools/venv.sh

# What its own unit tests need beside it is testtools.
make_bare_venv os-vif-4.3.1 os-vif==4.3.1 testtools
if is_python_311; then
    make_bare_venv os-vif-5.3.0 os-vif==5.3.0 testtools
fi

[ "$(id -u)" = 0 ] || exit 0

for name in $(peer_venvs nova) $(peer_venvs neutron); do
    make_peer_venv "$name"
done

command -v sudo > /dev/null || apt_get install -y sudo
command -v ip > /dev/null || apt_get install -y iproute2
command -v strace > /dev/null || apt_get install -y strace

# Never installed, only unpacked: a udevd that starts here would change the
# links of this machine.
udev=$PWD/.venv/udev
if ! command -v udevadm > /dev/null && [ ! -d "$udev/root" ]; then
    mkdir -p "$udev/partial"
    apt_get install -y --download-only --no-install-recommends \
        -o "Dir::Cache::archives=$udev" udev
    for package in "$udev"/*.deb; do
        dpkg-deb -x "$package" "$udev/unpacked"
    done
    mv "$udev/unpacked" "$udev/root"
fi

tools/guests.sh
tools/neutron.sh
