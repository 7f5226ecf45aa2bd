#!/bin/sh
# Set up what tests with real guests need: libvirt with QEMU, and a kernel and
# busybox for the guests. As root.
set -eu
cd "$(dirname "$0")/.."
. tools/venv.sh

# Guests have a kernel of Debian's; elsewhere, what needs them is skipped.
guest_kernel() {
    apt-cache depends linux-image-cloud-amd64 2> /dev/null |
        sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p'
}
[ -n "$(guest_kernel)" ] || apt_get update
[ -n "$(guest_kernel)" ] || exit 0

guest=$PWD/.venv/guest
if [ ! -d "$guest/root" ]; then
    mkdir -p "$guest"
    (cd "$guest" && apt_get download "$(guest_kernel)")
    dpkg-deb -x "$guest"/*.deb "$guest/unpacked"
    rm "$guest"/*.deb
    mv "$guest/unpacked" "$guest/root"
fi

# None of them starts anything: that would be libvirt-daemon-system.
for program in libvirtd virsh qemu-system-x86_64 busybox; do
    command -v $program > /dev/null || {
        apt_get install -y --no-install-recommends libvirt-daemon \
            libvirt-daemon-driver-qemu libvirt-clients qemu-system-x86 \
            busybox-static
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
