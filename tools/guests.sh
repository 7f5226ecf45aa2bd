#!/bin/sh
# Set up what tests with real guests need: libvirt with QEMU, ping, and what the
# guests boot. As root.
set -eu
cd "$(dirname "$0")/.."
. tools/venv.sh

# Guests have a kernel of Debian's or Ubuntu's; elsewhere, what needs them is
# skipped.
[ -x /usr/bin/apt-get ] && [ "$(uname -m)" = x86_64 ] || exit 0
tools/guest_image.sh

# None of them starts anything: that would be libvirt-daemon-system.
for program in libvirtd virsh qemu-system-x86_64 busybox ping; do
    command -v $program > /dev/null || {
        apt_get install -y --no-install-recommends libvirt-daemon \
            libvirt-daemon-driver-qemu libvirt-clients qemu-system-x86 \
            busybox-static iputils-ping
        break
    }
done

# What libvirt's Python binding is built with.
find_python
pkg-config --exists libvirt 2> /dev/null || apt_get install -y \
    --no-install-recommends libvirt-dev pkg-config gcc libc6-dev
[ -e "$("$python" -c 'import sysconfig
print(sysconfig.get_path("include"))')/Python.h" ] || apt_get install -y \
    --no-install-recommends python3-dev
make_bare_venv libvirt libvirt-python
