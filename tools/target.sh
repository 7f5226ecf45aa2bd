# shellcheck shell=sh
# For scripts that make in a directory what others get. To be sourced with their
# arguments, of which the directory goes; it is in $target then, $work is
# another one, which goes at the end, and we are at the top of the checkout.
set -eu
[ $# -gt 0 ] || { echo "usage: $0 DIRECTORY [ARGUMENT...]" >&2; exit 2; }
mkdir -p "$1"
# shellcheck disable=SC2034 # For who sources this.
target=$(cd "$1" && pwd)
shift
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
umask 022
