#!/bin/sh
# Set up what packages of distributions are built with; in the long form, also a
# Debian 13 in .venv/, where they are built and installed. As root, on Debian.
set -eu
cd "$(dirname "$0")/.."
. tools/venv.sh

[ -x /usr/bin/apt-get ] && can_install || exit 0

tools='debhelper dh-python pybuild-plugin-pyproject python3-all rpm'
# shellcheck disable=SC2086 # These are several.
dpkg-query -W $tools > /dev/null 2>&1 ||
    apt_get install -y --no-install-recommends $tools

case ${TAPMAC_LONG:-0} in 0) exit 0 ;; esac
debian=.venv/debian-13
[ ! -x $debian/root/usr/bin/systemd-analyze ] || exit 0
command -v mmdebstrap > /dev/null ||
    apt_get install -y --no-install-recommends mmdebstrap
# All that "Build-Depends" and "Depends" ask for; systemd, which does not run
# there, to look at units.
packages=$(sed -n 's/^ \([a-z][a-z0-9.+-]*\) *\((.*)\)\?\( <.*>\)\?,$/\1/p' \
    packaging/debian/control | grep -vE '^(tapmac|debhelper-compat|.*vif-plug-.*|.*neutron.*|python3-(libvirt|openstacksdk))' |
    sort -u | tr '\n' ,)
find_site
rm -rf $debian/unpacked $debian/root
mkdir -p $debian
step 'Setting up .venv/debian-13' mmdebstrap --variant=apt \
    --include="${packages}build-essential,debhelper,nftables,systemd" \
    trixie $debian/unpacked "$site"
mv $debian/unpacked $debian/root
