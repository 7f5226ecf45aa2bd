#!/bin/sh
# Make the RPMs of what is committed here, or of an unpacked sdist, in a
# directory. Arguments after it go to rpmbuild, which says what is missing: all
# of "BuildRequires" in rpm/vif-plug-tapmac.spec.
# shellcheck source=tools/target.sh
. "$(dirname "$0")/../tools/target.sh"

spec=packaging/rpm/vif-plug-tapmac.spec
name=vif_plug_tapmac-$(sed -n 's/^Version: *//p' $spec)
mkdir "$work/$name"
if [ -e .git ]; then
    git archive HEAD | tar -x -C "$work/$name"
else
    cp -a . "$work/$name"
fi
tar -czf "$work/$name.tar.gz" -C "$work" "$name"
rpmbuild -bb --define "_topdir $work/rpmbuild" --define "_sourcedir $work" \
    --define "_rpmdir $target" "$@" "$work/$name/$spec"
