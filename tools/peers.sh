#!/bin/sh
# Set up what some tests run against: Nova, sudo and udev. Their tests need
# root, so there is nothing to do for anybody else.
set -eu
cd "$(dirname "$0")/.."
. tools/venv.sh
[ "$(id -u)" = 0 ] || exit 0

make_venv nova-33 'nova>=33,<34' 'os-vif<5'
# Nova 34 needs Python 3.11.
if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    make_venv nova-34 'nova>=34,<35'
fi

command -v sudo > /dev/null || apt_get install -y sudo

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
