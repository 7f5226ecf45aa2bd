#!/bin/sh
# Make the packages of Debian of what is committed here, or of an unpacked
# sdist, in a directory. Arguments after it go to dpkg-buildpackage, which says
# what is missing: all of "Build-Depends" in debian/control.
set -eu
[ $# -gt 0 ] || { echo "usage: $0 DIRECTORY [ARGUMENT...]" >&2; exit 2; }
mkdir -p "$1"
target=$(cd "$1" && pwd)
shift
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
umask 022

mkdir "$work/source"
if [ -e .git ]; then
    git archive HEAD | tar -x -C "$work/source"
else
    cp -a . "$work/source"
fi
cp -a packaging/debian "$work/source/debian"
cd "$work/source"
dpkg-buildpackage -b -us -uc "$@"
cp "$work"/*.deb "$work"/*.changes "$work"/*.buildinfo "$target"
