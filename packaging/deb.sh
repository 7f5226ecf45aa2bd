#!/bin/sh
# Make the packages of Debian of what is committed here, or of an unpacked
# sdist, in a directory. Arguments after it go to dpkg-buildpackage, which says
# what is missing: all of "Build-Depends" in debian/control.
# shellcheck source=tools/target.sh
. "$(dirname "$0")/../tools/target.sh"

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
