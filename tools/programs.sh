#!/bin/sh
# Set up the programs that tests run: ip, ping, setpriv, strace, sudo, iptables,
# nft, ipset, conntrack, a udevd, systemd-networkd, ifupdown2 and NetworkManager.
# Without the right to install, say what is missing; the tests that need it are
# skipped.
set -eu
cd "$(dirname "$0")/.."
. tools/venv.sh

# program COMMAND PACKAGE
missing=''
program() {
    command -v "$1" > /dev/null || missing="$missing $2"
}
program /usr/bin/python3 python3
program ip iproute2
program ping iputils-ping
program setpriv util-linux
program strace strace
program sudo sudo
program iptables-nft-restore iptables
program nft nftables
if [ -n "$missing" ]; then
    if [ -x /usr/bin/apt-get ] && can_install; then
        # shellcheck disable=SC2086 # These are several.
        apt_get install -y --no-install-recommends $missing
    else
        echo "Tests that need what is missing are skipped:$missing" >&2
    fi
fi

command -v udevadm > /dev/null || unpack udev udev
[ -e /lib/systemd/systemd-networkd ] || unpack networkd systemd
# Where there is no message bus either, it comes with it.
[ -e /usr/sbin/NetworkManager ] || unpack networkmanager network-manager
# What Neutron's own driver of a firewall runs.
{ command -v ipset && command -v conntrack; } > /dev/null ||
    unpack firewall ipset conntrack
if [ ! -e /usr/share/ifupdown2 ] && [ ! -d .venv/ifupdown2/root ]; then
    unpack ifupdown2 ifupdown2
    # Where it runs nobody keeps what Python has compiled.
    ! [ -d .venv/ifupdown2/root ] ||
        /usr/bin/python3 -m compileall -q .venv/ifupdown2/root/usr/share
fi
# As the package does when it is installed.
! [ -d .venv/ifupdown2/root ] ||
    chmod +x .venv/ifupdown2/root/usr/share/ifupdown2/__main__.py
