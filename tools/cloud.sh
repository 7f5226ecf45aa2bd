#!/bin/sh
set -eu
from=$PWD
cd "$(dirname "$0")/.."
. tools/venv.sh

usage() {
    cat <<'USAGE'
Usage: tools/cloud.sh [--run FILE]

Have a small cloud on this machine, and a shell in it where "openstack" works:
Neutron with tapmac's mechanism driver, DHCP and metadata, placement, Glance,
Nova, and two compute hosts, compute1 and compute2, with tapmac, tapmac-agent,
libvirt and QEMU's emulation. There is no Keystone: whoever asks may do
everything. The shell is where the gateway of the data centre is, 192.0.2.1, on
the wire of both hosts, physnet1.

It is in namespaces of its own, never touches the links of this machine, and
ends with the shell, or when it is killed, with all guests and networks. Where
the kernel knows no connections on bridges, security groups have to be
stateless; it says so.

  --run FILE  run a shell script there instead, and exit as that does

As root, on Debian or Ubuntu, with Python 3.11 or newer. The first time it sets
up what it needs in .venv/ and installs QEMU and libvirt, without their
services, where they are missing. Needs 3 GB of disk and 5 GB of memory.
USAGE
}

script=''
while [ $# -gt 0 ]; do
    case $1 in
        --run)
            [ $# = 2 ] || { usage >&2; exit 2; }
            script=$(cd "$from" && realpath -e -- "$2") || exit 2
            shift
            ;;
        -h | --help) usage; exit ;;
        *) usage >&2; exit 2 ;;
    esac
    shift
done

can_install || die 'has to be run as root, who may make namespaces and install packages'
find_python
is_python_311 || die 'needs Python 3.11 or newer, as Nova and Neutron do; PYTHON=/path/to/python3 names another'
tools/services.sh
venv=$PWD/.venv/cloud

# All that is written is in memory, and goes with the namespaces.
state=$(mktemp -d)
trap 'rmdir "$state"' EXIT
export state
# shellcheck disable=SC2016 # The inner shell expands it.
setpriv --pdeathsig KILL unshare --mount --pid --fork --kill-child --mount-proc \
    sh -c 'mount -t tmpfs -o mode=755 tmpfs "$state" && TMPDIR=$state exec "$@"' sh \
    "$venv/bin/python" -W ignore -m tests.cloud ${script:+--run "$script"}
