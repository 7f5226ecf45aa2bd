#!/bin/sh
# Run a command of this checkout on another kernel.
set -eu
cd "$(dirname "$0")/.."
. tools/venv.sh

usage() {
    cat <<'USAGE'
Usage: tools/kernel.sh [OPTION...] VERSION COMMAND...

Run a command as root on another kernel, under QEMU, in emulation: the newest
Linux whose version begins with VERSION, as 5.10 or 6.1, that Debian has where
this machine gets its packages. The kernel is unpacked in .venv/kernel, never
installed. The command finds the files of this machine at their places, this
checkout and its environments, too; what it writes is gone afterwards. One
argument is a shell command, several are a program and what it is given.

  --net         a network card, whose other end is the loopback of this machine:
                10.0.2.2
  --memory MIB  default 2048
  --cpus N      default 2; its processors are as slow as threads of QEMU are
  --timeout S   seconds until it is stopped, 124 is returned; default 3600

The output of the command is shown, and kept with its status, with what the
kernel said, and with what the command leaves in /run/kept, in a directory that
is named at the end. Exit status: the command's; 125 if that never came to its
end.
USAGE
}

net='' memory=2048 cpus=2 timeout=3600
while [ $# -gt 0 ]; do
    case $1 in
        --net) net=1 ;;
        --memory | --cpus | --timeout)
            case ${2-} in
                '' | *[!0-9]* | 0*) usage >&2; exit 2 ;;
            esac
            eval "${1#--}=\$2"
            shift
            ;;
        -h | --help) usage; exit ;;
        -*) usage >&2; exit 2 ;;
        *) break ;;
    esac
    shift
done
[ $# -ge 2 ] || { usage >&2; exit 2; }
wanted=$1
shift
tools/kernel_image.sh "$wanted"
kernels=$PWD/.venv/kernel
kernel=$kernels/$wanted
export PATH="$PATH:/sbin:/usr/sbin"

available=$(sed -n 's/^MemAvailable: *\([0-9]*\).*/\1/p' /proc/meminfo)
[ $((available / 1024)) -gt "$memory" ] || die "Linux $wanted is to have $memory MiB of memory, and this machine has $((available / 1024)) left; --memory says how much"

mkdir -p "$kernels/kept"
kept=$(mktemp -d "$kernels/kept/$wanted-$(date +%Y%m%d-%H%M%S)-XXXX")
touch "$kept/log"
{
    echo "cd '$PWD'"
    # As it is here; what is set for this machine alone is not.
    export | grep -E '^export (TAPMAC|PYTHON)[A-Z_]*=' || :
    if [ $# = 1 ]; then
        printf '%s\n' "$1"
    else
        for word; do
            printf "'%s' " "$(printf %s "$word" | sed "s/'/'\\\\''/g")"
        done
        echo
    fi
} > "$kept/command"

set -- -machine q35 -accel tcg,thread=multi -cpu max,la57=off \
    -m "$memory" -smp "$cpus" -nodefaults -no-user-config -display none \
    -no-reboot -serial "file:$kept/console" -device virtio-rng-pci \
    -fsdev local,id=machine,path=/,security_model=none,readonly=on,multidevs=remap \
    -device virtio-9p-pci,fsdev=machine,mount_tag=machine \
    -fsdev "local,id=kept,path=$kept,security_model=none" \
    -device virtio-9p-pci,fsdev=kept,mount_tag=kept \
    -kernel "$kernel/vmlinuz" -initrd "$kernel/initrd"
if [ "$net" ]; then
    set -- "$@" -netdev user,id=net -device virtio-net-pci,netdev=net
fi
echo "Linux $(cat "$kernel/release") starts" >&2
qemu-system-x86_64 "$@" -append "console=ttyS0 quiet panic=-1 mitigations=off \
nokaslr clocksource=hpet audit=0 apparmor=0 random.trust_cpu=on \
tapmac.checkout=$PWD tapmac.modules=$kernel/lib/modules tapmac.net=$net" \
    > "$kept/qemu" 2>&1 < /dev/null &
qemu=$!
trap 'kill $qemu 2> /dev/null || :' EXIT
trap 'exit 130' INT TERM HUP
tail -q -n +1 -s 0.2 -f --pid=$qemu "$kept/log" &
shown=$!
since=$(date +%s) late=''
while kill -0 $qemu 2> /dev/null; do
    sleep 0.5
    if [ $(($(date +%s) - since)) -ge "$timeout" ]; then
        late=1
        kill $qemu 2> /dev/null || :
    fi
done
wait $qemu || :
wait $shown || :
if [ -e "$kept/status" ]; then
    status=$(cat "$kept/status")
elif [ "$late" ]; then
    echo "Linux $wanted: stopped after $timeout s" >&2
    status=124
else
    cat "$kept/qemu" >&2
    tail -n 20 "$kept/console" >&2
    echo "Linux $wanted ended before the command did" >&2
    status=125
fi
echo "Linux $wanted ran for $(($(date +%s) - since)) s, see $kept" >&2
exit "$status"
