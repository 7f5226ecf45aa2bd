#!/bin/sh
# Make an sdist, and a wheel from it, of what is committed here, in a directory;
# the same commit makes the same bytes. Of a commit without a tag, they are of
# a version before the next. PYTHON has the module "build"; arguments after the
# directory go to it.
# shellcheck source=tools/target.sh
. "$(dirname "$0")/target.sh"

SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
git clone -q . "$work/source"
cd "$work/source"
"${PYTHON:-python3}" -m build --sdist "$@" -o "$work/made" .

# Archives keep the time at which each file was written, and who wrote it.
mkdir "$work/unpacked"
for made in "$work"/made/*.tar.gz; do
    name=${made##*/}
    tar -xzf "$made" -C "$work/unpacked"
    tar -cf - -C "$work/unpacked" --format=gnu --sort=name \
        --mtime="@$SOURCE_DATE_EPOCH" --mode=u+rw,go=rX --owner=0 --group=0 \
        --numeric-owner "${name%.tar.gz}" | gzip -n9 > "$target/$name"
    "${PYTHON:-python3}" -m build --wheel "$@" -o "$target" \
        "$work/unpacked/${name%.tar.gz}"
done
