#!/bin/sh
# Set up what tests with a real neutron-server need: MariaDB, and the Novas that
# its ports go to.
set -eu
cd "$(dirname "$0")/.."
. tools/venv.sh

# Never installed, only unpacked: it would start as a service of this machine.
mariadb=$PWD/.venv/mariadb
if [ ! -d "$mariadb/root" ]; then
    mkdir -p "$mariadb/partial"
    apt_get install -y --download-only --no-install-recommends --reinstall \
        -o "Dir::Cache::archives=$mariadb" mariadb-server-core
    for package in "$mariadb"/*.deb; do
        dpkg-deb -x "$package" "$mariadb/unpacked"
    done
    rm "$mariadb"/*.deb
    mv "$mariadb/unpacked" "$mariadb/root"
fi

for name in $(peer_venvs nova); do
    make_peer_venv "$name"
done
