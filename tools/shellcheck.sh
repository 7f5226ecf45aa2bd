#!/bin/sh
# Check the style of all shell scripts. Arguments go to shellcheck.
set -eu
cd "$(dirname "$0")/.."
exec "${SHELLCHECK:-shellcheck}" -x "$@" .ci/run \
    devstack/override-defaults devstack/settings devstack/plugin.sh \
    etc/bash_completion.d/tapmac packaging/*.sh tools/*.sh
