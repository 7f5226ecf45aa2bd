#!/bin/sh
# Set up the programs that tests run: ip, ping, setpriv, strace, sudo, and a
# udevd. Without the right to install, say what is missing; the tests that need
# it are skipped.
set -eu
cd "$(dirname "$0")/.."
. tools/venv.sh

# program COMMAND PACKAGE
missing=''
program() {
    command -v "$1" > /dev/null || missing="$missing $2"
}
program ip iproute2
program ping iputils-ping
program setpriv util-linux
program strace strace
program sudo sudo
if [ -n "$missing" ]; then
    if [ -x /usr/bin/apt-get ] && can_install; then
        # shellcheck disable=SC2086 # These are several.
        apt_get install -y --no-install-recommends $missing
    else
        echo "Tests that need what is missing are skipped:$missing" >&2
    fi
fi

# Never installed, only unpacked: a udevd that starts here would change the
# links of this machine.
udev=$PWD/.venv/udev
if ! command -v udevadm > /dev/null && [ ! -d "$udev/root" ] &&
    [ -x /usr/bin/apt-get ] && can_install
then
    mkdir -p "$udev/partial"
    apt_get install -y --download-only --no-install-recommends \
        -o "Dir::Cache::archives=$udev" udev
    for package in "$udev"/*.deb; do
        dpkg-deb -x "$package" "$udev/unpacked"
    done
    mv "$udev/unpacked" "$udev/root"
fi
