#!/bin/sh
# Make what a guest boots, for tests and for a first look: a distribution's
# kernel, and busybox with guest_init.sh in its memory. Leaves "kernel" and
# "initrd" in .venv/guest/, or in the directory that is the argument.
set -eu
cd "$(dirname "$0")/.."
. tools/venv.sh

# dependency PACKAGE PREFIX: the package PREFIX-<version> that it depends on.
dependency() {
    apt-cache depends "$1" 2> /dev/null |
        sed -n "s/^ *Depends: \($2-[0-9].*\)/\1/p"
}

# The kernel for virtual machines: Debian's, else Ubuntu's, which has its
# modules in another package.
kernel_packages() {
    image=$(dependency linux-image-cloud-amd64 linux-image)
    image=${image:-$(dependency linux-image-virtual linux-image)}
    [ -z "$image" ] || echo "$image $(dependency "$image" linux-modules)"
}

find_busybox() {
    find "$guest/root/" -path '*bin/busybox' -type f 2> /dev/null
}

# Never installed, only unpacked: this machine boots what it did before.
guest=$PWD/.venv/guest
if [ -z "$(find_busybox)" ]; then
    rm -rf "$guest"
    mkdir -p "$guest"
    [ -n "$(kernel_packages)" ] || apt_get update
    packages=$(kernel_packages)
    [ -n "$packages" ] || die 'needs a kernel of Debian or Ubuntu, for amd64'
    # shellcheck disable=SC2086 # These are several words.
    (cd "$guest" && apt_get download busybox-static $packages)
    for package in "$guest"/*.deb; do
        dpkg-deb -x "$package" "$guest/unpacked"
    done
    rm "$guest"/*.deb
    mv "$guest/unpacked" "$guest/root"
fi
busybox=$(find_busybox)

target=${1:-$guest}
initrd=$(mktemp -d)
trap 'rm -rf "$initrd"' EXIT
mkdir "$initrd/bin"
cp "$busybox" "$initrd/bin"
cp tools/guest_init.sh "$initrd/init"
chmod 755 "$initrd/init"
# What a guest's NIC and its power button need, unless the kernel has it built
# in. Some distributions compress them.
cd "$guest/root"
for module in lib/modules/*/kernel/drivers/virtio/*.ko* \
    lib/modules/*/kernel/drivers/net/virtio_net.ko* \
    lib/modules/*/kernel/drivers/net/net_failover.ko* \
    lib/modules/*/kernel/net/core/failover.ko* \
    lib/modules/*/kernel/drivers/acpi/button.ko* \
    lib/modules/*/kernel/drivers/input/evdev.ko*
do
    [ -e "$module" ] || continue
    copy=$initrd/${module%.xz}
    mkdir -p "${copy%/*}"
    case $module in
        *.xz) "$busybox" xz -dc "$module" > "$copy" ;;
        *) cp "$module" "$copy" ;;
    esac
done
cp boot/vmlinuz-* "$target/kernel"
cd "$initrd"
find . | "$busybox" cpio -o -H newc 2> /dev/null > "$target/initrd"
chmod 644 "$target/kernel" "$target/initrd"
