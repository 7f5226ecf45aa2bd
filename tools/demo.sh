#!/bin/sh
# Show a guest's TAP come and go on a bridge, in a network namespace of its own.
# Sets up what it needs in .venv/. Arguments go to "tapmac demo".
set -eu
cd "$(dirname "$0")/.."
. tools/venv.sh
make_venv demo
exec "$venv/bin/tapmac" demo "$@"
