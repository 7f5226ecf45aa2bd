#!/bin/sh
# kernel_image.sh VERSION...: set up what kernel.sh boots: of each version the
# newest Linux of Debian's that begins so, as 5.10 or 6.1, and what it starts
# with. Leaves "vmlinuz", "initrd", "release" and "lib/modules" in
# .venv/kernel/VERSION.
set -eu
cd "$(dirname "$0")/.."
. tools/venv.sh

kernels=$PWD/.venv/kernel
apt=$kernels/apt
# What it takes to get from the initial memory disk to the files of this machine.
modules='virtio_pci 9pnet_virtio 9p overlay virtio_rng'

[ "$(uname -m)" = x86_64 ] || die "runs kernels for x86_64 only; this machine is $(uname -m)"
missing=''
program() {
    PATH=$PATH:/sbin:/usr/sbin command -v "$1" > /dev/null || missing="$missing $2"
}
program qemu-system-x86_64 qemu-system-x86
program busybox busybox-static
program depmod kmod
if [ -n "$missing" ]; then
    # shellcheck disable=SC2086 # These are several.
    apt_get install -y --no-install-recommends $missing
fi
PATH=$PATH:/sbin:/usr/sbin
export PATH

# An apt beside this machine's own, for all releases of Debian that have a
# kernel of their own.
# shellcheck disable=SC2329 # Called by step.
make_apt() {
    mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$apt/parts"
    keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    signed=''
    [ ! -e "$keyring" ] || signed=" [signed-by=$keyring]"
    for suite in bullseye bookworm trixie trixie-backports; do
        echo "deb$signed $site $suite main"
        case $suite in
            *-backports) ;;
            *) echo "deb$signed $site-security $suite-security main" ;;
        esac
    done > "$apt/sources.list"
    cat > "$apt/apt.conf" <<CONF
Dir::State::Lists "$apt/lists";
Dir::Cache "$apt/cache";
Dir::Etc::SourceList "$apt/sources.list";
Dir::Etc::SourceParts "$apt/parts";
APT::Sandbox::User "$(id -un)";
APT::Get::List-Cleanup "false";
Acquire::Languages "none";
CONF
    APT_CONFIG=$apt/apt.conf apt-get update -q
}

# Those that are named VERSION and anything more, the newest one last.
images() {
    APT_CONFIG=$apt/apt.conf apt-cache pkgnames "linux-image-$1" |
        grep -E '^linux-image-[0-9.]+(-[0-9]+)?([+]deb[0-9.]+)?-amd64$' |
        sort -V
}

# shellcheck disable=SC2329 # Called by step.
unpack_kernel() {
    # Newer ones are in several packages.
    parts=$(APT_CONFIG=$apt/apt.conf apt-cache depends "$image" |
        sed -nE 's/^ *Depends: (linux-(base|binary|modules)-.*)/\1/p')
    rm -rf "$kernel.partial"
    mkdir -p "$kernel.partial"
    # shellcheck disable=SC2086 # These are several, or none.
    (cd "$kernel.partial" && APT_CONFIG=$apt/apt.conf \
        apt-get download -q "$image" $parts) || return
    for package in "$kernel.partial"/*.deb; do
        dpkg-deb -x "$package" "$kernel.partial" || return
        rm "$package"
    done
    [ -e "$kernel.partial/lib" ] || ln -s usr/lib "$kernel.partial/lib"
    release=$(basename "$kernel.partial"/lib/modules/*)
    cp "$kernel.partial"/boot/vmlinuz-* "$kernel.partial/vmlinuz" 2> /dev/null ||
        cp "$kernel.partial/lib/modules/$release/vmlinuz" "$kernel.partial" ||
        return
    depmod -b "$kernel.partial" "$release" || return
    echo "$release" > "$kernel.partial/release"
    mv "$kernel.partial" "$kernel"
}

get_kernel() {
    if [ ! "${site-}" ]; then
        find_site
        step 'Looking for kernels' make_apt
    fi
    image=$(images "$wanted." | tail -n 1)
    [ "$image" ] || die "Debian, where this machine gets it, has no Linux $wanted; it has $(images '' | sed -E 's/linux-image-([0-9]+\.[0-9]+).*/\1/' | uniq | paste -s -d ' ')"
    step "Unpacking Linux $wanted" unpack_kernel
}

# shellcheck disable=SC2329 # Called by step.
make_initrd() {
    release=$(cat "$kernel/release")
    initrd=$kernel/initrd.partial
    rm -rf "$initrd"
    mkdir -p "$initrd/bin" "$initrd/modules"
    cp "$(command -v busybox)" "$initrd/bin/busybox"
    cp tools/kernel_init.sh "$initrd/init"
    chmod 755 "$initrd/init"
    # shellcheck disable=SC2086 # These are several.
    for module in $modules; do
        modprobe -d "$kernel" -S "$release" --show-depends "$module"
    done | sed -n 's/^insmod \([^ ]*\).*/\1/p' | awk '!seen[$0]++' |
        while read -r file; do
            number=$((${number:-100} + 1))
            copy=$initrd/modules/$number
            case $file in
                *.xz) busybox xz -dc "$file" > "$copy" ;;
                *.gz) busybox gzip -dc "$file" > "$copy" ;;
                *) cp "$file" "$copy" ;;
            esac
        done
    (cd "$initrd" && find . | busybox cpio -o -H newc) > "$kernel/initrd.new"
    rm -r "$initrd"
    mv "$kernel/initrd.new" "$kernel/initrd"
}

[ $# -gt 0 ] || die 'which version of Linux, as 6.1?'
for wanted; do
    case $wanted in
        *[!0-9.]* | [!0-9]*) die "$wanted is no version of Linux, as 6.1 is" ;;
    esac
done
mkdir -p "$kernels" 2> /dev/null || die "cannot write in $PWD/.venv"
# Whoever comes while another one is at it waits.
exec 9> "$kernels/lock"
flock 9
for wanted; do
    kernel=$kernels/$wanted
    [ -e "$kernel/release" ] || get_kernel
    if ! [ "$kernel/initrd" -nt tools/kernel_init.sh ] ||
        ! [ "$kernel/initrd" -nt tools/kernel_image.sh ]
    then
        step "Making what Linux $wanted starts with" make_initrd
    fi
done
